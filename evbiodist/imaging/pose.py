"""How an animal lies: the line from snout to rump, how wide the body is along it, and which end is the head.

Measured from its outline alone, so that organs can be looked up by their place along and across the body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline
from skimage import measure
from skimage.morphology import isotropic_opening

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.segment import bright_parts
from evbiodist.io.scan import Scan

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Side = Literal["top", "bottom", "left", "right"]

#: Points along the centreline.
_POINTS = 101
#: Limbs and ears are bumps of the outline shorter than this share of the body.
_BUMP = 0.11
#: What an opening by this share of the largest inscribed radius removes is a tail, or the tip of the snout.
_THIN = 0.2
#: Step in which the body is cut across, in px.
_STEP = 0.25
#: Degree of the polynomial in which the centreline is smooth: a bent body, but no zigzag.
_DEGREE = 3
#: Weights of the evidence on head and tail in the logarithm of the odds: haunch over neck (logarithm), tail (body
#: lengths), nose cone (cosine). The first was fitted to simulated bodies, a part of them with a hidden snout.
_WEIGHTS = (8.0, 8.0, 4.0)
#: Certainty that the outline alone can never exceed.
_MOST = 0.995
#: From here on the head end is called sure.
SURE = 0.8
#: How far beyond snout and rump, and beyond the flanks, coordinates reach, in lengths and half widths.
_BEYOND, _BESIDE = 0.1, 1.6

_SIDES: dict[str, tuple[float, float]] = {"top": (-1, 0), "bottom": (1, 0), "left": (0, -1), "right": (0, 1)}


@dataclass(frozen=True, eq=False)
class BodyPose:
    """The centreline of one animal and its half widths, on a pixel grid with whole numbers at pixel centres.

    The heading h = (h_y, h_x) points from rump to snout. Left is (-h_x, h_y) as (y, x): left of a traveller
    who goes that way over the image, whose y axis points down. It is the animal's own left where its back is seen.

    Parameters
    ----------
    animal : its name in the organ map.
    centreline_px : (M, 2) points (y, x) from snout to rump (base of the tail), evenly spaced along the arc.
    half_width_px : (M, 2) distance from the centreline to the outline, left and right, limbs and ears left out.
    length_px : length of the centreline.
    head_confidence : 0.5 to 1, how sure it is that the snout is the snout.
    bend : angle in rad by which the heading turns from rump to snout, positive to the left.
    flags : words of `evbiodist.study.flags.FLAGS`.
    notes : sentences for people.
    """

    animal: str
    centreline_px: FloatArray
    half_width_px: FloatArray
    length_px: float
    head_confidence: float
    bend: float
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def coordinates(self, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Return the place of every pixel of an image along and across the body.

        Parameters
        ----------
        shape : (Y, X) of an image on the pose's pixel grid.

        Returns
        -------
        s : (Y, X), 0 at the snout to 1 at the rump, and up to a tenth beyond either end; NaN far from the body.
        u : (Y, X), distance from the centreline in pixels, positive to the left; NaN where `s` is.

        Examples
        --------
        >>> line = np.column_stack([np.linspace(10, 50, 101), np.full(101, 20.0)])
        >>> pose = BodyPose("animal_1", line, np.full((101, 2), 8.0), 40.0, 1.0, 0.0)
        >>> s, u = pose.coordinates((60, 40))
        >>> print(s[30, 16].round(6), u[30, 16].round(6))
        0.5 4.0
        """
        knots, line = self._extended()
        spots = _near(line(knots), shape, _BESIDE * float(self.half_width_px.max()))
        s, u = np.full(shape, np.nan), np.full(shape, np.nan)
        points = np.argwhere(spots)
        if points.size == 0:
            return s, u
        place = _closest(line, points.astype(float), knots)
        offset = points - line(place)
        left = _left(line(place, 1))
        across = np.sum(offset * left, axis=1)
        seen = (place >= -_BEYOND) & (place <= 1 + _BEYOND)
        seen &= np.abs(across) <= _BESIDE * float(self.half_width_px.max())
        s[spots], u[spots] = np.where(seen, place, np.nan), np.where(seen, across, np.nan)
        return s, u

    def scaled(self, factor: float) -> BodyPose:
        """Return the pose on another pixel grid over the same field of view, `factor` times as many pixels a side.

        Raises
        ------
        ValueError : a factor that is not above 0.

        Examples
        --------
        >>> line = np.column_stack([np.linspace(10, 50, 101), np.full(101, 20.0)])
        >>> BodyPose("animal_1", line, np.full((101, 2), 8.0), 40.0, 1.0, 0.0).scaled(2).length_px
        80.0
        """
        if not factor > 0:
            raise ValueError(f"the scale factor is {factor:g}; expected a number above 0")
        return replace(
            self,
            centreline_px=(self.centreline_px + 0.5) * factor - 0.5,
            half_width_px=self.half_width_px * factor,
            length_px=self.length_px * factor,
        )

    def _extended(self) -> tuple[FloatArray, CubicSpline]:
        """Return the centreline as a spline over s, carried straight on beyond both ends."""
        reach = 2 * _BEYOND
        step = np.diff(self.centreline_px, axis=0)
        near = max(2, len(step) // 20)
        first, last = step[:near].mean(axis=0), step[-near:].mean(axis=0)
        count = round(reach * len(step))
        out = np.arange(1, count + 1)[:, None]
        points = np.vstack(
            [self.centreline_px[0] - out[::-1] * first, self.centreline_px, self.centreline_px[-1] + out * last]
        )
        knots = np.arange(-count, len(self.centreline_px) + count) / len(step)
        return knots, CubicSpline(knots, points)


def find_pose(
    bodies: OrganMap, animal: str = "animal_1", scan: Scan | None = None, nose_cone: Side | None = None
) -> BodyPose:
    """Find how an animal lies from its outline.

    The centreline runs midway between the flanks, smoothed by a polynomial. The head is the end towards which
    the body narrows, away from the tail; with a photograph a tail is seen even where the outline leaves it out.
    Whether the back or the belly is seen is not told: an outline does not show it.

    Parameters
    ----------
    bodies : outlines of the animals, shape (Y, X), as `segment_body` gives them.
    animal : which one.
    scan : the scan of the outlines, to look for tails in its photograph.
    nose_cone : the side of the image where the nose cones are, when known.

    Returns
    -------
    BodyPose : on the grid of `bodies`.

    Raises
    ------
    ValueError : no such animal, a volume, a nose cone on no side, or an outline too small or round to have a length.

    Examples
    --------
    >>> y, x = np.mgrid[:100, :60]
    >>> half = np.interp(y, [10, 30, 70, 90], [2, 9, 15, 5]) * ((y >= 10) & (y <= 90))
    >>> bodies = OrganMap((abs(x - 30) < half).astype(np.int32), {1: "animal_1"}, "drawn")
    >>> pose = find_pose(bodies)
    >>> pose.centreline_px[[0, -1]].round().astype(int).tolist(), pose.head_confidence > 0.9
    ([[10, 30], [90, 30]], True)
    """
    mask = _outline(bodies, animal, nose_cone)
    box = ndimage.find_objects(mask.astype(int))[0]
    trunk = np.zeros_like(mask)
    trunk[box] = _trunk(mask[box])
    line, half = _midline(trunk[box], f"{animal} of the {bodies.origin}")
    line += [part.start for part in box]
    tails, seen_in = _tails(bodies, animal, trunk, line, scan)
    odds, notes = _head_odds(line, half, tails, seen_in, nose_cone)
    if odds < 0:
        line, half = line[::-1], half[::-1, ::-1]
    sure = min(_MOST, float(1 / (1 + np.exp(-abs(odds)))))
    if sure < SURE:
        notes += (f"which end of {animal} is the head is not sure ({sure:.2f}); give the side of the nose cones",)
    length = float(np.hypot(*np.diff(line, axis=0).T).sum())
    flags = ("uncertain_head",) if sure < SURE else ()
    return BodyPose(animal, line.copy(), half.copy(), length, sure, _bend(line), flags, notes)


def _outline(bodies: OrganMap, animal: str, nose_cone: str | None) -> BoolArray:
    """Return the largest piece of an animal, without holes, with a free margin on every side."""
    if bodies.labels.ndim != 2:
        raise ValueError(f"the {bodies.origin} is a volume; a pose is found in an image (Y, X)")
    if animal not in bodies.organs:
        raise ValueError(f"the {bodies.origin} has no {animal}; it has {', '.join(bodies.organs)}")
    if nose_cone is not None and nose_cone not in _SIDES:
        raise ValueError(f"the nose cones are at '{nose_cone}'; expected {', '.join(_SIDES)}")
    return _largest(ndimage.binary_fill_holes(bodies.mask(animal)))


def _largest(mask: BoolArray) -> BoolArray:
    pieces = measure.label(mask)
    return np.asarray(pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1)


def _depth(mask: BoolArray) -> FloatArray:
    """Return every pixel's distance to the outside, which begins beyond the frame too."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1])


def _trunk(mask: BoolArray) -> BoolArray:
    """Return the body without its tail: thin parts go, the tip of the snout stays."""
    radius = max(1.0, _THIN * float(_depth(mask).max()))
    thick = isotropic_opening(np.pad(mask, int(radius) + 2), radius)[(slice(int(radius) + 2, -int(radius) - 2),) * 2]
    if not thick.any():
        return mask
    thick = _largest(thick)
    thin = measure.label(mask & ~thick)
    reach = ndimage.distance_transform_edt(~thick)
    short = [p.label for p in measure.regionprops(thin, intensity_image=reach) if p.intensity_max <= 2 * radius]
    return _largest(thick | np.isin(thin, short))


def _midline(trunk: BoolArray, who: str) -> tuple[FloatArray, FloatArray]:
    """Return evenly spaced points midway between the flanks, and the half widths there; the ends in no order."""
    points = np.argwhere(trunk).astype(float)
    if len(points) < 50:
        raise ValueError(f"{who} covers {len(points)} pixels; a pose needs at least 50")
    spread, axes = np.linalg.eigh(np.cov(points.T))
    if spread[1] < 1.5**2 * spread[0]:
        raise ValueError(f"{who} is {np.sqrt(spread[1] / spread[0]):.2g} times as long as wide; an animal that lies "
                         "stretched is at least 1.5 times; draw a label image of the trunk alone")  # fmt: skip
    along = (points - points.mean(axis=0)) @ axes[:, 1]
    line = points.mean(axis=0) + np.linspace(along.min(), along.max(), _POINTS)[:, None] * axes[:, 1]
    soft = np.pad(trunk, 1).astype(float)
    widest = 2 * float(_depth(trunk).max())
    for _ in range(8):
        half = _without_bumps(_half_widths(soft, line, widest))
        middle = line + _left(_slope(line)) * ((half[:, 0] - half[:, 1]) / 2)[:, None]
        line = _to_the_ends(soft, _smooth(middle, half))
    return line, _without_bumps(_half_widths(soft, line, widest))


def _slope(line: FloatArray) -> FloatArray:
    return np.asarray(np.gradient(line, axis=0))


def _left(slope: FloatArray) -> FloatArray:
    """Return unit vectors to the left of the heading; the slope points from snout to rump, against the heading."""
    turned = np.stack([slope[..., 1], -slope[..., 0]], axis=-1)
    return np.asarray(turned / np.maximum(np.hypot(slope[..., 0], slope[..., 1]), 1e-12)[..., None])


def _half_widths(soft: FloatArray, line: FloatArray, widest: float) -> FloatArray:
    """Return how far the body reaches to the left and right of each point, in parts of a pixel; (M, 2).

    From a point outside, the body begins at its near edge: the far side is positive, the near side negative.
    """
    left = _left(_slope(line))
    u = np.arange(-widest, widest + _STEP, _STEP)
    cuts = line[:, None] + u[None, :, None] * left[:, None]
    inside = np.asarray(ndimage.map_coordinates(soft, np.moveaxis(cuts + 1, -1, 0), order=1) > 0.5)
    index = np.arange(u.size)
    centre = np.argmin(np.where(inside, np.abs(u), np.inf), axis=1)[:, None]
    low = np.max(np.where(~inside & (index < centre), index, -1), axis=1) + 1
    high = np.min(np.where(~inside & (index > centre), index, u.size), axis=1) - 1
    half = np.column_stack([u[high] + _STEP / 2, _STEP / 2 - u[low]])
    return np.asarray(np.where(inside.any(axis=1, keepdims=True), half, 0.0))


def _without_bumps(half: FloatArray) -> FloatArray:
    """Return the half widths without limbs and ears, which are bumps shorter than a share of the body."""
    size = 2 * round(_BUMP * len(half) / 2) + 1
    return np.asarray(ndimage.grey_opening(half, size=(size, 1), mode="nearest"))


def _smooth(points: FloatArray, half: FloatArray) -> FloatArray:
    """Return points on a polynomial through the given ones.

    A cut closer to an end than the body is wide runs through the rounded end, whose middle says little.
    """
    step = np.hypot(*np.diff(points, axis=0).T).mean()
    from_end = step * np.minimum(np.arange(len(points)), np.arange(len(points))[::-1])
    weight = np.clip(from_end / np.maximum(half.max(axis=1), 1e-9), 0, 1) + 1e-3
    t = np.linspace(-1, 1, len(points))
    fit = np.polynomial.legendre.legfit(t, points, _DEGREE, w=weight)
    return np.asarray(np.polynomial.legendre.legval(t, fit).T)


def _to_the_ends(soft: FloatArray, line: FloatArray) -> FloatArray:
    """Carry a line straight on, or cut it, to where it leaves the body; evenly spaced."""
    near = max(2, len(line) // 12)
    step = float(np.hypot(*np.diff(line, axis=0).T).mean())
    reach = np.arange(1, len(line) // 3)[:, None]
    ends = []
    for end, before in ((line[0], line[near]), (line[-1], line[-1 - near])):
        ends.append(end + reach * step * (end - before) / max(float(np.hypot(*(end - before))), 1e-9))
    long = _even(np.vstack([ends[0][::-1], line, ends[1]]), 8 * _POINTS)
    inside = ndimage.map_coordinates(soft, (long + 1).T, order=1) > 0.5
    runs, count = ndimage.label(inside)
    if count == 0:
        return line
    kept = np.flatnonzero(runs == np.argmax(np.bincount(runs)[1:]) + 1)
    return _even(long[kept[0] : kept[-1] + 1], _POINTS)


def _even(line: FloatArray, count: int) -> FloatArray:
    """Return points evenly spaced along the arc of a line."""
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    return np.column_stack([np.interp(np.linspace(0, arc[-1], count), arc, column) for column in line.T])


def _bend(line: FloatArray) -> float:
    """Return the angle by which the heading turns from rump to snout, positive to the left."""
    heading = -_slope(line)
    angle = np.unwrap(np.arctan2(-heading[:, 0], heading[:, 1]))  # counter-clockwise as seen, for y points down
    return float(angle[0] - angle[-1])


def _tails(
    bodies: OrganMap, animal: str, trunk: BoolArray, line: FloatArray, scan: Scan | None
) -> tuple[tuple[float, float], str]:
    """Return how far a thin part reaches beyond the first and the last end, in body lengths, and where it was seen."""
    length = float(np.hypot(*np.diff(line, axis=0).T).sum())
    radius = float(_depth(trunk).max())
    seen, where = bodies.mask(animal), "outline"
    if scan is not None and scan.photograph is not None:
        seen, where = seen | (bright_parts(scan, bodies.labels.shape) & (bodies.labels == 0)), "photograph"
    from_trunk = ndimage.distance_transform_edt(~trunk)
    pieces = measure.label(seen & ~trunk)
    reach = [0.0, 0.0]
    for piece in measure.regionprops(pieces, intensity_image=from_trunk):
        thick = _depth(np.asarray(piece.image)).max()
        if piece.intensity_min > 2 or thick > 0.35 * radius or piece.intensity_max < 5 * thick:
            continue
        places = piece.coords[from_trunk[tuple(piece.coords.T)] <= 2]
        gaps = [float(np.hypot(*(places - end).T).min()) for end in (line[0], line[-1])]
        end = int(np.argmin(gaps))
        if gaps[end] < radius:
            reach[end] = max(reach[end], min(1.0, float(piece.intensity_max) / length))
    return (reach[0], reach[1]), where


def _head_odds(
    line: FloatArray, half: FloatArray, tails: tuple[float, float], seen_in: str, nose_cone: str | None
) -> tuple[float, tuple[str, ...]]:
    """Return the logarithmic odds that the first end is the snout, and what they rest on."""
    width = half.sum(axis=1)
    fore, hind = (width[int(a * len(width)) : int(b * len(width))].mean() for a, b in ((0.1, 0.3), (0.7, 0.9)))
    notes = []
    if max(tails) > 0.25:
        notes.append(f"a tail was seen in the {seen_in}")
    towards = 0.0
    if nose_cone is not None:
        ahead = line[0] - line[-1]
        towards = float(ahead @ np.array(_SIDES[nose_cone]) / np.hypot(*ahead))
        notes.append(f"the nose cones are said to be at the {nose_cone}")
    evidence = (np.log(max(hind, 1e-9) / max(fore, 1e-9)), tails[1] - tails[0], towards)
    return float(np.dot(_WEIGHTS, evidence)), tuple(notes)


def _near(points: FloatArray, shape: tuple[int, int], distance: float) -> BoolArray:
    """Return the pixels of the box around some points."""
    low = np.maximum(np.floor(points.min(axis=0) - distance).astype(int), 0)
    high = np.maximum(np.ceil(points.max(axis=0) + distance).astype(int) + 1, 0)
    box = np.zeros(shape, bool)
    box[low[0] : high[0], low[1] : high[1]] = True
    return box


def _closest(line: CubicSpline, points: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the parameter of the nearest point of a spline: nearest knot first, then Newton's method."""
    from scipy.spatial import cKDTree

    place = knots[cKDTree(line(knots)).query(points)[1]]
    step = float(knots[1] - knots[0])
    for _ in range(4):
        offset, slope, turn = line(place) - points, line(place, 1), line(place, 2)
        downhill = np.sum(offset * slope, axis=1)
        curve = np.sum(slope**2, axis=1)
        curve = np.maximum(curve + np.sum(offset * turn, axis=1), 0.1 * curve)
        place = np.clip(place - np.clip(downhill / curve, -step, step), knots[0], knots[-1])
    return np.asarray(place)
