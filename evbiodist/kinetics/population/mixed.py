"""Mixed effects: one population of animals, how much they differ, and how much of the spread is measurement.

FOCE with interaction on the exact solver, all animals at once. `naive_pooled` is the same likelihood without differences
between animals, with errors taken over animals: all that one sample per animal can say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.population.laplace import Likelihood, Population, inverse
from evbiodist.kinetics.population.population import AnimalModel, FloatArray, PopulationData, pooled_start
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import Derived

#: Errors of measurement that can be estimated, and `known`: nothing beside the rows' own `se`.
RESIDUALS = ("proportional", "additive", "combined", "known")
#: How standard errors are made.
ERRORS = ("hessian", "sandwich")
_LEAST_SD, _MOST_SD = math.log(1e-3), math.log(10.0)  # of the logarithm between animals; the least one is shown as 0
_SAME = 1e-3  # minus twice the log-likelihoods that differ less are alike
_STEP = 1e-4
_BLIND = 1e-4  # eigenvalues of the information, scaled to a diagonal of 1, under which a direction is not seen
_SHARE = 0.01  # of a parameter that may lie in such directions
_NO_IDEA = 2.0  # standard error of a logarithm of a standard deviation that says nothing of it
_SHRUNK = 0.3
_ERROR_RANGE = 8.0  # of the logarithm of an error about its start; beyond, it is nothing or everything
_NOTHING = 1e-10  # of the largest value
_CONVERGED = 1e-4  # of minus twice the log-likelihood that a Newton step could still gain

ONE_VALUE = ("no animal has two values, so differences between animals cannot be told from errors of measurement: not "
             "identifiable; measure several organs or assay replicates of each animal")  # fmt: skip
CONFOUNDED = ("not identifiable: the data cannot tell it from other parameters; measure more matrices, replicates or "
              "times of each animal, or leave it out")  # fmt: skip
VAGUE = "not identifiable: standard deviations from 0 upwards explain the data about as well"
SINGULAR = "the correlations are as good as complete (a singular matrix), so its interval is open"
ZERO = "its most likely value is 0: the animals differ no more than errors of measurement explain"


@dataclass(frozen=True, eq=False)
class MixedResult:
    """A fitted population.

    Parameters
    ----------
    graph, data : what was fitted to what.
    estimates : typical values by the model's names, `omega_<parameter>` standard deviations between animals of its
        logarithm (of itself where the model searches it so), `correlation_<a>_<b>`, and
        `residual_<kind>_<matrix>`: proportional errors as fractions, additive ones in the matrix' unit.
    typical : (p,) parameters of the typical animal (the median of log-normal ones).
    omega : (q, q) covariance between animals; random : (q,) names of the parameters that differ.
    eta, eta_se : (A, q) each animal's own differences, and their errors given the population.
    individual : (A, p) parameters of every animal.
    shrinkage : by random parameter, 1 - SD(eta) / omega; NaN where omega is 0.
    residual_shrinkage : 1 - SD of the individual weighted residuals.
    minus2ll, aic, bic : of the marginal likelihood; `bic` counts rows.
    names, phi, covariance : (P,) parameters as they were searched and their covariance, 0 for those not determined.
    converged, reason : whether the optimum was reached, and why not.
    notes : what was assumed or left out.
    """

    graph: RateGraph
    data: PopulationData
    estimates: tuple[Estimate, ...]
    typical: FloatArray
    omega: FloatArray
    random: tuple[str, ...]
    eta: FloatArray
    eta_se: FloatArray
    individual: FloatArray
    shrinkage: Mapping[str, float]
    residual_shrinkage: float
    minus2ll: float
    aic: float
    bic: float
    names: tuple[str, ...]
    phi: FloatArray
    covariance: FloatArray
    converged: bool
    reason: str
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Estimate:
        """Return one estimate by name.

        Raises
        ------
        KeyError : no such name.
        """
        found = {e.name: e for e in self.estimates}
        return found[name]


def mixed_effects(
    graph: RateGraph, data: PopulationData, random: Sequence[str], residual: str | Mapping[str, str] = "proportional", *,
    full: bool = False, start: Mapping[str, float] | None = None, fixed: Mapping[str, float | None] | None = None,
    level: float = 0.95, errors: str = "hessian",
) -> MixedResult:  # fmt: skip
    """Fit a population of animals by FOCE with interaction (Laplace's approximation of the marginal likelihood).

    Parameters
    ----------
    graph : a model of first-order rates.
    data : observations of all animals.
    random : parameters that differ between animals, log-normally where the model searches logarithms.
    residual : `proportional`, `additive`, `combined` or `known` (the rows' own `se` only), one word for all observed
        matrices or one for each; a row's known `se` always adds to it.
    full : whether differences of parameters may be correlated.
    start : typical values to begin with, all free parameters; found without when not given.
    fixed : parameters held at a value, or freed (None) where the model holds them.
    level : of the intervals.
    errors : `hessian`, the curvature of the likelihood, or `sandwich`, the animals' own scores (jackknife in one step),
        which also holds where the model of the errors does not.

    Returns
    -------
    MixedResult : what the data cannot tell is missing with its reason.

    Raises
    ------
    ValueError : unknown names or words, fewer than two animals, a model that is not linear.

    Intervals are Student's with one less than the number of animals, and the covariance of the hessian is widened by
    n / (n - 1), which is exact for animals with full curves; those of standard deviations follow chi-squared.

    Rows below their limit enter with the probability to be there (M3). Lindstrom & Bates 1990, Biometrics 46:673;
    Beal & Sheiner's FOCEI as in Wang 2007, J Pharmacokinet Pharmacodyn 34:575; Almquist et al. 2015, ibid. 42:191.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> from evbiodist.kinetics.models.inputs import Doses
    >>> rng, t = np.random.default_rng(1), np.tile([0.1, 1.0, 3.0, 6.0], 8)
    >>> animal = np.repeat(np.arange(8), 4)
    >>> cl = 2 * np.exp(0.2 * rng.standard_normal(8))[animal]
    >>> seen = 100 / 10 * np.exp(-cl / 10 * t) * (1 + 0.05 * rng.standard_normal(32))
    >>> data = PopulationData([f"m{i}" for i in range(8)], ["blood"], animal, animal * 0, t, seen, {"dose": Doses(100)})
    >>> fit = mixed_effects(build("one_compartment_iv"), data, ["cl"])
    >>> fit["cl"].ci_low < 2 < fit["cl"].ci_high, fit["omega_cl"].ci_low < 0.2 < fit["omega_cl"].ci_high
    (True, True)
    """
    if errors not in ERRORS:
        raise ValueError(f"errors is {errors!r}, expected one of {', '.join(ERRORS)}")
    if not 0 < level < 1:
        raise ValueError(f"level is {level:g}, expected a share between 0 and 1 such as 0.95")
    if len(data.animals) < 2:
        raise ValueError("a population needs two animals or more; fit the single one on its own")
    model = AnimalModel.of(graph, data, fixed)
    if not model.names:
        raise ValueError(f"every parameter of {graph.name} is held; free at least one")
    strange = [n for n in random if n not in model.names]
    if strange or len(set(random)) < len(random):
        raise ValueError(
            f"random has {', '.join(strange or random)}; name each of {', '.join(model.names)} once at most"
        )
    kinds = _kinds(data, residual)
    lonely = bool(random) and data.count.max() < 2 and "known" not in kinds
    chosen = [] if lonely else list(random)
    population = _population(model, chosen, full, kinds)
    begin = pooled_start(model) if start is None else model.coordinates(start)
    search = _Search(population, _begin(population, begin))
    _refuse_certainty(population, search.phi)
    search.run()
    return _conclude(search, random, errors, level)


def naive_pooled(
    graph: RateGraph, data: PopulationData, residual: str | Mapping[str, str] = "proportional", *,
    start: Mapping[str, float] | None = None, fixed: Mapping[str, float | None] | None = None, level: float = 0.95,
) -> MixedResult:  # fmt: skip
    """Fit one curve to all animals as if they were one, with errors taken over animals.

    The residual errors then hold differences between animals and errors of measurement together, which is all that
    serial sacrifice with one matrix can say of either. The curve is that of a mean animal; it is biased where the mean
    of curves is not the curve of the mean (Sheiner & Beal 1980, J Pharmacokinet Biopharm 8:553). Values of one animal are
    not independent: standard errors are the sandwich over animals, each left out in turn.

    Parameters
    ----------
    graph, data, residual, start, fixed, level : see `mixed_effects`.

    Returns
    -------
    MixedResult : without random effects.

    Raises
    ------
    ValueError : see `mixed_effects`.

    Liang & Zeger 1986, Biometrika 73:13; Bell & McCaffrey 2002, Survey Methodology 28:169 (few clusters).

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> from evbiodist.kinetics.models.inputs import Doses
    >>> t = np.repeat([0.1, 1.0, 3.0, 6.0], 3)
    >>> seen = 10 * np.exp(-0.2 * t) * np.tile([0.9, 1.0, 1.1], 4)
    >>> data = PopulationData([f"m{i}" for i in range(12)], ["blood"], range(12), [0] * 12, t, seen, {"dose": Doses(100)})
    >>> [round(e.value, 2) for e in naive_pooled(build("one_compartment_iv"), data).estimates]
    [2.0, 10.0, 0.08]
    """
    return mixed_effects(graph, data, (), residual, start=start, fixed=fixed, level=level, errors="sandwich")


def _kinds(data: PopulationData, residual: str | Mapping[str, str]) -> list[str]:
    """Return the kind of error of every observed matrix."""
    given = dict.fromkeys(data.seen, residual) if isinstance(residual, str) else dict(residual)
    missing, wrong = [m for m in data.seen if m not in given], [k for k in given.values() if k not in RESIDUALS]
    if missing or wrong or set(given) - set(data.seen):
        raise ValueError(f"residual has {residual!r}; give one of {', '.join(RESIDUALS)}, or one for each of "
                         f"{', '.join(data.seen)}")  # fmt: skip
    for k, matrix in enumerate(data.seen):
        if given[matrix] == "known" and (data.se[data.which == k] <= 0).any():
            raise ValueError(f"residual of {matrix} is known, but rows of it have no se; fill se or estimate the error")
    return [given[m] for m in data.seen]


def _population(model: AnimalModel, random: Sequence[str], full: bool, kinds: Sequence[str]) -> Population:
    additive: list[int] = []
    proportional: list[int] = []
    count = 0
    for k, kind in enumerate(kinds):
        measured = bool((model.data.which == k).any())
        for places, words in ((additive, ("additive", "combined")), (proportional, ("proportional", "combined"))):
            places.append(count if kind in words and measured else -1)
            count += places[-1] >= 0
    where = np.array([model.names.index(n) for n in random], dtype=np.intp)
    return Population(model, where, full, np.array(additive, dtype=np.intp), np.array(proportional, dtype=np.intp))


def _begin(population: Population, u: FloatArray) -> FloatArray:
    """Return a first phi: the pooled curve, animals that differ by 30 %, errors that leave room for it."""
    model, rows = population.model, population.model.data.rows
    f, _ = model.predict(np.repeat(u[None], len(model.data.animals), axis=0), np.arange(len(model.data.animals)), False)
    _typical, spread, entries, errors = population.sizes
    tau = np.zeros(errors)
    for k in range(len(model.data.seen)):
        here = rows.real & ~rows.below & (rows.which == k)
        size = max(float(np.sqrt(np.mean(f[here] ** 2))), 1e-300) if here.any() else 1.0
        off = float(np.sqrt(np.mean((rows.value[here] - f[here]) ** 2))) / size if here.any() else 0.3
        relative = float(np.clip(off, 0.05, 1.0)) * (0.6 if spread else 1.0)
        for place, scale in ((population.additive[k], size), (population.proportional[k], 1.0)):
            if place >= 0:
                tau[place] = math.log(relative * scale * (0.7 if population.additive[k] >= 0 < scale else 1.0))
    return np.concatenate([u, np.full(spread, math.log(0.3)), np.zeros(entries), tau])


def _refuse_certainty(population: Population, phi: FloatArray) -> None:
    """Refuse rows whose error is 0, but for rounding, whatever the parameters: a proportional error of nothing."""
    model, rows, who = population.model, population.model.data.rows, np.arange(len(population.model.data.animals))
    mu, _, _, tau = population.split(phi)
    f, _ = model.predict(np.repeat(mu[None], len(who), axis=0), who, slopes=False)
    flat, steep = population.variances(f, tau, who)
    largest = np.max(np.abs(rows.value), where=rows.real, initial=0.0)
    sure = rows.real & (flat + steep * f**2 + rows.variance <= (_NOTHING * largest) ** 2)
    if sure.any():
        animal, row = np.argwhere(sure)[0]
        matrix, time = model.data.seen[rows.which[animal, row]], model.data.times[animal, rows.slot[animal, row]]
        raise ValueError(f"{matrix} of {model.data.animals[animal]} is predicted to be 0 at {time:g} h, where a proportional "
                         "error is 0 too; drop such rows, or take combined or additive errors")  # fmt: skip


@dataclass
class _Search:
    """The way to the optimum: where it is, and what it has found."""

    population: Population
    phi: FloatArray
    b: FloatArray | None = None
    value: float = math.inf
    slopes: FloatArray = field(default_factory=lambda: np.empty((0, 0)))  # (A, P)
    curvature: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))  # (A, P, P)
    zero: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    begun: FloatArray = field(default_factory=lambda: np.empty(0))  # phi at the start
    left: float = math.inf  # what a Newton step could still gain

    def run(self) -> None:
        """Descend, set standard deviations to 0 that are as good as that, and finish with Newton's steps."""
        self.zero, self.begun = np.zeros(len(self.phi), dtype=np.bool_), self.phi.copy()
        if not np.isfinite(self.at(self.phi).value).all():
            raise ValueError("the likelihood is not finite at the start; give start, or other residual errors")
        self._descend()
        if self._empty():
            self._descend()
        for _ in range(4):
            self._curve()
            if not self._newton():
                break

    def at(self, phi: FloatArray) -> Likelihood:
        """Return the likelihood, beginning at the random effects met last."""
        found = self.population.likelihood(phi, self.b)
        if not np.isfinite(found.value).all() and self.b is not None:
            found = self.population.likelihood(phi)
        return found

    def _accept(self, phi: FloatArray, found: Likelihood) -> None:
        self.phi, self.value, self.slopes, self.b = phi.copy(), float(found.value.sum()), found.gradient, found.b

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        typical, spread, entries, errors = self.population.sizes
        low, high = self.population.model.bounds
        rest, tau = np.full(entries, 20.0), self.begun[len(self.begun) - errors :]
        lower = np.concatenate(
            [np.fmax(low, self.phi[:typical] - 20), np.full(spread, _LEAST_SD), -rest, tau - _ERROR_RANGE]
        )
        upper = np.concatenate(
            [np.fmin(high, self.phi[:typical] + 20), np.full(spread, _MOST_SD), rest, tau + _ERROR_RANGE]
        )
        return lower, np.where(self.zero, lower, upper)

    def _descend(self) -> None:
        from scipy.optimize import minimize

        low, high = self._bounds()
        begin = np.clip(self.phi, low, high)
        # in units of what the animals' scores say each parameter is known to
        first = self.at(begin).gradient
        scale = 1 / np.clip(np.sqrt(np.nansum(first**2, axis=0)), 1.0, 1e3)

        def function(z: FloatArray) -> tuple[float, FloatArray]:
            phi = np.clip(z * scale, low, high)
            found = self.at(phi)
            if not np.isfinite(found.value).all():
                return 1e12, np.zeros_like(phi)
            if found.value.sum() < self.value:
                self._accept(phi, found)
            return float(found.value.sum()), found.gradient.sum(axis=0) * scale

        minimize(function, begin / scale, jac=True, method="L-BFGS-B",
                 bounds=list(zip(low / scale, high / scale, strict=True)),
                 options={"maxiter": 300, "ftol": 1e-9, "gtol": 1e-5, "maxls": 30})  # fmt: skip

    def _empty(self) -> bool:
        """Set standard deviations to 0 where the likelihood does not mind, the smallest first."""
        typical, spread, _, _ = self.population.sizes
        before = self.zero.sum()
        for k in typical + np.argsort(self.phi[typical : typical + spread]):
            trial = self.phi.copy()
            trial[k] = _LEAST_SD
            found = self.at(trial)
            if found.value.sum() < self.value + _SAME:
                self.zero[k] = True
                self._accept(trial, found)
        return bool(self.zero.sum() > before)

    def moving(self) -> NDArray[np.bool_]:
        """Return which parameters are neither at a bound nor 0, nor correlations with a 0."""
        low, high = self._bounds()
        typical, spread, entries, _ = self.population.sizes
        free = ~self.zero & (self.phi > low) & (self.phi < high)
        if entries:
            none = self.zero[typical : typical + spread]
            for j, (row, column) in enumerate(zip(*np.tril_indices(spread, -1), strict=True)):
                free[typical + spread + j] &= not (none[row] or none[column])
        return free

    def _curve(self) -> None:
        """Take the second derivatives of every animal from exact first ones."""
        size = len(self.phi)
        curvature = np.zeros((len(self.slopes), size, size))
        for k in np.flatnonzero(self.moving()):
            step = np.zeros(size)
            step[k] = _STEP
            curvature[:, k] = (self.at(self.phi + step).gradient - self.at(self.phi - step).gradient) / (2 * _STEP)
        self.curvature = (curvature + curvature.swapaxes(1, 2)) / 2

    def _newton(self) -> bool:
        """Try Newton's step in the directions the data see; return whether it is worth another."""
        free = self.moving()
        H, slope = self.curvature.sum(axis=0)[np.ix_(free, free)], self.slopes.sum(axis=0)[free]
        step = -_seen_inverse(H)[0] @ slope
        self.left = float(-step @ slope) if np.isfinite(H).all() else math.inf
        if not np.isfinite(self.left) or self.left < _CONVERGED / 10:
            return False
        for part in (1.0, 0.3, 0.1):
            trial = self.phi.copy()
            trial[free] += part * np.clip(step, -1.0, 1.0)
            found = self.at(trial)
            if found.value.sum() < self.value:
                self._accept(trial, found)
                return True
        return False


def _seen_inverse(H: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the inverse of an information in the directions it sees, and which parameters lie in none other."""
    size = np.sqrt(np.maximum(np.diag(H), 0.0))
    scale = np.where(size > 0, size, 1.0)
    scaled = H / np.outer(scale, scale)
    if not np.isfinite(scaled).all():
        return np.zeros_like(H), np.zeros(len(H), dtype=np.bool_)
    values, vectors = np.linalg.eigh(scaled)
    blind = values < _BLIND
    good = vectors[:, ~blind]
    found = (good / values[~blind]) @ good.T / np.outer(scale, scale)
    return found, (np.sum(vectors[:, blind] ** 2, axis=1) < _SHARE) & (size > 0)


def _told_apart(search: _Search, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which parameters the linearised model can know; curvature alone mistakes bends for information."""
    typical = search.population.sizes[0]
    of_variance = free & (np.arange(len(free)) >= typical)
    told = np.ones(len(free), dtype=np.bool_)
    if of_variance.any():
        own = of_variance[typical:]
        with np.errstate(all="ignore"):
            information = search.population.linear_information(search.phi)[np.ix_(own, own)]
        told[of_variance] = _seen_inverse(information)[1]
    return told


def _jackknife(search: _Search, free: NDArray[np.bool_]) -> tuple[FloatArray, str]:
    """Return the covariance over animals, each left out in one Newton step, and a note where that is not possible."""
    H = 0.5 * search.curvature[:, free][:, :, free]
    slope, whole, n = 0.5 * search.slopes[:, free], 0.5 * search.curvature.sum(axis=0)[np.ix_(free, free)], len(H)
    if not H.size:
        return np.zeros_like(whole), ""
    rest = whole - H
    solid = (np.linalg.eigvalsh(rest) > 0).all(axis=1)
    moves = n / (n - 1) * slope @ _seen_inverse(whole)[0]
    moves[solid] = np.einsum("aqs,as->aq", inverse(rest[solid]), slope[solid])
    note = "" if solid.all() else (
        f"without {', '.join(np.array(search.population.model.data.animals)[~solid])} a parameter would be undetermined, so "
        "that errors over animals are too small rather than too large")  # fmt: skip
    return (n - 1) / n * moves.T @ moves, note


# what is reported


def _conclude(search: _Search, asked: Sequence[str], errors: str, level: float) -> MixedResult:
    """Return the result of a search."""
    population, data = search.population, search.population.model.data
    free, n = search.moving(), len(data.animals)
    H = 0.5 * search.curvature.sum(axis=0)[np.ix_(free, free)]
    part, seen = _seen_inverse(H)
    notes = list(data.notes)
    part = part * n / (n - 1)
    if errors == "sandwich":
        part, note = _jackknife(search, free)
        notes += [note] if note else []
    if data.below.any():
        notes.append(f"{int(data.below.sum())} rows below their limit enter as such (M3)")
    known = np.zeros(len(search.phi), dtype=np.bool_)
    known[np.flatnonzero(free)[seen]] = True
    known &= _told_apart(search, free)
    covariance = np.zeros((len(search.phi),) * 2)
    covariance[np.ix_(free, free)] = part
    covariance[~known] = covariance[:, ~known] = 0.0
    converged = bool(np.isfinite(search.value) and search.left < _CONVERGED)
    reason = "" if converged else "the optimum was not reached; give start, or fewer random effects"
    report = _Report(search, covariance, known, level, reason, errors)
    size = len(search.phi)
    names = tuple(population.model.names[i] for i in population.random)
    L, _ = population.root(search.phi)
    keep = np.where(search.zero[population.sizes[0] :][: len(names)], 0.0, 1.0)
    eta, eta_se, individual, shrinkage, quiet = _individuals(search, L * keep[:, None])
    if set(asked) - set(names):
        notes.append(ONE_VALUE)
    return MixedResult(
        population.model.graph, data, report.estimates(asked, shrinkage),
        population.model.theta(search.phi[None, : population.sizes[0]])[0], L @ L.T * np.outer(keep, keep), names, eta,
        eta_se, individual, shrinkage, quiet, search.value, search.value + 2 * size,
        search.value + size * math.log(data.value.size), report.names, search.phi, covariance, converged, reason, tuple(notes),
    )  # fmt: skip


def _individuals(search: _Search, L: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, dict[str, float], float]:
    """Return every animal's differences, their errors, its parameters, and how far both were pulled to the mean."""
    population, model = search.population, search.population.model
    mu, _, _, tau = population.split(search.phi)
    b = np.zeros((len(model.data.animals), len(L))) if search.b is None else search.b
    eta = b @ L.T
    u = np.repeat(mu[None], len(b), axis=0)
    u[:, population.random] += eta
    who = np.arange(len(b))
    f, df = model.predict(u, who)
    t = population.terms(f, tau, who)
    own = np.einsum("rq,arm->aqm", L, df[:, population.random])
    H = np.einsum("am,aqm,asm->aqs", t.info, own, own) + np.eye(len(L))
    spread = np.sqrt(np.maximum(np.einsum("rq,aqs,rs->ar", L, inverse(H), L), 0.0))
    omega = np.sqrt(np.sum(L**2, axis=1))
    names = [model.names[i] for i in population.random]
    shrinkage = {n: float(1 - np.std(eta[:, k], ddof=1) / omega[k]) if omega[k] > 0 else math.nan
                 for k, n in enumerate(names)}  # fmt: skip
    rows = model.data.rows
    flat, steep = population.variances(f, tau, who)
    used = rows.real & ~rows.below
    weighted = (rows.value - f)[used] / np.sqrt((flat + steep * f**2 + rows.variance)[used])
    quiet = float(1 - np.std(weighted, ddof=1)) if used.sum() > 1 else math.nan
    return eta, spread, model.theta(u), shrinkage, quiet


@dataclass(frozen=True, eq=False)
class _Report:
    """Estimates of a search: on its own scales, with what is not known said."""

    search: _Search
    covariance: FloatArray
    known: NDArray[np.bool_]
    level: float
    reason: str
    errors: str

    @property
    def population(self) -> Population:
        return self.search.population

    @property
    def data(self) -> PopulationData:
        return self.population.model.data

    @property
    def names(self) -> tuple[str, ...]:
        """Names of phi."""
        random = [self.population.model.names[i] for i in self.population.random]
        pairs = zip(*np.tril_indices(len(random), -1), strict=True) if self.population.full else ()
        errors = [""] * self.population.sizes[3]
        for k, matrix in enumerate(self.data.seen):
            for kind, places in (
                ("additive", self.population.additive),
                ("proportional", self.population.proportional),
            ):
                if places[k] >= 0:
                    errors[places[k]] = f"residual_{kind}_{matrix}"
        return (*self.population.model.names, *(f"omega_{n}" for n in random),
                *(f"correlation_{random[b]}_{random[a]}" for a, b in pairs), *errors)  # fmt: skip

    @property
    def method(self) -> str:
        kind = "FOCE with interaction" if len(self.population.random) else "naive pooled"
        return f"{kind}, {'curvature' if self.errors == 'hessian' else 'sandwich over animals'}"

    def estimates(self, asked: Sequence[str], shrinkage: Mapping[str, float]) -> tuple[Estimate, ...]:
        """Return all of them; random effects that were asked for and left out too."""
        typical, spread, entries, errors = self.population.sizes
        out = [self._typical(k) for k in range(typical)]
        held = [i for i in range(len(self.population.model.held)) if i not in set(self.population.model.free)]
        out += [self._held(i) for i in held]
        out += [self._spread(typical + k, shrinkage[n.removeprefix("omega_")] > _SHRUNK)
                for k, n in enumerate(self.names[typical : typical + spread])]  # fmt: skip
        if not spread:
            out += [self._missing(f"omega_{n}", ONE_VALUE) for n in asked]
        out += [self._correlation(j) for j in range(entries)]
        return tuple(out + [self._spread(typical + spread + entries + k) for k in range(errors)])

    def _missing(self, name: str, reason: str, unit: str = "1") -> Estimate:
        return Estimate(name, unit=unit, method=self.method, n=len(self.data.animals),
                        flags=() if self.reason else ("not_identifiable",), reason=self.reason or reason)  # fmt: skip

    def _flags(self, k: int, relative: float) -> set[str]:
        sd = np.sqrt(np.diag(self.covariance))
        with np.errstate(all="ignore"):
            others = np.abs(self.covariance[k] / (sd * sd[k]))
        others[k] = 0.0
        flags = {"imprecise"} if relative >= 0.5 else set()
        flags |= {"correlated"} if np.nanmax(others, initial=0.0) >= 0.8 else set()
        flags |= {"few"} if len(self.data.animals) < 3 else set()
        return flags | ({"below_lloq"} if self.data.below.any() else set())

    def _typical(self, k: int) -> Estimate:
        model, at = self.population.model, self.search.phi
        p = model.graph.parameters[model.free[k]]
        unit = self.data.parameter_unit(p.dimension)
        if not self.known[k] and self.search.moving()[k]:
            return self._missing(p.name, CONFOUNDED, unit.unit)
        mu, n = at[None, : self.population.sizes[0]], len(self.data.animals)
        value = float(model.theta(mu)[0, model.free[k]]) * unit.factor
        se = math.sqrt(self.covariance[k, k])
        if self.reason or not self.known[k]:
            return Estimate(p.name, value, unit=unit.unit, method=self.method, n=n, flags=("at_bound",) * (not self.reason),
                            reason=self.reason or "at its bound: the data do not carry it")  # fmt: skip
        reach = student(self.level, n - 1) * se
        ends = []
        for side in (-reach, reach):
            moved = mu.copy()
            moved[0, k] += np.clip(side, -300.0, 300.0)
            ends.append(float(model.theta(moved)[0, model.free[k]]) * unit.factor)
        slope = abs(float(model.graph.search_slopes(model.theta(mu))[0, model.free[k]])) * unit.factor
        relative = slope * se / abs(value) if value else math.inf
        return Estimate(p.name, value, slope * se, ends[0], ends[1], unit.unit, self.method, n,
                        tuple(sorted(self._flags(k, relative))))  # fmt: skip

    def _held(self, i: int) -> Estimate:
        p = self.population.model.graph.parameters[i]
        unit = self.data.parameter_unit(p.dimension)
        return Estimate(p.name, float(self.population.model.held[i]) * unit.factor, unit=unit.unit, method="held",
                        n=len(self.data.animals), reason="held at this value, not estimated")  # fmt: skip

    def _spread(self, k: int, shrunk: bool = False) -> Estimate:
        """Return a standard deviation; its square follows chi-squared, with as many degrees as its error says."""
        from scipy.special import chdtri

        name, n, se = self.names[k], len(self.data.animals), math.sqrt(self.covariance[k, k])
        unit, factor = self._spread_unit(name)
        value = math.exp(self.search.phi[k]) * factor
        if self.search.zero[k]:
            return Estimate(name, 0.0, unit=unit, method=self.method, n=n, flags=("at_bound",), reason=ZERO)
        if not self.known[k] or se > _NO_IDEA:
            return self._missing(name, VAGUE if self.known[k] and name.startswith("omega_") else CONFOUNDED, unit)
        if self.reason:
            return Estimate(name, value, unit=unit, method=self.method, n=n, reason=self.reason)
        many = 1 / (2 * se**2) * (n / (n - 1) if self.errors == "hessian" else 1)  # the widening is for typical values
        df = many - name.startswith("omega_")
        tail = (1 - self.level) / 2
        low = value * math.sqrt(many / float(chdtri(max(df, 1.0), tail)))
        high = value * math.sqrt(many / float(chdtri(df, 1 - tail))) if df > 1 else math.inf
        flags = self._flags(k, se) | ({"shrunk"} if shrunk else set())
        return Estimate(name, value, value * se, low, high, unit, self.method, n, tuple(sorted(flags)))

    def _spread_unit(self, name: str) -> Derived:
        """Return the unit of a standard deviation and the factor into it: none of a logarithm or a fraction."""
        if name.startswith("residual_additive_"):
            matrix = self.data.seen.index(name.removeprefix("residual_additive_"))
            return Derived(self.data.unit[matrix] if self.data.unit else "", 1.0)
        graph, own = self.population.model.graph, name.removeprefix("omega_")
        if name != own and graph.parameters[graph.names.index(own)].scale == "linear":
            return self.data.parameter_unit(graph.parameters[graph.names.index(own)].dimension)
        return Derived("1", 1.0)

    def _correlation(self, j: int) -> Estimate:
        """Return a correlation between animals, its interval on Fisher's scale."""
        typical, spread, _, _ = self.population.sizes
        k = typical + spread + j
        row, column = (int(i[j]) for i in np.tril_indices(spread, -1))

        def rho(phi: FloatArray) -> float:
            L, _ = self.population.root(phi)
            return float(L[row] @ L[column] / np.sqrt((L[row] @ L[row]) * (L[column] @ L[column])))

        zero = self.search.zero[typical : typical + spread]
        if zero[row] or zero[column]:
            return self._missing(self.names[k], f"a standard deviation behind it is 0: {ZERO}")
        phi, value, moving = self.search.phi, rho(self.search.phi), self.search.moving()[k]
        if moving and not self.known[k]:
            return self._missing(self.names[k], CONFOUNDED)
        if self.reason or not moving or abs(value) > 1 - 1e-6:
            return Estimate(self.names[k], value, method=self.method, n=len(self.data.animals), unit="1",
                            flags=() if self.reason else ("at_bound",), reason=self.reason or SINGULAR)  # fmt: skip
        slope = np.array([(rho(phi + s) - rho(phi - s)) / (2 * _STEP) for s in np.eye(len(phi)) * _STEP])
        se = math.sqrt(max(float(slope @ self.covariance @ slope), 0.0))
        reach = student(self.level, len(self.data.animals) - 1) * se / (1 - value**2)
        low, high = (math.tanh(math.atanh(value) + side) for side in (-reach, reach))
        return Estimate(self.names[k], value, se, low, high, "1", self.method, len(self.data.animals),
                        tuple(sorted(self._flags(k, 0.0))))  # fmt: skip
