"""Tissue optics: the tables are honoured, limits are said, and light hidden by thickness follows the diffusion slab."""

import numpy as np
import pytest

from evbiodist.imaging.optics import BOUNDARY, CLEAR, depth_from_ratio, escape_fraction, has_optics, optics
from evbiodist.study.constants import tissue_optics


def test_tables_are_met_and_every_organ_has_a_source():
    for organ, rows in tissue_optics().items():
        for nm, mu_a, mu_s in rows:
            found = optics(organ, nm)
            assert (found.mu_a, found.mu_s_reduced) == pytest.approx((mu_a, mu_s), rel=1e-12)
    between = optics("liver", 740)
    assert min(0.107, 0.13) < between.mu_a < max(0.107, 0.13)
    assert optics("whisker", 780) == optics("muscle", 780)
    assert has_optics("brain")
    assert not has_optics("whisker")


def test_wavelengths_without_tables_are_refused():
    with pytest.raises(ValueError, match="1064 nm is outside the tabulated tissue optics"):
        optics("liver", 1064)


def test_diffusion_fails_where_absorption_is_as_strong_as_scattering():
    assert not optics("liver", 460).diffuse
    assert optics("liver", 780).diffuse
    # the trap of science.md: 117 /cm at 460 nm, 5 /cm at 780 nm
    assert optics("liver", 460).mu_eff * 10 == pytest.approx(117, rel=0.01)
    assert optics("liver", 780).mu_eff * 10 == pytest.approx(5.3, rel=0.05)


@pytest.mark.parametrize("organ", ["brain", "liver", "kidney"])
@pytest.mark.parametrize("thickness", [0.5, 3.0, 8.0])
def test_light_of_a_slab_is_that_of_the_diffusion_equation(organ, thickness):
    """phi'' = mu^2 phi - q/D between two partial-current faces, solved by hand: t / (mu d (1 + 2 A D mu t))."""
    tissue = optics(organ, 780)
    mu, t = tissue.mu_eff, np.tanh(tissue.mu_eff * thickness / 2)
    by_hand = 4 * t / (mu * thickness * (1 + 2 * BOUNDARY * tissue.diffusion_mm * mu * t))
    assert escape_fraction(organ, thickness, 780) == pytest.approx(by_hand, rel=2e-3)


def test_thin_clear_organs_read_double_and_thick_dark_ones_nearly_nothing():
    assert escape_fraction("brain", 0.01, 780) == pytest.approx(CLEAR, rel=0.01)
    assert escape_fraction("liver", 6, 460) < 0.02
    seen = [escape_fraction("liver", d, 780) for d in (1, 2, 4, 8)]
    assert seen == sorted(seen, reverse=True)
    assert escape_fraction("liver", 4, 780, log_mu_a=0.3) < escape_fraction("liver", 4, 780)


def test_excitation_is_absorbed_on_its_way_in():
    # the darker the tissue for the exciting light, the less of the label is lit
    seen = [escape_fraction("liver", 8, 780, nm) for nm in (745, 650, 610, 560)]
    assert seen == sorted(seen, reverse=True)
    assert escape_fraction("liver", 0.01, 780, 745) == pytest.approx(CLEAR, rel=0.03)


@pytest.mark.parametrize("depth", [0.5, 2.0, 5.0])
def test_depth_comes_back_from_two_bands(depth):
    near, far = optics("muscle", 780), optics("muscle", 610)
    seen = [np.exp(-t.mu_eff * depth) / (1 + 2 * BOUNDARY * t.diffusion_mm * t.mu_eff) for t in (near, far)]
    found = depth_from_ratio(seen[0] / seen[1], 0.0, (780, 610))
    assert found.depth_mm == pytest.approx(depth, rel=1e-9)
    assert found.se_mm == pytest.approx(depth * np.hypot(0.25, 0.15) / 2, rel=1e-9)
    noisy = depth_from_ratio(seen[0] / seen[1], 0.1 * seen[0] / seen[1], (780, 610))
    assert noisy.se_mm > found.se_mm


def test_depth_is_missing_with_a_reason():
    assert "both bands need signal" in depth_from_ratio(-1.0, 0.1, (780, 610)).reason
    assert "attenuated alike" in depth_from_ratio(1.0, 0.1, (780, 775)).reason
    assert "no depth gives" in depth_from_ratio(1e-6, 1e-9, (780, 610)).reason
    assert depth_from_ratio(1e3, 1.0, (780, 460), organ="liver").flags == ("beyond_diffusion",)
