"""Graphical analysis: Patlak's and Logan's plots, their reference forms, and MA1, for one curve or thousands.

Late in a study many models turn into a straight line whose slope is what is wanted, whatever the model was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.graphical.frames import Floats, Frames, InputCurve, over_frames, spelled
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive

Bools = NDArray[np.bool_]

_BIAS = 0.05  # relative difference of Logan's and MA1's volumes that is called noise bias
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class PlotPoints:
    """The points of a plot and the line through them, as data.

    Parameters
    ----------
    x, y, line : (T,) one for each frame; NaN where the frame gives no point. MA1 has the tissue values as `y`.
    used : (T,) the points the line rests on.
    x_unit, y_unit : their units.
    """

    x: Floats
    y: Floats
    line: Floats
    used: Bools
    x_unit: str
    y_unit: str


@dataclass(frozen=True)
class GraphicalResult:
    """The graphical analysis of one tissue curve.

    Parameters
    ----------
    estimates : by name, each with standard error, interval and flags, or the reason why it is missing.
    points : the plot as data.
    t_star_h : start of the first frame on the line, in hours; NaN without a line.
    worst_pct : largest deviation of a used point from the line, percent of the line.
    df : degrees of freedom behind the intervals.
    """

    estimates: dict[str, Estimate]
    points: PlotPoints
    t_star_h: float
    worst_pct: float
    df: float

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]


@dataclass(frozen=True, eq=False)
class GraphicalTable:
    """The graphical analysis of many curves; ``table[i]`` is the `GraphicalResult` of curve i.

    Parameters
    ----------
    values, se : by name, (P,) in the units of `units`; NaN where missing.
    t_star_h : (P,) start of the first frame on the line.
    """

    values: dict[str, Floats]
    se: dict[str, Floats]
    units: dict[str, str]
    t_star_h: Floats
    _plot: _Plot
    _fit: _Fit
    _used: Bools
    _settings: _Settings
    _flags: dict[str, Bools]

    def __len__(self) -> int:
        return len(self.t_star_h)

    def __getitem__(self, curve: int) -> GraphicalResult:
        return _result(self, range(len(self))[curve])


@dataclass(frozen=True)
class _Settings:
    method: str
    names: tuple[str, ...]
    dimensions: tuple[str, ...]
    t_star_h: float | None
    max_error_pct: float
    unit: str
    input_unit: str
    level: float


@dataclass(frozen=True, eq=False)
class _Plot:
    """y = first * u + second * v at the usable points, (P, T); `x` is what is drawn along the axis."""

    frames: Frames
    u: Floats
    v: Floats
    y: Floats
    x: Floats
    weight: Floats
    usable: Bools


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weighted least squares of two regressors, for every curve at once; (P,) unless said."""

    first: Floats
    second: Floats
    first_var: Floats
    second_var: Floats
    covariance: Floats
    line: Floats  # (P, T)
    n: Floats
    worst: Floats


def patlak(
    frames: Frames,
    tissue: ArrayLike,
    plasma: InputCurve,
    *,
    t_star_h: float | None = None,
    max_error_pct: float = 10.0,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    unit: str = "au",
    input_unit: str = "",
    level: float = 0.95,
) -> GraphicalTable:
    """Return the net uptake rate of a tracer that is trapped, from Patlak's plot.

    Parameters
    ----------
    frames : of the scan, T of them.
    tissue : (T,) or (P, T) mean tissue values of each frame, decay corrected; NaN leaves a frame out.
    plasma : the input, in the same terms (parent tracer, decay corrected).
    t_star_h : frames that start before it are left out. None takes the earliest start from which no point
        lies further than `max_error_pct` of the line from the line.
    max_error_pct : that limit, in percent; points beyond it flag a given `t_star_h` as ``off_line``.
    weights : (T,) or (P, T) relative weights of the points of the plot; None weighs them equally, as the plot does.
    timing : ``mean`` averages both axes over the frame, which keeps the line exact; ``mid`` takes the
        middle of each frame, as older programs do.
    unit, input_unit : of tissue and input; an empty `input_unit` is the tissue's.
    level : level of the intervals.

    Returns
    -------
    GraphicalTable : `ki` (tissue per plasma and hour) and `intercept` (tissue per plasma).

    Raises
    ------
    ValueError : shapes, weights or settings that cannot be used, or an input that ends before the frames do.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> table = patlak(frames, [1.1, 1.3, 1.5, 1.7], InputCurve.of([0, 4], [2, 2]), t_star_h=0)
    >>> ki = table[0]["ki"]
    >>> round(ki.value, 12), ki.unit, round(table[0]["intercept"].value, 12)
    (0.1, '1/h', 0.5)

    Notes
    -----
    Patlak CS, Blasberg RG, Fenstermacher JD (1983) J Cereb Blood Flow Metab 3:1. The relation is linear in time
    integrals, so it holds for means over frames as it does at a moment.
    """
    s = _settings("patlak", ("ki", "intercept"), ("value/dose/time", "value/dose"), t_star_h, max_error_pct, level)
    return _patlak(frames, tissue, plasma, weights, timing, _with_units(s, unit, input_unit))


def reference_patlak(
    frames: Frames,
    tissue: ArrayLike,
    reference: InputCurve | ArrayLike,
    *,
    t_star_h: float | None = None,
    max_error_pct: float = 10.0,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    unit: str = "au",
    level: float = 0.95,
) -> GraphicalTable:
    """Return the net uptake rate relative to a tissue that does not trap the tracer.

    Parameters
    ----------
    reference : (T,) frame means of the reference tissue, or an `InputCurve`; the other parameters as in `patlak`.

    Returns
    -------
    GraphicalTable : `ki_ref` (1/h) and `intercept`.

    Raises
    ------
    ValueError : as `patlak`.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> table = reference_patlak(frames, [3, 5, 7, 9], [2, 2, 2, 2], t_star_h=0)
    >>> round(table[0]["ki_ref"].value, 12)
    1.0

    Notes
    -----
    Patlak CS, Blasberg RG (1985) J Cereb Blood Flow Metab 5:584.
    """
    names, dimensions = ("ki_ref", "intercept"), ("1/time", "1")
    s = _settings("reference patlak", names, dimensions, t_star_h, max_error_pct, level)
    return _patlak(frames, tissue, reference, weights, timing, _with_units(s, unit, ""))


def logan(
    frames: Frames,
    tissue: ArrayLike,
    plasma: InputCurve,
    *,
    t_star_h: float | None = None,
    max_error_pct: float = 10.0,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    unit: str = "au",
    input_unit: str = "",
    level: float = 0.95,
) -> GraphicalTable:
    """Return the distribution volume of a reversible tracer from Logan's plot.

    Parameters
    ----------
    parameters : as in `patlak`; the frames start at 0 h, and every frame has a tissue value.

    Returns
    -------
    GraphicalTable : `vt` (tissue per plasma) and `intercept` (h).

    Raises
    ------
    ValueError : as `patlak`, or frames that start late.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> table = logan(frames, [6, 6, 6, 6], InputCurve.of([0, 4], [2, 2]), t_star_h=0)
    >>> round(table[0]["vt"].value, 12)
    3.0

    Notes
    -----
    Logan J and others (1990) J Cereb Blood Flow Metab 10:740. Noise in the tissue curve stands in both axes and
    pulls the slope down: Slifstein M, Laruelle M (2000) J Nucl Med 41:2083. When `ma1` on the same points
    differs by more than 5 %, the flag ``noise_bias`` is raised; the standard error does not hold that bias.
    """
    s = _settings("logan", ("vt", "intercept"), ("value/dose", "time"), t_star_h, max_error_pct, level)
    _, total = over_frames(frames, plasma, timing)
    return _logan(frames, tissue, total, weights, timing, _with_units(s, unit, input_unit))


def reference_logan(
    frames: Frames,
    tissue: ArrayLike,
    reference: InputCurve | ArrayLike,
    *,
    k2_prime_per_h: float | None = None,
    t_star_h: float | None = None,
    max_error_pct: float = 10.0,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    unit: str = "au",
    level: float = 0.95,
) -> GraphicalTable:
    """Return the distribution volume ratio of a tissue to a reference tissue from Logan's plot.

    Parameters
    ----------
    reference : (T,) frame means of the reference tissue, or an `InputCurve`.
    k2_prime_per_h : efflux rate of the reference tissue in 1/h (60 times the usual 1/min). None leaves its
        term out, which is right when the two curves' ratio has become constant.
    others : as in `logan`.

    Returns
    -------
    GraphicalTable : `dvr`, `bp_nd` (dvr - 1) and `intercept` (h).

    Raises
    ------
    ValueError : as `logan`, or a k2' that is not positive.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> table = reference_logan(frames, [6, 6, 6, 6], [2, 2, 2, 2], t_star_h=0)
    >>> round(table[0]["dvr"].value, 12), round(table[0]["bp_nd"].value, 12)
    (3.0, 2.0)

    Notes
    -----
    Logan J and others (1996) J Cereb Blood Flow Metab 16:834.
    """
    names, dimensions = ("dvr", "intercept", "bp_nd"), ("1", "time", "1")
    s = _settings("reference logan", names, dimensions, t_star_h, max_error_pct, level)
    if k2_prime_per_h is not None and not k2_prime_per_h > 0:
        raise ValueError(
            f"k2_prime_per_h is {k2_prime_per_h}, expected a rate above zero in 1/h; leave it out if unknown"
        )
    value, total = over_frames(frames, reference, timing)
    total = total if k2_prime_per_h is None else total + value / k2_prime_per_h
    return _logan(frames, tissue, total, weights, timing, _with_units(s, unit, ""))


def ma1(
    frames: Frames,
    tissue: ArrayLike,
    plasma: InputCurve,
    *,
    t_star_h: float | None = None,
    max_error_pct: float = 10.0,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    unit: str = "au",
    input_unit: str = "",
    level: float = 0.95,
) -> GraphicalTable:
    """Return the distribution volume by Ichise's MA1, which noise biases less than Logan's plot.

    Parameters
    ----------
    parameters : as in `logan`; the deviation behind `max_error_pct` is that of the fitted tissue curve, and
        `weights` are those of the tissue values.

    Returns
    -------
    GraphicalTable : `vt` (tissue per plasma) and `intercept` (h), with errors by the delta method.

    Raises
    ------
    ValueError : as `logan`.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> table = ma1(frames, [2, 4, 6, 8], InputCurve.of([0, 4], [1, 2]), t_star_h=0)
    >>> table[0]["vt"].unit
    '1'

    Notes
    -----
    Ichise M and others (2002) J Cereb Blood Flow Metab 22:1271: tissue = -(vt/b) input integral + (1/b) tissue
    integral.
    """
    s = _settings("ma1", ("vt", "intercept"), ("value/dose", "time"), t_star_h, max_error_pct, level)
    _, total = over_frames(frames, plasma, timing)
    m, w = _curves(frames, tissue, weights)
    plot = _ma1_plot(frames, m, w, total, timing)
    used, fit = _choose(plot, s)
    vt, b, vt_var, b_var = _ma1_numbers(fit)
    return _table(plot, used, fit, _with_units(s, unit, input_unit), (vt, b), (vt_var, b_var), {})


def _settings(
    method: str, names: tuple[str, ...], dimensions: tuple[str, ...], t_star: float | None, limit: float, level: float
) -> _Settings:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1; write 0.95 for 95 %")
    if not limit > 0:
        raise ValueError(f"max_error_pct is {limit}, expected percent above zero; write 10 for 10 %")
    if t_star is not None and not math.isfinite(t_star):
        raise ValueError(f"t_star_h is {t_star}, expected hours; leave it out to have it chosen")
    return _Settings(method, names, dimensions, t_star, limit, "au", "au", level)


def _with_units(s: _Settings, unit: str, input_unit: str) -> _Settings:
    return replace(s, unit=unit, input_unit=input_unit or unit)


def _curves(frames: Frames, tissue: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats]:
    m = np.atleast_2d(np.asarray(tissue, dtype=np.float64))
    if m.ndim != 2 or m.shape[1] != len(frames):
        raise ValueError(
            f"tissue has shape {np.shape(tissue)}, expected ({len(frames)},) or (curves, {len(frames)}); "
            "give one mean for each frame"
        )
    w = np.ones(len(frames)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape not in ((len(frames),), m.shape) or not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(
            f"weights have shape {w.shape}, expected ({len(frames)},) or {m.shape}, none below zero; "
            "give one weight for each frame, 0 to leave it out"
        )
    return m, np.broadcast_to(w, m.shape)


def _patlak(
    frames: Frames,
    tissue: ArrayLike,
    source: InputCurve | ArrayLike,
    weights: ArrayLike | None,
    timing: str,
    s: _Settings,
) -> GraphicalTable:
    m, w = _curves(frames, tissue, weights)
    value, total = over_frames(frames, source, timing)
    usable = np.isfinite(m) & (value > 0)
    divisor = np.where(value > 0, value, 1.0)
    x = np.broadcast_to(total / divisor, m.shape)
    y = np.where(usable, m / divisor, 0.0)
    plot = _Plot(frames, x, np.ones_like(y), y, x, w, usable & (w > 0))
    used, fit = _choose(plot, s)
    return _table(plot, used, fit, s, (fit.first, fit.second), (fit.first_var, fit.second_var), {})


def _logan(
    frames: Frames, tissue: ArrayLike, total: Floats, weights: ArrayLike | None, timing: str, s: _Settings
) -> GraphicalTable:
    m, w = _curves(frames, tissue, weights)
    own = frames.integrate(m, timing)
    usable = _whole(m) & (m > 0) & (w > 0)
    divisor = np.where(usable, m, 1.0)
    x = np.where(usable, total / divisor, 0.0)
    y = np.where(usable, own / divisor, 0.0)
    plot = _Plot(frames, x, np.ones_like(y), y, x, w, usable)
    used, fit = _choose(plot, s)
    other, *_ = _ma1_numbers(_regress(_ma1_plot(frames, m, np.ones_like(m), total, timing), used))
    with np.errstate(invalid="ignore"):
        biased = np.abs(other - fit.first) > _BIAS * np.abs(other)
    values, variances = (fit.first, fit.second, fit.first - 1), (fit.first_var, fit.second_var, fit.first_var)
    return _table(plot, used, fit, s, values[: len(s.names)], variances[: len(s.names)], {"noise_bias": biased})


def _whole(m: Floats) -> Bools:
    """Curves without a gap: the integral of the others is unknown from the gap on, and with it the plot."""
    return np.isfinite(m).all(axis=1, keepdims=True) & np.ones_like(m, dtype=bool)


def _ma1_plot(frames: Frames, m: Floats, w: Floats, total: Floats, timing: str) -> _Plot:
    own = frames.integrate(m, timing)
    usable = _whole(m) & (w > 0)
    u = np.broadcast_to(total, m.shape)
    return _Plot(frames, u, np.where(usable, own, 0.0), np.where(usable, m, 0.0), u, w, usable)


def _ma1_numbers(fit: _Fit) -> tuple[Floats, Floats, Floats, Floats]:
    """Volume -g1/g2 and intercept 1/g2 with their variances; missing where the curve does not turn towards washout."""
    with np.errstate(divide="ignore", invalid="ignore"):
        g1, g2 = fit.first, np.where(fit.second < 0, fit.second, np.nan)
        vt, b = -g1 / g2, 1 / g2
        vt_var = (fit.first_var + 2 * vt * fit.covariance + vt**2 * fit.second_var) / g2**2
        return vt, b, vt_var, fit.second_var * b**4


def _regress(p: _Plot, used: Bools) -> _Fit:
    """Weighted least squares with the second regressor projected out of the first, which keeps the digits."""
    w = np.where(used, p.weight, 0.0)
    n = used.sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        vv = np.sum(w * p.v**2, axis=1)
        share = np.sum(w * p.u * p.v, axis=1) / vv
        rest = p.u - share[:, None] * p.v
        rr = np.sum(w * rest**2, axis=1)
        rr = np.where(rr > 1e-20 * np.sum(w * p.u**2, axis=1), rr, np.nan)
        first = np.sum(w * rest * p.y, axis=1) / rr
        second = np.sum(w * p.v * p.y, axis=1) / vv - first * share
        line = first[:, None] * p.u + second[:, None] * p.v
        square = np.sum(w * (p.y - line) ** 2, axis=1) / np.where(n > 2, n - 2, np.nan)
        worst = np.max(np.where(used, np.abs(p.y - line) / np.abs(line), 0.0), axis=1)
        first_var, second_var = square / rr, square * (1 / vv + share**2 / rr)
    return _Fit(first, second, first_var, second_var, -share * first_var, line, n, worst)


def _choose(p: _Plot, s: _Settings) -> tuple[Bools, _Fit]:
    """Take the points from t* on; without one, from the earliest frame after which all points lie near the line."""
    if s.t_star_h is not None:
        used = p.usable & (p.frames.start_h >= s.t_star_h - 1e-9)
        return used, _regress(p, used)
    start = np.full(len(p.y), len(p.frames))
    for k in range(len(p.frames)):
        fit = _regress(p, p.usable & (np.arange(len(p.frames)) >= k))
        near = (fit.n >= _FEWEST) & (fit.worst <= s.max_error_pct / 100)
        start = np.where((start == len(p.frames)) & near, k, start)
    used = p.usable & (np.arange(len(p.frames)) >= start[:, None])
    return used, _regress(p, used)


def _table(
    p: _Plot,
    used: Bools,
    fit: _Fit,
    s: _Settings,
    values: tuple[Floats, ...],
    variances: tuple[Floats, ...],
    flags: dict[str, Bools],
) -> GraphicalTable:
    enough = fit.n >= _FEWEST
    first = np.argmax(used, axis=1)
    flags = {**flags, "off_line": fit.worst > s.max_error_pct / 100}
    out: tuple[dict[str, Floats], dict[str, Floats], dict[str, str]] = ({}, {}, {})
    for name, dimension, value, var in zip(s.names, s.dimensions, values, variances, strict=True):
        unit = derive(dimension, s.unit, spelled(s.input_unit)) if dimension != "1" else derive("1", s.unit)
        out[0][name] = np.where(enough, value, np.nan) * unit.factor
        out[1][name] = np.where(enough, np.sqrt(var), np.nan) * unit.factor
        out[2][name] = unit.unit
    t_star = np.where(enough, p.frames.start_h[first], np.nan)
    return GraphicalTable(*out, t_star, p, fit, used, s, flags)


def _result(table: GraphicalTable, i: int) -> GraphicalResult:
    s, p, fit = table._settings, table._plot, table._fit
    n = int(fit.n[i])
    df = float(n - 2) if n >= _FEWEST else math.nan
    q = student(s.level, df) if n >= _FEWEST else math.nan
    estimates = {}
    for name in s.names:
        value, se = float(table.values[name][i]), float(table.se[name][i])
        if not math.isfinite(value):
            estimates[name] = Estimate(name, unit=table.units[name], method=s.method, n=n, reason=_why(table, i))
            continue
        own = {"negative": value < 0 and name not in {"intercept", "bp_nd"}, "imprecise": se >= 0.5 * abs(value)}
        raised = {flag for flag, where in table._flags.items() if where[i]} | {f for f, is_so in own.items() if is_so}
        low, high = value - q * se, value + q * se
        estimates[name] = Estimate(name, value, se, low, high, table.units[name], s.method, n, tuple(sorted(raised)))
    drawn = {key: np.where(p.usable[i], a[i], np.nan) for key, a in (("x", p.x), ("y", p.y), ("line", fit.line))}
    axes = {
        "patlak": ("h", derive("value/dose", s.unit, spelled(s.input_unit)).unit),
        "ma1": (f"{s.input_unit}*h", s.unit),
    }
    x_unit, y_unit = axes.get(s.method.removeprefix("reference "), ("h", "h"))
    points = PlotPoints(**drawn, used=table._used[i], x_unit=x_unit, y_unit=y_unit)
    return GraphicalResult(estimates, points, float(table.t_star_h[i]), 100 * float(fit.worst[i]), df)


def _why(table: GraphicalTable, i: int) -> str:
    s, n = table._settings, int(table._fit.n[i])
    if int(table._plot.usable[i].sum()) < _FEWEST:
        return f"fewer than {_FEWEST} frames give a point (values missing or not above zero)"
    if s.t_star_h is None and n == 0:
        return f"no {_FEWEST} or more last points lie within {s.max_error_pct:g} % of a line"
    if n < _FEWEST:
        return f"fewer than {_FEWEST} usable frames start at or after {s.t_star_h:g} h"
    if s.method == "ma1":
        return "the tissue curve shows no washout, so no distribution volume follows"
    return "the points have no spread along the x axis"
