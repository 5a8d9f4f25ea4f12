"""Numbers of the joint label model against scipy: matrix exponentials, normal densities, mixtures, F tests, constrained refits.

The model is read edge by edge from its description, so nothing of its own solver stands behind the expected values.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm
from scipy.optimize import least_squares, minimize

from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.average import average
from evbiodist.crossval.joint.compose import labelled
from evbiodist.crossval.joint.fit import fit_joint
from evbiodist.crossval.joint.hypotheses import LIES, explore, prior_in
from evbiodist.crossval.joint.leave_out import leave_out
from evbiodist.crossval.joint.profile import joint_profiles
from evbiodist.crossval.joint.quantities import log_quantity, vesicle_quantities
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.estimate import student
from evbiodist.study.labels import label_model

ORGANS = ("brain", "liver")
TIMES = np.array([0.0, 0.05, 0.4, 3.0, 20.0])


def composable():
    """Names of the linear models that take several labels."""
    names = []
    for name in sorted(catalogue()):
        graph = build(name, ORGANS if needs_organs(name) else ())
        try:
            names += [name] if labelled(graph).linear else []
        except ValueError:
            continue
    return names


COMPOSABLE = composable()


def monomial(m, values):
    total = m.coefficient
    for factor, power in m.powers:
        base = 1 - values[factor[2:]] if factor.startswith("1-") else values[factor]
        total *= base**power
    return total


def by_expm(graph, theta, times, dose):
    """Amounts with a last compartment that holds what left the body, and readings: from the edges, by scipy's expm."""
    values = dict(zip(graph.names, theta, strict=True))
    n = len(graph.compartments)
    K = np.zeros((n + 1, n + 1))
    for t in graph.transfers:
        i, j = graph.index[t.source], n if t.target is None else graph.index[t.target]
        rate = monomial(t.rate, values)
        K[i, i] -= rate
        K[j, i] += rate
    x0 = np.zeros(n + 1)
    for c, m in graph.ports[0].into:
        x0[graph.index[c]] += dose * monomial(m, values)
    x = np.stack([expm(K * t) @ x0 for t in times])
    y = np.array(
        [[sum(monomial(m, values) * row[graph.index[c]] for c, m in o.terms) for o in graph.observations] for row in x]
    )
    return x, y


def any_theta(graph, seed):
    """Parameters somewhere inside their scales; all of an absorbed dose arrives, at once."""
    u = np.random.default_rng(seed).normal(-0.7, 0.8, len(graph.names))
    theta = graph.from_search(u[None])[0]
    for i, p in enumerate(graph.parameters):
        if p.name in ("f", "lag"):
            theta[i] = 1.0 if p.name == "f" else 0.0
    return theta


def test_the_usual_models_take_several_labels():
    assert {"plasma_with_organs", "plasma_with_organs_irreversible", "plasma_with_organs_mixed"} <= set(COMPOSABLE)


@pytest.mark.parametrize("name", COMPOSABLE)
def test_label_graphs_agree_with_matrix_exponentials_and_lose_nothing(name):
    seen = labelled(build(name, ORGANS if needs_organs(name) else ()))
    theta = any_theta(seen, 3)
    amounts, readings = by_expm(seen, theta, TIMES, 100.0)
    np.testing.assert_allclose(amounts.sum(axis=1), 100.0, rtol=1e-9)
    np.testing.assert_allclose(seen.amounts(theta, TIMES, 100.0), amounts[:, :-1], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(seen.predict(theta, TIMES, 100.0)[0], readings, rtol=1e-7, atol=1e-8)


def drawn(seed, labels=("DiR", "111In"), world="clean", **more):
    given = {"organs": ("liver", "brain"), "times_h": (0.083, 0.5, 2.0, 8.0, 24.0), "animals": 3} | more
    return LabelStudy.draw(np.random.default_rng(seed), labels=labels, world=world, **given)


def fitted(study):
    arms = gather_arms(study.observations)
    models = {n: label_model(n, d) for n, d in study.definitions().items()}
    vesicle = build("plasma_with_organs", arms.organs)
    start = np.array([[2.0 if n == "v" else 0.1 for n in vesicle.names]])
    return fit_joint(vesicle, arms, models, {"dose": Doses(100.0)}, start), models


@pytest.fixture(scope="module")
def worlds():
    return explore(fitted(drawn(11))[0])


def test_the_fit_is_where_scipy_ends_too(worlds):
    """The most probable world's problem, minimised by scipy from where ours ended and from aside."""
    best = worlds.best
    found = least_squares(lambda u: best.problem.residuals(u[None])[0][0], best.u + 0.1,
                          jac=lambda u: best.problem.residuals(u[None])[1][0].T, xtol=1e-12, ftol=1e-12, gtol=1e-10)  # fmt: skip
    ours = float(best.residual @ best.residual)
    assert ours - 2 * found.cost < 0.05  # -2 log density; an interval's end is 3.8 away
    sd = np.sqrt(np.diag(best.inverse))
    assert np.abs((found.x - best.u) / sd).max() < 0.25


def test_lack_of_fit_is_the_f_test(worlds):
    best = worlds.best
    lack = float(best.residual[: best.size] @ best.residual[: best.size])
    pure, free = best.problem.rows.pure
    ratio = (lack / (best.size - best.used)) / (pure / free)
    assert best.misfit_p == pytest.approx(stats.f.sf(ratio, best.size - best.used, free), rel=1e-6)


def test_an_end_of_a_profile_is_where_a_constrained_refit_reaches_the_threshold(worlds):
    """scipy's SLSQP holds the quantity at the end of the interval; the fit then is worse by the threshold."""
    best = worlds.best
    name = "brain_uptake_pct_id"
    profile = joint_profiles(best, [name])[name]
    function = log_quantity(best.problem, name)
    limit = best.scale * student(0.95, best.df) ** 2

    def cost(u):
        r, J = best.problem.residuals(u[None])
        return float(r[0] @ r[0]), 2 * J[0] @ r[0]

    at_best = minimize(cost, best.u, jac=True, method="BFGS", options={"gtol": 1e-5}).fun
    for end in (profile.low, profile.high):
        held = {
            "type": "eq",
            "fun": lambda u, end=end: function(u[None])[0] - end,
            "jac": lambda u: function(u[None])[1][0],
        }
        begin = best.u + best.covariance @ function(best.u[None])[1][0] * (end - profile.value) / profile.se**2
        found = minimize(
            cost, begin, jac=True, constraints=[held], method="SLSQP", options={"maxiter": 200, "ftol": 1e-9}
        )
        assert found.success
        assert (found.fun - at_best) / limit == pytest.approx(1.0, abs=0.06)  # 3 % of the distance


def test_averages_are_those_of_a_sampled_mixture(worlds):
    """Each world gives Student-wide normal draws; their quantiles are the averaged interval."""
    rng = np.random.default_rng(5)
    names = vesicle_quantities(worlds.best.problem.vesicle, ["brain", "liver"])
    order = list(worlds.fits)
    weight = worlds.weight[order] / worlds.weight[order].sum()
    stretch = student(0.95, worlds.best.df) / stats.norm.ppf(0.975)
    for name, a in average(worlds, names).items():
        fits = [worlds.fits[k] for k in order]
        value, gradient = log_quantity(worlds.best.problem, name)(np.stack([f.u for f in fits]))
        sd = np.array([np.sqrt(g @ f.covariance @ g) for f, g in zip(fits, gradient, strict=True)])
        which = rng.choice(len(fits), 200_000, p=weight)
        own = sd[which] * rng.standard_normal(which.size)
        draws = value[which] + stretch * own
        low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
        assert [a.low, a.middle, a.high] == pytest.approx([low, middle, high], abs=0.02 * (high - low)), name
        assert a.sd == pytest.approx((value[which] + own).std(), rel=0.02), name


def by_hand(best, prior, out, keep, value, seen, count):
    """Log density per mean, means and coverage of left-out rows: scipy's refit and its multivariate normal density."""
    p, rows = best.problem, best.problem.rows

    def residual(u):
        return p.residuals(u[None], keep=keep[None], value=value[None], prior=prior)

    found = least_squares(
        lambda u: residual(u)[0][0], best.u, jac=lambda u: residual(u)[1][0].T, xtol=1e-12, ftol=1e-12
    )
    covariance = best.scale * np.linalg.inv(found.jac.T @ found.jac)
    y, dy = (a[0][..., out] for a in p.predict(found.x[None]))
    good = (seen[out] > 0) & (y > 0)
    y, G, logs, at = y[good], dy[:, good] / y[good], np.log(seen[out][good]), np.flatnonzero(out)[good]
    sd = np.sqrt(best.scale * ((rows.spread[at] * y) ** 2 + rows.own[at] ** 2 + rows.floor[at] ** 2) / count[at]) / y
    total = G.T @ covariance @ G
    for a in range(len(at)):
        for b in range(len(at)):
            total[a, b] += sd[a] * sd[b] * (1.0 if a == b else rows.alike * (rows.group[at[a]] == rows.group[at[b]]))
    density = stats.multivariate_normal(np.log(y), total).logpdf(logs) / len(y)
    return density, len(y), np.mean(np.abs(logs - np.log(y)) <= 1.959964 * np.sqrt(np.diag(total)))


def test_left_out_labels_by_hand(worlds):
    best = worlds.best
    p, rows = best.problem, best.problem.rows
    told = {s.name: s for s in leave_out(worlds, ["label"])}
    now = worlds.worlds[int(np.argmax(worlds.log_probability))]
    for i, label in enumerate(worlds.labels):
        out = np.array([a.label == label for a in p.arms.arms])[rows.arm]
        prior = prior_in(worlds.catalogue, tuple(LIES if k == i else w for k, w in enumerate(now)))
        density, n, coverage = by_hand(best, prior, out, (~out).astype(float), rows.value, rows.value, rows.members)
        assert told[label].log_density == pytest.approx(density, abs=0.05)
        assert (told[label].n, told[label].dropped) == (n, int(out.sum()) - n)
        assert told[label].coverage == pytest.approx(coverage, abs=1.01 / n)


def test_left_out_animals_by_hand(worlds):
    """The mean without the animal stands for the others; the animal itself is predicted as one reading."""
    best = worlds.best
    rows = best.problem.rows
    told = {s.name: s for s in leave_out(worlds, ["animal"])}
    assert len(told) == sum(len(names) for names in rows.animals)
    for group in (0, 3, len(rows.away) - 1):
        out = rows.group == group
        m = len(rows.away[group])
        readings = rows.value[out] + rows.away[group]
        value, seen, keep = rows.value.copy(), rows.value.copy(), np.ones(rows.size)
        value[out], seen[out], keep[out] = readings[:-1].mean(axis=0), readings[-1], np.sqrt((m - 1) / m)
        density, n, coverage = by_hand(best, best.problem.prior, out, keep, value, seen, np.ones(rows.size))
        animal = told[rows.animals[group][-1]]
        assert animal.log_density == pytest.approx(density, abs=0.05)
        assert (animal.n, animal.coverage) == (n, pytest.approx(coverage, abs=1.01 / n))
