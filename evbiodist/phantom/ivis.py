"""Click folders like an instrument's: 16-bit counts, photograph, dark frame and the header that calibrates them.

What leaves the camera is what the reader has to undo: dark charge, bias, flat field, saturation, cosmic rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Ivis:
    """A cooled CCD with its lens, in the words of its header.

    Parameters
    ----------
    fov_cm, columns : field of view and pixels along one side.
    binning : sensor pixels a pixel.
    exposure_s : of the luminescent image; dark_s : of the dark frame.
    coefficient : radiance in p/s/cm2/sr of one count in one second on one sensor pixel.
    gain_e, read_noise_e : electrons per count, and of read noise; bias, saturation : counts.
    dark_per_s : dark charge in counts a second.
    flat : k0 to k4 of the flat field, in cm from the axis.
    rays : cosmic rays in an image, on average.
    """

    fov_cm: float = 13.2
    columns: int = 240
    binning: int = 8
    exposure_s: float = 30.0
    dark_s: float = 60.0
    coefficient: float = 1.6e8
    gain_e: float = 1.4
    read_noise_e: float = 6.0
    bias: float = 496.0
    saturation: float = 61000.0
    dark_per_s: float = 0.02
    flat: tuple[float, ...] = (1.0, 0.0, -0.0012, 0.0, 0.0)
    rays: float = 3.0

    @property
    def pixel_mm(self) -> float:
        """Edge of a pixel."""
        return 10 * self.fov_cm / self.columns

    def per_count(self) -> FloatArray:
        """Return radiance per count of every pixel, (Y, X)."""
        at = (np.arange(self.columns) - (self.columns - 1) / 2) * self.fov_cm / self.columns
        field = np.polynomial.polynomial.polyval(np.hypot(at[:, None], at[None, :]), self.flat)
        return np.asarray(self.coefficient / (self.exposure_s * self.binning**2) / field)

    def expose(self, flux: FloatArray, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Return the counts of an image given as flux in p/s a pixel (4 pi radiance area), shape (Y, X)."""
        area_cm2 = (self.pixel_mm / 10) ** 2
        light = flux / (4 * np.pi * area_cm2) / self.per_count() + self.dark_per_s * self.exposure_s
        counts = self._read(light, rng)
        for _ in range(rng.poisson(self.rays)):
            y, x = rng.integers(2, self.columns - 2, 2)
            angle, length = rng.uniform(0, np.pi), rng.integers(1, 5)
            for step in range(length):
                at = (int(y + step * np.sin(angle)), int(x + step * np.cos(angle)))
                if min(at) >= 0 and max(at) < self.columns:
                    counts[at] += rng.exponential(800.0) + 150.0
        return np.clip(np.rint(counts), 0, self.saturation).astype(np.uint16)

    def dark_frame(self, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Return an exposure without light."""
        shape = (self.columns, self.columns)
        return np.rint(self._read(np.full(shape, self.dark_per_s * self.dark_s), rng)).astype(np.uint16)

    def _read(self, counts: FloatArray, rng: np.random.Generator) -> FloatArray:
        electrons = rng.poisson(counts * self.gain_e) + rng.normal(0, self.read_noise_e, counts.shape)
        return np.asarray(electrons / self.gain_e + self.bias)

    def write(
        self, folder: Path, counts: NDArray[np.uint16], photograph: NDArray[np.uint8], dark: NDArray[np.uint16],
        filters: tuple[str, str], acquired: tuple[str, str],
    ) -> None:  # fmt: skip
        """Write a click folder: excitation and emission filter by name, date and time as the instrument prints them."""
        folder.mkdir(parents=True, exist_ok=True)
        images: dict[str, NDArray[Any]] = {"luminescent": counts, "photograph": photograph, "background": dark}
        for name, image in images.items():
            tifffile.imwrite(folder / f"{name}.TIF", image, compression="zlib", predictor=True)
        common = {"Field of View": f"{self.fov_cm:g}", "f Number": "1", "Binning Factor": str(self.binning)}
        date = {"Acquisition Date": acquired[0], "Acquisition Time": acquired[1]}
        level = {"Read Bias Level": f"{self.bias:.3f}"}
        kind = "luminescent" if filters[0] == "Block" else "fluorescent"
        parts = {
            f"{kind} image:\tluminescent.TIF": {
                **date, "Luminescent Exposure (Seconds)": f"{self.exposure_s:g}", **common,
                "Excitation filter": filters[0], "Emission filter": filters[1], **level},
            "photographic image:\tphotograph.TIF": {**date, "Field of View": f"{self.fov_cm:g}"},
            "darkcharge background image:\tbackground.TIF": {
                **date, "Background Exposure (Seconds)": f"{self.dark_s:g}", **common, **level},
            "Camera System Info:\t": {
                "System Configuration": "digital mouse", "CCD Saturation Level": f"{self.saturation:g}",
                f"Coef C-ccd at FOV {self.fov_cm:g}, f1": f"{self.coefficient:g}",
                "Shelf Position C FOV": f"{self.fov_cm:g}",
                "Shelf Position C FF5 f/1 Coefs": ", ".join(f"{k:g}" for k in (*self.flat, 0.0, 0.0))},
        }  # fmt: skip
        lines = [line for head, keys in parts.items()
                 for line in (f"*** {head}", *(f"{key}:\t{value}" for key, value in keys.items()))]  # fmt: skip
        (folder / "ClickInfo.txt").write_text("\n".join(lines) + "\n", encoding="cp1252")
