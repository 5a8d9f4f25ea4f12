"""The validation page is what its script writes, and the script notices a page that lost its tables."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("write_validation", None)
    import write_validation

    return write_validation


def test_the_page_is_current(writer):
    written = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert written == writer.page(), "run python scripts/write_validation.py"


def test_every_file_of_oracles_says_against_what(writer):
    rows = writer.oracle_rows()
    assert len(rows) == len(list((ROOT / "tests" / "oracles").glob("test_*.py")))
    assert [row for row in rows if row.endswith("|  |")] == []


def test_tables_are_found_with_their_headings(writer):
    text = "# A\n\n| x |\n|---|\n| 1 |\n\n## B\n\n```\n| no |\n```\n| y |\n|---|\n\n| z |\n|---|\n"
    assert [(h, len(rows)) for h, rows in writer.tables(text, ())] == [("A", 3), ("B", 2), ("B", 2)]
    assert [h for h, _ in writer.tables(text, ("A",))] == ["A"]


def test_a_page_without_its_tables_is_refused(writer):
    with pytest.raises(ValueError, match=r"promises.md: no table under .*correct MEASURED"):
        writer.measured_lines(writer.Measured("promises.md", "x.py", "x", ("No such heading",)))


def test_every_script_and_picture_is_there(writer):
    assert [m.script for m in writer.MEASURED if not (ROOT / "benchmarks" / m.script).exists()] == []
    assert [n for n in writer.PICTURES if not (ROOT / "docs" / "pictures" / n).exists()] == []
