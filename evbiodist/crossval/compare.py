"""A study's labels against each other: rows of agreement.csv and consensus.csv.

Labels are compared on the same quantity in the same unit: the mean of an organ at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.consensus import consensus_table
from evbiodist.study.estimate import Estimate
from evbiodist.study.flags import join

if TYPE_CHECKING:
    import pandas as pd

    from evbiodist.kinetics.fit import FitResult

#: Columns of agreement.csv, in order; `ratio` is the geometric mean of label_a over label_b.
AGREEMENT_COLUMNS = (
    "group", "organ", "unit", "label_a", "label_b", "n", "bias", "bias_low", "bias_high", "loa_low", "loa_high", "ccc",
    "ccc_low", "ccc_high", "deming_slope", "deming_slope_low", "deming_slope_high", "deming_intercept", "ratio",
    "ratio_low", "ratio_high", "flags", "reason",
)  # fmt: skip
ALL_ORGANS = "all"


def agreement_rows(observations: pd.DataFrame, level: float = 0.95) -> list[dict[str, Any]]:
    """Compare every pair of labels per organ, and over all organs, on means at times both have.

    Parameters
    ----------
    observations : with the columns of observations.csv.

    Returns
    -------
    list of dict : columns `AGREEMENT_COLUMNS`; a pair without common times has its reason. Bias is
        described; nothing passes or fails (ICH M10, cross validation).
    """
    seen = observations[observations["value"].notna() & ~observations["below_lloq"].astype(bool)]
    rows: list[dict[str, Any]] = []
    for (group, unit), part in seen.groupby(["group", "unit"], sort=True):
        means = part.groupby(["organ", "time_h", "label"], sort=True)["value"].mean().unstack("label")
        for a, b in itertools.combinations(sorted(part["label"].unique()), 2):
            pairs = means[[a, b]].dropna()
            organs = sorted({str(o) for o in means.index.get_level_values("organ")})
            for organ in [*organs, ALL_ORGANS] if len(organs) > 1 else organs:
                both = pairs if organ == ALL_ORGANS else pairs[pairs.index.get_level_values("organ") == organ]
                place = {"group": group, "organ": organ, "unit": unit, "label_a": a, "label_b": b}
                rows.append(place | _compare(both[a].to_numpy(float), both[b].to_numpy(float), level))
    return rows


def _compare(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], level: float) -> dict[str, Any]:
    if a.size == 0:
        return {"n": 0, "reason": "the two labels have no time in common", "flags": ""}
    found = asdict(agreement(a, b, level=level))
    found["flags"] = join(found["flags"])
    positive = (a > 0) & (b > 0)
    if positive.sum() >= 3:
        logs = agreement(np.log(a[positive]), np.log(b[positive]), level=level)
        found |= {"ratio": math.exp(logs.bias), "ratio_low": math.exp(logs.bias_low),
                  "ratio_high": math.exp(logs.bias_high)}  # fmt: skip
    return {k: v for k, v in found.items() if k in AGREEMENT_COLUMNS}


def consensus_rows(
    fits: Mapping[tuple[str, str, str, str], FitResult],
    parameters: list[dict[str, Any]],
    organ: str,
    scale: Literal["linear", "log"],
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Pool the labels' organ uptake, peak and blood clearance over labels by random effects.

    Parameters
    ----------
    fits : of `plasma_with_organs`, by (study, group, label, model).
    parameters : rows of parameters.csv, for the reasons of labels without a fit.
    organ : the organ of the headline quantities.
    scale : `log` where labels differ by factors, else `linear`.

    Returns
    -------
    list of dict : rows of consensus.csv with a leading `group`: per quantity a row a label, their `mean`, and
        the `consensus` with heterogeneity and prediction interval.
    """
    model = "plasma_with_organs"
    tried = sorted({(r["group"], r["label"]) for r in parameters if r["model"] == model})
    rows: list[dict[str, Any]] = []
    for group in sorted({g for g, _ in tried}):
        labels = [label for g, label in tried if g == group]
        found = {label: next((f for k, f in fits.items() if k[1:] == (group, label, model)), None) for label in labels}
        if not any(found.values()):
            continue
        for name in (f"{organ}_uptake_pct_id", f"{organ}_peak_pct_id", "half_life", "cl"):
            estimates = []
            for label in labels:
                fitted = found[label]
                why = next((r["reason"] for r in parameters if (r["group"], r["label"], r["model"], r["parameter"])
                            == (group, label, model, "fit")), f"{organ} was not measured with this label")  # fmt: skip
                have = {} if fitted is None else {e.name: e for e in fitted.estimates}
                estimates.append(have.get(name) or Estimate(name, reason=why))
            table = consensus_table(name, labels, estimates, scale=scale, level=level)
            rows += [{"group": group, **row} for row in table]
    return rows
