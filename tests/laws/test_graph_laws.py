"""Laws of the rate graph, over random parameters: mass balance, linearity, time scale, exact derivatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, Exponentials, SampledCurve
from evbiodist.kinetics.models.solve import Design, solve

ORGANS = ("brain", "kidney", "liver")
TIMES = np.array([0.0, 0.01, 0.3, 1.0, 4.0, 24.0])


def graph_of(name):
    return build(name, ORGANS if needs_organs(name) else ())


LINEAR = sorted(name for name in catalogue() if graph_of(name).linear)
DOSED = [name for name in LINEAR if graph_of(name).ports[0].name == "dose"]
CURVE = SampledCurve([0, 0.02, 0.05, 0.2, 0.5, 1, 3, 30], [0, 60, 90, 40, 15, 6, 2, 0.5])


@st.composite
def models(draw, names=DOSED):
    """A model with random parameters inside their scales."""
    graph = graph_of(draw(st.sampled_from(names)))
    logs = draw(st.lists(st.floats(-3, 2), min_size=len(graph.names), max_size=len(graph.names)))
    theta = np.exp(np.array(logs))
    for i, p in enumerate(graph.parameters):
        theta[i] = (
            theta[i] / (1 + theta[i]) if p.scale == "logit" else 0.02 * theta[i] if p.scale == "linear" else theta[i]
        )
    return graph, theta


def inputs_of(graph, kind=0):
    """Every input of a model: doses of several kinds, or a measured curve."""
    doses = [Doses(100.0), Doses([60.0, 40.0], [0.0, 0.7], [0.5, 0.0]), Doses([50.0, 50.0], [0.1, 2.0], [0.0, 3.0])]
    curves = [CURVE, Exponentials([90, 20, 2.0], [20.0, 1.5, 0.05], 0.05), SampledCurve([0.1, 2, 40], [5, 8, 1.0])]
    return {p.name: (doses if p.name == "dose" else curves)[kind % 3] for p in graph.ports}


@settings(max_examples=40, deadline=None)
@given(models())
def test_amounts_plus_excreted_are_the_dose(model):
    """What left the body is the time integral of the outflow: an added sink compartment must hold it."""
    graph, theta = model
    closed = RateGraph(graph.name, graph.title, graph.source, (*graph.compartments, "sink"), graph.parameters,
                       tuple(Transfer(t.source, t.target or "sink", t.rate) for t in graph.transfers),
                       graph.observations, graph.ports)  # fmt: skip
    lag = [i for i, p in enumerate(graph.parameters) if p.name in {"lag", "f"}]
    theta[lag] = [1.0, 0.0][: len(lag)]  # all of it is absorbed, at once
    both = closed.amounts(theta, TIMES, 100.0)
    np.testing.assert_allclose(both.sum(axis=1), 100.0, rtol=1e-9)
    np.testing.assert_allclose(both[:, :-1], graph.amounts(theta, TIMES, 100.0), rtol=1e-7, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(models())
def test_with_losses_off_a_uniform_concentration_stays(model):
    """Closed and at equilibrium (inflow = outflow everywhere), nothing moves."""
    graph, theta = model
    inner = tuple(t for t in graph.transfers if t.target is not None)
    closed = RateGraph(graph.name, graph.title, graph.source, graph.compartments, graph.parameters, inner,
                       graph.observations, graph.ports)  # fmt: skip
    K = closed.matrix(theta)
    values, vectors = np.linalg.eig(K)
    still = np.real(vectors[:, np.argmin(np.abs(values))])
    np.testing.assert_allclose(K @ still, 0, atol=1e-9 * np.abs(K).max() if K.any() else 1e-12)
    assert (still >= -1e-9).all() or (still <= 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(models(), st.floats(1e-3, 1e3))
def test_dose_linearity(model, factor):
    graph, theta = model
    a, b = graph.predict(theta, TIMES, 1.0)[0], graph.predict(theta, TIMES, factor)[0]
    np.testing.assert_allclose(factor * a, b, rtol=1e-9, atol=1e-12 * factor)


@settings(max_examples=40, deadline=None)
@given(models(), st.floats(0.1, 10))
def test_faster_rates_are_a_faster_clock(model, factor):
    graph, theta = model
    powers = {"1/time": 1, "dose/value/time": 1, "time": -1}
    rates = np.array([factor ** powers.get(p.dimension, 0) for p in graph.parameters])
    a, b = graph.predict(theta, TIMES * factor, 1.0)[0], graph.predict(theta * rates, TIMES, 1.0)[0]
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(models(LINEAR), st.integers(0, 2), st.booleans())
def test_derivatives_are_exact(model, kind, frames):
    """Against central differences in search coordinates, for doses, infusions, measured curves, samples and frames."""
    graph, theta = model
    ends = np.append(TIMES[1:], 29.0) if frames else None
    design = Design(TIMES, ends, inputs=inputs_of(graph, kind))
    exact = solve(graph, theta[None], design, derivatives=True).dy[0]
    u = graph.to_search(theta)
    edges = np.r_[TIMES, [0.05, 0.1, 0.7, 2.0]]
    for i, p in enumerate(graph.parameters):
        if p.scale == "linear" and np.abs(np.subtract.outer(TIMES, edges) - theta[i]).min() < 1e-4:
            continue  # at a jump of the input there is no derivative
        step = 3e-6 * np.eye(len(u))[i]  # smaller ones lose digits where two modes are nearly alike
        up, down = (solve(graph, graph.from_search(u + s)[None], design).y[0] for s in (step, -step))
        scale = np.abs(up).max() + np.abs(exact[i]).max()
        np.testing.assert_allclose(exact[i], (up - down) / 6e-6, rtol=1e-4, atol=1e-7 * scale)


@settings(max_examples=8, deadline=None)
@given(models(LINEAR), st.integers(0, 2), st.booleans())
def test_modes_and_matrix_exponentials_agree(model, kind, frames):
    """Two solutions that share no formula: eigenvectors with divided differences, and stepping with expm."""
    graph, theta = model
    ends = np.append(TIMES[1:], 29.0) if frames else None
    design = Design(TIMES, ends, inputs=inputs_of(graph, kind))
    fast = solve(graph, theta[None], design, derivatives=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evbiodist.kinetics.models.solve._CONDITION", 0.0)
        patch.setitem(graph.__dict__, "tree", None)
        safe = solve(graph, theta[None], design, derivatives=True)
    for a, b in zip(fast, safe, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * np.abs(b).max())


@settings(max_examples=30, deadline=None)
@given(models(LINEAR), st.integers(0, 2), st.integers(1, 5))
def test_a_problem_is_alone_among_others(model, kind, others):
    """Bits of a problem do not depend on how many are solved beside it."""
    graph, theta = model
    design = Design(TIMES, inputs=inputs_of(graph, kind))
    crowd = np.stack([theta, *(theta * 1.1**k / (1 + (1.1**k - 1) * (theta < 1)) for k in range(1, others + 1))])
    alone, among = (solve(graph, th, design, derivatives=True) for th in (theta[None], crowd))
    for a, b in zip(alone, among, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_thousands_of_modes_are_interpolated_to_the_last_digits():
    """A shared measured curve is answered from Chebyshev nodes when there are many modes; walking it gives the same."""
    rates = -np.exp(np.random.default_rng(0).uniform(np.log(1e-9), np.log(1e5), (400, 2)))
    rates[0] = [0.0, -1.0]
    for integral in (False, True):
        t = np.broadcast_to(TIMES, (400, TIMES.size))
        quick, slow = CURVE.answer(rates, t, integral), CURVE._walked(rates, t, integral)
        for a, b in zip(quick, slow, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * np.abs(b).max())


def test_repeated_rates_take_the_safe_path():
    """A chain of equal rates has one eigenvector; its amounts are gamma terms t^n exp(-kt)."""
    one = Monomial((("k", 1),))
    chain = RateGraph("chain", "", "", ("a", "b", "c"), (ParameterSpec("k", "1/time", ""),),
                      (Transfer("a", "b", one), Transfer("b", "c", one), Transfer("c", None, one)),
                      (Seen("c", (("c", ONE),)),), (Port("dose", (("a", ONE),)),))  # fmt: skip
    t, k = np.array([0.0, 0.5, 2.0, 9.0]), 0.7
    y, dy = chain.predict(np.array([k]), t, 100.0, derivatives=True)
    np.testing.assert_allclose(y[:, 0], 100 * (k * t) ** 2 / 2 * np.exp(-k * t), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        dy[0, :, 0], 100 * np.exp(-k * t) * ((k * t) ** 2 - (k * t) ** 3 / 2), rtol=1e-9, atol=1e-10
    )


def test_models_refuse_what_they_do_not_declare():
    graph = build("one_compartment_iv")
    with pytest.raises(ValueError, match="uses k, nowhere, which it does not declare"):
        RateGraph("x", "", "", graph.compartments, graph.parameters,
                  (Transfer("central", "nowhere", Monomial((("k", 1),))),), graph.observations, graph.ports)  # fmt: skip
    with pytest.raises(ValueError, match="did you mean 'two_compartment_"):
        build("two_compartment")
