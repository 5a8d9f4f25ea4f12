"""Dosing intervals, excretion and dosimetry against published worked examples and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.nca.dosimetry import time_integrated_activity
from evbiodist.kinetics.nca.dosing_intervals import dosing_intervals
from evbiodist.kinetics.nca.excretion import excretion
from evbiodist.study.constants import isotopes


def superposed(t: np.ndarray, doses: np.ndarray, single) -> np.ndarray:
    """What all doses before a time add up to (a sample at a dose is from before it)."""
    since = np.asarray(t, dtype=float)[:, None] - doses
    return np.where(since > 0, single(np.maximum(since, 0)), 0.0).sum(axis=1)


def test_noncompart_steady_state() -> None:
    """CRAN package NonCompart 0.8.4, tests/Test-SS.R: hand sums on an integer profile, every 12 h."""
    t, c = [0, 1, 2, 4, 8, 12], [2, 6, 10, 8, 4, 2]
    found = dosing_intervals(
        t, c, [0], tau_h=12, dose=100, dose_unit="mg", unit="mg/L", route="oral", method="linear", steady_state=True
    )[0, 0]
    assert found["auc_tau"].value == pytest.approx(66)
    assert found["cavg"].value == pytest.approx(5.5)
    assert found["cl_f_ss"].value == pytest.approx(100 / 66)
    assert found["vz_f_ss"].value == pytest.approx(100 / 66 / (math.log(2) / 4))
    assert (found["cl_f_ss"].unit, found["vz_f_ss"].unit) == ("L/h", "L")


def test_pknca_definitions() -> None:
    """PKNCA 0.12: deg.fluc = 100 (cmax - cmin) / cav, swing = 100 (cmax - cmin) / cmin, ptr = cmax / ctrough."""
    t, c = [0, 1, 2, 4, 8, 12], [2, 6, 10, 8, 4, 2.5]
    found = dosing_intervals(t, c, [0], tau_h=12, route="oral", method="linear", steady_state=True)[0, 0]
    cav = (4 + 8 + 18 + 24 + 13) / 12
    assert found["fluctuation_pct"].value == pytest.approx(100 * (10 - 2) / cav)
    assert 100 * found["swing"].value == pytest.approx(100 * (10 - 2) / 2)
    assert found["peak_trough_ratio"].value == pytest.approx(10 / 2.5)


@pytest.mark.parametrize(("k", "tau"), [(0.05, 24.0), (0.2, 6.0), (1.0, 2.0)])
def test_one_exponential_at_steady_state(k: float, tau: float) -> None:
    """Boluses every tau for ever: dose / CL per interval, peak and trough of the geometric series, 1 / k."""
    dose, volume = 100.0, 20.0
    doses = np.arange(math.ceil(40 / (k * tau)) + 1) * tau
    t = np.concatenate([doses[-1] + np.linspace(0, 1, 7)[1:] * tau])
    c = superposed(t, doses, lambda s: dose / volume * np.exp(-k * s))
    found = dosing_intervals(
        t - doses[-1], c, [0], tau_h=tau, dose=dose, dose_unit="mg", unit="mg/L", steady_state=True
    )[0, 0]
    series = 1 / (1 - math.exp(-k * tau))
    expected = {
        "auc_tau": dose / (k * volume),
        "c0": dose / volume * series,
        "ctrough": dose / volume * series * math.exp(-k * tau),
        "cpredose": dose / volume * series * math.exp(-k * tau),
        "cl_ss": k * volume,
        "vz_ss": volume,
        "mrt_ss": 1 / k,
        "vss_ss": volume,
        "accumulation_predicted": series,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9), name


def test_accumulation_is_the_geometric_series() -> None:
    """After dose i of one exponential everything is (1 - exp(-i k tau)) / (1 - exp(-k tau)) times the first dose's."""
    k, tau, count = 0.1, 8.0, 5
    doses = np.arange(count) * tau
    t = np.concatenate([d + np.array([1, 2, 4, 6, 8.0]) for d in doses])
    table = dosing_intervals(t, superposed(t, doses, lambda s: np.exp(-k * s)), doses)
    for i in range(1, count):
        expected = (1 - math.exp(-(i + 1) * k * tau)) / (1 - math.exp(-k * tau))
        for name in ("accumulation_auc", "accumulation_cmax", "accumulation_trough"):
            assert table[0, i][name].value == pytest.approx(expected, rel=1e-9), (name, i)


def test_absorption_at_steady_state() -> None:
    """Bateman's curve superposed, finely sampled: dose / CL per interval and 1 / ka + 1 / k as residence time."""
    ka, k, volume, dose, tau = 1.5, 0.08, 30.0, 400.0, 12.0
    doses = np.arange(60) * tau

    def single(s: np.ndarray) -> np.ndarray:
        return dose / volume * ka / (ka - k) * (np.exp(-k * s) - np.exp(-ka * s))

    t = doses[-1] + np.linspace(0, tau, 401)
    c = superposed(t, doses, single)
    found = dosing_intervals(
        t - doses[-1], c, [0], tau_h=tau, dose=dose, dose_unit="mg", unit="mg/L", route="oral", steady_state=True
    )[0, 0]
    assert found["cl_f_ss"].value == pytest.approx(k * volume, rel=1e-4)
    left = found["ctrough"].value / k  # nothing is absorbed any more at the end of the interval
    mrt = (found["aumc_tau"].value + tau * left) / found["auc_tau"].value
    assert mrt == pytest.approx(1 / ka + 1 / k, rel=1e-4)
    assert found["mrt_ss"].value == pytest.approx(mrt, rel=0.01)  # its lambda_z takes points up to 1e-4 in adjusted r2


def test_infusion_at_steady_state() -> None:
    """Infusions of 2 h superposed, finely sampled: half their duration is not residence."""
    k, volume, dose, tau, lasts = 0.15, 10.0, 50.0, 8.0, 2.0
    doses = np.arange(60) * tau

    def single(s: np.ndarray) -> np.ndarray:
        rising = dose / lasts / (k * volume) * (1 - np.exp(-k * np.minimum(s, lasts)))
        return rising * np.exp(-k * np.maximum(s - lasts, 0))

    t = doses[-1] + np.linspace(0, tau, 401)
    found = dosing_intervals(
        t - doses[-1],
        superposed(t, doses, single),
        [0],
        tau_h=tau,
        dose=dose,
        dose_unit="mg",
        unit="mg/L",
        route="iv_infusion",
        infusion_h=lasts,
        steady_state=True,
    )[0, 0]
    assert found["cl_ss"].value == pytest.approx(k * volume, rel=1e-4)
    assert found["mrt_ss"].value == pytest.approx(1 / k, rel=1e-4)
    assert found["vss_ss"].value == pytest.approx(volume, rel=1e-4)


#: Bourne DWA, A First Course in Pharmacokinetics and Biopharmaceutics (boomer.org), Table 5.6.1: 300 mg IV.
BOURNE = {
    "ends": [2, 4, 6, 8, 10, 12, 18, 24],
    "volume": [50, 46, 48, 49, 46, 48, 134, 144],
    "concentration": [1.666, 1.069, 0.592, 0.335, 0.210, 0.116, 0.047, 0.009],
    "amount": [83.3, 49.2, 28.4, 16.4, 9.7, 5.6, 6.3, 1.3],
    "cumulative": [83.3, 132.5, 160.9, 177.3, 187.0, 192.5, 198.8, 200.1],
    "midpoint": [1, 3, 5, 7, 9, 11, 15, 21],
    "rate": [41.7, 24.6, 14.2, 8.2, 4.8, 2.8, 1.0, 0.2],
}


def test_bourne_urine_table() -> None:
    """Amounts, sums, midpoints and rates of the table; kel 0.266 /h and fe 0.665 read from its semi-log plots."""
    ends = BOURNE["ends"]
    found = excretion(
        [0, *ends[:-1]],
        ends,
        BOURNE["concentration"],
        volume=BOURNE["volume"],
        dose=300,
        dose_unit="mg",
        unit="mg/mL",
        are_total="last",
    )
    each, whole = found.collections.values, found.parameters[0]
    for name, column in (
        ("collected_amount", "amount"),
        ("cumulative_amount", "cumulative"),
        ("excretion_rate", "rate"),
    ):
        np.testing.assert_allclose(each[name][0], BOURNE[column], atol=0.07)
    assert found.midpoint_h[0].tolist() == BOURNE["midpoint"]
    assert found.collections.units["collected_amount"] == "mg"
    assert whole["pct_excreted"].value == pytest.approx(100 * 200.1 / 300, abs=0.03)
    assert whole["lambda_rate"].value == pytest.approx(0.266, rel=0.03)
    summed = np.cumsum(np.array(BOURNE["volume"]) * BOURNE["concentration"])
    remaining = summed[-1] - np.array([0, *summed[:-1]])
    last = whole["lambda_are"].n
    by_hand = -np.polyfit([0, *ends[:-1]][-last:], np.log(remaining[-last:]), 1)[0]
    assert whole["lambda_are"].value == pytest.approx(by_hand, rel=1e-9)
    assert whole["volume_excreted"].value == sum(BOURNE["volume"])


def test_bourne_all_in_urine() -> None:
    """Table 12.6.1 of the same course: 500 mg IV, all in urine; the text finds kel 0.440 /h and half-life 1.58 h."""
    ends, volume = [0.5, 1, 2, 4, 8, 12, 24], [30, 35, 60, 140, 224, 250, 800]
    concentration = [3.43, 2.34, 1.95, 0.85, 0.30, 0.04, 0.0025]
    found = excretion([0, *ends[:-1]], ends, concentration, volume=volume, dose=500, dose_unit="mg", unit="mg/mL")
    assert found.parameters[0]["pct_excreted"].value == pytest.approx(100, abs=0.3)
    by_hand = found.collections.values["excretion_rate"][0]
    np.testing.assert_allclose(by_hand, [206, 164, 117, 59.5, 16.8, 2.5, 0.17], rtol=0.02)
    early = excretion([0, *ends[:4]], ends[:5], concentration[:5], volume=volume[:5], unit="mg/mL").parameters[0]
    assert early["half_life_rate"].value == pytest.approx(1.58, rel=0.04)


@pytest.mark.parametrize("ends", [[2, 4, 6, 8, 10], [1, 2, 4, 8, 12, 24]])
def test_urine_for_ever_is_fe_times_dose(ends: list[float]) -> None:
    """One exponential: fe x dose for ever, the renal part of the clearance, and the sigma-minus slope exactly k."""
    k, fe, dose, volume = 0.25, 0.6, 300.0, 15.0
    edges = np.array([0.0, *ends])
    amount = fe * dose * -np.diff(np.exp(-k * edges))
    auc = dose / (k * volume) * (1 - math.exp(-k * edges[-1]))
    found = excretion(
        edges[:-1],
        edges[1:],
        amount,
        dose=dose,
        dose_unit="mg",
        unit="mg",
        plasma_auc=auc,
        plasma_auc_unit="mg/L*h",
    ).parameters[0]
    assert (found["renal_clearance"].value, found["renal_clearance"].unit) == (pytest.approx(fe * k * volume), "L/h")
    if len({*np.diff(edges)}) == 1:  # midpoints are exact for collections of one length
        assert found["lambda_rate"].value == pytest.approx(k, rel=1e-9)
        assert found["amount_inf"].value == pytest.approx(fe * dose, rel=1e-9)
        assert found["pct_excreted_inf"].value == pytest.approx(100 * fe, rel=1e-9)
        assert found["half_life_are"].value == pytest.approx(math.log(2) / k, rel=1e-9)
    else:
        assert found["amount_inf"].value == pytest.approx(fe * dose, rel=0.01)


@pytest.mark.parametrize("isotope", ["99mTc", "111In", "89Zr", "125I"])
@pytest.mark.parametrize("corrected", [True, False])
def test_time_integrated_activity_of_one_exponential(isotope: str, corrected: bool) -> None:
    """A0 / (lambda_biological + lambda_physical), with the tail by physical decay printed beside it."""
    physical = math.log(2) / isotopes()[isotope]
    t = np.array([0, 1, 4, 24, 48, 72.0])
    biological, held = 0.03, 25.0
    effective = biological + physical
    value = held * np.exp(-(biological if corrected else effective) * t)
    found = time_integrated_activity(t, value, decay_corrected=corrected, isotope=isotope)[0]
    last = held / 100 / effective * (1 - math.exp(-effective * 72))
    left = held / 100 * math.exp(-effective * 72)
    assert found["tia_effective"].value == pytest.approx(held / 100 / effective, rel=1e-9)
    assert found["tia_physical"].value == pytest.approx(last + left / physical, rel=1e-9)
    assert found["tia"].value == found["tia_physical"].value
    share = 100 * (left / physical) / (last + left / physical)
    assert found["tia_pct_extrap_physical"].value == pytest.approx(share, rel=1e-7, abs=1e-9)
