"""ROI tables of instruments as observations of a study: named regions, units, decay and dose, or every gap in words."""

import tomllib

import numpy as np
import pytest
import tomli_w

import evbiodist as ev
from evbiodist.batch.pipeline import check
from evbiodist.io.registry import read_table
from evbiodist.study.flags import split
from evbiodist.study.load import load_study
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError

LIVING = ("Image Number,ROI,Image Layer,ROI Label,Total Flux [p/s],Avg Radiance [p/s/cm2/sr],subject,time_h\n"
          "AB20240305110000_001,ROI 1,Overlay,,1.5e+06,2e+04,m1,0.5\n"
          "AB20240305110000_001,ROI 2,Overlay,,2.5e+05,2e+03,m1,0.5\n"
          "AB20240305110000_001,Bkg 1,Overlay,,1e+03,1e+01,m1,0.5\n"
          "AB20240306110000_001,ROI 1,Overlay,,4e+05,5e+03,m1,24\n")  # fmt: skip
PMOD = ("// VoiName(Region) [string]\tTime [seconds]\tAveraged [kBq/cc]\tVolume [ccm]\n"
        "VOI 1\t1800\t40\t1.2\nVOI 2\t1800\t10\t0.5\nVOI 1\t7200\t30\t1.2\nVOI 2\t7200\t5\t0.5\n")  # fmt: skip
HALF_H = 1.83


def study(folder, table, name, *, label=None, dose=(4e6, "bq"), animal="m1", **source):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(table)
    (folder / "subjects.csv").write_text(
        f"subject,label,dose,dose_unit,route\n{animal},x,{dose[0]},{dose[1]},iv_bolus\n"
    )
    document = {
        "name": "tables",
        "labels": {"x": label or {"kind": "bioluminescence", "emission_nm": 600}},
        "tables": {"subjects": "subjects.csv", "observations": [{"file": name, "label": "x", **source}]},
        "kinetics": {"models": []},
    }
    (folder / "study.toml").write_text(tomli_w.dumps(document))
    return folder


def run(folder):
    result = ev.run(folder, folder.parent / f"out_{folder.name}", report=False)
    return {(r["organ"], round(r["time_h"], 6)): r for r in result.observations}, result


NAMES = {"ROI 1": "Livers", "ROI 2": "brain"}


def test_numbered_rois_of_living_image_are_organs_by_the_study_s_names(tmp_path):
    rows, result = run(study(tmp_path / "s", LIVING, "rois.csv", rois=NAMES, group="a", dose=(1e10, "particles")))
    assert {k: r["value"] for k, r in rows.items()} == {
        ("liver", 0.5): 1.5e6,
        ("brain", 0.5): 2.5e5,
        ("liver", 24.0): 4e5,
    }
    for row in rows.values():
        assert (row["unit"], row["subject"], row["label"], row["se"]) == ("p_per_s", "m1", "x", None)
        assert "no_se" in split(row["flags"])
    assert any("Bkg 1" in note for note in result.notes)


VOIS = {"VOI 1": "liver", "VOI 2": "spleen"}


@pytest.mark.parametrize("corrected", [True, False])
def test_activity_of_pmod_becomes_a_share_of_the_dose(tmp_path, corrected):
    label = {"kind": "radioactive", "half_life_h": HALF_H}
    folder = study(tmp_path / "s", PMOD, "m1.voistat", label=label, rois=VOIS, subject="m1", decay_corrected=corrected)
    rows, _ = run(folder)
    means = {("liver", 0.5): 40 * 1.2, ("spleen", 0.5): 10 * 0.5, ("liver", 2.0): 30 * 1.2, ("spleen", 2.0): 5 * 0.5}
    assert set(rows) == set(means)
    for (organ, time), kbq in means.items():
        row = rows[organ, time]
        later = 1.0 if corrected else 2 ** (time / HALF_H)
        assert row["unit"] == "pct_id"
        assert row["value"] == pytest.approx(100 * 1000 * kbq * later / 4e6, rel=1e-12)
        assert ("decay_corrected" in split(row["flags"])) is not corrected


def test_two_tables_of_different_programs_make_one_study(tmp_path):
    folder = study(tmp_path / "s", LIVING, "rois.csv", rois=NAMES)
    (folder / "m1.voistat").write_text(PMOD)
    document = tomllib.loads((folder / "study.toml").read_text())
    document["labels"]["zr"] = {"kind": "radioactive", "half_life_h": HALF_H}
    document["tables"]["observations"].append({"file": "m1.voistat", "label": "zr", "subject": "m1", "rois": VOIS})
    (folder / "study.toml").write_text(tomli_w.dumps(document))
    with (folder / "subjects.csv").open("a") as subjects:
        subjects.write("m1,zr,4e6,bq,iv_bolus\n")
    assert check(load_study(folder)) == []
    result = ev.run(folder, tmp_path / "out", report=False)
    found = {(r["label"], r["organ"], r["unit"]) for r in result.observations}
    assert found == {
        ("x", "liver", "p_per_s"),
        ("x", "brain", "p_per_s"),
        ("zr", "liver", "pct_id"),
        ("zr", "spleen", "pct_id"),
    }


@pytest.mark.parametrize(
    ("table", "name", "rois", "words"),
    [
        (LIVING, "rois.csv", {}, "ROI 1"),
        (LIVING, "rois.csv", {"ROI 1": "liver"}, "ROI 2"),
        (LIVING, "rois.csv", {"ROI 1": "liver", "Region 2": "brain"}, "ROI 2"),
        (LIVING.replace(",time_h", ",when"), "rois.csv", NAMES, "time_h"),
        (LIVING.replace(",m1,", ",m9,"), "rois.csv", NAMES, "an animal of subjects.csv"),
        (PMOD, "m1.voistat", {"VOI 1": "liver"}, "VOI 2"),
        (PMOD.replace("kBq/cc", "SUV"), "m1.voistat", VOIS, "m1.voistat"),
    ],
)
def test_regions_times_and_animals_that_nobody_named_are_asked_for(tmp_path, table, name, rois, words):
    problems = check(load_study(study(tmp_path / "s", table, name, rois=rois)))
    assert any(p.fatal for p in problems)
    assert words in " ".join(map(str, problems))
    with pytest.raises(InputError):
        ev.run(tmp_path / "s", tmp_path / "out", report=False)
    assert not (tmp_path / "out" / "observations.csv").exists()


def test_names_of_regions_are_organs(tmp_path):
    folder = study(tmp_path / "s", LIVING, "rois.csv", rois={**NAMES, "ROI 2": "???"})
    with pytest.raises(InputError, match="the name of an organ"):
        load_study(folder)


def test_a_unit_that_the_table_does_not_hold_is_refused(tmp_path):
    problems = check(load_study(study(tmp_path / "s", LIVING, "rois.csv", rois=NAMES, unit="bq")))
    assert any("unit p_per_s" in str(p) for p in problems)


def test_the_reader_is_chosen_by_what_the_table_holds(tmp_path):
    (tmp_path / "odd.txt").write_text(LIVING)
    (tmp_path / "pmod.csv").write_text(PMOD)
    (tmp_path / "own.csv").write_text("subject,label,organ,time_h,value,unit\nm1,x,liver,1,5,pct_id\n")
    living = read_table(tmp_path / "odd.txt", ObservationSource(file="odd.txt", label="x", rois=NAMES))
    pmod = read_table(tmp_path / "pmod.csv", ObservationSource(file="pmod.csv", label="x", rois=VOIS))
    own = read_table(tmp_path / "own.csv", ObservationSource(file="own.csv"))
    assert [t.rows[0].unit for t in (living, pmod, own)] == ["p_per_s", "bq", "pct_id"]
    assert [t.layout for t in (living, pmod)] == ["Living Image", "PMOD VOI statistics"]
    assert np.sum([len(t.rows) for t in (living, pmod, own)]) == 3 + 4 + 1
