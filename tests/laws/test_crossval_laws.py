"""Laws of agreement and consensus: what must hold whatever the labels read."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.concordance import icc
from evbiodist.crossval.consensus import random_effects
from evbiodist.crossval.limits import limits
from evbiodist.crossval.lines import passing_bablok
from evbiodist.crossval.ranks import kendall_w
from evbiodist.crossval.replicates import Within

readings = st.integers(-1000, 1000).map(lambda i: i / 8)
errors = st.integers(1, 400).map(lambda i: i / 16)
# the first call imports scipy, which takes as long as the machine is busy
unhurried = settings(deadline=None)
methods = st.sampled_from(["PM", "DL", "REML"])


@st.composite
def pairs(draw):
    n = draw(st.integers(3, 12))
    a, b = (np.array(draw(st.lists(readings, min_size=n, max_size=n))) for _ in "ab")
    assume(np.ptp(a) > 0 and np.ptp(b) > 0)
    return a, b


@st.composite
def labels(draw):
    k = draw(st.integers(2, 8))
    y, se = (np.array(draw(st.lists(of, min_size=k, max_size=k))) for of in (readings, errors))
    return y, se


def numbers(result):
    """Return the fields of a result that are single numbers."""
    return {key: value for key, value in asdict(result).items() if isinstance(value, float)}


@unhurried
@given(pairs(), st.sampled_from([0.25, 1.0, 4.0]))
def test_exchanging_labels_flips_bias_and_inverts_the_slope(ab, ratio):
    a, b = ab
    one, other = agreement(a, b, error_ratio=ratio), agreement(b, a, error_ratio=1 / ratio)
    assert (other.bias, other.loa_low, other.sd) == pytest.approx((-one.bias, -one.loa_high, one.sd))
    assert (other.ccc, other.ccc_low) == pytest.approx((one.ccc, one.ccc_low), nan_ok=True)
    # beyond 1e6 the line is vertical and a slope is rounding alone
    if 1e-6 < abs(one.deming_slope) < 1e6:
        assert other.deming_slope == pytest.approx(1 / one.deming_slope, rel=1e-6)


@unhurried
@given(pairs(), st.sampled_from([0.5, 8.0, 2.0**40]))
def test_a_change_of_unit_scales_what_has_a_unit(ab, factor):
    one, scaled = agreement(*ab), agreement(ab[0] * factor, ab[1] * factor)
    for name, value in numbers(one).items():
        with_unit = not name.startswith(("ccc", "deming_slope"))
        assert getattr(scaled, name) == pytest.approx(value * (factor if with_unit else 1), nan_ok=True)


@unhurried
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_nothing(ab, random):
    order = list(range(ab[0].size))
    random.shuffle(order)
    one, other = agreement(*ab), agreement(ab[0][order], ab[1][order])
    for name in ("bias", "bias_low", "loa_low", "loa_high", "sd", "ccc", "ccc_low", "ccc_high"):
        expected = pytest.approx(getattr(one, name), rel=1e-9, abs=1e-9, nan_ok=True)
        assert getattr(other, name) == expected


@unhurried
@given(pairs())
def test_identical_values_agree_wholly(ab):
    found = agreement(ab[0], ab[0])
    assert (found.ccc, found.bias, found.sd) == (1, 0, 0)
    assert found.deming_slope == pytest.approx(1)


@unhurried
@given(pairs())
def test_intervals_hold_their_estimate(ab):
    found = agreement(*ab)
    assert -1 <= found.ccc <= 1
    for name in ("bias", "ccc", "deming_slope", "deming_intercept"):
        low, value, high = (getattr(found, name + end) for end in ("_low", "", "_high"))
        assert math.isnan(low) == math.isnan(high)
        assert math.isnan(low) or low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high)
        assert not math.isnan(low) or found.reason


@unhurried
@given(pairs())
def test_intervals_of_limits_hold_their_limits_and_scatter_of_animals_widens_them(ab):
    found = limits(*ab)
    assume(not found.reason)
    assert found.loa_low_low < found.loa_low < found.loa_low_high
    assert found.loa_high_low < found.loa_high < found.loa_high_high
    wider = limits(*ab, within=(Within(1.0, 6, 0.5), Within(2.0, 6, 0.5)))
    assert wider.sd**2 == pytest.approx(found.sd**2 + 1.5)
    assert (wider.bias, wider.bias_low) == (found.bias, found.bias_low)


@unhurried
@given(pairs(), st.sampled_from([0.5, 2.0**40]), st.integers(-64, 64))
def test_a_passing_bablok_line_moves_with_its_points(ab, factor, shift):
    """A new unit leaves the slope, a shift of one label moves the intercept alone."""
    a, b = ab
    one, scaled, moved = passing_bablok(a, b), passing_bablok(a * factor, b * factor), passing_bablok(a, b + shift)
    assert (scaled.slope, moved.slope) == pytest.approx((one.slope, one.slope), nan_ok=True)
    assert scaled.intercept == pytest.approx(one.intercept * factor, nan_ok=True)
    assert moved.intercept == pytest.approx(one.intercept + shift, abs=1e-9, nan_ok=True)
    for found in (one, scaled, moved):
        assert math.isnan(found.slope_low) == math.isnan(found.intercept_high) == bool(found.reason)
        assert not found.slope_low > found.slope
        assert not found.slope_high < found.slope


@st.composite
def tables(draw):
    n, k = draw(st.integers(2, 6)), draw(st.integers(2, 4))
    return np.array(draw(st.lists(st.lists(readings, min_size=k, max_size=k), min_size=n, max_size=n)))


@unhurried
@given(tables(), st.randoms(use_true_random=False))
def test_intraclass_correlation_knows_no_unit_origin_or_order(table, random):
    columns = list(range(table.shape[1]))
    random.shuffle(columns)
    one, other = icc(table), icc(4 * table[::-1][:, columns] + 1)
    for name, c in one.items():
        assert other[name].value == pytest.approx(c.value, rel=1e-6, abs=1e-9, nan_ok=True)
        assert not c.low > c.value + 1e-9
        assert not c.high < c.value - 1e-9
        assert c.reason or not math.isnan(c.low)


@unhurried
@given(tables())
def test_rank_agreement_depends_on_order_alone(table):
    one, other = kendall_w(table), kendall_w(table[::-1] ** 3 + 5)
    assert (other.w, other.p) == pytest.approx((one.w, one.p), nan_ok=True)
    assert one.reason or -1e-12 <= one.w <= 1 + 1e-12
    assert one.reason or 0 < one.p <= 1 + 1e-12


@unhurried
@given(labels(), methods)
def test_consensus_lies_within_its_inputs_and_weights_sum_to_one(inputs, method):
    y, se = inputs
    found = random_effects(y, se, method=method)
    assert sum(found.weights) == pytest.approx(1)
    slack = 1e-12 * np.abs(y).max()
    assert y.min() - slack <= found.estimate <= y.max() + slack
    assert found.tau2 >= 0
    assert 0 <= found.i2 < 100
    assert found.prediction_low <= found.ci_low <= found.estimate <= found.ci_high <= found.prediction_high


@unhurried
@given(labels(), methods, st.randoms(use_true_random=False))
def test_the_order_of_labels_changes_nothing(inputs, method, random):
    y, se = inputs
    order = list(range(y.size))
    random.shuffle(order)
    one = random_effects(y, se, method=method)
    other = random_effects(y[order], se[order], method=method)
    for name, value in numbers(one).items():
        assert getattr(other, name) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert other.weights == pytest.approx([one.weights[i] for i in order], abs=1e-6)


@unhurried
@given(labels(), methods, st.sampled_from([2.0**-30, 4.0, 2.0**30]))
def test_a_change_of_unit_scales_the_consensus(inputs, method, factor):
    one = random_effects(*inputs, method=method)
    scaled = random_effects(inputs[0] * factor, inputs[1] * factor, method=method)
    assert scaled.estimate == pytest.approx(one.estimate * factor, rel=1e-6, abs=1e-6 * factor)
    assert scaled.se == pytest.approx(one.se * factor, rel=1e-6)
    assert scaled.tau2 == pytest.approx(one.tau2 * factor**2, rel=1e-6, abs=1e-6 * factor**2)
    assert scaled.i2 == pytest.approx(one.i2, rel=1e-6, abs=1e-4)


@unhurried
@given(readings, st.lists(errors, min_size=2, max_size=8), methods)
def test_equal_estimates_leave_no_heterogeneity(value, se, method):
    found = random_effects([value] * len(se), se, method=method)
    assert (found.tau2, found.i2) == (0, 0)
    assert "heterogeneous" not in found.flags


@unhurried
@given(labels(), methods)
def test_hartung_knapp_is_never_narrower_than_the_normal_interval(inputs, method):
    with_t, normal = (random_effects(*inputs, method=method, hartung_knapp=hk) for hk in (True, False))
    assert with_t.se >= normal.se
    assert with_t.ci_low <= normal.ci_low <= normal.ci_high <= with_t.ci_high
