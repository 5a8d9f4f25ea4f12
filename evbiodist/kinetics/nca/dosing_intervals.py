"""More than one dose: a curve cut into dosing intervals, what each holds, and whether a steady state is shown.

What follows a later dose also holds what earlier doses left; the first value of an interval says how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.nca.delta import Bools, Floats, Index, Numbers, Quantities, propagate
from evbiodist.kinetics.nca.dosing_cut import Cut, Doses, Samples
from evbiodist.kinetics.nca.nca import BLQ_RULES, METHODS
from evbiodist.kinetics.nca.parameters import IV_ROUTES, PARAMETERS, ROUTES
from evbiodist.kinetics.nca.rules import one_of
from evbiodist.kinetics.nca.steady_state import level_troughs
from evbiodist.kinetics.nca.window import ENDS, Rows, area_to_end, at_end, pick, rate_of_fall
from evbiodist.study.estimate import Estimate
from evbiodist.study.units import derive

__all__ = ["BLQ_RULES", "ENDS", "METHODS", "DosingIntervals", "dosing_intervals", "parameter_names"]

MIN_INSIDE = 2  # samples strictly between two doses; with fewer the shape of the curve is not known
CARRY_OVER_PCT = 5.0  # of cmax before the dose, as bioequivalence guidance has it

_SEEN = ("cmax", "tmax", "cmin", "tmin", "clast", "tlast")
_ENDS = ("cpredose", "ctrough", "carryover_pct")
_AREAS = ("auc_tau", "auc_tau_pct_extrap", "aumc_tau", "cavg", "fluctuation_pct", "swing", "peak_trough_ratio")
_ACCUMULATION = ("accumulation_auc", "accumulation_cmax", "accumulation_trough")
_STEADY = ("cl_ss", "cl_f_ss", "vz_ss", "vz_f_ss", "mrt_ss", "vss_ss")


def parameter_names(route: str) -> tuple[str, ...]:
    """Return the names `dosing_intervals` gives for a route, in order.

    Examples
    --------
    >>> [name for name in parameter_names("oral") if name.endswith("_ss")]
    ['cl_f_ss', 'vz_f_ss', 'mrt_ss']
    """
    iv = ("cl_ss", "vz_ss", "mrt_ss", "vss_ss")
    steady = () if route == "tissue" else iv if route in IV_ROUTES else ("cl_f_ss", "vz_f_ss", "mrt_ss")
    at_zero = ("c0",) if route == "iv_bolus" else ()
    return (
        "tau",
        *_SEEN,
        *at_zero,
        *_ENDS,
        *_AREAS,
        "lambda_z",
        "half_life",
        "accumulation_predicted",
        *_ACCUMULATION,
        *steady,
    )


@dataclass(frozen=True)
class DosingIntervals:
    """What each dosing interval of each profile holds; ``table[i, k]`` is interval k of profile i.

    Parameters
    ----------
    parameters : arrays (P, D) by name with errors, units and reasons.
    start_h, tau_h, dose : (P, D) time and size of each dose, hours to the next; NaN where there is none.
    steady_from : (P,) the dose whose trough begins the level stretch, counted from 0; -1 where none is shown.
    notes : what was assumed.
    """

    parameters: Quantities
    start_h: Floats
    tau_h: Floats
    dose: Floats
    steady_from: NDArray[np.intp]
    notes: tuple[str, ...] = ()
    _not_steady: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.start_h)

    def __getitem__(self, index: Index) -> dict[str, Estimate]:
        return self.parameters[index]

    def time_to_steady_state(self, profile: int = 0) -> Estimate:
        """Return the hours from the first dose to the first trough of the level stretch, or why there is none."""
        k = int(self.steady_from[profile])
        method = "troughs level by equivalence"
        if k < 0:
            return Estimate("time_to_steady_state", unit="h", method=method, reason=self._not_steady[profile])
        value = self.start_h[profile, k] + self.tau_h[profile, k] - self.start_h[profile, 0]
        n = int(np.isfinite(self.start_h[profile]).sum()) - k
        no_se = PARAMETERS["time_to_steady_state"].no_se
        return Estimate("time_to_steady_state", float(value), unit="h", method=method, n=n, reason=no_se)


def dosing_intervals(
    time_h: ArrayLike,
    value: ArrayLike,
    dose_time_h: ArrayLike,
    *,
    tau_h: ArrayLike | None = None,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    dose: ArrayLike | None = None,
    dose_unit: str = "",
    infusion_h: ArrayLike | None = None,
    route: str = "iv_bolus",
    unit: str = "au",
    method: str = "lin-up-log-down",
    blq: str | Mapping[str, str] = "drop",
    lloq: ArrayLike | None = None,
    below_lloq: ArrayLike | None = None,
    ends: str = "lambda_z",
    steady_state: bool | None = None,
    trough_ratio: float = 1.25,
    max_extrap_pct: float = 20.0,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> DosingIntervals:
    """Return the non-compartmental parameters of every dosing interval of every profile.

    Parameters
    ----------
    time_h, value, se, n, below_lloq : (T,) or (P, T), as in `nca_batch`; hours on the clock of the doses. A sample at
        the time of a dose was taken before it; after the first of all doses of an ``iv_bolus`` it is the value at 0 h.
    dose_time_h, dose, infusion_h : (D,) or (P, D) time, size and duration of each dose, NaN where a profile has
        fewer; sizes and durations may be scalars.
    tau_h : scalar or (P,) length of the last interval; without it, that of the others if they are equal.
    ends : how a value is reached where no sample lies at the end of an interval: a key of `ENDS`. After the last dose,
        samples beyond the interval are used instead, by the rule of `method`.
    steady_state : True when the doses are some of many and a steady state is known: before the first dose is then what
        is left at the end of its interval. False: none of the intervals is. None: judged by the troughs.
    trough_ratio : troughs are level when the change along them lies within this factor either way.
    dose_unit, route, unit, method, blq, lloq, max_extrap_pct, min_adj_r2, level : as in `nca`.

    Returns
    -------
    DosingIntervals

    Raises
    ------
    ValueError : times, doses, values or settings that cannot be used; the message names the remedy.

    Examples
    --------
    >>> t, c = [0, 1, 2, 4, 8, 12], [2, 6, 10, 8, 4, 2]
    >>> at_steady_state = dosing_intervals(
    ...     t, c, [0], tau_h=12, dose=100, dose_unit="mg", unit="mg/L", route="oral", method="linear", steady_state=True)
    >>> found = at_steady_state[0, 0]
    >>> found["auc_tau"].value, found["cavg"].value, found["swing"].value, found["cl_f_ss"].unit
    (66.0, 5.5, 4.0, 'L/h')

    Notes
    -----
    Values before later doses come from the sample at the dose, else from the end of the interval before. Residence
    time at steady state is (aumc_tau + tau x area after the interval) / auc_tau, as PKNCA (``mrt.md``) and WinNonlin
    have it, with the area after the interval along lambda_z. Clearance, volumes and residence time are given at a
    steady state only.

    Troughs are level from dose k on when there are at least three, all quantifiable samples, and the 90 % interval of
    the change along the line through ln(trough) lies within ln(trough_ratio) of none (two one-sided tests, Schuirmann
    DJ (1987) J Pharmacokinet Biopharm 15:657); the earliest such k counts. Errors of that line are the troughs' own if
    all are known, else those of the scatter about it, by Student's t. A test that only fails to find a slope would
    call poor data steady.
    """
    one_of("method", method, METHODS)
    one_of("route", route, ROUTES)
    one_of("ends", ends, ENDS)
    if not trough_ratio > 1:
        raise ValueError(f"trough_ratio has {trough_ratio}, expected a factor above 1; write 1.25 for 80 to 125 %")
    if infusion_h is not None and route != "iv_infusion":
        raise ValueError(
            f"infusion_h is given with route '{route}', expected 'iv_infusion'; leave it out for other routes"
        )
    samples = Samples.of(time_h, value, se, n, lloq, below_lloq)
    doses, notes = Doses.of(dose_time_h, dose, infusion_h, tau_h, samples)
    cut = Cut.of(samples, doses, route, blq, bool(steady_state), method)
    names = parameter_names(route)

    def formulae(x: Numbers, block: slice) -> dict[str, Numbers]:
        found = _evaluate(x, cut, block, method, ends, route, bool(steady_state))
        return {name: found[name] for name in names}

    found = propagate(formulae, samples.c, samples.se, samples.n, 3 * doses.count)
    steady_from, not_steady = level_troughs(
        doses.start + doses.tau,
        np.where(cut.sampled_ends, found.values["ctrough"], np.nan),
        found.se["ctrough"],
        trough_ratio,
    )
    at_steady = _at_steady_state(steady_from, doses.start, steady_state)
    for name in {*_STEADY} & {*names}:
        for array in (found.values[name], found.se[name], found.df[name]):
            array[~at_steady] = np.nan
    reasons = _Reasons(cut, found.values, not_steady, at_steady, steady_state, ends, route, max_extrap_pct, min_adj_r2)
    units = {name: tuple(derive(PARAMETERS[name].dimension, unit, dose_unit)) for name in names}
    table = Quantities.of(
        found,
        units,  # type: ignore[arg-type]
        level,
        method=f"dosing intervals, {method}, ends by {ends}",
        why=reasons.why,
        raised=reasons.raised,
        count=reasons.count,
    )
    return DosingIntervals(table, doses.start, doses.tau, doses.size, steady_from, notes, not_steady)


# numbers


def _evaluate(
    x: Numbers, whole: Cut, block: slice, method: str, ends: str, route: str, steady: bool
) -> dict[str, Numbers]:
    """Every parameter of every interval, (..., P, D), from the samples of a block of profiles, (T, ..., P)."""
    cut = whole.some(block)
    rows, doses = cut.rows, cut.doses
    by_interval = (-1, doses.count)
    c = in_rows(x, cut)
    rate = rate_of_fall(rows.t, c, rows.points)
    trough = at_end(rows, c, rate, method, ends)
    predose = _before_the_dose(x, c, trough, cut, route, steady)
    seen = _seen(c, rows, predose, cut)
    start = _after_a_bolus(c, rows) if route == "iv_bolus" else predose
    starts_highest = (start.real > seen["cmax"].real).reshape(-1, start.shape[-1])[0]
    peak = np.where(starts_highest, 0.0, seen["tmax"].real)
    area, moment, tail = area_to_end(rows, c, start, trough, method, peak)
    followed = rows.kept.sum(axis=0) > rows.inside.sum(axis=0)  # between two samples, so nothing is extrapolated
    tau = np.where(np.isinf(rows.end), np.nan, rows.end)
    v: dict[str, Numbers] = {
        "tau": tau,
        **seen,
        "c0": start,
        "cpredose": predose,
        "ctrough": trough,
        "auc_tau": area,
        "aumc_tau": moment,
        "auc_tau_pct_extrap": 100 * np.where(followed, 0.0, tail) / area,
        "lambda_z": rate,
    }
    few = cut.inside < MIN_INSIDE
    nothing = np.array(np.nan, dtype=c.dtype)
    for name in (*_SEEN, "c0", "auc_tau", "aumc_tau", "auc_tau_pct_extrap"):
        v[name] = np.where(few, nothing, v[name])
    v = {name: a.reshape(*a.shape[:-1], *by_interval) for name, a in v.items()}
    v |= _derived(v, doses, route, steady)
    return {name: np.broadcast_to(a, v["auc_tau"].shape) for name, a in v.items()}


def in_rows(x: Numbers, cut: Cut) -> Numbers:
    """The samples of each interval, (T, ..., R), with what stands for values below the limit."""
    many = np.repeat(x, cut.doses.count, axis=-1)
    shape = (len(cut.order), *(1,) * (x.ndim - 2), many.shape[-1])
    order = np.broadcast_to(cut.order.reshape(shape), (len(cut.order), *many.shape[1:]))
    fixed = cut.fixed.reshape(shape)
    return np.where(np.isnan(fixed), np.take_along_axis(many, order, axis=0), np.nan_to_num(fixed))


def _before_the_dose(x: Numbers, c: Numbers, trough: Numbers, cut: Cut, route: str, steady: bool) -> Numbers:
    """What is there when a dose is given: its own sample, else the end of the interval before."""
    by_interval = trough.reshape(*trough.shape[:-1], -1, cut.doses.count)
    first = by_interval[..., 0] if steady else np.zeros_like(by_interval[..., 0])
    if route == "iv_bolus" and steady:
        first = np.where(cut.before_first >= 0, pick(x, np.maximum(cut.before_first, 0)), first)
    before = np.concatenate([first[..., None], by_interval[..., :-1]], axis=-1).reshape(trough.shape)
    if route == "iv_bolus":
        return before
    return np.where(cut.rows.kept[0] & (cut.rows.t[0] == 0), c[0], before)


def _after_a_bolus(c: Numbers, rows: Rows) -> Numbers:
    """The value at 0 h: the sample there, else back from the first two if they fall, else the first above zero."""
    two = np.minimum(1, len(c) - 1)
    falls = rows.measured[0] & rows.measured[two] & (c[0].real > c[two].real) & (c[two].real > 0)
    gap = np.where(falls, rows.t[two] - rows.t[0], 1.0)
    rate = np.log(np.where(falls, c[0], 1.0) / np.where(falls, c[two], 1.0)) / gap
    back = c[0] * np.exp(rate * np.where(falls, rows.t[0], 0.0))
    some = rows.measured & (c.real > 0 if c.ndim == 2 else c.real[:, 0] > 0)
    first = np.where(some.any(axis=0), pick(c, some.argmax(axis=0)), np.nan)
    return np.where(rows.kept[0] & (rows.t[0] == 0), c[0], np.where(falls, back, first))


def _seen(c: Numbers, rows: Rows, predose: Numbers, cut: Cut) -> dict[str, Numbers]:
    """What was measured from the dose to the next: highest, lowest and last value above zero, with their times."""
    real = c.real if c.ndim == 2 else c.real[:, 0]
    here = rows.inside & rows.measured & (real > 0)
    some = here.any(axis=0)
    high = np.where(here, real, -np.inf).argmax(axis=0)
    low = np.where(here, real, np.inf).argmin(axis=0)
    last = len(here) - 1 - here[::-1].argmax(axis=0)
    found = {}
    for name, row in (("max", high), ("min", low), ("last", last)):
        found[f"c{name}"] = np.where(some, pick(c, row), np.nan)
        found[f"t{name}"] = np.where(some, pick(rows.t, row), np.nan)
    seen_before = np.concatenate([cut.before_first[:, None] >= 0, cut.sampled_ends[:, :-1]], axis=1)
    sampled = seen_before.reshape(-1)  # after a bolus the sample at the dose is not among the rows
    lower = sampled & (predose.real > 0) & (predose.real < found["cmin"].real)
    found["cmin"] = np.where(lower, predose, found["cmin"])
    found["tmin"] = np.where(lower if lower.ndim == 1 else lower[0], 0.0, found["tmin"])
    return found


def _derived(v: dict[str, Numbers], doses: Doses, route: str, steady: bool) -> dict[str, Numbers]:
    """What is computed from the areas, ends and peaks of the intervals, (..., P, D)."""
    tau, lambda_z, auc = v["tau"], v["lambda_z"], v["auc_tau"]
    cavg, cl = auc / tau, doses.size / auc
    after = v["ctrough"] / lambda_z
    infusion = doses.infusion if route == "iv_infusion" else np.zeros(doses.start.shape)
    mrt = (v["aumc_tau"] + tau * after) / auc - infusion / 2
    same = (doses.size == doses.size[:, :1]) | np.isnan(doses.size)
    same &= np.abs(tau - tau[..., :1]) <= 1e-6 * tau
    same[..., 0] = False
    same &= not steady
    return {
        "half_life": math.log(2) / lambda_z,
        "carryover_pct": 100 * v["cpredose"] / v["cmax"],
        "cavg": cavg,
        "fluctuation_pct": 100 * (v["cmax"] - v["cmin"]) / cavg,
        "swing": (v["cmax"] - v["cmin"]) / v["cmin"],
        "peak_trough_ratio": v["cmax"] / v["ctrough"],
        "accumulation_predicted": 1 / (1 - np.exp(-lambda_z * tau)),
        "accumulation_auc": np.where(same, auc / auc[..., :1], np.nan),
        "accumulation_cmax": np.where(same, v["cmax"] / v["cmax"][..., :1], np.nan),
        "accumulation_trough": np.where(same, v["ctrough"] / v["ctrough"][..., :1], np.nan),
        "cl_ss": cl,
        "cl_f_ss": cl,
        "vz_ss": cl / lambda_z,
        "vz_f_ss": cl / lambda_z,
        "mrt_ss": mrt,
        "vss_ss": cl * mrt,
    }


def _at_steady_state(steady_from: NDArray[np.intp], start: Floats, told: bool | None) -> Bools:
    """Intervals that begin with a trough of the level stretch, (P, D); all or none when the user says so."""
    if told is not None:
        return np.full(start.shape, told)
    k = np.arange(start.shape[1]) - 1
    return (steady_from[:, None] >= 0) & (k >= steady_from[:, None])


# words


@dataclass(frozen=True)
class _Reasons:
    """Why a number is missing, which flags arise and how many samples it rests on."""

    cut: Cut
    values: dict[str, Floats]
    not_steady: tuple[str, ...]
    at_steady: Bools
    told: bool | None
    ends: str
    route: str
    max_extrap_pct: float
    min_adj_r2: float

    def row(self, at: Index) -> int:
        return at[0] * self.cut.doses.count + at[1]

    def why(self, name: str, at: Index) -> str:
        r, doses = self.row(at), self.cut.doses
        if math.isnan(doses.start[at]):
            return "this profile has no such dose"
        inside = int(self.cut.inside[r])
        if name in ("ctrough", "cpredose"):
            return self._why_no_end(name, at)
        if name == "lambda_z":
            return self.cut.line.why_none(r)
        if name == "tau":
            return "the length of the last dosing interval is not known; give tau_h=..."
        if (name in _SEEN or name in ("c0", "auc_tau", "aumc_tau", "auc_tau_pct_extrap")) and inside < MIN_INSIDE:
            return (
                f"{inside} quantifiable samples between this dose and the next, {MIN_INSIDE} are needed for its shape"
            )
        if name in _SEEN or name == "c0":
            return "no quantifiable value above zero in this dosing interval"
        if name in ("auc_tau", "aumc_tau", "auc_tau_pct_extrap"):
            end = "ctrough" if math.isnan(self.values["ctrough"][at]) else "cpredose"
            return self._why_no_end(end, at)
        if name in _ACCUMULATION:
            return self._why_no_ratio(name, at)
        if name in _STEADY:
            return self._why_not_steady(name, at)
        return "its formula has no finite value here"

    def _why_no_end(self, name: str, at: Index) -> str:
        if name == "cpredose":
            if at[1] == 0:
                return self._why_no_end("ctrough", at)
            return f"not known before this dose: {self._why_no_end('ctrough', (at[0], at[1] - 1))}"
        if math.isnan(self.cut.doses.tau[at]):
            return "the length of the last dosing interval is not known; give tau_h=..."
        r = self.row(at)
        if not self.cut.rows.inside[:, r].any():
            return "no sample between this dose and the next"
        rule = {
            "lambda_z": "no terminal line reaches it (ends='last_two' needs only two values that fall)",
            "last_two": "the last two values do not fall",
            "refuse": "ends='refuse' reaches for none",
        }
        return f"no sample at the end of the dosing interval, and {rule[self.ends]}"

    def _why_no_ratio(self, name: str, at: Index) -> str:
        doses = self.cut.doses
        if self.told:
            return "the first of all doses is not among these, as steady_state=True says"
        if at[1] == 0:
            return "this is the first dose"
        first = (at[0], 0)
        if doses.size[at] != doses.size[first] and not math.isnan(doses.size[at]):
            return f"the dose differs from the first ({doses.size[at]:g}, {doses.size[first]:g})"
        if abs(doses.tau[at] - doses.tau[first]) > 1e-6 * doses.tau[at]:
            return f"the dosing interval differs from the first ({doses.tau[at]:g} h, {doses.tau[first]:g} h)"
        return f"of the first dose: {self.why({'a': 'auc_tau', 'c': 'cmax', 't': 'ctrough'}[name.split('_')[1][0]], first)}"

    def _why_not_steady(self, name: str, at: Index) -> str:
        if self.told is False:
            return "there is no steady state, as steady_state=False says"
        if not self.at_steady[at]:
            known = "; say steady_state=True if it is known"
            shown = (
                self.not_steady[at[0]] if not self.at_steady[at[0]].any() else "this interval is before steady state"
            )
            return shown + known
        if name == "mrt_ss":
            return "the duration of the infusion is not given; give infusion_h=..."
        return "the dose is not given; give dose=..."

    def raised(self, name: str, at: Index) -> set[str]:
        r, v = self.row(at), self.values
        flags = set()
        rows = self.cut.rows
        below = self.cut.dropped[r] or (self.cut.blq[:, r] & rows.inside[:, r]).any()
        if name in ("auc_tau", "aumc_tau", "cmin") and below:
            flags.add("below_lloq")
        if name in ("auc_tau", "aumc_tau") and v["auc_tau_pct_extrap"][at] > self.max_extrap_pct:
            flags.add("extrapolated")
        if name in ("auc_tau", "cmax") and not self.at_steady[at] and v["carryover_pct"][at] > CARRY_OVER_PCT:
            flags.add("carry_over")
        if name == "lambda_z":
            flags |= self.cut.line.flags(r, v["lambda_z"][at], self.min_adj_r2)
        return flags

    def count(self, name: str, at: Index) -> int:
        r, rows = self.row(at), self.cut.rows
        parameter = PARAMETERS[name]
        if parameter.rests_on == "terminal":
            where = rows.points[:, r]
        elif parameter.rests_on == "profile":
            where = rows.measured[:, r] & rows.inside[:, r]
        else:
            return 0 if math.isnan(self.values[name][at]) else 1
        if self.cut.n is None:
            return int(where.sum())
        return int(np.nansum(self.cut.n[self.cut.order[where, r], at[0]]))
