"""One digital animal in the round: its own anatomy, optics and posture, and the light a camera gets from it.

Drawn with other numbers than the estimator assumes: every animal has its own organ places, sizes, body height,
tissue optics and shapes, and lies bent and turned on the stage. The light is solved on a finer grid in the
animal's real posture, or traced photon by photon (`evbiodist.phantom.photons`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.anatomy import LOBES, REST, SPREAD, Anatomy, Place
from evbiodist.imaging.diffusion import Medium, View
from evbiodist.imaging.optics import LOG_SE_ABSORPTION, LOG_SE_SCATTERING, optics

FloatArray = NDArray[np.float64]
_STEP_MM = 1.0
_MARGIN_MM = 6.0
#: Half the width of a tail.
_TAIL_MM = 1.5


@dataclass(frozen=True)
class Variation:
    """How much digital animals differ from the reference; the defaults are what an estimator assumes of them.

    Parameters
    ----------
    anatomy : factor on the spread of organ places and sizes that the estimator's prior assumes.
    shape_mm : standard deviation of smooth wrinkles of organ borders; 0 keeps ellipsoids.
    optics : factor on the spread of absorption and scattering, shared by all tissues, that the estimator's prior assumes.
    tissue_log : further standard deviation of the logarithm of each tissue's own absorption and scattering.
    bend_rad : largest bend of the back, uniform in +-.
    turn_rad : standard deviation of the heading about straight up.
    height_log : standard deviation of the logarithm of body height.
    """

    anatomy: float = 1.0
    shape_mm: float = 0.0
    optics: float = 1.0
    tissue_log: float = 0.0
    bend_rad: float = 0.35
    turn_rad: float = 0.15
    height_log: float = 0.05


@dataclass(frozen=True)
class Posture:
    """How an animal has been laid for one image, relative to its own grid: turned about its middle, then moved."""

    turn_rad: float = 0.0
    move_mm: tuple[float, float] = (0.0, 0.0)

    def undo(self, y: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return where stage points lie on the animal's own grid."""
        dy, dx = y - self.move_mm[0], x - self.move_mm[1]
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        return dy * cos + dx * sin, dx * cos - dy * sin


@dataclass(frozen=True, eq=False)
class DigitalAnimal:
    """An animal with its posture on the stage.

    Parameters
    ----------
    anatomy : body and organs.
    bend_rad : angle by which the heading turns from snout to rump; turn_rad : heading of the middle, 0 is head up.
    centre_mm : (y, x) of the middle of the back on the stage.
    absorption, scattering : factor by organ on published optics.
    wrinkles : smooth displacement of organ borders in mm, drawn from a seed; None for none.
    """

    anatomy: Anatomy
    bend_rad: float = 0.0
    turn_rad: float = 0.0
    centre_mm: tuple[float, float] = (0.0, 0.0)
    absorption: dict[str, float] = field(default_factory=dict)
    scattering: dict[str, float] = field(default_factory=dict)
    wrinkle_mm: float = 0.0
    wrinkle_seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, variation: Variation, weight_g: float | None = None) -> DigitalAnimal:
        """Draw an animal."""
        weight = weight_g or float(rng.normal(22.0, 1.5))
        base = Anatomy.of_weight(weight)
        stretch = np.exp(rng.normal(0, 0.03, 2))
        places = {}
        for organ in LOBES:
            spread = SPREAD[organ]
            draw = [float(rng.normal(0, v * variation.anatomy)) for v in
                    (spread.along, spread.across, spread.up, spread.log_volume)]  # fmt: skip
            places[organ] = Place(*draw)
        body = replace(base, length_mm=base.length_mm * stretch[0], half_width_mm=base.half_width_mm * stretch[1],
                       half_height_mm=base.half_height_mm * float(np.exp(rng.normal(0, variation.height_log))),
                       places=places)  # fmt: skip
        tissues = (*LOBES, REST)
        common, own = (
            variation.optics * LOG_SE_ABSORPTION / np.sqrt(2) * rng.normal(size=n) for n in (1, len(tissues))
        )
        scatter = variation.optics * LOG_SE_SCATTERING * rng.normal()
        more = variation.tissue_log * rng.normal(size=(2, len(tissues)))
        absorption = dict(zip(tissues, np.exp(common + own + more[0]).tolist(), strict=True))
        scattering = dict(zip(tissues, np.exp(scatter + more[1]).tolist(), strict=True))
        return cls(body, float(rng.uniform(-variation.bend_rad, variation.bend_rad)), float(rng.normal(0, variation.turn_rad)),
                   (float(rng.uniform(-3, 3)), float(rng.uniform(-3, 3))), absorption, scattering, variation.shape_mm,
                   int(rng.integers(2**31)))  # fmt: skip

    def coordinates(self, y: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return body coordinates (s, u in mm) of stage points (y down, x right, in mm), the back being an arc."""
        length = self.anatomy.length_mm
        dy, dx = y - self.centre_mm[0], x - self.centre_mm[1]
        # along points from snout to rump at the middle: down the image when the animal is not turned
        along = dy * np.cos(self.turn_rad) + dx * np.sin(self.turn_rad)
        across = dx * np.cos(self.turn_rad) - dy * np.sin(self.turn_rad)
        if abs(self.bend_rad) < 1e-6:
            return along / length + 0.5, across
        radius = length / self.bend_rad
        angle = np.arctan2(along, (radius - across) * np.sign(radius))
        u = radius - np.hypot(along, radius - across) * np.sign(radius)
        return angle * np.abs(radius) / length + 0.5, u

    def silhouette(
        self, shape: tuple[int, int], pixel_mm: float, view: View = "dorsal", posture: Posture = Posture()
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return body and tail on an image whose middle is the stage's, as the camera sees them."""
        s, u = self.coordinates(*_own(shape, pixel_mm, view, posture))
        body = (s > 0) & (s < 1) & (np.abs(u) < self.anatomy.half_width(s))
        return np.asarray(body), np.asarray((s >= 0.98) & (s < 1.6) & (np.abs(u) < _TAIL_MM))

    @cached_property
    def grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(z, y, x) of voxel centres on the stage in mm."""
        reach = self.anatomy.length_mm / 2 + _MARGIN_MM
        side = self.anatomy.half_width_mm + _MARGIN_MM + 0.35 * reach
        y = np.arange(-reach, reach, _STEP_MM) + self.centre_mm[0]
        x = np.arange(-side, side, _STEP_MM) + self.centre_mm[1]
        layers = np.ceil(self.anatomy.half_height_mm / _STEP_MM)
        return _STEP_MM * (np.arange(-layers, layers) + 0.5), y, x

    @cached_property
    def shares(self) -> dict[str, FloatArray]:
        """Each organ's share of every voxel (Z, Y, X), the rest of the body last."""
        z, y, x = self.grid
        s, u = self.coordinates(y[:, None], x[None, :])
        low, high = self.anatomy.skin(s, u)
        free = ((z[:, None, None] > low) & (z[:, None, None] < high)).astype(float)
        found = {}
        rng = np.random.default_rng(self.wrinkle_seed)
        for organ in self.anatomy.lobes:
            level = self.anatomy.level(organ, s[None], u[None], z[:, None, None])
            if self.wrinkle_mm:
                noise = ndimage.gaussian_filter(rng.normal(size=level.shape), 2.5 / _STEP_MM)
                level = level + self.wrinkle_mm * noise / noise.std()
            share = np.clip(0.5 + level / _STEP_MM, 0, 1) * free
            found[organ] = share
            free = free - share
        found[REST] = free
        return found

    def medium(self, wavelength_nm: float) -> Medium:
        """Return the animal's own optical medium on the stage's grid."""
        z, y, x = self.grid
        s, u = self.coordinates(y[:, None], x[None, :])
        low, high = self.anatomy.skin(s, u)
        inside = (z[:, None, None] > low) & (z[:, None, None] < high)
        first, last = np.argmax(inside, axis=0), z.size - 1 - np.argmax(inside[::-1], axis=0)
        mu_a, mu_s = np.zeros(inside.shape), np.zeros(inside.shape)
        for organ, share in self.shares.items():
            tissue = optics(organ, wavelength_nm)
            mu_a += share * tissue.mu_a * self.absorption.get(organ, 1.0)
            mu_s += share * tissue.mu_s_reduced * self.scattering.get(organ, 1.0)
        return Medium(inside, mu_a, mu_s, _STEP_MM, high - z[last], z[first] - low)

    def seen(
        self, views: tuple[View, ...], emission_nm: float, excitation_nm: float | None
    ) -> dict[View, dict[str, FloatArray]]:
        """Return what a camera sees per mm2 of the animal's own grid of one unit of activity in each organ, (Y, X)."""
        medium = self.medium(emission_nm)
        inside = medium.inside
        amounts = [share[inside] * medium.fill for share in self.shares.values()]
        density = np.stack([amount / amount.sum() / _STEP_MM**3 for amount in amounts], axis=1)
        exciting = self.medium(excitation_nm) if excitation_nm else None
        found: dict[View, dict[str, FloatArray]] = {}
        for view in views:
            lit = exciting.lit_from(view)[:, None] if exciting else 1.0
            found[view] = dict(zip(self.shares, medium.seen(medium.fluence(density * lit), view), strict=True))
        return found

    def on_stage(
        self, per_mm2: FloatArray, view: View, shape: tuple[int, int], pixel_mm: float, posture: Posture = Posture()
    ) -> FloatArray:
        """Return a map of the animal's own grid as an image of the stage, in units per pixel.

        The ventral image is what the camera sees when the animal lies on its back, head up still.
        """
        _, y, x = self.grid
        rows, columns = _own(shape, pixel_mm, view, posture)
        at = np.broadcast_arrays((rows - y[0]) / _STEP_MM, (columns - x[0]) / _STEP_MM)
        return np.asarray(ndimage.map_coordinates(per_mm2, at, order=1, mode="constant") * pixel_mm**2)


def _own(
    shape: tuple[int, int], pixel_mm: float, view: View, posture: Posture
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Return where the pixels of an image lie on the animal's own grid, in mm."""
    y = (np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel_mm
    x = (np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel_mm
    rows, columns = posture.undo(np.asarray(y[:, None]), np.asarray(x[None, :]))
    return rows, -columns if view == "ventral" else columns
