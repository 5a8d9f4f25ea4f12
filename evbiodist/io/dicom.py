"""DICOM PET and SPECT series: many files become one scan with its times, its tracer and Bq/mL.

A lost slice, a wrong clock or a slope that changes from slice to slice all give plausible wrong uptake, so each
is checked here, and what a header does not say stays None.
"""

from __future__ import annotations

import math
import re
import warnings as python_warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.registry import Reader
from evbiodist.io.scan import ACTIVITY, Scan, Tracer
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.constants import isotopes
from evbiodist.study.problems import UnreadableImage

_SUFFIXES = {".dcm", ".dicom", ".ima"}
_EMISSION = {"PT": "PET", "NM": "SPECT", "ST": "SPECT"}
#: Read for anatomy; their values are no activity.
_ANATOMY = {"CT": "CT numbers", "MR": "MR intensities"}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_BQML = {"BQML", "Bq/ml", "Bq/mL"}
_Corrected = Literal["injection", "scan_start", "none", "unknown"]
_DECAY: dict[str, _Corrected] = {"NONE": "none", "START": "scan_start", "ADMIN": "injection"}
_MAX_BYTES = 8 << 30
_MAX_RATIO = 1000
#: Slice distances may differ by this share, as rounded positions do.
_UNEVEN = 0.01
_ELEMENTS = {"fluorine": "F", "carbon": "C", "nitrogen": "N", "oxygen": "O", "copper": "Cu", "zirconium": "Zr",
             "gallium": "Ga", "technetium": "Tc", "indium": "In", "iodine": "I", "lutetium": "Lu", "rubidium": "Rb",
             "scandium": "Sc", "yttrium": "Y", "bromine": "Br", "thallium": "Tl", "manganese": "Mn"}  # fmt: skip
_MASS_FIRST = re.compile(r"(?<![\dA-Za-z])\^?(\d{1,3}m?)\^?[\s-]?([A-Za-z]+)")
_NAME_FIRST = re.compile(r"(?<![A-Za-z\d^-])([A-Za-z]+)[\s-]?\^?(\d{1,3}m?)\^?(?![\dA-Za-z])")


class _OddError(ValueError):
    """Something in a header that makes the series unreadable, in words without the file's name."""


@dataclass
class _Told:
    """Sentences gathered while reading, each once."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.notes += [sentence] if sentence not in self.notes else []

    def warn(self, sentence: str) -> None:
        self.warnings += [sentence] if sentence not in self.warnings else []


@dataclass(frozen=True)
class _Plane:
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
class _Stack:
    """Planes ordered as [frame][slice], and the distance of slices."""

    planes: tuple[tuple[_Plane, ...], ...]
    slice_mm: float | None
    timing: FrameTiming | None = None


def read_dicom(path: Path) -> Scan:
    """Read one PET or SPECT series (or a CT or MR series, as numbers without a unit of activity).

    Parameters
    ----------
    path : a folder with one series, or one file of a series: the files of its folder that share its
        SeriesInstanceUID are read too.

    Returns
    -------
    Scan : axes YX, ZYX, TYX or TZYX; float32 values with every slice's own slope applied; slices along the normal
        of the image plane; unit Bq/mL where Units is BQML, else counts. `timing` counts from the scan's start,
        which is also what pixels are decay corrected to where `tracer.decay_corrected_to` is `scan_start`. No
        name, number or birth date of an animal or person is kept.

    Raises
    ------
    UnreadableImage : several series, missing, repeated or uneven slices, contradicting times, colour, a kind of
        image that is no volume over time, pixels that cannot be decoded, or a damaged file.

    Examples
    --------
    >>> read_dicom(Path("nowhere"))
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.UnreadableImage: nowhere: no DICOM file is there; give the folder of a series or one of its files
    """
    path = Path(path)
    told = _Told()
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        try:
            scan = _read(path, told)
        except UnreadableImage:
            raise
        except (_OddError, TimingError) as err:
            raise UnreadableImage(path, str(err)) from err
        except Exception as err:  # damaged headers fail in many ways inside pydicom
            raise UnreadableImage(path, f"its DICOM header cannot be followed ({type(err).__name__}); "
                                        "it may be damaged: export it again") from err  # fmt: skip
    # the words of these warnings may quote the header, names included, so only their number is told
    extra = [f"the header breaks {len(caught)} rules of DICOM; its values were read as they stand"] if caught else []
    return replace(scan, notes=(*scan.notes, *extra))


def suv_bw_factor(scan: Scan) -> float:
    """Return what turns Bq/mL into the standardised uptake value by body weight (SUVbw), in g/Bq.

    Parameters
    ----------
    scan : in Bq/mL, with a tracer that states dose, half-life, time of injection and weight.

    Returns
    -------
    float : weight in g over the injected Bq that are left at the instant pixels are decay corrected to.

    Raises
    ------
    ValueError : naming everything that is missing.

    References
    ----------
    QIBA, SUV vendor-neutral pseudo-code (RSNA): decayed dose = dose * 2^(-(scan start - injection) / half-life)
    for DecayCorrection START, the dose itself for ADMIN.

    Examples
    --------
    >>> tracer = Tracer("18F", 6600.0, 1e7, -6600.0, "scan_start", weight_g=25.0)
    >>> suv_bw_factor(Scan("a", None, np.ones((2, 2)), "YX", unit="Bq/mL", tracer=tracer))
    5e-06
    """
    tracer = scan.tracer or Tracer()
    corrected = tracer.decay_corrected_to
    late = corrected == "scan_start"
    wanted = {
        f"values in {ACTIVITY} (they are in {scan.unit})": scan.unit == ACTIVITY,
        f"pixels decay corrected to the injection or the scan's start (it is '{corrected}')": corrected
        in {"injection", "scan_start"},
        "the injected activity": bool(tracer.injected_bq),
        "the body weight": bool(tracer.weight_g),
        "the half-life": bool(tracer.half_life_s) or not late,
        "the time of injection": tracer.injected_s is not None or not late,
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing or tracer.weight_g is None or tracer.injected_bq is None:
        raise ValueError(f"{scan.name}: no SUV without {'; '.join(missing)}")
    left = tracer.injected_bq
    if late and tracer.half_life_s and tracer.injected_s is not None:
        left *= 2.0 ** (tracer.injected_s / tracer.half_life_s)
    return tracer.weight_g / left


# --- which files -----------------------------------------------------------------------------------------------


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _takes(path: Path) -> bool:
    try:
        return any(_is_candidate(p) for p in path.iterdir()) if path.is_dir() else _is_candidate(path)
    except OSError:
        return False


def _is_candidate(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in _SUFFIXES or _has_magic(path))


def _series(path: Path, told: _Told) -> list[tuple[Path, Any]]:
    """Return the files of one series with their headers, by name."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not (path.is_dir() or path.is_file()):
        raise _OddError("no DICOM file is there; give the folder of a series or one of its files")
    wanted = None if path.is_dir() else _header(path)
    series: dict[str, list[tuple[Path, Any]]] = {}
    for file in sorted(p for p in folder.iterdir() if _is_candidate(p)):
        if file.resolve().parent != folder.resolve():
            told.warn(f"{file.name} is a link out of the folder and was left out")
            continue
        try:
            header = wanted if wanted is not None and file == path else _header(file)
        except _OddError as err:
            if path.is_dir():
                raise _OddError(f"{file.name}: {err}") from err
            told.warn(f"{file.name} beside it cannot be read and was left out: {err}")
            continue
        if _text(header.file_meta, "MediaStorageSOPClassUID") != _DIRECTORY:
            series.setdefault(_text(header, "SeriesInstanceUID"), []).append((file, header))
    if wanted is not None:
        return series.get(_text(wanted, "SeriesInstanceUID")) or [(path, wanted)]
    if len(series) > 1:
        listed = "; ".join(f"series {_text(f[0][1], 'SeriesNumber') or '?'} "
                           f"'{_text(f[0][1], 'SeriesDescription') or _text(f[0][1], 'Modality')}' ({len(f)} files)"
                           for f in series.values())  # fmt: skip
        raise _OddError(f"it holds {len(series)} series ({listed}); give one file of the series you mean")
    if not series:
        raise _OddError("no DICOM file is there; give the folder of a series or one of its files")
    return next(iter(series.values()))


def _header(path: Path) -> Any:
    """Read one file's header without its pixels."""
    import pydicom

    if not _has_magic(path):
        raise _OddError("it is no DICOM file (the word DICM is not at byte 128); export it again")
    try:
        syntax = _text(pydicom.filereader.read_file_meta_info(path), "TransferSyntaxUID")
        if syntax == _DEFLATED:
            raise _OddError("its header is deflated, which is not read; export it uncompressed")
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except _OddError:
        raise
    except Exception as err:
        raise _OddError(f"its DICOM header is damaged ({type(err).__name__}); export it again") from err
    if not syntax:
        raise _OddError("its header does not say how it is encoded (TransferSyntaxUID is missing); export it again")
    return header


# --- values of a header ----------------------------------------------------------------------------------------


def _text(data: Any, name: str) -> str:
    value = data.get(name) if data is not None else None
    return "" if value is None else str(value).strip("\0 ")


def _numbers(data: Any, name: str) -> tuple[float, ...]:
    """Return the numbers of an element, none when it is absent or empty; text that is no number is refused."""
    try:
        value = data.get(name)
        if value is None or value == "":
            return ()
        parts = [value] if isinstance(value, (int, float)) else list(value)
        numbers = tuple(float(v) for v in parts)
    except (ValueError, TypeError, OverflowError) as err:
        raise _OddError(f"its {name} is not a number; export it again") from err
    if not all(map(math.isfinite, numbers)):
        raise _OddError(f"its {name} is not a finite number; export it again")
    return numbers


def _number(data: Any, name: str) -> float | None:
    return next(iter(_numbers(data, name)), None)


def _vector(data: Any, name: str, length: int) -> tuple[float, ...] | None:
    numbers = _numbers(data, name)
    return numbers if len(numbers) == length else None


def _first(data: Any, name: str) -> Any:
    """Return the first item of a sequence, or an empty dataset."""
    from pydicom.dataset import Dataset

    items = data.get(name)
    return items[0] if items else Dataset()


def _moment(stamp: str) -> datetime | None:
    """Return a DICOM date and time (``YYYYMMDDhhmm[ss[.ffffff]][+ZZXX]``), None where it is not both."""
    from pydicom.valuerep import DT

    stamp = stamp.replace(":", "").strip()
    if not re.match(r"^\d{12}", stamp):
        return None
    try:
        moment = DT(stamp)
    except ValueError:
        return None
    return None if moment is None else datetime.combine(moment.date(), moment.timetz())


def _when(data: Any, kind: str) -> datetime | None:
    """Return the moment of `kind` (Series, Acquisition) from its DateTime, or its Date and Time."""
    found = _moment(_text(data, f"{kind}DateTime")) or _moment(_text(data, f"{kind}Date") + _text(data, f"{kind}Time"))
    return found.replace(tzinfo=None) if found else None


def _seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds()


def _milliseconds(data: Any, name: str) -> float | None:
    value = _number(data, name)
    return None if value is None else value / 1000.0


# --- one file -> planes ----------------------------------------------------------------------------------------


def _read(path: Path, told: _Told) -> Scan:
    files = _series(path, told)
    first = files[0][1]
    for file, header in files:
        _refuse_kind(file, header)
    stack = _stack(files, told)
    planes = [p for frame in stack.planes for p in frame]
    counts = _fill(stack, (int(first.Rows), int(first.Columns)), told)
    modality = _text(first, "Modality")
    unit = _unit(planes, modality, told)
    clock, trusted = _clock(files, planes, told)
    timing = stack.timing or _timing(stack, clock, modality, _half_life(first), told)
    end_s = timing.start_s[-1] + timing.duration_s[-1] if timing else 0.0
    tracer = _tracer(first, clock, end_s, trusted, told)
    squeezed, axes = _squeeze(counts)
    return Scan(path.name, path, squeezed, axes, _spacing(planes, told), unit=unit,
                slice_mm=stack.slice_mm if "Z" in axes else None, timing=timing, tracer=tracer,
                notes=tuple(told.notes), warnings=tuple(told.warnings), header=_words(first, planes[0]))  # fmt: skip


def _refuse_kind(file: Path, header: Any) -> None:
    """Refuse what is no grey image of a kind that is read, and sizes that the file cannot hold."""
    modality = _text(header, "Modality")
    if modality not in _EMISSION and modality not in _ANATOMY:
        raise _OddError(f"{file.name} is of modality '{modality}'; PT, NM, CT and MR are read")
    if "GATED" in _words_of(header, "SeriesType") + _image_type(header).split():
        raise _OddError("it is gated: its frames are phases of a cycle, not times; export the ungated series")
    colour = _text(header, "PhotometricInterpretation")
    if (_number(header, "SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
        raise _OddError(f"{file.name} is a colour picture ({colour or 'unknown'}), whose values are not measurements; "
                   "export the grey image")  # fmt: skip
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
    if not rows or not columns:
        raise _OddError(f"{file.name} holds no image (no rows or columns); leave it out of the folder")
    frames = _number(header, "NumberOfFrames") or 1
    needed = rows * columns * frames * (_number(header, "BitsAllocated") or 16) / 8
    size = file.stat().st_size
    if header.file_meta.TransferSyntaxUID.is_compressed:
        if needed > _MAX_RATIO * size:
            raise _OddError(
                f"{file.name} declares {needed:,.0f} bytes of pixels in a file of {size:,}; that is no image"
            )
    elif needed > size:
        raise _OddError(f"{file.name} declares {needed:,.0f} bytes of pixels, but the file has {size:,}: it is truncated; "
                   "copy it again")  # fmt: skip


def _words_of(header: Any, name: str) -> list[str]:
    """Return the values of an element of one or several words."""
    value = header.get(name) or ()
    return [value] if isinstance(value, str) else [str(v) for v in value]


def _image_type(header: Any) -> str:
    return " ".join(_words_of(header, "ImageType")[2:])


def _stack(files: Sequence[tuple[Path, Any]], told: _Told) -> _Stack:
    """Arrange the planes of all files, whatever their number of frames."""
    first = files[0][1]
    if {(int(h.Rows), int(h.Columns)) for _, h in files} != {(int(first.Rows), int(first.Columns))}:
        raise _OddError("its images are not all of one size; export the series again")
    frames = sum(int(_number(h, "NumberOfFrames") or 1) for _, h in files)
    if int(first.Rows) * int(first.Columns) * frames * 4 > _MAX_BYTES:
        raise _OddError(f"{int(first.Rows) * int(first.Columns) * frames * 4 / 2**30:.1f} GiB of pixels is over the limit "
                   "of 8 GiB; crop it or bin it")  # fmt: skip
    if "PerFrameFunctionalGroupsSequence" in first:
        return _arrange([p for file, h in files for p in _enhanced_planes(file, h)], first, told)
    if len(files) == 1 and frames > 1:
        return _nm_stack(files[0][0], first, told)
    if frames > len(files):
        raise _OddError(f"it is {len(files)} files of several frames each; give one of them in a folder of its own")
    return _arrange([_plane(file, h) for file, h in files], first, told)


def _plane(file: Path, header: Any, index: int = 0) -> _Plane:
    detector = _first(header, "DetectorInformationSequence")
    slope, intercept, unit = _scaling(header)
    return _Plane(
        file, index, _pair(header, "PixelSpacing"), slope, intercept, unit or _text(header, "Units"),
        orientation=_vector(header, "ImageOrientationPatient", 6) or _vector(detector, "ImageOrientationPatient", 6),
        position=_vector(header, "ImagePositionPatient", 3) or _vector(detector, "ImagePositionPatient", 3),
        acquired=_when(header, "Acquisition"),
        duration_s=_milliseconds(header, "ActualFrameDuration"),
        reference_s=_milliseconds(header, "FrameReferenceTime"),
    )  # fmt: skip


def _pair(header: Any, name: str) -> tuple[float, float] | None:
    pair = _vector(header, name, 2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None


def _scaling(header: Any) -> tuple[float | None, float, str]:
    """Return slope, intercept and unit: the rescale, or a real-world mapping to Bq/mL where there is none."""
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept") or 0.0
    mapping = _first(header, "RealWorldValueMappingSequence")
    unit = _text(_first(mapping, "MeasurementUnitsCodeSequence"), "CodeValue")
    if unit in _BQML and not _text(header, "Units"):
        slope, intercept = _number(mapping, "RealWorldValueSlope"), _number(mapping, "RealWorldValueIntercept") or 0.0
    else:
        unit = ""
    if slope == 0:
        raise _OddError("its RescaleSlope is 0, which wipes out every value; export it again")
    return slope, intercept, unit


def _enhanced_planes(file: Path, header: Any) -> list[_Plane]:
    """Return the planes of an enhanced multi-frame file: what a frame does not say, the shared groups do."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    planes = []
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            return _first(own if name in own else shared, name)

        content, scaling = group("FrameContentSequence"), group("PixelValueTransformationSequence")
        slope, intercept = _number(scaling, "RescaleSlope"), _number(scaling, "RescaleIntercept") or 0.0
        unit = _text(header, "Units")
        mapped = own if "RealWorldValueMappingSequence" in own else shared
        if not unit and "RealWorldValueMappingSequence" in mapped:
            told = _scaling(mapped)
            slope, intercept, unit = told if told[2] else (slope, intercept, "")
        acquired = _moment(_text(content, "FrameAcquisitionDateTime"))
        planes.append(_Plane(
            file, index, _pair(group("PixelMeasuresSequence"), "PixelSpacing"), slope, intercept, unit,
            orientation=_vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            position=_vector(group("PlanePositionSequence"), "ImagePositionPatient", 3),
            acquired=acquired.replace(tzinfo=None) if acquired else None,
            duration_s=_milliseconds(content, "FrameAcquisitionDuration"),
        ))  # fmt: skip
    if len(planes) != int(_number(header, "NumberOfFrames") or 1):
        raise _OddError(f"it declares {header.NumberOfFrames} frames but describes {len(planes)}; export it again")
    return planes


def _nm_stack(file: Path, header: Any, told: _Told) -> _Stack:
    """Arrange the frames of one nuclear-medicine file: a reconstructed volume, or a planar dynamic."""
    kind = _image_type(header)
    frames = int(_number(header, "NumberOfFrames") or 1)
    plane = replace(_plane(file, header), duration_s=None)  # a top-level duration is that of one projection
    for vector, what in (("EnergyWindowVector", "energy windows"), ("DetectorVector", "detectors (views)")):
        several = len(set(_numbers(header, vector)))
        if several > 1:
            raise _OddError(f"it mixes {several} {what} in one file; export each as a file of its own")
    if kind.startswith("RECON TOMO"):
        return _nm_volume(plane, header, frames, told)
    if kind.startswith("DYNAMIC"):
        planes = tuple((replace(plane, index=i),) for i in range(frames))
        return _Stack(planes, None, _nm_phases(header, frames, told))
    raise _OddError(f"its {frames} frames are of type '{kind or 'unknown'}'; reconstructed volumes (RECON TOMO) and planar "
               "time series (DYNAMIC) are read: reconstruct it, or export one image a file")  # fmt: skip


def _nm_volume(plane: _Plane, header: Any, frames: int, told: _Told) -> _Stack:
    order = [int(v) for v in _numbers(header, "SliceVector")] or list(range(1, frames + 1))
    if sorted(order) != list(range(1, frames + 1)):
        raise _OddError(f"its SliceVector does not name slices 1 to {frames} once each; export it again")
    step = _number(header, "SpacingBetweenSlices")
    if not step:
        told.warn("SpacingBetweenSlices is missing, so the distance of slices is unknown")
    along = sorted(range(frames), key=lambda i: order[i], reverse=bool(step and step < 0))
    return _Stack((tuple(replace(plane, index=i) for i in along),), abs(step) if step else None)


def _nm_phases(header: Any, frames: int, told: _Told) -> FrameTiming | None:
    starts: list[float] = []
    durations: list[float] = []
    now = 0.0
    for phase in header.get("PhaseInformationSequence") or ():
        length, pause = _milliseconds(phase, "ActualFrameDuration"), _milliseconds(phase, "PauseBetweenFrames") or 0.0
        now += _milliseconds(phase, "PhaseDelay") or 0.0
        if length is None:
            break
        for _ in range(int(_number(phase, "NumberOfFramesInPhase") or 0)):
            starts.append(now)
            durations.append(length)
            now += length + pause
    if len(starts) != frames:
        told.warn(f"its phases describe {len(starts)} of {frames} frames")
        return None
    return FrameTiming(tuple(starts), tuple(durations))


# --- planes -> volume ------------------------------------------------------------------------------------------


def _arrange(planes: Sequence[_Plane], header: Any, told: _Told) -> _Stack:
    """Sort planes into frames of slices along the normal; refuse what is missing, repeated or uneven."""
    if len(planes) == 1:
        _announced(header, 1, 1, told)
        return _Stack(((planes[0],),), None)
    places = _places(planes)
    columns = _columns(planes, places)
    counts = Counter(len(c) for c in columns)
    frames = counts.most_common(1)[0][0]
    odd = sum(1 for c in columns if len(c) != frames)
    if odd:
        lost, more = (sum(max(0, sign * (frames - len(c))) for c in columns) for sign in (1, -1))
        raise _OddError(f"{odd} of its {len(columns)} slice positions hold another number of images than the {frames} "
                        f"of the others ({lost} missing, {more} too many); copy the whole series again")  # fmt: skip
    for column in columns:
        twice = len(column) - len({p.moment for p in column})
        if twice:
            raise _OddError(f"{twice + 1} images lie at one position at one time ({column[0].path.name} and others); "
                       "remove the repeated files, or the second reconstruction")  # fmt: skip
    _announced(header, len(columns), frames, told)
    ordered = [sorted(column, key=lambda p: p.moment) for column in columns]
    step = _step([places[id(column[0])] for column in columns])
    return _Stack(tuple(tuple(column[t] for column in ordered) for t in range(frames)), step)


def _places(planes: Sequence[_Plane]) -> dict[int, float]:
    """Return each plane's place along the normal, in mm, by id; refuse tilted and shifted stacks."""
    lost = sum(p.orientation is None or p.position is None for p in planes)
    if lost:
        raise _OddError(f"{lost} of {len(planes)} images do not say where they lie (ImagePositionPatient, "
                   "ImageOrientationPatient), so they cannot be put in order; export them with geometry")  # fmt: skip
    turns = np.array([p.orientation for p in planes], dtype=np.float64)
    if np.abs(turns - turns[0]).max() > 1e-3:
        raise _OddError(
            "its images are not parallel (ImageOrientationPatient differs); export one orientation a series"
        )
    normal = np.cross(turns[0, :3], turns[0, 3:])
    if not 0.99 < float(np.linalg.norm(normal)) < 1.01:
        raise _OddError("its ImageOrientationPatient is not two perpendicular directions of length 1; export it again")
    normal /= np.linalg.norm(normal)
    positions = np.array([p.position for p in planes], dtype=np.float64)
    along = positions @ normal
    aside = positions - np.outer(along, normal)
    tolerance = 0.1 * min(planes[0].spacing) if planes[0].spacing else 0.1
    if np.abs(aside - aside[0]).max() > tolerance:
        raise _OddError(f"its slices are shifted against each other by up to {np.abs(aside - aside[0]).max():.3g} mm within "
                   "their plane; export it without tilt")  # fmt: skip
    return {id(p): float(a) for p, a in zip(planes, along, strict=True)}


def _columns(planes: Sequence[_Plane], places: dict[int, float]) -> list[list[_Plane]]:
    """Group planes that lie at one place (to 5 um), from the lowest place up."""
    columns: list[list[_Plane]] = []
    for plane in sorted(planes, key=lambda p: places[id(p)]):
        if columns and places[id(plane)] - places[id(columns[-1][0])] < 5e-3:
            columns[-1].append(plane)
        else:
            columns.append([plane])
    return columns


def _announced(header: Any, slices: int, frames: int, told: _Told) -> None:
    """Compare with the numbers of slices and frames that a PET header states."""
    stated = int(_number(header, "NumberOfSlices") or slices)
    if stated > slices and stated != slices * frames:
        raise _OddError(f"the header announces {stated} slices, {slices} were found ({stated - slices} missing); "
                   "copy the whole series")  # fmt: skip
    times = int(_number(header, "NumberOfTimeSlices") or frames)
    if times > frames:
        raise _OddError(f"the header announces {times} frames, {frames} were found ({times - frames} missing); "
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
        raise _OddError(f"{missing} slice{'s are' if missing > 1 else ' is'} missing between its {len(places)} slices "
                   f"(distances {least:.4g} to {steps.max():.4g} mm); copy the whole series again")  # fmt: skip
    raise _OddError(f"its {len(places)} slices are unevenly spaced ({least:.4g} to {steps.max():.4g} mm apart); "
               "resample it to even slices")  # fmt: skip


def _fill(stack: _Stack, shape: tuple[int, int], told: _Told) -> NDArray[np.float32]:
    """Decode every file once and return values with their slopes applied, shape (T, Z, Y, X)."""
    counts = np.empty((len(stack.planes), len(stack.planes[0]), *shape), dtype=np.float32)
    places: dict[Path, list[tuple[int, int, _Plane]]] = {}
    for t, frame in enumerate(stack.planes):
        for z, plane in enumerate(frame):
            places.setdefault(plane.path, []).append((t, z, plane))
    for file, wanted in places.items():
        stored = _decode(file, told)
        if stored.shape[1:] != shape or stored.shape[0] <= max(p.index for _, _, p in wanted):
            raise _OddError(f"{file.name} decodes to shape {stored.shape}, not as its header says; export it again")
        for t, z, plane in wanted:
            with np.errstate(over="ignore", invalid="ignore"):
                slope = 1.0 if plane.slope is None else plane.slope
                counts[t, z] = stored[plane.index].astype(np.float64) * slope + plane.intercept
    if not np.isfinite(counts).any():
        raise _OddError("no pixel holds a finite number; export it again")
    _tell_slopes([p for frame in stack.planes for p in frame], told)
    return counts


def _decode(file: Path, told: _Told) -> NDArray[Any]:
    import pydicom

    data = pydicom.dcmread(file)
    syntax = data.file_meta.TransferSyntaxUID
    if _text(data, "LossyImageCompression") == "01":
        told.warn("pixels went through lossy compression, so small signals may be gone")
    try:
        pixels = np.asarray(data.pixel_array)
    except Exception as err:
        if syntax.is_compressed:
            raise _OddError(f"the pixels of {file.name} are compressed ({syntax.name}) and cannot be decoded here; "
                       "export them uncompressed, or install pylibjpeg") from err  # fmt: skip
        raise _OddError(f"the pixels of {file.name} cannot be read ({type(err).__name__}); export it again") from err
    return pixels if pixels.ndim == 3 else pixels[np.newaxis]


def _tell_slopes(planes: Sequence[_Plane], told: _Told) -> None:
    slopes = [p.slope for p in planes if p.slope is not None]
    if len(slopes) < len(planes):
        told.warn(f"{len(planes) - len(slopes)} of {len(planes)} images state no RescaleSlope; "
                             "their stored values were taken as they are")  # fmt: skip
    if slopes:
        span = f"{min(slopes):.6g}" if min(slopes) == max(slopes) else f"{min(slopes):.6g} to {max(slopes):.6g}"
        told.note(f"stored values were turned into float32 by each slice's own slope ({span})")


def _squeeze(counts: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Drop axes T and Z where they have one plane."""
    kept = [(axis, n) for axis, n in zip("TZYX", counts.shape, strict=True) if n > 1 or axis in "YX"]
    return counts.reshape([n for _, n in kept]), "".join(axis for axis, _ in kept)


def _spacing(planes: Sequence[_Plane], told: _Told) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in mm that all planes share."""
    found = {p.spacing for p in planes}
    if found == {None}:
        told.warn("PixelSpacing is missing, so the pixel size is unknown")
    elif None in found or np.ptp(np.array([s for s in found if s]), axis=0).max() > 1e-4:
        raise _OddError("its images have different pixel sizes (PixelSpacing); export one series at a time")
    return planes[0].spacing


def _unit(planes: Iterable[_Plane], modality: str, told: _Told) -> str:
    units = {p.unit for p in planes}
    if len(units) > 1:
        raise _OddError(f"its images are in different units ({', '.join(sorted(u or 'none' for u in units))}); "
                   "export one series at a time")  # fmt: skip
    unit = units.pop()
    if modality in _ANATOMY:
        told.warn(f"this is a {modality} series: its values are {_ANATOMY[modality]}, not a signal")
    elif unit in _BQML:
        return ACTIVITY
    elif unit == "GML":
        told.warn("Units are GML, which are standardised uptake values, not Bq/mL; values are kept as counts")
    else:
        told.warn(f"Units are {unit or 'not stated'}, not BQML, so values are kept as counts")
    return "counts"


# --- clock and tracer ------------------------------------------------------------------------------------------


def _clock(files: Sequence[tuple[Path, Any]], planes: Sequence[_Plane], told: _Told) -> tuple[datetime | None, bool]:
    """Return the scan's start and whether pixels that are corrected to START refer to it.

    It is the series' time, as QIBA takes it, unless an image was acquired before: then the series was made later,
    and the start is a private GE element, or follows from the reference time of the first image's mean count rate.
    """
    header = files[0][1]
    series = _when(header, "Series")
    first = min((p for p in planes if p.acquired), key=lambda p: p.acquired or datetime.max, default=None)
    if first is None or first.acquired is None:
        if _text(header, "Modality") in _EMISSION:
            told.warn("no image states when it was acquired (AcquisitionTime)")
        return series, series is not None
    if series is not None and _seconds(first.acquired, series) > -1.0:
        return series, True
    late = "states no SeriesTime" if series is None else "has a SeriesTime after its acquisition (it was made later)"
    private = _ge_scan_start(header)
    if private is not None:
        told.note(f"the series {late}; the scan's start is the one of GE's private header")
        return private, True
    if first.reference_s is not None and first.duration_s is not None:
        told.warn(f"the series {late}; the scan's start was taken from AcquisitionTime and FrameReferenceTime")
        ahead = first.reference_s - _mean_count_time(first.duration_s, _half_life(header))
        return first.acquired - timedelta(seconds=ahead), True
    if _text(header, "Modality") in _EMISSION:
        told.warn(f"the series {late}, so the scan's start is that of the first image, and it is unknown "
                             "what pixels were decay corrected to")  # fmt: skip
    return first.acquired, False


def _ge_scan_start(header: Any) -> datetime | None:
    try:
        value = header.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    except KeyError:
        return None
    moment = _moment(value.decode("ascii", "replace") if isinstance(value, bytes) else str(value))
    return moment.replace(tzinfo=None) if moment else None


def _mean_count_time(duration_s: float, half_life_s: float | None) -> float:
    """Return when, after a frame's start, the decaying count rate equals its mean over the frame."""
    x = math.log(2.0) * duration_s / half_life_s if half_life_s else 0.0
    return duration_s / 2 if x < 1e-6 else duration_s / x * math.log(x / -math.expm1(-x))


def _half_life(header: Any) -> float | None:
    value = _number(_first(header, "RadiopharmaceuticalInformationSequence"), "RadionuclideHalfLife")
    return value if value and value > 0 else None


def _timing(
    stack: _Stack, clock: datetime | None, modality: str, half_life_s: float | None, told: _Told
) -> FrameTiming | None:
    """Return frame times from AcquisitionTime, or from FrameReferenceTime where that cannot be."""
    if modality in _ANATOMY:
        return None
    if any(p.duration_s is None for frame in stack.planes for p in frame):
        told.warn("ActualFrameDuration is missing, so frame times are unknown")
        return None
    made: dict[str, FrameTiming] = {}
    problems: list[str] = []
    for name, starts in (("AcquisitionTime", _acquired(stack, clock)),
                         ("FrameReferenceTime", _referred(stack, half_life_s))):  # fmt: skip
        if starts is None:
            continue
        try:
            made[name] = _frames(stack, starts)
        except TimingError as err:
            problems.append(f"by {name}, {err}")
    if not made:
        if problems:
            raise _OddError(f"its frame times contradict each other: {'; '.join(problems)}")
        told.warn("neither AcquisitionTime nor FrameReferenceTime is there, so frame times are unknown")
        return None
    name, timing = next(iter(made.items()))
    if problems:
        told.warn(f"frame times come from {name}, because {problems[0]}")
    if len(made) == 2:
        apart = abs(made["AcquisitionTime"].start_s[0] - made["FrameReferenceTime"].start_s[0])
        if apart > max(1.0, 0.02 * timing.duration_s[0]):
            told.warn(f"AcquisitionTime and FrameReferenceTime put the first frame {apart:g} s apart; "
                                 "the times are those of AcquisitionTime")  # fmt: skip
    if any(len({p.acquired for p in frame}) > 1 for frame in stack.planes):
        told.note("slices were acquired at different times (bed positions); a frame lasts from its first to its "
                          "last slice")  # fmt: skip
    return timing


def _acquired(stack: _Stack, clock: datetime | None) -> list[list[float]] | None:
    if clock is None or any(p.acquired is None for frame in stack.planes for p in frame):
        return None
    return [[_seconds(p.acquired, clock) for p in frame if p.acquired] for frame in stack.planes]


def _referred(stack: _Stack, half_life_s: float | None) -> list[list[float]] | None:
    if any(p.reference_s is None for frame in stack.planes for p in frame):
        return None
    return [[(p.reference_s or 0.0) - _mean_count_time(p.duration_s or 0.0, half_life_s) for p in frame]
            for frame in stack.planes]  # fmt: skip


def _frames(stack: _Stack, starts: list[list[float]]) -> FrameTiming:
    """Return one start and duration a frame: the earliest start and the latest end of its slices."""
    ends = [[s + (p.duration_s or 0.0) for s, p in zip(own, frame, strict=True)]
            for own, frame in zip(starts, stack.planes, strict=True)]  # fmt: skip
    begin = [round(min(own), 6) for own in starts]
    return FrameTiming(tuple(begin), tuple(round(max(e) - b, 6) for e, b in zip(ends, begin, strict=True)))


def _tracer(header: Any, clock: datetime | None, end_s: float, trusted: bool, told: _Told) -> Tracer | None:
    """Return what the header says of the injected activity; None for CT and MR."""
    modality = _text(header, "Modality")
    if modality not in _EMISSION:
        return None
    items: Any = header.get("RadiopharmaceuticalInformationSequence") or ()
    kilograms = _number(header, "PatientWeight")
    weight = 1000.0 * kilograms if kilograms and kilograms > 0 else None
    if weight and weight > 5000:
        told.warn(f"PatientWeight is {weight / 1000:g} kg; if these are grams, every SUV is 1000 times too high")
    corrected = _corrected(header, clock, trusted, told)
    if len(items) != 1:
        if items:
            told.warn(f"it names {len(items)} radiopharmaceuticals, so dose and isotope are left open")
        return Tracer(decay_corrected_to=corrected, weight_g=weight)
    item = items[0]
    half_life_s = _half_life(header)
    return Tracer(
        _named_isotope(item, half_life_s, told),
        half_life_s,
        _dose(item, modality, told),
        _injected(item, header, clock, end_s, half_life_s, told),
        corrected,
        weight,
    )


def _corrected(header: Any, clock: datetime | None, trusted: bool, told: _Told) -> _Corrected:
    """Return what pixels are decay corrected to, from the words of classic or enhanced headers."""
    stated = _text(header, "DecayCorrection")
    if not stated:
        return _corrected_enhanced(header, clock)
    if stated not in _DECAY:
        told.warn(f"DecayCorrection is '{stated}', not NONE, START or ADMIN, so it is unknown")
        return "unknown"
    done = _words_of(header, "CorrectedImage")
    if stated != "NONE" and done and "DECY" not in done:
        told.warn(f"DecayCorrection is {stated}, but CorrectedImage does not list DECY, so it is unknown")
        return "unknown"
    return "unknown" if stated == "START" and not trusted else _DECAY[stated]


def _corrected_enhanced(header: Any, clock: datetime | None) -> _Corrected:
    if _text(header, "DecayCorrected") == "NO":
        return "none"
    to = _moment(_text(header, "DecayCorrectionDateTime"))
    at_start = to is not None and clock is not None and abs(_seconds(to.replace(tzinfo=None), clock)) <= 1.0
    return "scan_start" if at_start and _text(header, "DecayCorrected") == "YES" else "unknown"


def _dose(item: Any, modality: str, told: _Told) -> float | None:
    """Return the injected activity in Bq: PET headers state Bq, nuclear-medicine headers MBq."""
    dose = _number(item, "RadionuclideTotalDose")
    if dose is None or dose <= 0:
        return None
    if modality == "PT":
        if dose < 1e4:
            told.warn(f"RadionuclideTotalDose is {dose:g} Bq, which is too little to image; it may be MBq")
        return dose
    if dose > 1e5:
        told.warn(f"RadionuclideTotalDose is {dose:g}, too much for the MBq of this kind of image; taken as Bq")
        return dose
    told.note("RadionuclideTotalDose is in MBq in this kind of image")
    return dose * 1e6


def _injected(
    item: Any, header: Any, clock: datetime | None, end_s: float, half_life_s: float | None, told: _Told
) -> float | None:
    """Return the time of injection in s after the scan's start (negative: before)."""
    if clock is None:
        return None
    moment = _moment(_text(item, "RadiopharmaceuticalStartDateTime"))
    if moment is not None:
        return _seconds(_local(moment, header, told), clock)
    of_day = _moment(clock.strftime("%Y%m%d") + _text(item, "RadiopharmaceuticalStartTime"))
    if of_day is None:
        return None
    after = _seconds(of_day.replace(tzinfo=None), clock)
    day = "on the day of the scan"
    if after > max(end_s, 0.0):
        after, day = after - 86400.0, "the day before the scan, because its time of day is after the scan's end"
    sentence = f"only the time of day of the injection is stated; it was taken to be {day}"
    (told.warn if half_life_s is None or half_life_s > 6 * 3600 else told.note)(sentence)
    return after


def _local(moment: datetime, header: Any, told: _Told) -> datetime:
    """Return a moment on the clock of the series; offsets from UTC are undone where both are known."""
    if moment.tzinfo is None:
        return moment
    offset = re.match(r"^([+-])(\d{2})(\d{2})$", _text(header, "TimezoneOffsetFromUTC"))
    own = moment.utcoffset()
    if offset is None or own is None:
        told.note("the injection's offset from UTC was ignored, as the series states none")
        return moment.replace(tzinfo=None)
    minutes = (int(offset[2]) * 60 + int(offset[3])) * (-1 if offset[1] == "-" else 1)
    return moment.replace(tzinfo=None) - own + timedelta(minutes=minutes)


def _named_isotope(item: Any, half_life_s: float | None, told: _Told) -> str | None:
    code = _first(item, "RadionuclideCodeSequence")
    texts = (_text(code, "CodeMeaning"), _text(item, "Radiopharmaceutical"))
    isotope = next((found for text in texts if (found := _isotope(text))), None)
    known = isotopes().get(isotope or "")
    if known and half_life_s and abs(half_life_s / (known * 3600.0) - 1) > 0.02:
        told.warn(f"the header gives {isotope} a half-life of {half_life_s / 3600:.4g} h; it is {known:.4g} h")
    return isotope


def _isotope(text: str) -> str | None:
    """Return an isotope as `18F` from ``^18^Fluorine``, ``F-18``, ``Fluorine 18`` or ``18F-FDG``."""
    pairs = [(m[1], m[2]) for m in _MASS_FIRST.finditer(text)] + [(m[2], m[1]) for m in _NAME_FIRST.finditer(text)]
    symbols = {s.lower(): s for s in _ELEMENTS.values()}
    found = {f"{mass}{symbol}" for mass, name in pairs
             if (symbol := _ELEMENTS.get(name.lower()) or symbols.get(name.lower()))}  # fmt: skip
    return found.pop() if len(found) == 1 else None


def _words(header: Any, plane: _Plane) -> dict[str, str]:
    """Return the instrument's own words, without a person's or animal's identity."""
    acquired = plane.acquired or _when(header, "Series")
    words = {
        "modality": _text(header, "Modality"),
        "instrument": f"{_text(header, 'Manufacturer')} {_text(header, 'ManufacturerModelName')}".strip(),
        "software": _text(header, "SoftwareVersions"),
        "acquired": acquired.isoformat(" ", "seconds") if acquired else "",
        "series": f"{_text(header, 'SeriesNumber')} {_text(header, 'SeriesDescription')}".strip(),
        "units": plane.unit,
        "corrections": _text(header, "CorrectedImage"),
        "decay correction": _text(header, "DecayCorrection"),
        "reconstruction": _text(header, "ReconstructionMethod"),
        "orientation": " ".join(f"{v:g}" for v in plane.orientation or ()),
        "position_mm": " ".join(f"{v:g}" for v in plane.position or ()),
    }
    return {key: value for key, value in words.items() if value}


READER = Reader("dicom", "DICOM PET and SPECT series (a folder or one of its files), CT and MR as plain numbers", _takes,
                read_dicom)  # fmt: skip
