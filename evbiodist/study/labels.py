"""How labels of vesicles lie, as data: the catalogue of labels, and the model of one label in a study.

Every label reads vesicles wrongly in its own way. What is known of that is a prior on each nuisance
parameter, with its source, in evbiodist/data/labels.toml; a study file adds to it or replaces it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evbiodist.study.constants import isotopes
from evbiodist.study.priors import NUISANCE, PER_ORGAN, Prior, layered, prior_lines, read_priors
from evbiodist.study.problems import nearest
from evbiodist.study.vocabulary import organ_name

if TYPE_CHECKING:
    from evbiodist.study.model import Label

__all__ = [
    "CONTROLS", "NUISANCE", "PER_ORGAN", "REFERENCE_WEIGHT_G", "Artefact", "LabelEntry", "LabelModel", "Prior", "Reading", "catalogue",
    "entry_for", "fill", "find", "label_model", "missing_controls", "named_entry", "read_priors", "templates",
]  # fmt: skip

#: Body weight in g that the free label's volume and rates hold for.
REFERENCE_WEIGHT_G = 20.0

#: Controls a study may hold, and the pattern of a group's name (in lower snake case) that shows it.
CONTROLS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "dye_only": ("a dye-only arm, processed like the vesicles", r"^dye$|dye_?(only|alone|control)|only_dye|free_dye"),
    "free_label": ("an arm with the free label", r"^free(_|$)|_free_|pertechnetate|iodide"),
    "unlabelled": ("unlabelled vesicles or untreated animals", r"unlabel|non?_?label|untreated|naive|vehicle|saline|pbs"),
    "substrate_only": ("animals that got the substrate alone", r"substrate"),
    "perfused": ("perfused animals", r"(?<!un)(?<!non)(?<!no_)(?<!not_)(?<!non_)perfus"),
    "dose_standard": ("a dose standard read beside the organs", r"dose_?standard|^standards?$"),
    "homogenate": ("homogenates of the organs", r"homogen|lysate"),
})  # fmt: skip


@dataclass(frozen=True)
class Artefact:
    """One way in which a label misleads."""

    what: str
    consequence: str
    source: str


@dataclass(frozen=True)
class Reading:
    """One way of reading a label: whether it can be % of dose, and its own priors (mostly efficiencies)."""

    absolute: bool
    description: str
    priors: Mapping[str, Prior]


@dataclass(frozen=True)
class LabelEntry:
    """A label of the catalogue.

    Parameters
    ----------
    name, aliases : what it is called.
    kind, isotope, excitation_nm, emission_nm, substrate, description : its physics.
    artefacts : how it misleads.
    controls : why a control is needed, by its name in `CONTROLS`.
    template : name of the free label's distribution.
    readings : the ways to read it; `readout` names the usual one.
    priors : what holds for all readings.

    Examples
    --------
    >>> print(catalogue()["DiR"].lines()[0])
    DiR: near-infrared membrane dye, the usual one for whole organs
    """

    name: str
    kind: str
    description: str
    aliases: tuple[str, ...] = ()
    isotope: str | None = None
    excitation_nm: float | None = None
    emission_nm: float | None = None
    substrate: str | None = None
    artefacts: tuple[Artefact, ...] = ()
    controls: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    readout: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    priors: Mapping[str, Prior] = field(default_factory=dict)

    def physics(self) -> str:
        """Return kind, isotope, wavelengths and substrate in one line."""
        said = [self.kind]
        said += [f"{self.isotope}, half-life {isotopes()[self.isotope]:g} h"] if self.isotope else []
        said += [f"excitation {self.excitation_nm:g} nm"] if self.excitation_nm else []
        said += [f"emission {self.emission_nm:g} nm"] if self.emission_nm else []
        return ", ".join(said + ([f"substrate {self.substrate}"] if self.substrate else []))

    def lines(self) -> list[str]:
        """Return all that is known of the label, as lines of text."""
        said = [f"{self.name}: {self.description}", f"  {self.physics()}"]
        said += [f"  also called {', '.join(self.aliases)}"] if self.aliases else []
        said += [f"  free label: {templates()[self.template]}", "  artefacts"]
        said += [f"    {a.what}: {a.consequence} [{a.source}]" for a in self.artefacts]
        said += ["  controls", *(f"    {name}: {why}" for name, why in self.controls.items())]
        said += ["  priors: median (95 % range)", *(f"    {line}" for line in prior_lines(self.priors))]
        for name, reading in self.readings.items():
            usual = ", usual" if name == self.readout else ""
            scale = "can be % of dose" if reading.absolute else "no share of the dose"
            said += [f"  read by {name}{usual}: {reading.description}; {scale}"]
            said += [f"    {line}" for line in prior_lines(reading.priors)]
        return said


@dataclass(frozen=True)
class LabelModel:
    """How one label of a study is expected to misread vesicles: a catalogue entry and the study's own words.

    Parameters
    ----------
    name, kind : of the label in the study.
    priors : by nuisance parameter, and by `parameter.organ` where an organ differs.
    artefacts, controls : of the entry.
    absolute : whether readings can be % of dose; else they have a scale of their own.
    entry : the catalogue's entry, or `generic <kind>`.
    readout : the way of reading the priors hold for.
    template : the free label's distribution.

    Examples
    --------
    >>> from evbiodist.study.model import Label
    >>> model = label_model("DiR", Label(kind="fluorescence"))
    >>> model.entry, model.readout, model.absolute
    ('DiR', 'whole_organ', True)
    >>> model.prior("efficiency", "spleen").median < model.prior("efficiency", "brain").median
    True
    """

    name: str
    kind: str
    priors: Mapping[str, Prior]
    artefacts: tuple[Artefact, ...]
    controls: Mapping[str, str]
    absolute: bool
    entry: str
    readout: str
    template: str

    def prior(self, name: str, organ: str | None = None) -> Prior:
        """Return the prior of a parameter in an organ, or the parameter's default.

        Raises
        ------
        ValueError : a name that is no nuisance parameter.
        """
        if name not in NUISANCE:
            raise ValueError(f"'{name}' is no nuisance parameter of a label; {nearest(name, NUISANCE)}")
        own = self.priors.get(f"{name}.{organ_name(organ)}") if organ else None
        return own or self.priors[name]

    def at_weight(self, weight_g: float) -> LabelModel:
        """Return the model for an animal of another weight.

        The free label's volume grows with weight, its rates fall with the fourth root of weight
        (Mordenti 1986, J Pharm Sci 75:1028). All else stays.

        Raises
        ------
        ValueError : a weight that is not above zero.

        Examples
        --------
        >>> from evbiodist.study.model import Label
        >>> mouse = label_model("DiR", Label(kind="fluorescence"))
        >>> rat = mouse.at_weight(320.0)
        >>> [round(rat.prior(p).median / mouse.prior(p).median, 6) for p in ("free_v", "free_k_el", "release")]
        [16.0, 0.5, 1.0]
        """
        if not (math.isfinite(weight_g) and weight_g > 0):
            raise ValueError(f"weight_g is {weight_g}, expected a body weight in g above zero")
        size = weight_g / REFERENCE_WEIGHT_G
        why = f"scaled from a mouse of {REFERENCE_WEIGHT_G:g} g to {weight_g:g} g"
        power = {"free_v": 1.0, "free_k_el": -0.25, "free_k_in": -0.25, "free_k_out": -0.25}
        scaled = {key: prior.times(size ** power[base], why) if (base := key.partition(".")[0]) in power else prior
                  for key, prior in self.priors.items()}  # fmt: skip
        return self if size == 1 else replace(self, priors=scaled)


@lru_cache(maxsize=1)
def _toml() -> dict[str, Any]:
    return tomllib.loads((files("evbiodist") / "data" / "labels.toml").read_text(encoding="utf-8"))


def templates() -> Mapping[str, str]:
    """Return what the free-label distributions of the catalogue are, by name.

    Examples
    --------
    >>> "iodide" in templates()
    True
    """
    return {name: table["description"] for name, table in _toml()["templates"].items()}


def _reading(table: Mapping[str, Any]) -> Reading:
    return Reading(table["absolute"], table["description"], read_priors(table.get("priors", {})))


def _entry(name: str, table: Mapping[str, Any]) -> LabelEntry:
    """Build an entry: its class first, then what is its own."""
    data = _toml()
    family = data["classes"].get(table.get("class", ""), {})
    merged = {**family, **table}
    template = {k: v for k, v in data["templates"][merged["template"]].items() if k != "description"}
    readings = {key: _reading(reading) for key, reading in data["readings"][merged["readings"]].items()}
    isotope = merged.get("isotope")
    turned = re.fullmatch(r"(\d+m?)([A-Z][a-z]?)", name) if name == isotope else None
    spelled = (turned[2] + turned[1],) if turned else ()
    return LabelEntry(
        name=name,
        kind=merged["kind"],
        description=merged["description"],
        aliases=(*table.get("aliases", ()), *spelled),
        isotope=isotope,
        excitation_nm=merged.get("excitation_nm"),
        emission_nm=merged.get("emission_nm"),
        substrate=merged.get("substrate"),
        artefacts=tuple(Artefact(**a) for a in (*table.get("artefacts", ()), *family.get("artefacts", ()))),
        controls={**family.get("controls", {}), **table.get("controls", {})},
        template=merged["template"],
        readout=merged["readout"],
        readings=readings,
        priors=layered(
            read_priors(template), read_priors(family.get("priors", {})), read_priors(table.get("priors", {}))
        ),
    )


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, LabelEntry]:
    """Return every label of the catalogue by name.

    Examples
    --------
    >>> catalogue()["NanoLuc"].emission_nm
    460.0
    """
    return MappingProxyType({name: _entry(name, table) for name, table in _toml()["labels"].items()})


@lru_cache(maxsize=1)
def _generic() -> Mapping[str, LabelEntry]:
    return {kind: _entry(f"generic {kind}", {**table, "kind": kind}) for kind, table in _toml()["generic"].items()}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def _names() -> Mapping[str, str]:
    return {_plain(word): entry.name for entry in catalogue().values() for word in (entry.name, *entry.aliases)}


def find(name: str) -> LabelEntry | None:
    """Return the catalogue's entry of a label by any of its names, or None.

    Case and separators do not matter; a name that only holds a known one is not guessed at.

    Examples
    --------
    >>> [find(n).name for n in ("In-111", "111In-oxine", "nluc", "NanoLuc-CD63")]
    ['111In', '111In', 'NanoLuc', 'NanoLuc']
    >>> find("my own dye") is None
    True
    """
    hit = _names().get(_plain(name))
    return catalogue()[hit] if hit else None


def entry_for(name: str, kind: str | None = None, isotope: str | None = None) -> LabelEntry | None:
    """Return the entry of a label by name where kind and isotope do not contradict it, else by isotope, or None.

    Examples
    --------
    >>> entry_for("batch 3", "radioactive", "111In").name
    '111In'
    >>> entry_for("DiR", "radioactive") is None
    True
    """
    options = (find(name), catalogue().get(isotope) if isotope else None)
    return next((entry for entry in options if entry is not None and _fits(entry, kind, isotope)), None)


def _fits(entry: LabelEntry, kind: str | None, isotope: str | None) -> bool:
    return kind in (None, entry.kind) and isotope in (None, entry.isotope)


def named_entry(name: str, kind: str | None = None, isotope: str | None = None) -> LabelEntry:
    """Return the entry that a study names by `catalogue = "..."`.

    Raises
    ------
    ValueError : no such entry (the nearest is named), or one of another kind or isotope.

    Examples
    --------
    >>> named_entry("DiX")
    Traceback (most recent call last):
    ...
    ValueError: a label of the catalogue instead of 'DiX' (did you mean 'DiR'?)
    """
    entry = find(name)
    if entry is None:
        raise ValueError(f"a label of the catalogue instead of '{name}' ({nearest(name, catalogue())})")
    if not _fits(entry, kind, isotope):
        raise ValueError(f"kind = \"{entry.kind}\"{f' and isotope {entry.isotope}' if entry.isotope else ''} beside "
                         f'catalogue = "{name}", or another entry')  # fmt: skip
    return entry


def fill(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a label's table of study.toml with kind, isotope and wavelengths from the catalogue where it has none.

    Examples
    --------
    >>> fill("DiR", {"emission_nm": 790})
    {'emission_nm': 790, 'kind': 'fluorescence', 'excitation_nm': 748.0}
    """
    kind, isotope = (None if table.get(key) is None else str(table[key]) for key in ("kind", "isotope"))
    named = table.get("catalogue")
    entry = named_entry(str(named), kind, isotope) if named is not None else entry_for(name, kind, isotope)
    if entry is None:
        return dict(table)
    isotope = entry.isotope if table.get("half_life_h") is None else None
    physics = {"kind": entry.kind, "isotope": isotope, "emission_nm": entry.emission_nm,
               "excitation_nm": entry.excitation_nm}  # fmt: skip
    return dict(table) | {k: v for k, v in physics.items() if v is not None and table.get(k) is None}


def label_model(name: str, label: Label, readout: str | None = None) -> LabelModel:
    """Return how a label of a study is expected to misread vesicles.

    The catalogue's entry is the one `label.catalogue` names, else the one of the label's name, else of its
    isotope, else a wide generic one of its kind; the study's own priors replace the entry's.

    Parameters
    ----------
    name, label : of the study.
    readout : such as `whole_organ` or `homogenate`; None takes the study's, else the entry's usual one.

    Raises
    ------
    ValueError : an unknown catalogue entry or readout.

    Examples
    --------
    >>> from evbiodist.study.model import Label
    >>> label_model("my dye", Label(kind="fluorescence")).entry
    'generic fluorescence'
    """
    if label.catalogue is not None:
        entry = named_entry(label.catalogue, label.kind, label.isotope)
    else:
        entry = entry_for(name, label.kind, label.isotope) or _generic()[label.kind]
    chosen = readout or label.readout or entry.readout
    if chosen not in entry.readings:
        raise ValueError(f"a readout of {entry.name} for the label '{name}', not '{chosen}' "
                         f"({nearest(chosen, entry.readings)})")  # fmt: skip
    reading = entry.readings[chosen]
    return LabelModel(
        name=name,
        kind=label.kind,
        priors=layered(entry.priors, reading.priors, label.priors),
        artefacts=entry.artefacts,
        controls=entry.controls,
        absolute=reading.absolute,
        entry=entry.name,
        readout=chosen,
        template=entry.template,
    )


def missing_controls(models: Mapping[str, LabelModel], arms: Iterable[str]) -> list[str]:
    """Return, as sentences, the controls that the labels of a study call for and no arm of it holds.

    Parameters
    ----------
    models : by label.
    arms : names of the groups, and words such as `perfused` or `dose_standard` for what else is there.

    Examples
    --------
    >>> from evbiodist.study.model import Label
    >>> dir_model = label_model("DiR", Label(kind="fluorescence"))
    >>> missing_controls({"DiR": dir_model}, ["treated", "dye only", "unlabelled", "perfused", "homogenate"])
    ['No dose standard read beside the organs (DiR): ...']
    """
    words = [organ_name(arm) for arm in arms]
    sentences = []
    for control, (what, pattern) in CONTROLS.items():
        if any(re.search(pattern, word) for word in words):
            continue
        wanting: dict[str, list[str]] = {}
        for label, model in models.items():
            if control in model.controls:
                wanting.setdefault(model.controls[control], []).append(label)
        thing = re.sub(r"^an? ", "", what)
        sentences += [f"No {thing} ({', '.join(labels)}): {why}." for why, labels in wanting.items()]
    return sentences
