"""Whether data can tell a model's parameters apart, before a study and after, and which samples would help most.

Before: the information a planned design would carry at plausible parameters. After: what the fitted data carried. Both
are the sensitivities of the predictions, so both are judged by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.optimum import Optimum, inverse_of
from evbiodist.kinetics.fitting.problem import Freedom
from evbiodist.kinetics.fitting.profile import Profile
from evbiodist.kinetics.fitting.quantities import quantity
from evbiodist.kinetics.fitting.search import FLOOR
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses, Input
from evbiodist.kinetics.models.solve import Design, solve

FloatArray = NDArray[np.float64]
#: Relative standard error, and correlation, from which a parameter is flagged.
MOST_CV, MOST_CORRELATION = 50.0, 0.8
#: Condition of the scaled sensitivities from which small changes of the data change parameters at will.
MOST_CONDITION = 1e3
_BLIND = 1e-7  # singular value, relative to the largest, of a direction the data say nothing about
_TAKES_PART = 0.1
_CANDIDATES, _WIDER = 60, 3.0
_RIDGE = 1e-10


@dataclass(frozen=True, eq=False)
class Identifiability:
    """What can be told about the parameters of a model.

    Parameters
    ----------
    names : of the q free parameters.
    cv_pct : (q,) relative standard errors; NaN where not determined.
    correlation : (q, q) between search coordinates.
    rank : directions that are determined, q at best; condition : of the sensitivities scaled to length 1.
    flags : of each parameter, words of `evbiodist.study.flags.FLAGS`; words : findings as sentences, none when all is well.
    """

    names: tuple[str, ...]
    cv_pct: FloatArray
    correlation: FloatArray
    rank: int
    condition: float
    flags: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing was found."""
        return not self.words


@dataclass(frozen=True, eq=False)
class Plan:
    """A study to be done, at parameters that are thought likely.

    Parameters
    ----------
    graph : the model; theta : (p,) plausible parameters, such as those of `evbiodist.kinetics.models.catalogue.typical`.
    time_h : (T,) sampling times, hours; inputs : as in `evbiodist.kinetics.models.solve.Design`, or `dose` as a bolus.
    animals : at each time, a number or (T,); cv : relative spread of a value between animals.
    fixed, ties : as in `evbiodist.kinetics.fitting.search.FitSettings`.

    Raises
    ------
    ValueError : numbers out of range, shapes that do not fit.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> plan = Plan(build("two_compartment_iv"), [1.0, 2.0, 1.5, 5.0], [1, 2, 4], dose=100)
    >>> identifiability(plan).rank  # three times cannot carry four parameters
    3
    """

    graph: RateGraph
    theta: ArrayLike
    time_h: ArrayLike
    dose: float = 100.0
    inputs: Mapping[str, Input] | None = None
    animals: ArrayLike = 3
    cv: float = 0.25
    fixed: Mapping[str, float | None] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        theta, t = np.asarray(self.theta, float), np.asarray(self.time_h, float)
        if theta.shape != (len(self.graph.names),) or not np.isfinite(theta).all():
            raise ValueError(f"theta has shape {theta.shape}, expected {len(self.graph.names)} finite numbers for "
                             f"{', '.join(self.graph.names)}")  # fmt: skip
        if t.ndim != 1 or not t.size or not np.isfinite(t).all():
            raise ValueError(f"time_h has shape {t.shape}, expected a list of finite sampling times in hours")
        if np.asarray(self.animals).shape not in ((), t.shape) or (np.asarray(self.animals) < 1).any():
            raise ValueError(f"animals has {self.animals}, expected 1 or more, one number or one for each time")
        if not self.cv > 0:
            raise ValueError(f"cv has {self.cv}, expected a number above 0 such as 0.25")

    @property
    def given(self) -> Mapping[str, Input]:
        """Inputs by name."""
        return self.inputs or {self.graph.ports[0].name: Doses(self.dose)}


class _Known(NamedTuple):
    """What is known of a study, planned or done."""

    graph: RateGraph
    theta: FloatArray
    inputs: Mapping[str, Input]
    freedom: Freedom
    sensitivity: FloatArray  # (N, q) in standard deviations
    covariance: FloatArray  # (q, q)
    time_h: FloatArray
    cv: FloatArray  # (n_seen,)
    floor: FloatArray  # (n_seen,)


def identifiability(study: FitResult | Plan, profiles: Mapping[str, Profile] | None = None) -> Identifiability:
    """Judge what a fit's data tell about its parameters, or what a planned study would.

    Parameters
    ----------
    study : a fit, or a plan.
    profiles : of the fit, by `evbiodist.kinetics.fitting.profile.profile`; flat ones are then told.

    Returns
    -------
    Identifiability

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> plan = Plan(build("one_compartment_iv"), [2.0, 10.0], [0.1, 1, 4, 12], dose=100, animals=4)
    >>> found = identifiability(plan)
    >>> found.rank, found.fine, found.cv_pct.round(1).tolist()
    (2, True, [6.4, 8.5])

    Bellman R, Astrom KJ (1970) Math Biosci 7:329; Belsley DA, Kuh E, Welsch RE (1980) Regression Diagnostics, ch. 3.
    """
    k = _known(study)
    J = k.sensitivity
    length = np.linalg.norm(J, axis=0)
    _, s, v = np.linalg.svd(J / np.where(length > 0, length, 1.0), full_matrices=True)
    s = np.r_[s, np.zeros(len(v) - len(s))]
    blind = s <= _BLIND * s[0] if s[0] > 0 else np.ones(len(s), bool)
    names = k.freedom.names
    flags: dict[str, set[str]] = {n: set() for n in names}
    words = []
    lost = np.zeros(len(names), bool)
    for direction in v[blind]:
        part = np.abs(direction) > _TAKES_PART
        lost |= part
        who = [n for n, p in zip(names, part, strict=True) if p]
        words.append(f"the data say nothing about {who[0]}" if len(who) == 1
                     else f"{', '.join(who)} cannot be told apart: they can change together without a trace")  # fmt: skip
    spread = np.sqrt(np.diag(k.covariance))
    lost |= spread == 0
    slopes = k.graph.search_slopes(k.theta)[np.argmax(k.freedom.link, axis=0)]
    own = k.theta[np.argmax(k.freedom.link, axis=0)]
    cv_pct = np.where(lost, np.nan, 100 * spread * np.abs(slopes) / np.where(own == 0, np.nan, np.abs(own)))
    safe = np.where(spread > 0, spread, 1.0)
    correlation = k.covariance / np.outer(safe, safe)
    _judge(names, cv_pct, correlation, lost, flags, words)
    condition = float(s[0] / s[-1]) if s[-1] > 0 else np.inf
    if not blind.any() and condition > MOST_CONDITION:
        words.append(
            f"the sensitivities are nearly dependent (condition {condition:.0f}): small errors move the parameters far"
        )
    for name, p in (profiles or {}).items():
        if p.flat:
            words.append(f"the profile of {name} is flat: {p.words.partition(': ')[2]}")
            if name in flags:
                flags[name].add("open_interval" if "open" in (p.below, p.above) else "at_bound")
    return Identifiability(names, cv_pct, correlation, int((~blind).sum()), condition,
                           {n: tuple(sorted(f)) for n, f in flags.items()}, tuple(words))  # fmt: skip


def _judge(
    names: Sequence[str], cv_pct: FloatArray, correlation: FloatArray, lost: NDArray[np.bool_], flags: dict[str, set[str]],
    words: list[str],
) -> None:  # fmt: skip
    """Flag what is imprecise, correlated or lost."""
    for i, name in enumerate(names):
        if lost[i]:
            flags[name].add("not_identifiable")
        elif cv_pct[i] >= MOST_CV:
            flags[name].add("imprecise")
            words.append(
                f"{name} has a relative standard error of {cv_pct[i]:.0f} %: quote no more than its order of magnitude"
            )
        for j in range(i):
            r = correlation[i, j]
            if abs(r) >= MOST_CORRELATION and not lost[i] and not lost[j]:
                flags[name].add("correlated")
                flags[names[j]].add("correlated")
                together = "product" if r < 0 else "ratio"
                words.append(
                    f"{names[j]} and {name} go together (r = {r:+.2f}): their {together} is known better than either"
                )


def _known(study: FitResult | Plan) -> _Known:
    if isinstance(study, FitResult):
        o, data = Optimum.of(study), study.data
        floor = np.array([FLOOR * np.abs(data.mean[data.which == i]).max(initial=0.0) for i in range(len(data.seen))])
        cv = np.where(data.cv > 0, data.cv, 0.0)
        if study.settings.weights != "pooled":
            cv = np.array([np.median(study.problem.sigma[0][data.which == i] / np.abs(o.predicted[data.which == i]))
                           for i in range(len(data.seen))])  # fmt: skip
        J = o.sensitivity * ~o.stuck / np.sqrt(o.scale)
        return _Known(study.graph, study.theta, study.design.inputs, study.problem.freedom, J, o.covariance,
                      study.data.time_h, cv * np.sqrt(o.scale), floor)  # fmt: skip
    theta, t = np.asarray(study.theta, float), np.asarray(study.time_h, float)
    freedom = Freedom.of(study.graph, study.fixed, study.ties)
    y = solve(study.graph, theta[None], Design(t, inputs=study.given)).y[0]
    k = _Known(study.graph, theta, study.given, freedom, np.zeros((0, 0)), np.zeros((0, 0)), t,
               np.full(y.shape[1], study.cv), FLOOR * np.abs(y).max(axis=0))  # fmt: skip
    J = _sensitivity(k, t) * np.sqrt(np.broadcast_to(study.animals, t.shape))[:, None, None]
    J = J.reshape(-1, J.shape[2])
    return k._replace(sensitivity=J, covariance=inverse_of(J, np.ones(J.shape[1], bool)))


def _sensitivity(k: _Known, t: FloatArray) -> FloatArray:
    """Return the sensitivities of one animal's values at some times, in standard deviations, (T, n_seen, q)."""
    found = solve(k.graph, k.theta[None], Design(t, inputs=k.inputs), derivatives=True)
    y, dy = found.y[0], np.einsum("pto,pq->toq", found.dy[0], k.freedom.link)
    sd = np.sqrt((k.cv * y) ** 2 + k.floor**2)
    return np.asarray(dy / np.where(sd > 0, sd, np.inf)[:, :, None])


class NextTime(NamedTuple):
    """A sampling time worth adding.

    Parameters
    ----------
    time_h : when; animals : how many.
    gain : in log det of the information by this time, given those listed before it; with q parameters, a gain of 2 q
        log 2 halves every standard error.
    se_pct : relative standard error of the chosen quantity with this time and those listed before it;
        se_before_pct : with those before it only.
    """

    time_h: float
    animals: int
    gain: float
    se_pct: float
    se_before_pct: float

    @property
    def words(self) -> str:
        """The time in words."""
        told = f"{self.animals} more animals at {self.time_h:.3g} h"
        if np.isfinite(self.se_pct):
            return f"{told} bring the relative standard error from {self.se_before_pct:.1f} to {self.se_pct:.1f} %"
        return f"{told} raise the log determinant of the information by {self.gain:.2f}"


def next_times(
    study: FitResult | Plan, *, times: int = 1, animals: int = 3, candidates: ArrayLike | None = None,
    of: str | None = None, criterion: str = "d",
) -> list[NextTime]:  # fmt: skip
    """Return which sampling times would help most.

    Parameters
    ----------
    study : a fit, or a plan, to which times are added.
    times : how many to add; animals : at each.
    candidates : (C,) times to choose from; 60 from a third of the first to three times the last if None.
    of : parameter or derived quantity whose standard error is told.
    criterion : ``d`` for all parameters (determinant of the information), ``se`` for the quantity in `of`.

    Returns
    -------
    list of NextTime : the best one first. Times are added greedily and then exchanged until none is better.

    Raises
    ------
    ValueError : numbers out of range, or ``se`` without a quantity.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> plan = Plan(build("one_compartment_iv"), [2.0, 10.0], [1, 2, 4], dose=100)
    >>> best = next_times(plan, of="half_life")[0]
    >>> best.time_h > 4, best.se_pct < best.se_before_pct
    (True, True)

    Fedorov VV (1972) Theory of Optimal Experiments; Atkinson AC, Donev AN (1992) Optimum Experimental Designs, ch. 12.
    """
    if times < 1 or animals < 1:
        raise ValueError(f"times has {times} and animals {animals}, expected 1 or more of both")
    if criterion not in ("d", "se") or (criterion == "se" and of is None):
        raise ValueError(f"criterion has '{criterion}' and of {of!r}, expected d, or se with the name of a quantity")
    k = _known(study)
    t = _candidates(k, candidates)
    J = _sensitivity(k, t)
    added = animals * np.einsum("toq,tor->tqr", J, J)
    base = k.sensitivity.T @ k.sensitivity
    base = base + _RIDGE * np.diag(np.maximum(np.diag(base), np.diag(added.sum(axis=0))))
    aim = _aim(k, of)

    def worth(information: FloatArray) -> FloatArray:
        if criterion == "d":
            return np.asarray(np.linalg.slogdet(information)[1])
        return np.asarray(-np.log(_se_pct(information, aim)))

    chosen = _exchanged(base, added, worth, times)
    rows, information = [], base
    left = list(chosen)
    while left:
        best = left.pop(int(np.argmax(worth(information + added[left]))))
        more = information + added[best]
        gain = float(np.linalg.slogdet(more)[1] - np.linalg.slogdet(information)[1])
        rows.append(
            NextTime(float(t[best]), animals, gain, float(_se_pct(more, aim)), float(_se_pct(information, aim)))
        )
        information = more
    return rows


def _candidates(k: _Known, given: ArrayLike | None) -> FloatArray:
    if given is not None:
        t = np.unique(np.asarray(given, dtype=np.float64))
        if not t.size or not np.isfinite(t).all() or (t < 0).any():
            raise ValueError("candidates must be finite times of 0 h or more; give at least one")
        return t
    later = k.time_h[k.time_h > 0]
    return np.geomspace(later.min(initial=1.0) / _WIDER, max(k.time_h.max(), 1e-3) * _WIDER, _CANDIDATES)


def _aim(k: _Known, of: str | None) -> FloatArray | None:
    """Return the gradient (q,) of a quantity's logarithm."""
    if of is None:
        return None
    value, slope = quantity(k.graph, of, Design(np.unique(k.time_h), inputs=k.inputs), float(k.time_h.max()))(
        k.theta[None]
    )
    return np.asarray((slope[0] / value[0]) @ k.freedom.link)


def _se_pct(information: FloatArray, aim: FloatArray | None) -> FloatArray:
    if aim is None:
        return np.full(information.shape[:-2], np.nan)
    right = np.broadcast_to(aim[:, None], (*information.shape[:-1], 1))
    return np.asarray(100 * np.sqrt(np.linalg.solve(information, right)[..., 0] @ aim))


def _exchanged(base: FloatArray, added: FloatArray, worth: Callable[[FloatArray], FloatArray], times: int) -> list[int]:
    """Return the best candidates: greedy, then each exchanged for a better one until none is."""
    chosen: list[int] = []
    for _ in range(times):
        chosen.append(int(np.argmax(worth(base + added[chosen].sum(axis=0) + added))))
    improved = True
    while improved:
        improved = False
        for i in range(times):
            others = base + added[[c for j, c in enumerate(chosen) if j != i]].sum(axis=0)
            worths = worth(others + added)
            best = int(np.argmax(worths))
            if worths[best] > worths[chosen[i]] + 1e-12:
                chosen[i], improved = best, True
    return chosen
