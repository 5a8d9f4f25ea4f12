"""Values as BIDS-PET derivatives: a time-activity table for every animal and label, and who the animals are.

After BIDS 1.10 (PET) and what the draft of its PET derivatives (BEP 23) and PETPrep call time-activity curves:
``sub-<id>_trc-<label>_desc-<what>_tacs.tsv`` with the columns frame_start and frame_end in seconds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evbiodist.report.exports.columns import tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder
from evbiodist.study.identifiers import identifier
from evbiodist.study.tables import escape_cell
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

BIDS_VERSION = "1.10.0"
_FOLDER = "derivatives/evbiodist/"
#: Validators know only what BIDS has adopted.
_IGNORED = "*_tacs.tsv\n*_tacs.json\n"
_MEANS = ("pooled", "pooled_rest", "mean")
_SPECIES = {"mouse": "mus musculus", "rat": "rattus norvegicus"}
_SEX = {"F": "F", "M": "M"}
_UNITS = {"pct_id": "%ID", "pct_id_per_g": "%ID/g", "pct_recovered": "% recovered", "p_per_s": "photons/s", "bq": "Bq",
          "au": "arbitrary"}  # fmt: skip
#: What a dose is in kBq, and how much a millilitre of blood weighs (ICRP 89, g).
_KBQ = {"bq": 1e-3, "kbq": 1.0, "mbq": 1e3, "gbq": 1e6}
_BLOOD_G_PER_ML = 1.06


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return a derivative dataset below ``derivatives/evbiodist``, to be laid into a BIDS dataset.

    Parameters
    ----------
    results : of a run.
    options : none.
    """
    import pandas as pd

    seen = tables_of(results).get("observations", pd.DataFrame())
    told = {(s["subject"], s["label"]): s for s in results.study.get("subjects", [])}
    animals = {"participant": [_animal(str(r.subject), str(r.group)) for r in seen.itertuples()]} if len(seen) else {}
    seen = seen.assign(**animals)
    names = _labels(animals.get("participant", []))
    tracers = _labels(seen["label"]) if len(seen) else {}
    columns = _regions(seen)
    files: dict[str, bytes] = {
        "dataset_description.json": _json(_description(results)),
        "README": _readme(results).encode(),
        ".bidsignore": _IGNORED.encode(),
    }
    for (animal, label), here in seen.groupby(["participant", "label"], sort=True) if len(seen) else ():
        who = names[str(animal)]
        stem = f"sub-{who}/pet/sub-{who}_trc-{tracers[str(label)]}"
        for column, word in (("value", "mean"), ("se", "se")):
            if here[column].notna().any():
                files |= _tacs(f"{stem}_desc-{word}_tacs", here, column, columns)
        files |= _blood(results, stem, here, told.get((here["subject"].iloc[0], label), {}))
    files["participants.tsv"] = _tsv(_participants(results, seen, names, told), [*_WHO])
    files["participants.json"] = _json({k: {"Description": v} for k, v in _WHO.items() if k != "participant_id"})
    return Exported(
        {_FOLDER + name: content for name, content in files.items()}, tuple(_notes(seen, names, tracers, files))
    )


def _animal(subject: str, group: str) -> str:
    """Return who a value belongs to: the animal, or the group of a mean of several."""
    return f"{subject} {group}" if subject in _MEANS else subject


def _labels(words: Iterable[str]) -> dict[str, str]:
    """Return BIDS labels, which are letters and digits only; names that would fall together are numbered.

    Examples
    --------
    >>> _labels(["m_1", "m1", "-"])
    {'-': 'x', 'm1': 'm1', 'm_1': 'm1x2'}
    """
    made: dict[str, str] = {}
    taken: set[str] = set()
    for word in sorted(set(words)):
        plain = re.sub(r"[^A-Za-z0-9]", "", word) or "x"
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}x{number}"
        made[word] = name
        taken.add(name.lower())
    return made


def _regions(seen: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the column of every organ and unit: the organ, and its unit where it has several."""
    pairs = sorted(set(zip(seen["organ"], seen["unit"], strict=True))) if len(seen) else []
    organs = [*(organ for organ, _ in pairs), "frame_start", "frame_end"]
    return {
        (organ, unit): _text(organ if organs.count(organ) == 1 else f"{organ}_{unit}") or "region"
        for organ, unit in pairs
    }


def _tacs(stem: str, here: pd.DataFrame, column: str, columns: Mapping[tuple[str, str], str]) -> dict[str, bytes]:
    """Return a table with a row a time and a column a region, and what its columns are."""
    mine = {columns[key]: key for key in sorted(set(zip(here["organ"], here["unit"], strict=True)))}
    rows: dict[tuple[float, int], Row] = {}
    seen: dict[tuple[float, str], int] = {}
    for r in here.itertuples():
        name = columns[str(r.organ), str(r.unit)]
        time = float(r.time_h)  # type: ignore[arg-type]
        again = seen[time, name] = seen.get((time, name), -1) + 1
        row = rows.setdefault((time, again), {"frame_start": 3600 * time, "frame_end": 3600 * time})
        row[name] = getattr(r, column)
    what = "Value of the region" if column == "value" else "Standard error of the value, random part"
    sides: Row = {
        "frame_start": {
            "Description": "Time after the dose; values are of a moment, so start and end are one.",
            "Units": "s",
        },
        "frame_end": {"Description": "As frame_start.", "Units": "s"},
    }
    for name, (organ, unit) in mine.items():
        found = identifier("organ", organ)
        sides[name] = {"Description": f"{what}: {organ}; n/a where not measured or below its limit of quantification.",
                       "Units": _UNITS.get(unit, unit)} | ({"TermURL": found.source} if found else {})  # fmt: skip
    table = _tsv([rows[key] for key in sorted(rows)], ["frame_start", "frame_end", *mine])
    return {f"{stem}.tsv": table, f"{stem}.json": _json(sides)}


def _blood(results: ResultFolder, stem: str, here: pd.DataFrame, told: Mapping[str, Any]) -> dict[str, bytes]:
    """Return blood as BIDS has it, in kBq/mL, where the label is radioactive and the dose in becquerel; else nothing."""
    label = results.study.get("labels", {}).get(str(here["label"].iloc[0]), {})
    factor = _KBQ.get(str(told.get("dose_unit", "")).lower())
    blood = here[here["organ"].isin(BLOOD) & (here["unit"] == "pct_id_per_g") & here["value"].notna()]
    if label.get("kind") != "radioactive" or factor is None or not len(blood):
        return {}
    per_share = float(told["dose"]) * factor / 100 * _BLOOD_G_PER_ML
    rows: dict[float, Row] = {}
    for r in blood.sort_values("time_h", kind="stable").itertuples():
        time, kind = 3600 * float(r.time_h), "whole_blood" if r.organ == "blood" else "plasma"  # type: ignore[arg-type]
        rows.setdefault(time, {"time": time}).setdefault(f"{kind}_radioactivity", per_share * float(r.value))  # type: ignore[arg-type]
    has = {kind: any(f"{kind}_radioactivity" in row for row in rows.values()) for kind in ("whole_blood", "plasma")}
    columns = [f"{kind}_radioactivity" for kind, there in has.items() if there]
    said = f"{_BLOOD_G_PER_ML} g/mL was taken for the density; corrected for decay to the time of the dose."
    sides = {
        "PlasmaAvail": has["plasma"], "WholeBloodAvail": has["whole_blood"], "MetaboliteAvail": False,
        "DispersionCorrected": False, "time": {"Description": "Time after the dose.", "Units": "s"},
        **{c: {"Description": f"From % of the dose per g; {said}", "Units": "kBq/mL"} for c in columns},
    }  # fmt: skip
    name = f"{stem}_recording-manual_blood"
    return {f"{name}.tsv": _tsv(list(rows.values()), ["time", *columns]), f"{name}.json": _json(sides)}


_WHO = {
    "participant_id": "", "subject": "Name of the animal in the study, or `pooled` with its group for a mean of several.",
    "group": "Groups of animals it belongs to.", "labels": "Labels it got.", "species": "Binomial name where it is known.",
    "sex": "M or F.", "weight_g": "Body weight, g.",
}  # fmt: skip


def _participants(
    results: ResultFolder, seen: pd.DataFrame, names: Mapping[str, str], told: Mapping[tuple[str, str], Row]
) -> list[Row]:
    rows = []
    for animal, here in seen.groupby("participant", sort=True) if len(seen) else ():
        known = [told[key] for key in zip(here["subject"], here["label"], strict=True) if key in told]
        first = known[0] if known else {}
        species = str(first.get("species") or results.study.get("species") or "")
        rows.append({
            "participant_id": f"sub-{names[str(animal)]}", "subject": animal, "group": "; ".join(sorted(set(here["group"]))),
            "labels": "; ".join(sorted(set(here["label"]))), "species": _SPECIES.get(species.lower(), species),
            "sex": _SEX.get(str(first.get("sex"))), "weight_g": first.get("weight_g"),
        })  # fmt: skip
    return rows


def _description(results: ResultFolder) -> Row:
    return {
        "Name": str(results.study["name"]), "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "evbiodist", "Version": version("evbiodist"),
                         "Description": "Organ signals of labelled vesicles from images and organ tables."}],
    }  # fmt: skip


def _readme(results: ResultFolder) -> str:
    simulated = " The study is simulated, not measured." if results.study.get("simulated") else ""
    return (
        f"Organ signals of labelled vesicles: {_text(str(results.study['name']))}.{simulated}\n\n"
        "A table for every animal and label (entity trc): *_desc-mean_tacs.tsv holds values, *_desc-se_tacs.tsv their standard\n"
        "errors. Units stand in the sidecars: most are % of the injected dose, not Bq/mL. Values are of single moments (an organ\n"
        "taken, a camera image), so frame_start and frame_end are the same. participants.tsv maps BIDS labels to the study's names.\n"
        "Optical labels are laid out like PET tracers, for want of a BIDS type of their own.\n"
    )


def _tsv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """Return rows separated by tabs, n/a for what is missing."""
    lines = ["\t".join(_text(c) for c in columns)]
    lines += ["\t".join(_cell(row.get(c)) for c in columns) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _cell(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    return escape_cell(_text(value)) if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _text(word: str) -> str:
    """Return text on one line without tabs."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in word).split())


def _json(content: Row) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _notes(
    seen: pd.DataFrame, names: Mapping[str, str], tracers: Mapping[str, str], files: Mapping[str, bytes]
) -> list[str]:
    if not len(seen):
        return ["the results hold no values; the dataset has no participants"]
    notes = ["the layout of time-activity tables follows a draft (BEP 23), which BIDS has not adopted",
             "frame_start and frame_end are the same: a value is of a moment, or the study does not say how long it took"]  # fmt: skip
    if any(k != v for k, v in {**names, **tracers}.items()):
        notes.append("names were cut to letters and digits, which BIDS labels are; participants.tsv maps animals")
    notes += [f"label {word} is trc-{name}" for word, name in tracers.items() if word != name]
    below = int(seen["below_lloq"].fillna(False).sum())
    if below:
        notes.append(f"{below} values below their limit of quantification are n/a, like those that were not measured")
    if not any(name.endswith("_blood.tsv") for name in files):
        notes.append(
            "blood stands among the regions: *_blood.tsv takes kBq/mL, which needs a radioactive label and a dose in Bq"
        )
    return notes
