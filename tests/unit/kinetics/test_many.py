"""Many curves at once: shapes, padding, failures, and the same numbers as one fit at a time."""

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.fitting.many import fit_many
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses, Exponentials
from evbiodist.kinetics.models.solve import Design, solve

TIMES = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
PLASMA = Exponentials([80.0, 15.0, 4.0], [9.0, 0.8, 0.05])
STARTS = np.r_[0, np.cumsum([0.02] * 6 + [0.05] * 6 + [0.1] * 6 + [0.2] * 4)]
TISSUE_INPUTS = {"plasma": PLASMA, "whole_blood": PLASMA}


def curves(rows=6, seed=0, cv=0.08):
    rng = np.random.default_rng(seed)
    theta = np.exp(rng.normal(np.log([3.0, 5.0, 4.0, 20.0]), 0.2, (rows, 4)))
    y = solve(build("two_compartment_iv"), theta, Design(TIMES, inputs={"dose": Doses(100.0)})).y[:, :, 0]
    return theta, y * (1 + cv * rng.standard_normal(y.shape))


def test_shapes():
    _, y = curves(5)
    table = fit_many(TIMES, y, "two_compartment_iv")
    assert len(table) == 5
    assert table.names == ("cl", "v1", "q", "v2")
    for a in (table.theta, table.se, table.ci_low, table.ci_high):
        assert a.shape == (5, 4)
    assert table.covariance.shape == (5, 4, 4)
    assert table.chi2_red.shape == table.df.shape == (5,)
    assert table.reason == ("",) * 5
    assert (table.ci_low < table.theta).all()
    assert (table.theta < table.ci_high).all()
    one = fit_many(TIMES, y[0], "two_compartment_iv")
    np.testing.assert_array_equal(one.theta[0], table.theta[0])


@pytest.mark.parametrize(
    "more",
    [{}, {"se": 0.2}, {"se": 0.2, "weights": "given"}, {"weights": "proportional"}, {"weights": "constant"}, {"scale": "log"},
     {"loss": "huber"}, {"fixed": {"v1": 5.0}}, {"ties": {"q": "cl"}}, {"bounds": {"v1": (None, 3.0)}}],
)  # fmt: skip
def test_a_row_is_the_fit_of_its_curve(more):
    _, y = curves(3)
    y[1, 3] = np.nan
    table = fit_many(TIMES, y, "two_compartment_iv", **more)
    se = more.pop("se", None)
    for i in range(3):
        keep = np.isfinite(y[i])
        alone = fit(curve_data(TIMES[keep], y[i][keep], se=se), "two_compartment_iv", **more)
        np.testing.assert_allclose(table.theta[i], alone.theta, rtol=1e-7)
        np.testing.assert_allclose(table[i].theta, alone.theta, rtol=1e-8)
        estimates = [alone[n] for n in table.names]
        np.testing.assert_allclose(table.se[i], [e.se for e in estimates], rtol=1e-6)
        for mine, theirs in (("ci_low", "ci_low"), ("ci_high", "ci_high")):
            has = [np.isfinite(e.se) for e in estimates]
            np.testing.assert_allclose(getattr(table, mine)[i][has],
                                       np.array([getattr(e, theirs) for e in estimates])[has], rtol=1e-6)  # fmt: skip
        assert table.chi2_red[i] == pytest.approx(alone.chi2_red, rel=1e-7)


def test_missing_values_are_as_if_never_sampled():
    _, y = curves(4)
    gaps = y.copy()
    gaps[:, [2, 7]] = np.nan
    keep = np.array([0, 1, 3, 4, 5, 6])
    a, b = fit_many(TIMES, gaps, "two_compartment_iv"), fit_many(TIMES[keep], y[:, keep], "two_compartment_iv")
    np.testing.assert_allclose(a.theta, b.theta, rtol=1e-8)
    np.testing.assert_allclose(a.se, b.se, rtol=1e-6)
    np.testing.assert_array_equal(a.df, b.df)
    without_error = np.where(np.isnan(gaps), np.nan, 0.3)
    c = fit_many(TIMES, y, "two_compartment_iv", se=without_error, weights="given")
    d = fit_many(TIMES[keep], y[:, keep], "two_compartment_iv", se=0.3, weights="given")
    np.testing.assert_allclose(c.theta, d.theta, rtol=1e-8)


def test_curves_that_fail_say_why_and_change_no_bit_of_the_others():
    _, y = curves(4)
    bad = np.full((3, 8), np.nan)
    bad[1, :4] = [4.0, 3.0, 2.0, 1.0]
    bad[2] = np.inf
    table, alone = fit_many(TIMES, np.r_[y, bad], "two_compartment_iv"), fit_many(TIMES, y, "two_compartment_iv")
    assert table.reason[4] == "0 values cannot determine the 4 parameters of two_compartment_iv"
    assert table.reason[5] == "4 values cannot determine the 4 parameters of two_compartment_iv"
    assert table.reason[6].startswith("0 values")
    for name in ("theta", "se", "ci_low", "ci_high", "chi2_red", "covariance"):
        np.testing.assert_array_equal(getattr(table, name)[:4], getattr(alone, name))
        if name != "covariance":
            assert np.isnan(getattr(table, name)[4:]).all()
    with pytest.raises(ValueError, match="4 values cannot determine"):
        table[5]


def test_curves_of_nothing_and_below_zero_raise_no_alarm():
    y = np.array([np.zeros(8), -np.ones(8), 16 * np.exp(-0.5 * TIMES)])
    table = fit_many(TIMES, y, "one_compartment_iv", dose=32.0)
    np.testing.assert_allclose(table.theta[2], [1.0, 2.0], rtol=1e-6)
    assert table.reason == ("no value is above 0, so there is no curve to fit",) * 2 + ("",)


def test_order_of_curves_does_not_matter():
    _, y = curves(6)
    order = np.array([4, 0, 5, 2, 1, 3])
    a, b = fit_many(TIMES, y, "two_compartment_iv"), fit_many(TIMES, y[order], "two_compartment_iv")
    np.testing.assert_array_equal(a.theta[order], b.theta)
    np.testing.assert_array_equal(a.se[order], b.se)


def test_times_and_doses_of_each_curve():
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(0.05, 10, (3, 7)), axis=1)
    dose, cl, v = np.array([50.0, 100.0, 200.0]), np.array([1.0, 2.0, 4.0]), np.array([3.0, 4.0, 5.0])
    y = (dose / v)[:, None] * np.exp(-(cl / v)[:, None] * t)
    table = fit_many(t, y, "one_compartment_iv", dose=dose)
    np.testing.assert_allclose(table.theta, np.stack([cl, v], axis=1), rtol=1e-8)
    assert table[1]["cl"].value == pytest.approx(2.0)
    infused = Doses(dose[:, None], 0.0, 2.0)
    y = solve(build("one_compartment_iv"), np.stack([cl, v], 1), Design(t, inputs={"dose": infused})).y[:, :, 0]
    table = fit_many(t, y, "one_compartment_iv", dose=infused)
    np.testing.assert_allclose(table.theta, np.stack([cl, v], axis=1), rtol=1e-7)
    assert table[2]["v"].value == pytest.approx(5.0)


def test_units_of_values_and_of_time_scale_parameters_and_nothing_else():
    _, y = curves(4)
    a = fit_many(TIMES, y, "two_compartment_iv")
    for value, time in ((1e6, 1.0), (1e-6, 1.0), (1.0, 60.0)):
        b = fit_many(TIMES * time, y * value, "two_compartment_iv")
        powers = np.array([1 / value / time, 1 / value, 1 / value / time, 1 / value])
        np.testing.assert_allclose(b.theta, a.theta * powers, rtol=1e-7)
        np.testing.assert_allclose(b.se, a.se * powers, rtol=1e-5)
        np.testing.assert_allclose(b.chi2_red, a.chi2_red, rtol=1e-7)


def test_a_delay_can_be_freed_over_frames():
    graph = build("one_tissue")
    theta = np.array([[6.0, 2.0, 0.05, 0.03], [3.0, 4.0, 0.1, 0.01]])
    design = Design(STARTS[:-1], STARTS[1:], inputs=TISSUE_INPUTS)
    y = solve(graph, theta, design).y[:, :, 0]
    table = fit_many(STARTS[:-1], y, graph, end_h=STARTS[1:], inputs=TISSUE_INPUTS, fixed={"delay": None})
    np.testing.assert_allclose(table.theta, theta, rtol=1e-5)
    held = fit_many(STARTS[:-1], y, graph, end_h=STARTS[1:], inputs=TISSUE_INPUTS)
    assert np.isnan(held.se[:, 3]).all()
    assert (held.theta[:, 3] == 0).all()
    assert (held.chi2_red > 100 * table.chi2_red).all()
    one = table[0]
    assert one["vt"].value == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_many([1, 2], np.ones((2, 3)), "one_compartment_iv"), r"time_h has shape \(1, 2\) and value \(2, 3\)"),
        (lambda: fit_many(np.ones((3, 3)), np.ones((2, 3)), "one_compartment_iv"), "give one time for each value, or for each column"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", dose=[1, 2, 3]),
         r"dose has shape \(3,\); give one number, or one for each of the 2 curves"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", dose=-1), "amount of a dose has"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", se=[1, 2]),
         r"se has shape \(2,\) and value \(2, 3\); give one number, one for each column"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", se=-0.1), "se has values below 0"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", end_h=[1, 2]), r"end_h has shape \(1, 2\)"),
        (lambda: fit_many([1, 2, np.nan], np.ones((2, 3)), "one_compartment_iv"), "sample times have values that are not numbers"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), build("plasma_with_organs", ["liver"])),
         "plasma_with_organs sees blood, liver; fit_many takes models of one curve"),
        (lambda: fit_many([1, 2, 3], np.ones((2, 3)), "one_compartment_iv", colour=3), "unexpected keyword"),
    ],
)  # fmt: skip
def test_refusals(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_a_logarithm_of_nothing_is_a_reason_of_its_curve():
    y = np.array([[8.0, 4.0, 2.0, 0.0], [8.0, 4.0, 2.0, 1.0]])
    table = fit_many([1, 2, 3, 4], y, "one_compartment_iv", scale="log")
    assert table.reason == (
        "a value is 0 or less, which has no logarithm; fit on the linear scale, or leave it out",
        "",
    )
    np.testing.assert_allclose(table.theta[1, 0] / table.theta[1, 1], np.log(2), rtol=1e-8)


def test_errors_that_are_to_be_given_and_are_not_are_a_reason_of_their_curve():
    y = np.array([[8.0, 4.0, 2.0, 1.0], [8.0, 4.0, 2.0, 1.0]])
    said = "weights are to be those given, but a value has no standard error; fill se, or choose other weights"
    table = fit_many([1, 2, 3, 4], y, "one_compartment_iv", weights="given", se=[[1, 1, 0, 1], [1, 1, 1, 1]])
    assert table.reason == (said, "")
    assert fit_many([1, 2, 3, 4], y, "one_compartment_iv", weights="given").reason == (said, said)
