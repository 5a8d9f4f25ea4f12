"""The consensus against the BCG vaccine trials, the standard example of random effects."""

import numpy as np
import pytest

from evbiodist.crossval.consensus import random_effects

# Colditz et al., JAMA 1994;271:698 (13 trials): cases and non-cases, vaccinated and not
BCG = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619),
        (33, 5036, 47, 5761), (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892),
        (29, 7470, 45, 7232), (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ],
    dtype=float,
)  # fmt: skip


def log_risk_ratios():
    ill, well, ill0, well0 = BCG.T
    ratio = np.log(ill / (ill + well)) - np.log(ill0 / (ill0 + well0))
    return ratio, np.sqrt(1 / ill - 1 / (ill + well) + 1 / ill0 - 1 / (ill0 + well0))


def test_restricted_likelihood_as_metafor_prints_it():
    found = random_effects(*log_risk_ratios(), method="REML", hartung_knapp=False)
    assert (found.estimate, found.se, found.tau2) == pytest.approx((-0.7145, 0.1798, 0.3132), abs=5e-5)
    # metafor and we: tau2 over tau2 plus the typical variance; (Q - df) / Q would give 92.12
    assert found.i2 == pytest.approx(92.22, abs=5e-3)
    assert (found.q, found.df) == (pytest.approx(152.2330, abs=5e-5), 12)
    assert found.q_p < 1e-4
    assert found.flags == ("heterogeneous",)


def test_hartung_knapp_as_metafor_prints_it():
    """The example of metafor's README: rma(yi, vi, test="knha") and predict(transf=exp)."""
    found = random_effects(*log_risk_ratios(), method="REML")
    printed = (-0.7145, 0.1808, -1.1084, -0.3206)
    assert (found.estimate, found.se, found.ci_low, found.ci_high) == pytest.approx(printed, abs=5e-5)
    # the prediction interval has t with k - 1 = 12 degrees of freedom there too
    risk = np.exp([found.estimate, found.ci_low, found.ci_high, found.prediction_low, found.prediction_high])
    assert risk == pytest.approx([0.49, 0.33, 0.73, 0.14, 1.76], abs=5e-3)


def test_dersimonian_laird():
    found = random_effects(*log_risk_ratios(), method="DL")
    assert (found.tau2, found.estimate) == pytest.approx((0.3088, -0.7141), abs=5e-5)
    # for this estimator alone the two definitions of I2 are one
    assert found.i2 == pytest.approx(100 * (found.q - found.df) / found.q, rel=1e-12)


def test_paule_mandel_solves_its_equation():
    """Independent of the solver: at tau2 the generalised Q equals k - 1."""
    y, se = log_risk_ratios()
    found = random_effects(y, se, method="PM")
    assert np.sum((y - found.estimate) ** 2 / (se**2 + found.tau2)) == pytest.approx(12, rel=1e-10)


@pytest.mark.parametrize("method", ["PM", "DL", "REML"])
def test_equal_errors_give_the_analysis_of_variance(method):
    """With equal errors every estimator is the sample variance less the error variance."""
    y = np.array([1.0, 2.0, 4.0, 7.0])
    found = random_effects(y, np.full(4, 0.5), method=method)
    assert found.tau2 == pytest.approx(np.var(y, ddof=1) - 0.25, rel=1e-9)
    assert found.estimate == pytest.approx(np.mean(y))
    assert found.se == pytest.approx(np.std(y, ddof=1) / 2, rel=1e-9)
