"""What leaves the body: collections of urine or faeces, their sum, rates, half-lives and renal clearance.

A collection that was lost makes every sum beyond it unknown; it is never taken as empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.nca.delta import Bools, Floats, Index, Numbers, Quantities, like, propagate
from evbiodist.kinetics.nca.dosing_cut import TerminalLine, terminal_line
from evbiodist.kinetics.nca.parameters import PARAMETERS
from evbiodist.kinetics.nca.profiles import refuse
from evbiodist.kinetics.nca.rules import one_of
from evbiodist.kinetics.nca.window import pick, rate_of_fall
from evbiodist.study.units import derive

#: What stands for a collection below the limit of quantification.
BLQ = ("zero", "lloq/2")
#: What the amount remaining to be excreted is counted down from.
ARE_TOTALS = {"rate": "amount_inf, its tail from the rate plot", "last": "what the last collection has summed up to"}

_EACH = ("collected_amount", "excretion_rate", "cumulative_amount", "cumulative_pct")
_ALL = (
    "amount_excreted",
    "pct_excreted",
    "volume_excreted",
    "excretion_rate_max",
    "excretion_rate_tmax",
    "lambda_rate",
    "half_life_rate",
    "amount_inf",
    "pct_excreted_inf",
    "amount_pct_extrap",
    "lambda_are",
    "half_life_are",
    "renal_clearance",
)


@dataclass(frozen=True)
class Excretion:
    """Excretion of each profile.

    Parameters
    ----------
    parameters : (P,) arrays by name; ``parameters[i]`` is a dict of estimates.
    collections : (P, K) arrays by name, one number a collection.
    midpoint_h : (P, K) where a collection stands in the rate plot.
    """

    parameters: Quantities
    collections: Quantities
    midpoint_h: Floats


def excretion(
    start_h: ArrayLike,
    end_h: ArrayLike,
    value: ArrayLike,
    *,
    volume: ArrayLike | None = None,
    se: ArrayLike | None = None,
    volume_se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    lloq: ArrayLike | None = None,
    below_lloq: ArrayLike | None = None,
    blq: str = "zero",
    dose: ArrayLike | None = None,
    dose_unit: str = "",
    plasma_auc: ArrayLike | None = None,
    plasma_auc_se: ArrayLike | None = None,
    plasma_auc_unit: str = "",
    route: str = "iv_bolus",
    unit: str = "au",
    volume_unit: str = "mL",
    are_total: str = "rate",
    max_extrap_pct: float = 20.0,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> Excretion:
    """Return amounts, rates, half-lives and renal clearance from collections of urine or faeces.

    Parameters
    ----------
    start_h, end_h : (K,) or (P, K) hours after dosing, each collection beginning where the one before ended and the
        first at 0 h; rows padded with NaN at their end.
    value : (K,) or (P, K) amount in each collection, or with `volume` its concentration; NaN where it was lost.
    volume : (K,) or (P, K) volume (or mass) of each collection; where it is 0 nothing was excreted.
    se, volume_se : standard errors of the two; NaN where unknown, a `volume_se` left out is 0.
    n : animals behind each value; None or 1 takes `se` as known exactly.
    lloq, below_lloq, blq : limit and/or mask of values below it, which count as ``zero`` or ``lloq/2`` without error.
    dose, dose_unit : scalar or (P,) for percent of dose.
    plasma_auc, plasma_auc_se, plasma_auc_unit : scalar or (P,) area in plasma from 0 h to the end of the last
        collection, for renal clearance (``nca(..., partial=[(0, end)])`` or `dosing_intervals` with ``tau_h=end``).
    route : for the rate plot; only after an ``iv_bolus`` can the highest rate lie on its terminal line.
    unit, volume_unit : of value and volume.
    are_total : what the sigma-minus plot counts down from: a key of `ARE_TOTALS`.
    max_extrap_pct, min_adj_r2, level : as in `nca`.

    Returns
    -------
    Excretion

    Raises
    ------
    ValueError : gaps, overlaps, negative or infinite numbers, names that are not known; the message names the remedy.

    Examples
    --------
    >>> urine = excretion([0, 2, 4, 6], [2, 4, 6, 8], [40, 20, 10, 5], dose=100, dose_unit="mg", unit="mg")
    >>> found = urine.parameters[0]
    >>> found["pct_excreted"].value, round(found["half_life_rate"].value, 9), round(found["amount_inf"].value, 9)
    (75.0, 2.0, 80.0)
    >>> excretion([0, 4], [2, 6], [1, 1])
    Traceback (most recent call last):
    ...
    ValueError: start_h has 4 at position 1, expected 2, where the collection before ended (a gap of 2 h); give what
    was collected then, with the value NaN if it was lost

    Notes
    -----
    Rate plot and sigma-minus plot: Martin BK (1967) Br J Pharmacol Chemother 29:181; Gibaldi M, Perrier D,
    Pharmacokinetics, 2nd ed., ch. 1. The terminal line is chosen as in `nca`. Rates stand at the midpoints, which is
    exact for collections of equal length; one as long as a half-life reads 2 % high. The tail of `amount_inf` is what
    an exponential of that rate still excretes after the amounts on the line, so it holds for any lengths.
    """
    one_of("blq", blq, BLQ)
    one_of("are_total", are_total, ARE_TOTALS)
    d = _Collections.of(start_h, end_h, value, volume, se, volume_se, n, lloq, below_lloq, blq)
    profiles = d.start.shape[1]
    doses = _profile("dose", dose, profiles)
    auc, auc_se = _profile("plasma_auc", plasma_auc, profiles), _profile("plasma_auc_se", plasma_auc_se, profiles)
    amount_unit = derive("value*dose", unit, volume_unit) if volume is not None else derive("value", unit)
    pct = derive("value/dose", amount_unit.unit, dose_unit).factor if dose_unit else math.nan
    clearance = _per_area(amount_unit.unit, plasma_auc_unit)
    plots = _Plots.of(d, route, are_total)

    def formulae(x: Numbers, block: slice) -> dict[str, Numbers]:
        return _evaluate(x, d.some(block), plots.some(block), doses[block], auc_from=2 * len(d.start), total=are_total)

    x = np.concatenate([d.value, d.volume, auc[None]])
    errors = None if d.se is None else np.concatenate([d.se, d.volume_se, auc_se[None]])
    counts = None if d.n is None else np.concatenate([d.n, np.ones_like(d.n), np.ones((1, profiles))])
    found = propagate(formulae, x, errors, counts, width=3)
    amount = (amount_unit.unit, amount_unit.factor)
    rate = (f"{amount_unit.unit}/h", amount_unit.factor)
    percent, hour, per_hour = ("1", 100 * amount_unit.factor * pct), ("h", 1.0), ("1/h", 1.0)
    units = {
        "collected_amount": amount,
        "excretion_rate": rate,
        "cumulative_amount": amount,
        "cumulative_pct": percent,
        "amount_excreted": amount,
        "pct_excreted": percent,
        "volume_excreted": (volume_unit, 1.0),
        "excretion_rate_max": rate,
        "excretion_rate_tmax": hour,
        "lambda_rate": per_hour,
        "half_life_rate": hour,
        "amount_inf": amount,
        "pct_excreted_inf": percent,
        "amount_pct_extrap": ("1", 1.0),
        "lambda_are": per_hour,
        "half_life_are": hour,
        "renal_clearance": (clearance[0], clearance[1] * amount_unit.factor),
    }
    words = _Words(d, plots, found.values, volume is not None, dose, dose_unit, plasma_auc, max_extrap_pct, min_adj_r2)
    common = {"why": words.why, "raised": words.raised, "count": words.count}
    method = "collections, rates at midpoints"
    return Excretion(
        Quantities.of(found, {k: units[k] for k in _ALL}, level, method=method, **common),
        Quantities.of(found, {k: units[k] for k in _EACH}, level, method=method, **common),
        (d.middle + np.where(d.there, 0.0, np.nan)).T,
    )


def _per_area(amount: str, auc: str) -> tuple[str, float]:
    """Unit of an amount over an area; empty where the area's unit is not given."""
    if not auc:
        return "", 1.0
    found = derive("value/dose", amount, auc.replace("pct_id_per_g", "pct_id/g"))
    return found.unit, found.factor


def _profile(name: str, given: ArrayLike | None, profiles: int) -> Floats:
    a = np.asarray(math.nan if given is None else given, dtype=np.float64)
    if a.shape not in ((), (profiles,)):
        raise ValueError(f"{name} has shape {a.shape}, expected one number or ({profiles},); give one a profile")
    bad = a < 0 if name == "plasma_auc_se" else a <= 0
    if (bad | np.isinf(a)).any():
        raise ValueError(
            f"{name} has {a[bad | np.isinf(a)].flat[0]:g}, expected a number above 0; leave it out if unknown"
        )
    return np.array(np.broadcast_to(a, profiles))


# what comes in


class _Collections(NamedTuple):
    """Checked collections, time first: (K, P)."""

    start: Floats
    end: Floats
    value: Floats  # amount, or concentration; NaN where lost
    volume: Floats  # 1 where `value` is the amount
    there: Bools
    blq: Bools
    se: Floats | None
    volume_se: Floats
    n: Floats | None

    @property
    def middle(self) -> Floats:
        return (self.start + self.end) / 2

    @property
    def lost(self) -> Bools:
        return self.there & (np.isnan(self.value) | np.isnan(self.volume))

    def some(self, block: slice) -> _Collections:
        """The same for some of the profiles."""
        return _Collections(*(None if a is None else a[:, block] for a in self))  # type: ignore[arg-type]

    @classmethod
    def of(
        cls,
        start_h: ArrayLike,
        end_h: ArrayLike,
        value: ArrayLike,
        volume: ArrayLike | None,
        se: ArrayLike | None,
        volume_se: ArrayLike | None,
        n: ArrayLike | None,
        lloq: ArrayLike | None,
        below_lloq: ArrayLike | None,
        blq: str,
    ) -> _Collections:
        v = np.atleast_2d(np.asarray(value, dtype=np.float64))
        start, end = like("start_h", start_h, v.shape), like("end_h", end_h, v.shape)
        there = ~np.isnan(start)
        _check_times(start, end, there)
        size = np.ones(v.shape) if volume is None else like("volume", volume, v.shape)
        v = np.where(there & (size == 0), 0.0, v)
        below = np.zeros(v.shape, dtype=np.bool_)
        if below_lloq is not None:
            below |= like("below_lloq", below_lloq, v.shape) > 0
        if lloq is not None:
            below |= v < like("lloq", lloq, v.shape)
        below &= there & (size != 0)
        if below.any() and blq == "lloq/2" and lloq is None:
            raise ValueError("lloq has None, expected the limit for the rule 'lloq/2'; give lloq, or blq='zero'")
        instead = 0.0 if lloq is None or blq == "zero" else like("lloq", lloq, v.shape) / 2
        for name, a in (("value", v), ("volume", size)):
            bad = there & ~below & ((a < 0) | np.isinf(a))
            refuse(name, a, bad, "0 or more", "write NaN for a collection that was lost")
        spread = None if se is None else like("se", se, v.shape)
        of_size = np.zeros(v.shape) if volume_se is None else like("volume_se", volume_se, v.shape)
        for name, e in (("se", spread), ("volume_se", of_size)):
            if e is not None:
                refuse(name, e, there & ((e < 0) | np.isinf(e)), "0 or more", "give standard errors, NaN where unknown")
        certain = below | ~there | (size == 0)
        v = np.where(below, instead, np.where(there, v, 0.0))
        return cls(
            np.where(there, start, 0.0).T,
            np.where(there, end, 1.0).T,
            v.T,
            np.where(there, size, 0.0).T,
            there.T,
            below.T,
            None if spread is None else np.where(certain, 0.0, spread).T,
            np.where(certain, 0.0, of_size).T,
            None if n is None else like("n", n, v.shape).T,
        )


def _check_times(start: Floats, end: Floats, there: Bools) -> None:
    """Refuse collections that are empty in time, begin late, overlap or leave a gap."""
    refuse("start_h", start, np.isinf(start), "hours after dosing", "correct or drop the collection")
    padded = np.pad(~there[:, :-1], ((0, 0), (1, 0))) & there
    refuse("start_h", start, padded, "NaN after the last collection of a profile", "move the padding to the end")
    refuse("end_h", end, there & ~(end > start), "a time after its start", "correct the times of the collection")
    refuse("end_h", end, there & np.isinf(end), "hours after dosing", "give the time the collection ended")
    for profile, at in np.argwhere(there):
        expected = 0.0 if at == 0 else end[profile, at - 1]
        off = start[profile, at] - expected
        if abs(off) <= 1e-9 * max(1.0, abs(expected)):
            continue
        where = f" of profile {profile}" if len(start) > 1 else ""
        what = "the time of the dose" if at == 0 else "where the collection before ended"
        found = f"start_h has {start[profile, at]:g} at position {at}{where}, expected {expected:g}, {what}"
        if off > 0:
            raise ValueError(
                f"{found} (a gap of {off:g} h); give what was collected then, with the value NaN if it was lost"
            )
        raise ValueError(
            f"{found} (an overlap of {-off:g} h); correct the times, what is in two collections counts twice"
        )


# the two plots


class _Plots(NamedTuple):
    """Lines of the rate plot, (K, P), and of the sigma-minus plot, (K + 1, P)."""

    rate: TerminalLine
    are: TerminalLine

    def some(self, block: slice) -> _Plots:
        """The same for some of the profiles."""
        return _Plots(self.rate.some(block), self.are.some(block))

    @classmethod
    def of(cls, d: _Collections, route: str, total: str) -> _Plots:
        """Choose the points of both lines."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            amount = d.value * d.volume
            rate = terminal_line(d.middle, amount / (d.end - d.start), d.there & ~d.blq & ~d.lost, route)
            base = _totals(amount, d, rate.points, total)
            remaining = base["amount_are"] - base["cumulative"]
            times = np.vstack([np.zeros((1, d.end.shape[1])), d.end])
            values = np.vstack([base["amount_are"][None], remaining])
            sound = np.isfinite(values) & (values > 1e-9 * base["amount_are"]) & np.vstack([d.there[:1], d.there])
            return cls(rate, terminal_line(times, values, sound, "iv_bolus"))


def _totals(amount: Numbers, d: _Collections, points: Bools, total: str) -> dict[str, Numbers]:
    """Sums and what is still to come, from amounts (K, ..., P) and the points of the rate plot."""
    shape = (len(amount), *(1,) * (amount.ndim - 2), amount.shape[-1])
    lasts, ends = (d.end - d.start).reshape(shape), d.end.reshape(shape)
    there, on_line = d.there.reshape(shape), points.reshape(shape)
    amount = np.where(there, amount, 0.0)
    cumulative = np.cumsum(amount, axis=0)
    rates = np.where(there, amount / lasts, -np.inf)
    fall = rate_of_fall(d.middle, amount / lasts, points)
    finish = np.where(d.there, d.end, -np.inf).max(axis=0)
    still = np.log(np.where(on_line, amount, 1.0)) - fall * (finish - ends)
    still = still - np.log(np.where(on_line, np.exp(fall * lasts) - 1, 1.0))
    n = points.sum(axis=0)
    tail = np.exp(np.where(on_line, still, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan))
    found = {"amount": amount, "cumulative": cumulative, "rates": rates, "fall": fall, "tail": tail}
    found["amount_inf"] = cumulative[-1] + tail
    found["amount_are"] = cumulative[-1] if total == "last" else found["amount_inf"]
    return found


def _evaluate(
    x: Numbers, d: _Collections, plots: _Plots, dose: Floats, *, auc_from: int, total: str
) -> dict[str, Numbers]:
    """Every number from values, volumes and the plasma's area stacked along the first axis, (J, ..., P)."""
    k = len(d.start)
    volume, auc = x[k : 2 * k], x[auc_from]
    t = _totals(x[:k] * volume, d, plots.rate.points, total)
    amount, whole = t["amount"], t["cumulative"][-1]
    absent = np.where(d.there, 0.0, np.nan).reshape(k, *(1,) * (x.ndim - 2), -1)
    remaining = np.concatenate([t["amount_are"][None], t["amount_are"] - t["cumulative"]])
    times = np.vstack([np.zeros((1, d.end.shape[1])), d.end])
    fall_are = rate_of_fall(times, remaining, plots.are.points)
    real = t["rates"].real if x.ndim == 2 else t["rates"].real[:, 0]
    high = np.where(np.isnan(real), -np.inf, real).argmax(axis=0)
    each = {
        "collected_amount": amount + absent,
        "excretion_rate": t["rates"] + absent,
        "cumulative_amount": t["cumulative"] + absent,
        "cumulative_pct": (t["cumulative"] + absent) / dose,
    }
    v = {name: np.moveaxis(a, 0, -1) for name, a in each.items()}
    v |= {
        "amount_excreted": whole,
        "pct_excreted": whole / dose,
        "volume_excreted": np.where(np.isnan(absent), 0.0, volume).sum(axis=0),
        "excretion_rate_max": pick(t["rates"], high),
        "excretion_rate_tmax": pick(d.middle, high),
        "lambda_rate": t["fall"],
        "half_life_rate": math.log(2) / t["fall"],
        "amount_inf": t["amount_inf"],
        "pct_excreted_inf": t["amount_inf"] / dose,
        "amount_pct_extrap": 100 * t["tail"] / t["amount_inf"],
        "lambda_are": fall_are,
        "half_life_are": math.log(2) / fall_are,
        "renal_clearance": whole / auc,
    }
    return {name: np.broadcast_to(a, whole.shape) if a.ndim < whole.ndim else a for name, a in v.items()}


# words


@dataclass(frozen=True)
class _Words:
    """Why a number is missing, which flags arise and how many collections it rests on."""

    d: _Collections
    plots: _Plots
    values: dict[str, Floats]
    with_volume: bool
    dose: ArrayLike | None
    dose_unit: str
    plasma_auc: ArrayLike | None
    max_extrap_pct: float
    min_adj_r2: float

    def why(self, name: str, at: Index) -> str:
        lost = np.flatnonzero(self.d.lost[:, at[0]])
        if len(at) > 1 and not self.d.there[at[1], at[0]]:
            return "this profile has no such collection"
        if not self.d.there[:, at[0]].any():
            return "this profile has no collection"
        if name in ("amount_excreted", "cumulative_amount", "collected_amount", "volume_excreted") and len(lost):
            first = lost[0] if name != "collected_amount" else at[1]
            start, end = self.d.start[first, at[0]], self.d.end[first, at[0]]
            return f"the collection from {start:g} to {end:g} h was lost"
        if name in ("pct_excreted", "pct_excreted_inf", "cumulative_pct"):
            missing = "the dose is" if self.dose is None else "the dose's unit is"
            return f"{missing} not given; give dose=... and dose_unit=..."
        if name == "lambda_rate":
            return f"rate plot: {self.plots.rate.why_none(at[0])}"
        if name == "lambda_are":
            if math.isnan(self.values["amount_excreted"][at[0]]):
                return self.why("amount_excreted", at)
            if math.isnan(self.values["amount_inf"][at[0]]):
                return "the amount excreted for ever is not known; are_total='last' counts down from what was collected"
            return f"sigma-minus plot: {self.plots.are.why_none(at[0])}"
        if name == "renal_clearance":
            return "the area in plasma over the same time is not given; give plasma_auc=..."
        return "its formula has no finite value here"

    def raised(self, name: str, at: Index) -> set[str]:
        flags = set()
        if (
            name in ("amount_excreted", "cumulative_amount")
            and self.d.blq[: at[1] + 1 if len(at) > 1 else None, at[0]].any()
        ):
            flags.add("below_lloq")
        if name == "collected_amount" and self.d.blq[at[1], at[0]]:
            flags.add("below_lloq")
        if name == "amount_inf" and self.values["amount_pct_extrap"][at[0]] > self.max_extrap_pct:
            flags.add("extrapolated")
        if name in ("lambda_rate", "lambda_are"):
            line = self.plots.rate if name == "lambda_rate" else self.plots.are
            flags |= line.flags(at[0], self.values[name][at[0]], self.min_adj_r2)
        return flags

    def count(self, name: str, at: Index) -> int:
        rests_on = PARAMETERS[name].rests_on
        if rests_on == "peak":
            return 1
        if rests_on == "terminal":
            line = self.plots.are if name.endswith("are") else self.plots.rate
            return int(line.points[:, at[0]].sum())
        until = at[1] + 1 if len(at) > 1 else None
        return int((self.d.there & ~self.d.lost)[:until, at[0]].sum())
