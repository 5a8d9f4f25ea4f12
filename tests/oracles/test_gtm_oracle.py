"""The geometric transfer matrix of Rousset 1998 (J Nucl Med 39:904) written out in loops, against PSF footprints.

    measured mean of region i = sum_j GTM_ij x true value of region j,    GTM_ij = mean over region i of blurred mask j

with the background as a region of its own. An organ's signal in evbiodist stands above the background:
(true value - background) x number of pixels.
"""

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.estimator import estimate
from evbiodist.imaging.footprints import psf_footprints
from evbiodist.imaging.organs import OrganMap

SHAPES = {
    "2-D": ((48, 56), 1.8),
    "2-D, unequal blur": ((48, 56), (1.2, 2.4)),
    "3-D": ((22, 32, 30), 1.3),
    "3-D, unequal blur": ((22, 32, 30), (0.8, 1.5, 1.9)),
}


def phantom(shape):
    """Three organs, two of them touching, far enough from the border that no light is lost there."""
    labels = np.zeros(shape, np.int32)
    z = (slice(8, 14),) * (len(shape) - 2)
    labels[(*z, slice(12, 18), slice(12, 19))] = 1
    labels[(*z, slice(18, 21), slice(12, 18))] = 2
    at = np.indices(shape)[-2:]
    inside = np.hypot(at[0] - 17, at[1] - (shape[-1] - 11.5)) < 2.7
    if z:
        inside &= np.abs(np.indices(shape)[0] - 10.5) < 3
    labels[inside] = 3
    return OrganMap(labels, {1: "liver", 2: "kidney", 3: "spleen"}, "label image")


def gtm(labels, regions, blur):
    """Rousset's matrix, one element after the other."""
    matrix = np.zeros((len(regions), len(regions)))
    for j, source in enumerate(regions):
        spread = ndimage.gaussian_filter((labels == source).astype(float), blur, mode="nearest", truncate=6.0)
        for i, target in enumerate(regions):
            total, count = 0.0, 0
            for value, label in zip(spread.ravel(), labels.ravel(), strict=True):
                if label == target:
                    total += value
                    count += 1
            matrix[i, j] = total / count
    return matrix


def region_means(image, labels, regions):
    return np.array([image[labels == region].mean() for region in regions])


def blurred(labels, truth, blur):
    """The image a scanner makes of regions with these values."""
    sharp = np.zeros(labels.shape)
    for region, value in enumerate(truth):
        sharp[labels == region] = value
    return ndimage.gaussian_filter(sharp, blur, mode="nearest", truncate=6.0)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def case(request):
    shape, blur = request.param
    organs = phantom(shape)
    return organs, blur, gtm(organs.labels, (0, 1, 2, 3), blur)


def test_the_matrix_of_the_footprints_is_roussets(case):
    """Spill-over of organ j into organ i, from the footprints (unit sum) times the organ's size."""
    organs, blur, matrix = case
    sizes = np.array(list(organs.areas().values()))
    footprints = psf_footprints(organs, blur) * sizes.reshape(-1, *(1,) * organs.labels.ndim)
    found = np.array([[f[organs.mask(name)].mean() for f in footprints] for name in organs.organs])
    np.testing.assert_allclose(found, matrix[1:, 1:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-9)  # nothing was lost at the border


def test_noise_free_both_give_the_truth(case):
    organs, blur, matrix = case
    truth = np.array([2.0, 50.0, 120.0, 20.0])
    image = blurred(organs.labels, truth, blur)
    corrected = np.linalg.inv(matrix) @ region_means(image, organs.labels, (0, 1, 2, 3))
    fit = estimate(image, psf_footprints(organs, blur), np.ones(image.shape))
    signal = (corrected[1:] - corrected[0]) * list(organs.areas().values())
    np.testing.assert_allclose(corrected, truth, rtol=1e-9)
    np.testing.assert_allclose(np.append(fit.background, fit.signal), np.append(corrected[0], signal), rtol=1e-6)


def test_partial_volume_is_what_is_being_corrected(case):
    """Without the correction every organ is off by more than a fifth, or the test above would prove little."""
    organs, blur, _ = case
    truth = np.array([2.0, 50.0, 120.0, 20.0])
    means = region_means(blurred(organs.labels, truth, blur), organs.labels, (0, 1, 2, 3))
    assert (np.abs(means[1:] / truth[1:] - 1) > 0.2).sum() >= 2


def test_under_noise_both_centre_on_the_truth_and_the_estimator_spreads_less(case):
    """GTM is linear and unbiased in the image; weighted least squares is the best of that kind (Gauss, Markov, Aitken)."""
    organs, blur, matrix = case
    truth = np.array([2.0, 50.0, 120.0, 20.0])
    clean = blurred(organs.labels, truth, blur)
    variance = clean + 1.0
    footprints = psf_footprints(organs, blur)
    sizes = np.array(list(organs.areas().values()))
    rng = np.random.default_rng(1)
    by_gtm, by_fit, claimed = [], [], []
    for _ in range(60):
        image = clean + rng.normal(0, np.sqrt(variance))
        corrected = np.linalg.solve(matrix, region_means(image, organs.labels, (0, 1, 2, 3)))
        fit = estimate(image, footprints, variance)
        by_gtm.append((corrected[1:] - corrected[0]) * sizes)
        by_fit.append(fit.signal)
        claimed.append(fit.se)
    expected = (truth[1:] - truth[0]) * sizes
    for found in (np.array(by_gtm), np.array(by_fit)):
        assert (np.abs(found.mean(axis=0) - expected) < 4 * found.std(axis=0, ddof=1) / np.sqrt(60)).all()
    spread = np.array(by_fit).std(axis=0, ddof=1)
    assert (spread < np.array(by_gtm).std(axis=0, ddof=1) * 1.1).all()
    np.testing.assert_allclose(spread, np.mean(claimed, axis=0), rtol=4 / np.sqrt(2 * 60))
