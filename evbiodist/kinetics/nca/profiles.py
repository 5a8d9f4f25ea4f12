"""Profiles as the analysis needs them: samples are checked here, once, and trusted afterwards.

Every refusal of samples is in this file, and so is what becomes of values below the limit of quantification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.designs.mean_curve import settle_majority
from evbiodist.kinetics.nca.rules import MIN_POINTS, Settings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def row_of(field: str, array: ArrayLike, size: int, kind: type = float) -> NDArray[Any]:
    """Return a list of one profile as a batch of one, shape (1, size)."""
    row: NDArray[Any] = np.asarray(array, dtype=kind)
    if row.ndim == 0 and field == "n":
        row = np.full(size, row)
    if row.shape != (size,):
        raise ValueError(f"{field} has shape {row.shape}, expected ({size},) as time_h; give one for each time")
    return row[None]


def mask_of(points: Sequence[int], size: int) -> Bools:
    """Return positions as a mask, shape (size,)."""
    chosen = np.unique(np.asarray(points, dtype=np.intp))
    if chosen.size < MIN_POINTS or chosen[0] < 0 or chosen[-1] >= size:
        raise ValueError(
            f"lambda_z_points has {list(points)}, expected at least {MIN_POINTS} positions between 0 "
            f"and {size - 1}; count samples from 0"
        )
    mask = np.zeros(size, dtype=np.bool_)
    mask[chosen] = True
    return mask


def excluded(field: str, points: Mapping[tuple[int, int], str] | None, shape: tuple[int, ...]) -> Bools | None:
    """Return the samples that were left out with a reason, as a (P, T) mask.

    Raises
    ------
    ValueError : a position that does not exist, or one without a reason.
    """
    if not points:
        return None
    mask = np.zeros(shape, dtype=np.bool_)
    for (profile, at), reason in points.items():
        if not (0 <= profile < shape[0] and 0 <= at < shape[1]):
            raise ValueError(
                f"{field} names position {at} of profile {profile}, expected one of 0 to {shape[1] - 1} of "
                f"0 to {shape[0] - 1}; count from 0"
            )
        if not str(reason).strip():
            raise ValueError(f"{field} gives no reason for position {at}, expected a few words; say why it is left out")
        mask[profile, at] = True
    return mask


@dataclass(frozen=True)
class Profiles:
    """Samples after the BLQ rule, time first so that a time step is one contiguous row: all (T, P)."""

    t: Floats
    c: Floats
    present: Bools  # a sample that takes part; rows are packed, so these come first
    measured: Bools  # present and not below the limit
    blq: Bools
    se: Floats | None
    n: Floats | None
    dose: Floats  # (P,)
    tlag: Floats  # (P,) time of the last sample before the first value above zero
    blank: Bools  # (P,) there were samples, and all were zero or below the limit
    position: NDArray[np.intp]  # column of the input
    chosen: Bools | None  # the user's terminal points
    off_line: Bools | None  # not to be on the terminal line

    @classmethod
    def of(
        cls,
        time_h: ArrayLike,
        value: ArrayLike,
        *,
        se: ArrayLike | None,
        n: ArrayLike | None,
        dose: ArrayLike | None,
        lloq: ArrayLike | None,
        below_lloq: ArrayLike | None,
        below_share: ArrayLike | None,
        points: int | Bools | None,
        exclude: Mapping[tuple[int, int], str] | None,
        lambda_z_exclude: Mapping[tuple[int, int], str] | None,
        settings: Settings,
    ) -> Profiles:
        """Check arrays of shape (P, T), apply the BLQ rule and pack what is left."""
        t = np.atleast_2d(np.asarray(time_h, dtype=np.float64))
        if t.ndim > 2 or not t.shape[1]:
            raise ValueError(f"time_h has shape {t.shape}, expected profiles x times with at least one time")
        c = _like("value", value, t.shape)
        left_out = excluded("exclude", exclude, t.shape)
        if left_out is not None:
            t = np.where(left_out, np.nan, t)
        t, c, settled = _majority(t, c, below_share, settings.rules.majority_blq)
        present = ~np.isnan(t)
        blq = _below(c, lloq, below_lloq, settings.rules.zeros) & present
        if settings.rules.zeros == "measured":
            blq &= ~settled  # the rule that made it zero has the last word
        _check_samples(t, c, present & ~blq)
        _check_errors(t.shape, present & ~blq, se, n)
        positive = present & ~blq & (c > 0)
        blank = present.any(axis=1) & ~(present & ~blq & (c != 0)).any(axis=1)
        tlag = _time_before(t, present, positive)
        c, kept = _apply_blq(c, present, blq, positive, settings.rules.places(), lloq)
        blq = blq | settled
        whole = bool(kept.all())
        order = np.broadcast_to(np.arange(t.shape[1]), t.shape)
        if not whole:
            order = np.argsort(~kept, axis=1, kind="stable")
            t, c = np.where(kept, t, 0.0), np.where(kept, c, 0.0)

        def pack(a: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray((a if whole else np.take_along_axis(a, order, axis=1)).T)

        def mask(field: str, a: object) -> Bools | None:
            return pack(_like(field, a, t.shape) > 0) if isinstance(a, np.ndarray) else None

        return cls(
            t=pack(t),
            c=pack(c),
            present=pack(kept),
            measured=pack(kept & ~blq),
            blq=pack(blq & kept),
            se=None if se is None else pack(np.where(blq | ~kept, 0.0, _like("se", se, t.shape))),
            n=None if n is None else pack(np.where(kept, _like("n", n, t.shape), np.nan)),
            dose=_dose(dose, t.shape[0]),
            tlag=tlag,
            blank=blank,
            position=np.ascontiguousarray(order.T),
            chosen=mask("lambda_z_points", points),
            off_line=mask("lambda_z_exclude", excluded("lambda_z_exclude", lambda_z_exclude, t.shape)),
        )


def _time_before(t: Floats, present: Bools, positive: Bools) -> Floats:
    """Return the time of the last sample before the first value above zero; 0 where there is none."""
    if positive[:, :1].all():
        return np.zeros(len(t))
    earlier = present & ~np.logical_or.accumulate(positive, axis=1)
    latest = np.max(np.where(earlier, t, 0.0), axis=1, initial=0.0)
    return np.where(positive.any(axis=1), latest, np.nan)


def _majority(t: Floats, c: Floats, share: ArrayLike | None, rule: str) -> tuple[Floats, Floats, Bools]:
    """Treat means of which more than half the values are below the limit; the third value marks those replaced."""
    if share is None:
        return t, c, np.zeros(c.shape, dtype=np.bool_)
    part = _like("below_share", share, c.shape)
    present = ~np.isnan(t)
    refuse("below_share", part, present & ~((part >= 0) & (part <= 1)), "a share from 0 to 1", "divide counts by n")
    settled, kept = settle_majority(np.where(present, c, np.nan), part, rule)
    replaced = present & kept & (settled != c)
    return np.where(kept | ~present | np.isnan(c), t, np.nan), np.where(replaced, settled, c), replaced


def _like(field: str, array: ArrayLike, shape: tuple[int, ...]) -> Floats:
    a = np.asarray(array, dtype=np.float64)
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{field} has shape {a.shape}, expected {shape} as time_h; give one for each time") from None


def _dose(dose: ArrayLike | None, profiles: int) -> Floats:
    doses = np.array(np.broadcast_to(np.asarray(math.nan if dose is None else dose, dtype=np.float64), profiles))
    if (doses <= 0).any() or np.isinf(doses).any():
        raise ValueError(
            f"dose has {doses[(doses <= 0) | np.isinf(doses)][0]}, expected a number above 0; "
            "leave it out when it is unknown"
        )
    return doses


def _below(c: Floats, lloq: ArrayLike | None, below_lloq: ArrayLike | None, zeros: str) -> Bools:
    mask = c == 0 if zeros == "below_lloq" else np.zeros(c.shape, dtype=np.bool_)
    if below_lloq is not None:
        mask = mask | (_like("below_lloq", below_lloq, c.shape) > 0)
    if lloq is not None:
        limit = _like("lloq", lloq, c.shape)
        if not (limit > 0).all():
            raise ValueError(
                f"lloq has {limit[~(limit > 0)][0]}, expected a number above 0; leave it out when it is unknown"
            )
        mask = mask | (c < limit)
    return mask


def _check_samples(t: Floats, c: Floats, measured: Bools) -> None:
    present = ~np.isnan(t)
    refuse("time_h", t, present & ~np.isfinite(t), "hours after dosing", "correct or drop the row")
    refuse("time_h", t, present & (t < 0), "0 h or later", "give a pre-dose sample the time 0, or drop it")
    refuse("value", c, measured & ~np.isfinite(c), "a finite number", "drop the row or mark it below_lloq")
    late = np.zeros(t.shape, dtype=np.bool_)
    if present.all():
        late[:, 1:] = t[:, 1:] <= t[:, :-1]
    else:
        latest = np.maximum.accumulate(np.where(present, t, -np.inf), axis=1)[:, :-1]
        late[:, 1:] = present[:, 1:] & (t[:, 1:] <= latest)
    refuse(
        "time_h",
        t,
        late,
        "times that rise",
        "sort the rows by time; average samples of one time, or give each animal its own profile",
    )


def _check_errors(shape: tuple[int, ...], measured: Bools, se: ArrayLike | None, n: ArrayLike | None) -> None:
    if se is not None:
        s = _like("se", se, shape)
        refuse("se", s, measured & ((s < 0) | np.isinf(s)), "0 or more", "give standard errors, NaN where unknown")
    if n is not None:
        count = _like("n", n, shape)
        refuse(
            "n",
            count,
            measured & ~((count >= 1) & np.isfinite(count)),
            "at least 1 animal",
            "drop the row, or leave n out when it is unknown",
        )


def refuse(field: str, a: Floats, bad: Bools, expected: str, remedy: str) -> None:
    """Raise for the first bad entry of a (P, T) array, naming where it is and what to do."""
    if bad.any():
        profile, at = np.argwhere(bad)[0]
        where = f" of profile {profile}" if len(a) > 1 else ""
        raise ValueError(f"{field} has {a[profile, at]:g} at position {at}{where}, expected {expected}; {remedy}")


def _apply_blq(
    c: Floats, present: Bools, blq: Bools, positive: Bools, rules: Mapping[str, str], lloq: ArrayLike | None
) -> tuple[Floats, Bools]:
    """Drop or replace values below the limit; return the values and which samples are left."""
    if not blq.any():
        return c, present
    started = np.logical_or.accumulate(positive, axis=1)
    ended = ~np.logical_or.accumulate(positive[:, ::-1], axis=1)[:, ::-1]
    places = {"before_first": ~started, "between": started & ~ended, "after_last": started & ended}
    c, kept = np.array(c), np.array(present)
    for place, where in places.items():
        at = blq & where
        if rules[place] == "drop":
            kept &= ~at
        elif rules[place] == "zero":
            c[at] = 0.0
        elif at.any():
            if lloq is None:
                raise ValueError(
                    "lloq has None, expected the limit of quantification for the rule 'lloq/2'; "
                    "give lloq, or another blq rule"
                )
            c[at] = np.broadcast_to(np.asarray(lloq, dtype=np.float64), c.shape)[at] / 2
    return c, kept
