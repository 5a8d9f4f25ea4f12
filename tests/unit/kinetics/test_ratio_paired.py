"""Fieller's interval with a covariance, and the ratio of tissue and blood of the same animals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.designs.ratio import kp, kp_paired
from evbiodist.kinetics.designs.sparse import bailer
from evbiodist.study.estimate import Estimate

RNG = np.random.default_rng(4)
Z2 = 1.959963984540054**2


def area(value: float, se: float, unit: str = "") -> Estimate:
    return Estimate("auclast", value, se, unit=unit)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.99, 1.0])
def test_bounds_are_where_the_linear_form_is_as_far_from_zero_as_the_level_allows(correlation: float) -> None:
    for _ in range(20):
        a, b = RNG.uniform(5, 50, 2)
        sa, sb = a * RNG.uniform(0.05, 0.4), b * RNG.uniform(0.05, 0.4)
        cov = correlation * sa * sb
        found = kp(area(a, sa), area(b, sb), covariance=cov, df=math.inf)
        for r in (found.ci_low, found.ci_high):
            assert (a - r * b) ** 2 == pytest.approx(Z2 * (sa**2 - 2 * r * cov + r**2 * sb**2), rel=1e-6, abs=1e-9)
        assert found.ci_low <= found.value <= found.ci_high
        assert found.se == pytest.approx(math.sqrt(max(sa**2 - 2 * a / b * cov + (a / b * sb) ** 2, 0)) / b, rel=1e-9)


def test_tissue_that_is_a_share_of_blood_has_a_sharp_ratio() -> None:
    found = kp(area(20, 4), area(10, 2), covariance=8)
    assert (found.value, found.se, found.ci_low, found.ci_high) == (2, 0, 2, 2)


def test_blood_near_zero_leaves_the_interval_open_above() -> None:
    """Ratios above the lower bound are all in the interval, those below are not."""
    a, b, sa, sb, cov = 30.0, 4.0, 2.0, 3.0, 1.0
    found = kp(area(a, sa), area(b, sb), covariance=cov, df=math.inf)
    assert found.reason == "the interval is open above: the blood area is not distinguishable from zero"
    assert math.isnan(found.ci_high)
    r = np.linspace(0, 1000, 200_001)
    inside = (a - r * b) ** 2 <= Z2 * (sa**2 - 2 * r * cov + r**2 * sb**2)
    assert r[inside].min() == pytest.approx(found.ci_low, abs=0.005)
    assert inside[r > found.ci_low].all()


def test_both_near_zero_leave_the_interval_open() -> None:
    found = kp(area(3, 2), area(4, 3))
    assert found.reason == "the interval is open: the blood area is not distinguishable from zero"
    assert math.isnan(found.ci_low)
    assert math.isnan(found.ci_high)
    assert found.value == 0.75


def test_a_covariance_takes_the_smaller_freedom_unless_told() -> None:
    parts = area(20, 2), area(10, 1)
    assert kp(*parts, covariance=1, df_tissue=9, df_blood=3) == kp(*parts, covariance=1, df=3)
    assert kp(*parts, df_tissue=9, df_blood=3).ci_high < kp(*parts, df=3).ci_high


def test_what_a_ratio_refuses() -> None:
    with pytest.raises(
        ValueError, match="covariance has 3, expected at most 2, the product of the two standard errors"
    ):
        kp(area(20, 2), area(10, 1), covariance=3)
    with pytest.raises(ValueError, match="level has 95"):
        kp(area(20, 2), area(10, 1), 95)
    assert "no standard error" in kp(area(20, 2), area(10, 1), df=math.nan).reason


def test_serial_sacrifice_by_loops() -> None:
    """Cov = sum w_j v_j s_jj / n_j; degrees of freedom are Bailer's for the differences of the animals."""
    hours, n = [0.5, 2, 8], [4, 3, 5]
    blood = [RNG.lognormal(1, 0.3, k) for k in n]
    tissue = [0.3 * b * RNG.lognormal(0, 0.2, b.size) for b in blood]
    found = kp_paired(np.repeat(hours, n), range(12), np.concatenate(tissue), np.concatenate(blood))
    a, b = bailer(hours, tissue, from_zero=True), bailer(hours, blood)
    assert found.tissue.value == pytest.approx(a.estimate.value, rel=1e-13)
    assert found.blood.se == pytest.approx(b.estimate.se, rel=1e-12)
    cov = sum(
        w * v * np.cov(x, y)[0, 1] / len(x) for w, v, x, y in zip(a.weights, b.weights, tissue, blood, strict=True)
    )
    assert found.covariance == pytest.approx(cov, rel=1e-12)
    assert found.correlation == pytest.approx(cov / a.estimate.se / b.estimate.se, rel=1e-12)
    r = a.estimate.value / b.estimate.value
    parts = [
        np.var(w * x - r * v * y, ddof=1) / len(x)
        for w, v, x, y in zip(a.weights, b.weights, tissue, blood, strict=True)
    ]
    df = sum(parts) ** 2 / sum(p**2 / (k - 1) for p, k in zip(parts, n, strict=True))
    assert found.df == pytest.approx(df, rel=1e-10)
    whole = kp(a.estimate, b.estimate, covariance=cov, df=df)
    assert found.ratio.ci_low == pytest.approx(whole.ci_low, rel=1e-9)
    assert found.ratio.ci_high == pytest.approx(whole.ci_high, rel=1e-9)
    assert found.ratio.n == 12


def test_tissue_and_blood_of_different_animals_have_no_covariance() -> None:
    t, nan = [1, 1, 4, 4], [math.nan] * 4
    found = kp_paired(t * 2, [*"abcdefgh"], [4, 6, 1, 2, *nan], [*nan, 9, 12, 3, 4])
    assert found.covariance == 0
    parts = bailer([1, 4], [[4, 6], [1, 2]], from_zero=True), bailer([1, 4], [[9, 12], [3, 4]])
    plain = kp(parts[0].estimate, parts[1].estimate, df_tissue=parts[0].df, df_blood=parts[1].df)
    assert found.ratio.ci_low == pytest.approx(plain.ci_low, rel=1e-12)
    assert found.ratio.ci_high == pytest.approx(plain.ci_high, rel=1e-12)


def test_areas_go_to_the_last_time_at_which_both_were_seen() -> None:
    """Blood was also sampled at 0.1 h, and tissue seen at 24 h when blood was not any more."""
    nan = math.nan
    t = [0.1, 0.1, 1, 1, 6, 6, 24, 24]
    tissue = [nan, nan, 4, 6, 2, 3, 1, 2]
    blood = [50, 60, 10, 14, 2, 3, 0, 0]
    found = kp_paired(t, range(8), tissue, blood)
    assert found.tissue.value == pytest.approx(5 / 2 + 5 * (5 + 2.5) / 2, rel=1e-14)
    assert found.blood.value == pytest.approx(0.9 * (55 + 12) / 2 + 5 * (12 + 2.5) / 2, rel=1e-14)
    assert found.tissue.n == 4
    assert found.blood.n == 6


def test_values_below_the_limit_follow_the_rule() -> None:
    t, who = [1, 1, 1, 4, 4, 4, 9, 9, 9], range(9)
    tissue, blood = [4, 6, 5, 3, 4, 2, 0, 0, 1], [9, 12, 10, 3, 4, 5, 1, 2, 3]
    low = [False] * 6 + [True, True, False]
    ended = kp_paired(t, who, tissue, blood, tissue_below=low)
    assert ended.tissue.value == pytest.approx(2.5 + 3 * 4, rel=1e-14)
    whole = kp_paired(t, who, tissue, blood, tissue_below=low, majority_blq="mean")
    assert whole.tissue.value == pytest.approx(2.5 + 3 * 4 + 5 * (3 + 1 / 3) / 2, rel=1e-14)


def test_units_of_a_ratio() -> None:
    found = kp_paired([1, 1, 4, 4], [*"abcd"], [4, 6, 1, 2], [9, 12, 3, 4], unit="ng/g", blood_unit="ng/mL")
    assert found.ratio.unit == "mL/g"
    assert found.tissue.unit == "ng*h/g"
    assert kp_paired([1, 1, 4, 4], [*"abcd"], [4, 6, 1, 2], [9, 12, 3, 4], unit="pct_id_per_g").ratio.unit == "1"


def test_one_animal_at_a_time_leaves_the_ratio_without_an_error() -> None:
    found = kp_paired([1, 1, 4], [*"abc"], [4, 6, 1], [9, 12, 3])
    assert found.ratio.value > 0
    assert found.ratio.reason == "an area has no standard error, so no uncertainty"
    assert math.isnan(found.covariance)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tissue": [1, 2, 3]}, r"tissue has shape \(3,\), expected \(4,\) as time_h"),
        ({"tissue": [math.nan] * 4}, "tissue has no value, expected samples of at least two times"),
        ({"blood_below": [True]}, r"blood has shape \(4,\), expected .* as time_h"),
        ({"blood": [0, 0, 0, 0]}, "no time at which both means are above zero"),
        ({"subject": ["a", "a", "c", "d"]}, "subject has a 2 times at 1 h"),
    ],
)
def test_what_a_paired_ratio_refuses(change: dict, words: str) -> None:
    given = {
        "time_h": [1, 1, 4, 4], "subject": [*"abcd"], "tissue": [4, 6, 1, 2], "blood": [9, 12, 3, 4],
        "blood_below": None,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=words):
        kp_paired(**given)


def test_normal_pairs_are_covered() -> None:
    """1,500 studies of five animals with complete curves: Fieller is exact for normal errors.

    95 % within four standard errors of a share, 2.3 %; without the covariance the interval is far too wide.
    """
    studies, n = 1500, 5
    rng = np.random.default_rng(8)
    both = rng.multivariate_normal([20, 40], [[4, 3.4], [3.4, 4]], (studies, n))
    held = held_without = 0
    for study in both:
        a, b = study.T
        parts = area(a.mean(), a.std(ddof=1) / math.sqrt(n)), area(b.mean(), b.std(ddof=1) / math.sqrt(n))
        cov = np.cov(a, b)[0, 1] / n
        found = kp(*parts, covariance=cov, df=n - 1)
        held += found.ci_low <= 0.5 <= found.ci_high
        plain = kp(*parts, df_tissue=n - 1, df_blood=n - 1)
        held_without += plain.ci_low <= 0.5 <= plain.ci_high
    assert held / studies == pytest.approx(0.95, abs=0.023)
    assert held_without / studies > 0.97
