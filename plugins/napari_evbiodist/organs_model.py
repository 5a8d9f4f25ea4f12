"""What the organs panel does, without a window: find organs, show how sure they are, name, copy and draw them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.imaging.atlas import ORGANS as ATLAS
from evbiodist.imaging.atlas import segment_atlas
from evbiodist.imaging.clusters import cluster_curves
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.register import calibrated_frame, register_series
from evbiodist.imaging.segment import segment_body, segment_tray
from evbiodist.io.scan import Scan
from evbiodist.study.constants import known_organs
from evbiodist.study.model import ImagingSettings
from evbiodist.study.vocabulary import BLOOD, STANDARD, organ_name
from napari_evbiodist.converters import KEY, ORGAN, place

if TYPE_CHECKING:
    from napari.types import FullLayerData

HOW: tuple[str, ...] = ("tray", "body", "atlas", "clusters")


def segment(
    scan: Scan,
    how: str,
    settings: ImagingSettings | None = None,
    *,
    animals: int | None = None,
    view: Literal["dorsal", "ventral"] = "dorsal",
    weight_g: float | None = None,
    clusters: int = 4,
) -> OrganMap:
    """Find organs by one of the core's ways.

    Parameters
    ----------
    scan : with a photograph where there is one.
    how : `tray` (by the layout in `settings`), `body` (whole animals), `atlas` (organs in one animal's outline) or `clusters`
        (groups of like time curves, named `cluster_1`, ... until somebody names them).
    settings : of the study, for the tray's layout.
    animals : how many lie on the stage, when known.
    view, weight_g : of the animal, for the atlas.
    clusters : how many.

    Raises
    ------
    ValueError : another word, or why nothing was found.
    """
    settings = settings or ImagingSettings()
    if how == "tray":
        return segment_tray(scan, settings.tray or None, settings.tray_organs or None)
    if how == "body":
        return segment_body(scan, expected=animals)
    if how == "atlas":
        return segment_atlas(scan, view=view, weight_g=weight_g)
    if how == "clusters":
        return cluster_curves(scan, clusters).named({n: f"cluster_{n}" for n in range(1, clusters + 1)})
    raise ValueError(f"'{how}' is no way to find organs; known: {', '.join(HOW)}")


@cache
def vocabulary() -> tuple[str, ...]:
    """Return the organs that have published constants, an atlas or a way of their own in the core: what a name is chosen from.

    Examples
    --------
    >>> {"liver", "brain", "blood", "standard", "tumour"} <= set(vocabulary())
    True
    """
    known = set(known_organs()) | set(ATLAS) | {*BLOOD, STANDARD, "tumour", "injection_site", "muscle"}
    return tuple(sorted(organ_name(organ) for organ in known))


def new_value(name: str, used: Collection[int], table: Mapping[str, str]) -> int:
    """Return a pixel value for a new organ, one that the study's table will not give to another.

    Raises
    ------
    ValueError : a name without letters.

    Examples
    --------
    >>> new_value("Tongue", [1, 2], {"1": "body", "9": "liver"}), new_value("liver", [1, 2], {"1": "body", "9": "liver"})
    (10, 9)
    """
    organ = organ_name(name)
    if not organ:
        raise ValueError(f"the name '{name.strip()}' holds no letters; give the name of an organ, such as liver")
    given = {int(value): organ_name(known) for value, known in table.items()}
    free = [value for value, known in given.items() if known == organ and value not in used]
    return free[0] if free else max([*given, *used, 0]) + 1


def rows(organs: OrganMap, scan: Scan) -> list[dict[str, Any]]:
    """Return a row for every pixel value in use: organ, pixels, size, confidence, and what it cannot be told from.

    Examples
    --------
    >>> organs = OrganMap(np.array([[1, 1, 2]]), {1: "heart", 2: "lung"}, "planar atlas", unresolved=(("heart", "lung"),))
    >>> rows(organs, Scan("a", None, np.ones((1, 3)), "YX", (0.5, 0.5)))[0]
    {'value': 1, 'organ': 'heart', 'pixels': 2, 'size': 0.5, 'unit': 'mm2', 'confidence': None, 'with': 'lung'}
    """
    finer = np.prod(scan.frame_shape) / organs.labels.size
    known = scan.spacing_mm
    unit = "" if known is None else "mm3" if len(scan.frame_shape) == 3 else "mm2"
    told = []
    for value, name in organs.names.items():
        pixels = int((organs.labels == value).sum())
        if not pixels:  # a study's table names more organs than one scan shows
            continue
        others = [b if a == name else a for a, b in organs.unresolved if name in (a, b)]
        told.append({"value": value, "organ": name, "pixels": pixels, "unit": unit,
                     "size": float(pixels * finer * np.prod(known)) if known else None,
                     "confidence": organs.confidence.get(name), "with": ", ".join(others)})  # fmt: skip
    return [
        {key: row[key] for key in ("value", "organ", "pixels", "size", "unit", "confidence", "with")} for row in told
    ]


def unresolved_layer(organs: OrganMap, scan: Scan) -> FullLayerData:
    """Return where organs cannot be told apart, as an image layer.

    Raises
    ------
    ValueError : every organ can be told from the others.
    """
    mask, sentences = not_resolvable(organs)
    if not sentences:
        raise ValueError(f"the {organs.origin} knows of no organs that cannot be told apart")
    keywords = {**place(scan, mask.shape[-2:], "Z" * (mask.ndim - 2)), "name": f"{scan.name} not resolvable",
                "contrast_limits": (0.0, 1.0), "colormap": "red", "opacity": 0.5, "blending": "additive",
                "metadata": {KEY: {"notes": sentences}}}  # fmt: skip
    return mask.astype(np.float32), keywords, "image"


def probability_layer(organs: OrganMap, scan: Scan, organ: str) -> FullLayerData:
    """Return how much of each pixel belongs to an organ, 0 to 1, as an image layer.

    Raises
    ------
    ValueError : an organ that the map does not have.
    """
    if organ not in organs.organs:
        raise ValueError(f"the {organs.origin} has no {organ}; it has {', '.join(organs.organs)}")
    share = organs.share(organ)
    keywords = {**place(scan, share.shape[-2:], "Z" * (share.ndim - 2)), "name": f"{scan.name} {organ}, probability",
                "contrast_limits": (0.0, 1.0), "colormap": "viridis", "opacity": 0.6, "blending": "translucent",
                "metadata": {KEY: {"organ": organ, "unit": "probability"}}}  # fmt: skip
    return share, keywords, "image"


def not_resolvable(organs: OrganMap) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return the pixels of organs whose light cannot be told apart, in the shape of `labels`, and a sentence a pair.

    Examples
    --------
    >>> organs = OrganMap(np.array([[1, 2, 3]]), {1: "heart", 2: "lung", 3: "liver"}, "planar atlas", unresolved=(("heart", "lung"),))
    >>> mask, sentences = not_resolvable(organs)
    >>> mask.tolist(), sentences
    ([[True, True, False]], ('heart and lung are not resolvable in this view: report them together or add a view or band',))
    """
    mask = np.zeros(organs.labels.shape, bool)
    for organ in {name for pair in organs.unresolved for name in pair}:
        mask |= organs.mask(organ)
    sentences = (f"{a} and {b} are not resolvable in this view: report them together or add a view or band"
                 for a, b in organs.unresolved)  # fmt: skip
    return mask, tuple(sentences)


def rename(organs: OrganMap, names: Mapping[int, str]) -> OrganMap:
    """Give pixel values other names, in the spelling of the vocabulary; what is known of the old names goes.

    Raises
    ------
    ValueError : a value that no pixel has, or a name without letters.

    Examples
    --------
    >>> rename(OrganMap(np.array([[1, 2]]), {1: "a", 2: "b"}, "drawn"), {1: "Kidneys"}).names
    {1: 'kidney', 2: 'b'}
    """
    strange = sorted(set(names) - set(organs.names))
    if strange:
        raise ValueError(f"pixel values {strange} are not in the {organs.origin}; it has {sorted(organs.names)}")
    table = {value: organ_name(name) for value, name in names.items()}
    blank = sorted(value for value, name in table.items() if not name)
    if blank:
        raise ValueError(f"the names of pixel values {blank} hold no letters; give the name of an organ, such as liver")
    gone = {organs.names[value] for value in table}
    return replace(organs, names={**organs.names, **table}, fractions=None,
                   confidence={o: c for o, c in organs.confidence.items() if o not in gone},
                   unresolved=tuple(p for p in organs.unresolved if not gone & set(p)))  # fmt: skip


def copy_organs(organs: OrganMap, source: Scan, target: Scan, by: str = "identity") -> OrganMap:
    """Bring one scan's organs onto another scan.

    Parameters
    ----------
    organs : of `source`.
    source, target : single frames of the same field of view.
    by : `identity` where nothing moved, else how `register_series` matches the two: `intensity` or `body`.

    Returns
    -------
    OrganMap : on the target's grid; a note says so where the scans could not be matched and the organs lie unmoved.

    Raises
    ------
    ValueError : other fields of view, several frames, another word, or organs that left the frame.
    """
    if by not in ("identity", "intensity", "body"):
        raise ValueError(f"'{by}' is no way to bring organs onto another scan; known: identity, intensity, body")
    _check_same_view(source, target)
    if by == "identity":
        return organs.resized(target.frame_shape)
    if source.frame_shape != target.frame_shape:
        raise ValueError(f"{source.name} is {source.frame_shape} pixels, {target.name} {target.frame_shape}; "
                         "scans are registered on the same grid: copy by identity")  # fmt: skip
    frames = np.stack([_only_frame(source), _only_frame(target)])
    axes = "T" + "ZYX"[-len(source.frame_shape) :]
    pair = Scan(target.name, None, frames, axes, source.pixel_size_mm, source.unit, slice_mm=source.slice_mm)
    found = register_series(pair, by, 0)  # type: ignore[arg-type]
    return found.apply(organs.resized(source.frame_shape), 1)


def propagate(organs: OrganMap, scan: Scan, reference: int = 0, by: str = "intensity") -> tuple[OrganMap, ...]:
    """Return the organs of one frame as they lie in every frame of a series.

    Parameters
    ----------
    organs : outlined on frame `reference`.
    scan : a series in memory.
    by : `intensity` or `body`, as for `register_series`.
    """
    found = register_series(scan, by, reference)  # type: ignore[arg-type]
    return tuple(found.apply(organs, t) for t in range(scan.extent("T")))


def _only_frame(scan: Scan) -> NDArray[np.float64]:
    if int(np.prod(scan.counts.shape)) != int(np.prod(scan.frame_shape)):
        raise ValueError(
            f"{scan.name} has several frames ({scan.axes} {scan.counts.shape}); organs are copied between single frames"
        )
    return calibrated_frame(scan, 0)


def _check_same_view(a: Scan, b: Scan) -> None:
    """Refuse scans that do not show the same extent, in mm where both know it, else in pixels."""
    if len(a.frame_shape) != len(b.frame_shape):
        raise ValueError(f"{a.name} is {a.axes}, {b.name} {b.axes}; organs are copied between images of the same kind")
    known = a.spacing_mm is not None and b.spacing_mm is not None
    first, second = (np.multiply(s.frame_shape, (s.spacing_mm if known else None) or (1.0,)) for s in (a, b))
    unit = "mm" if known else "pixels of unknown size"
    same = bool(np.allclose(first, second, rtol=1e-3 if known else 0.0))
    if not same:
        raise ValueError(f"{a.name} shows {_times(first)} {unit}, {b.name} {_times(second)} {unit}; "
                         "organs are copied only within the same field of view")  # fmt: skip


def _times(extent: NDArray[Any]) -> str:
    return " x ".join(f"{float(n):g}" for n in extent)


def polygons_to_organs(layer: FullLayerData, scan: Scan, base: OrganMap | None = None) -> OrganMap:
    """Turn the polygons of a shapes layer into organs: a pixel belongs to a polygon when its centre lies inside or on the edge.

    Parameters
    ----------
    layer : (data, keywords, "shapes"): polygons and rectangles; the features table names each in its column `organ`. Where
        polygons overlap, the one drawn later wins.
    scan : over which they were drawn; the layer's scale and place are respected.
    base : organs that stay where no polygon lies.

    Raises
    ------
    ValueError : lines or ellipses, a polygon without a name or without a pixel, a turned layer, or a volume.

    Examples
    --------
    >>> scan = Scan("tray", None, np.ones((4, 4)), "YX", (0.5, 0.5))
    >>> square = np.array([[0.2, 0.2], [0.2, 1.2], [1.2, 1.2], [1.2, 0.2]])  # mm; centres lie at 0, 0.5, 1.0, 1.5
    >>> layer = ([square], {"features": {"organ": ["liver"]}, "units": ("mm", "mm")}, "shapes")
    >>> polygons_to_organs(layer, scan).labels.tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    from skimage.measure import grid_points_in_poly

    data, keywords, _ = layer
    title = f"shapes layer '{keywords.get('name', '')}'"
    if "Z" in scan.axes:
        raise ValueError(f"{scan.name} is a volume; draw its organs with the brush on a labels layer")
    organs = _polygon_names(keywords, len(data), title)
    labels = np.zeros(scan.plane_shape, np.int32) if base is None else base.resized(scan.plane_shape).labels.copy()
    names = {} if base is None else dict(base.names)
    for number, (points, organ) in enumerate(zip(data, organs, strict=True), 1):
        inside = grid_points_in_poly(scan.plane_shape, _in_pixels(points, keywords, scan, title))
        if not inside.any():
            raise ValueError(f"polygon {number} ({organ}) of the {title} holds the centre of no pixel of {scan.name}; "
                             "draw it larger, or over the scan")  # fmt: skip
        value = next((v for v, name in names.items() if name == organ), max([*names, 0]) + 1)
        names[value] = organ
        labels[inside] = value
    return OrganMap(labels, names, "drawn in napari" if base is None else f"{base.origin}, edited in napari",
                    0.0 if base is None else base.outline_px)  # fmt: skip


def _polygon_names(keywords: Mapping[str, Any], count: int, title: str) -> list[str]:
    kinds = keywords.get("shape_type", "polygon")
    kinds = [kinds] * count if isinstance(kinds, str) else list(kinds)
    strange = sorted({k for k in kinds if k not in ("polygon", "rectangle")})
    if strange:
        raise ValueError(f"the {title} holds shapes of kind {', '.join(strange)}; expected polygons or rectangles")
    features = keywords.get("features")
    named = list(features[ORGAN]) if features is not None and ORGAN in features else []
    found = [organ_name(n) if isinstance(n, str) else "" for n in named] or [""] * count
    blank = [number for number, name in enumerate(found, 1) if not name]
    if blank or not count:
        raise ValueError(f"polygons {blank} of the {title} have no organ; name each in its features table, column '{ORGAN}'"
                         if count else f"the {title} holds no polygon; draw one")  # fmt: skip
    return found


def _in_pixels(points: Any, keywords: Mapping[str, Any], scan: Scan, title: str) -> NDArray[np.float64]:
    """Return a polygon's corners in pixels of the scan, the centre of pixel 0 at 0."""
    for matrix in (keywords.get("rotate"), keywords.get("affine")):
        if matrix is not None and not np.allclose(matrix, np.eye(len(matrix))):
            raise ValueError(f"the {title} is turned; draw on a shapes layer that is not")
    corners: NDArray[np.float64] = np.asarray(points, dtype=np.float64)[:, -2:]
    scale, shift = (
        np.asarray(keywords.get(key, [default] * 2), float)[-2:]
        for key, default in (("scale", 1.0), ("translate", 0.0))
    )
    return (corners * scale + shift) / np.asarray(scan.pixel_size_mm or (1.0, 1.0))


def tell(organs: OrganMap) -> Sequence[tuple[str, int, float | None]]:
    """Return (organ, pixels, confidence) of every organ; confidence None where a person drew."""
    return [(name, pixels, organs.confidence.get(name)) for name, pixels in organs.areas().items()]
