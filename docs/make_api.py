"""Write docs/api.md: every public function and type, by what it is for; mkdocstrings fills in their docstrings.

python docs/make_api.py
"""

from __future__ import annotations

import re
from pathlib import Path

import evbiodist

HEAD = """# Python

`import evbiodist as ev` gives what is listed here; heavy libraries load when a function is first used. Arrays and columns have their
shapes and units in each description. Tables are pandas DataFrames with the columns of the CSV files of the same name.

This page is made by `python docs/make_api.py` from `evbiodist/__init__.pyi`.
"""

#: Sections, in the order of the way from files to answers, by the first words of the modules.
SECTIONS = {
    "Studies": ("study", "api", "batch"),
    "Files": ("io",),
    "Organs and signals": ("imaging",),
    "Non-compartmental analysis": ("kinetics.nca", "kinetics.designs"),
    "Models and fits": ("kinetics.models", "kinetics.fitting", "kinetics.population"),
    "Graphical analysis and maps": ("kinetics.graphical",),
    "Labels": ("crossval",),
    "Results": ("report",),
}


def public() -> dict[str, str]:
    """Return the module of every public name, below `evbiodist`."""
    stub = Path(evbiodist.__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
    return {name: module for module, name in re.findall(r"^from \.(\S+) import (\w+) as \w+$", stub, re.M)}


def page() -> str:
    """Return the page.

    Raises
    ------
    ValueError : a public name whose module is in no section.
    """
    names, lines = public(), [HEAD]
    for title, modules in SECTIONS.items():
        mine = sorted((n for n, m in names.items() if m.startswith(modules)), key=str.lower)
        lines += [f"## {title}", "", *(f"::: evbiodist.{names.pop(name)}.{name}\n" for name in mine)]
    if names:
        raise ValueError(f"{', '.join(names)}: no section of docs/make_api.py holds it; add its module to SECTIONS")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(page(), encoding="utf-8")
