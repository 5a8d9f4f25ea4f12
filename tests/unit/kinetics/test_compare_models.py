"""Model choice: criteria by hand, F against Student, words that do not overstate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evbiodist.kinetics.fitting.compare_models import compare, is_nested
from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.models.catalogue import build

T = np.array([0.25, 0.5, 1, 2, 4, 6, 8, 12])


MANY = np.geomspace(0.1, 24, 24)


def noisy(seed: int, second: float = 0.0, t: np.ndarray = T) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (10 * np.exp(-0.2 * t) + second * np.exp(-2 * t)) * np.exp(0.1 * rng.standard_normal(t.size))


def pair(value: np.ndarray, **more: object):
    data = curve_data(
        T if value.size == T.size else MANY, value, **({"se": 0.1 * value} if more.get("weights") == "given" else {})
    )
    return {n: fit(data, f"{n}_compartment_iv", dose=100, **more) for n in ("one", "two")}


def test_criteria_with_given_errors_are_those_written_out() -> None:
    value = noisy(1)
    found = compare(pair(value, weights="given"))
    for c in found.table:
        f = pair(value, weights="given")[c.name]
        y, se = f.predict(T)["blood"][0], 0.1 * value
        deviance = -2 * np.sum(stats.norm.logpdf(value, y, se))
        k, n = len(f.theta), T.size
        if f.chi2_red > 0 and not found.notes:
            assert c.minus_2_log_likelihood == pytest.approx(deviance, rel=1e-9)
            assert c.aicc == pytest.approx(deviance + 2 * k + 2 * k * (k + 1) / (n - k - 1), rel=1e-9)
            assert c.bic == pytest.approx(deviance + k * np.log(n), rel=1e-9)
    assert not found.notes  # this seed's residuals are within the errors, so nothing was divided


def test_criteria_with_unknown_errors_take_the_likeliest_size() -> None:
    value = noisy(2)
    fits = pair(value)
    for c in compare(fits).table:
        f = fits[c.name]
        y, sigma = f.predict(T)["blood"][0], f.problem.sigma[0]
        s2 = np.mean(((value - y) / sigma) ** 2)
        deviance = -2 * np.sum(stats.norm.logpdf(value, y, np.sqrt(s2) * sigma))
        k = len(f.theta) + 1
        assert c.parameters == k
        assert c.minus_2_log_likelihood == pytest.approx(deviance, rel=1e-9)
        assert c.aicc == pytest.approx(deviance + 2 * k + 2 * k * (k + 1) / (T.size - k - 1), rel=1e-9)


def test_the_unit_of_the_errors_changes_no_choice() -> None:
    """Errors whose size is unknown may be assumed at any size."""
    value, how = noisy(3, 20.0, MANY), {"dose": 100, "scale": "log", "weights": "given"}
    small, large = (compare({n: fit(curve_data(MANY, value, se=s * value), f"{n}_compartment_iv", **how)
                             for n in ("one", "two")}) for s in (0.01, 0.03))  # fmt: skip
    np.testing.assert_allclose([c.weight for c in small.table], [c.weight for c in large.table], rtol=1e-6)


def test_weights_are_shares_and_the_best_comes_first() -> None:
    found = compare(pair(noisy(4, 20.0, MANY)), nested=[("one", "two")])
    assert sum(c.weight for c in found.table) == pytest.approx(1)
    assert sum(c.bic_weight for c in found.table) == pytest.approx(1)
    assert [c.delta for c in found.table] == sorted(c.delta for c in found.table)
    assert found.table[0].evidence_ratio == 1
    assert found.table[1].evidence_ratio == pytest.approx(found.table[0].weight / found.table[1].weight)
    assert found.rows[0]["name"] == found.table[0].name
    assert found.best == "two"
    assert found.words.startswith("two is preferred")
    assert found.tests[0].p < 0.01
    assert found.tests[0].words.startswith("two is needed beside one")


def test_f_of_one_held_parameter_is_students_t_squared() -> None:
    value = noisy(5)
    data = curve_data(T, value, se=0.1 * value)
    how = {"dose": 100, "scale": "log", "weights": "given"}
    free = fit(data, "one_compartment_iv", **how)
    held = fit(data, "one_compartment_iv", fixed={"v": 11.0}, **how)
    line = stats.linregress(T, np.log(value))
    t = (line.intercept - np.log(100 / 11.0)) / line.intercept_stderr
    (test,) = compare({"held": held, "free": free}).tests
    assert (test.smaller, test.larger, test.df) == ("held", "free", (1, T.size - 2))
    assert test.f == pytest.approx(t**2, rel=1e-6)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(t), T.size - 2), rel=1e-6)


def test_nested_is_held_or_tied_of_the_same_model() -> None:
    data = curve_data(T, noisy(6, 20.0))
    g = build("two_compartment_iv")
    free, tied = fit(data, g, dose=100), fit(data, g, dose=100, ties={"v2": "v1"})
    held = fit(data, g, dose=100, fixed={"q": 1.0})
    both = fit(data, g, dose=100, fixed={"q": 1.0}, ties={"v2": "v1"})
    assert is_nested(tied, free)
    assert is_nested(held, free)
    assert is_nested(both, tied)
    assert is_nested(both, held)
    assert not is_nested(held, tied)
    assert not is_nested(free, tied)
    assert not is_nested(fit(data, g, dose=100, fixed={"q": 2.0}, ties={"v2": "v1"}), held)
    assert not is_nested(fit(data, "one_compartment_iv", dose=100), free)


def test_like_models_are_not_distinguishable() -> None:
    g, value = build("one_compartment_iv"), noisy(7, 0.0, MANY)
    data = curve_data(MANY, value)
    free = fit(data, g, dose=100)
    near = fit(data, g, dose=100, fixed={"v": float(free.theta[1]) * 1.01})
    found = compare({"free": free, "near": near})
    assert found.best is None
    assert found.words.startswith("not distinguishable: near")
    assert "free" in found.words


def test_a_preference_for_fewer_parameters_is_called_that() -> None:
    """With eight values AICc alone prefers two parameters to three, whatever they are."""
    g, data = build("one_compartment_iv"), curve_data(T, noisy(7))
    free = fit(data, g, dose=100)
    found = compare({"free": free, "near": fit(data, g, dose=100, fixed={"v": float(free.theta[1])})})
    assert found.best == "near"
    assert found.words.startswith("near is enough")
    assert "does not prove" in found.words


def test_a_misfit_divides_the_differences_and_says_so() -> None:
    value = noisy(8, 20.0)
    data = curve_data(T, value, se=0.02 * value)
    fits = {n: fit(data, f"{n}_compartment_iv", dose=100, weights="given") for n in ("one", "two")}
    assert fits["two"].chi2_red > 3
    found = compare(fits)  # such errors are not believed, so their size is found from the residuals
    sure = compare(
        {n: fit(curve_data(T, value), f"{n}_compartment_iv", dose=100, weights="proportional") for n in ("one", "two")}
    )
    assert found.table[0].parameters == sure.table[0].parameters


def test_what_cannot_be_compared_is_said() -> None:
    fits = pair(noisy(1))
    with pytest.raises(ValueError, match="1 fit was given"):
        compare({"one": fits["one"]})
    with pytest.raises(ValueError, match="fitted to different values"):
        compare({"a": fits["one"], "b": pair(noisy(2))["one"]})
    with pytest.raises(ValueError, match="fitted with scale = 'linear' and b with 'log'"):
        compare({"a": fits["one"], "b": fit(fits["one"].data, "one_compartment_iv", dose=100, scale="log")})
    with pytest.raises(ValueError, match="loss is 'huber', which is no likelihood"):
        compare(pair(noisy(1), loss="huber"))
    with pytest.raises(ValueError, match=r"nested names \(one, three\), but the fits are one, two"):
        compare(fits, nested=[("one", "three")])
    with pytest.raises(ValueError, match=r"enough has 1\.5"):
        compare(fits, enough=1.5)
