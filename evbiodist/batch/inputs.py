"""What a study reads: the files a scan depends on, their hashes, and images that stand twice in a study."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from evbiodist.batch import store
from evbiodist.io.scan import Scan
from evbiodist.study.flags import join, split
from evbiodist.study.load import inside, is_there
from evbiodist.study.model import Observation, ScanRecord, Study
from evbiodist.study.problems import UnreadableImage

_SIDECARS = (".json", ".toml", ".hdr")


def inputs_of(study: Study, record: ScanRecord) -> tuple[str, ...]:
    """Return every file that a scan's result depends on, relative to the study's folder where it lies inside.

    What a sidecar says of an image is part of the image, and a single image of an instrument's click depends on the
    folder's header.

    Raises
    ------
    UnreadableImage : a file of the scan's own that is not there.
    """
    imaging = study.settings.imaging
    names: list[str] = []
    for name in (imaging.spectra, imaging.curve.file if imaging.curve else None):
        # what is wrong with a table that all scans share is said when it is read
        if name and inside(study.root, name) is not None and is_there(study.root / name):
            names.append(name)
    for name in (record.file, record.organs, record.photograph):
        if not name:
            continue
        path = study.root / name
        if not is_there(path):
            raise UnreadableImage(name, "there is no such file; copy it or correct scans.csv")
        names.append(name)
        stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        beside = [path.with_name(f"{stem}{end}") for end in _SIDECARS]
        beside += [path.parent / "ClickInfo.txt"] if path.is_file() else []
        folder = Path(name).parent
        names += [(folder / p.name).as_posix() for p in beside if p.is_file() and p != path]
    return tuple(dict.fromkeys(names))


def hash_inputs(study: Study, record: ScanRecord, known: dict[str, str]) -> dict[str, str]:
    """Return the SHA-256 of every input of a scan; `known` holds those of earlier scans and is added to.

    Raises
    ------
    UnreadableImage, OSError : a file that is not there or cannot be read.
    """
    found = {}
    for name in inputs_of(study, record):
        if name not in known:
            known[name] = store.sha256(study.root / name)
        found[name] = known[name]
    return found


def at_rest(study: Study, record: ScanRecord, before: Mapping[str, str]) -> UnreadableImage | None:
    """Return a failure when a scan's files are no longer what they were at the start of the run."""
    try:
        now = hash_inputs(study, record, {})
        same = all(before.get(name) == digest for name, digest in now.items())
    except (OSError, UnreadableImage):
        same = False
    return None if same else UnreadableImage(record.file, "it changed while it was read; run again when it is at rest")


def pixel_hash(scan: Scan) -> str:
    """Return the SHA-256 of an image's pixels as stored, empty for one that stays on disk: its file's serves there.

    Examples
    --------
    >>> a, b = (Scan(name, None, np.ones((2, 2)), "YX") for name in "ab")
    >>> pixel_hash(a) == pixel_hash(b), pixel_hash(a) == pixel_hash(Scan("c", None, np.ones((1, 4)), "YX"))
    (True, False)
    """
    if scan.lazy:
        return ""
    counts = np.ascontiguousarray(scan.counts)
    return hashlib.sha256(f"{counts.shape} {counts.dtype.str} ".encode() + counts.tobytes()).hexdigest()


def twice(records: Iterable[tuple[ScanRecord, str]]) -> list[tuple[ScanRecord, ScanRecord]]:
    """Return pairs of scans that show the same pixels and yet are of another animal or time.

    One image may be measured for two labels of the same animal at the same time; that is no pair.

    Examples
    --------
    >>> def scan(name, subject, label="DiR"):
    ...     return ScanRecord(scan=name, subject=subject, label=label, time_h=2, kind="ex_vivo", file=f"{name}.tif")
    >>> pairs = twice([(scan("a", "m1"), "7f"), (scan("b", "m2"), "7f"), (scan("c", "m1", "mCherry"), "7f")])
    >>> [(first.scan, second.scan) for first, second in pairs]
    [('a', 'b')]
    """
    first: dict[str, ScanRecord] = {}
    pairs = []
    for record, digest in sorted(records, key=lambda item: item[0].scan):
        if not digest:
            continue
        other = first.setdefault(digest, record)
        if (other.subjects, other.time_h) != (record.subjects, record.time_h):
            pairs.append((other, record))
    return pairs


def told_twice(
    rows: Sequence[Observation], pixels: Iterable[tuple[ScanRecord, str]]
) -> tuple[list[Observation], list[str]]:
    """Flag the rows of scans that show another scan's pixels, and say so in a sentence a pair (see `twice`)."""
    alike = twice(pixels)
    names = {r.scan for pair in alike for r in pair}
    flagged = [
        r.model_copy(update={"flags": join({*split(r.flags), "image_twice"})}) if r.source in names else r for r in rows
    ]
    notes = [f"{b.scan}: its pixels are those of {a.scan}, which is of another animal or time; correct the column file of one "
             "of them" for a, b in alike]  # fmt: skip
    return flagged, notes
