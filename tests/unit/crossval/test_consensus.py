"""One label, none, refusals, and the rows of consensus.csv."""

import math

import numpy as np
import pytest
from scipy import stats

from evbiodist.crossval.consensus import COLUMNS, consensus_table, random_effects
from evbiodist.study.estimate import Estimate


def uptake(value, se=math.nan, **more):
    return Estimate("uptake", value, se, unit=more.pop("unit", "pct_id"), **more)


def table(*estimates, **options):
    """Return the rows by label; labels are a, b, c, ..."""
    labels = "abcdef"[: len(estimates)]
    return {row["label"]: row for row in consensus_table("brain_uptake_pct_id", labels, estimates, **options)}


def test_one_estimate_is_itself():
    found = random_effects([3.0], [0.5])
    assert (found.estimate, found.se, found.weights, found.n) == (3.0, 0.5, (1.0,), 1)
    assert found.ci_high == pytest.approx(3 + 1.959964 * 0.5)
    assert math.isnan(found.tau2)
    assert math.isnan(found.prediction_low)
    assert "nothing is known of the spread" in found.reason


def test_no_estimate_is_missing_with_a_reason():
    found = random_effects([], [])
    assert math.isnan(found.estimate)
    assert found.weights == ()
    assert found.reason == "no estimates to pool"


def test_two_labels_are_few():
    assert random_effects([1.0, 1.1], [0.2, 0.2]).flags == ("few",)


def test_far_apart_labels_are_heterogeneous():
    assert random_effects([1.0, 1.1, 9.0], [0.2, 0.2, 0.2]).flags == ("heterogeneous",)


def test_the_interval_of_tau2_meets_its_quantiles():
    """At its ends the weighted sum of squares is a quantile of chi-squared (Viechtbauer 2007)."""
    y, se = np.array([1.0, 1.6, 2.5, 0.4]), np.array([0.2, 0.3, 0.25, 0.1])
    found = random_effects(y, se, level=0.9)
    for tau2, quantile in ((found.tau2_low, 0.95), (found.tau2_high, 0.05)):
        w = 1 / (se**2 + tau2)
        assert w @ (y - np.average(y, weights=w)) ** 2 == pytest.approx(stats.chi2(3).ppf(quantile), rel=1e-10)
    assert found.i2_low < found.i2 < found.i2_high


def test_labels_closer_than_their_errors_have_no_spread():
    found = random_effects([1.0, 1.001, 0.999], [0.5, 0.5, 0.5])
    assert (found.tau2, found.tau2_low, found.tau2_high, found.i2_high) == (0, 0, 0, 0)


def test_the_interval_of_tau2_holds_the_truth():
    rng = np.random.default_rng(20)
    held = []
    for _ in range(800):
        tau, se = rng.uniform(0.0, 1.5), rng.uniform(0.2, 1.0, 4)
        found = random_effects(tau * rng.normal(size=4) + se * rng.normal(size=4), se)
        held.append(found.tau2_low <= tau**2 <= found.tau2_high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_without_a_floor_the_scale_is_that_of_the_residuals():
    """With equal errors this is the t interval of the plain mean, however close the values lie."""
    y = np.array([1.0, 1.1, 1.05])
    exact, kept = (random_effects(y, np.full(3, 0.5), floor=floor) for floor in (False, True))
    assert exact.se == pytest.approx(np.std(y, ddof=1) / math.sqrt(3))
    assert exact.ci_high == pytest.approx(1.05 + stats.t(2).ppf(0.975) * exact.se)
    assert kept.se == pytest.approx(0.5 / math.sqrt(3))
    assert exact.method.endswith("Hartung-Knapp without floor)")


@pytest.mark.parametrize(
    ("y", "se", "options", "says"),
    [
        ([1, 2], [0.1], {}, "estimates and se: found shapes"),
        ([1, math.nan], [0.1, 0.1], {}, r"estimates\[1\]: found nan"),
        ([1, 2], [0.1, 0.0], {}, r"se\[1\]: found 0.0, expected a positive standard error"),
        ([1, 2], [-0.1, 0.1], {}, r"se\[0\]: found -0.1"),
        ([1, 2], [0.1, math.nan], {}, r"se\[1\]: found nan"),
        ([1, 2], [0.1, 0.1], {"method": "ML"}, "method: found 'ML', expected 'PM'"),
        ([1, 2], [0.1, 0.1], {"level": 1}, "level: found 1"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(y, se, options, says):
    with pytest.raises(ValueError, match=says):
        random_effects(y, se, **options)


def test_rows_and_columns_of_the_table():
    rows = table(uptake(1.0, 0.1), uptake(1.4, 0.2), uptake(1.2, 0.1))
    assert list(rows) == ["a", "b", "c", "mean", "consensus"]
    assert all(tuple(row) == COLUMNS for row in rows.values())
    assert all(row["quantity"] == "brain_uptake_pct_id" for row in rows.values())
    assert sum(rows[label]["weight"] for label in "abc") == pytest.approx(1)
    assert math.isnan(rows["a"]["tau2"])
    assert rows["consensus"]["tau2"] >= 0


def test_the_mean_has_its_t_interval():
    mean = table(uptake(1.0, 0.1), uptake(2.0, 0.1), uptake(3.0, 0.1))["mean"]
    assert (mean["estimate"], mean["n"]) == (2, 3)
    assert mean["ci_high"] == pytest.approx(2 + 4.302653 / math.sqrt(3))


def test_missing_labels_do_not_enter():
    rows = table(uptake(1.0, 0.1), Estimate("uptake", reason="no scan"), uptake(1.2, 0.1), uptake(5.0))
    assert (rows["b"]["weight"], rows["b"]["reason"]) == (0, "no scan")
    assert (rows["d"]["weight"], rows["d"]["reason"]) == (0, "not pooled: no standard error")
    assert rows["d"]["flags"] == "no_se"
    assert rows["consensus"]["n"] == 2
    assert rows["consensus"]["estimate"] == pytest.approx(1.1)
    assert rows["mean"]["n"] == 3


def test_a_table_of_nothing():
    rows = table(Estimate("uptake", reason="no scan"), Estimate("uptake", reason="not measured"))
    assert rows["mean"]["reason"] == "no label has a value"
    assert rows["consensus"]["reason"] == "no estimates to pool"


def test_one_label_has_no_interval_across_labels():
    rows = table(uptake(1.0, 0.1))
    assert rows["mean"]["reason"].startswith("one value only")
    assert rows["consensus"]["estimate"] == 1


def test_log_scale_pools_factors():
    """Half and twice are equally far from one; the linear mean would lean to the larger."""
    row = table(uptake(0.5, 0.05), uptake(2.0, 0.2), scale="log")["consensus"]
    assert row["estimate"] == pytest.approx(1)
    assert row["ci_low"] * row["ci_high"] == pytest.approx(1)
    assert 0 <= row["prediction_low"] < row["ci_low"]
    assert row["se"] == pytest.approx(math.log(2), rel=1e-9)
    assert row["method"].endswith("log scale")


def test_what_has_no_logarithm_is_named():
    rows = table(uptake(-0.1, 0.2), uptake(0.5, 0.1), uptake(0.6, 0.0), uptake(math.inf, 1.0), scale="log")
    assert "no logarithm" in rows["a"]["reason"]
    assert "standard error is 0" in rows["c"]["reason"]
    assert "infinite" in rows["d"]["reason"]
    assert rows["b"]["weight"] == 1


def test_a_forecast_beyond_any_float_is_infinite():
    row = table(uptake(1e-150, 1e-152), uptake(1e150, 1e148), scale="log")["consensus"]
    assert row["prediction_high"] == math.inf
    assert row["prediction_low"] == 0


@pytest.mark.parametrize(
    ("labels", "estimates", "says"),
    [
        (["a"], [], "found 1 and 0"),
        (["a", "a"], [uptake(1, 0.1)] * 2, "found 'a' twice"),
        (["mean"], [uptake(1, 0.1)], "found 'mean' as a label"),
        (["a", "b"], [uptake(1, 0.1), uptake(1, 0.1, unit="bq")], r"found units 'pct_id' \(a\), 'bq' \(b\)"),
    ],
)
def test_the_table_refuses_what_it_cannot_name(labels, estimates, says):
    with pytest.raises(ValueError, match=says):
        consensus_table("brain_uptake_pct_id", labels, estimates)


def test_the_table_refuses_an_unknown_scale():
    with pytest.raises(ValueError, match="scale: found 'ln'"):
        table(uptake(1, 0.1), scale="ln")
