"""Diagnostics of fits: residuals are those of the tables, and their spread is that of animals, whatever the curve."""

import math

import numpy as np
import pandas as pd

from evbiodist.report.diagnostics import residuals


def tables(truth, seen, times=(1.0, 2.0, 4.0, 8.0), label="a"):
    where = {"group": "g", "label": label, "organ": "liver", "unit": "pct_id"}
    grid = np.geomspace(0.5, 10, 200)
    curves = pd.DataFrame({**where, "model": "m", "time_h": grid, "value": truth(grid)})
    rows = [{**where, "subject": f"s{i}{j}", "time_h": t, "value": v, "below_lloq": "no"} for i, t in enumerate(times)
            for j, v in enumerate(seen(t))]  # fmt: skip
    return pd.DataFrame(rows), curves


def test_residuals_are_log_ratios_over_the_spread_of_animals():
    truth = lambda t: 20 * np.exp(-0.3 * t)  # noqa: E731
    observed, curves = tables(truth, lambda t: truth(t) * np.exp([0.1, -0.1]) * 1.2)
    found = residuals(observed, curves)
    np.testing.assert_allclose(found["fitted"], truth(found["time_h"]), rtol=1e-3)
    sd = math.sqrt(4 * 2 * 0.1**2 / 4)  # two animals at each of four times: one degree of freedom each
    expected = (np.log(1.2) + np.tile([0.1, -0.1], 4)) / sd
    np.testing.assert_allclose(found["z"], expected, rtol=0.02)


def test_residuals_of_a_right_model_are_standard():
    """Over many studies the residuals of true curves have mean 0 and SD 1."""
    rng, truth = np.random.default_rng(3), lambda t: 20 * np.exp(-0.3 * t)
    z = np.concatenate(
        [residuals(*tables(truth, lambda t: truth(t) * np.exp(rng.normal(0, 0.3, 6))))["z"] for _ in range(60)]
    )
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert 0.93 < z.std() < 1.08


def test_single_animals_are_measured_by_their_own_residuals():
    truth = lambda t: 20 * np.exp(-0.3 * t)  # noqa: E731
    found = residuals(*tables(truth, lambda t: [truth(t) * math.exp(0.2 if t > 3 else -0.2)]))
    np.testing.assert_allclose(found["z"].abs(), 1.0, rtol=0.02)


def test_values_without_a_curve_or_a_logarithm_are_left_out():
    truth = lambda t: 20 * np.exp(-0.3 * t)  # noqa: E731
    observed, curves = tables(truth, lambda t: [truth(t), -1.0, 0.0])
    other, _ = tables(truth, lambda t: [1.0], label="b")
    late, _ = tables(truth, lambda t: [1.0], times=(500.0,))
    assert len(residuals(pd.concat([observed, other, late]), curves)) == 4
    assert residuals(observed, curves.iloc[:0]).empty
