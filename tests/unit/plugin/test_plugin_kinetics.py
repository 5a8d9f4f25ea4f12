"""The kinetics panel's numbers without a window: the batch's to the last byte, choices of samples included."""

import math
import tomllib
from dataclasses import replace
from typing import get_args

import pytest
from napari_evbiodist import kinetics_model as model
from napari_evbiodist.kinetics_model import Place
from napari_evbiodist.session import Session

import evbiodist as ev
from evbiodist.batch import store
from evbiodist.batch.pipeline import CURVE_COLUMNS, run_study
from evbiodist.crossval.compare import TABLES
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS
from evbiodist.kinetics.models.catalogue import catalogue
from evbiodist.study.model import KineticsSettings
from evbiodist.study.problems import InputError

BLOOD = Place("two labels", "treated", "NanoLuc", "blood", "pct_id_per_g")
LIVER = replace(BLOOD, organ="liver", unit="pct_id")
FOLLOWED = Place("two labels", "followed", "NanoLuc", "blood", "pct_id_per_g")


@pytest.fixture
def session(two_labels):
    return Session.open(two_labels)


def analysed(session):
    told = []
    comparison = model.analyse(session.study, session.scanned()[0], tell=told.append)
    [fitted] = told
    return fitted, comparison


def quick(session):
    session.change_settings(kinetics={"models": ["one_compartment_iv"]}, crossval={"model": "one_compartment_iv"})
    return analysed(session)[0]


@pytest.fixture(scope="module")
def fitted(two_labels_once):
    return quick(Session.open(two_labels_once))


def csv(rows):
    return store.csv_bytes(rows, PARAMETER_COLUMNS)


def again(session, fitted, line):
    needed = model.needed_for(fitted.observations, line.label, line.organ)
    return model.with_again(fitted, model.analyse_curve(session.study, needed, line.label, line.organ))


def test_every_table_is_that_of_the_batch_to_the_last_byte(session, two_labels, tmp_path):
    run_study(ev.load_study(two_labels), tmp_path / "out")
    fitted, comparison = analysed(session)
    assert csv(fitted.parameters) == (tmp_path / "out" / "parameters.csv").read_bytes()
    for name, columns in TABLES.items():
        assert store.csv_bytes(getattr(comparison, name), columns) == (tmp_path / "out" / f"{name}.csv").read_bytes()
    assert comparison.consensus
    # read back, they are the same rows, and the plot has the same points and lines
    read, read_comparison = model.read(session.study, tmp_path / "out")
    assert csv(read.parameters) == csv(fitted.parameters)
    assert store.csv_bytes(read.curves, CURVE_COLUMNS) == store.csv_bytes(fitted.curves, CURVE_COLUMNS)
    assert (
        store.csv_bytes(read_comparison.consensus, TABLES["consensus"])
        == (tmp_path / "out" / "consensus.csv").read_bytes()
    )
    assert [(x.subject, x.positions, x.value) for x in read.lines] == [
        (x.subject, x.positions, x.value) for x in fitted.lines
    ]
    assert [r["high"] for r in read.points] == [r["high"] for r in fitted.points]
    # models of blood are compared with each other, blood with organs apart; the smaller is nested in the larger
    treated = [c for c in fitted.models if (c.group, c.label) == ("treated", "NanoLuc")]
    assert [sorted(r["model"] for r in c.rows) for c in treated] == [["one_compartment_iv", "two_compartment_iv"],
                                                                   ["plasma_with_organs"]]  # fmt: skip
    assert treated[0].rows[0]["model"] == "two_compartment_iv"
    assert treated[0].rows[0]["weight"] > 0.99
    assert treated[0].sentences[0].startswith("two_compartment_iv is preferred: weight 1.00")
    assert treated[0].sentences[1].startswith("two_compartment_iv is needed beside one_compartment_iv (F(2, ")
    assert treated[1].sentences[0].startswith("plasma_with_organs is the only model fitted to blood, liver "
                                              "(one_compartment_iv, two_compartment_iv: fitted to other values)")  # fmt: skip
    # the group that was followed in blood alone has no model with organs, and that is said
    assert model.unanalysed(fitted.parameters, {}) == [
        "plasma_with_organs (followed, NanoLuc): no organ has an amount in pct_id; "
        "give organ masses (masses.csv) or pct_id values"
    ]


def test_choices_of_samples_saved_and_run_give_the_bytes_of_the_curves_made_anew(session, fitted, two_labels, tmp_path):
    session.change_settings(kinetics={"models": ["one_compartment_iv"]}, crossval={"model": "one_compartment_iv"})
    best, places = csv(fitted.parameters), (BLOOD, LIVER, replace(FOLLOWED, subject="f1"))
    for place in places:
        line, before = model.line_at(fitted.lines, place), csv(fitted.parameters)
        assert not line.chosen
        other = next(i for i in range(6) if i not in line.positions)
        times = model.toggled(line, [line.time_h[i] for i in line.positions], other)
        choices = model.with_choice(session.study.settings.kinetics, line, times, " 1 h\nstill ")
        session.change_settings(kinetics={"lambda_z": choices})
        fitted = again(session, fitted, line)
        line = model.line_at(fitted.lines, place)
        assert line.chosen
        assert tuple(line.time_h[i] for i in line.positions) == times
        assert csv(fitted.parameters) != before
    run_study(ev.load_study(session.save(two_labels / "mine")), tmp_path / "out")
    assert csv(fitted.parameters) == (tmp_path / "out" / "parameters.csv").read_bytes()
    saved = tomllib.loads((two_labels / "mine.study.toml").read_text())["kinetics"]["lambda_z"]
    assert [(c["organ"], c["subject"]) for c in saved] == [("blood", "pooled"), ("liver", "pooled"), ("blood", "f1")]
    assert {c["why"] for c in saved} == {"1 h still"}
    for place in places:
        line = model.line_at(fitted.lines, place)
        session.change_settings(kinetics={"lambda_z": model.without_choice(session.study.settings.kinetics, line)})
        fitted = again(session, fitted, line)
    assert csv(fitted.parameters) == best


def test_the_choice_for_one_curve_leaves_a_wider_one_alone(session):
    wide = {"label": "NanoLuc", "organ": "blood", "times_h": [4, 12, 24, 48], "why": "all of them"}
    session.change_settings(kinetics={"lambda_z": [wide]})
    fitted = quick(session)
    line = model.line_at(fitted.lines, BLOOD)
    assert line.chosen
    settings = session.study.settings.kinetics
    assert model.choice_of(settings, line).why == "all of them"
    for why in ("mine", "mine after all"):
        session.change_settings(kinetics={"lambda_z": model.with_choice(settings, line, (12, 24, 48), why)})
        settings = session.study.settings.kinetics
    assert [c.why for c in settings.lambda_z] == ["all of them", "mine after all"]
    assert model.choice_of(settings, line).why == "mine after all"
    assert model.choice_of(settings, model.line_at(fitted.lines, replace(FOLLOWED, subject="f0"))).why == "all of them"
    assert [c["why"] for c in model.without_choice(settings, line)] == ["all of them"]


def test_a_choice_needs_a_reason_and_three_samples_above_zero(session, fitted):
    line = model.line_at(fitted.lines, BLOOD)
    settings = session.study.settings.kinetics
    with pytest.raises(ValueError, match="say why these samples"):
        model.with_choice(settings, line, (12, 24, 48), "  ")
    with pytest.raises(ValueError, match="2 samples are chosen, and a terminal line needs 3; click more of them"):
        model.with_choice(settings, line, (12, 24), "x")
    with pytest.raises(ValueError, match="a terminal line needs 3 samples, and 3 are chosen"):
        model.toggled(line, (12.0, 24.0, 48.0), 4)
    assert model.toggled(line, (24.0,), 4) == ()
    below = replace(line, value=(0.0, *line.value[1:]), off={0: "it is below the limit of quantification"})
    with pytest.raises(ValueError, match=r"the sample at 0.25 h cannot be on the terminal line: it is below the limit"):
        model.toggled(below, (), 0)
    with pytest.raises(InputError, match="times_h"):
        session.change_settings(
            kinetics={"lambda_z": [{"label": "NanoLuc", "organ": "blood", "times_h": [1, 2], "why": "x"}]}
        )


def test_the_drawn_line_goes_through_the_samples_that_made_it(fitted):
    line = model.line_at(fitted.lines, BLOOD)
    x, y = model.drawn(line)
    assert (x[0], x[-1]) == (line.time_h[line.positions[0]], 48.0)
    fall = math.log(y[0] / y[-1]) / (x[-1] - x[0])
    assert fall == pytest.approx(line.lambda_z.value, rel=1e-12)
    left = [
        math.log(line.value[i] * math.exp(line.lambda_z.value * (line.time_h[i] - x[0])) / y[0]) for i in line.positions
    ]
    assert sum(left) == pytest.approx(0, abs=1e-9)
    assert model.drawn(replace(line, positions=())) == ([], [])
    words = model.point_words(line)
    assert words[-1].endswith("on the terminal line\nclick to change that")
    assert "not on the terminal line: the line fits better without it" in words[0]


def test_rules_and_models_are_those_that_settings_take(session):
    types = {key: entry.annotation for key, entry in KineticsSettings.model_fields.items()}
    for rule in model.rules():
        session.change_settings(kinetics={rule.key: KineticsSettings().model_dump()[rule.key]})
        if rule.choices:
            assert rule.choices == get_args(types[rule.key])
        elif not rule.switch:
            for beyond in (rule.low - 1, rule.high + 1):
                with pytest.raises(InputError, match=rule.key):
                    session.change_settings(kinetics={rule.key: beyond})
    offered = model.models_of(session.study)
    assert {"two_compartment_iv", "plasma_with_organs"} <= set(offered)
    assert "two_tissue" not in offered  # it takes a measured curve, which a study does not give
    assert set(offered) <= set(catalogue())


def test_kinetics_settings_keep_what_was_measured(few_scans):
    session = Session.open(few_scans)
    session.run_scan("NanoLuc_0.5h_1")
    session.change_settings(kinetics={"blq": "zero"}, crossval={"organ": "liver"})
    assert session.measured() == ["NanoLuc_0.5h_1"]
    rows, failures = session.scanned()
    assert {r.source for r in rows} == {"NanoLuc_0.5h_1"}
    assert failures == dict.fromkeys(["NanoLuc_followed_0.5h", "NanoLuc_followed_2h"], "it is not measured yet")
    session.change_settings(imaging={"footprint": "roi"})
    assert session.measured() == []


def test_points_are_means_and_each_animal_with_a_curve_of_its_own(fitted):
    points = fitted.points
    here = [r for r in points if FOLLOWED.holds(r)]
    assert {r["subject"] for r in here} == {"", "f0", "f1"}
    at = {r["subject"]: r for r in here if r["time_h"] == 4.0}
    assert at[""]["mean"] == pytest.approx((at["f0"]["mean"] + at["f1"]["mean"]) / 2)
    assert (at[""]["n"], at["f0"]["n"]) == (2, 1)
    assert at["f0"]["high"] - at["f0"]["mean"] == pytest.approx(1.959964 * 0.03 * at["f0"]["mean"])
    assert {r["subject"] for r in points if BLOOD.holds(r)} == {""}


def test_the_table_shows_the_batch_s_numbers_with_flags_and_reasons_in_words(fitted):
    rows = model.parameter_table(fitted.parameters, BLOOD)
    batch = [
        r
        for r in fitted.parameters
        if (r["group"], r["label"]) == ("treated", "NanoLuc") and r["organ"] in ("blood", "")
    ]
    assert [(r["parameter"], r["value"]) for r in rows if not math.isnan(r["value"])] == [
        (r["parameter"], r["value"]) for r in batch if not math.isnan(r["value"])
    ]
    missing = [r for r in model.parameter_table(fitted.parameters, LIVER) if r["missing"]]
    assert missing
    assert all(r["reason"] for r in missing)
    row = next(r for r in rows if r["parameter"] == "auclast")
    assert row["interval"] == f"{row['ci_low']:.4g} to {row['ci_high']:.4g}"
    told = model.about({**row, "flags": "extrapolated, short_span"})
    assert told[0].startswith(f"auclast = {row['value']:.3g} (")
    assert told[0].endswith("pct_id_per_g*h (treated, NanoLuc, blood, pooled; n = 18)")
    assert told[-1] == "short_span: the terminal slope rests on less than two half-lives; sample longer"
    one = model.parameter_table(fitted.parameters, replace(FOLLOWED, subject="f1"))
    assert {r["subject"] for r in one if r["model"] == "nca"} == {"f1"}


def test_what_could_not_be_analysed_is_said_once_for_alike_cases():
    row = {"group": "a", "organ": "", "subject": "pooled", "parameter": "fit", "value": math.nan, "reason": "no blood"}
    rows = [{**row, "label": label, "model": "m"} for label in "ABCDEF"]
    rows.append({**row, "label": "A", "organ": "liver", "model": "nca", "parameter": "nca", "reason": "several values"})
    rows.append({**row, "label": "A", "model": "m", "parameter": "cl", "reason": "no organ"})
    assert model.unanalysed(rows, {"scan 1": "it is damaged"}, ["a note"]) == [
        "scan 1 was not measured: it is damaged",
        "m (a, A), m (a, B), m (a, C), m (a, D) and 2 more: no blood",
        "NCA of liver, pooled (a, A): several values",
        "a note",
    ]


def test_the_bias_map_says_by_words_marks_and_colours_which_label_misreads():
    row = {"label": "DiR", "reason": ""}
    high, even, low, none = model.bias_cells([
        {**row, "organ": "lung", "ratio": 2.24, "ratio_low": 1.95, "ratio_high": 2.56},
        {**row, "organ": "liver", "ratio": 1.1, "ratio_low": 0.9, "ratio_high": 1.3},
        {**row, "organ": "brain", "ratio": 0.4, "ratio_low": 0.3, "ratio_high": 0.5},
        {**row, "organ": "heart", "ratio": math.nan, "ratio_low": math.nan, "ratio_high": math.nan, "reason": "not seen"},
    ])  # fmt: skip
    assert (high.text, even.text, low.text, none.text) == (
        "▲ 2.24\n1.95–2.56",
        "1.10\n0.90–1.30",
        "▼ 0.40\n0.30–0.50",
        "–",
    )
    assert high.tip == "DiR reads 2.24 (1.95 to 2.56) times the vesicle in lung, more than the vesicle"
    assert "1 lies within" in even.tip
    assert none.tip == "not seen"

    def rgb(cell):
        return [int(cell.back[i : i + 2], 16) for i in (1, 3, 5)]

    assert rgb(high)[0] > rgb(high)[2] + 100
    assert rgb(low)[2] > rgb(low)[0] + 100
    assert max(rgb(even)) - min(rgb(even)) < 30


def test_the_forest_shows_pooled_rows_last_and_why_a_label_is_missing():
    row = {"study": "s", "group": "g", "quantity": "cl", "unit": "g/h", "method": "fit", "flags": "", "reason": "", "why": "",
           "prediction_low": math.nan, "prediction_high": math.nan}  # fmt: skip
    numbers = {"estimate": 2.0, "ci_low": 1.0, "ci_high": 3.0}
    rows = [
        {**row, **numbers, "label": "joint", "why": "joint and consensus differ because"},
        {
            **row,
            **numbers,
            "label": "consensus",
            "prediction_low": 0.5,
            "prediction_high": 6.0,
            "flags": "heterogeneous",
        },
        {**row, **numbers, "label": "A"},
        {**row, "estimate": math.nan, "ci_low": math.nan, "ci_high": math.nan, "label": "B", "reason": "no blood"},
        {**row, **numbers, "label": "A", "group": "other"},
    ]
    lines, unit, why = model.forest_lines(rows, "s", "g", "cl")
    assert [line.name for line in lines] == ["A", "B", "consensus", "joint answer"]
    assert [line.pooled for line in lines] == [False, False, True, True]
    assert (lines[1].why, lines[2].wide, unit) == ("no blood", (0.5, 6.0), "g/h")
    assert "heterogeneous: the labels disagree by more than their own errors" in lines[2].tip
    assert why == "joint and consensus differ because"
    assert model.quantities(rows, "s", "g") == ["cl"]
    alerts = [
        {
            "study": "s",
            "group": "g",
            "label": "mCherry",
            "accused": False,
            "evidence": "nothing speaks against mCherry",
        },
        {"study": "s", "group": "g", "label": "eGFP", "accused": True, "evidence": "eGFP misreads"},
    ]
    assert model.alert_sentences(alerts, "s", "g") == ["eGFP misreads.", "Nothing speaks against mCherry."]


def test_what_stops_the_batch_stops_the_panel_with_the_same_sentence(session, two_labels):
    session.change_settings(kinetics={"models": ["two_compartment"]})
    with pytest.raises(InputError) as here:
        analysed(session)
    text = (two_labels / "study.toml").read_text()
    (two_labels / "study.toml").write_text(
        text.replace('models = ["one_compartment_iv", ', 'models = ["two_compartment", ')
    )
    with pytest.raises(InputError) as there:
        run_study(ev.load_study(two_labels), two_labels.parent / "out")
    assert str(here.value) == str(there.value)
