"""What the joint answer says of the vesicle: uptake, peaks, half-lives, as functions of all searched coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.compose import VESSELS, by_organ, organs_of
from evbiodist.crossval.joint.problem import JointProblem
from evbiodist.kinetics.fitting.quantities import quantity
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.solve import Design, solve

FloatArray = NDArray[np.float64]
#: From searched coordinates (B, q) to logarithms of values (B,) and their gradients (B, q).
LogQuantity = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
WITH_VESSELS = "_with_vessels"
_UNIT = "pct_id"
_OF_BLOOD = ("half_life", "half_life_initial", "cl")


def vesicle_quantities(vesicle: RateGraph, organs: Sequence[str], vessels: Sequence[str] = ()) -> list[str]:
    """Return the names of what is asked of a vesicle's model.

    Parameters
    ----------
    organs : whose uptake and peak are wanted; vessels : those of them whose vessel blood is known.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> vesicle_quantities(build("plasma_with_organs", ["brain"]), ["brain"])
    ['brain_uptake_pct_id', 'brain_peak_pct_id', 'half_life', 'half_life_initial', 'cl']
    """
    names = []
    for organ in organs:
        if organ in organs_of(vesicle):
            names += [f"{organ}_{word}_{_UNIT}" for word in ("uptake", "peak")]
            names += [f"{organ}_{word}{WITH_VESSELS}_{_UNIT}" for word in ("uptake", "peak") if organ in vessels]
    return [*names, *_OF_BLOOD]


def log_quantity(problem: JointProblem, name: str) -> LogQuantity:
    """Return a quantity's logarithm as a function of the searched coordinates.

    Parameters
    ----------
    name : one of `vesicle_quantities`, or a searched coordinate such as ``DiR.free_fraction`` (then itself, on its own
        search scale).

    Raises
    ------
    ValueError : a name that is neither.
    """
    if name in problem.names[len(problem.vesicle.names) :]:
        return _coordinate(problem, problem.names.index(name))
    design = Design(np.unique(problem.rows.times), inputs=problem.inputs)
    last = problem.arms.last_h
    if WITH_VESSELS in name:
        return _with_vessels(problem, name.replace(WITH_VESSELS, ""), design, last)
    own = quantity(problem.vesicle, name, design, last)
    size = len(problem.vesicle.names)

    def values(u: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, slope = own(problem.theta(u))
        out = np.zeros_like(u)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[:, :size] = slope / value[:, None]
            return np.log(value), out

    return values


def _coordinate(problem: JointProblem, at: int) -> LogQuantity:
    def values(u: FloatArray) -> tuple[FloatArray, FloatArray]:
        slope = np.zeros_like(u)
        slope[:, at] = 1.0
        return u[:, at], slope

    return values


def _with_vessels(problem: JointProblem, bare: str, design: Design, last: float) -> LogQuantity:
    """Return an amount and the vesicles in the organ's vessels at the same time."""
    vesicle = problem.vesicle
    organ = next(o for o in organs_of(vesicle) if bare.startswith((f"{o}_uptake", f"{o}_peak")))
    at, size = problem.names.index(by_organ(VESSELS, organ)), len(vesicle.names)
    grid = np.geomspace(float(design.time_h[design.time_h > 0].min()) / 20, last, 200)
    alone = vesicle.without_vessels

    def values(u: FloatArray) -> tuple[FloatArray, FloatArray]:
        theta = problem.theta(u)
        when = np.full((len(u), 1), last)
        if bare.startswith(f"{organ}_peak"):
            y = solve(alone, theta, Design(grid, inputs=design.inputs)).y[:, :, alone.seen.index(organ)]
            when = grid[np.argmax(y, axis=1)][:, None]
        tissue = solve(alone, theta, Design(when, inputs=design.inputs), derivatives=True)
        blood = solve(vesicle, theta, Design(when, inputs=design.inputs), derivatives=True)
        grams = np.exp(u[:, at])
        k = alone.seen.index(organ)
        value = tissue.y[:, 0, k] + grams * blood.y[:, 0, 0]
        slope = np.zeros_like(u)
        slope[:, :size] = tissue.dy[:, :, 0, k] + grams[:, None] * blood.dy[:, :, 0, 0]
        slope[:, at] = grams * blood.y[:, 0, 0]
        return np.log(value), slope / value[:, None]

    return values
