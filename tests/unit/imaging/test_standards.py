"""Standard curves against certified and published numbers, and over many random truths."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from evbiodist.imaging.standards import Standards, fit_standards, read_standards
from evbiodist.study.flags import FLAGS
from evbiodist.study.problems import InputError

# NIST StRD linear regression, Norris: calibration of ozone monitors (itl.nist.gov/div898/strd/lls/data/Norris.shtml)
NORRIS_X = [0.2, 337.4, 118.2, 884.6, 10.1, 226.5, 666.3, 996.3, 448.6, 777.0, 558.2, 0.4, 0.6, 775.5, 666.9, 338.0,
            447.5, 11.6, 556.0, 228.1, 995.8, 887.6, 120.2, 0.3, 0.3, 556.8, 339.1, 887.2, 999.0, 779.0, 11.1, 118.3,
            229.2, 669.1, 448.9, 0.5]  # fmt: skip
NORRIS_Y = [0.1, 338.8, 118.1, 888.0, 9.2, 228.1, 668.5, 998.5, 449.1, 778.9, 559.2, 0.3, 0.1, 778.1, 668.8, 339.3,
            448.9, 10.8, 557.7, 228.3, 998.0, 888.8, 119.6, 0.3, 0.6, 557.6, 339.3, 888.0, 998.5, 778.9, 10.2, 117.6,
            228.9, 668.4, 449.2, 0.2]  # fmt: skip
# Massart 1997, Handbook of Chemometrics and Qualimetrics A, chapter 8, examples 1 and 3 (means of five)
X = np.arange(0.0, 60, 10)
EXAMPLE_1 = Standards(X, np.array([4, 21.2, 44.6, 61.8, 78, 105.2]), "ng")
WEIGHTS_3 = np.array([1.984, 1.417, 1.262, 0.372, 0.199, 0.109])


def of(x, y, **more):
    return Standards(np.asarray(x, float), np.asarray(y, float), "ng", **more)


# --- numbers from outside


def test_nist_norris():
    curve = fit_standards(of(NORRIS_X, NORRIS_Y))
    assert curve.intercept == pytest.approx(-0.262323073774029, rel=1e-10)
    assert curve.slope == pytest.approx(1.00211681802045, rel=1e-12)
    assert curve.intercept_se == pytest.approx(0.232818234301152, rel=1e-10)
    assert curve.slope_se == pytest.approx(0.429796848199937e-03, rel=1e-10)
    assert curve.residual_sd == pytest.approx(0.884796396144373, rel=1e-10)
    assert curve.r2 == pytest.approx(0.999993745883712, rel=1e-13)


def test_nist_noint1():
    """NIST StRD NoInt1: a line through the origin, r2 about 0."""
    curve = fit_standards(of(np.arange(60, 71), np.arange(130, 141)), intercept=False)
    assert curve.slope == pytest.approx(2.07438016528926, rel=1e-12)
    assert curve.slope_se == pytest.approx(0.165289256198347e-01, rel=1e-10)
    assert curve.residual_sd == pytest.approx(3.56753034006338, rel=1e-10)
    assert curve.r2 == pytest.approx(0.999365492298663, rel=1e-12)
    assert (curve.intercept, curve.intercept_se) == (0, 0)


@pytest.mark.parametrize(("response", "repeats", "value", "se"), [
    (15, 1, 6.09381, 1.767278), (90, 1, 43.93983, 1.767747), (90, 5, 43.93983, 1.141204),
])  # fmt: skip
def test_massart_inverse_prediction(response, repeats, value, se):
    """The book (p. 200) gives 6.1 +- 4.9, 43.9 +- 4.9, 43.9 +- 3.2; the R package chemCal the digits here."""
    curve = fit_standards(EXAMPLE_1)
    found = curve.inverse(response, None if repeats == 1 else curve.residual_sd / np.sqrt(repeats))
    assert found.value == pytest.approx(value, rel=1e-6)
    assert np.hypot(found.se, found.se_systematic) == pytest.approx(se, rel=1e-6)


@pytest.mark.parametrize(("response", "weight", "value", "se"), [
    (15, 1.67, 5.865367, 0.8926109), (90, 0.145, 44.06025, 2.829162),
])  # fmt: skip
def test_massart_weighted_inverse_prediction(response, weight, value, se):
    """Example 8 of the book: 5.9 +- 2.5 and 44.1 +- 7.9; digits from chemCal's tests."""
    curve = fit_standards(replace(EXAMPLE_1, se=1 / np.sqrt(WEIGHTS_3)), weights="1/var")
    found = curve.inverse(response, curve.residual_sd / np.sqrt(weight))
    assert found.value == pytest.approx(value, rel=1e-6)
    assert np.hypot(found.se, found.se_systematic) == pytest.approx(se, rel=1e-6)


# --- the same by other means


@pytest.mark.parametrize(("weights", "power"), [("1", 0), ("1/x", 1), ("1/x2", 2)])
def test_agrees_with_polyfit(weights, power):
    rng = np.random.default_rng(1)
    x = np.repeat([1.0, 2, 5, 10, 50], 3)
    y = 3 + 2 * x * (1 + 0.05 * rng.normal(size=x.size))
    (slope, intercept), covariance = np.polyfit(x, y, 1, w=x ** (-power / 2), cov=True)
    curve = fit_standards(of(x, y), weights=weights)
    np.testing.assert_allclose([curve.slope, curve.intercept], [slope, intercept], rtol=1e-9)
    np.testing.assert_allclose(curve.covariance, covariance[::-1, ::-1], rtol=1e-7)


def test_lack_of_fit_is_the_comparison_with_free_levels():
    rng = np.random.default_rng(2)
    x = np.repeat([1.0, 2, 5, 10, 50], [3, 2, 4, 3, 2])
    y = 3 + 2 * x + 0.01 * x**2 + rng.normal(size=x.size)
    w = 1 / np.sqrt(x)
    free = (x[:, None] == np.unique(x)) * w[:, None]
    pure = np.linalg.lstsq(free, y * w, rcond=None)[1][0]
    whole = np.linalg.lstsq(np.column_stack([w, w * x]), y * w, rcond=None)[1][0]
    f = (whole - pure) / 3 / (pure / 9)
    curve = fit_standards(of(x, y), weights="1/x")
    assert curve.lack_of_fit.f == pytest.approx(f)
    assert (curve.lack_of_fit.df_lack, curve.lack_of_fit.df_pure) == (3, 9)
    assert curve.lack_of_fit.p == pytest.approx(stats.f.sf(f, 3, 9))
    assert curve.pure_sd == pytest.approx(np.sqrt(pure / 9))


def test_fieller_is_where_the_prediction_band_meets_the_response():
    curve = fit_standards(EXAMPLE_1)
    found, q = curve.inverse(30.0), stats.t.ppf(0.975, 4)

    def beyond(x):
        band = curve.residual_sd * np.sqrt(1 + 1 / 6 + (x - 25) ** 2 / 1750)
        return abs(30 - curve.response(x)) - q * band

    assert found.ci_low == pytest.approx(optimize.brentq(beyond, -20, found.value), rel=1e-9)
    assert found.ci_high == pytest.approx(optimize.brentq(beyond, found.value, 60), rel=1e-9)


def test_limits_follow_ich_in_all_three_ways():
    blanks = np.array([1.0, 3.0, 2.0, 4.0, 2.5])
    curve = fit_standards(replace(EXAMPLE_1, blanks=blanks), sigma_from="blank")
    sigma = {"residual": curve.residual_sd, "intercept": curve.intercept_se, "blank": blanks.std(ddof=1)}
    for limit in curve.limits:
        assert limit.sigma == pytest.approx(sigma.pop(limit.method))
        assert limit.lod == pytest.approx(3.3 * limit.sigma / curve.slope)
        assert limit.loq == pytest.approx(10 * limit.sigma / curve.slope)
    assert not sigma
    assert curve.loq == pytest.approx(10 * blanks.std(ddof=1) / curve.slope)
    assert "sigma of the limits is that of the blank" in curve.notes


def test_a_weighted_curve_has_the_limit_of_its_lowest_standard():
    rng = np.random.default_rng(3)
    x = np.repeat([1.0, 10, 100, 1000], 30)
    y = 5 * x * (1 + 0.05 * rng.normal(size=x.size))
    curve = fit_standards(of(x, y), weights="1/x2")
    assert curve.lod == pytest.approx(3.3 * 0.05, rel=0.15)
    assert fit_standards(of(x, y)).lod > 30 * curve.lod


def test_accuracy_and_precision_of_every_level():
    x, y = [0, 0, 10, 10, 20, 20], [0.1, -0.1, 11, 9, 20, 20]
    curve = fit_standards(of(x, y))
    found = (np.array(y) - curve.intercept) / curve.slope
    zero, ten, twenty = curve.levels
    assert np.isnan([zero.accuracy_pct, zero.cv_pct]).all()
    assert ten.accuracy_pct == pytest.approx(10 * found[2:4].mean())
    assert ten.cv_pct == pytest.approx(100 * found[2:4].std(ddof=1) / found[2:4].mean())
    assert (twenty.amount, twenty.n, twenty.cv_pct) == (20, 2, 0)


# --- over many random truths


def random_study(rng, scheme):
    """Return standards, keywords, the true response function and the noise of one response."""
    slope = 10 ** rng.uniform(-2, 6)
    if scheme == "linear":
        levels, sd = np.arange(0, 60, 10.0), slope * rng.uniform(0.5, 2)
        return levels, {}, lambda x: slope * (x + 3), lambda x: np.full(np.shape(x), sd)
    relative, levels = rng.uniform(0.02, 0.08), 10 ** np.arange(0, 3.1, 0.5)
    if scheme == "1/x2":
        return levels, {"weights": "1/x2"}, lambda x: slope * (x + 0.5), lambda x: relative * slope * np.asarray(x)
    power = rng.uniform(0.7, 1.1)
    return levels, {"scale": "log"}, lambda x: slope * x**power, None


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("scheme", ["linear", "1/x2", "log"])
def test_bias_and_coverage_of_amounts(scheme, given):
    """Coverage of Fieller's 95 % interval and bias in standard errors, with and without a stated response error."""
    rng = np.random.default_rng(4)
    hits, z, trials, bent = [], [], 300, 0
    for _ in range(trials):
        levels, options, expected, noise = random_study(rng, scheme)
        relative = rng.uniform(0.02, 0.08)

        def measure(x, expected=expected, noise=noise, relative=relative):
            y = expected(np.asarray(x))
            return y * np.exp(relative * rng.normal(size=np.shape(x))) if noise is None else y + noise(x) * rng.normal(
                size=np.shape(x))  # fmt: skip

        x = np.repeat(levels, 2)
        curve = fit_standards(of(x, measure(x)), **options)
        truth = rng.uniform(levels[1], levels[-1]) if scheme == "linear" else 10 ** rng.uniform(0, 3)
        response = float(measure(truth))
        se = None
        if given:
            se = float(relative * response if noise is None else noise(truth))
        found = curve.inverse(response, se)
        hits.append(found.ci_low < truth < found.ci_high)
        z.append((found.value - truth) / np.hypot(found.se, found.se_systematic))
        bent += "not_linear" in curve.flags
    assert abs(np.mean(hits) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / trials)
    assert abs(np.median(z)) < 4 / np.sqrt(trials)
    assert bent / trials < 0.03  # 1 % expected


def test_false_positives_and_misses_at_the_detection_limit():
    """With sigma well known, a blank passes 3.3 sigma once in two thousand, and half of it 5 times in a hundred."""
    rng = np.random.default_rng(5)
    above, decided, missed = [], [], []
    for _ in range(150):
        x = np.repeat(np.arange(0, 60, 10.0), 10)
        curve = fit_standards(of(x, 4 + 2 * x + 3 * rng.normal(size=x.size)))
        blanks = 4 + 3 * rng.normal(size=1000)
        above.append(np.mean((blanks - curve.intercept) / curve.slope > curve.lod))
        decided.append(np.mean((blanks - curve.intercept) / curve.slope > curve.lod / 2))
        samples = 4 + 2 * curve.lod + 3 * rng.normal(size=1000)
        missed.append(np.mean((samples - curve.intercept) / curve.slope < curve.lod / 2))
    assert np.mean(above) < 0.003
    assert 0.04 < np.mean(decided) < 0.07
    assert 0.04 < np.mean(missed) < 0.07


# --- what an amount carries


def test_below_the_limit_the_value_stays_and_is_flagged():
    curve = fit_standards(EXAMPLE_1)
    found = curve.inverse(5.0, 0.5)
    assert found.value == pytest.approx((5 - curve.intercept) / curve.slope)
    assert (found.below_lloq, found.lloq, found.unit) == (True, curve.loq, "ng")
    assert "below_lloq" in found.flags
    negative = curve.inverse(-5.0, 0.5)
    assert negative.value < 0
    assert {"below_lloq", "negative"} <= set(negative.flags)


def test_above_the_highest_standard_it_is_said():
    curve = fit_standards(EXAMPLE_1)
    assert "above_range" in curve.inverse(200.0).flags
    assert "above_range" not in curve.inverse(80.0).flags
    assert {"above_range", "not_linear"} <= set(FLAGS)


def test_a_curve_cannot_be_read_where_its_slope_may_be_nothing():
    curve = fit_standards(of([1, 1, 2, 2, 3, 3], [5.8, 6.2, 6.7, 7.3, 7.8, 8.2]))
    found = curve.inverse(7.0, 0.1, level=1 - 1e-9)
    assert np.isnan(found.ci_low)
    assert found.reason.startswith("the interval is open")
    assert np.isfinite(found.value)


def test_zero_error_of_an_exact_curve():
    found = fit_standards(of([1, 2, 3], [2, 4, 6])).inverse(5.0, 0.2)
    assert (found.value, found.se) == (pytest.approx(2.5), pytest.approx(0.1))
    assert found.ci_high - found.value == pytest.approx(1.96 * 0.1, rel=1e-3)


def test_log_curves_read_dim_responses_as_below():
    x = np.array([1.0, 10, 100, 1000])
    curve = fit_standards(of(x, 7 * x**0.9 * np.array([1.02, 0.99, 1.0, 1.01])), scale="log")
    found = curve.inverse(-3.0)
    assert np.isnan(found.value)
    assert found.below_lloq
    assert found.reason == "a response of -3 has no logarithm"
    assert curve.loq == 1
    assert any("the lowest standard, 1, serves as LOQ" in note for note in curve.notes)
    assert curve.inverse(curve.response(50.0)).value == pytest.approx(50)


def test_log_curves_take_their_limits_from_blanks():
    x = np.array([1.0, 10, 100, 1000])
    blanks = np.array([0.5, 0.7, 0.6, 0.4])
    curve = fit_standards(
        of(x, 7 * x * np.array([1.02, 0.99, 1.0, 1.01]), blanks=blanks), scale="log", sigma_from="blank"
    )
    assert curve.response(curve.lod) == pytest.approx(blanks.mean() + 3.3 * blanks.std(ddof=1))
    assert curve.response(curve.loq) == pytest.approx(blanks.mean() + 10 * blanks.std(ddof=1))


# --- the shape of the curve


def test_a_saturating_curve_is_not_linear_and_its_range_is_found():
    rng = np.random.default_rng(7)
    x = np.repeat([1.0, 2, 5, 10, 20, 50, 100], 3)
    y = np.minimum(100 * x, 3000) * (1 + 0.01 * rng.normal(size=x.size))
    curve = fit_standards(of(x, y), weights="1/x2")
    assert "not_linear" in curve.flags
    assert curve.lack_of_fit.p < 1e-6
    assert curve.linear_range == (1, 20)
    assert "not_linear" in curve.inverse(500.0).flags


def test_a_straight_curve_is_linear_over_all_levels():
    assert fit_standards(of([1, 2, 5, 10, 20], [10, 20, 50, 100, 200.5])).linear_range == (1, 20)


def test_nothing_within_the_bias_gives_no_range():
    assert fit_standards(of([1, 2, 3, 4], [1, 3, 2.2, 4.5]), max_bias_pct=0.1, level=0.5).linear_range is None


def test_without_replicates_there_is_no_test():
    curve = fit_standards(EXAMPLE_1)
    assert np.isnan(curve.lack_of_fit.p)
    assert "no amount was measured twice" in curve.lack_of_fit.reason
    assert np.isnan(curve.pure_sd)
    equal = fit_standards(of([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3.1, 3.1]))
    assert "the replicates are equal" in equal.lack_of_fit.reason


def test_limits_that_cannot_be_had_give_the_reason():
    curve = fit_standards(EXAMPLE_1, sigma_from="blank")
    assert curve.loq == 10
    assert any("no limit from the blank: fewer than two blanks" in note for note in curve.notes)
    origin = fit_standards(EXAMPLE_1, intercept=False, sigma_from="intercept")
    assert any("the line has no intercept" in note for note in origin.notes)
    two = fit_standards(replace(EXAMPLE_1, blanks=[1.0, 2.0]), sigma_from="blank")
    assert "few" in two.flags


def test_units_of_response_and_amount_cancel():
    x, y = np.repeat([1.0, 5, 20, 50], 2), np.array([3.1, 2.9, 11, 10.5, 41, 40, 99, 103])
    for options in ({}, {"weights": "1/x"}, {"scale": "log"}):
        one, other = fit_standards(of(x, y), **options), fit_standards(of(1000 * x, 1e-6 * y), **options)
        a, b = one.inverse(30.0), other.inverse(30e-6)
        for name in ("value", "se", "se_systematic", "ci_low", "ci_high"):
            assert getattr(b, name) == pytest.approx(1000 * getattr(a, name), rel=1e-9)
        assert other.lack_of_fit.p == pytest.approx(one.lack_of_fit.p)


def test_means_of_n_weigh_like_their_members():
    x, y = [1, 2, 2, 5], [2.0, 4.2, 4.2, 9.7]
    members, means = fit_standards(of(x, y)), fit_standards(of([1, 2, 5], [2.0, 4.2, 9.7], n=[1, 2, 1]))
    assert (means.slope, means.intercept) == (pytest.approx(members.slope), pytest.approx(members.intercept))


def test_replicates_give_the_variances():
    x = np.repeat([1.0, 10, 100], 3)
    y = np.array([2, 2.2, 1.8, 20, 21, 19, 200, 220, 180])
    by_replicates = fit_standards(of(x, y), weights="1/var")
    stated = fit_standards(of(x, y, se=np.repeat([0.2, 1, 20], 3)), weights="1/var")
    assert by_replicates.slope == pytest.approx(stated.slope)
    assert any("fewer than five replicates" in note for note in by_replicates.notes)
    assert not any("fewer than five replicates" in note for note in stated.notes)
    assert by_replicates.inverse(20.0).se == pytest.approx(
        by_replicates.residual_sd * 1 / by_replicates.slope, rel=0.05
    )


@pytest.mark.parametrize(("standards", "options", "words"), [
    (of([1, 2, 2], [1, 2, 3]), {}, "2 different amounts make no standard curve; give three or more"),
    (of([0, 1, 2], [1, 2, 3]), {"weights": "1/x"}, "a standard of amount 0 has no weight 1/x; enter it with kind = blank"),
    (of([1, 2, 3], [1, 2, 3]), {"weights": "1/var"}, "weights 1/var need a standard error (se) for every standard"),
    (of([1, 1, 2, 2, 3, 3], [1, 1, 2, 3, 3, 4]), {"weights": "1/var"}, "an amount has a variance of 0"),
    (of([0, 1, 2], [1, 2, 3]), {"scale": "log"}, "an amount or response of 0 or less has no logarithm"),
    (of([1, 2, 3], [1, 2, 3]), {"scale": "log", "weights": "1/x"}, "weights on the log scale are 1"),
    (of([1, 2, 3], [1, 2, 3]), {"scale": "log", "intercept": False}, "cannot be left out"),
    (of([1, 2, 3, 4], [4, 3, 2, 1.1]), {}, "the response does not rise with the amount: slope -0.97"),
    (of([1, 2, 3, 4], [2, 1, 3, 2]), {}, "the response does not rise with the amount: slope 0.2 +- 0.4"),
    (of([1, 2, 3], [1, 2, 3]), {"level": 95}, "write 0.95 for 95 %"),
])  # fmt: skip
def test_curves_that_cannot_be_are_refused(standards, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fit_standards(standards, **options)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"response": np.ones(2)}, "response of the standards has shape (2,); expected (6,)"),
    ({"amount": -X}, "amount of the standards holds a value that is not finite or below 0"),
    ({"response": X * np.nan}, "response of the standards holds a value that is not finite"),
    ({"n": X}, "n of the standards holds a value that is not finite or below 1"),
    ({"blanks": [np.inf]}, "a blank is not a finite number"),
])  # fmt: skip
def test_standards_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(EXAMPLE_1, **arguments)


@pytest.mark.parametrize(("arguments", "words"), [
    ((np.nan,), "a response of nan +- None cannot be read"),
    ((1.0, -1.0), "a response of 1.0 +- -1.0 cannot be read"),
    ((1.0, 1.0, 95), "write 0.95 for 95 %"),
])  # fmt: skip
def test_responses_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fit_standards(EXAMPLE_1).inverse(*arguments)


# --- tables


def test_a_table_is_read_and_fitted(tmp_path):
    path = tmp_path / "standards.csv"
    path.write_text("amount,unit,response,replicate,kind\n0,ng,1,,blank\n,ng,1.5,,blank\n"
                    + "".join(f"{a},ng,{3 * a + r},{r},\n" for a in (1, 2, 5) for r in (1, 2)), encoding="utf-8")  # fmt: skip
    found = read_standards(path)
    assert found.amount.tolist() == [1, 1, 2, 2, 5, 5]
    assert found.response.tolist() == [4, 5, 7, 8, 16, 17]
    assert found.blanks.tolist() == [1, 1.5]
    assert (found.unit, found.source, found.se) == ("ng", "standards.csv", None)
    assert fit_standards(found).slope == pytest.approx(3)


def test_equal_rows_are_two_measurements(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("amount,unit,response,n,se\n1,bq,2,3,0.1\n1,bq,2,3,0.1\n2,bq,4,1,0.2\n", encoding="utf-8")
    found = read_standards(path)
    assert (found.n.tolist(), found.se.tolist()) == ([3, 3, 1], [0.1, 0.1, 0.2])


@pytest.mark.parametrize(("text", "sentences"), [
    ("amount,unit\n1,ng\n", ["found nothing, expected a column 'response'; add it"]),
    ("amount,unit,response\n", ["found 'a header only'"]),
    ("amount,unit,response,kind,replicate,se\n-1,ng,2,,,\n1,furlongs9,2,,,\n1,ng,x,,,\n1,ng,3,sample,,\n,ng,3,,,\n"
     "5,ng,3,blank,,\n2,ug,3,,a,\n2,ug,3,,a,\n3,ng,1,,,0.1\n", [
         "row 2, column amount: found '-1', expected 0 or more",
         "row 3, column unit: found 'furlongs9'",
         "row 4, column response: found 'x', expected a finite number",
         "row 5, column kind: found 'sample', expected one of standard, blank",
         "key amount: found nothing, expected an amount for every standard; fill it, or write kind = blank",
         "key amount: found '5', expected an amount of 0 for a blank",
         "key unit: found 'ng, ug', expected one unit in the whole table",
         "key replicate: found 'a', expected each replicate of standard 2 once",
         "key se: found 'an empty cell', expected se for every standard or for none",
     ]),
    ("amount,unit,response,kind\n0,ng,2,blank\n", ["found 'no standard', expected rows of kind standard"]),
])  # fmt: skip
def test_every_problem_of_a_table_is_named(tmp_path, text, sentences):
    path = tmp_path / "s.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as err:
        read_standards(path)
    for sentence in sentences:
        assert sentence in str(err.value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\x89PNG\x00\x00")
    for name in ("s.csv", "missing.csv"):
        with pytest.raises(InputError):
            read_standards(tmp_path / name)


def test_a_hardly_rising_log_curve_gives_no_overflow():
    """Amounts beyond all numbers are infinite, not an error."""
    x = np.array([1.0, 2, 3, 4, 5])
    curve = fit_standards(of(x, [1.0, 1.001, 1.0012, 1.002, 1.0021]), scale="log")
    assert curve.inverse(100.0).value == np.inf
