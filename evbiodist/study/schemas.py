"""JSON Schemas of a study's files, from the models that read them, so that editors and other programs can check them too."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from pydantic import BaseModel

from evbiodist.study.model import Mass, Observation, ScanRecord, StudyFile, Subject
from evbiodist.study.problems import nearest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[str, type[BaseModel]] = {
    "study": StudyFile,
    "subjects": Subject,
    "scans": ScanRecord,
    "masses": Mass,
    "observations": Observation,
}
_TITLES = {"study": "study.toml of evbiodist", "subjects": "A row of subjects.csv", "scans": "A row of scans.csv",
           "masses": "A row of masses.csv", "observations": "A row of observations.csv"}  # fmt: skip


def schema(name: str) -> dict[str, Any]:
    """Return the published schema of study.toml (``study``), or of a row of one of its tables or of the results'.

    Raises
    ------
    ValueError : no such schema.

    Examples
    --------
    >>> schema("masses")["required"], schema("parameters")["properties"]["ci_low"]["type"]
    (['subject', 'organ', 'mass_g'], ['number', 'null'])
    """
    folder = files("evbiodist") / "data" / "schemas"
    known = {f.name.removesuffix(".schema.json"): f for f in folder.iterdir() if f.name.endswith(".schema.json")}
    if name not in known:
        raise ValueError(f"there is no schema '{name}'; {nearest(name, known)}")
    found: dict[str, Any] = json.loads(known[name].read_text(encoding="utf-8"))
    return found


def make_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of a study's own files by name; `scripts/write_schemas.py` adds those of the results."""
    made = {}
    for name, model in _MODELS.items():
        found = model.model_json_schema()
        if name == "study":
            _as_files_are_written(found)
        found["title"] = _TITLES[name]
        made[name] = headed(name, found)
    return made


def headed(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its dialect and identifier."""
    return {"$schema": _DIALECT, "$id": f"urn:evbiodist:schema:{name}", **found}


def _as_files_are_written(found: dict[str, Any]) -> None:
    """Allow what reading fills in: kinds of labels of the catalogue, and tables named by their file alone."""
    label = found["$defs"]["Label"]
    label["required"] = [key for key in label.get("required", []) if key != "kind"]
    tables = found["$defs"]["Tables"]["properties"]
    one = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/ObservationSource"}]}
    tables["observations"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": one}], "default": []}
    priors = label["properties"]["priors"]
    label["properties"]["priors"] = {
        "type": "object",
        "description": "see docs/labels.md",
        "default": priors.get("default", {}),
    }
    vesicles = found["$defs"]["Vesicles"]["properties"]
    for key, entry in vesicles.items():
        if entry.get("type") == "array":  # one word may stand for a list of one
            vesicles[key] = {"anyOf": [entry, {"type": "string"}], "description": entry.get("description", "")}


def for_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of CSV text as the values that its schema speaks of: numbers as numbers, nothing for empty cells.

    Examples
    --------
    >>> for_cells({"subject": "001", "mass_g": "1.5", "organ": ""})
    {'subject': '001', 'mass_g': 1.5}
    """
    numbers = {name for m in _MODELS.values() for name, f in m.model_fields.items() if "float" in str(f.annotation)}
    counts = {"n"}
    words = {"perfused", "below_lloq"}
    out: dict[str, Any] = {}
    for key, text in row.items():
        if text in ("", None):
            continue
        out[key] = (
            float(text)
            if key in numbers
            else int(text)
            if key in counts
            else text in ("yes", "true", "1")
            if key in words
            else text
        )
    return out
