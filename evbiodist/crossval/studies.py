"""One quantity over several studies, each with several labels: what differs between studies and what between labels.

Labels of one study share its animals and vesicles, so they count as less than as many studies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.consensus import (
    Consensus,
    FloatArray,
    Scale,
    chi2_tail,
    common_unit,
    exp_or_inf,
    on_scale,
    random_effects,
    typical_variance,
    why_not_pooled,
)
from evbiodist.study.estimate import Estimate, student

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class OverStudies:
    """Pooled estimate of labels within studies; NaN where the data cannot carry a number.

    Parameters
    ----------
    estimate, se, ci_low, ci_high : pooled value, in the unit of the data.
    var_study, var_label : variance between studies, and between labels of one study, in squared unit (squared
        logarithms on the log scale).
    i2_study, i2_label : their shares of the variance, in %; the rest is the estimates' own error.
    prediction_low, prediction_high : where a further label of a further study would be expected.
    q, df, q_p : Cochran's test that all estimates agree.
    log_likelihood : restricted, at the estimates.
    n_studies, n : number of studies and of estimates.
    unit, method : of the estimate.
    left_out : why an estimate was not pooled, by (study, label).
    flags : words of `evbiodist.study.flags.FLAGS`.
    reason : why numbers are missing, in words; empty when none is.
    """

    estimate: float = math.nan
    se: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    var_study: float = math.nan
    var_label: float = math.nan
    i2_study: float = math.nan
    i2_label: float = math.nan
    prediction_low: float = math.nan
    prediction_high: float = math.nan
    q: float = math.nan
    df: int = 0
    q_p: float = math.nan
    log_likelihood: float = math.nan
    n_studies: int = 0
    n: int = 0
    unit: str = ""
    method: str = ""
    left_out: tuple[tuple[tuple[str, str], str], ...] = ()
    flags: tuple[str, ...] = ()
    reason: str = ""


def over_studies(
    estimates: Mapping[tuple[str, str], Estimate], *, scale: Scale = "linear", level: float = 0.95, normal: bool = False
) -> OverStudies:
    """Pool one quantity over studies and labels by a three-level random-effects model.

    Each estimate is the overall value plus what is special of its study, plus what is special of its label in that
    study, plus its own error. A bias that a label has in every study (DiR outliving the vesicle) is common to them
    and no part of the model: it is not averaged away by more studies, and the interval does not hold it.

    Parameters
    ----------
    estimates : by (study, label), in one unit.
    scale : ``log`` pools logarithms with se / value and transforms back, the standard error by the delta method.
    level : of the intervals.
    normal : normal intervals in place of Student's t with studies - 1 degrees of freedom; too narrow for few studies.

    Returns
    -------
    One study, or one label in every study, cannot tell the two variances apart and fall back to `random_effects`
    (Paule-Mandel, Hartung-Knapp) with a reason.

    Raises
    ------
    ValueError : mixed units, an unknown scale, or a level that is no share.

    Examples
    --------
    >>> seen = {("a", "dir"): 0.30, ("a", "zr89"): 0.20, ("b", "dir"): 0.50, ("b", "zr89"): 0.40, ("c", "dir"): 0.1}
    >>> found = over_studies({key: Estimate("uptake", value, 0.02) for key, value in seen.items()})
    >>> round(found.estimate, 3), found.n_studies, found.n
    (0.271, 3, 5)

    Notes
    -----
    Konstantopoulos, Res Synth Methods 2011;2:61. Cheung, Psychol Methods 2014;19:211 (shares of the variance).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a share between 0 and 1; give 0.95 for 95 %.")
    keys = sorted(estimates)
    unit = common_unit([" / ".join(key) for key in keys], [estimates[key] for key in keys])
    why = {key: why_not_pooled(estimates[key], scale) for key in keys}
    used = [key for key in keys if not why[key]]
    y, s = on_scale([estimates[key] for key in used], scale)
    study = np.unique([name for name, _ in used], return_inverse=True)[1] if used else np.empty(0, dtype=np.intp)
    found = _fallback(y, s, study, level) or _three_levels(y, s, study, level, normal)
    if scale == "log":
        found = _from_logs(found)
    left_out = tuple((key, why[key]) for key in keys if why[key])
    return replace(found, unit=unit, left_out=left_out)


def _fallback(y: FloatArray, s: FloatArray, study: IntArray, level: float) -> OverStudies | None:
    """Return the two-level answer where the levels cannot be told apart, or None where they can."""
    studies = int(study.max()) + 1 if y.size else 0
    if 1 < studies < y.size:
        return None
    pooled = random_effects(y, s, level=level)
    if y.size < 2:
        return _two_levels(pooled, studies)
    if studies == 1:
        why = "one study only, so nothing is known of the spread between studies"
        return replace(_two_levels(pooled, 1), var_label=pooled.tau2, i2_label=pooled.i2, reason=why)
    why = "one label in every study, so the spread between labels is part of that between studies"
    return replace(_two_levels(pooled, studies), var_study=pooled.tau2, i2_study=pooled.i2, reason=why)


def _two_levels(pooled: Consensus, studies: int) -> OverStudies:
    same = ("estimate", "se", "ci_low", "ci_high", "prediction_low", "prediction_high", "q", "df", "q_p", "n", "method",
            "flags", "reason")  # fmt: skip
    flags = tuple(sorted({*pooled.flags, *(("few",) if 0 < studies < 3 else ())}))
    return OverStudies(**{name: getattr(pooled, name) for name in same} | {"flags": flags, "n_studies": studies})


def _three_levels(y: FloatArray, s: FloatArray, study: IntArray, level: float, normal: bool) -> OverStudies:
    """Fit the variances by restricted likelihood and pool with them."""
    # in units of the data's own spread, so that neither tiny nor huge units stop the search; shifted, so that
    # a large common value costs no digits
    centre, unit = float(np.mean(y)), max(float(np.std(y)), float(np.min(s)))
    z, v = (y - centre) / unit, (s / unit) ** 2
    var_study, var_label = _variances(z, v, study)
    fit = _at(z, v, study, var_study, var_label)
    mean, error = centre + unit * fit.mean, unit / math.sqrt(fit.information)
    studies, typical = int(study.max()) + 1, typical_variance(v)
    reach = student(level, math.inf if normal else studies - 1)
    spread, total = math.sqrt(var_study + var_label) * unit, var_study + var_label + typical
    q = _at(z, v, study, 0.0, 0.0).q
    df = y.size - 1
    q_p, i2 = chi2_tail(q, df), (100 * var_study / total, 100 * var_label / total)
    flags = ("few",) * (studies < 3) + ("heterogeneous",) * (q_p < 0.1 and sum(i2) >= 50)
    return OverStudies(
        estimate=mean, se=error, ci_low=mean - reach * error, ci_high=mean + reach * error,
        var_study=var_study * unit**2, var_label=var_label * unit**2, i2_study=i2[0], i2_label=i2[1],
        prediction_low=mean - reach * math.hypot(spread, error), prediction_high=mean + reach * math.hypot(spread, error),
        q=q, df=df, q_p=q_p, log_likelihood=-fit.loss / 2 - df * math.log(unit), n_studies=studies, n=y.size,
        method=f"three-level random effects (REML, {'normal' if normal else 't'})", flags=flags,
    )  # fmt: skip


@dataclass(frozen=True)
class _Fit:
    """The model at given variances: mean, its information, weighted squares about it, -2 log likelihood and its slope."""

    mean: float
    information: float
    q: float
    loss: float
    slope: FloatArray


def _at(y: FloatArray, v: FloatArray, study: IntArray, var_study: float, var_label: float) -> _Fit:
    """Solve the model at given variances; each study's covariance is a diagonal plus a constant, inverted in closed form."""
    w = 1 / (v + var_label)
    total = np.bincount(study, w)
    shrink = 1 / (1 + var_study * total)
    ones = w * shrink[study]  # inverse covariance times the vector of ones
    information = float(ones.sum())
    mean = float(ones @ y) / information
    r = y - mean
    pull = var_study * np.bincount(study, w * r) * shrink
    e = w * (r - pull[study])  # inverse covariance times the residuals
    q = float(r @ e)
    # the terms of the likelihood, then their slopes in the two variances
    loss = float(np.log(1 / shrink).sum() - np.log(w).sum()) + math.log(information) + q
    loss += (y.size - 1) * math.log(2 * math.pi) - math.log(y.size)
    per_study = np.bincount(study, ones)
    trace = float((w - var_study * w**2 * shrink[study]).sum())
    slope = np.array([
        per_study.sum() - float(per_study @ per_study) / information - float((np.bincount(study, e) ** 2).sum()),
        trace - float(ones @ ones) / information - float(e @ e),
    ])  # fmt: skip
    return _Fit(mean, information, q, loss, slope)


def _variances(y: FloatArray, v: FloatArray, study: IntArray) -> tuple[float, float]:
    """Return the variances (study, label) of highest restricted likelihood; data of unit spread.

    The likelihood may have several peaks, so the best places of a grid are searched from and the best end is taken.
    """
    from scipy.optimize import minimize

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        fit = _at(y, v, study, float(x[0]), float(x[1]))
        return fit.loss, fit.slope

    grid = np.concatenate([[0.0], np.geomspace(1e-3, 4.0, 9)])
    places = np.array([(a, b) for a in grid for b in grid])
    order = np.argsort([loss(x)[0] for x in places], kind="stable")
    ends = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2,
                 options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 500})
        for start in places[order[:3]]
    ]  # fmt: skip
    best = min(ends, key=lambda end: float(end.fun))
    return float(best.x[0]), float(best.x[1])


def _from_logs(found: OverStudies) -> OverStudies:
    """Return a result of logarithms in the unit of the data; the variances stay those of logarithms."""
    centre = exp_or_inf(found.estimate)
    return replace(
        found, estimate=centre, se=centre * found.se, method=f"{found.method}, log scale",
        ci_low=exp_or_inf(found.ci_low), ci_high=exp_or_inf(found.ci_high),
        prediction_low=exp_or_inf(found.prediction_low), prediction_high=exp_or_inf(found.prediction_high),
    )  # fmt: skip
