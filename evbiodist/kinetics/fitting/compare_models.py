"""Which of several fitted models the data prefer, and whether they prefer any.

Information criteria and their weights for any models of the same data; F-tests where one model is another with
parameters held or tied. A preference that chance would often bring is told as "not distinguishable".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.kinetics.fitting.optimum import Optimum, box, errors_known
from evbiodist.kinetics.fitting.problem import Freedom

FloatArray = NDArray[np.float64]
#: Weight of the best model from which it is preferred: nine times the evidence of all others together.
ENOUGH = 0.9
CRITERIA = ("aicc", "bic")


class Candidate(NamedTuple):
    """One model among others.

    Parameters
    ----------
    name : as given; parameters : that were estimated, the size of errors included where it was.
    minus_2_log_likelihood, aicc, bic : of the same values and, where it is not known, with the likeliest size of errors.
    delta : to the lowest AICc; weight, bic_weight : shares of the evidence.
    evidence_ratio : by how much the best model's evidence is larger.
    """

    name: str
    parameters: int
    minus_2_log_likelihood: float
    aicc: float
    bic: float
    delta: float
    weight: float
    bic_weight: float
    evidence_ratio: float


class FTest(NamedTuple):
    """A model against a larger one that contains it, both with the larger one's weights."""

    smaller: str
    larger: str
    f: float
    df: tuple[int, int]
    p: float

    @property
    def words(self) -> str:
        """The test in words."""
        verdict = "is needed" if self.p < 0.05 else "is not needed"
        return f"{self.larger} {verdict} beside {self.smaller} (F({self.df[0]}, {self.df[1]}) = {self.f:.3g}, p = {self.p:.2g})"


@dataclass(frozen=True)
class Comparison:
    """Models by AICc, the best one first.

    Parameters
    ----------
    table : one `Candidate` a model; tests : of nested pairs.
    best : name of the preferred model; None when the data do not tell.
    words : the finding in a sentence; notes : what weakens it.
    """

    table: tuple[Candidate, ...]
    tests: tuple[FTest, ...]
    best: str | None
    words: str
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """The table as dicts."""
        return [dict(c._asdict()) for c in self.table]


def compare(
    fits: Mapping[str, FitResult], *, nested: Collection[tuple[str, str]] = (), enough: float = ENOUGH
) -> Comparison:
    """Compare models fitted to the same values.

    Parameters
    ----------
    fits : by the names to show.
    nested : pairs (smaller, larger) that are nested though they are different graphs. Fits of one graph with parameters
        held or tied are recognised.
    enough : Akaike weight of the best model from which it is preferred.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError : fewer than two fits, different data or scales, names that are not there.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> data = curve_data([1, 2, 3, 4, 6, 8, 10], [8.1, 4.1, 1.9, 1.02, 0.26, 0.061, 0.016])
    >>> one, two = (fit(data, f"{n}_compartment_iv", dose=16) for n in ("one", "two"))
    >>> compare({"one": one, "two": two}, nested=[("one", "two")]).best
    'one'

    Burnham KP, Anderson DR (2002) Model Selection and Multimodel Inference; Schwarz 1978 for BIC.
    """
    _check(fits, nested, enough)
    known = all(errors_known(f) for f in fits.values())
    largest = max(fits.values(), key=lambda f: len(f.problem.freedom.names))
    inflation = max(largest.chi2_red, 1.0) if known else 1.0
    numbers = {name: _numbers(f, known, inflation) for name, f in fits.items()}
    aicc, bic = (np.array([n[i] for n in numbers.values()]) for i in (2, 3))
    weight, bic_weight = _weights(aicc), _weights(bic)
    table = tuple(sorted((Candidate(name, int(n[0]), n[1], n[2], n[3], float(n[2] - aicc.min()), float(w), float(b),
                                    float(np.exp(min(0.5 * (n[2] - aicc.min()), 700.0))))
                          for (name, n), w, b in zip(numbers.items(), weight, bic_weight, strict=True)),
                         key=lambda c: c.aicc))  # fmt: skip
    best = table[0].name if table[0].weight >= enough else None
    pairs = [(a, b) for a in fits for b in fits if a != b and ((a, b) in nested or is_nested(fits[a], fits[b]))]
    tests = tuple(_f_test(a, b, fits[a], fits[b]) for a, b in pairs)
    return Comparison(table, tests, best, _words(table, best, enough), _notes(fits, known, inflation))


def _check(fits: Mapping[str, FitResult], nested: Collection[tuple[str, str]], enough: float) -> None:
    if len(fits) < 2:
        raise ValueError(f"{len(fits)} fit was given; a comparison needs two or more")
    for a, b in nested:
        if a not in fits or b not in fits:
            raise ValueError(f"nested names ({a}, {b}), but the fits are {', '.join(fits)}")
    if not 0.5 <= enough < 1:
        raise ValueError(f"enough has {enough}, expected a weight from 0.5 to below 1 such as 0.9")
    names = list(fits)
    first = fits[names[0]]
    for name in names[1:]:
        other = fits[name]
        same = other.data.value.shape == first.data.value.shape and np.array_equal(other.data.value, first.data.value)
        if not same or not np.array_equal(other.data.censored, first.data.censored):
            raise ValueError(f"{names[0]} and {name} were fitted to different values, so their likelihoods cannot be compared; "
                             "fit both to the same rows")  # fmt: skip
        for word in ("scale", "weights", "loss"):
            a, b = getattr(first.settings, word), getattr(other.settings, word)
            if a != b:
                raise ValueError(
                    f"{names[0]} was fitted with {word} = '{a}' and {name} with '{b}'; use the same for both"
                )
    if first.settings.loss != "squares":
        raise ValueError(f"loss is '{first.settings.loss}', which is no likelihood; compare fits with loss = 'squares'")


def _numbers(f: FitResult, known: bool, inflation: float) -> tuple[int, float, float, float]:
    """Return parameters, -2 log likelihood, AICc and BIC of one fit."""
    p = f.problem
    y, _ = p.predict(p.freedom.free(f.graph.to_search(f.theta[None])), False)
    r, shown = p.residual(y)[0][0], ~f.data.censored
    n, q = len(r), len(p.freedom.names)
    spread = p.sigma[0][shown] / (f.data.value[shown] if f.settings.scale == "log" else 1.0)
    cost, logs = float(r @ r), 2 * float(np.sum(np.log(np.abs(spread))))
    k = q + (not known or inflation > 1)
    fit = cost / inflation if known else n * np.log(cost / n) + n
    total = float(fit + logs + n * np.log(2 * np.pi))
    small = 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf
    return k, total, total + 2 * k + small, total + k * float(np.log(n))


def _weights(criterion: FloatArray) -> FloatArray:
    w = np.exp(-0.5 * (criterion - criterion.min())) if np.isfinite(criterion.min()) else np.ones(len(criterion))
    return np.asarray(w / w.sum())


def is_nested(smaller: FitResult, larger: FitResult) -> bool:
    """Return whether a fit is another one of the same model with parameters held or tied.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> data = curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02])
    >>> free = fit(data, "one_compartment_iv", dose=16)
    >>> is_nested(fit(data, "one_compartment_iv", dose=16, fixed={"v": 1.0}), free)
    True
    """
    a, b = smaller.problem.freedom, larger.problem.freedom
    if smaller.graph != larger.graph or len(a.names) >= len(b.names):
        return False
    return _within(a, b)


def _within(a: Freedom, b: Freedom) -> bool:
    """Return whether every point that a can reach can be reached by b."""
    reach = b.link @ np.linalg.pinv(b.link)
    at = a.held - b.held
    return bool(np.allclose(reach @ a.link, a.link) and np.allclose(reach @ at, at))


def _f_test(a: str, b: str, smaller: FitResult, larger: FitResult) -> FTest:
    """Fit the smaller model again with the larger one's weights and compare sums of squares."""
    from scipy.special import fdtrc

    problem = replace(smaller.problem, sigma=larger.problem.sigma)
    o, (low, high) = Optimum.of(smaller), box(smaller)
    with np.errstate(all="ignore"):
        cost = float(least_squares(problem, o.u[None], low, high).cost[0])
    r = Optimum.of(larger).residual
    more = len(larger.problem.freedom.names) - len(smaller.problem.freedom.names)
    df = len(r) - len(larger.problem.freedom.names)
    full = float(r @ r)
    f = max(cost - full, 0.0) / more / (full / df) if full > 0 and df > 0 else np.nan
    return FTest(a, b, f, (more, df), float(fdtrc(more, df, f)) if np.isfinite(f) else np.nan)


def _words(table: tuple[Candidate, ...], best: str | None, enough: float) -> str:
    first, second = table[0], table[1]
    if best is not None and second.parameters > first.parameters:
        return (f"{best} is enough: weight {first.weight:.2f}; {second.name} has more parameters and fits no better than they "
                "would by chance, which does not prove that there is nothing more")  # fmt: skip
    if best is not None:
        return f"{best} is preferred: weight {first.weight:.2f}, {second.evidence_ratio:.3g} times the evidence of {second.name}"
    total, alike = 0.0, []
    for c in table:
        alike.append(f"{c.name} ({c.weight:.2f})")
        total += c.weight
        if total >= enough:
            break
    return f"not distinguishable: {', '.join(alike)} share the evidence; quote what they agree on, or take more samples"


def _notes(fits: Mapping[str, FitResult], known: bool, inflation: float) -> tuple[str, ...]:
    notes = []
    if known and inflation > 1:
        notes.append(
            f"no model fits as well as the errors allow; differences were divided by {inflation:.2f} (quasi-likelihood)"
        )
    if any(f.bound.any() for f in fits.values()):
        who = ", ".join(n for n, f in fits.items() if f.bound.any())
        notes.append(
            f"a parameter of {who} ended at a bound, where F and information criteria favour the smaller model"
        )
    if max(Optimum.of(f).likeness for f in fits.values()) > 0.1:
        notes.append(
            "rows of one animal are alike, so the data count for less than their number and preferences are overstated"
        )
    return tuple(notes)
