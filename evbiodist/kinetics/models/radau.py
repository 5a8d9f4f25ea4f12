"""One step of Radau IIA collocation for many stiff systems at once, with exact sensitivities.

Saturable models need an implicit method. This one is of one step (doses restart it without loss), L-stable, of order
``2 stages - 1``, and shares two small matrix inverses per problem between its stages and all sensitivities.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Numbers = NDArray[Any]
#: Stage equations are solved to this share of the tolerance.
_SHARE = 0.05
_ITERATIONS = 12


@dataclass(frozen=True, eq=False)
class Scheme:
    """Coefficients of Radau IIA with an odd number of stages.

    Parameters
    ----------
    nodes : (s,) in (0, 1], the last one 1; weights : (s,) of the quadrature.
    A : (s, s) with its inverse's eigenvalues `rates` (k,), one of each complex pair, the real one first.
    into, back : (k, s) and (s, k) to and from the eigenvectors; the real part of ``back @ (...)`` is meant.
    error : (s,) weights of the stages in the error estimate, beside the slope at the start.
    """

    nodes: FloatArray
    weights: FloatArray
    A: FloatArray
    rates: Numbers
    into: Numbers
    back: Numbers
    error: FloatArray


@lru_cache(maxsize=8)
def scheme(stages: int) -> Scheme:
    """Return Radau IIA of 3, 5, 7 or 9 stages: order 5, 9, 13 or 17.

    Raises
    ------
    ValueError : another number of stages.

    Examples
    --------
    >>> scheme(3).nodes.round(6).tolist()
    [0.155051, 0.644949, 1.0]

    Hairer E, Wanner G (1999) J Comput Appl Math 111:93; Solving Ordinary Differential Equations II, sec. IV.5, IV.8.
    """
    from scipy.special import roots_jacobi

    if stages not in (3, 5, 7, 9):
        raise ValueError(f"a method of {stages} stages was asked for; expected 3, 5, 7 or 9")
    inner = (roots_jacobi(stages - 1, 1.0, 0.0)[0] + 1) / 2
    nodes = np.append(np.sort(inner), 1.0)
    powers = np.arange(1, stages + 1)
    vandermonde = nodes[:, None] ** (powers - 1)
    A = (nodes[:, None] ** powers / powers) @ np.linalg.inv(vandermonde)
    inverse = np.linalg.inv(A)
    values, vectors = np.linalg.eig(inverse)
    real = int(np.argmin(np.abs(values.imag)))
    chosen = [real, *(i for i in np.argsort(values.imag) if values[i].imag > 1e-6)]
    twice = np.array([1.0] + [2.0] * (len(chosen) - 1))
    rates = values[chosen]
    rates[0] = rates[0].real
    # the embedded formula of order `stages`, which also uses the slope at the start, weighted by 1 / (real rate)
    gamma = 1 / rates[0].real
    wanted = 1 / powers - gamma * (powers == 1)
    embedded = np.linalg.solve(vandermonde.T, wanted)
    error = (embedded - A[-1]) @ inverse / gamma
    return Scheme(nodes, A[-1], A, rates, np.linalg.inv(vectors)[chosen], vectors[:, chosen] * twice, error)


class Field(Protocol):
    """The right-hand sides of B problems and their derivatives, at amounts (B, m, n) of m moments."""

    def slope(self, x: FloatArray, given: FloatArray) -> FloatArray:
        """Return dx/dt, (B, m, n), where `given` (B, m, ports) enters."""

    def jacobian(self, x: FloatArray) -> FloatArray:
        """Return its derivative with respect to amounts, (B, m, n, n)."""

    def forcing(self, x: FloatArray, given: FloatArray, change: FloatArray) -> FloatArray:
        """Return its derivative with respect to search coordinates, (B, m, p, n); `change` is d given / dt."""


class Moments(NamedTuple):
    """What enters at the start of the step and at its nodes, (B, 1 + s, ports), and how fast that changes."""

    given: FloatArray
    change: FloatArray


class Attempt(NamedTuple):
    """A step that was tried: increments of the stages, error relative to the tolerance, whether it may be trusted."""

    stages: FloatArray  # (B, s, 1 + p, n)
    error: FloatArray  # (B,)
    solved: BoolArray  # (B,)


def attempt(
    field: Field, of: Scheme, state: FloatArray, h: FloatArray, moments: Moments, guess: FloatArray, rtol: float,
    atol: FloatArray,
) -> Attempt:  # fmt: skip
    """Try one step.

    Parameters
    ----------
    state : (B, 1 + p, n) amounts, then their sensitivities to p search coordinates; p may be 0.
    h : (B,) steps in hours.
    guess : (B, s, 1 + p, n) increments of the stages to begin with.
    atol : (B,) absolute tolerance of every problem. The estimate is of order ``stages``, the solution of twice that:
        as Hairer's RADAU does, steps are chosen by a looser tolerance of the estimate that brings what is asked for.

    Returns
    -------
    Attempt
    """
    loose = 0.1 * rtol ** ((len(of.nodes) + 1) / (2 * len(of.nodes)))
    share, atol = _SHARE * rtol / loose, atol * loose / rtol
    x, S = state[:, 0], state[:, 1:]
    start, given = moments.given[:, :1], moments.given[:, 1:]
    J = field.jacobian(x[:, None])[:, 0]
    inverses = _inverse((of.rates / h[:, None])[:, :, None, None] * np.eye(x.shape[1]) - J[:, None])
    scale = atol[:, None, None] + loose * np.maximum(np.abs(state), np.abs(x)[:, None])

    Z, solved = _iterate(lambda Z: field.slope(x[:, None] + Z[:, :, 0], given)[:, :, None], of, inverses, h,
                         guess[:, :, :1], scale[:, :1], share)  # fmt: skip
    first = field.slope(x[:, None], start)
    if S.shape[1]:
        at = x[:, None] + Z[:, :, 0]
        turned = field.jacobian(at).swapaxes(2, 3)
        forced = field.forcing(at, given, moments.change[:, 1:])
        Y, too = _iterate(lambda Y: (S[:, None] + Y) @ turned + forced, of, inverses, h, guess[:, :, 1:], scale[:, 1:],
                          share)  # fmt: skip
        solved &= too
        Z = np.concatenate([Z, Y], axis=2)
        changes = S @ J.swapaxes(1, 2) + field.forcing(x[:, None], start, moments.change[:, :1])[:, 0]
        first = np.concatenate([first, changes], axis=1)
    rest = np.einsum("s,bspn->bpn", of.error, Z) / h[:, None, None] + first
    error = (rest @ inverses[:, 0].real.swapaxes(1, 2)) / scale
    worst = np.sqrt(np.mean(error**2, axis=2)).max(axis=1)
    solved &= np.isfinite(worst)
    return Attempt(Z, np.where(solved, worst, np.inf), solved)


def _inverse(matrices: Numbers) -> Numbers:
    """Return inverses; one that has none is NaN and touches no other."""
    try:
        return np.asarray(np.linalg.inv(matrices))
    except np.linalg.LinAlgError:
        out = np.full_like(matrices, np.nan)
        for i, of_one in enumerate(matrices):
            with suppress(np.linalg.LinAlgError):
                out[i] = np.linalg.inv(of_one)
        return out


def _iterate(
    slopes: Callable[[FloatArray], FloatArray], of: Scheme, inverses: Numbers, h: FloatArray, Z: FloatArray,
    scale: FloatArray, share: float,
) -> tuple[FloatArray, BoolArray]:  # fmt: skip
    """Solve ``Z = h A slopes(Z)`` by simplified Newton steps; a problem that has converged is not touched again."""
    done, lost = np.zeros(len(h), dtype=bool), np.zeros(len(h), dtype=bool)
    before = np.full(len(h), np.inf)
    turned, flat = inverses.swapaxes(2, 3), (*Z.shape[:2], -1)
    modal = (*inverses.shape[:2], *Z.shape[2:])
    # complex numbers in two real parts, because only the small matrix of a mode has to be complex
    drag = -of.rates[:, None] * of.into
    into, drag = _parts(of.into, 0), _parts(drag, 0) / h[:, None, None]
    back = _parts(of.back.conj(), 1)
    for k in range(_ITERATIONS):
        rest = into @ slopes(Z).reshape(flat) + drag @ Z.reshape(flat)
        half = rest.shape[1] // 2
        moved = ((rest[:, :half] + 1j * rest[:, half:]).reshape(modal) @ turned).reshape(*modal[:2], -1)
        change = (back @ np.concatenate([moved.real, moved.imag], axis=1)).reshape(Z.shape)
        active = ~(done | lost)
        Z = Z + np.where(active[:, None, None, None], change, 0.0)
        size = np.abs(change / scale[:, None]).max(axis=(1, 2, 3))
        pace = size / before
        ahead = np.where(pace < 1, size * pace / (1 - pace), np.inf)  # what later steps would still add
        done |= active & ((size <= share) | ((ahead <= share) & (k > 0)))
        lost |= active & ~done & (~np.isfinite(size) | ((pace >= 1) & (k > 1)))
        if (done | lost).all():
            break
        before = size
    return Z, done


def _parts(a: Numbers, axis: int) -> FloatArray:
    return np.concatenate([a.real, a.imag], axis=axis)


def extrapolate(of: Scheme, Z: FloatArray, ratio: FloatArray) -> FloatArray:
    """Return increments of the next step's stages from the polynomial through the last one's.

    Parameters
    ----------
    Z : (B, s, ...) increments of the last step's stages; ratio : (B,) next step over last step, above 0.

    Examples
    --------
    >>> of = scheme(3)
    >>> line = of.nodes[None, :, None]
    >>> bool(np.allclose(extrapolate(of, line, np.array([2.0])), 2 * line))
    True

    Berrut J-P, Trefethen LN (2004) SIAM Rev 46:501 (barycentric interpolation).
    """
    known = np.append(0.0, of.nodes)
    apart = known[:, None] - known + np.eye(len(known))
    shares = 1 / apart.prod(axis=1) / (1 + ratio[:, None, None] * of.nodes[:, None] - known)
    shares = shares / shares.sum(axis=2, keepdims=True)
    flat = Z.reshape(*Z.shape[:2], -1)
    return np.asarray((shares[:, :, 1:] @ flat - flat[:, -1:]).reshape(Z.shape))
