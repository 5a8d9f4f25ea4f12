"""Every parameter from data and choices, and its error by derivatives taken through that same function.

One function makes the numbers, real or complex, so a number and its error cannot come from different rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evbiodist.kinetics.choices import Choice
from evbiodist.kinetics.curve import Numbers, areas, line_through, pick, value_at_zero
from evbiodist.kinetics.parameters import Parameter, for_route
from evbiodist.kinetics.profiles import Floats, Profiles, Settings


def evaluate(t: Floats, c: Numbers, dose: Floats, choice: Choice, s: Settings) -> dict[str, Numbers]:
    """Return every parameter for fixed choices: t is (T, P), c (T, P) or (T, J, P), results are c's without T."""
    none = choice.last < 0
    tlast = pick(t, choice.last)
    v: dict[str, Numbers] = {
        "cmax": np.where(none, np.nan, pick(c, choice.peak)),
        "tmax": np.where(none, np.nan, pick(t, choice.peak)),
        "clast": np.where(none, np.nan, pick(c, choice.last)),
        "tlast": np.where(none, np.nan, tlast),
        "dose": dose,
        "infusion_h": np.full(dose.shape, s.infusion_h),
    }
    v["c0"] = np.where(none, np.nan, value_at_zero(t, c, choice.start, choice.first))
    v |= {
        name: np.where(none, np.nan, area)
        for name, area in areas(t, c, v["c0"], choice.last, choice.logarithmic).items()
    }
    line = line_through(t, c, choice.terminal, tlast)
    v |= {name: np.where(choice.problem == 0, a, np.nan) for name, a in line.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        for parameter in for_route(s.route):
            if parameter.formula is not None:
                v[parameter.name] = parameter.formula(v)
    return v


@dataclass(frozen=True)
class Errors:
    """Standard errors and degrees of freedom by name, (P,), in the units of the input."""

    se: dict[str, Floats]
    df: dict[str, Floats]


_BLOCK = 1_000_000  # complex numbers held at once


def propagate(d: Profiles, choice: Choice, s: Settings) -> Errors:
    """Return standard errors and Satterthwaite degrees of freedom, block by block to bound memory."""
    profiles = d.t.shape[1]
    step = max(1, _BLOCK // len(d.t) ** 2)
    names = [p.name for p in for_route(s.route) if not p.no_se]
    out = Errors({k: np.empty(profiles) for k in names}, {k: np.empty(profiles) for k in names})
    for begin in range(0, profiles, step):
        block = slice(begin, begin + step)
        part = _propagate_block(_cut(d, block), _cut(choice, block), s, names)
        for name in names:
            out.se[name][block], out.df[name][block] = part[name]
    return out


def _cut(record: Any, block: slice) -> Any:
    """The same record for some of its profiles (always the last axis)."""
    return type(record)(*(None if a is None else a[..., block] for a in vars(record).values()))


def _propagate_block(d: Profiles, choice: Choice, s: Settings, names: list[str]) -> dict[str, tuple[Floats, Floats]]:
    if d.se is None:
        return {}
    rows = len(d.t)
    h = 2.0**-100 * np.maximum(np.abs(d.c).max(axis=0), np.finfo(float).tiny * 2.0**110)
    nudged = d.c[:, None, :] + 1j * h * np.eye(rows)[:, :, None]
    gradients = evaluate(d.t, nudged, d.dose, choice, s)
    freedom = np.full(d.t.shape, np.inf) if d.n is None else np.where(d.n > 1, d.n - 1, np.inf)
    out = {}
    for name in names:
        gradient = np.broadcast_to(gradients[name].imag / h, d.t.shape)
        part = np.where(gradient == 0, 0.0, (gradient * d.se) ** 2)
        var, below = np.zeros(part.shape[1]), np.zeros(part.shape[1])
        for j in range(rows):
            var, below = var + part[j], below + part[j] ** 2 / freedom[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(below == 0, np.inf, var**2 / below)
        out[name] = (np.sqrt(var), np.where(np.isnan(var), np.nan, df))
    return out


def quantile(level: float, df: Floats) -> Floats:
    """Return half the width of an interval in standard errors: Student's t, normal where df is infinite."""
    from scipy.special import ndtri, stdtrit

    p = 0.5 + level / 2
    finite = np.isfinite(df)
    return np.where(finite, stdtrit(np.where(finite, df, 1.0), p), ndtri(p))


def interval(parameter: Parameter, value: Floats, se: Floats, df: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the bounds of each value; on the logarithmic scale for a positive parameter."""
    half = quantile(level, df) * se
    if not parameter.positive:
        return value - half, value + half
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.exp(half / value)
        return np.where(value > 0, value / factor, value - half), np.where(value > 0, value * factor, value + half)
