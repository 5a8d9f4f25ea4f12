"""The body a whole-body model stands in: flows and volumes of a species at a weight, each with its range and source.

Published values differ up to twofold, so every number keeps its range; what is left over (rest of the body, large
vessels) is computed so that volumes add up to the body and flows to the cardiac output.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from evbiodist.study.constants import Constant
from evbiodist.study.constants import physiology as constant
from evbiodist.study.problems import nearest

SPECIES = ("mouse", "rat", "monkey", "human")
#: Organs of the whole-body models; `rest` is what remains of the body.
ORGANS = ("lung", "liver", "spleen", "gut", "kidney", "brain", "heart", "muscle", "rest")
#: Organs whose veins lead into the liver.
PORTAL = ("spleen", "gut")
#: What a model may ask for: volumes in mL, flows in mL/h. `flow_liver` is the hepatic artery alone.
KEYS = (
    *(f"flow_{o}" for o in ORGANS if o != "lung"), "volume_artery", "volume_vein",
    *(f"volume_vessel_{o}" for o in ORGANS), *(f"volume_tissue_{o}" for o in ORGANS),
)  # fmt: skip


@dataclass(frozen=True)
class Physiology:
    """Flows (mL/h) and volumes (mL) of one animal.

    Parameters
    ----------
    species, weight_g : whose.
    values : by the names of `KEYS`; `value` is the middle of the published range (where only one source gives a number,
        all three are that number), `low` and `high` are NaN where it is what remains when the others are known.
    cardiac_output, hepatic_flow, blood_volume : mL/h (the liver's whole outflow) and mL.
    density_g_per_ml : of blood.
    """

    species: str
    weight_g: float
    values: Mapping[str, Constant]
    cardiac_output: Constant
    hepatic_flow: Constant
    blood_volume: Constant
    density_g_per_ml: float


@lru_cache(maxsize=64)
def physiology(species: str, weight_g: float | None = None) -> Physiology:
    """Return flows and volumes of a species at a body weight.

    Parameters
    ----------
    species : one of `SPECIES`.
    weight_g : body weight in g; the species' usual one if None.

    Returns
    -------
    Physiology

    Raises
    ------
    ValueError : a species without data, or a weight that is not above 0.

    Examples
    --------
    >>> body = physiology("mouse", 20.0)
    >>> [round(x / 60, 1) for x in (body.hepatic_flow.low, body.hepatic_flow.value, body.hepatic_flow.high)]
    [1.3, 2.2, 3.3]
    >>> round(sum(v.value for k, v in body.values.items() if k.startswith("flow")) / body.cardiac_output.value, 12)
    1.0

    Brown RP et al. (1997) Toxicol Ind Health 13:407; Davies B, Morris T (1993) Pharm Res 10:1093; Shah DK, Betts AM
    (2012) J Pharmacokinet Pharmacodyn 39:67.
    """
    if species not in SPECIES:
        raise ValueError(f"there is no physiology of '{species}'; {nearest(species, SPECIES)}")
    weight_kg = _needed(species, "body", "average_weight").value if weight_g is None else weight_g / 1000
    if not (math.isfinite(weight_kg) and weight_kg > 0):
        raise ValueError(f"weight_g is {weight_g}, expected a body weight in g above 0")
    output, flows, hepatic = _flows(species, weight_kg)
    blood, volumes = _volumes(species, weight_kg)
    density = _needed("any", "blood", "density").value
    return Physiology(species, 1000 * weight_kg, {**flows, **volumes}, output, hepatic, blood, density)


def _needed(species: str, organ: str, parameter: str) -> Constant:
    found = constant(species, organ, parameter)
    if found is None:
        raise ValueError(f"physiology.csv has no {parameter} of the {organ} of a {species}; add a row with its source")
    return found


def _times(a: Constant, b: Constant, unit: str) -> Constant:
    """Return a product with the range that both ranges allow; its value is the product of their middles."""
    return Constant(a.middle * b.middle, a.low * b.low, a.high * b.high, unit, _sources((a, b)))


def _sources(parts: Iterable[Constant]) -> str:
    return "; ".join(dict.fromkeys(p.source for p in parts))


def _by(a: Constant, factor: float, unit: str) -> Constant:
    return Constant(a.middle * factor, a.low * factor, a.high * factor, unit, a.source)


def _left(value: float, unit: str, of: str) -> Constant:
    return Constant(value, math.nan, math.nan, unit, f"what remains of the {of}")


def _either(found: Iterable[Constant | None]) -> Constant:
    """Return one constant that spans several sources."""
    known = [f for f in found if f is not None]
    low, high = min(f.low for f in known), max(f.high for f in known)
    return Constant((low + high) / 2, low, high, known[0].unit, _sources(known))


def _flows(species: str, weight_kg: float) -> tuple[Constant, dict[str, Constant], Constant]:
    """Return cardiac output, flows of organs, and the liver's outflow, in mL/h."""
    allometric = _needed(species, "body", "cardiac_output_allometric")
    at_20_g = constant(species, "body", "cardiac_output")
    scaled = None if at_20_g is None else _by(at_20_g, (weight_kg / 0.02) ** 0.75, "mL/min")
    output = _by(_either([_by(allometric, weight_kg**0.75, "mL/min"), scaled]), 60.0, "mL/h")

    def flow(organ: str) -> Constant:
        percent = constant(species, organ, "flow_fraction")
        share = _by(_needed(species, organ, "flow_allometric"), 1 / allometric.value, "1")
        both = _either([share, None if percent is None else _by(percent, 0.01, "1")])
        return _times(both, output, "mL/h")

    named = {o: flow(o) for o in ORGANS if o not in ("lung", "rest")}
    hepatic = named.pop("liver")
    artery = hepatic.value - sum(named[o].value for o in PORTAL)
    rest = output.value - hepatic.value - sum(f.value for o, f in named.items() if o not in PORTAL)
    named |= {"liver": _left(artery, "mL/h", "liver's outflow: its artery"),
              "rest": _left(rest, "mL/h", "cardiac output")}  # fmt: skip
    return output, {f"flow_{o}": named[o] for o in ORGANS if o != "lung"}, hepatic


def _volumes(species: str, weight_kg: float) -> tuple[Constant, dict[str, Constant]]:
    """Return the volume of blood, and volumes of vessels and tissues, in mL."""
    density = _needed("any", "body", "tissue_density").value
    blood = _blood(species, weight_kg)
    share = {o: constant(species, o, "regional_blood_fraction") or _needed(species, o, "vascular_fraction")
             for o in ORGANS}  # fmt: skip
    whole: dict[str, Constant] = {}
    for o in ORGANS[:-1]:
        percent = constant(species, o, "weight_fraction")
        whole[o] = (_by(percent, 10 * weight_kg / density, "mL") if percent is not None
                    else _by(_needed(species, o, "volume_per_kg"), weight_kg, "mL"))  # fmt: skip
    inside = sum(share[o].middle * v.value for o, v in whole.items())
    # the rest holds vessels too: body = organs + rest + blood that is in no organ
    body = 1000 * weight_kg / density
    rest = (body - sum(v.value for v in whole.values()) - blood.value + inside) / (1 - share["rest"].middle)
    vessels = share["rest"].middle * rest
    large = blood.value - inside - vessels
    arterial = _needed("any", "blood", "arterial_fraction").value
    values = {"volume_artery": _left(arterial * large, "mL", "blood, in arteries"),
              "volume_vein": _left((1 - arterial) * large, "mL", "blood, in veins"),
              "volume_vessel_rest": _left(vessels, "mL", "body, its vessels"),
              "volume_tissue_rest": _left(rest - vessels, "mL", "body, without vessels")}  # fmt: skip
    for o, v in whole.items():
        values[f"volume_vessel_{o}"] = vessel = _times(share[o], v, "mL")
        values[f"volume_tissue_{o}"] = Constant(v.value - vessel.value, v.low * (1 - share[o].high),
                                                v.high * (1 - share[o].low), "mL", vessel.source)  # fmt: skip
    return blood, values


def _blood(species: str, weight_kg: float) -> Constant:
    percent = constant(species, "blood", "weight_fraction")
    density = _needed("any", "blood", "density").value
    if percent is not None:
        return _by(percent, 10 * weight_kg / density, "mL")
    plasma, cells = _needed(species, "plasma", "volume"), _needed(species, "blood", "haematocrit")
    return _by(replace(plasma, source=_sources((plasma, cells))), weight_kg / (1 - cells.value), "mL")


def faster_than_liver(half_life_h: float, species: str, weight_g: float | None = None) -> str:
    """Return why a half-life in blood cannot be uptake by the liver alone, empty when it can.

    Parameters
    ----------
    half_life_h : of what is in the blood; species, weight_g : whose.

    Returns
    -------
    str : a sentence for the number that carries the flag ``faster_than_flow``.

    Examples
    --------
    >>> faster_than_liver(0.1, "mouse", 20.0)
    ''
    >>> faster_than_liver(0.3 / 60, "mouse", 20.0)
    'a half-life of 0.3 min in blood is too short for the liver alone, which halves ... in about 0.55 min ...'
    """
    body = physiology(species, weight_g)
    blood, flow = body.blood_volume, body.hepatic_flow
    shortest, low, high = (60 * math.log(2) * v / q for v, q in (
        (blood.high, flow.value), (blood.low, flow.high), (blood.high, flow.low)))  # fmt: skip
    if not 60 * half_life_h < shortest:
        return ""
    return (f"a half-life of {60 * half_life_h:.2g} min in blood is too short for the liver alone, which halves what the "
            f"blood of a {species} holds in about {shortest:.2g} min ({low:.2g}-{high:.2g} over published flows and "
            "volumes): look for binding, trapping in the lung, or a mixing error")  # fmt: skip


def more_than_flow(clearance_ml_h: float, species: str, weight_g: float | None = None) -> str:
    """Return why a clearance from blood cannot be the liver's alone, empty when it can.

    Parameters
    ----------
    clearance_ml_h : mL of blood per hour; species, weight_g : whose.

    Returns
    -------
    str : a sentence for the number that carries the flag ``faster_than_flow``.

    Examples
    --------
    >>> more_than_flow(0.96, "mouse", 20.0)
    ''
    """
    body = physiology(species, weight_g)
    if not clearance_ml_h > body.hepatic_flow.value:
        return ""
    return (f"a clearance of {clearance_ml_h / 60:.3g} mL/min is more than the {body.hepatic_flow.value / 60:.3g} mL/min "
            f"(published: {body.hepatic_flow.low / 60:.2g}-{body.hepatic_flow.high / 60:.2g}) of blood that reach the "
            f"liver of a {species}: look for binding, trapping in the lung, or a mixing error")  # fmt: skip
