"""Compare `quantify_series` with per-frame label sums, with the bare decoding of a file, and with a memory cap.

(a) Organ curves of a volume series against regionprops_table, sum_labels and bincount, frame by frame. These give sums,
    ours also background, covariance and residual variance of every frame.
(b) Reading and quantifying a compressed OME-TIFF against tifffile decoding it, nothing else done.
(c) An OME-Zarr larger than a cap on memory: the peak of a child process under that cap.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from side_by_side import medians, show
from skimage.measure import regionprops_table

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.series import quantify_series
from evbiodist.io.ome_zarr import write_ome_zarr
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import ACTIVITY, Camera, Scan
from evbiodist.io.stream import LazyArray
from evbiodist.study.model import ImagingSettings

ORGANS = 12
INDEX = np.arange(ORGANS + 1)
NAMES = {i: f"organ {i}" for i in INDEX[1:].tolist()}
CAP_MIB = 512


def make_labels(shape: tuple[int, ...]) -> np.ndarray:
    """Return twelve ellipses or ellipsoids on a 4 x 3 grid of the last two axes, labels 1..12."""
    at = np.indices(shape, dtype=np.float32)
    labels = np.zeros(shape, np.int32)
    step_y, step_x = shape[-2] / 4, shape[-1] / 3
    for i in range(ORGANS):
        centre_y, centre_x = step_y * (i // 3 + 0.5), step_x * (i % 3 + 0.5)
        far = ((at[-2] - centre_y) / (step_y * (0.2 + 0.015 * i))) ** 2 + ((at[-1] - centre_x) / (step_x * 0.3)) ** 2
        if len(shape) == 3:
            far += ((at[0] - shape[0] / 2) / (shape[0] * 0.3)) ** 2
        labels[far < 1] = i + 1
    return labels


def volumes(frames: int, shape: tuple[int, ...], labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    bright = np.r_[20.0, rng.uniform(50, 500, ORGANS)].astype(np.float32)
    out = np.empty((frames, *shape), np.float32)
    for k, frame in enumerate(out):
        frame[...] = (bright * np.exp(-0.05 * k))[labels]
        frame += 5 * rng.standard_normal(shape, dtype=np.float32)
    return out


def curves(quick: bool, repeats: int) -> None:
    """(a)"""
    shape, frames = ((32, 96, 96), 8) if quick else ((64, 192, 192), 24)
    labels = make_labels(shape)
    pixels = volumes(frames, shape, labels)
    organs = OrganMap(labels, NAMES, "label image")
    scan = Scan("series", None, pixels, "TZYX", (0.4, 0.4), unit=ACTIVITY, slice_mm=0.8)
    known = Scan("series", None, pixels, "TZYX", (0.4, 0.4), camera=Camera(gain_e=1.0, read_noise_e=5.0), slice_mm=0.8)
    flat = labels.ravel()
    ours = "evbiodist quantify_series, plain sums, noise given"
    blurred = ImagingSettings(footprint="psf", psf_fwhm_mm=1.2, psf_fwhm_z_mm=1.6)

    def ways(first: int) -> dict[str, Callable[[], object]]:
        some, quick_scan, pet = (
            pixels[:first],
            replace(known, counts=pixels[:first]),
            replace(scan, counts=pixels[:first]),
        )
        return {
            ours: lambda: quantify_series(quick_scan, organs),
            "the same, noise from the image (as in PET)": lambda: quantify_series(pet, organs),
            "the same, blurred footprints (GTM)": lambda: quantify_series(pet, organs, blurred),
            "numpy.bincount": lambda: [np.bincount(flat, weights=f.ravel(), minlength=ORGANS + 1) for f in some],
            "scipy.ndimage.sum_labels": lambda: [ndimage.sum_labels(f, labels, INDEX) for f in some],
            "skimage regionprops_table": lambda: [
                regionprops_table(labels, f, ("area", "intensity_mean")) for f in some
            ],
        }

    found = quantify_series(known, organs)
    area = np.bincount(flat)[1:]
    plain = np.array([np.bincount(flat, weights=f.ravel(), minlength=ORGANS + 1)[1:] for f in pixels])
    np.testing.assert_allclose(found.value + area * found.background[:, None], plain, rtol=1e-6)
    size = " x ".join(map(str, (frames, *shape)))
    whole, part = medians(ways(frames), repeats), medians(ways(frames // 4), repeats)
    show(f"(a) organ curves of {size}, {ORGANS} organs, sums agree to 1e-6", whole, ours)
    more = {name: (whole[name] - part[name]) / (frames - frames // 4) for name in whole}
    show("    of that for each further frame, once outlines and weights are made", more, ours)


def decoding(quick: bool, repeats: int, folder: Path) -> None:
    """(b)"""
    frames, side = (200, 256) if quick else (2000, 512)
    labels = make_labels((side, side))
    organs = OrganMap(labels, NAMES, "label image")
    path = folder / "film.ome.tif"
    rng = np.random.default_rng(2)
    bright = ndimage.gaussian_filter(np.r_[10.0, rng.uniform(50, 500, ORGANS)][labels], 1.1)  # a lens blurs
    noise = rng.normal(0, 1, (side, side))

    def planes():
        for k in range(frames):
            expected = bright * np.exp(-3 * k / frames)
            yield np.rint(100 + expected + np.sqrt(expected + 9) * np.roll(noise, (7 * k, 3 * k), (0, 1))).astype(
                np.uint16
            )

    tifffile.imwrite(path, planes(), shape=(frames, side, side), dtype=np.uint16, compression="zlib",
                     metadata={"axes": "TYX"}, photometric="minisblack")  # fmt: skip

    def ours(settings: ImagingSettings) -> object:
        scan = read_scan(path)
        scan = Scan(scan.name, scan.path, scan.counts, scan.axes, offset=100.0,
                    camera=Camera(gain_e=1.0, read_noise_e=3.0, bias=100.0, saturation=60000.0))  # fmt: skip
        return quantify_series(scan, organs, settings)

    name = "tifffile.imread alone"
    ways = {
        name: lambda: tifffile.imread(path),
        "evbiodist read + quantify_series": lambda: ours(ImagingSettings()),
        "the same, cosmic rays not looked for": lambda: ours(ImagingSettings(cosmic=False)),
        "the same, blurred footprints": lambda: ours(ImagingSettings(footprint="psf", psf_fwhm_px=3.0, cosmic=False)),
    }
    for way in list(ways.values())[1:]:
        way()
    size = path.stat().st_size / 2**20
    show(f"(b) {frames} frames {side} x {side} uint16, zlib OME-TIFF of {size:.0f} MiB", medians(ways, repeats), name)


class _Made(LazyArray):
    """Frames made when they are asked for, so that writing them takes no memory either."""

    def __init__(self, shape: tuple[int, ...], labels: np.ndarray) -> None:
        self.shape, self.dtype, self.chunks = shape, np.dtype(np.uint16), (1, *shape[1:])
        self._base = (100 + 20 * labels).astype(np.uint16)

    def _take(self, index):
        first, rest = index[0], index[1:]
        if isinstance(first, int):
            return (self._base + np.uint16(first % 7))[rest]
        return np.stack([(self._base + np.uint16(t % 7))[rest] for t in range(*first.indices(self.shape[0]))])


_CHILD = """
import resource, sys
import numpy as np
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.series import quantify_series
from evbiodist.io.registry import read_scan
labels = np.load(sys.argv[2])
scan = read_scan(sys.argv[1])
organs = OrganMap(labels, {i: f"organ {i}" for i in range(1, 13)}, "label image")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = quantify_series(scan, organs)
assert found.value.shape == (scan.counts.shape[0], 12)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def capped(quick: bool, folder: Path) -> None:
    """(c)"""
    shape = (32, 192, 192)
    frames = (128 if quick else CAP_MIB * 4) * 2**20 // (2 * int(np.prod(shape))) + 1
    labels = make_labels(shape)
    np.save(folder / "labels.npy", labels)
    made = Scan("made", None, _Made((frames, *shape), labels), "TZYX", (0.4, 0.4), slice_mm=0.8)
    write_ome_zarr(folder / "big.zarr", made)
    done = subprocess.run([sys.executable, "-c", _CHILD, str(folder / "big.zarr"), str(folder / "labels.npy")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    before, peak = (int(v) / 1024 for v in done.stdout.split())
    data = frames * 2 * np.prod(shape) / 2**20
    print(f"\n(c) OME-Zarr of {data:.0f} MiB in {frames} volumes: peak {peak:.0f} MiB of resident memory "
          f"({before:.0f} MiB of it before the first pixel), cap {CAP_MIB} MiB")  # fmt: skip
    if peak > CAP_MIB:
        raise SystemExit("over the cap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--only", choices=("a", "b", "c"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.only in (None, "a"):
            curves(asked.quick, asked.repeats)
        if asked.only in (None, "b"):
            decoding(asked.quick, asked.repeats, Path(folder))
        if asked.only in (None, "c"):
            capped(asked.quick, Path(folder))


if __name__ == "__main__":
    main()
