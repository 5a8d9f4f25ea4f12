"""The rate graph: one form for every kinetic model, and its exact linear solution.

A model is compartments, transfers, an input and observations. Rates and coefficients are products
of powers of named parameters (a volume under a clearance), so a model is data, nothing in it
executes, and derivatives with respect to every parameter are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_EIGEN_CONDITION = 1e8


@dataclass(frozen=True)
class Monomial:
    """A product of powers of parameters, such as ``cl / v`` = ``{"cl": 1, "v": -1}``."""

    powers: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        up = [f"{n}^{p}" if p > 1 else n for n, p in self.powers if p > 0]
        down = [f"{n}^{-p}" if p < -1 else n for n, p in self.powers if p < 0]
        return "*".join(up or ["1"]) + "".join(f"/{n}" for n in down)


@dataclass(frozen=True)
class Transfer:
    """First-order movement out of one compartment into another, or out of the body (target None)."""

    source: str
    target: str | None
    rate: Monomial


@dataclass(frozen=True)
class Seen:
    """What a measurement of one matrix sees: a weighted sum of compartments."""

    name: str
    terms: tuple[tuple[str, Monomial], ...]


@dataclass(frozen=True)
class ParameterSpec:
    """A model parameter: dimension expression for `evbiodist.study.units.derive`, and what it is."""

    name: str
    dimension: str
    description: str


@dataclass(frozen=True, eq=False)
class _MonomialMatrix:
    """A matrix that is a sum of fixed patterns, each times a monomial of the parameters."""

    exponents: FloatArray  # (n_terms, n_parameters)
    patterns: FloatArray  # (n_terms, rows, columns)

    @classmethod
    def of(cls, monomials: Sequence[Monomial], patterns: FloatArray, names: Sequence[str]) -> _MonomialMatrix:
        exponents = np.zeros((len(monomials), len(names)))
        for row, m in zip(exponents, monomials, strict=True):
            for name, power in m.powers:
                row[names.index(name)] = power
        return cls(exponents, patterns)

    def value(self, theta: FloatArray) -> FloatArray:
        return np.tensordot(np.exp(self.exponents @ np.log(theta)), self.patterns, 1)

    def derivatives(self, theta: FloatArray) -> FloatArray:
        """Return the derivative with respect to every log-parameter, (n_parameters, rows, columns)."""
        return np.tensordot(self.exponents.T * np.exp(self.exponents @ np.log(theta)), self.patterns, 1)


@dataclass(frozen=True)
class RateGraph:
    """A linear kinetic model.

    Parameters
    ----------
    name, title, source : identity and reference.
    compartments : names; amounts in the dose's unit.
    parameters : in the order of every parameter vector, all positive.
    transfers, observations : edges and measurements.
    dosed : compartment that receives a bolus.

    Raises
    ------
    ValueError : an edge or observation naming an unknown compartment or parameter.

    Examples
    --------
    >>> from evbiodist.kinetics.catalogue import build
    >>> g = build("one_compartment_iv")
    >>> float(g.predict(np.array([2.0, 10.0]), np.array([0.0, 5.0]), dose=100.0)[0][1, 0].round(6))
    3.678794

    Matis & Hartley 1971, Biometrics 27:77; Jacquez 1996, Compartmental Analysis.
    """

    name: str
    title: str
    source: str
    compartments: tuple[str, ...]
    parameters: tuple[ParameterSpec, ...]
    transfers: tuple[Transfer, ...]
    observations: tuple[Seen, ...]
    dosed: str

    def __post_init__(self) -> None:
        known, places = {p.name for p in self.parameters}, {*self.compartments, None}
        monomials = [t.rate for t in self.transfers] + [m for o in self.observations for _, m in o.terms]
        used = {name for m in monomials for name, _ in m.powers}
        ends = {e for t in self.transfers for e in (t.source, t.target)} | {self.dosed}
        ends |= {c for o in self.observations for c, _ in o.terms}
        if not used <= known or not ends <= places:
            stray = sorted(map(str, (used - known) | (ends - places)))
            raise ValueError(f"model {self.name} uses {', '.join(stray)}, which it does not declare")

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of what is observed, in the order of predictions."""
        return tuple(o.name for o in self.observations)

    def matrix(self, theta: FloatArray) -> FloatArray:
        """Return K of ``dx/dt = K x``, shape (n, n)."""
        return self._flow.value(theta)

    def sight(self, theta: FloatArray) -> FloatArray:
        """Return C of ``y = C x``, shape (n_observed, n)."""
        return self._view.value(theta)

    @cached_property
    def _flow(self) -> _MonomialMatrix:
        n, index = len(self.compartments), {c: i for i, c in enumerate(self.compartments)}
        patterns = np.zeros((len(self.transfers), n, n))
        for pattern, t in zip(patterns, self.transfers, strict=True):
            pattern[index[t.source], index[t.source]] -= 1
            if t.target is not None:
                pattern[index[t.target], index[t.source]] += 1
        return _MonomialMatrix.of([t.rate for t in self.transfers], patterns, self.names)

    @cached_property
    def _view(self) -> _MonomialMatrix:
        index = {c: i for i, c in enumerate(self.compartments)}
        terms = [(row, c, m) for row, o in enumerate(self.observations) for c, m in o.terms]
        patterns = np.zeros((len(terms), len(self.observations), len(index)))
        for pattern, (row, c, _) in zip(patterns, terms, strict=True):
            pattern[row, index[c]] = 1
        return _MonomialMatrix.of([m for _, _, m in terms], patterns, self.names)

    def start(self, dose: float) -> FloatArray:
        """Return amounts just after the bolus, shape (n,)."""
        x0 = np.zeros(len(self.compartments))
        x0[self.compartments.index(self.dosed)] = dose
        return x0

    def amounts(self, theta: FloatArray, time_h: FloatArray, dose: float) -> FloatArray:
        """Return the amount in every compartment, shape (T, n), exactly: ``exp(K t) x0``."""
        return self._solve(theta, time_h, dose, derivatives=False)[0]

    def predict(
        self, theta: FloatArray, time_h: FloatArray, dose: float, derivatives: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Return what is observed and, if asked, its exact derivatives with respect to log-parameters.

        Parameters
        ----------
        theta : (p,) positive; time_h : (T,) hours since the bolus; dose : amount.

        Returns
        -------
        y : (T, n_observed); dy : (p, T, n_observed), of length 0 without `derivatives`.
        """
        theta, time_h = np.asarray(theta, float), np.asarray(time_h, float)
        x, dx = self._solve(theta, time_h, dose, derivatives)
        C = self.sight(theta)
        y = x @ C.T
        if not derivatives:
            return y, np.empty((0, *y.shape))
        dC = self._view.derivatives(theta)
        return y, dx @ C.T + np.einsum("tn,pon->pto", x, dC)

    def _solve(
        self, theta: FloatArray, time_h: FloatArray, dose: float, derivatives: bool
    ) -> tuple[FloatArray, FloatArray]:
        K, x0 = self.matrix(theta), self.start(dose)
        dK = self._flow.derivatives(theta) if derivatives else None
        eigenvalues, V = np.linalg.eig(K)
        if np.linalg.cond(V) < _EIGEN_CONDITION:
            return _by_eigenvectors(eigenvalues, V, x0, time_h, dK)
        return _by_exponential(K, x0, time_h, dK)

    def equations(self) -> list[str]:
        """Return the model's equations as text, one a line."""
        lines = []
        for c in self.compartments:
            gains = [f"+ {t.rate} * A_{t.source}" for t in self.transfers if t.target == c]
            losses = [f"- {t.rate} * A_{c}" for t in self.transfers if t.source == c]
            dose = f",  A_{c}(0) = dose" if c == self.dosed else ""
            lines.append(f"dA_{c}/dt = {' '.join(gains + losses)}{dose}".replace("= + ", "= "))
        for o in self.observations:
            terms = " + ".join(f"A_{c}" if not m.powers else _times(m, c) for c, m in o.terms)
            lines.append(f"{o.name} = {terms}")
        return lines

    def diagram(self) -> list[str]:
        """Return the graph's edges as text, one a line."""
        edges = [f"dose -> [{self.dosed}]"]
        return edges + [f"[{t.source}] --{t.rate}--> {f'[{t.target}]' if t.target else 'out'}" for t in self.transfers]


def _times(m: Monomial, compartment: str) -> str:
    text = str(m)
    return f"A_{compartment}{text[1:]}" if text.startswith("1/") else f"{text} * A_{compartment}"


def _by_eigenvectors(
    eigenvalues: NDArray[Any], V: NDArray[Any], x0: FloatArray, t: FloatArray, dK: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Solve by eigenvectors; derivatives by divided differences (Najfeld & Havel 1995, eq. 89)."""
    weights = np.linalg.solve(V, x0.astype(V.dtype))
    growth = np.exp(np.multiply.outer(t, eigenvalues))
    x = np.real((growth * weights) @ V.T)
    if dK is None:
        return x, np.empty((0, *x.shape))
    rotated = np.linalg.solve(V, dK @ V)
    gap = eigenvalues[:, None] - eigenvalues[None, :]
    slower = np.where(np.real(gap) >= 0, eigenvalues[:, None], eigenvalues[None, :])  # so that nothing overflows
    gap = np.where(np.real(gap) >= 0, -gap, gap)
    times = t[:, None, None]
    phi = times * np.exp(times * slower) * _phi1(times * gap)
    inner = np.einsum("pij,tij,j->pti", rotated, phi, weights)
    return x, np.real(inner @ V.T)


def _phi1(z: NDArray[Any]) -> NDArray[Any]:
    """Return (exp(z) - 1) / z, exact also where z is 0 (equal eigenvalues)."""
    small = np.abs(z) < 1e-5
    safe = np.where(small, 1.0, z)
    return np.where(small, 1 + z / 2 + z * z / 6, np.expm1(safe) / safe)


def _by_exponential(
    K: FloatArray, x0: FloatArray, t: FloatArray, dK: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Solve where eigenvectors are (nearly) dependent: expm of K, and of [[K, 0], [dK, K]] (Van Loan 1978)."""
    from scipy.linalg import expm

    x = np.stack([expm(K * ti) @ x0 for ti in t])
    if dK is None:
        return x, np.empty((0, *x.shape))
    n = len(x0)
    dx = np.empty((len(dK), len(t), n))
    for p, d in enumerate(dK):
        block = np.block([[K, np.zeros((n, n))], [d, K]])
        for i, ti in enumerate(t):
            dx[p, i] = expm(block * ti)[n:, :n] @ x0
    return x, dx
