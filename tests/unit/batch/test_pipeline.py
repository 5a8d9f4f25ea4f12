"""A whole study: failures are isolated, results repeat to the byte, nothing is dropped without a word."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import evbiodist as ev
from evbiodist.batch.pipeline import run_study
from evbiodist.phantom.study import Design, write_study
from evbiodist.study.load import load_study

TABLES = ("observations", "parameters", "agreement", "consensus", "curves", "failures", "scans")


def bytes_of(folder, names=TABLES):
    return {name: (folder / f"{name}.csv").read_bytes() for name in names} | {
        "report": (folder / "report.html").read_bytes()
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two labels, three times, two animals: twelve trays."""
    from evbiodist.phantom.study import LABELS

    folder = tmp_path_factory.mktemp("tiny")
    write_study(folder, 3, Design(times_h=(0.083, 1.0, 8.0), animals=2, in_vivo=False, labels=LABELS[1:3]))
    return folder


@pytest.fixture(scope="module")
def tiny_run(tiny, tmp_path_factory):
    """The whole run of `tiny` on one worker, which tests may copy but not change."""
    return ev.run(tiny, tmp_path_factory.mktemp("tiny_results"), workers=1)


def test_result_folder_is_the_contract(small_results):
    files = {p.name for p in small_results.iterdir()}
    assert {"observations.csv", "parameters.csv", "agreement.csv", "consensus.csv", "failures.csv", "report.html",
            "provenance.json", "settings.toml"} <= files  # fmt: skip
    heads = {n: (small_results / f"{n}.csv").read_text().split("\n")[0] for n in TABLES}
    assert heads["observations"].startswith(
        "study,subject,group,label,organ,time_h,value,se,unit,mass_g,lloq,below_lloq,flags,source"
    )
    assert heads["parameters"] == ("study,subject,group,label,organ,model,parameter,value,se,ci_low,ci_high,unit,method,n,"
                                   "flags,reason")  # fmt: skip
    for column in ("organ", "label_a", "label_b", "n", "bias", "bias_low", "bias_high", "loa_low", "loa_high", "ccc", "ccc_low",
                   "ccc_high", "deming_slope", "deming_intercept"):  # fmt: skip
        assert column in heads["agreement"].split(",")
    assert heads["consensus"].split(",")[:13] == ["study", "group", "quantity", "label", "estimate", "se", "ci_low", "ci_high",
                                                  "weight",
                                                  "tau2", "i2", "prediction_low", "prediction_high"]  # fmt: skip


def test_no_number_is_alone(small_results):
    """Every parameter has a value with an interval, or a reason; flags are known words."""
    from evbiodist.study.flags import FLAGS, split

    table = pd.read_csv(small_results / "parameters.csv", dtype=str, keep_default_na=False)
    assert ((table["value"] != "") | (table["reason"] != "")).all()
    assert ((table["se"] != "") | (table["reason"] != "")).all()
    assert (table["unit"] != "")[(table["value"] != "") & (table["parameter"] != "aicc")].all()
    words = {f for name in ("parameters", "observations") for cell in
             pd.read_csv(small_results / f"{name}.csv", dtype=str, keep_default_na=False)["flags"] for f in split(cell)}  # fmt: skip
    assert words <= set(FLAGS)
    assert {"blood_subtracted", "decay_corrected"} <= words


def test_every_scan_and_animal_is_in_the_observations(small_study, small_results):
    study = load_study(small_study)
    seen = pd.read_csv(small_results / "observations.csv", dtype=str)
    assert {s.scan for s in study.scans} <= set(seen["source"])
    assert {s.subject for s in study.subjects} == set(seen["subject"])


def test_provenance_names_inputs_and_outputs(small_study, small_results):
    import hashlib

    held = json.loads((small_results / "provenance.json").read_text())
    for name in ("study.toml", "scans.csv", "images/DiR_4h_1.tif"):
        assert held["inputs"][name] == hashlib.sha256((small_study / name).read_bytes()).hexdigest()
    assert (
        held["outputs"]["parameters.csv"] == hashlib.sha256((small_results / "parameters.csv").read_bytes()).hexdigest()
    )
    assert str(small_study) not in json.dumps(held)
    assert set(held["versions"]) >= {"python", "numpy", "lmfit"}


def test_workers_and_settings_toml_give_the_same_bytes(tiny, tiny_run, tmp_path):
    ev.run(tiny, tmp_path / "two", workers=2)
    ev.run(tiny_run.out / "settings.toml", tmp_path / "again")
    first = bytes_of(tiny_run.out)
    assert bytes_of(tmp_path / "two") == first
    assert bytes_of(tmp_path / "again") == first


def test_killed_and_run_again_gives_the_same_bytes(tiny, tiny_run, tmp_path):
    """Killed with half of the scans done, and while curves are fitted; benchmarks/kills.py kills at a hundred moments."""
    for scans in (6, 12):
        command = [sys.executable, "-m", "evbiodist", "run", str(tiny), "--out", str(tmp_path / "killed"), "--quiet"]
        process = subprocess.Popen(command)
        while len(list((tmp_path / "killed" / "scans").glob("*.json"))) < scans:
            assert process.poll() is None
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = ev.run(tiny, tmp_path / "killed")
    assert not result.failures
    assert bytes_of(tmp_path / "killed") == bytes_of(tiny_run.out)
    assert not list((tmp_path / "killed").rglob(".part-*"))


def test_a_rerun_reads_shards_and_a_changed_scan_is_done_anew(tiny, tiny_run, tmp_path):
    study = shutil.copytree(tiny, tmp_path / "study")
    shutil.copytree(tiny_run.out, tmp_path / "out")
    events = []
    run_study(load_study(study), tmp_path / "out", quantify_only=True, progress=events.append)
    assert [e["done"] for e in events if e["event"] == "scan"] == [12]
    table = (study / "scans.csv").read_text().split("\n")
    table[1] = table[1].replace(",1.2,", ",1.3,")  # another gain
    (study / "scans.csv").write_text("\n".join(table))
    events.clear()
    run_study(load_study(study), tmp_path / "out", quantify_only=True, progress=events.append)
    assert [e["done"] for e in events if e["event"] == "scan"] == [11, 12]
    assert len(list((tmp_path / "out" / "scans").glob("*.json"))) == 12


def test_failed_scans_are_rows_and_poison_nothing(tiny, tiny_run, tmp_path):
    study = shutil.copytree(tiny, tmp_path / "study")
    names = [s.scan for s in load_study(study).scans]
    data = (study / f"images/{names[0]}.tif").read_bytes()
    (study / f"images/{names[0]}.tif").write_bytes(data[: len(data) // 2])
    (study / f"images/{names[1]}.tif").unlink()
    (study / f"photographs/{names[2]}.tif").write_bytes(b"<html>")
    result = ev.run(study, tmp_path / "out", workers=2)
    assert [f["name"] for f in result.failures] == sorted(names[:3])
    reasons = " ".join(f["reason"] for f in result.failures)
    assert "truncated" in reasons
    assert "there is no such file" in reasons
    assert "not a TIFF" in reasons
    left = [r for r in tiny_run.observations if r["source"] not in names[:3]]
    assert [r for r in result.observations if r["source"] not in names[:3]] == left
    text = (tmp_path / "out" / "report.html").read_text()
    assert "3 of 12 scans failed" in text
    assert "truncated" in text


def test_the_order_of_rows_in_the_tables_does_not_matter(tiny, tiny_run, tmp_path):
    study = shutil.copytree(tiny, tmp_path / "study")
    for name in ("subjects", "scans", "masses"):
        head, *rows = (study / f"{name}.csv").read_text().splitlines()
        (study / f"{name}.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    turned = run_study(load_study(study), tmp_path / "out")
    for name in ("observations", "parameters", "consensus", "agreement"):
        assert (tiny_run.out / f"{name}.csv").read_bytes() == (tmp_path / "out" / f"{name}.csv").read_bytes()
    assert len(turned.observations) == len(tiny_run.observations)


def test_the_wrong_label_is_seen(small_results):
    """DiR carries a quarter of free dye: it reads high in the brain, and the labels are said to disagree."""
    table = pd.read_csv(small_results / "consensus.csv", keep_default_na=False)
    rows = table[table["quantity"] == "brain_uptake_pct_id"].set_index("label")
    value = rows["estimate"].astype(float)
    assert value["DiR"] > 1.5 * value[["NanoLuc", "mCherry", "111In"]].max()
    assert "heterogeneous" in rows.loc["consensus", "flags"]
    assert "DiR reads" in (small_results / "report.html").read_text()


def test_vessel_blood_is_shown_and_can_be_kept(tiny, tiny_run, tmp_path):
    study = shutil.copytree(tiny, tmp_path / "study")
    lines = (study / "study.toml").read_text()
    (study / "study.toml").write_text(lines + '\n[corrections]\nvessel_blood = "keep"\n')
    kept = {(r["source"], r["organ"]): r
            for r in run_study(load_study(study), tmp_path / "out", quantify_only=True).observations}  # fmt: skip
    for r in tiny_run.observations:
        if r["organ"] not in {"blood"}:
            assert r["value"] + r["vessel_blood"] == pytest.approx(kept[r["source"], r["organ"]]["value"])


def test_an_unwritable_folder_is_a_sentence(tiny, tmp_path):
    (tmp_path / "out").write_text("a file")
    from evbiodist.batch.store import NoRoomError

    with pytest.raises(NoRoomError, match="cannot be written"):
        run_study(load_study(tiny), tmp_path / "out")


def test_real_mice_as_a_study(ivis_click, tmp_path):
    """The real click as a study of five animals: five total fluxes, named from left to right."""
    shutil.copytree(ivis_click, tmp_path / "study" / "click")
    os.chmod(tmp_path / "study" / "click", 0o755)
    (tmp_path / "study" / "study.toml").write_text(
        'name = "tumours"\n[labels.Fluc]\nkind = "bioluminescence"\nemission_nm = 560\n[tables]\nsubjects = "subjects.csv"\n'
        'scans = "scans.csv"\n')  # fmt: skip
    mice = [f"m{i}" for i in range(1, 6)]
    (tmp_path / "study" / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route\n" + "".join(f"{m},Fluc,3,mg,ip\n" for m in mice)
    )
    (tmp_path / "study" / "scans.csv").write_text(
        f"scan,subject,label,time_h,kind,file\nclick,{';'.join(mice)},Fluc,0.2,in_vivo,click\n"
    )
    result = ev.run(tmp_path / "study", tmp_path / "out")
    assert not result.failures
    rows = {r["subject"]: r for r in result.observations}
    assert list(rows) == mice
    assert all(r["organ"] == "whole_body" and r["unit"] == "p_per_s" and r["se"] > 0 for r in rows.values())
    assert rows["m2"]["value"] > rows["m3"]["value"] > 3 * rows["m1"]["value"]
    assert any("refused as a dark frame" in n for n in result.notes)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Measured at one time" in report
    assert f"{rows['m2']['value']:.3g} (" in report
    (tmp_path / "study" / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route\n" + "".join(f"{m},Fluc,3,mg,ip\n" for m in mice[:4])
    )
    (tmp_path / "study" / "scans.csv").write_text(
        f"scan,subject,label,time_h,kind,file\nclick,{';'.join(mice[:4])},Fluc,0.2,in_vivo,click\n"
    )
    result = ev.run(tmp_path / "study", tmp_path / "out2")
    assert "5 animals were found in the photograph of click, 4 subjects are listed" in result.failures[0]["reason"]


@pytest.mark.parametrize("name", ["111In_EB_cRGDfK", "125I_TAP1", "99mTc_pertechnetate"])
def test_published_tables_run_to_pk_parameters(name, tmp_path):
    """Each is a study; its blood area is checked by hand arithmetic on the printed means."""
    from evbiodist.sample import sample_data

    result = ev.run(sample_data() / "organ_tables" / name, tmp_path)
    assert not result.failures
    found = {r["parameter"]: r for r in result.parameters if r["organ"] == "blood" and r["model"] == "nca"}
    table = result.frame("observations")
    blood = table[table["organ"] == "blood"].sort_values("time_h")
    import numpy as np

    assert found["auclast_sparse"]["value"] == pytest.approx(np.trapezoid(blood["value"], blood["time_h"]))
    assert found["cmax"]["value"] == blood["value"].max()
    if name.startswith("99m"):
        assert found["auclast"]["se"] != found["auclast"]["se"]
        assert "no uncertainty" in found["auclast"]["reason"] or "unknown" in found["auclast"]["reason"]
        assert {"sd_repeated", "unit_conflict"} <= set(table["flags"].iloc[0].split(";"))
    else:
        assert found["auclast"]["ci_low"] < found["auclast"]["value"] < found["auclast"]["ci_high"]
    fitted = {r["parameter"]: r for r in result.parameters if r["model"] == "two_compartment_iv"}
    if name == "125I_TAP1":  # sampled to 2 h only: the blood curve does not say how fast the dose leaves the body
        assert "at_bound" in fitted["cl"]["flags"]
        for derived in ("auc_inf", "half_life", "mrt_inf"):  # vss is v1 + v2 whatever leaves the body
            assert fitted[derived]["value"] != fitted[derived]["value"]
            assert "it rests on cl, which the data do not carry" in fitted[derived]["reason"]
    else:
        for parameter in ("cl", "v1", "auc_inf"):
            assert fitted[parameter]["ci_low"] < fitted[parameter]["value"] < fitted[parameter]["ci_high"]


def test_in_vivo_animals_have_their_own_curves(small_results):
    table = pd.read_csv(small_results / "parameters.csv", dtype=str, keep_default_na=False)
    own = table[(table["group"] == "in_vivo") & (table["model"] == "nca") & (table["parameter"] == "auclast")]
    assert set(own["subject"]) == {"DiR_followed", "NanoLuc_followed", "mCherry_followed"}
    assert (own["se"].astype(float) > 0).all()


def test_paths_in_results_are_relative(small_results):
    text = (small_results / "settings.toml").read_text()
    first = text.split("\n")[0]
    assert first.startswith("study_file = ")
    assert not Path(first.split('"')[1]).is_absolute()
