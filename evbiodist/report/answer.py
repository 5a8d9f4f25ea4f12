"""The opening of the report: the answer in sentences, and the picture of where it went and how much reached the headline organ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evbiodist.report.figures import UNITS, forest, means, ranked
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.label_section import joint_sentences
from evbiodist.report.words import interval, joined, number
from evbiodist.study.flags import split
from evbiodist.study.vocabulary import NOT_ORGANS

if TYPE_CHECKING:
    import pandas as pd

#: Units in which organs are ranked, the best understood first.
_RANKED = ("pct_id", "pct_id_per_g", "pct_recovered")
_ORGANS, _GROUPS = 20, 4


def sentences(results: ResultFolder) -> list[str]:
    """Return the answer in sentences: where it went, how much is in the headline organ, and whether the labels agree."""
    told = [where] if (where := _where(results)) else []
    consensus, organ = results["consensus"], results.study["settings"]["crossval"]["organ"]
    for group in sorted(consensus["group"].unique()) if len(consensus) else []:
        rows = consensus[(consensus["group"] == group) & (consensus["quantity"] == f"{organ}_uptake_pct_id")]
        told += _headline(rows, group, organ, joint_sentences(results, group), results)
    if told:
        return told
    seen = results["observations"]
    animals = seen["subject"].nunique() if len(seen) else 0
    return [f"{len(seen)} values of {animals} animals, without a share of the dose or a comparison of labels; "
            "see the values and parameters below."]  # fmt: skip


def _headline(rows: pd.DataFrame, group: str, organ: str, joint: list[str], results: ResultFolder) -> list[str]:
    """Return how much of the dose is in the headline organ of a group, and whether its labels agree."""
    row = rows[rows["label"] == "consensus"]
    if not len(row) or math.isnan(row["estimate"].iloc[0]):
        return joint
    r, k = row.iloc[0], int((rows["weight"] > 0).sum())
    level = 100 * results.study["settings"]["kinetics"]["level"]
    so = "Readings pooled as they are say that by" if joint else "By"
    pooled = (f"{so} the last time {interval(r['estimate'], r['ci_low'], r['ci_high'])} % of the dose was in "
              f"the {organ} ({group}, consensus of {k} label{'s' * (k != 1)}, {level:g} % interval).")  # fmt: skip
    return [*joint, pooled, *_do_labels_agree(rows, r)]


def _do_labels_agree(rows: pd.DataFrame, consensus: pd.Series) -> list[str]:
    single = rows[rows["weight"] > 0]
    if len(single) < 2 or math.isnan(consensus["i2"]):
        return []
    if "heterogeneous" not in split(consensus["flags"]):
        return [
            f"No disagreement of the {len(single)} labels beyond their errors was detected (I² {consensus['i2']:.0f} %)."
        ]
    middle = float(single["estimate"].median())
    far = single.assign(ratio=single["estimate"] / middle)
    worst = far.iloc[int(far["ratio"].clip(lower=1e-9).map(math.log).abs().to_numpy().argmax())]
    return [f"The labels disagree by more than their errors (I² {consensus['i2']:.0f} %): {worst['label']} reads "
            f"{worst['ratio']:.2g} times the median of the labels. A further label would be expected between "
            f"{number(consensus['prediction_low'])} and {number(consensus['prediction_high'])} %."]  # fmt: skip


def _where(results: ResultFolder) -> str:
    """Return a sentence on the three organs with the highest mean amount (or concentration), over labels."""
    seen = results["observations"]
    if not len(seen):
        return ""
    organs = seen[~seen["organ"].isin(NOT_ORGANS)]
    for unit, what in (("pct_id", "amounts"), ("pct_id_per_g", "concentrations")):
        chosen = organs[(organs["unit"] == unit) & organs["value"].notna()]
        if len(chosen):
            mean = chosen.groupby(["organ", "label", "group", "time_h"])["value"].mean()
            top = mean.groupby(["organ", "label"]).max().groupby("organ").median().sort_values(ascending=False).head(3)
            named = joined([f"{organ} ({number(value)} {UNITS[unit]} at its peak)" for organ, value in top.items()])
            return f"The highest {what} were in {named}."
    return ""


def pictures(results: ResultFolder, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return where it went in every group: organs from the highest to the lowest peak, with the table behind the figure."""
    seen = results["observations"]
    if not len(seen):
        return []
    seen = seen[~seen["organ"].isin(NOT_ORGANS) & seen["value"].notna()]
    unit = next((u for u in _RANKED if (seen["unit"] == u).any()), seen["unit"].mode().iloc[0] if len(seen) else "")
    points = means(seen[seen["unit"] == unit], results.study["settings"]["kinetics"]["level"])
    found: list[dict[str, Any]] = []
    for group, here in points.groupby("group", sort=True):
        top = here.loc[here.groupby(["organ", "label"])["mean"].idxmax()]
        order = top.groupby("organ")["mean"].median().sort_values(ascending=False, kind="stable").index
        kept = {o: i for i, o in enumerate(order[:_ORGANS])}
        top = top[top["organ"].isin(kept)].sort_values(
            ["organ", "label"], key=lambda c: c.map(kept) if c.name == "organ" else c
        )
        shown = UNITS.get(str(unit), str(unit))
        rows = [
            {"cells": [r.organ, r.label, interval(r.mean, r.low, r.high), f"{r.time_h:g}", r.n]} for r in rows_of(top)
        ]
        found.append({"group": group, "unit": shown, "svg": ranked(top, place, shown), "rows": rows,
                      "left_out": len(order) - len(kept), "weight": (len(set(top["label"])), int(here["n"].sum()))})  # fmt: skip
    return sorted(found, key=lambda p: p["weight"], reverse=True)[:_GROUPS]


def forests(results: ResultFolder, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the forest plots of the headline organ: every label, what they give together, and how they differ."""
    consensus = results["consensus"]
    if not len(consensus):
        return []
    organ = results.study["settings"]["crossval"]["organ"]
    found = []
    for (group, quantity), rows in consensus.groupby(["group", "quantity"], sort=False):
        if not str(quantity).startswith(f"{organ}_") or rows["estimate"].notna().sum() == 0:
            continue
        pooled = rows[rows["label"] == "consensus"]
        summary = (
            pooled.iloc[0]
            if len(pooled)
            else dict.fromkeys(("i2", "tau2", "prediction_low", "prediction_high"), math.nan)
        )
        unit = next((u for u in rows["unit"] if u), "")
        table = [{"label": r["label"], "text": interval(r["estimate"], r["ci_low"], r["ci_high"]), "weight": r["weight"],
                  "reason": r["reason"]} for _, r in rows.iterrows()]  # fmt: skip
        what = "taken up by the last time" if "_uptake_" in str(quantity) else "at its peak"
        what += ", with the blood in its vessels" if "_with_vessels_" in str(quantity) else ""
        found.append({"title": f"{organ}, {what} ({group})", "group": group, "svg": forest(rows, place, unit), "rows": table,
                      "unit": UNITS.get(unit, unit), "i2": summary["i2"], "tau2": summary["tau2"], "quantity": quantity,
                      "low": summary["prediction_low"], "high": summary["prediction_high"]})  # fmt: skip
    return found
