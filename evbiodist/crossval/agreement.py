"""How far two labels agree on the same animals and organs: bias, limits, concordance and a line.

It describes and judges nothing: ICH M10 asks cross-validation for bias with its interval, not for a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from evbiodist.crossval.concordance import lin_ccc
from evbiodist.crossval.limits import LIMIT_Z, limits
from evbiodist.crossval.lines import deming
from evbiodist.crossval.pairs import check_level, paired
from evbiodist.crossval.replicates import Within
from evbiodist.crossval.replicates import error_ratio as ratio_of_errors

__all__ = ["LIMIT_Z", "Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """Agreement of paired measurements `a` and `b`; NaN where the data cannot carry a number.

    Parameters
    ----------
    n : number of pairs.
    bias, bias_low, bias_high : mean of `a - b` and its t interval, in the unit of the data.
    loa_low, loa_high : limits of agreement, ``bias -+ 1.96 sd``; they hold about 95 % of differences.
    loa_margin : half width of the interval of each limit, Bland & Altman's approximation.
    sd : standard deviation of `a - b` (of single animals, where their scatter is given).
    ccc, ccc_low, ccc_high : Lin's concordance, 1 for identical values; no unit.
    deming_slope, deming_slope_low, deming_slope_high : slope of ``b = intercept + slope * a``.
    deming_intercept, deming_intercept_low, deming_intercept_high : in the unit of the data.
    reason : why numbers are missing, in words; empty when none is.
    flags : words of `evbiodist.study.flags.FLAGS`.
    loa_low_low, loa_low_high, loa_high_low, loa_high_high : interval of each limit, exact for few pairs.

    Examples
    --------
    >>> Agreement(n=1, bias=0.5, reason="1 pair", flags=("few",)).ccc
    nan
    """

    n: int
    bias: float = math.nan
    bias_low: float = math.nan
    bias_high: float = math.nan
    loa_low: float = math.nan
    loa_high: float = math.nan
    loa_margin: float = math.nan
    sd: float = math.nan
    ccc: float = math.nan
    ccc_low: float = math.nan
    ccc_high: float = math.nan
    deming_slope: float = math.nan
    deming_slope_low: float = math.nan
    deming_slope_high: float = math.nan
    deming_intercept: float = math.nan
    deming_intercept_low: float = math.nan
    deming_intercept_high: float = math.nan
    reason: str = ""
    flags: tuple[str, ...] = ()
    loa_low_low: float = math.nan
    loa_low_high: float = math.nan
    loa_high_low: float = math.nan
    loa_high_high: float = math.nan


def agreement(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    error_ratio: float | Literal["replicates"] = 1.0,
    within: tuple[Within, Within] | None = None,
    level: float = 0.95,
) -> Agreement:
    """Describe how two ways of measuring the same quantity agree, pair by pair.

    Parameters
    ----------
    a, b : (n,) the same quantity of the same animal, organ and time, in the same unit; or means over animals.
    error_ratio : variance of the measurement error of `a` over that of `b` (Linnet's lambda), or `replicates` to take
        it from `within`.
    within : scatter of the animals behind the means, from `replicates.within`; widens the limits to single animals.
    level : of the intervals; the limits of agreement always hold the middle 95 %.

    Returns
    -------
    Fewer than three pairs, or a label that reads the same everywhere, give NaN with a reason.

    Raises
    ------
    ValueError : `a` and `b` of different shapes or not finite; `error_ratio` or `level` out of range.

    Examples
    --------
    >>> found = agreement([4.1, 6.0, 7.9, 10.2], [4.0, 6.1, 8.1, 10.0])
    >>> round(found.bias, 3), round(found.ccc, 4), round(found.deming_slope, 3)
    (0.0, 0.9975, 0.989)
    >>> agreement([4.1, 6.0], [4.0, 6.1]).reason
    'n = 2 pairs, and spread, concordance and a line need 3'

    Notes
    -----
    Bland & Altman, Lancet 1986;1:307, and Carkeet 2015 (`limits`); Lin 1989 and 2000 (`concordance.lin_ccc`); Linnet
    1990 (`lines.deming`).
    """
    x, y = paired(a, b)
    check_level(level)
    ratio = _ratio(error_ratio, within)
    line = deming(
        x, y, error_ratio=ratio, level=level
    )  # first, so that a wrong error ratio is refused for few pairs, too
    if x.size < 3:
        return _too_few(x, y)
    spread, ccc = limits(x, y, within=within, level=level), lin_ccc(x, y, level)
    reasons = (spread.reason, ccc.reason, line.reason)
    return Agreement(
        x.size, spread.bias, spread.bias_low, spread.bias_high, spread.loa_low, spread.loa_high, spread.loa_margin, spread.sd,
        ccc.value, ccc.low, ccc.high,
        line.slope, line.slope_low, line.slope_high, line.intercept, line.intercept_low, line.intercept_high,
        "; ".join(dict.fromkeys(r for r in reasons if r)), (),
        spread.loa_low_low, spread.loa_low_high, spread.loa_high_low, spread.loa_high_high,
    )  # fmt: skip


def _ratio(error_ratio: float | Literal["replicates"], within: tuple[Within, Within] | None) -> float:
    """Return the ratio of error variances as a number, estimated where the caller asks for it."""
    if error_ratio != "replicates":
        return error_ratio
    if within is None:
        raise ValueError("error_ratio: found 'replicates' without `within`; give the scatter of both labels' animals.")
    found = ratio_of_errors(*within)
    if found.reason:
        raise ValueError(f"error_ratio: found 'replicates', but {found.reason}; give a number.")
    return found.ratio


def _too_few(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Agreement:
    """Return what one or two pairs can carry: the mean difference."""
    pairs = f"n = {x.size} pair{'' if x.size == 1 else 's'}"
    return Agreement(
        n=x.size,
        bias=float(np.mean(x - y)) if x.size else math.nan,
        reason=f"{pairs}, and spread, concordance and a line need 3",
        flags=("few",),
    )
