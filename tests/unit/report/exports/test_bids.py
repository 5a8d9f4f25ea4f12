"""BIDS-PET derivatives: names, tables and sidecars keep the rules, and every value is where its units say."""

import io
import json
import math
import re

import pandas as pd
import pytest

from evbiodist.report.exports import bids
from evbiodist.report.folder import read_results

ROOT = "derivatives/evbiodist/"
HEAD = ["study", "subject", "group", "label", "organ", "time_h", "value", "se", "unit", "lloq", "below_lloq", "flags"]


def made_of(path, rows, subjects=(), labels=None, name="s"):
    usual = {"study": name, "group": "g", "label": "111In", "below_lloq": "no", "unit": "pct_id"}
    table = pd.DataFrame([usual | r for r in rows], columns=HEAD)
    table.to_csv(path / "observations.csv", index=False)
    settings = {"crossval": {"organ": "brain"}, "kinetics": {"level": 0.95}}
    told = {"name": name, "settings": settings, "subjects": list(subjects), "labels": labels or {}, "species": "mouse"}
    (path / "study.json").write_text(json.dumps(told))
    made = bids.export(read_results(path), {})
    assert all(n.startswith(ROOT) for n in made.files)
    return {n.removeprefix(ROOT): c for n, c in made.files.items()}, made.notes


def table(content):
    return pd.read_csv(io.BytesIO(content), sep="\t", na_values="n/a", keep_default_na=False)


ROWS = [
    {"subject": "m_1", "organ": "liver", "time_h": 24, "value": 30.5, "se": 0.5},
    {"subject": "m_1", "organ": "liver", "time_h": 0.5, "value": 0.1 + 0.2},
    {"subject": "m_1", "organ": "blood", "time_h": 0.5, "value": 10, "unit": "pct_id_per_g"},
    {"subject": "m_1", "organ": "brain", "time_h": 24, "value": math.nan, "lloq": 0.1, "below_lloq": "yes"},
    {"subject": "m1", "organ": "liver", "time_h": 0.5, "value": 1, "label": "D i-R"},
]
SUBJECTS = [
    {"subject": "m_1", "label": "111In", "dose": 2.0, "dose_unit": "mbq", "sex": "F", "weight_g": 20.5},
    {"subject": "m1", "label": "D i-R", "dose": 2.0, "dose_unit": "mbq", "sex": "unknown"},
]
LABELS = {"111In": {"kind": "radioactive"}, "D i-R": {"kind": "fluorescence"}}


def test_a_row_is_a_time_in_seconds_and_a_column_a_region_with_its_units(tmp_path):
    files, _ = made_of(tmp_path, ROWS, SUBJECTS, LABELS)
    stem = "sub-m1x2/pet/sub-m1x2_trc-111In_desc-mean_tacs"
    found = table(files[f"{stem}.tsv"])
    assert list(found.columns) == ["frame_start", "frame_end", "blood", "brain", "liver"]
    assert list(found["frame_start"]) == list(found["frame_end"]) == [1800, 86400]
    assert list(found["liver"]) == [0.1 + 0.2, 30.5]
    assert found["brain"].isna().all()
    sides = json.loads(files[f"{stem}.json"])
    assert set(sides) == set(found.columns)
    assert {c: sides[c]["Units"] for c in found} == dict(zip(found, ("s", "s", "%ID/g", "%ID", "%ID"), strict=True))
    assert sides["liver"]["TermURL"].endswith("UBERON_0002107")
    errors = table(files["sub-m1x2/pet/sub-m1x2_trc-111In_desc-se_tacs.tsv"])
    assert errors["liver"].dropna().tolist() == [0.5]


def test_names_keep_the_rules_of_bids_and_participants_map_them(tmp_path):
    files, notes = made_of(tmp_path, ROWS, SUBJECTS, LABELS)
    for name in files:
        if name.startswith("sub-"):
            assert re.fullmatch(
                r"(sub-[A-Za-z0-9]+)/pet/\1_trc-[A-Za-z0-9]+_(desc-(mean|se)_tacs|recording-manual_blood)\.(tsv|json)",
                name,
            )
    who = table(files["participants.tsv"]).set_index("participant_id")
    assert who.loc["sub-m1x2", "subject"] == "m_1"
    assert who.loc["sub-m1", "subject"] == "m1"
    assert who.loc["sub-m1x2", ["species", "sex", "weight_g"]].tolist() == ["mus musculus", "F", 20.5]
    assert who.loc["sub-m1", ["sex", "weight_g"]].isna().all()
    assert "label D i-R is trc-DiR" in notes
    description = json.loads(files["dataset_description.json"])
    assert description["DatasetType"] == "derivative"
    assert {"Name", "BIDSVersion", "GeneratedBy"} <= set(description)
    assert set(json.loads(files["participants.json"])) == set(who.columns)


def test_blood_of_a_radioactive_label_is_in_kbq_per_ml_and_nothing_else_is(tmp_path):
    files, _ = made_of(tmp_path, ROWS, SUBJECTS, LABELS)
    blood = [n for n in files if n.endswith("_blood.tsv")]
    assert blood == ["sub-m1x2/pet/sub-m1x2_trc-111In_recording-manual_blood.tsv"]
    found = table(files[blood[0]])
    assert found["time"].tolist() == [1800]
    assert found["whole_blood_radioactivity"].tolist() == pytest.approx([10 / 100 * 2000 * 1.06], rel=1e-12)
    sides = json.loads(files[blood[0].replace(".tsv", ".json")])
    assert (sides["WholeBloodAvail"], sides["PlasmaAvail"], sides["MetaboliteAvail"]) == (True, False, False)
    assert sides["whole_blood_radioactivity"]["Units"] == "kBq/mL"
    assert "1.06 g/mL" in sides["whole_blood_radioactivity"]["Description"]


def test_an_organ_in_two_units_has_two_columns_and_two_values_of_one_time_two_rows(tmp_path):
    values = ((1, "pct_id"), (2, "pct_id"), (3, "bq"))
    rows = [{"subject": "m", "organ": "liver", "time_h": 1, "value": v, "unit": u} for v, u in values]
    files, notes = made_of(tmp_path, rows)
    found = table(files["sub-m/pet/sub-m_trc-111In_desc-mean_tacs.tsv"])
    assert found["liver_pct_id"].tolist() == [1, 2]
    assert found["liver_bq"].dropna().tolist() == [3]
    assert any("needs a radioactive label and a dose in Bq" in n for n in notes)


def test_means_of_groups_are_told_apart(tmp_path):
    rows = [{"subject": "pooled", "organ": "liver", "time_h": 1, "value": 1, "group": g} for g in ("a", "b")]
    files, _ = made_of(tmp_path, rows)
    assert set(table(files["participants.tsv"])["participant_id"]) == {"sub-pooleda", "sub-pooledb"}


def test_hostile_text_keeps_its_cell_and_does_not_run(tmp_path):
    names = ['=HYPERLINK("x")', "a\tb\nc", "<script>", "é", "--", "A-B", "ab"]
    rows = [{"subject": n, "organ": "frame_start", "time_h": 1, "value": 1, "group": "\t=1\n"} for n in names]
    files, _ = made_of(tmp_path, rows, name="<b>\n=1")
    lines = files["participants.tsv"].decode().splitlines()
    assert len(lines) == 1 + len(names)
    assert len({line.count("\t") for line in lines}) == 1
    assert len({line.split("\t")[0].lower() for line in lines}) == 1 + len(names)
    assert not any(cell.startswith(("=", "+", "@")) for line in lines for cell in line.split("\t"))
    tacs = next(c for n, c in files.items() if n.endswith("_tacs.tsv"))
    assert tacs.decode().splitlines()[0].split("\t") == ["frame_start", "frame_end", "frame_start_pct_id"]


def test_results_without_values_are_an_empty_dataset(tmp_path):
    files, notes = made_of(tmp_path, [])
    assert len(table(files["participants.tsv"])) == 0
    assert "no participants" in notes[0]


def test_validators_are_told_which_files_are_of_a_draft(tmp_path):
    files, notes = made_of(tmp_path, ROWS, SUBJECTS, LABELS)
    assert files[".bidsignore"].decode().splitlines() == ["*_tacs.tsv", "*_tacs.json"]
    assert "draft" in notes[0]
    assert files == made_of(tmp_path, ROWS, SUBJECTS, LABELS)[0]
