"""report.html: one self-contained file that opens with the answer and ends with where every number comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evbiodist.batch.store import write_bytes
from evbiodist.crossval.agreement_table import ALL_ORGANS
from evbiodist.report import answer, curves, design, svg
from evbiodist.report.checklists import checklists
from evbiodist.report.diagnostics import diagnostics
from evbiodist.report.figures import UNITS, slots
from evbiodist.report.folder import ResultFolder, read_results
from evbiodist.report.groups_section import group_sections
from evbiodist.report.images import pictures
from evbiodist.report.label_section import label_sections, without_joint_answer
from evbiodist.report.methods import methods
from evbiodist.report.pk_tables import fit_tables, nca_tables
from evbiodist.report.rows import records
from evbiodist.report.words import interval, number

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

#: Ink, quiet text and grid lines on paper and on a dark screen; text keeps a contrast of 4.5 or more.
_INK = {"light": ("#1a1a1a", "#566070", "#c9ced6"), "dark": ("#e8e8e8", "#abb3bf", "#4a525d")}
_TITLES = {
    "answer": "The answer", "study": "Study and design", "images": "Images", "curves": "Organ curves", "pk": "PK parameters",
    "groups": "Groups compared", "labels": "Across labels", "diagnostics": "Do the models fit?", "flags": "Flags",
    "methods": "Methods", "checklists": "Checklists", "provenance": "Provenance",
}  # fmt: skip


def write_report(folder: str | Path) -> Path:
    """Build report.html of a result folder and write it there.

    Parameters
    ----------
    folder : of a run.

    Returns
    -------
    Path : of report.html, which needs no network and runs no script.

    Raises
    ------
    InputError : not a result folder.
    """
    results = read_results(folder)
    path = Path(folder) / "report.html"
    write_bytes(path, render(results).encode("utf-8"))
    return path


def render(results: ResultFolder) -> str:
    """Return the report of a result folder as HTML text."""
    said = {**context(results), **_style(), "unique": _namer(_TITLES.values())}
    return _environment().get_template("report.html.j2").render(**said).lstrip()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """Return where templates come from; they are translated once for all reports of a process."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evbiodist.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": number}
    return environment


def _namer(sections: Iterable[str]) -> Callable[[str], str]:
    """Return a function that numbers names given twice: landmarks of a page must be told apart by ear."""
    given = dict.fromkeys(sections, 1)

    def unique(name: str) -> str:
        given[name] = given.get(name, 0) + 1
        return name if given[name] == 1 else f"{name} ({given[name]})"

    return unique


def _style() -> dict[str, str]:
    return {"light": svg.variables(svg.LIGHT, *_INK["light"]), "dark": svg.variables(svg.DARK, *_INK["dark"]),
            "series": svg.series_style(), "marks": svg.MARKS}  # fmt: skip


def context(results: ResultFolder) -> dict[str, Any]:
    """Return everything the template shows."""
    seen, study = results["observations"], results.study
    place = slots([str(label) for label in _labels(results)])
    forests = answer.forests(results, place)
    first = [f for f in forests if f["quantity"].endswith("_uptake_pct_id")]
    shown, left_out = curves.organ_curves(results, place)
    missing, missing_left_out = design.missing_parameters(results)
    said = {
        "study": study,
        "level": f"{100 * study['settings']['kinetics']['level']:g}",
        "units": UNITS,
        "keys": keys(place),
        "answer": answer.sentences(results),
        "where": answer.pictures(results, place),
        "forests": first,
        "more_forests": [f for f in forests if f not in first],
        "facts": design.facts(results),
        "animals": design.animals(results),
        "notes": [n for n in study.get("notes", []) if n not in study.get("missing", [])],
        "failures": records(results["failures"]),
        "pictures": pictures(results),
        "curves": shown,
        "curves_left_out": left_out,
        "single": curves.single_times(results),
        "nca": nca_tables(results),
        "fits": fit_tables(results),
        "missing": missing,
        "missing_left_out": missing_left_out,
        "groups": group_sections(results),
        "agreement": _agreement(results),
        "labels": label_sections(results, place),
        "unanswered": without_joint_answer(results),
        "diagnostics": diagnostics(results, place),
        "flags": design.flags(results),
        "methods": methods(results),
        "checklists": checklists(results),
        "origin": design.origin(results),
        "n_values": len(seen),
        "n_parameters": len(results["parameters"]),
    }
    said["across"] = bool(forests or said["agreement"] or said["labels"] or said["unanswered"])
    return said | {"contents": _contents(said)}


def _contents(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sections of this page in order; some exist only where the study has what they show."""
    there = {"images": said["pictures"], "groups": said["groups"], "labels": said["across"],
             "diagnostics": said["diagnostics"]}  # fmt: skip
    return [(name, title) for name, title in _TITLES.items() if there.get(name, True)]


def _labels(results: ResultFolder) -> Sequence[str]:
    """Return every label that is drawn anywhere."""
    tables = [results[name] for name in ("observations", "curves", "predicted")]
    return sorted({label for table in tables if "label" in table for label in table["label"].unique()})


def keys(place: Mapping[str, int]) -> dict[str, str]:
    """Return the legend's sign of every label: its line and marker in its colour."""
    return {name: svg.figure(30, 12, [_key(slot)], "key") for name, slot in place.items()}


def _key(slot: int) -> str:
    return svg.series(slot, [svg.line(1, 6, 29, 6, f"l d{slot % svg.N_DASHES}"), svg.marker(slot, 15, 6, 4)])


def _agreement(results: ResultFolder) -> list[dict[str, Any]]:
    table: pd.DataFrame = results["agreement"]
    if table.empty:
        return []
    organ = results.study["settings"]["crossval"]["organ"]
    return [{**r, "headline": r["organ"] in {organ, ALL_ORGANS}, "bias_text": interval(r["bias"], r["bias_low"], r["bias_high"]),
             "loa_text": f"{number(r['loa_low'])} to {number(r['loa_high'])}",
             "ccc_text": interval(r["ccc"], r["ccc_low"], r["ccc_high"]),
             "ratio_text": interval(r["ratio"], r["ratio_low"], r["ratio_high"]),
             "deming_text": interval(r["deming_slope"], r["deming_slope_low"], r["deming_slope_high"])}
            for r in records(table)]  # fmt: skip
