"""What a run must never do: overwrite a user's files, mix studies, or trip over an odd input."""

import os
import shutil

import pytest
from click.testing import CliRunner

import evbiodist as ev
from evbiodist.batch.pipeline import check
from evbiodist.cli import main
from evbiodist.phantom.study import LABELS, Design, write_study
from evbiodist.study.load import load_study


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def one_label(tmp_path):
    write_study(tmp_path / "study", 4, Design(times_h=(0.1, 1.0, 5.0), animals=1, in_vivo=False, labels=LABELS[1:2]))
    return tmp_path / "study"


def test_results_never_land_on_the_study(one_label):
    before = {p: p.read_bytes() for p in one_label.rglob("*") if p.is_file()}
    for out in (one_label, one_label.parent, one_label / "images"):
        result = call("run", one_label, "--out", out, "--quiet")
        assert result.exit_code == 2
        assert "holds the study's own files" in result.stderr
    assert {p: p.read_bytes() for p in before} == before


def test_results_never_land_among_other_files_or_another_study(one_label, tmp_path, small_results):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").write_text("x")
    assert "holds other files (thesis.docx)" in call("run", one_label, "--out", tmp_path / "full").stderr
    other = shutil.copytree(small_results, tmp_path / "other")
    toml = one_label / "study.toml"
    toml.write_text(toml.read_text().replace('name = "digital mouse"', 'name = "another"'))
    assert "holds the results of another study, 'digital mouse'" in call("run", one_label, "--out", other).stderr
    (tmp_path / "t.csv").write_text("organ,h1,h2,h3\nblood,3,2,1\n")
    kept = call("nca", tmp_path / "t.csv", "--unit", "pct_id_per_g", "--out", other)
    assert kept.exit_code == 2
    assert "would be overwritten" in kept.stderr


def test_a_shorter_run_leaves_no_longer_one_s_tables(one_label, tmp_path):
    ev.run(one_label, tmp_path / "out")
    assert call("quantify", one_label, "--out", tmp_path / "out").exit_code == 0
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert not {"parameters.csv", "consensus.csv", "report.html"} & left


def test_sample_and_phantom_do_not_overwrite(one_label, tmp_path):
    (tmp_path / "demo" / "study").mkdir(parents=True)
    (tmp_path / "demo" / "study" / "study.toml").write_text("mine")
    assert "holds something else already" in call("demo", tmp_path / "demo").stderr
    assert (tmp_path / "demo" / "study" / "study.toml").read_text() == "mine"
    assert "holds a study or file already" in call("phantom", one_label).stderr


def test_a_pipe_in_place_of_an_image_does_not_hang(one_label, tmp_path):
    name = load_study(one_label).scans[0].file
    (one_label / name).unlink()
    os.mkfifo(one_label / name)
    result = ev.run(one_label, tmp_path / "out", report=False)
    assert len(result.failures) == 1


def test_a_loop_of_links_fails_alone(one_label, tmp_path):
    name = load_study(one_label).scans[0].file
    (one_label / name).unlink()
    (one_label / name).symlink_to(one_label / name)
    result = ev.run(one_label, tmp_path / "out", report=False)
    assert "there is no such file" in result.failures[0]["reason"]
    assert len(result.failures) == 1


def test_a_damaged_picture_is_made_again(one_label, tmp_path):
    ev.run(one_label, tmp_path / "out")
    good = (tmp_path / "out" / "report.html").read_bytes()
    picture = next((tmp_path / "out" / "scans").glob("*.png"))
    picture.write_bytes(b"")
    ev.run(one_label, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_bytes() == good


def test_several_subjects_need_several_animals(one_label, tmp_path):
    table = (one_label / "scans.csv").read_text()
    names = [s.subject for s in load_study(one_label).subjects]
    (one_label / "scans.csv").write_text(table.replace(f",{names[0]},", f",{names[0]};{names[1]},", 1))
    result = ev.run(one_label, tmp_path / "out", report=False)
    assert "2 subjects are listed" in result.failures[0]["reason"]


def test_a_standard_without_its_share_is_asked_for(one_label, tmp_path):
    text = (one_label / "study.toml").read_text()
    (one_label / "study.toml").write_text(text.replace("[imaging.standard]", "[imaging.ignored]").split("[imaging.ignored]")[0]
                                          + "[imaging.organ_labels]\n1 = \"body\"\n")  # fmt: skip
    result = ev.run(one_label, tmp_path / "out", report=False)
    assert all("what share of the dose it holds is not said" in f["reason"] for f in result.failures)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"study__toml": "[" * 5000}, "TOML in UTF-8"),
        ({"subjects__csv": 'subject,label,dose,dose_unit,route\n"a,DiR,1,particles,iv_bolus\n'}, "row 2"),
        (
            {"subjects__csv": "subject,label,dose,dose_unit,route\n" + "a" * 200_000 + ",DiR,1,particles,iv_bolus\n"},
            "shorten the cell",
        ),
        ({"subjects__csv": "subject,label,dose,dose_unit,route\n"}, "a header only"),
        (
            {"subjects__csv": "subject,label,dose,dose_unit,route\na,DiR,1,florps,iv_bolus\n"},
            "'florps' is not a unit that is known",
        ),
        (
            {"observations__csv": "subject,label,organ,time_h,value,unit\nghost,DiR,liver,1,5,pct_id\n"},
            "an animal of subjects.csv",
        ),
        (
            {"observations__csv": "subject,label,organ,time_h,value,unit\n001,DiR,???,1,5,pct_id\n"},
            "the name of an organ",
        ),
        (
            {
                "observations__csv": "subject,label,organ,time_h,value,unit\n001,DiR,liver,1,5,pct_id\n#4,DiR,liver,1,5,pct_id\n"
            },
            "'#4'",
        ),
    ],
)
def test_odd_inputs_are_sentences(table_study, files, words):
    result = call("check", table_study(**files))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_tables_named_twice_and_unknown_models_are_refused(table_study):
    path = table_study()
    path.write_text(path.read_text().replace('["observations.csv"]', '["observations.csv", "observations.csv"]')
                    + '[kinetics]\nmodels = ["four_compartment_iv"]\n')  # fmt: skip
    found = " ".join(str(p) for p in check(load_study(path)))
    assert "each value in one table only" in found
    assert "found 'four_compartment_iv', expected a model of evbiodist models" in found


def test_groups_keep_their_blood_and_perfusion_apart(tmp_path):
    for group, blood in (("A", 20), ("B", 1)):
        (tmp_path / f"{group}.csv").write_text(f"organ,h1,h2,h3\nblood,{blood},{blood},{blood}\nbrain,1,1,1\n")
    (tmp_path / "study.toml").write_text(
        'name = "s"\n[labels.x]\nkind = "fluorescence"\n'
        + "".join(f'[[tables.observations]]\nfile = "{g}.csv"\nlabel = "x"\nunit = "pct_id_per_g"\ngroup = "{g}"\n{more}'
                  for g, more in (("A", ""), ("B", "")))
    )  # fmt: skip
    rows = ev.run(tmp_path, tmp_path / "out", report=False).observations
    taken = {r["group"]: r["vessel_blood"] for r in rows if r["organ"] == "brain"}
    assert taken["A"] == pytest.approx(20 * taken["B"])
    text = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace('group = "B"\n', 'group = "B"\nperfused = true\n'))
    rows = ev.run(tmp_path, tmp_path / "out", report=False).observations
    taken = {r["group"]: r["vessel_blood"] for r in rows if r["organ"] == "brain"}
    assert taken["A"] > 0
    assert taken["B"] is None
    again = call("nca", tmp_path / "out", "--out", tmp_path / "again")  # our own table is read back
    assert again.exit_code == 0, again.stderr


def test_names_that_spreadsheets_would_run_come_back_as_they_were(tmp_path):
    (tmp_path / "subjects.csv").write_text("subject,label,dose,dose_unit,route\n-m0,x,10,ng,oral\n")
    rows = "".join(f"-m0,x,blood,{t},{v},au\n" for t, v in ((0.5, 2), (1, 4), (2, 3), (4, 2), (8, 1)))
    (tmp_path / "t.csv").write_text("subject,label,organ,time_h,value,unit\n" + rows)
    (tmp_path / "study.toml").write_text('name = "s"\n[labels.x]\nkind = "molecular"\n[tables]\nsubjects = "subjects.csv"\n'
                                         'observations = "t.csv"\n')  # fmt: skip
    first = ev.run(tmp_path, tmp_path / "out", report=False)
    assert "'-m0" in (tmp_path / "out" / "observations.csv").read_text()
    assert call("nca", tmp_path / "out", "--out", tmp_path / "again").exit_code == 0
    text = (tmp_path / "again" / "parameters.csv").read_text()
    names = {line.split(",")[6] for line in text.splitlines()[1:]}
    assert "cl_f" in names
    assert "auc_pct_back_extrap_obs" not in names
    assert {r["parameter"] for r in first.parameters if r["model"] == "nca"} == names


def test_labels_are_compared_until_the_last_time_that_all_have(tmp_path):
    """The same kinetics, one label sampled to 4 h and one to 96 h: the same uptake."""
    import math

    lines = ["subject,label,organ,time_h,value,se,unit"]
    for label, times in (("a", (0.1, 0.5, 1, 2, 4)), ("b", (0.1, 0.5, 1, 2, 4, 24, 96))):
        for t in times:
            for i, f in enumerate((0.95, 1.0, 1.05)):
                blood, brain = 40 * math.exp(-0.8 * t), 2 * (math.exp(-0.05 * t) - math.exp(-0.8 * t))
                lines += [f"{label}{t}-{i},{label},blood,{t},{blood * f},{0.01 * blood},pct_id_per_g",
                          f"{label}{t}-{i},{label},brain,{t},{brain * f},{0.01 * brain},pct_id"]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    result = call("crossval", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    import pandas as pd

    rows = pd.read_csv(tmp_path / "out" / "consensus.csv").query("quantity == 'brain_uptake_pct_id'").set_index("label")
    assert rows.loc["a", "estimate"] == pytest.approx(rows.loc["b", "estimate"], rel=0.1)
    assert "until 4 h" in rows.loc["consensus", "method"]
