"""A sequence of IVIS clicks as one scan: frames in time, bands of filters, or both.

Clicks must agree in size, binning and units; what differs or is missing is said, and no time is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.ivis_click import LAMP, corrected_image, main_image, photograph_of
from evbiodist.io.ivis_header import INFO, Click, Section, load_click, member, text_of
from evbiodist.io.scan import Scan
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.problems import UnreadableImage

_SEQUENCE = "SequenceInfo.txt"
_LISTED = re.compile(r"^[* \t]*Click[ \t]*Number[ \t]*(?:\d+[ \t]*)?:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
#: Largest sequence that is read, in bytes.
_MAX_BYTES = 8 << 30
#: Seconds by which the two clocks of a header may differ; both are rounded to 1 s.
_CLOCK_SLACK = 2.0


def is_sequence(path: Path) -> bool:
    """Whether a path is a folder with SequenceInfo.txt, or that file."""
    if path.is_dir():
        names = {p.name.lower() for p in path.iterdir()}
        return _SEQUENCE.lower() in names and INFO.lower() not in names
    return path.is_file() and path.name.lower() == _SEQUENCE.lower()


@dataclass(frozen=True)
class _Shot:
    """One click of a sequence: its scan, the filters it was taken through, and when it began."""

    scan: Scan
    filters: tuple[str, ...]
    section: Section

    @property
    def clock(self) -> float | None:
        """Acquisition Seconds, which know no summer time."""
        return self.section.number("Acquisition Seconds")

    @property
    def wall(self) -> float | None:
        """Acquisition Date and Time in seconds, or None where they are not written as Living Image does."""
        text = " ".join(self.section.keys.get(f"Acquisition {part}", "") for part in ("Date", "Time"))
        try:
            return (datetime.strptime(text, "%A, %B %d, %Y %H:%M:%S") - datetime(1904, 1, 1)).total_seconds()
        except ValueError:
            return None


def read_sequence(path: Path) -> Scan:
    """Read the clicks of a sequence as one scan, in the order in which they were acquired.

    Parameters
    ----------
    path : folder with SequenceInfo.txt and a subfolder for each click, or that file.

    Returns
    -------
    Scan : axes TYX for one set of filters at several times, CYX for several sets once, TCYX for a full grid of
        both, YX for a single click. `offset` and `scale` broadcast to the counts, so exposures and f numbers may
        differ. `timing` counts from the start of the first click; a frame lasts as long as its exposure, or, with
        several bands, from the first of them to the end of the last.

    Raises
    ------
    UnreadableImage : no click, a damaged one, or clicks that cannot be one scan, which are named.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    clicks, warnings = _clicks(folder)
    vendor = [corrected_image(click) for click in clicks]
    if any(vendor) and not all(vendor):
        some = sum(found is not None for found in vendor)
        warnings.append(f"only {some} of {len(clicks)} clicks have the vendor's corrected image, so all are computed "
                        "from raw counts")  # fmt: skip
        vendor = [None] * len(clicks)
    shots: list[_Shot] = []
    for click, found in zip(clicks, vendor, strict=True):
        shots.append(_shot(folder, click, found))
        _check_size(folder, shots[0].scan, len(clicks))
    _check_alike(folder, shots)
    shots, start, clock_warnings = _in_time(shots)
    grid, axes = _grid(folder, shots, start)
    timing, timing_warnings = _timing(grid, shots, start)
    photo, photo_warnings = _first_photograph(clicks, shots)
    warnings += [*clock_warnings, *timing_warnings, *photo_warnings, *_lamp_warning(shots)]
    return _joined(folder, shots, grid, axes, timing, photo, warnings)


def _clicks(folder: Path) -> tuple[list[Click], list[str]]:
    """Return the clicks that the sequence lists and that lie in the folder, and sentences on those that do not."""
    listed = list(dict.fromkeys(_LISTED.findall(text_of(member(folder, _SEQUENCE) or folder / _SEQUENCE))))
    here = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.resolve().is_relative_to(folder.resolve())]
    found = [load_click(p) for p in here if member(p, INFO)]
    if not found:
        raise UnreadableImage(folder, "the sequence holds no click folder; copy the folders with ClickInfo.txt too")
    names = {click.folder.name: (click.folder.name.lower(), _number(click).lower()) for click in found}
    warnings: list[str] = []
    if listed:
        lost = [w for w in listed if not any(w.lower() in both for both in names.values())]
        if len(lost) == len(listed):
            raise UnreadableImage(folder, f"{_SEQUENCE} lists {_named(listed)}, none of which lies in the folder; "
                                          "copy the click folders too")  # fmt: skip
        warnings += [f"{_SEQUENCE} lists click {name}, which is not in the folder; it is missing here" for name in lost]
        wanted = {w.lower() for w in listed}
        extra = [click.folder.name for click in found if not wanted & set(names[click.folder.name])]
        warnings += [f"click folder {name} is not listed in {_SEQUENCE} and is left out" for name in extra]
        found = [click for click in found if click.folder.name not in extra]
    else:
        warnings.append(f"{_SEQUENCE} lists no click; every click folder is taken")
    return _distinct(found, warnings), warnings


def _number(click: Click) -> str:
    return next((s.file for s in click.sections if s.name.lower() == "clicknumber"), "")


def _distinct(clicks: list[Click], warnings: list[str]) -> list[Click]:
    """Return the clicks with an image of their own: no copy of another, and not a photograph alone."""
    kept: dict[str, Click] = {}
    for click in clicks:
        name, number = click.folder.name, _number(click)
        if click.main is None and corrected_image(click) is None:
            warnings.append(f"click {name} holds no luminescent or fluorescent image and is left out")
        elif number and number in kept:
            warnings.append(
                f"click {name} is a copy of {kept[number].folder.name} (ClickNumber {number}) and is left out"
            )
        else:
            kept[number or name] = click
    if not kept:
        raise UnreadableImage(clicks[0].folder.parent, "no click of the sequence holds a luminescent or fluorescent "
                                                       "image; copy the whole folders again")  # fmt: skip
    return list(kept.values())


def _shot(folder: Path, click: Click, vendor: tuple[Section, Path] | None) -> _Shot:
    try:
        scan = main_image(click.folder, click, vendor)
    except UnreadableImage as err:
        raise UnreadableImage(folder, f"click {click.folder.name} cannot be read ({err})") from err
    section = vendor[0] if vendor else click.main
    assert section is not None  # noqa: S101  main_image refuses a click without one
    filters = tuple(section.keys.get(f"{kind} filter", "") for kind in ("Excitation", "Emission"))
    return _Shot(scan, filters, section)


def _check_size(folder: Path, scan: Scan, clicks: int) -> None:
    if clicks * scan.counts.size * 8 > _MAX_BYTES:
        raise UnreadableImage(folder, f"{clicks} clicks of {scan.counts.shape} px are over the limit of 8 GiB; "
                                      "read the click folders one by one")  # fmt: skip


def _check_alike(folder: Path, shots: Sequence[_Shot]) -> None:
    """Refuse clicks that have no common pixel grid or unit, naming them."""
    ways: dict[str, Callable[[_Shot], str]] = {
        "shape": lambda s: "{} x {} px".format(*s.scan.counts.shape),
        "field of view": lambda s: s.scan.header.get("field of view", "unknown"),
        "binning": lambda s: s.scan.header.get("binning", "unknown"),
        "unit": lambda s: s.scan.unit,
    }
    for what, told in ways.items():
        groups: dict[str, list[str]] = {}
        for shot in shots:
            groups.setdefault(told(shot), []).append(shot.scan.name)
        if len(groups) > 1:
            listed = "; ".join(f"{value}: {_named(names)}" for value, names in groups.items())
            raise UnreadableImage(folder, f"its clicks differ in {what} and cannot be one scan ({listed}); "
                                          "read the click folders one by one")  # fmt: skip


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _in_time(shots: list[_Shot]) -> tuple[list[_Shot], list[float] | None, list[str]]:
    """Return the clicks by acquisition, their starts from the first one in s, and sentences on their clocks."""
    clocks = [_known(times) for times in ([s.clock for s in shots], [s.wall for s in shots])]
    start = next((times for times in clocks if times is not None), None)
    if start is None:
        lacking = [s.scan.name for s in shots if s.clock is None and s.wall is None] or [s.scan.name for s in shots]
        return shots, None, ["the acquisition time of these clicks is not known, so they are in the order of their "
                             f"names, without frame times: {_named(lacking)}"]  # fmt: skip
    warnings = []
    if clocks[0] is not None and clocks[1] is not None:
        apart = max(abs(a - b) for a, b in zip(*(_from_first(times) for times in clocks if times), strict=True))
        if apart > _CLOCK_SLACK:
            warnings.append(f"Acquisition Seconds and Acquisition Time differ by up to {apart:g} s between clicks (a clock "
                            "was set?); Acquisition Seconds are believed")  # fmt: skip
    order = sorted(range(len(shots)), key=lambda i: start[i])
    return [shots[i] for i in order], [start[i] - min(start) for i in order], warnings


def _known(times: Iterable[float | None]) -> list[float] | None:
    known = list(times)
    return None if None in known else [t for t in known if t is not None]


def _from_first(times: Sequence[float]) -> list[float]:
    return [t - times[0] for t in times]


def _grid(folder: Path, shots: Sequence[_Shot], start: Sequence[float] | None) -> tuple[NDArray[np.int_], str]:
    """Return the number of the click at every (time, band) and the axes of the scan that they make."""
    bands: dict[tuple[str, ...], list[int]] = {}
    for number, shot in enumerate(shots):
        bands.setdefault(shot.filters, []).append(number)
    counts = {len(numbers) for numbers in bands.values()}
    listed = "; ".join(f"{_label(filters)}: {_named([shots[i].scan.name for i in numbers])}"
                       for filters, numbers in bands.items())  # fmt: skip
    if len(counts) > 1:
        raise UnreadableImage(folder, f"its clicks are no full grid of times and filters ({listed}); "
                                      "read the click folders one by one")  # fmt: skip
    grid = np.array(list(bands.values())).T
    begin = np.arange(len(shots), dtype=float)[grid] if start is None else np.asarray(start)[grid]
    if (begin.max(1)[:-1] > begin.min(1)[1:]).any():
        raise UnreadableImage(folder, f"the filters were not taken in turns, so its clicks are no times ({listed}); "
                                      "read the click folders one by one")  # fmt: skip
    axes = ("T" if grid.shape[0] > 1 else "") + ("C" if grid.shape[1] > 1 else "")
    return grid, axes + "YX"


def _label(filters: tuple[str, ...]) -> str:
    excitation, emission = filters
    return f"excitation {excitation or 'unknown'}, emission {emission or 'unknown'}"


def _timing(
    grid: NDArray[np.int_], shots: Sequence[_Shot], start: Sequence[float] | None
) -> tuple[FrameTiming | None, list[str]]:
    """Return when each row of the grid was taken, or a sentence on why that is not known."""
    exposures = [shot.scan.exposure_s for shot in shots]
    if start is None:
        return None, []
    if None in exposures:
        without = [s.scan.name for s in shots if s.scan.exposure_s is None]
        return None, [f"the exposure of these clicks is not known, so there are no frame times: {_named(without)}"]
    begin = np.asarray(start)[grid]
    end = begin + np.array(exposures, dtype=float)[grid]
    try:
        return FrameTiming(tuple(begin.min(1)), tuple(end.max(1) - begin.min(1))), []
    except TimingError as err:
        return None, [f"the acquisition times contradict each other ({err}), so there are no frame times"]


def _first_photograph(clicks: Sequence[Click], shots: Sequence[_Shot]) -> tuple[Any, list[str]]:
    """Return the photograph of the first click in time that has one of the same field of view."""
    by_name = {click.folder.name: click for click in clicks}
    for shot in shots:
        photo, _ = photograph_of(by_name[shot.scan.name], shot.scan)
        if photo is not None:
            return photo, []
    return None, ["no click has a photograph of the same field of view"]


def _lamp_warning(shots: Sequence[_Shot]) -> list[str]:
    """Return a sentence where the lamp was set differently and its irradiance is not divided out."""
    levels = {tuple(sorted((k, v) for k, v in s.section.keys.items() if LAMP.search(k))) for s in shots}
    if len(levels) > 1 and any("no_irradiance" in s.scan.flags for s in shots):
        return ["the lamp level differs between clicks, so their radiances are not comparable"]
    return []


def _joined(
    folder: Path,
    shots: Sequence[_Shot],
    grid: NDArray[np.int_],
    axes: str,
    timing: FrameTiming | None,
    photo: Any,
    warnings: list[str],
) -> Scan:
    scans = [shot.scan for shot in shots]
    first = scans[0]
    lead = tuple(n for n in grid.shape if n > 1)
    order = grid.ravel()

    def stacked(values: Sequence[Any]) -> Any:
        planes = np.stack(np.broadcast_arrays(*(np.atleast_2d(values[i]) for i in order.tolist())))
        return planes.reshape(*lead, *planes.shape[1:]) if lead else values[0]

    band = [scans[i].bands for i in grid[0].tolist()]
    exposures, biases = {s.exposure_s for s in scans}, {s.camera.bias for s in scans}
    notes = [n for n in first.notes if all(n in s.notes for s in scans)]
    notes.append(f"clicks in the order of time: {_named([s.name for s in scans])}")
    if len(exposures) > 1:
        notes.append("exposures differ: " + _named([f"{s.name} {s.exposure_s:g} s" for s in scans if s.exposure_s]))
    if "C" in axes and timing is not None:
        notes.append(f"the bands were taken one after another, within {max(timing.duration_s):g} s")
    header = {k: v for k, v in first.header.items() if all(s.header.get(k) == v for s in scans)}
    if "acquired" in first.header:
        header["acquired"] = f"{first.header['acquired']} (first click)"
    return Scan(
        folder.name,
        folder,
        stacked([s.counts for s in scans]),
        axes,
        first.pixel_size_mm,
        unit=first.unit,
        offset=stacked([s.offset for s in scans]),
        scale=stacked([s.scale for s in scans]),
        exposure_s=first.exposure_s if len(exposures) == 1 else None,
        camera=replace(first.camera, bias=first.camera.bias if len(biases) == 1 else None),
        photograph=photo,
        systematic_rel=max(s.systematic_rel for s in scans),
        timing=timing,
        bands=tuple(b[0] for b in band) if all(band) else (),
        flags=tuple(dict.fromkeys(flag for s in scans for flag in s.flags)),
        notes=tuple(notes),
        warnings=(*warnings, *_shared(scans)),
        header=header,
    )


def _shared(scans: Sequence[Scan]) -> list[str]:
    """Return the clicks' warnings, those of some clicks only with their names."""
    told: dict[str, list[str]] = {}
    for scan in scans:
        for text in scan.warnings:
            told.setdefault(text, []).append(scan.name)
    return [t if len(names) == len(scans) else f"click {_named(names)}: {t}" for t, names in told.items()]
