"""What the batched Levenberg-Marquardt promises: minima, bounds, independence, invariance, honest failures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from evbiodist.kinetics.fitting import levenberg
from evbiodist.kinetics.fitting.levenberg import covariance, identified, least_squares

T = np.array([0.1, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 18, 24])
TRUTH = np.array([8.0, 2.0, 3.0, 0.1])


def curve(x, t=T):
    a, k, b, m = (x[:, j, None] for j in range(4))
    fast, slow = np.exp(-k * t), np.exp(-m * t)
    return a * fast + b * slow, np.stack([fast, -a * t * fast, slow, -b * t * slow], axis=1)


def data(problems, seed=0, noise=0.03, spread=0.3):
    """Curves of random truths with proportional noise."""
    rng = np.random.default_rng(seed)
    truth = TRUTH * np.exp(rng.normal(0, spread, (problems, 4)))
    y = curve(truth)[0]
    return truth, y * (1 + noise * rng.normal(size=y.shape)), noise * y


def fitting(y, sigma=1.0, scale=1.0):
    sigma = np.broadcast_to(sigma, y.shape)

    def function(x, rows):
        model, jacobian = curve(x * scale)
        s = sigma[rows]
        return (model - y[rows]) / s, jacobian * np.broadcast_to(scale, 4)[:, None] / s[:, None]

    return function


def only(function, keep):
    """The same problems, some of them only."""
    return lambda x, rows: function(x, keep[rows])


def line(t, y):
    """Straight lines through many data sets: residual and exact derivatives."""

    def function(x, rows):
        jacobian = np.broadcast_to(np.stack([np.ones_like(t), t]), (len(rows), 2, len(t)))
        return x[:, :1] + x[:, 1:] * t - y[rows], jacobian

    return function


def same(a, b, pick=slice(None)):
    """Two solutions agree to the last bit."""
    for name in ("x", "cost", "residual", "jacobian", "iterations", "converged", "at_bound"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name)[pick], err_msg=name)
    assert a.reason == tuple(np.array(b.reason)[pick])


# minima


def test_straight_lines_as_numpy_solves_them():
    rng = np.random.default_rng(1)
    t, y = rng.normal(size=9), rng.normal(size=(30, 9))
    s = least_squares(line(t, y), np.zeros((30, 2)))
    X = np.stack([np.ones(9), t], axis=1)
    beta, cost, *_ = np.linalg.lstsq(X, y.T)
    assert s.converged.all()
    expected = cost[:, None, None] / 7 * np.linalg.inv(X.T @ X)
    assert (np.abs(s.x - beta.T) < 1e-9 * np.sqrt(np.diagonal(expected, axis1=1, axis2=2))).all()
    np.testing.assert_allclose(s.cost, cost, rtol=1e-12)
    np.testing.assert_allclose(covariance(s), expected, rtol=1e-9)
    np.testing.assert_allclose(covariance(s, scaled=False)[4], np.linalg.inv(X.T @ X), rtol=1e-9)


def test_curves_as_scipy_finds_them():
    _, y, sigma = data(20)
    function = fitting(y, sigma)
    s = least_squares(function, np.tile(TRUTH, (20, 1)), lower=np.zeros(4))
    assert s.converged.all()
    for i in range(20):
        ours, theirs = (
            s.x[i],
            scipy.optimize.least_squares(
                lambda x, i=i: function(x[None], [i])[0][0],
                TRUTH,
                lambda x, i=i: function(x[None], [i])[1][0].T,
                bounds=(0, np.inf),
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
                max_nfev=1000,
            ),
        )
        assert s.cost[i] <= 2 * theirs.cost * (1 + 1e-12)
        np.testing.assert_allclose(ours, theirs.x, rtol=1e-6)


def test_the_slope_vanishes_however_large_the_residual():
    _, y, _ = data(50, noise=0.5)
    s = least_squares(fitting(y), np.tile(TRUTH, (50, 1)), np.zeros(4), [100, 10, 100, 10], max_iterations=1000)
    length = np.sqrt((s.jacobian**2).sum(axis=-1) * s.cost[:, None])
    cosine = np.einsum("bpn,bn->bp", s.jacobian, s.residual) / np.where(length > 0, length, 1.0)
    assert s.converged.all()
    assert np.abs(cosine[~s.at_bound]).max() < 1e-9
    outward = np.where(s.x > 0, -1, 1) * cosine
    assert (outward[s.at_bound] >= 0).all()  # the cost would fall outside only


def test_data_without_noise_give_the_truth_back():
    truth, y, _ = data(200, noise=0.0)
    s = least_squares(fitting(y), np.tile(TRUTH, (200, 1)), lower=np.zeros(4), max_iterations=300)
    swapped = s.x[:, 1] < s.x[:, 3]
    s.x[swapped] = s.x[swapped][:, [2, 3, 0, 1]]
    assert s.converged.all()
    np.testing.assert_allclose(s.x, truth, rtol=1e-8)


def test_intervals_cover_and_estimates_are_not_biased():
    """1,000 random truths: z = (estimate - truth) / error is centred and within 1.96 in 95 % of the fits."""
    truth, y, sigma = data(1000, seed=5, noise=0.02, spread=0.15)
    s = least_squares(fitting(y, sigma), np.tile(TRUTH, (1000, 1)), lower=np.zeros(4))
    se = np.sqrt(np.diagonal(covariance(s, scaled=False), axis1=1, axis2=2))
    z = (s.x - truth) / se
    assert s.converged.all()
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(1000)  # 4 standard errors of a mean
    cover = (np.abs(z) < 1.96).mean(axis=0)
    assert (np.abs(cover - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 1000)).all(), cover


def test_rosenbrock_from_the_far_side():
    def function(x, rows):
        one = np.ones(len(rows))
        residual = np.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], axis=1)
        return residual, np.stack([np.stack([-20 * x[:, 0], -one], 1), np.stack([10 * one, 0 * one], 1)], axis=1)

    s = least_squares(function, [[-1.2, 1.0], [5.0, -20.0], [0.0, 0.0]])
    assert s.converged.all()
    np.testing.assert_allclose(s.x, 1.0, rtol=1e-10)


def test_a_minimum_at_zero_is_reached():
    t, y = np.array([1.0, 2.0, 3.0]), np.zeros((1, 3))
    s = least_squares(line(t, y), [[3.0, -4.0]])
    assert s.converged.all()
    assert np.abs(s.x).max() < 1e-12


# bounds


@pytest.mark.parametrize("p", [1, 2, 5])
def test_bounded_linear_problems_as_scipy_solves_them(p):
    rng = np.random.default_rng(p)
    X, y = rng.normal(size=(40, 8, p)), rng.normal(size=(40, 8))
    low = rng.normal(-0.3, 0.3, (40, p))
    high = low + rng.exponential(0.3, (40, p))

    def function(x, rows):
        return np.einsum("bnp,bp->bn", X[rows], x) - y[rows], X[rows].swapaxes(1, 2)

    s = least_squares(function, (low + high) / 2, low, high)
    assert s.converged.all()
    assert s.at_bound.any()
    assert ((s.x >= low) & (s.x <= high)).all()
    for i in range(40):
        theirs = scipy.optimize.lsq_linear(X[i], y[i], (low[i], high[i]), method="bvls", tol=1e-14)
        assert s.cost[i] <= 2 * theirs.cost * (1 + 1e-12)
        np.testing.assert_allclose(s.x[i], theirs.x, rtol=1e-8, atol=1e-9)


def test_no_value_outside_the_bounds_is_ever_asked_for():
    _, y, _ = data(40)
    low, high = TRUTH * 0.8, TRUTH * 1.1
    function, asked = fitting(y), []

    def watched(x, rows):
        asked.append(x.copy())
        return function(x, rows)

    s = least_squares(watched, np.tile(TRUTH * [5, 0.1, 1, 1], (40, 1)), low, high)
    everything = np.concatenate(asked)
    assert ((everything >= low) & (everything <= high)).all()
    assert s.converged.all()
    assert s.at_bound.any()
    np.testing.assert_array_equal(s.at_bound, (s.x == low) | (s.x == high))


def test_equal_bounds_fix_a_parameter():
    _, y, _ = data(10)
    fixed = np.array([np.nan, np.nan, np.nan, 0.1])
    low, high = np.where(np.isnan(fixed), 0, fixed), np.where(np.isnan(fixed), np.inf, fixed)
    s = least_squares(fitting(y), np.tile(TRUTH, (10, 1)), low, high)

    def smaller(x, rows):
        r, jacobian = fitting(y)(np.c_[x, np.full(len(x), 0.1)], rows)
        return r, jacobian[:, :3]

    reduced = least_squares(smaller, np.tile(TRUTH[:3], (10, 1)), np.zeros(3))
    assert s.converged.all()
    assert (s.x[:, 3] == 0.1).all()
    assert s.at_bound[:, 3].all()
    np.testing.assert_allclose(s.x[:, :3], reduced.x, rtol=1e-9)
    C = covariance(s, free=[True, True, True, False])
    np.testing.assert_allclose(C[:, :3, :3], covariance(reduced), rtol=1e-7)
    assert (C[:, 3] == 0).all()
    assert (C[:, :, 3] == 0).all()


# each problem by itself


def hostile(y):
    """Ordinary curves, with a few problems that return garbage in different ways."""
    clean = fitting(y)

    def function(x, rows):
        r, jacobian = clean(x, rows)
        r, jacobian = r.copy(), jacobian.copy()
        r[rows % 7 == 1] = np.nan
        jacobian[rows % 7 == 2, 1] = np.inf
        r[rows % 7 == 3] *= 1e200
        jacobian[rows % 7 == 4, 2] = 0.0
        jacobian[rows % 7 == 5] *= -1
        late = (rows % 7 == 6) & (x[:, 0] != TRUTH[0])
        r[late] = np.nan
        return r, jacobian

    return function


@pytest.mark.parametrize("make", [fitting, hostile])
def test_alone_as_together_to_the_last_bit(make):
    _, y, _ = data(63)
    function, start = make(y), np.tile(TRUTH, (63, 1))
    together = least_squares(function, start, lower=np.zeros(4), upper=[9.0, np.inf, np.inf, np.inf])
    for i in range(63):
        alone = least_squares(only(function, np.array([i])), start[:1], np.zeros(4), [9.0, np.inf, np.inf, np.inf])
        same(alone, together, [i])


@pytest.mark.parametrize(("p", "n"), [(1, 1), (1, 40), (2, 3), (7, 200), (13, 37)])
def test_alone_as_together_in_every_shape(p, n):
    rng = np.random.default_rng(p * n)
    X, y = rng.normal(size=(17, p, n)), rng.normal(size=(17, n))

    def function(x, rows):
        bend = np.sinh(0.3 * x)
        return (bend[:, :, None] * X[rows]).sum(axis=1) - y[rows], (0.3 * np.cosh(0.3 * x))[:, :, None] * X[rows]

    together = least_squares(function, np.ones((17, p)), lower=-0.2)
    for i in range(17):
        alone = least_squares(only(function, np.array([i])), np.ones((1, p)), lower=-0.2)
        same(alone, together, [i])
        np.testing.assert_array_equal(covariance(alone)[0], covariance(together)[i])


def test_a_matrix_that_cannot_be_solved_stops_no_other(monkeypatch):
    """numpy refuses a whole stack for one singular matrix: then they are solved one by one, to the same bits."""
    _, y, _ = data(6)
    expected = least_squares(fitting(y), np.tile(TRUTH, (6, 1)))
    one_by_one = np.linalg.solve

    def refuse_stacks(matrix, right):
        if matrix.ndim == 3:
            raise np.linalg.LinAlgError
        return one_by_one(matrix, right)

    monkeypatch.setattr(np.linalg, "solve", refuse_stacks)
    same(least_squares(fitting(y), np.tile(TRUTH, (6, 1))), expected)
    assert np.isnan(levenberg._solve_or_stay(np.zeros((2, 2)), np.ones(2))).all()


def test_any_order_gives_the_same_bits():
    _, y, _ = data(100)
    function, start = hostile(y), np.tile(TRUTH, (100, 1))
    order = np.random.default_rng(2).permutation(100)
    same(least_squares(only(function, order), start), least_squares(function, start), order)


def test_garbage_is_called_by_its_name_and_the_others_are_found():
    _, y, _ = data(70)
    s = least_squares(hostile(y), np.tile(TRUTH, (70, 1)), lower=np.zeros(4))
    kind = np.arange(70) % 7
    assert s.converged[kind == 0].all()
    assert {r for r, k in zip(s.reason, kind, strict=True) if k in (1, 2, 3)} == {levenberg.NOT_FINITE}
    assert {r for r, k in zip(s.reason, kind, strict=True) if k in (5, 6)} == {levenberg.NO_DESCENT}
    np.testing.assert_array_equal(s.x[kind == 1], np.tile(TRUTH, (10, 1)))
    assert s.converged[kind == 4].all()  # a parameter the derivatives say nothing about stays where it is
    assert (s.x[kind == 4, 2] == TRUTH[2]).all()


def test_rows_tell_which_problem_and_get_fewer():
    _, y, _ = data(30)
    function, seen = fitting(y), []

    def watched(x, rows):
        seen.append(rows.copy())
        return function(x, rows)

    s = least_squares(watched, np.tile(TRUTH, (30, 1)))
    assert [len(r) for r in seen] == sorted((len(r) for r in seen), reverse=True)
    counts = np.bincount(np.concatenate(seen))
    np.testing.assert_array_equal(counts, s.iterations + 1)


def test_a_function_may_use_one_buffer_for_all_its_answers():
    _, y, _ = data(20)
    function, r, jacobian = fitting(y), np.empty((20, 12)), np.empty((20, 4, 12))

    def reusing(x, rows):
        r[: len(rows)], jacobian[: len(rows)] = function(x, rows)
        return r[: len(rows)], jacobian[: len(rows)]

    start = np.tile(TRUTH, (20, 1))
    same(least_squares(reusing, start), least_squares(function, start))


def test_the_start_is_not_changed():
    _, y, _ = data(5)
    start = np.tile(TRUTH, (5, 1))
    least_squares(fitting(y), start)
    np.testing.assert_array_equal(start, np.tile(TRUTH, (5, 1)))


def test_no_problem_at_all():
    _, y, _ = data(3)
    s = least_squares(only(fitting(y), np.arange(0)), np.empty((0, 4)))
    assert s.x.shape == (0, 4)
    assert s.reason == ()
    assert covariance(s).shape == (0, 4, 4)


# invariance


def test_units_of_parameters_change_no_bit_when_they_are_powers_of_two():
    _, y, _ = data(40)
    scale = 2.0 ** np.array([40, -30, -7, 20])
    plain = least_squares(fitting(y), np.tile(TRUTH, (40, 1)), lower=np.zeros(4))
    other = least_squares(fitting(y, scale=scale), np.tile(TRUTH / scale, (40, 1)), lower=np.zeros(4))
    np.testing.assert_array_equal(other.x * scale, plain.x)
    np.testing.assert_array_equal(other.iterations, plain.iterations)


@pytest.mark.parametrize("factor", [1e-9, 60.0, 1e9])
def test_units_of_data_and_parameters(factor):
    _, y, _ = data(40)
    start = np.tile(TRUTH, (40, 1))
    plain = least_squares(fitting(y), start)
    other = least_squares(fitting(y * factor), start * [factor, 1, factor, 1])
    np.testing.assert_allclose(other.x / [factor, 1, factor, 1], plain.x, rtol=1e-8)
    np.testing.assert_allclose(covariance(other)[:, 1, 1], covariance(plain)[:, 1, 1], rtol=1e-6)


def test_padding_changes_nothing():
    _, y, _ = data(40)
    function = fitting(y)

    def padded(x, rows):
        r, jacobian = function(x, rows)
        return np.pad(r, ((0, 0), (0, 5))), np.pad(jacobian, ((0, 0), (0, 0), (0, 5)))

    start = np.tile(TRUTH, (40, 1))
    s, plain = least_squares(padded, start), least_squares(function, start)
    np.testing.assert_allclose(s.x, plain.x, rtol=1e-9)
    np.testing.assert_allclose(covariance(s), covariance(plain), rtol=1e-7)


# what the data cannot tell


def test_a_product_is_found_though_its_factors_are_not():
    """y = a b t + c: only a b is determined, and its error is that of the straight line."""
    t = np.array([1.0, 2.0, 3.0, 5.0])
    y = np.array([[2.0, 3.9, 6.2, 10.1]])

    def function(x, rows):
        a, b, c = x[:, :1], x[:, 1:2], x[:, 2:]
        return a * b * t + c - y[rows], np.stack([b * t, a * t, np.ones_like(b * t)], axis=1)

    s = least_squares(function, [[1.0, 5.0, 0.0]])
    plain = least_squares(line(t, y), [[0.0, 0.0]])
    assert s.converged.all()
    np.testing.assert_allclose(s.x[0, 0] * s.x[0, 1], plain.x[0, 1], rtol=1e-9)
    assert identified(s).tolist() == [[False, False, True]]
    gradient = np.array([s.x[0, 1], s.x[0, 0], 0.0])
    df = np.array([1.0, 2.0])  # three parameters were counted here and two there
    np.testing.assert_allclose(gradient @ covariance(s)[0] @ gradient * df[0], covariance(plain)[0, 1, 1] * df[1])
    assert identified(s, free=[True, False, True]).all()


def test_more_parameters_than_values():
    def function(x, rows):
        return x[:, :1] + x[:, 1:2] + 2 * x[:, 2:] - [3.0], np.array([[[1.0], [1.0], [2.0]]] * len(rows))

    s = least_squares(function, [[0.0, 0.0, 0.0]])
    assert s.converged.all()
    assert s.cost[0] < 1e-20
    assert not identified(s).any()
    assert np.isnan(covariance(s)).all()


def test_covariance_without_a_degree_of_freedom_is_missing():
    t = np.array([0.0, 1.0])
    s = least_squares(line(t, np.array([[1.0, 2.0]])), [[0.0, 0.0]])
    assert np.isnan(covariance(s)).all()
    np.testing.assert_allclose(covariance(s, scaled=False)[0], [[1, -1], [-1, 2]], rtol=1e-12)


def test_a_value_that_fits_exactly_still_counts_when_told():
    """At t = 0 the model a t is 0 for every a: the value there looks like padding, unless `count` says it is none."""
    t, y = np.array([0.0, 1.0, 2.0]), np.array([[0.0, 1.1, 1.9]])

    def function(x, rows):
        return x * t - y[rows], np.broadcast_to(t, (len(rows), 1, 3))

    s = least_squares(function, [[0.0]])
    np.testing.assert_allclose(covariance(s, count=[3]) * 2, covariance(s))


def test_failed_problems_have_no_covariance():
    _, y, _ = data(14)
    s = least_squares(hostile(y), np.tile(TRUTH, (14, 1)))
    C, known = covariance(s), identified(s)
    assert not known[[1, 2, 3, 8]].any()
    assert known[[0, 7]].all()
    assert known[[4, 11]].tolist() == [[True, True, False, True]] * 2
    assert np.isnan(C[[1, 2, 3, 8]]).all()
    assert np.isfinite(C[[0, 7]]).all()


# what goes wrong


def test_steps_into_nothing_are_shortened():
    """log(x) does not exist below 0, where the first full steps would go."""

    def function(x, rows):
        return np.log(x) - [[-2.0, -2.2]], (1 / x)[:, :, None] * np.ones((1, 1, 2))

    s = least_squares(function, [[50.0], [1e-8], [1e6]])
    assert s.converged.all()
    np.testing.assert_allclose(s.x, np.exp(-2.1), rtol=1e-9)


def test_a_wrong_derivative_is_not_taken_for_a_minimum():
    def function(x, rows):
        return x - 3.0, -np.ones((len(rows), 1, 1))

    s = least_squares(function, [[0.0]])
    assert not s.converged[0]
    assert s.reason == (levenberg.NO_DESCENT,)


def test_too_few_iterations_are_said():
    _, y, _ = data(2)
    s = least_squares(fitting(y), np.tile(TRUTH * 1.5, (2, 1)), max_iterations=2)
    assert not s.converged.any()
    assert set(s.reason) == {"not converged after 2 iterations; give other starting values or raise max_iterations"}
    assert (s.iterations == 2).all()


def test_starting_values_that_are_not_numbers():
    _, y, _ = data(3)
    s = least_squares(fitting(y), [TRUTH, TRUTH * np.nan, TRUTH * np.inf])
    assert s.converged.tolist() == [True, False, False]
    assert s.reason[1:] == (levenberg.NOT_FINITE,) * 2


@pytest.mark.parametrize(
    ("start", "bounds", "sentence"),
    [
        ([1.0, 2.0], {}, r"start has shape \(2,\); expected \(problems, parameters\)"),
        ([[1.0, 2.0]], {"lower": [0.0, 0.0, 0.0]}, r"lower has shape \(3,\); expected \(1, 2\) like start, or \(2,\) for all"),
        ([[1.0, 2.0]], {"upper": [[0.0]]}, r"upper has shape \(1, 1\)"),
        (
            [[1.0, 2.0], [1.0, 2.0]],
            {"lower": [[0.0, 0.0], [0.0, 3.0]], "upper": [2.0, 2.5]},
            r"bounds of parameter 1 of problem 1 are lower 3 and upper 2.5; expected lower <= upper",
        ),
        ([[1.0, 2.0]], {"upper": [1.0, np.nan]}, r"bounds of parameter 1 of problem 0 are lower -inf and upper nan"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(start, bounds, sentence):
    with pytest.raises(ValueError, match=sentence):
        least_squares(line(T, T[None]), start, **bounds)


@pytest.mark.parametrize(
    "wrong", [lambda r, j: (r, j.swapaxes(1, 2)), lambda r, j: (r[0], j), lambda r, j: (r[:, 1:], j)]
)
def test_a_function_with_the_wrong_shape_is_told_the_right_one(wrong):
    function = line(T, np.zeros((2, len(T))))
    with pytest.raises(ValueError, match=r"function returned residuals .* expected \(B, N\) and \(B, p, N\)"):
        least_squares(lambda x, rows: wrong(*function(x, rows)), np.ones((2, 2)))
