"""An organ map: which pixel belongs to which organ, and where that knowledge comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import segmentation

from evbiodist.study.vocabulary import organ_name


@dataclass(frozen=True, eq=False)
class OrganMap:
    """A label image with the names of its labels.

    Parameters
    ----------
    labels : integer array, shape (Y, X), or (Z, Y, X) for a volume; 0 is background.
    names : organ name of each pixel value.
    origin : how the map came about (`label image`, `tray segmentation`, ...).
    outline_px : how far the outline may be off, in pixels; 0 for one drawn by a person, who answers for it.
    notes : sentences for people.
    fractions : (n_organs, ...) share or probability of each organ in each pixel, in the order of `organs`; None
        where a pixel is in or out.
    confidence : 0 to 1 by organ name, how sure a segmentation is of the name; empty where a person drew.
    unresolved : pairs of organs whose light cannot be told apart.

    Raises
    ------
    ValueError : a pixel value without a name, no organ at all, or fractions that do not fit.

    Examples
    --------
    >>> OrganMap(np.array([[0, 1], [2, 2]]), {1: "liver", 2: "brain"}, "label image").areas()
    {'liver': 1, 'brain': 2}
    """

    labels: NDArray[np.int32]
    names: dict[int, str]
    origin: str
    outline_px: float = 0.0
    notes: tuple[str, ...] = ()
    fractions: NDArray[np.float64] | None = None
    confidence: Mapping[str, float] = field(default_factory=dict)
    unresolved: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        found = {int(v) for v in np.unique(self.labels) if v != 0}
        unnamed = sorted(found - set(self.names))
        if unnamed:
            raise ValueError(f"pixel values {unnamed} of the {self.origin} have no organ name; "
                             "name them under [imaging.organ_labels]")  # fmt: skip
        if not found:
            raise ValueError(f"the {self.origin} marks no organ; every pixel is 0")
        if self.fractions is not None and self.fractions.shape != (len(self.organs), *self.labels.shape):
            raise ValueError(f"the fractions of the {self.origin} have shape {self.fractions.shape}; expected "
                             f"{(len(self.organs), *self.labels.shape)}")  # fmt: skip

    @property
    def organs(self) -> tuple[str, ...]:
        """Organ names in the order of their pixel values, each once (two kidneys are one organ)."""
        present = {int(v) for v in np.unique(self.labels)}
        return tuple(dict.fromkeys(name for value, name in sorted(self.names.items()) if value in present))

    def mask(self, organ: str) -> NDArray[np.bool_]:
        """Return the pixels of one organ, in the shape of `labels`."""
        return np.isin(self.labels, [v for v, name in self.names.items() if name == organ])

    def share(self, organ: str) -> NDArray[np.float64]:
        """Return how much of each pixel belongs to an organ, 0 to 1, in the shape of `labels`."""
        if self.fractions is None:
            return self.mask(organ).astype(np.float64)
        return np.asarray(self.fractions[self.organs.index(organ)], dtype=np.float64)

    def areas(self) -> dict[str, int]:
        """Return the number of pixels of each organ."""
        return {organ: int(self.mask(organ).sum()) for organ in self.organs}

    def resized(self, shape: tuple[int, ...]) -> OrganMap:
        """Return the map on another grid over the same field of view (nearest pixel centre)."""
        if self.labels.shape == tuple(shape):
            return self
        if len(shape) != self.labels.ndim:
            raise ValueError(f"the {self.origin} has {self.labels.ndim} axes, the scan {len(shape)}")
        places = np.ix_(
            *(((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, self.labels.shape, strict=True))
        )
        shrunk = self.outline_px * shape[-1] / self.labels.shape[-1]
        fractions = None if self.fractions is None else np.stack([f[places] for f in self.fractions])
        return replace(self, labels=self.labels[places], outline_px=shrunk, fractions=fractions)

    def grown(self, pixels: int) -> OrganMap:
        """Return the map with every outline moved out (or, negative, in) by some pixels, organs kept apart."""
        if pixels >= 0:
            labels = segmentation.expand_labels(self.labels, pixels)
        else:
            depth = ndimage.distance_transform_edt(self.labels > 0)
            labels = np.where(depth > -pixels, self.labels, 0)
        return replace(self, labels=np.asarray(labels, np.int32), fractions=None)


def from_label_image(labels: NDArray[Any], names: dict[str, str], shape: tuple[int, ...]) -> OrganMap:
    """Turn a label image drawn in any tool into an organ map on the scan's grid.

    Parameters
    ----------
    labels : integer array, shape (Y, X) or (Z, Y, X); `shape` or a whole multiple of it.
    names : organ by pixel value as text, as in ``[imaging.organ_labels]``.
    shape : of one frame of the scan.

    Raises
    ------
    ValueError : values that are not whole, a shape that does not fit, or a value without a name.
    """
    array = np.asarray(labels)
    if array.ndim != len(shape):
        raise ValueError(
            f"the label image has shape {array.shape}; expected {'(Z, Y, X)' if len(shape) == 3 else '(Y, X)'}"
        )
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise ValueError("the label image holds fractions; expected whole numbers, 0 for background")
    if array.min() < 0 or array.max() >= 2**31:
        raise ValueError(f"the label image holds values from {array.min()} to {array.max()}; expected 0 for background and small "
                         "whole numbers for organs")  # fmt: skip
    ratios = {n / m for n, m in zip(array.shape, shape, strict=True)}
    if len(ratios) > 1 or next(iter(ratios)) % 1:
        raise ValueError(f"the label image is {array.shape}, the scan {shape}; draw it on the scan's own grid")
    table = {int(key): organ_name(name) for key, name in names.items()}
    return OrganMap(array.astype(np.int32), table, "label image").resized(shape)
