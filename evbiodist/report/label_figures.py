"""Figures of the comparison of labels: bias by organ, differences of pairs, and left-out labels as predicted from the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.report.figures import COLOURS, UNITS, svg

if TYPE_CHECKING:
    import pandas as pd

#: Colours of readings below and above the vesicle, and between; blue and orange are told apart by colour-blind readers.
_LOW, _EVEN, _HIGH = "#2166ac", "#f7f7f7", "#d95f0e"
_WIDEST = 16.0


def bias_map(rows: pd.DataFrame) -> str:
    """Return the SVG of a map of labels by organs: how many times the vesicle each label reads, pale where 1 lies within."""
    import altair as alt

    rows = rows[np.isfinite(rows["ratio"]) & (rows["ratio"] > 0)]
    if not len(rows):
        return ""
    reach = float(np.clip(np.exp(np.abs(np.log(rows["ratio"])).max()), 1.5, _WIDEST))
    rows = rows.assign(text=[f"{r:.2g}" for r in rows["ratio"]],
                       sure=(rows["ratio_low"] > 1) | (rows["ratio_high"] < 1),
                       shown=np.log(rows["ratio"].clip(1 / reach, reach)))  # fmt: skip
    x = alt.X("organ:N", title="organ", axis=alt.Axis(labelAngle=0, orient="top", labelLimit=72))
    y = alt.Y("label:N", title="label")
    edge = float(np.log(reach))
    colour = alt.Color("shown:Q", legend=None, scale=alt.Scale(domain=[-edge, 0, edge], range=[_LOW, _EVEN, _HIGH]))
    base = alt.Chart(rows)
    strong = alt.condition("datum.sure", alt.value(1.0), alt.value(0.35))
    cells = base.mark_rect(stroke="#ffffff", strokeWidth=2).encode(x=x, y=y, color=colour, opacity=strong)
    dark = f"datum.sure && abs(datum.shown) > {0.55 * edge:.6f}"
    words = base.mark_text(fontSize=12).encode(
        x=x, y=y, text="text:N", color=alt.condition(dark, alt.value("#ffffff"), alt.value("#1a1a1a")))  # fmt: skip
    labels, organs = rows["label"].nunique(), rows["organ"].nunique()
    return svg(alt.layer(cells, words).properties(width=74 * organs, height=34 * labels))


def _padded(values: pd.Series) -> Any:
    """Return a logarithmic scale with room for whole points at both ends."""
    import altair as alt

    low, high = float(values.min()), float(values.max())
    room = max(high / low, 2.0) ** 0.06
    return alt.Scale(type="log", domain=[low / room, high * room], nice=False)


def difference_panel(points: pd.DataFrame, row: pd.Series, organs: list[str]) -> str:
    """Return the SVG of one pair of labels: ratio against size of means per organ and time, with bias and limits.

    Parameters
    ----------
    points : columns organ, a, b (means of both labels, above zero); row : of agreement.csv; organs : in the order of colours.
    """
    import altair as alt
    import pandas as pd

    seen = points.assign(size=np.sqrt(points["a"] * points["b"]), ratio=points["a"] / points["b"])
    limits = [float(row.get(name, np.nan)) for name in ("ratio_loa_low", "ratio_loa_high")]
    ends = [v for v in (*limits, seen["ratio"].min(), seen["ratio"].max(), 1.0) if np.isfinite(v) and v > 0]
    y_scale = alt.Scale(type="log", domain=[min(ends) / 1.15, max(ends) * 1.15], nice=False, clamp=True)
    title = f"{row['label_a']} / {row['label_b']}"
    unit = UNITS.get(str(row["unit"]), str(row["unit"]))
    y = alt.Y("ratio:Q", scale=y_scale, title=title)
    shades = [COLOURS[i % len(COLOURS)] for i in range(len(organs))]
    colour = alt.Color("organ:N", legend=None, scale=alt.Scale(domain=organs, range=shades))
    dots = alt.Chart(seen).mark_point(filled=True, size=34, opacity=0.85, clip=True).encode(
        x=alt.X("size:Q", scale=_padded(seen["size"]), title=f"mean of both, {unit}", axis=alt.Axis(tickCount=4)),
        y=y, color=colour)  # fmt: skip
    layers: list[Any] = [alt.Chart(pd.DataFrame({"ratio": [1.0]})).mark_rule(color="#999999").encode(y=y)]
    lines = pd.DataFrame({"ratio": [row["ratio"], *limits], "what": ["bias", "limit", "limit"]})
    lines = lines[np.isfinite(lines["ratio"]) & (lines["ratio"] > 0)]
    if np.isfinite(row["ratio_low"]) and row["ratio_low"] > 0:
        band = pd.DataFrame({"low": [row["ratio_low"]], "high": [row["ratio_high"]]})
        layers.append(alt.Chart(band).mark_rect(opacity=0.15, color="#000000", clip=True).encode(
            y=alt.Y("low:Q", scale=y_scale, title=title), y2="high:Q"))  # fmt: skip
    layers.append(alt.Chart(lines).mark_rule(clip=True).encode(
        y=y, strokeDash=alt.condition("datum.what == 'bias'", alt.value([1, 0]), alt.value([5, 4]))))  # fmt: skip
    return svg(alt.layer(*layers, dots).properties(width=225, height=165))


def predicted_panel(rows: pd.DataFrame, colour: str) -> str:
    """Return the SVG of one organ of a left-out label: the prediction from all others with its band, and what was seen."""
    import altair as alt

    first = float(rows.loc[rows["time_h"] > 0, "time_h"].min())
    rows = rows.assign(time_h=rows["time_h"].clip(lower=first / 2 if np.isfinite(first) else 1.0))
    ends = np.r_[rows.loc[rows["seen"] > 0, "seen"], rows["predicted"], rows["low"].clip(lower=rows["predicted"].min() / 30),
                 rows["high"].clip(upper=30 * rows["predicted"].max())]  # fmt: skip
    y_scale = alt.Scale(type="log", domain=[0.85 * float(ends.min()), 1.18 * float(ends.max())], nice=False, clamp=True)
    x = alt.X(
        "time_h:Q",
        scale=_padded(rows["time_h"]),
        title="hours after dose",
        axis=alt.Axis(format="~g", tickCount=4),
    )
    title = UNITS.get(str(rows["unit"].iloc[0]), str(rows["unit"].iloc[0]))
    base = alt.Chart(rows)
    ticks = alt.Axis(tickCount=3, format="~g")
    return svg(alt.layer(
        base.mark_area(opacity=0.2, color="#555555", clip=True).encode(
            x=x, y=alt.Y("low:Q", scale=y_scale, title=title, axis=ticks), y2="high:Q"),
        base.mark_line(color="#333333", strokeDash=[4, 3], clip=True).encode(x=x, y=alt.Y("predicted:Q", scale=y_scale, title=title)),
        base.mark_point(filled=True, size=42, opacity=1, color=colour, clip=True).encode(
            x=x, y=alt.Y("seen:Q", scale=y_scale, title=title)),
    ).properties(width=150, height=110))  # fmt: skip
