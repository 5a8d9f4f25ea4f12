"""Observations as a fit needs them: which row each prediction answers, and how far off it may be.

Animals differ more than instruments err. The spread between animals is pooled over times as a
relative spread per organ, because three animals at one time say little about their own variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.pooling import POOLED
from evbiodist.study.vocabulary import BLOOD, NOT_ORGANS

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
#: Relative spread assumed where nothing is repeated; the fit's own residuals then set the scale.
_UNREPEATED_CV = 0.15
#: Errors are never taken smaller than this share of an organ's largest mean.
_FLOOR = 0.005


@dataclass(frozen=True, eq=False)
class FitData:
    """The observations of one label and group, ready to fit.

    Parameters
    ----------
    seen : names of what is observed; `which` (N,) indexes it; `animal` (N,) numbers the animals.
    time_h, value, se : (N,) hours since the dose, values, measurement standard errors.
    systematic : (N,) error shared by all rows of one organ.
    count : (N,) animals behind each row (1 for an animal's own value).
    cv : (n_seen,) relative spread between animals, pooled over times; replicated : whether it was measured.
    mean : (N,) mean of the organ at that time, the first guess of the expectation.
    unit : unit of each observed matrix.
    """

    seen: tuple[str, ...]
    which: NDArray[np.int64]
    animal: NDArray[np.int64]
    time_h: FloatArray
    value: FloatArray
    se: FloatArray
    systematic: FloatArray
    count: FloatArray
    cv: FloatArray
    replicated: bool
    mean: FloatArray
    unit: tuple[str, ...]

    def sigma(self, expected: FloatArray) -> FloatArray:
        """Return the standard deviation of every row about its expectation, shape (N,)."""
        largest = np.array([np.max(np.abs(self.mean[self.which == i])) for i in range(len(self.seen))])
        animals = self.cv[self.which] * np.abs(expected) / np.sqrt(self.count)
        return np.sqrt(animals**2 + self.se**2 + (_FLOOR * largest[self.which]) ** 2)

    def weight_sigma(self, expected: FloatArray) -> FloatArray:
        """Return the same with the shared error added: what a row's weight in the search rests on."""
        return np.hypot(self.sigma(expected), self.systematic)

    def curve(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return times and mean values of one matrix."""
        rows = self.which == self.seen.index(name)
        time, first = np.unique(self.time_h[rows], return_index=True)
        return time, self.mean[rows][first]


def prepare(observations: pd.DataFrame, organs: bool) -> FitData:
    """Choose the rows a model can use.

    Parameters
    ----------
    observations : rows of one label and group, columns of observations.csv.
    organs : whether organ amounts are wanted beside the concentration in blood.

    Returns
    -------
    FitData : `blood` first (whole blood before plasma before serum), then organs in `pct_id`, sorted.

    Raises
    ------
    ValueError : no blood, too few times, organs without amounts: in words.
    """
    rows = observations[observations["value"].notna() & ~observations["below_lloq"].astype(bool)]
    matrix = next((m for m in BLOOD if (rows["organ"] == m).any()), None)
    if matrix is None:
        raise ValueError("no blood, plasma or serum was measured, and every model starts from its curve")
    blood = rows[rows["organ"] == matrix]
    if blood["unit"].nunique() > 1:
        raise ValueError(f"{matrix} comes in several units ({', '.join(sorted(blood['unit'].unique()))}); use one")
    if blood["time_h"].nunique() < 3:
        raise ValueError(f"{matrix} was measured at {blood['time_h'].nunique()} times; three or more are needed")
    if not (blood["value"] > 0).any():
        raise ValueError(f"{matrix} is nowhere above zero")
    parts = [("blood", blood)]
    if organs:
        amounts = rows[(rows["unit"] == "pct_id") & ~rows["organ"].isin(NOT_ORGANS)]
        if amounts.empty:
            raise ValueError("no organ has an amount in pct_id; give organ masses (masses.csv) or pct_id values")
        if not (blood["unit"] == "pct_id_per_g").all():
            raise ValueError(f"{matrix} is in {blood['unit'].iloc[0]}; a concentration in pct_id_per_g is needed")
        enough = [(str(name), part) for name, part in amounts.groupby("organ") if part["time_h"].nunique() >= 3]
        parts += sorted(enough, key=lambda pair: pair[0])
        if len(parts) == 1:
            raise ValueError("no organ was measured at three times or more")
    return _gather(parts)


def _gather(parts: Sequence[tuple[str, pd.DataFrame]]) -> FitData:
    columns: dict[str, list[FloatArray]] = {
        k: [] for k in ("which", "animal", "time", "value", "se", "sys", "count", "mean")
    }
    cvs, replicated = [], True
    numbers = {who: i for i, who in enumerate(sorted({w for _, part in parts for w in _clusters(part)}))}
    for index, (_, part) in enumerate(parts):
        part = part.sort_values(["time_h", "subject"], kind="stable")
        value, time = part["value"].to_numpy(float), part["time_h"].to_numpy(float)
        sd, count = part["sd"].to_numpy(float), np.nan_to_num(part["n"].to_numpy(float), nan=1.0)
        # a mean's own se repeats its sd; the spread between animals then carries it
        se = np.where(np.isfinite(sd) & (count > 1), 0.0, np.nan_to_num(part["se"].to_numpy(float)))
        mean = np.array([np.average(value[time == t], weights=count[time == t]) for t in time])
        cv = _pooled_cv(time, value, mean, sd, count, se)
        replicated &= cv is not None
        cvs.append(_UNREPEATED_CV if cv is None else cv)
        animal = np.array([numbers[who] for who in _clusters(part)], dtype=float)
        found = {"which": np.full(len(value), float(index)), "animal": animal, "time": time, "value": value, "se": se,
                 "sys": np.nan_to_num(part["se_systematic"].to_numpy(float)), "count": count, "mean": mean}  # fmt: skip
        for key, array in found.items():
            columns[key].append(array)
    joined = {key: np.concatenate(arrays) for key, arrays in columns.items()}
    return FitData(
        seen=tuple(name for name, _ in parts),
        which=joined["which"].astype(np.int64),
        animal=joined["animal"].astype(np.int64),
        time_h=joined["time"],
        value=joined["value"],
        se=joined["se"],
        systematic=joined["sys"],
        count=joined["count"],
        cv=np.array(cvs),
        replicated=replicated,
        mean=joined["mean"],
        unit=tuple(str(part["unit"].iloc[0]) for _, part in parts),
    )


def _clusters(part: pd.DataFrame) -> list[tuple[str, float]]:
    """Return who each row comes from: an animal over all its times, or a published mean at its one time."""
    mean = (part["subject"] == POOLED) | (part["n"] > 1)
    return [(str(s), float(t) if m else -1.0) for s, t, m in zip(part["subject"], part["time_h"], mean, strict=True)]


def _pooled_cv(
    time: FloatArray, value: FloatArray, mean: FloatArray, sd: FloatArray, count: FloatArray, se: FloatArray
) -> float | None:
    """Return the relative spread between animals over all times, or None when nothing is repeated.

    The part of the spread that measurement explains is taken out, since `se` enters on its own.
    """
    spread = level = 0.0  # both summed before the ratio, so that times near zero do not blow it up
    for t in np.unique(time):
        here = (time == t) & ~np.isfinite(sd)
        df = int(here.sum()) - 1
        if df > 0:
            spread += df * max(np.var(value[here], ddof=1) - np.mean(se[here] ** 2), 0.0)
            level += df * mean[here][0] ** 2
    known = np.isfinite(sd) & (count > 1)
    spread += float(np.sum((count[known] - 1) * sd[known] ** 2))
    level += float(np.sum((count[known] - 1) * value[known] ** 2))
    return float(np.sqrt(spread / level)) if level > 0 else None
