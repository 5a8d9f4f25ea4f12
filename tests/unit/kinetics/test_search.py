"""What a user may ask of a fit: ties, held parameters, bounds, weights, losses, limits, and what comes back when it fails."""

from dataclasses import replace

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit, fit_all
from evbiodist.kinetics.fitting.search import WEIGHTS, FitSettings, Spread
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, Exponentials, SampledCurve
from evbiodist.kinetics.models.solve import Design, solve

TIMES = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0])


def power(name, p=1):
    return Monomial(((name, p),))


def chain(names=("k_a", "k_b")):
    """Two compartments in a row that share or do not share their rate."""
    rates = (ParameterSpec(n, "1/time", "") for n in dict.fromkeys(names))
    parameters = (*rates, ParameterSpec("v", "dose/value", ""))
    return RateGraph("chain", "", "", ("a", "b"), parameters,
                     (Transfer("a", "b", power(names[0])), Transfer("b", None, power(names[1]))),
                     (Seen("blood", (("a", power("v", -1)), ("b", power("v", -1)))),),
                     (Port("dose", (("a", ONE),)),))  # fmt: skip


def noisy(graph, theta, seed, dose=100.0, cv=0.1, inputs=None):
    given = inputs or {"dose": Doses(dose)}
    y = solve(graph, np.asarray(theta, float)[None], Design(TIMES, inputs=given)).y[0, :, 0]
    return curve_data(TIMES, y * (1 + cv * np.random.default_rng(seed).standard_normal(TIMES.size)), seen=graph.seen[0])


def test_tied_parameters_are_one_parameter():
    """A tie and a model written with one rate from the start: same numbers, same errors, same likelihood."""
    two, one = chain(), chain(("k", "k"))
    data = noisy(one, [0.7, 5.0], 1)
    a = fit(data, two, ties={"k_b": "k_a"})
    b = fit(data, one)
    assert a["k_a"].value == a["k_b"].value
    for mine, theirs in (("k_a", "k"), ("k_b", "k"), ("v", "v")):
        for word in ("value", "se", "ci_low", "ci_high"):
            assert getattr(a[mine], word) == pytest.approx(getattr(b[theirs], word), rel=1e-6)
    assert (a.chi2_red, a.aicc, a.df) == pytest.approx((b.chi2_red, b.aicc, b.df), rel=1e-7)
    assert a["auc_inf"].se == pytest.approx(b["auc_inf"].se, rel=1e-6)
    assert a.params["k_b"].value == pytest.approx(a.params["k_a"].value, rel=1e-12)


def test_what_is_held_has_no_error_but_a_reason():
    data = noisy(build("two_compartment_iv"), [3, 5, 4, 20], 2)
    found = fit(data, "two_compartment_iv", fixed={"v1": 5.0})
    held = found["v1"]
    assert held.value == pytest.approx(5.0)
    assert (np.isnan(held.se), held.reason) == (True, "held, not estimated")
    assert found["cl"].se > 0
    assert found.params["v1"].vary is False
    free = fit(data, "two_compartment_iv")
    assert found["cl"].se <= free["cl"].se * 1.5
    assert free.chi2_red * free.df <= found.chi2_red * found.df * (1 + 1e-9) or found.df == free.df + 1


def test_bounds_are_kept_and_said():
    data = noisy(build("one_compartment_iv"), [3.0, 6.0], 3)
    free = fit(data, "one_compartment_iv")
    loose = fit(data, "one_compartment_iv", bounds={"cl": (0.1, 100), "v": (None, 1000)})
    np.testing.assert_allclose(loose.theta, free.theta, rtol=1e-6)
    low = fit(data, "one_compartment_iv", bounds={"v": (None, 5.0)})
    assert low["v"].value == pytest.approx(5.0)
    assert (low["v"].flags, low["v"].reason) == (("at_bound",), "at its bound: the data do not carry it")
    with pytest.raises(ValueError, match="bounds of v are 5 and 2; the lower one must be below the upper one"):
        fit(data, "one_compartment_iv", bounds={"v": (5.0, 2.0)})
    with pytest.raises(ValueError, match="'vv' is not a parameter of one_compartment_iv"):
        fit(data, "one_compartment_iv", bounds={"vv": (5.0, 2.0)})


def test_where_every_parameter_is_at_a_bound_there_is_no_fit():
    data, box = noisy(build("one_compartment_iv"), [3.0, 6.0], 3), {"cl": (10.0, None), "v": (None, 2.0)}
    with pytest.raises(ValueError, match="every parameter ended at a bound: the data do not carry the model"):
        fit(data, "one_compartment_iv", bounds=box)


@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy"])
def test_an_outlier_moves_squares_and_hardly_a_robust_loss(loss):
    graph = build("one_compartment_iv")
    y = graph.predict(np.array([3.0, 6.0]), TIMES, 100.0)[0][:, 0]
    y[4] *= 6
    data = curve_data(TIMES, y, se=0.05 * np.maximum(y, 1.0))
    data = replace(data, se=np.where(np.arange(8) == 4, data.se[3], data.se))
    off = {
        name: abs(np.log(fit(data, graph, loss=name, weights="given")["cl"].value / 3.0)) for name in ("squares", loss)
    }
    assert off["squares"] > 0.1
    assert off[loss] < 0.25 * off["squares"]


def test_where_the_curve_cannot_tell_absorption_is_the_faster_process():
    """One compartment: ka and cl/v change places and nothing seen changes; the engine says ka > cl/v."""
    graph = build("one_compartment_oral")
    for ka, k in ((1.5, 0.2), (0.2, 1.5)):
        theta = np.array([{"cl": 5 * k, "v": 5.0, "ka": ka, "f": 1.0, "lag": 0.0}[n] for n in graph.names])
        for cv in (0.0, 0.03):
            found = fit(noisy(graph, theta, 5, cv=cv), graph)
            assert found["ka"].value > found["cl"].value / found["v"].value
            assert found["cl"].value == pytest.approx(5 * k, rel=1e-6 if not cv else 0.1)


def test_bounds_of_the_leader_hold_for_those_that_follow():
    data = noisy(chain(("k", "k")), [0.7, 5.0], 1)
    for ties in ({"k_b": "k_a"}, {"k_a": "k_b"}):
        (leader,) = ties.values()
        found = fit(data, chain(), ties=ties, bounds={leader: (None, 0.4)})
        assert found["k_a"].value == pytest.approx(0.4)
        assert found["k_b"].value == pytest.approx(0.4)
        assert {found[n].reason for n in ("k_a", "k_b")} == {"at its bound: the data do not carry it"}
        (follower,) = ties
        with pytest.raises(
            ValueError, match=f"{follower} follows {leader} and has no bounds of its own; bound that one"
        ):
            fit(data, chain(), ties=ties, bounds={follower: (None, 0.4)})


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"k2": (-1.0, 5.0)}, "bounds of k2 are -1 and 5; it can only lie between 0 and inf"),
        ({"v_b": (0.0, 1.5)}, "bounds of v_b are 0 and 1.5; it can only lie between 0 and 1"),
        ({"k2": (np.nan, None)}, "bounds of k2 are nan and inf"),
    ],
)
def test_bounds_lie_where_a_parameter_can(bounds, words):
    curve = SampledCurve([0, 1, 12], [9, 5, 1])
    with pytest.raises(ValueError, match=words):
        fit(
            curve_data(TIMES, TIMES, seen="tissue"),
            "one_tissue",
            inputs={"plasma": curve, "whole_blood": curve},
            bounds=bounds,
        )


def test_bounds_decide_which_process_is_the_faster_one():
    graph = build("one_compartment_oral")
    theta = np.array([{"cl": 1.0, "v": 5.0, "ka": 1.5, "f": 1.0, "lag": 0.0}[n] for n in graph.names])
    slow = fit(noisy(graph, theta, 5, cv=0.0), graph, bounds={"ka": (None, 0.9)})
    assert slow["ka"].value == pytest.approx(0.2, rel=1e-6)
    assert slow["v"].value == pytest.approx(1.0 / 1.5, rel=1e-6)


def test_a_lag_and_a_fraction_come_back_when_the_design_carries_them():
    graph = build("one_compartment_oral")
    theta = np.array([{"cl": 2.0, "v": 5.0, "ka": 1.7, "f": 0.6, "lag": 0.3}[n] for n in graph.names])
    data = noisy(graph, theta, 0, cv=0.0)
    found = fit(data, graph, fixed={"f": 0.6, "lag": None})
    np.testing.assert_allclose(found.theta, theta, rtol=1e-6)
    assert found["lag"].se < 0.05
    assert found["f"].reason == "held, not estimated"
    apparent = fit(data, graph, fixed={"lag": None})  # without f: clearance and volume over F
    assert apparent["cl"].value == pytest.approx(2.0 / 0.6, rel=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        Doses(100.0, 0.0, 1.5),
        Doses([60.0, 40.0], [0.0, 3.0]),
        Doses([60.0, 40.0], [0.0, 3.0], [0.0, 2.0]),
    ],
)
def test_infusions_and_several_doses(given):
    graph = build("two_compartment_iv")
    theta = [3.0, 5.0, 4.0, 20.0]
    found = fit(noisy(graph, theta, 0, cv=0.0, inputs={"dose": given}), graph, dose=given)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-5)
    assert found.dose == 100.0


@pytest.mark.parametrize("curve", [Exponentials([80.0, 15.0, 4.0], [9.0, 0.8, 0.05]),
                                   SampledCurve([0, 0.05, 0.2, 1, 3, 12], [0, 90, 40, 12, 6, 2])])  # fmt: skip
def test_measured_inputs(curve):
    graph, theta = build("one_tissue"), [6.0, 2.0, 0.05, 0.0]
    inputs = {"plasma": curve, "whole_blood": curve}
    found = fit(noisy(graph, theta, 0, cv=0.0, inputs=inputs), graph, inputs=inputs)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-5, atol=1e-9)
    assert found["vt"].value == pytest.approx(3.0, rel=1e-6)
    assert np.isnan(found.dose)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "poold"}, "weights has 'poold', expected one of .*did you mean 'pooled'"),
        ({"scale": "logarithmic"}, "scale has 'logarithmic', expected one of linear, log"),
        ({"loss": "hubber"}, "loss has 'hubber'.*did you mean 'huber'"),
        ({"blq": "keep"}, "blq has 'keep', expected one of drop, m3"),
        ({"level": 95}, "level has 95, expected a number between 0 and 1; write 0.95 for 95 %"),
        ({"tries": 0}, r"tries has 0 and scattered \d+; expected at least 1 and 0"),
        ({"scattered": -1}, "tries has 3 and scattered -1"),
    ],
)
def test_settings_refuse(change, words):
    with pytest.raises(ValueError, match=words):
        FitSettings(**change)


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        (curve_data([1, 2], [4, 2]), {}, "2 values cannot determine the 2 parameters of one_compartment_iv"),
        (curve_data([1, 2, 3], [4, 2, 1], seen="tissue"), {}, "the data hold tissue; one_compartment_iv sees blood"),
        (curve_data([1, 2, 3], [4, 2, 0]), {"scale": "log"}, "a value is 0 or less, which has no logarithm"),
        (curve_data([1, 2, 3], [4, 2, 1]), {"weights": "given"}, "weights are to be those given, but a value has no standard error"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_fitted_are_refused(data, more, words):
    with pytest.raises(ValueError, match=words):
        fit(data, "one_compartment_iv", **more)


def test_each_weight_is_the_spread_it_says():
    """Standard deviations at y for residuals of a known size; one data set, two matrices."""
    which = np.array([0, 0, 0, 1, 1, 1])
    y = np.array([[10.0, 5.0, 1.0, 400.0, 300.0, 100.0]])
    value = y + np.array([[1.0, -1.0, 1.0, 40.0, -30.0, 10.0]])
    s = Spread(which, se=np.full((1, 6), 0.3), systematic=np.zeros((1, 6)), count=np.full((1, 6), 4.0),
               cv=np.array([[0.2, 0.1]]), largest=np.array([[10.0, 400.0]]))  # fmt: skip
    pooled = WEIGHTS["pooled"](s, y, value)[0]
    assert pooled[0] == pytest.approx(np.sqrt((0.2 * 10) ** 2 / 4 + 0.3**2 + 0.05**2))
    np.testing.assert_allclose(WEIGHTS["given"](s, y, value), 0.3)
    constant = WEIGHTS["constant"](s, y, value)[0]
    np.testing.assert_allclose(constant[:3], 1.0)
    np.testing.assert_allclose(constant[3:], np.sqrt((1600 + 900 + 100) / 3))
    np.testing.assert_allclose(WEIGHTS["proportional"](s, y, value)[0, 3:], 0.1 * y[0, 3:])
    a, b = 2.0, 0.1
    many = np.tile(np.geomspace(1, 300, 40), (1, 1))
    exact = many + np.sqrt(a**2 + (b * many) ** 2)
    one = Spread(np.zeros(40, int), *(np.zeros((1, 40)),) * 2, np.ones((1, 40)), np.zeros((1, 1)), np.array([[300.0]]))
    np.testing.assert_allclose(WEIGHTS["combined"](one, many, exact), np.sqrt(a**2 + (b * many) ** 2), rtol=1e-9)
    low = np.r_[many[0, 1:], 1e-9][None]
    assert WEIGHTS["combined"](one, low, 1.1 * low)[0, -1] == pytest.approx(
        0.1 * 0.005 * 300
    )  # else it would rule the fit
    shared = replace(s, systematic=np.full((1, 6), 7.0))
    np.testing.assert_allclose(WEIGHTS["pooled"](shared, y, value)[0] ** 2, pooled**2 + 49)


def test_one_hopeless_data_set_leaves_the_others_as_they_were():
    graph = build("two_compartment_iv")
    good = [noisy(graph, [3, 5, 4, 20], s) for s in range(3)]
    few = curve_data([1, 2, 3], [3, 2, 1])
    wrong = replace(good[0], seen=("tissue",))
    given = {"dose": Doses(100.0)}
    alone = fit_all(graph, good, [given] * 3)
    mixed = fit_all(graph, [good[0], few, good[1], wrong, good[2]], [given] * 5)
    assert mixed[1] == "3 values cannot determine the 4 parameters of two_compartment_iv"
    assert mixed[3] == "the data hold tissue; two_compartment_iv sees blood"
    for a, b in zip(alone, (mixed[0], mixed[2], mixed[4]), strict=True):
        np.testing.assert_array_equal(a.theta, b.theta)
        np.testing.assert_array_equal(a.covariance, b.covariance)
        assert (a.chi2_red, a.aicc, a.bic) == (b.chi2_red, b.aicc, b.bic)
    assert fit_all(graph, [few], [given]) == [mixed[1]]


def test_different_measured_inputs_do_not_share_a_search():
    graph = build("one_tissue")
    curves = [SampledCurve([0, 1, 12], [9, 5, s]) for s in (1.0, 2.0)]
    data = [noisy(graph, [6, 2, 0.05, 0], 1, inputs={"plasma": c, "whole_blood": c}) for c in curves]
    with pytest.raises(ValueError, match="different measured inputs cannot share one search; fit them one by one"):
        fit_all(graph, data, [{"plasma": c, "whole_blood": c} for c in curves])


def test_missing_inputs_are_named():
    with pytest.raises(ValueError, match="model one_tissue needs the input whole_blood; give it in the design"):
        fit(curve_data(TIMES, TIMES, seen="tissue"), "one_tissue", inputs={"plasma": SampledCurve([0, 1], [1, 2])})
