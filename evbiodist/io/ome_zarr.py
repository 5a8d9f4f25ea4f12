"""OME-Zarr 0.4 and 0.5: images larger than memory, read chunk by chunk when they are sliced.

zarr fills chunks that are not there with a constant, follows links and loads whatever codec a file names,
so the store is checked in its own metadata and folders before zarr opens it.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from evbiodist.io.registry import Reader
from evbiodist.io.scan import Band, Scan
from evbiodist.io.stream import MAX_BYTES, AxesView
from evbiodist.io.timing import FrameTiming
from evbiodist.study.problems import UnreadableImage

#: Metadata files of a node, by zarr format.
_NODES = {3: ("zarr.json",), 2: (".zgroup", ".zarray", ".zattrs")}
_MAX_METADATA_BYTES = 64 << 20
_MAX_CHUNK_BYTES = 1 << 30
_MAX_ARRAY_BYTES = 1 << 50
_MAX_CHUNKS = 50_000_000
#: Codecs that only turn bytes into numbers. Others (numcodecs' `pickle` among them) can run code, or need plug-ins.
_CODECS = {"bytes", "endian", "transpose", "sharding_indexed", "gzip", "zlib", "zstd", "blosc", "lz4", "lz4hc", "bz2", "lzma",
           "delta", "shuffle", "fixedscaleoffset", "quantize", "bitround", "packbits", "crc32c", "crc32", "adler32",
           "fletcher32", "jenkins_lookup3", "pcodec", "zfpy"}  # fmt: skip
_TYPES = {"time": "T", "channel": "C"}
#: Where the keys of `evbiodist.io.sidecar` stand among a group's attributes.
_OWN = "evbiodist"
#: Those of them that OME-Zarr has its own words for, level by level.
_GEOMETRY = ("axes", "pixel_size_mm", "slice_mm")
#: More frames than this are no acquisition but a damaged shape.
_MAX_FRAMES = 10_000_000


@dataclass(frozen=True)
class Labels:
    """A label image of an OME-Zarr.

    Parameters
    ----------
    scan : lazy; its counts are whole numbers, 0 for background.
    names : name by pixel value as text, as far as the `image-label` properties state a `name`.
    """

    scan: Scan
    names: Mapping[str, str] = field(default_factory=dict)


def read_ome_zarr(path: Path) -> Scan:
    """Read an OME-Zarr image at full resolution; pixels stay on disk.

    Parameters
    ----------
    path : a `.zarr` folder, or the folder of an image inside of one.

    Returns
    -------
    Scan : lazy; axes in our order, those of extent 1 (but Y and X) left out; `pixel_size_mm`, `slice_mm` and `timing`
        only where the axis names a unit; `header["levels"]` tells the shapes of the pyramid.

    Raises
    ------
    UnreadableImage : in words: no OME metadata, a plate or a collection (with its images' names), missing arrays,
        codecs or links that are not trusted, sizes that make no sense.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.zarr")
    ...     write_ome_zarr(path, Scan("a", None, np.ones((2, 8, 8), np.uint16), "TYX", pixel_size_mm=(0.1, 0.1)))
    ...     scan = read_ome_zarr(path)
    ...     scan.lazy, scan.axes, scan.pixel_size_mm, int(scan.counts[1].sum())
    (True, 'TYX', (0.1, 0.1), 64)
    """
    return scan_level(path, 0)


def scan_level(path: Path, level: int) -> Scan:
    """Read one level of an OME-Zarr image's pyramid; 0 is the full resolution.

    Parameters
    ----------
    path : as for `read_ome_zarr`.
    level : number of the level, in the order of the metadata.

    Returns
    -------
    Scan : as `read_ome_zarr`, with the level's own pixel size.

    Raises
    ------
    UnreadableImage : as `read_ome_zarr`, or no such level.
    """
    path = Path(path)
    return _level(path, path.resolve(), level)


def read_labels(path: Path) -> dict[str, Labels]:
    """Read the label images that belong to an OME-Zarr image.

    Parameters
    ----------
    path : of the image, as for `read_ome_zarr`.

    Returns
    -------
    dict of str to Labels : by the name in the `labels` group; empty where there is none.

    Raises
    ------
    UnreadableImage : a label image that is missing, damaged, or not of whole numbers.
    """
    path = Path(path)
    root = path.resolve()
    if _format(root / "labels") is None:
        return {}
    names = _ome(_attributes(path, root / "labels", root)).get("labels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnreadableImage(
            path, "its labels group lists no label images under the key 'labels'; write it again with OME metadata"
        )
    found = {}
    for name in names:
        folder = _inside(path, root / "labels", name, root)
        scan = replace(scan_level(folder, 0), name=name)
        if scan.counts.dtype.kind not in "ui":
            raise UnreadableImage(path, f"label image {name} is of type {scan.counts.dtype}; expected whole numbers")
        found[name] = Labels(scan, _label_names(_ome(_attributes(path, folder, root))))
    return found


def _level(path: Path, root: Path, level: int) -> Scan:
    """Read a level of the image in folder `root`; messages name `path`."""
    if _format(root) is None:
        raise UnreadableImage(path, "it holds neither zarr.json nor .zgroup, so it is no zarr folder; copy all of it")
    if _is_array(path, root, root):
        return _plain_array(path, root)
    attributes = _attributes(path, root, root)
    metadata = _ome(attributes)
    if "multiscales" not in metadata:
        return _level(path, _only_image(path, root, metadata).resolve(), level)
    scan = _image(path, root, metadata, level)
    own = attributes.get(_OWN)
    if not isinstance(own, dict):
        return scan
    from evbiodist.io.sidecar import apply

    return apply(scan, {k: v for k, v in own.items() if level == 0 or k not in _GEOMETRY}, root / "zarr.json")


def _label_names(metadata: Mapping[str, Any]) -> dict[str, str]:
    image_label = metadata.get("image-label")
    entries = image_label.get("properties") if isinstance(image_label, dict) else None
    return {
        str(entry["label-value"]): entry["name"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and "label-value" in entry
    }


def _format(folder: Path) -> int | None:
    """Return 3 or 2, the zarr format of a node, or None where the folder is none."""
    for number, names in _NODES.items():
        if any((folder / name).is_file() for name in names[:2]):
            return number
    return None


def _is_array(path: Path, folder: Path, root: Path) -> bool:
    if (folder / "zarr.json").is_file():
        return _json(path, folder / "zarr.json", root).get("node_type") == "array"
    return (folder / ".zarray").is_file()


def _attributes(path: Path, folder: Path, root: Path) -> dict[str, Any]:
    """Return a node's attributes, {} where it has none."""
    if (folder / "zarr.json").is_file():
        found = _json(path, folder / "zarr.json", root).get("attributes", {})
    else:
        found = _json(path, folder / ".zattrs", root) if (folder / ".zattrs").is_file() else {}
    return found if isinstance(found, dict) else {}


def _ome(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return OME's metadata: under the key `ome` since 0.5, among the attributes before."""
    found = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, Mapping) else {}


def _json(path: Path, file: Path, root: Path) -> dict[str, Any]:
    _no_link_outside(path, file, root)
    try:
        if file.stat().st_size > _MAX_METADATA_BYTES:
            raise ValueError(f"larger than {_MAX_METADATA_BYTES >> 20} MiB")
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as err:
        raise UnreadableImage(path, f"its {file.name} cannot be read ({err}); copy the folder again") from err
    if not isinstance(found, dict):
        raise UnreadableImage(path, f"its {file.name} holds no table of keys; copy the folder again")
    return found


def _inside(path: Path, folder: Path, name: str, root: Path) -> Path:
    """Return the folder that metadata name, refusing one outside of the image's."""
    target = folder / name
    try:
        target.exists()
        inside = target.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError) as err:
        raise UnreadableImage(
            path, f"its metadata name '{name[:80]}', which no folder can be called; copy it again"
        ) from err
    if not inside:
        raise UnreadableImage(path, f"its metadata name '{name}', which lies outside of the folder and is not followed")
    return target


def _no_link_outside(path: Path, file: Path, root: Path) -> None:
    if not file.resolve().is_relative_to(root):
        raise UnreadableImage(
            path, f"{file.name} is a link out of the folder, which is not followed; copy what it points to"
        )


def _only_image(path: Path, root: Path, metadata: Mapping[str, Any]) -> Path:
    """Return the one image of a collection, or refuse in words what holds several or none."""
    if "plate" in metadata:
        wells = _paths(metadata["plate"], "wells")
        raise UnreadableImage(path, f"it is a plate of {_count(wells, 'well')}; name one image, such as "
                                    f"{path.name}/{wells[0] if wells else 'A/1'}/0")  # fmt: skip
    if "well" in metadata:
        fields = _paths(metadata["well"], "images")
        raise UnreadableImage(path, f"it is a well of {_count(fields, 'image')}; name one, such as "
                                    f"{path.name}/{fields[0] if fields else '0'}")  # fmt: skip
    if isinstance(metadata.get("labels"), list):
        raise UnreadableImage(path, "it is a group of label images; name the image above it, or one of them")
    if "bioformats2raw.layout" in metadata:
        images = [str(i) for i in itertools.takewhile(lambda i: _format(root / str(i)), itertools.count())]
        if len(images) == 1:
            return _inside(path, root, images[0], root)
        raise UnreadableImage(path, f"it is a collection of {_count(images, 'image')}; name one, such as {path.name}/0")
    raise UnreadableImage(path, "its metadata have no 'multiscales', so it is no OME-Zarr image; name the image's own "
                                "folder, or write it again with OME metadata")  # fmt: skip


def _paths(group: Any, key: str) -> list[str]:
    entries = group.get(key) if isinstance(group, dict) else None
    return [
        str(entry.get("path")) for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict)
    ]


def _count(names: list[str], what: str) -> str:
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}" + (f" ({listed})" if names else "")


@dataclass(frozen=True)
class _Axis:
    """An axis of the stored array: our letter (empty: none of ours), its unit, and its step at this level."""

    letter: str
    unit: str
    step: float | None


def _image(path: Path, root: Path, metadata: Mapping[str, Any], level: int) -> Scan:
    multiscale, odd = _multiscale(path, metadata)
    datasets = multiscale["datasets"]
    if not 0 <= level < len(datasets):
        raise UnreadableImage(path, f"there is no level {level}; its {len(datasets)} levels are numbered from 0")
    arrays = [_opened(path, root, dataset["path"], n == level, odd) for n, dataset in enumerate(datasets)]
    array = arrays[level]
    if any(a is not None and math.prod(a.shape) > math.prod(array.shape) for a in arrays[level:]):
        odd.append(f"a later level is larger than level {level}, so the levels are not in their order")
    axes = _axes(path, multiscale, datasets[level], array, odd)
    scan = _scan(path, array, axes)
    odd += _check_chunks(path, _inside(path, root, datasets[level]["path"], root), array, root)
    bands = _bands(metadata, scan.extent("C"), odd)
    shapes = [" x ".join(map(str, a.shape)) if a is not None else "missing" for a in arrays]
    version = metadata.get("version") or multiscale.get("version") or "of unknown version"
    header = {"format": f"OME-Zarr {version}", "level": str(level),
              "levels": "; ".join(f"{n}: {shape}" for n, shape in enumerate(shapes))}  # fmt: skip
    return replace(scan, bands=bands, header=header, warnings=tuple(odd))


def _multiscale(path: Path, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the first image's description and sentences on what is odd; refuse one that describes no image."""
    entries = metadata["multiscales"]
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise UnreadableImage(path, "its 'multiscales' describe no image; write it again with OME metadata")
    first = entries[0]
    odd = [f"{len(entries) - 1} more images in 'multiscales' are not read"] if len(entries) > 1 else []
    version = metadata.get("version") or first.get("version")
    if version is None:
        odd.append("the metadata name no version; read as OME-Zarr 0.4 or 0.5")
    elif version not in ("0.4", "0.5"):
        raise UnreadableImage(path, f"it is OME-Zarr {version}; expected 0.4 or 0.5: convert it")
    datasets = first.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise UnreadableImage(path, "its 'multiscales' list no datasets; copy the folder again")
    if not all(isinstance(d, dict) and isinstance(d.get("path"), str) for d in datasets):
        raise UnreadableImage(path, "a dataset of its 'multiscales' has no path; write it again with OME metadata")
    return first, odd


def _axes(
    path: Path, multiscale: Mapping[str, Any], dataset: Mapping[str, Any], array: Any, odd: list[str]
) -> tuple[_Axis, ...]:
    entries = multiscale.get("axes")
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries
    ):
        raise UnreadableImage(path, "its 'multiscales' name no axes; write it again with OME metadata 0.4 or 0.5")
    if len(entries) != array.ndim:
        raise UnreadableImage(path, f"its metadata name {len(entries)} axes, the array has {array.ndim} "
                                    f"({' x '.join(map(str, array.shape))}); write it again with right metadata")  # fmt: skip
    whole = _scale(path, multiscale, len(entries))
    own = _scale(path, dataset, len(entries))
    if own is None:
        odd.append("the metadata state no scale, so pixel size and times are unknown")
    steps = (
        [None] * len(entries) if own is None else [a * b for a, b in zip(own, whole or [1.0] * len(own), strict=True)]
    )
    letters = [_letter(path, e["name"], e.get("type"), n) for e, n in zip(entries, array.shape, strict=True)]
    return tuple(
        _Axis(letter, str(e.get("unit") or ""), step) for letter, e, step in zip(letters, entries, steps, strict=True)
    )


def _letter(path: Path, name: str, kind: Any, extent: int) -> str:
    """Return our letter of an axis, empty for one that can be left out; refuse one that means something else."""
    letter = name.upper() if kind is None else _TYPES.get(str(kind), name.upper() if kind == "space" else "")
    if letter in set("ZYX" if kind == "space" else "TC" if kind else "TCZYX"):
        return letter
    if extent == 1:
        return ""
    raise UnreadableImage(path, f"axis '{name}' of type {kind or 'unknown'} and extent {extent} is none of t, c, z, y, x; "
                                "rename it, or take one plane of it")  # fmt: skip


def _scale(path: Path, holder: Mapping[str, Any], axes: int) -> list[float] | None:
    """Return the scale among coordinateTransformations, or None; refuse one that cannot be."""
    entries = holder.get("coordinateTransformations")
    scales = [
        e for e in (entries if isinstance(entries, list) else []) if isinstance(e, dict) and e.get("type") == "scale"
    ]
    values = scales[0].get("scale") if scales else None
    if values is None:  # none, or one that is stored elsewhere
        return None
    right = isinstance(values, list) and len(values) == axes
    if not right or not all(type(v) in (int, float) and 1e-100 < v < 1e100 for v in values):
        raise UnreadableImage(path, f"its metadata state a scale of {str(values)[:80]}; expected {axes} numbers above 0, one "
                                    "for each axis")  # fmt: skip
    return [float(v) for v in values]


def _scan(path: Path, array: Any, axes: tuple[_Axis, ...], notes: tuple[str, ...] = ()) -> Scan:
    """Put a stored array's axes in our order and leave out those of extent 1."""
    letters = [axis.letter for axis in axes]
    named = [letter for letter in letters if letter]
    if not {"Y", "X"} <= set(named) or len(set(named)) != len(named):
        raise UnreadableImage(
            path, f"its axes are {', '.join(named) or 'not named'}; expected y and x, and each axis once"
        )
    kept = [a for a in "TCZYX" if a in letters and (a in "YX" or array.shape[letters.index(a)] > 1)]
    order = [letters.index(a) for a in kept]
    said = (
        [f"{_joined([a for a in letters if a and a not in kept])} of extent 1 left out"]
        if len(kept) < len(named)
        else []
    )
    counts = array if order == list(range(array.ndim)) else AxesView(array, order)
    by = dict(zip(letters, axes, strict=True))
    y, x, z = (_in(by.get(a), "millimeter") for a in "YXZ")
    size = (y, x) if y and x else None
    said.append("pixel size from OME-Zarr" if size else "OME-Zarr states no pixel size with a unit of length")
    timing = None
    if "T" in kept:
        step, frames = _in(by["T"], "second"), int(array.shape[letters.index("T")])
        if frames > _MAX_FRAMES:
            raise UnreadableImage(
                path, f"its metadata declare {frames:,} frames, more than is read; correct its metadata"
            )
        said.append("OME-Zarr states no frame times with a unit" if step is None else
                    f"frames every {step:g} s from OME-Zarr; how long one lasts is not stated: taken as 0")  # fmt: skip
        timing = None if step is None else FrameTiming(tuple(i * step for i in range(frames)), (0.0,) * frames)
    return Scan(path.name, path, cast(Any, counts), "".join(kept), size, slice_mm=z if "Z" in kept else None, timing=timing,
                notes=(*notes, *said))  # fmt: skip


def _joined(letters: list[str]) -> str:
    return f"{'axes' if len(letters) > 1 else 'axis'} {', '.join(letters)}"


def _in(axis: _Axis | None, unit: str) -> float | None:
    """Return the step of an axis in a unit, or None where the axis names no unit of that kind."""
    if axis is None or axis.step is None or not re.fullmatch(r"[A-Za-zµμÅ]{1,20}", axis.unit):
        return None
    import pint

    from evbiodist.study.units import registry

    try:
        step = float(registry().Quantity(axis.step, axis.unit).to(unit).magnitude)
    except (pint.errors.PintError, AttributeError, ValueError):  # no unit, or not of this kind
        return None
    return step if math.isfinite(step) else None


def _bands(metadata: Mapping[str, Any], planes: int, odd: list[str]) -> tuple[Band, ...]:
    """Return the channels that `omero` names, where they are as many as the planes of axis C."""
    omero = metadata.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not channels:
        return ()
    if len(channels) != planes:
        odd.append(f"{len(channels)} channels are named for {planes} planes of axis C, so none is used")
        return ()
    bands = tuple(Band(name=str(c.get("label") or "") if isinstance(c, dict) else "") for c in channels)
    return bands if any(band.name for band in bands) else ()


def _opened(path: Path, root: Path, name: str, needed: bool, odd: list[str]) -> Any:
    """Open an array of a pyramid; None where a level that is not needed cannot be opened."""
    try:
        return _array(path, _inside(path, root, name, root), root, odd)
    except UnreadableImage as err:
        if needed:
            raise
        odd.append(f"level {name} is not usable: {err.reason}")
        return None


def _array(path: Path, folder: Path, root: Path, odd: list[str]) -> Any:
    """Open a zarr array after its metadata were found harmless."""
    number = _format(folder)
    if number is None or not _is_array(path, folder, root):
        raise UnreadableImage(
            path, f"there is no array '{folder.name}', which its metadata name; copy the whole folder"
        )
    described = _json(path, folder / ("zarr.json" if number == 3 else ".zarray"), root)
    _check_codecs(path, described)
    from zarr import open_array
    from zarr.storage import LocalStore

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            array = open_array(store=LocalStore(folder, read_only=True), mode="r", zarr_format=number)
            sizes = [*array.shape, *array.chunks, *(array.shards or ())]
            itemsize = array.dtype.itemsize
    except Exception as err:  # zarr raises many types
        raise UnreadableImage(path, f"array '{folder.name}' cannot be opened ({type(err).__name__}: {str(err)[:200]}); "
                                    "copy the folder again") from err  # fmt: skip
    odd += [f"zarr says: {str(w.message)[:200]}" for w in caught]
    if array.dtype.kind not in "uif":
        raise UnreadableImage(path, f"pixels are of type {array.dtype}; expected integer or float counts")
    if not sizes or min(sizes) < 1:
        raise UnreadableImage(path, f"array '{folder.name}' has shape {array.shape} in chunks of {array.chunks}; expected "
                                    "every axis to have an extent")  # fmt: skip
    if math.prod(array.shape) * itemsize > _MAX_ARRAY_BYTES or math.prod(_grid(array)) > _MAX_CHUNKS:
        raise UnreadableImage(path, f"its metadata declare {' x '.join(map(str, array.shape))} pixels in "
                                    f"{math.prod(_grid(array)):,} chunks, more than is read; correct its metadata")  # fmt: skip
    if math.prod(array.chunks) * itemsize > _MAX_CHUNK_BYTES:
        raise UnreadableImage(path, f"one chunk decodes to {math.prod(array.chunks) * itemsize / 2**30:.1f} GiB, over the limit of "
                                    f"{_MAX_CHUNK_BYTES >> 30} GiB; write it again in smaller chunks")  # fmt: skip
    return array


def _check_codecs(path: Path, described: Mapping[str, Any]) -> None:
    """Refuse an array whose chunks pass through a codec that is not known to be harmless."""
    for codec in _codecs([described.get("codecs"), described.get("filters"), described.get("compressor")]):
        if codec.removeprefix("numcodecs.") not in _CODECS:
            raise UnreadableImage(path, f"its chunks are encoded with '{codec}', which is not read; write it again with blosc, "
                                        "zstd or gzip")  # fmt: skip


def _codecs(node: Any) -> Iterator[str]:
    """Yield every name that a piece of array metadata gives a codec (`name`, or `id` before zarr 3), in shards too."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for entry in node:
            yield from _codecs(entry)
    elif isinstance(node, dict):
        yield from (str(node[key]) for key in ("name", "id") if key in node)
        for key in ("configuration", "codecs", "index_codecs"):
            yield from _codecs(node.get(key))


def _grid(array: Any) -> tuple[int, ...]:
    """Return how many chunk files (shards, where chunks are gathered in them) there should be along each axis."""
    extent = array.shards or array.chunks
    return tuple(-(-int(n) // int(c)) for n, c in zip(array.shape, extent, strict=True))


def _check_chunks(path: Path, folder: Path, array: Any, root: Path) -> list[str]:
    """Say how many chunks zarr would fill with a constant; refuse links out of the folder, an array without any chunk,
    and one whose first chunk is not what its metadata say.
    """
    grid = _grid(array)
    declared = math.prod(grid)
    present = sum(_is_chunk(name, array, grid) for name in _files(path, folder, root))
    if present == 0:
        raise UnreadableImage(path, f"none of its {declared:,} chunks is there; copy the whole folder")
    try:
        array[(0,) * array.ndim]
    except Exception as err:  # codecs raise many types
        raise UnreadableImage(path, f"its first chunk cannot be decoded ({type(err).__name__}: {str(err)[:200]}); copy the "
                                    "folder again") from err  # fmt: skip
    if present == declared:
        return []
    what = "shards" if array.shards else "chunks"
    return [f"{declared - present:,} of {declared:,} {what} are missing and read as the fill value {array.fill_value}; some "
            "programs leave out empty ones, else the copy is incomplete"]  # fmt: skip


def _is_chunk(name: str, array: Any, grid: tuple[int, ...]) -> bool:
    """Whether a file, named from the array's folder, is one that zarr would look for."""
    if not re.fullmatch(r"(c[/.])?\d{1,9}([/.]\d{1,9})*", name):
        return False
    at = tuple(int(part) for part in re.findall(r"\d+", name))
    inside = len(at) == len(grid) and all(i < n for i, n in zip(at, grid, strict=True))
    return inside and array.metadata.encode_chunk_key(at) == name


def _files(path: Path, folder: Path, root: Path) -> Iterator[str]:
    """Yield the files of an array by their name from its folder; a link out of the image's folder is refused."""
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            full = os.path.join(top, name)
            if os.path.islink(full):
                _no_link_outside(path, Path(full), root)
        inner = os.path.relpath(top, folder)
        prefix = "" if inner == "." else inner.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in files)


def _plain_array(path: Path, root: Path) -> Scan:
    """Read an array without OME metadata: with its own dimension names, else only a single plane."""
    odd: list[str] = []
    array = _array(path, root, root, odd)
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names is None and array.ndim == 2:
        names = ("y", "x")
    if not isinstance(names, list | tuple) or len(names) != array.ndim or not all(isinstance(n, str) for n in names):
        raise UnreadableImage(path, f"it is a zarr array of shape {array.shape} without OME metadata, so its axes are unknown; "
                                    "name the OME-Zarr image that it belongs to, or write it with dimension_names")  # fmt: skip
    axes = tuple(_Axis(_letter(path, n, None, e), "", None) for n, e in zip(names, array.shape, strict=True))
    scan = _scan(path, array, axes, ("a zarr array without OME metadata",))
    odd += _check_chunks(path, root, array, root)
    return replace(scan, warnings=tuple(odd))


def write_ome_zarr(path: Path, scan: Scan, chunks: tuple[int, ...] | None = None) -> None:
    """Write a scan as OME-Zarr 0.5 (zarr 3, zstd, every chunk with a CRC-32C), which appears whole or not at all.

    What OME-Zarr has no word for (unit, offset, scale, camera, times that are not even, tracer) stands as sidecar keys
    in the group's attribute `evbiodist`, so that it reads back as the same scan but for axes of extent 1 and the
    photograph.

    Parameters
    ----------
    path : of the new folder; its name should end in .zarr.
    scan : in memory or lazy; a lazy one is copied piece by piece.
    chunks : extent of a chunk along each axis; None for planes (and 16 slices) of up to 512 x 512 pixels.

    Raises
    ------
    ValueError : something is there already, an offset or scale for every pixel, or chunks that do not fit.
    OSError : no room; nothing is left behind.
    """
    from evbiodist.io.sidecar import described

    path = Path(path)
    attributes = {
        "ome": _described_as_ome(scan),
        _OWN: {key: value for key, value in described(scan).items() if key not in _GEOMETRY},
    }
    chunks = _default_chunks(scan) if chunks is None else chunks
    if scan.counts.dtype.kind not in "uif":
        raise ValueError(f"{scan.name} has pixels of type {scan.counts.dtype}; expected integer or float counts")
    if len(chunks) != scan.counts.ndim or min(chunks) < 1:
        raise ValueError(
            f"chunks are {chunks}; expected {scan.counts.ndim} numbers above 0, one for each of {scan.axes}"
        )
    if math.prod(chunks) * scan.counts.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise ValueError(
            f"chunks of {chunks} pixels are over the limit of {_MAX_CHUNK_BYTES >> 30} GiB; take smaller ones"
        )
    if path.exists():
        raise ValueError(f"{path.name} is there already; remove it or choose another name")
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=path.parent))
    try:
        _write_group(part, scan, chunks, attributes)
        part.chmod(0o755)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write_group(folder: Path, scan: Scan, chunks: tuple[int, ...], attributes: dict[str, Any]) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import LocalStore

    group = zarr.create_group(LocalStore(folder), zarr_format=3, attributes=attributes)
    shape = scan.counts.shape
    array = group.create_array(
        "0", shape=shape, dtype=scan.counts.dtype, chunks=tuple(min(c, n) for c, n in zip(chunks, shape, strict=True)),
        compressors=[ZstdCodec(level=3), Crc32cCodec()], dimension_names=list(scan.axes.lower()), fill_value=0,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    steps = (*array.chunks[:-2], *shape[-2:])  # whole planes, so that a page of a TIFF is decoded once
    for corner in itertools.product(*(range(0, n, step) for n, step in zip(shape, steps, strict=True))):
        box = tuple(slice(a, a + step) for a, step in zip(corner, steps, strict=True))
        array[box] = np.asarray(scan.counts[box])


def _default_chunks(scan: Scan) -> tuple[int, ...]:
    """Return planes of up to 512 x 512 pixels, and as many slices (16 at most) as keep a slab of them in bounds."""
    slab = 4 * MAX_BYTES // (math.prod(scan.plane_shape) * scan.counts.dtype.itemsize)
    extents = {"Z": max(1, min(16, slab)), "Y": 512, "X": 512}
    return tuple(extents.get(axis, 1) for axis in scan.axes)


def _described_as_ome(scan: Scan) -> dict[str, Any]:
    """Return NGFF 0.5 metadata of a scan; a step that is unknown is 1 without a unit, as the format has it."""
    if not set(scan.axes) <= set("TCZYX"):
        raise ValueError(f"{scan.name} has axes {scan.axes}; OME-Zarr takes T, C, Z, Y and X")
    size = scan.pixel_size_mm or (None, None)
    steps = {"T": _even_step(scan), "Z": scan.slice_mm, "Y": size[0], "X": size[1]}
    types = {"T": "time", "C": "channel"}
    units = {"T": "second", "Z": "millimeter", "Y": "millimeter", "X": "millimeter"}
    axes = [
        {"name": a.lower(), "type": types.get(a, "space")} | ({"unit": units[a]} if steps.get(a) else {})
        for a in scan.axes
    ]
    scale = [float(steps.get(a) or 1.0) for a in scan.axes]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"name": scan.name, "axes": axes, "datasets": [dataset]}]}
    if scan.bands:
        top = float(np.iinfo(scan.counts.dtype).max) if scan.counts.dtype.kind in "ui" else 1.0
        window = {"min": 0.0, "start": 0.0, "end": top, "max": top}
        ome["omero"] = {
            "channels": [{"label": b.name, "color": "FFFFFF", "active": True, "window": window} for b in scan.bands]
        }
    return ome


def _even_step(scan: Scan) -> float | None:
    """Return the time between frames where they begin at 0 and are evenly spaced."""
    start = np.asarray(scan.timing.start_s if scan.timing else ())
    if len(start) < 2 or start[0] != 0 or not np.allclose(np.diff(start), start[1], rtol=1e-6):
        return None
    return float(start[1])


def _takes(path: Path) -> bool:
    return path.is_dir() and (path.suffix == ".zarr" or _format(path) is not None)


READER = Reader("ome_zarr", "OME-Zarr folders (0.4 and 0.5)", _takes, read_ome_zarr)
