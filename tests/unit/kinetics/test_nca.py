"""What non-compartmental analysis does at its edges: time zero, limits of quantification, refusals, flags."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.designs.sparse import bailer, bailer_summary
from evbiodist.kinetics.nca.nca import NcaResult, kp, nca, nca_batch, parameter_names
from evbiodist.kinetics.nca.parameters import PARAMETERS, ROUTES
from evbiodist.study.estimate import Estimate
from evbiodist.study.flags import FLAGS

FALLING = ([1.0, 2.0, 4.0, 8.0], [16.0, 8.0, 2.0, 0.125])


def test_registry_is_whole() -> None:
    """Dependencies exist for the same routes, codes fit SEND's eight characters and none is used twice."""
    codes = [c for p in PARAMETERS.values() for c in (p.cdisc, p.cdisc_ev) if c]
    assert len(codes) == len(set(codes))
    assert all(len(code) <= 8 and code.isupper() for code in codes)
    assert all(len(name) <= 40 for p in PARAMETERS.values() for name in (p.test, p.test_ev))
    for p in PARAMETERS.values():
        assert p.description
        for parent in p.depends:
            assert set(p.routes) <= set(PARAMETERS[parent].routes), (p.name, parent)


@pytest.mark.parametrize("route", ROUTES)
def test_order_is_the_registry(route: str) -> None:
    result = nca(*FALLING, route=route)
    assert tuple(result.estimates) == parameter_names(route)
    assert ("cl" in result.estimates) == (route in ("iv_bolus", "iv_infusion"))
    assert ("cl_f" in result.estimates) == (route not in ("iv_bolus", "iv_infusion", "tissue"))


# time zero


def test_bolus_is_extrapolated_back() -> None:
    assert nca(*FALLING)["c0"].value == pytest.approx(32)
    assert nca(*FALLING, method="log")["auc_pct_back_extrap_obs"].value == pytest.approx(50)


@pytest.mark.parametrize(("value", "c0"), [([4, 6, 3, 1], 4), ([5, 5, 3, 1], 5), ([0, 6, 3, 1], 6)])
def test_bolus_that_does_not_fall_starts_from_its_first_positive_value(value: list[float], c0: float) -> None:
    assert nca([1, 2, 4, 8], value)["c0"].value == c0


def test_a_sample_at_time_zero_wins() -> None:
    assert nca([0, 1, 2, 4], [9, 8, 4, 1])["c0"].value == 9
    assert nca([0, 1, 2], [3, 4, 2], route="ip", method="linear")["auclast"].value == 6.5


def test_other_routes_start_from_zero() -> None:
    assert nca([2, 4], [3, 1], route="tissue", method="linear")["auclast"].value == 3 + 4


# the terminal line


def test_cmax_is_on_the_line_only_after_a_bolus() -> None:
    assert nca(*FALLING)["lambda_z_n"].value == 4
    assert nca(*FALLING, route="ip").lambda_z_points == (1, 2, 3)


def test_positions_count_dropped_samples() -> None:
    result = nca([0, 1, 2, 3, 4, 5], [0, 9, np.nan, 4, 2, 1], below_lloq=[1, 0, 1, 0, 0, 0], route="ip")
    assert result.lambda_z_points == (3, 4, 5)


def test_points_of_the_users_choice() -> None:
    profile = [0, 1, 2, 4, 6, 8], [0, 9, 5, 4, 2, 1.5]
    assert nca(*profile, lambda_z_points=3).lambda_z_points == (3, 4, 5)
    assert nca(*profile, lambda_z_points=[1, 2, 5]).lambda_z_points == (1, 2, 5)
    slope = np.polyfit([1, 2, 8], np.log([9, 5, 1.5]), 1)[0]
    assert nca(*profile, lambda_z_points=[1, 2, 5])["lambda_z"].value == pytest.approx(-slope)
    with pytest.raises(ValueError, match="lambda_z_points has 0 at position 0, expected positions of positive"):
        nca(*profile, lambda_z_points=[0, 2, 5])
    with pytest.raises(ValueError, match="at least 3"):
        nca(*profile, lambda_z_points=2)
    with pytest.raises(ValueError, match="between 0 and 5"):
        nca(*profile, lambda_z_points=[2, 3, 6])
    assert nca(*profile, lambda_z_points=6)["lambda_z"].reason.startswith("fewer than 6 positive values,")


def test_no_line_says_why_and_takes_its_dependents_along() -> None:
    rising = nca([0, 1, 2, 4, 8], [0, 9, 1, 2, 3], route="ip", dose=1)
    for name in ("lambda_z", "half_life", "aucinf_obs", "cl_f", "mrt_inf"):
        assert math.isnan(rising[name].value)
        assert rising[name].reason == "the terminal slope is not negative"
    few = nca([0, 1, 2], [0, 9, 1], route="ip")
    assert few["vz_f"].reason == "fewer than 3 positive values after cmax, so no terminal line"
    assert few["auclast"].value > 0
    assert few.lambda_z_points == ()


def test_nothing_detected() -> None:
    for profile in (nca([0, 1, 2], [0, 0, 0]), nca([0, 1, 2], [1, 1, 1], lloq=5)):
        assert {e.reason for e in profile.estimates.values()} == {"no quantifiable value above zero"}


def test_flags_of_the_terminal_line() -> None:
    result = nca([0, 1, 2, 3, 4], [10, 9.5, 8, 8.3, 7.2], min_adj_r2=0.99, dose=1)
    assert {"short_span", "poor_lambda_z"} <= set(result["half_life"].flags)
    assert {"short_span", "poor_lambda_z", "extrapolated"} <= set(result["cl"].flags)
    assert result["auclast"].flags == ()
    assert all(f in FLAGS for e in result.estimates.values() for f in e.flags)


# below the limit


def test_rules_below_the_limit() -> None:
    def areas(rule: object) -> tuple[float, float]:
        result = nca([0, 1, 2, 3, 4, 5], [0.5, 0.5, 8, 0.5, 4, 0.5], lloq=1, blq=rule, route="ip", method="linear")
        return result["auclast"].value, result["aucall"].value

    assert areas("drop") == (8 + 12, 8 + 12)
    assert areas("zero") == (4 + 4 + 2, 4 + 4 + 2 + 2)
    assert areas("lloq/2") == (0.5 + 4.25 + 4.25 + 2.25, 0.5 + 4.25 + 4.25 + 2.25 + 2.25)
    assert areas("pknca") == (4 + 12, 4 + 12 + 2)
    assert areas({"between": "zero"}) == (8 + 4 + 2, 8 + 4 + 2)


def test_substituted_values_carry_a_flag_and_no_error() -> None:
    result = nca([0, 1, 2, 3], [0, 8, 0.1, 4], se=[0, 1, 9, 1], lloq=1, blq="zero", route="ip", method="linear")
    assert result["auclast"].se == pytest.approx(math.sqrt(1 + 0.25))
    assert result["auclast"].flags == ("below_lloq", "few")  # two values are left
    assert result["cmax"].flags == ()


def test_limit_must_be_known_for_half_of_it() -> None:
    with pytest.raises(ValueError, match="give lloq"):
        nca([0, 1, 2], [0, 8, 4], below_lloq=[1, 0, 0], blq="lloq/2")


# errors


def test_without_replicates_there_is_a_reason() -> None:
    e = nca(*FALLING)["auclast"]
    assert math.isnan(e.se)
    assert e.reason == "no replicate and no se, so no uncertainty"


def test_errors_by_hand() -> None:
    """Three points on the line: slope's derivative is dx_j / (Sxx c_j); clearance is dose / aucinf."""
    t, c, se = [1, 2, 3], [8.0, 4.0, 2.0], [0.4, 0.2, 0.1]  # 5 % each
    result = nca(t, c, se=se, n=3, dose=10)
    assert result["lambda_z"].se == pytest.approx(0.05 * math.sqrt(2) / 2, rel=1e-12)
    assert result.df["lambda_z"] == pytest.approx(4, rel=1e-12)
    relative = result["lambda_z"].se / result["lambda_z"].value
    assert result["half_life"].se / result["half_life"].value == pytest.approx(relative, rel=1e-12)
    assert result["cl"].se / result["cl"].value == pytest.approx(
        result["aucinf_obs"].se / result["aucinf_obs"].value, rel=1e-12
    )
    half = result["half_life"]
    assert math.sqrt(half.ci_low * half.ci_high) == pytest.approx(half.value, rel=1e-12)  # logarithmic interval


def test_derivatives_against_differences() -> None:
    t, c = np.array([0.5, 1, 2, 4, 8, 12]), np.array([9.0, 7.9, 5.5, 5.4, 1.7, 0.6])
    for method in ("linear", "lin-up-log-down", "log"):
        result = nca(t, c, se=np.eye(6)[3] * 0.1, dose=5, method=method, lambda_z_points=4)
        up, down = (nca(t, c + x * np.eye(6)[3], dose=5, method=method, lambda_z_points=4) for x in (1e-5, -1e-5))
        for name in ("auclast", "aumclast", "aucinf_obs", "half_life", "cl", "vss", "mrt_inf", "aucinf_pred"):
            slope = abs(up[name].value - down[name].value) / 2e-5
            assert result[name].se == pytest.approx(0.1 * slope, rel=1e-6), (method, name)


def test_unknown_error_spoils_only_what_rests_on_it() -> None:
    result = nca([0, 1, 2, 4, 8], [0, 9, 8, 4, 1], se=[0, np.nan, 1, 1, 0.1], n=3, route="ip")
    assert result["auclast"].reason == "no se at 1 h, so no uncertainty"
    assert result["lambda_z"].se > 0


def test_without_n_the_interval_is_normal() -> None:
    result = nca(*FALLING, se=[1, 1, 0.1, 0.01])
    assert result["auclast"].method.endswith("delta method, normal interval")
    assert math.isinf(result.df["auclast"])


def test_times_and_choices_have_no_error() -> None:
    result = nca(*FALLING, se=[1, 1, 0.1, 0.01], n=3)
    for name in ("tmax", "tlast", "lambda_z_lower", "lambda_z_n", "r2"):
        assert math.isnan(result[name].se)
        assert result[name].reason.endswith("has no standard error")


# doses and routes


def test_dose_and_its_unit() -> None:
    result = nca([0, 1, 2, 4, 8], [160, 80, 40, 10, 0.625], dose=1, dose_unit="mg", unit="ng/mL", method="log")
    assert result["vz"].value == pytest.approx(1e6 / 160)
    assert result["vz"].unit == "mL"
    assert nca(*FALLING)["cl"].reason == "the dose is not given; give dose=..."


def test_infusion_needs_its_duration_for_residence_times() -> None:
    profile = [0, 1, 2, 3, 4], [0, 8, 4, 2, 1]
    assert "give infusion_h" in nca(*profile, route="iv_infusion", dose=1)["vss"].reason
    known = nca(*profile, route="iv_infusion", dose=1, infusion_h=1)["mrt_inf"].value
    assert known == pytest.approx(nca(*profile, route="ip", dose=1)["mrt_inf"].value - 0.5)
    with pytest.raises(ValueError, match="infusion_h has 1"):
        nca(*profile, infusion_h=1)


# input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_h": [1, -2, 4]}, "time_h has -2 at position 1, expected 0 h or later; give a pre-dose sample"),
        ({"time_h": [1, 4, 2]}, "time_h has 2 at position 2, expected times that rise; sort the rows"),
        ({"time_h": [1, 2, 2]}, "time_h has 2 at position 2, expected times that rise"),
        ({"time_h": [1, np.nan, 2]}, "time_h has nan at position 1, expected hours; drop the row"),
        ({"time_h": [[1, 2, 3]]}, "use nca_batch"),
        ({"value": [1, np.nan, 2]}, "value has nan at position 1, expected a finite number; drop the row or mark it"),
        ({"value": [1, 2]}, r"value has shape \(2,\), expected \(3,\) as time_h"),
        ({"se": [1, -1, 1]}, "se has -1 at position 1, expected 0 or more"),
        ({"n": [3, 0, 3]}, "n has 0 at position 1, expected at least 1 animal"),
        ({"dose": 0}, "dose has 0.0, expected a number above 0"),
        ({"lloq": -1}, "lloq has -1.0"),
        ({"route": "oraly"}, "did you mean 'oral'"),
        ({"method": "lin"}, "method has 'lin', expected one of linear, lin-up-log-down, lin-log, log"),
        ({"blq": {"betwen": "drop"}}, "did you mean 'between'"),
        ({"blq": {"between": "keep"}}, "expected one of drop, zero, lloq/2"),
        ({"level": 95}, "write 0.95"),
        ({"unit": "9**9"}, "is not a unit"),
    ],
)
def test_refusals_name_the_remedy(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nca(**({"time_h": [1, 2, 4], "value": [4, 2, 1]} | change))


def test_batch_names_the_profile() -> None:
    with pytest.raises(ValueError, match="value has nan at position 1 of profile 1"):
        nca_batch([[0, 1, 2]] * 2, [[3, 2, 1], [3, np.nan, 1]])


def test_unknown_parameter_suggests_one() -> None:
    with pytest.raises(KeyError, match="did you mean 'half_life'"):
        nca(*FALLING)["halflife"]


def test_one_sample() -> None:
    result = nca([1], [5])
    assert result["cmax"].value == 5
    assert result["auclast"].value == 5  # a bolus that starts from its first value
    assert "few" in result["auclast"].flags


def test_to_frame() -> None:
    frame = nca(*FALLING).to_frame()
    assert frame["parameter"].tolist() == list(parameter_names("iv_bolus"))
    assert {"value", "se", "ci_low", "ci_high", "unit", "method", "n", "flags", "reason"} < set(frame.columns)


def test_table_is_a_sequence() -> None:
    table = nca_batch([[0, 1, 2]] * 2, [[3, 2, 1], [9, 3, 1]])
    assert len(table) == 2
    assert isinstance(table[-1], NcaResult)
    assert table[-1]["c0"].value == 9
    assert len(list(table)) == 2


# tissue to blood


def test_kp_by_fiellers_formula() -> None:
    """Bounds solve (a - r b)^2 = q^2 (va + r^2 vb)."""
    ratio = kp(
        Estimate("auclast", 30, 6, unit="au*h"), Estimate("auclast", 10, 2, unit="au*h"), df_tissue=4, df_blood=4
    )
    for bound in (ratio.ci_low, ratio.ci_high):
        df = (36 + 9 * 4) ** 2 / (36**2 / 4 + (9 * 4) ** 2 / 4)
        from scipy.stats import t

        assert (30 - bound * 10) ** 2 == pytest.approx(t.ppf(0.975, df) ** 2 * (36 + bound**2 * 4), rel=1e-9)
    assert (ratio.name, ratio.unit, ratio.value) == ("kp_auc", "1", 3)


def test_kp_says_when_its_interval_is_open_or_unknown() -> None:
    tissue, blood = Estimate("auclast", 30, 6), Estimate("auclast", 10, 8)
    assert "open" in kp(tissue, blood).reason
    assert math.isnan(kp(tissue, blood).ci_high)
    assert kp(tissue, Estimate("auclast", 10)).value == 3
    assert "no standard error" in kp(tissue, Estimate("auclast", 10)).reason
    assert kp(tissue, Estimate("auclast", reason="lost")).reason == "no blood area: lost"


# one sample an animal


def test_sparse_without_enough_animals_has_no_error() -> None:
    lonely = bailer([0, 1, 2], [[0, 0], [5], [1, 2]])
    assert lonely.estimate.value == 5.75
    assert lonely.estimate.reason == "there is one animal at 1 h, so no standard error"
    assert math.isnan(lonely.estimate.se)
    assert math.isnan(lonely.df)
    unknown = bailer_summary([0, 1], [4, 2], [1, 1], None).estimate
    assert unknown.flags == ("n_unknown",)
    assert "unknown at 0, 1 h" in unknown.reason


def test_sparse_ends_at_the_last_positive_mean() -> None:
    assert bailer([0, 1, 2], [[2, 4], [1, 3], [0, 0]]).weights == (0.5, 0.5, 0)


def test_sparse_from_zero() -> None:
    assert bailer([2, 4], [[3, 5], [1, 1]], from_zero=True).estimate.value == 4 + 5


@pytest.mark.parametrize(
    ("time_h", "groups", "words"),
    [
        ([0, 1], [[1, 2]], "one mean"),
        ([1, 0], [[1, 2], [1, 2]], "rising hours"),
        ([0, 1], [[1, 2], []], r"groups\[1\] has \[\]"),
        ([0, 1], [[1, 2], [np.nan]], "drop missing animals"),
        ([0, 1], [[0, 0], [0, 0]], "nothing was detected"),
    ],
)
def test_sparse_refusals(time_h: list[float], groups: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bailer(time_h, groups)
