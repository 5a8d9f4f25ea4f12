"""Digits on NIST's certified problems, and the time of 1,000 small fits at once and one by one.

The first table gives the digits (log relative error, 11 at most) of parameters, their standard errors and the
residual standard deviation, from both of NIST's starting points, beside lmfit's leastsq with the same derivatives.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lmfit
import numpy as np
from scipy.optimize import leastsq
from side_by_side import medians, show

from evbiodist.kinetics.fitting.levenberg import covariance, least_squares

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracles"))
from test_nist_strd import MODELS, Problem, agreement, read, solve

TIMES = np.array([0.083, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 18, 24])
OURS = "least_squares and covariance"
TRUTH = np.array([8.0, 2.0, 3.0, 0.1])


def by_lmfit(problem: Problem, start: int) -> tuple[float, float, float]:
    """Digits of lmfit's leastsq, tolerances at rounding."""
    names = [f"b{i}" for i in range(len(problem.values))]
    params = lmfit.Parameters()
    for name, value in zip(names, problem.starts[start], strict=True):
        params.add(name, value=value)
    row = np.array([0])

    def values(p: lmfit.Parameters) -> np.ndarray:
        return np.array([[p[name].value for name in names]])

    with np.errstate(all="ignore"):
        try:
            out = lmfit.minimize(
                lambda p: problem(values(p), row)[0][0],
                params,
                method="leastsq",
                max_nfev=100_000,
                Dfun=lambda p: problem(values(p), row)[1][0],
                col_deriv=True,
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
            )
        except ValueError:  # it met a value that is not finite
            return 0.0, 0.0, 0.0
    missing = np.full((len(names),) * 2, np.nan)
    return agreement(problem, values(out.params)[0], getattr(out, "covar", missing), out.chisqr)


def digits_table() -> None:
    print("| Problem | Start | Ours: values | errors | SD | steps | lmfit: values | errors | SD |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in sorted(MODELS):
        problem, s = read(name), solve(name)
        C = covariance(s)
        for k in (0, 1):
            ours = agreement(problem, s.x[k], C[k], s.cost[k])
            cells = [f"{d:.1f}" for d in ours] + [str(s.iterations[k])] + [f"{d:.1f}" for d in by_lmfit(problem, k)]
            print(f"| {name} | {k + 1} | {' | '.join(cells)} |")


def curves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two exponentials and their derivatives."""
    a, k, b, m = (x[:, j, None] for j in range(4))
    jacobian = np.empty((len(x), 4, len(TIMES)))
    fast, slow = np.exp(-k * TIMES, out=jacobian[:, 0]), np.exp(-m * TIMES, out=jacobian[:, 2])
    jacobian[:, 1], jacobian[:, 3] = -a * TIMES * fast, -b * TIMES * slow
    return a * fast + b * slow, jacobian


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--problems", type=int, default=1000)
    options = parser.parse_args()
    digits_table()
    rng, count = np.random.default_rng(1), options.problems
    y = curves(TRUTH * np.exp(rng.normal(0, 0.3, (count, 4))))[0]
    y *= 1 + 0.05 * rng.normal(size=y.shape)
    start = np.tile(TRUTH, (count, 1))

    def function(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model, jacobian = curves(x)
        return model - y[rows], jacobian

    calls: list[tuple[np.ndarray, np.ndarray]] = []

    def remembered(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append((x.copy(), rows.copy()))
        return function(x, rows)

    ours = least_squares(remembered, start, lower=np.zeros(4))

    def one_by_one() -> list[np.ndarray]:
        return [
            leastsq(
                lambda x, i=i: curves(x[None])[0][0] - y[i],
                TRUTH,
                Dfun=lambda x: curves(x[None])[1][0],
                col_deriv=True,
                full_output=True,
            )[0]
            for i in range(count)
        ]

    with np.errstate(all="ignore"):
        theirs = np.array([((curves(x[None])[0][0] - y[i]) ** 2).sum() for i, x in enumerate(one_by_one())])
    inside = ~ours.at_bound.any(axis=1)
    assert (ours.cost[inside] <= theirs[inside] * (1 + 1e-6)).mean() > 0.98
    assert ours.converged.mean() > 0.995
    show(
        f"{count} fits, 4 parameters, {len(TIMES)} points, tolerance 1e-10",
        medians(
            {
                OURS: lambda: covariance(least_squares(function, start, lower=np.zeros(4))),
                "least_squares alone": lambda: least_squares(function, start, lower=np.zeros(4)),
                "the model's share of it": lambda: [function(x, rows) for x, rows in calls],
                "scipy leastsq with the same derivatives, one by one": one_by_one,
            },
            options.repeats,
        ),
        OURS,
    )


if __name__ == "__main__":
    main()
