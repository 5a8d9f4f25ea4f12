"""What every design with few samples an animal shares: the times, the trapezoids and the rule for times below the limit.

Serial sacrifice, batch designs and ratios integrate the same mean curve, so they weigh its times by the same code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.study.problems import nearest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

INTERVALS = ("t", "z")
#: What becomes of a time at which more than half of the animals are below the limit of quantification.
MAJORITY_BLQ = {
    "end": "the curve ends before it, unless a time of detected animals follows; then it keeps the animals' mean",
    "zero": "its mean is taken as 0",
    "drop": "it is left out and the trapezoid goes straight past it; before the first detection its mean is 0",
    "mean": "it keeps the animals' mean, wherever it is",
}


def check_times(time_h: Floats) -> None:
    """Refuse times that are not at least two rising hours from 0 on.

    Raises
    ------
    ValueError : with the times and what to do.

    Examples
    --------
    >>> check_times(np.array([0.0, 2.0, 1.0]))
    Traceback (most recent call last):
    ...
    ValueError: time_h has [0.0, 2.0, 1.0], expected rising hours from 0 on; sort the times and pool animals ...
    """
    if time_h.size < 2 or not np.isfinite(time_h).all() or (time_h < 0).any() or (np.diff(time_h) <= 0).any():
        raise ValueError(
            f"time_h has {time_h.tolist()}, expected rising hours from 0 on; sort the times and pool "
            "animals of the same time into one group"
        )


def check_interval(interval: str, level: float) -> None:
    """Refuse a level outside 0 to 1 and a kind of interval that is neither `t` nor `z`.

    Examples
    --------
    >>> check_interval("t", 95)
    Traceback (most recent call last):
    ...
    ValueError: level has 95, expected a number between 0 and 1; write 0.95 for 95 %
    """
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    if interval not in INTERVALS:
        raise ValueError(f"interval has '{interval}', expected 't' or 'z'; 't' suits few animals")


def settle_majority(mean: ArrayLike, share_below: ArrayLike, rule: str = "end") -> tuple[Floats, Bools]:
    """Apply the rule for times at which more than half of the animals are below the limit of quantification.

    Parameters
    ----------
    mean : (..., T) means of the animals, values below the limit already replaced (0, half the limit); NaN for no time.
    share_below : share of the animals below the limit, broadcast to `mean`; exactly one half is not more than half.
    rule : a key of `MAJORITY_BLQ`.

    Returns
    -------
    mean : (..., T) as the rule wants them.
    kept : (..., T) which times take part.

    Raises
    ------
    ValueError : an unknown rule.

    Examples
    --------
    >>> for rule in MAJORITY_BLQ:
    ...     mean, kept = settle_majority([0.1, 3, 0.5, 2, 0.2], [1, 0, 0.6, 0.2, 0.8], rule)
    ...     print(rule, mean.tolist(), kept.astype(int).tolist())
    end [0.1, 3.0, 0.5, 2.0, 0.0] [1, 1, 1, 1, 1]
    zero [0.0, 3.0, 0.0, 2.0, 0.0] [1, 1, 1, 1, 1]
    drop [0.0, 3.0, 0.5, 2.0, 0.2] [1, 1, 0, 1, 0]
    mean [0.1, 3.0, 0.5, 2.0, 0.2] [1, 1, 1, 1, 1]
    """
    if rule not in MAJORITY_BLQ:
        raise ValueError(
            f"majority_blq has '{rule}', expected one of {', '.join(MAJORITY_BLQ)}; {nearest(rule, MAJORITY_BLQ)}"
        )
    m = np.array(mean, dtype=np.float64)
    kept = ~np.isnan(m)
    low = kept & (np.broadcast_to(np.asarray(share_below, dtype=np.float64), m.shape) > 0.5)
    seen = kept & ~low & (m > 0)
    if rule == "drop":
        begun = np.logical_or.accumulate(seen, axis=-1)
        m[low & ~begun] = 0.0
        kept = kept & ~(low & begun)
    elif rule == "zero":
        m[low] = 0.0
    elif rule == "end":
        follows = np.logical_or.accumulate(seen[..., ::-1], axis=-1)[..., ::-1]
        m[low & ~follows] = 0.0
    return m, kept


def trapezoid_weights(
    time_h: ArrayLike, mean: ArrayLike, kept: ArrayLike | None = None, from_zero: bool = False
) -> Floats:
    """Return the hours each mean counts for under the linear rule, to the last positive mean.

    Parameters
    ----------
    time_h, mean : (..., T) hours and means.
    kept : (..., T) times that take part; all without it.
    from_zero : start from a value 0 at 0 h when the first sample is later.

    Returns
    -------
    (..., T) : hours; all 0 without a positive mean.

    Examples
    --------
    >>> trapezoid_weights([1, 2, 4, 8], [3, 2, 1, 0]).tolist()
    [0.5, 1.5, 1.0, 0.0]
    >>> trapezoid_weights([1, 2, 4, 8], [3, 2, 1, 1], [True, False, True, True], from_zero=True).tolist()
    [2.0, 0.0, 3.5, 2.0]
    """
    m = np.asarray(mean, dtype=np.float64)
    t = np.broadcast_to(np.asarray(time_h, dtype=np.float64), m.shape)
    present = np.ones(m.shape, dtype=np.bool_) if kept is None else np.broadcast_to(np.asarray(kept, bool), m.shape)
    positive = present & (m > 0)
    used = present & np.logical_or.accumulate(positive[..., ::-1], axis=-1)[..., ::-1]
    w = np.zeros(m.shape)
    # the time before each, and the time after: those of the nearest samples that are used
    before = np.full(m.shape[:-1], np.nan)
    after = np.full(m.shape[:-1], np.nan)
    size = m.shape[-1]
    for j in range(size):
        first = np.isnan(before)
        gap = np.where(first, t[..., j] if from_zero else 0.0, t[..., j] - before)
        w[..., j] += np.where(used[..., j], gap / 2, 0.0)
        before = np.where(used[..., j], t[..., j], before)
        k = size - 1 - j
        gap = np.where(np.isnan(after), 0.0, after - t[..., k])
        w[..., k] += np.where(used[..., k], gap / 2, 0.0)
        after = np.where(used[..., k], t[..., k], after)
    return w


def area_flags(value: float, se: float, animals: int, n_unknown: bool = False) -> tuple[str, ...]:
    """Return the quality flags of an area.

    Examples
    --------
    >>> area_flags(4.0, 3.0, 12)
    ('imprecise',)
    """
    flags = {
        "n_unknown": n_unknown,
        "negative": value < 0,
        "imprecise": se >= 0.5 * abs(value),
        "few": 0 < animals < 3,
    }
    return tuple(sorted(word for word, is_so in flags.items() if is_so))
