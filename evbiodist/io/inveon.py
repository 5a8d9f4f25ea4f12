"""Siemens Inveon and Concorde microPET images: raw pixels (.img) with a text header (.img.hdr).

The calibration is spread over four keys and a unit code, so that a reader who forgets one is wrong by a
plausible factor; each key is required here before a value is called Bq/mL.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.activity import DecayReference, believed_injection, decay_reference, isotope_name
from evbiodist.io.frames_on_disk import bad_pixels, frames_from
from evbiodist.io.registry import Reader
from evbiodist.io.scan import ACTIVITY, Scan, Tracer
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.problems import UnreadableImage

_DTYPES = {1: "i1", 2: "<i2", 3: "<i4", 4: "<f4", 5: ">f4", 6: ">i2", 7: ">i4"}
_FILE_TYPES = {1: "list mode", 2: "a sinogram", 3: "a normalisation", 4: "an attenuation correction", 6: "a blank scan",
               8: "a mu map", 9: "a scatter correction"}  # fmt: skip
_BQ_PER_UNIT = {1: 37.0, 2: 1.0}  # calibration_units: nCi/cc, Bq/cc
_DOSE_BQ = {1: 3.7e7, 2: 1e6}  # dose_units: mCi, MBq
_WEIGHT_G = {1: 1.0, 2: 28.349523125, 3: 1e3, 4: 453.59237}  # subject_weight_units: g, oz, kg, lb
_MODALITIES = {0: "PET", 1: "CT", 2: "SPECT"}
_MODELS = {2000: "microPET Primate", 2001: "microPET Rodent", 2002: "microPET 2", 2500: "microPET Focus 220",
           2501: "microPET Focus 120", 5000: "Inveon Dedicated PET", 5001: "Inveon Multimodality"}  # fmt: skip
_POSITIONS = {1: "feet first, prone", 2: "head first, prone", 3: "feet first, supine", 4: "head first, supine",
              5: "feet first, right", 6: "head first, right", 7: "feet first, left", 8: "head first, left"}  # fmt: skip
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = re.compile(r"(?:[A-Za-z]{3}\s+)?([A-Z][a-z]{2})\s+(\d{1,2})\s+(\d{1,2}):(\d{2}):(\d{2})\s+(\d{4})")
_MAX_HEADER = 16 << 20
#: No key holds a larger number; NaN and infinity are not smaller either.
_LARGEST = 1e15


def _takes(path: Path) -> bool:
    if not path.is_file():
        return False
    name = path.name.lower()
    return name.endswith(".img.hdr") or (name.endswith(".img") and path.with_name(f"{path.name}.hdr").is_file())


def read_inveon(path: Path) -> Scan:
    """Read an Inveon or microPET image with the times, calibration and tracer of its text header.

    Bq/mL = raw * scale_factor * calibration_factor / isotope_branching_fraction, times 37 where
    calibration_units is 1 (nCi/cc). Pixels keep the file's order and are not turned;
    ``header["position"]`` says how the animal lay.

    Parameters
    ----------
    path : `name.img` or `name.img.hdr`; the other one stands in the same folder.

    Returns
    -------
    Scan : (Z, Y, X), or (T, Z, Y, X) for more than one frame, where `scale` has shape (T, 1, 1, 1). In counts,
        with a warning, when a part of the calibration is missing. Frames count from the scan's start; the
        injection is in ``tracer.injected_s``.

    Raises
    ------
    UnreadableImage : a missing partner, key or frame, a file of another size, gates or bed positions, or
        frames that contradict each other in time.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mouse.img"
    >>> _ = file.write_bytes(np.arange(6, dtype="<i2").tobytes())
    >>> _ = file.with_name("mouse.img.hdr").write_text('''# Inveon
    ... data_type 2
    ... x_dimension 3
    ... y_dimension 2
    ... z_dimension 1
    ... total_frames 1
    ... calibration_units 1
    ... calibration_factor 100
    ... isotope_branching_fraction 0.5
    ... end_of_header
    ... frame 0
    ... scale_factor 0.01
    ... end_of_header''')
    >>> scan = read_inveon(file)
    >>> scan.unit, scan.signal()[0, 0].tolist()
    ('Bq/mL', [0.0, 74.0, 148.0])

    References
    ----------
    Key meanings: comments of the Inveon header itself; formula as used by Preclinical PIXI's Inveon converter.
    """
    path = Path(path)
    header, image = _read_pair(path)
    notes: list[str] = []
    warnings: list[str] = []
    counts = _pixels(header, image, warnings)
    timing = _timing(header, notes)
    scale, unit = _calibration(header, notes, warnings)
    size, slice_mm = _spacing(header, notes, warnings)
    tracer = None if header.whole("modality") == 1 else _tracer(header, timing, notes, warnings)
    bad = bad_pixels(path, counts, warnings)
    return Scan(
        image.name, path, counts, "TZYX" if len(header.frames) > 1 else "ZYX", size,
        unit=unit, scale=scale if len(header.frames) > 1 else float(scale.ravel()[0]), slice_mm=slice_mm, timing=timing,
        tracer=tracer, bad=bad, notes=tuple(notes), warnings=tuple(warnings), header=_words(header),
    )  # fmt: skip


@dataclass(frozen=True)
class _Header:
    """The keys of a text header: those of the whole file, and those of each frame."""

    path: Path
    values: dict[str, str]
    frames: tuple[dict[str, str], ...]

    def fault(self, reason: str) -> UnreadableImage:
        return UnreadableImage(self.path, reason)

    def number(self, key: str, frame: int | None = None) -> float | None:
        """Return a key's number; None where it is absent or empty."""
        text = (self.values if frame is None else self.frames[frame]).get(key, "")
        if not text:
            return None
        try:
            value = float(text.split()[0])
        except ValueError:
            value = math.nan
        if not abs(value) < _LARGEST:
            place = "" if frame is None else f" of frame {frame}"
            raise self.fault(f"key {key}{place} is '{text[:40]}', expected a number; correct the header")
        return value

    def whole(self, key: str, frame: int | None = None) -> int | None:
        """Return a key's whole number; None where it is absent or empty."""
        value = self.number(key, frame)
        if value is not None and value != int(value):
            raise self.fault(f"key {key} is {value:g}, expected a whole number; correct the header")
        return None if value is None else int(value)

    def each(self, key: str) -> list[float] | None:
        """Return a key's number in every frame; None when no frame has it."""
        found = [self.number(key, i) for i in range(len(self.frames))]
        if all(v is None for v in found):
            return None
        if None in found:
            raise self.fault(f"frame {found.index(None)} has no key {key}, other frames have; export it again")
        return [v for v in found if v is not None]


def _read_pair(path: Path) -> tuple[_Header, Path]:
    """Return the header and the path of the pixels, whichever of the two was named."""
    is_header = path.name.lower().endswith(".hdr")
    header = path if is_header else path.with_name(f"{path.name}.hdr")
    image = path.with_name(path.name[: -len(".hdr")]) if is_header else path
    for partner in (header, image):
        if not partner.is_file():
            raise UnreadableImage(path, f"{partner.name} is missing beside it; an Inveon image is name.img and "
                                        "name.img.hdr together")  # fmt: skip
        if partner != path and partner.resolve().parent not in {path.parent.resolve(), path.resolve().parent}:
            raise UnreadableImage(
                path, f"{partner.name} is a link that leads out of its folder; put the file itself there"
            )
    if header.stat().st_size > _MAX_HEADER:
        raise UnreadableImage(header, f"it has {header.stat().st_size} bytes, more than a text header; export it again")
    return _parsed(header), image


def _parsed(path: Path) -> _Header:
    data = path.read_bytes()
    if b"\0" in data:
        raise UnreadableImage(
            path, "it is no text, so no Inveon header; an Analyze or NIfTI pair must be saved as .nii"
        )
    values: dict[str, str] = {}
    frames: list[dict[str, str]] = []
    for line in data.decode("latin-1").splitlines():
        key, value = (*line.split(maxsplit=1), "", "")[:2]
        if not key or key.startswith("#"):
            continue
        if key == "frame":
            frames.append({})
        (frames[-1] if frames else values)[key] = value.strip()
    header = _Header(path, values, tuple(frames))
    _check_frames(header)
    return header


def _check_frames(header: _Header) -> None:
    stated = header.whole("total_frames")
    stated = header.whole("time_frames") if stated is None else stated
    if not header.frames:
        raise header.fault("it describes no frame (key frame); export it again")
    if stated is not None and stated != len(header.frames):
        raise header.fault(f"total_frames is {stated}, but {len(header.frames)} frames are described; export it again")
    for key in ("gate", "bed"):
        if len(set(header.each(key) or [0])) > 1:
            raise header.fault(f"its frames are several {key}s; export one of them, or their sum")


def _pixels(header: _Header, image: Path, warnings: list[str]) -> NDArray[Any]:
    kind = header.whole("file_type") or 5
    if kind != 5:
        raise header.fault(
            f"file_type is {kind}, {_FILE_TYPES.get(kind, 'unknown')}; expected 5, an image: reconstruct it"
        )
    if (header.whole("w_dimension") or 1) > 1:
        raise header.fault(f"w_dimension is {header.whole('w_dimension')}; expected x, y, z and time: split it")
    if header.whole("data_order") not in (None, 1):
        warnings.append(
            f"data_order is {header.whole('data_order')}, where images have 1; pixels are read with x fastest"
        )
    shape = tuple(_required(header, f"{axis}_dimension") for axis in "zyx")
    code = _required(header, "data_type")
    if code not in _DTYPES:
        raise header.fault(f"data_type is {code}; expected 1 to 7")
    if min(shape) < 1:
        raise header.fault(f"its dimensions are {shape} (z, y, x), an axis without extent; correct the header")
    dtype = np.dtype(_DTYPES[code])
    frame_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    size, expected = image.stat().st_size, frame_bytes * len(header.frames)
    if size != expected:
        raise header.fault(f"{image.name} has {size} bytes, but {len(header.frames)} frames of {' x '.join(map(str, shape))} "
                           f"{dtype} pixels are {expected}; copy both files again")  # fmt: skip
    return frames_from(image, dtype, shape, _offsets(header, frame_bytes))


def _required(header: _Header, key: str) -> int:
    value = header.whole(key)
    if value is None:
        raise header.fault(f"key {key} is missing; export it again")
    return value


def _offsets(header: _Header, frame_bytes: int) -> tuple[int, ...]:
    """Return where each frame starts: data_file_pointer (high and low 32 bits), else one after the other."""
    pointers = [_pointer(header, i) for i in range(len(header.frames))]
    in_order = tuple(i * frame_bytes for i in range(len(pointers)))
    if not any(pointers):
        return in_order
    if sorted(p for p in pointers if p is not None) != list(in_order):
        raise header.fault(f"the frames' data_file_pointer are {pointers[:4]}; expected multiples of the frame's "
                           f"{frame_bytes} bytes, each once: export it again")  # fmt: skip
    return tuple(p for p in pointers if p is not None)


def _pointer(header: _Header, frame: int) -> int | None:
    words = header.frames[frame].get("data_file_pointer", "").split()
    try:
        high, low = (int(w) & 0xFFFFFFFF for w in (["0", *words] if len(words) == 1 else words))
    except ValueError:
        return None
    return high << 32 | low


def _timing(header: _Header, notes: list[str]) -> FrameTiming | None:
    start, duration = header.each("frame_start"), header.each("frame_duration")
    if start is None or duration is None:
        notes.append("the header states no frame times, so they are unknown")
        return None
    try:
        return FrameTiming(tuple(start), tuple(duration))
    except TimingError as err:
        raise header.fault(f"keys frame_start and frame_duration: {err}") from err


def _calibration(header: _Header, notes: list[str], warnings: list[str]) -> tuple[NDArray[np.float64], str]:
    """Return units per count, shape (T, 1, 1, 1), and the unit."""
    factors = header.each("scale_factor")
    if factors is None or min(factors) <= 0:
        found = "missing" if factors is None else f"{min(factors):g} in frame {int(np.argmin(factors))}"
        raise header.fault(f"key scale_factor is {found}; expected a number above 0 in every frame: export it again")
    scale = np.array(factors).reshape(-1, 1, 1, 1)
    modality = header.whole("modality")
    if modality == 1:
        notes.append("this is a CT image, whose values are no activity")
        return scale, "counts"
    calibration, branching = header.number("calibration_factor"), header.number("isotope_branching_fraction")
    unit = header.whole("calibration_units") or 0
    wrong = [f"{key} is {'missing' if value is None else format(value, 'g')}"
             for key, value in (("calibration_factor", calibration), ("isotope_branching_fraction", branching))
             if value is None or value <= 0]  # fmt: skip
    if unit not in _BQ_PER_UNIT:
        wrong.append(f"calibration_units is {unit} (neither 1, nCi/cc, nor 2, Bq/cc)")
    if wrong or calibration is None or branching is None:
        warnings.append(f"{', '.join(wrong)}, so values are counts without a calibration")
        return scale, "counts"
    if branching > 1:
        warnings.append(f"isotope_branching_fraction is {branching:g}, expected at most 1")
    return scale * calibration / branching * _BQ_PER_UNIT[unit], ACTIVITY


def _spacing(header: _Header, notes: list[str], warnings: list[str]) -> tuple[tuple[float, float] | None, float | None]:
    """Return ((y, x), z) in mm: pixel_size_x, _y, _z are in mm, the older pixel_size is in cm."""
    x, y, z = (header.number(f"pixel_size_{axis}") or 0.0 for axis in "xyz")
    plane = 10 * (header.number("pixel_size") or 0.0)
    if x > 0 and y > 0:
        if plane > 0 and abs(plane / x - 1) > 0.01:
            warnings.append(f"pixel_size is {plane:g} mm and pixel_size_x {x:g} mm; pixel_size_x is used")
    elif plane > 0:
        x = y = plane
        notes.append("pixel size from pixel_size, in cm")
    else:
        notes.append("the header states no pixel size")
        return None, None
    if z <= 0 and (pitch := header.number("axial_crystal_pitch") or 0.0) > 0:
        z = 5 * pitch
        notes.append("slice distance is half the axial_crystal_pitch, as microPET reconstructions have it")
    return (y, x), z if z > 0 else None


def _tracer(header: _Header, timing: FrameTiming | None, notes: list[str], warnings: list[str]) -> Tracer:
    half_life = header.number("isotope_half_life") or 0.0
    injected_s = _injected_s(header, timing, warnings)
    return Tracer(
        isotope=isotope_name(header.values.get("isotope", "")),
        half_life_s=half_life if half_life > 0 else None,
        injected_bq=_injected_bq(header, warnings),
        injected_s=injected_s,
        decay_corrected_to=_decay(header, timing, half_life, injected_s, warnings),
        weight_g=_weight_g(header, notes),
    )


def _injected_bq(header: _Header, warnings: list[str]) -> float | None:
    dose, unit = header.number("dose") or 0.0, header.whole("dose_units") or 0
    if dose <= 0:
        return None
    if unit not in _DOSE_BQ:
        warnings.append(
            f"the dose is {dose:g}, but dose_units is {unit} (neither 1, mCi, nor 2, MBq), so it is unknown"
        )
        return None
    factor = header.number("injection_decay_correction") or 1.0
    if abs(factor - 1) > 1e-3:
        warnings.append(f"the dose of {dose:g} goes with an injection_decay_correction of {factor:g}, and the header does "
                        "not say whether it is applied, so the injected activity is unknown: give it in the study")  # fmt: skip
        return None
    return dose * _DOSE_BQ[unit]


def _weight_g(header: _Header, notes: list[str]) -> float | None:
    weight, unit = header.number("subject_weight") or 0.0, header.whole("subject_weight_units") or 0
    if weight <= 0:
        return None
    if unit not in _WEIGHT_G:
        notes.append(f"the subject_weight is {weight:g} without a unit, so it is unknown")
        return None
    return weight * _WEIGHT_G[unit]


def _decay(
    header: _Header, timing: FrameTiming | None, half_life: float, injected_s: float | None, warnings: list[str]
) -> DecayReference:
    """Return the instant the frames' decay_correction leads to, where the header says that it was applied."""
    if header.whole("decay_correction_applied") == 0:
        return "none"
    factors = header.each("decay_correction")
    if factors is None:
        return "unknown"
    found = decay_reference(factors, timing, half_life, injected_s)
    if header.whole("decay_correction_applied") and found in ("none", "unknown"):
        warnings.append("decay correction was applied, but the frames' decay_correction fit neither the scan's start nor "
                        "the injection, so what values are corrected to is unknown")  # fmt: skip
        return "unknown"
    return found


def _injected_s(header: _Header, timing: FrameTiming | None, warnings: list[str]) -> float | None:
    """Return when the dose was given after the scan's start, in s; both are clock times in the header."""
    scan, dose = (_clock(header.values.get(key, "")) for key in ("scan_time", "injection_time"))
    if scan is None or dose is None:
        return None
    return believed_injection((dose - scan).total_seconds(), timing, "injection_time", warnings)


def _clock(text: str) -> datetime | None:
    """Return a time such as `Fri Jan 7 14:16:31 2005`, in English whatever the machine speaks."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None or match[1] not in _MONTHS:
        return None
    day, hour, minute, second, year = (int(match[i]) for i in range(2, 7))
    try:
        return datetime(year, _MONTHS.index(match[1]) + 1, day, hour, minute, second)
    except ValueError:
        return None


def _words(header: _Header) -> dict[str, str]:
    told = {
        "instrument": _MODELS.get(header.whole("model") or 0, ""),
        "modality": _MODALITIES.get(-1 if (code := header.whole("modality")) is None else code, ""),
        "acquired": header.values.get("scan_time", ""),
        "tracer": header.values.get("injected_compound", ""),
        "subject": header.values.get("subject_identifier", ""),
        "position": _POSITIONS.get(header.whole("subject_orientation") or 0, ""),
    }
    return {name: "".join(c for c in text if c.isprintable()) for name, text in told.items() if text}


READER = Reader("inveon", "Siemens Inveon and microPET images (.img with .img.hdr)", _takes, read_inveon)
