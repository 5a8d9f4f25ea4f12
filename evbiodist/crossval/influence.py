"""How much one label rules the consensus: the pooled estimate again without each label in turn.

A consensus that one label carries alone is that label's answer, so the reader sees it without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.consensus import (
    Consensus,
    FloatArray,
    Method,
    Row,
    Scale,
    check_labels,
    common_unit,
    exp_or_inf,
    on_scale,
    random_effects,
    why_not_pooled,
)
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.flags import join

INFLUENCE_COLUMNS = (
    "quantity", "left_out", "estimate", "ci_low", "ci_high", "tau2", "i2", "change_pct", "rstudent", "cooks_distance",
    "flags", "reason",
)  # fmt: skip
"""Columns of influence.csv, in order; the caller may add study and group."""

_FALSE_ALARM = 0.1
"""Chance that any label of a study without a wrong one is called outlying."""


@dataclass(frozen=True)
class Influence:
    """The pooled estimate without one of its inputs, and what that input did to it; NaN where there is no telling.

    Parameters
    ----------
    without : consensus of the others.
    change : estimate of the others less that of all.
    rstudent : distance of the left-out value from the others' estimate, in its expected standard deviations.
    cooks_distance : square of the change over the squared standard error of all.
    dffits : the change in standard errors, as the others' spread has them, with the sign of the input's pull.
    hat : weight of the input in the estimate of all, as a share.
    flags : words of `evbiodist.study.flags.FLAGS`.
    reason : why numbers are missing; empty when none is.
    """

    without: Consensus
    change: float = math.nan
    rstudent: float = math.nan
    cooks_distance: float = math.nan
    dffits: float = math.nan
    hat: float = math.nan
    flags: tuple[str, ...] = ()
    reason: str = ""


def influence(
    estimates: npt.ArrayLike,
    se: npt.ArrayLike,
    *,
    method: Method = "PM",
    level: float = 0.95,
    hartung_knapp: bool = True,
) -> list[Influence]:
    """Pool without each estimate in turn, and say how far each lies from the others.

    Parameters
    ----------
    estimates, se : (k,) values of one quantity and their standard errors, in one unit.
    method, level, hartung_knapp : as in `random_effects`; the diagnostics take the standard error of the model.

    Returns
    -------
    One `Influence` an input, in input order. It is flagged `outlying` where the studentised residual is beyond
    Student's t with k - 2 degrees of freedom, at a chance of 10 % shared by all k: the spread of few labels is itself
    uncertain, and the usual limits (Cook's distance above 0.45, a residual beyond 1.96) are passed by some label in
    most studies of four labels without a wrong one. Of three labels hardly any is ever called so: two are too
    few to say how far a third may lie.

    Raises
    ------
    ValueError : as `random_effects`.

    Examples
    --------
    >>> found = influence([1.0, 1.1, 1.2, 3.0], [0.2, 0.2, 0.2, 0.2])
    >>> [round(one.without.estimate, 2) for one in found], found[3].flags
    ([1.77, 1.73, 1.7, 1.1], ('outlying',))
    >>> round(found[3].rstudent, 2), round(found[3].cooks_distance, 2)
    (8.23, 0.99)

    Notes
    -----
    Viechtbauer & Cheung, Res Synth Methods 2010;1:112.
    """
    y, s = np.asarray(estimates, dtype=np.float64), np.asarray(se, dtype=np.float64)
    whole = random_effects(y, s, method=method, level=level, hartung_knapp=hartung_knapp)
    found = []
    for i in range(y.size):
        others = random_effects(
            np.delete(y, i), np.delete(s, i), method=method, level=level, hartung_knapp=hartung_knapp
        )
        found.append(_case(y, s, i, whole, others))
    return found


def _case(y: FloatArray, s: FloatArray, i: int, whole: Consensus, others: Consensus) -> Influence:
    """Compare the estimate of all with that of the others."""
    if others.n < 2:
        change = others.estimate - whole.estimate
        return Influence(others, change, hat=whole.weights[i], flags=others.flags, reason=others.reason)
    own, change = float(s[i] ** 2), others.estimate - whole.estimate
    rest = _variance(np.delete(s, i), others.tau2)
    cook = change**2 / _variance(s, whole.tau2)
    dffits = -change / math.sqrt(whole.weights[i] * (others.tau2 + own))
    rstudent = (float(y[i]) - others.estimate) / math.sqrt(own + rest + others.tau2)
    far = abs(rstudent) > student(1 - _FALSE_ALARM / y.size, y.size - 2)
    return Influence(
        others, change, rstudent, cooks_distance=cook, dffits=dffits, hat=whole.weights[i],
        flags=tuple(sorted({*others.flags, *(("outlying",) if far else ())})),
    )  # fmt: skip


def _variance(s: FloatArray, tau2: float) -> float:
    """Return the model's variance of a pooled estimate, without Hartung and Knapp's scale."""
    return 1 / float(np.sum(1 / (s**2 + tau2)))


def influence_rows(
    quantity: str,
    labels: Sequence[str],
    estimates: Sequence[Estimate],
    *,
    scale: Scale = "linear",
    method: Method = "PM",
    level: float = 0.95,
    hartung_knapp: bool = True,
) -> list[Row]:
    """Return the rows of influence.csv for one quantity: the consensus without each label.

    Parameters
    ----------
    quantity : name of the quantity.
    labels, estimates : (k,) names of the labels and what each says, in one unit.
    scale, method, level, hartung_knapp : as in `consensus_table`; on the log scale `change_pct` is that of the
        pooled value in its own unit, while `tau2` and the diagnostics are those of the logarithms.

    Returns
    -------
    Dicts with the keys of `INFLUENCE_COLUMNS`, one a label. A label that was not pooled has no numbers and a reason.

    Raises
    ------
    ValueError : numbers of labels and estimates differ, a label repeated or reserved, mixed units, unknown scale.

    Examples
    --------
    >>> uptake = [Estimate("uptake", value, 0.1 * value, unit="pct_id") for value in (0.20, 0.22, 0.21, 0.90)]
    >>> rows = influence_rows("brain_uptake_pct_id", ["dir", "zr89", "nluc", "pkh"], uptake, scale="log")
    >>> [(row["left_out"], round(row["estimate"], 2), round(row["change_pct"])) for row in rows][2:]
    [('nluc', 0.34, 13), ('pkh', 0.21, -31)]
    """
    check_labels(labels, estimates)
    common_unit(labels, estimates)
    out = [why_not_pooled(e, scale) for e in estimates]
    value, se = on_scale([e for e, why in zip(estimates, out, strict=True) if not why], scale)
    cases = iter(influence(value, se, method=method, level=level, hartung_knapp=hartung_knapp))
    found = [_missing(why) if why else _row(next(cases), scale) for why in out]
    rows = [row | {"quantity": quantity, "left_out": label} for label, row in zip(labels, found, strict=True)]
    return [{column: row[column] for column in INFLUENCE_COLUMNS} for row in rows]


def _missing(why: str) -> Row:
    row: Row = dict.fromkeys(INFLUENCE_COLUMNS[2:-2], math.nan)
    return row | {"flags": "", "reason": why}


def _row(case: Influence, scale: Scale) -> Row:
    """Return the numbers of a row in the unit of the data."""
    others, reason = case.without, case.reason
    whole = others.estimate - case.change
    if scale == "log":
        change = math.expm1(min(case.change, 709.0))
    elif whole:
        change = case.change / abs(whole)
    else:
        change, reason = math.nan, reason or "the pooled estimate is 0, so its change has no percentage"
    low, middle, high = (
        exp_or_inf(x) if scale == "log" else x for x in (others.ci_low, others.estimate, others.ci_high)
    )
    return {
        "estimate": middle, "ci_low": low, "ci_high": high, "tau2": others.tau2, "i2": others.i2,
        "change_pct": 100 * change, "rstudent": case.rstudent, "cooks_distance": case.cooks_distance,
        "flags": join(case.flags), "reason": reason,
    }  # fmt: skip
