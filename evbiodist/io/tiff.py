"""TIFF stacks through tifffile: axes, pixel size and units as ImageJ or OME wrote them.

The file is checked against its own directory first, because a truncated or sparse TIFF decodes
to plausible zeros, and a page loop hangs `tifffile.imread`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evbiodist.io.registry import Reader
from evbiodist.io.scan import Camera, Scan
from evbiodist.study.problems import UnreadableImage

_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "m": 1e3, "um": 1e-3, "µm": 1e-3, "μm": 1e-3,
       "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "nm": 1e-6, "inch": 25.4}  # fmt: skip
_RESOLUTION_UNIT_MM = {2: 25.4, 3: 10.0}
#: Resolutions that programs write when they know none (dots per inch).
_SCREEN_DPI = {1.0, 72.0, 96.0}
_MAX_BYTES = 8 << 30


def _takes(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or path.suffix.lower() in {".tif", ".tiff"}


def read_tiff(path: Path) -> Scan:
    """Read a TIFF stack as counts with the pixel size its metadata states, or none.

    Parameters
    ----------
    path : a TIFF, ImageJ TIFF or single-file OME-TIFF.

    Returns
    -------
    Scan : axes as stored, e.g. `TYX`; `pixel_size_mm` None unless the file says so with a unit.

    Raises
    ------
    UnreadableImage : truncated, with missing planes, colour, or damaged.
    """
    path = Path(path)
    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            check_complete(path, tif)
            series = tif.series[0]
            if series.nbytes > _MAX_BYTES:
                raise UnreadableImage(path, f"{series.nbytes / 2**30:.1f} GiB of pixels is over the limit of 8 GiB; "
                                            "crop it or bin it")  # fmt: skip
            colour = int(tif.pages[0].photometric) in {2, 3, 5, 6} and "S" in series.axes  # type: ignore[union-attr]
            counts, axes = _plain(path, series.asarray(), series.axes, colour)
            size, notes = _pixel_size(tif)
            acquired = str(tif.pages[0].tags.valueof("DateTime", default="") or "")  # type: ignore[union-attr]
    except tifffile.TiffFileError as err:
        raise UnreadableImage(path, f"not a TIFF that can be read ({err}); export it again") from err
    header = {"acquired": acquired} if acquired else {}
    return Scan(path.name, path, counts, axes, size, camera=Camera(), notes=tuple(notes), header=header)


def check_complete(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a TIFF whose directory points outside the file or leaves planes out.

    Raises
    ------
    UnreadableImage : with the page, and how many bytes are missing.
    """
    pages = len(tif.pages)  # before .series: this is what ends page loops
    size = path.stat().st_size
    if pages == 0:
        raise UnreadableImage(path, "it holds no image; export it again")
    for number, page in enumerate(tif.pages):
        offsets, lengths = page.dataoffsets, page.databytecounts
        end = max((o + n for o, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise UnreadableImage(path, f"truncated: page {number + 1} of {pages} ends at byte {end}, the file at "
                                        f"{size}; copy it again from the instrument")  # fmt: skip
        if any(o == 0 or n == 0 for o, n in zip(offsets, lengths, strict=False)) or not offsets:
            raise UnreadableImage(path, f"page {number + 1} of {pages} has missing strips, which would read as zeros; "
                                        "export it again without sparse storage")  # fmt: skip


def _plain(path: Path, array: Any, axes: str, colour: bool) -> tuple[Any, str]:
    if colour:
        raise UnreadableImage(path, "it is a colour picture, whose values are not measurements; "
                                    "export the grey image with counts")  # fmt: skip
    array = np.asarray(array)
    if array.dtype.kind not in "uif":
        raise UnreadableImage(path, f"pixels are of type {array.dtype}; expected integer or float counts")
    if array.dtype.kind == "f" and not np.isfinite(array).any():
        raise UnreadableImage(path, "no pixel holds a finite number")
    return array, re.sub("[QIS]", "T", axes)


def _pixel_size(tif: tifffile.TiffFile) -> tuple[tuple[float, float] | None, list[str]]:
    """Return (y, x) in mm and a note on where it comes from; None where the file does not say."""
    if tif.is_ome and tif.ome_metadata:
        sizes = tifffile.xml2dict(_no_doctype(tif.ome_metadata))["OME"]["Image"]
        pixels = (sizes[0] if isinstance(sizes, list) else sizes)["Pixels"]
        y, x = (_ome_length(pixels, axis) for axis in "YX")
        return ((y, x), ["pixel size from OME"]) if y and x else (None, ["OME states no pixel size"])
    page = tif.pages[0]
    x_res, y_res = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))  # type: ignore[union-attr]
    per_unit = [_ratio(y_res), _ratio(x_res)]
    if tif.is_imagej and tif.imagej_metadata:
        unit = str(tif.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ")
        if unit in _MM and all(per_unit):
            return (_MM[unit] / per_unit[0], _MM[unit] / per_unit[1]), [f"pixel size from ImageJ, in {unit}"]
        return None, ["ImageJ states no unit of length"]
    unit_code = page.tags.valueof("ResolutionUnit", default=1)  # type: ignore[union-attr]
    factor = _RESOLUTION_UNIT_MM.get(int(unit_code or 1))
    if factor is None or not all(per_unit):
        return None, ["the resolution tags state no pixel size"]
    if factor == 25.4 and per_unit[1] in _SCREEN_DPI:
        return None, [f"a resolution of {per_unit[1]:g} dpi is a program's default, so the pixel size is unknown"]
    return (factor / per_unit[0], factor / per_unit[1]), ["pixel size from the resolution tags"]


def _no_doctype(xml: str) -> str:
    if "<!DOCTYPE" in xml:
        raise ValueError("its OME-XML holds a DOCTYPE, which is refused")
    return xml


def _ome_length(pixels: dict[str, Any], axis: str) -> float | None:
    value = pixels.get(f"PhysicalSize{axis}")
    unit = str(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return float(value) * _MM[unit] if value and unit in _MM else None


def _ratio(value: Any) -> float:
    """Return pixels per unit, 0 when the tag is missing or its fraction is 0/1."""
    if value is None:
        return 0.0
    top, bottom = value if isinstance(value, tuple) else (value, 1)
    return float(top) / float(bottom) if bottom else 0.0


READER = Reader("tiff", "TIFF, ImageJ TIFF and OME-TIFF stacks", _takes, read_tiff)
