"""The area under a curve that no single animal gave: one sample an animal, several animals a time.

Serial sacrifice is the usual EV design, so its area carries the animals' spread as Bailer (1988) does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SparseAuc:
    """A pooled area with what its interval was made of.

    Parameters
    ----------
    estimate : `auclast_sparse`.
    df : Satterthwaite degrees of freedom; NaN without a standard error.
    weights : (T,) hours each mean counts for; 0 after the last positive mean.
    """

    estimate: Estimate
    df: float
    weights: tuple[float, ...]


def bailer(
    time_h: ArrayLike,
    groups: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseAuc:
    """Return the area under the mean curve of a serial sacrifice, with its standard error.

    Parameters
    ----------
    time_h : (T,) hours, rising.
    groups : T arrays of values, one value an animal; sizes may differ.
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
    sizes = np.array([s.size for s in samples])
    means = np.array([s.mean() for s in samples])
    sds = np.array([s.std(ddof=1) if s.size > 1 else math.nan for s in samples])
    return bailer_summary(time_h, means, sds, sizes, level=level, interval=interval, unit=unit, from_zero=from_zero)


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
    t, m, s = (np.asarray(a, dtype=np.float64) for a in (time_h, mean, sd))
    count = np.broadcast_to(np.asarray(math.nan if n is None else n, dtype=np.float64), t.shape)
    _check(t, m, s, level, interval)
    w = _weights(t, m, from_zero)
    part = np.where(w > 0, w**2 * s**2 / count, 0.0)
    reason = _why_no_error(t, s, count, w)
    var = math.nan if reason else float(part.sum())
    df = _satterthwaite(part, count) if not reason else math.nan
    value, se = float((w * m).sum()), math.sqrt(var)
    half = student(level, df if interval == "t" else math.inf) * se
    animals = int(np.nansum(np.where(w > 0, count, 0.0)))
    estimate = Estimate(
        "auclast_sparse",
        value,
        se,
        value - half,
        value + half,
        unit=derive("value*time", unit).unit,
        method=f"Bailer, {interval} interval",
        n=animals,
        flags=_flags(value, se, count, animals),
        reason=reason,
    )
    return SparseAuc(estimate, df, tuple(w.tolist()))


def _check(t: Floats, m: Floats, s: Floats, level: float, interval: str) -> None:
    if t.ndim != 1 or t.size < 2 or m.shape != t.shape or s.shape != t.shape:
        raise ValueError(
            f"time_h, means and spreads have shapes {t.shape}, {m.shape}, {s.shape}, expected one mean "
            "and one spread for each of at least two times; give one group for each time"
        )
    if not np.isfinite(t).all() or t[0] < 0 or (np.diff(t) <= 0).any():
        raise ValueError(
            f"time_h has {t.tolist()}, expected rising hours from 0 on; sort the times and pool "
            "animals of the same time into one group"
        )
    if not np.isfinite(m).all():
        raise ValueError(f"mean has {m.tolist()}, expected finite numbers; drop the time points without a mean")
    if (s < 0).any():
        raise ValueError(f"sd has {s.tolist()}, expected 0 or more; give standard deviations")
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    if interval not in ("t", "z"):
        raise ValueError(f"interval has '{interval}', expected 't' or 'z'; 't' suits few animals")


def _weights(t: Floats, m: Floats, from_zero: bool) -> Floats:
    """Hours each mean counts for under the linear rule, to the last positive mean."""
    w = np.zeros_like(t)
    positive = np.flatnonzero(m > 0)
    if not positive.size:
        raise ValueError(
            f"mean has {m.tolist()}, expected at least one positive mean; nothing was detected, so there is no area"
        )
    gaps = np.diff(t[: positive[-1] + 1])
    w[: gaps.size] += gaps / 2
    w[1 : gaps.size + 1] += gaps / 2
    if from_zero:
        w[0] += t[0] / 2
    return w


def _why_no_error(t: Floats, s: Floats, count: Floats, w: Floats) -> str:
    """Say in words which times keep the area from having a standard error."""
    for bad, words in (
        (np.isnan(count), "the number of animals is unknown"),
        (count < 2, "there is one animal"),
        (np.isnan(s), "the spread is unknown"),
    ):
        if (bad & (w > 0)).any():
            times = ", ".join(f"{x:g}" for x in t[bad & (w > 0)])
            return f"{words} at {times} h, so no standard error"
    return ""


def _satterthwaite(part: Floats, count: Floats) -> float:
    below = float(np.where(part > 0, part**2 / (count - 1), 0.0).sum())
    return float(part.sum()) ** 2 / below if below > 0 else math.inf


def _flags(value: float, se: float, count: Floats, animals: int) -> tuple[str, ...]:
    flags = {
        "n_unknown": bool(np.isnan(count).any()),
        "negative": value < 0,
        "imprecise": se >= 0.5 * abs(value),
        "few": 0 < animals < 3,
    }
    return tuple(sorted(word for word, is_so in flags.items() if is_so))
