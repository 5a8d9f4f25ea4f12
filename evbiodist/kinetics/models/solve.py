"""The exact solution of linear rate graphs, for many parameter vectors at once, with exact derivatives.

Modes come from a symmetrised matrix where the graph allows it (a tree of two-way exchanges), else from a general
eigen-decomposition; derivatives are divided differences between modes. Where eigenvectors are nearly dependent
(equal rates in a chain) matrix exponentials of the system with its inputs take over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Answer, Doses, Input

FloatArray = NDArray[np.float64]
Numbers = NDArray[Any]
#: Eigenvectors this dependent lose more digits than the solution may.
_CONDITION = 1e5
#: Modes whose exponents differ by less than this are taken as equal: the mean of both slopes then has all digits.
_NEAR = 1e-5


@dataclass(frozen=True, eq=False)
class Design:
    """When was measured, and what was given.

    Parameters
    ----------
    time_h : (T,) or (B, T) sample times in hours, or starts of frames.
    end_h : ends of frames; the prediction is then the mean over each frame.
    inputs : by the name of the model's ports.

    Raises
    ------
    ValueError : frames without duration, times that are not numbers.

    Examples
    --------
    >>> Design([0, 1], end_h=[1, 3], inputs={"dose": Doses(100)}).time_h.shape
    (1, 2)
    """

    time_h: FloatArray
    end_h: FloatArray | None
    inputs: Mapping[str, Input]

    def __init__(self, time_h: ArrayLike, end_h: ArrayLike | None = None, *, inputs: Mapping[str, Input]) -> None:
        t = np.atleast_2d(np.asarray(time_h, dtype=np.float64))
        e = None if end_h is None else np.atleast_2d(np.asarray(end_h, dtype=np.float64))
        if not np.isfinite(t).all() or (e is not None and not np.isfinite(e).all()):
            raise ValueError("sample times have values that are not numbers; drop those rows")
        if e is not None and (e.shape != t.shape or (e <= t).any()):
            raise ValueError("every frame needs an end after its start; check the frames' starts and durations")
        object.__setattr__(self, "time_h", t)
        object.__setattr__(self, "end_h", e)
        object.__setattr__(self, "inputs", inputs)

    def take(self, rows: Any) -> Design:
        """Return the design of some problems."""
        out = object.__new__(Design)  # already validated, and this is called for every step of a fit
        own = len(self.time_h) > 1
        object.__setattr__(out, "time_h", self.time_h[rows] if own else self.time_h)
        object.__setattr__(out, "end_h", self.end_h if self.end_h is None or not own else self.end_h[rows])
        object.__setattr__(out, "inputs", {k: v.take(rows) for k, v in self.inputs.items()})
        return out


def bolus(graph: RateGraph, time_h: ArrayLike, dose: float) -> Design:
    """Return the everyday design: one amount at once at 0 h into the model's first port."""
    return Design(time_h, inputs={graph.ports[0].name: Doses(dose)})


class Solution(NamedTuple):
    """What a model predicts.

    Parameters
    ----------
    y : (B, T, n_observed); dy : (B, p, T, n_observed) with respect to search coordinates, p = 0 when not asked for.
    amounts : (B, T, n).
    """

    y: FloatArray
    dy: FloatArray
    amounts: FloatArray


def solve(
    graph: RateGraph, theta: FloatArray, design: Design, *, derivatives: bool = False, held: Collection[str] = ()
) -> Solution:
    """Return what a graph predicts: a linear one exactly, another one by `evbiodist.kinetics.models.saturable`.

    Parameters
    ----------
    graph : transfers of first order have an exact solution.
    theta : (B, p) parameters of B problems.
    design : times and inputs, shared or one for each problem.
    derivatives : also with respect to the search coordinate of every parameter.
    held : lags whose derivative is not wanted, which saves its work; it is 0 then.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError : an input that is not given.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> g = build("one_compartment_iv")
    >>> design = Design([0, 1], end_h=[1, 3], inputs={"dose": Doses(10, 0, duration_h=2)})
    >>> solve(g, np.array([[1.0, 2.0]]), design).y[0, :, 0].round(4).tolist()
    [1.0653, 2.5503]

    Divided differences: Najfeld I, Havel TF (1995) Adv Appl Math 16:321. Symmetrised mammillary and catenary systems:
    Hearon JZ (1963) Ann N Y Acad Sci 108:36.
    """
    if not graph.linear:
        from evbiodist.kinetics.models import saturable  # which needs this module

        return saturable.solve(graph, theta, design, derivatives=derivatives)
    missing = [p.name for p in graph.ports if p.name not in design.inputs]
    if missing:
        raise ValueError(f"model {graph.name} needs the input {', '.join(missing)}; give it in the design")
    B, T, n, n_obs = len(theta), design.time_h.shape[1], len(graph.compartments), len(graph.observations)
    slopes = graph.search_slopes(theta)
    size = theta.shape[1] if derivatives else 0
    terms = graph.flow.terms(theta)
    K = graph.flow.value(theta, terms)
    groups = list(_modes(graph, K))
    if len(groups) == 1 and groups[0].vectors is not None and isinstance(groups[0].rows, slice):
        return _show(*_by_modes(graph, groups[0], theta, slopes, terms, design, derivatives, held))
    # the last two axes are (observed, time) in memory and are shown as (time, observed)
    out = _Parts(np.empty((B, n_obs, T)), np.empty((B, size, n_obs, T)), np.empty((B, n, T)))
    for modes in groups:
        rows = modes.rows
        if modes.vectors is None:
            for b in np.arange(B)[rows]:
                _by_exponentials(graph, theta[b : b + 1], design.take(slice(b, b + 1)), slopes[b], out, b)
            continue
        part = _by_modes(graph, modes, theta[rows], slopes[rows], terms[rows], design.take(rows), derivatives, held)
        for whole, piece in zip(out, part, strict=True):
            whole[rows] = piece
    return _show(*out)


class _Parts(NamedTuple):
    """Predictions (B, O, T), derivatives (B, p, O, T) and amounts (B, n, T)."""

    y: FloatArray
    dy: FloatArray
    x: FloatArray


def _show(y: FloatArray, dy: FloatArray, x: FloatArray) -> Solution:
    return Solution(y.swapaxes(1, 2), dy.swapaxes(2, 3), x.swapaxes(1, 2))


class _Modes(NamedTuple):
    """Rates of the modes (b, n) with right and left vectors (b, n, n), for some of the problems."""

    rows: Any
    rates: Numbers
    vectors: Numbers | None
    inverse: Numbers | None


def _modes(graph: RateGraph, K: FloatArray) -> Iterator[_Modes]:
    """Decompose every problem's matrix by the best way there is for it."""
    tree = graph.tree
    general: NDArray[np.bool_] = np.ones(len(K), dtype=np.bool_)
    if tree is not None:
        up, down = K[:, tree.parent, tree.child], K[:, tree.child, tree.parent]
        two_way = np.all((up > 0) & (down > 0), axis=1)
        if two_way.any():
            rows: Any = slice(None) if two_way.all() else np.flatnonzero(two_way)
            half = 0.5 * (np.log(up[rows]) - np.log(down[rows]))
            scale = np.exp(np.einsum("ne,be->bn", tree.path, half))
            rates, Q = np.linalg.eigh(K[rows] * scale[:, :, None] / scale[:, None, :])
            yield _Modes(rows, rates, Q / scale[:, :, None], np.swapaxes(Q, 1, 2) * scale[:, None, :])
        general = np.logical_not(two_way)
    if general.any():
        yield from _general_modes(K, np.flatnonzero(general))


def _general_modes(K: FloatArray, rows: NDArray[np.intp]) -> Iterator[_Modes]:
    sane = np.isfinite(K[rows]).all(axis=(1, 2))
    if not sane.all():
        bad = rows[~sane]
        nothing = np.full((len(bad), K.shape[1]), np.nan)
        yield _Modes(bad, nothing, np.full(K[bad].shape, np.nan), np.full(K[bad].shape, np.nan))
        rows = rows[sane]
        if not rows.size:
            return
    rates, V = np.linalg.eig(K[rows])
    cyclic = np.abs(np.imag(rates)).max(axis=1) > 0
    for which, real in ((~cyclic, True), (cyclic, False)):
        if which.any():  # apart, so that a real problem is solved in real numbers whoever stands beside it
            own = [np.ascontiguousarray(np.real(a[which]) if real else a[which]) for a in (rates, V)]
            yield from _inverted(rows[which], *own)


def _inverted(rows: NDArray[np.intp], rates: Numbers, V: Numbers) -> Iterator[_Modes]:
    """Add left vectors; problems whose vectors are nearly dependent come without any."""
    solid = np.abs(np.linalg.det(V)) > 1e-12
    inverse = np.zeros_like(V)
    inverse[solid] = np.linalg.inv(V[solid])
    size = np.sqrt(np.sum(np.abs(V) ** 2, axis=(1, 2)) * np.sum(np.abs(inverse) ** 2, axis=(1, 2)))
    solid &= size < _CONDITION
    if solid.any():
        yield _Modes(rows[solid], rates[solid], V[solid], inverse[solid])
    if not solid.all():
        yield _Modes(rows[~solid], rates[~solid], None, None)


def _by_modes(
    graph: RateGraph, modes: _Modes, theta: FloatArray, slopes: FloatArray, terms: FloatArray, design: Design,
    derivatives: bool, held: Collection[str],
) -> _Parts:  # fmt: skip
    """Return what is seen (or its mean over frames), amounts and derivatives.

    Products of stacked matrices throughout: each problem is its own small product, so neighbours change no bit of it.
    """
    V, W = modes.vectors, modes.inverse
    if V is None or W is None:
        raise ValueError("these modes have no vectors")
    B, n, p = len(theta), len(graph.compartments), theta.shape[1]
    pushes = W @ graph.entries.value(theta)
    if derivatives:
        # every transfer is an outer product of a left and a right vector; parameters are sums of transfers
        ends = graph.ends
        lift = -W[:, :, ends.source]
        lift[:, :, ends.inside] += W[:, :, ends.target[ends.inside]]
        flow = graph.flow.term_slopes(theta, terms, slopes).swapaxes(1, 2)
        entry_slopes = None if graph.entries.constant else W[:, None] @ graph.entries.slopes(theta, slopes)
    driven: Any = 0.0
    by_term: Any = 0.0
    direct: Any = None
    for i, port in enumerate(graph.ports):
        if not port.into:
            continue
        given, lag = design.inputs[port.name], graph.names.index(port.lag) if port.lag else None
        delay = _delay(theta, lag)
        answer, drift = _answers(
            given, modes.rates, design, delay, derivatives and lag is not None and port.lag not in held
        )
        push = pushes[:, :, i, None]
        driven = driven + answer.value * push
        if not derivatives:
            continue
        between = _divided(answer, modes.rates, design, delay) * push[:, None]
        by_term = by_term + V[:, None] @ between  # (B, mode, source, T)
        if entry_slopes is None and drift is None:
            continue
        direct = np.zeros((B, p, *answer.value.shape[1:]), answer.value.dtype) if direct is None else direct
        if entry_slopes is not None:
            direct += entry_slopes[:, :, :, i, None] * answer.value[:, None]
        if lag is not None and drift is not None:
            direct[:, lag] -= drift * push * slopes[:, lag, None, None]
    x = np.real(V @ driven)
    C = graph.view.value(theta)
    y = C[:, :, :n] @ x
    dy = np.empty((B, 0, *y.shape[1:]))
    if derivatives:
        sight = C[:, :, :n] @ V
        moved = by_term[:, :, ends.source] * lift[..., None]  # (B, mode, transfer, T)
        seen = np.real(sight[:, None] @ moved.swapaxes(1, 2)).reshape(B, len(ends.source), -1)
        dy = (flow @ seen).reshape(B, p, *y.shape[1:])
        if direct is not None:
            dy = dy + np.real(sight[:, None] @ direct)
    return _with_view(graph, theta, slopes, design, _Parts(y, dy, x), derivatives)


def _delay(theta: FloatArray, lag: int | None) -> FloatArray | float:
    """Return the delay of every problem, as one number where all share it, so that their times stay shared."""
    if lag is None:
        return 0.0
    delay = theta[:, lag, None]
    return float(delay[0, 0]) if (delay == delay[0]).all() else delay


def _answers(
    given: Input, rates: Numbers, design: Design, delay: FloatArray | float, drifts: bool
) -> tuple[Answer, Numbers | None]:
    """Return how modes answer at the design's times, (B, n, T), and how fast that changes with time for a lag."""
    answer, drift = _answers_by_time(given, rates, design, delay, drifts)
    return Answer(*(a.swapaxes(1, 2) for a in answer)), None if drift is None else drift.swapaxes(1, 2)


def _answers_by_time(
    given: Input, rates: Numbers, design: Design, delay: FloatArray | float, drifts: bool
) -> tuple[Answer, Numbers | None]:
    size = (len(rates), design.time_h.shape[1])
    start = np.broadcast_to(design.time_h - delay, size)
    if design.end_h is None:
        answer = given.answer(rates, start, False)
        drift = rates[:, None, :] * answer.value + given.level(start, False)[..., None] if drifts else None
        return answer, drift
    end = np.broadcast_to(design.end_h - delay, start.shape)
    if (design.time_h[:, 1:] == design.end_h[:, :-1]).all():  # frames without gaps share their edges
        edges = np.concatenate([design.time_h, design.end_h[:, -1:]], axis=1) - delay
        edges = np.broadcast_to(edges, (size[0], size[1] + 1))
        whole = given.answer(rates, edges, True)
        low, high = Answer(*(a[:, :-1] for a in whole)), Answer(*(a[:, 1:] for a in whole))
    else:
        low, high = given.answer(rates, start, True), given.answer(rates, end, True)
    width = (end - start)[..., None]
    drift = (
        (given.answer(rates, end, False).value - given.answer(rates, start, False).value) / width if drifts else None
    )
    return Answer((high.value - low.value) / width, (high.slope - low.slope) / width), drift


def _divided(answer: Answer, rates: Numbers, design: Design, delay: FloatArray | float) -> Numbers:
    """Return divided differences of the answers between every two modes, (B, n, n, T)."""
    last = np.atleast_2d((design.time_h if design.end_h is None else design.end_h) - delay)
    gap = (rates[:, :, None] - rates[:, None, :])[..., None]
    value, slope = answer
    near = np.abs(gap) * np.abs(last)[:, None, None, :] < _NEAR
    between = (value[:, :, None] - value[:, None]) / np.where(near, 1.0, gap)
    np.copyto(between, (slope[:, :, None] + slope[:, None]) / 2, where=near)
    return between


def _with_view(
    graph: RateGraph, theta: FloatArray, slopes: FloatArray, design: Design, parts: _Parts, derivatives: bool
) -> _Parts:
    """Add what observations see of inputs, and how coefficients of observations change with parameters."""
    y, dy, x = parts
    n, B = len(graph.compartments), len(theta)
    view = graph.view
    # a term sees one compartment in one row; only terms with a parameter in them matter
    live = np.flatnonzero(view.exponents.any(axis=1)) if derivatives else np.zeros(0, np.intp)
    rows, columns = view.cells[live].T
    inside = columns < n
    if inside.any():
        by_term = view.term_slopes(theta, view.terms(theta), slopes)[:, live[inside]].swapaxes(1, 2)
        spot = np.eye(y.shape[1])[rows[inside]]
        shown = (spot[None, :, :, None] * x[:, columns[inside], None, :]).reshape(B, len(spot), y[0].size)
        dy = dy + (by_term @ shown).reshape(dy.shape)
    if not graph.sees_inputs:
        return _Parts(y, dy, x)
    C, dC = view.value(theta), view.slopes(theta, slopes) if derivatives else None
    for i, port in enumerate(graph.ports):
        lag = graph.names.index(port.lag) if port.lag else None
        level, drift = _levels(design.inputs[port.name], design, _delay(theta, lag))
        y = y + level[:, None, :] * C[:, :, n + i, None]
        if dC is not None:
            dy = dy + level[:, None, None, :] * dC[:, :, :, n + i, None]
            if lag is not None:
                dy[:, lag] -= drift[:, None, :] * C[:, :, n + i, None] * slopes[:, lag, None, None]
    return _Parts(y, dy, x)


def _levels(given: Input, design: Design, delay: FloatArray | float) -> tuple[FloatArray, FloatArray]:
    """Return an input's value at the design's times, or mean over frames, and its change with time."""
    start = design.time_h - delay
    if design.end_h is None:
        return given.level(start, False), given.steepness(start)
    end = design.end_h - delay
    mean = (given.level(end, True) - given.level(start, True)) / (end - start)
    return mean, (given.level(end, False) - given.level(start, False)) / (end - start)


# the safe path


def _by_exponentials(
    graph: RateGraph, theta: FloatArray, design: Design, slopes: FloatArray, out: _Parts, b: int
) -> None:
    """Solve one problem by matrix exponentials; derivatives by complex steps, which are exact."""
    n, size = len(graph.compartments), out.dy.shape[1]
    x = np.real(_march(graph, theta, design)).T[None]
    dx = np.empty((1, size, *x.shape[1:]))
    for p in range(size):
        step = np.zeros_like(theta, dtype=complex)
        step[0, p] = 1e-30j * slopes[p]
        dx[0, p] = np.imag(_march(graph, theta + step, design)).T / 1e-30
    sight = graph.view.value(theta)[:, :, :n]
    parts = _with_view(graph, theta, slopes[None], design, _Parts(sight @ x, sight[:, None] @ dx, x), size > 0)
    for whole, piece in zip(out, parts, strict=True):
        whole[b] = piece[0]


def _march(graph: RateGraph, theta: Numbers, design: Design) -> Numbers:
    """Return amounts (T, n), or means over frames, stepping from event to event (Van Loan 1978)."""
    from scipy.linalg import expm

    n = len(graph.compartments)
    generators = [design.inputs[p.name].generator() for p in graph.ports]
    sizes = [len(c) for _, c in generators]
    A: Numbers = np.zeros((2 * n + sum(sizes),) * 2, dtype=theta.dtype)
    A[:n, :n] = graph.flow.value(theta)[0]
    A[n : 2 * n, :n] = np.eye(n)  # the integral of the amounts
    entry = graph.entries.value(theta)[0]
    z: Numbers = np.zeros(len(A), dtype=theta.dtype)
    events: list[tuple[Any, int, Any]] = []
    at = 2 * n
    for i, (port, (G, c)) in enumerate(zip(graph.ports, generators, strict=True)):
        own = slice(at, at + sizes[i])
        A[own, own], A[:n, own] = G, np.outer(entry[:, i], c)
        lag = theta[0, graph.names.index(port.lag)] if port.lag else 0.0
        events += [(e.time_h + lag, 0, (own, entry[:, i], e)) for e in design.inputs[port.name].events()]
        at = own.stop
    stops = [design.time_h[0]] + ([] if design.end_h is None else [design.end_h[0]])
    marks = [(complex(t), 1, (k, j)) for k, times in enumerate(stops) for j, t in enumerate(times)]
    found = np.zeros((2, design.time_h.shape[1], 2 * n), dtype=theta.dtype)
    now: Any = None
    for time, kind, what in sorted(events + marks, key=lambda e: (np.real(e[0]), e[1])):
        if now is not None and time != now:
            step = time - now if np.iscomplexobj(theta) else np.real(time - now)
            z = expm(A * step) @ z
        now = time
        if kind:
            found[what[0], what[1]] = z[: 2 * n]
            continue
        own, push, event = what
        z[:n] = z[:n] + push * event.jump
        z[own] = event.states if event.anew else z[own] + event.states
    if design.end_h is None:
        return found[0, :, :n]
    return (found[1] - found[0])[:, n:] / (design.end_h - design.time_h)[0][:, None]
