"""The table of promises names tests that exist, and the code runs nothing that a file says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
#: Calls that run what they are given, or read what can.
FORBIDDEN = {"eval", "exec", "compile", "popen", "load_modelresult", "sympify", "parse_expr", "read_pickle",
             "extractall", "unsafe_load", "full_load", "Interpreter"}  # fmt: skip
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal"}
#: The one place where messages of our own processes travel as pickles.
OWN_MESSAGES = {"evbiodist/batch/child.py"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"tests/[\w/]+\.py(?:::\w+)?", PAGE))))
def test_a_test_of_the_table_exists(name):
    path, _, test = name.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert "def test_" in text
    assert f"def {test}(" in text or not test


@pytest.mark.parametrize("name", sorted(set(re.findall(r"(?:benchmarks|docs)/\w+\.(?:py|md)", PAGE))))
def test_a_script_or_page_of_the_table_exists(name):
    assert (ROOT / name).is_file()


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            whose = called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            yield whose, name, node


def test_nothing_that_a_file_says_is_run():
    found = []
    for path in [*(ROOT / "evbiodist").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        place = path.relative_to(ROOT).as_posix()
        for whose, name, node in calls(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{place}:{node.lineno} {whose}.{name}"
            if name in FORBIDDEN and (whose, name) != ("re", "compile"):
                found.append(where)
            if (whose, name) == ("os", "system"):
                found.append(where)
            if name in ("load", "loads", "Unpickler") and whose in PICKLES and place not in OWN_MESSAGES:
                found.append(where)
            if whose in ("yaml", "shelve", "tarfile") or (whose in ("np", "numpy") and name == "load"):
                found.append(where)
            if any(
                k.arg in ("shell", "allow_pickle") and getattr(k.value, "value", None) is True for k in node.keywords
            ):
                found.append(where)
    assert not found
