"""Rules of non-compartmental analysis that programs disagree on, each an option with a name.

Which rule was used changes numbers, so none is hidden: `docs/nca.md` shows what each program prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evbiodist.kinetics.designs.mean_curve import MAJORITY_BLQ
from evbiodist.kinetics.nca.parameters import ROUTES, Parameter, for_route, partial_area
from evbiodist.study.problems import nearest

METHODS = ("linear", "lin-up-log-down", "lin-log", "log")

#: What becomes of values below the limit of quantification, by position.
BLQ_RULES: dict[str, dict[str, str]] = {
    "drop": {"before_first": "drop", "between": "drop", "after_last": "drop"},
    "zero": {"before_first": "zero", "between": "zero", "after_last": "zero"},
    "lloq/2": {"before_first": "lloq/2", "between": "lloq/2", "after_last": "lloq/2"},
    "pknca": {"before_first": "zero", "between": "drop", "after_last": "zero"},
}

#: Ways to the value at 0 h of a bolus; they are tried in the order given, the first that is possible holds.
C0_WAYS: dict[str, str] = {
    "observed": "the sample at 0 h, whatever its value",
    "c0": "the sample at 0 h if it is above zero",
    "logslope": "back along the line of ln(value) through the first two samples after 0 h, if it falls",
    "c1": "the first sample after 0 h",
    "first": "the first value above zero",
    "cmin": "the lowest quantifiable value",
    "set0": "zero",
}
#: Orders of ways with a name.
C0_CHAINS: dict[str, tuple[str, ...]] = {
    "winnonlin": ("observed", "logslope", "first"),
    "pknca": ("c0", "logslope", "c1", "cmin", "set0"),
}

MIN_POINTS = 3  # of a terminal line

_CHOICES: dict[str, tuple[str, ...]] = {
    "zeros": ("measured", "below_lloq"),
    "fall_to_zero": ("linear", "nothing"),
    "rising_tail": ("refuse", "ignore"),
    "all_zero": ("missing", "zero"),
    "majority_blq": tuple(MAJORITY_BLQ),
    "lambda_z_from": ("route", "cmax", "after_cmax"),
}


def one_of(field: str, found: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse a name that is not known and suggest the nearest."""
    if found not in known:
        raise ValueError(f"{field} has '{found}', expected one of {', '.join(known)}; {nearest(str(found), known)}")


@dataclass(frozen=True)
class Rules:
    """The rules that programs disagree on; the defaults are those that cannot mislead.

    Parameters
    ----------
    blq : values below the limit: a key of `BLQ_RULES`, or a mapping of ``before_first``, ``between`` and
        ``after_last`` to ``drop``, ``zero`` or ``lloq/2``.
    c0 : value at 0 h of a bolus: a key of `C0_CHAINS`, or names of `C0_WAYS` in the order they are tried.
    zeros : a value of exactly zero is ``measured`` (WinNonlin, NonCompart), or ``below_lloq`` (PKNCA).
    fall_to_zero : the area of a segment that falls to zero under a logarithmic rule is that of the straight
        line (``linear``: PKNCA, WinNonlin), or ``nothing`` (NonCompart).
    rising_tail : when the best line through the last samples rises there is no terminal line (``refuse``:
        PKNCA), or the best falling one is taken (``ignore``: WinNonlin, NonCompart).
    all_zero : parameters of a profile in which nothing was found are ``missing``, or cmax and areas are
        ``zero`` (PKNCA).
    majority_blq : what becomes of means of which more than half the values are below the limit: a key of
        `evbiodist.kinetics.designs.mean_curve.MAJORITY_BLQ` (``zero`` is PKNCA's rule, ``mean`` that of the others).
    lambda_z_from : cmax may be on the terminal line by ``route`` (after a bolus only: WinNonlin, NonCompart),
        always (``cmax``) or never (``after_cmax``: PKNCA).

    Raises
    ------
    ValueError : a name that is not known; the message suggests the nearest.

    Examples
    --------
    >>> CONVENTIONS["pknca"].zeros, Rules().zeros
    ('below_lloq', 'measured')
    >>> Rules(rising_tail="refues")
    Traceback (most recent call last):
    ...
    ValueError: rising_tail has 'refues', expected one of refuse, ignore; did you mean 'refuse'?
    """

    blq: str | Mapping[str, str] = "drop"
    c0: str | Sequence[str] = "winnonlin"
    zeros: str = "measured"
    fall_to_zero: str = "linear"
    rising_tail: str = "refuse"
    all_zero: str = "missing"
    majority_blq: str = "end"
    lambda_z_from: str = "route"

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            one_of(field, getattr(self, field), known)
        self.places()
        self.chain()

    def places(self) -> dict[str, str]:
        """Return the BLQ rule of each position."""
        if isinstance(self.blq, str):
            one_of("blq", self.blq, BLQ_RULES)
            return BLQ_RULES[self.blq]
        rules = {**BLQ_RULES["drop"], **self.blq}
        for place, rule in rules.items():
            one_of("blq", place, BLQ_RULES["drop"])
            one_of(f"blq[{place}]", rule, ("drop", "zero", "lloq/2"))
        return rules

    def chain(self) -> tuple[str, ...]:
        """Return the ways to the value at 0 h in order."""
        if isinstance(self.c0, str):
            one_of("c0", self.c0, C0_CHAINS)
            return C0_CHAINS[self.c0]
        if not self.c0:
            raise ValueError(f"c0 has no way in it, expected some of {', '.join(C0_WAYS)}; or leave it out")
        for way in self.c0:
            one_of("c0", way, C0_WAYS)
        return tuple(self.c0)


#: The rules of each program, as far as they are documented.
CONVENTIONS: dict[str, Rules] = {
    "evbiodist": Rules(),
    "winnonlin": Rules(rising_tail="ignore", majority_blq="mean"),
    "pknca": Rules(
        blq="pknca",
        c0="pknca",
        zeros="below_lloq",
        all_zero="zero",
        majority_blq="zero",
        lambda_z_from="after_cmax",
    ),
    "noncompart": Rules(fall_to_zero="nothing", rising_tail="ignore", all_zero="zero", majority_blq="mean"),
}


def rules_of(
    rules: str | Rules, blq: str | Mapping[str, str] | None, c0: str | Sequence[str] | None, route: str
) -> Rules:
    """Return the rules by name or as given, with those of `blq` and `c0` that the user named apart."""
    if isinstance(rules, str):
        one_of("rules", rules, CONVENTIONS)
        rules = CONVENTIONS[rules]
    if c0 is not None and route != "iv_bolus":
        raise ValueError(
            f"c0 has {c0!r} with route '{route}', expected the route 'iv_bolus'; other routes start from 0"
        )
    named = {k: v for k, v in (("blq", blq), ("c0", c0)) if v is not None}
    return replace(rules, **named) if named else rules  # type: ignore[arg-type]


@dataclass(frozen=True)
class Settings:
    """What the user asked for, checked; `infusion_h` is 0 for routes without one, NaN where it is unknown."""

    method: str
    rules: Rules
    route: str
    unit: str
    dose_unit: str
    last_points: int | None
    partial: tuple[tuple[float, float], ...]
    infusion_h: float
    max_extrap_pct: float
    refuse_extrap: bool
    min_adj_r2: float
    level: float
    parameters: tuple[Parameter, ...]
    partial_areas: tuple[Parameter, ...]

    @classmethod
    def of(
        cls,
        method: str,
        rules: Rules,
        route: str,
        unit: str,
        dose_unit: str,
        points: object,
        partial: Sequence[tuple[float, float]],
        infusion_h: float | None,
        max_extrap_pct: float,
        refuse_extrap: bool,
        min_adj_r2: float,
        level: float,
    ) -> Settings:
        """Check the arguments of `nca` that are no arrays."""
        one_of("method", method, METHODS)
        one_of("route", route, ROUTES)
        if not 0 < level < 1:
            raise ValueError(f"level has {level}, expected a number between 0 and 1; write 0.95 for 95 %")
        if infusion_h is not None and not (route == "iv_infusion" and infusion_h > 0):
            raise ValueError(
                f"infusion_h has {infusion_h} with route '{route}', expected hours above 0 with route "
                "'iv_infusion'; leave it out for other routes"
            )
        last = int(points) if isinstance(points, int | np.integer) else None
        if last is not None and last < MIN_POINTS:
            raise ValueError(f"lambda_z_points has {last}, expected at least {MIN_POINTS}; two points fit any line")
        duration = 0.0 if route != "iv_infusion" else math.nan if infusion_h is None else float(infusion_h)
        intervals = tuple(dict.fromkeys(_interval(p) for p in partial))
        parts = tuple(partial_area(*p) for p in intervals)
        return cls(
            method,
            rules,
            route,
            unit,
            dose_unit,
            last,
            intervals,
            duration,
            max_extrap_pct,
            refuse_extrap,
            min_adj_r2,
            level,
            for_route(route) + parts,
            parts,
        )


def _interval(given: tuple[float, float]) -> tuple[float, float]:
    try:
        start, end = (float(x) for x in given)
    except (TypeError, ValueError):
        raise ValueError(
            f"partial has {given!r}, expected pairs of hours; write for instance [(0, 4), (4, 24)]"
        ) from None
    if not 0 <= start < end < math.inf:
        raise ValueError(
            f"partial has ({start:g}, {end:g}), expected a start of 0 h or later before a finite end; "
            "aucinf_obs is the area to infinity"
        )
    return start, end
