"""The one estimator: a frame is a weighted sum of organ footprints plus background plus noise.

    frame = sum_i a_i F_i + b B + noise

Weighted least squares gives the organ signals with their covariance and says when two footprints
cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.scan import FloatArray

#: Condition of the normalised normal matrix from which two footprints are the same.
_SAME = 1e12


@dataclass(frozen=True, eq=False)
class Fit:
    """Organ signals of one frame.

    Parameters
    ----------
    signal : (n_organs,) total signal per organ; covariance : (n_organs, n_organs).
    background, background_se : signal per pixel of the background component.
    correlation : (n_organs, n_organs) correlation of the estimates; condition : of the normalised normal matrix.
    chi2_red : residual variance over the expected one (1 when the footprints explain the frame).
    residual : (Y, X) or (Z, Y, X), frame minus model.
    used : pixels that carried weight, in the shape of `residual`.
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
    footprints: Any,
    variance: FloatArray,
    *,
    valid: NDArray[np.bool_] | None = None,
    weighting: Literal["uniform", "noise"] = "noise",
    nonnegative: bool = False,
) -> Fit:
    """Estimate the total signal of every organ in a frame by weighted least squares.

    Parameters
    ----------
    frame : (Y, X) calibrated image, or (Z, Y, X) volume.
    footprints : (n_organs, ...), each the image of one unit of activity; or a scipy sparse array (n_organs, pixels).
    variance : variance of the frame's pixels in its shape, in squared units of the frame.
    valid : False where a pixel gets weight zero (saturated, dead, cosmic, guard band), in the frame's shape.
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
    F = _as_sparse(footprints, frame, variance)
    used = np.ones(frame.shape, bool) if valid is None else np.asarray(valid, bool)
    used = used & np.isfinite(frame) & (variance > 0)
    everywhere = bool(used.all())
    y = (frame if everywhere else np.where(used, frame, 0.0)).ravel()
    inverse_variance = np.divide(1.0, variance, out=np.zeros(frame.shape), where=used).ravel()
    weight = inverse_variance if weighting == "noise" else used.ravel().astype(np.float64)
    normal = gram(F, weight)
    check_usable(normal)
    inverse, condition = inverted(normal)
    moments = np.append(F @ (weight * y), weight @ y)
    solution = nonnegative_solution(normal, moments) if nonnegative else inverse @ moments
    # with weights 1/variance the sandwich is the inverse itself
    covariance = inverse
    if weighting == "uniform":
        covariance = inverse @ gram(F, np.where(used, variance, 0.0).ravel()) @ inverse
    residual = frame - (F.T @ solution[:-1] + solution[-1]).reshape(frame.shape)
    left = (residual if everywhere else np.where(used, residual, 0.0)).ravel()
    chi2 = float((left * inverse_variance) @ left)
    spread = np.sqrt(np.diag(covariance))
    n = len(solution) - 1
    return Fit(
        signal=solution[:n],
        covariance=covariance[:n, :n],
        background=float(solution[n]),
        background_se=float(spread[n]),
        correlation=(covariance / np.outer(spread, spread))[:n, :n],
        condition=condition,
        chi2_red=chi2 / max(int(used.sum()) - n - 1, 1),
        residual=residual,
        used=used,
    )


def gram(F: Any, weight: FloatArray) -> FloatArray:
    """Return the weighted inner products of footprints and a constant background, shape (n + 1, n + 1).

    Parameters
    ----------
    F : scipy CSR array (n, pixels).
    weight : (pixels,) weight of each pixel.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> gram(csr_array(np.array([[0.5, 0.5, 0.0]])), np.ones(3))
    array([[0.5, 1. ], [1. , 3. ]])
    """
    n, pixels = F.shape
    out = np.empty((n + 1, n + 1))
    image = np.zeros(pixels)
    for i in range(n):  # one dense row at a time: transposing F would cost a pass over all pixels of a volume
        row = slice(F.indptr[i], F.indptr[i + 1])
        at = F.indices[row]
        image[at] = F.data[row] * weight[at]
        out[i, :n] = F @ image
        out[i, n] = out[n, i] = image[at].sum()
        image[at] = 0.0
    out[n, n] = weight.sum()
    return out


def inverted(normal: FloatArray) -> tuple[FloatArray, float]:
    """Return the inverse of a normal matrix and its condition after normalisation.

    Raises
    ------
    ValueError : footprints that are linear combinations of each other.
    """
    size = np.sqrt(np.diag(normal))
    unit = normal / np.outer(size, size)
    condition = float(np.linalg.cond(unit))
    if not condition < _SAME:
        raise ValueError("two organs have the same footprint; merge them or image them apart")
    inverse = np.linalg.inv(unit)
    return (inverse + inverse.T) / 2 / np.outer(size, size), condition


def nonnegative_solution(normal: FloatArray, moments: FloatArray) -> FloatArray:
    """Solve the normal equations with organ signals >= 0 and a free background, which comes last.

    The background is eliminated (Schur complement); what is left is non-negative least squares on the Cholesky
    factor, which has as many rows as there are organs.

    Examples
    --------
    >>> nonnegative_solution(np.eye(3), np.array([2.0, -1.0, -4.0]))
    array([ 2.,  0., -4.])

    Lawson and Hanson 1974, Solving Least Squares Problems, ch. 23.
    """
    from scipy.optimize import nnls

    cross, corner = normal[:-1, -1], normal[-1, -1]
    size = np.sqrt(np.diag(normal)[:-1])
    reduced = (normal[:-1, :-1] - np.outer(cross, cross) / corner) / np.outer(size, size)
    lower = np.linalg.cholesky(reduced)
    target = np.linalg.solve(lower, (moments[:-1] - cross * moments[-1] / corner) / size)
    scale = float(np.abs(target).max()) or 1.0
    signal = nnls(lower.T, target / scale)[0] * scale / size
    return np.append(signal, (moments[-1] - cross @ signal) / corner)


def check_usable(normal: FloatArray) -> None:
    """Refuse footprints without a pixel that carries weight.

    Raises
    ------
    ValueError : with the number of the footprint.
    """
    empty = np.flatnonzero(~(np.diag(normal) > 0))
    if empty.size:
        raise ValueError(f"footprint {empty[0]} has no usable pixel: the organ is saturated or outside the image; "
                         "expose shorter, or leave the organ out")  # fmt: skip


def _as_sparse(footprints: Any, frame: FloatArray, variance: FloatArray) -> Any:
    from scipy.sparse import csr_array, issparse

    sparse = bool(issparse(footprints))
    whole = (footprints.shape[0], frame.size)
    fits = footprints.shape == whole if sparse else footprints.shape[1:] == frame.shape
    if not fits or variance.shape != frame.shape:
        raise ValueError(f"frame {frame.shape}, footprints {footprints.shape[1:]} and variance {variance.shape} "
                         "must have one shape")  # fmt: skip
    return footprints.tocsr() if sparse else csr_array(footprints.reshape(whole))
