"""The page of the cross-validation's tables says what the code writes."""

import re
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


def test_the_figures_of_the_worlds_are_those_of_the_code():
    from evbiodist.crossval.joint.hypotheses import BEFOREHAND, FAITHFUL, MISREADING

    text = (DOCS / "crossval.md").read_text(encoding="utf-8")
    found = {m[0]: (m[1], m[2]) for m in re.findall(r"^\| `(\w+)`(?:, 1/h)? \| (.*?) \| (.*?) \|$", text, re.M)}
    said = {
        k: tuple(f"{r.median:g} ({r.low:g} to {r.high:.3g})" for r in (FAITHFUL[k], MISREADING[k])) for k in FAITHFUL
    }
    assert {k: found[k] for k in FAITHFUL} == said
    column = re.findall(r"^\| [a-z ]+ \| (0\.\d+) \|", text, re.M)
    assert sorted(map(float, column)) == sorted(BEFOREHAND.values())


def test_the_control_groups_are_those_of_the_code():
    from evbiodist.crossval.joint.arms import CONTROL_GROUPS

    text = (DOCS / "crossval.md").read_text(encoding="utf-8").partition("## Controls")[2].partition("```")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.M)
    named = [re.findall(r"`(\w+)`", row) for row in rows]
    assert sorted(name for row in named for name in row) == sorted(CONTROL_GROUPS)
    assert all(len({CONTROL_GROUPS[name] for name in row}) == 1 for row in named)
