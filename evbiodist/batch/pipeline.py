"""The main job: a study in, its result folder out.

Steps: quantify scans (shards), collect observation tables, correct, analyse, compare, write. Tables are
rebuilt in sorted order every time, so the bytes do not depend on workers or on earlier interruptions.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evbiodist.batch import journal, store
from evbiodist.batch.animals import AnimalsTask
from evbiodist.batch.engine import Engine, limits_for, one_thread, run_tasks
from evbiodist.batch.inputs import at_rest, hash_inputs, told_twice
from evbiodist.batch.progress import Pace, Progress
from evbiodist.batch.scans import ScanResult, ScanTask
from evbiodist.batch.volumes import run_steps
from evbiodist.crossval.assay import AssayValidation, apply_assay, read_assay, validate_assays
from evbiodist.crossval.compare import TABLES, Comparison, compare_labels
from evbiodist.crossval.groups import COMPARISON_COLUMNS, compare_groups
from evbiodist.io.organ_tables import OrganTable
from evbiodist.io.registry import read_table
from evbiodist.kinetics.analyse import (
    PARAMETER_COLUMNS,
    Dosing,
    Dosings,
    fit_settings,
    model_parameters,
    nca_parameters,
    unused_choices,
)
from evbiodist.kinetics.designs.pooling import POOLED, REST
from evbiodist.kinetics.models.catalogue import Models, catalogue, read_models
from evbiodist.study.constants import physiology
from evbiodist.study.corrections import blood_per_gram, correct_decay, share_of_dose, subtract_vessel_blood, who
from evbiodist.study.labels import label_model, missing_controls
from evbiodist.study.load import is_there
from evbiodist.study.model import OBSERVATION_COLUMNS, Observation, ObservationSource, ScanRecord, Settings, Study
from evbiodist.study.problems import InputError, Problem, UnreadableImage, nearest
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

    from evbiodist.kinetics.fitting.fit import FitResult

FAILURE_COLUMNS = ("what", "name", "subject", "label", "file", "reason")
CURVE_COLUMNS = ("study", "group", "label", "organ", "model", "time_h", "value", "low", "high", "unit")


@dataclass(frozen=True, eq=False)
class RunResult:
    """Where the results lie, and the tables as lists of rows.

    Parameters
    ----------
    out : the result folder.
    observations, parameters, failures, curves, comparisons : rows as written to the CSV files.
    comparison : of the labels, a list of rows for every table of `evbiodist.crossval.compare.TABLES`.
    notes : sentences about the inputs (what is missing, odd or refused).
    """

    out: Path | None
    observations: list[dict[str, Any]]
    parameters: list[dict[str, Any]] = field(default_factory=list)
    comparison: Comparison = field(default_factory=Comparison)
    failures: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def agreement(self) -> list[dict[str, Any]]:
        """Rows of agreement.csv."""
        return self.comparison.agreement

    @property
    def consensus(self) -> list[dict[str, Any]]:
        """Rows of consensus.csv."""
        return self.comparison.consensus

    def frame(self, table: str) -> pd.DataFrame:
        """Return one table as a DataFrame.

        Raises
        ------
        ValueError : not a table of the results.
        """
        import pandas as pd

        columns = {"observations": OBSERVATION_COLUMNS, "parameters": PARAMETER_COLUMNS, "failures": FAILURE_COLUMNS,
                   "curves": CURVE_COLUMNS, "comparisons": COMPARISON_COLUMNS, **TABLES}  # fmt: skip
        if table not in columns:
            raise ValueError(f"'{table}' is not a table of the results; known: {', '.join(columns)}")
        return pd.DataFrame(getattr(self.comparison if table in TABLES else self, table), columns=list(columns[table]))


def check_tables(study: Study) -> tuple[list[OrganTable], list[Problem]]:
    """Read every observations table of a study and return the tables and all their problems."""
    tables: list[OrganTable] = []
    problems: list[Problem] = []
    for source in study.observation_sources:
        try:
            table = read_table(study.root / source.file, source)
        except InputError as err:
            problems += err.problems
            continue
        problems += _strangers(study, source, table)
        tables.append(table)
    seen: dict[tuple[object, ...], int] = {}
    for source, table in zip(study.observation_sources, tables, strict=False):
        twice = [r for r in table.rows if (key := (*who(r), r.study, r.organ, r.time_h, r.unit)) in seen
                 and seen[key] != id(table)]  # fmt: skip
        if twice:
            problems.append(Problem(source.file, f"{twice[0].organ} of {twice[0].subject} at {twice[0].time_h:g} h",
                                    "each value in one table only", f"{len(twice)} of its values stand in another table too: "
                                    "leave one table out"))  # fmt: skip
        seen |= {(*who(r), r.study, r.organ, r.time_h, r.unit): id(table) for r in table.rows}
    return tables, problems


def _strangers(study: Study, source: ObservationSource, table: OrganTable) -> list[Problem]:
    """Return a problem for every label and animal of a table that the study does not know."""
    problems = [Problem(source.file, label, "a label that study.toml declares",
                        f'add [labels."{label}"] or correct the table', field="label")
                for label in sorted({r.label for r in table.rows} - set(study.labels))]  # fmt: skip
    known = {s.subject for s in study.subjects}
    if known:
        names = {r.subject for r in table.rows} - known - {POOLED, source.subject}
        problems += [Problem(source.file, name, "an animal of subjects.csv", f"add its row, or {nearest(name, known)}",
                             field="subject") for name in sorted(names)]  # fmt: skip
    return problems


def own_models(study: Study) -> tuple[Models, list[Problem]]:
    """Return the models of a study's own file, and what is wrong with them."""
    name = study.settings.kinetics.models_file
    if not name:
        return {}, []
    try:
        return read_models(study.root / name), []
    except ValueError as err:
        return {}, [Problem(name, sentence, "models as in the catalogue", "see evbiodist models and docs/models.md",
                            field="kinetics.models_file") for sentence in str(err).splitlines()]  # fmt: skip


def assays_of(study: Study) -> tuple[dict[str, AssayValidation], list[Problem]]:
    """Return how well each label's readout was calibrated, by the study's own table, and what is wrong with that."""
    name = study.settings.crossval.assay
    if not name:
        return {}, []
    try:
        rows = read_assay(study.root / name)
    except InputError as err:
        return {}, list(err.problems)
    strange = [Problem(name, label, "a label that study.toml declares", nearest(label, study.labels), field="label")
               for label in sorted({r.label for r in rows} - set(study.labels))]  # fmt: skip
    return ({}, strange) if strange else (validate_assays(rows), [])


def with_assay(rows: Sequence[Observation], assays: Mapping[str, AssayValidation]) -> list[Observation]:
    """Return rows with the error of their label's calibration in `se`, and those below its quantification limit marked."""
    if not assays or not rows:
        return list(rows)
    table = apply_assay(frame_of([r.model_dump() for r in rows]), assays)
    changed = zip(rows, table["se"], table["lloq"], table["below_lloq"], table["flags"], strict=True)
    return [r.model_copy(update={"se": _or_none(se), "lloq": _or_none(lloq), "below_lloq": bool(below), "flags": flags})
            for r, se, lloq, below, flags in changed]  # fmt: skip


def _or_none(x: float) -> float | None:
    return None if math.isnan(x) else float(x)


def unknown_models(study: Study) -> list[Problem]:
    """Return a problem for every model that is neither in the catalogue nor in the study's own file."""
    own, problems = own_models(study)
    known = {**catalogue(), **own}
    return problems + [
        Problem("study.toml", name, "a model of evbiodist models", nearest(name, known), field="kinetics.models")
        for name in study.settings.kinetics.models if name not in known and not problems]  # fmt: skip


def unknown_curves(study: Study, tables: Iterable[OrganTable]) -> list[Problem]:
    """Return a problem for every choice of terminal samples whose label, group or animal the study does not have."""
    rows, sources = [r for t in tables for r in t.rows], study.observation_sources
    known = {
        "label": {*study.labels},
        "group": {s.group for s in study.subjects} | {s.group for s in sources} | {r.group for r in rows},
        "subject": {s.subject for s in study.subjects} | {r.subject for r in rows} | {POOLED, REST},
    }
    return [Problem("study.toml", name, f"a {field} of the study", f"the choice for {choice} changes nothing: "
                    + nearest(name, known[field]), field=f"kinetics.lambda_z.{field}", fatal=False)
            for choice in study.settings.kinetics.lambda_z
            for field in known if (name := getattr(choice, field)) and name not in known[field]]  # fmt: skip


def missing_files(study: Study) -> list[Problem]:
    """Return a problem for every scan whose files are not there; they stop nothing but themselves."""
    return [Problem(study.scans_table, name, "an existing file",
                    f"scan '{s.scan}' will fail: copy the file or correct the name", field=column, fatal=False)
            for s in study.scans
            for column, name in (("file", s.file), ("organs", s.organs), ("photograph", s.photograph))
            if name and not is_there(study.root / name)]  # fmt: skip


def check(study: Study) -> list[Problem]:
    """Return every problem of a study that its tables and files show, fatal ones first.

    What `load_study` finds it raises itself; this looks into the observation tables and for the images.
    """
    tables, problems = check_tables(study)
    problems += [*unknown_models(study), *assays_of(study)[1], *missing_files(study), *unknown_curves(study, tables)]
    if study.settings.corrections.vessel_blood == "subtract" and not any(
        physiology(study.species, organ, "regional_blood_fraction") for organ in ("brain", "liver", "kidney")
    ):
        problems.append(Problem("study.toml", study.species, "a species with published blood fractions (mouse, rat)",
                                "vessel blood will not be subtracted", field="species", fatal=False))  # fmt: skip
    return sorted(problems, key=lambda p: not p.fatal)


def run_study(
    study: Study,
    out: Path,
    *,
    workers: int = 1,
    quantify_only: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> RunResult:
    """Run a study the whole way and write its result folder.

    Parameters
    ----------
    study : from `load_study`.
    out : result folder; an earlier, even interrupted run is taken up.
    workers : processes for the scans; the bytes of the results do not depend on it.
    quantify_only : stop at observations.csv.
    progress : called with a mapping (`event`, `done`, `total`, ...) after every step.
    engine : what runs the scans; `run_tasks` with so many workers when None.

    Returns
    -------
    RunResult : failed scans are rows of `failures`; the rest is complete.

    Raises
    ------
    InputError : an observations table that cannot be used.
    FolderBusyError, NoRoomError : the result folder is taken or cannot be written.
    """
    tell: Progress = Pace(progress) if progress else (lambda event: None)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tables, problems = check_tables(study)
    problems += [*unknown_models(study), *assays_of(study)[1]]
    if problems:
        raise InputError(problems)
    inputs = [study.root / name for s in study.scans for name in (s.file, s.organs, s.photograph) if name]
    store.refuse_foreign(out, study.root, inputs, study.name)
    with store.hold(out), one_thread():
        (out / "provenance.json").unlink(missing_ok=True)  # it says that a run is complete
        log = journal.Journal(out)
        log.add("started", {"evbiodist": _version(), "study": study.name, "scans": len(study.scans),
                            "settings": store.key_of(study.settings.model_dump(mode="json"))})  # fmt: skip
        engine = engine or partial(run_tasks, workers=workers, limits=limits_for(workers))
        scanned, failures, notes, hashes = _scans(study, out, engine, tell, log)
        notes += [f"{t.path.name}: {note}" for t in tables for note in t.notes]
        result = analyse(study, scanned, tables, quantify_only=quantify_only, tell=tell)
        result = RunResult(out, result.observations, result.parameters, result.comparison, failures, result.curves,
                           [*notes, *result.notes, *result.comparison.notes], result.comparisons)  # fmt: skip
        _write(study, result, hashes, started, quantify_only)
        log.add("written", {"provenance.json": store.sha256(out / "provenance.json"), "failed": len(failures)})
        tell({"event": "written", "done": 1, "total": 1})
    return result


def analyse(
    study: Study,
    scanned: Iterable[Observation],
    tables: Iterable[OrganTable],
    *,
    quantify_only: bool = False,
    tell: Progress | None = None,
) -> RunResult:
    """Correct observations and go from them to parameters and comparisons, without touching the disk."""
    tell = tell or (lambda event: None)
    rows = correct(study, scanned, tables)
    observations = [_as_row(study, r) for r in rows]
    if quantify_only:
        return RunResult(None, observations)
    parameters, curves, fits = kinetics_of(study, observations, tell)
    comparison = comparison_of(study, observations, parameters, fits)
    groups = compare_groups(frame_of(observations), parameters, [s.model_dump() for s in study.subjects], study.settings.groups,
                            level=study.settings.kinetics.level)  # fmt: skip
    tell({"event": "compared", "done": 1, "total": 1})
    notes = [*unused_choices(frame_of(observations), study.settings.kinetics), *groups.notes]
    return RunResult(None, observations, parameters, comparison, [], curves, notes, groups.rows)


def kinetics_of(
    study: Study, observations: list[dict[str, Any]], tell: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[str, str, str, str], FitResult]]:
    """Return parameter rows, fitted curves and fits for a study's corrected observations."""
    return kinetics(observations, dosing_of(study), study.settings, tell, own=own_models(study)[0], species=study.species,
                    weight_g=mean_weight(study))  # fmt: skip


def comparison_of(
    study: Study,
    observations: list[dict[str, Any]],
    parameters: Sequence[dict[str, Any]],
    fits: Mapping[tuple[str, str, str, str], FitResult],
) -> Comparison:
    """Compare a study's labels; parameters and fits as from `kinetics_of`."""
    frame = frame_of(observations)
    if frame.empty:
        return Comparison()
    models = {name: label_model(name, label) for name, label in study.labels.items()}
    return compare_labels(frame, models, dosing_of(study), study.settings.crossval, fits=dict(fits), parameters=parameters,
                          fitting=fit_settings(study.settings.kinetics), own=own_models(study)[0], species=study.species,
                          weight_g=mean_weight(study), assays=assays_of(study)[0])  # fmt: skip


def mean_weight(study: Study) -> float | None:
    """Return the mean body weight of a study's animals, g; None where nobody weighed them."""
    weights = [s.weight_g for s in study.subjects if s.weight_g]
    return sum(weights) / len(weights) if weights else None


def kinetics(
    observations: list[dict[str, Any]],
    dosing: Dosings,
    settings: Settings,
    tell: Progress,
    *,
    pool: bool = False,
    own: Models | None = None,
    species: str | None = None,
    weight_g: float | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[str, str, str, str], FitResult]]:
    """Return parameter rows, fitted curves and fits for rows of an observations table; `own` are a user's models."""
    frame = frame_of(observations)
    if frame.empty:
        return [], [], {}
    rows = nca_parameters(frame, dosing, settings.kinetics, pool=pool)
    tell({"event": "nca", "done": 1, "total": 1})
    fitted, fits = model_parameters(frame, dosing, settings.kinetics.models, fit_settings(settings.kinetics), own,
                                    species=species, weight_g=weight_g)  # fmt: skip
    tell({"event": "fitted", "done": len(fits), "total": len(fits)})
    rows = sorted(rows + fitted, key=parameter_order)
    return rows, curve_rows(fits), fits


def parameter_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key by which rows of parameters.csv are sorted; rows of one curve keep the order they were made in."""
    place = {"": 2, POOLED: 0}.get(row["subject"], 1)
    return (row["study"], row["group"], row["label"], row["model"], place, row["subject"], row["organ"])


def _scans(
    study: Study, out: Path, engine: Engine, tell: Progress, log: journal.Journal
) -> tuple[list[Observation], list[dict[str, Any]], list[str], dict[str, str]]:
    """Quantify every scan that has no shard yet; return rows, failures, notes and input hashes."""
    records: dict[str, ScanRecord] = {}
    done: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    work: list[tuple[ScanTask | AnimalsTask, tuple[str, ...]]] = []
    groups = together(study)
    for checked, members in enumerate(groups, 1):
        readable = [r for r in members if _readable(study, r, hashes, failures)]
        tell({"event": "inputs", "done": checked, "total": len(groups)})
        if not readable:
            continue
        task = task_of(study, readable)
        keys = _keys(study, task, readable, hashes)
        records |= dict(zip(keys, readable, strict=True))
        held = {key: content for key in keys if (content := _held(out, key)) is not None}
        if len(held) == len(keys):
            done |= held
        else:
            work.append((task, keys))
    total = len(study.scans)
    tell(
        {
            "event": "scan",
            "done": len(done) + len(failures),
            "total": total,
            "failed": len(failures),
            "resumed": len(done),
        }
    )

    def part(scan: str, finished: int, of: int) -> None:
        tell({"event": "part", "name": scan, "done": finished, "total": of})

    for i, outcome in run_steps(engine, [task for task, _ in work], out, [keys[0] for _, keys in work], part):
        keys = work[i][1]
        for key, result in zip(keys, outcome if isinstance(outcome, tuple) else [outcome] * len(keys), strict=True):
            record = records[key]
            if isinstance(result, ScanResult):
                result = at_rest(study, record, hashes) or result
            if isinstance(result, BaseException):
                failures.append(_failure(record, result))
                log.add("failed", {"scan": record.scan, "reason": failures[-1]["reason"]}, sure=False)
            else:
                done[key] = _keep(out, key, result)
                log.add("measured", {"scan": record.scan, "shard": key}, sure=False)
            reason = {"reason": failures[-1]["reason"]} if isinstance(result, BaseException) else {}
            tell({"event": "scan", "done": len(done) + len(failures), "total": total, "failed": len(failures),
                  "name": record.scan, **reason})  # fmt: skip
    store.prune_shards(out, records)
    rows, notes = [], []
    for key in sorted(done, key=lambda k: records[k].scan):
        rows += [Observation.model_validate(r) for r in done[key]["rows"]]
        notes += [f"{records[key].scan}: {note}" for note in done[key]["warnings"]]
        for animal, reason in done[key].get("failures", ()):
            failures.append(
                _failure(records[key], ValueError(f"{animal}: {reason}")) | {"what": "animal", "subject": animal}
            )
    rows, doubts = told_twice(
        rows, ((records[k], str(done[k].get("pixels") or hashes.get(records[k].file, ""))) for k in done)
    )
    notes += doubts
    _write_index(out, done, records)
    return rows, sorted(failures, key=lambda f: (f["name"], f["subject"])), notes, hashes


def together(study: Study) -> list[list[ScanRecord]]:
    """Return the scans that are worked on together: all of the same animals where their anatomy is inferred, else one."""
    groups: dict[object, list[ScanRecord]] = {}
    for record in study.scans:
        joint = study.settings.imaging.footprint == "optical" and record.kind == "in_vivo"
        groups.setdefault((record.subjects, record.label) if joint else record.scan, []).append(record)
    return list(groups.values())


def _readable(study: Study, record: ScanRecord, hashes: dict[str, str], failures: list[dict[str, Any]]) -> bool:
    try:
        hash_inputs(study, record, hashes)
    except (OSError, UnreadableImage) as err:
        failures.append(_failure(record, err))
        return False
    return True


def task_of(study: Study, members: Sequence[ScanRecord]) -> ScanTask | AnimalsTask:
    """Return the task that measures scans of one group of `together`."""
    record, settings, decay = members[0], study.settings.imaging, study.settings.corrections.decay
    label = study.labels[record.label]
    animals = [study.subject(name, record.label) for name in record.subjects]
    groups = tuple(s.group if s else "all" for s in animals)
    if settings.footprint == "optical" and record.kind == "in_vivo":
        weights = tuple(s.weight_g if s else None for s in animals)
        return AnimalsTask(study.root, study.name, tuple(members), label, groups, weights, settings, decay)
    masses = {m.organ: m.mass_g for m in study.masses if m.subject == record.subject}
    return ScanTask(study.root, study.name, record, label, groups, settings, decay, masses)


def _keys(
    study: Study, task: ScanTask | AnimalsTask, members: Sequence[ScanRecord], hashes: dict[str, str]
) -> tuple[str, ...]:
    """Return the names of the shards: everything that a scan's result depends on, and which scan of its task it is."""
    inputs = [hash_inputs(study, record, hashes) for record in members]
    about: list[Any] = [task.settings.model_dump(), task.label.model_dump(), task.groups, task.decay, study.name]
    about.append(sorted(task.masses_g.items()) if isinstance(task, ScanTask) else task.weights_g)
    whole = store.key_of("scan", _version(), inputs, [r.model_dump() for r in members], about)
    return tuple(store.key_of(whole, record.scan) for record in members)


def _held(out: Path, key: str) -> dict[str, Any] | None:
    held, picture = store.read_shard(out, key), store.shard_path(out, key, ".png")
    whole = held is not None and picture.is_file() and store.sha256(picture) == held["picture"]
    return held if whole else None


def _keep(out: Path, key: str, result: ScanResult) -> dict[str, Any]:
    content = {"picture": hashlib.sha256(result.picture).hexdigest(), "rows": [r.model_dump() for r in result.rows],
               "warnings": list(result.warnings), "legend": list(result.legend),
               "failures": [list(failure) for failure in result.failures], "pixels": result.pixels}  # fmt: skip
    store.write_bytes(store.shard_path(out, key, ".png"), result.picture)
    store.write_shard(out, key, content)
    return content


def _failure(record: ScanRecord, error: BaseException) -> dict[str, Any]:
    reason = error.reason if isinstance(error, UnreadableImage) else str(error)
    if isinstance(error, UnreadableImage) and error.path.name not in {Path(record.file).name, record.scan}:
        reason = f"{error.path.name}: {reason}"
    if not isinstance(error, ValueError | RuntimeError):
        reason = f"{type(error).__name__}: {reason}"
    return {"what": "scan", "name": record.scan, "subject": record.subject, "label": record.label, "file": record.file,
            "reason": reason}  # fmt: skip


def _write_index(out: Path, done: Mapping[str, Any], records: Mapping[str, ScanRecord]) -> None:
    """Write which picture belongs to which scan, for the report."""
    rows = [{"scan": records[k].scan, "subject": records[k].subject, "label": records[k].label,
             "time_h": records[k].time_h, "kind": records[k].kind, "picture": f"scans/{k}.png",
             "legend": ";".join(done[k]["legend"])} for k in sorted(done, key=lambda k: records[k].scan)]  # fmt: skip
    columns = ("scan", "subject", "label", "time_h", "kind", "picture", "legend")
    store.write_bytes(out / "scans.csv", store.csv_bytes(rows, columns))


def correct(study: Study, scanned: Iterable[Observation], tables: Iterable[OrganTable]) -> list[Observation]:
    """Bring all observations to one footing: masses, decay, %ID, blood per gram, vessel blood; sorted."""
    settings = study.settings.corrections
    assays = assays_of(study)[0]
    rows = with_assay(list(scanned), assays)
    for table, source in zip(tables, study.observation_sources, strict=True):
        found = with_assay(table.rows, assays)
        rows += correct_decay(found, study.labels) if settings.decay and not source.decay_corrected else found
    rows = [r if r.mass_g is not None or (mass := study.mass_g(r.subject, r.organ)) is None
            else r.model_copy(update={"mass_g": mass}) for r in rows]  # fmt: skip
    rows = [r.model_copy(update={"group": s.group}) if (s := study.subject(r.subject, r.label)) else r for r in rows]
    given = dosing_of(study)
    held = rows if settings.decay else [r for r in rows if study.labels[r.label].half_life_h is None]
    kept = [] if settings.decay else [r for r in rows if study.labels[r.label].half_life_h is not None]
    # an activity that was not corrected for decay is no share of the dose, so it stays in Bq
    rows = share_of_dose(held, {k: (d.dose, d.dose_unit) for k, d in given.items()}) + kept
    rows = with_assay(blood_per_gram(rows), assays)  # a curve in % of dose; rows that have its error keep it
    if settings.vessel_blood == "subtract":
        perfused = {(s.group, s.subject, s.label): s.perfused for s in study.subjects}
        for source in study.observation_sources:
            if source.label is not None:
                perfused.setdefault((source.group, source.subject, source.label), source.perfused)
        rows = subtract_vessel_blood(rows, study.species, perfused)
    return sorted(rows, key=lambda r: (r.group, r.label, r.subject, r.organ not in BLOOD, r.organ, r.time_h, r.unit))


def dosing_of(study: Study) -> dict[tuple[str, str, str], Dosing]:
    """Return what every animal got, by (group, subject, label); tables without subjects by what the study says of them."""
    dosing = {
        (s.group, s.subject, s.label): Dosing(s.dose, s.dose_unit, s.route, s.infusion_h or 0.0, s.perfused)
        for s in study.subjects
    }
    for source in study.observation_sources:
        if source.label is not None:
            given = Dosing(source.dose or math.nan, source.dose_unit or "", source.route, perfused=source.perfused)
            dosing.setdefault((source.group, source.subject, source.label), given)
    return dosing


def _as_row(study: Study, r: Observation) -> dict[str, Any]:
    row = r.model_dump()
    row["study"] = r.study or study.name
    return {column: row[column] for column in OBSERVATION_COLUMNS}


def frame_of(observations: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of an observations table as a DataFrame whose numeric columns are float."""
    import pandas as pd

    frame = pd.DataFrame(observations, columns=list(OBSERVATION_COLUMNS))
    numbers = ["time_h", "value", "se", "mass_g", "lloq", "se_systematic", "sd", "n", "vessel_blood"]
    frame[numbers] = frame[numbers].astype(float)
    return frame


def curve_rows(fits: Mapping[tuple[str, str, str, str], FitResult]) -> list[dict[str, Any]]:
    """Return fitted curves with pointwise intervals on a fine grid, for figures."""
    import numpy as np

    rows = []
    for (study, group, label, model), fitted in sorted(fits.items()):
        last = float(fitted.data.time_h.max())
        first = float(fitted.data.time_h[fitted.data.time_h > 0].min())
        grid = np.unique(np.r_[0.0, np.geomspace(first / 4, last, 60)])
        for place, (organ, (value, low, high)) in enumerate(fitted.predict(grid).items()):
            rows += [{"study": study, "group": group, "label": label, "organ": organ, "model": model, "time_h": float(t),
                      "value": float(v), "low": float(lo), "high": float(hi), "unit": fitted.data.unit[place]}
                     for t, v, lo, hi in zip(grid, value, low, high, strict=True)]  # fmt: skip
    return rows


def _version() -> str:
    return version("evbiodist")


def _write(study: Study, result: RunResult, hashes: dict[str, str], started: str, quantify_only: bool) -> None:
    import tomli_w

    out = result.out
    assert out is not None  # noqa: S101
    tables = {
        "observations": (result.observations, OBSERVATION_COLUMNS),
        "failures": (result.failures, FAILURE_COLUMNS),
    }
    if not quantify_only:
        tables |= {"parameters": (result.parameters, PARAMETER_COLUMNS), "curves": (result.curves, CURVE_COLUMNS),
                   "comparisons": (result.comparisons, COMPARISON_COLUMNS)}  # fmt: skip
        tables |= {name: (getattr(result.comparison, name), columns) for name, columns in TABLES.items()}
    for name in ("parameters", "curves", "comparisons", *TABLES):
        if name not in tables:  # what an earlier, longer run left does not belong to these observations
            (out / f"{name}.csv").unlink(missing_ok=True)
            (out / "report.html").unlink(missing_ok=True)
    for name, (rows, columns) in tables.items():
        store.write_bytes(out / f"{name}.csv", store.csv_bytes(rows, columns))
    store.write_bytes(out / "settings.toml", tomli_w.dumps(settings_document(study, out)).encode())
    store.write_bytes(out / "study.json", _json(describe(study, result)))
    provenance = {
        "evbiodist": _version(),
        "study": study.name,
        "started": started,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": {**{name: store.sha256(study.root / name) for name in sorted(set(study.files))},
                   **dict(sorted(hashes.items()))},
        "settings": study.settings.model_dump(mode="json"),
        "outputs": {name: store.sha256(out / name) for name in sorted([*(f"{t}.csv" for t in tables), "study.json"])},
        "versions": {"python": platform.python_version(),
                     **{p: version(p) for p in ("lmfit", "numpy", "pandas", "scikit-image", "scipy", "tifffile")}},
    }  # fmt: skip
    store.write_bytes(out / "provenance.json", _json(provenance))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def settings_document(study: Study, out: Path) -> dict[str, Any]:
    """Return the settings of a run with the study they belong to, as `evbiodist run` takes them again."""
    import os

    settings = study.settings.model_dump(mode="json", exclude_none=True)
    return {"study_file": Path(os.path.relpath(study.root / study.files[0], out.resolve())).as_posix(), **settings}


def describe(study: Study, result: RunResult) -> dict[str, Any]:
    """Return what the report needs to know of the study: design, labels, and what is missing."""
    groups: dict[str, dict[str, Any]] = {}
    for s in study.subjects:
        g = groups.setdefault(f"{s.group} / {s.label}", {"group": s.group, "label": s.label, "animals": 0, "female": 0,
                                                         "male": 0, "perfused": 0, "routes": []})  # fmt: skip
        g["animals"] += 1
        g["female"] += s.sex == "F"
        g["male"] += s.sex == "M"
        g["perfused"] += s.perfused
        g["routes"] = sorted({*g["routes"], s.route})
    return {
        "name": study.name,
        "species": study.species,
        "description": study.description,
        "source": study.source,
        "simulated": study.simulated,
        "vesicles": study.vesicles.model_dump(mode="json", exclude_none=True) if study.vesicles else {},
        "labels": {k: v.model_dump(mode="json", exclude_none=True) for k, v in study.labels.items()},
        "groups": [groups[k] for k in sorted(groups)],
        "subjects": [s.model_dump(mode="json", exclude_none=True) for s in study.subjects],
        "scans": len(study.scans),
        "settings": study.settings.model_dump(mode="json"),
        "sources": [s.model_dump(mode="json") for s in study.observation_sources],
        "missing": missing_parts(study),
        "notes": sorted(set(result.notes)),
    }


def missing_parts(study: Study) -> list[str]:
    """Return, as sentences, what a study of vesicles should hold and this one does not."""
    found = []
    groups = [*(s.group for s in study.subjects), *(s.group for s in study.observation_sources)]
    there = (any(s.perfused for s in study.subjects), study.settings.imaging.standard is not None or not study.scans,
             any(label.readout == "homogenate" for label in study.labels.values()))  # fmt: skip
    groups += [
        word for word, is_there in zip(("perfused", "dose_standard", "homogenate"), there, strict=True) if is_there
    ]
    found += missing_controls({name: label_model(name, label) for name, label in study.labels.items()}, groups)
    if study.subjects and not any(s.perfused for s in study.subjects):
        found.append("No animal was perfused: vessel blood is subtracted by published blood fractions.")
    if study.scans and study.settings.imaging.standard is None:
        found.append("No dose standard in the images: signals stay in instrument units and are not % of dose.")
    if study.subjects and len({s.sex for s in study.subjects} - {"unknown"}) < 2:
        found.append("Only one sex, or none stated: ICH S12 asks for both.")
    if len(study.labels) < 2:
        found.append("One label only: nothing can be cross-validated.")
    return found
