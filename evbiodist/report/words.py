"""Numbers and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """Return a number as people read it: three digits, no needless exponent.

    Examples
    --------
    >>> number(0.012345), number(1234567.0), number(float("nan"))
    ('0.0123', '1.23e+06', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def interval(value: float, low: float, high: float) -> str:
    """Return a value with its interval in brackets, or alone when there is none.

    Examples
    --------
    >>> interval(1.0, 0.8, 1.3), interval(1.0, float("nan"), float("nan"))
    ('1 (0.8 to 1.3)', '1')
    """
    if math.isnan(low) or math.isnan(high):
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def short(text: object, most: int) -> str:
    """Return a name cut to a length a figure has room for; the table behind the figure has the whole name.

    Examples
    --------
    >>> short("liver", 8), short("mesenteric lymph node", 8)
    ('liver', 'mesente…')
    """
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def joined(parts: Sequence[str]) -> str:
    """Return names as a list within a sentence.

    Examples
    --------
    >>> joined(["liver"]), joined(["liver", "lung"]), joined(["liver", "lung", "spleen"])
    ('liver', 'liver and lung', 'liver, lung and spleen')
    """
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def opening(sentence: str, names: Sequence[str]) -> str:
    """Return a sentence with a capital first letter, unless it opens with a name, which stays as it is.

    Examples
    --------
    >>> opening("nothing speaks against 111In", ["mCherry"]), opening("mCherry misreads", ["mCherry"])
    ('Nothing speaks against 111In', 'mCherry misreads')
    """
    named = any(name and sentence.startswith(name) for name in names)
    return sentence if named else sentence[:1].upper() + sentence[1:]
