"""An organ beside blood: ratios with Fieller's interval, uptake, share of the dose, time-integrated activity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.designs.ratio import kp
from evbiodist.kinetics.nca.dosimetry import time_integrated_activity
from evbiodist.kinetics.nca.tissue import pct_injected, tissue_blood_ratio, uptake_clearance
from evbiodist.study.constants import isotopes
from evbiodist.study.estimate import Estimate
from evbiodist.study.flags import FLAGS

T = [1.0, 4.0, 24.0]


# ratio


def test_ratio_at_each_time_is_kp_of_two_numbers() -> None:
    """Value, error, interval and degrees of freedom as `ratio.kp` has them for two areas."""
    tissue, blood = np.array([2.0, 6.0, 3.0]), np.array([10.0, 4.0, 1.0])
    by_time, _ = tissue_blood_ratio(
        T, tissue, blood, tissue_se=0.2 * tissue, blood_se=0.1 * blood, tissue_n=4, blood_n=[3, 4, 5]
    )
    for k, n in enumerate((3, 4, 5)):
        expected = kp(
            Estimate("auclast", tissue[k], 0.2 * tissue[k]),
            Estimate("auclast", blood[k], 0.1 * blood[k]),
            df_tissue=3,
            df_blood=n - 1,
        )
        e = by_time.estimate("tissue_blood_ratio", 0, k)
        assert (e.value, e.se) == (pytest.approx(expected.value), pytest.approx(expected.se))
        assert (e.ci_low, e.ci_high) == (pytest.approx(expected.ci_low), pytest.approx(expected.ci_high))


def test_ratio_says_why_it_is_missing() -> None:
    by_time, last = tissue_blood_ratio(
        [1, 2, 3, 4, 5],
        [2, np.nan, 4, 4, 4],
        [1, 1, np.nan, 0.0, 1],
        blood_below_lloq=[0, 0, 0, 0, 1],
    )
    reasons = [by_time.estimate("tissue_blood_ratio", 0, k).reason for k in range(1, 5)]
    assert reasons == [
        "no tissue sample at 2 h",
        "no blood sample at 3 h",
        "blood is not above zero at 4 h",
        "blood is below the limit of quantification at 5 h",
    ]
    assert last.estimate("kp_last", 0).value == 2
    nothing = tissue_blood_ratio([1], [np.nan], [1])[1].estimate("kp_last", 0)
    assert nothing.reason == "at no time are tissue and blood both quantifiable and above zero"


def test_ratio_without_errors_and_in_other_units() -> None:
    by_time, last = tissue_blood_ratio(T, [2, 6, 3], [10, 4, 1], tissue_unit="ng/mL", blood_unit="ug/mL")
    e = by_time.estimate("tissue_blood_ratio", 0, 0)
    assert (e.value, e.unit, e.reason) == (pytest.approx(0.2e-3), "1", "no se is known, so no uncertainty")
    assert last.estimate("kp_last", 0).value == pytest.approx(3e-3)


def test_ratio_covers_the_truth() -> None:
    """Fieller's interval with 15 % error in blood, four animals each: 95 % over 4,000 pairs of means."""
    rng = np.random.default_rng(11)
    animals = rng.normal([[[3.0], [10.0]]], [[[0.6], [1.5]]], (4000, 2, 4))
    mean, se = animals.mean(axis=2), animals.std(axis=2, ddof=1) / 2
    _, last = tissue_blood_ratio(
        [1.0], mean[:, :1], mean[:, 1:], tissue_se=se[:, :1], blood_se=se[:, 1:], tissue_n=4, blood_n=4
    )
    low, high = last.ci_low["kp_last"], last.ci_high["kp_last"]
    open_ones = np.isnan(low)
    cover = ((low <= 0.3) & (high >= 0.3) | open_ones).mean()
    assert open_ones.mean() < 0.02
    assert 0.93 < cover < 0.975


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"blood": [1, 2]}, "blood has shape .2,., expected .1, 3.; give one number for each"),
        ({"time_h": [4, 1, 24]}, "time_h has 1 at position 1, expected times that rise; sort the rows"),
        ({"tissue_se": [-1, 1, 1]}, "tissue_se has -1 at position 0, expected 0 or more"),
        ({"blood_n": 0}, "blood_n has 0 at position 0, expected at least 1 animal"),
        ({"tissue": [np.inf, 1, 1]}, "tissue has inf at position 0, expected a finite number; write NaN"),
    ],
)
def test_ratio_refusals(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tissue_blood_ratio(**{"time_h": T, "tissue": [1, 2, 3], "blood": [1, 2, 3], **more})


# uptake


def test_uptake_is_the_rate_of_an_irreversible_organ() -> None:
    """An organ that only takes up holds K times the area in blood at every time."""
    k, uptake = 0.4, 0.05
    blood_t = np.array([0.25, 0.5, 1, 2, 4, 8])
    times = np.array([1.0, 3.0, 8.0])
    held = uptake * 10 / k * (1 - np.exp(-k * times))
    found = uptake_clearance(
        times,
        held,
        blood_t,
        10 * np.exp(-k * blood_t),
        tissue_se=0.1 * held,
        blood_se=0.0,
        tissue_unit="pct_id",
        blood_unit="pct_id_per_g",
    )
    assert found.units["uptake_clearance"] == "g/h"
    for i in range(3):
        e = found.estimate("uptake_clearance", 0, i)
        assert e.value == pytest.approx(uptake, rel=1e-9)
        assert e.se == pytest.approx(0.1 * uptake, rel=1e-9)


def test_uptake_adds_the_error_of_the_area() -> None:
    blood_t, blood = np.array([1.0, 2, 3, 4]), np.array([4.0, 6, 5, 2])
    se = np.array([0.4, 0.3, 0.2, 0.1])
    found = uptake_clearance(
        [[4.0]], [[10.0]], blood_t, blood, tissue_se=[[1.0]], blood_se=se, route="ip", method="linear"
    ).estimate("uptake_clearance", 0, 0)
    area, error = 16.0, math.sqrt(((np.array([1, 1, 1, 0.5]) * se) ** 2).sum())
    assert found.value == pytest.approx(10 / area)
    assert found.se == pytest.approx(10 / area * math.hypot(0.1, error / area))


def test_uptake_needs_a_curve_in_blood() -> None:
    found = uptake_clearance([0.5, np.nan], [1.0, 2.0], [0.5, 1, 2], [4, 2, 1])
    assert found.estimate("uptake_clearance", 0, 0).reason.startswith(
        "no area in blood until 0.5 h: 0 quantifiable samples"
    )
    assert found.estimate("uptake_clearance", 0, 1).reason == "no tissue sample"
    with pytest.raises(ValueError, match="expected a time after the dose"):
        uptake_clearance([0.0], [1.0], [0.5, 1, 2], [4, 2, 1])


# share of the dose


def test_share_of_the_dose() -> None:
    found = pct_injected(T, [3, 8, 2], se=[0.3, 0.8, 0.2], unit="pct_id_per_g", mass_g=1.5)[0]
    peak = found["peak_pct_id"]
    assert (peak.value, peak.se, peak.unit) == (12, pytest.approx(1.2), "pct_id")
    assert (found["last_pct_id"].value, found["tlast"].value, found["tmax"].value) == (3, 24, 4)
    in_bq = pct_injected(T, [3e3, 8e3, 2e3], unit="bq", dose=0.1, dose_unit="MBq")[0]
    assert in_bq["peak_pct_id"].value == pytest.approx(8)
    below = pct_injected(T, [3, 8, 2], below_lloq=[1, 1, 1])[0]
    assert below["last_pct_id"].reason == "no quantifiable value above zero"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"unit": "pct_id_per_g"}, "expected the organ's mass with it; give mass_g"),
        ({"unit": "pct_id_per_g", "mass_g": 0}, "mass_g has a number that is not above 0"),
        ({"unit": "bq"}, "expected the injected dose; give dose=... and dose_unit"),
        ({"unit": "bq", "dose": 1, "dose_unit": "mg"}, "expected a unit like that of the values"),
    ],
)
def test_share_refusals(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pct_injected(T, [3, 8, 2], **more)


# time-integrated activity


def held(k: float, t: np.ndarray) -> np.ndarray:
    return 20 * np.exp(-k * t)


def test_both_tails_are_printed() -> None:
    t = np.array([0, 2, 6, 12, 24.0])
    found = time_integrated_activity(t, held(0.05, t), decay_corrected=True, isotope="64Cu", se=0.1 * held(0.05, t))[0]
    assert found["tia"].value == found["tia_physical"].value > found["tia_effective"].value > found["tia_last"].value
    for kind in ("effective", "physical"):
        e = found[f"tia_{kind}"]
        share = 100 * (1 - found["tia_last"].value / e.value)
        assert found[f"tia_pct_extrap_{kind}"].value == pytest.approx(share)
        assert e.se > 0
    assert found["tia"].unit == "h"


def test_a_tail_slower_than_decay_is_used_and_flagged() -> None:
    """More is still arriving: the measured tail is the larger, so the conservative one."""
    t = np.array([0, 2, 6, 12, 24.0])
    found = time_integrated_activity(t, held(0.01, t), decay_corrected=False, half_life_h=6.0)[0]
    assert found["tia"].value == found["tia_effective"].value > found["tia_physical"].value
    assert "tail_unsure" in found["tia"].flags
    assert "tail_unsure" not in found["tia_physical"].flags
    assert "extrapolated" in found["tia"].flags


def test_without_a_line_only_physical_decay_is_left() -> None:
    found = time_integrated_activity([1, 4, 24], [2, 5, 9], decay_corrected=True, isotope="125I")[0]
    assert found["tia_effective"].reason.startswith("no terminal line")
    assert found["tia"].value == found["tia_physical"].value
    decay = math.log(2) / isotopes()["125I"]
    there = np.array([2, 5, 9]) * np.exp(-decay * np.array([1, 4, 24]))
    area = there[0] / 2 + 3 * (there[0] + there[1]) / 2 + 20 * (there[1] + there[2]) / 2
    assert found["tia_physical"].value == pytest.approx((area + there[2] / decay) / 100)


def test_start_of_the_curve() -> None:
    t, decay = np.array([4.0, 8, 16, 32]), math.log(2) / 6
    value = 20 * np.exp(-decay * t)
    common = {"decay_corrected": False, "half_life_h": 6.0, "method": "log"}
    zero, hold = (time_integrated_activity(t, value, start=s, **common)[0]["tia_last"].value for s in ("zero", "hold"))
    whole = 0.2 / decay * (1 - math.exp(-decay * 32))
    assert hold == pytest.approx(whole)
    assert zero == pytest.approx(whole - 0.2 / decay * (1 - math.exp(-decay * 4)) + 2 * value[0] / 100)


def test_activity_and_mass() -> None:
    t = np.array([0, 2, 6, 12, 24.0])
    by_share = time_integrated_activity(t, held(0.1, t), decay_corrected=True, isotope="89Zr")[0]["tia"].value
    per_gram = time_integrated_activity(
        t, held(0.1, t) / 2, decay_corrected=True, isotope="89Zr", unit="pct_id_per_g", mass_g=2
    )
    in_bq = time_integrated_activity(
        t, held(0.1, t) * 1e4, decay_corrected=True, isotope="89Zr", unit="bq", dose=1, dose_unit="MBq"
    )
    assert per_gram[0]["tia"].value == pytest.approx(by_share)
    assert in_bq[0]["tia"].value == pytest.approx(by_share)


def test_nothing_quantifiable() -> None:
    found = time_integrated_activity(T, [1, 1, 1], lloq=5, decay_corrected=True, isotope="89Zr")[0]
    assert {e.reason for e in found.values()} <= {
        "no quantifiable value above zero",
        "no terminal line: 0 values above zero after the highest, 3 are needed",
    }
    below = time_integrated_activity([0, 1, 4, 24], [9, 8, 4, 1], lloq=2, decay_corrected=False, isotope="89Zr")[0]
    expected = 1 / math.log(9 / 8) + 3 * 4 / math.log(2)
    assert below["tia_last"].value == pytest.approx(expected / 100)
    assert below["tia_last"].n == 3


def test_dosimetry_covers_the_truth() -> None:
    """1,500 organs with 10 % error: the interval of the integral to the last sample covers it in 95 %."""
    rng = np.random.default_rng(5)
    t = np.array([0, 2, 6, 12, 24.0])
    truth = held(0.05, t)
    common = {"decay_corrected": True, "isotope": "64Cu", "method": "log"}
    exact = time_integrated_activity(t, truth, **common)[0]
    seen = rng.normal(truth, 0.1 * truth, (1500, len(t)))
    found = time_integrated_activity(t, seen, se=np.broadcast_to(0.1 * truth, seen.shape), **common)
    for name in ("tia_last", "tia_physical", "tia_effective"):
        low, high = found.ci_low[name], found.ci_high[name]
        assert 0.92 < ((low <= exact[name].value) & (exact[name].value <= high)).mean() < 0.98, name


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "isotope is None and half_life_h is None, expected one of the two; give one"),
        ({"isotope": "89Zr", "half_life_h": 3}, "expected one of the two; give one"),
        ({"isotope": "89zr"}, "isotope has '89zr', which is not in the table; did you mean '89Zr'\\?"),
        ({"half_life_h": 0}, "half_life_h has 0, expected hours above 0; give the physical half-life"),
        ({"isotope": "89Zr", "start": "first"}, "start has 'first', expected one of zero, hold"),
        ({"isotope": "89Zr", "method": "loog"}, "did you mean 'log'"),
        ({"isotope": "89Zr", "unit": "bq"}, "expected the injected dose"),
        ({"isotope": "89Zr", "se": [-1, 1, 1]}, "se has -1 at position 0, expected 0 or more"),
    ],
)
def test_dosimetry_refusals(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        time_integrated_activity(T, [3, 8, 2], decay_corrected=True, **more)


def test_flags_are_known() -> None:
    found = time_integrated_activity(T, [9, 8, 7], se=5.0, decay_corrected=True, isotope="89Zr")[0]
    assert {flag for e in found.values() for flag in e.flags} <= set(FLAGS)
