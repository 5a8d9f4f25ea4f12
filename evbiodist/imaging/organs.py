"""An organ map: which pixel belongs to which organ, and where that knowledge comes from."""

from __future__ import annotations

from dataclasses import dataclass
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
    labels : integer array, shape (Y, X); 0 is background.
    names : organ name of each pixel value.
    origin : how the map came about (`label image`, `tray segmentation`, ...).
    outline_px : how far the outline may be off, in pixels; 0 for one drawn by a person, who answers for it.
    notes : sentences for people.

    Raises
    ------
    ValueError : a pixel value without a name, or no organ at all.

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

    def __post_init__(self) -> None:
        found = {int(v) for v in np.unique(self.labels) if v != 0}
        unnamed = sorted(found - set(self.names))
        if unnamed:
            raise ValueError(f"pixel values {unnamed} of the {self.origin} have no organ name; "
                             "name them under [imaging.organ_labels]")  # fmt: skip
        if not found:
            raise ValueError(f"the {self.origin} marks no organ; every pixel is 0")

    @property
    def organs(self) -> tuple[str, ...]:
        """Organ names in the order of their pixel values, each once (two kidneys are one organ)."""
        present = {int(v) for v in np.unique(self.labels)}
        return tuple(dict.fromkeys(name for value, name in sorted(self.names.items()) if value in present))

    def mask(self, organ: str) -> NDArray[np.bool_]:
        """Return the pixels of one organ, shape (Y, X)."""
        return np.isin(self.labels, [v for v, name in self.names.items() if name == organ])

    def areas(self) -> dict[str, int]:
        """Return the number of pixels of each organ."""
        return {organ: int(self.mask(organ).sum()) for organ in self.organs}

    def resized(self, shape: tuple[int, int]) -> OrganMap:
        """Return the map on another grid over the same field of view (nearest pixel centre)."""
        if self.labels.shape == tuple(shape):
            return self
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int)
                         for n, m in zip(shape, self.labels.shape, strict=True))  # fmt: skip
        shrunk = self.outline_px * shape[1] / self.labels.shape[1]
        return OrganMap(self.labels[np.ix_(rows, columns)], self.names, self.origin, shrunk, self.notes)

    def grown(self, pixels: int) -> OrganMap:
        """Return the map with every outline moved out (or, negative, in) by some pixels, organs kept apart."""
        if pixels >= 0:
            labels = segmentation.expand_labels(self.labels, pixels)
        else:
            depth = ndimage.distance_transform_edt(self.labels > 0)
            labels = np.where(depth > -pixels, self.labels, 0)
        return OrganMap(np.asarray(labels, np.int32), self.names, self.origin, self.outline_px, self.notes)


def from_label_image(labels: NDArray[Any], names: dict[str, str], shape: tuple[int, int]) -> OrganMap:
    """Turn a label image drawn in any tool into an organ map on the scan's grid.

    Parameters
    ----------
    labels : integer array, shape (Y, X); `shape` or a whole multiple of it.
    names : organ by pixel value as text, as in ``[imaging.organ_labels]``.
    shape : (Y, X) of the scan.

    Raises
    ------
    ValueError : values that are not whole, a shape that does not fit, or a value without a name.
    """
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(f"the label image has shape {array.shape}; expected (Y, X)")
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise ValueError("the label image holds fractions; expected whole numbers, 0 for background")
    if array.min() < 0 or array.max() >= 2**31:
        raise ValueError(f"the label image holds values from {array.min()} to {array.max()}; expected 0 for background and small "
                         "whole numbers for organs")  # fmt: skip
    ratios = {array.shape[i] / shape[i] for i in (0, 1)}
    if len(ratios) > 1 or next(iter(ratios)) % 1:
        raise ValueError(f"the label image is {array.shape}, the scan {shape}; draw it on the scan's own grid")
    table = {int(key): organ_name(name) for key, name in names.items()}
    return OrganMap(array.astype(np.int32), table, "label image").resized(shape)
