"""The one estimator: a frame is a weighted sum of organ footprints plus background plus noise.

    frame = sum_i a_i F_i + b B + noise

Weighted least squares gives the organ signals with their covariance and says when two footprints
cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.scan import FloatArray


@dataclass(frozen=True, eq=False)
class Fit:
    """Organ signals of one frame.

    Parameters
    ----------
    signal : (n_organs,) total signal per organ; covariance : (n_organs, n_organs).
    background, background_se : signal per pixel of the background component.
    correlation : (n_organs, n_organs) correlation of the estimates; condition : of the normalised normal matrix.
    chi2_red : residual variance over the expected one (1 when the footprints explain the frame).
    residual : (Y, X) frame minus model.
    used : (Y, X) pixels that carried weight.
    """

    signal: FloatArray
    covariance: FloatArray
    background: float
    background_se: float
    correlation: FloatArray
    condition: float
    chi2_red: float
    residual: FloatArray
    used: NDArray[np.bool_]

    @property
    def se(self) -> FloatArray:
        """Standard errors, shape (n_organs,)."""
        return np.sqrt(np.diag(self.covariance))


def estimate(
    frame: FloatArray,
    footprints: FloatArray,
    variance: FloatArray,
    *,
    valid: NDArray[np.bool_] | None = None,
    weighting: Literal["uniform", "noise"] = "noise",
    nonnegative: bool = False,
) -> Fit:
    """Estimate the total signal of every organ in a frame by weighted least squares.

    Parameters
    ----------
    frame : (Y, X) calibrated image.
    footprints : (n_organs, Y, X), each the image of one unit of activity.
    variance : (Y, X) variance of the frame's pixels, in squared units of the frame.
    valid : (Y, X) False where a pixel gets weight zero (saturated, dead, cosmic, guard band).
    weighting : `noise` weights by 1/variance; `uniform` gives plain sums with the same honest covariance.
    nonnegative : clip at zero by non-negative least squares. The covariance stays that of the free estimate.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError : shapes that do not match, an organ without a usable pixel, or footprints that are
        linear combinations of each other.

    Examples
    --------
    >>> F = np.zeros((1, 4, 4)); F[0, 1:3, 1:3] = 0.25
    >>> frame = 10 * F[0] + 2.0
    >>> fit = estimate(frame, F, np.ones((4, 4)))
    >>> round(float(fit.signal[0]), 6), round(fit.background, 6)
    (10.0, 2.0)

    Aitken 1936; for imaging: Rousset 1998 (J Nucl Med 39:904).
    """
    n, shape = len(footprints), frame.shape
    if footprints.shape[1:] != shape or variance.shape != shape:
        raise ValueError(f"frame {shape}, footprints {footprints.shape[1:]} and variance {variance.shape} "
                         "must have one shape")  # fmt: skip
    used = np.ones(shape, bool) if valid is None else np.asarray(valid, bool)
    used = used & np.isfinite(frame) & (variance > 0)
    everywhere = bool(used.all())
    y, v = (frame.ravel(), variance.ravel()) if everywhere else (frame[used], variance[used])
    columns = footprints.reshape(n, -1) if everywhere else footprints[:, used]
    design = np.vstack([columns, np.ones(y.size)])
    empty = np.flatnonzero(~design.any(axis=1))
    if empty.size:
        raise ValueError(f"footprint {empty[0]} has no usable pixel: the organ is saturated or outside the image")
    weight = 1.0 / v if weighting == "noise" else np.ones_like(v)
    weighted = design * weight
    normal = weighted @ design.T
    size = np.sqrt(np.diag(normal))
    normal /= np.outer(size, size)
    condition = float(np.linalg.cond(normal))
    if condition > 1e12:
        raise ValueError("two organs have the same footprint; merge them or image them apart")
    inverse = np.linalg.inv(normal) / np.outer(size, size)
    solution = _nonnegative(design, y, weight) if nonnegative else inverse @ (weighted @ y)
    # with weights 1/variance the sandwich is the inverse itself
    covariance = inverse if weighting == "noise" else inverse @ ((weighted * v) @ weighted.T) @ inverse
    model = solution[:n] @ footprints.reshape(n, -1) + solution[n]
    residual = frame - model.reshape(shape)
    chi2_red = float(np.sum(residual[used] ** 2 / v) / max(y.size - n - 1, 1))
    spread = np.sqrt(np.diag(covariance))
    return Fit(
        signal=solution[:n],
        covariance=covariance[:n, :n],
        background=float(solution[n]),
        background_se=float(spread[n]),
        correlation=(covariance / np.outer(spread, spread))[:n, :n],
        condition=condition,
        chi2_red=chi2_red,
        residual=residual,
        used=used,
    )


def _nonnegative(design: FloatArray, y: FloatArray, weight: FloatArray) -> FloatArray:
    """Solve with organ signals >= 0 and a free background."""
    from scipy.optimize import lsq_linear

    root = np.sqrt(weight)
    low = np.append(np.zeros(len(design) - 1), -np.inf)
    scale = np.sqrt(np.einsum("ip,p,ip->i", design, weight, design))
    found = lsq_linear((design * root / scale[:, None]).T, root * y, bounds=(low, np.inf), method="bvls")
    return np.asarray(found.x / scale)
