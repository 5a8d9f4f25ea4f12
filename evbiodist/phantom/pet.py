"""A digital PET study on disk: volumes of radiolabelled vesicles in the digital mouse, with truth.csv.

A scanner that blurs and counts sees every animal's own anatomy and kinetics; nothing injected is lost but by decay.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.anatomy import REST
from evbiodist.io.timing import FrameTiming
from evbiodist.phantom.body import DigitalAnimal, Variation
from evbiodist.phantom.study import digits, mean_one, parameter_truth, write_csv
from evbiodist.phantom.truth import ORGANS, FloatArray, Kinetics, LabelTruth
from evbiodist.study.constants import isotopes
from evbiodist.study.problems import nearest

#: Tissues of the label volumes by voxel value; guts belong to the rest of the body.
TISSUES = {1: REST, **dict(enumerate(ORGANS, 2))}

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8 * np.log(2))
#: Points along a voxel's edge at which organs are drawn; odd, so that one is the voxel's centre.
_FINE = 3
#: Nodes of the quadrature over a frame.
_NODES = 64
_LARGEST_INT16 = 32767
#: Two hours without a gap, short frames first.
_FRAMES = FrameTiming(
    (0, 60, 120, 240, 360, 600, 1200, 1800, 3600), (60, 60, 120, 120, 240, 600, 600, 1800, 3600), "injection"
)
#: An animal on a scanner's bed lies straighter than on a stage.
_LYING = Variation(bend_rad=0.15, turn_rad=0.05)


@dataclass(frozen=True)
class Scanner:
    """A PET scanner with known truth: it blurs, then counts.

    Parameters
    ----------
    shape : of a volume (z, y, x); z is axial, along the animal, and grows towards the head, y towards the belly,
        x towards the animal's right.
    voxel_mm : edge of a voxel.
    fwhm_mm, fwhm_z_mm : of the Gaussian point spread function, in plane and axial.
    sensitivity : noise-equivalent counts per decay. A voxel that is expected to hold A Bq during d seconds has the
        relative variance 1 / (sensitivity A d); voxels are independent.

    Raises
    ------
    ValueError : a size, width or sensitivity of 0 or less.

    Examples
    --------
    >>> scanner = Scanner(shape=(20, 20, 20))
    >>> seen = scanner.count(np.full(scanner.shape, 1e5), 60.0, np.random.default_rng(1))
    >>> expected_counts = scanner.sensitivity * 60 * 1e5 * scanner.voxel_ml
    >>> round(float(seen.mean() ** 2 / seen.var() / expected_counts), 1)
    1.0
    """

    shape: tuple[int, int, int] = (136, 48, 56)
    voxel_mm: float = 0.8
    fwhm_mm: float = 1.6
    fwhm_z_mm: float = 2.0
    sensitivity: float = 0.002

    def __post_init__(self) -> None:
        for name in ("voxel_mm", "fwhm_mm", "fwhm_z_mm", "sensitivity"):
            if not (value := getattr(self, name)) > 0 or not math.isfinite(value):
                raise ValueError(f"the scanner's {name} is {value}; expected a number above 0")
        if min(self.shape) < 1:
            raise ValueError(f"the scanner's shape is {self.shape}; expected voxels along z, y and x")

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return self.voxel_mm**3 / 1000

    def blur(self, volume: FloatArray) -> FloatArray:
        """Return a volume (Z, Y, X) as the scanner's point spread function makes it; beyond the edges is nothing."""
        sigma = [f * _FWHM_TO_SIGMA / self.voxel_mm for f in (self.fwhm_z_mm, self.fwhm_mm, self.fwhm_mm)]
        return np.asarray(ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=6.0))

    def count(self, bq_per_ml: FloatArray, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return the volume reconstructed from a frame's counts, in Bq/mL, of what is expected in it."""
        counts_per_unit = self.sensitivity * duration_s * self.voxel_ml
        return np.asarray(rng.poisson(bq_per_ml * counts_per_unit) / counts_per_unit)

    def tissues(self, animal: DigitalAnimal) -> NDArray[np.uint8]:
        """Return the value in `TISSUES` of every point of a grid three times as fine as the voxels, (3 Z, 3 Y, 3 X).

        Raises
        ------
        ValueError : the animal reaches out of the field of view.
        """
        along, up, across = (self._points(n) for n in self.shape)
        # the stage's y leads to the rump and its z to the back, the scanner's to the head and the belly
        s, u = animal.coordinates(-along[:, None], across[None, :])
        low, high = (edge[:, None, :] for edge in animal.anatomy.skin(s, u))
        z = -up[None, :, None]
        inside = (z > low) & (z < high)
        if any(side.any() for axis in range(3) for side in np.moveaxis(inside, axis, 0)[[0, -1]]):
            field = " x ".join(f"{n * self.voxel_mm:g}" for n in self.shape)
            raise ValueError(f"an animal of {animal.anatomy.length_mm:.0f} mm reaches out of the field of view of {field} "
                             "mm (z, y, x); make the scanner's shape larger")  # fmt: skip
        at = [np.broadcast_to(v, inside.shape)[inside] for v in (s[:, None, :], u[:, None, :], z)]
        found = np.full(len(at[0]), 1, np.uint8)
        value = {organ: v for v, organ in TISSUES.items()}
        for organ in reversed(animal.anatomy.lobes):  # where organs meet, the one named first has the place
            found[animal.anatomy.level(organ, *at) > 0] = value.get(organ, 1)
        points = np.zeros(inside.shape, np.uint8)
        points[inside] = found
        return points

    def _points(self, voxels: int) -> FloatArray:
        fine = _FINE * voxels
        return np.asarray(self.voxel_mm / _FINE * (np.arange(fine, dtype=np.float64) - (fine - 1) / 2))


def tissue_shares(points: NDArray[np.uint8]) -> dict[str, FloatArray]:
    """Return each tissue's share of every voxel, (Z, Y, X), of the points that `Scanner.tissues` gives."""
    shape = tuple(n // _FINE for n in points.shape)
    places = np.nonzero(points)
    voxel = np.ravel_multi_index([place // _FINE for place in places], shape)
    counts = np.bincount(voxel * (len(TISSUES) + 1) + points[places], minlength=math.prod(shape) * (len(TISSUES) + 1))
    shares = counts.reshape(*shape, -1) / _FINE**3
    return {organ: shares[..., value] for value, organ in TISSUES.items()}


@dataclass(frozen=True)
class PetDesign:
    """The design of a digital PET study.

    Parameters
    ----------
    isotope : one of `evbiodist.study.constants.isotopes`.
    animals : number of animals, each scanned once.
    frames : when each frame is taken, counted from the injection.
    injected_bq : mean injected activity; animals get within some percent of it, and the files say how much.
    animal_cv : spread between animals of every rate; kinetics_cv : of the study's own rates about the reference.
    free_fraction : share of the injected activity that is not on vesicles and goes as free dye does.
    decay_corrected : whether the scanner corrects its frames for decay, to the injection.
    signals : `series` writes one file an animal (T, Z, Y, X), `volume` one file a frame (Z, Y, X).
    variation : how animals differ; a bend and turn of 0 lay them straight. Optics play no part.
    partial_voxels : whether tissues share voxels at their borders, as in life; a label volume, which gives each voxel
        to one of them, then leaves an error of about 1 % (heart: up to 6 %) that is not noise. False fills voxels
        as the label volume has them.
    scanner : its volumes, blur and noise.

    Raises
    ------
    ValueError : an unknown isotope, frames not counted from the injection on or without duration, borders
        with wrinkles, or a number out of range.
    """

    isotope: str = "89Zr"
    animals: int = 3
    frames: FrameTiming = _FRAMES
    injected_bq: float = 4e6
    animal_cv: float = 0.15
    kinetics_cv: float = 0.0
    free_fraction: float = 0.0
    decay_corrected: bool = True
    signals: Literal["series", "volume"] = "series"
    variation: Variation = _LYING
    partial_voxels: bool = True
    scanner: Scanner = Scanner()

    def __post_init__(self) -> None:
        if self.isotope not in isotopes():
            raise ValueError(
                f"there is no half-life of the isotope '{self.isotope}'; {nearest(self.isotope, isotopes())}"
            )
        if self.frames.reference != "injection" or self.frames.start_s[0] < 0 or min(self.frames.duration_s) <= 0:
            raise ValueError("the frames start before the injection, last no time or count from the scan's start; give "
                             "FrameTiming(starts, durations, 'injection') from 0 s on")  # fmt: skip
        if self.animals < 1 or not 0 < self.injected_bq < math.inf or not 0 <= self.free_fraction <= 1:
            raise ValueError(f"{self.animals} animals, {self.injected_bq:g} Bq injected and a free fraction of "
                             f"{self.free_fraction:g}; expected 1 or more, above 0, and 0 to 1")  # fmt: skip
        if self.variation.shape_mm:
            raise ValueError(
                f"shape_mm is {self.variation.shape_mm:g}; organs of a PET phantom have smooth borders: leave it 0"
            )
        if self.signals not in ("series", "volume"):
            raise ValueError(f"signals is '{self.signals}'; expected 'series' or 'volume'")

    @property
    def label(self) -> LabelTruth:
        """How the radiolabel reads."""
        return LabelTruth(self.isotope, free_fraction=self.free_fraction, counts_per_pct=None)


def write_pet_study(folder: str | Path, seed: int = 1, design: PetDesign | None = None) -> Path:
    """Generate a digital PET study with known truth and write it as a study folder.

    What blood holds and what leaves it for none of the organs is spread evenly over the rest of the body, so that
    a volume sums to the injected activity less decay.

    Parameters
    ----------
    folder : made if it is not there; files of the same name are overwritten.
    seed : the same seed and design give the same bytes.
    design : isotope, animals, frames, scanner.

    Returns
    -------
    Path : of study.toml. truth.csv beside it holds, per animal, organ and frame, the vesicles in the organ
        (`vesicle`) and the activity there (`reading`), as means over the frame in % of dose, corrected for decay
        to the injection; then the study's own kinetics as in `evbiodist.phantom.study.write_study`.

    Raises
    ------
    ValueError : an animal reaches out of the field of view.

    Examples
    --------
    >>> import tempfile
    >>> from evbiodist.io.registry import read
    >>> small = PetDesign(animals=1, scanner=Scanner((68, 24, 28), 1.6))
    >>> path = write_pet_study(tempfile.mkdtemp(), 1, small)
    >>> scan = read(path.parent / "images" / "89Zr_1.nii.gz")
    >>> scan.axes, scan.counts.shape, scan.unit
    ('TZYX', (9, 68, 24, 28), 'Bq/mL')
    >>> injected = scan.signal().sum(axis=(1, 2, 3)) * 1.6**3 / 1000 / scan.tracer.injected_bq
    >>> bool(np.all(abs(injected - 1) < 0.02))
    True
    """
    design = design or PetDesign()
    folder = Path(folder)
    kinetics = Kinetics.draw(np.random.default_rng(seed), design.kinetics_cv)
    tables: dict[str, list[dict[str, Any]]] = {k: [] for k in ("subjects", "scans", "truth")}
    for number in range(1, design.animals + 1):
        # an animal does not depend on how many others there are
        _one_animal(folder, number, kinetics, design, np.random.default_rng([seed, number]), tables)
    last_h = (design.frames.start_s[-1] + design.frames.duration_s[-1]) / 3600
    parameter_truth(kinetics, (last_h,), (design.label,), tables["truth"])
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    path = folder / "study.toml"
    path.write_bytes(tomli_w.dumps(_study_toml(design, seed)).encode())
    return path


def _one_animal(
    folder: Path, number: int, kinetics: Kinetics, design: PetDesign, rng: np.random.Generator, tables: dict[str, Any]
) -> None:
    name, scanner = f"{design.isotope}_{number}", design.scanner
    animal = DigitalAnimal.draw(rng, design.variation)
    dose = round(design.injected_bq * mean_one(rng, 0.05))
    own = replace(kinetics, vesicle=_spread(kinetics.vesicle, design, rng), free=_spread(kinetics.free, design, rng))
    vesicle, reading, remaining = _frame_means(own, design)
    points = scanner.tissues(animal)
    organs = f"organs/{name}.nii.gz"
    at_centre = points[(slice(_FINE // 2, None, _FINE),) * 3]
    _write_nifti(folder / organs, at_centre, scanner.voxel_mm)
    shares = tissue_shares(points)
    if not design.partial_voxels:
        shares = {organ: (at_centre == value).astype(np.float64) for value, organ in TISSUES.items()}
    volumes = _volumes(shares, reading, remaining, dose, design, rng)
    _write_scans(folder, name, organs, volumes, remaining, dose, animal, design, tables["scans"])
    tables["subjects"].append({
        "subject": name, "species": "mouse", "sex": "MF"[number % 2], "weight_g": f"{animal.anatomy.weight_g:.1f}",
        "group": "imaged", "label": design.isotope, "route": "iv_bolus", "dose": dose, "dose_unit": "bq",
        "perfused": "no"})  # fmt: skip
    for i, time in enumerate(design.frames.mid_h):
        for organ in (*ORGANS, REST):
            tables["truth"].append({"kind": "observation", "name": name, "label": design.isotope, "organ": organ,
                                    "time_h": digits(time), "vesicle": digits(vesicle[organ][i]),
                                    "reading": digits(reading[organ][i])})  # fmt: skip


def _volumes(
    shares: dict[str, FloatArray], reading: dict[str, FloatArray], remaining: FloatArray, dose: int, design: PetDesign,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Return what the scanner gives of every frame, (T, Z, Y, X) in Bq/mL."""
    scanner = design.scanner
    seen = {organ: scanner.blur(share / share.sum()) for organ, share in shares.items()}
    volumes = []
    for i, duration in enumerate(design.frames.duration_s):
        percent = sum((reading[o][i] * seen[o] for o in seen), np.zeros(scanner.shape))
        decayed = dose * remaining[i] * percent / 100 / scanner.voxel_ml
        corrected = remaining[i] if design.decay_corrected else 1.0
        volumes.append(scanner.count(decayed, duration, rng) / corrected)
    return np.stack(volumes)


def _spread(rates: FloatArray, design: PetDesign, rng: np.random.Generator) -> FloatArray:
    return rates * np.array([mean_one(rng, design.animal_cv) for _ in rates])


def _frame_means(
    kinetics: Kinetics, design: PetDesign
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], FloatArray]:
    """Return vesicles and activity by tissue in % of dose, and the share that decay left, each (T,) frame means.

    The first two are what decay correction of a whole frame gives: means weighted by the decay within the frame.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    start, duration = (np.asarray(v)[:, None] / 3600 for v in (design.frames.start_s, design.frames.duration_s))
    time = start + duration * (nodes + 1) / 2
    decay = weights / 2 * 2.0 ** (-time / isotopes()[design.isotope])
    remaining = decay.sum(axis=1)

    def mean(curves: dict[str, FloatArray]) -> dict[str, FloatArray]:
        found = {o: (curves[o].reshape(time.shape) * decay).sum(axis=1) / remaining for o in ORGANS}
        # ten digits: what a library does to the last ones must not change the files
        found = {o: np.array([float(f"{v:.10g}") for v in values]) for o, values in found.items()}
        return {**found, REST: 100 - sum(found.values(), np.zeros(len(design.frames)))}

    return mean(kinetics.amounts(time.ravel())), mean(kinetics.reads(design.label, time.ravel())), remaining


def _write_scans(
    folder: Path, name: str, organs: str, volumes: FloatArray, remaining: FloatArray, dose: int, animal: DigitalAnimal,
    design: PetDesign, table: list[dict[str, Any]],
) -> None:  # fmt: skip
    frames = range(len(volumes))
    parts = {name: (list(frames), volumes, 0.0)}
    if design.signals == "volume":
        parts = {f"{name}_{i + 1:02d}": ([i], volumes[i], digits(design.frames.mid_h[i])) for i in frames}
    for scan, (which, volume, time) in parts.items():
        file = folder / "images" / f"{scan}.nii.gz"
        _write_nifti(file, volume, design.scanner.voxel_mm)
        sidecar = _sidecar(which, remaining, dose, animal.anatomy.weight_g, design)
        file.with_name(f"{scan}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
        table.append({"scan": scan, "subject": name, "label": design.isotope, "time_h": time, "kind": "volume",
                      "file": f"images/{file.name}", "organs": organs})  # fmt: skip


def _sidecar(which: list[int], remaining: FloatArray, dose: int, weight_g: float, design: PetDesign) -> dict[str, Any]:
    """Return the BIDS-PET description of some frames of an animal's scan; TimeZero is the injection."""
    mass, element = re.findall(r"\d+m?|[A-Z][a-z]*", design.isotope)
    correction: dict[str, Any] = {"ImageDecayCorrected": design.decay_corrected}
    if design.decay_corrected:
        correction |= {
            "ImageDecayCorrectionTime": 0,
            "DecayCorrectionFactor": [digits(1 / remaining[i]) for i in which],
        }
    return {
        "Manufacturer": "evbiodist",
        "ManufacturersModelName": "phantom",
        "TracerName": "vesicles",
        "TracerRadionuclide": f"{element}{mass}",
        "ModeOfAdministration": "bolus",
        "InjectedRadioactivity": dose / 1e6,
        "InjectedRadioactivityUnits": "MBq",
        "BodyWeight": round(weight_g, 1),
        "BodyWeightUnits": "g",
        "TimeZero": "12:00:00",
        "ScanStart": 0,
        "InjectionStart": 0,
        "FrameTimesStart": [design.frames.start_s[i] for i in which],
        "FrameDuration": [design.frames.duration_s[i] for i in which],
        "Units": "Bq/mL",
        **correction,
    }


def _write_nifti(path: Path, volume: NDArray[Any], voxel_mm: float) -> None:
    """Write (Z, Y, X) or (T, Z, Y, X) as .nii.gz without a clock's time, real numbers as scaled 16-bit integers."""
    import nibabel

    slope = 1.0
    if volume.dtype.kind == "f":
        slope = float(
            np.float32(max(float(volume.max()), 1e-30) / _LARGEST_INT16 * (1 + 1e-6))
        )  # as the header holds it
        volume = np.rint(volume / slope).astype(np.int16)
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = [-voxel_mm * (n - 1) / 2 for n in volume.shape[:-4:-1]]
    image = nibabel.Nifti1Image(volume.T, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(slope, 0.0)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def _study_toml(design: PetDesign, seed: int) -> dict[str, Any]:
    return {
        "name": "digital mouse in PET",
        "species": "mouse",
        "simulated": True,
        "description": f"Vesicles labelled with {design.isotope} in digital mice, seen by a PET scanner. Seed {seed}. "
                       "truth.csv holds what generated the files.",
        "labels": {design.isotope: {"kind": "radioactive", "isotope": design.isotope, "description": "on the vesicles"}},
        "tables": {"subjects": "subjects.csv", "scans": "scans.csv"},
        "imaging": {
            "footprint": "psf",
            "psf_fwhm_mm": design.scanner.fwhm_mm,
            "psf_fwhm_z_mm": design.scanner.fwhm_z_mm,
            "organ_labels": {str(value): organ for value, organ in TISSUES.items()},
        },
    }  # fmt: skip
