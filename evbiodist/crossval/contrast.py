"""Two groups of animals, compared: ratio and difference with intervals that do not assume equal spread, and effect sizes.

Welch BL (1947) Biometrika 34:28; Satterthwaite FE (1946) Biometrics Bull 2:110; Hedges LV (1981) J Educ Stat 6:107; Holm S
(1979) Scand J Stat 6:65; Benjamini Y, Hochberg Y (1995) J R Stat Soc B 57:289.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.study.estimate import student

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One group's mean with its standard error, degrees of freedom and number of animals."""

    value: float
    se: float
    df: float
    n: int


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where missing."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def side(values: ArrayLike) -> Side:
    """Return mean, standard error and degrees of freedom of single animals."""
    x = np.asarray(values, dtype=np.float64)
    se = float(x.std(ddof=1) / math.sqrt(x.size)) if x.size > 1 else math.nan
    return Side(float(x.mean()) if x.size else math.nan, se, float(x.size - 1), int(x.size))


def welch(a: Side, b: Side, level: float = 0.95) -> tuple[Interval, float]:
    """Return the difference a - b with its interval, and the two-sided p-value.

    Examples
    --------
    >>> found, p = welch(side([1, 2, 3, 4]), side([2, 3, 4, 5, 9]))
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2), round(p, 3)
    (-2.1, -5.46, 1.26, 0.176)
    """
    difference = a.value - b.value
    va, vb = a.se**2, b.se**2
    if not math.isfinite(va + vb):
        return Interval(difference), math.nan
    if va + vb == 0:
        return Interval(difference, difference, difference), math.nan
    df = (va + vb) ** 2 / (va**2 / a.df + vb**2 / b.df)
    se = math.sqrt(va + vb)
    from scipy.special import stdtr

    half = student(level, df) * se
    return Interval(difference, difference - half, difference + half), float(2 * stdtr(df, -abs(difference) / se))


def on_log(s: Side) -> Side:
    """Return a positive mean and its error on the logarithm (delta method)."""
    return Side(math.log(s.value), s.se / s.value, s.df, s.n) if s.value > 0 else Side(math.nan, math.nan, s.df, s.n)


def hedges_g(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Return the standardised difference, corrected for small samples, with its interval from the noncentral t.

    Examples
    --------
    >>> g = hedges_g([5, 6, 7, 8], [1, 2, 3, 4])
    >>> round(g.value, 3), round(g.low, 2), round(g.high, 2)
    (2.691, 0.74, 4.56)
    """
    from scipy.optimize import brentq
    from scipy.special import gammaln, nctdtr

    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    df = x.size + y.size - 2
    if min(x.size, y.size) < 2:
        return Interval()
    spread = math.sqrt(((x.size - 1) * x.var(ddof=1) + (y.size - 1) * y.var(ddof=1)) / df)
    if spread == 0:
        return Interval()
    correction = math.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan
    per = math.sqrt(1 / x.size + 1 / y.size)
    d = float(x.mean() - y.mean()) / spread
    t = d / per

    def below(shift: float) -> float:
        share = float(nctdtr(df, shift, t))
        return share if share == share else float(shift < t)  # far away, where it is 0 or 1, it cannot be computed

    def bound(tail: float) -> float:
        reach = abs(t) + 10 + 5 * math.sqrt(1 + t * t)
        return float(brentq(lambda shift: below(shift) - tail, -reach, reach)) * per * correction

    tail = (1 - level) / 2
    return Interval(d * correction, bound(1 - tail), bound(tail))


def adjusted(p: Sequence[float], how: str) -> Floats:
    """Return p-values adjusted over a family; NaN stays NaN and counts for nothing.

    Parameters
    ----------
    how : ``holm`` (chance of any false finding), ``bh`` (share of false findings) or ``none``.

    Examples
    --------
    >>> adjusted([0.01, 0.04, 0.03, float("nan")], "holm").round(3).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    raw = np.asarray(p, dtype=np.float64)
    out = raw.copy()
    known = np.flatnonzero(~np.isnan(raw))
    if how == "none" or not known.size:
        return out
    if how == "bh":
        from scipy.stats import false_discovery_control

        out[known] = false_discovery_control(raw[known], method="bh")
        return out
    order = known[np.argsort(raw[known], kind="stable")]
    steps = raw[order] * np.arange(order.size, 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out
