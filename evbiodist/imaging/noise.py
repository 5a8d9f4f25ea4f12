"""The noise model: a floor plus what grows with the signal, from the header or from the image itself.

A camera's shot and read noise, or whatever a reconstructed image shows around the fitted organs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.io.scan import Camera, FloatArray, Scan

#: A second-difference mask that is blind to constants and slopes (Immerkaer 1996); its noise gain is 6.
_MASK = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_MASK_GAIN = 6.0
_QUANTISATION = 1.0 / 12.0
#: Keeps a pixel without noise (made, not measured) from weighing infinitely much.
_NO_NOISE = 1e-12
#: Pixels in a group from which its spread is worth something: of second differences, of residuals.
_LEAST, _FEW = 8, 30
#: Slices of a volume that are looked at.
_SLICES = 8
#: Share of the range of brightness that counts as dark.
_DARK_SHARE = 0.01
#: Correlation of neighbours: what chance makes, in standard errors, and the most that is believed.
_CHANCE, _MOST_ALIKE = 3.0, 0.97
_FIRST, _LAST = slice(None, -1), slice(1, None)


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


@dataclass(frozen=True)
class Noise:
    """Variance of a pixel, ``per_count * expected + floor``, in the units in which counts are noisy.

    Parameters
    ----------
    per_count : variance for each expected count (1 / gain of a camera).
    floor : variance without signal.
    cluster : number of pixels that share one noise value; above 1 for reconstructed images, whose neighbours go
        together. Variances of sums over organs are that many times larger than those of independent pixels.
    fitted : found from the residuals of a fit, so that a misfit looks like noise.

    Examples
    --------
    >>> Noise.of_camera(Camera(gain_e=2.0, read_noise_e=6.0), integer=False).variance(np.array([-5.0, 100.0]))
    array([ 9., 59.])
    """

    per_count: float
    floor: float
    cluster: float = 1.0
    fitted: bool = False

    @classmethod
    def of_camera(cls, camera: Camera, integer: bool) -> Noise:
        """Return the noise of a camera whose gain and read noise are known, see `variance_counts`."""
        floor, one = variance_counts(np.array([0.0, 1.0]), camera, integer)
        return cls(float(one - floor), float(floor))

    def variance(self, expected: FloatArray) -> FloatArray:
        """Return the variance of counts whose expectation above the offset is `expected`, in its shape."""
        return np.asarray(np.maximum(expected, 0.0) * self.per_count + self.floor)


def noise_from_residual(expected: FloatArray, residual: FloatArray, used: NDArray[np.bool_], bins: int = 24) -> Noise:
    """Find the noise of an image from what a fit leaves over, for images that no camera model describes.

    The spread (median absolute deviation) of the residual in bins of expected brightness is fitted by
    ``per_count * expected + floor``. What footprints do not explain counts as noise. Neighbours that go together,
    as in filtered or reconstructed images, are taken for Gaussian smoothing: correlation ``r`` between neighbours
    along an axis is ``r^(k^2)`` between k-th neighbours.

    Parameters
    ----------
    expected, residual : fitted image and image minus fit, one shape, in counts.
    used : pixels to look at, in the same shape.
    bins : of brightness.

    Returns
    -------
    Noise

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> expected = np.where(np.mgrid[:200, :200][0] > 100, 50.0, 0.0)
    >>> residual = rng.normal(0, np.sqrt(0.5 * expected + 4.0))
    >>> found = noise_from_residual(expected, residual, np.ones(expected.shape, bool))
    >>> round(found.per_count, 1), round(found.floor), found.cluster
    (0.5, 4, 1.0)
    """
    unit = float(np.abs(expected[used]).max()) or 1.0
    level, left = expected[used] / unit, residual[used] / unit
    dark = level <= level.min() + _DARK_SHARE * (level.max() - level.min())
    groups = [np.flatnonzero(dark)]
    if not dark.all():
        bright = np.flatnonzero(~dark)
        groups += np.array_split(bright[np.argsort(level[bright], kind="stable")], bins - 1)
    groups = [g for g in groups if g.size >= _FEW] or [np.arange(level.size)]
    spread = np.array([(1.4826 * np.median(np.abs(left[g]))) ** 2 for g in groups])
    at = np.array([max(float(np.mean(level[g])), 0.0) for g in groups])
    floor, per_count = _line(at, spread, np.array([g.size for g in groups]))
    noise = Noise(per_count * unit, floor * unit**2, fitted=True)
    return replace(noise, cluster=_cluster(residual / np.sqrt(noise.variance(expected)), used))


def _cluster(z: FloatArray, used: NDArray[np.bool_]) -> float:
    """Return how many pixels share one noise value, from the correlation of neighbours along each axis."""
    z = np.where(used, np.clip(z, -3.0, 3.0), 0.0)
    power = float(np.sum(z * z)) / max(int(used.sum()), 1)
    size = 1.0
    for axis in range(z.ndim):
        a, b = (tuple(cut if i == axis else slice(None) for i in range(z.ndim)) for cut in (_FIRST, _LAST))
        pairs = int(np.sum(used[a] & used[b]))
        r = float(np.sum(z[a] * z[b])) / max(pairs, 1) / max(power, _NO_NOISE)
        if r > _CHANCE / np.sqrt(max(pairs, 1)):
            size *= float(np.sum(min(r, _MOST_ALIKE) ** (np.arange(-40, 41) ** 2.0)))
    return size


def estimate_camera(scan: Scan, bins: int = 24) -> tuple[Camera, bool]:
    """Fill in an unknown gain or read noise by photon transfer within the image.

    Second differences remove what is smooth; their spread in bins of brightness is fitted by
    ``variance = read^2 + signal / gain``. Sharp edges widen the spread, so the errors that follow are
    rather too large than too small.

    Parameters
    ----------
    scan : its first frame is used, of a volume some slices; pixels that are bad or no finite number are left out.
    bins : number of brightness bins.

    Returns
    -------
    camera : with `gain_e` and `read_noise_e`.
    estimated : whether anything had to be estimated.

    Raises
    ------
    ValueError : too few usable pixels to see noise at all.
    """
    camera = scan.camera
    if camera.gain_e is not None and camera.read_noise_e is not None:
        return camera, False
    found = [_mean_and_second(plane) for plane in _planes(scan)]
    mean, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if mean.size < _LEAST:
        raise ValueError(f"{scan.name} has too few usable pixels to estimate its noise; give gain_e and read_noise_e "
                         "in scans.csv")  # fmt: skip
    order = np.argsort(mean, kind="stable")
    groups = [g for g in np.array_split(order, min(bins, order.size // _LEAST)) if g.size >= _LEAST]
    level = np.array([np.median(mean[g]) for g in groups])
    spread = np.array([(1.4826 * np.median(np.abs(second[g]))) ** 2 for g in groups])
    read_var, per_count = _line(np.maximum(level, 0.0), spread)
    gain = camera.gain_e or (1.0 / per_count if per_count > 0 else np.inf)
    if not np.isfinite(gain):
        gain = 1.0
    read = camera.read_noise_e if camera.read_noise_e is not None else gain * float(np.sqrt(read_var))
    return replace(camera, gain_e=float(gain), read_noise_e=read), True


def _planes(scan: Scan) -> Iterator[FloatArray]:
    """Yield counts above the offset of the first frame's plane, or of some slices, NaN where unusable."""
    leading = (0,) * (scan.counts.ndim - len(scan.frame_shape))
    slices = scan.extent("Z")
    chosen = np.unique(np.linspace(0, slices - 1, min(slices, _SLICES)).round().astype(int))
    for index in [(*leading, int(z)) for z in chosen] if "Z" in scan.axes else [leading]:
        plane = np.asarray(scan.counts[index]).astype(np.float64)
        plane -= np.broadcast_to(np.asarray(scan.offset, dtype=np.float64), scan.counts.shape)[index]
        if scan.bad is not None:
            plane[np.broadcast_to(scan.bad, scan.counts.shape)[index]] = np.nan
        yield plane


def _mean_and_second(plane: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return local mean and scaled second difference of the inner pixels whose neighbours are all usable."""
    finite = np.isfinite(plane)
    filled = plane if finite.all() else np.where(finite, plane, np.median(plane[finite]) if finite.any() else 0.0)
    whole = ndimage.minimum_filter(finite, 3)[1:-1, 1:-1].ravel()
    mean = ndimage.uniform_filter(filled, 3)[1:-1, 1:-1].ravel()
    second = ndimage.convolve(filled, _MASK)[1:-1, 1:-1].ravel() / _MASK_GAIN
    return mean[whole], second[whole]


def _line(x: FloatArray, y: FloatArray, size: NDArray[Any] | None = None) -> tuple[float, float]:
    """Fit y = a + b x with a, b >= 0, relative errors (a variance's error is proportional to it).

    With the sizes of the groups that the variances come from, weights follow these and, from the second round on, the
    fitted line: weights from scattered variances would favour those that came out low.
    """
    from scipy.optimize import nnls

    weight = 1.0 / np.maximum(y, 1e-12)
    for _ in range(1 if size is None else 3):
        row = weight if size is None else weight * np.sqrt(size / size.max())
        (a, b), _residual = nnls(np.column_stack([row, row * x]), row * y)
        weight = 1.0 / np.maximum(a + b * x, 1e-12)
    floor = float(np.min(y)) if a == 0 else a
    return float(max(floor, 1e-12)), float(b)
