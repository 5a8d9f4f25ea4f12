"""The export: one tidy table, splits by study, a dictionary of every column, and a datasheet that says what to mind."""

import csv

import duckdb
import pandas as pd
import pytest
from made_studies import animals, row, study

from evbiodist.library.export import SPLIT_COLUMNS, Splits, dictionary, export
from evbiodist.library.query import Filters, select
from evbiodist.library.store import add, contents


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    lib = tmp_path_factory.mktemp("lib")
    for i in range(12):
        add(lib, study(f"study {i}", animals([1.0 + i / 7, 2.0 + i, 3.0 + i]), simulated=i == 3))
    add(lib, study("=cmd|' /C calc'!A0", [row(value=-1.5, subject="@x", source="+y")]))
    return contents(lib).current


def read(path):
    with duckdb.connect() as con:
        got = con.execute("SELECT * FROM read_parquet(?)", [str(path)])
        return pd.DataFrame(got.fetchall(), columns=[c[0] for c in got.description])


def test_the_tidy_table_is_the_library_s_with_splits(parts, tmp_path):
    done = export(parts, tmp_path / "out")
    frame = read(tmp_path / "out" / "observations.parquet")
    assert list(frame.columns[:3]) == list(SPLIT_COLUMNS)
    assert [tuple(r) for r in frame.drop(columns=list(SPLIT_COLUMNS)).astype(object).where(frame.notna(), None).to_numpy()] == [
        tuple(r) for r in select(parts, Filters()).rows]  # fmt: skip
    assert (done.rows, done.studies) == (len(frame), 13)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in done.files)


def test_no_study_lies_in_two_splits(parts, tmp_path):
    export(parts, tmp_path / "out")
    frame = read(tmp_path / "out" / "observations.parquet")
    for column in SPLIT_COLUMNS:
        assert frame.groupby("study")[column].nunique().eq(1).all()
    assert frame["left_out_as"].nunique() == 13
    assert set(frame["fold"]) <= set(range(5))
    assert set(frame["split"]) <= {"train", "validation", "test"}


def test_csv_has_the_same_rows_and_no_live_formula(parts, tmp_path):
    export(parts, tmp_path / "out")
    with (tmp_path / "out" / "observations.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    frame = read(tmp_path / "out" / "observations.parquet")
    assert [float(r["value"]) for r in rows] == frame["value"].tolist()
    hostile = next(r for r in rows if "calc" in r["study"])
    assert (hostile["study"][:2], hostile["subject"], hostile["source"], hostile["value"]) == (
        "'=",
        "'@x",
        "'+y",
        "-1.5",
    )
    assert "=cmd" not in (tmp_path / "out" / "studies.csv").read_text().replace("'=cmd", "")


def test_every_column_is_explained(parts, tmp_path):
    export(parts, tmp_path / "out")
    explained = [r["column"] for r in dictionary()]
    assert explained == list(read(tmp_path / "out" / "observations.parquet").columns)
    assert all(r["what"] for r in dictionary())
    assert {r["type"] for r in dictionary()} == {"text", "number", "whole number", "yes or no"}


def test_the_datasheet_warns(parts, tmp_path):
    done = export(parts, tmp_path / "out", Filters(study=("study 1", "study 3")))
    assert any("studies are few for a split by hash" in note for note in done.notes)
    assert "simulated, not measured: study 3" in done.notes
    text = (tmp_path / "out" / "DATASHEET.md").read_text()
    assert "6 values of 2 studies" in text
    assert "never split by rows" in text
    export(parts, tmp_path / "all")
    assert "| =cmd\\|' /C calc'!A0 |" in (tmp_path / "all" / "DATASHEET.md").read_text()


def test_the_same_export_has_the_same_bytes(parts, tmp_path):
    one, two = export(parts, tmp_path / "1"), export(parts, tmp_path / "2")
    again = export(parts, tmp_path / "1")
    for a, b, c in zip(one.files, two.files, again.files, strict=True):
        assert a.read_bytes() == b.read_bytes() == c.read_bytes()


def test_studies_that_share_values_are_told_of(tmp_path):
    many = [row(o, 1.0, 1.1 + i) for i, o in enumerate(("liver", "lung", "spleen", "brain"))]
    add(tmp_path / "lib", study("first", many))
    add(tmp_path / "lib", study("second", many[:3]))
    done = export(contents(tmp_path / "lib").current, tmp_path / "out")
    assert any(note.startswith("3 values of 'first' and 'second' are the same") for note in done.notes)


def test_what_cannot_be_exported_is_a_sentence(parts, tmp_path):
    with pytest.raises(ValueError, match="no row of the library is left to export"):
        export(parts, tmp_path / "out", Filters(organ=("tail",)))
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files \(mine.txt\); choose a new or empty folder"):
        export(parts, tmp_path)
    with pytest.raises(ValueError, match="folds: found 1, expected 2 or more"):
        Splits(folds=1)
    with pytest.raises(
        ValueError, match=r"test and validation: found 0.8 and 0.3, expected shares of less than 1 together"
    ):
        Splits(test=0.8, validation=0.3)
