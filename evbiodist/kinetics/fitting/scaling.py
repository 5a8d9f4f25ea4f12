"""Kinetic parameters of one species carried to another by body weight: always an extrapolation, with an interval.

Fixed exponents carry the spread with which exponents of real substances scatter about them; that spread is most of the
interval between a mouse and a human, and leaving it out would be the larger error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.study.constants import physiology
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]


class Exponent(NamedTuple):
    """How a kind of parameter goes with body weight: exponent, its standard deviation between substances, source."""

    value: float
    sd: float
    source: str


_CL = "Hu & Hayton 2001, AAPS PharmSci 3:E29: 0.74 +/- 0.16 (SD) for clearance of 91 substances"
_V = "Mordenti 1991, Pharm Res 8:1351: 0.83 to 1.05 for volumes of five proteins, taken as +/- 0.1"
#: Exponents by the dimension of a parameter, as models declare it.
EXPONENTS = {
    "dose/value/time": Exponent(0.75, 0.16, _CL),
    "dose/value": Exponent(1.0, 0.10, _V),
    "1/time": Exponent(-0.25, 0.19, f"clearance over volume: {_CL}; {_V}"),
    "time": Exponent(0.25, 0.19, f"volume over clearance: {_CL}; {_V}"),
}
#: What users call them.
KINDS = {"clearance": "dose/value/time", "volume": "dose/value", "rate": "1/time", "time": "time"}


def body_weight_g(species: str) -> tuple[float, str]:
    """Return the usual body weight of a species in g, and its source.

    Raises
    ------
    ValueError : a species without one.

    Examples
    --------
    >>> body_weight_g("mouse")
    (20.0, 'httk')
    """
    found = physiology(species, "body", "average_weight")
    if found is None:
        names = [s for s in ("mouse", "rat", "monkey", "human") if physiology(s, "body", "average_weight")]
        raise ValueError(f"no body weight of '{species}' is known; give weight_g. {nearest(species, names)}")
    return 1000 * found.value, found.source


@dataclass(frozen=True)
class Body:
    """A species at a body weight in g; the usual weight if None.

    Raises
    ------
    ValueError : a weight that is not above zero, or a species without a usual one.

    Examples
    --------
    >>> Body("human").grams
    70000.0
    """

    species: str
    weight_g: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.grams) and self.grams > 0):
            raise ValueError(f"weight_g of {self.species} has {self.weight_g}, expected grams above 0")

    @property
    def grams(self) -> float:
        """Its weight in g."""
        return body_weight_g(self.species)[0] if self.weight_g is None else float(self.weight_g)

    def __str__(self) -> str:
        source = "" if self.weight_g is not None else f", usual weight ({body_weight_g(self.species)[1]})"
        weight = f"{self.grams / 1000:g} kg" if self.grams >= 1000 else f"{self.grams:g} g"
        return f"{self.species} of {weight}{source}"


def scale(
    estimate: Estimate, kind: str, source: Body, target: Body, *, exponent: float | None = None,
    exponent_sd: float | None = None, level: float = 0.95,
) -> Estimate:  # fmt: skip
    """Carry one parameter to another species with an exponent of body weight that is known beforehand.

    Parameters
    ----------
    estimate : positive, with its standard error, in the unit of a whole body (mL/h, not mL/h/kg).
    kind : a key of `KINDS`, or the dimension by which a model declares the parameter.
    source, target : the bodies.
    exponent, exponent_sd : instead of those of `EXPONENTS`; an exponent alone keeps the standard deviation of its kind.
    level : of the interval.

    Returns
    -------
    Estimate : in the same unit, flagged ``extrapolated``, with the interval of the estimate and of the exponent.

    Raises
    ------
    ValueError : a kind that is not known, or a value that is not above zero.

    Examples
    --------
    >>> cl = Estimate("cl", 1.0, se=0.1, unit="mL/h")
    >>> human = scale(cl, "clearance", Body("mouse", 20), Body("human", 70000))
    >>> round(human.value, 1), human.unit, human.flags
    (455.0, 'mL/h', ('extrapolated', 'imprecise'))
    """
    rule = _rule(kind)
    b = rule.value if exponent is None else float(exponent)
    sd = rule.sd if exponent_sd is None else float(exponent_sd)
    if not sd >= 0 or not math.isfinite(b):
        raise ValueError(
            f"exponent has {exponent} and exponent_sd {exponent_sd}; expected finite numbers, the latter 0 or more"
        )
    if not estimate.value > 0:
        raise ValueError(f"{estimate.name} is {estimate.value:g}, and only positive values have a power law of body weight"
                         + (f" ({estimate.reason})" if estimate.reason else ""))  # fmt: skip
    ratio = math.log(target.grams / source.grams)
    value = estimate.value * math.exp(b * ratio)
    origin = rule.source if exponent is None else "exponent given"
    told = f"scaled from {source} to {target} by weight^{b:g} ({origin}); no {target.species} was measured"
    if not estimate.se >= 0:
        return Estimate(estimate.name, value, unit=estimate.unit, method="allometric, fixed exponent", n=estimate.n,
                        flags=_flags(estimate, 0.0), reason=f"{told}; the source has no standard error")  # fmt: skip
    own = estimate.se / estimate.value
    relative = math.hypot(own, sd * ratio)
    reach = student(level, math.inf) * relative
    return Estimate(estimate.name, value, value * relative, value * math.exp(-reach), value * math.exp(reach), estimate.unit,
                    "allometric, fixed exponent", estimate.n, _flags(estimate, relative), told)  # fmt: skip


def _rule(kind: str) -> Exponent:
    dimension = KINDS.get(kind, kind)
    if dimension not in EXPONENTS:
        raise ValueError(f"kind has '{kind}', expected one of {', '.join(KINDS)} or {', '.join(EXPONENTS)}; "
                         f"{nearest(kind, list(KINDS))}")  # fmt: skip
    return EXPONENTS[dimension]


def _flags(estimate: Estimate, relative: float) -> tuple[str, ...]:
    more = {"imprecise"} if relative >= 0.5 else set()
    return tuple(sorted({*estimate.flags, "extrapolated"} | more))


@dataclass(frozen=True)
class PowerLaw:
    """A parameter over body weight, value = coefficient * weight_g^exponent, fitted to species.

    Parameters
    ----------
    exponent : with interval; coefficient : at 1 g.
    prediction : of the target species, with the interval for one new species.
    between_sd : spread of species about the line, on the logarithm; df : degrees of freedom.
    notes : what weakens it.
    """

    exponent: Estimate
    coefficient: float
    prediction: Estimate
    between_sd: float
    df: int
    notes: tuple[str, ...]


def fit_species(measured: Mapping[Body, Estimate], target: Body, *, level: float = 0.95) -> PowerLaw:
    """Fit the exponent to two or more species and predict another one.

    Parameters
    ----------
    measured : the parameter in each species, all in one unit of a whole body.
    target : whom to predict; level : of the intervals.

    Returns
    -------
    PowerLaw : with three species or more by least squares on logarithms, weighed alike, since species differ by more than
        they err; their scatter about the line gives the intervals, which are never narrower than the species' own standard
        errors allow. Two species leave no scatter, so only those remain, which the notes say.

    Raises
    ------
    ValueError : fewer than two weights, different units or names, values that are not above zero.

    Examples
    --------
    >>> bodies = Body("mouse", 20), Body("rat", 250), Body("monkey", 5000)
    >>> three = {b: Estimate("cl", v, se=0.1 * v, unit="mL/h") for b, v in zip(bodies, (1.0, 7.0, 60.0))}
    >>> law = fit_species(three, Body("human", 70000))
    >>> round(law.exponent.value, 2), law.df, law.prediction.flags
    (0.74, 1, ('extrapolated', 'few'))

    Boxenbaum H (1982) J Pharmacokinet Biopharm 10:201; Draper & Smith 1998, Applied Regression Analysis, ch. 1.4.
    """
    x, y, error = _points(measured)
    first = next(iter(measured.values()))
    centre, df = x.mean(), len(x) - 2
    sxx = float(np.sum((x - centre) ** 2))
    slope = float(np.sum((x - centre) * y) / sxx)
    at = math.log(target.grams)
    value = float(y.mean() + slope * (at - centre))
    weight_slope, weight_at = (x - centre) / sxx, 1 / len(x) + (at - centre) * (x - centre) / sxx
    known = bool(np.isfinite(error).all())
    own = [float(np.sqrt(np.sum((w * error) ** 2))) if known else math.nan for w in (weight_slope, weight_at)]
    between = float(np.sqrt(np.sum((y - y.mean() - slope * (x - centre)) ** 2) / df)) if df else 0.0
    lengths = [between / math.sqrt(sxx), between * math.sqrt(1 + 1 / len(x) + (at - centre) ** 2 / sxx)]
    t, z = student(level, df) if df else math.nan, student(level, math.inf)
    ses, reaches = [], []
    for of_scatter, of_errors in zip(lengths, own, strict=True):
        both = [
            (r, s)
            for r, s in ((t * of_scatter, of_scatter), (z * of_errors, of_errors))
            if math.isfinite(r) and (df or s is of_errors)
        ]
        reach, se = max(both, default=(math.nan, math.nan))
        reaches.append(reach)
        ses.append(se)
    notes = _species_notes(measured, target, df, known)
    reason = "" if math.isfinite(ses[0]) else "two species without standard errors leave nothing to tell the error from"
    told = f"extrapolated from {', '.join(str(b) for b in measured)} to {target}; no {target.species} was measured"
    flags = {"extrapolated"} | ({"few"} if df < 2 else set()) | ({"imprecise"} if ses[1] >= 0.5 else set())
    natural = math.exp(value)
    exponent = Estimate(f"exponent_{first.name}", slope, ses[0], slope - reaches[0], slope + reaches[0], "1",
                        "allometric, log-log regression", len(x), ("few",) if df < 2 else (), reason)  # fmt: skip
    prediction = Estimate(first.name, natural, natural * ses[1], natural * math.exp(-reaches[1]),
                          natural * math.exp(min(reaches[1], 700.0)), first.unit, "allometric, fitted exponent", len(x),
                          tuple(sorted(flags)), f"{told}; {reason}" if reason else told)  # fmt: skip
    return PowerLaw(exponent, math.exp(float(y.mean()) - slope * centre), prediction, between, df, notes)


def _points(measured: Mapping[Body, Estimate]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return logarithms of weights and values, and relative standard errors."""
    if len({b.grams for b in measured}) < 2:
        raise ValueError(f"{len(measured)} species at {len({b.grams for b in measured})} body weight(s) were given; an exponent needs "
                         "two or more; with one use scale, which has exponents known beforehand")  # fmt: skip
    for word in ("unit", "name"):
        found = sorted({getattr(e, word) for e in measured.values()})
        if len(found) > 1:
            raise ValueError(
                f"the species come with different {word}s ({', '.join(found)}); give one parameter in one unit"
            )
    for body, e in measured.items():
        if not e.value > 0:
            raise ValueError(
                f"{e.name} of {body.species} is {e.value:g}; only positive values have a power law of body weight"
            )
    x = np.log([b.grams for b in measured])
    return x, np.log([e.value for e in measured.values()]), np.array([e.se / e.value for e in measured.values()])


def _species_notes(measured: Mapping[Body, Estimate], target: Body, df: int, known: bool) -> tuple[str, ...]:
    notes = []
    if df == 0:
        notes.append("two species lie on any line, so the interval holds their own errors and not how species differ from it"
                     if known else "two species lie on any line")  # fmt: skip
    elif df == 1:
        notes.append("three species leave one degree of freedom, so the interval is very wide")
    weights = [b.grams for b in measured]
    beyond = max(target.grams / max(weights), min(weights) / target.grams)
    if beyond > 1:
        notes.append(f"{target.species} is {beyond:.3g} times beyond the weights that were measured")
    return tuple(notes)
