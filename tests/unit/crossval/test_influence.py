"""The consensus without each label: the arithmetic, the log scale, few labels, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.crossval.consensus import random_effects
from evbiodist.crossval.influence import INFLUENCE_COLUMNS, influence, influence_rows
from evbiodist.study.estimate import Estimate


def uptake(value, se=math.nan, **more):
    return Estimate("uptake", value, se, unit="pct_id", **more)


def table(*estimates, **options):
    labels = "abcdef"[: len(estimates)]
    return {row["left_out"]: row for row in influence_rows("brain_uptake_pct_id", labels, estimates, **options)}


def test_it_is_the_consensus_of_the_others():
    y, se = [1.0, 1.4, 2.5, 0.9], [0.1, 0.2, 0.1, 0.3]
    for i, one in enumerate(influence(y, se)):
        assert one.without == random_effects(np.delete(y, i), np.delete(se, i))
        assert one.change == pytest.approx(one.without.estimate - random_effects(y, se).estimate)


def test_equal_errors_without_spread_by_hand():
    """Without spread the weights are equal, and the formulas are those of a mean of known error."""
    y = np.array([1.0, 1.2, 0.8, 1.1, 0.9])
    found = influence(y, np.full(5, 0.5))[1]
    change = np.delete(y, 1).mean() - y.mean()
    assert found.hat == pytest.approx(0.2)
    assert found.cooks_distance == pytest.approx(change**2 / (0.25 / 5))
    assert found.rstudent == pytest.approx((1.2 - 0.95) / math.sqrt(0.25 + 0.25 / 4))
    assert found.dffits == pytest.approx(-change / math.sqrt(0.2 * 0.25))


def test_one_far_label_is_outlying_and_the_others_are_not():
    rows = table(*(uptake(v, 0.05 * v) for v in (0.20, 0.21, 0.19, 0.22, 2.0)), scale="log")
    assert [label for label, row in rows.items() if "outlying" in row["flags"]] == ["e"]
    assert rows["e"]["rstudent"] > 3
    assert rows["e"]["change_pct"] < -30


@pytest.mark.parametrize("labels", [3, 5])
def test_clean_studies_seldom_have_an_outlying_label(labels):
    """Over random studies without a wrong label, whose labels spread as much as their errors."""
    rng = np.random.default_rng(labels)
    se = rng.uniform(0.1, 0.3, (150, labels))
    y = 1 + rng.normal(size=se.shape) * np.hypot(se, 0.2)
    flagged = [any("outlying" in one.flags for one in influence(a, b)) for a, b in zip(y, se, strict=True)]
    assert np.mean(flagged) <= 0.1


def test_the_log_scale_counts_in_factors():
    rows = table(uptake(1.0, 0.1), uptake(2.0, 0.2), uptake(4.0, 0.4), scale="log")
    assert rows["a"]["estimate"] == pytest.approx(math.sqrt(8))
    assert rows["a"]["change_pct"] == pytest.approx(100 * (math.sqrt(2) - 1))
    assert rows["b"]["change_pct"] == pytest.approx(0, abs=1e-9)


def test_two_labels_leave_one_alone():
    rows = table(uptake(1.0, 0.1), uptake(2.0, 0.2))
    assert rows["a"]["estimate"] == 2
    assert math.isnan(rows["a"]["rstudent"])
    assert math.isnan(rows["a"]["tau2"])
    assert "nothing is known of the spread" in rows["a"]["reason"]
    assert rows["a"]["flags"] == "few"


def test_one_label_leaves_none():
    row = table(uptake(1.0, 0.1))["a"]
    assert math.isnan(row["estimate"])
    assert row["reason"] == "no estimates to pool"


def test_a_label_that_was_not_pooled_says_why():
    rows = table(
        uptake(1.0, 0.1), uptake(-0.1, 0.2), Estimate("uptake", reason="no scan"), uptake(1.2, 0.1), scale="log"
    )
    assert "no logarithm" in rows["b"]["reason"]
    assert rows["c"]["reason"] == "no scan"
    assert math.isnan(rows["b"]["change_pct"])
    assert all(tuple(row) == INFLUENCE_COLUMNS for row in rows.values())


def test_a_change_from_nothing_has_no_percentage():
    row = table(uptake(-1.0, 0.5), uptake(0.0, 0.5), uptake(1.0, 0.5))["a"]
    assert math.isnan(row["change_pct"])
    assert row["reason"] == "the pooled estimate is 0, so its change has no percentage"


@pytest.mark.parametrize(
    ("labels", "estimates", "options", "says"),
    [
        (["a"], [], {}, "found 1 and 0"),
        (["a", "a"], [uptake(1, 0.1)] * 2, {}, "found 'a' twice"),
        (["a"], [uptake(1, 0.1)], {"scale": "ln"}, "scale: found 'ln'"),
        (["a"], [uptake(1, 0.1)], {"method": "ML"}, "method: found 'ML'"),
    ],
)
def test_refusals(labels, estimates, options, says):
    with pytest.raises(ValueError, match=says):
        influence_rows("brain_uptake_pct_id", labels, estimates, **options)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.05, 2)), min_size=3, max_size=6), st.floats(0.01, 100))
def test_units_do_not_matter(seen, unit):
    y, se = np.array(seen).T
    for one, scaled in zip(influence(y, se), influence(unit * y, unit * se), strict=True):
        assert scaled.rstudent == pytest.approx(one.rstudent, rel=1e-6, abs=1e-6)
        assert scaled.cooks_distance == pytest.approx(one.cooks_distance, rel=1e-6, abs=1e-6)
