"""The camera noise model: shot noise plus read noise, from the header or from the image itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from evbiodist.io.scan import Camera, FloatArray, Scan

#: A second-difference mask that is blind to constants and slopes (Immerkaer 1996); its noise gain is 6.
_MASK = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_MASK_GAIN = 6.0
_QUANTISATION = 1.0 / 12.0
#: Keeps a pixel without noise (made, not measured) from weighing infinitely much.
_NO_NOISE = 1e-12


def variance_counts(expected: FloatArray, camera: Camera, integer: bool = True) -> FloatArray:
    """Return the variance of counts whose expectation above bias and dark is `expected`.

    Parameters
    ----------
    expected : counts above the offset, any shape; negative values count as no light.
    camera : with `gain_e` (electrons per count) and `read_noise_e` (electrons).
    integer : whether counts were rounded to whole numbers, which adds 1/12.

    Returns
    -------
    array of the same shape : ``expected / gain + (read_noise / gain)^2``, in counts squared.

    Raises
    ------
    ValueError : gain or read noise unknown.

    Examples
    --------
    >>> variance_counts(np.array([0.0, 100.0]), Camera(gain_e=2.0, read_noise_e=6.0), integer=False)
    array([ 9., 59.])

    Janesick 2001, Scientific Charge-Coupled Devices, ch. 2 (photon transfer).
    """
    if camera.gain_e is None or camera.read_noise_e is None:
        raise ValueError("gain_e and read_noise_e are unknown; give them in scans.csv or use estimate_camera")
    floor = (camera.read_noise_e / camera.gain_e) ** 2 + (_QUANTISATION if integer else 0.0)
    return np.maximum(expected, 0.0) / camera.gain_e + max(floor, _NO_NOISE)


def estimate_camera(scan: Scan, bins: int = 24) -> tuple[Camera, bool]:
    """Fill in an unknown gain or read noise by photon transfer within the image.

    Second differences remove what is smooth; their spread in bins of brightness is fitted by
    ``variance = read^2 + signal / gain``. Sharp edges widen the spread, so the errors that follow are
    rather too large than too small.

    Parameters
    ----------
    scan : its first frame is used.
    bins : number of brightness bins.

    Returns
    -------
    camera : with `gain_e` and `read_noise_e`.
    estimated : whether anything had to be estimated.
    """
    camera = scan.camera
    if camera.gain_e is not None and camera.read_noise_e is not None:
        return camera, False
    frame = scan.counts.reshape(-1, *scan.plane_shape)[0].astype(np.float64) - scan.offset
    mean = ndimage.uniform_filter(frame, 3)[1:-1, 1:-1].ravel()
    second = ndimage.convolve(frame, _MASK)[1:-1, 1:-1].ravel() / _MASK_GAIN
    order = np.argsort(mean, kind="stable")
    groups = [g for g in np.array_split(order, bins) if g.size >= 8]
    level = np.array([np.median(mean[g]) for g in groups])
    spread = np.array([(1.4826 * np.median(np.abs(second[g]))) ** 2 for g in groups])
    read_var, per_count = _line(np.maximum(level, 0.0), spread)
    gain = camera.gain_e or (1.0 / per_count if per_count > 0 else np.inf)
    if not np.isfinite(gain):
        gain = 1.0
    read = camera.read_noise_e if camera.read_noise_e is not None else gain * float(np.sqrt(read_var))
    return replace(camera, gain_e=float(gain), read_noise_e=read), True


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Fit y = a + b x with a, b >= 0, relative errors (a variance's error is proportional to it)."""
    from scipy.optimize import nnls

    weight = 1.0 / np.maximum(y, 1e-12)
    (a, b), _ = nnls(np.column_stack([weight, weight * x]), weight * y)
    floor = float(np.min(y)) if a == 0 else a
    return float(max(floor, 1e-12)), float(b)
