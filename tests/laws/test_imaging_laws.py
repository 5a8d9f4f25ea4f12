"""Laws of the estimator: background, scale, order and area, over random images."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.imaging.estimator import estimate
from evbiodist.imaging.footprints import FOOTPRINTS
from evbiodist.imaging.organs import OrganMap

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(sorted(FOOTPRINTS))


def scene(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 32), np.int32)
    for value, (r, c) in enumerate([(2, 2), (2, 18), (13, 4), (13, 20)], 1):
        labels[r : r + rng.integers(4, 9), c : c + rng.integers(4, 10)] = value
    organs = OrganMap(labels, {i: f"organ_{i}" for i in range(1, 5)}, "label image")
    return organs, rng.uniform(0, 100, labels.shape), rng.uniform(0.5, 3, labels.shape)


def solve(kind, organs, frame, variance):
    record = FOOTPRINTS[kind]
    return estimate(frame, record.build(organs, 1.3), variance, weighting=record.weighting)


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(-1e4, 1e4))
def test_a_constant_background_changes_no_organ(seed, kind, level):
    organs, frame, variance = scene(seed)
    a, b = solve(kind, organs, frame, variance), solve(kind, organs, frame + level, variance)
    np.testing.assert_allclose(a.signal, b.signal, rtol=1e-7, atol=1e-6 * (1 + abs(level)))
    np.testing.assert_allclose(a.covariance, b.covariance)
    assert np.isclose(b.background - a.background, level, rtol=1e-6, atol=1e-8 * (1 + abs(level)))


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(1e-3, 1e3))
def test_scaling_counts_scales_signals_and_errors(seed, kind, factor):
    organs, frame, variance = scene(seed)
    a, b = solve(kind, organs, frame, variance), solve(kind, organs, factor * frame, factor**2 * variance)
    np.testing.assert_allclose(factor * a.signal, b.signal, rtol=1e-7, atol=1e-7 * factor)
    np.testing.assert_allclose(factor * a.se, b.se, rtol=1e-7)


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.permutations([1, 2, 3, 4]))
def test_the_order_of_organs_does_not_matter(seed, kind, order):
    organs, frame, variance = scene(seed)
    table = np.array([0, *order], np.int32)
    renamed = OrganMap(table[organs.labels], {order[i - 1]: name for i, name in organs.names.items()}, "label image")
    a, b = solve(kind, organs, frame, variance), solve(kind, renamed, frame, variance)
    signals = dict(zip(renamed.organs, b.signal, strict=True))
    np.testing.assert_allclose(a.signal, [signals[o] for o in organs.organs], rtol=1e-7, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_sum_over_ones_is_the_area(seed):
    organs, _, variance = scene(seed)
    frame = (organs.labels > 0).astype(float)
    fit = solve("roi", organs, frame, variance)
    np.testing.assert_allclose(fit.signal, list(organs.areas().values()), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS, KINDS)
def test_what_footprints_make_is_found_exactly(seed, kind):
    organs, _, variance = scene(seed)
    record = FOOTPRINTS[kind]
    truth = np.random.default_rng(seed).uniform(-5, 500, 4)
    frame = np.tensordot(truth, record.build(organs, 1.3), 1) + 7.0
    np.testing.assert_allclose(solve(kind, organs, frame, variance).signal, truth, rtol=1e-8, atol=1e-7)
