"""Parameters carried to another species: hand numbers, linear regression's own intervals, and always an extrapolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evbiodist.kinetics.fitting.scaling import EXPONENTS, Body, body_weight_g, fit_species, scale
from evbiodist.study.estimate import Estimate

MOUSE, RAT, MONKEY, HUMAN = Body("mouse", 20), Body("rat", 250), Body("monkey", 5000), Body("human", 70000)


def one(value: float, se: float = math.nan, **more: object) -> Estimate:
    return Estimate("cl", value, se=se, unit="mL/h", **more)


POWERS = [
    ("clearance", 3500**0.75),
    ("volume", 3500.0),
    ("rate", 3500**-0.25),
    ("time", 3500**0.25),
    ("dose/value/time", 3500**0.75),
    ("1/time", 3500**-0.25),
]


@pytest.mark.parametrize(("kind", "factor"), POWERS)
def test_values_go_with_the_power_of_weight(kind: str, factor: float) -> None:
    assert scale(one(2.0, 0.2), kind, MOUSE, HUMAN).value == pytest.approx(2 * factor)


def test_the_interval_holds_the_estimate_and_the_exponent() -> None:
    found = scale(one(2.0, 0.2), "clearance", MOUSE, HUMAN)
    reach = stats.norm.ppf(0.975) * math.hypot(0.1, 0.16 * math.log(3500))
    assert found.ci_high / found.value == pytest.approx(math.exp(reach))
    assert found.value / found.ci_low == pytest.approx(math.exp(reach))
    narrow = scale(one(2.0, 0.2), "clearance", MOUSE, HUMAN, exponent=0.75, exponent_sd=0.0)
    assert narrow.ci_high / narrow.value == pytest.approx(math.exp(stats.norm.ppf(0.975) * 0.1))


def test_there_and_back_is_the_same_value() -> None:
    there = scale(one(2.0, 0.2), "volume", MOUSE, HUMAN)
    assert scale(there, "volume", HUMAN, MOUSE).value == pytest.approx(2.0)


def test_it_is_always_an_extrapolation_with_its_reason() -> None:
    found = scale(one(2.0, 0.2, flags=("correlated",)), "clearance", Body("mouse"), Body("human"))
    assert {"extrapolated", "correlated"} <= set(found.flags)
    assert found.unit == "mL/h"
    for word in (
        "mouse of 20 g, usual weight (httk)",
        "human of 70 kg",
        "weight^0.75",
        "Hu & Hayton 2001",
        "no human was measured",
    ):
        assert word in found.reason
    bare = scale(one(2.0), "clearance", MOUSE, HUMAN)
    assert math.isnan(bare.se)
    assert "no standard error" in bare.reason
    assert "extrapolated" in bare.flags


def test_rates_err_as_clearance_over_volume() -> None:
    """A rate is a clearance over a volume, and so are exponents; their errors add as if independent."""
    cl, v, rate = (EXPONENTS[k] for k in ("dose/value/time", "dose/value", "1/time"))
    assert rate.value == pytest.approx(cl.value - v.value)
    assert rate.sd == pytest.approx(math.hypot(cl.sd, v.sd), abs=0.005)


def test_fitted_exponents_are_linear_regression() -> None:
    bodies, values = (MOUSE, RAT, MONKEY, Body("dog", 12000)), np.array([1.0, 9.0, 50.0, 160.0])
    law = fit_species({b: one(v) for b, v in zip(bodies, values, strict=True)}, HUMAN)
    x, y = np.log([b.grams for b in bodies]), np.log(values)
    line = stats.linregress(x, y)
    t = stats.t.ppf(0.975, 2)
    assert law.exponent.value == pytest.approx(line.slope)
    assert law.exponent.se == pytest.approx(line.stderr)
    assert law.exponent.ci_high == pytest.approx(line.slope + t * line.stderr)
    assert law.coefficient == pytest.approx(math.exp(line.intercept))
    at = math.log(70000)
    s = math.sqrt(np.sum((y - line.intercept - line.slope * x) ** 2) / 2)
    spread = s * math.sqrt(1 + 1 / 4 + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
    centre = line.intercept + line.slope * at
    assert law.prediction.ci_low == pytest.approx(math.exp(centre - t * spread))
    assert law.prediction.ci_high == pytest.approx(math.exp(centre + t * spread))
    assert (law.df, law.between_sd) == (2, pytest.approx(s))
    assert "extrapolated" in law.prediction.flags
    assert any("5.83 times beyond" in n for n in law.notes)


def test_prediction_intervals_hold_a_new_species() -> None:
    rng, inside = np.random.default_rng(1), 0
    weights = np.array([20.0, 250, 2500, 5000])
    for _ in range(400):
        values = np.exp(rng.normal(0.75 * np.log([*weights, 70000]), 0.3))
        law = fit_species({Body("x", w): one(v) for w, v in zip(weights, values, strict=False)}, HUMAN)
        inside += law.prediction.ci_low <= values[-1] <= law.prediction.ci_high
    assert abs(inside / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_two_species_have_their_own_errors_only_and_say_so() -> None:
    law = fit_species({MOUSE: one(1.0, 0.1), RAT: one(7.0, 1.4)}, HUMAN)
    slope = math.log(7) / math.log(12.5)
    se = math.hypot(0.1, 0.2) / math.log(12.5)
    assert law.exponent.value == pytest.approx(slope)
    assert law.exponent.se == pytest.approx(se)
    assert law.df == 0
    assert "not how species differ" in law.notes[0]
    bare = fit_species({MOUSE: one(1.0), RAT: one(7.0)}, HUMAN)
    assert math.isnan(bare.exponent.se)
    assert "two species without standard errors" in bare.exponent.reason
    assert bare.prediction.value == pytest.approx(7 * 280**slope)


def test_scatter_never_makes_an_interval_narrower_than_the_errors() -> None:
    exact = {b: one(b.grams**0.75, 0.3 * b.grams**0.75) for b in (MOUSE, RAT, MONKEY)}
    law = fit_species(exact, HUMAN)
    assert law.between_sd == pytest.approx(0, abs=1e-9)
    assert law.exponent.se > 0.05


def test_usual_weights_come_with_their_source() -> None:
    assert body_weight_g("human") == (70000.0, "httk")
    assert Body("rat").grams == 250
    with pytest.raises(ValueError, match="no body weight of 'hamster' is known; give weight_g"):
        Body("hamster")


def test_what_cannot_be_scaled_is_said() -> None:
    with pytest.raises(ValueError, match="kind has 'clearence', expected one of clearance"):
        scale(one(1.0), "clearence", MOUSE, HUMAN)
    with pytest.raises(ValueError, match="cl is 0, and only positive values"):
        scale(one(0.0), "clearance", MOUSE, HUMAN)
    with pytest.raises(ValueError, match="too few times"):
        scale(Estimate("cl", reason="too few times"), "clearance", MOUSE, HUMAN)
    with pytest.raises(ValueError, match="weight_g of mouse has -1"):
        Body("mouse", -1)
    with pytest.raises(ValueError, match="exponent_sd -1"):
        scale(one(1.0), "clearance", MOUSE, HUMAN, exponent_sd=-1)
    with pytest.raises(ValueError, match="an exponent needs two or more"):
        fit_species({MOUSE: one(1.0)}, HUMAN)
    with pytest.raises(ValueError, match=r"different units \(L/h, mL/h\)"):
        fit_species({MOUSE: one(1.0), RAT: Estimate("cl", 1.0, unit="L/h")}, HUMAN)
    with pytest.raises(ValueError, match="cl of rat is -1"):
        fit_species({MOUSE: one(1.0), RAT: one(-1.0)}, HUMAN)
