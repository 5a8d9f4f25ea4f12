"""Values of a DICOM header as numbers, texts and moments, and what is said about a series while it is read.

Empty, repeated and malformed elements are common in exported series; each comes out as a value or None.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

EMISSION = {"PT": "PET", "NM": "SPECT", "ST": "SPECT"}
#: Read for anatomy; their values are no activity.
ANATOMY = {"CT": "CT numbers", "MR": "MR intensities"}


class OddError(ValueError):
    """Something in a header that makes the series unreadable, in words without the file's name."""


@dataclass
class Told:
    """Sentences gathered while reading, each once."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Remember what was found or assumed."""
        self.notes += [sentence] if sentence not in self.notes else []

    def warn(self, sentence: str) -> None:
        """Remember what is odd."""
        self.warnings += [sentence] if sentence not in self.warnings else []


def text_of(data: Any, name: str) -> str:
    """Return an element as text, empty where it is missing."""
    value = data.get(name) if data is not None else None
    return "" if value is None else str(value).strip("\0 ")


def numbers_of(data: Any, name: str) -> tuple[float, ...]:
    """Return the numbers of an element, none when it is absent or empty; text that is no number is refused."""
    try:
        value = data.get(name)
        if value is None or value == "":
            return ()
        parts = [value] if isinstance(value, (int, float)) else list(value)
        numbers = tuple(float(v) for v in parts)
    except (ValueError, TypeError, OverflowError) as err:
        raise OddError(f"its {name} is not a number; export it again") from err
    if not all(map(math.isfinite, numbers)):
        raise OddError(f"its {name} is not a finite number; export it again")
    return numbers


def number_of(data: Any, name: str) -> float | None:
    """Return the first number of an element, None without."""
    return next(iter(numbers_of(data, name)), None)


def vector_of(data: Any, name: str, length: int) -> tuple[float, ...] | None:
    """Return an element of just so many numbers, else None."""
    numbers = numbers_of(data, name)
    return numbers if len(numbers) == length else None


def first_item(data: Any, name: str) -> Any:
    """Return the first item of a sequence, or an empty dataset."""
    from pydicom.dataset import Dataset

    items = data.get(name)
    return items[0] if items else Dataset()


def parsed_moment(stamp: str) -> datetime | None:
    """Return a DICOM date and time (``YYYYMMDDhhmm[ss[.ffffff]][+ZZXX]``), None where it is not both."""
    from pydicom.valuerep import DT

    stamp = stamp.replace(":", "").strip()
    if not re.match(r"^\d{12}", stamp):
        return None
    try:
        moment = DT(stamp)
    except ValueError:
        return None
    return None if moment is None else datetime.combine(moment.date(), moment.timetz())


def moment_of(data: Any, kind: str) -> datetime | None:
    """Return the moment of `kind` (Series, Acquisition) from its DateTime, or its Date and Time."""
    found = parsed_moment(text_of(data, f"{kind}DateTime")) or parsed_moment(
        text_of(data, f"{kind}Date") + text_of(data, f"{kind}Time")
    )
    return found.replace(tzinfo=None) if found else None


def seconds_between(later: datetime, earlier: datetime) -> float:
    """Return the seconds from one moment to a later one."""
    return (later - earlier).total_seconds()


def milliseconds_of(data: Any, name: str) -> float | None:
    """Return an element in milliseconds as seconds, None without."""
    value = number_of(data, name)
    return None if value is None else value / 1000.0
