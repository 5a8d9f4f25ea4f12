"""Closed forms and an outside solver for every model of the catalogue."""

import numpy as np
import pytest

from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.inputs import Doses, Exponentials
from evbiodist.kinetics.models.solve import Design, solve

TIMES = np.array([0.0, 0.05, 0.25, 1.0, 3.0, 8.0, 24.0])


def test_one_compartment_closed_form():
    """C(t) = D/V exp(-CL/V t): Gabrielsson & Weiner 2016, ch. 2."""
    y = build("one_compartment_iv").predict(np.array([2.0, 12.0]), TIMES, 100.0)[0][:, 0]
    np.testing.assert_allclose(y, 100 / 12 * np.exp(-2 / 12 * TIMES), rtol=1e-12)


def test_two_compartments_closed_form():
    """C(t) = A exp(-alpha t) + B exp(-beta t) with the textbook's alpha, beta, A, B (same source, ch. 2.5)."""
    cl, v1, q, v2, dose = 3.0, 5.0, 4.0, 20.0, 250.0
    k10, k12, k21 = cl / v1, q / v1, q / v2
    root = np.sqrt((k10 + k12 + k21) ** 2 - 4 * k10 * k21)
    alpha, beta = (k10 + k12 + k21 + root) / 2, (k10 + k12 + k21 - root) / 2
    a, b = dose / v1 * (alpha - k21) / (alpha - beta), dose / v1 * (k21 - beta) / (alpha - beta)
    y = build("two_compartment_iv").predict(np.array([cl, v1, q, v2]), TIMES, dose)[0][:, 0]
    np.testing.assert_allclose(y, a * np.exp(-alpha * TIMES) + b * np.exp(-beta * TIMES), rtol=1e-10)


def answer(numerator, denominator, t):
    """Inverse Laplace transform of a ratio of polynomials with simple poles: Heaviside's expansion."""
    poles = np.roots(denominator)
    slope = np.polyder(np.poly1d(denominator))
    return np.real(sum(np.polyval(numerator, p) / slope(p) * np.exp(p * t) for p in poles))


def disposition(k10, out, back):
    """Transfer function of the central compartment (amounts) of a mammillary model: numerator and denominator."""
    top = np.poly(-np.asarray(back)) if len(back) else np.array([1.0])
    bottom = np.polymul([1.0, k10 + sum(out)], top)
    for i, (a, b) in enumerate(zip(out, back, strict=True)):
        others = np.poly(-np.delete(back, i)) if len(back) > 1 else np.array([1.0])
        bottom = np.polysub(bottom, a * b * others)
    return top, bottom


MAMMILLARY = {
    "one": ({"cl": 3.0, "v": 5.0}, (0.6, [], []), 5.0),
    "two": ({"cl": 3.0, "v1": 5.0, "q": 4.0, "v2": 20.0}, (0.6, [0.8], [0.2]), 5.0),
    "three": (
        {"cl": 3.0, "v1": 5.0, "q2": 4.0, "v2": 20.0, "q3": 0.5, "v3": 50.0},
        (0.6, [0.8, 0.1], [0.2, 0.01]),
        5.0,
    ),
}


def theta_of(graph, values):
    return np.array([[values[n] for n in graph.names]])


@pytest.mark.parametrize("size", sorted(MAMMILLARY))
def test_bolus_and_infusion(size):
    """Laplace transforms of Gabrielsson & Weiner 2016, ch. 2: C = D / V / (s + ...), an infusion divides by s."""
    values, rates, volume = MAMMILLARY[size]
    graph, (top, bottom) = build(f"{size}_compartment_iv"), disposition(*rates)
    bolus = solve(graph, theta_of(graph, values), Design(TIMES, inputs={"dose": Doses(250.0)})).y[0, :, 0]
    np.testing.assert_allclose(bolus, 250 / volume * answer(top, bottom, TIMES), rtol=1e-9)
    lasts, given = 2.0, {"dose": Doses(250.0, 0.0, 2.0)}
    infusion = solve(graph, theta_of(graph, values), Design(TIMES, inputs=given)).y[0, :, 0]

    def on(t):
        return 250 / lasts / volume * answer(top, np.polymul(bottom, [1.0, 0.0]), np.maximum(t, 0.0)) * (t >= 0)

    np.testing.assert_allclose(infusion, on(TIMES) - on(TIMES - lasts), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("route", ["oral", "ip", "sc", "im", "inhaled", "intranasal"])
@pytest.mark.parametrize("size", sorted(MAMMILLARY))
def test_first_order_absorption_with_lag_and_fraction(size, route):
    """The transform of a bolus times F ka / (s + ka), later by the lag; for one compartment Bateman's function."""
    values, rates, volume = MAMMILLARY[size]
    graph, (top, bottom) = build(f"{size}_compartment_{route}"), disposition(*rates)
    theta = theta_of(graph, {**values, "ka": 1.7, "f": 0.6, "lag": 0.2})
    y = solve(graph, theta, Design(TIMES, inputs={"dose": Doses(250.0)})).y[0, :, 0]
    late = np.maximum(TIMES - 0.2, 0.0)
    want = 0.6 * 250 * 1.7 / volume * answer(top, np.polymul(bottom, [1.0, 1.7]), late) * (TIMES >= 0.2)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-11)
    if size == "one":
        k = 0.6
        bateman = 0.6 * 250 * 1.7 / volume / (1.7 - k) * (np.exp(-k * late) - np.exp(-1.7 * late))
        np.testing.assert_allclose(y, bateman, rtol=1e-9, atol=1e-11)


ORGAN_RATES = {"brain": (0.03, 0.04), "liver": (1.2, 0.05), "spleen": (0.2, 0.02)}


@pytest.mark.parametrize("kind", ["", "_irreversible", "_mixed", "_excretion", "_vessels"])
def test_blood_with_organs(kind):
    """Transforms of the mammillary system: an organ holds k_in / (s + k_out) of what blood does, kept or not."""
    graph = build(f"plasma_with_organs{kind}", sorted(ORGAN_RATES))
    v, k_el, k_ex, keep, vessel = 2.0, 0.5, 0.3, 0.07, 0.11
    values = {"v": v, "k_el": k_el, "k_ex": k_ex}
    for organ, (into, back) in ORGAN_RATES.items():
        values |= {f"k_in_{organ}": into, f"k_out_{organ}": back, f"k_keep_{organ}": keep, f"v_vessel_{organ}": vessel}
    y = solve(graph, theta_of(graph, values), Design(TIMES, inputs={"dose": Doses(100.0)})).y[0]
    organs = sorted(ORGAN_RATES)
    into = np.array([ORGAN_RATES[o][0] for o in organs])
    back = np.array([0.0 if kind == "_irreversible" else ORGAN_RATES[o][1] for o in organs])
    lost = k_el + (k_ex if kind == "_excretion" else 0.0)
    leave = back + (keep if kind == "_mixed" else 0.0)
    if kind == "_irreversible":
        top, bottom = np.array([1.0]), np.array([1.0, lost + into.sum()])
    else:
        top, bottom = disposition_out(lost, into, back, leave)
    blood = 100 * answer(top, bottom, TIMES)
    np.testing.assert_allclose(y[:, 0], blood / v, rtol=1e-9)
    for i, organ in enumerate(organs):
        rest = np.polydiv(top, [1.0, leave[i]])[0] if leave[i] else top
        under = bottom if leave[i] else np.polymul(bottom, [1.0, 0.0])
        amount = 100 * into[i] * answer(rest, under, TIMES)
        if kind == "_mixed":
            amount = amount + 100 * into[i] * keep * answer(rest, np.polymul(bottom, [1.0, 0.0]), TIMES)
        if kind == "_vessels":
            amount = amount + vessel * blood / v
        np.testing.assert_allclose(y[:, graph.seen.index(organ)], amount, rtol=1e-9, atol=1e-9)
    if kind == "_excretion":
        urine = 100 * k_ex * answer(top, np.polymul(bottom, [1.0, 0.0]), TIMES)
        np.testing.assert_allclose(y[:, graph.seen.index("urine")], urine, rtol=1e-9, atol=1e-9)


def disposition_out(lost, into, back, leave):
    """Blood's transform where organs return `back` of the `leave` that goes out of them."""
    top = np.poly(-leave)
    bottom = np.polymul([1.0, lost + into.sum()], top)
    for i in range(len(into)):
        bottom = np.polysub(bottom, into[i] * back[i] * np.poly(-np.delete(leave, i)))
    return top, bottom


#: Plasma as a sum of exponentials, whose transform is known, so that tissues have closed forms.
AMPLITUDE, RATE = np.array([80.0, 15.0, 4.0]), np.array([9.0, 0.8, 0.05])
PLASMA = Exponentials(AMPLITUDE, RATE)


def tissue(poles, weights, t):
    """Sum of weights x exp(-pole t) convolved with plasma: Gunn et al. 2001, eq. 3."""
    out = np.zeros_like(t)
    for w, p in zip(weights, poles, strict=True):
        for a, r in zip(AMPLITUDE, RATE, strict=True):
            out += w * a * (np.exp(-r * t) - np.exp(-p * t)) / (p - r)
    return out


@pytest.mark.parametrize("name", ["one_tissue", "two_tissue", "two_tissue_irreversible"])
def test_tissues_with_a_measured_plasma_curve(name):
    graph, k1, k2, k3, k4, v_b = build(name), 6.0, 12.0, 3.0, 1.5, 0.05
    theta = theta_of(graph, {"k1": k1, "k2": k2, "k3": k3, "k4": k4, "v_b": v_b, "delay": 0.0})
    y = solve(graph, theta, Design(TIMES, inputs={"plasma": PLASMA, "whole_blood": PLASMA})).y[0, :, 0]
    if name == "one_tissue":
        poles, weights = [k2], [k1]
    else:
        k4 = 0.0 if name == "two_tissue_irreversible" else k4
        root = np.sqrt((k2 + k3 + k4) ** 2 - 4 * k2 * k4)
        poles = [(k2 + k3 + k4 - root) / 2, (k2 + k3 + k4 + root) / 2]
        weights = [k1 * (k3 + k4 - poles[0]) / root, k1 * (poles[1] - k3 - k4) / root]
    blood = PLASMA.level(TIMES[None], False)[0]
    np.testing.assert_allclose(y, (1 - v_b) * tissue(poles, weights, TIMES) + v_b * blood, rtol=1e-9, atol=1e-9)


def test_simplified_reference_tissue():
    """C = R1 C_R + (k2 - R1 k2 / (1 + BP)) C_R * exp(-k2 / (1 + BP) t): Lammertsma & Hume 1996, eq. 7."""
    graph, r1, k2, bp = build("reference_tissue"), 1.2, 8.0, 2.3
    theta = theta_of(graph, {"r1": r1, "k2": k2, "bp_nd": bp})
    y = solve(graph, theta, Design(TIMES, inputs={"reference": PLASMA})).y[0, :, 0]
    k2a = k2 / (1 + bp)
    want = r1 * PLASMA.level(TIMES[None], False)[0] + tissue([k2a], [k2 - r1 * k2a], TIMES)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-9)


def test_frame_means_are_integrals_of_the_closed_form():
    """One tissue over frames: the mean of the convolution, integrated by hand."""
    graph, k1, k2 = build("one_tissue"), 6.0, 2.0
    start, end = np.array([0.0, 0.1, 0.5, 2.0]), np.array([0.1, 0.5, 2.0, 6.0])
    theta = theta_of(graph, {"k1": k1, "k2": k2, "v_b": 1e-12, "delay": 0.0})
    y = solve(graph, theta, Design(start, end, inputs={"plasma": PLASMA, "whole_blood": PLASMA})).y[0, :, 0]

    def area(t):
        return sum(k1 * a / (k2 - r) * ((1 - np.exp(-r * t)) / r - (1 - np.exp(-k2 * t)) / k2)
                   for a, r in zip(AMPLITUDE, RATE, strict=True))  # fmt: skip

    np.testing.assert_allclose(y, (area(end) - area(start)) / (end - start), rtol=1e-9)


LINEAR = sorted(n for n in catalogue() if build(n, ["brain", "liver"] if needs_organs(n) else ()).linear)


@pytest.mark.parametrize(
    "name", [n for n in LINEAR if build(n, ["liver"] if needs_organs(n) else ()).ports[0].name == "dose"]
)
def test_against_scipys_stiff_solver(name):
    from scipy.integrate import solve_ivp

    graph = build(name, ["brain", "liver", "spleen"] if needs_organs(name) else ())
    theta = np.exp(np.random.default_rng(4).normal(0, 1, len(graph.names)))
    for i, p in enumerate(graph.parameters):
        theta[i] = {"logit": 0.7, "linear": 0.0}.get(p.scale, theta[i])
    K = graph.matrix(theta)
    outside = solve_ivp(lambda t, x: K @ x, (0, 24), graph.start(theta, 100.0), "Radau", TIMES, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(graph.amounts(theta, TIMES, 100.0), outside.y.T, rtol=1e-6, atol=1e-8)
