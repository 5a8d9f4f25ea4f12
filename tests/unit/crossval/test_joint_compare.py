"""All tables of the comparison: their columns, reasons, the same again, and odd studies that become notes."""

import math

import numpy as np
import pandas as pd
import pytest

from evbiodist.crossval.compare import TABLES, compare_labels
from evbiodist.crossval.joint import answer
from evbiodist.crossval.joint.posterior import JointPosterior
from evbiodist.kinetics.analyse import Dosing
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.labels import label_model
from evbiodist.study.model import CrossvalSettings

FEW = CrossvalSettings(leave_out=())


@pytest.fixture(scope="module")
def study():
    return LabelStudy.draw(np.random.default_rng(1), labels=("DiR", "111In"), organs=("liver", "brain"),
                           times_h=(0.083, 0.5, 2.0, 8.0, 24.0), animals=2, world="clean")  # fmt: skip


@pytest.fixture(scope="module")
def models(study):
    return {n: label_model(n, d) for n, d in study.definitions().items()}


def dosing_of(table):
    who = table[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    return {(str(g), str(s), str(x)): Dosing(1e10, "particles", "iv_bolus") for g, s, x in who}


#: Stands for labels' own fits where there are none: the joint model then begins from plausible rates.
NO_FITS = {
    "parameters": [{"study": "", "group": "", "label": "", "model": FEW.model, "parameter": "fit", "reason": ""}]
}


def compared(table, models, settings=FEW, **more):
    return compare_labels(table, models, more.pop("dosing", dosing_of(table)), settings, **more)


@pytest.fixture(scope="module")
def whole(study, models):
    return compared(study.observations, models, CrossvalSettings())


def missing(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


@pytest.mark.parametrize("name", [n for n in TABLES if n not in ("assay_validation", "posterior")])
def test_tables_have_rows_with_their_columns_and_no_others(whole, name):
    rows = getattr(whole, name)
    assert rows
    assert {key for row in rows for key in row} == set(TABLES[name])
    assert len(set(TABLES[name])) == len(TABLES[name])
    assert all({"study", "group"} <= set(r) and r["study"] == "simulated" and r["group"] == "all" for r in rows)


@pytest.mark.parametrize(
    "name", ["consensus", "left_out", "label_parameters", "label_bias", "identifiability", "influence"]
)
def test_a_missing_value_has_a_reason(whole, name):
    main = {"consensus": "estimate", "left_out": "log_density", "label_bias": "ratio"}.get(name, "value")
    for row in getattr(whole, name):
        if main in row and missing(row[main]):
            assert row["reason"], row


def test_intervals_hold_their_value(whole):
    for name, columns in (
        ("consensus", ("ci_low", "estimate", "ci_high")),
        ("label_parameters", ("ci_low", "value", "ci_high")),
        ("label_bias", ("ratio_low", "ratio", "ratio_high")),
        ("predicted", ("low", "predicted", "high")),
        ("left_out", ("ci_low", "value", "ci_high")),
        ("identifiability", ("ci_low", "value", "ci_high")),
    ):
        known = [[row.get(c, math.nan) for c in columns] for row in getattr(whole, name)]
        known = np.array([r for r in known if np.isfinite(r).all()])
        assert len(known), name
        assert (np.diff(known, axis=1) >= 0).all(), name


def test_accusations_are_yes_or_no_and_cover_every_label(whole):
    assert sorted(r["label"] for r in whole.alerts) == ["111In", "DiR"]
    for row in whole.alerts:
        assert row["accused"] in (True, False, "yes", "no")
        assert row["evidence"]
        assert (row["accused"] in (True, "yes")) == (row["log10_odds"] > 1)
    odds = [r["log10_odds"] for r in whole.alerts]
    assert odds == sorted(odds, reverse=True)


def test_every_label_organ_time_and_animal_is_left_out_once(whole, study):
    table = study.observations
    for kind, expected in (("label", {"DiR", "111In"}), ("organ", set(table["organ"])),
                           ("time", {f"{t:g}" for t in table["time_h"]}), ("animal", set(table["subject"]))):  # fmt: skip
        assert sorted(r["left_out"] for r in whole.left_out if r["kind"] == kind) == sorted(expected)
        ranks = sorted(r["rank"] for r in whole.left_out if r["kind"] == kind and not missing(r["rank"]))
        assert ranks == list(range(1, len(ranks) + 1))
    assert {r["kind"] for r in whole.predicted} == {"label", "organ", "time"}


def test_the_joint_answer_stands_beside_the_consensus(whole):
    joint = {r["quantity"]: r for r in whole.consensus if r["label"] == "joint"}
    assert {"brain_uptake_pct_id", "liver_peak_pct_id", "half_life", "cl"} <= set(joint)
    assert all(r["unit"] and r["method"] and r["estimate"] > 0 for r in joint.values())
    first = [r["quantity"] for r in whole.consensus]
    assert first[0] == "brain_uptake_pct_id"  # the headline organ comes first


def test_next_steps_are_ranked_by_gain(whole):
    gains = [r["gain_pct"] for r in whole.next_steps]
    assert gains == sorted(gains, reverse=True)
    assert [r["rank"] for r in whole.next_steps] == list(range(1, len(gains) + 1))
    assert all(-1e-6 <= g < 100 for g in gains)
    assert all(r["relative_se_then"] <= r["relative_se_now"] * (1 + 1e-9) for r in whole.next_steps)


def test_the_same_study_gives_the_same_bytes_whatever_is_left_out(whole, study, models):
    again = compared(study.observations, models)
    assert not again.left_out
    assert not again.predicted
    for name in set(TABLES) - {"left_out", "predicted", "posterior"}:  # draws were asked for once only
        one, two = (
            pd.DataFrame(getattr(c, name), columns=list(TABLES[name])).to_csv(index=False) for c in (whole, again)
        )
        assert one == two, name
    assert whole.notes == again.notes


def test_one_label_has_a_consensus_of_one_and_no_joint_answer(study, models):
    alone = compared(study.observations[study.observations["label"] == "DiR"], models)
    assert alone.consensus
    assert not alone.alerts
    assert not alone.notes
    pooled = [r for r in alone.consensus if r["label"] == "consensus" and r["quantity"] == "half_life"]
    single = [r for r in alone.consensus if r["label"] == "DiR" and r["quantity"] == "half_life"]
    assert pooled[0]["estimate"] == single[0]["estimate"]
    assert pooled[0]["ci_low"] == single[0]["ci_low"]


def test_without_the_joint_model_nothing_else_is_lost(study, models, whole):
    plain = compared(study.observations, models, CrossvalSettings(joint=False))
    assert not plain.alerts
    assert plain.agreement == whole.agreement
    assert not [r for r in plain.consensus if r["label"] == "joint"]


def test_an_empty_table_gives_empty_tables(study, models):
    nothing = compared(study.observations.iloc[:0], models)
    assert not any(getattr(nothing, name) for name in TABLES)
    assert not nothing.notes


def odd(table, what):
    label, organ = table["label"] == "DiR", table["organ"]
    if what == "all below the limit":
        return table.assign(below_lloq=True)
    if what == "no spread":
        return table.assign(
            value=table.groupby(["label", "organ", "time_h"])["value"].transform("first"), vessel_blood=0.0
        )
    if what == "single animals":
        return table[table["subject"].str.endswith("_1")]
    if what == "one time":
        return table[table["time_h"] == 2.0]
    if what == "organs apart, one without blood":
        return table[(label & organ.isin(["liver"])) | (~label & organ.isin(["blood", "brain"]))]
    if what == "no errors given":
        return table.assign(se=np.nan)
    if what == "no blood":
        return table[organ != "blood"]
    if what == "no headline organ":
        return table[organ != "brain"]
    if what == "rows twice":
        return pd.concat([table, table], ignore_index=True)
    if what == "every value zero":
        return table.assign(value=0.0, vessel_blood=0.0)
    raise AssertionError(what)


ANSWERED = (
    "single animals",
    "one time",
    "organs apart, one without blood",
    "no errors given",
    "no headline organ",
    "rows twice",
)
#: Those that are not slowed by fitting each label by itself first.
UNFITTED = ("one time", "no errors given", "rows twice")


@pytest.mark.parametrize("what", ANSWERED)
def test_odd_studies_still_have_an_answer(study, models, what):
    found = compared(odd(study.observations, what), models, **(NO_FITS if what in UNFITTED else {}))
    assert not any("no joint answer" in note for note in found.notes)
    assert len(found.alerts) == 2
    assert found.identifiability
    for name, columns in TABLES.items():
        assert all(set(row) <= set(columns) for row in getattr(found, name)), name
    joint = [r for r in found.consensus if r["label"] == "joint"]
    assert joint
    assert all(math.isfinite(r["estimate"]) for r in joint)


@pytest.mark.parametrize(("what", "told"), [("all below the limit", "fewer than two labels have rows"),
                                        ("no blood", "no label was measured in blood")])  # fmt: skip
def test_studies_without_an_answer_say_why(study, models, what, told):
    found = compared(odd(study.observations, what), models)
    assert any(told in note for note in found.notes)
    assert not found.alerts


def test_labels_given_in_controls_alone_are_no_labels_on_vesicles(study, models):
    table = study.observations
    table = table.assign(group=np.where(table["label"] == "DiR", "free_label", table["group"]))
    found = compared(table, models)
    assert any("fewer than two labels" in note for note in found.notes)


def test_unknown_routes_and_models_are_sentences(study, models):
    no_route = compared(study.observations, models, dosing={})
    assert any("the route is not known; give it in subjects.csv or by --route" in n for n in no_route.notes)
    no_model = compared(study.observations, models, CrossvalSettings(model="nonsense"))
    assert any("there is no model 'nonsense'; known: " in n for n in no_model.notes)


@pytest.mark.parametrize("what", ["times", "routes"])
def test_doses_that_differ_are_a_note(study, models, what):
    dosing = dosing_of(study.observations)
    first = next(iter(dosing))
    dosing[first] = (
        Dosing(1e10, "particles", "ip") if what == "routes" else Dosing(1e10, "particles", "iv_infusion", 0.5)
    )
    found = compared(study.observations, models, dosing=dosing)
    assert any("groups of their own" in note for note in found.notes)
    assert not found.alerts


def test_a_label_that_nobody_described_is_a_note(study, models):
    found = compared(study.observations, {"DiR": models["DiR"]})
    assert any("111In" in note for note in found.notes)


def test_a_model_without_organs_is_a_sentence(study, models):
    found = compared(study.observations, models, CrossvalSettings(model="two_compartment_iv"))
    assert not any("tuple.index" in note for note in found.notes)


@pytest.mark.parametrize("what", ["no spread", "every value zero"])
def test_animals_that_read_exactly_alike_do_not_end_in_a_division(study, models, what):
    found = compared(odd(study.observations, what), models, **NO_FITS)
    assert not any("division by zero" in note for note in found.notes)


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_an_empty_organ_is_fitted_without_a_warning(study, models, value):
    table = study.observations
    brain = table["organ"] == "brain"
    found = compared(
        table.assign(
            value=np.where(brain, value, table["value"]), vessel_blood=np.where(brain, 0.0, table["vessel_blood"])
        ),
        models,
    )
    assert len(found.alerts) == 2


@pytest.mark.parametrize("column", ["value", "se"])
def test_one_infinite_cell_does_not_spoil_the_study(study, models, column):
    table = study.observations.reset_index(drop=True)
    table = table.assign(**{column: np.where(table.index == 7, np.inf, table[column])})
    assert len(compared(table, models).alerts) == 2


def test_names_of_labels_are_told_as_they_are(study, models):
    """Names that look like a table's own words, or like markup, come out as they went in."""
    new = {"DiR": "joint <b>", "111In": "a.b=1"}
    table = study.observations.assign(label=study.observations["label"].map(new))
    found = compared(table, {new[n]: m for n, m in models.items()}, **NO_FITS)
    assert {r["label"] for r in found.alerts} == set(new.values())
    parameters = {r["parameter"] for r in found.label_parameters if r["label"] == "a.b=1"}
    assert {"free_fraction", "efficiency", "scale"} <= parameters


def test_draws_of_the_posterior_are_a_table_when_asked_for(study, models, monkeypatch):
    """The draws themselves have tests of their own; here they are only asked for, and told."""

    def drawn(worlds, names, *, draws, seed, level):
        value = np.log(np.linspace(1.0, 3.0, draws))[:, None] * np.ones(len(names))
        return JointPosterior(tuple(names), value, np.full(draws, 1 / draws), 60.0, 0.1, level, 7, ("60 are too few",))

    monkeypatch.setattr(answer, "sample_joint", drawn)
    found = compared(study.observations, models, CrossvalSettings(leave_out=(), posterior_draws=101))
    joint = {r["quantity"]: r for r in found.consensus if r["label"] == "joint"}
    assert {r["quantity"] for r in found.posterior} == set(joint)
    for r in found.posterior:
        assert set(r) == set(TABLES["posterior"])
        assert (r["value"], r["effective_draws"], r["lost_pct"]) == (pytest.approx(2.0), 60.0, 10.0)
        assert r["unit"] == joint[r["quantity"]]["unit"]
        assert "too few" in r["reason"]


def separability(found):
    return [r["reason"] for r in found.identifiability if "changed the vesicle" in r["quantity"]]


def test_published_means_are_no_animals_that_carry_two_labels(study, models):
    """Means of both labels are all called `pooled`; animals that do carry two labels have one name."""
    keys = ["study", "group", "label", "organ", "time_h", "unit", "mass_g"]
    means = study.observations.groupby(keys, dropna=False, as_index=False)["value"].agg(
        value="mean", sd="std", n="size"
    )
    table = study.observations.drop_duplicates(keys).drop(columns=["value", "sd", "n"]).merge(means, on=keys)
    table = table.assign(subject="pooled", se=table["sd"] / table["n"] ** 0.5)
    assert all("no animal carries two labels" in reason for reason in separability(compared(table, models)))
    both = study.observations.assign(subject=study.observations["subject"].str.replace("DiR|111In", "x", regex=True))
    assert all("animals carry" in reason for reason in separability(compared(both, models)))


def test_the_level_reaches_every_interval(study, models):
    wide, narrow = (compared(study.observations, models, CrossvalSettings(leave_out=("label",)), fitting=FitSettings(level=level))
                    for level in (0.95, 0.6))  # fmt: skip
    for name, low, high in (("consensus", "ci_low", "ci_high"), ("label_bias", "ratio_low", "ratio_high"),
                            ("left_out", "ci_low", "ci_high"), ("predicted", "low", "high")):  # fmt: skip
        pairs = list(zip(getattr(wide, name), getattr(narrow, name), strict=True))
        ranges = [(a[high] - a[low], b[high] - b[low]) for a, b in pairs]
        known = [(a, b) for a, b in ranges if not (missing(a) or missing(b))]
        assert known
        assert all(b < a for a, b in known), name
