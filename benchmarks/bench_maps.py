"""Compare parametric maps with reading the series once, with plain matrix algebra, and with a loop over voxels.

(a) 128 x 128 x 95 voxels, 30 frames, single precision, frames first: Patlak, Logan, MA1, one-tissue basis functions
    and NCA, errors and failure map included. One read pass is `np.add.reduce` over the frames.
(b) The same from 1,000 to 1,000,000 voxels: time for a voxel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import linregress
from side_by_side import medians, show

from evbiodist.kinetics.graphical.frames import Frames, InputCurve
from evbiodist.kinetics.graphical.maps import logan_map, ma1_map, nca_map, one_tissue_map, patlak_map
from evbiodist.kinetics.graphical.maps_basis import one_tissue_means
from evbiodist.kinetics.graphical.maps_kernels import have_numba

EDGES = np.r_[0, np.cumsum(np.r_[[0.25] * 6, [0.5] * 3, [1] * 5, [2.5] * 4, [5] * 12])]  # minutes
FRAMES = Frames.of(EDGES[:-1], EDGES[1:], "min")
TIME = np.r_[0:5:0.05, 5:80:1.0]
PLASMA = InputCurve.of(TIME, np.exp(-np.outer(TIME, [3, 0.2, 0.01])) @ [-60, 50, 10], "min")
T_STAR_H = 0.4
ENGINES = ("numba", "numpy") if have_numba() else ("numpy",)


def series(voxels: int) -> np.ndarray:
    """Return one-tissue curves with 5 % noise, (30, voxels), single precision."""
    rng = np.random.default_rng(0)
    curves = one_tissue_means(FRAMES, PLASMA, rng.uniform(1.2, 15, 64)) * rng.uniform(3, 18, (64, 1))
    out = np.resize(curves.T.astype(np.float32), (len(FRAMES), 64))
    out = np.tile(out, (1, -(-voxels // 64)))[:, :voxels]
    out *= 1 + 0.05 * rng.standard_normal(out.shape, dtype=np.float32)
    return np.ascontiguousarray(out)


def plain_patlak(m: np.ndarray) -> np.ndarray:
    """Slope as a textbook writes it in numpy: polyfit of all voxels at once, no errors."""
    on = FRAMES.start_h >= T_STAR_H - 1e-9
    c, total = PLASMA.mean(FRAMES)[on], PLASMA.mean_integral(FRAMES)[on]
    return np.polyfit(total / c, m[on] / c[:, None], 1)[0]


def plain_logan(m: np.ndarray) -> np.ndarray:
    """Slope as a textbook writes it in numpy: cumulative sums and array means, no errors."""
    on, d = FRAMES.start_h >= T_STAR_H - 1e-9, FRAMES.duration_h[:, None].astype(np.float32)
    own = np.cumsum(m * d, axis=0) - m * d / 2
    x, y = PLASMA.mean_integral(FRAMES)[on, None] / m[on], own[on] / m[on]
    x -= x.mean(axis=0)
    return (x * y).sum(axis=0) / (x * x).sum(axis=0)


def loop_patlak(m: np.ndarray) -> list[float]:
    on = FRAMES.start_h >= T_STAR_H - 1e-9
    c, total = PLASMA.mean(FRAMES)[on], PLASMA.mean_integral(FRAMES)[on]
    return [linregress(total / c, curve[on] / c).slope for curve in m.T]


def ours(m: np.ndarray, engine: str) -> dict[str, Callable[[], object]]:
    line = {"t_star_h": T_STAR_H, "engine": engine}
    return {
        f"patlak_map, {engine}": lambda: patlak_map(FRAMES, m, PLASMA, **line),
        f"logan_map, {engine}": lambda: logan_map(FRAMES, m, PLASMA, **line),
        f"ma1_map, {engine}": lambda: ma1_map(FRAMES, m, PLASMA, **line),
        f"one_tissue_map, 64 rates, {engine}": lambda: one_tissue_map(FRAMES, m, PLASMA, engine=engine),
    }


def check(m: np.ndarray) -> None:
    """Stop if the ways do not agree."""
    few = np.ascontiguousarray(m[:, :500])
    for engine in ENGINES:
        ki = patlak_map(FRAMES, few, PLASMA, t_star_h=T_STAR_H, engine=engine)["ki"]
        np.testing.assert_allclose(ki, plain_patlak(few), rtol=1e-3)
        np.testing.assert_allclose(ki, loop_patlak(few), rtol=1e-3)
        vt = logan_map(FRAMES, few, PLASMA, t_star_h=T_STAR_H, engine=engine)["vt"]
        np.testing.assert_allclose(vt, plain_logan(few), rtol=1e-3)
        for way in ours(few, engine).values():
            way()


def side_by_side(quick: bool, repeats: int) -> None:
    """(a)"""
    voxels = 64 * 64 * 48 if quick else 128 * 128 * 95
    m = series(voxels)
    check(m)
    copy = np.empty_like(m)
    ways: dict[str, Callable[[], object]] = {
        "one read pass (np.add.reduce over frames)": lambda: np.add.reduce(m, axis=0),
        "copying the series": lambda: np.copyto(copy, m),
    }
    for engine in ENGINES:
        ways |= ours(m, engine)
    ways |= {
        "patlak_map, all 30 frames on the line": lambda: patlak_map(FRAMES, m, PLASMA, t_star_h=0),
        "logan_map, all 30 frames on the line": lambda: logan_map(FRAMES, m, PLASMA, t_star_h=0),
        "nca_map": lambda: nca_map(FRAMES, m, terminal_from_h=0.8),
        "Patlak, numpy polyfit, no errors": lambda: plain_patlak(m),
        "Logan, numpy array algebra, no errors": lambda: plain_logan(m),
    }
    some = np.ascontiguousarray(m[:, :2000])
    seconds = medians(ways, repeats)
    loop = medians({"loop": lambda: loop_patlak(some)}, 3)["loop"] * voxels / some.shape[1]
    seconds["Patlak, loop of linregress (from 2,000 voxels)"] = loop
    show(f"{voxels:,} voxels x {len(FRAMES)} frames, float32", seconds, "one read pass (np.add.reduce over frames)")


def growth(repeats: int) -> None:
    """(b)"""
    print("\nNanoseconds a voxel")
    for voxels in (1_000, 10_000, 100_000, 1_000_000):
        m = series(voxels)
        seconds = medians(ours(m, ENGINES[0]), repeats)
        print(f"  {voxels:>9,}  " + "  ".join(f"{k.split(',')[0]} {1e9 * s / voxels:8.1f}" for k, s in seconds.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller volume")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    side_by_side(arguments.quick, arguments.repeats)
    growth(arguments.repeats)
