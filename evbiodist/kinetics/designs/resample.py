"""Intervals from the animals themselves: draw animals again, within their time point or batch, and look at the spread.

With three to five animals a time such draws spread too little by sqrt((n - 1) / n), which is put right here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.designs.batch_design import AnimalMeans
from evbiodist.kinetics.designs.mean_curve import Floats, area_flags
from evbiodist.study.estimate import Estimate

#: A quantity of a study: from (R, N, ...) resampled animals to (R,) values, NaN where it does not exist.
Statistic = Callable[[Floats], Floats]

#: Kinds of interval, by name.
INTERVALS = {
    "percentile": "quantiles of the draws",
    "basic": "quantiles of the draws, reflected at the estimate",
    "t": "quantiles of the draws' errors, each in units of its own standard error",
    "bca": "quantiles of the draws, corrected for bias and skewness",
}
_BLOCK = 4_000_000  # numbers held at once
_MISSING = 0.05  # share of draws that may have no value


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """An estimate with the draws around it.

    Parameters
    ----------
    value : of the animals as they are; se : standard error with the small-n correction.
    draws : (R,) values of the drawn studies, stretched about `value` by `stretch`; those without a value are left out.
    studentised : (R,) (draw - value) / its standard error, unstretched; infinite for draws that took the same animals
        again and again and so have no error; None without an `error` function.
    error : standard error of the animals as they are, by the `error` function; NaN without one.
    skewness : acceleration of the bca interval.
    stretch : sqrt(n / (n - 1)), over strata weighed by what they add to the variance.
    animals, lost : number of animals; share of the draws without a value.
    reason : why there are no intervals; empty otherwise.
    """

    value: float
    se: float
    draws: Floats
    studentised: Floats | None
    error: float
    skewness: float
    stretch: float
    animals: int
    lost: float
    reason: str

    def interval(self, kind: str = "t", level: float = 0.95) -> tuple[float, float]:
        """Return the bounds of an interval; NaN where there is none, infinite where it is open.

        It is open for ``t`` when too many draws took one animal all the time, as with three animals at every time.

        Parameters
        ----------
        kind : a key of `INTERVALS`.
        level : its level.

        Raises
        ------
        ValueError : an unknown kind, ``t`` without an `error` function, a level that is not between 0 and 1.
        """
        if kind not in INTERVALS:
            raise ValueError(f"interval has '{kind}', expected one of {', '.join(INTERVALS)}")
        if not 0 < level < 1:
            raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if kind == "t":
            return self._studentised_bounds(tails)
        if self.reason:
            return math.nan, math.nan
        low, high = np.quantile(self.draws, self._corrected(tails) if kind == "bca" else tails)
        if kind == "basic":
            low, high = 2 * self.value - high, 2 * self.value - low
        return float(low), float(high)

    def _studentised_bounds(self, tails: Floats) -> tuple[float, float]:
        if self.studentised is None:
            raise ValueError("interval has 't' without a standard error of each draw; give error=..., or another kind")
        if self.reason or math.isnan(self.error):
            return math.nan, math.nan
        low, high = np.quantile(self.studentised, tails, method="inverted_cdf") * self.error
        return self.value - float(high), self.value - float(low)

    def _corrected(self, tails: Floats) -> Floats:
        """Return the bca quantiles: Efron B (1987) J Am Stat Assoc 82:171-185."""
        from scipy.special import ndtr, ndtri

        below = np.mean(self.draws < self.value) + np.mean(self.draws == self.value) / 2
        z0 = ndtri(np.clip(below, 1 / self.draws.size, 1 - 1 / self.draws.size))
        z = z0 + ndtri(tails)
        corrected: Floats = ndtr(z0 + z / (1 - self.skewness * z))
        return corrected

    def estimate(self, name: str, kind: str = "t", level: float = 0.95, unit: str = "") -> Estimate:
        """Return the estimate with one of its intervals.

        Raises
        ------
        ValueError : as `interval`.
        """
        bounds = self.interval(kind, level)
        low, high = (b if math.isfinite(b) else math.nan for b in bounds)
        reason = self.reason
        if any(map(math.isinf, bounds)):
            reason = "the interval is open: too many draws took one animal all the time"
        elif not reason and math.isnan(low):
            reason = "the animals as they are have no standard error, so no t interval"
        return Estimate(
            name,
            self.value,
            self.se,
            low,
            high,
            unit=unit,
            method=f"bootstrap of animals, {kind} interval, {self.draws.size} draws",
            n=self.animals,
            flags=area_flags(self.value, self.se, self.animals),
            reason=reason,
        )


def bootstrap(
    values: ArrayLike,
    statistic: Statistic,
    *,
    seed: int,
    error: Statistic | None = None,
    strata: Sequence[Any] | None = None,
    draws: int = 2000,
    small_n: bool = True,
) -> Bootstrap:
    """Draw the animals of a study again and again, within their strata, and collect a quantity of each draw.

    Parameters
    ----------
    values : (N, ...) one row an animal (by time, by organ and time, ...); NaN where it was not sampled.
    statistic : from (R, N, ...) to (R,): of `area_of_means`, `ratio_of_means`, `nca_of_means`, or one's own.
    seed : of the random numbers; the same seed gives the same result.
    error : standard error of the statistic, from (R, N, ...) to (R,); needed for the interval ``t``.
    strata : (N,) animals are drawn among those of the same stratum; without it, among those with samples in the same
        places (a time point of serial sacrifice, a batch).
    draws : number of drawn studies.
    small_n : stretch the draws by sqrt(n / (n - 1)), which makes the variance of a mean unbiased.

    Returns
    -------
    Bootstrap : `Bootstrap.interval` gives bounds by name, `Bootstrap.estimate` an `Estimate`.

    Raises
    ------
    ValueError : no animals, strata of another length, a statistic of the wrong shape, fewer than 100 draws.

    Examples
    --------
    >>> animals = np.array([[8, np.nan], [6, np.nan], [7, np.nan], [np.nan, 2], [np.nan, 4], [np.nan, 3]])
    >>> area, error = area_of_means([1, 1])
    >>> found = bootstrap(animals, area, error=error, seed=1, draws=4000)
    >>> found.value, round(found.se, 2), round(found.stretch, 4)
    (10.0, 0.82, 1.2247)

    Notes
    -----
    Efron B, Tibshirani RJ (1993) An Introduction to the Bootstrap; influence values of several samples: Davison AC,
    Hinkley DV (1997) Bootstrap Methods and their Application, sections 3.2 and 5.3.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.ndim < 2 or not y.size:
        raise ValueError(f"values has shape {y.shape}, expected animals by times; give one row for each animal")
    if draws < 100:
        raise ValueError(f"draws has {draws}, expected at least 100; 2000 suit an interval of 95 %")
    stratum = _strata(y, strata)
    sizes = np.bincount(stratum)
    value = float(_called(statistic, y[None], "statistic")[0])
    if math.isnan(value):
        return _without(value, len(y), "the quantity does not exist for these animals")
    if sizes.min() < 2:
        return _without(value, len(y), "there is a time or batch of one animal, so nothing to draw from")
    influence = _influence(y, statistic, stratum, sizes)
    share = np.bincount(stratum, influence**2) / sizes.astype(np.float64) ** 2
    total = float(share.sum())
    stretch = math.sqrt(float((share * sizes / (sizes - 1)).sum()) / total) if small_n and total > 0 else 1.0
    cubes = float((np.bincount(stratum, influence**3) / sizes.astype(np.float64) ** 3).sum())
    skewness = cubes / (6 * total**1.5) if total > 0 else 0.0
    drawn, errors = _draw(y, statistic, error, stratum, sizes, draws, np.random.default_rng(seed))
    there = np.isfinite(drawn)
    lost = 1 - float(there.mean())
    if not there.any():
        return _without(value, len(y), "the quantity exists in none of the draws")
    stretched = value + stretch * (drawn[there] - value)
    own, studentised = math.nan, None
    if errors is not None and error is not None:
        own = float(_called(error, y[None], "error")[0])
        good = there & np.isfinite(errors)
        off, spread = drawn[good] - value, errors[good]
        flat = spread <= 1e-9 * own  # one animal all the time: no error but for rounding
        endless = np.copysign(np.inf, off) if own > 0 else np.zeros_like(off)
        studentised = np.where(flat, endless, off / np.where(flat, 1.0, spread))
        lost = max(lost, 1 - float(good.mean()))
    reason = "" if lost <= _MISSING else f"the quantity does not exist in {lost:.0%} of the draws, so no interval"
    return Bootstrap(
        value, float(stretched.std()), stretched, studentised, own, skewness, stretch, len(y), lost, reason
    )


def _without(value: float, animals: int, reason: str) -> Bootstrap:
    nothing = np.empty(0)
    return Bootstrap(value, math.nan, nothing, nothing, math.nan, 0.0, 1.0, animals, 1.0, reason)


def _strata(y: Floats, strata: Sequence[Any] | None) -> NDArray[np.intp]:
    """Number the stratum of each animal from 0, (N,)."""
    if strata is None:
        places = np.isnan(y).reshape(len(y), -1)
        return np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)
    if len(strata) != len(y):
        raise ValueError(f"strata has {len(strata)} entries, expected {len(y)}; give one for each animal")
    return np.unique(np.asarray(strata).astype(str), return_inverse=True)[1]


def _called(function: Statistic, y: Floats, field: str) -> Floats:
    found = np.asarray(function(y), dtype=np.float64)
    if found.shape != y.shape[:1]:
        raise ValueError(
            f"{field} gives shape {found.shape} for {len(y)} studies, expected ({len(y)},); it must keep the first axis"
        )
    return found


def _influence(y: Floats, statistic: Statistic, stratum: NDArray[np.intp], sizes: NDArray[np.intp]) -> Floats:
    """Return how much each animal pulls the statistic, (N,): (n - 1) times what leaving it out changes."""
    left_out = np.repeat(y[None], len(y), axis=0)
    left_out[np.arange(len(y)), np.arange(len(y))] = np.nan
    values = _called(statistic, left_out, "statistic")
    centre = np.bincount(stratum, values) / sizes
    pulled: Floats = (sizes[stratum] - 1) * (centre[stratum] - values)
    return np.where(np.isfinite(pulled), pulled, 0.0)


def _draw(
    y: Floats,
    statistic: Statistic,
    error: Statistic | None,
    stratum: NDArray[np.intp],
    sizes: NDArray[np.intp],
    draws: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats | None]:
    """Return the statistic, and its error, of drawn studies, (R,)."""
    chosen = np.empty((draws, len(y)), dtype=np.intp)
    for k, size in enumerate(sizes):
        members = np.flatnonzero(stratum == k)
        chosen[:, members] = members[rng.integers(0, size, (draws, size))]
    step = max(1, _BLOCK // y.size)
    found, errors = [], []
    for i in range(0, draws, step):
        block = y[chosen[i : i + step]]
        found.append(_called(statistic, block, "statistic"))
        if error is not None:
            errors.append(_called(error, block, "error"))
    return np.concatenate(found), np.concatenate(errors) if errors else None


def mean_of_animals(values: ArrayLike) -> Floats:
    """Return means over the animals of (..., N, C) values, leaving out NaN; NaN where no animal is left.

    Examples
    --------
    >>> mean_of_animals([[2, np.nan], [4, np.nan]]).tolist()
    [3.0, nan]
    """
    y = np.asarray(values, dtype=np.float64)
    seen = ~np.isnan(y)
    count = seen.sum(axis=-2)
    total = np.where(seen, y, 0.0).sum(axis=-2)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def area_of_means(weights: ArrayLike) -> tuple[Statistic, Statistic]:
    """Return the statistic that is a weighted sum of means, and its standard error, for `bootstrap`.

    Parameters
    ----------
    weights : (...) as an animal's row of the table: the hours of `evbiodist.kinetics.designs.sparse.SparseAuc` for an area.

    Examples
    --------
    >>> area, error = area_of_means([1, 2])
    >>> study = np.array([[[4.0, 2], [6, 4]]])
    >>> area(study).tolist(), error(study).tolist()
    ([11.0], [3.0])
    """
    w = np.ravel(np.asarray(weights, dtype=np.float64))

    def area(values: Floats) -> Floats:
        total: Floats = _weighed(mean_of_animals(_flat(values)), w)
        return total

    def error(values: Floats) -> Floats:
        return np.sqrt(np.maximum(AnimalMeans.of(_flat(values)).covariance(w, w), 0.0))

    return area, error


def ratio_of_means(over: ArrayLike, under: ArrayLike) -> tuple[Statistic, Statistic]:
    """Return the statistic that is a ratio of weighted sums of means, and its standard error, for `bootstrap`.

    Parameters
    ----------
    over, under : (...) weights as an animal's row of the table, such as those of tissue and of blood, 0 elsewhere.

    Examples
    --------
    >>> ratio, error = ratio_of_means([[1, 1], [0, 0]], [[0, 0], [1, 1]])  # rows of (tissue, blood) by time
    >>> study = np.array([[[[2.0, 1], [4, 2]], [[3, 2], [5, 4]]]])
    >>> ratio(study).round(4).tolist(), error(study).round(4).tolist()
    ([0.5333], [0.0267])
    """
    a, b = (np.ravel(np.asarray(w, dtype=np.float64)) for w in (over, under))

    def ratio(values: Floats) -> Floats:
        mean = mean_of_animals(_flat(values))
        return _weighed(mean, a) / _weighed(mean, b)

    def error(values: Floats) -> Floats:
        means = AnimalMeans.of(_flat(values))
        below = _weighed(means.mean, b)
        form = a - (_weighed(means.mean, a) / below)[..., None] * b
        return np.sqrt(np.maximum(means.covariance(form, form), 0.0)) / np.abs(below)

    return ratio, error


def _flat(values: Floats) -> Floats:
    return values.reshape(*values.shape[:2], -1)


def _weighed(mean: Floats, weights: Floats) -> Floats:
    """Sum of means by weight, (...); a mean that does not count may be missing."""
    total: Floats = np.where(weights == 0, 0.0, mean * weights).sum(axis=-1)
    return total


def nca_of_means(time_h: ArrayLike, parameter: str, **settings: Any) -> Statistic:
    """Return the statistic that is a non-compartmental parameter of the mean curve, for `bootstrap`.

    Parameters
    ----------
    time_h : (T,) hours.
    parameter : a name of `evbiodist.kinetics.nca.parameters.PARAMETERS`.
    settings : those of `evbiodist.kinetics.nca.nca.nca_batch`; every draw chooses its own terminal line unless
        `lambda_z_points` says otherwise.

    Examples
    --------
    >>> curve = np.array([[8.0, 4, 2, 1], [10, 5, 2.5, 1.25], [6, 3, 1.5, 0.75]])
    >>> found = bootstrap(curve, nca_of_means([0, 1, 2, 3], "half_life"), seed=1, draws=200)
    >>> round(found.value, 6), round(found.se, 6)
    (1.0, 0.0)
    """
    t = np.asarray(time_h, dtype=np.float64)

    def statistic(values: Floats) -> Floats:
        from evbiodist.kinetics.nca.nca import nca_batch

        means = mean_of_animals(values)
        table = nca_batch(np.where(np.isnan(means), np.nan, t), means, **settings)
        return table.values[parameter]

    return statistic
