"""Entering at the hinge: an observations table, a result folder or a study, as one thing to analyse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evbiodist.batch.pipeline import check_tables, correct, dosing_of
from evbiodist.io.organ_tables import read_organ_table
from evbiodist.kinetics.analyse import POOLED, Dosing
from evbiodist.study.load import load_study
from evbiodist.study.model import OBSERVATION_COLUMNS, ObservationSource, Settings, Subject
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import read_table
from evbiodist.study.vocabulary import ROUTES


@dataclass(frozen=True)
class Entry:
    """Observations as rows of the table, what every animal got, and the settings to analyse them by."""

    observations: list[dict[str, Any]]
    dosing: dict[tuple[str, str], Dosing]
    settings: Settings
    notes: tuple[str, ...] = ()


def enter(
    path: str | Path,
    *,
    subjects: str | Path | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    label: str = "label",
    unit: str | None = None,
    n: int | None = None,
) -> Entry:
    """Read observations from a table, a result folder or a study.toml.

    Parameters
    ----------
    path : observations.csv, any table of organ values, a result folder, or a study.
    subjects : subjects.csv with doses and routes; the one beside a table is found by itself.
    dose, dose_unit, route : for tables without subjects.csv.
    label, unit, n : what a table in a foreign layout does not say of itself.

    Raises
    ------
    InputError : everything wrong with the input.
    """
    path = Path(path)
    if path.is_dir() and (path / "observations.csv").is_file() and not (path / "study.toml").is_file():
        return _from_results(path)
    if path.is_dir() or path.suffix == ".toml":
        return _from_study(path)
    if route not in ROUTES:
        raise InputError([Problem("--route", route, "one of " + ", ".join(ROUTES), "correct it")])
    source = ObservationSource(file=path.name, label=label, unit=unit, n=n)  # type: ignore[arg-type]
    table = read_organ_table(path, source)
    beside = Path(subjects) if subjects else path.with_name("subjects.csv")
    dosing = _from_subjects(beside) if subjects or beside.is_file() else {}
    given = Dosing(dose if dose is not None else math.nan, dose_unit, route)
    for r in table.rows:
        dosing.setdefault((r.subject, r.label), given)
        dosing.setdefault((POOLED, r.label), given)
    rows = [{**r.model_dump(), "study": r.study or path.stem} for r in table.rows]
    return Entry([{c: row[c] for c in OBSERVATION_COLUMNS} for row in rows], dosing, Settings(), table.notes)


def _from_subjects(path: Path) -> dict[tuple[str, str], Dosing]:
    problems: list[Problem] = []
    rows = read_table(path, Subject, ("subject", "label"), problems)
    if problems:
        raise InputError(problems)
    return {(s.subject, s.label): Dosing(s.dose, s.dose_unit, s.route) for s in rows}


def _from_study(path: Path) -> Entry:
    study = load_study(path)
    tables, problems = check_tables(study)
    if not problems and not tables:
        problems = [Problem(Path(path).name, "only images", "a study with observation tables",
                            "use evbiodist run, or evbiodist quantify first and then the result folder")]  # fmt: skip
    if problems:
        raise InputError(problems)
    rows = [{**r.model_dump(), "study": r.study or study.name} for r in correct(study, [], tables)]
    observations = [{c: row[c] for c in OBSERVATION_COLUMNS} for row in rows]
    return Entry(observations, dosing_of(study), study.settings, tuple(n for t in tables for n in t.notes))


def _from_results(path: Path) -> Entry:
    """Take a result folder: its settings.toml leads back to the study with its doses, while that is there."""
    table = read_organ_table(path / "observations.csv", ObservationSource(file="observations.csv"))
    rows = [{c: r.model_dump()[c] for c in OBSERVATION_COLUMNS} for r in table.rows]
    try:
        study = load_study(path / "settings.toml")
    except InputError as err:
        note = f"the study behind {path.name} cannot be read, so doses and routes are unknown: {err.problems[0]}"
        return Entry(rows, {}, Settings(), (note,))
    return Entry(rows, dosing_of(study), study.settings)
