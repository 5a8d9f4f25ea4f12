"""Non-compartmental analysis: areas, terminal slope and what follows, for one profile or ten thousand.

What a user calls: `rules` and `profiles` check what comes in, `choices` decides on points, `curve`, `slopes` and
`propagate` make numbers and errors, `nca_result` puts them into words, `ratio` divides two areas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.kinetics.designs.ratio import kp
from evbiodist.kinetics.nca.nca_result import NcaResult, NcaTable, Reasons, tabulate
from evbiodist.kinetics.nca.parameters import for_route
from evbiodist.kinetics.nca.profiles import Bools, Profiles, mask_of, row_of
from evbiodist.kinetics.nca.propagate import analyse
from evbiodist.kinetics.nca.rules import BLQ_RULES, C0_CHAINS, C0_WAYS, CONVENTIONS, METHODS, Rules, Settings, rules_of

__all__ = [
    "BLQ_RULES",
    "C0_CHAINS",
    "C0_WAYS",
    "CONVENTIONS",
    "METHODS",
    "NcaResult",
    "NcaTable",
    "Rules",
    "kp",
    "nca",
    "nca_batch",
    "parameter_names",
]


def nca(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    dose: float | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    unit: str = "au",
    method: str = "lin-up-log-down",
    rules: str | Rules = "evbiodist",
    blq: str | Mapping[str, str] | None = None,
    c0: str | Sequence[str] | None = None,
    lloq: float | None = None,
    below_lloq: ArrayLike | None = None,
    below_share: ArrayLike | None = None,
    exclude: Mapping[int, str] | None = None,
    lambda_z_exclude: Mapping[int, str] | None = None,
    lambda_z_points: int | Sequence[int] | Mapping[int, str] | None = None,
    partial: Sequence[tuple[float, float]] = (),
    infusion_h: float | None = None,
    max_extrap_pct: float = 20.0,
    refuse_extrap: bool = False,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> NcaResult:
    """Return the non-compartmental parameters of one profile, each with its uncertainty or why it has none.

    Parameters
    ----------
    time_h, value : (T,) hours after dosing, rising, and the values (one animal's, or means).
    se : (T,) standard error of each value; NaN where unknown.
    n : (T,) or scalar number of animals behind each mean; None or 1 takes `se` as known exactly.
    dose, dose_unit : for clearance, volumes and per-dose parameters.
    route : one of `evbiodist.kinetics.nca.parameters.ROUTES`; ``tissue`` for an organ.
    unit : unit of the values.
    method : trapezoids: ``linear``; ``lin-up-log-down`` (logarithmic where values fall); ``lin-log``
        (logarithmic after tmax); ``log`` wherever both values are positive and differ.
    rules : `Rules`, or the name of a program in `CONVENTIONS`, for what programs disagree on.
    blq, c0 : the rules of that name, when they differ from those of `rules`: values below the limit (a
        substituted value has no error) and the value at 0 h of a bolus.
    lloq, below_lloq : the limit (smaller values are below it) and/or a (T,) mask.
    below_share : (T,) for means, which share of the animals' values was below the limit.
    exclude : by position, why a sample is left out.
    lambda_z_exclude : by position, why a sample is kept off the terminal line.
    lambda_z_points : number of last positive values, or positions in the input (a mapping says why), instead of
        the best line.
    partial : pairs of hours, such as ``[(0, 4), (4, 24)]``, for the areas ``auc_0_4h`` and ``auc_4_24h``.
    infusion_h : duration of an ``iv_infusion``, for residence times.
    max_extrap_pct, min_adj_r2 : limits behind the flags ``extrapolated`` and ``poor_lambda_z``.
    refuse_extrap : whatever is extrapolated over the limit is missing instead of flagged.
    level : level of the intervals.

    Returns
    -------
    NcaResult

    Raises
    ------
    ValueError : times, values, errors or settings that cannot be used; the message names the remedy.

    Examples
    --------
    >>> auc = nca([0, 1, 2, 4], [0, 8, 4, 1], se=[0, 1, 1, 0.2], n=4, route="ip", method="linear")["auclast"]
    >>> auc.value, round(auc.se, 4), round(auc.ci_low, 2), round(auc.ci_high, 2)
    (15.0, 1.8138, 11.06, 20.34)
    >>> nca([0, 1, 2], [0, 3, 5], route="ip")["half_life"].reason
    'fewer than 3 positive values after cmax, so no terminal line'

    Notes
    -----
    Parameters and the choice of the terminal line (best adjusted r2 of at least three points after cmax, cmax
    itself only for an intravenous bolus; ties within 1e-4 go to more points) follow Gabrielsson J, Weiner D,
    Pharmacokinetic and Pharmacodynamic Data Analysis, ch. 2.8, and WinNonlin. The value at 0 h of a bolus is
    the observed one, else extrapolated on the logarithmic scale from the first two samples, else (no fall) the
    first positive value; other profiles start from 0. Partial areas are interpolated by the rule of `method`; after
    the last quantifiable value they follow the observed value and lambda_z, as aucinf_obs does.

    Errors are propagated to first order, samples at different times being independent; derivatives are exact.
    For the linear rule this is Bailer AJ (1988) J Pharmacokinet Biopharm 16:303. Degrees of freedom after
    Satterthwaite: Nedelman JR, Jia X (1998) J Biopharm Stat 8:317. Intervals of positive parameters are made on
    the logarithmic scale.
    """
    t = np.asarray(time_h, dtype=np.float64)
    if t.ndim != 1 or not t.size:
        raise ValueError(f"time_h has shape {t.shape}, expected a list of hours; for several profiles use nca_batch")
    if not np.isfinite(t).all():
        at = int(np.flatnonzero(~np.isfinite(t))[0])
        raise ValueError(f"time_h has {t[at]} at position {at}, expected hours; drop the row")
    points = lambda_z_points
    mask = None
    if points is not None and not isinstance(points, int | np.integer):
        mask = mask_of(tuple(points), t.size)[None]
        points = None
    result = nca_batch(
        t[None],
        row_of("value", value, t.size),
        se=None if se is None else row_of("se", se, t.size),
        n=None if n is None else row_of("n", n, t.size),
        dose=dose,
        dose_unit=dose_unit,
        route=route,
        unit=unit,
        method=method,
        rules=rules,
        blq=blq,
        c0=c0,
        lloq=lloq,
        below_lloq=None if below_lloq is None else row_of("below_lloq", below_lloq, t.size, bool),
        below_share=None if below_share is None else row_of("below_share", below_share, t.size),
        exclude={(0, int(k)): why for k, why in (exclude or {}).items()},
        lambda_z_exclude={(0, int(k)): why for k, why in (lambda_z_exclude or {}).items()},
        lambda_z_points=points if mask is None else mask,
        partial=partial,
        infusion_h=infusion_h,
        max_extrap_pct=max_extrap_pct,
        refuse_extrap=refuse_extrap,
        min_adj_r2=min_adj_r2,
        level=level,
    )[0]
    if isinstance(lambda_z_points, Mapping):
        result = replace(result, on_lambda_z={int(k): str(why) for k, why in lambda_z_points.items()})
    return result


def nca_batch(
    time_h: ArrayLike,
    value: ArrayLike,
    *,
    se: ArrayLike | None = None,
    n: ArrayLike | None = None,
    dose: ArrayLike | None = None,
    dose_unit: str = "",
    route: str = "iv_bolus",
    unit: str = "au",
    method: str = "lin-up-log-down",
    rules: str | Rules = "evbiodist",
    blq: str | Mapping[str, str] | None = None,
    c0: str | Sequence[str] | None = None,
    lloq: ArrayLike | None = None,
    below_lloq: ArrayLike | None = None,
    below_share: ArrayLike | None = None,
    exclude: Reasons | None = None,
    lambda_z_exclude: Reasons | None = None,
    lambda_z_points: int | Bools | None = None,
    partial: Sequence[tuple[float, float]] = (),
    infusion_h: float | None = None,
    max_extrap_pct: float = 20.0,
    refuse_extrap: bool = False,
    min_adj_r2: float = 0.7,
    level: float = 0.95,
) -> NcaTable:
    """Return the parameters of many profiles at once, to the last bit those of `nca` one by one.

    Parameters
    ----------
    time_h, value, se, n, below_lloq, below_share : (P, T), rows padded with NaN in `time_h`; scalars and (T,)
        broadcast.
    dose : scalar or (P,); NaN where unknown.
    lloq : scalar or (P, 1) or (P, T).
    exclude, lambda_z_exclude : by (profile, position), why a sample is left out.
    lambda_z_points : number of last positive values, or a (P, T) mask of samples.
    others : as in `nca`.

    Returns
    -------
    NcaTable

    Raises
    ------
    ValueError : as `nca`; the message names the profile.

    Examples
    --------
    >>> table = nca_batch([[0, 1, 2, 3], [0, 2, 4, np.nan]], [[8, 4, 2, 1], [8, 4, 2, np.nan]])
    >>> table.values["half_life"].round(12).tolist()
    [1.0, 2.0]
    """
    settings = Settings.of(
        method,
        rules_of(rules, blq, c0, route),
        route,
        unit,
        dose_unit,
        lambda_z_points,
        partial,
        infusion_h,
        max_extrap_pct,
        refuse_extrap,
        min_adj_r2,
        level,
    )
    data = Profiles.of(
        time_h,
        value,
        se=se,
        n=n,
        dose=dose,
        lloq=lloq,
        below_lloq=below_lloq,
        below_share=below_share,
        points=lambda_z_points,
        exclude=exclude,
        lambda_z_exclude=lambda_z_exclude,
        settings=settings,
    )
    choice, values, errors = analyse(data, settings)
    return tabulate(data, choice, settings, values, errors, exclude or {}, lambda_z_exclude or {})


def parameter_names(route: str) -> tuple[str, ...]:
    """Return the names `nca` gives for a route, in order.

    Examples
    --------
    >>> parameter_names("tissue")[:3], "cl" in parameter_names("tissue")
    (('cmax', 'tmax', 'cmin'), False)
    """
    return tuple(p.name for p in for_route(route))
