"""The PIXI table: the plugin's own rules, followed here as its importer states them, hold for every file that is written."""

import csv
import json
import re
from datetime import datetime

import pytest

from evbiodist.report.exports import pixi
from evbiodist.report.folder import read_results
from evbiodist.study.problems import InputError

#: The header of BiodistributionTemplate.csv of the plugin (preclinical-imaging/pixi-plugin, one column misspelt there).
TEMPLATE = (
    "subject_id,sample_type,sample_weight,sample_weight_unit,measurement_datetime,%_id_g,%_id_organ,decay_corrected_cpm,"
    "timepoint_value,timepoint_unit,experiment_datetime,note,acqusition_site,animal_weight,animal_weight_unit,"
    "animal_sacrifice_datetime,technician,tracer,isotope,diluent,injected_dose,injected_dose_unit,injection_volume,"
    "injection_volume_unit,injection_total_counts,injection_route,injection_site,injection_datetime,anesthesia,"
    "anesthesia_route,subject_group"
)
REQUIRED = (
    "subject_id",
    "sample_type",
    "%_id_g",
    "tracer",
    "experiment_datetime",
    "injection_datetime",
    "subject_group",
)
HEAD = (
    "study",
    "subject",
    "group",
    "label",
    "organ",
    "time_h",
    "value",
    "unit",
    "mass_g",
    "lloq",
    "below_lloq",
    "flags",
)


def results_of(path, rows, subjects=(), labels=None, name="s"):
    with (path / "observations.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, HEAD, restval="")
        writer.writeheader()
        writer.writerows(
            {"study": name, "group": "g", "label": "111In", "below_lloq": "no", "unit": "pct_id", **r} for r in rows
        )
    settings = {"crossval": {"organ": "brain"}, "kinetics": {"level": 0.95}}
    told = {"name": name, "settings": settings, "subjects": list(subjects), "labels": labels or {}}
    (path / "study.json").write_text(json.dumps(told))
    return read_results(path)


def imported(content, pattern="%Y-%m-%d %H:%M:%S"):
    """Read a file as the plugin does: every comma parts cells, nothing is quoted; refuse what it refuses."""
    header, *lines = [line.split(",") for line in content.decode().splitlines()]
    seen, rows = set(), []
    for line in lines:
        assert len(line) == len(header)
        row = {k: v.strip() for k, v in zip(header, line, strict=True)}
        assert all(row[c] for c in REQUIRED), row
        assert (row["subject_id"], row["sample_type"]) not in seen
        seen.add((row["subject_id"], row["sample_type"]))
        datetime.strptime(row["injection_datetime"], pattern)
        datetime.strptime(row["experiment_datetime"], pattern)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", row["subject_id"])
        rows.append(row)
    return rows


def test_columns_are_the_templates_in_its_order():
    assert ",".join(pixi.COLUMNS) == TEMPLATE


def test_values_are_those_of_the_last_time_in_percent_of_dose_per_gram(tmp_path):
    subjects = [
        {"subject": "m1", "label": "111In", "dose": 2.5, "dose_unit": "mbq", "route": "iv_bolus", "weight_g": 21.0}
    ]
    rows = [
        {"subject": "m1", "organ": "liver", "time_h": 1, "value": 99, "mass_g": 1.2},
        {"subject": "m1", "organ": "liver", "time_h": 24, "value": 30, "mass_g": 1.2},
        {"subject": "m1", "organ": "blood", "time_h": 24, "value": 0.7, "mass_g": 0.1, "unit": "pct_id_per_g"},
    ]
    results = results_of(tmp_path, rows, subjects, {"111In": {"isotope": "111In"}})
    made = pixi.export(results, {"injected": "2026-03-01T09:00"})
    blood, liver = imported(made.files["biodistribution_111In.csv"])
    assert float(liver["%_id_g"]) == 25
    assert float(liver["%_id_organ"]) == 30
    assert (float(liver["sample_weight"]), liver["sample_weight_unit"]) == (1.2, "g")
    assert (float(blood["%_id_g"]), blood["%_id_organ"]) == (0.7, "")
    assert (liver["timepoint_value"], liver["timepoint_unit"]) == ("24.0", "hours")
    assert liver["experiment_datetime"] == "2026-03-02 09:00:00"
    assert (liver["injected_dose"], liver["injected_dose_unit"], liver["animal_weight"]) == ("2.5", "mbq", "21.0")
    assert (liver["tracer"], liver["isotope"], liver["injection_route"]) == ("111In", "111In", "iv_bolus")
    assert (
        "111In: 1 values before an animal's last time were left out: PIXI keeps one value an animal and sample"
        in made.notes
    )


def test_a_measured_concentration_is_taken_before_one_computed_from_a_mass(tmp_path):
    rows = [
        {"subject": "m", "organ": "liver", "time_h": 1, "value": 30, "mass_g": 1.5},
        {"subject": "m", "organ": "liver", "time_h": 1, "value": 19, "mass_g": 1.5, "unit": "pct_id_per_g"},
    ]
    (row,) = imported(
        pixi.export(results_of(tmp_path, rows), {"injected": "2026-03-01"}).files["biodistribution_111In.csv"]
    )
    assert (float(row["%_id_g"]), float(row["%_id_organ"])) == (19, 30)


def test_without_a_date_of_injection_cells_stay_empty_and_it_is_told(tmp_path):
    made = pixi.export(
        results_of(tmp_path, [{"subject": "m", "organ": "liver", "time_h": 1, "value": 3, "mass_g": 1}]), {}
    )
    (row,) = csv.DictReader(made.files["biodistribution_111In.csv"].decode().splitlines())
    assert (row["injection_datetime"], row["experiment_datetime"]) == ("", "")
    assert "--set injected=2026-03-01T09:00" in made.notes[0]


def test_hostile_names_neither_part_cells_nor_run_nor_fall_together(tmp_path):
    names = ['=HYPERLINK("http://x"),a', "m 1", "m,1", "m.1", "M.1", 'é"', "line\nbreak", "-"]
    more = {"group": 'g, "x"\n=1', "label": "D,i"}
    rows = [{"subject": n, "organ": "liver", "time_h": 1, "value": 3, "mass_g": 1, **more} for n in names]
    made = pixi.export(results_of(tmp_path, rows, name='=s,"'), {"injected": "2026-03-01T09:00"})
    found = imported(made.files["biodistribution_D_i.csv"])
    assert len({r["subject_id"].lower() for r in found}) == len(names)
    assert {r["subject_group"] for r in found} == {"g x =1"}
    told = {
        r["subject_id"]: r["subject"]
        for r in csv.DictReader(made.files["subjects.csv"].decode().splitlines(keepends=True))
    }
    assert set(told) == {r["subject_id"] for r in found}
    assert any("subjects.csv says which" in note for note in made.notes)


def test_what_the_plugin_has_no_room_for_is_counted(tmp_path):
    rows = [
        {"subject": "m1", "organ": "liver", "time_h": 1, "value": 3},  # no mass
        {"subject": "m1", "organ": "brain", "time_h": 1, "value": "", "lloq": 1, "below_lloq": "yes", "mass_g": 1},
        {"subject": "m1", "organ": "lung", "time_h": 1, "value": 9, "unit": "au", "mass_g": 1},
        {"subject": "m1", "organ": "skin", "time_h": 1, "value": 9, "mass_g": 1},
        {"subject": "m1", "organ": "skin", "time_h": 1, "value": 8, "mass_g": 1},
        {"subject": "m1", "organ": "skin", "time_h": 1, "value": 8, "mass_g": 1, "label": "DiR"},
        {"subject": "pooled", "organ": "skin", "time_h": 1, "value": 8, "mass_g": 1},
    ]
    made = pixi.export(results_of(tmp_path, rows), {"injected": "2026-03-01"})
    assert len(imported(made.files["biodistribution_111In.csv"])) == 1
    said = " | ".join(made.notes)
    for sentence in (
        "1 means of several animals",
        "1 organs were left out: no mass",
        "1 organs were left out: below the limit",
        "1 values in other units",
        "1 values were left out: a second one",
        "1 animals carry several labels",
        "accept these sample types (its PIXI settings): skin",
    ):
        assert sentence in said


def test_nothing_to_take_is_told(tmp_path):
    made = pixi.export(results_of(tmp_path, []), {})
    assert list(made.files) == ["subjects.csv"]
    assert "nothing for PIXI to take" in made.notes[-1]


@pytest.mark.parametrize(("key", "given"), [("injected", "yesterday"), ("dates", "german")])
def test_an_option_that_is_none_is_told_with_what_was_expected(key, given, tmp_path):
    with pytest.raises(InputError, match=f"found '{key}={given}', expected"):
        pixi.export(results_of(tmp_path, []), {key: given})


def test_dates_in_the_american_way(tmp_path):
    results = results_of(tmp_path, [{"subject": "m", "organ": "liver", "time_h": 0.5, "value": 3, "mass_g": 1}])
    made = pixi.export(results, {"injected": "2026-03-01T23:45", "dates": "us"})
    (row,) = imported(made.files["biodistribution_111In.csv"], "%m/%d/%Y %H:%M:%S")
    assert row["experiment_datetime"] == "03/02/2026 00:15:00"
