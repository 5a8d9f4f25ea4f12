"""Saturable models against closed forms from outside, and scipy's stiff solver for the rest."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from evbiodist.kinetics.models import saturable
from evbiodist.kinetics.models.catalogue import build, typical
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, SampledCurve
from evbiodist.kinetics.models.solve import Design, bolus

TIMES = np.array([0.0, 0.1, 0.7, 2.0, 5.0, 12.0])


def graph_of(target, form, constant):
    names, k = ("k", "c"), Monomial((("k", 1),))
    places = ("a", "b") if target else ("a",)
    return RateGraph("g", "", "", places, tuple(ParameterSpec(n, "", "") for n in names),
                     (Transfer("a", target, k, form, ((constant, Monomial((("c", 1),))),)),),
                     tuple(Seen(p, ((p, ONE),)) for p in places), (Port("dose", (("a", ONE),)),))  # fmt: skip


def by_lambert(k, half, dose, t):
    """Schnell S, Mendoza C (1997) J Theor Biol 187:207: the closed solution of dx/dt = -k x / (1 + x / half)."""
    return half * lambertw(dose / half * np.exp(dose / half - k * t)).real


def test_michaelis_menten_elimination_is_lamberts_w():
    rng = np.random.default_rng(1)
    theta = np.exp(np.c_[rng.normal(0, 1, 12), rng.normal(0, 1.5, 12)])
    found = saturable.solve(graph_of(None, "michaelis_menten", "half"), theta,
                            bolus(graph_of(None, "michaelis_menten", "half"), TIMES, 5.0), derivatives=True)  # fmt: skip
    k, half = theta[:, :1], theta[:, 1:]
    x = by_lambert(k, half, 5.0, TIMES)
    np.testing.assert_allclose(found.y[:, :, 0], x, rtol=1e-7, atol=1e-9)
    # differentiate F(x) = x - dose + half ln(x / dose) + k half t = 0 implicitly
    slope = -(k * half * TIMES) / (1 + half / x)
    np.testing.assert_allclose(found.dy[:, 0, :, 0], slope, rtol=1e-6, atol=1e-8)
    other = -half * (np.log(x / 5.0) + k * TIMES) / (1 + half / x)
    np.testing.assert_allclose(found.dy[:, 1, :, 0], other, rtol=1e-6, atol=1e-8)


def test_filling_up_is_logistic():
    """dx/dt = -k x (1 - (D - x) / C) with all of D in x: Verhulst's equation, whose solution is a logistic curve."""
    rng = np.random.default_rng(2)
    dose, theta = 5.0, np.exp(np.c_[rng.normal(-0.5, 0.7, 12), rng.normal(1.5, 0.8, 12)])
    graph = graph_of("b", "capacity", "capacity")
    found = saturable.solve(graph, theta, bolus(graph, TIMES, dose))
    k, capacity = theta[:, :1], theta[:, 1:]
    # with r = k (1 - D / C), dx/dt = -r x - k x^2 / C
    r = k * (1 - dose / capacity)
    x = r * dose * np.exp(-r * TIMES) / (r + k * dose / capacity * (1 - np.exp(-r * TIMES)))
    np.testing.assert_allclose(found.y[:, :, 0], x, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.y[:, :, 1], dose - x, rtol=1e-7, atol=1e-9)


def written_by_hand(p, t, x):
    """The whole body as a user writes it, in concentrations (lists of organs spelled out once more on purpose)."""
    c = dict(zip(("vein", "artery"), (x[0] / p["v_vein"], x[1] / p["v_artery"]), strict=True))
    organs = ("lung", "liver", "spleen", "gut", "kidney", "brain", "heart", "muscle", "rest")
    vessel = {o: x[2 + i] / p[f"v_vessel_{o}"] for i, o in enumerate(organs)}
    tissue = {o: x[11 + i] / p[f"v_tissue_{o}"] for i, o in enumerate(organs)}
    kept = dict(zip(("liver", "spleen", "gut"), x[20:23], strict=True))
    flow = {o: p[f"q_{o}"] for o in organs if o != "lung"}
    total = sum(flow.values())
    passing = {o: p[f"ps_{o}"] * (vessel[o] - tissue[o] / p["kp"]) for o in organs}
    eaten = {o: p[f"cl_up_{o}"] * vessel[o] * (1 - kept[o] / p[f"capacity_{o}"]) for o in kept}
    back = {o: p["k_release"] * kept[o] for o in kept}
    portal = flow["spleen"] * vessel["spleen"] + flow["gut"] * vessel["gut"]
    hepatic = flow["liver"] + flow["spleen"] + flow["gut"]
    veins = sum(flow[o] * vessel[o] for o in ("kidney", "brain", "heart", "muscle", "rest"))
    d = {o: flow[o] * (c["artery"] - vessel[o]) - passing[o] for o in flow}
    d["liver"] = flow["liver"] * c["artery"] + portal - hepatic * vessel["liver"] - passing["liver"]
    d["lung"] = total * (c["vein"] - vessel["lung"]) - passing["lung"]
    d["kidney"] -= p["cl_urine"] * vessel["kidney"]
    for o in kept:
        d[o] += back[o] - eaten[o]
    gone = {o: p["k_degrade"] * kept[o] + (p["k_bile"] * kept[o] if o == "liver" else 0.0) for o in kept}
    return [veins + hepatic * vessel["liver"] - total * c["vein"], total * (vessel["lung"] - c["artery"]),
            *(d[o] for o in organs), *(passing[o] for o in organs), *(eaten[o] - back[o] - gone[o] for o in kept),
            p["k_bile"] * kept["liver"], p["cl_urine"] * vessel["kidney"]]  # fmt: skip


def test_the_whole_body_against_its_equations_written_by_hand_in_scipys_radau():
    graph = build("ev_whole_body", species="mouse", weight_g=20)
    theta = typical(graph)
    theta[graph.names.index("capacity_liver")] = 12.0  # well filled
    p = dict(zip(graph.names, theta, strict=True))
    x0 = np.zeros(len(graph.compartments))
    x0[0] = 100.0
    times = np.array([0.005, 0.1, 1.0])
    outside = solve_ivp(lambda t, x: written_by_hand(p, t, x), (0, 1), x0, "Radau", times, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(graph.amounts(theta, times, 100.0), outside.y.T, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_random_models_against_scipys_radau(seed):
    """Infusion, measured curve and two forms in a ring; scipy restarted where the input is not smooth."""
    rng = np.random.default_rng(seed)
    names = ("k1", "k2", "k3", "half", "most", "f")
    one = {n: Monomial(((n, 1),)) for n in names}
    graph = RateGraph("ring", "", "", ("a", "b", "c"), tuple(ParameterSpec(n, "", "") for n in names),
                      (Transfer("a", "b", one["k1"], "michaelis_menten", (("half", one["half"]),)),
                       Transfer("b", "c", one["k2"], "capacity", (("capacity", one["most"]),)),
                       Transfer("c", "a", one["k3"]), Transfer("b", None, one["k3"])),
                      tuple(Seen(c, ((c, ONE),)) for c in "abc"),
                      (Port("dose", (("a", ONE),)), Port("curve", (("b", one["f"]),))))  # fmt: skip
    k1, k2, k3, half, most, f = theta = np.exp(rng.normal(0, 1, len(names)))
    curve = SampledCurve([0.5, 1.0, 4.0], [2.0, 6.0, 1.0])
    design = Design([0.5, 1.0, 2.0, 4.0, 9.0], inputs={"dose": Doses([8, 3], [0.0, 1.0], [0, 1.0]), "curve": curve})

    def slope(t, x, infused):
        a, b, c = x
        ab, bc, ca = k1 * a / (1 + a / half), k2 * b * (1 - c / most), k3 * c
        entering = np.interp(t, curve.time_h, curve.value, left=0.0)
        return [ca - ab + infused, ab - bc - k3 * b + f * entering, bc - ca]

    x, found, now = np.array([8.0, 0.0, 0.0]), [], 0.0
    for stop, infused in ((0.5, 0.0), (1.0, 0.0), (2.0, 3.0), (4.0, 0.0), (9.0, 0.0)):
        t_open = np.nextafter(stop, 0)  # the curve jumps at 0.5 h: up to it there is nothing
        part = solve_ivp(lambda t, x, u=infused, end=t_open: slope(min(t, end), x, u), (now, stop), x, "Radau",
                         rtol=1e-10, atol=1e-12)  # fmt: skip
        x, now = part.y[:, -1], stop
        found.append(x)
    np.testing.assert_allclose(saturable.solve(graph, theta[None], design).y[0], found, rtol=1e-7, atol=1e-9)
