"""Every parameter from data and choices, and its error from exact derivatives.

Quantities read off a profile have their derivatives written out (`slopes`); what formulas make of them is
differentiated by the complex step through the formula itself, so a number and its error share one formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from evbiodist.kinetics.nca.choices import Choice, choose
from evbiodist.kinetics.nca.curve import Numbers, Pieces, after, areas, line_through, partial_area, pick, tail_area
from evbiodist.kinetics.nca.parameters import Formula, Parameter
from evbiodist.kinetics.nca.profiles import Floats, Profiles
from evbiodist.kinetics.nca.rules import Settings
from evbiodist.kinetics.nca.slopes import AreaSlopes, of_line, of_origin, of_sample, tail_slopes

#: Quantities read off a profile that have an error; partial areas come on top.
READ = ("cmax", "cmin", "clast", "c0", "auclast", "aumclast", "aucall", "auc_back", "lambda_z", "clast_pred")


def tail_of(name: str) -> str:
    """Return under which name the part of a partial area after the last value is kept."""
    return f"{name} after tlast"


def read_off(d: Profiles, c: Numbers, choice: Choice, s: Settings) -> dict[str, Numbers]:
    """Return what is read off the profiles for fixed choices, (P,) each; c are the values, (T, P)."""
    none, tlast = choice.last < 0, pick(d.t, choice.last)
    c0 = choice.origin.value(d.t, c)
    pieces = Pieces.of(d.t, c, c0, choice.logarithmic, choice.counted)
    v: dict[str, Numbers] = {
        "cmax": pick(c, choice.peak),
        "tmax": pick(d.t, choice.peak),
        "cmin": pick(c, choice.trough),
        "tmin": pick(d.t, choice.trough),
        "tlag": d.tlag,
        "clast": pick(c, choice.last),
        "tlast": tlast,
        "c0": c0,
        **areas(pieces, choice.tail, choice.at_zero),
    }
    line = line_through(d.t, c, choice.terminal, tlast)
    v |= {name: np.where(choice.problem == 0, a, np.nan) for name, a in line.items()}
    for (start, end), p in zip(s.partial, s.partial_areas, strict=True):
        tail = tail_area(v["clast"], v["lambda_z"], tlast, start, end)
        v[p.name], v[tail_of(p.name)] = partial_area(pieces, start, end) + tail, tail
    if none.any():
        v = {name: np.where(none, np.nan, a) for name, a in v.items()}
    if s.rules.all_zero == "zero":
        for name in ("cmax", "auclast", "aumclast", "aucall", *(p.name for p in s.partial_areas)):
            v[name] = np.where(d.blank, 0.0, v[name])
    v["dose"], v["infusion_h"] = d.dose, np.full(d.dose.shape, s.infusion_h)
    return v


def apply_formulas(v: dict[str, Numbers], parameters: Iterable[Parameter]) -> dict[str, Numbers]:
    """Return values with those that formulas make of them, in the order of the registry."""
    v = dict(v)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for parameter in parameters:
            if parameter.formula is not None:
                v[parameter.name] = parameter.formula(v)
    return v


def read_slopes(d: Profiles, choice: Choice, s: Settings, v: dict[str, Floats]) -> dict[str, Floats]:
    """Return the derivative of everything that `read_off` gives with an error, (T, P) each."""
    size, tlast = len(d.t), v["tlast"]
    origin = of_origin(choice.origin, d.t, d.c)
    pieces = Pieces.of(d.t, d.c, v["c0"], choice.logarithmic, choice.counted)
    at_samples = AreaSlopes(choice.at_zero, origin)
    slopes = {
        "cmax": of_sample(size, choice.peak),
        "cmin": of_sample(size, choice.trough),
        "clast": of_sample(size, choice.last),
        "c0": origin,
        **at_samples.areas(pieces, choice.tail),
        **of_line(d.t, d.c, choice.terminal, tlast, v["clast_pred"]),
    }
    for (start, end), p in zip(s.partial, s.partial_areas, strict=True):
        slopes[p.name] = at_samples.partial(pieces, start, end)
        reaches = after(tlast, start, end) > 0
        if reaches.any():
            by_clast, by_rate = tail_slopes(v["clast"], v["lambda_z"], tlast, start, end)
            tail = by_clast * slopes["clast"] + by_rate * slopes["lambda_z"]
            slopes[p.name] = np.where(reaches, slopes[p.name] + tail, slopes[p.name])
    return slopes


class _Asked(dict[str, Any]):
    """Values that remember which of them a formula asked for."""

    def __missing__(self, name: str) -> Any:
        self[name] = np.ones(1)
        return self[name]


@cache
def _inputs(formula: Formula) -> frozenset[str]:
    """Return the names a formula uses."""
    asked = _Asked()
    with np.errstate(all="ignore"):
        formula(asked)
    return frozenset(asked)


def formula_slopes(v: dict[str, Floats], parameters: Iterable[Parameter]) -> dict[str, dict[str, Floats]]:
    """Return the derivatives of every formula with respect to what was read off, by name and name, (P,) each.

    The complex step (Squire W, Trapp G (1998) SIAM Rev 40:110) through each formula that depends on a quantity.
    """
    out: dict[str, dict[str, Floats]] = {}
    derived = [(p.name, p.formula, _inputs(p.formula)) for p in parameters if p.formula is not None and not p.no_se]
    for read in READ:
        h = 2.0**-100 * np.maximum(np.abs(np.nan_to_num(v[read])), np.finfo(float).tiny * 2.0**110)
        nudged: dict[str, Numbers] = {read: v[read] + 1j * h}
        known: dict[str, Numbers] = dict(v)
        known[read] = nudged[read]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for name, formula, inputs in derived:
                if not nudged.keys().isdisjoint(inputs):
                    known[name] = nudged[name] = formula(known)
                    out.setdefault(name, {})[read] = nudged[name].imag / h
    return out


@dataclass(frozen=True)
class Errors:
    """Standard errors and degrees of freedom by name, (P,), in the units of the input."""

    se: dict[str, Floats]
    df: dict[str, Floats]


_BLOCK = 32_768  # numbers in an array at once, so that it stays in the processor's cache


def analyse(d: Profiles, s: Settings) -> tuple[Choice, dict[str, Floats], Errors | None]:
    """Return the choices, every parameter and the errors (None without standard errors), block by block."""
    step = max(1, _BLOCK // len(d.t))
    begins = range(0, max(d.t.shape[1], 1), step)
    parts = [_analyse_block(cut(d, slice(begin, begin + step)), s) for begin in begins]
    choices, values, errors = zip(*parts, strict=True)
    joined = None if d.se is None else Errors(_join([e.se for e in errors]), _join([e.df for e in errors]))
    return _join(choices), _join(values), joined


def _analyse_block(d: Profiles, s: Settings) -> tuple[Choice, dict[str, Floats], Errors | None]:
    with np.errstate(invalid="ignore", over="ignore", under="ignore", divide="ignore"):
        choice = choose(d, s)
        values = apply_formulas(read_off(d, d.c, choice, s), s.parameters)
        return choice, values, None if d.se is None else propagate(d, d.se, choice, s, values)


def cut(record: Any, block: slice) -> Any:
    """Return the same record for some of its profiles (always the last axis)."""
    if record is None or isinstance(record, np.ndarray):
        return None if record is None else record[..., block]
    return type(record)(*(cut(a, block) for a in vars(record).values()))


def _join(records: Sequence[Any]) -> Any:
    """Put records of blocks together again."""
    first = records[0]
    if len(records) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(records, axis=-1)
    if isinstance(first, dict):
        return {name: _join([r[name] for r in records]) for name in first}
    return type(first)(*(_join([getattr(r, name) for r in records]) for name in vars(first)))


def propagate(d: Profiles, error: Floats, choice: Choice, s: Settings, v: dict[str, Floats]) -> Errors:
    """Return standard errors and Satterthwaite degrees of freedom of everything that can have them."""
    read, made = read_slopes(d, choice, s, v), formula_slopes(v, s.parameters)
    freedom = None if d.n is None else np.where(d.n > 1, d.n - 1, np.inf)
    unknown = bool(np.isnan(error).any())
    out = Errors({}, {})
    for name in (p.name for p in s.parameters if not p.no_se):
        if name in read:
            slope = read[name]
        else:
            parts = [weight * read[source] for source, weight in made[name].items()]
            slope = sum(parts[1:], parts[0])
        out.se[name], out.df[name] = _spread(slope, error, freedom, unknown)
    return out


def _spread(slope: Floats, error: Floats, freedom: Floats | None, unknown: bool) -> tuple[Floats, Floats]:
    """Return the standard error of a linear form of independent samples, and its degrees of freedom."""
    part = slope * error
    part *= part
    if unknown:
        part = np.where(slope == 0, 0.0, part)  # an unknown error spoils only what rests on it
    var = part.sum(axis=0) if part.shape[1] > 1 else np.add.accumulate(part, axis=0)[-1]
    if freedom is None:
        return np.sqrt(var), np.where(np.isnan(var), np.nan, np.inf)
    below = part * part / freedom
    below = below.sum(axis=0) if part.shape[1] > 1 else np.add.accumulate(below, axis=0)[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(below == 0, np.inf, var**2 / below)
    return np.sqrt(var), np.where(np.isnan(var), np.nan, df)


def quantile(level: float, df: Floats) -> Floats:
    """Return half the width of an interval in standard errors: Student's t, normal where df is infinite."""
    from scipy.special import ndtri, stdtrit

    p = 0.5 + level / 2
    finite = np.isfinite(df)
    out = np.full(np.shape(df), ndtri(p))
    if finite.any():
        out[finite] = stdtrit(np.asarray(df)[finite], p)
    return out


def interval(parameter: Parameter, value: Floats, se: Floats, df: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the bounds of each value; on the logarithmic scale for a positive parameter."""
    half = quantile(level, df) * se
    if not parameter.positive:
        return value - half, value + half
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.exp(half / value)
        above = value > 0
        if above.all():
            return value / factor, value * factor
        return np.where(above, value / factor, value - half), np.where(above, value * factor, value + half)
