"""What the report says of groups of animals: one sentence and one figure a pair, every comparison in a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evbiodist.report import svg
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.words import interval, number
from evbiodist.study.flags import split

if TYPE_CHECKING:
    import pandas as pd

#: Rows a table shows; the rest is in comparisons.csv.
_SHOWN = 60


def group_sections(results: ResultFolder) -> list[dict[str, Any]]:
    """Return a section for every pair of arms with one label that was named or could be tested."""
    table = results.tables.get("comparisons")
    if table is None or not len(table):
        return []
    level = 100 * results.study["settings"]["kinetics"]["level"]
    organ = results.study["settings"]["crossval"]["organ"]
    chosen = results.study["settings"].get("groups", {})
    asked = bool(chosen.get("compare") or chosen.get("reference"))
    found = []
    for place, rows in table.groupby(["study", "contrast", "within", "label", "arm_a", "arm_b"], sort=False):
        _, contrast, within, label, a, b = (str(p) for p in place)
        where = f" in {within}" if within else ""
        if not asked and rows["p"].isna().all():
            continue  # a pair that nobody named and nothing can be said of
        rows = rows.sort_values("p_adjusted", kind="stable", na_position="last")
        kind = "" if contrast == "group" else f"{contrast}: "
        found.append({"title": f"{kind}{a} over {b}, {label}{where}", "sentence": _sentence(rows, a, b, organ, level),
                      "rows": [_row(r) for r in rows_of(rows.head(_SHOWN))], "svg": _forest(rows, f"{a} over {b}"),
                      "left": max(0, len(rows) - _SHOWN)})  # fmt: skip
    return found


def _sentence(rows: pd.DataFrame, a: str, b: str, organ: str, level: float) -> str:
    """Return the answer in the headline organ, and how many comparisons differ once all are allowed for."""
    tested = rows[rows["p_adjusted"].notna()]
    if tested.empty:
        return f"{a} and {b} cannot be compared: {rows['reason'].iloc[0] or 'no value has an error'}."
    differ = int((tested["p_adjusted"] < 1 - level / 100).sum())
    how = str(tested["family"].iloc[0]).rpartition(", ")[2]
    told = f"{differ} of {len(tested)} comparisons differ at {100 - level:g} % after adjusting ({_HOW.get(how, how)})."
    area = tested[(tested["organ"] == organ) & (tested["quantity"] == "auc") & tested["ratio"].notna()]
    if area.empty:
        return told
    r = area.iloc[0]
    return (f"{a} over {b} in {organ}: area {interval(r['ratio'], r['ratio_low'], r['ratio_high'])} times ({level:g} % interval, "
            f"adjusted p {_p(r['p_adjusted'])}). {told}")  # fmt: skip


_HOW = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": "not adjusted"}


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _row(r: Any) -> dict[str, Any]:
    at = "" if math.isnan(r.time_h) else f" at {r.time_h:g} h"
    effect = f"{interval(r.ratio, r.ratio_low, r.ratio_high)} times"
    if not math.isfinite(r.ratio):
        effect = (
            f"{interval(r.difference, r.difference_low, r.difference_high)} {r.unit}"
            if math.isfinite(r.difference)
            else ""
        )
    means = f"{number(r.value_a)} ({r.n_a:.0f}) / {number(r.value_b)} ({r.n_b:.0f})"
    told = [*sorted(split(r.flags)), *([r.reason] if r.reason else [])]
    return {"quantity": f"{r.organ}: {r.quantity}{at}", "contrast": means, "effect": effect,
            "interval": interval(r.hedges_g, r.hedges_g_low, r.hedges_g_high), "p_adjusted": _p(r.p_adjusted),
            "flags": ", ".join(told)}  # fmt: skip


def _forest(rows: pd.DataFrame, title: str) -> str:
    """Return areas (or, without any, values) of all organs as ratios with their intervals on a logarithmic axis."""
    shown = rows[rows["ratio_low"].gt(0) & rows["ratio_high"].lt(math.inf)]
    areas = shown[shown["quantity"] == "auc"]
    shown = (areas if len(areas) else shown).sort_values(["organ", "time_h"]).head(30)
    if shown.empty:
        return ""
    left, step, width = 130.0, 20.0, 430.0
    height = step * len(shown) + 12
    x = svg.covering([1.0, *shown["ratio_low"], *shown["ratio_high"]], left, width, log=True)
    y = svg.Scale(0, 1, height, 0)
    parts = [svg.axes(x, y, title, "", y_ticks=[]), svg.line(x(1), 0, x(1), height, "ref")]
    for place, r in enumerate(rows_of(shown)):
        at = step * (place + 0.5) + 6
        name = r.organ if r.quantity == "auc" else f"{r.organ}, {r.time_h:g} h"
        tip = f"{name}: {interval(r.ratio, r.ratio_low, r.ratio_high)}"
        marks = svg.line(x(r.ratio_low), at, x(r.ratio_high), at, "w") + svg.marker(0, x(r.ratio), at)
        parts += [svg.label(left - 8, at + 4, name, "e"), svg.series(0, [svg.tipped(tip, marks, x(r.ratio), at)])]
    return svg.figure(width + 20, height + 40, parts)
