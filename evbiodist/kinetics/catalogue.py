"""The catalogue of models: data in catalogue.toml, built into rate graphs for a study's organs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from evbiodist.kinetics.graph import Monomial, ParameterSpec, RateGraph, Seen, Transfer
from evbiodist.study.problems import nearest

_HOLE = "{organ}"


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the catalogue as read, by model name."""
    text = (files("evbiodist") / "kinetics" / "catalogue.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def needs_organs(name: str) -> bool:
    """Whether a model is repeated over organs.

    Examples
    --------
    >>> needs_organs("plasma_with_organs"), needs_organs("two_compartment_iv")
    (True, False)
    """
    return any(_HOLE in c for c in _entry(name)["compartments"])


def build(name: str, organs: Sequence[str] = ()) -> RateGraph:
    """Build a model of the catalogue.

    Parameters
    ----------
    name : as in `evbiodist models`.
    organs : organ names, for models that are repeated over organs.

    Raises
    ------
    ValueError : an unknown model, or organs missing.

    Examples
    --------
    >>> build("plasma_with_organs", ["liver"]).names
    ('v', 'k_el', 'k_in_liver', 'k_out_liver')
    """
    entry = _entry(name)
    if needs_organs(name) and not organs:
        raise ValueError(f"model {name} needs organs; the data hold blood only")
    return RateGraph(
        name=name,
        title=entry["title"],
        source=entry["source"],
        compartments=tuple(_repeat(entry["compartments"], organs)),
        parameters=tuple(ParameterSpec(**p) for p in _repeat(entry["parameters"], organs)),
        transfers=tuple(Transfer(t["from"], t["to"] or None, _monomial(t["rate"]))
                        for t in _repeat(entry["transfers"], organs)),
        observations=tuple(Seen(o["name"], tuple((t["compartment"], _monomial(t["factor"])) for t in o["terms"]))
                           for o in _repeat(entry["observations"], organs)),
        dosed=entry["dosed"],
    )  # fmt: skip


def _entry(name: str) -> dict[str, Any]:
    known = catalogue()
    if name not in known:
        raise ValueError(f"there is no model '{name}'; {nearest(name, known)}")
    return known[name]


def _monomial(powers: Mapping[str, int]) -> Monomial:
    return Monomial(tuple(powers.items()))


def _repeat(items: Sequence[Any], organs: Sequence[str]) -> list[Any]:
    """Repeat, for every organ, the items that mention one."""
    done: list[Any] = []
    for item in items:
        if _HOLE in str(item):
            done += [_fill(item, organ) for organ in organs]
        else:
            done.append(item)
    return done


def _fill(item: Any, organ: str) -> Any:
    if isinstance(item, str):
        return item.replace(_HOLE, organ)
    if isinstance(item, dict):
        return {_fill(k, organ): _fill(v, organ) for k, v in item.items()}
    if isinstance(item, list):
        return [_fill(v, organ) for v in item]
    return item
