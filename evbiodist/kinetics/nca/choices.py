"""Choices made once on the data: which points, which rule, where the value at 0 h comes from.

They are kept apart from the numbers because they stay fixed while errors are propagated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.nca.curve import (
    BACK,
    COPY,
    NO_WAY,
    ZERO,
    Origin,
    adjusted,
    line_through,
    pick,
    squared_correlation,
)
from evbiodist.kinetics.nca.profiles import Bools, Profiles, refuse
from evbiodist.kinetics.nca.rules import C0_WAYS, MIN_POINTS, Settings

NOTHING, FEW, RISING, RISING_BEST = 1, 2, 3, 4  # why there is no terminal line
_FLAT = 1e-9  # a relative fall this small is rounding, not decline
_TIE = 1e-4  # adjusted r2 this close to the best is as good: the line with more points wins


@dataclass(frozen=True)
class Choice:
    """What was decided on the data and stays fixed while errors are propagated."""

    origin: Origin  # where the value at 0 h comes from
    at_zero: Bools  # (P,) a sample lies at 0 h
    peak: NDArray[np.intp]  # (P,) row of cmax
    trough: NDArray[np.intp]  # (P,) row of cmin
    last: NDArray[np.intp]  # (P,) row of the last quantifiable value; -1 without any
    logarithmic: Bools  # (T, P) the piece that ends here is logarithmic
    counted: Bools  # (T, P) it lies before the last value and is not nothing by rule
    tail: Bools  # (T, P) it is the one after the last value
    terminal: Bools  # (T, P) on the terminal line
    problem: NDArray[np.int8]  # (P,) why there is no line; 0 with one


def choose(d: Profiles, s: Settings) -> Choice:
    """Return the choices for every profile; they depend on values, never on their errors."""
    positive = d.measured & (d.c > 0)
    some = positive.any(axis=0)
    row = np.arange(len(d.t))[:, None]
    last = np.where(some, len(d.t) - 1 - np.argmax(positive[::-1], axis=0), -1)
    peak = np.argmax(np.where(d.measured, d.c, -np.inf), axis=0)
    trough = np.argmin(np.where(d.measured, d.c, np.inf), axis=0)
    at_zero = d.present[0] & (d.t[0] == 0)
    origin = _origin(d, s, positive, at_zero, trough)
    terminal, problem = _terminal(d, s, positive, peak)
    c0 = origin.value(d.t, d.c)
    before = np.vstack([c0[None], d.c[:-1]])
    if len(d.t) > 1:
        before[1] = np.where(at_zero, c0, d.c[0])
    past_peak = (row > peak) | (c0 > pick(d.c, peak))
    logarithmic = (before > 0) & (d.c > 0) & (before != d.c) & _may_bend(s.method, before, d.c, past_peak)
    tail = d.present & (row == last + 1)
    counted = row <= last
    if s.rules.fall_to_zero == "nothing":
        falls = (before > 0) & (d.c == 0) & _may_bend(s.method, before, d.c, past_peak)
        counted, tail = counted & ~falls, tail & ~falls
    why = np.where(some, problem, NOTHING).astype(np.int8)
    return Choice(origin, at_zero, peak, trough, last, logarithmic, counted, tail, terminal & some, why)


def _may_bend(method: str, before: Any, c: Any, past_peak: Bools) -> Bools:
    """Which pieces a rule takes the logarithm of, where it can be taken."""
    if method == "lin-up-log-down":
        return np.asarray(c < before)
    if method == "lin-log":
        return past_peak
    return np.full(c.shape, method == "log")


def _origin(d: Profiles, s: Settings, positive: Bools, at_zero: Bools, trough: NDArray[np.intp]) -> Origin:
    """Try the ways to the value at 0 h in the order of the rule; other routes than a bolus start from 0."""
    zero = np.zeros(at_zero.shape, dtype=np.intp)
    after = at_zero.astype(np.intp)  # row of the first sample after 0 h
    column = np.arange(after.size)
    later = np.minimum(after + 1, len(d.t) - 1)
    two = (later > after) & d.measured[after % len(d.t), column] & d.measured[later, column]
    c1, c2 = d.c[after % len(d.t), column], d.c[later, column]
    ways = {
        "observed": (at_zero, COPY, zero),
        "c0": (at_zero & positive[0], COPY, zero),
        "logslope": (two & (c2 > 0) & (c1 > c2), BACK, after),
        "c1": ((after < len(d.t)) & d.present[after % len(d.t), column], COPY, after % len(d.t)),
        "first": (positive.any(axis=0), COPY, np.argmax(positive, axis=0)),
        "cmin": (d.measured.any(axis=0), COPY, trough),
        "set0": (np.ones_like(at_zero), ZERO, zero),
    }
    chain = s.rules.chain() if s.route == "iv_bolus" else ("observed", "set0")
    kind, row, way = np.full(after.size, NO_WAY, dtype=np.int8), zero, np.full(after.size, -1, dtype=np.int8)
    for name in reversed(chain):
        possible, what, where = ways[name]
        kind = np.where(possible, np.int8(what), kind)
        row = np.where(possible, where, row)
        way = np.where(possible, np.int8(tuple(C0_WAYS).index(name)), way)
    return Origin(kind, row, way)


def _terminal(d: Profiles, s: Settings, positive: Bools, peak: NDArray[np.intp]) -> tuple[Bools, Any]:
    """Choose the samples of the terminal line; the second value tells why there is none."""
    row = np.arange(len(d.t))[:, None]
    allowed = positive if d.off_line is None else positive & ~d.off_line
    if d.chosen is not None:
        refuse(
            "lambda_z_points",
            np.where(d.chosen, d.position, 0).T.astype(np.float64),
            (d.chosen & ~allowed).T,
            "positions of positive values above the limit that are not excluded",
            "choose other samples",
        )
        return _keep_falling(d, d.chosen, np.full(peak.shape, MIN_POINTS))
    if s.last_points is not None:
        from_end = np.cumsum(allowed[::-1], axis=0)[::-1]
        return _keep_falling(d, allowed & (from_end <= s.last_points), np.full(peak.shape, s.last_points))
    candidate = allowed & (row >= peak if peak_is_on_line(s) else row > peak)
    begin, found, rises = _best_line(d, candidate, s.rules.rising_tail == "refuse")
    enough = candidate.sum(axis=0) >= MIN_POINTS
    problem = np.where(found, 0, np.where(~enough, FEW, np.where(rises, RISING_BEST, RISING)))
    return candidate & (row >= begin) & found, problem


def peak_is_on_line(s: Settings) -> bool:
    """Whether cmax may be on the terminal line."""
    return s.rules.lambda_z_from == "cmax" or (s.rules.lambda_z_from == "route" and s.route == "iv_bolus")


def _keep_falling(d: Profiles, points: Bools, wanted: NDArray[np.intp]) -> tuple[Bools, Any]:
    enough = points.sum(axis=0) >= wanted
    line = line_through(d.t, d.c, points, np.zeros(wanted.shape))
    falls = line["lambda_z"] * (line["lambda_z_upper"] - line["lambda_z_lower"]) > _FLAT
    return points & enough & falls, np.where(enough, np.where(falls, 0, RISING), FEW)


def _best_line(d: Profiles, candidate: Bools, refuse_rising: bool) -> tuple[NDArray[np.intp], Bools, Bools]:
    """Row where the line of best adjusted r2 begins, whether there is one, and whether a rising one is better.

    Walks back from the last sample and updates means and sums of squares as samples join (Welford), so every
    number of points is tried in one pass.
    """
    log_c = np.log(np.where(candidate, d.c, 1.0))
    count, mx, my, sxx, sxy, syy = (np.zeros(d.t.shape[1]) for _ in range(6))
    score = np.full(d.t.shape, -np.inf)
    best_rising = np.full(d.t.shape[1], -np.inf)
    for j in reversed(range(len(d.t))):
        w = candidate[j]
        count = count + w
        share = np.where(w, 1 / np.maximum(count, 1), 0.0)
        dx, dy = d.t[j] - mx, log_c[j] - my
        mx, my = mx + share * dx, my + share * dy
        sxx = sxx + np.where(w, dx * (d.t[j] - mx), 0.0)
        sxy = sxy + np.where(w, dx * (log_c[j] - my), 0.0)
        syy = syy + np.where(w, dy * (log_c[j] - my), 0.0)
        usable = w & (count >= MIN_POINTS)
        least = _FLAT * np.sqrt(sxx)
        fit = adjusted(squared_correlation(sxx, sxy, syy), count)
        score[j] = np.where(usable & (-sxy > least), fit, -np.inf)
        if refuse_rising:
            best_rising = np.maximum(best_rising, np.where(usable & (sxy > least), fit, -np.inf))
    falling = score.max(axis=0)
    best = np.maximum(falling, best_rising)
    found = np.isfinite(falling) & (falling > best - _TIE)
    return np.argmax(score > best - _TIE, axis=0), found, np.isfinite(falling) & ~found
