"""Figures of the report as SVG: curves per organ and label, and the forest plot of a quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.study.estimate import student

if TYPE_CHECKING:
    import pandas as pd

#: Okabe & Ito's colours, which colour-blind readers can tell apart; then repeated with other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
#: Rows of consensus.csv that are not labels, in the order and colours of the forest plot.
_POOLED = {"mean": "#777777", "consensus": "#000000", "joint": "#B00020"}
_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
UNITS = {"pct_id": "% of dose", "pct_id_per_g": "% of dose per g", "pct_recovered": "% of recovered", "p_per_s": "photons/s",
         "bq": "Bq", "particles": "particles", "au": "arbitrary units", "h": "h", "g/h": "g/h"}  # fmt: skip


def colours(labels: list[str]) -> dict[str, str]:
    """Return one colour a label, the same in every figure."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(sorted(labels))}


def means(observations: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return mean and t interval of every organ, label and time (the given error for a single value)."""
    import pandas as pd

    seen = observations[observations["value"].notna()]
    rows = []
    for (group, label, organ, unit, time), here in seen.groupby(["group", "label", "organ", "unit", "time_h"]):
        values, n = here["value"].to_numpy(float), len(here)
        if n > 1:
            se = float(values.std(ddof=1) / np.sqrt(n))
            reach = student(level, n - 1) * se
        else:
            count = here["n"].iloc[0]
            total = np.hypot(here["se"].iloc[0], np.nan_to_num(here["se_systematic"].iloc[0]))
            reach = student(level, count - 1 if count > 1 else np.inf) * float(total)
        mean = float(values.mean())
        rows.append({"group": group, "label": label, "organ": organ, "unit": unit, "time_h": time, "mean": mean,
                     "low": mean - reach, "high": mean + reach, "n": n})  # fmt: skip
    return pd.DataFrame(rows)


def organ_curve(points: pd.DataFrame, curves: pd.DataFrame, palette: dict[str, str], log_y: bool) -> str:
    """Return the SVG of one organ: means with intervals per label, and the fitted curves with theirs."""
    import altair as alt
    import pandas as pd

    unit = str(points["unit"].iloc[0])
    first = float(points.loc[points["time_h"] > 0, "time_h"].min())
    points = points.assign(time_h=points["time_h"].clip(lower=first / 2))
    curves = curves[curves["time_h"] >= first / 2] if len(curves) else curves
    top = float(pd.concat([points["mean"], points["high"].clip(upper=3 * points["mean"].max())]).max())
    bottom = float(points.loc[points["mean"] > 0, "mean"].min()) / 3 if log_y else min(0.0, float(points["low"].min()))
    y_scale = alt.Scale(type="log" if log_y else "linear", domain=[bottom, top * 1.05], clamp=True, nice=False)
    times = sorted(points["time_h"].unique())
    x = alt.X("time_h:Q", scale=alt.Scale(type="log", nice=False), title="hours after dose",
              axis=alt.Axis(values=times, format="~g", labelOverlap=True))  # fmt: skip
    colour = alt.Color("label:N", scale=alt.Scale(domain=list(palette), range=list(palette.values())), legend=None)
    layers: list[Any] = []
    if len(curves):
        base = alt.Chart(curves)
        layers += [base.mark_area(opacity=0.15, clip=True).encode(
            x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=colour)]  # fmt: skip
        layers += [base.mark_line(clip=True).encode(x=x, y=alt.Y("value:Q", scale=y_scale), color=colour)]
    else:
        layers += [alt.Chart(points).mark_line(strokeDash=[4, 3], clip=True).encode(
            x=x, y=alt.Y("mean:Q", scale=y_scale), color=colour)]  # fmt: skip
    shown = alt.Chart(points)
    title = UNITS.get(unit, unit)
    layers += [shown.mark_rule(clip=True).encode(x=x, y=alt.Y("low:Q", scale=y_scale, title=title), y2="high:Q", color=colour),
               shown.mark_point(filled=True, size=42, opacity=1, clip=True).encode(
                   x=x, y=alt.Y("mean:Q", scale=y_scale, title=title), color=colour)]  # fmt: skip
    return svg(alt.layer(*layers).properties(width=250, height=165))


def forest(rows: pd.DataFrame, palette: dict[str, str], unit: str) -> str:
    """Return the SVG of a forest plot: one line a label, their consensus and its prediction interval."""
    import altair as alt

    rows = rows[rows["estimate"].notna() & rows["ci_low"].notna()]
    order = [label for label in rows["label"] if label not in _POOLED] + list(_POOLED)
    top = float(np.nanmax(np.r_[rows["ci_high"], rows["estimate"] * 2]))
    scale = alt.Scale(domain=[0, 1.05 * min(top, 4 * float(rows["estimate"].max()))], clamp=True, nice=False)
    y = alt.Y("label:N", sort=order, title=None)
    shades = palette | _POOLED
    colour = alt.Color("label:N", scale=alt.Scale(domain=list(shades), range=list(shades.values())), legend=None)
    x_title = UNITS.get(unit, unit)
    layers = [
        alt.Chart(rows).mark_rule(strokeWidth=2, clip=True).encode(
            x=alt.X("ci_low:Q", scale=scale, title=x_title), x2="ci_high:Q", y=y, color=colour),
        alt.Chart(rows).mark_point(filled=True, size=90, opacity=1, clip=True).encode(
            x=alt.X("estimate:Q", scale=scale, title=x_title), y=y, color=colour),
    ]  # fmt: skip
    wide = rows[rows["prediction_low"].notna()]
    if len(wide):
        layers.insert(0, alt.Chart(wide).mark_rule(strokeWidth=1, strokeDash=[3, 3], color="#000", clip=True).encode(
            x=alt.X("prediction_low:Q", scale=scale, title=x_title), x2="prediction_high:Q", y=y))  # fmt: skip
    return svg(alt.layer(*layers).properties(width=430, height=26 * len(rows) + 10))


def svg(chart: Any) -> str:
    """Return an Altair chart as SVG text, without a browser."""
    import vl_convert

    chart = chart.configure(font="sans-serif", background="white").configure_view(stroke="#ddd")
    svg = str(vl_convert.vegalite_to_svg(chart.to_dict(validate=False)))
    return svg.replace('font-family="sans-serif"', f'font-family="{_FONT}"')
