"""Tests on residuals: exact distributions, false alarms as often as they should be, misfits found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import FitData, curve_data
from evbiodist.kinetics.fitting.diagnostics import _runs, diagnose, predictive_check, residuals
from evbiodist.kinetics.fitting.fit import fit, fit_all
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.study.flags import FLAGS

T = np.array([0.1, 0.3, 0.6, 1, 2, 4, 6, 9, 12, 16, 20, 24])
ONE = build("one_compartment_iv")


def serial(y: np.ndarray, n: int, rng: np.random.Generator, cv: float = 0.2) -> FitData:
    """Blood of n animals at every time of `T`."""
    v = y[:, None] * np.exp(cv * rng.standard_normal((len(y), n)))
    zero = np.zeros(v.size)
    pooled = np.sqrt(v.var(axis=1, ddof=1).sum() / (v.mean(axis=1) ** 2).sum())
    return FitData(("blood",), zero.astype(int), np.arange(v.size), np.repeat(T, n), v.ravel(), zero, zero, zero + 1,
                   np.array([pooled]), True, np.repeat(v.mean(axis=1), n), ("pct_id_per_g",), zero > 0)  # fmt: skip


@pytest.mark.parametrize("signs", [[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1, 0], [1] * 5])
def test_runs_have_the_chance_that_counting_gives(signs: list[int]) -> None:
    seen = np.array(signs, bool)
    runs, p = _runs(seen)

    def count(s) -> int:
        return 1 + sum(a != b for a, b in itertools.pairwise(s))

    assert runs == count(signs)
    if 0 < seen.sum() < len(signs):
        all_orders = set(itertools.permutations(signs))
        assert p == pytest.approx(np.mean([count(s) <= runs for s in all_orders]))
    else:
        assert p == 0.5 ** (len(signs) - 1)


def test_residuals_are_what_they_say() -> None:
    rng = np.random.default_rng(1)
    found = fit(serial(10 * np.exp(-0.2 * T), 3, rng), ONE, dose=100)
    r = residuals(found)
    assert r.matrix == ("blood",) * 36
    np.testing.assert_allclose(r.predicted, np.repeat(found.predict(T)["blood"][0], 3))
    assert r.leverage.sum() == pytest.approx(2)  # one a parameter
    np.testing.assert_allclose(r.standardised, (r.observed - r.predicted) / r.sd / np.sqrt(1 - r.leverage))


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng, dose = np.random.default_rng(2), Doses(100)
    # values fall to a seventh: further down the floor of the errors (0.5 % of the top) would rightly be told
    data = [serial(10 * np.exp(-0.08 * T), 3, rng, cv=0.15) for _ in range(150)]
    fits = fit_all(ONE, data, [{"dose": dose}] * 150)
    alarms: dict[str, list[bool]] = {}
    for f in fits:
        for c in diagnose(f):
            alarms.setdefault(c.name, []).append(bool(c.flag))
    assert set(alarms) == {"runs", "trend_time", "trend_prediction", "spread", "normality", "lack_of_fit"}
    for name, made in alarms.items():
        # log-normal errors are a little skewed, so normality may be refused more often
        most = 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 150) + (0.1 if name == "normality" else 0)
        assert np.mean(made) <= most, name


def test_a_missing_compartment_is_found() -> None:
    rng = np.random.default_rng(3)
    y = build("two_compartment_iv").predict(np.array([1.0, 2.0, 1.5, 5.0]), T, 100.0)[0][:, 0]
    found = fit(serial(y, 3, rng), ONE, dose=100)
    told = {c.name: c for c in diagnose(found)}
    assert told["lack_of_fit"].flag == "residual_pattern"
    assert told["lack_of_fit"].p < 1e-6
    assert "means lie further from the curve" in told["lack_of_fit"].words


def test_an_outlier_is_not_normal_and_wrong_weights_are_told() -> None:
    rng = np.random.default_rng(4)
    value = 10 * np.exp(-0.2 * T) * np.exp(0.05 * rng.standard_normal(T.size))
    value[5] *= 3
    told = {c.name: c for c in diagnose(fit(curve_data(T, value), ONE, dose=100, loss="cauchy"))}
    assert told["normality"].flag == "not_normal"
    more = np.repeat(T, 4)
    flat = 10 * np.exp(-0.2 * more) * np.exp(0.2 * rng.standard_normal(more.size))
    told = {c.name: c for c in diagnose(fit(curve_data(more, flat), ONE, dose=100, weights="constant"))}
    assert told["spread"].flag == "weights_doubtful"
    assert {c.flag for c in told.values()} - {""} <= set(FLAGS)


def test_too_few_values_say_nothing() -> None:
    told = diagnose(fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), ONE, dose=16))
    assert all(np.isnan(c.p) and not c.flag and "too few" in c.words for c in told)


def test_repeated_tests_are_adjusted_over_matrices() -> None:
    from evbiodist.kinetics.fitting.diagnostics import _adjusted, _check

    made = [_check("runs", m, 9, 2.0, p) for m, p in (("a", 0.02), ("b", 0.5), ("c", 0.03))]
    assert [round(c.p_adjusted, 6) for c in _adjusted(made)] == [
        0.06,
        0.5,
        0.06,
    ]  # Holm: 3 p, then 2 p and no less, then p


def test_a_good_fit_is_within_its_own_simulations() -> None:
    rng, dose = np.random.default_rng(5), Doses(100)
    fits = fit_all(ONE, [serial(10 * np.exp(-0.2 * T), 4, rng) for _ in range(60)], [{"dose": dose}] * 60)
    checks = [predictive_check(f, draws=200, seed=k) for k, f in enumerate(fits)]
    assert np.mean([bool(c.flags) for c in checks]) <= 0.15
    band = np.array([[np.mean((b.low <= b.observed) & (b.observed <= b.high)) for b in c.bands] for c in checks])
    assert (band.mean(axis=0) > 0.8).all()  # of 90 %, the fit's own error left out
    first = checks[0].bands[1]
    assert (first.percentile, first.time_h.tolist()) == (50.0, T.tolist())
    assert (first.low < first.middle).all()
    assert (first.middle < first.high).all()


def test_errors_that_are_too_small_fail_the_predictive_check() -> None:
    rng = np.random.default_rng(6)
    value = np.repeat(10 * np.exp(-0.2 * T), 3) * np.exp(0.3 * rng.standard_normal(36))
    found = fit(curve_data(np.repeat(T, 3), value), ONE, dose=100)
    from dataclasses import replace

    data = replace(found.data, cv=np.array([0.05]), replicated=True)
    bad = predictive_check(replace(found, data=data, chi2_red=1.0), draws=200, seed=1)
    assert bad.flags == ("weights_doubtful",)
    assert "where 10 % are expected" in bad.words[0]


def test_what_cannot_be_simulated_is_said() -> None:
    found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), ONE, dose=16)
    with pytest.raises(ValueError, match=r"draws has 10, level 0\.9"):
        predictive_check(found, draws=10, seed=1)
    hidden = curve_data([1, 2, 3, 4, 6], [8.0, 4.1, 1.9, 1.0, 0.3], censored=[False] * 4 + [True])
    with pytest.raises(ValueError, match="cannot stand in a predictive check"):
        predictive_check(fit(hidden, ONE, dose=16, blq="m3"), seed=1)
