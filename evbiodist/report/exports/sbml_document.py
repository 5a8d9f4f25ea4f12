"""A rate graph with its parameters as SBML Level 3: compartments as species, transfers as reactions, what is seen as rules.

Written with the standard library: the elements are few, and the bytes are the same every time. Doses into a compartment at
time 0 are initial amounts; later or longer ones are switched by events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET  # only written here, never read

from evbiodist.kinetics.models.graph import Monomial, RateGraph, Transfer

_SBML = "http://www.sbml.org/sbml/level3/version1/core"
_MATH = "http://www.w3.org/1998/Math/MathML"
_HTML = "http://www.w3.org/1999/xhtml"
_TIME = "http://www.sbml.org/sbml/symbols/time"
#: Our units as powers of SBML's: (kind, exponent, scale, multiplier).
_UNITS: dict[str, tuple[tuple[str, int, int, float], ...]] = {
    "h": (("second", 1, 0, 3600.0),),
    "1/h": (("second", -1, 0, 3600.0),),
    "g": (("gram", 1, 0, 1.0),),
    "g/h": (("gram", 1, 0, 1.0), ("second", -1, 0, 3600.0)),
    "mL": (("litre", 1, -3, 1.0),),
    "mL/h": (("litre", 1, -3, 1.0), ("second", -1, 0, 3600.0)),
}


@dataclass(frozen=True)
class Fitted:
    """A parameter's value, its unit, and what else is known of it in words."""

    value: float
    unit: str = ""
    words: str = ""


@dataclass(frozen=True)
class Dose:
    """What entered at the first input: an amount over some hours, at once when `hours` is 0."""

    amount: float
    hours: float = 0.0


@dataclass
class _Names:
    """Identifiers that SBML allows, one for each of our names."""

    taken: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, kind: str, name: str) -> str:
        """Return the identifier of a name."""
        if (kind, name) not in self.taken:
            plain = re.sub(r"[^A-Za-z0-9_]", "_", name) or "x"
            plain = plain if not plain[0].isdigit() else f"_{plain}"
            free, number = f"{kind}{plain}", 1
            while free in self.taken.values():
                number += 1
                free = f"{kind}{plain}_{number}"
            self.taken[kind, name] = free
        return self.taken[kind, name]


def document(
    graph: RateGraph, values: Mapping[str, Fitted], dose: Dose, title: str, notes: Iterable[str] = ()
) -> bytes:
    """Return a model as an SBML file.

    Parameters
    ----------
    graph : a model whose first input takes a dose.
    values : of every parameter of the graph; rates are per hour.
    dose : in the unit of the compartments' amounts.
    title, notes : for readers.

    Raises
    ------
    ValueError : a parameter without a value, or a model driven by a measured curve.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> model = document(build("one_compartment_iv"), {"cl": Fitted(2.0), "v": Fitted(10.0)}, Dose(100.0), "blood")
    >>> b'<species id="A_central" name="central" compartment="body" initialAmount="100.0"' in model
    True

    Notes
    -----
    Hucka M et al., J Integr Bioinform 2019;16:20190021 (SBML Level 3 Version 1).
    """
    missing = sorted(set(graph.names) - set(values))
    if missing:
        raise ValueError(f"{graph.name}: no value for {', '.join(missing)}")
    if [p.name for p in graph.ports] != ["dose"]:
        raise ValueError(f"{graph.name} takes a measured curve as its input, which a file of the model cannot hold")
    names = _Names()
    for p in graph.parameters:
        names.of("", p.name)
    root = ET.Element("sbml", {"xmlns": _SBML, "level": "3", "version": "1"})
    model = ET.SubElement(root, "model", {"id": names.of("model_", graph.name), "name": title, "timeUnits": "hour",
                                          "substanceUnits": "dimensionless", "extentUnits": "dimensionless"})  # fmt: skip
    _notes(model, [graph.title, graph.source, *notes])
    used = _units(model, {v.unit for v in values.values()})
    _compartment(model)
    lag = values[graph.ports[0].lag].value if graph.ports[0].lag else 0.0
    at_once = dose.hours == 0 and lag == 0
    _species(model, graph, values, names, dose.amount if at_once else 0.0)
    _parameters(model, graph, values, names, used, switched=not at_once)
    _rules(model, graph, names)
    _reactions(model, graph, names, infused=not at_once and dose.hours > 0)
    if not at_once:
        _events(model, graph, names, dose, lag)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _notes(parent: ET.Element, lines: Iterable[str]) -> None:
    body = ET.SubElement(ET.SubElement(parent, "notes"), "body", {"xmlns": _HTML})
    for line in lines:
        if line:
            ET.SubElement(body, "p").text = line


def _units(model: ET.Element, asked: Iterable[str]) -> dict[str, str]:
    """Declare the units that are needed; return their identifiers."""
    listed = ET.SubElement(model, "listOfUnitDefinitions")
    found = {"h": "hour"}
    found |= {unit: re.sub(r"\W", "_per_", unit).strip("_") for unit in sorted(asked) if unit in _UNITS and unit != "h"}
    found = {unit: f"unit_{name}" if unit != "h" else name for unit, name in found.items()}
    for unit, name in found.items():
        parts = ET.SubElement(ET.SubElement(listed, "unitDefinition", {"id": name}), "listOfUnits")
        for kind, power, scale, factor in _UNITS[unit]:
            ET.SubElement(
                parts, "unit", {"kind": kind, "exponent": str(power), "scale": str(scale), "multiplier": repr(factor)}
            )
    return found | {"1": "dimensionless"}


def _compartment(model: ET.Element) -> None:
    ET.SubElement(ET.SubElement(model, "listOfCompartments"), "compartment",
                  {"id": "body", "spatialDimensions": "3", "size": "1", "constant": "true"})  # fmt: skip


def _amounts(graph: RateGraph, values: Mapping[str, Fitted]) -> dict[str, float]:
    """Return which share of a dose reaches each compartment."""
    return {name: _number(m, values) for name, m in graph.ports[0].into}


def _number(m: Monomial, values: Mapping[str, Fitted]) -> float:
    product = m.coefficient
    for factor, power in m.powers:
        base = values[factor.removeprefix("1-").removeprefix("1+")].value
        base = 1 - base if factor.startswith("1-") else 1 + base if factor.startswith("1+") else base
        product *= base**power
    return product


def _species(model: ET.Element, graph: RateGraph, values: Mapping[str, Fitted], names: _Names, amount: float) -> None:
    listed, shares = ET.SubElement(model, "listOfSpecies"), _amounts(graph, values)
    for name in graph.compartments:
        ET.SubElement(listed, "species", {
            "id": names.of("A_", name), "name": name, "compartment": "body", "initialAmount": repr(amount * shares.get(name, 0.0)),
            "substanceUnits": "dimensionless", "hasOnlySubstanceUnits": "true", "boundaryCondition": "false", "constant": "false",
        })  # fmt: skip


def _parameters(model: ET.Element, graph: RateGraph, values: Mapping[str, Fitted], names: _Names, units: Mapping[str, str],
                *, switched: bool) -> None:  # fmt: skip
    listed = ET.SubElement(model, "listOfParameters")
    for p in graph.parameters:
        fitted = values[p.name]
        told = {"id": names.of("", p.name), "name": p.name, "value": repr(float(fitted.value)), "constant": "true"}
        unit = {"units": units[fitted.unit]} if fitted.unit in units else {}
        _notes(ET.SubElement(listed, "parameter", told | unit), [p.description, fitted.words])
    if switched:
        ET.SubElement(listed, "parameter", {"id": "dose_rate", "value": "0", "constant": "false"})
    for o in graph.observations:
        ET.SubElement(listed, "parameter", {"id": names.of("seen_", o.name), "name": o.name, "constant": "false"})


def _rules(model: ET.Element, graph: RateGraph, names: _Names) -> None:
    listed = ET.SubElement(model, "listOfRules")
    for o in graph.observations:
        rule = ET.SubElement(listed, "assignmentRule", {"variable": names.of("seen_", o.name)})
        math = ET.SubElement(rule, "math", {"xmlns": _MATH})
        total = ET.SubElement(math, "apply")
        ET.SubElement(total, "plus")
        for compartment, factor in o.terms:
            _product(total, factor, names, names.of("A_", compartment))


def _product(parent: ET.Element, m: Monomial, names: _Names, *others: str) -> ET.Element:
    """Write a monomial, times other identifiers."""
    apply = ET.SubElement(parent, "apply")
    ET.SubElement(apply, "times")
    ET.SubElement(apply, "cn").text = repr(float(m.coefficient))
    for factor, power in m.powers:
        raised = ET.SubElement(apply, "apply")
        ET.SubElement(raised, "power")
        _factor(raised, factor, names)
        ET.SubElement(raised, "cn").text = repr(float(power))
    for name in others:
        ET.SubElement(apply, "ci").text = name
    return apply


def _factor(parent: ET.Element, factor: str, names: _Names) -> None:
    if not factor.startswith(("1-", "1+")):
        ET.SubElement(parent, "ci").text = names.of("", factor)
        return
    apply = ET.SubElement(parent, "apply")
    ET.SubElement(apply, "minus" if factor[1] == "-" else "plus")
    ET.SubElement(apply, "cn").text = "1.0"
    ET.SubElement(apply, "ci").text = names.of("", factor[2:])


def _reactions(model: ET.Element, graph: RateGraph, names: _Names, *, infused: bool) -> None:
    listed = ET.SubElement(model, "listOfReactions")
    for number, t in enumerate(graph.transfers, 1):
        reaction = ET.SubElement(listed, "reaction", {"id": f"transfer_{number}", "reversible": "false", "fast": "false",
                                                      "name": f"{t.source} to {t.target or 'outside'}"})  # fmt: skip
        _ends(reaction, "listOfReactants", names.of("A_", t.source))
        if t.target is not None:
            _ends(reaction, "listOfProducts", names.of("A_", t.target))
        modifier = t.form == "capacity" and t.target is None
        if modifier:
            raise ValueError(f"{graph.name}: a filling target is missing")
        _law(ET.SubElement(reaction, "kineticLaw"), t, names)
    for number, (name, share) in enumerate(graph.ports[0].into if infused else (), 1):
        reaction = ET.SubElement(
            listed, "reaction", {"id": f"infusion_{number}", "reversible": "false", "fast": "false"}
        )
        _ends(reaction, "listOfProducts", names.of("A_", name))
        math = ET.SubElement(ET.SubElement(reaction, "kineticLaw"), "math", {"xmlns": _MATH})
        _product(math, share, names, "dose_rate")


def _ends(reaction: ET.Element, kind: str, species: str) -> None:
    ET.SubElement(ET.SubElement(reaction, kind), "speciesReference",
                  {"species": species, "stoichiometry": "1", "constant": "true"})  # fmt: skip


def _law(law: ET.Element, t: Transfer, names: _Names) -> None:
    """Write a transfer's rate: first order, divided by what saturates it, or times the places still free."""
    math, source = ET.SubElement(law, "math", {"xmlns": _MATH}), names.of("A_", t.source)
    constants = dict(t.constants)
    if t.form == "first_order":
        _product(math, t.rate, names, source)
        return
    whole = ET.SubElement(math, "apply")
    ET.SubElement(whole, "times" if t.form == "capacity" else "divide")
    _product(whole, t.rate, names, source)
    bracket = ET.SubElement(whole, "apply")
    ET.SubElement(bracket, "minus" if t.form == "capacity" else "plus")
    ET.SubElement(bracket, "cn").text = "1.0"
    parent = bracket
    if t.form == "hill":
        parent = ET.SubElement(bracket, "apply")
        ET.SubElement(parent, "power")
    share = ET.SubElement(parent, "apply")
    ET.SubElement(share, "divide")
    ET.SubElement(share, "ci").text = names.of("A_", t.target or "") if t.form == "capacity" else source
    _product(share, constants["capacity" if t.form == "capacity" else "half"], names)
    if t.form == "hill":
        _product(parent, constants["steepness"], names)


def _events(model: ET.Element, graph: RateGraph, names: _Names, dose: Dose, lag: float) -> None:
    """Switch an infusion on and off, or give a delayed dose at once."""
    listed = ET.SubElement(model, "listOfEvents")
    if dose.hours > 0:
        _event(listed, "begin", lag, [("dose_rate", None, dose.amount / dose.hours, None)], names)
        _event(listed, "end", lag + dose.hours, [("dose_rate", None, 0.0, None)], names)
        return
    given = [(names.of("A_", name), names.of("A_", name), dose.amount, share) for name, share in graph.ports[0].into]
    _event(listed, "give", lag, given, names)


def _event(listed: ET.Element, name: str, at: float, sets: Iterable[tuple[str, str | None, float, Monomial | None]],
           names: _Names) -> None:  # fmt: skip
    event = ET.SubElement(listed, "event", {"id": name, "useValuesFromTriggerTime": "true"})
    trigger = ET.SubElement(event, "trigger", {"initialValue": "false", "persistent": "true"})
    when = ET.SubElement(ET.SubElement(trigger, "math", {"xmlns": _MATH}), "apply")
    ET.SubElement(when, "geq")
    ET.SubElement(when, "csymbol", {"encoding": "text", "definitionURL": _TIME}).text = "t"
    ET.SubElement(when, "cn").text = repr(float(at))
    assignments = ET.SubElement(event, "listOfEventAssignments")
    for variable, before, amount, share in sets:
        math = ET.SubElement(
            ET.SubElement(assignments, "eventAssignment", {"variable": variable}), "math", {"xmlns": _MATH}
        )
        if before is None or share is None:
            ET.SubElement(math, "cn").text = repr(float(amount))
            continue
        total = ET.SubElement(math, "apply")
        ET.SubElement(total, "plus")
        ET.SubElement(total, "ci").text = before
        _product(total, Monomial(share.powers, share.coefficient * amount), names)
