"""One organ at one time over all studies of a library: a random-effects meta-analysis that names who entered, who did not, and why.

Studies sample at other times, in other units and of other animals. What is brought together here is said in every row; what
cannot be brought together stays out with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from evbiodist.crossval.consensus import Scale, exp_or_inf, random_effects
from evbiodist.crossval.studies import OverStudies, over_studies
from evbiodist.kinetics.designs.pooling import POOLED
from evbiodist.library.query import Filters, select
from evbiodist.library.store import Part
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.flags import join, split
from evbiodist.study.vocabulary import organ_name

Errors = Literal["own", "shared"]
Row = dict[str, Any]

COLUMNS = (
    "organ", "time_h", "unit", "by", "stratum", "what", "study", "label", "group", "at_h", "value", "se", "ci_low", "ci_high",
    "prediction_low", "prediction_high", "without", "tau", "tau_study", "tau_label", "i2", "q_p", "n_studies", "n_estimates",
    "n_animals", "method", "flags", "reason",
)  # fmt: skip
"""Columns of a meta-analysis, in order. `what` is `estimate` (of a label in a study), `left_out`, `pooled` (of a stratum) or
`difference` (between strata); `without` is the pooled value without the estimate's study."""

_MANY_SMALL = 5
"""So many standard errors from a few animals each let the weights follow their noise."""

BY = ("label", "label_kind", "route", "species", "sex", "source_cell", "carrier", "strain")
"""What studies can be parted by."""


@dataclass(frozen=True)
class Asked:
    """What is to be pooled.

    Parameters
    ----------
    organ, time_h, unit : the quantity; unit is ``pct_id`` or ``pct_id_per_g``.
    window : how far from the time a sample may lie, as a share of the time.
    by : a word of `BY`, to pool each of its values apart as well; empty for all together.
    model : take the fitted curve of this model at the very time in place of the nearest sample.
    scale : ``log`` as quantities that cannot be negative and differ by factors ask for, or ``linear``.
    errors : ``own`` takes each study's standard error; ``shared`` one coefficient of variation between animals, pooled over
        the studies, over the root of each one's animals: steadier where each has three or four, and a study without SD enters.
    level : of the intervals.
    """

    organ: str
    time_h: float
    unit: str = "pct_id_per_g"
    window: float = 0.25
    by: str = ""
    model: str = ""
    scale: Scale = "log"
    errors: Errors = "own"
    level: float = 0.95

    def __post_init__(self) -> None:
        wrong = {
            "unit": (self.unit, "pct_id or pct_id_per_g") if self.unit not in ("pct_id", "pct_id_per_g") else None,
            "by": (self.by, "one of " + ", ".join(BY)) if self.by and self.by not in BY else None,
            "window": (self.window, "a share from 0 to 1") if not 0 <= self.window <= 1 else None,
            "time": (self.time_h, "hours of 0 or more")
            if not (self.time_h >= 0 and math.isfinite(self.time_h))
            else None,
            "errors": (self.errors, "own or shared") if self.errors not in ("own", "shared") else None,
        }
        for name, said in wrong.items():
            if said:
                raise ValueError(f"{name}: found {said[0]!r}, expected {said[1]}; correct it.")


@dataclass(frozen=True)
class OneValue:
    """What one label of one study says, in the unit asked for.

    Parameters
    ----------
    study, label, group : whose it is.
    estimate : the value; its error is that between `n` animals.
    systematic : standard error of calibration, the same in all animals of the study.
    at_h : the hour it was sampled at.
    stratum : its value of `by`.
    """

    study: str
    label: str
    group: str
    estimate: Estimate
    at_h: float = math.nan
    stratum: str = ""
    systematic: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Study, and what tells its estimates apart."""
        return self.study, f"{self.label} / {self.group}"


@dataclass(frozen=True)
class MetaAnalysis:
    """Rows with the columns `COLUMNS`, and sentences about what was brought together."""

    rows: list[Row]
    notes: tuple[str, ...] = ()


def meta(
    parts: Sequence[Part], asked: Asked, filters: Filters | None = None, *, with_simulated: bool = False
) -> MetaAnalysis:
    """Pool one organ at one time over the studies of a library.

    Parameters
    ----------
    parts : of the library, mostly `contents(library).current`.
    asked : the quantity and how to pool it.
    filters : which rows count.
    with_simulated : pool simulated studies too.

    Returns
    -------
    One row for every label of every study, entered or left out with the reason, then the pooled ones. With several labels
    or groups in a study the model has three levels, so that they do not count as several studies.

    Raises
    ------
    ValueError : something asked for that is none.

    Notes
    -----
    Models and intervals: `evbiodist.crossval.studies.over_studies` and `evbiodist.crossval.consensus.random_effects`.
    Shared coefficient of variation: Nakagawa et al., Ecol Lett 2023;26:232 for few animals and missing SD, weighted
    here by degrees of freedom.
    """
    filters = filters or Filters()
    asked = replace(asked, organ=organ_name(asked.organ))
    chosen = replace(filters, organ=(), unit=(), time_h=None)
    rows = select(parts, chosen).records()
    curves = _curve_rows(parts, asked, chosen) if asked.model else []
    values = one_values(rows, asked, curves, with_simulated=with_simulated)
    found = pool(values, asked)
    return replace(found, notes=(*found.notes, *_notes(rows, found.rows)))


def _curve_rows(parts: Sequence[Part], asked: Asked, filters: Filters) -> list[Row]:
    known = Filters(study=filters.study, label=())
    return [
        r for r in select(parts, known, "curves").records() if r["model"] == asked.model and r["organ"] == asked.organ
    ]


def one_values(
    rows: Iterable[Mapping[str, Any]], asked: Asked, curves: Iterable[Row] = (), *, with_simulated: bool = False
) -> list[OneValue]:
    """Return what every label and group of every study says of the quantity, or why it says nothing.

    Parameters
    ----------
    rows : of the library's observations.
    asked : the quantity.
    curves : of the library's curves, for `asked.model`.
    with_simulated : take simulated studies too.
    """
    arms: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        arms.setdefault((row["study"], row["label"], row["group"]), []).append(row)
    points: dict[tuple[str, str, str], list[Row]] = {}
    for point in curves:
        points.setdefault((point["study"], point["label"], point["group"]), []).append(point)
    found = []
    for key, arm in sorted(arms.items()):
        estimate, at, systematic = _of_arm(arm, asked, points.get(key, []), with_simulated)
        found.append(OneValue(*key, estimate, at, _stratum(arm, asked.by), systematic))
    return found


def _stratum(arm: Sequence[Mapping[str, Any]], by: str) -> str:
    if not by:
        return ""
    column = "label_name" if by == "label" else by
    words = sorted({str(r[column]) for r in arm if r[column] is not None})
    return " and ".join(words) if words else "not told"


_Value = tuple[Estimate, float, float]


def _none(asked: Asked, reason: str) -> _Value:
    return Estimate(asked.organ, unit=asked.unit, reason=reason), math.nan, 0.0


def _of_arm(arm: Sequence[Mapping[str, Any]], asked: Asked, points: Sequence[Row], with_simulated: bool) -> _Value:
    """Return an arm's value, the hour it holds for and its systematic error; the steps in which an arm drops out."""
    control = next((r["control"] for r in arm if r["control"]), None)
    if control:
        return _none(asked, f"a control ({control}), no labelled vesicles")
    if any(r["simulated"] for r in arm) and not with_simulated:
        return _none(asked, "simulated")
    of_organ = [r for r in arm if r["organ"] == asked.organ]
    if not of_organ:
        return _none(asked, f"no value of {asked.organ}")
    if asked.model:
        return _from_curve(of_organ, points, asked)
    in_unit = [r for r in (_converted(row, asked.unit) for row in of_organ) if r is not None]
    if not in_unit:
        units = ", ".join(sorted({r["unit"] for r in of_organ}))
        return _none(asked, f"its values are in {units}, and no mass of the organ leads to {asked.unit}")
    at = min({r["time_h"] for r in in_unit}, key=lambda t: (abs(t - asked.time_h), t))
    if abs(at - asked.time_h) > asked.window * asked.time_h * (1 + 1e-9):
        return _none(
            asked, f"sampled at {at:.4g} h at the nearest, which is beyond {asked.window:.0%} of {asked.time_h:g} h"
        )
    then = [r for r in in_unit if r["time_h"] == at]
    measured = [r for r in then if "converted" not in r]
    systematic = max(r["se_systematic"] or 0.0 for r in measured or then)
    return _mean(measured or then, asked), at, systematic


def _converted(row: Mapping[str, Any], unit: str) -> Row | None:
    """Return a row in % of dose or % of dose per gram; None where it is in neither or the organ was not weighed."""
    if row["unit"] == unit:
        return dict(row)
    mass = row["mass_g"]
    if mass is None or {row["unit"], unit} != {"pct_id", "pct_id_per_g"}:
        return None
    factor = mass if unit == "pct_id" else 1 / mass
    scaled = {k: None if row[k] is None else row[k] * factor for k in ("value", "se", "sd", "se_systematic")}
    return {**row, **scaled, "unit": unit, "converted": True}


def _mean(rows: Sequence[Mapping[str, Any]], asked: Asked) -> Estimate:
    """Return the mean over animals of one time, or the mean that the source gives; missing where values are below a limit."""
    flags = tuple(sorted({flag for r in rows for flag in split(r["flags"] or "")} - {"below_lloq"}))
    empty = Estimate(asked.organ, unit=asked.unit, flags=flags, reason="no value")
    below = sum(1 for r in rows if r["value"] is None)
    if below:
        return replace(empty, reason=f"{below} of {len(rows)} values are below the limit of quantification")
    means = [r for r in rows if (r["n"] or 0) > 1 or r["sd"] is not None or r["subject"] == POOLED]
    if means and len(rows) > 1:
        return replace(empty, reason="several means at this time in one group; their animals may be the same")
    if means:
        value, se, n, method = means[0]["value"], means[0]["se"], means[0]["n"] or 0, "mean as published"
        why = "the source gives no error of its mean"
    else:
        value, se, n = _over_animals(rows)
        method, why = "mean of animals", "one animal, whose error says nothing of others"
    error, how = (math.nan if se is None else float(se)), ", by the organ's mass" if "converted" in rows[0] else ""
    return replace(empty, value=float(value), se=error, n=int(n), method=method + how, reason=why if se is None else "")


def _over_animals(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float | None, int]:
    """Return mean, standard error and number of animals; readings of one animal are averaged first."""
    animals: dict[str, list[float]] = {}
    for r in rows:
        animals.setdefault(r["subject"], []).append(r["value"])
    values = np.array([np.mean(v) for v in animals.values()])
    se = float(np.std(values, ddof=1)) / math.sqrt(values.size) if values.size > 1 else None
    return float(np.mean(values)), se, values.size


def _from_curve(of_organ: Sequence[Mapping[str, Any]], points: Sequence[Row], asked: Asked) -> _Value:
    """Return the fitted curve's value at the time, its standard error from the width of its interval."""
    here = sorted((p for p in points if p["unit"] == asked.unit and p["value"] is not None), key=lambda p: p["time_h"])
    last = max(r["time_h"] for r in of_organ)
    if not here:
        return _none(asked, f"no curve of {asked.model} in {asked.unit}")
    if not here[0]["time_h"] <= asked.time_h <= last:
        return _none(asked, f"its last sample is at {last:g} h, and curves are not taken beyond")
    t = [p["time_h"] for p in here]
    value, low, high = (float(np.interp(asked.time_h, t, [np.nan if p[k] is None else p[k] for p in here]))
                        for k in ("value", "low", "high"))  # fmt: skip
    level = here[0]["interval_level"] or 0.95
    se = (high - low) / (2 * student(level, math.inf))
    n = (
        len({r["subject"] for r in of_organ})
        if all(r["n"] is None for r in of_organ)
        else max(r["n"] or 0 for r in of_organ)
    )
    known = math.isfinite(se)
    found = Estimate(asked.organ, value, se if known else math.nan, unit=asked.unit, n=n, method=f"curve of {asked.model}",
                     reason="" if known else "the curve has no interval")  # fmt: skip
    return found, asked.time_h, 0.0


def pool(values: Sequence[OneValue], asked: Asked) -> MetaAnalysis:
    """Pool values of studies: all of them, each stratum apart, and the difference between strata.

    Examples
    --------
    >>> seen = [OneValue(s, "111In", "all", Estimate("liver", v, 0.1 * v, n=4), 24.0)
    ...         for s, v in (("a", 10.0), ("b", 14.0), ("c", 18.0))]
    >>> found = pool(seen, Asked("liver", 24.0)).rows[-1]
    >>> found["what"], round(found["value"], 2), found["n_studies"], found["n_animals"]
    ('pooled', 13.61, 3, 12)
    """
    notes = []
    if asked.errors == "shared":
        values, said = _with_shared_errors(values)
        notes.append(said)
    values = [_with_systematic(v) for v in values]
    everything, why = _pooled(values, asked)
    rows = [_value_row(v, asked, why, everything, values) for v in values]
    strata = sorted({v.stratum for v in values if v.key not in why}) if asked.by else []
    apart = [(s, [v for v in values if v.stratum == s]) for s in strata]
    pooled = [(s, members, _pooled(members, asked)[0]) for s, members in apart]
    rows += [_pooled_row(found, asked, stratum, members, why) for stratum, members, found in pooled]
    if len(pooled) > 1:
        rows.append(_difference_row([found for _, _, found in pooled], asked))
    rows.append(_pooled_row(everything, asked, "all", values, why))
    return MetaAnalysis(rows, tuple(notes))


def _with_shared_errors(values: Sequence[OneValue]) -> tuple[list[OneValue], str]:
    """Give every mean the standard error that the studies' common coefficient of variation between animals leads to."""
    told = [v.estimate for v in values if v.estimate.n > 1 and v.estimate.se > 0 and v.estimate.value > 0]
    df = sum(e.n - 1 for e in told)
    if not df:
        return list(
            values
        ), "no study tells the spread of its animals, so there is no coefficient of variation to share"
    cv = math.sqrt(sum((e.n - 1) * e.n * (e.se / e.value) ** 2 for e in told) / df)

    def shared(v: OneValue) -> OneValue:
        e = v.estimate
        if not (e.value > 0 and e.n >= 1):
            return v
        return replace(
            v, estimate=replace(e, se=cv * e.value / math.sqrt(e.n), reason="", method=f"{e.method}, shared CV")
        )

    return [shared(v) for v in values], (
        f"every standard error is {cv:.0%} of the value over the root of its animals: the coefficient of variation "
        f"between animals over {df} degrees of freedom"
    )


def _with_systematic(v: OneValue) -> OneValue:
    return replace(v, estimate=replace(v.estimate, se=math.hypot(v.estimate.se, v.systematic)), systematic=0.0)


def _pooled(values: Sequence[OneValue], asked: Asked) -> tuple[OverStudies, dict[tuple[str, str], str]]:
    found = over_studies({v.key: v.estimate for v in values}, scale=asked.scale, level=asked.level)
    return found, dict(found.left_out)


def _place(asked: Asked) -> Row:
    return {"organ": asked.organ, "time_h": asked.time_h, "unit": asked.unit, "by": asked.by}


def _value_row(
    v: OneValue, asked: Asked, why: Mapping[tuple[str, str], str], everything: OverStudies, values: Sequence[OneValue]
) -> Row:
    e, out = v.estimate, why.get(v.key, "")
    low, high = _interval(e, asked)
    without = math.nan
    if not out and everything.n_studies > 2:
        without = _pooled([other for other in values if other.study != v.study], asked)[0].estimate
    return _place(asked) | {
        "stratum": v.stratum, "what": "left_out" if out else "estimate", "study": v.study, "label": v.label, "group": v.group,
        "at_h": v.at_h, "value": e.value, "se": e.se, "ci_low": low, "ci_high": high, "without": without,
        "n_animals": e.n or None, "method": e.method, "flags": join(e.flags), "reason": out,
    }  # fmt: skip


def _interval(e: Estimate, asked: Asked) -> tuple[float, float]:
    if not (e.se > 0 and (asked.scale == "linear" or e.value > 0)):
        return math.nan, math.nan
    reach = student(asked.level, e.n - 1 if e.n > 1 else math.inf)
    if asked.scale == "linear":
        return e.value - reach * e.se, e.value + reach * e.se
    return e.value * math.exp(-min(reach * e.se / e.value, 700)), e.value * exp_or_inf(reach * e.se / e.value)


def _pooled_row(
    found: OverStudies, asked: Asked, stratum: str, members: Sequence[OneValue], why: Mapping[tuple[str, str], str]
) -> Row:
    entered = [v for v in members if v.key not in why]
    parts = [x for x in (found.var_study, found.var_label) if math.isfinite(x)]
    shares = [x for x in (found.i2_study, found.i2_label) if math.isfinite(x)]
    return _place(asked) | {
        "stratum": stratum, "what": "pooled", "value": found.estimate, "se": found.se, "ci_low": found.ci_low,
        "ci_high": found.ci_high, "prediction_low": found.prediction_low, "prediction_high": found.prediction_high,
        "tau": math.sqrt(sum(parts)) if parts else math.nan, "tau_study": math.sqrt(found.var_study),
        "tau_label": math.sqrt(found.var_label), "i2": sum(shares) if shares else math.nan, "q_p": found.q_p,
        "n_studies": found.n_studies, "n_estimates": found.n, "n_animals": sum(v.estimate.n for v in entered) or None,
        "method": found.method, "flags": join(found.flags), "reason": _pooled_reason(found),
    }  # fmt: skip


def _pooled_reason(found: OverStudies) -> str:
    if not found.n:
        return "no study entered"
    return "one study only, so nothing is known of the spread between studies" if found.n_studies == 1 else found.reason


def _difference_row(found: Sequence[OverStudies], asked: Asked) -> Row:
    """Return the test that strata agree, each with the spread of its own studies in its standard error."""
    able = [f for f in found if f.n_studies > 1 and f.se > 0]
    row = _place(asked) | {"stratum": "", "what": "difference"}
    if len(able) < 2:
        return row | {"reason": "fewer than two strata have two studies or more, so strata cannot be compared"}
    log = asked.scale == "log"
    tested = random_effects([math.log(f.estimate) if log else f.estimate for f in able],
                            [f.se / f.estimate if log else f.se for f in able], level=asked.level)  # fmt: skip
    return row | {
        "q_p": tested.q_p,
        "n_estimates": len(able),
        "method": "Cochran's Q between strata, normal",
        "reason": "",
    }


def _notes(rows: Sequence[Mapping[str, Any]], found: Sequence[Row]) -> list[str]:
    """Return sentences about what differs between studies that entered and is not modelled."""
    entered = {r["study"]: split(r["flags"]) for r in found if r["what"] == "estimate"}
    notes = []
    carriers: dict[str, set[str]] = {}
    for r in rows:
        if r["study"] in entered:
            carriers.setdefault(r["carrier"] or "not told", set()).add(r["study"])
    if set(carriers) - {"vesicles"}:
        told = "; ".join(f"{word}: {', '.join(sorted(names))}" for word, names in sorted(carriers.items()))
        notes.append(f"not all of what was injected is known to be vesicles ({told})")
    few = [
        r["n_animals"]
        for r in found
        if r["what"] == "estimate" and "shared" not in r["method"] and (r["n_animals"] or 9) < 6
    ]
    if len(few) >= _MANY_SMALL:
        notes.append(f"{len(few)} standard errors rest on fewer than six animals; where studies hardly differ, the interval is then "
                     "too narrow (docs/library.md): compare with --errors shared")  # fmt: skip
    perfused = {r["study"] for r in rows if r["perfused"]}
    holds = {study for study, flags in entered.items() if "blood_subtracted" not in flags and study not in perfused}
    if holds and holds != set(entered):
        notes.append(f"vessel blood is part of the values of {', '.join(sorted(holds))} and not of the others")
    return notes
