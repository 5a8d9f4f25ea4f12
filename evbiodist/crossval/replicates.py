"""How much animals of one label and place differ among themselves: the share of scatter that is not the label's.

Limits of agreement from means of several animals are too narrow for single animals unless this is added back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.pairs import check_level


@dataclass(frozen=True)
class Within:
    """Scatter of replicates (animals) about the mean of their pair, pooled over the pairs of one label.

    Parameters
    ----------
    variance : within-pair variance, in the unit of the data squared; 0 where there is no replicate.
    df : its degrees of freedom, the sum of ``m - 1``; 0 where there is no replicate.
    inverse_size : mean of ``1/m`` over pairs of m animals, the share of `variance` that a pair's mean keeps.
    """

    variance: float
    df: int
    inverse_size: float

    @property
    def missing(self) -> float:
        """Variance that single animals have and means do not (Bland & Altman 1999, section 5.2)."""
        return (1 - self.inverse_size) * self.variance


def within(replicates: Sequence[npt.ArrayLike]) -> Within:
    """Pool the variance of replicates over pairs, as one-way analysis of variance does.

    Parameters
    ----------
    replicates : a vector of values per pair (all animals of one label, organ and time); lengths may differ.

    Raises
    ------
    ValueError : a pair without values, or values that are not finite.

    Examples
    --------
    >>> within([[1.0, 3.0], [4.0, 4.0, 4.0]])
    Within(variance=0.666..., df=3, inverse_size=0.416...)
    """
    groups = [np.asarray(r, dtype=np.float64).ravel() for r in replicates]
    for i, g in enumerate(groups):
        if g.size == 0 or not np.isfinite(g).all():
            raise ValueError(
                f"replicates: pair {i} holds {g.size} values, {int(np.count_nonzero(~np.isfinite(g)))} of them not finite; "
                "expected at least one finite value in each; leave empty pairs out."
            )
    return within_of([float(np.var(g, ddof=1)) if g.size > 1 else 0.0 for g in groups], [g.size for g in groups])


def within_of(variances: npt.ArrayLike, sizes: npt.ArrayLike) -> Within:
    """Pool variances that are already known, for instance of published means with SD and n.

    Parameters
    ----------
    variances : (pairs,) variance of single animals in each pair; ignored (may be NaN) where the size is 1.
    sizes : (pairs,) number of animals in each pair.

    Raises
    ------
    ValueError : shapes that differ, sizes below 1, or a variance that is missing or negative where the size is above 1.

    Examples
    --------
    >>> within_of([2.0, float("nan")], [2, 1])
    Within(variance=2.0, df=1, inverse_size=0.75)
    """
    s2, m = np.asarray(variances, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if s2.shape != m.shape or s2.ndim != 1 or (m < 1).any():
        raise ValueError(
            f"variances and sizes: found shapes {s2.shape} and {m.shape} and a least size of {m.min(initial=math.inf):g}, "
            "expected two vectors of one length and sizes of 1 or more."
        )
    s2 = np.where(m > 1, s2, 0.0)
    if not (np.isfinite(s2) & (s2 >= 0)).all():
        raise ValueError(
            "variances: found one that is negative or missing in a pair of several animals, expected 0 or more; "
            "give 1 as its size if the scatter of its animals is unknown."
        )
    df = float(np.sum(m - 1))
    pooled = float(np.sum((m - 1) * s2) / df) if df else 0.0
    return Within(pooled, round(df), float(np.mean(1 / m)) if m.size else 1.0)


@dataclass(frozen=True)
class ErrorRatio:
    """Ratio of two labels' replicate variances with its F interval; NaN with a reason where there is none."""

    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def error_ratio(a: Within, b: Within, level: float = 0.95) -> ErrorRatio:
    """Return the error variance of label a over that of b, for a Deming line (Linnet's lambda).

    Parameters
    ----------
    a, b : scatter of replicates of the two labels, from `within`.
    level : of the interval.

    Returns
    -------
    ErrorRatio : of single animals; it is also that of the means where both labels have equally many animals a pair.

    Raises
    ------
    ValueError : `level` outside 0 to 1.

    Examples
    --------
    >>> found = error_ratio(within([[1, 3], [4, 6], [9, 11]]), within([[1, 2], [4, 5], [9, 10]]))
    >>> round(found.ratio, 6), round(found.low, 2), round(found.high, 1)
    (4.0, 0.26, 61.8)
    """
    from scipy.special import fdtri

    check_level(level)
    if not (a.df and b.df):
        return ErrorRatio(reason="without replicates of both labels the ratio of their errors is unknown")
    if not (a.variance > 0 and b.variance > 0):
        return ErrorRatio(reason="replicates of one label are all alike, so the ratio of errors is 0 or without bound")
    ratio, tail = a.variance / b.variance, 0.5 + level / 2
    low, high = ratio / float(fdtri(a.df, b.df, tail)), ratio * float(fdtri(b.df, a.df, tail))
    return ErrorRatio(ratio, low, high)
