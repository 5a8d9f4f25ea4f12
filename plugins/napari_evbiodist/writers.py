"""Organ labels to files and back, with pixel size and organ names, and tables as CSV.

napari's own TIFF writer drops the pixel size, and without names a label image is only numbers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.batch.store import csv_bytes, write_bytes
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.ome_xml import LENGTHS_MM
from evbiodist.io.ome_zarr import write_ome_zarr
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import Scan
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS
from evbiodist.study.model import OBSERVATION_COLUMNS
from evbiodist.study.problems import UnreadableImage
from napari_evbiodist.converters import KEY, feature_names

#: Namespace of the annotation that holds organ names by pixel value.
NAMESPACE = "evbiodist/organs"
_MOST_JSON_BYTES = 1 << 24


def save_organs(
    path: Path, organs: OrganMap, pixel_size_mm: tuple[float, float] | None = None, slice_mm: float | None = None
) -> Path:
    """Write an organ map as OME-TIFF (.ome.tif) or OME-Zarr (.zarr) with its pixel size and organ names.

    Parameters
    ----------
    path : of the new file or folder; a TIFF that is there is replaced, a Zarr folder is not.
    organs : (Y, X) or (Z, Y, X).
    pixel_size_mm, slice_mm : None where nobody knows; then nothing is written of it.

    Raises
    ------
    ValueError : a name that ends otherwise, or a Zarr folder that is there already.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".zarr"):
        _save_zarr(path, organs, pixel_size_mm, slice_mm)
    elif name.endswith((".ome.tif", ".ome.tiff")):
        _save_tiff(path, organs, pixel_size_mm, slice_mm)
    else:
        raise ValueError(f"{path.name}: organ labels are written as .ome.tif or .zarr; choose a name that ends so")
    return path


def _save_tiff(path: Path, organs: OrganMap, size: tuple[float, float] | None, slice_mm: float | None) -> None:
    import io

    import tifffile

    metadata: dict[str, Any] = {"axes": "ZYX"[-organs.labels.ndim :]}
    lengths = {"Y": size[0] if size else None, "X": size[1] if size else None, "Z": slice_mm}
    for axis, length in lengths.items():
        if length is not None and axis in metadata["axes"]:
            metadata |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "mm"}
    names = {str(value): name for value, name in sorted(organs.names.items())}
    metadata["MapAnnotation"] = {"Namespace": NAMESPACE, **names}
    file = io.BytesIO()
    tifffile.imwrite(file, _whole(organs.labels), ome=True, metadata=metadata, compression="zlib")
    write_bytes(path, file.getvalue())


def _save_zarr(path: Path, organs: OrganMap, size: tuple[float, float] | None, slice_mm: float | None) -> None:
    if path.exists():
        raise ValueError(f"{path.name} is there already; remove it or choose another name")
    axes = "ZYX"[-organs.labels.ndim :]
    scan = Scan(path.stem, None, _whole(organs.labels), axes, size, slice_mm=slice_mm if "Z" in axes else None)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=path.parent))
    try:
        write_ome_zarr(part / path.name, scan)
        file = part / path.name / "zarr.json"
        described = json.loads(file.read_text(encoding="utf-8"))
        properties = [{"label-value": value, "name": name} for value, name in sorted(organs.names.items())]
        described["attributes"]["ome"]["image-label"] = {"properties": properties}
        file.write_text(json.dumps(described), encoding="utf-8")
        (part / path.name).rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _whole(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.astype(np.uint16 if labels.max() < 1 << 16 else np.int32)


def read_organs(path: str | Path) -> tuple[OrganMap, Scan] | None:
    """Read organ labels that `save_organs` wrote; None for an image that carries no organ names.

    Returns
    -------
    (OrganMap, Scan) : the labels, and the scan that holds their grid (pixel size, slice distance).

    Raises
    ------
    UnreadableImage : a damaged file, or one whose names do not fit its pixels.
    """
    path = Path(path)
    names = _names_in_zarr(path) if path.is_dir() else _names_in_tiff(path)
    if not names:
        return None
    scan = read_scan(path)
    labels = np.asarray(scan.counts[...])
    if labels.dtype.kind not in "ui":
        raise UnreadableImage(path, f"it names organs, but its pixels are of type {labels.dtype}; save it again")
    try:
        return OrganMap(labels.astype(np.int32), names, "label image"), scan
    except ValueError as err:
        raise UnreadableImage(path, str(err)) from err


def _names_in_tiff(path: Path) -> dict[int, str]:
    """Return organ by pixel value from the OME-XML; nothing where there is none or it is not ours."""
    import tifffile
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            text = tif.ome_metadata or ""
        root = fromstring(text, forbid_dtd=True) if text else None
    except (OSError, ValueError, IndexError, ParseError, DefusedXmlException):
        return {}  # whatever is wrong with it is said when its pixels are read
    if root is None:
        return {}
    ours = (a for a in root.findall(".//{*}MapAnnotation") if a.get("Namespace") == NAMESPACE)
    entries = ((m.get("K"), m.text) for a in ours for m in a.findall(".//{*}M"))
    return _table(entries)


def _names_in_zarr(path: Path) -> dict[int, str]:
    file = path / "zarr.json"
    try:
        if file.stat().st_size > _MOST_JSON_BYTES:
            return {}
        found = json.loads(file.read_bytes())["attributes"]["ome"]["image-label"]["properties"]
        return _table((str(entry["label-value"]), entry["name"]) for entry in found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _table(entries: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    return {int(key): name for key, name in entries
            if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10
            and isinstance(name, str) and name.strip()}  # fmt: skip


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer as OME-TIFF or OME-Zarr; what napari calls for File > Save.

    Raises
    ------
    ValueError : organs without names, a layer that is turned, or a scale in a unit that is no length.
    """
    labels = np.asarray(data)
    while labels.ndim > 2 and labels.shape[0] == 1:
        labels = labels[0]
    title = f"labels layer '{meta.get('name', '')}'"
    if labels.ndim > 3:
        raise ValueError(
            f"the {title} has {labels.ndim} axes; expected (Y, X) or (Z, Y, X): draw organs once for all frames"
        )
    lengths = _lengths_mm(meta, labels.ndim, title)
    size = (lengths[-2], lengths[-1]) if lengths[-2] and lengths[-1] else None
    organs = OrganMap(labels.astype(np.int32), feature_names(meta.get("features"), title), title)
    target = Path(path)
    if not target.name.lower().endswith((".zarr", ".ome.tif", ".ome.tiff")):
        target = target.with_name(target.name.removesuffix(target.suffix) + ".ome.tif")
    save_organs(target, organs, size, lengths[0] if labels.ndim == 3 else None)
    return [str(target)]


def _lengths_mm(meta: Mapping[str, Any], ndim: int, title: str) -> list[float | None]:
    """Return the extent of a pixel along each axis in mm, None where the layer counts pixels."""
    scale = [float(s) for s in meta.get("scale", [1.0] * ndim)][-ndim:]
    units = [str(u) for u in meta.get("units") or ["pixel"] * ndim][-ndim:]
    for matrix in (meta.get("rotate"), meta.get("affine")):
        if matrix is not None and not np.allclose(matrix, np.eye(len(matrix))):
            raise ValueError(f"the {title} is turned, which a label image cannot say; reset its rotation")
    strange = sorted({u for u in units if u not in LENGTHS_MM and u != "pixel"})
    if strange:
        raise ValueError(f"the {title} is scaled in {', '.join(strange)}; expected a length such as mm, or pixel")
    return [s * LENGTHS_MM[u] if u in LENGTHS_MM else None for s, u in zip(scale, units, strict=True)]


def write_observations(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the observations that a layer carries as CSV, in the columns of observations.csv."""
    return _write_table(path, meta, "observations", OBSERVATION_COLUMNS)


def write_parameters(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the parameters that a layer carries as CSV, in the columns of parameters.csv."""
    return _write_table(path, meta, "parameters", PARAMETER_COLUMNS)


def _write_table(path: str, meta: Mapping[str, Any], table: str, columns: tuple[str, ...]) -> list[str]:
    rows = (meta.get("metadata") or {}).get(KEY, {}).get(table)
    if not rows:
        raise ValueError(f"layer '{meta.get('name', '')}' carries no {table}; measure the scan first")
    write_bytes(Path(path), csv_bytes(rows, columns))
    return [path]
