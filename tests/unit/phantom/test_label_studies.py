"""Digital label studies: label is never made or lost, closed forms hold, and noise is what was promised."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from evbiodist.kinetics.models.catalogue import build
from evbiodist.phantom import label_studies
from evbiodist.phantom.label_kinetics import Misreading, Vesicle, simulate
from evbiodist.phantom.label_studies import CONTROLS, LABELS, ORGANS, WORLDS, LabelStudy
from evbiodist.study.corrections import BLOOD_DENSITY_RATIO
from evbiodist.study.labels import label_model
from evbiodist.study.model import OBSERVATION_COLUMNS, Label, Observation

TIMES = np.geomspace(0.02, 48, 12)
MEASURED = (*ORGANS, "blood")


def draw(seed, **given):
    given = {"times_h": (0.5, 4.0, 24.0), "animals": 1} | given
    return LabelStudy.draw(np.random.default_rng(seed), **given)


def drawn_vesicle(seed, world="catalogue", last_h=48.0):
    return label_studies._draw_vesicle(np.random.default_rng(seed), ORGANS, last_h, world)


def drawn_label(seed, name="DiR", world="catalogue", how=""):
    return label_studies._draw_label(np.random.default_rng(seed), name, ORGANS, world, how)


def one_organ(**changed):
    own = {"v": 2.0, "k_el": 0.3, "k_in": np.array([0.5]), "k_out": np.array([0.2]), "kept": np.zeros(1)} | changed
    return Vesicle(("liver",), **own)


# kinetics


@pytest.mark.parametrize("world", WORLDS)
def test_label_is_neither_made_nor_lost(world):
    vesicle = drawn_vesicle(8, world)
    for seed, name in enumerate(LABELS):
        c = simulate(vesicle, drawn_label(seed, name), TIMES)
        parts = [c.blood, c.free_blood, c.inside.sum(1), c.excreted, c.lost]
        np.testing.assert_allclose(np.sum(parts, axis=0), 100, rtol=1e-9)
        assert all((p > -1e-6).all() for p in [*parts, c.vesicle, c.left, c.free])


@pytest.mark.parametrize("seed", range(5))
def test_a_label_without_artefacts_reads_what_the_models_own_solver_says(seed):
    vesicle = drawn_vesicle(seed)
    graph = build("plasma_with_organs", ORGANS)
    values = {"v": vesicle.v, "k_el": vesicle.k_el}
    values |= {f"k_in_{o}": k for o, k in zip(ORGANS, vesicle.k_in, strict=True)}
    values |= {f"k_out_{o}": k for o, k in zip(ORGANS, vesicle.k_out, strict=True)}
    solved = graph.predict(np.array([values[n] for n in graph.names]), TIMES, 100.0)[0]
    expected = dict(zip(graph.seen, solved.T, strict=True))
    label = Misreading()
    found = simulate(vesicle, label, TIMES)
    for i, organ in enumerate(ORGANS):
        np.testing.assert_allclose(found.inside[:, i], expected[organ], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.per_g(vesicle, label), expected["blood"], rtol=1e-5, atol=1e-7)


def test_release_and_free_label_in_closed_form():
    """Bateman: vesicles lose label at 0.8 + 0.1, free label leaves at 0.7 + 0.4 and 40 of 110 enter the liver."""
    label = Misreading(free_fraction=0.2, release=0.1, free_v=3.0, free_k_el=0.7, free_k_in={"liver": 0.4})
    vesicle = one_organ(k_out=np.zeros(1))
    c = simulate(vesicle, label, TIMES)
    on = 80 * np.exp(-0.9 * TIMES)
    off = 20 * np.exp(-1.1 * TIMES) + 80 * 0.1 / (1.1 - 0.9) * (np.exp(-0.9 * TIMES) - np.exp(-1.1 * TIMES))
    np.testing.assert_allclose(c.blood, on, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(c.free_blood, off, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(c.per_g(vesicle, label), on / 2 + off / 3, rtol=1e-6, atol=1e-9)
    assert c.vesicle[-1, 0] == pytest.approx(80 * 0.5 / 0.9, rel=1e-6)
    assert c.free[-1, 0] == pytest.approx((20 + 80 * 0.1 / 0.9) * 0.4 / 1.1, rel=1e-6)


def test_label_left_in_cells_stays_and_leaves_as_free_label():
    """Of what enters at 0.5, 0.1 of 0.1 + 0.2 an hour stays; the rest goes back; cleared label comes out by free_k_el."""
    stays = simulate(one_organ(k_el=0.0), Misreading(transfer=0.1), np.array([500.0]))
    assert stays.left[0, 0] == pytest.approx(100, rel=1e-6)
    leaves = simulate(one_organ(k_el=0.0), Misreading(transfer=0.1, clearance=0.05, free_k_el=1.0), np.array([1500.0]))
    assert leaves.excreted[0] == pytest.approx(100, rel=1e-6)


def test_loss_of_signal_is_one_exponential_over_everything():
    label = drawn_label(3)
    full, lossy = (simulate(drawn_vesicle(3), Misreading(**{**vars(label), "loss": k}), TIMES) for k in (0.0, 0.03))
    np.testing.assert_allclose(lossy.inside, full.inside * np.exp(-0.03 * TIMES)[:, None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lossy.blood, full.blood * np.exp(-0.03 * TIMES), rtol=1e-5, atol=1e-6)


def test_kept_vesicles_never_return():
    kept = simulate(one_organ(kept=np.ones(1)), Misreading(), TIMES)
    no_way_back = simulate(one_organ(k_out=np.zeros(1)), Misreading(), TIMES)
    np.testing.assert_allclose(kept.vesicle, no_way_back.vesicle, rtol=1e-6)


def test_uptake_saturates_by_half_at_the_half_concentration():
    early = np.array([1e-4])
    first = {half: simulate(one_organ(half=half), Misreading(), early).vesicle[0, 0] / 1e-4 for half in (50.0, 1e9)}
    assert first[1e9] == pytest.approx(50, rel=1e-3)  # 0.5 of 100 % an hour
    assert first[50.0] == pytest.approx(25, rel=1e-3)  # 100 % in 2 g are 50 % a gram


def test_uptake_of_a_label_follows_the_vesicles_not_itself():
    """With the vesicles' own concentration given, half the label on them takes half the amounts."""
    vesicle = one_organ(half=10.0)
    grid = np.append(0.0, np.geomspace(1e-3, 48, 3000))
    per_g = simulate(vesicle, Misreading(), grid).blood / vesicle.v
    whole, half = (simulate(vesicle, Misreading(free_fraction=f), TIMES, lambda t: float(np.interp(t, grid, per_g)))
                   for f in (0.0, 0.5))  # fmt: skip
    np.testing.assert_allclose(half.vesicle, whole.vesicle / 2, rtol=1e-5)
    np.testing.assert_allclose(whole.vesicle, simulate(vesicle, Misreading(), TIMES).vesicle, rtol=1e-4)


@pytest.mark.parametrize("world", ["catalogue", "extra_organ"])
def test_half_life_is_the_slope_of_the_tail(world):
    vesicle = drawn_vesicle(5, world)
    late = np.array([25.0, 26.0]) * vesicle.half_life_h
    tail = simulate(vesicle, Misreading(), late).vesicle.sum(1)
    assert tail[0] / tail[1] == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_half_life_of_one_organ_in_closed_form(kept):
    """The slow root of lambda2 - (k_el + k_in + k_out) lambda + (k_el + kept k_in) k_out."""
    total, product = 0.3 + 0.5 + 0.2, (0.3 + kept * 0.5) * 0.2
    slow = (total - math.sqrt(total**2 - 4 * product)) / 2
    assert one_organ(kept=np.array([kept])).half_life_h == pytest.approx(math.log(2) / slow, rel=1e-12)


# what is drawn


def test_brain_uptake_and_half_life_lie_where_promised():
    vesicles = [drawn_vesicle(seed, last_h=24.0) for seed in range(25)]
    brain = np.array([label_studies._at(v, "brain", 24.0) for v in vesicles])
    first = np.array([math.log(2) / (v.k_el + v.k_in.sum()) for v in vesicles])
    for values, low, high in ((brain, 0.1, 5.0), (first, 1 / 30, 4.0)):
        assert (values >= low * 0.999).all()
        assert (values <= high * 1.001).all()
        assert kstest(np.log(values / low) / np.log(high / low), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", LABELS)
def test_labels_misread_uniformly_between_the_catalogues_limits(name):
    model = label_model(name, Label.model_validate({"catalogue": name}))
    drawn = [drawn_label(seed, name).values() for seed in range(100)]
    for key in (
        "free_fraction",
        "release",
        "transfer",
        "loss",
        "efficiency.brain",
        "efficiency.blood",
        "free_k_in.liver",
    ):
        parameter, _, organ = key.partition(".")
        prior = model.prior(parameter, organ or None)
        low, high = prior.transform(prior.low), prior.transform(prior.high)
        at = np.array([prior.transform(values[key]) for values in drawn])
        assert kstest((at - low) / (high - low), "uniform").pvalue > 1e-4, key


def test_clean_labels_are_nearly_faithful():
    for seed, name in itertools.product(range(20), LABELS):
        label = drawn_label(seed, name, "clean")
        assert label.free_fraction <= 0.02
        assert max(label.release, label.transfer) <= 2e-3
        assert label.loss <= 1e-3
        assert all(0.95 <= e <= 1.05 for e in label.efficiency.values())


def test_one_label_is_wrong_in_one_thing():
    kinds = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        name, how = label_studies._draw_culprit(rng, LABELS, ORGANS, "wrong")
        kinds.append((name, how))
        clean, wrong = (drawn_label(seed, name, "wrong", h).values() for h in ("", how))
        changed = {k for k in clean if clean[k] != wrong[k]}
        assert changed == {how}
        assert wrong[how] == 0.25 if how == "free_fraction" else 0.3 <= wrong[how] <= 0.5
    names, hows = (set(x) for x in zip(*kinds, strict=True))
    assert names == set(LABELS)
    assert hows >= {"free_fraction", "efficiency.brain", "efficiency.lung"}
    assert 18 <= sum(how == "free_fraction" for _, how in kinds) <= 42


def test_a_label_that_redirects_its_vesicle_sends_it_to_the_lung(monkeypatch):
    monkeypatch.setattr(label_studies, "_draw_label", lambda *_: Misreading(efficiency={"brain": 1.0}))
    study = draw(2, world="redirect", animals=30, times_h=(2.0,), controls=("perfused",))
    wrong = study.truth["wrong"]
    lungs = study.observations.query("organ == 'lung' and group == 'perfused'").groupby("label")["value"].mean()
    others = lungs.drop(wrong)
    assert study.truth["wrong_how"] == "redirect"
    assert lungs[wrong] > 2.5 * others.max()
    assert others.mean() == pytest.approx(study.truth["lung_uptake_pct_id"], rel=0.1)
    readings = {k: v["brain_reading_pct_id"] for k, v in study.truth["labels"].items()}
    brain = study.truth["brain_uptake_pct_id"]
    assert readings.pop(wrong) < brain
    assert list(readings.values()) == pytest.approx([brain] * 3, rel=1e-6)


@pytest.mark.parametrize("world", ["catalogue", "saturable", "extra_organ", "mixed"])
def test_a_label_without_artefacts_has_the_truth_as_its_reading(world, monkeypatch):
    monkeypatch.setattr(label_studies, "_draw_label", lambda *_: Misreading(efficiency={"brain": 1.0}))
    truth = draw(1, world=world).truth
    for name in LABELS:
        assert truth["labels"][name]["brain_reading_pct_id"] == pytest.approx(truth["brain_uptake_pct_id"], rel=1e-4)


# the tables


@pytest.mark.parametrize("world", WORLDS)
def test_every_row_is_a_valid_observation_of_an_animal_with_one_time(world):
    study = draw(7, world=world, labels=("DiR", "111In"), controls=CONTROLS)
    table = study.observations
    assert tuple(table.columns) == OBSERVATION_COLUMNS
    rows = [
        Observation.model_validate({k: v for k, v in r.items() if not pd.isna(v)}) for r in table.to_dict("records")
    ]
    assert len(rows) == 4 * 2 * 3 * len(MEASURED)
    assert {r.organ for r in rows} == set(MEASURED)
    assert {r.unit for r in rows} == {"pct_id", "pct_id_per_g"}
    assert {s.label for s in study.subjects} == {"DiR", "111In"}
    assert (table.groupby("subject")["time_h"].nunique() == 1).all()
    assert (table.groupby("subject")["organ"].nunique() == len(MEASURED)).all()
    assert set(table["subject"]) == {s.subject for s in study.subjects}
    counted = table["label"] == "111In"
    assert table["flags"].str.contains("decay_corrected").equals(counted)


def test_the_same_seed_gives_the_same_study_and_another_one_another():
    one, again, other = (draw(seed, labels=("DiR", "111In")) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one.observations, again.observations)
    assert one.truth == again.truth
    assert one.subjects == again.subjects
    assert one.truth["brain_uptake_pct_id"] != other.truth["brain_uptake_pct_id"]


def test_arms_labels_and_units_do_not_change_what_was_there():
    alone = draw(3, labels=("DiR", "NanoLuc"))
    more = draw(3, labels=("DiR", "NanoLuc", "111In"), controls=("perfused", "free_label"), arbitrary=("111In",))
    kept = more.observations.query("group == 'all' and label != '111In'").reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.observations, kept)


def test_an_arbitrary_scale_is_one_factor_without_blood_subtracted():
    given = {"labels": ("DiR", "111In")}
    share, scaled = draw(5, **given).observations, draw(5, **given, arbitrary=("DiR",)).observations
    mine = share["label"] == "DiR"
    assert (scaled.loc[mine, "unit"] == "au").all()
    assert scaled.loc[mine, "vessel_blood"].isna().all()
    whole = share["value"] + share["vessel_blood"].fillna(0)
    ratio = (scaled["value"] / whole)[mine]
    assert ratio.std() / ratio.mean() < 1e-9
    assert ratio.mean() > 1000
    pd.testing.assert_frame_equal(share[~mine], scaled[~mine])


def test_noise_is_what_was_promised_and_blood_lies_in_the_vessels(monkeypatch):
    """600 animals at one time, read without artefact: means, spread, their common part, and the vessels' blood."""
    monkeypatch.setattr(label_studies, "_draw_label", lambda *_: Misreading(efficiency={"brain": 1.0}))
    study = draw(11, labels=("111In",), times_h=(0.4,), animals=600, controls=("perfused",))
    table, truth = study.observations, study.truth
    amounts = table.assign(whole=table["value"] + table["vessel_blood"].fillna(0)).pivot_table(
        index=["group", "subject"], columns="organ", values="whole")  # fmt: skip
    perfused, full = amounts.loc["perfused"], amounts.loc["all"]
    dose, organ = math.log1p(0.08**2), math.log1p(0.20**2)
    logs = np.log(perfused[["liver", "spleen", "kidney", "lung"]])
    assert logs.var().mean() == pytest.approx(dose + organ + 0.05**2, rel=0.08)
    off_diagonal = logs.cov().to_numpy()[~np.eye(4, dtype=bool)]
    assert off_diagonal.mean() == pytest.approx(dose, abs=0.0025)
    assert perfused["blood"].mean() == pytest.approx(full["blood"].mean(), rel=0.04)
    grams = {"liver": 1.1, "lung": 0.14, "brain": 0.34}  # 5.5, 0.7 and 1.7 % of 20 g
    for name, mass in grams.items():
        assert perfused[name].mean() == pytest.approx(truth[f"{name}_uptake_pct_id"], rel=0.04)
        vessels = mass * BLOOD_DENSITY_RATIO * truth["blood_fraction"][name] * full["blood"].mean()
        error = 4 * math.hypot(full[name].std(), perfused[name].std()) / 600**0.5
        assert full[name].mean() - perfused[name].mean() == pytest.approx(vessels, abs=error)
    # the standard error is the reader's: scatter beyond the animals' own
    blood = table[(table["organ"] == "blood")]
    np.testing.assert_allclose(blood["se"], np.hypot(0.05 * blood["value"], 0.02))


def test_controls_hold_what_their_name_says():
    study = draw(13, labels=("DiR", "111In"), controls=CONTROLS, animals=40, times_h=(0.1, 8.0))
    table = study.observations
    assert set(table["group"]) == {"all", *CONTROLS}
    assert {s.perfused for s in study.subjects if s.group == "perfused"} == {True}
    assert not any(s.perfused for s in study.subjects if s.group != "perfused")
    assert table.loc[table["group"] == "perfused", "vessel_blood"].isna().all()
    organs = table[~table["organ"].isin(["blood"])]
    assert organs.loc[organs["group"] == "all", "flags"].str.contains("blood_subtracted").all()
    own = study.truth["labels"]["DiR"]["nuisance"]
    for (label, organ), rows in table[table["group"] == "unlabelled"].groupby(["label", "organ"]):
        background = own.get(f"background.{organ}", 0.0) if label == "DiR" else 0.0
        floor = (0.01 if label == "DiR" else 0.002) * (10 if organ == "blood" else 1)
        reach = 4 * math.hypot(floor, 0.05 * background) / len(rows) ** 0.5
        # a blank blood value, times the blood in a gram of organ, was subtracted too
        assert (rows["value"] + rows["vessel_blood"].fillna(0)).mean() == pytest.approx(background, abs=reach)
    assert "background.liver" in own
    assert not any("background" in k for k in study.truth["labels"]["111In"]["nuisance"])
    free = table[(table["group"] == "free_label") & (table["label"] == "111In") & (table["organ"] == "blood")]
    nuisance = study.truth["labels"]["111In"]["nuisance"]
    first = free.loc[free["time_h"] == 0.1, "value"].mean()
    assert first <= 1.2 * 100 / nuisance["free_v"] * nuisance["efficiency.blood"]


def test_without_an_unlabelled_arm_the_background_is_taken_as_subtracted():
    assert not any("background" in k for v in draw(1, labels=("DiR",)).truth["labels"].values() for k in v["nuisance"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"labels": ("DiX",)}, "labels holds 'DiX'.*did you mean 'DiR'"),
        ({"labels": ("DiR", "DiR")}, "one or more different names"),
        ({"labels": ()}, "one or more different names"),
        ({"world": "flat"}, "world is 'flat', expected one of catalogue"),
        ({"controls": ("vehicle",)}, "controls holds 'vehicle', expected some of free_label"),
        ({"arbitrary": ("111in",)}, "arbitrary holds '111in'"),
        ({"organs": ("liver", "spleen")}, "organs lacks brain"),
        ({"organs": ("liver", "brain"), "world": "redirect"}, "organs lacks lung"),
        ({"organs": ("tail", "brain")}, "organs holds 'tail'"),
        ({"times_h": (4.0, 1.0)}, "expected rising times"),
        ({"times_h": (0.0, 1.0)}, "expected rising times"),
        ({"times_h": ()}, "expected rising times"),
        ({"animals": 0}, "animals is 0"),
    ],
)
def test_words_that_make_no_study_are_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw(1, **given)


def test_definitions_are_those_the_labels_were_drawn_from():
    two = ("DiR", "NanoLuc")
    usual, clean = draw(1, labels=two), draw(1, labels=two, world="clean")
    found = {name: label.readout for name, label in usual.definitions().items()}
    assert found == {"DiR": "whole_organ", "NanoLuc": "homogenate"}
    assert clean.definitions()["DiR"].readout == "homogenate"
    assert not clean.definitions()["DiR"].priors
    assert label_model("DiR", clean.definitions(stated=True)["DiR"]).prior("free_fraction").high == 0.02
    assert not usual.definitions(stated=True)["DiR"].priors
