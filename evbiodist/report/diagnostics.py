"""Diagnostics of fitted models from a run's tables: fitted against observed, standardised residuals, and what each fit cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.report import svg
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.rows import records
from evbiodist.report.words import number
from evbiodist.study.flags import split
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

#: Residuals further out than this are listed, at most so many; points of a label past _SINGLE are drawn as one path.
_FAR, _LISTED, _SINGLE = 2.0, 40, 400
_LEAST_DF = 3
_SIZE = (430.0, 250.0)


def diagnostics(results: ResultFolder, place: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return, of every group and model with fitted curves, its two figures, the statistics of its fits and its far values."""
    found = []
    matched = residuals(results["observations"], results["curves"])
    for (group, model), here in matched.groupby(["group", "model"], sort=True) if len(matched) else []:
        far = here[here["z"].abs() > _FAR].sort_values("z", key=lambda z: -z.abs(), kind="stable")
        listed = [{"cells": [r.subject, r.label, r.organ, f"{r.time_h:g}", number(r.value), number(r.fitted), f"{r.z:+.2f}"]}
                  for r in rows_of(far.head(_LISTED))]  # fmt: skip
        found.append({"group": group, "model": model, "agreement": _agreement(here, place), "over_time": _over_time(here, place),
                      "statistics": _statistics(results["parameters"], here, str(group), str(model)),
                      "n_far": len(far), "n": len(here), "far": listed})  # fmt: skip
    return found


def residuals(observations: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return every positive observation with its fitted value and standardised residual, for every model that has its curve.

    Parameters
    ----------
    observations, curves : tables of a run.

    Returns
    -------
    DataFrame : columns group, model, label, organ, unit, subject, time_h, value, fitted, z. z is ln(observed / fitted) over
        the SD of logarithms among animals of the same label, organ and time (of the residuals, where too few animals repeat).
    """
    import pandas as pd

    columns = ["group", "model", "label", "organ", "unit", "subject", "time_h", "value", "fitted", "z"]
    if observations.empty or curves.empty:
        return pd.DataFrame(columns=columns)
    seen = observations[(observations["value"] > 0) & (observations["below_lloq"] != "yes")]
    seen = seen.assign(curve=seen["organ"].where(~seen["organ"].isin(BLOOD), "blood"))
    own = dict(iter(seen.groupby(["group", "label", "curve", "unit"])))
    parts = []
    for (group, label, organ, unit, model), curve in curves.groupby(
        ["group", "label", "organ", "unit", "model"], sort=True
    ):
        here = own.get((group, label, organ, unit))
        kept = curve[(curve["value"] > 0)].sort_values("time_h")
        if here is None or not len(kept):
            continue
        inside = here[here["time_h"].between(kept["time_h"].iloc[0], kept["time_h"].iloc[-1])]
        fitted = np.exp(np.interp(inside["time_h"], kept["time_h"], np.log(kept["value"])))
        parts.append(inside.assign(model=str(model), fitted=fitted))
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts)
    table["log"] = np.log(table["value"] / table["fitted"])
    sd = {key: _spread(here) for key, here in table.groupby(["group", "model", "label"])}
    table["z"] = [r / sd[key] for r, *key_ in zip(table["log"], table["group"], table["model"], table["label"], strict=True)
                  if (key := tuple(key_))]  # fmt: skip
    return table[columns].reset_index(drop=True)


def _spread(here: pd.DataFrame) -> float:
    """Return the SD of logarithms among animals of one organ and time; of the residuals where fewer than three degrees are left."""
    cells = here.groupby(["organ", "unit", "time_h"])["log"]
    squares = float(((here["log"] - cells.transform("mean")) ** 2).sum())
    df = len(here) - cells.ngroups
    spread = math.sqrt(squares / df) if df >= _LEAST_DF else math.sqrt(float((here["log"] ** 2).mean()))
    return spread if spread > 0 else 1.0


def _statistics(parameters: pd.DataFrame, here: pd.DataFrame, group: str, model: str) -> list[dict[str, Any]]:
    """Return a row a label: values, criterion, size of the residuals, and the flags of its parameters."""
    rows = []
    mine = (
        parameters[(parameters["group"] == group) & (parameters["model"] == model)] if len(parameters) else parameters
    )
    for label, own in here.groupby("label", sort=True):
        of = records(mine[mine["label"] == label]) if len(mine) else []
        aicc = next((r["value"] for r in of if r["parameter"] == "aicc"), math.nan)
        flags = sorted({flag for r in of for flag in split(r["flags"])})
        size = math.sqrt(float((own["z"] ** 2).mean()))
        rows.append({"cells": [label, len(own), number(aicc), number(size),
                               f"{100 * float((own['z'].abs() <= _FAR).mean()):.0f}", ", ".join(flags)]})  # fmt: skip
    return rows


def _agreement(here: pd.DataFrame, place: Mapping[str, int]) -> str:
    """Return the SVG of observed against fitted values on logarithms, with the line where they are equal."""
    x = svg.covering([*here["value"], *here["fitted"]], 50, _SIZE[0] - 10, log=True)
    y = svg.Scale(x.low, x.high, _SIZE[1] - 36, 22, log=True)
    equal = svg.line(x(x.low), y(x.low), x(x.high), y(x.high), "ref d1")
    marks = _points(here, [x(v) for v in here["fitted"]], [y(v) for v in here["value"]], place)
    return svg.figure(*_SIZE, [svg.axes(x, y, "fitted", "observed"), svg.inside(x, y, [equal, *marks])])


def _over_time(here: pd.DataFrame, place: Mapping[str, int]) -> str:
    """Return the SVG of standardised residuals over time; most should lie between the dashed lines."""
    first = float(here.loc[here["time_h"] > 0, "time_h"].min()) / 2
    times = here["time_h"].clip(lower=first if math.isfinite(first) else 1.0)
    x = svg.covering(times, 50, _SIZE[0] - 10, log=True)
    y = svg.covering([*here["z"], -3.0, 3.0], _SIZE[1] - 36, 22)
    guides = [svg.line(x.start, y(v), x.end, y(v), "ref" if v == 0 else "ref d1") for v in (-_FAR, 0.0, _FAR)]
    labels = sorted(set(here["label"]))
    aside = here["label"].map({label: 4.0 * (i - (len(labels) - 1) / 2) for i, label in enumerate(labels)})
    across = [x(t) + a for t, a in zip(times, aside, strict=True)]
    marks = _points(here, across, [y(v) for v in here["z"]], place)
    frame = svg.axes(x, y, "hours after dose", "standardised residual")
    return svg.figure(*_SIZE, [frame, svg.inside(x, y, [*guides, *marks])])


def _points(here: pd.DataFrame, across: list[float], up: list[float], place: Mapping[str, int]) -> list[str]:
    """Return the values of every label, one by one, or as one path where they are many."""
    marks = []
    for label, own in here.assign(across=across, up=up).groupby("label", sort=True):
        slot = place[str(label)]
        if len(own) > _SINGLE:
            dots = "".join(svg.outline([p]) for p in zip(own["across"], own["up"], strict=True))
            marks.append(svg.series(slot, [f'<path class="dots" d="{dots}"/>']))
        else:
            marks.append(svg.series(slot, [_told(r, slot) for r in rows_of(own)]))
    return marks


def _told(r: Any, slot: int) -> str:
    tip = f"{r.subject}, {r.label}, {r.organ}, {r.time_h:g} h: observed {number(r.value)}, fitted {number(r.fitted)}"
    return svg.tipped(tip, svg.marker(slot, r.across, r.up, 2.8), r.across, r.up, 6)
