"""What an analysis hands back: every number with its error, its flags, or the reason why it is missing.

Flags arise where something is odd and are handed on along what a parameter is computed from; so are reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evbiodist.kinetics.nca.choices import FEW, NOTHING, RISING_BEST, Choice, peak_is_on_line
from evbiodist.kinetics.nca.curve import NO_WAY, Numbers
from evbiodist.kinetics.nca.parameters import Parameter
from evbiodist.kinetics.nca.profiles import Floats, Profiles
from evbiodist.kinetics.nca.propagate import Errors, interval, tail_of
from evbiodist.kinetics.nca.rules import C0_WAYS, MIN_POINTS, Settings
from evbiodist.study.estimate import Estimate
from evbiodist.study.problems import nearest
from evbiodist.study.units import derive

if TYPE_CHECKING:
    import pandas as pd

#: Reasons by (profile, position) of a sample.
Reasons = Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class NcaResult:
    """The non-compartmental parameters of one profile.

    Parameters
    ----------
    estimates : by name, in the order of `evbiodist.kinetics.nca.parameters.PARAMETERS`.
    lambda_z_points : positions in the input of the samples on the terminal line; empty without one.
    df : degrees of freedom behind each interval (infinite for a normal one, NaN without one).
    excluded : by position, why a sample was left out of everything.
    off_lambda_z : by position, why a sample was kept off the terminal line.
    on_lambda_z : by position, why a sample was put on it.

    Examples
    --------
    >>> from evbiodist.kinetics.nca.nca import nca
    >>> result = nca([0, 1, 2, 4, 8], [16, 8, 4, 1, 0.0625], dose=100, dose_unit="pct_id",
    ...              unit="pct_id_per_g", method="log")
    >>> result["half_life"].value, result["cl"].unit
    (1.0, 'g/h')
    """

    estimates: dict[str, Estimate]
    lambda_z_points: tuple[int, ...]
    df: dict[str, float]
    excluded: dict[int, str] = field(default_factory=dict)
    off_lambda_z: dict[int, str] = field(default_factory=dict)
    on_lambda_z: dict[int, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Estimate:
        try:
            return self.estimates[name]
        except KeyError:
            raise KeyError(f"'{name}' is not a parameter of this profile; {nearest(name, self.estimates)}") from None

    def to_frame(self) -> pd.DataFrame:
        """Return one row a parameter with the columns of an `Estimate`; flags joined by ``;``."""
        import pandas as pd

        rows = [{**vars(e), "flags": ";".join(e.flags)} for e in self.estimates.values()]
        return pd.DataFrame(rows).rename(columns={"name": "parameter"})


@dataclass(frozen=True)
class NcaTable:
    """The parameters of many profiles as arrays; ``table[i]`` is the `NcaResult` of profile i.

    Parameters
    ----------
    values, se, df, ci_low, ci_high : by name, (P,) in the units of `units`; NaN where missing.
    units : by name.
    excluded, off_lambda_z : why samples were left out, by (profile, position).
    """

    values: dict[str, Floats]
    se: dict[str, Floats]
    df: dict[str, Floats]
    ci_low: dict[str, Floats]
    ci_high: dict[str, Floats]
    units: dict[str, str]
    excluded: Reasons
    off_lambda_z: Reasons
    _data: Profiles
    _choice: Choice
    _settings: Settings
    _tail_pct: dict[str, Floats]  # how much of a partial area lies after the last value
    _refused: dict[str, str]  # by parameter, for which share of extrapolation it is refused

    def __len__(self) -> int:
        return int(self._data.t.shape[1])

    def __getitem__(self, profile: int) -> NcaResult:
        return _result(self, range(len(self))[profile])


def tabulate(
    d: Profiles,
    choice: Choice,
    s: Settings,
    values: dict[str, Numbers],
    errors: Errors | None,
    excluded: Reasons,
    off_line: Reasons,
) -> NcaTable:
    """Return numbers in their units, with intervals; what is refused or infinite is missing."""
    refused = _refused(s) if s.refuse_extrap else {}
    table = NcaTable({}, {}, {}, {}, {}, {}, excluded, off_line, d, choice, s, _tail_shares(s, values), refused)
    shares = {**values, **table._tail_pct}
    guessed = d.blank if s.rules.all_zero == "zero" else np.zeros(d.blank.shape, dtype=np.bool_)
    nothing = np.full(d.t.shape[1], np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        for p in s.parameters:
            name, unit = p.name, derive(p.dimension, s.unit, s.dose_unit)
            value = values[name] * unit.factor
            unknown = ~np.isfinite(value)
            if name in refused:
                unknown |= shares[refused[name]] > s.max_extrap_pct
            value, se, df, low, high = np.where(unknown, np.nan, value), nothing, nothing, nothing, nothing
            if errors is not None and not p.no_se:
                se = np.where(unknown | guessed, np.nan, errors.se[name] * unit.factor)
                df = np.where(np.isnan(se), np.nan, errors.df[name])
                low, high = interval(p, value, se, df, s.level)
            table.values[name], table.se[name], table.df[name] = value, se, df
            table.ci_low[name], table.ci_high[name], table.units[name] = low, high, unit.unit
    return table


def _tail_shares(s: Settings, values: dict[str, Numbers]) -> dict[str, Floats]:
    """How much of each partial area lies after the last value, in percent; NaN where that is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tails = {p.name: (values[tail_of(p.name)], values[p.name]) for p in s.partial_areas}
        return {name: np.where(tail == 0, 0.0, 100 * tail / whole) for name, (tail, whole) in tails.items()}


def _refused(s: Settings) -> dict[str, str]:
    """Which share of extrapolation each parameter is refused for; the shares themselves are shown."""
    refused = {p.name: p.name for p in s.partial_areas}
    for p in s.parameters:
        roots = [refused[parent] for parent in p.depends if parent in refused]
        if p.name in ("aucinf_obs", "aucinf_pred"):
            refused[p.name] = p.name.replace("aucinf", "auc_pct_extrap")
        elif roots and not p.name.startswith("auc_pct_extrap"):
            refused[p.name] = roots[0]
    return refused


def _result(table: NcaTable, i: int) -> NcaResult:
    known: dict[str, Estimate] = {}
    raised, counts = _raise_flags(table, i), _counts(table, i)
    records = {p.name: p for p in table._settings.parameters}

    def resolve(name: str) -> Estimate:
        if name not in known:
            parents = [resolve(parent) for parent in _parents(table, records[name], i)]
            n = counts[records[name].rests_on]
            known[name] = _estimate(table, records[name], i, parents, raised.get(name, set()), n)
        return known[name]

    estimates = {name: resolve(name) for name in records}
    points = np.flatnonzero(table._choice.terminal[:, i])
    used = tuple(int(k) for k in table._data.position[points, i]) if table._choice.problem[i] == 0 else ()
    return NcaResult(
        estimates,
        used,
        {k: float(a[i]) for k, a in table.df.items()},
        excluded={at: str(why) for (profile, at), why in table.excluded.items() if profile == i},
        off_lambda_z={at: str(why) for (profile, at), why in table.off_lambda_z.items() if profile == i},
    )


def _parents(table: NcaTable, p: Parameter, i: int) -> tuple[str, ...]:
    """What a parameter of one profile is computed from: a partial area may reach beyond the last value."""
    tail = table._tail_pct.get(p.name)
    return p.depends if tail is None or tail[i] == 0 else (*p.depends, "clast", "lambda_z")


_OWN_FLAGS = {"few", "imprecise", "negative"}  # of one number, not of what is computed from it


def _estimate(table: NcaTable, p: Parameter, i: int, parents: list[Estimate], raised: set[str], n: int) -> Estimate:
    """One parameter of one profile, with the flags and the reasons it has from what it is computed from."""
    value, se = float(table.values[p.name][i]), float(table.se[p.name][i])
    if math.isnan(value):
        return Estimate(
            p.name, unit=table.units[p.name], method=_method(table, p, i), reason=_why_missing(table, p, i, parents)
        )
    flags = raised | ({flag for parent in parents for flag in parent.flags} - _OWN_FLAGS)
    own = {"negative": value < 0, "imprecise": se >= 0.5 * abs(value), "few": n < 3 and p.rests_on == "profile"}
    flags |= {flag for flag, is_so in own.items() if is_so}
    low, high = float(table.ci_low[p.name][i]), float(table.ci_high[p.name][i])
    return Estimate(
        p.name,
        value,
        se,
        low,
        high,
        unit=table.units[p.name],
        method=_method(table, p, i),
        n=n,
        flags=tuple(sorted(flags)),
        reason=_why_no_error(table, p, i),
    )


_AREAS = ("auclast", "aumclast", "aucall")


def _raise_flags(table: NcaTable, i: int) -> dict[str, set[str]]:
    """Flags where they arise; `_result` hands them on to everything that depends on it."""
    s, d, v = table._settings, table._data, table.values
    raised: dict[str, set[str]] = {}

    def mark(flag: str, *names: str) -> None:
        for name in names:
            raised.setdefault(name, set()).add(flag)

    for kind in ("obs", "pred"):
        if v[f"auc_pct_extrap_{kind}"][i] > s.max_extrap_pct:
            mark("extrapolated", f"aucinf_{kind}")
    for name, share in table._tail_pct.items():
        if share[i] > s.max_extrap_pct:
            mark("extrapolated", name)
    if v["span_ratio"][i] < 2:
        mark("short_span", "lambda_z")
    if v["adj_r2"][i] < s.min_adj_r2:
        mark("poor_lambda_z", "lambda_z")
    blq, last = d.blq[:, i], table._choice.last[i]
    if blq[: last + 1].any():
        mark("below_lloq", *_AREAS, "cmin")
    if blq[last + 1 : last + 2].any():
        mark("below_lloq", "aucall")
    values = d.c[: last + 1, i]
    if (d.measured[: last + 1, i] & (values == 0) & np.logical_or.accumulate(values > 0)).any():
        mark("zero_inside", *_AREAS)
    if any(profile == i for profile, _ in table.excluded):
        mark("points_excluded", *(p.name for p in s.parameters))
    elif any(profile == i for profile, _ in table.off_lambda_z):
        mark("points_excluded", "lambda_z")
    if d.chosen is not None:
        mark("points_chosen", "lambda_z")
    return raised


def _counts(table: NcaTable, i: int) -> dict[str, int]:
    """Number of samples behind each kind of parameter; of animals when n was given."""
    d, choice = table._data, table._choice
    row = np.arange(len(d.t))
    where = {
        "profile": d.measured[:, i] & (row <= choice.last[i]),
        "terminal": choice.terminal[:, i],
        "peak": row == choice.peak[i],
        "trough": row == choice.trough[i],
        "last": row == choice.last[i],
    }
    n = np.ones(len(row)) if d.n is None else np.nan_to_num(d.n[:, i])
    return {kind: int(n[rows].sum()) for kind, rows in where.items()}


def _why_missing(table: NcaTable, p: Parameter, i: int, parents: list[Estimate]) -> str:
    s, problem = table._settings, table._choice.problem[i]
    if problem == NOTHING:
        return "no quantifiable value above zero"
    for parent in parents:
        if math.isnan(parent.value):
            return parent.reason
    if p.name in table._refused:
        share = {**table.values, **table._tail_pct}[table._refused[p.name]][i]
        beyond = f"{share:.3g} % of the area lies after the last quantifiable value"
        return f"{beyond}, over the limit of {s.max_extrap_pct:g} %"
    if p.name == "lambda_z":
        return _why_no_line(table, i)
    if table._choice.origin.kind[i] == NO_WAY and p.rests_on == "profile":
        return f"none of the ways to a value at 0 h ({', '.join(s.rules.chain())}) is possible; add 'first' to c0"
    if p.needs_dose and math.isnan(table._data.dose[i]):
        return "the dose is not given; give dose=..."
    if p.name.startswith("mrt") and math.isnan(s.infusion_h):
        return "the duration of the infusion is not given; give infusion_h=..."
    return "its formula has no finite value here"


def _why_no_line(table: NcaTable, i: int) -> str:
    s, problem = table._settings, table._choice.problem[i]
    if problem == FEW:
        chosen = table._data.chosen is not None or s.last_points is not None
        after = "" if chosen else " from cmax on" if peak_is_on_line(s) else " after cmax"
        return f"fewer than {s.last_points or MIN_POINTS} positive values{after}, so no terminal line"
    if problem == RISING_BEST:
        return "the line that fits the last samples best rises, so there is no terminal line to follow"
    return "the terminal slope is not negative"


def _why_no_error(table: NcaTable, p: Parameter, i: int) -> str:
    if table._data.se is None:
        return p.no_se or "no replicate and no se, so no uncertainty"
    if p.no_se or not math.isnan(table.se[p.name][i]):
        return p.no_se
    if table._choice.last[i] < 0:
        return "nothing was found, so no uncertainty"
    at = np.isnan(table._data.se[:, i]) & table._data.present[:, i]
    times = ", ".join(f"{x:g}" for x in table._data.t[at, i])
    return f"no se at {times} h, so no uncertainty"


def _method(table: NcaTable, p: Parameter, i: int) -> str:
    words = f"nca, {table._settings.method}"
    way = int(table._choice.origin.way[i])
    if way >= 0 and (p.name == "c0" or "back_extrap" in p.name):
        words += f", value at 0 h by '{tuple(C0_WAYS)[way]}'"
    if math.isnan(table.se[p.name][i]):
        return words
    kind = "normal" if math.isinf(table.df[p.name][i]) else "t"
    return f"{words}; delta method, {kind} interval"
