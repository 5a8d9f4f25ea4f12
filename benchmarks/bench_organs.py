"""Compare `estimate` with the two ways people sum organs: scikit-image's regionprops_table and scipy's sum_labels.

For ROI footprints all three have one answer: the sum over an organ less background, with its variance. Ours also
returns the covariance between organs, a residual image and chi2, and takes any footprint, so it may well be slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from side_by_side import medians, show
from skimage.measure import regionprops_table

from evbiodist.imaging.estimator import estimate
from evbiodist.imaging.footprints import FOOTPRINTS
from evbiodist.imaging.organs import OrganMap

SIZE, ORGANS, FRAMES = 256, 12, 50
INDEX = np.arange(ORGANS + 1)
OURS = "evbiodist estimate, footprints built once"
Answer = tuple[np.ndarray, np.ndarray]  # signal and standard error, each (n_organs,)


def make_labels() -> np.ndarray:
    """Return twelve ellipses on a 4 x 3 grid, labels 1..12, shape (256, 256)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), dtype=np.int32)
    for i in range(ORGANS):
        centre_y, centre_x = 32 + 64 * (i // 3), 43 + 85 * (i % 3)
        labels[((y - centre_y) / (12 + i)) ** 2 + ((x - centre_x) / (30 - i)) ** 2 < 1] = i + 1
    return labels


def make_frames(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts with shot noise and their variance, each (frames, Y, X)."""
    rng = np.random.default_rng(2)
    bright = np.r_[20.0, rng.uniform(50, 500, ORGANS)][labels]
    variance = np.stack([bright * np.exp(-0.03 * k) + 9.0 for k in range(FRAMES)])
    return variance - 9.0 + rng.normal(0, np.sqrt(variance)), variance


def with_estimate(footprints: object, frame: np.ndarray, variance: np.ndarray) -> Answer:
    fit = estimate(frame, footprints, variance, weighting="uniform")
    return fit.signal, fit.se


def with_labels(labels: np.ndarray, frame: np.ndarray, variance: np.ndarray) -> Answer:
    area = np.bincount(labels.ravel())
    return _less_background(ndimage.sum_labels(frame, labels, INDEX), ndimage.sum_labels(variance, labels, INDEX), area)


def with_regionprops(labels: np.ndarray, frame: np.ndarray, variance: np.ndarray) -> Answer:
    found = regionprops_table(labels + 1, np.dstack([frame, variance]), ("area", "intensity_mean"))
    area = found["area"]
    return _less_background(found["intensity_mean-0"] * area, found["intensity_mean-1"] * area, area)


def _less_background(total: np.ndarray, variance: np.ndarray, area: np.ndarray) -> Answer:
    level, spread = total[0] / area[0], variance[0] / area[0] ** 2
    return total[1:] - area[1:] * level, np.sqrt(variance[1:] + area[1:] ** 2 * spread)


def check(ways: dict[str, Callable[[np.ndarray, np.ndarray], Answer]], frame: np.ndarray, variance: np.ndarray) -> None:
    signal, se = ways[OURS](frame, variance)
    for way in ways.values():
        other = way(frame, variance)
        np.testing.assert_allclose(other[0], signal, rtol=1e-8)
        np.testing.assert_allclose(other[1], se, rtol=1e-8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    labels = make_labels()
    frames, variances = make_frames(labels)
    organs = OrganMap(labels, {i: f"organ {i}" for i in INDEX[1:]}, "label image")
    build = FOOTPRINTS["roi"].sparse
    footprints = build(organs)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], Answer]] = {
        OURS: lambda f, v: with_estimate(footprints, f, v),
        "evbiodist estimate, footprints built each time": lambda f, v: with_estimate(build(organs), f, v),
        "skimage regionprops_table": lambda f, v: with_regionprops(labels, f, v),
        "scipy.ndimage.sum_labels": lambda f, v: with_labels(labels, f, v),
    }
    check(ways, frames[0], variances[0])
    for count in (1, FRAMES):
        jobs = {
            name: lambda way=way, n=count: [way(f, v) for f, v in zip(frames[:n], variances[:n], strict=True)]
            for name, way in ways.items()
        }
        job = f"{count} frame(s) of {SIZE} x {SIZE}, {ORGANS} organs, signal and error, answers agree to 1e-8"
        show(job, medians(jobs, repeats), OURS)


if __name__ == "__main__":
    main()
