"""Footprints against plain scipy on whole arrays; shares of pixels; guard bands; blur in words."""

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.footprints import FOOTPRINTS, guard_band, organ_pixels, psf_footprints, roi_footprints
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import blur_px
from evbiodist.io.scan import Scan
from evbiodist.study.model import ImagingSettings

NAMES = {1: "liver", 2: "kidney", 3: "kidney", 4: "brain"}


def organ_map(shape=(18, 26, 30)):
    labels = np.zeros(shape, np.int32)
    lead = (slice(5, 11),) * (len(shape) - 2)
    labels[(*lead, slice(2, 9), slice(3, 12))] = 1
    labels[(*lead, slice(14, 17), slice(2, 5))] = 2
    labels[(*lead, slice(14, 17), slice(22, 25))] = 3
    labels[(*lead, slice(0, 4), slice(24, 30))] = 4  # at the border
    return OrganMap(labels, NAMES, "label image")


@pytest.mark.parametrize(("shape", "blur"), [((26, 30), 1.7), ((26, 30), (0.8, 2.1)), ((18, 26, 30), (0.6, 1.2, 1.9)),
                                             ((18, 26, 30), 1.1), ((18, 26, 30), (0.0, 1.0, 1.0))])  # fmt: skip
def test_equal_blur_of_the_whole_array(shape, blur):
    organs = organ_map(shape)
    sharp = np.stack([organs.mask(o) / organs.mask(o).sum() for o in organs.organs])
    whole = np.stack([ndimage.gaussian_filter(f, blur, mode="constant", truncate=6.0) for f in sharp])
    np.testing.assert_allclose(psf_footprints(organs, blur), whole, atol=1e-18)
    np.testing.assert_array_equal(roi_footprints(organs), sharp)


@pytest.mark.parametrize("kind", sorted(FOOTPRINTS))
@pytest.mark.parametrize("shape", [(26, 30), (18, 26, 30)])
def test_sparse_ones_are_the_same(kind, shape):
    organs = organ_map(shape)
    dense = FOOTPRINTS[kind].build(organs, 1.3)
    sparse = FOOTPRINTS[kind].sparse(organs, 1.3)
    np.testing.assert_array_equal(sparse.toarray().reshape(dense.shape), dense)


def test_unit_sum_before_the_border_takes_its_part():
    organs = organ_map((26, 30))
    sums = psf_footprints(organs, 1.5).sum(axis=(1, 2))
    assert sums[0] == pytest.approx(1, abs=0.1)
    assert sums[organs.organs.index("brain")] < 0.95


def test_shares_of_pixels():
    labels = np.array([[1, 1, 2, 2]], np.int32)
    shares = np.array([[[1.0, 0.75, 0.25, 0.0]], [[0.0, 0.25, 0.75, 1.0]]])
    organs = OrganMap(labels, {1: "a", 2: "b"}, "soft", fractions=shares)
    np.testing.assert_allclose(roi_footprints(organs)[0], [[0.5, 0.375, 0.125, 0]])
    np.testing.assert_allclose(FOOTPRINTS["roi"].sparse(organs).toarray()[1], [0, 0.125, 0.375, 0.5])
    assert organ_pixels(organs).all()
    nothing = OrganMap(labels, {1: "a", 2: "b"}, "soft", fractions=np.stack([shares[0], np.zeros((1, 4))]))
    with pytest.raises(ValueError, match="b has no share of any pixel of the soft; leave it out or draw it"):
        roi_footprints(nothing)


@pytest.mark.parametrize("shape", [(26, 30), (18, 26, 30)])
def test_guard_band_is_a_ball_around_organs(shape):
    organs = organ_map(shape)
    far = ndimage.distance_transform_edt(organs.labels == 0)
    np.testing.assert_array_equal(guard_band(organs), (far > 0) & (far <= 3.5))


def test_guard_band_counts_shares_as_organs():
    labels = np.zeros((1, 20), np.int32)
    labels[0, 5] = 1
    shares = np.zeros((1, 1, 20))
    shares[0, 0, 4:8] = 0.25
    band = guard_band(OrganMap(labels, {1: "a"}, "soft", fractions=shares))
    assert np.flatnonzero(band).tolist() == [1, 2, 3, 8, 9, 10]


def test_blur_along_every_axis_in_its_own_pixels():
    fwhm = 8 * np.log(2)
    flat = Scan("a", None, np.zeros((4, 4)), "YX", (0.5, 0.25))
    deep = Scan("a", None, np.zeros((4, 4, 4)), "ZYX", (0.5, 0.25), slice_mm=1.0)
    mm = ImagingSettings(footprint="psf", psf_fwhm_mm=2.0)
    assert blur_px(flat, mm) == pytest.approx((4 / fwhm**0.5, 8 / fwhm**0.5))
    assert blur_px(deep, mm) == pytest.approx((2 / fwhm**0.5, 4 / fwhm**0.5, 8 / fwhm**0.5))
    axial = mm.model_copy(update={"psf_fwhm_z_mm": 3.0})
    assert blur_px(deep, axial)[0] == pytest.approx(3 / fwhm**0.5)
    px = ImagingSettings(footprint="psf", psf_fwhm_px=3.0)
    assert blur_px(deep, px) == pytest.approx((3 / fwhm**0.5,) * 3)
    assert blur_px(deep, px.model_copy(update={"psf_fwhm_z_mm": 5.0})) == pytest.approx(
        tuple(w / fwhm**0.5 for w in (5.0, 3.0, 3.0))
    )
    lost = Scan("a", None, np.zeros((4, 4, 4)), "ZYX", (0.5, 0.25))
    with pytest.raises(ValueError, match="does not say the distance of its slices, so the blur between them"):
        blur_px(lost, mm)
