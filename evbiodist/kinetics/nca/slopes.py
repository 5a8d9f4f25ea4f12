"""Derivatives of what `curve` reads off a profile with respect to its samples, written out.

They are exact and cost about as much as the numbers themselves; a test holds them against the complex step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.nca.curve import BACK, COPY, Origin, Pieces, after, centred, clip, exponential_moments
from evbiodist.kinetics.nca.profiles import Bools, Floats


def of_sample(size: int, row: NDArray[np.intp]) -> Floats:
    """Return the derivative of a value that is one of the samples, shape (size, P)."""
    return (np.arange(size)[:, None] == row).astype(np.float64)


def of_origin(origin: Origin, t: Floats, c: Floats) -> Floats:
    """Return the derivative of the value at 0 h, shape (T, P)."""
    rows = np.arange(len(t))[:, None]
    out = ((rows == origin.row) & (origin.kind == COPY)).astype(np.float64)
    if (origin.kind == BACK).any():
        reach, (a, b) = origin.reach(t), origin.pair(c)
        value = a * np.exp(reach * np.log(a / b))
        back = origin.kind == BACK
        out = np.where(back & (rows == origin.row), (1 + reach) * value / a, out)
        out = np.where(back & (rows == origin.row + 1), -reach * value / b, out)
    return out


@dataclass(frozen=True)
class AreaSlopes:
    """Brings derivatives with respect to both ends of every piece together at the samples."""

    at_zero: Bools  # (P,) a sample lies at 0 h, whose place the value at 0 h has taken
    origin: Floats  # (T, P) derivative of that value

    def collect(self, first: Floats, second: Floats) -> Floats:
        """Return the derivative with respect to the samples, (T, P), from those at the ends of pieces, (T, P)."""
        out, start = second.copy(), first[0]
        if len(out) > 1:
            out[1:-1] += first[2:]
            out[0] += np.where(self.at_zero, 0.0, first[1])
            start = start + np.where(self.at_zero, first[1], 0.0)
        return out + start * self.origin

    def areas(self, p: Pieces, tail: Bools) -> dict[str, Floats]:
        """Return the derivatives of what `evbiodist.kinetics.nca.curve.areas` gives."""
        area, moment = trapezoid_slopes(p)
        a1, a2, m1, m2 = (np.where(p.counted, d, 0.0) for d in (*area, *moment))
        half = np.where(tail, (p.t2 - p.t1) / 2, 0.0)
        auc = self.collect(a1, a2)
        first = np.arange(len(a1))[:, None] <= self.at_zero
        back = self.collect(np.where(first, a1, 0.0), np.where(first, a2, 0.0))
        return {
            "auclast": auc,
            "aumclast": self.collect(m1, m2),
            "aucall": auc + self.collect(half, half),
            "auc_back": back,
        }

    def partial(self, p: Pieces, start: float, end: float) -> Floats:
        """Return the derivative of the part of a partial area before the last quantifiable value."""
        u, w, share = clip(p, start, end)
        inside = p.counted & (share > 0)
        width, middle = (p.t2 - p.t1) * share, (u + w) / 2
        first, second = width * (1 - middle), width * middle
        if p.logarithmic.any():
            a, b, y, _ = p.decline()
            part = share * y
            mean, late = exponential_moments(part, np.exp(-part), 2)
            low = np.exp(-u * y)
            late = u * mean + share * late  # mean of u exp(-y u) over the part
            first = np.where(p.logarithmic, width * low * (mean - late), first)
            second = np.where(p.logarithmic, width * low * late * a / b, second)
        return self.collect(np.where(inside, first, 0.0), np.where(inside, second, 0.0))


def trapezoid_slopes(p: Pieces) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return the derivatives of area and moment of every piece with respect to its two values."""
    dt = p.t2 - p.t1
    area, moment = (dt / 2, dt / 2), (dt * p.t1 / 2, dt * p.t2 / 2)
    if not p.logarithmic.any():
        return area, moment
    a, b, y, ratio = p.decline()
    e0, e1, e2 = exponential_moments(y, ratio, 3)
    first, second = dt * (e0 - e1), dt * e1 * (a / b)
    bent = (first, second)
    bent_moment = (p.t1 * first + dt * dt * (e1 - e2), p.t1 * second + dt * dt * e2 * (a / b))
    which = p.logarithmic
    return (
        (np.where(which, bent[0], area[0]), np.where(which, bent[1], area[1])),
        (np.where(which, bent_moment[0], moment[0]), np.where(which, bent_moment[1], moment[1])),
    )


def tail_slopes(clast: Floats, rate: Floats, tlast: Floats, start: float, end: float) -> tuple[Floats, Floats]:
    """Return the derivatives of `evbiodist.kinetics.nca.curve.tail_area` with respect to clast and lambda_z."""
    begin, length = np.maximum(start - tlast, 0.0), after(tlast, start, end)
    part = rate * length
    mean, late = exponential_moments(part, np.exp(-part), 2)
    by_clast = np.where(length > 0, np.exp(-rate * begin) * length * mean, 0.0)
    by_rate = np.where(length > 0, -clast * np.exp(-rate * begin) * length * (begin * mean + length * late), 0.0)
    return by_clast, by_rate


def of_line(t: Floats, c: Floats, points: Bools, tlast: Floats, clast_pred: Floats) -> dict[str, Floats]:
    """Return the derivatives of the terminal line's slope and of its value at the last time."""
    dx, mx, sxx = centred(t, points, tlast)
    c = np.where(points, c, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = dx / sxx
    share = points / np.maximum(points.sum(axis=0), 1)
    return {"lambda_z": -weight / c, "clast_pred": np.where(points, clast_pred * (share - mx * weight) / c, 0.0)}
