"""Choose the engine of saturable models: scipy's stiff solvers, with and without compiled slopes, against ours.

Every way solves the whole body after a bolus (25 amounts, 48 parameters, 12 samples over 48 h) to a relative tolerance
of 1e-8. Errors are the largest of all amounts (or sensitivities) over samples, as a share of the dose, against a
solution at 1e-13. Times are CPU seconds of one thread, so that load by others hardly shows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp
from threadpoolctl import threadpool_limits

from evbiodist.kinetics.models.catalogue import build, typical
from evbiodist.kinetics.models.saturable import _Field, solve_with_reasons
from evbiodist.kinetics.models.solve import Design, bolus

TIMES = np.array([0.0, 1, 2, 5, 10, 30, 60, 120, 240, 480, 1440, 2880]) / 60
DOSE, RTOL = 100.0, 1e-8
GRAPH = build("ev_whole_body", species="mouse", weight_g=20)
THETA = typical(GRAPH)
DESIGN = bolus(GRAPH, TIMES, DOSE)


def spread(n: int) -> np.ndarray:
    """Return parameter vectors of many problems, as a fit meets them."""
    return THETA * np.exp(np.random.default_rng(1).normal(0, 0.2, (n, len(THETA))))


def start() -> np.ndarray:
    return np.eye(len(GRAPH.compartments))[0] * DOSE


def amounts_by_scipy(method: str, compiled: bool = False) -> np.ndarray:
    """Solve one problem as a user does: slopes and Jacobian of the amounts in numpy, or slopes by numba."""
    field = _Field.of(GRAPH, THETA[None], False)
    nothing = np.zeros((1, 1, 1))
    slope: Callable = compiled_slope(field) if compiled else (lambda t, x: field.slope(x[None, None], nothing)[0, 0])
    jac = None if method == "LSODA" else (lambda t, x: field.jacobian(x[None, None])[0, 0])
    found = solve_ivp(slope, (0, TIMES[-1]), start(), method, TIMES, rtol=RTOL, atol=1e-4 * RTOL * DOSE, jac=jac)
    return found.y.T


def compiled_slope(field: _Field) -> Callable:
    """Compile the slopes of this one model by numba."""
    K = field.K[0]
    group = next(g for g in field.groups if g.flux.__name__ == "capacity")
    rate, most = field.terms[0, group.rate], field.terms[0, group.constants[0]]
    source, target = group.source, group.target
    if "slope" not in _COMPILED:
        from numba import njit

        @njit
        def slope(K, rate, most, source, target, x):
            out = K @ x
            for k in range(len(rate)):
                flux = rate[k] * x[source[k]] * (1 - x[target[k]] / most[k])
                out[source[k]] -= flux
                out[target[k]] += flux
            return out

        _COMPILED["slope"] = slope
    kernel = _COMPILED["slope"]
    return lambda t, x: kernel(K, rate, most, source, target, x)


_COMPILED: dict[str, Callable] = {}


def both_by_scipy(method: str) -> np.ndarray:
    """Solve amounts and all sensitivities as one large system with a sparse block Jacobian."""
    from scipy.sparse import block_diag

    field = _Field.of(GRAPH, THETA[None], True)
    n, p, nothing = len(GRAPH.compartments), len(THETA), np.zeros((1, 1, 1))

    def slope(t: float, z: np.ndarray) -> np.ndarray:
        z = z.reshape(1 + p, n)
        x = z[:1][None]
        J = field.jacobian(x)[0, 0]
        return np.concatenate(
            [field.slope(x, nothing)[0], z[1:] @ J.T + field.forcing(x, nothing, nothing)[0, 0]]
        ).ravel()

    def jac(t: float, z: np.ndarray):
        return block_diag([field.jacobian(z[:n][None, None])[0, 0]] * (1 + p), format="csc")

    z0 = np.concatenate([start(), np.zeros(n * p)])
    found = solve_ivp(slope, (0, TIMES[-1]), z0, method, TIMES, rtol=RTOL, atol=1e-4 * RTOL * DOSE, jac=jac)
    return found.y.T.reshape(len(TIMES), 1 + p, n)


def seconds(way: Callable[[], object], repeats: int) -> float:
    way()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        way()
        found.append(time.process_time() - begin)
    return statistics.median(found)


def ours(design: Design, problems: int, stages: int, derivatives: bool) -> Callable[[], object]:
    theta = THETA[None] if problems == 1 else spread(problems)
    return lambda: solve_with_reasons(GRAPH, theta, design, derivatives=derivatives, stages=stages)


def row(name: str, cpu: float, error: float | None, steps: float | None = None) -> None:
    shown = f"{error:9.1e}" if error is not None else " " * 9
    print(f"  {name:<58} {1e3 * cpu:9.1f} ms  {shown}  {'' if steps is None else f'{steps:5.0f}'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="leave out scipy with sensitivities (minutes)")
    given = parser.parse_args()
    best = solve_with_reasons(GRAPH, THETA[None], DESIGN, derivatives=True, rtol=1e-13, stages=7).solution
    check = solve_with_reasons(GRAPH, THETA[None], DESIGN, derivatives=True, rtol=1e-13, stages=5).solution
    print(
        f"reference: 7 and 5 stages at 1e-13 differ by {np.abs(best.amounts - check.amounts).max() / DOSE:.0e} of the dose"
    )
    head = f"  {'':<58} {'CPU a problem':>12}  {'error':>9}  steps"
    print(f"amounts alone\n{head}")
    for method, compiled in (("LSODA", False), ("BDF", False), ("Radau", False), ("LSODA", True)):
        name = f"scipy {method}" + (", slopes by numba" if compiled else "")
        error = np.abs(amounts_by_scipy(method, compiled) - best.amounts[0]).max() / DOSE
        row(name, seconds(lambda m=method, c=compiled: amounts_by_scipy(m, c), given.repeats), error)
    for stages in (3, 5, 7, 9):
        found = ours(DESIGN, 1, stages, False)()
        error = np.abs(found.solution.amounts - best.amounts).max() / DOSE
        row(f"ours, {stages} stages", seconds(ours(DESIGN, 1, stages, False), given.repeats), error, found.steps.mean())
    for problems in (10, 100, 1000):
        row(f"ours, 7 stages, {problems} problems at once",
            seconds(ours(DESIGN, problems, 7, False), 1 if problems > 100 else given.repeats) / problems, None)  # fmt: skip
    print(f"amounts and sensitivities to 48 parameters\n{head}")
    for method in () if given.quick else ("BDF", "Radau"):
        z = both_by_scipy(method)
        error = np.abs(np.einsum("on,tpn->pto", GRAPH.sight(THETA), z[:, 1:]) - _direct(best)).max() / DOSE
        row(f"scipy {method}, one system of 1225", seconds(lambda m=method: both_by_scipy(m), 1), error)
    if not given.quick:
        row("scipy BDF, central differences (96 solutions)", 96 * seconds(lambda: amounts_by_scipy("BDF"), 1), None)
    for stages in (3, 5, 7, 9):
        found = ours(DESIGN, 1, stages, True)()
        error = np.abs(found.solution.dy - best.dy).max() / DOSE
        row(f"ours, {stages} stages", seconds(ours(DESIGN, 1, stages, True), given.repeats), error, found.steps.mean())
    for problems in (10, 100):
        row(
            f"ours, 7 stages, {problems} problems at once", seconds(ours(DESIGN, problems, 7, True), 1) / problems, None
        )


def _direct(best) -> np.ndarray:
    """Return the sensitivities of what is seen without the part that comes from the observation's own factors."""
    slopes = GRAPH.view.slopes(THETA[None], GRAPH.search_slopes(THETA[None]))[0, :, :, : len(GRAPH.compartments)]
    return best.dy[0] - np.einsum("pon,tn->pto", slopes, best.amounts[0])


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
