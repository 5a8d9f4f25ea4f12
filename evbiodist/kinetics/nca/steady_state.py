"""Whether the troughs of a profile are level: an equivalence test, so that poor data are never called steady."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.nca.delta import Bools, Floats
from evbiodist.kinetics.nca.propagate import quantile

MIN_LEVEL = 3  # troughs of a level stretch


def level_troughs(
    time_h: Floats, trough: Floats, se: Floats, ratio: float = 1.25
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the trough of each profile from which on they are level (-1: none is shown), and why none is.

    Parameters
    ----------
    time_h : (P, D) hours of each trough, NaN where a profile has fewer.
    trough, se : (P, D) values and standard errors, NaN where not sampled, not quantifiable or not known.
    ratio : troughs are level when the 90 % interval of the change along them lies within this factor either way.

    Returns
    -------
    (P,) counted from 0, and (P,) sentences.

    Examples
    --------
    >>> t = np.array([[12.0, 24, 36, 48]])
    >>> level_troughs(t, np.array([[1.0, 1.50, 1.52, 1.51]]), np.full((1, 4), 0.03))[0].tolist()
    [1]
    >>> level_troughs(t, np.array([[1.0, 1.50, 1.52, 1.51]]), np.full((1, 4), 0.3))[0].tolist()
    [-1]

    Notes
    -----
    Two one-sided tests: Schuirmann DJ (1987) J Pharmacokinet Biopharm 15:657. The line goes through ln(trough) on time;
    its error comes from the troughs' own if all are known (normal), else from their scatter about it (Student's t).
    """
    seen = np.isfinite(trough) & (trough > 0)
    counted = np.isfinite(time_h)
    level_from = np.full(len(trough), -1)
    drift = np.full(len(trough), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        log, spread = np.log(np.where(seen, trough, 1.0)), np.where(seen, se / trough, 0.0)
        for k in reversed(range(trough.shape[1] - MIN_LEVEL + 1)):
            used = seen & (np.arange(trough.shape[1]) >= k)
            whole = (used | ~counted)[:, k:].all(axis=1) & (used.sum(axis=1) >= MIN_LEVEL)
            change, half = _change(time_h, log, spread, used)
            level_from = np.where(whole & (np.abs(change) + half < math.log(ratio)), k, level_from)
            drift = np.where(whole & np.isnan(drift), change, drift)
    return level_from, tuple(_why_not(int(s), float(d), ratio) for s, d in zip(seen.sum(axis=1), drift, strict=True))


def _change(t: Floats, log: Floats, spread: Floats, used: Bools) -> tuple[Floats, Floats]:
    """Change along the line through ln(trough) and half its 90 % interval, (P,)."""
    m = used.sum(axis=1)
    t = np.where(used, t, 0.0)
    dt = np.where(used, t - (t.sum(axis=1) / m)[:, None], 0.0)
    sxx = (dt**2).sum(axis=1)
    slope = (dt * log).sum(axis=1) / sxx
    mean = np.where(used, log, 0.0).sum(axis=1) / m
    residual = np.where(used, log - mean[:, None] - slope[:, None] * dt, 0.0)
    scatter = (residual**2).sum(axis=1) / (m - 2) / sxx
    own = ((dt * np.where(used, spread, 0.0)) ** 2).sum(axis=1) / sxx**2
    known = ~np.isnan(own)
    reach = quantile(0.90, np.where(known, np.inf, np.maximum(m - 2, 1)))
    length = dt.max(axis=1) - dt.min(axis=1)
    return slope * length, reach * np.sqrt(np.where(known, own, scatter)) * length


def _why_not(seen: int, drift: float, ratio: float) -> str:
    if seen < MIN_LEVEL:
        return (
            f"steady state is not shown: {seen} quantifiable samples at the ends of intervals, {MIN_LEVEL} are needed"
        )
    if math.isnan(drift):
        return f"steady state is not shown: not all of the last {MIN_LEVEL} intervals end with a quantifiable sample"
    return (
        f"steady state is not shown: the last {MIN_LEVEL} troughs change by a factor of {math.exp(drift):.3g}, and its "
        f"90 % interval is not within {1 / ratio:.3g} to {ratio:.3g}"
    )
