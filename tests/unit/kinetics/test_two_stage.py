"""What two stages promise: each animal's own least squares, and a population that knows how well each was measured."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import multivariate_normal

from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.population.population import PopulationData
from evbiodist.kinetics.population.two_stage import failed, global_two_stage, one_by_one, two_stage

BLOOD = build("one_compartment_iv")
TIMES = np.array([0.2, 0.5, 1, 3, 6, 12])


def study(seed, animals=6, error=0.1, omega=(0.3, 0.2)):
    rng = np.random.default_rng(seed)
    cl, v = np.exp(np.log([[2.0], [10.0]]) + np.array(omega)[:, None] * rng.standard_normal((2, animals)))
    value = 100 / v[:, None] * np.exp(-(cl / v)[:, None] * TIMES) * (1 + error * rng.standard_normal((animals, 6)))
    animal = np.repeat(np.arange(animals), 6)
    names = [f"m{i}" for i in range(animals)]
    return PopulationData(
        names, ["blood"], animal, animal * 0, np.tile(TIMES, animals), value.ravel(), {"dose": Doses(100)}
    )


def test_each_animal_is_its_own_least_squares():
    data = study(1)
    found = one_by_one(BLOOD, data, "additive")
    curves = data.value.reshape(6, 6)
    squares = 0.0
    for i, y in enumerate(curves):
        own, cov = curve_fit(lambda t, cl, v: 100 / v * np.exp(-cl / v * t), TIMES, y, [2, 10])
        assert found.theta[i] == pytest.approx(own, rel=1e-5)
        left = np.sum((y - 100 / own[1] * np.exp(-own[0] / own[1] * TIMES)) ** 2)
        squares += left
        scale = found.error[0] ** 2 / (left / 4)  # errors of one size in all animals, not each its own
        assert np.diag(found.covariance[i]) == pytest.approx(scale * np.diag(cov) / own**2, rel=1e-3)
    assert found.error[0] == pytest.approx(math.sqrt(squares / (36 - 12)), rel=1e-6)


def test_standard_two_stage_is_mean_and_spread_of_logarithms():
    found = two_stage(BLOOD, study(2))
    u = np.log(found.fits.theta)
    by_name = {e.name: e for e in found.standard}
    assert np.log(by_name["cl"].value) == pytest.approx(u[:, 0].mean())
    assert by_name["omega_v"].value == pytest.approx(u[:, 1].std(ddof=1))
    assert by_name["cl"].se == pytest.approx(by_name["cl"].value * u[:, 0].std(ddof=1) / math.sqrt(6))
    assert by_name["cl"].ci_high / by_name["cl"].value == pytest.approx(
        np.exp(2.570582 * u[:, 0].std(ddof=1) / math.sqrt(6))
    )


def test_global_two_stage_takes_errors_of_the_fits_out_of_the_spread():
    """Over twenty noisy studies the standard way doubles a variance of 0.04 or more; the global one does not."""
    rng = np.random.default_rng(3)
    plain, wise = [], []
    for _ in range(20):
        cov = np.exp(rng.normal(np.log(0.06), 0.5, (8, 1, 1)))
        u = 1 + rng.normal(0, 0.2, (8, 1)) + np.sqrt(cov[:, 0]) * rng.standard_normal((8, 1))
        plain.append(np.var(u, ddof=1))
        wise.append(global_two_stage(u, cov)[1][0, 0])
    assert np.mean(plain) > 0.08
    assert np.mean(wise) == pytest.approx(0.04, abs=3 * np.std(wise) / np.sqrt(20))


def test_global_two_stage_is_at_the_top_of_the_restricted_likelihood():
    rng = np.random.default_rng(4)
    root = rng.normal(0, 0.3, (7, 2, 2))
    C = root @ root.swapaxes(1, 2) + 0.01 * np.eye(2)
    u = rng.normal(0, 0.8, (7, 2))

    def restricted(omega):
        weight = np.linalg.inv(C + omega)
        mean = np.linalg.solve(weight.sum(axis=0), np.einsum("aij,aj->i", weight, u))
        whole = sum(multivariate_normal(mean, c + omega).logpdf(x) for x, c in zip(u, C, strict=True))
        return whole - 0.5 * np.linalg.slogdet(weight.sum(axis=0))[1]

    mean, omega, cov, _ = global_two_stage(u, C)
    for step in ([[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]):
        move = 1e-4 * np.array(step)
        assert restricted(omega + move) == pytest.approx(restricted(omega - move), abs=2e-7)
        assert restricted(omega) > restricted(omega + 30 * move)
    weight = np.linalg.inv(C + omega)
    assert cov == pytest.approx(np.linalg.inv(weight.sum(axis=0)), rel=1e-5)
    assert mean == pytest.approx(cov @ np.einsum("aij,aj->i", weight, u), rel=1e-5)


def test_exact_fits_give_the_plain_mean_and_spread():
    u = np.random.default_rng(5).normal(size=(5, 3))
    mean, omega, cov, _ = global_two_stage(u, np.zeros((5, 3, 3)))
    assert mean == pytest.approx(u.mean(axis=0))
    assert omega == pytest.approx(np.cov(u.T), abs=1e-8)
    assert cov == pytest.approx(np.cov(u.T) / 5, abs=1e-8)


def test_animals_that_do_not_differ_are_said_not_to():
    data = study(6, animals=5, omega=(0.0, 0.0), error=0.0)
    wobble = data.value * (1 + 0.1 * np.tile([1, -1, -1, 1, 1, -1], 5))
    same = PopulationData(data.animals, data.seen, data.animal, data.which, data.time_h, wobble, data.inputs)
    found = two_stage(BLOOD, same)["omega_cl"]
    assert found.value == 0.0
    assert found.flags == ("at_bound",)
    assert found.reason


def test_a_failed_animal_has_its_reason_and_changes_no_other():
    """Weights are given, so that nothing but the curves is shared."""
    data = study(7, animals=3)
    keep = (data.animal != 1) | (data.time_h == 0.2)
    cut = PopulationData(data.animals, data.seen, data.animal[keep], data.which[keep], data.time_h[keep], data.value[keep],
                         data.inputs)  # fmt: skip
    found = one_by_one(BLOOD, cut, "additive")
    assert failed(found) == [("m1", "1 values cannot determine 2 parameters")]
    assert found.kept.tolist() == [True, False, True]
    assert np.isnan(found.covariance[1]).all()
    whole = one_by_one(BLOOD, data, "additive")
    assert found.theta[[0, 2]] == pytest.approx(whole.theta[[0, 2]], rel=1e-5)
    assert two_stage(BLOOD, cut).standard[0].n == 2
    assert "few" in two_stage(BLOOD, cut)["cl"].flags


def test_values_that_do_not_determine_a_parameter_are_no_fit():
    twice = PopulationData("ab", ["blood"], [0, 0, 0, 1, 1, 1], [0] * 6, [1, 1, 1, 1, 2, 4], [9.0, 9.1, 8.9, 9, 8, 7],
                           {"dose": Doses(100)})  # fmt: skip
    found = one_by_one(BLOOD, twice, "additive")
    assert found.reason[0] == "its values do not determine cl, v"
    with pytest.raises(ValueError, match=r"two animals or more with a fit of their own, found 1 \(a: its values"):
        two_stage(BLOOD, twice, "additive")


def test_wrong_words_and_shapes_are_refused():
    with pytest.raises(ValueError, match="weights is 'log', expected one of proportional, additive"):
        two_stage(BLOOD, study(1), "log")
    with pytest.raises(ValueError, match=r"estimates have shape \(3,\)"):
        global_two_stage([1.0, 2.0, 3.0], np.zeros((3, 1, 1)))
    with pytest.raises(ValueError, match="not finite"):
        global_two_stage([[1.0], [np.nan]], np.zeros((2, 1, 1)))
    with pytest.raises(KeyError):
        two_stage(BLOOD, study(1))["ka"]
