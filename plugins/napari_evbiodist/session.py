"""One study as window, command line and scripts see it: what was opened, what was edited, and its numbers.

Nothing is computed here: every number comes from the functions of the batch, so a saved session run by
`evbiodist run` gives the same bytes.
"""

from __future__ import annotations

import copy
import hashlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from evbiodist.batch import pipeline, store
from evbiodist.batch.animals import AnimalsTask
from evbiodist.batch.engine import run_tasks
from evbiodist.batch.inputs import told_twice
from evbiodist.batch.scans import ScanResult, ScanTask, find_organs, label_image, load_scan
from evbiodist.batch.volumes import through
from evbiodist.imaging.organs import OrganMap, from_label_image
from evbiodist.io.registry import read_scan, reader_for
from evbiodist.io.scan import Scan
from evbiodist.study.labels import fill
from evbiodist.study.load import inside, load_study
from evbiodist.study.model import OBSERVATION_COLUMNS, Label, Observation, ScanRecord, Settings, Study
from evbiodist.study.problems import InputError, Problem, UnreadableImage
from evbiodist.study.tables import explain
from evbiodist.study.vocabulary import organ_name
from napari_evbiodist.edits import Edit, Steps, append, read_history
from napari_evbiodist.organs_model import copy_organs
from napari_evbiodist.reader import TABLE_READERS, study_file
from napari_evbiodist.writers import read_organs, save_organs

#: Folder for the label images of edits, inside of the study.
EDITS = "evbiodist_edits"
#: How many images are held in memory.
_HELD = 2
#: What a single file does not say of itself and the user has to.
_NEEDED = ("subject", "label", "time_h")


@dataclass(frozen=True)
class ScanRow:
    """A row of the table of scans: what it is, and what is missing or odd about it with what to do."""

    scan: str
    subject: str
    label: str
    time_h: float | None
    kind: str
    file: str
    edited: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """Rows of observations.csv as the batch writes them, and the scans that gave none, with the reason."""

    rows: list[dict[str, Any]]
    failures: dict[str, str]

    def csv(self) -> bytes:
        """Return the bytes of observations.csv."""
        return store.csv_bytes(self.rows, OBSERVATION_COLUMNS)


@dataclass(frozen=True)
class Work:
    """Scans that are measured together, and the task that measures them."""

    members: tuple[ScanRecord, ...]
    task: ScanTask | AnimalsTask


def read_image(source: tuple[Path, ScanRecord | str]) -> Scan:
    """Read what `Session.source_of` names: a study's scan, or an image that no study describes yet."""
    root, what = source
    return read_scan(root / what) if isinstance(what, str) else load_scan(root, what)


class Session:
    """A study with the edits made to it.

    Parameters
    ----------
    study : as it was read.
    document : its study.toml as a dictionary.
    annotator : who edits.
    results : the result folder that was opened, or None.
    """

    def __init__(
        self, study: Study, document: dict[str, Any], *, annotator: str = "", results: Path | None = None
    ) -> None:
        self.study, self.annotator, self.results = study, annotator, results
        self.drafts: dict[str, dict[str, Any]] = {}
        self.saved: Path | None = None
        self._document = document
        self._opened = study
        self._steps: dict[str, Steps[OrganMap | None]] = {}
        self._done: dict[str, ScanResult | BaseException] = {}
        self._held: dict[str, Scan] = {}

    @classmethod
    def open(cls, path: str | Path | Sequence[str | Path], *, annotator: str = "") -> Session:
        """Open a study.toml, settings.toml, result folder, folder of a study, or image files.

        Parameters
        ----------
        path : one of them, or several image files. Images without a study become scans of which subject, label and time
            are asked for, see `tell`.

        Raises
        ------
        InputError : everything wrong with the study.
        ValueError : nothing there that can be opened.

        Examples
        --------
        >>> from evbiodist.sample import sample_data
        >>> session = Session.open(sample_data() / "demo")
        >>> session.study.name, session.table()[0].scan, session.problems()
        ('digital mouse', 'DiR_0.083h_1', [])
        """
        paths = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
        if not paths:
            raise ValueError("nothing was named; open a study.toml, a result folder, or images")
        file = study_file(paths[0]) if len(paths) == 1 else None
        if file is None:
            return cls._of_images(paths, annotator)
        study = load_study(file)
        document = tomllib.loads((study.root / study.files[0]).read_text(encoding="utf-8-sig"))
        results = paths[0] if paths[0].is_dir() and (paths[0] / "observations.csv").is_file() and (
            file.name == "settings.toml") else None  # fmt: skip
        return cls(study, document, annotator=annotator, results=results)

    @classmethod
    def _of_images(cls, paths: list[Path], annotator: str) -> Session:
        files = [file for path in paths for file in _images(path)]
        if not files:
            raise ValueError(f"{', '.join(p.name for p in paths)}: no study and no image that evbiodist reads; "
                             "see evbiodist info for what a file is")  # fmt: skip
        root = files[0].resolve().parent
        strange = [f.name for f in files if not f.resolve().is_relative_to(root)]
        if strange:
            raise ValueError(f"{', '.join(strange[:3])} lies in another folder than {files[0].name}; a study's files lie in one "
                             "folder: open the folder above, or copy them together")  # fmt: skip
        study = Study(root=root, name=root.name or "study", species="mouse", description="", source="", simulated=False,
                      labels={}, subjects=(), scans=(), masses=(), observation_sources=(), settings=Settings(),
                      files=())  # fmt: skip
        session = cls(study, {"name": study.name, "labels": {}, "tables": {}}, annotator=annotator)
        for file in files:
            name = file.resolve().relative_to(root).as_posix()
            session.drafts[name] = {"scan": name, "file": name, "kind": "in_vivo", "subject": None, "label": None,
                                    "time_h": None}  # fmt: skip
        return session

    def without_pixels(self) -> Session:
        """Return a copy that holds no images and no numbers: small enough to send to another process, which saves it."""
        light = copy.copy(self)
        light._held, light._done, light._steps = {}, {}, {}
        return light

    # what is there

    def table(self) -> list[ScanRow]:
        """Return every scan with what is missing or odd about it, in the order of scans.csv."""
        problems = self.problems()
        rows = [ScanRow(r.scan, r.subject, r.label, r.time_h, r.kind, r.file, self._edited(r.scan),
                        tuple(str(p) for p in problems if f"scan '{r.scan}'" in p.remedy)) for r in self.study.scans]  # fmt: skip
        for d in self.drafts.values():
            missing = ", ".join(key for key in _NEEDED if d[key] is None)
            why = (f"{d['file']}: {missing} not known, so it is shown but not measured; give them in the table",)
            rows.append(
                ScanRow(d["scan"], d["subject"] or "", d["label"] or "", d["time_h"], d["kind"], d["file"], False, why)
            )
        return rows

    @property
    def untouched(self) -> bool:
        """Whether the study is as it was opened, so that the numbers of its result folder are its numbers."""
        return self.study is self._opened

    def problems(self) -> list[Problem]:
        """Return what is wrong with the study, fatal problems first, as `evbiodist check` does."""
        return pipeline.check(self.study)

    def missing(self) -> list[str]:
        """Return, as sentences, what a study of vesicles should hold and this one does not."""
        return pipeline.missing_parts(self.study)

    def record(self, scan: str) -> ScanRecord:
        """Return the row of scans.csv of a scan.

        Raises
        ------
        ValueError : no such scan, or one of which not all is told yet.
        """
        found = next((r for r in self.study.scans if r.scan == scan), None)
        if found is None and scan in self.drafts:
            missing = ", ".join(key for key in _NEEDED if self.drafts[scan][key] is None)
            raise ValueError(f"{missing} of scan '{scan}' not known; give them in the table of scans")
        if found is None:
            raise ValueError(f"no scan '{scan}' in study '{self.study.name}'; see the table of scans")
        return found

    def scan(self, scan: str) -> Scan:
        """Read a scan's image with what scans.csv says about it; the last ones are held."""
        if scan not in self._held:
            self.hold(scan, read_image(self.source_of(scan)))
        return self._held[scan]

    def source_of(self, scan: str) -> tuple[Path, ScanRecord | str]:
        """Return what `read_image` reads a scan from, small enough to send to another process."""
        if scan in self.drafts:
            return self.study.root, str(self.drafts[scan]["file"])
        return self.study.root, self.record(scan)

    def hold(self, scan: str, image: Scan) -> None:
        """Keep an image that was read elsewhere, so that it is not read again."""
        self._held[scan] = image
        while len(self._held) > _HELD:
            del self._held[next(iter(self._held))]

    def organs(self, scan: str) -> OrganMap:
        """Return a scan's organs: as edited, else as its study finds them."""
        record = self.record(scan)
        return find_organs(self.study.root, record, self.scan(scan), self.study.settings.imaging)

    # what is told and set

    def tell(self, scan: str, **facts: Any) -> None:
        """Say what an image file does not: subject, label, time_h, and other columns of scans.csv.

        Raises
        ------
        InputError : a value that the column does not take.
        """
        if scan not in self.drafts:
            raise ValueError(f"'{scan}' is a row of {self.study.scans_table}; correct it there")
        draft = {**self.drafts[scan], **facts}
        if any(draft[key] is None for key in _NEEDED):
            self.drafts[scan] = draft
            return
        try:
            record = ScanRecord.model_validate({k: v for k, v in draft.items() if v is not None})
        except ValidationError as err:
            raise InputError(Problem(scan, found, expected, remedy, field=field)
                             for field, found, expected, remedy in map(explain, err.errors())) from None  # fmt: skip
        del self.drafts[scan]
        self._held.pop(scan, None)
        self.saved = None
        labels = self.study.labels
        if record.label not in labels:
            self._document["labels"][record.label] = {"kind": "molecular", "description": "not described"} | fill(
                record.label, {}
            )
            labels = {**labels, record.label: Label.named(record.label)}
        scans = sorted([*self.study.scans, record], key=lambda r: r.scan)
        self.study = self.study.model_copy(update={"scans": tuple(scans), "labels": labels})

    def change_settings(self, **sections: dict[str, Any]) -> None:
        """Change settings, by section and key as in study.toml: ``change_settings(imaging={"footprint": "roi"})``.

        Raises
        ------
        InputError : a key or value that study.toml would not take.
        """
        now = self.study.settings.model_dump(exclude_none=True)
        for section, keys in sections.items():
            now[section] = {**now.get(section, {}), **keys}
        try:
            settings = Settings.model_validate(now)
        except ValidationError as err:
            raise InputError(Problem("settings", found, expected, remedy, field=field)
                             for field, found, expected, remedy in map(explain, err.errors())) from None  # fmt: skip
        before = self.study.settings
        self._change(settings=settings)
        if (settings.imaging, settings.corrections) != (before.imaging, before.corrections):
            self._done.clear()  # kinetics and comparison of labels change nothing about what was measured

    # edits

    def set_organs(self, scan: str, organs: OrganMap, action: str = "paint") -> OrganMap:
        """Take organs as those of a scan: they are saved as a label image beside their history, and undo brings back the former.

        Parameters
        ----------
        scan : its name.
        organs : on the scan's grid or a whole multiple of it.
        action : a word for the history.

        Returns
        -------
        OrganMap : as the batch will read it: pixel values are renumbered where the study's table gives them to another organ.

        Raises
        ------
        ValueError : another grid, or a study's folder that cannot be written.
        """
        record = self.record(scan)
        image = self.scan(scan)
        table = dict(self.study.settings.imaging.organ_labels)
        renumbered = _on_table(organs, table)
        from_label_image(
            renumbered.labels, {str(v): n for v, n in renumbered.names.items()}, image.frame_shape
        )  # or refuse
        steps = self._steps.setdefault(scan, Steps(self._label_image(record, image)))
        self._put(record, image, renumbered, action, table)
        steps.add(renumbered)
        return self.organs(scan)

    def undo(self, scan: str) -> OrganMap:
        """Go back to a scan's organs before the last edit and return them."""
        return self._step(scan, "undo")

    def redo(self, scan: str) -> OrganMap:
        """Take an undone edit again and return the organs."""
        return self._step(scan, "redo")

    def history(self, scan: str) -> tuple[Edit, ...]:
        """Return every edit of a scan's organs, the oldest first."""
        kept = self._label_path(scan)
        return read_history(
            _history_of(kept if kept.is_file() else self.study.root / (self.record(scan).organs or "-"))
        )

    def propagate(self, scan: str, by: str = "intensity") -> dict[str, str]:
        """Copy a scan's organs onto the later scans of the same animal, label, kind and view.

        Parameters
        ----------
        scan : whose organs are right.
        by : `identity`, `intensity` or `body`, as for `copy_organs`.

        Returns
        -------
        dict : by scan, empty text where the organs were taken over, else why not.
        """
        organs, image = self.organs(scan), self.scan(scan)
        told: dict[str, str] = {}
        for later in self.later(scan):
            try:
                self.set_organs(later, copy_organs(organs, image, self.scan(later), by), f"propagate from {scan}")
                told[later] = ""
            except ValueError as err:
                told[later] = str(err)
        return told

    def later(self, scan: str) -> list[str]:
        """Return the later scans of the same animal, label, kind and view, in the order of time."""
        source = self.record(scan)
        alike = [r for r in self.study.scans if r.time_h > source.time_h
                 and (r.subject, r.label, r.kind, r.view) == (source.subject, source.label, source.kind, source.view)]  # fmt: skip
        return [r.scan for r in sorted(alike, key=lambda r: r.time_h)]

    def earlier_edits(self) -> list[str]:
        """Return the scans whose organs an earlier session edited and nobody saved in a study."""
        found = []
        for r in self.study.scans:
            kept = self._label_path(r.scan)
            if r.scan not in self._steps and not self._edited(r.scan) and kept.is_file():
                history = self.history(r.scan)
                found += [r.scan] if history and history[-1].sha256 else []
        return found

    def take_up(self) -> list[str]:
        """Take the organs of `earlier_edits` and return the scans' names.

        Raises
        ------
        ValueError : a label image that no longer fits its scan; those before it are taken.
        """
        taken = []
        for scan in self.earlier_edits():
            named = read_organs(self._label_path(scan))
            if named is None:
                raise ValueError(
                    f"{EDITS}/{self._label_path(scan).name}: the names of its organs are gone; remove that file"
                )
            self.set_organs(scan, named[0], "take up")
            taken.append(scan)
        return taken

    def _step(self, scan: str, action: str) -> OrganMap:
        record = self.record(scan)
        steps = self._steps.setdefault(scan, Steps(None))
        state = steps.back() if action == "undo" else steps.forward()
        if state is None or not steps.can_undo:
            self._restore(record, action)
        else:
            self._put(record, self.scan(scan), state, action, dict(self.study.settings.imaging.organ_labels))
        return self.organs(scan)

    def _put(self, record: ScanRecord, image: Scan, organs: OrganMap, action: str, table: dict[str, str]) -> None:
        path = self._label_path(record.scan)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            finer = [n / m for n, m in zip(image.plane_shape, organs.labels.shape[-2:], strict=True)]
            size = image.pixel_size_mm
            save_organs(path, organs, (size[0] * finer[0], size[1] * finer[1]) if size else None, image.slice_mm)
            earlier, history = _history_of(self.study.root / (record.organs or "-")), _history_of(path)
            if earlier != history and earlier.is_file() and not history.exists():
                store.write_bytes(history, earlier.read_bytes())
            append(history, Edit.of(organs, self.annotator, action))
        except OSError as err:
            raise ValueError(f"edits are kept in '{EDITS}' inside the study's folder, which cannot be written "
                             f"({err.strerror or err}); copy the study to a folder of yours and open that") from err  # fmt: skip
        table.update({str(v): name for v, name in organs.names.items()})
        settings = self.study.settings
        imaging = settings.imaging.model_copy(update={"organ_labels": table})
        self._change(settings.model_copy(update={"imaging": imaging}),
                     record.model_copy(update={"organs": path.relative_to(self.study.root).as_posix()}))  # fmt: skip
        self._forget(record)

    def _restore(self, record: ScanRecord, action: str) -> None:
        first = next((r.organs for r in self._opened.scans if r.scan == record.scan), None)
        append(_history_of(self._label_path(record.scan)), Edit.of(None, self.annotator, action))
        self._change(record=record.model_copy(update={"organs": first}))
        self._forget(record)

    def _label_image(self, record: ScanRecord, image: Scan) -> OrganMap | None:
        """Return the label image that a scan has, None where its organs are found by segmentation."""
        return label_image(self.study.root, record, image, self.study.settings.imaging) if record.organs else None

    def _label_path(self, scan: str) -> Path:
        return self.study.root / EDITS / f"{_file_name(scan)}.ome.tif"

    def _edited(self, scan: str) -> bool:
        return (self.record(scan).organs or "").startswith(f"{EDITS}/")

    def _change(self, settings: Settings | None = None, record: ScanRecord | None = None) -> None:
        scans = tuple(record if record and r.scan == record.scan else r for r in self.study.scans)
        self.study = self.study.model_copy(update={"scans": scans, "settings": settings or self.study.settings})
        self.saved = None

    def _forget(self, record: ScanRecord) -> None:
        for member in self._members(record.scan):
            self._done.pop(member.scan, None)

    def _members(self, scan: str) -> list[ScanRecord]:
        """Return the scans that the batch measures together with this one, itself among them."""
        return next(group for group in pipeline.together(self.study) if any(r.scan == scan for r in group))

    # numbers

    def run_scan(self, scan: str) -> ScanResult:
        """Measure one scan as the batch does; where anatomy is inferred, its animal's other scans are measured along.

        Returns
        -------
        ScanResult : rows before the corrections that need the whole study (see `observations`).

        Raises
        ------
        ValueError : why the scan cannot be measured, as failures.csv would say.
        """
        self.record(scan)
        for work in self.pending([scan]):
            [(_, outcome)] = run_tasks(through, [work.task])
            self.take(work, outcome)
        result = self._done[scan]
        if isinstance(result, BaseException):
            raise result
        return result

    def pending(self, scans: Sequence[str] | None = None) -> list[Work]:
        """Return what must be measured before all scans, or some, have numbers; each can be done in another process."""
        wanted = {r.scan for r in self.study.scans} if scans is None else set(scans)
        groups = [tuple(members) for members in pipeline.together(self.study)
                  if any(r.scan in wanted and r.scan not in self._done for r in members)]  # fmt: skip
        return [Work(members, pipeline.task_of(self.study, members)) for members in groups]

    def measured(self) -> list[str]:
        """Return the scans that have numbers, by name."""
        return sorted(name for name, result in self._done.items() if not isinstance(result, BaseException))

    def unmeasured(self) -> list[str]:
        """Return the scans that nobody tried to measure since they were last changed, by name."""
        return sorted(r.scan for r in self.study.scans if r.scan not in self._done)

    def scanned(self) -> tuple[list[Observation], dict[str, str]]:
        """Return the rows of all scans that were measured, before corrections, and why others have none."""
        rows: list[Observation] = []
        failures: dict[str, str] = {}
        for name in sorted(r.scan for r in self.study.scans):
            result = self._done.get(name, ValueError("it is not measured yet"))
            if isinstance(result, BaseException):
                failures[name] = str(result)
                continue
            rows += result.rows
            failures |= {f"{name}, {animal}": reason for animal, reason in result.failures}
        return self._told_twice(rows), failures

    def _told_twice(self, rows: list[Observation]) -> list[Observation]:
        """Flag images that stand twice in the study, as the batch does."""
        pixels = [
            (r, result.pixels) for r in self.study.scans if isinstance(result := self._done.get(r.scan), ScanResult)
        ]
        return told_twice(rows, pixels)[0]

    def take(self, work: Work, outcome: Any) -> None:
        """Take what ``through(work.task)`` gave, or the exception that it raised; outdated work is left aside."""
        if (
            any(self.record(r.scan) != r for r in work.members)
            or pipeline.task_of(self.study, work.members) != work.task
        ):
            return
        found = outcome if isinstance(outcome, tuple) else (outcome,) * len(work.members)
        self._done |= {r.scan: result for r, result in zip(work.members, found, strict=True)}

    def observations(self, scans: Sequence[str] | None = None) -> Numbers:
        """Return the observations of the study, of all scans or of some, as the batch writes them.

        Parameters
        ----------
        scans : names; all when None. Corrections (blood, masses, share of dose) see only what is measured here, so the
            bytes are those of `evbiodist run` when all are.

        Raises
        ------
        InputError : an observations table of the study that cannot be used.
        """
        tables, problems = pipeline.check_tables(self.study)
        if problems:
            raise InputError(problems)
        rows: list[Observation] = []
        failures: dict[str, str] = {}
        for name in sorted(r.scan for r in self.study.scans) if scans is None else sorted(scans):
            try:
                rows += self.run_scan(name).rows
            except (ValueError, RuntimeError, OSError) as err:
                failures[name] = str(err)
        rows = self._told_twice(rows)
        return Numbers(pipeline.analyse(self.study, rows, tables, quantify_only=True).observations, failures)

    # saving

    def save(self, folder: str | Path) -> Path:
        """Write settings.toml, the study and its edited organs, from which `evbiodist run` gives the session's numbers.

        Parameters
        ----------
        folder : new or of an earlier save. Inside the study's folder the images stay where they are; elsewhere the study's files
            are copied, as a study's files lie in its own folder.

        Returns
        -------
        Path : of settings.toml.

        Raises
        ------
        ValueError : the study's own folder, a folder that holds something else, or rows of which not all is told.
        """
        if self.drafts:
            raise ValueError(f"{len(self.drafts)} scans have no subject, label or time yet ({', '.join(sorted(self.drafts)[:3])}); "
                             "give them in the table of scans, or leave the files out")  # fmt: skip
        folder, root = Path(folder).resolve(), self.study.root.resolve()
        if root.is_relative_to(folder):
            raise ValueError(f"'{folder.name}' holds the study itself, which is left as it is; choose a new folder")
        settings_file = folder / "settings.toml"
        if folder.exists() and any(folder.iterdir()) and not (folder / "session.json").is_file():
            raise ValueError(f"'{folder.name}' holds other files; choose a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        store.write_bytes(folder / "session.json", b'{"saved_by": "napari_evbiodist"}\n')
        within = folder.is_relative_to(root)
        home = root if within else folder
        study_path = root / f"{folder.name}.study.toml" if within else folder / "study.toml"
        if not within:
            self._copy_files(home)
        scans = [self._saved_record(r, folder, home) for r in self.study.scans]
        columns = list(ScanRecord.model_fields)
        store.write_bytes(folder / "scans.csv", store.csv_bytes([r.model_dump() for r in scans], columns))
        settings = self.study.settings.model_dump(mode="json", exclude_none=True)
        tables = {**self._document["tables"], "scans": (folder / "scans.csv").relative_to(home).as_posix()}
        if not scans:
            tables.pop("scans")
        store.write_bytes(study_path, tomli_w.dumps({**self._document, **settings, "tables": tables}).encode())
        leads_to = f"{'../' * len(folder.relative_to(home).parts)}{study_path.name}"
        store.write_bytes(settings_file, tomli_w.dumps({"study_file": leads_to, **settings}).encode())
        self.saved = settings_file
        return settings_file

    def _saved_record(self, record: ScanRecord, folder: Path, home: Path) -> ScanRecord:
        """Return a row of the saved scans.csv; an edited label image is copied there with its history."""
        if not self._edited(record.scan):
            return record
        source = self.study.root / (record.organs or "")
        target = folder / "organs" / source.name
        target.parent.mkdir(exist_ok=True)
        store.write_bytes(target, source.read_bytes())
        store.write_bytes(_history_of(target), _history_of(source).read_bytes())
        return record.model_copy(update={"organs": target.relative_to(home).as_posix()})

    def _copy_files(self, home: Path) -> None:
        """Copy everything that the study names, with what lies beside an image and belongs to it."""
        imaging = self.study.settings.imaging
        names = [*self.study.files[1:], imaging.spectra, imaging.curve.file if imaging.curve else None]
        names = [n for n in names if n != self.study.scans_table]
        for r in self.study.scans:
            names += [r.file, r.photograph, None if self._edited(r.scan) else r.organs]
        for name in dict.fromkeys(n for n in names if n):
            path = inside(self.study.root, name)
            if path is None or not path.exists():
                continue  # its scan fails in the batch too, with the reason
            for source in _belonging(self.study.root / name):
                target = home / source.relative_to(self.study.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                elif not target.exists():
                    shutil.copy2(source, target)

    def as_command(self, out: str = "results") -> str:
        """Return the command that runs this session again.

        Raises
        ------
        ValueError : changes that are not saved.
        """
        return f"evbiodist run {shlex.quote(str(self.settings_file()))} --out {shlex.quote(out)}"

    def as_python(self, out: str = "results") -> str:
        """Return a script that runs this session again.

        Raises
        ------
        ValueError : changes that are not saved.
        """
        return f"import evbiodist as ev\n\nstudy = ev.load_study({str(self.settings_file())!r})\nresult = ev.run(study, out={out!r})\n"

    def settings_file(self) -> Path:
        """Return the file that `evbiodist run` runs this session from.

        Raises
        ------
        ValueError : changes that are not saved.
        """
        if self.saved is not None:
            return self.saved
        if self.study is not self._opened or not self.study.files:
            raise ValueError("the session has changes that are in no file yet; save it first")
        if self.results is not None:
            return self.results / "settings.toml"
        return self.study.root / self.study.files[0]


def _images(path: Path) -> list[Path]:
    """Return a path that a reader takes as an image, or the images in a folder, by name."""
    try:
        return [] if reader_for(path) in TABLE_READERS else [path]
    except UnreadableImage:
        if not path.is_dir():
            return []
    return [image for p in sorted(path.iterdir()) if not p.name.startswith(".") and p.name != EDITS
            for image in (_images(p) if p.is_file() or _is_image_folder(p) else [])]  # fmt: skip


def _is_image_folder(path: Path) -> bool:
    try:
        return reader_for(path) not in TABLE_READERS
    except UnreadableImage:
        return False


def _file_name(scan: str) -> str:
    """Return a file name of a scan's own, with a part of its hash where letters had to be left out.

    Examples
    --------
    >>> _file_name("DiR_2h_1"), _file_name("a/b") != _file_name("a_b")
    ('DiR_2h_1', True)
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", scan).strip(".")[:80] or "scan"
    return plain if plain == scan else f"{plain}_{hashlib.sha256(scan.encode()).hexdigest()[:8]}"


def _history_of(label_image: Path) -> Path:
    """Return where the history of a label image lies: beside it."""
    return label_image.with_name(f"{label_image.name.removesuffix('.ome.tif')}.jsonl")


def _on_table(organs: OrganMap, table: dict[str, str]) -> OrganMap:
    """Return an organ map whose pixel values mean what the study's table says; values that it lacks are kept."""
    import numpy as np

    given = {int(v): organ_name(name) for v, name in table.items()}
    present = [int(v) for v in np.unique(organs.labels) if v]
    names: dict[int, str] = {}
    labels = organs.labels.copy()
    wanted = {v: organ_name(organs.names[v]) for v in present}
    kept = {v for v in present if given.get(v, wanted[v]) == wanted[v]}
    for value in present:
        new = value
        if value not in kept:
            taken = kept | set(names)
            free = [v for v, name in given.items() if name == wanted[value] and v not in taken]
            new = free[0] if free else max([*given, *present, *names, 0]) + 1
            labels[organs.labels == value] = new
        names[new] = wanted[value]
    return OrganMap(labels, names, "label image")


def _belonging(path: Path) -> list[Path]:
    """Return a file with what is part of it: sidecars and headers of its stem; the whole folder of an instrument's click."""
    if path.is_dir():
        return [path]
    if (path.parent / "ClickInfo.txt").exists():
        return [path.parent]
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    beside = [path.with_name(f"{stem}{end}") for end in (".json", ".toml", ".hdr")] + [
        path.with_name(f"{path.name}.hdr")
    ]
    return [path, *(p for p in beside if p.is_file() and p != path)]
