"""The stretch of a curve from one time to another: its value at the end, its area and its first moment.

Pure arithmetic on packed (T, R) rows, real or complex, so that errors go through the same code as values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.nca.delta import Bools, Floats, Numbers

#: How a value is reached where no sample lies at the end of a stretch and none follows it.
ENDS: dict[str, str] = {
    "lambda_z": "on from the last value at the terminal rate",
    "last_two": "on from the last value at the rate of the last two",
    "refuse": "not at all",
}
_SMALL = 0.1  # below this the closed forms lose digits and the series do not
_MEAN = [(-1) ** k / math.factorial(k + 1) for k in range(11)]
_MOMENT = [(-1) ** k / (math.factorial(k) * (k + 2)) for k in range(11)]


@dataclass(frozen=True)
class Rows:
    """Samples of each stretch in hours from its start, packed to the front: all (T, R)."""

    t: Floats
    kept: Bools  # a sample that takes part
    measured: Bools  # kept and not below the limit
    points: Bools  # on the terminal line
    end: Floats  # (R,) hours; infinite where it is not known

    @property
    def inside(self) -> Bools:
        """Samples from the start to the end, both included."""
        return self.kept & (self.t <= self.end)


def pick(a: Numbers, row: NDArray[np.intp]) -> Numbers:
    """Return the entry of each stretch at its own row of (T, ..., R); row -1 gives the last.

    Examples
    --------
    >>> pick(np.array([[1, 2], [3, 4]]), np.array([0, 1])).tolist()
    [1, 4]
    """
    at = row.reshape((1,) * (a.ndim - 1) + row.shape)
    return np.take_along_axis(a, np.broadcast_to(at, (1, *a.shape[1:])), axis=0)[0]


def logarithmic(method: str, before: Numbers, after: Numbers, past_peak: Bools) -> Bools:
    """Return where the curve between two values is an exponential under a rule; elsewhere it is a line."""
    b, a = before.real, after.real
    possible = (b > 0) & (a > 0) & (b != a)
    allowed = {"linear": False, "lin-up-log-down": a < b, "lin-log": past_peak, "log": True}[method]
    return possible & allowed


def segment(dt: Floats, c1: Numbers, c2: Numbers, is_log: Bools) -> tuple[Numbers, Numbers]:
    """Return the area under a line or an exponential from c1 to c2, and its moment about the first time.

    The moment of a line is the trapezoid of time times value, as every program of the field has it, not the integral.
    """
    a, b = np.where(is_log, c1, 1.0), np.where(is_log, c2, 1.0)
    y = np.log(a / b)
    small = np.abs(y.real) < _SMALL
    s, z = np.where(small, y, 0.0), np.where(small, 1.0, y)
    mean = np.where(small, a * np.polynomial.polynomial.polyval(s, _MEAN), (a - b) / z)
    centre = np.where(small, a * np.polynomial.polynomial.polyval(s, _MOMENT), (a - (1 + y) * b) / z**2)
    area = np.where(is_log, mean, (c1 + c2) / 2) * dt
    return area, np.where(is_log, centre, c2 / 2) * dt**2


def rate_of_fall(t: Floats, c: Numbers, points: Bools) -> Numbers:
    """Return minus the slope of the least-squares line of ln(value) on time through each stretch's points."""
    n = points.sum(axis=0)
    shape = (len(t), *(1,) * (c.ndim - 2), t.shape[-1])
    at = points.reshape(shape)
    mean = np.where(points, t, 0.0).sum(axis=0) / np.maximum(n, 1)
    dx = np.where(points, t - mean, 0.0)
    y = np.log(np.where(at, c, 1.0))
    sxx = (dx**2).sum(axis=0)
    slope = (dx.reshape(shape) * y).sum(axis=0) / np.where(sxx > 0, sxx, np.nan)
    return -np.where(n >= 2, slope, np.nan)


def at_end(rows: Rows, c: Numbers, rate: Numbers, method: str, ends: str) -> Numbers:
    """Return the value of each stretch at its end: seen, between two samples, or reached by the rule `ends`."""
    last = rows.inside.sum(axis=0) - 1
    following = np.minimum(last + 1, len(rows.t) - 1)
    t1, c1 = pick(rows.t, last), pick(c, last)
    t2, c2 = pick(rows.t, following), pick(c, following)
    gap = rows.end - t1
    share = gap / np.where(t2 > t1, t2 - t1, np.nan)
    is_log = logarithmic(method, c1, c2, np.ones(last.shape, dtype=np.bool_))
    ratio = np.log(np.where(is_log, c2, 1.0) / np.where(is_log, c1, 1.0))
    between = np.where(is_log, c1 * np.exp(share * ratio), c1 + share * (c2 - c1))
    if ends == "last_two":
        t0, c0 = pick(rows.t, np.maximum(last - 1, 0)), pick(c, np.maximum(last - 1, 0))
        falls = (last > 0) & (c0.real > c1.real) & (c1.real > 0)
        fall = np.log(np.where(falls, c0, 1.0) / np.where(falls, c1, 1.0))
        rate = np.where(falls, fall, np.nan) / np.where(falls, t1 - t0, 1.0)
    elif ends == "refuse":
        rate = np.full(rate.shape, np.nan)
    beyond = np.where(c1.real > 0, c1 * np.exp(-rate * np.where(np.isfinite(gap), gap, np.nan)), 0.0)
    followed = (last + 1 < len(rows.t)) & pick(rows.kept, following) & (following > last)
    value = np.where(gap == 0, c1, np.where(followed, between, beyond))
    return np.where((last < 0) | np.isinf(rows.end), np.nan, value)


def area_to_end(
    rows: Rows, c: Numbers, start: Numbers, end: Numbers, method: str, peak: Floats
) -> tuple[Numbers, Numbers, Numbers]:
    """Return area, moment about the start, and the part of the area after the last sample inside.

    Parameters
    ----------
    c : (T, ..., R) values; `start` and `end` (..., R) those at the two ends.
    peak : (R,) time of the highest value, for the rule ``lin-log``.
    """
    inside = rows.inside
    middle = inside.reshape((len(inside), *(1,) * (c.ndim - 2), inside.shape[-1]))
    t = np.vstack([np.zeros((1, len(peak))), np.where(inside, rows.t, rows.end), rows.end[None]])
    values = np.concatenate([start[None], np.where(middle, c, end), end[None]])
    dt = np.diff(t, axis=0)
    dt = dt.reshape((len(dt), *(1,) * (c.ndim - 2), dt.shape[-1]))
    past = (t[:-1] >= peak).reshape(dt.shape)
    area, moment = segment(dt, values[:-1], values[1:], logarithmic(method, values[:-1], values[1:], past))
    outside = np.concatenate([~middle, np.ones_like(middle[:1])])
    tail = np.where(outside, area, 0.0).sum(axis=0)
    first = t[:-1].reshape(dt.shape)
    return area.sum(axis=0), (first * area + moment).sum(axis=0), tail


def apply_blq(
    c: Floats, present: Bools, blq: Bools, rules: Mapping[str, str], lloq: Floats | None
) -> tuple[Floats, Bools]:
    """Drop or replace values below the limit by position within each stretch, (R, T); return values and what is kept.

    Raises
    ------
    ValueError : the rule ``lloq/2`` without a limit.
    """
    positive = present & ~blq & (c > 0)
    started = np.logical_or.accumulate(positive, axis=1)
    ended = ~np.logical_or.accumulate(positive[:, ::-1], axis=1)[:, ::-1]
    places = {"before_first": ~started, "between": started & ~ended, "after_last": started & ended}
    c, kept = c.copy(), present.copy()
    for place, where in places.items():
        at = blq & where & present
        if rules[place] == "drop":
            kept &= ~at
        elif rules[place] == "zero":
            c[at] = 0.0
        elif at.any():
            if lloq is None:
                raise ValueError("lloq has None, expected the limit for the rule 'lloq/2'; give lloq, or another rule")
            c[at] = np.broadcast_to(lloq, c.shape)[at] / 2
    return c, kept
