"""Figures of the report as SVG: curves per organ and label, organs ranked by their peak, and the forest plot of a quantity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.report import svg
from evbiodist.report.folder import rows_of
from evbiodist.report.words import interval, number, short
from evbiodist.study.estimate import student

if TYPE_CHECKING:
    import pandas as pd

#: Okabe & Ito's colours, which colour-blind readers can tell apart; the report darkens the pale ones (svg.LIGHT).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
#: Rows of consensus.csv that are not labels, in the order of the forest plot.
POOLED = ("mean", "consensus", "joint")
UNITS = {"pct_id": "% of dose", "pct_id_per_g": "% of dose per g", "pct_recovered": "% of recovered", "p_per_s": "photons/s",
         "bq": "Bq", "particles": "particles", "au": "arbitrary units", "h": "h", "g/h": "g/h"}  # fmt: skip
#: Animals of one label in one panel that are drawn and told one by one; more are drawn as one path.
_SINGLE = 60
_CURVE = (320.0, 222.0)


def colours(labels: list[str]) -> dict[str, str]:
    """Return one colour a label, the same in every figure."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(sorted(labels))}


def slots(labels: list[str]) -> dict[str, int]:
    """Return the place of every label among colours, markers and dashes, the same in every figure.

    Examples
    --------
    >>> slots(["mCherry", "DiR"])
    {'DiR': 0, 'mCherry': 1}
    """
    return {label: i for i, label in enumerate(sorted(labels))}


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
    return pd.DataFrame(rows, columns=["group", "label", "organ", "unit", "time_h", "mean", "low", "high", "n"])


def organ_curve(points: pd.DataFrame, animals: pd.DataFrame, curves: pd.DataFrame, place: Mapping[str, int], *,
                log_y: bool, style: str = "") -> str:  # fmt: skip
    """Return the SVG of one organ over time, of one group and unit.

    Parameters
    ----------
    points : columns label, time_h, mean, low, high, n, unit, as `means` returns them.
    animals : columns subject, label, time_h, value of every animal; drawn in class `each`, the means in class `mean`.
    curves : columns label, time_h, value, low, high of a fitted model; empty where none was fitted.
    place : of every label among colours and markers.
    log_y : whether values are drawn on a logarithm; then one of them must be positive.
    style : further classes of the figure.

    Returns
    -------
    str : the SVG; every point tells its values when pointed at.
    """
    first = _first_time(points)
    x, y = _curve_scales(points, animals, curves, first, log_y=log_y)
    mean_of, animals_of = _by_label(points), _by_label(animals[animals["value"].notna()])
    fit_of = _by_label(curves[curves["time_h"] >= first]) if len(curves) else {}
    fitted, mean, each = [], [], []
    for i, (label, here) in enumerate(mean_of.items()):
        slot, fit = place[label], fit_of.get(label, [])
        aside = min(3.0, 12 / len(mean_of)) * (i - (len(mean_of) - 1) / 2)
        fitted.append(svg.series(slot, _fit_marks(fit, x, y, slot)))
        mean.append(
            svg.series(
                slot,
                _mean_marks([(x(max(r.time_h, first)) + aside, y(r.mean), r) for r in here], y, slot, joined=not fit),
            )
        )
        each.append(
            svg.series(
                slot, _animal_marks([(x(max(r.time_h, first)) + aside, y(r.value), r) for r in animals_of[label]], slot)
            )
        )
    layers = [*fitted, f'<g class="mean">{"".join(mean)}</g>', f'<g class="each">{"".join(each)}</g>']
    unit, times = str(points["unit"].iloc[0]), sorted(points["time_h"].clip(lower=first).unique())
    frame = svg.axes(x, y, "hours after dose", UNITS.get(unit, unit), x_ticks=times)
    return svg.figure(*_CURVE, [frame, svg.inside(x, y, layers)], style)


def _by_label(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the rows of every label, labels in order."""
    found: dict[str, list[Any]] = {label: [] for label in sorted(table["label"].unique())}
    for r in rows_of(table):
        found[r.label].append(r)
    return found


def _first_time(points: pd.DataFrame) -> float:
    """Return where time zero is drawn on a logarithm: half the first time after the dose."""
    later = points.loc[points["time_h"] > 0, "time_h"]
    zero = bool((points["time_h"] <= 0).any())
    return (float(later.min()) * (0.5 if zero else 1.0)) if len(later) else 1.0


def _curve_scales(points: pd.DataFrame, animals: pd.DataFrame, curves: pd.DataFrame, first: float, *,
                  log_y: bool) -> tuple[svg.Scale, svg.Scale]:  # fmt: skip
    """Return the scales of a curve; an interval may reach beyond the axis, points and animals may not."""
    width, height = _CURVE
    x = svg.covering([*points["time_h"].clip(lower=first)], 46, width - 8, log=True)
    values = np.r_[points["mean"], animals["value"].dropna()]
    ends = np.r_[points["low"], points["high"]]
    near = (
        ends[(ends > values[values > 0].min() / 3) & (ends < 3 * values.max())]
        if log_y
        else ends[np.abs(ends) < 3 * np.abs(values).max()]
    )
    fit = curves.loc[curves["time_h"] >= first, "value"] if len(curves) else np.array([])
    if log_y and len(fit):
        fit = fit[fit > values[values > 0].min() / 10]
    return x, svg.covering(np.r_[values, near, fit], height - 36, 22, log=log_y, zero=not log_y)


def _fit_marks(fit: list[Any], x: svg.Scale, y: svg.Scale, slot: int) -> list[str]:
    """Return a fitted curve with its band, where that is known all along."""
    upper, lower = [(x(r.time_h), y(r.high)) for r in fit], [(x(r.time_h), y(r.low)) for r in reversed(fit)]
    known = all(math.isfinite(r.low) and math.isfinite(r.high) for r in fit)
    line = svg.path([(x(r.time_h), y(r.value)) for r in fit], f"l d{slot % svg.N_DASHES}")
    return [svg.path([*upper, *lower], "b", closed=True) if known else "", line]


def _mean_marks(at: list[tuple[float, float, Any]], y: svg.Scale, slot: int, *, joined: bool) -> list[str]:
    marks = [svg.path([(px, py) for px, py, _ in at], "f")] if joined and len(at) > 1 else []
    for px, py, r in at:
        bar = svg.line(px, y(r.low), px, y(r.high), "w") if math.isfinite(r.low) else ""
        tip = f"{r.label}, {r.time_h:g} h: {interval(r.mean, r.low, r.high)}, n = {r.n}"
        marks.append(svg.tipped(tip, bar + svg.marker(slot, px, py), px, py))
    return marks


def _animal_marks(at: list[tuple[float, float, Any]], slot: int) -> list[str]:
    """Return every animal: one by one with its values, or all of a label as one path where they are many."""
    at = sorted(at, key=lambda a: (a[2].subject, a[2].time_h))
    tracks = [[(px, py) for px, py, _ in own] for _, own in itertools.groupby(at, key=lambda a: a[2].subject)]
    lines = "".join(svg.outline(track) for track in tracks if len(track) > 1)
    many = " many" if len(at) > _SINGLE else ""
    marks = [f'<path class="f{many}" d="{lines}"/>'] if lines else []
    if many:
        return [*marks, f'<path class="dots" d="{"".join(svg.outline([(px, py)]) for px, py, _ in at)}"/>']
    for px, py, r in at:
        tip = f"{r.subject}, {r.label}, {r.time_h:g} h: {number(r.value)}"
        marks.append(svg.tipped(tip, svg.marker(slot, px, py, 2.6), px, py, 6))
    return marks


def ranked(peaks: pd.DataFrame, place: Mapping[str, int], unit: str) -> str:
    """Return the SVG of organs from the highest to the lowest peak, a mark with its interval for every label.

    Parameters
    ----------
    peaks : columns organ, label, time_h, mean, low, high, n: the highest mean of every organ and label, organs in order.
    """
    organs = list(dict.fromkeys(peaks["organ"]))
    labels = sorted(set(peaks["label"]))
    step = 9.0 * max(len(labels), 2) + 8
    left = 14 + 6.3 * max(len(short(o, 22)) for o in organs)
    low, high = float(peaks["mean"].min()), float(peaks["mean"].max())
    log = low > 0 and high / low > 30
    ends = peaks[["low", "high"]].to_numpy(float).ravel()
    ends = ends[(ends > low / 3 if log else np.abs(ends) >= 0) & (ends < 2 * high)]
    x = svg.covering(np.r_[peaks["mean"], ends], left, 512, log=log, zero=not log)
    y = svg.Scale(0, len(organs), 6, 6 + step * len(organs))
    marks = []
    for r in rows_of(peaks):
        at = y(organs.index(r.organ)) + step / 2 + 9.0 * (labels.index(r.label) - (len(labels) - 1) / 2)
        bar = svg.line(x(r.low), at, x(r.high), at, "w") if math.isfinite(r.low) else ""
        tip = f"{r.organ}, {r.label}: {interval(r.mean, r.low, r.high)} {unit} at {r.time_h:g} h, n = {r.n}"
        marks.append(
            svg.series(
                place[r.label], [svg.tipped(tip, bar + svg.marker(place[r.label], x(r.mean), at), x(r.mean), at)]
            )
        )
    named = [svg.label(left - 8, y(i) + step / 2 + 4, short(o, 22), "e") for i, o in enumerate(organs)]
    rows = [svg.line(left, y(i), 512, y(i), "gr") for i in range(len(organs))]
    frame = svg.axes(x, y, unit + (", logarithmic" if log else ""), "", y_ticks=[])
    return svg.figure(520, y.end + 36, [frame, *rows, *named, svg.inside(x, y, marks)])


def forest(rows: pd.DataFrame, place: Mapping[str, int], unit: str) -> str:
    """Return the SVG of a forest plot: one line a label, what they give together, and the prediction interval (dashed).

    Parameters
    ----------
    rows : columns label, estimate, ci_low, ci_high, prediction_low, prediction_high of one quantity and group.
    """
    rows = rows[rows["estimate"].notna()]
    names = [n for n in rows["label"] if n not in POOLED] + [n for n in POOLED if n in set(rows["label"])]
    left, step = 14 + 6.3 * max(len(short(n, 22)) for n in names), 24.0
    most = float(rows["estimate"].max())
    ends = rows[["ci_low", "ci_high", "prediction_low", "prediction_high"]].to_numpy(float).ravel()
    x = svg.covering(np.r_[rows["estimate"], ends[np.abs(ends) < 2.5 * abs(most)]], left, 512, zero=True)
    y = svg.Scale(0, len(names), 6, 6 + step * len(names))
    marks = []
    for r in rows_of(rows):
        at = y(names.index(r.label)) + step / 2
        marks.append(_forest_line(r, x, at, place.get(r.label), UNITS.get(unit, unit)))
    named = [svg.label(left - 8, y(i) + step / 2 + 4, short(n, 22), "e") for i, n in enumerate(names)]
    pooled = [
        svg.line(left, y(i), 512, y(i), "gr")
        for i, n in enumerate(names)
        if n == next((p for p in POOLED if p in names), "")
    ]
    frame = svg.axes(x, y, UNITS.get(unit, unit), "", y_ticks=[])
    return svg.figure(520, y.end + 36, [frame, *pooled, *named, svg.inside(x, y, marks)])


def _forest_line(r: Any, x: svg.Scale, at: float, slot: int | None, unit: str) -> str:
    """Return one line of a forest plot; what the labels give together is a diamond in the colour of the text."""
    bar = svg.line(x(r.ci_low), at, x(r.ci_high), at, "l") if math.isfinite(r.ci_low) else ""
    tip = f"{r.label}: {interval(r.estimate, r.ci_low, r.ci_high)} {unit}"
    if math.isfinite(r.prediction_low):
        bar += svg.line(x(r.prediction_low), at, x(r.prediction_high), at, "w d2")
        tip += f"; a further label between {number(r.prediction_low)} and {number(r.prediction_high)}"
    mark = svg.marker(3 if slot is None else slot, x(r.estimate), at, 4.4)
    drawn = svg.tipped(tip, bar + mark, x(r.estimate), at, 10)
    return f'<g class="pooled">{drawn}</g>' if slot is None else svg.series(slot, [drawn])
