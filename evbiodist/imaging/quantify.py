"""A scan and an organ map in, organ signals with covariance out.

Joins noise model, footprints and estimator, and turns signals into %ID by a dose standard that
lies in the same image, so that exposure, sensitivity and decay cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.clean import NARROWEST_FWHM_PX, find_bad_pixels
from evbiodist.imaging.estimator import Fit, estimate
from evbiodist.imaging.footprints import FOOTPRINTS, FootprintKind, guard_band, organ_pixels
from evbiodist.imaging.noise import Noise, estimate_camera, noise_from_residual
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import ACTIVITY, RADIANCE, RADIANT_EFFICIENCY, Camera, FloatArray, Scan
from evbiodist.study.model import ImagingSettings, StandardSettings

BoolArray = NDArray[np.bool_]

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8 * np.log(2))
#: |correlation| of two organs' estimates from which they share one signal.
_COLLINEAR = 0.9
#: Standard deviations out of the background from which light is stray.
STRAY_SIGMA = 8.0
#: Share of a footprint's peak from which a bad pixel under it is a word about the organ.
TOUCHED = 0.01
#: Standard errors that a ray stands out by; suspects looked at one by one, in windows of so many pixels each way.
_RAY_SIGMA, _MOST_SUSPECTS, _WINDOW_PX, _CORE_PX = 5.0, 16, 20, 3
#: Suspects up to which windows around each are looked at, and not the whole frame.
_ONE_BY_ONE = 64
#: Reduced chi2 that is a misfit even where the noise was judged by the residuals.
_FITTED_LIMIT = 1.5
#: LA Cosmic's own threshold, and the smallest frame that it is tried on.
_LA_SIGMA, _LEAST_PX = 4.5, 7
#: Steps to the four pairs of opposite neighbours.
_PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True, eq=False)
class OrganSignals:
    """Signals of the organs of one scan.

    Parameters
    ----------
    organs : names, in the order of the arrays.
    value, se_systematic : (n,) in `unit`; covariance : (n, n) of the random errors.
    unit : `p_per_s` (total flux), `bq` (activity), `au` (counts, per second where the exposure is known; total
        radiant efficiency in (p/s)/(uW/cm2)) or `pct_id`.
    area_px : (n,) pixels of each organ; area_cm2 : (n,) or None for volumes and unknown pixel sizes.
    flags : one tuple of words per organ.
    fit : the estimator's own result (background, residual image, condition).
    volume_ml : (n,) or None for flat images and unknown spacings.
    """

    organs: tuple[str, ...]
    value: FloatArray
    covariance: FloatArray
    se_systematic: FloatArray
    unit: str
    area_px: FloatArray
    area_cm2: FloatArray | None
    flags: tuple[tuple[str, ...], ...]
    fit: Fit
    volume_ml: FloatArray | None = None

    @property
    def se(self) -> FloatArray:
        """Standard error of the random part, shape (n,)."""
        return np.sqrt(np.diag(self.covariance))

    def total_se(self) -> FloatArray:
        """Standard error with the shared calibration error added, shape (n,)."""
        return np.hypot(self.se, self.se_systematic)


def quantify(scan: Scan, organs: OrganMap, settings: ImagingSettings | None = None) -> OrganSignals:
    """Estimate every organ's total signal in one scan, with covariance.

    Parameters
    ----------
    scan : one frame or volume (other axes have length 1).
    organs : on the scan's grid or any grid over the same field of view.
    settings : footprint, blur, dose standard; the defaults are plain ROI sums.

    Returns
    -------
    OrganSignals : total flux in p/s for radiance images (``4 pi * pixel area * sum``), likewise total radiant
        efficiency, activity in Bq for Bq/mL (``voxel volume * sum``), otherwise counts above background; %ID when
        the settings name a dose standard, which then is no organ.

    Raises
    ------
    ValueError : several frames, a blur in mm without a pixel size, a unit that needs a spacing which the file does
        not say, or an organ that cannot be measured.

    Examples
    --------
    >>> counts = np.full((20, 20), 100.0); counts[5:8, 5:8] += 50
    >>> labels = np.zeros((20, 20), int); labels[5:8, 5:8] = 1
    >>> from evbiodist.io.scan import Camera
    >>> scan = Scan("a", None, counts, "YX", camera=Camera(gain_e=1.0, read_noise_e=0.0, bias=100.0), offset=100.0)
    >>> found = quantify(scan, OrganMap(labels, {1: "liver"}, "label image"))
    >>> round(float(found.value[0]), 6), found.unit
    (450.0, 'au')
    """
    settings = settings or ImagingSettings()
    if scan.counts.size != np.prod(scan.frame_shape):
        raise ValueError(f"{scan.name} holds {scan.counts.shape} ({scan.axes}); give one frame a row of scans.csv")
    factor, unit = to_unit(scan)
    frame = frame_of(scan, 0)
    model = FrameModel.of(frame, organs, settings)
    measured = measure(frame, model)
    fit = measured.fit
    signals = OrganSignals(
        organs=model.names,
        value=fit.signal * factor,
        covariance=fit.covariance * factor**2,
        se_systematic=systematic(frame, model, fit) * factor,
        unit=unit,
        area_px=model.area_px,
        area_cm2=model.area_cm2(frame),
        flags=measured.flags,
        fit=fit,
        volume_ml=model.volume_ml(frame),
    )
    return to_pct_id(signals, settings.standard) if settings.standard else signals


@dataclass(frozen=True, eq=False)
class FrameModel:
    """What all frames of a scan share: organs, footprints and how they are weighted.

    Parameters
    ----------
    organs : on the frames' grid; names : of its organs.
    kind : of footprint; footprints : scipy CSR array (n_organs, pixels).
    outside : pixels of no organ; guard : pixels that are neither organ nor background, both in the frames' shape.
    fwhm_px : of the sharpest real spot.
    settings : as given.
    """

    organs: OrganMap
    names: tuple[str, ...]
    kind: FootprintKind
    footprints: Any
    outside: BoolArray
    guard: BoolArray
    fwhm_px: float
    settings: ImagingSettings

    @classmethod
    def of(cls, frame: Scan, organs: OrganMap, settings: ImagingSettings) -> FrameModel:
        """Build footprints on a frame's grid.

        Raises
        ------
        ValueError : a footprint that is not one of a single frame, a blur in mm without a spacing, another grid.
        """
        if settings.footprint not in FOOTPRINTS:
            raise ValueError(f"the footprint '{settings.footprint}' is not one of a single frame; "
                             f"use {' or '.join(FOOTPRINTS)}")  # fmt: skip
        kind = FOOTPRINTS[settings.footprint]
        organs = organs.resized(frame.frame_shape)
        blur = blur_px(frame, settings) if kind.blurred else (0.0,)
        guard = guard_band(organs) if kind.weighting == "uniform" else np.zeros(frame.frame_shape, bool)
        return cls(
            organs,
            organs.organs,
            kind,
            kind.sparse(organs, blur),
            ~organ_pixels(organs),
            guard,
            min(blur[-2:]) / _FWHM_TO_SIGMA if kind.blurred else NARROWEST_FWHM_PX,
            settings,
        )

    @cached_property
    def area_px(self) -> FloatArray:
        """Pixels of each organ, shape (n,)."""
        if self.organs.fractions is not None:
            return np.asarray(self.organs.fractions.reshape(len(self.names), -1).sum(axis=1), dtype=float)
        counts = np.bincount(self.organs.labels.ravel())
        values = {n: [v for v, name in self.organs.names.items() if name == n and v < counts.size] for n in self.names}
        return np.array([counts[values[name]].sum() for name in self.names], dtype=float)

    def area_cm2(self, frame: Scan) -> FloatArray | None:
        """Area of each organ, shape (n,), or None."""
        size = frame.spacing_mm
        return None if size is None or len(size) != 2 else self.area_px * size[0] * size[1] / 100.0

    def volume_ml(self, frame: Scan) -> FloatArray | None:
        """Volume of each organ, shape (n,), or None."""
        size = frame.spacing_mm
        return None if size is None or len(size) != 3 else self.area_px * float(np.prod(size)) / 1000.0


@dataclass(frozen=True, eq=False)
class Measured:
    """A fitted frame: the fit in calibrated units per pixel, the noise used, and words for every organ."""

    fit: Fit
    noise: Noise
    flags: tuple[tuple[str, ...], ...]


def measure(frame: Scan, model: FrameModel, noise: Noise | None = None) -> Measured:
    """Fit one frame.

    Parameters
    ----------
    frame : with the axes of one frame only, see `frame_of`.
    model : of the scan that the frame belongs to.
    noise : None to take it from the camera, else from the image.

    Raises
    ------
    ValueError : an organ that cannot be measured.
    """
    shared = set(frame.flags)
    if noise is None:
        noise, from_image = noise_of(frame)
        shared |= {"noise_from_image"} if from_image else set()
    bad = bad_pixels(frame, model, noise)
    valid = ~np.logical_or.reduce([model.guard, *bad.values()])
    fit, noise = _fit(frame, model, valid, noise)
    if model.kind.weighting == "noise" and fit.chi2_red > misfit_limit(int(fit.used.sum()), len(model.names), noise):
        fit = replace(fit, covariance=fit.covariance * fit.chi2_red)
        shared.add("misfit")
    hit = {word: touched(model.footprints, mask) for word, mask in bad.items()}
    words = (
        shared | {word for word in hit if hit[word][i]} | organ_words(i, fit.signal, fit.correlation)
        for i in range(len(model.names))
    )
    return Measured(fit, noise, tuple(tuple(sorted(w)) for w in words))


def _fit(frame: Scan, model: FrameModel, valid: BoolArray, noise: Noise | None) -> tuple[Fit, Noise]:
    """Fit a frame with weights from its own expectation, and find the noise on the way where nobody knows it."""
    uniform = model.kind.weighting == "uniform"
    signal, scale = frame.signal(), noise_scale(frame)
    # The noise is that of the expected image, not of the noisy one: weights from data would bias sums low.
    expected, fitted, fit = np.maximum(np.where(valid, signal, 0.0), 0.0), noise is None, None
    for _ in range(2 if uniform else 3):
        variance = np.ones(signal.shape) if noise is None else noise.variance(expected / scale) * scale**2
        fit = estimate(signal, model.footprints, variance, valid=valid, weighting=model.kind.weighting,
                       nonnegative=model.settings.nonnegative)  # fmt: skip
        lit = model.footprints.T @ np.maximum(fit.signal, 0.0) + max(fit.background, 0.0)
        expected = lit.reshape(signal.shape)
        if fitted:
            noise = noise_from_residual(expected, fit.residual, fit.used)
        if uniform and noise is not None:
            spread = np.sqrt(noise.variance(expected / scale)) * scale
            valid = valid & ~(model.outside & (np.abs(fit.residual) > STRAY_SIGMA * spread))
    assert fit is not None  # noqa: S101  the loop runs at least twice
    assert noise is not None  # noqa: S101  it was found in the loop
    return replace(fit, covariance=fit.covariance * noise.cluster,
                   background_se=fit.background_se * float(np.sqrt(noise.cluster))), noise  # fmt: skip


def frame_of(scan: Scan, index: int, counts: NDArray[Any] | None = None) -> Scan:
    """Return one frame of a scan as a scan of its own, with the axes YX or ZYX.

    Parameters
    ----------
    scan : any.
    index : of the frame, in the order of the leading axes.
    counts : of that frame where they are at hand, shape `scan.frame_shape`; else they are read.

    Examples
    --------
    >>> stack = Scan("a", None, np.arange(8).reshape(2, 2, 2), "TYX", offset=np.array([0.0, 4.0]).reshape(2, 1, 1))
    >>> frame_of(stack, 1).signal().tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    axes = "ZYX" if "Z" in scan.axes else "YX"
    leading = scan.counts.shape[: scan.counts.ndim - len(axes)]
    at: tuple[Any, ...] = tuple(int(i) for i in np.unravel_index(index, leading)) if leading else ()
    return replace(
        scan,
        counts=np.asarray(scan.counts[(*at, ...)]) if counts is None else counts,
        axes=axes,
        offset=part_of(scan, scan.offset, at),
        scale=part_of(scan, scan.scale, at),
        bad=None if scan.bad is None else np.broadcast_to(scan.bad, scan.counts.shape)[at],
        timing=None,
        bands=(),
    )


def part_of(scan: Scan, value: Any, at: tuple[int, ...]) -> Any:
    """Return what of an offset or scale belongs to one frame: a number, or an array in the frame's shape."""
    value = np.asarray(value, dtype=np.float64)
    return float(value) if value.ndim == 0 else np.broadcast_to(value, scan.counts.shape)[at]


def noise_scale(frame: Scan) -> Any:
    """Return calibrated units per noisy count: `scale` of a camera; 1 where noise is judged in calibrated units."""
    return 1.0 if _reconstructed(frame) else frame.scale


def noise_of(frame: Scan) -> tuple[Noise | None, bool]:
    """Return the noise of a frame and whether it comes from the image; None where only a fit can show it."""
    if _reconstructed(frame):
        return None, True
    camera, estimated = estimate_camera(frame)
    return Noise.of_camera(camera, frame.counts.dtype.kind != "f"), estimated


def _reconstructed(frame: Scan) -> bool:
    """Whether no camera took the image: activity, or a volume of fractions without a camera."""
    known = frame.camera.gain_e is not None and frame.camera.read_noise_e is not None
    return frame.unit == ACTIVITY or ("Z" in frame.axes and frame.counts.dtype.kind == "f" and not known)


def misfit_limit(pixels: int, organs: int, noise: Noise) -> float:
    """Return the reduced chi2 from which footprints do not explain a frame; noise found by a fit hides small ones."""
    limit = 1 + 4 * float(np.sqrt(2 * noise.cluster / max(pixels - organs - 1, 1)))
    return max(limit, _FITTED_LIMIT) if noise.fitted else limit


def organ_words(i: int, signal: FloatArray, correlation: FloatArray) -> set[str]:
    """Return the flags that an organ's own estimate earns."""
    others = np.delete(np.abs(correlation[i]), i)
    collinear = others.size > 0 and others.max() >= _COLLINEAR
    return ({"collinear"} if collinear else set()) | ({"negative"} if signal[i] < 0 else set())


def saturation_of(scan: Scan) -> float | None:
    """Return the counts from which a pixel is saturated: as stated, or a camera's largest whole number."""
    if scan.camera.saturation is None and by_camera(scan) and scan.counts.dtype.kind in "ui":
        return float(np.iinfo(scan.counts.dtype).max)
    return scan.camera.saturation


def by_camera(scan: Scan) -> bool:
    """Whether frames are flat and in units that cameras give."""
    return "Z" not in scan.axes and scan.unit != ACTIVITY


def bad_pixels(frame: Scan, model: FrameModel, noise: Noise | None) -> dict[str, BoolArray]:
    """Return the pixels that should carry no weight by the word that flags them, each in the frame's shape."""
    counts, limit = frame.counts, saturation_of(frame)
    dead = ~np.isfinite(counts)
    dead = dead if frame.bad is None else dead | frame.bad
    saturated = np.zeros(counts.shape, bool) if limit is None else np.asarray(counts >= limit)
    found = {"saturated": saturated & ~dead, "dead": dead}
    if noise is not None and model.settings.cosmic and by_camera(frame):
        light = np.where(saturated | dead, np.nan, counts - np.asarray(frame.offset) - dark_level(frame))
        found["cosmic"], more = find_rays(light, noise, model.fwhm_px)
        found["dead"] = dead | more
    return found


def dark_level(frame: Scan) -> float:
    """Return what a frame still reads where it is dark: its darkest hundredth where nobody said the bias.

    Otherwise 0, or the middle of the frame where that is below zero, as an overstated bias makes it.
    """
    if not np.isfinite(frame.counts).any():
        return 0.0
    if frame.unit == "counts" and frame.camera.bias is None and not np.any(frame.offset):
        return float(np.nanpercentile(frame.counts, 1))
    return min(0.0, float(np.nanmedian(frame.counts - np.asarray(frame.offset))))


def find_rays(light: FloatArray, noise: Noise, fwhm_px: float) -> tuple[BoolArray, BoolArray]:
    """Find cosmic-ray and dead pixels of one frame as `find_bad_pixels` does, looking only where there can be any.

    Parameters
    ----------
    light : (Y, X) counts above the bias, NaN where a pixel is known to be bad.
    noise : of the camera.
    fwhm_px : of the sharpest real spot.

    Returns
    -------
    cosmic, dead : (Y, X).

    Examples
    --------
    >>> light = np.random.default_rng(1).normal(0, 2, (60, 60)); light[20, 30] += 500
    >>> rays, dead = find_rays(light, Noise(1.0, 4.0), 2.0)
    >>> bool(rays[20, 30]), bool(rays.sum() < 4), bool(dead.any())
    (True, True, False)
    """
    cosmic, dead = np.zeros(light.shape, bool), np.zeros(light.shape, bool)
    where = suspects(light, noise, fwhm_px)
    if len(where) > _MOST_SUSPECTS:
        return _look(light, noise, fwhm_px)
    for at in where:
        window, core = (tuple(slice(max(i - n, 0), i + n + 1) for i in at) for n in (_WINDOW_PX, _CORE_PX))
        inner = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))
        for target, found in zip((cosmic, dead), _look(light[window], noise, fwhm_px), strict=True):
            target[core] |= found[inner]
    return cosmic, dead


def _look(light: FloatArray, noise: Noise, fwhm_px: float) -> tuple[BoolArray, BoolArray]:
    gain = 1.0 / max(noise.per_count, 1e-12)
    camera = Camera(gain_e=gain, read_noise_e=gain * float(np.sqrt(noise.floor)), bias=0.0)
    bad = np.isnan(light)
    scan = Scan("", None, np.asarray(light, dtype=np.float64), "YX", camera=camera, bad=bad)
    found = find_bad_pixels(scan, fwhm_px=fwhm_px)
    return found.cosmic, found.dead & ~bad


def suspects(light: NDArray[Any], noise: Noise, fwhm_px: float) -> NDArray[np.intp]:
    """Return the places where `find_bad_pixels` could find something, shape (n, 2): few, and quickly.

    Its bounds are tried with the least noise that a pixel can have, and at the few pixels that break them with
    their own, so that nothing is missed.
    """
    if min(light.shape) < _LEAST_PX:
        return np.empty((0, 2), np.intp)
    sigma = float(np.sqrt(noise.floor))
    sharp, dark = [], []
    for dy, dx in _PAIRS:
        before, middle, after = _opposite(light, dy, dx)
        least = float(np.exp(-4 * np.log(2) * (dy * dy + dx * dx) / fwhm_px**2))
        limit = 2 * _RAY_SIGMA * float(np.sqrt(least**2 + 0.5)) * sigma
        excess = middle * light.dtype.type(2 * least)
        excess -= before
        excess -= after
        if not np.fmax.reduce(excess, axis=None) <= limit:
            at = np.unravel_index(np.flatnonzero(excess > limit), excess.shape)
            b, m, a = (noise.variance(side[at].astype(np.float64)) for side in (before, middle, after))
            sure = excess[at] > 2 * _RAY_SIGMA * np.sqrt(least**2 * m + (a + b) / 4)
            sharp.append(np.stack(at, axis=1)[sure] + np.array([dy, abs(dx)]))
    before, middle, after = _opposite(light, 0, 1)
    lowest = np.minimum(before, after)
    depth = np.minimum(lowest, lowest / 2) - middle  # half of less than nothing would be more
    deep = _RAY_SIGMA * float(np.sqrt(1.25)) * sigma
    if not np.fmax.reduce(depth, axis=None) <= deep:
        dark.append(np.argwhere(depth > deep) + np.array([0, 1]))
    found = _standing_out(light, np.concatenate(sharp), sigma) if sharp else np.empty((0, 2), np.intp)
    return np.unique(np.concatenate([found, *dark]).astype(np.intp), axis=0)


def _standing_out(light: NDArray[Any], at: NDArray[np.intp], sigma: float) -> NDArray[np.intp]:
    """Return those of some places around which LA Cosmic's Laplacian, on pixels split in four, is above its threshold."""
    limit, reach = 2 * _LA_SIGMA * sigma, _CORE_PX + 1
    if len(at) > _ONE_BY_ONE:
        around = ndimage.maximum_filter(_laplacian(light), 2 * reach + 1, mode="nearest")
        return at[around[tuple(at.T)] > limit]
    windows = (light[tuple(slice(max(int(i) - reach, 0), int(i) + reach + 1) for i in place)] for place in at)
    return at[np.array([_laplacian(window).max() > limit for window in windows], bool)]


def _laplacian(light: NDArray[Any]) -> FloatArray:
    padded = np.pad(np.nan_to_num(light.astype(np.float64)), 1, mode="edge")
    inner = 2 * padded[1:-1, 1:-1]
    parts = (
        np.maximum(inner - vertical - horizontal, 0.0)
        for vertical in (padded[:-2, 1:-1], padded[2:, 1:-1])
        for horizontal in (padded[1:-1, :-2], padded[1:-1, 2:])
    )
    return np.asarray(sum(parts)) / 4


def _opposite(light: NDArray[Any], dy: int, dx: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the neighbours before, the pixels themselves and the neighbours after, of all pixels that have both."""
    rows, columns = light.shape
    side = abs(dx)

    def shifted(step: int) -> NDArray[Any]:
        y, x = dy + step * dy, side + step * dx
        return light[y : rows - 2 * dy + y, x : columns - 2 * side + x]

    return shifted(-1), shifted(0), shifted(1)


def touched(footprints: Any, mask: BoolArray) -> BoolArray:
    """Return which footprints hold a marked pixel, not only their outermost tail, shape (n,)."""
    n = footprints.shape[0]
    if not mask.any():
        return np.zeros(n, bool)
    row = np.repeat(np.arange(n), np.diff(footprints.indptr))
    peak = footprints.max(axis=1).toarray().ravel()
    hit = mask.ravel()[footprints.indices] & (footprints.data > TOUCHED * peak[row])
    return np.bincount(row[hit], minlength=n) > 0


def systematic(frame: Scan, model: FrameModel, fit: Fit) -> FloatArray:
    """Return the error of every organ's signal that calibration and a found outline make, shape (n,).

    The latter is what moving the outline by its uncertainty changes in plain sums.
    """
    calibration = frame.systematic_rel * np.abs(fit.signal)
    moved = moved_outlines(model)
    if not moved:
        return np.asarray(calibration)
    above = np.nan_to_num(frame.signal() - fit.background, posinf=0.0, neginf=0.0)
    sums = [[above[organs.mask(name)].sum() for name in model.names] for organs in moved]
    return np.hypot(calibration, outline_error(*np.array(sums)))


def moved_outlines(model: FrameModel) -> tuple[OrganMap, ...]:
    """Return organs grown and shrunk by the uncertainty of a found outline; nothing where it does not matter."""
    step = round(model.organs.outline_px)
    if step < 1 or model.kind.weighting != "uniform":
        return ()
    return model.organs.grown(step), model.organs.grown(-step)


def outline_error(grown: FloatArray, shrunk: FloatArray) -> FloatArray:
    """Return the standard deviation of a sum that lies anywhere between those of two outlines."""
    return np.asarray(np.abs(grown - shrunk) / np.sqrt(12))


def blur_px(frame: Scan, settings: ImagingSettings) -> tuple[float, ...]:
    """Return the standard deviation of the blur along each axis of a frame, in px.

    Raises
    ------
    ValueError : a width in mm without the spacing along that axis.
    """
    size = frame.pixel_size_mm
    if settings.psf_fwhm_px is not None:
        plane, deep = (settings.psf_fwhm_px,) * 2, settings.psf_fwhm_px
    elif size is not None:
        width = settings.psf_fwhm_mm or 0.0
        plane, deep = (width / size[0], width / size[1]), None
    else:
        raise ValueError(f"{frame.name} does not say its pixel size, so psf_fwhm_mm cannot be used; "
                         "give pixel_size_mm in scans.csv, or psf_fwhm_px")  # fmt: skip
    if "Z" not in frame.axes:
        return tuple(w * _FWHM_TO_SIGMA for w in plane)
    if settings.psf_fwhm_z_mm is not None or deep is None:
        if frame.slice_mm is None:
            raise ValueError(f"{frame.name} does not say the distance of its slices, so the blur between them in mm cannot "
                             "be used; give slice_mm, or psf_fwhm_px without psf_fwhm_z_mm")  # fmt: skip
        deep = (settings.psf_fwhm_z_mm or settings.psf_fwhm_mm or 0.0) / frame.slice_mm
    return tuple(w * _FWHM_TO_SIGMA for w in (deep, *plane))


def to_unit(scan: Scan) -> tuple[float, str]:
    """Return the factor from summed pixels to a total, and its unit.

    Raises
    ------
    ValueError : a unit that needs an area or volume which the file does not say, or that does not fit the axes.
    """
    if scan.unit in (RADIANCE, RADIANT_EFFICIENCY):
        what = "total flux" if scan.unit == RADIANCE else "total radiant efficiency"
        if "Z" in scan.axes:
            raise ValueError(f"{scan.name} is a volume in {scan.unit}, which is a unit of surfaces; correct its unit")
        size = _spacing(scan, scan.pixel_size_mm, what)
        return 4 * np.pi * size[0] * size[1] / 100.0, "p_per_s" if scan.unit == RADIANCE else "au"
    if scan.unit == ACTIVITY:
        size = _spacing(scan, scan.pixel_size_mm, "activity")
        if scan.slice_mm is None:
            raise ValueError(f"{scan.name} does not say the distance of its slices, so activity in Bq cannot be computed; "
                             "give slice_mm")  # fmt: skip
        return size[0] * size[1] * scan.slice_mm / 1000.0, "bq"
    return (1.0 / scan.exposure_s if scan.exposure_s else 1.0), "au"


def _spacing(scan: Scan, size: tuple[float, float] | None, what: str) -> tuple[float, float]:
    if size is None:
        raise ValueError(f"{scan.name} does not say its pixel size, so {what} cannot be computed; "
                         "give pixel_size_mm in scans.csv")  # fmt: skip
    return size


def to_pct_id(signals: OrganSignals, standard: StandardSettings) -> OrganSignals:
    """Turn signals into % of injected dose by the dose standard in the same image.

    Parameters
    ----------
    signals : with the standard among its organs.
    standard : its region and the share of the dose it holds, in % (with standard error).

    Returns
    -------
    OrganSignals : in `pct_id`, without the standard; the standard's random error is propagated with its
        covariance, the error of its content is systematic, the calibration error cancels.

    Raises
    ------
    ValueError : the standard is not among the regions or not above noise.
    """
    if standard.organ not in signals.organs:
        raise ValueError(f"the dose standard '{standard.organ}' is not among the regions "
                         f"({', '.join(signals.organs)}); name it in the tray or the organ labels")  # fmt: skip
    s = signals.organs.index(standard.organ)
    reference = signals.value[s]
    if not reference > 3 * signals.se[s]:
        raise ValueError(f"the dose standard '{standard.organ}' reads {reference:.3g} +- {signals.se[s]:.2g}, "
                         "not above noise; %ID cannot be computed: expose longer, or give a standard of more dose")  # fmt: skip
    keep = [i for i in range(len(signals.organs)) if i != s]
    ratio = signals.value[keep] / reference
    jacobian = np.zeros((len(keep), len(signals.organs)))
    jacobian[np.arange(len(keep)), keep] = 1.0 / reference
    jacobian[:, s] = -ratio / reference
    share = standard.pct_of_dose
    return replace(
        signals,
        organs=tuple(signals.organs[i] for i in keep),
        value=share * ratio,
        covariance=share**2 * (jacobian @ signals.covariance @ jacobian.T),
        se_systematic=np.abs(ratio) * standard.pct_of_dose_se,
        unit="pct_id",
        area_px=signals.area_px[keep],
        area_cm2=None if signals.area_cm2 is None else signals.area_cm2[keep],
        volume_ml=None if signals.volume_ml is None else signals.volume_ml[keep],
        flags=tuple(tuple(f for f in signals.flags[i] if f != "systematic") for i in keep),
    )
