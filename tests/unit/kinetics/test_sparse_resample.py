"""The bootstrap of animals: its standard error, its intervals, and what it cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.designs import resample
from evbiodist.kinetics.designs.batch_design import batch_auc
from evbiodist.kinetics.designs.mean_curve import trapezoid_weights
from evbiodist.kinetics.designs.ratio import kp_paired
from evbiodist.kinetics.designs.resample import (
    INTERVALS,
    area_of_means,
    bootstrap,
    mean_of_animals,
    nca_of_means,
    ratio_of_means,
)

TIMES = np.array([0.5, 1.0, 2.0, 5.0])
W = trapezoid_weights(TIMES, np.ones(4))


area, error = area_of_means(W)


def serial(sizes: list[int], seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.repeat(np.eye(4, dtype=bool), sizes, axis=0)
    return np.where(mask, rng.lognormal(2, 0.4, mask.shape), np.nan)


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [3, 5, 2, 8]])
def test_the_standard_error_is_bailers(sizes: list[int]) -> None:
    """For a weighted sum of means the draws' variance is Bailer's, once it is put right for small n."""
    values = serial(sizes)
    who, at = np.nonzero(np.isfinite(values))
    bailer = batch_auc(TIMES[at], who, values[who, at]).estimate
    found = bootstrap(values, area, seed=3, draws=20_000)
    assert found.value == pytest.approx(bailer.value, rel=1e-13)
    # a standard deviation of 20,000 draws is good to 0.5 %; four of these
    assert found.se == pytest.approx(bailer.se, rel=0.02)
    plain = bootstrap(values, area, seed=3, draws=20_000, small_n=False)
    assert found.se == pytest.approx(plain.se * found.stretch, rel=1e-12)
    if len(set(sizes)) == 1:
        assert found.stretch == pytest.approx(math.sqrt(3 / 2), rel=1e-12)


def test_batches_are_drawn_as_whole_animals() -> None:
    """Every drawn study keeps the design, so that covariances of times stay in it."""
    mask = np.repeat([[True, False, True, False], [False, True, False, True]], 4, axis=0)
    base = np.random.default_rng(2).lognormal(1, 0.4, (8, 1))
    values = np.where(mask, base * np.array([4.0, 3, 2, 1]), np.nan)
    who, at = np.nonzero(np.isfinite(values))
    found = bootstrap(values, area, seed=3, draws=20_000)
    assert found.se == pytest.approx(batch_auc(TIMES[at], who, values[who, at]).estimate.se, rel=0.02)


def test_named_strata_and_strata_by_place_agree() -> None:
    values = serial([3, 3, 3, 3])
    one = bootstrap(values, area, seed=5, draws=300)
    other = bootstrap(values, area, seed=5, draws=300, strata=np.repeat([*"abcd"], 3))
    np.testing.assert_array_equal(one.draws, other.draws)


def test_the_seed_decides_and_memory_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = serial([3, 4, 3, 3])
    one = bootstrap(values, area, seed=5, error=error, draws=300)
    monkeypatch.setattr(resample, "_BLOCK", 7 * values.size)
    again = bootstrap(values, area, seed=5, error=error, draws=300)
    np.testing.assert_array_equal(one.draws, again.draws)
    assert [one.interval(k) for k in INTERVALS] == [again.interval(k) for k in INTERVALS]
    assert bootstrap(values, area, seed=6, draws=300).interval("basic") != one.interval("basic")


def test_intervals_follow_the_unit() -> None:
    values = serial([4, 4, 4, 4])
    one = bootstrap(values, area, seed=5, error=error, draws=500)
    thousand = bootstrap(1000 * values, area, seed=5, error=error, draws=500)
    for kind in INTERVALS:
        np.testing.assert_allclose(thousand.interval(kind), 1000 * np.array(one.interval(kind)), rtol=1e-9)


def test_basic_mirrors_percentile_and_t_is_worked_by_hand() -> None:
    found = bootstrap(serial([4, 4, 4, 4]), area, seed=5, error=error, draws=999)
    low, high = found.interval("percentile", 0.9)
    assert found.interval("basic", 0.9) == pytest.approx((2 * found.value - high, 2 * found.value - low), rel=1e-14)
    order = np.sort(found.studentised)
    # the 5th and 95th of 100 parts of 999 draws: the 50th and the 950th in order
    by_hand = found.value - order[949] * found.error, found.value - order[49] * found.error
    assert found.interval("t", 0.9) == pytest.approx(by_hand, rel=1e-14)
    assert found.error == pytest.approx(float(error(serial([4, 4, 4, 4])[None])[0]), rel=1e-14)


def test_intervals_of_lower_level_lie_within() -> None:
    found = bootstrap(serial([4, 4, 4, 4]), area, seed=5, error=error, draws=999)
    for kind in INTERVALS:
        low, high = found.interval(kind)
        inner_low, inner_high = found.interval(kind, 0.8)
        assert low < inner_low < found.value < inner_high < high


def test_acceleration_of_several_samples_by_hand() -> None:
    """Davison & Hinkley (1997): sum of l^3 / n^3 over 6 (sum of l^2 / n^2)^1.5, with l = w (y - mean) for a weighted sum."""
    values = serial([3, 5, 2, 6])
    found = bootstrap(values, area, seed=5, draws=100)
    cubes = squares = 0.0
    for j in range(4):
        y = values[np.isfinite(values[:, j]), j]
        cubes += (W[j] ** 3 * (y - y.mean()) ** 3).sum() / y.size**3
        squares += (W[j] ** 2 * (y - y.mean()) ** 2).sum() / y.size**2
    assert found.skewness == pytest.approx(cubes / (6 * squares**1.5), rel=1e-9)


def test_three_complete_animals_leave_the_t_interval_open() -> None:
    """One draw in nine takes one animal three times, and has no error of its own."""
    values = np.array([[4.0, 3, 2, 1], [6, 5, 3, 2], [9, 6, 4, 2]])
    found = bootstrap(values, area, seed=1, error=error, draws=2000)
    assert found.interval("t") == (-math.inf, math.inf)
    estimate = found.estimate("auclast_sparse")
    assert estimate.reason == "the interval is open: too many draws took one animal all the time"
    assert math.isnan(estimate.ci_low)
    assert math.isfinite(estimate.se)
    assert all(map(math.isfinite, found.interval("t", 0.8)))


def test_equal_animals_have_no_spread() -> None:
    found = bootstrap(np.tile([4.0, 3, 2, 1], (3, 1)), area, seed=1, error=error, draws=100)
    assert found.se == 0
    for kind in INTERVALS:
        assert found.interval(kind) == (found.value, found.value)


def test_a_time_of_one_animal_has_nothing_to_draw_from() -> None:
    found = bootstrap(serial([3, 1, 3, 3]), area, seed=1, error=error)
    assert math.isfinite(found.value)
    assert found.reason == "there is a time or batch of one animal, so nothing to draw from"
    estimate = found.estimate("auclast_sparse", "percentile")
    assert estimate.reason == found.reason
    assert math.isnan(estimate.se)
    assert math.isnan(estimate.ci_low)


def test_a_parameter_of_the_mean_curve() -> None:
    """All animals fall with the same half-life but for 5 %, so the mean curve's half-life is near it."""
    rng = np.random.default_rng(3)
    t = np.array([0.0, 1, 2, 4, 8])
    values = 10 * rng.lognormal(0, 0.3, (6, 1)) * np.exp(-0.35 * t) * rng.lognormal(0, 0.05, (6, 5))
    found = bootstrap(values, nca_of_means(t, "half_life", route="iv_bolus"), seed=1, draws=500)
    low, high = found.interval("percentile")
    assert low < math.log(2) / 0.35 < high
    assert high / low < 1.2
    assert found.estimate("half_life", "bca", unit="h").method == "bootstrap of animals, bca interval, 500 draws"


def test_a_ratio_of_the_same_animals() -> None:
    """Tissue and blood are drawn together: the error is that of Fieller's linear form, with the covariance."""
    rng = np.random.default_rng(9)
    mask = np.repeat(np.eye(4, dtype=bool), 5, axis=0)[:, None, :]
    blood = rng.lognormal(2, 0.3, (20, 1, 4))
    values = np.where(mask, np.concatenate([0.4 * blood * rng.lognormal(0, 0.1, (20, 1, 4)), blood], axis=1), np.nan)
    nothing = np.zeros(4)
    ratio, ratio_error = ratio_of_means([W, nothing], [nothing, W])
    found = bootstrap(values, ratio, seed=2, error=ratio_error, draws=10_000)
    who, at = np.nonzero(np.isfinite(values[:, 0]))
    paired = kp_paired(TIMES[at], who, values[who, 0, at], values[who, 1, at], from_zero=(False, False)).ratio
    assert found.value == pytest.approx(paired.value, rel=1e-13)
    assert found.error == pytest.approx(paired.se, rel=1e-10)
    # the ratio is not linear, and 10,000 draws are good to 0.7 %
    assert found.se == pytest.approx(paired.se, rel=0.05)


def test_a_table_without_an_error_of_its_own_has_no_t_interval() -> None:
    values = serial([4, 4, 4, 4])
    found = bootstrap(values, area, seed=1, draws=100, error=lambda v: np.where(len(v) > 1, error(v), np.nan))
    assert found.estimate("auc").reason == "the animals as they are have no standard error, so no t interval"
    assert not found.estimate("auc", "bca").reason


def test_draws_without_the_quantity_are_counted() -> None:
    """A quantity that exists in nearly all draws keeps its interval; one that often does not has none."""
    values = serial([4, 4, 4, 4])
    whole = bootstrap(values, area, seed=1, draws=1000)
    limits = np.quantile(whole.value + (whole.draws - whole.value) / whole.stretch, [0.98, 0.8])

    def below(limit: float) -> resample.Statistic:
        return lambda v: np.where(area(v) <= limit, area(v), np.nan)

    rarely, often = (bootstrap(values, below(x), seed=1, draws=1000) for x in limits)
    assert rarely.lost == pytest.approx(0.02, abs=0.002)
    assert math.isfinite(rarely.interval("percentile")[0])
    assert often.reason == "the quantity does not exist in 20% of the draws, so no interval"
    assert math.isnan(often.interval("percentile")[0])
    never = bootstrap(values, below(0), seed=1, draws=100)
    assert never.reason == "the quantity does not exist for these animals"
    assert math.isnan(never.estimate("auc", "basic").value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": [1, 2, 3]}, r"values has shape \(3,\), expected animals by times"),
        ({"draws": 10}, "draws has 10, expected at least 100"),
        ({"strata": ["a"]}, "strata has 1 entries, expected 2"),
        ({"statistic": np.mean}, r"statistic gives shape \(\) for 1 studies, expected \(1,\)"),
    ],
)
def test_what_a_bootstrap_refuses(change: dict, words: str) -> None:
    given = {"values": [[1.0], [2.0]], "statistic": lambda v: mean_of_animals(v)[:, 0], "seed": 1} | change
    with pytest.raises(ValueError, match=words):
        bootstrap(**given)


def test_what_an_interval_refuses() -> None:
    found = bootstrap([[1.0], [2.0]], lambda v: mean_of_animals(v)[:, 0], seed=1, draws=100)
    with pytest.raises(ValueError, match="interval has 'bayes', expected one of percentile, basic, t, bca"):
        found.interval("bayes")
    with pytest.raises(ValueError, match="'t' without a standard error of each draw; give error="):
        found.interval("t")
    with pytest.raises(ValueError, match="level has 95"):
        found.interval("basic", 95)
