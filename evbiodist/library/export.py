"""A library handed on to machine learning: one tidy table, splits that never part a study, a data dictionary and a datasheet.

Splits follow from a hash of each study's name, so a study stays where it is when others are added.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from evbiodist.batch.store import csv_bytes, write_bytes
from evbiodist.library import database
from evbiodist.library.metadata import described, identity
from evbiodist.library.query import Filters, Found, select, shared_values, write
from evbiodist.library.store import Part

SPLIT_COLUMNS = ("split", "fold", "left_out_as")
"""Columns that the export adds to every row."""


@dataclass(frozen=True)
class Splits:
    """How studies are dealt out.

    Parameters
    ----------
    folds : of the cross-validation.
    test, validation : shares of studies that a hash should send there; with few studies the numbers differ from it.
    seed : another one deals studies out anew.

    Examples
    --------
    >>> dealt = Splits(folds=5)
    >>> dealt.of("Doe 2024") == dealt.of("doe 2024"), sorted(dealt.of("Doe 2024"))
    (True, ['fold', 'left_out_as', 'split'])
    """

    folds: int = 5
    test: float = 0.2
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds: found {self.folds}, expected 2 or more; correct it.")
        if min(self.test, self.validation) < 0 or self.test + self.validation >= 1:
            raise ValueError(f"test and validation: found {self.test} and {self.validation}, expected shares of less than 1 "
                             "together; correct them.")  # fmt: skip

    def of(self, study: str) -> dict[str, Any]:
        """Return where a study goes: its split, its fold, and what it is called when it is left out alone."""
        name = identity(study)
        share = self._hash("split", name) / 2**64
        split = "test" if share < self.test else "validation" if share < self.test + self.validation else "train"
        return {"split": split, "fold": self._hash("fold", name) % self.folds, "left_out_as": _digest(name)[:12]}

    def _hash(self, use: str, name: str) -> int:
        return int(_digest(f"{use}:{self.seed}:{name}")[:16], 16)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Exported:
    """What was written: the files, how many rows and studies, and sentences to heed."""

    files: tuple[Path, ...]
    rows: int
    studies: int
    notes: tuple[str, ...]


def export(
    parts: Sequence[Part], out: str | Path, filters: Filters | None = None, splits: Splits | None = None
) -> Exported:
    """Write a library's observations for machine learning.

    `observations.parquet` and `observations.csv` hold one row a value with what is known of its study and the columns
    `SPLIT_COLUMNS`; `studies.csv` where each study went; `data_dictionary.csv` every column; `DATASHEET.md` what it is.

    Parameters
    ----------
    parts : of the library, mostly `contents(library).current`.
    out : a new or empty folder, or one of an earlier export.
    filters : which rows; splits : how studies are dealt out.

    Raises
    ------
    ValueError : nothing to export, or a folder with other files.
    NoRoomError : the disk is full or cannot be written.
    """
    splits, out = splits or Splits(), Path(out)
    _refuse_foreign(out)
    found = select(parts, filters or Filters())
    if not found.rows:
        raise ValueError("no row of the library is left to export; leave one of the options out")
    study = found.columns.index("study")
    dealt = {name: splits.of(name) for name in sorted({row[study] for row in found.rows})}
    tidy = Found((*SPLIT_COLUMNS, *found.columns),
                 [(*(dealt[row[study]][c] for c in SPLIT_COLUMNS), *row) for row in found.rows])  # fmt: skip
    notes = _notes(parts, tidy, dealt, splits)
    made = [_table(tidy, out / "observations.parquet"), _table(tidy, out / "observations.csv")]
    made.append(_save(out / "studies.csv", _studies(tidy, dealt)))
    made.append(_save(out / "data_dictionary.csv", dictionary()))
    path = out / "DATASHEET.md"
    write_bytes(path, _datasheet(tidy, dealt, splits, notes).encode())
    return Exported((*made, path), len(tidy.rows), len(dealt), tuple(notes))


def _schema() -> dict[str, str]:
    added = dict(zip(SPLIT_COLUMNS, ("VARCHAR", "BIGINT", "VARCHAR"), strict=True))
    return {**added, **database.OBSERVATIONS, **{c: database.STUDIES[c] for c in database.joined("observations")}}


_FILES = ("observations.parquet", "observations.csv", "studies.csv", "data_dictionary.csv", "DATASHEET.md")


def _refuse_foreign(out: Path) -> None:
    there = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.is_dir() else []
    if set(there) - set(_FILES):
        raise ValueError(f"--out '{out.name}' holds other files ({', '.join(there[:3])}); choose a new or empty folder")


def _table(found: Found, path: Path) -> Path:
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".part-{path.name}")
        with database.connect() as con:
            database.write_parquet(con, made, found.records(), _schema())
        made.replace(path)
    else:
        write(found, path)
    return path


def _save(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    write_bytes(path, csv_bytes(rows, list(rows[0])))
    return path


def _studies(tidy: Found, dealt: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = tidy.records()
    counts = Counter(row["study"] for row in rows)
    animals: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        animals.setdefault(row["study"], set()).add((row["group"], row["subject"]))
    return [
        {"study": name, **where, "rows": counts[name], "subjects": len(animals[name])} for name, where in dealt.items()
    ]


_SAID = {
    "split": "train, validation or test; all rows of a study lie in one",
    "fold": "fold of the cross-validation, from 0; all rows of a study lie in one",
    "left_out_as": "the study as a group for leave-one-study-out",
    "entry": "name under which the study was added; one entry may hold the tables of several studies",
    "study": "the study; rows of one study share animals, vesicles and methods",
    "subject": "the animal, or 'pooled' for a mean over animals",
    "group": "arm of the study",
    "label": "label by the study's own word",
    "organ": "organ or sample, lower snake case",
    "time_h": "time after the dose, h",
    "value": "the measured value, corrected for decay; empty where below lloq",
    "se": "standard error of the value, as the study gives it",
    "unit": "pct_id (% of dose), pct_id_per_g, pct_recovered, p_per_s, bq, particles or au",
    "mass_g": "mass of the organ or sample, g",
    "lloq": "lower limit of quantification, in the unit",
    "below_lloq": "the value is below that limit",
    "flags": "quality flags, joined by ;",
    "source": "scan or table that the value comes from",
    "se_systematic": "error of calibration or outline, shared by all animals of a study",
    "sd": "standard deviation between the animals of a mean",
    "n": "animals of a mean; empty for single animals",
    "vessel_blood": "blood in the organ's vessels that was subtracted, in the unit",
    "label_kind": "fluorescence, bioluminescence, radioactive, mri or molecular",
    "label_name": "label by the catalogue's name, where it has one",
    "isotope": "isotope of a radioactive label",
    "control": "what the arm got where it did not get labelled vesicles",
    "route": "route of the dose",
    "dose": "dose of the animal",
    "dose_unit": "unit of the dose",
    "perfused": "blood was washed out of the vessels before sampling",
    "species": "species of the animal",
    "sex": "F, M, or both for a group",
    "weight_g": "body weight, g",
    "version": "version of the entry in the library",
    "simulated": "the data were simulated",
    "interval_level": "level of the study's intervals",
}


def dictionary() -> list[dict[str, str]]:
    """Return every column of the export: its type, what it is and what it is compared with.

    Examples
    --------
    >>> [row["what"] for row in dictionary() if row["column"] == "zeta_mv"]
    ['zeta potential, mV']
    """
    told = {key.removeprefix("vesicles."): said for key, said in described().items()}
    words = {"VARCHAR": "text", "DOUBLE": "number", "BIGINT": "whole number", "BOOLEAN": "yes or no"}
    return [{"column": column, "type": words[kind], "what": _SAID.get(column) or told[column][0],
             "compared_with": told.get(column, ("", ""))[1]} for column, kind in _schema().items()]  # fmt: skip


def _notes(parts: Sequence[Part], tidy: Found, dealt: Mapping[str, Mapping[str, Any]], splits: Splits) -> list[str]:
    notes = []
    empty = [s for s, share in (("train", 1 - splits.test - splits.validation), ("validation", splits.validation),
                                ("test", splits.test))
             if share > 0 and not any(where["split"] == s for where in dealt.values())]  # fmt: skip
    if empty:
        notes.append(f"no study fell to {' and '.join(empty)}: {len(dealt)} studies are few for a split by hash; use fold or "
                     "left_out_as")  # fmt: skip
    filled = {where["fold"] for where in dealt.values()}
    if len(filled) < splits.folds:
        notes.append(f"only {len(filled)} of {splits.folds} folds hold a study; ask for fewer with --folds")
    simulated, column = tidy.columns.index("simulated"), tidy.columns.index("study")
    made_up = sorted({row[column] for row in tidy.rows if row[simulated]})
    if made_up:
        notes.append(f"simulated, not measured: {', '.join(made_up)}")
    for one, other, count in shared_values(parts):
        if one in dealt and other in dealt:
            apart = "" if dealt[one]["fold"] == dealt[other]["fold"] else " and lie in different folds"
            notes.append(
                f"{count} values of '{one}' and '{other}' are the same{apart}: if they are the same animals, keep one"
            )
    return notes


def _datasheet(tidy: Found, dealt: Mapping[str, Mapping[str, Any]], splits: Splits, notes: Iterable[str]) -> str:
    rows = tidy.records()
    parted = Counter(where["split"] for where in dealt.values())
    lines = [
        "# Datasheet", "",
        f"Written by evbiodist {installed('evbiodist')}: {len(rows)} values of {len(dealt)} studies.", "",
        "## What it is", "",
        "Values of labelled vesicles, or of what was injected in their place, in organs of animals over time. A row is one "
        "value of one organ at one time, of one animal or the mean of several. data_dictionary.csv explains every column.", "",
        "## Splits", "",
        f"A hash of the study's name (seed {splits.seed}) decides, so all rows of a study lie in one split and one fold, and a "
        "study stays there when others are added.", "",
        *(f"- {name}: {parted[name]} studies" for name in ("train", "validation", "test")),
        f"- {splits.folds} folds in `fold`; leave-one-study-out by `left_out_as`",
        "- animals of one study share vesicles, label and method: never split by rows", "",
        "## What to mind", "",
        "- values in different units are not comparable; instrument units (p_per_s, au) not even between studies",
        "- means of n animals and single animals stand in the same table: `n` tells them apart",
        "- rows with `control` got no labelled vesicles",
        "- an empty cell was not told by the study; nothing was filled in",
        *(f"- {_md(note)}" for note in notes), "",
        "## Studies", "",
        "| study | split | fold | licence | DOI | species | told of the vesicles |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    told = [c for c in database.joined("observations") if c not in ("version", "simulated", "interval_level")]
    first = {row["study"]: row for row in reversed(rows)}
    for name, where in dealt.items():
        row = first[name]
        known = sum(row[c] is not None for c in told)
        cells = (name, where["split"], where["fold"], row["license"] or "not told", row["doi"] or "not told",
                 row["species"] or "not told", f"{known} of {len(told)} fields")  # fmt: skip
        lines.append("| " + " | ".join(_md(str(cell)) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Return text that Markdown and HTML show as it stands."""
    for sign in "\\`*_[]|<>":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())
