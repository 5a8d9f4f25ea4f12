"""Labels within studies: the model by other means, what falls back and why, and many random truths."""

import math

import numpy as np
import pytest
from scipy import stats

from evbiodist.crossval.consensus import random_effects
from evbiodist.crossval.studies import over_studies
from evbiodist.study.estimate import Estimate


def seen(*rows):
    """Return estimates from (study, label, value, se)."""
    return {(study, label): Estimate("uptake", value, se, unit="pct_id") for study, label, value, se in rows}


SIX = seen(
    ("a", "dir", 1.0, 0.1), ("a", "zr89", 1.3, 0.2), ("b", "dir", 2.0, 0.1), ("b", "zr89", 2.6, 0.3), ("c", "dir", 0.4, 0.1),
    ("c", "nluc", 0.9, 0.2),
)  # fmt: skip


def restricted(estimates, var_study, var_label):
    """Return the restricted log likelihood by the full covariance matrix, and mean and its variance."""
    keys = sorted(estimates)
    y = np.array([estimates[key].value for key in keys])
    same = np.array([[one[0] == other[0] for other in keys] for one in keys])
    v = np.diag([estimates[key].se ** 2 + var_label for key in keys]) + var_study * same
    inverse = np.linalg.inv(v)
    information = inverse.sum()
    mean = inverse.sum(axis=0) @ y / information
    q = (y - mean) @ inverse @ (y - mean)
    loss = np.linalg.slogdet(v)[1] + math.log(information) + q + (y.size - 1) * math.log(2 * math.pi) - math.log(y.size)
    return -loss / 2, mean, 1 / information


def test_the_closed_form_is_the_full_matrix():
    found = over_studies(SIX)
    likelihood, mean, variance = restricted(SIX, found.var_study, found.var_label)
    assert found.log_likelihood == pytest.approx(likelihood, rel=1e-10)
    assert (found.estimate, found.se) == pytest.approx((mean, math.sqrt(variance)), rel=1e-10)


def test_no_other_variances_are_likelier():
    found = over_studies(SIX)
    for a in np.linspace(0, 3, 25):
        for b in np.linspace(0, 1, 25):
            assert restricted(SIX, a, b)[0] <= found.log_likelihood + 1e-9


def test_intervals_have_as_many_degrees_of_freedom_as_studies_less_one():
    found, normal = over_studies(SIX), over_studies(SIX, normal=True)
    assert found.ci_high - found.estimate == pytest.approx(stats.t(2).ppf(0.975) * found.se)
    assert normal.ci_high - normal.estimate == pytest.approx(stats.norm.ppf(0.975) * normal.se)
    reach = math.sqrt(found.var_study + found.var_label + found.se**2)
    assert found.prediction_high - found.estimate == pytest.approx(stats.t(2).ppf(0.975) * reach)


def test_units_and_offsets_do_not_matter():
    scaled = {key: Estimate("uptake", 1e9 + 1e6 * e.value, 1e6 * e.se) for key, e in SIX.items()}
    one, other = over_studies(SIX), over_studies(scaled)
    assert (other.estimate - 1e9) / 1e6 == pytest.approx(one.estimate, rel=1e-6)
    assert (other.se, other.var_study, other.var_label) == pytest.approx(
        (1e6 * one.se, 1e12 * one.var_study, 1e12 * one.var_label), rel=1e-4
    )
    assert other.i2_study == pytest.approx(one.i2_study, rel=1e-4)


def test_the_log_scale_counts_in_factors():
    logs = {key: Estimate("uptake", math.exp(e.value), math.exp(e.value) * e.se) for key, e in SIX.items()}
    one, other = over_studies(SIX), over_studies(logs, scale="log")
    assert other.estimate == pytest.approx(math.exp(one.estimate), rel=1e-6)
    assert other.prediction_low == pytest.approx(math.exp(one.prediction_low), rel=1e-5)
    assert other.se == pytest.approx(other.estimate * one.se, rel=1e-5)
    assert other.method.endswith("log scale")


def test_one_study_is_the_consensus_of_its_labels():
    found = over_studies(seen(("a", "dir", 1.0, 0.1), ("a", "zr89", 1.5, 0.2), ("a", "nluc", 2.5, 0.2)))
    pooled = random_effects([1.0, 2.5, 1.5], [0.1, 0.2, 0.2])
    assert (found.estimate, found.se, found.var_label) == pytest.approx((pooled.estimate, pooled.se, pooled.tau2))
    assert math.isnan(found.var_study)
    assert found.reason == "one study only, so nothing is known of the spread between studies"
    assert "few" in found.flags


def test_one_label_a_study_is_the_consensus_of_the_studies():
    found = over_studies(seen(("a", "dir", 1.0, 0.1), ("b", "dir", 1.5, 0.2), ("c", "nluc", 2.5, 0.2)))
    assert found.var_study == pytest.approx(random_effects([1.0, 1.5, 2.5], [0.1, 0.2, 0.2]).tau2)
    assert math.isnan(found.var_label)
    assert found.reason.startswith("one label in every study")


def test_one_estimate_and_none():
    assert over_studies(seen(("a", "dir", 1.0, 0.1))).estimate == 1
    none = over_studies({("a", "dir"): Estimate("uptake", reason="no scan")})
    assert (none.n, none.reason) == (0, "no estimates to pool")
    assert none.left_out == ((("a", "dir"), "no scan"),)
    assert over_studies({}).reason == "no estimates to pool"


def test_what_cannot_be_pooled_is_named():
    found = over_studies({**SIX, ("d", "dir"): Estimate("uptake", 3.0, unit="pct_id")})
    assert found.left_out == ((("d", "dir"), "not pooled: no standard error"),)
    assert (found.n_studies, found.n) == (3, 6)


@pytest.mark.parametrize(
    ("estimates", "options", "says"),
    [
        ({**SIX, ("d", "dir"): Estimate("uptake", 3.0, 0.1, unit="bq")}, {}, r"'bq' \(d / dir\), expected one"),
        (SIX, {"scale": "ln"}, "scale: found 'ln'"),
        (SIX, {"level": 95}, "level: found 95"),
    ],
)
def test_refusals(estimates, options, says):
    with pytest.raises(ValueError, match=says):
        over_studies(estimates, **options)


def test_intervals_hold_the_truth():
    """80 random designs of 3 to 8 studies with 1 to 4 labels each; bias and coverage, of a further label too."""
    rng = np.random.default_rng(11)
    held, next_held, off = [], [], []
    while len(held) < 80:
        labels = rng.integers(1, 5, rng.integers(3, 9))
        if labels.max() == 1:
            continue
        between, within = rng.uniform(0, 1.5, 2)
        estimates = {}
        for study, m in enumerate(labels):
            centre = 5 + between * rng.normal()
            for label in range(m):
                se = rng.uniform(0.1, 0.6)
                value = centre + within * rng.normal() + se * rng.normal()
                estimates[str(study), str(label)] = Estimate("uptake", value, se)
        found = over_studies(estimates)
        further = 5 + math.hypot(between, within) * rng.normal()
        held.append(found.ci_low <= 5 <= found.ci_high)
        next_held.append(found.prediction_low <= further <= found.prediction_high)
        off.append(found.estimate - 5)
    assert 0.90 <= np.mean(held) <= 0.995
    assert 0.90 <= np.mean(next_held) <= 0.995
    assert abs(np.mean(off)) < 3 * np.std(off) / math.sqrt(len(off))
