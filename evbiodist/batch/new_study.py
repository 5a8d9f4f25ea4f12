"""A new study from a folder of images or a table: study.toml with every key explained, tables filled as far as files tell.

What a file does not say is left blank, and `evbiodist check` names every blank with its row; nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from evbiodist.batch.store import csv_bytes, write_bytes
from evbiodist.io.organ_tables import read_organ_table
from evbiodist.io.registry import read, reader_for
from evbiodist.io.scan import Scan
from evbiodist.study.labels import catalogue
from evbiodist.study.model import Label, Mass, ObservationSource, ScanRecord, Settings, Subject
from evbiodist.study.problems import InputError, Problem, UnreadableImage
from evbiodist.study.vesicles import Vesicles, fields_of
from evbiodist.study.vocabulary import ROUTES

#: Files up to which each is opened for what its header says; more of them are listed by their names.
MOST_OPENED = 200
_TABLES = {".csv", ".tsv", ".txt", ".voistat"}
#: Rows and model of every table that is written.
_Tables = dict[str, tuple[Iterable[dict[str, Any]], type[BaseModel]]]
_NOT_IMAGES = {".md", ".pdf", ".html", ".toml", ".json", ".docx", ".xlsx", ".log", ".py", ".zip", ".gz", ".lock"}


@dataclass(frozen=True)
class NewStudy:
    """What was written, and what a person has to fill in."""

    folder: Path
    files: tuple[Path, ...]
    scans: int
    notes: tuple[str, ...]


def new_study(folder: str | Path, source: str | Path | None = None, *, name: str = "") -> NewStudy:
    """Write study.toml and its tables into a folder.

    Parameters
    ----------
    folder : of the study; images that lie in it are listed in scans.csv.
    source : an organ table to start from, which is copied into the folder; or a folder of images inside it.
    name : of the study; the folder's name when empty.

    Raises
    ------
    InputError : the folder holds a study already, or the images lie outside of it.
    """
    folder = Path(folder)
    there = [n for n in ("study.toml", "subjects.csv", "scans.csv", "masses.csv") if (folder / n).exists()]
    if there:
        raise InputError([Problem(n, "a file of that name", "a folder without a study", "choose another folder, or move the file away")
                          for n in there])  # fmt: skip
    start = Path(source) if source is not None else folder
    if source is not None and not start.exists():
        raise InputError(
            [Problem(start.name, "no such file or folder", "a folder of images or an organ table", "correct the path")]
        )
    title = name or folder.resolve().name
    if start.is_file():
        return _from_table(folder, start, title)
    if source is not None and not start.resolve().is_relative_to(folder.resolve()):
        raise InputError([Problem(start.name, "images outside of the study's folder", "images inside of it",
                                  f"copy them into '{folder.name}', or make the study in the folder of the images")])  # fmt: skip
    return _from_images(folder, start if start.is_dir() else folder, title)


def _from_images(folder: Path, start: Path, title: str) -> NewStudy:
    rows, notes, labels = [], [], dict[str, dict[str, Any]]()
    found = list(_images(start)) if start.is_dir() else []
    taken: set[str] = set()
    for i, path in enumerate(found):
        row, told, label = _scan_row(path, folder, taken, opened=i < MOST_OPENED)
        rows.append(row)
        notes += told
        labels |= label
    if len(found) > MOST_OPENED:
        notes.append(f"only the first {MOST_OPENED} of {len(found)} images were opened for what their headers say")
    if not found:
        notes.append("no image was found: put images into the folder and list them in scans.csv")
    tables: _Tables = {"subjects": ((), Subject), "scans": (rows, ScanRecord), "masses": ((), Mass)}
    text = _toml(
        title, labels or {"LABEL": {}}, ['subjects = "subjects.csv"', 'scans = "scans.csv"', '# masses = "masses.csv"']
    )
    return _written(folder, text, tables, len(rows), notes, {})


def _images(start: Path) -> Iterator[Path]:
    """Yield what readers take, in the order of names; a folder that is one scan counts once."""
    for path in sorted(start.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            try:
                reader_for(path)
                yield path
            except (UnreadableImage, InputError):
                yield from _images(path)
        elif path.suffix.lower() not in _TABLES | _NOT_IMAGES:
            try:
                reader_for(path)
                yield path
            except (UnreadableImage, InputError):
                continue


def _scan_row(
    path: Path, folder: Path, taken: set[str], *, opened: bool
) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Return a row of scans.csv with what the file says, sentences about it, and the label that its filters suggest."""
    name, number = path.stem, 1
    while name in taken:
        number += 1
        name = f"{path.stem}_{number}"
    taken.add(name)
    row: dict[str, Any] = {"scan": name, "file": path.relative_to(folder).as_posix()}
    if not opened:
        return row, [], {}
    try:
        scan = read(path)
    except (UnreadableImage, InputError, OSError, ValueError) as err:
        return row, [f"{row['file']} cannot be read: {err}"], {}
    if not isinstance(scan, Scan):
        return row, [], {}
    if "Z" in scan.axes:
        row["kind"] = "volume"
    known = {"pixel_size_mm": scan.pixel_size_mm[0] if scan.pixel_size_mm else None, "exposure_s": scan.exposure_s}
    row |= {key: value for key, value in known.items() if isinstance(value, int | float)}
    return row, [f"{row['file']}: {w}" for w in scan.warnings], {}


def _from_table(folder: Path, table: Path, title: str) -> NewStudy:
    notes: list[str] = []
    labels: dict[str, dict[str, Any]] = {}
    lines = ["[[tables.observations]]", f'file = "{table.name}"']
    try:
        read_table = read_organ_table(table, ObservationSource(file=table.name, label="LABEL", unit="pct_id_per_g"))
        labels = {label: {} for label in sorted({r.label for r in read_table.rows})}
        organs = sorted({r.organ for r in read_table.rows})
        notes.append(
            f"{len(read_table.rows)} values of {len(organs)} organs ({', '.join(organs[:8])}{', ...' if len(organs) > 8 else ''})"
        )
    except InputError as err:
        notes += [str(p) for p in err.problems]
    said = _says_itself(table)
    if "label" not in said:
        lines.append('label = "LABEL"                # which label it is: an entry of [labels]')
    if "unit" not in said:
        lines.append('# unit = "pct_id_per_g"        # pct_id, pct_id_per_g, pct_recovered, p_per_s, bq, particles, au')
    lines += ["# n = 4                        # animals behind each mean", '# group = "all"', "# decay_corrected = true",
              '# route = "iv_bolus"           # ' + ", ".join(ROUTES), "# dose = 1e10", '# dose_unit = "particles"']  # fmt: skip
    text = _toml(
        title,
        labels or {"LABEL": {}},
        ['# subjects = "subjects.csv"  # who got what, where animals are known', "", *lines],
    )
    return _written(folder, text, {"subjects": ((), Subject)}, 0, notes, {table.name: table.read_bytes()})


def _says_itself(table: Path) -> set[str]:
    """Return which of label and unit are columns of a table."""
    head = table.read_text(encoding="utf-8", errors="replace").splitlines()[:50]
    columns = {
        c.strip().strip('"').lower()
        for line in head
        if not line.startswith("#")
        for c in line.replace(";", ",").replace("\t", ",").split(",")
    }
    return {"label", "unit"} & columns


def _written(
    folder: Path, text: str, tables: _Tables, scans: int, notes: list[str], copied: dict[str, bytes]
) -> NewStudy:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "study.toml"]
    for name, content in copied.items():
        if not (folder / name).exists():
            write_bytes(folder / name, content)
            files.append(folder / name)
    for name, (rows, model) in tables.items():
        write_bytes(folder / f"{name}.csv", csv_bytes(list(rows), list(model.model_fields)))
        files.append(folder / f"{name}.csv")
    write_bytes(files[0], text.encode())  # last: a folder with it is a study
    return NewStudy(folder, tuple(files), scans, tuple(notes))


def _toml(title: str, labels: dict[str, dict[str, Any]], tables: list[str]) -> str:
    """Return study.toml: what is needed, and every other key as a comment with its default and choices."""
    lines = [f"name = {_value(title)}", 'species = "mouse"   # rat, human, ...: constants of the species are used',
             'description = ""', "", "# Labels: one table each. A name of `evbiodist labels` fills in the rest."]  # fmt: skip
    for label in labels:
        lines += [f"[labels.{_value(label)}]"]
        lines += _keys(Label, skip=("priors", "source")) if label not in catalogue() else ["# known by its name"]
    lines += [
        "",
        "[tables]",
        *tables,
        "",
        "# What was injected, for reports, the library and comparisons (MISEV2023).",
        "# [vesicles]",
    ]
    lines += [f"# {key} =   # {what}" for key, (what, _) in fields_of(Vesicles).items()]
    for section, info in Settings.model_fields.items():
        model = info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            lines += ["", f"# [{section}]", *_keys(model)]
    return "\n".join(lines) + "\n"


def _keys(model: type[BaseModel], skip: tuple[str, ...] = ()) -> list[str]:
    """Return the keys of a model as comments: its default, and what else may stand there."""
    lines = []
    for key, info in model.model_fields.items():
        if key in skip:
            continue
        required, default = info.is_required(), info.get_default(call_default_factory=True)
        shown = "" if required or default is None or isinstance(default, BaseModel | dict) else _value(default)
        choices = _choices(info.annotation)
        told = f"   # {' | '.join(choices)}" if choices else "   # needed" if required else ""
        lines.append(
            f"{'' if required and choices else '# '}{key} = {shown or (_value(choices[0]) if required and choices else '')}{told}"
        )
    return lines


def _choices(annotation: Any) -> list[str]:
    """Return the words that a key may hold, where they are few."""
    if get_origin(annotation) is not None and all(isinstance(a, str) for a in get_args(annotation)):
        return [str(a) for a in get_args(annotation)]
    for part in get_args(annotation):
        found = _choices(part)
        if found:
            return found
    return []


def _value(value: Any) -> str:
    """Return a value as TOML."""
    import tomli_w

    if isinstance(value, float) and math.isinf(value):
        return "inf"
    text = tomli_w.dumps({"x": list(value) if isinstance(value, tuple) else value}).partition(" = ")[2]
    return re.sub(r",? \]$", "]", re.sub(r"^\[ ", "[", " ".join(text.split())))
