"""The least-squares problem of a fit: losses, scales, limits, freedom, each against its definition."""

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import norm

from evbiodist.kinetics.fitting.problem import LOSSES, Freedom, Problem
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design

GRAPH = build("one_compartment_iv")
TIMES = np.array([0.2, 1.0, 3.0, 8.0])
#: Where the losses turn, in standard deviations: 95 % efficiency for normal errors (Huber 1981; Holland & Welsch 1977).
TURN = {"squares": 1.0, "huber": 1.345, "soft_l1": 1.0, "cauchy": 2.385}
SCIPY = {"squares": "linear"}


def problem(values, *, freedom=None, censored=None, sigma=0.5, scale="linear", loss="squares", graph=GRAPH):
    values = np.atleast_2d(np.asarray(values, float))
    design = Design(TIMES[: values.shape[1]], inputs={"dose": Doses(20.0)})
    hidden = None if censored is None else np.atleast_2d(censored)
    sigma, freedom = np.broadcast_to(sigma, values.shape).astype(float), freedom or Freedom.of(graph, {}, {})
    return Problem(graph, design, np.arange(values.shape[1]), values, sigma, hidden, freedom, scale, loss)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_square_of_a_transformed_residual_is_scipys_loss(loss):
    """At one residual, least_squares reports half of C^2 rho((r / C)^2)."""
    for r in (0.0, 1e-7, -0.3, 1.3449, 1.3451, -2.0, 7.0, -300.0):
        held = least_squares(lambda x, r=r: np.array([r]) + 0 * x[0], [0.0], loss=SCIPY.get(loss, loss), f_scale=TURN[loss],
                             method="trf", max_nfev=1)  # fmt: skip
        bent, _ = LOSSES[loss](np.array([r]))
        assert bent[0] ** 2 == pytest.approx(2 * held.cost, rel=1e-9, abs=1e-15)
        assert np.sign(bent[0]) == np.sign(r)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_slopes_of_losses(loss):
    r = np.array([-300.0, -7.0, -1.4, -1.3, -1e-3, 1e-6, 0.0, 0.5, 1.3, 1.4, 2.0, 40.0])
    step = 1e-6
    bent = [LOSSES[loss](r + s)[0] for s in (step, -step)]
    np.testing.assert_allclose(LOSSES[loss](r)[1], (bent[0] - bent[1]) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"squares"}))
def test_robust_losses_are_squares_near_zero_and_flatter_far_out(loss):
    near, far = LOSSES[loss](np.array([1e-4]))[0][0], LOSSES[loss](np.array([100.0]))[0][0]
    assert near == pytest.approx(1e-4, rel=1e-7)
    assert far < 20


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_jacobian_of_every_choice_is_exact(loss, scale):
    """Values, a padded one and one below its limit at once, against central differences."""
    p = problem([[3.0, 1.0, np.nan, 0.3], [9.0, 0.1, 1.0, 0.3]], censored=[[False, False, False, True]] * 2,
                loss=loss, scale=scale)  # fmt: skip
    u, rows = np.log([[2.0, 6.0], [0.7, 3.0]]), np.arange(2)
    r, J = p(u, rows)
    for i in range(2):
        step = 1e-6 * np.eye(2)[i]
        np.testing.assert_allclose(J[:, i], (p(u + step, rows)[0] - p(u - step, rows)[0]) / 2e-6, rtol=1e-6, atol=1e-8)
    assert r[0, 2] == 0
    assert not J[0, :, 2].any()


def test_a_logarithmic_residual_is_the_log_ratio_over_the_relative_error():
    p = problem([[4.0, 2.0]], sigma=[[0.4, 0.1]], scale="log")
    r, _ = p.residual(np.array([[5.0, 1.0]]))
    np.testing.assert_allclose(r, [[np.log(5 / 4) / 0.1, np.log(1 / 2) / 0.05]])


def test_a_value_below_its_limit_counts_with_its_probability():
    """Beal 2001, M3: the residual's square is -2 log Phi((limit - y) / sigma); far out it stays exact."""
    p = problem([[1.0, 1.0, 1.0, 1.0]], sigma=0.25, censored=[[True] * 4])
    y = np.array([[0.1, 1.0, 1.7, 40.0]])
    r, slope = p.residual(y)
    np.testing.assert_allclose(r**2, -2 * norm.logcdf((1.0 - y) / 0.25), rtol=1e-10)
    up, down = (p.residual(y + s)[0] for s in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-5, atol=1e-7)
    r, slope = p.residual(np.full((1, 4), -1e3))
    assert not r.any()
    assert not slope.any()


def test_padding_and_missing_errors_weigh_nothing():
    p = problem([[3.0, np.nan, 2.0, 1.0]], sigma=[[1.0, 1.0, np.nan, 1.0]])
    r, J = p(np.log([[1.0, 2.0]]), np.arange(1))
    assert (r[0] == 0).tolist() == [False, True, True, False]
    assert (J[0] == 0).all(axis=0).tolist() == [False, True, True, False]


def test_some_problems_are_what_they_are_among_all():
    rng = np.random.default_rng(2)
    p = problem(rng.uniform(1, 5, (4, 4)))
    u = np.log(rng.uniform(1, 5, (4, 2)))
    whole, part = p(u, np.arange(4)), p(u[[2, 0]], np.array([2, 0]))
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[[2, 0]], b)


def test_values_answer_their_own_place():
    """Two values of one time and one of another, out of order; own places for each problem."""
    p = problem([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    two = Problem(GRAPH, p.design, np.array([[2, 0, 2], [1, 1, 0]]), p.value, p.sigma, None, p.freedom)
    u = np.log([[2.0, 6.0], [1.0, 3.0]])
    y, dy = p.predict(u, True)
    got, slopes = two.predict(u, True)
    np.testing.assert_array_equal(got, [y[0, [2, 0, 2]], y[1, [1, 1, 0]]])
    np.testing.assert_array_equal(slopes[1], dy[1][:, [1, 1, 0]])


ORGANS = build("plasma_with_organs", ["brain", "liver"])
TISSUE = build("one_tissue")


def test_freedom_holds_ties_and_frees():
    f = Freedom.of(ORGANS, {"v": 2.0}, {"k_out_brain": "k_out_liver"})
    assert f.names == ("k_el", "k_in_brain", "k_in_liver", "k_out_liver")
    assert f.still == {"v"}
    assert not f.whole
    theta = ORGANS.from_search(f.full(np.log([[0.5, 0.1, 0.2, 0.3]])))
    assert dict(zip(ORGANS.names, theta[0].round(12), strict=True)) == {
        "v": 2.0, "k_el": 0.5, "k_in_brain": 0.1, "k_in_liver": 0.2, "k_out_brain": 0.3, "k_out_liver": 0.3}  # fmt: skip
    np.testing.assert_allclose(f.free(f.full(np.array([1.0, 2.0, 3.0, 4.0]))), [1, 2, 3, 4])


def test_what_the_model_holds_can_be_freed_and_held_elsewhere():
    assert Freedom.of(TISSUE, {}, {}).names == ("k1", "k2", "v_b")
    assert Freedom.of(TISSUE, {"delay": None}, {}).names == ("k1", "k2", "v_b", "delay")
    moved = Freedom.of(TISSUE, {"delay": 0.3, "v_b": 1.0, "k2": 0.0}, {})
    assert moved.names == ("k1",)
    assert TISSUE.from_search(moved.full(np.log([[4.0]])))[0].tolist() == pytest.approx([4.0, 0.0, 1.0, 0.3])


def test_a_parameter_that_follows_a_held_one_is_held_there_too():
    f = Freedom.of(ORGANS, {"k_out_liver": 0.05}, {"k_out_brain": "k_out_liver"})
    theta = ORGANS.from_search(f.full(np.zeros((1, 4))))[0]
    assert theta[ORGANS.names.index("k_out_brain")] == pytest.approx(0.05)
    assert f.still == {"k_out_brain", "k_out_liver"}


def test_derivatives_of_followed_parameters_add_up():
    tied = Freedom.of(ORGANS, {}, {"k_out_brain": "k_out_liver"})
    design = Design([0.5, 4.0], inputs={"dose": Doses(20.0)})
    ones = np.ones((1, 6))
    p = Problem(ORGANS, design, np.arange(6), ones, ones, None, tied)
    u = np.log([[2.0, 0.5, 0.1, 0.2, 0.3]])
    for i in range(5):
        step = 1e-6 * np.eye(5)[i]
        numeric = (p.predict(u + step, False)[0] - p.predict(u - step, False)[0]) / 2e-6
        np.testing.assert_allclose(p.predict(u, True)[1][:, i], numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("fixed", "ties", "words"),
    [
        ({"k_ell": 1.0}, {}, "'k_ell' is not a parameter of plasma_with_organs; did you mean 'k_el'"),
        ({}, {"k_ou_brain": "k_out_liver"}, "'k_ou_brain' is not a parameter"),
        ({}, {"k_out_brain": "k_out_livre"}, "'k_out_livre' is not a parameter.*did you mean 'k_out_liver'"),
        ({"v": -1.0}, {}, "v is held at -1, which its scale does not allow"),
        ({"v": np.nan}, {}, "v is held at nan"),
        ({"k_el": 1.0}, {"k_el": "v"}, "k_el cannot follow another parameter and be held or followed itself"),
        ({}, {"k_in_brain": "k_in_liver", "k_in_liver": "k_el"}, "k_in_liver cannot follow another parameter and be"),
        ({}, {"k_el": "k_el"}, "k_el cannot follow another"),
        (dict.fromkeys(ORGANS.names, 1.0), {}, "every parameter is held, so nothing is left to fit; free one"),
    ],
)
def test_freedom_refuses(fixed, ties, words):
    with pytest.raises(ValueError, match=words):
        Freedom.of(ORGANS, fixed, ties)


def test_freedom_refuses_what_a_scale_cannot_hold():
    with pytest.raises(ValueError, match=r"v_b is held at 1\.5, which its scale does not allow"):
        Freedom.of(TISSUE, {"v_b": 1.5}, {})
    with pytest.raises(
        ValueError, match="v_b cannot follow k1: one is searched on its logit scale and the other on its log"
    ):
        Freedom.of(TISSUE, {}, {"v_b": "k1"})
