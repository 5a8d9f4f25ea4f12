"""Non-compartmental parameters against numbers from outside: a textbook profile and WinNonlin's own output."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from evbiodist.kinetics.nca import nca

ORACLES = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "oracles"

# WinNonlin's names (as in "Final Parameters") -> ours. Not ours: Corr_XY, Tlag and the *_pred forms of clearance,
# volumes and AUC per dose.
WINNONLIN = {
    "Rsq": "r2",
    "Rsq_adjusted": "adj_r2",
    "No_points_lambda_z": "lambda_z_n",
    "Lambda_z": "lambda_z",
    "Lambda_z_lower": "lambda_z_lower",
    "Lambda_z_upper": "lambda_z_upper",
    "HL_Lambda_z": "half_life",
    "Tmax": "tmax",
    "Cmax": "cmax",
    "Cmax_D": "cmax_dose",
    "C0": "c0",
    "Tlast": "tlast",
    "Clast": "clast",
    "AUClast": "auclast",
    "AUCall": "aucall",
    "AUCINF_obs": "aucinf_obs",
    "AUCINF_D_obs": "aucinf_dose",
    "AUCINF_pred": "aucinf_pred",
    "AUC_%Extrap_obs": "auc_pct_extrap_obs",
    "AUC_%Extrap_pred": "auc_pct_extrap_pred",
    "AUC_%Back_Ext_obs": "auc_pct_back_extrap_obs",
    "AUC_%Back_Ext_pred": "auc_pct_back_extrap_pred",
    "AUMClast": "aumclast",
    "AUMCINF_obs": "aumcinf_obs",
    "AUMCINF_pred": "aumcinf_pred",
    "AUMC_%Extrap_obs": "aumc_pct_extrap_obs",
    "AUMC_%Extrap_pred": "aumc_pct_extrap_pred",
    "MRTlast": "mrt_last",
    "MRTINF_obs": "mrt_inf",
    "MRTINF_pred": "mrt_inf_pred",
    "Vz_obs": "vz",
    "Cl_obs": "cl",
    "Vss_obs": "vss",
    "Vz_F_obs": "vz_f",
    "Cl_F_obs": "cl_f",
}
NOT_OURS = {"Corr_XY", "Tlag", "AUCINF_D_pred", "Vz_pred", "Cl_pred", "Vss_pred", "Vz_F_pred", "Cl_F_pred"}

# Subject 1 of R's Indometh (Kwan et al. 1976, J Pharmacokinet Biopharm 4:255) and Theoph (Boeckmann, Sheiner, Beal
# 1994, NONMEM Users Guide V) with WinNonlin's Final Parameters, linear rule, as published with the validation of
# the R package NonCompart (Kim H, Han S, Cho YS, Yoon SK, Bae KS (2018) Transl Clin Pharmacol 26:10-15).
INDOMETH_1 = (
    [0.25, 0.5, 0.75, 1, 1.25, 2, 3, 4, 5, 6, 8],
    [1.5, 0.94, 0.78, 0.48, 0.37, 0.19, 0.12, 0.11, 0.08, 0.07, 0.05],
    {
        "r2": 0.997066727426208,
        "adj_r2": 0.994133454852416,
        "lambda_z_n": 3,
        "lambda_z": 0.158320482400297,
        "half_life": 4.37812701206527,
        "c0": 2.3936170212766,
        "auclast": 2.04045212765957,
        "aucinf_obs": 2.356267234094,
        "aucinf_pred": 2.35783687568268,
        "auc_pct_extrap_obs": 13.4031956080678,
        "auc_pct_back_extrap_obs": 20.6556421367339,
        "aumclast": 3.27125,
        "aumcinf_obs": 7.79255448051922,
        "mrt_last": 1.60319860272937,
        "mrt_inf": 3.30716073616985,
        "cl": 10.6100019718742,
        "vz": 67.0159780403391,
        "vss": 35.0889819320671,
    },
)
THEOPH_1 = (
    [0, 0.25, 0.57, 1.12, 2.02, 3.82, 5.1, 7.03, 9.05, 12.12, 24.37],
    [0.74, 2.84, 6.57, 10.5, 9.66, 8.58, 8.36, 7.47, 6.89, 5.94, 3.28],
    {
        "r2": 0.99999973,
        "lambda_z_n": 3,
        "lambda_z": 0.048456997,
        "half_life": 14.30437757,
        "tmax": 1.12,
        "auclast": 148.92305,
        "aucinf_obs": 216.611933,
        "aucinf_pred": 216.6149558,
        "auc_pct_extrap_obs": 31.24891694,
        "aumclast": 1459.071104,
        "aumcinf_obs": 4505.534819,
        "mrt_last": 9.797483355,
        "mrt_inf": 20.80003053,
        "cl_f": 1.477296267,
        "vz_f": 30.48674823,
    },
)


def test_textbook_profile() -> None:
    """Gibaldi M, Perrier D (1982) Pharmacokinetics, 2nd ed.: a bolus of 1e6 with a sample of 0 at 0 h."""
    result = nca(
        [0, 0.165, 0.5, 1, 1.5, 3, 5, 7.5, 10],
        [0, 65.03, 28.69, 10.04, 4.93, 2.29, 1.36, 0.71, 0.38],
        dose=1e6, route="iv_bolus", method="linear", lambda_z_points=3,
    )  # fmt: skip
    assert result["c0"].value == 0  # the sample at 0 h wins over extrapolation
    assert result["auclast"].value == pytest.approx(47.503075, rel=1e-12)
    assert result["aucinf_obs"].value == pytest.approx(48.99319076, rel=1e-9)
    assert result["cl"].value == pytest.approx(20410.9997, rel=1e-8)


@pytest.mark.parametrize(
    ("profile", "dose", "route"), [(INDOMETH_1, 25, "iv_bolus"), (THEOPH_1, 320, "oral")], ids=["indometh", "theoph"]
)
def test_first_subject_as_winnonlin(profile: tuple[list[float], list[float], dict], dose: float, route: str) -> None:
    time_h, value, expected = profile
    result = nca(time_h, value, dose=dose, route=route, method="linear")
    found = {name: result[name].value for name in expected}
    assert found == pytest.approx(expected, rel=1e-8)


def test_theophylline_is_extrapolated_too_far() -> None:
    """31 % of subject 1's area lies beyond the last sample: the flag reaches all that rests on it."""
    result = nca(*THEOPH_1[:2], dose=320, route="oral", method="linear")
    flagged = {name for name, e in result.estimates.items() if "extrapolated" in e.flags}
    assert {"aucinf_obs", "aucinf_pred", "cl_f", "vz_f", "mrt_inf", "aumcinf_obs", "aucinf_dose"} <= flagged
    assert not {"auclast", "cmax", "half_life"} & flagged


def _winnonlin() -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with open(ORACLES / "winnonlin_linear.csv", encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            case = row["case"].removesuffix("_Linear").lower()
            found[case, row["subject"]][row["parameter"]] = float(row["value"])
    return found


@pytest.mark.skipif(not ORACLES.exists(), reason="WinNonlin's tables are not on this machine")
@pytest.mark.parametrize(
    ("case", "time", "dose", "route", "subjects"),
    [("indometh", "time", 25, "iv_bolus", 6), ("theoph", "Time", 320, "oral", 12)],
)
def test_every_subject_as_winnonlin(case: str, time: str, dose: float, route: str, subjects: int) -> None:
    """Every parameter both have, of every subject, to all digits the tables print."""
    profiles = defaultdict(list)
    with open(ORACLES / f"{case}.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            profiles[row["Subject"]].append((float(row[time]), float(row["conc"])))
    expected = _winnonlin()
    assert len(profiles) == subjects
    for subject, samples in profiles.items():
        theirs = expected[case, subject]
        assert theirs.keys() <= WINNONLIN.keys() | NOT_OURS
        result = nca(*zip(*samples, strict=True), dose=dose, route=route, method="linear")
        for name in theirs.keys() - NOT_OURS:
            ours = result[WINNONLIN[name]].value
            assert ours == pytest.approx(theirs[name], rel=1e-8), f"{case} {subject} {name}"
