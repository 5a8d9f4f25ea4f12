"""The one-tissue compartment model voxel by voxel: a table of exact basis curves, searched for the best rate.

At a given washout rate the model is linear, so the rate alone is searched. The basis curves differ so little from
each other that about ten numbers a voxel hold all that the search needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.graphical.frames import Floats, Frames, InputCurve
from evbiodist.kinetics.graphical.maps_kernels import (
    AT_EDGE,
    EMPTY,
    NOT_FINITE,
    OK,
    UNDETERMINED,
    Block,
    Codes,
    compiled,
)


def one_tissue_means(frames: Frames, plasma: InputCurve, rates_per_h: Floats) -> Floats:
    """Return the exact frame means of plasma convolved with exp(-rate t), (R, T), in plasma times hours.

    Parameters
    ----------
    frames, plasma : the scan and its input.
    rates_per_h : (R,) washout rates, 0 or above.

    Raises
    ------
    ValueError : an input that ends before the frames do.

    Examples
    --------
    >>> one_tissue_means(Frames.of([0], [2]), InputCurve.of([0, 2], [1, 1]), np.array([0.0])).tolist()
    [[1.0]]
    """
    return _basis(frames, plasma, rates_per_h)[0]


def _basis(frames: Frames, plasma: InputCurve, rates_per_h: Floats) -> tuple[Floats, Floats]:
    """Return the frame means and their derivatives by the logarithm of the rate, (R, T) each."""
    times = np.stack([frames.start_h, frames.end_h])
    plasma.check_covers(times)
    mode = -np.atleast_2d(np.asarray(rates_per_h, dtype=np.float64))
    start, end = (plasma.curve.answer(mode, t[None], True) for t in times)
    means = (end.value - start.value)[0].T / frames.duration_h
    return means, mode.T * (end.slope - start.slope)[0].T / frames.duration_h


@dataclass(frozen=True, eq=False)
class Table:
    """Basis curves at rates that are evenly spaced on the logarithmic scale, and what a search needs of them.

    Parameters
    ----------
    rows : (U,) frames with weight; weight : (U,).
    log_rate, step : (R,) logarithms of the rates and their spacing.
    shrink : (q, U) brings frame values down to q numbers; score : (R, q) brings those to fit scores.
    per_rate : (R, 4) logarithms of the curve's weighted length, and of the variances of k1 (absolute) and k2
        (relative, times k1 squared), and their covariance's part k2-relative, at unit noise.
    df : degrees of freedom.
    """

    rows: NDArray[np.intp]
    weight: Floats
    log_rate: Floats
    step: float
    shrink: Floats
    score: Floats
    per_rate: Floats
    df: float

    @classmethod
    def of(cls, frames: Frames, plasma: InputCurve, rates_per_h: Floats, weight: Floats) -> Table:
        """Compute the table for frames with weights, (T,)."""
        rows = np.flatnonzero(weight > 0)
        root = np.sqrt(weight[rows])
        curves, slopes = (a[:, rows] * root for a in _basis(frames, plasma, rates_per_h))
        bb, bc, cc = (np.sum(u * v, axis=1) for u, v in ((curves, curves), (curves, slopes), (slopes, slopes)))
        determinant = bb * cc - bc**2
        unit = curves / np.sqrt(bb)[:, None]
        left, size, right = np.linalg.svd(unit, full_matrices=False)
        keep = size > 1e-8 * size[0]  # what is left out changes no score by more than that
        per_rate = np.stack(
            [np.log(bb) / 2, np.log(cc / determinant), np.log(bb / determinant), bc / determinant], axis=1
        )
        log_rate = np.log(rates_per_h)
        return cls(
            rows,
            weight[rows],
            log_rate,
            float(log_rate[1] - log_rate[0]),
            right[keep] * root,
            left[:, keep] * size[keep],
            per_rate,
            float(len(rows) - 2),
        )


def fill(m: Block, p: Table, out: NDArray[Any], code: Codes, fast: bool) -> None:
    """Fill k1, k2, vt and their errors, (6, n), for a block."""
    d = m[p.rows].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        square = p.weight @ (d * d)
        scores = p.score @ (p.shrink @ d)
    if fast:
        compiled(finish_loop)(scores, square, p.log_rate, p.step, p.per_rate, p.df, *out, code)
    else:
        _finish(scores, square, p, out, code)


def _finish(scores: Floats, square: Floats, p: Table, out: NDArray[Any], code: Codes) -> None:
    """Take the best rate, refine it by a parabola through three scores, and propagate the residual noise."""
    last = len(p.log_rate) - 1
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = np.argmax(scores, axis=0)
        g = np.clip(best, 1, last - 1)
        low, mid, high = (np.take_along_axis(scores, (g + k)[None], axis=0)[0] for k in (-1, 0, 1))
        bend = low - 2 * mid + high
        off = 0.5 * (low - high) / np.where(bend < 0, bend, -1.0)
        top = mid - 0.25 * (low - high) * off
        length, k1_var, k2_var, both = (_between(p.per_rate[:, k], g, off) for k in range(4))
        k1, k2 = top * np.exp(-length), np.exp(p.log_rate[g] + off * p.step)
        noise = np.maximum(square - top * top, 0.0) / p.df
        vt = k1 / k2
        out[0], out[1], out[2] = k1, k2, vt
        k1_rel, k2_rel = noise * np.exp(k1_var) / k1**2, noise * np.exp(k2_var) / k1**2
        out[3], out[4] = np.sqrt(k1_rel) * k1, np.sqrt(k2_rel) * k2
        out[5] = np.sqrt(np.maximum(k1_rel + k2_rel + 2 * noise * both / k1**2, 0.0)) * vt
        edge = (best == 0) | (best == last)
        code[:] = np.where(
            np.isfinite(square),
            np.where(square == 0, EMPTY, np.where(~(mid > 0), UNDETERMINED, np.where(edge, AT_EDGE, OK))),
            NOT_FINITE,
        )


def _between(column: Floats, g: NDArray[np.intp], off: Floats) -> Floats:
    """Parabola through the table's three entries around g."""
    low, mid, high = column[g - 1], column[g], column[g + 1]
    return mid + off * ((high - low) / 2 + off * ((high + low) / 2 - mid))


def finish_loop(
    scores: Floats,
    square: Floats,
    log_rate: Floats,
    step: float,
    per_rate: Floats,
    df: float,
    k1: Block,
    k2: Block,
    vt: Block,
    k1_se: Block,
    k2_se: Block,
    vt_se: Block,
    code: Codes,
) -> None:
    """Do what `_finish` does, to be compiled."""
    rates, n = scores.shape
    tile = 512
    top, best = np.empty(tile), np.empty(tile)
    t = np.empty(4)
    for start in range(0, n, tile):
        size = min(tile, n - start)
        top[:] = -np.inf
        best[:] = 0.0
        for g in range(rates):
            row = scores[g, start : start + size]
            at = float(g)
            for i in range(size):
                better = row[i] > top[i]
                top[i] = row[i] if better else top[i]
                best[i] = at if better else best[i]
        for i in range(size):
            j = start + i
            found = int(best[i])
            g = min(max(found, 1), rates - 2)
            low, mid, high = scores[g - 1, j], scores[g, j], scores[g + 1, j]
            bend = low - 2 * mid + high
            off = 0.5 * (low - high) / (bend if bend < 0 else -1.0)
            peak = mid - 0.25 * (low - high) * off
            for c in range(4):
                a, b, d = per_rate[g - 1, c], per_rate[g, c], per_rate[g + 1, c]
                t[c] = b + off * ((d - a) / 2 + off * ((d + a) / 2 - b))
            one, two = peak * np.exp(-t[0]), np.exp(log_rate[g] + off * step)
            left = square[j] - peak * peak
            noise = (left if left > 0 else 0.0 * left) / df
            scale = noise / (one * one)
            one_rel, two_rel = scale * np.exp(t[1]), scale * np.exp(t[2])
            both = one_rel + two_rel + 2 * scale * t[3]
            k1[j] = one
            k2[j] = two
            vt[j] = one / two
            k1_se[j] = np.sqrt(one_rel) * one
            k2_se[j] = np.sqrt(two_rel) * two
            vt_se[j] = np.sqrt(both if both > 0 else 0.0) * one / two
            if not np.isfinite(square[j]):
                code[j] = 2
            elif square[j] == 0.0:
                code[j] = 4
            elif not mid > 0:
                code[j] = 6
            elif found == 0 or found == rates - 1:
                code[j] = 7
            else:
                code[j] = 0
