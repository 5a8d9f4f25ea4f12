"""Standard curves as ICH Q2 wants them shown: response of known amounts, and amounts read back with their errors.

Weighted linear regression with lack of fit, linear range, detection and quantification limits, accuracy and precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from evbiodist.study.estimate import student

FloatArray = npt.NDArray[np.float64]
Weighting = Literal["1", "1/x", "1/x2", "1/var"]
Scale = Literal["linear", "log"]
SigmaFrom = Literal["residual", "intercept", "blank"]

#: ICH Q2: limits as multiples of sigma over slope.
_LOD, _LOQ = 3.3, 10.0
#: Chance of calling a line bent that is straight.
_LACK_P = 0.01


@dataclass(frozen=True, eq=False)
class Standards:
    """Measured standards and blanks.

    Parameters
    ----------
    amount, response : (n,) known amounts in `unit` and what was measured.
    unit : of the amounts.
    n : (n,) measurements behind each response, 1 where None.
    se : (n,) standard error of each response, or None.
    blanks : (m,) responses of samples without analyte; they are not part of the line.
    source : where they come from.

    Raises
    ------
    ValueError : shapes that do not match, values that are not finite, amounts or errors below zero.

    Examples
    --------
    >>> Standards([1, 2, 4], [10.0, 21.0, 39.0], "ng").amount.tolist()
    [1.0, 2.0, 4.0]
    """

    amount: FloatArray
    response: FloatArray
    unit: str
    n: FloatArray | None = None
    se: FloatArray | None = None
    blanks: FloatArray = field(default_factory=lambda: np.empty(0))
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("amount", "response", "n", "se", "blanks"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shape = self.amount.shape
        for name, lowest in (("amount", 0.0), ("response", -np.inf), ("n", 1.0), ("se", 0.0)):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != shape or values.ndim != 1:
                raise ValueError(f"{name} of the standards has shape {values.shape}; expected {shape}, one a standard")
            if not (np.isfinite(values) & (values >= lowest)).all():
                raise ValueError(
                    f"{name} of the standards holds a value that is not finite or below {lowest:g}; correct it"
                )
        if not np.isfinite(self.blanks).all():
            raise ValueError("a blank is not a finite number; leave it out")


@dataclass(frozen=True)
class LackOfFit:
    """Test of the line against the spread of replicates: F with its degrees of freedom and p; NaN with a reason."""

    f: float = math.nan
    df_lack: int = 0
    df_pure: int = 0
    p: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Limit:
    """Detection and quantification limit by one way of ICH Q2; NaN with a reason.

    Parameters
    ----------
    method : where sigma is from: `residual`, `intercept` or `blank`.
    sigma : in units of the response; lod, loq : amounts.
    """

    method: SigmaFrom
    sigma: float = math.nan
    lod: float = math.nan
    loq: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Level:
    """One amount of the standards read back through the curve.

    Parameters
    ----------
    amount : nominal; n : number of responses.
    found : mean amount read back; accuracy_pct : its share of the nominal, NaN at amount 0.
    cv_pct : relative SD of the amounts read back (repeatability), NaN without replicates or at 0.
    """

    amount: float
    n: int
    found: float
    accuracy_pct: float
    cv_pct: float


@dataclass(frozen=True)
class Quantified:
    """An amount read from a standard curve; fields are those of an observation.

    Parameters
    ----------
    value, se, se_systematic : amount, its random error from the response, and the error of the curve, which all
        amounts read from it share.
    ci_low, ci_high : Fieller's interval with both errors.
    unit : of the amount; lloq : quantification limit of the curve; below_lloq : whether the value is below it.
    flags : words of `evbiodist.study.flags.FLAGS`.
    reason : why the value or its interval is missing; empty otherwise.
    """

    value: float
    se: float
    se_systematic: float
    ci_low: float
    ci_high: float
    unit: str
    lloq: float
    below_lloq: bool
    flags: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, eq=False)
class StandardCurve:
    """A fitted standard curve: response = intercept + slope x amount, or the same of their natural logarithms.

    Parameters
    ----------
    standards : what was fitted.
    weights, scale : as given to `fit_standards`; on the log scale slope and intercept are those of ln against ln.
    slope, intercept : with covariance (2, 2) in the order intercept, slope; intercept 0 without error where left out.
    residual_sd : standard deviation of a response of weight 1; on the log scale a relative one.
    df : degrees of freedom; r2 : weighted, about the mean with an intercept and about 0 without.
    lack_of_fit : against the spread of replicates.
    linear_range : (low, high) of the longest run of levels whose own line reads each back within the allowed bias, or
        None.
    limits : detection and quantification limits by every way of ICH Q2.
    lod, loq : those of the chosen way, `sigma_from`; on the log scale without blanks the LOQ is the lowest standard.
    levels : accuracy and precision of every amount.
    pure_sd : repeatability standard deviation of a response of weight 1, NaN without replicates.
    flags, notes : for the report.
    """

    standards: Standards
    weights: Weighting
    scale: Scale
    slope: float
    intercept: float
    covariance: FloatArray
    residual_sd: float
    df: int
    r2: float
    lack_of_fit: LackOfFit
    linear_range: tuple[float, float] | None
    limits: tuple[Limit, ...]
    sigma_from: SigmaFrom
    lod: float
    loq: float
    levels: tuple[Level, ...]
    pure_sd: float
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slope_se(self) -> float:
        """Standard error of the slope."""
        return float(np.sqrt(self.covariance[1, 1]))

    @property
    def intercept_se(self) -> float:
        """Standard error of the intercept; 0 where it was left out."""
        return float(np.sqrt(self.covariance[0, 0]))

    def response(self, amount: ArrayLike) -> FloatArray:
        """Return the expected response of amounts, in their shape."""
        x = np.asarray(amount, dtype=np.float64)
        if self.scale == "log":
            return np.asarray(np.exp(self.intercept) * x**self.slope)
        return np.asarray(self.intercept + self.slope * x)

    def inverse(self, response: float, se: float | None = None, level: float = 0.95) -> Quantified:
        """Read the amount that belongs to a response.

        Parameters
        ----------
        response : measured; se : its standard error, or None for that of one response of the standards.
        level : of the interval.

        Returns
        -------
        Quantified : below the quantification limit the value stays as measured and is flagged `below_lloq`; above the
            highest standard it is flagged `above_range`.

        Raises
        ------
        ValueError : a response that is not finite, a negative error, or a level that is not between 0 and 1.

        Examples
        --------
        >>> curve = fit_standards(Standards([0, 10, 20, 30, 40, 50], [4, 21.2, 44.6, 61.8, 78, 105.2], "ng"))
        >>> found = curve.inverse(90.0)
        >>> round(found.value, 3), round(found.se, 3), round(found.se_systematic, 3)
        (43.94, 1.509, 0.92)

        Massart 1997, Handbook of Chemometrics and Qualimetrics A, eq. 8.28; Fieller 1954 (J R Stat Soc B 16:175).
        """
        if not math.isfinite(response) or not (se is None or (math.isfinite(se) and se >= 0)):
            raise ValueError(f"a response of {response} +- {se} cannot be read from the curve; give finite numbers")
        if not 0 < level < 1:
            raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
        logarithmic = self.scale == "log"
        if logarithmic and response <= 0:
            return Quantified(math.nan, math.nan, math.nan, math.nan, math.nan, self.standards.unit, self.loq, True,
                              ("below_lloq",), f"a response of {response:g} has no logarithm")  # fmt: skip
        y = math.log(response) if logarithmic else float(response)
        x = (y - self.intercept) / self.slope
        if se is None:
            spread = self._response_sd(x)
        else:
            spread = se / response if logarithmic else se
        v0, v1, c = self.covariance[0, 0], self.covariance[1, 1], self.covariance[0, 1]
        shared = v0 + x**2 * v1 + 2 * x * c
        estimated = shared if se is not None else shared + spread**2  # what rests on the curve's own scatter
        total = shared + spread**2
        df = self.df * (total / estimated) ** 2 if estimated > 0 else math.inf
        low, high, reason = _fieller(y - self.intercept, self.slope, spread**2 + v0, v1, -c, student(level, df))
        # the amount, and what a step on the curve's own scale is worth in amounts
        value, step = (float(_exp(x)), float(_exp(x))) if logarithmic else (x, 1.0)
        if logarithmic and not reason:
            low, high = (float(_exp(bound)) for bound in (low, high))
        flags = self._flags(value) | ({"systematic"} if shared > 0 else set())
        return Quantified(
            value,
            spread / self.slope * step,
            math.sqrt(shared) / self.slope * step,
            low,
            high,
            self.standards.unit,
            self.loq,
            "below_lloq" in flags,
            tuple(sorted(flags)),
            reason,
        )

    def _response_sd(self, x: float) -> float:
        """Return the standard deviation of one response at a place on the curve's own scale."""
        if self.scale == "log" or self.weights == "1":
            return self.residual_sd
        lowest, highest = self.standards.amount.min(), self.standards.amount.max()
        if self.weights == "1/var":
            amounts, variances = _variances(self.standards)
            return self.residual_sd * math.sqrt(float(np.interp(x, amounts, variances)))
        # below the lowest standard the noise does not shrink to nothing as the weights would have it
        return self.residual_sd * float(np.clip(x, lowest, highest)) ** (0.5 if self.weights == "1/x" else 1.0)

    def _flags(self, value: float) -> set[str]:
        told = {
            "below_lloq": value < self.loq,
            "above_range": value > self.standards.amount.max(),
            "negative": value < 0,
            "not_linear": "not_linear" in self.flags,
        }
        return {word for word, holds in told.items() if holds}


def _fieller(top: float, bottom: float, v_top: float, v_bottom: float, c: float, q: float) -> tuple[float, float, str]:
    """Solve (top - r bottom)^2 = q^2 Var(top - r bottom) for the bounds of the ratio r."""
    lead = bottom**2 - q**2 * v_bottom
    if lead <= 0:
        return math.nan, math.nan, "the interval is open: the slope is not distinguishable from zero at this level"
    middle = top * bottom - q**2 * c
    root = math.sqrt(max(middle**2 - lead * (top**2 - q**2 * v_top), 0.0))
    return (middle - root) / lead, (middle + root) / lead, ""


def _variances(standards: Standards) -> tuple[FloatArray, FloatArray]:
    """Return amounts and the variance of one response at each, from stated errors or from replicates."""
    amounts, at = np.unique(standards.amount, return_inverse=True)
    if standards.se is not None:
        n = np.ones(standards.amount.size) if standards.n is None else standards.n
        return amounts, np.bincount(at, standards.se**2 * n) / np.bincount(at)
    groups = [standards.response[at == i] for i in range(amounts.size)]
    if min(g.size for g in groups) < 2:
        raise ValueError("weights 1/var need a standard error (se) for every standard, or replicates of every amount; "
                         "give them, or take the weights 1/x or 1/x2")  # fmt: skip
    return amounts, np.array([g.var(ddof=1) for g in groups])


def response_weights(standards: Standards, weights: Weighting) -> FloatArray:
    """Return the weight of each standard's response, or say why there is none."""
    x = standards.amount
    n = np.ones(x.size) if standards.n is None else standards.n
    if weights == "1":
        return n
    if weights == "1/var":
        amounts, variances = _variances(standards)
        if not (variances > 0).all():
            raise ValueError("an amount has a variance of 0, so its weight 1/var would be infinite; give its standard error, "
                             "or take the weights 1/x or 1/x2")  # fmt: skip
        own = standards.se**2 * n if standards.se is not None else variances[np.searchsorted(amounts, x)]
        if not (own > 0).all():
            raise ValueError("a standard error is 0, so its weight 1/var would be infinite; correct it")
        return n / own
    if not (x > 0).all():
        raise ValueError(
            f"a standard of amount 0 has no weight {weights}; enter it with kind = blank, or take the weights 1"
        )
    return n / (x if weights == "1/x" else x**2)


@dataclass(frozen=True, eq=False)
class _Line:
    """A weighted straight line: coefficients (intercept, slope), their covariance, residual sum and df."""

    beta: FloatArray
    covariance: FloatArray
    rss: float
    df: int
    r2: float


def _line(x: FloatArray, y: FloatArray, w: FloatArray, intercept: bool) -> _Line:
    centre = float((w * x).sum() / w.sum()) if intercept else 0.0  # centred, so that nothing cancels
    mean = float((w * y).sum() / w.sum()) if intercept else 0.0
    dx, dy = x - centre, y - mean
    sxx = float((w * dx**2).sum())
    slope = float((w * dx * dy).sum() / sxx)
    rss = float((w * (dy - slope * dx) ** 2).sum())
    df = x.size - (2 if intercept else 1)
    s2 = rss / df if df else math.nan
    covariance = s2 * np.array([[(1 / w.sum() if intercept else 0.0) + centre**2 / sxx, -centre / sxx],
                                [-centre / sxx, 1 / sxx]])  # fmt: skip
    whole = float((w * dy**2).sum())
    return _Line(np.array([mean - slope * centre, slope]), covariance, rss, df, 1 - rss / whole if whole else math.nan)


def fit_standards(
    standards: Standards,
    *,
    weights: Weighting = "1",
    intercept: bool = True,
    scale: Scale = "linear",
    sigma_from: SigmaFrom = "residual",
    max_bias_pct: float = 15.0,
    level: float = 0.95,
) -> StandardCurve:
    """Fit a standard curve by weighted linear regression.

    Parameters
    ----------
    standards : three or more different amounts.
    weights : of a response: equal, one over amount or amount squared, or one over its variance.
    intercept : whether the line may miss the origin.
    scale : `log` fits ln(response) against ln(amount), for ranges over several decades.
    sigma_from : what LOD = 3.3 sigma/slope and LOQ = 10 sigma/slope take as sigma; every way is in `limits`.
    max_bias_pct : bias of a level that the linear range may hold.
    level : the slope's interval must lie above 0 at this level.

    Returns
    -------
    StandardCurve : flagged `not_linear` where the lack of fit has p < 0.01.

    Raises
    ------
    ValueError : fewer than three amounts, weights that cannot be had, amounts or responses without a logarithm, or a
        slope that is not above zero.

    Examples
    --------
    >>> curve = fit_standards(Standards([0, 10, 20, 30, 40, 50], [4, 21.2, 44.6, 61.8, 78, 105.2], "ng"))
    >>> round(curve.slope, 4), round(curve.intercept, 4), round(curve.residual_sd, 4), round(curve.loq, 2)
    (1.9817, 2.9238, 2.9912, 15.09)

    ICH Q2(R2) 2023, validation of analytical procedures; lack of fit: Draper and Smith 1998, ch. 2.
    """
    if np.unique(standards.amount).size < 3:
        raise ValueError(
            f"{np.unique(standards.amount).size} different amounts make no standard curve; give three or more"
        )
    if scale == "log" and weights != "1":
        raise ValueError("weights on the log scale are 1, which is a constant relative error; leave them out")
    if scale == "log" and not intercept:
        raise ValueError("on the log scale the intercept is the sensitivity and cannot be left out")
    if not 0 < level < 1:
        raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    x, y = _on_scale(standards, scale)
    w = response_weights(standards, weights)
    line = _line(x, y, w, intercept)
    slope, slope_se = float(line.beta[1]), float(np.sqrt(line.covariance[1, 1]))
    if not slope - student(level, line.df) * slope_se > 0:
        raise ValueError(f"the response does not rise with the amount: slope {slope:.3g} +- {slope_se:.2g}; "
                         "look at the standards' order and units")  # fmt: skip
    lack, pure_sd = _lack_of_fit(x, y, w, line)
    residual_sd = math.sqrt(line.rss / line.df)
    limits = _limits(standards, line, residual_sd, weights, scale)
    chosen = next(limit for limit in limits if limit.method == sigma_from)
    notes = [f"sigma of the limits is that of the {sigma_from}"] if not chosen.reason else []
    loq = chosen.loq
    if chosen.reason:
        loq = float(standards.amount[standards.amount > 0].min())
        notes.append(f"no limit from the {sigma_from}: {chosen.reason}; the lowest standard, {loq:g}, serves as LOQ")
    elif loq < standards.amount[standards.amount > 0].min():
        notes.append(f"the LOQ of {loq:.3g} lies below the lowest standard, so it is not confirmed by one")
    if weights == "1/var" and standards.se is None and min(row.n for row in _levels(standards, line, scale)) < 5:
        notes.append("weights from fewer than five replicates are uncertain, so intervals are somewhat too narrow")
    reach = _linear_range(standards, x, y, w, intercept, scale, max_bias_pct)
    told = {"not_linear": lack.p < _LACK_P, "few": sigma_from == "blank" and standards.blanks.size < 3}
    return StandardCurve(standards, weights, scale, slope, float(line.beta[0]), line.covariance, residual_sd, line.df,
                         line.r2, lack, reach, limits, sigma_from, chosen.lod, loq, _levels(standards, line, scale),
                         pure_sd, tuple(sorted(word for word, holds in told.items() if holds)), tuple(notes))  # fmt: skip


def _on_scale(standards: Standards, scale: Scale) -> tuple[FloatArray, FloatArray]:
    x, y = standards.amount, standards.response
    if scale == "linear":
        return x, y
    if not ((x > 0).all() and (y > 0).all()):
        raise ValueError(
            "an amount or response of 0 or less has no logarithm; enter it with kind = blank, or fit scale linear"
        )
    return np.log(x), np.log(y)


def _exp(x: ArrayLike) -> FloatArray:
    """Return exp(x), infinite where it is beyond all numbers."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(x))


def _back(line: _Line, scale: Scale) -> Callable[[FloatArray], FloatArray]:
    """Return the function from responses on the curve's own scale to amounts."""
    if scale == "log":
        return lambda y: _exp((y - line.beta[0]) / line.beta[1])
    return lambda y: np.asarray((y - line.beta[0]) / line.beta[1])


def _lack_of_fit(x: FloatArray, y: FloatArray, w: FloatArray, line: _Line) -> tuple[LackOfFit, float]:
    from scipy.special import fdtrc

    at = np.unique(x, return_inverse=True)[1]
    mean = np.bincount(at, w * y) / np.bincount(at, w)
    pure = float((w * (y - mean[at]) ** 2).sum())
    df_pure = int(x.size - mean.size)
    df_lack = line.df - df_pure
    if df_pure == 0:
        return LackOfFit(reason="no amount was measured twice, so the line cannot be tested"), math.nan
    pure_sd = math.sqrt(pure / df_pure)
    if pure <= 1e-20 * float((w * y**2).sum()):
        return LackOfFit(reason="the replicates are equal, so the line cannot be tested against their spread"), pure_sd
    f = max(line.rss - pure, 0.0) / df_lack / (pure / df_pure)
    return LackOfFit(f, df_lack, df_pure, float(fdtrc(df_lack, df_pure, f))), pure_sd


def _limits(
    standards: Standards, line: _Line, residual_sd: float, weights: Weighting, scale: Scale
) -> tuple[Limit, ...]:
    blanks = standards.blanks
    spread = float(blanks.std(ddof=1)) if blanks.size > 1 else math.nan
    no_blanks = "fewer than two blanks were measured"
    if scale == "log":
        why = "on the log scale it is a relative error, which says nothing on blanks"
        if math.isnan(spread):
            return (Limit("residual", reason=why), Limit("intercept", reason=why), Limit("blank", reason=no_blanks))
        heights = float(blanks.mean()) + np.array([_LOD, _LOQ]) * spread
        if not (heights > 0).all():
            return (Limit("residual", reason=why), Limit("intercept", reason=why),
                    Limit("blank", spread, reason="the blanks are not above zero"))  # fmt: skip
        lod, loq = _back(line, scale)(np.log(heights))
        return (Limit("residual", reason=why), Limit("intercept", reason=why),
                Limit("blank", spread, float(lod), float(loq)))  # fmt: skip
    # a weighted residual SD is that of weight 1; what counts is the scatter at the lowest standard
    w = response_weights(standards, weights) / (1.0 if standards.n is None else standards.n)
    low = residual_sd / math.sqrt(float(w[np.argmin(standards.amount)]))
    height = math.sqrt(line.covariance[0, 0])
    sigmas: tuple[tuple[SigmaFrom, float, str], ...] = (
        ("residual", low, ""),
        ("intercept", height or math.nan, "" if height else "the line has no intercept"),
        ("blank", spread, no_blanks if math.isnan(spread) else ""),
    )
    slope = float(line.beta[1])
    return tuple(Limit(m, s, _LOD * s / slope, _LOQ * s / slope, why) for m, s, why in sigmas)


def _levels(standards: Standards, line: _Line, scale: Scale) -> tuple[Level, ...]:
    found = _back(line, scale)(_on_scale(standards, scale)[1])
    levels = []
    for amount in np.unique(standards.amount):
        own = found[standards.amount == amount]
        mean = float(own.mean())
        accuracy = 100 * mean / float(amount) if amount else math.nan
        cv = 100 * float(own.std(ddof=1)) / abs(mean) if own.size > 1 and amount and mean else math.nan
        levels.append(Level(float(amount), int(own.size), mean, accuracy, cv))
    return tuple(levels)


def _linear_range(
    standards: Standards,
    x: FloatArray,
    y: FloatArray,
    w: FloatArray,
    intercept: bool,
    scale: Scale,
    max_bias_pct: float,
) -> tuple[float, float] | None:
    """Return the longest run of three or more amounts whose own line reads each of them back within the bias."""
    amounts = np.unique(standards.amount)
    for size in range(amounts.size, 2, -1):
        fits = []
        for first in range(amounts.size - size + 1):
            low, high = float(amounts[first]), float(amounts[first + size - 1])
            inside = (standards.amount >= low) & (standards.amount <= high)
            line = _line(x[inside], y[inside], w[inside], intercept)
            if (
                line.beta[1] > 0
                and _worst_bias(standards.amount[inside], _back(line, scale)(y[inside])) <= max_bias_pct
            ):
                fits.append((high - low, (low, high)))
        if fits:
            return max(fits)[1]
    return None


def _worst_bias(amount: FloatArray, found: FloatArray) -> float:
    """Return the largest bias of an amount in %, of the mean read back; amount 0 has none."""
    return max(100 * abs(float(found[amount == a].mean()) / float(a) - 1) for a in np.unique(amount[amount > 0]))
