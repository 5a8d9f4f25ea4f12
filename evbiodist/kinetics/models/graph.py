"""The rate graph: one form for every kinetic model.

A model is compartments, transfers, inputs and observations. Rates and coefficients are products of powers of named
parameters (a volume under a clearance), so a model is data, nothing in it executes, and derivatives with respect to
every parameter are exact. `solve` answers linear graphs, `saturable` the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Numbers = NDArray[Any]
#: What may stand for a factor beside a parameter's own name.
_COMPLEMENTS = ("1-", "1+")
#: How a parameter is searched: positive, a fraction between 0 and 1, or any number.
SCALES = ("log", "logit", "linear")


@dataclass(frozen=True)
class Monomial:
    """A product of powers of parameters, such as ``cl / v`` = ``{"cl": 1, "v": -1}``.

    Parameters
    ----------
    powers : pairs of factor and power; a factor is a parameter, ``1-parameter`` or ``1+parameter``.
    coefficient : a number in front.
    """

    powers: tuple[tuple[str, int], ...]
    coefficient: float = 1.0

    @property
    def parameters(self) -> set[str]:
        """Names of the parameters in it."""
        return {parameter_of(factor) for factor, _ in self.powers}

    def __str__(self) -> str:
        up = [_shown(n, p) for n, p in self.powers if p > 0]
        down = [_shown(n, -p) for n, p in self.powers if p < 0]
        number = [] if abs(self.coefficient) == 1 and up else [f"{abs(self.coefficient):g}"]
        return "-" * (self.coefficient < 0) + "*".join([*number, *up]) + "".join(f"/{n}" for n in down)


def parameter_of(factor: str) -> str:
    """Return the parameter in a factor.

    Examples
    --------
    >>> parameter_of("1-v_b"), parameter_of("cl")
    ('v_b', 'cl')
    """
    return factor[2:] if factor.startswith(_COMPLEMENTS) else factor


def _shown(factor: str, power: int) -> str:
    text = f"({factor[0]} {factor[1]} {factor[2:]})" if factor.startswith(_COMPLEMENTS) else factor
    return f"{text}^{power}" if power > 1 else text


ONE = Monomial(())


@dataclass(frozen=True)
class Transfer:
    """Movement out of one compartment into another, or out of the body (target None).

    Parameters
    ----------
    source, target : compartments.
    rate : rate constant; for other forms than ``first_order`` the one at low amounts.
    form : a name of `evbiodist.kinetics.models.forms.FORMS`.
    constants : what else the form needs, by its names (such as ``half`` for the half-saturating amount).
    """

    source: str
    target: str | None
    rate: Monomial
    form: str = "first_order"
    constants: tuple[tuple[str, Monomial], ...] = ()


@dataclass(frozen=True)
class Port:
    """An input: where a dose or a measured curve enters.

    Parameters
    ----------
    name : by which it is given.
    into : compartments with the factor (an extraction, a fraction absorbed) that reaches each.
    lag : parameter that delays it, hours.
    """

    name: str
    into: tuple[tuple[str, Monomial], ...]
    lag: str | None = None


@dataclass(frozen=True)
class Seen:
    """What a measurement of one matrix sees: a weighted sum of compartments and, by their names, of inputs."""

    name: str
    terms: tuple[tuple[str, Monomial], ...]


@dataclass(frozen=True)
class ParameterSpec:
    """A model parameter: dimension expression for `evbiodist.study.units.derive`, and what it is.

    Parameters
    ----------
    name, dimension, description : identity.
    scale : one of `SCALES`; how it is searched and on which scale its interval is made.
    fixed : its value unless the user frees it; None when it is always estimated.
    lower, upper : bounds; the scale's own where None.
    start : where a search may begin, where the data's curves cannot say.
    """

    name: str
    dimension: str
    description: str
    scale: str = "log"
    fixed: float | None = None
    lower: float | None = None
    upper: float | None = None
    start: float | None = None


@dataclass(frozen=True, eq=False)
class MonomialSum:
    """A matrix that is a sum of fixed patterns, each times a monomial of the parameters."""

    exponents: FloatArray  # (n_terms, n_factors)
    coefficients: FloatArray  # (n_terms,)
    patterns: FloatArray  # (n_terms, rows, columns)
    owner: NDArray[np.intp]  # (n_factors,) the parameter in each factor
    sign: FloatArray  # (n_factors,) 0 for the parameter itself, -1 and 1 for its complements
    size: int  # number of parameters of the model

    @classmethod
    def of(cls, monomials: Sequence[Monomial], patterns: FloatArray, names: Sequence[str]) -> MonomialSum:
        """Build it for parameters in the given order."""
        factors = list(dict.fromkeys(f for m in monomials for f, _ in m.powers))
        exponents = np.zeros((len(monomials), len(factors)))
        for row, m in zip(exponents, monomials, strict=True):
            for factor, power in m.powers:
                row[factors.index(factor)] += power
        sign = [{"1-": -1.0, "1+": 1.0}.get(f[:2], 0.0) for f in factors]
        owner = [names.index(parameter_of(f)) for f in factors]
        return cls(exponents, np.array([m.coefficient for m in monomials]), patterns,
                   np.array(owner, dtype=np.intp), np.array(sign), len(names))  # fmt: skip

    @cached_property
    def constant(self) -> bool:
        """Whether no parameter is in it."""
        return not self.exponents.any()

    @cached_property
    def cells(self) -> NDArray[np.intp]:
        """Row and column of the one place that each term fills, (n_terms, 2)."""
        return np.array([np.argwhere(pattern)[0] for pattern in self.patterns], dtype=np.intp).reshape(-1, 2)

    @cached_property
    def _by_parameter(self) -> FloatArray:
        """Exponents of parameters, (n_terms, p): derivatives of the terms' logarithms where all are searched so."""
        return self.exponents @ np.eye(self.size)[self.owner]

    @cached_property
    def _flat(self) -> FloatArray:
        return self.patterns.reshape(len(self.patterns), self.patterns.shape[1] * self.patterns.shape[2])

    @cached_property
    def plain(self) -> bool:
        """Whether its factors are parameters themselves, without complements."""
        return not self.sign.any()

    def terms(self, theta: Numbers) -> Numbers:
        """Return the monomials' values, (B, n_terms), for parameters (B, p)."""
        factors = theta[:, self.owner]
        if not self.plain:
            factors = np.where(self.sign == 0, factors, 1 + self.sign * factors)
        if factors.size and not (factors.real > 0).all():
            # a rate of 0 is allowed, and so are powers of it; only a division by it is not a number
            powers = np.where(self.exponents == 0, 1.0, factors[:, None, :] ** self.exponents)
            return np.asarray(self.coefficients * powers.prod(axis=2))
        logs = np.log(factors)[:, None, :] @ self.exponents.T
        return np.asarray(self.coefficients * np.exp(logs[:, 0]))

    def term_slopes(self, theta: FloatArray, terms: FloatArray, slopes: FloatArray) -> FloatArray:
        """Return the monomials' derivatives (B, n_terms, p) with respect to search coordinates, given d theta / du."""
        factors, slope = theta[:, self.owner], slopes[:, self.owner]
        if self.plain and (slope == factors).all() and slope.all():  # all on the logarithm
            return terms[:, :, None] * self._by_parameter
        if not self.plain:
            factors = np.where(self.sign == 0, factors, 1 + self.sign * factors)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(slope == 0, 0.0, np.where(self.sign == 0, 1.0, self.sign) * slope / factors)
        return (terms[:, :, None] * (self.exponents * logs[:, None, :])) @ np.eye(self.size)[self.owner]

    def value(self, theta: Numbers, terms: Numbers | None = None) -> Numbers:
        """Return the matrix, (B, rows, columns)."""
        if self.constant:
            fixed = (self.coefficients @ self._flat).reshape(self.patterns.shape[1:])
            return np.broadcast_to(fixed, (len(theta), *fixed.shape))
        terms = self.terms(theta) if terms is None else terms
        return (terms[:, None, :] @ self._flat).reshape(len(theta), *self.patterns.shape[1:])

    def slopes(self, theta: FloatArray, slopes: FloatArray, terms: FloatArray | None = None) -> FloatArray:
        """Return its derivatives, (B, p, rows, columns), with respect to search coordinates."""
        by_term = self.term_slopes(theta, self.terms(theta) if terms is None else terms, slopes)
        return (by_term.swapaxes(1, 2) @ self._flat).reshape(len(theta), -1, *self.patterns.shape[1:])


class Tree(NamedTuple):
    """Two-way exchanges that form a tree, or several: its edges, and which lead from a root to each node (n, edges)."""

    parent: NDArray[np.intp]
    child: NDArray[np.intp]
    path: FloatArray


class Ends(NamedTuple):
    """Source and target of every transfer (-1 out of the body), and whether it stays inside."""

    source: NDArray[np.intp]
    target: NDArray[np.intp]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class RateGraph:
    """A kinetic model.

    Parameters
    ----------
    name, title, source : identity and reference.
    compartments : names; amounts in the dose's unit.
    parameters : in the order of every parameter vector.
    transfers, observations, ports : edges, measurements and inputs.

    Raises
    ------
    ValueError : an edge, observation or input naming an unknown compartment or parameter, or a name given twice.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
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
    ports: tuple[Port, ...]

    def __post_init__(self) -> None:
        known, places = {p.name for p in self.parameters}, {*self.compartments, None}
        monomials = [t.rate for t in self.transfers] + [m for t in self.transfers for _, m in t.constants]
        monomials += [m for o in self.observations for _, m in o.terms] + [m for p in self.ports for _, m in p.into]
        used = {name for m in monomials for name in m.parameters} | {p.lag for p in self.ports if p.lag}
        ends = {e for t in self.transfers for e in (t.source, t.target)} | {c for p in self.ports for c, _ in p.into}
        ends |= {c for o in self.observations for c, _ in o.terms} - {p.name for p in self.ports}
        if not used <= known or not ends <= places:
            stray = sorted(map(str, (used - known) | (ends - places)))
            raise ValueError(f"model {self.name} uses {', '.join(stray)}, which it does not declare")
        named = (self.compartments, self.names, self.seen, tuple(p.name for p in self.ports))
        twice = sorted({name for names in named for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"model {self.name} has {', '.join(twice)} more than once; give each one a name of its own"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Parameter names in order."""
        return tuple(p.name for p in self.parameters)

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """Names of what is observed, in the order of predictions."""
        return tuple(o.name for o in self.observations)

    @cached_property
    def sees_inputs(self) -> bool:
        """Whether an observation sees an input itself, such as the blood in a tissue."""
        return any(c in {p.name for p in self.ports} for o in self.observations for c, _ in o.terms)

    @cached_property
    def organs(self) -> tuple[str, ...]:
        """Observed matrices after the first that have a compartment of their own."""
        return tuple(name for name in self.seen[1:] if name in self.index)

    @cached_property
    def without_vessels(self) -> RateGraph:
        """The model seen organ by organ: what each holds and keeps, without the blood in its vessels."""
        terms = {o: tuple((c, ONE) for c in self.compartments if c in (o, f"{o}_kept")) for o in self.organs}
        return replace(self, observations=tuple(Seen(organ, parts) for organ, parts in terms.items()))

    def seeing(self, names: Sequence[str]) -> RateGraph:
        """Return the model as it is seen where only some matrices were measured, in the order of the names."""
        if tuple(names) == self.seen or not set(names) <= set(self.seen):
            return self
        by_name = {o.name: o for o in self.observations}
        return replace(self, observations=tuple(by_name[n] for n in names))

    @cached_property
    def linear(self) -> bool:
        """Whether every transfer is of first order, so that the solution is exact."""
        return all(t.form == "first_order" for t in self.transfers)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every compartment."""
        return {c: i for i, c in enumerate(self.compartments)}

    @cached_property
    def flow(self) -> MonomialSum:
        """K of ``dx/dt = K x``, (n, n): the transfers of first order."""
        first = [t for t in self.transfers if t.form == "first_order"]
        patterns = np.zeros((len(first), len(self.compartments), len(self.compartments)))
        for pattern, t in zip(patterns, first, strict=True):
            pattern[self.index[t.source], self.index[t.source]] -= 1
            if t.target is not None:
                pattern[self.index[t.target], self.index[t.source]] += 1
        return MonomialSum.of([t.rate for t in first], patterns, self.names)

    @cached_property
    def view(self) -> MonomialSum:
        """C of ``y = C (x, inputs)``, (n_observed, n + n_ports)."""
        place = self.index | {p.name: len(self.compartments) + i for i, p in enumerate(self.ports)}
        terms = [(row, c, m) for row, o in enumerate(self.observations) for c, m in o.terms]
        patterns = np.zeros((len(terms), len(self.observations), len(place)))
        for pattern, (row, c, _) in zip(patterns, terms, strict=True):
            pattern[row, place[c]] = 1
        return MonomialSum.of([m for _, _, m in terms], patterns, self.names)

    @cached_property
    def entries(self) -> MonomialSum:
        """F of ``dx/dt = K x + F u``, (n, n_ports)."""
        terms = [(self.index[c], i, m) for i, p in enumerate(self.ports) for c, m in p.into]
        patterns = np.zeros((len(terms), len(self.compartments), len(self.ports)))
        for pattern, (row, i, _) in zip(patterns, terms, strict=True):
            pattern[row, i] = 1
        return MonomialSum.of([m for _, _, m in terms], patterns, self.names)

    @cached_property
    def ends(self) -> Ends:
        """Where every transfer of first order comes from and goes to."""
        first = [t for t in self.transfers if t.form == "first_order"]
        source = np.array([self.index[t.source] for t in first], dtype=np.intp)
        target = np.array([-1 if t.target is None else self.index[t.target] for t in first], dtype=np.intp)
        return Ends(source, target, target >= 0)

    @cached_property
    def tree(self) -> Tree | None:
        """Exchanges as a tree; None where a transfer between compartments goes one way only or exchanges form a ring."""
        ways = {(self.index[t.source], self.index[t.target]) for t in self.transfers if t.target is not None}
        if any((b, a) not in ways for a, b in ways):
            return None
        paths: dict[int, list[int]] = {}
        edges: list[tuple[int, int]] = []
        for root in range(len(self.compartments)):
            if root in paths:
                continue
            paths[root], queue = [], [root]
            for node in queue:
                for a, b in sorted(ways):
                    if a == node and b not in paths:
                        paths[b] = [*paths[node], len(edges)]
                        edges.append((node, b))
                        queue.append(b)
        if len(edges) < len(ways) // 2:
            return None  # a ring
        path = np.zeros((len(self.compartments), len(edges)))
        for node, along in paths.items():
            path[node, along] = 1
        found = np.array(edges, dtype=np.intp).reshape(-1, 2)
        return Tree(found[:, 0], found[:, 1], path)

    # search coordinates: the logarithm of a positive parameter, the logit of a fraction

    @cached_property
    def scales(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which parameters are searched on the logarithm, and which on the logit, (p,) each."""
        kinds = np.array([p.scale for p in self.parameters])
        return kinds == "log", kinds == "logit"

    def to_search(self, theta: FloatArray) -> FloatArray:
        """Return search coordinates (..., p) of parameters."""
        log, logit = self.scales
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(log, np.log(theta), np.where(logit, np.log(theta / (1 - theta)), theta))

    def from_search(self, u: FloatArray) -> FloatArray:
        """Return parameters (..., p) at search coordinates."""
        log, logit = self.scales
        if log.all():
            return np.exp(u)
        from scipy.special import expit  # 1 at infinity, where a fraction that is held at 1 lies

        return np.where(log, np.exp(np.where(log, u, 0.0)), np.where(logit, expit(u), u))

    def search_slopes(self, theta: FloatArray) -> FloatArray:
        """Return d theta / d search coordinate, (..., p)."""
        log, logit = self.scales
        return np.where(log, theta, np.where(logit, theta * (1 - theta), 1.0))

    # one parameter vector and one bolus, the everyday case

    def matrix(self, theta: FloatArray) -> FloatArray:
        """Return K of ``dx/dt = K x``, shape (n, n)."""
        return np.asarray(self.flow.value(np.asarray(theta, float)[None])[0])

    def sight(self, theta: FloatArray) -> FloatArray:
        """Return C of ``y = C x``, shape (n_observed, n)."""
        return np.asarray(self.view.value(np.asarray(theta, float)[None])[0, :, : len(self.compartments)])

    def start(self, theta: FloatArray, dose: float) -> FloatArray:
        """Return amounts just after a bolus into the first port, shape (n,)."""
        return np.asarray(dose * self.entries.value(np.asarray(theta, float)[None])[0, :, 0])

    def amounts(self, theta: FloatArray, time_h: FloatArray, dose: float) -> FloatArray:
        """Return the amount in every compartment after a bolus, shape (T, n)."""
        from evbiodist.kinetics.models.solve import bolus, solve

        return solve(self, np.asarray(theta, float)[None], bolus(self, time_h, dose)).amounts[0]

    def predict(
        self, theta: FloatArray, time_h: FloatArray, dose: float, derivatives: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Return what is observed after a bolus and, if asked, its exact derivatives.

        Parameters
        ----------
        theta : (p,); time_h : (T,) hours since the bolus; dose : amount.

        Returns
        -------
        y : (T, n_observed); dy : (p, T, n_observed) with respect to search coordinates (the logarithms of positive
            parameters), of length 0 without `derivatives`.
        """
        from evbiodist.kinetics.models.solve import bolus, solve

        found = solve(self, np.asarray(theta, float)[None], bolus(self, time_h, dose), derivatives=derivatives)
        return found.y[0], found.dy[0]

    def equations(self) -> list[str]:
        """Return the model's equations as text, one a line."""
        from evbiodist.kinetics.models.forms import FORMS

        lines = []
        for c in self.compartments:
            gains = [f"+ {FORMS[t.form].text(t)}" for t in self.transfers if t.target == c]
            losses = [f"- {FORMS[t.form].text(t)}" for t in self.transfers if t.source == c]
            given = [f"+ {_times(m, _input(p))}" for p in self.ports for place, m in p.into if place == c]
            terms = " ".join(gains + losses + given) or "0"
            lines.append(f"dA_{c}/dt = {terms.removeprefix('+ ')}".replace("+ -", "- "))
        for o in self.observations:
            shown = {p.name: _input(p) for p in self.ports} | {c: f"A_{c}" for c in self.compartments}
            lines.append(f"{o.name} = {' + '.join(_times(m, shown[c]) for c, m in o.terms)}".replace("+ -", "- "))
        return lines

    def diagram(self) -> list[str]:
        """Return the graph's edges as text, one a line."""
        edges = [
            f"{p.name} --{m}--> [{c}]" if m.powers else f"{p.name} -> [{c}]" for p in self.ports for c, m in p.into
        ]
        return edges + [f"[{t.source}] --{t.rate}{'' if t.form == 'first_order' else f' ({t.form})'}--> "
                        f"{f'[{t.target}]' if t.target else 'out'}" for t in self.transfers]  # fmt: skip


def _input(port: Port) -> str:
    return f"{port.name}(t{f' - {port.lag}' if port.lag else ''})"


def _times(m: Monomial, what: str) -> str:
    if not m.powers and m.coefficient == 1:
        return what
    text = str(m)
    return f"{what}{text[1:]}" if text.startswith("1/") else f"{text} * {what}"
