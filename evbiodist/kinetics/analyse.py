"""An observations table in, rows of the parameters table out: NCA and model fits of a whole study.

Animals sampled once or twice are pooled by time (serial sacrifice); animals with a curve of their own
are analysed one by one and summarised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.kinetics.fit import FitResult, fit
from evbiodist.kinetics.nca import NcaResult, kp, nca
from evbiodist.kinetics.sparse import bailer
from evbiodist.study.estimate import Estimate
from evbiodist.study.flags import join, split
from evbiodist.study.model import KineticsSettings
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

#: Columns of parameters.csv, in order.
PARAMETER_COLUMNS = ("study", "subject", "group", "label", "organ", "model", "parameter", "value", "se", "ci_low",
                     "ci_high", "unit", "method", "n", "flags", "reason")  # fmt: skip
POOLED = "pooled"
_OWN_CURVE = 3


@dataclass(frozen=True)
class Dosing:
    """What an animal got: amount, unit and route. Values in %ID are relative, so their dose is 100 %."""

    dose: float
    dose_unit: str
    route: str

    def for_unit(self, unit: str) -> tuple[float, str]:
        """Return the dose that belongs to values in a unit."""
        return (100.0, "pct_id") if unit.startswith("pct_id") else (self.dose, self.dose_unit)


def nca_parameters(
    observations: pd.DataFrame,
    dosing: Mapping[tuple[str, str], Dosing],
    settings: KineticsSettings,
    *,
    pool: bool = False,
) -> list[dict[str, Any]]:
    """Return the NCA parameters of every organ, label and group as rows of parameters.csv.

    Parameters
    ----------
    observations : with the columns of observations.csv.
    dosing : by (subject, label); for pooled tables by ("pooled", label).
    settings : rules of the analysis.
    pool : pool animals by time even where each has a curve of its own.

    Returns
    -------
    list of dict : with the columns `PARAMETER_COLUMNS`; a parameter that cannot be had has its reason.
    """
    rows: list[dict[str, Any]] = []
    keys = ["study", "group", "label"]
    for (study, group, label), part in observations.groupby(keys, sort=True):
        place = {"study": study, "group": group, "label": label, "model": "nca"}
        dose = _dosing_of(part, str(label), dosing)
        blood: dict[str, tuple[NcaResult, str]] = {}
        organs = sorted(part["organ"].unique(), key=lambda o: (o not in BLOOD, o))
        for organ in organs:
            for unit, profile in part[part["organ"] == organ].groupby("unit", sort=True):
                found = _profiles(profile, str(organ), str(unit), dose, settings, pool)
                for subject, result, extra in found:
                    estimates = [*result.estimates.values(), *extra]
                    if organ in BLOOD:
                        blood.setdefault(subject, (result, str(unit)))
                    elif subject in blood:
                        estimates.append(_tissue_ratio(profile, str(organ), str(unit), subject, blood[subject], dose,
                                                       settings))  # fmt: skip
                    rows += [_row({**place, "subject": subject, "organ": organ}, e) for e in estimates]
                rows += _summary({**place, "subject": POOLED, "organ": organ}, found, settings.level)
    return rows


def _dosing_of(part: pd.DataFrame, label: str, dosing: Mapping[tuple[str, str], Dosing]) -> Dosing:
    for subject in part["subject"]:
        if (str(subject), label) in dosing:
            return dosing[str(subject), label]
    return dosing.get((POOLED, label), Dosing(math.nan, "", "iv_bolus"))


def _profiles(
    profile: pd.DataFrame, organ: str, unit: str, dose: Dosing, settings: KineticsSettings, pool: bool
) -> list[tuple[str, NcaResult, list[Estimate]]]:
    """Return (subject, result, further estimates) for animals with their own curve, or for the pool."""
    counts = profile.groupby("subject")["time_h"].nunique()
    own = sorted(str(s) for s in counts[counts >= _OWN_CURVE].index if s != POOLED and not pool)
    done: list[tuple[str, NcaResult, list[Estimate]]] = []
    for subject in own:
        one = profile[profile["subject"] == subject].sort_values("time_h")
        done.append((subject, _run(one, None, organ, unit, dose, settings), []))
    rest = profile[~profile["subject"].isin(own)]
    if len(rest):
        pooled = _by_time(rest)
        done.append((POOLED, _run(pooled, pooled["n"], organ, unit, dose, settings),
                     [_sparse(rest, organ, unit, settings)]))  # fmt: skip
    return done


def _by_time(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard error of the mean and number of animals at each time."""
    import pandas as pd

    done = []
    for time, here in rows.groupby("time_h", sort=True):
        seen = here[here["value"].notna() & ~here["below_lloq"].astype(bool)]
        values = seen["value"].to_numpy(float)
        count = np.nan_to_num(seen["n"].to_numpy(float), nan=1.0)
        n = float(count.sum())
        if len(values) > 1 and (count == 1).all():
            se = float(np.std(values, ddof=1) / np.sqrt(n))
        else:
            se = float(seen["se"].iloc[0]) if len(values) == 1 else math.nan
        below = len(values) < len(here) / 2 or len(values) == 0
        done.append({"time_h": time, "value": float(np.average(values, weights=count)) if len(values) else math.nan,
                     "se": se, "n": max(n, 1.0), "below_lloq": below, "lloq": here["lloq"].max(),
                     "se_systematic": seen["se_systematic"].mean() if len(values) else math.nan})  # fmt: skip
    return pd.DataFrame(done)


def _run(
    rows: pd.DataFrame, n: Any, organ: str, unit: str, dose: Dosing, settings: KineticsSettings
) -> NcaResult:  # fmt: skip
    route = dose.route if organ in BLOOD else "tissue"
    amount, dose_unit = dose.for_unit(unit)
    below = rows["below_lloq"].to_numpy(bool)
    lloq = rows["lloq"].to_numpy(float)
    value = np.where(below, np.nan_to_num(rows["value"].to_numpy(float)), rows["value"].to_numpy(float))
    se = rows["se"].to_numpy(float)
    blq = settings.blq if settings.blq != "lloq/2" or np.isfinite(lloq[below]).all() else "drop"

    def run(shift: float, points: tuple[int, ...] | None) -> NcaResult:
        sys = np.nan_to_num(rows["se_systematic"].to_numpy(float))
        return nca(rows["time_h"].to_numpy(float), value + shift * np.where(below, 0.0, sys),
                   se=None if np.isnan(se[~below]).any() else np.where(below, 0.0, se),
                   n=None if n is None else n.to_numpy(float), dose=None if math.isnan(amount) else amount,
                   dose_unit=dose_unit, route=route, unit=unit, method=settings.method, blq=blq,
                   lloq=None, below_lloq=below, lambda_z_points=points, max_extrap_pct=settings.max_extrap_pct,
                   level=settings.level)  # fmt: skip

    result = run(0.0, None)
    if not np.any(np.nan_to_num(rows["se_systematic"].to_numpy(float)) > 0):
        return result
    held = result.lambda_z_points or None
    shifted = run(0.5, held), run(-0.5, held)
    return replace(result, estimates={
        name: _widen(e, abs(shifted[0][name].value - shifted[1][name].value), result.df[name], settings.level)
        for name, e in result.estimates.items()})  # fmt: skip


def _widen(e: Estimate, shared: float, df: float, level: float) -> Estimate:
    """Add an error shared by all samples of a profile to an estimate's own."""
    if not (math.isfinite(shared) and shared > 0 and math.isfinite(e.se)):
        return e
    from scipy.special import stdtrit

    se = math.hypot(e.se, shared)
    # the shared part is not estimated from the animals, so it adds no uncertainty about the spread itself
    reach = float(stdtrit(df * (se / e.se) ** 4 if e.se > 0 else np.inf, 0.5 + level / 2))
    if e.value > 0 and e.ci_low > 0:
        wide = math.exp(min(reach * se / e.value, 300.0))
        low, high = e.value / wide, e.value * wide
    else:
        low, high = e.value - reach * se, e.value + reach * se
    return replace(e, se=se, ci_low=low, ci_high=high)


def _sparse(rows: pd.DataFrame, organ: str, unit: str, settings: KineticsSettings) -> Estimate:
    """Return Bailer's area of a serial sacrifice: one sample an animal, linear rule."""
    seen = rows[rows["value"].notna() & ~rows["below_lloq"].astype(bool)]
    name, start = "auclast_sparse", organ not in BLOOD
    times = np.array(sorted(seen["time_h"].unique()))
    if len(times) < 2:
        return Estimate(name, unit=f"{unit}*h", method="Bailer 1988", reason="fewer than two times with values")
    try:
        if seen["n"].notna().any():
            from evbiodist.kinetics.sparse import bailer_summary

            by_time = seen.drop_duplicates("time_h").set_index("time_h").loc[times]
            found = bailer_summary(times, by_time["value"], by_time["sd"], by_time["n"], level=settings.level, unit=unit,
                                   from_zero=start)  # fmt: skip
        else:
            groups = [seen.loc[seen["time_h"] == t, "value"].to_numpy(float) for t in times]
            found = bailer(times, groups, level=settings.level, unit=unit, from_zero=start)
    except ValueError as err:
        return Estimate(name, unit=f"{unit}*h", method="Bailer 1988", reason=str(err))
    degrees = f", df {found.df:.4g}" if math.isfinite(found.df) else ""
    return replace(found.estimate, method=found.estimate.method + degrees)


def _tissue_ratio(
    profile: pd.DataFrame, organ: str, unit: str, subject: str, blood: tuple[NcaResult, str], dose: Dosing,
    settings: KineticsSettings,
) -> Estimate:  # fmt: skip
    """Return Kp = AUC of tissue over AUC of blood, both per gram."""
    result, blood_unit = blood
    rows = profile[profile["subject"] == subject] if subject != POOLED else profile
    if unit == "pct_id" and rows["mass_g"].notna().all():
        scaled = {k: rows[k] / rows["mass_g"] for k in ("value", "se", "se_systematic", "sd", "lloq")}
        rows, unit = rows.assign(**scaled), "pct_id_per_g"
    if unit != blood_unit:
        return Estimate("kp_auc", method="ratio of areas", unit="1",
                        reason=f"tissue is in {unit} and blood in {blood_unit}; give organ masses")  # fmt: skip
    pooled = _by_time(rows) if subject == POOLED else rows.sort_values("time_h")
    tissue = _run(pooled, pooled["n"] if subject == POOLED else None, organ, unit, dose, settings)
    return kp(tissue["auclast"], result["auclast"], settings.level, df_tissue=_finite(tissue.df["auclast"]),
              df_blood=_finite(result.df["auclast"]))  # fmt: skip


def _finite(df: float) -> float:
    return math.inf if math.isnan(df) else df


def _summary(
    place: dict[str, Any], found: list[tuple[str, NcaResult, list[Estimate]]], level: float
) -> list[dict[str, Any]]:
    """Return mean and t interval over animals that have a curve of their own, when there are two or more."""
    from scipy.special import stdtrit

    own = [result for subject, result, _ in found if subject != POOLED]
    if len(own) < 2 or len(own) < len(found):
        return []
    rows = []
    for name, first in own[0].estimates.items():
        values = np.array([r[name].value for r in own])
        values = values[np.isfinite(values)]
        if len(values) < 2:
            estimate = Estimate(name, unit=first.unit, method="mean over animals", n=len(values),
                                reason="fewer than two animals have a value")  # fmt: skip
        else:
            mean, se = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
            reach = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * se
            flags = ("few",) if len(values) < 3 else ()
            estimate = Estimate(name, mean, se, mean - reach, mean + reach, first.unit, "mean over animals",
                                len(values), flags)  # fmt: skip
        rows.append(_row(place, estimate))
    return rows


def _row(place: dict[str, Any], e: Estimate) -> dict[str, Any]:
    return {**place, "parameter": e.name, "value": e.value, "se": e.se, "ci_low": e.ci_low, "ci_high": e.ci_high,
            "unit": e.unit, "method": e.method, "n": e.n, "flags": join(e.flags), "reason": e.reason}  # fmt: skip


def model_parameters(
    observations: pd.DataFrame, dosing: Mapping[tuple[str, str], Dosing], models: Iterable[str], level: float
) -> tuple[list[dict[str, Any]], dict[tuple[str, str, str, str], FitResult]]:
    """Fit every model to every label and group; a fit that cannot be had is a row with its reason.

    Returns
    -------
    rows : of parameters.csv.
    fits : by (study, group, label, model), for curves and consensus.
    """
    rows: list[dict[str, Any]] = []
    fits: dict[tuple[str, str, str, str], FitResult] = {}
    for (study, group, label), part in observations.groupby(["study", "group", "label"], sort=True):
        dose = _dosing_of(part, str(label), dosing)
        for model in models:
            place = {"study": study, "subject": POOLED, "group": group, "label": label, "organ": "", "model": model}
            try:
                if dose.route != "iv_bolus":
                    raise ValueError(f"the route is {dose.route}; the catalogue's models are for an intravenous bolus")
                unit = (
                    str(part.loc[part["organ"].isin(BLOOD), "unit"].iloc[0]) if part["organ"].isin(BLOOD).any() else ""
                )
                amount, dose_unit = dose.for_unit(unit)
                if math.isnan(amount):
                    raise ValueError("the dose is not known; give it in subjects.csv")
                found = fit(part, model, dose=amount, dose_unit=dose_unit, level=level)
            except (ValueError, np.linalg.LinAlgError) as err:
                rows.append(_row(place, Estimate("fit", method="least squares", reason=str(err))))
                continue
            fits[str(study), str(group), str(label), model] = found
            used = _flags_of(part)
            rows += [_row({**place, "organ": _organ_of(e.name, found)},
                          replace(e, flags=tuple(sorted({*e.flags, *used})))) for e in found.estimates]  # fmt: skip
            rows.append(_row(place, Estimate("aicc", found.aicc, method="least squares", n=found.data.value.size,
                                             reason="a criterion, not a measurement")))  # fmt: skip
    return rows, fits


def _flags_of(part: pd.DataFrame) -> set[str]:
    """Return flags of the observations that every parameter of a fit inherits."""
    carried = {"sd_repeated", "unit_conflict", "blood_in_organ"}
    return {f for cell in part["flags"].unique() for f in split(cell)} & carried


def _organ_of(name: str, found: FitResult) -> str:
    return next((o for o in found.data.seen[1:] if name.endswith(f"_{o}") or name.startswith(f"{o}_")), "blood")
