"""The command line as a user meets it: words, exit status, JSON lines, and no heavy import for --help."""

import csv
import json
import math
import subprocess
import sys
from importlib.resources import files

import pandas as pd
import pytest
from click.testing import CliRunner

from evbiodist.cli import main
from evbiodist.crossval.compare import TABLES

HEAVY = ("numpy", "pandas", "scipy", "skimage", "tifffile", "lmfit", "pint", "altair", "pydantic", "napari", "qtpy")


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_help_imports_nothing_heavy():
    code = (
        "import sys, evbiodist.cli; evbiodist.cli.main(['--help'], standalone_mode=False); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
    assert "check" in out


def test_importing_the_package_stays_free_of_qt_and_tables():
    code = "import sys, evbiodist; print([m for m in ('napari', 'qtpy', 'PySide6', 'matplotlib', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_contract_s_commands_are_there():
    names = set(main.commands)
    assert {"demo", "info", "check", "run", "quantify", "nca", "fit", "models", "crossval", "report", "phantom", "view",
            "doctor"} <= names  # fmt: skip
    for name in names:
        result = call(name, "--help")
        assert result.exit_code == 0
        assert main.commands[name].help


def test_check_good_and_bad(table_study, small_study):
    good = call("check", small_study)
    assert good.exit_code == 0
    assert "ready to run" in good.output
    bad = call("check", table_study(subjects__csv="subject,label,dose,dose_unit,route\na,DiD,,particles,iv_bolus\n"))
    assert bad.exit_code == 2
    assert "subjects.csv, row 2, column dose: found nothing" in bad.stderr
    assert "Traceback" not in bad.output + bad.stderr
    assert "nothing was run" in bad.stderr


def test_check_as_json(table_study):
    bad = call(
        "check",
        table_study(subjects__csv="subject,label,dose,dose_unit,route\na,DiR,-1,particles,iv_bolus\n"),
        "--json",
    )
    facts = [json.loads(line) for line in bad.stdout.splitlines()]
    assert facts[0]["event"] == "problem"
    assert (facts[0]["file"], facts[0]["row"], facts[0]["field"], facts[0]["found"]) == (
        "subjects.csv",
        2,
        "dose",
        "-1",
    )


@pytest.mark.parametrize("command", [("run", "nowhere/study.toml", "--out", "x"), ("info", "nowhere.tif"),
                                     ("nca", "nowhere.csv", "--out", "x"), ("report", "nowhere"),
                                     ("fit", "nowhere.csv", "--model", "one_compartment_iv", "--out", "x")])  # fmt: skip
def test_absent_inputs_are_sentences_and_status_2(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*command)
    assert result.exit_code == 2
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_model_suggests():
    result = call("fit", "x.csv", "--model", "two_compartment", "--out", "x")
    assert result.exit_code == 2
    assert "did you mean 'two_compartment_" in result.stderr


def test_run_with_a_failed_scan_is_status_1(small_study, tmp_path):
    import shutil

    study = shutil.copytree(small_study, tmp_path / "study")
    lines = (study / "scans.csv").read_text().splitlines()
    keep = [lines[0], *(line for line in lines if line.startswith("NanoLuc_0.5h"))]
    (study / "scans.csv").write_text("\n".join(keep) + "\n")
    name = keep[1].split(",")[0]
    (study / f"images/{name}.tif").write_bytes(b"II*\0damaged")
    result = call("run", study, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] in ("inputs", "scan")][-1] == "scan"
    assert any(e["event"] == "message" and e.get("failed") == 1 for e in events)
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert list(failures["name"]) == [name]
    quantified = call("quantify", study, "--out", tmp_path / "quantified", "--quiet")
    assert quantified.exit_code == 1
    assert quantified.stdout == ""
    assert (tmp_path / "quantified" / "observations.csv").exists()
    assert not (tmp_path / "quantified" / "parameters.csv").exists()
    again = call("report", tmp_path / "out")
    assert again.exit_code == 0


def test_nca_from_a_counter_table(tmp_path):
    """Someone with only a gamma counter enters with a CSV and the command line."""
    (tmp_path / "t.csv").write_text(
        "organ,h0.5,sd,h2,sd,h8,sd,h24,sd\nblood,20,2,9,1,3,0.4,1,0.2\nliver,30,3,40,4,35,4,20,3\n"
    )
    result = call("nca", tmp_path / "t.csv", "--unit", "pct_id_per_g", "--n", 4, "--label", "111In", "--out", tmp_path / "out",
                  "--method", "linear")  # fmt: skip
    assert result.exit_code == 0, result.output + result.stderr
    table = pd.read_csv(tmp_path / "out" / "parameters.csv").set_index(["organ", "parameter"])
    assert table.loc[("liver", "auclast"), "value"] == pytest.approx(0.25 * 30 + 1.5 * 35 + 6 * 37.5 + 16 * 27.5)
    assert table.loc[("blood", "auclast_sparse"), "value"] == pytest.approx(1.5 * 14.5 + 6 * 6 + 16 * 2)
    weights = [0.75, 3.75, 11.0, 8.0]
    expected = sum((w * s) ** 2 / 4 for w, s in zip(weights, (2, 1, 0.4, 0.2), strict=True)) ** 0.5
    assert table.loc[("blood", "auclast_sparse"), "se"] == pytest.approx(expected)
    assert table.loc[("liver", "kp_auc"), "value"] > 1


def test_shares_of_the_dose_without_a_number_of_animals_are_analysed(tmp_path):
    """The smallest table there is: no errors, no n, and shares of the dose, of which peak and last are asked."""
    (tmp_path / "t.csv").write_text("organ,h0.5,h2,h8\nliver,3,4,5\nblood,9,4,1\n")
    result = call("nca", tmp_path / "t.csv", "--unit", "pct_id", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output + result.stderr
    table = pd.read_csv(tmp_path / "out" / "parameters.csv").set_index(["organ", "parameter"])
    assert table.loc[("liver", "peak_pct_id"), "value"] == 5
    assert table.loc[("liver", "peak_pct_id"), "n"] == 1


def test_without_any_value_the_status_says_so(tmp_path):
    (tmp_path / "t.csv").write_text(
        "subject,label,organ,time_h,value,unit,lloq,below_lloq\na,x,liver,1,,pct_id,1,yes\n"
    )
    result = call("nca", tmp_path / "t.csv", "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output + result.stderr
    assert "without a value" in result.stdout


def test_fit_and_crossval_from_a_result_folder(small_results, tmp_path):
    fitted = call("fit", small_results, "--model", "two_compartment_iv", "--out", tmp_path)
    assert fitted.exit_code == 1  # the in-vivo arms have no blood, and say so
    assert "no blood, plasma or serum was measured" in fitted.stdout
    here = pd.read_csv(tmp_path / "parameters.csv").query("parameter == 'v1'").set_index("label")["value"]
    there = pd.read_csv(small_results / "parameters.csv").query("parameter == 'v1'").set_index("label")["value"]
    pd.testing.assert_series_equal(here, there, rtol=0, atol=0)
    compared = call("crossval", small_results, "--out", tmp_path)
    assert compared.exit_code == 0
    for name in TABLES:  # the same study by `run`: every table to the last byte
        assert (tmp_path / f"{name}.csv").read_bytes() == (small_results / f"{name}.csv").read_bytes(), name


def test_crossval_of_one_label_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("organ,h1,h2,h3\nblood,3,2,1\n")
    result = call("crossval", tmp_path / "t.csv", "--unit", "pct_id_per_g", "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "hold one label (label)" in result.stderr


def test_models_prints_equations():
    text = call("models").stdout
    assert "dA_central/dt = - cl/v * A_central + dose(t)" in text
    assert "[blood] --k_in_organ--> [organ]" in text


def test_info_of_real_files(ivis_click):
    result = call("info", ivis_click, *sorted(ivis_click.glob("*.TIF")), ivis_click / "ClickInfo.txt")
    assert result.exit_code == 0
    for words in (
        "IVIS 200 Spectrum",
        "960 x 960",
        "not usable as a dark frame",
        "stored values are 10 times the counts",
    ):
        assert words in result.stdout
    facts = json.loads(call("info", ivis_click, "--json").stdout)
    assert facts["reader"] == "ivis"


def test_phantom_is_reproducible(tmp_path):
    for name in ("a", "b"):
        assert (
            call(
                "phantom", tmp_path / name, "--seed", 5, "--animals", 1, "--times", "0.1,1,5", "--no-in-vivo"
            ).exit_code
            == 0
        )
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    bad = call("phantom", tmp_path / "c", "--times", "soon")
    assert bad.exit_code == 2
    assert "three or more different hours above 0" in bad.stderr


def test_doctor_names_versions():
    result = call("doctor")
    assert "lmfit" in result.stdout
    assert "GiB free" in result.stdout


def test_partial_areas_and_rules_reach_the_table(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("subject,label,organ,time_h,value,unit\n"
                     + "".join(f"a,x,blood,{t},{8 * 2**-t},pct_id_per_g\n" for t in range(6)))  # fmt: skip
    out = tmp_path / "out"
    done = call("nca", str(table), "--out", str(out), "--partial", "0-2", "--rules", "winnonlin", "--method", "log")
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((out / "parameters.csv").read_text().splitlines()))
    (area,) = [r for r in rows if r["parameter"] == "auc_0_2h"]
    assert float(area["value"]) == pytest.approx((8 - 2) / math.log(2))
    for wrong in ("4-0", "a-b", "4"):
        refused = call("nca", str(table), "--out", str(out), "--partial", wrong)
        assert refused.exit_code == 2
        assert f"--partial has '{wrong}', expected two times in hours such as 0-4" in refused.stderr


def test_a_model_of_ones_own_is_checked_printed_and_fitted(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text((files("evbiodist") / "kinetics" / "models" / "catalogue.toml").read_text().split("[models.two_compartment_iv]")[0]
                   .replace("one_compartment_iv", "mine"))  # fmt: skip
    shown = call("models", "--file", str(own))
    assert "dA_central/dt = - cl/v * A_central + dose(t)" in shown.stdout
    table = tmp_path / "t.csv"
    table.write_text("subject,label,organ,time_h,value,unit\n"
                     + "".join(f"a,x,blood,{t},{8 * 2**-t},pct_id_per_g\n" for t in range(6)))  # fmt: skip
    out = tmp_path / "out"
    done = call("fit", str(table), "--model", "mine", "--models-file", str(own), "--fix", "v=12.5", "--out", str(out))
    assert done.exit_code == 0, done.stderr
    rows = {r["parameter"]: r for r in csv.DictReader((out / "parameters.csv").read_text().splitlines())}
    assert float(rows["cl"]["value"]) == pytest.approx(12.5 * math.log(2), rel=1e-5)
    assert rows["v"]["reason"] == "held, not estimated"
    own.write_text(own.read_text().replace("rate = { cl = 1, v = -1 }", "rate = { cl = 1, w = -1 }"))
    broken = call("models", "--file", str(own))
    assert broken.exit_code == 2
    assert "model mine uses w, which it does not declare" in broken.stderr
    unheld = call("fit", str(table), "--model", "one_compartment_iv", "--fix", "v", "--out", str(out))
    assert "--fix has 'v', expected a parameter and its value such as f=0.8" in unheld.stderr
