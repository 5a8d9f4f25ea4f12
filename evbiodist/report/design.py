"""What the report says of the study itself: its design, what it lacks, which flags its numbers carry, and where they come from."""

from __future__ import annotations

import json
from typing import Any

from evbiodist.crossval.compare import TABLES
from evbiodist.report.folder import ResultFolder, provenance
from evbiodist.report.words import number
from evbiodist.study.flags import FLAGS, split
from evbiodist.study.vocabulary import WHOLE_ANIMAL

_SUBJECTS, _REASONS = 1000, 200
#: Columns of the table of animals, as subjects.csv has them.
_ANIMAL = ("subject", "label", "group", "route", "dose", "dose_unit", "sex", "weight_g", "perfused")


def facts(results: ResultFolder) -> list[dict[str, str]]:
    """Return what a reader looks for in a design first: animals, sexes, perfusion, limits, times; and what is not there."""
    study, seen = results.study, results["observations"]
    groups = study.get("groups", [])
    animals = sum(g["animals"] for g in groups)
    found = [_animals(results, animals)]
    if animals:
        female, male = (sum(g[sex] for g in groups) for sex in ("female", "male"))
        unknown = animals - female - male
        state = "there" if female and male and not unknown else ("missing" if not female + male else "partly")
        found.append(_fact("Sexes", f"{female} female, {male} male, {unknown} not stated", state))
        perfused = sum(g["perfused"] for g in groups)
        found.append(_fact("Perfused", f"{perfused} of {animals} animals", _share(perfused, animals)))
    elif sources := study.get("sources", []):
        perfused = sum(bool(s.get("perfused")) for s in sources)
        found += [_fact("Sexes", "not stated: there is no subjects.csv", "missing"),
                  _fact("Perfused", f"in {perfused} of {len(sources)} tables", _share(perfused, len(sources)))]  # fmt: skip
    if len(seen):
        found += [_limits(seen), _times(seen)]
    if study.get("scans"):
        standard = study["settings"].get("imaging", {}).get("standard")
        text = (
            f"{number(float(standard['pct_of_dose']))} % of the dose, in the images"
            if standard
            else "none in the images"
        )
        found.append(_fact("Dose standard", text, "there" if standard else "missing"))
    failed = len(results["failures"])
    found.append(_fact("Failed inputs", f"{failed}" if failed else "none", "missing" if failed else "there"))
    return found


def _share(there: int, of: int) -> str:
    return "there" if there == of else "partly" if there else "missing"


def _fact(what: str, text: str, state: str) -> dict[str, str]:
    return {"what": what, "text": text, "state": state}


def _animals(results: ResultFolder, animals: int) -> dict[str, str]:
    """Return how many animals there are; a table of means names none."""
    if animals:
        return _fact("Animals", f"{animals} (an animal with two labels counts twice)", "there")
    seen = results["observations"]
    stated = [s["n"] for s in results.study.get("sources", []) if s.get("n")]
    if stated:
        return _fact("Animals", f"{', '.join(str(n) for n in stated)} per time in the tables", "there")
    names = sum(not str(name).startswith("pooled") for name in seen["subject"].unique()) if len(seen) else 0
    if not names:
        return _fact("Animals", "not stated: neither subjects.csv nor n of the tables", "missing")
    return _fact("Animals", f"{names} named in the tables, none described in subjects.csv", "partly")


def _limits(seen: Any) -> dict[str, str]:
    given, below = int(seen["lloq"].notna().sum()), int((seen["below_lloq"] == "yes").sum())
    text = f"{given} of {len(seen)} values have a lower limit of quantification, {below} are below it"
    if not given and not below:
        text = (
            "no value has a lower limit of quantification (column lloq), so values near zero cannot be told from none"
        )
    return _fact("LLOQ", text, _share(given, len(seen)) if given else "partly" if below else "missing")


def _times(seen: Any) -> dict[str, str]:
    times = sorted(t for t in seen.loc[~seen["organ"].isin(WHOLE_ANIMAL), "time_h"].dropna().unique())
    if not times:
        times = sorted(seen["time_h"].dropna().unique())
    if not times:
        return _fact("Times", "none stated", "missing")
    text = (
        f"{len(times)} between {number(times[0])} and {number(times[-1])} h"
        if len(times) > 1
        else f"one, {number(times[0])} h"
    )
    return _fact("Times", text, "there" if len(times) > 2 else "partly")


def animals(results: ResultFolder) -> dict[str, Any]:
    """Return the animals as subjects.csv described them, at most a thousand; none for a folder of an earlier version."""
    listed = results.study.get("subjects", [])
    rows = [{"cells": [_word(s.get(name)) for name in _ANIMAL]} for s in listed[:_SUBJECTS]]
    return {
        "columns": [c.replace("_", " ") for c in _ANIMAL],
        "rows": rows,
        "left_out": max(len(listed) - _SUBJECTS, 0),
    }


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def missing_parameters(results: ResultFolder) -> tuple[list[dict[str, Any]], int]:
    """Return which parameters are missing for which reason, gathered, and how many reasons had no room."""
    table = results["parameters"]
    if table.empty:
        return [], 0
    gone = table[table["value"].isna()]
    found = [{"cells": [label, reason, _list(here["organ"]), _list(here["parameter"])]}
             for (reason, label), here in gone.groupby(["reason", "label"], sort=True)]  # fmt: skip
    return found[:_REASONS], max(len(found) - _REASONS, 0)


def _list(names: Any) -> str:
    return ", ".join(sorted({n for n in names if n}))


def flags(results: ResultFolder) -> list[dict[str, Any]]:
    """Return the flags that numbers carry, with how many do, what each means and what helps."""
    counts: dict[str, int] = {}
    for name in ("observations", "parameters", *TABLES):
        table = results[name]
        for cell, n in table["flags"].value_counts().items() if "flags" in table else ():
            for flag in split(str(cell)):
                counts[flag] = counts.get(flag, 0) + int(n)
    return [{"cells": [f, n, FLAGS[f].meaning, FLAGS[f].remedy]} for f, n in sorted(counts.items()) if f in FLAGS]


def origin(results: ResultFolder) -> dict[str, Any]:
    """Return versions, inputs with their hashes, and settings; not when it ran, so that equal runs give equal reports."""
    said = provenance(results.path)
    inputs = said.get("inputs") if isinstance(said.get("inputs"), dict) else {}
    versions = said.get("versions") if isinstance(said.get("versions"), dict) else {}
    return {"evbiodist": str(said.get("evbiodist", "")),
            "versions": [{"cells": [name, v]} for name, v in sorted((versions or {}).items())],
            "inputs": [{"cells": [name, v]} for name, v in sorted((inputs or {}).items())],
            "settings": json.dumps(results.study["settings"], indent=1, sort_keys=True, ensure_ascii=False)}  # fmt: skip
