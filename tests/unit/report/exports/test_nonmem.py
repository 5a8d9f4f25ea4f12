"""Data sets of individuals: NM-TRAN's rules hold, values are those of the table, an outside reader takes set and model."""

import csv
import math
import shutil

import pytest

import evbiodist as ev
from evbiodist.report.exports.nonmem import MONOLIX, NONMEM
from evbiodist.report.folder import read_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Animals followed after a bolus or an infusion, one value below the limit, two labels in one animal, odd names."""
    study = tmp_path_factory.mktemp("study")
    rows, subjects = [], []
    for name, label, sex, hours in (
        ("=b", "DiR", "F", ""),
        ("a, x", "DiR", "M", "0.5"),
        ("a, x", "111In", "M", "0.5"),
        ("c", "DiR", "unknown", ""),
    ):
        route = "iv_infusion" if hours else "iv_bolus"
        subjects.append(
            f'"{name}",{label},1e10,particles,{route},{hours},{sex},treated & "old",22'.replace('"old"', "old")
        )
        for t in (0.25, 1, 4, 8, 24):
            value, below = (18 * 2.0**-t + 4 * 2 ** (-t / 20), "no") if not (name == "c" and t == 24) else ("", "yes")
            rows.append(f'"{name}",{label},blood,{t},{value},,pct_id_per_g,0.01,{below}')
            rows.append(f'"{name}",{label},liver,{t},{t / 3},,pct_id,,no')
    (study / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route,infusion_h,sex,group,weight_g\n" + "\n".join(subjects) + "\n"
    )
    (study / "observations.csv").write_text(
        "subject,label,organ,time_h,value,se,unit,lloq,below_lloq\n" + "\n".join(rows) + "\n"
    )
    (study / "study.toml").write_text(
        'name = "s"\n[labels.DiR]\nkind = "fluorescence"\n[labels.111In]\nkind = "radioactive"\nisotope = "111In"\n'
        '[tables]\nsubjects = "subjects.csv"\nobservations = ["observations.csv"]\n'
        '[kinetics]\nmodels = ["two_compartment_iv"]\n[crossval]\njoint = false\nleave_out = []\n'
    )
    out = tmp_path_factory.mktemp("nonmem") / "results"
    ev.run(study, out, report=False)
    return out


def read(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def data_of(folder, form, out):
    paths, notes = ev.export(folder, form, out)
    lines = (out / "data.csv").read_text().splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]], notes, {p.name for p in paths}


def test_every_item_is_a_number_or_a_full_stop_in_nm_trans_order(folder, tmp_path):
    rows, _, _ = data_of(folder, "nonmem", tmp_path)
    assert list(rows[0]) == list(NONMEM)
    assert rows
    for r in rows:
        for text in r.values():
            assert text == "." or math.isfinite(float(text))
            assert len(text) <= 24  # the width of an item
    ids = [int(r["ID"]) for r in rows]
    assert ids == sorted(ids)  # an individual's records stand together
    assert set(ids) == {1, 2, 3, 4}
    for i in set(ids):
        mine = [r for r in rows if int(r["ID"]) == i]
        times = [float(r["TIME"]) for r in mine]
        assert times == sorted(times)
        assert [r["EVID"] for r in mine] == ["1"] + ["0"] * 10
        assert mine[0]["AMT"] == "100.0"
        assert mine[0]["MDV"] == "1"
        assert {r["AMT"] for r in mine[1:]} == {"."}
        assert len({(r["SEX"], r["WT"], r["GROUP"]) for r in mine}) == 1


def test_values_infusions_and_limits_are_those_of_the_study(folder, tmp_path):
    rows, _, _ = data_of(folder, "nonmem", tmp_path)
    who = {r["ID"]: r for r in read(tmp_path / "ids.csv")}
    assert sorted(r["subject"] for r in who.values()) == ["'=b", "a, x", "a, x", "c"]  # a spreadsheet runs nothing
    codes = {r["code"]: r for r in read(tmp_path / "dictionary.csv") if r["column"] == "DVID"}
    seen = read_results(folder)["observations"].set_index(["subject", "label", "organ", "time_h"])["value"]
    below = 0
    for r in rows:
        animal, label = who[r["ID"]]["subject"].lstrip("'"), who[r["ID"]]["label"]
        if r["EVID"] == "1":
            assert float(r["RATE"]) == (200.0 if animal == "a, x" else 0.0)
        elif r["BLQ"] == "1":
            assert (r["DV"], r["LLOQ"], r["MDV"]) == ("0.01", "0.01", "0")
            below += 1
        else:
            assert codes[r["DVID"]]["name"] == label
            assert float(r["DV"]) == seen[animal, label, codes[r["DVID"]]["organ"], float(r["TIME"])]
    assert below == 1


def test_the_control_stream_starts_from_the_fit_and_names_the_set_s_columns(folder, tmp_path):
    _, _, names = data_of(folder, "nonmem", tmp_path)
    assert {"model.ctl", "model.csv"} <= names
    text = (tmp_path / "model.ctl").read_text()
    assert f"$INPUT {' '.join(NONMEM)}" in text
    table = read_results(folder)["parameters"]
    fit = table[(table["model"] == "two_compartment_iv") & (table["parameter"] == "cl")]["value"].iloc[0]
    assert f"$THETA (0,{fit:.6g}) ; CL" in text
    kept = read(tmp_path / "model.csv")
    assert len({r["DVID"] for r in kept} - {"."}) == 1


def test_an_outside_reader_takes_model_and_data(folder, tmp_path):
    """Pharmpy reads control streams and data sets by NM-TRAN's rules."""
    modeling = pytest.importorskip(
        "pharmpy.modeling", reason="pharmpy-core is not installed (it brings a gigabyte with it)"
    )
    rows, _, _ = data_of(folder, "nonmem", tmp_path)
    model = modeling.read_model(tmp_path / "model.ctl")
    assert list(model.dataset.columns) == list(NONMEM)
    kept = [float(r["DV"]) for r in rows if r["EVID"] == "0" and r["DVID"] == "2" and r["BLQ"] == "0"]
    taken = modeling.get_observations(model).tolist()
    assert taken in (kept, [float(r["DV"]) for r in rows if r["EVID"] == "0" and r["DVID"] == "1" and r["BLQ"] == "0"])


def test_monolix_has_censored_values_infusion_times_and_its_column_types(folder, tmp_path):
    rows, _, _ = data_of(folder, "monolix", tmp_path)
    assert list(rows[0]) == list(MONOLIX)
    types = {r["column"]: r["type"] for r in read(tmp_path / "columns.csv")}
    assert types["YTYPE"] == "observation id"
    assert {r["TINF"] for r in rows if r["AMT"] != "."} == {"0.5", "."}
    censored = [r for r in rows if r["CENS"] == "1"]
    assert [(r["Y"], r["LIMIT"]) for r in censored] == [("0.01", "0")]
    assert {r["GROUP"] for r in rows} == {"treated___old"}


def test_means_of_several_animals_are_told_and_left_out(tmp_path):
    from evbiodist.sample import sample_data

    study = shutil.copytree(sample_data() / "organ_tables" / "125I_TAP1", tmp_path / "study")
    ev.run(study, tmp_path / "out", report=False)
    rows, notes, names = data_of(tmp_path / "out", "nonmem", tmp_path / "set")
    assert rows == []
    assert "model.ctl" not in names
    assert any("means of several animals" in n for n in notes)
    assert any("no control stream" in n for n in notes)
