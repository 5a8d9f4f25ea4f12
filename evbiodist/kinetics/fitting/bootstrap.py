"""Intervals of a fit by refitting: animals drawn again, residuals drawn again, or new animals from the model.

All drawn studies are refitted in one batched search. Three animals a time vary too little when drawn with replacement,
by sqrt((n - 1) / n), which is put right here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.optimum import Optimum
from evbiodist.kinetics.fitting.profile import Asked, asked_of
from evbiodist.kinetics.fitting.search import Spread, search
from evbiodist.kinetics.fitting.simulate import simulate
from evbiodist.study.estimate import Estimate
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_BLOCK = 2_000_000  # numbers of sensitivities held at once
_LOST = 0.05  # share of draws without a fit from which there is no interval
_LEVERAGE = 0.95  # a row that fits itself says nothing about its error
INTERVALS = {"percentile": "quantiles of the refits", "bca": "quantiles corrected for bias and skewness"}


class _Drawn(NamedTuple):
    """Drawn studies: which rows (R, N), -1 as padding, and their values (R, N)."""

    rows: IntArray
    value: FloatArray


@dataclass(frozen=True, eq=False)
class FitBootstrap:
    """The refits of drawn studies.

    Parameters
    ----------
    kind : a key of `KINDS`; names, units : of the quantities.
    value : (k,) of the fit; draws : (R, k) of the refits, stretched for small numbers of animals.
    acceleration : (k,) skewness of the animals' influence, for bca; lost : share of draws without a fit.
    level, n : of the intervals; values the fit rests on.
    """

    kind: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    value: FloatArray
    draws: FloatArray
    acceleration: FloatArray
    lost: float
    level: float
    n: int

    @property
    def se(self) -> FloatArray:
        """Standard errors (k,)."""
        return np.asarray(self.draws.std(axis=0, ddof=1))

    def interval(self, name: str, method: str = "percentile", level: float | None = None) -> tuple[float, float]:
        """Return an interval of one quantity.

        Raises
        ------
        ValueError : a name or a method that is not known.
        """
        if method not in INTERVALS or name not in self.names:
            word, known = (method, tuple(INTERVALS)) if method not in INTERVALS else (name, self.names)
            raise ValueError(f"'{word}' is not among {', '.join(known)}; {nearest(word, list(known))}")
        k = self.names.index(name)
        tails = np.array([0.5 - (level or self.level) / 2, 0.5 + (level or self.level) / 2])
        if method == "bca":
            tails = _bca(tails, self.draws[:, k], self.value[k], self.acceleration[k])
        low, high = np.quantile(self.draws[:, k], tails)
        return float(low), float(high)

    def estimates(self, method: str = "percentile") -> tuple[Estimate, ...]:
        """Return values with bootstrap standard errors and intervals."""
        out = []
        for name, unit, value, se in zip(self.names, self.units, self.value, self.se, strict=True):
            flags = ("imprecise",) if se >= 0.5 * abs(value) else ()
            low, high = self.interval(name, method)
            out.append(Estimate(name, float(value), float(se), low, high, unit, f"least squares, {self.kind} bootstrap, {method}",
                                self.n, flags))  # fmt: skip
        return tuple(out)


def bootstrap_fit(
    found: FitResult,
    names: Sequence[str] | None = None,
    *,
    kind: str = "case",
    draws: int = 1000,
    seed: int | np.random.Generator,
) -> FitBootstrap:
    """Refit a model to drawn studies.

    Parameters
    ----------
    found : a fit.
    names : of free parameters and derived quantities; all of them if None.
    kind : a key of `KINDS`.
    draws : number of drawn studies; seed : where chance comes from, so that a result can be had again.

    Returns
    -------
    FitBootstrap

    Raises
    ------
    ValueError : an unknown kind, or a study that cannot be drawn from, in words.

    Notes
    -----
    Every refit starts at the fit and renews its weights; the relative spread between animals stays that of the study.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4, 5], [8.1, 4.0, 1.9, 1.02, 0.5]), "one_compartment_iv", dose=16)
    >>> b = bootstrap_fit(found, ["cl"], kind="residual", draws=200, seed=1)
    >>> low, high = b.interval("cl")
    >>> bool(low < found["cl"].value < high)
    True

    Davison AC, Hinkley DV (1997) Bootstrap Methods and their Application, ch. 5-7; Bonate PL (1998) J Biopharm Stat 8:115
    for animals within times.
    """
    if kind not in KINDS:
        raise ValueError(f"kind has '{kind}', expected one of {', '.join(KINDS)}; {nearest(kind, list(KINDS))}")
    if draws < 2:
        raise ValueError(f"draws has {draws}, expected 2 or more; 1000 give an interval's ends to some percent")
    o, rng = Optimum.of(found), np.random.default_rng(seed)
    asked = asked_of(found, names)
    drawn = KINDS[kind](found, o, draws, rng)
    u = _refitted(found, o, drawn)
    fine = np.isfinite(u).all(axis=1)
    lost = 1 - float(fine.mean())
    if lost > _LOST:
        raise ValueError(f"{100 * lost:.0f} % of the drawn studies could not be fitted, so the others do not speak for all; "
                         "use profile likelihood, or a model with fewer parameters")  # fmt: skip
    influence = _influence(found, o, asked)
    stretch, skewness = np.ones(len(asked)), _skewness(influence)
    if kind == "case":
        stretch, skewness = _small_numbers(influence, _strata(found))
    natural = []
    for k, a in enumerate(asked):
        start, c = a.coordinate(o.u[None])[0][0], a.coordinate(u[fine])[0]
        natural.append(a.natural(start + stretch[k] * (c - start)))
    values = np.array([float(a.natural(a.coordinate(o.u[None])[0][0])) for a in asked])
    return FitBootstrap(kind, tuple(a.name for a in asked), tuple(a.unit for a in asked), values, np.stack(natural, axis=1),
                        skewness, lost, found.level, int(found.data.count.sum()))  # fmt: skip


def _cases(found: FitResult, o: Optimum, draws: int, rng: np.random.Generator) -> _Drawn:
    """Draw animals among those with the same sampling times."""
    strata = _strata(found)
    rows_of = [np.flatnonzero(found.data.animal == a) for a in range(len(strata))]
    for k in np.unique(strata):
        members = np.flatnonzero(strata == k)
        if len(members) < 2:
            when = ", ".join(f"{t:g}" for t in np.unique(found.data.time_h[rows_of[members[0]]])[:4])
            raise ValueError(f"only one animal was sampled at {when} h, so animals cannot be drawn again there; "
                             "use kind = 'residual' or 'parametric'")  # fmt: skip
    longest = max(len(r) for r in rows_of)
    padded = np.full((len(rows_of), longest), -1, dtype=np.intp)
    for a, rows in enumerate(rows_of):
        padded[a, : len(rows)] = rows
    chosen = np.empty((draws, len(strata)), dtype=np.intp)
    for k in np.unique(strata):
        members = np.flatnonzero(strata == k)
        chosen[:, members] = members[rng.integers(0, len(members), (draws, len(members)))]
    drawn = padded[chosen].reshape(draws, -1)
    return _Drawn(drawn, np.where(drawn >= 0, found.data.value[drawn], np.nan))


def _residuals(found: FitResult, o: Optimum, draws: int, rng: np.random.Generator) -> _Drawn:
    """Put residuals, freed of what the fit took from them, on other rows; those of one animal at one time stay together."""
    _no_limits(found)
    data, sigma = found.data, found.problem.sigma[0]
    hat = np.einsum("nq,qr,nr->n", o.sensitivity, o.inverse, o.sensitivity)
    log = found.settings.scale == "log"
    off = np.log(data.value / o.predicted) * data.value if log else data.value - o.predicted
    e = off / sigma / np.sqrt(1 - np.clip(hat, 0.0, _LEVERAGE))
    for i in range(len(data.seen)):
        e[data.which == i] -= e[data.which == i].mean()
    visits: dict[tuple[int, float], list[int]] = {}
    for row, key in enumerate(zip(data.animal.tolist(), data.time_h.tolist(), strict=True)):
        visits.setdefault(key, []).append(row)
    alike: dict[tuple[int, ...], list[list[int]]] = {}
    for rows in visits.values():
        rows = sorted(rows, key=lambda r: int(data.which[r]))
        alike.setdefault(tuple(data.which[rows].tolist()), []).append(rows)
    drawn = np.empty((draws, len(e)))
    for group in alike.values():
        block = np.array(group)
        drawn[:, block] = e[block][rng.integers(0, len(block), (draws, len(block)))]
    value = o.predicted * np.exp(sigma / data.value * drawn) if log else o.predicted + sigma * drawn
    return _Drawn(np.broadcast_to(np.arange(len(e)), drawn.shape), value)


def _parametric(found: FitResult, o: Optimum, draws: int, rng: np.random.Generator) -> _Drawn:
    """Draw new animals from the model."""
    _no_limits(found)
    value = simulate(found, draws, rng)
    return _Drawn(np.broadcast_to(np.arange(value.shape[1]), value.shape), value)


#: How studies are drawn, by name.
KINDS: dict[str, Callable[[FitResult, Optimum, int, np.random.Generator], _Drawn]] = {
    "case": _cases,
    "residual": _residuals,
    "parametric": _parametric,
}


def _no_limits(found: FitResult) -> None:
    if found.data.censored.any():
        raise ValueError("values below the limit of quantification have no residual to draw; use kind = 'case'")


def _strata(found: FitResult) -> IntArray:
    """Return which animals were sampled at the same times, (animals,)."""
    animal, time = found.data.animal, found.data.time_h
    schedules = [tuple(np.unique(time[animal == a])) for a in range(int(animal.max()) + 1)]
    number = {s: i for i, s in enumerate(sorted(set(schedules)))}
    return np.array([number[s] for s in schedules], dtype=np.intp)


def _refitted(found: FitResult, o: Optimum, drawn: _Drawn) -> FloatArray:
    """Return the free coordinates of every drawn study, (R, q); NaN where there is no fit."""
    size = max(1, _BLOCK // (drawn.rows.shape[1] * max(len(o.u), 4)))
    parts = [_Drawn(drawn.rows[i : i + size], drawn.value[i : i + size]) for i in range(0, len(drawn.rows), size)]
    return np.concatenate([_refit(found, o, part) for part in parts])


def _refit(found: FitResult, o: Optimum, drawn: _Drawn) -> FloatArray:
    data, p = found.data, found.problem
    rows, used = np.where(drawn.rows >= 0, drawn.rows, 0), drawn.rows >= 0
    place = np.broadcast_to(p.place, p.value.shape)[0][rows]
    censored = None if p.censored is None else p.censored[0][rows] & used
    problem = replace(
        p, place=place, value=np.where(used, drawn.value, np.nan), sigma=np.ones(rows.shape), censored=censored
    )
    size = len(rows)
    largest = np.zeros(len(data.seen))
    np.maximum.at(largest, data.which, np.abs(data.mean))
    se = data.se[rows]
    if found.settings.scale == "log":  # errors on the logarithm stay as they are when the value is another
        se = se * np.where(used, drawn.value, 1.0) / data.value[rows]
    spread = Spread(data.which[rows].astype(np.intp), se, data.systematic[rows], data.count[rows],
                    np.tile(data.cv, (size, 1)), np.tile(largest, (size, 1)))  # fmt: skip
    starts = np.broadcast_to(found.theta, (1, size, len(found.theta)))
    with np.errstate(all="ignore"):
        ended = search(problem, spread, o.predicted[rows], starts, replace(found.settings, tries=1, scattered=0))
    return np.where(np.isfinite(ended.cost)[:, None], ended.u, np.nan)


def _influence(found: FitResult, o: Optimum, asked: Sequence[Asked]) -> FloatArray:
    """Return by how much each animal moves each quantity's coordinate, to first order, (animals, k)."""
    by_row = -(o.sensitivity * o.residual[:, None]) @ o.inverse
    animals = int(found.data.animal.max()) + 1
    by_animal = np.stack([np.bincount(found.data.animal, weights=c, minlength=animals) for c in by_row.T], axis=1)
    return np.asarray(by_animal @ np.stack([a.coordinate(o.u[None])[1][0] for a in asked], axis=1))


def _skewness(influence: FloatArray) -> FloatArray:
    L = influence - influence.mean(axis=0)
    size = np.maximum(np.sum(L**2, axis=0), 1e-300)
    return np.asarray(np.sum(L**3, axis=0) / (6 * size**1.5))


def _small_numbers(influence: FloatArray, strata: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return by what draws are to be stretched, sqrt(n / (n - 1)) over strata by what they add, and the skewness."""
    variance, whole = np.zeros(influence.shape[1]), np.zeros(influence.shape[1])
    centred = influence.copy()
    for k in np.unique(strata):
        members = strata == k
        centred[members] -= influence[members].mean(axis=0)
        own = np.sum(centred[members] ** 2, axis=0)
        variance += own
        whole += own * members.sum() / (members.sum() - 1)
    return np.sqrt(whole / np.maximum(variance, 1e-300)), _skewness(centred)


def _bca(tails: FloatArray, draws: FloatArray, value: float, acceleration: float) -> FloatArray:
    """Return the quantiles at which the bias-corrected and accelerated interval reads the draws (Efron 1987)."""
    from scipy.special import ndtr, ndtri

    share = float(np.clip(np.mean(draws < value), 0.5 / len(draws), 1 - 0.5 / len(draws)))
    z0, z = ndtri(share), ndtri(tails)
    return np.asarray(ndtr(z0 + (z0 + z) / (1 - acceleration * (z0 + z))))
