"""Published schemas: up to date, and they take what the readers take and refuse what the readers refuse."""

import csv
import importlib.util
import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from evbiodist.sample import sample_data
from evbiodist.study.load import load_study
from evbiodist.study.schemas import for_cells, schema

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(p.name.removesuffix(".schema.json") for p in (ROOT / "evbiodist" / "data" / "schemas").iterdir())
STUDIES = sorted(p.parent for p in sample_data().rglob("study.toml"))


def test_every_table_of_a_study_and_of_the_results_has_one():
    from evbiodist.report.exports.columns import columns

    assert set(NAMES) == {"study", "masses", *columns()}


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_schemas_and_current(name):
    spec = importlib.util.spec_from_file_location("write_schemas", ROOT / "scripts" / "write_schemas.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    Draft202012Validator.check_schema(schema(name))
    published = (ROOT / "evbiodist" / "data" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    assert published == script.texts()[f"{name}.schema.json"], "run python scripts/write_schemas.py"


@pytest.mark.parametrize("study", STUDIES, ids=lambda p: p.name)
def test_sample_studies_are_valid(study):
    document = tomllib.loads((study / "study.toml").read_text(encoding="utf-8"))
    assert [
        e.message for e in Draft202012Validator(schema("study")).iter_errors(json.loads(json.dumps(document)))
    ] == []
    known = load_study(study)
    for name in ("subjects", "scans", "masses"):
        path = study / str(document["tables"].get(name))
        if path.is_file():
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            assert len(rows) == len(getattr(known, name))
            check = Draft202012Validator(schema(name))
            assert [e.message for row in rows for e in check.iter_errors(for_cells(row))] == []


@pytest.mark.parametrize(
    ("name", "row", "about"),
    [
        ("subjects", {"subject": "a", "label": "x", "dose": "-1", "dose_unit": "bq", "route": "iv_bolus"}, "-1"),
        ("subjects", {"subject": "a", "label": "x", "dose": "1", "dose_unit": "bq", "route": "by mouth"}, "by mouth"),
        ("scans", {"scan": "a", "subject": "x", "label": "l", "time_h": "1", "kind": "video", "file": "f"}, "video"),
        ("masses", {"subject": "a", "organ": "liver", "mass_g": "1", "color": "red"}, "color"),
        (
            "observations",
            {"subject": "a", "label": "l", "organ": "liver", "time_h": "1", "value": "1", "unit": "kg"},
            "kg",
        ),
    ],
)
def test_wrong_rows_are_refused(name, row, about):
    errors = [e.message for e in Draft202012Validator(schema(name)).iter_errors(for_cells(row))]
    assert any(about in text for text in errors)


def test_rows_of_a_run_are_valid(small_results):
    from evbiodist.report.exports.columns import tables_of
    from evbiodist.report.folder import read_results

    for name, table in tables_of(read_results(small_results)).items():
        if name not in ("subjects", "scans", "observations"):
            check = Draft202012Validator(schema(name))
            rows = json.loads(table.head(40).to_json(orient="records"))
            assert [e.message for row in rows for e in check.iter_errors(row)] == [], name


def test_unknown_keys_of_a_study_are_refused():
    wrong = {"name": "s", "labels": {"DiR": {}}, "tables": {}, "kinetics": {"metod": "linear"}}
    assert any("metod" in e.message for e in Draft202012Validator(schema("study")).iter_errors(wrong))
    with pytest.raises(ValueError, match="there is no schema 'scan'; did you mean 'scans'"):
        schema("scan")
