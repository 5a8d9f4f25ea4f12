"""The joint fit: the most probable vesicle kinetics and label errors, given every label's rows and what is known of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.arms import Arms
from evbiodist.crossval.joint.problem import JointProblem, Prior, build_problem
from evbiodist.kinetics.fitting.levenberg import Solution, least_squares
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Input
from evbiodist.study.labels import LabelModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
#: How far from its prior or start a coordinate may go, in search units.
REACH = 14.0
_ROUNDS, _SETTLED = 8, 0.01
#: Steps from every beginning, and how many of them are searched to the end.
_LOOKING, _CARRIED = 25, 3
_ROUGH, _HELD, _TIGHT, _MOST = 3e-2, 5e-3, 1e-4, 60


@dataclass(frozen=True, eq=False)
class JointFit:
    """The joint answer for one group of animals.

    Parameters
    ----------
    problem : with its final weights; u : (q,) most probable coordinates.
    residual : (N + q,) of rows and priors; sensitivity : (N + q, q) derivatives.
    converged : whether the search came to rest.
    """

    problem: JointProblem
    u: FloatArray
    residual: FloatArray
    sensitivity: FloatArray
    converged: bool

    @cached_property
    def inverse(self) -> FloatArray:
        """Inverse of the information of rows and priors, (q, q)."""
        J = self.sensitivity
        length = np.linalg.norm(J, axis=0)
        return np.asarray(np.linalg.inv((J / length).T @ (J / length)) / np.outer(length, length))

    @property
    def size(self) -> int:
        """Number of means that were fitted; residuals after them are those of priors."""
        return self.problem.rows.size

    @cached_property
    def used(self) -> float:
        """How many parameters the rows determine: the trace of the smoother (Hastie & Tibshirani 1990, ch. 3)."""
        J = self.sensitivity[: self.size]
        return float(np.einsum("ni,ij,nj->", J, self.inverse, J))

    @cached_property
    def df(self) -> float:
        """Readings less parameters that they determine."""
        return max(self.problem.rows.readings - self.used, 1.0)

    @cached_property
    def chi2_red(self) -> float:
        """Mean squared residual of the readings in standard deviations."""
        r = self.residual[: self.size]
        return (float(r @ r) + self.problem.rows.pure[0]) / self.df

    @cached_property
    def misfit_p(self) -> float:
        """Probability of means as far off the curves as these if the model is right: F test of lack of fit; NaN without
        replicates.

        Draper & Smith 1998, Applied Regression Analysis, ch. 2.
        """
        from scipy.special import fdtrc

        r, (pure, free) = self.residual[: self.size], self.problem.rows.pure
        left = self.size - self.used
        if free < 1 or left < 1 or pure <= 0:
            return float("nan")
        return float(fdtrc(left, free, (float(r @ r) / left) / (pure / free)))

    @property
    def scale(self) -> float:
        """By what variances are multiplied: replicates set them, and a worse fit widens."""
        return max(self.chi2_red, 1.0)

    @cached_property
    def covariance(self) -> FloatArray:
        """Covariance of the coordinates (q, q)."""
        return self.scale * self.inverse

    def at(self, name: str) -> int:
        """Position of a coordinate."""
        return self.problem.names.index(name)

    @property
    def theta(self) -> FloatArray:
        """The vesicle's parameters (p,)."""
        return self.problem.theta(self.u[None])[0]


def fit_joint(
    vesicle: RateGraph, arms: Arms, models: Mapping[str, LabelModel], dose: Mapping[str, Input], starts: FloatArray
) -> JointFit:
    """Fit one vesicle model to all arms.

    Parameters
    ----------
    vesicle : the vesicle's model for the organs of the arms.
    models : of each label; dose : the model's input, in % of dose.
    starts : (K, p) vesicle parameters to begin from, such as each label's own fit.

    Returns
    -------
    JointFit : weights rest on the fitted curve.
    """
    problem = build_problem(vesicle, arms, models, dose, np.exp(np.mean(np.log(starts), axis=0)))
    begin = np.tile(problem.prior.centre, (len(starts), 1))
    begin[:, : starts.shape[1]] = vesicle.to_search(starts)
    return climb(problem, begin)


def climb(problem: JointProblem, begin: FloatArray) -> JointFit:
    """Search from several beginnings (K, q), the best of them to the end, renewing weights until they rest."""
    first = minimise(problem, begin, ftol=_ROUGH, most=_LOOKING)
    best = np.argsort(np.where(np.isfinite(first.cost), first.cost, np.inf), kind="stable")[:_CARRIED]
    second = minimise(problem, first.x[best])
    u = second.x[int(np.argmin(np.where(np.isfinite(second.cost), second.cost, np.inf)))]
    for _ in range(_ROUNDS):
        problem = problem.weighed(u)
        found = minimise(problem, u[None], ftol=_ROUGH)
        moved = float(np.abs((found.x[0] - u) / problem.prior.sd).max())
        u = found.x[0]
        if moved < _SETTLED:
            break
    return climb_from(problem, u)


def climb_from(problem: JointProblem, u: FloatArray) -> JointFit:
    """Search from one beginning (q,), with the weights the problem has."""
    found = minimise(problem, u[None], ftol=_TIGHT)
    return JointFit(problem, found.x[0], found.residual[0], found.jacobian[0].T, bool(found.converged[0]))


#: Residuals beside those of rows and priors, (B, k) and (B, q, k), of the problems (B,) that are still searched.
Extra = Callable[[FloatArray, IntArray], tuple[FloatArray, FloatArray]]


def minimise(
    problem: JointProblem, begin: FloatArray, *, keep: FloatArray | None = None, value: FloatArray | None = None,
    prior: Prior | None = None, extra: Extra | None = None, ftol: float = _HELD, most: int = _MOST,
) -> Solution:  # fmt: skip
    """Minimise from beginnings (B, q) side by side.

    Parameters
    ----------
    keep, value : (B, N) as `JointProblem.residuals` takes them; prior : (B, q) instead of the problem's own.
    extra : residuals that come after those of rows and priors.
    ftol, most : tolerance and steps, as `evbiodist.kinetics.fitting.levenberg.least_squares` has them.
    """

    def some(a: FloatArray | None, rows: IntArray) -> FloatArray | None:
        return None if a is None else a[rows]

    def function(u: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        r, J = problem.residuals(
            u, keep=some(keep, rows), value=some(value, rows), prior=prior.take(rows) if prior else None
        )
        if extra is None:
            return r, J
        more, slope = extra(u, rows)
        return np.concatenate([r, more], axis=1), np.concatenate([J, slope], axis=2)

    middle = problem.prior.centre
    reach = np.maximum(REACH, 4 * problem.prior.sd)
    return least_squares(function, begin, middle - reach, middle + reach, ftol=ftol, xtol=1e-8, max_iterations=most)
