"""Mean curves, Bailer's areas of many curves at once, and batch designs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.designs.batch_design import AnimalMeans, batch_auc, batch_aucinf
from evbiodist.kinetics.designs.mean_curve import MAJORITY_BLQ, settle_majority, trapezoid_weights
from evbiodist.kinetics.designs.sparse import bailer, bailer_batch, bailer_summary

RNG = np.random.default_rng(11)
TIMES = np.array([0.5, 1.0, 2.0, 5.0, 12.0])


# weights and the rule for times below the limit


@pytest.mark.parametrize("from_zero", [False, True])
def test_weights_are_the_trapezoids_of_what_is_kept(from_zero: bool) -> None:
    """For every pattern of kept times the weighted sum is numpy's integral of those times to the last positive mean."""
    for pattern in range(1, 2**5):
        kept = np.array([bool(pattern >> j & 1) for j in range(5)])
        mean = RNG.uniform(-1, 3, 5)
        w = trapezoid_weights(TIMES, mean, kept, from_zero)
        positive = np.flatnonzero(kept & (mean > 0))
        at = np.flatnonzero(kept)
        at = at[at <= positive[-1]] if positive.size else at[:0]
        t, m = TIMES[at], mean[at]
        if from_zero and at.size:
            t, m = np.r_[0, t], np.r_[0, m]
        assert float(w @ mean) == pytest.approx(np.trapezoid(m, t), rel=1e-13, abs=1e-13)
        assert (w[~kept] == 0).all()


def test_times_without_a_sample_are_left_out_of_every_rule() -> None:
    for rule in MAJORITY_BLQ:
        mean, kept = settle_majority([[1, np.nan, 2]], [[0, 1, 0]], rule)
        assert kept.tolist() == [[True, False, True]]
        assert mean[0, [0, 2]].tolist() == [1, 2]


def test_a_first_time_below_the_limit_keeps_the_start_of_the_curve() -> None:
    """A pre-dose sample below the limit is where the curve starts from, whatever the rule."""
    groups, below = [[0, 0], [4, 6], [1, 3]], [[True, True], [False, False], [False, False]]
    for rule in MAJORITY_BLQ:
        assert bailer([0, 1, 2], groups, below=below, majority_blq=rule).estimate.value == 2.5 + 3.5


def test_unknown_rule_and_lists_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="majority_blq has 'dropp', expected one of end, zero, drop, mean"):
        bailer([0, 1], [[1], [2]], below=[[True], [False]], majority_blq="dropp")
    with pytest.raises(ValueError, match=r"below has groups of \[1\], expected \[1, 2\] as groups"):
        bailer([0, 1], [[1], [2, 3]], below=[[True]])


def test_values_below_the_limit_flag_the_area_they_are_in() -> None:
    groups, below = [[4, 6], [1, 3], [0, 0]], [[False, False], [True, False], [True, True]]
    t, who = [0, 0, 1, 1, 2, 2], range(6)
    for mask, flags in ((below, ("below_lloq",)), ([[False, False]] * 2 + [[True, True]], ())):
        assert bailer([0, 1, 2], groups, below=mask).estimate.flags == flags
        assert batch_auc(t, who, np.ravel(groups), below=np.ravel(mask)).estimate.flags == flags


# many curves at once


def test_many_curves_are_the_single_ones() -> None:
    mean, sd = RNG.uniform(0, 5, (7, 5)), RNG.uniform(0, 2, (7, 5))
    n = RNG.integers(2, 6, (7, 5)).astype(float)
    mean[2, 3:], n[4, 1], sd[5, 2], n[6, 0] = 0, 1, np.nan, np.nan
    table = bailer_batch(TIMES, mean, sd, n, interval="z", level=0.9, unit="pct_id_per_g", from_zero=True)
    assert len(table) == 7
    for i in range(7):
        one = bailer_summary(TIMES, mean[i], sd[i], n[i], interval="z", level=0.9, unit="pct_id_per_g", from_zero=True)
        assert repr(table[i]) == repr(one)
    assert table[4].estimate.reason == "there is one animal at 1 h, so no standard error"
    assert table[5].estimate.reason == "the spread is unknown at 2 h, so no standard error"
    assert table[6].estimate.flags == ("n_unknown",)
    assert table[0].estimate.unit == "pct_id_per_g*h"


def test_curves_may_have_times_of_their_own() -> None:
    t = np.array([[0.5, 1, 2, np.nan], [0.5, np.nan, 2, 4]])
    table = bailer_batch(t, [[3, 2, 1, 9], [3, 9, 1, 1]], [[1] * 4] * 2, 3)
    assert table[0].estimate.value == bailer_summary([0.5, 1, 2], [3, 2, 1], [1] * 3, 3).estimate.value
    assert table[1].estimate.value == bailer_summary([0.5, 2, 4], [3, 1, 1], [1] * 3, 3).estimate.value
    assert table[1].estimate.se == bailer_summary([0.5, 2, 4], [3, 1, 1], [1] * 3, 3).estimate.se
    assert table[1].estimate.n == 9


def test_a_curve_without_a_detection_has_its_reason_and_touches_no_other() -> None:
    table = bailer_batch([0, 1, 2], [[0, 0, 0], [1, 2, 1]], [[0] * 3, [1] * 3], 3)
    assert table[0].estimate.reason == "no positive mean, so there is no area"
    assert math.isnan(table[0].estimate.value)
    assert math.isnan(table[0].df)
    assert table[1].estimate.value == 3


def test_both_kinds_of_bounds_of_a_table() -> None:
    table = bailer_batch([0, 2], [[10, 10]], [[3, 3]], 3)
    low, high = table.bounds("z", 0.9)
    assert (high - low)[0] == pytest.approx(2 * 1.6448536269514722 * math.sqrt(6), rel=1e-12)
    assert table.bounds()[1][0] == table[0].estimate.ci_high
    with pytest.raises(ValueError, match="interval has 'boot', expected 't' or 'z'"):
        table.bounds("boot")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_h": [0, 2, 1]}, "time_h has .*expected rising hours"),
        ({"time_h": [-1, 1, 2]}, "time_h has .*expected rising hours"),
        ({"time_h": [0, 1]}, r"time_h has shape \(2,\), expected \(2, 3\) as mean"),
        ({"mean": [[1, np.inf, 1], [1, 1, 1]]}, "mean has .*expected finite numbers"),
        ({"sd": [[1, -1, 1], [1, 1, 1]]}, "sd has .*expected 0 or more"),
        ({"n": [3, 3]}, r"n has shape \(2,\)"),
        ({"level": 95}, "level has 95"),
    ],
)
def test_what_a_table_refuses(change: dict, words: str) -> None:
    given = {"time_h": [0, 1, 2], "mean": np.ones((2, 3)), "sd": np.ones((2, 3)), "n": 3} | change
    with pytest.raises(ValueError, match=words):
        bailer_batch(given["time_h"], given["mean"], given["sd"], given["n"], level=given.get("level", 0.95))


# batch designs

PATTERNS = {
    "disjoint": [(0, 2), (1, 4), (3,)],
    "overlapping": [(0, 1, 2), (0, 2, 3, 4), (1, 3, 4), (4,)],
    "complete": [(0, 1, 2, 3, 4)],
    "serial": [(0,), (1,), (2,), (3,), (4,)],
}


def design(name: str, n: int) -> np.ndarray:
    mask = np.zeros((len(PATTERNS[name]), 5), bool)
    for b, times in enumerate(PATTERNS[name]):
        mask[b, list(times)] = True
    return np.repeat(mask, n, axis=0)


def long(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    who, at = np.nonzero(np.isfinite(values))
    return TIMES[at], who, values[who, at]


def by_loops(values: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Variance of the area and its degrees of freedom, from the quadratic form in all samples, one by one."""
    seen = np.isfinite(values)
    samples = [(i, j) for i in range(len(values)) for j in range(values.shape[1]) if seen[i, j]]
    n = seen.sum(axis=0)
    spread = np.zeros((len(w), len(w)))
    form = np.zeros((len(samples), len(samples)))
    for j in range(len(w)):
        for k in range(len(w)):
            both = [i for i in range(len(values)) if seen[i, j] and seen[i, k]]
            r = len(both)
            scale = (r - 1) + (1 - r / n[j]) * (1 - r / n[k])
            if not r or scale <= 0:
                continue
            off_j = values[:, j] - np.nanmean(values[:, j])
            off_k = values[:, k] - np.nanmean(values[:, k])
            spread[j, k] = sum(off_j[i] * off_k[i] for i in both) / scale
            bound = np.nanstd(values[:, j], ddof=1) * np.nanstd(values[:, k], ddof=1)
            spread[j, k] = min(max(spread[j, k], -bound), bound)
            g = w[j] * w[k] * r / (n[j] * n[k]) / scale
            left = np.array([((i == m) - 1 / n[j]) * (c == j) for i in both for m, c in samples]).reshape(r, -1)
            right = np.array([((i == m) - 1 / n[k]) * (c == k) for i in both for m, c in samples]).reshape(r, -1)
            form += g * left.T @ right
    sigma = np.array([[spread[j, k] * (i == m) for m, k in samples] for i, j in samples])
    var = sum(
        w[j] * w[k] * (seen[:, j] & seen[:, k]).sum() / (n[j] * n[k]) * spread[j, k]
        for j in range(len(w))
        for k in range(len(w))
    )
    return var, var**2 / np.trace(form @ sigma @ form @ sigma)


@pytest.mark.parametrize("name", PATTERNS)
def test_variance_and_freedom_are_those_of_the_quadratic_form(name: str) -> None:
    mask = design(name, 3)
    for _ in range(3):
        animals = RNG.normal(0, 2, (len(mask), 1))
        values = np.where(mask, 10 + animals + RNG.normal(0, 1, mask.shape), np.nan)
        found = batch_auc(*long(values))
        var, df = by_loops(values, np.array(found.weights))
        assert found.estimate.se == pytest.approx(math.sqrt(var), rel=1e-10)
        assert found.df == pytest.approx(df, rel=1e-9)


def test_area_of_complete_data_is_the_mean_of_the_animals_own_areas() -> None:
    values = RNG.lognormal(1, 0.4, (6, 5))
    own = np.trapezoid(values, TIMES, axis=1)
    found = batch_auc(*long(values))
    assert found.estimate.value == pytest.approx(own.mean(), rel=1e-13)
    assert found.estimate.se == pytest.approx(own.std(ddof=1) / math.sqrt(6), rel=1e-12)
    assert found.df == pytest.approx(5, rel=1e-10)


def test_single_samples_are_serial_sacrifice() -> None:
    values = np.where(design("serial", 4), RNG.lognormal(1, 0.4, (20, 5)), np.nan)
    found = batch_auc(*long(values), from_zero=True)
    old = bailer(TIMES, [v[np.isfinite(v)] for v in values.T], from_zero=True)
    for a, b in ((found.estimate.value, old.estimate.value), (found.estimate.se, old.estimate.se), (found.df, old.df)):
        assert a == pytest.approx(b, rel=1e-12)
    assert found.weights == old.weights


@pytest.mark.parametrize("name", PATTERNS)
def test_the_variance_is_unbiased_and_the_freedom_right(name: str) -> None:
    """4,000 normal studies: the mean variance is the areas' variance, and its own scatter that of the degrees of freedom.

    Eight animals a batch, so that the limit on correlations never bends the mean.
    """
    mask, w = design(name, 8), trapezoid_weights(TIMES, np.ones(5))
    sigma = np.eye(5) + 0.5
    values = np.random.default_rng(5).multivariate_normal(np.full(5, 20), sigma, (4000, len(mask)))
    means = AnimalMeans.of(np.where(mask, values, np.nan))
    areas, var = means.mean @ w, means.covariance(w, w)
    truth = AnimalMeans(means.mean[0], sigma, means.shared, means.patterns, means.sizes)
    expected, df = float(truth.covariance(w, w)), float(truth.freedom(w))
    # four standard errors of a variance, of a mean of variances and of a variance of variances over 4,000 studies
    assert areas.var() == pytest.approx(expected, rel=4 * math.sqrt(2 / 4000))
    assert var.mean() == pytest.approx(expected, rel=4 * math.sqrt(2 / df / 4000))
    assert 2 * var.mean() ** 2 / var.var() == pytest.approx(df, rel=4 * math.sqrt((2 + 12 / df) / 4000))


def test_order_names_and_units_do_not_matter() -> None:
    values = np.where(design("overlapping", 3), RNG.lognormal(1, 0.4, (12, 5)), np.nan)
    t, who, y = long(values)
    order = RNG.permutation(t.size)
    one = batch_auc(t, who, y)
    other = batch_auc(t[order], [f"m{100 - i}" for i in who[order]], 1000 * y[order])
    assert other.estimate.value == pytest.approx(1000 * one.estimate.value, rel=1e-12)
    assert other.estimate.se == pytest.approx(1000 * one.estimate.se, rel=1e-10)
    assert other.df == pytest.approx(one.df, rel=1e-9)
    assert other.estimate.n == one.estimate.n == 12


def test_intervals_and_flags_of_a_batch_design() -> None:
    t, who, y = long(np.array([[4.0, 3, 2, 1, 0.5], [6, 5, 3, 2, 0.7]]))
    found = batch_auc(t, who, y, unit="pct_id_per_g")
    normal = batch_auc(t, who, y, interval="z")
    assert (found.estimate.ci_high - found.estimate.value) / found.estimate.se == pytest.approx(12.706, abs=1e-3)
    assert (normal.estimate.ci_high - normal.estimate.value) / normal.estimate.se == pytest.approx(1.95996, abs=1e-5)
    assert found.estimate.flags == ("few",)
    assert found.estimate.unit == "pct_id_per_g*h"
    assert found.estimate.method == "means over animals, linear, t interval"


def test_a_time_of_one_animal_leaves_the_area_without_an_error() -> None:
    found = batch_auc([0, 0, 1, 2, 2], [1, 2, 1, 1, 2], [4, 5, 3, 1, 2])
    assert found.estimate.value == (4.5 + 3) / 2 + (3 + 1.5) / 2
    assert found.estimate.reason == "there is one animal at 1 h, so no standard error"
    assert math.isnan(found.df)
    assert math.isnan(found.estimate.ci_low)
    # after the last positive mean it does not matter
    assert not batch_auc([0, 0, 1, 1, 2], [1, 2, 1, 2, 1], [4, 5, 3, 4, 0]).estimate.reason


def test_overlapping_batches_whose_covariances_make_no_variance_say_so() -> None:
    """Covariances taken from two animals here and two there need not fit together (found by search)."""
    nan = math.nan
    y = np.array(
        [[nan, 6, nan, 0], [nan, 7, nan, 1], [2, 4, 9, nan], [7, 0, 5, nan], [nan, nan, 1, 9], [nan, nan, 4, 1]]
    )
    who, at = np.nonzero(np.isfinite(y))
    found = batch_auc(at, who, y[who, at])
    assert found.estimate.value == pytest.approx(0.5 * 4.5 + 4.25 + 4.75 + 0.5 * 2.75, rel=1e-14)
    assert (
        found.estimate.reason
        == "the covariances of overlapping batches make no positive variance, so no standard error"
    )
    assert math.isnan(found.estimate.se)
    assert math.isnan(found.df)


def test_rounding_is_no_variance() -> None:
    """Areas of two animals that are equal, from samples that are not."""
    means = AnimalMeans.of([[0.1, 0.3, 0.2], [0.3, 0.1, 0.2]])
    assert float(means.covariance([1, 1, 1], [1, 1, 1])) == 0
    assert float(means.freedom([1, 1, 1])) == math.inf


def test_equal_animals_have_no_error_and_endless_freedom() -> None:
    found = batch_auc([0, 1, 0, 1], [1, 1, 2, 2], [2, 4, 2, 4])
    assert (found.estimate.value, found.estimate.se, found.df) == (3, 0, math.inf)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": [1, 2, math.nan, 4]}, "value has nan for b at 0 h, expected a finite number"),
        ({"subject": ["a", "a", "a", "b"]}, "subject has a 2 times at 0 h, expected one sample an animal and time"),
        ({"time_h": [0, 1, 0]}, r"time_h, subject, value and below have shapes \(3,\), \(4,\), \(4,\), \(4,\)"),
        ({"time_h": [1, 1, 1, 1], "subject": [*"abcd"]}, "time_h has .* expected rising hours"),
        ({"value": [0, 0, 0, 0]}, "nothing was detected, so there is no area"),
        ({"interval": "boot"}, "interval has 'boot'"),
    ],
)
def test_what_a_batch_design_refuses(change: dict, words: str) -> None:
    given = {"time_h": [0, 1, 0, 1], "subject": ["a", "a", "b", "b"], "value": [1, 2, 3, 4]} | change
    with pytest.raises(ValueError, match=words):
        batch_auc(given["time_h"], given["subject"], given["value"], interval=given.get("interval", "t"))


def test_means_refuse_columns_without_animals_and_changing_designs() -> None:
    with pytest.raises(ValueError, match="columns without a value"):
        AnimalMeans.of([[1, np.nan], [2, np.nan]])
    with pytest.raises(ValueError, match="NaN in different places"):
        AnimalMeans.of([[[1, 2], [2, 3]], [[1, np.nan], [2, 3]]])


def test_correlations_stay_within_bounds() -> None:
    """Holder's covariance alone would be 50 with variances of 50 and 25 (an example of PKNCA's test suite)."""
    means = AnimalMeans.of([[0, 0], [10, 10], [np.nan, 5]])
    assert means.spread[0, 1] == pytest.approx(math.sqrt(50 * 25), rel=1e-14)


# the area to infinity


def test_an_exponential_has_its_area() -> None:
    t = np.arange(0.0, 9.0)
    curve = np.exp(-0.7 * t)
    y = np.concatenate([8 * curve, 12 * curve])
    found = batch_aucinf(np.tile(t, 2), np.repeat([1, 2], 9), y)
    last = 10 * np.trapezoid(curve, t)
    assert found.estimate.value == pytest.approx(last + 10 * curve[-1] / 0.7, rel=1e-12)
    assert found.estimate.name == "aucinf_obs_sparse"
    # the animals differ by a factor only, so the area's error is that of the factor
    assert found.estimate.se / found.estimate.value == pytest.approx(2 / 10, rel=1e-10)
    assert found.estimate.flags == ("few",)


def test_a_curve_that_cannot_be_extrapolated_says_why() -> None:
    rising = batch_aucinf([0, 1, 2, 0, 1, 2], [1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 3, 4])
    assert math.isnan(rising.estimate.value)
    assert rising.estimate.reason
    assert math.isnan(rising.df)


def test_a_long_tail_is_flagged() -> None:
    t = np.array([0, 1, 2, 3.0])
    found = batch_aucinf(np.tile(t, 3), np.repeat([1, 2, 3], 4), np.outer([9, 10, 11], np.exp(-0.2 * t)).ravel())
    assert "extrapolated" in found.estimate.flags
