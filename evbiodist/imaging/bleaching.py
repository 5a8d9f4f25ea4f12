"""Bleaching: fluorescence that fades with the light it was exposed to, and what it read before.

The rate is measured by repeated exposure of the same object; without a decay in the data nothing is corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.estimate import student

#: Chance of calling a fit a misfit that is none.
_MISFIT_P = 1e-3
_CORRELATED = 0.8


@dataclass(frozen=True, eq=False)
class Bleaching:
    """How a label fades: signal = initial x (plateau + (1 - plateau) exp(-rate x exposure)).

    Parameters
    ----------
    rate_per_s, se, ci_low, ci_high : rate per second of exposure, its standard error and interval.
    initial : signal before any exposure; plateau : share of it that does not bleach (0 in the plain model).
    covariance : (2, 2) of rate and plateau.
    longest_s : longest exposure in the data.
    chi2_red : residual variance over the stated one, NaN where no errors were stated; df : degrees of freedom.
    n : number of values; level : of the interval.
    flags : words of `evbiodist.study.flags.FLAGS`.
    reason : why nothing is corrected with this rate; empty where the data show a decay.
    notes : sentences for people.
    """

    rate_per_s: float
    se: float
    ci_low: float
    ci_high: float
    initial: float
    plateau: float
    covariance: FloatArray
    longest_s: float
    chi2_red: float
    df: float
    n: int
    level: float
    flags: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def decays(self) -> bool:
        """Whether the data show a decay, so that a correction stands on something."""
        return not self.reason

    def left(self, exposure_s: ArrayLike) -> FloatArray:
        """Return the share of the initial signal that is left after some exposure, in the shape of `exposure_s`."""
        fading = np.exp(-self.rate_per_s * np.asarray(exposure_s, dtype=np.float64))
        return np.asarray(self.plateau + (1 - self.plateau) * fading)


def fit_bleaching(
    exposure_s: ArrayLike,
    signal: ArrayLike,
    se: ArrayLike | None = None,
    *,
    plateau: bool = False,
    level: float = 0.95,
) -> Bleaching:
    """Fit the bleaching rate to signals of one object after increasing exposure.

    Parameters
    ----------
    exposure_s : (n,) exposure in seconds up to the middle of each image, see `cumulative_exposure`.
    signal : (n,) its background-free signal; se : (n,) standard errors, or None to take them from the scatter.
    plateau : whether a share of the signal may not bleach.
    level : of the interval.

    Returns
    -------
    Bleaching : with `reason` in words, and no correction, where the interval of the rate includes 0.

    Raises
    ------
    ValueError : shapes that do not match, values that are not finite, too few of them, or no signal.

    Examples
    --------
    >>> exposure = np.arange(0.0, 60, 10)
    >>> found = fit_bleaching(exposure, 500 * np.exp(-0.01 * exposure), np.full(6, 5.0))
    >>> round(found.rate_per_s, 6), round(found.se, 5), found.decays
    (0.01, 0.00031, True)

    Song 1995 (Biophys J 68:2588) for the single exponential and its limits.
    """
    x, y, sigma = _checked(exposure_s, signal, se, 3 if plateau else 2)
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    notes: tuple[str, ...] = ()
    theta, covariance, rss = _fit(x, y, sigma, plateau)
    if plateau and not 0 <= theta[2] < 1:
        notes = (f"the plateau came out as {theta[2]:.3g} of the signal, which cannot be; it was left out",)
        theta, covariance, rss = _fit(x, y, sigma, False)
        plateau = False
    df = float(x.size - (3 if plateau else 2))
    chi2_red, flags = math.nan, set()
    if se is None:
        covariance = covariance * rss / df
    else:
        chi2_red = rss / df
        if _is_misfit(rss, df):
            flags.add("misfit")
            covariance = covariance * chi2_red
        else:
            df = math.inf
    rate, spread = float(theta[1]), float(np.sqrt(covariance[1, 1]))
    reach = student(level, df) * spread
    pair = abs(covariance[1, 2]) / np.sqrt(covariance[1, 1] * covariance[2, 2]) if plateau else 0.0
    flags |= {"correlated"} if pair >= _CORRELATED else set()
    flags |= {"imprecise"} if spread >= 0.5 * abs(rate) else set()
    return Bleaching(rate, spread, rate - reach, rate + reach, float(theta[0]), float(theta[2]), covariance[1:, 1:],
                     float(x.max()), chi2_red, df, x.size, level, tuple(sorted(flags)),
                     _why_not(rate, reach, level), notes)  # fmt: skip


def _checked(exposure_s: ArrayLike, signal: ArrayLike, se: ArrayLike | None, free: int) -> tuple[FloatArray, ...]:
    x, y = np.asarray(exposure_s, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    sigma = np.ones(y.shape) if se is None else np.broadcast_to(np.asarray(se, dtype=np.float64), y.shape)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"exposures have shape {x.shape}, signals {y.shape}; give one exposure for every signal")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(sigma).all()):
        raise ValueError("an exposure, signal or standard error is not a finite number; leave that image out")
    if (x < 0).any() or (sigma <= 0).any():
        raise ValueError("an exposure is below zero, or a standard error not above it; correct it")
    if np.unique(x).size <= free:
        raise ValueError(f"{np.unique(x).size} different exposures cannot show {free} parameters and their error; "
                         f"give at least {free + 1}")  # fmt: skip
    if not y.mean() > 0:
        raise ValueError(f"the signals average {y.mean():.3g}, which is no light; subtract the right background")
    return x, y, sigma


def _fit(x: FloatArray, y: FloatArray, sigma: FloatArray, plateau: bool) -> tuple[FloatArray, FloatArray, float]:
    """Return (initial, rate, plateau), their covariance at the stated errors and the weighted residual sum."""
    from scipy.optimize import least_squares

    span, free = float(np.ptp(x)), 3 if plateau else 2
    bright = y > 0
    away = x[bright] - x[bright].mean()
    slope = -(away @ np.log(y[bright])) / (away @ away) if away.any() else 0.0
    size = float(y.max())

    def model(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        initial, rate, rest = theta[0], theta[1], theta[2] if plateau else 0.0
        fading = np.exp(np.clip(-rate * x / span, -100, 100))
        by = (rest + (1 - rest) * fading, -initial * (1 - rest) * fading * x / span, initial * (1 - fading))
        return initial * by[0], np.array(by[:free]).T

    y, sigma = y / size, sigma / size

    def residual(theta: FloatArray) -> FloatArray:
        return (model(theta)[0] - y) / sigma

    def jacobian(theta: FloatArray) -> FloatArray:
        return model(theta)[1] / sigma[:, None]

    start = np.array([1.0, slope * span * (2 if plateau else 1), 0.2])[:free]
    found = least_squares(residual, start, jacobian, x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=1000)
    unit = np.array([size, 1 / span, 1.0])
    covariance = np.zeros((3, 3))
    slopes = jacobian(found.x)
    covariance[:free, :free] = np.linalg.pinv(slopes.T @ slopes)
    return np.append(found.x, [0.0] * (3 - free)) * unit, covariance * np.outer(unit, unit), float(2 * found.cost)


def _is_misfit(rss: float, df: float) -> bool:
    from scipy.special import chdtrc

    return bool(chdtrc(df, rss) < _MISFIT_P)


def _why_not(rate: float, reach: float, level: float) -> str:
    between = f"the {100 * level:g} % interval of the rate, {rate - reach:.3g} to {rate + reach:.3g} per s of exposure"
    if not math.isfinite(reach):
        return "the data do not carry the rate"
    if rate + reach < 0:
        return f"the signal grows with exposure ({between}), so this is no bleaching"
    if rate - reach <= 0:
        return f"the data show no decay: {between}, includes 0"
    return ""


@dataclass(frozen=True, eq=False)
class Unbleached:
    """Signals as they were before any exposure.

    Parameters
    ----------
    value, se : corrected signals and their random standard errors.
    se_systematic : error from the rate, shared by all signals that are corrected with it.
    flags : words of `evbiodist.study.flags.FLAGS`; notes : sentences for people, also on why nothing was corrected.
    """

    value: FloatArray
    se: FloatArray
    se_systematic: FloatArray
    flags: tuple[str, ...]
    notes: tuple[str, ...]


def correct_bleaching(value: ArrayLike, se: ArrayLike, exposure_s: ArrayLike, rate: Bleaching) -> Unbleached:
    """Return what signals would have been without bleaching.

    Parameters
    ----------
    value, se : (n,) signals and standard errors; exposure_s : (n,) exposure up to the middle of each image.
    rate : from `fit_bleaching`; where its data show no decay, values come back unchanged and `notes` says why.

    Returns
    -------
    Unbleached

    Raises
    ------
    ValueError : exposures below zero or not finite.

    Examples
    --------
    >>> exposure = np.arange(0.0, 60, 10)
    >>> rate = fit_bleaching(exposure, 500 * np.exp(-0.01 * exposure), np.full(6, 5.0))
    >>> found = correct_bleaching(np.exp(-0.3), 0.01, 30.0, rate)
    >>> found.value.round(4).tolist(), found.se.round(4).tolist(), found.se_systematic.round(4).tolist()
    ([1.0], [0.0135], [0.0093])
    """
    v, e, x = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (value, se, exposure_s)))
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError("an exposure is below zero or not a number; give seconds of exposure for every value")
    if not rate.decays:
        return Unbleached(v.copy(), e.copy(), np.zeros(v.shape), (), (f"not corrected for bleaching: {rate.reason}",))
    left = rate.left(x)
    fading = np.exp(-rate.rate_per_s * x)
    slopes = np.stack([-(1 - rate.plateau) * x * fading, 1 - fading])  # by rate and by plateau
    error = np.sqrt(np.einsum("in,ij,jn->n", slopes.reshape(2, -1), rate.covariance, slopes.reshape(2, -1)))
    corrected, relative = v / left, error.reshape(v.shape) / left
    notes = [f"corrected for bleaching at {rate.rate_per_s:.3g} +- {rate.se:.2g} per s of exposure"]
    if (x > rate.longest_s).any():
        notes.append(
            f"exposures up to {x.max():g} s lie beyond the {rate.longest_s:g} s at which the rate was measured"
        )
    told = {"systematic": bool((relative > 0).any()), "imprecise": bool((relative >= 0.5).any()),
            "misfit": "misfit" in rate.flags}  # fmt: skip
    flags = tuple(sorted(word for word, holds in told.items() if holds))
    return Unbleached(corrected, e / left, np.abs(corrected) * relative, flags, tuple(notes))


def cumulative_exposure(scan: Scan, before_s: float = 0.0) -> tuple[FloatArray, str]:
    """Return the exposure up to the middle of every image of a scan, and in words what it rests on.

    Parameters
    ----------
    scan : with frames (T), bands (C), both or neither; every image is taken to have the same exposure.
    before_s : exposure of the object before the scan, in seconds.

    Returns
    -------
    exposure_s : of shape (T,), (C,), (T, C) or (1,), in the order of the axes.
    basis : a sentence for the report.

    Raises
    ------
    ValueError : neither exposure nor durations are known, a volume, or a negative `before_s`.

    Examples
    --------
    >>> cumulative_exposure(Scan("a", None, np.ones((3, 2, 2)), "TYX", exposure_s=2.0), before_s=10)[0].tolist()
    [11.0, 13.0, 15.0]
    """
    if not (math.isfinite(before_s) and before_s >= 0):
        raise ValueError(f"before_s has {before_s}; give the seconds of exposure before the scan, 0 or more")
    leading = scan.axes[:-2]
    if set(leading) - {"T", "C"}:
        raise ValueError(f"{scan.name} has axes '{scan.axes}'; which planes were lit together is not known: "
                         "give the exposures yourself")  # fmt: skip
    shape = tuple(scan.extent(axis) for axis in leading) or (1,)
    if scan.exposure_s is not None:
        lit, basis = np.full(shape, scan.exposure_s), f"every image was lit for its exposure of {scan.exposure_s:g} s"
    elif scan.timing is not None:
        durations = np.asarray(scan.timing.duration_s).reshape([-1 if axis == "T" else 1 for axis in leading] or [1])
        lit = np.broadcast_to(durations / scan.extent("C"), shape)
        basis = "the exposure is not known, so the object is taken to be lit for the whole of every frame"
    else:
        raise ValueError(
            f"{scan.name} says neither its exposure nor the durations of its frames; give exposure_s in scans.csv"
        )
    up_to = np.cumsum(lit.ravel()).reshape(shape)
    return before_s + up_to - lit / 2, basis
