"""What follows from a fitted model: half-lives, areas, uptake, volumes, each with its exact gradient.

Areas and moments are solutions of the rate matrix, so no curve is integrated and nothing is differenced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import ONE, RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design, solve

FloatArray = NDArray[np.float64]
#: Quantities that rest on the curve beyond the last sample.
TO_INFINITY = ("auc_inf", "mrt_inf", "vss", "cl", "v2", "q", "v3", "q3")


class Derived(NamedTuple):
    """A quantity: dimension expression, value, gradient (p,) with respect to search coordinates, and why it is missing."""

    name: str
    dimension: str
    value: float
    gradient: FloatArray
    reason: str = ""


class _System(NamedTuple):
    """The part of a model that decides what is seen first: K, F of the first port, C, and their slopes."""

    K: FloatArray
    k_slopes: FloatArray
    f: FloatArray
    df: FloatArray
    c: FloatArray
    dc: FloatArray


def _system(graph: RateGraph, theta: FloatArray, seen: Iterable[tuple[str, object]] | None = None) -> _System:
    """Return the compartments from which what is seen can still be reached; others only collect."""
    th = theta[None]
    slopes = graph.search_slopes(th)
    n = len(graph.compartments)
    C, dC = graph.view.value(th)[0, 0, :n], graph.view.slopes(th, slopes)[0, :, 0, :n]
    keep = _leading(graph, graph.observations[0].terms if seen is None else seen)
    K, k_slopes = graph.flow.value(th)[0], graph.flow.slopes(th, slopes)[0]
    f, df = graph.entries.value(th)[0, :, 0], graph.entries.slopes(th, slopes)[0, :, :, 0]
    square = np.ix_(keep, keep)
    return _System(K[square], k_slopes[:, keep][:, :, keep], f[keep], df[:, keep], C[keep], dC[:, keep])


def _area(s: _System) -> tuple[float, FloatArray, float, FloatArray]:
    """Return -c K^-1 f and c K^-2 f, the area and first moment after a unit dose, with their gradients."""
    x1 = np.linalg.solve(s.K, s.f)
    x2 = np.linalg.solve(s.K, x1)
    w1 = np.linalg.solve(s.K.T, s.c)
    w2 = np.linalg.solve(s.K.T, w1)
    area = -(s.c @ x1)
    d_area = -(s.dc @ x1 - (s.k_slopes @ x1) @ w1 + s.df @ w1)
    moment = s.c @ x2
    d_moment = s.dc @ x2 - (s.k_slopes @ x2) @ w1 - (s.k_slopes @ x1) @ w2 + s.df @ w2
    return float(area), d_area, float(moment), d_moment


def _ratio(a: float, da: FloatArray, b: float, db: FloatArray) -> tuple[float, FloatArray]:
    return a / b, (da - a / b * db) / b


def derived(graph: RateGraph, theta: FloatArray, design: Design, dose_unit: str, last_h: float) -> list[Derived]:
    """Return everything that follows from the parameters of a model.

    Parameters
    ----------
    graph : the model; theta : (p,); design : with the inputs of one problem.
    dose_unit : in the names of amounts; last_h : last time of the data, hours.

    Returns
    -------
    list of Derived : half-lives, and after a dose area, mean residence time, steady-state volume and clearance; per
        organ net uptake by the last time and highest amount until then. With a measured input: `vt` or `ki`.
    """
    first = design.inputs[graph.ports[0].name]
    if not graph.linear:  # areas and half-lives of a saturable model depend on the dose: its organs are all there is
        return organ_amounts(graph, theta, design, dose_unit, last_h)
    if isinstance(first, Doses):
        return _after_dose(graph, theta, float(np.sum(first.amount))) + organ_amounts(
            graph, theta, design, dose_unit, last_h
        )
    return _of_tissue(graph, theta)


def _after_dose(graph: RateGraph, theta: FloatArray, dose: float) -> list[Derived]:
    s = _system(graph, theta)
    rates, vectors = np.linalg.eig(s.K)
    order = np.argsort(np.abs(np.real(rates)))
    found = []
    with np.errstate(all="ignore"):
        left = np.linalg.inv(vectors) if np.linalg.cond(vectors) < 1e10 else np.full(vectors.shape, np.nan)
        for name, i in (("half_life", order[0]), ("half_life_initial", order[-1])):
            rate = float(abs(np.real(rates[i])))
            slope = np.real(np.einsum("i,pij,j->p", left[i], s.k_slopes, vectors[:, i])) * np.sign(np.real(rates[i]))
            found.append(Derived(name, "time", np.log(2) / rate, -np.log(2) / rate**2 * slope))
    try:
        area, d_area, moment, d_moment = _area(s)
    except np.linalg.LinAlgError:
        return found
    mrt, d_mrt = _ratio(moment, d_moment, area, d_area)
    cl, d_cl = 1 / area, -d_area / area**2
    found += [Derived("auc_inf", "value*time", dose * area, dose * d_area), Derived("mrt_inf", "time", mrt, d_mrt)]
    if "ka" not in graph.names:  # after absorption the residence time holds the time of absorption too
        found.append(Derived("vss", "dose/value", cl * mrt, d_cl * mrt + cl * d_mrt))
    if "cl" not in graph.names:
        found.append(Derived("cl", "dose/value/time", cl, d_cl))
    return found


def _of_tissue(graph: RateGraph, theta: FloatArray) -> list[Derived]:
    """Return the volume of distribution, or the uptake constant where a compartment keeps what it gets."""
    n = len(graph.compartments)
    found: list[Derived] = []
    if graph.ports[0].name == "plasma":
        leaves = {t.source for t in graph.transfers}
        traps = [i for i, c in enumerate(graph.compartments) if c not in leaves]
        s = _system(graph, theta, [(c, ONE) for c in graph.compartments if c in leaves])
        if traps:
            slopes = graph.search_slopes(theta[None])
            keep = [i for i in range(n) if i not in traps]
            row = graph.flow.value(theta[None])[0][traps].sum(axis=0)[keep]
            d_row = graph.flow.slopes(theta[None], slopes)[0][:, traps].sum(axis=1)[:, keep]
            area, slope, _, _ = _area(s._replace(c=row, dc=d_row))
            found.append(Derived("ki", "1/time", area, slope))
        else:
            area, slope, _, _ = _area(s._replace(c=np.ones(n), dc=np.zeros((len(theta), n))))
            found.append(Derived("vt", "1", area, slope))
    names = list(graph.names)
    if "k3" in names and "k4" in names:
        ratio = float(theta[names.index("k3")] / theta[names.index("k4")])
        slope = np.zeros(len(theta))
        slope[names.index("k3")], slope[names.index("k4")] = ratio, -ratio
        found.append(Derived("bp_nd", "1", ratio, slope))
    return found


def organ_amounts(graph: RateGraph, theta: FloatArray, design: Design, dose_unit: str, last_h: float) -> list[Derived]:
    """Return net uptake by a time and highest amount until then, of every organ without its vessel blood."""
    organs = graph.organs
    if not organs:
        return []
    bare = graph.without_vessels
    first = float(design.time_h[design.time_h > 0].min(initial=last_h)) if design.time_h.size else last_h
    grid = np.r_[np.geomspace(min(first, last_h) / 20, last_h, 200)]
    y = solve(bare, theta[None], Design(grid, inputs=design.inputs)).y[0]
    top = [int(np.argmax(y[:, i])) for i in range(len(organs))]
    at = np.r_[last_h, grid[top]]
    chosen = solve(bare, theta[None], Design(at, inputs=design.inputs), derivatives=True)
    found = []
    for i, organ in enumerate(organs):
        for word, row in (("uptake", 0), ("peak", 1 + i)):
            found.append(
                Derived(f"{organ}_{word}_{dose_unit}", "1", float(chosen.y[0, row, i]), chosen.dy[0, :, row, i])
            )
    return found


def too_far(graph: RateGraph, theta: FloatArray, design: Design, last_h: float, max_extrap_pct: float) -> set[str]:
    """Return which quantities rest on the curve beyond the last blood sample.

    The area and what follows from it: when more than the given share of it lies beyond. The terminal half-life: when
    it is longer than half of the time that was sampled.
    """
    given = design.inputs[graph.ports[0].name]
    if not graph.linear or not isinstance(given, Doses):
        return set()
    s = _system(graph, theta)
    rates = np.abs(np.real(np.linalg.eigvals(s.K)))
    late = {"half_life"} if np.log(2) > 0.5 * last_h * rates.min() else set()
    try:
        whole = float(np.sum(given.amount)) * float(s.c @ np.linalg.solve(s.K, s.f))
        keep = _leading(graph, graph.observations[0].terms)
        left = solve(graph, theta[None], Design([last_h], inputs=design.inputs)).amounts[0, 0, keep]
        beyond = float(s.c @ np.linalg.solve(s.K, left)) / whole
    except np.linalg.LinAlgError:
        return late
    return late | (set(TO_INFINITY) if 100 * beyond > max_extrap_pct else set())


def _leading(graph: RateGraph, seen: Iterable[tuple[str, object]]) -> list[int]:
    """Return the compartments that are seen or lead to one that is."""
    leads = {c for c, _ in seen if c in graph.index}
    while True:
        more = {t.source for t in graph.transfers if t.target in leads} - leads
        if not more:
            return [i for i, c in enumerate(graph.compartments) if c in leads]
        leads |= more
