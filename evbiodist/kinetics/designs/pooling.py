"""Whose samples make one curve: an animal's own, or those of animals sacrificed one by one.

A curve is what NCA takes: one value a time with its standard error and the number of animals behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
#: The subject of rows that stand for several animals.
POOLED = "pooled"
#: The subject of a pool of animals beside others that have curves of their own.
REST = "pooled_rest"
_OWN_CURVE = 3


@dataclass(frozen=True, eq=False)
class Curve:
    """The samples of one animal, or of a pool, over time.

    Parameters
    ----------
    subject : the animal, `pooled` or `pooled_rest`; animals : all subjects behind it.
    time_h, value, se, sd, n, systematic, lloq : (T,); `se` NaN where animals cannot tell it.
    below : (T,) True where the value is below the limit of quantification.
    pooled : whether times are different animals.
    flags : words that every parameter of the curve carries.
    """

    subject: str
    animals: tuple[str, ...]
    time_h: FloatArray
    value: FloatArray
    se: FloatArray
    sd: FloatArray
    n: FloatArray
    systematic: FloatArray
    lloq: FloatArray
    below: NDArray[np.bool_]
    pooled: bool
    flags: tuple[str, ...] = ()

    def until(self, last_h: float) -> Curve:
        """Return the curve cut after a time."""
        keep = self.time_h <= last_h
        parts = {k: getattr(self, k)[keep] for k in ("time_h", "value", "se", "sd", "n", "systematic", "lloq", "below")}
        return Curve(self.subject, self.animals, pooled=self.pooled, flags=self.flags, **parts)

    @property
    def last_seen_h(self) -> float:
        """Time of the last value above the limit, or NaN."""
        seen = self.time_h[~self.below & (self.value > 0)]
        return float(seen.max()) if seen.size else math.nan


def split_animals(profile: pd.DataFrame, pool: bool) -> list[tuple[str, pd.DataFrame, bool]]:
    """Return (subject, rows, pooled) for every animal with a curve of its own, and for the pool of the rest.

    Parameters
    ----------
    profile : rows of one organ, unit, label and group.
    pool : put all animals into the pool.
    """
    counts = profile.groupby("subject")["time_h"].nunique()
    own = [] if pool else sorted(str(s) for s in counts[counts >= _OWN_CURVE].index if s != POOLED)
    parts = [(s, profile[profile["subject"] == s].sort_values("time_h", kind="stable"), False) for s in own]
    rest = profile[~profile["subject"].isin(own)]
    if len(rest):
        parts.append((REST if own else POOLED, rest, True))
    return parts


def make_curve(subject: str, rows: pd.DataFrame, pooled: bool, blq: str) -> Curve:
    """Return the curve of an animal or a pool.

    Parameters
    ----------
    subject, rows, pooled : as from `split_animals`.
    blq : rule for animals below the limit within a pooled time: `drop` leaves them out, `lloq/2` takes half the
        limit, `zero` and `pknca` take 0; where more than half are below, the time itself is below.

    Raises
    ------
    ValueError : several values of one animal at one time, or animals beside a published mean, in words.
    """
    return _pool(subject, rows, blq) if pooled else _single(subject, rows)


def _single(subject: str, rows: pd.DataFrame) -> Curve:
    twice = rows.loc[rows["time_h"].duplicated(), "time_h"]
    if len(twice):
        raise ValueError(f"{subject} has several values at {twice.iloc[0]:g} h (several views or scans); keep one, or put "
                         "them into groups of their own")  # fmt: skip
    columns = {k: rows[k].to_numpy(float) for k in ("time_h", "value", "se", "sd", "n", "lloq")}
    below = rows["below_lloq"].to_numpy(bool)
    return Curve(
        subject,
        (subject,),
        columns["time_h"],
        np.where(below, np.nan_to_num(columns["value"]), columns["value"]),
        columns["se"],
        columns["sd"],
        np.full(len(rows), np.nan),
        np.where(below, 0.0, np.nan_to_num(rows["se_systematic"].to_numpy(float))),
        columns["lloq"],
        below,
        pooled=False,
    )


def _pool(subject: str, rows: pd.DataFrame, blq: str) -> Curve:
    points = [_one_time(float(str(t)), here, blq) for t, here in rows.groupby("time_h", sort=True)]
    columns = np.array([p[:7] for p in points], dtype=float).T
    flags = ("below_lloq",) if rows["below_lloq"].astype(bool).any() else ()
    animals = tuple(sorted(set(rows["subject"].astype(str))))
    below = np.array([p[7] for p in points], dtype=bool)
    time, value, se, sd, n, systematic, lloq = columns
    return Curve(subject, animals, time, value, se, sd, n, systematic, lloq, below, True, flags)


def _one_time(time: float, here: pd.DataFrame, blq: str) -> tuple[float, ...]:
    """Return (time, mean, se, sd, n, systematic, lloq, below) of the animals at one time."""
    below = here["below_lloq"].to_numpy(bool)
    value, lloq = here["value"].to_numpy(float), here["lloq"].to_numpy(float)
    systematic = np.nan_to_num(here["se_systematic"].to_numpy(float))
    count = np.nan_to_num(here["n"].to_numpy(float), nan=1.0)
    limit = float(np.nanmax(lloq)) if np.isfinite(lloq).any() else math.nan
    summary = (count > 1) | here["sd"].notna().to_numpy() | (here["subject"] == POOLED).to_numpy()
    if summary.any():
        if len(here) > 1:
            raise ValueError(f"at {time:g} h a published mean stands beside other rows; keep one kind")
        n = float(here["n"].iloc[0])
        se, sd = float(here["se"].iloc[0]), float(here["sd"].iloc[0])
        return time, 0.0 if below[0] else float(value[0]), se, sd, n, float(systematic[0]), limit, float(below[0])
    if below.sum() > len(here) / 2 or below.all():
        return time, 0.0, math.nan, math.nan, float(len(here)), 0.0, limit, 1.0
    if blq == "drop":
        value, systematic = value[~below], systematic[~below]
    elif blq == "lloq/2":
        if np.isnan(lloq[below]).any():
            raise ValueError(
                f"at {time:g} h a value is below a limit that is not given; fill lloq, or choose another BLQ rule"
            )
        value = np.where(below, lloq / 2, value)
    else:
        value = np.where(below, 0.0, value)
    n = len(value)
    sd = float(np.std(value, ddof=1)) if n > 1 else math.nan
    return time, float(value.mean()), sd / math.sqrt(n), sd, float(n), float(systematic.mean()), limit, 0.0
