"""The straight line through points with errors in both axes (York), with correlation between the two errors.

Ordinary regression takes the x axis as exact and then finds too flat a slope; in a plot whose axes share a divisor
both are uncertain, and their errors are correlated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_ROUNDS = 500


@dataclass(frozen=True)
class YorkLine:
    """A line with errors in both axes.

    Parameters
    ----------
    slope, intercept, slope_se, intercept_se : standard errors as the points' own errors imply them.
    covariance : of slope and intercept.
    mswd : sum of squared weighted residuals by degrees of freedom; 1 is expected, NaN for two points.
    weights : (N,) of the points at the solution.
    n : number of points.

    Examples
    --------
    >>> line = york([0, 1, 2, 3], [1, 3, 5, 7], 0.1, 0.2)
    >>> round(line.slope, 12), round(line.intercept, 12)
    (2.0, 1.0)
    """

    slope: float
    intercept: float
    slope_se: float
    intercept_se: float
    covariance: float
    mswd: float
    weights: Floats
    n: int


def york(x: ArrayLike, y: ArrayLike, x_se: ArrayLike, y_se: ArrayLike, correlation: ArrayLike = 0.0) -> YorkLine:
    """Fit a line to points with errors in both axes.

    Parameters
    ----------
    x, y : (N,) at least two points.
    x_se, y_se : (N,) or scalar standard errors; zero in one axis is allowed. Equal ones everywhere give
        Deming's line, and ``x_se=0`` ordinary weighted regression.
    correlation : (N,) or scalar, between the two errors of a point.

    Returns
    -------
    YorkLine

    Raises
    ------
    ValueError : too few points, values or errors that are not numbers, a point without any error, no spread in
        x, or an iteration that does not settle.

    Examples
    --------
    >>> line = york([0, 1, 2], [0, 1, 2.6], 0, 1)
    >>> round(line.slope, 12), round(line.slope_se, 6)
    (1.3, 0.707107)

    Notes
    -----
    York D, Evensen NM, Lopez Martinez M, De Basabe Delgado J (2004) Am J Phys 72:367, equations 13a to 13d.
    """
    x, y, sx, sy, r = _points(x, y, x_se, y_se, correlation)
    slope = _start(x, y)
    for _ in range(_ROUNDS):
        w = 1 / (sy**2 + slope**2 * sx**2 - 2 * slope * r * sx * sy)
        mx, my = _mean(x, w), _mean(y, w)
        u, v = x - mx, y - my
        beta = w * (u * sy**2 + slope * v * sx**2 - (slope * u + v) * r * sx * sy)
        with np.errstate(divide="ignore", invalid="ignore"):
            update = float(np.sum(w * beta * v) / np.sum(w * beta * u))
        if not math.isfinite(update):
            break
        settled = abs(update - slope) <= 1e-14 * abs(update)
        slope = update
        if settled:
            return _finish(x, y, w, mx, my, beta, slope)
    raise ValueError(
        "the line with errors in both axes does not settle; the points carry no slope within their errors, "
        "so add points over a wider range"
    )


def _points(*columns: ArrayLike) -> tuple[Floats, ...]:
    arrays = [np.asarray(c, dtype=np.float64) for c in columns]
    if arrays[0].ndim != 1 or arrays[0].shape != arrays[1].shape or arrays[0].size < 2:
        raise ValueError(
            f"x and y have shapes {arrays[0].shape} and {arrays[1].shape}, expected two lists of one length; "
            "give at least two points"
        )
    names = ("x", "y", "x_se", "y_se", "correlation")
    full = []
    for name, a in zip(names, arrays, strict=True):
        if a.ndim and a.shape != arrays[0].shape:
            raise ValueError(f"{name} has shape {a.shape}, expected {arrays[0].shape} or one number; match the points")
        if not np.isfinite(a).all():
            raise ValueError(f"{name} has a value that is not a number; drop the point")
        full.append(np.broadcast_to(a, arrays[0].shape))
    if (full[2] < 0).any() or (full[3] < 0).any():
        raise ValueError("x_se or y_se has a value below zero, expected standard errors; give them as positive numbers")
    if ((full[2] == 0) & (full[3] == 0)).any():
        raise ValueError("a point has no error in x and none in y; give it at least one")
    if (np.abs(full[4]) >= 1).any():
        raise ValueError("correlation has a value outside -1 to 1 (or at an end); give the correlation of the errors")
    if np.ptp(full[0]) == 0:
        raise ValueError(f"all points have x = {full[0][0]:g}, so no slope follows; add points elsewhere")
    return tuple(full)


def _start(x: Floats, y: Floats) -> float:
    u = x - x.mean()
    return float(u @ (y - y.mean()) / (u @ u))


def _mean(a: Floats, w: Floats) -> float:
    return float(np.sum(w * a) / np.sum(w))


def _finish(x: Floats, y: Floats, w: Floats, mx: float, my: float, beta: Floats, slope: float) -> YorkLine:
    """Standard errors from the adjusted points, and how well the line fits."""
    intercept = my - slope * mx
    centre = _mean(mx + beta, w)
    slope_var = 1 / float(np.sum(w * (mx + beta - centre) ** 2))
    n = x.size
    misfit = float(np.sum(w * (y - intercept - slope * x) ** 2))
    return YorkLine(
        slope,
        intercept,
        math.sqrt(slope_var),
        math.sqrt(1 / float(np.sum(w)) + centre**2 * slope_var),
        -centre * slope_var,
        misfit / (n - 2) if n > 2 else math.nan,
        w,
        n,
    )
