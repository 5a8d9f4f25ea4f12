"""Do groups of animals differ: targeted and untargeted vesicles, routes, doses, sexes. Rows of comparisons.csv.

Values at a time, areas under the curve and parameters are compared pair by pair within a label: as ratios on the logarithm,
with the p-values of a family adjusted together. Intervals are not adjusted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.crossval.contrast import Interval, Side, adjusted, hedges_g, on_log, side, welch
from evbiodist.study.group_settings import GroupSettings
from evbiodist.study.problems import nearest
from evbiodist.study.vocabulary import STANDARD

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
COMPARISON_COLUMNS = (
    "study", "contrast", "within", "label", "organ", "quantity", "time_h", "unit", "arm_a", "arm_b", "n_a", "n_b", "value_a",
    "value_b",
    "ratio", "ratio_low", "ratio_high", "difference", "difference_low", "difference_high", "hedges_g", "hedges_g_low", "hedges_g_high",
    "p", "p_adjusted", "family", "method", "flags", "reason",
)  # fmt: skip
#: Groups of one label up to which every pair is compared without being asked for.
MOST_GROUPS = 10
#: Parameters of parameters.csv that are compared, beside shares of the dose.
_PARAMETERS = ("cl", "half_life", "kp_auc")
#: Fewest times of one animal for an area of its own.
_LEAST_TIMES = 3


@dataclass(frozen=True)
class _Arm:
    """Animals of one arm: what they have in common, and their names."""

    name: str
    within: str
    animals: frozenset[str]


@dataclass
class GroupComparison:
    """Rows of comparisons.csv, and sentences about what was not compared."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare_groups(
    observations: pd.DataFrame,
    parameters: Iterable[Mapping[str, Any]],
    subjects: Sequence[Mapping[str, Any]],
    settings: GroupSettings,
    *,
    level: float = 0.95,
) -> GroupComparison:
    """Compare groups of animals that carry the same label.

    Parameters
    ----------
    observations : columns of observations.csv.
    parameters : rows of parameters.csv.
    subjects : subject, label, group, route, dose, dose_unit and sex of every animal, as far as known.
    settings : which pairs, by what, and how p-values are adjusted.
    level : of the intervals, which are not adjusted.

    Returns
    -------
    GroupComparison : no rows where there is nothing to compare.

    Notes
    -----
    Welch's test on the logarithm; areas of animals sacrificed one by one after Bailer AJ (1988) J Pharmacokinet Biopharm
    16:303 with the degrees of freedom of Nedelman JR, Jia X (1998) J Biopharm Stat 8:317. A family is all comparisons of one
    kind of quantity with one label and contrast.
    """
    out = GroupComparison()
    if observations.empty:
        return out
    seen = observations[observations["organ"] != STANDARD]
    named = {name for pair in settings.compare for name in pair} | (
        {settings.reference} if settings.reference else set()
    )
    known = set(seen["group"])
    out.notes += [f"groups: '{name}' is to be compared and is no group of the study; {nearest(name, known)}"
                  for name in sorted(named - known)]  # fmt: skip
    pooled = list(parameters)
    for (study, label), part in seen.groupby(["study", "label"], sort=True):
        for contrast in settings.by:
            rows: list[Row] = []
            for a, b in _pairs(part, subjects, str(label), contrast, settings, out.notes):
                about = {
                    "study": study,
                    "contrast": contrast,
                    "within": a.within,
                    "label": label,
                    "arm_a": a.name,
                    "arm_b": b.name,
                }
                one, other = (part[part["subject"].isin(arm.animals)] for arm in (a, b))
                rows += [about | r for r in (*_values(one, other, level), *_areas(one, other, level))]
                if contrast == "group":
                    rows += [about | r for r in _parameters(pooled, about, level)]
            _adjust(rows, settings.multiplicity)
            out.rows += rows
    return out


def _pairs(
    part: pd.DataFrame, subjects: Sequence[Mapping[str, Any]], label: str, contrast: str, settings: GroupSettings, notes: list[str]
) -> Iterator[tuple[_Arm, _Arm]]:  # fmt: skip
    """Yield the pairs of arms of one label."""
    for within, arms in _arms(part, subjects, label, contrast).items():
        names = sorted(arms)
        if contrast == "group" and settings.compare:
            wanted = [p for p in settings.compare if set(p) <= set(names)]
        elif contrast == "group" and settings.reference:
            wanted = [(n, settings.reference) for n in names if n != settings.reference and settings.reference in arms]
        elif len(names) > MOST_GROUPS:
            notes.append(f"groups: {label} has {len(names)} of them, which make {math.comb(len(names), 2)} pairs; "
                         "name those to compare in compare under [groups]")  # fmt: skip
            continue
        else:
            wanted = list(itertools.combinations(names, 2))
        for a, b in wanted:
            yield _Arm(a, within, frozenset(arms[a])), _Arm(b, within, frozenset(arms[b]))


def _arms(
    part: pd.DataFrame, subjects: Sequence[Mapping[str, Any]], label: str, contrast: str
) -> dict[str, dict[str, set[str]]]:
    """Return animals by arm, by the group that the arms lie within (sexes are compared within their group)."""
    if contrast == "group":
        groups = part.groupby("group")["subject"].unique()
        return {"": {str(g): {str(s) for s in names} for g, names in groups.items()}}
    found: dict[str, dict[str, set[str]]] = {}
    for s in subjects:
        if s["label"] != label or (contrast == "sex" and s.get("sex", "unknown") == "unknown"):
            continue
        arm = f"{s['dose']:g} {s['dose_unit']}" if contrast == "dose" else str(s[contrast])
        within = str(s.get("group", "all")) if contrast == "sex" else ""
        found.setdefault(within, {}).setdefault(arm, set()).add(str(s["subject"]))
    return found


def _single(part: pd.DataFrame) -> pd.DataFrame:
    """Return values of single animals, each once: two kidneys of an animal are not two animals."""
    alone = part[~part["subject"].isin(("pooled", "pooled_rest", "mean")) & part["value"].notna()]
    return alone.groupby(["organ", "unit", "time_h", "subject"])[["value"]].mean().reset_index()


def _below(part: pd.DataFrame) -> set[tuple[str, float]]:
    """Return organs and times with a value below the limit of quantification."""
    lost = part[part["below_lloq"].isin((True, "yes"))]
    return set(zip(lost["organ"], lost["time_h"], strict=True))


def _values(a: pd.DataFrame, b: pd.DataFrame, level: float) -> Iterator[Row]:
    """Compare what organs held at the times that both arms have."""
    below = _below(a) | _below(b)
    one, other = (
        {k: v.to_numpy(float) for k, v in _single(x).groupby(["organ", "unit", "time_h"])["value"]} for x in (a, b)
    )
    for place in sorted(set(one) & set(other)):
        organ, unit, time = place
        flags = ("below_lloq",) if (organ, time) in below else ()
        yield {"organ": organ, "quantity": "value", "time_h": time, "unit": unit,
               **_animals(one[place], other[place], level, flags)}  # fmt: skip


def _animals(x: Any, y: Any, level: float, flags: tuple[str, ...]) -> Row:
    """Compare single animals of two arms."""
    sides = side(x), side(y)
    row = _means(*sides) | {"method": "Welch on the logarithm", "flags": ";".join(flags), "reason": ""}
    if min(s.n for s in sides) < 2:
        return row | _nothing() | {"reason": "one animal in an arm, so nothing says how much animals differ"}
    plain, p = welch(*sides, level)
    row |= _interval("difference", plain) | _interval("hedges_g", hedges_g(x, y, level))
    if (x > 0).all() and (y > 0).all():
        logs, p = welch(side(np.log(x)), side(np.log(y)), level)
        return row | _interval("ratio", _exp(logs)) | {"p": p}
    return (
        row
        | _interval("ratio", Interval())
        | {"p": p, "method": "Welch", "reason": "values of 0 or less have no ratio"}
    )


def _areas(a: pd.DataFrame, b: pd.DataFrame, level: float) -> Iterator[Row]:
    """Compare areas over the times that both arms have: animal by animal where they were followed, else pooled."""
    one, other = _single(a), _single(b)
    kinds = [set(zip(t["organ"], t["unit"], strict=True)) for t in (one, other)]
    for organ, unit in sorted(kinds[0] & kinds[1]):
        x, y = (t[(t["organ"] == organ) & (t["unit"] == unit)] for t in (one, other))
        times = sorted({float(t) for t in x["time_h"]} & {float(t) for t in y["time_h"]})
        if len(times) < 2:
            continue
        x, y = x[x["time_h"].isin(times)], y[y["time_h"].isin(times)]
        span = f"{times[0]:g} to {times[-1]:g} h"
        place = {"organ": organ, "quantity": "auc", "time_h": math.nan, "unit": f"{unit}*h"}
        own = _own_areas(x, times), _own_areas(y, times)
        if len(times) >= _LEAST_TIMES and own[0].size and own[1].size:
            found = _animals(own[0], own[1], level, ())
            yield place | found | {"method": f"areas of animals, {span}; {found['method']}"}
        else:
            found = _pooled(_bailer(x, times), _bailer(y, times), level)
            yield place | found | {"method": f"Bailer, {span}; Welch on the logarithm"}


def _own_areas(part: pd.DataFrame, times: list[float]) -> Any:
    """Return the area of every animal that has a value at all of the times."""
    wide = part.pivot(index="subject", columns="time_h", values="value").reindex(columns=np.asarray(times)).dropna()
    return np.trapezoid(wide.to_numpy(float), np.asarray(times), axis=1)


def _bailer(part: pd.DataFrame, times: Sequence[float]) -> Side:
    """Return the area of the means with its error and Satterthwaite degrees of freedom."""
    steps = np.diff(times)
    weights = (np.r_[steps, 0.0] + np.r_[0.0, steps]) / 2
    sides = [side(part.loc[part["time_h"] == x, "value"]) for x in times]
    parts = [(w * s.se) ** 2 for w, s in zip(weights, sides, strict=True)]
    variance = sum(parts)
    below = sum(v**2 / s.df for v, s in zip(parts, sides, strict=True) if s.df > 0)
    df = variance**2 / below if below > 0 else math.nan
    return Side(
        float(sum(w * s.value for w, s in zip(weights, sides, strict=True))),
        math.sqrt(variance),
        df,
        sum(s.n for s in sides),
    )


def _pooled(a: Side, b: Side, level: float) -> Row:
    """Compare two areas of means."""
    row = _means(a, b) | _interval("hedges_g", Interval()) | {"flags": "", "reason": ""}
    if not (math.isfinite(a.se) and math.isfinite(b.se)):
        return row | _nothing() | {"reason": "one animal at a time, so nothing says how much animals differ"}
    plain, p = welch(a, b, level)
    row |= _interval("difference", plain)
    if min(a.value, b.value) <= 0:
        return row | _interval("ratio", Interval()) | {"p": p, "reason": "areas of 0 or less have no ratio"}
    logs, p = welch(on_log(a), on_log(b), level)
    return row | _interval("ratio", _exp(logs)) | {"p": p}


def _parameters(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], level: float) -> Iterator[Row]:
    """Compare parameters of whole groups that have an error in both."""
    tables: list[dict[tuple[str, str, str], Mapping[str, Any]]] = [{}, {}]
    for r in rows:
        if (r["study"], r["label"]) != (about["study"], about["label"]) or r["subject"] not in ("pooled", "mean"):
            continue
        name = str(r["parameter"])
        if name not in _PARAMETERS and not name.endswith(("_uptake_pct_id", "_peak_pct_id")):
            continue
        for table, arm in zip(tables, ("arm_a", "arm_b"), strict=True):
            if r["group"] == about[arm]:
                table.setdefault((str(r["model"]), str(r["organ"]), name), r)
    for key in sorted(set(tables[0]) & set(tables[1])):
        a, b = (Side(float(t[key]["value"]), float(t[key]["se"]), math.inf, int(t[key]["n"] or 0)) for t in tables)
        if not (a.value > 0 and b.value > 0 and a.se > 0 and b.se > 0):
            continue
        logs = on_log(a), on_log(b)
        se = math.hypot(logs[0].se, logs[1].se)
        from scipy.special import ndtr, ndtri

        half, middle = float(ndtri(0.5 + level / 2)) * se, logs[0].value - logs[1].value
        yield {"organ": key[1], "quantity": f"{key[0]}: {key[2]}", "time_h": math.nan, "unit": tables[0][key]["unit"], **_means(a, b),
               **_interval("difference", Interval(a.value - b.value)), **_interval("hedges_g", Interval()),
               **_interval("ratio", _exp(Interval(middle, middle - half, middle + half))), "p": float(2 * ndtr(-abs(middle) / se)),
               "method": "delta method on the logarithm, normal", "flags": "", "reason": ""}  # fmt: skip


def _means(a: Side, b: Side) -> Row:
    return {"n_a": a.n, "n_b": b.n, "value_a": a.value, "value_b": b.value}


def _interval(name: str, i: Interval) -> Row:
    return {name: i.value, f"{name}_low": i.low, f"{name}_high": i.high}


def _nothing() -> Row:
    blank = [_interval(name, Interval()) for name in ("ratio", "difference", "hedges_g")]
    return {**blank[0], **blank[1], **blank[2], "p": math.nan}


def _exp(i: Interval) -> Interval:
    return Interval(math.exp(i.value), _power(i.low), _power(i.high))


def _power(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf  # an interval of two animals may go beyond every number


def _adjust(rows: list[Row], how: str) -> None:
    """Adjust p-values within values, areas and parameters apart."""
    kinds = {"value": "values", "auc": "areas"}
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(kinds.get(row["quantity"], "parameters"), []).append(row)
    for name, members in families.items():
        tested = sum(not math.isnan(r["p"]) for r in members)
        for row, p in zip(members, adjusted([r["p"] for r in members], how), strict=True):
            row |= {"p_adjusted": float(p), "family": f"{tested} {name}, {how}"}
