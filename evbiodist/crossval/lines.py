"""A straight line between two labels that both err: Deming's, and Passing and Bablok's, which no outlier moves.

Ordinary regression would bend towards zero because it believes the label on the x axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.concordance import moments
from evbiodist.crossval.pairs import FloatArray, check_level, flat, paired
from evbiodist.study.estimate import student


@dataclass(frozen=True)
class Line:
    """The line ``b = intercept + slope * a`` with intervals; NaN with a reason where the data carry none."""

    slope: float = math.nan
    slope_low: float = math.nan
    slope_high: float = math.nan
    intercept: float = math.nan
    intercept_low: float = math.nan
    intercept_high: float = math.nan
    reason: str = ""


def deming(a: npt.ArrayLike, b: npt.ArrayLike, *, error_ratio: float = 1.0, level: float = 0.95) -> Line:
    """Return the line with normal errors on both axes and its jackknife interval.

    Parameters
    ----------
    a, b : (n,) paired values, n at least 3.
    error_ratio : variance of the error of `a` over that of `b` (Linnet's lambda); `replicates.error_ratio` estimates it.

    Raises
    ------
    ValueError : different shapes, values that are not finite, `error_ratio` or `level` out of range.

    Examples
    --------
    >>> found = deming([4.1, 6.0, 7.9, 10.2], [4.0, 6.1, 8.1, 10.0])
    >>> round(found.slope, 3), round(found.slope_low, 3), round(found.slope_high, 3)
    (0.989, 0.58, 1.398)

    Notes
    -----
    Linnet, Stat Med 1990;9:1463: jackknife interval with n - 2 degrees of freedom.
    """
    x, y = paired(a, b)
    check_level(level)
    if not (math.isfinite(error_ratio) and error_ratio > 0):
        raise ValueError(
            f"error_ratio: found {error_ratio}, expected a positive number; "
            "give the error variance of a over that of b, or leave it at 1."
        )
    n = x.size
    if n < 3:
        return Line(reason=f"n = {n} pairs, and a Deming line needs 3")
    if why := flat(x, y):
        return Line(reason=why)
    line = np.array(_deming_line(x, y, error_ratio))
    if np.isnan(line).any():
        return Line(reason="the pairs are uncorrelated, so no Deming line follows")
    slope, intercept = line.tolist()
    left_out = np.array([_deming_line(np.delete(x, i), np.delete(y, i), error_ratio) for i in range(n)])
    if np.isnan(left_out).any():
        why = "the Deming line hangs on a single pair, so it has no jackknife interval"
        return Line(slope, intercept=intercept, reason=why)
    pseudo = n * line - (n - 1) * left_out
    margin = student(level, n - 2) * np.std(pseudo, axis=0, ddof=1) / math.sqrt(n)
    low, high = (line - margin).tolist(), (line + margin).tolist()
    return Line(slope, low[0], high[0], intercept, low[1], high[1])


def _deming_line(x: FloatArray, y: FloatArray, ratio: float) -> tuple[float, float]:
    """Return (slope, intercept) of y on x, NaN for uncorrelated pairs; ratio is error var x / var y."""
    sxx, syy, sxy = moments(x, y)
    if sxy == 0:
        return math.nan, math.nan
    tilt = ratio * syy - sxx
    root = math.hypot(tilt, 2 * math.sqrt(ratio) * sxy)
    # two forms of one root; each is taken where it does not subtract nearly equal numbers
    slope = (tilt + root) / (2 * ratio * sxy) if tilt >= 0 else 2 * sxy / (root - tilt)
    return slope, float(np.mean(y) - slope * np.mean(x))


@dataclass(frozen=True)
class RobustLine(Line):
    """A Passing-Bablok line, with its test for linearity.

    Parameters
    ----------
    cusum : largest cumulative sum of signs along the line over ``sqrt(L + 1)``, as the paper of 1983 has it; L points lie
        below the line.
    linearity_p : Kolmogorov's probability of so large a `cusum` on a straight line (1.36 is 5 %); small means that the line
        is bent. On simulated straight lines of 20 to 200 points it fell below 0.05 in 1.5 to 9 of 100.
    slopes : how many slopes of two points entered.
    """

    cusum: float = math.nan
    linearity_p: float = math.nan
    slopes: int = 0


def passing_bablok(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> RobustLine:
    """Return the Passing-Bablok line: the shifted median of the slopes of all pairs of points.

    Parameters
    ----------
    a, b : (n,) paired values of labels that rise together, n at least 3; at 95 % an interval needs 5.

    Returns
    -------
    RobustLine : exchanging `a` and `b` inverts the slope. Intervals that reach a vertical line are missing with a reason.

    Raises
    ------
    ValueError : different shapes, values that are not finite, or `level` out of range.

    Examples
    --------
    >>> found = passing_bablok([1, 2, 3, 4, 5, 6], [1.1, 2.0, 3.2, 3.9, 5.3, 9.0])
    >>> round(found.slope, 3), round(found.slope_low, 3), round(found.slope_high, 3)
    (1.1, 0.9, 2.55)

    Notes
    -----
    Passing & Bablok, J Clin Chem Clin Biochem 1983;21:709. Identical points give no slope; slopes of exactly -1 are left
    out; vertical slopes are infinite. Of an even number of slopes the two middle ones are averaged. O(n^2) memory.
    """
    x, y = paired(a, b)
    check_level(level)
    n = x.size
    if n < 3:
        return RobustLine(reason=f"n = {n} pairs, and a Passing-Bablok line needs 3")
    if why := flat(x, y, "no Passing-Bablok line follows"):
        return RobustLine(reason=why)
    slopes = _slopes(x, y)
    count, shift = slopes.size, int(np.count_nonzero(slopes < -1))
    middle = [(count - 1) // 2 + shift, count // 2 + shift]
    if not count or middle[1] >= count or not 0 < float(np.mean(slopes[middle])) < math.inf:
        return RobustLine(reason="Passing-Bablok asks for labels that rise together, and these do not", slopes=count)
    slope = float(np.mean(slopes[middle]))
    intercept = float(np.median(y - slope * x))
    cusum, p = _linearity(x, y, slope, intercept)
    reach = student(level, math.inf) * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((count - reach) / 2)
    low, high = first + shift, count - first + 1 + shift  # ranks from 1
    bounded = first >= 1 and high <= count and slopes[low - 1] > -1 and math.isfinite(slopes[high - 1])
    if not bounded:
        why = "too few pairs, or too steep ones, to bound the Passing-Bablok line"
        return RobustLine(slope, intercept=intercept, reason=why, cusum=cusum, linearity_p=p, slopes=count)
    b_low, b_high = float(slopes[low - 1]), float(slopes[high - 1])
    a_low, a_high = float(np.median(y - b_high * x)), float(np.median(y - b_low * x))
    a_low, a_high = min(a_low, a_high), max(a_low, a_high)  # they change places where x is negative
    return RobustLine(slope, b_low, b_high, intercept, a_low, a_high, "", cusum, p, count)


def _slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the sorted slopes of all pairs of points that count; vertical ones are +inf.

    Minus infinity in the place of plus infinity changes nothing: it moves the median back as far as the shift moves it on.
    """
    i, j = np.triu_indices(x.size, 1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    # differences of decimal numbers that are equal on paper differ in the last bits
    fine = 8 * np.finfo(float).eps
    dx[np.abs(dx) <= fine * np.abs(x).max()] = 0
    dy[np.abs(dy) <= fine * np.abs(y).max()] = 0
    minus_one = np.abs(dx + dy) <= fine * (np.abs(x).max() + np.abs(y).max())
    used = ~minus_one & ((dx != 0) | (dy != 0))
    dx, dy = dx[used], dy[used]
    upright = dx == 0
    return np.sort(np.where(upright, np.inf, dy / np.where(upright, 1.0, dx)))


def _linearity(x: FloatArray, y: FloatArray, slope: float, intercept: float) -> tuple[float, float]:
    """Return the cusum statistic of Passing and Bablok and its probability."""
    from scipy.special import kolmogorov

    residual = y - intercept - slope * x
    residual[np.abs(residual) <= 1e-12 * (np.abs(y).max() + abs(intercept))] = 0  # the points that define the line
    above, below = residual > 0, residual < 0
    n_above, n_below = int(above.sum()), int(below.sum())
    if not (n_above and n_below):
        return math.nan, math.nan
    along = y + x / slope - intercept
    score = np.where(above, math.sqrt(n_below / n_above), np.where(below, -math.sqrt(n_above / n_below), 0.0))
    sums = np.cumsum(score[np.argsort(along, kind="stable")])
    cusum = float(np.abs(sums).max()) / math.sqrt(n_below + 1)
    return cusum, float(kolmogorov(cusum))
