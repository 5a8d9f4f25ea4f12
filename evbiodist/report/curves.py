"""Organ curves of the report: every organ and group with its labels, linear and logarithmic, and the values behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evbiodist.report.figures import UNITS, means, organ_curve
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.report.rows import records
from evbiodist.report.words import interval, number
from evbiodist.study.estimate import student
from evbiodist.study.flags import split
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

_SINGLE_VALUES = 200
#: Figures in all, and values of single animals behind each: a page stays quick; the tables of the run hold the rest.
_FIGURES, _ANIMALS = 120, 60


def organ_curves(results: ResultFolder, place: Mapping[str, int]) -> tuple[list[dict[str, Any]], int]:
    """Return what the page shows of every curve, blood first in each group, and how many curves had no room."""
    seen, curves = results["observations"], results["curves"]
    if seen.empty:
        return [], 0
    points = means(seen, results.study["settings"]["kinetics"]["level"])
    keys = [(str(group), str(organ) not in BLOOD, str(organ), str(unit))
            for (group, organ, unit), here in points.groupby(["group", "organ", "unit"]) if here["time_h"].nunique() > 1]  # fmt: skip
    keys.sort()
    points_of = dict(iter(points.groupby(["group", "organ", "unit"])))
    animals_of = dict(iter(seen.groupby(["group", "organ", "unit"])))
    found = []
    for group, _, organ, unit in keys[:_FIGURES]:
        here, animals = points_of[group, organ, unit], animals_of[group, organ, unit]
        fitted = fitted_curves(curves, group, organ, unit)
        found.append({"group": group, "organ": organ, "unit": UNITS.get(unit, unit), "blood": organ in BLOOD,
                      "labels": sorted(here["label"].unique()), "fitted": len(fitted) > 0,
                      **_drawings(here, animals, fitted, place), **_values(here, animals)})  # fmt: skip
    return found, max(len(keys) - _FIGURES, 0)


def fitted_curves(curves: pd.DataFrame, group: str, organ: str, unit: str) -> pd.DataFrame:
    """Return the fitted curves of an organ; those of plasma with organs, which explain all at once, where there are some."""
    if curves.empty:
        return curves
    name = "blood" if organ in BLOOD else organ
    fitted = curves[(curves["group"] == group) & (curves["organ"] == name) & (curves["unit"] == unit)]
    whole = fitted[fitted["model"] == "plasma_with_organs"]
    if len(whole):
        return whole
    return fitted[fitted["model"] == fitted["model"].iloc[0]] if len(fitted) else fitted


def _drawings(
    here: pd.DataFrame, animals: pd.DataFrame, fitted: pd.DataFrame, place: Mapping[str, int]
) -> dict[str, str]:
    """Return the linear figure and, where means are positive, the logarithmic one."""
    linear = organ_curve(here, animals, fitted, place, log_y=False, style="lin")
    positive = bool((here["mean"] > 0).any())
    return {
        "linear": linear,
        "log": organ_curve(here, animals, fitted, place, log_y=True, style="log") if positive else "",
    }


def _values(here: pd.DataFrame, animals: pd.DataFrame) -> dict[str, Any]:
    rows = [{"cells": [r.label, f"{r.time_h:g}", interval(r.mean, r.low, r.high), r.n]} for r in rows_of(here)]
    own = animals.sort_values(["label", "time_h", "subject"], kind="stable").head(_ANIMALS)
    return {"rows": rows, "animals": len(animals),
            "single": [{"cells": [r.subject, r.label, f"{r.time_h:g}", number(r.value), "yes" if r.below_lloq == "yes" else ""]}
                       for r in rows_of(own)]}  # fmt: skip


def single_times(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the values of what was measured at one time only, each with its whole error."""
    observations = results["observations"]
    if observations.empty:
        return []
    reach = student(results.study["settings"]["kinetics"]["level"], math.inf)
    times = observations.groupby(["group", "organ", "unit"])["time_h"].transform("nunique")
    rows = []
    for r in records(observations[(times < 2) & observations["value"].notna()].head(_SINGLE_VALUES)):
        shared = 0.0 if math.isnan(r["se_systematic"]) else r["se_systematic"]
        half = reach * math.hypot(r["se"], shared)
        value = interval(r["value"], r["value"] - half, r["value"] + half)
        rows.append({"cells": [r["subject"], r["label"], r["organ"], number(r["time_h"]), value, UNITS.get(r["unit"], r["unit"]),
                               ", ".join(sorted(split(r["flags"])))]})  # fmt: skip
    return rows
