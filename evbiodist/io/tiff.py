"""TIFF stacks through tifffile: axes, pixel size, times and bands as ImageJ or OME wrote them.

The file is checked against its own directory first, because a truncated or sparse TIFF decodes
to plausible zeros, and a page loop hangs `tifffile.imread`. Large stacks stay on disk until they are sliced.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element  # the type only: parsing is defusedxml's

import numpy as np
import tifffile
from numpy.typing import NDArray

from evbiodist.io.ome_xml import LENGTHS_MM, OmeFacts, ome_facts, ome_image, ome_length
from evbiodist.io.registry import Reader
from evbiodist.io.scan import Camera, Scan
from evbiodist.io.stream import LazyArray, ahead, in_order
from evbiodist.study.problems import UnreadableImage

_RESOLUTION_UNIT_MM = {2: 25.4, 3: 10.0}
#: Resolutions that programs write when they know none (dots per inch).
_SCREEN_DPI = {1.0, 72.0, 96.0}
#: Most that is decoded into memory.
_MAX_BYTES = 8 << 30
#: Most that one byte of a file may unpack to.
_MAX_RATIO = 1000
#: Stacks that decode to more than this stay on disk.
LAZY_BYTES = 256 << 20


def _takes(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or path.suffix.lower() in {".tif", ".tiff"}


def read_tiff(path: Path, *, axes_follow: bool = False) -> Scan:
    """Read a TIFF stack as counts with what its metadata state, and nothing else.

    Parameters
    ----------
    path : a TIFF, ImageJ TIFF or single-file OME-TIFF.
    axes_follow : the caller will name the axes, as a sidecar does. A stack of four or five axes that names only YX is
        then given the last of the letters TCZYX for the time being; otherwise it is refused.

    Returns
    -------
    Scan : axes in the order of `Scan`, e.g. `TYX`; `pixel_size_mm`, `slice_mm`, `timing` and `bands` None or empty unless the file
        says so with a unit; lazy (`LazyPages`) where a stack decodes to more than `LAZY_BYTES`.

    Raises
    ------
    UnreadableImage : truncated, with missing planes, colour, or damaged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.ome.tif")
    ...     tifffile.imwrite(path, np.ones((2, 4, 5), np.uint16), metadata={"axes": "TYX", "TimeIncrement": 2,
    ...         "TimeIncrementUnit": "min", "PhysicalSizeX": 50, "PhysicalSizeY": 50})
    ...     scan = read_tiff(path)
    >>> scan.axes, scan.pixel_size_mm, scan.timing.start_s
    ('TYX', (0.05, 0.05), (0.0, 120.0))
    """
    path = Path(path)
    try:
        return _read(path, axes_follow)
    except (UnreadableImage, MemoryError, OSError):
        raise
    except tifffile.TiffFileError as err:
        raise UnreadableImage(path, f"not a TIFF that can be read ({str(err)[:200]}); export it again") from err
    except Exception as err:  # damaged directories fail in many ways inside tifffile
        raise UnreadableImage(path, f"its directory or its description cannot be followed ({type(err).__name__}: "
                                    f"{str(err)[:200]}); it may be damaged: export it again") from err  # fmt: skip


def _read(path: Path, axes_follow: bool) -> Scan:
    with tifffile.TiffFile(path, _multifile=False) as tif:
        check_complete(path, tif)
        ome = ome_image(path, tif)  # before .series, which fills up whatever planes the XML dreams of
        series = tif.series[0]
        axes, unnamed = _axes(path, series, int(tif.pages[0].photometric), axes_follow)  # type: ignore[union-attr]
        _check_series(path, tif, series)
        counts, axes = in_order(_pixels(path, tif, series), axes)
        size, notes = _pixel_size(tif, ome)
        acquired = str(tif.pages[0].tags.valueof("DateTime", default="") or "")  # type: ignore[union-attr]
        others = len(tif.series) - 1
    more = OmeFacts() if ome is None else ome_facts(ome, dict(zip(axes, counts.shape, strict=True)))
    warnings = [f"the file holds {others} more image{'s' if others > 1 else ''} of another shape, which "
                f"{'are' if others > 1 else 'is'} not read"] if others else []  # fmt: skip
    return Scan(path.name, path, counts, axes, size, camera=Camera(), header={"acquired": acquired} if acquired else {},
                slice_mm=more.slice_mm, timing=more.timing, bands=more.bands, exposure_s=more.exposure_s,
                notes=(*unnamed, *notes, *more.notes), warnings=(*warnings, *more.warnings))  # fmt: skip


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
    following = _following(tif)
    if following != 0:
        raise UnreadableImage(path, f"its list of pages breaks off after page {pages}, whose next is said to lie at byte "
                                    f"{following} of {size}: planes are missing; copy the file again")  # fmt: skip
    for number, page in enumerate(tif.pages):
        offsets, lengths = page.dataoffsets, page.databytecounts
        end = max((o + n for o, n in zip(offsets, lengths, strict=False)), default=0)
        if end > size:
            raise UnreadableImage(path, f"truncated: page {number + 1} of {pages} ends at byte {end}, the file at "
                                        f"{size}; copy it again from the instrument")  # fmt: skip
        if min(len(offsets), len(lengths)) < math.prod(page.chunked) or any(
            o <= 0 or n <= 0 for o, n in zip(offsets, lengths, strict=False)
        ):
            raise UnreadableImage(path, f"page {number + 1} of {pages} has missing strips, which would read as zeros; "
                                        "export it again without sparse storage")  # fmt: skip


def _following(tif: tifffile.TiffFile) -> int:
    """Return where the page after the last one that was found should lie; 0 where the last one says that it is."""
    handle, at = tif.filehandle, tif.pages.next_page_offset
    handle.seek(at or 0)
    found = handle.read(tif.tiff.offsetsize)
    return int(struct.unpack(tif.tiff.offsetformat, found)[0]) if len(found) == tif.tiff.offsetsize else -1


def _check_series(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse a series that declares more planes than the file holds; decoders would fill in zeros or drop the rest."""
    planes = math.prod(series.shape[:-2])
    images = int((tif.imagej_metadata or {}).get("images", 1)) if tif.is_imagej else 1
    if images > planes:
        raise UnreadableImage(path, f"ImageJ states {images} images, the file holds {planes}; copy it again from the "
                                    "instrument, or export it again")  # fmt: skip
    end = 0 if series.dataoffset is None else series.dataoffset + series.nbytes
    if end > path.stat().st_size:
        raise UnreadableImage(path, f"truncated: its {planes} planes end at byte {end}, the file at "
                                    f"{path.stat().st_size}; copy it again from the instrument")  # fmt: skip
    held = 0 if end else len([page for page in series if page is not None]) * series.keyframe.size
    if not end and held != math.prod(series.shape):
        raise UnreadableImage(path, f"its metadata declare {' x '.join(map(str, series.shape))} pixels ({series.axes}), "
                                    f"but its pages hold {held}: planes are missing; export it again")  # fmt: skip


def _axes(
    path: Path, series: tifffile.TiffPageSeries, photometric: int, axes_follow: bool
) -> tuple[str, tuple[str, ...]]:  # fmt: skip
    """Return one letter an axis and a note; what a file calls sequence, index or sample is taken as frames."""
    if photometric in {2, 3, 5, 6} and "S" in series.axes:
        raise UnreadableImage(path, "it is a colour picture, whose values are not measurements; "
                                    "export the grey image with counts")  # fmt: skip
    axes = re.sub("[QIS]", "T", series.axes)
    if axes.endswith("YX") and len(set(axes)) == len(axes):
        return axes, ()
    if axes_follow and axes.endswith("YX") and axes.count("T") == len(axes) - 2 <= 3:
        return "TCZYX"[-len(axes) :], (f"the image does not name its axes ({series.axes})",)
    raise UnreadableImage(path, f"its axes are {series.axes} ({' x '.join(map(str, series.shape))}); expected planes "
                                "(YX) in a stack, with each axis once: export one grey plane a page, or name the axes in a "
                                "sidecar")  # fmt: skip


def _pixels(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> NDArray[Any]:
    """Return the counts: small stacks in memory, large ones as `LazyPages`."""
    if series.dtype.kind not in "uif":
        raise UnreadableImage(path, f"pixels are of type {series.dtype}; expected integer or float counts")
    lazy = series.nbytes > LAZY_BYTES and math.prod(series.shape[:-2]) > 1
    at_once = series.keyframe.nbytes if lazy else series.nbytes
    if at_once > _MAX_BYTES:
        raise UnreadableImage(path, f"{at_once / 2**30:.1f} GiB of pixels is over the limit of {_MAX_BYTES >> 30} GiB; "
                                    "crop it or bin it")  # fmt: skip
    stored = sum(series.keyframe.databytecounts)
    tile = math.prod(series.keyframe.chunks) * series.dtype.itemsize  # may be larger than its image
    at_once = max(at_once, tile)
    if at_once > max(LAZY_BYTES, _MAX_RATIO * stored):
        raise UnreadableImage(path, f"{stored} bytes of the file would unpack to {at_once / 2**30:.1f} GiB of pixels, which no "
                                    "image does; it may be damaged: export it again")  # fmt: skip
    if lazy:
        return cast(Any, LazyPages(path, tif, series))
    try:
        array = np.asarray(series.asarray())
    except MemoryError as err:
        if at_once > LAZY_BYTES:
            raise
        raise UnreadableImage(path, f"its compressed pixels ask for far more memory than the {at_once} bytes that its directory "
                                    "states; the file may be damaged: copy it again") from err  # fmt: skip
    except Exception as err:  # every codec has exceptions of its own
        raise UnreadableImage(path, f"its pixels cannot be decoded ({type(err).__name__}: {str(err)[:200]}); the file may be "
                                    "damaged: copy it again") from err  # fmt: skip
    if array.dtype.kind == "f" and not np.isfinite(array).any():
        raise UnreadableImage(path, "no pixel holds a finite number; export it again")
    return array


class LazyPages(LazyArray):
    """The planes of a TIFF that stay on disk; an index decodes only the pages that it needs.

    Threads may share one: they take turns at the file, and tifffile decodes the pages of a turn in parallel
    (`TIFFFILE_NUM_THREADS`, or half the cores).

    Parameters
    ----------
    path : of the file, opened for each reading.
    tif : the opened file, whose directory was read; its handle may be closed afterwards.
    series : of equal pages, shape (..., Y, X).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.tif")
    ...     tifffile.imwrite(path, np.arange(24, dtype=np.uint8).reshape(4, 2, 3), compression="zlib")
    ...     with tifffile.TiffFile(path) as tif:
    ...         pages = LazyPages(path, tif, tif.series[0])
    ...     pages.shape, pages[2, 0].tolist(), [(start, len(block)) for start, block in pages.blocks(3)]
    ((4, 2, 3), [12, 13, 14], [(0, 3), (3, 1)])
    """

    def __init__(self, path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
        self.path = path
        self.shape = tuple(int(n) for n in series.shape)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self._tif, self._series = tif, series
        self._offset = series.dataoffset  # of pixels that lie in the file one after another, as they are
        self._stored = self.dtype.newbyteorder(tif.byteorder)
        self._per_page = 1 if self._offset is not None else math.prod(self.shape[:-2]) // len(series)
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process borders by name: the other side reads the file's directory again."""
        return _reopened, (self.path,)

    def blocks(self, n: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first plane, n planes) of the flattened leading axes, the next ones decoded meanwhile."""
        planes = math.prod(self.shape[:-2])
        starts = range(0, planes, n)
        return zip(starts, ahead(partial(self._planes, np.arange(a, min(a + n, planes))) for a in starts), strict=False)

    def _take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        planes = np.arange(math.prod(self.shape[:-2])).reshape(self.shape[:-2])[index[:-2]]
        found = self._planes(planes.ravel()).reshape(*planes.shape, *self.shape[-2:])
        return found[(..., *index[-2:])]

    def _planes(self, planes: NDArray[np.intp]) -> NDArray[Any]:
        """Decode planes by their number, shape (planes, Y, X)."""
        if planes.size == 0:
            return np.empty((0, *self.shape[-2:]), self.dtype)
        with self._turn:
            if self._offset is not None:
                return self._copied(planes)
            pages, at = np.unique(planes // self._per_page, return_inverse=True)
            decoded = self._decoded(pages.tolist()).reshape(-1, self._per_page, *self.shape[-2:])
        if self._per_page == 1 and len(pages) == len(planes) and bool((at[:-1] < at[1:]).all()):
            return decoded[:, 0]
        return decoded[at, planes % self._per_page]

    def _decoded(self, pages: list[int]) -> NDArray[Any]:
        handle = self._tif.filehandle
        handle.open()
        try:
            return np.asarray(self._tif.asarray(pages, series=self._series)).astype(self.dtype, copy=False)
        finally:
            handle.close()

    def _copied(self, planes: NDArray[np.intp]) -> NDArray[Any]:
        """Read planes that are stored as they are."""
        out = np.empty((len(planes), *self.shape[-2:]), self._stored)
        with self.path.open("rb") as handle:
            for plane, target in zip(planes.tolist(), out, strict=True):
                handle.seek(cast(int, self._offset) + plane * target.nbytes)
                if handle.readinto(target.reshape(-1).view(np.uint8)) != target.nbytes:
                    raise UnreadableImage(self.path, f"plane {plane + 1} is cut off; copy the file again")
        return out.astype(self.dtype, copy=False)


def _reopened(path: Path) -> LazyPages:
    with tifffile.TiffFile(path, _multifile=False) as tif:
        check_complete(path, tif)
        return LazyPages(path, tif, tif.series[0])


def _pixel_size(tif: tifffile.TiffFile, ome: Element | None) -> tuple[tuple[float, float] | None, list[str]]:
    """Return (y, x) in mm and a note on where it comes from; None where the file does not say."""
    if ome is not None:
        y, x = (ome_length(ome, axis) for axis in "YX")
        return ((y, x), ["pixel size from OME"]) if y and x else (None, ["OME states no pixel size"])
    page = tif.pages[0]
    x_res, y_res = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))  # type: ignore[union-attr]
    per_unit = [_ratio(y_res), _ratio(x_res)]
    if tif.is_imagej and tif.imagej_metadata:
        unit = str(tif.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ")
        if unit in LENGTHS_MM and all(per_unit):
            return (LENGTHS_MM[unit] / per_unit[0], LENGTHS_MM[unit] / per_unit[1]), [
                f"pixel size from ImageJ, in {unit}"
            ]
        return None, ["ImageJ states no unit of length"]
    unit_code = page.tags.valueof("ResolutionUnit", default=1)  # type: ignore[union-attr]
    factor = _RESOLUTION_UNIT_MM.get(int(unit_code or 1))
    if factor is None or not all(per_unit):
        return None, ["the resolution tags state no pixel size"]
    if factor == 25.4 and per_unit[1] in _SCREEN_DPI:
        return None, [f"a resolution of {per_unit[1]:g} dpi is a program's default, so the pixel size is unknown"]
    return (factor / per_unit[0], factor / per_unit[1]), ["pixel size from the resolution tags"]


def _ratio(value: Any) -> float:
    """Return pixels per unit, 0 when the tag is missing or its fraction is 0/1."""
    if value is None:
        return 0.0
    top, bottom = value if isinstance(value, tuple) else (value, 1)
    return float(top) / float(bottom) if bottom else 0.0


READER = Reader("tiff", "TIFF, ImageJ TIFF and OME-TIFF stacks", _takes, read_tiff)
