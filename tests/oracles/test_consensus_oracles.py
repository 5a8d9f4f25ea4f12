"""The consensus against the BCG vaccine trials and the school calendars, standard examples of random effects."""

import numpy as np
import pytest

from evbiodist.crossval.consensus import random_effects
from evbiodist.crossval.influence import influence
from evbiodist.crossval.studies import over_studies
from evbiodist.study.estimate import Estimate

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


def test_normal_intervals_as_metafor_prints_them():
    """rma(yi, vi) and rma(yi, vi, method="DL")."""
    reml, dl = (random_effects(*log_risk_ratios(), method=name, hartung_knapp=False) for name in ("REML", "DL"))
    assert (reml.ci_low, reml.ci_high) == pytest.approx((-1.0669, -0.3622), abs=5e-5)
    assert (dl.ci_low, dl.ci_high) == pytest.approx((-1.0644, -0.3638), abs=5e-5)
    assert dl.estimate / dl.se == pytest.approx(-3.9952, abs=5e-5)
    assert dl.i2 == pytest.approx(92.1173, abs=5e-5)


def test_interval_of_the_spread_as_metafor_prints_it():
    """confint(rma(yi, vi)): tau2 0.1197 to 1.1115, I2 81.9177 to 97.6781."""
    found = random_effects(*log_risk_ratios(), method="REML")
    assert (found.tau2_low, found.tau2_high) == pytest.approx((0.1197, 1.1115), abs=5e-5)
    assert found.i2_high == pytest.approx(97.6781, abs=5e-5)
    # metafor's search stops at 0.11970 where the root is 0.119718, which moves the third decimal of this one
    assert found.i2_low == pytest.approx(81.9177, abs=5e-3)


def test_influence_as_metafor_computes_it():
    """influence() and leave1out() of the first trial, digits of metafor's own tests; its search stops at 1e-5."""
    first = influence(*log_risk_ratios(), method="REML", hartung_knapp=False)[0]
    told = (first.rstudent, first.dffits, first.cooks_distance, first.hat)
    assert told == pytest.approx((-0.218142474, -0.0407075605, 0.00171654237, 0.0505948308), rel=1e-5)
    without = first.without
    assert (without.tau2, without.q, without.i2) == pytest.approx((0.336156745, 151.582572747, 93.2259349), rel=1e-5)
    assert (without.estimate, without.ci_low, without.ci_high) == pytest.approx(
        (-0.707083788, -1.079400555, -0.334767021), rel=1e-6
    )


def test_studentised_residuals_as_metafor_computes_them():
    """rstudent() of the first six trials."""
    y, se = log_risk_ratios()
    found = [one.rstudent for one in influence(y[:6], se[:6], method="REML")]
    assert found == pytest.approx([0.1426, -0.9957, -0.4591, -1.1949, 2.0949, 0.4330], abs=5e-5)


# Konstantopoulos, Res Synth Methods 2011;2:61: district, standardised mean difference, sampling variance (56 schools)
SCHOOLS = """
    11 -.18 .118, 11 -.22 .118, 11 .23 .144, 11 -.30 .144, 12 .13 .014, 12 -.26 .014, 12 .19 .015, 12 .32 .024,
    18 .45 .023, 18 .38 .043, 18 .29 .012, 27 .16 .020, 27 .65 .004, 27 .36 .004, 27 .60 .007, 56 .08 .019, 56 .04 .007,
    56 .19 .005, 56 -.06 .004, 58 -.18 .020, 58 .00 .018, 58 .00 .019, 58 -.28 .022, 58 -.04 .020, 58 -.30 .021,
    58 .07 .006, 58 .00 .007, 58 .05 .007, 58 -.08 .007, 58 -.09 .007, 71 .30 .015, 71 .98 .011, 71 1.19 .010,
    86 -.07 .001, 86 -.05 .001, 86 -.01 .001, 86 .02 .001, 86 -.03 .001, 86 .00 .001, 86 .01 .001, 86 -.10 .001,
    91 .50 .010, 91 .66 .011, 91 .20 .010, 91 .00 .009, 91 .05 .013, 91 .07 .013, 108 -.52 .031, 108 .70 .031,
    108 -.03 .030, 108 .27 .030, 108 -.34 .030, 644 .12 .087, 644 .61 .082, 644 .04 .067, 644 -.05 .067
"""


def schools():
    rows = [row.split() for row in SCHOOLS.split(",")]
    return {(district, str(i)): Estimate("d", float(y), float(v) ** 0.5) for i, (district, y, v) in enumerate(rows)}


def test_schools_within_districts_as_metafor_prints_them():
    """rma.mv(yi, vi, random = ~ 1 | district/school), and its tip on I2 of multilevel models."""
    found = over_studies(schools(), normal=True)
    assert (found.n_studies, found.n, found.df) == (11, 56, 55)
    assert found.q == pytest.approx(578.8640, abs=5e-5)
    assert (found.var_study, found.var_label) == pytest.approx((0.0651, 0.0327), abs=5e-5)
    assert (found.estimate, found.se) == pytest.approx((0.1847, 0.0846), abs=5e-5)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0190, 0.3504), abs=5e-5)
    assert found.log_likelihood == pytest.approx(-7.9587, abs=5e-5)
    assert found.var_study / (found.var_study + found.var_label) == pytest.approx(0.665, abs=5e-4)
    assert (found.i2_study, found.i2_label) == pytest.approx((63.32, 31.86), abs=5e-3)


def test_schools_without_districts_as_konstantopoulos_prints_them():
    """Table 4 of the paper (three decimals): mean, its error and the variance between schools."""
    one = [(e.value, e.se) for e in schools().values()]
    found = random_effects(*np.array(one).T, method="REML", hartung_knapp=False)
    assert (found.estimate, found.se, found.tau2) == pytest.approx((0.128, 0.044, 0.088), abs=5e-4)
    assert (found.tau2_low, found.tau2_high) == pytest.approx((0.056, 0.139), abs=5e-4)
