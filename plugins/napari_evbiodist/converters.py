"""Layers from scans and organ maps, and organ maps back from layers.

The only place where core types and napari's layer tuples meet. Everything is laid out in the scan's
own field of view, because a region drawn in one space and measured in another gives wrong numbers silently.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.batch.scans import outline_colour
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.ome_zarr import scan_level
from evbiodist.io.scan import Scan
from evbiodist.io.stream import LIMIT_BYTES

if TYPE_CHECKING:
    from napari.types import FullLayerData

#: Key of everything of ours in a layer's metadata.
KEY = "evbiodist"
#: Columns of a labels layer's features table; without `index` napari reads rows as label values.
INDEX, ORGAN = "index", "organ"
_DRAWN, _EDITED = "drawn in napari", ", edited in napari"
_SHOWN_PERCENTILES = (1.0, 99.8)
_MOST_PIXELS_LOOKED_AT = 1_000_000


def scan_to_layers(scan: Scan, levels: Sequence[Scan] | None = None) -> list[FullLayerData]:
    """Return a scan as napari layers: the calibrated signal, then the photograph where there is one.

    Parameters
    ----------
    scan : any number of frames.
    levels : from `pyramid`, where another process has looked for them.

    Returns
    -------
    list of (data, keywords, "image") : in mm, or in pixels where the scan does not know its pixel size;
        ``metadata["evbiodist"]`` holds the scan itself, which is what is measured, and the unit of the layer.

    Examples
    --------
    >>> scan = Scan("tray", None, np.full((2, 3), 7.0), "YX", (0.5, 0.5), offset=5.0, photograph=np.ones((4, 6)))
    >>> signal, photograph = scan_to_layers(scan)
    >>> signal[0].tolist(), signal[1]["scale"], signal[1]["units"]
    ([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], (0.5, 0.5), ('mm', 'mm'))
    >>> photograph[1]["scale"], photograph[1]["translate"]
    ((0.25, 0.25), (-0.125, -0.125))
    """
    levels = pyramid(scan) if levels is None else levels
    data: Any = [_signal(level) for level in levels] if len(levels) > 1 else _signal(scan)
    layers = [_image(data, scan, scan.name, scan.axes[:-2], unit=scan.unit, colormap="inferno")]
    if len(levels) > 1:
        layers[0][1]["multiscale"] = True
    if scan.photograph is not None:
        # half transparent: a white body would drown the signal added to it
        title = f"{scan.name} photograph"
        layers.append(_image(scan.photograph, scan, title, unit="grey value", colormap="gray", opacity=0.5))
    return layers


def pyramid(scan: Scan) -> list[Scan]:
    """Return the pyramid of an OME-Zarr on disk, full resolution first; nothing where levels do not fit together."""
    if not scan.lazy or scan.path is None or not scan.path.is_dir() or "levels" not in scan.header:
        return []
    if not (np.ndim(scan.offset) == np.ndim(scan.scale) == 0):
        return []
    found = [scan]
    for number in range(1, scan.header["levels"].count(";") + 1):
        level = scan_level(scan.path, number)
        if level.axes != scan.axes or math.prod(level.counts.shape) >= math.prod(found[-1].counts.shape):
            break
        found.append(level)
    return [replace(level, offset=scan.offset, scale=scan.scale) for level in found]


class OnDisk:
    """Pixels that are read and calibrated when somebody asks for them as an array; a part of it is on disk, too.

    What napari needs of an array, and nothing else: napari takes parts of parts before it looks at any pixel.

    Parameters
    ----------
    counts : has shape, dtype and slices to numpy.
    offset, scale : numbers, or arrays that fit to the pixels; a value is ``(count - offset) * scale``.

    Examples
    --------
    >>> image = OnDisk(np.arange(6).reshape(2, 3), 1.0, 2.0)
    >>> image.shape, image.dtype.name, np.asarray(image[1]).tolist(), np.asarray(image[:, 1:][..., 0]).tolist()
    ((2, 3), 'float64', [4.0, 6.0, 8.0], [0.0, 6.0])
    """

    def __init__(self, counts: Any, offset: Any = 0.0, scale: Any = 1.0) -> None:
        self._counts = counts
        self._plain = np.ndim(offset) == np.ndim(scale) == 0 and (offset, scale) == (0, 1)
        shape = tuple(int(n) for n in counts.shape)
        # views: a frame's own offset is looked up like its pixels
        self._offset, self._scale = (np.broadcast_to(np.asarray(v, float), shape) for v in (offset, scale))
        self.dtype = np.dtype(counts.dtype if self._plain else np.float64)
        self._part: tuple[int | range, ...] = tuple(range(n) for n in shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(len(p) for p in self._part if isinstance(p, range))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in memory, were it read whole."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Any:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        odd = [i for i, k in enumerate(keys) if not _is_plain(k)]
        if len(odd) == 1 and np.ndim(keys[odd[0]]) == 1 and np.asarray(keys[odd[0]]).dtype.kind in "iu":
            [at] = odd  # some planes of one axis: read one by one, and not all between them
            planes = [np.asarray(self[(*keys[:at], int(i), *keys[at + 1 :])]) for i in keys[at]]
            return np.stack(planes, axis=sum(isinstance(k, slice) for k in keys[:at]))
        if odd:
            if self.nbytes > LIMIT_BYTES:
                raise IndexError(
                    f"{self.nbytes / 2**30:.0f} GiB on disk can be indexed by whole numbers, slices and one list"
                )
            return np.asarray(self)[key]
        rest = iter(keys)
        part = copy.copy(self)
        part._part = tuple(p[next(rest)] if isinstance(p, range) else p for p in self._part)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        key = tuple(slice(p.start, p.stop, p.step) if isinstance(p, range) else p for p in self._part)
        read = np.asarray(self._counts[key])
        if not self._plain:
            read = (read.astype(np.float64) - self._offset[key]) * self._scale[key]
        return read if dtype is None else read.astype(dtype)


def _is_plain(key: Any) -> bool:
    return isinstance(key, int | np.integer) or (isinstance(key, slice) and (key.step is None or key.step > 0))


def _signal(scan: Scan) -> Any:
    """Return the calibrated image, read when it is looked at where it is on disk; counts that nothing is done to stay counts."""
    if scan.lazy:
        return OnDisk(scan.counts, scan.offset, scan.scale)
    plain = np.ndim(scan.offset) == np.ndim(scan.scale) == 0 and (scan.offset, scan.scale) == (0, 1)
    return scan.counts if plain else scan.signal()


def _image(image: Any, scan: Scan, name: str, leading: str = "", *, unit: str, **shown: Any) -> FullLayerData:
    finest = image[0] if isinstance(image, list) else image
    keywords = {
        **place(scan, finest.shape[-2:], leading),
        "name": name,
        "blending": "additive",
        "contrast_limits": _contrast_limits(image[-1] if isinstance(image, list) else image),
        "metadata": {
            KEY: {
                "scan": scan,
                "unit": unit,
                "calibration": _calibration(scan),
                "flags": scan.flags,
                "notes": scan.notes,
                "warnings": scan.warnings,
            }
        },
        **shown,
    }
    return image, keywords, "image"


def place(scan: Scan, shape: tuple[int, ...], leading: str = "") -> dict[str, tuple[Any, ...]]:
    """Return the keywords that lay a grid of this (Y, X) shape over the scan's field of view.

    napari puts the centre of pixel 0 at `translate`, so grids of different pixels start at different places.
    """
    pixel = scan.pixel_size_mm or (1.0, 1.0)
    unit = "pixel" if scan.pixel_size_mm is None else "mm"
    scale = [size * (n / m) for size, n, m in zip(pixel, scan.plane_shape, shape, strict=True)]
    deep = [scan.slice_mm if axis == "Z" and unit == "mm" else None for axis in leading]
    return {
        "scale": (*(d or 1.0 for d in deep), *scale),
        "translate": (*[0.0] * len(leading), *((s - size) / 2 for s, size in zip(scale, pixel, strict=True))),
        "units": (*("mm" if d else "pixel" for d in deep), unit, unit),
        "axis_labels": (*leading.lower(), "y", "x"),
    }


def _calibration(scan: Scan) -> str:
    """Return in words what turned counts into the layer's values."""
    if np.ndim(scan.offset) or np.ndim(scan.scale):
        return f"(counts - offset) x scale in {scan.unit}, pixel by pixel or frame by frame"
    if (scan.offset, scan.scale) == (0, 1):
        return f"values as stored, {scan.unit}"
    return f"(counts - {float(scan.offset):g}) x {float(scan.scale):g}, {scan.unit}"


def _contrast_limits(image: Any) -> tuple[float, float]:
    """Return the range that is shown, by a thinned image; of one on disk a thinned middle plane is read, nothing else."""
    if not isinstance(image, np.ndarray):
        steps = [slice(None, None, max(1, n // 500)) for n in image.shape[-2:]]
        image = np.asarray(image[(*(n // 2 for n in image.shape[:-2]), *steps)])
    sample = image.reshape(-1)[:: max(1, image.size // _MOST_PIXELS_LOOKED_AT)]
    finite = sample[np.isfinite(sample)]
    if finite.size == 0:
        return (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(finite, _SHOWN_PERCENTILES))
    return (low, high if high > low else low + 1.0)


def organs_to_layer(organs: OrganMap, scan: Scan) -> FullLayerData:
    """Return an organ map as a labels layer over its scan, in the colours of the report.

    Parameters
    ----------
    organs : on the scan's grid or any grid over the same field of view.
    scan : whose field of view it is.

    Returns
    -------
    (data, keywords, "labels") : a copy, so that painting leaves the organ map alone; names are in the
        features table, columns `index` (pixel value) and `organ`.

    Examples
    --------
    >>> scan = Scan("tray", None, np.ones((2, 2)), "YX")
    >>> layer = organs_to_layer(OrganMap(np.array([[0, 1], [2, 2]]), {1: "liver", 2: "brain"}, "label image"), scan)
    >>> layer[1]["features"]["organ"].tolist(), layer_to_organs(layer, scan).areas()
    (['liver', 'brain'], {'liver': 1, 'brain': 2})
    """
    told = {"organs": organs, "origin": organs.origin, "outline_px": organs.outline_px, "notes": organs.notes,
            "confidence": dict(organs.confidence), "unresolved": organs.unresolved}  # fmt: skip
    keywords = {
        **place(scan, organs.labels.shape[-2:], "Z" * (organs.labels.ndim - 2)),
        "name": f"{scan.name} organs",
        "features": {
            INDEX: np.array(list(organs.names), dtype=int),
            ORGAN: np.array(list(organs.names.values()), dtype=object),
        },
        "colormap": _colours(organs),
        "opacity": 0.4,
        "metadata": {KEY: {**told, "sha256": digest_of(organs.labels)}},
    }
    return np.array(organs.labels, np.int32), keywords, "labels"


def _colours(organs: OrganMap) -> dict[int | None, Any]:
    """Return the report's colour of each pixel value; values painted later are white."""
    colours: dict[int | None, Any] = {None: "white", 0: "transparent"}
    for value, name in organs.names.items():
        if name in organs.organs:
            red, green, blue = re.findall(r"\d+", outline_colour(organs.organs.index(name)))
            colours[value] = (int(red) / 255, int(green) / 255, int(blue) / 255, 1.0)
    return colours


def layer_to_organs(layer: FullLayerData, scan: Scan) -> OrganMap:
    """Return the organ map that a labels layer holds, whether it came from `organs_to_layer` or was drawn.

    Parameters
    ----------
    layer : (data, keywords, type), of a layer in a viewer ``layer.as_layer_data_tuple()``.
    scan : over which the organs were drawn.

    Returns
    -------
    OrganMap : a layer from `organs_to_layer` gives the same map again; painting is told in `origin`.

    Raises
    ------
    ValueError : the layer does not lie over the scan, a pixel value has no name or two, or none is marked.
    """
    data, keywords, _ = layer
    title = f"labels layer '{keywords.get('name', '')}'"
    labels = _plane(data, title, len(scan.frame_shape))
    _check_place(keywords, labels.shape, scan, title)
    names = feature_names(keywords.get("features"), title)
    unnamed = sorted({int(v) for v in np.unique(labels)} - {0, *names})
    if unnamed:
        raise ValueError(f"pixel values {unnamed} of the {title} have no organ; "
                         f"name them in its features table, columns '{INDEX}' and '{ORGAN}'")  # fmt: skip
    told = (keywords.get("metadata") or {}).get(KEY, {})
    origin = told.get("origin", _DRAWN)
    untouched = bool(told) and told["sha256"] == digest_of(labels)
    if untouched and isinstance(told.get("organs"), OrganMap) and told["organs"].names == names:
        return replace(told["organs"], labels=labels)
    if told and not untouched and not origin.endswith(_EDITED):
        origin += _EDITED
    return OrganMap(labels, names, origin, told.get("outline_px", 0.0), tuple(told.get("notes", ())))


def _plane(data: Any, title: str, ndim: int) -> NDArray[np.int32]:
    array = np.array(data)
    if array.ndim < ndim or array.size != np.prod(array.shape[-ndim:]):
        expected = "(Z, Y, X)" if ndim == 3 else "(Y, X)"
        raise ValueError(
            f"the {title} has shape {array.shape}; expected {expected}: draw the organs once for all frames"
        )
    return array.reshape(array.shape[-ndim:]).astype(np.int32)


def feature_names(features: Any, title: str) -> dict[int, str]:
    """Return the organ of each pixel value from a features table; rows without an organ name nothing.

    Raises
    ------
    ValueError : no columns `index` and `organ`, or a pixel value with two names.
    """
    if features is None or INDEX not in features or ORGAN not in features:
        raise ValueError(f"the {title} does not say which organ a pixel value is; "
                         f"give its features table the columns '{INDEX}' and '{ORGAN}'")  # fmt: skip
    names: dict[int, str] = {}
    for value, organ in zip(features[INDEX], features[ORGAN], strict=True):
        if not isinstance(organ, str) or not organ.strip():
            continue
        if names.setdefault(int(value), organ) != organ:
            raise ValueError(f"pixel value {int(value)} of the {title} is both {names[int(value)]} and {organ}; "
                             "keep one row of its features table")  # fmt: skip
    return names


def _check_place(keywords: Mapping[str, Any], shape: tuple[int, ...], scan: Scan, title: str) -> None:
    """Refuse a layer that was moved, turned, or drawn over something else than the scan."""
    wanted = place(scan, shape[-2:], "Z" * (len(shape) - 2))
    scale, shift = (np.array(keywords.get(key, [default] * len(shape)), float)[-len(shape):]
                    for key, default in (("scale", 1.0), ("translate", 0.0)))  # fmt: skip
    turned = any(
        not np.allclose(matrix, np.eye(len(matrix)))
        for matrix in (keywords.get("rotate"), keywords.get("affine"))
        if matrix is not None
    )
    tolerance = 0.01 * min(scan.pixel_size_mm or (1.0, 1.0))
    off = [shift - wanted["translate"], (scale - wanted["scale"]) * shape]
    if turned or np.abs(off).max() > tolerance:
        raise ValueError(f"the {title} does not lie over {scan.name}: its {shape} pixels have scale {scale.tolist()} "
                         f"and start at {shift.tolist()}, expected {list(wanted['scale'])} and "
                         f"{list(wanted['translate'])}; draw on a labels layer made from the scan's image")  # fmt: skip


def digest_of(labels: NDArray[Any]) -> str:
    """Return what changes when anybody paints."""
    return hashlib.sha256(np.ascontiguousarray(labels, np.int32).tobytes()).hexdigest()
