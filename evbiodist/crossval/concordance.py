"""How close labels come to one value: Lin's concordance of two, intraclass correlation of several.

Both ask for equal values, not for values that merely rise together, and both depend on how far the organs lie apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.pairs import FloatArray, check_level, flat, paired
from evbiodist.study.estimate import student


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of agreement with its interval; NaN with a reason where the data carry none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def lin_ccc(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Coefficient:
    """Return Lin's concordance correlation with its interval by Fisher's z.

    Parameters
    ----------
    a, b : (n,) paired values in one unit, n at least 3.

    Raises
    ------
    ValueError : different shapes, values that are not finite, or `level` out of range.

    Examples
    --------
    >>> round(lin_ccc([4.1, 6.0, 7.9, 10.2], [4.0, 6.1, 8.1, 10.0]).value, 4)
    0.9975

    Notes
    -----
    Lin, Biometrics 1989;45:255 with the correction of 2000;56:324: moments over n, interval with n - 2.
    """
    x, y = paired(a, b)
    check_level(level)
    if x.size < 3:
        return Coefficient(reason=f"n = {x.size} pairs, and concordance needs 3")
    if why := flat(x, y):
        return Coefficient(reason=why)
    sxx, syy, sxy = moments(x, y)
    shift = float(np.mean(x) - np.mean(y))
    total = sxx + syy + shift**2
    ccc = 2 * sxy / total
    apart = float(np.mean((x - y) ** 2)) / total  # 1 - ccc, without the cancellation near 1
    if apart == 0 or ccc <= -1:
        return Coefficient(round(ccc), reason="concordance is exactly 1 or -1, where it has no interval")
    z, margin = math.atanh(1 - apart), _z_margin(sxx, syy, sxy, shift, x.size, level)
    return Coefficient(ccc, math.tanh(z - margin), math.tanh(z + margin))


def _z_margin(sxx: float, syy: float, sxy: float, shift: float, n: int, level: float) -> float:
    """Return the half width of the interval of atanh(ccc): Lin 1989, as corrected in 2000.

    Written with the accuracy ``ccc / r`` so that uncorrelated pairs divide by nothing.
    """
    total, product = sxx + syy + shift**2, math.sqrt(sxx * syy)
    ccc, accuracy, u2 = 2 * sxy / total, 2 * product / total, shift**2 / product
    apart = (sxx + syy - 2 * sxy + shift**2) / total
    room = apart * (1 + ccc)
    unexplained = max(0.0, 1 - (sxy / product) ** 2)
    variance = (
        unexplained * accuracy**2 / room
        + 2 * ccc**2 * accuracy * apart * u2 / room**2
        - (ccc * accuracy * u2) ** 2 / (2 * room**2)
    ) / (n - 2)
    return student(level, math.inf) * math.sqrt(max(0.0, variance))


def moments(x: FloatArray, y: FloatArray) -> tuple[float, float, float]:
    """Return variances and covariance over n (not n - 1), as Lin 1989 has them.

    Examples
    --------
    >>> moments(np.array([0.0, 2.0]), np.array([0.0, 4.0]))
    (1.0, 4.0, 2.0)
    """
    dx, dy = x - np.mean(x), y - np.mean(y)
    return float(np.mean(dx * dx)), float(np.mean(dy * dy)), float(np.mean(dx * dy))


def icc(values: npt.ArrayLike, level: float = 0.95) -> dict[str, Coefficient]:
    """Return the six intraclass correlations of Shrout and Fleiss with their F intervals.

    Parameters
    ----------
    values : (n, k) the same quantity of n targets (organ and time) by k labels, in one unit.
    level : of the intervals.

    Returns
    -------
    dict : ``icc1`` each target by its own labels; ``icc2`` labels drawn from many, absolute agreement: ICC(A,1); ``icc3``
        these labels only, consistency; and each with ``k`` appended for the mean over the labels.

    Raises
    ------
    ValueError : not a finite matrix, or `level` out of range.

    Examples
    --------
    >>> found = icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    >>> {name: round(c.value, 2) for name, c in found.items()}
    {'icc1': 0.17, 'icc2': 0.29, 'icc3': 0.71, 'icc1k': 0.44, 'icc2k': 0.62, 'icc3k': 0.91}

    Notes
    -----
    Shrout & Fleiss, Psychol Bull 1979;86:420. The interval of icc2 is their approximation by Satterthwaite's df.
    """
    y = np.asarray(values, dtype=np.float64)
    check_level(level)
    if y.ndim != 2 or not np.isfinite(y).all():
        raise ValueError(
            f"values: found shape {y.shape} with {int(np.count_nonzero(~np.isfinite(y)))} values not finite, expected a "
            "complete matrix of targets by labels; leave out targets that a label has not measured."
        )
    names = ("icc1", "icc2", "icc3")
    n, k = y.shape
    if n < 2 or k < 2:
        why = f"{n} targets by {k} labels, and intraclass correlation needs 2 of each"
        return {name: Coefficient(reason=why) for name in (*names, *(f"{m}k" for m in names))}
    single = [_icc1(y, level), _icc2(y, level), _icc3(y, level)]
    found = dict(zip(names, single, strict=True))
    return found | {f"{name}k": _of_the_mean(c, k) for name, c in found.items()}


def _mean_squares(y: FloatArray) -> tuple[float, float, float, float]:
    """Return mean squares between targets, within targets, between labels and of the rest."""
    n, k = y.shape
    centred = y - y.mean()
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    rest = centred - rows[:, None] - columns
    within = float(np.sum((centred - rows[:, None]) ** 2))
    squares = (
        k * float(rows @ rows) / (n - 1), within / (n * (k - 1)),
        n * float(columns @ columns) / (k - 1), float(np.sum(rest**2)) / ((n - 1) * (k - 1)),
    )  # fmt: skip
    rounding = (8 * np.finfo(float).eps * float(np.abs(y).max())) ** 2
    between, inside, labels, left = (0.0 if s <= rounding else s for s in squares)
    return between, inside, labels, left


def _f(dfn: float, dfd: float, level: float) -> float:
    from scipy.special import fdtri

    return float(fdtri(dfn, dfd, 0.5 + level / 2))


def _icc1(y: FloatArray, level: float) -> Coefficient:
    n, k = y.shape
    between, within, _, _ = _mean_squares(y)
    return _from_f(between, within, n - 1, n * (k - 1), k, level)


def _icc3(y: FloatArray, level: float) -> Coefficient:
    n, k = y.shape
    between, _, _, rest = _mean_squares(y)
    return _from_f(between, rest, n - 1, (n - 1) * (k - 1), k, level)


_ALIKE = "labels agree exactly or targets are all alike, so intraclass correlation has no interval"


def _from_f(between: float, error: float, dfn: int, dfd: int, k: int, level: float) -> Coefficient:
    """Return the coefficient of one error term, whose ratio to `between` is an F."""
    total = between + (k - 1) * error
    if total == 0:
        return Coefficient(reason="all values are alike, so intraclass correlation is not defined")
    value = (between - error) / total
    if error == 0 or between == 0:
        return Coefficient(value, reason=_ALIKE)
    low, high = between / error / _f(dfn, dfd, level), between / error * _f(dfd, dfn, level)
    return Coefficient(value, (low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def _icc2(y: FloatArray, level: float) -> Coefficient:
    n, k = y.shape
    between, _, labels, rest = _mean_squares(y)
    total = between + (k - 1) * rest + k * (labels - rest) / n
    if total == 0:
        return Coefficient(reason="all values are alike, so intraclass correlation is not defined")
    rho = (between - rest) / total
    if between == 0 or (rest == 0 and labels == 0):
        return Coefficient(rho, reason=_ALIKE)
    # Satterthwaite's df of the labels' part and the rest, in mean squares so that rest may be zero
    part, other = k * rho * labels, (n * (1 + (k - 1) * rho) - k * rho) * rest
    df = (k - 1) * (n - 1) * (part + other) ** 2 / ((n - 1) * part**2 + other**2)
    upper, lower = _f(n - 1, df, level), _f(df, n - 1, level)
    spread = k * labels + (k * n - k - n) * rest
    low = n * (between - upper * rest) / (upper * spread + n * between)
    high = n * (lower * between - rest) / (spread + n * lower * between)
    if not low <= rho <= high:
        why = "targets differ less than labels do on one target, where the interval of absolute agreement does not hold"
        return Coefficient(rho, reason=why)
    return Coefficient(rho, low, high)


def _of_the_mean(c: Coefficient, k: int) -> Coefficient:
    """Step a coefficient of one label up to that of the mean of k (Spearman and Brown)."""

    def up(r: float) -> float:
        below = 1 + (k - 1) * r
        return k * r / below if below > 0 else math.nan

    value, low, high = up(c.value), up(c.low), up(c.high)
    if c.reason or not (math.isnan(low) or math.isnan(high)):
        return Coefficient(value, low, high, c.reason)
    return Coefficient(value, reason="the interval of the mean of the labels is open below")
