"""Choices made once on the data: which points, which rule, where the value at 0 h comes from.

They are kept apart from the numbers because they stay fixed while errors are propagated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.curve import (
    BACK,
    FIRST,
    SEEN,
    ZERO,
    adjusted,
    line_through,
    squared_correlation,
    value_at_zero,
)
from evbiodist.kinetics.profiles import MIN_POINTS, Bools, Profiles, Settings, refuse

NOTHING, FEW, RISING = 1, 2, 3  # why there is no terminal line
_FLAT = 1e-9  # a relative fall this small is rounding, not decline
_TIE = 1e-4  # adjusted r2 this close to the best is as good: the line with more points wins


@dataclass(frozen=True)
class Choice:
    """What was decided on the data and stays fixed while errors are propagated."""

    start: NDArray[np.int8]  # (P,) where the value at 0 h comes from
    first: NDArray[np.intp]  # (P,) row of the first positive value
    peak: NDArray[np.intp]  # (P,) row of cmax
    last: NDArray[np.intp]  # (P,) row of the last quantifiable value; -1 without any
    logarithmic: Bools  # (T, P) the segment that ends here is logarithmic
    terminal: Bools  # (T, P) on the terminal line
    problem: NDArray[np.int8]  # (P,) why there is no line; 0 with one


def choose(d: Profiles, s: Settings) -> Choice:
    """Return the choices for every profile; they depend on values, never on their errors."""
    positive = d.measured & (d.c > 0)
    some = positive.any(axis=0)
    first = np.argmax(positive, axis=0)
    last = np.where(some, len(d.t) - 1 - np.argmax(positive[::-1], axis=0), -1)
    peak = np.argmax(np.where(d.measured, d.c, -np.inf), axis=0)
    start = _start(d, s)
    terminal, problem = _terminal(d, s, positive, peak)
    at_zero = value_at_zero(d.t, d.c, start, first)
    before = np.vstack([at_zero[None], d.c[:-1]])
    logarithmic = (before > 0) & (d.c > 0) & (before != d.c)
    if s.method == "linear":
        logarithmic[:] = False
    elif s.method == "lin-up-log-down":
        logarithmic &= d.c < before
    return Choice(start, first, peak, last, logarithmic, terminal, np.where(some, problem, NOTHING).astype(np.int8))


def _start(d: Profiles, s: Settings) -> NDArray[np.int8]:
    seen = d.present[0] & (d.t[0] == 0)
    if s.route != "iv_bolus":
        return np.where(seen, SEEN, ZERO).astype(np.int8)
    falls = np.zeros(seen.shape, dtype=np.bool_)
    if len(d.t) > 1:
        falls = d.measured[0] & d.measured[1] & (d.c[1] > 0) & (d.c[0] > d.c[1])
    return np.where(seen, SEEN, np.where(falls, BACK, FIRST)).astype(np.int8)


def _terminal(d: Profiles, s: Settings, positive: Bools, peak: NDArray[np.intp]) -> tuple[Bools, Any]:
    """Choose the samples of the terminal line; the second value tells why there is none."""
    row = np.arange(len(d.t))[:, None]
    if d.chosen is not None:
        refuse(
            "lambda_z_points",
            np.where(d.chosen, d.position, 0).T.astype(np.float64),
            (d.chosen & ~positive).T,
            "positions of positive values above the limit",
            "choose other samples",
        )
        return _keep_falling(d, d.chosen, np.full(peak.shape, MIN_POINTS))
    if s.last_points is not None:
        from_end = np.cumsum(positive[::-1], axis=0)[::-1]
        return _keep_falling(d, positive & (from_end <= s.last_points), np.full(peak.shape, s.last_points))
    candidate = positive & ((row >= peak) if s.route == "iv_bolus" else (row > peak))
    begin, found = _best_line(d, candidate)
    enough = candidate.sum(axis=0) >= MIN_POINTS
    problem = np.where(found, 0, np.where(enough, RISING, FEW))
    return candidate & (row >= begin) & found, problem


def _keep_falling(d: Profiles, points: Bools, wanted: NDArray[np.intp]) -> tuple[Bools, Any]:
    enough = points.sum(axis=0) >= wanted
    line = line_through(d.t, d.c, points, np.zeros(wanted.shape))
    falls = line["lambda_z"] * (line["lambda_z_upper"] - line["lambda_z_lower"]) > _FLAT
    return points & enough & falls, np.where(enough, np.where(falls, 0, RISING), FEW)


def _best_line(d: Profiles, candidate: Bools) -> tuple[NDArray[np.intp], Bools]:
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
        usable = w & (count >= MIN_POINTS) & (-sxy > _FLAT * np.sqrt(sxx))
        score[j] = np.where(usable, adjusted(squared_correlation(sxx, sxy, syy), count), -np.inf)
    best = score.max(axis=0)
    return np.argmax(score > best - _TIE, axis=0), np.isfinite(best)
