"""What is known of a label's nuisance parameters before the data: priors, read from a file and laid over each other.

The catalogue of labels and the study file speak of the same ten parameters in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from evbiodist.study.problems import nearest
from evbiodist.study.vocabulary import organ_name

#: The nuisance parameters of a label, with unit and meaning.
NUISANCE: Mapping[str, tuple[str, str]] = MappingProxyType({
    "free_fraction": ("1", "share of the injected label that is not on vesicles"),
    "release": ("1/h", "label leaves vesicles in blood and becomes free label in blood"),
    "transfer": ("1/h", "label leaves the vesicle in tissue and stays in the cells"),
    "clearance": ("1/h", "label left behind in tissue leaves it as free label in blood"),
    "loss": ("1/h", "signal lost everywhere; physical decay is not part of it"),
    "efficiency": ("1", "reading per unit label, relative to the label's dose standard, by organ"),
    "free_v": ("g", "apparent volume of free label's blood pool, in a mouse of 20 g"),
    "free_k_el": ("1/h", "free label leaves blood other than into measured organs"),
    "free_k_in": ("1/h", "free label enters an organ from blood, by organ"),
    "free_k_out": ("1/h", "free label returns from organs to blood"),
})  # fmt: skip
#: Parameters that may differ by organ; their key is then `efficiency.brain`.
PER_ORGAN = ("efficiency", "free_k_in")
_PRIOR_KEYS = ("median", "low", "high", "source", "scale")
_SCALES: tuple[str, ...] = ("log", "logit")
_Z = 1.959964
_MOST = 1e300


@dataclass(frozen=True)
class Prior:
    """What is known of a nuisance parameter before the data: a median and a central 95 % range.

    Parameters
    ----------
    median, low, high : in the parameter's unit, 0 < low <= median <= high, low < high; below 1 for a share.
    source : where the numbers come from; `judgement: ...` where nobody measured them.
    scale : `log`, or `logit` for a share between 0 and 1: the scale on which the prior is normal.

    Raises
    ------
    ValueError : numbers that are no range.

    Examples
    --------
    >>> p = Prior(0.1, 0.01, 1.0, "judgement: one order of magnitude either way")
    >>> round(p.centre, 4), round(p.sd, 4)
    (-2.3026, 1.1748)
    """

    median: float
    low: float
    high: float
    source: str
    scale: str = "log"

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise ValueError(f"scale = log or logit, not '{self.scale}'")
        numbers = (self.median, self.low, self.high)
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _MOST for v in numbers):
            raise ValueError(f"finite numbers for median, low and high, not {', '.join(str(v)[:20] for v in numbers)}")
        top = 1.0 if self.scale == "logit" else math.inf
        if not (0 < self.low <= self.median <= self.high < top and self.low < self.high):
            limit = " < 1" if self.scale == "logit" else ""
            raise ValueError(f"0 < low <= median <= high{limit} with low < high, not low {self.low:g}, "
                             f"median {self.median:g}, high {self.high:g}")  # fmt: skip
        if not isinstance(self.source, str) or not self.source.strip():
            raise ValueError("a source in words, such as a paper or 'judgement: why'")

    def transform(self, value: float) -> float:
        """Return a value on the search scale: its logarithm, or its logit."""
        return math.log(value) if self.scale == "log" else math.log(value / (1 - value))

    @property
    def centre(self) -> float:
        """Median on the search scale."""
        return self.transform(self.median)

    @property
    def sd(self) -> float:
        """Standard deviation on the search scale: a quarter, nearly, of the central 95 % range."""
        return (self.transform(self.high) - self.transform(self.low)) / (2 * _Z)

    def times(self, factor: float, why: str) -> Prior:
        """Return the prior of a multiple of the parameter.

        Examples
        --------
        >>> Prior(2.0, 1.0, 4.0, "x").times(10, "a rat of 200 g")
        Prior(median=20.0, low=10.0, high=40.0, source='x; a rat of 200 g', scale='log')
        """
        median, low, high = (v * factor for v in (self.median, self.low, self.high))
        return replace(self, median=median, low=low, high=high, source=f"{self.source}; {why}")


def read_priors(given: object) -> dict[str, Prior]:
    """Read a table of priors: one of median, low, high and source a parameter, and one an organ inside it.

    Parameters
    ----------
    given : as TOML has it, such as ``{"efficiency": {"brain": {"median": 0.2, ...}}}``.

    Returns
    -------
    dict : by ``efficiency`` or ``efficiency.brain``.

    Raises
    ------
    ValueError : an unknown parameter (the nearest is named), an unknown key, or numbers that are no range.

    Examples
    --------
    >>> one = {"median": 0.2, "low": 0.05, "high": 0.6, "source": "own calibration"}
    >>> list(read_priors({"free_fraction": one, "efficiency": {"brain": one}}))
    ['free_fraction', 'efficiency.brain']
    >>> read_priors({"free_fracton": one})
    Traceback (most recent call last):
    ...
    ValueError: a nuisance parameter instead of 'free_fracton' (did you mean 'free_fraction'?)
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"a table of priors by nuisance parameter, not {str(given)[:40]!r}")
    found: dict[str, Prior] = {}
    for key, value in given.items():
        name, _, organ = str(key).partition(".")
        if name not in NUISANCE:
            raise ValueError(f"a nuisance parameter instead of '{name}' ({nearest(name, NUISANCE)})")
        found |= _read_parameter(name, organ, value)
    return found


def _read_parameter(name: str, organ: str, value: object) -> dict[str, Prior]:
    """Read one parameter: its default, its organs, or both."""
    key = f"{name}.{organ_name(organ)}" if organ else name
    if key.endswith("."):
        raise ValueError(f"the name of an organ for {name}, not '{organ}'")
    if organ and name not in PER_ORGAN:
        raise ValueError(f"one value of {name} for all organs, not one of {organ}: "
                         f"only {' and '.join(PER_ORGAN)} may differ by organ")  # fmt: skip
    if isinstance(value, Prior):
        return {key: value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} as a table of median, low, high and source, not {str(value)[:40]!r}")
    own = {k: v for k, v in value.items() if k in _PRIOR_KEYS}
    organs = {str(k): v for k, v in value.items() if k not in _PRIOR_KEYS}
    found = {key: _read_prior(key, own)} if own or not organs else {}
    for word, inner in organs.items():
        if organ or not isinstance(inner, Mapping | Prior):
            raise ValueError(f"median, low, high and source of {key}, not '{word}' ({nearest(word, _PRIOR_KEYS[:4])})")
        found |= _read_parameter(name, word, inner)
    return found


def _read_prior(key: str, table: Mapping[str, Any]) -> Prior:
    scale = "logit" if key == "free_fraction" else "log"
    for wanted in _PRIOR_KEYS[:4]:
        if wanted not in table:
            raise ValueError(f"a value of {wanted} for {key}: a prior has median, low, high and source")
    if table.get("scale", scale) != scale:
        raise ValueError(f"{key} on the scale {scale}, not '{table['scale']}' (leave scale out)")
    try:
        return Prior(table["median"], table["low"], table["high"], table["source"], scale)
    except ValueError as err:
        raise ValueError(f"for {key} {err}") from err


def layered(*layers: Mapping[str, Prior]) -> dict[str, Prior]:
    """Let later priors replace earlier ones; a new default also replaces the earlier organs of its parameter."""
    found: dict[str, Prior] = {}
    for layer in layers:
        found = {k: v for k, v in found.items() if k.partition(".")[0] not in layer} | dict(layer)
    return found


def prior_lines(priors: Mapping[str, Prior]) -> list[str]:
    """Return one line a prior; its source stands there unless it is that of the line before."""
    said, last = [], ""
    for key, p in priors.items():
        unit = NUISANCE[key.partition(".")[0]][0]
        source = "" if p.source == last else f" [{p.source}]"
        said.append(f"{key} {p.median:g} ({p.low:g} to {p.high:g}){'' if unit == '1' else ' ' + unit}{source}")
        last = p.source
    return said
