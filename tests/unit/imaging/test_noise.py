"""Photon transfer within one image finds gain and read noise of a camera whose truth is known."""

import numpy as np
import pytest

from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.io.scan import Camera, Scan
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
