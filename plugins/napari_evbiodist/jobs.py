"""Work that runs in another process, so that the window never waits and a file that crashes a decoder takes nothing down."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from evbiodist.batch.child import Child
from evbiodist.batch.scans import find_organs
from evbiodist.batch.volumes import through
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import Scan
from evbiodist.study.model import ImagingSettings, ScanRecord
from evbiodist.study.problems import Problem
from napari_evbiodist.converters import pyramid
from napari_evbiodist.organs_model import copy_organs, segment
from napari_evbiodist.session import Session, Work, read_image
from napari_evbiodist.writers import read_organs

#: Processes: what somebody waits for must not stand behind what takes minutes.
LANES = ("quick", "long")


@cache
def lane(name: str) -> Child:
    """Return the process for quick or for long work, shared by every viewer of this program."""
    if name not in LANES:
        raise ValueError(f"'{name}' is no lane; known: {', '.join(LANES)}")
    return Child((__name__,))


@dataclass(frozen=True)
class Opened:
    """A study as it was opened, what is wrong with it, and what it should hold and does not."""

    session: Session
    problems: list[Problem]
    missing: list[str]


def open_study(paths: Sequence[Path], annotator: str) -> Opened:
    """Open a study, a result folder or images."""
    session = Session.open(list(paths), annotator=annotator)
    return Opened(session, session.problems(), session.missing())


@dataclass(frozen=True)
class Shown:
    """A scan as it is shown. `scan` is None where it stays on disk and every process opens it for itself; `levels` are its
    pyramid's; `why` is the sentence that stands for organs which could not be found."""  # fmt: skip

    scan: Scan | None
    levels: list[Scan] | None
    organs: OrganMap | None
    why: str = ""


def decode(source: tuple[Path, ScanRecord | str]) -> Scan | None:
    """Read an image; None for one that stays on disk, of which a plane is read, as a decoder that crashes shall do so here."""
    return _sent(read_image(source))


def decode_organs(path: Path) -> tuple[OrganMap, Scan] | None:
    """Read organ labels that were saved with their names, and the scan that holds their grid; None for any other image."""
    found = read_organs(path)
    return None if found is None else (found[0], replace(found[1], counts=found[0].labels))


def _sent(scan: Scan) -> Scan | None:
    """Return a scan that can go to another process; None for one on disk that every process must open for itself."""
    if scan.lazy:
        scan.counts[(0,) * (scan.counts.ndim - 2)]
        try:
            pickle.dumps(scan)
        except (pickle.PicklingError, TypeError, AttributeError):
            return None
    return scan


def show(source: tuple[Path, ScanRecord | str], settings: ImagingSettings) -> Shown:
    """Read a scan and find its organs."""
    scan = read_image(source)
    sent = _sent(scan)
    levels = None if sent is None else pyramid(scan)
    root, record = source
    if isinstance(record, str):
        why = "the file is not a scan of a study yet: give subject, label and time in the study panel"
        return Shown(sent, levels, None, why)
    try:
        return Shown(sent, levels, find_organs(root, record, scan, settings))
    except ValueError as err:
        return Shown(sent, levels, None, str(err))


def measure(works: Sequence[Work], *, tell: Callable[[tuple[int, Any]], None]) -> None:
    """Measure scans one after the other and tell (position, result or exception) of each."""
    for position, work in enumerate(works):
        try:
            outcome: Any = through(work.task)
        except Exception as err:  # one scan's failure is told, never the end of the others
            outcome = err
        tell((position, outcome))


def find(
    source: tuple[Path, ScanRecord | str], how: str, settings: ImagingSettings, options: Mapping[str, Any]
) -> OrganMap:
    """Read a scan and find its organs in one of the core's ways."""
    return segment(read_image(source), how, settings, **options)


def copy_to(
    source: tuple[Path, ScanRecord],
    settings: ImagingSettings,
    targets: Mapping[str, tuple[Path, ScanRecord | str]],
    by: str,
    *,
    tell: Callable[[tuple[str, OrganMap | ValueError]], None],
) -> None:
    """Bring a scan's organs onto other scans and tell (scan, organs or why not) of each."""
    image = read_image(source)
    organs = find_organs(*source, image, settings)
    for name, target in targets.items():
        try:
            found: OrganMap | ValueError = copy_organs(organs, image, read_image(target), by)
        except ValueError as err:
            found = err
        tell((name, found))
