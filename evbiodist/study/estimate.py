"""A number is never alone: value, uncertainty, unit, n, flags, and a reason when it is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass


def student(level: float, df: float) -> float:
    """Return how many standard errors a two-sided interval reaches (Student's t; normal for infinite df).

    Examples
    --------
    >>> round(student(0.95, 2), 4), round(student(0.95, math.inf), 4)
    (4.3027, 1.96)
    """
    from scipy.special import ndtri, stdtrit

    return float(ndtri(0.5 + level / 2) if math.isinf(df) else stdtrit(df, 0.5 + level / 2))


@dataclass(frozen=True)
class Estimate:
    """One result with everything a reader needs to trust or doubt it.

    Parameters
    ----------
    name : parameter name in lower snake case (`auclast`, `lambda_z`, ...).
    value, se, ci_low, ci_high : NaN where missing; the interval is at the analysis' level (95 %).
    unit : unit as text, e.g. ``pct_id_per_g*h``.
    method : how it was obtained.
    n : number of values it rests on.
    flags : words of `evbiodist.study.flags.FLAGS`.
    reason : why the value (or, with a value, its uncertainty) is missing; empty otherwise.

    Raises
    ------
    ValueError : a missing value without a reason.

    Examples
    --------
    >>> Estimate("half_life", 4.4, unit="h", reason="no replicate, so no uncertainty").value
    4.4
    >>> Estimate("half_life")
    Traceback (most recent call last):
    ...
    ValueError: half_life is missing without a reason; give reason=...
    """

    name: str
    value: float = math.nan
    se: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    unit: str = ""
    method: str = ""
    n: int = 0
    flags: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.value) and not self.reason:
            raise ValueError(f"{self.name} is missing without a reason; give reason=...")
