"""What labels may be: priors of the worlds, probabilities, accusations, averages and intervals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from evbiodist.crossval.joint.alerts import ACCUSED, Alert, alerts, undecided
from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.average import average, average_biases
from evbiodist.crossval.joint.fit import JointFit, fit_joint
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
from evbiodist.crossval.joint.identify import identified, structural_rank
from evbiodist.crossval.joint.problem import Prior
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
    assert worlds.weight.sum() == pytest.approx(1.0)
    assert (worlds.weight >= 0).all()
    assert len(set(worlds.worlds)) == len(worlds.worlds) == len(worlds.log_probability) == len(worlds.u)
    assert (LIES, LIES) in worlds.worlds
    assert (BELIEVED, BELIEVED) in worlds.worlds
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
        middle, low, high = limits(p, prior, f"DiR.{parameter}")
        assert middle == pytest.approx(known.median)
        assert high / low == pytest.approx(known.high / known.low, rel=1e-5)
    assert limits(p, prior, "DiR.free_fraction") == pytest.approx(tuple(FAITHFUL["free_fraction"]), rel=0.03)
    others = [i for i, n in enumerate(p.names) if not n.startswith("DiR.") or "free_k" in n or "clearance" in n]
    np.testing.assert_array_equal(prior.centre[others], p.prior.centre[others])
    np.testing.assert_array_equal(prior.sd[others], p.prior.sd[others])


def test_priors_of_one_cause_and_of_half_a_catalogue_entry(worlds):
    p = worlds.catalogue
    one = prior_in(p, (BELIEVED, "efficiency_brain"))
    assert limits(p, one, "DiR.efficiency_brain") == pytest.approx(tuple(MISREADING["efficiency"]), rel=1e-6)
    assert limits(p, one, "DiR.efficiency_liver") == pytest.approx(tuple(FAITHFUL["efficiency"]), rel=1e-6)
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
    assert "scale" in causes(found.catalogue, "111In")
    assert "scale" not in causes(found.catalogue, "DiR")
    assert all(b.relative == (b.label == "DiR") for b in average_biases(found))
    (bias,) = (b for b in average_biases(found) if b.relative)
    assert bias.log_ratio.mean() == pytest.approx(0.0, abs=1e-9)


def made_up(worlds, kinds, logs):
    return Worlds(
        worlds.catalogue, worlds.labels, tuple(kinds), np.zeros((len(kinds), 1)), np.array(logs, float), worlds.fits
    )


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


@pytest.mark.parametrize("seed", [100, 300])
def test_a_dye_that_is_a_quarter_free_is_accused_and_nobody_else(seed):
    study = spoiled(seed)
    found = explored(study)
    cases = {c.label: c for c in alerts(found, average_biases(found))}
    assert cases["DiR"].accused
    assert not cases["111In"].accused
    assert not cases["mCherry"].accused
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
    alone = Worlds(
        worlds.catalogue, worlds.labels, worlds.worlds, worlds.u, worlds.log_probability, {k: worlds.fits[k]}
    )
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
    assert plain.low < plain.middle < plain.high
    assert not skewed.open
    opened = average(worlds, [name], profiles={name: replace(profile, high=np.inf)})[name]
    assert opened.open
    assert opened.high > plain.high


class Line:
    """A linear problem with the face of a joint one: rows ``A u = value`` of unit variance and normal priors."""

    names = ("k", "dye.release", "dye.loss")
    size = 3
    vesicle = SimpleNamespace(names=("k",))

    def __init__(self, A, value, readings):
        self.A, self.value = np.asarray(A, float), np.asarray(value, float)
        self.prior = Prior(np.array([0.0, -1.0, 2.0]), np.array([2.0, 0.5, 1.0]), np.zeros(3, bool))
        self.rows = SimpleNamespace(
            size=len(self.A), readings=readings, pure=(readings - float(len(self.A)), readings - len(self.A))
        )

    def residuals(self, u, *, keep=None, value=None, prior=None):
        r, (known, steep) = u @ self.A.T - self.value, self.prior.residual(u)
        J = np.broadcast_to(self.A.T, (len(u), *self.A.T.shape))
        return np.concatenate([r, known], axis=1), np.concatenate([J, np.eye(3) * steep[:, None, :]], axis=2)

    def fit(self):
        W = np.diag(1 / self.prior.sd**2)
        u = np.linalg.solve(self.A.T @ self.A + W, self.A.T @ self.value + W @ self.prior.centre)
        r, J = self.residuals(u[None])
        return JointFit(self, u, r[0], J[0].T, True)


def test_profiles_of_a_linear_problem_are_quadratic():
    """Value and spread by hand, the threshold by Student's t, and ends within 2 %."""
    A = [[0.0, 1.0, 1.0], [0.0, 1.0, -0.5], [0.0, 2.0, 0.3], [0.0, 0.4, 1.0]]
    found = Line(A, [1.2, -0.4, 0.7, 1.9], 40).fit()
    covariance = np.linalg.inv(np.asarray(A).T @ A + np.diag(1 / found.problem.prior.sd**2)) * max(found.chi2_red, 1.0)
    for name, i in (("dye.release", 1), ("dye.loss", 2)):
        se = np.sqrt(covariance[i, i])
        for level in (0.9, 0.95):
            reach = stats.t.ppf(0.5 + level / 2, found.df) * se
            profile = joint_profiles(found, [name], level)[name]
            assert (profile.value, profile.se) == (pytest.approx(found.u[i]), pytest.approx(se))
            assert [found.u[i] - profile.low, profile.high - found.u[i]] == pytest.approx([reach, reach], rel=0.02)
            np.testing.assert_allclose(profile.distance, (profile.at - profile.value) / reach, rtol=0.02, atol=1e-3)


def test_a_fit_worse_than_its_replicates_widens_profiles():
    A = np.eye(3)
    good, bad = Line(A, [0.0, -1.0, 2.0], 6).fit(), Line(A, [0.0, 2.0, -1.5], 6).fit()
    assert good.scale == 1.0
    assert bad.scale > 1.5
    narrow, wide = (joint_profiles(f, ["dye.loss"])["dye.loss"] for f in (good, bad))
    stretch = np.sqrt(bad.scale) * stats.t.ppf(0.975, bad.df) / stats.t.ppf(0.975, good.df)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(stretch, rel=0.03)


def test_the_rank_of_toy_designs_is_theirs_by_hand():
    """One row sees a sum, two rows both parts, and a column of nothing is seen by none."""
    both = structural_rank(Line([[0, 1, 1]], [1], 4).fit())
    assert (both.rank, both.size) == (1, 3)
    assert set(both.blind) == {"k", "dye.release", "dye.loss"}
    apart = structural_rank(Line([[0, 1, 1], [0, 1, -1], [0, 1, 0]], [1, 1, 1], 4).fit())
    assert (apart.rank, apart.blind) == (2, ("k",))
    assert structural_rank(Line(np.eye(3), [1, 1, 1], 4).fit()).blind == ()


def test_what_is_known_from_where_is_so_by_hand():
    """Rows that see a sum alone: neither part without the other's prior; what is not seen stays as it was."""
    found = Line([[0, 3, 0], [0, 3, 0]], [-3, -3], 4).fit()
    release, loss = identified(found, ["dye.release", "dye.loss"])
    assert release.sd == pytest.approx(1 / np.sqrt(2 * 9 + 1 / 0.25))
    assert release.before == 0.5
    assert release.alone == pytest.approx(1 / np.sqrt(18), rel=1e-3)
    assert release.source == "labels"
    assert (loss.sd, loss.before, loss.source) == (pytest.approx(1.0), 1.0, "nothing")
    summed = {i.name: i for i in identified(Line([[0, 9, 9], [0, 9, 9]], [9, 9], 4).fit(), ["dye.release", "dye.loss"])}
    assert summed["dye.loss"].source == "priors"
    assert summed["dye.loss"].alone > 100
    assert "release" in summed["dye.loss"].rests_on[0]
    assert "release of label in blood" in summed["dye.loss"].reason
    assert summed["dye.loss"].sd == pytest.approx(np.sqrt(1 / (1 + 1 / 0.25)), rel=0.02)


def test_profiles_follow_their_level(worlds):
    name = "liver_uptake_pct_id"
    narrow, wide = (joint_profiles(worlds.best, [name], level)[name] for level in (0.8, 0.95))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
