"""What stands beside a value in the library: its label's physics, what its animal got and was, and whether its arm is a control."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evbiodist.kinetics.analyse import Dosings
from evbiodist.library.metadata import Metadata
from evbiodist.study.labels import CONTROLS, find
from evbiodist.study.model import Label, ObservationSource, Study
from evbiodist.study.vocabulary import organ_name

Row = dict[str, Any]
#: Arms that are no vesicles with a label, as words of `evbiodist.study.labels.CONTROLS`.
_NO_VESICLES = ("dye_only", "free_label", "unlabelled", "substrate_only")


@dataclass(frozen=True)
class Facts:
    """Dose, route, sex and the like by (group, subject, label), and by (group, label) where animals differ in none of it."""

    animals: Mapping[tuple[str, str, str], Row] = field(default_factory=dict)
    groups: Mapping[tuple[str, str], Row] = field(default_factory=dict)

    def of(self, row: Mapping[str, Any]) -> Row:
        """Return what is known of the animal of a row, or of its group."""
        found = {**self.groups.get((row["group"], row["label"]), {}),
                 **self.animals.get((row["group"], row["subject"], row["label"]), {})}  # fmt: skip
        return {k: v for k, v in found.items() if v not in (None, "", "unknown") and v == v}


def facts_of_study(study: Study, dosing: Dosings) -> Facts:
    """Return what subjects.csv and the study's tables say of every animal."""
    animals: dict[tuple[str, str, str], Row] = {
        key: {"route": d.route, "dose": d.dose, "dose_unit": d.dose_unit, "perfused": d.perfused}
        for key, d in dosing.items()
    }
    for s in study.subjects:
        animals[s.group, s.subject, s.label] |= {"sex": s.sex, "species": s.species, "weight_g": s.weight_g}
    members: dict[tuple[str, str], list[Row]] = {}
    for (group, _, label), told in animals.items():
        members.setdefault((group, label), []).append(told)
    return Facts(animals, {key: _shared(rows) for key, rows in members.items()})


def _shared(rows: Sequence[Row]) -> Row:
    """Return what all animals of a group have in common; both sexes are told as such."""
    same = {k: rows[0][k] for k in rows[0] if all(k in r and r[k] == rows[0][k] for r in rows)}
    sexes = {r.get("sex") for r in rows}
    return same | ({"sex": "both"} if sexes == {"F", "M"} else {})


def facts_of_results(groups: Iterable[Mapping[str, Any]], sources: Iterable[ObservationSource]) -> Facts:
    """Return what study.json says of groups and tables, for results whose study is not there."""
    animals: dict[tuple[str, str, str], Row] = {
        (s.group, s.subject, s.label): {"route": s.route, "dose": s.dose, "dose_unit": s.dose_unit, "perfused": s.perfused}
        for s in sources if s.label is not None
    }  # fmt: skip
    told = {}
    for g in groups:
        count, routes = g.get("animals"), list(g.get("routes") or [])
        sex = {(count, 0): "F", (0, count): "M"}.get((g.get("female"), g.get("male")))
        both = bool(g.get("female") and g.get("male")) and g["female"] + g["male"] == count
        told[str(g.get("group")), str(g.get("label"))] = {
            "route": routes[0] if len(routes) == 1 else None,
            "sex": "both" if both else sex,
            "perfused": {0: False, count: True}.get(g.get("perfused")),
        }
    return Facts(animals, told)


def arms(groups: Iterable[str], declared: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return which groups are controls and what they got, by the study's word or else by their names.

    Parameters
    ----------
    groups : names; declared : `crossval.controls` of the study.

    Examples
    --------
    >>> arms(["free_dye", "treated"], {})[0]
    {'free_dye': 'dye_only'}
    >>> arms(["free_dye"], {"free_dye": "vesicles"})
    ({}, [])
    """
    found: dict[str, str] = {}
    notes = []
    for group in sorted(groups):
        if group in declared:
            found |= {group: declared[group]} if declared[group] != "vesicles" else {}
            continue
        kind = next((k for k in _NO_VESICLES if re.search(CONTROLS[k][1], organ_name(group))), None)
        if kind:
            found[group] = kind
            notes.append(f"group '{group}' is taken for {CONTROLS[kind][0]} by its name; if it got labelled vesicles, say so "
                         f'in the study: crossval.controls."{group}" = "vesicles"')  # fmt: skip
    return found, notes


def complete(
    row: Mapping[str, Any], metadata: Metadata, labels: Mapping[str, Label], facts: Facts, of_group: Mapping[str, str]
) -> Row:
    """Return a row of observations with everything that is known beside its value."""
    label = labels.get(row["label"], Label.named(row["label"]))
    entry = find(label.catalogue or row["label"])
    known = facts.of(row)
    about = {"species": metadata.species, "sex": metadata.sex, **known}
    return {
        **row,
        "n": None if row["n"] is None or math.isnan(row["n"]) else int(row["n"]),
        "label_kind": label.kind,
        "label_name": entry.name if entry else row["label"],
        "isotope": label.isotope,
        "control": of_group.get(row["group"]),
        **{k: about.get(k) for k in ("route", "dose", "dose_unit", "perfused", "species", "sex", "weight_g")},
    }


def named_for(rows: Iterable[Mapping[str, Any]], title: str, study: str) -> tuple[Row, ...]:
    """Return rows under the name by which the library keeps a study; rows of other studies in its tables keep theirs."""
    return tuple({**row, "study": study if row["study"] in ("", title) else row["study"]} for row in rows)
