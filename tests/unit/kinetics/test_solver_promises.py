"""Promises of the linear solver: frames, gaps, lags, equal rates, and each problem as it would be alone."""

import numpy as np
import pytest

from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design, bolus, solve

ORAL = build("one_compartment_oral")
IV = build("one_compartment_iv")
TWO = build("two_compartment_iv")


def start_of(graph, rows=1, seed=3):
    return np.exp(np.random.default_rng(seed).uniform(-1, 1, (rows, len(graph.names))))


@pytest.mark.parametrize(
    ("time", "end", "words"),
    [
        ([0, np.nan], None, "not numbers"),
        ([0, 1], [1, np.inf], "not numbers"),
        ([0, 1], [1, 1], "an end after its start"),
        ([0, 1], [2, 0.5], "an end after its start"),
        ([0, 1], [1], "an end after its start"),
    ],
)
def test_times_that_cannot_be_are_refused(time, end, words):
    with pytest.raises(ValueError, match=words):
        Design(time, end, inputs={})


def test_a_missing_input_is_named():
    with pytest.raises(ValueError, match="model one_compartment_iv needs the input dose; give it in the design"):
        solve(IV, start_of(IV), Design([0.0], inputs={}))


@pytest.mark.parametrize("graph", [IV, TWO, ORAL], ids=lambda g: g.name)
@pytest.mark.parametrize("ends", [[1.0, 2.0, 5.0], [0.5, 1.7, 3.0]], ids=["edge to edge", "with gaps"])
def test_a_frame_is_the_mean_over_it(graph, ends):
    """Against Gauss-Legendre quadrature of the curve itself; derivatives too."""
    starts = np.array([0.0, 1.0, 2.0])
    theta, dose = start_of(graph), {"dose": Doses([7.0, 3.0], [-4.0, -3.5])}  # before any lag: no kink
    framed = solve(graph, theta, Design(starts, ends, inputs=dose), derivatives=True)
    x, w = np.polynomial.legendre.leggauss(24)
    for k, (a, b) in enumerate(zip(starts, ends, strict=True)):
        inside = solve(graph, theta, Design((a + b) / 2 + x * (b - a) / 2, inputs=dose), derivatives=True)
        np.testing.assert_allclose(framed.y[0, k], w @ inside.y[0] / 2, rtol=1e-7)
        np.testing.assert_allclose(framed.amounts[0, k], w @ inside.amounts[0] / 2, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(framed.dy[0, :, k], np.tensordot(inside.dy[0], w, (1, 0)) / 2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ends", [None, [0.4, 1.0, 4.5], [0.6, 1.2, 5.0]], ids=["samples", "touching", "gaps"])
@pytest.mark.parametrize("equal", [False, True], ids=["by modes", "by exponentials"])
def test_derivatives_are_those_of_differences(ends, equal):
    """Central differences along the search coordinate; equal rates of a chain have no independent modes."""
    times = [0.2, 0.4, 1.0] if ends != [0.6, 1.2, 5.0] else [0.2, 0.7, 1.5]
    design = Design(times, ends, inputs={"dose": Doses(5.0, -0.2)})
    theta = start_of(ORAL)
    if equal:
        theta[0, ORAL.names.index("ka")] = theta[0, ORAL.names.index("cl")] / theta[0, ORAL.names.index("v")]
    theta[0, ORAL.names.index("lag")] = 0.05  # no sample at the moment absorption begins
    found = solve(ORAL, theta, design, derivatives=True).dy[0]
    slopes = ORAL.search_slopes(theta)[0]
    for p in range(theta.shape[1]):
        h = 1e-5 * abs(theta[0, p])
        up, down = theta.copy(), theta.copy()
        up[0, p] += h
        down[0, p] -= h
        change = (solve(ORAL, up, design).y[0] - solve(ORAL, down, design).y[0]) / (2 * h) * slopes[p]
        np.testing.assert_allclose(found[p], change, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("graph", [IV, TWO, ORAL], ids=lambda g: g.name)
def test_problems_together_are_each_alone(graph):
    theta = start_of(graph, 4)
    theta[2, 0] = np.nan
    times = np.sort(np.random.default_rng(1).uniform(0, 5, (4, 6)), axis=1)
    design = Design(times, times + 0.1, inputs={"dose": Doses(5.0)})
    whole = solve(graph, theta, design, derivatives=True)
    for b in range(4):
        alone = solve(
            graph, theta[b : b + 1], Design(times[b], times[b] + 0.1, inputs={"dose": Doses(5.0)}), derivatives=True
        )
        np.testing.assert_allclose(whole.y[b], alone.y[0], rtol=1e-11)
        np.testing.assert_allclose(whole.dy[b], alone.dy[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(whole.amounts[b], alone.amounts[0], rtol=1e-11)
    assert np.isnan(whole.y[2]).all()


def test_a_bolus_is_one_dose_at_0_h_and_no_derivatives_come_unasked():
    theta = start_of(TWO)
    found = solve(TWO, theta, bolus(TWO, [0.0, 1.0], 8.0))
    same = solve(TWO, theta, Design([0.0, 1.0], inputs={"dose": Doses(8.0, 0.0)}))
    assert (found.y == same.y).all()
    assert found.dy.shape[1] == 0
    assert found.amounts[0, 0].sum() == pytest.approx(8.0)


def test_equal_rates_beside_others_are_solved_at_their_own_times():
    """Bateman's curve and its limit d k t exp(-k t) / v where absorption is as fast as elimination."""
    theta = np.array([[2.0, 4.0, 1.5, 0.8, 0.0], [2.0, 4.0, 0.5, 0.8, 0.0], [6.0, 3.0, 2.0, 1.0, 0.0]])
    assert ORAL.names == ("cl", "v", "ka", "f", "lag")
    times = np.array([[0.5, 1.0], [0.7, 2.0], [0.2, 3.0]])
    found = solve(ORAL, theta, Design(times, inputs={"dose": Doses(10.0)})).y[..., 0]
    k, ka, d = theta[:, :1] / theta[:, 1:2], theta[:, 2:3], 10 * theta[:, 3:4]
    apart = d * ka / (ka - np.where(ka == k, 0.0, k)) * (np.exp(-k * times) - np.exp(-ka * times))
    expected = np.where(ka == k, d * k * times * np.exp(-k * times), apart) / theta[:, 1:2]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_frame_at_equal_rates_is_the_mean_over_it():
    """The integral of d k t exp(-k t) / v is d (1 - (1 + k t) exp(-k t)) / (k v)."""
    k, v, d = 0.5, 4.0, 8.0
    starts, ends = np.array([0.0, 1.0, 4.0]), np.array([0.5, 3.0, 4.2])
    design = Design(starts, ends, inputs={"dose": Doses(10.0)})
    found = solve(ORAL, np.array([[2.0, v, k, 0.8, 0.0]]), design).y[0, :, 0]
    whole = [d * (1 - (1 + k * t) * np.exp(-k * t)) / (k * v) for t in (starts, ends)]
    np.testing.assert_allclose(found, (whole[1] - whole[0]) / (ends - starts), rtol=1e-10)
