"""Ex vivo values as the table that XNAT's preclinical imaging plugin (PIXI) takes as a biodistribution.

Columns are those of the plugin's own template. It splits lines at every comma and knows no quotes, keeps one
biodistribution an animal and one value a sample type, and refuses a row without dates, tracer, group or %ID/g.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from evbiodist.batch.store import csv_bytes
from evbiodist.report.exports.columns import tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder
from evbiodist.report.rows import records
from evbiodist.study.problems import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

#: The template's columns in its order, one of them misspelt there.
COLUMNS = (
    "subject_id", "sample_type", "sample_weight", "sample_weight_unit", "measurement_datetime", "%_id_g", "%_id_organ",
    "decay_corrected_cpm", "timepoint_value", "timepoint_unit", "experiment_datetime", "note", "acqusition_site",
    "animal_weight", "animal_weight_unit", "animal_sacrifice_datetime", "technician", "tracer", "isotope", "diluent",
    "injected_dose", "injected_dose_unit", "injection_volume", "injection_volume_unit", "injection_total_counts",
    "injection_route", "injection_site", "injection_datetime", "anesthesia", "anesthesia_route", "subject_group",
)  # fmt: skip
#: How XNAT reads dates unless its site says otherwise, and the other way that is common.
_DATES = {"iso": "%Y-%m-%d %H:%M:%S", "us": "%m/%d/%Y %H:%M:%S"}
_MEANS = ("pooled", "pooled_rest", "mean")


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return a table for each label with the last values of every animal, and which name became which.

    Parameters
    ----------
    results : of a run.
    options : ``injected``, date and time of the injections (2026-03-01T09:00), which no result holds and PIXI demands;
        ``dates``, iso or us, as the XNAT site writes dates.

    Raises
    ------
    InputError : an option that cannot be read.
    """
    import pandas as pd

    injected, pattern = _injected(options), _pattern(options)
    seen = tables_of(results).get("observations", pd.DataFrame())
    told = {(s["subject"], s["label"]): s for s in results.study.get("subjects", [])}
    single = seen[~seen["subject"].isin(_MEANS)] if len(seen) else seen
    names = _names(single["subject"].unique()) if len(single) else {}
    notes = ["the injections have no date in the results: PIXI refuses rows without injection_datetime and "
             "experiment_datetime; add --set injected=2026-03-01T09:00"] if injected is None else []  # fmt: skip
    notes += (
        [f"{n} means of several animals were left out: a biodistribution is of one animal"]
        if (n := len(seen) - len(single))
        else []
    )
    files: dict[str, bytes] = {}
    samples: set[str] = set()
    for label, here in single.groupby("label", sort=True) if len(single) else ():
        rows, left_out = _last(here)
        notes += [f"{label}: {sentence}" for sentence in left_out]
        made = [
            _row(results, r, names[r["subject"]], told.get((r["subject"], r["label"]), {}), injected, pattern)
            for r in rows
        ]
        if made:
            files[f"biodistribution_{_safe(str(label), files)}.csv"] = csv_bytes(made, COLUMNS)
            samples |= {str(row["sample_type"]) for row in made}
    files["subjects.csv"] = csv_bytes(
        [{"subject_id": v, "subject": k} for k, v in names.items()], ("subject_id", "subject")
    )
    return Exported(files, (*notes, *_remarks(single, files, names, samples)))


def _injected(options: Mapping[str, Any]) -> datetime | None:
    text = options.get("injected")
    if text is None:
        return None
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        raise InputError(
            [Problem("--set", f"injected={text}", "a date and time such as 2026-03-01T09:00", "write it so")]
        ) from None


def _pattern(options: Mapping[str, Any]) -> str:
    dates = str(options.get("dates", "iso"))
    if dates not in _DATES:
        raise InputError(
            [Problem("--set", f"dates={dates}", "dates=iso (2026-03-01) or dates=us (03/01/2026)", "write one of them")]
        )
    return _DATES[dates]


def _names(subjects: Iterable[str]) -> dict[str, str]:
    """Return what XNAT takes as a subject's label: letters, digits, `_` and `-`, none twice.

    Examples
    --------
    >>> _names(["m,1", "m.1", "m2"])
    {'m,1': 'm_1', 'm.1': 'm_1_2', 'm2': 'm2'}
    """
    made: dict[str, str] = {}
    taken: set[str] = set()
    for subject in sorted(subjects):
        made[subject] = _free(re.sub(r"[^A-Za-z0-9_-]", "_", subject).strip("_-") or "subject", taken)
        taken.add(made[subject].lower())
    return made


def _free(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken, whatever the case of its letters."""
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _safe(label: str, files: Iterable[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", label).strip("_") or "label"
    return _free(name, {f.removeprefix("biodistribution_").removesuffix(".csv").lower() for f in files})


def _last(table: pd.DataFrame) -> tuple[list[Row], list[str]]:
    """Return one row an animal and organ, of the animal's last time, with %ID/g; and what had to stay behind."""
    last = table[table["time_h"] == table.groupby("subject")["time_h"].transform("max")]
    places: dict[tuple[str, str], list[Row]] = {}
    for r in records(last.sort_values(["subject", "organ"], kind="stable")):
        places.setdefault((r["subject"], r["organ"]), []).append(r)
    rows: list[Row] = []
    without, below, other, twice = 0, 0, 0, 0
    for here in places.values():
        shares = [r for r in here if r["unit"] in ("pct_id", "pct_id_per_g")]
        found = {r["unit"]: r for r in reversed(shares) if not math.isnan(r["value"])}
        other += len(here) - len(shares)
        twice += sum(not math.isnan(r["value"]) for r in shares) - len(found)
        made = _sample(found)
        rows += [made] if made else []
        below += bool(shares and not found)
        without += bool(found and not made)
    said = {"values before an animal's last time were left out: PIXI keeps one value an animal and sample": len(table) - len(last),
            "organs were left out: no mass to get %ID/g from, which PIXI demands": without,
            "organs were left out: below the limit of quantification, which PIXI has no column for": below,
            "values in other units than % of the dose were left out": other,
            "values were left out: a second one of the same animal, organ and time": twice}  # fmt: skip
    return rows, [f"{n} {what}" for what, n in said.items() if n]


def _sample(found: Mapping[str, Row]) -> Row | None:
    """Return a sample with its %ID/g, measured or from its mass; nothing where it has neither."""
    first = found.get("pct_id_per_g") or found.get("pct_id")
    if first is None:
        return None
    mass = first["mass_g"] if first["mass_g"] > 0 else None
    whole = found["pct_id"]["value"] if "pct_id" in found else None
    per_g = found["pct_id_per_g"]["value"] if "pct_id_per_g" in found else whole / mass if mass else None
    return None if per_g is None else {**first, "per_g": per_g, "whole": whole, "mass_g": mass}


def _row(
    results: ResultFolder, r: Row, name: str, told: Mapping[str, Any], injected: datetime | None, pattern: str
) -> Row:
    """Return a row of the template; what is not known stays empty."""
    start = injected.strftime(pattern) if injected else None
    end = (injected + timedelta(hours=r["time_h"])).strftime(pattern) if injected else None
    label = results.study.get("labels", {}).get(r["label"], {})
    text = {"sample_type": r["organ"], "tracer": r["label"], "isotope": label.get("isotope"), "subject_group": r["group"],
            "injection_route": told.get("route"), "injected_dose_unit": told.get("dose_unit"),
            "note": f"study {results.study['name']}"}  # fmt: skip
    return {
        "subject_id": name, **{key: _plain(value) for key, value in text.items()},
        "%_id_g": r["per_g"], "%_id_organ": r["whole"],
        "sample_weight": r["mass_g"], "sample_weight_unit": "g" if r["mass_g"] else None,
        "timepoint_value": r["time_h"], "timepoint_unit": "hours",
        "animal_weight": told.get("weight_g"), "animal_weight_unit": "g" if told.get("weight_g") else None,
        "injected_dose": told.get("dose"), "injection_datetime": start, "experiment_datetime": end,
        "animal_sacrifice_datetime": None,
    }  # fmt: skip


def _plain(text: str | None) -> str | None:
    """Return text without what the plugin would split at."""
    return None if text is None else " ".join(re.sub(r"[,\"\r\n]", " ", text).split())


def _remarks(
    single: pd.DataFrame, files: Mapping[str, bytes], names: Mapping[str, str], samples: Iterable[str]
) -> Sequence[str]:
    said = []
    if len(files) == 1:
        said.append("no value of a single animal in % of the dose: there is nothing for PIXI to take")
    labels = single.groupby("subject")["label"].nunique() if len(single) else ()
    several = sum(n > 1 for n in labels)
    if several:
        said.append(f"{several} animals carry several labels: PIXI keeps one biodistribution an animal, so upload their labels' "
                    "tables to projects of their own")  # fmt: skip
    if any(k != v for k, v in names.items()):
        said.append("subjects were renamed to letters, digits, _ and -, which XNAT takes; subjects.csv says which")
    if samples:
        said.append(f"the project must accept these sample types (its PIXI settings): {', '.join(sorted(samples))}")
    return said
