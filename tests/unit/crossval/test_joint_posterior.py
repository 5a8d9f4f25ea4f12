"""Draws of the joint posterior: exact where the answer is known, and honest about how much they carry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evbiodist.crossval.joint import posterior
from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.posterior import JointPosterior, sample_joint
from evbiodist.crossval.joint.problem import Prior

ROWS = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, -1.0]])
SEEN = np.array([0.3, 1.0, -0.2])


class Toy:
    """Straight rows and priors on two coordinates, as a problem looks to the sampler."""

    def __init__(self, heavy: bool = False) -> None:
        self.prior = Prior(np.array([0.0, 0.5]), np.array([2.0, 0.7]), np.array([heavy, False]))
        self.rows = SimpleNamespace(size=0 if heavy else 3, readings=12, pure=(9.0, 9))
        self.size = 2

    def residuals(self, u: np.ndarray[Any, Any], **_: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        known, steep = self.prior.residual(u)
        own = np.eye(2) * steep[:, None, :]
        if not self.rows.size:
            return known, own
        r = u @ ROWS.T - SEEN
        return np.concatenate([r, known], axis=1), np.concatenate([np.tile(ROWS.T, (len(u), 1, 1)), own], axis=2)


def fit_of(toy: Toy, u: np.ndarray[Any, Any]) -> JointFit:
    r, J = toy.residuals(u[None])
    return JointFit(toy, u, r[0], J[0].T, True)  # type: ignore[arg-type]


def worlds_of(*fits: JointFit, weight: tuple[float, ...] = (1.0,)) -> Any:
    return SimpleNamespace(fits=dict(enumerate(fits)), weight=np.array(weight), best=fits[0])


@pytest.fixture(autouse=True)
def coordinates(monkeypatch):
    """Ask for coordinates by number."""
    monkeypatch.setattr(posterior, "log_quantity", lambda problem, name: lambda u: (u[:, int(name)], u))


def optimum() -> np.ndarray[Any, Any]:
    information = ROWS.T @ ROWS + np.diag(1 / np.array([2.0, 0.7]) ** 2)
    return np.linalg.solve(information, ROWS.T @ SEEN + np.array([0.0, 0.5]) / np.array([2.0, 0.7]) ** 2)


def test_straight_rows_and_normal_priors_give_the_normal_posterior():
    toy = Toy()
    fit = fit_of(toy, optimum())
    found = sample_joint(worlds_of(fit), ["0", "1"], draws=4000, seed=1)
    scaled = ROWS.T @ ROWS / fit.scale + np.diag(1 / np.array([2.0, 0.7]) ** 2)
    assert found.effective > 3900  # of straight lines every draw weighs the same
    for k in (0, 1):
        sd = np.linalg.inv(scaled)[k, k] ** 0.5
        assert found.value[:, k].std() == pytest.approx(sd, rel=0.05)


def test_a_heavy_prior_is_students_t():
    found = sample_joint(worlds_of(fit_of(Toy(heavy=True), np.array([0.0, 0.5]))), ["0"], draws=4000, seed=2)
    order = np.argsort(found.value[:, 0])
    share = np.cumsum(found.weight[order])
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        drawn = float(np.interp(p, share, found.value[order, 0]))
        assert stats.t(4, scale=2.0).cdf(drawn) == pytest.approx(p, abs=0.03)


def test_worlds_get_draws_by_their_probability_and_the_seed_decides():
    fits = [fit_of(Toy(), optimum()), fit_of(Toy(heavy=True), np.array([0.0, 0.5]))]
    worlds = worlds_of(*fits, weight=(0.75, 0.25))
    one, same, other = (sample_joint(worlds, ["0"], draws=400, seed=s) for s in (3, 3, 4))
    assert len(one.value) == 400
    assert one.weight[:300].sum() == pytest.approx(0.75, abs=0.01)
    assert np.array_equal(one.value, same.value)
    assert not np.array_equal(one.value, other.value)


def test_estimates_are_weighted_quantiles():
    x = np.log(np.array([[1.0], [2.0], [4.0]]))
    found = JointPosterior(("q",), x, np.array([0.2, 0.6, 0.2]), 200.0, 0.0, 0.5, 7, ())
    (e,) = found.estimates
    assert e.value == pytest.approx(2.0)
    assert e.ci_low < 2.0 < e.ci_high
    assert e.n == 7


def test_too_few_draws_are_refused_or_told():
    worlds = worlds_of(fit_of(Toy(), optimum()))
    with pytest.raises(ValueError, match="draws has 50, expected 100 or more"):
        sample_joint(worlds, ["0"], draws=50, seed=1)
    found = sample_joint(worlds, ["0"], draws=100, seed=1)
    told = [n for n in found.notes if "effective draws are too few" in n]
    assert bool(told) == (found.effective < 100)
