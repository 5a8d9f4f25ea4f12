"""report.html: one self-contained file that opens with the answer and ends with what is missing."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evbiodist.batch.scans import outline_colour
from evbiodist.batch.store import write_bytes
from evbiodist.crossval.agreement_table import ALL_ORGANS
from evbiodist.crossval.compare import TABLES
from evbiodist.report.figures import UNITS, colours, forest, means, organ_curve
from evbiodist.report.folder import ResultFolder, read_results
from evbiodist.report.label_section import joint_sentences, label_sections, without_joint_answer
from evbiodist.report.words import interval, number
from evbiodist.study.estimate import student
from evbiodist.study.flags import FLAGS, split
from evbiodist.study.vocabulary import BLOOD, NOT_ORGANS

if TYPE_CHECKING:
    import pandas as pd

#: Parameters of the main table, in order; everything is in parameters.csv.
_BLOOD_ROWS = ("c0", "cmax", "auclast", "auclast_sparse", "aucinf_obs", "auc_pct_extrap_obs", "half_life", "mrt_inf", "cl",
               "vss")  # fmt: skip
_ORGAN_ROWS = ("cmax", "tmax", "auclast", "auclast_sparse", "half_life", "kp_auc")
_FIT_ROWS = ("v", "v1", "v2", "cl", "q", "k_el", "half_life_initial", "half_life", "auc_inf", "vss")
_PICTURES = 24
_SINGLE_VALUES = 200


def write_report(folder: str | Path) -> Path:
    """Build report.html of a result folder and write it there.

    Parameters
    ----------
    folder : of a run.

    Returns
    -------
    Path : of report.html, which needs no network and runs no script.

    Raises
    ------
    InputError : not a result folder.
    """
    results = read_results(folder)
    path = Path(folder) / "report.html"
    write_bytes(path, render(results).encode("utf-8"))
    return path


def render(results: ResultFolder) -> str:
    """Return the report of a result folder as HTML text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evbiodist.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": number}
    return _renumber(environment.get_template("report.html.j2").render(**context(results)))


def _renumber(page: str) -> str:
    """Number the figures' clip paths from 1 in page order: the renderer counts them over its whole process."""
    order: dict[str, str] = {}
    return re.sub(r"(?<=[\"#])clip\d+\b", lambda m: order.setdefault(m.group(), f"clip{len(order) + 1}"), page)


def context(results: ResultFolder) -> dict[str, Any]:
    """Return everything the template shows."""
    labels = sorted(results["observations"]["label"].unique()) if len(results["observations"]) else []
    palette = colours(labels)
    return {
        "study": results.study,
        "palette": palette,
        "units": UNITS,
        "answer": _answer(results),
        "forests": _forests(results, palette),
        "curves": _organ_curves(results, palette),
        "single": _single_times(results),
        "nca": _nca_tables(results),
        "fits": _fit_table(results),
        "agreement": _agreement(results),
        "labels": label_sections(results, palette),
        "unanswered": without_joint_answer(results),
        "pictures": _pictures(results),
        "failures": _records(results["failures"]),
        "missing": _missing_parameters(results),
        "flags": _flags(results),
        "n_values": len(results["observations"]),
        "n_parameters": len(results["parameters"]),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _answer(results: ResultFolder) -> list[str]:
    """Return the answer in sentences: where it went, the headline organ, and whether the labels agree."""
    sentences = []
    level = 100 * results.study["settings"]["kinetics"]["level"]
    consensus, organ = results["consensus"], results.study["settings"]["crossval"]["organ"]
    peaks = _peaks(results)
    if peaks:
        sentences.append(peaks)
    if len(consensus):
        for group in sorted(consensus["group"].unique()):
            rows = consensus[(consensus["group"] == group) & (consensus["quantity"] == f"{organ}_uptake_pct_id")]
            row = rows[rows["label"] == "consensus"]
            joint = joint_sentences(results, group)
            sentences += joint
            if len(row) and not math.isnan(row["estimate"].iloc[0]):
                r = row.iloc[0]
                k = int((rows["weight"] > 0).sum())
                so = "Readings pooled as they are say that by" if joint else "By"
                sentences.append(f"{so} the last time {interval(r['estimate'], r['ci_low'], r['ci_high'])} % of the dose was in "
                                 f"the {organ} ({group}, consensus of {k} label{'s' * (k != 1)}, {level:g} % interval).")  # fmt: skip
                sentences += _do_labels_agree(rows, r)
    animals = results["observations"]["subject"].nunique() if len(results["observations"]) else 0
    return sentences or [f"{len(results['observations'])} values of {animals} animals, without a share of the dose or a "
                         "comparison of labels; see the values and parameters below."]  # fmt: skip


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


def _peaks(results: ResultFolder) -> str:
    """Return a sentence on the three organs with the highest mean amount (or concentration), over labels."""
    seen = results["observations"]
    organs = seen[~seen["organ"].isin(NOT_ORGANS)]
    for unit, what in (("pct_id", "amounts"), ("pct_id_per_g", "concentrations")):
        chosen = organs[organs["unit"] == unit]
        if len(chosen):
            table = (
                chosen.groupby(["organ", "label", "group", "time_h"])["value"].mean().groupby(["organ", "label"]).max()
            )
            top = table.groupby("organ").median().sort_values(ascending=False).head(3)
            named = ", ".join(f"{organ} ({number(value)} {UNITS[unit]} at its peak)" for organ, value in top.items())
            return f"The highest {what} were in {named}."
    return ""


def _forests(results: ResultFolder, palette: dict[str, str]) -> list[dict[str, Any]]:
    consensus = results["consensus"]
    organ = results.study["settings"]["crossval"]["organ"]
    found = []
    if len(consensus) == 0:
        return []
    for (group, quantity), rows in consensus.groupby(["group", "quantity"], sort=False):
        if not str(quantity).startswith(f"{organ}_") or rows["estimate"].notna().sum() == 0:
            continue
        summary = rows[rows["label"] == "consensus"].iloc[0]
        unit = next((u for u in rows["unit"] if u), "")
        table = [{"label": r["label"], "text": interval(r["estimate"], r["ci_low"], r["ci_high"]), "weight": r["weight"],
                  "reason": r["reason"]} for _, r in rows.iterrows()]  # fmt: skip
        what = "taken up by the last time" if "_uptake_" in str(quantity) else "at its peak"
        what += ", with the blood in its vessels" if "_with_vessels_" in str(quantity) else ""
        found.append({"title": f"{organ}, {what} ({group})", "svg": forest(rows, palette, unit), "rows": table,
                      "i2": summary["i2"], "tau2": summary["tau2"], "low": summary["prediction_low"],
                      "high": summary["prediction_high"], "quantity": quantity})  # fmt: skip
    return found


def _organ_curves(results: ResultFolder, palette: dict[str, str]) -> list[dict[str, Any]]:
    observations, curves = results["observations"], results["curves"]
    if observations.empty:
        return []
    points = means(observations, results.study["settings"]["kinetics"]["level"])
    found = []
    for (group, organ, unit), here in points.groupby(["group", "organ", "unit"], sort=True):
        if here["time_h"].nunique() < 2:
            continue
        fitted = curves
        if len(curves):
            name = "blood" if organ in BLOOD else organ
            fitted = curves[(curves["group"] == group) & (curves["organ"] == name) & (curves["unit"] == unit)]
            whole = fitted[fitted["model"] == "plasma_with_organs"]
            fitted = whole if len(whole) else fitted
        found.append({"group": group, "organ": organ, "unit": UNITS.get(str(unit), unit), "blood": organ in BLOOD,
                      "svg": organ_curve(here, fitted, palette, log_y=organ in BLOOD and bool((here["mean"] > 0).all())),
                      "labels": sorted(here["label"].unique())})  # fmt: skip
    return sorted(found, key=lambda c: (c["group"], not c["blood"], c["organ"]))


def _single_times(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the values of what was measured at one time only, each with its whole error."""
    observations = results["observations"]
    if observations.empty:
        return []
    reach = student(results.study["settings"]["kinetics"]["level"], math.inf)
    times = observations.groupby(["group", "organ", "unit"])["time_h"].transform("nunique")
    rows = []
    for r in _records(observations[(times < 2) & observations["value"].notna()].head(_SINGLE_VALUES)):
        shared = 0.0 if math.isnan(r["se_systematic"]) else r["se_systematic"]
        half = reach * math.hypot(r["se"], shared)
        rows.append({**r, "text": interval(r["value"], r["value"] - half, r["value"] + half),
                     "shown": UNITS.get(r["unit"], r["unit"]), "words": sorted(split(r["flags"]))})  # fmt: skip
    return rows


def _nca_tables(results: ResultFolder) -> list[dict[str, Any]]:
    table = results["parameters"]
    if table.empty:
        return []
    import pandas as pd

    nca = table[table["model"] == "nca"]
    nca = nca[(nca["subject"] == "pooled") | ~nca.duplicated(["group", "label", "organ", "parameter"], keep=False)]
    found = []
    units = nca[nca["parameter"] == "cmax"].set_index(["subject", "group", "label", "organ"])["unit"]
    kind = [units.get(k) if not isinstance(units.get(k), pd.Series) else None for k in
            zip(nca["subject"], nca["group"], nca["label"], nca["organ"], strict=True)]  # fmt: skip
    nca = nca.assign(kind=[k or "" for k in kind])
    for (group, organ, kind_of), here in nca.groupby(["group", "organ", "kind"], sort=True):
        wanted = _BLOOD_ROWS if organ in BLOOD else _ORGAN_ROWS
        labels = sorted(here["label"].unique())
        rows = []
        for name in wanted:
            cells = [_cell(here[(here["parameter"] == name) & (here["label"] == label)]) for label in labels]
            if any(c["text"] for c in cells):
                unit = next((u for u in here.loc[here["parameter"] == name, "unit"] if u), "")
                rows.append({"name": name, "unit": unit, "cells": cells})
        if rows:
            title = f"{organ}, {UNITS.get(str(kind_of), kind_of)} ({group})" if kind_of else f"{organ} ({group})"
            found.append({"title": title, "group": group, "organ": organ, "labels": labels, "rows": rows,
                          "blood": organ in BLOOD})  # fmt: skip
    return sorted(found, key=lambda t: (t["group"], not t["blood"], t["organ"]))


def _cell(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return {"text": "", "flags": [], "reason": ""}
    r = rows.iloc[0]
    return {"text": interval(r["value"], r["ci_low"], r["ci_high"]), "flags": sorted(split(r["flags"])),
            "reason": r["reason"] if math.isnan(r["value"]) else ""}  # fmt: skip


def _fit_table(results: ResultFolder) -> list[dict[str, Any]]:
    table = results["parameters"]
    found = []
    for (group, model), here in table[table["model"] != "nca"].groupby(["group", "model"]) if len(table) else []:
        labels = sorted(here["label"].unique())
        names = [n for n in dict.fromkeys(here["parameter"]) if n in _FIT_ROWS or n.endswith(("_uptake_pct_id",))]
        rows = [{"name": n, "unit": next((u for u in here.loc[here["parameter"] == n, "unit"] if u), ""),
                 "cells": [_cell(here[(here["parameter"] == n) & (here["label"] == label)]) for label in labels]}
                for n in names]  # fmt: skip
        failed = here[here["parameter"] == "fit"]
        found.append({"group": group, "model": model, "labels": labels, "rows": rows,
                      "failed": _records(failed[["label", "reason"]])})  # fmt: skip
    return found


def _agreement(results: ResultFolder) -> list[dict[str, Any]]:
    table = results["agreement"]
    if table.empty:
        return []
    organ = results.study["settings"]["crossval"]["organ"]
    return [{**r, "headline": r["organ"] in {organ, ALL_ORGANS}, "bias_text": interval(r["bias"], r["bias_low"], r["bias_high"]),
             "loa_text": f"{number(r['loa_low'])} to {number(r['loa_high'])}",
             "ccc_text": interval(r["ccc"], r["ccc_low"], r["ccc_high"]),
             "ratio_text": interval(r["ratio"], r["ratio_low"], r["ratio_high"]),
             "deming_text": interval(r["deming_slope"], r["deming_slope_low"], r["deming_slope_high"])}
            for r in _records(table)]  # fmt: skip


def _pictures(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the pictures of at most some scans, spread over labels and times, with their legends."""
    scans = results["scans"]
    if scans.empty:
        return []
    first = scans.drop_duplicates(["label", "kind", "time_h"])
    step = max(1, math.ceil(len(first) / _PICTURES))
    found = []
    for r in _records(first.iloc[::step]):
        file = results.path / r["picture"]
        if file.resolve().is_relative_to(results.path.resolve()) and file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            legend = [{"organ": organ, "colour": outline_colour(i)} for i, organ in enumerate(r["legend"].split(";"))]
            found.append({**r, "data": data, "legend": legend})
    return found


def _missing_parameters(results: ResultFolder) -> list[dict[str, Any]]:
    """Return which parameters are missing for which reason, gathered."""
    table = results["parameters"]
    if table.empty:
        return []
    gone = table[table["value"].isna()]
    found = []
    for (reason, label), here in gone.groupby(["reason", "label"], sort=True):
        organs = sorted({o for o in here["organ"] if o})
        found.append({"reason": reason, "label": label, "organs": organs,
                      "parameters": sorted(here["parameter"].unique())})  # fmt: skip
    return found


def _flags(results: ResultFolder) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    for name in ("observations", "parameters", *TABLES):
        table = results[name]
        for cell in table.get("flags", []):
            for flag in split(cell):
                counts[flag] = counts.get(flag, 0) + 1
    return [{"name": f, "count": n, "meaning": FLAGS[f].meaning, "remedy": FLAGS[f].remedy}
            for f, n in sorted(counts.items()) if f in FLAGS]  # fmt: skip
