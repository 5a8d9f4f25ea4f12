"""Laws of study.toml and its tables: whatever stands in a cell or a key gives a study or named problems, never anything else."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evbiodist.io.organ_tables import OrganTable
from evbiodist.io.registry import read_table
from evbiodist.study.load import load_study
from evbiodist.study.model import OBSERVATION_COLUMNS, Mass, ScanRecord, Study, Subject
from evbiodist.study.problems import InputError
from evbiodist.study.tables import escape_cell

TOML: dict[str, Any] = {
    "name": "s", "species": "mouse", "description": "d", "source": "x", "simulated": False,
    "labels": {"DiR": {"kind": "fluorescence", "emission_nm": 780, "excitation_nm": 745},
               "In": {"kind": "radioactive", "isotope": "111In", "half_life_h": 67.3}},
    "tables": {"subjects": "subjects.csv", "scans": "scans.csv", "masses": "masses.csv",
               "observations": [{"file": "observations.csv", "label": "DiR", "unit": "pct_id", "n": 3, "group": "all",
                                 "dose": 1.0, "dose_unit": "particles", "rois": {"ROI 1": "liver"}}]},
    "imaging": {"footprint": "roi", "psf_fwhm_mm": 1.5, "tray": [["liver", "brain"]], "organ_labels": {"1": "liver"},
                "outline": {"shift_sd_mm": 0.2, "grow_sd_mm": 0.1, "draws": 40},
                "standard": {"organ": "standard", "pct_of_dose": 10.0}},
    "corrections": {"decay": True, "vessel_blood": "keep"},
    "kinetics": {"max_extrap_pct": 20.0, "models": ["two_compartment_iv"], "partial": [[0.0, 4.0]], "fixed": {"k12": 0.1},
                 "level": 0.95, "lambda_z": [{"label": "DiR", "organ": "blood", "times_h": [1, 4, 24], "why": "seen"}]},
    "crossval": {"organ": "brain", "controls": {"all": "vesicles"}, "leave_out": ["label"], "next_animals": 4},
    "vesicles": {},
}  # fmt: skip
ROWS = {
    "subjects.csv": (tuple(Subject.model_fields), [
        {"subject": "001", "label": "DiR", "dose": "1e10", "dose_unit": "particles", "route": "iv_bolus", "sex": "F"},
        {"subject": "NA", "label": "In", "dose": "5e6", "dose_unit": "Bq", "route": "iv_bolus", "weight_g": "22.5"}]),
    "scans.csv": (tuple(ScanRecord.model_fields), [
        {"scan": "s1", "subject": "001", "label": "DiR", "time_h": "0.5", "kind": "in_vivo", "file": "a.tif"},
        {"scan": "s2", "subject": "NA", "label": "In", "time_h": "24", "kind": "ex_vivo", "file": "b.tif"}]),
    "masses.csv": (tuple(Mass.model_fields), [{"subject": "001", "organ": "liver", "mass_g": "1.2"},
                                              {"subject": "NA", "organ": "brain", "mass_g": "0.4"}]),
    "observations.csv": (OBSERVATION_COLUMNS, [
        {"subject": "001", "label": "DiR", "organ": "blood", "time_h": "0.5", "value": "20", "se": "0.1", "unit": "pct_id"},
        {"subject": "NA", "label": "In", "organ": "brain", "time_h": "4", "value": "0.5", "sd": "1", "n": "3", "unit": "pct_id"}]),
}  # fmt: skip
FILES = {"study.toml", *ROWS}
ODD = st.sampled_from([
    "", "0", "-1", "1e309", "-1e309", "NaN", "nan", "inf", "-inf", "1e-320", "9" * 400, "9" * 5000, "1,5", "1.234,5", "0x10",
    "1_000", "１２", "- 1", "true", "yes", "None", "NA", "null", "=1+1", "@x", "-1.5", "'=1", "../x", "/etc/x", "C:\\x", "~", "\0",
    "a\nb", "a\r\nb", '"', '""', "'", "\ufeff", "\u202e", "\u2028", "\x85", "\x1b[31m", "a" * 300, "x" * 140_000, "$^_\\{}", "<b>",
    "%s%n", ";", ";;", "a;b", ",", "\t", "#", "liver", "Liver ", "blood", "001", "DiR", "subject", "111In", "Bq", "kBq/mL",
    "9**9**9", "__import__('os')"])  # fmt: skip
TEXT = st.one_of(ODD, st.text(max_size=20))
CELLS = st.sampled_from([(file, row, column) for file, (columns, rows) in ROWS.items() for column in columns
                         for row in range(len(rows))])  # fmt: skip
VALUES = st.recursive(
    st.one_of(TEXT.filter(lambda t: len(t) < 6000), st.integers(), st.floats(), st.booleans(), st.datetimes(), st.dates(), st.times(),
              st.sampled_from([0, -1, 10**30, 1e308, -0.0])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=5)  # fmt: skip


def paths(table: Any, lead: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of study.toml where a value stands, from the outside in."""
    inside = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [place for key, value in inside for place in ((*lead, key), *paths(value, (*lead, key)))]


def put(table: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The same tables with another value at one place."""
    if not place:
        return value
    if isinstance(table, dict):
        return {k: put(v, place[1:], value) if k == place[0] else v for k, v in table.items()}
    return [put(v, place[1:], value) if i == place[0] else v for i, v in enumerate(table)]


def table_text(file: str, change: dict[tuple[int, str], str], delimiter: str = ",") -> str:
    columns, rows = ROWS[file]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows([change.get((i, c), row.get(c, "")) for c in columns] for i, row in enumerate(rows))
    return buffer.getvalue()


def parsed(**given: str | bytes) -> tuple[Study | None, list[OrganTable], tuple[Any, ...]]:
    """Load a study of which some files are replaced, with its observations; and what problems it has."""
    texts = {"study.toml": tomli_w.dumps(TOML), **{file: table_text(file, {}) for file in ROWS}}
    texts |= {name.replace("__", "."): text for name, text in given.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        study, tables = None, []
        try:
            study = load_study(folder)
            tables = [read_table(study.root / s.file, s) for s in study.observation_sources]
        except InputError as err:
            return study, tables, err.problems or ("an error without a problem",)
        return study, tables, ()


def test_the_base_is_a_study() -> None:
    study, tables, problems = parsed()
    assert problems == ()
    assert study is not None
    assert [len(t.rows) for t in tables] == [2]


@settings(deadline=None, max_examples=200)
@given(CELLS, TEXT, st.sampled_from(",;\t"))
@example(("subjects.csv", 0, "dose"), "1e309", ",")
@example(("masses.csv", 1, "mass_g"), "0,4", ";")
def test_any_text_in_any_cell_is_a_study_or_a_problem_of_a_place(
    cell: tuple[str, int, str], text: str, delimiter: str
) -> None:
    file, row, column = cell
    study, _, problems = parsed(**{file.replace(".", "__"): table_text(file, {(row, column): text}, delimiter)})
    assert study is not None or problems
    for problem in problems:
        assert problem.file in FILES
        assert problem.row is not None or problem.field is not None or problem.found == "binary data"
        assert problem.row is None or 2 <= problem.row <= 3 + text.count("\n") + text.count("\r")
        assert len(str(problem)) > 20
    if "\0" in text:
        assert {p.file for p in problems} == {file}


@settings(deadline=None, max_examples=250)
@given(st.sampled_from(paths(TOML)), VALUES)
@example(("labels", "DiR", "emission_nm"), float("nan"))
@example(("tables", "observations", 0, "file"), "\0")
@example(("imaging", "organ_labels", "1"), [])
@example(("labels",), {"": {}})
def test_any_value_of_any_key_is_a_study_or_a_problem_of_a_key(place: tuple[Any, ...], value: Any) -> None:
    study, _, problems = parsed(study__toml=tomli_w.dumps(put(TOML, place, value)))
    assert study is not None or problems
    for problem in problems:
        assert problem.file in FILES
        assert problem.row is not None or problem.field is not None
        assert len(str(problem)) > 20


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(FILES)), st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_bytes_in_place_of_a_file_are_a_study_or_problems(file: str, content: bytes | str) -> None:
    study, _, problems = parsed(**{file.replace(".", "__"): content})
    assert study is not None or problems
    assert {p.file for p in problems} <= FILES


@settings(deadline=None, max_examples=60)
@given(st.one_of(
    st.sampled_from(["01", "1", "1.0", "N/A", "None", "nan", "NULL", "TRUE", "1e5", "0x10", "1_000", "-0", "=1+1", "#N/A", "１",
                     "07-08"]),
    st.text(st.characters(exclude_characters="\r\n\0;", exclude_categories=["Cs"]), min_size=1, max_size=12)
    .filter(lambda t: t == t.strip() and t.strip("\ufeff") == t and not t.startswith("'") and t not in {"001", "NA"})))  # fmt: skip
def test_ids_stay_the_text_that_was_written(name: str) -> None:
    """reliability.md: pandas turns group NA into nothing and id 001 into 1."""
    shown = escape_cell(name)
    study, tables, problems = parsed(
        subjects__csv=table_text("subjects.csv", {(0, "subject"): shown, (0, "group"): shown, (0, "batch"): shown}),
        scans__csv=table_text("scans.csv", {(0, "subject"): shown, (0, "scan"): shown}),
        masses__csv=table_text("masses.csv", {(0, "subject"): shown}),
        observations__csv=table_text("observations.csv", {(0, "subject"): shown, (0, "group"): shown}),
    )
    assert problems == ()
    assert study is not None
    first = study.subjects[0]
    assert (first.subject, first.group, first.batch) == (name, name, name)
    assert (study.scans[0].scan, study.scans[0].subjects, study.masses[0].subject) == (name, (name,), name)
    assert (tables[0].rows[0].subject, tables[0].rows[0].group) == (name, name)


@pytest.mark.parametrize("file", sorted(ROWS))
def test_ids_of_the_base_stay_text(file: str) -> None:
    study, tables, _ = parsed()
    assert study is not None
    read = {"subjects.csv": study.subjects, "scans.csv": study.scans, "masses.csv": study.masses,
            "observations.csv": tables[0].rows}[file]  # fmt: skip
    assert [r.subject for r in read] == ["001", "NA"]
