"""Agreement against published numbers, and the Deming line against other derivations of it."""

import numpy as np
import pytest

from evbiodist.crossval.agreement import agreement

# Bland & Altman, Lancet 1986;1:307, table: peak expiratory flow (L/min), first readings
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# NCSS Statistical Software, chapter 303 (Deming regression), dataset DemingReg1, error ratio 4
NCSS_X = [7, 8.3, 10.5, 9, 5.1, 8.2, 10.2, 10.3, 7.1, 5.9]
NCSS_Y = [7.9, 8.2, 9.6, 9, 6.5, 7.3, 10.2, 10.6, 6.3, 5.2]


def test_peak_flow_bias_and_limits():
    found = agreement(LARGE, MINI)
    assert found.n == 17
    assert found.bias == pytest.approx(-2.1176, abs=5e-5)
    assert found.sd == pytest.approx(38.7651, abs=5e-5)
    # printed: bias -22.0 to 17.8, standard error of a limit 16.3 with t = 2.12
    assert (found.bias_low, found.bias_high) == pytest.approx((-22.0, 17.8), abs=0.06)
    assert found.loa_margin == pytest.approx(2.12 * 16.3, abs=0.1)
    # the paper prints -79.7 and 75.5 because it takes 2 SD for 1.96 SD
    assert found.bias - 2 * found.sd == pytest.approx(-79.7, abs=0.1)
    assert found.loa_high - found.loa_low == pytest.approx(2 * 1.96 * 38.7651, abs=1e-3)


def test_peak_flow_concordance():
    """Printed by R's epiR (epi.ccc) and others for the same readings."""
    found = agreement(LARGE, MINI)
    printed = (0.942742, 0.850492, 0.978726)
    assert (found.ccc, found.ccc_low, found.ccc_high) == pytest.approx(printed, abs=5e-7)


def test_deming_of_ncss_chapter_303():
    found = agreement(NCSS_X, NCSS_Y, error_ratio=4)
    slope = (found.deming_slope, found.deming_slope_low, found.deming_slope_high)
    assert slope == pytest.approx((1.0011942, 0.5695632, 1.4328253), abs=5e-8)
    intercept = (found.deming_intercept, found.deming_intercept_low, found.deming_intercept_high)
    assert intercept == pytest.approx((-0.0897449, -4.06065, 3.88117), abs=6e-6)


def test_deming_is_orthogonal_regression_at_equal_errors():
    """Independent derivation: the first singular vector of the centred pairs."""
    xy = np.column_stack([LARGE, MINI]).astype(float)
    direction = np.linalg.svd(xy - xy.mean(axis=0))[2][0]
    found = agreement(LARGE, MINI)
    assert found.deming_slope == pytest.approx(direction[1] / direction[0], rel=1e-12)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 4.0])
def test_deming_minimises_its_own_sum_of_squares(ratio):
    """Independent derivation: the sum of squares weighted by both errors, minimised by search."""
    from scipy.optimize import minimize_scalar

    x, y = np.array(NCSS_X) - np.mean(NCSS_X), np.array(NCSS_Y) - np.mean(NCSS_Y)
    best = minimize_scalar(lambda slope: np.sum((y - slope * x) ** 2) / (1 + ratio * slope**2), (0.5, 1.5))
    assert agreement(NCSS_X, NCSS_Y, error_ratio=ratio).deming_slope == pytest.approx(best.x, rel=1e-6)
