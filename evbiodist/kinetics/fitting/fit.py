"""Fitting a rate graph to observations through lmfit, with exact derivatives and honest errors.

Starts and weights come from the batched search; lmfit's own least squares then finishes from there, so that what a
user holds is an lmfit result. Positive parameters are searched on their logarithms; values, errors and intervals
come back on the natural scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.data import FitData, prepare
from evbiodist.kinetics.fitting.derived import Derived, derived, organ_amounts, too_far
from evbiodist.kinetics.fitting.problem import Freedom, Problem
from evbiodist.kinetics.fitting.search import NOTHING_LEFT, FitSettings, Found, Spread, search
from evbiodist.kinetics.fitting.start import Shape, candidates
from evbiodist.kinetics.models.catalogue import Models, build, needs_organs
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses, Input
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
#: A derived quantity rests on a parameter when its relative change per relative change of that one is more than this.
_RESTS_ON = 1e-3
NO_CURVE = "no value is above 0, so there is no curve to fit"
NO_LOGARITHM = "a value is 0 or less, which has no logarithm; fit on the linear scale, or leave it out"
NO_ERROR = "weights are to be those given, but a value has no standard error; fill se, or choose other weights"
#: What a residual counts as where the model has no finite value: far from any data.
_FAR = 1e10


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model.

    Parameters
    ----------
    graph, data, design, settings : what was fitted to what, and how.
    dose_unit : unit of the amount given.
    theta : (p,) parameters; covariance : (p, p) of their search coordinates, shared errors included, 0 where held.
    free, bound : (p,) which were searched, and which ended at a bound.
    chi2_red, aicc, bic : goodness of fit; df : degrees of freedom of the intervals, fewer where rows of one animal
        are alike.
    problem : as a least-squares problem; converged : whether the search came to rest.
    """

    graph: RateGraph
    data: FitData
    design: Design
    settings: FitSettings
    dose_unit: str
    theta: FloatArray
    covariance: FloatArray
    free: NDArray[np.bool_]
    bound: NDArray[np.bool_]
    chi2_red: float
    aicc: float
    bic: float
    df: float
    problem: Problem
    converged: bool = True
    _lmfit: tuple[Any, Any] | None = None

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.graph.name

    @property
    def level(self) -> float:
        """Level of the intervals."""
        return self.settings.level

    @property
    def dose(self) -> float:
        """Amount given in all; NaN with a measured input."""
        given = self.design.inputs[self.graph.ports[0].name]
        return float(np.sum(given.amount)) if isinstance(given, Doses) else np.nan

    @cached_property
    def _finished(self) -> tuple[Any, Any]:
        return self._lmfit or _through_lmfit(self.problem, self.graph.to_search(self.theta), self.bound)

    @property
    def minimizer(self) -> Any:
        """lmfit's Minimizer, on search coordinates."""
        return self._finished[0]

    @property
    def result(self) -> Any:
        """lmfit's MinimizerResult, on search coordinates."""
        return self._finished[1]

    @cached_property
    def params(self) -> Any:
        """lmfit Parameters on the natural scale, with standard errors."""
        import lmfit

        params = lmfit.Parameters()
        slopes = self.graph.search_slopes(self.theta)
        for p, value, slope, variance, free in zip(
            self.graph.parameters, self.theta, slopes, np.diag(self.covariance), self.free, strict=True
        ):
            low, high = {"log": (0.0, np.inf), "logit": (0.0, 1.0), "linear": (-np.inf, np.inf)}[p.scale]
            params.add(p.name, value=float(value), min=low, max=high, vary=bool(free))
            params[p.name].stderr = float(slope * np.sqrt(variance)) if free else None
        return params

    @cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """Parameters and derived quantities with intervals, flags and reasons."""
        return tuple(_estimates(self))

    def __getitem__(self, name: str) -> Estimate:
        """Return one estimate by name."""
        return next(e for e in self.estimates if e.name == name)

    def organ_of(self, name: str) -> str:
        """Return which matrix a parameter or derived quantity speaks of."""
        hits = [
            o for o in self.data.seen[1:] if name.endswith(f"_{o}") or name.startswith((f"{o}_uptake", f"{o}_peak"))
        ]
        return max(hits, key=len, default=self.data.seen[0])

    def organ_amounts(self, last_h: float) -> dict[str, Estimate]:
        """Return net uptake by a time and highest amount until then, of every organ, by name.

        Parameters
        ----------
        last_h : hours since the dose; labels are compared at the last time that all of them have.
        """
        found = organ_amounts(self.graph, self.theta, self.design, self.dose_unit, last_h)
        return {d.name: _follow(self, d, set()) for d in found}

    def predict(self, time_h: FloatArray) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
        """Return the curve and its pointwise interval for everything observed.

        Parameters
        ----------
        time_h : (T,) hours since the dose.

        Returns
        -------
        dict of name to (value, low, high), each (T,), in the unit of the observations.
        """
        found = solve(self.graph, self.theta[None], Design(time_h, inputs=self.design.inputs), derivatives=True)
        y, dy = found.y[0], found.dy[0]
        variance = np.einsum("pto,pq,qto->to", dy, self.covariance, dy)
        reach = student(self.level, self.df) * np.sqrt(np.maximum(variance, 0.0)) / np.maximum(y, 1e-300)
        reach = np.minimum(reach, 50.0)
        return {name: (y[:, i], y[:, i] * np.exp(-reach[:, i]), y[:, i] * np.exp(reach[:, i]))
                for i, name in enumerate(self.graph.seen)}  # fmt: skip

    def ci(self, names: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
        """Return profile-likelihood intervals of parameters by lmfit; an open end is that of the parameter's scale.

        Raises
        ------
        ValueError : a name that is not a free parameter of the model.
        """
        import warnings

        import lmfit

        free = [n for n, f in zip(self.graph.names, self.free, strict=True) if f]
        unknown = [n for n in names or () if n not in free]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not a parameter of {self.model} ({', '.join(free)})")
        found = {}
        for name in names or free:
            p = self.graph.parameters[self.graph.names.index(name)]
            word, ends = _coordinate(p.name, p.scale), []
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rows = lmfit.conf_interval(self.minimizer, self.result, p_names=[word], sigmas=[self.level])[word]
                ends = [rows[0][1], rows[-1][1]]
            except (ValueError, lmfit.minimizer.MinimizerException, AttributeError, TypeError):
                ends = [-np.inf, np.inf]
            low, high = (_natural(p.scale, float(e)) for e in ends)
            found[name] = (low, high)
        return found


def _coordinate(name: str, scale: str) -> str:
    return {"log": f"ln_{name}", "logit": f"logit_{name}", "linear": name}[scale]


def _natural(scale: str, u: float) -> float:
    if scale == "log":
        return float(np.exp(u))
    return float(1 / (1 + np.exp(-u))) if scale == "logit" else u


def fit(
    observations: pd.DataFrame | FitData,
    model: str | RateGraph = "two_compartment_iv",
    *,
    dose: float | Doses = 100.0,
    dose_unit: str = "pct_id",
    inputs: Mapping[str, Input] | None = None,
    settings: FitSettings | None = None,
    models: Models | None = None,
    species: str | None = None,
    weight_g: float | None = None,
    **more: Any,
) -> FitResult:
    """Fit a model to the observations of one label and group.

    Parameters
    ----------
    observations : rows with the columns of observations.csv; several animals a time are pooled naively, with their
        spread as the error. Or one curve from `evbiodist.kinetics.fitting.data.curve_data`.
    model : a name of `evbiodist models`, or a graph.
    dose, dose_unit : amount given at 0 h, or `Doses` (several, infusions); 100 pct_id where values are % of dose.
    inputs : measured curves by the names of the model's inputs, instead of a dose.
    settings : how; single ones can be given by their names instead (``weights="given"``, ``fixed={"f": 0.8}``).
    models : a user's own, from `evbiodist.kinetics.models.catalogue.read_models`, that `model` may name.
    species, weight_g : whose flows and volumes a whole-body model has.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError : data that cannot carry the model, in words.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> found = fit(curve_data([1, 2, 3, 4], [8.0, 4.0, 2.0, 1.0]), "one_compartment_iv", dose=16)
    >>> round(found["half_life"].value, 6), round(found["v"].value, 6)
    (1.0, 1.0)

    Sheiner 1984 (J Pharmacokinet Biopharm 8:635) for naive pooling; Seber & Wild 1989 for the covariance.
    """
    settings = replace(settings or FitSettings(), **more)
    data = observations if isinstance(observations, FitData) else _prepared(observations, model, settings, models)
    graph = model
    if not isinstance(graph, RateGraph):
        organs = [s for s in data.seen[1:] if s not in _OTHERS]
        graph = build(graph, organs, models=models, species=species, weight_g=weight_g)
    graph = graph.seeing(data.seen)
    given = {graph.ports[0].name: dose if isinstance(dose, Doses) else Doses(dose)} if inputs is None else inputs
    (found,) = fit_all(graph, [data], [given], dose_unit=dose_unit, settings=settings)
    if isinstance(found, str):
        raise ValueError(found)
    return replace(found, **_refined(found))


#: Matrices that are amounts but no organ.
_OTHERS = ("urine",)


def _prepared(
    observations: pd.DataFrame, model: str | RateGraph, settings: FitSettings, models: Models | None = None
) -> FitData:
    if isinstance(model, RateGraph):
        seen, organs = model.seen, len(model.seen) > 1
    else:
        organs = needs_organs(model, models)
        seen = build(model, ["organ"] if organs else (), models=models).seen
    return prepare(observations, organs, blq=settings.blq, others=[s for s in seen if s in _OTHERS])


def _refined(found: FitResult) -> dict[str, Any]:
    """Finish with lmfit's least squares, from where the search ended, and take its answer when it is no worse."""
    minimizer, result = _through_lmfit(found.problem, found.graph.to_search(found.theta), found.bound)
    u = np.array([result.params[w].value for w in _words(found.graph)])
    theta = np.where(found.free & ~found.bound, found.graph.from_search(u), found.theta)
    before = found.chi2_red * (found.data.value.size - len(found.problem.freedom.names))
    better = np.isfinite(theta).all() and result.chisqr <= before * (1 + 1e-12)
    at_rest = found.converged or (better and result.success)
    return {"theta": theta if better else found.theta, "_lmfit": (minimizer, result), "converged": bool(at_rest)}


def _words(graph: RateGraph) -> list[str]:
    return [_coordinate(p.name, p.scale) for p in graph.parameters]


def _through_lmfit(problem: Problem, u: FloatArray, bound: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Run lmfit's leastsq on one problem from coordinates u (p,), with the exact Jacobian; what is at a bound stays."""
    import lmfit

    graph, freedom = problem.graph, problem.freedom
    words = _words(graph)
    params = lmfit.Parameters()
    for i, word in enumerate(words):
        column = np.flatnonzero(freedom.link[i])
        if not column.size:
            params.add(word, value=float(np.clip(u[i], -1e3, 1e3)), vary=False)
        elif freedom.names[column[0]] == graph.names[i]:
            params.add(word, value=float(u[i]), vary=not bound[i])
    for i, word in enumerate(words):
        if word not in params:  # a tie, written by us: a plain name, never text from a file
            leader = graph.names.index(freedom.names[int(np.argmax(freedom.link[i]))])
            params.add(word, expr=words[leader])
    order = [words[graph.names.index(n)] for n in freedom.names]

    def at(p: Any) -> FloatArray:
        return np.array([[p[w].value for w in order]])

    def residual(p: Any) -> FloatArray:
        r = problem.residual(problem.predict(at(p), False)[0])[0][0]
        return np.asarray(np.nan_to_num(r, nan=_FAR, posinf=_FAR, neginf=-_FAR))

    def jacobian(p: Any) -> FloatArray:
        J = problem(at(p), np.zeros(1, np.intp))[1][0]
        varied = [w for w in p if p[w].vary]  # lmfit's own order
        return np.asarray(np.nan_to_num(J[[order.index(w) for w in varied]].T))

    if not any(p.vary for p in params.values()):
        raise ValueError(NOTHING_LEFT)
    minimizer = lmfit.Minimizer(residual, params, calc_covar=False)
    with np.errstate(all="ignore"):
        result = minimizer.minimize(method="leastsq", Dfun=jacobian, col_deriv=0, xtol=1e-12, ftol=1e-12, gtol=1e-14,
                                    max_nfev=50)  # fmt: skip
    return minimizer, result


def fit_all(
    graph: RateGraph,
    data: Sequence[FitData],
    inputs: Sequence[Mapping[str, Input]],
    *,
    dose_unit: str = "pct_id",
    settings: FitSettings | None = None,
) -> list[FitResult | str]:
    """Fit one model to many data sets in one batched search; each answer is what it would be alone.

    Parameters
    ----------
    graph : the model.
    data : of organs, labels, groups or animals; all with the matrices the model sees.
    inputs : of each data set, by the names of the model's inputs.
    dose_unit, settings : as in `fit`.

    Returns
    -------
    list : a FitResult each, or the reason why there is none.

    Raises
    ------
    ValueError : settings that do not fit the model.
    """
    settings = settings or FitSettings()
    freedom = Freedom.of(graph, settings.fixed, settings.ties)
    results: list[FitResult | str] = ["" for _ in data]
    usable = []
    for i, d in enumerate(data):
        results[i] = _why_not(graph, d, freedom, settings)
        if not results[i]:
            usable.append(i)
    if not usable:
        return results
    batch = _Batch.of(graph, [data[i] for i in usable], [inputs[i] for i in usable], freedom, settings)
    found = search(batch.problem, batch.spread, batch.mean, batch.starts, settings)
    for row, i in enumerate(usable):
        why = found.reason[row] if not np.isfinite(found.cost[row]) else ""
        results[i] = why or _conclude(found, row, data[i], batch.designs[row], dose_unit, settings)
    return results


def _why_not(graph: RateGraph, data: FitData, freedom: Freedom, settings: FitSettings) -> str:
    if data.seen != graph.seen:
        return f"the data hold {', '.join(data.seen)}; {graph.name} sees {', '.join(graph.seen)}"
    if data.value.size <= len(freedom.names):
        return f"{data.value.size} values cannot determine the {len(freedom.names)} parameters of {graph.name}"
    if not (data.value[~data.censored] > 0).any():
        return NO_CURVE
    if settings.scale == "log" and (data.value[~data.censored] <= 0).any():
        return NO_LOGARITHM
    if settings.weights == "given" and not (data.se[~data.censored] > 0).all():
        return NO_ERROR
    return ""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Data sets side by side, padded to the longest."""

    problem: Problem
    spread: Spread
    mean: FloatArray
    starts: FloatArray
    designs: list[Design]

    @classmethod
    def of(
        cls, graph: RateGraph, data: Sequence[FitData], inputs: Sequence[Mapping[str, Input]], freedom: Freedom,
        settings: FitSettings,
    ) -> _Batch:  # fmt: skip
        size = max(d.value.size for d in data)
        frames = data[0].end_h is not None
        times, ends, backs = zip(*(_times(d) for d in data), strict=True)
        width = max(len(t) for t in times)
        time = np.stack([_pad(t, width) for t in times])
        end = np.stack([_pad(e, width) for e in ends]) if frames else None
        joined = {name: _join([given[name] for given in inputs]) for name in inputs[0]}
        design = Design(time, end, inputs=joined)
        which = np.stack([_fill(d.which, size, 0) for d in data]).astype(np.intp)
        place = np.stack([_fill(b, size, 0) for b in backs]).astype(np.intp) + width * which
        spread = Spread(
            which,
            se=np.stack([_fill(d.se, size, 0.0) for d in data]),
            systematic=np.stack([_fill(d.systematic, size, 0.0) for d in data]),
            count=np.stack([_fill(d.count, size, 1.0) for d in data]),
            cv=np.stack([d.cv for d in data]),
            largest=np.stack([_largest(d) for d in data]),
        )
        value = np.stack([_fill(d.value, size, np.nan) for d in data])
        censored = np.stack([_fill(d.censored, size, False) for d in data]).astype(bool)
        mean = np.stack([_fill(d.mean, size, 1.0) for d in data])
        problem = Problem(graph, design, place, value, np.ones_like(value), censored if censored.any() else None, freedom,
                          settings.scale, settings.loss)  # fmt: skip
        shapes = {name: _shape([d.curve(name) for d in data]) for name in graph.seen}
        first = joined[graph.ports[0].name]
        dose = np.atleast_2d(first.amount).sum(axis=1) if isinstance(first, Doses) else np.ones(1)
        starts = candidates(
            graph, shapes, np.broadcast_to(dose, (len(data),)).astype(float), design, settings.scattered
        )
        designs = [
            Design(t, e if frames else None, inputs=given) for t, e, given in zip(times, ends, inputs, strict=True)
        ]
        return cls(problem, spread, mean, starts, designs)


def _times(d: FitData) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Return the different times (or frames) of a data set and which of them each value belongs to."""
    if d.end_h is None:
        times, back = np.unique(d.time_h, return_inverse=True)
        return times, times, back
    frames, back = np.unique(np.stack([d.time_h, d.end_h]), axis=1, return_inverse=True)
    return frames[0], frames[1], np.ravel(back)


def _pad(a: FloatArray, width: int) -> FloatArray:
    return np.concatenate([a, np.full(width - len(a), a[-1])])


def _fill(a: NDArray[Any], width: int, fill: Any) -> NDArray[Any]:
    return np.concatenate([a, np.full(width - len(a), fill, dtype=a.dtype if a.dtype.kind in "ib" else float)])


def _largest(d: FitData) -> FloatArray:
    out = np.zeros(len(d.seen))
    np.maximum.at(out, d.which, np.abs(d.mean))
    return out


def _join(given: Sequence[Input]) -> Input:
    """Return one input for all data sets: shared when it is the same object, else a row for each."""
    if all(g is given[0] for g in given):
        return given[0]
    if all(isinstance(g, Doses) for g in given):
        width = max(np.size(g.amount) for g in given if isinstance(g, Doses))
        rows = [[_fill(np.ravel(getattr(g, k)), width, 0.0) for g in given] for k in ("amount", "time_h", "duration_h")]
        return Doses(*(np.stack(r) for r in rows))
    raise ValueError("data sets with different measured inputs cannot share one search; fit them one by one")


def _shape(curves: Sequence[tuple[FloatArray, FloatArray]]) -> Shape:
    width = max(len(t) for t, _ in curves)
    return Shape(*(np.stack([_fill(c[i], width, np.nan) for c in curves]) for i in (0, 1)))


def _conclude(
    found: Found, row: int, data: FitData, design: Design, dose_unit: str, settings: FitSettings
) -> FitResult:
    """Return one data set's fit with the covariance of its parameters."""
    size, width = data.value.size, found.problem.design.time_h.shape[1]
    problem = replace(found.problem.take(slice(row, row + 1)), design=design)
    place = problem.place[:, :size] % width + design.time_h.shape[1] * (problem.place[:, :size] // width)
    problem = replace(problem, place=place, value=problem.value[:, :size], sigma=problem.sigma[:, :size],
                      censored=None if problem.censored is None else problem.censored[:, :size])  # fmt: skip
    graph, freedom, u = problem.graph, problem.freedom, found.u[row]
    theta = problem.theta(u[None])[0]
    y, dy = problem.predict(u[None], True)
    r, slope = problem.residual(y)
    r, J, sigma = r[0], (dy * slope[:, None, :])[0].T, problem.sigma[0]
    known = ~data.censored
    df = size - len(u)
    chi2_red = float(r @ r / df)
    stuck = found.at_bound[row]
    # Measured replicates set the scale; a worse fit than they explain widens it, a better one does not narrow it.
    scale, own_df = (
        float(a) for a in error_scale(np.array(chi2_red), np.array(float(df)), settings.weights == "given")
    )
    if settings.weights == "pooled" and data.replicated:
        scale = max(chi2_red, 1.0)
    part = J[:, ~stuck]
    normal = part.T @ part
    lengths = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    inverse = np.linalg.pinv(normal / np.outer(lengths, lengths), rcond=1e-12, hermitian=True) / np.outer(
        lengths, lengths
    )
    own = np.ones(size)  # the share of a weight's sigma that is the row's own
    if settings.weights == "pooled":
        own = np.where(known, data.sigma(y[0]) / data.weight_sigma(y[0]), 1.0)
    alike = likeness(r / np.sqrt(max(scale, 1e-300)), data.animal)
    sums = np.stack([np.bincount(data.animal, weights=column) for column in (part * own[:, None]).T], axis=1)
    meat = (1 - alike) * (part.T * own**2) @ part + alike * (sums.T @ sums)
    spread = scale * (inverse @ meat @ inverse)
    animals = int(data.animal.max())  # clusters less one
    reach_df = 1 / ((1 - alike) ** 2 / own_df + alike**2 / animals) if animals and alike > 0 else own_df
    for i in range(len(data.seen)):  # an error shared by all rows of an organ shifts the estimate as a whole
        shift = inverse @ part.T @ np.where(data.which == i, data.systematic / sigma, 0.0)
        spread = spread + np.outer(shift, shift)
    free = np.zeros((len(u), len(u)))
    free[np.ix_(~stuck, ~stuck)] = spread
    k = len(u) + 1
    log_likelihood = -0.5 * float(r @ r + np.sum(np.log(2 * np.pi * sigma[known] ** 2)))
    aicc = 2 * k - 2 * log_likelihood + (2 * k * (k + 1) / (size - k - 1) if size > k + 1 else np.inf)
    searched = np.asarray(freedom.link.any(axis=1))
    return FitResult(graph, data, design, settings, dose_unit, theta, freedom.link @ free @ freedom.link.T,
                     searched, np.asarray(searched & (freedom.link @ stuck > 0)), chi2_red, float(aicc),
                     float(k * np.log(size) - 2 * log_likelihood), float(reach_df), problem,
                     not found.reason[row])  # fmt: skip


def error_scale(chi2_red: FloatArray, df: FloatArray, given: bool) -> tuple[FloatArray, FloatArray]:
    """Return by what to multiply the covariance, and the degrees of freedom of intervals.

    Errors that are given are believed (1, infinite) unless residuals are larger than they allow (5 % of correct ones);
    otherwise residuals tell the size of the errors.
    """
    from scipy.special import chdtri

    enough = np.maximum(df, 1.0)
    believed = given & (chi2_red * enough <= chdtri(enough, 0.05))
    return np.where(believed, 1.0, chi2_red), np.where(believed, np.inf, np.where(df > 0, df, np.nan))


def likeness(residual: FloatArray, animal: NDArray[np.int64]) -> float:
    """Return the correlation of standardised residuals within an animal, pooled over animals, in 0..1.

    An animal that got a little more of the dose reads high in every organ; such rows are not independent.
    """
    sums, squares = np.bincount(animal, weights=residual), np.bincount(animal, weights=residual**2)
    pairs = float(np.sum(np.bincount(animal) * (np.bincount(animal) - 1.0)))
    return float(np.clip(np.sum(sums**2 - squares) / pairs, 0.0, 1.0)) if pairs else 0.0


def _estimates(f: FitResult) -> list[Estimate]:
    spread = np.sqrt(np.diag(f.covariance))
    safe = np.where(spread > 0, spread, 1.0)
    correlation = np.abs(f.covariance / np.outer(safe, safe)) - np.eye(len(f.theta))
    last = float((f.data.time_h if f.data.end_h is None else f.data.end_h)[f.data.which == 0].max())
    beyond = too_far(f.graph, f.theta, f.design, last, f.settings.max_extrap_pct)
    rows = []
    restless = set() if f.converged else {"not_converged"}
    for i, p in enumerate(f.graph.parameters):
        flags = restless | ({"at_bound"} if f.bound[i] else set())
        flags |= {"correlated"} if correlation[i].max(initial=0.0) >= 0.8 else set()
        flags |= {"extrapolated"} if p.name in beyond else set()
        reason = "at its bound: the data do not carry it" if f.bound[i] else "" if f.free[i] else "held, not estimated"
        rows.append(_own(f, i, flags, reason))
    for d in derived(f.graph, f.theta, f.design, f.dose_unit, float(f.data.time_h.max())):
        rows.append(_follow(f, d, restless | ({"extrapolated"} if d.name in beyond else set())))
    return rows


def _own(f: FitResult, i: int, flags: set[str], reason: str) -> Estimate:
    """Return the estimate of a parameter, its interval symmetric on the scale it was searched on."""
    p, value, variance = f.graph.parameters[i], float(f.theta[i]), float(f.covariance[i, i])
    unit = derive(p.dimension, f.data.unit[0], f.dose_unit)
    if reason or p.scale == "log":
        return _positive(f, p.name, value * unit.factor, np.sqrt(variance), unit.unit, flags, reason)
    se_u = float(np.sqrt(variance))
    reach, u = student(f.level, f.df) * se_u, float(f.graph.to_search(f.theta)[i])
    low, high = _natural(p.scale, u - reach) * unit.factor, _natural(p.scale, u + reach) * unit.factor
    se = float(f.graph.search_slopes(f.theta)[i]) * se_u * unit.factor
    flags = flags | ({"imprecise"} if se >= 0.5 * abs(value * unit.factor) and p.scale == "logit" else set())
    return Estimate(p.name, value * unit.factor, se, low, high, unit.unit, "least squares, covariance",
                    int(f.data.count.sum()), tuple(sorted(flags)))  # fmt: skip


def _follow(f: FitResult, d: Derived, flags: set[str]) -> Estimate:
    """Return the estimate of a derived quantity."""
    unit = derive(d.dimension, f.data.unit[0], f.dose_unit)
    shown = f.dose_unit if d.name.endswith(f"_{f.dose_unit}") else unit.unit
    stuck = f.bound & (np.abs(d.gradient) > _RESTS_ON * abs(d.value))
    if stuck.any():  # a bound is not an estimate, and what rests on it would look exact
        which = ", ".join(n for n, s in zip(f.graph.names, stuck, strict=True) if s)
        return Estimate(d.name, unit=shown, method="least squares", n=int(f.data.count.sum()),
                        flags=tuple(sorted({*flags, "at_bound"})),
                        reason=f"it rests on {which}, which the data do not carry")  # fmt: skip
    variance = max(float(d.gradient @ f.covariance @ d.gradient), 0.0)
    relative = np.sqrt(variance) / d.value if d.value > 0 else np.nan
    return _positive(f, d.name, float(d.value * unit.factor), float(relative), shown, flags, d.reason)


def _positive(
    f: FitResult, name: str, value: float, relative: float, unit: str, flags: set[str], reason: str
) -> Estimate:
    """Return an estimate whose interval is symmetric on the logarithm."""
    n = int(f.data.count.sum())
    if reason or not np.isfinite(relative):
        return Estimate(name, value, unit=unit, method="least squares", n=n, flags=tuple(sorted(flags)),
                        reason=reason or "its error cannot be computed")  # fmt: skip
    flags = flags | ({"imprecise"} if relative >= 0.5 else set())
    wide = float(np.exp(min(student(f.level, f.df) * relative, 300.0)))
    return Estimate(name, value, float(value * relative), float(value / wide), float(value * wide), unit,
                    "least squares, covariance", n, tuple(sorted(flags)))  # fmt: skip
