"""The solution of rate graphs that are not linear, for many parameter vectors at once, with exact sensitivities.

Steps of `radau` go from event to event (doses, knots of measured curves, samples); the variational equations are
solved along with the amounts, and frames are means by the same quadrature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.forms import FORMS, Flux, first_order
from evbiodist.kinetics.models.graph import MonomialSum, RateGraph, Transfer
from evbiodist.kinetics.models.inputs import Doses, Input
from evbiodist.kinetics.models.radau import BoolArray, Moments, Scheme, attempt, extrapolate, scheme
from evbiodist.kinetics.models.solve import Design, Solution

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
#: Steps a problem may take before it is given up.
_STEPS = 5_000
#: Amounts below this share of all that is given, times the relative tolerance, count as nothing.
_NOTHING = 1e-4
#: Stages are not extrapolated to a step that is longer than the last one by more than this: that is worse than nothing.
_FAR = 4.0
#: Sensitivities are carried for as many problems at once as keep this many numbers in a stage.
_NUMBERS = 400_000


class Solved(NamedTuple):
    """A solution and how it came about: why a problem failed (empty where it did not), and how many steps each took."""

    solution: Solution
    reasons: tuple[str, ...]
    steps: IntArray


def solve(
    graph: RateGraph, theta: FloatArray, design: Design, *, derivatives: bool = False, rtol: float = 1e-8,
    atol: float | None = None,
) -> Solution:  # fmt: skip
    """Return what a graph predicts, linear or not; a problem that cannot be solved is NaN.

    Parameters
    ----------
    graph : with transfers of any form of `evbiodist.kinetics.models.forms.FORMS`.
    theta : (B, p) parameters of B problems.
    design : times and inputs, shared or one for each problem.
    derivatives : also with respect to the search coordinate of every parameter.
    rtol, atol : tolerances of amounts and sensitivities; `atol` is an amount, by default 1e-4 x rtol of all
        that is given.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError : an input that is not given, a form without its constants or its target, a tolerance out of reach.

    Examples
    --------
    >>> from evbiodist.kinetics.models.graph import Monomial, ParameterSpec, Port, Seen, Transfer
    >>> k, half = Monomial((("k", 1),)), Monomial((("half", 1),))
    >>> g = RateGraph("mm", "", "", ("a",), (ParameterSpec("k", "1/time", ""), ParameterSpec("half", "dose", "")),
    ...               (Transfer("a", None, k, "michaelis_menten", (("half", half),)),),
    ...               (Seen("a", (("a", Monomial(())),)),), (Port("dose", (("a", Monomial(())),)),))
    >>> design = Design([0, 1, 2], inputs={"dose": Doses(10)})
    >>> solve(g, np.array([[1.0, 1e-3], [1.0, 1e9]]), design).y[:, :, 0].round(4).tolist()
    [[10.0, 9.999, 9.998], [10.0, 3.6788, 1.3534]]

    Hairer E, Wanner G (1999) J Comput Appl Math 111:93 (Radau IIA); Leis JR, Kramer MA (1985) Comput Chem Eng 9:93
    (sensitivities along with the states). The engine was chosen by benchmarks/bench_saturable.py: for the whole body with
    48 sensitivities scipy's BDF takes 2.8 s (error 3e-9 of the dose), its Radau 20 s, this 0.16 s (4e-11), 0.06 s a
    problem when ten are solved at once.
    """
    return solve_with_reasons(graph, theta, design, derivatives=derivatives, rtol=rtol, atol=atol).solution


def solve_with_reasons(
    graph: RateGraph, theta: FloatArray, design: Design, *, derivatives: bool = False, rtol: float = 1e-8,
    atol: float | None = None, stages: int = 7,
) -> Solved:  # fmt: skip
    """Return what `solve` does, with the reason of every problem that failed and the number of steps.

    Parameters
    ----------
    stages : of the method, 3, 5, 7 or 9: order 5, 9, 13 or 17; others as in `solve`.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> g = build("one_compartment_iv")
    >>> found = solve_with_reasons(g, np.array([[1.0, 2.0], [np.nan, 2.0]]), Design([1.0], inputs={"dose": Doses(10)}))
    >>> found.solution.y[0].round(6).tolist(), found.reasons
    ([[3.032653]], ('', 'parameter cl is not a finite number'))
    """
    theta = np.asarray(theta, dtype=np.float64)
    _check(graph, design)
    if not 1e-13 <= rtol <= 0.01:
        raise ValueError(f"rtol is {rtol:g}, expected a relative tolerance from 1e-13 to 0.01")
    if atol is not None and not 0 < atol < np.inf:
        raise ValueError(f"atol is {atol:g}, expected an amount above 0, or None for 1e-4 x rtol of all that is given")
    size = len(graph.names) if derivatives else 0
    B, T, n = len(theta), design.time_h.shape[1], len(graph.compartments)
    out = Solution(np.full((B, T, len(graph.observations)), np.nan),
                   np.full((B, size, T, len(graph.observations)), np.nan), np.full((B, T, n), np.nan))  # fmt: skip
    reasons = _unfit(graph, theta)
    steps = np.zeros(B, dtype=np.intp)
    good = np.flatnonzero([not r for r in reasons])
    chunk = max(1, _NUMBERS // ((size + n) * n * stages))
    for first in range(0, len(good), chunk):
        rows = good[first : first + chunk]
        part, at = design.take(rows), theta[rows]
        run = _Run(graph, at, part, derivatives, rtol, atol, scheme(stages))
        run.march()
        x, dx = run.answer()
        y, dy = _seen(graph, at, part, x, dx if derivatives else None)
        failed = np.array([bool(r) for r in run.reasons])
        y[failed] = np.nan
        out.y[rows], out.amounts[rows] = y, np.where(failed[:, None, None], np.nan, x)
        if dy is not None:
            out.dy[rows] = np.where(failed[:, None, None, None], np.nan, dy)
        steps[rows] = run.steps
        for row, reason in zip(rows, run.reasons, strict=True):
            reasons[row] = reason
    return Solved(out, tuple(reasons), steps)


def _seen(
    graph: RateGraph, theta: FloatArray, design: Design, x: FloatArray, dx: FloatArray | None
) -> tuple[FloatArray, FloatArray | None]:
    """Return what is observed of amounts and of inputs, with derivatives."""
    n, slopes = len(graph.compartments), graph.search_slopes(theta)
    C = graph.view.value(theta)
    y = x @ np.swapaxes(C[:, :, :n], 1, 2)
    dy = None
    if dx is not None:
        dC = graph.view.slopes(theta, slopes)
        dy = dx @ np.swapaxes(C[:, None, :, :n], 2, 3) + x[:, None] @ np.swapaxes(dC[:, :, :, :n], 2, 3)
    shown = {c for o in graph.observations for c, _ in o.terms}
    for i, port in enumerate(graph.ports):
        if port.name not in shown:
            continue
        lag = graph.names.index(port.lag) if port.lag else None
        level, change = _levels(design.inputs[port.name], design, 0.0 if lag is None else theta[:, lag, None])
        y = y + level[..., None] * C[:, None, :, n + i]
        if dy is not None:
            dy = dy + level[:, None, :, None] * dC[:, :, None, :, n + i]
            if lag is not None:
                dy[:, lag] -= change[..., None] * C[:, None, :, n + i] * slopes[:, lag, None, None]
    return y, dy


def _levels(given: Input, design: Design, lag: FloatArray | float) -> tuple[FloatArray, FloatArray]:
    """Return an input's value at the samples, or its mean over frames, and how fast that changes with time."""
    start = design.time_h - lag
    if design.end_h is None:
        return given.level(start, False), given.steepness(start)
    end = design.end_h - lag
    mean = (given.level(end, True) - given.level(start, True)) / (end - start)
    return mean, (given.level(end, False) - given.level(start, False)) / (end - start)


def _check(graph: RateGraph, design: Design) -> None:
    missing = [p.name for p in graph.ports if p.name not in design.inputs]
    if missing:
        raise ValueError(f"model {graph.name} needs the input {', '.join(missing)}; give it in the design")
    for t in graph.transfers:
        form = FORMS.get(t.form)
        if form is None or {k for k, _ in t.constants} != set(form.needs):
            needs = "a registered form" if form is None else f"the constants {', '.join(form.needs) or 'none'}"
            raise ValueError(f"model {graph.name}: the transfer out of {t.source} of form {t.form} needs {needs}")
        if form.needs_target and t.target is None:
            raise ValueError(f"model {graph.name}: the transfer out of {t.source} of form {t.form} needs a target "
                             "that fills up; give it one")  # fmt: skip


def _unfit(graph: RateGraph, theta: FloatArray) -> list[str]:
    """Return why parameter vectors have no solution, empty where they may have one."""
    reasons = []
    with np.errstate(all="ignore"):
        known = np.nan_to_num(theta, nan=1.0)
        parts = (_compiled(graph)[0].terms(known), graph.entries.value(known), graph.view.value(known))
        finite = np.all([np.isfinite(p).reshape(len(theta), -1).all(axis=1) for p in parts], axis=0)
    for row, rates in zip(theta, finite, strict=True):
        bad = [n for n, v in zip(graph.names, row, strict=True) if not np.isfinite(v)]
        reasons.append(f"parameter {', '.join(bad)} is not a finite number" if bad
                       else "" if rates else "a rate is not finite: a parameter that divides is 0")  # fmt: skip
    return reasons


# the right-hand side


@dataclass(frozen=True, eq=False)
class _Group:
    """Transfers of one form: where from and to, and which rows of the monomials are their rates and constants."""

    flux: Any
    source: IntArray
    target: IntArray  # -1 out of the body
    incidence: FloatArray  # (k, n), what a transfer does to every compartment
    rate: IntArray
    constants: IntArray  # (n_constants, k)

    @classmethod
    def of(cls, graph: RateGraph, form: str, transfers: list[Transfer], row: dict[int, int]) -> _Group:
        source = np.array([graph.index[t.source] for t in transfers], dtype=np.intp)
        target = np.array([-1 if t.target is None else graph.index[t.target] for t in transfers], dtype=np.intp)
        incidence = np.zeros((len(transfers), len(graph.compartments)))
        np.add.at(incidence, (np.arange(len(source)), source), -1.0)
        inside = np.flatnonzero(target >= 0)
        np.add.at(incidence, (inside, target[inside]), 1.0)
        constants = [[row[id(dict(t.constants)[name])] for t in transfers] for name in FORMS[form].needs]
        return cls(FORMS[form].flux, source, target, incidence,
                   np.array([row[id(t.rate)] for t in transfers], dtype=np.intp),
                   np.array(constants, dtype=np.intp).reshape(len(FORMS[form].needs), len(transfers)))  # fmt: skip


def _compiled(graph: RateGraph) -> tuple[MonomialSum, list[_Group]]:
    """Return all monomials of a graph's transfers as one sum without patterns, and its transfers by form."""
    monomials = [t.rate for t in graph.transfers] + [m for t in graph.transfers for _, m in t.constants]
    row = {id(m): i for i, m in enumerate(monomials)}
    groups = [_Group.of(graph, form, of_form, row) for form in dict.fromkeys(t.form for t in graph.transfers)
              if (of_form := [t for t in graph.transfers if t.form == form])]  # fmt: skip
    return MonomialSum.of(monomials, np.zeros((len(monomials), 1, 1)), graph.names), groups


def _linear_part(groups: list[_Group], terms: FloatArray, n: int) -> FloatArray:
    """Return K (B, n, n) of the transfers of first order."""
    K = np.zeros((len(terms), n, n))
    for g in groups:
        if g.flux is first_order:
            patterns = g.incidence[:, :, None] * np.eye(n)[g.source][:, None]
            K += (terms[:, g.rate] @ patterns.reshape(-1, n * n)).reshape(K.shape)
    return K


@dataclass(frozen=True, eq=False)
class _Field:
    """`radau.Field` of a graph for some parameter vectors."""

    groups: list[_Group]
    terms: FloatArray  # (B, n_monomials)
    term_slopes: FloatArray | None  # (B, n_monomials, p)
    K: FloatArray  # (B, n, n), the linear part
    F: FloatArray  # (B, n, ports)
    F_slopes: FloatArray | None  # (B, p, n, ports)
    lags: tuple[tuple[int, int], ...]  # port and parameter
    lag_slopes: FloatArray  # (B, lags)

    @classmethod
    def of(cls, graph: RateGraph, theta: FloatArray, derivatives: bool) -> _Field:
        monomials, groups = _compiled(graph)
        slopes, terms = graph.search_slopes(theta), monomials.terms(theta)
        lags = tuple((i, graph.names.index(p.lag)) for i, p in enumerate(graph.ports) if p.lag)
        return cls(groups, terms, monomials.term_slopes(theta, terms, slopes) if derivatives else None,
                   _linear_part(groups, terms, len(graph.compartments)), graph.entries.value(theta),
                   graph.entries.slopes(theta, slopes) if derivatives else None,
                   lags, slopes[:, [p for _, p in lags]])  # fmt: skip

    def take(self, rows: IntArray) -> _Field:
        if len(rows) == len(self.K):
            return self
        return _Field(self.groups, self.terms[rows], None if self.term_slopes is None else self.term_slopes[rows],
                      self.K[rows], self.F[rows], None if self.F_slopes is None else self.F_slopes[rows],
                      self.lags, self.lag_slopes[rows])  # fmt: skip

    def _flux(self, g: _Group, x: FloatArray) -> Flux:
        constants = tuple(self.terms[:, None, c] for c in g.constants)
        target = np.where(g.target >= 0, x[:, :, g.target], 0.0)
        found: Flux = g.flux(self.terms[:, None, g.rate], constants, x[:, :, g.source], target)
        return found

    def _saturating(self) -> Iterator[_Group]:
        return (g for g in self.groups if g.flux is not first_order)

    def slope(self, x: FloatArray, given: FloatArray) -> FloatArray:
        out = x @ np.swapaxes(self.K, 1, 2) + given @ np.swapaxes(self.F, 1, 2)
        for g in self._saturating():
            out = out + self._flux(g, x).value @ g.incidence
        return out

    def jacobian(self, x: FloatArray) -> FloatArray:
        out = np.repeat(self.K[:, None], x.shape[1], axis=1)
        for g in self._saturating():
            flux = self._flux(g, x)
            for k, (source, target) in enumerate(zip(g.source, g.target, strict=True)):
                out[..., source] += flux.by_source[..., k, None] * g.incidence[k]
                if target >= 0:
                    out[..., target] += flux.by_target[..., k, None] * g.incidence[k]
        return out

    def forcing(self, x: FloatArray, given: FloatArray, change: FloatArray) -> FloatArray:
        assert self.term_slopes is not None  # noqa: S101  asked for with derivatives only
        assert self.F_slopes is not None  # noqa: S101
        out = np.einsum("bpni,bmi->bmpn", self.F_slopes, given)
        for g in self.groups:
            flux = self._flux(g, x)
            moved = flux.by_rate[:, :, None] * np.swapaxes(self.term_slopes[:, g.rate], 1, 2)[:, None]
            for c, by in zip(g.constants, flux.by_constants, strict=True):
                moved += by[:, :, None] * np.swapaxes(self.term_slopes[:, c], 1, 2)[:, None]
            out += moved @ g.incidence
        for j, (port, parameter) in enumerate(self.lags):
            out[:, :, parameter] -= (change[:, :, port, None] * self.F[:, None, :, port]
                                     * self.lag_slopes[:, None, j, None])  # fmt: skip
        return out


# when something happens


@dataclass(frozen=True, eq=False)
class _Schedule:
    """Moments at which steps end, rising, padded with infinity.

    `jumps` are amounts given at once, `moved` whether a lag moves what happens; samples are named by their moment.
    """

    time_h: FloatArray  # (B, M)
    event: BoolArray  # (B, M)
    jumps: FloatArray  # (B, M, ports)
    moved: BoolArray  # (B, M, ports)
    sample: tuple[IntArray, ...]  # (B, T) moments of the samples, or of starts and ends of frames

    @classmethod
    def of(cls, graph: RateGraph, theta: FloatArray, design: Design) -> _Schedule:
        B, P = len(theta), len(graph.ports)
        times: list[FloatArray] = []
        jumps: list[FloatArray] = []
        for port in graph.ports:
            lag = theta[:, [graph.names.index(port.lag)]] if port.lag else np.zeros((B, 1))
            at, jump = _events(design.inputs[port.name], B)
            times.append(at + lag)
            jumps.append(jump)
        samples = [design.time_h] if design.end_h is None else [design.time_h, design.end_h]
        everything = np.concatenate([*times, *(np.broadcast_to(s, (B, s.shape[1])) for s in samples)], axis=1)
        moment, place = _moments(everything)
        M = moment.shape[1]
        event, total = np.zeros((B, M), dtype=bool), np.zeros((B, M, P))
        moved = np.zeros((B, M, P), dtype=bool)
        row, at_column = np.arange(B)[:, None], 0
        for i, (t, jump) in enumerate(zip(times, jumps, strict=True)):
            where = place[:, at_column : at_column + t.shape[1]]
            at_column += t.shape[1]
            event[row, where] = True
            np.add.at(total[:, :, i], (np.broadcast_to(row, where.shape), where), jump)
            moved[row, where, i] = graph.ports[i].lag is not None
        T = design.time_h.shape[1]
        sample = tuple(place[:, at_column + i * T : at_column + (i + 1) * T] for i in range(len(samples)))
        return cls(moment, event, total, moved, sample)


def _events(given: Any, size: int) -> tuple[FloatArray, FloatArray]:
    """Return times (B, E) at which an input is not smooth, padded with infinity, and amounts given at once."""
    shared = given.take(slice(0, 1)) is given
    found = [given.take(slice(b, b + 1)).events() for b in range(1 if shared else size)]
    most = max(len(e) for e in found)
    time, jump = np.full((len(found), most), np.inf), np.zeros((len(found), most))
    for b, events in enumerate(found):
        time[b, : len(events)] = [e.time_h for e in events]
        jump[b, : len(events)] = [e.jump for e in events]
    return np.broadcast_to(time, (size, most)), np.broadcast_to(jump, (size, most))


def _moments(times: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the different times of each row (B, M), rising and padded with infinity, and where each one is."""
    order = np.argsort(times, axis=1, kind="stable")
    rising = np.take_along_axis(times, order, axis=1)
    finite = np.where(np.isfinite(rising), rising, np.finfo(float).max)
    apart = np.diff(finite, axis=1) > 1e-12 * np.maximum(1.0, np.abs(finite[:, :-1]))
    group = np.concatenate([np.zeros((len(times), 1), dtype=np.intp), np.cumsum(apart, axis=1)], axis=1)
    place = np.empty_like(group)
    np.put_along_axis(place, order, group, axis=1)
    moment = np.full((len(times), int(group.max()) + 1), np.inf)
    np.minimum.at(moment, (np.arange(len(times))[:, None], place), times)
    return moment, place


# the march


class _Run:
    """Problems that march together: each at its own time with its own step, one attempt of all of them at once."""

    def __init__(
        self, graph: RateGraph, theta: FloatArray, design: Design, derivatives: bool, rtol: float, atol: float | None,
        of: Scheme,
    ) -> None:  # fmt: skip
        B, n, T = len(theta), len(graph.compartments), design.time_h.shape[1]
        p = theta.shape[1] if derivatives else 0
        self.graph, self.design, self.rtol, self.of = graph, design, rtol, of
        self.field = _Field.of(graph, theta, derivatives)
        self.plan = _Schedule.of(graph, theta, design)
        self.lag = np.stack([theta[:, graph.names.index(q.lag)] if q.lag else np.zeros(B) for q in graph.ports], axis=1)
        self.flowing = [i for i, q in enumerate(graph.ports) if not _at_once(design.inputs[q.name])]
        self.time, self.step = self.plan.time_h[:, 0].copy(), np.full(B, np.inf)  # until something is there
        self.stop = np.zeros(B, dtype=np.intp)
        self.final = np.max(np.concatenate(self.plan.sample, axis=1), axis=1)  # what happens later is of no interest
        self.state, self.area = np.zeros((B, 1 + p, n)), np.zeros((B, 1 + p, n))  # amounts first, then sensitivities
        self.stages = np.zeros((B, len(of.nodes), 1 + p, n))
        self.last = np.zeros(B)  # the step of `stages`; 0 where they say nothing about the next one
        self.found = np.zeros((len(self.plan.sample), B, 1 + p, T, n))
        self.atol = np.full(B, atol) if atol is not None else self._nothing()
        self.reasons = [""] * B
        self.steps = np.zeros(B, dtype=np.intp)

    def _nothing(self) -> FloatArray:
        last = np.take_along_axis(self.plan.time_h, self.final[:, None], axis=1)
        total = np.zeros(len(last))
        for i, port in enumerate(self.graph.ports):
            given = np.abs(self.design.inputs[port.name].level(last - self.lag[:, i, None], True)[:, 0])
            total = total + given * np.abs(self.field.F[:, :, i]).sum(axis=1)
        return self.rtol * _NOTHING * np.where(total > 0, total, 1.0)

    def march(self) -> None:
        """Go from the first moment to the last one of every problem."""
        self._land(np.arange(len(self.time)))
        while (rows := self._active()).size:
            self._advance(rows)

    def _active(self) -> IntArray:
        alive = np.array([not r for r in self.reasons])
        return np.flatnonzero(alive & (self.stop <= self.final))

    def _advance(self, rows: IntArray) -> None:
        target = self.plan.time_h[rows, self.stop[rows]]
        left = target - self.time[rows]
        wish = self.step[rows]
        h = np.where(wish >= 0.99 * left, left, np.minimum(wish, left / 2))
        with np.errstate(all="ignore"):  # a step that leads to nowhere is rejected
            tried = attempt(
                self.field.take(rows), self.of, self.state[rows], h, self._moments(rows, h), self._guess(rows, h),
                self.rtol, self.atol[rows],
            )  # fmt: skip
        good = tried.solved & (tried.error <= 1)
        power = -1 / (len(self.of.nodes) + 1)
        with np.errstate(divide="ignore"):
            factor = np.clip(0.9 * np.maximum(tried.error, 1e-16) ** power, 0.1, 8.0)
        factor = np.where(tried.solved, np.where(good, factor, np.minimum(factor, 0.9)), 0.25)
        # a step that was cut short to end at a moment says nothing against the longer one that was wished for
        self.step[rows] = np.where(good & (h < wish), np.maximum(h * factor, wish), h * factor)
        self.steps[rows] += 1
        self._accept(rows[good], h[good], tried.stages[good])
        arrived = rows[good & (h == left)]
        self.time[arrived] = target[good & (h == left)]
        if arrived.size:
            self._land(arrived)
        self._give_up(rows, good)

    def _accept(self, rows: IntArray, h: FloatArray, stages: FloatArray) -> None:
        mean = self.state[rows] + np.einsum("s,bspn->bpn", self.of.weights, stages)
        self.area[rows] += h[:, None, None] * mean
        self.state[rows] += stages[:, -1]
        self.time[rows] += h
        self.stages[rows], self.last[rows] = stages, h

    def _give_up(self, rows: IntArray, good: BoolArray) -> None:
        """Say why problems go no further, if they do not."""
        short = ~good & (self.step[rows] < 1e-14 * np.maximum(1.0, np.abs(self.time[rows])))
        for b in rows[short]:
            self.reasons[b] = f"no step is short enough at {self.time[b]:.4g} h: the amounts run away or jump"
        long = ~short & (self.steps[rows] >= _STEPS) & (self.stop[rows] <= self.final[rows])
        for b in rows[long]:
            self.reasons[b] = f"{_STEPS} steps led only to {self.time[b]:.4g} h; loosen rtol"

    def _guess(self, rows: IntArray, h: FloatArray) -> FloatArray:
        known = self.last[rows] > 0
        ratio = h / np.where(known, self.last[rows], h)
        known &= ratio < _FAR
        return np.where(known[:, None, None, None], extrapolate(self.of, self.stages[rows], ratio), 0.0)

    def _moments(self, rows: IntArray, h: FloatArray) -> Moments:
        """Return what enters at the start and the nodes of a step, on this side of what happens at its ends."""
        start, end = self.time[rows, None], self.plan.time_h[rows, self.stop[rows], None]
        t = start + h[:, None] * np.append(0.0, self.of.nodes)
        return self._given(rows, np.clip(t, start + _edge(start), end - _edge(end)))

    def _given(self, rows: IntArray, t: FloatArray) -> Moments:
        """Return what enters at times (b, m), each input by its lag later, and how fast that changes."""
        given = np.zeros((*t.shape, len(self.graph.ports)))
        change = np.zeros_like(given)
        for i in self.flowing:
            source = self.design.inputs[self.graph.ports[i].name].take(rows)
            given[:, :, i] = source.level(t - self.lag[rows, i, None], False)
            change[:, :, i] = source.steepness(t - self.lag[rows, i, None])
        return Moments(given, change)

    def _land(self, rows: IntArray) -> None:
        """Let happen what happens at the moments that problems have reached, take samples, and go on to the next."""
        k = self.stop[rows]
        happening = self.plan.event[rows, k]
        if happening.any():
            self._happen(rows[happening])
        means = len(self.plan.sample) == 2
        for kind, sample in enumerate(self.plan.sample):
            at, column = np.nonzero(sample[rows] == k[:, None])
            self.found[kind, rows[at], :, column] = (self.area if means else self.state)[rows[at]]
        self.stop[rows] += 1

    def _happen(self, rows: IntArray) -> None:
        """Give doses; turn what a lag moves into a jump of the sensitivity to it; choose the next step anew."""
        jumps, F = self.plan.jumps[rows, self.stop[rows]], self.field.F[rows]
        t = self.time[rows, None]
        after = self._given(rows, t + _edge(t)).given
        here = self.field.take(rows)
        self.state[rows, 0] += np.einsum("bni,bi->bn", F, jumps)
        slope = here.slope(self.state[rows, :1], after)[:, 0]
        if here.F_slopes is not None:
            self.state[rows, 1:] += np.einsum("bpni,bi->bpn", here.F_slopes, jumps)
            before = self._given(rows, t - _edge(t)).given
            for parameter in dict.fromkeys(p for _, p in here.lags):
                ports = [i for i, p in here.lags if p == parameter]
                # just before, all has happened but what this lag moves
                less = np.einsum("bni,bi->bn", F[:, :, ports], jumps[:, ports])
                given = after.copy()
                given[:, :, ports] = before[:, :, ports]
                drop = here.slope((self.state[rows, 0] - less)[:, None], given)[:, 0] - slope
                by = here.lag_slopes[:, [p for _, p in here.lags].index(parameter), None]
                moved = np.any(self.plan.moved[rows, self.stop[rows]][:, ports], axis=1, keepdims=True)
                self.state[rows, 1 + parameter] += np.where(moved, drop * by, 0.0)
                self.area[rows, 1 + parameter] -= np.where(moved, less * by, 0.0)
        new = (jumps != 0).any(axis=1) | ~np.isfinite(self.step[rows])
        self.step[rows] = np.where(new, self._first_step(rows, slope), self.step[rows])
        self.last[rows[new]] = 0.0

    def _first_step(self, rows: IntArray, slope: FloatArray) -> FloatArray:
        """Return a hundredth of the time in which amounts would change by themselves; what is too long is rejected."""
        M = self.plan.time_h.shape[1]
        ahead = self.plan.time_h[rows, np.minimum(self.stop[rows] + 1, M - 1)]
        left = np.where(np.isfinite(ahead), ahead, self.time[rows]) - self.time[rows]
        size, pace = np.abs(self.state[rows, 0]).max(axis=1), np.abs(slope).max(axis=1)
        paced = np.where(size > 0, 0.01 * size, 1e-3 * left * pace) / np.where(pace > 0, pace, 1.0)
        return np.where(pace > 0, paced, left)

    def answer(self) -> tuple[FloatArray, FloatArray]:
        """Return amounts (B, T, n) and sensitivities (B, p, T, n), or their means over frames."""
        found = self.found[0]
        if self.design.end_h is not None:
            found = (self.found[1] - found) / (self.design.end_h - self.design.time_h)[:, None, :, None]
        return found[:, 0], found[:, 1:]


def _edge(t: FloatArray) -> FloatArray:
    """Return how far from a moment its sides are looked at: less than what makes two moments one."""
    return np.asarray(4e-13 * np.maximum(1.0, np.abs(t)))


def _at_once(given: Any) -> bool:
    """Whether an input is nothing but boluses."""
    return isinstance(given, Doses) and not given.duration_h.any()
