"""The digital mouse: a body with organs, as a few numbers per organ that can be moved and sized.

One description serves as the planar and the optical atlas of the estimator and, with other numbers and other
shapes, as the truth of the phantom. Lengths are mm of a mouse of the reference weight; masses are published.
Body coordinates: s along the back from snout (0) to rump (1), u to the animal's right, w up (dorsal).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from evbiodist.imaging.diffusion import Medium
from evbiodist.imaging.optics import optics
from evbiodist.io.scan import FloatArray
from evbiodist.study.constants import physiology

REFERENCE_G = 22.0
#: Snout to rump, half width and half height at the widest place, in mm, of a mouse of the reference weight.
LENGTH_MM, HALF_WIDTH_MM, HALF_HEIGHT_MM = 88.0, 14.0, 10.0
#: Share of the largest half width and half height along the back.
WIDTH_PROFILE = ((0, 0.10), (0.06, 0.32), (0.14, 0.50), (0.22, 0.58), (0.30, 0.60), (0.42, 0.80), (0.55, 0.92), (0.68, 1.0),
                 (0.80, 0.98), (0.90, 0.80), (0.97, 0.45), (1.0, 0.2))  # fmt: skip
HEIGHT_PROFILE = ((0, 0.20), (0.06, 0.42), (0.14, 0.60), (0.22, 0.64), (0.30, 0.66), (0.42, 0.86), (0.55, 0.97), (0.68, 1.0),
                  (0.80, 0.96), (0.90, 0.76), (0.97, 0.45), (1.0, 0.2))  # fmt: skip
#: Roundness of a cross-section (2 is an ellipse) and how much flatter the belly is than the back.
_POWER, _BELLY = 2.3, 0.88
#: Density of an organ as it lies in the body, g/mL: lungs hold air, guts hold their content.
_DENSITY = {"lung": 0.35, "gut": 0.62}
_TISSUE_DENSITY = 1.05
REST = "body"


@dataclass(frozen=True)
class Lobe:
    """One ellipsoid of an organ: centre (s in 0..1, u in mm, w in mm) and relative half axes (s, u, w), turned in plane."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    turn: float = 0.0


#: Lobes of each organ, the first ones win where they overlap. Places after mouse atlases, in round numbers.
LOBES: dict[str, tuple[Lobe, ...]] = {
    "brain": (Lobe((0.165, 0.0, 1.3), (6.1, 4.7, 3.0)),),
    "heart": (Lobe((0.405, -0.8, -2.0), (3.6, 2.8, 2.6), 0.3),),
    "spleen": (Lobe((0.615, -9.0, 1.8), (6.5, 1.7, 1.55), -0.35),),
    "kidney": (Lobe((0.635, 5.3, 4.2), (5.2, 2.9, 2.8), 0.1), Lobe((0.675, -5.3, 4.0), (5.2, 2.9, 2.8), -0.1)),
    "liver": (Lobe((0.530, 1.5, -1.8), (5.6, 9.5, 4.4)), Lobe((0.565, -4.5, -2.8), (4.6, 5.2, 3.0), 0.4)),
    "lung": (Lobe((0.415, 4.2, 1.0), (6.2, 3.4, 4.2)), Lobe((0.415, -4.2, 1.4), (6.2, 3.4, 3.6))),
    "gut": (Lobe((0.725, 0.0, -2.6), (12.0, 9.4, 4.8)),),
}
ORGANS = tuple(LOBES)


@dataclass(frozen=True)
class Place:
    """How one organ differs from the reference: shift of its centre in mm (along, across, up) and log of its volume."""

    along: float = 0.0
    across: float = 0.0
    up: float = 0.0
    log_volume: float = 0.0


#: Standard deviation of each `Place` between animals: what one mouse's organs differ from the atlas.
SPREAD: dict[str, Place] = {
    "brain": Place(0.8, 0.4, 0.4, 0.06),
    "heart": Place(1.5, 0.8, 0.7, 0.10),
    "spleen": Place(2.0, 1.0, 1.0, 0.20),
    "kidney": Place(1.8, 0.8, 0.6, 0.10),
    "liver": Place(1.5, 0.8, 0.7, 0.12),
    "lung": Place(1.5, 0.6, 0.6, 0.15),
    "gut": Place(2.0, 1.0, 0.8, 0.20),
}


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One animal's body and organs.

    Parameters
    ----------
    length_mm, half_width_mm, half_height_mm : of the body.
    weight_g : gives organ volumes by published mass fractions.
    places : how each organ differs from the reference; organs not named do not.
    width_profile : (s, share) pairs where the outline is known from an image; else the reference's.
    lobes : of each organ.
    """

    length_mm: float = LENGTH_MM
    half_width_mm: float = HALF_WIDTH_MM
    half_height_mm: float = HALF_HEIGHT_MM
    weight_g: float = REFERENCE_G
    places: dict[str, Place] = field(default_factory=dict)
    width_profile: tuple[tuple[float, float], ...] = WIDTH_PROFILE
    lobes: dict[str, tuple[Lobe, ...]] = field(default_factory=lambda: LOBES)

    @classmethod
    def of_weight(cls, weight_g: float) -> Self:
        """Return the reference mouse scaled to a weight."""
        k = (weight_g / REFERENCE_G) ** (1 / 3)
        return cls(LENGTH_MM * k, HALF_WIDTH_MM * k, HALF_HEIGHT_MM * k, weight_g)

    def moved(self, organ: str, place: Place) -> Anatomy:
        """Return the animal with one organ placed anew."""
        return replace(self, places={**self.places, organ: place})

    def half_width(self, s: FloatArray) -> FloatArray:
        """Half width in mm at s."""
        return self.half_width_mm * _profile(self.width_profile, s)

    def half_height(self, s: FloatArray) -> FloatArray:
        """Half height of the back in mm at s; the belly is flatter."""
        return self.half_height_mm * _profile(HEIGHT_PROFILE, s)

    def skin(self, s: FloatArray, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the height of belly and back in mm at (s, u in mm); both 0 outside the body."""
        across = np.abs(u) / np.maximum(self.half_width(s), 1e-6)
        rise = np.where((s >= 0) & (s <= 1), np.maximum(1 - across**_POWER, 0.0) ** (1 / _POWER), 0.0)
        height = self.half_height(s) * rise
        return -_BELLY * height, height

    def volume_mm3(self, organ: str) -> float:
        """Volume of an organ as it lies in this animal, in mm3."""
        share = physiology("mouse", organ, "weight_fraction")
        assert share is not None  # noqa: S101  every organ of LOBES has one
        grams = self.weight_g * share.value / 100
        return float(1000 * grams / _DENSITY.get(organ, _TISSUE_DENSITY) * np.exp(self._place(organ).log_volume))

    def _place(self, organ: str) -> Place:
        return self.places.get(organ, Place())

    def level(self, organ: str, s: FloatArray, u: FloatArray, w: FloatArray) -> FloatArray:
        """Return the signed distance (about, in mm) into an organ at body coordinates (s, u and w in mm); below 0 outside."""
        place, lobes = self._place(organ), self.lobes[organ]
        size = (self.volume_mm3(organ) / (4 / 3 * np.pi * sum(np.prod(lobe.axes) for lobe in lobes))) ** (1 / 3)
        k_u, k_w = self.half_width_mm / HALF_WIDTH_MM, self.half_height_mm / HALF_HEIGHT_MM
        found = np.full(np.broadcast_shapes(s.shape, u.shape, w.shape), -np.inf)
        for lobe in lobes:
            y = (s - lobe.centre[0]) * self.length_mm - place.along
            x = u - lobe.centre[1] * k_u - place.across
            z = w - lobe.centre[2] * k_w - place.up
            cos, sin = np.cos(lobe.turn), np.sin(lobe.turn)
            a, b, c = (axis * size for axis in lobe.axes)
            radius = np.sqrt(((y * cos + x * sin) / a) ** 2 + ((x * cos - y * sin) / b) ** 2 + (z / c) ** 2)
            found = np.maximum(found, (1 - radius) * min(a, b, c))
        return found


def _profile(points: tuple[tuple[float, float], ...], s: FloatArray) -> FloatArray:
    at, share = np.array(points).T
    return np.asarray(np.maximum(PchipInterpolator(at, share)(np.clip(s, 0, 1)), 0.0))


@dataclass(frozen=True, eq=False)
class BodyGrid:
    """A straightened animal on a grid of cubes (w up, s along, u across).

    Parameters
    ----------
    step_mm : edge of a voxel.
    s : (Y,) from 0 to 1; u : (X,) in mm; w : (Z,) in mm.
    inside : (Z, Y, X); top_mm, bottom_mm : (Y, X) from the outermost voxels' centres to the skin.
    """

    step_mm: float
    s: FloatArray
    u: FloatArray
    w: FloatArray
    inside: NDArray[np.bool_]
    top_mm: FloatArray
    bottom_mm: FloatArray

    @classmethod
    def of(cls, body: Anatomy, step_mm: float) -> BodyGrid:
        """Lay a grid over an animal; voxels whose centre is within the skin are tissue."""
        y = np.arange(step_mm / 2, body.length_mm, step_mm)
        half = step_mm * np.ceil(1.02 * body.half_width_mm / step_mm)
        u = np.arange(-half + step_mm / 2, half, step_mm)
        # layers stay where they are when a body grows, so that what is seen changes smoothly with its height
        w = step_mm * (np.arange(-np.ceil(body.half_height_mm / step_mm), np.ceil(body.half_height_mm / step_mm)) + 0.5)
        s = y / body.length_mm
        low, high = body.skin(s[:, None], u[None, :])
        inside = (w[:, None, None] > low) & (w[:, None, None] < high)
        first, last = np.argmax(inside, axis=0), w.size - 1 - np.argmax(inside[::-1], axis=0)
        top, bottom = high - w[last], w[first] - low
        return cls(step_mm, s, u, w, inside, top, bottom)

    def shares(self, body: Anatomy, only: str | None = None) -> dict[str, FloatArray]:
        """Return each organ's share of every voxel, (Z, Y, X); what is left is `body`.

        Borders are blurred over one voxel, so that shares change smoothly as organs move. Where organs meet,
        the one named first has the place. `only` gives that organ alone, as if the others gave way.
        """
        s, u, w = self.s[None, :, None], self.u[None, None, :], self.w[:, None, None]
        found: dict[str, FloatArray] = {}
        free = self.inside.astype(float)
        for organ in body.lobes if only is None else (only,):
            share = np.clip(0.5 + body.level(organ, s, u, w) / self.step_mm, 0.0, 1.0) * free
            found[organ] = share
            free = free - share
        if only is None:
            found[REST] = free
        return found

    def medium(
        self, shares: dict[str, FloatArray], wavelength_nm: float, log_mu_a: Mapping[str, float] | None = None,
        log_mu_s: float = 0.0,
    ) -> Medium:  # fmt: skip
        """Return the optical medium of the animal at a wavelength; voxels of several organs mix their properties.

        `log_mu_a` (by organ) and `log_mu_s` shift the logarithm of published absorption and scattering.
        """
        mu_a, mu_s = np.zeros(self.inside.shape), np.zeros(self.inside.shape)
        for organ, share in shares.items():
            tissue = optics(organ, wavelength_nm)
            mu_a += share * tissue.mu_a * np.exp((log_mu_a or {}).get(organ, 0.0))
            mu_s += share * tissue.mu_s_reduced * np.exp(log_mu_s)
        return Medium(self.inside, mu_a, mu_s, self.step_mm, self.top_mm, self.bottom_mm)
