"""What the kinetics panel shows, as plain tables: parameters, curves, terminal lines, models and labels against each other.

Every number comes from the batch's own functions, run in another process; here they are only put in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from evbiodist.batch import pipeline
from evbiodist.batch.engine import one_thread
from evbiodist.crossval.compare import TABLES, Comparison
from evbiodist.kinetics.analyse import TerminalLine, nca_parameters, terminal_lines, unused_choices
from evbiodist.kinetics.designs.pooling import POOLED
from evbiodist.kinetics.fitting.compare_models import compare
from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.models.catalogue import Models, catalogue
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.report.figures import means
from evbiodist.report.folder import read_results
from evbiodist.report.words import interval
from evbiodist.study.flags import FLAGS, split
from evbiodist.study.model import LEAST_ON_LINE, KineticsSettings, LambdaZChoice, Observation, Study
from evbiodist.study.problems import InputError
from evbiodist.study.vocabulary import BLOOD

Row = dict[str, Any]
_CURVE = ("study", "group", "label", "organ", "unit")
#: What the rules are called in the panel, and what is said of them.
WORDS = {
    "method": ("area", "how the area between two samples is taken: straight, or logarithmic where values fall"),
    "rules": ("conventions", "on what programs disagree, do as this one does"),
    "blq": ("below the limit", "what stands for a value below the limit of quantification in the areas"),
    "max_extrap_pct": ("extrapolated, at most %", "areas that rest on more than this share beyond the last sample are flagged"),
    "refuse_extrap": ("refuse beyond that", "what is extrapolated beyond that share is missing instead of flagged"),
    "weights": ("weights of a fit", "how much each value counts: pooled takes the spread of all times together"),
    "loss": ("loss of a fit", "squares, or one that outliers pull less"),
    "fit_scale": ("scale of a fit", "on which scale the distance from the curve is taken"),
    "fit_blq": ("fit below the limit", "drop such values, or use that they are below it (m3)"),
    "level": ("level of intervals", "share of repetitions in which an interval holds the true value"),
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A setting of the kinetics: its key and words, and the choices or limits that its own type allows."""

    key: str
    words: str
    tip: str
    choices: tuple[str, ...] = ()
    switch: bool = False
    low: float = -math.inf
    high: float = math.inf


def rules() -> tuple[Rule, ...]:
    """Return the rules that the panel offers, read from the types of `KineticsSettings`.

    Examples
    --------
    >>> {r.key: r.choices for r in rules()}["fit_blq"]
    ('drop', 'm3')
    """
    found = []
    for key, (words, tip) in WORDS.items():
        entry = KineticsSettings.model_fields[key]
        if get_origin(entry.annotation) is Literal:
            found.append(Rule(key, words, tip, choices=get_args(entry.annotation)))
        elif entry.annotation is bool:
            found.append(Rule(key, words, tip, switch=True))
        else:
            low = next((m.gt for m in entry.metadata if hasattr(m, "gt")), -math.inf)
            high = next((getattr(m, "le", None) or getattr(m, "lt", None) for m in entry.metadata
                         if hasattr(m, "le") or hasattr(m, "lt")), math.inf)  # fmt: skip
            found.append(Rule(key, words, tip, low=float(low), high=float(high or math.inf)))
    return tuple(found)


def models_of(study: Study | None) -> dict[str, str]:
    """Return the models that can be chosen with their titles: the study's own, then those of the catalogue that take a dose."""
    own: Models = pipeline.own_models(study)[0] if study is not None else {}
    return {name: str(entry["title"]) for name, entry in {**own, **catalogue()}.items()
            if [i["name"] for i in entry["inputs"]] == ["dose"]}  # fmt: skip


# in the other process


@dataclass(frozen=True)
class ModelsCompared:
    """Models that were fitted to the same values of one group and label: the table, best first, and what it says."""

    study: str
    group: str
    label: str
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Kinetics of a study.

    Parameters
    ----------
    observations, parameters, curves : rows of the CSV files, as the batch writes them.
    points : mean and interval of every study, group, label, organ, unit and time, as in the report's figures.
    lines : the terminal line of every curve, with the samples on and off it.
    models : comparisons of models; notes : sentences about the settings.
    """

    observations: list[Row]
    parameters: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    lines: list[TerminalLine] = field(default_factory=list)
    models: list[ModelsCompared] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def analyse(study: Study, scanned: Sequence[Observation], *, tell: Callable[[Any], None]) -> Comparison:
    """Do what the batch does after measuring: tell `Fitted` as soon as it is there, return the comparison of labels.

    Parameters
    ----------
    study : with its settings.
    scanned : rows of all its scans, as they were measured; tables of the study are read here.

    Raises
    ------
    InputError : what the batch would stop at too.
    """
    tables, problems = pipeline.check_tables(study)
    problems += [*pipeline.unknown_models(study), *pipeline.assays_of(study)[1]]
    if problems:
        raise InputError(problems)
    with one_thread():
        observations = pipeline.analyse(study, scanned, tables, quantify_only=True).observations
        parameters, curves, fits = pipeline.kinetics_of(study, observations, lambda event: None)
        kinetics = study.settings.kinetics
        tell(Fitted(observations, parameters, curves, mean_points(observations, kinetics.level), lines_of(study, observations),
                    compared_models(fits), unused_choices(pipeline.frame_of(observations), kinetics)))  # fmt: skip
        return pipeline.comparison_of(study, observations, parameters, fits)


def read(study: Study, folder: Path) -> tuple[Fitted, Comparison]:
    """Return what a run of the batch wrote into its result folder; models are compared by `analyse` only.

    Raises
    ------
    InputError : not a result folder.
    """
    results = read_results(folder)

    def rows(table: str) -> list[Row]:
        frame = results[table]
        return [_as_made(row) for row in frame.to_dict("records")] if len(frame) else []

    observations = rows("observations")
    with one_thread():
        points, lines = mean_points(observations, study.settings.kinetics.level), lines_of(study, observations)
    notes = [str(n) for n in results.study.get("notes", [])]
    fitted = Fitted(observations, rows("parameters"), rows("curves"), points, lines)
    return fitted, Comparison(**{name: rows(name) for name in TABLES}, notes=notes)


def _as_made(row: Mapping[Any, Any]) -> Row:
    """Return a row that was read as it was before it was written: yes and no, and whole numbers of animals."""
    made: Row = {str(k): v for k, v in row.items()}
    made |= {k: made[k] == "yes" for k in ("below_lloq", "accused", "relative") if made.get(k) in ("yes", "no")}
    if "parameter" in made and math.isfinite(made["n"]):
        made["n"] = int(made["n"])
    return made


def mean_points(observations: Sequence[Row], level: float) -> list[Row]:
    """Return mean and interval of every curve and time, then those of each animal that has a curve of its own.

    The column `subject` is empty for means over animals.
    """
    rows: list[Row] = []
    times: dict[tuple[str, ...], set[float]] = {}
    for r in observations:
        times.setdefault(tuple(r[k] for k in (*_CURVE, "subject")), set()).add(r["time_h"])
    own = {key for key, seen in times.items() if len(seen) >= LEAST_ON_LINE and key[-1] != POOLED}
    for study in sorted({r["study"] for r in observations}):
        mine = [r for r in observations if r["study"] == study]
        rows += [{**r, "study": study, "subject": ""} for r in _means(mine, level)]
        alone = [r for r in mine if tuple(r[k] for k in (*_CURVE, "subject")) in own]
        for subject in sorted({r["subject"] for r in alone}):
            rows += [
                {**r, "study": study, "subject": subject}
                for r in _means([r for r in alone if r["subject"] == subject], level)
            ]
    return rows


def _means(observations: Sequence[Row], level: float) -> list[Row]:
    return [
        {str(k): v for k, v in row.items()}
        for row in means(pipeline.frame_of(list(observations)), level).to_dict("records")
    ]


def lines_of(study: Study, observations: Sequence[Row]) -> list[TerminalLine]:
    """Return the terminal line of every curve."""
    frame = pipeline.frame_of(list(observations))
    return [] if frame.empty else terminal_lines(frame, pipeline.dosing_of(study), study.settings.kinetics)


@dataclass(frozen=True, eq=False)
class Again:
    """NCA of one label and organ made anew: what `with_again` puts in place of the former.

    `organs` are those whose parameters rest on that organ: of blood all.
    """

    label: str
    organ: str
    organs: frozenset[str]
    parameters: list[Row]
    lines: list[TerminalLine]


def needed_for(observations: Sequence[Row], label: str, organ: str) -> list[Row]:
    """Return the observations from which one organ's NCA is made anew: its own and blood's; of blood, the whole label's."""
    mine = [r for r in observations if r["label"] == label]
    return mine if organ in BLOOD else [r for r in mine if r["organ"] in {organ, *BLOOD}]


def analyse_curve(study: Study, needed: Sequence[Row], label: str, organ: str) -> Again:
    """Return NCA parameters and terminal lines of one label and organ anew, the same as those of the whole study.

    Ratios to blood of every organ rest on blood, so blood brings all organs.
    """
    organs = frozenset(r["organ"] for r in needed) if organ in BLOOD else frozenset({organ})
    with one_thread():
        rows = nca_parameters(pipeline.frame_of(list(needed)), pipeline.dosing_of(study), study.settings.kinetics)
        lines = lines_of(study, [r for r in needed if r["organ"] == organ])
    return Again(label, organ, organs, [r for r in rows if r["organ"] in organs], lines)


def with_again(fitted: Fitted, again: Again) -> Fitted:
    """Return what was fitted with the NCA of some curves exchanged."""
    kept = [
        r
        for r in fitted.parameters
        if r["model"] != "nca" or r["label"] != again.label or r["organ"] not in again.organs
    ]
    lines = [line for line in fitted.lines if (line.label, line.organ) != (again.label, again.organ)]
    return replace(fitted, parameters=sorted([*kept, *again.parameters], key=pipeline.parameter_order),
                   lines=[*lines, *again.lines])  # fmt: skip


def compared_models(fits: Mapping[tuple[str, str, str, str], FitResult]) -> list[ModelsCompared]:
    """Compare the models of every group and label that were fitted to the same values.

    Models of blood alone and models of blood with organs are fitted to different values, and are told apart.
    """
    found = []
    for place in sorted({key[:3] for key in fits}):
        mine = {key[3]: fit for key, fit in fits.items() if key[:3] == place}
        for together in _same_values(mine):
            found.append(_compared(place, together, [m for m in mine if m not in together]))
    return found


def _same_values(fits: Mapping[str, FitResult]) -> list[dict[str, FitResult]]:
    sets: list[dict[str, FitResult]] = []
    for name, fit in fits.items():
        home = next((s for s in sets if np.array_equal(next(iter(s.values())).data.value, fit.data.value)), None)
        if home is None:
            sets.append({name: fit})
        else:
            home[name] = fit
    return sets


def _compared(place: tuple[str, str, str], fits: Mapping[str, FitResult], others: Sequence[str]) -> ModelsCompared:
    if len(fits) < 2:
        [(name, fit)] = fits.items()
        seen = ", ".join(fit.data.seen)
        beside = f" ({', '.join(others)}: fitted to other values)" if others else ""
        row = {"model": name, "parameters": len(fit.problem.freedom.names), "aicc": fit.aicc, "bic": fit.bic}
        return ModelsCompared(*place, (row,), (f"{name} is the only model fitted to {seen}{beside}, so there is nothing to "
                                               "compare it with; choose a second one for the same values",))  # fmt: skip
    try:
        found = compare(fits, nested=nested_pairs(fits))
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as err:
        rows = tuple({"model": name, "aicc": fit.aicc, "bic": fit.bic} for name, fit in fits.items())
        return ModelsCompared(*place, rows, (f"not compared: {err}",))
    rows = tuple({"model": c.name, **{k: v for k, v in c._asdict().items() if k != "name"}} for c in found.table)
    return ModelsCompared(*place, rows, (found.words, *(t.words for t in found.tests), *found.notes))


def nested_pairs(fits: Mapping[str, FitResult]) -> list[tuple[str, str]]:
    """Return pairs (smaller, larger) of linear models where the larger one has all flows of the smaller one, and more."""
    flows = {
        name: _flows(fit.graph)
        for name, fit in fits.items()
        if all(t.form == "first_order" for t in fit.graph.transfers)
    }
    return [(a, b) for a in flows for b in flows
            if flows[a][0] == flows[b][0] and flows[a][1] < flows[b][1]
            and len(fits[a].problem.freedom.names) < len(fits[b].problem.freedom.names)]  # fmt: skip


def _flows(graph: RateGraph) -> tuple[list[tuple[str, ...]], set[tuple[str, str | None]]]:
    into = [tuple(compartment for compartment, _ in port.into) for port in graph.ports]
    return into, {(t.source, t.target) for t in graph.transfers}


# what is shown


@dataclass(frozen=True)
class Place:
    """Which curve is looked at; an empty label means all, an empty subject the mean of all animals."""

    study: str = ""
    group: str = ""
    label: str = ""
    organ: str = ""
    unit: str = ""
    subject: str = ""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of points or curves belongs here."""
        same = (row["study"], row["group"], row["organ"]) == (self.study, self.group, self.organ)
        return same and row["unit"] == self.unit and self.label in ("", row["label"])


def line_at(lines: Iterable[TerminalLine], place: Place) -> TerminalLine | None:
    """Return the terminal line that is looked at: of the chosen animal, or of the only curve there is."""
    here = [x for x in lines if (x.study, x.group, x.label, x.organ, x.unit) == (place.study, place.group, place.label, place.organ,
                                                                               place.unit)]  # fmt: skip
    if place.subject:
        return next((x for x in here if x.subject == place.subject), None)
    return here[0] if len(here) == 1 else None


def parameter_table(rows: Iterable[Row], place: Place) -> list[Row]:
    """Return the rows of the parameter table for a place: the organ's, and what models say of the whole label."""
    shown = []
    for r in rows:
        here = (r["study"], r["group"]) == (place.study, place.group) and r["organ"] in {place.organ, ""}
        another = place.subject and r["model"] == "nca" and r["subject"] != place.subject
        if here and not another and place.label in ("", r["label"]):
            shown.append({**r, "interval": _ends(r), "flag_words": flag_words(r["flags"]), "flags": r["flags"].replace(";", ", "),
                          "missing": math.isnan(r["value"])})  # fmt: skip
    return shown


def _ends(row: Mapping[str, Any]) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.4g} to {high:.4g}"


def flag_words(cell: str) -> str:
    """Return what the flags of a cell mean and what to do, a line each.

    Examples
    --------
    >>> flag_words("short_span")
    'short_span: the terminal slope rests on less than two half-lives; sample longer'
    """
    return "\n".join(f"{word}: {FLAGS[word].meaning}; {FLAGS[word].remedy}" for word in sorted(split(cell)))


def about(row: Mapping[str, Any]) -> list[str]:
    """Return a parameter in sentences: what it is of, how it was made, what is odd about it, why it is missing."""
    whose = ", ".join(str(row[k]) for k in ("group", "label", "organ", "subject") if row[k])
    value = interval(row["value"], row["ci_low"], row["ci_high"])
    told = [f"{row['parameter']} = {value} {row['unit']}".rstrip() + f" ({whose}; n = {row['n']})", str(row["method"])]
    told += [row["reason"]] if row["reason"] else []
    return [t for t in (*told, *flag_words(str(row["flags"]).replace(", ", ";")).splitlines()) if t]


def unanalysed(parameters: Iterable[Row], failures: Mapping[str, str], notes: Iterable[str] = ()) -> list[str]:
    """Return as sentences what could not be analysed at all, alike ones together; nothing is left out without a word."""
    told = [f"{scan} was not measured: {why}" for scan, why in sorted(failures.items())]
    alike: dict[str, list[str]] = {}
    for r in parameters:
        if r["parameter"] in ("nca", "fit") and math.isnan(r["value"]):
            what = f"NCA of {r['organ']}, {r['subject']}" if r["model"] == "nca" else r["model"]
            alike.setdefault(r["reason"], []).append(f"{what} ({r['group']}, {r['label']})")
    for why, whose in alike.items():
        some = ", ".join(whose[:4]) + (f" and {len(whose) - 4} more" if len(whose) > 4 else "")
        told.append(f"{some}: {why}")
    return [*told, *notes]


# points of the terminal line


def point_words(line: TerminalLine) -> list[str]:
    """Return what is said of each sample under the mouse: whether it is on the terminal line, and why not."""
    words = []
    for i, (t, v) in enumerate(zip(line.time_h, line.value, strict=True)):
        state = (
            "on the terminal line"
            if i in line.positions
            else f"not on the terminal line: {line.off.get(i, 'not chosen')}"
        )
        words.append(f"{t:g} h: {v:.4g} {line.unit}\n{state}\nclick to change that")
    return words


def drawn(line: TerminalLine) -> tuple[list[float], list[float]]:
    """Return the terminal line through its samples, to the last sample; nothing without a slope."""
    slope, on = line.lambda_z.value, list(line.positions)
    if not on or not math.isfinite(slope):
        return [], []
    t, y = (np.array(x, float)[on] for x in (line.time_h, line.value))
    height = float(np.mean(np.log(y) + slope * t))
    grid = np.linspace(float(t.min()), max(line.time_h), 50)  # it is bent where time is logarithmic
    return grid.tolist(), np.exp(height - slope * grid).tolist()


def toggled(line: TerminalLine, times: Sequence[float], position: int) -> tuple[float, ...]:
    """Return the chosen times with one sample taken on or off.

    Raises
    ------
    ValueError : a sample that a logarithmic line cannot go through, or too few left.
    """
    t, value = line.time_h[position], line.value[position]
    if t in times:
        left = tuple(x for x in times if x != t)
        if len(left) < LEAST_ON_LINE <= len(times):
            raise ValueError(
                f"a terminal line needs {LEAST_ON_LINE} samples, and {len(times)} are chosen; take another one on first"
            )
        return left
    if not value > 0:
        why = line.off.get(position, "its value is not above zero")
        raise ValueError(f"the sample at {t:g} h cannot be on the terminal line: {why}")
    return tuple(sorted((*times, t)))


def choice_of(settings: KineticsSettings, line: TerminalLine) -> LambdaZChoice | None:
    """Return the choice that holds for a curve: the most specific one."""
    fitting = [c for c in settings.lambda_z if c.holds(line.group, line.label, line.organ, line.unit, line.subject)]
    return max(fitting, key=lambda c: c.specific, default=None)


def with_choice(settings: KineticsSettings, line: TerminalLine, times: Sequence[float], why: str) -> list[Row]:
    """Return `kinetics.lambda_z` with a choice for this very curve.

    Raises
    ------
    ValueError : no reason, or too few samples.
    """
    if not why.strip():
        raise ValueError("say why these samples make the terminal line; the reason stands beside the number")
    if len(times) < LEAST_ON_LINE:
        raise ValueError(
            f"{len(times)} samples are chosen, and a terminal line needs {LEAST_ON_LINE}; click more of them"
        )
    mine: Row = {k: getattr(line, k) for k in ("label", "organ", "group", "subject", "unit")}
    mine |= {"times_h": list(times), "why": why.strip()}
    held = choice_of(settings, line)
    former = held if held is not None and all(held.specific) else None
    return [*(c.model_dump(exclude_none=True) for c in settings.lambda_z if c is not former), mine]


def without_choice(settings: KineticsSettings, line: TerminalLine) -> list[Row]:
    """Return `kinetics.lambda_z` without the choice that holds for this curve."""
    held = choice_of(settings, line)
    return [c.model_dump(exclude_none=True) for c in settings.lambda_z if c is not held]


# labels against each other


@dataclass(frozen=True)
class Cell:
    """A cell of the bias map."""

    label: str
    organ: str
    text: str
    back: str
    ink: str
    sure: bool
    tip: str


_LOW, _EVEN, _HIGH = (33, 102, 172), (247, 247, 247), (217, 95, 14)
_WIDEST = 16.0


def bias_cells(rows: Iterable[Mapping[str, Any]]) -> list[Cell]:
    """Return the cells of the bias map: how many times the vesicle each label reads each organ, pale where 1 lies within.

    Colours and limits are those of the report's map.
    """
    rows = list(rows)
    known = [r["ratio"] for r in rows if math.isfinite(r["ratio"]) and r["ratio"] > 0]
    reach = min(max([math.exp(abs(math.log(x))) for x in known] + [1.5]), _WIDEST)
    return [_cell(r, reach) for r in rows]


def _cell(r: Mapping[str, Any], reach: float) -> Cell:
    ratio, low, high = r["ratio"], r["ratio_low"], r["ratio_high"]
    if not (math.isfinite(ratio) and ratio > 0):
        return Cell(r["label"], r["organ"], "–", "#ffffff", "#1a1a1a", False, r["reason"] or "no value")
    sure = low > 1 or high < 1
    part = min(abs(math.log(ratio)) / math.log(reach), 1.0) * (1.0 if sure else 0.35)
    edge = _HIGH if ratio > 1 else _LOW
    rgb = [round(e + part * (x - e)) for e, x in zip(_EVEN, edge, strict=True)]
    dark = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 140
    verdict = (
        f"{'more' if ratio > 1 else 'less'} than the vesicle"
        if sure
        else "which may be the vesicle itself: 1 lies within"
    )
    tip = f"{r['label']} reads {interval(ratio, low, high)} times the vesicle in {r['organ']}, {verdict}"
    mark = ("▲ " if ratio > 1 else "▼ ") if sure else ""
    return Cell(r["label"], r["organ"], f"{mark}{_short(ratio)}\n{_short(low)}–{_short(high)}", "#{:02x}{:02x}{:02x}".format(*rgb),
                "#ffffff" if dark else "#1a1a1a", sure, f"{tip}; {r['reason']}" if r["reason"] else tip)  # fmt: skip


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.3g}"


@dataclass(frozen=True)
class ForestLine:
    """A line of a forest plot; `wide` is the prediction interval, `why` stands in place of a missing value."""

    name: str
    value: float
    low: float
    high: float
    wide: tuple[float, float]
    pooled: bool
    tip: str
    why: str = ""


#: Rows of consensus.csv that are not labels, in the order of the forest plot.
POOLED_ROWS = {"mean": "plain mean", "consensus": "consensus", "joint": "joint answer"}


def quantities(rows: Iterable[Row], study: str, group: str) -> list[str]:
    """Return the quantities of the consensus in their order: the headline organ first."""
    return list(dict.fromkeys(r["quantity"] for r in rows if (r["study"], r["group"]) == (study, group)))


def forest_lines(rows: Iterable[Row], study: str, group: str, quantity: str) -> tuple[list[ForestLine], str, str]:
    """Return the lines of a quantity's forest plot, its unit, and why joint answer and consensus differ."""
    here = [r for r in rows if (r["study"], r["group"], r["quantity"]) == (study, group, quantity)]
    here.sort(key=lambda r: list(POOLED_ROWS).index(r["label"]) if r["label"] in POOLED_ROWS else -1)
    lines = []
    for r in here:
        name = POOLED_ROWS.get(r["label"], r["label"])
        missing = not math.isfinite(r["estimate"])
        tip = f"{name}: {r['reason'] or 'no value'}" if missing else (
            f"{name}: {interval(r['estimate'], r['ci_low'], r['ci_high'])} {r['unit']}\n{r['method']}")  # fmt: skip
        tip += "".join(f"\n{words}" for words in flag_words(r["flags"]).splitlines())
        lines.append(ForestLine(name, r["estimate"], r["ci_low"], r["ci_high"], (r["prediction_low"], r["prediction_high"]),
                                r["label"] in POOLED_ROWS, tip, (r["reason"] or "no value") if missing else ""))  # fmt: skip
    unit = next((r["unit"] for r in here if r["unit"]), "")
    return lines, unit, next((r["why"] for r in here if r.get("why")), "")


def alert_sentences(rows: Iterable[Row], study: str, group: str) -> list[str]:
    """Return what speaks against each label, those that misread first, as sentences."""
    here = [r for r in rows if (r["study"], r["group"]) == (study, group)]
    here.sort(key=lambda r: not r["accused"])
    words = [str(r["evidence"]) for r in here]  # one that begins with a label's name keeps it as it is
    return [f"{w if w.startswith(r['label']) else w[0].upper() + w[1:]}." for w, r in zip(words, here, strict=True)]
