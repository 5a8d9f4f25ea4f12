"""Every fitted model of a run as an SBML file: a model, its fitted values with their errors, and the dose that was given."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evbiodist.kinetics.analyse import Dosing
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.physiology import SPECIES
from evbiodist.report.exports.registry import Exported
from evbiodist.report.exports.sbml_document import Dose, Fitted, document
from evbiodist.report.exports.xpt import ascii_text
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.words import interval
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return a file for every group, label and model that was fitted.

    Parameters
    ----------
    results : of a run.
    options : none.
    """
    table, notes = results["parameters"], []
    files: dict[str, bytes] = {}
    fits = table[(table["model"] != "nca") & table["value"].notna()] if len(table) else table
    for (study, group, label, model), rows in fits.groupby(["study", "group", "label", "model"]) if len(fits) else ():
        what = f"{model} of {label} ({group})"
        if model not in catalogue():
            notes.append(f"{what}: a model of the study's own file, which the results do not hold")
            continue
        try:
            content = _file(results, str(study), str(group), str(label), str(model), rows)
        except ValueError as err:
            notes.append(f"{what}: {err}")
            continue
        files[_free(f"{group}_{label}_{model}", files)] = content
    if not files:
        notes.append("no compartment model was fitted, so there is nothing to write")
    return Exported(files, tuple(notes))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    plain = re.sub(r"[^\w-]+", "_", ascii_text(name, 100)).strip("_")
    number, free = 1, f"{plain}.xml"
    while free in taken:
        number += 1
        free = f"{plain}_{number}.xml"
    return free


def _file(results: ResultFolder, study: str, group: str, label: str, model: str, rows: pd.DataFrame) -> bytes:
    seen = results["observations"]
    seen = seen[(seen["study"] == study) & (seen["group"] == group) & (seen["label"] == label)]
    given = _given(results, group, label)
    blood = seen[seen["organ"].isin(BLOOD)]
    if blood.empty:
        raise ValueError("no blood among the observations")
    amount, unit = given.for_unit(str(blood["unit"].iloc[0]))
    if math.isnan(amount):
        raise ValueError("the results do not say what dose was given")
    organs = [str(o) for o in dict.fromkeys(rows["organ"]) if o and o not in BLOOD] if needs_organs(model) else []
    weights = [s["weight_g"] for s in results.study.get("subjects", []) if s.get("weight_g")]
    species = results.study.get("species")
    graph = build(model, organs, species=species if species in SPECIES else None,
                  weight_g=sum(weights) / len(weights) if weights else None)  # fmt: skip
    held = results.study["settings"]["kinetics"].get("fixed", {})
    values = {p.name: Fitted(held.get(p.name, p.fixed), words="held")
              for p in graph.parameters if held.get(p.name, p.fixed) is not None}  # fmt: skip
    values |= {r.parameter: Fitted(r.value, r.unit, f"{interval(r.value, r.ci_low, r.ci_high)} {r.unit}, standard error {r.se:.3g}")
               for r in rows_of(rows) if r.parameter in graph.names}  # fmt: skip
    hours = given.infusion_h if given.route == "iv_infusion" else 0.0
    return document(graph, values, Dose(amount, hours), f"{study}, {group}, {label}: {model}",
                    [f"Amounts are in {unit}; times in hours. Fitted by evbiodist to {int(rows['n'].max())} values."])  # fmt: skip


def _given(results: ResultFolder, group: str, label: str) -> Dosing:
    """Return what the animals of a group got."""
    for s in results.study.get("subjects", []):
        if (s["group"], s["label"]) == (group, label):
            return Dosing(s["dose"], s["dose_unit"], s["route"], s.get("infusion_h") or 0.0)
    for s in results.study.get("sources", []):
        if s["group"] == group and s["label"] in (label, None):
            return Dosing(s["dose"] or math.nan, s["dose_unit"] or "", s["route"])
    return Dosing(math.nan, "", "iv_bolus")
