"""What to measure next: which animals, control arm or further label would shrink a quantity's interval most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.arms import Arm, ArmKind
from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.problem import JointProblem, build_problem
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.kinetics.fitting.data import FitData
from evbiodist.kinetics.fitting.search import FLOOR
from evbiodist.study.labels import LabelModel

FloatArray = NDArray[np.float64]
#: Relative spread between animals assumed for arms that nobody measured.
_CV = 0.25


@dataclass(frozen=True)
class NextStep:
    """Something to measure, and what it would bring.

    Parameters
    ----------
    kind : ``animals``, ``control`` or ``label``; label : whose; times_h : when; animals : how many at each time.
    sd_now, sd_then : standard deviation of the quantity's logarithm, without and with it.
    """

    kind: str
    label: str
    times_h: tuple[float, ...]
    animals: int
    sd_now: float
    sd_then: float

    @property
    def gain_pct(self) -> float:
        """By how much the interval shrinks, %."""
        return 100 * (1 - self.sd_then / self.sd_now)

    @property
    def words(self) -> str:
        """The step in words."""
        when = f"{', '.join(f'{t:g}' for t in self.times_h)} h"
        what = {"animals": f"{self.animals} more animals with {self.label} at {when}",
                "control": f"a control arm with free {self.label} alone ({self.animals} animals at each of {when})",
                "label": f"a further label, {self.label} ({self.animals} animals at each of {when})"}[self.kind]  # fmt: skip
        return f"{what} would shrink the interval by {self.gain_pct:.0f} %"


def next_steps(
    found: JointFit, models: Mapping[str, LabelModel], quantity: str, *, animals: int = 4, further: Sequence[LabelModel] = ()
) -> list[NextStep]:  # fmt: skip
    """Return what would shrink a quantity's interval most, the best first.

    Parameters
    ----------
    found : the joint fit; models : of its labels; quantity : as in `evbiodist.crossval.joint.quantities.log_quantity`.
    animals : at each time of a proposal; further : labels that could be added.

    Returns
    -------
    list of NextStep : expected from the information of the fitted model (linear), with organs and blood of every animal.

    Notes
    -----
    Atkinson & Donev 1992, Optimum Experimental Designs, ch. 10 (c-optimality).
    """
    p = found.problem
    gradient = log_quantity(p, quantity)(found.u[None])[1][0]
    now = float(np.sqrt(gradient @ found.covariance @ gradient))
    information = np.linalg.inv(found.covariance)
    out = []
    for kind, label, model, arm, when in _proposals(p, models, animals, further):
        with_it, u = _extended(found, arm, {**models, label: model})
        J = _sensitivity(with_it, u, len(p.arms.arms), p.rows.alike) / found.scale**0.5
        whole = np.diag(1 / with_it.prior.sd**2)
        place = [with_it.names.index(n) for n in p.names]
        whole[np.ix_(place, place)] = information
        g = np.zeros(with_it.size)
        g[place] = gradient
        then = float(np.sqrt(g @ np.linalg.solve(whole + J.T @ J, g)))
        out.append(NextStep(kind, label, when, animals, now, then))
    return sorted(out, key=lambda step: (step.sd_then, step.kind, step.label, step.times_h))


def _proposals(
    p: JointProblem, models: Mapping[str, LabelModel], animals: int, further: Sequence[LabelModel]
) -> Iterator[tuple[str, str, LabelModel, Arm, tuple[float, ...]]]:
    times = np.unique(np.concatenate([a.data.time_h for a in p.arms.arms if a.kind == "vesicles"]))
    several = tuple(float(t) for t in times[np.unique(np.linspace(0, len(times) - 1, 4).round().astype(int))])
    for label in p.arms.labels:
        mine = [a for a in p.arms.arms if a.label == label and a.kind == "vesicles"]
        for t in (*several, float(times[-1]) * 2):
            yield "animals", label, models[label], _arm(p, label, "vesicles", mine[0], (t,), animals), (t,)
        if not any(a.label == label and a.kind == "free_label" for a in p.arms.arms):
            yield "control", label, models[label], _arm(p, label, "free_label", mine[0], several, animals), several
    for model in further:
        if model.name not in models:
            like = next(a for a in p.arms.arms if a.kind == "vesicles")
            arm = replace(_arm(p, model.name, "vesicles", like, several, animals), absolute=True)
            yield "label", model.name, model, arm, several


def _arm(p: JointProblem, label: str, kind: ArmKind, like: Arm, times: Sequence[float], animals: int) -> Arm:
    """Return an arm that was not measured, with as many rows as it would have."""
    seen = tuple(p.seen.seen)
    shape = (len(times), len(seen))
    which = np.broadcast_to(np.arange(len(seen)), shape).ravel()
    time = np.repeat(np.asarray(times, float), len(seen))
    size = which.size
    own = dict(zip(like.data.seen, like.data.cv, strict=True))
    data = FitData(seen, which, np.repeat(np.arange(len(times)), len(seen)), time, np.ones(size), np.zeros(size), np.zeros(size),
                   np.full(size, float(animals)), np.array([own.get(o) or _CV for o in seen]), True, np.ones(size),
                   ("pct_id_per_g", *["pct_id"] * (len(seen) - 1)), np.zeros(size, bool))  # fmt: skip
    return Arm(label, kind, like.absolute, like.vessels, data, tuple(f"{t:g} h" for t in times), frozenset())


def _extended(found: JointFit, arm: Arm, models: Mapping[str, LabelModel]) -> tuple[JointProblem, FloatArray]:
    """Return the problem with one more arm, and its coordinates: those of the fit, and priors' centres where they are new."""
    p = found.problem
    arms = replace(p.arms, arms=(*p.arms.arms, arm))
    wide = build_problem(p.vesicle, arms, models, p.inputs, found.theta)
    u = wide.prior.centre.copy()
    for i, name in enumerate(wide.names):
        if name in p.names:
            u[i] = found.u[p.names.index(name)]
    return wide, u


def _sensitivity(problem: JointProblem, u: FloatArray, arm: int, alike: float) -> FloatArray:
    """Return the new arm's sensitivities (n, q) in standard deviations of its rows."""
    y, dy = (a[0] for a in problem.predict(u[None]))
    mine = problem.rows.arm == arm
    top = np.zeros(len(problem.seen.seen))
    np.maximum.at(top, problem.rows.organ[mine], np.abs(y[mine]))
    rows = replace(problem.rows, alike=alike, floor=FLOOR * top[problem.rows.organ]).weighed(y)
    sd = np.where(rows.sigma > 0, rows.sigma, np.inf)
    return np.asarray(rows.decorrelated(dy / sd, np.ones((1, rows.size)))[:, mine].T)
