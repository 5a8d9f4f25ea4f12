"""Starting values read off the curves, so that nobody has to guess them; for many curves at once.

Several candidates are made, from stripping a curve at different places to plain magnitudes; the search tries the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import ParameterSpec, RateGraph
from evbiodist.kinetics.models.solve import Design

FloatArray = NDArray[np.float64]
#: Shares of a curve's samples after which the last phase is taken to rule.
_SPLITS = (0.5, 0.34, 0.67)
_SEED = 20150601


@dataclass(frozen=True, eq=False)
class Shape:
    """A curve of each of B problems: rising times and means (B, T), NaN where padded."""

    time: FloatArray
    mean: FloatArray


def candidates(
    graph: RateGraph, curves: Mapping[str, Shape], dose: FloatArray, design: Design, scattered: int
) -> FloatArray:
    """Return starting values for every parameter, shape (K, B, p), the best guess first.

    Parameters
    ----------
    graph : the model.
    curves : by what is observed.
    dose : (B,) amount given; for measured inputs it does not matter.
    design : times and inputs.
    scattered : how many more to scatter around the guesses.

    Curve stripping: Gibaldi M, Perrier D (1982) Pharmacokinetics, app. C.
    """
    with np.errstate(all="ignore"):  # a matrix that is nowhere above zero has no shape; magnitudes stand in for it
        return _candidates(graph, curves, dose, design, scattered)


def _candidates(
    graph: RateGraph, curves: Mapping[str, Shape], dose: FloatArray, design: Design, scattered: int
) -> FloatArray:
    first = curves[graph.seen[0]]
    if any(p.name != "dose" for p in graph.ports):
        guesses = _from_input(graph, first, design)
    else:
        guesses = _from_dose(graph, curves, first, dose)
    sizes = _sizes(first, dose)
    found = [_complete(graph, guess, sizes) for guess in guesses]
    rng = np.random.default_rng(_SEED)
    log, logit = graph.scales
    for i in range(scattered):  # the same scatter for every problem, so that no problem depends on its neighbours
        away = np.exp(rng.normal(0, 1.0, len(graph.names)))
        base = found[i % len(found)]
        found.append(np.where(log, base * away, np.where(logit, base * away / (1 - base + base * away), base)))
    return np.stack(found)


def _complete(graph: RateGraph, guess: Mapping[str, FloatArray], sizes: Mapping[str, FloatArray]) -> FloatArray:
    """Fill in by magnitude what no guess names, and keep everything inside its bounds."""
    columns = []
    for p in graph.parameters:
        begin = _magnitude(p, sizes)
        value = guess.get(p.name, begin)
        if p.scale == "log":
            value = np.where(np.isfinite(value) & (value > 0), value, begin)
        if p.fixed is not None:
            value = np.full(begin.shape, p.fixed)
        low, high = -np.inf if p.lower is None else p.lower, np.inf if p.upper is None else p.upper
        columns.append(np.minimum(np.maximum(value, low), high))
    return np.stack(columns, axis=1)


def _sizes(shape: Shape, dose: FloatArray) -> dict[str, FloatArray]:
    """Return the size that a parameter of each dimension has for such curves."""
    top = np.max(np.where(np.isfinite(shape.mean), np.abs(shape.mean), 0.0), axis=1)
    last = np.max(np.where(np.isfinite(shape.time), shape.time, 0.0), axis=1)
    top, last = np.where(top > 0, top, 1.0), np.where(last > 0, last, 1.0)
    return {"dose/value": dose / top, "dose/value/time": dose / (top * last / 3), "1/time": 3 / last, "time": last / 10,
            "value": top, "dose": dose, "1": np.ones(len(dose))}  # fmt: skip


def _magnitude(p: ParameterSpec, sizes: Mapping[str, FloatArray]) -> FloatArray:
    if p.start is not None:
        return np.full(sizes["1"].shape, p.start)
    if p.scale == "log":
        return sizes.get(p.dimension, sizes["1"])
    return np.full(sizes["1"].shape, 0.05 if p.scale == "logit" else 0.0)


# after a dose


def _from_dose(
    graph: RateGraph, curves: Mapping[str, Shape], shape: Shape, dose: FloatArray
) -> list[dict[str, FloatArray]]:
    if "ka" in graph.names:
        return _absorbed(graph, shape, dose)
    organs = [name for name in graph.seen if f"k_in_{name}" in graph.names]
    plain = _plain(shape, dose)
    if organs:
        return [_balanced(graph, organs, curves, shape, dose, plain), _with_organs(plain, organs, curves, shape, dose)]
    phases = 3 if "v3" in graph.names else 2 if "v2" in graph.names else 1
    splits = _SPLITS if phases > 1 else _SPLITS[:1]
    return [*(_disposition(*_strip(shape, phases, split), dose) for split in splits), plain]


def _strip(shape: Shape, phases: int, split: float) -> tuple[FloatArray, FloatArray]:
    """Peel exponentials off curves from the end: amplitudes and rates (B, phases), the slowest first."""
    t, y = shape.time, np.array(shape.mean)
    seen = np.isfinite(t) & np.isfinite(y) & (y > 0)
    t, y = np.where(seen, t, 0.0), np.where(seen, y, 0.0)
    rank = (np.cumsum(seen, axis=1) - 1) / np.maximum(seen.sum(axis=1, keepdims=True) - 1, 1)
    slowest = 0.05 / np.max(t, axis=1)
    rest, amplitudes, rates = y, [], []
    for phase in range(phases):
        begin = split ** (phase + 1) if phase < phases - 1 else 0.0
        end = split**phase if phase else 1.0
        w = (seen & (rank >= begin - 1e-9) & (rank <= end + 1e-9)).astype(float)
        a, k = _log_line(t, rest, w)
        k = np.maximum(k, slowest)
        amplitudes.append(a)
        rates.append(k)
        rest = np.maximum(rest - a[:, None] * np.exp(-k[:, None] * t), 0.01 * rest)
        slowest = 1.5 * k
    return np.stack(amplitudes, axis=1), np.stack(rates, axis=1)


def _log_line(t: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return amplitude and rate (B,) of the exponential through weighted points."""
    n = np.maximum(w.sum(axis=1), 1.0)
    log = np.log(np.where(y > 0, y, 1.0))
    mt, ml = (w * t).sum(axis=1) / n, (w * log).sum(axis=1) / n
    dt = (t - mt[:, None]) * w
    spread = (dt * t).sum(axis=1)
    rate = -(dt * log).sum(axis=1) / np.where(spread > 0, spread, 1.0)
    return np.exp(np.minimum(ml + rate * mt, 600.0)), rate


def _disposition(amplitudes: FloatArray, rates: FloatArray, dose: FloatArray) -> dict[str, FloatArray]:
    """Return clearance, volumes and exchange of the mammillary model with these exponentials.

    The rates of the outer compartments are the zeros of sum A / (s + rate), their exchange its residues: Gibaldi &
    Perrier 1982, ch. 2.
    """
    total = amplitudes.sum(axis=1)
    share = amplitudes / total[:, None]
    v1 = dose / total
    k10 = 1 / (share / rates).sum(axis=1)
    guess = {"v": v1, "v1": v1, "cl": v1 * k10, "k_el": k10}
    if rates.shape[1] == 1:
        return guess
    if rates.shape[1] == 2:
        zeros = (share[:, 0] * rates[:, 1] + share[:, 1] * rates[:, 0])[:, None]
    else:
        a, k = share, rates
        b = a[:, 0] * (k[:, 1] + k[:, 2]) + a[:, 1] * (k[:, 0] + k[:, 2]) + a[:, 2] * (k[:, 0] + k[:, 1])
        c = a[:, 0] * k[:, 1] * k[:, 2] + a[:, 1] * k[:, 0] * k[:, 2] + a[:, 2] * k[:, 0] * k[:, 1]
        root = np.sqrt(np.maximum(b * b - 4 * c, 0.0))
        zeros = np.stack([(b + root) / 2, (b - root) / 2], axis=1)
    slope = (share[:, None, :] / (rates[:, None, :] - zeros[:, :, None]) ** 2).sum(axis=2)  # of -sum A / (s + rate)
    exchange = 1 / slope  # k_out x k_back of each outer compartment
    for i, (name, volume) in enumerate((("q", "v2"), ("q3", "v3"))[: zeros.shape[1]]):
        out = exchange[:, i] / zeros[:, i]
        guess |= {name: out * v1, volume: out * v1 / zeros[:, i]}
    guess["q2"] = guess["q"]
    return guess


def _plain(shape: Shape, dose: FloatArray) -> dict[str, FloatArray]:
    """Return guesses from the area and the start of a curve."""
    c0, area, _ = _landmarks(shape)
    volume, clearance = dose / c0, dose / area
    return {"v": volume, "v1": volume, "v2": 2 * volume, "v3": 5 * volume, "cl": clearance, "q": clearance,
            "q2": clearance, "q3": 0.2 * clearance, "k_el": clearance / volume}  # fmt: skip


def _landmarks(shape: Shape) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the value at 0 h, the area to infinity and the last rate of falling curves, (B,) each."""
    amplitude, _ = _strip(shape, 1, 0.5)
    late = _strip(shape, 2, 0.5)[1][:, 0]
    seen = np.isfinite(shape.time) & np.isfinite(shape.mean)
    y = np.where(seen, np.maximum(shape.mean, 0.0), 0.0)
    first = np.argmax(seen, axis=1)
    row = np.arange(len(y))
    c0 = np.maximum(y[row, first], amplitude[:, 0])
    c0 = np.where(c0 > 0, np.minimum(c0, 10 * np.maximum(y.max(axis=1), 1e-300)), 1.0)
    area = _area(shape, c0) + y[row, y.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)] / late
    return c0, np.where(area > 0, area, 1.0), late


def _area(shape: Shape, at_zero: FloatArray) -> FloatArray:
    seen = np.isfinite(shape.time) & np.isfinite(shape.mean)
    t = np.maximum.accumulate(np.where(seen, shape.time, 0.0), axis=1)
    y = np.maximum(shape.mean, 0.0)
    area, before_t, before_y = np.zeros(len(y)), np.zeros(len(y)), at_zero
    for j in range(t.shape[1]):
        area = area + np.where(
            seen[:, j], (t[:, j] - before_t) * (before_y + np.where(seen[:, j], y[:, j], 0.0)) / 2, 0.0
        )
        before_t = np.where(seen[:, j], t[:, j], before_t)
        before_y = np.where(seen[:, j], y[:, j], before_y)
    return area


def _absorbed(graph: RateGraph, shape: Shape, dose: FloatArray) -> list[dict[str, FloatArray]]:
    """Return guesses for a curve that rises and falls: the fall rules elimination, or (flip-flop) absorption."""
    y = np.where(np.isfinite(shape.mean), shape.mean, -np.inf)
    t_max = np.take_along_axis(shape.time, np.argmax(y, axis=1)[:, None], 1)[:, 0]
    last = np.nanmax(shape.time, axis=1)
    t_max = np.clip(t_max, 1e-3 * last, 0.9 * last)
    falling = Shape(shape.time, np.where(shape.time >= t_max[:, None], shape.mean, np.nan))
    _, late = _strip(falling, 1, 0.0)
    slow = np.minimum(late[:, 0], 0.9 / t_max)
    area = _area(shape, np.zeros(len(dose)))
    area = area + np.maximum(np.nanmin(np.where(np.isfinite(shape.mean), shape.mean, np.nan), axis=1), 0.0) / slow
    clearance = dose / np.where(area > 0, area, 1.0)
    guesses = []
    for fast in (2.5 / t_max, 6.0 / t_max, 1.2 / t_max):
        fast = np.maximum(fast, 1.3 * slow)
        for ka, k in ((fast, slow), (slow, fast)):
            volume = clearance / k
            guesses.append({"ka": ka, "cl": clearance, "v": volume, "v1": volume, "v2": volume, "q": clearance,
                            "v3": 3 * volume, "q2": clearance, "q3": 0.3 * clearance, "lag": 0.1 * t_max})  # fmt: skip
    return guesses


def _with_organs(
    guess: dict[str, FloatArray], organs: list[str], curves: Mapping[str, Shape], blood: Shape, dose: FloatArray
) -> dict[str, FloatArray]:
    """Add uptake from an organ's first amounts over the blood seen until then, and return from its last slope."""
    out, volume = dict(guess), guess["v"]
    total = np.zeros(len(dose))
    for organ in organs:
        curve = curves[organ]
        seen_until = _exposure(blood, dose / volume, curve.time) * volume[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(seen_until > 0, curve.mean / seen_until, np.nan)
        good = np.isfinite(rate) & (rate > 0)
        first = np.argmax(good, axis=1)
        uptake = np.where(good.any(axis=1), rate[np.arange(len(rate)), first], 1e-3 / np.nanmax(curve.time, axis=1))
        last = np.nanmax(curve.time, axis=1)
        back = np.maximum(_strip(curve, 2, 0.5)[1][:, 0], 0.1 / last)
        out |= {f"k_in_{organ}": uptake, f"k_out_{organ}": back, f"k_keep_{organ}": 0.3 * back}
        total = total + uptake
    out["k_el"] = np.maximum(guess["k_el"] - total, 0.1 * guess["k_el"])
    out["k_ex"] = 0.3 * out["k_el"]
    return out


def _exposure(blood: Shape, c0: FloatArray, at: FloatArray) -> FloatArray:
    """Return the area under blood until each time (B, T)."""
    out = np.zeros(at.shape)
    whole = _running_area(blood, c0)
    for b in range(len(at)):
        seen = np.isfinite(blood.time[b]) & np.isfinite(blood.mean[b])
        out[b] = np.interp(at[b], np.r_[0.0, blood.time[b, seen]], np.r_[0.0, whole[b, seen]])
    return out


def _running_area(shape: Shape, at_zero: FloatArray) -> FloatArray:
    """Return the area from 0 h until each sample (B, T), logarithmic where values fall."""
    rows, columns = shape.time.shape
    out = np.zeros((rows, columns))
    area, t, y = np.zeros(rows), np.zeros(rows), at_zero
    for j in range(columns):
        here, now = shape.time[:, j], np.maximum(shape.mean[:, j], 0.0)
        seen = np.isfinite(here) & np.isfinite(now)
        falls = seen & (now > 0) & (now < 0.999 * y)
        mean = np.where(falls, (y - now) / np.log(np.where(falls, y / np.where(falls, now, 1.0), 2.0)), (y + now) / 2)
        area = area + np.where(seen, (here - t) * mean, 0.0)
        t, y = np.where(seen, here, t), np.where(seen, now, y)
        out[:, j] = area
    return out


def _balanced(
    graph: RateGraph, organs: list[str], curves: Mapping[str, Shape], blood: Shape, dose: FloatArray,
    plain: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:  # fmt: skip
    """Return guesses by linear regression on measured areas: uptake and return per organ, and the body's balance.

    What an organ holds is k_in V x area of blood - k_out x area of the organ; what is left of the dose in blood and
    lost is V x blood + V k_el x area of blood.
    """
    c0 = dose / plain["v"]
    under = _running_area(blood, c0)
    row = np.arange(len(dose))[:, None]
    rest = np.broadcast_to(dose[:, None], blood.time.shape).astype(float)
    out: dict[str, FloatArray] = {}
    for organ in organs:
        curve = curves[organ]
        same = curve.time.shape == blood.time.shape and np.array_equal(curve.time, blood.time, equal_nan=True)
        x = under if same else _exposure(blood, c0, curve.time)
        mine = _running_area(curve, np.zeros(len(dose)))
        y = np.maximum(curve.mean, 0.0)
        seen = np.isfinite(y) & np.isfinite(curve.time)
        y = np.where(seen, y, 0.0)
        w = np.where(seen, 1 / np.maximum(y, 0.05 * np.maximum(y.max(axis=1, keepdims=True), 1e-300)), 0.0)
        back_name = f"k_out_{organ}" in graph.names
        into, back = _two_columns(x * w, -mine * w, y * w) if back_name else (np.zeros(len(dose)), np.zeros(len(dose)))
        alone = (x * w * y * w).sum(axis=1) / np.maximum(((x * w) ** 2).sum(axis=1), 1e-300)
        last = np.nanmax(curve.time, axis=1)
        good = (into > 0) & (back > 0)
        out[f"k_in_{organ}"] = np.where(good, into, alone)
        kept = np.where(good, back, 0.05 / last)
        out |= {f"k_out_{organ}": kept, f"k_keep_{organ}": 0.3 * kept}
        if same:
            rest = rest - np.where(seen, y, 0.0)
        else:
            at = np.array([np.interp(t, curve.time[b][seen[b]], y[b][seen[b]]) for b, t in enumerate(blood.time)])
            rest = rest - np.where(np.isfinite(at), at, 0.0)
    seen = np.isfinite(blood.mean) & np.isfinite(blood.time)
    level = np.where(seen, np.maximum(blood.mean, 0.0), 0.0)
    rest = np.where(seen, rest, 0.0)
    volume, loss = _two_columns(level, np.where(seen, under, 0.0), rest)
    likely = plain["v"]
    volume = np.where((volume > likely / 5) & (volume < likely * 5), volume, likely)
    loss = np.where(loss > 0, loss, 0.05 * dose / np.maximum(under[row[:, 0], -1], 1e-300))
    for organ in organs:
        out[f"k_in_{organ}"] = out[f"k_in_{organ}"] / volume
    return out | {"v": volume, "k_el": loss / volume, "k_ex": 0.3 * loss / volume}


# with a measured input


def _from_input(graph: RateGraph, shape: Shape, design: Design) -> list[dict[str, FloatArray]]:
    """Return guesses for a tissue from linear regression on integrals, as MA1 does (Ichise 2002)."""
    port = graph.ports[0]
    given = design.inputs[port.name]
    rows = len(shape.time)
    end = design.time_h if design.end_h is None else design.end_h
    end = np.broadcast_to(end, (rows, end.shape[1]))
    area = np.broadcast_to(given.level(end, True), end.shape)
    y = np.where(np.isfinite(shape.mean), shape.mean, 0.0)
    start = (
        design.time_h if design.end_h is not None else np.c_[np.zeros((len(design.time_h), 1)), design.time_h[:, :-1]]
    )
    width = np.broadcast_to(end - start, y.shape) if y.shape == end.shape else np.ones(y.shape)
    mine = np.cumsum(y * width, axis=1)
    if y.shape != end.shape:
        return [{}]
    k1, k2 = _two_columns(area, -mine, y)
    last = end[:, -1]
    k1 = np.where(k1 > 0, k1, np.maximum(y[:, -1], 1e-12) / np.maximum(area[:, -1], 1e-300))
    k2 = np.where(k2 > 0, k2, 0.3 / last)
    if port.name == "reference":
        level = np.broadcast_to(given.level((start + end) / 2, False), y.shape)
        ratio = np.maximum(mine[:, -1] / np.maximum(area[:, -1], 1e-300) - 1, 0.05)
        r1, k2s, k2a = _three_columns(level, area, -mine, y)
        good = (r1 > 0) & (k2s > 0) & (k2a > 0) & (k2s > k2a)
        srtm = {"r1": np.where(good, r1, 1.0), "k2": np.where(good, k2s, 3 / last),
                "bp_nd": np.where(good, k2s / np.where(good, k2a, 1.0) - 1, ratio)}  # fmt: skip
        return [srtm, {"r1": np.ones(rows), "k2": 3 / last, "bp_nd": ratio}]
    guesses = []
    for fast, third, fourth in ((1.0, 0.0, 0.0), (2.0, 0.5, 0.25), (4.0, 1.0, 0.1), (1.5, 0.1, 0.5)):
        back = fast * k2 * (1 + third)
        guesses.append({"k1": k1 * fast, "k2": back, "k3": np.maximum(third * back, 0.02 / last),
                        "k4": np.maximum(fourth * back, 0.02 / last), "v_b": np.full(rows, 0.05)})  # fmt: skip
    return guesses


def _two_columns(a: FloatArray, b: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
    ay, by = (a * y).sum(1), (b * y).sum(1)
    det = aa * bb - ab * ab
    det = np.where(np.abs(det) > 1e-12 * aa * bb, det, np.inf)
    return (bb * ay - ab * by) / det, (aa * by - ab * ay) / det


def _three_columns(
    a: FloatArray, b: FloatArray, c: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    x = np.stack([a, b, c], axis=1)
    size = np.sqrt((x * x).sum(axis=2, keepdims=True))
    x = x / np.where(size > 0, size, 1.0)
    normal = np.einsum("bit,bjt->bij", x, x) + 1e-9 * np.eye(3)
    found = (
        np.linalg.solve(normal, np.einsum("bit,bt->bi", x, y)[..., None])[..., 0]
        / np.where(size > 0, size, 1.0)[..., 0]
    )
    return found[:, 0], found[:, 1], found[:, 2]
