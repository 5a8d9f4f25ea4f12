"""Validation of a label's readout by the idea of ICH Q2(R2): from known amounts to the error of an amount read.

A label whose assay is imprecise should weigh less, so that error goes into the weights of its observations.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from evbiodist.study import units
from evbiodist.study.calibration import (
    FloatArray,
    Scale,
    SigmaFrom,
    StandardCurve,
    Standards,
    Weighting,
    fit_standards,
    response_weights,
)
from evbiodist.study.estimate import student
from evbiodist.study.flags import join, split
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

ASSAY_COLUMNS = (
    "label", "quantity", "level", "value", "se", "ci_low", "ci_high", "unit", "n", "method", "flags", "reason",
)  # fmt: skip
"""Columns of assay_validation.csv, in order; `level` is the nominal amount a row is about, NaN for the whole curve."""

_LINE = count()


def _known_unit(text: object) -> str:
    units.check(str(text))
    return str(text)


class Calibration(BaseModel):
    """One response of a sample of known content (a row of assay.csv)."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    label: str = Field(min_length=1)
    nominal: float | None = Field(default=None, ge=0)
    response: float
    unit: Annotated[str, BeforeValidator(_known_unit)]
    run: str = ""
    kind: Literal["standard", "blank", "qc"] = "standard"
    _line: int = PrivateAttr(default_factory=lambda: next(_LINE))  # every row is its own key

    @model_validator(mode="after")
    def _content(self) -> Self:
        if self.kind == "blank" and self.nominal:
            raise ValueError("a nominal amount of 0 for a blank")
        if self.kind != "blank" and self.nominal is None:
            raise ValueError(f"a nominal amount for every {self.kind}")
        return self


def read_assay(path: str | Path) -> list[Calibration]:
    """Read the calibration data of one or more labels from a table.

    Parameters
    ----------
    path : CSV with `label`, `nominal` (amount, empty for a blank), `response`, `unit` (of the amount) and, where there
        are any, `run` (a day or a plate) and `kind` (`standard`, `blank` or `qc`).

    Returns
    -------
    list of Calibration : in file order.

    Raises
    ------
    InputError : every problem of the table at once.
    """
    path = Path(path)
    problems: list[Problem] = []
    rows = read_table(path, Calibration, ("_line",), problems)
    for label in sorted({row.label for row in rows}):
        named = sorted({row.unit for row in rows if row.label == label})
        if len(named) > 1:
            problems.append(Problem(path.name, ", ".join(named), f"one unit of the label {label}",
                                    "convert the amounts to it", field="unit"))  # fmt: skip
    if problems:
        raise InputError(problems)
    return rows


@dataclass(frozen=True)
class Quadratic:
    """Mandel's test of a line against a parabola: F with 1 and `df` degrees of freedom; NaN with a reason."""

    f: float = math.nan
    df: int = 0
    p: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Critical:
    """Currie's limits from blanks, as amounts; NaN with a reason.

    Parameters
    ----------
    decision : a single reading above it is called detected, which a blank is in 5 % of cases.
    detection : the amount that is called detected in about 95 % of cases.
    quantification : ten standard deviations of a blank-corrected reading.
    """

    decision: float = math.nan
    detection: float = math.nan
    quantification: float = math.nan
    n: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Spread:
    """Variance components of readings at one level over runs: one-way analysis of variance with random runs.

    Parameters
    ----------
    mean, mean_se, mean_df : of the readings; its error has the runs' share in it.
    repeatability, intermediate, between : standard deviations within a run, of a single reading of any run, and
        between runs; the second and third are NaN with fewer than two runs.
    repeatability_ci, intermediate_ci, between_ci : their intervals: chi-squared (exact), Satterthwaite, and
        Williams & Tukey (exact for equal numbers a run, up to its nominal level).
    repeatability_df, intermediate_df : degrees of freedom.
    n, runs : number of readings and of runs.
    reason : why numbers are missing; empty when none is.
    """

    mean: float
    n: int
    runs: int
    mean_se: float = math.nan
    mean_df: float = 0.0
    repeatability: float = math.nan
    intermediate: float = math.nan
    between: float = math.nan
    repeatability_ci: tuple[float, float] = (math.nan, math.nan)
    intermediate_ci: tuple[float, float] = (math.nan, math.nan)
    between_ci: tuple[float, float] = (math.nan, math.nan)
    repeatability_df: float = 0.0
    intermediate_df: float = 0.0
    reason: str = ""

    def expected(self, level: float) -> tuple[float, float]:
        """Return where a share `level` of future single readings is expected (Mee, Technometrics 1984;26:251)."""
        single, df = (self.intermediate, self.intermediate_df) if self.runs > 1 else (self.repeatability, self.n - 1)
        if math.isnan(single):
            return math.nan, math.nan
        reach = student(level, df) * math.hypot(single, self.mean_se)
        return self.mean - reach, self.mean + reach


def spread(values: Sequence[float] | FloatArray, runs: Sequence[str], level: float = 0.95) -> Spread:
    """Split the scatter of readings of one sample into that within runs and that between runs.

    Parameters
    ----------
    values, runs : (n,) readings and the run (day, plate, operator) of each.
    level : of the intervals.

    Returns
    -------
    A variance between runs that comes out below zero is 0, and a single reading then scatters as within a run.

    Raises
    ------
    ValueError : different numbers of values and runs, or none.

    Examples
    --------
    >>> found = spread([10.1, 10.3, 9.9, 10.9, 11.1, 11.0], ["a", "a", "a", "b", "b", "b"])
    >>> round(found.repeatability, 3), round(found.between, 3), round(found.intermediate, 3)
    (0.158, 0.63, 0.649)

    Notes
    -----
    Searle, Casella & McCulloch, Variance Components, Wiley 1992, sec. 3.5-3.6. Satterthwaite, Biometrics 1946;2:110.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 1 or y.size != len(runs) or not y.size:
        raise ValueError(f"values and runs: found {y.size} and {len(runs)}, expected as many of each and at least one; "
                         "give each reading its run.")  # fmt: skip
    run = np.unique(np.asarray(runs, dtype=str), return_inverse=True)[1]
    a, seen = int(run.max()) + 1, Spread(float(y.mean()), y.size, int(run.max()) + 1)
    if y.size < 2:
        return replace(seen, reason="one reading only, so nothing is known of its scatter")
    if a == y.size:
        sd = float(y.std(ddof=1))
        return replace(seen, mean_se=sd / math.sqrt(a), mean_df=a - 1, intermediate=sd, intermediate_df=a - 1,
                       intermediate_ci=_of_sd(sd, a - 1, level),
                       reason="one reading a run, so the scatter within a run is not known")  # fmt: skip
    df = y.size - a
    within = y - (np.bincount(run, y) / np.bincount(run))[run]
    sd = math.sqrt(float(within @ within) / df)
    seen = replace(seen, repeatability=sd, repeatability_df=df, repeatability_ci=_of_sd(sd, df, level))
    if a == 1:
        return replace(seen, mean_se=sd / math.sqrt(y.size), mean_df=df,
                       reason="one run only, so the scatter between runs is not known")  # fmt: skip
    return _over_runs(seen, y, run, level)


def _over_runs(seen: Spread, y: FloatArray, run: npt.NDArray[np.intp], level: float) -> Spread:
    """Add what several runs with replicates say: the scatter between them and of a single reading of any run."""
    each = np.bincount(run).astype(np.float64)
    squares, df = float(each @ each), (seen.runs - 1, seen.repeatability_df)
    ms_between = float(each @ (np.bincount(run, y) / each - seen.mean) ** 2) / df[0]
    ms_within = seen.repeatability**2
    n0 = (y.size - squares / y.size) / df[0]  # readings a run, as the mean square counts them
    between = max(0.0, (ms_between - ms_within) / n0)
    single, single_df = _combined(ms_between, df[0], 1 / n0, ms_within, df[1]) if between else (ms_within, df[1])
    return replace(
        seen, mean_se=math.sqrt((between * squares / y.size + ms_within) / y.size), mean_df=df[0] if between else df[1],
        intermediate=math.sqrt(single), intermediate_df=single_df, between=math.sqrt(between),
        intermediate_ci=_of_sd(math.sqrt(single), single_df, level),
        between_ci=_between(ms_between, df[0], n0, ms_within, df[1], level),
    )  # fmt: skip


def _combined(ms_between: float, df_between: float, share: float, ms_within: float, df: float) -> tuple[float, float]:
    """Return the variance of a single reading and Satterthwaite's degrees of freedom."""
    parts = share * ms_between, (1 - share) * ms_within
    total = sum(parts)
    return total, total**2 / (parts[0] ** 2 / df_between + parts[1] ** 2 / df)


def _of_sd(sd: float, df: float, level: float) -> tuple[float, float]:
    """Return the interval of a standard deviation by chi-squared."""
    from scipy.special import chdtri

    low, high = (sd * math.sqrt(df / float(chdtri(df, p))) for p in (0.5 - level / 2, 0.5 + level / 2))
    return low, high


def _between(
    ms_between: float, df_between: float, n0: float, ms_within: float, df: float, level: float
) -> tuple[float, float]:
    """Return the interval of the standard deviation between runs by Williams and Tukey."""
    from scipy.special import chdtri, fdtri

    ends = []
    for tail in (0.5 - level / 2, 0.5 + level / 2):
        ratio = float(fdtri(df_between, df, 1 - tail))
        variance = df_between * (ms_between - ratio * ms_within) / (n0 * float(chdtri(df_between, tail)))
        ends.append(math.sqrt(max(0.0, variance)))
    return ends[0], ends[1]


@dataclass(frozen=True)
class LevelCheck:
    """Accuracy and precision of one nominal amount, read back through the curve.

    Parameters
    ----------
    nominal : known amount; independent : whether its samples are not part of the curve (kind qc).
    spread : of the amounts read back.
    recovery_pct, recovery_se, recovery_ci : mean amount read back as a share of the nominal; NaN at amount 0.
    total_error_pct : bounds of the relative error within which 95 % of single readings are expected: bias and
        intermediate precision together.
    """

    nominal: float
    independent: bool
    spread: Spread
    recovery_pct: float = math.nan
    recovery_se: float = math.nan
    recovery_ci: tuple[float, float] = (math.nan, math.nan)
    total_error_pct: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class AssayValidation:
    """What calibration data say of one label's readout.

    Parameters
    ----------
    label, unit : whose readout, and of its amounts.
    curve : the standard curve with lack of fit, linear range and the limits of ICH Q2; None where none can be fitted.
    residuals : (n, 3) amount, response and studentised residual of each standard, for a plot.
    mandel : the line against a parabola.
    critical : Currie's limits from blanks.
    levels : accuracy and precision of every amount, of the standards first and then of the qc samples.
    level : of the intervals.
    notes : for the report.
    reason : why there is no curve; empty when there is one.
    """

    label: str
    unit: str
    curve: StandardCurve | None
    residuals: FloatArray
    mandel: Quadratic
    critical: Critical
    levels: tuple[LevelCheck, ...]
    level: float = 0.95
    notes: tuple[str, ...] = ()
    reason: str = ""

    def reading_error(self, amount: float, n: int = 1) -> float:
        """Return the standard error of an amount read from the curve.

        Parameters
        ----------
        amount : in `unit`.
        n : readings that were averaged; the error of the curve is common to them and does not shrink.

        Returns
        -------
        NaN without a curve, or where the amount has no place on it.

        Raises
        ------
        ValueError : fewer than one reading.
        """
        if n < 1:
            raise ValueError(f"n: found {n}, expected 1 or more readings; give how many were averaged.")
        random, shared = self.errors(amount)
        return math.hypot(random / math.sqrt(n), shared)

    def errors(self, amount: float) -> tuple[float, float]:
        """Return the error of one reading and the error of the curve, which all amounts read from it share."""
        if self.curve is None or not math.isfinite(amount) or (self.curve.scale == "log" and amount <= 0):
            return math.nan, math.nan
        read = self.curve.inverse(float(self.curve.response(amount)))
        return read.se, read.se_systematic


def validate_assay(
    table: Sequence[Calibration],
    *,
    weights: Weighting = "1",
    scale: Scale = "linear",
    intercept: bool = True,
    sigma_from: SigmaFrom = "residual",
    level: float = 0.95,
) -> AssayValidation:
    """Validate one label's readout by its calibration data.

    Parameters
    ----------
    table : rows of one label, in one unit.
    weights, scale, intercept, sigma_from : as in `fit_standards`.
    level : of the intervals.

    Returns
    -------
    AssayValidation : data that carry no curve give a reason in its place.

    Raises
    ------
    ValueError : no row, several labels, several units, or a level that is no share.

    Examples
    --------
    >>> x, y = [0, 2, 4, 6, 8, 10, 12], [2.1, 5.0, 9.0, 12.6, 17.3, 21.0, 24.7]
    >>> rows = [Calibration(label="dir", nominal=a, response=b, unit="ng") for a, b in zip(x, y)]
    >>> found = validate_assay(rows)
    >>> round(found.curve.slope, 3), round(found.curve.lod, 2), round(found.reading_error(6.0), 3)
    (1.93, 0.74, 0.24)

    Notes
    -----
    ICH Q2(R2) 2023. Mandel, The Statistical Analysis of Experimental Data, 1964. Currie, Pure Appl Chem 1995;67:1699.
    """
    label, unit = _one(table, "label"), _one(table, "unit")
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a share between 0 and 1; give 0.95 for 95 %.")
    of = {kind: [row for row in table if row.kind == kind] for kind in ("standard", "blank", "qc")}
    standards = Standards(
        np.array([row.nominal for row in of["standard"]], dtype=np.float64),
        np.array([row.response for row in of["standard"]], dtype=np.float64),
        unit,
        blanks=np.array([row.response for row in of["blank"]], dtype=np.float64),
    )
    try:
        curve = fit_standards(standards, weights=weights, scale=scale, intercept=intercept, sigma_from=sigma_from,
                              level=level)  # fmt: skip
    except ValueError as err:
        none = f"no curve: {err}"
        return AssayValidation(label, unit, None, np.empty((0, 3)), Quadratic(reason=none), Critical(reason=none), (),
                               reason=none)  # fmt: skip
    levels = (*_levels(curve, of["standard"], level, False), *_levels(curve, of["qc"], level, True))
    notes = curve.notes if of["qc"] else (*curve.notes, "no qc samples, so accuracy and precision are those of the "
                                          "standards that made the curve, which flatters them")  # fmt: skip
    mandel = _mandel(curve, intercept)
    return AssayValidation(label, unit, curve, _residuals(curve), mandel, _critical(curve), levels, level, notes)


def validate_assays(table: Iterable[Calibration], **options: Any) -> dict[str, AssayValidation]:
    """Validate every label's readout; `options` are those of `validate_assay`."""
    rows = list(table)
    return {
        label: validate_assay([row for row in rows if row.label == label], **options)
        for label in sorted({row.label for row in rows})
    }


def _one(table: Sequence[Calibration], field: str) -> str:
    found = sorted({str(getattr(row, field)) for row in table})
    if len(found) != 1:
        raise ValueError(f"{field}: found {', '.join(found) or 'no row'}, expected one {field}; validate each label by "
                         "itself and in one unit.")  # fmt: skip
    return found[0]


def _plane(curve: StandardCurve) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return amounts, responses and weights on the curve's own scale."""
    x, y, w = curve.standards.amount, curve.standards.response, response_weights(curve.standards, curve.weights)
    return (np.log(x), np.log(y), w) if curve.scale == "log" else (x, y, w)


def _residuals(curve: StandardCurve) -> FloatArray:
    """Return amount, response and internally studentised residual of each standard."""
    x, y, w = _plane(curve)
    leverage = w * (curve.covariance[0, 0] + 2 * x * curve.covariance[0, 1] + x**2 * curve.covariance[1, 1])
    scatter = curve.residual_sd**2 - leverage  # covariance holds the variance already
    residual = np.sqrt(w) * (y - curve.intercept - curve.slope * x)
    free = scatter > 1e-12 * curve.residual_sd**2
    studentised = np.divide(residual, np.sqrt(np.where(free, scatter, 1.0)), out=np.full(x.size, math.nan), where=free)
    return np.column_stack([curve.standards.amount, curve.standards.response, studentised])


def _mandel(curve: StandardCurve, intercept: bool) -> Quadratic:
    """Test whether a parabola fits the standards better than the line does."""
    from scipy.special import fdtrc

    x, y, w = _plane(curve)
    df = curve.df - 1
    if df < 1 or np.unique(x).size < (3 if intercept else 2) + 1:
        return Quadratic(reason="too few standards to tell a parabola from the line")
    z = (x - x.mean()) / x.std() if intercept else x / np.abs(x).max()
    root = np.sqrt(w)
    columns = np.column_stack([np.ones_like(z), z, z**2] if intercept else [z, z**2]) * root[:, None]
    rest = root * y - columns @ np.linalg.lstsq(columns, root * y, rcond=None)[0]
    parabola, line = float(rest @ rest), curve.residual_sd**2 * curve.df
    if parabola <= 1e-20 * float(w @ y**2):
        return Quadratic(reason="the standards lie on a line or a parabola without scatter, so there is no test")
    f = max(0.0, line - parabola) / (parabola / df)
    return Quadratic(f, df, float(fdtrc(1, df, f)))


def _critical(curve: StandardCurve) -> Critical:
    """Return Currie's limits from blanks: error rates of 5 % of each kind, for one blank-corrected reading."""
    blanks = curve.standards.blanks
    if blanks.size < 2:
        return Critical(n=blanks.size, reason="fewer than two blanks were measured")
    if curve.scale == "log":
        return Critical(n=blanks.size, reason="a difference from the blank has no place on the log scale")
    sd = float(blanks.std(ddof=1)) * math.sqrt(1 + 1 / blanks.size)
    decision = student(0.90, blanks.size - 1) * sd / curve.slope
    return Critical(decision, 2 * decision, 10 * sd / curve.slope, blanks.size)


def _levels(curve: StandardCurve, rows: Sequence[Calibration], level: float, independent: bool) -> list[LevelCheck]:
    """Read the samples of every amount back through the curve."""
    found = []
    for nominal in sorted({row.nominal or 0.0 for row in rows}):
        own = [row for row in rows if row.nominal == nominal]
        amounts = [curve.inverse(row.response).value for row in own]
        finite = [(a, row.run) for a, row in zip(amounts, own, strict=True) if math.isfinite(a)]
        if not finite:
            why = "no response of this amount can be read from the curve"
            found.append(LevelCheck(nominal, independent, Spread(math.nan, 0, 0, reason=why)))
            continue
        seen = spread([a for a, _ in finite], [run for _, run in finite], level)
        found.append(_check(nominal, independent, seen, level))
    return found


def _check(nominal: float, independent: bool, seen: Spread, level: float) -> LevelCheck:
    if nominal == 0:
        return LevelCheck(nominal, independent, seen)
    share = 100 / nominal
    margin = student(level, seen.mean_df) * seen.mean_se if seen.mean_df else math.nan
    low, high = seen.expected(0.95)
    return LevelCheck(
        nominal, independent, seen, share * seen.mean, share * seen.mean_se,
        (share * (seen.mean - margin), share * (seen.mean + margin)), (share * low - 100, share * high - 100),
    )  # fmt: skip


def assay_rows(validations: Mapping[str, AssayValidation]) -> list[dict[str, Any]]:
    """Return the rows of assay_validation.csv.

    Parameters
    ----------
    validations : by label, of `validate_assays`.

    Returns
    -------
    Dicts with the keys of `ASSAY_COLUMNS`: the curve, its tests, its range and limits, then accuracy and precision of
    every level. Nothing passes or fails.
    """
    rows: list[dict[str, Any]] = []
    for label, found in validations.items():
        for row in _curve_rows(found) + [row for check in found.levels for row in _level_rows(check, found.unit)]:
            full = {"label": label, "level": math.nan, "value": math.nan, "se": math.nan, "ci_low": math.nan,
                    "ci_high": math.nan, "unit": "", "n": 0, "method": "", "flags": "", "reason": ""} | row  # fmt: skip
            rows.append({column: full[column] for column in ASSAY_COLUMNS})
    return rows


def _curve_rows(found: AssayValidation) -> list[dict[str, Any]]:
    curve = found.curve
    if curve is None:
        return [{"quantity": "slope", "reason": found.reason}]
    n, t = curve.standards.amount.size, student(found.level, curve.df)
    line = f"weighted regression ({curve.weights}, {curve.scale})"
    flags = join(curve.flags)
    rows: list[dict[str, Any]] = [
        {"quantity": name, "value": value, "se": se, "ci_low": value - t * se, "ci_high": value + t * se, "n": n,
         "unit": unit, "method": line, "flags": flags}
        for name, value, se, unit in (("slope", curve.slope, curve.slope_se, f"1/{found.unit}"),
                                      ("intercept", curve.intercept, curve.intercept_se, ""))
    ]  # fmt: skip
    lack, mandel = curve.lack_of_fit, found.mandel
    rows += [
        {"quantity": "residual_sd", "value": curve.residual_sd, "n": n, "method": line},
        {"quantity": "r2", "value": curve.r2, "n": n, "unit": "1", "method": line},
        {"quantity": "lack_of_fit_p", "value": lack.p, "n": n, "unit": "1", "flags": flags, "reason": lack.reason,
         "method": _f_test(lack.f, lack.df_lack, lack.df_pure)},
        {"quantity": "mandel_p", "value": mandel.p, "n": n, "unit": "1", "reason": mandel.reason,
         "method": _f_test(mandel.f, 1, mandel.df)},
    ]  # fmt: skip
    reach = curve.linear_range or (math.nan, math.nan)
    why = "" if curve.linear_range else "no run of three amounts is read back within the allowed bias"
    rows += [{"quantity": name, "value": value, "unit": found.unit, "n": n, "reason": why, "method": "longest run of levels "
              "that its own line reads back"} for name, value in zip(("range_low", "range_high"), reach, strict=True)]  # fmt: skip
    return rows + _limit_rows(found, curve)


def _f_test(f: float, df1: int, df2: int) -> str:
    return "F test" if math.isnan(f) else f"F({df1}, {df2}) = {f:.4g}"


def _limit_rows(found: AssayValidation, curve: StandardCurve) -> list[dict[str, Any]]:
    """Return detection and quantification limits by every way; the one in use is the row without suffix."""
    n, blanks = curve.standards.amount.size, curve.standards.blanks.size
    rows = [{"quantity": "loq", "value": curve.loq, "n": n, "method": "; ".join(curve.notes)}]
    for limit in curve.limits:
        for name, value, factor in (("lod", limit.lod, 3.3), ("loq", limit.loq, 10)):
            rows.append({"quantity": f"{name}_{limit.method}", "value": value, "reason": limit.reason,
                         "n": blanks if limit.method == "blank" else n,
                         "method": f"{factor:g} SD of the {limit.method} / slope"})  # fmt: skip
    critical = found.critical
    for name in ("decision", "detection", "quantification"):
        rows.append({"quantity": f"currie_{name}", "value": getattr(critical, name), "reason": critical.reason,
                     "n": blanks, "method": "blanks (Currie)"})  # fmt: skip
    return [row | {"unit": found.unit} for row in rows]


def _level_rows(check: LevelCheck, unit: str) -> list[dict[str, Any]]:
    """Return accuracy and precision of one level."""
    seen = check.spread
    source = "qc samples" if check.independent else "standards read back"
    place = {"level": check.nominal, "n": seen.n, "flags": join(("few",) if 0 < seen.n < 3 else ())}
    low, high = check.total_error_pct
    rows: list[dict[str, Any]] = [
        {"quantity": "recovery_pct", "value": check.recovery_pct, "se": check.recovery_se, "unit": "%",
         "ci_low": check.recovery_ci[0], "ci_high": check.recovery_ci[1], "method": source,
         "reason": (seen.reason if math.isnan(check.recovery_se) else "") if check.nominal else "an amount of 0 has no recovery"}
    ]  # fmt: skip
    for name, df in (("repeatability", seen.repeatability_df), ("between", math.nan),
                     ("intermediate", seen.intermediate_df)):  # fmt: skip
        value, (a, b) = getattr(seen, name), getattr(seen, f"{name}_ci")
        quantity = f"{name}_runs_sd" if name == "between" else f"{name}_sd"
        rows.append({"quantity": quantity, "value": value, "ci_low": a, "ci_high": b, "unit": unit,
                     "se": value / math.sqrt(2 * df) if df else math.nan,
                     "method": f"{source}; analysis of variance, {seen.runs} run{'' if seen.runs == 1 else 's'}",
                     "reason": seen.reason if math.isnan(value) else ""})  # fmt: skip
    rows.append({"quantity": "total_error_pct", "value": max(abs(low), abs(high)), "ci_low": low, "ci_high": high,
                 "unit": "%", "method": f"{source}; 95 % of single readings expected (Mee)",
                 "reason": "" if math.isfinite(low) else seen.reason or "an amount of 0 has no relative error"})  # fmt: skip
    return [place | row for row in rows]


def apply_assay(observations: pd.DataFrame, validations: Mapping[str, AssayValidation]) -> pd.DataFrame:
    """Add each label's error of reading to its observations, and mark those below its quantification limit.

    An observation is in the assay's unit, or per gram of it with a known mass. The curve's error is added to `se` in
    quadrature; of single animals (`n` empty or 1) also the error of a reading, which the scatter of several animals
    already holds. An amount above the highest standard is flagged `above_range`. A row without `se` keeps none, for
    the reading alone would claim more than is known. A row is left as it is where

    - its label has no curve or its unit is another one, for amounts cannot be compared then;
    - it was read from a curve already (a limit and a systematic error stand with it), or this was done before (flag
      `assay_error`), so nothing is added twice.

    Parameters
    ----------
    observations : with the columns of observations.csv.
    validations : by label.

    Returns
    -------
    DataFrame : a copy with `se`, `lloq`, `below_lloq` and `flags` brought up to date; values are never changed. The
    curve's error is common to all rows of a label, which `se` cannot say: their mean is less sure than `se` has it.
    """
    rows = [_with_assay(row, validations.get(str(row["label"]))) for row in observations.to_dict("records")]
    columns = {name: [row[name] for row in rows] for name in ("se", "lloq", "below_lloq", "flags")}
    return observations.assign(**columns)


def _with_assay(row: Mapping[Hashable, Any], found: AssayValidation | None) -> Mapping[Hashable, Any]:
    """Return a row with what the assay adds to it."""
    value, gram = _number(row, "value"), _grams(row, found)
    flags = split(str(row["flags"])) if isinstance(row["flags"], str) else set()
    read = _number(row, "se_systematic") > 0 and math.isfinite(_number(row, "lloq"))
    if found is None or found.curve is None or math.isnan(value * gram) or read or "assay_error" in flags:
        return row
    random, shared = found.errors(value * gram)
    # of several animals the scatter in se holds the readings' own already
    error = shared if _number(row, "n") >= 2 else math.hypot(random, shared)
    se, limit = math.hypot(_number(row, "se"), error / gram), np.fmax(found.curve.loq / gram, _number(row, "lloq"))
    below, above = value < limit, value * gram > found.curve.standards.amount.max()
    told = {"assay_error": math.isfinite(se), "below_lloq": below, "above_range": above}
    flags |= {word for word, holds in told.items() if holds}
    return {
        **row, "se": se if math.isfinite(se) else row["se"], "lloq": float(limit),
        "below_lloq": bool(below or row["below_lloq"]), "flags": join(flags),
    }  # fmt: skip


def _number(row: Mapping[Hashable, Any], name: str) -> float:
    """Return a cell as a number, NaN where it is empty or there is no such column."""
    cell = row.get(name)
    return math.nan if cell is None or cell == "" else float(cell)


def _grams(row: Mapping[Hashable, Any], found: AssayValidation | None) -> float:
    """Return what to multiply a value by to have an amount of the assay; NaN where there is no way."""
    if found is None or row["unit"] not in (found.unit, f"{found.unit}_per_g"):
        return math.nan
    return 1.0 if row["unit"] == found.unit else _number(row, "mass_g")
