"""Draws from the joint posterior: exact answers where there are any, shares of worlds, what is told, and what is refused."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from evbiodist.crossval.joint import posterior
from evbiodist.crossval.joint.answer import _starts
from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.fit import JointFit, fit_joint
from evbiodist.crossval.joint.hypotheses import Worlds
from evbiodist.crossval.joint.posterior import JointPosterior, log_density, sample_joint
from evbiodist.crossval.joint.problem import Prior
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.labels import label_model
from evbiodist.study.model import CrossvalSettings


@dataclass(frozen=True, eq=False)
class Straight:
    """A problem whose rows are straight lines in its coordinates, so that its posterior is known."""

    names: tuple[str, ...]
    slopes: np.ndarray  # (q, N)
    value: np.ndarray  # (N,)
    prior: Prior
    pure: tuple[float, int] = (0.0, 0)

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def vesicle(self) -> SimpleNamespace:
        return SimpleNamespace(names=(), parameters=())

    @property
    def rows(self) -> SimpleNamespace:
        return SimpleNamespace(size=self.value.size, readings=self.value.size, pure=self.pure, times=np.ones((1, 1)))

    @property
    def inputs(self) -> dict:
        return {}

    @property
    def arms(self) -> SimpleNamespace:
        return SimpleNamespace(last_h=1.0, labels=("A", "B"))

    def residuals(self, u):
        known, steep = self.prior.residual(u)
        own = np.eye(self.size) * steep[:, None, :]
        rows = np.broadcast_to(self.slopes, (len(u), *self.slopes.shape))
        return np.concatenate([u @ self.slopes - self.value, known], axis=1), np.concatenate([rows, own], axis=2)


def fitted(problem: Straight, u) -> JointFit:
    u = np.asarray(u, float)
    r, J = problem.residuals(u[None])
    return JointFit(problem, u, r[0], J[0].T, True)


def in_worlds(fits: list[JointFit], probability) -> Worlds:
    words = tuple((f"world {k}",) for k in range(len(fits)))
    u = np.stack([f.u for f in fits])
    return Worlds(fits[0].problem, ("A",), words, u, np.log(probability), dict(enumerate(fits)))


def two_lines(heavy=(False, False), pure=(0.0, 0)) -> JointFit:
    rng = np.random.default_rng(4)
    slopes = np.stack([np.ones(12), np.linspace(-1, 1, 12)])
    value = slopes.T @ [0.5, -1.0] + rng.standard_normal(12)
    prior = Prior(np.array([0.0, 0.0]), np.array([1.0, 0.3]), np.array(heavy))
    problem = Straight(("A.scale", "A.free_fraction"), slopes, value, prior, pure)
    return fitted(problem, np.linalg.solve(slopes @ slopes.T + np.diag(1 / prior.sd**2), slopes @ value))


def only_prior(centre: float, sd: float = 0.5, heavy: bool = False) -> JointFit:
    prior = Prior(np.array([centre]), np.array([sd]), np.array([heavy]))
    return fitted(Straight(("A.background_liver",), np.zeros((1, 2)), np.zeros(2), prior), [centre])


@pytest.fixture
def installed(monkeypatch):
    """The extra's libraries, and a warm-up that is long enough for few coordinates."""
    pytest.importorskip("mici")
    pytest.importorskip("arviz_stats")
    monkeypatch.setattr(posterior, "_PILOT", ((10, 20),))


@pytest.fixture(scope="module")
def study() -> JointFit:
    """A small digital study, fitted."""
    rng = np.random.default_rng(3)
    drawn = LabelStudy.draw(
        rng, labels=("DiR", "111In"), organs=("liver", "brain"), times_h=(0.25, 1, 4, 24), animals=3
    )
    models = {n: label_model(n, one) for n, one in drawn.definitions().items()}
    settings = CrossvalSettings()
    arms = gather_arms(drawn.observations, settings.controls, species="mouse")
    vesicle = build("plasma_with_organs", arms.organs, species=None)
    dose = {vesicle.ports[0].name: Doses(100.0, 0.0, 0.0)}
    return fit_joint(vesicle, arms, models, dose, _starts(vesicle, {}))


def test_straight_rows_and_normal_priors_give_the_normal_posterior(installed) -> None:
    found = two_lines(pure=(30.0, 8))  # replicates worse than their errors, so rows count for less
    assert found.scale > 1.5
    p = found.problem
    inverse = np.linalg.inv(p.slopes @ p.slopes.T / found.scale + np.diag(1 / p.prior.sd**2))
    mean, sd = inverse @ (p.slopes @ p.value / found.scale), np.sqrt(np.diag(inverse))
    got = sample_joint(in_worlds([found], [1.0]), p.names, draws=600, seed=1)
    scale, fraction = np.log(got.draws[:, 0]), np.log(got.draws[:, 1] / (1 - got.draws[:, 1]))
    for x, m, s, worth in zip((scale, fraction), mean, sd, got.ess_bulk, strict=True):
        assert abs(x.mean() - m) < 4 * s / np.sqrt(worth)
        assert x.std() == pytest.approx(s, rel=4 / np.sqrt(2 * worth))
    assert np.corrcoef(scale, fraction)[0, 1] == pytest.approx(inverse[0, 1] / sd.prod(), abs=0.15)
    assert got.draws.shape == (600, 2)
    assert (got.r_hat < 1.05).all()
    assert got.divergences == 0
    assert got.notes == ()


def test_a_heavy_prior_is_students_t(installed) -> None:
    got = sample_joint(in_worlds([only_prior(2.0, heavy=True)], [1.0]), ["A.background_liver"], draws=800, seed=5)
    z = (got.draws[:, 0] - 2.0) / 0.5
    worth = min(got.ess_bulk[0], got.ess_tail[0])
    assert worth > 200
    for limit in (-2.776, -0.741, 0.0, 0.741, 2.776):  # 2.5, 25, 50, 75 and 97.5 % of t with 4 degrees of freedom
        share = stats.t(4).cdf(limit)
        assert (z < limit).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / worth))


def test_a_heavy_prior_gives_way_as_the_integral_says(installed) -> None:
    found = two_lines(heavy=(False, True))
    grid = np.stack(np.meshgrid(np.linspace(-2, 3, 301), np.linspace(-4, 3, 501), indexing="ij"), -1)
    p = found.problem
    rows = ((grid @ p.slopes - p.value) ** 2).sum(-1) / found.scale
    log = -0.5 * rows + stats.norm.logpdf(grid[..., 0]) + stats.t(4, scale=0.3).logpdf(grid[..., 1])
    weight = np.exp(log - log.max())
    truth = [(weight * grid[..., k]).sum() / weight.sum() for k in range(2)]
    got = sample_joint(in_worlds([found], [1.0]), p.names, draws=600, seed=2)
    for x, m, worth in zip(
        (np.log(got.draws[:, 0]), np.log(got.draws[:, 1] / (1 - got.draws[:, 1]))), truth, got.ess_bulk, strict=True
    ):
        assert abs(x.mean() - m) < 4 * x.std() / np.sqrt(worth)


def test_draws_are_shared_by_the_probability_of_worlds(installed) -> None:
    worlds = in_worlds([only_prior(10.0), only_prior(0.0), only_prior(50.0)], [0.29, 0.7, 0.01])
    got = sample_joint(worlds, ["A.background_liver"], draws=201, seed=1)
    assert got.worlds == (("world 1",), ("world 0",))
    assert got.weight == pytest.approx([0.7 / 0.99, 0.29 / 0.99])
    assert np.bincount(got.world).tolist() == [142, 59]
    assert (got.draws[got.world == 0] < 5).all()
    assert (got.draws[got.world == 1] > 5).all()
    assert "1 % together, were not sampled" in got.notes[0]
    (one,) = got.estimates
    assert abs(one.value) < 2
    assert 9 < one.ci_high < 12
    assert "average over 2 worlds" in one.method


def test_the_seed_decides(installed) -> None:
    worlds = in_worlds([only_prior(1.0)], [1.0])
    a, b, c = (sample_joint(worlds, ["A.background_liver"], draws=100, seed=s).draws for s in (3, 3, 4))
    assert (a == b).all()
    assert (a != c).any()


def test_the_density_is_rows_by_scale_and_priors_as_they_are(study) -> None:
    """Differences of the density are those of normal rows and of normal or Student's t priors."""
    found = replace(study, residual=2 * study.residual)  # a fit that misses, so that its scale counts
    assert found.scale > 1.5
    p, N = study.problem, study.size
    assert p.prior.heavy.any()

    def by_hand(u):
        z = (u - p.prior.centre) / p.prior.sd
        known = np.where(p.prior.heavy, stats.t(4).logpdf(z), stats.norm.logpdf(z)).sum()
        return known - 0.5 * (p.residuals(u[None])[0][0, :N] ** 2).sum() / found.scale

    rng = np.random.default_rng(0)
    near = [study.u + 0.3 * rng.standard_normal(p.size) for _ in range(3)]
    got = [log_density(found, u) for u in near]
    for (a, _), (b, _), u, v in zip(got, got[1:], near, near[1:], strict=False):
        assert a - b == pytest.approx(by_hand(u) - by_hand(v), rel=1e-9)
    for _, slope in got[:1]:
        for i in range(p.size):
            step = 1e-5 * np.eye(p.size)[i]
            numeric = (by_hand(near[0] + step) - by_hand(near[0] - step)) / 2e-5
            assert slope[i] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_where_the_model_cannot_be_evaluated_there_is_no_density(study) -> None:
    value, slope = log_density(study, np.full(study.problem.size, 1e4))
    assert value == -np.inf
    assert (slope == 0).all()


def test_a_study_is_sampled_in_its_own_units(installed, study, monkeypatch) -> None:
    monkeypatch.setattr(posterior, "_WARM_UP", 5)
    monkeypatch.setattr(posterior, "_ROUGH_DEPTH", 2)
    monkeypatch.setattr(posterior, "_DEPTH", 3)
    names = ["brain_uptake_pct_id", "half_life", "cl", "v", "DiR.free_fraction", "DiR.release"]
    got = sample_joint(in_worlds([study], [1.0]), names, draws=100, seed=1)
    assert got.units[:4] == ("pct_id", "h", "g/h", "g")
    by_name = dict(zip(names, got.draws.T, strict=True))
    assert (np.isfinite(got.draws) & (got.draws > 0)).all()
    assert (by_name["DiR.free_fraction"] < 1).all()
    at_best = study.theta[study.problem.vesicle.names.index("v")]
    assert np.median(by_name["v"]) == pytest.approx(at_best, rel=0.5)
    assert got.gradients > 100


def drawn(x, **more) -> JointPosterior:
    x = np.asarray(x, float)[:, None]
    own = {"r_hat": np.array([1.0]), "notes": ()} | more
    return JointPosterior(("cl",), ("g/h",), x, np.zeros(len(x), np.intp), (("faithful",),), np.ones(1), own["r_hat"],
                          np.array([99.0]), np.array([99.0]), 0, 1, 0.8, 7, own["notes"])  # fmt: skip


def test_estimates_are_quantiles_of_the_draws() -> None:
    (one,) = drawn(np.arange(101.0)).estimates
    assert (one.value, one.ci_low, one.ci_high) == pytest.approx((50, 10, 90))
    assert (one.n, one.unit) == (7, "g/h")
    assert one.se == pytest.approx(np.sqrt(101 * 102 / 12))
    assert one.flags == ("imprecise",)
    assert drawn(np.arange(101.0) + 1000).estimates[0].flags == ()


def test_chains_that_differ_are_flagged_and_told() -> None:
    (one,) = drawn([9.0, 10.0, 11.0], r_hat=np.array([1.2]), notes=("chains differ",)).estimates
    assert one.flags == ("not_converged",)
    assert one.reason == "chains differ"
    (one,) = drawn([9.0, 10.0, 11.0], r_hat=np.array([np.nan])).estimates
    assert "not_converged" in one.flags


def test_what_does_not_exist_in_a_draw_has_no_estimate() -> None:
    (one,) = drawn([1.0, np.nan, 2.0]).estimates
    assert np.isnan(one.value)
    assert one.reason == "does not exist in 1 of 3 draws"


def test_what_weakens_draws_is_told() -> None:
    told = posterior._notes(0.03, 2, ["a", "b"], np.array([1.0, 1.3]), np.array([500.0, 12.0]))
    assert told[0].startswith("less probable combinations of faithful labels, 3 % together")
    assert told[1].startswith("2 trajectories diverged")
    assert told[2] == "chains differ in b (R-hat up to 1.30); raise draws"
    assert told[3] == "b: worth 12 independent draws; raise draws"
    assert not posterior._notes(0.001, 0, ["a"], np.array([1.0]), np.array([500.0]))


def test_chains_in_different_places_are_seen(installed) -> None:
    rng = np.random.default_rng(1)
    apart = rng.standard_normal((4, 100, 1)) + np.arange(4)[:, None, None]
    r_hat, bulk, tail = posterior._diagnosed([apart, rng.standard_normal((4, 100, 1))], np.array([0.5, 0.5]))
    assert r_hat[0] > 1.2
    assert bulk[0] < 60
    assert tail.shape == (1,)


@pytest.mark.parametrize(("gone", "said"), [
    ({"mici"}, "need mici, which"), ({"mici", "arviz_stats"}, "need mici and arviz_stats, which"),
])  # fmt: skip
def test_without_its_libraries_the_extra_is_named(monkeypatch, gone, said) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else name)
    with pytest.raises(ValueError, match=rf"{said} is not installed; install\s+evbiodist\[bayes\]"):
        sample_joint(in_worlds([only_prior(0.0)], [1.0]), ["A.background_liver"], seed=1)


@pytest.mark.parametrize(("more", "said"), [
    ({"draws": 99}, "draws has 99, .* expected 100 draws or more"), ({"level": 1.0}, "level 1.0, .* between 0 and 1"),
    ({"names": []}, "a name or more"), ({"names": ["nonsense"]}, "nonsense"),
])  # fmt: skip
def test_numbers_and_names_are_checked(monkeypatch, study, more, said) -> None:
    monkeypatch.setattr(posterior, "_installed", lambda: None)
    asked = {"names": ["cl"], "seed": 1} | more
    with pytest.raises(ValueError, match=said):
        sample_joint(in_worlds([study], [1.0]), asked.pop("names"), **asked)
