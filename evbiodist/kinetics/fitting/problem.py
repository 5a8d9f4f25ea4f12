"""Many fits of one model as one least-squares problem each: what a search of parameters needs, and nothing else.

The search runs on the coordinates of the free parameters (logarithms, logits); fixed parameters and ties are linear
in them. Every choice of scale, loss and treatment of values below the limit is a residual with an exact derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

SCALES = ("linear", "log")
#: Where Huber's loss turns from squares to absolute values, in standard deviations (95 % efficient for normal errors).
_HUBER = 1.345
_CAUCHY = 2.385


def _plain(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    return r, np.ones_like(r)


def _huber(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    far = np.abs(r) > _HUBER
    size = np.sqrt(np.where(far, 2 * _HUBER * np.abs(r) - _HUBER**2, 1.0))
    return np.where(far, np.sign(r) * size, r), np.where(far, _HUBER / size, 1.0)


def _soft_l1(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    root = np.sqrt(1 + r * r)
    # 2 (root - 1) = r^2 * 2 / (root + 1), which loses no digits near 0
    factor = np.sqrt(2 / (root + 1))
    return r * factor, 1 / (root * factor)


def _cauchy(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    z = (r / _CAUCHY) ** 2
    small = z < 1e-8
    size = _CAUCHY * np.sqrt(np.where(small, z, np.log1p(z)))
    slope = np.where(small, 1.0, np.abs(r) / (1 + z) / np.where(size > 0, size, 1.0))
    return np.sign(r) * size, slope


#: Losses by name: residual in standard deviations -> transformed residual whose square is the loss, and its slope.
LOSSES: dict[str, Callable[[FloatArray], tuple[FloatArray, FloatArray]]] = {
    "squares": _plain,
    "huber": _huber,
    "soft_l1": _soft_l1,
    "cauchy": _cauchy,
}


@dataclass(frozen=True, eq=False)
class Freedom:
    """Which parameters are searched, which are held and which follow another.

    Parameters
    ----------
    link : (p, q) one column a free coordinate, with 1 for every parameter that follows it.
    held : (p,) coordinates of fixed parameters, 0 where free.
    names : of the q free coordinates; all : of the p parameters.
    """

    link: FloatArray
    held: FloatArray
    names: tuple[str, ...]
    all: tuple[str, ...]

    @classmethod
    def of(cls, graph: RateGraph, fixed: Mapping[str, float | None], ties: Mapping[str, str]) -> Freedom:
        """Build it from what the user holds; a value of None frees what the model holds by itself.

        Raises
        ------
        ValueError : names the model does not have, values outside their scale, ties that lead nowhere.
        """
        for name in (*fixed, *ties, *ties.values()):
            if name not in graph.names:
                raise ValueError(f"'{name}' is not a parameter of {graph.name}; {nearest(name, graph.names)}")
        values = {p.name: p.fixed for p in graph.parameters if p.fixed is not None} | dict(fixed)
        values = {k: v for k, v in values.items() if v is not None}
        scales = {p.name: p.scale for p in graph.parameters}
        for name, leader in ties.items():
            if scales[name] != scales[leader]:
                raise ValueError(f"{name} cannot follow {leader}: one is searched on its {scales[name]} scale and the other on "
                                 f"its {scales[leader]} scale; tie parameters of one kind")  # fmt: skip
        both = sorted(set(values) & set(ties))
        if both or set(ties) & set(ties.values()):
            raise ValueError(f"{', '.join(both or sorted(set(ties) & set(ties.values())))} cannot follow another parameter and "
                             "be held or followed itself; drop one of the two")  # fmt: skip
        theta = np.array([values.get(ties.get(n, n), 0.5) for n in graph.names], dtype=float)
        log, logit = graph.scales
        wrong = (log & (theta < 0)) | (logit & ((theta < 0) | (theta > 1))) | ~np.isfinite(theta)
        if wrong.any():
            name = graph.names[int(np.argmax(wrong))]
            raise ValueError(
                f"{name} is held at {values[name]:g}, which its scale does not allow; give a value within it"
            )
        free = [n for n in graph.names if n not in values and n not in ties]
        if not free:
            raise ValueError("every parameter is held, so nothing is left to fit; free one")
        link = np.zeros((len(graph.names), len(free)))
        for i, name in enumerate(graph.names):
            leader = ties.get(name, name)
            if leader in free:
                link[i, free.index(leader)] = 1.0
        held = np.where(link.any(axis=1), 0.0, graph.to_search(theta))
        return cls(link, held, tuple(free), graph.names)

    @cached_property
    def still(self) -> frozenset[str]:
        """Names of the parameters that no free coordinate moves."""
        return frozenset(n for n, row in zip(self.all, self.link, strict=True) if not row.any())

    @cached_property
    def whole(self) -> bool:
        """Whether every parameter is free."""
        return self.link.shape[0] == self.link.shape[1]

    def full(self, u: FloatArray) -> FloatArray:
        """Return coordinates of all parameters (..., p) at free ones (..., q)."""
        return u if self.whole else np.einsum("pq,...q->...p", self.link, u) + self.held

    def free(self, full: FloatArray) -> FloatArray:
        """Return the free coordinates (..., q) of all (..., p); a tie takes its leader's."""
        if self.whole:
            return full
        return full[..., [self.all.index(n) for n in self.names]]


@dataclass(frozen=True, eq=False)
class Problem:
    """B data sets for one model.

    Parameters
    ----------
    graph, design : the model, times and inputs, shared or one for each problem.
    place : (N,) or (B, N) position of each value in the flattened prediction (observed x time).
    value, sigma : (B, N) with NaN as padding; sigma is the standard deviation of a value.
    censored : (B, N) whether the value is a limit that the truth is below.
    freedom : which parameters are searched.
    scale : ``linear`` or ``log``; loss : a key of `LOSSES`.
    """

    graph: RateGraph
    design: Design
    place: IntArray
    value: FloatArray
    sigma: FloatArray
    censored: BoolArray | None
    freedom: Freedom
    scale: str = "linear"
    loss: str = "squares"

    def theta(self, u: FloatArray) -> FloatArray:
        """Return all parameters (B, p) at free coordinates (B, q)."""
        return self.graph.from_search(self.freedom.full(u))

    def take(self, rows: Any) -> Problem:
        """Return some of the problems."""
        return replace(self, design=self.design.take(rows), place=self.place if self.place.ndim == 1 else self.place[rows],
                       value=self.value[rows], sigma=self.sigma[rows],
                       censored=None if self.censored is None else self.censored[rows])  # fmt: skip

    def predict(self, u: FloatArray, derivatives: bool) -> tuple[FloatArray, FloatArray]:
        """Return predictions of every value (B, N) and derivatives (B, q, N)."""
        found = solve(self.graph, self.theta(u), self.design, derivatives=derivatives, held=self.freedom.still)
        size = found.y.shape[1] * found.y.shape[2]
        y = found.y.swapaxes(1, 2).reshape(len(u), size)
        dy = found.dy.swapaxes(2, 3).reshape(len(u), found.dy.shape[1], size)
        if self.place.ndim == 1:
            y, dy = y[:, self.place], dy[:, :, self.place] if derivatives else dy
        else:
            y = np.take_along_axis(y, self.place, 1)
            dy = np.take_along_axis(dy, self.place[:, None, :], 2) if derivatives else dy
        if derivatives and not self.freedom.whole:
            dy = np.einsum("pq,bpn->bqn", self.freedom.link, dy)
        return y, dy

    def residual(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return residuals (B, N) at predictions, 0 for padding, and their derivatives with respect to those."""
        used = np.isfinite(self.value) & np.isfinite(self.sigma)
        value, sigma = np.where(used, self.value, 1.0), np.where(used, self.sigma, 1.0)
        if self.scale == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                r, slope = np.log(y / value) * value / sigma, value / sigma / y
        else:
            r, slope = (y - value) / sigma, 1 / sigma
        r, bent = LOSSES[self.loss](r)
        slope = slope * bent
        if self.censored is not None and self.censored.any():
            hidden, hidden_slope = _below(y, value, sigma)
            r, slope = np.where(self.censored, hidden, r), np.where(self.censored, hidden_slope, slope)
        return np.where(used, r, 0.0), np.where(used, slope, 0.0)

    def __call__(self, u: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return residuals and their derivatives, as `evbiodist.kinetics.fitting.levenberg.least_squares` calls it."""
        part = self if len(rows) == len(self.value) else self.take(rows)
        y, dy = part.predict(u, True)
        r, slope = part.residual(y)
        return r, dy * slope[:, None, :]


def _below(y: FloatArray, limit: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the residual of a value known to be below a limit: its square is -2 log of that probability.

    The M3 method: Beal SL (2001) J Pharmacokinet Pharmacodyn 28:481.
    """
    from scipy.special import log_ndtr

    z = (limit - y) / sigma
    log_p = log_ndtr(z)
    r = np.sqrt(np.maximum(-2 * log_p, 0.0))
    density = np.exp(-0.5 * z * z - log_p) / np.sqrt(2 * np.pi)
    return r, np.where(r > 1e-100, density / sigma / np.where(r > 1e-100, r, 1.0), 0.0)
