"""Whether a fitted model describes its data: standardised residuals, tests on them, and simulated studies beside them.

All as data: a report draws them. Tests are made matrix by matrix, because rows of one animal are alike across matrices.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.optimum import Optimum
from evbiodist.kinetics.fitting.simulate import simulate, spread_of

FloatArray = NDArray[np.float64]
_SIGNIFICANT = 0.05
_FEWEST = 5  # values, or times, below which a test says nothing
_SHARE = 0.9  # of simulated values within the band of a predictive check


@dataclass(frozen=True, eq=False)
class Residuals:
    """Every value beside what the model says, (N,) each.

    Parameters
    ----------
    matrix : what was observed; time_h : when (middle of a frame).
    observed, predicted, sd : in the unit of the observations; sd with the fit's scale.
    standardised : (observed - predicted) / sd, on the scale of the fit, divided by what the fit takes from a residual.
    leverage : share of a value's own weight in its prediction.
    """

    matrix: tuple[str, ...]
    time_h: FloatArray
    observed: FloatArray
    predicted: FloatArray
    sd: FloatArray
    standardised: FloatArray
    leverage: FloatArray


class Check(NamedTuple):
    """One test on the residuals of one matrix.

    Parameters
    ----------
    name, matrix : which test on what; n : values it rests on.
    statistic, p : NaN where there are too few values; p_adjusted : for the number of matrices it was made on (Holm).
    flag : a word of `evbiodist.study.flags.FLAGS` when p_adjusted is below 0.05; words : the finding.
    """

    name: str
    matrix: str
    n: int
    statistic: float
    p: float
    p_adjusted: float
    flag: str
    words: str


def residuals(found: FitResult) -> Residuals:
    """Return the residuals of a fit; values below a limit of quantification have none and are left out.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), "one_compartment_iv", dose=16)
    >>> residuals(found).standardised.round(1).tolist()
    [0.6, 0.1, -1.4, 1.4]
    """
    o, data, p = Optimum.of(found), found.data, found.problem
    y, sd = o.predicted, spread_of(found, o)
    r = np.log(data.value / y) * y if p.scale == "log" else data.value - y  # large values of a loss stay large here
    weighed = o.sensitivity
    hat = np.clip(np.einsum("nq,qr,nr->n", weighed, o.inverse, weighed), 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        standardised = np.where(hat < 1 - 1e-9, r / sd / np.sqrt(1 - hat), np.nan)
    keep = ~data.censored
    middle = data.time_h if data.end_h is None else (data.time_h + data.end_h) / 2
    matrix = tuple(data.seen[w] for w in data.which[keep])
    return Residuals(matrix, *(a[keep] for a in (middle, data.value, y, sd, standardised, hat)))


def diagnose(found: FitResult) -> tuple[Check, ...]:
    """Return the tests on the residuals of every matrix.

    Returns
    -------
    tuple of Check : ``runs`` of signs over time, ``trend_time`` and ``trend_prediction`` of residuals, ``spread`` of their
        size with the prediction, ``normality``, and with replicates ``lack_of_fit``.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> t = np.array([0.1, 0.3, 0.6, 1, 2, 4, 6, 9, 12, 16, 20, 24])
    >>> found = fit(curve_data(t, 50 * np.exp(-2 * t) + 9 * np.exp(-0.2 * t)), "one_compartment_iv", dose=100)
    >>> sorted({c.name for c in diagnose(found) if c.flag == "residual_pattern"})
    ['runs']

    Wald A, Wolfowitz J (1940) Ann Math Stat 11:147; Shapiro SS, Wilk MB (1965) Biometrika 52:591; Bates & Watts 1988,
    ch. 1.3 for lack of fit; Holm S (1979) Scand J Stat 6:65.
    """
    r = residuals(found)
    which = np.array(r.matrix)
    made: list[Check] = []
    for matrix in dict.fromkeys(r.matrix):
        mine = (which == matrix) & np.isfinite(r.standardised)
        made += _tests(matrix, r.time_h[mine], r.predicted[mine], r.standardised[mine])
    made += _lack_of_fit(found, r)
    return _adjusted(made)


def _tests(matrix: str, t: FloatArray, y: FloatArray, e: FloatArray) -> list[Check]:
    from scipy.stats import shapiro, spearmanr

    made = []
    times, group = np.unique(t, return_inverse=True)
    means = np.bincount(group, weights=e) / np.bincount(group)
    signs = means[means != 0] > 0
    if len(times) >= _FEWEST:
        runs, p = _runs(signs)
        made.append(_check("runs", matrix, len(signs), runs, p))
    else:
        made.append(_too_few("runs", matrix, len(times), "times"))
    for name, against, of in (("trend_time", t, e), ("trend_prediction", y, e), ("spread", y, np.abs(e))):
        if len(e) < _FEWEST or np.ptp(against) == 0 or np.ptp(of) == 0:
            made.append(_too_few(name, matrix, len(e), "values"))
            continue
        found = spearmanr(against, of)
        made.append(_check(name, matrix, len(e), float(found.statistic), float(found.pvalue)))
    if len(e) < _FEWEST or np.ptp(e) == 0:
        made.append(_too_few("normality", matrix, len(e), "values"))
    else:
        w, p = shapiro(e)
        made.append(_check("normality", matrix, len(e), float(w), float(p)))
    return made


#: What a significant test says, and its flag.
_MEANS = {
    "runs": (
        "the curve runs above and below the data over long stretches: the model's shape is wrong",
        "residual_pattern",
    ),
    "trend_time": ("residuals drift with time: the model's shape is wrong", "residual_pattern"),
    "trend_prediction": ("residuals drift with the prediction: the model or the scale is wrong", "residual_pattern"),
    "spread": ("residuals grow or shrink with the prediction: choose other weights", "weights_doubtful"),
    "normality": (
        "residuals are not normal: look for outliers, or fit on the logarithm or with a robust loss",
        "not_normal",
    ),
    "lack_of_fit": (
        "means lie further from the curve than animals spread: the model's shape is wrong",
        "residual_pattern",
    ),
}


def _check(name: str, matrix: str, n: int, statistic: float, p: float) -> Check:
    return Check(name, matrix, n, statistic, p, p, "", "")


def _too_few(name: str, matrix: str, n: int, of: str) -> Check:
    return Check(
        name, matrix, n, math.nan, math.nan, math.nan, "", f"{n} {of} of {matrix} are too few or too alike to tell"
    )


def _adjusted(made: list[Check]) -> tuple[Check, ...]:
    """Adjust the p values of each test for the number of matrices and say what they mean."""
    told = sorted((i for i, c in enumerate(made) if math.isfinite(c.p)), key=lambda i: made[i].p)
    left, worst = Counter(made[i].name for i in told), dict.fromkeys(_MEANS, 0.0)
    out = list(made)
    for i in told:
        c = made[i]
        p = worst[c.name] = max(worst[c.name], min(1.0, left[c.name] * c.p))
        left[c.name] -= 1
        bad = p < _SIGNIFICANT
        finding, flag = _MEANS[c.name]
        words = f"{c.matrix}: {finding} (p = {p:.2g})" if bad else f"{c.matrix}: no sign of misfit (p = {p:.2g})"
        out[i] = c._replace(p_adjusted=p, flag=flag if bad else "", words=words)
    return tuple(out)


def _runs(signs: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the number of runs and the exact chance of as few or fewer (residuals of a wrong shape have few)."""
    up, down = int(signs.sum()), int((~signs).sum())
    runs = 1 + int(np.sum(signs[1:] != signs[:-1]))
    if not up or not down:  # all on one side: a chance of one half each
        return float(runs), 0.5 ** (len(signs) - 1)
    return float(runs), sum(_run_chance(up, down, r) for r in range(2, runs + 1))


@lru_cache(maxsize=4096)
def _run_chance(up: int, down: int, runs: int) -> float:
    """Return the probability of a number of runs among sequences of ups and downs (Wald & Wolfowitz 1940)."""
    k, odd = divmod(runs, 2)
    ways = (math.comb(up - 1, k) * math.comb(down - 1, k - 1) + math.comb(up - 1, k - 1) * math.comb(down - 1, k) if odd
            else 2 * math.comb(up - 1, k - 1) * math.comb(down - 1, k - 1))  # fmt: skip
    return ways / math.comb(up + down, up)


def _lack_of_fit(found: FitResult, r: Residuals) -> list[Check]:
    """Compare the distance of the means from the curve with the spread of repeated values about their means."""
    from scipy.special import fdtrc

    made, which = [], np.array(r.matrix)
    q = len(found.problem.freedom.names)
    for matrix in dict.fromkeys(r.matrix):
        mine = which == matrix
        t, e = r.time_h[mine], ((r.observed - r.predicted) / r.sd)[mine]
        times, group, count = np.unique(t, return_inverse=True, return_counts=True)
        pure_df, own = len(t) - len(times), len(times) - q * mine.sum() / len(which)  # parameters shared by matrices
        if pure_df < 1 or own <= 0:
            continue
        means = np.bincount(group, weights=e) / count
        pure = float(np.sum((e - means[group]) ** 2))
        if pure <= 0:
            continue
        f = float(np.sum(count * means**2)) / own / (pure / pure_df)
        made.append(_check("lack_of_fit", matrix, len(t), f, float(fdtrc(own, pure_df, f))))
    return made


class Band(NamedTuple):
    """One percentile of one matrix over time, observed and simulated, (T,) each.

    Parameters
    ----------
    matrix, percentile : which.
    time_h : sampling times; observed : percentile of the values; low, middle, high : of that percentile over simulated
        studies, at the level of the check.
    """

    matrix: str
    percentile: float
    time_h: FloatArray
    observed: FloatArray
    low: FloatArray
    middle: FloatArray
    high: FloatArray


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """Observed values beside studies simulated from the fit, between-animal variance included.

    Parameters
    ----------
    bands : a `Band` for every matrix and percentile.
    outside : (matrix, share of values outside the interval that 90 % of simulated values lie in, n, p of so many or so few).
    words : one sentence a matrix; flags : words of `evbiodist.study.flags.FLAGS`.
    """

    bands: tuple[Band, ...]
    outside: tuple[tuple[str, float, int, float], ...]
    words: tuple[str, ...]
    flags: tuple[str, ...]


def predictive_check(
    found: FitResult, *, draws: int = 500, seed: int | np.random.Generator,
    percentiles: tuple[float, ...] = (5.0, 50.0, 95.0), level: float = 0.9,
) -> PredictiveCheck:  # fmt: skip
    """Simulate the study many times from the fit and see whether the observed one is among the like.

    Parameters
    ----------
    found : a fit; draws : simulated studies; seed : where chance comes from.
    percentiles : of the values of a matrix at a time. With a handful of animals the outer ones are nearly their extremes,
        for simulated studies as for the observed one.
    level : of the bands.

    Raises
    ------
    ValueError : numbers out of range, or values known only to be below a limit.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), "one_compartment_iv", dose=16)
    >>> check = predictive_check(found, seed=1, draws=200)
    >>> len(check.bands), check.flags
    (3, ())

    Holford N (2005) PAGE 14:738; Bergstrand M et al. (2011) AAPS J 13:143.
    """
    if draws < 100 or not 0 < level < 1 or not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(
            f"draws has {draws}, level {level}, percentiles {percentiles}; expected 100 or more, 0 to 1, 0 to 100"
        )
    if found.data.censored.any():
        raise ValueError(
            "values below the limit of quantification cannot stand in a predictive check; fit with blq = 'drop'"
        )
    data = found.data
    sim = simulate(found, draws, np.random.default_rng(seed), shared=False)
    tails = [50 * (1 - level), 50.0, 50 * (1 + level)]
    edges = np.quantile(sim, [0.5 - _SHARE / 2, 0.5 + _SHARE / 2], axis=0)
    bands, outside = [], []
    for i, matrix in enumerate(data.seen):
        mine = np.flatnonzero(data.which == i)
        times = np.unique(data.time_h[mine])
        for p in percentiles:
            seen = np.array([np.percentile(data.value[mine[data.time_h[mine] == t]], p) for t in times])
            drawn = np.stack([np.percentile(sim[:, mine[data.time_h[mine] == t]], p, axis=1) for t in times])
            low, middle, high = np.percentile(drawn, tails, axis=1)
            bands.append(Band(matrix, p, times, seen, low, middle, high))
        out = (sim[:, mine] < edges[0, mine]) | (sim[:, mine] > edges[1, mine])
        share = float(np.mean((data.value[mine] < edges[0, mine]) | (data.value[mine] > edges[1, mine])))
        shares = out.mean(axis=1)
        more, fewer = (1 + np.sum(shares >= share)) / (draws + 1), (1 + np.sum(shares <= share)) / (draws + 1)
        outside.append((matrix, share, len(mine), float(min(1.0, 2 * min(more, fewer)))))
    level_each = _SIGNIFICANT / len(outside)
    words = tuple(f"{m}: {100 * s:.0f} % of {n} values lie outside the {100 * _SHARE:g} % interval, where "
                  f"{100 - 100 * _SHARE:g} % are expected (p = {p:.2g})" for m, s, n, p in outside)  # fmt: skip
    bad = any(p < level_each for *_, p in outside)
    return PredictiveCheck(tuple(bands), tuple(outside), words, ("weights_doubtful",) if bad else ())
