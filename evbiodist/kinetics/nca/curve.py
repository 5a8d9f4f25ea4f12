"""What one curve yields once its choices are made: the value at 0 h, areas and the terminal line.

Pure arithmetic on (T, P) arrays, real or complex: complex ones let a test check the derivatives in `slopes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.nca.profiles import Bools, Floats

Numbers = NDArray[Any]  # real values, or complex ones while derivatives are checked

NO_WAY, ZERO, COPY, BACK = -1, 0, 1, 2  # where the value at 0 h comes from: nowhere, 0, a sample, two samples


def pick(a: Numbers, row: NDArray[np.intp]) -> Numbers:
    """Return the value of each profile at its own row; 0 for a row of -1."""
    found: Numbers = np.take_along_axis(a, np.maximum(row, 0)[None], axis=0)[0]
    return np.where(row >= 0, found, 0.0)


def add(rows: Sequence[Numbers] | Numbers) -> Numbers:
    """Sum in the order of time, so that padding and the number of profiles change no bit of it."""
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


@dataclass(frozen=True)
class Origin:
    """Where the value at 0 h of each profile comes from: its kind, and the rows of one or two samples, (P,)."""

    kind: NDArray[np.int8]
    row: NDArray[np.intp]  # the sample copied, or the first of two; the second is the next
    way: NDArray[np.int8]  # which of `evbiodist.kinetics.nca.rules.C0_WAYS`, for the record

    def reach(self, t: Floats) -> Floats:
        """Return t1 / (t2 - t1) of the two samples: how far back the line is followed, in its own length."""
        back = self.kind == BACK
        t1, t2 = pick(t, self.row), pick(t, np.minimum(self.row + 1, len(t) - 1))
        return np.where(back, t1, 0.0) / np.where(back, t2 - t1, 1.0)

    def pair(self, c: Numbers) -> tuple[Numbers, Numbers]:
        """Return the values of the two samples; 1 where there are none."""
        back = self.kind == BACK
        a, b = pick(c, self.row), pick(c, np.minimum(self.row + 1, len(c) - 1))
        return np.where(back, a, 1.0), np.where(back, b, 1.0)

    def value(self, t: Floats, c: Numbers) -> Numbers:
        """Return the value at 0 h; NaN where no way leads to one."""
        out = np.where(self.kind == COPY, pick(c, self.row), np.where(self.kind == NO_WAY, np.nan, 0.0))
        if not (self.kind == BACK).any():
            return out
        a, b = self.pair(c)
        return np.where(self.kind == BACK, a * np.exp(self.reach(t) * np.log(a / b)), out)


@dataclass(frozen=True)
class Pieces:
    """The curve between neighbouring samples, (T, P); the first piece begins at 0 h."""

    t1: Floats
    t2: Floats
    c1: Numbers
    c2: Numbers
    logarithmic: Bools
    counted: Bools  # until the last quantifiable value, and not nothing by rule

    @classmethod
    def of(cls, t: Floats, c: Numbers, c0: Numbers, logarithmic: Bools, counted: Bools) -> Pieces:
        """Join samples; where one lies at 0 h the value at 0 h takes its place."""
        c1 = np.concatenate([c0[None], c[:-1]])
        if len(t) > 1:
            c1[1] = np.where(t[0] == 0, c0, c[0])
        return cls(np.concatenate([np.zeros((1, t.shape[1])), t[:-1]]), t, c1, c, logarithmic, counted)

    def decline(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Return a, b, ln(a / b) and b / a of the logarithmic pieces; a stand-in elsewhere."""
        a, b = np.where(self.logarithmic, self.c1, 2.0), np.where(self.logarithmic, self.c2, 1.0)
        return a, b, np.log(a / b), b / a


def areas(p: Pieces, tail: Bools, at_zero: Bools) -> dict[str, Numbers]:
    """Return areas to the last value; `tail` is the piece after it, `at_zero` tells of a sample at 0 h."""
    area, moment = trapezoids(p)
    inside, within = np.where(p.counted, area, 0.0), np.where(p.counted, moment, 0.0)
    auc, back = add(inside), inside[0]
    if len(inside) > 1:
        back = back + np.where(at_zero, inside[1], 0.0)
    triangle = np.where(tail, (p.t2 - p.t1) * (p.c1 + p.c2) / 2, 0.0)
    return {"auclast": auc, "aumclast": add(within), "aucall": auc + add(triangle), "auc_back": back}


def trapezoids(p: Pieces) -> tuple[Numbers, Numbers]:
    """Area under c and under t c of every piece; c is a line or an exponential."""
    dt = p.t2 - p.t1
    area, moment = dt * (p.c1 + p.c2) / 2, dt * (p.t1 * p.c1 + p.t2 * p.c2) / 2
    if not p.logarithmic.any():
        return area, moment
    a, _, y, ratio = p.decline()
    mean, centre = (dt * a * e for e in exponential_moments(y, ratio, 2))
    return np.where(p.logarithmic, mean, area), np.where(p.logarithmic, p.t1 * mean + dt * centre, moment)


_SMALL, _TERMS = 0.1, 10  # below this the closed forms lose digits and so many terms of a series do not


def exponential_moments(y: Numbers, ratio: Numbers, count: int) -> list[Numbers]:
    """Return the integrals of u^k exp(-y u) over u from 0 to 1 for k below `count`; ratio is exp(-y)."""
    small = np.abs(y.real) < _SMALL
    some = small.any()
    safe = np.where(small, 1.0, y) if some else y
    out: list[Numbers] = [(1 - ratio) / safe]
    for k in range(1, count):
        out.append((k * out[-1] - ratio) / safe)
    if some:  # the last by its series, those before it from that one
        near, decline = y[small], ratio[small]
        e = np.zeros_like(near)
        for n in reversed(range(_TERMS)):
            e = e * near + (-1) ** n / (math.factorial(n) * (n + count))
        for k in reversed(range(count)):
            out[k][small] = e
            e = (near * e + decline) / max(k, 1)
    return out


def partial_area(p: Pieces, start: float, end: float) -> Numbers:
    """Return the area between two times up to the last quantifiable value, interpolated by each piece's rule."""
    u, w, share = clip(p, start, end)
    inside = p.counted & (share > 0)
    dt = p.t2 - p.t1
    middle = (u + w) / 2
    area = dt * share * (p.c1 * (1 - middle) + p.c2 * middle)
    if p.logarithmic.any():
        a, _, y, _ = p.decline()
        part = share * y
        mean = exponential_moments(part, np.exp(-part), 1)[0]
        area = np.where(p.logarithmic, dt * share * a * np.exp(-u * y) * mean, area)
    return add(np.where(inside, area, 0.0))


def clip(p: Pieces, start: float, end: float) -> tuple[Floats, Floats, Floats]:
    """Return where an interval enters and leaves each piece, as shares of its length, and their difference."""
    length = np.where(p.t2 > p.t1, p.t2 - p.t1, 1.0)
    u = np.clip((start - p.t1) / length, 0.0, 1.0)
    w = np.clip((end - p.t1) / length, 0.0, 1.0)
    return u, w, np.where(p.t2 > p.t1, w - u, 0.0)


def tail_area(clast: Numbers, rate: Numbers, tlast: Floats, start: float, end: float) -> Numbers:
    """Return the area between two times after the last quantifiable value, along the terminal line's slope."""
    begin, length = np.maximum(start - tlast, 0.0), after(tlast, start, end)
    part = rate * length
    mean = exponential_moments(part, np.exp(-part), 1)[0]
    return np.where(length > 0, clast * np.exp(-rate * begin) * length * mean, 0.0)


def after(tlast: Floats, start: float, end: float) -> Floats:
    """Return how much of an interval lies after the last quantifiable value, in hours."""
    return np.maximum(end - np.maximum(start, tlast), 0.0)


def line_through(t: Floats, c: Numbers, points: Bools, tlast: Floats) -> dict[str, Numbers]:
    """Return the least-squares line of ln(value) on time through the given points of each profile."""
    n = np.maximum(points.sum(axis=0), 1)
    dx, mx, sxx = centred(t, points, tlast)
    y = np.log(np.where(points, c, 1.0))
    my = add(y) / n
    dy = np.where(points, y - my, 0.0)
    sxy = add(dx * dy)
    r2 = squared_correlation(sxx, sxy, add(dy * dy))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(sxx > 0, sxy, np.nan) / sxx
    return {
        "lambda_z": -slope,
        "clast_pred": np.exp(my - slope * mx),
        "lambda_z_n": n.astype(np.float64),
        "lambda_z_lower": np.min(np.where(points, t, np.inf), axis=0),
        "lambda_z_upper": np.max(np.where(points, t, -np.inf), axis=0),
        "r2": r2,
        "adj_r2": adjusted(r2, n),
    }


def centred(t: Floats, points: Bools, tlast: Floats) -> tuple[Floats, Floats, Floats]:
    """Return times of the points about their mean, that mean after the last value, and the sum of squares."""
    x = np.where(points, t - tlast, 0.0)
    mx = add(x) / np.maximum(points.sum(axis=0), 1)
    dx = np.where(points, x - mx, 0.0)
    return dx, mx, add(dx * dx)


def squared_correlation(sxx: Numbers, sxy: Numbers, syy: Numbers) -> Numbers:
    """Return r2 from sums of squares; never above 1 by rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        r2: Numbers = np.minimum((sxy / sxx * sxy / syy).real, 1.0)
    return r2


def adjusted(r2: Numbers, n: Numbers) -> Numbers:
    """Return r2 adjusted for the number of points, which makes lines of different lengths comparable."""
    adjusted: Numbers = 1 - (1 - r2) * (n - 1) / np.maximum(n - 2, 1)
    return adjusted
