"""Organ amounts recovered from digital mice lit photon by photon: the check of the light model by one that shares no equation.

    OPENBLAS_NUM_THREADS=1 python benchmarks/monte_carlo.py --animals 8 --photons 800000 --out mc --table docs/monte_carlo_table.md

Excitation (745 nm) and emission (780 nm) of every organ are followed by Monte Carlo on voxels of 0.5 mm; the analysis
knows only diffusion on voxels of 1.5 mm. Compared on the same images: `ours` (anatomy inferred), `atlas` (organs where
the atlas has them) and `exact` (the animal's own anatomy, published optics, so that what is left is the light model's
error). `diffusion` is `ours` on images of the same animals and amounts made by diffusion instead of photons.
The photon images are kept in the --out folder: a run that was stopped goes on where it was.
"""  # fmt: skip

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.anatomy import LOBES, REST, Anatomy
from evbiodist.imaging.diffusion import View
from evbiodist.imaging.joint import Frame, infer
from evbiodist.imaging.optics import optics
from evbiodist.phantom.body import DigitalAnimal, Variation
from evbiodist.phantom.photons import Optics, illuminate, similarity, trace

FloatArray = NDArray[np.float64]
ORGANS = (*LOBES, REST)
VIEWS: tuple[View, ...] = ("dorsal", "ventral")
EXCITATION_NM, EMISSION_NM = 745.0, 780.0
CONE_DEG, G = 15.0, 0.7
#: Voxels of the photons' mouse along the edge of one of `DigitalAnimal.grid` (1 mm).
FINER = 2
#: Amounts in % of dose, and the body's at the two times (blood first, then what is left of it); spread of their logarithm.
AMOUNTS = {"brain": 1.0, "heart": 0.8, "spleen": 5.0, "kidney": 7.0, "liver": 50.0, "lung": 2.5, "gut": 6.0}
BODY_PCT, SPREAD_LOG = (20.0, 4.0), 0.5
#: The camera: an image of the stage, electrons that 1 % of the dose gives in air, stray light, and the lens.
SHAPE, PIXEL_MM, ELECTRONS_PER_PCT, STRAY_E, LENS_MM = (120, 100), 1.0, 1e6, 5.0, 1.2


@dataclass(frozen=True, eq=False)
class Light:
    """What a camera sees per mm2 of one unit of activity in each organ (organs, Y, X), by view, and its variance."""

    seen: dict[View, FloatArray]
    variance: dict[View, FloatArray]


def draw(seed: int) -> DigitalAnimal:
    return DigitalAnimal.draw(np.random.default_rng([seed, 0]), Variation())


def voxels(animal: DigitalAnimal) -> NDArray[np.int8]:
    """Return the organ of every fine voxel, 1 + its place in ORGANS, 0 in air."""
    step = float(animal.grid[0][1] - animal.grid[0][0])
    between = step * ((np.arange(FINER) + 0.5) / FINER - 0.5)
    z, y, x = ((axis[:, None] + between).ravel() for axis in animal.grid)
    s, u = animal.coordinates(y[:, None], x[None, :])
    low, high = animal.anatomy.skin(s, u)
    inside = (z[:, None, None] > low) & (z[:, None, None] < high)
    labels = np.where(inside, len(ORGANS), 0).astype(np.int8)
    for place, organ in reversed(list(enumerate(LOBES, 1))):  # where organs overlap, the one named first has the place
        labels[inside & (animal.anatomy.level(organ, s[None], u[None], z[:, None, None]) > 0)] = place
    return labels


def tissue(animal: DigitalAnimal, nm: float) -> dict[int, Optics]:
    return {place: similarity(optics(organ, nm).mu_a * animal.absorption.get(organ, 1.0),
                              optics(organ, nm).mu_s_reduced * animal.scattering.get(organ, 1.0), G)
            for place, organ in enumerate(ORGANS, 1)}  # fmt: skip


def by_photons(animal: DigitalAnimal, photons: int, seed: int) -> Light:
    """Follow the exciting light in, and from every organ the emitted light out."""
    labels, edge = voxels(animal), 1.0 / FINER
    exciting, emitting = tissue(animal, EXCITATION_NM), tissue(animal, EMISSION_NM)
    light = Light({}, {})
    for view in VIEWS:
        below = view == "ventral"
        fluence = illuminate(labels, exciting, edge, 2 * photons, seed, from_below=below).fluence
        seen, variance = [], []
        for place in range(1, len(ORGANS) + 1):
            source = np.where(labels == place, fluence, 0.0)
            emitted = source.sum() / np.sum(labels == place)  # per unit of activity
            out = trace(labels, emitting, source, edge, photons, 100 * seed + place, cone_deg=CONE_DEG)
            image, spread = (out.below, out.below_var) if below else (out.above, out.above_var)
            seen.append(emitted * _coarse(image))
            variance.append(emitted**2 * _coarse(spread))
        light.seen[view], light.variance[view] = np.stack(seen), np.stack(variance)
    return light


def _coarse(image: FloatArray) -> FloatArray:
    """Sum pixels to those of `DigitalAnimal.grid`, of 1 mm2."""
    y, x = image.shape
    return image.reshape(y // FINER, FINER, x // FINER, FINER).sum(axis=(1, 3))


def kept(animal: DigitalAnimal, photons: int, seed: int, folder: Path) -> Light:
    """Return an animal's photon images from the folder, or make them and put them there."""
    # a mouse that the code now draws otherwise is another mouse
    told = repr((tissue(animal, EXCITATION_NM), tissue(animal, EMISSION_NM), CONE_DEG)).encode()
    path = folder / f"animal_{seed}_{photons}_{hashlib.sha256(voxels(animal).tobytes() + told).hexdigest()[:12]}.npz"
    if not path.is_file():
        light = by_photons(animal, photons, seed)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as handle:
            np.savez_compressed(handle, **{f"seen_{v}": light.seen[v] for v in VIEWS},
                                **{f"variance_{v}": light.variance[v] for v in VIEWS})  # fmt: skip
        os.replace(unfinished, path)
    with np.load(path) as found:
        return Light({v: found[f"seen_{v}"] for v in VIEWS}, {v: found[f"variance_{v}"] for v in VIEWS})


def by_diffusion(animal: DigitalAnimal) -> Light:
    maps = animal.seen(VIEWS, EMISSION_NM, EXCITATION_NM)
    seen = {v: np.stack([maps[v][o] for o in ORGANS]) for v in VIEWS}
    return Light(seen, {v: np.zeros_like(s) for v, s in seen.items()})


def amounts(rng: np.random.Generator) -> FloatArray:
    """Return % of dose in each organ at each time, shape (T, organs)."""
    typical = np.array([[AMOUNTS.get(o, body) for o in ORGANS] for body in BODY_PCT])
    return np.asarray(typical * np.exp(rng.normal(0, SPREAD_LOG, typical.shape)))


def photograph(
    animal: DigitalAnimal, light: Light, held: FloatArray, rng: np.random.Generator
) -> list[Frame]:  # fmt: skip
    """Return the images of both views at all times, in % of dose, with the true outline's coordinates."""
    frames, blur = [], LENS_MM / PIXEL_MM / np.sqrt(8 * np.log(2))
    row, column = ((np.arange(n) - (n - 1) / 2) * PIXEL_MM for n in SHAPE)
    for time, now in enumerate(held):
        for view in VIEWS:
            image = _stage(animal, np.tensordot(now, light.seen[view], 1), view)
            # a pixel that no photon met by chance is no surer than its neighbours
            chance = ndimage.gaussian_filter(_stage(animal, np.tensordot(now**2, light.variance[view], 1), view), 2.0)
            electrons = ndimage.gaussian_filter(image, blur) * ELECTRONS_PER_PCT + STRAY_E
            counted = rng.poisson(electrons) / ELECTRONS_PER_PCT
            s, u = animal.coordinates(row[:, None], (-column if view == "ventral" else column)[None, :])
            s = np.where((s >= 0) & (s <= 1) & (np.abs(u) < animal.anatomy.half_width(s)), s, np.nan)
            frames.append(Frame(counted, electrons / ELECTRONS_PER_PCT**2 + chance, s, -u if view == "ventral" else u,
                                view, time, PIXEL_MM, blur, EMISSION_NM, EXCITATION_NM))  # fmt: skip
    return frames


def _stage(animal: DigitalAnimal, per_mm2: FloatArray, view: View) -> FloatArray:
    return np.maximum(animal.on_stage(per_mm2, view, SHAPE, PIXEL_MM), 0.0)


def outline(animal: DigitalAnimal) -> Anatomy:
    """Return the atlas in the animal's true outline: its length, width and weight are known, height and organs are not."""
    true = animal.anatomy
    return replace(
        Anatomy.of_weight(true.weight_g), length_mm=true.length_mm, half_width_mm=true.half_width_mm
    )  # fmt: skip


def compare(animal: DigitalAnimal, light: Light, seed: int) -> list[dict[str, object]]:
    """Return one row per method, organ and time."""
    rng = np.random.default_rng([seed, 1])
    held = amounts(rng)
    diffuse = by_diffusion(animal)
    frames, control = photograph(animal, light, held, rng), photograph(animal, diffuse, held, rng)
    body = outline(animal)
    fits = {
        "ours": infer(frames, body),
        "atlas": infer(frames, body, fit_anatomy=False),
        "exact": infer(frames, animal.anatomy, fit_anatomy=False),
        "diffusion": infer(control, body),
    }
    ratio = {f"{v}_ratio": light.seen[v].sum((1, 2)) / diffuse.seen[v].sum((1, 2)) for v in VIEWS}
    return [{"seed": seed, "method": method, "time": t, "organ": organ, "truth": held[t, k], "value": fit.activity[t, k],
             "se": fit.se[t, k], **{name: r[k] for name, r in ratio.items()}}
            for method, fit in fits.items() for t in range(len(held)) for k, organ in enumerate(fit.organs)]  # fmt: skip


def table(rows: pd.DataFrame, photons: int) -> str:
    rows = rows.assign(rel=rows.value / rows.truth - 1, held=(rows.value - rows.truth).abs() <= 1.96 * rows.se)
    methods = ("ours", "atlas", "exact", "diffusion")
    head = " | ".join(f"{m}: median error | bias | covered" for m in methods)
    lines = [
        "# Organ amounts from images made photon by photon", "",
        "`ours` infers the anatomy, `atlas` takes the organs where the atlas has them, `exact` knows the animal's own anatomy; "
        "all three see the same photon images and know published optics only. `diffusion` is `ours` on images of the same "
        "animals and amounts made by diffusion: what is left when the light model is right.", "",
        f"{rows.seed.nunique()} animals as `Variation()` draws them, two times, back and belly. {photons:,} photons a source (8 "
        f"organs, 2 views), {2 * photons:,} for the exciting light of each view; {EXCITATION_NM:g} nm in, {EMISSION_NM:g} nm out; "
        f"voxels of {1 / FINER:g} mm; g = {G:g} with the same reduced scattering, index 1.4, camera cone {CONE_DEG:g} degrees; "
        f"Poisson noise of {ELECTRONS_PER_PCT:,.0f} electrons per % of dose in air. Median error is that of |value / truth - 1|, "
        "bias the median of value / truth - 1, covered the share of truths within 1.96 standard errors.", "",
        f"| organ | {head} |", "|---" * (1 + 3 * len(methods)) + "|",
    ]  # fmt: skip
    for organ in (*ORGANS, "all"):
        part = rows if organ == "all" else rows[rows.organ == organ]
        cells = []
        for method in methods:
            own = part[part.method == method]
            cells += [
                f"{100 * own.rel.abs().median():.0f} %",
                f"{100 * own.rel.median():+.0f} %",
                f"{100 * own.held.mean():.0f} %",
            ]
        lines.append(f"| {organ} | " + " | ".join(cells) + " |")
    lines += ["", "Light that the camera sees of each organ, by photons over diffusion in the same animal (median, range):", "",
              "| organ | dorsal | ventral |", "|---|---|---|"]  # fmt: skip
    for organ in ORGANS:
        own = rows[(rows.organ == organ) & (rows.method == "ours") & (rows.time == 0)]
        cells = [f"{r.median():.2f} ({r.min():.2f} to {r.max():.2f})" for r in (own[f"{view}_ratio"] for view in VIEWS)]
        lines.append(f"| {organ} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(animals: int, photons: int, out: Path, result: Path | None) -> str:
    rows: list[Mapping[str, object]] = []
    text = ""
    for seed in range(animals):
        animal = draw(seed)
        rows += compare(animal, kept(animal, photons, seed, out), seed)
        text = table(pd.DataFrame(rows), photons)
        if result:
            result.write_text(text)
        print(f"animal {seed + 1} of {animals}", flush=True)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--animals", type=int, default=8)
    parser.add_argument("--photons", type=int, default=800_000)
    parser.add_argument("--out", type=Path, default=Path("monte_carlo"))
    parser.add_argument("--table", type=Path, default=None, help="write the table to this file after every animal")
    given = parser.parse_args()
    print(run(given.animals, given.photons, given.out, given.table))
