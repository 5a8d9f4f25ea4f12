"""Predict what was left out: a label from all others, an organ, a time, an animal.

What is predicted is the logarithm of each organ's mean at each time, as far as the left-out label's own errors allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.fit import JointFit, minimise
from evbiodist.crossval.joint.hypotheses import LIES, Worlds, prior_in
from evbiodist.crossval.joint.problem import JointProblem, Prior
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.crossval.joint.rows import Rows
from evbiodist.study.estimate import student

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
KINDS = ("label", "organ", "time", "animal")
#: So many fits are searched side by side at most, to bound memory.
_TOGETHER = 40
#: Steps of a search without a set, and without a single animal, which moves the answer little.
_STEPS = {False: 40, True: 4}


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of the means of one left-out set of rows.

    Parameters
    ----------
    label, organ : (C,) whose; time_h, seen, median, low, high : (C,) readings and the prediction with its interval, in the
        label's unit; unit : (C,).
    """

    label: tuple[str, ...]
    organ: tuple[str, ...]
    time_h: FloatArray
    seen: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray
    unit: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """How well the rest predicts what was left out.

    Parameters
    ----------
    kind, name : one of `KINDS` and which one.
    n : means predicted; dropped : those that are not positive and have no logarithm.
    log_density : of the seen means on the logarithm, per mean; coverage : share of means within their interval.
    bias : by organ, mean of log(seen / predicted); answers : each asked quantity's logarithm and its error without it.
    predicted : the curves; reason : why there is no prediction; empty otherwise.
    """

    kind: str
    name: str
    n: int
    dropped: int
    log_density: float
    coverage: float
    bias: dict[str, float]
    answers: dict[str, tuple[float, float]]
    predicted: Predicted | None
    reason: str = ""


def leave_out(
    worlds: Worlds, kinds: Sequence[str] = KINDS, names: Sequence[str] = (), level: float = 0.95
) -> list[LeftOut]:
    """Fit without each label, organ, time and animal in turn, and predict it.

    Parameters
    ----------
    worlds : of the joint fit; the most probable one is taken, and a left-out label is taken to be as its catalogue entry says.
    kinds : of `KINDS`; names : quantities whose answer without it is wanted.
    level : of the intervals of predictions.

    Returns
    -------
    list of LeftOut : in the order of `KINDS`; a set that leaves nothing to predict from has its reason.

    Notes
    -----
    Logarithmic score: Gneiting & Raftery 2007, J Am Stat Assoc 102:359.
    """
    found = worlds.best
    sets = [s for kind in sorted(kinds, key=KINDS.index) for s in _sets(found.problem, kind)]
    fits = iter(_refits(worlds, [s for s in sets if not _why_not(found.problem, s)]))
    out = []
    for s in sets:
        why = _why_not(found.problem, s)
        if why:
            out.append(LeftOut(s.kind, s.name, 0, 0, np.nan, np.nan, {}, {}, None, why))
        else:
            out.append(_score(next(fits), s, names, level, found.scale))
    return out


class _Set(NamedTuple):
    """Something to leave out: the rows (N,) it is in, values and `keep` (N,) of the rest, what was seen of it (N,), and whether
    that is a single animal."""

    kind: str
    name: str
    out: BoolArray
    value: FloatArray
    keep: FloatArray
    seen: FloatArray
    single: bool


def _sets(p: JointProblem, kind: str) -> list[_Set]:
    """Return what can be left out."""
    rows, mine = p.rows, p.on_vesicles
    whole = np.ones(rows.size)
    if kind == "label":
        labels = np.array([a.label for a in p.arms.arms])[rows.arm]
        found = [(label, labels == label) for label in p.arms.labels]
    elif kind == "organ":
        found = [(o, (rows.organ == i) & mine) for i, o in enumerate(p.seen.seen)]
    elif kind == "time":
        found = [(f"{t:g}", (rows.time_h == t) & mine) for t in np.unique(rows.time_h[mine])]
    else:
        return [_Set(kind, name, rows.group == g, *rows.without_animal(g, i), rows.value + _of(rows.group == g, away[i]), True)
                for g, (names, away) in enumerate(zip(rows.animals, rows.away, strict=True)) if mine[rows.first[g]]
                for i, name in enumerate(names)]  # fmt: skip
    return [_Set(kind, name, out, rows.value, whole - out, rows.value, False) for name, out in found if out.any()]


def _of(where: BoolArray, values: FloatArray) -> FloatArray:
    out = np.zeros(where.size)
    out[where] = values
    return out


def _why_not(p: JointProblem, s: _Set) -> str:
    if not (p.on_vesicles & (s.keep > 0)).any():
        return f"nothing is left to predict it from without this {s.kind}"
    return ""


def _refits(worlds: Worlds, sets: Sequence[_Set]) -> list[JointFit]:
    found = worlds.best
    best = worlds.worlds[int(np.argmax(worlds.log_probability))]
    out: list[JointFit] = []
    for part in _batches(sets):
        priors = [prior_in(worlds.catalogue, tuple(LIES if s.kind == "label" and label == s.name else what
                                                   for label, what in zip(worlds.labels, best, strict=True)))
                  for s in part]  # fmt: skip
        prior = Prior(*(np.stack([getattr(k, n) for k in priors]) for n in ("centre", "sd", "heavy")))
        ended = minimise(found.problem, np.tile(found.u, (len(part), 1)), keep=np.stack([s.keep for s in part]),
                         value=np.stack([s.value for s in part]), prior=prior, most=_STEPS[part[0].single])  # fmt: skip
        for k in range(len(part)):
            p = replace(found.problem, prior=priors[k])
            out.append(JointFit(p, ended.x[k], ended.residual[k], ended.jacobian[k].T, bool(ended.converged[k])))
    return out


def _batches(sets: Sequence[_Set]) -> Iterator[list[_Set]]:
    """Return sets that are searched side by side: of one sort, and not too many."""
    for single in (False, True):
        mine = [s for s in sets if s.single == single]
        for first in range(0, len(mine), _TOGETHER):
            yield mine[first : first + _TOGETHER]


def _score(fit: JointFit, s: _Set, names: Sequence[str], level: float, scale: float) -> LeftOut:
    """Compare what was left out with its prediction."""
    rows = fit.problem.rows
    y, dy = (a[0][..., s.out] for a in fit.problem.predict(fit.u[None]))
    seen, answers = s.seen[s.out], _answers(fit, names)
    good = (seen > 0) & (y > 0)
    if not good.any():
        return LeftOut(
            s.kind, s.name, 0, int(s.out.sum()), np.nan, np.nan, {}, answers, None, "no reading is above zero"
        )
    where = np.flatnonzero(s.out)[good]
    count = 1.0 if s.single else rows.members[where]
    sd = (
        np.sqrt(scale * ((rows.spread[where] * y[good]) ** 2 + rows.own[where] ** 2 + rows.floor[where] ** 2) / count)
        / y[good]
    )
    J = dy[:, good] / y[good]  # derivatives of logarithms
    total = J.T @ (scale * fit.inverse) @ J + _alike(rows, where, sd)
    return _told(fit, s, where, np.log(seen[good]), np.log(y[good]), total, answers, level)


def _alike(rows: Rows, where: NDArray[np.intp], sd: FloatArray) -> FloatArray:
    """Return the covariance of readings: rows of the same animals share a part of their error."""
    same = rows.group[where][:, None] == rows.group[where]
    return np.asarray(np.where(same, rows.alike, 0.0) * np.outer(sd, sd) + np.diag((1 - rows.alike) * sd**2))


def _told(
    fit: JointFit, s: _Set, where: NDArray[np.intp], logs: FloatArray, middle: FloatArray, total: FloatArray,
    answers: dict[str, tuple[float, float]], level: float,
) -> LeftOut:  # fmt: skip
    from scipy.linalg import cho_factor, cho_solve

    p = fit.problem
    away = logs - middle
    factor = cho_factor(total, lower=True)
    density = -0.5 * float(away @ cho_solve(factor, away)) - float(np.log(np.diag(factor[0])).sum())
    density -= 0.5 * len(away) * float(np.log(2 * np.pi))
    reach = student(level, np.inf) * np.sqrt(np.diag(total))
    organs = [p.seen.seen[i] for i in p.rows.organ[where]]
    bias = {o: float(np.mean(away[[k for k, x in enumerate(organs) if x == o]])) for o in dict.fromkeys(organs)}
    arms = [p.arms.arms[a] for a in p.rows.arm[where]]
    units = tuple(a.data.unit[a.data.seen.index(o)] for a, o in zip(arms, organs, strict=True))
    curves = Predicted(tuple(a.label for a in arms), tuple(organs), p.rows.time_h[where], np.exp(logs), np.exp(middle),
                       np.exp(middle - reach), np.exp(np.minimum(middle + reach, 700.0)), units)  # fmt: skip
    return LeftOut(s.kind, s.name, len(away), int(s.out.sum()) - len(away), density / len(away),
                   float(np.mean(np.abs(away) <= reach)), bias, answers, curves)  # fmt: skip


def _answers(fit: JointFit, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    out = {}
    for name in names:
        value, gradient = log_quantity(fit.problem, name)(fit.u[None])
        sd = float(np.sqrt(max(gradient[0] @ fit.covariance @ gradient[0], 0.0)))
        if np.isfinite(value[0]) and np.isfinite(sd):
            out[name] = (float(value[0]), sd)
    return out
