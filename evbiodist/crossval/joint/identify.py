"""What the labels determine together, what only with what is known of labels, and what not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.compose import (
    CLEARANCE,
    EFFICIENCY,
    FRACTION,
    LOSS,
    RELEASE,
    SCALE,
    TRANSFER,
    VESSELS,
)
from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.quantities import log_quantity

FloatArray = NDArray[np.float64]
Source = Literal["labels", "priors", "nothing"]
#: Relative to the largest singular value, a direction that rows say nothing about.
_BLIND = 1e-8
#: A quantity rests on what was known of something when, without that, its error grows by more than this factor; and the study
#: taught nothing of it when its error shrank by less than this share.
_RESTS, _LEARNED = 1.5, 0.2
#: Priors that belong together, by what begins the names of their coordinates (after the label).
_GROUPS = {
    "the calibration of doses": (SCALE,), "how labels read each organ": (EFFICIENCY,),
    "how much label is free, and where free label goes": (FRACTION, "free_"), "release of label in blood": (RELEASE,),
    "label that stays in tissue": (TRANSFER, CLEARANCE), "loss of signal": (LOSS,), "blood in organs' vessels": (VESSELS,),
}  # fmt: skip
#: What a prior's precision is multiplied by to leave it out: next to nothing, so that the answer stays a number.
_LEFT_OUT = 1e-6


@dataclass(frozen=True)
class Identified:
    """What is known of one quantity, and from where.

    Parameters
    ----------
    name : of a vesicle quantity or a coordinate.
    sd : of its logarithm (or search coordinate) after the rows; before : from priors alone.
    alone : without any prior on labels, only the vesicle's own loose ones.
    source : ``labels`` (readings alone), ``priors`` (only with what is known of labels) or ``nothing`` (as before the study).
    rests_on : what of labels it needs, the most needed first; reason : in words.
    """

    name: str
    sd: float
    before: float
    alone: float
    source: Source
    rests_on: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Rank:
    """Structural identifiability: directions that rows determine, of all searched, and coordinates that lie in the others."""

    rank: int
    size: int
    blind: tuple[str, ...]


def structural_rank(found: JointFit) -> Rank:
    """Return how many directions of the coordinates the rows determine at all, and which coordinates lie in others.

    Notes
    -----
    Bellman & Astrom 1970, Math Biosci 7:329; rank of the sensitivities over the design (Jacquez & Greif 1985, 77:201).
    """
    J = found.sensitivity[: found.size]
    length = np.linalg.norm(J, axis=0)
    _, s, v = np.linalg.svd(J / np.where(length > 0, length, 1.0), full_matrices=True)
    s = np.r_[s, np.zeros(len(v) - len(s))]
    blind = v[s <= _BLIND * s[0]]
    share = np.sqrt((blind**2).sum(axis=0)) if len(blind) else np.zeros(found.problem.size)
    names = tuple(n for n, part in zip(found.problem.names, share, strict=True) if part > 0.3)
    return Rank(int((s > _BLIND * s[0]).sum()), found.problem.size, names)


def identified(found: JointFit, names: Sequence[str]) -> list[Identified]:
    """Return from where each quantity is known.

    Parameters
    ----------
    found : the joint fit; names : as in `evbiodist.crossval.joint.quantities.log_quantity`.

    Returns
    -------
    list of Identified : quantities that do not exist are left out.
    """
    groups = {about: _members(found, words) for about, words in _GROUPS.items()}
    groups = {about: mine for about, mine in groups.items() if mine.any()}
    without = {about: _covariance(found, mine) for about, mine in groups.items()}
    alone = _covariance(found, np.logical_or.reduce([np.zeros(found.problem.size, bool), *groups.values()]))
    out = []
    for name in names:
        value, gradient = log_quantity(found.problem, name)(found.u[None])
        g = gradient[0]
        if not np.isfinite(value[0]) or not np.isfinite(g).all():
            continue
        sd, free = _sd(g, found.covariance), _sd(g, alone)
        before = float(np.sqrt(np.sum((g * found.problem.prior.sd) ** 2)))
        grown = {about: _sd(g, c) / max(sd, 1e-300) for about, c in without.items()}
        rests = tuple(about for about, by in sorted(grown.items(), key=lambda pair: -pair[1]) if by > _RESTS)
        out.append(Identified(name, sd, before, free, *_judged(sd, before, free, rests)))
    return out


def _members(found: JointFit, words: Sequence[str]) -> NDArray[np.bool_]:
    """Return which coordinates belong to a group."""
    own = [n.rpartition(".")[2] for n in found.problem.names]
    mine = [i >= len(found.problem.vesicle.names) and any(_is(n, w) for w in words) for i, n in enumerate(own)]
    return np.array(mine)


def _is(name: str, word: str) -> bool:
    if word == "free_":
        return name.startswith("free_") and name != FRACTION
    return name == word or name.startswith(f"{word}_")


def _covariance(found: JointFit, dropped: NDArray[np.bool_]) -> FloatArray:
    """Return the covariance of the coordinates without the priors of some."""
    rows, known = found.sensitivity[: found.size], found.sensitivity[found.size :]
    weight = np.where(dropped, _LEFT_OUT, 1.0)
    information = rows.T @ rows + (known * weight[:, None]).T @ (known * weight[:, None])
    length = np.sqrt(np.diag(information))
    sizes = np.outer(length, length)
    return np.asarray(np.linalg.inv(information / sizes) * (found.scale / sizes), dtype=np.float64)


def _sd(g: FloatArray, covariance: FloatArray) -> float:
    return float(np.sqrt(max(float(g @ covariance @ g), 0.0)))


def _judged(sd: float, before: float, alone: float, rests: tuple[str, ...]) -> tuple[Source, tuple[str, ...], str]:
    if sd > (1 - _LEARNED) * before:
        return "nothing", (), "the study says hardly more of it than was known before"
    if alone < _RESTS * sd:
        return "labels", (), "the readings of all labels together determine it"
    if not rests:
        return "priors", (), "it rests on several things known of labels, of which no single one is needed"
    return "priors", rests, f"it rests on what is known of {'; of '.join(rests)}"
