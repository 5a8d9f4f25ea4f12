"""Non-compartmental analysis: areas, terminal slope and what follows, for one profile or ten thousand.

Choices (which points, which rule) are made once on the data; numbers and their errors follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.parameters import PARAMETERS, ROUTES, Parameter, for_route
from evbiodist.study.estimate import Estimate
from evbiodist.study.problems import nearest
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Numbers = NDArray[Any]  # real values, or complex ones while derivatives are taken

METHODS = ("linear", "lin-up-log-down", "log")
#: What becomes of values below the limit of quantification, by position.
BLQ_RULES: dict[str, dict[str, str]] = {
    "drop": {"before_first": "drop", "between": "drop", "after_last": "drop"},
    "zero": {"before_first": "zero", "between": "zero", "after_last": "zero"},
    "lloq/2": {"before_first": "lloq/2", "between": "lloq/2", "after_last": "lloq/2"},
    "pknca": {"before_first": "zero", "between": "drop", "after_last": "zero"},
}

_MIN_POINTS = 3
_FLAT = 1e-9  # a relative fall this small is rounding, not decline
_TIE = 1e-4  # adjusted r2 this close to the best is as good: the line with more points wins
_NOTHING, _FEW, _RISING = 1, 2, 3  # why there is no terminal line
_ZERO, _SEEN, _BACK, _FIRST = 0, 1, 2, 3  # where the value at 0 h comes from


# ---------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class NcaResult:
    """The non-compartmental parameters of one profile.

    Parameters
    ----------
    estimates : by name, in the order of `evbiodist.kinetics.parameters.PARAMETERS`.
    lambda_z_points : positions in the input of the samples on the terminal line; empty without one.
    df : degrees of freedom behind each interval (infinite for a normal one, NaN without one).

    Examples
    --------
    >>> result = nca([0, 1, 2, 4, 8], [16, 8, 4, 1, 0.0625], dose=100, dose_unit="pct_id",
    ...              unit="pct_id_per_g", method="log")
    >>> result["half_life"].value, result["cl"].unit
    (1.0, 'g/h')
    """

    estimates: dict[str, Estimate]
    lambda_z_points: tuple[int, ...]
    df: dict[str, float]

    def __getitem__(self, name: str) -> Estimate:
        try:
            return self.estimates[name]
        except KeyError:
            raise KeyError(f"'{name}' is not a parameter of this profile; {nearest(name, self.estimates)}") from None

    def to_frame(self) -> pd.DataFrame:
        """Return one row a parameter with the columns of an `Estimate`; flags joined by ``;``."""
        import pandas as pd

        rows = [{**vars(e), "flags": ";".join(e.flags)} for e in self.estimates.values()]
        return pd.DataFrame(rows).rename(columns={"name": "parameter"})


@dataclass(frozen=True)
class NcaTable:
    """The parameters of many profiles as arrays; ``table[i]`` is the `NcaResult` of profile i.

    Parameters
    ----------
    values, se, df, ci_low, ci_high : by name, (P,) in the units of `units`; NaN where missing.
    units : by name.
    """

    values: dict[str, Floats]
    se: dict[str, Floats]
    df: dict[str, Floats]
    ci_low: dict[str, Floats]
    ci_high: dict[str, Floats]
    units: dict[str, str]
    _data: _Profiles
    _choice: _Choice
    _settings: _Settings

    def __len__(self) -> int:
        return int(self._data.t.shape[1])

    def __getitem__(self, profile: int) -> NcaResult:
        return _result(self, range(len(self))[profile])


# ---------------------------------------------------------------------------------------------- the outside


def nca(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    unit: str = "au",
    method: str = "lin-up-log-down",
    blq: str | Mapping[str, str] = "drop",
    lloq: float | None = None,
    below_lloq: ArrayLike | None = None,
    lambda_z_points: int | Sequence[int] | None = None,
    infusion_h: float | None = None,
    max_extrap_pct: float = 20.0,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> NcaResult:
    """Return the non-compartmental parameters of one profile, each with its uncertainty or why it has none.

    Parameters
    ----------
    time_h, value : (T,) hours after dosing, rising, and the values (one animal's, or means).
    se : (T,) standard error of each value; NaN where unknown.
    n : (T,) or scalar number of animals behind each mean; None or 1 takes `se` as known exactly.
    dose, dose_unit : for clearance, volumes and per-dose parameters.
    route : one of `evbiodist.kinetics.parameters.ROUTES`; ``tissue`` for an organ.
    unit : unit of the values.
    method : trapezoids: ``linear``; ``lin-up-log-down`` (logarithmic where values fall); ``log`` wherever
        both values are positive and differ.
    blq : rule for values below the limit: a key of `BLQ_RULES`, or a mapping of ``before_first``,
        ``between`` and ``after_last`` to ``drop``, ``zero`` or ``lloq/2``. A substituted value has no error.
    lloq, below_lloq : the limit (smaller values are below it) and/or a (T,) mask.
    lambda_z_points : number of last positive values, or positions in the input, instead of the best line.
    infusion_h : duration of an ``iv_infusion``, for residence times.
    max_extrap_pct, min_adj_r2 : limits behind the flags ``extrapolated`` and ``poor_lambda_z``.
    level : level of the intervals.

    Returns
    -------
    NcaResult

    Raises
    ------
    ValueError : times, values, errors or settings that cannot be used; the message names the remedy.

    Examples
    --------
    >>> auc = nca([0, 1, 2, 4], [0, 8, 4, 1], se=[0, 1, 1, 0.2], n=4, route="ip", method="linear")["auclast"]
    >>> auc.value, round(auc.se, 4), round(auc.ci_low, 2), round(auc.ci_high, 2)
    (15.0, 1.8138, 11.06, 20.34)
    >>> nca([0, 1, 2], [0, 3, 5], route="ip")["half_life"].reason
    'fewer than 3 positive values after cmax, so no terminal line'

    Notes
    -----
    Parameters and the choice of the terminal line (best adjusted r2 of at least three points after cmax, cmax
    itself only for an intravenous bolus; ties within 1e-4 go to more points) follow Gabrielsson J, Weiner D,
    Pharmacokinetic and Pharmacodynamic Data Analysis, ch. 2.8, and WinNonlin. The value at 0 h of a bolus is
    the observed one, else extrapolated on the logarithmic scale from the first two samples, else (no fall) the
    first positive value; other profiles start from 0.

    Errors are propagated to first order, samples at different times being independent; derivatives are exact
    (complex step: Squire W, Trapp G (1998) SIAM Rev 40:110). For the linear rule this is Bailer AJ (1988)
    J Pharmacokinet Biopharm 16:303. Degrees of freedom after Satterthwaite: Nedelman JR, Jia X (1998)
    J Biopharm Stat 8:317. Intervals of positive parameters are made on the logarithmic scale.
    """
    t = np.asarray(time_h, dtype=np.float64)
    if t.ndim != 1 or not t.size:
        raise ValueError(f"time_h has shape {t.shape}, expected a list of hours; for several profiles use nca_batch")
    if not np.isfinite(t).all():
        at = int(np.flatnonzero(~np.isfinite(t))[0])
        raise ValueError(f"time_h has {t[at]} at position {at}, expected hours; drop the row")
    points = lambda_z_points
    mask = None
    if points is not None and not isinstance(points, int | np.integer):
        mask = _mask_of(points, t.size)[None]
        points = None
    return nca_batch(
        t[None],
        _row("value", value, t.size),
        se=None if se is None else _row("se", se, t.size),
        n=None if n is None else _row("n", n, t.size),
        dose=dose,
        dose_unit=dose_unit,
        route=route,
        unit=unit,
        method=method,
        blq=blq,
        lloq=lloq,
        below_lloq=None if below_lloq is None else _row("below_lloq", below_lloq, t.size, bool),
        lambda_z_points=points if mask is None else mask,
        infusion_h=infusion_h,
        max_extrap_pct=max_extrap_pct,
        min_adj_r2=min_adj_r2,
        level=level,
    )[0]


def nca_batch(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    dose: ArrayLike | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    unit: str = "au",
    method: str = "lin-up-log-down",
    blq: str | Mapping[str, str] = "drop",
    lloq: ArrayLike | None = None,
    below_lloq: ArrayLike | None = None,
    lambda_z_points: int | Bools | None = None,
    infusion_h: float | None = None,
    max_extrap_pct: float = 20.0,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> NcaTable:
    """Return the parameters of many profiles at once, to the last bit those of `nca` one by one.

    Parameters
    ----------
    time_h, value, se, n, below_lloq : (P, T), rows padded with NaN in `time_h`; scalars and (T,) broadcast.
    dose : scalar or (P,); NaN where unknown.
    lloq : scalar or (P, 1) or (P, T).
    lambda_z_points : number of last positive values, or a (P, T) mask of samples.
    others : as in `nca`.

    Returns
    -------
    NcaTable

    Raises
    ------
    ValueError : as `nca`; the message names the profile.

    Examples
    --------
    >>> table = nca_batch([[0, 1, 2, 3], [0, 2, 4, np.nan]], [[8, 4, 2, 1], [8, 4, 2, np.nan]])
    >>> table.values["half_life"].round(12).tolist()
    [1.0, 2.0]
    """
    settings = _Settings.of(
        method, blq, route, unit, dose_unit, lambda_z_points, infusion_h, max_extrap_pct, min_adj_r2, level
    )
    data = _Profiles.of(time_h, value, se, n, dose, lloq, below_lloq, lambda_z_points, settings)
    choice = _choose(data, settings)
    values = _evaluate(data.t, data.c, data.dose, choice, settings)
    errors = _propagate(data, choice, settings) if data.se is not None else None
    return _tabulate(data, choice, settings, values, errors)


def kp(
    auc_tissue: Estimate,
    auc_blood: Estimate,
    level: float = 0.95,
    *,
    df_tissue: float = math.inf,
    df_blood: float = math.inf,
) -> Estimate:
    """Return the tissue-to-blood ratio of two areas with Fieller's interval.

    Parameters
    ----------
    auc_tissue, auc_blood : areas from different samples, so that their errors are independent.
    level : level of the interval.
    df_tissue, df_blood : their degrees of freedom (`NcaResult.df`); infinite for a normal interval.

    Returns
    -------
    Estimate : `kp_auc`; with a blood area that may be zero the interval is open, and `reason` says so.

    Raises
    ------
    ValueError : a level that is not between 0 and 1.

    Examples
    --------
    >>> ratio = kp(Estimate("auclast", 20, 2), Estimate("auclast", 10, 1))
    >>> ratio.value, round(ratio.se, 4), round(ratio.ci_low, 3), round(ratio.ci_high, 3)
    (2.0, 0.2828, 1.509, 2.651)

    Notes
    -----
    Fieller EC (1954) J R Stat Soc B 16:175-185, without covariance; degrees of freedom of the linear form
    tissue - ratio x blood after Satterthwaite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    unit = derive("value/dose", auc_tissue.unit, auc_blood.unit) if auc_tissue.unit and auc_blood.unit else None
    method = "ratio of areas, Fieller interval"
    for part, where in ((auc_tissue, "tissue"), (auc_blood, "blood")):
        if math.isnan(part.value) or (where == "blood" and part.value <= 0):
            reason = part.reason if math.isnan(part.value) else "it is not above zero"
            return Estimate("kp_auc", method=method, reason=f"no {where} area: {reason}")
    factor = unit.factor if unit else 1.0
    a, b, va, vb = auc_tissue.value, auc_blood.value, auc_tissue.se**2, auc_blood.se**2
    ratio = a / b
    flags = tuple(sorted({*auc_tissue.flags, *auc_blood.flags}))
    n = min(auc_tissue.n, auc_blood.n)
    var = va + ratio**2 * vb
    if math.isnan(var):
        reason = "an area has no standard error, so no uncertainty"
        low = high = math.nan
    else:
        below = va**2 / df_tissue + (ratio**2 * vb) ** 2 / df_blood
        q = float(_quantile(level, np.array(var**2 / below if below > 0 else math.inf)))
        low, high, reason = _fieller(a, b, va, vb, q)
    return Estimate(
        "kp_auc",
        ratio * factor,
        math.sqrt(var) / b * factor,
        low * factor,
        high * factor,
        unit=unit.unit if unit else "",
        method=method,
        n=n,
        flags=flags,
        reason=reason,
    )


def _fieller(a: float, b: float, va: float, vb: float, q: float) -> tuple[float, float, str]:
    """Solve (a - r b)^2 = q^2 (va + r^2 vb) for the bounds of the ratio r."""
    lead = b**2 - q**2 * vb
    if lead <= 0:
        return math.nan, math.nan, "the interval is open: the blood area is not distinguishable from zero"
    root = math.sqrt(max(a**2 * b**2 - lead * (a**2 - q**2 * va), 0.0))
    return (a * b - root) / lead, (a * b + root) / lead, ""


# ---------------------------------------------------------------------------------------------- the border


@dataclass(frozen=True)
class _Settings:
    method: str
    blq: dict[str, str]
    route: str
    unit: str
    dose_unit: str
    last_points: int | None
    infusion_h: float
    max_extrap_pct: float
    min_adj_r2: float
    level: float

    @classmethod
    def of(
        cls,
        method: str,
        blq: str | Mapping[str, str],
        route: str,
        unit: str,
        dose_unit: str,
        points: int | Bools | None,
        infusion_h: float | None,
        max_extrap_pct: float,
        min_adj_r2: float,
        level: float,
    ) -> _Settings:
        _one_of("method", method, METHODS)
        _one_of("route", route, ROUTES)
        if not 0 < level < 1:
            raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
        if infusion_h is not None and not (route == "iv_infusion" and infusion_h > 0):
            raise ValueError(
                f"infusion_h has {infusion_h} with route '{route}', expected hours above 0 with route "
                "'iv_infusion'; leave it out for other routes"
            )
        last = int(points) if isinstance(points, int | np.integer) else None
        if last is not None and last < _MIN_POINTS:
            raise ValueError(f"lambda_z_points has {last}, expected at least {_MIN_POINTS}; two points fit any line")
        duration = 0.0 if route != "iv_infusion" else math.nan if infusion_h is None else float(infusion_h)
        return cls(method, _blq_rules(blq), route, unit, dose_unit, last, duration, max_extrap_pct, min_adj_r2, level)


def _blq_rules(blq: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(blq, str):
        _one_of("blq", blq, BLQ_RULES)
        return BLQ_RULES[blq]
    rules = {**BLQ_RULES["drop"], **blq}
    for place, rule in rules.items():
        _one_of("blq", place, BLQ_RULES["drop"])
        _one_of(f"blq[{place}]", rule, ("drop", "zero", "lloq/2"))
    return rules


def _one_of(field: str, found: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    if found not in known:
        raise ValueError(f"{field} has '{found}', expected one of {', '.join(known)}; {nearest(found, known)}")


def _row(field: str, array: ArrayLike, size: int, kind: type = float) -> NDArray[Any]:
    row: NDArray[Any] = np.asarray(array, dtype=kind)
    if row.ndim == 0 and field == "n":
        row = np.full(size, row)
    if row.shape != (size,):
        raise ValueError(f"{field} has shape {row.shape}, expected ({size},) as time_h; give one for each time")
    return row[None]


def _mask_of(points: Sequence[int], size: int) -> Bools:
    chosen = np.unique(np.asarray(points, dtype=np.intp))
    if chosen.size < _MIN_POINTS or chosen[0] < 0 or chosen[-1] >= size:
        raise ValueError(
            f"lambda_z_points has {list(points)}, expected at least {_MIN_POINTS} positions between 0 "
            f"and {size - 1}; count samples from 0"
        )
    mask = np.zeros(size, dtype=np.bool_)
    mask[chosen] = True
    return mask


@dataclass(frozen=True)
class _Profiles:
    """Samples after the BLQ rule, time first so that a time step is one contiguous row: all (T, P)."""

    t: Floats
    c: Floats
    present: Bools  # a sample that takes part; rows are packed, so these come first
    measured: Bools  # present and not below the limit
    blq: Bools
    se: Floats | None
    n: Floats | None
    dose: Floats  # (P,)
    position: NDArray[np.intp]  # column of the input
    chosen: Bools | None  # the user's terminal points

    @classmethod
    def of(
        cls,
        time_h: ArrayLike,
        value: ArrayLike,
        se: ArrayLike | None,
        n: ArrayLike | None,
        dose: ArrayLike | None,
        lloq: ArrayLike | None,
        below_lloq: ArrayLike | None,
        points: int | Bools | None,
        settings: _Settings,
    ) -> _Profiles:
        t = np.atleast_2d(np.asarray(time_h, dtype=np.float64))
        c = _like("value", value, t.shape)
        present = ~np.isnan(t)
        blq = _below(c, lloq, below_lloq) & present
        _check_samples(t, c, present & ~blq)
        _check_errors(t.shape, present & ~blq, se, n)
        c, kept = _apply_blq(c, present, blq, settings.blq, lloq)
        order = np.argsort(~kept, axis=1, kind="stable")
        t, c = np.where(kept, t, 0.0), np.where(kept, c, 0.0)

        def pack(a: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(np.take_along_axis(a, order, axis=1).T)

        spread = None if se is None else pack(np.where(blq | ~kept, 0.0, _like("se", se, t.shape)))
        count = None if n is None else pack(np.where(kept, _like("n", n, t.shape), np.nan))
        chosen = None if not isinstance(points, np.ndarray) else pack(_like("lambda_z_points", points, t.shape) > 0)
        return cls(
            pack(t),
            pack(c),
            pack(kept),
            pack(kept & ~blq),
            pack(blq & kept),
            spread,
            count,
            _dose(dose, t.shape[0]),
            np.ascontiguousarray(order.T),
            chosen,
        )


def _like(field: str, array: ArrayLike, shape: tuple[int, ...]) -> Floats:
    a = np.asarray(array, dtype=np.float64)
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{field} has shape {a.shape}, expected {shape} as time_h; give one for each time") from None


def _dose(dose: ArrayLike | None, profiles: int) -> Floats:
    doses = np.array(np.broadcast_to(np.asarray(math.nan if dose is None else dose, dtype=np.float64), profiles))
    if (doses <= 0).any() or np.isinf(doses).any():
        raise ValueError(
            f"dose has {doses[(doses <= 0) | np.isinf(doses)][0]}, expected a number above 0; "
            "leave it out when it is unknown"
        )
    return doses


def _below(c: Floats, lloq: ArrayLike | None, below_lloq: ArrayLike | None) -> Bools:
    mask = np.zeros(c.shape, dtype=np.bool_)
    if below_lloq is not None:
        mask = mask | (_like("below_lloq", below_lloq, c.shape) > 0)
    if lloq is not None:
        limit = _like("lloq", lloq, c.shape)
        if not (limit > 0).all():
            raise ValueError(
                f"lloq has {limit[~(limit > 0)][0]}, expected a number above 0; leave it out when it is unknown"
            )
        mask = mask | (c < limit)
    return mask


def _check_samples(t: Floats, c: Floats, measured: Bools) -> None:
    present = ~np.isnan(t)
    _refuse("time_h", t, present & ~np.isfinite(t), "hours after dosing", "correct or drop the row")
    _refuse("time_h", t, present & (t < 0), "0 h or later", "give a pre-dose sample the time 0, or drop it")
    _refuse("value", c, measured & ~np.isfinite(c), "a finite number", "drop the row or mark it below_lloq")
    latest = np.maximum.accumulate(np.where(present, t, -np.inf), axis=1)[:, :-1]
    late = present & np.pad(t[:, 1:] <= latest, ((0, 0), (1, 0)))
    _refuse(
        "time_h",
        t,
        late,
        "times that rise",
        "sort the rows by time; average samples of one time, or give each animal its own profile",
    )


def _check_errors(shape: tuple[int, ...], measured: Bools, se: ArrayLike | None, n: ArrayLike | None) -> None:
    if se is not None:
        s = _like("se", se, shape)
        _refuse("se", s, measured & ((s < 0) | np.isinf(s)), "0 or more", "give standard errors, NaN where unknown")
    if n is not None:
        count = _like("n", n, shape)
        _refuse(
            "n",
            count,
            measured & ~((count >= 1) & np.isfinite(count)),
            "at least 1 animal",
            "drop the row, or leave n out when it is unknown",
        )


def _refuse(field: str, a: Floats, bad: Bools, expected: str, remedy: str) -> None:
    if bad.any():
        profile, at = np.argwhere(bad)[0]
        where = f" of profile {profile}" if len(a) > 1 else ""
        raise ValueError(f"{field} has {a[profile, at]:g} at position {at}{where}, expected {expected}; {remedy}")


def _apply_blq(
    c: Floats, present: Bools, blq: Bools, rules: Mapping[str, str], lloq: ArrayLike | None
) -> tuple[Floats, Bools]:
    """Drop or replace values below the limit; return the values and which samples are left."""
    positive = present & ~blq & (c > 0)
    started = np.logical_or.accumulate(positive, axis=1)
    ended = ~np.logical_or.accumulate(positive[:, ::-1], axis=1)[:, ::-1]
    places = {"before_first": ~started, "between": started & ~ended, "after_last": started & ended}
    c, kept = np.array(c), np.array(present)
    for place, where in places.items():
        at = blq & where
        if rules[place] == "drop":
            kept &= ~at
        elif rules[place] == "zero":
            c[at] = 0.0
        elif at.any():
            if lloq is None:
                raise ValueError(
                    "lloq has None, expected the limit of quantification for the rule 'lloq/2'; "
                    "give lloq, or another blq rule"
                )
            c[at] = np.broadcast_to(np.asarray(lloq, dtype=np.float64), c.shape)[at] / 2
    return c, kept


# ---------------------------------------------------------------------------------------------- choices


@dataclass(frozen=True)
class _Choice:
    """What was decided on the data and stays fixed while errors are propagated."""

    start: NDArray[np.int8]  # (P,) where the value at 0 h comes from
    first: NDArray[np.intp]  # (P,) row of the first positive value
    peak: NDArray[np.intp]  # (P,) row of cmax
    last: NDArray[np.intp]  # (P,) row of the last quantifiable value; -1 without any
    logarithmic: Bools  # (T, P) the segment that ends here is logarithmic
    terminal: Bools  # (T, P) on the terminal line
    problem: NDArray[np.int8]  # (P,) why there is no line; 0 with one


def _choose(d: _Profiles, s: _Settings) -> _Choice:
    positive = d.measured & (d.c > 0)
    some = positive.any(axis=0)
    first = np.argmax(positive, axis=0)
    last = np.where(some, len(d.t) - 1 - np.argmax(positive[::-1], axis=0), -1)
    peak = np.argmax(np.where(d.measured, d.c, -np.inf), axis=0)
    start = _start(d, s)
    terminal, problem = _terminal(d, s, positive, peak)
    at_zero = _value_at_zero(d.t, d.c, start, first)
    before = np.vstack([at_zero[None], d.c[:-1]])
    logarithmic = (before > 0) & (d.c > 0) & (before != d.c)
    if s.method == "linear":
        logarithmic[:] = False
    elif s.method == "lin-up-log-down":
        logarithmic &= d.c < before
    return _Choice(start, first, peak, last, logarithmic, terminal, np.where(some, problem, _NOTHING).astype(np.int8))


def _start(d: _Profiles, s: _Settings) -> NDArray[np.int8]:
    seen = d.present[0] & (d.t[0] == 0)
    if s.route != "iv_bolus":
        return np.where(seen, _SEEN, _ZERO).astype(np.int8)
    falls = np.zeros(seen.shape, dtype=np.bool_)
    if len(d.t) > 1:
        falls = d.measured[0] & d.measured[1] & (d.c[1] > 0) & (d.c[0] > d.c[1])
    return np.where(seen, _SEEN, np.where(falls, _BACK, _FIRST)).astype(np.int8)


def _terminal(d: _Profiles, s: _Settings, positive: Bools, peak: NDArray[np.intp]) -> tuple[Bools, Any]:
    """Choose the samples of the terminal line; the second value tells why there is none."""
    row = np.arange(len(d.t))[:, None]
    if d.chosen is not None:
        _refuse(
            "lambda_z_points",
            np.where(d.chosen, d.position, 0).T.astype(np.float64),
            (d.chosen & ~positive).T,
            "positions of positive values above the limit",
            "choose other samples",
        )
        return _keep_falling(d, d.chosen, np.full(peak.shape, _MIN_POINTS))
    if s.last_points is not None:
        from_end = np.cumsum(positive[::-1], axis=0)[::-1]
        return _keep_falling(d, positive & (from_end <= s.last_points), np.full(peak.shape, s.last_points))
    candidate = positive & ((row >= peak) if s.route == "iv_bolus" else (row > peak))
    begin, found = _best_line(d, candidate)
    enough = candidate.sum(axis=0) >= _MIN_POINTS
    problem = np.where(found, 0, np.where(enough, _RISING, _FEW))
    return candidate & (row >= begin) & found, problem


def _keep_falling(d: _Profiles, points: Bools, wanted: NDArray[np.intp]) -> tuple[Bools, Any]:
    enough = points.sum(axis=0) >= wanted
    line = _line(d.t, d.c, points, np.zeros(wanted.shape))
    falls = line["lambda_z"] * (line["lambda_z_upper"] - line["lambda_z_lower"]) > _FLAT
    return points & enough & falls, np.where(enough, np.where(falls, 0, _RISING), _FEW)


def _best_line(d: _Profiles, candidate: Bools) -> tuple[NDArray[np.intp], Bools]:
    """Row where the line of best adjusted r2 begins, and whether there is one.

    Walks back from the last sample and updates means and sums of squares as samples join (Welford), so every
    number of points is tried in one pass.
    """
    log_c = np.log(np.where(candidate, d.c, 1.0))
    count, mx, my, sxx, sxy, syy = (np.zeros(d.t.shape[1]) for _ in range(6))
    score = np.full(d.t.shape, -np.inf)
    for j in reversed(range(len(d.t))):
        w = candidate[j]
        count = count + w
        share = np.where(w, 1 / np.maximum(count, 1), 0.0)
        dx, dy = d.t[j] - mx, log_c[j] - my
        mx, my = mx + share * dx, my + share * dy
        sxx = sxx + np.where(w, dx * (d.t[j] - mx), 0.0)
        sxy = sxy + np.where(w, dx * (log_c[j] - my), 0.0)
        syy = syy + np.where(w, dy * (log_c[j] - my), 0.0)
        usable = w & (count >= _MIN_POINTS) & (-sxy > _FLAT * np.sqrt(sxx))
        score[j] = np.where(usable, _adjusted(_squared_correlation(sxx, sxy, syy), count), -np.inf)
    best = score.max(axis=0)
    return np.argmax(score > best - _TIE, axis=0), np.isfinite(best)


def _squared_correlation(sxx: Numbers, sxy: Numbers, syy: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        r2: Numbers = np.minimum((sxy / sxx * sxy / syy).real, 1.0)
    return r2


def _adjusted(r2: Numbers, n: Numbers) -> Numbers:
    adjusted: Numbers = 1 - (1 - r2) * (n - 1) / np.maximum(n - 2, 1)
    return adjusted


# ---------------------------------------------------------------------------------------------- numbers


def _evaluate(t: Floats, c: Numbers, dose: Floats, choice: _Choice, s: _Settings) -> dict[str, Numbers]:
    """Every parameter for fixed choices: t is (T, P), c is (T, P) or (T, J, P), results are c's without T."""
    none = choice.last < 0
    tlast = _pick(t, choice.last)
    v: dict[str, Numbers] = {
        "cmax": np.where(none, np.nan, _pick(c, choice.peak)),
        "tmax": np.where(none, np.nan, _pick(t, choice.peak)),
        "clast": np.where(none, np.nan, _pick(c, choice.last)),
        "tlast": np.where(none, np.nan, tlast),
        "dose": dose,
        "infusion_h": np.full(dose.shape, s.infusion_h),
    }
    v["c0"] = np.where(none, np.nan, _value_at_zero(t, c, choice.start, choice.first))
    v |= {name: np.where(none, np.nan, area) for name, area in _areas(t, c, v["c0"], choice).items()}
    line = _line(t, c, choice.terminal, tlast)
    v |= {name: np.where(choice.problem == 0, a, np.nan) for name, a in line.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        for parameter in for_route(s.route):
            if parameter.formula is not None:
                v[parameter.name] = parameter.formula(v)
    return v


def _pick(a: Numbers, row: NDArray[np.intp]) -> Numbers:
    """Value of each profile at its own row."""
    out = np.zeros(a.shape[1:], dtype=a.dtype)
    for j in range(len(a)):
        out = np.where(row == j, a[j], out)
    return out


def _value_at_zero(t: Floats, c: Numbers, start: NDArray[np.int8], first: NDArray[np.intp]) -> Numbers:
    out = np.where(start == _SEEN, c[0], 0.0)
    out = np.where(start == _FIRST, _pick(c, first), out)
    back = start == _BACK
    if not back.any():
        return out
    slope = np.log(np.where(back, c[0], 1.0) / np.where(back, c[1], 1.0)) / np.where(back, t[1] - t[0], 1.0)
    out = np.where(back, c[0] * np.exp(np.where(back, slope * t[0], 0.0)), out)
    return out


def _areas(t: Floats, c: Numbers, c0: Numbers, choice: _Choice) -> dict[str, Numbers]:
    """Areas by walking along the samples: a few numbers a profile, no matter how many samples."""
    auc = aumc = tail = np.zeros(c.shape[1:], dtype=c.dtype)
    t_before, c_before = np.zeros(t.shape[1]), c0
    back = auc
    for j in range(len(t)):
        within, after = j <= choice.last, j == choice.last + 1
        area, moment = _segment(t_before, c_before, t[j], c[j], choice.logarithmic[j])
        auc, aumc = auc + np.where(within, area, 0.0), aumc + np.where(within, moment, 0.0)
        seen = t[j] > t_before  # false in padded rows
        tail = np.where(after & seen, (t[j] - t_before) * (c_before + c[j]) / 2, tail)
        if j == 0:
            back = auc
        t_before, c_before = t[j], c[j]
    return {"auclast": auc, "aumclast": aumc, "aucall": auc + tail, "auc_back": back}


def _segment(t1: Floats, c1: Numbers, t2: Floats, c2: Numbers, logarithmic: Bools) -> tuple[Numbers, Numbers]:
    """Area under c and under t c between two samples; c is a line or an exponential."""
    dt = t2 - t1
    area, moment = dt * (c1 + c2) / 2, dt * (t1 * c1 + t2 * c2) / 2
    if not logarithmic.any():
        return area, moment
    a, b = np.where(logarithmic, c1, 1.0), np.where(logarithmic, c2, 1.0)
    y = np.log(a / b)
    mean, centre = _log_mean(a, b, y), _moment(a, b, y)
    return (np.where(logarithmic, dt * mean, area), np.where(logarithmic, t1 * dt * mean + dt * dt * centre, moment))


_SMALL = 0.1  # below this the closed forms lose digits and ten terms of their series do not


def _log_mean(a: Numbers, b: Numbers, y: Numbers) -> Numbers:
    """(a - b) / y with y = ln(a / b): the mean of an exponential between a and b."""
    small = np.abs(y.real) < _SMALL
    series = b * _series(np.where(small, y, 0.0), lambda k: 1 / math.factorial(k + 1))
    return np.where(small, series, (a - b) / np.where(small, 1.0, y))


def _moment(a: Numbers, b: Numbers, y: Numbers) -> Numbers:
    """Integral of u a exp(-y u) over u from 0 to 1."""
    small = np.abs(y.real) < _SMALL
    series = a * _series(np.where(small, y, 0.0), lambda k: (-1) ** k / (math.factorial(k) * (k + 2)))
    return np.where(small, series, (a - (1 + y) * b) / np.where(small, 1.0, y * y))


def _series(y: Numbers, coefficient: Callable[[int], float]) -> Numbers:
    out = np.zeros_like(y)
    for k in reversed(range(11)):
        out = out * y + coefficient(k)
    return out


def _line(t: Floats, c: Numbers, points: Bools, tlast: Floats) -> dict[str, Numbers]:
    """Least-squares line of ln(value) on time through the given points of each profile."""
    n = np.maximum(points.sum(axis=0), 1)
    rows = range(len(t))
    x = [np.where(points[j], t[j] - tlast, 0.0) for j in rows]
    y = [np.log(np.where(points[j], c[j], 1.0)) for j in rows]
    mx, my = _add(x) / n, _add(y) / n
    dx = [np.where(points[j], x[j] - mx, 0.0) for j in rows]
    dy = [np.where(points[j], y[j] - my, 0.0) for j in rows]
    sxx, sxy = _add([a * a for a in dx]), _add([a * b for a, b in zip(dx, dy, strict=True)])
    r2 = _squared_correlation(sxx, sxy, _add([b * b for b in dy]))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sxx > 0, sxy, np.nan) / sxx
    return {
        "lambda_z": -slope,
        "clast_pred": np.exp(my - slope * mx),
        "lambda_z_n": n.astype(np.float64),
        "lambda_z_lower": np.min(np.where(points, t, np.inf), axis=0),
        "lambda_z_upper": np.max(np.where(points, t, -np.inf), axis=0),
        "r2": r2,
        "adj_r2": _adjusted(r2, n),
    }


def _add(rows: Sequence[Numbers]) -> Numbers:
    """Sum in the order of time, so that padding and the number of profiles change no bit of it."""
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


# ---------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class _Errors:
    se: dict[str, Floats]
    df: dict[str, Floats]


_BLOCK = 1_000_000  # complex numbers held at once


def _propagate(d: _Profiles, choice: _Choice, s: _Settings) -> _Errors:
    """Standard errors and Satterthwaite degrees of freedom, block by block to bound memory."""
    profiles = d.t.shape[1]
    step = max(1, _BLOCK // len(d.t) ** 2)
    names = [p.name for p in for_route(s.route) if not p.no_se]
    out = _Errors({k: np.empty(profiles) for k in names}, {k: np.empty(profiles) for k in names})
    for begin in range(0, profiles, step):
        block = slice(begin, begin + step)
        part = _propagate_block(_cut(d, block), _cut(choice, block), s, names)
        for name in names:
            out.se[name][block], out.df[name][block] = part[name]
    return out


def _cut(record: Any, block: slice) -> Any:
    """The same record for some of its profiles (always the last axis)."""
    return type(record)(*(None if a is None else a[..., block] for a in vars(record).values()))


def _propagate_block(d: _Profiles, choice: _Choice, s: _Settings, names: list[str]) -> dict[str, tuple[Floats, Floats]]:
    if d.se is None:
        return {}
    rows = len(d.t)
    h = 2.0**-100 * np.maximum(np.abs(d.c).max(axis=0), np.finfo(float).tiny * 2.0**110)
    nudged = d.c[:, None, :] + 1j * h * np.eye(rows)[:, :, None]
    gradients = _evaluate(d.t, nudged, d.dose, choice, s)
    freedom = np.full(d.t.shape, np.inf) if d.n is None else np.where(d.n > 1, d.n - 1, np.inf)
    out = {}
    for name in names:
        gradient = np.broadcast_to(gradients[name].imag / h, d.t.shape)
        part = np.where(gradient == 0, 0.0, (gradient * d.se) ** 2)
        var, below = np.zeros(part.shape[1]), np.zeros(part.shape[1])
        for j in range(rows):
            var, below = var + part[j], below + part[j] ** 2 / freedom[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(below == 0, np.inf, var**2 / below)
        out[name] = (np.sqrt(var), np.where(np.isnan(var), np.nan, df))
    return out


def _quantile(level: float, df: Floats) -> Floats:
    from scipy.special import ndtri, stdtrit

    p = 0.5 + level / 2
    finite = np.isfinite(df)
    return np.where(finite, stdtrit(np.where(finite, df, 1.0), p), ndtri(p))


def _interval(parameter: Parameter, value: Floats, se: Floats, df: Floats, level: float) -> tuple[Floats, Floats]:
    half = _quantile(level, df) * se
    if not parameter.positive:
        return value - half, value + half
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.exp(half / value)
        return np.where(value > 0, value / factor, value - half), np.where(value > 0, value * factor, value + half)


# ---------------------------------------------------------------------------------------------- the table


def _tabulate(
    d: _Profiles, choice: _Choice, s: _Settings, values: dict[str, Numbers], errors: _Errors | None
) -> NcaTable:
    nothing = np.full(d.t.shape[1], np.nan)
    table = NcaTable({}, {}, {}, {}, {}, {}, d, choice, s)
    for p in for_route(s.route):
        unit = derive(p.dimension, s.unit, s.dose_unit)
        value = np.where(np.isfinite(values[p.name]), values[p.name], np.nan) * unit.factor
        has_error = errors is not None and not p.no_se
        se = np.where(np.isnan(value), np.nan, errors.se[p.name] * unit.factor) if has_error and errors else nothing
        df = np.where(np.isnan(se), np.nan, errors.df[p.name]) if has_error and errors else nothing
        low, high = _interval(p, value, se, df, s.level) if has_error else (nothing, nothing)
        table.values[p.name], table.se[p.name], table.df[p.name] = value, se, df
        table.ci_low[p.name], table.ci_high[p.name], table.units[p.name] = low, high, unit.unit
    return table


def _result(table: NcaTable, i: int) -> NcaResult:
    known: dict[str, Estimate] = {}
    raised = _raise_flags(table, i)

    def resolve(name: str) -> Estimate:
        if name not in known:
            parents = [resolve(parent) for parent in PARAMETERS[name].depends]
            known[name] = _estimate(table, PARAMETERS[name], i, parents, raised.get(name, set()))
        return known[name]

    estimates = {p.name: resolve(p.name) for p in for_route(table._settings.route)}
    points = np.flatnonzero(table._choice.terminal[:, i])
    used = tuple(int(k) for k in table._data.position[points, i]) if table._choice.problem[i] == 0 else ()
    return NcaResult(estimates, used, {k: float(a[i]) for k, a in table.df.items()})


_OWN_FLAGS = {"few", "imprecise", "negative"}  # of one number, not of what is computed from it


def _estimate(table: NcaTable, p: Parameter, i: int, parents: list[Estimate], raised: set[str]) -> Estimate:
    """One parameter of one profile, with the flags and the reasons it has from what it is computed from."""
    value, se = float(table.values[p.name][i]), float(table.se[p.name][i])
    if math.isnan(value):
        return Estimate(
            p.name, unit=table.units[p.name], method=_method(table, p, i), reason=_why_missing(table, p, i, parents)
        )
    n = _rests_on(table, p, i)
    flags = raised | ({flag for parent in parents for flag in parent.flags} - _OWN_FLAGS)
    own = {"negative": value < 0, "imprecise": se >= 0.5 * abs(value), "few": n < 3 and p.rests_on == "profile"}
    flags |= {flag for flag, is_so in own.items() if is_so}
    low, high = float(table.ci_low[p.name][i]), float(table.ci_high[p.name][i])
    return Estimate(
        p.name,
        value,
        se,
        low,
        high,
        unit=table.units[p.name],
        method=_method(table, p, i),
        n=n,
        flags=tuple(sorted(flags)),
        reason=_why_no_error(table, p, i),
    )


def _raise_flags(table: NcaTable, i: int) -> dict[str, set[str]]:
    """Flags where they arise; `_result` hands them on to everything that depends on it."""
    s, v = table._settings, table.values
    raised: dict[str, set[str]] = {}

    def mark(flag: str, *names: str) -> None:
        for name in names:
            raised.setdefault(name, set()).add(flag)

    for kind in ("obs", "pred"):
        if v[f"auc_pct_extrap_{kind}"][i] > s.max_extrap_pct:
            mark("extrapolated", f"aucinf_{kind}")
    if v["span_ratio"][i] < 2:
        mark("short_span", "lambda_z")
    if v["adj_r2"][i] < s.min_adj_r2:
        mark("poor_lambda_z", "lambda_z")
    blq, last = table._data.blq[:, i], table._choice.last[i]
    if blq[: last + 1].any():
        mark("below_lloq", "auclast", "aumclast", "aucall")
    if blq[last + 1 : last + 2].any():
        mark("below_lloq", "aucall")
    return raised


def _rests_on(table: NcaTable, p: Parameter, i: int) -> int:
    """Number of samples a parameter rests on; of animals when n was given."""
    d, choice = table._data, table._choice
    row = np.arange(len(d.t))
    where = {
        "profile": d.measured[:, i] & (row <= choice.last[i]),
        "terminal": choice.terminal[:, i],
        "peak": row == choice.peak[i],
        "last": row == choice.last[i],
    }[p.rests_on]
    return int(where.sum()) if d.n is None else int(np.nansum(d.n[where, i]))


def _why_missing(table: NcaTable, p: Parameter, i: int, parents: list[Estimate]) -> str:
    if table._choice.problem[i] == _NOTHING:
        return "no quantifiable value above zero"
    for parent in parents:
        if math.isnan(parent.value):
            return parent.reason
    if p.name == "lambda_z":
        s, chosen = table._settings, table._data.chosen is not None
        after = "" if chosen or s.last_points else " from cmax on" if s.route == "iv_bolus" else " after cmax"
        if table._choice.problem[i] == _FEW:
            return f"fewer than {s.last_points or _MIN_POINTS} positive values{after}, so no terminal line"
        return "the terminal slope is not negative"
    if p.needs_dose and math.isnan(table._data.dose[i]):
        return "the dose is not given; give dose=..."
    if p.name.startswith("mrt") and math.isnan(table._settings.infusion_h):
        return "the duration of the infusion is not given; give infusion_h=..."
    return "its formula has no finite value here"


def _why_no_error(table: NcaTable, p: Parameter, i: int) -> str:
    if table._data.se is None:
        return p.no_se or "no replicate and no se, so no uncertainty"
    if p.no_se or not math.isnan(table.se[p.name][i]):
        return p.no_se
    at = np.isnan(table._data.se[:, i]) & table._data.present[:, i]
    times = ", ".join(f"{x:g}" for x in table._data.t[at, i])
    return f"no se at {times} h, so no uncertainty"


def _method(table: NcaTable, p: Parameter, i: int) -> str:
    words = f"nca, {table._settings.method}"
    if math.isnan(table.se[p.name][i]):
        return words
    kind = "normal" if math.isinf(table.df[p.name][i]) else "t"
    return f"{words}; delta method, {kind} interval"


def parameter_names(route: str) -> tuple[str, ...]:
    """Return the names `nca` gives for a route, in order.

    Examples
    --------
    >>> parameter_names("tissue")[:3], "cl" in parameter_names("tissue")
    (('cmax', 'tmax', 'clast'), False)
    """
    return tuple(name for name, p in PARAMETERS.items() if route in p.routes)
