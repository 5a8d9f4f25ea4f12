"""How our docstrings write parameters (`name, other : meaning, continued`), turned into what mkdocstrings reads.

Types and defaults then come from the signature, and what stands after the colon is the description.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Parameters|Attributes|Returns|Yields|Raises|Warns)$")
TITLE = re.compile(r"^\w[\w ]*$")
#: A sentence below what is raised, which is no exception.
PROSE = re.compile(r"^[A-Z].* .*\.$")
ENTRY = re.compile(r"^(?P<names>[^\s:][^:]*?) : (?P<text>.+)$")


def numpy_style(text: str) -> str:
    """Return a docstring with every entry of its sections on two lines, and one entry a name.

    Examples
    --------
    >>> print(numpy_style("Add.\\n\\nParameters\\n----------\\na, b : numbers,\\n    finite.\\n"))
    Add.
    <BLANKLINE>
    Parameters
    ----------
    a
        numbers,
        finite.
    b
        numbers,
        finite.
    """
    lines = text.splitlines()
    out: list[str] = []
    section, at = "", 0
    while at < len(lines):
        line = lines[at]
        if TITLE.match(line) and at + 1 < len(lines) and set(lines[at + 1]) == {"-"}:
            section = line if SECTION.match(line) else ""
        entry = ENTRY.match(line) if section else None
        at += 1
        if entry is None:
            if section == "Raises" and PROSE.match(line):
                out += ["Notes", "-----"]
                section = ""
            out.append(line)
            continue
        said = [f"    {entry['text']}"]
        while at < len(lines) and lines[at].startswith("    "):
            said.append(lines[at])
            at += 1
        names = entry["names"].split(", ") if section in ("Parameters", "Attributes") else [entry["names"]]
        for name in names:
            out += [name, *said]
    return "\n".join(out)


class DocstringStyle(griffe.Extension):
    """Rewrite the docstring of every function and class before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = numpy_style(obj.docstring.value)
