"""Entering at the hinge: an observations table, a result folder or a study, as one thing to analyse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evbiodist.batch.pipeline import assays_of, check_tables, correct, dosing_of, mean_weight, own_models
from evbiodist.crossval.assay import AssayValidation
from evbiodist.io.organ_tables import OrganTable, read_organ_table
from evbiodist.kinetics.analyse import Dosing, Dosings
from evbiodist.kinetics.models.catalogue import Models
from evbiodist.study.load import load_study
from evbiodist.study.model import OBSERVATION_COLUMNS, Label, ObservationSource, Settings, Study, Subject
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import explain, read_table
from evbiodist.study.vocabulary import ROUTES


@dataclass(frozen=True)
class Entry:
    """Observations as rows of the table, what every animal got, and the settings to analyse them by."""

    observations: list[dict[str, Any]]
    dosing: Dosings
    settings: Settings
    notes: tuple[str, ...] = ()
    own_models: Models = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    species: str = "mouse"
    weight_g: float | None = None
    assays: Mapping[str, AssayValidation] = field(default_factory=dict)


def enter(
    path: str | Path,
    *,
    subjects: str | Path | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    infusion_h: float = 0.0,
    label: str = "label",
    unit: str | None = None,
    n: int | None = None,
) -> Entry:
    """Read observations from a table, a result folder or a study.toml.

    Parameters
    ----------
    path : observations.csv, any table of organ values, a result folder, or a study.
    subjects : subjects.csv with doses and routes; the one beside a table is found by itself.
    dose, dose_unit, route, infusion_h : for tables without subjects.csv; an infusion takes `infusion_h` hours.
    label, unit, n : what a table in a foreign layout does not say of itself.

    Raises
    ------
    InputError : everything wrong with the input.
    """
    path = Path(path)
    given = Dosing(dose if dose is not None else math.nan, dose_unit, route, infusion_h)
    if path.is_dir() and (path / "observations.csv").is_file() and not (path / "study.toml").is_file():
        return _from_results(path, given)
    if path.is_dir() or path.suffix == ".toml":
        return _from_study(path)
    if route not in ROUTES:
        raise InputError([Problem("--route", route, "one of " + ", ".join(ROUTES), "correct it")])
    source = _source(path.name, label, unit, n, dose, dose_unit, route)
    table = read_organ_table(path, source)
    beside = Path(subjects) if subjects else path.with_name("subjects.csv")
    known = _subjects(beside) if subjects or beside.is_file() else ()
    labels = {r.label: Label.named(r.label) for r in table.rows}
    about: dict[str, Any] = {"labels": labels}
    if known:
        study = _as_study(path, source, table, known, labels)
        rows, dosing = correct(study, [], [table]), dosing_of(study)
        about |= {"species": study.species, "weight_g": mean_weight(study)}
    else:
        rows, dosing = list(table.rows), {(r.group, r.subject, r.label): given for r in table.rows}
    observations = [{**r.model_dump(), "study": r.study or path.stem} for r in rows]
    rows_of = [{c: row[c] for c in OBSERVATION_COLUMNS} for row in observations]
    return Entry(rows_of, dosing, Settings(), table.notes, **about)


def _source(
    name: str, label: str, unit: str | None, n: int | None, dose: float | None, dose_unit: str, route: str
) -> ObservationSource:
    """Return what the options say of a table, or refuse them in words."""
    try:
        return ObservationSource(file=name, label=label, unit=unit, n=n, dose=dose, dose_unit=dose_unit or None,  # type: ignore[arg-type]
                                 route=route)  # type: ignore[arg-type]  # fmt: skip
    except ValidationError as err:
        found = [explain(e) for e in err.errors()]
        raise InputError(Problem(f"--{field.replace('_', '-')}", value, expected, remedy)
                         for field, value, expected, remedy in found) from err  # fmt: skip


def _subjects(path: Path) -> tuple[Subject, ...]:
    problems: list[Problem] = []
    rows = read_table(path, Subject, ("subject", "label"), problems)
    if problems:
        raise InputError(problems)
    return tuple(rows)


def _as_study(
    path: Path, source: ObservationSource, table: OrganTable, subjects: tuple[Subject, ...], labels: dict[str, Label]
) -> Study:
    """Return a table with its subjects.csv as a study, so that it is corrected like one."""
    species = next((s.species for s in subjects if s.species), "mouse")
    return Study(root=path.parent, name=path.stem, species=species, description="", source="", simulated=False, labels=labels,
                 subjects=subjects, scans=(), masses=(), observation_sources=(source,), settings=Settings(),
                 files=(path.name,))  # fmt: skip


def _from_study(path: Path) -> Entry:
    study = load_study(path)
    tables, problems = check_tables(study)
    problems += assays_of(study)[1]
    if not problems and not tables:
        problems = [Problem(Path(path).name, "only images", "a study with observation tables",
                            "use evbiodist run, or evbiodist quantify first and then the result folder")]  # fmt: skip
    if problems:
        raise InputError(problems)
    rows = [{**r.model_dump(), "study": r.study or study.name} for r in correct(study, [], tables)]
    observations = [{c: row[c] for c in OBSERVATION_COLUMNS} for row in rows]
    notes = tuple(n for t in tables for n in t.notes)
    return Entry(observations, dosing_of(study), study.settings, notes, **_about(study))


def _about(study: Study) -> dict[str, Any]:
    return {"own_models": own_models(study)[0], "labels": study.labels, "species": study.species,
            "weight_g": mean_weight(study), "assays": assays_of(study)[0]}  # fmt: skip


def _from_results(path: Path, given: Dosing) -> Entry:
    """Take a result folder: its settings.toml leads back to the study with its doses, while that is there."""
    if not (path / "provenance.json").is_file():
        raise InputError([Problem(path.name, "an unfinished run", "a complete result folder", "run the study again")])
    table = read_organ_table(path / "observations.csv", ObservationSource(file="observations.csv"))
    rows = [{c: r.model_dump()[c] for c in OBSERVATION_COLUMNS} for r in table.rows]
    try:
        study = load_study(path / "settings.toml")
    except InputError as err:
        note = f"the study behind {path.name} cannot be read, so dose and route are those of the options: {err.problems[0]}"
        return Entry(rows, {(r.group, r.subject, r.label): given for r in table.rows}, Settings(), (note,),
                     labels={r.label: Label.named(r.label) for r in table.rows})  # fmt: skip
    return Entry(rows, dosing_of(study), study.settings, **_about(study))
