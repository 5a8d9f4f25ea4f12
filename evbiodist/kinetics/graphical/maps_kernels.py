"""The arithmetic of parametric maps on a block of voxels, in plain numpy and as loops that numba compiles.

Both ways do the same sums in double precision. The compiled one reads each value once, in the order it lies in
memory; numba is optional and only makes it faster.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Block = NDArray[Any]  # (T, n) frame-major, float32 or float64, rows contiguous
Rows = NDArray[np.intp]
Codes = NDArray[np.uint8]

OK, MASKED, NOT_FINITE, SATURATED, EMPTY, NOT_POSITIVE, UNDETERMINED, AT_EDGE = range(8)
_VOXELS = 2048  # of a tile whose running sums stay in the fast cache
_TILE = 512  # the same for loops with many sums, kept in one array so that the compiler sees them apart


@dataclass(frozen=True, eq=False)
class Line:
    """What all voxels of a Patlak map share.

    Parameters
    ----------
    rows : (U,) frames on the line.
    slope, intercept : (U,) what each frame adds to them; square : (U,) and to the weighted sum of squares.
    normal : (3,) normal matrix, upper half; unit_var : (2,) variance of slope and intercept at unit noise.
    df : degrees of freedom.
    """

    rows: Rows
    slope: Floats
    intercept: Floats
    square: Floats
    normal: Floats
    unit_var: Floats
    df: float


@dataclass(frozen=True, eq=False)
class Running:
    """What all voxels of a Logan or MA1 map share.

    Parameters
    ----------
    rows : (U,) all frames up to the last one used, U of them.
    own, passed : (U,) see `Frames.steps`.
    total : (U,) integral of the input; weight : (U,) 0 before the line.
    df : degrees of freedom.
    """

    rows: Rows
    own: Floats
    passed: Floats
    total: Floats
    weight: Floats
    df: float


def have_numba() -> bool:
    """Say whether numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


@lru_cache(maxsize=8)
def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Return a loop of this module as machine code, kept on disk where that is possible."""
    import numba

    settings = {"error_model": "numpy", "fastmath": {"contract", "reassoc"}, "nogil": True}
    try:
        result: Callable[..., None] = numba.njit(cache=True, **settings)(loop)
    except RuntimeError:  # no folder that can be written
        result = numba.njit(**settings)(loop)
    return result


# Patlak


def patlak_numpy(m: Block, p: Line, out: NDArray[Any], code: Codes) -> None:
    """Fill slope, intercept and their errors, (4, n), for a block."""
    d = m[p.rows].astype(np.float64)
    a, b = p.slope @ d, p.intercept @ d
    with np.errstate(invalid="ignore", over="ignore"):
        square = p.square @ (d * d)
        rest = square - (p.normal[0] * a * a + 2 * p.normal[1] * a * b + p.normal[2] * b * b)
        noise = np.maximum(rest, 0.0) / p.df
        out[0], out[1] = a, b
        out[2], out[3] = np.sqrt(noise * p.unit_var[0]), np.sqrt(noise * p.unit_var[1])
        code[:] = np.where(np.isfinite(rest), np.where(square == 0, EMPTY, OK), NOT_FINITE)


def patlak_loop(
    m: Block,
    rows: Rows,
    slope: Floats,
    intercept: Floats,
    square: Floats,
    normal: Floats,
    unit_var: Floats,
    df: float,
    a: Block,
    b: Block,
    a_se: Block,
    b_se: Block,
    code: Codes,
) -> None:
    """Do what `patlak_numpy` does, to be compiled."""
    n = m.shape[1]
    sa, sb, sq = np.empty(_VOXELS), np.empty(_VOXELS), np.empty(_VOXELS)
    for start in range(0, n, _VOXELS):
        size = min(_VOXELS, n - start)
        sa[:] = 0.0
        sb[:] = 0.0
        sq[:] = 0.0
        k = 0
        while k + 4 <= rows.size:  # four frames at a time, so that the sums are fetched a quarter as often
            r0, r1 = m[rows[k], start : start + size], m[rows[k + 1], start : start + size]
            r2, r3 = m[rows[k + 2], start : start + size], m[rows[k + 3], start : start + size]
            a0, a1, a2, a3 = slope[k], slope[k + 1], slope[k + 2], slope[k + 3]
            b0, b1, b2, b3 = intercept[k], intercept[k + 1], intercept[k + 2], intercept[k + 3]
            q0, q1, q2, q3 = square[k], square[k + 1], square[k + 2], square[k + 3]
            for i in range(size):
                v0, v1, v2, v3 = np.float64(r0[i]), np.float64(r1[i]), np.float64(r2[i]), np.float64(r3[i])
                sa[i] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
                sb[i] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
                sq[i] += q0 * v0 * v0 + q1 * v1 * v1 + q2 * v2 * v2 + q3 * v3 * v3
            k += 4
        while k < rows.size:
            r0, a0, b0, q0 = m[rows[k], start : start + size], slope[k], intercept[k], square[k]
            for i in range(size):
                v0 = np.float64(r0[i])
                sa[i] += a0 * v0
                sb[i] += b0 * v0
                sq[i] += q0 * v0 * v0
            k += 1
        oa, ob = a[start : start + size], b[start : start + size]
        ea, eb = a_se[start : start + size], b_se[start : start + size]
        for i in range(size):
            rest = sq[i] - (normal[0] * sa[i] * sa[i] + 2 * normal[1] * sa[i] * sb[i] + normal[2] * sb[i] * sb[i])
            noise = (rest if rest > 0 else 0.0 * rest) / df
            oa[i] = sa[i]
            ob[i] = sb[i]
            ea[i] = np.sqrt(noise * unit_var[0])
            eb[i] = np.sqrt(noise * unit_var[1])
        oc = code[start : start + size]
        for i in range(size):
            oc[i] = 0 if sq[i] > 0 and sq[i] < np.inf else (4 if sq[i] == 0 else 2)


# Logan


def logan_numpy(m: Block, p: Running, out: NDArray[Any], code: Codes) -> None:
    """Fill volume, intercept and their errors, (4, n), for a block."""
    d = m[p.rows].astype(np.float64)
    on = p.weight > 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        before, last = np.tril(np.tile(p.passed, (p.rows.size, 1)), -1)[on] @ d, p.passed @ d
        inverse = 1 / d[on]
        x, y = p.total[on][:, None] * inverse, before * inverse + p.own[on][:, None]
        w = p.weight[on]
        sx, sy, sw = w @ x, w @ y, float(w.sum())
        sxx, sxy, syy = (w @ (u * v) for u, v in ((x, x), (x, y), (y, y)))
        cxx, cxy, cyy = sxx - sx * sx / sw, sxy - sx * sy / sw, syy - sy * sy / sw
        slope = cxy / cxx
        noise = np.maximum(cyy - slope * cxy, 0.0) / p.df
        out[0], out[1] = slope, (sy - slope * sx) / sw
        out[2], out[3] = np.sqrt(noise / cxx), np.sqrt(noise * (1 / sw + sx * sx / (sw * sw * cxx)))
        low = (~(d[on] > 0)).any(axis=0)
        found = np.isfinite(slope) & (cxx > 1e-14 * sxx)
        code[:] = np.where(low, NOT_POSITIVE, np.where(found, OK, UNDETERMINED))
        code[(code != OK) & ~d.any(axis=0)] = EMPTY
        code[~np.isfinite(last)] = NOT_FINITE


def logan_loop(
    m: Block,
    rows: Rows,
    own: Floats,
    passed: Floats,
    total: Floats,
    weight: Floats,
    df: float,
    vt: Block,
    b: Block,
    vt_se: Block,
    b_se: Block,
    code: Codes,
) -> None:
    """Do what `logan_numpy` does, to be compiled."""
    n = m.shape[1]
    s = np.empty(6 * _TILE)  # running integral, sums of x, y, xx, xy, yy
    low = np.empty(_TILE, m.dtype)
    sw, wt = weight.sum(), weight * total
    wtt = wt * total
    first = 0
    while weight[first] == 0.0:
        first += 1
    for start in range(0, n, _TILE):
        size = min(_TILE, n - start)
        s[:] = 0.0
        low[:] = np.inf
        k = 0
        while k + 4 <= first:
            r0, r1 = m[rows[k], start : start + size], m[rows[k + 1], start : start + size]
            r2, r3 = m[rows[k + 2], start : start + size], m[rows[k + 3], start : start + size]
            p0, p1, p2, p3 = passed[k], passed[k + 1], passed[k + 2], passed[k + 3]
            for i in range(size):
                v0, v1, v2, v3 = np.float64(r0[i]), np.float64(r1[i]), np.float64(r2[i]), np.float64(r3[i])
                s[i] += p0 * v0 + p1 * v1 + p2 * v2 + p3 * v3
            k += 4
        while k < rows.size:
            if k < first or k + 4 > rows.size or weight[k : k + 4].min() == 0.0:  # one frame, on the line or not
                r0, p0, w0, o0 = m[rows[k], start : start + size], passed[k], weight[k], own[k]
                t0, u0, on = wt[k], wtt[k], weight[k] > 0.0
                for i in range(size):
                    v0 = np.float64(r0[i])
                    q0 = 1.0 / v0 if on else 0.0
                    y0 = s[i] * q0 + o0
                    s[i] += p0 * v0
                    s[_TILE + i] += t0 * q0
                    s[2 * _TILE + i] += w0 * y0
                    s[3 * _TILE + i] += u0 * q0 * q0
                    s[4 * _TILE + i] += t0 * q0 * y0
                    s[5 * _TILE + i] += w0 * y0 * y0
                if on:
                    for i in range(size):
                        low[i] = r0[i] if r0[i] < low[i] else low[i]
                k += 1
                continue
            r0, r1 = m[rows[k], start : start + size], m[rows[k + 1], start : start + size]
            r2, r3 = m[rows[k + 2], start : start + size], m[rows[k + 3], start : start + size]
            p0, p1, p2, p3 = passed[k], passed[k + 1], passed[k + 2], passed[k + 3]
            o0, o1, o2, o3 = own[k], own[k + 1], own[k + 2], own[k + 3]
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            t0, t1, t2, t3 = wt[k], wt[k + 1], wt[k + 2], wt[k + 3]
            u0, u1, u2, u3 = wtt[k], wtt[k + 1], wtt[k + 2], wtt[k + 3]
            for i in range(size):
                v0, v1, v2, v3 = np.float64(r0[i]), np.float64(r1[i]), np.float64(r2[i]), np.float64(r3[i])
                q0, q1, q2, q3 = 1.0 / v0, 1.0 / v1, 1.0 / v2, 1.0 / v3
                run = s[i]
                y0 = run * q0 + o0
                run += p0 * v0
                y1 = run * q1 + o1
                run += p1 * v1
                y2 = run * q2 + o2
                run += p2 * v2
                y3 = run * q3 + o3
                s[i] = run + p3 * v3
                s[_TILE + i] += t0 * q0 + t1 * q1 + t2 * q2 + t3 * q3
                s[2 * _TILE + i] += w0 * y0 + w1 * y1 + w2 * y2 + w3 * y3
                s[3 * _TILE + i] += u0 * q0 * q0 + u1 * q1 * q1 + u2 * q2 * q2 + u3 * q3 * q3
                s[4 * _TILE + i] += t0 * q0 * y0 + t1 * q1 * y1 + t2 * q2 * y2 + t3 * q3 * y3
                s[5 * _TILE + i] += w0 * y0 * y0 + w1 * y1 * y1 + w2 * y2 * y2 + w3 * y3 * y3
            for i in range(size):
                e, f = r0[i] if r0[i] < r1[i] else r1[i], r2[i] if r2[i] < r3[i] else r3[i]
                e = e if e < f else f
                low[i] = e if e < low[i] else low[i]
            k += 4
        for i in range(size):
            sx, sy, sxx, run = s[_TILE + i], s[2 * _TILE + i], s[3 * _TILE + i], s[i]
            cxx = sxx - sx * sx / sw
            cxy = s[4 * _TILE + i] - sx * sy / sw
            cyy = s[5 * _TILE + i] - sy * sy / sw
            slope = cxy / cxx
            rest = cyy - slope * cxy
            noise = (rest if rest > 0 else 0.0 * rest) / df
            s[_TILE + i] = slope
            s[2 * _TILE + i] = (sy - slope * sx) / sw
            s[3 * _TILE + i] = np.sqrt(noise / cxx)
            s[4 * _TILE + i] = np.sqrt(noise * (1 / sw + sx * sx / (sw * sw * cxx)))
            why = 0.0 if (cxx > 1e-14 * sxx) & (abs(slope) < np.inf) else 6.0
            why = why if low[i] > 0 else (4.0 if abs(run) + abs(low[i]) == 0.0 else 5.0)
            s[5 * _TILE + i] = why if abs(run) < np.inf else 2.0
        for i in range(size):
            vt[start + i] = s[_TILE + i]
        for i in range(size):
            b[start + i] = s[2 * _TILE + i]
        for i in range(size):
            vt_se[start + i] = s[3 * _TILE + i]
        for i in range(size):
            b_se[start + i] = s[4 * _TILE + i]
        for i in range(size):
            code[start + i] = np.uint8(s[5 * _TILE + i])


# MA1


def ma1_numpy(m: Block, p: Running, out: NDArray[Any], code: Codes) -> None:
    """Fill volume, intercept and their errors, (4, n), for a block."""
    d = m[p.rows].astype(np.float64)
    on = p.weight > 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = np.tril(np.tile(p.passed, (p.rows.size, 1)), -1) + np.diag(p.own)
        y, last = steps[on] @ d, p.passed @ d
        w, x, z = p.weight[on], p.total[on], d[on]
        xm, xy = (w * x) @ z, (w * x) @ y
        mm, ym, yy = (w @ (u * v) for u, v in ((z, z), (y, z), (y, y)))
        xx = float(np.sum(w * x * x))
        rest = yy - xy * xy / xx
        g2 = (ym - xy * xm / xx) / rest
        g1 = (xm - g2 * xy) / xx
        noise = np.maximum(mm - xm * xm / xx - g2 * g2 * rest, 0.0) / p.df
        v2 = noise / rest
        vt, share = -g1 / g2, xy / xx
        out[0], out[1] = vt, 1 / g2
        out[2] = np.sqrt(noise / xx + v2 * (share - vt) ** 2) / -g2
        out[3] = np.sqrt(v2) / (g2 * g2)
        found = (g2 < 0) & (rest > 1e-14 * yy) & np.isfinite(vt)
        code[:] = np.where(np.isfinite(last), np.where(found, OK, UNDETERMINED), NOT_FINITE)
        code[(code == UNDETERMINED) & ~d.any(axis=0)] = EMPTY


def ma1_loop(
    m: Block,
    rows: Rows,
    own: Floats,
    passed: Floats,
    total: Floats,
    weight: Floats,
    df: float,
    vt: Block,
    b: Block,
    vt_se: Block,
    b_se: Block,
    code: Codes,
) -> None:
    """Do what `ma1_numpy` does, to be compiled."""
    n = m.shape[1]
    s = np.empty(6 * _TILE)  # running integral, sums of xm, xy, mm, ym, yy
    first = 0
    while weight[first] == 0.0:
        first += 1
    xx = 0.0
    for k in range(rows.size):
        xx += weight[k] * total[k] * total[k]
    for start in range(0, n, _TILE):
        size = min(_TILE, n - start)
        s[:] = 0.0
        k = 0
        while k + 4 <= first:
            r0, r1 = m[rows[k], start : start + size], m[rows[k + 1], start : start + size]
            r2, r3 = m[rows[k + 2], start : start + size], m[rows[k + 3], start : start + size]
            p0, p1, p2, p3 = passed[k], passed[k + 1], passed[k + 2], passed[k + 3]
            for i in range(size):
                v0, v1, v2, v3 = np.float64(r0[i]), np.float64(r1[i]), np.float64(r2[i]), np.float64(r3[i])
                s[i] += p0 * v0 + p1 * v1 + p2 * v2 + p3 * v3
            k += 4
        while k < rows.size:
            other = min(k + 1, rows.size - 1)
            gone = 0.0 if other == k else 1.0  # an odd last frame is not counted twice
            r0, p0, w0, o0 = m[rows[k], start : start + size], passed[k], weight[k], own[k]
            r1, p1, w1, o1 = (
                m[rows[other], start : start + size],
                passed[other] * gone,
                weight[other] * gone,
                own[other],
            )
            t0, t1 = w0 * total[k], w1 * total[other]
            for i in range(size):
                v0, v1 = np.float64(r0[i]), np.float64(r1[i])
                run = s[i]
                y0 = run + o0 * v0
                run += p0 * v0
                y1 = run + o1 * v1
                s[i] = run + p1 * v1
                s[_TILE + i] += t0 * v0 + t1 * v1
                s[2 * _TILE + i] += t0 * y0 + t1 * y1
                s[3 * _TILE + i] += w0 * v0 * v0 + w1 * v1 * v1
                s[4 * _TILE + i] += w0 * v0 * y0 + w1 * v1 * y1
                s[5 * _TILE + i] += w0 * y0 * y0 + w1 * y1 * y1
            k += 2
        for i in range(size):
            xm, xy, yy = s[_TILE + i], s[2 * _TILE + i], s[5 * _TILE + i]
            rest = yy - xy * xy / xx
            g2 = (s[4 * _TILE + i] - xy * xm / xx) / rest
            g1 = (xm - g2 * xy) / xx
            mm = s[3 * _TILE + i]
            left = mm - xm * xm / xx - g2 * g2 * rest
            noise = (left if left > 0 else 0.0 * left) / df
            v2 = noise / rest
            volume = -g1 / g2
            share = xy / xx - volume
            s[_TILE + i] = volume
            s[2 * _TILE + i] = 1 / g2
            s[3 * _TILE + i] = np.sqrt(noise / xx + v2 * share * share) / -g2
            s[4 * _TILE + i] = np.sqrt(v2) / (g2 * g2)
            why = 0.0 if (g2 < 0) & (rest > 1e-14 * yy) & (abs(volume) < np.inf) else 6.0
            why = 4.0 if mm + abs(s[i]) == 0.0 else why
            s[5 * _TILE + i] = why if abs(s[i]) < np.inf else 2.0
        for i in range(size):
            vt[start + i] = s[_TILE + i]
        for i in range(size):
            b[start + i] = s[2 * _TILE + i]
        for i in range(size):
            vt_se[start + i] = s[3 * _TILE + i]
        for i in range(size):
            b_se[start + i] = s[4 * _TILE + i]
        for i in range(size):
            code[start + i] = np.uint8(s[5 * _TILE + i])
