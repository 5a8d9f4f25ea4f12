"""Which labels read vesicles faithfully and which do not: every label may or may not lie, and the joint answer is an average
over the combinations, weighed by how probable they make the data.

A label that is faithful must not be corrected for lies it does not tell, and one that lies must not be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.compose import EFFICIENCY, FRACTION, LOSS, RELEASE, SCALE, TRANSFER
from evbiodist.crossval.joint.fit import JointFit, minimise
from evbiodist.crossval.joint.problem import JointProblem, Prior

FloatArray = NDArray[np.float64]


class Range(NamedTuple):
    """A median and its central 95 % range."""

    median: float
    low: float
    high: float


#: What a faithful label may do: a little free label, next to nothing released, kept or lost, and readings as good as a
#: calibration allows.
FAITHFUL = {
    FRACTION: Range(0.015, 0.009, 0.025), RELEASE: Range(1e-3, 5e-4, 2e-3), TRANSFER: Range(1e-3, 5e-4, 2e-3),
    LOSS: Range(3e-4, 1e-4, 1e-3), EFFICIENCY: Range(1.0, 0.85, 1.0 / 0.85), SCALE: Range(1.0, 0.9, 1.0 / 0.9),
}  # fmt: skip
#: What one that misreads in a single way may do there.
MISREADING = {
    FRACTION: Range(0.15, 0.03, 0.7), RELEASE: Range(0.05, 5e-3, 0.5), TRANSFER: Range(0.05, 5e-3, 0.5),
    LOSS: Range(0.03, 3e-3, 0.3), EFFICIENCY: Range(1.0, 0.2, 5.0), SCALE: Range(1.0, 0.25, 4.0),
}  # fmt: skip
#: What a label may be, with its probability beforehand: as its catalogue entry says, faithful, only its rates or only its
#: readings as the entry says, or faithful but for one cause (all causes together).
BELIEVED, LIES, RATES, READINGS, ONE_CAUSE = (
    "faithful",
    "catalogue",
    "catalogue rates",
    "catalogue readings",
    "one cause",
)
BEFOREHAND = {BELIEVED: 0.35, LIES: 0.35, RATES: 0.1, READINGS: 0.1, ONE_CAUSE: 0.1}
_Z, _UNKNOWN = 1.959964, 7.0
_SWEEPS, _WORTH = 6, 1e-3
#: What Laplace's approximation takes too little of a heavy-tailed prior that the data say nothing about (logarithm).
_HEAVY = 0.5 * np.log(5 / 4)
#: Steps after which a world is judged, and to which the others are searched; how much less probable (logarithm) is hopeless.
_LOOKING, _MOST, _HOPELESS = 8, 40, 30.0

#: What every label is taken to be, in the order of the labels: a word of `BEFOREHAND` or the name of a cause.
World = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Worlds:
    """All combinations that were tried, and how probable each is.

    Parameters
    ----------
    catalogue : the problem with the catalogue's priors; labels : in order.
    worlds : (K,) what each label is taken to be; u : (K, q) the most probable coordinates in each.
    log_probability : (K,) of the data and the world, but for a constant.
    fits : of the worlds that matter, the most probable first, by their position.
    """

    catalogue: JointProblem
    labels: tuple[str, ...]
    worlds: tuple[World, ...]
    u: FloatArray
    log_probability: FloatArray
    fits: Mapping[int, JointFit]

    @cached_property
    def weight(self) -> FloatArray:
        """Probability of each world, (K,)."""
        w = np.exp(self.log_probability - self.log_probability.max())
        return np.asarray(w / w.sum())

    @property
    def best(self) -> JointFit:
        """The fit in the most probable world."""
        return self.fits[int(np.argmax(self.log_probability))]

    def log10_odds(self, label: str) -> float:
        """Return the evidence that a label is not faithful: log10 of the odds over those beforehand."""
        i = self.labels.index(label)
        faithful = np.array([w[i] == BELIEVED for w in self.worlds])
        before = np.log10((1 - BEFOREHAND[BELIEVED]) / BEFOREHAND[BELIEVED])
        return float(
            (_log_sum(self.log_probability[~faithful]) - _log_sum(self.log_probability[faithful])) / np.log(10) - before
        )

    def cause(self, label: str) -> str:
        """Return the most probable way in which a label is not faithful."""
        i = self.labels.index(label)
        lies = [k for k, w in enumerate(self.worlds) if w[i] != BELIEVED]
        return self.worlds[max(lies, key=lambda k: float(self.log_probability[k]))][i]


def _log_sum(logs: FloatArray) -> float:
    if not logs.size:
        return -np.inf
    top = float(logs.max())
    return top + float(np.log(np.exp(logs - top).sum()))


def explore(found: JointFit, starts: FloatArray | None = None) -> Worlds:
    """Search the combinations of faithful and lying labels around the most probable one.

    Parameters
    ----------
    found : the joint fit with every label as its catalogue entry says.
    starts : (K, p) vesicle parameters that the search may begin from too.

    Returns
    -------
    Worlds : every one that was tried. From the better of all faithful and all as in the catalogue, one label at a time is
        changed until no change makes the data more probable.

    Notes
    -----
    Kass & Raftery 1995, J Am Stat Assoc 90:773 (probabilities by Laplace's approximation); Hoeting et al. 1999, Stat Sci
    14:382 (averaging).
    """
    p = found.problem
    labels = p.arms.labels
    tried: dict[World, tuple[FloatArray, float]] = {}
    extremes: list[World] = [(LIES,) * len(labels), (BELIEVED,) * len(labels)]
    begins = _beginnings(found, starts)
    u, logs = _searched(found, extremes * len(begins), np.repeat(begins, len(extremes), axis=0), _MOST)
    for i, world in enumerate(extremes):
        best = i + len(extremes) * int(np.argmax(logs[i :: len(extremes)]))
        tried[world] = (u[best], float(logs[best]))
    for _ in range(_SWEEPS):
        now = max(tried, key=lambda w: tried[w][1])
        near = [w for w in _neighbours(p, labels, now) if w not in tried]
        _try(found, near, tried[now][0], tried)
        together = _together(labels, now, tried)
        if together not in tried:
            _try(found, [together], tried[now][0], tried)
        if max(tried, key=lambda w: tried[w][1]) == now:
            break
    worlds = tuple(tried)
    u = np.stack([tried[w][0] for w in worlds])
    logs = np.array([tried[w][1] for w in worlds])
    if not np.isfinite(logs).any():
        raise ValueError(
            "the joint model cannot be evaluated on these data; look for labels with hardly any reading above zero"
        )
    matter = np.flatnonzero(logs > logs.max() + np.log(_WORTH))
    fits = _rested(p, [worlds[int(k)] for k in matter], u[matter])
    return Worlds(p, labels, worlds, u, logs, dict(zip(map(int, matter), fits, strict=True)))


def _neighbours(p: JointProblem, labels: Sequence[str], world: World) -> list[World]:
    """Return the worlds in which one label is something else."""
    out = []
    for i, label in enumerate(labels):
        for what in (BELIEVED, LIES, RATES, READINGS, *causes(p, label)):
            if what != world[i]:
                out.append((*world[:i], what, *world[i + 1 :]))
    return out


def _together(labels: Sequence[str], now: World, tried: Mapping[World, tuple[FloatArray, float]]) -> World:
    """Return the world with the best single change of every label made at once."""
    best = list(now)
    for i in range(len(labels)):
        single = [w for w in tried if all(a == b for j, (a, b) in enumerate(zip(w, now, strict=True)) if j != i)]
        best[i] = max(single, key=lambda w: tried[w][1])[i]
    return tuple(best)


def _try(
    found: JointFit, worlds: Sequence[World], begin: FloatArray, tried: dict[World, tuple[FloatArray, float]],
) -> None:  # fmt: skip
    """Fit worlds side by side and note how probable each is; hopeless ones are not searched to their end."""
    if not worlds:
        return
    u, logs = _searched(found, worlds, np.tile(begin, (len(worlds), 1)), _LOOKING)
    top = max([float(logs.max()), *(known for _, known in tried.values())])
    on = np.flatnonzero(logs > top - _HOPELESS)
    if on.size:
        u[on], logs[on] = _searched(found, [worlds[int(k)] for k in on], u[on], _MOST)
    for k, world in enumerate(worlds):
        tried[world] = (u[k], float(logs[k]))


def _beginnings(found: JointFit, starts: FloatArray | None) -> list[FloatArray]:
    """Return the fit's coordinates, and the same with other vesicle parameters."""
    out = [found.u]
    for theta in () if starts is None else starts:
        u = found.u.copy()
        u[: len(theta)] = found.problem.vesicle.to_search(theta)
        out.append(u)
    return out


def _searched(found: JointFit, worlds: Sequence[World], begin: FloatArray, most: int) -> tuple[FloatArray, FloatArray]:
    """Return where searches in worlds end after some steps, (K, q), and logarithms of how probable that is, (K,)."""
    p = found.problem
    prior = _priors(p, worlds)
    ended = minimise(p, begin, prior=prior, most=most)
    rows, known = ended.residual[:, : found.size], ended.residual[:, found.size :]
    cost = np.einsum("bn,bn->b", rows, rows) / found.scale + np.einsum("bn,bn->b", known, known)
    J = np.concatenate(
        [ended.jacobian[..., : found.size] / found.scale**0.5, ended.jacobian[..., found.size :]], axis=2
    )
    size = np.linalg.slogdet(J @ J.swapaxes(1, 2))[1]
    before = [sum(_before(p, label, what) for label, what in zip(p.arms.labels, w, strict=True)) for w in worlds]
    logs = -0.5 * (cost + size) - np.log(prior.sd).sum(axis=1) + np.array(before)
    logs = logs + _HEAVY * prior.heavy.sum(axis=1)
    return ended.x, np.where(np.isfinite(logs), logs, -np.inf)


def _priors(p: JointProblem, worlds: Sequence[World]) -> Prior:
    """Return the priors of several worlds, (K, q)."""
    each = [prior_in(p, w) for w in worlds]
    return Prior(*(np.stack([getattr(k, name) for k in each]) for name in ("centre", "sd", "heavy")))


def _before(p: JointProblem, label: str, what: str) -> float:
    """Return the logarithm of a label's probability beforehand."""
    if what in BEFOREHAND:
        return float(np.log(BEFOREHAND[what]))
    return float(np.log(BEFOREHAND[ONE_CAUSE] / len(causes(p, label))))


def causes(p: JointProblem, label: str) -> list[str]:
    """Return by what a label may misread: its coordinates' names without the label."""
    return [name.removeprefix(f"{label}.") for i, name in enumerate(p.names)
            if _kind(name, label) and p.prior.sd[i] < _UNKNOWN]  # a scale that nobody knows cannot be wrong  # fmt: skip


def _kind(name: str, label: str) -> str:
    """Return which of `FAITHFUL` a coordinate of a label is; nothing if none."""
    own = name.removeprefix(f"{label}.")
    kind = EFFICIENCY if own.startswith(f"{EFFICIENCY}_") else own
    return kind if own != name and kind in FAITHFUL else ""


def prior_in(p: JointProblem, world: World) -> Prior:
    """Return the priors of a world."""
    centre, sd, heavy = p.prior.centre.copy(), p.prior.sd.copy(), p.prior.heavy.copy()
    for label, what in zip(p.arms.labels, world, strict=True):
        for i, name in enumerate(p.names):
            kind = _kind(name, label)
            if not kind or p.prior.sd[i] >= _UNKNOWN:
                continue
            reads = kind in (EFFICIENCY, SCALE)
            if what == LIES or (what == RATES and not reads) or (what == READINGS and reads):
                continue
            alone = name == f"{label}.{what}"
            known = (MISREADING if alone else FAITHFUL)[kind]
            middle, low, high = (float(np.log(v / (1 - v)) if kind == FRACTION else np.log(v)) for v in known)
            centre[i], sd[i], heavy[i] = middle, (high - low) / (2 * _Z), False
    return Prior(centre, sd, heavy)


def _rested(p: JointProblem, worlds: Sequence[World], begin: FloatArray) -> list[JointFit]:
    """Return the fits in worlds, searched until they rest."""
    prior = _priors(p, worlds)
    ended = minimise(p, begin, prior=prior)
    return [JointFit(replace(p, prior=Prior(prior.centre[k], prior.sd[k], prior.heavy[k])), ended.x[k], ended.residual[k],
                     ended.jacobian[k].T, bool(ended.converged[k])) for k in range(len(worlds))]  # fmt: skip
