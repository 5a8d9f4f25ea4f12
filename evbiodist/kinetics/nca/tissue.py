"""An organ beside blood: their ratio at each time, uptake from the blood, and the share of the dose in the organ."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.nca.delta import Bools, Floats, Index, Propagated, Quantities, like
from evbiodist.kinetics.nca.dosing_intervals import dosing_intervals
from evbiodist.kinetics.nca.nca import nca_batch
from evbiodist.kinetics.nca.profiles import refuse
from evbiodist.kinetics.nca.propagate import quantile
from evbiodist.study.units import derive

__all__ = ["pct_injected", "tissue_blood_ratio", "uptake_clearance"]


def tissue_blood_ratio(
    time_h: ArrayLike,
    tissue: ArrayLike,
    blood: ArrayLike,
    *,
    tissue_se: ArrayLike | None = None,
    blood_se: ArrayLike | None = None,
    tissue_n: ArrayLike | None = None,
    blood_n: ArrayLike | None = None,
    tissue_below_lloq: ArrayLike | None = None,
    blood_below_lloq: ArrayLike | None = None,
    tissue_unit: str = "au",
    blood_unit: str = "au",
    level: float = 0.95,
) -> tuple[Quantities, Quantities]:
    """Return the tissue-to-blood ratio at every time, and at the last time, with Fieller's intervals.

    Parameters
    ----------
    time_h, tissue, blood : (T,) or (P, T) hours and values at the same times; NaN where one was not taken.
    tissue_se, blood_se, tissue_n, blood_n : standard errors and animals behind each value, as in `nca`. The errors of
        tissue and blood are taken to be independent.
    tissue_below_lloq, blood_below_lloq : masks of values below the limit; no ratio is given there.
    tissue_unit, blood_unit : their units.
    level : level of the intervals.

    Returns
    -------
    ``tissue_blood_ratio`` (P, T) and ``kp_last`` (P,), the last time both are quantifiable and above zero.

    Raises
    ------
    ValueError : arrays that cannot be used; the message names the remedy.

    Examples
    --------
    >>> by_time, last = tissue_blood_ratio(
    ...     [1, 4, 24], [2, 6, 3], [10, 4, 0.5], tissue_se=[0.2, 0.6, 0.3], blood_se=[1, 0.4, 0.3])
    >>> early = by_time.estimate("tissue_blood_ratio", 0, 0)
    >>> early.value, round(early.ci_low, 3), round(early.ci_high, 3)
    (0.2, 0.151, 0.265)
    >>> last.estimate("kp_last", 0).reason
    'the interval is open: the value in blood is not distinguishable from zero'

    Notes
    -----
    Fieller EC (1954) J R Stat Soc B 16:175, degrees of freedom of tissue - ratio x blood after Satterthwaite; as
    `evbiodist.kinetics.designs.ratio.kp`, which divides two areas.
    """
    shape = max((np.atleast_2d(np.asarray(x)).shape for x in (time_h, tissue, blood)), key=lambda s: (s[1], s[0]))
    t = like("time_h", time_h, shape)
    late = np.pad(t[:, 1:] <= t[:, :-1], ((0, 0), (1, 0)))
    refuse("time_h", t, late, "times that rise", "sort the rows by time")
    a, va, fa, low_a = _side("tissue", tissue, tissue_se, tissue_n, tissue_below_lloq, shape)
    b, vb, fb, low_b = _side("blood", blood, blood_se, blood_n, blood_below_lloq, shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(~low_a & ~low_b & (b > 0) & ~np.isnan(t), a / b, np.nan)
        var = va + ratio**2 * vb
        below = va**2 / fa + (ratio**2 * vb) ** 2 / fb
        df = np.where(below > 0, var**2 / below, np.inf)
        bounds = _fieller(a, b, va, vb, quantile(level, np.where(np.isnan(var), np.inf, df)))
        se = np.sqrt(var) / b
    row = np.arange(shape[1])
    last = np.where(ratio > 0, row, -1).max(axis=1)
    why = {
        "tissue_blood_ratio": _why(a, b, low_a, low_b, t),
        "kp_last": lambda name, at: "at no time are tissue and blood both quantifiable and above zero",
    }
    unit, factor = derive("value/dose", tissue_unit, blood_unit)
    tables = []
    for name in why:

        def at(x: Floats, name: str = name) -> Floats:
            if name != "kp_last":
                return x
            return np.where(last >= 0, np.take_along_axis(x, np.maximum(last, 0)[:, None], axis=1)[:, 0], np.nan)

        found = Propagated({name: at(ratio)}, {name: at(se)}, {name: at(df)})
        table = Quantities.of(
            found,
            {name: (unit, factor)},
            level,
            method="ratio, Fieller interval",
            why=why[name],
            count=lambda name, at: 2,
            doubt=_open(at(bounds[0]), "the value in blood"),
        )
        tables.append(replace(table, ci_low={name: at(bounds[0]) * factor}, ci_high={name: at(bounds[1]) * factor}))
    return tables[0], tables[1]


def _side(
    name: str,
    value: ArrayLike,
    se: ArrayLike | None,
    n: ArrayLike | None,
    below_lloq: ArrayLike | None,
    shape: tuple[int, ...],
) -> tuple[Floats, Floats, Floats, Bools]:
    """Values, variances, degrees of freedom and the mask of values below the limit, each (P, T)."""
    x = like(name, value, shape)
    refuse(name, x, np.isinf(x), "a finite number", "write NaN where none was taken")
    e = np.full(shape, np.nan) if se is None else like(f"{name}_se", se, shape)
    refuse(f"{name}_se", e, (e < 0) | np.isinf(e), "0 or more", "give standard errors, NaN where unknown")
    count = np.ones(shape) if n is None else like(f"{name}_n", n, shape)
    refuse(f"{name}_n", count, count < 1, "at least 1 animal", "leave it out when it is unknown")
    low = np.zeros(shape, dtype=np.bool_) if below_lloq is None else like(f"{name}_below_lloq", below_lloq, shape) > 0
    return x, e**2, np.where(count > 1, count - 1, np.inf), low


def _fieller(a: Floats, b: Floats, va: Floats, vb: Floats, q: Floats) -> tuple[Floats, Floats]:
    """Bounds r of (a - r b)^2 = q^2 (va + r^2 vb); NaN where they are open or an error is not known."""
    lead = b**2 - q**2 * vb
    root = np.sqrt(np.maximum(a**2 * b**2 - lead * (a**2 - q**2 * va), 0.0))
    closed = lead > 0
    return np.where(closed, (a * b - root) / lead, np.nan), np.where(closed, (a * b + root) / lead, np.nan)


def _open(low: Floats, what: str) -> Callable[[str, Index], str]:
    def doubt(name: str, at: Index) -> str:
        return f"the interval is open: {what} is not distinguishable from zero" if math.isnan(low[at]) else ""

    return doubt


def _why(a: Floats, b: Floats, low_a: Bools, low_b: Bools, t: Floats) -> Callable[[str, Index], str]:
    def why(name: str, at: Index) -> str:
        for what, x, low in (("tissue", a, low_a), ("blood", b, low_b)):
            if low[at]:
                return f"{what} is below the limit of quantification at {t[at]:g} h"
            if math.isnan(x[at]) or math.isnan(t[at]):
                return f"no {what} sample at {t[at]:g} h"
        return f"blood is not above zero at {t[at]:g} h"

    return why


def uptake_clearance(
    time_h: ArrayLike,
    tissue: ArrayLike,
    blood_time_h: ArrayLike,
    blood: ArrayLike,
    *,
    tissue_se: ArrayLike | None = None,
    tissue_n: ArrayLike | None = None,
    blood_se: ArrayLike | None = None,
    blood_n: ArrayLike | None = None,
    route: str = "iv_bolus",
    tissue_unit: str = "au",
    blood_unit: str = "au",
    method: str = "lin-up-log-down",
    ends: str = "lambda_z",
    level: float = 0.95,
) -> Quantities:
    """Return what an organ holds over the area in blood until then, at every time of the organ.

    It is the uptake clearance as long as nothing has left the organ again: read the first times, and see that they
    agree. Vessel blood must have been subtracted or washed out.

    Parameters
    ----------
    time_h, tissue : (T,) or (P, T) hours and amounts (or amounts per gram) in the organ.
    blood_time_h, blood : (B,) or (P, B) hours and values in blood or plasma.
    tissue_se, tissue_n, blood_se, blood_n : standard errors and animals behind each value, as in `nca`.
    route : how the dose came into the blood, for the value at 0 h.
    method, ends : of the area in blood; a value between two blood samples or after the last as in `dosing_intervals`.

    Returns
    -------
    Quantities : ``uptake_clearance`` (P, T).

    Raises
    ------
    ValueError : arrays that cannot be used; the message names the remedy.

    Examples
    --------
    >>> t = [0.25, 0.5, 1, 2, 4]
    >>> blood = [10 * 2**-x for x in t]
    >>> found = uptake_clearance([1, 2], [1.0, 1.5], t, blood, tissue_unit="pct_id_per_g", blood_unit="pct_id_per_g")
    >>> [round(found.estimate("uptake_clearance", 0, k).value, 4) for k in range(2)], found.units["uptake_clearance"]
    ([0.1386, 0.1386], '1/h')
    """
    shape = np.atleast_2d(np.asarray(tissue)).shape
    t = like("time_h", time_h, shape)
    a, va, fa, _ = _side("tissue", tissue, tissue_se, tissue_n, None, shape)
    refuse("time_h", t, ~np.isnan(t) & ~(t > 0), "a time after the dose", "drop the row")

    def each(x: ArrayLike | None) -> Floats | None:
        """One row of blood for each organ sample."""
        if x is None:
            return None
        rows = np.atleast_2d(np.asarray(x, dtype=np.float64))
        return np.repeat(np.broadcast_to(rows, (shape[0], rows.shape[1])), shape[1], axis=0)

    until = np.where(np.isnan(t), 1.0, t).reshape(-1)
    areas = dosing_intervals(
        each(blood_time_h),  # type: ignore[arg-type]
        each(blood),  # type: ignore[arg-type]
        [0.0],
        tau_h=until,
        se=each(blood_se),
        n=None if blood_n is None else each(np.broadcast_to(blood_n, np.atleast_2d(np.asarray(blood)).shape)),
        route=route,
        unit=blood_unit,
        method=method,
        ends=ends,
        steady_state=False,
    ).parameters
    auc = areas.values["auc_tau"].reshape(shape)
    vb, fb = areas.se["auc_tau"].reshape(shape) ** 2, areas.df["auc_tau"].reshape(shape)
    name = "uptake_clearance"
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a / auc
        parts = va / auc**2, (value / auc) ** 2 * vb
        var = parts[0] + parts[1]
        below = parts[0] ** 2 / fa + parts[1] ** 2 / np.where(np.isnan(fb), np.inf, fb)
        df = np.where(below > 0, var**2 / below, np.inf)
    expand = {"pct_id_per_g": "pct_id/g"}
    unit, factor = derive("value/dose/time", expand.get(tissue_unit, tissue_unit), expand.get(blood_unit, blood_unit))

    def why(_: str, at: Index) -> str:
        if math.isnan(a[at]) or math.isnan(t[at]):
            return "no tissue sample"
        area = areas.estimate("auc_tau", at[0] * shape[1] + at[1], 0)
        return f"no area in blood until {t[at]:g} h: {area.reason}"

    found = Propagated({name: value}, {name: np.sqrt(var)}, {name: df})
    words = f"amount / area in blood, {method}"
    return Quantities.of(found, {name: (unit, factor)}, level, method=words, why=why, count=lambda name, at: 1)


def pct_injected(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    mass_g: ArrayLike | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    unit: str = "pct_id",
    below_lloq: ArrayLike | None = None,
    level: float = 0.95,
) -> Quantities:
    """Return the highest and the last percent of the injected dose that an organ holds, with their times.

    Parameters
    ----------
    time_h, value, se, n, below_lloq : (T,) or (P, T), as in `nca_batch`.
    mass_g : scalar or (P,) mass of the organ, where the unit is per gram.
    dose, dose_unit : the injected dose, where the unit is not already a percent of it.
    unit : ``pct_id``, ``pct_id_per_g`` with `mass_g`, or that of an amount (``bq``) with `dose`.

    Returns
    -------
    Quantities : ``peak_pct_id``, ``tmax``, ``last_pct_id`` and ``tlast``, (P,).

    Raises
    ------
    ValueError : a unit that needs the organ's mass or the dose; the message names it.

    Examples
    --------
    >>> found = pct_injected([1, 4, 24], [3, 8, 2], unit="pct_id_per_g", mass_g=1.5)[0]
    >>> found["peak_pct_id"].value, found["tmax"].value, found["last_pct_id"].value
    (12.0, 4.0, 3.0)
    """
    factor = per_dose(unit, mass_g, dose, dose_unit)
    t = np.atleast_2d(np.asarray(time_h, dtype=np.float64))
    table = nca_batch(t, value, se=se, n=n, below_lloq=below_lloq, route="tissue", unit=unit)
    of = {"peak_pct_id": "cmax", "tmax": "tmax", "last_pct_id": "clast", "tlast": "tlast"}
    scale = {name: factor if name.endswith("id") else np.ones(1) for name in of}
    found = Propagated(
        {name: table.values[k] * scale[name] for name, k in of.items()},
        {name: table.se[k] * scale[name] for name, k in of.items()},
        {name: table.df[k] for name, k in of.items()},
    )
    units = {name: ("pct_id" if name.endswith("id") else "h", 1.0) for name in of}
    return Quantities.of(
        found,
        units,
        level,
        method="share of the injected dose",
        why=lambda name, at: "no quantifiable value above zero",
        count=lambda name, at: 1,
    )


def per_dose(unit: str, mass_g: ArrayLike | None, dose: float | None, dose_unit: str) -> Floats:
    """What turns values into percent of the injected dose: a number, or one for each profile."""
    mass = np.ones(1)
    if unit.endswith("_per_g") or unit.endswith("/g"):
        if mass_g is None:
            raise ValueError(f"unit is '{unit}', expected the organ's mass with it; give mass_g=...")
        mass = np.asarray(mass_g, dtype=np.float64)
        if not (mass > 0).all():
            raise ValueError("mass_g has a number that is not above 0, expected grams; leave the organ out")
        unit = unit.removesuffix("_per_g").removesuffix("/g")
    if unit == "pct_id":
        return mass
    if dose is None or not dose > 0:
        raise ValueError(
            f"unit is '{unit}' and dose has {dose}, expected the injected dose; give dose=... and dose_unit=..."
        )
    found = derive("value/dose", unit, dose_unit or unit)
    if found.unit != "1":
        raise ValueError(f"dose_unit is '{dose_unit}', expected a unit like that of the values ('{unit}'); convert one")
    return 100 * mass * found.factor / dose
