"""One group of animals under several labels, from its rows to all that the joint model says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.alerts import Alert, alerts, undecided
from evbiodist.crossval.joint.arms import gather_arms
from evbiodist.crossval.joint.average import Averaged, average, average_biases
from evbiodist.crossval.joint.bias import LabelBias
from evbiodist.crossval.joint.fit import fit_joint
from evbiodist.crossval.joint.hypotheses import Worlds, explore
from evbiodist.crossval.joint.identify import Identified, identified
from evbiodist.crossval.joint.leave_out import LeftOut, leave_out
from evbiodist.crossval.joint.plan import NextStep, next_steps
from evbiodist.crossval.joint.posterior import JointPosterior, sample_joint
from evbiodist.crossval.joint.profile import JointProfile, joint_profiles
from evbiodist.crossval.joint.quantities import vesicle_quantities
from evbiodist.kinetics.analyse import Dosings, by_vessel, common_dosing
from evbiodist.kinetics.models.catalogue import Models, build, needs_organs
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.study.flags import join
from evbiodist.study.labels import LabelModel, catalogue, label_model, missing_controls
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
#: Where the chance of draws comes from, so that a study's tables are the same again.
_SEED = 20260
#: Factor by which joint answer and consensus differ enough to be explained.
_APART = 1.25


@dataclass(frozen=True, eq=False)
class JointAnswer:
    """What all labels together say of the vesicle.

    Parameters
    ----------
    worlds : what labels may be, with a fit in each that matters; profiles : of the headline quantities.
    quantities : averaged, by name, on the logarithm; units : of each with the factor to it.
    cases : against labels, the strongest first; biases : of labels.
    known : from where quantities and coordinates are known, by name; level : of intervals.
    left_out, steps : predictions of what was left out, and what to measure next for the quantity `aim`.
    models : of labels, for an animal of this weight; posterior : draws, where asked for; notes : sentences.
    """

    worlds: Worlds
    profiles: Mapping[str, JointProfile]
    quantities: Mapping[str, Averaged]
    units: Mapping[str, tuple[str, float]]
    cases: Sequence[Alert]
    biases: Sequence[LabelBias]
    known: Mapping[str, Identified]
    level: float
    left_out: Sequence[LeftOut]
    steps: Sequence[NextStep]
    models: Mapping[str, LabelModel]
    aim: str
    posterior: JointPosterior | None
    notes: Sequence[str]

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
    arms = gather_arms(rows, settings.controls, species=species, weight_g=weight_g, perfused=washed,
                       organs=needs_organs(settings.model, own))  # fmt: skip
    if len(arms.labels) < 2:
        raise ValueError("; ".join(["fewer than two labels have rows that the joint model can use", *arms.notes]))
    if not any("blood" in a.data.seen for a in arms.arms if a.kind == "vesicles"):
        raise ValueError("no label was measured in blood, plasma or serum, and every model starts from its curve")
    unknown = sorted({a.label for a in arms.arms} - set(labels))
    if unknown:
        raise ValueError(f"nothing is known of the label {', '.join(unknown)}; say what it is, or leave it out")
    models = {label: labels[label] if weight_g is None else labels[label].at_weight(weight_g)
              for label in sorted({a.label for a in arms.arms})}  # fmt: skip
    vesicle = build(settings.model, arms.organs if needs_organs(settings.model, own) else (), models=own, species=None)
    given = common_dosing(rows, dosing)
    dose = {
        vesicle.ports[0].name: Doses(100.0, 0.0, given.infusion_h if by_vessel(vesicle, settings.model, given) else 0.0)
    }
    starts = _starts(vesicle, fits)
    found = fit_joint(vesicle, arms, models, dose, starts)
    worlds = explore(found, starts)
    names = vesicle_quantities(vesicle, arms.organs, list(arms.vessel_blood))
    headline = [f"{settings.organ}_uptake_pct_id", f"{settings.organ}_peak_pct_id", "half_life"]
    headline = [n for n in headline if n in names]
    profiles = joint_profiles(worlds.best, headline, level)
    averaged = average(worlds, names, level, profiles)
    biases = average_biases(worlds)
    cases = alerts(worlds, biases, level)
    nuisance = worlds.best.problem.names[len(vesicle.names) :]
    known = {i.name: i for i in identified(worlds.best, [*averaged, *nuisance])}
    aim = next((n for n in headline if n in averaged), "")
    further = [label_model(n, Label(kind="radioactive", isotope=catalogue()[n].isotope)) for n in _FURTHER]
    steps = next_steps(worlds.best, models, aim, animals=settings.next_animals, further=further) if aim else []
    drawn = None
    if settings.posterior_draws:
        drawn = sample_joint(worlds, list(averaged), draws=settings.posterior_draws, seed=_SEED, level=level)
    without = leave_out(worlds, settings.leave_out, [aim] if aim else [], level)
    return JointAnswer(
        worlds, profiles, averaged, {n: _unit(n) for n in averaged}, cases, biases, known, level,
        left_out=without, steps=steps, models=models, aim=aim, posterior=drawn,
        notes=_notes(worlds, cases, models, sorted(set(rows["group"].astype(str)))),
    )  # fmt: skip


def _starts(vesicle: RateGraph, fits: Mapping[str, FitResult]) -> FloatArray:
    """Return where the search begins: every label's own fit, their middle, and plausible rates."""
    plain = {
        p.name: p.start if p.start is not None else _PLAIN.get(p.name.split("_")[0], 0.1) for p in vesicle.parameters
    }
    starts = [[_value(f, n, plain[n]) for n in vesicle.names] for f in fits.values()]
    middle = [np.exp(np.median(np.log(starts), axis=0))] if len(starts) > 1 else []
    return np.array([*starts, *middle, [plain[n] for n in vesicle.names]], dtype=np.float64)


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


def _notes(
    worlds: Worlds, cases: Sequence[Alert], models: Mapping[str, LabelModel], groups: Sequence[str]
) -> list[str]:
    """Return what a reader has to know beside the tables."""
    best = worlds.best
    arms = best.problem.arms
    notes = [*arms.notes, *([both] if (both := undecided(cases)) else [])]
    if best.misfit_p < _MISFIT:
        notes.append(f"the joint model misses what the means show (lack of fit, p = {best.misfit_p:.1g}): the vesicle's kinetics or a "
                     "label's errors are not among those it knows")  # fmt: skip
    on = [a for a in arms.arms if a.kind == "vesicles"]
    there = {"perfused": any(not a.vessels for a in on), "dose_standard": all(a.absolute for a in on),
             "homogenate": any(models[label].readout == "homogenate" for label in arms.labels)}  # fmt: skip
    present = [*groups, *(word for word, found in there.items() if found)]
    return notes + missing_controls({label: models[label] for label in arms.labels}, present)
