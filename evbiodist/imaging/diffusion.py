"""Light in a body: the steady diffusion equation on a voxel grid whose upper and lower faces follow the skin.

    - div(D grad phi) + mu_a phi = source,   D dphi/dn = -phi / 2A  at the skin

Discretised by finite volumes; the operator is factorised once and serves every organ, view and time.
Arridge 1993 (Med Phys 20:299); Contini 1997 (Appl Opt 36:4587) for the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.optics import BOUNDARY
from evbiodist.io.scan import FloatArray

#: Width in voxels of the Gaussian that smooths the body for the direction of its skin.
_SMOOTH = 1.5

View = Literal["dorsal", "ventral"]


@dataclass(frozen=True, eq=False)
class Medium:
    """Tissue on a grid (Z up, Y along, X across) of cubes.

    Parameters
    ----------
    inside : (Z, Y, X) True in tissue.
    mu_a, mu_s_reduced : (Z, Y, X) per mm.
    step_mm : edge of a voxel.
    top_mm, bottom_mm : (Y, X) distance from the centre of the highest (lowest) voxel of a column to the skin;
        half a voxel where nobody knows better.
    """

    inside: NDArray[np.bool_]
    mu_a: FloatArray
    mu_s_reduced: FloatArray
    step_mm: float
    top_mm: FloatArray | None = None
    bottom_mm: FloatArray | None = None

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """Number of every tissue voxel, -1 outside."""
        found = np.full(self.inside.shape, -1)
        found[self.inside] = np.arange(self.inside.sum())
        return found

    @cached_property
    def fill(self) -> FloatArray:
        """Volume of tissue that each voxel stands for, in voxels, (n,): the outermost ones reach up or down to the skin."""
        full = np.ones(self.inside.shape)
        for view, gap in (("dorsal", self.top_mm), ("ventral", self.bottom_mm)):
            if gap is not None:
                z, y, x = self._outermost(view)  # type: ignore[arg-type]
                full[z, y, x] += gap[y, x] / self.step_mm - 0.5
        return np.asarray(full[self.inside])

    def _outermost(self, view: View) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        depth = self.inside.shape[0]
        seen = np.argmax(self.inside[::-1], axis=0) if view == "dorsal" else np.argmax(self.inside, axis=0)
        y, x = np.nonzero(self.columns)
        return (depth - 1 - seen if view == "dorsal" else seen)[y, x], y, x

    @cached_property
    def _slope(self) -> FloatArray:
        """Which way the smoothed body falls off, (3, Z + 2, Y + 2, X + 2): a voxel of air all round."""
        body = np.pad(self.inside, 1).astype(float)
        return -np.stack([ndimage.gaussian_filter(body, _SMOOTH, order=[int(a == axis) for a in range(3)], mode="constant")
                          for axis in range(3)])  # fmt: skip

    def _facing(self, axis: int, way: int, at: tuple[NDArray[np.int64], ...]) -> FloatArray:
        """Cosine between the skin and the voxel faces that look along an axis: the skin's area over that of the face.

        Faces of voxels in steps have more area than the slant they stand for, by 4 / pi on a cylinder, 3 / 2 on a ball.
        """
        z, y, x = (i + 1 for i in at)
        dz, dy, dx = (way * (a == axis) for a in range(3))
        normal = np.asarray(self._slope[:, z, y, x] + self._slope[:, z + dz, y + dy, x + dx])
        return np.asarray(np.abs(normal[axis]) / np.maximum(np.linalg.norm(normal, axis=0), 1e-12))

    def _upright(self, view: View) -> FloatArray:
        return self._facing(0, 1 if view == "dorsal" else -1, self._outermost(view))

    @cached_property
    def columns(self) -> NDArray[np.bool_]:
        """(Y, X) True where there is tissue in the column."""
        return np.asarray(self.inside.any(axis=0))

    @cached_property
    def diffusion(self) -> FloatArray:
        """Diffusion coefficient in mm, (Z, Y, X)."""
        return np.asarray(1.0 / (3 * np.maximum(self.mu_a + self.mu_s_reduced, 1e-9)))

    def skin(self, view: View) -> tuple[NDArray[np.int64], FloatArray]:
        """Return number and escape coefficient (per mm of height, in units of fluence) of the voxel seen in each column."""
        z, y, x = self._outermost(view)
        gap = self.top_mm if view == "dorsal" else self.bottom_mm
        distance = (np.full(z.size, self.step_mm / 2) if gap is None else gap[y, x]) * self._upright(view)
        d = self.diffusion[z, y, x]
        return self.index[z, y, x], d / (2 * BOUNDARY * d + distance)

    @cached_property
    def _factor(self) -> Any:
        from scipy.sparse.linalg import splu

        options = {"SymmetricMode": True}
        return splu(self.operator(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)

    def operator(self) -> Any:
        """Return the sparse symmetric matrix of the balance of light per voxel (per mm3), shape (n, n)."""
        import scipy.sparse as sp

        n, h = int(self.inside.sum()), self.step_mm
        diagonal = self.mu_a[self.inside] * self.fill
        rows, columns, values = [], [], []
        for axis in range(3):
            low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
            high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            both = self.inside[low] & self.inside[high]
            i, j = self.index[low][both], self.index[high][both]
            di, dj = self.diffusion[low][both], self.diffusion[high][both]
            flow = 2 * di * dj / (di + dj) / h**2
            if axis:  # neighbours in a layer share the lower of their heights
                flow = flow * np.minimum(self.fill[i], self.fill[j])
            np.add.at(diagonal, i, flow)
            np.add.at(diagonal, j, flow)
            rows += [i, j]
            columns += [j, i]
            values += [-flow, -flow]
            if axis:
                self._open_sides(axis, diagonal)
        for view in ("dorsal", "ventral"):
            at, escape = self.skin(view)
            np.add.at(diagonal, at, escape / h * self._upright(view))
        place = np.arange(n)
        data = (np.concatenate([*values, diagonal]),
                (np.concatenate([*rows, place]), np.concatenate([*columns, place])))  # fmt: skip
        return sp.csc_matrix(data, shape=(n, n))

    def _open_sides(self, axis: int, diagonal: FloatArray) -> None:
        """Add what leaves through the sides of voxels that have air beside them."""
        for shift in (1, -1):
            beside = np.roll(self.inside, shift, axis)
            edge = [slice(None)] * 3
            edge[axis] = slice(0, 1) if shift == 1 else slice(-1, None)
            beside[tuple(edge)] = False
            open_side = self.inside & ~beside
            d = self.diffusion[open_side]
            at = self.index[open_side]
            share = self._facing(axis, -shift, np.nonzero(open_side))
            escape = d / (2 * BOUNDARY * d + share * self.step_mm / 2)
            np.add.at(diagonal, at, share * self.fill[at] * escape / self.step_mm)

    def fluence(self, sources: FloatArray) -> FloatArray:
        """Return the fluence (per mm2) of sources (light per voxel over its edge cubed), both (n, k) over tissue voxels."""
        return np.asarray(self._factor.solve(np.asarray(sources, dtype=np.float64)))

    def seen(self, fluence: FloatArray, view: View) -> FloatArray:
        """Return what a camera reads above each mm2 of every column, shape (k, Y, X), as IVIS reads flux.

        The light leaving a surface is Lambertian, so its radiance is exitance / pi; an instrument that takes
        radiance for isotropic multiplies it by 4 pi.
        """
        at, escape = self.skin(view)
        images = np.zeros((fluence.shape[1], *self.columns.shape))
        images[:, self.columns] = 4.0 * (fluence[at] * escape[:, None]).T
        return images

    def entering(self, view: View) -> tuple[FloatArray, FloatArray]:
        """Return sources and fluence of even light of unit irradiance on its way in, before diffusion, each (n,).

        Light enters along the columns of the skin that the camera sees and is scattered with the density
        ``mu_s' exp(-(mu_a + mu_s') depth)``; what has not been scattered yet is fluence of its own.
        """
        h = self.step_mm
        total = np.zeros(self.inside.shape)
        total[self.inside] = (self.mu_a + self.mu_s_reduced)[self.inside] * self.fill * h
        order = slice(None, None, -1) if view == "dorsal" else slice(None)
        passed = np.cumsum(total[order], axis=0)[order]
        # exact share scattered within each voxel, so that no light is lost to a coarse grid
        share = (np.exp(-(passed - total)) - np.exp(-passed))[self.inside] / h
        albedo = (self.mu_s_reduced / np.maximum(self.mu_a + self.mu_s_reduced, 1e-9))[self.inside]
        return share * albedo, share * h / np.maximum(total[self.inside], 1e-12)

    def lit_from(self, view: View) -> FloatArray:
        """Return the fluence under even light of unit irradiance on the skin that the camera sees, shape (n,)."""
        sources, straight = self.entering(view)
        return self.fluence(sources[:, None])[:, 0] + straight
