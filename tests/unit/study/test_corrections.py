"""Decay, dose and vessel blood: what is corrected is shown, what cannot be is flagged."""

import pytest

from evbiodist.study.corrections import blood_per_gram, correct_decay, share_of_dose, subtract_vessel_blood
from evbiodist.study.model import Label, Observation


def row(organ, value, unit="pct_id", **more):
    return Observation(
        **{"subject": "a", "label": "x", "organ": organ, "time_h": 1.0, "value": value, "unit": unit, **more}
    )


def test_decay_scales_value_and_errors_alike():
    labels = {"x": Label(kind="radioactive", half_life_h=1.0)}
    (done,) = correct_decay([row("liver", 10.0, "bq", se=1.0, se_systematic=0.5, lloq=0.2)], labels)
    assert (done.value, done.se, done.se_systematic, done.lloq) == (20.0, 2.0, 1.0, 0.4)
    assert "decay_corrected" in done.flags


def test_activity_becomes_share_of_dose_only_with_a_dose_in_activity():
    rows = [row("liver", 50.0, "bq")]
    assert share_of_dose(rows, {("all", "a", "x"): (1000.0, "Bq")})[0].value == 5.0
    assert share_of_dose(rows, {("all", "a", "x"): (1e10, "particles")})[0].unit == "bq"
    assert share_of_dose(rows, {})[0].unit == "bq"


def test_recovered_share_is_never_turned_into_dose():
    (r,) = share_of_dose([row("liver", 50.0, "pct_recovered")], {("all", "a", "x"): (1.0, "MBq")})
    assert (r.value, r.unit) == (50.0, "pct_recovered")
    (r,) = subtract_vessel_blood([r], "mouse", {})
    assert r.vessel_blood is None


@pytest.mark.parametrize("value", [20.0])
def test_wiklander_trap_blood_alone_explains_a_third_of_a_percent(value):
    """science.md section 1: an unperfused 0.45 g brain at 20 %ID/mL holds 0.27-0.36 %ID in its vessels."""
    blood, brain = row("blood", value, "pct_id_per_g"), row("brain", 1.0, mass_g=0.45)
    done = subtract_vessel_blood([blood, brain], "mouse", {})[1]
    assert 0.27 <= done.vessel_blood <= 0.36
    assert done.value == pytest.approx(1.0 - done.vessel_blood)
    assert done.se_systematic > 0
    assert "blood_subtracted" in done.flags


def test_perfused_animals_keep_their_values():
    rows = [row("blood", 20.0, "pct_id_per_g"), row("brain", 1.0, mass_g=0.45)]
    assert subtract_vessel_blood(rows, "mouse", {("all", "a", "x"): True}) == rows


@pytest.mark.parametrize(
    "rows",
    [
        [row("brain", 1.0, mass_g=0.45)],  # no blood
        [row("blood", 20.0, "pct_id_per_g"), row("brain", 1.0)],  # no mass
        [row("blood", 20.0, "pct_id_per_g"), row("thyroid", 1.0, "pct_id_per_g")],  # no blood fraction
        [row("plasma", 20.0, "pct_id_per_g"), row("brain", 1.0, mass_g=0.45)],  # plasma is not blood
    ],
)
def test_blood_that_cannot_be_subtracted_is_flagged_and_left(rows):
    done = subtract_vessel_blood(rows, "mouse", {})[-1]
    assert done.value == 1.0
    assert "blood_in_organ" in done.flags


def test_blood_is_subtracted_once():
    rows = [row("blood", 20.0, "pct_id_per_g"), row("brain", 1.0, mass_g=0.45)]
    once = subtract_vessel_blood(rows, "mouse", {})
    assert subtract_vessel_blood(once, "mouse", {}) == once


def test_blood_sample_needs_its_mass():
    assert blood_per_gram([row("blood", 2.0)])[0].unit == "pct_id"
    assert blood_per_gram([row("blood", 2.0, mass_g=0.5)])[0].value == 4.0
    assert blood_per_gram([row("liver", 2.0, mass_g=0.5)])[0].unit == "pct_id"
