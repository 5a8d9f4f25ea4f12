"""Non-compartmental analysis of a block of voxels, with first-order errors from the scatter about the terminal line.

All voxels share the frames of the terminal line, so that neighbours can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.graphical.frames import Floats, Frames
from evbiodist.kinetics.graphical.maps_kernels import EMPTY, NOT_FINITE, NOT_POSITIVE, OK, UNDETERMINED, Block, Codes

VALUES = ("auclast", "cmax", "tmax", "lambda_z", "aucinf_pred", "mrt_inf")
WITH_SE = ("auclast", "cmax", "lambda_z", "aucinf_pred", "mrt_inf")
STAND = 3  # values that need no terminal line


@dataclass(frozen=True, eq=False)
class Terminal:
    """What all voxels share.

    Parameters
    ----------
    area : (T,) what each frame adds to the area; mid : (T,) its middle, h; end : of the last frame, h.
    on : (T,) frames of the terminal line.
    level, slope : (T,) how the logarithm of each frame enters the line's logarithm at the end, and its fall.
    inverse : (T,) 1 / weight of each logarithm.
    df : degrees of freedom.
    """

    area: Floats
    mid: Floats
    end: float
    on: NDArray[np.bool_]
    level: Floats
    slope: Floats
    inverse: Floats
    df: float

    @classmethod
    def of(cls, frames: Frames, from_h: float, weight: Floats) -> Terminal:
        """Prepare the terminal line from a time on; weights are those of the logarithms."""
        _, area = frames.steps("mean")
        on = frames.start_h >= from_h - 1e-9
        w, t = np.where(on, weight, 0.0), frames.mid_h
        mean = np.sum(w * t) / np.sum(w)
        slope = -w * (t - mean) / np.sum(w * (t - mean) ** 2)
        end = float(frames.end_h[-1])
        return cls(area, t, end, on, w / np.sum(w) - slope * (end - mean), slope, 1 / weight, float(on.sum() - 2))


def fill(m: Block, p: Terminal, out: NDArray[Any], code: Codes) -> None:
    """Fill `VALUES`, then the errors of `WITH_SE`, (11, n), for a block."""
    d = m.astype(np.float64)
    with np.errstate(all="ignore"):
        peak = np.argmax(d, axis=0)
        auc, aumc = p.area @ d, (p.area * p.mid) @ d
        logs = np.log(d[p.on])
        rate, last = p.slope[p.on] @ logs, p.level[p.on] @ logs
        line = last - rate * (p.mid[p.on][:, None] - p.end)
        scatter = np.sqrt(np.sum((logs - line) ** 2 / p.inverse[p.on][:, None], axis=0) / p.df)
        tail = np.exp(last) / rate
        whole = auc + tail
        mrt = (aumc + tail * (p.end + 1 / rate)) / whole
        cmax = np.take_along_axis(d, peak[None], axis=0)[0]
        for row, value in enumerate((auc, cmax, p.mid[peak], rate, whole, mrt)):
            out[row] = value
        grown = p.area[:, None] * d  # derivatives by the logarithm of each frame
        tail_by = tail * (p.level[:, None] - p.slope[:, None] / rate)
        moment_by = grown * p.mid[:, None] + tail_by * (p.end + 1 / rate) - tail * p.slope[:, None] / rate**2
        whole_by = grown + tail_by
        steep = np.sqrt(np.sum(p.slope**2 * p.inverse))
        out[6] = scatter * _length(grown, p.inverse)
        out[7] = scatter * cmax * np.sqrt(p.inverse)[peak]
        out[8] = scatter * steep
        out[9] = scatter * _length(whole_by, p.inverse)
        out[10] = scatter * _length((moment_by - mrt * whole_by) / whole, p.inverse)
        low = (~(d[p.on] > 0)).any(axis=0)
        code[:] = np.where(low, NOT_POSITIVE, np.where((rate > 0) & np.isfinite(mrt), OK, UNDETERMINED))
    code[~d.any(axis=0)] = EMPTY
    code[~np.isfinite(d).all(axis=0)] = NOT_FINITE


def _length(by: Floats, inverse: Floats) -> Floats:
    length: Floats = np.sqrt(inverse @ (by * by))
    return length
