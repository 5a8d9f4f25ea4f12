"""A whole digital study on disk: trays, in-vivo frames, a gamma counter's table, and truth.csv.

The files are what an instrument would give: 16-bit counts, a photograph, a CSV. What generated them
is written beside them and never read by the analysis.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import tomli_w

from evbiodist.phantom.anatomy import MOUSE, TRAY, Scene, mouse, organ_masses, tray
from evbiodist.phantom.camera import PhantomCamera, photograph
from evbiodist.phantom.truth import ORGANS, Kinetics, LabelTruth
from evbiodist.study.constants import isotopes, physiology
from evbiodist.study.corrections import BLOOD_DENSITY_RATIO

_BLOOD_SAMPLE_G = 0.1
_STANDARD_PCT, _STANDARD_SE = 1.0, 0.02
_INJECTED_BQ = 2.0e6
_COUNTING_S = 60.0
_COUNTING_EFFICIENCY = 0.3
_ISOTOPE = "111In"

#: One label sits wrong: a quarter of the dye is free and outlives the vesicle.
LABELS = (
    LabelTruth("DiR", free_fraction=0.25),
    LabelTruth("NanoLuc", counts_per_pct=1.6e5),
    LabelTruth("mCherry", counts_per_pct=1.2e5),
    LabelTruth(_ISOTOPE, counts_per_pct=None),
)
_PHYSICS: dict[str, dict[str, Any]] = {
    "DiR": {"kind": "fluorescence", "emission_nm": 780, "excitation_nm": 745, "description": "lipophilic dye"},
    "NanoLuc": {"kind": "bioluminescence", "emission_nm": 460, "description": "NanoLuc fused to CD63"},
    "mCherry": {"kind": "fluorescence", "emission_nm": 610, "excitation_nm": 587, "description": "fused to CD9"},
    _ISOTOPE: {"kind": "radioactive", "isotope": _ISOTOPE, "description": "oxine, gamma counter"},
}


@dataclass(frozen=True)
class Design:
    """The design of a digital study.

    Parameters
    ----------
    times_h : of sacrifice; animals : per time and label.
    animal_cv : spread between animals of every organ; common_cv : of the whole animal (dose given).
    kinetics_cv : spread of the study's own kinetics about the reference; 0 takes the reference itself.
    in_vivo : whether one animal a label is also followed by in-vivo frames.
    labels : as read by `LabelTruth`.
    """

    times_h: tuple[float, ...] = (0.083, 0.5, 2.0, 8.0, 24.0)
    animals: int = 3
    animal_cv: float = 0.15
    common_cv: float = 0.08
    kinetics_cv: float = 0.0
    in_vivo: bool = True
    labels: tuple[LabelTruth, ...] = LABELS


def write_study(folder: str | Path, seed: int = 1, design: Design | None = None) -> Path:
    """Generate a digital study with known truth and write it as a study folder.

    Parameters
    ----------
    folder : made if it is not there; files of the same name are overwritten.
    seed : the same seed and design give the same bytes.
    design : animals, times, labels.

    Returns
    -------
    Path : of study.toml. truth.csv beside it holds, per animal and organ, the vesicles in the parenchyma
        (`vesicle`) and what the label reads of it (`reading`), both in % of dose, blood in % of dose per g;
        and the study's own kinetics (`parameter` rows).
    """
    design = design or Design()
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    kinetics = Kinetics.draw(rng, design.kinetics_cv)
    # one blood fraction per organ for the whole strain, somewhere in its published range
    fractions = {o: rng.uniform(f.low, f.high) for o in ORGANS
                 if (f := physiology("mouse", o, "regional_blood_fraction"))}  # fmt: skip
    tables: dict[str, list[dict[str, Any]]] = {k: [] for k in ("subjects", "scans", "masses", "gamma", "truth")}
    for number, label in enumerate(design.labels):
        # animals of one label do not depend on how many animals other labels have
        _one_label(folder, label, kinetics, fractions, design, np.random.default_rng([seed, number]), tables)
    parameter_truth(kinetics, design.times_h, design.labels, tables["truth"])
    for name, rows in tables.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows)
    path = folder / "study.toml"
    path.write_bytes(tomli_w.dumps(_study_toml(design, seed, bool(tables["gamma"]))).encode())
    return path


def _one_label(
    folder: Path, label: LabelTruth, kinetics: Kinetics, fractions: dict[str, float], design: Design,
    rng: np.random.Generator, tables: dict[str, Any],
) -> None:  # fmt: skip
    perfused = label.counts_per_pct is None
    standard = float(rng.normal(_STANDARD_PCT, _STANDARD_SE))  # pipetted once a label
    for time in design.times_h:
        for animal in range(1, design.animals + 1):
            name = f"{label.name}_{time:g}h_{animal}"
            masses = _animal(name, label, "ex_vivo", perfused, rng, tables, design)
            true, seen = _one_animal(kinetics, label, time, masses, fractions, perfused, design, rng)
            for organ in (*ORGANS, "blood"):
                tables["truth"].append({"kind": "observation", "name": name, "label": label.name, "organ": organ,
                                        "time_h": time, "vesicle": digits(true[organ][0]),
                                        "reading": digits(true[organ][1])})  # fmt: skip
            if label.counts_per_pct is None:
                _count(name, label, time, seen, masses, rng, tables["gamma"])
            else:
                _image_tray(folder, name, label, time, {**seen, "standard": standard}, rng, tables["scans"])
    if design.in_vivo and label.counts_per_pct is not None:
        _follow(folder, label, kinetics, standard, design, rng, tables)


def _animal(
    name: str, label: LabelTruth, group: str, perfused: bool, rng: np.random.Generator, tables: dict[str, Any],
    design: Design,
) -> dict[str, float]:  # fmt: skip
    weight = float(rng.normal(22.0, 1.2))
    masses = organ_masses(weight, list(ORGANS), rng)
    counted = label.counts_per_pct is None
    tables["subjects"].append({
        "subject": name, "species": "mouse", "sex": "FM"[len(tables["subjects"]) % 2], "weight_g": f"{weight:.1f}",
        "group": group, "label": label.name, "route": "iv_bolus", "dose": _INJECTED_BQ if counted else 1e10,
        "dose_unit": "bq" if counted else "particles", "perfused": "yes" if perfused else "no"})  # fmt: skip
    if group == "ex_vivo":
        for organ, mass in masses.items():
            tables["masses"].append({"subject": name, "organ": organ, "mass_g": f"{mass:.4f}"})
        tables["masses"].append({"subject": name, "organ": "blood", "mass_g": f"{_BLOOD_SAMPLE_G:.4f}"})
    return masses


def _one_animal(
    kinetics: Kinetics, label: LabelTruth, time: float, masses: dict[str, float], fractions: dict[str, float],
    perfused: bool, design: Design, rng: np.random.Generator,
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:  # fmt: skip
    """Return per organ (vesicle, reading) in the parenchyma, and what lies on the bench, in % of dose."""
    vesicle, reading = at_time(kinetics.amounts(np.array([time]))), at_time(kinetics.reads(label, np.array([time])))
    whole = mean_one(rng, design.common_cv)
    own = {o: whole * mean_one(rng, design.animal_cv) for o in (*ORGANS, "blood")}
    true = {o: (vesicle[o] * own[o], reading[o] * own[o]) for o in own}
    bench = {}
    for organ in ORGANS:
        vessel = 0.0 if perfused else masses[organ] * BLOOD_DENSITY_RATIO * fractions[organ] * true["blood"][1]
        bench[organ] = true[organ][1] + vessel
    bench["blood"] = true["blood"][1] * _BLOOD_SAMPLE_G
    return true, bench


def digits(value: float) -> float:
    """Round to eight digits, so that files do not hang on a library's last ones."""
    return float(f"{value:.8g}")


def at_time(curves: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Return the first value of every curve."""
    # ten digits: what a library does to the last ones must not change the files
    return {name: float(f"{curve[0]:.10g}") for name, curve in curves.items()}


def mean_one(rng: np.random.Generator, cv: float) -> float:
    """Return a lognormal factor of mean 1."""
    sigma = math.sqrt(math.log1p(cv**2))
    return float(np.exp(rng.normal(-(sigma**2) / 2, sigma)))


def _count(
    name: str, label: LabelTruth, time: float, seen: dict[str, float], masses: dict[str, float],
    rng: np.random.Generator, table: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Count every organ in a gamma counter at the time of sacrifice: decayed Bq with Poisson error."""
    decayed = _INJECTED_BQ * 0.5 ** (time / isotopes()[_ISOTOPE])
    per_bq = _COUNTING_S * _COUNTING_EFFICIENCY
    for organ, pct in seen.items():
        counts = rng.poisson(pct / 100 * decayed * per_bq)
        mass = _BLOOD_SAMPLE_G if organ == "blood" else masses[organ]
        table.append({"subject": name, "group": "ex_vivo", "label": label.name, "organ": organ, "time_h": time,
                      "value": f"{counts / per_bq:.3f}", "se": f"{math.sqrt(max(counts, 1)) / per_bq:.3f}", "unit": "bq",
                      "mass_g": f"{mass:.4f}"})  # fmt: skip


def _image_tray(
    folder: Path, name: str, label: LabelTruth, time: float, seen: dict[str, float], rng: np.random.Generator,
    scans: list[dict[str, Any]],
) -> None:  # fmt: skip
    scene = tray(rng)
    file, photo = f"images/{name}.tif", f"photographs/{name}.tif"
    camera = _expose(folder / file, scene, seen, label, rng)
    _write_tiff(folder / photo, photograph(scene.labels, rng), scene.pixel_mm)
    scans.append(_scan(name, name, label, time, "ex_vivo", file, "tray", camera) | {"photograph": photo, "organs": ""})


def _follow(
    folder: Path, label: LabelTruth, kinetics: Kinetics, standard: float, design: Design, rng: np.random.Generator,
    tables: dict[str, Any],
) -> None:  # fmt: skip
    """Follow one animal of a label by in-vivo frames, with its organs drawn in a label image."""
    name = f"{label.name}_followed"
    _animal(name, label, "in_vivo", False, rng, tables, design)
    scene = mouse(rng)
    _write_tiff(folder / f"organs/{name}.tif", scene.labels.astype(np.uint8), scene.pixel_mm)
    own = {o: mean_one(rng, design.animal_cv) for o in (*ORGANS, "blood")}
    for time in design.times_h:
        reading = {o: v * own[o] for o, v in at_time(kinetics.reads(label, np.array([time]))).items()}
        seen = {o: reading[o] for o in ORGANS}
        seen["body"] = reading["blood"] * float(kinetics.vesicle[0])
        file = f"images/{name}_{time:g}h.tif"
        camera = _expose(folder / file, scene, {**seen, "standard": standard}, label, rng)
        tables["scans"].append(_scan(f"{name}_{time:g}h", name, label, time, "in_vivo", file, "dorsal", camera)
                               | {"photograph": "", "organs": f"organs/{name}.tif"})  # fmt: skip
        vesicle = at_time(kinetics.amounts(np.array([time])))
        for organ in ORGANS:
            tables["truth"].append({"kind": "observation", "name": name, "label": label.name, "organ": organ,
                                    "time_h": time, "vesicle": digits(vesicle[organ] * own[organ]),
                                    "reading": digits(reading[organ])})  # fmt: skip


def _expose(
    path: Path, scene: Scene, seen: dict[str, float], label: LabelTruth, rng: np.random.Generator
) -> PhantomCamera:  # fmt: skip
    camera = PhantomCamera(fwhm_px=1.5 / scene.pixel_mm)
    counts_per_pct = label.counts_per_pct or 0.0
    light = sum(
        (pct * counts_per_pct * scene.share(organ) for organ, pct in seen.items()), np.zeros(scene.labels.shape)
    )
    _write_tiff(path, camera.expose(light + 12.0, rng), scene.pixel_mm)
    return camera


def _scan(
    scan: str, subject: str, label: LabelTruth, time: float, kind: str, file: str, view: str, camera: PhantomCamera
) -> dict[str, Any]:
    return {"scan": scan, "subject": subject, "label": label.name, "time_h": time, "kind": kind, "file": file,
            "view": view, "exposure_s": 60, "gain_e": camera.gain_e, "read_noise_e": camera.read_noise_e,
            "bias": camera.bias, "saturation": camera.saturation}  # fmt: skip


def _write_tiff(path: Path, image: np.ndarray[Any, Any], pixel_mm: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, imagej=True, compression="zlib", predictor=True, resolution=(1 / pixel_mm, 1 / pixel_mm),
                     metadata={"unit": "mm", "axes": "YX"})  # fmt: skip


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of one shape as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def parameter_truth(
    kinetics: Kinetics, times_h: Sequence[float], labels: Sequence[LabelTruth], table: list[dict[str, Any]]
) -> None:
    """Add the study's own kinetics, and per label what a perfect analysis of that label alone would find."""
    last = max(times_h)
    grid = np.concatenate([[0.0], np.geomspace(1e-3, last, 2000)])
    vesicle = kinetics.amounts(grid)
    for label in labels:
        reading = kinetics.reads(label, grid)
        for organ in ORGANS:
            for quantity, take in (("uptake", lambda y: y[-1]), ("peak", np.max)):
                table.append({"kind": "parameter", "name": f"{organ}_{quantity}_pct_id", "label": label.name,
                              "organ": organ, "time_h": last, "vesicle": digits(float(take(vesicle[organ]))),
                              "reading": digits(float(take(reading[organ])))})  # fmt: skip
    for name, value in zip(kinetics.graph.names, kinetics.vesicle, strict=True):
        table.append({"kind": "rate", "name": name, "label": "", "organ": "", "time_h": "", "vesicle": digits(float(value)),
                      "reading": ""})  # fmt: skip


def _study_toml(design: Design, seed: int, gamma: bool) -> dict[str, Any]:
    tables: dict[str, Any] = {"subjects": "subjects.csv", "scans": "scans.csv", "masses": "masses.csv"}
    if gamma:
        tables["observations"] = [{"file": "gamma.csv", "decay_corrected": False,
                                   "source": "gamma counter, Bq at the time of counting"}]  # fmt: skip
    return {
        "name": "digital mouse",
        "species": "mouse",
        "simulated": True,
        "description": "Vesicles in a flat digital mouse, four labels, one of which sits wrong. "
                       f"Seed {seed}. truth.csv holds what generated the files.",
        "labels": {label.name: _PHYSICS.get(label.name, {"kind": "fluorescence"}) for label in design.labels},
        "tables": tables,
        "imaging": {
            "footprint": "psf",
            "psf_fwhm_mm": 1.5,
            "tray": [list(row) for row in TRAY],
            "standard": {"organ": "standard", "pct_of_dose": _STANDARD_PCT, "pct_of_dose_se": _STANDARD_SE},
            "organ_labels": {str(value): organ for value, organ in MOUSE.items()},
        },
        "crossval": {"organ": "brain", "scale": "log"},
    }  # fmt: skip
