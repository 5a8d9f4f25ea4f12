"""Bland and Altman's limits: between which bounds do two labels differ, and how well are the bounds known?

The limits are those of 1986 (bias -+ 1.96 SD); their intervals are exact for few pairs, and replicates widen them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.pairs import FloatArray, check_level, paired
from evbiodist.crossval.replicates import Within
from evbiodist.study.estimate import student

LIMIT_Z = 1.96
"""Half width of the limits of agreement in SD: the middle 95 % of differences, whatever the level."""

SINGLE = "limits of 1986; exact interval of each (noncentral t)"
REPLICATES = "limits for single animals, replicates of 1999 section 5.2; interval by noncentral t with Satterthwaite df"
PAIRED = (
    "limits for single animals, paired replicates of 1999 section 5.3; interval by noncentral t with Satterthwaite df"
)


@dataclass(frozen=True)
class Limits:
    """Bias and limits of agreement of `a - b`; NaN where the data cannot carry a number.

    Parameters
    ----------
    n : pairs. bias, bias_low, bias_high : mean difference and its t interval, in the unit of the data.
    loa_low, loa_high : limits of agreement, ``bias -+ 1.96 sd``; they hold about 95 % of differences.
    loa_low_low, loa_low_high, loa_high_low, loa_high_high : interval of the lower and of the upper limit, each by itself,
        exact for normal differences (Carkeet 2015; noncentral t). With replicates by Satterthwaite's approximation, which
        held 92 to 96 of 100 true limits in simulations of 5 to 24 places.
    loa_margin : half width of the interval of each limit by the approximation of 1986 (of 1999 with replicates).
    sd : standard deviation of the differences that the limits are for. df : its degrees of freedom.
    sd_unbiased : `sd` divided by c4, unbiased for normal differences; the limits do not use it.
    method : which limits these are. reason : why numbers are missing, in words.
    """

    n: int
    bias: float = math.nan
    bias_low: float = math.nan
    bias_high: float = math.nan
    loa_low: float = math.nan
    loa_high: float = math.nan
    loa_low_low: float = math.nan
    loa_low_high: float = math.nan
    loa_high_low: float = math.nan
    loa_high_high: float = math.nan
    loa_margin: float = math.nan
    sd: float = math.nan
    sd_unbiased: float = math.nan
    df: float = math.nan
    method: str = ""
    reason: str = ""


def limits(
    a: npt.ArrayLike, b: npt.ArrayLike, *, within: tuple[Within, Within] | None = None, level: float = 0.95
) -> Limits:
    """Return bias and limits of agreement of two labels.

    Parameters
    ----------
    a, b : (n,) paired values, or means over the animals of each pair.
    within : scatter of the animals behind the means of `a` and of `b`, from `replicates.within`. The limits are then
        for single animals, not for means.
    level : of the intervals; the limits always hold the middle 95 %.

    Returns
    -------
    Limits : fewer than two pairs, or differences that are all alike, have a reason for what is missing.

    Raises
    ------
    ValueError : different shapes, values that are not finite, or `level` out of range.

    Examples
    --------
    >>> found = limits([4.1, 6.0, 7.9, 10.2], [4.0, 6.1, 8.1, 10.0])
    >>> round(found.loa_high, 3), round(found.loa_high_low, 3), round(found.loa_high_high, 3)
    (0.358, 0.152, 1.408)

    Notes
    -----
    Bland & Altman, Lancet 1986;1:307. Replicates: Stat Methods Med Res 1999;8:135, section 5.2 (animals of the two labels
    differ; a pair's true value is one). Intervals: Carkeet, Optom Vis Sci 2015;92:e71.
    """
    x, y = paired(a, b)
    check_level(level)
    difference = x - y
    n = difference.size
    if n < 2:
        bias = float(np.mean(difference)) if n else math.nan
        return Limits(n, bias, reason=f"n = {n} pairs, and limits of agreement need 2")
    own = float(np.var(difference, ddof=1))
    parts = [(own, float(n - 1))] + [(w.missing, float(w.df)) for w in within or () if w.df]
    return _limits(n, float(np.mean(difference)), own / n, parts, REPLICATES if len(parts) > 1 else SINGLE, level)


def limits_of_replicated_pairs(differences: Sequence[npt.ArrayLike], level: float = 0.95) -> Limits:
    """Return bias and limits where the same animals carry both labels, several animals at each organ and time.

    Parameters
    ----------
    differences : per organ and time the vector of differences ``a - b`` of its animals; lengths may differ.
    level : of the intervals.

    Returns
    -------
    Limits : for a single animal; `n` counts organs and times, and `bias` is the mean over all animals.

    Raises
    ------
    ValueError : an empty or not finite vector, or `level` out of range.

    Examples
    --------
    >>> found = limits_of_replicated_pairs([[1.0, 1.4], [0.2, 0.4], [0.9, 0.5]])
    >>> round(found.bias, 3), round(found.sd, 3)
    (0.733, 0.483)

    Notes
    -----
    Bland & Altman 1999, section 5.3, as corrected in J Biopharm Stat 2007;17:571: variance components of the differences
    by one-way analysis of variance.
    """
    check_level(level)
    groups = [np.asarray(d, dtype=np.float64).ravel() for d in differences]
    if any(g.size == 0 or not np.isfinite(g).all() for g in groups):
        raise ValueError(
            "differences: found an empty vector or values that are not finite, expected the differences of at least one "
            "animal in each; leave the others out."
        )
    n, sizes = len(groups), np.array([g.size for g in groups], dtype=np.float64)
    if n < 2:
        return Limits(n, float(np.mean(groups[0])) if n else math.nan, reason=f"n = {n} pairs, and limits need 2")
    total, every = float(sizes.sum()), np.concatenate(groups)
    means = np.array([g.mean() for g in groups])
    bias = float(every.mean())
    ms_between = float(np.sum(sizes * (means - bias) ** 2)) / (n - 1)
    df = round(total) - n
    ms_within = sum(float(np.sum((g - g.mean()) ** 2)) for g in groups) / df if df else 0.0
    size = (total**2 - float(np.sum(sizes**2))) / ((n - 1) * total)
    between = max(0.0, (ms_between - ms_within) / size)
    variance_of_bias = between * float(np.sum(sizes**2)) / total**2 + ms_within / total
    parts = [(ms_between / size, float(n - 1)), ((1 - 1 / size) * ms_within, float(df))]
    if between == 0:  # animals scatter at least as much as organs and times do: the component is none, not negative
        parts = [(float(np.var(every, ddof=1)), total - 1)]
        variance_of_bias = parts[0][0] / total
    return _limits(n, bias, variance_of_bias, parts, PAIRED if df else SINGLE, level)


def _limits(
    n: int, bias: float, variance_of_bias: float, parts: list[tuple[float, float]], method: str, level: float
) -> Limits:
    """Return limits whose variance is the sum of `parts` (variance, df), and their intervals."""
    variance = sum(v for v, _ in parts)
    sd = math.sqrt(variance)
    low, high = bias - LIMIT_Z * sd, bias + LIMIT_Z * sd
    if not variance_of_bias > 0:
        why = "all differences are alike, so the bias has no interval"
        return Limits(n, bias, loa_low=low, loa_high=high, sd=sd, method=method, reason=why)
    df = parts[0][1] if len(parts) == 1 else variance**2 / sum(v**2 / f for v, f in parts if f)
    margin = student(level, n - 1) * math.sqrt(variance_of_bias)
    inner, outer = limit_interval(df, variance_of_bias / variance, level)
    if len(parts) == 1:
        approximate = margin * math.sqrt(3)
    else:
        approximate = student(level, df) * math.sqrt(variance_of_bias + LIMIT_Z**2 * variance / (2 * df))
    return Limits(
        n, bias, bias - margin, bias + margin, low, high, bias - outer * sd, bias - inner * sd, bias + inner * sd,
        bias + outer * sd, approximate, sd, sd / c4(df), df, method,
    )  # fmt: skip


def limit_interval(df: float, share: float, level: float = 0.95) -> tuple[float, float]:
    """Return how many SD from the bias the interval of one limit of agreement begins and ends.

    Parameters
    ----------
    df : degrees of freedom of the SD. share : variance of the bias over that of differences, ``1/n`` for single pairs.

    Returns
    -------
    (inner, outer) : the interval of the upper limit is ``bias + inner sd`` to ``bias + outer sd``.

    Examples
    --------
    >>> [round(k, 4) for k in limit_interval(16, 1 / 17)]
    [1.3151, 3.1483]

    Notes
    -----
    The one-sided tolerance factor: (limit - bias)/SE has a noncentral t distribution (Carkeet 2015).
    """
    from scipy.special import nctdtrit

    root = math.sqrt(share)
    inner, outer = (root * float(nctdtrit(df, LIMIT_Z / root, p)) for p in (0.5 - level / 2, 0.5 + level / 2))
    return inner, outer


@lru_cache(maxsize=256)
def pair_factor(n: int, confidence: float) -> float:
    """Return the exact factor k for both limits as a pair: ``bias -+ k sd`` holds 95 % of differences with `confidence`.

    Parameters
    ----------
    n : pairs, at least 2. confidence : 0.025 and 0.975 bound the pair's 95 % interval; 0.5 is its median.

    Raises
    ------
    ValueError : fewer than two pairs, or a confidence outside 0 to 1.

    Examples
    --------
    >>> [round(pair_factor(17, p), 4) for p in (0.025, 0.5, 0.975)]
    [1.49, 2.0554, 3.0824]

    Notes
    -----
    Two-sided tolerance factor of the normal distribution (Carkeet 2015, table of limits as a pair), by Gauss-Legendre
    integration over the mean.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtrc

    check_level(confidence)
    if n < 2:
        raise ValueError(f"n: found {n} pairs, expected 2 or more; one difference has no SD.")
    nodes, weights = np.polynomial.legendre.leggauss(96)
    shift = (nodes + 1) * 4.5 / math.sqrt(n)  # mean of n in SD of one, to 9 standard errors
    density = weights * 4.5 * 2 * np.exp(-n * shift**2 / 2) / math.sqrt(2 * math.pi)
    reach = _reach(shift)

    def missing(log_k: float) -> float:
        held = chdtrc(n - 1, (n - 1) * (reach * math.exp(-log_k)) ** 2)
        return float(np.sum(density * held)) - confidence

    return math.exp(brentq(missing, -5, 12, xtol=1e-12))


def _reach(shift: FloatArray) -> FloatArray:
    """Return the half width about each shifted mean that holds 95 % of a standard normal distribution."""
    from scipy.special import ndtr

    low, high = np.zeros_like(shift), shift + 6.0
    for _ in range(60):
        middle = (low + high) / 2
        short = ndtr(shift + middle) - ndtr(shift - middle) < 0.95
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return (low + high) / 2


def c4(df: float) -> float:
    """Return the expected SD of normal values over the true one, at `df` degrees of freedom.

    Examples
    --------
    >>> round(c4(1), 4), round(c4(9), 4)
    (0.7979, 0.9727)
    """
    return math.sqrt(2 / df) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))


@dataclass(frozen=True)
class Slope:
    """Slope of the difference on the mean, with its t interval; NaN with a reason where there is none."""

    slope: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def slope_of_difference(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Slope:
    """Return by how much ``a - b`` grows with the mean of both: proportional bias, where it is not zero.

    Parameters
    ----------
    a, b : (n,) paired values in one unit.

    Returns
    -------
    Slope : no unit. A label that scatters more than the other tilts it, too, so it describes and proves nothing.

    Raises
    ------
    ValueError : different shapes, values that are not finite, or `level` out of range.

    Examples
    --------
    >>> found = slope_of_difference([1.1, 2.2, 3.2, 4.5], [1.0, 2.0, 3.0, 4.0])
    >>> round(found.slope, 3), round(found.low, 3), round(found.high, 3)
    (0.115, -0.048, 0.277)

    Notes
    -----
    Bland & Altman 1999, section 3.2; least squares with n - 2 degrees of freedom.
    """
    x, y = paired(a, b)
    check_level(level)
    n = x.size
    middle, difference = (x + y) / 2, x - y
    if n < 3:
        return Slope(reason=f"n = {n} pairs, and the slope of differences needs 3")
    if np.ptp(middle) == 0:
        return Slope(reason="the means of all pairs are alike, so differences have no slope on them")
    centred = middle - middle.mean()
    sxx = float(centred @ centred)
    slope = float(centred @ difference) / sxx
    residual = difference - difference.mean() - slope * centred
    margin = student(level, n - 2) * math.sqrt(float(residual @ residual) / (n - 2) / sxx)
    return Slope(slope, slope - margin, slope + margin)


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of ``a / b`` over pairs with its interval and limits; NaN with a reason where there is none.

    `loa_low` and `loa_high` hold about 95 % of ratios; `left_out` pairs had a value of zero or below.
    """

    n: int = 0
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    loa_low: float = math.nan
    loa_high: float = math.nan
    left_out: int = 0
    reason: str = ""


def ratio_limits(
    a: npt.ArrayLike, b: npt.ArrayLike, *, within: tuple[Within, Within] | None = None, level: float = 0.95
) -> Ratio:
    """Return how many times `a` reads what `b` reads, and the limits of that ratio.

    Parameters
    ----------
    a, b : (n,) paired values in one unit; pairs with a value of zero or below are left out and counted.
    within : scatter of the logarithms of the animals behind the means, from `replicates.within`.

    Raises
    ------
    ValueError : different shapes, values that are not finite, or `level` out of range.

    Examples
    --------
    >>> found = ratio_limits([2.0, 4.4, 6.0, 9.0], [1.0, 2.0, 3.2, 4.4])
    >>> round(found.ratio, 3), round(found.loa_low, 3), round(found.loa_high, 3)
    (2.027, 1.781, 2.306)

    Notes
    -----
    Bland & Altman 1999, section 3.1: limits of differences of logarithms, transformed back.
    """
    x, y = paired(a, b)
    positive = (x > 0) & (y > 0)
    found = limits(np.log(x[positive]), np.log(y[positive]), within=within, level=level)
    return ratio_of(found, int(x.size - positive.sum()))


def ratio_of(logs: Limits, left_out: int = 0) -> Ratio:
    """Transform limits of differences of logarithms back to ratios.

    Examples
    --------
    >>> round(ratio_of(limits([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])).ratio, 3)
    1.221
    """
    if logs.n < 3:
        return Ratio(logs.n, left_out=left_out, reason=f"{logs.n} pairs above zero, and a ratio needs 3")
    return Ratio(
        logs.n, math.exp(logs.bias), math.exp(logs.bias_low), math.exp(logs.bias_high), math.exp(logs.loa_low),
        math.exp(logs.loa_high), left_out, logs.reason,
    )  # fmt: skip
