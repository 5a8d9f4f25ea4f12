"""A sidecar beside a TIFF says what the TIFF cannot: axes, pixel size, calibration, times, bands, tracer.

It is `<stem>.json` or `<stem>.toml` with the key `evbiodist = 1`; any other JSON beside an image is left alone.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from evbiodist.io import tiff
from evbiodist.io.registry import Reader
from evbiodist.io.scan import Band, Scan, Tracer
from evbiodist.io.stream import in_order
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.constants import isotopes
from evbiodist.study.problems import Problem, UnreadableImage, nearest
from evbiodist.study.tables import explain

_SUFFIXES = (".json", ".toml")
_MAX_BYTES = 1 << 20
_MAX_PHOTO_PIXELS = 200_000_000
#: Pixel sizes of image and sidecar that differ by more than this share are named.
_SAME = 0.01

#: What a value of the wrong kind should have been, by pydantic's error type; and of keys that take two kinds.
_KINDS = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "string_type": "text",
    "model_type": "a table of keys",
}
_EITHER = {"pixel_size_mm": "a number, or [y, x]", "frame_duration_s": "a number, or one a frame",
           "notes": "a sentence, or a list of sentences"}  # fmt: skip

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class BandKeys(BaseModel):
    """One entry of `bands`: emission and excitation in nm, and the instrument's name of the band."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    emission_nm: Positive | None = None
    excitation_nm: Positive | None = None
    name: str = ""


class Sidecar(BaseModel):
    """The keys of a sidecar; all but `evbiodist` may be left out, and what is left out stays as the TIFF says.

    Parameters
    ----------
    evbiodist : 1, the version of these keys.
    axes : one letter an axis, slowest first, in the order in which `evbiodist info` shows the TIFF's own (`TYX`, `ZYX`),
        or in which its planes are stored where the TIFF names no axes.
    pixel_size_mm : one number, or [y, x]. slice_mm : distance of neighbouring slices.
    unit : of ``(counts - offset) * scale``: counts, p/s/cm2/sr, (p/s/cm2/sr)/(uW/cm2) or Bq/mL.
    offset, scale : one number each. exposure_s : exposure of one frame. systematic_rel : calibration error, 0.05 is 5 %.
    gain_e, read_noise_e, bias, saturation : of the camera, in electrons per count, electrons, counts, counts.
    frame_start_s : start of every frame. frame_duration_s : one number, or one a frame; 0 for snapshots.
    time_reference : `injection` or `scan_start`, what frame starts count from.
    bands : a list of {emission_nm, excitation_nm, name}, one a plane of axis C.
    isotope, injected_bq, injected_s, decay_corrected_to, weight_g : as in `evbiodist.io.scan.Tracer`.
    photograph : name of a grey TIFF, PNG or JPEG in the same folder.
    notes : a sentence, or a list of sentences.

    Examples
    --------
    >>> Sidecar(evbiodist=1, axes="TYX", pixel_size_mm=0.1).axes
    'TYX'
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    evbiodist: Literal[1]
    axes: str | None = None
    pixel_size_mm: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    slice_mm: Positive | None = None
    unit: Literal["counts", "p/s/cm2/sr", "(p/s/cm2/sr)/(uW/cm2)", "Bq/mL"] | None = None
    exposure_s: Positive | None = None
    gain_e: Positive | None = None
    read_noise_e: NotNegative | None = None
    bias: float | None = None
    saturation: Positive | None = None
    offset: float | None = None
    scale: Positive | None = None
    frame_start_s: list[float] | None = None
    frame_duration_s: NotNegative | list[NotNegative] | None = None
    time_reference: Literal["injection", "scan_start"] | None = None
    bands: list[BandKeys] | None = None
    isotope: str | None = None
    injected_bq: Positive | None = None
    injected_s: float | None = None
    decay_corrected_to: Literal["injection", "scan_start", "none", "unknown"] | None = None
    weight_g: Positive | None = None
    photograph: str | None = None
    systematic_rel: NotNegative | None = None
    notes: str | list[str] | None = None


def sidecar_of(path: Path) -> Path | None:
    """Return the sidecar of an image: `<stem>.json` or `<stem>.toml` that names the key `evbiodist`; None without.

    Raises
    ------
    UnreadableImage : both a JSON and a TOML sidecar are there.
    """
    found = [side for side in (path.with_suffix(suffix) for suffix in _SUFFIXES) if side.is_file() and _is_ours(side)]
    if len(found) > 1:
        raise UnreadableImage(path, f"both {found[0].name} and {found[1].name} describe it; remove one of them")
    return found[0] if found else None


def read_sidecar(path: Path) -> Scan:
    """Read a TIFF together with the sidecar beside it, whose word counts where the two differ.

    Parameters
    ----------
    path : the TIFF; its sidecar has the same stem (see `Sidecar` for the keys).

    Returns
    -------
    Scan : as `evbiodist.io.tiff.read_tiff` reads it, with what the sidecar adds.

    Raises
    ------
    UnreadableImage : an unreadable TIFF, or a sidecar with problems, all of them named.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.tif")
    ...     tifffile.imwrite(path, np.ones((2, 4, 5), np.uint16))
    ...     _ = path.with_suffix(".json").write_text('{"evbiodist": 1, "axes": "ZYX", "slice_mm": 0.5}')
    ...     scan = read_sidecar(path)
    >>> scan.axes, scan.slice_mm
    ('ZYX', 0.5)
    """
    path = Path(path)
    side = sidecar_of(path)
    if side is None:
        raise UnreadableImage(path, f"there is no sidecar {path.stem}.json or .toml with the key evbiodist beside it")
    keys = _load(path, side)
    return apply(tiff.read_tiff(path, axes_follow="axes" in keys), keys, side)


def apply(scan: Scan, keys: dict[str, Any], side: Path) -> Scan:
    """Add what sidecar keys say to a scan.

    Parameters
    ----------
    scan : as read from the image.
    keys : name and value of every key, as in the file.
    side : where they stand, for messages; a photograph is looked for in its folder.

    Raises
    ------
    UnreadableImage : with every problem of the keys.
    """
    problems: list[Problem] = []
    told = _validated(keys, side.name, problems)
    image = _named_axes(told, scan, side, problems)
    fields: dict[str, Any] = {}
    for part in (_geometry, _calibration, _frames, _bands, _tracer, _photograph):
        fields |= part(told, image, side, problems)
    if problems:
        count = f"{len(problems)} problems: " if len(problems) > 1 else ""
        raise UnreadableImage(scan.path or scan.name, "its sidecar is refused: " + count + " ".join(map(str, problems)))
    notes = [told.notes] if isinstance(told.notes, str) else (told.notes or [])
    fields["notes"] = (*image.notes, f"described by {side.name}", *fields.get("notes", ()), *notes)
    fields["warnings"] = (*image.warnings, *_differences(scan, fields, side))
    return replace(image, **fields)


def described(scan: Scan) -> dict[str, Any]:
    """Return the sidecar keys that describe a scan, so that written beside its pixels they read back as the scan.

    Raises
    ------
    ValueError : an offset or a scale that differs between pixels, which one number cannot hold.

    Examples
    --------
    >>> described(Scan("a", None, np.ones((2, 2)), "YX", pixel_size_mm=(0.1, 0.2)))
    {'evbiodist': 1, 'axes': 'YX', 'pixel_size_mm': [0.1, 0.2], 'unit': 'counts', 'offset': 0.0, 'scale': 1.0}
    """
    if np.ndim(scan.offset) or np.ndim(scan.scale):
        raise ValueError(f"{scan.name} has an offset or scale for every pixel; write its signal() as counts instead")
    timing, tracer, camera = scan.timing, scan.tracer or Tracer(), scan.camera
    keys = {
        "evbiodist": 1, "axes": scan.axes, "pixel_size_mm": scan.pixel_size_mm and [*map(float, scan.pixel_size_mm)],
        "slice_mm": scan.slice_mm, "unit": scan.unit, "exposure_s": scan.exposure_s,
        "gain_e": camera.gain_e, "read_noise_e": camera.read_noise_e, "bias": camera.bias, "saturation": camera.saturation,
        "offset": float(scan.offset), "scale": float(scan.scale),
        "frame_start_s": timing and [*timing.start_s], "frame_duration_s": timing and [*timing.duration_s],
        "time_reference": timing and timing.reference,
        "bands": [_without_none(vars(band)) for band in scan.bands] or None,
        "isotope": tracer.isotope, "injected_bq": tracer.injected_bq, "injected_s": tracer.injected_s,
        "decay_corrected_to": scan.tracer and tracer.decay_corrected_to, "weight_g": tracer.weight_g,
        "systematic_rel": scan.systematic_rel or None,
    }  # fmt: skip
    return _without_none(keys)


def write_sidecar(path: Path, scan: Scan) -> Path:
    """Write the JSON sidecar of a TIFF that holds a scan's counts; it appears whole or not at all.

    Parameters
    ----------
    path : of the TIFF.
    scan : what to describe.

    Returns
    -------
    Path : of the sidecar.

    Raises
    ------
    ValueError : an offset or a scale that differs between pixels.
    """
    side = Path(path).with_suffix(".json")
    part = side.with_name(f".part-{os.getpid()}-{side.name}")
    try:
        part.write_text(json.dumps(described(scan), indent=1) + "\n", encoding="utf-8")
        part.replace(side)
    finally:
        part.unlink(missing_ok=True)
    return side


def _without_none(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _is_ours(side: Path) -> bool:
    """Whether a file has the key `evbiodist`, or speaks of it and cannot be read."""
    try:
        data = _bytes(side)
        return b"evbiodist" in data and "evbiodist" in _parsed(side, data)
    except (ValueError, OSError):
        return True


def _bytes(side: Path) -> bytes:
    with side.open("rb") as handle:
        return handle.read(_MAX_BYTES + 1)


def _load(path: Path, side: Path) -> dict[str, Any]:
    if side.resolve().parent != path.resolve().parent:
        raise UnreadableImage(path, f"its sidecar {side.name} is a link to another folder, which is not followed; "
                                    "put a copy beside the image")  # fmt: skip
    try:
        return _parsed(side, _bytes(side))
    except (ValueError, OSError) as err:
        raise UnreadableImage(path, f"its sidecar {side.name} cannot be read: {err}; correct or remove it") from err


def _parsed(side: Path, data: bytes) -> dict[str, Any]:
    """Return the keys of a sidecar.

    Raises
    ------
    ValueError : in words: too large, not text, not JSON or TOML, a key twice, no table of keys.
    """
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
        keys = tomllib.loads(text) if side.suffix == ".toml" else json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as err:
        raise ValueError("it is not UTF-8 text") from err
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
    if not isinstance(keys, dict):
        raise ValueError("it holds no table of keys")
    return keys


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key {', '.join(twice)} stands there twice")
    return dict(pairs)


def _validated(keys: dict[str, Any], name: str, problems: list[Problem]) -> Sidecar:
    """Return the keys that are right and append a problem for each that is not."""
    try:
        return Sidecar.model_validate(keys)
    except ValidationError as err:
        found = {_field(error): error for error in reversed(err.errors())}  # a union reports each alternative
        problems += [_problem(name, field, error) for field, error in reversed(found.items())]
        wrong = {error["loc"][0] for error in err.errors()}
        return Sidecar.model_validate({k: v for k, v in keys.items() if k not in wrong} | {"evbiodist": 1})


def _field(error: ErrorDetails) -> str:
    """Return the key that an error is about; `bands.0.name` inside of a list."""
    where = error["loc"] if error["loc"][0] == "bands" else error["loc"][:1]
    return ".".join(map(str, where))


def _problem(name: str, field: str, error: ErrorDetails) -> Problem:
    _, found, expected, remedy = explain(error)
    if error["type"] == "extra_forbidden":
        known = BandKeys if field.startswith("bands.") else Sidecar
        hint = nearest(field.rsplit(".", 1)[-1], known.model_fields)
        return Problem(name, found, "a known key", hint, field=field)
    if field == "evbiodist":
        expected, remedy = "1, the version of these keys", "write 1, or read it with a newer evbiodist"
    elif error["type"] in _KINDS:
        expected, remedy = _EITHER.get(field, _KINDS[error["type"]]), "correct it"
    return Problem(name, found, expected, remedy, field=field)


def _named_axes(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> Scan:
    """Return the scan with the sidecar's axes; what the image said of frames, bands and slices goes with other axes."""
    axes, shape = told.axes, " x ".join(map(str, scan.counts.shape))
    if axes is None or axes == scan.axes:
        return scan
    if len(axes) != scan.counts.ndim:
        problems.append(Problem(side.name, axes, f"{scan.counts.ndim} letters, one for each axis of the image ({shape})",
                                "name every axis once", field="axes"))  # fmt: skip
        return scan
    if not axes.endswith("YX") or not set(axes) <= set("TCZYX") or len(set(axes)) != len(axes):
        problems.append(
            Problem(side.name, axes, "letters of TCZYX, each once, with YX last", "correct it", field="axes")
        )
        return scan
    note = f"axes {scan.axes} of the image are read as {axes}"
    counts, axes = in_order(scan.counts, axes)
    return replace(scan, counts=counts, axes=axes, timing=None, bands=(), slice_mm=None, notes=(*scan.notes, note))


def _geometry(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    size = told.pixel_size_mm
    pixel = (size[0], size[1]) if isinstance(size, list) else size and (size, size)
    return _without_none({"pixel_size_mm": pixel, "slice_mm": told.slice_mm})


def _calibration(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    camera = _without_none({k: getattr(told, k) for k in ("gain_e", "read_noise_e", "bias", "saturation")})
    fields = {k: getattr(told, k) for k in ("unit", "offset", "scale", "exposure_s", "systematic_rel")}
    return _without_none(fields) | ({"camera": replace(scan.camera, **camera)} if camera else {})


def _frames(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    start, duration = told.frame_start_s, told.frame_duration_s
    if start is None:
        for field in ("frame_duration_s", "time_reference"):
            if getattr(told, field) is not None:
                problems.append(Problem(side.name, str(getattr(told, field)), "frame_start_s too", "add the start of every frame",
                                        field=field))  # fmt: skip
        return {}
    notes = []
    if duration is None:
        notes.append("how long a frame lasts is not stated: taken as 0")
    if told.time_reference is None:
        notes.append("frame times are taken to count from the start of the scan")
    lasts = duration if isinstance(duration, list) else [duration or 0.0] * len(start)
    try:
        timing = FrameTiming(tuple(start), tuple(lasts), told.time_reference or "scan_start")
        timing.check_frames(scan.extent("T"))
    except TimingError as err:
        field = "frame_duration_s" if isinstance(duration, list) and len(duration) != len(start) else "frame_start_s"
        problems.append(
            Problem(side.name, f"{len(start)} frame starts", "times that fit the frames", str(err), field=field)
        )
        return {}
    return {"timing": timing, "notes": tuple(notes)}


def _bands(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    if told.bands is None:
        return {}
    if len(told.bands) != scan.extent("C"):
        problems.append(Problem(side.name, f"{len(told.bands)} bands",
                                f"{scan.extent('C')}, one for each plane of axis C (axes {scan.axes})",
                                "list every band, or correct axes", field="bands"))  # fmt: skip
        return {}
    return {"bands": tuple(Band(**band.model_dump()) for band in told.bands)}


def _tracer(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    names = ("isotope", "injected_bq", "injected_s", "decay_corrected_to", "weight_g")
    fields = _without_none({name: getattr(told, name) for name in names})
    if told.isotope is not None and told.isotope not in isotopes():
        problems.append(
            Problem(side.name, told.isotope, "a known isotope", nearest(told.isotope, isotopes()), field="isotope")
        )
    return {"tracer": replace(scan.tracer or Tracer(), **fields)} if fields else {}


def _photograph(told: Sidecar, scan: Scan, side: Path, problems: list[Problem]) -> dict[str, Any]:
    name = told.photograph
    if name is None:
        return {}
    try:
        return {"photograph": _picture(side, name)}
    except ValueError as err:  # UnreadableImage is one
        problems.append(Problem(side.name, name, "a grey picture in the same folder", str(err), field="photograph"))
    except Exception as err:  # picture decoders raise many types
        problems.append(Problem(side.name, name, "a picture that can be decoded", f"export it again ({type(err).__name__})",
                                field="photograph"))  # fmt: skip
    return {}


def _picture(side: Path, name: str) -> NDArray[Any]:
    """Return a picture of the sidecar's folder as grey values, shape (Y, X)."""
    file = side.parent / name
    if Path(name).name != name or "\\" in name or file.resolve().parent != side.resolve().parent:
        raise ValueError("give the name of a file in the image's own folder, without a path")
    if not file.is_file():
        raise ValueError("there is no such file; correct the name")
    if tiff.READER.takes(file):
        found = tiff.read_tiff(file)
        if found.axes != "YX":
            raise ValueError(f"it has axes {found.axes}; give a single picture")
        return found.counts
    from PIL import Image

    with Image.open(file, formats=("PNG", "JPEG")) as picture:
        if math.prod(picture.size) > _MAX_PHOTO_PIXELS:
            raise ValueError(
                f"it has {math.prod(picture.size):,} pixels, over the limit of {_MAX_PHOTO_PIXELS:,}; bin it"
            )
        return np.asarray(picture.convert("L"))


def _differences(scan: Scan, fields: dict[str, Any], side: Path) -> Iterator[str]:
    """Yield a sentence where the image states another pixel size than its sidecar."""
    own, told = scan.pixel_size_mm, fields.get("pixel_size_mm")
    if own is not None and told is not None and not np.allclose(own, told, rtol=_SAME, atol=0):
        yield (f"the image states a pixel size of {own[0]:.4g} x {own[1]:.4g} mm, {side.name} {told[0]:.4g} x "
               f"{told[1]:.4g} mm; the sidecar's is used")  # fmt: skip


def _takes(path: Path) -> bool:
    try:
        return tiff.READER.takes(path) and sidecar_of(path) is not None
    except UnreadableImage:  # two sidecars: reading says so
        return True


READER = Reader("sidecar", "TIFF stacks with a sidecar (.json or .toml with evbiodist = 1)", _takes, read_sidecar)
