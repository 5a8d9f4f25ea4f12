"""study.toml and its tables in, a checked `Study` out, or every problem of the study at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from evbiodist.study.model import Mass, ObservationSource, ScanRecord, Settings, Study, StudyFile, Subject
from evbiodist.study.problems import InputError, Problem, nearest
from evbiodist.study.tables import explain, read_table

#: Largest study.toml that is read.
_MAX_BYTES = 4 << 20
_SETTINGS = tuple(Settings.model_fields)


def load_study(path: str | Path) -> Study:
    """Read a study.toml (or a settings.toml that a run wrote) with its tables and check all of it.

    Parameters
    ----------
    path : study.toml, settings.toml, or the folder that holds a study.toml.

    Raises
    ------
    InputError : with every problem of the study: file, row, column, found, expected, remedy.

    Examples
    --------
    >>> load_study("nowhere/study.toml")
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: study.toml: found 'No such file or directory', expected a study file;
    write one or correct the path.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "study.toml"
    problems: list[Problem] = []
    text = _read_toml(path)
    overrides: dict[str, Any] = {}
    settings_name = ""
    if "study_file" in text:
        overrides = {k: v for k, v in text.items() if k != "study_file"}
        settings_name, path = path.name, (path.parent / str(text["study_file"])).resolve()
        text = _read_toml(path, f" (study_file of {settings_name} leads to it: keep results and study where they were)")
        _unknown_keys(overrides, Settings, settings_name, "", problems)
    _unknown_keys(text, StudyFile, path.name, "", problems)
    if problems:
        raise InputError(problems)
    merged = {**text, **overrides}
    try:
        study = StudyFile.model_validate(merged)
    except ValidationError as err:
        name = settings_name or path.name
        raise InputError(_toml_problem(name, e) for e in err.errors()) from err
    return _read_tables(study, path, problems)


def _read_toml(path: Path, asked: str = "") -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path.stat().st_size >> 20} MiB, more than a study file of up to {_MAX_BYTES >> 20} MiB")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        problem = Problem(path.name, err.strerror or "", "a study file", f"write one or correct the path{asked}")
        raise InputError([problem]) from err
    except (ValueError, RecursionError) as err:
        raise InputError([Problem(path.name, str(err), "TOML in UTF-8", "correct that line")]) from err


def _toml_problem(name: str, error: Any) -> Problem:
    field, found, expected, remedy = explain(error)
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        field = ".".join(str(part) for part in error["loc"])
    return Problem(name, found, expected, remedy, field=field)


def _unknown_keys(data: Any, schema: Any, name: str, where: str, problems: list[Problem]) -> None:
    """Name every unknown key at every depth, with the nearest known one."""
    if not (isinstance(data, dict) and isinstance(schema, type) and issubclass(schema, BaseModel)):
        return
    known = schema.model_fields
    for key, value in data.items():
        place = f"{where}{key}"
        if key not in known:
            problems.append(Problem(name, key, f"a known key{f' of [{where[:-1]}]' if where else ''}",
                                    nearest(key, known), field=place))  # fmt: skip
        elif key == "labels" and isinstance(value, dict):
            from evbiodist.study.model import Label

            for label, physics in value.items():
                _unknown_keys(physics, Label, name, f"labels.{label}.", problems)
        elif key == "observations" and isinstance(value, list):
            for i, item in enumerate(value):
                _unknown_keys(item, ObservationSource, name, f"{place}[{i}].", problems)
        else:
            _unknown_keys(value, _inner(known[key].annotation), name, f"{place}.", problems)


def _inner(annotation: Any) -> Any:
    """Return the model inside ``Model | None``, or the annotation itself."""
    options = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
    return options[0] if options else annotation


def inside(root: Path, name: str) -> Path | None:
    """Return a study's file, or None when the name leads outside the study's folder."""
    try:
        candidate = (root / name).resolve()
        return candidate if candidate.is_relative_to(root.resolve()) else None
    except RuntimeError:  # a loop of links leads nowhere: a missing file, found missing when it is read
        return root / name
    except (OSError, ValueError):  # no name that a file can have
        return None


def is_there(path: Path) -> bool:
    """Whether a regular file or a folder lies at a path, whatever the name."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):
        return False


def _read_tables(file: StudyFile, path: Path, problems: list[Problem]) -> Study:
    root, tables = path.parent, file.tables
    names = {"subjects": tables.subjects, "scans": tables.scans, "masses": tables.masses}
    paths = {key: _table_path(root, key, name, path.name, problems) for key, name in names.items() if name}
    for source in tables.observations:
        _table_path(root, "observations", source.file, path.name, problems)
    own = file.kinetics.models_file
    if own:
        _table_path(root, "models_file", own, path.name, problems, section="kinetics")
    assay = file.crossval.assay
    if assay:
        _table_path(root, "assay", assay, path.name, problems, section="crossval")
    subjects = read_table(paths["subjects"], Subject, ("subject", "label"), problems) if paths.get("subjects") else []
    scans = read_table(paths["scans"], ScanRecord, ("scan",), problems) if paths.get("scans") else []
    masses = read_table(paths["masses"], Mass, ("subject", "organ"), problems) if paths.get("masses") else []
    _cross_check(file, root, subjects, scans, masses, problems)
    if any(p.fatal for p in problems):
        raise InputError(problems)
    return Study(
        root=root,
        name=file.name,
        species=file.species,
        description=file.description,
        source=file.source,
        simulated=file.simulated,
        labels=file.labels,
        subjects=tuple(subjects),
        scans=tuple(scans),
        masses=tuple(masses),
        observation_sources=tables.observations,
        settings=Settings(**{name: getattr(file, name) for name in _SETTINGS}),
        files=(
            path.name,
            *(n for n in names.values() if n),
            *(s.file for s in tables.observations),
            *((own,) if own else ()),
            *((assay,) if assay else ()),
        ),
        scans_table=tables.scans or "scans.csv",
        vesicles=file.vesicles,
    )


def _table_path(root: Path, key: str, name: str, study: str, problems: list[Problem], section: str = "tables") -> Any:
    path = inside(root, name)
    if path is None:
        problems.append(Problem(study, name, "a path inside the study's folder", "move the file into the study",
                                field=f"{section}.{key}"))  # fmt: skip
    elif not (is_there(path) and path.is_file()):
        problems.append(Problem(study, name, "an existing file", "correct the name or leave the key out",
                                field=f"{section}.{key}"))  # fmt: skip
        return None
    return path


def _cross_check(
    file: StudyFile,
    root: Path,
    subjects: list[Subject],
    scans: list[ScanRecord],
    masses: list[Mass],
    problems: list[Problem],
) -> None:
    """Check what only several tables together show: undeclared labels, unknown subjects, missing files."""
    tables = file.tables
    if not tables.scans and not tables.observations:
        problems.append(Problem("study.toml", "", "scans or observations under [tables]",
                                "name a scans.csv, an observations table, or both", field="tables"))  # fmt: skip
    for table, rows in ((tables.subjects, subjects), (tables.scans, scans)):
        for item in rows:
            if item.label not in file.labels:
                who = item.scan if isinstance(item, ScanRecord) else item.subject
                problems.append(Problem(str(table), item.label, "a label that study.toml declares",
                                        f"in the row of '{who}': add [labels.\"{item.label}\"], or "
                                        f"{nearest(item.label, file.labels)}", field="label"))  # fmt: skip
    for source in tables.observations:
        if source.label is not None and source.label not in file.labels:
            problems.append(Problem("study.toml", source.label, "a label declared under [labels]",
                                    nearest(source.label, file.labels), field="tables.observations"))  # fmt: skip
    unread = {tables.subjects, tables.scans} & {p.file for p in problems if p.fatal}
    if unread or not (subjects or scans):  # what follows would only repeat what those tables said
        return
    known = {(s.subject, s.label) for s in subjects}
    names = {s.subject for s in subjects}
    for scan in scans:
        for name in scan.subjects:
            if (name, scan.label) not in known and scan.label in file.labels:
                expected = (f"a subject of {tables.subjects or 'subjects.csv'}" if name not in names
                            else f"the label that subject '{name}' carries there")  # fmt: skip
                found = name if name not in names else scan.label
                problems.append(Problem(str(tables.scans), found, expected,
                                        f"scan '{scan.scan}': add the subject's row or correct the name; "
                                        + nearest(name, names), field="subject"))  # fmt: skip
        for field in ("file", "organs", "photograph"):
            value = getattr(scan, field)
            if value and inside(root, value) is None:
                problems.append(Problem(str(tables.scans), value, "a path inside the study's folder",
                                        f"scan '{scan.scan}': move the file into the study", field=field))  # fmt: skip
    for mass in masses:
        if mass.subject not in names:
            problems.append(Problem(str(tables.masses), mass.subject, "a subject of the study",
                                    nearest(mass.subject, names), field="subject"))  # fmt: skip
