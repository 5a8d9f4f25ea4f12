"""Reporting guidelines, filled in from a result folder: what a study tells, what it tells in part, what it does not.

The items are data/checklists.toml; here is one rule for each, which looks into the folder and never guesses.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from evbiodist.report.folder import ResultFolder, provenance
from evbiodist.report.words import joined, number, short
from evbiodist.study.labels import CONTROLS
from evbiodist.study.vocabulary import BLOOD, NOT_ORGANS, STANDARD, WHOLE_ANIMAL, organ_name

if TYPE_CHECKING:
    import pandas as pd

State = Literal["reported", "partly", "not reported", "not applicable"]
NO_CLAIM = "No regulatory compliance is claimed."
_NAMES, _LETTERS = 8, 60
#: Tissues that every biodistribution study of ICH S12 (section 4.6) samples, with the names that stand for each.
PANEL: Mapping[str, tuple[str, ...]] = {
    "gonads": ("testis", "testes", "ovary", "ovaries", "gonad", "gonads"), "adrenal": ("adrenal", "adrenals", "adrenal_gland"),
    "brain": ("brain",), "spinal cord": ("spinal_cord",), "liver": ("liver",), "kidney": ("kidney",), "lung": ("lung",),
    "heart": ("heart",), "spleen": ("spleen",), "blood": BLOOD,
}  # fmt: skip
#: Groups that `[crossval.controls]` names, as the words of `CONTROLS`.
_NAMED_ARMS = {"free_label": ("dye_only", "free_label"), "background": ("unlabelled", "substrate_only")}


@dataclass(frozen=True)
class Item:
    """One item of a guideline: its number and matter, what the study says of it, and what to add where.

    Parameters
    ----------
    number : as the guideline numbers it; a word in brackets tells parts of one number apart.
    title : the matter, in our words.
    state : reported, partly, not reported or not applicable.
    evidence : a sentence with what was found.
    remedy : what to add and where; empty where nothing is lacking.
    section : of the guideline, where it names sections and does not number items.
    """

    number: str
    title: str
    state: State
    evidence: str
    remedy: str = ""
    section: str = ""


@dataclass(frozen=True)
class Checklist:
    """A guideline with its items as one study fills them.

    Parameters
    ----------
    name, title, source, doi : of the guideline; doi is empty where it has none.
    note : what the list is and is not; always says that no regulatory compliance is claimed.
    """

    name: str
    title: str
    source: str
    doi: str
    note: str
    items: tuple[Item, ...]

    def counts(self) -> dict[str, int]:
        """Return how many items there are of each state."""
        return {
            s: sum(i.state == s for i in self.items) for s in ("reported", "partly", "not reported", "not applicable")
        }


Finding = tuple[State, str]
Rule = Callable[[ResultFolder, Mapping[str, Any]], Finding]


def checklists(results: ResultFolder) -> list[Checklist]:
    """Return MISEV2023, ARRIVE 2.0 Essential 10, ICH S12 and ICH M10 as a study fills them.

    Parameters
    ----------
    results : a result folder, as `evbiodist.report.folder.read_results` reads it.

    Returns
    -------
    list of Checklist, always the same items in the same order; what files cannot know is "not reported".

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> bare = ResultFolder(Path("."), {"observations": pd.DataFrame()}, {"name": "x", "settings": {}})
    >>> [(c.name, c.counts()["reported"]) for c in checklists(bare)]
    [('misev2023', 0), ('arrive2', 0), ('ich_s12', 0), ('ich_m10', 0)]
    """
    return [
        Checklist(c["name"], c["title"], c["source"], c["doi"], f"{c['note']} {NO_CLAIM}",
                  tuple(_item(results, told) for told in c["item"]))
        for c in _toml()["checklist"]
    ]  # fmt: skip


@lru_cache(maxsize=1)
def _toml() -> dict[str, Any]:
    return tomllib.loads((files("evbiodist") / "data" / "checklists.toml").read_text(encoding="utf-8"))


def _item(results: ResultFolder, told: Mapping[str, Any]) -> Item:
    state, evidence = RULES[told["rule"]](results, told)
    remedy = told["remedy"] if state in ("partly", "not reported") else ""
    return Item(told["number"], told["title"], state, evidence, remedy, told.get("section", ""))


# What the rules look into


def table(results: ResultFolder, name: str) -> pd.DataFrame:
    """Return a table of a result folder; an empty one where the folder has none."""
    import pandas as pd

    return results.tables.get(name, pd.DataFrame())


def column(found: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column of a table; an empty one where the table has none."""
    import pandas as pd

    return found[name] if name in found.columns else pd.Series(dtype=object)


def setting(results: ResultFolder, part: str, key: str) -> Any:
    """Return a setting of the run; None where the folder does not say."""
    return (results.study.get("settings", {}).get(part) or {}).get(key)


def groups_of(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the groups of a study: a row a group and label."""
    return list(results.study.get("groups") or [])


def subjects_of(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the rows of subjects.csv; none in folders written before these were kept."""
    return list(results.study.get("subjects") or [])


def dosing_rows(results: ResultFolder) -> list[dict[str, Any]]:
    """Return what was dosed: animals, and tables that name a dose of their own or stand alone."""
    rows, sources = subjects_of(results), results.study.get("sources") or []
    return [*rows, *(s for s in sources if s.get("dose") or not (rows or groups_of(results)))]


def routes_of(results: ResultFolder) -> set[str]:
    """Return the routes of animals and tables."""
    told = [r.get("route") for r in dosing_rows(results)] + [
        r for g in groups_of(results) for r in g.get("routes") or []
    ]
    return {str(r) for r in told if r}


def clean(text: object, most: int = _LETTERS) -> str:
    """Return text of a user on one line, without control characters, cut to a length a sentence has room for.

    Examples
    --------
    >>> clean("a\\x00\\nb"), clean("liver", most=3)
    ('a b', 'li…')
    """
    return short("".join(c if c.isprintable() else " " for c in str(text)), most)


def names(values: Iterable[object], most: int = _NAMES) -> str:
    """Return names as a list within a sentence, cut after the first ones.

    Examples
    --------
    >>> names(["b", "a", "a"]), names("abcd", most=2)
    ('a and b', 'a, b and 2 more')
    """
    found = sorted({clean(v) for v in values})
    return joined(found if len(found) <= most else [*found[:most], f"{len(found) - most} more"])


def plural(n: int, word: str, many: str = "") -> str:
    """Return a count with its word.

    Examples
    --------
    >>> plural(1, "animal"), plural(2, "animal")
    ('1 animal', '2 animals')
    """
    return f"{n} {word}" if n == 1 else f"{n} {many or word + 's'}"


def _by_share(n: int, of: int) -> State:
    """Return the state of something that n out of so many have."""
    return "reported" if n and n >= of else "partly" if n else "not reported"


def organs_of(results: ResultFolder) -> list[str]:
    """Return the organs with values, sorted; fluids and the animal as a whole are none."""
    return sorted(set(column(table(results, "observations"), "organ")) - {*NOT_ORGANS, ""})


def times_of(results: ResultFolder) -> list[float]:
    """Return the times with values, in hours after the dose."""
    return sorted(float(t) for t in column(table(results, "observations"), "time_h").dropna().unique())


# The rules


def _unknown(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    return "not reported", "A study's files do not say this."


def _vesicles(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    told = results.study.get("vesicles") or {}
    fields = item["fields"]
    there = [f for f in fields if told.get(f) not in (None, "", [], ())]
    lacking = [f for f in fields if f not in there]
    said = "; ".join(f"{f}: {_value(told[f])}" for f in there)
    if not there:
        return "not reported", f"[vesicles] says nothing of {joined(lacking)}."
    return _by_share(len(there), len(fields)), f"{said}." + (f" Not said: {joined(lacking)}." if lacking else "")


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(clean(v) for v in value)
    return number(float(value)) if isinstance(value, int | float) else clean(value)


def _labels(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    labels = results.study.get("labels") or {}
    if not labels:
        return "not reported", "No label is described."
    physics = ("half_life_h", "emission_nm")
    bare = [
        k for k, v in labels.items() if v.get("kind") not in ("mri", "molecular") and not any(v.get(p) for p in physics)
    ]
    bare += [
        k for k, v in labels.items() if v.get("kind") == "molecular" and v.get("description") in ("", "not described")
    ]
    kinds = names(f"{k} ({v.get('kind') or 'kind not given'})" for k, v in labels.items())
    said = f"{plural(len(labels), 'label')} described: {kinds}."
    return _by_share(len(labels) - len(bare), len(labels)), said + (
        f" Physics not given: {names(bare)}." if bare else ""
    )


def _control(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    found = [_one_control(results, control) for control in item["controls"]]
    asked = [(state, said) for state, said in found if state != "not applicable"]
    if not asked:
        return "not applicable", " ".join(said for _, said in found)
    there = sum(state == "reported" for state, _ in asked)
    return _by_share(there, len(asked)), " ".join(said for _, said in asked)


def _one_control(results: ResultFolder, control: str) -> Finding:
    what, pattern = CONTROLS[control]
    named = (setting(results, "crossval", "controls") or {}).items()
    arms = {str(g.get("group", "")) for g in (*groups_of(results), *(results.study.get("sources") or []))}
    there = [a for a in arms if re.search(pattern, organ_name(a))]
    there += [a for a, role in named if control in _NAMED_ARMS.get(role, ())]
    thing = re.sub(r"^an? ", "", what)
    if there:
        return "reported", f"{thing[0].upper()}{thing[1:]}: {names(there)}."
    lacking = [s for s in results.study.get("missing") or [] if str(s).startswith(f"No {thing}")]
    if lacking:
        return "not reported", " ".join(clean(s, 400) for s in lacking)
    return "not applicable", f"No label of this study calls for {what}."


def _dose(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    rows, routes = dosing_rows(results), routes_of(results)
    dosed = [r for r in rows if r.get("dose") and r.get("dose_unit")]
    said = f"Route: {names(routes)}." if routes else "No route is given."
    units = sorted({str(r["dose_unit"]) for r in dosed})
    doses = [f"{_range(r['dose'] for r in dosed if r['dose_unit'] == u)} {clean(u)}" for u in units]
    said += f" Dose: {'; '.join(doses[:_NAMES])}." if doses else " No dose is given."
    without = len(rows) - len(dosed)
    said += f" Without a dose: {plural(without, 'row')}." if dosed and without else ""
    if routes and dosed and not without:
        return "reported", said
    return ("partly" if routes or dosed else "not reported"), said


def _range(values: Iterable[float]) -> str:
    found = sorted(float(v) for v in values)
    low, high = number(found[0]), number(found[-1])
    return low if low == high else f"{low} to {high}"


def _perfusion(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen, animals = table(results, "observations"), _rows_of_animals(results)
    perfused = sum(g.get("perfused", 0) for g in groups_of(results))
    by_table = [s["file"] for s in results.study.get("sources") or [] if s.get("perfused")]
    subtracted = int(column(seen, "vessel_blood").notna().sum())
    left = int(column(seen, "flags").fillna("").str.contains("blood_in_organ").sum())
    said = [f"{perfused} of {plural(animals, 'animal')} perfused."] if animals else []
    said += [f"Perfused, by {names(by_table)}."] if by_table else []
    said += [f"Vessel blood was subtracted from {plural(subtracted, 'value')}."] if subtracted else []
    said += [f"{plural(left, 'value')} still with vessel blood."] if left else []
    done = subtracted or by_table or (animals and perfused == animals)
    state: State = "partly" if (done or perfused) and (left or not done) else "reported" if done else "not reported"
    return state, " ".join(said) or "Perfusion is not told, and no vessel blood was subtracted."


def _rows_of_animals(results: ResultFolder) -> int:
    """Return the animals as groups count them: one with two labels counts twice."""
    return sum(g.get("animals", 0) for g in groups_of(results))


def _times(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    times = times_of(results)
    if not times:
        return "not reported", "No value has a time."
    said = (
        f"{plural(len(times), 'time')}, {number(times[0])} to {number(times[-1])} h."
        if len(times) > 1
        else f"One time, {number(times[0])} h."
    )
    return "reported" if len(times) > 2 else "partly", said


def _agreement(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    labels = results.study.get("labels") or {}
    found = table(results, "agreement")
    if len(labels) < 2:
        return (
            "not applicable" if item["number"].startswith("6.2") else "not reported"
        ), "One label only, so no methods to compare."
    if not len(found):
        return "not reported", f"{plural(len(labels), 'label')}, but no two were compared."
    pairs = found[["label_a", "label_b"]].drop_duplicates()
    organs = found.loc[found["organ"] != "all", "organ"].nunique()
    possible = len(labels) * (len(labels) - 1) // 2
    return (
        _by_share(len(pairs), possible),
        f"{len(pairs)} of {plural(possible, 'pair')} of labels compared, over {plural(organs, 'organ')}.",
    )


def _bias(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    found = table(results, "agreement")
    if not len(found):
        state: State = "not applicable" if len(results.study.get("labels") or {}) < 2 else "not reported"
        return state, "No two labels were compared."
    bounded = int((found["bias_low"].notna() & found["bias_high"].notna()).sum())
    return (
        _by_share(bounded, len(found)),
        f"{bounded} of {plural(len(found), 'comparison')} carry a bias with its interval; nothing is judged as passed or failed.",
    )


def _animals(results: ResultFolder) -> int:
    """Return how many animals a study describes: by name where it names them, else as counted in its groups."""
    named = {s["subject"] for s in subjects_of(results)}
    return len(named) if named else sum(g.get("animals", 0) for g in groups_of(results))


def _stated_n(results: ResultFolder) -> list[int]:
    seen = column(table(results, "observations"), "n").dropna()
    return sorted({int(n) for n in seen} | {int(s["n"]) for s in results.study.get("sources") or [] if s.get("n")})


def _groups(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    found = {str(g["group"]) for g in groups_of(results)} or {
        str(g) for g in column(table(results, "observations"), "group")
    }
    if not found:
        return "not reported", "No group is named."
    roles = setting(results, "crossval", "controls") or {}
    controls = [g for g in found if g in roles or any(re.search(p, organ_name(g)) for _, p in CONTROLS.values())]
    said = f"{plural(len(found), 'group')}: {names(found)}. "
    said += f"Controls: {names(controls)}." if controls else "None of them is a control."
    return "reported" if controls and len(found) > 1 else "partly", said


def _unit(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    n = _animals(results)
    if n:
        return "partly", f"{plural(n, 'animal')} described one by one; whether the animal was the unit is not said."
    return "not reported", "No animal is described."


def _animal_counts(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    groups, n = groups_of(results), _stated_n(results)
    if groups:
        counted = [f"{clean(g['group'])} / {clean(g['label'])} {g['animals']}" for g in groups]
        more = f" and {len(counted) - _NAMES} more groups" if len(counted) > _NAMES else ""
        twice = "" if subjects_of(results) else " (an animal with two labels counts twice)"
        return "reported", f"{plural(_animals(results), 'animal')}{twice}: {'; '.join(counted[:_NAMES])}{more}."
    if n:
        return "partly", f"The tables give n = {', '.join(str(k) for k in n[:_NAMES])} a value; no animal is described."
    return "not reported", "The number of animals is not given."


def _failures(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    failed = len(table(results, "failures"))
    if failed:
        return (
            "partly",
            f"Failed inputs: {failed}, each with its reason in failures.csv; animals left out before are not known.",
        )
    return "partly", "No input failed; animals or values left out before are not known."


def _n_of_results(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    found = table(results, "parameters")
    estimates = found[found["value"].notna()] if len(found) else found
    if not len(estimates):
        return "not applicable", "No parameter was estimated."
    told = int((estimates["n"] > 0).sum())
    return _by_share(
        told, len(estimates)
    ), f"{told} of {plural(len(estimates), 'estimate')} say on how many values they rest."


def _batches(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    batches = {s["batch"] for s in subjects_of(results) if s.get("batch")}
    if batches:
        return (
            "partly",
            f"{plural(len(batches), 'batch', 'batches')} named: {names(batches)}; order of treatment is not known.",
        )
    return "not reported", "No batch or order is given."


def _outcomes(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = table(results, "observations")
    if not len(seen):
        return "not reported", "There are no values."
    return (
        "reported",
        f"{plural(len(seen), 'value')} in {names(seen['unit'])}; organs: {names(organs_of(results)) or 'none'}.",
    )


def _statistics(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    told, level = provenance(results.path), setting(results, "kinetics", "level")
    said = f"Intervals at {number(100 * level)} %; " if level else "Level of intervals not known; "
    if told.get("evbiodist"):
        return (
            "reported" if level else "partly"
        ), f"{said}evbiodist {clean(told['evbiodist'])}, settings and versions in provenance.json."
    return ("partly" if level else "not reported"), f"{said}provenance.json is lacking, so versions are not known."


def _assumptions(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    flagged = [int((column(table(results, t), "flags").fillna("") != "").sum()) for t in ("observations", "parameters")]
    if not len(table(results, "observations")):
        return "not applicable", "There are no values."
    return (
        "partly",
        f"Flags mark doubtful numbers: {plural(flagged[0], 'value')} and {plural(flagged[1], 'parameter')} carry one.",
    )


def _animals_told(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    rows, species = subjects_of(results), results.study.get("species")
    kinds = {str(s["species"]) for s in rows if s.get("species")} | ({str(species)} if species else set())
    weights = [s["weight_g"] for s in rows if s.get("weight_g")]
    said = f"Species: {names(kinds)}. " if kinds else "Species not given. "
    said += _sex_counts(results) or "Sex not given."
    said += f" Weight: {_range(weights)} g ({len(weights)} of {len(rows)} rows)." if weights else " Weight not given."
    return (
        "partly" if kinds or weights or _sexes(results)[:2] != (0, 0) else "not reported"
    ), f"{said} Strain and age have no place in the files."


def _species(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    species = results.study.get("species")
    return (
        ("partly", f"Species: {clean(species)}; why it was chosen is not said.")
        if species
        else ("not reported", "Species not given.")
    )


def _sexes(results: ResultFolder) -> tuple[int, int, int]:
    """Return female, male and not stated; every animal once where animals are named."""
    sex = {s["subject"]: s.get("sex") for s in subjects_of(results)}
    if sex:
        female, male = (sum(v == k for v in sex.values()) for k in "FM")
        return female, male, len(sex) - female - male
    groups = groups_of(results)
    female, male = (sum(g.get(k, 0) for g in groups) for k in ("female", "male"))
    return female, male, sum(g.get("animals", 0) for g in groups) - female - male


def _sex_counts(results: ResultFolder) -> str:
    female, male, unknown = _sexes(results)
    if not female + male:
        return ""
    return f"{female} F / {male} M" + (f", {unknown} not stated." if unknown else ".")


def _both_sexes(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    female, male, unknown = _sexes(results)
    if not female + male:
        return "not reported", "Sex not given."
    return ("reported" if female and male and not unknown else "partly"), _sex_counts(results)


def _group_size(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = table(results, "observations")
    if not len(seen):
        return "not reported", "There are no values."
    counted = seen.assign(k=seen["n"].where(seen["n"].notna(), 1) if "n" in seen.columns else 1)
    if not _animals(results) and not _stated_n(results):
        return "not reported", "The number of animals at a time is not given."
    sizes = counted.groupby(["group", "label", "organ", "time_h", "unit"])["k"].sum()
    return (
        "reported" if sizes.min() > 1 else "partly"
    ), f"{_range([sizes.min(), sizes.max()])} animals at each time, organ and label."


def _panel(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = set(column(table(results, "observations"), "organ"))
    there = [k for k, known in PANEL.items() if seen & set(known)]
    lacking = [k for k in PANEL if k not in there]
    said = f"{len(there)} of {len(PANEL)} tissues of the core panel: {joined(there) or 'none'}."
    return _by_share(len(there), len(PANEL)), said + (
        f" Lacking: {joined(lacking)}; the site of injection is not looked for." if lacking else ""
    )


def _gonads(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    there = set(column(table(results, "observations"), "organ")) & set(PANEL["gonads"])
    return (
        ("reported", f"Measured: {names(there)}.")
        if there
        else ("not reported", "Neither testis nor ovary was measured.")
    )


def _decline(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = table(results, "observations")
    seen = (
        seen[~seen["organ"].isin([*WHOLE_ANIMAL, STANDARD])].dropna(subset=["value", "time_h"]) if len(seen) else seen
    )
    if not len(seen):
        return "not reported", "There are no values at a time."
    mean = seen.groupby(["group", "label", "organ", "unit", "time_h"])["value"].mean().reset_index()
    curves = [c.sort_values("time_h")["value"] for _, c in mean.groupby(["group", "label", "organ", "unit"])]
    shown = sum(len(c) > 2 and c.iloc[-1] < c.max() for c in curves)
    return _by_share(
        shown, len(curves)
    ), f"{shown} of {plural(len(curves), 'curve')} with three or more times end below their highest mean."


def _lloq(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = table(results, "observations")
    if not len(seen):
        return "not reported", "There are no values."
    given = int(column(seen, "lloq").notna().sum())
    return _by_share(given, len(seen)), f"{given} of {plural(len(seen), 'value')} have a lower limit of quantification."


def _blq(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen, rule = table(results, "observations"), setting(results, "kinetics", "blq")
    below = int((column(seen, "below_lloq") == "yes").sum())
    if below:
        return (
            "reported" if rule else "partly"
        ), f"{plural(below, 'value')} below the limit; rule of the areas: {clean(rule or 'not known')}."
    if column(seen, "lloq").notna().any():
        return "not applicable", "Limits are given and no value is below them."
    return "not reported", "No value is marked as below a limit, and no limit is given."


def _calibration(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    curve, standard = setting(results, "imaging", "curve"), setting(results, "imaging", "standard")
    assay = setting(results, "crossval", "assay")
    given = [f for f in ((curve or {}).get("file"), assay) if f]
    if given:
        return "reported", f"Standards: {names(given)}."
    if standard:
        return (
            "partly",
            f"A dose standard of {number(float(standard['pct_of_dose']))} % of the dose in the images: one level, no curve.",
        )
    return "not reported", "No standard and no standard curve."


def _quality_controls(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    methods = column(table(results, "assay_validation"), "method").fillna("").astype(str)
    if methods.str.startswith("qc samples").any():
        return "reported", "assay_validation.csv holds recovery and precision of quality controls, level by level."
    if methods.str.startswith("standards read back").any():
        return "partly", "Recovery and precision come from the standards themselves; there are no quality controls."
    return "not reported", "No quality controls were given."


def _spread(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    seen = table(results, "observations")
    if not len(seen):
        return "not reported", "There are no values."
    single = column(seen, "subject").nunique() > 1
    given = int((column(seen, "se").notna() | column(seen, "sd").notna()).sum()) if "se" in seen.columns else 0
    if single:
        animals = plural(column(seen, "subject").nunique(), "animal")
        return (
            "reported",
            f"Values of {animals} one by one; {given} of {len(seen)} have a standard error.",
        )
    return _by_share(given, len(seen)), f"{given} of {plural(len(seen), 'value')} have a standard error or deviation."


def _intervals(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    found = table(results, "parameters")
    if not len(found):
        return "not applicable", "No parameter was estimated."
    bounded = int((found["ci_low"].notna() & found["ci_high"].notna()).sum())
    return _by_share(
        bounded, int(found["value"].notna().sum())
    ), f"{bounded} of {plural(int(found['value'].notna().sum()), 'estimate')} have an interval; the others say why not."


def _records(results: ResultFolder, item: Mapping[str, Any]) -> Finding:
    told = provenance(results.path)
    there = [k for k in ("inputs", "settings", "versions", "started") if told.get(k)]
    if not there:
        return "not reported", "provenance.json is lacking."
    hashes = plural(len(told.get("inputs") or {}), "input")
    return _by_share(len(there), 4), f"provenance.json holds {joined(there)}; {hashes} by SHA-256."


#: The rules by the names of data/checklists.toml.
RULES: Mapping[str, Rule] = {
    "unknown": _unknown, "vesicles": _vesicles, "labels": _labels, "control": _control, "dose": _dose, "perfusion": _perfusion,
    "times": _times, "agreement": _agreement, "bias": _bias, "groups": _groups, "unit": _unit, "animals": _animal_counts,
    "failures": _failures, "n_of_results": _n_of_results, "batches": _batches, "outcomes": _outcomes, "statistics": _statistics,
    "assumptions": _assumptions, "animals_told": _animals_told, "species": _species, "sexes": _both_sexes,
    "group_size": _group_size, "panel": _panel, "gonads": _gonads, "decline": _decline, "lloq": _lloq, "blq": _blq,
    "calibration": _calibration, "quality_controls": _quality_controls, "spread": _spread, "intervals": _intervals,
    "records": _records,
}  # fmt: skip
