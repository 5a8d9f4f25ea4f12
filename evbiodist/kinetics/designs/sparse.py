"""The area under a curve that no single animal gave: one sample an animal, several animals a time.

Serial sacrifice is the usual EV design, so its area carries the animals' spread as Bailer (1988) does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.designs.mean_curve import (
    Bools,
    Floats,
    area_flags,
    check_interval,
    check_times,
    settle_majority,
    trapezoid_weights,
)
from evbiodist.study.estimate import Estimate
from evbiodist.study.units import derive


@dataclass(frozen=True)
class SparseAuc:
    """A pooled area with what its interval was made of.

    Parameters
    ----------
    estimate : `auclast_sparse`, or `aucinf_obs_sparse` of `evbiodist.kinetics.designs.batch_design`.
    df : Satterthwaite degrees of freedom; NaN without a standard error.
    weights : (T,) hours each mean counts for; 0 after the last positive mean.
    """

    estimate: Estimate
    df: float
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SparseTable:
    """The areas of many mean curves as arrays; ``table[i]`` is the `SparseAuc` of curve i.

    Parameters
    ----------
    value, se, df : (P,) in `unit`; NaN where missing. A curve without a positive mean has no area.
    weights : (P, T) hours each mean counts for.
    unit, interval, level : unit of the areas; kind and level of the interval of ``table[i]``.
    """

    value: Floats
    se: Floats
    df: Floats
    weights: Floats
    unit: str
    interval: str
    level: float
    _time_h: Floats
    _sd: Floats
    _n: Floats
    _share_below: Floats

    def __len__(self) -> int:
        return int(self.value.size)

    def bounds(self, interval: str | None = None, level: float | None = None) -> tuple[Floats, Floats]:
        """Return the (P,) lower and upper bounds, of another kind (`t`, `z`) or level when asked.

        Examples
        --------
        >>> table = bailer_batch([0, 2], [[10, 10]], [[3, 3]], 3)
        >>> [round(float(b[0]), 2) for b in (*table.bounds(), *table.bounds("z"))]
        [13.2, 26.8, 15.2, 24.8]
        """
        kind, share = interval or self.interval, self.level if level is None else level
        check_interval(kind, share)
        from scipy.special import stdtrit

        half = stdtrit(self.df if kind == "t" else np.inf, 0.5 + share / 2) * self.se
        return self.value - half, self.value + half

    def __getitem__(self, curve: int) -> SparseAuc:
        i = range(len(self))[curve]
        used = self.weights[i] > 0
        value, se, df = float(self.value[i]), float(self.se[i]), float(self.df[i])
        low, high = (float(b[i]) for b in self.bounds())
        n = self._n[i]
        animals = int(np.nansum(np.where(used, n, 0.0)))
        unknown = bool((np.isnan(n) & ~np.isnan(self._time_h[i])).any())
        below = ("below_lloq",) if (self._share_below[i][used] > 0).any() else ()
        estimate = Estimate(
            "auclast_sparse",
            value,
            se,
            low,
            high,
            unit=self.unit,
            method=f"Bailer, {self.interval} interval",
            n=animals,
            flags=tuple(sorted({*area_flags(value, se, animals, unknown), *below})),
            reason=_why_missing(self._time_h[i], self._sd[i], n, used, not math.isnan(value)),
        )
        return SparseAuc(estimate, df, tuple(self.weights[i].tolist()))


def bailer(
    time_h: ArrayLike,
    groups: Sequence[ArrayLike],
    *,
    below: Sequence[ArrayLike] | None = None,
    majority_blq: str = "end",
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseAuc:
    """Return the area under the mean curve of a serial sacrifice, with its standard error.

    Parameters
    ----------
    time_h : (T,) hours, rising.
    groups : T arrays of values, one value an animal; sizes may differ. A value below the limit of quantification
        is given as what shall stand for it, such as 0 or half the limit.
    below : T arrays, True for values below the limit; without it none is.
    majority_blq : rule for times where more than half are below: a key of
        `evbiodist.kinetics.designs.mean_curve.MAJORITY_BLQ`.
    level : level of the interval.
    interval : ``t`` (Satterthwaite degrees of freedom) or ``z``.
    unit : unit of the values.
    from_zero : add the triangle from a value 0 at 0 h when the first sample is later.

    Returns
    -------
    SparseAuc : the area to the last positive mean by the linear rule.

    Raises
    ------
    ValueError : times and groups that do not fit together, empty groups, values that are not numbers.

    Examples
    --------
    >>> auc = bailer([1, 2, 4], [[10, 14], [20, 22], [6, 8]])
    >>> auc.estimate.value, round(auc.estimate.se, 4), round(auc.df, 2)
    (44.5, 2.0616, 2.56)

    Notes
    -----
    AUC = sum w_j mean_j and Var(AUC) = sum w_j^2 s_j^2 / n_j: Bailer AJ (1988) J Pharmacokinet Biopharm
    16:303-309. Degrees of freedom Var^2 / sum (w_j^2 s_j^2 / n_j)^2 / (n_j - 1): Nedelman JR, Gibiansky E,
    Lau DTW (1995) Pharm Res 12:124-128; Nedelman JR, Jia X (1998) J Biopharm Stat 8:317-328.
    """
    samples = [np.atleast_1d(np.asarray(g, dtype=np.float64)) for g in groups]
    for place, sample in enumerate(samples):
        if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
            raise ValueError(
                f"groups[{place}] has {sample.tolist()}, expected at least one finite value; "
                "drop missing animals, or the whole time point"
            )
    return _only(
        time_h,
        np.array([s.mean() for s in samples]),
        np.array([s.std(ddof=1) if s.size > 1 else math.nan for s in samples]),
        np.array([s.size for s in samples]),
        _shares_below(below, samples),
        majority_blq,
        level,
        interval,
        unit,
        from_zero,
    )


def _shares_below(below: Sequence[ArrayLike] | None, samples: Sequence[Floats]) -> Floats:
    """Share of the animals of each time that is below the limit, (T,)."""
    if below is None:
        return np.zeros(len(samples))
    masks = [np.atleast_1d(np.asarray(b, dtype=np.bool_)) for b in below]
    found, expected = [m.size for m in masks], [s.size for s in samples]
    if found != expected:
        raise ValueError(f"below has groups of {found}, expected {expected} as groups; give one for each animal")
    return np.array([m.mean() for m in masks])


def bailer_summary(
    time_h: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    n: ArrayLike | None,
    *,
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseAuc:
    """Return Bailer's area from published means, standard deviations and numbers of animals.

    Parameters
    ----------
    time_h, mean, sd : (T,) hours, means and standard deviations (NaN where unknown).
    n : (T,) or scalar number of animals (NaN where unknown), or None when the source does not say.
    level, interval, unit, from_zero : as in `bailer`.

    Raises
    ------
    ValueError : arrays of unequal length, times that do not rise, negative spreads.

    Examples
    --------
    >>> auc = bailer_summary([1, 2, 4], [12, 21, 7], [1, 1, 1], n=None)
    >>> auc.estimate.value, auc.estimate.reason
    (44.5, 'the number of animals is unknown at 1, 2, 4 h, so no standard error')
    """
    return _only(time_h, mean, sd, n, 0.0, "end", level, interval, unit, from_zero)


def _only(
    time_h: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    n: ArrayLike | None,
    share_below: ArrayLike,
    majority_blq: str,
    level: float,
    interval: str,
    unit: str,
    from_zero: bool,
) -> SparseAuc:
    """Return the area of one curve; refuse a curve in which nothing was detected."""
    t, m, s = (np.asarray(a, dtype=np.float64) for a in (time_h, mean, sd))
    if t.ndim != 1 or t.size < 2 or m.shape != t.shape or s.shape != t.shape:
        raise ValueError(
            f"time_h, means and spreads have shapes {t.shape}, {m.shape}, {s.shape}, expected one mean "
            "and one spread for each of at least two times; give one group for each time"
        )
    check_times(t)
    table = bailer_batch(
        t,
        m[None],
        s[None],
        n,
        share_below=share_below,
        majority_blq=majority_blq,
        level=level,
        interval=interval,
        unit=unit,
        from_zero=from_zero,
    )
    if math.isnan(table.value[0]):
        raise ValueError(
            f"mean has {m.tolist()}, expected at least one positive mean; nothing was detected, so there is no area"
        )
    return table[0]


def bailer_batch(
    time_h: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    n: ArrayLike | None,
    *,
    share_below: ArrayLike = 0.0,
    majority_blq: str = "end",
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseTable:
    """Return Bailer's areas of many mean curves at once.

    Parameters
    ----------
    time_h : (T,) or (P, T) hours, rising; NaN where a curve has no such time.
    mean, sd : (P, T) means and standard deviations between animals (NaN where unknown).
    n : numbers of animals, broadcast to (P, T); NaN or None where unknown.
    share_below : share of the animals below the limit of quantification, broadcast to (P, T).
    majority_blq, level, interval, unit, from_zero : as in `bailer`.

    Returns
    -------
    SparseTable

    Raises
    ------
    ValueError : shapes that do not fit, times that do not rise, means that are not numbers, negative spreads.

    Examples
    --------
    >>> table = bailer_batch([1, 2, 4], [[12, 21, 7], [6, 3, 0]], [[2, 1, 1], [1, 1, 0]], 2)
    >>> table.value.tolist(), table.weights[1].tolist()
    ([44.5, 4.5], [0.5, 0.5, 0.0])
    """
    check_interval(interval, level)
    m = np.atleast_2d(np.asarray(mean, dtype=np.float64))
    t, s = _like("time_h", time_h, m.shape), _like("sd", sd, m.shape)
    count, share = _like("n", math.nan if n is None else n, m.shape), _like("share_below", share_below, m.shape)
    there = ~np.isnan(t)
    _check_samples(t, m, s, there)
    m, kept = settle_majority(np.where(there, m, np.nan), share, majority_blq)
    w = trapezoid_weights(t, m, kept, from_zero)
    used = w > 0
    known: Bools = np.all(~used | ((count >= 2) & ~np.isnan(s)), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(used & known[:, None], w**2 * s**2 / count, 0.0)
        below = np.where(part > 0, part**2 / (count - 1), 0.0).sum(axis=1)
        var = part.sum(axis=1)
        df = np.where(below > 0, var**2 / below, np.inf)
    seen = (kept & (m > 0)).any(axis=1)
    known = known & seen
    return SparseTable(
        np.where(seen, np.where(used, w * m, 0.0).sum(axis=1), np.nan),
        np.where(known, np.sqrt(var), np.nan),
        np.where(known, df, np.nan),
        w,
        derive("value*time", unit).unit,
        interval,
        level,
        t,
        s,
        count,
        share,
    )


def _like(field: str, array: ArrayLike, shape: tuple[int, ...]) -> Floats:
    a = np.asarray(array, dtype=np.float64)
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{field} has shape {a.shape}, expected {shape} as mean; give one for each time") from None


def _check_samples(t: Floats, m: Floats, s: Floats, there: Bools) -> None:
    latest = np.fmax.accumulate(np.where(there, t, -np.inf), axis=1)
    wrong: Bools = there & ~(np.isfinite(t) & (t >= 0))
    wrong[:, 1:] |= there[:, 1:] & (t[:, 1:] <= latest[:, :-1])
    for row in np.flatnonzero(wrong.any(axis=1)):
        check_times(t[row][there[row]])
    if not np.isfinite(m[there]).all():
        found = m[(there & ~np.isfinite(m)).any(axis=1)][0].tolist()
        raise ValueError(f"mean has {found}, expected finite numbers; drop the time points without a mean")
    if (s[there] < 0).any():
        found = s[(there & (s < 0)).any(axis=1)][0].tolist()
        raise ValueError(f"sd has {found}, expected 0 or more; give standard deviations")


def _why_missing(t: Floats, s: Floats, n: Floats, used: Bools, detected: bool) -> str:
    """Say in words why a curve has no area, or which times keep the area from having a standard error."""
    if not detected:
        return "no positive mean, so there is no area"
    for bad, words in (
        (np.isnan(n), "the number of animals is unknown"),
        (n < 2, "there is one animal"),
        (np.isnan(s), "the spread is unknown"),
    ):
        if (bad & used).any():
            times = ", ".join(f"{x:g}" for x in t[bad & used])
            return f"{words} at {times} h, so no standard error"
    return ""
