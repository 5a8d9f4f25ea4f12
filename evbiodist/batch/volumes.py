"""A scan that is a volume larger than memory: cut into parts that any process can sum, joined when all are there.

Parts are results of their own, so that a run that was killed in the middle of a volume goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evbiodist.batch import store
from evbiodist.batch.animals import AnimalsTask, process_any
from evbiodist.batch.engine import Engine
from evbiodist.batch.scans import (
    NOT_REGISTERED,
    LargeVolume,
    ScanResult,
    ScanTask,
    by_curve,
    check_subjects,
    file_of,
    load_scan,
    picture,
    rows_of,
)
from evbiodist.imaging.footprints import Box
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pieces import Sums, Survey, VolumeOrgans, added, shares, survey, tiles
from evbiodist.imaging.volume import Stage, VolumeSignals, begin, go_on
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import Scan
from evbiodist.io.stream import AxesView
from evbiodist.study.model import ImagingSettings
from evbiodist.study.problems import UnreadableImage
from evbiodist.study.vocabulary import organ_name


@dataclass(frozen=True, eq=False)
class VolumePart:
    """Some boxes of one volume of a scan, and what to gather there."""

    task: ScanTask
    frame: int
    plan: Survey
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """A scan that is to be measured in parts, frame by frame: where each frame stands, and the parts of those that go on."""

    task: ScanTask
    stages: tuple[Stage | VolumeSignals, ...]
    parts: tuple[VolumePart, ...]


@dataclass(frozen=True, eq=False)
class VolumeJoin:
    """A split scan with the sums of its parts, in their order."""

    split: Split
    sums: tuple[Sums, ...]


Step = ScanTask | AnimalsTask | VolumePart | VolumeJoin
Outcome = tuple[ScanResult | ValueError, ...] | Split | Sums
#: Gets how many parts of a scan are done, and of how many.
Told = Callable[[str, int, int], None]


def step(task: Step) -> Outcome:
    """Do one task of a run; a scan that is too large for one becomes a `Split`.

    Raises
    ------
    ValueError : (or UnreadableImage) with the reason in words.
    """
    if isinstance(task, VolumePart):
        scan = load_scan(task.task.root, task.task.record)
        return survey(scan, _organs(task.task, scan), task.plan, task.boxes, task.frame)
    if isinstance(task, VolumeJoin):
        return _joined(task)
    try:
        return process_any(task)
    except LargeVolume:
        assert isinstance(task, ScanTask)  # noqa: S101  others hold photographs of animals
        return _split(task)


def through(task: ScanTask | AnimalsTask) -> tuple[ScanResult | ValueError, ...]:
    """Quantify what belongs together, here and from beginning to end.

    Raises
    ------
    ValueError : (or UnreadableImage) with the reason in words.
    """
    found = step(task)
    while isinstance(found, Split):
        found = step(VolumeJoin(found, tuple(s for part in found.parts if isinstance(s := step(part), Sums))))
    assert isinstance(found, tuple)  # noqa: S101
    return found


def run_steps(
    engine: Engine, tasks: Sequence[ScanTask | AnimalsTask], out: Path, keys: Sequence[str], tell: Told
) -> Iterator[tuple[int, Any]]:
    """Run tasks on an engine and yield (position, outcome or exception) as they end; large scans come last, part by part.

    Parameters
    ----------
    engine : what runs functions over tasks.
    out : result folder, where sums of parts are kept until the scan is done; keys : of each task's result.
    tell : called with a scan's name, its finished parts and all of them.
    """
    large: list[tuple[int, Split]] = []
    for i, outcome in engine(step, tasks):
        if isinstance(outcome, Split):
            large.append((i, outcome))
        else:
            yield i, outcome
    for i, split in sorted(large, key=lambda item: item[0]):
        yield i, _gathered(engine, split, out, keys[i], tell)


def _gathered(engine: Engine, split: Split, out: Path, key: str, tell: Told) -> Any:
    """Return the outcome of a split scan: passes over its parts, each kept when it is done."""
    before = 0
    outcome: Any = split
    while isinstance(outcome, Split):
        parts = outcome.parts
        names = [store.key_of(key, before, part.frame, part.plan, part.boxes) for part in parts]
        held = [store.read_shard(out, name) for name in names]
        sums: list[Sums | None] = [None if h is None else Sums.of_document(h) for h in held]
        missing = [n for n, s in enumerate(sums) if s is None]
        done = len(parts) - len(missing)
        tell(outcome.task.record.scan, before + done, before + len(parts))
        for number, found in engine(step, [parts[n] for n in missing]):
            if not isinstance(found, Sums):
                return found
            at = missing[number]
            sums[at] = found
            store.write_shard(out, names[at], found.document())
            done += 1
            tell(outcome.task.record.scan, before + done, before + len(parts))
        before += len(parts)
        [(_, outcome)] = engine(step, [VolumeJoin(outcome, tuple(s for s in sums if s is not None))])
    return outcome


def _split(task: ScanTask) -> Split:
    """Look at a volume and cut it."""
    scan = load_scan(task.root, task.record)
    settings = _settings(task, scan)
    organs = _organs(task, scan)
    stages = tuple(begin(scan, organs, settings, t) for t in range(scan.extent("T")))
    return _cut(task, scan, stages)


def _cut(task: ScanTask, scan: Scan, stages: Sequence[Stage | VolumeSignals]) -> Split:
    boxes = [tuple(share) for share in shares(tiles(scan))]
    parts = tuple(VolumePart(task, t, stage.plan, share) for t, stage in enumerate(stages) if isinstance(stage, Stage)
                  for share in boxes)  # fmt: skip
    return Split(task, tuple(stages), parts)


def _joined(join: VolumeJoin) -> Outcome:
    """Take every frame of a scan a step further, and make its result when all are measured."""
    task = join.split.task
    scan = load_scan(task.root, task.record)
    settings = _settings(task, scan)
    organs = _organs(task, scan)
    stages = list(join.split.stages)
    for t, stage in enumerate(stages):
        if isinstance(stage, Stage):
            mine = [s for part, s in zip(join.split.parts, join.sums, strict=True) if part.frame == t]
            stages[t] = go_on(scan, organs, settings, stage, added(mine), t)
    if any(isinstance(stage, Stage) for stage in stages):
        return _cut(task, scan, stages)
    return (_result(task, scan, [stage for stage in stages if isinstance(stage, VolumeSignals)]),)


def _result(task: ScanTask, scan: Scan, found: Sequence[VolumeSignals]) -> ScanResult:
    last = found[-1]
    names = tuple(dict.fromkeys(name for f in found for name in f.signals.organs))
    shown = OrganMap(last.outline.astype(np.int32), dict(last.names), "label image")
    image = picture(Scan(scan.name, scan.path, np.nan_to_num(last.picture), "YX", scan.pixel_size_mm), shown)
    animals = all(name.startswith("animal_") for name in names)
    rows = by_curve(task, rows_of(task, scan, [f.signals for f in found], animals))
    return ScanResult(tuple(rows), image, tuple(scan.warnings), shown.organs)


def _settings(task: ScanTask, scan: Scan) -> ImagingSettings:
    """Return the settings of a volume.

    Raises
    ------
    ValueError : what only images that fit in memory can have, in words.
    """
    given = task.settings
    if scan.extent("T") > 1 and given.register_by != "none":
        raise ValueError(NOT_REGISTERED)
    if given.outline is not None:
        raise ValueError(
            "imaging.outline redraws outlines many times, which a volume of this size does not allow; leave it out"
        )
    if given.footprint == "psf" and not (given.psf_fwhm_mm or given.psf_fwhm_px):
        given = given.model_copy(update={"footprint": "roi"})
    return given if given.footprint in ("roi", "psf") else given.model_copy(update={"footprint": "roi"})


def _organs(task: ScanTask, scan: Scan) -> VolumeOrgans:
    """Return the organs of a volume, still on disk.

    Raises
    ------
    ValueError : no label image, values without names, or one that does not fit.
    """
    record, given = task.record, task.settings.organ_labels
    if not record.organs:
        raise ValueError("organs of a volume are not found automatically; give a label image in the column organs")
    if not given:
        raise ValueError("a label image is given, but its pixel values have no names; "
                         "name them under [imaging.organ_labels]")  # fmt: skip
    labels = read_scan(file_of(task.root, record.organs))
    kept = [axis for axis, extent in enumerate(labels.counts.shape[:-2]) if extent > 1]
    if len(kept) != 1:
        raise UnreadableImage(
            labels.name, f"it holds {labels.axes} {labels.counts.shape}; expected the organs of one volume (ZYX)"
        )
    names: Mapping[int, str] = {int(value): organ_name(name) for value, name in given.items()}
    check_subjects(task, tuple(dict.fromkeys(names.values())), "label image")
    counts: Any = AxesView(labels.counts, [*kept, labels.counts.ndim - 2, labels.counts.ndim - 1])
    return VolumeOrgans(counts, names, scan.frame_shape)
