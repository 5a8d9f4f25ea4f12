"""One model fitted to thousands of curves as arrays: the answers of `fit`, without an object for each.

For regions of dynamic scans, organs of many animals and simulated studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import NO_CURVE, NO_ERROR, NO_LOGARITHM, FitResult, error_scale, fit
from evbiodist.kinetics.fitting.problem import Freedom, Problem
from evbiodist.kinetics.fitting.search import UNREPEATED_CV, FitSettings, Found, Spread, search
from evbiodist.kinetics.fitting.start import Shape, candidates
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses, Input
from evbiodist.kinetics.models.solve import Design
from evbiodist.kinetics.nca.propagate import quantile

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FitTable:
    """The fits of many curves as arrays; ``table[i]`` is the `FitResult` of curve i.

    Parameters
    ----------
    names : of the parameters, in the order of the columns.
    theta, se, ci_low, ci_high : (B, p) on the natural scale; NaN where there is no fit, se NaN where held or at a bound.
    covariance : (B, q, q) of the free search coordinates.
    chi2_red : (B,) weighted sum of squares over degrees of freedom; df : (B,).
    converged : (B,) whether the search came to rest.
    reason : why a curve has no fit; empty where it has.
    """

    names: tuple[str, ...]
    theta: FloatArray
    se: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    covariance: FloatArray
    chi2_red: FloatArray
    df: FloatArray
    converged: NDArray[np.bool_]
    reason: tuple[str, ...]
    _one: Any

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, curve: int) -> FitResult:
        found: FitResult = self._one(range(len(self))[curve])
        return found


def fit_many(
    time_h: ArrayLike,
    value: ArrayLike,
    model: str | RateGraph,
    *,
    dose: ArrayLike | Doses = 100.0,
    dose_unit: str = "pct_id",
    unit: str = "au",
    se: ArrayLike | None = None,
    end_h: ArrayLike | None = None,
    inputs: Mapping[str, Input] | None = None,
    settings: FitSettings | None = None,
    **more: Any,
) -> FitTable:
    """Fit a model that sees one matrix to many curves in one batched search.

    Parameters
    ----------
    time_h : (T,) or (B, T) hours, or starts of frames with `end_h`; value : (B, T), NaN where not measured.
    model : a name of `evbiodist models`, or a graph.
    dose : scalar or (B,) bolus at 0 h, or `Doses`; inputs : measured curves instead.
    se : scalar, (T,), (B, 1) or (B, T) standard errors; without them errors are taken as proportional and found from residuals.
    dose_unit, unit, settings : as in `fit`; single settings can be given by name.

    Returns
    -------
    FitTable

    Raises
    ------
    ValueError : shapes that do not fit, or a model that sees more than one matrix.

    Examples
    --------
    >>> t = np.array([0.5, 1.0, 2.0, 4.0])
    >>> table = fit_many(t, [16 * np.exp(-0.5 * t), 8 * np.exp(-0.25 * t)], "one_compartment_iv", dose=[32, 32])
    >>> table.theta.round(6).tolist(), table.reason
    ([[1.0, 2.0], [1.0, 4.0]], ('', ''))
    """
    settings = replace(settings or FitSettings(), **more)
    graph = model if isinstance(model, RateGraph) else build(model)
    if len(graph.seen) != 1:
        raise ValueError(
            f"{graph.name} sees {', '.join(graph.seen)}; fit_many takes models of one curve, fit takes the others"
        )
    seen = np.atleast_2d(np.asarray(value, dtype=np.float64))
    t, ends = _times("time_h", time_h, seen), None if end_h is None else _times("end_h", end_h, seen)
    error = np.asarray(0.0 if se is None else se, dtype=np.float64)
    if error.shape not in ((), seen.shape[1:], seen.shape, (len(seen), 1)):
        raise ValueError(f"se has shape {error.shape} and value {seen.shape}; give one number, one for each column, one for "
                         "each curve as (B, 1), or one for each value")  # fmt: skip
    if (error < 0).any():
        raise ValueError("se has values below 0; expected standard errors of 0 or more")
    error = np.broadcast_to(error, seen.shape)
    if inputs is None:
        given = dose if isinstance(dose, Doses) else Doses(_per_curve(dose, len(seen)))
        inputs = {graph.ports[0].name: given}
    used = np.isfinite(seen) & np.isfinite(error)
    seen = np.where(used, seen, np.nan)
    freedom = Freedom.of(graph, settings.fixed, settings.ties)
    design = Design(t, ends, inputs=inputs)
    problem = Problem(graph, design, np.arange(seen.shape[1]), seen, np.ones_like(seen), None, freedom, settings.scale,
                      settings.loss)  # fmt: skip
    top = np.nanmax(np.where(used, np.abs(seen), 0.0), axis=1)
    cv = np.full((len(seen), 1), UNREPEATED_CV if se is None else 0.0)
    spread = Spread(np.zeros(seen.shape[1], np.intp), np.where(used, error, 0.0), np.zeros(seen.shape), np.ones(seen.shape),
                    cv, top[:, None])  # fmt: skip
    middle = t if ends is None else (t + ends) / 2
    shown = used | ~used.any(axis=1, keepdims=True)  # a curve without a value starts anywhere
    shape = Shape(np.where(shown, np.broadcast_to(middle, seen.shape), np.nan), np.where(shown & ~used, 1.0, seen))
    amount = inputs[graph.ports[0].name]
    total = np.atleast_2d(amount.amount).sum(axis=1) if isinstance(amount, Doses) else np.ones(1)
    with np.errstate(all="ignore"):
        starts = candidates(graph, {graph.seen[0]: shape}, np.broadcast_to(total, (len(seen),)).astype(float), design,
                            settings.scattered)  # fmt: skip
    found = search(problem, spread, np.where(used, seen, 1.0), starts, settings)

    def one(i: int) -> FitResult:
        keep = used[i]
        row = i if len(t) > 1 else 0
        data = curve_data(t[row][keep], seen[i][keep], seen=graph.seen[0], unit=unit,
                          se=None if se is None else error[i][keep], end_h=None if ends is None else ends[row][keep])  # fmt: skip
        mine = {k: v.take(slice(i, i + 1)) for k, v in inputs.items()}
        return fit(data, graph, inputs=mine, dose_unit=dose_unit, settings=settings)

    why = _why_not(graph, freedom, used, seen, error, settings)
    why = [w or (r if not np.isfinite(c) else "") for w, r, c in zip(why, found.reason, found.cost, strict=True)]
    return _tabulate(found, tuple(why), settings, one)


def _why_not(
    graph: RateGraph,
    freedom: Freedom,
    used: NDArray[np.bool_],
    seen: FloatArray,
    error: FloatArray,
    settings: FitSettings,
) -> list[str]:
    """Return why each curve cannot be fitted, as `fit` says it; empty where it can."""
    size, out = len(freedom.names), []
    for known, y, s in zip(used, seen, error, strict=True):
        count = int(known.sum())
        few = f"{count} values cannot determine the {size} parameters of {graph.name}" if count <= size else ""
        no_curve = "" if (y[known] > 0).any() else NO_CURVE
        no_log = NO_LOGARITHM if settings.scale == "log" and (y[known] <= 0).any() else ""
        no_error = NO_ERROR if settings.weights == "given" and not (s[known] > 0).all() else ""
        out.append(few or no_curve or no_log or no_error)
    return out


def _times(name: str, given: ArrayLike, seen: FloatArray) -> FloatArray:
    t = np.atleast_2d(np.asarray(given, dtype=np.float64))
    if t.shape not in ((1, seen.shape[1]), seen.shape):
        raise ValueError(
            f"{name} has shape {t.shape} and value {seen.shape}; give one time for each value, or for each column"
        )
    return t


def _per_curve(dose: ArrayLike, curves: int) -> FloatArray:
    amount = np.asarray(dose, dtype=np.float64)
    if amount.ndim == 0:
        return amount[None]
    if amount.shape != (curves,):
        raise ValueError(f"dose has shape {amount.shape}; give one number, or one for each of the {curves} curves")
    return amount[:, None]


def _tabulate(found: Found, reason: tuple[str, ...], settings: FitSettings, one: Any) -> FitTable:
    problem, u, bound = found.problem, found.u, found.at_bound
    graph, freedom = problem.graph, problem.freedom
    df = (np.isfinite(problem.value).sum(axis=1) - u.shape[1]).astype(float)
    failed = np.array([bool(r) for r in reason])
    with np.errstate(all="ignore"):
        J = problem(u, np.arange(len(u)))[1]
        J = np.where(bound[:, :, None] | failed[:, None, None], 0.0, np.nan_to_num(J))
        normal = J @ J.swapaxes(1, 2)
        length = np.sqrt(np.einsum("bii->bi", normal))
        length = np.where(length > 0, length, 1.0)
        scaled = normal / (length[:, :, None] * length[:, None, :])
        inverse = np.linalg.pinv(scaled, rcond=1e-12, hermitian=True) / (length[:, :, None] * length[:, None, :])
        chi2_red = np.where(failed, np.nan, found.cost / df)
        scale, reach_df = error_scale(chi2_red, df, settings.weights == "given")
        free = inverse * scale[:, None, None]
        full = freedom.full(u)
        theta = graph.from_search(full)
        se_u = np.sqrt(np.einsum("bii->bi", freedom.link @ free @ freedom.link.T))
        moved = freedom.link.any(axis=1) & (bound @ freedom.link.T == 0)
        se_u = np.where(moved & ~failed[:, None], se_u, np.nan)
        reach = quantile(settings.level, reach_df)[:, None] * se_u
        low, high = (graph.from_search(full - reach), graph.from_search(full + reach))
        se = se_u * graph.search_slopes(theta)
    theta = np.where(failed[:, None], np.nan, theta)
    return FitTable(graph.names, theta, se, low, high, free, chi2_red, df,
                    np.array([not why for why in found.reason]), reason, one)  # fmt: skip
