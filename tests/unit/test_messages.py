"""Every sentence that a user may meet, looked at as a set: none is empty, ends twice, or shows Python instead of words."""

import ast
import re
from pathlib import Path

import pytest

import evbiodist

SOURCE = Path(evbiodist.__file__).parent
#: Errors whose message reaches the user as it is.
SPOKEN = {"ValueError", "UnreadableImage", "ClusterError", "NoRoomError", "FolderBusyError"}


def calls(name_wanted):
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else node
            if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) in name_wanted:
                yield f"{path.relative_to(SOURCE)}:{call.lineno}", call


def words(node):
    """Return the literal text of a string or f-string, with a placeholder for each value; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
    return None


PROBLEMS = [(place, call) for place, call in calls({"Problem"}) if len(call.args) >= 4]
RAISED = [(place, words(call.args[-1])) for place, call in calls(SPOKEN) if call.args and words(call.args[-1])]


def test_there_are_hundreds_of_them():
    assert len(PROBLEMS) > 100
    assert len(RAISED) > 400


@pytest.mark.parametrize("part", ["file", "expected", "remedy"])
def test_a_problem_says_where_what_was_expected_and_what_to_do(part):
    place_of = {"file": 0, "expected": 2, "remedy": 3}
    texts = [(place, words(call.args[place_of[part]])) for place, call in PROBLEMS]
    bad = [(place, t) for place, t in texts if t is not None and (not t.strip() or t.endswith((".", " ")) or "  " in t)]
    assert bad == []  # the sentence adds its own full stop


#: Rooms whose sentences are of files and commands, where nobody thinks of Python.
OF_FILES = (
    "io/",
    "batch/",
    "cli.py",
    "study/",
    "report/",
    "library/",
    "imaging/segment",
    "imaging/tray",
    "imaging/organs",
)


def test_no_sentence_shows_python_or_ends_twice():
    python = re.compile(r"\b(None|dict|tuple|ndarray|NoneType|KeyError|TypeError)\b")
    assert [b for b in RAISED if b[0].startswith(OF_FILES) and python.search(b[1])] == []
    assert [b for b in RAISED if "  " in b[1] or re.search(r"[^.=]\.\.$| $", b[1])] == []
