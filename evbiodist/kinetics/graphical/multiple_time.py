"""Multiple-time regression: how fast a tissue takes the vesicles up from serum, one animal a point.

The tissue-to-serum ratio rises in a straight line with exposure time; serum stands in both axes, so both are
uncertain and their errors are correlated, which the regression here takes into account.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc

from evbiodist.kinetics.graphical.frames import spelled
from evbiodist.kinetics.graphical.york import YorkLine, york
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive, registry

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RULES = ("log", "linear")
WITHOUT_SE = ("proportional", "ols")
_BEND_P = 0.05
_FEWEST_TIMES = 3
_PER_G_MIN = "microliter/gram/minute"
_PER_G = "microliter/gram"


@dataclass(frozen=True, eq=False)
class UptakePoints:
    """The points of the plot, one an animal, in the order of the input.

    Parameters
    ----------
    exposure_h, exposure_se_h : (N,) integral of serum up to the sample over serum in the sample, hours.
    ratio, ratio_se : (N,) tissue over serum, in the unit of `ratio_unit`; errors are NaN when none were given.
    correlation : (N,) between the two errors.
    used : (N,) the points the line rests on.
    """

    exposure_h: Floats
    exposure_se_h: Floats
    ratio: Floats
    ratio_se: Floats
    correlation: Floats
    used: Bools
    ratio_unit: str


@dataclass(frozen=True)
class UptakeLine:
    """Uptake rate and initial volume of one tissue.

    Parameters
    ----------
    ki : slope, uL/g/min when the units give a volume by mass, else in the ratio's unit by hour.
    vi : intercept, uL/g or the ratio's unit: what the tissue's vessels hold, and fast binding.
    points : the plot as data.
    mswd : squared residuals by degrees of freedom; about 1 when the errors are right, NaN without errors.
    last_h : time of the last animals on the line, hours.
    notes : what was assumed.
    """

    ki: Estimate
    vi: Estimate
    points: UptakePoints
    mswd: float
    last_h: float
    notes: tuple[str, ...]


def multiple_time(
    time_h: ArrayLike,
    tissue: ArrayLike,
    serum: ArrayLike,
    *,
    tissue_se: ArrayLike | None = None,
    serum_se: ArrayLike | None = None,
    without_se: str = "proportional",
    serum_at_zero: float | None = None,
    serum_rule: str = "log",
    linear_until_h: float | None = None,
    unit: str = "pct_id_per_g",
    serum_unit: str = "pct_id/mL",
    level: float = 0.95,
) -> UptakeLine:
    """Return the uptake rate Ki and the initial volume Vi of a tissue from animals killed at different times.

    Parameters
    ----------
    time_h : (N,) time of each animal's sample, hours after injection, above 0.
    tissue, serum : (N,) its tissue and serum values.
    tissue_se, serum_se : (N,) or scalar standard errors of those single values; both or none.
    without_se : what to do without them: ``proportional`` takes the same unknown percentage for every value,
        found from the scatter; ``ols`` is ordinary least squares, exposure time taken as exact, as most papers
        do it (its intervals are too short).
    serum_at_zero : serum at 0 h; None extrapolates back on the logarithmic scale from the first two times, as
        after an intravenous bolus. Write 0 for other routes.
    serum_rule : how serum runs between the means at each time: ``log`` where it falls (else lines), or ``linear``.
    linear_until_h : last time on the line; None drops the latest time as long as the curve bends down: a squared
        term, added to the line, is negative with p < 0.05, and at least three times stay. `math.inf` keeps all.
    unit, serum_unit : of the values.
    level : level of the intervals.

    Returns
    -------
    UptakeLine

    Raises
    ------
    ValueError : values that are missing or not above zero where they divide, or times that carry no line.

    Examples
    --------
    >>> t = [1 / 60, 2 / 60, 5 / 60, 10 / 60]                      # 1, 2, 5 and 10 minutes
    >>> line = multiple_time(t, [2.2, 2.4, 3.0, 4.0], [20, 20, 20, 20])
    >>> round(line.ki.value, 9), line.ki.unit, round(line.vi.value, 9), line.vi.unit
    (10.0, 'uL/g/min', 100.0, 'uL/g')

    Notes
    -----
    Patlak CS, Blasberg RG, Fenstermacher JD (1983) J Cereb Blood Flow Metab 3:1; Blasberg RG, Fenstermacher JD,
    Patlak CS (1983) J Cereb Blood Flow Metab 3:8. Line: `york`. Errors of the axes to first order from those of
    the samples, the animal's own serum standing in its ratio, in its divisor of the integral and, as a share of
    the mean, in the integral itself. That animals share the integral's error with each other is left out.
    """
    t, a, c = _columns(time_h, tissue, serum)
    if serum_rule not in RULES:
        raise ValueError(f"serum_rule is '{serum_rule}', expected 'log' or 'linear'; write serum_rule='log'")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    if without_se not in WITHOUT_SE:
        raise ValueError(f"without_se is '{without_se}', expected 'proportional' or 'ols'; leave it out")
    a_se, c_se, known, notes = _errors(t, a, c, tissue_se, serum_se, without_se)
    if serum_at_zero is None:
        notes.append("serum at 0 h was extrapolated back from the first two times on the logarithmic scale")
    axes = _axes(a, c, a_se, c_se, known, _Serum.of(t, c, serum_at_zero, serum_rule))
    used = _linear_range(t, axes, linear_until_h)
    line = _line(axes, used)
    how = "ordinary least squares" if without_se == "ols" and not known else "errors in both axes (York)"
    ki, vi = _estimates(line, used, unit, serum_unit, level, how)
    ratio = derive("value/dose", unit, spelled(serum_unit))
    x_se, y_se = (e if known else np.full_like(e, np.nan) for e in (axes.x_se, axes.y_se * ratio.factor))
    points = UptakePoints(axes.x, x_se, axes.y * ratio.factor, y_se, axes.correlation, used, ratio.unit)
    return UptakeLine(ki, vi, points, line.mswd, float(t[used].max()), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Axes:
    """Exposure time (h) and ratio with their errors, which are relative to each other unless `known`."""

    x: Floats
    y: Floats
    x_se: Floats
    y_se: Floats
    correlation: Floats
    known: bool


@dataclass(frozen=True, eq=False)
class _Serum:
    """The mean serum curve: its area to each time, and how that area changes with each mean."""

    group: NDArray[np.intp]  # (N,) which time each animal belongs to
    area: Floats  # (K,)
    change: Floats  # (K, K): area to time k by mean j

    @classmethod
    def of(cls, t: Floats, c: Floats, at_zero: float | None, rule: str) -> _Serum:
        times, group = np.unique(t, return_inverse=True)
        if times.size < _FEWEST_TIMES:
            raise ValueError(
                f"time_h has {times.size} different times, expected at least {_FEWEST_TIMES}; "
                "a line through two says nothing about its error"
            )
        means = np.bincount(group, c) / np.bincount(group)
        area = _area(times, means + 0j, at_zero, rule)
        step = 1e-20
        change = np.array(
            [_area(times, means + step * 1j * (np.arange(times.size) == j), at_zero, rule).imag / step
             for j in range(times.size)]
        )  # fmt: skip
        return cls(group, area.real, change.T)


def _area(times: Floats, means: NDArray[Any], at_zero: float | None, rule: str) -> NDArray[Any]:
    """Area under serum from 0 h to each time, (K,), real or complex."""
    if at_zero is not None:
        start: complex = at_zero
    elif means[1].real < means[0].real:
        start = means[0] * (means[0] / means[1]) ** (times[0] / (times[1] - times[0]))
    else:
        start = means[0]
    left, right = np.append(start, means[:-1]), means
    height = (left + right) / 2
    if rule == "log":
        falls = left.real > right.real
        y = np.log(np.where(falls, left, 1.0) / np.where(falls, right, 1.0))
        small = np.abs(y) < 1e-3
        mean = np.where(small, 1 + y * (1 / 2 + y * (1 / 6 + y / 24)), np.expm1(y) / np.where(small, 1.0, y))
        height = np.where(falls, right * mean, height)
    total: NDArray[Any] = np.cumsum(height * np.diff(times, prepend=0.0))
    return total


def _columns(time_h: ArrayLike, tissue: ArrayLike, serum: ArrayLike) -> tuple[Floats, Floats, Floats]:
    t, a, c = (np.asarray(v, dtype=np.float64) for v in (time_h, tissue, serum))
    if t.ndim != 1 or t.shape != a.shape or t.shape != c.shape:
        raise ValueError(
            f"time_h, tissue and serum have shapes {t.shape}, {a.shape} and {c.shape}, expected three lists of one "
            "length; give one of each for every animal"
        )
    for name, v in (("time_h", t), ("tissue", a), ("serum", c)):
        if not np.isfinite(v).all():
            at = int(np.flatnonzero(~np.isfinite(v))[0])
            raise ValueError(f"{name} has {v[at]} at position {at}, expected a number; leave the animal out")
    for name, v in (("time_h", t), ("serum", c)):
        if (v <= 0).any():
            at = int(np.flatnonzero(v <= 0)[0])
            raise ValueError(f"{name} has {v[at]:g} at position {at}, expected more than zero; leave the animal out")
    return t, a, c


def _errors(
    t: Floats, a: Floats, c: Floats, tissue_se: ArrayLike | None, serum_se: ArrayLike | None, without_se: str
) -> tuple[Floats, Floats, bool, list[str]]:
    """Errors of the values, whether their size is known, and what was assumed."""
    if tissue_se is not None and serum_se is not None:
        return _error("tissue_se", tissue_se, t), _error("serum_se", serum_se, t), True, []
    if tissue_se is not None or serum_se is not None:
        missing = "tissue_se" if tissue_se is None else "serum_se"
        raise ValueError(f"{missing} is missing, expected both standard errors or none; give it too")
    if without_se == "ols":
        return np.zeros_like(a), np.zeros_like(c), False, ["exposure time was taken as exact"]
    if (a <= 0).any():
        at = int(np.flatnonzero(a <= 0)[0])
        raise ValueError(
            f"tissue has {a[at]:g} at position {at}, which has no proportional error; give tissue_se and serum_se"
        )
    _, group = np.unique(t, return_inverse=True)
    mean_a, mean_c = (np.bincount(group, v)[group] / np.bincount(group)[group] for v in (a, c))
    return mean_a, mean_c, False, ["no standard errors given, so the same percentage was taken for every value"]


def _error(name: str, se: ArrayLike, t: Floats) -> Floats:
    e = np.asarray(se, dtype=np.float64)
    if e.shape not in ((), t.shape) or not np.isfinite(e).all() or (e <= 0).any():
        raise ValueError(
            f"{name} has shape {e.shape}, expected {t.shape} or one number, all above zero; "
            "give the standard error of every animal's value, or leave it out"
        )
    return np.broadcast_to(e, t.shape)


def _axes(a: Floats, c: Floats, a_se: Floats, c_se: Floats, known: bool, serum: _Serum) -> _Axes:
    g = serum.group
    x, y = serum.area[g] / c, a / c
    if not a_se.any():
        return _Axes(x, y, np.zeros_like(x), np.ones_like(y), np.zeros_like(x), known)
    n = np.bincount(g)
    mean_var = np.bincount(g, c_se**2) / n**2
    total_var = (serum.change**2 @ mean_var)[g]
    shared = serum.change[g, g] * c_se**2 / n[g]  # covariance of the integral and the animal's own serum
    x_var = np.maximum(total_var + x**2 * c_se**2 - 2 * x * shared, 0.0) / c**2
    y_var = (a_se**2 + y**2 * c_se**2) / c**2
    covariance = (x * y * c_se**2 - y * shared) / c**2
    both = np.sqrt(x_var * y_var)
    correlation = np.divide(covariance, both, out=np.zeros_like(both), where=both > 0)
    return _Axes(x, y, np.sqrt(x_var), np.sqrt(y_var), correlation, known)


def _linear_range(t: Floats, axes: _Axes, until_h: float | None) -> Bools:
    """All points to a given time, or those left when the latest times are dropped while the curve bends down."""
    times = np.unique(t)
    if until_h is not None:
        used: Bools = t <= until_h
        if np.unique(t[used]).size < _FEWEST_TIMES:
            raise ValueError(
                f"linear_until_h is {until_h:g} h, which leaves fewer than {_FEWEST_TIMES} different times; take it later"
            )
        return used
    for last in times[: _FEWEST_TIMES - 2 : -1]:
        used = t <= last
        if last == times[_FEWEST_TIMES - 1] or not _bends(axes, used):
            return used
    raise AssertionError("unreachable: three times always remain")


def _bends(axes: _Axes, used: Bools) -> bool:
    x, y = axes.x[used], axes.y[used]
    if x.size < 4:
        return False
    w = np.sqrt(_line(axes, used).weights)
    scaled = (x - x.mean()) / np.ptp(x)
    design = np.stack([np.ones_like(x), scaled, scaled**2], axis=1) * w[:, None]
    coefficients, *_ = np.linalg.lstsq(design, y * w, rcond=None)
    square = float(np.sum((y * w - design @ coefficients) ** 2)) / (x.size - 3)
    se = math.sqrt(max(square, 1e-24 * float(np.mean((y * w) ** 2))) * np.linalg.inv(design.T @ design)[2, 2])
    return bool(coefficients[2] < -student(1 - _BEND_P, x.size - 3) * se)


def _line(axes: _Axes, used: Bools) -> YorkLine:
    """York's line; errors of unknown size are scaled to the scatter."""
    line = york(axes.x[used], axes.y[used], axes.x_se[used], axes.y_se[used], axes.correlation[used])
    if axes.known:
        return line
    scale = math.sqrt(line.mswd)
    return replace(
        line,
        slope_se=line.slope_se * scale,
        intercept_se=line.intercept_se * scale,
        covariance=line.covariance * line.mswd,
        mswd=math.nan,
    )


def _estimates(
    line: YorkLine, used: Bools, unit: str, serum_unit: str, level: float, how: str
) -> tuple[Estimate, Estimate]:
    """Ki and Vi in their units, the errors widened to the scatter when that is larger than they say."""
    known = not math.isnan(line.mswd)
    widen = max(1.0, math.sqrt(line.mswd)) if known else 1.0
    q = student(level, math.inf if known and widen == 1 else line.n - 2)
    flags = set() if used.all() else {"bent_tail"}
    if known and chdtrc(line.n - 2, line.mswd * (line.n - 2)) < 0.05:
        flags.add("overdispersed")
    method = f"multiple-time regression, {how}"
    out = []
    for name, dimension, wanted, value, se in (
        ("ki", "value/dose/time", _PER_G_MIN, line.slope, line.slope_se * widen),
        ("vi", "value/dose", _PER_G, line.intercept, line.intercept_se * widen),
    ):
        shown, factor = _unit(dimension, wanted, unit, serum_unit)
        value, se = value * factor, se * factor
        own = {"negative": value < 0, "imprecise": se >= 0.5 * abs(value)}
        raised = tuple(sorted(flags | {flag for flag, is_so in own.items() if is_so}))
        out.append(Estimate(name, value, se, value - q * se, value + q * se, shown, method, line.n, raised))
    return out[0], out[1]


@lru_cache(maxsize=64)
def _unit(dimension: str, wanted: str, unit: str, serum_unit: str) -> tuple[str, float]:
    """Unit and factor of a result: the field's own (uL/g/min, uL/g) when the units allow, else by the hour."""
    import pint

    plain = derive(dimension, unit, spelled(serum_unit))
    try:
        quantity = registry().Quantity(plain.factor, plain.unit).to(wanted)
    except (pint.errors.DimensionalityError, pint.errors.UndefinedUnitError):
        return plain.unit, plain.factor
    return {_PER_G_MIN: "uL/g/min", _PER_G: "uL/g"}[wanted], float(f"{quantity.magnitude:.12g}")
