"""An RO-Crate with a Frictionless data package: the results with what they are, for archives and other programs."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evbiodist.report.exports import tables
from evbiodist.report.exports.columns import Column, described, tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder, provenance
from evbiodist.study.identifiers import EV_TRACK_PAGE, identifier

Entity = dict[str, Any]
_CRATE = "https://w3id.org/ro/crate/1.1"
#: What else of a result folder goes along, with its media type.
_ALONG = {"report.html": "text/html", "settings.toml": "application/toml", "study.json": "application/json",
          "provenance.json": "application/json", "journal.jsonl": "application/jsonl"}  # fmt: skip
_NO_LICENSE = "#no-license"


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return the crate's files: ``ro-crate-metadata.json``, ``datapackage.json``, a preview, tables, report and provenance.

    Parameters
    ----------
    results : of a run.
    options : ``license``: address of the licence the data are under.

    Notes
    -----
    Soiland-Reyes S et al., Data Sci 2022;5:97 (RO-Crate 1.1); Frictionless Data Package 1.0.
    """
    files: dict[str, bytes | Path] = {f"data/{k}": v for k, v in tables.export(results, {}).files.items()}
    files |= {name: results.path / name for name in _ALONG if (results.path / name).is_file()}
    about = provenance(results.path)
    package = _json(_package(results, about))
    files["datapackage.json"] = package
    licence = str(options.get("license", ""))
    metadata = _metadata(results, about, files, licence)
    files["ro-crate-metadata.json"] = _json(metadata)
    files["ro-crate-preview.html"] = _preview(results, sorted(files))
    notes = () if licence else ("no licence is stated: nobody may use the data until you say --set license=ADDRESS",)
    return Exported(files, notes)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _metadata(
    results: ResultFolder, about: Mapping[str, Any], files: Mapping[str, bytes | Path], licence: str
) -> Entity:
    study = results.study
    parts = [_file(name, content) for name, content in sorted(files.items())]
    inputs = [{"@id": f"#input-{i}", "@type": "CreativeWork", "name": name, "identifier": f"sha256:{digest}"}
              for i, (name, digest) in enumerate(sorted(about.get("inputs", {}).items()), 1)]  # fmt: skip
    measured = _measured(results)
    root: Entity = {
        "@id": "./", "@type": "Dataset", "name": str(study["name"]),
        "description": str(study.get("description") or "Biodistribution and pharmacokinetics of labelled extracellular vesicles."),
        "datePublished": str(about.get("ended", "1970-01-01"))[:10], "license": {"@id": licence or _NO_LICENSE},
        "keywords": ["extracellular vesicles", "biodistribution", "pharmacokinetics", *sorted(study.get("labels", {}))],
        "hasPart": [{"@id": p["@id"]} for p in parts], "variableMeasured": [{"@id": m["@id"]} for m in measured],
        "mentions": {"@id": "#run"},
    }  # fmt: skip
    track = study.get("vesicles", {}).get("ev_track")
    if track:
        root["citation"] = {"@id": EV_TRACK_PAGE.format(track)}
    run: Entity = {"@id": "#run", "@type": "CreateAction", "name": "evbiodist run", "instrument": {"@id": "#evbiodist"},
                   "object": [{"@id": i["@id"]} for i in inputs], "result": [{"@id": p["@id"]} for p in parts]}  # fmt: skip
    run |= {key: about[ours] for key, ours in (("startTime", "started"), ("endTime", "ended")) if ours in about}
    graph = [
        {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "conformsTo": {"@id": _CRATE}, "about": {"@id": "./"}},
        root, run,
        {"@id": "#evbiodist", "@type": "SoftwareApplication", "name": "evbiodist",
         "version": str(about.get("evbiodist", version("evbiodist"))), "softwareVersion": str(about.get("evbiodist", "")),
         "description": "From images of labelled extracellular vesicles to pharmacokinetic parameters that hold across labels."},
        _licence(licence), *([_ev_track(track)] if track else []), *inputs, *measured, *parts,
    ]  # fmt: skip
    return {"@context": f"{_CRATE}/context", "@graph": graph}


def _licence(address: str) -> Entity:
    said = (
        f"Licence of the data: {address}"
        if address
        else "The study states no licence; ask its authors before using the data."
    )
    return {
        "@id": address or _NO_LICENSE,
        "@type": "CreativeWork",
        "name": address or "No licence stated",
        "description": said,
    }


def _ev_track(track: str) -> Entity:
    return {"@id": EV_TRACK_PAGE.format(track), "@type": "CreativeWork", "name": f"EV-TRACK {track}"}


def _file(name: str, content: bytes | Path) -> Entity:
    data = _bytes(content)
    kind = "text/csv" if name.endswith(".csv") else _ALONG.get(name, "application/json")
    return {"@id": name, "@type": "File", "name": name, "encodingFormat": kind, "contentSize": str(len(data)),
            "sha256": hashlib.sha256(data).hexdigest(), "description": _what(name)}  # fmt: skip


def _what(name: str) -> str:
    said = {"report.html": "Report for people.", "settings.toml": "Settings that repeat the run.",
            "study.json": "The study, its design, and what it lacks.", "provenance.json": "Inputs by SHA-256, settings, versions.",
            "journal.jsonl": "Journal of the run, hash-chained.", "data/dictionary.csv": "What every column means.",
            "datapackage.json": "Frictionless data package: types, units and meaning of every column."}  # fmt: skip
    return said.get(name, f"Table of {name.removeprefix('data/').removesuffix('.csv').replace('_', ' ')}.")


def _measured(results: ResultFolder) -> list[Entity]:
    """Return each organ in each unit as a variable, with the names others have for both."""
    seen = results["observations"]
    pairs = sorted(set(zip(seen["organ"], seen["unit"], strict=True))) if len(seen) else []
    found = []
    for organ, unit in pairs:
        place, code = identifier("organ", organ), identifier("unit", unit)
        entity: Entity = {
            "@id": f"#{organ}-{unit}",
            "@type": "PropertyValue",
            "name": f"{organ}, {unit}",
            "unitText": unit,
        }
        entity |= {"propertyID": place.source} if place else {}
        found.append(entity | ({"unitCode": code.id} if code else {}))
    return found


def _package(results: ResultFolder, about: Mapping[str, Any]) -> Entity:
    """Return the Frictionless data package of the tables."""
    resources = []
    for name, table in tables_of(results).items():
        fields = [_field(described(name, column)) for column in table.columns]
        resources.append({"name": name, "path": f"data/{name}.csv", "profile": "tabular-data-resource",
                          "format": "csv", "mediatype": "text/csv", "encoding": "utf-8",
                          "schema": {"fields": fields, "missingValues": [""]}})  # fmt: skip
    return {"profile": "tabular-data-package", "name": "evbiodist-results", "title": str(results.study["name"]),
            "description": str(results.study.get("description", "")), "created": str(about.get("ended", "")),
            "version": str(about.get("evbiodist", "")), "resources": resources}  # fmt: skip


def _field(c: Column) -> Entity:
    field: Entity = {"name": c.name, "type": c.type, "description": c.meaning}
    if c.type == "boolean":
        field |= {"trueValues": ["yes"], "falseValues": ["no"]}
    return field | ({"unit": c.unit} if c.unit else {})


def _preview(results: ResultFolder, names: list[str]) -> bytes:
    """Return a page that names the files."""
    title = html.escape(str(results.study["name"]))
    items = "\n".join(
        f'<li><a href="{html.escape(n, quote=True)}">{html.escape(n)}</a>: {html.escape(_what(n))}</li>' for n in names
    )
    page = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n<body><h1>{title}</h1>\n'
            f"<p>{html.escape(str(results.study.get('description', '')))}</p>\n<ul>\n{items}\n</ul></body></html>\n")  # fmt: skip
    return page.encode()
