"""Where organs lie: ellipses on a tray, and in a mouse seen from above, as label images.

This first mouse is flat: organs lie side by side and light is not attenuated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.study.constants import physiology

FloatArray = NDArray[np.float64]

#: Layout of the tray, as a study names it under [imaging] tray.
TRAY = (("liver", "spleen", "kidney", "kidney"), ("lung", "heart", "brain"), ("blood", "standard"))
#: Organs of the flat mouse by pixel value, as a study names them under [imaging.organ_labels].
MOUSE = {1: "body", 2: "brain", 3: "lung", 4: "heart", 5: "liver", 6: "spleen", 7: "kidney", 8: "kidney", 9: "standard"}

_TRAY_SHAPE, _TRAY_MM = (96, 128), 0.5
_MOUSE_SHAPE, _MOUSE_MM = (112, 64), 1.0
#: Half axes on the tray in mm (rows, columns), for a 22 g mouse.
_TRAY_AXES = {"liver": (5.6, 6.2), "spleen": (2.2, 5.2), "kidney": (3.6, 2.8), "lung": (4.2, 5.2), "heart": (3.0, 2.8),
              "brain": (4.4, 4.0), "blood": (2.6, 2.6), "standard": (2.6, 2.6)}  # fmt: skip
#: Centre and half axes in the mouse in mm (row, column, rows, columns).
_MOUSE_PLACES = {1: (58, 28, 42, 15), 2: (22, 28, 6, 4.5), 3: (42, 28, 5, 9), 4: (49, 27, 3, 3), 5: (59, 27, 6, 11),
                 6: (69, 38, 4.5, 2), 7: (74, 21, 4, 2.8), 8: (76, 34, 4, 2.8), 9: (20, 56, 3, 3)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """A label image with its names and pixel size."""

    labels: NDArray[np.int32]
    names: dict[int, str]
    pixel_mm: float

    def share(self, organ: str) -> FloatArray:
        """Return one organ's activity as it spreads over the pixels, summing to 1."""
        mask = np.isin(self.labels, [v for v, name in self.names.items() if name == organ]).astype(float)
        return np.asarray(mask / mask.sum())


def _ellipse(
    shape: tuple[int, int], centre: tuple[float, float], axes: tuple[float, float], turn: float
) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = rows - centre[0], columns - centre[1]
    u, v = y * np.cos(turn) + x * np.sin(turn), -y * np.sin(turn) + x * np.cos(turn)
    return np.asarray((u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1)


def tray(rng: np.random.Generator) -> Scene:
    """Lay excised organs on a tray: places jittered, organs turned and a little larger or smaller."""
    labels = np.zeros(_TRAY_SHAPE, np.int32)
    names: dict[int, str] = {}
    step = _TRAY_SHAPE[0] / len(TRAY)
    number = 0
    for r, row in enumerate(TRAY):
        width = _TRAY_SHAPE[1] / len(row)
        for c, organ in enumerate(row):
            number += 1
            jitter = rng.uniform(-1.5, 1.5, 2)
            size = 1.0 if organ in {"blood", "standard"} else rng.normal(1.0, 0.04)
            axes = tuple(a * size / _TRAY_MM for a in _TRAY_AXES[organ])
            centre = ((r + 0.5) * step + jitter[0], (c + 0.5) * width + jitter[1])
            labels[_ellipse(_TRAY_SHAPE, centre, (axes[0], axes[1]), rng.uniform(-0.25, 0.25))] = number
            names[number] = organ
    return Scene(labels, names, _TRAY_MM)


def mouse(rng: np.random.Generator) -> Scene:
    """Lay a flat mouse on the stage beside a dose standard: size and organ places vary between animals."""
    labels = np.zeros(_MOUSE_SHAPE, np.int32)
    size = rng.normal(1.0, 0.03)
    shift = rng.uniform(-1.5, 1.5, 2)
    for value, (row, column, rows, columns) in _MOUSE_PLACES.items():
        wobble = np.zeros(2) if value in {1, 9} else rng.uniform(-0.7, 0.7, 2)
        grow = 1.0 if value == 9 else size
        move = np.zeros(2) if value == 9 else shift
        axes = (rows * grow / _MOUSE_MM, columns * grow / _MOUSE_MM)
        labels[_ellipse(_MOUSE_SHAPE, (row + wobble[0] + move[0], column + wobble[1] + move[1]), axes, 0.0)] = value
    return Scene(labels, dict(MOUSE), _MOUSE_MM)


def organ_masses(weight_g: float, organs: list[str], rng: np.random.Generator) -> dict[str, float]:
    """Return organ masses in g: published shares of body weight, 5 % spread between animals."""
    masses = {}
    for organ in organs:
        share = physiology("mouse", organ, "weight_fraction")
        if share is None:
            raise ValueError(f"no source gives the mass of the mouse's {organ}")
        masses[organ] = weight_g * share.value / 100 * float(rng.normal(1.0, 0.05))
    return masses
