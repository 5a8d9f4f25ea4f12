"""How far two labels agree on the same animals and organs: bias, limits, concordance and a line.

It describes and judges nothing: ICH M10 asks cross-validation for bias with its interval, not for a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evbiodist.study.estimate import student

FloatArray = npt.NDArray[np.float64]

LIMIT_Z = 1.96
"""Half width of the limits of agreement in SD: the middle 95 % of differences, whatever the level."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of paired measurements `a` and `b`; NaN where the data cannot carry a number.

    Parameters
    ----------
    n : number of pairs.
    bias, bias_low, bias_high : mean of `a - b` and its t interval, in the unit of the data.
    loa_low, loa_high : limits of agreement, ``bias -+ 1.96 sd``; they hold about 95 % of differences.
    loa_margin : half width of the interval of each limit, Bland & Altman's approximation.
    sd : standard deviation of `a - b`.
    ccc, ccc_low, ccc_high : Lin's concordance, 1 for identical values; no unit.
    deming_slope, deming_slope_low, deming_slope_high : slope of ``b = intercept + slope * a``.
    deming_intercept, deming_intercept_low, deming_intercept_high : in the unit of the data.
    reason : why numbers are missing, in words; empty when none is.
    flags : words of `evbiodist.study.flags.FLAGS`.

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


def agreement(a: npt.ArrayLike, b: npt.ArrayLike, *, error_ratio: float = 1.0, level: float = 0.95) -> Agreement:
    """Describe how two ways of measuring the same quantity agree, pair by pair.

    Parameters
    ----------
    a, b : (n,) the same quantity of the same animal, organ and time, in the same unit.
    error_ratio : variance of the measurement error of `a` over that of `b` (Linnet's lambda).
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
    Bland & Altman, Lancet 1986;1:307 (limits and their interval). Lin, Biometrics 1989;45:255 with the
    correction of 2000;56:324 (moments over n, interval by Fisher's z with n - 2). Linnet, Stat Med
    1990;9:1463 (Deming line, jackknife interval with n - 2 degrees of freedom).
    """
    x, y = _paired(a, b)
    _check_options(error_ratio, level)
    if x.size < 3:
        return _too_few(x, y)
    found = Agreement(n=x.size)
    reasons = []
    for part in (
        _bland_altman(x, y, level),
        _concordance(x, y, level),
        _deming(x, y, error_ratio, level),
    ):
        found = replace(found, **part.numbers)
        reasons.append(part.reason)
    return replace(found, reason="; ".join(dict.fromkeys(r for r in reasons if r)))


class _Part(NamedTuple):
    """Some fields of an `Agreement`, and why others of the same method are missing."""

    numbers: dict[str, Any]
    reason: str = ""


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as finite vectors of one length, or say what is wrong."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"a and b: found shapes {x.shape} and {y.shape}, expected two vectors of one length; "
            "pair the measurements by animal, organ and time first."
        )
    for name, values in (("a", x), ("b", y)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise ValueError(
                f"{name}: found {bad} of {values.size} values NaN or infinite, expected finite ones; "
                "leave incomplete pairs out of both a and b."
            )
    return x, y


def _check_options(error_ratio: float, level: float) -> None:
    if not (math.isfinite(error_ratio) and error_ratio > 0):
        raise ValueError(
            f"error_ratio: found {error_ratio}, expected a positive number; "
            "give the error variance of a over that of b, or leave it at 1."
        )
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a share between 0 and 1; give 0.95 for 95 %.")


def _too_few(x: FloatArray, y: FloatArray) -> Agreement:
    """Return what one or two pairs can carry: the mean difference."""
    pairs = f"n = {x.size} pair{'' if x.size == 1 else 's'}"
    return Agreement(
        n=x.size,
        bias=float(np.mean(x - y)) if x.size else math.nan,
        reason=f"{pairs}, and spread, concordance and a line need 3",
        flags=("few",),
    )


def _bland_altman(x: FloatArray, y: FloatArray, level: float) -> _Part:
    """Return bias and limits of agreement (Bland & Altman 1986)."""
    difference = x - y
    bias, sd = float(np.mean(difference)), float(np.std(difference, ddof=1))
    spread = {"bias": bias, "sd": sd, "loa_low": bias - LIMIT_Z * sd, "loa_high": bias + LIMIT_Z * sd}
    if sd == 0:
        return _Part(spread, "all differences are alike, so the bias has no interval")
    t, root_n = student(level, x.size - 1), math.sqrt(x.size)
    margin = t * sd / root_n
    spread |= {
        "bias_low": bias - margin,
        "bias_high": bias + margin,
        "loa_margin": t * math.sqrt(3) * sd / root_n,
    }
    return _Part(spread)


def _concordance(x: FloatArray, y: FloatArray, level: float) -> _Part:
    """Return Lin's concordance correlation with its interval by Fisher's z."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return _Part({}, _flat(x, y))
    sxx, syy, sxy = _moments(x, y)
    shift = float(np.mean(x) - np.mean(y))
    total = sxx + syy + shift**2
    ccc = 2 * sxy / total
    apart = float(np.mean((x - y) ** 2)) / total  # 1 - ccc, without the cancellation near 1
    if apart == 0 or ccc <= -1:
        return _Part({"ccc": round(ccc)}, "concordance is exactly 1 or -1, where it has no interval")
    z, margin = math.atanh(1 - apart), _z_margin(sxx, syy, sxy, shift, x.size, level)
    return _Part({"ccc": ccc, "ccc_low": math.tanh(z - margin), "ccc_high": math.tanh(z + margin)})


def _z_margin(sxx: float, syy: float, sxy: float, shift: float, n: int, level: float) -> float:
    """Return the half width of the interval of atanh(ccc): Lin 1989, as corrected in 2000.

    Written with the accuracy ``ccc / r`` so that uncorrelated pairs divide by nothing.
    """

    total, product = sxx + syy + shift**2, math.sqrt(sxx * syy)
    ccc, accuracy, u2 = 2 * sxy / total, 2 * product / total, shift**2 / product
    apart = (sxx + syy - 2 * sxy + shift**2) / total
    room = apart * (1 + ccc)
    unexplained = max(0.0, 1 - (sxy / product) ** 2)
    variance = (
        unexplained * accuracy**2 / room
        + 2 * ccc**2 * accuracy * apart * u2 / room**2
        - (ccc * accuracy * u2) ** 2 / (2 * room**2)
    ) / (n - 2)
    return student(level, math.inf) * math.sqrt(max(0.0, variance))


def _deming(x: FloatArray, y: FloatArray, ratio: float, level: float) -> _Part:
    """Return the line with errors on both axes and its jackknife interval (Linnet 1990)."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return _Part({}, _flat(x, y))
    line = _deming_line(x, y, ratio)
    if np.isnan(line).any():
        return _Part({}, "the pairs are uncorrelated, so no Deming line follows")
    slope, intercept = line.tolist()
    numbers = {"deming_slope": slope, "deming_intercept": intercept}
    n = x.size
    left_out = np.array([_deming_line(np.delete(x, i), np.delete(y, i), ratio) for i in range(n)])
    if np.isnan(left_out).any():
        return _Part(numbers, "the Deming line hangs on a single pair, so it has no jackknife interval")
    pseudo = n * line - (n - 1) * left_out
    margin = student(level, n - 2) * np.std(pseudo, axis=0, ddof=1) / math.sqrt(n)
    low, high = (line - margin).tolist(), (line + margin).tolist()
    numbers |= {"deming_slope_low": low[0], "deming_slope_high": high[0]}
    numbers |= {"deming_intercept_low": low[1], "deming_intercept_high": high[1]}
    return _Part(numbers)


def _deming_line(x: FloatArray, y: FloatArray, ratio: float) -> FloatArray:
    """Return (slope, intercept) of y on x, NaN for uncorrelated pairs; ratio is error var x / var y."""
    sxx, syy, sxy = _moments(x, y)
    if sxy == 0:
        return np.array([math.nan, math.nan])
    tilt = ratio * syy - sxx
    root = math.hypot(tilt, 2 * math.sqrt(ratio) * sxy)
    # two forms of one root; each is taken where it does not subtract nearly equal numbers
    slope = (tilt + root) / (2 * ratio * sxy) if tilt >= 0 else 2 * sxy / (root - tilt)
    return np.array([slope, np.mean(y) - slope * np.mean(x)])


def _moments(x: FloatArray, y: FloatArray) -> tuple[float, float, float]:
    """Return variances and covariance over n (not n - 1), as Lin 1989 has them."""
    dx, dy = x - np.mean(x), y - np.mean(y)
    return float(np.mean(dx * dx)), float(np.mean(dy * dy)), float(np.mean(dx * dy))


def _flat(x: FloatArray, y: FloatArray) -> str:
    flat = [name for name, values in (("a", x), ("b", y)) if np.ptp(values) == 0]
    verb = "read" if len(flat) == 2 else "reads"
    return f"{' and '.join(flat)} {verb} the same everywhere, so neither concordance nor a line follows"
