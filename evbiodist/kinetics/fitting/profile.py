"""Profile-likelihood intervals: how far a parameter, or what follows from it, may move while all others make up for it.

Every point of every profile of a fit is one problem in a single batched search, so all intervals cost about as much as
one. An end that the data do not close is said to be open; it is never a number that looks like one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.derived import derived
from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.kinetics.fitting.optimum import Optimum, box, known
from evbiodist.kinetics.fitting.problem import Problem
from evbiodist.kinetics.fitting.quantities import Quantity, quantity
from evbiodist.kinetics.fitting.search import REACH
from evbiodist.kinetics.models.solve import Design
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.problems import nearest
from evbiodist.study.units import derive

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

#: What decides how much worse a fit may get within the interval.
THRESHOLDS = {
    "fit": "as the fit's own covariance: its scale, its degrees of freedom and what rows of one animal share",
    "f": "Fisher's F with the residuals' mean square: rows independent, errors known up to a factor",
    "chi2": "chi square with one degree of freedom: errors as given, large samples",
}
#: How an end of an interval came about.
ENDS = {
    "closed": "the fit gets worse than the threshold",
    "open": "the fit never gets worse than the threshold, so the data set no limit here",
    "bound": "the parameter's own bound comes first",
    "lost": "the search did not find the end",
}
_GRID = (0.5, 1.0, 1.5, 2.5)  # first points, in lengths of the covariance's interval
_CLOSE = 1e-6  # of the root of the likelihood ratio to its threshold
_ROUNDS = 40
_MOST = 60  # steps of a search; flat valleys may need more, which is told
_GROWTH = 2.5
_STIFF = 10.0  # how much stiffer a derived quantity is held than the data hold it
_FAR = 1e4  # lengths of the covariance's interval that a parameter on a linear scale may go
_RESTS_ON = 1e-3  # relative change of a quantity per relative change of a parameter
_MOVES = 0.02  # share of what was asked by which a derived quantity must follow
_BETTER = 1e-3  # of the threshold by which another point must be better than the fit to be told


@dataclass(frozen=True, eq=False)
class Profile:
    """The profile of one quantity.

    Parameters
    ----------
    name, unit, level : whose, in what, and of which level.
    value : of the fit; low, high : ends of the interval, the scale's own where open.
    below, above : how each end came about, a key of `ENDS`.
    at : (K,) values at which it was evaluated, rising; distance : (K,) signed root of how much worse the fit is there,
        1 at the threshold.
    n : values the fit rests on; reason : what is wrong with it; empty otherwise.
    """

    name: str
    unit: str
    level: float
    value: float
    low: float
    high: float
    below: str
    above: str
    at: FloatArray
    distance: FloatArray
    n: int
    reason: str = ""

    @property
    def flat(self) -> bool:
        """Whether an end is open or a bound: the data alone do not limit the quantity."""
        return bool({self.below, self.above} & {"open", "bound"})

    @property
    def words(self) -> str:
        """The interval in words.

        Examples
        --------
        >>> x = np.zeros(1)
        >>> Profile("q", "g/h", 0.95, 1.0, 0.2, np.inf, "closed", "open", x, x, 12).words
        'q = 1 g/h; 95 % interval 0.2 to (open above) g/h: the data set no upper limit'
        """
        low, high = f"{self.low:.4g}", f"{self.high:.4g}"
        told = []
        for side, end in (("below", self.below), ("above", self.above)):
            limit = {"below": "lower", "above": "upper"}[side]
            if end == "open":
                low, high = (f"(open {side})", high) if side == "below" else (low, f"(open {side})")
                told.append(f"the data set no {limit} limit")
            elif end == "bound":
                told.append(f"the {limit} end is the parameter's bound, not the data's")
            elif end == "lost":
                low, high = ("(not found)", high) if side == "below" else (low, "(not found)")
        told += [self.reason] if self.reason else []
        ends = (
            f"{self.name} = {self.value:.4g} {self.unit}; {100 * self.level:g} % interval {low} to {high} {self.unit}"
        )
        return ends + (f": {'; '.join(told)}" if told else "")

    @property
    def estimate(self) -> Estimate:
        """The interval as a row of parameters.csv; it has no standard error, only ends."""
        flags = {"at_bound"} if "bound" in (self.below, self.above) else set()
        flags |= {"open_interval"} if "open" in (self.below, self.above) else set()
        lost = "lost" in (self.below, self.above)
        reason = self.reason or ("an end of the profile was not found" if lost else "")
        return Estimate(self.name, self.value, ci_low=self.low, ci_high=self.high, unit=self.unit,
                        method="least squares, profile likelihood", n=self.n, flags=tuple(sorted(flags)),
                        reason=reason)  # fmt: skip


def profile(
    found: FitResult, names: Sequence[str] | None = None, *, level: float | None = None, threshold: str = "fit"
) -> dict[str, Profile]:
    """Return profile-likelihood intervals of parameters and of quantities derived from them.

    Parameters
    ----------
    found : a fit; its weights are kept.
    names : of free parameters and derived quantities; all of them if None.
    level : of the intervals; the fit's if None.
    threshold : a key of `THRESHOLDS`.

    Returns
    -------
    dict : a `Profile` by name. A point of a derived quantity's profile minimises the sum of squares among all parameters
        with the same value of it; ends are found to 1e-6 of the distance to the threshold.

    Raises
    ------
    ValueError : a name, a threshold or a level that is not known.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), "one_compartment_iv", dose=16)
    >>> p = profile(found, ["half_life"])["half_life"]
    >>> p.below, p.above, bool(p.low < p.value < p.high)
    ('closed', 'closed', True)

    Venzon DJ, Moolgavkar SH (1988) Appl Stat 37:87; Bates & Watts 1988, ch. 6; Chandler RE, Bate S (2007) Biometrika
    94:167 for the likelihood ratio adjusted to rows that are not independent.
    """
    return profile_all([found], names, level=level, threshold=threshold)[0]


def profile_all(
    results: Sequence[FitResult], names: Sequence[str] | None = None, *, level: float | None = None,
    threshold: str = "fit",
) -> list[dict[str, Profile]]:  # fmt: skip
    """Return the profiles of many fits of one model to data of one size, all in one batched search.

    Parameters
    ----------
    results : fits that differ in their values only: same model, settings, and numbers of values and times.
    names, level, threshold : as in `profile`.

    Raises
    ------
    ValueError : fits that do not belong together.
    """
    if threshold not in THRESHOLDS:
        raise ValueError(f"threshold has '{threshold}', expected one of {', '.join(THRESHOLDS)}; "
                         f"{nearest(threshold, list(THRESHOLDS))}")  # fmt: skip
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    lanes = _Lanes.of(results, names, level, threshold)
    track = _Track(lanes)
    track.look(np.repeat(np.arange(lanes.size), len(_GRID)),
               (lanes.start[:, None] + (lanes.side * lanes.reach)[:, None] * np.array(_GRID)).ravel())  # fmt: skip
    for _ in range(_ROUNDS):
        open_lanes, target = track.next()
        if not open_lanes.size:
            break
        track.look(open_lanes, target)
    return [_gathered(lanes, track, i, f, level or f.level) for i, f in enumerate(results)]


@dataclass(frozen=True, eq=False)
class Asked:
    """One quantity of one fit, followed on the scale it is searched on; the logarithm for derived ones.

    Parameters
    ----------
    found, name : whose, and which.
    unit, factor : unit of the results, and what brings the data's own into it.
    column : of the free coordinate; -1 for a derived quantity, which is `values` of the parameters.
    """

    found: FitResult
    name: str
    unit: str
    factor: float
    column: int
    values: Quantity

    @property
    def scale(self) -> str:
        """One of `evbiodist.kinetics.models.graph.SCALES`."""
        return self.found.graph.parameters[self.found.graph.names.index(self.name)].scale if self.column >= 0 else "log"

    def coordinate(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return its coordinate (B,) at free coordinates (B, q) of the fit, and the gradient (B, q)."""
        return _many_coordinates(self, self.found.problem, u)

    def natural(self, c: FloatArray | float) -> Any:
        """Return values in the unit of the results."""
        with np.errstate(over="ignore"):
            if self.scale == "linear":
                return c * self.factor
            grown = np.exp(c)
            return self.factor * (grown if self.scale == "log" else 1 / (1 + np.exp(-c)))


def asked_of(
    found: FitResult, names: Sequence[str] | None, shared: dict[tuple[str, float, float], Quantity] | None = None
) -> list[Asked]:
    """Return the quantities of a fit that were named, or all that have a value.

    Parameters
    ----------
    found, names : as in `profile`.
    shared : quantities that were made for other fits of the same model and inputs; they are then followed together.
    """
    shared = {} if shared is None else shared
    freedom, graph = found.problem.freedom, found.graph
    last = float(found.data.time_h.max())
    more = {d.name: d for d in derived(graph, found.theta, found.design, found.dose_unit, last)} if graph.linear else {}
    more = {k: d for k, d in more.items() if k not in freedom.names and np.isfinite(d.value) and d.value > 0}
    able = (*freedom.names, *(k for k in more if k not in ("ki", "vt", "bp_nd")))
    out = []
    for name in able if names is None else names:
        known(able, name)
        own = name in freedom.names
        dimension = graph.parameters[graph.names.index(name)].dimension if own else more[name].dimension
        unit = derive(dimension, found.data.unit[0], found.dose_unit)
        shown = found.dose_unit if name.endswith(f"_{found.dose_unit}") else unit.unit
        key = (name, last, float(found.data.time_h[found.data.time_h > 0].min(initial=last)))
        if key not in shared:
            shared[key] = quantity(graph, name, found.design, last)
        column = freedom.names.index(name) if own else -1
        out.append(Asked(found, name, shown, unit.factor, column, shared[key]))
    return out


@dataclass(frozen=True, eq=False)
class _Lanes:
    """Every end that is looked for: one side of one quantity of one fit."""

    problem: Problem  # one problem a fit
    fit: IntArray  # (L,) which fit
    asked: list[Asked]  # (L,)
    side: FloatArray  # -1 or 1
    u: FloatArray  # (L, q) the fit's coordinates
    start: FloatArray  # (L,) the quantity there, as coordinate
    along: FloatArray  # (L, q) change of the coordinates per change of the quantity, to first order
    reach: FloatArray  # (L,) first guess of the distance to the end
    cost: FloatArray  # (L,) sum of squares of the fit
    limit: FloatArray  # (L,) by how much it may rise
    stiff: FloatArray  # (L,) weight that holds a derived quantity
    low: FloatArray  # (L, q)
    high: FloatArray

    @property
    def size(self) -> int:
        return len(self.fit)

    @classmethod
    def of(
        cls, results: Sequence[FitResult], names: Sequence[str] | None, level: float | None, threshold: str
    ) -> _Lanes:
        problem = stacked(results)
        shared: dict[tuple[str, float, float], Quantity] = {}
        rows: dict[str, list[Any]] = {k: [] for k in ("fit", "asked", "side", "u", "start", "along", "reach", "cost",
                                                      "limit", "stiff", "low", "high")}  # fmt: skip
        for i, f in enumerate(results):
            o, (low, high) = Optimum.of(f), box(f)
            for a in asked_of(f, names, shared):
                start, slope = _coordinate(a, f.problem, o.u)
                naive, own = float(slope @ o.inverse @ slope), float(slope @ o.covariance @ slope)
                tied = naive > 0 and own > 0
                limit = _limit(f, o, own / naive if tied else max(f.chi2_red, 1e-300), level or f.level, threshold)
                reach = np.sqrt(limit * naive) if tied else 0.5
                along = o.inverse @ slope / naive if tied else slope
                for side in (-1.0, 1.0):
                    values = (i, a, side, o.u, start, along, min(reach, REACH / 4), float(o.residual @ o.residual),
                              limit, _STIFF / np.sqrt(naive) if tied else _STIFF, low, high)  # fmt: skip
                    for key, value in zip(rows, values, strict=True):
                        rows[key].append(value)
        asked = rows.pop("asked")
        arrays = {k: np.array(v) for k, v in rows.items()}
        return cls(problem, asked=asked, **arrays)


def _coordinate(a: Asked, problem: Problem, u: FloatArray) -> tuple[float, FloatArray]:
    """Return a quantity's coordinate at free coordinates u (q,), and its gradient (q,)."""
    value, slope = _many_coordinates(a, problem, u[None])
    return float(value[0]), slope[0]


def _many_coordinates(a: Asked, problem: Problem, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    if a.column >= 0:
        return u[:, a.column], np.broadcast_to(np.eye(u.shape[1])[a.column], u.shape)
    value, slope = a.values(problem.theta(u))
    with np.errstate(all="ignore"):
        return np.log(value), (slope / value[:, None]) @ problem.freedom.link


def _limit(f: FitResult, o: Optimum, ratio: float, level: float, threshold: str) -> float:
    """Return by how much the sum of squares may rise."""
    if threshold == "chi2":
        return student(level, np.inf) ** 2
    if threshold == "f":
        df = len(o.residual) - len(o.u)
        return student(level, df) ** 2 * float(o.residual @ o.residual) / df
    return student(level, f.df) ** 2 * ratio


def stacked(results: Sequence[FitResult]) -> Problem:
    """Return the problems of several fits as one, a problem each.

    Raises
    ------
    ValueError : fits that differ in more than their values and times.
    """
    first = results[0].problem
    if len(results) == 1:
        return first
    alike = {(f.graph.name, f.problem.freedom.names, f.problem.value.shape, f.design.time_h.shape, f.problem.place.shape,
              f.problem.scale, f.problem.loss, f.problem.censored is None, f.design.end_h is None,
              tuple(f.problem.freedom.held)) for f in results}  # fmt: skip
    inputs = results[0].design.inputs
    shared = all(f.design.inputs[k] is inputs[k] for f in results for k in inputs)
    if len(alike) > 1 or not shared:
        raise ValueError("these fits differ in model, settings, inputs or in the number of values or times, and cannot "
                         "share a search; profile them one by one")  # fmt: skip
    problems = [f.problem for f in results]
    end = None if first.design.end_h is None else np.concatenate([p.design.end_h for p in problems])
    design = Design(np.concatenate([p.design.time_h for p in problems]), end, inputs=inputs)
    censored = (
        None if first.censored is None else np.concatenate([p.censored for p in problems if p.censored is not None])
    )
    place = np.concatenate([np.atleast_2d(p.place) for p in problems])
    return Problem(first.graph, design, place, np.concatenate([p.value for p in problems]),
                   np.concatenate([p.sigma for p in problems]), censored, first.freedom, first.scale, first.loss)  # fmt: skip


class _Track:
    """What is known of every lane: the last point inside its threshold, the first one outside, and all points."""

    def __init__(self, lanes: _Lanes) -> None:
        n = lanes.size
        self.lanes = lanes
        # where a derived quantity was asked to be, and where the weight that holds it let it settle: a point of its
        # profile exactly there
        self.inner, self.outer = lanes.start.copy(), np.full(n, np.nan)
        self.settled = lanes.start.copy()
        self.inner_z, self.outer_z = np.zeros(n), np.full(n, np.nan)
        self.inner_u, self.outer_u = lanes.u.copy(), np.full(lanes.u.shape, np.nan)
        self.end = [""] * n
        self.width = np.full(n, np.inf)
        self.points: list[list[tuple[float, float]]] = [[] for _ in range(n)]
        self.rough = np.zeros(n, bool)  # whether the search at the end did not converge
        self.better = np.zeros(n)  # how much lower the sum of squares got, in thresholds

    def look(self, who: IntArray, target: FloatArray) -> None:
        """Evaluate the profile of some lanes at some values and keep what that tells."""
        L = self.lanes
        columns = np.array([L.asked[i].column for i in who])
        own = columns >= 0
        low, high = L.low[who], L.high[who]
        rows = np.flatnonzero(own)
        edge = np.clip(target[rows], low[rows, columns[rows]], high[rows, columns[rows]])
        target = target.copy()
        target[rows] = edge
        share = (target - L.start[who]) / np.where(self.inner[who] == L.start[who], 1.0, self.inner[who] - L.start[who])
        far = np.where((self.inner[who] == L.start[who])[:, None], L.along[who] * (target - L.start[who])[:, None],
                       (self.inner_u[who] - L.u[who]) * share[:, None])  # fmt: skip
        u = L.u[who] + far
        between = np.isfinite(self.outer[who])
        if between.any():
            b = who[between]
            w = (target[between] - self.inner[b]) / (self.outer[b] - self.inner[b])
            u[between] = self.inner_u[b] + w[:, None] * (self.outer_u[b] - self.inner_u[b])
        u = np.clip(np.nan_to_num(u), low, high)
        u[rows, columns[rows]] = low[rows, columns[rows]] = high[rows, columns[rows]] = edge
        at, z, x, sure = self._solve(who, target, u, low, high)
        for order in np.lexsort((np.abs(at - L.start[who]), who)):
            self._note(
                int(who[order]), float(at[order]), float(z[order]), x[order], float(target[order]), bool(sure[order])
            )

    def _solve(
        self, who: IntArray, target: FloatArray, u: FloatArray, low: FloatArray, high: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
        L = self.lanes
        problem = L.problem.take(L.fit[who])
        n = problem.value.shape[1]
        derived_here = np.array([L.asked[i].column < 0 for i in who])

        def function(x: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
            r, J = problem(x, rows)
            if not derived_here.any():
                return r, J
            hold, slope = np.zeros((len(rows), 1)), np.zeros((*x.shape, 1))
            for a, mine in _groups(L.asked, who[rows]):
                value, gradient = _many_coordinates(a, problem, x[mine])
                weight = L.stiff[who[rows[mine]]]
                hold[mine, 0] = weight * (value - target[rows[mine]])
                slope[mine, :, 0] = weight[:, None] * gradient
            return np.concatenate([r, hold], axis=1), np.concatenate([J, slope], axis=2)

        with np.errstate(all="ignore"):
            ended = least_squares(function, u, low, high, ftol=1e-7, max_iterations=_MOST)
            cost = np.einsum("bn,bn->b", ended.residual[:, :n], ended.residual[:, :n])
            at = target.copy()
            for a, mine in _groups(L.asked, who):
                at[mine] = _many_coordinates(a, problem, ended.x[mine])[0]
            rise = (cost - L.cost[who]) / L.limit[who]
        return at, np.where(np.isfinite(rise), np.sign(rise) * np.sqrt(np.abs(rise)), np.inf), ended.x, ended.converged

    def _note(self, i: int, at: float, z: float, x: FloatArray, target: float, sure: bool) -> None:
        """Move the bracket of one lane."""
        L = self.lanes
        side, out = L.side[i], L.asked[i]
        if self.end[i]:
            return
        if np.isfinite(at) and np.isfinite(z):
            self.better[i] = max(self.better[i], -z * abs(z))
            self.points[i].append((at, z))
        else:
            z = np.inf  # the model has no value there, so the end lies before
        before, asked_before = self.settled[i], self.inner[i]
        closed = np.isfinite(self.outer[i])
        if z >= 1:
            if not closed or side * (self.outer[i] - target) > 0:
                self.outer[i], self.outer_z[i], self.outer_u[i] = target, z, x
        elif side * (target - self.inner[i]) > 0 and not (closed and side * (target - self.outer[i]) > 0):
            self.inner[i], self.inner_z[i], self.inner_u[i], self.settled[i] = target, z, x, at
        if abs(z - 1) <= _CLOSE:
            self.end[i] = "open" if self._walled(i, x, out) else "closed"
            self.settled[i], self.rough[i] = at, not sure
        elif z < 1 and not np.isfinite(self.outer[i]):
            moved = side * (at - before) > _MOVES * side * (target - asked_before)
            self._may_end(i, at, out, moved or side * (target - asked_before) <= 0, sure)

    def _walled(self, i: int, x: FloatArray, a: Asked) -> bool:
        """Whether a quantity was stopped by how far the search may take a parameter it rests on, not by the data."""
        L = self.lanes
        walled = (np.abs(x - L.u[i]) >= REACH * (1 - 1e-9)) & ((x <= L.low[i]) | (x >= L.high[i]))
        if not walled.any():
            return False
        with np.errstate(all="ignore"):
            slope = _many_coordinates(a, L.problem, x[None])[1][0]
        return bool((np.abs(slope[walled]) > _RESTS_ON).any())

    def _may_end(self, i: int, at: float, a: Asked, moved: bool, sure: bool) -> None:
        """End a lane that has met a bound, or has gone as far as a search may go."""
        L = self.lanes
        if a.column >= 0:
            wall = (L.low if L.side[i] < 0 else L.high)[i, a.column]
            if at == wall:
                self.end[i] = "open" if abs(wall - L.start[i]) >= REACH * (1 - 1e-9) else "bound"
        elif not moved:
            self.end[i] = "open" if sure else "lost"  # asked to go on, and no parameters within reach do
        farthest = _FAR * L.reach[i] if a.scale == "linear" else REACH
        if not self.end[i] and abs(at - L.start[i]) >= farthest:
            self.end[i] = "open"

    def next(self) -> tuple[IntArray, FloatArray]:
        """Return the lanes that are not finished and where to look next."""
        who, targets = [], []
        L = self.lanes
        for i in range(L.size):
            if self.end[i]:
                continue
            a, b, za, zb = self.inner[i], self.outer[i], self.inner_z[i], self.outer_z[i]
            if np.isfinite(b):
                width = abs(b - a)
                if width <= 1e-10 * max(1.0, abs(a)):
                    self.end[i] = "closed"  # a step in the profile
                slow = width > 0.5 * self.width[i] or not np.isfinite(zb)
                self.width[i] = width
                w = 0.5 if slow else np.clip((1 - za) / (zb - za), 0.001, 0.999)
                targets.append(a + w * (b - a))
            else:
                gone = abs(a - L.start[i])
                grown = min(max(1.2 / za if za > 0 else _GROWTH, 1.2), _GROWTH) * gone if gone else L.reach[i] / 4
                targets.append(L.start[i] + L.side[i] * max(grown, 1e-8))
            who.append(i)
        return np.array(who, dtype=np.intp), np.array(targets)


def _groups(asked: Sequence[Asked], who: IntArray) -> list[tuple[Asked, IntArray]]:
    """Return the different derived quantities among some lanes, and which of these are theirs."""
    by: dict[int, tuple[Asked, list[int]]] = {}
    for k, i in enumerate(who):
        if asked[i].column < 0:
            by.setdefault(id(asked[i].values), (asked[i], []))[1].append(k)
    return [(a, np.array(mine, dtype=np.intp)) for a, mine in by.values()]


def _gathered(L: _Lanes, track: _Track, which: int, found: FitResult, level: float) -> dict[str, Profile]:
    """Return the profiles of one fit."""
    out = {}
    lanes = np.flatnonzero(L.fit == which)
    for lower, upper in zip(lanes[::2], lanes[1::2], strict=True):
        a = L.asked[lower]
        ends = {i: track.end[i] or "lost" for i in (lower, upper)}
        c = [track.settled[i] if ends[i] in ("closed", "bound") else L.side[i] * np.inf if ends[i] == "open" else np.nan
             for i in (lower, upper)]  # fmt: skip
        points = sorted(
            {(at, L.side[i] * z) for i in (lower, upper) for at, z in track.points[i]} | {(L.start[lower], 0.0)}
        )
        gain = max(track.better[lower], track.better[upper])
        told = ["another point fits better than the fit: start it again from more places"] if gain > _BETTER else []
        if track.rough[lower] or track.rough[upper]:
            told.append("the search at an end did not converge, so the interval may be wider")
        reason = "; ".join(told)
        low, high = (float(a.natural(x)) for x in c)
        out[a.name] = Profile(
            a.name, a.unit, level, float(a.natural(L.start[lower])), low, high, ends[lower], ends[upper],
            a.natural(np.array([p[0] for p in points])), np.array([p[1] for p in points]),
            int(found.data.count.sum()), reason)  # fmt: skip
    return out
