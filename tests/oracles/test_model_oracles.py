"""Closed forms and an outside solver for every model of the catalogue."""

import numpy as np
import pytest

from evbiodist.kinetics.catalogue import build, catalogue, needs_organs

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


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_against_scipys_stiff_solver(name):
    from scipy.integrate import solve_ivp

    graph = build(name, ["brain", "liver", "spleen"] if needs_organs(name) else ())
    theta = np.exp(np.random.default_rng(4).normal(0, 1, len(graph.names)))
    K = graph.matrix(theta)
    outside = solve_ivp(lambda t, x: K @ x, (0, 24), graph.start(100.0), "Radau", TIMES, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(graph.amounts(theta, TIMES, 100.0), outside.y.T, rtol=1e-6, atol=1e-8)
