"""Values for machine learning: one row a value with all that is known of it, and splits that never part an animal.

Animals are dealt out by a hash of their names within each group and label, so folds are even and follow from the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evbiodist.batch.store import csv_bytes
from evbiodist.report.exports.columns import Column, described, tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder
from evbiodist.study.identifiers import identifier
from evbiodist.study.problems import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

#: Names that stand for several animals of a group.
_POOLED = ("pooled", "pooled_rest", "mean")
_SEEN = ("time_h", "value", "se", "unit", "se_systematic", "sd", "n", "mass_g", "lloq", "below_lloq", "vessel_blood", "flags",
         "source")  # fmt: skip
_TOLD = ("species", "sex", "weight_g", "dose", "dose_unit", "route", "infusion_h", "perfused", "batch")
_OF_LABEL = {"kind": "kind of the label", "isotope": "isotope of a radioactive label",
             "excitation_nm": "wavelength that excites it, nm", "emission_nm": "wavelength of its light, nm"}  # fmt: skip
_SPLITS = ("scheme", "fold", "animal", "label", "part")
#: Columns of this form alone, as type and meaning.
_OWN = {
    "simulated": ("boolean", "Whether the study was simulated, not measured."),
    "animal": ("string", "What no split parts: the animal, or the group of a mean of several."),
    "organ_id": ("string", "The organ in UBERON; empty where no identifier is sure."),
    "fold": ("integer", "Fold of the cross-validation over animals, from 0."),
    "replicate": ("integer", "Tells apart values of one animal, label, organ, unit and time, from 0."),
}


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return the values, the splits, a dictionary of the columns and a datasheet.

    Parameters
    ----------
    results : of a run.
    options : ``layout`` long (a row a value) or wide (a row an animal, label and time; organs are columns), ``folds``.

    Raises
    ------
    InputError : an option that is not one of these.
    """
    layout, folds = _layout(options), _folds(options)
    rows = list(_rows(results))
    where = deal(sorted({(r["animal"], r["group"], r["label"]) for r in rows}), folds)
    for row in rows:
        row["fold"] = where[row["animal"]]
    columns = _columns(results)
    splits = list(_splits(rows, folds))
    names = list(columns)
    if layout == "wide":
        rows, columns = _wide(rows, columns)
        names = list(columns)
    notes = _notes(results, where, folds)
    dictionary = [{"column": c.name, "type": c.type, "unit": c.unit, "meaning": c.meaning} for c in columns.values()]
    sheet = _datasheet(results, rows, where, layout, folds, notes)
    return Exported(
        {"values.csv": csv_bytes(rows, names), "splits.csv": csv_bytes(splits, _SPLITS),
         "dictionary.csv": csv_bytes(dictionary, ("column", "type", "unit", "meaning")), "datasheet.md": sheet.encode()},
        tuple(notes),
    )  # fmt: skip


def _layout(options: Mapping[str, Any]) -> str:
    layout = str(options.get("layout", "long"))
    if layout not in ("long", "wide"):
        raise InputError([Problem("--set", f"layout={layout}", "layout=long or layout=wide", "write one of them")])
    return layout


def _folds(options: Mapping[str, Any]) -> int:
    text = str(options.get("folds", "5"))
    if not text.isdecimal() or not 2 <= int(text) <= 100:
        raise InputError([Problem("--set", f"folds={text}", "a whole number from 2 to 100", "write folds=5")])
    return int(text)


def deal(animals: Sequence[tuple[str, str, str]], folds: int) -> dict[str, int]:
    """Return the fold of every animal: within each group and label the folds are as even as can be.

    Parameters
    ----------
    animals : (animal, group, label), each once; an animal goes where its first group and label send it.
    folds : how many.

    Examples
    --------
    >>> sorted(deal([("a", "g", "DiR"), ("b", "g", "DiR"), ("c", "g", "DiR")], 3).values())
    [0, 1, 2]
    """
    where: dict[str, int] = {}
    counts: dict[tuple[str, str], list[int]] = {}
    total = [0] * folds
    for animal, group, label in sorted(animals, key=lambda a: (a[1:], hashlib.sha256(a[0].encode()).hexdigest(), a[0])):
        here = counts.setdefault((group, label), [0] * folds)
        if animal not in where:
            where[animal] = min(range(folds), key=lambda f: (here[f], total[f], f))
            total[where[animal]] += 1
        here[where[animal]] += 1
    return where


def _rows(results: ResultFolder) -> Iterator[Row]:
    """Yield every value with what the study says of it; what it does not say is missing."""
    study = results.study
    told = {(s["subject"], s["label"]): s for s in study.get("subjects", [])}
    vesicles = _vesicles(study)
    for r in _records(tables_of(results).get("observations")):
        animal = f"{r['subject']} of {r['group']}" if r["subject"] in _POOLED else r["subject"]
        known = told.get((r["subject"], r["label"]), {})
        label = study.get("labels", {}).get(r["label"], {})
        organ = identifier("organ", r["organ"])
        yield {
            **{c: r.get(c) for c in ("study", "subject", "group", "label", "organ", *_SEEN)},
            "simulated": bool(study.get("simulated")), "animal": animal,
            "organ_id": organ.id if organ else None,
            **{f"label_{c}": label.get(c) for c in _OF_LABEL},
            **{c: known.get(c) for c in _TOLD}, "species": known.get("species") or study.get("species"),
            **vesicles,
        }  # fmt: skip


def _records(table: pd.DataFrame | None) -> list[Row]:
    """Return the rows of a table with None for what is missing."""
    if table is None:
        return []
    return [{str(k): None if v != v or v is None else v for k, v in row.items()}
            for row in table.astype(object).where(table.notna(), None).to_dict("records")]  # fmt: skip


def _vesicles(study: Mapping[str, Any]) -> Row:
    """Return what is told of the vesicles, a list as text."""
    told = study.get("vesicles") or {}
    return {f"vesicles_{key}": "; ".join(map(str, v)) if isinstance(v, list) else v
            for key, v in sorted(told.items()) if not isinstance(v, dict)}  # fmt: skip


def _columns(results: ResultFolder) -> dict[str, Column]:
    """Return the columns of the long table in order."""
    seen = [described("observations", c) for c in ("study", "subject", "group", "label", "organ")]
    label = [Column(f"label_{c}", "number" if c.endswith("_nm") else "string", "nm" if c.endswith("_nm") else "", f"The {said}.")
             for c, said in _OF_LABEL.items()]  # fmt: skip
    vesicles = [Column(name, "number" if isinstance(value, int | float) else "string", "", "As the study says of its vesicles.")
                for name, value in _vesicles(results.study).items()]  # fmt: skip
    made = [seen[0], _own("simulated"), _own("animal"), *seen[1:], _own("organ_id"),
            *(described("observations", c) for c in _SEEN), *label, *(described("subjects", c) for c in _TOLD), *vesicles,
            _own("fold")]  # fmt: skip
    return {c.name: c for c in made}


def _splits(rows: Sequence[Row], folds: int) -> Iterator[Row]:
    """Yield who is trained on and tested on: animals by fold, and each label left out.

    An animal that carries the left-out label and others is tested on the one and unused for the others.
    """
    carries: dict[str, set[str]] = {}
    for row in rows:
        carries.setdefault(row["animal"], set()).add(row["label"])
    fold_of = {row["animal"]: row["fold"] for row in rows}
    for fold in range(folds):
        for animal, labels in sorted(carries.items()):
            for label in sorted(labels):
                yield {"scheme": "animals", "fold": str(fold), "animal": animal, "label": label,
                       "part": "test" if fold_of[animal] == fold else "train"}  # fmt: skip
    for left_out in sorted({label for labels in carries.values() for label in labels}):
        for animal, labels in sorted(carries.items()):
            for label in sorted(labels):
                part = "test" if label == left_out else "unused" if left_out in labels else "train"
                yield {"scheme": "labels", "fold": left_out, "animal": animal, "label": label, "part": part}


def _wide(rows: Sequence[Row], columns: Mapping[str, Column]) -> tuple[list[Row], dict[str, Column]]:
    """Return a row an animal, label, time and replicate, with a column for each organ and unit."""
    of_value = {"organ", "organ_id", *_SEEN} - {"time_h"}
    kept = {name: c for name, c in columns.items() if name not in of_value}
    made: dict[tuple[Any, ...], Row] = {}
    organs: dict[str, Column] = {}
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        place = (row["animal"], row["subject"], row["group"], row["label"], row["time_h"])
        name = f"{row['organ']}__{row['unit']}"
        replicate = seen.get((*place, name), 0)
        seen[*place, name] = replicate + 1
        line = made.setdefault((*place, replicate), {**{c: row[c] for c in kept}, "replicate": replicate})
        line[name] = row["value"]
        organs[name] = Column(
            name, "number", row["unit"], f"Value of {row['organ']}; empty where none or below its limit."
        )
    kept["replicate"] = _own("replicate")
    order = sorted(made, key=lambda k: (k[3], k[2], k[4] if k[4] is not None else -1.0, k[0], k[5]))
    return [made[k] for k in order], {**kept, **dict(sorted(organs.items()))}


def _own(name: str) -> Column:
    kind, meaning = _OWN[name]
    return Column(name, kind, "", meaning)  # type: ignore[arg-type]


def _notes(results: ResultFolder, where: Mapping[str, int], folds: int) -> list[str]:
    notes = []
    if not where:
        notes.append("the results hold no values; the tables have columns and no rows")
    elif len(where) == 1:
        notes.append("one animal, or the mean of one group, cannot be split")
    elif len(where) < folds:
        notes.append(f"only {len(where)} of {folds} folds hold an animal; ask for fewer with --set folds={len(where)}")
    if results.study.get("simulated"):
        notes.append("the study is simulated, not measured")
    if not results.study.get("subjects"):
        notes.append("dose, route, sex and weight are empty: the results list no animals (means have none; older results must be "
                     "run again)")  # fmt: skip
    return notes


def _datasheet(results: ResultFolder, rows: Sequence[Row], where: Mapping[str, int], layout: str, folds: int,
               notes: Sequence[str]) -> str:  # fmt: skip
    """Return what the set is, how it was split and what to mind, for people."""
    study = results.study
    unit = "value" if layout == "long" else "animal, label and time; each organ and unit is a column"
    labels = sorted({str(r["label"]) for r in rows})
    lines = [
        "# Datasheet", "", "## What it is", "",
        f"- study: {_md(str(study['name']))}" + (f", {_md(str(study['description']))}" if study.get("description") else ""),
        f"- source: {_md(str(study.get('source') or 'not told'))}",
        f"- {len(rows)} rows, one for each {unit}",
        f"- {len(where)} animals (a mean of several counts once), labels: {_md(', '.join(labels)) or 'none'}",
        "- signals of labels in organs, corrected as settings.toml of the results says; not the vesicles themselves",
        "", "## Splits", "",
        f"- `fold`: {folds} folds over animals, even within each group and label; an animal lies in one fold with all its values",
        "- `splits.csv`, scheme `animals`: the same folds, as train and test",
        "- `splits.csv`, scheme `labels`: each label left out; an animal with that label and others is unused for the others",
        "- animals of one study share vesicles, dose standard and instrument: a split within it says nothing about other studies",
        "", "## What to mind", "",
        "- an empty cell was not told or not measured; nothing was filled in",
        "- a value below its limit of quantification is empty"
        + (" and `below_lloq` is yes" if layout == "long" else " like one that was not measured (layout=long tells them apart)")
        + ": it is not zero and not missing at random",
        "- values in different units are not comparable; p_per_s and au not even between studies",
        "- `se` is the random error of a value, `se_systematic` is shared by all values of a source",
        *(f"- {_md(note)}" for note in notes),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Return text that Markdown and HTML show as it stands, on one line."""
    for sign in "\\`*_[]|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
