"""What follows from a fit: closed forms, integrals of the curve itself, and every gradient against differences."""

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.derived import derived, organ_amounts, too_far
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.inputs import Doses, Exponentials
from evbiodist.kinetics.models.solve import Design, solve

ORGANS = ("brain", "liver")
CURVE = Exponentials([80.0, 15.0], [9.0, 0.3])


def graph_of(name):
    return build(name, ORGANS if needs_organs(name) else ())


LINEAR = sorted(n for n in catalogue() if graph_of(n).linear and not n.startswith("ev_whole_body"))
DOSED = [n for n in LINEAR if graph_of(n).ports[0].name == "dose"]


def values_of(graph, seed=3):
    theta = np.exp(np.random.default_rng(seed).normal(0, 0.7, len(graph.names)))
    return np.array(
        [{"logit": 0.3, "linear": 0.05}.get(p.scale, v) for p, v in zip(graph.parameters, theta, strict=True)]
    )


def design_of(graph, doses=None):
    dose = Doses(50.0) if doses is None else doses
    return Design([0.5, 2.0, 24.0], inputs={p.name: dose if p.name == "dose" else CURVE for p in graph.ports})


def found_at(graph, theta, doses=None):
    return {d.name: d for d in derived(graph, theta, design_of(graph, doses), "pct_id", 24.0)}


@pytest.mark.parametrize("name", LINEAR)
def test_every_gradient_is_that_of_central_differences(name):
    graph = graph_of(name)
    theta = values_of(graph)
    u, here = graph.to_search(theta), found_at(graph, theta)
    assert bool(here) == (name != "reference_tissue")  # whose parameters are what is asked for
    for i in range(len(u)):
        step = 1e-5 * np.eye(len(u))[i]
        up, down = (found_at(graph, graph.from_search(u + s)) for s in (step, -step))
        for key, d in here.items():
            numeric = (up[key].value - down[key].value) / 2e-5
            assert d.gradient[i] == pytest.approx(numeric, rel=2e-5, abs=2e-6 * abs(d.value)), (key, graph.names[i])


@pytest.mark.parametrize("name", [n for n in DOSED if n.startswith("plasma")])
def test_amounts_of_organs_are_those_of_the_model(name):
    graph = graph_of(name)
    theta = values_of(graph)
    found = {d.name: d for d in organ_amounts(graph, theta, design_of(graph), "pct_id", 24.0)}
    x = graph.amounts(theta, np.geomspace(1e-3, 24, 4000), 50.0)
    for organ in ORGANS:
        places = [c for c in graph.compartments if c in (organ, f"{organ}_kept")]
        held = x[:, [graph.index[c] for c in places]].sum(axis=1)
        assert found[f"{organ}_uptake_pct_id"].value == pytest.approx(held[-1], rel=1e-9)
        assert found[f"{organ}_peak_pct_id"].value == pytest.approx(held.max(), rel=2e-3)


@pytest.mark.parametrize("name", DOSED)
def test_areas_and_residence_times_are_those_of_the_curve(name):
    """Against the trapezium rule on the curve itself, to a time when nothing is left; organs that keep do not matter."""
    graph = graph_of(name)
    theta = values_of(graph)
    if "lag" in graph.names:
        theta[graph.names.index("lag")] = 0.0
    d = found_at(graph, theta)
    t = np.r_[0, np.geomspace(1e-4, 60 * d["half_life"].value, 6000)]
    y = solve(graph, theta[None], Design(t, inputs={"dose": Doses(50.0)})).y[0, :, 0]
    area, moment = np.trapezoid(y, t), np.trapezoid(y * t, t)
    assert d["auc_inf"].value == pytest.approx(area, rel=1e-4)
    assert d["mrt_inf"].value == pytest.approx(moment / area, rel=1e-4)
    clearance = dict(zip(graph.names, theta, strict=True)).get("cl") or d["cl"].value
    fraction = dict(zip(graph.names, theta, strict=True)).get("f", 1.0)
    assert d["auc_inf"].value == pytest.approx(50.0 * fraction / clearance, rel=1e-9)
    if "vss" in d:
        assert d["vss"].value == pytest.approx(clearance * moment / area, rel=2e-4)


def test_two_compartments_by_the_textbook():
    """Gabrielsson & Weiner 2016, ch. 2.5: alpha, beta, Vss = V1 + V2, MRT = Vss / CL."""
    cl, v1, q, v2 = 3.0, 5.0, 4.0, 20.0
    d = found_at(build("two_compartment_iv"), np.array([cl, v1, q, v2]))
    k10, k12, k21 = cl / v1, q / v1, q / v2
    root = np.sqrt((k10 + k12 + k21) ** 2 - 4 * k10 * k21)
    assert d["half_life"].value == pytest.approx(2 * np.log(2) / (k10 + k12 + k21 - root))
    assert d["half_life_initial"].value == pytest.approx(2 * np.log(2) / (k10 + k12 + k21 + root))
    assert d["vss"].value == pytest.approx(v1 + v2)
    assert d["mrt_inf"].value == pytest.approx((v1 + v2) / cl)
    assert d["auc_inf"].value == pytest.approx(50 / cl)


def test_area_counts_every_dose():
    graph, theta = build("one_compartment_iv"), np.array([2.0, 6.0])
    d = found_at(graph, theta, Doses([30.0, 20.0], [0.0, 5.0], [0.0, 2.0]))
    assert d["auc_inf"].value == pytest.approx(25.0)


def test_an_infusion_does_not_lengthen_the_residence_time():
    """MRT is the molecule's: half of the infusion is not in it (Gabrielsson & Weiner 2016, ch. 2)."""
    graph, theta = build("one_compartment_iv"), np.array([2.0, 6.0])
    assert found_at(graph, theta, Doses(50.0, 0.0, 4.0))["mrt_inf"].value == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "key", "want"),
    [
        ("one_tissue", "vt", lambda p: p["k1"] / p["k2"]),
        ("two_tissue", "vt", lambda p: p["k1"] / p["k2"] * (1 + p["k3"] / p["k4"])),
        ("two_tissue", "bp_nd", lambda p: p["k3"] / p["k4"]),
        ("two_tissue_irreversible", "ki", lambda p: p["k1"] * p["k3"] / (p["k2"] + p["k3"])),
    ],
)
def test_tissues_have_their_closed_forms(name, key, want):
    """Innis et al. 2007, J Cereb Blood Flow Metab 27:1533."""
    graph = build(name)
    theta = values_of(graph)
    assert found_at(graph, theta)[key].value == pytest.approx(
        want(dict(zip(graph.names, theta, strict=True))), rel=1e-12
    )


def test_which_quantities_a_tissue_has():
    names = {n: set(found_at(build(n), values_of(build(n)))) for n in LINEAR if n not in DOSED}
    assert names == {"one_tissue": {"vt"}, "two_tissue": {"vt", "bp_nd"}, "two_tissue_irreversible": {"ki"},
                     "reference_tissue": set()}  # fmt: skip


def test_organs_that_keep_what_they_get_do_not_hide_the_area():
    """All of K is singular, the part that leads to blood is not; clearance is what leaves blood for good."""
    graph = build("plasma_with_organs_irreversible", ORGANS)
    v, k_el, brain, liver = 2.0, 0.5, 0.1, 0.7
    d = found_at(graph, np.array([v, k_el, brain, liver]))
    assert abs(np.linalg.det(graph.matrix(np.array([v, k_el, brain, liver])))) < 1e-12
    assert d["cl"].value == pytest.approx(v * (k_el + brain + liver))
    assert d["vss"].value == pytest.approx(v)
    assert d["half_life"].value == pytest.approx(np.log(2) / (k_el + brain + liver))
    mixed = build("plasma_with_organs_mixed", ORGANS)
    theta = values_of(mixed)
    p = dict(zip(mixed.names, theta, strict=True))
    lost = sum(p[f"k_in_{o}"] * p[f"k_keep_{o}"] / (p[f"k_keep_{o}"] + p[f"k_out_{o}"]) for o in ORGANS)
    assert found_at(mixed, theta)["cl"].value == pytest.approx(p["v"] * (p["k_el"] + lost))


def test_without_elimination_there_is_no_area_and_nothing_is_invented():
    d = found_at(build("one_compartment_iv"), np.array([0.0, 6.0]))
    for name in ("auc_inf", "mrt_inf", "vss"):
        assert name not in d


def test_what_rests_on_the_curve_beyond_the_last_sample():
    graph, theta = build("one_compartment_iv"), np.array([2.0, 6.0])
    half = np.log(2) * 3
    for last, share in ((0.9 * half, 100 * 0.5**0.9), (4 * half, 6.25)):
        found = too_far(graph, theta, design_of(graph), last, max_extrap_pct=share + 0.01)
        assert "auc_inf" not in found
        assert "auc_inf" in too_far(graph, theta, design_of(graph), last, max_extrap_pct=share - 0.01)
        assert ("half_life" in found) == (last < 2 * half)
    tissue = build("one_tissue")
    assert too_far(tissue, values_of(tissue), design_of(tissue), 1.0, 20.0) == set()


def test_what_rests_on_a_parameter_at_its_bound_says_so():
    t = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    found = fit(curve_data(t, 16 * np.exp(-0.5 * t)), "one_compartment_iv", dose=32.0, bounds={"cl": (1.5, None)})
    assert found["cl"].flags == ("at_bound",)
    assert found["cl"].reason == "at its bound: the data do not carry it"
    assert "rests on cl, which the data do not carry" in found["auc_inf"].reason
    assert np.isnan(found["auc_inf"].value)
    assert found["v"].reason == ""
