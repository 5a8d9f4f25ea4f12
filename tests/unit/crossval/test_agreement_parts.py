"""Limits, lines, concordance and ranks: recovery from known truth, what they refuse, and what they say is missing."""

import math

import numpy as np
import pytest

from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.concordance import icc, lin_ccc
from evbiodist.crossval.limits import (
    c4,
    limits,
    limits_of_replicated_pairs,
    pair_factor,
    ratio_limits,
    slope_of_difference,
)
from evbiodist.crossval.lines import deming, passing_bablok
from evbiodist.crossval.ranks import kendall_w
from evbiodist.crossval.replicates import error_ratio, within, within_of


def test_limits_with_replicates_are_those_of_single_animals():
    """400 studies of 10 organ-times, 4 and 3 animals: true SD of a single difference is 1.5; means alone show 1.08."""
    rng = np.random.default_rng(5)
    sd, alone, covered = [], [], []
    true_sd = math.sqrt(0.5**2 + 1.0**2 + 1.0**2)
    for _ in range(400):
        middle = rng.normal(0.4, 0.5, 10)
        a = middle[:, None] + rng.normal(0, 1, (10, 4))
        b = rng.normal(0, 1, (10, 3))
        means = a.mean(axis=1), b.mean(axis=1)
        found = limits(*means, within=(within(list(a)), within(list(b))))
        sd.append(found.sd**2)
        alone.append(limits(*means).sd ** 2)
        covered.append(found.loa_high_low <= 0.4 + 1.96 * true_sd <= found.loa_high_high)
    assert np.mean(sd) == pytest.approx(true_sd**2, rel=0.03)
    assert np.mean(alone) == pytest.approx(0.25 + 1 / 4 + 1 / 3, rel=0.06)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_paired_replicates_recover_their_variance_components():
    """1,000 studies of 8 organ-times with 2 to 4 animals that carry both labels. Over 3,000 the limit's interval held 93.3 %."""
    rng = np.random.default_rng(6)
    variance, covered = [], []
    for _ in range(1000):
        found = limits_of_replicated_pairs(
            [rng.normal(1.0, 0.8) + rng.normal(0, 0.6, m) for m in (2, 3, 4, 2, 3, 4, 3, 2)]
        )
        variance.append(found.sd**2)
        covered.append((found.bias_low <= 1 <= found.bias_high, found.loa_low_low <= 1 - 1.96 <= found.loa_low_high))
    assert np.mean(variance) == pytest.approx(1.0, abs=0.05)
    assert np.mean(covered, axis=0) == pytest.approx([0.95, 0.933], abs=0.025)


def test_animals_that_scatter_more_than_places_leave_no_negative_component():
    found = limits_of_replicated_pairs([[0.0, 2.0], [2.0, 0.0], [0.1, 1.9]])
    assert found.sd == pytest.approx(np.std([0, 2, 2, 0, 0.1, 1.9], ddof=1))
    assert found.df == 5


def test_replicates_of_one_change_nothing():
    a, b = [4.1, 6.0, 7.9, 10.2], [4.0, 6.1, 8.1, 10.0]
    alone = within([[1.0], [2.0], [3.0], [4.0]])
    assert (alone.variance, alone.df, alone.inverse_size) == (0, 0, 1)
    assert limits(a, b, within=(alone, alone)) == limits(a, b)
    assert limits_of_replicated_pairs([[x - y] for x, y in zip(a, b, strict=True)]).loa_high_high == pytest.approx(
        limits(a, b).loa_high_high
    )


def test_scatter_from_sd_and_n_is_that_of_the_animals():
    groups = [[1.0, 2.0, 4.0], [3.0, 3.5], [9.0]]
    assert within_of([np.var(g, ddof=1) if len(g) > 1 else math.nan for g in groups], [3, 2, 1]) == within(groups)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: within([[1.0], []]), "replicates: pair 1 holds 0 values"),
        (lambda: within([[1.0, math.nan]]), "1 of them not finite"),
        (lambda: within_of([1.0], [0]), "a least size of 0"),
        (lambda: within_of([math.nan], [2]), "variances: found one that is negative or missing"),
        (lambda: limits_of_replicated_pairs([[1.0], []]), "differences: found an empty vector"),
        (lambda: pair_factor(1, 0.5), "n: found 1 pairs, expected 2 or more"),
        (lambda: pair_factor(5, 95), "level: found 95"),
        (lambda: icc([1.0, 2.0]), r"values: found shape \(2,\)"),
        (lambda: kendall_w([[1.0, math.nan]]), "with 1 values not finite"),
        (lambda: passing_bablok([1, 2, 3], [1, 2, math.inf]), "b: found 1 of 3"),
        (lambda: deming([1, 2, 3], [1, 2, 3], error_ratio=-1), "error_ratio: found -1"),
        (lambda: lin_ccc([1, 2, 3], [1, 2, 3], level=2), "level: found 2"),
        (lambda: agreement([1, 2, 3], [1, 2, 3], error_ratio="replicates"), "found 'replicates' without `within`"),
        (
            lambda: agreement(
                [1, 2, 3], [1, 2, 3], error_ratio="replicates", within=(within([[1.0]]), within([[1.0]]))
            ),
            "without replicates of both labels",
        ),
    ],
)
def test_refusals_name_the_field(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_error_ratio_from_replicates_moves_the_deming_line():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 2, (300, 3)), rng.normal(0, 1, (300, 3))
    found = error_ratio(within(list(a)), within(list(b)))
    assert found.low < 4 < found.high
    assert found.ratio == pytest.approx(4, rel=0.15)
    x, y = [1.0, 2.0, 3.5, 5.0], [1.2, 1.7, 3.9, 4.6]
    scatter = within(list(a)), within(list(b))
    by_replicates = agreement(x, y, error_ratio="replicates", within=scatter)
    assert by_replicates.deming_slope == deming(x, y, error_ratio=found.ratio).slope
    assert by_replicates.deming_slope != deming(x, y).slope


def test_error_ratio_needs_scatter_of_both():
    some, none, still = within([[1.0, 2.0]]), within([[1.0]]), within([[1.0, 1.0]])
    assert "without replicates" in error_ratio(some, none).reason
    assert "all alike" in error_ratio(some, still).reason


def test_c4_makes_the_sd_unbiased():
    sd = np.random.default_rng(2).normal(0, 1, (200_000, 4)).std(axis=1, ddof=1)
    assert np.mean(sd / c4(3)) == pytest.approx(1, abs=0.003)


def test_ratio_is_the_geometric_mean_and_counts_what_it_leaves_out():
    found = ratio_limits([2.0, 8.0, 4.0, 0.0], [1.0, 2.0, 2.0, 1.0])
    assert (found.n, found.left_out) == (3, 1)
    assert found.ratio == pytest.approx((2 * 4 * 2) ** (1 / 3))
    logs = np.log([2, 4, 2])
    assert found.loa_high == pytest.approx(math.exp(logs.mean() + 1.96 * logs.std(ddof=1)))
    few = ratio_limits([2.0, 0.0, 0.0], [1.0, 2.0, 2.0])
    assert math.isnan(few.ratio)
    assert few.reason == "1 pairs above zero, and a ratio needs 3"


def test_slope_of_difference_sees_proportional_bias_and_little_else():
    truth = np.linspace(1, 9, 9)
    assert slope_of_difference(1.1 * truth, 0.9 * truth).slope == pytest.approx(0.2)
    assert slope_of_difference(truth + 1, truth).slope == pytest.approx(0)
    assert "needs 3" in slope_of_difference([1, 2], [1, 3]).reason
    assert "no slope" in slope_of_difference([1, 2, 3], [3, 2, 1]).reason


def test_passing_bablok_recovers_a_line_that_outliers_do_not_move():
    """300 lines of 20 points with errors on both axes, slope 1.3: bias and coverage of slope and intercept."""
    rng = np.random.default_rng(3)
    slopes, covered = [], []
    for _ in range(300):
        truth = rng.uniform(0, 10, 20)
        a, b = truth + rng.normal(0, 0.2, 20), 0.5 + 1.3 * truth + rng.normal(0, 0.26, 20)
        found = passing_bablok(a, b)
        slopes.append(found.slope)
        covered.append(found.slope_low <= 1.3 <= found.slope_high)
    assert np.mean(slopes) == pytest.approx(1.3, abs=0.005)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
    b[-1] += 50
    assert passing_bablok(a, b).slope == pytest.approx(found.slope, abs=0.05)


def test_passing_bablok_inverts_when_the_labels_change_places():
    rng = np.random.default_rng(4)
    a = np.round(rng.uniform(0, 5, 25), 1)  # coarse, so that there are ties and slopes of -1
    b = np.round(a + rng.normal(0, 0.5, 25), 1)
    one, other = passing_bablok(a, b), passing_bablok(b, a)
    assert one.slopes == other.slopes < 300
    odd = one.slopes % 2 == 1  # of an even number two middle slopes are averaged, which does not invert exactly
    assert other.slope == pytest.approx(1 / one.slope, rel=1e-12 if odd else 1e-3)
    assert (other.slope_low, other.slope_high) == pytest.approx((1 / one.slope_high, 1 / one.slope_low))


def test_the_order_of_points_with_equal_x_changes_nothing():
    x, y = np.array([1.0, 1, 2, 2, 3, 4, 5, 5]), np.array([1.2, 0.9, 2.3, 1.8, 3.1, 3.9, 5.2, 4.8])
    back = passing_bablok(x[::-1], y[::-1])
    assert back == passing_bablok(x, y)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ([1, 2], [1, 2], "needs 3"),
        ([1, 1, 1, 1], [1, 2, 3, 4], "a reads the same everywhere"),
        ([1, 2, 3, 4, 5], [5, 4, 3.5, 2, 1], "rise together"),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], "rise together"),  # every slope is -1
        ([1, 2, 3, 4], [1.1, 1.9, 3.2, 4.1], "too few pairs"),
    ],
)
def test_passing_bablok_says_why_a_line_or_its_interval_is_missing(a, b, says):
    found = passing_bablok(a, b)
    assert says in found.reason
    assert math.isnan(found.slope_low)
    assert math.isnan(found.intercept_high)


def test_cusum_sees_a_bent_line_and_lets_straight_ones_pass():
    rng = np.random.default_rng(8)
    x = np.linspace(0, 10, 60)
    assert passing_bablok(x, x + 0.15 * (x - 5) ** 2 + rng.normal(0, 0.3, 60)).linearity_p < 0.01
    straight = [passing_bablok(x, x + rng.normal(0, 0.3, 60)).linearity_p < 0.05 for _ in range(100)]
    assert np.mean(straight) < 0.12
    assert math.isnan(passing_bablok([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).linearity_p)  # no point is off the line


def test_intraclass_interval_covers():
    """500 tables of 15 targets by 3 labels; true ICC(2,1) is 4 / (4 + 0.5 + 1)."""
    rng = np.random.default_rng(9)
    covered = []
    for _ in range(500):
        table = rng.normal(0, 2, (15, 1)) + rng.normal(0, 0.5**0.5, (1, 3)) + rng.normal(0, 1, (15, 3))
        found = icc(table)["icc2"]
        covered.append(found.low <= 4 / 5.5 <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_intraclass_correlation_where_labels_agree_wholly_or_say_nothing():
    same = icc([[1, 1], [2, 2], [5, 5]])
    assert {c.value for c in same.values()} == {1.0}
    assert all("no interval" in c.reason for c in same.values())
    assert all(math.isnan(c.value) and "not defined" in c.reason for c in icc([[1, 1], [1, 1]]).values())
    assert "needs 2 of each" in icc([[1.0, 2.0]])["icc2"].reason
    shifted = icc([[1, 2], [2, 3], [5, 6]])  # consistent, not equal
    assert shifted["icc3"].value == 1
    assert 0 < shifted["icc2"].low < shifted["icc2"].value < shifted["icc2"].high <= 1


def test_kendall_w_of_one_order_of_none_and_of_too_little():
    one = kendall_w([[1, 2, 3, 4], [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]])
    assert (one.w, one.m, one.n) == (1, 3, 4)
    assert one.p == pytest.approx(1 / 24**2)  # all three the same, in any order
    assert kendall_w([[1, 2, 3], [3, 2, 1]]).w == 0
    assert "no order" in kendall_w([[1, 1, 1], [2, 2, 2]]).reason
    assert "2 of each" in kendall_w([[1, 2, 3]]).reason


def test_kendall_w_of_many_items_is_by_permutation_and_repeats():
    values = np.random.default_rng(10).normal(size=(4, 12))
    found = kendall_w(values)
    assert found.p_method == "permutation"
    assert found == kendall_w(values)
    uniform = [kendall_w(np.random.default_rng(i).normal(size=(3, 9))).p for i in range(200)]
    assert np.mean(np.array(uniform) < 0.1) == pytest.approx(0.1, abs=0.05)
