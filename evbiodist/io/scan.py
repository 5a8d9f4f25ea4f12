"""A scan: pixels as the camera gave them, and everything needed to turn them into a signal.

Counts stay counts, because noise lives in counts; `signal` and `offset`/`scale` carry the
calibration. What a file does not say is None, never a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """What the camera does to light, in counts and electrons; None where nobody said.

    Parameters
    ----------
    gain_e : electrons per count.
    read_noise_e : read noise in electrons (standard deviation).
    bias : counts of an unexposed pixel.
    saturation : counts from which a pixel is saturated.
    """

    gain_e: float | None = None
    read_noise_e: float | None = None
    bias: float | None = None
    saturation: float | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One image (or stack) with its geometry, calibration and provenance.

    Parameters
    ----------
    name, path : of the file or folder read.
    counts : array, shape (..., Y, X), as stored.
    axes : one letter per axis, as in OME (`YX`, `TYX`, ...).
    pixel_size_mm : (y, x) in mm, or None when the file does not say.
    unit : unit of ``(counts - offset) * scale``: `counts` or `p/s/cm2/sr` (radiance).
    offset : counts to subtract (bias and dark), scalar or (Y, X).
    scale : calibrated units per count, scalar or (Y, X) (exposure, sensitivity, flat field).
    exposure_s : exposure time or None.
    camera : noise and saturation.
    photograph : (Y, X) grey image of the same field of view, or None.
    systematic_rel : relative calibration error shared by all pixels.
    flags : words of `evbiodist.study.flags.FLAGS`.
    notes : sentences on where things come from; warnings : sentences on what is odd, for the report too.
    header : the instrument's own words.

    Raises
    ------
    ValueError : an axis without extent, or axes that do not match the array.

    Examples
    --------
    >>> Scan("a", None, np.ones((2, 3)), "YX", offset=1.0).signal().sum()
    np.float64(0.0)
    """

    name: str
    path: Path | None
    counts: NDArray[Any]
    axes: str
    pixel_size_mm: tuple[float, float] | None = None
    unit: str = "counts"
    offset: Any = 0.0
    scale: Any = 1.0
    exposure_s: float | None = None
    camera: Camera = Camera()
    photograph: NDArray[Any] | None = None
    systematic_rel: float = 0.0
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    header: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.counts.ndim != len(self.axes):
            raise ValueError(f"{self.name}: axes '{self.axes}' do not fit an array of shape {self.counts.shape}")
        if 0 in self.counts.shape:
            raise ValueError(f"{self.name}: an axis has no extent (shape {self.counts.shape})")

    def signal(self) -> FloatArray:
        """Return the calibrated image, ``(counts - offset) * scale``, in `unit`."""
        return (self.counts.astype(np.float64) - self.offset) * self.scale

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X) of one frame."""
        return (int(self.counts.shape[-2]), int(self.counts.shape[-1]))

    def describe(self) -> list[tuple[str, str]]:
        """Return what a person wants to know as (name, text) pairs."""
        finite = self.counts[np.isfinite(self.counts)] if self.counts.dtype.kind == "f" else self.counts
        size = self.pixel_size_mm
        camera = self.camera
        saturated = "not known"
        if camera.saturation is not None:
            share = float(np.mean(self.counts >= camera.saturation))
            saturated = f"from {camera.saturation:g} counts: {100 * share:.3g} % of pixels"
        rows = [
            ("shape", f"{' x '.join(map(str, self.counts.shape))} ({self.axes}), {self.counts.dtype}"),
            (
                "values",
                f"{finite.min():g} to {finite.max():g}, median {np.median(finite):g}"
                if finite.size
                else "none is finite",
            ),
            ("pixel size", "unknown" if size is None else f"{size[0]:.4g} x {size[1]:.4g} mm"),
            ("unit", self.unit),
            ("exposure", "unknown" if self.exposure_s is None else f"{self.exposure_s:g} s"),
            ("bias", "unknown" if camera.bias is None else f"{camera.bias:g} counts"),
            ("saturation", saturated),
        ]
        if self.photograph is not None:
            rows.append(("photograph", " x ".join(map(str, self.photograph.shape))))
        if self.systematic_rel:
            rows.append(("systematic error", f"{100 * self.systematic_rel:g} %"))
        rows += [(key, value) for key, value in self.header.items() if key in _TELL]
        if self.flags:
            rows.append(("flags", ", ".join(self.flags)))
        return rows + [("note", note) for note in self.notes] + [("warning", text) for text in self.warnings]


#: Header keys worth a line in `evbiodist info`.
_TELL = ("instrument", "camera", "software", "acquired", "field of view", "f number", "binning", "emission filter",
         "excitation filter", "data multiplier", "role", "calibration")  # fmt: skip
