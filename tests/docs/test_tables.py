"""The page of the cross-validation's tables says what the code writes."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("make_tables", None)
    import make_tables

    return make_tables


def test_the_page_is_current(tables):
    written = (DOCS / "crossval_tables.md").read_text(encoding="utf-8")
    assert written == tables.page(), "run python docs/make_tables.py"


def test_every_column_has_a_sentence_and_no_sentence_is_left_over(tables):
    from evbiodist.crossval.compare import TABLES

    assert set(tables.ABOUT) == set(tables.OWN) == set(TABLES)
    for table, columns in TABLES.items():
        assert [c for c in columns if not tables.meaning(table, c).endswith(".")] == []
        assert set(tables.OWN[table]) <= set(columns), table
    assert set(tables.COMMON) <= {c for columns in TABLES.values() for c in columns}
