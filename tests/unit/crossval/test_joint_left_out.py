"""Predicting what was left out, and planning what to measure next."""

from dataclasses import replace

import numpy as np
import pytest

from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.fit import climb_from, fit_joint
from evbiodist.crossval.joint.hypotheses import explore
from evbiodist.crossval.joint.leave_out import KINDS, leave_out
from evbiodist.crossval.joint.plan import next_steps
from evbiodist.crossval.joint.problem import build_problem
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.labels import label_model
from evbiodist.study.model import Label

AIM = "brain_uptake_pct_id"
DOSE = {"dose": Doses(100.0)}


def draw(seed, **more):
    given = {"organs": ("liver", "brain"), "times_h": (0.083, 0.5, 2.0, 8.0, 24.0), "animals": 3, "world": "clean"}
    return LabelStudy.draw(np.random.default_rng(seed), labels=("DiR", "111In"), **(given | more))


def true_start(study, vesicle):
    true = study.truth["vesicle"]
    return np.array([true[n.replace("k_in_", "k_in.").replace("k_out_", "k_out.")] for n in vesicle.names])


def fitted(study, observations=None):
    arms = gather_arms(study.observations if observations is None else observations)
    models = {n: label_model(n, d) for n, d in study.definitions().items()}
    vesicle = build("plasma_with_organs", arms.organs)
    return fit_joint(vesicle, arms, models, DOSE, true_start(study, vesicle)[None]), models


@pytest.fixture(scope="module")
def worlds():
    return explore(fitted(draw(9))[0])


@pytest.fixture(scope="module")
def told(worlds):
    return leave_out(worlds, KINDS, [AIM])


def test_everything_is_left_out_in_turn(worlds, told):
    p = worlds.best.problem
    names = {kind: [s.name for s in told if s.kind == kind] for kind in KINDS}
    assert [s.kind for s in told] == sorted((s.kind for s in told), key=KINDS.index)
    assert set(names["label"]) == {"DiR", "111In"}
    assert set(names["organ"]) == {"blood", "brain", "liver"}
    assert names["time"] == ["0.083", "0.5", "2", "8", "24"]
    assert sorted(names["animal"]) == sorted(a for names in p.rows.animals for a in names)
    for kind in ("label", "organ", "time"):  # every mean is predicted once in each way
        assert sum(s.n + s.dropped for s in told if s.kind == kind) == p.rows.size


def test_scores_hang_together(told):
    for s in (s for s in told if not s.reason):
        c = s.predicted
        assert len(c.seen) == len(c.label) == len(c.unit) == s.n
        assert (c.low < c.median).all()
        assert (c.median < c.high).all()
        assert s.coverage == pytest.approx(np.mean((c.seen >= c.low) & (c.seen <= c.high)))
        away = np.log(c.seen / c.median)
        organs = np.array(c.organ)
        assert s.bias == {o: pytest.approx(away[organs == o].mean()) for o in dict.fromkeys(c.organ)}
        assert np.isfinite(s.log_density)
        assert AIM in s.answers


def test_predictions_of_a_clean_study_cover_what_was_seen(told):
    shares = [s.coverage for s in told if not s.reason and s.kind in ("time", "animal")]
    assert np.mean(shares) > 0.85


def changed(worlds, rows):
    """The same worlds with other readings behind the means, and the same weights."""
    fits = {k: replace(f, problem=replace(f.problem, rows=rows)) for k, f in worlds.fits.items()}
    return replace(worlds, fits=fits)


@pytest.mark.parametrize("kind", ["label", "organ", "time"])
def test_left_out_rows_have_no_say_in_their_prediction(worlds, told, kind):
    rows = worlds.best.problem.rows
    p = worlds.best.problem
    labels = np.array([a.label for a in p.arms.arms])[rows.arm]
    which = {"label": ("DiR", labels == "DiR"), "organ": ("brain", rows.organ == p.seen.seen.index("brain")),
             "time": ("24", rows.time_h == 24.0)}[kind]  # fmt: skip
    wild = np.where(which[1], 20.0 * np.abs(rows.value), rows.value)
    after = {s.name: s for s in leave_out(changed(worlds, replace(rows, value=wild)), [kind], [AIM])}[which[0]]
    before = next(s for s in told if s.kind == kind and s.name == which[0])
    by = {(a, o, t): m for a, o, t, m in zip(before.predicted.label, before.predicted.organ, before.predicted.time_h,
                                             before.predicted.median, strict=True)}  # fmt: skip
    now = {(a, o, t): m for a, o, t, m in zip(after.predicted.label, after.predicted.organ, after.predicted.time_h,
                                              after.predicted.median, strict=True)}  # fmt: skip
    assert set(by) <= set(now)
    for place, median in by.items():
        assert now[place] == pytest.approx(median, rel=1e-9), place
    assert after.answers[AIM] == pytest.approx(before.answers[AIM], rel=1e-9)
    assert after.log_density < before.log_density - 1


def test_rows_at_or_below_zero_are_counted_not_predicted(worlds):
    rows = worlds.best.problem.rows
    value = rows.value.copy()
    hit = np.flatnonzero(rows.time_h == 24.0)[:2]
    value[hit] = [-1.0, 0.0]
    last = next(s for s in leave_out(changed(worlds, replace(rows, value=value)), ["time"]) if s.name == "24")
    assert (last.n, last.dropped) == (int((rows.time_h == 24.0).sum()) - 2, 2)
    gone = changed(worlds, replace(rows, value=np.where(rows.time_h == 24.0, -1.0, rows.value)))
    none = next(s for s in leave_out(gone, ["time"], [AIM]) if s.name == "24")
    assert none.reason == "no reading is above zero"
    assert np.isnan(none.log_density)
    assert none.predicted is None


def test_what_leaves_nothing_is_a_reason():
    study = draw(9)
    table = study.observations
    one_time, _ = fitted(study, table[table["time_h"] == 2.0])
    worlds = explore(one_time)
    (time,) = leave_out(worlds, ["time"])
    assert time.reason == "nothing is left to predict it from without this time"
    assert (time.n, time.predicted, time.answers) == (0, None, {})
    assert np.isnan(time.log_density)
    assert all(not s.reason for s in leave_out(worlds, ["organ", "label"]))


# what to measure next


@pytest.fixture(scope="module")
def known():
    """A study of animals that share nothing, so that rows are as independent as a plan takes them."""
    study = draw(12, animals=4)
    found, models = fitted(study)
    flat = replace(found.problem, rows=replace(found.problem.rows, alike=0.0))
    return climb_from(flat, found.u), models


def test_steps_are_ranked_and_never_cost_knowledge(known):
    found, models = known
    steps = next_steps(
        found, models, AIM, animals=3, further=[label_model("89Zr", Label(kind="radioactive", isotope="89Zr"))]
    )
    assert [s.sd_then for s in steps] == sorted(s.sd_then for s in steps)
    gradient = log_quantity(found.problem, AIM)(found.u[None])[1][0]
    now = np.sqrt(gradient @ found.covariance @ gradient)
    for s in steps:
        assert s.sd_now == pytest.approx(now)
        assert s.sd_then <= now * (1 + 1e-9)
        assert s.animals == 3
        assert f"by {s.gain_pct:.0f} %" in s.words
        assert s.label in s.words
    assert {(s.kind, s.label) for s in steps} == {("animals", "DiR"), ("animals", "111In"), ("control", "DiR"), ("control", "111In"),
                                                  ("label", "89Zr")}  # fmt: skip
    times = {t for s in steps if s.kind == "animals" for t in s.times_h}
    assert max(times) == 48.0
    assert times - {48.0} <= {
        0.083,
        0.5,
        2.0,
        8.0,
        24.0,
    }


def test_more_animals_promise_more(known):
    found, models = known
    few, many = (
        {(s.kind, s.label, s.times_h): s.sd_then for s in next_steps(found, models, AIM, animals=n)} for n in (2, 20)
    )
    assert set(few) == set(many)
    assert all(many[k] < few[k] for k in few)


def test_a_promise_is_kept_by_animals_that_are_added(known):
    """Animals that read what the fit expects are added, the problem is built anew, and its spread is what was promised."""
    found, models = known
    p = found.problem
    steps = [s for s in next_steps(found, models, AIM, animals=6) if s.kind == "animals" and s.times_h[0] <= 24]
    gradient = log_quantity(p, AIM)(found.u[None])[1][0]
    for step in (steps[0], steps[1], steps[-1]):
        at = next(i for i, a in enumerate(p.arms.arms) if a.label == step.label and a.kind == "vesicles")
        mine = (p.rows.arm == at) & (p.rows.time_h == step.times_h[0])
        y = p.predict(found.u[None], False)[0][0][mine]
        # six more animals at a time that has some already: the same curve, errors of the arm's own spread
        sd = np.sqrt((p.rows.spread[mine] * y) ** 2 + p.rows.floor[mine] ** 2 + p.rows.own[mine] ** 2) / np.sqrt(
            step.animals
        )
        dy = p.predict(found.u[None])[1][0][:, mine]
        information = np.linalg.inv(found.covariance) + (dy / sd) @ (dy / sd).T / found.scale
        then = np.sqrt(gradient @ np.linalg.solve(information, gradient))
        assert step.sd_then == pytest.approx(then, rel=0.15), step.words


def test_animals_that_share_an_error_promise_as_much_as_they_bring():
    """An animal's organs read high together, so that its rows bring less than as many animals would."""
    found, models = fitted(draw(4))
    p = found.problem
    assert p.rows.alike > 0.15
    gradient = log_quantity(p, AIM)(found.u[None])[1][0]
    step = next(s for s in next_steps(found, models, AIM, animals=6) if s.kind == "animals" and s.times_h[0] <= 24)
    at = next(i for i, a in enumerate(p.arms.arms) if a.label == step.label and a.kind == "vesicles")
    mine = (p.rows.arm == at) & (p.rows.time_h == step.times_h[0])
    y, dy = (a[0][..., mine] for a in p.predict(found.u[None]))
    sd = np.sqrt((p.rows.spread[mine] * y) ** 2 + p.rows.floor[mine] ** 2 + p.rows.own[mine] ** 2)
    noise = np.outer(sd, sd) * (p.rows.alike + (1 - p.rows.alike) * np.eye(len(sd))) * found.scale / step.animals
    information = np.linalg.inv(found.covariance) + dy @ np.linalg.solve(noise, dy.T)
    then = np.sqrt(gradient @ np.linalg.solve(information, gradient))
    assert step.sd_then == pytest.approx(then, rel=0.15)


def test_a_proposed_arm_leaves_the_problem_as_it_was(known):
    """Rebuilding with the arms of the fit gives the same coordinates, so nothing is mistaken for new."""
    found, models = known
    again = build_problem(found.problem.vesicle, found.problem.arms, models, found.problem.inputs, found.theta)
    assert again.names == found.problem.names
    np.testing.assert_allclose(again.prior.sd, found.problem.prior.sd)
