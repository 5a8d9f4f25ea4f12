"""What the report says of labels: whether they agree, which one misreads and how, and what the joint answer rests on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evbiodist.crossval.agreement_table import ALL_ORGANS, ICH_M10_NOTE
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.label_figures import bias_map, difference_panel, organ_key, predicted_panel
from evbiodist.report.rows import records
from evbiodist.report.words import interval, number, opening
from evbiodist.study.flags import split

if TYPE_CHECKING:
    import pandas as pd

_STEPS, _LEARNED, _RANK = 5, 20.0, "structural rank"
#: Words of identifiability.csv as readers meet them.
_FROM = {
    "labels": "the readings of all labels together",
    "priors": "only with what is known of labels",
    "nothing": "not at all",
}


def label_sections(results: ResultFolder, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return what the template shows of each group whose labels have a joint answer, figures included."""
    alerts = results["alerts"]
    places = sorted(set(zip(alerts["study"], alerts["group"], strict=True))) if len(alerts) else []
    several = len({study for study, _ in places}) > 1
    return [
        _section(_only(results, study), group, f"{study}, {group}" if several else group, place)
        for study, group in places
    ]


def without_joint_answer(results: ResultFolder) -> list[str]:
    """Return why groups have no answer of all labels together, a sentence each."""
    told = [f"{n}." for n in results.study.get("notes", []) if ": no joint answer: " in n]
    consensus = results["consensus"]
    for group, rows in consensus.groupby("group", sort=True) if len(consensus) else []:
        labels = sorted(set(rows["label"]) - {"mean", "consensus", "joint"})
        if len(labels) == 1:
            told.append(f"{group}: one label only ({labels[0]}), so the vesicle cannot be told from its label.")
    return told


def _only(results: ResultFolder, study: str) -> ResultFolder:
    """Return the rows of one study: others may have groups of the same name."""
    tables = {name: t[t["study"] == study] if "study" in t else t for name, t in results.tables.items()}
    return replace(results, tables=tables)


def _section(results: ResultFolder, group: str, title: str, place: Mapping[str, int]) -> dict[str, Any]:
    mine = {name: _of(results[name], group) for name in ("alerts", "label_bias", "identifiability", "left_out", "predicted",
                                                         "next_steps", "influence", "label_parameters", "ranks")}  # fmt: skip
    organ = results.study["settings"]["crossval"]["organ"]
    pairs = _pairs(results, group)
    drawn = {o for p in pairs for o in p["organs"]}
    return {
        "group": title,
        "answers": _answers(_of(results["consensus"], group), organ),
        "alerts": records(mine["alerts"]),
        "map": bias_map(mine["label_bias"]) if len(mine["label_bias"]) else "",
        "relative": sorted({r["label"] for r in records(mine["label_bias"]) if r.get("relative") == "yes"}),
        "pairs": pairs,
        "map_rows": _map_rows(mine["label_bias"]),
        "organs": [(o, i) for i, o in enumerate(_organs(results, group)) if o in drawn],
        "organ_keys": {o: organ_key(i) for i, o in enumerate(_organs(results, group))},
        "predicted": _predicted(mine["predicted"], mine["left_out"], place),
        "identified": _identified(mine["identifiability"]),
        "left_out": _left_out(mine["left_out"]),
        "animals": _animals(mine["left_out"]),
        "influence": [r | {"text": interval(r["estimate"], r["ci_low"], r["ci_high"])} for r in records(mine["influence"])
                      if r["quantity"] == f"{organ}_uptake_pct_id"],
        "parameters": _parameters(mine["label_parameters"]),
        "ranks": [r for r in records(mine["ranks"]) if r["time_h"] == "all"],
        "steps": [r["step"] for r in records(mine["next_steps"])][:_STEPS],
        "m10": ICH_M10_NOTE,
    }  # fmt: skip


def joint_sentences(results: ResultFolder, group: str) -> list[str]:
    """Return the joint answer of the headline organ in words, beside the consensus, and the labels that misread."""
    organ = results.study["settings"]["crossval"]["organ"]
    level = 100 * results.study["settings"]["kinetics"]["level"]
    rows = _of(results["consensus"], group)
    joint = rows[(rows["quantity"] == f"{organ}_uptake_pct_id") & (rows["label"] == "joint")] if len(rows) else rows
    if not len(joint):
        return []
    r = joint.iloc[0]
    told = [f"All labels together say that {interval(r['estimate'], r['ci_low'], r['ci_high'])} % of the dose was in the {organ} "
            f"by the last time ({group}, joint label model, {level:g} % interval)."]  # fmt: skip
    doubts = {
        "outside_labels": "This lies beyond the intervals of all single labels",
        "model_misfit": "The model does not fit the means",
    }
    told += [f"{words}: see what the answer rests on, and whether the models fit, before quoting it."
             for flag, words in doubts.items() if flag in split(r["flags"])]  # fmt: skip
    accused = [a for a in records(_of(results["alerts"], group)) if a["accused"] == "yes"]
    told += [f"{opening(a['evidence'], [a['label'], a['organ']])}." for a in accused]
    return told + ([f"Why they differ: {r['why']}."] if r.get("why") else [])


def _of(table: pd.DataFrame, group: str) -> pd.DataFrame:
    return table[table["group"] == group] if len(table) else table


def _answers(consensus: pd.DataFrame, organ: str) -> list[dict[str, Any]]:
    """Return the joint answer beside the consensus, for every quantity that has one."""
    found: list[dict[str, Any]] = []
    if not len(consensus):
        return found
    for quantity, rows in consensus.groupby("quantity", sort=False):
        joint, pooled = rows[rows["label"] == "joint"], rows[rows["label"] == "consensus"]
        if (
            len(joint)
            and len(pooled)
            and (str(quantity).startswith(f"{organ}_") or not str(quantity).endswith("_pct_id"))
        ):
            j = joint.iloc[0]
            both = [interval(x["estimate"], x["ci_low"], x["ci_high"]) for x in (j, pooled.iloc[0])]
            found.append({"quantity": quantity, "unit": j["unit"], "joint": both[0], "consensus": both[1], "why": j.get("why", ""),
                          "flags": j["flags"].replace(";", ", ")})  # fmt: skip
    return found


def _means(results: ResultFolder, group: str) -> pd.DataFrame:
    seen = _of(results["observations"], group)
    seen = seen[seen["value"].notna() & (seen["below_lloq"] != "yes")]
    return seen.groupby(["unit", "organ", "time_h", "label"])["value"].mean().unstack("label")


def _organs(results: ResultFolder, group: str) -> list[str]:
    """Return the organs of a group in the order of their colours."""
    return sorted(set(_of(results["observations"], group)["organ"]))


def _pairs(results: ResultFolder, group: str) -> list[dict[str, Any]]:
    """Return a panel for every pair of labels over all organs."""
    agreement, means = _of(results["agreement"], group), _means(results, group)
    organs = _organs(results, group)
    found = []
    for r in records(agreement[agreement["organ"] == ALL_ORGANS]) if len(agreement) else []:
        if r["unit"] not in means.index or not {r["label_a"], r["label_b"]} <= set(means.columns):
            continue
        both = means.loc[r["unit"]][[r["label_a"], r["label_b"]]].dropna()
        both = both[(both > 0).all(axis=1)]
        if len(both) < 3 or math.isnan(r["ratio"]):
            continue
        limits = [r.get(name, math.nan) for name in ("ratio_loa_low", "ratio_loa_high")]
        points = both.reset_index().rename(columns={r["label_a"]: "a", r["label_b"]: "b"})[["organ", "a", "b"]]
        import pandas as pd

        found.append({"title": f"{r['label_a']} over {r['label_b']}", "svg": difference_panel(points, pd.Series(r), organs),
                      "text": interval(r["ratio"], r["ratio_low"], r["ratio_high"]), "n": len(both), "organs": set(points["organ"]),
                      "limits": f"{number(limits[0])} to {number(limits[1])}", "rows": _pair_rows(both.reset_index(), r)})  # fmt: skip
    return found


def _pair_rows(both: pd.DataFrame, row: dict[str, Any]) -> list[dict[str, Any]]:
    a, b = row["label_a"], row["label_b"]
    return [
        {"cells": [m["organ"], f"{m['time_h']:g}", number(m[a]), number(m[b]), number(m[a] / m[b])]}
        for m in records(both)
    ]


def _map_rows(bias: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"cells": [r["label"], r["organ"], interval(r["ratio"], r["ratio_low"], r["ratio_high"]),
                       "yes" if r["ratio_low"] > 1 or r["ratio_high"] < 1 else "no"]} for r in records(bias)]  # fmt: skip


def _predicted(predicted: pd.DataFrame, left_out: pd.DataFrame, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the panels of every left-out label."""
    if not len(predicted):
        return []
    labels = predicted[predicted["kind"] == "label"]
    rows_of = left_out[left_out["kind"] == "label"] if len(left_out) else left_out
    scores = {r["left_out"]: r for r in records(rows_of)}
    found = []
    for label, rows in labels.groupby("left_out", sort=True):
        score = scores.get(label, dict.fromkeys(("rank", "coverage_pct", "log_density"), math.nan))
        panels = [
            _panel(str(organ), part, place.get(str(label), 0)) for organ, part in rows.groupby("organ", sort=True)
        ]
        found.append({"label": label, "panels": panels, "rows": [row for panel in panels for row in panel["rows"]],
                      "rank": score["rank"], "coverage": score["coverage_pct"], "log_density": score["log_density"],
                      "of": len(scores)})  # fmt: skip
    return sorted(found, key=lambda f: (math.isnan(f["rank"]), f["rank"]))


def _panel(organ: str, part: pd.DataFrame, slot: int) -> dict[str, Any]:
    rows = [
        {"cells": [organ, f"{r.time_h:g}", number(r.seen), interval(r.predicted, r.low, r.high)]} for r in rows_of(part)
    ]
    return {"organ": organ, "svg": predicted_panel(part, slot), "rows": rows}


def _identified(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [r | {"text": f"{r['value']:.0f}" if r["quantity"] == _RANK else interval(r["value"], r["ci_low"], r["ci_high"]),
                 "source": _FROM.get(r["determined_by"], r["determined_by"])}
            for r in records(table) if not r["quantity"].endswith("_with_vessels_pct_id")]  # fmt: skip


def _left_out(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        r | {"text": interval(r["value"], r["ci_low"], r["ci_high"])} for r in records(table) if r["kind"] != "animal"
    ]


def _animals(table: pd.DataFrame) -> str:
    """Return in a sentence how far a single animal moves the answer."""
    animals = [r for r in records(table) if r["kind"] == "animal" and not math.isnan(r["change_pct"])]
    if not animals:
        return ""
    most = max(animals, key=lambda r: abs(r["change_pct"]))
    return (f"Leaving out one of {len(animals)} animals moves {most['quantity']} by {abs(most['change_pct']):.2g} % at most "
            f"({most['left_out']}).")  # fmt: skip


def _parameters(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the labels' own parameters by label, those the study taught something about first."""
    rows = [r | {"name": f"{r['parameter']} {r['organ']}".strip(), "learned": r["learned_pct"] > _LEARNED,
                 "text": interval(r["value"], r["ci_low"], r["ci_high"]),
                 "before": interval(r["prior_median"], r["prior_low"], r["prior_high"])}
            for r in records(table)]  # fmt: skip
    return [{"label": label, "rows": sorted(own, key=lambda r: (not r["learned"], r["name"]))}
            for label, own in ((k, list(g)) for k, g in itertools.groupby(rows, key=lambda r: r["label"]))]  # fmt: skip
