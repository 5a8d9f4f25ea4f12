"""One group of animals under several labels, from its rows to all that the joint model says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.alerts import Alert, alerts, undecided
from evbiodist.crossval.joint.arms import Arms, gather_arms
from evbiodist.crossval.joint.average import Averaged, average, average_biases
from evbiodist.crossval.joint.bias import LabelBias
from evbiodist.crossval.joint.compose import EFFICIENCY, FREE_IN
from evbiodist.crossval.joint.fit import fit_joint
from evbiodist.crossval.joint.hypotheses import Worlds, explore
from evbiodist.crossval.joint.identify import Identified, identified, structural_rank
from evbiodist.crossval.joint.leave_out import LeftOut, leave_out
from evbiodist.crossval.joint.plan import NextStep, next_steps
from evbiodist.crossval.joint.profile import JointProfile, joint_profiles
from evbiodist.crossval.joint.quantities import vesicle_quantities
from evbiodist.kinetics.analyse import Dosings, by_vessel, common_dosing
from evbiodist.kinetics.models.catalogue import Models, build, needs_organs
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.study.estimate import student
from evbiodist.study.flags import join
from evbiodist.study.labels import NUISANCE, LabelModel, catalogue, label_model, missing_controls
from evbiodist.study.model import CrossvalSettings, Label
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

    from evbiodist.kinetics.fitting.fit import FitResult

FloatArray = NDArray[np.float64]
Row = dict[str, Any]
#: Probability of a misfit by chance below which it is flagged.
_MISFIT = 0.001
#: Labels that a study without them might add: counted ones, because they bring a scale.
_FURTHER = ("111In", "89Zr", "125I")
#: Factor by which joint answer and consensus differ enough to be explained.
_APART = 1.25


@dataclass(frozen=True, eq=False)
class AnswerTables:
    """Rows of the joint model's tables, without study and group."""

    label_parameters: list[Row] = field(default_factory=list)
    label_bias: list[Row] = field(default_factory=list)
    alerts: list[Row] = field(default_factory=list)
    identifiability: list[Row] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)
    predicted: list[Row] = field(default_factory=list)
    next_steps: list[Row] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class JointAnswer:
    """What all labels together say of the vesicle.

    Parameters
    ----------
    worlds : what labels may be, with a fit in each that matters; profiles : of the headline quantities.
    quantities : averaged, by name, on the logarithm; units : of each with the factor to it.
    cases : against labels, the strongest first; biases : of labels.
    known : from where quantities are known, by name; tables, notes : rows and sentences.
    level : of intervals.
    """

    worlds: Worlds
    profiles: Mapping[str, JointProfile]
    quantities: Mapping[str, Averaged]
    units: Mapping[str, tuple[str, float]]
    cases: Sequence[Alert]
    biases: Sequence[LabelBias]
    known: Mapping[str, Identified]
    level: float
    tables: AnswerTables = field(default_factory=AnswerTables)
    notes: list[str] = field(default_factory=list)

    @property
    def last_h(self) -> float:
        """The last time that all labels have."""
        return self.worlds.best.problem.arms.last_h

    @property
    def vessel_blood(self) -> dict[str, float]:
        """Grams of blood in the vessels of each organ."""
        return {organ: grams for organ, (grams, _) in self.worlds.best.problem.arms.vessel_blood.items()}

    def row(self, name: str) -> Row:
        """Return a quantity as the row `joint` of consensus.csv."""
        a, (unit, factor) = self.quantities[name], self.units[name]
        best = self.worlds.best
        flags = {"model_misfit"} if best.misfit_p < _MISFIT else set()
        flags |= {"open_interval"} if a.open else set()
        flags |= {"not_converged"} if not best.converged else set()
        flags |= {"rests_on_priors"} if name in self.known and self.known[name].source != "labels" else set()
        flags |= {"imprecise"} if a.sd >= 0.5 else set()
        value, low, high = (factor * math.exp(min(x, 700.0)) for x in (a.middle, a.low, a.high))
        how = "profile" if name in self.profiles else "covariance"
        until = f"until {self.last_h:g} h; " if name.endswith("_pct_id") else ""
        return {"quantity": name, "label": "joint", "estimate": value, "se": value * a.sd, "ci_low": low, "ci_high": high,
                "weight": math.nan, "n": best.problem.rows.readings, "unit": unit, "flags": join(flags), "reason": "",
                "method": f"{until}joint label model, {how} interval, average over {a.worlds} worlds of faithful labels"}  # fmt: skip

    def why(self, name: str, pooled: Mapping[str, Any]) -> str:
        """Return why the joint answer differs from the consensus; empty where it does not by much."""
        mine, theirs = self.row(name)["estimate"], float(pooled["estimate"])
        if not (theirs > 0 and math.isfinite(theirs)):
            return ""
        if 1 / _APART < mine / theirs < _APART:
            return ""
        organ = next((o for b in self.biases for o in b.organs if name.startswith(f"{o}_")), "")
        told = [f"{b.label} reads {math.exp(b.log_ratio[b.organs.index(organ)]):.2g} times the vesicle in {organ}"
                for b in self.biases if organ in b.organs and abs(b.log_ratio[b.organs.index(organ)]) > 0.1]  # fmt: skip
        blamed = [f"{c.label}: {c.what}" for c in self.cases if c.accused]
        reasons = told or blamed
        way = "higher" if mine > theirs else "lower"
        return (f"joint is {max(mine / theirs, theirs / mine):.2g} times {way}: the consensus pools readings as they are; "
                f"in the joint model {'; '.join(reasons) if reasons else 'labels are corrected by their priors'}")  # fmt: skip


def joint_answer(
    rows: pd.DataFrame,
    labels: Mapping[str, LabelModel],
    dosing: Dosings,
    settings: CrossvalSettings,
    fits: Mapping[str, FitResult],
    *,
    level: float = 0.95,
    own: Models | None = None,
    species: str = "mouse",
    weight_g: float | None = None,
) -> JointAnswer:
    """Fit the joint label model to a vesicle group with its control arms, and draw everything from it.

    Parameters
    ----------
    rows : observations of the group and its controls; labels : what is known of each.
    dosing : what animals got; settings : model, headline organ, controls, what to leave out.
    fits : of single labels with the same model, to begin from.
    level, own, species, weight_g : as in `evbiodist.crossval.compare.compare_labels`.

    Raises
    ------
    ValueError : fewer than two labels that the model can use, routes that differ, a model of another route.
    """
    washed = {who: given.perfused for who, given in dosing.items()}
    arms = gather_arms(rows, settings.controls, species=species, weight_g=weight_g, perfused=washed)
    if len(arms.labels) < 2:
        raise ValueError("; ".join(["fewer than two labels have rows that the joint model can use", *arms.notes]))
    if not any("blood" in a.data.seen for a in arms.arms if a.kind == "vesicles"):
        raise ValueError("no label was measured in blood, plasma or serum, and every model starts from its curve")
    models = {label: labels[label] if weight_g is None else labels[label].at_weight(weight_g)
              for label in sorted({a.label for a in arms.arms})}  # fmt: skip
    vesicle = build(settings.model, arms.organs if needs_organs(settings.model, own) else (), models=own, species=None)
    given = common_dosing(rows, dosing)
    dose = {
        vesicle.ports[0].name: Doses(100.0, 0.0, given.infusion_h if by_vessel(vesicle, settings.model, given) else 0.0)
    }
    found = fit_joint(vesicle, arms, models, dose, _starts(vesicle, fits))
    worlds = explore(found)
    names = vesicle_quantities(vesicle, arms.organs, list(arms.vessel_blood))
    headline = [f"{settings.organ}_uptake_pct_id", f"{settings.organ}_peak_pct_id", "half_life"]
    headline = [n for n in headline if n in names]
    profiles = joint_profiles(worlds.best, headline, level)
    averaged = average(worlds, names, level, profiles)
    biases = average_biases(worlds)
    cases = alerts(worlds, biases, level)
    known = {i.name: i for i in identified(worlds.best, [*averaged, *_nuisance(worlds)])}
    answer = JointAnswer(worlds, profiles, averaged, {n: _unit(n) for n in averaged}, cases, biases, known, level)
    aim = next((n for n in headline if n in averaged), "")
    _label_rows(answer, models)
    _bias_rows(answer)
    _alert_rows(answer)
    _identified_rows(answer)
    _left_out_rows(answer, leave_out(worlds, settings.leave_out, [aim] if aim else [], level), aim)
    if aim:
        further = [label_model(n, Label(kind="radioactive", isotope=catalogue()[n].isotope)) for n in _FURTHER]
        steps = next_steps(worlds.best, models, aim, animals=settings.next_animals, further=further)
        _step_rows(answer, steps, aim)
    answer.notes.extend(_notes(answer, arms, models, rows, given.route))
    return answer


def _starts(vesicle: RateGraph, fits: Mapping[str, FitResult]) -> FloatArray:
    """Return where the search begins: every label's own fit, or plausible rates where there is none."""
    plain = {
        p.name: p.start if p.start is not None else _PLAIN.get(p.name.split("_")[0], 0.1) for p in vesicle.parameters
    }
    starts = [[_value(f, n, plain[n]) for n in vesicle.names] for f in fits.values()]
    return np.array(starts or [[plain[n] for n in vesicle.names]], dtype=np.float64)


#: Plausible values in a mouse: g of blood, and rates per hour otherwise.
_PLAIN = {"v": 2.0, "v1": 2.0, "v2": 4.0, "v3": 10.0, "cl": 2.0, "q": 1.0}


def _value(found: FitResult, name: str, otherwise: float) -> float:
    value = float(found.theta[found.graph.names.index(name)]) if name in found.graph.names else otherwise
    return value if math.isfinite(value) and value > 1e-8 else otherwise


def _unit(name: str) -> tuple[str, float]:
    if name.endswith("_pct_id"):
        return "pct_id", 1.0
    unit = derive("dose/value/time" if name == "cl" else "time", "pct_id_per_g", "pct_id")
    return unit.unit, unit.factor


def _nuisance(worlds: Worlds) -> list[str]:
    p = worlds.best.problem
    return list(p.names[len(p.vesicle.names) :])


def _parts(name: str) -> tuple[str, str, str]:
    """Return label, parameter and organ of a coordinate's name."""
    label, _, own = name.rpartition(".")
    for part in (EFFICIENCY, FREE_IN, "background", "vessel_blood"):
        if own.startswith(f"{part}_"):
            return label, part, own.removeprefix(f"{part}_")
    return label, own, ""


_UNITS = {"scale": "1", "free_ka": "1/h", "vessel_blood": "g", "background": "au"} | {
    k: v[0] for k, v in NUISANCE.items()
}


def _label_rows(answer: JointAnswer, models: Mapping[str, LabelModel]) -> None:
    """Add what the study says of each label's own parameters, beside what was known before."""
    best = answer.worlds.best
    p = best.problem
    averaged = average(answer.worlds, _nuisance(answer.worlds), answer.level)
    for name, a in averaged.items():
        label, parameter, organ = _parts(name)
        i = p.names.index(name)
        own = answer.worlds.catalogue.prior  # before the study: the catalogue's, not that of a world
        linear, logit = parameter == "background", parameter == "free_fraction"
        shown = [_shown(x, linear, logit) for x in (a.middle, a.low, a.high)]
        before = [_shown(own.centre[i] + k * own.sd[i], linear, logit) for k in (0.0, -1.96, 1.96)]
        known = models[label].prior(parameter, organ or None) if parameter in NUISANCE and label else None
        learned = 100 * (1 - min(a.sd / own.sd[i], 1.0))
        answer.tables.label_parameters.append({
            "label": label or "all", "parameter": parameter, "organ": organ, "value": shown[0], "ci_low": shown[1],
            "ci_high": shown[2], "unit": _UNITS.get(parameter, ""), "prior_median": before[0], "prior_low": before[1],
            "prior_high": before[2], "prior_source": known.source if known else _SOURCES.get(parameter, ""),
            "learned_pct": learned, "flags": join({"rests_on_priors"} if learned < 20 else set()),
            "reason": answer.known[name].reason if name in answer.known else ""})  # fmt: skip


_SOURCES = {"scale": "calibration of the dose: judgement", "vessel_blood": "regional blood fraction of the species",
            "free_ka": "judgement", "background": "size of the readings"}  # fmt: skip


def _shown(x: float, linear: bool, logit: bool) -> float:
    if linear:
        return float(x)
    return float(1 / (1 + np.exp(-x))) if logit else float(np.exp(np.clip(x, -700, 700)))


def _bias_rows(answer: JointAnswer) -> None:
    reach = student(answer.level, answer.worlds.best.df)
    for b in answer.biases:
        for organ, log_ratio, se in zip(b.organs, b.log_ratio, b.se, strict=True):
            ratio, low, high = (float(np.exp(log_ratio + d * se)) for d in (0.0, -reach, reach))
            answer.tables.label_bias.append({
                "label": b.label, "organ": organ, "ratio": ratio, "ratio_low": low, "ratio_high": high, "relative": b.relative,
                "reason": "the label has no scale, so organs are told against each other only" if b.relative else ""})  # fmt: skip


def _alert_rows(answer: JointAnswer) -> None:
    for c in answer.cases:
        answer.tables.alerts.append({"label": c.label, "accused": c.accused, "log10_odds": c.log10_odds, "what": c.what,
                                     "organ": c.organ, "ratio": c.ratio, "ratio_low": c.low, "ratio_high": c.high,
                                     "evidence": c.sentence})  # fmt: skip


def _identified_rows(answer: JointAnswer) -> None:
    best = answer.worlds.best
    for name, a in answer.quantities.items():
        known = answer.known.get(name)
        if known is None:
            continue
        unit, factor = answer.units[name]
        value, low, high = (factor * math.exp(min(x, 700.0)) for x in (a.middle, a.low, a.high))
        profile = answer.profiles.get(name)
        ends = "" if profile is None else "open" if profile.open else "closed"
        answer.tables.identifiability.append({
            "quantity": name, "value": value, "ci_low": low, "ci_high": high, "unit": unit, "relative_se": a.sd,
            "prior_relative_se": known.before, "labels_only_relative_se": known.alone, "determined_by": known.source,
            "interval": ends, "reason": known.reason})  # fmt: skip
    rank = structural_rank(best)
    blind = f"; rows alone say nothing about {', '.join(rank.blind)}" if rank.blind else ""
    answer.tables.identifiability.append({
        "quantity": "structural rank", "value": float(rank.rank), "unit": f"of {rank.size}", "determined_by": "labels",
        "reason": f"rows alone determine {rank.rank} of {rank.size} directions of all parameters{blind}"})  # fmt: skip
    for c in answer.cases:
        separable, why = _separable(best.problem.arms, c.label)
        answer.tables.identifiability.append({
            "quantity": f"{c.label}: the label changed the vesicle, or misread it",
            "determined_by": "labels" if separable else "nothing", "reason": why})  # fmt: skip


def _separable(arms: Arms, label: str) -> tuple[bool, str]:
    """Return whether a label that changed its vesicle can be told from one that misread it, and why."""
    mine = {who for a in arms.arms if a.label == label and a.kind == "vesicles" for who in a.animals}
    shared = {a.label for a in arms.arms if a.label != label and a.kind == "vesicles" and mine & set(a.animals)}
    if shared:
        return (
            True,
            f"animals carry {label} and {', '.join(sorted(shared))} on the same vesicles, so both saw the same kinetics",
        )
    if any(a.label == label and a.kind == "free_label" for a in arms.arms):
        return False, ("not separable for the vesicle itself; the free-label arm tells how much of the difference free label "
                       "explains")  # fmt: skip
    return False, "not separable: no animal carries two labels and no control arm breaks it"


def _left_out_rows(answer: JointAnswer, sets: Sequence[LeftOut], aim: str) -> None:
    whole = answer.quantities.get(aim)
    for kind in dict.fromkeys(s.kind for s in sets):
        mine = [s for s in sets if s.kind == kind]
        order = sorted((s for s in mine if math.isfinite(s.log_density)), key=lambda s: -s.log_density)
        for s in mine:
            row: Row = {"kind": kind, "left_out": s.name, "rank": order.index(s) + 1 if s in order else math.nan, "n": s.n,
                        "log_density": s.log_density, "coverage_pct": 100 * s.coverage, "quantity": aim, "reason": s.reason,
                        "bias_by_organ": "; ".join(f"{o} {math.exp(b):.2f}" for o, b in s.bias.items())}  # fmt: skip
            if s.dropped:
                row["reason"] = "; ".join(
                    x for x in (s.reason, f"{s.dropped} readings at or below zero have no logarithm") if x
                )
            if aim in s.answers and whole is not None:
                middle, sd = s.answers[aim]
                factor = answer.units[aim][1]
                row |= {"value": factor * math.exp(middle), "ci_low": factor * math.exp(middle - 1.96 * sd),
                        "ci_high": factor * math.exp(min(middle + 1.96 * sd, 700.0)),
                        "change_pct": 100 * (math.exp(min(middle - whole.middle, 700.0)) - 1)}  # fmt: skip
            answer.tables.left_out.append(row)
            _predicted_rows(answer, s)


def _predicted_rows(answer: JointAnswer, s: LeftOut) -> None:
    if s.predicted is None or s.kind == "animal":
        return
    c = s.predicted
    for k in np.lexsort((c.time_h, np.array(c.organ), np.array(c.label))):
        answer.tables.predicted.append({
            "kind": s.kind, "left_out": s.name, "label": c.label[k], "organ": c.organ[k], "time_h": float(c.time_h[k]),
            "seen": float(c.seen[k]), "predicted": float(c.median[k]), "low": float(c.low[k]), "high": float(c.high[k]),
            "unit": c.unit[k]})  # fmt: skip


def _step_rows(answer: JointAnswer, steps: Sequence[NextStep], aim: str) -> None:
    for rank, step in enumerate(steps, 1):
        answer.tables.next_steps.append({
            "rank": rank, "quantity": aim, "kind": step.kind, "label": step.label, "times_h": ";".join(f"{t:g}" for t in step.times_h),
            "animals": step.animals, "gain_pct": step.gain_pct, "relative_se_now": step.sd_now, "relative_se_then": step.sd_then,
            "step": step.words})  # fmt: skip


def _notes(
    answer: JointAnswer, arms: Arms, models: Mapping[str, LabelModel], rows: pd.DataFrame, route: str
) -> list[str]:
    """Return what a reader has to know beside the tables."""
    notes = list(arms.notes)
    both = undecided(answer.cases)
    notes += [both] if both else []
    best = answer.worlds.best
    if best.misfit_p < _MISFIT:
        notes.append(f"the joint model misses what the means show (lack of fit, p = {best.misfit_p:.1g}): the vesicle's kinetics or a "
                     "label's errors are not among those it knows")  # fmt: skip
    present = [
        *sorted(set(rows["group"].astype(str))),
        *(["perfused"] if any(not a.vessels for a in arms.arms) else []),
    ]
    notes += missing_controls({m: models[m] for m in arms.labels}, present)
    return notes
