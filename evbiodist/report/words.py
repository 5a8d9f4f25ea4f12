"""Numbers as people read them."""

from __future__ import annotations

import math


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
