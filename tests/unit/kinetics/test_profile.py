"""Profile intervals: exact where theory is exact, equal to lmfit's, open where the data set no limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.derived import derived
from evbiodist.kinetics.fitting.fit import fit, fit_all
from evbiodist.kinetics.fitting.profile import profile, profile_all
from evbiodist.kinetics.fitting.quantities import quantity
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design

T = np.array([0.25, 0.5, 1, 2, 4, 6, 8, 12])


def straight(seed: int, cv: float = 0.2):
    """One compartment on the logarithm is a straight line, so its intervals are those of linear regression."""
    rng = np.random.default_rng(seed)
    value = 10 * np.exp(-0.2 * T) * np.exp(cv * rng.standard_normal(T.size))
    found = fit(curve_data(T, value, se=cv * value), "one_compartment_iv", dose=100, scale="log", weights="given")
    return value, found


@pytest.mark.parametrize("seed", range(4))
def test_profiles_of_a_straight_line_are_students_intervals(seed: int) -> None:
    value, found = straight(seed)
    line = stats.linregress(T, np.log(value))
    t = stats.t.ppf(0.975, T.size - 2)
    got = profile(found, ["v", "half_life"], threshold="f")
    intercept = line.intercept + np.array([1, -1]) * t * line.intercept_stderr
    np.testing.assert_allclose([got["v"].low, got["v"].high], 100 / np.exp(intercept), rtol=1e-5)
    rate = -line.slope + np.array([1, -1]) * t * line.stderr
    np.testing.assert_allclose([got["half_life"].low, got["half_life"].high], np.log(2) / rate, rtol=1e-5)


def test_given_errors_take_the_normal_distribution() -> None:
    value, found = straight(1)
    X = np.stack([np.ones_like(T), T], axis=1)
    cov = np.linalg.inv(X.T @ X) * 0.2**2
    a = np.linalg.lstsq(X, np.log(value), rcond=None)[0][0]
    got = profile(found, ["v"], threshold="chi2")["v"]
    ends = 100 / np.exp(a + np.array([1, -1]) * stats.norm.ppf(0.975) * np.sqrt(cov[0, 0]))
    np.testing.assert_allclose([got.low, got.high], ends, rtol=1e-5)


def test_ends_are_those_of_lmfit() -> None:
    value = straight(2)[0]
    found = fit(curve_data(T, value), "one_compartment_iv", dose=100)
    theirs, ours = found.ci(), profile(found, ["cl", "v"], threshold="f")
    for name, ends in theirs.items():
        np.testing.assert_allclose((ours[name].low, ours[name].high), ends, rtol=2e-5)


@pytest.fixture(scope="module")
def two():
    rng = np.random.default_rng(5)
    t = np.array([0.1, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 20, 24])
    y = build("two_compartment_iv").predict(np.array([1.0, 2.0, 1.5, 5.0]), t, 100.0)[0][:, 0]
    return fit(curve_data(t, y * np.exp(0.1 * rng.standard_normal(t.size))), "two_compartment_iv", dose=100)


def test_a_derived_quantity_has_the_interval_of_the_parameter_that_it_is(two) -> None:
    """The area is dose / clearance: one is held softly, the other is fixed, and both must agree."""
    got = profile(two, ["cl", "auc_inf"])
    np.testing.assert_allclose([got["auc_inf"].low, got["auc_inf"].high],
                               [100 / got["cl"].high, 100 / got["cl"].low], rtol=1e-5)  # fmt: skip


def test_every_point_is_the_best_with_its_value(two) -> None:
    """A grid of the half-life, each point minimised by scipy over the other coordinates, is never below the profile."""
    from scipy.optimize import minimize

    p = profile(two, ["half_life"])["half_life"]
    values = quantity(two.graph, "half_life", two.design, 24.0)
    problem, u0 = two.problem, two.graph.to_search(two.theta)

    def cost(u):
        return float(np.sum(problem.residual(problem.predict(u[None], False)[0])[0] ** 2))

    for end in (p.low, p.high):
        found = minimize(cost, u0, method="SLSQP", options={"ftol": 1e-13, "maxiter": 500}, constraints={
            "type": "eq", "fun": lambda u, end=end: np.log(values(two.graph.from_search(u[None]))[0][0] / end)})  # fmt: skip
        k = np.argmin(np.abs(p.at - end))
        assert p.at[k] == pytest.approx(end, rel=1e-9)
        assert abs(p.distance[k]) == pytest.approx(1, abs=1e-6)
        reach = stats.t.ppf(0.975, two.df) ** 2 * two.chi2_red
        assert (found.fun - cost(u0)) / reach == pytest.approx(1, abs=2e-4)


def test_quantities_and_gradients_are_those_of_derived() -> None:
    rng = np.random.default_rng(0)
    design = Design([0.5, 1, 2, 24], inputs={"dose": Doses(100)})
    for g, theta in ((build("two_compartment_iv"), [1.0, 2, 0.5, 3]),
                     (build("plasma_with_organs", ["brain", "liver"]), [2.0, 0.25, 0.01, 0.6, 0.3, 0.05])):  # fmt: skip
        many = np.array(theta) * np.exp(0.2 * rng.standard_normal((4, len(theta))))
        for d in derived(g, many[2], design, "pct_id", 24.0):
            value, slope = quantity(g, d.name, design, 24.0)(many)
            np.testing.assert_allclose(value[2], d.value, rtol=1e-10)
            np.testing.assert_allclose(slope[2], d.gradient, atol=1e-9 * abs(d.value))


def test_an_end_that_the_data_do_not_close_is_said_to_be_open() -> None:
    flat = fit(curve_data([0.1, 0.2, 0.3, 0.4, 0.5], [8.1, 7.9, 8.05, 7.95, 8.02]), "one_compartment_iv", dose=16)
    p = profile(flat, ["cl", "half_life", "v"])
    assert (p["cl"].below, p["cl"].above) == ("open", "closed")
    assert p["cl"].low == 0
    assert "(open below)" in p["cl"].words
    assert "no lower limit" in p["cl"].words
    assert (p["half_life"].above, p["half_life"].high) == ("open", np.inf)
    assert p["half_life"].estimate.flags == ("open_interval",)
    assert (p["v"].below, p["v"].above) == ("closed", "closed")
    assert not p["v"].flat


def test_an_end_that_only_the_reach_of_the_search_closes_is_open() -> None:
    """Liver that may never give back: its rate is open below, and so is the half-life above, however far the search may go."""
    t = np.array([0.083, 0.25, 0.5, 1, 2, 4])
    g = build("plasma_with_organs", ["liver"])
    rng = np.random.default_rng(3)
    y = g.predict(np.array([2.0, 0.25, 0.6, 0.01]), t, 100.0)[0] * np.exp(0.2 * rng.standard_normal((t.size, 2)))
    one, two = (curve_data(t, y[:, i]) for i in (0, 1))
    words = ("time_h", "value", "se", "systematic", "count", "mean", "censored")
    both = {k: np.concatenate([getattr(one, k), getattr(two, k)]) for k in words}
    data = replace(one, seen=("blood", "liver"), which=np.repeat([0, 1], t.size), animal=np.tile(np.arange(t.size), 2),
                   cv=np.full(2, 0.2), unit=("pct_id_per_g", "pct_id"), **both)  # fmt: skip
    p = profile(fit(data, g), ["k_out_liver", "half_life", "liver_uptake_pct_id"])
    assert (p["k_out_liver"].below, p["k_out_liver"].above) == ("open", "closed")
    assert (p["half_life"].below, p["half_life"].above) == ("closed", "open")
    assert p["half_life"].high == np.inf
    assert (p["liver_uptake_pct_id"].below, p["liver_uptake_pct_id"].above) == ("closed", "closed")


def test_an_end_at_the_users_bound_is_not_the_datas() -> None:
    _, free = straight(3)
    top = profile(free, ["v"])["v"].value * 1.05
    bounded = fit(free.data, free.graph, dose=100, scale="log", weights="given", bounds={"v": (None, top)})
    p = profile(bounded, ["v"])["v"]
    assert (p.below, p.above) == ("closed", "bound")
    assert p.high == pytest.approx(top, rel=1e-9)
    assert "parameter's bound" in p.words
    assert "at_bound" in p.estimate.flags


def test_many_fits_have_the_profiles_of_each() -> None:
    fits = [straight(s)[1] for s in (0, 1, 2)]
    dose = Doses(100)
    graph = fits[0].graph
    fits = fit_all(graph, [f.data for f in fits], [{"dose": dose}] * 3, settings=fits[0].settings)
    together = profile_all(fits, ["cl", "half_life"])
    for f, many in zip(fits, together, strict=True):
        alone = profile(f, ["cl", "half_life"])
        for name in many:
            np.testing.assert_allclose(
                (many[name].low, many[name].high), (alone[name].low, alone[name].high), rtol=1e-5
            )


def test_intervals_of_random_truths_hold_them_as_often_as_they_say() -> None:
    rng, dose, graph = np.random.default_rng(11), Doses(100), build("one_compartment_iv")
    truth = np.exp(rng.uniform(-1, 1, (120, 2))) * [2.0, 10.0]
    data = []
    for theta in truth:
        y = graph.predict(theta, T, 100.0)[0][:, 0]
        data.append(curve_data(T, y * np.exp(0.15 * rng.standard_normal(T.size))))
    fits = fit_all(graph, data, [{"dose": dose}] * 120)
    inside, off = [], []
    for f, theta, p in zip(fits, truth, profile_all(fits, ["cl", "v"]), strict=True):
        inside += [p[k].low <= v <= p[k].high for k, v in zip(("cl", "v"), theta, strict=True)]
        off.append(np.log(f.theta / theta))
    # two intervals of a study go together, so four standard errors of 120
    assert abs(np.mean(inside) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 120)
    assert (np.abs(np.mean(off, axis=0)) < 4 * np.std(off, axis=0) / np.sqrt(120) + 0.15**2).all()


def test_a_fit_that_is_not_the_best_is_told() -> None:
    _, found = straight(0)
    away = replace(found, theta=found.theta * 1.3, _lmfit=None)
    assert "fits better" in profile(away, ["v"])["v"].reason


def test_what_cannot_be_profiled_is_said() -> None:
    _, found = straight(0)
    with pytest.raises(ValueError, match=r"'clearance' is neither a free parameter nor a derived quantity.*cl"):
        profile(found, ["clearance"])
    with pytest.raises(ValueError, match="threshold has 'F2', expected one of fit, f, chi2"):
        profile(found, threshold="F2")
    with pytest.raises(ValueError, match=r"level has 95, expected a number between 0 and 1"):
        profile(found, level=95)
    other = fit(curve_data(T[:5], 10 * np.exp(-0.2 * T[:5])), "one_compartment_iv", dose=100)
    with pytest.raises(ValueError, match="cannot share a search"):
        profile_all([found, other])
    held = fit(found.data, found.graph, dose=100, fixed={"v": 10.0})
    with pytest.raises(ValueError, match="'v' is neither"):
        profile(held, ["v"])
    assert set(profile(held)) >= {"cl", "half_life"}
