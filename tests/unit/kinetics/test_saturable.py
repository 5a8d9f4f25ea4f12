"""Saturable forms, their solver's promises, physiology, and the catalogue's whole-body entries."""

from itertools import pairwise

import numpy as np
import pytest

from evbiodist.kinetics.models import saturable
from evbiodist.kinetics.models.catalogue import build, build_entry, catalogue, read_models, typical
from evbiodist.kinetics.models.forms import FORMS
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, Exponentials, SampledCurve
from evbiodist.kinetics.models.physiology import KEYS, SPECIES, faster_than_liver, more_than_flow, physiology
from evbiodist.kinetics.models.saturable import solve_with_reasons
from evbiodist.kinetics.models.solve import Design, bolus, solve
from evbiodist.study.flags import FLAGS

K, HALF = Monomial((("k", 1),)), Monomial((("half", 1),))
WHOLE = build("ev_whole_body", species="mouse", weight_g=20)


def decaying(form="michaelis_menten", constants=(("half", HALF),), lag=None, target=None):
    parameters = [ParameterSpec(n, "", "", scale="linear" if n == "lag" else "log") for n in ("k", "half", "lag")]
    places = ("a", "b") if target else ("a",)
    return RateGraph("decaying", "", "", places, tuple(parameters), (Transfer("a", target, K, form, constants),),
                     (Seen("a", (("a", ONE),)),), (Port("dose", (("a", ONE),), lag),))  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda f: f.name)
def test_derivatives_of_a_form_are_its_slopes(form):
    rng = np.random.default_rng(1)
    rate, source, target = rng.uniform(0.5, 2, (3, 5))
    constants = tuple(rng.uniform(1, 3, 5) for _ in form.needs)
    step = 1e-6

    def value(rate, constants, source, target):
        return form.flux(rate, constants, source, target).value

    found = form.flux(rate, constants, source, target)
    pairs = [(found.by_rate, lambda d: value(rate + d, constants, source, target)),
             (found.by_source, lambda d: value(rate, constants, source + d, target)),
             (found.by_target, lambda d: value(rate, constants, source, target + d))]  # fmt: skip
    for i, by in enumerate(found.by_constants):
        moved = [lambda d, i=i: value(rate, tuple(c + d * (j == i) for j, c in enumerate(constants)), source, target)]
        pairs.append((by, moved[0]))
    for exact, function in pairs:
        np.testing.assert_allclose(exact, (function(step) - function(-step)) / (2 * step), rtol=1e-7, atol=1e-8)
    assert all(np.shape(a) == (5,) for a in (*found[:4], *found.by_constants))


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda f: f.name)
def test_forms_are_first_order_at_low_amounts(form):
    one = np.ones(1)
    found = form.flux(2 * one, tuple(3 * one for _ in form.needs), 1e-9 * one, 0 * one)
    assert found.value[0] == pytest.approx(2e-9, rel=1e-8)
    nothing = form.flux(2 * one, tuple(3 * one for _ in form.needs), 0 * one, 0 * one)
    assert nothing.value[0] == 0
    assert all(np.isfinite(a).all() for a in (*nothing[:4], *nothing.by_constants))


def test_a_steep_hill_does_not_overflow():
    one = np.ones(1)
    high, low = (FORMS["hill"].flux(one, (one, 1e3 * one), x * one, one) for x in (50.0, 0.5))
    assert all(np.isfinite(a).all() for f in (high, low) for a in (*f[:4], *f.by_constants))
    assert (high.value[0], low.value[0]) == (0.0, 0.5)


def test_equations_print_the_forms():
    assert "- k * A_a/(1 + A_a/half)" in decaying().equations()[0]
    hill = decaying("hill", (("half", HALF), ("steepness", Monomial((("lag", 1),)))))
    assert "k * A_a/(1 + (A_a/half)^lag)" in hill.equations()[0]
    full = decaying("capacity", (("capacity", Monomial((("half", 1), ("lag", 1)))),), target="b")
    assert "k * A_a * (1 - A_b/(half*lag))" in full.equations()[0]
    assert "[a] --k (capacity)--> [b]" in full.diagram()


def test_solve_sends_saturable_graphs_here_and_linear_ones_not():
    graph, theta = decaying(), np.array([[1.0, 2.0, 0.0]])
    a = solve(graph, theta, bolus(graph, [1.0], 10.0), derivatives=True)
    b = saturable.solve(graph, theta, bolus(graph, [1.0], 10.0), derivatives=True)
    np.testing.assert_array_equal(a.y, b.y)
    np.testing.assert_array_equal(a.dy, b.dy)
    assert not decaying().linear
    assert decaying("first_order", ()).linear


def test_a_failed_problem_says_why_and_touches_no_other():
    graph = decaying("first_order", ())
    good = np.array([0.7, 2.0, 0.0])
    theta = np.array([good, [np.nan, 2.0, 0.0], [-1e6, 2.0, 0.0], good])
    with np.errstate(all="raise"):
        found = solve_with_reasons(graph, theta, bolus(graph, [0.5, 3.0], 10.0), derivatives=True)
    alone = solve_with_reasons(graph, theta[:1], bolus(graph, [0.5, 3.0], 10.0), derivatives=True)
    assert found.reasons[0] == found.reasons[3] == ""
    assert found.reasons[1] == "parameter k is not a finite number"
    assert found.reasons[2].startswith("no step is short enough at") or "steps led only to" in found.reasons[2]
    assert np.isnan(found.solution.y[1:3]).all()
    assert np.isnan(found.solution.dy[1:3]).all()
    assert np.isnan(found.solution.amounts[1:3]).all()
    for together, single in zip(found.solution, alone.solution, strict=True):
        np.testing.assert_array_equal(together[[0]], single)
        np.testing.assert_array_equal(together[[3]], single)


def test_a_division_by_zero_is_a_reason():
    graph = build("one_compartment_iv")
    found = solve_with_reasons(graph, np.array([[1.0, 0.0], [1.0, 2.0]]), bolus(graph, [1.0], 10.0))
    assert found.reasons == ("a rate is not finite: a parameter that divides is 0", "")
    assert np.isfinite(found.solution.y[1]).all()


def test_what_cannot_be_solved_is_refused_in_words():
    graph = decaying()
    with pytest.raises(ValueError, match="model decaying needs the input dose; give it in the design"):
        solve(graph, np.ones((1, 3)), Design([1.0], inputs={}))
    with pytest.raises(ValueError, match="out of a of form capacity needs a target that fills up"):
        solve(decaying("capacity", (("capacity", HALF),)), np.ones((1, 3)), bolus(graph, [1.0], 1.0))
    with pytest.raises(ValueError, match="out of a of form hill needs the constants half, steepness"):
        solve(decaying("hill"), np.ones((1, 3)), bolus(graph, [1.0], 1.0))
    with pytest.raises(ValueError, match="out of a of form magic needs a registered form"):
        solve(decaying("magic"), np.ones((1, 3)), bolus(graph, [1.0], 1.0))
    for wrong, said in (({"rtol": 1e-16}, "from 1e-13 to 0.01"), ({"rtol": float("nan")}, "from 1e-13 to 0.01"),
                        ({"atol": 0.0}, "expected an amount above 0"), ({"stages": 4}, "expected 3, 5, 7 or 9")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            solve_with_reasons(graph, np.ones((1, 3)), bolus(graph, [1.0], 1.0), **wrong)


def test_problems_with_their_own_times_doses_and_curves_are_as_alone():
    graph = decaying(lag="lag")
    theta = np.array([[1.0, 2.0, 0.0], [0.3, 5.0, 0.4], [2.0, 1.0, 0.1]])
    times = np.array([[0.0, 1.0, 4.0], [0.5, 2.0, 2.5], [1.0, 3.0, 9.0]])
    given = (Doses([[10.0, 5.0], [20.0, 1.0], [7.0, 3.0]], [[0.0, 2.0], [0.5, 1.0], [0.0, 0.1]],
                   [[0.0, 1.0], [0.0, 0.0], [2.0, 0.5]]),
             SampledCurve([0.0, 1.0, 5.0], [[0.0, 4.0, 1.0], [2.0, 1.0, 0.0], [3.0, 3.0, 3.0]]))  # fmt: skip
    for dose in given:
        for end in (None, times + 0.5):
            design = Design(times, end, inputs={"dose": dose})
            together = solve(graph, theta, design, derivatives=True)
            for b in range(3):
                alone = solve(graph, theta[[b]], design.take(slice(b, b + 1)), derivatives=True)
                np.testing.assert_array_equal(together.y[[b]], alone.y)
                np.testing.assert_array_equal(together.dy[[b]], alone.dy)


def test_many_problems_go_in_parts_with_the_same_result(monkeypatch):
    graph = decaying()
    theta = np.exp(np.random.default_rng(2).normal(0, 1, (7, 3)))
    whole = solve(graph, theta, bolus(graph, [0.5, 2.0], 10.0), derivatives=True)
    monkeypatch.setattr(saturable, "_NUMBERS", 1)
    parts = solve(graph, theta, bolus(graph, [0.5, 2.0], 10.0), derivatives=True)
    np.testing.assert_array_equal(whole.y, parts.y)
    np.testing.assert_array_equal(whole.dy, parts.dy)


def test_nothing_is_there_before_the_dose_and_a_sample_at_a_bolus_is_one_after_it():
    graph = decaying()
    y = solve(graph, np.array([[1.0, 2.0, 0.0]]), Design([0, 1, 2, 2.0001], inputs={"dose": Doses([4, 6], [2, 2])})).y
    assert y[0, :2, 0].tolist() == [0.0, 0.0]
    assert y[0, 2, 0] == 10.0
    assert y[0, 3, 0] < 10.0
    nothing = solve(graph, np.array([[1.0, 2.0, 0.0]]), bolus(graph, [0.0, 5.0], 0.0), derivatives=True)
    assert not nothing.y.any()
    assert not nothing.dy.any()


def test_frames_are_means_of_the_curve():
    graph, theta = decaying(), np.array([[1.0, 2.0, 0.0]])
    given = {"dose": Doses([10.0, 20.0], [0.0, 1.5], [0.0, 0.7])}
    edges = np.array([0.0, 0.1, 1.0, 1.5, 3.0, 8.0])
    means = solve(graph, theta, Design(edges[:-1], edges[1:], inputs=given)).y[0, :, 0]
    nodes, weights = np.polynomial.legendre.leggauss(12)
    for start, end, mean in zip(edges[:-1], edges[1:], means, strict=True):
        parts = np.unique(np.clip([start, 1.5, 2.2, end], start, end))
        total = 0.0
        for a, b in pairwise(parts):
            fine = a + (b - a) * (nodes + 1) / 2
            total += solve(graph, theta, Design(fine, inputs=given)).y[0, :, 0] @ weights * (b - a) / 2
        assert mean == pytest.approx(total / (end - start), rel=1e-8)


@pytest.mark.parametrize("stages", [3, 5, 7, 9])
def test_every_number_of_stages_comes_to_the_same(stages):
    theta, design = np.array([[1.0, 2.0, 0.0]]), bolus(decaying(), [0.5, 3.0], 10.0)
    a = solve_with_reasons(decaying(), theta, design, derivatives=True, stages=stages).solution
    b = solve_with_reasons(decaying(), theta, design, derivatives=True, rtol=1e-12).solution
    np.testing.assert_allclose(a.y, b.y, rtol=1e-8)
    np.testing.assert_allclose(a.dy, b.dy, rtol=1e-7, atol=1e-8)


def test_tolerance_is_kept():
    graph = WHOLE
    theta, design = typical(graph)[None], bolus(graph, [0.01, 0.1, 1.0, 24.0], 100.0)
    best = solve_with_reasons(graph, theta, design, rtol=1e-12).solution.amounts
    for rtol in (1e-4, 1e-6, 1e-8):
        found = solve_with_reasons(graph, theta, design, rtol=rtol).solution.amounts
        assert np.abs(found - best).max() < 100 * rtol
    assert np.abs(found - best).max() < 1e-6  # 1e-8 of the dose


def test_curves_that_start_or_end_between_samples():
    """A curve that begins with a jump and a fitted curve are followed as the exact solver does."""
    graph = decaying("first_order", (), lag="lag")
    theta = np.array([[0.8, 1.0, 0.3]])
    for curve in (SampledCurve([1.0, 2.0, 2.5], [5.0, 1.0, 3.0]), Exponentials([8.0, -2.0], [3.0, 0.0], 0.2)):
        design = Design([0.0, 0.4, 1.31, 2.9, 7.0], inputs={"dose": curve})
        exact, ours = solve(graph, theta, design, derivatives=True), saturable.solve(graph, theta, design,
                                                                                    derivatives=True)  # fmt: skip
        np.testing.assert_allclose(ours.y, exact.y, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(ours.dy, exact.dy, rtol=1e-8, atol=1e-8)


# physiology


@pytest.mark.parametrize("species", SPECIES)
def test_volumes_add_up_to_the_body_and_flows_to_the_cardiac_output(species):
    body = physiology(species)
    assert set(body.values) == set(KEYS)
    assert all(v.value > 0 for v in body.values.values())
    volume = {k: v.value for k, v in body.values.items() if k.startswith("volume")}
    assert sum(volume.values()) * 1.04 == pytest.approx(body.weight_g)
    blood = sum(v for k, v in volume.items() if "tissue" not in k)
    assert blood == pytest.approx(body.blood_volume.value)
    flows = {k: v.value for k, v in body.values.items() if k.startswith("flow")}
    assert sum(flows.values()) == pytest.approx(body.cardiac_output.value)
    assert flows["flow_liver"] + flows["flow_spleen"] + flows["flow_gut"] == pytest.approx(body.hepatic_flow.value)
    for v in body.values.values():
        assert np.isnan(v.low) or v.low * (1 - 1e-12) <= v.value <= v.high * (1 + 1e-12)
        assert v.source


def test_physiology_of_a_mouse_is_the_published_one():
    """Hepatic flow 1.8-2.4 mL/min and blood 4.9-9.1 % of 20 g (Brown 1997, httk); cardiac output 8.0-14.6 mL/min."""
    body = physiology("mouse", 20.0)
    assert 1.8 < body.hepatic_flow.value / 60 < 2.4
    assert body.cardiac_output.low / 60 == pytest.approx(8.0, abs=0.05)
    assert body.cardiac_output.high / 60 == pytest.approx(14.6, abs=0.05)
    assert body.blood_volume.low * 1.06 / 20 == pytest.approx(0.049)
    assert body.blood_volume.high * 1.06 / 20 == pytest.approx(0.091)
    heavier = physiology("mouse", 40.0)
    assert heavier.cardiac_output.value / body.cardiac_output.value == pytest.approx(2**0.75)
    assert heavier.values["volume_tissue_liver"].value == pytest.approx(2 * body.values["volume_tissue_liver"].value)


def test_physiology_refuses_in_words():
    with pytest.raises(ValueError, match="there is no physiology of 'mous'; did you mean 'mouse'"):
        physiology("mous")
    for weight in (0.0, -3.0, float("nan")):
        with pytest.raises(ValueError, match="expected a body weight in g above 0"):
            physiology("mouse", weight)


def test_a_half_life_that_the_liver_cannot_cause_is_told():
    assert not faster_than_liver(2 / 60, "mouse", 20.0)
    said = faster_than_liver(0.4 / 60, "mouse", 20.0)
    assert "0.4 min" in said
    assert "trapping in the lung" in said
    assert not faster_than_liver(float("nan"), "mouse")
    assert not more_than_flow(60 * 2.0, "mouse", 20.0)
    assert "is more than the 2.18 mL/min" in more_than_flow(60 * 2.5, "mouse", 20.0)
    assert "faster_than_flow" in FLAGS


# the catalogue


@pytest.mark.parametrize("name", ["ev_whole_body", "ev_whole_body_linear"])
@pytest.mark.parametrize("species", SPECIES)
def test_a_species_fixes_every_flow_and_volume(name, species):
    free = build(name)
    graph = build(name, species=species)
    body = physiology(species)
    fixed = {p.name: p.fixed for p in graph.parameters if p.fixed is not None}
    assert {p.name for p in free.parameters if p.fixed is not None} == set()
    assert set(fixed) == {n for n in graph.names if n.startswith(("q_", "v_"))}
    assert fixed["q_brain"] == pytest.approx(body.values["flow_brain"].value * 1.06)
    per_ml = build(name, species=species, per_ml=1.0)
    assert {p.name: p.fixed for p in per_ml.parameters}["v_vein"] == pytest.approx(body.values["volume_vein"].value)
    assert free.diagram()
    assert free.equations()


def test_the_linear_body_has_no_capacities():
    graph = build("ev_whole_body_linear")
    assert graph.linear
    assert not WHOLE.linear
    assert set(WHOLE.names) - set(graph.names) == {"capacity_liver", "capacity_spleen", "capacity_gut"}


def test_typical_values_need_a_species():
    with pytest.raises(ValueError, match=r"no plausible value for q_liver.*build it with a species"):
        typical(build("ev_whole_body"))
    assert (typical(WHOLE) > 0).all()


def test_clearance_of_the_body_never_exceeds_the_liver_flow():
    """However hungry its phagocytes, the liver takes up no more than its blood brings (and what it lets pass stays)."""
    theta = typical(graph := build("ev_whole_body_linear", species="mouse", weight_g=20))
    theta = dict(zip(graph.names, theta, strict=True)) | {n: 1e-9 for n in graph.names if n.startswith(("ps_", "cl_"))}
    theta |= {"cl_up_liver": 1e5, "k_release": 1e-9, "k_degrade": 1e-9, "k_bile": 1e-9}
    amounts = graph.amounts(np.array(list(theta.values())), np.array([1.0, 1.001]) / 60, 100.0)
    kept, blood = amounts[:, graph.index["liver_kept"]], amounts[0, graph.index["artery"]]
    speed = (kept[1] - kept[0]) / (0.001 / 60)
    flow = theta["q_liver"] + theta["q_spleen"] + theta["q_gut"]
    assert speed < 1.2 * flow * blood / theta["v_artery"]


USER = """
[models.small]
title = "small"
source = "none"
compartments = ["blood", "{o}_kept"]
inputs = [{ name = "dose", into = [{ compartment = "blood" }] }]
parameters = [
  { name = "v", dimension = "dose/value", description = "blood", fixed = "physiology:volume_vein" },
  { name = "k_{o}", dimension = "1/time", description = "uptake" },
  { name = "cap_{o}", dimension = "dose", description = "capacity" },
]
transfers = [
  { from = "blood", to = "{o}_kept", rate = { "k_{o}" = 1 }, form = "capacity", constants = { capacity = { "cap_{o}" = 1 } } },
]
observations = [{ name = "blood", terms = [{ compartment = "blood", factor = { v = -1 } }] }]
[models.small.repeat]
o = ["liver", "spleen"]
[models.small.start]
cap_liver = 3.0
"""


def test_a_user_writes_a_saturable_model_of_a_species(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(USER)
    entry = read_models(path)["small"]
    graph = build_entry("small", entry, species="rat")
    assert graph.names == ("v", "k_liver", "k_spleen", "cap_liver", "cap_spleen")
    assert graph.parameters[0].fixed == pytest.approx(physiology("rat").values["volume_vein"].value * 1.06)
    assert graph.seen == ("blood",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"physiology:volume_vein"', '"physiology:volume_wein"', "did you mean 'volume_vein'"),
        ('"physiology:volume_vein"', '"big"', "expected a number or physiology:"),
        ('description = "uptake" }', 'description = "", fixed = "physiology:flow_big_{o}" }', "no physiology 'flow_big_liver'"),
        ('o = ["liver", "spleen"]', 'o = "liver"', "o is not a list of lower snake case names"),
        ('o = ["liver", "spleen"]', 'o = ["Li ver"]', "o is not a list of lower snake case names"),
        ("cap_liver = 3.0", "cap_liver = -1", "cap_liver is not a number above 0"),
        ("constants = { capacity = { \"cap_{o}\" = 1 } }", "constants = {}", "form capacity needs the constants capacity"),
        ('form = "capacity"', 'form = "capasity"', "did you mean 'capacity'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_users_model_is_said(tmp_path, old, new, said):
    path = tmp_path / "models.toml"
    assert old in USER
    path.write_text(USER.replace(old, new))
    with pytest.raises(ValueError, match=said):
        read_models(path)


def test_every_entry_of_the_catalogue_names_what_it_declares():
    assert {"ev_whole_body", "ev_whole_body_linear"} <= set(catalogue())


def test_what_happens_after_the_last_sample_costs_nothing():
    graph, theta = decaying(), np.array([[1.0, 2.0, 0.0]])
    one = solve_with_reasons(graph, theta, Design([1.0, 2.0], inputs={"dose": Doses(10)}))
    many = solve_with_reasons(
        graph, theta, Design([1.0, 2.0], inputs={"dose": Doses([10, *[5] * 20], [0, *range(3, 23)])})
    )
    np.testing.assert_array_equal(one.solution.y, many.solution.y)
    assert one.steps == many.steps


def test_measured_curves_of_many_knots_take_few_steps_a_knot():
    graph, t = decaying("first_order", ()), np.linspace(0, 3, 61)
    design = Design([1.0, 3.0], inputs={"dose": SampledCurve(t, np.exp(-t) * t)})
    found = solve_with_reasons(graph, np.array([[0.5, 1.0, 0.0]]), design)
    np.testing.assert_allclose(found.solution.y, solve(graph, np.array([[0.5, 1.0, 0.0]]), design).y, rtol=1e-9)
    assert found.steps[0] < 200
