"""Do the labels put the organs in one order? Kendall's W, with a probability that holds for three labels, too.

Ranks need no common scale, so labels in arbitrary units can be asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.pairs import FloatArray

_EXACT_WORK = 600_000
_DRAWS = 9_999


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's W of n items ranked by m judges: 1 for one order, 0 for none.

    Parameters
    ----------
    w : corrected for ties. p : probability of a W at least as large if every judge ranked at random.
    p_method : `exact`, or `permutation` (9,999 random rankings of fixed seed). chi2 : ``m (n - 1) W``, for large n.
    m, n : judges (labels) and items (organs). reason : why W is missing.
    """

    w: float = math.nan
    p: float = math.nan
    p_method: str = ""
    chi2: float = math.nan
    m: int = 0
    n: int = 0
    reason: str = ""


def kendall_w(values: npt.ArrayLike) -> RankAgreement:
    """Return how far judges agree on the order of items.

    Parameters
    ----------
    values : (m, n) what each of m labels reads of each of n organs; any unit, only the order within a label counts.

    Returns
    -------
    RankAgreement : no interval is given; with two to four labels neither jackknife nor bootstrap is sound.

    Raises
    ------
    ValueError : not a finite matrix.

    Examples
    --------
    >>> found = kendall_w([[1, 6, 3, 2, 5, 4], [1, 5, 6, 2, 4, 3], [2, 3, 6, 5, 4, 1]])
    >>> round(found.w, 3), round(found.p, 3), found.p_method
    (0.568, 0.112, 'exact')

    Notes
    -----
    Kendall & Babington Smith, Ann Math Stat 1939;10:275; ties as in Kendall, Rank Correlation Methods, chapter 6.
    """
    from scipy.stats import rankdata

    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 2 or not np.isfinite(y).all():
        raise ValueError(
            f"values: found shape {y.shape} with {int(np.count_nonzero(~np.isfinite(y)))} values not finite, expected a "
            "complete matrix of labels by organs; leave out organs that a label has not measured."
        )
    m, n = y.shape
    if m < 2 or n < 2:
        return RankAgreement(m=m, n=n, reason=f"{m} labels by {n} organs, and Kendall's W needs 2 of each")
    twice = np.rint(2 * rankdata(y, axis=1)).astype(np.int64)  # whole numbers, so that equal sums are equal
    largest = _largest(twice)
    if largest <= 0:
        return RankAgreement(m=m, n=n, reason="every label reads all organs alike, so there is no order")
    spread = _spread(twice.sum(axis=0))
    w = float(spread) / largest
    p, method = _probability(twice, float(spread))
    return RankAgreement(w, p, method, m * (n - 1) * w, m, n)


def _spread(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the sum of squares of rank sums about their mean, over the last axis."""
    centred = sums - sums.mean(axis=-1, keepdims=True)
    return np.asarray(np.sum(centred * centred, axis=-1))


def _largest(twice: npt.NDArray[np.int64]) -> float:
    """Return Kendall's corrected denominator for ranks times two: ``m sum over labels of their own spread``.

    That is ``m^2 (n^3 - n)/12 - m T/12`` because a tie lowers a label's own sum of squares by ``(t^3 - t)/12``.
    """
    return float(twice.shape[0] * np.sum(_spread(twice)))


def _probability(twice: npt.NDArray[np.int64], seen: float) -> tuple[float, str]:
    """Return the share of random rankings whose spread is at least as large, and how they were counted."""
    spreads, weights, method = _null(tuple(sorted(tuple(sorted(judge)) for judge in twice.tolist())))
    as_large = float(weights[spreads >= seen - 1e-9].sum())
    return (as_large, method) if method == "exact" else ((1 + as_large) / (1 + _DRAWS), method)


@lru_cache(maxsize=64)
def _null(judges: tuple[tuple[int, ...], ...]) -> tuple[FloatArray, FloatArray, str]:
    """Return spreads of rank sums if each judge puts its own ranks in random order, with their weights.

    Judges are added one at a time. Only the sorted rank sums matter, because the next judge's order is random.
    """
    m, n = len(judges), len(judges[0])
    orders = math.factorial(n)
    states, weights = np.array(judges[:1], dtype=np.int64), np.ones(1)
    for i, judge in enumerate(judges[1:], start=2):
        if n > 8 or len(states) * orders > _EXACT_WORK:
            break
        sums = (states[:, None, :] + np.array(list(permutations(judge)))[None]).reshape(-1, n)
        shares = np.repeat(weights, orders) / orders
        if i == m:
            return _spread(sums), shares, "exact"
        states, weights = _merge(np.sort(sums, axis=1), shares)
    table = np.broadcast_to(np.array(judges), (_DRAWS, m, n))
    draws = np.random.default_rng(20_000).permuted(table, axis=-1)
    return _spread(draws.sum(axis=1)), np.ones(_DRAWS), "permutation"


def _merge(sums: npt.NDArray[np.int64], shares: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Add up the weights of equal rows."""
    order = np.lexsort(sums.T)
    sums, shares = sums[order], shares[order]
    new = np.r_[True, (sums[1:] != sums[:-1]).any(axis=1)]
    return sums[new], np.add.reduceat(shares, np.flatnonzero(new))
