"""Compare `fit` with the same model written by hand: scipy's odeint inside lmfit, as in lmfit's own examples.

Blood and five organs, 12 parameters, 72 points. The hand-written fit is helped: it gets our final weights and a
start within a factor of two of the truth, fits once, and stops at parameters and covariance. Ours finds its own
starts, tries three, reweights, and adds derived quantities with errors.
"""

from __future__ import annotations

import argparse

import lmfit
import numpy as np
import pandas as pd
from scipy.integrate import odeint
from side_by_side import medians, show

from evbiodist.kinetics.fit import FitResult, fit

ORGANS = ("kidney", "liver", "lung", "muscle", "spleen")
TIMES = np.array([0.083, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 24, 36, 48])
DOSE = 100.0
TRUTH = {"v": 2.0, "k_el": 0.25}
for _organ, _into, _back in zip(ORGANS, (0.10, 0.60, 0.15, 0.08, 0.20), (0.30, 0.05, 0.40, 0.15, 0.04), strict=True):
    TRUTH |= {f"k_in_{_organ}": _into, f"k_out_{_organ}": _back}
OURS = "evbiodist fit, all of it"


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


def make_observations() -> pd.DataFrame:
    values = curves(TRUTH) * np.exp(np.random.default_rng(3).normal(0, 0.05, (TIMES.size, 1 + len(ORGANS))))
    rows = [
        {"organ": organ, "unit": "pct_id" if k else "pct_id_per_g", "subject": f"mouse {i}", "time_h": t,
         "value": values[i, k], "sd": np.nan, "n": 1, "se": np.nan, "se_systematic": np.nan, "below_lloq": False}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    observations = make_observations()
    values = observations["value"].to_numpy().reshape(-1, TIMES.size).T
    ours = fit(observations, "plasma_with_organs")
    expected = ours.graph.predict(ours.theta, TIMES, DOSE)[0]
    sigma = ours.data.sigma(expected.T.ravel()).reshape(-1, TIMES.size).T
    theirs = by_hand(values, sigma)
    check(ours, theirs, values, sigma)
    print(f"the hand-written fit solved the equations {theirs.nfev} times")
    ways = {
        OURS: lambda: fit(observations, "plasma_with_organs"),
        "odeint in lmfit by hand, one start, weights given": lambda: by_hand(values, sigma),
    }
    show("12 parameters, 72 points, one optimum (chi2 to 1e-4, parameters to 1 %)", medians(ways, repeats), OURS)


if __name__ == "__main__":
    main()
