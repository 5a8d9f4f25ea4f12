"""Laws of saturable graphs and of the whole body: mass balance, fixed points, scaling, exact sensitivities."""

from dataclasses import replace

import numpy as np
import pytest

from evbiodist.kinetics.models import saturable
from evbiodist.kinetics.models.catalogue import build, typical
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, SampledCurve
from evbiodist.kinetics.models.solve import Design, bolus, solve

TIMES = np.array([0.0, 0.01, 0.3, 1.0, 4.0, 24.0])
FORMS = {"michaelis_menten": ("half",), "capacity": ("capacity",), "hill": ("half", "steepness")}


def one(*names):
    return Monomial(tuple((n, 1) for n in names))


def mixed(forms, lag=None):
    """Blood, two tissues and a sink; the transfers between them are of the given forms."""
    constants = {"half": one("c"), "capacity": one("c"), "steepness": one("h")}
    edges = [("blood", "liver", "k1"), ("liver", "blood", "k2"), ("blood", "spleen", "k3"), ("liver", "out", "k4")]
    transfers = [Transfer(a, b, one(k), form, tuple((n, constants[n]) for n in FORMS.get(form, ())))
                 for (a, b, k), form in zip(edges, forms, strict=True)]  # fmt: skip
    names = ("k1", "k2", "k3", "k4", "c", "h", "f", "v", "lag")
    scales = {"f": "logit", "lag": "linear"}
    return RateGraph("mixed", "", "", ("blood", "liver", "spleen", "out"),
                     tuple(ParameterSpec(n, "", "", scale=scales.get(n, "log")) for n in names), tuple(transfers),
                     (Seen("blood", (("blood", Monomial((("v", -1),))),)), Seen("liver", (("liver", ONE), ("blood", one("f")))),
                      Seen("all", tuple((c, ONE) for c in ("blood", "liver", "spleen", "out")))),
                     (Port("dose", (("blood", one("f")), ("spleen", Monomial((("1-f", 1),)))), lag),))  # fmt: skip


def draws(n, rng, lag=False):
    theta = np.exp(rng.normal(0, 0.8, (n, 9)))
    theta[:, 4] *= 3
    theta[:, 6], theta[:, 8] = rng.uniform(0.2, 0.9, n), rng.uniform(0.1, 0.6, n) if lag else 0.0
    return theta


MIXES = [("michaelis_menten", "first_order", "capacity", "first_order"), ("hill", "michaelis_menten", "capacity", "hill"),
         ("capacity", "first_order", "first_order", "michaelis_menten")]  # fmt: skip


@pytest.mark.parametrize("forms", MIXES)
def test_amounts_plus_excreted_are_the_dose(forms):
    theta = draws(4, np.random.default_rng(1))
    design = Design(TIMES, inputs={"dose": Doses([3, 5, 2], [0, 0.5, 4], [0, 2, 0])})
    amounts = solve(mixed(forms), theta, design).amounts
    given = np.array([3.0, 3.0, 3.0, 3 + 5 * 0.25, 10.0, 10.0])
    np.testing.assert_allclose(amounts.sum(axis=2), np.tile(given, (4, 1)), rtol=1e-10)


def test_the_whole_body_keeps_the_dose():
    graph = build("ev_whole_body", species="mouse", weight_g=25)
    closed = replace(graph, compartments=(*graph.compartments, "sink"),
                     transfers=tuple(replace(t, target=t.target or "sink") for t in graph.transfers))  # fmt: skip
    theta = typical(graph) * np.exp(np.random.default_rng(2).normal(0, 0.5, (3, len(graph.names))))
    amounts = solve(closed, theta, bolus(closed, TIMES, 100.0)).amounts
    np.testing.assert_allclose(amounts.sum(axis=2), 100.0, rtol=1e-10)
    assert (amounts > -1e-9).all()
    np.testing.assert_allclose(amounts[:, :, :-1], solve(graph, theta, bolus(graph, TIMES, 100.0)).amounts, atol=1e-7)


@pytest.mark.parametrize("name", ["ev_whole_body", "ev_whole_body_linear"])
@pytest.mark.parametrize("species", ["mouse", "rat", "monkey", "human"])
def test_without_uptake_and_loss_a_uniform_concentration_stays(name, species):
    """The law a much-copied nanoparticle PBPK breaks: the liver's outflow has to hold spleen and gut flow."""
    graph = build(name, species=species)
    theta = dict(zip(graph.names, typical(graph), strict=True))
    theta |= {n: 0.0 for n in theta if n.startswith(("ps_", "cl_"))}
    theta = np.array(list(theta.values()))
    volume = np.array([theta[graph.names.index(f"v_{c}")] if f"v_{c}" in graph.names
                       else theta[graph.names.index(f"v_vessel_{c[:-7]}")] if c.endswith("_vessel") else 0.0
                       for c in graph.compartments])  # fmt: skip
    np.testing.assert_allclose(graph.matrix(theta) @ volume, 0.0, atol=1e-12 * np.abs(graph.matrix(theta)).max())
    # and from a bolus all blood comes to one concentration
    amounts = graph.amounts(theta, np.array([24.0]), 100.0)[0]
    np.testing.assert_allclose(amounts, 100.0 * volume / volume.sum(), rtol=1e-7, atol=1e-9)


def test_with_exchange_but_no_loss_tissue_and_blood_come_to_kp():
    graph = build("ev_whole_body", species="mouse")
    theta = dict(zip(graph.names, typical(graph), strict=True))
    theta |= {n: 0.0 for n in theta if n.startswith("cl_")}
    theta |= {"kp": 2.0} | {n: 5.0 for n in theta if n.startswith("ps_")}
    amounts = dict(zip(graph.compartments, graph.amounts(np.array(list(theta.values())), np.array([500.0]), 100.0)[0],
                       strict=True))  # fmt: skip
    for organ in ("lung", "liver", "brain", "rest"):
        ratio = (amounts[f"{organ}_tissue"] / theta[f"v_tissue_{organ}"]) / (amounts["vein"] / theta["v_vein"])
        assert ratio == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("forms", MIXES)
def test_faster_rates_are_a_faster_clock(forms):
    theta, factor = draws(3, np.random.default_rng(3)), 3.7
    faster = theta.copy()
    faster[:, :4] *= factor
    a = solve(mixed(forms), theta, bolus(mixed(forms), TIMES * factor, 5.0)).y
    b = solve(mixed(forms), faster, bolus(mixed(forms), TIMES, 5.0)).y
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("forms", MIXES)
def test_the_unit_of_amounts_does_not_matter(forms):
    """Dose and half-saturating amounts in another unit: 1e10 particles are solved as 100 % are."""
    theta, factor = draws(3, np.random.default_rng(4)), 1e8
    other = theta.copy()
    other[:, 4] *= factor
    a = solve(mixed(forms), theta, bolus(mixed(forms), TIMES, 5.0), derivatives=True)
    b = solve(mixed(forms), other, bolus(mixed(forms), TIMES, 5.0 * factor), derivatives=True)
    np.testing.assert_allclose(factor * a.y, b.y, rtol=1e-9, atol=1e-12 * factor)
    np.testing.assert_allclose(factor * a.dy, b.dy, rtol=1e-6, atol=1e-8 * factor)


def test_the_body_is_linear_at_low_doses_and_saturates_at_high_ones():
    graph = build("ev_whole_body", species="mouse")
    theta, times = typical(graph), np.array([0.1, 1.0, 4.0])
    eaters = [graph.index[f"{o}_kept"] for o in ("liver", "spleen", "gut")]
    share = {dose: graph.amounts(theta, times, dose) / dose for dose in (1e-6, 1e-4, 1e4, 1e6)}
    np.testing.assert_allclose(share[1e-6], share[1e-4], rtol=1e-5)
    assert (share[1e4][:, eaters] < 0.5 * share[1e-4][:, eaters]).all()
    assert (share[1e4][:, graph.index["vein"]] > share[1e-4][:, graph.index["vein"]]).all()
    most = theta[[graph.names.index(f"capacity_{o}") for o in ("liver", "spleen", "gut")]]
    assert (1e6 * share[1e6][:, eaters] < most).all()


def test_with_huge_capacities_the_exact_solver_says_the_same():
    linear = build("ev_whole_body_linear", species="mouse")
    full = build("ev_whole_body", species="mouse")
    theta = dict(zip(full.names, typical(full), strict=True))
    theta |= {n: 1e14 for n in theta if n.startswith("capacity")}
    for design in (bolus(full, TIMES, 100.0),
                   Design(TIMES[:-1], TIMES[1:], inputs={"dose": Doses([50, 50], [0, 2], [0.5, 0])})):  # fmt: skip
        a = solve(full, np.array([list(theta.values())]), design, derivatives=True)
        b = solve(linear, np.array([[theta[n] for n in linear.names]]), design, derivatives=True)
        shared = [full.names.index(n) for n in linear.names]
        np.testing.assert_allclose(a.y, b.y, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(a.dy[:, shared], b.dy, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("forms", [("michaelis_menten",) * 4, ("hill",) * 4, ("capacity",) * 4])
def test_forms_with_huge_constants_are_first_order(forms):
    theta = draws(3, np.random.default_rng(5))
    theta[:, 4], theta[:, 5] = 1e13, 1.0
    design = bolus(mixed(forms), TIMES, 5.0)
    a = solve(mixed(forms), theta, design, derivatives=True)
    b = solve(mixed(("first_order",) * 4), theta, design, derivatives=True)
    np.testing.assert_allclose(a.y, b.y, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(a.dy, b.dy, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("given", ["doses", "curve"])
@pytest.mark.parametrize("forms", MIXES)
def test_sensitivities_are_central_differences(forms, given, frames):
    graph = mixed(forms, "lag")
    theta = draws(2, np.random.default_rng(6), lag=True)
    inputs = {"doses": Doses([3, 5, 2], [0, 0.5, 2.0], [0, 1.2, 0]),
              "curve": SampledCurve([0.2, 0.5, 3.0, 8.0], [4.0, 9.0, 1.0, 0.5])}  # fmt: skip
    times = np.array([0.05, 0.9, 2.35, 4.0, 12.0])
    design = Design(times[:-1], times[1:] if frames else None, inputs={"dose": inputs[given]})
    exact = saturable.solve(graph, theta, design, derivatives=True)
    step = 1e-4 * np.array([-2, -1, 1, 2])
    moved = graph.to_search(theta) + step[:, None, None, None] * np.eye(9)[:, None]  # (step, parameter, problem, p)
    y = saturable.solve(graph, graph.from_search(moved).reshape(-1, 9), design, rtol=1e-11).y
    y = y.reshape(4, 9, 2, *y.shape[1:])
    numeric = ((y[0] - 8 * y[1] + 8 * y[2] - y[3]) / (12 * 1e-4)).swapaxes(0, 1)
    np.testing.assert_allclose(exact.dy, numeric, rtol=5e-7, atol=5e-7)


def test_sensitivities_of_the_body_are_central_differences():
    graph = build("ev_whole_body", species="mouse")
    theta = typical(graph)[None]
    design = bolus(graph, [0.02, 0.5, 4.0], 100.0)
    exact = solve(graph, theta, design, derivatives=True)
    names = ("cl_up_liver", "capacity_liver", "kp", "q_gut", "v_vein", "ps_brain", "k_degrade")
    which = [graph.names.index(n) for n in names]
    moved = theta * np.exp(1e-4 * np.array([1, -1])[:, None, None] * np.eye(len(graph.names))[which])
    y = saturable.solve(graph, moved.reshape(-1, len(graph.names)), design, rtol=1e-11).y
    up, down = y.reshape(2, len(which), *y.shape[1:])
    np.testing.assert_allclose(exact.dy[0, which], (up - down) / 2e-4, rtol=1e-5, atol=1e-6)


def test_typical_vesicles_behave_as_published():
    """Blood half-life of minutes (< 10 min, Lazaro-Ibanez 2021); 125I-exosomes at 4 h: liver 28, lung 7, spleen 1.6 % of
    the dose (Morishita 2015, J Pharm Sci 104:705); an unperfused brain holds some 0.3-1 % (Wiklander 2015: about 1)."""
    graph = build("ev_whole_body", species="mouse", weight_g=20)
    times = np.array([1.0, 5.0, 10.0, 240.0]) / 60
    y = dict(zip(graph.seen, graph.predict(typical(graph), times, 100.0)[0].T, strict=True))
    half_life_min = 4 * np.log(2) / np.log(y["blood"][0] / y["blood"][1])
    assert 1.0 < half_life_min < 10.0
    assert 20 < y["liver"][3] < 36
    assert 4 < y["lung"][3] < 10
    assert 0.8 < y["spleen"][3] < 2.5
    assert 0.1 < y["brain"][3] < 1.0
    assert y["liver"][3] > y["lung"][3] > y["spleen"][3] > y["brain"][3]
