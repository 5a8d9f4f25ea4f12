"""Photon transfer within one image finds gain and read noise of a camera whose truth is known."""

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.noise import estimate_camera, noise_from_residual, variance_counts
from evbiodist.io.scan import Camera, Scan
from evbiodist.io.stream import AxesView
from evbiodist.phantom.camera import PhantomCamera


@pytest.mark.parametrize("gain", [0.5, 1.2, 3.0])
def test_gain_and_read_noise_are_found(gain):
    y, x = np.mgrid[:200, :200]
    light = 4000 * np.exp(-((y - 100) ** 2 + (x - 90) ** 2) / 4000)
    truth = PhantomCamera(gain_e=gain, read_noise_e=6.0, fwhm_px=0.0)
    found = [estimate_camera(Scan("a", None, truth.expose(light, np.random.default_rng(i)), "YX", offset=500.0))[0]
             for i in range(8)]  # fmt: skip
    assert np.median([c.gain_e for c in found]) == pytest.approx(gain, rel=0.1)
    assert np.median([c.read_noise_e for c in found]) == pytest.approx(6.0, rel=0.15)


def test_a_known_camera_is_left_alone():
    camera = Camera(gain_e=2.0, read_noise_e=5.0)
    assert estimate_camera(Scan("a", None, np.ones((9, 9)), "YX", camera=camera)) == (camera, False)


def test_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="gain_e and read_noise_e are unknown"):
        variance_counts(np.ones(3), Camera())


def test_real_camera_is_plausible(ivis_click):
    """An iKon read out at 8 x 8 binning: about an electron a count, a few electrons of read noise."""
    from evbiodist.io.registry import read

    camera, estimated = estimate_camera(read(ivis_click))
    assert estimated
    assert 0.3 < camera.gain_e < 3
    assert 1 < camera.read_noise_e < 10


# ---------------------------------------------------------------- odd inputs to photon transfer


def lit(seed=0, shape=(160, 170)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 3000 * np.exp(-((y - 80) ** 2 + (x - 80) ** 2) / 3000)
    return PhantomCamera(gain_e=1.2, read_noise_e=6.0, fwhm_px=0.0).expose(light, np.random.default_rng(seed))


def test_pixels_without_a_number_or_known_to_be_bad_are_left_out():
    found = []
    for seed in range(8):
        counts = lit(seed).astype(float)
        counts[20:24, 30:90] = np.nan
        bad = np.zeros(counts.shape, bool)
        bad[100:110, 50:60] = True
        counts[bad] = 6e4
        camera = estimate_camera(Scan("a", None, counts, "YX", offset=500.0, bad=bad))[0]
        found.append((camera.gain_e, camera.read_noise_e))
    gain, read = np.median(found, axis=0)
    assert gain == pytest.approx(1.2, rel=0.1)
    assert read == pytest.approx(6.0, rel=0.15)


def test_offsets_of_each_frame_and_pixel_and_lazy_counts():
    counts = np.stack([lit(0), lit(1)])
    offset = np.broadcast_to(500.0, counts.shape)
    plain = estimate_camera(Scan("a", None, counts[0], "YX", offset=500.0))
    assert estimate_camera(Scan("a", None, counts, "TYX", offset=offset)) == plain
    assert estimate_camera(Scan("a", None, counts, "TYX", offset=np.full((2, 1, 1), 500.0))) == plain
    assert estimate_camera(Scan("a", None, AxesView(counts, (0, 1, 2)), "TYX", offset=500.0)) == plain


def test_volumes_show_their_noise_in_several_slices():
    counts = np.stack([np.full((160, 170), 500, np.uint16), *(lit(i) for i in range(4))])
    found = estimate_camera(Scan("a", None, counts, "ZYX", offset=500.0))[0]
    assert found.gain_e == pytest.approx(1.2, rel=0.25)  # the first slice alone says nothing


def test_too_little_to_see_noise_is_said():
    with pytest.raises(ValueError, match="a has too few usable pixels to estimate its noise; give gain_e"):
        estimate_camera(Scan("a", None, np.full((6, 6), np.nan), "YX"))


# ---------------------------------------------------------------- noise from residuals


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_residuals_give_the_line_in_any_unit(unit):
    """60 fits: median within 5 %; the estimate is the same whatever the unit."""
    y, x = np.mgrid[:120, :120]
    expected = 5 + 300 * np.exp(-((y - 60) ** 2 + (x - 60) ** 2) / 300)
    found = []
    for seed in range(60):
        left = np.random.default_rng(seed).normal(0, np.sqrt(0.7 * expected + 9))
        noise = noise_from_residual(expected * unit, left * unit, np.ones(left.shape, bool))
        found.append((noise.per_count / unit, noise.variance(np.array(5.0 * unit)) / unit**2, noise.cluster))
    per_count, dark, cluster = np.median(found, axis=0)
    assert per_count == pytest.approx(0.7, rel=0.05)
    assert dark == pytest.approx(12.5, rel=0.05)
    assert cluster == 1.0
    assert noise.fitted


@pytest.mark.parametrize("sigma", [(0.8, 0.8, 0.8), (0.6, 1.2, 1.2)])
def test_smooth_noise_says_how_many_pixels_go_together(sigma):
    """Noise smoothed by a Gaussian: the variance of a sum over n pixels is n times `cluster` times that of one."""
    rng = np.random.default_rng(1)
    fields = [ndimage.gaussian_filter(rng.normal(size=(24, 60, 60)), sigma, mode="wrap") for _ in range(12)]
    clusters = [noise_from_residual(np.zeros(f.shape), f, np.ones(f.shape, bool)).cluster for f in fields]
    size = (12, 30, 30)
    sums = [b.sum() for f in fields for b in (f[i : i + 12, j : j + 30, k : k + 30]
                                              for i in (0, 12) for j in (0, 30) for k in (0, 30))]  # fmt: skip
    measured = np.var(sums) / np.prod(size) / np.var(fields)
    assert np.median(clusters) == pytest.approx(np.prod([2 * s * np.sqrt(np.pi) for s in sigma]), rel=0.1)
    assert np.median(clusters) == pytest.approx(measured, rel=4 * np.sqrt(2 / len(sums)) + 0.15)


def test_an_image_without_noise_or_light_breaks_nothing():
    flat = np.zeros((20, 20))
    noise = noise_from_residual(flat, flat, np.ones(flat.shape, bool))
    assert 0 < noise.variance(flat).max() < 1e-9
