"""Fitting: finds the truth, its intervals cover, and data that cannot carry a model are refused in words."""

import numpy as np
import pandas as pd
import pytest

from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.models.catalogue import build
from evbiodist.study.model import OBSERVATION_COLUMNS

ORGANS = ("brain", "kidney", "liver", "spleen")
TRUE = {"v": 2.0, "k_el": 0.5, "k_in_brain": 0.03, "k_out_brain": 0.03, "k_in_kidney": 0.2, "k_out_kidney": 0.15,
        "k_in_liver": 1.2, "k_out_liver": 0.05, "k_in_spleen": 0.1, "k_out_spleen": 0.05}  # fmt: skip
TIMES = (0.083, 0.5, 2.0, 8.0, 24.0)


def observe(graph, theta, rng, animals=3, cv=0.15, common=0.08, times=TIMES):
    """Serial sacrifice: every animal has one time; organs of an animal share a factor."""
    rows = []
    for t in times:
        y = graph.predict(theta, np.array([t]), 100.0)[0][0]
        for a in range(animals):
            whole = np.exp(rng.normal(0, common)) if common else 1.0
            for name, value in zip(graph.seen, y, strict=True):
                noise = np.exp(rng.normal(0, cv)) if cv else 1.0
                rows.append({"subject": f"{t}-{a}", "organ": name, "time_h": t, "value": value * whole * noise,
                             "se": 0.01 * value, "unit": "pct_id_per_g" if name == "blood" else "pct_id",
                             "below_lloq": False, "label": "x", "group": "g", "study": "s"})  # fmt: skip
    numbers = dict.fromkeys(("se_systematic", "sd", "n", "mass_g", "lloq", "vessel_blood"), float)
    return pd.DataFrame(rows, columns=list(OBSERVATION_COLUMNS)).astype(numbers)


@pytest.mark.parametrize("name", ["one_compartment_iv", "two_compartment_iv", "plasma_with_organs"])
def test_noise_free_curves_give_the_parameters_back(name):
    graph = build(name, ORGANS if name == "plasma_with_organs" else ())
    values = {"cl": 2.5, "v": 2.0, "v1": 2.0, "q": 1.5, "v2": 8.0, **TRUE}
    theta = np.array([values[n] for n in graph.names])
    times = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 12.0, 24.0)
    found = fit(observe(graph, theta, np.random.default_rng(0), 1, 0.0, 0.0, times), name)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-5)
    assert found.params["v" if "v" in graph.names else "v1"].value == pytest.approx(2.0, rel=1e-5)


def test_intervals_cover_over_many_studies():
    """80 studies of 3 animals a time: coverage of uptake, peak and rates, all together, and bias."""
    graph = build("plasma_with_organs", ORGANS)
    theta = np.array([TRUE[n] for n in graph.names])
    rng = np.random.default_rng(11)
    last = graph.amounts(theta, np.array([24.0]), 100.0)[0]
    truth = {f"{o}_uptake_pct_id": last[graph.compartments.index(o)] for o in ORGANS}
    truth |= {n: TRUE[n] for n in graph.names}
    inside, errors = [], []
    for _ in range(80):
        found = fit(observe(graph, theta, rng), "plasma_with_organs")
        inside += [found[n].ci_low <= v <= found[n].ci_high for n, v in truth.items()]
        errors.append([np.log(found[n].value / v) for n, v in truth.items()])
    assert 0.90 <= np.mean(inside) <= 0.985
    assert np.abs(np.median(errors, axis=0)).max() < 0.12


def test_profile_intervals_agree_with_the_covariance_where_the_model_is_tame():
    graph = build("one_compartment_iv")
    found = fit(observe(graph, np.array([2.5, 2.0]), np.random.default_rng(3), times=(0.1, 0.3, 0.6, 1, 2)), graph.name)
    for name, (low, high) in found.ci().items():
        assert low < found[name].value < high
        assert np.log(high / low) == pytest.approx(np.log(found[name].ci_high / found[name].ci_low), rel=0.25)
    with pytest.raises(ValueError, match="not a parameter of one_compartment_iv"):
        found.ci(["nonsense"])


def test_shared_errors_widen_intervals():
    graph = build("plasma_with_organs", ORGANS)
    rows = observe(graph, np.array([TRUE[n] for n in graph.names]), np.random.default_rng(5))
    plain = fit(rows, "plasma_with_organs")["brain_uptake_pct_id"]
    shared = fit(
        rows.assign(se_systematic=0.2 * rows["value"].where(rows["organ"] == "brain", 0.0)), "plasma_with_organs"
    )
    assert shared["brain_uptake_pct_id"].se > 1.5 * plain.se
    assert shared["liver_uptake_pct_id"].se < 1.3 * fit(rows, "plasma_with_organs")["liver_uptake_pct_id"].se


def test_units_scale_parameters_and_nothing_else():
    graph = build("two_compartment_iv")
    rows = observe(graph, np.array([2.5, 2.0, 1.5, 8.0]), np.random.default_rng(6))
    a = fit(rows, graph.name)
    scaled = rows.assign(value=10 * rows["value"], se=10 * rows["se"])
    b = fit(scaled, graph.name, dose=1000.0)
    for name in graph.names:
        assert b[name].value == pytest.approx(a[name].value, rel=1e-4)
        assert b[name].se == pytest.approx(a[name].se, rel=1e-2)


def test_order_of_rows_does_not_matter():
    graph = build("plasma_with_organs", ORGANS)
    rows = observe(graph, np.array([TRUE[n] for n in graph.names]), np.random.default_rng(7))
    a, b = fit(rows, graph.name), fit(rows.sample(frac=1, random_state=1), graph.name)
    np.testing.assert_array_equal(a.theta, b.theta)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[r["organ"] != "blood"], "no blood, plasma or serum was measured"),
        (lambda r: r[r["time_h"] < 1], "blood was measured at 2 times; three or more are needed"),
        (lambda r: r.assign(unit="au"), "no organ has an amount in pct_id; give organ masses"),
        (lambda r: r[r["organ"] == "blood"], "no organ has an amount in pct_id"),
    ],
)
def test_data_that_cannot_carry_the_model_are_refused(change, words):
    graph = build("plasma_with_organs", ORGANS)
    rows = observe(graph, np.array([TRUE[n] for n in graph.names]), np.random.default_rng(8))
    with pytest.raises(ValueError, match=words):
        fit(change(rows), "plasma_with_organs")


def test_flags_say_what_the_data_do_not_carry():
    """A curve with one phase cannot determine two compartments: some parameter must say so."""
    graph = build("one_compartment_iv")
    found = fit(observe(graph, np.array([2.5, 2.0]), np.random.default_rng(9), times=(0.1, 0.3, 0.6, 1, 2)),
                "two_compartment_iv")  # fmt: skip
    flags = {f for e in found.estimates for f in e.flags}
    assert flags & {"imprecise", "correlated", "at_bound"}


def test_curve_bands_hold_the_true_curve():
    graph = build("plasma_with_organs", ORGANS)
    theta = np.array([TRUE[n] for n in graph.names])
    rng, grid, inside = np.random.default_rng(10), np.geomspace(0.1, 24, 15), []
    for _ in range(25):
        bands = fit(observe(graph, theta, rng), graph.name).predict(grid)
        true = graph.predict(theta, grid, 100.0)[0]
        inside += [(low <= true[:, i]) & (true[:, i] <= high) for i, (_, low, high) in enumerate(bands.values())]
    assert 0.88 <= np.mean(inside) <= 0.99
