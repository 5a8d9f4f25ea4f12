"""Every figure of the report as a file of its own for print: SVG, PDF and PNG in a journal's width, with legend, caption and data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evbiodist.batch.store import csv_bytes
from evbiodist.report import answer, curves, svg
from evbiodist.report.diagnostics import diagnostics, residuals
from evbiodist.report.exports.registry import Exported
from evbiodist.report.figures import means, slots
from evbiodist.report.folder import ResultFolder
from evbiodist.report.groups_section import group_sections
from evbiodist.report.label_section import label_sections
from evbiodist.report.words import short
from evbiodist.study.problems import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

#: Widths of a column, of one and a half, and of a page, mm, as most journals have them.
WIDTHS = {"single": 89.0, "1.5": 120.0, "double": 183.0}
_DPI = (300, 600)
_POINTS_PER_MM = 72 / 25.4
#: Points that journals ask for at least, and the smallest text of a figure in its own units (svg.MARKS).
SMALLEST_PT, SMALLEST_TEXT = 6.0, 10.0
_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_KEY_HEIGHT, _KEY_TEXT = 16.0, 6.3


@dataclass(frozen=True)
class Figure:
    """A figure: its name, caption and drawing, what its colours stand for, and its data.

    Parameters
    ----------
    key : place of every series among colours and markers, for the legend; empty where the figure names them itself.
    lined : whether series are told apart by the dashes of their lines too.
    """

    name: str
    caption: str
    drawn: str
    data: pd.DataFrame
    key: Mapping[str, int] = field(default_factory=dict)
    lined: bool = False


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return every figure as SVG, PDF and PNG with its data as CSV, and their captions.

    Parameters
    ----------
    results : of a run.
    options : ``width`` single (89 mm), 1.5 (120), double (183) or millimetres; ``dpi`` of the PNG, 300 or 600.

    Raises
    ------
    InputError : an option that is not one of these.
    """
    width, dpi = _width(options), _dpi(options)
    files: dict[str, bytes] = {}
    captions, wider, taken = [f"# Figures of {_md(str(results.study['name']))}", ""], [], set[str]()
    for figure in figures(results):
        name = _free(figure.name, taken)
        taken.add(name.lower())
        whole = with_key(figure.drawn, figure.key, lined=figure.lined)
        mm = readable(_size(whole)[0], width)
        wider += [name] if mm > width else []
        files |= rendered(name, whole, mm, dpi)
        files[f"{name}.csv"] = _data(figure.data)
        captions += [f"## {name}", "", f"{_md(figure.caption)} ({mm:g} mm wide)", ""]
    if results.study.get("simulated"):
        captions.insert(2, "The study is simulated, not measured.\n")
    notes = [f"{len(wider)} figures are wider than {width:g} mm, or their text would be smaller than {SMALLEST_PT:g} pt: "
             + ", ".join(wider)] if wider else []  # fmt: skip
    notes += [] if taken else ["the results hold nothing to draw"]
    return Exported({**files, "captions.md": "\n".join(captions).encode()}, tuple(notes))


def _width(options: Mapping[str, Any]) -> float:
    text = str(options.get("width", "single"))
    if text in WIDTHS:
        return WIDTHS[text]
    if re.fullmatch(r"\d{1,4}(\.\d+)?", text) and 20 <= float(text) <= 1000:
        return float(text)
    raise InputError(
        [Problem("--set", f"width={text}", "single, 1.5, double, or millimetres from 20 to 1000", "write one of them")]
    )


def _dpi(options: Mapping[str, Any]) -> int:
    text = str(options.get("dpi", "300"))
    if text not in map(str, _DPI):
        raise InputError([Problem("--set", f"dpi={text}", "dpi=300 or dpi=600", "write one of them")])
    return int(text)


def figures(results: ResultFolder) -> Iterator[Figure]:
    """Yield every figure of the report, in its order.

    Parameters
    ----------
    results : of a run.
    """
    labels = {str(label) for name in ("observations", "curves", "predicted") if "label" in results[name]
              for label in results[name]["label"].unique()}  # fmt: skip
    place = slots(sorted(labels))
    level = f"{100 * float(results.study['settings']['kinetics']['level']):g}"
    yield from _ranked(results, place, level)
    yield from _forests(results, place, level)
    yield from _curves(results, place, level)
    yield from _groups(results, level)
    yield from _labels(results, place, level)
    yield from _diagnostics(results, place)


def _ranked(results: ResultFolder, place: Mapping[str, int], level: str) -> Iterator[Figure]:
    pictures = answer.pictures(results, place)
    points = _points(results)
    for p in pictures:
        here = points[points["group"] == p["group"]]
        yield Figure(_name("peaks", p["group"]), f"Highest mean of each organ, {p['group']}, in {p['unit']}; mean with {level} % "
                     "interval. The data are the means at all times.", p["svg"], here, _only(place, here))  # fmt: skip


def _forests(results: ResultFolder, place: Mapping[str, int], level: str) -> Iterator[Figure]:
    consensus = results["consensus"]
    for f in answer.forests(results, place):
        here = consensus[(consensus["group"] == f["group"]) & (consensus["quantity"] == f["quantity"])]
        yield Figure(_name("forest", f["group"], f["quantity"]), f"{f['title']}, {f['unit']}: every label with its {level} % "
                     "interval, and what they give together; dashed: where one more label would lie.", f["svg"], here)  # fmt: skip


def _curves(results: ResultFolder, place: Mapping[str, int], level: str) -> Iterator[Figure]:
    found, _ = curves.organ_curves(results, place)
    points = _points(results)
    for c in found:
        here = points[
            (points["group"] == c["group"]) & (points["organ"] == c["organ"]) & (points["shown_unit"] == c["unit"])
        ]
        fitted = curves.fitted_curves(results["curves"], c["group"], c["organ"], str(here["unit"].iloc[0]))
        for axis in ("linear", "log"):
            if c[axis]:
                lines = "; lines with bands are the fitted model" if len(fitted) else ""
                yield Figure(_name("curve", c["group"], c["organ"], c["unit"], axis),
                             f"{c['organ']} of {c['group']}, {c['unit']}, {', '.join(c['labels'])}: means with {level} % "
                             f"interval{lines}.",
                             c[axis], _stacked(here, fitted), _only(place, here), lined=True)  # fmt: skip


def _groups(results: ResultFolder, level: str) -> Iterator[Figure]:
    table = results["comparisons"]
    for g in group_sections(results):
        if g.get("svg"):
            yield Figure(
                _name("groups", g["title"]),
                f"{g['title']}: ratios with {level} % interval, not adjusted.",
                g["svg"],
                table,
            )


def _labels(results: ResultFolder, place: Mapping[str, int], level: str) -> Iterator[Figure]:
    for section in label_sections(results, place):
        group = section["group"]
        if section["map"]:
            bias = _of(results["label_bias"], group)
            yield Figure(_name("label_bias", group), f"How many times the vesicle each label reads, {group}; pale where 1 lies within "
                         f"the {level} % interval.", section["map"], bias)  # fmt: skip
        order = dict(section["organs"])
        for p in section["pairs"]:
            yield Figure(_name("pair", group, p["title"]), f"{p['title']}, {group}: ratio of means against their size; {p['text']}, "
                         f"limits of agreement {p['limits']}.", p["svg"], _cells(p["rows"], ("organ", "time_h", "a", "b", "a_over_b")),
                         {o: i for o, i in order.items() if o in p["organs"]})  # fmt: skip
        table = _of(results["predicted"], group)
        for left in section["predicted"]:
            for panel in left["panels"]:
                here = table[
                    (table["kind"] == "label")
                    & (table["left_out"] == left["label"])
                    & (table["organ"] == panel["organ"])
                ]
                yield Figure(_name("left_out", group, left["label"], panel["organ"]), f"{left['label']} in {panel['organ']}, {group}: "
                             f"predicted from all other labels (dashed, with its {level} % band) and read (points).",
                             panel["svg"], here)  # fmt: skip


def _of(table: pd.DataFrame, title: str) -> pd.DataFrame:
    """Return the rows of a section, which is titled by its group, and by its study too where there are several."""
    if table.empty:
        return table
    return table[(table["group"] == title) | (table["study"] + ", " + table["group"] == title)]


def _diagnostics(results: ResultFolder, place: Mapping[str, int]) -> Iterator[Figure]:
    found = diagnostics(results, place)
    data = residuals(results["observations"], results["curves"])
    for d in found:
        here = data[(data["group"] == d["group"]) & (data["model"] == d["model"])]
        said = f"{d['model']} of {d['group']}"
        yield Figure(_name("fit", d["group"], d["model"], "agreement"), f"{said}: observed against fitted values; dashed where "
                     "they are equal.", d["agreement"], here, _only(place, here))  # fmt: skip
        yield Figure(_name("fit", d["group"], d["model"], "residuals"), f"{said}: standardised residuals over time; most should lie "
                     "between the dashed lines.", d["over_time"], here, _only(place, here))  # fmt: skip


def _points(results: ResultFolder) -> pd.DataFrame:
    from evbiodist.report.figures import UNITS

    if results["observations"].empty:
        return results["observations"]
    points = means(results["observations"], results.study["settings"]["kinetics"]["level"])
    return points.assign(shown_unit=points["unit"].map(lambda unit: UNITS.get(unit, unit)))


def _only(place: Mapping[str, int], here: pd.DataFrame) -> dict[str, int]:
    """Return the legend of the labels that are drawn; one label needs none."""
    there = sorted(set(here["label"]))
    return {label: place[label] for label in there} if len(there) > 1 else {}


def _stacked(points: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """Return means and fitted curve in one table."""
    import pandas as pd

    shown = points.drop(columns="shown_unit").rename(columns={"mean": "value"}).assign(what="mean")
    return pd.concat([shown, fitted.assign(what="fitted")], ignore_index=True) if len(fitted) else shown


def _cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([dict(zip(columns, row["cells"], strict=True)) for row in rows], columns=list(columns))


def _data(table: pd.DataFrame) -> bytes:
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    return csv_bytes(rows, [str(c) for c in table.columns if c != "shown_unit"])


def _name(*words: object) -> str:
    """Return a file's name: lower case letters, digits and _, at most 100.

    Examples
    --------
    >>> _name("curve", "ex vivo/1", "Brain", "% of dose")
    'curve_ex_vivo_1_brain_of_dose'
    """
    plain = re.sub(r"[^a-z0-9]+", "_", "_".join(map(str, words)).lower()).strip("_")
    return plain[:100].rstrip("_")


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no other figure has."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _size(drawn: str) -> tuple[float, float]:
    width, height = drawn.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    return float(width), float(height)


def with_key(drawn: str, key: Mapping[str, int], *, lined: bool = False) -> str:
    """Return a figure with a legend above it, in as many lines as its width needs.

    Parameters
    ----------
    drawn : a figure of the report; key : place of every series among colours and markers; empty for no legend.
    lined : whether the legend shows lines behind the markers.
    """
    if not key:
        return drawn
    width, height = _size(drawn)
    parts, x, y, reach = [], 4.0, 0.0, 28.0 if lined else 10.0
    for name, slot in key.items():
        text = short(name, 24)
        needed = reach + 6 + _KEY_TEXT * len(text) + 8
        if x > 4 and x + needed > width:
            x, y = 4.0, y + _KEY_HEIGHT
        sign = [svg.line(x, y + 8, x + 28, y + 8, f"l d{slot % svg.N_DASHES}")] if lined else []
        sign.append(svg.marker(slot, x + reach / 2, y + 8))
        parts += [svg.series(slot, sign), svg.label(x + reach + 6, y + 12, text)]
        x += needed
    top = y + _KEY_HEIGHT + 4
    inner = drawn.replace("<svg ", f'<svg y="{svg.px(top)}" ', 1)
    return svg.figure(width, height + top, [*parts, inner])


def readable(units: float, width: float) -> float:
    """Return the width in mm at which a figure's smallest text is large enough: what was asked, or the next column that is.

    Parameters
    ----------
    units : width of the figure in its own units; width : asked for, mm.

    Examples
    --------
    >>> readable(320, 89), readable(500, 89)
    (89, 120.0)
    """
    least = units * SMALLEST_PT / SMALLEST_TEXT / _POINTS_PER_MM
    if width >= least:
        return width
    return next((w for w in sorted(WIDTHS.values()) if w >= max(least, width)), round(least + 0.05, 1))


def rendered(name: str, drawn: str, mm: float, dpi: int) -> dict[str, bytes]:
    """Return a figure as SVG, PDF and PNG of one width, black on white.

    Parameters
    ----------
    name : of the files; drawn : a figure of the report; mm : width; dpi : of the PNG.
    """
    import vl_convert

    width, height = _size(drawn)
    alone = svg.standalone(drawn)
    alone = re.sub(r"(\.fig text \{ font: )11px [^;]+;", rf"\g<1>11px {_FONT};", alone).replace(
        "</style>", f".fig text {{ font-family: {_FONT}; }} .fig .w {{ fill: none; }}</style>", 1
    )
    tall = mm * height / width
    return {
        f"{name}.svg": _sized(alone, f"{mm:.4g}mm", f"{tall:.6g}mm").encode(),
        f"{name}.pdf": _in_order(vl_convert.svg_to_pdf(_sized(alone, *_points_of(mm, tall)))),
        f"{name}.png": vl_convert.svg_to_png(_sized(alone, *_points_of(mm, tall)), scale=1, ppi=dpi),
    }


#: Resources of a PDF page, which the writer lists in another order every time.
_RESOURCES = re.compile(rb"(?:[ ]+/[a-z]+[0-9]+ [0-9]+ 0 R\n){2,}")


def _in_order(pdf: bytes) -> bytes:
    """Return a PDF whose resources are sorted, so that the same figure is the same to the byte; no length changes."""
    return _RESOURCES.sub(lambda run: b"".join(sorted(run[0].splitlines(keepends=True))), pdf)


def _points_of(*mm: float) -> tuple[str, ...]:
    return tuple(f"{_POINTS_PER_MM * v:.6g}" for v in mm)


def _sized(drawn: str, width: str, height: str) -> str:
    """Return a figure whose outermost size is another, its coordinates as they were."""
    end = drawn.index(">")
    head = re.sub(r' width="[^"]*" height="[^"]*"', f' width="{width}" height="{height}"', drawn[:end], count=1)
    return head + drawn[end:]


def _md(text: str) -> str:
    """Return text that Markdown and HTML show as it stands, on one line."""
    for sign in "\\`*_[]|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
