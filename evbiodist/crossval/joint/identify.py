"""What the labels determine together, what only with what is known of labels, and what not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.quantities import log_quantity

FloatArray = NDArray[np.float64]
Source = Literal["labels", "priors", "nothing"]
#: Relative to the largest singular value, a direction that rows say nothing about.
_BLIND = 1e-8
#: A share of a quantity's gradient along such directions from which it is not determined by rows alone.
_LEANS = 1e-3
#: Rows alone are said to determine a quantity whose relative error they leave below this; and to have taught nothing when
#: its error shrank by less than the share.
_PRECISE, _LEARNED = 0.5, 0.2
#: An error of the logarithm from which readings alone tell nothing: a factor of 50.
_HOPELESS = 2.0


@dataclass(frozen=True)
class Identified:
    """What is known of one quantity, and from where.

    Parameters
    ----------
    name : of a vesicle quantity or a coordinate.
    sd : of its logarithm (or search coordinate) after the rows; before : from priors alone; alone : from rows alone, infinite
        where they cannot tell.
    source : ``labels`` (rows alone), ``priors`` (only with what is known of labels) or ``nothing`` (as before the study).
    reason : in words.
    """

    name: str
    sd: float
    before: float
    alone: float
    source: Source
    reason: str


@dataclass(frozen=True)
class Rank:
    """Structural identifiability: directions that rows determine, of all searched; and the vesicle's alone."""

    rank: int
    size: int
    blind: tuple[str, ...]


def structural_rank(found: JointFit) -> Rank:
    """Return how many directions of the coordinates the rows determine at all, and which coordinates lie in others.

    Notes
    -----
    Bellman & Astrom 1970, Math Biosci 7:329; rank of the sensitivities over the design (Jacquez & Greif 1985, 77:201).
    """
    _, s, v = _split(found)
    blind = v[s <= _BLIND * s[0]]
    share = np.sqrt((blind**2).sum(axis=0)) if len(blind) else np.zeros(found.problem.size)
    names = tuple(n for n, part in zip(found.problem.names, share, strict=True) if part > 0.5)
    return Rank(int((s > _BLIND * s[0]).sum()), found.problem.size, names)


def _split(found: JointFit) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return lengths of the columns, singular values and right vectors of the scaled sensitivities of the rows."""
    J = found.sensitivity[: found.size]
    length = np.linalg.norm(J, axis=0)
    length = np.where(length > 0, length, 1.0)
    _, s, v = np.linalg.svd(J / length, full_matrices=True)
    return length, np.r_[s, np.zeros(len(v) - len(s))], v


def identified(found: JointFit, names: Sequence[str]) -> list[Identified]:
    """Return from where each quantity is known.

    Parameters
    ----------
    found : the joint fit; names : as in `evbiodist.crossval.joint.quantities.log_quantity`.

    Returns
    -------
    list of Identified : quantities that do not exist are left out.
    """
    length, s, v = _split(found)
    seen = s > _BLIND * s[0]
    out = []
    for name in names:
        value, gradient = log_quantity(found.problem, name)(found.u[None])
        g = gradient[0]
        if not np.isfinite(value[0]) or not np.isfinite(g).all():
            continue
        sd = float(np.sqrt(max(g @ found.covariance @ g, 0.0)))
        before = float(np.sqrt(np.sum((g * found.problem.prior.sd) ** 2)))
        along = v @ (g / length)
        leans = float(np.linalg.norm(along[~seen])) / max(float(np.linalg.norm(along)), 1e-300)
        alone = float("inf") if leans > _LEANS else float(np.sqrt(found.scale * np.sum((along[seen] / s[seen]) ** 2)))
        out.append(Identified(name, sd, before, alone, *_judged(sd, before, alone)))
    return out


def _judged(sd: float, before: float, alone: float) -> tuple[Source, str]:
    if alone < _PRECISE:
        return "labels", f"the readings alone determine it to {100 * alone:.0f} %"
    if sd > (1 - _LEARNED) * before:
        return "nothing", "the study says no more of it than was known before"
    if not np.isfinite(alone):
        return "priors", "the readings alone cannot tell it; it rests on what is known of labels"
    return (
        "priors",
        f"the readings alone determine it to {100 * alone:.0f} % only; what is known of labels does the rest",
    )
