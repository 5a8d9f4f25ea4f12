"""A study's labels against each other, and to one vesicle answer: every table of the cross-validation.

Labels are compared on the same quantity in the same unit; the joint model says what the vesicle did, how each label misreads
it, and which of both rests on what.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.crossval.agreement_table import AGREEMENT_COLUMNS, RANK_COLUMNS, agreement_rows, rank_rows
from evbiodist.crossval.assay import ASSAY_COLUMNS, AssayValidation, assay_rows
from evbiodist.crossval.consensus import COLUMNS, consensus_table
from evbiodist.crossval.influence import INFLUENCE_COLUMNS, influence_rows
from evbiodist.crossval.joint.answer import JointAnswer, joint_answer
from evbiodist.crossval.joint.answer_rows import answer_rows
from evbiodist.crossval.joint.arms import CONTROL_GROUPS, finite_rows
from evbiodist.kinetics.analyse import Dosings, Fits, model_parameters
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.kinetics.models.catalogue import Models
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.flags import join, split
from evbiodist.study.labels import LabelModel
from evbiodist.study.model import CrossvalSettings

if TYPE_CHECKING:
    import pandas as pd

    from evbiodist.kinetics.fitting.fit import FitResult

Row = dict[str, Any]
_PLACE = ("study", "group")
#: Columns of consensus.csv, in order; `why` says where and why joint model and consensus differ.
CONSENSUS_COLUMNS = (*_PLACE, *COLUMNS, "why")
#: A label's own parameters in the joint model, beside what was known of them before.
LABEL_COLUMNS = (*_PLACE, "label", "parameter", "organ", "value", "ci_low", "ci_high", "unit", "prior_median", "prior_low",
                 "prior_high", "prior_source", "learned_pct", "flags", "reason")  # fmt: skip
#: How each label reads each organ: area under its reading over area under the vesicle's curve.
BIAS_COLUMNS = (*_PLACE, "label", "organ", "ratio", "ratio_low", "ratio_high", "relative", "reason")
IDENTIFIED_COLUMNS = (*_PLACE, "quantity", "value", "ci_low", "ci_high", "unit", "relative_se", "prior_relative_se",
                      "labels_only_relative_se", "determined_by", "interval", "reason")  # fmt: skip
LEFT_OUT_COLUMNS = (*_PLACE, "kind", "left_out", "rank", "n", "log_density", "coverage_pct", "bias_by_organ", "quantity", "value",
                    "ci_low", "ci_high", "change_pct", "reason")  # fmt: skip
PREDICTED_COLUMNS = (
    *_PLACE,
    "kind",
    "left_out",
    "label",
    "organ",
    "time_h",
    "seen",
    "predicted",
    "low",
    "high",
    "unit",
)
ALERT_COLUMNS = (
    *_PLACE,
    "label",
    "accused",
    "log10_odds",
    "what",
    "organ",
    "ratio",
    "ratio_low",
    "ratio_high",
    "evidence",
)
NEXT_COLUMNS = (*_PLACE, "rank", "quantity", "kind", "label", "times_h", "animals", "gain_pct", "relative_se_now",
                "relative_se_then", "step")  # fmt: skip

#: The whole posterior of the joint answer, where draws were asked for.
POSTERIOR_COLUMNS = (*_PLACE, "quantity", "value", "se", "ci_low", "ci_high", "unit", "effective_draws", "lost_pct", "flags",
                     "reason")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """Tables of the cross-validation as lists of rows, and sentences.

    Parameters
    ----------
    agreement, ranks : labels against each other as they were read; consensus, influence : their pooled answer beside the joint
        model's, and who pulls it.
    label_parameters, label_bias, alerts : how each label lies.
    identifiability, left_out, predicted, next_steps : what the answer rests on, how it stands without a label, organ, time or
        animal, and what to measure next.
    posterior : of the joint answer, where draws were asked for.
    assay_validation : linearity, limits, precision and accuracy of each label's readout.
    notes : what was left out and why; what is missing.
    """

    agreement: list[Row] = field(default_factory=list)
    ranks: list[Row] = field(default_factory=list)
    consensus: list[Row] = field(default_factory=list)
    influence: list[Row] = field(default_factory=list)
    label_parameters: list[Row] = field(default_factory=list)
    label_bias: list[Row] = field(default_factory=list)
    alerts: list[Row] = field(default_factory=list)
    identifiability: list[Row] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)
    predicted: list[Row] = field(default_factory=list)
    next_steps: list[Row] = field(default_factory=list)
    posterior: list[Row] = field(default_factory=list)
    assay_validation: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


#: Columns of every table of a `Comparison`, by its name, which is also that of its file.
TABLES: dict[str, tuple[str, ...]] = {
    "agreement": AGREEMENT_COLUMNS, "ranks": RANK_COLUMNS, "consensus": CONSENSUS_COLUMNS,
    "influence": (*_PLACE, *(c for c in INFLUENCE_COLUMNS if c not in _PLACE)), "label_parameters": LABEL_COLUMNS,
    "label_bias": BIAS_COLUMNS, "alerts": ALERT_COLUMNS, "identifiability": IDENTIFIED_COLUMNS, "left_out": LEFT_OUT_COLUMNS,
    "predicted": PREDICTED_COLUMNS, "next_steps": NEXT_COLUMNS, "posterior": POSTERIOR_COLUMNS, "assay_validation": ASSAY_COLUMNS,
}  # fmt: skip

#: Columns of these tables that hold words, beside those that all tables share.
TEXT_COLUMNS = frozenset({
    "why", "prior_source", "determined_by", "interval", "kind", "left_out", "bias_by_organ", "what", "evidence", "times_h", "step",
    "labels", "organs", "order", "relative", "accused",
})  # fmt: skip


def compare_labels(
    observations: pd.DataFrame,
    labels: Mapping[str, LabelModel],
    dosing: Dosings,
    settings: CrossvalSettings,
    *,
    fits: Fits | None = None,
    parameters: Sequence[Row] = (),
    fitting: FitSettings | None = None,
    own: Models | None = None,
    species: str = "mouse",
    weight_g: float | None = None,
    assays: Mapping[str, AssayValidation] | None = None,
) -> Comparison:
    """Compare labels and bring them to one answer for every study and group of animals.

    Parameters
    ----------
    observations : with the columns of observations.csv.
    labels : what is known of each label, by its name.
    dosing : what every animal got.
    settings : model, headline organ, control groups, what to leave out.
    fits, parameters : fits of single labels and rows of parameters.csv; made here where they lack the model.
    fitting, own : how models are fitted, and a user's own models; species, weight_g : of the animals.
    assays : how well each label's readout was calibrated; its errors are in the observations already.

    Returns
    -------
    Comparison : groups with one label have a consensus of one and no joint answer. What cannot be had is a row or a note with
        its reason.
    """
    fitting = fitting or FitSettings()
    model = settings.model
    notes: list[str] = []
    observations = finite_rows(observations, notes)
    if not any(r["model"] == model for r in parameters):
        parameters, fits = model_parameters(
            observations, dosing, [model], fitting, own, species=species, weight_g=weight_g
        )
    fits = fits or {}
    controls = CONTROL_GROUPS | settings.controls
    out = Comparison(agreement_rows(observations, fitting.level), rank_rows(observations), notes=notes)
    out.assay_validation.extend(assay_rows(assays or {}))
    for (study, group), rows in _vesicle_groups(observations, controls):
        place = {"study": study, "group": group}
        mine = {label: fits[study, group, label, model] for label in sorted(set(rows["label"]))
                if (study, group, label, model) in fits}  # fmt: skip
        why = {r["label"]: r["reason"] for r in parameters
               if (r["study"], r["group"], r["model"], r["parameter"]) == (study, group, model, "fit")}  # fmt: skip
        answer = None
        if rows["label"].nunique() > 1 and settings.joint:
            try:
                answer = joint_answer(rows, labels, dosing, settings, mine, level=fitting.level, own=own, species=species,
                                      weight_g=weight_g)  # fmt: skip
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as err:
                out.notes.append(f"{group}: no joint answer: {err}")
        on_vesicles = [str(x) for x in sorted(set(rows.loc[rows["group"] == group, "label"]))]
        _pool(out, place, on_vesicles, mine, why, settings, fitting.level, answer)
        if answer is not None:
            _add_answer(out, place, answer)
    return out


def _vesicle_groups(
    observations: pd.DataFrame, controls: Mapping[str, str]
) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    """Return the rows of each group that got labelled vesicles, with the control arms of its study."""
    for study, rows in observations.groupby("study", sort=True):
        groups = sorted(set(rows["group"]))
        arms = [g for g in groups if g in controls]
        for group in [g for g in groups if g not in controls] or (["perfused"] if "perfused" in groups else []):
            yield (str(study), str(group)), rows[rows["group"].isin([group, *arms])]


def _pool(
    out: Comparison, place: Row, labels: Sequence[str], fits: Mapping[str, FitResult], why: Mapping[str, str],
    settings: CrossvalSettings, level: float, answer: JointAnswer | None,
) -> None:  # fmt: skip
    """Add consensus and influence of every quantity that a label or the joint model has."""
    if not fits and answer is None:
        return
    lasts = [float(f.data.time_h.max()) for f in fits.values()]
    last = answer.last_h if answer else min(lasts)
    grams = answer.vessel_blood if answer else {}
    have = {label: _answers(f, last, grams, level) for label, f in fits.items()}
    known = {name for names in have.values() for name in names} | set(answer.quantities if answer else ())
    for name in sorted(known, key=lambda n: _order(n, settings.organ)):
        absent = f"{name.split('_')[0]} was not measured with this label"
        estimates = [have.get(label, {}).get(name) or Estimate(name, reason=why.get(label, absent)) for label in labels]
        table: list[Row] = [
            dict(r) for r in consensus_table(name, labels, estimates, scale=settings.scale, level=level)
        ]
        inherited = {f for e in estimates for f in e.flags}
        _own_interval_of_a_single_label(table)
        for row in table:
            if row["label"] in {"mean", "consensus"}:
                row["flags"] = join({*split(str(row["flags"])), *inherited})
            if name.endswith("_pct_id"):
                row["method"] = f"until {last:g} h; {row['method']}".removesuffix("; ")
        if answer is not None and name in answer.quantities:
            joint = answer.row(name)
            pooled = next(r for r in table if r["label"] == "consensus")
            if outside_all(joint, [r for r in table if r["label"] in labels]):
                joint = {**joint, "flags": join({*split(str(joint["flags"])), "outside_labels"})}
            table.append({**dict.fromkeys(COLUMNS, math.nan), **joint, "why": answer.why(name, pooled)})
        out.consensus.extend({**place, "why": "", **row} for row in table)
        if sum(math.isfinite(e.value) and e.se > 0 for e in estimates) > 1:
            out.influence.extend({**place, **r} for r in influence_rows(name, labels, estimates, scale=settings.scale))


def outside_all(joint: Mapping[str, Any], single: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the joint answer lies beyond the intervals of all single labels, on one side of them.

    Examples
    --------
    >>> labels = [{"ci_low": 0.5, "ci_high": 0.8}, {"ci_low": 0.6, "ci_high": 0.9}]
    >>> outside_all({"estimate": 7.8}, labels), outside_all({"estimate": 0.85}, labels), outside_all({"estimate": 7.8}, labels[:1])
    (True, False, False)
    """
    ends = [(r["ci_low"], r["ci_high"]) for r in single if math.isfinite(r["ci_low"]) and math.isfinite(r["ci_high"])]
    if len(ends) < 2:
        return False
    estimate = float(joint["estimate"])
    return estimate > max(high for _, high in ends) or estimate < min(low for low, _ in ends)


def _answers(found: FitResult, last: float, grams: Mapping[str, float], level: float) -> dict[str, Estimate]:
    """Return what one label's fit says by itself; with vessel blood, the vessels' own at the last time and at the peak."""
    have = {e.name: e for e in found.estimates} | found.organ_amounts(last)
    grid = np.r_[np.geomspace(last / 2000, last, 200)]
    curves = found.predict(grid) if grams else {}
    for organ, g in grams.items():
        bare = {word: have.get(f"{organ}_{word}_pct_id") for word in ("uptake", "peak")}
        if organ not in curves or any(e is None for e in bare.values()):
            continue
        blood = curves["blood"]
        at = {"uptake": len(grid) - 1, "peak": int(np.argmax(curves[organ][0]))}
        for word, e in bare.items():
            if e is not None:
                have[f"{organ}_{word}_with_vessels_pct_id"] = _plus(e, g, [float(c[at[word]]) for c in blood], level)
    return have


def _plus(e: Estimate, grams: float, blood: Sequence[float], level: float) -> Estimate:
    """Return an amount with that in the vessels: grams of blood times the concentration (value, low, high)."""
    value = e.value + grams * blood[0]
    reach = student(level, math.inf)
    own = grams * (blood[2] - blood[1]) / (2 * reach)
    se = math.hypot(e.se, own)
    wide = math.exp(min(reach * se / value, 300.0)) if value > 0 else math.nan
    return Estimate(e.name.replace("_pct_id", "_with_vessels_pct_id"), value, se, value / wide, value * wide, e.unit, e.method, e.n,
                    e.flags, e.reason)  # fmt: skip


def _own_interval_of_a_single_label(table: list[Row]) -> None:
    """With one label there is nothing to pool: the consensus is that label, with its own interval."""
    entered = [row for row in table if isinstance(row["weight"], float) and row["weight"] > 0]
    if len(entered) == 1:
        (pooled,) = (row for row in table if row["label"] == "consensus")
        pooled |= {k: entered[0][k] for k in ("estimate", "se", "ci_low", "ci_high", "n")}


_BLOOD = ("half_life", "half_life_initial", "cl")


def _order(name: str, organ: str) -> tuple[int, str, int]:
    """Return where a quantity stands: the headline organ first, then blood, then other organs."""
    words = ("_uptake_pct_id", "_peak_pct_id", "_uptake_with_vessels_pct_id", "_peak_with_vessels_pct_id")
    word = next((i for i, w in enumerate(words) if name.endswith(w)), len(words))
    whose = name.removesuffix(words[word]) if word < len(words) else ""
    if word == len(words):
        return (1, "", _BLOOD.index(name)) if name in _BLOOD else (3, name, 0)
    return (0 if whose == organ else 2, whose, word)


def _add_answer(out: Comparison, place: Row, answer: JointAnswer) -> None:
    """Add the joint model's own tables."""
    for name, rows in answer_rows(answer).items():
        getattr(out, name).extend({**place, **row} for row in rows)
    out.notes.extend(note for note in answer.notes if note not in out.notes)
