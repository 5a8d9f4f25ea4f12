"""What PET files say about activity, in the house's words: isotopes, concentrations, decay correction.

Every PET format needs these three translations, and each of them refuses to guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from evbiodist.io.timing import FrameTiming
from evbiodist.study.units import parse, registry

DecayReference = Literal["injection", "scan_start", "none", "unknown"]

_SYMBOLS = {"fluorine": "F", "carbon": "C", "gallium": "Ga", "copper": "Cu", "zirconium": "Zr", "iodine": "I",
            "indium": "In", "technetium": "Tc", "lutetium": "Lu"}  # fmt: skip
_ISOTOPE = re.compile(r"(?P<element>[A-Za-z]{1,10}?)(?P<mass>\d{1,3})(?P<state>m?)", re.IGNORECASE)
_ISOTOPE_MASS_FIRST = re.compile(r"(?P<mass>\d{1,3})(?P<state>m?)(?P<element>[A-Za-z]{1,10})")
#: No tracer is imaged longer after its injection, in s.
_LONGEST_S = 90 * 86400.0
#: As some converters write DICOM's code for Bq/mL.
_CODES = {"BQML": "Bq/mL", "BQ/ML": "Bq/mL", "BQ/CC": "Bq/mL", "Bq/cm3": "Bq/mL", "kBq/cm3": "kBq/mL"}


def isotope_name(text: str) -> str | None:
    """Return an isotope in the spelling of `evbiodist.study.constants.isotopes`, or None if it is not one.

    Examples
    --------
    >>> isotope_name("F18"), isotope_name("Tc-99m"), isotope_name("^89^Zirconium"), isotope_name("FDG")
    ('18F', '99mTc', '89Zr', None)
    """
    bare = re.sub(r"[\s^_-]", "", text)
    match = _ISOTOPE_MASS_FIRST.fullmatch(bare) or _ISOTOPE.fullmatch(bare)
    if match is None:
        return None
    element = _SYMBOLS.get(match["element"].lower(), match["element"].capitalize())
    return f"{match['mass']}{match['state'].lower()}{element}" if len(element) <= 2 else None


@lru_cache(maxsize=64)
def bq_per_ml(unit: str) -> float | None:
    """Return how many Bq/mL one unit of activity concentration is; None for any other quantity.

    Examples
    --------
    >>> bq_per_ml("kBq/mL"), bq_per_ml("nCi/cc"), bq_per_ml("g/mL")
    (1000.0, 37.0, None)
    """
    import pint

    unit = _CODES.get(unit.strip(), unit.strip())
    if not re.search(r"Bq|Ci|becquerel|curie", unit):  # pint takes 1/s for Bq, so Hz/mL would pass
        return None
    try:
        quantity = registry().Quantity(1.0, parse(unit)).to("becquerel/milliliter")
    except (ValueError, AttributeError, pint.errors.PintError):
        return None
    return float(f"{quantity.magnitude:.12g}")


def decay_reference(
    factors: Sequence[float], timing: FrameTiming | None, half_life_s: float | None, injected_s: float | None
) -> DecayReference:
    """Find the instant that decay correction factors lead back to.

    A frame from t to t + d, corrected to the instant r, carries the factor
    exp(L (t - r)) L d / (1 - exp(-L d)) with L = ln 2 / half-life; the factors must be those of r in
    every frame.

    Parameters
    ----------
    factors : one a frame, as the file states them.
    timing : counted from the scan's start.
    half_life_s : of the isotope.
    injected_s : time of injection after the scan's start, when known.

    Returns
    -------
    str : `unknown` when a part is missing, or the factors fit no instant, or cannot tell.

    Examples
    --------
    >>> frames = FrameTiming((0, 600), (600, 600))
    >>> decay_reference((1.0320, 1.0993), frames, 6586.2, None), decay_reference((1, 1), frames, 6586.2, None)
    ('scan_start', 'none')
    """
    found = np.asarray(factors, dtype=float)
    if timing is None or not half_life_s or half_life_s <= 0 or len(timing) != found.size or not (found > 0).all():
        return "unknown"
    rate = np.log(2) / max(half_life_s, 1e-3)
    start, during = np.asarray(timing.start_s), rate * np.asarray(timing.duration_s)
    at_start = rate * start - np.log(-np.expm1(-np.maximum(during, 1e-12)) / np.maximum(during, 1e-12))
    if np.abs(np.log(found)).max() < 1e-6:
        return "none" if at_start.max() > 1e-3 else "unknown"
    expected: dict[DecayReference, float] = {"scan_start": 0.0}
    if injected_s is not None:
        expected["injection"] = -rate * injected_s
    misses = {name: _miss(np.log(found), at_start + shift) for name, shift in expected.items()}
    best = min(misses, key=lambda name: misses[name])
    return best if misses[best] <= 1 else "unknown"


def believed_injection(after_s: float, timing: FrameTiming | None, key: str, warnings: list[str]) -> float | None:
    """Return the time of injection after the scan's start, or None with a warning when the clocks cannot be right.

    Clocks that were never set, or moved to hide a date, place the injection after the scan's last frame or
    months before it.

    Parameters
    ----------
    after_s : injection minus scan start by the header's clock times, in s.
    timing : of the frames, counted from the scan's start; a scan of unknown length is taken to last a day at most.
    key : the header's key, for the warning.
    warnings : is added to.

    Examples
    --------
    >>> told = []
    >>> believed_injection(-3600.0, None, "injection_time", told), believed_injection(5e5, None, "injection_time", told)
    (-3600.0, None)
    >>> told
    ['by injection_time the injection was 139 h after the start of the scan, so its time is unknown']
    """
    end = 86400.0 if timing is None else timing.start_s[-1] + timing.duration_s[-1]
    if -_LONGEST_S <= after_s <= end:
        return after_s
    side = "after" if after_s > 0 else "before"
    warnings.append(
        f"by {key} the injection was {abs(after_s) / 3600:.3g} h {side} the start of the scan, so its time is unknown"
    )
    return None


def _miss(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of two logarithms in units of what rounding explains (2 %, at least 2e-4)."""
    return float((np.abs(found - expected) / (0.02 * np.abs(expected) + 2e-4)).max())
