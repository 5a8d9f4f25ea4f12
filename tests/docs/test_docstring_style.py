"""Our docstrings as mkdocstrings reads them: one entry a name, sentences after a section stay sentences."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def numpy_style(monkeypatch):
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("docstring_style", None)
    from docstring_style import numpy_style

    return numpy_style


HEAD = "Do it.\n\nParameters\n----------\n"


def test_several_names_share_what_is_said(numpy_style):
    assert numpy_style(HEAD + "a, b : numbers,\n    finite.\nc : one.") == (
        HEAD + "a\n    numbers,\n    finite.\nb\n    numbers,\n    finite.\nc\n    one."
    )


def test_a_sentence_after_what_is_raised_is_no_exception(numpy_style):
    text = "Do it.\n\nRaises\n------\nValueError : no name.\n\nSee the page for an example."
    assert numpy_style(text).endswith("ValueError\n    no name.\n\nNotes\n-----\nSee the page for an example.")


def test_prose_and_examples_stay(numpy_style):
    text = "Do it : twice.\n\nMore : words.\n\nExamples\n--------\n>>> x : int = 1\nname : left alone"
    assert numpy_style(text) == text


def test_what_mkdocstrings_reads_is_what_the_signature_says(numpy_style):
    import griffe

    source = 'def f(a: int = 1, b: str = "x") -> float:\n    """Do.\n\n    Parameters\n    ----------\n    a, b : of all.\n    """\n'
    with griffe.temporary_visited_module(source) as module:
        docstring = module["f"].docstring
        docstring.value = numpy_style(docstring.value)
        entries = docstring.parse("numpy")[1].value
    assert [(e.name, str(e.annotation), e.default, e.description) for e in entries] == [
        ("a", "int", "1", "of all."),
        ("b", "str", "'x'", "of all."),
    ]
