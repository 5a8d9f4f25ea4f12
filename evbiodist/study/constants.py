"""Physics and physiology that ships with the package, each row with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class Constant:
    """A value with its range and source."""

    value: float
    low: float
    high: float
    unit: str
    source: str

    @property
    def middle(self) -> float:
        """Middle of the published range: what to expect when no source is preferred."""
        return (self.low + self.high) / 2

    @property
    def se(self) -> float:
        """Standard error that a uniform distribution over the published range has."""
        return (self.high - self.low) / 12**0.5


def _rows(name: str) -> list[dict[str, str]]:
    with (files("evbiodist") / "data" / name).open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@lru_cache(maxsize=1)
def isotopes() -> dict[str, float]:
    """Return half-lives in hours by isotope (ICRP-107).

    Examples
    --------
    >>> isotopes()["99mTc"]
    6.015
    """
    return {row["isotope"]: float(row["half_life_h"]) for row in _rows("isotopes.csv")}


@lru_cache(maxsize=1)
def _physiology() -> dict[tuple[str, str, str], Constant]:
    table: dict[tuple[str, str, str], Constant] = {}
    for row in _rows("physiology.csv"):
        value = float(row["value"])
        low, high = float(row["low"] or value), float(row["high"] or value)
        table[row["species"], row["organ"], row["parameter"]] = Constant(value, low, high, row["unit"], row["source"])
    return table


@lru_cache(maxsize=1)
def tissue_optics() -> dict[str, tuple[tuple[float, float, float], ...]]:
    """Return (wavelength in nm, absorption per mm, reduced scattering per mm) by organ, wavelengths rising.

    Examples
    --------
    >>> tissue_optics()["liver"][-1]
    (780.0, 0.13, 0.58)
    """
    table: dict[str, list[tuple[float, float, float]]] = {}
    for row in _rows("tissue_optics.csv"):
        mu_a, mu_s = (float(row[k]) / 10 for k in ("mu_a_per_cm", "mu_s_reduced_per_cm"))
        table.setdefault(row["organ"], []).append((float(row["wavelength_nm"]), mu_a, mu_s))
    return {organ: tuple(sorted(rows)) for organ, rows in table.items()}


def known_organs() -> tuple[str, ...]:
    """Return the organs of which any constant is published, by name.

    Examples
    --------
    >>> {"brain", "liver"} <= set(known_organs())
    True
    """
    return tuple(sorted({organ for _, organ, _ in _physiology()}))


def physiology(species: str, organ: str, parameter: str) -> Constant | None:
    """Return a physiological constant with its published range, or None when no source gives one.

    Examples
    --------
    >>> physiology("mouse", "brain", "regional_blood_fraction").value
    0.03
    >>> physiology("mouse", "whisker", "regional_blood_fraction") is None
    True
    """
    return _physiology().get((species, organ, parameter))
