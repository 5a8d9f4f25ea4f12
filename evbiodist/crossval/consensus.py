"""What several labels say together: a random-effects consensus that does not hide their disagreement.

Labels differ by more than their errors, so the spread between them enters the interval and the forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from evbiodist.study.estimate import Estimate, student
from evbiodist.study.flags import join
from evbiodist.study.model import RESERVED_LABELS

FloatArray = npt.NDArray[np.float64]
Method = Literal["PM", "DL", "REML"]
Scale = Literal["linear", "log"]
Row = dict[str, str | float | int]

COLUMNS = (
    "quantity", "label", "estimate", "se", "ci_low", "ci_high", "weight", "tau2", "i2",
    "prediction_low", "prediction_high", "n", "unit", "method", "flags", "reason",
)  # fmt: skip
"""Columns of consensus.csv, in order."""

RESERVED = RESERVED_LABELS
"""Words of the column `label` that are not labels."""


@dataclass(frozen=True)
class Consensus:
    """Pooled estimate of a random-effects model; NaN where the data cannot carry a number.

    Parameters
    ----------
    estimate, se, ci_low, ci_high : pooled value, in the unit of the data.
    weights : share of each input, in input order; they sum to 1.
    tau2 : variance between labels, in squared unit.
    i2 : share of the variance that lies between labels, in %; NaN for a single label.
    tau2_low, tau2_high, i2_low, i2_high : their intervals by the Q profile. Both ends are 0 where the estimates lie
        closer together than their standard errors allow, which doubts the errors rather than proves agreement.
    q, df, q_p : Cochran's test that all labels agree.
    prediction_low, prediction_high : where one further label would be expected.
    n : number of estimates.
    method : estimator of `tau2` and kind of interval.
    reason : why numbers are missing, in words; empty when none is.
    flags : words of `evbiodist.study.flags.FLAGS`.

    Examples
    --------
    >>> Consensus(reason="no estimates").estimate
    nan
    """

    estimate: float = math.nan
    se: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    weights: tuple[float, ...] = ()
    tau2: float = math.nan
    i2: float = math.nan
    tau2_low: float = math.nan
    tau2_high: float = math.nan
    i2_low: float = math.nan
    i2_high: float = math.nan
    q: float = math.nan
    df: int = 0
    q_p: float = math.nan
    prediction_low: float = math.nan
    prediction_high: float = math.nan
    n: int = 0
    method: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()


def random_effects(
    estimates: npt.ArrayLike,
    se: npt.ArrayLike,
    *,
    method: Method = "PM",
    level: float = 0.95,
    hartung_knapp: bool = True,
    floor: bool = True,
) -> Consensus:
    """Pool estimates that may differ by more than their own errors.

    Parameters
    ----------
    estimates, se : (k,) values of one quantity and their standard errors, in one unit.
    method : variance between labels by Paule-Mandel, DerSimonian-Laird or restricted likelihood.
    level : of the intervals.
    hartung_knapp : interval by t with k - 1 degrees of freedom and a scale of the residuals; otherwise the
        normal interval, which is too narrow for a few labels.
    floor : keep that scale from falling below 1. Without it, as Hartung and Knapp wrote it, labels that happen
        to lie close together get an interval narrower than that of any one of them.

    Returns
    -------
    One estimate is returned as it is, none as NaN, both with a reason. `i2` is tau2 over tau2 plus the
    typical variance within labels, so that it belongs to the tau2 shown; for DL it is (Q - df) / Q. The
    intervals of tau2 and I2 are the same for every method.

    Raises
    ------
    ValueError : different shapes, values not finite, standard errors not positive, unknown method.

    Examples
    --------
    >>> pooled = random_effects([1.0, 1.6, 2.5], [0.2, 0.3, 0.25])
    >>> round(pooled.estimate, 3), round(pooled.tau2, 3), pooled.flags
    (1.692, 0.517, ('heterogeneous',))
    >>> random_effects([1.0], [0.2]).reason
    'one estimate only, so nothing is known of the spread between labels'

    Notes
    -----
    Paule & Mandel, J Res NBS 1982;87:377. DerSimonian & Laird, Control Clin Trials 1986;7:177. Hartung &
    Knapp, Stat Med 2001;20:3875; Sidik & Jonkman, Stat Med 2002;21:3153; floor of the scale as in Rover,
    Knapp & Friede, BMC Med Res Methodol 2015;15:99. I2: Higgins & Thompson, Stat Med 2002;21:1539.
    Interval of tau2: Viechtbauer, Stat Med 2007;26:37.
    Prediction as in Higgins, Thompson & Spiegelhalter, JRSS A 2009;172:137 and Partlett & Riley, Stat Med
    2017;36:301 who take k - 2 degrees of freedom; here, as in metafor, they are k - 1, so that two labels
    have a prediction too. Three to five labels that differ by as much as their errors or more carry no
    exact interval: in our simulations this prediction held the next label in 85 to 97 % of studies, the
    95 % interval the truth in 91 to 99.9 %, and the normal one in 77 to 92 %.
    """
    y, s = _checked(estimates, se, method, level)
    knapp = f", Hartung-Knapp{'' if floor else ' without floor'}" if hartung_knapp else ""
    name = f"random effects ({method}{knapp})"
    if y.size < 2:
        return replace(_alone(y, s, level), method=name)
    v = s**2
    tau2 = {"PM": _paule_mandel, "DL": _dersimonian_laird, "REML": _restricted_likelihood}[method](y, v)
    tau2_low, tau2_high = _q_profile(y, v, level)
    w, mean, q_tau = _pool(y, v, tau2)
    df = y.size - 1
    scale = max(1.0 if floor else 0.0, q_tau / df) if hartung_knapp else 1.0
    error = math.sqrt(scale / float(np.sum(w)))
    margin = (student(level, df) if hartung_knapp else student(level, math.inf)) * error
    reach = student(level, df) * math.hypot(math.sqrt(tau2), error)
    q, typical = _pool(y, v, 0.0)[2], typical_variance(v)
    i2, i2_low, i2_high = (100 * t / (t + typical) for t in (tau2, tau2_low, tau2_high))
    q_p = chi2_tail(q, df)
    flags = ("few",) * (y.size < 3) + ("heterogeneous",) * (q_p < 0.1 and i2 >= 50)
    return Consensus(
        estimate=mean, se=error, ci_low=mean - margin, ci_high=mean + margin,
        weights=tuple((w / np.sum(w)).tolist()), tau2=tau2, i2=i2, tau2_low=tau2_low, tau2_high=tau2_high,
        i2_low=i2_low, i2_high=i2_high, q=q, df=df, q_p=q_p,
        prediction_low=mean - reach, prediction_high=mean + reach, n=y.size, method=name, flags=flags,
    )  # fmt: skip


def consensus_table(
    quantity: str,
    labels: Sequence[str],
    estimates: Sequence[Estimate],
    *,
    scale: Scale = "linear",
    method: Method = "PM",
    level: float = 0.95,
    hartung_knapp: bool = True,
) -> list[Row]:
    """Return the rows of consensus.csv for one quantity: each label, their mean, their consensus.

    The logarithm is right for a quantity that cannot be negative and of which labels differ by factors,
    such as brain uptake: its interval stays positive, and a label that reads tenfold does not rule.
    Take the linear scale for differences, and where estimates of zero or below are honest noise.

    Parameters
    ----------
    quantity : name of the quantity.
    labels, estimates : (k,) names of the labels and what each says, in one unit.
    scale : ``log`` pools logarithms with se / value; interval and prediction are transformed back, the
        standard error by the delta method, and `tau2` stays in squared logarithms.
    method, level, hartung_knapp : as in `random_effects`.

    Returns
    -------
    Dicts with the keys of `COLUMNS`. A label without value or standard error has weight 0 and a reason.
    The row `mean` is the plain arithmetic mean of all values on either scale, with a t interval.

    Raises
    ------
    ValueError : numbers of labels and estimates differ, a label repeated or reserved, mixed units.

    Examples
    --------
    >>> rows = consensus_table("brain_uptake_pct_id", ["dir", "zr89", "nluc"], [
    ...     Estimate("uptake", 0.2, 0.02, unit="pct_id"), Estimate("uptake", 0.1, 0.02, unit="pct_id"),
    ...     Estimate("uptake", reason="no scan of this label")], scale="log")
    >>> [(row["label"], round(row["weight"], 2), row["reason"]) for row in rows][2]
    ('nluc', 0.0, 'no scan of this label')
    >>> [(row["label"], round(row["estimate"], 3), row["unit"]) for row in rows][3:]
    [('mean', 0.15, 'pct_id'), ('consensus', 0.145, 'pct_id')]
    """
    check_labels(labels, estimates)
    unit = common_unit(labels, estimates)
    out = [why_not_pooled(e, scale) for e in estimates]
    entering = [e for e, why in zip(estimates, out, strict=True) if not why]
    pooled = _pooled(entering, scale, method, level, hartung_knapp)
    weights = iter(pooled.weights)
    rows = [
        _label_row(label, e, why, 0.0 if why else next(weights))
        for label, e, why in zip(labels, estimates, out, strict=True)
    ]
    rows += [_mean_row([e.value for e in estimates], level), _consensus_row(pooled)]
    for row in rows:
        row |= {"quantity": quantity, "unit": unit}
    return [{column: row.get(column, math.nan) for column in COLUMNS} for row in rows]


def _checked(estimates: npt.ArrayLike, se: npt.ArrayLike, method: str, level: float) -> tuple[FloatArray, FloatArray]:
    """Return values and errors as vectors, or say what is wrong."""
    y, s = np.asarray(estimates, dtype=np.float64), np.asarray(se, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise ValueError(
            f"estimates and se: found shapes {y.shape} and {s.shape}, expected two vectors of one length; "
            "give each estimate its standard error."
        )
    for i, (value, error) in enumerate(zip(y.tolist(), s.tolist(), strict=True)):
        if not math.isfinite(value):
            raise ValueError(f"estimates[{i}]: found {value}, expected a finite number; leave it out.")
        if not (math.isfinite(error) and error > 0):
            raise ValueError(
                f"se[{i}]: found {error}, expected a positive standard error; "
                "leave the estimate out or give its standard error."
            )
    if method not in get_args(Method):
        raise ValueError(f"method: found {method!r}, expected 'PM', 'DL' or 'REML'; name one of them.")
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a share between 0 and 1; give 0.95 for 95 %.")
    return y, s


def _alone(y: FloatArray, s: FloatArray, level: float) -> Consensus:
    """Return the consensus of one estimate (itself, normal interval) or of none."""
    if y.size == 0:
        return Consensus(reason="no estimates to pool")
    value, error = float(y[0]), float(s[0])
    margin = student(level, math.inf) * error
    return Consensus(
        estimate=value, se=error, ci_low=value - margin, ci_high=value + margin,
        weights=(1.0,), n=1, flags=("few",),
        reason="one estimate only, so nothing is known of the spread between labels",
    )  # fmt: skip


def _pool(y: FloatArray, v: FloatArray, tau2: float) -> tuple[FloatArray, float, float]:
    """Return weights 1 / (v + tau2), the weighted mean and the weighted sum of squares about it."""
    w = 1 / (v + tau2)
    mean = float(np.average(y, weights=w))
    return w, mean, float(np.sum(w * (y - mean) ** 2))


def typical_variance(v: FloatArray) -> float:
    """Return the typical variance within labels (Higgins & Thompson 2002, eq. 9)."""
    w = v.min() / v  # relative weights, so that neither tiny nor huge units overflow
    total = float(np.sum(w))
    return float(v.min()) * (v.size - 1) * total / (total**2 - float(np.sum(w**2)))


def _dersimonian_laird(y: FloatArray, v: FloatArray) -> float:
    """Return the moment estimate of tau2 from Cochran's Q."""
    df = y.size - 1
    return max(0.0, (_pool(y, v, 0.0)[2] / df - 1) * typical_variance(v))


def _paule_mandel(y: FloatArray, v: FloatArray) -> float:
    """Return the tau2 at which the weighted sum of squares equals its expectation k - 1."""
    return _tau2_of_q(y, v, y.size - 1)


def _tau2_of_q(y: FloatArray, v: FloatArray, target: float) -> float:
    """Return the tau2 at which the weighted sum of squares has fallen to a target; 0 where it starts below it.

    The sum is convex and falls with tau2, so Newton's steps from 0 rise to the root without passing it
    (DerSimonian & Kacker, Contemp Clin Trials 2007;28:105).
    """
    tau2 = 0.0
    for _ in range(200):
        w, mean, q = _pool(y, v, tau2)
        step = (q - target) / float(np.sum((w * (y - mean)) ** 2)) if q > target else 0.0
        tau2 += step
        if step <= 1e-14 * tau2:
            break
    return tau2


def _q_profile(y: FloatArray, v: FloatArray, level: float) -> tuple[float, float]:
    """Return the interval of tau2: where the sum of squares meets the quantiles of its chi-squared distribution."""
    from scipy.special import chdtri

    low, high = (_tau2_of_q(y, v, float(chdtri(y.size - 1, p))) for p in (0.5 - level / 2, 0.5 + level / 2))
    return low, high


def _restricted_likelihood(y: FloatArray, v: FloatArray) -> float:
    """Return the tau2 of highest restricted likelihood (Viechtbauer, J Educ Behav Stat 2005;30:261).

    The likelihood can have two peaks, so a grid finds the right one and the score refines it.
    """
    from scipy.optimize import brentq

    # beyond the top of the grid the score is negative, whatever the data
    top = 2 * float(np.sum((y - np.mean(y)) ** 2)) + float(v.max())
    grid = np.concatenate([[0.0], np.geomspace(1e-9 * top, top, 200)])
    best = int(np.argmax([_reml(y, v, tau2)[0] for tau2 in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, grid.size - 1)])
    if not _reml(y, v, low)[1] > 0 > _reml(y, v, high)[1]:
        return float(grid[best])  # most often at 0, where the likelihood falls from the start
    return float(brentq(lambda tau2: _reml(y, v, tau2)[1], low, high, xtol=1e-14 * top))


def _reml(y: FloatArray, v: FloatArray, tau2: float) -> tuple[float, float]:
    """Return twice the restricted log likelihood, constants aside, and its slope in tau2."""
    w, mean, q = _pool(y, v, tau2)
    total = float(np.sum(w))
    likelihood = float(np.sum(np.log(w))) - math.log(total) - q
    slope = float(np.sum((w * (y - mean)) ** 2)) - total + float(np.sum(w**2)) / total
    return likelihood, slope


def check_labels(labels: Sequence[str], estimates: Sequence[Estimate]) -> None:
    """Refuse labels that do not name the estimates one by one."""
    if len(labels) != len(estimates):
        raise ValueError(
            f"labels and estimates: found {len(labels)} and {len(estimates)}, expected as many of each; "
            "give a missing one as Estimate(name, reason=...)."
        )
    for label in labels:
        if label in RESERVED or list(labels).count(label) > 1:
            raise ValueError(
                f"labels: found {label!r} {'as a label' if label in RESERVED else 'twice'}, "
                f"expected different names other than {', '.join(RESERVED)}; rename it."
            )


def common_unit(labels: Sequence[str], estimates: Sequence[Estimate]) -> str:
    """Return the unit of all values, or of the missing ones where there is no value."""
    present = {e.unit: label for label, e in zip(labels, estimates, strict=True) if math.isfinite(e.value)}
    if len(present) > 1:
        found = ", ".join(f"'{unit}' ({label})" for unit, label in present.items())
        raise ValueError(f"estimates: found units {found}, expected one; convert them before pooling.")
    return next(iter(present), next((e.unit for e in estimates if e.unit), ""))


def why_not_pooled(e: Estimate, scale: Scale) -> str:
    """Return why an estimate cannot be pooled, or nothing."""
    if math.isnan(e.value):
        return e.reason
    why = ""
    if math.isinf(e.value):
        why = "the value is infinite"
    elif not (math.isfinite(e.se) and e.se > 0):
        why = "no standard error" if math.isnan(e.se) else f"its standard error is {e.se:g}"
    elif scale == "log" and e.value <= 0:
        why = "not above zero, so it has no logarithm"
    return "; ".join(part for part in (e.reason, f"not pooled: {why}") if part) if why else ""


def _pooled(entering: Sequence[Estimate], scale: Scale, method: Method, level: float, hartung_knapp: bool) -> Consensus:
    """Pool on the chosen scale and return the result in the unit of the data."""
    value, se = on_scale(entering, scale)
    logs = random_effects(value, se, method=method, level=level, hartung_knapp=hartung_knapp)
    if scale == "linear":
        return logs
    centre = math.exp(logs.estimate)
    return replace(
        logs, estimate=centre, se=centre * logs.se, method=f"{logs.method}, log scale",
        ci_low=math.exp(logs.ci_low), ci_high=exp_or_inf(logs.ci_high),
        prediction_low=math.exp(logs.prediction_low), prediction_high=exp_or_inf(logs.prediction_high),
    )  # fmt: skip


def on_scale(estimates: Sequence[Estimate], scale: Scale) -> tuple[FloatArray, FloatArray]:
    """Return values and standard errors as vectors, on the log scale by the delta method."""
    if scale not in get_args(Scale):
        raise ValueError(f"scale: found {scale!r}, expected 'linear' or 'log'; name one of them.")
    value = np.array([e.value for e in estimates], dtype=np.float64)
    se = np.array([e.se for e in estimates], dtype=np.float64)
    return (value, se) if scale == "linear" else (np.log(value), se / value)


def exp_or_inf(x: float) -> float:
    """Return the exponential, infinite where it is beyond any float: with two labels a forecast can reach there."""
    return math.inf if x > 709 else math.exp(x)


def _label_row(label: str, e: Estimate, why_out: str, weight: float) -> Row:
    no_se = math.isfinite(e.value) and math.isnan(e.se)
    return {
        "label": label, "estimate": e.value, "se": e.se, "ci_low": e.ci_low, "ci_high": e.ci_high,
        "weight": weight, "n": e.n, "method": e.method, "reason": why_out or e.reason,
        "flags": join((*e.flags, "no_se") if no_se else e.flags),
    }  # fmt: skip


def _mean_row(values: Sequence[float], level: float) -> Row:
    """Return the arithmetic mean of all finite values with its t interval across labels."""
    x = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    row: Row = {"label": "mean", "n": x.size, "method": "arithmetic mean", "reason": ""}
    row["flags"] = "few" if 0 < x.size < 3 else ""
    if x.size == 0:
        return row | {"reason": "no label has a value"}
    mean = float(np.mean(x))
    if x.size == 1:
        return row | {"estimate": mean, "reason": "one value only, so no interval across labels"}
    se = float(np.std(x, ddof=1)) / math.sqrt(x.size)
    margin = student(level, x.size - 1) * se
    return row | {"estimate": mean, "se": se, "ci_low": mean - margin, "ci_high": mean + margin}


def _consensus_row(pooled: Consensus) -> Row:
    row: Row = {column: getattr(pooled, column) for column in COLUMNS if hasattr(pooled, column)}
    return row | {"label": "consensus", "flags": join(pooled.flags)}


def chi2_tail(q: float, df: int) -> float:
    """Return the chance that chi-squared exceeds q."""
    from scipy.special import chdtrc

    return float(chdtrc(df, q))
