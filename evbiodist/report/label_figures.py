"""Figures of the comparison of labels: bias by organ, differences of pairs, and left-out labels as predicted from the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.report import svg
from evbiodist.report.figures import UNITS
from evbiodist.report.folder import rows_of
from evbiodist.report.words import interval, number, short

if TYPE_CHECKING:
    import pandas as pd

#: Colours of readings below and above the vesicle, and between; blue and orange are told apart by colour-blind readers.
_LOW, _EVEN, _HIGH = (33, 102, 172), (247, 247, 247), (217, 95, 14)
_WIDEST = 16.0
_CELL = (74.0, 34.0)


def bias_map(rows: pd.DataFrame) -> str:
    """Return the SVG of a map of labels by organs: how many times the vesicle each label reads, pale where 1 lies within."""
    rows = rows[np.isfinite(rows["ratio"]) & (rows["ratio"] > 0)]
    if not len(rows):
        return ""
    reach = float(np.clip(np.exp(np.abs(np.log(rows["ratio"])).max()), 1.5, _WIDEST))
    organs, labels = sorted(set(rows["organ"])), sorted(set(rows["label"]))
    left = 14 + 6.3 * max(len(short(name, 20)) for name in labels)
    cells = [_cell(r, left + _CELL[0] * organs.index(r.organ), 24 + _CELL[1] * labels.index(r.label), math.log(reach))
             for r in rows_of(rows)]  # fmt: skip
    named = [svg.label(left + _CELL[0] * (i + 0.5), 16, short(o, 12), "m") for i, o in enumerate(organs)]
    named += [svg.label(left - 8, 24 + _CELL[1] * (i + 0.62), short(name, 20), "e") for i, name in enumerate(labels)]
    return svg.figure(left + _CELL[0] * len(organs) + 4, 28 + _CELL[1] * len(labels), [*named, *cells])


def _cell(r: Any, x: float, y: float, edge: float) -> str:
    """Return one field of the map: coloured by how far the reading is off, with its number."""
    ratio, low, high = float(r.ratio), float(r.ratio_low), float(r.ratio_high)
    shown = min(max(math.log(ratio) / edge, -1.0), 1.0)
    sure = low > 1 or high < 1
    away = _HIGH if shown > 0 else _LOW
    strength = abs(shown) * (1.0 if sure else 0.35)
    red, green, blue = (round(e + strength * (a - e)) for e, a in zip(_EVEN, away, strict=True))
    ink = "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "#1a1a1a"
    tip = f"{r.label}, {r.organ}: {interval(ratio, low, high)} times the vesicle"
    width, height = _CELL[0] - 2, _CELL[1] - 2
    place = f'x="{svg.px(x + 1)}" y="{svg.px(y + 1)}" width="{svg.px(width)}" height="{svg.px(height)}"'
    field = f'<rect {place} fill="rgb({red},{green},{blue})"><title>{svg.words(tip)}</title></rect>'
    word = f'<text x="{svg.px(x + width / 2 + 1)}" y="{svg.px(y + 21)}" class="m" style="fill:{ink}">{ratio:.2g}</text>'
    return f'<g class="{"sure" if sure else "unsure"}">{field}{word}</g>'


def difference_panel(points: pd.DataFrame, row: pd.Series, organs: list[str]) -> str:
    """Return the SVG of one pair of labels: ratio against size of means per organ and time, with bias and limits.

    Parameters
    ----------
    points : columns organ, a, b (means of both labels, above zero); row : of agreement.csv; organs : in the order of colours.
    """
    sizes, ratios = np.sqrt(points["a"] * points["b"]), points["a"] / points["b"]
    bias = [float(row.get(name, np.nan)) for name in ("ratio", "ratio_low", "ratio_high")]
    limits = [float(row.get(name, np.nan)) for name in ("ratio_loa_low", "ratio_loa_high")]
    x = svg.covering(sizes, 46, 292, log=True)
    y = svg.covering([*ratios, *limits, 1.0], 186, 22, log=True)
    marks = [svg.line(x.start, y(1.0), x.end, y(1.0), "ref")]
    if bias[1] > 0:
        marks.append(
            svg.path(
                [(x.start, y(bias[1])), (x.end, y(bias[1])), (x.end, y(bias[2])), (x.start, y(bias[2]))],
                "b",
                closed=True,
            )
        )
    marks += [svg.line(x.start, y(v), x.end, y(v), style) for v, style in ((bias[0], "w"), (limits[0], "w d1"), (limits[1], "w d1"))
              if v > 0]  # fmt: skip
    for organ, size, ratio in zip(points["organ"], sizes, ratios, strict=True):
        slot = organs.index(organ)
        tip = f"{organ}: {number(ratio)} times at {number(size)}"
        marks.append(svg.series(slot, [svg.tipped(tip, svg.marker(slot, x(size), y(ratio), 3), x(size), y(ratio))]))
    unit = UNITS.get(str(row["unit"]), str(row["unit"]))
    title = f"{short(row['label_a'], 16)} / {short(row['label_b'], 16)}"
    frame = svg.axes(x, y, f"mean of both, {unit}", title)
    return svg.figure(300, 222, [frame, svg.inside(x, y, marks)])


def organ_key(slot: int) -> str:
    """Return the legend's sign of an organ in the panels of pairs."""
    return svg.figure(14, 12, [svg.series(slot, [svg.marker(slot, 7, 6, 4)])], "dot")


def predicted_panel(rows: pd.DataFrame, slot: int) -> str:
    """Return the SVG of one organ of a left-out label: the prediction from all others with its band, and what was seen."""
    first = float(rows.loc[rows["time_h"] > 0, "time_h"].min()) / 2
    times = rows["time_h"].clip(lower=first if math.isfinite(first) else 1.0)
    middle = rows.loc[rows["predicted"] > 0, "predicted"]
    around = (float(middle.min()) / 30, 30 * float(middle.max())) if len(middle) else (0.0, math.inf)
    x = svg.covering(times, 40, 222, log=True)
    y = svg.covering(
        [*rows["seen"], *rows["predicted"], *rows["low"].clip(*around), *rows["high"].clip(*around)], 136, 22, log=True
    )
    across = [x(t) for t in times]
    band = [
        *zip(across, (y(v) for v in rows["high"]), strict=True),
        *zip(across[::-1], [y(v) for v in rows["low"]][::-1], strict=True),
    ]
    lines = [
        svg.path(band, "b", closed=True),
        svg.path([(a, y(v)) for a, v in zip(across, rows["predicted"], strict=True)], "w d1"),
    ]
    dots = []
    for a, r in zip(across, rows_of(rows), strict=True):
        if math.isfinite(r.seen):
            tip = f"{r.time_h:g} h: read {number(r.seen)}, predicted {interval(r.predicted, r.low, r.high)}"
            dots.append(svg.tipped(tip, svg.marker(slot, a, y(r.seen)), a, y(r.seen)))
    unit = str(rows["unit"].iloc[0])
    frame = svg.axes(x, y, "hours after dose", UNITS.get(unit, unit), y_ticks=y.ticks(4))
    return svg.figure(
        230, 172, [frame, svg.inside(x, y, [f'<g class="plain">{"".join(lines)}</g>', svg.series(slot, dots)])]
    )
