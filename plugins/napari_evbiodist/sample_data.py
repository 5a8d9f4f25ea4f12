"""The samples of File > Open Sample: a tray and a living animal of the demo study, and a small PET phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evbiodist.batch.scans import find_organs, load_scan
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import ACTIVITY, Scan
from evbiodist.io.timing import FrameTiming
from evbiodist.sample import DEMO, sample_data
from evbiodist.study.load import load_study
from napari_evbiodist.converters import organs_to_layer, scan_to_layers

if TYPE_CHECKING:
    from napari.types import FullLayerData

#: Half an hour after injection, when every organ of the tray shines; and the animal that was followed, at the same time.
EXAMPLE, IN_VIVO = "NanoLuc_0.5h_1", "NanoLuc_followed_0.5h"
#: Ellipsoids of the phantom, by organ: centre and half axes along (Z, Y, X) in mm, and activity in kBq/mL at 5, 15, 30 and 60 min.
_ELLIPSOIDS = (
    ("heart", (6.0, 12.0, 10.0), (3.0, 4.0, 3.0), (90.0, 60.0, 45.0, 30.0)),
    ("liver", (6.0, 20.0, 10.0), (4.0, 4.0, 6.0), (60.0, 110.0, 140.0, 150.0)),
    ("spleen", (6.0, 25.5, 15.0), (2.0, 1.5, 1.5), (30.0, 60.0, 80.0, 90.0)),
    ("kidney", (8.0, 28.0, 6.0), (2.0, 3.0, 2.0), (50.0, 55.0, 50.0, 40.0)),
)
_PIXEL_MM, _SHAPE, _SEED = 0.5, (24, 72, 40), 2015


def example(name: str = EXAMPLE) -> tuple[Scan, OrganMap]:
    """Return a scan of the demo study with its organs as the study finds them."""
    study = load_study(sample_data() / DEMO / "study.toml")
    record = next(r for r in study.scans if r.scan == name)
    scan = load_scan(study.root, record)
    return scan, find_organs(study.root, record, scan, study.settings.imaging)


def pet_phantom() -> tuple[Scan, OrganMap]:
    """Return ellipsoid organs in a dim body, four PET frames with noise, always the same, and the organs' true outlines.

    Examples
    --------
    >>> scan, organs = pet_phantom()
    >>> scan.axes, scan.counts.shape, scan.unit, organs.organs
    ('TZYX', (4, 24, 72, 40), 'Bq/mL', ('heart', 'liver', 'spleen', 'kidney'))
    """
    grid = [(np.arange(n) + 0.5) * _PIXEL_MM for n in _SHAPE]
    labels = np.zeros(_SHAPE, np.int32)
    frames = np.zeros((4, *_SHAPE))
    frames[:, _inside(grid, (6.0, 18.0, 10.0), (5.5, 17.0, 9.0))] = 8e3
    for value, (_, centre, half, kbq) in enumerate(_ELLIPSOIDS, 1):
        place = _inside(grid, centre, half)
        labels[place] = value
        frames[:, place] = 1e3 * np.array(kbq)[:, None]
    noise = np.random.default_rng(_SEED).normal(size=frames.shape)
    frames = (frames + noise * np.sqrt(1e3 * (frames + 1e3))).astype(np.float32)
    timing = FrameTiming((0.0, 600.0, 1200.0, 2400.0), (600.0, 600.0, 1200.0, 2400.0), "injection")
    scan = Scan("PET phantom", None, frames, "TZYX", (_PIXEL_MM, _PIXEL_MM), ACTIVITY, slice_mm=_PIXEL_MM, timing=timing,
                notes=("simulated: ellipsoids with noise, no scanner",))  # fmt: skip
    return scan, OrganMap(labels, {i: name for i, (name, *_) in enumerate(_ELLIPSOIDS, 1)}, "phantom")


def _inside(grid: list[np.ndarray], centre: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    squares = [((g - c) / h) ** 2 for g, c, h in zip(grid, centre, half, strict=True)]
    return (squares[0][:, None, None] + squares[1][:, None] + squares[2]) < 1


def _shown(scan: Scan, organs: OrganMap) -> list[FullLayerData]:
    return [*scan_to_layers(scan), organs_to_layer(organs, scan)]


def demo_tray() -> list[FullLayerData]:
    """Return signal, photograph and organs of the example tray."""
    return _shown(*example())


def demo_in_vivo() -> list[FullLayerData]:
    """Return signal and organs of the living animal."""
    return _shown(*example(IN_VIVO))


def demo_pet() -> list[FullLayerData]:
    """Return frames and organs of the PET phantom."""
    return _shown(*pet_phantom())
