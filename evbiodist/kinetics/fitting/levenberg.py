"""One Levenberg-Marquardt over many small least-squares problems at once, within box bounds.

Fits of thousands of organs, subjects or voxels share every array operation and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

#: (parameters (B, p), rows (B,) which problem each one is) -> residuals (B, N), jacobian (B, p, N)
Function = Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]]

_FIRST_DAMPING = 1e-3  # relative to the squared length of each column of the Jacobian
_LEAST_DAMPING = 1e-14  # keeps the matrix of an unidentified parameter regular
_MOST_DAMPING = 1e100
_ROUNDING = 1e-15  # relative, of the model values
_GOOD_ENOUGH = 1e-5  # relative offset at which a fit that no step improves counts as found (Bates and Watts)
_COLLINEAR = 1e-10  # singular value below which columns of length 1 depend on each other
_SHARE = 1e-8  # of a parameter that may lie along directions the data say nothing about

NOT_FINITE = "the model is not finite at the starting values; give others"
NO_DESCENT = "no step lowers the sum of squares although its slope is not zero; check the Jacobian"
TOO_LONG = "not converged after {} iterations; give other starting values or raise max_iterations"


@dataclass(frozen=True, eq=False)
class Solution:
    """Where each problem ended.

    Parameters
    ----------
    x : (B, p) parameters.
    cost : (B,) sum of squared residuals.
    residual : (B, N) at x.
    jacobian : (B, p, N) derivatives of the residuals at x.
    iterations : (B,) steps tried.
    converged : (B,) true where x is a minimum.
    at_bound : (B, p) true where a parameter sits on a bound.
    reason : why a problem did not converge, one sentence each; empty where it did.
    """

    x: FloatArray
    cost: FloatArray
    residual: FloatArray
    jacobian: FloatArray
    iterations: IntArray
    converged: BoolArray
    at_bound: BoolArray
    reason: tuple[str, ...]


def least_squares(
    function: Function,
    start: ArrayLike,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    *,
    xtol: float = 1e-10,
    ftol: float = 1e-10,
    gtol: float = 1e-12,
    max_iterations: int = 100,
) -> Solution:
    """Minimise the sum of squared residuals of every problem.

    A problem's answer does not depend on the problems solved beside it, to the last bit, as long as the function's
    does not.  Steps are Marquardt's (damping in proportion to diag(J'J)) with the damping updated by Nielsen's rule; a
    parameter on its bound whose slope points outward is held there for the step.

    Parameters
    ----------
    function : called with parameters (B, p) inside the bounds and rows (B,), which problem each one is; returns
        residuals (B, N) and their derivatives (B, p, N).  Rows get fewer as problems finish.  Padding is a residual
        of 0 with a derivative of 0.  Values that are not finite make the step shorter.
    start : (B, p) starting values; those outside the bounds are moved onto them.
    lower, upper : (B, p) or (p,) bounds, infinite where there is none; equal ones fix a parameter.
    xtol : converged when a step changes no parameter by more than this fraction.
    ftol : converged when the share of the residual that a step could still explain, as a length, is below this
        (the relative offset of Bates and Watts): the minimum is then within sqrt(n - p) ftol standard errors.
    gtol : converged when the cosine between the residual and each column of the Jacobian is below this.
    max_iterations : steps tried at most.

    Returns
    -------
    Solution : for all problems, failed ones included.

    Raises
    ------
    ValueError : arrays whose shapes do not fit, or a lower bound above the upper one.

    References
    ----------
    Marquardt 1963, J SIAM 11:431.  Nielsen 1999, IMM-REP-1999-05, Technical University of Denmark.  Bates and Watts
    1981, Technometrics 23:179.

    Examples
    --------
    >>> t = np.array([0.0, 1.0, 2.0, 4.0])
    >>> seen = np.array([[8.0, 4.0, 2.0, 0.5], [3.0, 3.0, 3.0, 3.0]])
    >>> def decay(x, rows):
    ...     a, k = x[:, :1], x[:, 1:]
    ...     e = np.exp(-k * t)
    ...     return a * e - seen[rows], np.stack([e, -a * t * e], axis=1)
    >>> s = least_squares(decay, [[5.0, 1.0], [5.0, 1.0]], lower=[0.0, 0.0])
    >>> s.x.round(6), s.converged.tolist()
    (array([[8.      , 0.693147],
           [3.      , 0.      ]]), [True, True])
    """
    x = np.array(start, dtype=np.float64)
    low, high = _box(lower, upper, x.shape)
    with np.errstate(all="ignore"):
        batch, ended = _begin(function, np.clip(x, low, high), low, high)
        for iteration in range(max_iterations + 1):
            arrived, stuck = _look(batch, xtol, ftol, gtol)
            batch = _leave(batch, ended, arrived, iteration, "")
            batch = _leave(batch, ended, stuck[~arrived], iteration, NO_DESCENT)
            if iteration == max_iterations or not len(batch.rows):
                break
            _advance(function, batch, ended)
    _leave(batch, ended, np.ones(len(batch.rows), dtype=np.bool_), max_iterations, TOO_LONG.format(max_iterations))
    return _finish(ended, low, high)


def _box(lower: ArrayLike | None, upper: ArrayLike | None, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Bounds of every parameter of every problem."""
    if len(shape) != 2:
        raise ValueError(f"start has shape {shape}; expected (problems, parameters)")
    both = []
    for name, bound in (("lower", -np.inf if lower is None else lower), ("upper", np.inf if upper is None else upper)):
        values = np.asarray(bound, dtype=np.float64)
        if values.shape not in ((), shape, shape[1:]):
            raise ValueError(f"{name} has shape {values.shape}; expected {shape} like start, or {shape[1:]} for all")
        both.append(np.broadcast_to(values, shape))
    wrong = ~(both[0] <= both[1])
    if wrong.any():
        row, j = np.argwhere(wrong)[0]
        found = f"lower {both[0][row, j]:g} and upper {both[1][row, j]:g}"
        raise ValueError(f"bounds of parameter {j} of problem {row} are {found}; expected lower <= upper")
    return both[0], both[1]


@dataclass
class _Point:
    """What the function returned for some problems, and what steps are made of."""

    residual: FloatArray
    jacobian: FloatArray
    cost: FloatArray
    normal: FloatArray  # J'J (B, p, p)
    slope: FloatArray  # J'r (B, p)


@dataclass
class _Batch:
    """The problems still under way; the first axis of every array is the problem."""

    rows: IntArray
    x: FloatArray
    low: FloatArray
    high: FloatArray
    cost: FloatArray
    normal: FloatArray
    slope: FloatArray
    scale: FloatArray  # longest column of the Jacobian met so far (B, p)
    damping: FloatArray
    growth: FloatArray  # what a rejected step multiplies the damping by
    offset: FloatArray  # relative offset seen from x at first
    noise: FloatArray  # relative change of the cost that may be rounding
    to: FloatArray  # parameters to be tried next
    gain: FloatArray  # by how much they should lower the cost
    cut: BoolArray  # whether bounds shortened the way there


@dataclass
class _Ended:
    """Where every problem stands or ended."""

    x: FloatArray
    cost: FloatArray
    residual: FloatArray
    jacobian: FloatArray
    iterations: IntArray
    reason: list[str]


def _evaluate(function: Function, x: FloatArray, rows: IntArray) -> _Point:
    residual, jacobian = (np.ascontiguousarray(a, dtype=np.float64) for a in function(x, rows))
    expected = (len(rows), x.shape[1], residual.shape[-1] if residual.ndim else 0)
    if residual.shape != expected[::2] or jacobian.shape != expected:
        found = f"residuals {residual.shape} and a jacobian {jacobian.shape}"
        raise ValueError(f"function returned {found} for parameters {x.shape}; expected (B, N) and (B, p, N)")
    # stacked matmul calls the same small product for each problem, so neighbours change no bit
    normal = np.matmul(jacobian, jacobian.swapaxes(1, 2))
    return _Point(residual, jacobian, np.einsum("bn,bn->b", residual, residual), normal, _times(jacobian, residual))


def _times(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """Product of each matrix and its vector."""
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


def _scale(normal: FloatArray) -> FloatArray:
    """Length of each column of the Jacobian (B, p), next to nothing for a column of zeros."""
    return np.maximum(np.sqrt(np.diagonal(normal, axis1=1, axis2=2)), 1e-150)


def _finite(point: _Point) -> BoolArray:
    """Whether residuals and derivatives are finite, and small enough to be squared."""
    return np.isfinite(point.cost) & np.isfinite(np.diagonal(point.normal, axis1=1, axis2=2)).all(axis=1)


def _begin(function: Function, x: FloatArray, low: FloatArray, high: FloatArray) -> tuple[_Batch, _Ended]:
    problems = len(x)
    rows = np.arange(problems)
    at = _evaluate(function, x, rows)
    none = np.zeros(problems)
    ended = _Ended(x, at.cost, at.residual.copy(), at.jacobian.copy(), np.zeros_like(rows), [""] * problems)
    batch = _Batch(
        *(rows, x, low, high, at.cost, at.normal, at.slope, _scale(at.normal)),
        damping=none + _FIRST_DAMPING,
        growth=none + 2.0,
        offset=none + np.inf,
        noise=none,
        to=x,
        gain=none,
        cut=none > 0,
    )
    return _leave(batch, ended, ~(_finite(at) & np.isfinite(x).all(axis=1)), 0, NOT_FINITE), ended


def _part(b: _Batch, who: BoolArray) -> _Batch:
    """Some of the problems."""
    return _Batch(*(a[who] for a in vars(b).values()))


def _leave(b: _Batch, ended: _Ended, who: BoolArray, iteration: int, reason: str) -> _Batch:
    """Put finished problems down and return the others."""
    if not who.any():
        return b
    rows = b.rows[who]
    ended.x[rows], ended.cost[rows], ended.iterations[rows] = b.x[who], b.cost[who], iteration
    for row in rows:
        ended.reason[row] = reason
    return _part(b, ~who)


def _look(b: _Batch, xtol: float, ftol: float, gtol: float) -> tuple[BoolArray, BoolArray]:
    """Find the next step of every problem, and which have arrived or are stuck."""
    first = b.growth == 2  # no step was rejected since the last accepted one
    size = np.sqrt(np.einsum("bi,bi->b", b.scale * b.x, b.scale * b.x))  # about the length of the model values
    b.noise = _ROUNDING * (10 + size / np.sqrt(b.cost))  # residuals are differences of such values
    least = xtol * np.abs(b.x) + _ROUNDING * (size + np.sqrt(b.cost))[:, None] / b.scale
    held = _held(b)
    rest = (held | (np.abs(b.slope) <= gtol * _scale(b.normal) * np.sqrt(b.cost)[:, None])).all(axis=1)
    b.to, b.gain, b.cut = _step(b, held)
    offset, small = _offset(b), _small(b, least)
    near = (b.damping <= 1) & ((offset <= ftol) | small)
    again: BoolArray = near & (b.damping > _LEAST_DAMPING)
    if again.any():  # damping hides what is left along directions the data say little about: look without
        b.damping[again] = _LEAST_DAMPING
        b.to[again], b.gain[again], b.cut[again] = _step(_part(b, again), held[again])
        offset, small = _offset(b), _small(b, least)
    before, b.offset = b.offset, np.where(first, offset, b.offset)
    rounding = (b.offset**2 <= b.noise) & (~first | (offset >= before))
    arrived = rest | (b.cost == 0) | rounding | (near & (small | (offset <= ftol)))
    arrived |= small & (b.offset <= _GOOD_ENOUGH)
    return arrived, small & ~arrived


def _offset(b: _Batch) -> FloatArray:
    """Share of the residual that steps could still explain, as a length; infinite where the step does not tell."""
    found: FloatArray = np.sqrt(b.gain * np.maximum(b.damping, 1.0) / b.cost)  # damped steps promise less than there is
    return np.where(b.cut | ~(b.gain >= 0), np.inf, found)


def _small(b: _Batch, least: FloatArray) -> BoolArray:
    """Steps below a length, and not because of a bound."""
    small: BoolArray = (np.abs(b.to - b.x) <= least).all(axis=1) & ~b.cut
    return small


def _held(b: _Batch) -> BoolArray:
    """Parameters on a bound whose slope points outward."""
    return ((b.x <= b.low) & (b.slope >= 0)) | ((b.x >= b.high) & (b.slope <= 0))


def _step(b: _Batch, held: BoolArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Where the damped step of every problem leads, how much lower the cost should be there, and if a bound cut it."""
    step = _solve(b, b.slope, held)
    to = b.x + step
    outside = (to < b.low) | (to > b.high)
    cut = np.asarray(outside.any(axis=1))
    if cut.any():  # those that would leave go to their bound, the others make the best of it
        some, out, at = _part(b, cut), outside[cut], np.clip(to[cut], b.low[cut], b.high[cut])
        fixed = np.where(out, at - some.x, 0.0)
        rest = _solve(some, some.slope + _times(some.normal, fixed), held[cut] | out)
        to[cut] = np.where(out, at, np.clip(some.x + rest, some.low, some.high))
        step[cut] = to[cut] - some.x
    return to, -np.einsum("bi,bi->b", step, 2 * b.slope + _times(b.normal, step)), cut


def _solve(b: _Batch, slope: FloatArray, held: BoolArray) -> FloatArray:
    """Solve (J'J + damping diag(scale^2)) step = -slope with some parameters held."""
    per = 1 / b.scale
    matrix, right = b.normal * (per[:, :, None] * per[:, None, :]), -slope * per
    diagonal = matrix.reshape(len(matrix), held.shape[1] ** 2)[:, :: held.shape[1] + 1]
    diagonal += b.damping[:, None]
    if held.any():
        right[held] = 0.0
        matrix[held[:, :, None] | held[:, None, :]] = 0.0
        diagonal += held
    try:
        step = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        step = np.stack([_solve_or_stay(m, r) for m, r in zip(matrix, right, strict=True)])
    return step * per


def _advance(function: Function, b: _Batch, ended: _Ended) -> None:
    """Try the step of every problem and take it where it lowers the cost."""
    trial = _evaluate(function, b.to, b.rows)
    tiny = b.offset**2 <= b.noise  # too near for costs to tell better from worse
    better = _finite(trial) & ((trial.cost < b.cost) | (tiny & (trial.cost <= b.cost * (1 + b.noise))))
    quality = np.where(tiny, 0.5, np.clip((b.cost - trial.cost) / b.gain, 0.0, 1.0))  # 0.5 leaves the damping as it is
    factor = np.where(better, np.maximum(1 / 3, 1 - (2 * quality - 1) ** 3), b.growth)
    b.damping = np.minimum(np.maximum(b.damping * factor, _LEAST_DAMPING), _MOST_DAMPING)
    b.growth = np.where(better, 2.0, 2 * b.growth)
    b.x, b.slope = np.where(better[:, None], b.to, b.x), np.where(better[:, None], trial.slope, b.slope)
    b.cost, b.normal = np.where(better, trial.cost, b.cost), np.where(better[:, None, None], trial.normal, b.normal)
    b.scale = np.maximum(b.scale, _scale(b.normal))
    rows = b.rows[better]
    ended.residual[rows], ended.jacobian[rows] = trial.residual[better], trial.jacobian[better]


def _solve_or_stay(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """One problem's step; none when its matrix is singular, which raises the damping."""
    try:
        return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


def _finish(ended: _Ended, low: FloatArray, high: FloatArray) -> Solution:
    at_bound = (ended.x <= low) | (ended.x >= high)
    converged = np.array([not reason for reason in ended.reason], dtype=np.bool_)
    return Solution(
        ended.x,
        ended.cost,
        ended.residual,
        ended.jacobian,
        ended.iterations,
        converged,
        at_bound,
        tuple(ended.reason),
    )


def covariance(
    solution: Solution, free: ArrayLike | None = None, *, count: ArrayLike | None = None, scaled: bool = True
) -> FloatArray:
    """Return the covariance of each problem's parameters, s^2 (J'J)^-1 with s^2 = cost / (n - free parameters).

    Directions the data say nothing about are left out (pseudo-inverse), so the variance of a parameter that
    `identified` denies is too small: use it for estimable combinations only.

    Parameters
    ----------
    solution : from `least_squares`.
    free : (B, p) or (p,) true for parameters that were estimated; others get 0.  All by default; give
        ``~solution.at_bound`` for errors given that the parameters on a bound stay there.
    count : (B,) number of values n; by default those whose residual or derivative is not 0.
    scaled : False for (J'J)^-1, when residuals were divided by known standard errors.

    Returns
    -------
    (B, p, p) : NaN where nothing is left to estimate s^2 from, or the problem is not finite.

    Examples
    --------
    >>> t = np.array([0.0, 1.0, 2.0])
    >>> def line(x, rows):
    ...     ones = np.ones((len(rows), 1, 1))
    ...     return x[:, :1] + x[:, 1:] * t - [1.0, 3.0, 2.0], np.concatenate([ones * (t * 0 + 1), ones * t], axis=1)
    >>> covariance(least_squares(line, [[0.0, 0.0]])).round(6)
    array([[[ 1.25, -0.75],
            [-0.75,  0.75]]])
    """
    R, scale, chosen, finite = _triangles(solution, free)
    root = _pseudo_inverse(R) / scale[:, :, None]
    out = np.matmul(root, root.swapaxes(1, 2))
    with np.errstate(all="ignore"):
        if scaled:
            seen = (solution.residual != 0) | (solution.jacobian != 0).any(axis=1)
            n = seen.sum(axis=1) if count is None else np.asarray(count)
            df = n - chosen.sum(axis=1)
            out = out * np.where(df > 0, solution.cost / df, np.nan)[:, None, None]
    out[~finite] = np.nan
    return np.where(chosen[:, :, None] & chosen[:, None, :], out, 0.0)


def identified(solution: Solution, free: ArrayLike | None = None) -> BoolArray:
    """Return which parameters the data determine (B, p); the others move along a direction that changes nothing.

    Parameters
    ----------
    solution : from `least_squares`.
    free : as for `covariance`; parameters that are not free count as determined.

    Examples
    --------
    >>> def product(x, rows):
    ...     return x[:, :1] * x[:, 1:2] + x[:, 2:] * [0.0, 1.0] - [6.0, 8.0], np.stack(
    ...         [x[:, [1, 1]], x[:, [0, 0]], x[:, [2, 2]] * 0 + [0.0, 1.0]], axis=1)
    >>> identified(least_squares(product, [[1.0, 1.0, 1.0]])).tolist()
    [[False, False, True]]
    """
    R, _, chosen, finite = _triangles(solution, free)
    _, singular, v = np.linalg.svd(R)
    blind = np.where(singular[:, :, None] > _COLLINEAR, 0.0, v)
    return (((blind**2).sum(axis=1) < _SHARE) & finite[:, None]) | ~chosen


def _triangles(solution: Solution, free: ArrayLike | None) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray]:
    """R of J = QR for free columns divided by their lengths, those lengths, which are free, which problems are finite."""
    problems, p = solution.x.shape
    chosen = np.broadcast_to(True if free is None else np.asarray(free, dtype=np.bool_), (problems, p))
    finite = np.isfinite(solution.cost) & np.isfinite(solution.jacobian).all(axis=(1, 2))
    J = np.where(finite[:, None, None] & chosen[:, :, None], solution.jacobian, 0.0)
    length = np.sqrt(np.einsum("bpn,bpn->bp", J, J))
    scale = np.where(length > 0, length, 1.0)
    columns = np.zeros((problems, max(J.shape[2], p), p))  # as many rows as parameters at least
    columns[:, : J.shape[2]] = (J / scale[:, :, None]).swapaxes(1, 2)
    return np.asarray(np.linalg.qr(columns, mode="r"), dtype=np.float64), scale, chosen, finite


def _pseudo_inverse(R: FloatArray) -> FloatArray:
    """Inverse of each triangle, by singular values where columns depend on each other."""
    regular = (np.abs(np.diagonal(R, axis1=1, axis2=2)) > 100 * _COLLINEAR).all(axis=1)
    out = np.empty_like(R)
    out[regular] = np.linalg.inv(R[regular])
    u, singular, v = np.linalg.svd(R[~regular])
    inverse = np.where(singular > _COLLINEAR, 1 / np.maximum(singular, _COLLINEAR), 0.0)
    out[~regular] = np.matmul(v.swapaxes(1, 2) * inverse[:, None, :], u.swapaxes(1, 2))
    return out
