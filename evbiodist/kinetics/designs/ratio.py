"""The tissue-to-blood ratio of two areas, with Fieller's interval.

A ratio of uncertain numbers needs its own interval: it may be lopsided, or open when blood is near zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.designs.batch_design import AnimalMeans, MeanCurve
from evbiodist.kinetics.designs.mean_curve import Floats, check_interval
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive


def kp(
    auc_tissue: Estimate,
    auc_blood: Estimate,
    level: float = 0.95,
    *,
    df_tissue: float = math.inf,
    df_blood: float = math.inf,
    covariance: float = 0.0,
    df: float | None = None,
) -> Estimate:
    """Return the tissue-to-blood ratio of two areas with Fieller's interval.

    Parameters
    ----------
    auc_tissue, auc_blood : areas.
    level : level of the interval.
    df_tissue, df_blood : their degrees of freedom (`NcaResult.df`); infinite for a normal interval.
    covariance : covariance of the errors of the two areas, in the product of their units; 0 for areas from different
        animals. `kp_paired` finds it for tissue and blood of the same animals.
    df : degrees of freedom of tissue - ratio x blood. Without it they follow from those of the two areas, and
        with a covariance they are the smaller of the two.

    Returns
    -------
    Estimate : `kp_auc`; with a blood area that may be zero the interval is open, and `reason` says on which side.

    Raises
    ------
    ValueError : a level that is not between 0 and 1, a covariance that the two errors do not allow.

    Examples
    --------
    >>> ratio = kp(Estimate("auclast", 20, 2), Estimate("auclast", 10, 1))
    >>> ratio.value, round(ratio.se, 4), round(ratio.ci_low, 3), round(ratio.ci_high, 3)
    (2.0, 0.2828, 1.509, 2.651)
    >>> together = kp(Estimate("auclast", 20, 2), Estimate("auclast", 10, 1), covariance=1.8)
    >>> round(together.se, 4), round(together.ci_low, 3), round(together.ci_high, 3)
    (0.0894, 1.829, 2.187)

    Notes
    -----
    Fieller EC (1954) J R Stat Soc B 16:175-185; degrees of freedom of the linear form tissue - ratio x blood after
    Satterthwaite.
    """
    check_interval("t", level)
    unit = derive("value/dose", auc_tissue.unit, auc_blood.unit) if auc_tissue.unit and auc_blood.unit else None
    method = "ratio of areas, Fieller interval"
    for part, where in ((auc_tissue, "tissue"), (auc_blood, "blood")):
        if math.isnan(part.value) or (where == "blood" and part.value <= 0):
            reason = part.reason if math.isnan(part.value) else "it is not above zero"
            return Estimate("kp_auc", method=method, reason=f"no {where} area: {reason}")
    factor = unit.factor if unit else 1.0
    a, b, va, vb = auc_tissue.value, auc_blood.value, auc_tissue.se**2, auc_blood.se**2
    if abs(covariance) > math.sqrt(va * vb) * (1 + 1e-9):
        raise ValueError(
            f"covariance has {covariance:g}, expected at most {math.sqrt(va * vb):g}, the product of the two standard "
            "errors; give it in the product of the areas' units"
        )
    ratio = a / b
    var = va - 2 * ratio * covariance + ratio**2 * vb
    freedom = _freedom(va, ratio**2 * vb, df_tissue, df_blood, covariance) if df is None else df
    if math.isnan(var) or math.isnan(freedom):
        low, high, reason = math.nan, math.nan, "an area has no standard error, so no uncertainty"
    else:
        var = max(var, 0.0)
        low, high, reason = _fieller(a, b, va, vb, covariance, student(level, freedom))
    return Estimate(
        "kp_auc",
        ratio * factor,
        math.sqrt(var) / b * factor,
        low * factor,
        high * factor,
        unit=unit.unit if unit else "",
        method=method,
        n=min(auc_tissue.n, auc_blood.n),
        flags=tuple(sorted({*auc_tissue.flags, *auc_blood.flags})),
        reason=reason,
    )


def _freedom(part_tissue: float, part_blood: float, df_tissue: float, df_blood: float, covariance: float) -> float:
    if covariance:
        return min(df_tissue, df_blood)
    below = part_tissue**2 / df_tissue + part_blood**2 / df_blood
    return (part_tissue + part_blood) ** 2 / below if below > 0 else math.inf


def _fieller(a: float, b: float, va: float, vb: float, cov: float, q: float) -> tuple[float, float, str]:
    """Solve (a - r b)^2 = q^2 (va - 2 r cov + r^2 vb) for the bounds of the ratio r."""
    lead, middle, rest = b**2 - q**2 * vb, a * b - q**2 * cov, a**2 - q**2 * va
    root = math.sqrt(max(middle**2 - lead * rest, 0.0))
    if lead > 0:
        return (middle - root) / lead, (middle + root) / lead, ""
    why = "the blood area is not distinguishable from zero"
    if lead < 0 < rest:  # outside two bounds of opposite sign, and a ratio of amounts is not negative
        return (middle - root) / lead, math.nan, f"the interval is open above: {why}"
    return math.nan, math.nan, f"the interval is open: {why}"


@dataclass(frozen=True)
class PairedRatio:
    """The ratio of two areas of the same animals with what its interval was made of.

    Parameters
    ----------
    ratio, tissue, blood : `kp_auc` and the two areas, to their last common time.
    covariance, correlation : of the errors of the two areas.
    df : degrees of freedom of tissue - ratio x blood.
    """

    ratio: Estimate
    tissue: Estimate
    blood: Estimate
    covariance: float
    correlation: float
    df: float


def kp_paired(
    time_h: ArrayLike,
    subject: ArrayLike,
    tissue: ArrayLike,
    blood: ArrayLike,
    *,
    tissue_below: ArrayLike | None = None,
    blood_below: ArrayLike | None = None,
    majority_blq: str = "end",
    level: float = 0.95,
    unit: str = "au",
    blood_unit: str = "",
    from_zero: tuple[bool, bool] = (True, False),
) -> PairedRatio:
    """Return the tissue-to-blood ratio of areas when tissue and blood come from the same animals.

    Parameters
    ----------
    time_h, subject : (S,) hours and animal of each sample: one row an animal in serial sacrifice, several where
        animals were sampled repeatedly.
    tissue, blood : (S,) values; NaN where one of the two was not measured.
    tissue_below, blood_below, majority_blq : as `below` and `majority_blq` of
        `evbiodist.kinetics.designs.batch_design.batch_auc`.
    level : level of the interval.
    unit, blood_unit : unit of the values; blood has that of tissue unless given.
    from_zero : whether the curve of tissue and that of blood start from 0 at 0 h when the first sample is later.

    Returns
    -------
    PairedRatio : areas to the last time at which both means are positive.

    Raises
    ------
    ValueError : samples that cannot be arranged (`Samples.of`); no time at which both were detected.

    Examples
    --------
    >>> found = kp_paired([1, 1, 1, 4, 4, 4], [*"abcdef"], [4, 5, 6, 1, 2, 3], [8, 10, 13, 2, 4, 5.5], from_zero=(0, 0))
    >>> round(found.ratio.value, 3), round(found.correlation, 3), round(found.df, 1)
    (0.494, 0.979, 3.1)
    >>> round(found.ratio.ci_low, 3), round(found.ratio.ci_high, 3)
    (0.458, 0.546)

    Notes
    -----
    Cov = sum w_j v_k r_jk s_jk / (n_j n_k) over times of tissue and blood; in serial sacrifice sum w_j v_j s_jj / n_j.
    Degrees of freedom are Satterthwaite's for the differences tissue - ratio x blood of the animals. Wolfsegger MJ,
    Jaki T (2009) Biom J 51:1017-1029 for dependent areas.
    """
    t, who = np.asarray(time_h, dtype=np.float64), np.asarray(subject).astype(str)
    curves = [
        _curve(t, who, tissue, tissue_below, majority_blq, "tissue"),
        _curve(t, who, blood, blood_below, majority_blq, "blood"),
    ]
    common = np.intersect1d(curves[0].detected_h, curves[1].detected_h)
    if not common.size:
        raise ValueError(
            "tissue and blood have no time at which both means are above zero, so their areas have no ratio; "
            "measure both in the same animals"
        )
    w, v = (c.weights(zero, float(common[-1])) for c, zero in zip(curves, from_zero, strict=True))
    area_tissue, area_blood = (
        c.area("auclast_sparse", float(x @ c.mean), x, level, "t", u).estimate
        for c, x, u in zip(curves, (w, v), (unit, blood_unit or unit), strict=True)
    )
    everyone = tuple(np.unique(np.concatenate([c.samples.subjects for c in curves])))
    means = AnimalMeans.of(np.hstack([c.samples.rows_of(everyone) for c in curves]))
    left, right = np.concatenate([w, np.zeros_like(v)]), np.concatenate([np.zeros_like(w), v])
    spread = area_tissue.se * area_blood.se
    if not math.isfinite(spread) or not area_blood.value > 0:
        return PairedRatio(kp(area_tissue, area_blood, level), area_tissue, area_blood, math.nan, math.nan, math.nan)
    covariance = float(np.clip(means.covariance(left, right), -spread, spread))
    df = float(means.freedom(left - area_tissue.value / area_blood.value * right))
    if math.isnan(df):  # covariances of overlapping batches that make no positive variance
        df = float(min(means.freedom(left), means.freedom(right)))
    ratio = kp(area_tissue, area_blood, level, covariance=covariance, df=df)
    correlation = covariance / spread if spread > 0 else math.nan
    return PairedRatio(ratio, area_tissue, area_blood, covariance, correlation, df)


def _curve(
    t: Floats, who: NDArray[np.str_], value: ArrayLike, below: ArrayLike | None, rule: str, field: str
) -> MeanCurve:
    """Return the mean curve of one of the two, of the rows that have it."""
    y = np.asarray(value, dtype=np.float64)
    if y.shape != t.shape or (below is not None and np.shape(below) != t.shape):
        raise ValueError(
            f"{field} has shape {y.shape}, expected {t.shape} as time_h; give NaN where it was not measured"
        )
    there = ~np.isnan(y)
    if not there.any():
        raise ValueError(f"{field} has no value, expected samples of at least two times; leave this ratio out")
    low = None if below is None else np.asarray(below, dtype=np.bool_)[there]
    return MeanCurve.of(t[there], who[there], y[there], low, rule)
