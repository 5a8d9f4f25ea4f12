"""ECAT7 volumes (.v), as CTI and Siemens PET scanners wrote them.

nibabel knows the layout of the headers. The matrix list is followed here, because a list that points back to
itself hangs, and frames that are missing or of another size must be named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.activity import believed_injection, bq_per_ml, decay_reference, isotope_name
from evbiodist.io.frames_on_disk import bad_pixels, frames_from
from evbiodist.io.registry import Reader
from evbiodist.io.scan import ACTIVITY, Scan, Tracer
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.problems import UnreadableImage

_BLOCK = 512
#: File types that are images; the others are sinograms, attenuation maps and normalisations.
_IMAGES = (2, 6, 7, 10)
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 5: np.dtype(">f4"), 6: np.dtype(">i2"), 7: np.dtype(">i4")}
_POSITIONS = ("feet first, prone", "head first, prone", "feet first, supine", "head first, supine",
              "feet first, right side down", "head first, right side down", "feet first, left side down",
              "head first, left side down")  # fmt: skip


def _takes(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(7) == b"MATRIX7" or path.suffix.lower() == ".v"


def read_ecat(path: Path) -> Scan:
    """Read an ECAT7 volume as stored, with the times, calibration and tracer of its headers.

    The value of a pixel is counts * scale_factor of its frame * ecat_calibration_factor, in the header's
    data_units. Pixels keep the file's order and are not turned: in the scanner's frame growing x leads to the
    left, y to the back and z to the feet of a patient who lies head first on the back;
    ``header["position"]`` says how this one lay.

    Parameters
    ----------
    path : an ECAT7 image file, usually `name.v`.

    Returns
    -------
    Scan : (Z, Y, X), or (T, Z, Y, X) for more than one frame; in Bq/mL when data_units are an activity
        concentration, else in counts. Frames count from the scan's start; the injection is in
        ``tracer.injected_s``.

    Raises
    ------
    UnreadableImage : not an ECAT7 image, truncated, gated, of several bed positions, of VAX numbers, or with
        frames that differ in size or contradict each other in time.

    Examples
    --------
    >>> import nibabel
    >>> scan = read_ecat(Path(nibabel.__file__).parent / "tests" / "data" / "tinypet.v")
    >>> scan.axes, scan.counts.shape, scan.unit, scan.timing.start_s, scan.tracer.decay_corrected_to
    ('ZYX', (3, 10, 10), 'Bq/mL', (1500.016,), 'scan_start')

    References
    ----------
    CTI ECAT 7 file format, as described in the documentation of nibabel.ecat and of libtpcimgio (Turku PET Centre).
    """
    path = Path(path)
    header = _main_header(path)
    notes: list[str] = []
    warnings: list[str] = []
    frames = _frames(path, header, warnings)
    counts = frames_from(path, frames[0].dtype, frames[0].shape, tuple(f.offset for f in frames))
    timing = _timing(path, frames, notes)
    scale, unit = _calibration(path, header, frames, warnings)
    size, slice_mm = _spacing(frames, header, warnings)
    tracer = _tracer(header, frames, timing, notes, warnings)
    bad = bad_pixels(path, counts, warnings)
    return Scan(
        path.name, path, counts, "TZYX" if len(frames) > 1 else "ZYX", size,
        unit=unit, scale=scale if len(frames) > 1 else float(scale.ravel()[0]), slice_mm=slice_mm, timing=timing,
        tracer=tracer, bad=bad, notes=tuple(notes), warnings=tuple(warnings), header=_words(header),
    )  # fmt: skip


@dataclass(frozen=True)
class _Frame:
    """One frame: its number in the series, its subheader, and where its pixels lie."""

    number: int
    sub: Any
    offset: int
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(int(self.sub[f"{axis}_dimension"]) for axis in "zyx")  # type: ignore[return-value]


def _text(field: Any) -> str:
    """Return a header's text up to its first NUL, without control characters."""
    text = bytes(field).split(b"\0")[0].decode("latin-1").strip()
    return "".join(c for c in text if c.isprintable())


def _block(path: Path, number: int, what: str) -> bytes:
    """Return one block; they are numbered from 1."""
    with path.open("rb") as handle:
        handle.seek((number - 1) * _BLOCK)
        block = handle.read(_BLOCK)
    if len(block) < _BLOCK:
        raise UnreadableImage(path, f"truncated: the {what} should lie at byte {(number - 1) * _BLOCK}, the file ends at "
                                    f"{path.stat().st_size}; copy it again")  # fmt: skip
    return block


def _record(block: bytes, dtype: np.dtype[Any]) -> Any:
    return np.frombuffer(block, dtype.newbyteorder(">"), count=1)[0]


def _main_header(path: Path) -> Any:
    from nibabel.ecat import file_type_codes, hdr_dtype

    with path.open("rb") as handle:
        magic = handle.read(7)
    if magic != b"MATRIX7":
        raise UnreadableImage(path, f"it starts with {magic!r}, not with MATRIX7 as ECAT7 files do; ECAT6 and other "
                                    "files must be converted")  # fmt: skip
    header = _record(_block(path, 1, "main header"), hdr_dtype)
    code = int(header["file_type"])
    if code not in _IMAGES:
        kind = file_type_codes.get(code, "unknown").removeprefix("ECAT7_")
        raise UnreadableImage(path, f"its file type is {code} ({kind}), no image; give the reconstructed volume")
    return header


def _matrix_list(path: Path) -> NDArray[np.int64]:
    """Return the rows (id, first block, last block, status) of the directory, following its chain of blocks."""
    rows, block, seen = [], 2, set[int]()
    while block not in seen:
        seen.add(block)
        table = np.frombuffer(_block(path, block, "matrix list"), ">i4").reshape(32, 4).astype(np.int64)
        free, block, _, used = (int(v) for v in table[0])
        if free + used != 31 or not 0 <= used <= 31 or block < 0:
            raise UnreadableImage(path, "its matrix list is damaged; copy it again or export it again")
        rows.append(table[1 : used + 1])
        if block <= 2:
            return np.vstack(rows)
    raise UnreadableImage(path, "its matrix list points back to itself; the file is damaged: export it again")


def _frames(path: Path, header: Any, warnings: list[str]) -> list[_Frame]:
    from nibabel.ecat import subhdr_dtype

    rows = [r for r in _matrix_list(path).tolist() if r[0] > 0 and r[3] not in (-1, 3)]  # -1 and 3: deleted
    places = {(r[0] >> 24 & 0x3F, r[0] >> 12 & 0xF) for r in rows}
    if not rows:
        raise UnreadableImage(path, "its matrix list holds no frame; export it again")
    if len(places) > 1:
        raise UnreadableImage(path, f"it holds {len(places)} gates or bed positions; export one of them, or their sum")
    frames = [_frame(path, number, first, subhdr_dtype)
              for number, first in sorted((r[0] & 0x1FF, r[1]) for r in rows)]  # fmt: skip
    numbers = [f.number for f in frames]
    if len(set(numbers)) != len(numbers):
        raise UnreadableImage(path, f"its matrix list holds a frame twice (frames {numbers}); export it again")
    for frame in frames[1:]:
        if (frame.shape, frame.dtype) != (frames[0].shape, frames[0].dtype):
            raise UnreadableImage(path, f"frame {frame.number} is {frame.shape} {frame.dtype}, frame {numbers[0]} "
                                        f"{frames[0].shape} {frames[0].dtype}; export frames of one size")  # fmt: skip
    stated = int(header["num_frames"])
    if stated != len(frames):
        warnings.append(f"the main header states {stated} frames, the file holds {len(frames)}")
    if frames[0].dtype.itemsize == 1:
        warnings.append("pixels of 8 bits are read as 0 to 255; ECAT7 does not say whether they have a sign")
    return frames


def _frame(path: Path, number: int, first: int, dtype: np.dtype[Any]) -> _Frame:
    if first < 3:
        raise UnreadableImage(path, f"frame {number} is placed in block {first}, inside the headers; export it again")
    sub = _record(_block(path, first, f"subheader of frame {number}"), dtype)
    code = int(sub["data_type"])
    if code not in _DTYPES:
        raise UnreadableImage(path, f"pixels of frame {number} are of type {code}; expected 1 (bytes), 5 (float), 6 or 7 "
                                    "(integer of 2 or 4 bytes, Sun order)")  # fmt: skip
    frame = _Frame(number, sub, first * _BLOCK, _DTYPES[code])
    if min(frame.shape) < 1:
        raise UnreadableImage(path, f"frame {number} has shape {frame.shape}, an axis without extent; export it again")
    end = frame.offset + int(np.prod(frame.shape, dtype=object)) * frame.dtype.itemsize
    if end > path.stat().st_size:
        raise UnreadableImage(path, f"truncated: frame {number} ends at byte {end}, the file at {path.stat().st_size}; "
                                    "copy it again")  # fmt: skip
    return frame


def _timing(path: Path, frames: list[_Frame], notes: list[str]) -> FrameTiming | None:
    start = tuple(int(f.sub["frame_start_time"].astype(np.int32)) / 1e3 for f in frames)
    duration = tuple(int(f.sub["frame_duration"]) / 1e3 for f in frames)
    if not any(start) and not any(duration):
        notes.append("the subheaders state no frame times, so they are unknown")
        return None
    try:
        return FrameTiming(start, duration)
    except TimingError as err:
        raise UnreadableImage(path, f"frame_start_time and frame_duration of its subheaders: {err}") from err


def _calibration(path: Path, header: Any, frames: list[_Frame], warnings: list[str]) -> tuple[NDArray[np.float64], str]:
    """Return units per count, shape (T, 1, 1, 1), and the unit."""
    scale = np.array([float(f.sub["scale_factor"]) for f in frames]).reshape(-1, 1, 1, 1)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        at = frames[int(np.argmin(np.where(np.isfinite(scale), scale, -np.inf)))]
        raise UnreadableImage(path, f"frame {at.number} has the scale_factor {float(at.sub['scale_factor']):g}; expected a "
                                    "number above 0: export it again")  # fmt: skip
    factor = float(header["ecat_calibration_factor"])
    words = _text(header["data_units"])
    activity = bq_per_ml(words) if words else None
    if not (np.isfinite(factor) and factor > 0):
        warnings.append(f"the ecat_calibration_factor is {factor:g}, so values are counts without a calibration")
        return scale, "counts"
    if activity is None:
        warnings.append(f"data_units are '{words}', no activity concentration such as Bq/cc, so values are counts without "
                        "a calibration")  # fmt: skip
        return scale * factor, "counts"
    return scale * factor * activity, ACTIVITY


def _spacing(frames: list[_Frame], header: Any, warnings: list[str]) -> tuple[tuple[float, float] | None, float | None]:
    """Return ((y, x), z) in mm; headers state cm."""
    cm = np.array([[float(f.sub[f"{axis}_pixel_size"]) for axis in "zyx"] for f in frames])
    if not np.isfinite(cm).all() or not (cm[:, 1:] > 0).all() or np.ptp(cm, axis=0).max() > 1e-3 * cm.max():
        warnings.append(
            "the subheaders' pixel sizes are not numbers above 0, or differ between frames, so they are unknown"
        )
        return None, None
    z = cm[0, 0] if cm[0, 0] > 0 else float(header["plane_separation"])
    return (float(10 * cm[0, 1]), float(10 * cm[0, 2])), float(10 * z) if np.isfinite(z) and z > 0 else None


def _tracer(
    header: Any, frames: list[_Frame], timing: FrameTiming | None, notes: list[str], warnings: list[str]
) -> Tracer:
    half_life = float(header["isotope_halflife"])
    half_life_s = half_life if np.isfinite(half_life) and half_life > 0 else None
    injected_s = _injected_s(header, timing, warnings)
    factors = [float(f.sub["decay_corr_fctr"]) for f in frames]
    dosage, weight = float(header["dosage"]), float(header["patient_weight"])
    if dosage:
        notes.append(f"the header's dosage is {dosage:g}; ECAT7 writers use several units for it, so the injected activity "
                     "is unknown: give the dose in the study")  # fmt: skip
    return Tracer(
        isotope=isotope_name(_text(header["isotope_name"])),
        half_life_s=half_life_s,
        injected_s=injected_s,
        decay_corrected_to=decay_reference(factors, timing, half_life_s, injected_s),
        weight_g=1e3 * weight if np.isfinite(weight) and weight > 0 else None,
    )


def _injected_s(header: Any, timing: FrameTiming | None, warnings: list[str]) -> float | None:
    """Return when the dose was given after the scan's start, in s; both are clock times in the header."""
    scan, dose = int(header["scan_start_time"]), int(header["dose_start_time"])
    return believed_injection(float(dose - scan), timing, "dose_start_time", warnings) if scan and dose else None


def _words(header: Any) -> dict[str, str]:
    code = int(header["patient_orientation"])
    told = {
        "position": _POSITIONS[code] if code < len(_POSITIONS) else "",
        "tracer": _text(header["radiopharmaceutical"]),
        "study": _text(header["study_description"]),
    }
    return {name: text for name, text in told.items() if text}


READER = Reader("ecat", "ECAT7 PET volumes (.v)", _takes, read_ecat)
