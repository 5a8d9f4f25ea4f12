"""A study on its way into the library: a result folder, a study of tables, or a table with a metadata.toml, read and checked.

Results that are no longer what their run wrote are refused, so that a number in the library leads back to its images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evbiodist.batch import journal, store
from evbiodist.batch.pipeline import dosing_of
from evbiodist.batch.tables import enter
from evbiodist.io.organ_tables import read_organ_table
from evbiodist.library.facts import Facts, arms, complete, facts_of_results, facts_of_study, named_for
from evbiodist.library.metadata import Metadata, TableAlone, merge, read_metadata
from evbiodist.study.load import load_study
from evbiodist.study.model import Label, ObservationSource, Settings, Study
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import explain, read_table
from evbiodist.study.vesicles import Vesicles

Row = dict[str, Any]


@dataclass(frozen=True)
class Incoming:
    """A study as it comes to the library.

    Parameters
    ----------
    metadata : what is known of it, with the name under which it is kept.
    title : its name in study.toml, or the table's.
    observations, parameters, curves : rows of the library's tables, without the column `entry`.
    labels : physics of its labels, by name.
    simulated : whether its data were.
    interval_level : of the intervals of parameters and curves.
    inputs : SHA-256 of the files it was made from.
    origin : `results`, `study` or `table`.
    notes : sentences about what is odd or was assumed.
    """

    metadata: Metadata
    title: str
    observations: tuple[Row, ...]
    parameters: tuple[Row, ...] = ()
    curves: tuple[Row, ...] = ()
    labels: Mapping[str, Row] = field(default_factory=dict)
    simulated: bool = False
    interval_level: float | None = None
    inputs: frozenset[str] = frozenset()
    origin: str = "results"
    notes: tuple[str, ...] = ()


def read_incoming(path: str | Path, metadata: str | Path | None = None) -> Incoming:
    """Read what is to be added: a result folder, a study of tables (study.toml), or one table.

    Parameters
    ----------
    path : the folder, study.toml or table.
    metadata : a metadata.toml, needed for a table alone.

    Raises
    ------
    InputError : everything wrong with it: an unfinished run, tables that are not what the run wrote, odd metadata.

    Examples
    --------
    >>> read_incoming("nowhere")
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: nowhere: found nothing, expected a result folder, a study.toml or a table; ...
    """
    path = Path(path)
    told, table = read_metadata(Path(metadata)) if metadata else ({}, None)
    if not path.exists():
        raise InputError([Problem(path.name, "", "a result folder, a study.toml or a table", "correct the path")])
    name = Path(metadata).name if metadata else path.name
    if path.is_dir() and not (path / "study.toml").is_file():
        return _from_results(path, told, name)
    if path.is_dir() or path.suffix == ".toml":
        return _from_study(path, told, name)
    return _from_table(path, told, table, name)


def _from_results(folder: Path, told: Row, name: str) -> Incoming:
    provenance = _as_written(folder)
    known = _described(folder)
    study, notes = _study_behind(folder, provenance["inputs"])
    about = {"study": known.name, "description": known.description, "source": known.source, "species": known.species,
             "vesicles": known.vesicles.model_dump(exclude_defaults=True)}  # fmt: skip
    metadata, said = merge(about, told, name)
    source = ObservationSource(file="observations.csv")
    observations = [r.model_dump() for r in read_organ_table(folder / "observations.csv", source).rows]
    parameters = _read(folder, "parameters", _Parameter, provenance)
    curves = _read(folder, "curves", _CurvePoint, provenance)
    _as_written(folder)  # and still is, now that it was read
    facts = facts_of_study(study, dosing_of(study)) if study else facts_of_results(known.groups, known.sources)
    rows, odd = _completed(observations, metadata, known.name, known.labels, known.settings, facts)
    return Incoming(
        metadata, known.name, rows, named_for(parameters, known.name, metadata.study),
        named_for(curves, known.name, metadata.study), _physics(known.labels), known.simulated,
        known.settings.kinetics.level, frozenset(provenance["inputs"].values()), "results", (*notes, *said, *odd),
    )  # fmt: skip


def _from_study(path: Path, told: Row, name: str) -> Incoming:
    study = load_study(path)
    if study.scans:
        raise InputError([Problem(path.name, "a study with images", "its results",
                                  "use evbiodist run, and add the result folder")])  # fmt: skip
    entry = enter(path)
    about = {"study": study.name, "description": study.description, "source": study.source, "species": study.species,
             "vesicles": (study.vesicles or Vesicles()).model_dump(exclude_defaults=True)}  # fmt: skip
    metadata, said = merge(about, told, name)
    facts = facts_of_study(study, entry.dosing)
    rows, odd = _completed(entry.observations, metadata, study.name, study.labels, study.settings, facts)
    inputs = frozenset(store.sha256(study.root / file) for file in set(study.files))
    return Incoming(metadata, study.name, rows, labels=_physics(study.labels), simulated=study.simulated, inputs=inputs,
                    origin="study", notes=(*entry.notes, *said, *odd))  # fmt: skip


def _from_table(path: Path, told: Row, table: TableAlone | None, name: str) -> Incoming:
    if table is None or "study" not in told:
        raise InputError([Problem(name, "no metadata.toml" if table is None else "no name of the study",
                                  'a metadata.toml with study = "..." for a table alone', "give it with --metadata")])  # fmt: skip
    given = table.model_dump(exclude={"simulated"}, exclude_none=True)
    entry = enter(path, **given)
    metadata, said = merge({}, told, name)
    facts = Facts(
        {key: {"route": d.route, "dose": d.dose, "dose_unit": d.dose_unit} for key, d in entry.dosing.items()}
    )
    rows, odd = _completed(entry.observations, metadata, path.stem, entry.labels, Settings(), facts)
    return Incoming(metadata, path.stem, rows, labels=_physics(entry.labels), simulated=table.simulated,
                    inputs=frozenset([store.sha256(path)]), origin="table", notes=(*entry.notes, *said, *odd))  # fmt: skip


def _completed(
    rows: Iterable[Row], metadata: Metadata, title: str, labels: Mapping[str, Label], settings: Settings, facts: Facts
) -> tuple[tuple[Row, ...], list[str]]:
    """Return rows with label, dose, animal and arm beside each value, in one order."""
    rows = list(rows)
    if not rows:
        raise InputError([Problem(title, "no observations", "at least one value of an organ",
                                  "look into failures.csv for what went wrong")])  # fmt: skip
    of_group, notes = arms({row["group"] for row in rows}, settings.crossval.controls)
    done = named_for((complete(row, metadata, labels, facts, of_group) for row in rows), title, metadata.study)
    key = ("study", "group", "label", "subject", "organ", "time_h", "unit")
    return tuple(sorted(done, key=lambda r: tuple(r[k] for k in key))), notes


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


class _Described(_Loose):
    """study.json, as far as the library needs it."""

    name: str = Field(min_length=1)
    species: str | None = None
    description: str = ""
    source: str = ""
    simulated: bool = False
    vesicles: Vesicles = Vesicles()
    labels: dict[str, Label]
    groups: tuple[dict[str, Any], ...] = ()
    sources: tuple[ObservationSource, ...] = ()
    settings: Settings = Settings()


_Number = Annotated[float | None, Field(allow_inf_nan=True)]


class _Parameter(_Loose):
    """A row of parameters.csv; limits of intervals may be infinite."""

    study: str
    subject: str = ""
    group: str = ""
    label: str = ""
    organ: str = ""
    model: str = ""
    parameter: str
    value: _Number = None
    se: _Number = None
    ci_low: _Number = None
    ci_high: _Number = None
    unit: str = ""
    method: str = ""
    n: int | None = None
    flags: str = ""
    reason: str = ""


class _CurvePoint(_Loose):
    """A row of curves.csv."""

    study: str
    group: str = ""
    label: str = ""
    organ: str = ""
    model: str = ""
    time_h: float
    value: _Number = None
    low: _Number = None
    high: _Number = None
    unit: str = ""


def _read(folder: Path, name: str, schema: type[_Loose], provenance: Row) -> list[Row]:
    """Return the rows of a table of the results; none where the run stopped at observations or the table is empty."""
    path = folder / f"{name}.csv"
    if path.name not in provenance["outputs"] or path.read_text(encoding="utf-8").count("\n") < 2:
        return []
    problems: list[Problem] = []
    rows = read_table(path, schema, tuple(schema.model_fields), problems)
    if problems:
        raise InputError(problems)
    return [row.model_dump() for row in rows]


def _as_written(folder: Path) -> Row:
    """Return what a finished run wrote down of itself, after comparing its tables and its journal with that."""
    path = folder / "provenance.json"
    if not path.is_file():
        raise InputError([Problem(folder.name, "no provenance.json", "the result folder of a run that ended",
                                  "run the study again: what is finished is kept")])  # fmt: skip
    provenance = _json(path)
    parts = [provenance.get(part) for part in ("inputs", "outputs")]
    if not all(isinstance(p, dict) and all(isinstance(v, str) for v in p.values()) for p in parts):
        raise InputError([_changed(path.name)])
    outputs = provenance["outputs"]
    if "observations.csv" not in outputs or any(Path(name).name != name for name in outputs):
        raise InputError([_changed(path.name)])
    problems = [_changed(name) for name, digest in outputs.items()
                if not (folder / name).is_file() or store.sha256(folder / name) != digest]  # fmt: skip
    if not problems and (folder / journal.JOURNAL).is_file() and not _journal_agrees(folder):
        problems = [_changed(path.name)]
    if problems:
        raise InputError(problems)
    return provenance


def _changed(name: str) -> Problem:
    return Problem(name, "something else", "what the run wrote", "it was changed since: run the study again (evbiodist "
                   "verify names every change)")  # fmt: skip


def _journal_agrees(folder: Path) -> bool:
    try:
        ended = [e for e in journal.read(folder) if e.event == "written"]
        return journal.broken(folder) is None and bool(ended) and (
            ended[-1].facts.get("provenance.json") == store.sha256(folder / "provenance.json"))  # fmt: skip
    except ValueError:
        return False


def _described(folder: Path) -> _Described:
    path = folder / "study.json"
    try:
        return _Described.model_validate(_json(path))
    except ValidationError as err:
        raise InputError(Problem(path.name, found, expected, remedy, field=field)
                         for field, found, expected, remedy in map(explain, err.errors())) from err  # fmt: skip


def _json(path: Path) -> Row:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError([Problem(path.name, err.strerror or "", "a file of the run", "run the study again")]) from err
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise InputError([_changed(path.name)])
    return held


def _study_behind(folder: Path, inputs: Mapping[str, str]) -> tuple[Study | None, list[str]]:
    """Return the study of some results where it is as it was for the run; else a sentence of what is then not known."""
    lost = "sex and weight of single animals are not known, dose and route as far as study.json says"
    try:
        study = load_study(folder / "settings.toml")
    except InputError as err:
        return None, [f"the study behind {folder.name} cannot be read ({err.problems[0].file}), so {lost}"]
    if any(inputs.get(name) != store.sha256(study.root / name) for name in set(study.files)):
        return None, [f"the study behind {folder.name} was changed after the run, so {lost}"]
    return study, []


def _physics(labels: Mapping[str, Label]) -> dict[str, Row]:
    return {name: label.model_dump(mode="json", exclude_defaults=True) for name, label in sorted(labels.items())}
