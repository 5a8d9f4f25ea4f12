"""The joint model's tables: rows of CSV files, without study and group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from evbiodist.crossval.joint.answer import JointAnswer
from evbiodist.crossval.joint.arms import Arms
from evbiodist.crossval.joint.average import average
from evbiodist.crossval.joint.compose import EFFICIENCY, FREE_IN
from evbiodist.crossval.joint.identify import structural_rank
from evbiodist.crossval.joint.leave_out import LeftOut
from evbiodist.study.estimate import student
from evbiodist.study.flags import join
from evbiodist.study.labels import NUISANCE

Row = dict[str, Any]


def answer_rows(answer: JointAnswer) -> dict[str, list[Row]]:
    """Return the rows of every table that the joint model fills, by the table's name."""
    return {
        "label_parameters": list(_label_rows(answer)),
        "label_bias": list(_bias_rows(answer)),
        "alerts": list(_alert_rows(answer)),
        "identifiability": list(_identified_rows(answer)),
        "left_out": list(_left_out_rows(answer)),
        "predicted": [row for s in answer.left_out for row in _predicted_rows(s)],
        "next_steps": list(_step_rows(answer)),
        "posterior": list(_posterior_rows(answer)),
    }  # fmt: skip


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


def _label_rows(answer: JointAnswer) -> Iterator[Row]:
    """Return what the study says of each label's own parameters, beside what was known before."""
    best = answer.worlds.best
    p = best.problem
    averaged = average(answer.worlds, p.names[len(p.vesicle.names) :], answer.level)
    for name, a in averaged.items():
        label, parameter, organ = _parts(name)
        i = p.names.index(name)
        own = answer.worlds.catalogue.prior  # before the study: the catalogue's, not that of a world
        linear, logit = parameter == "background", parameter == "free_fraction"
        shown = [_shown(x, linear, logit) for x in (a.middle, a.low, a.high)]
        before = [_shown(own.centre[i] + k * own.sd[i], linear, logit) for k in (0.0, -1.96, 1.96)]
        known = answer.models[label].prior(parameter, organ or None) if parameter in NUISANCE and label else None
        learned = 100 * (1 - min(a.sd / own.sd[i], 1.0))
        yield ({
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


def _bias_rows(answer: JointAnswer) -> Iterator[Row]:
    reach = student(answer.level, answer.worlds.best.df)
    for b in answer.biases:
        for organ, log_ratio, se in zip(b.organs, b.log_ratio, b.se, strict=True):
            ratio, low, high = (float(np.exp(log_ratio + d * se)) for d in (0.0, -reach, reach))
            yield ({
                "label": b.label, "organ": organ, "ratio": ratio, "ratio_low": low, "ratio_high": high, "relative": b.relative,
                "reason": "the label has no scale, so organs are told against each other only" if b.relative else ""})  # fmt: skip


def _alert_rows(answer: JointAnswer) -> Iterator[Row]:
    for c in answer.cases:
        yield ({"label": c.label, "accused": c.accused, "log10_odds": c.log10_odds, "what": c.what,
                                     "organ": c.organ, "ratio": c.ratio, "ratio_low": c.low, "ratio_high": c.high,
                                     "evidence": c.sentence})  # fmt: skip


def _identified_rows(answer: JointAnswer) -> Iterator[Row]:
    best = answer.worlds.best
    for name, a in answer.quantities.items():
        known = answer.known.get(name)
        if known is None:
            continue
        unit, factor = answer.units[name]
        value, low, high = (factor * math.exp(min(x, 700.0)) for x in (a.middle, a.low, a.high))
        profile = answer.profiles.get(name)
        ends = "" if profile is None else "open" if profile.open else "closed"
        yield ({
            "quantity": name, "value": value, "ci_low": low, "ci_high": high, "unit": unit, "relative_se": a.sd,
            "prior_relative_se": known.before, "labels_only_relative_se": known.alone, "determined_by": known.source,
            "interval": ends, "reason": known.reason})  # fmt: skip
    rank = structural_rank(best)
    blind = f"; rows alone say nothing about {', '.join(rank.blind)}" if rank.blind else ""
    yield ({
        "quantity": "structural rank", "value": float(rank.rank), "unit": f"of {rank.size}", "determined_by": "labels",
        "reason": f"rows alone determine {rank.rank} of {rank.size} directions of all parameters{blind}"})  # fmt: skip
    for c in answer.cases:
        separable, why = _separable(best.problem.arms, c.label)
        yield ({
            "quantity": f"{c.label}: the label changed the vesicle, or misread it",
            "determined_by": "labels" if separable else "nothing", "reason": why})  # fmt: skip


def _separable(arms: Arms, label: str) -> tuple[bool, str]:
    """Return whether a label that changed its vesicle can be told from one that misread it, and why."""
    mine = {who for a in arms.arms if a.label == label and a.kind == "vesicles" for who in a.single}
    shared = {a.label for a in arms.arms if a.label != label and a.kind == "vesicles" and mine & a.single}
    if shared:
        both = f"{label} and {', '.join(sorted(shared))}"
        return True, f"animals carry {both} on the same vesicles, so both saw the same kinetics"
    if any(a.label == label and a.kind == "free_label" for a in arms.arms):
        return False, ("not separable for the vesicle itself; the free-label arm tells how much of the difference free label "
                       "explains")  # fmt: skip
    return False, "not separable: no animal carries two labels and no control arm breaks it"


def _left_out_rows(answer: JointAnswer) -> Iterator[Row]:
    aim, reach = answer.aim, student(answer.level, math.inf)
    whole = answer.quantities.get(aim)
    for kind in dict.fromkeys(s.kind for s in answer.left_out):
        mine = [s for s in answer.left_out if s.kind == kind]
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
                row |= {"value": factor * math.exp(middle), "ci_low": factor * math.exp(middle - reach * sd),
                        "ci_high": factor * math.exp(min(middle + reach * sd, 700.0)),
                        "change_pct": 100 * (math.exp(min(middle - whole.middle, 700.0)) - 1)}  # fmt: skip
            yield row


def _predicted_rows(s: LeftOut) -> Iterator[Row]:
    if s.predicted is None or s.kind == "animal":
        return
    c = s.predicted
    for k in np.lexsort((c.time_h, np.array(c.organ), np.array(c.label))):
        yield ({
            "kind": s.kind, "left_out": s.name, "label": c.label[k], "organ": c.organ[k], "time_h": float(c.time_h[k]),
            "seen": float(c.seen[k]), "predicted": float(c.median[k]), "low": float(c.low[k]), "high": float(c.high[k]),
            "unit": c.unit[k]})  # fmt: skip


def _step_rows(answer: JointAnswer) -> Iterator[Row]:
    for rank, step in enumerate(answer.steps, 1):
        yield ({
            "rank": rank, "quantity": answer.aim, "kind": step.kind, "label": step.label,
            "times_h": ";".join(f"{t:g}" for t in step.times_h),
            "animals": step.animals, "gain_pct": step.gain_pct, "relative_se_now": step.sd_now, "relative_se_then": step.sd_then,
            "step": step.words})  # fmt: skip


def _posterior_rows(answer: JointAnswer) -> Iterator[Row]:
    drawn = answer.posterior
    for e in drawn.estimates if drawn else ():
        unit, factor = answer.units[e.name]
        yield ({"quantity": e.name, "value": factor * e.value, "se": factor * e.se, "ci_low": factor * e.ci_low,
                "ci_high": factor * e.ci_high, "unit": unit, "effective_draws": drawn.effective if drawn else math.nan,
                "lost_pct": 100 * drawn.lost if drawn else math.nan, "flags": join(e.flags), "reason": e.reason})  # fmt: skip
