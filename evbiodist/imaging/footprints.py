"""Footprints: the expected image of one unit of activity in an organ. A method is a footprint.

Footprints have unit sum, so the estimator's answer is the organ's total signal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import FloatArray

#: Standard deviation of the blur in pixels: one number, or one per axis in the order of the image's axes.
Blur = float | Sequence[float]
Box = tuple[slice, ...]

#: Pixels nearer to an organ than this many are neither organ nor background for ROI footprints.
_GUARD_PX = 3.5
#: How far from an organ such pixels can lie along an axis.
GUARD_REACH = int(_GUARD_PX) + 1
#: Blur is followed this many standard deviations far.
_TRUNCATE = 6.0


@dataclass(frozen=True)
class FootprintKind:
    """A kind of footprint.

    Parameters
    ----------
    name, description : for settings and docs.
    build : (organ map, blur in px) to footprints (n_organs, Y, X) or (n_organs, Z, Y, X).
    weighting : `uniform` where the footprint claims nothing about the shape inside an organ, so that the
        estimate stays the plain sum; `noise` where it does.
    blurred : whether the blur matters to it.
    """

    name: str
    description: str
    build: Callable[[OrganMap, Blur], FloatArray]
    weighting: Literal["uniform", "noise"]
    blurred: bool = False

    def sparse(self, organs: OrganMap, blur_px: Blur = 0.0) -> Any:
        """Return the same footprints as a scipy CSR array (n_organs, pixels), for volumes that are mostly empty."""
        return _sparse(organs, blur_px if self.blurred else 0.0)


def roi_footprints(organs: OrganMap, blur_px: Blur = 0.0) -> FloatArray:
    """Return each organ's share of every pixel over its sum, shape (n_organs, Y, X) or (n_organs, Z, Y, X).

    Raises
    ------
    ValueError : an organ whose shares are all zero.

    Examples
    --------
    >>> roi_footprints(OrganMap(np.array([[1, 1, 0, 2]]), {1: "a", 2: "b"}, "label image"))[0]
    array([[0.5, 0.5, 0. , 0. ]])
    """
    return _dense(organs, 0.0)


def psf_footprints(organs: OrganMap, blur_px: Blur) -> FloatArray:
    """Return organs of unit sum blurred by a Gaussian point spread function, shape (n_organs, Y, X) or with Z.

    Blur beyond the image's edge is lost light, so a footprint at the edge sums to less than one.

    Parameters
    ----------
    organs : in or out, or shares of pixels.
    blur_px : standard deviation in px, one number or one per axis.

    Raises
    ------
    ValueError : an organ whose shares are all zero, or a blur that does not fit the axes.

    Examples
    --------
    >>> labels = np.zeros((9, 41), int); labels[4, 20] = 1
    >>> spot = psf_footprints(OrganMap(labels, {1: "a"}, "label image"), (0.5, 3.0))[0]
    >>> round(float(spot.sum()), 6), int((spot[:, 20] > 1e-3).sum()), int((spot[4] > 1e-3).sum())
    (1.0, 3, 19)

    Rousset 1998 (J Nucl Med 39:904): the geometric transfer matrix.
    """
    return _dense(organs, blur_px)


FOOTPRINTS: dict[str, FootprintKind] = {
    kind.name: kind
    for kind in (
        FootprintKind("roi", "plain sum over the organ's pixels, less background", roi_footprints, "uniform"),
        FootprintKind("psf", "organ outline blurred by the optics; unmixes spill-over between organs", psf_footprints,
                      "noise", blurred=True),
    )
}  # fmt: skip


def organ_pixels(organs: OrganMap) -> NDArray[np.bool_]:
    """Return the pixels of which any organ has a share, in the shape of the labels."""
    inside = organs.labels > 0
    return inside if organs.fractions is None else np.asarray(inside | (organs.fractions > 0).any(axis=0))


def guard_band(organs: OrganMap) -> NDArray[np.bool_]:
    """Return the pixels just outside organs, where spilled light is neither organ nor background.

    Examples
    --------
    >>> labels = np.zeros((1, 12), int); labels[0, :2] = 1
    >>> guard_band(OrganMap(labels, {1: "a"}, "label image")).astype(int)
    array([[0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]])
    """
    inside = organ_pixels(organs)
    close = np.zeros_like(inside)
    values = organs.labels if organs.fractions is None else inside.astype(np.uint8)
    for box in ndimage.find_objects(values):
        if box is not None:
            wide = _widened(box, (GUARD_REACH,) * inside.ndim, inside.shape)
            close[wide] |= near(inside[wide])
    return np.asarray(close & ~inside)


def near(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels inside of organs or nearer to one than the guard band reaches.

    A ball is lines side by side, so that few shifts serve for all its pixels.

    Examples
    --------
    >>> near(np.array([[False, False, False, False, True]])).astype(int)
    array([[0, 1, 1, 1, 1]])
    """
    reach = int(_GUARD_PX)
    lines = [inside]
    for w in range(1, reach + 1):
        line = lines[-1].copy()
        line[..., w:] |= inside[..., :-w]
        line[..., :-w] |= inside[..., w:]
        lines.append(line)
    found = np.zeros_like(inside)
    for offset in itertools.product(range(-reach, reach + 1), repeat=inside.ndim - 1):
        left = _GUARD_PX**2 - sum(d * d for d in offset)
        if left >= 0:
            to = tuple(slice(max(d, 0), max(n + d, 0)) for d, n in zip(offset, inside.shape, strict=False))
            of = tuple(slice(max(-d, 0), max(n - d, 0)) for d, n in zip(offset, inside.shape, strict=False))
            found[to] |= lines[int(left**0.5)][of]
    return found


def reach_of(blur_px: Blur, axes: int) -> tuple[int, ...]:
    """Return how far a blur is followed along each axis, in pixels."""
    return tuple(int(_TRUNCATE * s + 0.5) for s in np.broadcast_to(np.asarray(blur_px, dtype=float), (axes,)))


def blurred(image: NDArray[Any], blur_px: Blur) -> FloatArray:
    """Return an image blurred by a Gaussian, beyond whose edges there is nothing."""
    sigma = np.broadcast_to(np.asarray(blur_px, dtype=float), (image.ndim,))
    return np.asarray(
        ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="constant", truncate=_TRUNCATE), np.float64
    )


def _patches(organs: OrganMap, blur_px: Blur) -> Iterator[tuple[Box, FloatArray]]:
    """Yield where each organ's footprint lies and what it is there; it is zero elsewhere."""
    shape = organs.labels.shape
    reach = reach_of(blur_px, len(shape))
    boxes = ndimage.find_objects(organs.labels)
    for i, organ in enumerate(organs.organs):
        values = [value for value, name in organs.names.items() if name == organ]
        if organs.fractions is None:
            core = _around([boxes[v - 1] for v in values if v <= len(boxes) and boxes[v - 1] is not None])
        else:
            core = _around(ndimage.find_objects((organs.fractions[i] > 0).astype(np.uint8)))
        if not core:
            raise ValueError(f"{organ} has no share of any pixel of the {organs.origin}; leave it out or draw it")
        box = _widened(core, reach, shape)
        share = np.isin(organs.labels[box], values) if organs.fractions is None else organs.fractions[i][box]
        unit = share / share.sum()
        yield box, blurred(unit, blur_px) if any(reach) else unit


def _dense(organs: OrganMap, blur_px: Blur) -> FloatArray:
    stack = np.zeros((len(organs.organs), *organs.labels.shape))
    for footprint, (box, values) in zip(stack, _patches(organs, blur_px), strict=True):
        footprint[box] = values
    return stack


def _sparse(organs: OrganMap, blur_px: Blur) -> Any:
    from scipy.sparse import csr_array

    shape = organs.labels.shape
    data, columns = [], []
    for box, values in _patches(organs, blur_px):
        at = np.nonzero(values)
        data.append(values[at])
        columns.append(np.ravel_multi_index(tuple(a + b.start for a, b in zip(at, box, strict=True)), shape))
    ends = np.cumsum([0, *(len(d) for d in data)])
    return csr_array((np.concatenate(data), np.concatenate(columns), ends), shape=(len(data), organs.labels.size))


def _around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds several."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))


def _widened(box: Box, by: Sequence[int], shape: Sequence[int]) -> Box:
    return tuple(slice(max(s.start - n, 0), min(s.stop + n, m)) for s, n, m in zip(box, by, shape, strict=True))
