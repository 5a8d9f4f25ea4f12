"""Bleaching rates are found with covering intervals, and nothing is corrected that does not fade."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from evbiodist.imaging.bleaching import correct_bleaching, cumulative_exposure, fit_bleaching
from evbiodist.io.scan import Scan
from evbiodist.io.timing import FrameTiming

X = np.linspace(0, 100, 12)


def covers(hits):
    """Whether a share of hits is 95 % within three binomial standard errors."""
    return abs(np.mean(hits) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / np.size(hits))


def test_agrees_with_curve_fit():
    """An independent optimiser with numerical derivatives gives the same values and covariance."""
    rng = np.random.default_rng(1)
    for plateau, model in ((False, lambda x, a, k: a * np.exp(-k * x)),
                           (True, lambda x, a, k, p: a * (p + (1 - p) * np.exp(-k * x)))):  # fmt: skip
        y = 900 * (0.3 + 0.7 * np.exp(-0.03 * X)) + rng.normal(0, 9, X.size)
        for se in (None, np.full(X.size, 9.0)):
            expected, covariance = curve_fit(
                model, X, y, [900, 0.02, 0.2][: 2 + plateau], se, absolute_sigma=se is not None
            )
            found = fit_bleaching(X, y, se, plateau=plateau)
            widened = found.chi2_red if "misfit" in found.flags else 1.0
            assert found.rate_per_s == pytest.approx(expected[1], rel=1e-5)
            assert found.initial == pytest.approx(expected[0], rel=1e-5)
            assert found.se == pytest.approx(np.sqrt(covariance[1, 1] * widened), rel=1e-3)
            if plateau:
                assert found.plateau == pytest.approx(expected[2], rel=1e-4)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("plateau", [True, False])
def test_bias_and_coverage_over_random_truths(stated, plateau):
    rng = np.random.default_rng(2)
    z, hits, misfits, trials = [], [], 0, 300
    for _ in range(trials):
        a, k, p = 10 ** rng.uniform(1, 6), rng.uniform(0.015, 0.06), rng.uniform(0.1, 0.5) if plateau else 0.0
        sd = a * rng.uniform(0.002, 0.02)
        y = a * (p + (1 - p) * np.exp(-k * X)) + rng.normal(0, sd, X.size)
        found = fit_bleaching(X, y, np.full(X.size, sd) if stated else None, plateau=plateau)
        hits.append(found.ci_low < k < found.ci_high)
        z.append((found.rate_per_s - k) / found.se)
        misfits += "misfit" in found.flags
    assert covers(hits)
    assert abs(np.median(z)) < 4 / np.sqrt(trials)
    assert misfits <= 3


def test_a_signal_that_does_not_fade_is_not_corrected():
    """The error of the first kind is that of the interval: 2.5 % of steady signals seem to fade."""
    rng = np.random.default_rng(3)
    found = [fit_bleaching(X, rng.normal(500, 10, X.size), np.full(X.size, 10.0)) for _ in range(400)]
    assert np.mean([f.decays for f in found]) == pytest.approx(0.025, abs=3 * np.sqrt(0.025 / 400))
    steady = next(f for f in found if not f.decays and f.ci_high > 0)
    assert steady.reason.startswith("the data show no decay: the 95 % interval of the rate")
    result = correct_bleaching([100.0], [3.0], [50.0], steady)
    assert (result.value, result.se, result.se_systematic) == ([100.0], [3.0], [0.0])
    assert result.notes == (f"not corrected for bleaching: {steady.reason}",)


def test_a_growing_signal_is_no_bleaching():
    found = fit_bleaching(X, 500 * np.exp(0.01 * X), np.full(X.size, 5.0))
    assert found.rate_per_s == pytest.approx(-0.01, rel=1e-6)
    assert "the signal grows with exposure" in found.reason


def test_correction_covers_over_random_truths():
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(350):
        k, p = rng.uniform(0.01, 0.03), rng.uniform(0.1, 0.4)
        left = lambda x, k=k, p=p: p + (1 - p) * np.exp(-k * x)  # noqa: E731
        rate = fit_bleaching(X, left(X) + rng.normal(0, 0.01, X.size), np.full(X.size, 0.01), plateau=True)
        if not rate.decays:
            continue
        truth, at, se = 100.0, rng.uniform(20, 100), 1.0
        found = correct_bleaching(truth * left(at) + rng.normal(0, se), se, at, rate)
        hits.append(abs(found.value[0] - truth) < 1.96 * np.hypot(found.se[0], found.se_systematic[0]))
    assert len(hits) > 300
    assert covers(hits)


def test_the_systematic_error_is_the_derivative_by_the_rate():
    rate = fit_bleaching(X, 500 * np.exp(-0.02 * X), np.full(X.size, 5.0))
    found = correct_bleaching([7.0, 7.0], [0.2, 0.2], [0.0, 30.0], rate)
    np.testing.assert_allclose(found.value, [7, 7 * math.exp(0.6)], rtol=1e-6)
    np.testing.assert_allclose(found.se, [0.2, 0.2 * math.exp(0.6)], rtol=1e-6)
    np.testing.assert_allclose(found.se_systematic, [0, found.value[1] * 30 * rate.se], rtol=1e-6)
    assert found.flags == ("systematic",)


def test_exposures_beyond_the_data_are_said():
    rate = fit_bleaching(X, 500 * np.exp(-0.02 * X), np.full(X.size, 5.0))
    assert any("beyond the 100 s" in note for note in correct_bleaching(1.0, 0.1, 150.0, rate).notes)
    assert len(correct_bleaching(1.0, 0.1, 100.0, rate).notes) == 1


def test_a_second_process_is_a_misfit():
    y = 500 * (0.5 * np.exp(-0.2 * X) + 0.5 * np.exp(-0.005 * X))
    found = fit_bleaching(X, y, np.full(X.size, 1.0))
    assert "misfit" in found.flags
    assert math.isfinite(found.df)
    assert "misfit" in correct_bleaching(1.0, 0.1, 50.0, found).flags


def test_an_impossible_plateau_is_left_out_and_said():
    rng = np.random.default_rng(5)
    y = 500 * np.exp(-0.02 * X) - 30 + rng.normal(0, 0.5, X.size)  # too much background subtracted
    found = fit_bleaching(X, y, np.full(X.size, 0.5), plateau=True)
    assert found.plateau == 0
    assert any("which cannot be; it was left out" in note for note in found.notes)


def test_a_plateau_that_is_hardly_seen_is_flagged():
    x = np.linspace(0, 20, 8)
    y = 500 * (0.3 + 0.7 * np.exp(-0.02 * x))
    assert "correlated" in fit_bleaching(x, y, np.full(8, 2.0), plateau=True).flags


def test_scales_cancel():
    y = 500 * np.exp(-0.02 * X) + 10 * np.sin(X)
    one = fit_bleaching(X, y)
    other = fit_bleaching(X / 60, 1e9 * y)
    assert other.rate_per_s == pytest.approx(60 * one.rate_per_s, rel=1e-6)
    assert other.se == pytest.approx(60 * one.se, rel=1e-6)


@pytest.mark.parametrize(("arguments", "words"), [
    (([0, 1], [1, 2, 3]), r"exposures have shape \(2,\), signals \(3,\)"),
    (([0, 1, np.nan], [3, 2, 1]), "not a finite number"),
    (([0, 1, -2], [3, 2, 1]), "an exposure is below zero"),
    (([0, 1, 2], [3, 2, 1], [1, 0, 1]), "a standard error not above it"),
    (([0, 1, 1], [3, 2, 1]), "2 different exposures cannot show 2 parameters and their error; give at least 3"),
    (([0, 1, 2], [-3, 2, 1]), "which is no light"),
])  # fmt: skip
def test_data_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        fit_bleaching(*arguments)


def test_levels_and_exposures_are_checked():
    with pytest.raises(ValueError, match=r"write 0\.95 for 95 %"):
        fit_bleaching(X, np.exp(-0.1 * X), level=95)
    with pytest.raises(ValueError, match="an exposure is below zero or not a number"):
        correct_bleaching(1.0, 0.1, -1.0, fit_bleaching(X, np.exp(-0.1 * X), np.full(X.size, 0.01)))


def test_exposure_adds_up_over_frames_and_bands():
    scan = Scan("s", None, np.ones((2, 3, 4, 4)), "TCYX", exposure_s=2.0)
    exposure, basis = cumulative_exposure(scan, 5.0)
    assert exposure.tolist() == [[6, 8, 10], [12, 14, 16]]
    assert basis == "every image was lit for its exposure of 2 s"
    assert cumulative_exposure(Scan("s", None, np.ones((4, 4)), "YX", exposure_s=2.0))[0].tolist() == [1]


def test_without_an_exposure_the_durations_serve_and_it_is_said():
    timing = FrameTiming((0, 100), (10, 30))
    exposure, basis = cumulative_exposure(Scan("s", None, np.ones((2, 4, 4)), "TYX", timing=timing))
    assert exposure.tolist() == [5, 25]
    assert "the exposure is not known" in basis
    bands = Scan("s", None, np.ones((2, 2, 4, 4)), "CTYX", timing=timing)
    assert cumulative_exposure(bands)[0].shape == (2, 2)


@pytest.mark.parametrize(("scan", "before", "words"), [
    (Scan("s", None, np.ones((4, 4)), "YX"), 0.0, "s says neither its exposure nor the durations"),
    (Scan("s", None, np.ones((2, 4, 4)), "ZYX", exposure_s=1.0), 0.0, "which planes were lit together is not known"),
    (Scan("s", None, np.ones((4, 4)), "YX", exposure_s=1.0), -1.0, "before_s has -1.0"),
])  # fmt: skip
def test_an_exposure_that_is_not_known_is_refused(scan, before, words):
    with pytest.raises(ValueError, match=words):
        cumulative_exposure(scan, before)
