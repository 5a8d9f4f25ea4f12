"""Inputs: the answer of a mode against numerical integration, its slope against differences, and every refusal."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from evbiodist.kinetics.models.inputs import Doses, Exponentials, SampledCurve, phis

TIMES = np.array([[-1.0, 0.0, 0.2, 0.5, 1.0, 2.5, 7.0]])
RATES = np.array([[0.0, -1e-9, -0.03, -0.8, -1.5, -40.0, 0.2]])
#: name -> (input, its density in time, where that has corners, its jumps as (time, amount))
KINDS = {
    "bolus": (Doses(3.0, 0.2), lambda s: 0.0, [], [(0.2, 3.0)]),
    "infusion": (Doses(3.0, 0.2, 1.5), lambda s: 2.0 * (0.2 <= s < 1.7), [0.2, 1.7], []),
    "bolus and infusion": (Doses([3.0, 4.0, 0.0], [0.2, 0.5, 0.0], [0.0, 2.0, 0.0]), lambda s: 2.0 * (0.5 <= s < 2.5),
                           [0.5, 2.5], [(0.2, 3.0)]),
    "samples": (SampledCurve([0.1, 0.4, 1.0, 4.0], [1.0, 9.0, 3.0, 0.5]),
                lambda s: np.interp(s, [0.1, 0.4, 1.0, 4.0], [1.0, 9.0, 3.0, 0.5]) * (s >= 0.1), [0.1, 0.4, 1.0, 4.0], []),
    "exponentials": (Exponentials([5.0, 2.0, 0.3, 0.1], [0.8, 1.5, 0.0, 30.0], 0.1),
                     lambda s: (5 * np.exp(-0.8 * (s - 0.1)) + 2 * np.exp(-1.5 * (s - 0.1)) + 0.3
                                + 0.1 * np.exp(-30 * (s - 0.1))) * (s >= 0.1), [0.1], []),
}  # fmt: skip


def integrated(f, corners, t):
    """The integral of f until t, piece by piece between its corners."""
    edges = [-1.0, *(c for c in corners if -1 < c < t), t]
    return sum(quad(lambda s: float(f(s)), a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0] for a, b in pairwise(edges))


def convolved(kind, rate, t):
    _, density, corners, jumps = KINDS[kind]
    at_once = sum(amount * np.exp(rate * (t - when)) for when, amount in jumps if t >= when)
    return at_once + integrated(lambda s: density(s) * np.exp(rate * (t - s)), corners, t)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_mode_answers_with_the_convolution(kind):
    given = KINDS[kind][0]
    found = given.answer(RATES, TIMES, False).value[0]
    want = [[convolved(kind, rate, t) for rate in RATES[0]] for t in TIMES[0]]
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_frames_use_the_integral_of_that_answer(kind):
    """The integral over time of exp(rate t) * input has the closed form of integrating the mode first."""
    given, density, corners, jumps = KINDS[kind]
    found = given.answer(RATES, TIMES, True).value[0]

    def grown(rate, since):
        return np.expm1(rate * since) / rate if rate else since

    want = [[sum(a * grown(rate, t - when) for when, a in jumps if t >= when)
             + integrated(lambda s, rate=rate, t=t: density(s) * grown(rate, t - s), corners, t) for rate in RATES[0]]
            for t in TIMES[0]]  # fmt: skip
    np.testing.assert_allclose(found, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("integral", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_slopes_are_those_of_central_differences(kind, integral):
    given, step = KINDS[kind][0], 1e-5
    up, down = (given.answer(RATES + s, TIMES, integral).value for s in (step, -step))
    exact = given.answer(RATES, TIMES, integral).slope
    np.testing.assert_allclose(exact, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_level_is_the_curve_and_its_integral_the_area(kind):
    given, density, corners, jumps = KINDS[kind]
    t = TIMES + 0.013  # not at a corner, where either side would do
    np.testing.assert_allclose(given.level(t, False)[0], [density(x) for x in t[0]], rtol=1e-12, atol=1e-12)
    area = [sum(a for when, a in jumps if x >= when) + integrated(density, corners, x) for x in t[0]]
    np.testing.assert_allclose(given.level(t, True)[0], area, rtol=1e-9, atol=1e-9)
    up, down = (given.level(t + s, False) for s in (1e-6, -1e-6))
    np.testing.assert_allclose(given.steepness(t), (up - down) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_happens_before_the_start(kind):
    given, early = KINDS[kind][0], np.array([[-5.0, -0.1, 0.0, 0.09]])
    for integral in (False, True):
        answer = given.answer(RATES, early, integral)
        assert not answer.value.any()
        assert not answer.slope.any()
        assert not given.level(early, integral).any()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fast_rates_neither_overflow_nor_lose_the_answer(kind):
    """A mode that is gone at once follows the input: rate x answer -> -level."""
    given, fast = KINDS[kind][0], np.array([[-1e9, -1e300]])
    t = np.array([[0.35, 1.2, 3.0, 50.0]])
    for integral in (False, True):
        answer = given.answer(fast, t, integral)
        assert np.isfinite(answer.value).all()
        assert np.isfinite(answer.slope).all()
    follows = -fast[0, 0] * given.answer(fast, t, False).value[0, :, 0]
    np.testing.assert_allclose(follows, given.level(t, False)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_modes_of_cyclic_models_may_be_complex(kind):
    given, rates = KINDS[kind][0], np.array([[-0.5 + 2j, -0.5 - 2j]])
    for integral in (False, True):
        answer = given.answer(rates, TIMES, integral)
        np.testing.assert_allclose(answer.value[..., 0], np.conj(answer.value[..., 1]), rtol=1e-12)
        near = given.answer(rates + 1e-6, TIMES, integral).value - given.answer(rates - 1e-6, TIMES, integral).value
        np.testing.assert_allclose(answer.slope, near / 2e-6, rtol=1e-6, atol=1e-7)


def test_a_curve_of_each_problem_answers_as_it_would_alone():
    rng = np.random.default_rng(1)
    knots, values = np.array([0.0, 0.3, 1.0, 5.0]), rng.uniform(0, 9, (3, 4))
    rates, times = -rng.uniform(0, 3, (3, 2)), np.tile(TIMES, (3, 1)) + rng.uniform(0, 1, (3, 1))
    all_ = SampledCurve(knots, values)
    for integral in (False, True):
        whole, level = all_.answer(rates, times, integral), all_.level(times, integral)
        for b in range(3):
            alone = SampledCurve(knots, values[b])
            part = alone.answer(rates[b : b + 1], times[b : b + 1], integral)
            np.testing.assert_array_equal(whole.value[b], part.value[0])
            np.testing.assert_array_equal(whole.slope[b], part.slope[0])
            np.testing.assert_array_equal(level[b], alone.level(times[b : b + 1], integral)[0])
    np.testing.assert_array_equal(all_.take(np.array([2, 0])).value, values[[2, 0]])


def test_doses_of_each_problem_answer_as_they_would_alone():
    amount, start, lasts = (
        np.array([[3.0, 1.0], [2.0, 0.0]]),
        np.array([[0.0, 1.0], [0.5, 0.0]]),
        np.array([[0, 2], [1, 0]]),
    )
    both, rates = Doses(amount, start, lasts), np.array([[-0.5, -2.0], [-0.1, 0.0]])
    times = np.tile(TIMES, (2, 1))
    for integral in (False, True):
        whole = both.answer(rates, times, integral)
        for b in range(2):
            part = both.take(slice(b, b + 1)).answer(rates[b : b + 1], times[:1], integral)
            np.testing.assert_array_equal(whole.value[b], part.value[0])
            np.testing.assert_array_equal(whole.slope[b], part.slope[0])


def test_what_all_problems_share_stays_as_it_is():
    for given in (Doses([1, 2], [0, 1]), SampledCurve([0, 1], [2, 3]), Exponentials([1], [2])):
        assert given.take(np.array([4, 7])) is given


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_events_and_generator_walk_to_the_same_curve(kind):
    """s' = G s between events, c s the input: stepping through the events gives `level` at any time."""
    from scipy.linalg import expm

    given = KINDS[kind][0]
    G, c = given.generator()
    events = sorted(given.events(), key=lambda e: e.time_h)
    for t in (0.05, 0.33, 0.7, 1.9, 6.0):
        state, now, at_once = np.zeros(len(c)), events[0].time_h, 0.0
        for event in events:
            if event.time_h > t:
                break
            state = expm(G * (event.time_h - now)) @ state
            state, now = event.states if event.anew else state + event.states, event.time_h
            at_once += event.jump
        level = c @ expm(G * max(t - now, 0.0)) @ state
        assert level == pytest.approx(given.level(np.array([[t]]), False)[0, 0], rel=1e-9, abs=1e-12)
        assert at_once == sum(a for when, a in KINDS[kind][3] if when <= t)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_phi_functions_have_all_digits_for_small_and_large_arguments(order):
    """Against their series in exact fractions near 0, and against their recurrence in high precision elsewhere."""
    from fractions import Fraction
    from math import factorial

    for z in (0.0, 1e-12, -1e-3, 0.3, -0.4999, 0.5, -0.5001, 2.0, -3.0):
        exact = sum(Fraction(z) ** j / factorial(j + order) for j in range(40))
        assert float(phis(np.array([z]), order)[order][0]) == pytest.approx(float(exact), rel=3e-13)
        assert float(phis(np.array(z), order)[order]) == pytest.approx(float(exact), rel=3e-13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Doses([1, 2, 3], [0, 1]), r"doses have \(3,\), \(2,\), \(1,\) amounts, times and durations"),
        (lambda: Doses(-1), r"amount of a dose has \[-1.0\], expected finite numbers, 0 or more"),
        (lambda: Doses(np.inf), "amount of a dose has"),
        (lambda: Doses(1, np.nan), r"time_h of a dose has \[nan\], expected finite numbers$"),
        (lambda: Doses(1, 0, -2), r"duration_h of a dose has \[-2.0\], expected finite numbers, 0 or more"),
        (lambda: SampledCurve([0], [1]), r"times of shape \(1,\) and values of shape \(1,\)"),
        (lambda: SampledCurve([0, 1], [1, 2, 3]), "expected one value for each of at least two times"),
        (lambda: SampledCurve([[0, 1]], [1, 2]), "expected one value for each"),
        (lambda: SampledCurve([0, 1], np.ones((2, 2, 2))), "expected one value for each"),
        (lambda: SampledCurve([0, 1, 1], [1, 2, 3]), "must rise; sort them and average samples of the same time"),
        (lambda: SampledCurve([0, np.nan], [1, 2]), "must rise"),
        (lambda: SampledCurve([0, 1], [1, np.nan]), "values that are not numbers; drop those samples"),
        (lambda: Exponentials([1, 2], [1]), "2 amplitudes and 1 rates; give one rate for each"),
        (lambda: Exponentials([[1]], [[1]]), "give one rate for each"),
        (lambda: Exponentials([1], [-1]), "must be finite, and rates 0 or more"),
        (lambda: Exponentials([np.inf], [1]), "must be finite"),
        (lambda: Exponentials([1], [1], np.nan), "must be finite"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_negative_time_is_a_dose_before_the_first_scan():
    early = Doses(2.0, -3.0).answer(np.array([[-0.5]]), np.array([[0.0]]), False).value
    assert early[0, 0, 0] == pytest.approx(2 * np.exp(-1.5))
