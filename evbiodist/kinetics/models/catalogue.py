"""The catalogue of models: data in catalogue.toml or in a user's own file, built into rate graphs for a study's organs."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.forms import FORMS
from evbiodist.kinetics.models.graph import SCALES, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.physiology import KEYS, physiology
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]

_HOLE = "{organ}"
_HOLES = re.compile(r"\{[a-z_]+\}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}\Z")
_DIMENSION = re.compile(r"(1|value|dose|time)([*/](1|value|dose|time))*\Z")
#: What is a name wherever it stands, and the highest power of a parameter.
_NAMED, _HIGHEST = ("name", "from", "to", "lag", "compartment", "input"), 20
#: What an entry and its parts may hold; the first ones have to be there.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "model": (("title", "source", "compartments", "inputs", "parameters", "transfers", "observations"),
              ("repeat", "start")),
    "input": (("name", "into"), ("lag",)),
    "into": (("compartment",), ("factor",)),
    "parameter": (("name", "dimension", "description"), ("scale", "fixed", "lower", "upper")),
    "transfer": (("from", "rate"), ("to", "form", "constants")),
    "observation": (("name", "terms"), ()),
    "term": ((), ("compartment", "input", "factor")),
}  # fmt: skip
#: How a fixed value names one of `physiology.KEYS`.
_OF_BODY = "physiology:"


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the models that come with the package, by name, absorption and its routes written out.

    Examples
    --------
    >>> "two_compartment_ip" in catalogue(), len([m for m in catalogue() if m.startswith("one_compartment")])
    (True, 7)
    """
    text = (files("evbiodist") / "kinetics" / "models" / "catalogue.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    models: dict[str, dict[str, Any]] = {}
    for name, written in raw["models"].items():
        entry = models[name] = _written_out(written)
        if any("form" in t for t in entry["transfers"]):
            models[f"{name}_linear"] = _at_low_amounts(entry)
        if name.endswith("_compartment_iv"):
            for route, word in raw["routes"].items():
                models[name.removesuffix("iv") + route] = _absorbed(entry, raw["pieces"]["absorption"], word)
    return models


def _absorbed(entry: Mapping[str, Any], absorption: Mapping[str, Any], route: str) -> dict[str, Any]:
    title = f"{entry['title'].split(',')[0]}, first-order absorption ({route})"
    joined = {key: [*entry[key], *absorption[key]] for key in ("compartments", "parameters", "transfers")}
    return {**entry, **joined, "title": title, "inputs": absorption["inputs"]}


def _written_out(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with the items of its own lists of organs written out."""
    out = {key: value for key, value in entry.items() if key != "repeat"}
    for word, organs in entry.get("repeat", {}).items():
        hole = f"{{{word}}}"
        for key in ("compartments", "parameters", "transfers", "observations"):
            out[key] = _repeat(out[key], organs, hole)
        for key, inner in (("observations", "terms"), ("inputs", "into")):
            out[key] = [{**item, inner: _repeat(item[inner], organs, hole)} for item in out[key]]
    return out


def _at_low_amounts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model with every transfer of first order at its rate, without the parameters that only forms need."""
    transfers = [{k: v for k, v in t.items() if k not in ("form", "constants")} for t in entry["transfers"]]
    only = {n for t in entry["transfers"] for m in t.get("constants", {}).values() for n in m}
    seen = [term for o in entry["observations"] for term in o["terms"]]
    only -= {n for part in (*transfers, *seen) for n in part.get("rate", part.get("factor", {}))}
    return {**entry, "title": f"{entry['title']}, at low amounts", "transfers": transfers,
            "parameters": [p for p in entry["parameters"] if p["name"] not in only],
            "start": {k: v for k, v in entry.get("start", {}).items() if k not in only}}  # fmt: skip


#: A user's models by name, as `read_models` returns them.
Models = Mapping[str, Mapping[str, Any]]


def needs_organs(name: str, models: Models | None = None) -> bool:
    """Whether a model is repeated over organs.

    Parameters
    ----------
    name : of the catalogue, or of a user's `models`.

    Examples
    --------
    >>> needs_organs("plasma_with_organs"), needs_organs("two_compartment_iv")
    (True, False)
    """
    return _has_organs(_entry(name, models))


def _has_organs(entry: Mapping[str, Any]) -> bool:
    return any(_HOLE in c for c in entry["compartments"])


def build(
    name: str, organs: Sequence[str] = (), *, species: str | None = None, weight_g: float | None = None,
    per_ml: float | None = None, models: Models | None = None,
) -> RateGraph:  # fmt: skip
    """Build a model of the catalogue, or of a user's own.

    Parameters
    ----------
    name : as in `evbiodist models`, or of `models` from `read_models`.
    organs : organ names, for models that are repeated over organs.
    species, weight_g : whose flows and volumes a whole-body model has; without a species they are not fixed.
    per_ml : the size of a mL of blood in the unit of dose/value: 1.06 (g) where blood is measured per gram, which is
        the default, 1 where it is measured per mL.

    Raises
    ------
    ValueError : an unknown model or species, or organs missing.

    Examples
    --------
    >>> build("plasma_with_organs", ["liver"]).names
    ('v', 'k_el', 'k_in_liver', 'k_out_liver')
    >>> body = build("ev_whole_body", species="mouse", weight_g=20)
    >>> {p.name: round(p.fixed, 1) for p in body.parameters if p.name.startswith("q_") and p.fixed}["q_gut"]
    113.6
    """
    return _build(name, _entry(name, models), tuple(organs), _Body(species, weight_g, per_ml))


def typical(graph: RateGraph) -> FloatArray:
    """Return a plausible parameter vector of a model: what is fixed, and where its entry lets a fit begin.

    Parameters
    ----------
    graph : built with a species where it needs one.

    Returns
    -------
    theta : (p,)

    Raises
    ------
    ValueError : parameters for which the catalogue says neither.

    Examples
    --------
    >>> body = build("ev_whole_body", species="mouse", weight_g=20)
    >>> y = body.predict(typical(body), np.array([0.1, 4.0]), dose=100.0)[0]
    >>> bool(y[1, body.seen.index("liver")] > y[1, body.seen.index("brain")])
    True
    """
    known = {p.name: p.fixed if p.start is None else p.start for p in graph.parameters}
    missing = [n for n, v in known.items() if v is None]
    if missing:
        raise ValueError(f"model {graph.name} has no plausible value for {', '.join(missing[:5])}; "
                         "build it with a species, or give a start")  # fmt: skip
    return np.array([known[n] for n in graph.names], dtype=np.float64)


class _Body(NamedTuple):
    """Whose physiology is fixed, and in which unit."""

    species: str | None = None
    weight_g: float | None = None
    per_ml: float | None = None

    def fixed(self, value: Any) -> float | None:
        """Return a parameter's fixed value, looked up where it is the body's; None without a species."""
        if not isinstance(value, str):
            return None if value is None else float(value)
        key = value.removeprefix(_OF_BODY)
        if key not in KEYS:
            raise ValueError(f"there is no physiology '{key}'; {nearest(key, KEYS)}")
        if self.species is None:
            return None
        body = physiology(self.species, self.weight_g)
        return body.values[key].value * (self.per_ml or body.density_g_per_ml)


@lru_cache(maxsize=64)
def _built(name: str, organs: tuple[str, ...], body: _Body) -> RateGraph:
    return _graph(name, catalogue()[name], organs, body)


def _build(name: str, entry: Mapping[str, Any], organs: tuple[str, ...], body: _Body) -> RateGraph:
    if not _has_organs(entry):
        organs = ()
    elif not organs:
        raise ValueError(f"model {name} needs organs; the data hold blood only")
    return _built(name, organs, body) if catalogue().get(name) is entry else _graph(name, entry, organs, body)


def read_models(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a user's models from a TOML file of the catalogue's form; nothing in it executes.

    Parameters
    ----------
    path : with a table ``[models.<name>]`` for each model.

    Returns
    -------
    dict : entries by name, checked; `build_entry` makes graphs of them.

    Raises
    ------
    ValueError : everything that is wrong with the file, one sentence a line.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:  # also numbers too long and tables too deep for Python
        raise ValueError(f"{path.name} cannot be read as TOML: {err}") from None
    models = raw.get("models")
    if not isinstance(models, dict) or not models or set(raw) != {"models"}:
        raise ValueError(f"{path.name} has {', '.join(raw) or 'nothing'}, expected tables [models.<name>] only")
    problems = [f"{path.name}: {p}" for name, entry in models.items() for p in _problems(str(name), entry)]
    if problems:
        raise ValueError("\n".join(problems))
    models = {name: _written_out(entry) for name, entry in models.items()}
    for name, entry in models.items():
        try:
            names = build_entry(name, entry, ("organ",)).names
        except ValueError as err:
            problems.append(f"{path.name}: {err}")
            continue
        if not _has_organs(entry):
            problems += [f"{path.name}: [models.{name}.start] {k} is not a parameter; {nearest(k, names)}"
                         for k in entry.get("start", {}) if k not in names]  # fmt: skip
    if problems:
        raise ValueError("\n".join(problems))
    return models


def build_entry(
    name: str, entry: Mapping[str, Any], organs: Sequence[str] = (), *, species: str | None = None,
    weight_g: float | None = None, per_ml: float | None = None,
) -> RateGraph:  # fmt: skip
    """Build a model of an entry from `read_models`, as `build` does for the catalogue's.

    Raises
    ------
    ValueError : organs missing, an unknown species, or an edge that names what is not declared.
    """
    return _build(name, entry, tuple(organs), _Body(species, weight_g, per_ml))


def _problems(name: str, entry: Any) -> list[str]:
    """Return in sentences what is wrong with the form of a user's model."""
    if not _NAME.match(name):
        return [f"[models.{name}] has a name that is not lower snake case; write for instance my_model"]
    found = _keys(f"[models.{name}]", "model", entry)
    if found:
        return found
    lists = ("compartments", "inputs", "parameters", "transfers", "observations")
    found += [f"[models.{name}] {key} is not a list" for key in lists if not isinstance(entry[key], list)]
    found = found or [f"[models.{name}] has no {key}" for key in lists if key != "transfers" and not entry[key]]
    if found:
        return found
    for key, kind in (("inputs", "input"), ("parameters", "parameter"), ("transfers", "transfer"),
                      ("observations", "observation")):  # fmt: skip
        for i, part in enumerate(entry[key]):
            where = f"[models.{name}] {kind} {i + 1}"
            found += _keys(where, kind, part) or _parts(where, kind, part)
    found += _lists(name, entry)
    names = [p for p in entry["compartments"] if not isinstance(p, str) or not _NAME.match(_HOLES.sub("organ", p))]
    found += [f"[models.{name}] compartment {p!r} is not lower snake case" for p in names]
    return found


def _parts(where: str, kind: str, part: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key, inner in (("into", "into"), ("terms", "term")):
        if key in part and not isinstance(part[key], list):
            return [f"{where}: {key} is not a list"]
        for i, item in enumerate(part.get(key, [])):
            here = f"{where}, {inner} {i + 1}"
            found += _keys(here, inner, item) or _powers(here, "factor", item.get("factor", {}))
            if inner == "term" and isinstance(item, dict) and ("compartment" in item) == ("input" in item):
                found.append(f"{here} needs either compartment or input")
    if kind == "transfer":
        form = part.get("form", "first_order")
        if not isinstance(form, str) or form not in FORMS:
            return [*found, f"{where} has the form {form!r}; {nearest(str(form), FORMS)}"]
        if FORMS[form].needs_target and not part.get("to"):
            found.append(f"{where}: form {form} depends on what the target holds, and nothing is named; add to = ...")
        constants = part.get("constants", {})
        if not isinstance(constants, dict) or set(constants) != set(FORMS[form].needs):
            found.append(f"{where}: form {form} needs the constants {', '.join(FORMS[form].needs) or 'none'}")
        else:
            found += [p for key, powers in constants.items() for p in _powers(where, key, powers)]
        found += _powers(where, "rate", part["rate"])
    if kind == "parameter":
        if not isinstance(part["dimension"], str) or not _DIMENSION.match(part["dimension"]):
            found.append(f"{where} has the dimension {part['dimension']!r}; expected products and ratios of value, dose, "
                         "time and 1, such as dose/value/time")  # fmt: skip
        if part.get("scale", "log") not in SCALES:
            found.append(f"{where} has the scale {part['scale']!r}; expected one of {', '.join(SCALES)}")
        numbers = [part[k] for k in ("fixed", "lower", "upper") if k in part]
        if isinstance(of_body := part.get("fixed"), str):
            key = of_body.removeprefix(_OF_BODY)
            if key == of_body or ("{" not in key and key not in KEYS):
                return [*found, f"{where}: fixed is {of_body!r}; expected a number or physiology: and one of its names; "
                        f"{nearest(key, KEYS)}"]  # fmt: skip
            numbers.remove(of_body)
        if not all(_is_number(n) for n in numbers):
            found.append(f"{where}: fixed, lower and upper must be numbers")
    return found


def _lists(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a model's own lists of organs and its starts."""
    repeat, start = entry.get("repeat", {}), entry.get("start", {})
    if not isinstance(repeat, dict) or not isinstance(start, dict):
        return [f"[models.{name}] repeat and start must be tables"]
    found = [f"[models.{name}.repeat] {word} is not a list of lower snake case names" for word, organs in repeat.items()
             if not isinstance(organs, list) or not all(isinstance(o, str) and _NAME.match(o) for o in organs)]  # fmt: skip
    known = {"{organ}", *(f"{{{word}}}" for word in repeat)}
    shown = repr([entry[k] for k in ("compartments", "inputs", "transfers", "observations")])
    found += [f"[models.{name}] mentions {hole}, which is no list of [models.{name}.repeat]"
              for hole in sorted(set(_HOLES.findall(shown)) - known)]  # fmt: skip
    return found + [f"[models.{name}.start] {k} is not a number above 0" for k, v in start.items()
                    if not _is_number(v) or v <= 0]  # fmt: skip


def _keys(where: str, kind: str, part: Any) -> list[str]:
    needed, optional = _KEYS[kind]
    if not isinstance(part, dict):
        return [f"{where} is not a table; write {{ {', '.join(f'{k} = ...' for k in needed)} }}"]
    found = [f"{where} lacks {key}" for key in needed if key not in part]
    known = (*needed, *optional)
    found += [f"{where} has the unknown key '{k}'; {nearest(k, known)}" for k in part if k not in known]
    return found + [f"{where} has the {k} {part[k]!r}, which is not lower snake case" for k in _NAMED
                    if k in part and not (isinstance(part[k], str) and _NAME.match(_HOLES.sub("organ", part[k])))]  # fmt: skip


def _is_number(n: Any) -> bool:
    """Whether it is a plain number that a float holds."""
    return isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= sys.float_info.max


def _powers(where: str, key: str, powers: Any) -> list[str]:
    if not isinstance(powers, dict):
        return [f"{where}: {key} is not a table of powers such as {{ cl = 1, v = -1 }}"]
    wrong = [f"{where}: {key} has {k} = {p!r}; powers are whole numbers from -{_HIGHEST} to {_HIGHEST} other than 0"
             for k, p in powers.items()
             if k != "number" and (isinstance(p, bool) or not isinstance(p, int) or not 0 < abs(p) <= _HIGHEST)]  # fmt: skip
    number = powers.get("number", 1.0)
    return wrong + ([] if _is_number(number) else [f"{where}: {key} has number = {number!r}; expected a plain number"])


def _entry(name: str, models: Models | None = None) -> Mapping[str, Any]:
    known: Mapping[str, Mapping[str, Any]] = {**catalogue(), **(models or {})}
    if name not in known:
        raise ValueError(f"there is no model '{name}'; {nearest(name, known)}")
    return known[name]


def _graph(name: str, entry: Mapping[str, Any], organs: tuple[str, ...], body: _Body) -> RateGraph:
    return RateGraph(
        name=name,
        title=entry["title"],
        source=entry["source"],
        compartments=tuple(_repeat(entry["compartments"], organs)),
        parameters=tuple(ParameterSpec(**{**p, "fixed": body.fixed(p.get("fixed")),
                                            "start": entry.get("start", {}).get(p["name"])})
                         for p in _repeat(entry["parameters"], organs)),
        transfers=tuple(Transfer(t["from"], t.get("to") or None, _monomial(t["rate"]), t.get("form", "first_order"),
                                 tuple((k, _monomial(m)) for k, m in t.get("constants", {}).items()))
                        for t in _repeat(entry["transfers"], organs)),
        observations=tuple(Seen(o["name"], tuple((t["compartment"] if "compartment" in t else t["input"],
                                                  _monomial(t.get("factor", {}))) for t in _repeat(o["terms"], organs)))
                           for o in _repeat(entry["observations"], organs)),
        ports=tuple(Port(p["name"], tuple((c["compartment"], _monomial(c.get("factor", {})))
                                          for c in _repeat(p["into"], organs)), p.get("lag"))
                    for p in entry["inputs"]),
    )  # fmt: skip


def _monomial(powers: Mapping[str, Any]) -> Monomial:
    return Monomial(tuple((k, p) for k, p in powers.items() if k != "number"), float(powers.get("number", 1.0)))


def _repeat(items: Sequence[Any], organs: Sequence[str], hole: str = _HOLE) -> list[Any]:
    """Repeat, for every organ, the items that are about one: those whose name, ends or rate mention it."""
    done: list[Any] = []
    for item in items:
        if hole in str(_head(item)):
            done += [_fill(item, organ, hole) for organ in organs]
        else:
            done.append(item)
    return done


def _head(item: Any) -> Any:
    """Return what decides whether an item is repeated: an observation or input of all organs is one item."""
    if isinstance(item, dict) and ("terms" in item or "into" in item):
        return item["name"]
    return item


def _fill(item: Any, organ: str, hole: str) -> Any:
    if isinstance(item, str):
        return item.replace(hole, organ)
    if isinstance(item, dict):
        return {_fill(k, organ, hole): _fill(v, organ, hole) for k, v in item.items()}
    if isinstance(item, list):
        return [_fill(v, organ, hole) for v in item]
    return item
