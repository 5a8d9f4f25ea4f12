"""NIfTI images, with frame times and unit from the BIDS-PET sidecar beside them.

nibabel decodes the header. Pixels are read here, because a wrong CRC, a missing end or a NaN slope must not
pass in silence and a header may declare more than any memory holds.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.bids_pet import PetSidecar, read_sidecar
from evbiodist.io.frames_on_disk import bad_pixels, frames_from
from evbiodist.io.registry import Reader
from evbiodist.io.scan import ACTIVITY, Scan
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.problems import UnreadableImage

#: A compressed image is decoded in memory, up to this size.
_MAX_UNPACKED = 2 << 30
#: Deflate packs no more than this.
_MAX_RATIO = 1032
#: What may follow the pixels of a compressed image before it is taken for a bomb.
_MAX_TAIL = 256 << 20
_CHUNK = 16 << 20
_HEADER_BYTES = 544
_MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_WAYS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}


def _takes(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    with path.open("rb") as handle:
        return handle.read(348)[344:] == b"n+1\0"


def read_nifti(path: Path) -> Scan:
    """Read a NIfTI-1 or NIfTI-2 image as stored, with its BIDS-PET sidecar when one stands beside it.

    Pixels keep the file's order and are not turned. NIfTI stores x fastest, so the array is (Z, Y, X), or
    (T, Z, Y, X) for more than one frame. ``header["orientation"]`` says where each axis leads: with
    "x to right, y to anterior, z to superior" index 0 is the left, posterior and inferior end.

    Parameters
    ----------
    path : `name.nii` or `name.nii.gz`; the sidecar is `name.json` in the same folder.

    Returns
    -------
    Scan : in Bq/mL when the sidecar's Units are an activity concentration, else in counts. Uncompressed
        images over 256 MB stay on disk. Sizes, times and tracer are None where neither file states them.

    Raises
    ------
    UnreadableImage : a web page, damaged, truncated, of colour or complex pixels, of five or more axes,
        over 2 GiB when compressed, or with a sidecar that contradicts the image.

    Examples
    --------
    >>> import tempfile, nibabel
    >>> file = Path(tempfile.mkdtemp()) / "mouse.nii.gz"
    >>> image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag((0.5, 0.4, 0.8, 1)))
    >>> image.header.set_xyzt_units("mm")
    >>> nibabel.save(image, file)
    >>> scan = read_nifti(file)
    >>> scan.axes, scan.counts.shape, np.round(scan.pixel_size_mm, 6).tolist(), scan.header["orientation"]
    ('ZYX', (2, 3, 4), [0.4, 0.5], 'x to right, y to anterior, z to superior')

    References
    ----------
    NIfTI-1.1 header, nifti1.h (Cox et al. 2004).
    """
    path = Path(path)
    packed, head = _head(path)
    header = _header(path, head)
    layout = _layout(path, header)
    notes: list[str] = []
    warnings: list[str] = []
    counts = _unpacked(path, layout, warnings) if packed else _stored(path, layout, warnings)
    bad = bad_pixels(path, counts, warnings)
    sidecar = _sidecar(path, layout.frames, notes, warnings)
    slope, offset, calibrated = _scaling(header, warnings)
    factor = sidecar.bq_per_ml if sidecar is not None and calibrated else None
    size, slice_mm = _spacing(header, notes, warnings)
    timing = sidecar.timing if sidecar else _own_timing(header, layout, notes)
    words = {"orientation": _orientation(header), **(sidecar.header if sidecar else {})}
    return Scan(
        path.name, path, counts, layout.axes, size,
        unit="counts" if factor is None else ACTIVITY,
        offset=offset, scale=slope * (1.0 if factor is None else factor),
        slice_mm=slice_mm if "Z" in layout.axes else None,
        timing=timing,
        tracer=sidecar.tracer if sidecar else None,
        bad=bad, notes=tuple(notes), warnings=tuple(warnings), header=words,
    )  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """Where the pixels lie and what they are; `frame_shape` has the slowest axis first."""

    dtype: np.dtype[Any]
    frame_shape: tuple[int, ...]
    frames: int
    start: int

    @property
    def axes(self) -> str:
        return ("T" if self.frames > 1 else "") + "ZYX"[-len(self.frame_shape) :]

    @property
    def frame_bytes(self) -> int:
        return int(np.prod(self.frame_shape, dtype=object)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.frame_bytes * self.frames


def _head(path: Path) -> tuple[bool, bytes]:
    """Return whether the file is compressed, and the first bytes of the image."""
    with path.open("rb") as handle:
        head = handle.read(_HEADER_BYTES)
    packed = head[:2] == b"\x1f\x8b"
    if packed:
        with _intact(path) as stream:
            head = bytes(_upto(stream, _HEADER_BYTES))
    _refuse_stand_ins(path, head)
    if len(head) < 348:
        raise UnreadableImage(path, f"it holds {len(head)} bytes, less than a header; copy it again")
    return packed, head


def _refuse_stand_ins(path: Path, head: bytes) -> None:
    """Refuse what is found in place of an image after a download that failed."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise UnreadableImage(path, "this is a web page, not an image; the download failed: fetch it again")
    if start.startswith(b"version https://git-lfs") or b"annex/objects" in start[:200]:
        raise UnreadableImage(path, "this is a placeholder of Git LFS or git-annex, not the image; fetch its content")


def _header(path: Path, head: bytes) -> Any:
    from nibabel import Nifti1Header, Nifti2Header

    for order in "<>":
        (size,) = struct.unpack(f"{order}i", head[:4])
        if size in _MAGIC:
            break
    else:
        raise UnreadableImage(path, "it does not start with a NIfTI header; export it again as .nii or .nii.gz")
    kind = Nifti1Header if size == 348 else Nifti2Header
    if len(head) < size:
        raise UnreadableImage(path, f"it holds {len(head)} bytes, less than a header; copy it again")
    magic = head[344:348] if size == 348 else head[4:12]
    if magic[:4] in (b"ni1\0", b"ni2\0"):
        raise UnreadableImage(path, "its pixels are in a separate .img file; save it as a single .nii file")
    if magic != _MAGIC[size]:
        raise UnreadableImage(path, f"the header's magic is {magic!r}, expected {_MAGIC[size]!r}; convert it to NIfTI")
    return kind(head[:size], endianness=order, check=False)


def _layout(path: Path, header: Any) -> _Layout:
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise UnreadableImage(path, f"its header states {ndim} axes; expected 2 to 4. Export it again")
    dims = [int(n) for n in header["dim"][1 : ndim + 1]]
    shown = " x ".join(map(str, dims))
    if min(dims) < 1:
        raise UnreadableImage(path, f"its header states {shown} pixels, an axis without extent; export it again")
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    if len(dims) > 4:
        raise UnreadableImage(path, f"it has {len(dims)} axes ({shown}); expected x, y, z and time: split it")
    if len(dims) < 2:
        raise UnreadableImage(path, f"it has one axis ({shown}); expected an image")
    frames = dims[3] if len(dims) == 4 else 1
    start = float(header["vox_offset"])
    if not (start >= int(header["sizeof_hdr"]) + 4 and start.is_integer()):
        raise UnreadableImage(path, f"its header places the pixels at byte {start:g}, inside the header or between "
                                    "bytes; export it again")  # fmt: skip
    return _Layout(_dtype(path, header), tuple(dims[2::-1]), frames, int(start))


def _dtype(path: Path, header: Any) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        code = int(header["datatype"])
        raise UnreadableImage(path, f"its header states the unknown pixel type {code}; export it again") from None
    kind = "colour" if dtype.fields else "complex" if dtype.kind == "c" else f"of type {int(header['datatype'])}"
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnreadableImage(path, f"its pixels are {kind}; expected integer or float values: export the grey image")
    return dtype


def _stored(path: Path, layout: _Layout, warnings: list[str]) -> NDArray[Any]:
    """Return the pixels of an uncompressed file, on disk when they are many."""
    have, end = path.stat().st_size, layout.start + layout.nbytes
    if end > have:
        raise UnreadableImage(path, f"truncated or a wrong header: the pixels end at byte {end}, the file at {have}; "
                                    "copy it again")  # fmt: skip
    _note_tail(have - end, warnings)
    offsets = tuple(layout.start + i * layout.frame_bytes for i in range(layout.frames))
    return frames_from(path, layout.dtype, layout.frame_shape, offsets)


def _unpacked(path: Path, layout: _Layout, warnings: list[str]) -> NDArray[Any]:
    """Return the pixels of a compressed file, which is read to its end so that its checksum is compared."""
    if layout.nbytes > _MAX_UNPACKED:
        raise UnreadableImage(path, f"{layout.nbytes / 2**30:.1f} GiB of compressed pixels is over the limit of "
                                    f"{_MAX_UNPACKED >> 30} GiB; unpack it to .nii, which is read from disk")  # fmt: skip
    if layout.start + layout.nbytes > path.stat().st_size * _MAX_RATIO:
        raise UnreadableImage(path, f"truncated or a wrong header: {path.stat().st_size} compressed bytes cannot hold the "
                                    f"{layout.nbytes} bytes of pixels that it states; copy it again")  # fmt: skip
    with _intact(path) as stream:
        stream.seek(layout.start)
        pixels = _upto(stream, layout.nbytes)
        if len(pixels) < layout.nbytes:
            raise UnreadableImage(path, f"truncated or a wrong header: it unpacks to {len(pixels)} bytes of pixels, the "
                                        f"header states {layout.nbytes}; copy it again")  # fmt: skip
        tail = 0
        while more := len(stream.read(_CHUNK)):
            tail += more
            if tail > _MAX_TAIL:
                raise UnreadableImage(path, "it unpacks to far more than its header states; export it again")
    _note_tail(tail, warnings)
    shape = (layout.frames, *layout.frame_shape) if layout.frames > 1 else layout.frame_shape
    array = np.frombuffer(pixels, layout.dtype).reshape(shape)
    return array.astype(layout.dtype.newbyteorder("="), copy=False)


@contextmanager
def _intact(path: Path) -> Iterator[gzip.GzipFile]:
    """Open a compressed file; what is wrong with it while it is read becomes a sentence."""
    try:
        with gzip.open(path) as stream:
            yield stream
    except EOFError as err:
        raise UnreadableImage(path, "truncated: the compressed data end early; copy it again") from err
    except (gzip.BadGzipFile, zlib.error) as err:
        raise UnreadableImage(path, f"damaged: the compressed data are not intact ({err}); copy it again") from err


def _upto(stream: gzip.GzipFile, wanted: int) -> bytearray:
    """Return up to so many bytes, growing with what is there and not with what is declared."""
    found = bytearray()
    while len(found) < wanted and (chunk := stream.read(min(_CHUNK, wanted - len(found)))):
        found += chunk
    return found


def _note_tail(extra: int, warnings: list[str]) -> None:
    if extra > 0:
        warnings.append(f"{extra} bytes follow the pixels; if frames are missing, the header's dimensions are wrong")


def _scaling(header: Any, warnings: list[str]) -> tuple[float, float, bool]:
    """Return (scale, offset, whether they can be believed) of value = slope * stored + intercept.

    A slope of 0 means that values are as stored (nifti1.h).
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0, True
    if np.isfinite(slope) and np.isfinite(inter):
        return slope, 0.0 - inter / slope, True
    warnings.append(f"the header's scl_slope is {slope:g} and its scl_inter {inter:g}, which the standard does not allow; "
                    "values are taken as stored, in counts without a calibration")  # fmt: skip
    return 1.0, 0.0, False


def _affine(header: Any) -> NDArray[np.float64] | None:
    """Return the voxel-to-space matrix of the sform, else of the qform; None where the header has neither."""
    if int(header["sform_code"]) > 0:
        return np.asarray(header.get_sform(), dtype=float)
    if int(header["qform_code"]) > 0:
        from nibabel.spatialimages import HeaderDataError

        try:
            return np.asarray(header.get_qform(), dtype=float)
        except (ValueError, HeaderDataError):
            return np.zeros((4, 4))
    return None


def _usable(affine: NDArray[np.float64]) -> bool:
    part = affine[:3, :3]
    if not np.isfinite(part).all():
        return False
    with np.errstate(over="ignore"):
        lengths = np.sqrt((part**2).sum(axis=0))
    return bool(np.isfinite(lengths).all() and (lengths > 0).all() and abs(np.linalg.det(part / lengths)) > 1e-3)


def _spacing(header: Any, notes: list[str], warnings: list[str]) -> tuple[tuple[float, float] | None, float | None]:
    """Return ((y, x), z) distances in mm; None without a unit of length or with numbers that cannot be."""
    zooms = np.asarray(header["pixdim"][1:4], dtype=float)
    unit = _MM.get(int(header["xyzt_units"]) & 7)
    affine = _affine(header)
    if unit is None:
        notes.append("the header states no unit of length, so the pixel size is unknown")
        return None, None
    if affine is not None and not _usable(affine):
        warnings.append("the header's affine is singular or not finite, so the pixel size is unknown; export it again")
        return None, None
    used = min(int(header["dim"][0]), 3)
    if not (np.isfinite(zooms[:used]).all() and (zooms[:used] > 0).all()):
        warnings.append(f"the header's pixdim is {np.array2string(zooms, precision=4)}, expected numbers above 0, so the "
                        "pixel size is unknown")  # fmt: skip
        return None, None
    if affine is not None and not np.allclose(np.linalg.norm(affine[:3, :used], axis=0), zooms[:used], rtol=0.01):
        warnings.append("the header's affine and pixdim differ by more than 1 %; the pixel size is pixdim's")
    z = float(zooms[2] * unit) if used == 3 else None
    return (float(zooms[1] * unit), float(zooms[0] * unit)), z


def _orientation(header: Any) -> str:
    """Return where growing x, y and z lead, to the nearest direction of the body."""
    affine = _affine(header)
    if affine is None or not _usable(affine):
        return "unknown"
    from nibabel.orientations import aff2axcodes

    return ", ".join(f"{axis} to {_WAYS[way]}" for axis, way in zip("xyz", aff2axcodes(affine), strict=True) if way)


def _sidecar(path: Path, frames: int, notes: list[str], warnings: list[str]) -> PetSidecar | None:
    """Return what the JSON file of the same name says, or None when there is none."""
    stem = path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
    beside = path.with_name(f"{stem}.json")
    if not beside.is_file():
        notes.append(f"no {beside.name} stands beside it, so unit and tracer are unknown")
        return None
    found = read_sidecar(path, beside, frames)
    notes.extend(found.notes)
    warnings.extend(found.warnings)
    return found


def _own_timing(header: Any, layout: _Layout, notes: list[str]) -> FrameTiming | None:
    """Return even frames from pixdim[4] when the header gives it a unit of time; else None."""
    unit, step = _SECONDS.get(int(header["xyzt_units"]) & 0x38), float(header["pixdim"][4])
    if layout.frames < 2:
        return None
    if unit is None or not (np.isfinite(step) and step > 0):
        notes.append("the header states no frame times, so they are unknown")
        return None
    first, step = float(header["toffset"]) * unit, step * unit
    try:
        timing = FrameTiming(tuple(first + i * step for i in range(layout.frames)), (step,) * layout.frames)
    except TimingError as err:
        notes.append(f"the header's frame times cannot be ({err}), so they are unknown")
        return None
    notes.append(f"frame times are the header's: {layout.frames} frames of {step:g} s each from {first:g} s on; "
                 "frames of other lengths need a sidecar")  # fmt: skip
    return timing


READER = Reader("nifti", "NIfTI images (.nii, .nii.gz) with their BIDS-PET sidecar", _takes, read_nifti)
