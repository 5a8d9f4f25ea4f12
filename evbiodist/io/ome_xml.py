"""The OME-XML of a TIFF: pixel size, slice distance, times and bands, and whether its planes are all there.

Only the first image counts, a DOCTYPE is refused, and what contradicts the pixels is left out and said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import Element  # the type only: parsing is defusedxml's

import tifffile

from evbiodist.io.scan import Band
from evbiodist.io.timing import FrameTiming
from evbiodist.study.problems import UnreadableImage

LENGTHS_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "m": 1e3, "um": 1e-3, "µm": 1e-3, "μm": 1e-3,
       "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "nm": 1e-6, "inch": 25.4}  # fmt: skip
_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NM = {"nm": 1.0, "µm": 1e3, "μm": 1e3, "Å": 0.1, "pm": 1e-3}


@dataclass(frozen=True)
class OmeFacts:
    """What OME-XML says of an image beside its pixel size."""

    slice_mm: float | None = None
    timing: FrameTiming | None = None
    bands: tuple[Band, ...] = ()
    exposure_s: float | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def ome_image(path: Path, tif: tifffile.TiffFile) -> Element | None:
    """Return the `Pixels` of the first image of OME-XML whose planes are all in this file; None without OME-XML."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if "<!DOCTYPE" in (tif.pages[0].description or ""):  # type: ignore[union-attr]
        raise UnreadableImage(path, "its XML description holds a DOCTYPE, which is refused; export it again")
    if not tif.is_ome:
        return None
    try:
        root = fromstring(tif.ome_metadata or "", forbid_dtd=True)
    except (ParseError, DefusedXmlException) as err:
        raise UnreadableImage(path, f"its OME-XML cannot be read ({err}); export it again") from err
    images = root.findall("{*}Image/{*}Pixels")
    if not images:
        raise UnreadableImage(path, "its OME-XML describes no image of this file (the description lies in a companion "
                                    "file); export it as one file")  # fmt: skip
    pages = len(tif.pages)
    planes = sum(_declared(path, pixels, pages) for pixels in images)
    _check_area(path, images, tif)
    if planes > pages:
        first = "x".join(images[0].get(f"Size{axis}", "?") for axis in "TCZ")
        raise UnreadableImage(path, f"its OME-XML declares {planes} planes (T x C x Z of the first image: {first}), the "
                                    f"file holds {pages} pages; export it as one complete file")  # fmt: skip
    return images[0]


def _check_area(path: Path, images: list[Element], tif: tifffile.TiffFile) -> None:
    """Refuse planes larger than the file's pages, for which tifffile makes up as many pages as they would need."""
    try:
        areas = [int(pixels.attrib["SizeX"]) * int(pixels.attrib["SizeY"]) for pixels in images]
    except (KeyError, ValueError) as err:
        raise UnreadableImage(path, f"its OME-XML states no usable sizes ({err}); export it again") from err
    first = tif.pages[0]
    largest = int(first.imagewidth) * int(first.imagelength)  # type: ignore[union-attr]
    if max(areas) > largest:
        largest = max(int(page.imagewidth) * int(page.imagelength) for page in tif.pages)  # type: ignore[union-attr]
    if min(areas) < 1 or max(areas) > largest:
        raise UnreadableImage(path, f"its OME-XML declares planes of {max(areas)} pixels, the largest page holds {largest}; "
                                    "export it as one complete file")  # fmt: skip


def _declared(path: Path, pixels: Element, pages: int) -> int:
    """Return how many pages an OME image declares; refuse one that points outside of the file's pages."""
    try:
        t, c, z = (int(pixels.attrib[f"Size{axis}"]) for axis in "TCZ")
        samples = max([int(channel.get("SamplesPerPixel", 1)) for channel in pixels.findall("{*}Channel")], default=1)
        reach = [
            int(data.get("IFD", 0)) + int(data.get("PlaneCount", data.get("NumPlanes", 1)))
            for data in pixels.findall("{*}TiffData")
        ]
    except (KeyError, ValueError) as err:
        raise UnreadableImage(path, f"its OME-XML states no usable sizes ({err}); export it again") from err
    if min(t, c, z, samples) < 1:
        raise UnreadableImage(path, f"its OME-XML states sizes T {t}, C {c}, Z {z}; expected 1 or more of each")
    if max(reach, default=0) > pages or any(int(data.get("IFD", 0)) < 0 for data in pixels.findall("{*}TiffData")):
        raise UnreadableImage(path, f"its OME-XML names page {max(reach)}, the file holds {pages} pages; export it as one "
                                    "complete file")  # fmt: skip
    return max(1, t * z * c // samples)


def ome_facts(pixels: Element, extents: dict[str, int]) -> OmeFacts:
    """Read slice distance, times and bands; what contradicts the image is left out and said."""
    notes: list[str] = []
    warnings: list[str] = []
    depth = ome_length(pixels, "Z") if "Z" in extents else None
    channels = pixels.findall("{*}Channel")
    bands = tuple(_ome_band(channel) for channel in channels)
    if len(bands) != extents.get("C", 1) or not any(b != Band() for b in bands):
        bands = ()
    timing, exposure = None, _ome_exposure(pixels)
    if extents.get("T", 1) > 1:
        try:
            timing = _ome_timing(pixels, extents, exposure, notes)
        except ValueError as err:  # TimingError, or a plane number that is none
            warnings.append(f"the frame times of OME are not used: {err}")
    return OmeFacts(depth, timing, bands, exposure, tuple(notes), tuple(warnings))


def _ome_band(channel: Element) -> Band:
    emission, excitation = (_number(channel, f"{kind}Wavelength", _NM, "nm") for kind in ("Emission", "Excitation"))
    return Band(emission, excitation, channel.get("Name", ""))


def _ome_exposure(pixels: Element) -> float | None:
    """Return the exposure that all planes share, in s."""
    times = {_number(plane, "ExposureTime", _SECONDS) for plane in pixels.findall("{*}Plane")}
    return times.pop() if len(times) == 1 else None


def _ome_timing(
    pixels: Element, extents: dict[str, int], exposure: float | None, notes: list[str]
) -> FrameTiming | None:
    """Return frame times as measured (DeltaT of each frame's first plane), else as planned (TimeIncrement)."""
    frames = extents["T"]
    measured = {
        int(plane.get("TheT", -1)): _number(plane, "DeltaT", _SECONDS, low=-math.inf)
        for plane in pixels.findall("{*}Plane")
        if plane.get("TheC", "0") == "0" and plane.get("TheZ", "0") == "0"
    }
    step = _number(pixels, "TimeIncrement", _SECONDS)
    start = tuple(measured.get(t) for t in range(frames))
    if None not in start:
        notes.append("frame times from OME's DeltaT of each frame's first plane")
    elif step is not None:
        start = tuple(t * step for t in range(frames))
        notes.append(f"frame times from OME's TimeIncrement of {step:g} s")
    else:
        notes.append("OME states no frame times with a unit")
        return None
    single = exposure is not None and extents.get("Z", 1) == extents.get("C", 1) == 1
    notes.append(
        "frames last as long as the exposure" if single else "how long a frame lasts is not stated: taken as 0"
    )
    return FrameTiming(cast(tuple[float, ...], start), ((exposure if single else 0.0),) * frames)  # type: ignore[arg-type]


def _number(element: Element, name: str, units: dict[str, float], default: str = "", low: float = 0.0) -> float | None:
    """Return an attribute in the base unit of `units`; None without a known unit, or not finite and above `low`."""
    try:
        value = float(element.get(name, "nan")) * units.get(element.get(f"{name}Unit", default), math.nan)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > low else None


def ome_length(pixels: Element, axis: str) -> float | None:
    """Return a pixel's size along an axis in mm, None without one."""
    return _number(pixels, f"PhysicalSize{axis}", LENGTHS_MM, "µm")
