"""Finding the parameters: starts, weights and one Levenberg-Marquardt over all data sets at once.

A data set's answer is the same alone or among thousands, because its starts, weights and steps depend on it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.kinetics.fitting.problem import LOSSES, SCALES, Freedom, Problem
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
#: How far from its start a parameter may go, on its logarithm or logit.
REACH = 12.0
#: Closer to the end of its reach than this share of it, a parameter is at a bound.
_AT_BOUND = 0.05
#: Errors are never taken smaller than this share of a matrix' largest mean.
FLOOR = 0.005
#: Relative spread assumed where nothing is repeated; the fit's own residuals then set the scale.
UNREPEATED_CV = 0.15
NOTHING_LEFT = "every parameter ended at a bound: the data do not carry the model"
#: Weights and parameters take turns so often at most, until no coordinate moves by more than this.
_REWEIGHTINGS, _SETTLED = 20, 1e-6
#: A start whose mean squared residual is below this lies in the valley of the optimum.
_NEAR_ENOUGH = 4.0
_SORTING, _LOOKING, _MOST = 6, 30, 100
_ROUGHLY, _TIGHT = 1e-3, 1e-10


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Parameters
    ----------
    weights : a key of `WEIGHTS`.
    scale : residuals on the ``linear`` or the ``log`` scale.
    loss : a key of `evbiodist.kinetics.fitting.problem.LOSSES`; others than ``squares`` bend less to outliers.
    blq : ``drop`` values below the limit, or ``m3``: the likelihood of being below it (Beal 2001).
    fixed : parameters held at a value; None frees one that the model holds.
    ties : parameters that follow another one.
    bounds : (low, high) of parameters; None where open.
    tries : starts that are compared where the first does not fit; scattered : random ones beside those read off the curve.
    level : of the intervals; max_extrap_pct : share of the area beyond the last sample that is flagged.

    Raises
    ------
    ValueError : an unknown word, or numbers out of range.
    """

    weights: str = "pooled"
    scale: str = "linear"
    loss: str = "squares"
    blq: str = "drop"
    fixed: Mapping[str, float | None] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    tries: int = 3
    scattered: int = 4
    level: float = 0.95
    max_extrap_pct: float = 20.0

    def __post_init__(self) -> None:
        for name, known in (("weights", WEIGHTS), ("scale", SCALES), ("loss", LOSSES), ("blq", ("drop", "m3"))):
            word = getattr(self, name)
            if word not in known:
                raise ValueError(
                    f"{name} has '{word}', expected one of {', '.join(known)}; {nearest(word, list(known))}"
                )
        if not 0 < self.level < 1:
            raise ValueError(f"level has {self.level}, expected a number between 0 and 1; write 0.95 for 95 %")
        if self.tries < 1 or self.scattered < 0:
            raise ValueError(f"tries has {self.tries} and scattered {self.scattered}; expected at least 1 and 0")


@dataclass(frozen=True, eq=False)
class Spread:
    """What the standard deviation of every value is made of, for B data sets of up to N values.

    Parameters
    ----------
    which : (N,) or (B, N) observed matrix of each value.
    se, systematic : (B, N) measurement errors, own and shared; count : (B, N) animals behind a value.
    cv : (B, n_seen) relative spread between animals; largest : (B, n_seen) highest mean.
    """

    which: NDArray[np.intp]
    se: FloatArray
    systematic: FloatArray
    count: FloatArray
    cv: FloatArray
    largest: FloatArray

    def take(self, rows: NDArray[np.intp]) -> Spread:
        """Return that of some data sets."""
        which = self.which if self.which.ndim == 1 else self.which[rows]
        return Spread(which, *(getattr(self, k)[rows] for k in ("se", "systematic", "count", "cv", "largest")))

    def of(self, by_matrix: FloatArray) -> FloatArray:
        """Return a (B, n_seen) array for every value, (B, N)."""
        if self.which.ndim == 1:
            return by_matrix[:, self.which]
        return np.take_along_axis(by_matrix, self.which, 1)


def _pooled(s: Spread, y: FloatArray, value: FloatArray) -> FloatArray:
    own = (s.of(s.cv) * np.abs(y)) ** 2 / s.count + s.se**2 + (FLOOR * s.of(s.largest)) ** 2
    return np.sqrt(own + s.systematic**2)


def _given(s: Spread, y: FloatArray, value: FloatArray) -> FloatArray:
    return np.where(s.se > 0, s.se, np.nan)


def _constant(s: Spread, y: FloatArray, value: FloatArray) -> FloatArray:
    return np.maximum(_rms(s, value - y), 1e-6 * s.of(s.largest))


def _proportional(s: Spread, y: FloatArray, value: FloatArray) -> FloatArray:
    size = np.maximum(np.abs(y), FLOOR * s.of(s.largest))
    return np.maximum(_rms(s, (value - y) / size), 1e-6) * size


def _rms(s: Spread, residual: FloatArray) -> FloatArray:
    """Return the root mean square of each matrix' residuals, (B, N), so that a noisy matrix weighs less."""
    out = np.zeros_like(residual)
    for i in range(s.cv.shape[1]):
        mine = np.broadcast_to(s.which == i, residual.shape)
        known = mine & np.isfinite(residual)
        mean = np.where(known, residual**2, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        out = np.where(mine, np.sqrt(mean)[:, None], out)
    return out


def _combined(s: Spread, y: FloatArray, value: FloatArray) -> FloatArray:
    """Return sqrt(a^2 + b^2 y^2) with a and b regressed on squared residuals (Carroll & Ruppert 1988, ch. 3)."""
    out = np.ones_like(y)
    top = s.of(s.largest)
    for i in range(s.cv.shape[1]):
        mine = np.broadcast_to(s.which == i, y.shape)
        known = mine & np.isfinite(value)
        w = np.where(known, 1 / np.maximum(np.abs(y), 0.05 * top) ** 4, 0.0)  # a squared residual errs like its mean
        r, x = np.where(known, (value - y) ** 2, 0.0), np.where(known, y * y, 0.0)
        sw, sx, sxx, sr, sxr = (a.sum(axis=1) for a in (w, w * x, w * x * x, w * r, w * x * r))
        det = np.where(sw * sxx > sx**2 * (1 + 1e-12), sw * sxx - sx**2, np.inf)
        a, b = (sxx * sr - sx * sxr) / det, (sw * sxr - sx * sr) / det
        alone_a, alone_b = sr / np.where(sw > 0, sw, 1.0), sxr / np.where(sxx > 0, sxx, 1.0)
        a, b = (np.where(b < 0, alone_a, np.maximum(a, 0.0)),
                np.where(a < 0, alone_b, np.maximum(b, 0.0)))  # fmt: skip
        least = b[:, None] * (FLOOR * top) ** 2  # else a value that is nearly 0 could rule the fit
        size = np.sqrt(np.maximum(np.maximum(a[:, None] + b[:, None] * y * y, least), (1e-6 * top) ** 2))
        out = np.where(mine, size, out)
    return out


#: Weights by name: standard deviations (B, N) from what is known of errors, the prediction and the values, which are
#: NaN where only a limit is known.
WEIGHTS: dict[str, Callable[[Spread, FloatArray, FloatArray], FloatArray]] = {
    "pooled": _pooled,
    "given": _given,
    "constant": _constant,
    "proportional": _proportional,
    "combined": _combined,
}


class Found(NamedTuple):
    """Where the searches ended, for B data sets.

    Parameters
    ----------
    u : (B, q) free coordinates; at_bound : (B, q) which of them are at a bound, or as far from their start as they may go.
    problem : with the final weights; cost : sums of squares, not finite where there is no fit.
    reason : why a data set has no fit, or (with a finite cost) why its search did not come to rest; else empty.
    """

    u: FloatArray
    at_bound: NDArray[np.bool_]
    problem: Problem
    cost: FloatArray
    reason: tuple[str, ...]


def search(problem: Problem, spread: Spread, mean: FloatArray, starts: FloatArray, settings: FitSettings) -> Found:
    """Find the parameters of every data set.

    Parameters
    ----------
    problem : without weights (`sigma` is not read).
    spread : what errors are made of; mean : (B, N) first guess of the predictions.
    starts : (K, B, p) candidates. Where the best does not describe the data yet, the best `settings.tries` take a few
        steps each, and where that does not help, all of them.

    Returns
    -------
    Found : weights rest on the fitted curve, not on noisy values: they are renewed and the search goes on.
    """
    rough = _pooled(replace(spread, cv=np.where(spread.cv > 0, spread.cv, UNREPEATED_CV)), mean, problem.value)
    given = settings.weights in ("pooled", "given")
    sigma = WEIGHTS[settings.weights](spread, mean, problem.value) if given else rough
    problem = replace(problem, sigma=sigma)
    with np.errstate(all="ignore"):
        u, centre, lower, upper, unsure = _best_starts(problem, starts, settings)
    at, middle, low, high = u[0].copy(), centre[0], lower[0], upper[0]
    count = np.sum(np.isfinite(problem.value) & np.isfinite(problem.sigma), axis=1)
    for tries, steps in ((settings.tries, _SORTING), (len(u), _LOOKING)):
        if tries == 1 or not unsure.size:
            break  # a few steps from each start tell which valley is deepest; where none fits, all are searched
        flat = [a[:tries, unsure].reshape(-1, a.shape[2]) for a in (u, lower, upper)]
        many = _repeated(problem.take(unsure), min(tries, len(u)))
        tried = least_squares(many, flat[0], flat[1], flat[2], ftol=_ROUGHLY, max_iterations=steps)
        cost = np.where(np.isfinite(tried.cost), tried.cost, np.inf).reshape(-1, unsure.size)
        at[unsure] = tried.x[np.argmin(cost, axis=0) * unsure.size + np.arange(unsure.size)]
        unsure = unsure[~(cost.min(axis=0) <= _NEAR_ENOUGH * count[unsure])]
    at = _absorption_first(problem, at, low, high)
    if settings.weights != "given":
        problem, at = _renew_weights(problem, spread, settings.weights, at, low, high)
    found = least_squares(problem, at, low, high, ftol=_TIGHT, max_iterations=_MOST)
    at, solved, bound, reason = found.x, found.cost, found.at_bound, list(found.reason)
    scaled = problem.freedom.free(np.array([p.scale != "linear" for p in problem.graph.parameters]))
    bound = bound | (scaled & (np.abs(at - middle) > REACH * (1 - _AT_BOUND)))
    lost = bound.all(axis=1)
    told = tuple(
        NOTHING_LEFT if no and np.isfinite(c) else why for no, c, why in zip(lost, solved, reason, strict=True)
    )
    return Found(at, bound, problem, np.where(lost, np.nan, solved), told)


def _renew_weights(
    problem: Problem, spread: Spread, weights: str, at: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[Problem, FloatArray]:
    """Fit and take weights from the fitted curve, in turns, until each data set's parameters stay where they are."""
    shown = problem.value if problem.censored is None else np.where(problem.censored, np.nan, problem.value)
    sigma, at, rows = problem.sigma.copy(), at.copy(), np.arange(len(at))
    for _ in range(_REWEIGHTINGS):
        part = replace(problem, sigma=sigma).take(rows)
        found = least_squares(part, at[rows], low[rows], high[rows], ftol=_SETTLED, max_iterations=_MOST)
        moved = np.abs(found.x - at[rows]).max(axis=1)
        at[rows] = found.x
        with np.errstate(all="ignore"):
            y = part.predict(found.x, False)[0]
            sigma[rows] = WEIGHTS[weights](spread.take(rows), y, shown[rows])
        rows = rows[np.isfinite(found.cost) & (moved > _SETTLED)]
        if not rows.size:
            break
    return replace(problem, sigma=sigma), at


def _best_starts(
    problem: Problem, starts: FloatArray, settings: FitSettings
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, IntArray]:
    """Return the starts of each data set, the best first, (K, B, q) each: where, centre, lower and upper bounds.

    Last come the data sets whose best start does not describe them yet, so that the others are worth a try too.
    """
    graph, freedom = problem.graph, problem.freedom
    K, B, _ = starts.shape
    u = freedom.free(graph.to_search(starts))
    low, high = _limits(graph, freedom, settings)
    u = np.clip(u, np.where(np.isfinite(low), low + 1e-6, low), np.where(np.isfinite(high), high - 1e-6, high))
    u = np.nan_to_num(u, nan=0.0, posinf=REACH, neginf=-REACH)
    many = _repeated(problem, K)
    r = many.residual(many.predict(u.reshape(K * B, -1), False)[0])[0]
    cost = np.einsum("bn,bn->b", r, r).reshape(K, B)
    cost = np.where(np.isfinite(cost), cost, np.inf)
    u = np.take_along_axis(u, np.argsort(cost, axis=0, kind="stable")[:, :, None], axis=0)
    used = np.isfinite(problem.value) & np.isfinite(problem.sigma)
    unsure = np.flatnonzero(~(cost.min(axis=0) <= _NEAR_ENOUGH * used.sum(axis=1)))
    centre = np.broadcast_to(u[:1], u.shape)  # all tries of a data set share its box
    scaled = freedom.free(np.array([p.scale != "linear" for p in graph.parameters]))
    lower = np.maximum(np.where(scaled, centre - REACH, -np.inf), low)
    upper = np.minimum(np.where(scaled, centre + REACH, np.inf), high)
    return np.clip(u, lower, upper), centre, lower, upper, unsure


def _absorption_first(problem: Problem, at: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the coordinates with absorption as the faster process, where the other way round is the same curve.

    One compartment after first-order absorption: ka and cl / v may change places (flip-flop). Gibaldi & Perrier 1982,
    ch. 1. Bounds that allow one of them only decide.
    """
    freedom = problem.freedom
    if problem.graph.compartments != ("central", "depot") or not {"ka", "cl", "v"} <= set(freedom.names):
        return at
    if freedom.link.sum(axis=0).max() > 1:  # something follows another parameter
        return at
    ka, cl, v = (freedom.names.index(n) for n in ("ka", "cl", "v"))
    other = at.copy()
    other[:, ka], other[:, v] = at[:, cl] - at[:, v], at[:, cl] - at[:, ka]
    better = (other[:, ka] > at[:, ka]) & ((low < other) & (other < high)).all(axis=1)
    return np.where(better[:, None], other, at)


def _limits(graph: RateGraph, freedom: Freedom, settings: FitSettings) -> tuple[FloatArray, FloatArray]:
    """Return the user's and the model's bounds as free coordinates (q,)."""
    low, high = [], []
    for p in graph.parameters:
        a, b = settings.bounds.get(p.name, (None, None))
        floor, ceiling = (a if a is not None else p.lower), (b if b is not None else p.upper)
        if floor is not None and ceiling is not None and floor >= ceiling:
            raise ValueError(
                f"bounds of {p.name} are {floor:g} and {ceiling:g}; the lower one must be below the upper one"
            )
        least, most = -np.inf if p.scale == "linear" else 0.0, 1.0 if p.scale == "logit" else np.inf
        low.append(least if floor is None else floor)
        high.append(most if ceiling is None else ceiling)
        if not (least <= low[-1] <= most and least <= high[-1] <= most):
            raise ValueError(
                f"bounds of {p.name} are {low[-1]:g} and {high[-1]:g}; it can only lie between {least:g} and {most:g}"
            )
        if p.name in settings.bounds and p.name in settings.ties:
            raise ValueError(f"{p.name} follows {settings.ties[p.name]} and has no bounds of its own; bound that one")
    unknown = sorted(set(settings.bounds) - set(graph.names))
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not a parameter of {graph.name}; {nearest(unknown[0], graph.names)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return freedom.free(graph.to_search(np.array(low))), freedom.free(graph.to_search(np.array(high)))


def _repeated(problem: Problem, times: int) -> Problem:
    """Return every data set several times over, all first tries before all second ones."""
    return problem if times == 1 else problem.take(np.tile(np.arange(len(problem.value)), times))
