"""An observations table in, rows of the parameters table out: NCA and model fits of a whole study.

What cannot be analysed is a row with its reason; nothing here ends a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.designs.batch_design import batch_auc
from evbiodist.kinetics.designs.mean_curve import trapezoid_weights
from evbiodist.kinetics.designs.pooling import POOLED, Curve, make_curve, split_animals
from evbiodist.kinetics.designs.ratio import kp, kp_paired
from evbiodist.kinetics.designs.sparse import SparseAuc, bailer_summary
from evbiodist.kinetics.fitting.fit import FitResult, fit
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.kinetics.models.catalogue import Models, build, needs_organs
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.physiology import SPECIES, faster_than_liver
from evbiodist.kinetics.nca.nca import NcaResult, nca
from evbiodist.kinetics.nca.parameters import IV_ROUTES, ROUTES
from evbiodist.kinetics.nca.rules import rules_of
from evbiodist.kinetics.nca.tissue import pct_injected, uptake_clearance
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.flags import join, split
from evbiodist.study.model import KineticsSettings, LambdaZChoice
from evbiodist.study.vocabulary import BLOOD, WHOLE_ANIMAL

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
#: Columns of parameters.csv, in order.
PARAMETER_COLUMNS = ("study", "subject", "group", "label", "organ", "model", "parameter", "value", "se", "ci_low",
                     "ci_high", "unit", "method", "n", "flags", "reason")  # fmt: skip
#: How small a step the shared error is tried with, as a share of itself; the effect is linear.
_STEP = 1e-3
#: Times this close, relatively, are one: tables and sentences show six digits.
_SAME_TIME = 1e-5


@dataclass(frozen=True)
class Dosing:
    """What an animal got: amount, unit, route and how long an infusion took; NaN and empty where unknown.

    `perfused` is how it ended: whether the blood was washed out of its vessels.
    """

    dose: float = math.nan
    dose_unit: str = ""
    route: str = ""
    infusion_h: float = 0.0
    perfused: bool = False

    def for_unit(self, unit: str) -> tuple[float, str]:
        """Return the dose that belongs to values in a unit: those in % of dose have a dose of 100 %."""
        return (100.0, "pct_id") if unit.startswith("pct_id") else (self.dose, self.dose_unit)


#: What every animal got, by (group, subject, label).
Dosings = Mapping[tuple[str, str, str], Dosing]


def common_dosing(part: pd.DataFrame, dosing: Dosings) -> Dosing:
    """Return what all animals of some rows got.

    Returns
    -------
    Dosing : with a dose of NaN where doses differ, which matters only for values that are not in % of dose.

    Raises
    ------
    ValueError : a route that is unknown or not the same for all.
    """
    who = part[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    given = [dosing.get((str(g), str(s), str(label)), Dosing()) for g, s, label in who]
    routes = sorted({d.route for d in given})
    if routes == [""] or not routes:
        raise ValueError("the route is not known; give it in subjects.csv or by --route")
    if len(routes) > 1:
        raise ValueError(f"animals got their dose by different routes ({', '.join(r or 'unknown' for r in routes)}); "
                         "put them into groups of their own")  # fmt: skip
    lasts = sorted({d.infusion_h for d in given})
    if len(lasts) > 1:
        raise ValueError(
            f"infusions took {', '.join(f'{h:g}' for h in lasts)} h; put such animals into groups of their own"
        )
    if routes == ["iv_infusion"] and lasts == [0.0]:
        raise ValueError("the dose was infused, but for how long is not known; give infusion_h in subjects.csv")
    doses = {(d.dose, d.dose_unit) for d in given}
    return given[0] if len(doses) == 1 else Dosing(math.nan, "", routes[0], lasts[0])


def nca_parameters(
    observations: pd.DataFrame, dosing: Dosings, settings: KineticsSettings, *, pool: bool = False
) -> list[dict[str, Any]]:
    """Return the NCA parameters of every organ, label and group as rows of parameters.csv.

    Parameters
    ----------
    observations : with the columns of observations.csv.
    dosing : what every animal got.
    settings : rules of the analysis.
    pool : pool animals by time even where each has a curve of its own.

    Returns
    -------
    list of dict : with the columns `PARAMETER_COLUMNS`. Animals sampled at three times or more have parameters of
        their own (and a mean over animals where there are two or more), the others are pooled by time. What cannot be
        analysed has its reason.
    """
    rows: list[dict[str, Any]] = []
    bloods: dict[tuple[str, str, str], dict[tuple[str, ...], tuple[Curve, pd.DataFrame]]] = {}
    for at, parts in _profiles(observations, pool):
        place = {"study": at.study, "group": at.group, "label": at.label, "organ": at.organ, "model": "nca"}
        blood = bloods.setdefault((at.study, at.group, at.label), {})
        found: list[_Analysed] = []
        for subject, samples, pooled in parts:
            here = {**place, "subject": subject}
            try:
                curve = make_curve(subject, samples, pooled, settings.blq)
                given = common_dosing(samples, dosing)
                analysed = _analyse(curve, samples, at, given, settings)
            except ValueError as err:
                rows.append(_row(here, Estimate("nca", method=_NCA, reason=str(err))))
                continue
            found.append(analysed)
            if at.organ in BLOOD and at.unit == "pct_id_per_g":
                blood.setdefault(curve.animals, (curve, samples))
            extra = []
            if at.organ not in BLOOD:
                extra = [_tissue_ratio(samples, curve, at.unit, blood, given, settings),
                         *_tissue_set(curve, at.unit, blood, given, settings)]  # fmt: skip
            rows += [_row(here, e) for e in [*analysed.estimates, *extra]]
        rows += [_row({**place, "subject": POOLED}, e) for e in _over_animals(found, settings.level)]
    return rows


_NCA = "non-compartmental"


@dataclass(frozen=True)
class _Profile:
    """What is measured where: an organ of a group under a label, in one unit."""

    study: str
    group: str
    label: str
    organ: str
    unit: str


def _profiles(
    observations: pd.DataFrame, pool: bool
) -> Iterator[tuple[_Profile, list[tuple[str, pd.DataFrame, bool]]]]:
    """Go through the curves that a table holds: every profile with its animals and the pool of the rest, blood first."""
    for (study, group, label), part in observations.groupby(["study", "group", "label"], sort=True):
        for organ in sorted(part["organ"].unique(), key=lambda o: (BLOOD.index(o) if o in BLOOD else len(BLOOD), o)):
            for unit, rows in part[part["organ"] == organ].groupby("unit", sort=True):
                at = _Profile(str(study), str(group), str(label), str(organ), str(unit))
                yield at, split_animals(rows, pool)


@dataclass(frozen=True, eq=False)
class TerminalLine:
    """The terminal line of one curve, as a plot needs it on which samples are taken on and off.

    Parameters
    ----------
    study, group, label, organ, unit, subject : which curve.
    time_h, value : (T,) its samples; the value is 0 where it is below the limit.
    positions : samples on the line; empty without one.
    off : by position, why a sample is not on it.
    chosen : whether a choice of `KineticsSettings.lambda_z` holds for the curve.
    lambda_z : its slope, or why there is none.
    """

    study: str
    group: str
    label: str
    organ: str
    unit: str
    subject: str
    time_h: tuple[float, ...]
    value: tuple[float, ...]
    positions: tuple[int, ...]
    off: dict[int, str]
    chosen: bool
    lambda_z: Estimate


def terminal_lines(
    observations: pd.DataFrame, dosing: Dosings, settings: KineticsSettings, *, pool: bool = False
) -> list[TerminalLine]:
    """Return the terminal line of every curve that `nca_parameters` analyses, by the same calls.

    Parameters
    ----------
    observations, dosing, settings, pool : as in `nca_parameters`.

    Returns
    -------
    list of TerminalLine : a curve that cannot be analysed, for instance by a choice of times that it has no sample at,
        has its samples and the reason; rows that make no curve have nothing here, and their reason in `nca_parameters`.

    Examples
    --------
    >>> import pandas as pd
    >>> from evbiodist.batch.pipeline import frame_of
    >>> row = {"study": "s", "group": "g", "subject": "m1", "label": "DiR", "organ": "blood", "unit": "pct_id_per_g",
    ...        "below_lloq": False}
    >>> table = frame_of([{**row, "time_h": t, "value": v} for t, v in ((1, 30), (2, 8), (4, 4), (8, 1))])
    >>> [line] = terminal_lines(table, {("g", "m1", "DiR"): Dosing(route="iv_bolus")}, KineticsSettings())
    >>> line.positions, line.off
    ((1, 2, 3), {0: 'the line fits better without it'})
    """
    lines = []
    for at, parts in _profiles(observations, pool):
        for subject, samples, pooled in parts:
            try:
                curve = make_curve(subject, samples, pooled, settings.blq)
            except ValueError:
                continue
            try:
                given = common_dosing(samples, dosing)
                analysed = _analyse(curve, samples, at, given, settings)
            except ValueError as err:
                route, points = "tissue", tuple[int, ...]()
                slope = Estimate("lambda_z", method=_NCA, reason=str(err))
            else:
                route, points = _route(at.organ, given), analysed.result.lambda_z_points
                slope = next(e for e in analysed.estimates if e.name == "lambda_z")
            choice = _choice(at, subject, settings)
            off = _off_line(curve, points, slope, choice is not None, route, settings)
            lines.append(TerminalLine(at.study, at.group, at.label, at.organ, at.unit, subject, tuple(curve.time_h.tolist()),
                                      tuple(curve.value.tolist()), points, off, choice is not None, slope))  # fmt: skip
    return lines


def _off_line(
    curve: Curve, points: tuple[int, ...], slope: Estimate, chosen: bool, route: str, settings: KineticsSettings
) -> dict[int, str]:
    """Return, by position, why a sample is not on the terminal line."""
    may, below = _may_be_on_line(curve, settings), _below(curve, settings)
    peak = int(np.argmax(np.where(below, -np.inf, curve.value)))
    begins = rules_of(settings.rules, settings.blq, None, route).lambda_z_from
    with_peak = begins == "cmax" or (begins == "route" and route == "iv_bolus")
    off = {}
    for i in sorted({*range(curve.time_h.size)} - {*points}):
        if below[i]:
            off[i] = "it is below the limit of quantification"
        elif not may[i]:
            off[i] = "its value is not above zero"
        elif not points:
            off[i] = f"there is no line: {slope.reason}"
        elif chosen:
            off[i] = "it is not among the chosen samples"
        elif i < peak:
            off[i] = "it is before cmax"
        elif i == peak and not with_peak:
            off[i] = "it is cmax itself"
        else:
            off[i] = "the line fits better without it"
    return off


def _choice(at: _Profile, subject: str, settings: KineticsSettings) -> LambdaZChoice | None:
    """Return the most specific choice of samples that holds for a curve."""
    fitting = [c for c in settings.lambda_z if c.holds(at.group, at.label, at.organ, at.unit, subject)]
    return max(fitting, key=lambda c: c.specific, default=None)


def _chosen_points(choice: LambdaZChoice, curve: Curve, settings: KineticsSettings) -> dict[int, str]:
    """Return the positions of a choice's samples on a curve, each with the reason.

    Raises
    ------
    ValueError : a time at which the curve has no sample that can be on the line; names those there are.
    """
    there = np.flatnonzero(_may_be_on_line(curve, settings))
    at = {t: there[np.isclose(curve.time_h[there], t, rtol=_SAME_TIME, atol=0.0)][:1] for t in choice.times_h}
    points = {int(i): choice.why for found in at.values() for i in found}
    missing = [f"{t:g}" for t, found in at.items() if not found.size]
    if missing or len(points) < len(at):
        known = ", ".join(f"{t:g}" for t in curve.time_h[there]) or "none"
        without = f"no positive value above the limit at {', '.join(missing)} h"
        what = without if missing else "one sample for two of these times"
        raise ValueError(f"kinetics.lambda_z chooses {choice}, and {curve.subject} has {what}; choose three or more of its times "
                         f"({known}) in times_h, or give this curve a choice of its own by its subject")  # fmt: skip
    return points


def _below(curve: Curve, settings: KineticsSettings) -> NDArray[np.bool_]:
    """Return which samples the analysis takes as below the limit, (T,)."""
    limit = _limit(curve, settings)
    return curve.below if limit is None else curve.below | (curve.value < limit)


def _limit(curve: Curve, settings: KineticsSettings) -> float | None:
    """Return the limit that stands for values below it, where the rule asks for one."""
    half = settings.blq == "lloq/2" and bool(curve.below.any())
    return float(np.nanmax(curve.lloq)) if half and np.isfinite(curve.lloq).any() else None


def _may_be_on_line(curve: Curve, settings: KineticsSettings) -> NDArray[np.bool_]:
    """Return which samples a logarithmic line can go through, (T,)."""
    return ~_below(curve, settings) & (curve.value > 0)


def unused_choices(observations: pd.DataFrame, settings: KineticsSettings, *, pool: bool = False) -> list[str]:
    """Return a sentence for every choice of terminal samples that no curve of a table follows.

    Parameters
    ----------
    observations, settings, pool : as in `nca_parameters`.
    """
    if not settings.lambda_z:
        return []
    curves = [(at, subject) for at, parts in _profiles(observations, pool) for subject, _, _ in parts]
    followed = [_choice(at, subject, settings) for at, subject in curves]
    told = []
    for choice in settings.lambda_z:
        if any(choice is c for c in followed):
            continue
        if any(choice.holds(at.group, at.label, at.organ, at.unit, subject) for at, subject in curves):
            why = "more specific choices hold for all its curves; remove it"
        else:
            here = (choice.label, choice.organ)
            there = sorted({f"{s} ({at.group})" for at, s in curves if (at.label, at.organ) == here})
            why = f"there is no such curve; {choice.label} in {choice.organ} has {', '.join(there) or 'none'}"
        told.append(f"kinetics.lambda_z chooses {choice}, which changes nothing: {why}")
    return told


@dataclass(frozen=True, eq=False)
class _Analysed:
    """A curve's parameters, and by how much an error shared by all its samples shifts each."""

    curve: Curve
    result: NcaResult
    shared: dict[str, float]
    estimates: list[Estimate]


def _analyse(curve: Curve, rows: pd.DataFrame, at: _Profile, dosing: Dosing, settings: KineticsSettings) -> _Analysed:
    choice = _choice(at, curve.subject, settings)
    points = _chosen_points(choice, curve, settings) if choice else None
    result, shared = _nca(curve, at.organ, at.unit, dosing, settings, points)
    estimates = [_widen(e, shared[name], result.df[name], settings.level) for name, e in result.estimates.items()]
    if curve.pooled:
        estimates.append(_sparse(curve, rows, at.organ, at.unit, dosing, settings))
    if choice:
        words = f"; samples at {', '.join(f'{t:g}' for t in choice.times_h)} h chosen: {choice.why}"
        estimates = [replace(e, method=e.method + words) if e.name == "lambda_z" else e for e in estimates]
    estimates = [replace(e, flags=tuple(sorted({*e.flags, *curve.flags}))) for e in estimates]
    return _Analysed(curve, result, shared, estimates)


def _route(organ: str, dosing: Dosing) -> str:
    """Return the route as NCA takes it: what is not measured at once like blood is a tissue."""
    return dosing.route if organ in BLOOD or organ in WHOLE_ANIMAL else "tissue"


def _nca(
    curve: Curve,
    organ: str,
    unit: str,
    dosing: Dosing,
    settings: KineticsSettings,
    chosen: Mapping[int, str] | None = None,
) -> tuple[NcaResult, dict[str, float]]:
    """Return the parameters with their independent errors, and the shift that the shared error brings to each."""
    route = _route(organ, dosing)
    dose, dose_unit = dosing.for_unit(unit) if organ in BLOOD else (math.nan, "")
    se = np.where(curve.below, 0.0, curve.se)

    def run(step: float, points: Sequence[int] | Mapping[int, str] | None) -> NcaResult:
        return nca(curve.time_h, curve.value + step * curve.systematic, se=None if np.isnan(se).any() else se,
                   n=np.nan_to_num(curve.n, nan=1.0) if curve.pooled else None,
                   dose=None if math.isnan(dose) else dose, dose_unit=dose_unit,
                   route=route, infusion_h=dosing.infusion_h or None if route == "iv_infusion" else None, unit=unit,
                   method=settings.method, rules=settings.rules, partial=settings.partial,
                   refuse_extrap=settings.refuse_extrap, blq=settings.blq,
                   lloq=_limit(curve, settings), below_lloq=curve.below, lambda_z_points=points,
                   max_extrap_pct=settings.max_extrap_pct, level=settings.level)  # fmt: skip

    result = run(0.0, chosen)
    if not (curve.systematic > 0).any():
        return result, dict.fromkeys(result.estimates, 0.0)
    held = chosen or result.lambda_z_points or None
    up, down = run(_STEP, held), run(-_STEP, held)
    return result, {n: abs(up[n].value - down[n].value) / (2 * _STEP) for n in result.estimates}


def _widen(e: Estimate, shared: float, df: float, level: float) -> Estimate:
    """Add an error shared by all samples of a curve to an estimate's own."""
    if not (math.isfinite(shared) and shared > 0 and math.isfinite(e.se)):
        return e
    se = math.hypot(e.se, shared)
    # the shared part is not estimated from the animals, so it adds no uncertainty about the spread itself
    reach = student(level, df * (se / e.se) ** 4 if e.se > 0 else math.inf)
    if e.value > 0 and e.ci_low > 0:
        wide = math.exp(min(reach * se / e.value, 300.0))
        low, high = e.value / wide, e.value * wide
    else:
        low, high = e.value - reach * se, e.value + reach * se
    return replace(e, se=se, ci_low=low, ci_high=high)


def _sparse(
    curve: Curve, rows: pd.DataFrame, organ: str, unit: str, dosing: Dosing, settings: KineticsSettings
) -> Estimate:
    """Return the area of a pool of animals by the linear rule, with the shared error added.

    Animals that gave several samples bring the covariance of their times (batch designs); one sample an animal, and
    published means, are Bailer's case.
    """
    bolus = dosing.route == "iv_bolus" and (organ in BLOOD or organ in WHOLE_ANIMAL)
    method = ", linear, from the " + ("first sample" if bolus else "dose")
    seen = ~curve.below
    try:
        if _summarised(rows):
            method = "Bailer 1988" + method
            found: SparseAuc = bailer_summary(curve.time_h[seen], curve.value[seen], curve.sd[seen], curve.n[seen],
                                              level=settings.level, unit=unit, from_zero=not bolus)  # fmt: skip
            systematic = curve.systematic[seen]
        else:
            once = not rows["subject"].duplicated().any()
            method = ("Bailer 1988" if once else "Holder 1999, Jaki & Wolfsegger 2009") + method
            here = _stated(rows, settings.blq)
            found = batch_auc(here["time_h"], here["subject"], here["value"], below=here["below_lloq"], level=settings.level,
                              unit=unit, from_zero=not bolus)  # fmt: skip
            systematic = curve.systematic
    except ValueError as err:
        return Estimate("auclast_sparse", method=method, reason=str(err))
    shared = float(np.dot(found.weights, systematic))
    degrees = f", df {found.df:.4g}" if math.isfinite(found.df) else ""
    return replace(_widen(found.estimate, shared, found.df, settings.level), method=method + degrees)


def _summarised(rows: pd.DataFrame) -> bool:
    """Whether rows are published means rather than animals."""
    return bool((rows["n"] > 1).any() or rows["sd"].notna().any() or (rows["subject"] == POOLED).any())


def _stated(rows: pd.DataFrame, blq: str) -> pd.DataFrame:
    """Return animals' rows with what stands for values below the limit; dropped ones stay where most are below."""
    below = rows["below_lloq"].astype(bool)
    if blq == "drop":
        most = below.groupby(rows["time_h"]).transform("mean") > 0.5
        return rows[~below | most].assign(value=rows["value"].where(~below, 0.0))
    instead = rows["lloq"] / 2 if blq == "lloq/2" else 0.0
    return rows.assign(value=rows["value"].where(~below, instead), below_lloq=below)


def _tissue_ratio(
    samples: pd.DataFrame, curve: Curve, unit: str, blood: Mapping[tuple[str, ...], tuple[Curve, pd.DataFrame]],
    dosing: Dosing, settings: KineticsSettings,
) -> Estimate:  # fmt: skip
    """Return Kp = AUC of tissue over AUC of blood: both per gram, of the same animals, until the same time."""
    method = "AUC of tissue over AUC of blood, per gram, to the last common time; Fieller interval"
    if unit not in {"pct_id", "pct_id_per_g"} or (unit == "pct_id" and samples["mass_g"].isna().any()):
        return Estimate("kp_auc", method=method, reason=f"tissue is in {unit} without masses; give masses.csv")
    if unit == "pct_id":
        scaled = {k: samples[k] / samples["mass_g"] for k in ("value", "se", "se_systematic", "sd", "lloq")}
        samples = samples.assign(**scaled)
        curve = make_curve(curve.subject, samples, curve.pooled, settings.blq)
    partner, partner_rows = blood.get(curve.animals, (None, samples))
    if partner is None:
        return Estimate(
            "kp_auc", method=method, reason="blood per gram was not measured in the same animals, or not analysed"
        )
    last = min(curve.last_seen_h, partner.last_seen_h)
    if math.isnan(last):
        return Estimate("kp_auc", method=method, reason="no value above the limit in tissue or blood")
    if curve.pooled and not (_summarised(samples) or _summarised(partner_rows)):
        return _paired_ratio(samples, curve, partner_rows, partner, dosing, settings, method)
    parts = []
    for part, organ in ((curve, "tissue"), (partner, "blood")):
        result, shared = _nca(part.until(last), organ, "pct_id_per_g", dosing, settings)
        parts.append((_widen(result["auclast"], shared["auclast"], result.df["auclast"], settings.level), result))
    (tissue, a), (whole, b) = parts
    dfs = [math.inf if math.isnan(r.df["auclast"]) else r.df["auclast"] for r in (a, b)]
    return replace(
        kp(tissue, whole, settings.level, df_tissue=dfs[0], df_blood=dfs[1]), method=f"{method} ({last:g} h)"
    )


def _values_at(curve: Curve, place: int) -> int:
    """Return how many animals a value of a curve is of; one value where its table does not say."""
    return int(curve.n[place]) if curve.pooled and not np.isnan(curve.n[place]) else 1


def _tissue_set(
    curve: Curve, unit: str, blood: Mapping[tuple[str, ...], tuple[Curve, pd.DataFrame]], dosing: Dosing,
    settings: KineticsSettings,
) -> list[Estimate]:  # fmt: skip
    """Return an organ's share of the dose at its peak and at last, and its uptake clearance at its first time."""
    if unit != "pct_id":
        return []
    se, n = _errors(curve)
    share = pct_injected(curve.time_h, curve.value, se=se, n=n, unit=unit, below_lloq=curve.below, level=settings.level)
    found = []
    for name in ("peak_pct_id", "last_pct_id"):
        e = share.estimate(name, 0)
        at = np.flatnonzero(~curve.below & (curve.value == e.value))
        if at.size:
            e = _widen(e, float(curve.systematic[at[0]]), math.inf, settings.level)
            e = replace(e, n=_values_at(curve, at[0]))
        found.append(e)
    partner = blood.get(curve.animals, (None, None))[0]
    if partner is not None and (~partner.below).sum() > 2:
        begins = partner.time_h[~partner.below][2]  # an area needs two samples of blood before its end
        first = np.flatnonzero(~curve.below & (curve.value > 0) & (curve.time_h >= begins))[:1]
        found += [_first_clearance(curve, first, partner, dosing, settings)] if first.size else []
    return [replace(e, flags=tuple(sorted({*e.flags, *curve.flags}))) for e in found]


def _first_clearance(
    curve: Curve, at: NDArray[np.intp], blood: Curve, dosing: Dosing, settings: KineticsSettings
) -> Estimate:
    """Return the uptake clearance at an organ's first time, before much of it can have left again."""
    (se, n), (blood_se, blood_n), seen = _errors(curve), _errors(blood), ~blood.below
    cut = [None if a is None else a[at] for a in (se, n)]
    theirs = [None if a is None else a[seen] for a in (blood_se, blood_n)]
    try:
        e = uptake_clearance(curve.time_h[at], curve.value[at], blood.time_h[seen], blood.value[seen],
                             tissue_se=cut[0], tissue_n=cut[1], blood_se=theirs[0], blood_n=theirs[1],
                             route=dosing.route if dosing.route in ROUTES else "iv_bolus", tissue_unit="pct_id",
                             blood_unit="pct_id_per_g", method=settings.method,
                             level=settings.level).estimate("uptake_clearance", 0, 0)  # fmt: skip
    except ValueError as err:
        return Estimate("uptake_clearance", method="amount over the area in blood until then", reason=str(err))
    e = replace(e, method=f"{e.method}, at {curve.time_h[at[0]]:g} h", n=_values_at(curve, at[0]))
    return _widen(e, abs(e.value) * float(curve.systematic[at[0]] / curve.value[at[0]]), math.inf, settings.level)


def _errors(curve: Curve) -> tuple[FloatArray | None, FloatArray | None]:
    """Return standard errors and animals of a curve as the functions of NCA take them; None where unknown."""
    se = np.where(curve.below, 0.0, curve.se)
    return None if np.isnan(se).any() else se, np.nan_to_num(curve.n, nan=1.0) if curve.pooled else None


def _paired_ratio(
    samples: pd.DataFrame, curve: Curve, blood_rows: pd.DataFrame, blood: Curve, dosing: Dosing,
    settings: KineticsSettings, method: str,
) -> Estimate:  # fmt: skip
    """Return Kp of animals that gave both tissue and blood: what an animal got too much of is in both, and cancels."""
    keys = ["time_h", "subject"]
    both = _stated(samples, settings.blq).merge(
        _stated(blood_rows, settings.blq), on=keys, how="outer", suffixes=("", "_b")
    )
    both = both.sort_values(keys, kind="stable")
    bolus = dosing.route == "iv_bolus"
    try:
        found = kp_paired(both["time_h"], both["subject"], both["value"], both["value_b"],
                          tissue_below=both["below_lloq"].eq(True), blood_below=both["below_lloq_b"].eq(True),
                          level=settings.level, unit="pct_id_per_g", from_zero=(True, not bolus))  # fmt: skip
    except ValueError as err:
        return Estimate("kp_auc", method=method, reason=str(err))
    last = min(curve.last_seen_h, blood.last_seen_h)
    shared = math.hypot(_shared_share(curve.until(last), True), _shared_share(blood.until(last), not bolus))
    flags = tuple(sorted({*found.ratio.flags, *curve.flags, *blood.flags}))
    ratio = _widen(found.ratio, shared * abs(found.ratio.value), found.df, settings.level)
    return replace(
        ratio,
        flags=flags,
        method=f"{method} ({last:g} h), areas of the same animals (correlation {found.correlation:.2g})",
    )


def _shared_share(curve: Curve, from_zero: bool) -> float:
    """Return the relative error of an area that comes from errors shared by all samples."""
    weights = trapezoid_weights(curve.time_h, curve.value, ~curve.below, from_zero)
    whole = float(weights @ curve.value)
    return float(weights @ curve.systematic) / whole if whole > 0 else 0.0


def _over_animals(found: list[_Analysed], level: float) -> list[Estimate]:
    """Return mean and t interval over animals that have a curve of their own, when there are two or more."""
    own = [a for a in found if not a.curve.pooled]
    if len(own) < 2:
        return []
    estimates = []
    for name in own[0].result.estimates:
        first = own[0].result[name]
        values = np.array([a.result[name].value for a in own if name in a.result.estimates])
        values = values[np.isfinite(values)]
        if len(values) < 2:
            estimates.append(Estimate(name, unit=first.unit, method="mean over animals", n=len(values),
                                      reason="fewer than two animals have a value"))  # fmt: skip
            continue
        mean, se = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
        reach = student(level, len(values) - 1) * se
        by_hand = any("points_chosen" in a.result[name].flags for a in own if name in a.result.estimates)
        flags = (("few",) if len(values) < 3 else ()) + (("points_chosen",) if by_hand else ())
        plain = Estimate(
            name, mean, se, mean - reach, mean + reach, first.unit, "mean over animals", len(values), flags
        )
        shared = float(np.mean([a.shared[name] for a in own if name in a.shared]))
        estimates.append(_widen(plain, shared, len(values) - 1, level))
    return estimates


def _row(place: dict[str, Any], e: Estimate) -> dict[str, Any]:
    return {**place, "parameter": e.name, "value": e.value, "se": e.se, "ci_low": e.ci_low, "ci_high": e.ci_high,
            "unit": e.unit, "method": e.method, "n": e.n, "flags": join(e.flags), "reason": e.reason}  # fmt: skip


#: Fits by (study, group, label, model).
Fits = dict[tuple[str, str, str, str], FitResult]


def fit_settings(settings: KineticsSettings) -> FitSettings:
    """Return how a study wants its models fitted."""
    return FitSettings(weights=settings.weights, loss=settings.loss, scale=settings.fit_scale, blq=settings.fit_blq,
                       fixed=dict(settings.fixed), level=settings.level, max_extrap_pct=settings.max_extrap_pct)  # fmt: skip


def model_parameters(
    observations: pd.DataFrame,
    dosing: Dosings,
    models: Iterable[str],
    settings: FitSettings,
    own: Models | None = None,
    *,
    species: str | None = None,
    weight_g: float | None = None,
) -> tuple[list[dict[str, Any]], Fits]:
    """Fit every model to every label and group; a fit that cannot be had is a row with its reason.

    Parameters
    ----------
    observations, dosing : as in `nca_parameters`.
    models : names of the catalogue or of `own`, a user's models.
    settings : how to fit; a parameter that is held is held in every model that has it.
    species, weight_g : of the animals; whole-body models need them, and half-lives are held against the liver's flow.

    Returns
    -------
    rows : of parameters.csv.
    fits : by (study, group, label, model), for curves and consensus.
    """
    rows: list[dict[str, Any]] = []
    fits: Fits = {}
    for (study, group, label), part in observations.groupby(["study", "group", "label"], sort=True):
        carried = _carried(part)
        for model in models:
            place = {"study": study, "subject": POOLED, "group": group, "label": label, "organ": "", "model": model}
            try:
                found = _fit_one(part, dosing, model, settings, own, species, weight_g)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as err:
                rows.append(_row(place, Estimate("fit", method="least squares", reason=str(err))))
                continue
            fits[str(study), str(group), str(label), model] = found
            rows += [_row({**place, "organ": found.organ_of(e.name)},
                          replace(e, flags=tuple(sorted({*e.flags, *carried, *_too_fast(e, species, weight_g)}))))
                     for e in found.estimates]  # fmt: skip
            few = not math.isfinite(found.aicc)
            rows.append(_row(place, Estimate("aicc", math.nan if few else found.aicc, method="least squares",
                                             n=found.data.value.size, reason="too few values for the number of parameters"
                                             if few else "a criterion, not a measurement")))  # fmt: skip
    return rows, fits


def _too_fast(e: Estimate, species: str | None, weight_g: float | None) -> tuple[str, ...]:
    """Return the flag of a half-life in blood that the liver's flow cannot explain."""
    if e.name not in ("half_life", "half_life_initial") or not math.isfinite(e.value) or species not in SPECIES:
        return ()
    return ("faster_than_flow",) if faster_than_liver(e.value, str(species), weight_g) else ()


def by_vessel(sketch: RateGraph, model: str, given: Dosing) -> bool:
    """Return whether the dose went into a vessel.

    Raises
    ------
    ValueError : a model of another route.
    """
    absorbed, vascular = "ka" in sketch.names, given.route in IV_ROUTES
    if absorbed and vascular:
        raise ValueError(f"the route is {given.route}, and {model} describes absorption; use a model that ends in _iv")
    if not absorbed and not vascular:
        raise ValueError(
            f"the route is {given.route}, and {model} starts in blood; use for instance one_compartment_{given.route}"
        )
    return vascular


def _fit_one(
    part: pd.DataFrame, dosing: Dosings, model: str, settings: FitSettings, own: Models | None, species: str | None,
    weight_g: float | None,
) -> FitResult:  # fmt: skip
    blood = part[part["organ"].isin(BLOOD)]
    if blood.empty:
        raise ValueError("no blood, plasma or serum was measured, and every model starts from its curve")
    species = species if species in SPECIES else None
    sketch = build(model, ["organ"] if needs_organs(model, own) else (), models=own, species=species,
                   weight_g=weight_g)  # fmt: skip
    if [p.name for p in sketch.ports] != ["dose"]:
        raise ValueError(f"{model} takes a measured curve as its input; use evbiodist.fit with inputs= from Python")
    given = common_dosing(part, dosing)
    vascular = by_vessel(sketch, model, given)
    amount, dose_unit = given.for_unit(str(blood["unit"].iloc[0]))
    if math.isnan(amount):
        raise ValueError("the dose is not known, or not the same for all animals; give it in subjects.csv")
    held = {k: v for k, v in settings.fixed.items() if _held_in(sketch, k)}
    return fit(part, model, dose=Doses(amount, 0.0, given.infusion_h if vascular else 0.0), dose_unit=dose_unit,
               settings=replace(settings, fixed=held), models=own, species=species, weight_g=weight_g)  # fmt: skip


def _held_in(sketch: RateGraph, name: str) -> bool:
    """Whether a model, drawn for one organ called "organ", has a parameter of that name for some organ."""
    stems = [n.removesuffix("organ") for n in sketch.names if n.endswith("_organ")]
    return name in sketch.names or any(name.startswith(stem) for stem in stems)


def _carried(part: pd.DataFrame) -> set[str]:
    """Return flags of the observations that every parameter of a fit inherits."""
    inherited = {"sd_repeated", "unit_conflict", "blood_in_organ", "below_lloq"}
    found = {f for cell in part["flags"].unique() for f in split(cell)} & inherited
    return found | ({"below_lloq"} if part["below_lloq"].astype(bool).any() else set())
