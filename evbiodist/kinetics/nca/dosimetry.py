"""Time-integrated activity of an organ, which is what a radiation dose is made of.

Values are brought to the activity that was really there; beyond the last sample two tails are printed side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.nca.delta import Floats, Index, Numbers, Quantities, propagate
from evbiodist.kinetics.nca.dosing_cut import Cut, Doses, Samples
from evbiodist.kinetics.nca.dosing_intervals import in_rows
from evbiodist.kinetics.nca.nca import METHODS
from evbiodist.kinetics.nca.rules import one_of
from evbiodist.kinetics.nca.tissue import per_dose
from evbiodist.kinetics.nca.window import Rows, area_to_end, pick, rate_of_fall
from evbiodist.study.constants import isotopes
from evbiodist.study.problems import nearest

#: What an organ is taken to hold between the injection and its first sample.
STARTS = {
    "zero": "rises from nothing, along a straight line",
    "hold": "what its first sample held, with the decay since then undone (larger)",
}

_NAMES = (
    "tia",
    "tia_last",
    "tia_effective",
    "tia_physical",
    "tia_pct_extrap_effective",
    "tia_pct_extrap_physical",
    "lambda_z",
    "half_life",
)


def time_integrated_activity(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    decay_corrected: bool,
    isotope: str | None = None,
    half_life_h: float | None = None,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    mass_g: ArrayLike | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    unit: str = "pct_id",
    start: str = "zero",
    method: str = "lin-up-log-down",
    blq: str | Mapping[str, str] = "drop",
    lloq: ArrayLike | None = None,
    below_lloq: ArrayLike | None = None,
    max_extrap_pct: float = 20.0,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> Quantities:
    """Return the time-integrated activity of an organ per injected activity (its residence time), in hours.

    Parameters
    ----------
    time_h, value, se, n, lloq, below_lloq : (T,) or (P, T), as in `nca_batch`.
    decay_corrected : whether the values were corrected for decay to the time of injection (percent of dose against a
        standard that decayed as long is); the decay is then redone.
    isotope, half_life_h : a name of `evbiodist.study.constants.isotopes`, or the physical half-life.
    mass_g : scalar or (P,) mass of the organ, where the unit is per gram.
    dose, dose_unit : activity injected at 0 h, where the unit is not a percent of it.
    unit : ``pct_id``, ``pct_id_per_g`` with `mass_g`, or that of an activity with `dose`.
    start : a key of `STARTS`; a sample at 0 h wins.
    method, blq, max_extrap_pct, min_adj_r2, level : as in `nca`, applied to the activity that was there.

    Returns
    -------
    Quantities : (P,) ``tia`` with the slower tail, ``tia_effective`` and ``tia_physical`` with each tail and the percent
        after the last sample, ``tia_last`` without one; ``lambda_z`` and ``half_life`` are the effective ones.

    Raises
    ------
    ValueError : an unknown isotope, or values and settings that cannot be used; the message names the remedy.

    Examples
    --------
    >>> t = [0, 2, 6, 12, 24]
    >>> held = [20 * 2 ** (-x / 12) for x in t]  # percent of dose, decay-corrected; leaves the organ in 12 h
    >>> found = time_integrated_activity(t, held, decay_corrected=True, half_life_h=12)[0]
    >>> round(found["half_life"].value, 9), round(found["tia_effective"].value, 6), round(found["tia"].value, 6)
    (6.0, 1.731234, 1.839436)
    >>> found["tia_effective"].value < found["tia_physical"].value
    True

    Notes
    -----
    Siegel JA et al. (1999) MIRD Pamphlet No. 16, J Nucl Med 40:37S. No activity falls slower than physical decay unless
    more arrives, so a slower measured tail is flagged ``tail_unsure`` and, being larger, used.
    """
    one_of("method", method, METHODS)
    one_of("start", start, STARTS)
    decay = math.log(2) / _half_life(isotope, half_life_h)
    factor = per_dose(unit, mass_g, dose, dose_unit) / 100
    samples = Samples.of(time_h, value, se, n, lloq, below_lloq)
    t = np.where(np.isnan(samples.t), 0.0, samples.t)
    left = np.exp(-decay * t) if decay_corrected else np.ones(t.shape)
    there = samples.scaled(left)
    doses, _ = Doses.of([0.0], None, None, None, there)
    cut = Cut.of(there, doses, "tissue", blq, False, method)
    seen = cut.rows.measured & (np.take_along_axis(there.c, cut.order, axis=0) > 0)
    last = np.where(seen.any(axis=0), len(seen) - 1 - seen[::-1].argmax(axis=0), 0)
    end = np.where(seen.any(axis=0), pick(cut.rows.t, last), np.nan)

    def formulae(x: Numbers, block: slice) -> dict[str, Numbers]:
        return _evaluate(x, cut.some(block), last[block], end[block], decay, start, method)

    found = propagate(formulae, there.c, there.se, there.n, width=3)
    for name in ("tia", "tia_last", "tia_effective", "tia_physical"):
        found.values[name], found.se[name] = found.values[name] * factor, found.se[name] * factor
    units = {name: ("h", 1.0) for name in _NAMES if name.startswith("tia") and "pct" not in name}
    units |= {name: ("1", 1.0) for name in _NAMES if "pct" in name}
    units |= {"lambda_z": ("1/h", 1.0), "half_life": ("h", 1.0)}
    words = _Words(cut, found.values, decay, max_extrap_pct, min_adj_r2)
    return Quantities.of(
        found,
        {name: units[name] for name in _NAMES},
        level,
        method=f"{method}, start {start}, physical half-life {math.log(2) / decay:g} h",
        why=words.why,
        raised=words.raised,
        count=words.count,
    )


def _half_life(isotope: str | None, half_life_h: float | None) -> float:
    if (isotope is None) == (half_life_h is None):
        raise ValueError(f"isotope is {isotope} and half_life_h is {half_life_h}, expected one of the two; give one")
    if half_life_h is not None:
        if not 0 < half_life_h < math.inf:
            raise ValueError(f"half_life_h has {half_life_h}, expected hours above 0; give the physical half-life")
        return half_life_h
    known = isotopes()
    if isotope not in known:
        raise ValueError(
            f"isotope has '{isotope}', which is not in the table; {nearest(str(isotope), known)}, or give half_life_h"
        )
    return known[isotope]


def _evaluate(
    x: Numbers, cut: Cut, last: Floats, end: Floats, decay: float, start: str, method: str
) -> dict[str, Numbers]:
    """Areas and tails of each organ, (..., P), from activities (T, ..., P)."""
    c = in_rows(x, cut)
    rows = Rows(cut.rows.t, cut.rows.kept, cut.rows.measured, cut.rows.points, np.where(np.isnan(end), 1.0, end))
    at_zero = rows.kept[0] & (rows.t[0] == 0)
    first_t = np.where(rows.kept[0], rows.t[0], 0.0)
    held = (start == "hold") & ~at_zero
    back = c[0] * np.exp(decay * first_t)
    clast = pick(c, last.astype(np.intp))
    peak = np.where(rows.inside & rows.measured, c.real if c.ndim == 2 else c.real[:, 0], -np.inf).argmax(axis=0)
    area, _, _ = area_to_end(rows, c, np.where(at_zero, c[0], 0.0), clast, method, pick(rows.t, peak))
    area = area + np.where(held, (back - c[0]) / decay - c[0] * first_t / 2, 0.0)  # an exponential for the triangle
    area = np.where(np.isnan(end), np.nan, area)
    rate = rate_of_fall(rows.t, c, rows.points)
    effective, physical = area + clast / rate, area + clast / decay
    return {
        "tia": np.where(rate.real < decay, effective, physical),
        "tia_last": area,
        "tia_effective": effective,
        "tia_physical": physical,
        "tia_pct_extrap_effective": 100 * (1 - area / effective),
        "tia_pct_extrap_physical": 100 * (1 - area / physical),
        "lambda_z": rate,
        "half_life": math.log(2) / rate,
    }


class _Words:
    """Why a number is missing, which flags arise and how many samples it rests on."""

    def __init__(
        self, cut: Cut, values: dict[str, Floats], decay: float, max_extrap_pct: float, min_adj_r2: float
    ) -> None:
        self.cut, self.values, self.decay = cut, values, decay
        self.max_extrap_pct, self.min_adj_r2 = max_extrap_pct, min_adj_r2

    def why(self, name: str, at: Index) -> str:
        if math.isnan(self.values["tia_last"][at]):
            return "no quantifiable value above zero"
        return self.cut.line.why_none(at[0])

    def raised(self, name: str, at: Index) -> set[str]:
        v = self.values
        slower = v["lambda_z"][at] < self.decay
        flags = {"tail_unsure"} if name in ("tia", "tia_effective") and slower else set()
        share = {
            "tia_effective": v["tia_pct_extrap_effective"][at],
            "tia_physical": v["tia_pct_extrap_physical"][at],
        }
        share["tia"] = share["tia_effective" if slower else "tia_physical"]
        if share.get(name, 0.0) > self.max_extrap_pct:
            flags.add("extrapolated")
        if name == "lambda_z":
            flags |= self.cut.line.flags(at[0], v["lambda_z"][at], self.min_adj_r2)
        if name == "tia_last" and (self.cut.dropped[at[0]] or self.cut.blq[:, at[0]].any()):
            flags.add("below_lloq")
        return flags

    def count(self, name: str, at: Index) -> int:
        which = self.cut.rows.points if name in ("lambda_z", "half_life") else self.cut.rows.measured
        return int(which[:, at[0]].sum())
