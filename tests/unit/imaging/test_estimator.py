"""The estimator against independent arithmetic, and what it says when it cannot."""

import numpy as np
import pytest

from evbiodist.imaging.estimator import estimate
from evbiodist.imaging.footprints import psf_footprints, roi_footprints
from evbiodist.imaging.organs import OrganMap


@pytest.fixture
def organs():
    labels = np.zeros((30, 40), np.int32)
    labels[5:15, 5:15], labels[5:15, 18:30], labels[20:26, 10:25] = 1, 2, 3
    return OrganMap(labels, {1: "liver", 2: "lung", 3: "brain"}, "label image")


def test_roi_footprints_give_the_sum_above_background(organs):
    rng = np.random.default_rng(0)
    frame = rng.uniform(5, 9, (30, 40))
    frame[organs.labels == 0] = 2.0
    fit = estimate(frame, roi_footprints(organs), np.ones_like(frame), weighting="uniform")
    for value, organ in zip(fit.signal, organs.organs, strict=True):
        assert value == pytest.approx((frame[organs.mask(organ)] - 2.0).sum())
    assert fit.background == pytest.approx(2.0)


def test_matches_generalised_least_squares_written_out(organs):
    """Independent: scipy's lstsq on the whitened design, and the textbook covariance (X' V^-1 X)^-1."""
    from scipy.linalg import inv, lstsq

    rng = np.random.default_rng(1)
    F = psf_footprints(organs, 1.5)
    variance = rng.uniform(1, 4, (30, 40))
    frame = 300 * F[0] + 50 * F[1] + 120 * F[2] + 3 + rng.normal(0, np.sqrt(variance))
    X = np.column_stack([*(f.ravel() for f in F), np.ones(frame.size)]) / np.sqrt(variance.ravel())[:, None]
    expected, *_ = lstsq(X, frame.ravel() / np.sqrt(variance.ravel()))
    fit = estimate(frame, F, variance)
    np.testing.assert_allclose(np.append(fit.signal, fit.background), expected, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, inv(X.T @ X)[:3, :3], rtol=1e-8)


def test_errors_cover(organs):
    """500 noisy frames: z scores have mean 0 and spread 1 for both weightings."""
    rng = np.random.default_rng(2)
    truth = np.array([400.0, 150.0, 5.0])
    for footprints, weighting in ((psf_footprints(organs, 1.2), "noise"), (roi_footprints(organs), "uniform")):
        clean = np.tensordot(truth, footprints, 1) + 2.0
        z = []
        for _ in range(500):
            variance = clean / 1.5 + 4.0
            fit = estimate(clean + rng.normal(0, np.sqrt(variance)), footprints, variance, weighting=weighting)
            z.append((fit.signal - truth) / fit.se)
        z = np.array(z)
        assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(500)
        assert np.abs(z.std(axis=0) - 1).max() < 4 / np.sqrt(2 * 500)


def test_invalid_pixels_carry_no_weight(organs):
    F = roi_footprints(organs)
    frame = 100 * F[0] + 1.0
    valid = np.ones(frame.shape, bool)
    frame[7, 7], valid[7, 7] = 1e9, False
    fit = estimate(frame, F, np.ones_like(frame), valid=valid)
    assert fit.signal[0] == pytest.approx(100)


def test_nonnegative_clips_only_what_is_below_zero(organs):
    F = psf_footprints(organs, 1.0)
    frame = 100 * F[0] - 5 * F[2] + 1.0
    free = estimate(frame, F, np.ones_like(frame))
    clipped = estimate(frame, F, np.ones_like(frame), nonnegative=True)
    assert free.signal[2] == pytest.approx(-5)
    assert clipped.signal[2] == 0
    assert clipped.signal[0] == pytest.approx(100, rel=0.02)


def test_what_cannot_be_told_apart_is_said(organs):
    F = roi_footprints(organs)
    with pytest.raises(ValueError, match="same footprint; merge them"):
        estimate(F[0], np.stack([F[0], F[0]]), np.ones(F[0].shape))
    with pytest.raises(ValueError, match="no usable pixel"):
        estimate(F[0], F, np.ones(F[0].shape), valid=organs.labels != 3)
    with pytest.raises(ValueError, match="must have one shape"):
        estimate(F[0][:5], F, np.ones(F[0].shape))
