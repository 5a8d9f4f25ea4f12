"""A study's labels against each other, pair by pair and organ by organ: rows of agreement.csv and of rank agreement.

Labels are compared on the same quantity in the same unit: the mean of an organ at a time, over the animals of a group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.concordance import icc
from evbiodist.crossval.limits import Limits, limits, limits_of_replicated_pairs, ratio_of, slope_of_difference
from evbiodist.crossval.lines import passing_bablok
from evbiodist.crossval.pairs import FloatArray
from evbiodist.crossval.ranks import kendall_w
from evbiodist.crossval.replicates import Within, within_of
from evbiodist.study.flags import join

if TYPE_CHECKING:
    import pandas as pd

ICH_M10_NOTE = "Bias between labels is described with its interval, as ICH M10 asks of a cross validation; nothing passes or fails."

#: Columns of agreement.csv, in order; `ratio` is the geometric mean of label_a over label_b.
AGREEMENT_COLUMNS = (
    "study", "group", "organ", "unit", "label_a", "label_b", "n", "bias", "bias_low", "bias_high", "loa_low", "loa_high", "ccc",
    "ccc_low", "ccc_high", "deming_slope", "deming_slope_low", "deming_slope_high", "deming_intercept", "ratio",
    "ratio_low", "ratio_high", "ratio_n",
    "loa_low_low", "loa_low_high", "loa_high_low", "loa_high_high", "method",
    "slope_of_difference", "slope_of_difference_low", "slope_of_difference_high",
    "deming_intercept_low", "deming_intercept_high",
    "passing_bablok_slope", "passing_bablok_slope_low", "passing_bablok_slope_high",
    "passing_bablok_intercept", "passing_bablok_intercept_low", "passing_bablok_intercept_high",
    "icc", "icc_low", "icc_high", "ratio_loa_low", "ratio_loa_high",
    "flags", "reason",
)  # fmt: skip
#: Columns of the rank agreement of organs; `time_h` is a time or `all` for the area under the curve.
RANK_COLUMNS = (
    "study", "group", "unit", "time_h", "labels", "organs", "kendall_w", "p", "n_labels", "n_organs", "order", "reason",
)  # fmt: skip
ALL_ORGANS = "all"
ALL_TIMES = "all"
POOLED = "pooled"
"""Subject of published means, which is no animal: it never pairs two labels."""

_LIMITS = (
    "bias",
    "bias_low",
    "bias_high",
    "loa_low",
    "loa_high",
    "loa_low_low",
    "loa_low_high",
    "loa_high_low",
    "loa_high_high",
)


def agreement_rows(observations: pd.DataFrame, level: float = 0.95) -> list[dict[str, Any]]:
    """Compare every pair of labels per organ, and over all organs, on means at times both have.

    Parameters
    ----------
    observations : with the columns of observations.csv. Where a mean rests on several animals (or on a published SD and n)
        the limits of agreement are those of single animals, as the column `method` says.
    level : of the intervals.

    Returns
    -------
    list of dict : columns `AGREEMENT_COLUMNS`; a pair without common times has its reason. Bias is
        described; nothing passes or fails (ICH M10, cross validation).
    """
    rows: list[dict[str, Any]] = []
    for (study, group, unit), part in _seen(observations).groupby(["study", "group", "unit"], sort=True):
        cells = _cells(part)
        organs = sorted(set(cells.organ.tolist()))
        for a, b in itertools.combinations(sorted(part["label"].unique()), 2):
            both = np.isfinite(cells.mean[a]) & np.isfinite(cells.mean[b])
            animals = _animals(part, cells, a, b)
            for organ in [*organs, ALL_ORGANS] if len(organs) > 1 else organs:
                here = both if organ == ALL_ORGANS else both & (cells.organ == organ)
                place = {"study": study, "group": group, "organ": organ, "unit": unit, "label_a": a, "label_b": b}
                rows.append(place | _compare(_pairs(cells, here, a, b, animals), level))
    return rows


def _seen(observations: pd.DataFrame) -> pd.DataFrame:
    return observations[observations["value"].notna() & ~observations["below_lloq"].astype(bool)]


_PLACE = ["organ", "time_h", "label"]


class _Cells(NamedTuple):
    """Organs and times of a group (P places), and what each label has there; NaN where it has nothing."""

    organ: npt.NDArray[np.str_]
    place: dict[Any, int]
    mean: dict[str, FloatArray]
    var: dict[str, FloatArray]
    log_var: dict[str, FloatArray]
    n: dict[str, FloatArray]


def _cells(part: pd.DataFrame) -> _Cells:
    """Return mean, variance, variance of logarithms and number of animals of each organ and time, by label."""
    value = part["value"].to_numpy(float)
    rows = part[_PLACE].assign(value=value, log=np.log(np.where(value > 0, value, np.nan)))
    groups = rows.groupby(_PLACE, sort=True)
    found = groups["value"].agg(["mean", "var", "size"]).rename(columns={"size": "n"}).astype(float)
    logs = groups["log"].agg(["var", "count"])
    found["log_var"] = logs["var"].where(logs["count"] == found["n"])
    if {"sd", "n"} <= set(part.columns):
        _add_published(part, found)
    wide = {name: found[name].unstack("label") for name in ("mean", "var", "log_var", "n")}
    index = wide["mean"].index
    place = {where: i for i, where in enumerate(index)}
    columns = [{str(label): t[label].to_numpy(float) for label in t} for t in wide.values()]
    return _Cells(index.get_level_values("organ").to_numpy().astype(str), place, *columns)


def _add_published(part: pd.DataFrame, found: pd.DataFrame) -> None:
    """Take the scatter of published means, one row that stands for n animals, from their SD."""
    import pandas as pd

    published = part[_PLACE].assign(
        sd=pd.to_numeric(part["sd"], errors="coerce"), animals=pd.to_numeric(part["n"], errors="coerce")
    )
    alone = published.groupby(_PLACE, sort=True)[["sd", "animals"]].first().reindex(found.index)
    use = ((found["n"] == 1) & (alone["animals"] >= 2) & (alone["sd"] >= 0)).to_numpy()
    sd, mean = alone["sd"].to_numpy(float)[use], found["mean"].to_numpy(float)[use]
    found.loc[use, "n"] = alone["animals"].to_numpy(float)[use]
    found.loc[use, "var"] = sd**2
    # the variance of a logarithm from mean and SD, of values that are lognormal
    found.loc[use, "log_var"] = np.log1p((sd / np.where(mean > 0, mean, np.nan)) ** 2)


class _Pairs(NamedTuple):
    """Means of two labels at common organs and times, with what is known of the animals behind them."""

    a: FloatArray
    b: FloatArray
    within: tuple[Within, Within]
    positive: npt.NDArray[np.bool_]
    log_within: tuple[Within, Within]
    animals: list[FloatArray]


def _pairs(cells: _Cells, here: npt.NDArray[np.bool_], a: str, b: str, animals: dict[int, FloatArray]) -> _Pairs:
    positive = here & (np.nan_to_num(cells.mean[a]) > 0) & (np.nan_to_num(cells.mean[b]) > 0)
    own = [animals[i] for i in np.flatnonzero(here).tolist() if i in animals]
    return _Pairs(
        cells.mean[a][here], cells.mean[b][here],
        (_within(cells.var[a][here], cells.n[a][here]), _within(cells.var[b][here], cells.n[b][here])),
        positive[here],
        (_within(cells.log_var[a][positive], cells.n[a][positive]),
         _within(cells.log_var[b][positive], cells.n[b][positive])),
        own if len(own) == here.sum() else [],
    )  # fmt: skip


def _within(variances: FloatArray, sizes: FloatArray) -> Within:
    """Pool a label's scatter; where one mean's scatter is not known (a logarithm of zero) it counts as one value."""
    known = np.isfinite(variances)
    return within_of(np.where(known, variances, 0.0), np.where(known, sizes, 1.0))


def _animals(part: pd.DataFrame, cells: _Cells, a: str, b: str) -> dict[int, FloatArray]:
    """Return (animals, 2) values by place where every animal there carries both labels; published means are no animals."""
    if "subject" not in part:
        return {}
    two = part[part["label"].isin([a, b]) & (part["subject"] != POOLED)]
    of = [set(two.loc[two["label"] == label, "subject"]) for label in (a, b)]
    if not of[0] & of[1]:
        return {}
    wide = two.pivot_table(index=["organ", "time_h", "subject"], columns="label", values="value", aggfunc="mean")[
        [a, b]
    ]
    found = {}
    for (organ, time, *_), values in wide.groupby(level=["organ", "time_h"]):
        table = values.to_numpy(float)
        if np.isfinite(table).all():
            found[cells.place[organ, time]] = table
    return found


def _compare(pairs: _Pairs, level: float) -> dict[str, Any]:
    """Return one row's numbers, with the reasons of those that are missing."""
    a, b = pairs.a, pairs.b
    if a.size == 0:
        return {"n": 0, "reason": "the two labels have no time in common", "flags": ""}
    described = agreement(a, b, level=level)
    found = {k: v for k, v in vars(described).items() if k in AGREEMENT_COLUMNS}
    found["flags"] = join(described.flags)
    found |= _logs(pairs, level)
    if a.size < 3:
        return found
    spread, slope = _spread(pairs, level), slope_of_difference(a, b, level)
    line, consistency = passing_bablok(a, b, level), icc(np.column_stack([a, b]), level)["icc2"]
    reasons = [described.reason, spread.reason, slope.reason, line.reason, consistency.reason]
    found |= {name: getattr(spread, name) for name in _LIMITS} | {"method": spread.method}
    found |= _interval("slope_of_difference", slope.slope, slope.low, slope.high)
    found |= _interval("passing_bablok_slope", line.slope, line.slope_low, line.slope_high)
    found |= _interval("passing_bablok_intercept", line.intercept, line.intercept_low, line.intercept_high)
    found |= _interval("icc", consistency.value, consistency.low, consistency.high)
    return found | {"reason": "; ".join(dict.fromkeys(r for r in reasons if r))}


def _interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _spread(pairs: _Pairs, level: float) -> Limits:
    """Return limits of agreement by what the design allows: animals with both labels, replicates, or means alone."""
    if any(len(t) > 1 for t in pairs.animals):
        return limits_of_replicated_pairs([t[:, 0] - t[:, 1] for t in pairs.animals], level)
    return limits(pairs.a, pairs.b, within=pairs.within, level=level)


def _logs(pairs: _Pairs, level: float) -> dict[str, Any]:
    """Return the ratio of the labels with its limits, where three pairs are above zero."""
    positive = pairs.positive
    if positive.sum() < 3:
        return {}
    if any(len(t) > 1 for t in pairs.animals) and all((t > 0).all() for t in pairs.animals):
        logs = limits_of_replicated_pairs([np.log(t[:, 0] / t[:, 1]) for t in pairs.animals], level)
    else:
        logs = limits(np.log(pairs.a[positive]), np.log(pairs.b[positive]), within=pairs.log_within, level=level)
    r = ratio_of(logs)
    return _interval("ratio", r.ratio, r.low, r.high) | {
        "ratio_n": r.n, "ratio_loa_low": r.loa_low, "ratio_loa_high": r.loa_high,
    }  # fmt: skip


def rank_rows(observations: pd.DataFrame) -> list[dict[str, Any]]:
    """Say whether the labels of a group put its organs in one order, by area under the curve and at each common time.

    Parameters
    ----------
    observations : with the columns of observations.csv.

    Returns
    -------
    list of dict : columns `RANK_COLUMNS`. Organs are ranked on means over animals; the area (linear trapezoid) is over the
        times that all labels have. Organs that a label lacks at these times are left out and named in `reason`.
    """
    rows: list[dict[str, Any]] = []
    for (study, group, unit), part in _seen(observations).groupby(["study", "group", "unit"], sort=True):
        labels = sorted(part["label"].unique())
        if len(labels) < 2:
            continue
        place = {"study": study, "group": group, "unit": unit}
        means = part.groupby(["label", "organ", "time_h"], sort=True)["value"].mean().unstack("time_h")
        grid = {str(o): g.droplevel("organ").reindex(labels) for o, g in means.groupby(level="organ", sort=True)}
        rows.append(place | {"time_h": ALL_TIMES} | _by_area(grid, labels))
        rows += [place | {"time_h": t} | _by_value(grid, labels, t) for t in sorted(part["time_h"].unique().tolist())]
    return rows


def _by_area(grid: dict[str, pd.DataFrame], labels: list[str]) -> dict[str, Any]:
    """Rank organs by the area under their curves over times that at least half of the organs have with every label."""
    complete = {o: set(g.columns[g.notna().all(axis=0)]) for o, g in grid.items()}
    able = [o for o, times in complete.items() if len(times) >= 2]
    every = sorted(set().union(*complete.values()))
    times = [t for t in every if 2 * sum(t in complete[o] for o in able) >= len(able) > 0]
    if len(times) < 2:
        return _ranked({}, labels, "the labels have fewer than two times in common, and an area needs two")
    used = {o: g[times].to_numpy(float) for o, g in grid.items() if complete[o].issuperset(times)}
    missing = [o for o in grid if o not in used]
    t = np.asarray(times, dtype=np.float64)
    note = f"area from {t[0]:g} to {t[-1]:g} h over {t.size} times"
    if missing:
        note += f"; left out, as a label lacks one of them: {', '.join(missing)}"
    return _ranked({o: (v[:, 1:] + v[:, :-1]) @ np.diff(t) / 2 for o, v in used.items()}, labels, note)


def _by_value(grid: dict[str, pd.DataFrame], labels: list[str], t: float) -> dict[str, Any]:
    """Rank organs by their values at one time."""
    used = {o: g[t].to_numpy(float) for o, g in grid.items() if t in g and bool(g[t].notna().all())}
    missing = [o for o in grid if o not in used]
    return _ranked(used, labels, f"left out, as a label lacks it: {', '.join(missing)}" if missing else "")


def _ranked(values: dict[str, FloatArray], labels: list[str], note: str) -> dict[str, Any]:
    organs = list(values)
    row: dict[str, Any] = {"labels": ";".join(labels), "organs": ";".join(organs), "kendall_w": math.nan, "p": math.nan,
                           "n_labels": len(labels), "n_organs": len(organs), "order": "", "reason": note}  # fmt: skip
    if len(organs) < 2:
        why = f"{len(organs)} organs have a value with every label, and an order needs 2"
        return row | {"reason": f"{why}; {note}" if note else why}
    table = np.column_stack([values[o] for o in organs])
    found = kendall_w(table)
    order = "; ".join(f"{label}: {_order(organs, readings)}" for label, readings in zip(labels, table, strict=True))
    return row | {"kendall_w": found.w, "p": found.p, "order": order,
                  "reason": "; ".join(r for r in (found.reason, note) if r)}  # fmt: skip


def _order(organs: Sequence[str], readings: FloatArray) -> str:
    """Write organs from the highest reading down, with an equals sign between tied ones.

    Examples
    --------
    >>> _order(["brain", "liver", "lung"], np.array([1.0, 9.0, 1.0]))
    'liver > brain = lung'
    """
    down = np.argsort(-readings, kind="stable")
    text = organs[down[0]]
    for before, after in itertools.pairwise(down):
        text += f" {'=' if readings[before] == readings[after] else '>'} {organs[after]}"
    return text
