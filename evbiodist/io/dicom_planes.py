"""Planes of a DICOM series: from single-slice, enhanced and nuclear-medicine files to one volume over time.

Slices are ordered by where they lie and frames by when they were taken; a gap, a repeat or an uneven step is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.dicom_header import (
    ANATOMY,
    EMISSION,
    OddError,
    Told,
    first_item,
    milliseconds_of,
    moment_of,
    number_of,
    numbers_of,
    parsed_moment,
    text_of,
    vector_of,
)
from evbiodist.io.scan import ACTIVITY
from evbiodist.io.timing import FrameTiming

_BQML = {"BQML", "Bq/ml", "Bq/mL"}
_MAX_BYTES = 8 << 30
_MAX_RATIO = 1000
#: Slice distances may differ by this share, as rounded positions do.
_UNEVEN = 0.01


@dataclass(frozen=True)
class Plane:
    """One slice of one frame: where its pixels are stored, where it lies and when it was taken."""

    path: Path
    index: int
    spacing: tuple[float, float] | None
    slope: float | None
    intercept: float
    unit: str
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    acquired: datetime | None = None
    duration_s: float | None = None
    reference_s: float | None = None

    @property
    def moment(self) -> tuple[float, datetime]:
        """What orders the frames of one position."""
        return (self.reference_s if self.reference_s is not None else -1.0, self.acquired or datetime.min)


@dataclass(frozen=True)
class Stack:
    """Planes ordered as [frame][slice], and the distance of slices."""

    planes: tuple[tuple[Plane, ...], ...]
    slice_mm: float | None
    timing: FrameTiming | None = None


# --- one file -> planes ------------------------------------------------------------------------------------------


def refuse_kind(file: Path, header: Any) -> None:
    """Refuse what is no grey image of a kind that is read, and sizes that the file cannot hold."""
    modality = text_of(header, "Modality")
    if modality not in EMISSION and modality not in ANATOMY:
        raise OddError(f"{file.name} is of modality '{modality}'; PT, NM, CT and MR are read")
    if "GATED" in words_of(header, "SeriesType") + _image_type(header).split():
        raise OddError("it is gated: its frames are phases of a cycle, not times; export the ungated series")
    colour = text_of(header, "PhotometricInterpretation")
    if (number_of(header, "SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
        raise OddError(f"{file.name} is a colour picture ({colour or 'unknown'}), whose values are not measurements; "
                   "export the grey image")  # fmt: skip
    rows, columns = number_of(header, "Rows"), number_of(header, "Columns")
    if not rows or not columns:
        raise OddError(f"{file.name} holds no image (no rows or columns); leave it out of the folder")
    frames = number_of(header, "NumberOfFrames") or 1
    needed = rows * columns * frames * (number_of(header, "BitsAllocated") or 16) / 8
    size = file.stat().st_size
    if header.file_meta.TransferSyntaxUID.is_compressed:
        if needed > _MAX_RATIO * size:
            raise OddError(
                f"{file.name} declares {needed:,.0f} bytes of pixels in a file of {size:,}; that is no image"
            )
    elif needed > size:
        raise OddError(f"{file.name} declares {needed:,.0f} bytes of pixels, but the file has {size:,}: it is truncated; "
                   "copy it again")  # fmt: skip


def words_of(header: Any, name: str) -> list[str]:
    """Return the values of an element of one or several words."""
    value = header.get(name) or ()
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _image_type(header: Any) -> str:
    return " ".join(words_of(header, "ImageType")[2:])


def stack_of(files: Sequence[tuple[Path, Any]], told: Told) -> Stack:
    """Arrange the planes of all files, whatever their number of frames."""
    first = files[0][1]
    if {(int(h.Rows), int(h.Columns)) for _, h in files} != {(int(first.Rows), int(first.Columns))}:
        raise OddError("its images are not all of one size; export the series again")
    frames = sum(int(number_of(h, "NumberOfFrames") or 1) for _, h in files)
    if int(first.Rows) * int(first.Columns) * frames * 4 > _MAX_BYTES:
        raise OddError(f"{int(first.Rows) * int(first.Columns) * frames * 4 / 2**30:.1f} GiB of pixels is over the limit "
                   "of 8 GiB; crop it or bin it")  # fmt: skip
    if "PerFrameFunctionalGroupsSequence" in first:
        return _arrange([p for file, h in files for p in _enhanced_planes(file, h)], first, told)
    if len(files) == 1 and frames > 1:
        return _nm_stack(files[0][0], first, told)
    if frames > len(files):
        raise OddError(f"it is {len(files)} files of several frames each; give one of them in a folder of its own")
    return _arrange([_plane(file, h) for file, h in files], first, told)


def _plane(file: Path, header: Any, index: int = 0) -> Plane:
    detector = first_item(header, "DetectorInformationSequence")
    slope, intercept, unit = _scaling(header)
    return Plane(
        file, index, _pair(header, "PixelSpacing"), slope, intercept, unit or text_of(header, "Units"),
        orientation=vector_of(header, "ImageOrientationPatient", 6) or vector_of(detector, "ImageOrientationPatient", 6),
        position=vector_of(header, "ImagePositionPatient", 3) or vector_of(detector, "ImagePositionPatient", 3),
        acquired=moment_of(header, "Acquisition"),
        duration_s=milliseconds_of(header, "ActualFrameDuration"),
        reference_s=milliseconds_of(header, "FrameReferenceTime"),
    )  # fmt: skip


def _pair(header: Any, name: str) -> tuple[float, float] | None:
    pair = vector_of(header, name, 2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None


def _scaling(header: Any) -> tuple[float | None, float, str]:
    """Return slope, intercept and unit: the rescale, or a real-world mapping to Bq/mL where there is none."""
    slope, intercept = number_of(header, "RescaleSlope"), number_of(header, "RescaleIntercept") or 0.0
    mapping = first_item(header, "RealWorldValueMappingSequence")
    unit = text_of(first_item(mapping, "MeasurementUnitsCodeSequence"), "CodeValue")
    if unit in _BQML and not text_of(header, "Units"):
        slope, intercept = (
            number_of(mapping, "RealWorldValueSlope"),
            number_of(mapping, "RealWorldValueIntercept") or 0.0,
        )
    else:
        unit = ""
    if slope == 0:
        raise OddError("its RescaleSlope is 0, which wipes out every value; export it again")
    return slope, intercept, unit


def _enhanced_planes(file: Path, header: Any) -> list[Plane]:
    """Return the planes of an enhanced multi-frame file: what a frame does not say, the shared groups do."""
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    planes = []
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            return first_item(own if name in own else shared, name)

        content, scaling = group("FrameContentSequence"), group("PixelValueTransformationSequence")
        slope, intercept = number_of(scaling, "RescaleSlope"), number_of(scaling, "RescaleIntercept") or 0.0
        unit = text_of(header, "Units")
        mapped = own if "RealWorldValueMappingSequence" in own else shared
        if not unit and "RealWorldValueMappingSequence" in mapped:
            told = _scaling(mapped)
            slope, intercept, unit = told if told[2] else (slope, intercept, "")
        acquired = parsed_moment(text_of(content, "FrameAcquisitionDateTime"))
        planes.append(Plane(
            file, index, _pair(group("PixelMeasuresSequence"), "PixelSpacing"), slope, intercept, unit,
            orientation=vector_of(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            position=vector_of(group("PlanePositionSequence"), "ImagePositionPatient", 3),
            acquired=acquired.replace(tzinfo=None) if acquired else None,
            duration_s=milliseconds_of(content, "FrameAcquisitionDuration"),
        ))  # fmt: skip
    if len(planes) != int(number_of(header, "NumberOfFrames") or 1):
        raise OddError(f"it declares {header.NumberOfFrames} frames but describes {len(planes)}; export it again")
    return planes


def _nm_stack(file: Path, header: Any, told: Told) -> Stack:
    """Arrange the frames of one nuclear-medicine file: a reconstructed volume, or a planar dynamic."""
    kind = _image_type(header)
    frames = int(number_of(header, "NumberOfFrames") or 1)
    plane = replace(_plane(file, header), duration_s=None)  # a top-level duration is that of one projection
    for vector, what in (("EnergyWindowVector", "energy windows"), ("DetectorVector", "detectors (views)")):
        several = len(set(numbers_of(header, vector)))
        if several > 1:
            raise OddError(f"it mixes {several} {what} in one file; export each as a file of its own")
    if kind.startswith("RECON TOMO"):
        return _nm_volume(plane, header, frames, told)
    if kind.startswith("DYNAMIC"):
        planes = tuple((replace(plane, index=i),) for i in range(frames))
        return Stack(planes, None, _nm_phases(header, frames, told))
    raise OddError(f"its {frames} frames are of type '{kind or 'unknown'}'; reconstructed volumes (RECON TOMO) and planar "
               "time series (DYNAMIC) are read: reconstruct it, or export one image a file")  # fmt: skip


def _nm_volume(plane: Plane, header: Any, frames: int, told: Told) -> Stack:
    order = [int(v) for v in numbers_of(header, "SliceVector")] or list(range(1, frames + 1))
    if sorted(order) != list(range(1, frames + 1)):
        raise OddError(f"its SliceVector does not name slices 1 to {frames} once each; export it again")
    step = number_of(header, "SpacingBetweenSlices")
    if not step:
        told.warn("SpacingBetweenSlices is missing, so the distance of slices is unknown")
    along = sorted(range(frames), key=lambda i: order[i], reverse=bool(step and step < 0))
    return Stack((tuple(replace(plane, index=i) for i in along),), abs(step) if step else None)


def _nm_phases(header: Any, frames: int, told: Told) -> FrameTiming | None:
    starts: list[float] = []
    durations: list[float] = []
    now = 0.0
    for phase in header.get("PhaseInformationSequence") or ():
        length, pause = (
            milliseconds_of(phase, "ActualFrameDuration"),
            milliseconds_of(phase, "PauseBetweenFrames") or 0.0,
        )
        now += milliseconds_of(phase, "PhaseDelay") or 0.0
        if length is None:
            break
        for _ in range(int(number_of(phase, "NumberOfFramesInPhase") or 0)):
            starts.append(now)
            durations.append(length)
            now += length + pause
    if len(starts) != frames:
        told.warn(f"its phases describe {len(starts)} of {frames} frames")
        return None
    return FrameTiming(tuple(starts), tuple(durations))


# --- planes -> volume ------------------------------------------------------------------------------------------


def _arrange(planes: Sequence[Plane], header: Any, told: Told) -> Stack:
    """Sort planes into frames of slices along the normal; refuse what is missing, repeated or uneven."""
    if len(planes) == 1:
        _announced(header, 1, 1, told)
        return Stack(((planes[0],),), None)
    places = _places(planes)
    columns = _columns(planes, places)
    counts = Counter(len(c) for c in columns)
    frames = counts.most_common(1)[0][0]
    odd = sum(1 for c in columns if len(c) != frames)
    if odd:
        lost, more = (sum(max(0, sign * (frames - len(c))) for c in columns) for sign in (1, -1))
        raise OddError(f"{odd} of its {len(columns)} slice positions hold another number of images than the {frames} "
                        f"of the others ({lost} missing, {more} too many); copy the whole series again")  # fmt: skip
    for column in columns:
        twice = len(column) - len({p.moment for p in column})
        if twice:
            raise OddError(f"{twice + 1} images lie at one position at one time ({column[0].path.name} and others); "
                       "remove the repeated files, or the second reconstruction")  # fmt: skip
    _announced(header, len(columns), frames, told)
    ordered = [sorted(column, key=lambda p: p.moment) for column in columns]
    step = _step([places[id(column[0])] for column in columns])
    return Stack(tuple(tuple(column[t] for column in ordered) for t in range(frames)), step)


def _places(planes: Sequence[Plane]) -> dict[int, float]:
    """Return each plane's place along the normal, in mm, by id; refuse tilted and shifted stacks."""
    lost = sum(p.orientation is None or p.position is None for p in planes)
    if lost:
        raise OddError(f"{lost} of {len(planes)} images do not say where they lie (ImagePositionPatient, "
                   "ImageOrientationPatient), so they cannot be put in order; export them with geometry")  # fmt: skip
    turns = np.array([p.orientation for p in planes], dtype=np.float64)
    if np.abs(turns - turns[0]).max() > 1e-3:
        raise OddError("its images are not parallel (ImageOrientationPatient differs); export one orientation a series")
    normal = np.cross(turns[0, :3], turns[0, 3:])
    if not 0.99 < float(np.linalg.norm(normal)) < 1.01:
        raise OddError("its ImageOrientationPatient is not two perpendicular directions of length 1; export it again")
    normal /= np.linalg.norm(normal)
    positions = np.array([p.position for p in planes], dtype=np.float64)
    along = positions @ normal
    aside = positions - np.outer(along, normal)
    tolerance = 0.1 * min(planes[0].spacing) if planes[0].spacing else 0.1
    if np.abs(aside - aside[0]).max() > tolerance:
        raise OddError(f"its slices are shifted against each other by up to {np.abs(aside - aside[0]).max():.3g} mm within "
                   "their plane; export it without tilt")  # fmt: skip
    return {id(p): float(a) for p, a in zip(planes, along, strict=True)}


def _columns(planes: Sequence[Plane], places: dict[int, float]) -> list[list[Plane]]:
    """Group planes that lie at one place (to 5 um), from the lowest place up."""
    columns: list[list[Plane]] = []
    for plane in sorted(planes, key=lambda p: places[id(p)]):
        if columns and places[id(plane)] - places[id(columns[-1][0])] < 5e-3:
            columns[-1].append(plane)
        else:
            columns.append([plane])
    return columns


def _announced(header: Any, slices: int, frames: int, told: Told) -> None:
    """Compare with the numbers of slices and frames that a PET header states."""
    stated = int(number_of(header, "NumberOfSlices") or slices)
    if stated > slices and stated != slices * frames:
        raise OddError(f"the header announces {stated} slices, {slices} were found ({stated - slices} missing); "
                   "copy the whole series")  # fmt: skip
    times = int(number_of(header, "NumberOfTimeSlices") or frames)
    if times > frames:
        raise OddError(f"the header announces {times} frames, {frames} were found ({times - frames} missing); "
                   "copy the whole series")  # fmt: skip
    if stated < slices or times < frames:
        told.warn(f"the header announces {stated} slices and {times} frames; the files hold {slices} and {frames}")


def _step(places: Sequence[float]) -> float | None:
    """Return the distance of slices in mm; None for a single one."""
    if len(places) == 1:
        return None
    steps = np.diff(places)
    typical = float(np.median(steps))
    if np.abs(steps - typical).max() <= max(_UNEVEN * typical, 1e-3):
        return float(np.mean(steps))
    least = float(steps.min())
    gaps = np.round(steps / least)
    if np.abs(steps / least - gaps).max() < 0.05:
        missing = int((gaps - 1).sum())
        raise OddError(f"{missing} slice{'s are' if missing > 1 else ' is'} missing between its {len(places)} slices "
                   f"(distances {least:.4g} to {steps.max():.4g} mm); copy the whole series again")  # fmt: skip
    raise OddError(f"its {len(places)} slices are unevenly spaced ({least:.4g} to {steps.max():.4g} mm apart); "
               "resample it to even slices")  # fmt: skip


def fill_stack(stack: Stack, shape: tuple[int, int], told: Told) -> NDArray[np.float32]:
    """Decode every file once and return values with their slopes applied, shape (T, Z, Y, X)."""
    counts = np.empty((len(stack.planes), len(stack.planes[0]), *shape), dtype=np.float32)
    places: dict[Path, list[tuple[int, int, Plane]]] = {}
    for t, frame in enumerate(stack.planes):
        for z, plane in enumerate(frame):
            places.setdefault(plane.path, []).append((t, z, plane))
    for file, wanted in places.items():
        stored = _decode(file, told)
        if stored.shape[1:] != shape or stored.shape[0] <= max(p.index for _, _, p in wanted):
            raise OddError(f"{file.name} decodes to shape {stored.shape}, not as its header says; export it again")
        for t, z, plane in wanted:
            with np.errstate(over="ignore", invalid="ignore"):
                slope = 1.0 if plane.slope is None else plane.slope
                counts[t, z] = stored[plane.index].astype(np.float64) * slope + plane.intercept
    if not np.isfinite(counts).any():
        raise OddError("no pixel holds a finite number; export it again")
    _tell_slopes([p for frame in stack.planes for p in frame], told)
    return counts


def _decode(file: Path, told: Told) -> NDArray[Any]:
    import pydicom

    data = pydicom.dcmread(file)
    syntax = data.file_meta.TransferSyntaxUID
    if text_of(data, "LossyImageCompression") == "01":
        told.warn("pixels went through lossy compression, so small signals may be gone")
    try:
        pixels = np.asarray(data.pixel_array)
    except Exception as err:
        if syntax.is_compressed:
            raise OddError(f"the pixels of {file.name} are compressed ({syntax.name}) and cannot be decoded here; "
                       "export them uncompressed, or install pylibjpeg") from err  # fmt: skip
        raise OddError(f"the pixels of {file.name} cannot be read ({type(err).__name__}); export it again") from err
    return pixels if pixels.ndim == 3 else pixels[np.newaxis]


def _tell_slopes(planes: Sequence[Plane], told: Told) -> None:
    slopes = [p.slope for p in planes if p.slope is not None]
    if len(slopes) < len(planes):
        told.warn(f"{len(planes) - len(slopes)} of {len(planes)} images state no RescaleSlope; "
                             "their stored values were taken as they are")  # fmt: skip
    if slopes:
        span = f"{min(slopes):.6g}" if min(slopes) == max(slopes) else f"{min(slopes):.6g} to {max(slopes):.6g}"
        told.note(f"stored values were turned into float32 by each slice's own slope ({span})")


def drop_single(counts: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Drop axes T and Z where they have one plane."""
    kept = [(axis, n) for axis, n in zip("TZYX", counts.shape, strict=True) if n > 1 or axis in "YX"]
    return counts.reshape([n for _, n in kept]), "".join(axis for axis, _ in kept)


def spacing_of(planes: Sequence[Plane], told: Told) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in mm that all planes share."""
    found = {p.spacing for p in planes}
    if found == {None}:
        told.warn("PixelSpacing is missing, so the pixel size is unknown")
    elif None in found or np.ptp(np.array([s for s in found if s]), axis=0).max() > 1e-4:
        raise OddError("its images have different pixel sizes (PixelSpacing); export one series at a time")
    return planes[0].spacing


def unit_of(planes: Iterable[Plane], modality: str, told: Told) -> str:
    """Return the unit of the values, one for all planes."""
    units = {p.unit for p in planes}
    if len(units) > 1:
        raise OddError(f"its images are in different units ({', '.join(sorted(u or 'none' for u in units))}); "
                   "export one series at a time")  # fmt: skip
    unit = units.pop()
    if modality in ANATOMY:
        told.warn(f"this is a {modality} series: its values are {ANATOMY[modality]}, not a signal")
    elif unit in _BQML:
        return ACTIVITY
    elif unit == "GML":
        told.warn("Units are GML, which are standardised uptake values, not Bq/mL; values are kept as counts")
    else:
        told.warn(f"Units are {unit or 'not stated'}, not BQML, so values are kept as counts")
    return "counts"
