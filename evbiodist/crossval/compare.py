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
from evbiodist.study.flags import join, split

if TYPE_CHECKING:
    import pandas as pd

    from evbiodist.kinetics.fitting.fit import FitResult

#: Columns of agreement.csv, in order; `ratio` is the geometric mean of label_a over label_b.
AGREEMENT_COLUMNS = (
    "study", "group", "organ", "unit", "label_a", "label_b", "n", "bias", "bias_low", "bias_high", "loa_low", "loa_high", "ccc",
    "ccc_low", "ccc_high", "deming_slope", "deming_slope_low", "deming_slope_high", "deming_intercept", "ratio",
    "ratio_low", "ratio_high", "ratio_n", "flags", "reason",
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
    for (study, group, unit), part in seen.groupby(["study", "group", "unit"], sort=True):
        means = part.groupby(["organ", "time_h", "label"], sort=True)["value"].mean().unstack("label")
        for a, b in itertools.combinations(sorted(part["label"].unique()), 2):
            pairs = means[[a, b]].dropna()
            organs = sorted({str(o) for o in means.index.get_level_values("organ")})
            for organ in [*organs, ALL_ORGANS] if len(organs) > 1 else organs:
                both = pairs if organ == ALL_ORGANS else pairs[pairs.index.get_level_values("organ") == organ]
                place = {"study": study, "group": group, "organ": organ, "unit": unit, "label_a": a, "label_b": b}
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
                  "ratio_high": math.exp(logs.bias_high), "ratio_n": int(positive.sum())}  # fmt: skip
    return {k: v for k, v in found.items() if k in AGREEMENT_COLUMNS}


def consensus_rows(
    fits: Mapping[tuple[str, str, str, str], FitResult],
    parameters: list[dict[str, Any]],
    organ: str,
    scale: Literal["linear", "log"],
    level: float = 0.95,
    model: str = "plasma_with_organs",
) -> list[dict[str, Any]]:
    """Pool the labels' organ uptake, peak, and blood's half-life and clearance over labels by random effects.

    Parameters
    ----------
    fits : by (study, group, label, model).
    parameters : rows of parameters.csv, for the reasons of labels without a fit.
    organ : the organ of the headline quantities, for models with organs.
    scale : `log` where labels differ by factors, else `linear`.
    model : whose fits are pooled.

    Returns
    -------
    list of dict : rows of consensus.csv with leading `study` and `group`: per quantity a row a label, their `mean`,
        and the `consensus` with heterogeneity and prediction interval. Uptake and peak are those until the last time
        that all labels have, which the method names.
    """
    tried = sorted({(r["study"], r["group"], r["label"]) for r in parameters if r["model"] == model})
    rows: list[dict[str, Any]] = []
    for study, group in sorted({(s, g) for s, g, _ in tried}):
        labels = [label for s, g, label in tried if (s, g) == (study, group)]
        found = {label: fits[study, group, label, model] for label in labels if (study, group, label, model) in fits}
        if not found:
            continue
        last = min(float(f.data.time_h.max()) for f in found.values())
        have = {label: {e.name: e for e in f.estimates} | f.organ_amounts(last) for label, f in found.items()}
        why = {r["label"]: r["reason"] for r in parameters
               if (r["study"], r["group"], r["model"], r["parameter"]) == (study, group, model, "fit")}  # fmt: skip
        for name in _quantities(organ, have):
            absent = f"{organ} was not measured with this label"
            estimates = [
                have.get(label, {}).get(name) or Estimate(name, reason=why.get(label, absent)) for label in labels
            ]
            table = consensus_table(name, labels, estimates, scale=scale, level=level)
            inherited = {f for e in estimates for f in e.flags}
            _own_interval_of_a_single_label(table)
            for row in table:
                if row["label"] in {"mean", "consensus"}:
                    row["flags"] = join({*split(str(row["flags"])), *inherited})
                if name.startswith(organ):
                    row["method"] = f"until {last:g} h; {row['method']}".removesuffix("; ")
            rows += [{"study": study, "group": group, **row} for row in table]
    return rows


def _own_interval_of_a_single_label(table: list[dict[str, Any]]) -> None:
    """With one label there is nothing to pool: the consensus is that label, with its own interval."""
    entered = [row for row in table if isinstance(row["weight"], float) and row["weight"] > 0]
    if len(entered) == 1:
        (pooled,) = (row for row in table if row["label"] == "consensus")
        pooled |= {k: entered[0][k] for k in ("estimate", "se", "ci_low", "ci_high", "n")}


def _quantities(organ: str, have: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    known = {name for names in have.values() for name in names}
    wanted = [f"{organ}_uptake_pct_id", f"{organ}_peak_pct_id", "half_life", "half_life_initial", "cl"]
    return [name for name in wanted if name in known]
