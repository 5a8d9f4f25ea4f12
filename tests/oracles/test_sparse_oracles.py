"""Sparse and batch designs against the R packages PK and PKNCA, scipy's bootstrap, and formulas worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from evbiodist.kinetics.designs.batch_design import AnimalMeans, Samples, batch_auc, batch_aucinf
from evbiodist.kinetics.designs.ratio import kp_paired
from evbiodist.kinetics.designs.resample import bootstrap, mean_of_animals
from evbiodist.kinetics.designs.sparse import bailer, bailer_summary
from evbiodist.kinetics.nca.nca import nca

# The sparse example of PKNCA's test suite (tests/testthat/test-sparse.R, Denney et al.), whose expected numbers
# were computed by R's PK::auc(design = "ssd") and PK::auc(design = "batch"): Jaki T, Wolfsegger MJ (2011) Pharm Stat
# 10:284-288.
TIMES = [0, 1, 2, 4, 6, 10, 24]
GROUPS = [
    [0, 0, 0], [1.75, 2.2, 1.58], [3.03, 1.98, 2.22], [3.54, 2.84, 2.55], [4.63, 2.99, 1.52], [3.34, 1.3, 1.22],
    [0.3, 0.0421, 0.231],
]  # fmt: skip
BATCH_OF_TIME = ["a", "a", "b", "c", "a", "b", "c"]

# Example 1a of Yeh (1990), as in the same test suite: area, standard error and degrees of freedom by the code in the
# appendix of Nedelman JR, Jia X (1998) J Biopharm Stat 8:317-328. Three batches of three animals.
YEH_TIMES = [0, 0.5, 1, 2, 4, 6, 8, 12, 24]
YEH_BATCH_OF_TIME = ["a", "b", "a", "b", "a", "b", "c", "c", "c"]
YEH = [
    [0, 0, 0], [4, 1.3, 3.2], [4.69, 2.07, 6.45], [6.68, 3.83, 6.08], [4.69, 4.06, 6.45], [8.13, 9.54, 6.29],
    [9.36, 13, 5.48], [5.18, 5.18, 2.79], [1.06, 2.15, 0.827],
]  # fmt: skip


def rows(times, groups, batch_of_time):
    """Return time, animal and value of every sample; animal i of a batch is the i-th of each of its times."""
    return (
        [t for t, g in zip(times, groups, strict=True) for _ in g],
        [f"{b}{i}" for b, g in zip(batch_of_time, groups, strict=True) for i in range(len(g))],
        [x for g in groups for x in g],
    )


def test_as_r_package_pk() -> None:
    area = bailer(TIMES, GROUPS)
    assert area.estimate.value == pytest.approx(39.4689, rel=1e-12)
    assert area.estimate.se == pytest.approx(6.86584835083522, rel=1e-12)
    assert area.df == pytest.approx(2.82631153092225, rel=1e-12)


def test_batch_design_as_r_package_pk() -> None:
    area = batch_auc(*rows(TIMES, GROUPS, BATCH_OF_TIME))
    assert area.estimate.value == pytest.approx(39.4689, rel=1e-12)
    assert area.estimate.se == pytest.approx(7.30997787038754, rel=1e-12)
    assert area.df == pytest.approx(2.74598236184576, rel=1e-12)
    assert area.estimate.n == 9


def test_batch_design_as_nedelman_and_jia() -> None:
    area = batch_auc(*rows(YEH_TIMES, YEH, YEH_BATCH_OF_TIME))
    assert area.estimate.value == pytest.approx(110.1015, rel=1e-9)
    assert area.estimate.se == pytest.approx(14.78964, abs=5e-6)
    assert area.df == pytest.approx(2.144318, abs=5e-7)


def test_first_moment_of_a_batch_design_as_nedelman_and_jia() -> None:
    """Expected numbers as PKNCA's test suite has them: the area of time x value, by the same appendix."""
    samples = Samples.of(*rows(TIMES, GROUPS, BATCH_OF_TIME))
    means = AnimalMeans.of(samples.values)
    w = np.array(batch_auc(*rows(TIMES, GROUPS, BATCH_OF_TIME)).weights) * samples.time_h
    assert float(w @ means.mean) == pytest.approx(295.6202667, rel=1e-9)
    assert math.sqrt(means.covariance(w, w)) == pytest.approx(66.92717545, rel=1e-9)
    assert float(means.freedom(w)) == pytest.approx(2.473378057, rel=1e-9)


def test_serial_sacrifice_is_a_batch_design_of_single_samples() -> None:
    """PKNCA's test suite has the same numbers for its one function with one animal a sample."""
    t, _, y = rows(TIMES, GROUPS, BATCH_OF_TIME)
    area = batch_auc(t, range(len(t)), y)
    assert area.estimate.se == pytest.approx(6.86584835083522, rel=1e-12)
    assert area.df == pytest.approx(2.82631153092225, rel=1e-12)


# PKNCA's example for more than half below the limit (the same test suite): two of three animals at 2 h.
MOST_BELOW = ([0, 1, 2, 3], [[0, 0, 0], [2, 3, 4], [0, 0, 1.5], [1, 2, 3]])


@pytest.mark.parametrize(
    ("rule", "area"),
    [
        ("drop", 6.5),  # PKNCA by default: the mean becomes 0 and a 0 inside the curve is dropped
        ("zero", 4.0),  # PKNCA with conc.blq = "keep"
        ("mean", 4.5),  # R package PK knows no limit: means 0, 3, 0.5, 2
        ("end", 4.5),  # here: inside the curve the mean is kept
    ],
)
def test_most_animals_below_the_limit_inside_the_curve(rule: str, area: float) -> None:
    times, groups = MOST_BELOW
    below = [[x == 0 for x in g] for g in groups]
    assert bailer(times, groups, below=below, majority_blq=rule).estimate.value == pytest.approx(area, rel=1e-14)


def test_most_animals_below_the_limit_at_the_end() -> None:
    """PKNCA's example: the area 41 stops at 8 h, with Bailer's error up to there; PK goes on to 24 h."""
    times = [0, 1, 2, 4, 8, 24]
    groups = [[0, 0, 0], [5, 6, 4], [8, 7, 9], [6, 5, 7], [3, 2.5, 3.5], [0, 0, 0.4]]
    below = [[x == 0 for x in g] for g in groups]
    area = bailer(times, groups, below=below)
    assert area.estimate.value == pytest.approx(41, rel=1e-14)
    w, s2 = np.array([0.5, 1, 1.5, 3, 2]), np.array([0, 1, 1, 1, 0.25])
    assert area.estimate.se == pytest.approx(math.sqrt((w**2 * s2 / 3).sum()), rel=1e-14)
    rest = bailer(times, groups, below=below, majority_blq="mean")
    assert rest.estimate.value == pytest.approx(41 + 8 * (3 + 0.4 / 3), rel=1e-14)


def test_half_of_the_animals_below_the_limit_is_not_more_than_half() -> None:
    """PKNCA's example: 0, 0, 2, 4 have the mean 1.5."""
    area = bailer([0, 2], [[3, 3, 3, 3], [0, 0, 2, 4]], below=[[False] * 4, [True, True, False, False]])
    assert area.estimate.value == pytest.approx(3 + 1.5, rel=1e-15)


def test_worked_by_hand() -> None:
    """Every number of this example can be checked with a pencil."""
    area = bailer([0, 2, 6, 10], [[0, 0], [4, 8], [10, 14, 18], [1, 2, 3, 6]])
    # w = (1, 3, 4, 2); means 0, 6, 14, 3; s^2 = 0, 8, 16, 14/3; n = 2, 2, 3, 4
    assert area.weights == (1, 3, 4, 2)
    assert area.estimate.value == pytest.approx(18 + 56 + 6, rel=1e-15)
    parts = (0, 9 * 8 / 2, 16 * 16 / 3, 4 * (14 / 3) / 4)  # w^2 s^2 / n = 0, 36, 85.33, 4.67
    assert area.estimate.se == pytest.approx(math.sqrt(126), rel=1e-15)
    assert area.df == pytest.approx(126**2 / (36**2 / 1 + parts[2] ** 2 / 2 + parts[3] ** 2 / 3), rel=1e-14)
    assert area.estimate.n == 11


def test_t_interval_by_table() -> None:
    """Two equal parts of 3 animals each: 4 degrees of freedom, whose t quantile every table has (2.776445)."""
    area = bailer_summary([0, 2], [10, 10], [3, 3], 3)
    assert area.df == pytest.approx(4, rel=1e-14)
    assert area.estimate.ci_high - 20 == pytest.approx(2.7764451051977987 * math.sqrt(6), rel=1e-12)
    normal = bailer_summary([0, 2], [10, 10], [3, 3], 3, interval="z").estimate
    assert normal.ci_high - 20 == pytest.approx(1.959963984540054 * math.sqrt(6), rel=1e-12)


def test_propagated_error_is_bailers() -> None:
    """`nca` on means and standard errors gives the same area, error and degrees of freedom."""
    means = [sum(g) / 3 for g in GROUPS]
    se = [math.sqrt(sum((x - m) ** 2 for x in g) / 2 / 3) for g, m in zip(GROUPS, means, strict=True)]
    result = nca(TIMES, means, se=se, n=3, route="ip", method="linear")
    assert result["auclast"].value == pytest.approx(39.4689, rel=1e-12)
    assert result["auclast"].se == pytest.approx(6.86584835083522, rel=1e-12)
    assert result.df["auclast"] == pytest.approx(2.82631153092225, rel=1e-12)


# PKNCA's example for the area to infinity (the same test suite), four animals a time.
INF_TIMES = [0, 0.5, 1, 2, 4, 6, 8, 12, 24]
INF = [
    [0, 0, 0, 0], [3.1, 4.4, 3.6, 5.2], [5.8, 6.9, 5.1, 7.4], [7.2, 6.1, 8.3, 6.6], [5.0, 6.2, 4.4, 5.6],
    [4.1, 3.4, 4.8, 3.7], [2.9, 3.5, 2.4, 3.1], [1.6, 1.9, 1.3, 1.8], [0.33, 0.27, 0.41, 0.30],
]  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_area_to_infinity_by_numeric_derivatives(shared: bool) -> None:
    """As PKNCA checks its own: the area as a function of the means, differentiated numerically, with their covariances."""
    t = np.repeat(INF_TIMES, 4)
    y = np.ravel(INF)
    who = [f"{'abc'[j % 3]}{i}" for j in range(9) for i in range(4)] if shared else range(36)
    found = batch_aucinf(t, who, y, lambda_z_points=4)
    times = np.array(INF_TIMES)

    def area(m: np.ndarray) -> float:
        slope = np.polyfit(times[5:], np.log(m[5:]), 1)[0]
        return float(np.trapezoid(m, times) - m[-1] / slope)

    means = np.mean(INF, axis=1)
    steps = 1e-5 * np.eye(9)
    gradient = np.array([(area(means + h) - area(means - h)) / 2e-5 for h in steps])
    cov = np.zeros((9, 9))
    for j in range(9):
        for k in range(9):
            if j == k or (shared and (j - k) % 3 == 0):
                cov[j, k] = np.cov(INF[j], INF[k])[0, 1] / 4
    assert found.estimate.value == pytest.approx(area(means), rel=1e-12)
    assert found.estimate.se == pytest.approx(math.sqrt(gradient @ cov @ gradient), rel=1e-6)


def test_fieller_of_complete_pairs_is_the_inverted_paired_t_test() -> None:
    """A ratio is in the interval when the t test of tissue - ratio x blood does not reject it (scipy)."""
    rng = np.random.default_rng(7)
    times, n = np.array([0.0, 1.0, 3.0, 8.0]), 6
    blood = rng.lognormal(1, 0.3, (n, 4))
    tissue = 0.4 * blood * rng.lognormal(0, 0.2, (n, 4))
    found = kp_paired(np.tile(times, n), np.repeat(range(n), 4), tissue.ravel(), blood.ravel())
    a, b = np.trapezoid(tissue, times), np.trapezoid(blood, times)
    assert found.ratio.value == pytest.approx(a.mean() / b.mean(), rel=1e-13)
    assert found.df == pytest.approx(n - 1, rel=1e-10)
    assert found.covariance == pytest.approx(np.cov(a, b)[0, 1] / n, rel=1e-10)
    for bound in (found.ratio.ci_low, found.ratio.ci_high):
        assert scipy.stats.ttest_1samp(a - bound * b, 0).pvalue == pytest.approx(0.05, rel=1e-8)


def test_percentile_and_bca_as_scipy() -> None:
    """One stratum and no small-n correction is scipy.stats.bootstrap; both have their own random numbers."""
    y = np.array([3.0, 5, 7, 18, 43, 85, 91, 98, 100, 130, 230, 487])
    ours = bootstrap(y[:, None], lambda v: mean_of_animals(v)[:, 0], seed=1, draws=40_000, small_n=False)
    for kind, method in (("percentile", "percentile"), ("basic", "basic"), ("bca", "BCa")):
        theirs = scipy.stats.bootstrap((y,), np.mean, method=method, n_resamples=40_000, rng=np.random.default_rng(2))
        low, high = ours.interval(kind)
        # the Monte Carlo error of these quantiles is about 0.4 (low) and 1 (high), measured over seeds
        assert low == pytest.approx(theirs.confidence_interval.low, abs=2.0)
        assert high == pytest.approx(theirs.confidence_interval.high, abs=5.0)
    off = y - y.mean()
    assert ours.skewness == pytest.approx((off**3).sum() / (6 * (off**2).sum() ** 1.5), rel=1e-10)
