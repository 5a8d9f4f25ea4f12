"""Readings as a joint fit needs them: animals that were sampled alike are one mean, because nothing else of them can be told.

Rows of one animal share an error (it got a little more of the dose), so an animal's rows are decorrelated together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.arms import Arm
from evbiodist.kinetics.fitting.fit import likeness
from evbiodist.kinetics.fitting.search import FLOOR
from evbiodist.kinetics.models.graph import RateGraph

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
#: Rows of an animal are never taken as more alike than this.
_ALIKE = 0.9


@dataclass(frozen=True, eq=False)
class Rows:
    """Means over animals that were sampled at the same times in the same organs, laid out set by set.

    Parameters
    ----------
    arm, organ, time : (N,) which arm, which observation of the model and which of the arm's times a mean is of.
    times : (A, T) sampling times of the arms, hours, padded with the last.
    value : (N,) means; members : (N,) animals behind each; group : (N,) which set of animals, rising.
    spread, own, floor : (N,) relative spread between animals, measurement error of one animal, and least error.
    sigma : (N,) standard deviation of one animal's reading; alike : correlation of an animal's rows.
    animals : names by set and animal; away : each set's (m, k) deviations of its animals from their means.
    """

    arm: IntArray
    organ: IntArray
    time: IntArray
    times: FloatArray
    value: FloatArray
    members: FloatArray
    group: IntArray
    spread: FloatArray
    own: FloatArray
    floor: FloatArray
    sigma: FloatArray
    alike: float
    animals: tuple[tuple[str, ...], ...]
    away: tuple[FloatArray, ...]

    @property
    def size(self) -> int:
        """Number of means."""
        return int(self.value.size)

    @property
    def readings(self) -> int:
        """Number of readings behind them."""
        return int(self.members.sum())

    @property
    def time_h(self) -> FloatArray:
        """When each mean was sampled, hours (N,)."""
        return np.asarray(self.times[self.arm, self.time])

    @cached_property
    def first(self) -> IntArray:
        """Where each set begins."""
        return np.flatnonzero(np.r_[True, self.group[1:] != self.group[:-1]])

    def weighed(self, y: FloatArray) -> Rows:
        """Return the rows with standard deviations taken from their expectation (N,)."""
        return replace(self, sigma=np.sqrt((self.spread * y) ** 2 + self.own**2 + self.floor**2))

    def decorrelated(self, r: FloatArray, keep: FloatArray) -> FloatArray:
        """Return residuals (..., N) of means, in standard deviations of one animal, as independent ones of unit variance.

        Parameters
        ----------
        r : (..., N); keep : (..., N) 0 for rows that are left out; else 1, or less where animals of the set are.

        Notes
        -----
        The inverse root of a correlation matrix that has one value off its diagonal.
        """
        used = keep > 0
        r = r * (np.sqrt(self.members) * keep)
        if not self.alike:
            return r
        rows = np.add.reduceat(used.astype(float), self.first, axis=-1)
        total = np.add.reduceat(r, self.first, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(
                rows > 0, (1 - np.sqrt((1 - self.alike) / (1 - self.alike + rows * self.alike))) / rows, 0.0
            )
        return np.asarray((r - (part * total)[..., self.group] * used) / np.sqrt(1 - self.alike))

    @property
    def pure(self) -> tuple[float, int]:
        """Sum of squares of animals about their means, as the weights see it, and its degrees of freedom."""
        cost, free = 0.0, 0
        for first, d in zip(self.first, self.away, strict=True):
            z = d / self.sigma[first : first + d.shape[1]]
            shared = self.alike / (1 - self.alike + d.shape[1] * self.alike)
            cost += float((z**2).sum() - shared * (z.sum(axis=1) ** 2).sum()) / (1 - self.alike)
            free += (d.shape[0] - 1) * d.shape[1]
        return cost, free

    def without_animal(self, group: int, animal: int) -> tuple[FloatArray, FloatArray]:
        """Return values (N,) and `keep` (N,) with one animal of a set left out."""
        mine, away = self.group == group, self.away[group]
        m = len(away)
        value, keep = self.value.copy(), np.ones(self.size)
        keep[mine] = np.sqrt((m - 1) / m)
        if m > 1:
            value[mine] -= away[animal] / (m - 1)
        return value, keep


def lay_out(arms: Sequence[Arm], seen: RateGraph) -> Rows:
    """Return the rows of all arms.

    Parameters
    ----------
    arms : with their data; seen : the model as a label shows it, whose observations number the organs.
    """
    own_times = [np.unique(a.data.time_h) for a in arms]
    T = max(len(t) for t in own_times)
    columns: dict[str, list[Any]] = {
        k: [] for k in ("arm", "organ", "time", "value", "members", "group", "spread", "own", "floor")
    }
    animals: list[tuple[str, ...]] = []
    away: list[FloatArray] = []
    expected: list[FloatArray] = []
    for a, (arm, t) in enumerate(zip(arms, own_times, strict=True)):
        d = arm.data
        which = np.array([seen.seen.index(o) for o in d.seen])[d.which]
        when = np.searchsorted(t, d.time_h)
        largest = np.zeros(len(d.seen))
        np.maximum.at(largest, d.which, np.abs(d.mean))
        for rows in _alike_sets(which, when, d.count, d.animal):
            value, k = d.value[rows], rows.shape[1]
            one = rows[0]
            mine = {"arm": np.full(k, a), "organ": which[one], "time": when[one], "value": value.mean(axis=0),
                    "members": np.full(k, float(len(rows))), "group": np.full(k, len(away)),
                    "spread": d.cv[d.which[one]] / np.sqrt(d.count[one]), "own": np.sqrt((d.se[rows] ** 2).mean(axis=0)),
                    "floor": FLOOR * largest[d.which[one]]}  # fmt: skip
            for name, values in mine.items():
                columns[name].append(values)
            animals.append(tuple(arm.animals[d.animal[r[0]]] for r in rows))
            away.append(value - value.mean(axis=0))
            expected.append(d.mean[one])
    flat = {k: np.concatenate(v) for k, v in columns.items()}
    times = np.stack([np.r_[t, np.full(T - len(t), t[-1])] for t in own_times])
    level = np.concatenate(expected)
    sigma = np.sqrt((flat["spread"] * level) ** 2 + flat["own"] ** 2 + flat["floor"] ** 2)
    first = np.flatnonzero(np.r_[True, flat["group"][1:] != flat["group"][:-1]])
    z = [d / sigma[i : i + d.shape[1]] * (len(d) / max(len(d) - 1, 1)) ** 0.5 for i, d in zip(first, away, strict=True)]
    alike = likeness(np.concatenate([x.ravel() for x in z]), _numbered([x.shape for x in z]))
    return Rows(**flat, times=times, sigma=sigma, alike=min(alike, _ALIKE), animals=tuple(animals), away=tuple(away))


def _alike_sets(which: IntArray, when: IntArray, count: FloatArray, animal: NDArray[np.int64]) -> list[IntArray]:
    """Return the rows (m, k) of each set of m animals with the same k organs and times."""
    sets: dict[bytes, list[IntArray]] = {}
    order = np.lexsort((which, when, animal))
    for rows in np.split(order, np.flatnonzero(np.diff(animal[order])) + 1):
        key = np.stack([which[rows], when[rows], count[rows].astype(np.int64)]).tobytes()
        sets.setdefault(key, []).append(rows)
    return [np.stack(rows) for rows in sets.values()]


def _numbered(shapes: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Return the number of the animal behind each deviation."""
    out, last = [], 0
    for m, k in shapes:
        out.append(last + np.repeat(np.arange(m), k))
        last += m
    return np.concatenate(out)
