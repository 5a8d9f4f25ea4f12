"""Footprints: the expected image of one unit of activity in an organ. A method is a footprint.

Footprints have unit sum, so the estimator's answer is the organ's total signal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import FloatArray

#: Pixels nearer to an organ than this many are neither organ nor background for ROI footprints.
_GUARD_PX = 3


@dataclass(frozen=True)
class FootprintKind:
    """A kind of footprint.

    Parameters
    ----------
    name, description : for settings and docs.
    build : (organ map, blur in px) to footprints (n_organs, Y, X).
    weighting : `uniform` where the footprint claims nothing about the shape inside an organ, so that the
        estimate stays the plain sum; `noise` where it does.
    """

    name: str
    description: str
    build: Callable[[OrganMap, float], FloatArray]
    weighting: Literal["uniform", "noise"]


def roi_footprints(organs: OrganMap, blur_px: float = 0.0) -> FloatArray:
    """Return mask indicators over their area, shape (n_organs, Y, X).

    Examples
    --------
    >>> roi_footprints(OrganMap(np.array([[1, 1, 0, 2]]), {1: "a", 2: "b"}, "label image"))[0]
    array([[0.5, 0.5, 0. , 0. ]])
    """
    stack = np.stack([organs.mask(organ) for organ in organs.organs]).astype(np.float64)
    return np.asarray(stack / stack.sum(axis=(1, 2), keepdims=True))


def psf_footprints(organs: OrganMap, blur_px: float) -> FloatArray:
    """Return masks blurred by a Gaussian point spread function, shape (n_organs, Y, X).

    Blur beyond the image's edge is lost light, so a footprint at the edge sums to less than one.
    `blur_px` is the standard deviation. Rousset 1998 (J Nucl Med 39:904): the geometric transfer matrix.
    """
    sharp = roi_footprints(organs)
    return np.stack([ndimage.gaussian_filter(f, blur_px, mode="constant", truncate=6.0) for f in sharp])


FOOTPRINTS: dict[str, FootprintKind] = {
    kind.name: kind
    for kind in (
        FootprintKind("roi", "plain sum over the organ's pixels, less background", roi_footprints, "uniform"),
        FootprintKind("psf", "organ outline blurred by the optics; unmixes spill-over between organs", psf_footprints,
                      "noise"),
    )
}  # fmt: skip


def guard_band(organs: OrganMap) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return the pixels just outside organs, where spilled light is neither organ nor background."""
    inside = organs.labels > 0
    disk = np.hypot(*np.mgrid[-_GUARD_PX : _GUARD_PX + 1, -_GUARD_PX : _GUARD_PX + 1]) <= _GUARD_PX + 0.5
    return np.asarray(ndimage.binary_dilation(inside, disk) & ~inside)
