"""Derived quantities of many parameter vectors at once, with their exact gradients.

`derived` answers for one fit; a profile or a bootstrap asks for thousands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design, solve

FloatArray = NDArray[np.float64]
#: From parameters (B, p) to values (B,) and their gradients (B, p) with respect to search coordinates.
Quantity = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
_AREAS = ("auc_inf", "mrt_inf", "vss", "cl")
_GRID = 200


def quantity(graph: RateGraph, name: str, design: Design, last_h: float) -> Quantity:
    """Return a parameter or derived quantity as a function of parameters.

    Parameters
    ----------
    graph : linear; name : of a parameter, or as `evbiodist.kinetics.fitting.derived.derived` calls it.
    design : with the inputs of one problem; last_h : time until which organs take up.

    Returns
    -------
    Quantity : in the data's own units, NaN where it does not exist.

    Raises
    ------
    ValueError : a quantity that is not known in this form.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> from evbiodist.kinetics.models.solve import bolus
    >>> g = build("one_compartment_iv")
    >>> value, gradient = quantity(g, "half_life", bolus(g, [1.0], 100.0), 1.0)(np.array([[2.0, 10.0], [1.0, 10.0]]))
    >>> value.round(4).tolist(), gradient[0].round(4).tolist()
    ([3.4657, 6.9315], [-3.4657, 3.4657])
    """
    if name in graph.names:
        return _parameter(graph, name)
    organ = next((o for o in graph.organs if name.startswith((f"{o}_uptake", f"{o}_peak"))), None)
    if organ is not None:
        return _organ(graph, organ, name.startswith(f"{organ}_peak"), design, last_h)
    dose = design.inputs[graph.ports[0].name]
    if name in ("half_life", "half_life_initial") and isinstance(dose, Doses):
        return _half_life(graph, slowest=name == "half_life")
    if name in _AREAS and isinstance(dose, Doses):
        return _areas(graph, name, float(np.sum(dose.amount)))
    raise ValueError(f"'{name}' cannot be followed over many parameter vectors; choose a parameter, a half-life, "
                     f"{', '.join(_AREAS)}, or an organ's uptake or peak")  # fmt: skip


def _parameter(graph: RateGraph, name: str) -> Quantity:
    i = graph.names.index(name)

    def values(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        slopes = np.zeros_like(theta)
        slopes[:, i] = graph.search_slopes(theta)[:, i]
        return theta[:, i], slopes

    return values


def _leading(graph: RateGraph) -> list[int]:
    """Return the compartments that are seen first or lead to one that is; others only collect."""
    leads = {c for c, _ in graph.observations[0].terms if c in graph.index}
    while more := {t.source for t in graph.transfers if t.target in leads} - leads:
        leads |= more
    return [i for i, c in enumerate(graph.compartments) if c in leads]


def _rates(graph: RateGraph, theta: FloatArray, keep: list[int]) -> tuple[FloatArray, FloatArray]:
    K, dK = graph.flow.value(theta), graph.flow.slopes(theta, graph.search_slopes(theta))
    return K[:, keep][:, :, keep], dK[:, :, keep][:, :, :, keep]


def _half_life(graph: RateGraph, slowest: bool) -> Quantity:
    keep = _leading(graph)

    def values(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        K, dK = _rates(graph, theta, keep)
        modes, right = np.linalg.eig(K)
        size = np.abs(modes.real)
        pick = (np.argmin if slowest else np.argmax)(size, axis=1)
        row = np.arange(len(theta))
        right_of = np.take_along_axis(right, pick[:, None, None], 2)[:, :, 0]
        unit = np.zeros(right_of.shape, dtype=complex)
        unit[row, pick] = 1
        try:  # row of the inverse that belongs to the mode
            left = np.linalg.solve(right.swapaxes(1, 2).astype(complex), unit[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            left = np.full(unit.shape, np.nan + 0j)
        slope = np.einsum("bi,bpij,bj->bp", left, dK, right_of).real * np.sign(modes.real[row, pick])[:, None]
        value = np.log(2) / size[row, pick]
        return value, -(value / size[row, pick])[:, None] * slope

    return values


def _areas(graph: RateGraph, name: str, dose: float) -> Quantity:
    keep, n = _leading(graph), len(graph.compartments)

    def values(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        slopes = graph.search_slopes(theta)
        K, dK = _rates(graph, theta, keep)
        f, df = graph.entries.value(theta)[:, keep, 0], graph.entries.slopes(theta, slopes)[:, :, keep, 0]
        c, dc = graph.view.value(theta)[:, 0, :n][:, keep], graph.view.slopes(theta, slopes)[:, :, 0, :n][:, :, keep]
        Kt = K.swapaxes(1, 2)
        x1, w1 = _solved(K, f), _solved(Kt, c)
        x2, w2 = _solved(K, x1), _solved(Kt, w1)
        area = -np.einsum("bi,bi->b", c, x1)
        d_area = -(_dot(dc, x1) - _pinch(dK, x1, w1) + _dot(df, w1))
        if name == "auc_inf":
            return dose * area, dose * d_area
        if name == "cl":
            return 1 / area, -d_area / (area**2)[:, None]
        moment = np.einsum("bi,bi->b", c, x2)
        d_moment = _dot(dc, x2) - _pinch(dK, x2, w1) - _pinch(dK, x1, w2) + _dot(df, w2)
        mrt = moment / area
        d_mrt = (d_moment - mrt[:, None] * d_area) / area[:, None]
        if name == "mrt_inf":
            return mrt, d_mrt
        return mrt / area, (d_mrt - (mrt / area)[:, None] * d_area) / area[:, None]

    return values


def _solved(K: FloatArray, b: FloatArray) -> FloatArray:
    try:
        return np.asarray(np.linalg.solve(K, b[:, :, None])[:, :, 0])
    except np.linalg.LinAlgError:  # one matrix without an inverse, such as a rate of 0, must not take others along
        return np.stack(
            [
                x @ y if np.isfinite(x).all() else np.full(len(y), np.nan)
                for x, y in zip(map(_inverse, K), b, strict=True)
            ]
        )


def _inverse(K: FloatArray) -> FloatArray:
    try:
        return np.asarray(np.linalg.inv(K))
    except np.linalg.LinAlgError:
        return np.full(K.shape, np.nan)


def _dot(slopes: FloatArray, x: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("bpi,bi->bp", slopes, x))


def _pinch(dK: FloatArray, x: FloatArray, w: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("bi,bpij,bj->bp", w, dK, x))


def _organ(graph: RateGraph, organ: str, peak: bool, design: Design, last_h: float) -> Quantity:
    bare, i = graph.without_vessels, graph.organs.index(organ)
    first = float(design.time_h[design.time_h > 0].min(initial=last_h)) if design.time_h.size else last_h
    grid = np.geomspace(min(first, last_h) / 20, last_h, _GRID)

    def values(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        at = np.full((len(theta), 1), last_h)
        if peak:
            y = solve(bare, theta, Design(grid, inputs=design.inputs)).y[:, :, i]
            at = grid[np.argmax(y, axis=1)][:, None]
        found = solve(bare, theta, Design(at, inputs=design.inputs), derivatives=True)
        return found.y[:, 0, i], found.dy[:, :, 0, i]

    return values
