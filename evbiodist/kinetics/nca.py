"""Non-compartmental analysis: areas, terminal slope and what follows, for one profile or ten thousand.

What a user calls and gets back, with flags and reasons in words: `profiles` checks what comes in, `choices`
decides on points and rules, `curve` and `propagate` make numbers and errors, `ratio` divides two areas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.choices import FEW, NOTHING, Choice, choose
from evbiodist.kinetics.curve import Numbers
from evbiodist.kinetics.parameters import PARAMETERS, Parameter, for_route
from evbiodist.kinetics.profiles import (
    BLQ_RULES,
    METHODS,
    MIN_POINTS,
    Bools,
    Floats,
    Profiles,
    Settings,
    mask_of,
    row_of,
)
from evbiodist.kinetics.propagate import Errors, evaluate, interval, propagate
from evbiodist.kinetics.ratio import kp
from evbiodist.study.estimate import Estimate
from evbiodist.study.problems import nearest
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BLQ_RULES", "METHODS", "NcaResult", "NcaTable", "kp", "nca", "nca_batch", "parameter_names"]


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
    _data: Profiles
    _choice: Choice
    _settings: Settings

    def __len__(self) -> int:
        return int(self._data.t.shape[1])

    def __getitem__(self, profile: int) -> NcaResult:
        return _result(self, range(len(self))[profile])


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
        mask = mask_of(points, t.size)[None]
        points = None
    return nca_batch(
        t[None],
        row_of("value", value, t.size),
        se=None if se is None else row_of("se", se, t.size),
        n=None if n is None else row_of("n", n, t.size),
        dose=dose,
        dose_unit=dose_unit,
        route=route,
        unit=unit,
        method=method,
        blq=blq,
        lloq=lloq,
        below_lloq=None if below_lloq is None else row_of("below_lloq", below_lloq, t.size, bool),
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
    settings = Settings.of(
        method, blq, route, unit, dose_unit, lambda_z_points, infusion_h, max_extrap_pct, min_adj_r2, level
    )
    data = Profiles.of(time_h, value, se, n, dose, lloq, below_lloq, lambda_z_points, settings)
    choice = choose(data, settings)
    values = evaluate(data.t, data.c, data.dose, choice, settings)
    errors = propagate(data, choice, settings) if data.se is not None else None
    return _tabulate(data, choice, settings, values, errors)


def parameter_names(route: str) -> tuple[str, ...]:
    """Return the names `nca` gives for a route, in order.

    Examples
    --------
    >>> parameter_names("tissue")[:3], "cl" in parameter_names("tissue")
    (('cmax', 'tmax', 'clast'), False)
    """
    return tuple(name for name, p in PARAMETERS.items() if route in p.routes)


def _tabulate(d: Profiles, choice: Choice, s: Settings, values: dict[str, Numbers], errors: Errors | None) -> NcaTable:
    nothing = np.full(d.t.shape[1], np.nan)
    table = NcaTable({}, {}, {}, {}, {}, {}, d, choice, s)
    for p in for_route(s.route):
        unit = derive(p.dimension, s.unit, s.dose_unit)
        value = np.where(np.isfinite(values[p.name]), values[p.name], np.nan) * unit.factor
        has_error = errors is not None and not p.no_se
        se = np.where(np.isnan(value), np.nan, errors.se[p.name] * unit.factor) if has_error and errors else nothing
        df = np.where(np.isnan(se), np.nan, errors.df[p.name]) if has_error and errors else nothing
        low, high = interval(p, value, se, df, s.level) if has_error else (nothing, nothing)
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
    if table._choice.problem[i] == NOTHING:
        return "no quantifiable value above zero"
    for parent in parents:
        if math.isnan(parent.value):
            return parent.reason
    if p.name == "lambda_z":
        s, chosen = table._settings, table._data.chosen is not None
        after = "" if chosen or s.last_points else " from cmax on" if s.route == "iv_bolus" else " after cmax"
        if table._choice.problem[i] == FEW:
            return f"fewer than {s.last_points or MIN_POINTS} positive values{after}, so no terminal line"
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
