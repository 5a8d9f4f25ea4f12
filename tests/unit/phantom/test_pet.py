"""PET studies: nothing injected is lost but by decay, blur and noise are as declared, and the truth is the truth."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage, stats
from scipy.integrate import solve_ivp

from evbiodist.imaging.organs import from_label_image
from evbiodist.imaging.quantify import quantify
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import Scan
from evbiodist.io.timing import FrameTiming
from evbiodist.phantom.body import DigitalAnimal, Variation
from evbiodist.phantom.pet import TISSUES, PetDesign, Scanner, tissue_shares, write_pet_study
from evbiodist.phantom.truth import FREE_DYE, ORGANS, VESICLE
from evbiodist.study.load import load_study

COARSE = Scanner(shape=(68, 24, 28), voxel_mm=1.6)
FEW = FrameTiming((0, 300, 3600), (300, 600, 3600), "injection")
SMALL = PetDesign(animals=1, frames=FEW, scanner=COARSE)
STILL = Variation(anatomy=0, shape_mm=0, optics=0, bend_rad=0, turn_rad=0, height_log=0)
STRAIGHT = replace(DigitalAnimal.draw(np.random.default_rng(0), STILL, 22.0), centre_mm=(0.8, -1.7))
HALF_LIFE_S = 78.41 * 3600  # 89Zr, ICRP-107


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def reading(folder: Path, name: str, column: str = "reading") -> dict[str, np.ndarray]:
    """% of dose by tissue, one number a frame, of an animal of truth.csv."""
    found: dict[str, list[float]] = {}
    for row in rows(folder / "truth.csv"):
        if row["kind"] == "observation" and row["name"] == name:
            found.setdefault(row["organ"], []).append(float(row[column]))
    return {organ: np.array(values) for organ, values in found.items()}


def total_bq(scan: Scan) -> np.ndarray:
    return scan.signal().sum(axis=(1, 2, 3)) * np.prod(scan.spacing_mm) / 1000


def decay_mean(timing: FrameTiming, half_life_s: float) -> np.ndarray:
    """Mean over each frame of what decay leaves, in closed form."""
    rate = np.log(2) / half_life_s
    start, during = np.array(timing.start_s), np.array(timing.duration_s)
    return np.exp(-rate * start) * -np.expm1(-rate * during) / (rate * during)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default design of two animals: nine frames in 0.8 mm voxels."""
    return write_pet_study(tmp_path_factory.mktemp("pet"), 3, PetDesign(animals=2)).parent


@pytest.fixture(scope="module")
def whole_voxels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two animals whose voxels each hold one tissue, as their label volumes have it."""
    late = FrameTiming((0, 1800, 5400), (600, 1800, 1800), "injection")
    design = PetDesign(animals=2, frames=late, partial_voxels=False)
    return write_pet_study(tmp_path_factory.mktemp("whole"), 8, design).parent


# ---------------------------------------------------------------- files


def test_every_file_reads_without_a_warning_and_says_what_was_injected(study: Path) -> None:
    for subject, scan_row in zip(rows(study / "subjects.csv"), rows(study / "scans.csv"), strict=True):
        scan = read_scan(study / scan_row["file"])
        assert scan.warnings == ()
        assert (scan.axes, scan.counts.shape, scan.unit) == ("TZYX", (9, 136, 48, 56), "Bq/mL")
        assert scan.spacing_mm == pytest.approx((0.8, 0.8, 0.8))
        assert scan.header["orientation"] == "x to right, y to anterior, z to superior"
        assert scan.timing is not None
        assert scan.timing == PetDesign().frames
        assert scan.tracer is not None
        assert (scan.tracer.isotope, scan.tracer.injected_s) == ("89Zr", 0.0)
        assert scan.tracer.decay_corrected_to == "injection"
        assert scan.tracer.injected_bq == pytest.approx(float(subject["dose"]), rel=1e-12)
        assert scan.tracer.weight_g == pytest.approx(float(subject["weight_g"]))
        assert (subject["dose_unit"], scan_row["kind"], scan_row["time_h"]) == ("bq", "volume", "0.0")
        labels = read_scan(study / scan_row["organs"])
        assert labels.warnings == ()
        assert labels.counts.dtype == np.uint8
        assert labels.counts.shape == scan.frame_shape
        assert labels.spacing_mm == scan.spacing_mm


def test_the_study_is_one_that_loads(study: Path) -> None:
    loaded = load_study(study)
    assert [(s.subject, s.dose_unit, s.route) for s in loaded.subjects] == [
        ("89Zr_1", "bq", "iv_bolus"), ("89Zr_2", "bq", "iv_bolus")]  # fmt: skip
    assert [(s.kind, s.time_h) for s in loaded.scans] == [("volume", 0.0)] * 2
    assert loaded.labels["89Zr"].half_life_h == 78.41
    imaging = loaded.settings.imaging
    assert (imaging.footprint, imaging.psf_fwhm_mm, imaging.psf_fwhm_z_mm) == ("psf", 1.6, 2.0)


def test_label_values_have_the_names_of_study_toml(study: Path) -> None:
    text = tomllib.loads((study / "study.toml").read_text(encoding="utf-8"))
    names = {int(k): v for k, v in text["imaging"]["organ_labels"].items()}
    assert names == TISSUES
    assert set(names.values()) == {"body", *ORGANS}
    for row in rows(study / "scans.csv"):
        assert set(np.unique(read_scan(study / row["organs"]).counts)) == {0, *names}
    assert text["simulated"] is True


def test_nibabel_and_the_reader_agree_on_the_pixels(study: Path) -> None:
    """Our reader decodes pixels by itself; the library decodes them another way."""
    import nibabel

    file = study / "images" / "89Zr_1.nii.gz"
    image = nibabel.load(file)
    assert np.allclose(np.asarray(image.dataobj).T, read_scan(file).signal(), rtol=1e-6)
    assert np.allclose(image.affine @ [27.5, 23.5, 67.5, 1], [0, 0, 0, 1], atol=1e-5)  # the middle of the field of view


def test_same_seed_same_bytes_and_another_seed_another_study(tmp_path: Path) -> None:
    def files(name: str, seed: int) -> dict[str, bytes]:
        folder = write_pet_study(tmp_path / name, seed, SMALL).parent
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    one, two, other = files("a", 5), files("b", 5), files("c", 6)
    assert one == two
    assert set(one) == {"study.toml", "subjects.csv", "scans.csv", "truth.csv", "images/89Zr_1.json",
                        "images/89Zr_1.nii.gz", "organs/89Zr_1.nii.gz"}  # fmt: skip
    assert all(one[name] != other[name] for name in one if name != "scans.csv")
    for name in ("images/89Zr_1.nii.gz", "organs/89Zr_1.nii.gz"):
        assert one[name][3:8] == bytes(5)  # gzip: no file name, no time


def test_an_animal_does_not_depend_on_how_many_others_there_are(tmp_path: Path) -> None:
    one = write_pet_study(tmp_path / "one", 5, SMALL).parent
    two = write_pet_study(tmp_path / "two", 5, replace(SMALL, animals=2)).parent
    for name in ("images/89Zr_1.nii.gz", "images/89Zr_1.json", "organs/89Zr_1.nii.gz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (two / "images/89Zr_1.nii.gz").read_bytes() != (two / "images/89Zr_2.nii.gz").read_bytes()


def test_one_file_a_frame_holds_the_same_pixels(tmp_path: Path) -> None:
    series = write_pet_study(tmp_path / "series", 5, SMALL).parent
    volumes = write_pet_study(tmp_path / "volumes", 5, replace(SMALL, signals="volume")).parent
    whole = read_scan(series / "images/89Zr_1.nii.gz").signal()
    scans = rows(volumes / "scans.csv")
    assert [float(r["time_h"]) for r in scans] == pytest.approx(list(FEW.mid_h))
    for i, row in enumerate(scans):
        frame = read_scan(volumes / row["file"])
        assert (frame.axes, frame.warnings) == ("ZYX", ())
        assert frame.timing == FrameTiming(FEW.start_s[i : i + 1], FEW.duration_s[i : i + 1], "injection")
        assert frame.tracer is not None
        assert frame.tracer.decay_corrected_to == "injection"
        assert np.abs(frame.signal() - whole[i]).max() <= whole.max() / 32767  # half a step of each file
    assert (series / "truth.csv").read_bytes() == (volumes / "truth.csv").read_bytes()


# ---------------------------------------------------------------- activity


@pytest.mark.parametrize(("isotope", "half_life_h"), [("89Zr", 78.41), ("64Cu", 12.7), ("18F", 1.8295)])
@pytest.mark.parametrize("corrected", [True, False])
def test_a_volume_sums_to_the_injected_activity_less_decay(
    tmp_path: Path, isotope: str, half_life_h: float, corrected: bool
) -> None:
    design = replace(SMALL, isotope=isotope, decay_corrected=corrected)
    folder = write_pet_study(tmp_path, 2, design).parent
    scan = read_scan(folder / f"images/{isotope}_1.nii.gz")
    assert scan.tracer is not None
    assert scan.tracer.isotope == isotope
    assert scan.tracer.decay_corrected_to == ("injection" if corrected else "none")
    left = decay_mean(FEW, half_life_h * 3600)
    counts = COARSE.sensitivity * float(scan.tracer.injected_bq or 0) * left * np.array(FEW.duration_s)
    expected = float(scan.tracer.injected_bq or 0) * (1.0 if corrected else left)
    # 5 sigma of the counts, and what 16 bits round away
    assert (np.abs(total_bq(scan) / expected - 1) < 5 / np.sqrt(counts) + 1e-3).all()


def test_the_sidecar_states_the_factors_of_decay_correction(tmp_path: Path) -> None:
    write_pet_study(tmp_path, 2, SMALL)
    told = json.loads((tmp_path / "images/89Zr_1.json").read_text(encoding="utf-8"))
    assert told["DecayCorrectionFactor"] == pytest.approx(list(1 / decay_mean(FEW, HALF_LIFE_S)), rel=1e-7)
    assert (told["TracerRadionuclide"], told["ImageDecayCorrectionTime"]) == ("Zr89", 0)
    write_pet_study(tmp_path, 2, replace(SMALL, decay_corrected=False, isotope="99mTc"))
    told = json.loads((tmp_path / "images/99mTc_1.json").read_text(encoding="utf-8"))
    assert told["ImageDecayCorrected"] is False
    assert "DecayCorrectionFactor" not in told
    assert told["TracerRadionuclide"] == "Tc99m"


def _solved(rates: dict[str, float], time_h: np.ndarray) -> np.ndarray:
    """% of dose in ORGANS at each time by a general solver of the rate equations, (n_organs, T)."""
    k_in, k_out = (np.array([rates[f"k_{way}_{o}"] for o in ORGANS]) for way in ("in", "out"))

    def change(_: float, a: np.ndarray) -> np.ndarray:
        return np.concatenate([[-(k_in.sum() + rates["k_el"]) * a[0] + k_out @ a[1:]], k_in * a[0] - k_out * a[1:]])

    start = np.array([100.0, *np.zeros(len(ORGANS))])
    return solve_ivp(change, (0, time_h[-1]), start, t_eval=time_h, rtol=1e-10, atol=1e-10).y[1:]


@pytest.mark.parametrize("free", [0.0, 0.3])
def test_truth_is_the_mean_over_the_frame_of_the_kinetics(tmp_path: Path, free: float) -> None:
    """Against a general solver and the trapezoidal rule, decay within the frame weighted in."""
    design = replace(SMALL, isotope="18F", animal_cv=0.0, free_fraction=free)
    write_pet_study(tmp_path, 1, design)
    vesicle, seen = (reading(tmp_path, "18F_1", column) for column in ("vesicle", "reading"))
    for i, (start, during) in enumerate(zip(FEW.start_s, FEW.duration_s, strict=True)):
        time = np.linspace(start, start + during, 2001) / 3600
        decay = 0.5 ** (time / 1.8295)
        on, off = (_solved(table, time) for table in (VESICLE, FREE_DYE))
        for found, curve in ((vesicle, on), (seen, (1 - free) * on + free * off)):
            expected = np.trapezoid(curve * decay, time) / np.trapezoid(decay, time)
            assert [found[o][i] for o in ORGANS] == pytest.approx(list(expected), rel=1e-5)
            assert sum(values[i] for values in found.values()) == pytest.approx(100, abs=1e-5)


def test_animals_differ_as_asked_and_none_holds_more_than_its_dose(study: Path, tmp_path: Path) -> None:
    assert reading(study, "89Zr_1")["liver"][-1] != reading(study, "89Zr_2")["liver"][-1]
    for n in (1, 2):
        found = reading(study, f"89Zr_{n}")
        assert min(values.min() for values in found.values()) >= 0
        assert sum(found.values()) == pytest.approx(100 * np.ones(9), abs=1e-5)
    write_pet_study(tmp_path, 3, replace(SMALL, animals=2, animal_cv=0.0))
    one, two = (reading(tmp_path, f"89Zr_{n}") for n in (1, 2))
    assert all(np.array_equal(one[o], two[o]) for o in one)


def test_truth_ends_with_the_rates_of_the_study(study: Path) -> None:
    found = {r["name"]: float(r["vesicle"]) for r in rows(study / "truth.csv") if r["kind"] == "rate"}
    assert found == pytest.approx(VESICLE)
    peaks = {r["name"]: r for r in rows(study / "truth.csv") if r["kind"] == "parameter"}
    assert float(peaks["liver_uptake_pct_id"]["time_h"]) == 2.0


# ---------------------------------------------------------------- scanner


def test_a_point_is_as_wide_as_declared_along_every_axis() -> None:
    scanner = Scanner(shape=(41, 41, 41), voxel_mm=0.4, fwhm_mm=1.6, fwhm_z_mm=2.0)
    point = np.zeros(scanner.shape)
    point[20, 20, 20] = 7.0
    seen = scanner.blur(point)
    assert seen.sum() == pytest.approx(7.0, rel=1e-6)
    for axis, fwhm in enumerate((2.0, 1.6, 1.6)):
        profile = np.moveaxis(seen, axis, 0)[:, 20, 20]
        at = np.arange(20, 41)
        half = np.interp(-profile[20] / 2, -profile[20:], at) - 20  # where it falls to half its height
        assert 2 * half * scanner.voxel_mm == pytest.approx(fwhm, rel=0.02)


def test_noise_is_as_declared_in_files(tmp_path: Path) -> None:
    """Late frames of an isotope that hardly decays repeat each other: variance = mean / (sensitivity d volume)."""
    start = 720_000 + 500 * np.arange(24)
    during = np.where(np.arange(24) % 2, 60.0, 240.0)
    frames = FrameTiming(tuple(start.tolist()), tuple(during.tolist()), "injection")
    write_pet_study(tmp_path, 4, replace(SMALL, isotope="125I", frames=frames, decay_corrected=False))
    volumes = read_scan(tmp_path / "images/125I_1.nii.gz").signal()
    for seconds in (60.0, 240.0):
        some = volumes[during == seconds]
        ratio = some.var(axis=0, ddof=1).sum() / some.mean(axis=0).sum()
        assert ratio * COARSE.sensitivity * seconds * COARSE.voxel_ml == pytest.approx(1, rel=0.03)
    assert volumes[:, 0].max() == 0  # outside the animal nothing is counted


SIGMA = np.array([2.0, 1.6, 1.6]) / np.sqrt(8 * np.log(2)) / 0.8  # of the declared blur, in voxels


def _least_squares(folder: Path, name: str, frame: int, blur: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit the label volume's tissues to a frame; return (found, truth, covariance by Poisson) in Bq."""
    scan, labels = (read_scan(folder / f"{part}/{name}.nii.gz") for part in ("images", "organs"))
    assert scan.tracer is not None
    assert scan.timing is not None
    masks = np.stack([labels.counts == value for value in TISSUES]) / 1.0
    seen = (
        np.stack([ndimage.gaussian_filter(m, SIGMA, mode="constant", truncate=6.0) for m in masks]) if blur else masks
    )
    unit = seen.reshape(len(masks), -1) / masks.sum(axis=(1, 2, 3))[:, None]
    unit = unit[:, (there := unit.sum(axis=0) > 0)]
    injected = float(scan.tracer.injected_bq or 0)
    truth = np.array([reading(folder, name)[o][frame] for o in TISSUES.values()]) / 100 * injected
    counts_per_bq = 0.002 * scan.timing.duration_s[frame] * decay_mean(scan.timing, HALF_LIFE_S)[frame]
    expected = truth @ unit
    weight = counts_per_bq / np.maximum(expected, 1e-9 * expected.max())
    covariance = np.linalg.inv((unit * weight) @ unit.T)
    found = covariance @ ((unit * weight) @ (scan.signal()[frame].ravel()[there] * 0.8**3 / 1000))
    return found, truth, covariance


def test_files_are_explained_by_their_labels_blur_and_noise(whole_voxels: Path) -> None:
    """With whole voxels, what least squares miss of the truth is Poisson's error: neither bias nor other noise."""
    z = []
    for name in ("89Zr_1", "89Zr_2"):
        for frame in range(3):
            found, truth, covariance = _least_squares(whole_voxels, name, frame, blur=True)
            z.append(np.linalg.solve(np.linalg.cholesky(covariance), found - truth))
    low, high = stats.chi2.interval(0.998, np.size(z))
    assert low < np.sum(np.square(z)) < high
    assert np.abs(np.mean(z)) < 3.1 / np.sqrt(np.size(z))
    found, truth, covariance = _least_squares(whole_voxels, "89Zr_1", 2, blur=False)
    assert (np.abs(found - truth) / np.sqrt(np.diag(covariance))).max() > 30


def test_shared_voxels_cost_a_label_volume_about_one_percent(study: Path) -> None:
    """A mean error of 0.9 % in ten animals, which is far from noise."""
    errors = []
    for name in ("89Zr_1", "89Zr_2"):
        found, truth, covariance = _least_squares(study, name, 8, blur=True)
        errors.append(found / truth - 1)
        assert (np.abs(found - truth) / np.sqrt(np.diag(covariance))).max() > 5
    assert 0.003 < np.abs(errors).mean() < 0.02


def test_the_estimator_finds_the_activity(whole_voxels: Path) -> None:
    scan, labels = (read_scan(whole_voxels / f"{part}/89Zr_1.nii.gz") for part in ("images", "organs"))
    settings = load_study(whole_voxels).settings.imaging
    organs = from_label_image(labels.counts, settings.organ_labels, scan.frame_shape)
    found = quantify(replace(scan, counts=scan.counts[2], axes="ZYX", timing=None), organs, settings)
    assert (found.unit, found.organs) == ("bq", tuple(TISSUES.values()))
    _, truth, covariance = _least_squares(whole_voxels, "89Zr_1", 2, blur=True)
    assert (np.abs(found.value - truth) < np.maximum(6 * np.sqrt(np.diag(covariance)), 0.01 * truth)).all()


# ---------------------------------------------------------------- anatomy


def test_organs_lie_where_the_orientation_says() -> None:
    """z to the head, y to the belly, x to the right."""
    points = COARSE.tissues(STRAIGHT)
    at = {o: ndimage.center_of_mass(share) for o, share in tissue_shares(points).items()}
    assert at["brain"][0] > at["lung"][0] > at["liver"][0] > at["kidney"][0]
    assert at["kidney"][1] < at["liver"][1] - 2
    assert at["spleen"][2] < at["body"][2] - 4  # on the left
    skin = np.nonzero(points)[2]
    middle = ((skin.min() + skin.max()) / 2 - (3 * 28 - 1) / 2) * 1.6 / 3
    assert middle == pytest.approx(STRAIGHT.centre_mm[1], abs=1.6 / 3)
    assert abs(STRAIGHT.centre_mm[1]) > 1.0


@pytest.mark.parametrize("seed", range(3))
def test_the_volume_shows_the_animal_that_was_drawn(seed: int) -> None:
    """Places against the animal's own shares, made by another grid and rule; sizes against the published ones."""
    animal = DigitalAnimal.draw(np.random.default_rng(seed), PetDesign().variation)
    scanner = Scanner()
    shares = tissue_shares(scanner.tissues(animal))
    z, y, x = animal.grid
    assert (sum(shares.values()) <= 1 + 1e-12).all()
    for organ in ORGANS:
        other = animal.shares[organ]
        places = [np.interp(c, np.arange(len(g)), g) for c, g in
                  zip(ndimage.center_of_mass(other), (z, y, x), strict=True)]  # fmt: skip
        head, belly, right = (np.array(ndimage.center_of_mass(shares[organ])) - (np.array(scanner.shape) - 1) / 2) * 0.8
        assert (-belly, -head, right) == pytest.approx(tuple(places), abs=0.15)
    for organ in ("brain", "heart", "spleen"):  # no other organ takes of their place; a bent back squeezes one side
        squeeze = 1.5 * abs(animal.bend_rad) * 12 / animal.anatomy.length_mm
        assert shares[organ].sum() * 0.8**3 == pytest.approx(animal.anatomy.volume_mm3(organ), rel=0.005 + squeeze)


def test_animals_fit_into_the_field_of_view() -> None:
    for seed in range(20):
        COARSE.tissues(DigitalAnimal.draw(np.random.default_rng(seed), PetDesign().variation))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"isotope": "98Zr"}, "no half-life of the isotope '98Zr'"),
        ({"frames": FrameTiming((0, 60), (60, 60))}, "count from the scan's start"),
        ({"frames": FrameTiming((-60, 0), (60, 60), "injection")}, "start before the injection"),
        ({"frames": FrameTiming((0, 60), (0, 60), "injection")}, "last no time"),
        ({"animals": 0}, "0 animals"),
        ({"injected_bq": float("nan")}, "nan Bq injected"),
        ({"injected_bq": float("inf")}, "inf Bq injected"),
        ({"free_fraction": 1.5}, "a free fraction of 1.5"),
        ({"variation": Variation(shape_mm=0.5)}, "shape_mm is 0.5"),
        ({"signals": "both"}, "signals is 'both'; expected 'series' or 'volume'"),
    ],
)
def test_a_design_that_cannot_be_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PetDesign(**changes)


@pytest.mark.parametrize("name", ["voxel_mm", "fwhm_mm", "fwhm_z_mm", "sensitivity"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scanner_that_cannot_be_is_refused_in_words(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"the scanner's {name} is {value}; expected a number above 0"):
        Scanner(**{name: value})


def test_a_scanner_has_voxels_and_room_for_the_animal(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape is \(0, 4, 4\); expected voxels along z, y and x"):
        Scanner(shape=(0, 4, 4))
    for shape in ((50, 24, 28), (68, 10, 28), (68, 24, 12)):
        with pytest.raises(ValueError, match=r"reaches out of the field of view of .* make the scanner's shape larger"):
            write_pet_study(tmp_path, 1, replace(SMALL, scanner=replace(COARSE, shape=shape)))


# ---------------------------------------------------------------- command line


def test_the_command_writes_a_pet_study(tmp_path: Path) -> None:
    from evbiodist.cli import main

    def call(*options: str) -> Any:
        return CliRunner().invoke(main, ["phantom", str(tmp_path / "out"), "--kind", "pet", *options])

    for option in (("--times", "1,2,3"), ("--no-in-vivo",)):
        refused = call(*option)
        assert refused.exit_code == 2
        assert "does not go with --kind pet" in refused.stderr
    done = call("--animals", "1", "--seed", "4")
    assert done.exit_code == 0
    assert done.output.startswith("digital study in ")
    assert (tmp_path / "out/images/89Zr_1.nii.gz").is_file()
    again = call()
    assert again.exit_code == 2
    assert "holds a study or file already" in again.stderr
