"""Observations as a fit needs them: which row each prediction answers, and how far off it may be.

Animals differ more than instruments err. The spread between animals is pooled over times as a
relative spread per organ, because three animals at one time say little about their own variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.designs.pooling import POOLED
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
    censored : (N,) whether the value is a limit of quantification that the truth is below.
    end_h : (N,) ends of frames that start at `time_h`; None for samples at a time.
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
    censored: NDArray[np.bool_]
    end_h: FloatArray | None = None

    def sigma(self, expected: FloatArray) -> FloatArray:
        """Return the standard deviation of every row about its expectation, shape (N,)."""
        largest = np.zeros(len(self.seen))
        np.maximum.at(largest, self.which, np.abs(self.mean))
        animals = self.cv[self.which] * np.abs(expected) / np.sqrt(self.count)
        return np.sqrt(animals**2 + self.se**2 + (_FLOOR * largest[self.which]) ** 2)

    def weight_sigma(self, expected: FloatArray) -> FloatArray:
        """Return the same with the shared error added: what a row's weight in the search rests on."""
        return np.hypot(self.sigma(expected), self.systematic)

    def curve(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return times and mean values of one matrix."""
        rows = (self.which == self.seen.index(name)) & ~self.censored
        time = self.time_h if self.end_h is None else (self.time_h + self.end_h) / 2
        time, first = np.unique(time[rows], return_index=True)
        return time, self.mean[rows][first]


def prepare(observations: pd.DataFrame, organs: bool, *, blq: str = "drop", others: Sequence[str] = ()) -> FitData:
    """Choose the rows a model can use.

    Parameters
    ----------
    observations : rows of one label and group, columns of observations.csv.
    organs : whether organ amounts are wanted beside the concentration in blood.
    blq : ``drop`` leaves values below the limit out; ``m3`` keeps them as known to be below it.
    others : matrices beside organs that the model sees as amounts, such as ``excreted``.

    Returns
    -------
    FitData : `blood` first (whole blood before plasma before serum), then organs in `pct_id`, sorted.

    Raises
    ------
    ValueError : no blood, too few times, organs without amounts: in words.
    """
    import pandas as pd

    below = observations["below_lloq"].astype(bool)
    rows = observations[observations["value"].notna() & ~below]
    if blq == "m3":
        hidden = observations[below & (observations["lloq"] > 0)]
        if below.sum() > len(hidden):
            raise ValueError(
                "a value is below a limit that is not given; fill lloq, or leave such values out (blq = drop)"
            )
        rows = pd.concat([rows, hidden.assign(value=hidden["lloq"], se=np.nan)])
    matrix = next((m for m in BLOOD if (rows["organ"] == m).any()), None)
    if matrix is None:
        raise ValueError("no blood, plasma or serum was measured, and every model starts from its curve")
    blood = rows[rows["organ"] == matrix]
    if blood["unit"].nunique() > 1:
        raise ValueError(f"{matrix} comes in several units ({', '.join(sorted(blood['unit'].unique()))}); use one")
    seen = blood[~blood["below_lloq"].astype(bool)]
    if seen["time_h"].nunique() < 3:
        raise ValueError(f"{matrix} was measured at {seen['time_h'].nunique()} times; three or more are needed")
    if not (blood["value"] > 0).any():
        raise ValueError(f"{matrix} is nowhere above zero")
    parts = [("blood", blood)]
    if organs:
        amounts = rows[(rows["unit"] == "pct_id") & (~rows["organ"].isin(NOT_ORGANS) | rows["organ"].isin(others))]
        if amounts.empty:
            raise ValueError("no organ has an amount in pct_id; give organ masses (masses.csv) or pct_id values")
        if not (blood["unit"] == "pct_id_per_g").all():
            raise ValueError(f"{matrix} is in {blood['unit'].iloc[0]}; a concentration in pct_id_per_g is needed")
        enough = [(str(name), part) for name, part in amounts.groupby("organ") if part["time_h"].nunique() >= 3]
        absent = sorted(set(others) - {name for name, _ in enough})
        if absent:
            raise ValueError(
                f"{', '.join(absent)} was not measured in pct_id at three times or more, and the model sees it"
            )
        parts += sorted((pair for pair in enough if pair[0] not in others), key=lambda pair: pair[0])
        if len(parts) == 1:
            raise ValueError("no organ was measured at three times or more")
        parts += [pair for name in others for pair in enough if pair[0] == name]
    return gather(parts)


def gather(parts: Sequence[tuple[str, pd.DataFrame]]) -> FitData:
    """Return rows of several matrices, by their names, as data to fit."""
    columns: dict[str, list[FloatArray]] = {
        k: [] for k in ("which", "animal", "time", "value", "se", "sys", "count", "mean", "censored")
    }
    cvs, replicated = [], True
    numbers = {who: i for i, who in enumerate(sorted({w for _, part in parts for w in clusters(part)}))}
    for index, (_, part) in enumerate(parts):
        part = part.sort_values(["time_h", "subject"], kind="stable")
        value, time = part["value"].to_numpy(float), part["time_h"].to_numpy(float)
        sd, count = part["sd"].to_numpy(float), np.nan_to_num(part["n"].to_numpy(float), nan=1.0)
        # a mean's own se repeats its sd; the spread between animals then carries it
        se = np.where(np.isfinite(sd) & (count > 1), 0.0, np.nan_to_num(part["se"].to_numpy(float)))
        below = part["below_lloq"].to_numpy(bool)
        mean = _mean_by_time(time, np.where(below, value / 2, value), count)
        known = ~below
        cv = _pooled_cv(*(a[known] for a in (time, value, mean, sd, count, se)))
        replicated &= cv is not None
        cvs.append(_UNREPEATED_CV if cv is None else cv)
        animal = np.array([numbers[who] for who in clusters(part)], dtype=float)
        found = {"which": np.full(len(value), float(index)), "animal": animal, "time": time, "value": value, "se": se,
                 "sys": np.nan_to_num(part["se_systematic"].to_numpy(float)), "count": count, "mean": mean,
                 "censored": below.astype(float)}  # fmt: skip
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
        censored=joined["censored"].astype(bool),
    )


def _mean_by_time(time: FloatArray, value: FloatArray, count: FloatArray) -> FloatArray:
    """Return, for every row, the mean of its time weighted by animals."""
    _, group = np.unique(time, return_inverse=True)
    means = np.bincount(group, weights=value * count) / np.bincount(group, weights=count)
    return np.asarray(means[group])


def curve_data(
    time_h: ArrayLike, value: ArrayLike, *, seen: str = "blood", unit: str = "au", se: ArrayLike | None = None,
    end_h: ArrayLike | None = None, censored: ArrayLike | None = None,
) -> FitData:  # fmt: skip
    """Return one measured curve, such as an animal's blood or a region of a dynamic scan, ready to fit.

    Parameters
    ----------
    time_h, value : (N,) hours and values; times of frames are their starts.
    seen : the model's name for what is measured.
    se : (N,) or scalar standard errors; equal relative ones are assumed without them, and their size is then found
        from the residuals.
    end_h : (N,) ends of frames.
    censored : (N,) true where the value is a limit that the truth is below.

    Raises
    ------
    ValueError : arrays that do not fit together, numbers that are not finite, negative errors, frames without duration.

    Examples
    --------
    >>> curve_data([1, 2, 4], [8, 4, 1]).value.tolist()
    [8.0, 4.0, 1.0]
    """
    t, v = np.asarray(time_h, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if t.ndim != 1 or t.shape != v.shape or not t.size:
        raise ValueError(f"time_h and value have shapes {t.shape} and {v.shape}; give one value for each time")
    e = None if end_h is None else np.asarray(end_h, dtype=np.float64)
    s = np.asarray(0.0 if se is None else se, dtype=np.float64)
    hidden = np.zeros(t.shape, bool) if censored is None else np.asarray(censored, dtype=bool)
    if s.shape not in ((), t.shape):
        raise ValueError(f"se has shape {s.shape}; give one number, or one for each of the {t.size} values")
    if hidden.shape != t.shape:
        raise ValueError(f"censored has shape {hidden.shape}; give one for each of the {t.size} values")
    s = np.broadcast_to(s, t.shape)
    for name, a in (("time_h", t), ("value", v), ("se", s), ("end_h", t if e is None else e)):
        if a.shape != t.shape or not np.isfinite(a).all():
            raise ValueError(f"{name} has {a.tolist()}, expected {t.size} finite numbers; drop samples without one")
    if (s < 0).any():
        raise ValueError(f"se has {s.tolist()}, expected 0 or more")
    if e is not None and (e <= t).any():
        raise ValueError("every frame needs an end after its start; check the frames' starts and durations")
    return FitData(
        seen=(seen,), which=np.zeros(t.size, np.int64), animal=np.arange(t.size), time_h=t, value=v, se=s,
        systematic=np.zeros(t.size), count=np.ones(t.size), cv=np.array([_UNREPEATED_CV if se is None else 0.0]),
        replicated=False, mean=np.where(hidden, v / 2, v), unit=(unit,), censored=hidden, end_h=e,
    )  # fmt: skip


def clusters(part: pd.DataFrame) -> list[tuple[str, float]]:
    """Return who each row comes from: an animal over all its times (then -1), or a published mean at its one time."""
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
