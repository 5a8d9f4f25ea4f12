"""PK parameters of the report: one table an organ and group, a column a label; many animals are summed up in one cell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.report.figures import UNITS
from evbiodist.report.folder import ResultFolder
from evbiodist.report.rows import records
from evbiodist.report.words import interval, number
from evbiodist.study.estimate import student
from evbiodist.study.flags import split
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

#: Parameters of the main table, in order; everything is in parameters.csv.
_BLOOD_ROWS = ("c0", "cmax", "auclast", "auclast_sparse", "aucinf_obs", "auc_pct_extrap_obs", "half_life", "mrt_inf", "cl",
               "vss")  # fmt: skip
_ORGAN_ROWS = ("cmax", "tmax", "auclast", "auclast_sparse", "half_life", "kp_auc")
_FIT_ROWS = ("v", "v1", "v2", "cl", "q", "k_el", "half_life_initial", "half_life", "auc_inf", "vss")
#: Read off the sampling times, so that an animals' median says more than a mean.
_TIMES = ("tmax", "tlast", "tmin")
_MOST = 200
_PLACE = ["subject", "group", "label", "organ"]
_KEY = [*_PLACE[1:], "parameter"]


def nca_tables(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the non-compartmental parameters (of at most 200 organs and groups), blood first in each group.

    Pooled animals count before single ones.
    """
    table = results["parameters"]
    if table.empty:
        return []
    nca = table[(table["model"] == "nca") & table["parameter"].isin({*_BLOOD_ROWS, *_ORGAN_ROWS})]
    pooled = nca[nca["subject"] == "pooled"].set_index(_KEY).index
    keys = nca.set_index(_KEY).index
    nca = nca[(nca["subject"] == "pooled") | ~keys.isin(pooled)]
    nca = nca.assign(kind=_kinds(nca))
    level, found = results.study["settings"]["kinetics"]["level"], []
    for (group, organ, kind), here in nca.groupby(["group", "organ", "kind"], sort=True):
        labels = sorted(here["label"].unique())
        rows = _rows(here, labels, _BLOOD_ROWS if organ in BLOOD else _ORGAN_ROWS, level)
        if rows:
            title = f"{organ}, {UNITS.get(str(kind), kind)} ({group})" if kind else f"{organ} ({group})"
            found.append({"title": title, "group": group, "organ": organ, "labels": labels, "rows": rows,
                          "blood": organ in BLOOD})  # fmt: skip
    return sorted(found, key=lambda t: (t["group"], not t["blood"], t["organ"]))[:_MOST]


def _kinds(nca: pd.DataFrame) -> list[str]:
    """Return the unit of the curve each parameter comes from, as its cmax has it; nothing where a place has two."""
    units: dict[tuple[str, ...], set[str]] = {}
    for *place, unit in nca.loc[nca["parameter"] == "cmax", [*_PLACE, "unit"]].itertuples(index=False):
        units.setdefault(tuple(place), set()).add(unit)
    return [
        next(iter(u)) if len(u := units.get(place, set())) == 1 else ""
        for place in nca[_PLACE].itertuples(index=False, name=None)
    ]


def _rows(here: pd.DataFrame, labels: list[str], names: tuple[str, ...], level: float) -> list[dict[str, Any]]:
    rows, of = [], dict(iter(here.groupby(["parameter", "label"])))
    for name in names:
        cells = [_cell(of.get((name, label)), level) for label in labels]
        if any(c["text"] for c in cells):
            unit = next((u for u in here.loc[here["parameter"] == name, "unit"] if u), "")
            rows.append({"name": name, "unit": unit, "cells": cells})
    return rows


def _cell(rows: pd.DataFrame | None, level: float) -> dict[str, Any]:
    """Return a value with its interval, or what several animals give together."""
    if rows is None or rows.empty:
        return {"text": "", "flags": [], "reason": ""}
    if len(rows) > 1:
        return _together(rows, level)
    r = rows.iloc[0]
    return {"text": interval(r["value"], r["ci_low"], r["ci_high"]), "flags": sorted(split(r["flags"])),
            "reason": r["reason"] if math.isnan(r["value"]) else ""}  # fmt: skip


def _together(rows: pd.DataFrame, level: float) -> dict[str, Any]:
    """Return the geometric mean over animals with its t interval; the median and range of times and of values at or below zero."""
    values = rows["value"].dropna().to_numpy(float)
    flags = sorted({flag for cell in rows["flags"] for flag in split(cell)})
    missing = f"{len(rows) - len(values)} of {len(rows)} animals without a value" if len(values) < len(rows) else ""
    if not len(values):
        return {"text": "–", "flags": flags, "reason": missing}
    if rows["parameter"].iloc[0] in _TIMES or (values <= 0).any() or len(values) == 1:
        text = f"{number(float(np.median(values)))} (range {number(values.min())} to {number(values.max())}, {len(values)} animals)"
        return {"text": text, "flags": flags, "reason": missing}
    logs = np.log(values)
    reach = student(level, len(values) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(values))
    ends = [math.exp(float(logs.mean()) + k * reach) for k in (0, -1, 1)]
    return {"text": f"{interval(*ends)}, {len(values)} animals", "flags": flags, "reason": missing}


def fit_tables(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the parameters of fitted models by group and model, and which labels could not be fitted."""
    table = results["parameters"]
    found = []
    level = results.study["settings"]["kinetics"]["level"]
    for (group, model), here in table[table["model"] != "nca"].groupby(["group", "model"]) if len(table) else []:
        labels = sorted(here["label"].unique())
        names = [n for n in dict.fromkeys(here["parameter"]) if n in _FIT_ROWS or n.endswith("_uptake_pct_id")]
        failed = here[here["parameter"] == "fit"]
        found.append({"title": f"model {model} ({group})", "group": group, "model": model, "labels": labels,
                      "rows": _rows(here, labels, tuple(names), level),
                      "failed": records(failed[["label", "reason"]].drop_duplicates())})  # fmt: skip
    return found
