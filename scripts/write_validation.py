"""Write docs/validation.md: numbers of others computed again, tests against outside numbers, and every table that was measured.

python scripts/write_validation.py
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from evbiodist.validation.checks import Check, run_checks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

HEAD = """# Validation

What evbiodist was held against, in one place: numbers that others printed, tests with an outside answer, and how often estimates and
intervals were right on simulated studies whose truth is known. No claim of clinical fitness or of compliance with any regulation
follows from it.

This page is made by `python scripts/write_validation.py`. The first table is computed anew each time; the measured ones take
minutes to hours, and are gathered from the pages that their scripts write.

## Numbers of others, computed again

`evbiodist validate` computes them [on your machine](validate.md) and writes a dated report with every number beside its source.

| area | numbers | within tolerance | who printed them |
|---|---:|---:|---|
"""

PICTURES = {
    "in_vivo.png": "Three digital mice: photograph, light, residuals, with the organs where their light puts them",
    "ivis_cosmic.png": "Cosmic rays on the one real IVIS folder at hand: what was found",
}


@dataclass(frozen=True)
class Measured:
    """A page with measured tables: the script that makes them, and the sections that hold them (all when empty)."""

    page: str
    script: str
    about: str
    sections: tuple[str, ...] = ()


MEASURED = (
    Measured(
        "coverage.md", "study_coverage.py", "Organ values, uptake, peak and consensus from images of digital studies"
    ),
    Measured(
        "crossval_coverage.md", "crossval_coverage.py", "The joint answer across labels, and which label is accused"
    ),
    Measured("recovery.md", "recovery.py", "Organ amounts in living mice, from light through tissue"),
    Measured("monte_carlo_table.md", "monte_carlo.py", "The same from images made photon by photon"),
    Measured("sparse.md", "sparse_coverage.py", "Areas and ratios with three to five animals a time", ("Coverage",)),
    Measured("uncertainty.md", "fit_coverage.py", "Intervals and optima of fits", ("Measured", "Optima")),
    Measured(
        "population.md",
        "mixed_coverage.py",
        "Populations",
        ("Against other programs", "How often intervals hold the truth"),
    ),
    Measured("fuzz.md", "fuzz_readers.py", "Damaged files through every reader"),
    Measured("mutation.md", "mutation.py", "Changes of the code that tests notice"),
    Measured("scaling.md", "scaling.py", "How runs grow, one large volume, kills"),
)


def outside_rows(checks: list[Check]) -> list[str]:
    """Return a row for every area of numbers that others printed."""
    rows = []
    for area in dict.fromkeys(c.area for c in checks):
        mine = [c for c in checks if c.area == area]
        sources = "; ".join(dict.fromkeys(c.source for c in mine)).replace("|", "\\|")
        rows.append(f"| {area} | {len(mine)} | {sum(c.passed for c in mine)} | {sources} |")
    return rows


def oracle_rows() -> list[str]:
    """Return a row for every file of tests against outside numbers: its own first sentence."""
    rows = []
    for path in sorted((ROOT / "tests" / "oracles").glob("test_*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append(
            f"| `tests/oracles/{path.name}` | {' '.join(said.split(chr(10) * 2)[0].split())} |".replace("\\", "")
        )
    return rows


def tables(text: str, sections: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Return every table of a page with the heading it stands under."""
    found: list[tuple[str, list[str]]] = []
    heading, inside = "", False
    for line in re.sub(r"```.*?```", "", text, flags=re.S).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        is_row = line.startswith("|") and (not sections or heading in sections)
        if is_row and not inside:
            found.append((heading, []))
        if is_row:
            found[-1][1].append(line)
        inside = is_row
    return found


def measured_lines(source: Measured) -> list[str]:
    """Return the lines of one page of measurements: what, which script, and its tables folded.

    Raises
    ------
    ValueError : a page without the tables that are looked for.
    """
    found = tables((DOCS / source.page).read_text(encoding="utf-8"), source.sections)
    if not found:
        raise ValueError(f"{source.page}: no table under {source.sections or 'any heading'}; correct MEASURED")
    # crossval_coverage.md is a part of crossval.md
    link = "crossval.md#coverage" if source.page == "crossval_coverage.md" else source.page
    lines = [
        "",
        f"### {source.about}",
        "",
        f"`python benchmarks/{source.script}`; [the page]({link}) says how to read it.",
    ]
    for heading, rows in found:
        title = (heading or source.about).replace('"', "'").replace("`", "")
        lines += ["", f'??? note "{title} ({len(rows) - 2} rows)"', "", *(f"    {row}" for row in rows)]
    return lines


def page() -> str:
    """Return the page."""
    lines = outside_rows(run_checks())
    lines += [
        "",
        "## Tests against outside answers",
        "",
        "Run with every change.",
        "",
        "| tests | against what |",
        "|---|---|",
    ]
    lines += oracle_rows()
    lines += ["", "What files and runs may do to you, and the test that holds each promise: [promises](promises.md)."]
    lines += ["", "## Measured on studies with known truth", "", "Each opens by a click."]
    lines += [line for source in MEASURED for line in measured_lines(source)]
    lines += [
        "",
        "Times beside other programs: `benchmarks/README.md` in the source. Samples from the whole posterior, and what the",
    ]
    lines += ["joint model cannot tell: [limits](crossval.md#limits-and-assumptions).", "", "## Figures", ""]
    lines += [f"![{said}](pictures/{name})\n\n*{said}.*\n" for name, said in PICTURES.items()]
    return HEAD + "\n".join(lines)


if __name__ == "__main__":
    (DOCS / "validation.md").write_text(page(), encoding="utf-8")
