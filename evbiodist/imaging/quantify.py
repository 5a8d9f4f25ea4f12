"""A scan and an organ map in, organ signals with covariance out.

Joins noise model, footprints and estimator, and turns signals into %ID by a dose standard that
lies in the same image, so that exposure, sensitivity and decay cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from evbiodist.imaging.estimator import Fit, estimate
from evbiodist.imaging.footprints import FOOTPRINTS, guard_band
from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.model import ImagingSettings, StandardSettings

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8 * np.log(2))
#: |correlation| of two organs' estimates from which they share one signal.
_COLLINEAR = 0.9
_COSMIC_SIGMA = 8.0


@dataclass(frozen=True, eq=False)
class OrganSignals:
    """Signals of the organs of one scan.

    Parameters
    ----------
    organs : names, in the order of the arrays.
    value, se_systematic : (n,) in `unit`; covariance : (n, n) of the random errors.
    unit : `p_per_s` (total flux), `au` (counts, per second where the exposure is known) or `pct_id`.
    area_px : (n,) pixels of each organ; area_cm2 : (n,) or None where the pixel size is unknown.
    flags : one tuple of words per organ.
    fit : the estimator's own result (background, residual image, condition).
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
    scan : one frame (or a stack whose first axis has length 1).
    organs : on the scan's grid or any grid over the same field of view.
    settings : footprint, blur, dose standard; the defaults are plain ROI sums.

    Returns
    -------
    OrganSignals : total flux in p/s for radiance images (``4 pi * pixel area * sum``), otherwise
        counts above background; %ID when the settings name a dose standard, which then is no organ.

    Raises
    ------
    ValueError : several frames, a blur in mm without a pixel size, or an organ that cannot be measured.

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
    if scan.counts.size != np.prod(scan.plane_shape):
        raise ValueError(f"{scan.name} holds {scan.counts.shape} ({scan.axes}); give one frame a row of scans.csv")
    organs = organs.resized(scan.plane_shape)
    fit, flags = _fit(scan, organs, settings)
    names = organs.organs
    factor, unit = _to_unit(scan)
    areas = np.array([organs.mask(name).sum() for name in names], dtype=float)
    size = scan.pixel_size_mm
    systematic = (
        np.hypot(scan.systematic_rel * np.abs(fit.signal), _outline_error(scan, organs, fit, settings)) * factor
    )
    signals = OrganSignals(
        organs=names,
        value=fit.signal * factor,
        covariance=fit.covariance * factor**2,
        se_systematic=systematic,
        unit=unit,
        area_px=areas,
        area_cm2=None if size is None else areas * size[0] * size[1] / 100.0,
        flags=tuple(_organ_flags(i, names, fit, flags) for i in range(len(names))),
        fit=fit,
    )
    return to_pct_id(signals, settings.standard) if settings.standard else signals


def _fit(scan: Scan, organs: OrganMap, settings: ImagingSettings) -> tuple[Fit, set[str]]:
    kind = FOOTPRINTS[settings.footprint]
    footprints = kind.build(organs, _blur_px(scan, settings) if settings.footprint == "psf" else 0.0)
    camera, estimated = estimate_camera(scan)
    flags = set(scan.flags) | ({"noise_from_image"} if estimated else set())
    counts = scan.counts.reshape(scan.plane_shape)
    frame = scan.signal().reshape(scan.plane_shape)
    scale = np.broadcast_to(np.asarray(scan.scale, dtype=float), scan.plane_shape)
    valid = np.isfinite(frame)
    if camera.saturation is not None:
        saturated = counts >= camera.saturation
        valid &= ~saturated
        if saturated[organs.labels > 0].any():
            flags.add("saturated")
    if kind.weighting == "uniform":
        valid &= ~guard_band(organs)
    # The noise is that of the expected image, not of the noisy one: weights from data would bias sums low.
    expected = np.maximum(frame / scale, 0.0)
    fit = None
    for _ in range(3 if kind.weighting == "noise" else 2):
        variance = variance_counts(expected, camera, scan.counts.dtype.kind != "f") * scale**2
        fit = estimate(frame, footprints, variance, valid=valid, weighting=kind.weighting,
                       nonnegative=settings.nonnegative)  # fmt: skip
        expected = (frame - fit.residual) / scale
        cosmic = (np.abs(fit.residual) > _COSMIC_SIGMA * np.sqrt(variance)) & (organs.labels == 0) & valid
        if kind.weighting == "uniform" and cosmic.any():
            valid &= ~cosmic  # stray light as well, but only lone spikes are called cosmic
            spike = fit.residual - ndimage.median_filter(fit.residual, 5)
            if (cosmic & (spike > _COSMIC_SIGMA * np.sqrt(variance))).any():
                flags.add("cosmic")
    assert fit is not None  # noqa: S101  the loop runs at least twice
    limit = 1 + 4 * np.sqrt(2 / max(int(fit.used.sum()) - len(footprints) - 1, 1))
    if kind.weighting == "noise" and fit.chi2_red > limit:
        fit = replace(fit, covariance=fit.covariance * fit.chi2_red)
        flags.add("misfit")
    return fit, flags


def _outline_error(scan: Scan, organs: OrganMap, fit: Fit, settings: ImagingSettings) -> FloatArray:
    """Return what moving a found outline by its uncertainty changes in each organ's plain sum, shape (n,)."""
    step = round(organs.outline_px)
    if step < 1 or FOOTPRINTS[settings.footprint].weighting != "uniform":
        return np.zeros(len(organs.organs))
    frame = scan.signal().reshape(scan.plane_shape) - fit.background
    sums = []
    for moved in (organs.grown(step), organs.grown(-step)):
        sums.append(np.array([frame[moved.mask(name) & np.isfinite(frame)].sum() for name in organs.organs]))
    return np.asarray(np.abs(sums[0] - sums[1]) / np.sqrt(12))


def _blur_px(scan: Scan, settings: ImagingSettings) -> float:
    if settings.psf_fwhm_px is not None:
        return float(settings.psf_fwhm_px * _FWHM_TO_SIGMA)
    if scan.pixel_size_mm is None:
        raise ValueError(f"{scan.name} does not say its pixel size, so psf_fwhm_mm cannot be used; "
                         "give pixel_size_mm in scans.csv, or psf_fwhm_px")  # fmt: skip
    return float((settings.psf_fwhm_mm or 0.0) * _FWHM_TO_SIGMA / scan.pixel_size_mm[0])


def _to_unit(scan: Scan) -> tuple[float, str]:
    """Return the factor from summed pixels to a total, and its unit."""
    if scan.unit == "p/s/cm2/sr":
        if scan.pixel_size_mm is None:
            raise ValueError(f"{scan.name} does not say its pixel size, so total flux cannot be computed; "
                             "give pixel_size_mm in scans.csv")  # fmt: skip
        return float(4 * np.pi * scan.pixel_size_mm[0] * scan.pixel_size_mm[1] / 100.0), "p_per_s"
    return (1.0 / scan.exposure_s if scan.exposure_s else 1.0), "au"


def _organ_flags(i: int, names: tuple[str, ...], fit: Fit, shared: set[str]) -> tuple[str, ...]:
    flags = set(shared)
    others = np.delete(np.abs(fit.correlation[i]), i)
    if others.size and others.max() >= _COLLINEAR:
        flags.add("collinear")
    if fit.signal[i] < 0:
        flags.add("negative")
    return tuple(sorted(flags))


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
                         "not above noise; %ID cannot be computed")  # fmt: skip
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
        flags=tuple(tuple(f for f in signals.flags[i] if f != "systematic") for i in keep),
    )
