"""A fit seen from its optimum: free coordinates, residuals, sensitivities and both covariances, as arrays.

Profiles, bootstraps, diagnostics and identifiability all start from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult, error_scale, likeness
from evbiodist.kinetics.fitting.search import REACH
from evbiodist.study.problems import nearest

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where a fit ended.

    Parameters
    ----------
    u : (q,) free search coordinates; stuck : (q,) which of them ended at a bound.
    predicted, residual : (N,) values, and residuals in standard deviations as weighed in the search.
    sensitivity : (N, q) derivatives of the residuals.
    inverse : (q, q) inverse of J'J, 0 where stuck; covariance : (q, q) that of the fit, with its scale and what
        rows of one animal share.
    scale : by what the variances assumed in the search are to be multiplied; likeness : correlation of the residuals
        of one animal.
    """

    u: FloatArray
    stuck: NDArray[np.bool_]
    predicted: FloatArray
    residual: FloatArray
    sensitivity: FloatArray
    inverse: FloatArray
    covariance: FloatArray
    scale: float
    likeness: float

    @classmethod
    def of(cls, found: FitResult) -> Optimum:
        """Evaluate a fit once at its optimum."""
        freedom = found.problem.freedom
        u = freedom.free(found.graph.to_search(found.theta[None]))
        y, dy = found.problem.predict(u, True)
        r, slope = found.problem.residual(y)
        J = (dy * slope[:, None, :])[0].T
        leads = np.argmax(freedom.link, axis=0)
        stuck = found.bound[leads]
        scale = scale_of(found)
        alike = likeness(r[0] / np.sqrt(max(scale, 1e-300)), found.data.animal)
        return cls(
            u[0], stuck, y[0], r[0], J, inverse_of(J, ~stuck), found.covariance[np.ix_(leads, leads)], scale, alike
        )


def scale_of(found: FitResult) -> float:
    """Return by what a fit multiplied the variances it assumed: 1 where those are believed."""
    if errors_known(found):
        return max(found.chi2_red, 1.0) if found.settings.weights == "pooled" else 1.0
    return found.chi2_red


def errors_known(found: FitResult) -> bool:
    """Return whether the size of the errors is known, from replicates or from the table, and not from this fit."""
    df = np.array(float(found.data.value.size - len(found.problem.freedom.names)))
    given = found.settings.weights == "given"
    believed = given and float(error_scale(np.array(found.chi2_red), df, given)[0]) == 1.0
    return believed or (found.settings.weights == "pooled" and found.data.replicated)


def inverse_of(sensitivity: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
    """Return (J'J)^-1 (q, q) of the free columns of J (N, q), 0 elsewhere.

    Examples
    --------
    >>> inverse_of(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([True, False])).tolist()
    [[0.25, 0.0], [0.0, 0.0]]
    """
    J = sensitivity[:, free]
    length = np.linalg.norm(J, axis=0)
    length = np.where(length > 0, length, 1.0)
    out = np.zeros((sensitivity.shape[1],) * 2)
    out[np.ix_(free, free)] = np.linalg.pinv((J / length).T @ (J / length), rcond=1e-12, hermitian=True) / np.outer(
        length, length
    )
    return out


def box(found: FitResult) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of a fit's free coordinates, (q,) each: the user's, the model's, and how far a search may go."""
    freedom, graph, given = found.problem.freedom, found.graph, found.settings.bounds
    low, high = [], []
    for p in graph.parameters:
        a, b = given.get(p.name, (None, None))
        a, b = (a if a is not None else p.lower), (b if b is not None else p.upper)
        low.append(a if a is not None else -np.inf if p.scale == "linear" else 0.0)
        high.append(b if b is not None else 1.0 if p.scale == "logit" else np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor, ceiling = (freedom.free(graph.to_search(np.array(x))) for x in (low, high))
    u = freedom.free(graph.to_search(found.theta))
    reach = np.where(freedom.free(np.array([p.scale == "linear" for p in graph.parameters], float)) > 0, np.inf, REACH)
    return np.maximum(floor, u - reach), np.minimum(ceiling, u + reach)


def known(names: tuple[str, ...], wanted: str) -> None:
    """Refuse a name that is not among those that can be asked for.

    Raises
    ------
    ValueError : with the nearest name.
    """
    if wanted not in names:
        raise ValueError(f"'{wanted}' is neither a free parameter nor a derived quantity of this fit ({', '.join(names)}); "
                         f"{nearest(wanted, names)}")  # fmt: skip
