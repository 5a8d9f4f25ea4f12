"""Digital in-vivo studies: the same seed the same bytes, and a camera whose every fault the reader undoes."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import stats

import evbiodist as ev
from evbiodist.batch.pipeline import check
from evbiodist.imaging.clean import find_bad_pixels
from evbiodist.io.scan import RADIANCE
from evbiodist.phantom.body import DigitalAnimal, Posture
from evbiodist.phantom.ivis import Ivis
from evbiodist.phantom.optical import OpticalDesign, write_optical_study
from evbiodist.phantom.truth import ORGANS, Kinetics, LabelTruth
from evbiodist.study.load import load_study

LUC = OpticalDesign(times_h=(0.5, 4.0), animals=2, views=("dorsal", "ventral"), label=LabelTruth("Luc", free_fraction=0.0),
                    emission_nm=700.0, excitation_nm=None, flux_per_pct=1e9)  # fmt: skip


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_optical_study(tmp_path_factory.mktemp("optical"), 3, LUC).parent


def bytes_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- files


def test_the_study_loads_without_a_problem(study):
    loaded = load_study(study)
    assert check(loaded) == []
    assert loaded.simulated
    assert len(loaded.scans) == 4
    assert {(s.time_h, s.view) for s in loaded.scans} == {(t, v) for t in (0.5, 4.0) for v in ("dorsal", "ventral")}
    assert {s.subjects for s in loaded.scans} == {("Luc_1", "Luc_2")}
    assert loaded.labels["Luc"].emission_nm == 700.0
    assert loaded.labels["Luc"].kind == "bioluminescence"


def test_the_same_seed_gives_the_same_bytes(study, tmp_path):
    again = bytes_of(write_optical_study(tmp_path / "again", 3, LUC).parent)
    assert again == bytes_of(study)


def test_another_seed_gives_other_animals(tmp_path):
    small = replace(LUC, times_h=(0.5,), animals=1, views=("dorsal",))
    first, second = (bytes_of(write_optical_study(tmp_path / str(s), s, small).parent) for s in (1, 2))
    assert set(first) == set(second)
    same = {p.name for p in first if first[p] == second[p]}
    assert same == {"ClickInfo.txt", "scans.csv", "standard.tif"}


def test_clicks_read_without_a_warning(study):
    for record in load_study(study).scans:
        scan = ev.read(study / record.file)
        assert (scan.unit, scan.axes, scan.counts.shape) == (RADIANCE, "YX", (240, 240))
        assert scan.warnings == ()
        assert scan.exposure_s == 30.0
        assert scan.pixel_size_mm == pytest.approx((0.55, 0.55))
        assert (scan.camera.bias, scan.camera.saturation) == (496.0, 61000.0)


@pytest.mark.parametrize("animals", [0, 4])
def test_animals_that_do_not_fit_the_field_of_view_are_refused(animals):
    with pytest.raises(
        ValueError, match=f"{animals} animals do not lie side by side in the field of view; give 1 to 3"
    ):
        OpticalDesign(animals=animals)


# ---------------------------------------------------------------- truth


def test_truth_is_what_the_kinetics_say_with_each_animal_s_own_uptake(study):
    table = rows(study / "truth.csv")
    reading = {
        (r["name"], r["organ"], float(r["time_h"])): float(r["reading"]) for r in table if r["kind"] == "observation"
    }
    assert {k[0] for k in reading} == {"Luc_1", "Luc_2"}
    assert {k[1] for k in reading} == {*ORGANS, "gut", "body"}
    assert all(value >= 0 for value in reading.values())
    kinetics = Kinetics.draw(np.random.default_rng(3), LUC.kinetics_cv)
    mean = kinetics.reads(LUC.label, np.array([0.5, 4.0]))
    for organ in ORGANS:
        for name in ("Luc_1", "Luc_2"):
            # an animal takes up more or less than the mean, always by the same factor
            factor = [reading[name, organ, t] / mean[organ][i] for i, t in enumerate((0.5, 4.0))]
            assert factor[0] == pytest.approx(factor[1], rel=1e-6)
            assert 0.3 < factor[0] < 3
    for (name, organ, time), value in reading.items():
        if organ == "gut":  # 15 % of what the liver holds comes with bile, times its own factor
            assert 0.3 < value / (0.15 * reading[name, "liver", time]) < 3
        if organ == "body":
            assert value > LUC.autofluorescence_pct


def test_the_mean_of_many_animals_is_the_kinetics(tmp_path):
    from evbiodist.phantom.study import mean_one

    rng = np.random.default_rng(4)
    factors = np.array([mean_one(rng, 0.25) for _ in range(4000)])
    assert factors.mean() == pytest.approx(1.0, abs=4 * 0.25 / np.sqrt(4000))
    assert factors.std() == pytest.approx(0.25, rel=0.06)


def test_the_standard_shines_as_its_share_of_the_dose(study):
    label = tifffile.imread(study / "standard.tif") > 0
    ring = np.zeros_like(label)
    y, x = np.nonzero(label)
    ring[y.min() - 4 : y.max() + 5, x.min() - 4 : x.max() + 5] = True
    ring &= ~label
    shares, errors = [], []
    for record in load_study(study).scans:
        scan = ev.read(study / record.file)
        per_count = 4 * np.pi * 0.055**2 * np.broadcast_to(scan.scale, label.shape)
        flux = 4 * np.pi * 0.055**2 * scan.signal()
        around = np.median(flux[ring])
        shares.append((flux[label].sum() - around * label.sum()) / LUC.flux_per_pct)
        gain, read = LUC.camera.gain_e, LUC.camera.read_noise_e
        variance = (np.maximum(flux, 0) / per_count / gain + (read / gain) ** 2 + 1 / 12) * per_count**2
        # a median scatters by sqrt(pi / 2) of a mean
        of_around = np.pi / 2 * variance[ring].mean() / ring.sum() * label.sum() ** 2
        errors.append(np.sqrt(variance[label].sum() + of_around) / LUC.flux_per_pct)
    assert np.max(errors) < 0.006 * np.mean(shares)
    # one drop in all frames, so that readings differ by their noise alone
    chi2 = np.sum(((shares - np.mean(shares)) / errors) ** 2)
    assert chi2 < stats.chi2.ppf(0.999, len(shares) - 1)
    # pipetted once, 0.1 % of the dose within 2 %
    assert np.mean(shares) == pytest.approx(0.1, abs=4 * 0.002)


def test_animals_lie_side_by_side_with_the_first_on_the_left(study):
    """Middles are 42 mm apart; each animal is turned by some 0.06 rad about the middle of its grid and laid up to 1.5 mm aside."""
    rng = np.random.default_rng(3)
    Kinetics.draw(rng, LUC.kinetics_cv)
    animals = [DigitalAnimal.draw(rng, LUC.variation) for _ in range(2)]  # those of the study: its first draws
    for record in load_study(study).scans:
        scan = ev.read(study / record.file)
        bright = scan.photograph.astype(float) > 110
        bright &= ~(tifffile.imread(study / "standard.tif") > 0)
        for animal, side, half in zip(animals, (-1, 1), (slice(0, 120), slice(120, 240)), strict=True):
            straight = np.logical_or(
                *animal.silhouette((240, 240), 0.55, record.view, Posture(move_mm=(0.0, 21.0 * side)))
            )
            here, there = (np.argwhere(image[:, half]).mean(axis=0) for image in (bright, straight))
            turned = 0.06 * abs(there[0] - 119.5)
            assert here[1] == pytest.approx(there[1], abs=1.5 / 0.55 + 4 * turned)


# ---------------------------------------------------------------- the camera


def scene(columns=240):
    """Flux of two soft spots and an even glow, p/s a pixel."""
    y, x = np.mgrid[:columns, :columns] * 240 / columns
    spot = 4e6 * np.exp(-((y - 70) ** 2 + (x - 60) ** 2) / 400) + 9e6 * np.exp(-((y - 180) ** 2 + (x - 200) ** 2) / 900)
    return (spot + 2e5) * (240 / columns) ** 2


def click(folder, camera, flux, seed, filters=("Block", "700")):
    rng = np.random.default_rng(seed)
    photograph = np.zeros((camera.columns, camera.columns), np.uint8)
    camera.write(
        folder, camera.expose(flux, rng), photograph, camera.dark_frame(rng), filters, ("2026-01-05", "10:00:00")
    )
    return ev.read(folder)


FLAT = (1.0, 0.01, -0.004, 0.0, 0.0)


@pytest.mark.parametrize(
    "camera",
    [
        Ivis(rays=0),
        Ivis(rays=0, flat=FLAT, dark_per_s=3.0, dark_s=20.0, bias=700.0),
        Ivis(rays=0, columns=120, binning=16, exposure_s=7.5, coefficient=3e8),
        Ivis(rays=0, fov_cm=22.4, gain_e=2.5, read_noise_e=12.0),
    ],
    ids=["plain", "dark and flat", "binned", "wide"],
)
def test_the_reader_undoes_bias_dark_flat_field_and_exposure(tmp_path, camera):
    flux = scene(camera.columns)
    scan = click(tmp_path / "c", camera, flux, 5)
    assert scan.unit == RADIANCE
    assert scan.warnings == ()
    area = (camera.fov_cm / camera.columns) ** 2
    found = 4 * np.pi * area * scan.signal()
    # noise of every pixel, from electrons: light, dark and read noise of this frame, and of the scaled dark frame
    per_count = 4 * np.pi * area * camera.per_count()
    light = flux / per_count + camera.dark_per_s * camera.exposure_s
    share = camera.exposure_s / camera.dark_s
    variance = light / camera.gain_e + (camera.read_noise_e / camera.gain_e) ** 2 + 1 / 12
    dark = camera.dark_per_s * camera.dark_s / camera.gain_e + (camera.read_noise_e / camera.gain_e) ** 2 + 1 / 12
    z = (found - flux) / per_count / np.sqrt(variance + share**2 * dark)
    assert abs(z.mean()) < 4 / camera.columns + 0.02
    assert z.std() < 1.05  # the reader may smooth the dark frame, which only lowers noise
    assert found.sum() == pytest.approx(flux.sum(), rel=2e-3)
    corner, middle = (slice(0, 30), slice(0, 30)), (slice(105, 135), slice(105, 135))
    for place in (corner, middle):
        assert found[place].sum() == pytest.approx(
            flux[place].sum(), abs=5 * np.sqrt((per_count**2 * variance * 2)[place].sum())
        )


def test_flat_and_dark_are_really_in_the_counts(tmp_path):
    """The same light in two cameras gives other counts, and the same flux."""
    flux = scene()
    plain, odd = Ivis(rays=0), Ivis(rays=0, flat=FLAT, dark_per_s=5.0)
    first, second = (click(tmp_path / name, c, flux, 6) for name, c in (("a", plain), ("b", odd)))
    counts = [s.counts.astype(float) for s in (first, second)]
    assert np.median(counts[1][:20, :20] - counts[0][:20, :20]) > 100
    ratio = second.signal()[170:190, 190:210].sum() / first.signal()[170:190, 190:210].sum()
    assert ratio == pytest.approx(1.0, abs=0.01)


def test_rays_are_seen_as_rays_and_the_rest_is_the_scene(tmp_path):
    flux = scene()
    clean, hit = (click(tmp_path / f"r{rays}", Ivis(rays=rays), flux, 7) for rays in (0, 40))
    struck = hit.counts.astype(float) - clean.counts.astype(float) > 150 + 8 * np.sqrt(clean.counts.astype(float))
    assert 20 < struck.sum() < 250
    bad = find_bad_pixels(replace(hit, camera=replace(hit.camera, gain_e=1.4, read_noise_e=6.0)))
    assert (bad.mask & struck).sum() > 0.8 * struck.sum()
    left = ~bad.mask
    assert hit.signal()[left].sum() == pytest.approx(clean.signal()[left].sum(), rel=2e-3)


class Scripted:
    """A generator whose cosmic ray flies as a test says; the rest is drawn."""

    def __init__(self, at, angle, length):
        self.rng, self.at, self.angle, self.length = np.random.default_rng(8), at, angle, length

    def __getattr__(self, name):
        return getattr(self.rng, name)

    def poisson(self, rate):
        return 1 if np.ndim(rate) == 0 else self.rng.poisson(rate)

    def integers(self, low, high, size=None):
        return self.at if size else self.length

    def uniform(self, low, high):
        return self.angle


def test_a_ray_that_leaves_the_sensor_does_not_come_back_on_the_other_side():
    camera = Ivis(columns=40, rays=1.0)
    counts = camera.expose(np.zeros((40, 40)), Scripted((20, 2), np.pi - 1e-6, 4))
    y, x = np.nonzero(counts > camera.bias + 120)
    assert set(x) == {0, 1, 2}
    assert set(y) == {20}


def test_light_beyond_the_well_is_saturated(tmp_path):
    camera = Ivis(rays=0)
    scan = click(tmp_path / "c", camera, scene() * 1000, 9)
    assert scan.counts.max() == camera.saturation == scan.camera.saturation
    assert (scan.counts == camera.saturation).mean() > 0.05


def test_the_number_of_rays_is_as_declared():
    camera = Ivis(rays=3.0, read_noise_e=1.0, dark_per_s=0.0)
    rng = np.random.default_rng(10)
    dim = np.zeros((240, 240))
    from scipy import ndimage

    found = [ndimage.label(camera.expose(dim, rng) > camera.bias + 20, np.ones((3, 3)))[1] for _ in range(60)]
    low, high = stats.poisson.ppf([0.001, 0.999], 180)
    assert low - 5 <= sum(found) <= high


def test_filters_tell_fluorescence_from_glow(tmp_path):
    glow = click(tmp_path / "glow", Ivis(rays=0), scene(), 11)
    dye = click(tmp_path / "dye", Ivis(rays=0), scene(), 11, ("745", "780"))
    assert "no_irradiance" not in glow.flags
    assert "no_irradiance" in dye.flags
    assert (dye.bands[0].emission_nm, dye.bands[0].excitation_nm) == (780.0, 745.0)
    np.testing.assert_array_equal(dye.signal(), glow.signal())
