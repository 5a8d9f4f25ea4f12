"""Light to counts: blur, shot noise, read noise, bias, saturation and 16-bit rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float64]
_FWHM_TO_SIGMA = 1.0 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class PhantomCamera:
    """A CCD with known truth.

    Parameters
    ----------
    gain_e : electrons per count; read_noise_e : electrons; bias, saturation : counts; fwhm_px : blur.

    Examples
    --------
    >>> camera = PhantomCamera(fwhm_px=0.0)
    >>> frame = camera.expose(np.full((50, 50), 1000.0), np.random.default_rng(1))
    >>> frame.dtype, bool(abs(frame.mean() - camera.bias - 1000) < 3)
    (dtype('uint16'), True)
    """

    gain_e: float = 1.2
    read_noise_e: float = 5.0
    bias: float = 500.0
    saturation: float = 61000.0
    fwhm_px: float = 3.0

    def expose(self, light: FloatArray, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Return the counts of an exposure to `light`, given in expected counts above bias, shape (Y, X)."""
        sigma = self.fwhm_px * _FWHM_TO_SIGMA
        seen = ndimage.gaussian_filter(light, sigma, mode="constant", truncate=6.0) if sigma else light
        electrons = rng.poisson(seen * self.gain_e) + rng.normal(0, self.read_noise_e, seen.shape)
        counts = np.rint(electrons / self.gain_e + self.bias)
        return np.clip(counts, 0, self.saturation).astype(np.uint16)


def photograph(labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a grey photograph of a scene, sharp to half a pixel, unevenly lit and a little noisy."""
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    light = 1 - 0.1 * ((rows / labels.shape[0] - 0.5) ** 2 + (columns / labels.shape[1] - 0.5) ** 2)
    scene = ndimage.gaussian_filter(np.where(labels > 0, 200.0, 25.0), 0.5) * light
    return np.clip(np.rint(scene + rng.normal(0, 2.0, scene.shape)), 0, 255).astype(np.uint8)
