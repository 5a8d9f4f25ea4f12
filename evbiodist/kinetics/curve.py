"""What one curve yields once its choices are made: the value at 0 h, areas and the terminal line.

Pure arithmetic on (T, P) arrays, real or complex, so that errors can be propagated through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.profiles import Bools, Floats

Numbers = NDArray[Any]  # real values, or complex ones while derivatives are taken

ZERO, SEEN, BACK, FIRST = 0, 1, 2, 3  # where the value at 0 h comes from


def pick(a: Numbers, row: NDArray[np.intp]) -> Numbers:
    """Return the value of each profile at its own row."""
    out = np.zeros(a.shape[1:], dtype=a.dtype)
    for j in range(len(a)):
        out = np.where(row == j, a[j], out)
    return out


def value_at_zero(t: Floats, c: Numbers, start: NDArray[np.int8], first: NDArray[np.intp]) -> Numbers:
    """Return what each curve starts from; `start` says how it is known, `first` is its first positive row."""
    out = np.where(start == SEEN, c[0], 0.0)
    out = np.where(start == FIRST, pick(c, first), out)
    back = start == BACK
    if not back.any():
        return out
    slope = np.log(np.where(back, c[0], 1.0) / np.where(back, c[1], 1.0)) / np.where(back, t[1] - t[0], 1.0)
    out = np.where(back, c[0] * np.exp(np.where(back, slope * t[0], 0.0)), out)
    return out


def areas(t: Floats, c: Numbers, c0: Numbers, last: NDArray[np.intp], logarithmic: Bools) -> dict[str, Numbers]:
    """Return areas by walking along the samples: a few numbers a profile, no matter how many samples."""
    auc = aumc = tail = np.zeros(c.shape[1:], dtype=c.dtype)
    t_before, c_before = np.zeros(t.shape[1]), c0
    back = auc
    for j in range(len(t)):
        within, after = j <= last, j == last + 1
        area, moment = _segment(t_before, c_before, t[j], c[j], logarithmic[j])
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


def line_through(t: Floats, c: Numbers, points: Bools, tlast: Floats) -> dict[str, Numbers]:
    """Return the least-squares line of ln(value) on time through the given points of each profile."""
    n = np.maximum(points.sum(axis=0), 1)
    rows = range(len(t))
    x = [np.where(points[j], t[j] - tlast, 0.0) for j in rows]
    y = [np.log(np.where(points[j], c[j], 1.0)) for j in rows]
    mx, my = _add(x) / n, _add(y) / n
    dx = [np.where(points[j], x[j] - mx, 0.0) for j in rows]
    dy = [np.where(points[j], y[j] - my, 0.0) for j in rows]
    sxx, sxy = _add([a * a for a in dx]), _add([a * b for a, b in zip(dx, dy, strict=True)])
    r2 = squared_correlation(sxx, sxy, _add([b * b for b in dy]))
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


def _add(rows: Sequence[Numbers]) -> Numbers:
    """Sum in the order of time, so that padding and the number of profiles change no bit of it."""
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


def squared_correlation(sxx: Numbers, sxy: Numbers, syy: Numbers) -> Numbers:
    """Return r2 from sums of squares; never above 1 by rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        r2: Numbers = np.minimum((sxy / sxx * sxy / syy).real, 1.0)
    return r2


def adjusted(r2: Numbers, n: Numbers) -> Numbers:
    """Return r2 adjusted for the number of points, which makes lines of different lengths comparable."""
    adjusted: Numbers = 1 - (1 - r2) * (n - 1) / np.maximum(n - 2, 1)
    return adjusted
