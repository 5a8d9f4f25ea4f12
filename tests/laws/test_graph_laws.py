"""Laws of the rate graph, over random parameters: mass balance, linearity, time scale, exact derivatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.kinetics.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.graph import (
    Monomial,
    ParameterSpec,
    RateGraph,
    Seen,
    Transfer,
    _by_eigenvectors,
    _by_exponential,
)

ORGANS = ("brain", "kidney", "liver")
MODELS = sorted(catalogue())
TIMES = np.array([0.0, 0.01, 0.3, 1.0, 4.0, 24.0])


def graph_of(name):
    return build(name, ORGANS if needs_organs(name) else ())


@st.composite
def models(draw):
    graph = graph_of(draw(st.sampled_from(MODELS)))
    logs = draw(st.lists(st.floats(-3, 2), min_size=len(graph.names), max_size=len(graph.names)))
    return graph, np.exp(np.array(logs))


@settings(max_examples=40, deadline=None)
@given(models())
def test_amounts_plus_excreted_are_the_dose(model):
    """What left the body is the time integral of the outflow: an added sink compartment must hold it."""
    graph, theta = model
    closed = RateGraph(graph.name, graph.title, graph.source, (*graph.compartments, "sink"), graph.parameters,
                       tuple(Transfer(t.source, t.target or "sink", t.rate) for t in graph.transfers),
                       graph.observations, graph.dosed)  # fmt: skip
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
                       graph.observations, graph.dosed)  # fmt: skip
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
    rates = np.array([factor if p.dimension in {"1/time", "dose/value/time"} else 1.0 for p in graph.parameters])
    a, b = graph.predict(theta, TIMES * factor, 1.0)[0], graph.predict(theta * rates, TIMES, 1.0)[0]
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(models())
def test_derivatives_are_exact(model):
    graph, theta = model
    _, exact = graph.predict(theta, TIMES, 100.0, derivatives=True)
    for i in range(len(theta)):
        up, down = theta.copy(), theta.copy()
        up[i] *= np.exp(1e-5)
        down[i] *= np.exp(-1e-5)
        numeric = (graph.predict(up, TIMES, 100.0)[0] - graph.predict(down, TIMES, 100.0)[0]) / 2e-5
        np.testing.assert_allclose(exact[i], numeric, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(models())
def test_eigenvectors_and_exponentials_agree(model):
    graph, theta = model
    K, x0 = graph.matrix(theta), graph.start(100.0)
    dK = graph._flow.derivatives(theta)
    a, b = _by_eigenvectors(*np.linalg.eig(K), x0, TIMES, dK), _by_exponential(K, x0, TIMES, dK)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-5, atol=1e-6)


def test_repeated_rates_take_the_safe_path():
    """A chain of equal rates has one eigenvector; its amounts are gamma terms t^n exp(-kt)."""
    one = Monomial((("k", 1),))
    chain = RateGraph("chain", "", "", ("a", "b", "c"), (ParameterSpec("k", "1/time", ""),),
                      (Transfer("a", "b", one), Transfer("b", "c", one), Transfer("c", None, one)),
                      (Seen("c", (("c", Monomial(())),)),), "a")  # fmt: skip
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
                  (Transfer("central", "nowhere", Monomial((("k", 1),))),), graph.observations, "central")  # fmt: skip
    with pytest.raises(ValueError, match="did you mean 'two_compartment_iv'"):
        build("two_compartment")
