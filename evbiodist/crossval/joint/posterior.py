"""The whole posterior of the joint fit by independent draws: an answer that needs no straight lines around the optimum.

Each draw is the solution of the same problem with its residuals disturbed, found by the same search, all side by side, and
weighed by how much more probable it is than disturbing makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.fit import REACH, JointFit
from evbiodist.crossval.joint.hypotheses import Worlds
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.study.estimate import Estimate

FloatArray = NDArray[np.float64]
#: Draws searched side by side, to bound memory; steps of a search; a draw that is further off than this is not one.
_TOGETHER, _STEPS, _OFF = 50, 40, 1e-6
#: Fewer effective draws than this carry no interval.
_FEW = 100.0


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """Draws from the posterior of a joint fit, over what the labels may be.

    Parameters
    ----------
    names : of the quantities; value : (R, k) draws on the logarithm (a coordinate's own search scale); weight : (R,) sums to 1.
    effective : draws of equal weight that carry as much (Kish 1965); lost : share of draws that could not be solved.
    level, n : of the intervals; readings they rest on; notes : what weakens them.
    """

    names: tuple[str, ...]
    value: FloatArray
    weight: FloatArray
    effective: float
    lost: float
    level: float
    n: int
    notes: tuple[str, ...]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Medians, standard deviations and equal-tailed intervals, no longer on the logarithm."""
        out = []
        for name, x in zip(self.names, np.exp(np.clip(self.value.T, -700, 700)), strict=True):
            order = np.argsort(x)
            share = np.cumsum(self.weight[order]) - 0.5 * self.weight[order]
            low, middle, high = np.interp([0.5 - self.level / 2, 0.5, 0.5 + self.level / 2], share, x[order])
            sd = float(np.sqrt(self.weight @ (x - self.weight @ x) ** 2))
            out.append(Estimate(name, float(middle), sd, float(low), float(high), method="posterior, randomised then optimised",
                                n=self.n, flags=("imprecise",) if sd >= 0.5 * abs(middle) else (),
                                reason="; ".join(self.notes)))  # fmt: skip
        return tuple(out)


def sample_joint(
    worlds: Worlds, names: Sequence[str], *, draws: int = 1000, seed: int, level: float = 0.95
) -> JointPosterior:
    """Draw from the posterior of vesicle quantities.

    Parameters
    ----------
    worlds : what labels may be; each world gets draws by its probability.
    names : as in `evbiodist.crossval.joint.quantities.log_quantity`.
    draws : in all; seed : where chance comes from; level : of the intervals.

    Returns
    -------
    JointPosterior : its notes say when too few effective draws are left to be quoted.

    Raises
    ------
    ValueError : fewer than 100 draws, or no draw that could be solved.

    Notes
    -----
    Bardsley, Solonen, Haario & Laine 2014, SIAM J Sci Comput 36:A1895 (randomise, then optimise; exact for any residual by its
    weights); Ionides 2008, J Comput Graph Stat 17:295 (weights are cut at the mean times the root of their number).
    """
    if draws < _FEW:
        raise ValueError(f"draws has {draws}, expected {_FEW:.0f} or more")
    rng = np.random.default_rng(seed)
    order = sorted(worlds.fits, key=lambda k: -worlds.weight[k])
    share = worlds.weight[order] / worlds.weight[order].sum()
    values, weights, lost = [], [], 0
    for k, part in zip(order, share, strict=True):
        count = round(part * draws)
        if not count:
            continue
        fit = worlds.fits[k]
        u, logs = _draw(fit, rng.normal(size=(count, fit.problem.size)))
        lost += count - len(u)
        if not len(u):
            continue
        w = np.exp(logs - logs.max())
        w = np.minimum(w, w.mean() * np.sqrt(len(w)))
        values.append(np.stack([log_quantity(fit.problem, name)(u)[0] for name in names], axis=1))
        weights.append(part * w / w.sum())
    if not values:
        raise ValueError("no draw of the posterior could be solved; quote the profile interval")
    weight = np.concatenate(weights)
    weight /= weight.sum()
    effective = float(1 / np.sum(weight**2))
    notes = [f"{effective:.0f} effective draws are too few to quote; raise draws"] if effective < _FEW else []
    return JointPosterior(tuple(names), np.concatenate(values), weight, effective, lost / draws, level,
                          worlds.best.problem.rows.readings, tuple(notes))  # fmt: skip


def _draw(fit: JointFit, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return draws (R, q) that disturbed residuals (R, q) lead to, and logarithms of their weights (R,)."""
    p = fit.problem
    per = np.r_[np.full(fit.size, fit.scale**-0.5), np.ones(p.size)]
    axes = np.linalg.qr(fit.sensitivity * per[:, None])[0]  # (N + q, q)
    found, logs = [], []
    for first in range(0, len(noise), _TOGETHER):
        part = noise[first : first + _TOGETHER]

        def away(u: FloatArray, rows: NDArray[np.intp], part: FloatArray = part) -> tuple[FloatArray, FloatArray]:
            r, J = p.residuals(u)
            return (r * per) @ axes - part[rows], (J * per) @ axes

        start = fit.u + part @ np.linalg.inv(axes.T @ (fit.sensitivity * per[:, None])).T
        low, high = p.prior.centre - REACH * p.prior.sd, p.prior.centre + REACH * p.prior.sd
        ended = least_squares(away, np.clip(start, low, high), low, high, ftol=1e-6, max_iterations=_STEPS)
        good = ended.cost < _OFF
        if not good.any():
            continue
        r, J = p.residuals(ended.x[good])
        r, J = r * per, J * per
        along = r @ axes
        size = np.linalg.slogdet(J @ axes)[1]
        found.append(ended.x[good])
        logs.append(-size - 0.5 * (np.einsum("bn,bn->b", r, r) - np.einsum("bn,bn->b", along, along)))
    return (np.concatenate(found), np.concatenate(logs)) if found else (np.empty((0, p.size)), np.empty(0))
