"""Profile intervals of the joint fit: how far a quantity may move while every label's errors make up for it.

Each point is the best fit at its value; all quantities and both sides move side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.fit import JointFit, minimise
from evbiodist.crossval.joint.quantities import LogQuantity, log_quantity
from evbiodist.study.estimate import student

FloatArray = NDArray[np.float64]
#: How much stiffer a quantity is held than rows and priors hold it.
_STIFF = 10.0
_FIRST, _ROUNDS, _CLOSE = 0.9, 6, 0.03
#: Steps of a search at a point: it begins near its end.
_STEPS = 20
#: Further from the fit than this, on the logarithm, nothing limits a quantity: a factor of 1,000.
_FAR = 7.0


@dataclass(frozen=True, eq=False)
class JointProfile:
    """The interval of one quantity's logarithm (or of a coordinate).

    Parameters
    ----------
    name : whose; value, low, high : on the logarithm; infinite where open.
    se : of the logarithm, from the covariance; at, distance : (K,) points evaluated, and the signed root of how much worse the
        fit is there, 1 at the end of the interval.
    """

    name: str
    value: float
    low: float
    high: float
    se: float
    at: FloatArray
    distance: FloatArray

    @property
    def open(self) -> bool:
        """Whether nothing limits a side."""
        return not (np.isfinite(self.low) and np.isfinite(self.high))


def joint_profiles(found: JointFit, names: Sequence[str], level: float = 0.95) -> dict[str, JointProfile]:
    """Return profile intervals of vesicle quantities or coordinates.

    Parameters
    ----------
    names : as in `evbiodist.crossval.joint.quantities.log_quantity`.
    level : of the intervals; the threshold is Student's t with what rows and parameters leave over, and a fit that is worse
        than its replicates allow widens it.

    Returns
    -------
    dict : by name; quantities that do not exist at the fit are left out.

    Notes
    -----
    Venzon & Moolgavkar 1988, Appl Stat 37:87; with priors as penalties, the profile of the posterior.
    """
    track = [_Side(found, name, sign) for name in names for sign in (-1.0, 1.0)]
    track = [t for t in track if np.isfinite(t.value) and t.se > 0]
    limit = found.scale * student(level, found.df) ** 2
    cost = float(found.residual @ found.residual)
    for _ in range(_ROUNDS):
        active = [t for t in track if t.target is not None]
        if not active:
            break
        _advance(found, active, cost, limit)
    out: dict[str, JointProfile] = {}
    for below, above in zip(track[::2], track[1::2], strict=True):
        at, distance = np.array(below.at + above.at), np.array(below.distance + above.distance)
        order = np.argsort(at)
        out[below.name] = JointProfile(
            below.name, below.value, below.end, above.end, below.se, at[order], distance[order]
        )
    return out


class _Side:
    """One end of one interval on its way."""

    def __init__(self, found: JointFit, name: str, sign: float) -> None:
        self.name, self.sign = name, sign
        self.function: LogQuantity = log_quantity(found.problem, name)
        value, gradient = self.function(found.u[None])
        self.value = float(value[0])
        along = found.covariance @ gradient[0]
        self.se = float(np.sqrt(max(gradient[0] @ along, 0.0)))
        self.direction = along / self.se if self.se > 0 else along
        self.start, self.at, self.distance = found.u, [self.value], [0.0]
        self.target: float | None = self.value + sign * _FIRST * 2 * self.se
        self.end = sign * np.inf

    def learn(self, at: float, distance: float, u: FloatArray) -> None:
        """Take in a point and say where to look next; an end is found when a point is close to the threshold."""
        self.at.append(at)
        self.distance.append(self.sign * distance)
        self.start = u
        x, s = np.array(self.at), np.abs(self.distance)
        order = np.argsort(s)
        x, s = x[order], s[order]
        if abs(distance - 1) < _CLOSE or (s >= 1).any():
            above = int(np.argmax(s >= 1)) if (s >= 1).any() else len(s) - 1
            below = max(above - 1, 0)
            step = (s[above] - s[below]) or 1.0
            self.end = float(x[below] + (1 - s[below]) * (x[above] - x[below]) / step)
            near = abs(distance - 1) < _CLOSE
            self.target = None if near else self.end
            return
        reach = abs(at - self.value)
        if reach > _FAR:
            self.target = None  # open
            return
        grow = np.clip(1.05 / max(distance, 0.2), 1.1, 3.0)
        self.target = self.value + self.sign * min(reach * grow, 2 * _FAR)


def _advance(found: JointFit, active: Sequence[_Side], cost: float, limit: float) -> None:
    """Evaluate the next point of every side."""
    begin = np.stack([t.start + t.direction * (_target(t) - _value(t)) / max(t.se, 1e-300) for t in active])
    stiff = np.array([_STIFF / t.se for t in active])
    target = np.array([_target(t) for t in active])

    def extra(u: FloatArray, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
        r, J = np.zeros((len(rows), 1)), np.zeros((len(rows), u.shape[1], 1))
        for name in dict.fromkeys(active[i].name for i in rows):
            mine = np.array([k for k, i in enumerate(rows) if active[i].name == name])
            value, slope = active[rows[mine[0]]].function(u[mine])
            r[mine, 0] = stiff[rows[mine]] * (value - target[rows[mine]])
            J[mine, :, 0] = stiff[rows[mine], None] * slope
        return r, J

    ended = minimise(found.problem, begin, extra=extra, most=_STEPS)
    for i, t in enumerate(active):
        value = float(t.function(ended.x[i : i + 1])[0][0])
        r = ended.residual[i, :-1]
        worse = float(r @ r) - cost
        t.learn(value, float(np.sqrt(max(worse, 0.0) / limit)), ended.x[i])


def _target(t: _Side) -> float:
    return t.value if t.target is None else t.target


def _value(t: _Side) -> float:
    return t.at[-1]
