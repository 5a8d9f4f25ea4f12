"""Where a misread label goes: vesicles, label they leave behind and free label, over blood and organs.

Integrated by scipy alone, so that it can judge the analysis, with which it shares no solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
#: Organs whose phagocytes tire at high concentrations.
MPS = ("liver", "spleen")


@dataclass(frozen=True, eq=False)
class Vesicle:
    """How vesicles move: the truth that all labels of a study share.

    Parameters
    ----------
    organs : n names; those that nobody measured too.
    v : g, apparent volume of blood. k_el : 1/h, out of blood for good.
    k_in, k_out : (n,) 1/h, into organs and back.
    kept : (n,) share of what an organ takes that never returns.
    half : % of dose per g blood at which liver and spleen take up half as fast as at low concentrations.
    """

    organs: tuple[str, ...]
    v: float
    k_el: float
    k_in: FloatArray
    k_out: FloatArray
    kept: FloatArray
    half: float = math.inf

    @property
    def half_life_h(self) -> float:
        """Terminal half-life in blood at low concentrations."""
        rates = np.diag(np.append(-self.k_el - np.sum(self.k_in), -self.k_out))
        rates[1:, 0], rates[0, 1:] = self.k_in * (1 - self.kept), self.k_out
        return float(math.log(2) / np.abs(np.linalg.eigvals(rates).real).min())

    def slowed(self, per_g: float) -> float:
        """Return the factor on uptake of liver and spleen at a concentration in blood (% of dose per g)."""
        return 1 / (1 + max(per_g, 0.0) / self.half)


@dataclass(frozen=True, eq=False)
class Misreading:
    """How one label misreads vesicles; the default reads them exactly. Rates in 1/h, free_v in g.

    Parameters
    ----------
    free_fraction : of the injected label, not on vesicles. release : from vesicles in blood.
    transfer : from vesicles in an organ to its cells. clearance : from there to blood, as free label.
    loss : of signal, everywhere. efficiency : signal per label by organ and blood; 1 where not named.
    free_v, free_k_el, free_k_in, free_k_out : of free label, by organ; 0 where not named.
    background : reading of unlabelled tissue by organ, in % of dose; scale : of arbitrary units, None for % of dose.
    """

    free_fraction: float = 0.0
    release: float = 0.0
    transfer: float = 0.0
    clearance: float = 0.0
    loss: float = 0.0
    efficiency: Mapping[str, float] = field(default_factory=dict)
    free_v: float = 1.0
    free_k_el: float = 0.0
    free_k_in: Mapping[str, float] = field(default_factory=dict)
    free_k_out: Mapping[str, float] = field(default_factory=dict)
    background: Mapping[str, float] = field(default_factory=dict)
    scale: float | None = None

    def values(self) -> dict[str, float | None]:
        """Return all values by the catalogue's names, organs after a dot."""
        found: dict[str, float | None] = {}
        for name, value in vars(self).items():
            found |= {f"{name}.{o}": v for o, v in value.items()} if isinstance(value, Mapping) else {name: value}
        return found


@dataclass(frozen=True, eq=False)
class Course:
    """Where a label is over time, in % of dose: (T,), and (T, n) over organs.

    Parameters
    ----------
    blood, vesicle : label on vesicles in blood, and in parenchyma. left : label they left in cells.
    free_blood, free : free label. excreted, lost : out of blood for good; signal that is no more.
    """

    blood: FloatArray
    vesicle: FloatArray
    left: FloatArray
    free_blood: FloatArray
    free: FloatArray
    excreted: FloatArray
    lost: FloatArray

    @property
    def inside(self) -> FloatArray:
        """All label in parenchyma, (T, n)."""
        return self.vesicle + self.left + self.free

    def per_g(self, vesicle: Vesicle, label: Misreading) -> FloatArray:
        """All label in blood, (T,) in % of dose per g."""
        return self.blood / vesicle.v + self.free_blood / label.free_v


def simulate(
    vesicle: Vesicle, label: Misreading, time_h: FloatArray, per_g: Callable[[float], float] | None = None
) -> Course:
    """Integrate one label's amounts after an intravenous bolus of 100 %.

    Parameters
    ----------
    vesicle, label : truth.
    time_h : (T,) rising from 0 or later.
    per_g : all vesicles in blood over time, which slow uptake; the label's own vesicles when None.

    Raises
    ------
    RuntimeError : the integrator fails.

    Examples
    --------
    >>> one = Vesicle(("liver",), v=2.0, k_el=1.0, k_in=np.array([1.0]), k_out=np.zeros(1), kept=np.zeros(1))
    >>> simulate(one, Misreading(), np.array([50.0])).vesicle.round(6).tolist()
    [[50.0]]
    """
    steady, slowing = _rates(vesicle, label)
    at = _places(len(vesicle.organs))
    start = np.zeros(len(steady))
    start[at["blood"]], start[at["free_blood"]] = 100 * (1 - label.free_fraction), 100 * label.free_fraction

    def rates(t: float, x: FloatArray) -> FloatArray:
        if math.isinf(vesicle.half):
            return steady
        return steady + vesicle.slowed(per_g(t) if per_g else x[0] / vesicle.v) * slowing

    found = _integrate(lambda t, x: rates(t, x) @ x, rates, start, time_h)
    seen = {name: found[:, place] for name, place in at.items()}
    seen["vesicle"] = seen.pop("exchanging") + seen.pop("kept")
    return Course(**seen)


def _integrate(
    slope: Callable[..., FloatArray], jacobian: Callable[..., FloatArray], start: FloatArray, time_h: FloatArray
) -> FloatArray:
    from scipy.integrate import solve_ivp

    found = solve_ivp(slope, (0.0, float(time_h[-1])), start, "LSODA", time_h, jac=jacobian, rtol=1e-8, atol=1e-10)
    if not found.success:
        raise RuntimeError(f"the phantom's kinetics could not be integrated: {found.message}")
    return np.asarray(found.y.T)


def _places(n: int) -> dict[str, Any]:
    """Return where in the state each kind of label is, for n organs."""
    organs = [slice(1 + i * n, 1 + (i + 1) * n) for i in range(4)]
    return dict(zip(("exchanging", "kept", "left", "free"), organs, strict=True)) | {
        "blood": 0, "free_blood": 4 * n + 1, "excreted": 4 * n + 2, "lost": 4 * n + 3}  # fmt: skip


def _rates(vesicle: Vesicle, label: Misreading) -> tuple[FloatArray, FloatArray]:
    """Return the rate matrix without the uptake that saturates, and that uptake alone: ``dx/dt = matrix @ x``."""
    n = len(vesicle.organs)
    at = _places(n)
    everywhere = np.arange(4 * n + 4)
    steady, slowing = np.zeros((2, 4 * n + 4, 4 * n + 4))

    def flow(source: str, target: str, rate: float | FloatArray, matrix: FloatArray = steady) -> None:
        a, b = np.broadcast_arrays(everywhere[at[source]], everywhere[at[target]])
        np.add.at(matrix, (b, a), rate)
        np.add.at(matrix, (a, a), np.negative(rate))

    mps = np.array([organ in MPS and math.isfinite(vesicle.half) for organ in vesicle.organs])
    for matrix, uptake in ((steady, np.where(mps, 0.0, vesicle.k_in)), (slowing, np.where(mps, vesicle.k_in, 0.0))):
        flow("blood", "exchanging", uptake * (1 - vesicle.kept), matrix)
        flow("blood", "kept", uptake * vesicle.kept, matrix)
    flow("exchanging", "blood", vesicle.k_out)
    flow("blood", "excreted", vesicle.k_el)
    flow("blood", "free_blood", label.release)
    flow("exchanging", "left", label.transfer)
    flow("kept", "left", label.transfer)
    flow("left", "free_blood", label.clearance)
    flow("free_blood", "free", np.array([label.free_k_in.get(o, 0.0) for o in vesicle.organs]))
    flow("free", "free_blood", np.array([label.free_k_out.get(o, 0.0) for o in vesicle.organs]))
    flow("free_blood", "excreted", label.free_k_el)
    for place in ("blood", "exchanging", "kept", "left", "free_blood", "free"):
        flow(place, "lost", label.loss)
    return steady, slowing
