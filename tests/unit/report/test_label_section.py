"""The report on labels: the joint answer, who misreads and how, and what it rests on, as the tables have it."""

import html
import re
import shutil

import pandas as pd
import pytest

from evbiodist.crossval.compare import TABLES
from evbiodist.report import html as report_html
from evbiodist.report import label_section
from evbiodist.report.folder import read_results
from evbiodist.report.html import write_report
from evbiodist.report.label_figures import bias_map
from evbiodist.report.label_section import label_sections


@pytest.fixture(scope="module")
def text(small_results):
    return html.unescape((small_results / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(small_results):
    return read_results(small_results)


def table(folder, name):
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False)


def test_the_joint_answer_opens_the_report(text, small_results):
    rows = table(small_results, "consensus")
    r = rows[(rows["quantity"] == "brain_uptake_pct_id") & (rows["label"] == "joint")].iloc[0]
    shown = f"{float(r['estimate']):.3g} ({float(r['ci_low']):.3g} to {float(r['ci_high']):.3g}) % of the dose was in the brain"
    answer = text[text.index('id="answer"') : text.index("</section>")]
    assert shown in answer
    assert "All labels together say that" in answer


def test_every_label_has_its_case_and_its_row_in_the_map(text, small_results):
    alerts = table(small_results, "alerts")
    assert len(alerts) == 4
    for sentence in alerts["evidence"]:
        assert sentence in text
    for ratio in table(small_results, "label_bias")["ratio"]:
        assert f">{ratio:.2g}</text>" in text


def test_pairs_predictions_and_next_steps_are_those_of_the_tables(text, results, small_results):
    (section,) = label_sections(results, dict.fromkeys(("DiR", "NanoLuc", "mCherry", "111In"), 0))
    assert len(section["pairs"]) == 6  # four labels
    assert [f["label"] for f in section["predicted"]] == list(
        table(small_results, "left_out").query("kind == 'label'").sort_values("rank")["left_out"])  # fmt: skip
    steps = table(small_results, "next_steps")["step"]
    assert section["steps"] == list(steps[:5])
    for step in steps[:5]:
        assert step in text
    assert "nothing passes or fails" in text


def test_what_the_answer_rests_on_is_told(text, small_results):
    for r in table(small_results, "identifiability").itertuples():
        if not r.quantity.endswith("_with_vessels_pct_id"):
            assert r.quantity in text
            assert r.reason in text


def test_folders_without_these_tables_still_have_a_report(small_results, tmp_path):
    """Results of an earlier version, or of one label, have no joint answer."""
    copy = shutil.copytree(small_results, tmp_path / "old")
    for name in ("alerts", "ranks", "label_bias", "label_parameters", "identifiability", "left_out", "predicted", "next_steps",
                 "influence", "assay_validation"):  # fmt: skip
        (copy / f"{name}.csv").unlink()
    text = write_report(copy).read_text(encoding="utf-8")
    assert "Is it the vesicle or the label?" not in text
    assert "Across labels" in text


def test_a_map_shows_which_readings_are_sure():
    rows = pd.DataFrame({"label": ["a<b", "a<b"], "organ": ["brain", "liver"], "ratio": [2.0, 1.1], "ratio_low": [1.5, 0.8],
                         "ratio_high": [2.6, 1.4]})  # fmt: skip
    drawn = bias_map(rows)
    assert "a&lt;b" in drawn
    assert "a<b" not in drawn
    told = re.findall(r'<g class="(sure|unsure)"><rect[^>]*fill="rgb\(\d+,\d+,(\d+)\)"><title>([^<]*)', drawn)
    assert [(sure, text) for sure, _, text in told] == [("sure", "a&lt;b, brain: 2 (1.5 to 2.6) times the vesicle"),
                                                        ("unsure", "a&lt;b, liver: 1.1 (0.8 to 1.4) times the vesicle")]  # fmt: skip
    strong, pale = (int(blue) for _, blue, _ in told)
    assert strong < 60 < 200 < pale  # orange, and near white


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out figures and sections that do not rest on these tables: they are looked at elsewhere, and drawing takes seconds."""
    for name in ("difference_panel", "predicted_panel"):
        monkeypatch.setattr(label_section, name, lambda *a, **k: "<svg/>")
    monkeypatch.setattr(report_html.curves, "organ_curves", lambda *a: ([], 0))
    monkeypatch.setattr(report_html, "pictures", lambda *a: [])
    for name in ("diagnostics", "nca_tables", "fit_tables"):
        monkeypatch.setattr(report_html, name, lambda *a: [])


@pytest.mark.parametrize("name", [n for n in TABLES if n not in ("posterior", "assay_validation")])
def test_any_one_table_may_be_missing(undrawn, small_results, name):
    folder = read_results(small_results)
    folder.tables[name] = pd.DataFrame()
    assert "</html>" in report_html.render(folder)


def test_without_a_joint_answer_the_reason_stands_in_the_section(undrawn, small_results):
    folder = read_results(small_results)
    rows = folder.tables["consensus"]
    folder.tables["consensus"] = rows[rows["label"] != "joint"]
    for name in ("alerts", "label_bias", "label_parameters", "identifiability", "left_out", "predicted", "next_steps"):
        folder.tables[name] = folder.tables[name].iloc[:0]
    folder.study["notes"].append("ex_vivo: no joint answer: routes differ")
    text = report_html.render(folder)
    assert text.index('id="labels"') < text.index("routes differ", text.index('id="labels"')) < text.index('id="flags"')


@pytest.mark.parametrize(
    ("flag", "words"),
    [("outside_labels", "beyond the intervals of all single labels"), ("model_misfit", "does not fit")],
)
def test_doubts_about_the_joint_answer_stand_right_behind_it(results, flag, words):
    from dataclasses import replace

    from evbiodist.report.label_section import joint_sentences

    consensus = results["consensus"].copy()
    consensus.loc[consensus["label"] == "joint", "flags"] = flag
    told = joint_sentences(replace(results, tables={**results.tables, "consensus": consensus}), "ex_vivo")
    assert words in told[1]
    assert not any(words in sentence for sentence in joint_sentences(results, "ex_vivo"))
