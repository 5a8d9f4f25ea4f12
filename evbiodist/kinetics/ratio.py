"""The tissue-to-blood ratio of two areas, with Fieller's interval.

A ratio of uncertain numbers needs its own interval: it may be lopsided, or open when blood is near zero.
"""

from __future__ import annotations

import math

import numpy as np

from evbiodist.kinetics.propagate import quantile
from evbiodist.study.estimate import Estimate
from evbiodist.study.units import derive


def kp(
    auc_tissue: Estimate,
    auc_blood: Estimate,
    level: float = 0.95,
    *,
    df_tissue: float = math.inf,
    df_blood: float = math.inf,
) -> Estimate:
    """Return the tissue-to-blood ratio of two areas with Fieller's interval.

    Parameters
    ----------
    auc_tissue, auc_blood : areas from different samples, so that their errors are independent.
    level : level of the interval.
    df_tissue, df_blood : their degrees of freedom (`NcaResult.df`); infinite for a normal interval.

    Returns
    -------
    Estimate : `kp_auc`; with a blood area that may be zero the interval is open, and `reason` says so.

    Raises
    ------
    ValueError : a level that is not between 0 and 1.

    Examples
    --------
    >>> ratio = kp(Estimate("auclast", 20, 2), Estimate("auclast", 10, 1))
    >>> ratio.value, round(ratio.se, 4), round(ratio.ci_low, 3), round(ratio.ci_high, 3)
    (2.0, 0.2828, 1.509, 2.651)

    Notes
    -----
    Fieller EC (1954) J R Stat Soc B 16:175-185, without covariance; degrees of freedom of the linear form
    tissue - ratio x blood after Satterthwaite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    unit = derive("value/dose", auc_tissue.unit, auc_blood.unit) if auc_tissue.unit and auc_blood.unit else None
    method = "ratio of areas, Fieller interval"
    for part, where in ((auc_tissue, "tissue"), (auc_blood, "blood")):
        if math.isnan(part.value) or (where == "blood" and part.value <= 0):
            reason = part.reason if math.isnan(part.value) else "it is not above zero"
            return Estimate("kp_auc", method=method, reason=f"no {where} area: {reason}")
    factor = unit.factor if unit else 1.0
    a, b, va, vb = auc_tissue.value, auc_blood.value, auc_tissue.se**2, auc_blood.se**2
    ratio = a / b
    flags = tuple(sorted({*auc_tissue.flags, *auc_blood.flags}))
    n = min(auc_tissue.n, auc_blood.n)
    var = va + ratio**2 * vb
    if math.isnan(var):
        reason = "an area has no standard error, so no uncertainty"
        low = high = math.nan
    else:
        below = va**2 / df_tissue + (ratio**2 * vb) ** 2 / df_blood
        q = float(quantile(level, np.array(var**2 / below if below > 0 else math.inf)))
        low, high, reason = _fieller(a, b, va, vb, q)
    return Estimate(
        "kp_auc",
        ratio * factor,
        math.sqrt(var) / b * factor,
        low * factor,
        high * factor,
        unit=unit.unit if unit else "",
        method=method,
        n=n,
        flags=flags,
        reason=reason,
    )


def _fieller(a: float, b: float, va: float, vb: float, q: float) -> tuple[float, float, str]:
    """Solve (a - r b)^2 = q^2 (va + r^2 vb) for the bounds of the ratio r."""
    lead = b**2 - q**2 * vb
    if lead <= 0:
        return math.nan, math.nan, "the interval is open: the blood area is not distinguishable from zero"
    root = math.sqrt(max(a**2 * b**2 - lead * (a**2 - q**2 * va), 0.0))
    return (a * b - root) / lead, (a * b + root) / lead, ""
