"""Profiles as the analysis needs them: settings and samples are checked here, once, and trusted afterwards.

Every refusal of `nca` is in this file, and so is the rule for values below the limit of quantification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.parameters import ROUTES
from evbiodist.study.problems import nearest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

METHODS = ("linear", "lin-up-log-down", "log")
#: What becomes of values below the limit of quantification, by position.
BLQ_RULES: dict[str, dict[str, str]] = {
    "drop": {"before_first": "drop", "between": "drop", "after_last": "drop"},
    "zero": {"before_first": "zero", "between": "zero", "after_last": "zero"},
    "lloq/2": {"before_first": "lloq/2", "between": "lloq/2", "after_last": "lloq/2"},
    "pknca": {"before_first": "zero", "between": "drop", "after_last": "zero"},
}

MIN_POINTS = 3  # of a terminal line


@dataclass(frozen=True)
class Settings:
    """What the user asked for, checked; `infusion_h` is 0 for routes without one, NaN where it is unknown."""

    method: str
    blq: dict[str, str]
    route: str
    unit: str
    dose_unit: str
    last_points: int | None
    infusion_h: float
    max_extrap_pct: float
    min_adj_r2: float
    level: float

    @classmethod
    def of(
        cls,
        method: str,
        blq: str | Mapping[str, str],
        route: str,
        unit: str,
        dose_unit: str,
        points: int | Bools | None,
        infusion_h: float | None,
        max_extrap_pct: float,
        min_adj_r2: float,
        level: float,
    ) -> Settings:
        """Check the arguments of `nca` that are no arrays."""
        _one_of("method", method, METHODS)
        _one_of("route", route, ROUTES)
        if not 0 < level < 1:
            raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
        if infusion_h is not None and not (route == "iv_infusion" and infusion_h > 0):
            raise ValueError(
                f"infusion_h has {infusion_h} with route '{route}', expected hours above 0 with route "
                "'iv_infusion'; leave it out for other routes"
            )
        last = int(points) if isinstance(points, int | np.integer) else None
        if last is not None and last < MIN_POINTS:
            raise ValueError(f"lambda_z_points has {last}, expected at least {MIN_POINTS}; two points fit any line")
        duration = 0.0 if route != "iv_infusion" else math.nan if infusion_h is None else float(infusion_h)
        return cls(method, _blq_rules(blq), route, unit, dose_unit, last, duration, max_extrap_pct, min_adj_r2, level)


def _blq_rules(blq: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(blq, str):
        _one_of("blq", blq, BLQ_RULES)
        return BLQ_RULES[blq]
    rules = {**BLQ_RULES["drop"], **blq}
    for place, rule in rules.items():
        _one_of("blq", place, BLQ_RULES["drop"])
        _one_of(f"blq[{place}]", rule, ("drop", "zero", "lloq/2"))
    return rules


def _one_of(field: str, found: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    if found not in known:
        raise ValueError(f"{field} has '{found}', expected one of {', '.join(known)}; {nearest(found, known)}")


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
    position: NDArray[np.intp]  # column of the input
    chosen: Bools | None  # the user's terminal points

    @classmethod
    def of(
        cls,
        time_h: ArrayLike,
        value: ArrayLike,
        se: ArrayLike | None,
        n: ArrayLike | None,
        dose: ArrayLike | None,
        lloq: ArrayLike | None,
        below_lloq: ArrayLike | None,
        points: int | Bools | None,
        settings: Settings,
    ) -> Profiles:
        """Check arrays of shape (P, T), apply the BLQ rule and pack what is left."""
        t = np.atleast_2d(np.asarray(time_h, dtype=np.float64))
        c = _like("value", value, t.shape)
        present = ~np.isnan(t)
        blq = _below(c, lloq, below_lloq) & present
        _check_samples(t, c, present & ~blq)
        _check_errors(t.shape, present & ~blq, se, n)
        c, kept = _apply_blq(c, present, blq, settings.blq, lloq)
        order = np.argsort(~kept, axis=1, kind="stable")
        t, c = np.where(kept, t, 0.0), np.where(kept, c, 0.0)

        def pack(a: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(np.take_along_axis(a, order, axis=1).T)

        spread = None if se is None else pack(np.where(blq | ~kept, 0.0, _like("se", se, t.shape)))
        count = None if n is None else pack(np.where(kept, _like("n", n, t.shape), np.nan))
        chosen = None if not isinstance(points, np.ndarray) else pack(_like("lambda_z_points", points, t.shape) > 0)
        return cls(
            pack(t),
            pack(c),
            pack(kept),
            pack(kept & ~blq),
            pack(blq & kept),
            spread,
            count,
            _dose(dose, t.shape[0]),
            np.ascontiguousarray(order.T),
            chosen,
        )


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


def _below(c: Floats, lloq: ArrayLike | None, below_lloq: ArrayLike | None) -> Bools:
    mask = np.zeros(c.shape, dtype=np.bool_)
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
    latest = np.maximum.accumulate(np.where(present, t, -np.inf), axis=1)[:, :-1]
    late = present & np.pad(t[:, 1:] <= latest, ((0, 0), (1, 0)))
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
    c: Floats, present: Bools, blq: Bools, rules: Mapping[str, str], lloq: ArrayLike | None
) -> tuple[Floats, Bools]:
    """Drop or replace values below the limit; return the values and which samples are left."""
    positive = present & ~blq & (c > 0)
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
