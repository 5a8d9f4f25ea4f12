"""What agreement says when the data cannot carry a number, and what it refuses."""

import math

import pytest

from evbiodist.crossval.agreement import agreement


@pytest.mark.parametrize(
    ("a", "b", "bias", "says"),
    [
        ([], [], math.nan, "n = 0 pairs"),
        ([2.0], [1.0], 1.0, "n = 1 pair,"),
        ([2, 4], [1, 2], 1.5, "n = 2 pairs"),
    ],
)
def test_fewer_than_three_pairs_have_a_bias_at_most(a, b, bias, says):
    found = agreement(a, b)
    assert found.bias == pytest.approx(bias, nan_ok=True)
    assert math.isnan(found.loa_low)
    assert math.isnan(found.ccc)
    assert found.reason.startswith(says)
    assert found.flags == ("few",)


def test_a_label_that_reads_the_same_everywhere():
    found = agreement([1.0, 1, 1], [1.0, 2, 4])
    assert found.bias == pytest.approx(-4 / 3)
    assert math.isnan(found.ccc)
    assert math.isnan(found.deming_slope)
    assert found.reason == "a reads the same everywhere, so neither concordance nor a line follows"
    assert "a and b read the same" in agreement([1.0, 1, 1], [2.0, 2, 2]).reason


def test_a_constant_difference_has_limits_but_no_interval():
    found = agreement([1.0, 2, 3], [2.0, 3, 4])
    assert (found.bias, found.loa_low, found.loa_high) == (-1, -1, -1)
    assert math.isnan(found.bias_low)
    assert found.ccc == pytest.approx(4 / 7)
    assert found.reason == "all differences are alike, so the bias has no interval"


def test_perfect_concordance_and_its_opposite_have_no_interval():
    for sign in (1, -1):
        found = agreement([-1.0, 0, 1], [-sign, 0, sign])
        assert found.ccc == sign
        assert math.isnan(found.ccc_low)
        assert "exactly 1 or -1" in found.reason


def test_uncorrelated_pairs_have_concordance_but_no_line():
    found = agreement([-1.0, 0, 1, 0], [0.0, 1, 0, -1])
    assert found.ccc == 0
    assert found.ccc_low < 0 < found.ccc_high
    assert math.isnan(found.deming_slope)
    assert "uncorrelated" in found.reason


def test_a_line_that_hangs_on_one_pair():
    found = agreement([0.0, 0, 0, 1], [0.0, 1, -1, 2])
    assert found.deming_slope > 0
    assert math.isnan(found.deming_slope_low)
    assert "single pair" in found.reason


def test_the_level_moves_intervals_and_not_the_limits():
    a, b = [1.0, 2.0, 3.5, 4.0, 6.0], [1.1, 1.8, 3.9, 4.2, 5.5]
    wide, narrow = agreement(a, b, level=0.95), agreement(a, b, level=0.5)
    assert wide.loa_low == narrow.loa_low
    for low in ("bias_low", "ccc_low", "deming_slope_low", "deming_intercept_low"):
        assert getattr(wide, low) < getattr(narrow, low)


@pytest.mark.parametrize(
    ("a", "b", "options", "says"),
    [
        ([1, 2, 3], [1, 2], {}, r"a and b: found shapes \(3,\) and \(2,\), expected two vectors"),
        ([[1, 2]], [[1, 2]], {}, "expected two vectors"),
        ([1, 2, math.nan], [1, 2, 3], {}, "a: found 1 of 3 values NaN or infinite"),
        ([1, 2, 3], [1, math.inf, 3], {}, "b: found 1 of 3"),
        ([1, 2, 3], [1, 2, 3], {"error_ratio": 0}, "error_ratio: found 0, expected a positive number"),
        ([1, 2, 3], [1, 2, 3], {"level": 95}, "level: found 95, expected a share"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(a, b, options, says):
    with pytest.raises(ValueError, match=says):
        agreement(a, b, **options)
