"""Promises of the estimator and of footprints: every number of the answer, written out on a frame one can follow."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from evbiodist.imaging.estimator import check_usable, estimate, gram, inverted, nonnegative_solution
from evbiodist.imaging.footprints import (
    FOOTPRINTS,
    GUARD_REACH,
    blurred,
    guard_band,
    near,
    organ_pixels,
    psf_footprints,
    reach_of,
    roi_footprints,
)
from evbiodist.imaging.organs import OrganMap


@pytest.fixture
def frame():
    chance = np.random.default_rng(4)
    F = np.zeros((2, 4, 5))
    F[0, :2, :2], F[1, 1:3, 1:4] = 0.25, 1 / 6
    variance = chance.uniform(0.5, 4.0, (4, 5))
    return 30 * F[0] + 12 * F[1] + 2 + chance.normal(size=(4, 5)), F, variance


@pytest.mark.parametrize("weighting", ["noise", "uniform"])
def test_every_number_is_that_of_the_equations(frame, weighting):
    y, F, variance = frame
    valid = np.ones(y.shape, bool)
    valid[0, 4] = False
    fit = estimate(y, F, variance, valid=valid, weighting=weighting)
    keep = valid.ravel()
    A = np.column_stack([F[0].ravel(), F[1].ravel(), np.ones(20)])[keep]
    v = variance.ravel()[keep]
    w = 1 / v if weighting == "noise" else np.ones(v.size)
    N = np.linalg.inv(A.T @ (w[:, None] * A))
    a = N @ A.T @ (w * y.ravel()[keep])
    cov = N @ A.T @ ((w * v * w)[:, None] * A) @ N
    np.testing.assert_allclose(np.append(fit.signal, fit.background), a, rtol=1e-11)
    np.testing.assert_allclose(fit.covariance, cov[:2, :2], rtol=1e-10)
    np.testing.assert_allclose(fit.se, np.sqrt(np.diag(cov))[:2], rtol=1e-10)
    assert fit.background_se == pytest.approx(np.sqrt(cov[2, 2]))
    np.testing.assert_allclose(np.diag(fit.correlation), 1.0)
    assert fit.correlation[0, 1] == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]))
    left = y.ravel()[keep] - A @ a
    assert fit.chi2_red == pytest.approx((left**2 / v).sum() / (19 - 3))
    whole = 30 * 0 + fit.signal[0] * F[0] + fit.signal[1] * F[1] + fit.background
    np.testing.assert_allclose(fit.residual, y - whole, atol=1e-12)
    assert (fit.used == valid).all()


def test_pixels_that_are_no_numbers_or_without_variance_carry_no_weight(frame):
    y, F, variance = frame
    y, variance = y.copy(), variance.copy()
    y[3, 0], variance[3, 4] = np.nan, 0.0
    valid = np.ones(y.shape, bool)
    fit = estimate(y, F, variance, valid=valid)
    valid[3, 0] = valid[3, 4] = False
    assert (fit.used == valid).all()
    other = estimate(np.nan_to_num(y, nan=1e6), F, np.where(variance > 0, variance, 1.0), valid=valid)
    np.testing.assert_allclose(fit.signal, other.signal, rtol=1e-12)
    assert fit.chi2_red == pytest.approx(other.chi2_red, rel=1e-12)


def test_as_many_pixels_as_unknowns_leave_no_misfit_and_no_division_by_zero():
    fit = estimate(np.array([[3.0, 5.0]]), np.array([[[1.0, 0.0]]]), np.ones((1, 2)))
    assert fit.signal[0] == pytest.approx(-2.0)
    assert fit.chi2_red == pytest.approx(0.0, abs=1e-20)


def test_sparse_footprints_give_what_dense_ones_do(frame):
    y, F, variance = frame
    dense, sparse = estimate(y, F, variance), estimate(y, csr_array(F.reshape(2, -1)), variance)
    assert (dense.signal == sparse.signal).all()


@pytest.mark.parametrize("wrong", ["dense", "sparse", "variance"])
def test_shapes_that_do_not_match_are_refused(frame, wrong):
    y, F, variance = frame
    given = {"dense": F[:, :3], "sparse": csr_array(F[:, :3].reshape(2, -1)), "variance": F}[wrong]
    with pytest.raises(ValueError, match="must have one shape"):
        estimate(y, given, variance[:3] if wrong == "variance" else variance)


def test_the_gram_matrix_is_that_of_dense_algebra(frame):
    _, F, variance = frame
    A = np.column_stack([*F.reshape(2, -1), np.ones(20)])
    w = variance.ravel()
    np.testing.assert_allclose(gram(csr_array(F.reshape(2, -1)), w), A.T @ (w[:, None] * A), rtol=1e-13)


def test_inverse_and_condition_are_those_of_the_normalised_matrix():
    N = np.array([[4.0, 1.8], [1.8, 1.0]])
    inverse, condition = inverted(N)
    np.testing.assert_allclose(inverse @ N, np.eye(2), atol=1e-12)
    assert condition == pytest.approx(1.9 / 0.1)
    assert (inverse == inverse.T).all()


@pytest.mark.parametrize(("apart", "refused"), [(1e-11, False), (1e-12, True)])
def test_footprints_are_the_same_from_a_condition_of_1e12(apart, refused):
    N = np.array([[1.0, 1 - apart], [1 - apart, 1.0]])  # its condition is 2 / apart
    if not refused:
        assert inverted(N)[1] == pytest.approx(2 / apart, rel=1e-3)
        return
    with pytest.raises(ValueError, match="two organs have the same footprint"):
        inverted(N)


def test_footprints_without_a_pixel_are_named_by_their_number():
    check_usable(np.diag([1e-30, 2.0]))
    for nothing in (0.0, np.nan):
        with pytest.raises(ValueError, match="footprint 1 has no usable pixel"):
            check_usable(np.diag([1.0, nothing, 0.0]))


def test_clipped_signals_are_the_best_that_are_not_negative():
    """Against bounded least squares on the frame itself, for many frames."""
    from scipy.optimize import lsq_linear

    chance = np.random.default_rng(11)
    for _ in range(20):
        A = np.column_stack([chance.uniform(0, 1, (12, 3)), np.ones(12)])
        y = A @ np.array([2.0, 0.3, -0.5, -1.0]) * 10 + chance.normal(size=12)
        best = lsq_linear(A, y, ([0, 0, 0, -np.inf], np.inf), tol=1e-14).x
        np.testing.assert_allclose(nonnegative_solution(A.T @ A, A.T @ y), best, atol=1e-4)
    assert (nonnegative_solution(np.diag([1.0, 2.0, 4.0]), np.array([0.0, 0.0, 8.0])) == [0, 0, 2]).all()


def test_the_guard_band_reaches_three_and_a_half_pixels_round():
    labels = np.zeros((11, 13), int)
    labels[5, 6] = 1
    band = guard_band(OrganMap(labels, {1: "a"}, "label image"))
    y, x = np.mgrid[:11, :13]
    away = np.hypot(y - 5, x - 6)
    assert (band == ((away <= 3.5) & (away > 0))).all()
    assert (near(labels > 0) == (away <= 3.5)).all()
    assert GUARD_REACH == 4


def test_the_guard_band_of_shares_lies_outside_every_share():
    shares = np.zeros((2, 1, 16))
    shares[0, 0, :2], shares[1, 0, 8] = 0.5, 0.01
    labels = np.zeros((1, 16), int)
    labels[0, 0], labels[0, 8] = 1, 2
    organs = OrganMap(labels, {1: "a", 2: "b"}, "label image", fractions=shares)
    assert np.flatnonzero(organ_pixels(organs)[0]).tolist() == [0, 1, 8]
    assert np.flatnonzero(guard_band(organs)[0]).tolist() == [2, 3, 4, 5, 6, 7, 9, 10, 11]


@pytest.mark.parametrize(("sigma", "reach"), [(0.0, 0), (0.08, 0), (0.09, 1), (1.0, 6), (1.1, 7), (2.0, 12)])
def test_blur_is_followed_six_standard_deviations(sigma, reach):
    assert reach_of(sigma, 2) == (reach, reach)
    spot = np.zeros(41)
    spot[20] = 1.0
    assert np.flatnonzero(blurred(spot, sigma)).tolist() == list(range(20 - reach, 20 + reach + 1))


def test_a_patch_holds_all_of_the_blur_it_follows():
    labels = np.zeros((40, 40), int)
    labels[20, 18:21] = 1
    whole = blurred((labels > 0) / 3, (1.5, 0.7))
    organs = OrganMap(labels, {1: "a"}, "label image")
    np.testing.assert_allclose(psf_footprints(organs, (1.5, 0.7))[0], whole, rtol=1e-13)
    for kind, blur in (("psf", (1.5, 0.7)), ("roi", 0.0)):
        sparse = FOOTPRINTS[kind].sparse(organs, (1.5, 0.7)).toarray().reshape(40, 40)
        dense = FOOTPRINTS[kind].build(organs, blur)[0]
        np.testing.assert_allclose(sparse, dense, rtol=1e-13)
    assert FOOTPRINTS["psf"].sparse(organs).sum() == pytest.approx(1.0)
    assert FOOTPRINTS["psf"].sparse(organs).nnz == 3


def test_an_organ_of_two_labels_is_one_footprint():
    organs = OrganMap(np.array([[1, 0, 2, 3]]), {1: "kidney", 2: "liver", 3: "kidney"}, "label image")
    found = dict(zip(organs.organs, roi_footprints(organs), strict=True))
    assert found["kidney"].tolist() == [[0.5, 0.0, 0.0, 0.5]]
    assert found["liver"].tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_an_organ_whose_shares_are_zero_is_named():
    shares = np.array([[[1.0, 0.5]], [[0.0, 0.0]]])
    with pytest.raises(ValueError, match="b has no share of any pixel of the label image; leave it out or draw it"):
        roi_footprints(OrganMap(np.array([[1, 2]]), {1: "a", 2: "b"}, "label image", fractions=shares))
