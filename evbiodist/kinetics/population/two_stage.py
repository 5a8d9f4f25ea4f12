"""Two stages: every animal's own curve first, then the population of their parameters.

The standard way takes means and standard deviations of the animals' estimates; the global way knows how well each animal
was measured, so that errors of estimation are not taken for differences between animals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.fitting.levenberg import covariance, identified, least_squares
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.population.laplace import inverse
from evbiodist.kinetics.population.population import AnimalModel, FloatArray, IntArray, PopulationData, pooled_start
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import Derived

#: How errors grow: with the prediction, or not at all.
WEIGHTS = ("proportional", "additive")
_ROUNDS = 6  # of weights from the fitted curves
_SCATTER, _TRIES, _SEED = 0.7, 4, 19841204  # starts of every animal around the pooled curve
_FLOOR = 1e-3  # of a matrix' largest value, under which predictions do not shrink errors any more
_MOST, _ENOUGH = 2_000, 1e-9
_NOWHERE = 2e-3  # a variance between animals below this share of the spread of estimates counts as 0


@dataclass(frozen=True, eq=False)
class OneByOne:
    """Every animal's own fit.

    Parameters
    ----------
    model : the curve; animals : names.
    u : (A, f) search coordinates of the free parameters; covariance : (A, f, f) theirs, NaN for failed fits.
    theta : (A, p) parameters.
    error : (O,) error of every observed matrix, pooled over animals: a fraction, or in the matrix' unit.
    kept : (A,) whether an animal's fit can be used; reason : why not, one sentence each, empty where it can.
    """

    model: AnimalModel
    animals: tuple[str, ...]
    u: FloatArray
    covariance: FloatArray
    theta: FloatArray
    error: FloatArray
    kept: NDArray[np.bool_]
    reason: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TwoStage:
    """A population from every animal's own fit.

    Parameters
    ----------
    standard, overall : estimates of the standard and the global two-stage method: typical values by the model's names
        and `omega_<parameter>`, the standard deviation between animals on the scale of the search (the logarithm of
        positive parameters).
    mean, omega, mean_covariance : (f,), (f, f), (f, f) of the global method, on the scale of the search.
    fits : the first stage.
    iterations : of the global method.
    """

    standard: tuple[Estimate, ...]
    overall: tuple[Estimate, ...]
    mean: FloatArray
    omega: FloatArray
    mean_covariance: FloatArray
    fits: OneByOne
    iterations: int

    def __getitem__(self, name: str) -> Estimate:
        """Return one estimate of the global method by name.

        Raises
        ------
        KeyError : no such name.
        """
        return {e.name: e for e in self.overall}[name]


def two_stage(
    graph: RateGraph, data: PopulationData, weights: str = "proportional", *, start: Mapping[str, float] | None = None,
    fixed: Mapping[str, float | None] | None = None, level: float = 0.95,
) -> TwoStage:  # fmt: skip
    """Fit each animal alone and describe the population, by the standard and by the global two-stage method.

    Parameters
    ----------
    graph : a model of first-order rates; data : animals with curves of their own.
    weights : `proportional` or `additive` errors, of one size for each observed matrix in all animals.
    start, fixed : as for `evbiodist.kinetics.population.mixed.mixed_effects`.
    level : of the intervals.

    Returns
    -------
    TwoStage : animals that failed are left out of both, with their reason in `fits`.

    Raises
    ------
    ValueError : fewer than two animals whose fit can be used, naming why; unknown words.

    Steimer, Mallet, Golmard & Boisvieux 1984, Drug Metab Rev 15:265; the global method here maximises the restricted
    likelihood, so that few animals do not make differences between them look small.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> from evbiodist.kinetics.models.inputs import Doses
    >>> t, animal = np.tile([0.1, 1.0, 3.0, 6.0], 3), np.repeat([0, 1, 2], 4)
    >>> seen = 10 * np.exp(-np.array([0.15, 0.2, 0.25])[animal] * t)
    >>> data = PopulationData(["a", "b", "c"], ["blood"], animal, animal * 0, t, seen, {"dose": Doses(100)})
    >>> [(e.name, round(e.value, 3)) for e in two_stage(build("one_compartment_iv"), data).standard]
    [('cl', 1.957), ('v', 10.0), ('omega_cl', 0.256), ('omega_v', 0.0)]
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level:g}, expected a share between 0 and 1 such as 0.95")
    fits = one_by_one(graph, data, weights, start=start, fixed=fixed)
    used = np.flatnonzero(fits.kept)
    if len(used) < 2:
        why = "; ".join(f"{a}: {r}" for a, r in zip(fits.animals, fits.reason, strict=True) if r)
        raise ValueError(f"two stages need two animals or more with a fit of their own, found {len(used)} ({why})")
    mean, omega, mean_cov, iterations = global_two_stage(fits.u[used], fits.covariance[used])
    spread = np.cov(fits.u[used].T, ddof=1).reshape(len(mean), len(mean))
    plain = _estimates(fits, np.mean(fits.u[used], axis=0), spread, spread / len(used), "standard two-stage", level)
    overall = _estimates(fits, mean, omega, mean_cov, "global two-stage", level)
    return TwoStage(plain, overall, mean, omega, mean_cov, fits, iterations)


def one_by_one(
    graph: RateGraph, data: PopulationData, weights: str = "proportional", *, start: Mapping[str, float] | None = None,
    fixed: Mapping[str, float | None] | None = None,
) -> OneByOne:  # fmt: skip
    """Fit every animal's own curve, all at once, with errors of one size in all animals.

    Parameters
    ----------
    graph, data, weights, start, fixed : see `two_stage`.

    Returns
    -------
    OneByOne : failed animals carry their reason. Rows below their limit are left out, which `mixed_effects` does not do.

    Raises
    ------
    ValueError : unknown words or names.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}, expected one of {', '.join(WEIGHTS)}")
    model = AnimalModel.of(graph, data, fixed)
    begin = pooled_start(model) if start is None else model.coordinates(start)
    low, high = model.bounds
    rng = np.random.default_rng(_SEED)
    crowd, size = len(data.animals), len(model.free)
    tries = begin + _SCATTER * rng.standard_normal((_TRIES, crowd, size)) * (np.arange(_TRIES) > 0)[:, None, None]
    weigh = _Weigh(model, weights, np.ones(len(data.seen)))
    u = _best(weigh, np.clip(tries, low, high))
    for _ in range(_ROUNDS):
        weigh = weigh.renewed(u)
        found = least_squares(weigh.residuals, u, low, high)
        u = found.x
    weigh = weigh.renewed(u)
    found = least_squares(weigh.residuals, u, low, high)
    cov = covariance(found, scaled=False)
    told = identified(found)
    reason = tuple(_reason(model, k, found.reason[k], told[k], found.at_bound[k]) for k in range(crowd))
    kept = np.array([not r for r in reason])
    cov[~kept] = np.nan
    return OneByOne(model, data.animals, found.x, cov, model.theta(found.x), weigh.error, kept, reason)


@dataclass(frozen=True, eq=False)
class _Weigh:
    """Residuals of every animal in units of their error, the error from the curves fitted last."""

    model: AnimalModel
    kind: str
    error: FloatArray  # (O,)
    sigma: FloatArray | None = None  # (A, M); from the values themselves before there is a curve

    def residuals(self, u: FloatArray, who: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return weighted residuals (B, M) and their derivatives (B, f, M)."""
        f, df = self.model.predict(u, who)
        rows = self.model.data.rows
        keep = (rows.real & ~rows.below) / (self._first() if self.sigma is None else self.sigma)
        return (f - rows.value[who]) * keep[who], df * keep[who][:, None]

    def _largest(self) -> FloatArray:
        rows = self.model.data.rows
        used = rows.real & ~rows.below
        largest = [np.max(np.abs(rows.value), where=used & (rows.which == k), initial=0.0)
                   for k in range(len(self.error))]  # fmt: skip
        return np.where(np.array(largest) > 0, largest, 1.0)[rows.which]

    def _first(self) -> FloatArray:
        rows = self.model.data.rows
        grow = np.abs(rows.value) if self.kind == "proportional" else 0.0
        return np.hypot(grow, (0.02 if self.kind == "proportional" else 1.0) * self._largest())

    def renewed(self, u: FloatArray) -> _Weigh:
        """Return it with errors from the curves at u, pooled over animals with as many degrees as are left."""
        rows, crowd = self.model.data.rows, len(u)
        f, _ = self.model.predict(u, np.arange(crowd), slopes=False)
        used = rows.real & ~rows.below & np.isfinite(f)
        grow = np.hypot(f, _FLOOR * self._largest()) if self.kind == "proportional" else np.ones_like(f)
        share = 1 - min(0.99, u.size / max(int(used.sum()), 1))  # parameters take their part of the scatter
        error = self.error.copy()
        for k in range(len(error)):
            here = used & (rows.which == k)
            if here.any():
                own = np.mean(((rows.value - f)[here] / grow[here]) ** 2) / share
                error[k] = math.sqrt(max(own - np.mean(rows.variance[here] / grow[here] ** 2), 1e-16))
        sigma = np.sqrt((error[rows.which] * grow) ** 2 + rows.variance)
        return replace(self, error=error, sigma=np.where(np.isfinite(sigma) & (sigma > 0), sigma, 1.0))


def _best(weigh: _Weigh, tries: FloatArray) -> FloatArray:
    """Return every animal's best of several starts (S, A, f)."""
    low, high = weigh.model.bounds
    cost, ends = [], []
    for start in tries:
        found = least_squares(weigh.residuals, start, low, high, xtol=1e-4, ftol=1e-4, max_iterations=50)
        cost.append(np.where(np.isfinite(found.cost), found.cost, np.inf))
        ends.append(found.x)
    best = np.argmin(cost, axis=0)
    return np.stack(ends)[best, np.arange(tries.shape[1])]


def _reason(model: AnimalModel, k: int, failed: str, told: NDArray[np.bool_], bound: NDArray[np.bool_]) -> str:
    """Return why an animal's fit cannot be used, or nothing."""
    rows, names = model.data.rows, model.names
    count = int((rows.real & ~rows.below)[k].sum())
    if count < len(names):
        return f"{count} values cannot determine {len(names)} parameters"
    if failed:
        return failed
    if not told.all():
        blind = ", ".join(n for n, t in zip(names, told, strict=True) if not t)
        return f"its values do not determine {blind}"
    if bound.any():
        return f"{', '.join(n for n, b in zip(names, bound, strict=True) if b)} ended at a bound"
    return ""


def global_two_stage(u: ArrayLike, covariances: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray, int]:
    """Return mean, covariance between animals, covariance of the mean, and iterations, by expectation maximisation.

    Parameters
    ----------
    u : (A, f) every animal's estimates; covariances : (A, f, f) of their errors.

    Returns
    -------
    tuple : (f,), (f, f), (f, f) and the number of iterations, of the restricted likelihood of
        u ~ N(mean, Omega + covariances).

    Raises
    ------
    ValueError : shapes that do not fit, fewer than two animals, numbers that are not finite.

    Examples
    --------
    >>> mean, omega, _, _ = global_two_stage([[1.0], [2.0], [3.0]], np.zeros((3, 1, 1)))
    >>> float(mean[0].round(6)), float(omega[0, 0].round(6))
    (2.0, 1.0)
    """
    x, C = np.asarray(u, dtype=np.float64), np.asarray(covariances, dtype=np.float64)
    if x.ndim != 2 or C.shape != (*x.shape, x.shape[1]) or len(x) < 2:
        raise ValueError(f"estimates have shape {x.shape} and covariances {C.shape}; expected (animals, parameters) with a "
                         "square matrix each, for two animals or more")  # fmt: skip
    if not (np.isfinite(x).all() and np.isfinite(C).all()):
        raise ValueError("estimates or covariances are not finite; leave failed animals out")
    size = np.sqrt(np.maximum(np.var(x, axis=0, ddof=1) + np.mean(np.diagonal(C, axis1=1, axis2=2), axis=0), 1e-300))
    x, C = x / size, C / np.outer(size, size)
    omega = np.cov(x.T, ddof=1).reshape(x.shape[1], -1) + 1e-12 * np.eye(x.shape[1])
    for iteration in range(1, _MOST + 1):  # noqa: B007  reported
        weight = inverse(C + omega)
        mean_cov = inverse(weight.sum(axis=0))
        mean = mean_cov @ np.einsum("aij,aj->i", weight, x)
        pull = omega @ weight
        own = np.einsum("aij,aj->ai", pull, x - mean)
        left = omega - pull @ omega + pull @ mean_cov @ pull.swapaxes(1, 2)
        new = (np.einsum("ai,aj->ij", own, own) + left.sum(axis=0)) / len(x)
        moved = float(np.abs(new - omega).max())
        omega = (new + new.T) / 2
        if moved < _ENOUGH:
            break
    return mean * size, omega * np.outer(size, size), mean_cov * np.outer(size, size), iteration


def _estimates(
    fits: OneByOne, mean: FloatArray, omega: FloatArray, mean_cov: FloatArray, method: str, level: float
) -> tuple[Estimate, ...]:
    """Return typical values with Student's intervals and standard deviations with those of chi-squared."""
    from scipy.special import chdtri

    model, n = fits.model, int(fits.kept.sum())
    reach, few = student(level, n - 1), ("few",) if n < 3 else ()
    out, tail = [], (1 - level) / 2
    for k, i in enumerate(model.free):
        p, se = model.graph.parameters[i], math.sqrt(max(mean_cov[k, k], 0.0))
        unit = model.data.parameter_unit(p.dimension)
        moved = mean + np.outer([0.0, -reach * se, reach * se], np.arange(len(mean)) == k)
        value, low, high = model.theta(np.clip(moved, -600, 600))[:, i] * unit.factor
        slope = float(abs(model.graph.search_slopes(model.theta(mean[None]))[0, i])) * unit.factor
        flags = {*few, *(("imprecise",) if slope * se >= 0.5 * abs(value) else ())}
        out.append(Estimate(p.name, float(value), slope * se, float(low), float(high), unit.unit, method, n,
                            tuple(sorted(flags))))  # fmt: skip
    total = np.var(fits.u[fits.kept], axis=0, ddof=1)
    noise = np.mean(np.diagonal(fits.covariance[fits.kept], axis1=1, axis2=2), axis=0)
    for k, name in enumerate(model.names):
        p = model.graph.parameters[model.free[k]]
        unit = model.data.parameter_unit(p.dimension) if p.scale == "linear" else Derived("1", 1.0)
        if omega[k, k] <= _NOWHERE * (total[k] + noise[k]):
            out.append(Estimate(f"omega_{name}", 0.0, unit=unit.unit, method=method, n=n, flags=("at_bound",),
                                reason="the animals differ no more than the errors of their fits explain"))  # fmt: skip
            continue
        sd = math.sqrt(omega[k, k]) * unit.factor
        df = (n - 1) * omega[k, k] / max(total[k], omega[k, k])  # fewer where errors of the fits hide part of it
        low, high = (sd * math.sqrt(df / float(chdtri(df, q))) for q in (tail, 1 - tail))
        out.append(Estimate(f"omega_{name}", sd, sd / math.sqrt(2 * df), low, high, unit.unit, method, n, few))
    return tuple(out)


def failed(fits: OneByOne) -> Sequence[tuple[str, str]]:
    """Return which animals could not be used, and why.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> from evbiodist.kinetics.models.inputs import Doses
    >>> data = PopulationData(["a", "b"], ["blood"], [0, 0, 0, 1], [0] * 4, [1, 2, 4, 1], [9.0, 8.1, 6.5, 9.2],
    ...                       {"dose": Doses(100)})
    >>> failed(one_by_one(build("one_compartment_iv"), data))
    [('b', '1 values cannot determine 2 parameters')]
    """
    return [(a, r) for a, r in zip(fits.animals, fits.reason, strict=True) if r]
