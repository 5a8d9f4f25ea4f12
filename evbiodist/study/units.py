"""Units at the border: text in, float64 in the house's units out.

Inside the package numbers are bare and the unit is in the name (`time_h`, `mass_g`). Unit text
is matched against a pattern before pint sees it, because pint evaluates arithmetic.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

_PATTERN = re.compile(r"^[A-Za-zµ%][A-Za-z0-9µ%_]*(\s*[*/·]\s*[A-Za-zµ1][A-Za-z0-9µ_]*(\^-?\d)?)*$")
_ALIASES = {
    "min": "minute",
    "m": "minute",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "d": "day",
    "s": "second",
    "sec": "second",
    "%ID": "pct_id",
    "%ID/g": "pct_id_per_g",
    "% ID/g": "pct_id_per_g",
    "%id/g": "pct_id_per_g",
}
_DISPLAY = {
    "hour": "h",
    "gram": "g",
    "minute": "min",
    "milliliter": "mL",
    "liter": "L",
    "nanogram": "ng",
    "milligram": "mg",
    "microgram": "ug",
    "second": "s",
    "becquerel": "bq",
    "kilogram": "kg",
    "microliter": "uL",
    "arbitrary_unit": "au",
}


class Derived(NamedTuple):
    """A derived unit and the factor that brings a product of bare values into it."""

    unit: str
    factor: float


@lru_cache(maxsize=1)
def registry() -> Any:
    """Return pint's registry with the field's own units added (imported on first use: 0.4 s)."""
    import pint

    ureg: Any = pint.UnitRegistry()
    for word in ("pct_id", "pct_recovered", "particles", "arbitrary_unit", "photon"):
        ureg.define(f"{word} = [{word}]")
    ureg.define("pct_id_per_g = pct_id / gram")
    ureg.define("p_per_s = photon / second")
    ureg.define("bq = becquerel")
    return ureg


def parse(text: str) -> str:
    """Return unit text that is safe to give to pint, or raise.

    Raises
    ------
    ValueError : text that is not a plain product of units.

    Examples
    --------
    >>> parse("min")
    'minute'
    >>> parse("9**9**9")
    Traceback (most recent call last):
    ...
    ValueError: '9**9**9' is not a unit; write for instance h, min, pct_id_per_g or ng/mL
    """
    text = _ALIASES.get(text.strip(), text.strip())
    if len(text) > 40 or not _PATTERN.match(text):
        raise ValueError(f"'{text[:40]}' is not a unit; write for instance h, min, pct_id_per_g or ng/mL")
    return re.sub(r"\bau\b", "arbitrary_unit", text.replace("·", "*"))


@lru_cache(maxsize=256)
def check(text: str) -> None:
    """Refuse text that is not a unit pint knows.

    Raises
    ------
    ValueError : with examples of units.

    Examples
    --------
    >>> check("mg/kg")
    >>> check("florps")
    Traceback (most recent call last):
    ...
    ValueError: 'florps' is not a unit that is known here; write for instance ng/mL or bq
    """
    _known_unit(parse(text))


def to_hours(value: float, unit: str) -> float:
    """Convert a time to hours.

    Raises
    ------
    ValueError : not a unit of time.

    Examples
    --------
    >>> to_hours(90, "min")
    1.5
    """
    import pint

    try:
        return float(registry().Quantity(value, parse(unit)).to("hour").magnitude)
    except (pint.errors.DimensionalityError, pint.errors.UndefinedUnitError) as err:
        raise ValueError(f"'{unit}' is not a unit of time; write h, min, d or s") from err


@lru_cache(maxsize=64)
def activity_bq(value: float, unit: str) -> float | None:
    """Convert an activity to Bq; None when the unit is none of activity (particles, mg).

    Examples
    --------
    >>> activity_bq(2.0, "MBq"), activity_bq(1.0, "particles")
    (2000000.0, None)
    """
    import pint

    try:
        return float(registry().Quantity(value, parse(unit)).to("becquerel").magnitude)
    except (pint.errors.DimensionalityError, pint.errors.UndefinedUnitError):
        return None


@lru_cache(maxsize=512)
def derive(expression: str, value: str, dose: str = "", time: str = "h") -> Derived:
    """Return the unit of a parameter from the units of its ingredients, and the factor it brings.

    Parameters
    ----------
    expression : powers of the ingredients as text, e.g. ``"value*time"`` for an area or
        ``"dose/value/time"`` for a clearance; ``"1"`` is dimensionless.
    value, dose, time : unit of the observations, of the dose (may be empty) and of time.

    Returns
    -------
    Derived : the unit in the house's spelling, and the number by which a product of bare values must be
        multiplied to be in it (a dose in mg over a concentration in ng/mL is 1e6 mL). The unit is
        empty when the dose's unit is needed and unknown.

    Raises
    ------
    ValueError : text that is not a unit.

    Examples
    --------
    >>> derive("value*time", "pct_id_per_g")
    Derived(unit='pct_id_per_g*h', factor=1.0)
    >>> derive("dose/value/time", "pct_id_per_g", "pct_id").unit
    'g/h'
    >>> derive("dose/value", "ng/mL", "mg")
    Derived(unit='mL', factor=1000000.0)
    """
    if expression == "1":
        return Derived("1", 1.0)
    if "dose" in expression and not dose:
        return Derived("", 1.0)
    reduce = "dose" in expression and "value" in expression
    known = {"value": parse(value), "dose": parse(dose) if dose else "", "time": parse(time)}
    if reduce and known["value"] == "pct_id_per_g":
        known["value"] = "pct_id/gram"  # spelled out, so that %ID cancels against a dose in %ID
    quantity = registry().Quantity(1.0, "")
    sign = 1
    for part in re.split(r"([*/])", expression):
        if part in "*/":
            sign = 1 if part == "*" else -1
        elif part != "1":
            quantity = quantity * registry().Quantity(1.0, _known_unit(known[part])) ** sign
    if reduce:
        quantity = quantity.to_reduced_units()
    powers = quantity.unit_items()
    up = sorted((_show(n, p) for n, p in powers if p > 0), key=_time_last)
    down = sorted((_show(n, -p) for n, p in powers if p < 0), key=_time_last)
    return Derived(("*".join(up) or "1") + "".join(f"/{d}" for d in down), float(f"{quantity.magnitude:.12g}"))


def _known_unit(text: str) -> str:
    import pint

    try:
        registry().Unit(text)
    except (pint.errors.PintError, AttributeError) as err:
        raise ValueError(f"'{text}' is not a unit that is known here; write for instance ng/mL or bq") from err
    return text


def _show(name: str, power: float) -> str:
    shown = _DISPLAY.get(name, name)
    return shown if power == 1 else f"{shown}^{power:g}"


def _time_last(name: str) -> tuple[bool, str]:
    return name.split("^")[0] in {"h", "min", "s"}, name
