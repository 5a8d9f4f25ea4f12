"""Fitting a rate graph to observations through lmfit, with exact derivatives and honest errors.

Parameters are positive, so the search runs on their logarithms; values, errors and intervals come
back on the natural scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.catalogue import build, needs_organs
from evbiodist.kinetics.data import FitData, prepare
from evbiodist.kinetics.graph import RateGraph
from evbiodist.kinetics.start import start_values
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
_LN_BOUND = 12.0
_AT_BOUND = 0.05
#: A derived quantity rests on a parameter when its relative change per relative change of that one is more than this.
_RESTS_ON = 1e-3
_STARTS = 12
_MOST_CALLS = 300
_BEST = 3
_SEED = 20150601
#: Derived quantities that rest on the curve beyond the last sample, and how much of the area may lie there.
_TO_INFINITY = ("auc_inf", "mrt_inf", "vss", "cl", "v2", "q")
_MAX_EXTRAP_PCT = 20.0


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model.

    Parameters
    ----------
    model, graph, data, dose, dose_unit, level : what was fitted to what.
    theta : (p,) parameters; covariance : (p, p) of their logarithms, shared errors included.
    result : lmfit's MinimizerResult on logarithms; params : lmfit Parameters on the natural scale.
    estimates : parameters and derived quantities with intervals and flags.
    chi2_red, aicc : goodness of fit; df : degrees of freedom of the intervals, fewer where rows of one animal are
        alike.
    """

    model: str
    graph: RateGraph
    data: FitData
    dose: float
    dose_unit: str
    level: float
    theta: FloatArray
    covariance: FloatArray
    result: Any
    params: Any
    estimates: tuple[Estimate, ...]
    chi2_red: float
    aicc: float
    df: float
    _minimizer: Any

    def __getitem__(self, name: str) -> Estimate:
        """Return one estimate by name."""
        return next(e for e in self.estimates if e.name == name)

    def organ_of(self, name: str) -> str:
        """Return which matrix a parameter or derived quantity speaks of."""
        hits = [
            o for o in self.data.seen[1:] if name.endswith(f"_{o}") or name.startswith((f"{o}_uptake", f"{o}_peak"))
        ]
        return max(hits, key=len, default="blood")

    def organ_amounts(self, last_h: float) -> dict[str, Estimate]:
        """Return net uptake by a time and highest amount until then, of every organ, by name.

        Parameters
        ----------
        last_h : hours since the dose; labels are compared at the last time that all of them have.
        """
        reach = student(self.level, self.df)
        found = {}
        for name, _, function in organ_quantities(self.graph, self.data, self.dose, self.dose_unit, last_h):
            found[name] = _derived_estimate(
                name, function, self.graph.names, self.theta, self.covariance, reach, self.dose_unit, self.data, set()
            )
        return found

    def predict(self, time_h: FloatArray) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
        """Return the curve and its pointwise interval for everything observed.

        Parameters
        ----------
        time_h : (T,) hours since the dose.

        Returns
        -------
        dict of name to (value, low, high), each (T,), in the unit of the observations.
        """
        y, dy = self.graph.predict(self.theta, time_h, self.dose, derivatives=True)
        variance = np.einsum("pto,pq,qto->to", dy, self.covariance, dy)
        reach = student(self.level, self.df) * np.sqrt(np.maximum(variance, 0.0)) / np.maximum(y, 1e-300)
        reach = np.minimum(reach, 50.0)
        return {name: (y[:, i], y[:, i] * np.exp(-reach[:, i]), y[:, i] * np.exp(reach[:, i]))
                for i, name in enumerate(self.graph.seen)}  # fmt: skip

    def ci(self, names: list[str] | None = None) -> dict[str, tuple[float, float]]:
        """Return profile-likelihood intervals of parameters by lmfit; an open end is 0 or infinity.

        Raises
        ------
        ValueError : a name that is not a parameter of the model.
        """
        import warnings

        import lmfit

        names = list(names or self.graph.names)
        unknown = [n for n in names if n not in self.graph.names]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not a parameter of {self.model} ({', '.join(self.graph.names)})")
        found = {}
        for name in names:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rows = lmfit.conf_interval(self._minimizer, self.result, p_names=[f"ln_{name}"],
                                               sigmas=[self.level])[f"ln_{name}"]  # fmt: skip
                found[name] = (float(np.exp(rows[0][1])), float(np.exp(rows[-1][1])))
            except (ValueError, lmfit.minimizer.MinimizerException, AttributeError, TypeError):
                found[name] = (0.0, float("inf"))
        return found


def fit(
    observations: pd.DataFrame,
    model: str = "two_compartment_iv",
    *,
    dose: float = 100.0,
    dose_unit: str = "pct_id",
    level: float = 0.95,
) -> FitResult:
    """Fit a catalogue model to the observations of one label and group.

    Parameters
    ----------
    observations : rows with the columns of observations.csv; several animals a time are pooled naively,
        with their spread as the error.
    model : a name of `evbiodist models`.
    dose, dose_unit : amount given; 100 pct_id where values are % of injected dose.
    level : of the intervals.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError : data that cannot carry the model, in words.

    Sheiner 1984 (J Pharmacokinet Biopharm 8:635) for naive pooling; Seber & Wild 1989 for the covariance.
    """
    data = prepare(observations, organs=needs_organs(model))
    graph = build(model, data.seen[1:])
    if data.value.size <= len(graph.names):
        raise ValueError(f"{data.value.size} values cannot determine the {len(graph.names)} parameters of {model}")
    return fit_data(graph, data, dose=dose, dose_unit=dose_unit, level=level)


def fit_data(graph: RateGraph, data: FitData, *, dose: float, dose_unit: str, level: float) -> FitResult:
    """Fit a rate graph to prepared data (see `fit`)."""
    import lmfit

    times, back = np.unique(data.time_h, return_inverse=True)

    def model(theta: FloatArray, derivatives: bool = False) -> tuple[FloatArray, FloatArray]:
        y, dy = graph.predict(theta, times, dose, derivatives)
        return y[back, data.which], dy[:, back, data.which]

    start = np.log(start_values(graph, data, dose))
    sigma = data.weight_sigma(data.mean)
    starts = _starts(model, data, sigma, start)
    for _ in range(3):
        runs = [_minimise(lmfit, graph, model, data, sigma, s, start) for s in starts]
        minimizer, result = min(runs, key=lambda run: run[1].chisqr)
        theta = np.exp(np.array([float(result.params[f"ln_{n}"].value) for n in graph.names]))
        starts = [np.log(theta)]
        sigma = data.weight_sigma(model(theta)[0])  # weights from the fitted curve, not from noisy means
    return _conclude(lmfit, graph, data, model, theta, sigma, start, minimizer, result, dose, dose_unit, level)


def _starts(model: Callable[..., Any], data: FitData, sigma: FloatArray, start: FloatArray) -> list[FloatArray]:
    """Return the best few of the read-off start and some scattered around it."""
    rng = np.random.default_rng(_SEED)
    tries = np.vstack([start, start + rng.normal(0, 1.0, (_STARTS, start.size))])
    scores = [np.sum(((model(np.exp(s))[0] - data.value) / sigma) ** 2) for s in tries]
    return [tries[0], *(tries[i] for i in np.argsort(scores)[: _BEST - 1] if i != 0)]


def _minimise(
    lmfit: Any, graph: RateGraph, model: Callable[..., Any], data: FitData, sigma: FloatArray, at: FloatArray,
    centre: FloatArray,
) -> tuple[Any, Any]:  # fmt: skip
    params = lmfit.Parameters()
    for name, value, middle in zip(graph.names, at, centre, strict=True):
        inside = float(np.clip(value, middle - 0.9 * _LN_BOUND, middle + 0.9 * _LN_BOUND))
        params.add(f"ln_{name}", value=inside, min=middle - _LN_BOUND, max=middle + _LN_BOUND)

    def theta(p: Any) -> FloatArray:
        return np.exp([p[f"ln_{n}"].value for n in graph.names])

    def residual(p: Any) -> FloatArray:
        return np.asarray((model(theta(p))[0] - data.value) / sigma)

    def jacobian(p: Any) -> FloatArray:
        free = [i for i, n in enumerate(graph.names) if p[f"ln_{n}"].vary]
        return np.asarray((model(theta(p), True)[1] / sigma).T[:, free])

    minimizer = lmfit.Minimizer(residual, params, calc_covar=False)
    return minimizer, minimizer.minimize(
        method="leastsq", Dfun=jacobian, col_deriv=0, xtol=1e-10, ftol=1e-10, max_nfev=_MOST_CALLS
    )


def _conclude(
    lmfit: Any, graph: RateGraph, data: FitData, model: Callable[..., Any], theta: FloatArray, sigma: FloatArray,
    start: FloatArray, minimizer: Any, result: Any, dose: float, dose_unit: str, level: float,
) -> FitResult:  # fmt: skip
    y, dy = model(theta, True)
    df = data.value.size - len(theta)
    chi2_red = float(np.sum(((data.value - y) / sigma) ** 2) / df)
    bound = np.abs(np.log(theta) - start) > _LN_BOUND * (1 - _AT_BOUND)
    # Measured replicates set the scale; a worse fit than they explain widens it, a better one does not narrow it.
    scale = max(chi2_red, 1.0) if data.replicated else chi2_red
    J = (dy / sigma).T[:, ~bound]
    normal = J.T @ J
    size = np.sqrt(np.diag(normal))
    inverse = np.linalg.pinv(normal / np.outer(size, size), rcond=1e-12, hermitian=True) / np.outer(size, size)
    own = data.sigma(y) / sigma  # the rows' independent part
    alike = _likeness((data.value - y) / sigma / np.sqrt(scale), data.animal)
    sums = np.stack([np.bincount(data.animal, weights=column) for column in (J * own[:, None]).T], axis=1)
    meat = (1 - alike) * (J.T * own**2) @ J + alike * (sums.T @ sums)
    free = scale * (inverse @ meat @ inverse)
    animals = int(data.animal.max())  # clusters less one
    reach_df = 1 / ((1 - alike) ** 2 / df + alike**2 / animals) if animals else float(df)
    for i in range(len(data.seen)):  # an error shared by all rows of an organ shifts the estimate as a whole
        shift = inverse @ J.T @ np.where(data.which == i, data.systematic / sigma, 0.0)
        free = free + np.outer(shift, shift)
    covariance = np.zeros((len(theta), len(theta)))
    covariance[np.ix_(~bound, ~bound)] = free
    k, n = len(theta) + 1, data.value.size
    log_likelihood = -0.5 * float(np.sum(((data.value - y) / sigma) ** 2 + np.log(2 * np.pi * sigma**2)))
    aicc = 2 * k - 2 * log_likelihood + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf)
    estimates = _estimates(graph, data, theta, covariance, bound, reach_df, dose, dose_unit, level)
    params = lmfit.Parameters()
    for name, value, se in zip(graph.names, theta, np.sqrt(np.diag(covariance)), strict=True):
        params.add(name, value=float(value), min=0.0)
        params[name].stderr = float(value * se)
    return FitResult(graph.name, graph, data, dose, dose_unit, level, theta, covariance, result, params, estimates,
                     chi2_red, float(aicc), reach_df, minimizer)  # fmt: skip


def _likeness(residual: FloatArray, animal: NDArray[np.int64]) -> float:
    """Return the correlation of standardised residuals within an animal, pooled over animals, in 0..1.

    An animal that got a little more of the dose reads high in every organ; such rows are not independent.
    """
    sums, squares = np.bincount(animal, weights=residual), np.bincount(animal, weights=residual**2)
    pairs = float(np.sum(np.bincount(animal) * (np.bincount(animal) - 1.0)))
    return float(np.clip(np.sum(sums**2 - squares) / pairs, 0.0, 1.0)) if pairs else 0.0


def _estimates(
    graph: RateGraph, data: FitData, theta: FloatArray, covariance: FloatArray, bound: NDArray[np.bool_], df: float,
    dose: float, dose_unit: str, level: float,
) -> tuple[Estimate, ...]:  # fmt: skip
    spread = np.sqrt(np.diag(covariance))
    safe = np.where(spread > 0, spread, 1.0)
    correlation = np.abs(covariance / np.outer(safe, safe)) - np.eye(len(theta))
    reach = student(level, df)
    too_far = _too_far(graph, theta, float(data.time_h[data.which == 0].max()), dose)
    rows = []
    for i, p in enumerate(graph.parameters):
        flags = {"at_bound"} if bound[i] else set()
        flags |= {"correlated"} if correlation[i].max(initial=0.0) >= 0.8 else set()
        flags |= {"extrapolated"} if p.name in too_far else set()
        unit = derive(p.dimension, data.unit[0], dose_unit)
        rows.append(_positive(p.name, theta[i] * unit.factor, spread[i], reach, unit.unit, data, flags,
                              "at its bound: the data do not carry it" if bound[i] else ""))  # fmt: skip
    for name, dimension, function in derived(graph, data, dose, dose_unit):
        unit = derive(dimension, data.unit[0], dose_unit)
        shown = dose_unit if name.endswith(f"_{dose_unit}") else unit.unit
        flags = {"extrapolated"} if name in too_far else set()
        rows.append(
            _derived_estimate(name, function, graph.names, theta, covariance, reach, shown, data, flags, unit.factor)
        )
    return tuple(rows)


def _derived_estimate(
    name: str, function: Callable[[FloatArray], float], names: tuple[str, ...], theta: FloatArray, covariance: FloatArray,
    reach: float, unit: str, data: FitData, flags: set[str], factor: float = 1.0,
) -> Estimate:  # fmt: skip
    value, gradient = function(theta), _log_gradient(function, theta)
    stuck = (np.diag(covariance) == 0) & (np.abs(gradient) > _RESTS_ON * abs(value))
    if stuck.any():  # a bound is not an estimate, and what rests on it would look exact
        reason = (
            f"it rests on {', '.join(n for n, s in zip(names, stuck, strict=True) if s)}, which the data do not carry"
        )
        return Estimate(name, unit=unit, method="least squares", n=int(data.count.sum()),
                        flags=tuple(sorted({*flags, "at_bound"})), reason=reason)  # fmt: skip
    relative = float(np.sqrt(max(float(gradient @ covariance @ gradient), 0.0))) / value if value > 0 else np.nan
    return _positive(name, value * factor, relative, reach, unit, data, flags, "")


def _too_far(graph: RateGraph, theta: FloatArray, last_h: float, dose: float) -> set[str]:
    """Return which quantities rest on the curve beyond the last blood sample.

    The area and what follows from it: when more than 20 % of it lies beyond. The terminal half-life: when it is
    longer than half of the time that was sampled.
    """
    seen, K = graph.sight(theta)[0], graph.matrix(theta)
    rest = graph.amounts(theta, np.array([last_h]), dose)[0]
    beyond = float((seen @ np.linalg.solve(K, rest)) / (seen @ np.linalg.solve(K, graph.start(dose))))
    slowest = float(np.min(np.abs(np.real(np.linalg.eigvals(K)))))
    found = set(_TO_INFINITY) if 100 * beyond > _MAX_EXTRAP_PCT else set()
    return found | ({"half_life"} if np.log(2) > 0.5 * last_h * slowest else set())


def _positive(
    name: str, value: float, relative: float, reach: float, unit: str, data: FitData, flags: set[str], reason: str
) -> Estimate:
    """Return an estimate whose interval is symmetric on the logarithm."""
    n = int(data.count.sum())
    if reason or not np.isfinite(relative):
        return Estimate(name, float(value), unit=unit, method="least squares", n=n, flags=tuple(sorted(flags)),
                        reason=reason or "its error cannot be computed")  # fmt: skip
    flags = flags | ({"imprecise"} if relative >= 0.5 else set())
    wide = float(np.exp(min(reach * relative, 300.0)))
    return Estimate(name, float(value), float(value * relative), float(value / wide), float(value * wide), unit,
                    "least squares, covariance", n, tuple(sorted(flags)))  # fmt: skip


def _log_gradient(function: Callable[[FloatArray], float], theta: FloatArray, step: float = 1e-4) -> FloatArray:
    """Return the derivative of a derived quantity with respect to log-parameters, by central differences."""
    gradient = np.empty(len(theta))
    for i in range(len(theta)):
        up, down = theta.copy(), theta.copy()
        up[i] *= np.exp(step)
        down[i] *= np.exp(-step)
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient


def derived(
    graph: RateGraph, data: FitData, dose: float, dose_unit: str
) -> list[tuple[str, str, Callable[[FloatArray], float]]]:
    """Return derived quantities as (name, dimension expression, function of the parameters).

    For every model: terminal and initial half-life, area, mean residence time and steady-state volume of
    blood. With organs, per organ: net uptake by the last time and highest amount.
    """
    x0 = graph.start(dose)

    def rates(theta: FloatArray) -> FloatArray:
        return np.sort(np.abs(np.real(np.linalg.eigvals(graph.matrix(theta)))))

    def blood(theta: FloatArray) -> FloatArray:
        return np.asarray(graph.sight(theta)[0])

    def area(theta: FloatArray) -> float:
        return float(blood(theta) @ np.linalg.solve(-graph.matrix(theta), x0))

    def residence(theta: FloatArray) -> float:
        K = graph.matrix(theta)
        return float(blood(theta) @ np.linalg.solve(K, np.linalg.solve(K, x0))) / area(theta)

    found: list[tuple[str, str, Callable[[FloatArray], float]]] = [
        ("half_life", "time", lambda th: float(np.log(2) / rates(th)[0])),
        ("half_life_initial", "time", lambda th: float(np.log(2) / rates(th)[-1])),
        ("auc_inf", "value*time", area),
        ("mrt_inf", "time", residence),
        ("vss", "dose/value", lambda th: dose / area(th) * residence(th)),
    ]
    if "cl" not in graph.names:
        found.append(("cl", "dose/value/time", lambda th: dose / area(th)))
    return found + organ_quantities(graph, data, dose, dose_unit, float(data.time_h.max()))


def organ_quantities(
    graph: RateGraph, data: FitData, dose: float, dose_unit: str, last_h: float
) -> list[tuple[str, str, Callable[[FloatArray], float]]]:
    """Return every organ's net uptake by a time and highest amount until then, as `derived` does."""
    found: list[tuple[str, str, Callable[[FloatArray], float]]] = []
    first = float(data.time_h[data.time_h > 0].min())
    grid = np.concatenate([[0.0], np.geomspace(first / 20, last_h, 400)])
    for organ in data.seen[1:]:
        found.append((f"{organ}_uptake_{dose_unit}", "1", partial(_highest, graph, organ, np.array([last_h]), dose)))
        found.append((f"{organ}_peak_{dose_unit}", "1", partial(_highest, graph, organ, grid, dose)))
    return found


def _highest(graph: RateGraph, organ: str, time_h: FloatArray, dose: float, theta: FloatArray) -> float:
    """Return an organ's highest amount at the given times."""
    return float(graph.amounts(theta, time_h, dose)[:, graph.compartments.index(organ)].max())
