"""A study's labels against each other: rows of agreement.csv and consensus.csv.

Labels are compared on the same quantity in the same unit: the mean of an organ at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from evbiodist.crossval.agreement_table import AGREEMENT_COLUMNS as AGREEMENT_COLUMNS
from evbiodist.crossval.agreement_table import ALL_ORGANS as ALL_ORGANS
from evbiodist.crossval.agreement_table import agreement_rows as agreement_rows
from evbiodist.crossval.consensus import consensus_table
from evbiodist.study.estimate import Estimate
from evbiodist.study.flags import join, split

if TYPE_CHECKING:
    from evbiodist.kinetics.fitting.fit import FitResult


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
