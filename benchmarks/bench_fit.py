"""Fits side by side with what a user would write: one fit of 12 parameters, and a thousand at once.

(a) Blood and five organs, 12 parameters, 72 points: `fit` against scipy's odeint inside lmfit, as in lmfit's own
examples. The hand-written fit is helped: it gets our final weights and a start within a factor of two of the truth,
and stops at parameters and covariance. Ours finds its own starts, reweights, and adds derived quantities with errors.
The same for 200 such data sets in one batch.
(b) 1,000 two-compartment curves of 12 points with known errors: `fit_many` against curve_fit, lmfit.minimize with the
closed formula, each one by one from starts within a factor of 1.5 of the truth (ours finds its own).
(c) 1,000 two-tissue curves (PET) of 30 frames with exact frame means, 5 parameters: `fit_many` against scipy's
leastsq with the plasma curve convolved on a fine grid.
(d) Growth: 10, 100, 1,000 and 10,000 curves of (b).
"""

from __future__ import annotations

import argparse
import time

import lmfit
import numpy as np
import pandas as pd
from scipy.integrate import odeint
from scipy.optimize import curve_fit, leastsq
from side_by_side import medians, show

from evbiodist.kinetics.fitting.data import prepare
from evbiodist.kinetics.fitting.fit import FitResult, fit, fit_all
from evbiodist.kinetics.fitting.many import fit_many
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses, SampledCurve
from evbiodist.kinetics.models.solve import Design, solve

ORGANS = ("kidney", "liver", "lung", "muscle", "spleen")
TIMES = np.array([0.083, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 24, 36, 48])
DOSE = 100.0
TRUTH = {"v": 2.0, "k_el": 0.25}
for _organ, _into, _back in zip(ORGANS, (0.10, 0.60, 0.15, 0.08, 0.20), (0.30, 0.05, 0.40, 0.15, 0.04), strict=True):
    TRUTH |= {f"k_in_{_organ}": _into, f"k_out_{_organ}": _back}


def rates(amounts: np.ndarray, t: float, p: dict[str, float]) -> list[float]:
    """Return dA/dt of blood and organs, as a user writes it."""
    blood, organs = amounts[0], amounts[1:]
    into = [p[f"k_in_{o}"] * blood for o in ORGANS]
    back = [p[f"k_out_{o}"] * a for o, a in zip(ORGANS, organs, strict=True)]
    return [-p["k_el"] * blood - sum(into) + sum(back), *(i - b for i, b in zip(into, back, strict=True))]


def curves(p: dict[str, float]) -> np.ndarray:
    """Return what is measured, blood as a concentration first, shape (12, 6)."""
    amounts = odeint(rates, [DOSE] + [0.0] * len(ORGANS), np.r_[0.0, TIMES], args=(p,), rtol=1e-8, atol=1e-10)[1:]
    amounts[:, 0] /= p["v"]
    return amounts


def make_observations(seed: int = 3) -> pd.DataFrame:
    values = curves(TRUTH) * np.exp(np.random.default_rng(seed).normal(0, 0.05, (TIMES.size, 1 + len(ORGANS))))
    rows = [
        {"organ": organ, "unit": "pct_id" if k else "pct_id_per_g", "subject": f"mouse {i}", "time_h": t,
         "value": values[i, k], "sd": np.nan, "n": 1, "se": np.nan, "se_systematic": np.nan, "below_lloq": False,
         "lloq": np.nan}
        for k, organ in enumerate(("blood", *ORGANS)) for i, t in enumerate(TIMES)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def by_hand(values: np.ndarray, sigma: np.ndarray) -> lmfit.minimizer.MinimizerResult:
    away = np.random.default_rng(4).uniform(-np.log(2), np.log(2), len(TRUTH))
    params = lmfit.Parameters()
    for (name, value), step in zip(TRUTH.items(), away, strict=True):
        params.add(name, value=value * np.exp(step), min=0)
    return lmfit.minimize(lambda p: ((curves(p.valuesdict()) - values) / sigma).ravel(), params)


def check(ours: FitResult, theirs: lmfit.minimizer.MinimizerResult, values: np.ndarray, sigma: np.ndarray) -> None:
    """Both are at one optimum: the same weighted sum of squares and the same parameters."""
    found = dict(zip(ours.graph.names, ours.theta, strict=True))
    np.testing.assert_allclose(np.sum(((curves(found) - values) / sigma) ** 2), theirs.chisqr, rtol=1e-4)
    for name, value in found.items():
        assert abs(value / theirs.params[name].value - 1) < 0.01, (name, value, theirs.params[name].value)


def organs(repeats: int) -> None:
    observations = make_observations()
    values = observations["value"].to_numpy().reshape(-1, TIMES.size).T
    data = prepare(observations, organs=True)
    ours = fit(data, "plasma_with_organs")
    expected = ours.graph.predict(ours.theta, TIMES, DOSE)[0]
    sigma = ours.data.sigma(expected.T.ravel()).reshape(-1, TIMES.size).T
    theirs = by_hand(values, sigma)
    check(ours, theirs, values, sigma)
    print(f"the hand-written fit solved the equations {theirs.nfev} times")
    graph, many = build("plasma_with_organs", ORGANS), [prepare(make_observations(s), organs=True) for s in range(200)]
    inputs = {"dose": Doses(DOSE)}
    name = "fit, from arrays to parameters"
    ways = {
        name: lambda: fit(data, "plasma_with_organs"),
        "the same with derived quantities and intervals": lambda: fit(data, "plasma_with_organs").estimates,
        "the same from a table": lambda: fit(observations, "plasma_with_organs").estimates,
        "odeint in lmfit by hand, one start, weights given": lambda: by_hand(values, sigma),
        "200 data sets in one batch (all)": lambda: fit_all(graph, many, [inputs] * len(many)),
    }
    show("(a) 12 parameters, 72 points, one optimum (chi2 to 1e-4, parameters to 1 %)", medians(ways, repeats), name)


def biexponential(t: np.ndarray, cl: float, v1: float, q: float, v2: float) -> np.ndarray:
    """The closed formula after a bolus, on logarithms of the parameters."""
    cl, v1, q, v2 = np.exp([cl, v1, q, v2])
    k10, k12, k21 = cl / v1, q / v1, q / v2
    total = k10 + k12 + k21
    root = np.sqrt(total * total - 4 * k10 * k21)
    alpha, beta = (total + root) / 2, (total - root) / 2
    return DOSE / v1 * ((alpha - k21) * np.exp(-alpha * t) - (beta - k21) * np.exp(-beta * t)) / root


def many_curves(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    theta = np.array([3.0, 5.0, 4.0, 20.0]) * np.exp(rng.normal(0, 0.3, (count, 4)))
    t = np.array([0.08, 0.17, 0.33, 0.5, 0.75, 1, 2, 3, 4, 6, 8, 12])
    exact = solve(build("two_compartment_iv"), theta, Design(t, inputs={"dose": Doses(DOSE)})).y[:, :, 0]
    return t, exact * np.exp(rng.normal(0, 0.05, exact.shape)), 0.05 * exact, theta


def compartments(repeats: int) -> None:
    t, seen, se, theta = many_curves(1000)
    starts = np.log(theta) + np.random.default_rng(1).uniform(-0.4, 0.4, theta.shape)

    def ours() -> np.ndarray:
        return fit_many(t, seen, "two_compartment_iv", dose=DOSE, se=se, weights="given").theta

    def scipys() -> np.ndarray:
        return np.exp(
            [curve_fit(biexponential, t, y, s, e, maxfev=5000)[0] for y, e, s in zip(seen, se, starts, strict=True)]
        )

    def lmfits() -> np.ndarray:
        found = []
        for y, e, s in zip(seen[:100], se, starts, strict=False):
            params = lmfit.Parameters()
            for name, value in zip("abcd", s, strict=True):
                params.add(name, value=value)
            result = lmfit.minimize(lambda p, y=y, e=e: (biexponential(t, *p.valuesdict().values()) - y) / e, params)
            found.append([p.value for p in result.params.values()])
        return np.exp(found)

    with np.errstate(all="ignore"):
        a, b = ours(), scipys()
        agree = np.mean(np.abs(a / b - 1).max(axis=1) < 1e-3)
        print(f"\n(b) parameters agree with curve_fit to 0.1 % in {100 * agree:.1f} % of curves")
        assert agree > 0.97
        name = "fit_many, own starts, standard errors and intervals"
        ways = {name: ours, "curve_fit one by one, near starts": scipys,
                "lmfit.minimize with the formula (100 curves only)": lmfits}  # fmt: skip
        show("(b) 1,000 two-compartment fits of 12 points", medians(ways, repeats), name)


def tissues(repeats: int) -> None:
    rng = np.random.default_rng(0)
    knots = np.r_[0, np.geomspace(0.002, 1.5, 60)]
    plasma = SampledCurve(
        knots, 100 * knots / 0.02 * np.exp(1 - knots / 0.02) + 20 * np.exp(-1.5 * knots) * (knots > 0)
    )
    edges = np.r_[0, np.cumsum(np.repeat([10, 30, 60, 120, 300], [6, 6, 6, 6, 6]) / 3600)]
    start, end = edges[:-1], edges[1:]
    spread = np.exp(rng.normal(0, 0.3, (1000, 4)))
    theta = np.column_stack([np.array([6.0, 12.0, 3.0, 2.0]) * spread, rng.uniform(0.03, 0.08, 1000), np.zeros(1000)])
    inputs = {"plasma": plasma, "whole_blood": plasma}
    exact = solve(build("two_tissue"), theta, Design(start, end, inputs=inputs)).y[:, :, 0]
    se = np.broadcast_to(0.02 * exact.max(axis=1, keepdims=True), exact.shape)
    seen = exact + se * rng.normal(size=exact.shape)

    def ours() -> np.ndarray:
        return fit_many(start, seen, "two_tissue", inputs=inputs, end_h=end, se=se, weights="given").theta

    fine = np.linspace(0, end[-1], 1200)
    step, cp = fine[1], plasma.level(fine[None], False)[0]

    def model(p: np.ndarray) -> np.ndarray:
        k1, k2, k3, k4, vb = np.exp(p)
        total = k2 + k3 + k4
        root = np.sqrt(max(total * total - 4 * k2 * k4, 1e-12))
        slow, fast = (total - root) / 2, (total + root) / 2
        irf = k1 / root * ((k3 + k4 - slow) * np.exp(-slow * fine) + (fast - k3 - k4) * np.exp(-fast * fine))
        whole = np.cumsum((1 - vb) * np.convolve(irf, cp)[: fine.size] * step + vb * cp) * step
        return np.diff(np.interp(edges, fine, whole)) / (end - start)

    def scipys() -> np.ndarray:
        found = []
        for y, e, p in zip(seen[:100], se, np.log(theta[:, :5]), strict=False):
            found.append(leastsq(lambda q, y=y, e=e: (model(q) - y) / e, p + 0.2)[0])
        return np.exp(found)

    name = "fit_many, exact frame means, standard errors"
    ways = {name: ours, "leastsq, convolution on a grid (100 curves only)": scipys}
    found = ours()
    print(
        f"\n(c) median errors of K1..v_b: {np.median(np.abs(found / np.where(theta, theta, 1) - 1), axis=0)[:5].round(3)}"
    )
    show("(c) 1,000 two-tissue fits of 30 frames", medians(ways, repeats), name)


def growth() -> None:
    print("\n(d) microseconds a curve (CPU), two compartments, known errors")
    for count in (10, 100, 1000, 10000):
        t, seen, se, _ = many_curves(count)
        begin = time.process_time()
        fit_many(t, seen, "two_compartment_iv", dose=DOSE, se=se, weights="given")
        print(f"  {count:>6} curves: {(time.process_time() - begin) / count * 1e6:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["a", "b", "c", "d"])
    given = parser.parse_args()
    parts = {"a": organs, "b": compartments, "c": tissues}
    for key, part in parts.items():
        if given.only in (None, key):
            part(given.repeats)
    if given.only in (None, "d"):
        growth()


if __name__ == "__main__":
    main()
