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


def test_the_error_of_an_area_between_samples_owes_nothing_to_what_lies_after_the_last():
    """Area 0 to 2 h by trapezoids, beside one that goes beyond the last sample and so needs the terminal line."""
    times, se = [0.0, 1.0, 2.0, 4.0, 8.0], np.array([0.3, 0.2, 0.1, 0.02, 0.002])
    found = nca(times, [8.0, 4.0, 2.0, 0.5, 0.03], se=se, n=5, method="linear", partial=[(0, 2), (4, 12)])
    weights = np.array([0.5, 1.0, 0.5, 0.0, 0.0])
    assert found["auc_0_2h"].value == pytest.approx(weights @ [8, 4, 2, 0.5, 0.03])
    assert found["auc_0_2h"].se == pytest.approx(np.sqrt(((weights * se) ** 2).sum()))
    assert found["auc_4_12h"].se > 0


def test_the_share_beyond_the_last_sample_by_the_terminal_line_is_arithmetic():
    """An exponential of rate 0.5 sampled to 4 h leaves exp(-2) of its area behind, to which linear trapezoids add."""
    times = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    value = 8 * np.exp(-0.5 * times)
    found = nca(times, value, method="log")
    assert found["auc_pct_extrap_pred"].value == pytest.approx(100 * np.exp(-2.0))
    assert found["auc_pct_extrap_obs"].value == pytest.approx(100 * np.exp(-2.0))


@pytest.mark.parametrize("hours", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("fall", "falls"), [(1e-6, True), (0.0, False), (-1e-6, False)])
def test_whether_a_chosen_line_falls_does_not_depend_on_the_unit_of_time(hours, fall, falls):
    """A millionth of the value over the whole line is a fall, in seconds as in years."""
    share = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    found = nca(hours * share, 8 * np.exp(-fall * share), lambda_z_points=3)["lambda_z"]
    if falls:
        assert found.value * hours == pytest.approx(fall, rel=1e-6)
    else:
        assert found.reason == "the terminal slope is not negative"


@pytest.mark.parametrize("name", ["Profiles", "Choice"])
def test_data_and_decisions_cannot_be_changed_after_they_were_checked(name):
    from dataclasses import FrozenInstanceError

    from evbiodist.kinetics.nca import choices

    made = object.__new__(getattr(choices, name))
    with pytest.raises(FrozenInstanceError):
        made.peak = made.t = np.zeros(3)
