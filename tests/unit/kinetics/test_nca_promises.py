"""Promises of errors of areas for the shortest profiles, by hand."""

import numpy as np
import pytest

from evbiodist.kinetics.nca.nca import nca


@pytest.mark.parametrize(
    ("times", "route", "weights"),
    [
        ([1.0, 3.0], "ip", [1.5, 1.0]),  # from 0 at 0 h: half of each piece that ends at a sample
        ([0.0, 2.0], "iv_bolus", [1.0, 1.0]),
        ([2.0], "ip", [1.0]),
        ([0.0, 1.0, 3.0], "iv_bolus", [0.5, 1.5, 1.0]),
        ([1.0, 2.0, 4.0], "ip", [1.0, 1.5, 1.0]),
    ],
)
def test_the_error_of_an_area_has_the_weights_of_the_trapezoids(times, route, weights):
    value, se = np.array([4.0, 2.0, 1.0])[: len(times)], np.array([0.3, 0.2, 0.1])[: len(times)]
    found = nca(times, value, se=se, n=5, route=route, method="linear")["auclast"]
    assert found.value == pytest.approx(weights @ value)
    assert found.se == pytest.approx(np.sqrt((np.array(weights) * se) ** 2 @ np.ones(len(times))))
