"""What labels may be: priors of the worlds, probabilities, accusations, averages and intervals."""

import numpy as np
import pytest

from evbiodist.crossval.joint.alerts import ACCUSED, Alert, alerts, undecided
from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.average import average, average_biases
from evbiodist.crossval.joint.fit import fit_joint
from evbiodist.crossval.joint.hypotheses import (
    BEFOREHAND,
    BELIEVED,
    FAITHFUL,
    LIES,
    MISREADING,
    RATES,
    READINGS,
    Worlds,
    causes,
    explore,
    prior_in,
)
from evbiodist.crossval.joint.profile import joint_profiles
from evbiodist.crossval.joint.quantities import log_quantity, vesicle_quantities
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.estimate import student
from evbiodist.study.labels import label_model

GIVEN = {"organs": ("liver", "brain"), "times_h": (0.083, 0.5, 2.0, 8.0, 24.0), "animals": 3}


def explored(study):
    arms = gather_arms(study.observations)
    models = {n: label_model(n, d) for n, d in study.definitions().items()}
    vesicle = build("plasma_with_organs", arms.organs)
    true = study.truth["vesicle"]
    start = [true[n.replace("k_in_", "k_in.").replace("k_out_", "k_out.")] for n in vesicle.names]
    return explore(fit_joint(vesicle, arms, models, {"dose": Doses(100.0)}, np.array([start])))


def draw(seed, world, labels=("DiR", "111In"), **more):
    return LabelStudy.draw(np.random.default_rng(seed), labels=labels, world=world, **(GIVEN | more))


@pytest.fixture(scope="module")
def worlds():
    return explored(draw(2, "clean"))


def test_what_labels_may_be_adds_up(worlds):
    assert sum(BEFOREHAND.values()) == pytest.approx(1.0)
    assert worlds.weight.sum() == pytest.approx(1.0) and (worlds.weight >= 0).all()
    assert len(set(worlds.worlds)) == len(worlds.worlds) == len(worlds.log_probability) == len(worlds.u)
    assert (LIES, LIES) in worlds.worlds and (BELIEVED, BELIEVED) in worlds.worlds
    assert worlds.labels == ("111In", "DiR")


def test_every_single_change_of_the_best_world_was_tried(worlds):
    best = worlds.worlds[int(np.argmax(worlds.log_probability))]
    for i, label in enumerate(worlds.labels):
        for what in (BELIEVED, LIES, RATES, READINGS, *causes(worlds.catalogue, label)):
            assert (*best[:i], what, *best[i + 1 :]) in worlds.worlds


def limits(p, prior, name):
    """Median and 95 % range that a prior gives a coordinate."""
    i = p.names.index(name)
    ends = prior.centre[i] + 1.959964 * prior.sd[i] * np.array([0, -1, 1])
    return 1 / (1 + np.exp(-ends)) if name.endswith("free_fraction") else np.exp(ends)


def test_priors_of_faithful_labels_are_as_documented(worlds):
    p = worlds.catalogue
    prior = prior_in(p, (LIES, BELIEVED))
    for parameter in ("release", "transfer", "loss", "efficiency_brain", "efficiency_blood", "scale"):
        known = FAITHFUL[parameter.split("_")[0]]
        assert limits(p, prior, f"DiR.{parameter}") == pytest.approx(known, rel=1e-6)
    assert limits(p, prior, "DiR.free_fraction")[1:] == pytest.approx(FAITHFUL["free_fraction"][1:], rel=0.03)
    others = [i for i, n in enumerate(p.names) if not n.startswith("DiR.") or "free_k" in n or "clearance" in n]
    np.testing.assert_array_equal(prior.centre[others], p.prior.centre[others])
    np.testing.assert_array_equal(prior.sd[others], p.prior.sd[others])


def test_priors_of_one_cause_and_of_half_a_catalogue_entry(worlds):
    p = worlds.catalogue
    one = prior_in(p, (BELIEVED, "efficiency_brain"))
    assert limits(p, one, "DiR.efficiency_brain") == pytest.approx(MISREADING["efficiency"], rel=1e-6)
    assert limits(p, one, "DiR.efficiency_liver") == pytest.approx(FAITHFUL["efficiency"], rel=1e-6)
    rates, readings = prior_in(p, (LIES, RATES)), prior_in(p, (LIES, READINGS))
    for part, kept, gone in (("release", rates, readings), ("efficiency_brain", readings, rates)):
        i = p.names.index(f"DiR.{part}")
        assert (kept.centre[i], kept.sd[i]) == (p.prior.centre[i], p.prior.sd[i])
        assert gone.sd[i] < p.prior.sd[i]
    whole = prior_in(p, (LIES, LIES))
    np.testing.assert_array_equal(whole.centre, p.prior.centre)
    np.testing.assert_array_equal(whole.heavy, p.prior.heavy)


def test_a_scale_that_nobody_knows_is_no_cause():
    study = draw(2, "clean", arbitrary=("DiR",))
    found = explored(study)
    assert "scale" in causes(found.catalogue, "111In") and "scale" not in causes(found.catalogue, "DiR")
    assert all(b.relative == (b.label == "DiR") for b in average_biases(found))
    (bias,) = (b for b in average_biases(found) if b.relative)
    assert bias.log_ratio.mean() == pytest.approx(0.0, abs=1e-9)


def made_up(worlds, kinds, logs):
    return Worlds(worlds.catalogue, worlds.labels, tuple(kinds), np.zeros((len(kinds), 1)), np.array(logs, float), worlds.fits)


def test_odds_are_those_of_probabilities_by_hand(worlds):
    kinds = [(BELIEVED, BELIEVED), (LIES, BELIEVED), (BELIEVED, "release"), (LIES, LIES)]
    p = np.array([0.1, 0.6, 0.2, 0.1])
    odd = made_up(worlds, kinds, np.log(p) + 1234.0)
    before = np.log10(0.65 / 0.35)
    assert odd.log10_odds("111In") == pytest.approx(np.log10(0.7 / 0.3) - before)
    assert odd.log10_odds("DiR") == pytest.approx(np.log10(0.3 / 0.7) - before)
    assert odd.weight == pytest.approx(p)
    assert (odd.cause("111In"), odd.cause("DiR")) == (LIES, "release")


def test_odds_of_two_labels_that_could_each_be_right_are_alike(worlds):
    """One of both misreads, nobody knows which: equal odds for both, whatever the order."""
    kinds = [(LIES, BELIEVED), (BELIEVED, LIES)]
    odd = made_up(worlds, kinds, [0.0, 0.0])
    assert odd.log10_odds("111In") == odd.log10_odds("DiR") == pytest.approx(-np.log10(0.65 / 0.35))
    turned = made_up(worlds, kinds, [2.0, 0.0]), made_up(worlds, kinds, [0.0, 2.0])
    assert turned[0].log10_odds("111In") == pytest.approx(turned[1].log10_odds("DiR"))


def test_the_data_alone_decide_when_nothing_was_seen(worlds):
    """Beforehand odds are taken out: with the prior probabilities as posterior ones the evidence is nothing."""
    kinds = [(a, b) for a in BEFOREHAND for b in BEFOREHAND]
    odd = made_up(worlds, kinds, [np.log(BEFOREHAND[a] * BEFOREHAND[b]) for a, b in kinds])
    assert odd.log10_odds("DiR") == pytest.approx(0.0, abs=1e-12)


def case(label, odds):
    return Alert(label, odds, odds > ACCUSED, "free label", "", np.nan, np.nan, np.nan, "")


def test_labels_that_disagree_without_a_culprit_are_both_named():
    assert undecided([case("a", 0.5), case("b", 0.4), case("c", -1.0)]).startswith("a and b do not agree")
    assert undecided([case("a", 0.5), case("b", -0.4)]) == ""
    assert undecided([case("a", 1.5), case("b", 0.4)]) == ""


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_labels_of_clean_studies_are_not_accused(seed):
    found = explored(draw(seed, "clean"))
    assert not any(c.accused for c in alerts(found, average_biases(found)))


def spoiled(seed):
    """A clean study with a third label, whose dye is to a quarter free: how free dye alone goes is drawn as in the catalogue."""
    for tried in range(seed, seed + 60):
        study = draw(tried, "wrong", ("DiR", "111In", "mCherry"))
        if study.truth["wrong"] == "DiR" and study.truth["wrong_how"] == "free_fraction":
            return study
    raise AssertionError("no such study")


@pytest.mark.parametrize("seed", [100, 200, 300])
def test_a_dye_that_is_a_quarter_free_is_accused_and_nobody_else(seed):
    study = spoiled(seed)
    found = explored(study)
    cases = {c.label: c for c in alerts(found, average_biases(found))}
    assert cases["DiR"].accused and not cases["111In"].accused and not cases["mCherry"].accused
    assert cases["DiR"].what.startswith("free label") or "as its catalogue entry says" in cases["DiR"].what
    assert "DiR misreads" in cases["DiR"].sentence


def test_an_organ_that_is_misread_is_named():
    study = draw(2, "clean", ("DiR", "111In", "mCherry"))
    table = study.observations
    hit = (table["label"] == "mCherry") & (table["organ"] == "brain")
    for column in ("value", "se", "vessel_blood"):
        table = table.assign(**{column: table[column].where(~hit, 0.3 * table[column])})
    found = explored(study._replace(observations=table))
    worst = alerts(found, average_biases(found))[0]
    assert (worst.label, worst.accused, worst.organ, worst.what) == ("mCherry", True, "brain", "reading of brain")
    assert worst.low < 0.3 < worst.high or worst.ratio == pytest.approx(0.3, rel=0.3)


def test_one_world_averages_to_itself(worlds):
    k = int(np.argmax(worlds.log_probability))
    alone = Worlds(worlds.catalogue, worlds.labels, worlds.worlds, worlds.u, worlds.log_probability, {k: worlds.fits[k]})
    fit = worlds.fits[k]
    names = vesicle_quantities(fit.problem.vesicle, ["brain", "liver"])
    reach = student(0.95, fit.df)
    for name, a in average(alone, names).items():
        value, gradient = log_quantity(fit.problem, name)(fit.u[None])
        sd = np.sqrt(gradient[0] @ fit.covariance @ gradient[0])
        assert (a.middle, a.sd, a.worlds) == (pytest.approx(value[0], abs=1e-3 * sd), pytest.approx(sd), 1)
        assert [a.low, a.high] == pytest.approx([value[0] - reach * sd, value[0] + reach * sd], abs=0.01 * sd)


def test_averages_spread_at_least_as_the_best_worlds_and_carry_open_ends(worlds):
    name = "brain_uptake_pct_id"
    profile = joint_profiles(worlds.best, [name])[name]
    plain = average(worlds, [name])[name]
    skewed = average(worlds, [name], profiles={name: profile})[name]
    assert plain.low < plain.middle < plain.high and not skewed.open
    from dataclasses import replace

    opened = average(worlds, [name], profiles={name: replace(profile, high=np.inf)})[name]
    assert opened.open and opened.high > plain.high


def test_profiles_of_a_direction_that_is_normal_are_quadratic(worlds):
    """A coordinate that only its normal prior holds: value and spread of the prior, widened as all intervals are."""
    best = worlds.best
    p = best.problem
    rows = np.abs(best.sensitivity[: best.size]).sum(axis=0)
    held = [n for n, r, heavy in zip(p.names, rows * p.prior.sd, p.prior.heavy, strict=True) if r < 1e-3 and not heavy]
    assert held
    for name in held[:2]:
        i = best.at(name)
        found = joint_profiles(best, [name])[name]
        reach = student(0.95, best.df) * np.sqrt(best.scale) * p.prior.sd[i]
        assert [found.low, found.high] == pytest.approx([p.prior.centre[i] - reach, p.prior.centre[i] + reach], abs=0.02 * reach)
        assert not found.open and found.distance[0] < 0 < found.distance[-1]


def test_profiles_follow_their_level(worlds):
    name = "liver_uptake_pct_id"
    narrow, wide = (joint_profiles(worlds.best, [name], level)[name] for level in (0.8, 0.95))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
