"""SEND: what the transport files say is what the tables say, by outside readers; rules of PC and PP hold; bytes repeat."""

import io
import math
import re

import pandas as pd
import pyreadstat
import pytest

import evbiodist as ev
from evbiodist.kinetics.nca.parameters import PARAMETERS
from evbiodist.report.exports.send import VARIABLES, _codes
from evbiodist.report.exports.xpt import ascii_text
from evbiodist.report.folder import read_results

ODD = 'Müller "β" <b>, 5 µl'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two labels, an odd name, animals followed and animals sacrificed one by one, a zero and a value below the limit."""
    study = tmp_path_factory.mktemp("study")
    rows, subjects = [], []
    for label, factor in (("111In", 1.0), ("DiR", 1.3)):
        for i, t in enumerate((0.5, 1, 4, 24)):
            for k in (1, 2):
                name = f"{label}_{i}{k}"
                subjects.append(f"{name},{label},1e10,particles,iv_bolus,{'FM'[k - 1]},treated,22")
                value = factor * 20 * 2.0**-t * (1 + 0.1 * k)
                rows += [
                    f"{name},{label},blood,{t},{value},,pct_id_per_g,,no",
                    f"{name},{label},brain,{t},{value / 20},,pct_id,,no",
                ]
    subjects.append(f'"{ODD.replace(chr(34), chr(34) * 2)}",DiR,2e10,particles,ip,unknown,followed,25')
    odd = '"' + ODD.replace('"', '""') + '"'
    rows += [
        f"{odd},DiR,blood,{t},{v},,pct_id_per_g,{lloq},{below}"
        for t, v, lloq, below in (
            (0, 0, "", "no"),
            (1, 9, "", "no"),
            (4, 3, "", "no"),
            (8, 1, "", "no"),
            (24, "", 0.05, "yes"),
        )
    ]
    (study / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route,sex,group,weight_g\n" + "\n".join(subjects) + "\n"
    )
    (study / "observations.csv").write_text(
        "subject,label,organ,time_h,value,se,unit,lloq,below_lloq\n" + "\n".join(rows) + "\n"
    )
    (study / "study.toml").write_text(
        'name = "Study 7"\nspecies = "rat"\n[labels.DiR]\nkind = "fluorescence"\n[labels.111In]\nkind = "radioactive"\n'
        'isotope = "111In"\n[tables]\nsubjects = "subjects.csv"\nobservations = ["observations.csv"]\n'
        "[kinetics]\nmodels = []\n[crossval]\njoint = false\nleave_out = []\n"
    )
    out = tmp_path_factory.mktemp("send") / "results"
    ev.run(study, out, report=False)
    return out


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("xpt")
    paths, notes = ev.export(folder, "send", out)
    return {p.stem: p for p in paths if p.suffix == ".xpt"}, notes


def read(path):
    """Read by an outside reader."""
    return pyreadstat.read_xport(str(path))


def test_two_readers_find_the_variables_of_the_guide_in_their_order(exported):
    paths, _ = exported
    assert {"ts", "dm", "ex", "pc", "pp", "pooldef", "relrec", "supppp"} == set(paths)
    for name, path in paths.items():
        table, about = read(path)
        assert list(table.columns) == list(VARIABLES[name.upper()])
        assert about.column_names_to_labels == {k: v[:40] for k, v in VARIABLES[name.upper()].items()}
        assert about.table_name == name.upper()
        other = pd.read_sas(io.BytesIO(path.read_bytes()), format="xport", encoding="ascii")
        assert list(other.columns) == list(table.columns)
        assert len(other) == len(table)


def test_concentrations_are_the_observations(exported, folder):
    table, _ = read(exported[0]["pc"])
    seen = read_results(folder)["observations"]
    assert len(table) == len(seen)
    kept = table[table["PCSTRESN"].notna()]["PCSTRESN"].sort_values().to_numpy()
    expected = seen[seen["value"].notna() & (seen["below_lloq"] != "yes")]["value"].sort_values().to_numpy()
    assert kept == pytest.approx(expected, rel=2**-50, abs=0)
    assert sorted(float(t) for t in table["PCORRES"] if t != "BLQ") == sorted(expected)  # the text has every digit
    assert (kept == 0).sum() == (expected == 0).sum() > 0


def test_below_the_limit_is_a_word_and_never_a_number(exported):
    table, _ = read(exported[0]["pc"])
    below = table[table["PCORRES"] == "BLQ"]
    assert len(below) == 1
    assert below["PCSTRESC"].item() == "<0.05"
    assert math.isnan(below["PCSTRESN"].item())
    assert below["PCLLOQ"].item() == pytest.approx(0.05)
    assert below["PCSTAT"].item() == ""


def test_rules_of_findings(exported):
    for name in ("pc", "pp"):
        table, _ = read(exported[0][name])
        up = name.upper()
        who = table["USUBJID"] + table["POOLID"]
        assert ((table["USUBJID"] == "") != (table["POOLID"] == "")).all()  # one of the two, never both
        assert not pd.concat([who, table[f"{up}SEQ"]], axis=1).duplicated().any()
        assert table[f"{up}TESTCD"].str.fullmatch(r"[A-Z][A-Z0-9]{0,7}").all()
        assert (table[f"{up}TEST"].str.len() <= 40).all()
        assert (table.groupby(f"{up}TESTCD")[f"{up}TEST"].nunique() == 1).all()
        done = table[f"{up}STAT"] == ""
        assert (table[f"{up}ORRES"] != "").equals(done)
        assert (table.loc[~done, f"{up}STAT"] == "NOT DONE").all()
        assert (table.loc[~done, f"{up}REASND"] != "").all()
        assert table.loc[~done, f"{up}STRESN"].isna().all()
    pc, _ = read(exported[0]["pc"])
    assert pc["PCELTM"].str.fullmatch(r"PT(\d+H)?(\d+M)?(\d+S)?").all()
    assert set(pc["PCELTM"]) == {"PT0S", "PT30M", "PT1H", "PT4H", "PT8H", "PT24H"}


def test_parameters_are_those_of_the_table_with_codes_and_errors(exported, folder):
    table, _ = read(exported[0]["pp"])
    own = read_results(folder)["parameters"]
    own = own[
        (own["model"] == "nca")
        & own["parameter"].map(lambda p: bool(PARAMETERS[p].cdisc) if p in PARAMETERS else False)
    ]
    assert len(table) == len(own)
    assert sorted(table["PPSTRESN"].dropna()) == pytest.approx(sorted(own["value"].dropna()), rel=2**-50, abs=0)
    odd = table[table["USUBJID"].str.contains("Muller")]
    assert "MRTEVIFO" in set(odd["PPTESTCD"])  # given into the belly: the extravascular residence time
    assert "MRTIVIFO" not in set(odd["PPTESTCD"])
    extra, _ = read(exported[0]["supppp"])
    errors = extra[extra["QNAM"] == "PPSE"]["QVAL"].astype(float)
    assert sorted(errors) == sorted(own.loc[own["value"].notna(), "se"].dropna())


def test_animals_doses_and_pools_are_complete(exported):
    (dm, _), (ex, _), (pool, _), (pp, _) = (read(exported[0][n]) for n in ("dm", "ex", "pooldef", "pp"))
    assert dm["USUBJID"].is_unique
    assert set(ex["USUBJID"]) == set(dm["USUBJID"])
    assert set(dm["SEX"]) == {"F", "M", "U"}
    assert set(dm["SPECIES"]) == {"RAT"}
    assert set(ex["EXROUTE"]) == {"INTRAVENOUS BOLUS", "INTRAPERITONEAL"}
    assert set(pp["POOLID"]) - {""} <= set(pool["POOLID"])
    assert set(pool["USUBJID"]) <= set(dm["USUBJID"])
    assert pool.groupby("POOLID").size().tolist() == [8, 8]


def test_everything_is_ascii_and_repeats(exported, folder, tmp_path):
    again, notes = ev.export(folder, "send", tmp_path)
    for path in again:
        data = path.read_bytes()
        assert max(data) < 128 or path.suffix == ".xpt"  # numbers of transport files are binary
        assert data == exported[0].get(path.stem, path).read_bytes()
    assert any("not ASCII" in n for n in notes)
    guide = (tmp_path / "reviewers_guide.md").read_text()
    assert "No regulatory compliance is claimed" in guide
    assert "%ID/g" in guide


def test_codes_of_labels():
    assert _codes(["111In", "fluorescein A", "fluorescein B", "*", "β"]) == {
        "111In": "L111IN", "fluorescein A": "FLUORESC", "fluorescein B": "FLUORES2", "*": "LABEL", "β": "LABEL2"}  # fmt: skip
    assert ascii_text("x" * 300) == "x" * 200


def test_a_folder_without_kinetics_or_animals_is_exported_with_what_it_has(tmp_path):
    (tmp_path / "t.csv").write_text("organ,h1,h2\nliver,1,2\n")
    (tmp_path / "study.toml").write_text(
        'name = "t"\n[labels.DiR]\nkind = "fluorescence"\n[tables]\n'
        '[[tables.observations]]\nfile = "t.csv"\nlabel = "DiR"\nunit = "pct_id"\n'
    )
    from evbiodist.batch.pipeline import run_study
    from evbiodist.study.load import load_study

    run_study(load_study(tmp_path), tmp_path / "out", quantify_only=True)
    paths, notes = ev.export(tmp_path / "out", "send")
    assert {p.name for p in paths} >= {"pc.xpt", "ts.xpt"}
    assert any("sex is U" in n for n in notes)
    assert re.fullmatch(r"T-POOL\d", read(tmp_path / "out" / "exports" / "send" / "pc.xpt")[0]["POOLID"].iloc[0])
