"""Total flux, dose standard, blur, saturation; and the five real mice with their uncertainty."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.clean import find_bad_pixels
from evbiodist.imaging.noise import Noise
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import find_rays, quantify
from evbiodist.imaging.segment import segment_body
from evbiodist.io.registry import read
from evbiodist.io.scan import ACTIVITY, RADIANCE, RADIANT_EFFICIENCY, Camera, Scan
from evbiodist.phantom.anatomy import mouse
from evbiodist.phantom.camera import PhantomCamera
from evbiodist.study.model import ImagingSettings, StandardSettings

CAMERA = Camera(gain_e=1.2, read_noise_e=5.0, bias=500.0, saturation=61000.0)


def expose(scene, amounts, seed, fwhm=3.0, counts_per_pct=5e4):
    light = sum(pct * counts_per_pct * scene.share(organ) for organ, pct in amounts.items())
    counts = PhantomCamera(fwhm_px=fwhm).expose(light, np.random.default_rng(seed))
    return Scan("a", None, counts, "YX", (1.0, 1.0), offset=500.0, camera=CAMERA)


def organ_map(scene):
    return OrganMap(scene.labels, scene.names, "label image")


TRUE = {
    "liver": 40.0,
    "spleen": 6.0,
    "kidney": 5.0,
    "lung": 4.0,
    "heart": 0.5,
    "brain": 0.6,
    "body": 8.0,
    "standard": 1.0,
}
PSF = ImagingSettings(footprint="psf", psf_fwhm_px=3.0, standard=StandardSettings(pct_of_dose=1.0))


def test_blur_between_organs_is_unmixed_and_intervals_cover():
    """60 mice: the blurred footprint finds every organ; its 95 % intervals hold the truth as often as they should."""
    inside, errors = [], []
    for seed in range(60):
        scene = mouse(np.random.default_rng(seed))
        found = quantify(expose(scene, TRUE, seed), organ_map(scene), PSF)
        truth = np.array([TRUE[o] for o in found.organs])
        errors.append((found.value - truth) / truth)
        inside.append(np.abs(found.value - truth) <= 1.96 * found.se)
    assert np.abs(np.median(errors, axis=0)).max() < 0.01
    assert 0.92 <= np.mean(inside) <= 0.98
    assert found.unit == "pct_id"


def test_plain_sums_spill_where_the_blurred_footprint_does_not():
    scene = mouse(np.random.default_rng(3))
    scan = expose(scene, TRUE, 3)
    heart = [quantify(scan, organ_map(scene), s) for s in (PSF, PSF.model_copy(update={"footprint": "roi"}))]
    errors = [abs(q.value[q.organs.index("heart")] - 0.5) / 0.5 for q in heart]
    assert errors[0] < 0.1
    assert errors[1] > 5 * errors[0]


def test_total_flux_is_four_pi_area_sum():
    radiance = np.zeros((20, 20))
    radiance[5:10, 5:10] = 3e4
    labels = (radiance > 0).astype(np.int32)
    scan = Scan("a", None, radiance, "YX", (2.0, 0.5), unit="p/s/cm2/sr", camera=Camera(gain_e=1.0, read_noise_e=0.0))
    found = quantify(scan, OrganMap(labels, {1: "tumour"}, "label image"))
    assert found.unit == "p_per_s"
    assert found.value[0] == pytest.approx(4 * np.pi * 0.2 * 0.05 * 25 * 3e4)
    assert found.area_cm2[0] == pytest.approx(25 * 0.01)


def test_unknown_pixel_size_refuses_flux_and_areas():
    scan = Scan("a", None, np.ones((20, 20)), "YX", unit="p/s/cm2/sr", camera=CAMERA)
    labels = np.zeros((20, 20), np.int32)
    labels[5:10, 5:10] = 1
    with pytest.raises(ValueError, match="does not say its pixel size, so total flux cannot be computed"):
        quantify(scan, OrganMap(labels, {1: "a"}, "label image"))
    blur = ImagingSettings(footprint="psf", psf_fwhm_mm=2.0)
    with pytest.raises(ValueError, match="psf_fwhm_mm cannot be used"):
        quantify(
            Scan("a", None, np.ones((20, 20)), "YX", camera=CAMERA), OrganMap(labels, {1: "a"}, "label image"), blur
        )


def test_saturated_pixels_get_no_weight_and_a_flag():
    scene = mouse(np.random.default_rng(5))
    scan = expose(scene, TRUE, 5)
    counts = scan.counts.copy()
    rows, columns = np.nonzero(scene.labels == 5)
    counts[rows[:20], columns[:20]] = 61000
    hurt = Scan("a", None, counts, "YX", (1.0, 1.0), offset=500.0, camera=CAMERA)
    found = quantify(hurt, organ_map(scene), PSF)
    liver = found.organs.index("liver")
    assert "saturated" in found.flags[liver]
    assert found.value[liver] == pytest.approx(40.0, rel=0.02)


def test_a_wrong_outline_is_noticed_and_widens_intervals():
    scene = mouse(np.random.default_rng(6))
    scan = expose(scene, TRUE, 6)
    moved = OrganMap(np.roll(scene.labels, 4, axis=0), scene.names, "label image")
    right, wrong = quantify(scan, organ_map(scene), PSF), quantify(scan, moved, PSF)
    assert not any("misfit" in f for f in right.flags)
    assert all("misfit" in f for f in wrong.flags)
    assert (wrong.se / wrong.value > 3 * right.se / right.value).any()


def test_a_dose_standard_must_be_there_and_bright():
    scene = mouse(np.random.default_rng(7))
    with pytest.raises(ValueError, match="not above noise; %ID cannot be computed"):
        quantify(expose(scene, {**TRUE, "standard": 0.0}, 7), organ_map(scene), PSF)
    labels = np.where(scene.labels == 9, 0, scene.labels)
    with pytest.raises(ValueError, match="the dose standard 'standard' is not among the regions"):
        quantify(expose(scene, TRUE, 7), OrganMap(labels, scene.names, "label image"), PSF)


def test_error_of_the_standard_is_shared():
    scene = mouse(np.random.default_rng(8))
    settings = PSF.model_copy(update={"standard": StandardSettings(pct_of_dose=1.0, pct_of_dose_se=0.05)})
    found = quantify(expose(scene, TRUE, 8), organ_map(scene), settings)
    np.testing.assert_allclose(found.se_systematic, 0.05 * np.abs(found.value), rtol=1e-9)


def test_five_real_mice_have_a_flux_with_its_uncertainty(ivis_click):
    """An independent sum over the same pixels gives the flux; shot noise, calibration and outline give its error."""
    scan = read(ivis_click)
    bodies = segment_body(scan, expected=5)
    found = quantify(scan, bodies)
    assert found.unit == "p_per_s"
    outside = np.median(scan.signal()[bodies.grown(8).labels == 0])
    for i, organ in enumerate(found.organs):
        plain = 4 * np.pi * (22.4 / 240) ** 2 * (scan.signal()[bodies.mask(organ)] - outside).sum()
        assert found.value[i] == pytest.approx(plain, rel=0.06)
    assert list(np.argsort(found.value)[::-1][:2]) == [1, 2]  # the two bright tumours
    assert (found.value > 1e6).all()
    assert (found.se / found.value < 0.01).all()
    assert (found.se_systematic / found.value > 0.06).all()
    assert (found.se_systematic / found.value < 0.15).all()
    assert all({"no_dark", "noise_from_image", "systematic"} <= set(f) for f in found.flags)
    assert not any("cosmic" in f for f in found.flags)  # the four rays of this image hit no animal


# ---------------------------------------------------------------- units, volumes, bad pixels


def square(values=3.0, shape=(20, 20)):
    pixels = np.zeros(shape)
    pixels[..., 5:10, 5:10] = values
    return pixels, OrganMap((pixels > 0).astype(np.int32), {1: "tumour"}, "label image")


def test_radiant_efficiency_is_totalled_as_flux_and_never_divided_by_the_exposure():
    pixels, organs = square(3e4)
    scan = Scan("a", None, pixels, "YX", (2.0, 0.5), unit=RADIANT_EFFICIENCY, exposure_s=10.0,
                camera=Camera(gain_e=1.0, read_noise_e=0.0))  # fmt: skip
    found = quantify(scan, organs)
    assert found.unit == "au"
    assert found.value[0] == pytest.approx(4 * np.pi * 0.2 * 0.05 * 25 * 3e4)


def test_counts_are_divided_by_a_known_exposure():
    pixels, organs = square(100.0)
    known = Scan("a", None, pixels, "YX", exposure_s=4.0, camera=Camera(gain_e=1.0, read_noise_e=1.0, bias=0.0))
    assert quantify(known, organs).value[0] == pytest.approx(25 * 100 / 4)


def test_activity_needs_the_whole_spacing():
    pixels, organs = square(7.0, (3, 20, 20))
    scan = Scan("pet", None, pixels, "ZYX", (0.5, 0.4), unit=ACTIVITY, slice_mm=2.0)
    found = quantify(scan, organs)
    assert found.unit == "bq"
    assert found.value[0] == pytest.approx(7.0 * 75 * 0.5 * 0.4 * 2.0 / 1000)
    assert found.volume_ml[0] == pytest.approx(75 * 0.4 / 1000)
    assert found.area_cm2 is None
    with pytest.raises(ValueError, match="pet does not say the distance of its slices, so activity in Bq cannot be"):
        quantify(replace(scan, slice_mm=None), organs)
    with pytest.raises(ValueError, match="pet does not say its pixel size, so activity cannot be computed"):
        quantify(replace(scan, pixel_size_mm=None), organs)
    with pytest.raises(ValueError, match=r"is a volume in p/s/cm2/sr, which is a unit of surfaces"):
        quantify(replace(scan, unit=RADIANCE), organs)
    one = replace(scan, counts=pixels[0], axes="YX")
    assert quantify(one, OrganMap(organs.labels[0], organs.names, "label image")).value[0] == pytest.approx(
        7.0 * 25 * 0.5 * 0.4 * 2.0 / 1000
    )


def test_a_footprint_of_several_frames_is_refused():
    pixels, organs = square()
    with pytest.raises(ValueError, match="the footprint 'optical' is not one of a single frame; use roi or psf"):
        quantify(Scan("a", None, pixels, "YX", camera=CAMERA), organs, ImagingSettings(footprint="optical"))


def test_several_frames_are_refused():
    pixels, organs = square()
    with pytest.raises(ValueError, match=r"a holds \(2, 20, 20\) \(TYX\); give one frame"):
        quantify(Scan("a", None, np.stack([pixels, pixels]), "TYX", camera=CAMERA), organs)


def test_only_organs_that_hold_a_bad_pixel_say_so():
    scene = mouse(np.random.default_rng(9))
    scan = expose(scene, TRUE, 9)
    at = {organ: tuple(np.argwhere(organ_map(scene).mask(organ))[40]) for organ in ("liver", "lung", "body")}
    counts, dead = scan.counts.copy(), np.zeros(scan.plane_shape, bool)
    counts[at["liver"]] = 61000
    dead[at["lung"]] = True
    counts[at["body"]] += 20000
    clean = quantify(scan, organ_map(scene), PSF)
    found = quantify(replace(scan, counts=counts, bad=dead), organ_map(scene), PSF)
    flags = dict(zip(found.organs, found.flags, strict=True))
    assert "saturated" in flags["liver"]
    assert "dead" in flags["lung"]
    assert "cosmic" in flags["body"]
    assert not {"saturated", "dead", "cosmic"} & set(flags["brain"])
    assert (np.abs(found.value - clean.value) < clean.se).all()


def test_a_ray_on_an_organ_counts_where_nobody_looks_for_it():
    scene = mouse(np.random.default_rng(10))
    scan = expose(scene, TRUE, 10)
    counts = scan.counts.copy()
    counts[tuple(np.argwhere(organ_map(scene).mask("brain"))[20])] += 30000
    hit = replace(scan, counts=counts)
    clean = quantify(scan, organ_map(scene), PSF)
    brain = clean.organs.index("brain")
    off = quantify(hit, organ_map(scene), PSF.model_copy(update={"cosmic": False}))
    assert np.abs(quantify(hit, organ_map(scene), PSF).value - clean.value)[brain] < clean.se[brain]
    assert np.abs(off.value - clean.value)[brain] > 5 * clean.se[brain]


def test_the_quick_look_for_rays_misses_none_that_the_whole_one_finds():
    """Scenes of light through a lens with rays and dead pixels: the same pixels are left out."""
    found = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        light = ndimage.gaussian_filter(rng.uniform(0, 1, (90, 100)) ** 8 * 4000, 1.3) + 300
        counts = rng.poisson(light) + rng.normal(0, 4, light.shape)
        for y, x in rng.integers(8, 80, (6, 2)):
            counts[y, x : x + rng.integers(1, 4)] += 10 ** rng.uniform(2, 4)
        y, x = rng.integers(8, 80, 2)
        counts[y, x] = 0.0
        counts -= 400.0 * (seed % 2)  # every other scene with an overstated bias
        noise = Noise(1.0, 16.0)
        scan = Scan("", None, counts, "YX", camera=Camera(gain_e=1.0, read_noise_e=4.0, bias=0.0))
        whole = find_bad_pixels(scan)
        rays, dead = find_rays(counts, noise, 2.0)
        np.testing.assert_array_equal(dead, whole.dead)
        assert (rays == whole.cosmic).all()
        found += int(rays.sum())
    assert found > 15


def test_an_overstated_bias_makes_no_pixel_dead():
    pixels, organs = square(400.0, (40, 40))
    noisy = ndimage.gaussian_filter(pixels, 1.0) + np.random.default_rng(1).normal(0, 3, pixels.shape)
    scan = Scan("a", None, noisy, "YX", offset=60.0, camera=Camera(gain_e=1.0, read_noise_e=3.0, bias=60.0))
    found = quantify(scan, organs)
    assert found.flags == ((),)
    assert found.value[0] == pytest.approx(25 * 400, rel=0.3)


def test_volumes_unmix_spill_over_with_unequal_blur():
    labels = np.zeros((14, 26, 28), np.int32)
    labels[4:9, 5:12, 5:12], labels[4:9, 5:12, 12:16] = 1, 2
    organs = OrganMap(labels, {1: "liver", 2: "kidney"}, "label image")
    truth = np.array([9e4, 1e4])
    shares = [
        ndimage.gaussian_filter((labels == v) / (labels == v).sum(), (0.7, 1.2, 1.2), mode="constant") for v in (1, 2)
    ]
    image = np.tensordot(truth, shares, 1) + 5 + np.random.default_rng(1).normal(0, 2, labels.shape)
    scan = Scan("pet", None, image, "ZYX", (0.5, 0.5), unit=ACTIVITY, slice_mm=1.0)
    width = {"psf_fwhm_mm": 1.2 * 0.5 * 2.3548, "psf_fwhm_z_mm": 0.7 * 2.3548}
    found = quantify(scan, organs, ImagingSettings(footprint="psf", **width))
    ml = 0.5 * 0.5 * 1.0 / 1000
    assert (np.abs(found.value - truth * ml) < 4 * found.se).all()
    assert np.abs(found.value / ml / truth - 1).max() < 0.02
    assert np.abs(quantify(scan, organs).value / ml / truth - 1).max() > 0.05
    assert all("noise_from_image" in f for f in found.flags)
