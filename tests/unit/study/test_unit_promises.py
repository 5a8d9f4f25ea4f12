"""Promises of units and of % of injected dose: what text is taken, what a parameter's unit becomes, how errors travel."""

import numpy as np
import pytest

from evbiodist.imaging.quantify import OrganSignals, to_pct_id, to_unit
from evbiodist.io.scan import Scan
from evbiodist.study.model import StandardSettings
from evbiodist.study.units import activity_bq, check, derive, parse, to_hours


@pytest.mark.parametrize(
    ("value", "unit", "hours"),
    [(1, "h", 1), (1, "hr", 1), (2, "hrs", 2), (1, "d", 24), (90, "min", 1.5), (30, "m", 0.5), (36, "s", 0.01),
     (36, "sec", 0.01), (2, " h ", 2)],
)  # fmt: skip
def test_times_in_any_spelling_become_hours(value, unit, hours):
    assert to_hours(value, unit) == pytest.approx(hours, rel=1e-12)


@pytest.mark.parametrize("unit", ["g", "florps"])
def test_what_is_no_time_is_refused(unit):
    with pytest.raises(ValueError, match=f"'{unit}' is not a unit of time; write h, min, d or s"):
        to_hours(1, unit)


def test_activities_become_bq_and_what_is_none_is_none():
    assert activity_bq(3.0, "kBq") == pytest.approx(3000.0)
    assert activity_bq(1.0, "uCi") == pytest.approx(37000.0)
    assert activity_bq(1.0, "mg") is None
    assert activity_bq(1.0, "florps") is None


def test_unit_text_has_at_most_forty_characters():
    assert parse("a" * 40) == "a" * 40
    with pytest.raises(ValueError, match=r"^'a{40}' is not a unit"):
        parse("a" * 41)


@pytest.mark.parametrize("text", ["", "1", "9*h", "h**2", "h(2)", "__import__('os')", "h^22"])
def test_text_that_is_no_plain_product_is_refused(text):
    with pytest.raises(ValueError, match="is not a unit; write for instance"):
        parse(text)


def test_au_is_the_arbitrary_unit_and_a_dot_multiplies():
    assert parse("au") == "arbitrary_unit"
    assert parse("ng·h/mL") == "ng*h/mL"
    assert parse("%ID/g") == "pct_id_per_g"
    check("au*h")


@pytest.mark.parametrize(
    ("expression", "value", "dose", "time", "unit", "factor"),
    [
        ("1", "ng/mL", "", "h", "1", 1.0),
        ("time", "ng/mL", "", "h", "h", 1.0),
        ("1/time", "ng/mL", "", "h", "1/h", 1.0),
        ("value", "ng/mL", "", "h", "ng/mL", 1.0),
        ("value*time", "ng/mL", "", "h", "ng*h/mL", 1.0),
        ("value*time*time", "au", "", "h", "au*h^2", 1.0),
        ("value*time", "au", "", "min", "au*min", 1.0),
        ("value/time/time", "au", "", "h", "au/h^2", 1.0),
        ("dose/value/time", "pct_id_per_g", "pct_id", "h", "g/h", 1.0),
        ("dose/value", "ng/mL", "mg", "h", "mL", 1e6),
        ("value*time/dose", "ng/mL", "ng", "h", "h/mL", 1.0),
        ("value/dose", "ng/mL", "ug", "h", "1/mL", 1e-3),
        ("dose/value", "ng/mL", "", "h", "", 1.0),
        ("dose", "ng/mL", "mg", "h", "mg", 1.0),
    ],
)
def test_a_parameter_has_the_unit_of_its_ingredients(expression, value, dose, time, unit, factor):
    found = derive(expression, value, dose, time)
    assert (found.unit, found.factor) == (unit, pytest.approx(factor, rel=1e-12))


def test_a_unit_that_pint_does_not_know_is_refused():
    with pytest.raises(ValueError, match="'florps' is not a unit that is known here"):
        derive("value*time", "florps")


def signals(value, covariance, **more):
    n = len(value)
    given = {"area_px": np.arange(1.0, n + 1), "area_cm2": None, "flags": ((),) * n, "fit": None} | more
    names = ("liver", "standard", "brain")[:n]
    return OrganSignals(names, np.array(value), np.array(covariance), np.full(n, 9.0), "p_per_s", **given)


def test_pct_id_is_the_ratio_to_the_standard_with_the_errors_of_both():
    covariance = np.array([[4.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 0.25]])
    given = signals([50.0, 20.0, -2.0], covariance, area_cm2=np.array([1.0, 2.0, 3.0]), volume_ml=np.array([4.0, 5.0, 6.0]),
                    flags=(("systematic", "touches"), ("a",), ("systematic",)))  # fmt: skip
    found = to_pct_id(given, StandardSettings(organ="standard", pct_of_dose=10.0, pct_of_dose_se=0.4))
    assert found.organs == ("liver", "brain")
    assert found.unit == "pct_id"
    np.testing.assert_allclose(found.value, [25.0, -1.0], rtol=1e-14)
    np.testing.assert_allclose(found.se_systematic, [2.5 * 0.4, 0.1 * 0.4], rtol=1e-14)
    jacobian = 10 * np.array([[1 / 20, -50 / 400, 0.0], [0.0, 2 / 400, 1 / 20]])
    np.testing.assert_allclose(found.covariance, jacobian @ covariance @ jacobian.T, rtol=1e-12)
    assert found.flags == (("touches",), ())
    assert found.area_px.tolist() == [1.0, 3.0]
    assert found.area_cm2.tolist() == [1.0, 3.0]
    assert found.volume_ml.tolist() == [4.0, 6.0]


def test_without_sizes_there_are_none_after():
    found = to_pct_id(signals([5.0, 20.0], np.eye(2)), StandardSettings(organ="standard", pct_of_dose=1.0))
    assert (found.area_cm2, found.volume_ml) == (None, None)
    assert found.se_systematic.tolist() == [0.0]


@pytest.mark.parametrize(("reading", "enough"), [(6.0, False), (6.01, True), (-50.0, False), (np.nan, False)])
def test_the_standard_must_read_more_than_three_errors(reading, enough):
    given, standard = signals([5.0, reading], np.diag([1.0, 4.0])), StandardSettings(organ="standard", pct_of_dose=1.0)
    if enough:
        assert to_pct_id(given, standard).value[0] == pytest.approx(5.0 / reading)
        return
    with pytest.raises(ValueError, match=r"'standard' reads .* not above noise"):
        to_pct_id(given, standard)


def test_a_standard_that_is_nowhere_is_named():
    with pytest.raises(ValueError, match=r"'vial' is not among the regions \(liver, standard\)"):
        to_pct_id(signals([5.0, 20.0], np.eye(2)), StandardSettings(organ="vial", pct_of_dose=1.0))


@pytest.mark.parametrize(
    ("axes", "more", "factor", "unit"),
    [
        ("YX", {"unit": "p/s/cm2/sr", "pixel_size_mm": (2.0, 0.5)}, 4 * np.pi * 0.01, "p_per_s"),
        ("ZYX", {"unit": "Bq/mL", "pixel_size_mm": (2.0, 0.5), "slice_mm": 3.0}, 0.003, "bq"),
        ("YX", {"exposure_s": 4.0}, 0.25, "au"),
        ("YX", {}, 1.0, "au"),
    ],
)
def test_summed_pixels_become_totals(axes, more, factor, unit):
    found = to_unit(Scan("a", None, np.ones((2,) * len(axes)), axes, **more))
    assert found == (pytest.approx(factor, rel=1e-14), unit)


@pytest.mark.parametrize(
    ("axes", "more", "words"),
    [
        ("YX", {"unit": "p/s/cm2/sr"}, "a does not say its pixel size, so total flux"),
        ("ZYX", {"unit": "p/s/cm2/sr", "pixel_size_mm": (1.0, 1.0)}, "a unit of surfaces"),
        ("ZYX", {"unit": "Bq/mL", "slice_mm": 1.0}, "a does not say its pixel size, so activity"),
        ("ZYX", {"unit": "Bq/mL", "pixel_size_mm": (1.0, 1.0)}, "the distance of its slices, so activity in Bq"),
    ],
)
def test_a_total_needs_the_spacing(axes, more, words):
    with pytest.raises(ValueError, match=words):
        to_unit(Scan("a", None, np.ones((2,) * len(axes)), axes, **more))
