"""Digital studies of living animals: several mice a frame, back and belly, light through tissue, with truth.

Written as click folders like an instrument's. Anatomy, tissue optics, posture and kinetics are drawn for every
animal; `Variation` says how far they go beyond what an estimator assumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import tomli_w
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.diffusion import View
from evbiodist.phantom.body import DigitalAnimal, Posture, Variation
from evbiodist.phantom.ivis import Ivis
from evbiodist.phantom.study import at_time, digits, mean_one, parameter_truth, write_csv
from evbiodist.phantom.truth import ORGANS, Kinetics, LabelTruth

FloatArray = NDArray[np.float64]
#: The dose standard: a drop in air beside the animals, where and how large in mm, and the share of the dose in it.
_STANDARD_AT, _STANDARD_MM, _STANDARD_PCT, _STANDARD_SE = (52.0, -54.0), 3.0, 0.1, 0.002
_REACH_MM = 42.0
#: Full width at half maximum of the lens.
_LENS_MM = 1.2


@dataclass(frozen=True)
class OpticalDesign:
    """The design of a digital in-vivo study.

    Parameters
    ----------
    times_h : of imaging; animals : in one frame, side by side (1 to 3); views : taken at every time.
    label : its name and how it reads; emission_nm, excitation_nm : excitation None for bioluminescence.
    flux_per_pct : photons per second that 1 % of the dose gives in air.
    variation : of the animals; animal_cv, kinetics_cv : spread of uptake between animals and of the study.
    autofluorescence_pct : light of unlabelled tissue, as % of dose spread over the body.
    camera : the instrument.
    """

    times_h: tuple[float, ...] = (0.5, 4.0, 24.0)
    animals: int = 3
    views: tuple[View, ...] = ("dorsal", "ventral")
    label: LabelTruth = field(default_factory=lambda: LabelTruth("DiR"))
    emission_nm: float = 780.0
    excitation_nm: float | None = 745.0
    flux_per_pct: float = 3.0e9
    variation: Variation = field(default_factory=lambda: Variation(turn_rad=0.0))
    animal_cv: float = 0.25
    kinetics_cv: float = 0.2
    autofluorescence_pct: float = 0.3
    camera: Ivis = field(default_factory=Ivis)

    def __post_init__(self) -> None:
        if not 1 <= self.animals <= 3:
            raise ValueError(f"{self.animals} animals do not lie side by side in the field of view; give 1 to 3")


def write_optical_study(folder: str | Path, seed: int = 1, design: OpticalDesign | None = None) -> Path:
    """Generate a digital in-vivo study with known truth and write it as a study folder.

    Parameters
    ----------
    folder : made if it is not there; files of the same name are overwritten.
    seed : the same seed and design give the same bytes.
    design : animals, times, views, label and how animals differ.

    Returns
    -------
    Path : of study.toml, whose settings infer the anatomy (``footprint = "optical"``). truth.csv holds per animal,
        organ and time what the label reads (`reading`), in % of dose; the rest of the body is `body`.

    Raises
    ------
    ValueError : more animals than fit into the field of view.
    """
    design = design or OpticalDesign()
    folder, rng, name = Path(folder), np.random.default_rng(seed), design.label.name
    kinetics = Kinetics.draw(rng, design.kinetics_cv)
    animals = [DigitalAnimal.draw(rng, design.variation) for _ in range(design.animals)]
    names = [f"{name}_{i}" for i in range(1, design.animals + 1)]
    own = [{o: mean_one(rng, design.animal_cv) for o in (*ORGANS, "blood", "gut")} for _ in animals]
    maps = [animal.seen(design.views, design.emission_nm, design.excitation_nm) for animal in animals]
    standard = float(rng.normal(_STANDARD_PCT, _STANDARD_SE))
    camera, dark = design.camera, design.camera.dark_frame(rng)
    tables: dict[str, list[dict[str, Any]]] = {"subjects": [], "scans": [], "truth": []}
    for animal, subject in zip(animals, names, strict=True):
        tables["subjects"].append({
            "subject": subject, "species": "mouse", "sex": "F", "weight_g": f"{animal.anatomy.weight_g:.1f}", "group": "in_vivo",
            "label": name, "route": "iv_bolus", "dose": 1e10, "dose_unit": "particles", "perfused": "no"})  # fmt: skip
    _write_standard(folder / "standard.tif", camera)
    for time in design.times_h:
        activity = [_activity(kinetics, design, time, factors) for factors in own]
        for subject, amounts in zip(names, activity, strict=True):
            tables["truth"] += [{"kind": "observation", "name": subject, "label": name, "organ": organ, "time_h": time,
                                 "vesicle": "", "reading": digits(value)} for organ, value in amounts.items()]  # fmt: skip
        for view in design.views:
            click = f"clicks/{name}_{time:g}h_{view}"
            flux, photograph = _scene(design, animals, maps, activity, standard, view, rng)
            filters = (
                "Block" if design.excitation_nm is None else f"{design.excitation_nm:g}",
                f"{design.emission_nm:g}",
            )
            camera.write(
                folder / click, camera.expose(flux, rng), photograph, dark, filters, ("2026-01-05", "10:00:00")
            )
            tables["scans"].append({
                "scan": f"{name}_{time:g}h_{view}", "subject": ";".join(names), "label": name, "time_h": time, "kind": "in_vivo",
                "file": click, "view": view, "organs": "standard.tif", "gain_e": camera.gain_e,
                "read_noise_e": camera.read_noise_e})  # fmt: skip
    parameter_truth(kinetics, design.times_h, (design.label,), tables["truth"])
    for table, rows in tables.items():
        write_csv(folder / f"{table}.csv", rows)
    path = folder / "study.toml"
    path.write_bytes(tomli_w.dumps(_study(design, seed)).encode())
    return path


def _activity(kinetics: Kinetics, design: OpticalDesign, time: float, own: Mapping[str, float]) -> dict[str, float]:
    """Return % of dose that the label reads in every organ at a time; blood is spread over the body."""
    reading = at_time(kinetics.reads(design.label, np.array([time])))
    amounts = {o: reading[o] * own[o] for o in ORGANS}
    blood = reading["blood"] * float(kinetics.vesicle[0]) * own["blood"]
    # what the liver sheds with bile, and food that glows, lies in the gut
    amounts["gut"] = 0.15 * amounts["liver"] * own["gut"]
    amounts["body"] = blood + design.autofluorescence_pct
    return amounts


def _scene(
    design: OpticalDesign, animals: list[DigitalAnimal], maps: list[dict[View, dict[str, FloatArray]]],
    activity: list[dict[str, float]], standard: float, view: View, rng: np.random.Generator,
) -> tuple[FloatArray, NDArray[np.uint8]]:  # fmt: skip
    """Return flux in p/s a pixel and the photograph of one frame, every animal laid anew."""
    camera = design.camera
    shape, pixel = (camera.columns, camera.columns), camera.pixel_mm
    flux, bodies = np.zeros(shape), np.zeros(shape)
    for i, animal in enumerate(animals):
        middle = (i - (len(animals) - 1) / 2) * _REACH_MM
        posture = Posture(
            float(rng.normal(0, 0.06)), (float(rng.uniform(-4, 2)), middle + float(rng.uniform(-1.5, 1.5)))
        )
        for organ, amount in activity[i].items():
            flux += amount * animal.on_stage(maps[i][view][organ], view, shape, pixel, posture)
        body, tail = animal.silhouette(shape, pixel, view, posture)
        bodies = np.maximum(bodies, np.where(body | tail, 1.0, 0.0))
    drop = _standard_mask(camera)
    flux += standard * drop / drop.sum()
    flux = ndimage.gaussian_filter(flux, _LENS_MM / pixel / np.sqrt(8 * np.log(2))) * design.flux_per_pct
    shade = ndimage.gaussian_filter(bodies, 1.0 / pixel) * 175 + 20 + 60 * drop
    return flux, np.clip(np.rint(shade + rng.normal(0, 2.0, shape)), 0, 255).astype(np.uint8)


def _standard_mask(camera: Ivis) -> NDArray[np.bool_]:
    at = (np.arange(camera.columns) - (camera.columns - 1) / 2) * camera.pixel_mm
    return np.asarray(np.hypot(at[:, None] - _STANDARD_AT[0], at[None, :] - _STANDARD_AT[1]) <= _STANDARD_MM / 2)


def _write_standard(path: Path, camera: Ivis) -> None:
    """Write the label image that marks the place of the standard, with room for the lens's blur."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drop = ndimage.binary_dilation(_standard_mask(camera), iterations=round(2 * _LENS_MM / camera.pixel_mm))
    tifffile.imwrite(path, drop.astype(np.uint8), compression="zlib")


def _study(design: OpticalDesign, seed: int) -> dict[str, Any]:
    label: dict[str, Any] = {"kind": "bioluminescence", "emission_nm": design.emission_nm}
    if design.excitation_nm is not None:
        label |= {"kind": "fluorescence", "excitation_nm": design.excitation_nm}
    return {
        "name": "digital mice in vivo",
        "species": "mouse",
        "simulated": True,
        "description": f"Light through tissue in digital mice, back and belly. Seed {seed}. truth.csv holds what made the files.",
        "labels": {design.label.name: label},
        "tables": {"subjects": "subjects.csv", "scans": "scans.csv"},
        "imaging": {
            "footprint": "optical",
            "psf_fwhm_mm": _LENS_MM,
            "standard": {"organ": "standard", "pct_of_dose": _STANDARD_PCT, "pct_of_dose_se": _STANDARD_SE},
            "organ_labels": {"1": "standard"},
        },
        "kinetics": {"models": []},
    }
