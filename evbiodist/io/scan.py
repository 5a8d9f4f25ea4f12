"""A scan: pixels as the camera gave them, and everything needed to turn them into a signal.

Counts stay counts, because noise lives in counts; `signal` and `offset`/`scale` carry the
calibration. What a file does not say is None, never a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.timing import FrameTiming
from evbiodist.study.problems import UnreadableImage

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


@dataclass(frozen=True)
class Band:
    """One spectral band of a scan (a plane of axis C); None where the file does not say.

    Parameters
    ----------
    emission_nm, excitation_nm : centre wavelengths; excitation None for bioluminescence or an unknown filter.
    name : as the instrument calls it.
    """

    emission_nm: float | None = None
    excitation_nm: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Tracer:
    """What a PET or SPECT file says about the injected activity; None where it does not.

    Parameters
    ----------
    isotope : as in `evbiodist.study.constants.isotopes` (`18F`, `111In`).
    half_life_s : as the file states it.
    injected_bq : at the time of injection.
    injected_s : time of injection on the clock of the scan's `timing`, in s (negative: before the scan's start).
    decay_corrected_to : the instant that pixel values are corrected to; `none` where they are not.
    weight_g : body weight, for SUV.
    """

    isotope: str | None = None
    half_life_s: float | None = None
    injected_bq: float | None = None
    injected_s: float | None = None
    decay_corrected_to: Literal["injection", "scan_start", "none", "unknown"] = "unknown"
    weight_g: float | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """One image, stack or volume with its geometry, calibration and provenance.

    Parameters
    ----------
    name, path : of the file or folder read.
    counts : array, shape (..., Y, X), as stored; may be lazy (a zarr array): has shape, dtype and slices to numpy.
    axes : one letter per axis, as in OME and in its order (`YX`, `TYX`, `CYX`, `TZYX`, ...).
    pixel_size_mm : (y, x) in mm, or None when the file does not say.
    unit : unit of ``(counts - offset) * scale``, one of `UNITS`.
    offset : counts to subtract (bias and dark), scalar or broadcastable to `counts`.
    scale : calibrated units per count, scalar or broadcastable to `counts` (exposure, sensitivity, flat field).
    exposure_s : exposure time or None.
    camera : noise and saturation.
    photograph : (Y, X) grey image of the same field of view, or None.
    systematic_rel : relative calibration error shared by all pixels.
    slice_mm : distance of neighbouring slices (axis Z), or None.
    timing : of the frames (axis T), or None when the file does not say.
    bands : one a plane of axis C, or the single band of a scan without one; empty when the file does not say.
    tracer : injected activity, for PET and SPECT.
    bad : pixels known to be unusable (dead), True where bad, broadcastable to `counts`; None where nobody said.
    flags : words of `evbiodist.study.flags.FLAGS`.
    notes : sentences on where things come from; warnings : sentences on what is odd, for the report too.
    header : the instrument's own words.

    Raises
    ------
    ValueError : an axis without extent, axes that do not match the array, or timing and bands of another number
        than the array has frames and bands.

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
    slice_mm: float | None = None
    timing: FrameTiming | None = None
    bands: tuple[Band, ...] = ()
    tracer: Tracer | None = None
    bad: NDArray[np.bool_] | None = None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    header: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.counts.ndim != len(self.axes):
            raise ValueError(f"{self.name}: axes '{self.axes}' do not fit an array of shape {self.counts.shape}")
        if 0 in self.counts.shape:
            raise ValueError(f"{self.name}: an axis has no extent (shape {self.counts.shape})")
        if not self.axes.endswith("YX") or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"{self.name}: axes '{self.axes}' should end with YX and name each axis once")
        if self.timing is not None:
            self.timing.check_frames(self.extent("T"))
        if len(self.bands) not in (0, self.extent("C")):
            raise ValueError(f"{self.name}: {len(self.bands)} bands are named for {self.extent('C')} planes of axis C")

    def signal(self) -> FloatArray:
        """Return the calibrated image, ``(counts - offset) * scale``, in `unit`; a lazy one is read whole."""
        return (np.asarray(self.counts[...], dtype=np.float64) - self.offset) * self.scale

    def extent(self, axis: str) -> int:
        """Return how many planes an axis has; 1 for an axis that the scan does not have."""
        return int(self.counts.shape[self.axes.index(axis)]) if axis in self.axes else 1

    @property
    def lazy(self) -> bool:
        """Whether pixels are still on disk."""
        return not isinstance(self.counts, np.ndarray)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: (Y, X), or (Z, Y, X) of a volume."""
        return (self.extent("Z"), *self.plane_shape) if "Z" in self.axes else self.plane_shape

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Distance of pixels along the axes of one frame, or None where one of them is unknown."""
        if self.pixel_size_mm is None or ("Z" in self.axes and self.slice_mm is None):
            return None
        return (*((self.slice_mm,) if "Z" in self.axes and self.slice_mm else ()), *self.pixel_size_mm)

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yield the counts of one frame after another, each of `frame_shape`; one frame is in memory at a time.

        Bands count as frames of their own, in the order of the axes.
        """
        leading = self.counts.shape[: self.counts.ndim - len(self.frame_shape)]
        for index in np.ndindex(*leading):
            yield np.asarray(self.counts[index])

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X) of one plane."""
        return (int(self.counts.shape[-2]), int(self.counts.shape[-1]))

    def describe(self) -> list[tuple[str, str]]:
        """Return what a person wants to know as (name, text) pairs.

        Raises
        ------
        UnreadableImage : pixels on disk that cannot be decoded.
        """
        seen = np.asarray(self._first_frame() if self.lazy else self.counts)
        finite = seen[np.isfinite(seen)] if seen.dtype.kind == "f" else seen
        size = self.pixel_size_mm
        camera = self.camera
        saturated = "not known"
        if camera.saturation is not None:
            share = float(np.mean(seen >= camera.saturation))
            saturated = f"from {camera.saturation:g} counts: {100 * share:.3g} % of pixels"
        rows = [
            ("shape", f"{' x '.join(map(str, self.counts.shape))} ({self.axes}), {self.counts.dtype}"),
            (
                "values",
                f"{finite.min():g} to {finite.max():g}, median {np.median(finite):g}"
                + (" (first frame; the rest stays on disk)" if self.lazy else "")
                if finite.size
                else "none is finite",
            ),
            ("pixel size", "unknown" if size is None else f"{size[0]:.4g} x {size[1]:.4g} mm"),
            *self._more(),
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

    def _first_frame(self) -> NDArray[Any]:
        try:
            return np.asarray(self.counts[(0,) * (self.counts.ndim - len(self.frame_shape))])
        except (UnreadableImage, MemoryError):
            raise
        except Exception as err:  # decoders and stores raise many types
            raise UnreadableImage(self.path or self.name, f"its first frame cannot be decoded ({type(err).__name__}: "
                                  f"{str(err)[:200]}); the file may be damaged: copy it again") from err  # fmt: skip

    def _more(self) -> list[tuple[str, str]]:
        """Return what only some scans have: slices, frame times, bands, a tracer."""
        rows = []
        if "Z" in self.axes:
            rows.append(("slice distance", "unknown" if self.slice_mm is None else f"{self.slice_mm:.4g} mm"))
        if self.timing is not None:
            rows.append(("frames", self._times(self.timing)))
        if self.bands:
            rows.append(("bands", "; ".join(_band(b) for b in self.bands)))
        if self.tracer is not None:
            rows.append(("tracer", _tracer(self.tracer)))
        return rows

    @staticmethod
    def _times(t: FrameTiming) -> str:
        end = t.start_s[-1] + t.duration_s[-1]
        since = "injection" if t.reference == "injection" else "the scan's start"
        return f"{len(t)}, from {t.start_s[0]:g} to {end:g} s after {since}"


def _band(band: Band) -> str:
    told = [band.name] if band.name else []
    if band.excitation_nm is not None:
        told.append(f"excitation {band.excitation_nm:g} nm")
    if band.emission_nm is not None:
        told.append(f"emission {band.emission_nm:g} nm")
    return ", ".join(told) or "unknown"


def _tracer(tracer: Tracer) -> str:
    told = [tracer.isotope or "isotope unknown"]
    told.append("injected activity unknown" if tracer.injected_bq is None else f"{tracer.injected_bq:.4g} Bq injected")
    told.append({"none": "not decay corrected", "unknown": "decay correction unknown"}.get(
        tracer.decay_corrected_to, f"decay corrected to {tracer.decay_corrected_to.replace('_', ' ')}"))  # fmt: skip
    if tracer.weight_g is not None:
        told.append(f"{tracer.weight_g:g} g")
    return ", ".join(told)


#: Units a scan's signal can have.
RADIANCE, RADIANT_EFFICIENCY, ACTIVITY = "p/s/cm2/sr", "(p/s/cm2/sr)/(uW/cm2)", "Bq/mL"
UNITS = ("counts", RADIANCE, RADIANT_EFFICIENCY, ACTIVITY)

#: Header keys worth a line in `evbiodist info`.
_TELL = ("instrument", "camera", "software", "acquired", "field of view", "f number", "binning", "emission filter",
         "excitation filter", "data multiplier", "role", "calibration")  # fmt: skip
