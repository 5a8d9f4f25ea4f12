"""Laws of the joint label model: composition, exact derivatives, grouping of animals, order, names and units of labels."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.compose import labelled
from evbiodist.crossval.joint.fit import fit_joint
from evbiodist.crossval.joint.problem import build_problem
from evbiodist.crossval.joint.quantities import log_quantity, vesicle_quantities
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.labels import label_model

ORGANS = ("brain", "liver")
TIMES = np.array([0.0, 0.05, 0.4, 3.0, 20.0])
DOSE = {"dose": Doses(100.0)}


def composable():
    names = []
    for name in sorted(catalogue()):
        graph = build(name, ORGANS if needs_organs(name) else ())
        try:
            names += [name] if labelled(graph).linear else []
        except ValueError:
            continue
    return names


def values_of(graph, seed, **fixed):
    """Parameters inside their scales, with some set by the beginning of their names."""
    theta = graph.from_search(np.random.default_rng(seed).normal(-0.7, 0.8, (1, len(graph.names))))[0]
    for i, name in enumerate(graph.names):
        for begin, value in fixed.items():
            theta[i] = value if name.startswith(begin) else theta[i]
    return theta


#: A label that reads the vesicle and nothing else: what a vesicle leaves behind is gone at once.
HONEST = {"free_fraction": 0.0, "release": 0.0, "transfer": 0.0, "loss": 0.0, "efficiency": 1.0, "scale": 1.0,
          "vessel_blood": 0.0, "clearance": 1e9, "free_k_el": 1e9}  # fmt: skip


@pytest.mark.parametrize("name", composable())
def test_a_label_without_artefacts_reads_the_vesicle(name):
    graph = build(name, ORGANS if needs_organs(name) else ())
    seen = labelled(graph)
    theta = values_of(seen, 5, **HONEST)
    own = theta[[seen.names.index(n) for n in graph.names]]
    found = seen.predict(theta, TIMES, 100.0)[0]
    np.testing.assert_allclose(found[:, 0], graph.predict(own, TIMES, 100.0)[0][:, 0], rtol=1e-6)
    if len(seen.seen) > 1:  # without the blood in vessels, which a label's own parameter stands for
        bare = graph.without_vessels
        inside = bare.predict(own, TIMES, 100.0)[0][:, [bare.seen.index(o) for o in seen.seen[1:]]]
        np.testing.assert_allclose(found[:, 1:], inside, rtol=1e-6, atol=1e-6)


def test_a_label_that_is_all_free_knows_nothing_of_the_vesicle():
    seen = labelled(build("plasma_with_organs", ORGANS))
    one = values_of(seen, 6, free_fraction=1.0)
    other = values_of(seen, 6, free_fraction=1.0, k_=0.9, release=7.0, transfer=0.3, clearance=2.0, loss=0.2)
    other[seen.names.index("v")] = 99.0
    first, second = (seen.predict(t, TIMES, 100.0)[0] for t in (one, other))
    np.testing.assert_allclose(first, second, rtol=1e-9)
    at = {n: float(v) for n, v in zip(seen.names, one, strict=True)}
    assert first[0, 0] == pytest.approx(at["scale"] * at["efficiency_blood"] * 100.0 / at["free_v"])


def test_readings_are_proportional_to_the_dose_and_to_the_scale():
    seen = labelled(build("plasma_with_organs_mixed", ORGANS))
    theta = values_of(seen, 7)
    y = seen.predict(theta, TIMES, 100.0)[0]
    np.testing.assert_allclose(seen.predict(theta, TIMES, 300.0)[0], 3 * y, rtol=1e-9)
    theta[seen.names.index("scale")] *= 5
    np.testing.assert_allclose(seen.predict(theta, TIMES, 100.0)[0], 5 * y, rtol=1e-9)


def test_free_label_mixes_with_vesicles_in_proportion():
    """With no release the label is a mixture of its two pure forms."""
    seen = labelled(build("plasma_with_organs", ORGANS))
    pure, free, mixed = (seen.predict(values_of(seen, 8, free_fraction=f), TIMES, 100.0)[0] for f in (0.0, 1.0, 0.3))
    np.testing.assert_allclose(mixed, 0.7 * pure + 0.3 * free, rtol=1e-9)


def draw(seed, **more):
    given = {
        "labels": ("DiR", "111In"),
        "organs": ("liver", "brain"),
        "times_h": (0.083, 0.5, 2.0, 8.0, 24.0),
        "animals": 3,
    }
    return LabelStudy.draw(np.random.default_rng(seed), **(given | more))


def models_of(study):
    return {n: label_model(n, d) for n, d in study.definitions().items()}


def start_of(vesicle):
    return np.array([2.0 if n == "v" else 0.1 for n in vesicle.names])


def problem_of(observations, models, model="plasma_with_organs"):
    arms = gather_arms(observations)
    vesicle = build(model, arms.organs)
    return build_problem(vesicle, arms, models, DOSE, start_of(vesicle))


@pytest.fixture(scope="module")
def controlled():
    """Free-label, background and perfused arms, and a label in arbitrary units."""
    study = draw(
        21, controls=("free_label", "unlabelled", "perfused"), arbitrary=("DiR",), animals=2, world="catalogue"
    )
    return problem_of(study.observations, models_of(study))


def central(function, u, h=1e-5):
    """Central differences of (1, n) residuals, (q, n)."""
    return np.stack([(function(u + h * e) - function(u - h * e)) / (2 * h) for e in np.eye(len(u))])


@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_of_residuals_are_exact(controlled, masked):
    rng = np.random.default_rng(2)
    p = controlled
    assert {a.kind for a in p.arms.arms} == {"vesicles", "free_label", "background"}
    assert p.prior.heavy.any()
    assert not all(a.absolute for a in p.arms.arms)
    u = p.prior.centre + 0.7 * np.minimum(p.prior.sd, 1.0) * rng.standard_normal(p.size)
    keep = np.where(rng.random(p.rows.size) < 0.3, 0.0, 1.0)[None] if masked else None
    keep = keep if keep is None else np.where(rng.random(keep.shape) < 0.3, keep * np.sqrt(0.5), keep)
    value = None if keep is None else p.rows.value[None] * 1.1
    _, J = p.residuals(u[None], keep=keep, value=value)
    expected = central(lambda x: p.residuals(x[None], keep=keep, value=value)[0][0], u)
    size = np.abs(expected).max(axis=1, keepdims=True)
    assert np.abs(J[0] - expected).max() > 0  # differences are not exact, derivatives are
    np.testing.assert_allclose(J[0] / size, expected / size, atol=2e-6)


def test_derivatives_of_quantities_are_exact(controlled):
    p = controlled
    u = p.prior.centre + 0.2
    for name in vesicle_quantities(p.vesicle, ["brain", "liver"], list(p.arms.vessel_blood)):
        function = log_quantity(p, name)
        gradient = function(u[None])[1][0]
        expected = central(lambda x, f=function: f(x[None])[0], u, 1e-4)[:, 0]
        # a peak is looked for on a grid, along which it is flat
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-3 if "peak" in name else 1e-6, err_msg=name)


def dense_cost(p, u, skip=None):
    """-2 log density (but for constants) of single animals' readings under the rows' own covariance, written out dense."""
    rows = p.rows
    y = p.predict(u[None], False)[0][0]
    total = 0.0
    for g, away in enumerate(rows.away):
        mine = np.flatnonzero(rows.group == g)
        sd = rows.sigma[mine]
        one = np.outer(sd, sd) * (rows.alike + (1 - rows.alike) * np.eye(len(mine)))
        left = [a for i, a in enumerate(away) if (g, i) != skip]
        if left:
            r = np.concatenate([y[mine] - rows.value[mine] - a for a in left])
            total += float(r @ np.linalg.solve(block_diag(*[one] * len(left)), r))
    return total


@pytest.fixture(scope="module")
def alike():
    study = draw(4, world="clean")
    p = problem_of(study.observations, models_of(study))
    assert 0.05 < p.rows.alike < 0.9  # animals do share an error here
    return p, p.prior.centre + 0.3


def test_means_and_their_spread_cost_what_single_animals_cost(alike):
    p, u = alike
    r = p.residuals(u[None])[0][0, : p.rows.size]
    assert float(r @ r) + p.rows.pure[0] == pytest.approx(dense_cost(p, u), rel=1e-9)
    assert p.rows.readings == sum(a.data.value.size for a in p.arms.arms)
    assert p.rows.pure[1] == p.rows.readings - p.rows.size


def test_an_animal_left_out_is_an_animal_that_never_was(alike):
    """What the others cost differs by the same at any two places."""
    p, u = alike
    for group, animal in ((0, 0), (3, 2), (len(p.rows.away) - 1, 1)):
        value, keep = p.rows.without_animal(group, animal)
        steps = []
        for x in (u, u + 0.2):
            r = p.residuals(x[None], keep=keep[None], value=value[None])[0][0, : p.rows.size]
            steps.append(float(r @ r) - dense_cost(p, x, (group, animal)))
        assert steps[0] == pytest.approx(steps[1], abs=1e-7 * dense_cost(p, u))
        mine = p.rows.group == group
        readings = p.rows.value[mine] + p.rows.away[group]
        np.testing.assert_allclose(value[mine], np.delete(readings, animal, axis=0).mean(axis=0))
        np.testing.assert_array_equal(value[~mine], p.rows.value[~mine])


def test_masked_rows_cost_nothing_and_the_rest_what_they_cost_alone(alike):
    p, u = alike
    rows = p.rows
    keep = np.where(rows.organ == 1, 0.0, 1.0)
    wild = np.where(rows.organ == 1, 1e6, rows.value)
    r = p.residuals(u[None], keep=keep[None], value=wild[None])[0][0, : rows.size]
    y = p.predict(u[None], False)[0][0]
    expected = 0.0
    for g in range(len(rows.away)):
        mine = np.flatnonzero((rows.group == g) & (keep > 0))
        sd = rows.sigma[mine]
        one = np.outer(sd, sd) * (rows.alike + (1 - rows.alike) * np.eye(len(mine))) / len(rows.away[g])
        d = y[mine] - rows.value[mine]
        expected += float(d @ np.linalg.solve(one, d))
    assert float(r @ r) == pytest.approx(expected, rel=1e-9)
    assert (r[keep == 0] == 0).all()


def answer_of(observations, models, order=None):
    """Logarithms and errors of what the joint fit says, and the fit."""
    arms = gather_arms(observations)
    vesicle = build("plasma_with_organs", arms.organs)
    found = fit_joint(vesicle, arms, {n: models[n] for n in order or sorted(models)}, DOSE, start_of(vesicle)[None])
    out = []
    for name in vesicle_quantities(vesicle, arms.organs):
        value, gradient = log_quantity(found.problem, name)(found.u[None])
        out.append([value[0], np.sqrt(gradient[0] @ found.covariance @ gradient[0])])
    return np.array(out), found


@pytest.fixture(scope="module")
def settled():
    study = draw(3, world="clean")
    models = models_of(study)
    return study, models, *answer_of(study.observations, models)


def test_order_of_rows_and_labels_does_not_matter(settled):
    study, models, expected, _ = settled
    shuffled = study.observations.sample(frac=1, random_state=1).reset_index(drop=True)
    np.testing.assert_allclose(answer_of(shuffled, models, ["DiR", "111In"])[0], expected, rtol=1e-6, atol=1e-6)


def test_names_of_labels_do_not_matter(settled):
    """New names turn the labels' order around as well."""
    study, models, expected, _ = settled
    new = {"DiR": "a dye", "111In": "counted"}
    renamed = study.observations.assign(label=study.observations["label"].map(new))
    found, _ = answer_of(renamed, {new[n]: m for n, m in models.items()})
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def scaled(table, label, factor):
    mine = (table["label"] == label).to_numpy()
    return table.assign(
        **{c: np.where(mine, table[c] * factor, table[c]) for c in ("value", "se", "se_systematic", "vessel_blood")}
    )


def test_arbitrary_units_of_a_label_do_not_matter():
    study = draw(3, world="clean", arbitrary=("DiR",))
    models = models_of(study)
    one, first = answer_of(study.observations, models)
    thousand, second = answer_of(scaled(study.observations, "DiR", 1000.0), models)
    np.testing.assert_allclose(thousand, one, rtol=1e-6, atol=1e-6)
    at = first.at("DiR.scale")
    assert second.u[at] - first.u[at] == pytest.approx(np.log(1000), abs=1e-5)


def true_start(study, vesicle):
    """Where the search begins when nothing is wrong with where it begins."""
    true = study.truth["vesicle"]
    names = [n.replace("k_in_", "k_in.").replace("k_out_", "k_out.") for n in vesicle.names]
    return np.array([true[n] for n in names])


def sds(study, observations):
    arms = gather_arms(observations)
    vesicle = build("plasma_with_organs", arms.organs)
    found = fit_joint(vesicle, arms, models_of(study), DOSE, true_start(study, vesicle)[None])
    gradients = [
        log_quantity(found.problem, n)(found.u[None])[1][0] for n in ("brain_uptake_pct_id", "liver_uptake_pct_id")
    ]
    return np.array([np.sqrt(g @ found.covariance @ g) for g in gradients]), found


def test_twice_the_animals_tell_more_but_not_more_than_root_two():
    """Priors do not become sharper, so the gain lies between none and root two (and a little: twins have less spread)."""
    ratios = []
    for seed in (4, 5, 9, 10):
        study = draw(seed, world="clean")
        again = study.observations.assign(subject=study.observations["subject"] + " again")
        one, two = (
            sds(study, study.observations)[0],
            sds(study, pd.concat([study.observations, again], ignore_index=True))[0],
        )
        ratios.extend(two / one)
    assert np.sqrt(0.8) / np.sqrt(2) * 0.95 < np.median(ratios) < 0.93


def published(table, factor):
    """Means over animals, as papers print them, of some times the animals."""
    known = table.groupby(["study", "group", "label", "organ", "time_h", "unit"], as_index=False).agg(
        value=("value", "mean"), sd=("value", "std"), n=("value", "size"), vessel_blood=("vessel_blood", "mean"))  # fmt: skip
    n = known["n"].astype(float) * factor
    return known.assign(subject="pooled", n=n, se=known["sd"] / np.sqrt(n), mass_g=np.nan, lloq=np.nan, below_lloq=False,
                        flags="", source="paper", se_systematic=np.nan)  # fmt: skip


def test_published_means_of_twice_the_animals_say_twice_as_much():
    """At the same coordinates the rows' information doubles, but for the least error that is never undercut."""
    study = draw(9, world="clean", animals=4)
    models = models_of(study)
    one, two = (problem_of(published(study.observations, k), models) for k in (1, 2))
    assert (two.rows.members == 1).all()  # a published mean is one row
    u = one.prior.centre
    y = one.predict(u[None], False)[0][0]
    np.testing.assert_allclose(two.weighed(u).rows.sigma ** 2 - two.rows.floor**2,
                               (one.weighed(u).rows.sigma ** 2 - one.rows.floor**2) / 2, rtol=1e-9, atol=1e-12 * y.max())  # fmt: skip
    J1, J2 = (p.weighed(u).residuals(u[None])[1][0][:, : p.rows.size] for p in (one, two))
    ratio = np.trace(J2 @ J2.T) / np.trace(J1 @ J1.T)
    assert 1.8 < ratio <= 2.0
