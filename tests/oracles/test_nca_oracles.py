"""Non-compartmental parameters against numbers from outside: a textbook profile and WinNonlin's own output."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import pytest
from winnonlin_numbers import (
    INDOMETH,
    INDOMETH_EXTRAVASCULAR,
    INDOMETH_INFUSION_LOG,
    INDOMETH_LINEAR,
    INDOMETH_LOG,
    INDOMETH_TIMES,
    THEOPH,
    THEOPH_LINEAR,
    THEOPH_LOG,
)

from evbiodist.kinetics.nca.nca import nca

ORACLES = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "oracles"

# WinNonlin's names (as in "Final Parameters") -> ours. Not ours: Corr_XY, the root of r2.
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
    "Tlag": "tlag",
    "AUCINF_D_pred": "aucinf_pred_dose",
    "Vz_pred": "vz_pred",
    "Cl_pred": "cl_pred",
    "Vss_pred": "vss_pred",
    "Vz_F_pred": "vz_f_pred",
    "Cl_F_pred": "cl_f_pred",
}
NOT_OURS = {"Corr_XY"}


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


_INDOMETH = [(INDOMETH_TIMES, value) for value in INDOMETH]


@pytest.mark.parametrize("rules", ["evbiodist", "winnonlin"])
@pytest.mark.parametrize(
    ("profiles", "expected", "digits", "settings"),
    [
        (_INDOMETH, INDOMETH_LINEAR, 1e-8, {"dose": 25, "route": "iv_bolus", "method": "linear"}),
        (_INDOMETH, INDOMETH_LOG, 6e-8, {"dose": 25, "route": "iv_bolus", "method": "lin-up-log-down"}),
        (
            _INDOMETH,
            INDOMETH_INFUSION_LOG,
            6e-8,
            {"dose": 25, "route": "iv_infusion", "infusion_h": 0.25, "method": "lin-up-log-down"},
        ),
        (_INDOMETH, INDOMETH_EXTRAVASCULAR, 6e-8, {"dose": 25, "route": "oral", "method": "linear"}),
        (THEOPH, THEOPH_LINEAR, 1e-8, {"dose": 320, "route": "oral", "method": "linear"}),
        (THEOPH, THEOPH_LOG, 6e-8, {"dose": 320, "route": "oral", "method": "lin-up-log-down"}),
    ],
    ids=["indometh", "indometh-log", "indometh-infusion", "indometh-extravascular", "theoph", "theoph-log"],
)
def test_every_subject_as_winnonlin_prints(
    profiles: list, expected: dict, digits: float, settings: dict, rules: str
) -> None:
    """To all digits that are printed: 9 or more in the linear tables, 7 decimals in the others."""
    for i, (time_h, value) in enumerate(profiles):
        result = nca(time_h, value, rules=rules, **settings)
        for name, theirs in expected.items():
            assert result[name].value == pytest.approx(theirs[i], rel=1e-8, abs=digits if digits > 1e-8 else 0), (
                name,
                i + 1,
            )


def test_trapezoids_as_pknca_tests_them() -> None:
    """Numbers in PKNCA's own tests (github.com/humanpred/pknca, tests/testthat/test-auc.R), as closed forms there."""
    ln2 = math.log(2)
    t, c = list(range(8)), [0, 2, 0, 1, 2, 1, 0, 0]
    linear = nca(t, c, route="oral", method="linear")
    assert linear["auclast"].value == pytest.approx(1 + 1 + 0.5 + 1.5 + 1.5, rel=1e-14)
    assert linear["aucall"].value == pytest.approx(1 + 1 + 0.5 + 1.5 + 1.5 + 0.5, rel=1e-14)
    kept = nca(t, c, route="oral")
    assert kept["auclast"].value == pytest.approx(1 + 1 + 0.5 + 1.5 + 1 / ln2, rel=1e-14)
    assert kept["aucall"].value == pytest.approx(1 + 1 + 0.5 + 1.5 + 1 / ln2 + 0.5, rel=1e-14)
    dropped = nca(t, c, route="oral", rules="pknca")
    assert dropped["auclast"].value == pytest.approx(1 + 2 / ln2 + 1.5 + 1 / ln2, rel=1e-14)
    assert dropped["aucall"].value == pytest.approx(1 + 2 / ln2 + 1.5 + 1 / ln2 + 0.5, rel=1e-14)
    moment = [0, 1, 1, 0.5]
    assert nca(t[:4], moment, route="oral", method="linear")["aumclast"].value == 3.75
    assert nca(t[:4], moment, route="oral")["aumclast"].value == pytest.approx(2 + 0.5 / ln2 + 0.5 / ln2**2, rel=1e-14)


def test_linear_up_log_down_as_nlmixr2_prints() -> None:
    """Example of trapezoidal_linear_up_log_down in the R package nlmixr2autoinit: 25.03139 and 78.85055."""
    result = nca([0, 0.5, 1, 2, 4, 6, 8], [0, 2, 8, 5, 3, 2, 1], route="oral")
    assert result["auclast"].value == pytest.approx(25.03139, abs=5e-6)
    assert result["aumclast"].value == pytest.approx(78.85055, abs=5e-6)


def test_partial_areas_follow_lambda_z_after_the_last_value_as_pknca_does() -> None:
    """PKNCA's test of aucint (issue 203): the tail is logarithmic whatever the rule; its rate there is given as 0.661."""
    t, c = [0, 1, 2, 3, 4, 5], [0, 1, 2, 0.75, 0.5, 0.2]
    for method in ("linear", "lin-up-log-down"):
        result = nca(t, c, route="oral", method=method, partial=[(0, 5), (0, 6)])
        rate = result["lambda_z"].value
        assert rate == pytest.approx(0.661, abs=5e-4)
        end = 0.2 * math.exp(-rate)
        tail = (0.2 - end) / math.log(0.2 / end)
        assert result["auc_0_6h"].value - result["auc_0_5h"].value == pytest.approx(tail, rel=1e-12)


def test_theophylline_is_extrapolated_too_far() -> None:
    """31 % of subject 1's area lies beyond the last sample: the flag reaches all that rests on it."""
    result = nca(*THEOPH[0], dose=320, route="oral", method="linear")
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
