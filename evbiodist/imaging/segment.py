"""Finding organs on a tray and animals on a stage, in the photograph or else in the signal.

Segmentation gives an `OrganMap`; a user's label image always wins over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters, measure, segmentation
from skimage.morphology import h_maxima, isotropic_opening

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.tray import name_by_layout, name_by_shape
from evbiodist.io.scan import FloatArray, Scan

#: Opening radius that removes tails, legs' ends and nose cones but no trunk, in mm.
_OPENING_MM = 3.0
#: Share of the picture's variance that lies between its dark and its bright part; noise alone has 2/pi = 0.64.
_CLEAR = 0.7
#: Length over width of a mouse's trunk, head up, where no single animal on the stage shows it.
_TRUNK_RATIO = 2.2
#: How far the found edge of a body may be off (shaded flanks, fur), in mm.
_OUTLINE_MM = 1.0
#: Trunk area of a mouse seen from above or below, in cm2; generous on both sides.
_BODY_CM2 = (3.0, 80.0)
#: The same without a pixel size: share of the field of view.
_BODY_SHARE = (0.005, 0.5)
#: Touching organs: points of the outline between which cuts are tried, and the relative width that is no waist.
_CUT_POINTS, _NO_WAIST = 120, 0.9


def _picture(scan: Scan) -> tuple[FloatArray, str]:
    """Return the sharpest picture of the scene, scaled to 0..1 at its 99.5 % level, and its name."""
    if scan.photograph is not None:
        image, name = scan.photograph.astype(float), "photograph"
    else:
        image, name = scan.signal().reshape(-1, *scan.plane_shape).mean(axis=0), "signal"
        image = np.sqrt(np.maximum(image - np.median(image), 0.0))
    low, high = np.percentile(image, [1, 99.5])
    return np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0), name


def segment_body(scan: Scan, expected: int | None = None) -> OrganMap:
    """Find the animals of a scan, separate touching ones, and number them from left to right.

    Parameters
    ----------
    scan : with a photograph, else its signal is used.
    expected : number of animals on the stage, when known; another number found is an error.

    Returns
    -------
    OrganMap : on the scan's grid, with `animal_1`, `animal_2`, ... from left to right.

    Raises
    ------
    ValueError : no animal, or not the expected number.

    Examples
    --------
    >>> photo = np.zeros((60, 60)); photo[10:50, 8:22] = 1; photo[10:50, 34:50] = 1
    >>> scan = Scan("stage", None, np.zeros((30, 30)), "YX", photograph=photo)
    >>> segment_body(scan).organs
    ('animal_1', 'animal_2')
    """
    picture, name = _picture(scan)
    pixel_mm = _pixel_mm(scan, picture.shape)
    smooth = _lifted(picture, pixel_mm)
    if _separation(smooth) < _CLEAR:
        raise ValueError(f"nothing stands out in the {name} of {scan.name}; give a photograph, or a label image in the "
                         "column organs")  # fmt: skip
    bright = smooth > _half_height(smooth)
    radius = max(1, round((_OPENING_MM / pixel_mm) if pixel_mm else 0.012 * picture.shape[1]))
    trunk = ndimage.binary_fill_holes(isotropic_opening(bright, radius))
    pieces = measure.label(trunk)
    keep = [p for p in measure.regionprops(pieces) if _is_body(p.area, p.bbox, picture.shape, pixel_mm)]
    bodies = np.zeros(picture.shape, np.int32)
    for number, piece in enumerate(keep, 1):
        bodies[pieces == piece.label] = number
    bodies = _split(bodies, expected)
    bodies = _left_to_right(bodies)
    count = int(bodies.max())
    if count == 0:
        raise ValueError(f"no animal was found in the {name} of {scan.name}; give a label image in the column organs")
    if expected is not None and count != expected:
        raise ValueError(f"{count} animals were found in the {name} of {scan.name}, {expected} subjects are listed; "
                         "list them from left to right, or give a label image in the column organs")  # fmt: skip
    names = {i: f"animal_{i}" for i in range(1, count + 1)}
    return OrganMap(bodies, names, f"animals found in the {name}", _OUTLINE_MM / pixel_mm if pixel_mm else 1.0).resized(
        scan.plane_shape
    )


def bright_parts(scan: Scan, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return what is bright in a scan's photograph (or signal) on a grid over the same field of view.

    Bodies with their limbs and tails, and whatever else is bright, before anything is chosen or cut off.
    """
    picture, _ = _picture(scan)
    smooth = _lifted(picture, _pixel_mm(scan, picture.shape))
    places = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, picture.shape, strict=True))
    return np.asarray((smooth > _half_height(smooth))[np.ix_(*places)])


def _lifted(picture: FloatArray, pixel_mm: float | None) -> FloatArray:
    """Return a smooth picture; the square root lifts the shaded flanks of a body, lit from above, over the stage."""
    return np.asarray(filters.gaussian(np.sqrt(picture), 1.0 if pixel_mm is None else max(1.0, 0.6 / pixel_mm)))


def _half_height(image: FloatArray) -> float:
    """Return the level midway between the two classes that Otsu's threshold tells apart.

    Otsu's own level can lie anywhere in the gap between them; at half height an edge stays where it is
    under blur.
    """
    first = filters.threshold_otsu(image)
    return float((image[image <= first].mean() + image[image > first].mean()) / 2)


def _separation(image: FloatArray) -> float:
    """Return the share of an image's variance that lies between its two classes (Otsu 1979, eq. 22)."""
    level = filters.threshold_otsu(image)
    low, high = image[image <= level], image[image > level]
    share = high.size / image.size
    return float(share * (1 - share) * (high.mean() - low.mean()) ** 2 / max(float(image.var()), 1e-300))


def _pixel_mm(scan: Scan, shape: tuple[int, ...]) -> float | None:
    if scan.pixel_size_mm is None:
        return None
    return scan.pixel_size_mm[1] * scan.plane_shape[1] / shape[1]


def _is_body(area: float, box: Sequence[int], shape: tuple[int, ...], pixel_mm: float | None) -> bool:
    """A body has a mouse's area and does not run along the whole width of the frame, as equipment does."""
    if box[3] - box[1] > 0.8 * shape[1]:
        return False
    if pixel_mm is None:
        low, high = (share * shape[0] * shape[1] for share in _BODY_SHARE)
    else:
        low, high = (cm2 * 100 / pixel_mm**2 for cm2 in _BODY_CM2)
    return low <= area <= high


def _split(bodies: NDArray[np.int32], expected: int | None) -> NDArray[np.int32]:
    """Split touching animals along the waist between the peaks of their distance to the edge.

    A piece is split when more are expected, or when it is much larger than the typical one. Animals lie flank
    to flank without a waist; they are then parted by their size and shape.
    """
    areas = np.bincount(bodies.ravel())[1:]
    if areas.size == 0:
        return bodies
    missing = 0 if expected is None else expected - areas.size
    typical = np.median(areas) if areas.size > 2 else areas.min()
    crowded = areas > 1.7 * typical
    if expected is None and not crowded.any():
        return bodies
    if expected is not None and missing <= 0:
        return bodies
    merged, top = bodies.copy(), int(areas.size)
    for index in np.argsort(areas)[::-1]:
        if expected is not None and missing <= 0:
            break
        if expected is None and not crowded[index]:
            continue
        region = bodies == index + 1
        parts = _watershed(region, 2 if expected is None else missing + 1)
        if parts.max() < 2 and (areas.size == 1 or areas[index] > 1.5 * typical):
            single = next((bodies == i + 1 for i in np.argsort(areas) if areas[i] < 1.3 * typical and i != index), None)
            parts = _by_shape(region, max(2, round(areas[index] / typical)) if single is not None else 2, single)
        for part in range(2, parts.max() + 1):
            top += 1
            merged[parts == part] = top
            missing -= 1
    return merged


def _watershed(region: NDArray[np.bool_], most: int) -> NDArray[np.int32]:
    distance = ndimage.distance_transform_edt(region)
    smooth = filters.gaussian(distance, 2)
    peaks = h_maxima(smooth, 0.1 * smooth.max())
    markers = measure.label(peaks.astype(bool) & region)
    heights = ndimage.maximum(distance, markers, index=np.arange(1, markers.max() + 1))
    chosen = np.argsort(heights)[::-1][:most] + 1
    markers = np.where(np.isin(markers, chosen), markers, 0)
    return np.asarray(segmentation.watershed(-smooth, measure.label(markers), mask=region), np.int32)


def _by_shape(region: NDArray[np.bool_], count: int, single: NDArray[np.bool_] | None) -> NDArray[np.int32]:
    """Part a region into so many animals of the shape of a single one, by k-means in that shape's own metric."""
    from scipy.cluster.vq import kmeans2

    metric = np.diag([_TRUNK_RATIO**2, 1.0]) if single is None else np.cov(np.argwhere(single).T)
    whitened = np.linalg.solve(np.linalg.cholesky(metric), np.argwhere(region).T).T
    _, parts = kmeans2(whitened, count, minit="++", seed=np.random.default_rng(0))
    labels = np.zeros(region.shape, np.int32)
    labels[region] = parts + 1
    return labels


def _left_to_right(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    props = sorted(measure.regionprops(labels), key=lambda p: p.centroid[1])
    table = np.zeros(int(labels.max()) + 1, np.int32)
    for number, p in enumerate(props, 1):
        table[p.label] = number
    return table[labels]


def segment_tray(
    scan: Scan, rows: Sequence[Sequence[str]] | None = None, organs: Sequence[str] | None = None
) -> OrganMap:
    """Find the organs on a tray and name them by the tray's layout, or by their size and shape.

    Parameters
    ----------
    scan : with a photograph of the tray, else its signal is used.
    rows : organ names as they lie, row by row from the top and left to right; a name may repeat
        (two kidneys are one organ).
    organs : instead of `rows`, the names in any order (repeated for pairs), where nobody knows how they lie.

    Returns
    -------
    OrganMap : on the scan's grid, with `confidence` in each name (touching organs count by the depth of their waist)
        and notes where sizes speak against the layout.

    Raises
    ------
    ValueError : neither layout nor names, or both; another number of pieces, or rows that overlap.

    Examples
    --------
    >>> photo = np.zeros((40, 60)); photo[4:14, 5:20] = 1; photo[5:12, 35:50] = 1; photo[24:36, 20:40] = 1
    >>> scan = Scan("tray", None, np.zeros((40, 60)), "YX", photograph=photo)
    >>> segment_tray(scan, [["liver", "brain"], ["lung"]]).areas()
    {'liver': 150, 'brain': 105, 'lung': 240}
    """
    if rows and organs:
        raise ValueError("the tray has both a layout and a list of organs; give one of them")
    wanted = [name for row in rows for name in row] if rows else list(organs or ())
    if not wanted:
        raise ValueError("the layout of the tray is not known; give [imaging] tray = [[...], ...] or a label image")
    picture, name = _picture(scan)
    smooth = filters.gaussian(picture, 1.0)
    pieces = measure.label(smooth > _half_height(smooth))
    areas = np.bincount(pieces.ravel())[1:]
    small = max(9.0, 0.1 * float(np.median(np.sort(areas)[::-1][: len(wanted)]))) if areas.size else 0.0
    pieces = np.where(np.isin(pieces, np.flatnonzero(areas >= small) + 1), pieces, 0)
    pieces, depths = _split_at_waists(_numbered(pieces), len(wanted), small)
    count = int(pieces.max())
    if count != len(wanted):
        said = "layout" if rows else "list of organs"
        raise ValueError(f"{count} pieces were found in the {name} of {scan.name}, the tray's {said} has "
                         f"{len(wanted)} ({', '.join(wanted)}); correct the {said} or give a label image")  # fmt: skip
    naming = name_by_layout(pieces, rows, scan.name) if rows else name_by_shape(pieces, wanted)
    place = np.argsort([0, *naming.order])  # the name's number of each piece
    confidence = dict(naming.confidence)
    for organ, piece in zip(wanted, naming.order, strict=True):
        confidence[organ] = min(confidence[organ], depths.get(piece, 1.0))
    return OrganMap(
        np.asarray(place[pieces], np.int32),
        dict(enumerate(wanted, 1)),
        f"tray segmentation of the {name}",
        notes=naming.notes,
        confidence=confidence,
    ).resized(scan.plane_shape)


def _numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels without gaps in their numbers."""
    return np.asarray(np.unique(labels, return_inverse=True)[1].reshape(labels.shape), np.int32)


def _split_at_waists(
    pieces: NDArray[np.int32], expected: int, least: float
) -> tuple[NDArray[np.int32], dict[int, float]]:
    """Part touching organs where their waist is deepest until there are as many pieces as expected.

    Returns
    -------
    pieces : numbered from 1.
    sure : for pieces that were parted, how sure that is.
    """
    sure: dict[int, float] = {}
    while 0 < pieces.max() < expected:
        number, parts, width = min((_waist(pieces, n, least) for n in range(1, pieces.max() + 1)), key=lambda w: w[2])
        if width > _NO_WAIST:
            break
        fresh = int(pieces.max()) + 1
        pieces = np.where(parts == 2, fresh, pieces)
        sure[number] = sure[fresh] = min(sure.get(number, 1.0), _sure_of_waist(width))
    return pieces, sure


def _waist(pieces: NDArray[np.int32], number: int, least: float) -> tuple[int, NDArray[np.int32], float]:
    """Return the best cut of one piece in two, and how narrow it is.

    The cut is the straight line between two points of the outline that is shortest for the smaller of the parts it
    leaves. Its width is its length over the diameter of a disc of that part's area, and over the same for an ellipse
    as long as the piece: an ellipse has a waist of 1 or more, two touching discs one near 0.

    Returns
    -------
    number : as given.
    parts : 1 and 2, 0 elsewhere, in the shape of `pieces`.
    width : of the waist; infinite where no cut leaves two parts of at least `least` pixels.
    """
    box = ndimage.find_objects(pieces)[number - 1]
    region = np.pad(pieces[box] == number, 1)
    outline = max(measure.find_contours(region.astype(float), 0.5), key=len)[:-1]
    outline = outline[:: max(1, len(outline) // _CUT_POINTS)]
    shape = measure.regionprops(region.astype(int))[0]
    # an ellipse cut in the middle: 2 b over the diameter of a disc of area pi a b / 2
    plain = min(1.0, (2 * shape.axis_minor_length / shape.axis_major_length) ** 0.5)
    parts = np.zeros_like(pieces)
    for first, second, width in _cuts(outline, least):
        along = np.linspace(outline[first], outline[second], 50)[1:-1]
        if ndimage.map_coordinates(region.astype(float), along.T, order=1).min() > 0.4:
            inner = measure.grid_points_in_poly(region.shape, outline[first : second + 1])
            parts[box] = np.where(region, np.where(inner, 2, 1), 0)[1:-1, 1:-1]
            return number, parts, width / plain
    return number, parts, np.inf


def _cuts(outline: FloatArray, least: float) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of points of a closed outline as cuts, the relatively narrowest first."""
    y, x = outline.T
    following = np.roll(outline, -1, axis=0)
    swept = np.concatenate([[0.0], np.cumsum(y * following[:, 1] - x * following[:, 0])])
    total = abs(swept[-1]) / 2
    first, second = np.triu_indices(len(outline), 2)
    area = np.abs(swept[second] - swept[first] + y[second] * x[first] - x[second] * y[first]) / 2
    area = np.minimum(area, total - area)
    length = np.hypot(y[second] - y[first], x[second] - x[first])
    width = np.where(area >= least, length / np.sqrt(4 * np.maximum(area, 1e-9) / np.pi), np.inf)
    for index in np.argsort(width)[:500]:
        if np.isfinite(width[index]):
            yield int(first[index]), int(second[index]), float(width[index])


def _sure_of_waist(width: float) -> float:
    """Return how sure a cut is by the width of its waist, as measured on simulated trays."""
    return float(0.97 / (1 + np.exp((width - 0.95) / 0.08)))
