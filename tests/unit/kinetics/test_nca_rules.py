"""Rules with a name, partial areas, excluded samples and refusals of non-compartmental analysis."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.nca.nca import C0_WAYS, CONVENTIONS, METHODS, NcaResult, Rules, nca, nca_batch
from evbiodist.kinetics.nca.parameters import PARAMETERS

LN2 = math.log(2)


# the trapezoids


def test_lin_log_bends_after_tmax_only() -> None:
    """8 -> 6 -> 7 -> 2: the rise after tmax is logarithmic too; before tmax nothing is."""
    t, c = [0, 1, 2, 3, 4], [5, 8, 6, 7, 2]
    log = [(8 - 6) / math.log(8 / 6), (7 - 6) / math.log(7 / 6), (7 - 2) / math.log(7 / 2)]
    assert nca(t, c, route="oral", method="lin-log")["auclast"].value == pytest.approx(6.5 + sum(log), rel=1e-14)
    up_down = 6.5 + log[0] + 6.5 + log[2]
    assert nca(t, c, route="oral", method="lin-up-log-down")["auclast"].value == pytest.approx(up_down, rel=1e-14)


def test_lin_log_of_a_bolus_bends_from_c0_on() -> None:
    """c0 lies above cmax, so the first piece falls from it."""
    assert nca([1, 2, 3], [8, 4, 2], method="lin-log")["auclast"].value == pytest.approx((16 - 2) / LN2, rel=1e-14)


def test_lin_log_is_linear_where_a_logarithm_is_not_possible() -> None:
    result = nca([0, 1, 2, 3], [0, 4, 0, 4], route="oral", method="lin-log")
    assert result["auclast"].value == 2 + 2 + 2


# the value at 0 h


@pytest.mark.parametrize(
    ("c0", "time_h", "value", "expected", "way"),
    [
        (None, [0, 1, 2], [0, 8, 4], 0, "observed"),
        ("pknca", [0, 1, 2], [0, 8, 4], 16, "logslope"),
        ("pknca", [0, 1, 2], [9, 8, 4], 9, "c0"),
        ("pknca", [1, 2, 3], [4, 8, 2], 4, "c1"),
        ("pknca", [0, 1, 2], [0, 4, 8], 4, "c1"),
        (["logslope", "first"], [0, 1, 2], [9, 8, 4], 16, "logslope"),
        (["logslope", "first"], [1, 2, 3], [0, 8, 4], 8, "first"),
        (["cmin"], [1, 2, 3], [4, 8, 2], 2, "cmin"),
        ("winnonlin", [1, 2, 3], [4, 8, 2], 4, "first"),
        (["set0"], [1, 2, 3], [8, 4, 2], 0, "set0"),
        (["c0", "set0"], [0, 2, 3], [0, 4, 2], 0, "set0"),
    ],
)
def test_ways_to_the_value_at_zero(c0: object, time_h: list, value: list, expected: float, way: str) -> None:
    e = nca(time_h, value, c0=c0, method="linear")["c0"]  # type: ignore[arg-type]
    assert e.value == pytest.approx(expected, rel=1e-14)
    assert f"by '{way}'" in e.method


def test_every_way_is_tested_and_named() -> None:
    assert set(C0_WAYS) == {"observed", "c0", "logslope", "c1", "first", "cmin", "set0"}


def test_value_at_zero_takes_the_place_of_a_sample_there() -> None:
    """As in PKNCA's auciv: the sample of 0 at 0 h is not on the curve, 16 is."""
    result = nca([0, 1, 2], [0, 8, 4], c0="pknca", method="linear")
    assert result["auclast"].value == (16 + 8) / 2 + 6
    assert result["cmin"].value == 0  # it was measured all the same


def test_no_way_to_a_value_at_zero_is_missing() -> None:
    result = nca([1, 2, 3, 4], [2, 1, 0.5, 0.25], c0=["observed"], dose=1)
    assert "none of the ways to a value at 0 h (observed) is possible" in result["cl"].reason
    assert result["half_life"].value == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"c0": "pkna"}, "c0 has 'pkna', expected one of winnonlin, pknca; did you mean 'pknca'"),
        ({"c0": ["logslop"]}, "did you mean 'logslope'"),
        ({"c0": []}, "c0 has no way in it"),
        ({"c0": "pknca", "route": "oral"}, "expected the route 'iv_bolus'; other routes start from 0"),
        ({"rules": "winonlin"}, "did you mean 'winnonlin'"),
        ({"partial": [(4, 2)]}, r"partial has \(4, 2\), expected a start of 0 h or later before a finite end"),
        ({"partial": [(0, math.inf)]}, "aucinf_obs is the area to infinity"),
        ({"partial": [3]}, r"partial has 3, expected pairs of hours"),
        ({"exclude": {3: "lost"}}, "exclude names position 3 of profile 0, expected one of 0 to 2"),
        ({"exclude": {1: " "}}, "exclude gives no reason for position 1"),
        ({"lambda_z_exclude": {-1: "lost"}}, "lambda_z_exclude names position -1"),
        ({"below_share": [0, 2, 0]}, "below_share has 2 at position 1, expected a share from 0 to 1"),
        ({"lambda_z_points": [0, 1, 2], "lambda_z_exclude": {1: "odd"}}, "that are not excluded"),
    ],
)
def test_refusals_name_the_remedy(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nca(**({"time_h": [1, 2, 4], "value": [4, 2, 1]} | change))


# lowest value, lag


def test_lowest_value_and_lag() -> None:
    result = nca([0, 1, 2, 4, 8, 10], [0.2, 0.2, 5, 9, 3, 0.2], lloq=1, route="ip", se=[0.1] * 6)
    assert (result["cmin"].value, result["tmin"].value, result["tlag"].value) == (3, 8, 1)
    assert result["cmin"].se == 0.1
    assert nca([1, 2], [5, 4], route="ip")["tlag"].value == 0
    assert nca([1, 2, 4, 5], [5, 0.1, 4, 3], lloq=1, route="ip")["tlag"].value == 0
    kept = nca([1, 2, 4], [5, 0.1, 4], lloq=1, blq="zero", route="ip")
    assert kept["cmin"].value == 4
    assert kept["cmin"].flags == ("below_lloq",)


# partial areas


def test_partial_areas_by_hand() -> None:
    t, c = [0, 2, 4, 6, 8], [0, 8, 4, 2, 1]
    linear = nca(t, c, route="ip", method="linear", partial=[(0, 1), (1, 3), (3, 8), (0, 8)])
    assert linear["auc_0_1h"].value == 2  # up to 4
    assert linear["auc_1_3h"].value == 6 + 7
    assert linear["auc_3_8h"].value == 5 + 6 + 3
    assert linear["auc_0_8h"].value == linear["auclast"].value
    log = nca(t, c, route="ip", partial=[(3, 5), (8, 10), (5, 10)])
    at = lambda x: 16 * 2 ** (-x / 2)  # noqa: E731
    k = LN2 / 2
    assert log["auc_3_5h"].value == pytest.approx((at(3) - at(5)) / k, rel=1e-13)
    assert log["auc_8_10h"].value == pytest.approx((at(8) - at(10)) / k, rel=1e-13)
    assert log["auc_5_10h"].value == pytest.approx((at(5) - at(10)) / k, rel=1e-13)
    assert log["auc_8_10h"].unit == "au*h"


def test_partial_area_before_the_first_sample_starts_at_c0() -> None:
    assert nca([1, 2, 3], [8, 4, 2], partial=[(0, 0.5)])["auc_0_0.5h"].value == pytest.approx(
        (16 - 16 * 2**-0.5) / LN2, rel=1e-14
    )
    assert nca([2, 4], [8, 4], route="oral", method="linear", partial=[(0, 1)])["auc_0_1h"].value == 2


def test_partial_area_after_the_last_value_needs_lambda_z() -> None:
    few = nca([0, 1, 2], [0, 8, 4], route="ip", partial=[(0, 2), (0, 3), (5, 6)])
    assert few["auc_0_2h"].value > 0
    for name in ("auc_0_3h", "auc_5_6h"):
        assert few[name].reason == "fewer than 3 positive values after cmax, so no terminal line"


def test_partial_area_says_how_much_of_it_is_extrapolated() -> None:
    profile = [0, 1, 2, 3, 4], [0, 8, 4, 2, 1]
    result = nca(*profile, route="ip", partial=[(0, 4), (0, 5), (3, 20)])
    assert [("extrapolated" in result[n].flags) for n in ("auc_0_4h", "auc_0_5h", "auc_3_20h")] == [False, False, True]
    refused = nca(*profile, route="ip", partial=[(0, 5), (3, 20)], refuse_extrap=True)
    assert refused["auc_0_5h"].value == result["auc_0_5h"].value
    assert (
        refused["auc_3_20h"].reason == "50 % of the area lies after the last quantifiable value, over the limit of 20 %"
    )
    assert "short_span" not in result["auc_0_4h"].flags


def test_errors_of_partial_areas_by_hand() -> None:
    """Weights of the trapezoid: half of 2 h for the sample at 2 h, and the value at 3 h is the mean of two."""
    result = nca([0, 2, 4], [0, 8, 4], se=[0, 1, 0.4], n=5, route="ip", method="linear", partial=[(0, 3)])
    # 8 over 2 h, then (8 + 6) / 2: c2 (1 + 1/2 + 1/4), c4 / 4
    assert result["auc_0_3h"].value == 8 + 7
    assert result["auc_0_3h"].se == pytest.approx(math.hypot(1.75, 0.1), rel=1e-14)
    assert result.df["auc_0_3h"] == pytest.approx((1.75**2 + 0.01) ** 2 / ((1.75**4 + 0.01**2) / 4), rel=1e-12)


def test_batch_has_partial_areas() -> None:
    table = nca_batch([[0, 1, 2, 3]] * 2, [[8, 4, 2, 1], [4, 2, 1, np.nan]], below_lloq=[[0] * 4, [0, 0, 0, 1]],
                      partial=[(0, 2), (0, 2)])  # fmt: skip
    np.testing.assert_allclose(table.values["auc_0_2h"], [6 / LN2, 3 / LN2], rtol=1e-14)


# samples left out


def test_an_excluded_sample_is_as_if_never_taken() -> None:
    t, c, se = [0, 1, 2, 4, 8, 12], [0, 9, 30, 4, 2, 1], [0, 1, 5, 1, 0.2, 0.1]
    with_it = nca(t, c, se=se, n=4, route="ip", dose=5, exclude={2: "haemolysed"})
    keep = [0, 1, 3, 4, 5]
    without = nca(*(np.array(x)[keep] for x in (t, c)), se=np.array(se)[keep], n=4, route="ip", dose=5)
    for name, e in without.estimates.items():
        assert with_it[name].value == pytest.approx(e.value, nan_ok=True, rel=0)
        assert with_it[name].se == pytest.approx(e.se, nan_ok=True, rel=0)
        assert with_it[name].flags == tuple(sorted({*e.flags, "points_excluded"}))
    assert with_it.excluded == {2: "haemolysed"}
    assert with_it.lambda_z_points == (3, 4, 5)


def test_an_excluded_sample_may_be_anything() -> None:
    result = nca([0, 1, 1, 4], [0, math.nan, 9, 4], route="ip", exclude={1: "tube lost"})
    assert result["cmax"].value == 9


def test_a_sample_kept_off_the_line_is_on_the_curve() -> None:
    t, c = [0, 1, 2, 4, 6, 8], [0, 9, 8, 4, 3.5, 1]
    plain, off = (nca(t, c, route="ip", lambda_z_exclude=x) for x in (None, {4: "interference"}))
    assert off["auclast"].value == plain["auclast"].value
    assert 4 not in off.lambda_z_points
    assert off["half_life"].value == pytest.approx(2)  # 8, 4, 1 at 2, 4, 8 h
    assert off["half_life"].flags == ("points_excluded",)
    assert "points_excluded" not in off["auclast"].flags
    assert off.off_lambda_z == {4: "interference"}
    assert nca(t, c, route="ip", lambda_z_exclude={4: "odd"}, lambda_z_points=3).lambda_z_points == (2, 3, 5)


def test_points_put_on_the_line_keep_their_reasons() -> None:
    why = {1: "by the protocol", 3: "by the protocol", 5: "by the protocol"}
    result = nca([0, 1, 2, 4, 6, 8], [0, 9, 8, 4, 3.5, 1], route="ip", lambda_z_points=why)
    assert result.lambda_z_points == (1, 3, 5)
    assert result.on_lambda_z == why


def test_batch_excludes_by_profile() -> None:
    table = nca_batch([[0, 1, 2]] * 2, [[8, 4, 2], [8, 4, 2]], exclude={(1, 0): "late"})
    assert table.values["cmax"].tolist() == [8, 4]
    assert table[0].excluded == {}
    assert table[1].excluded == {0: "late"}
    assert "points_excluded" not in table[0]["cmax"].flags


# where programs disagree


def _areas(result: NcaResult) -> tuple[float, float]:
    return result["auclast"].value, result["aucall"].value


def test_a_zero_inside_the_curve() -> None:
    t, c = [0, 1, 2, 3, 4, 5], [0, 8, 4, 0, 2, 1]
    down = 4 / LN2
    kept = nca(t, c, route="oral")
    assert kept["auclast"].value == pytest.approx(4 + down + 2 + 1 + 1 / LN2)
    assert "zero_inside" in kept["auclast"].flags
    dropped = nca(t, c, route="oral", rules="pknca")
    assert dropped["auclast"].value == pytest.approx(4 + down + 2 * (4 - 2) / LN2 + 1 / LN2)
    assert "zero_inside" not in dropped["auclast"].flags
    assert nca(t, c, route="oral", rules="noncompart")["auclast"].value == pytest.approx(4 + down + 0 + 1 + 1 / LN2)
    linear = [nca(t, c, route="oral", rules=r, method="linear")["auclast"].value for r in ("evbiodist", "noncompart")]
    assert linear[0] == linear[1] == 4 + 6 + 2 + 1 + 1.5


def test_trailing_zeros() -> None:
    t, c = [0, 1, 2, 3, 4], [0, 8, 4, 0, 0]
    last = 4 + 4 / LN2
    assert _areas(nca(t, c, route="oral")) == pytest.approx((last, last + 2))
    assert _areas(nca(t, c, route="oral", rules="pknca")) == pytest.approx((last, last + 2))
    assert _areas(nca(t, c, route="oral", rules="noncompart")) == pytest.approx((last, last))


def test_a_rising_tail() -> None:
    """The last three points lie on a rising line; a line through more of them falls."""
    t, c = [0, 1, 2, 4, 6, 8, 10, 12], [0, 100, 60, 20, 8, 3, 3.5, 4]
    refused = nca(t, c, route="oral", dose=1)
    assert refused["half_life"].reason == refused["cl_f"].reason
    assert "fits the last samples best rises" in refused["half_life"].reason
    assert nca(t, c, route="oral", rules="pknca")["half_life"].reason == refused["half_life"].reason
    falls = nca(t, c, route="oral", rules="winnonlin")
    assert falls["half_life"].value > 0
    assert falls["half_life"].value == nca(t, c, route="oral", rules="noncompart")["half_life"].value
    chosen = nca(t, c, route="oral", lambda_z_points=[2, 3, 4, 5])
    assert chosen["half_life"].value == pytest.approx(-LN2 / np.polyfit(t[2:6], np.log(c[2:6]), 1)[0])


def test_nothing_found_is_missing_or_zero_by_rule() -> None:
    for value in ([0, 0, 0], [0.1, 0.2, 0.1]):
        profile = {
            "time_h": [0, 1, 2],
            "value": value,
            "lloq": 0.5,
            "route": "oral",
            "se": [0.1] * 3,
            "partial": [(0, 2)],
        }
        assert nca(**profile)["auclast"].reason == "no quantifiable value above zero"  # type: ignore[arg-type]
        zero = nca(**profile, rules="pknca")  # type: ignore[arg-type]
        for name in ("cmax", "auclast", "aucall", "aumclast", "auc_0_2h"):
            assert zero[name].value == 0
            assert math.isnan(zero[name].se)
            assert zero[name].reason == "nothing was found, so no uncertainty"
        assert zero["half_life"].reason == "no quantifiable value above zero"


def test_noise_around_nothing_is_not_zero() -> None:
    assert nca([0, 1, 2], [0, -1, 0.0], route="oral", rules=Rules(all_zero="zero"))["auclast"].reason


@pytest.mark.parametrize(
    ("rule", "auclast"), [("end", 3 + 5 + 4), ("zero", 3 + 3 + 2), ("drop", 3 + 10), ("mean", 3 + 5 + 4 + 2.5)]
)
def test_means_with_most_animals_below_the_limit(rule: str, auclast: float) -> None:
    """Means 0, 6, 4, 4, 1 from 0 to 4 h; more than half of the animals are below the limit at 2 and at 4 h."""
    result = nca([0, 1, 2, 3, 4], [0, 6, 4, 4, 1], below_share=[0, 0, 0.6, 0.5, 0.75], route="oral", method="linear",
                 rules=Rules(majority_blq=rule))  # fmt: skip
    assert result["auclast"].value == auclast


def test_cmax_on_the_line_by_rule() -> None:
    profile = [1.0, 2.0, 4.0, 8.0], [16.0, 8.0, 2.0, 0.125]
    assert nca(*profile)["lambda_z_n"].value == 4
    assert nca(*profile, rules="pknca")["lambda_z_n"].value == 3
    assert nca(*profile, route="oral", rules=Rules(lambda_z_from="cmax"))["lambda_z_n"].value == 4


def test_conventions_are_what_their_names_say() -> None:
    assert set(CONVENTIONS) == {"evbiodist", "winnonlin", "pknca", "noncompart"}
    assert CONVENTIONS["evbiodist"] == Rules()


@pytest.mark.parametrize(
    ("rules", "inside", "all_of_it", "half_life", "means"),
    [
        ("evbiodist", 14.21, 11.77, math.nan, 12),
        ("pknca", 16.98, 11.77, math.nan, 13),
        ("winnonlin", 14.21, 11.77, 2.46, 14.5),
        ("noncompart", 12.21, 9.77, 2.46, 14.5),
    ],
)
def test_numbers_of_the_documentation(
    rules: str, inside: float, all_of_it: float, half_life: float, means: float
) -> None:
    """The table of docs/nca.md."""
    found = (
        nca([0, 1, 2, 3, 4, 5], [0, 8, 4, 0, 2, 1], route="oral", rules=rules)["auclast"].value,
        nca([0, 1, 2, 3, 4], [0, 8, 4, 0, 0], route="oral", rules=rules)["aucall"].value,
        nca([0, 1, 2, 4, 6, 8, 10, 12], [0, 100, 60, 20, 8, 3, 3.5, 4], route="oral", rules=rules)["half_life"].value,
        nca(
            [0, 1, 2, 3, 4],
            [0, 6, 4, 4, 1],
            below_share=[0, 0, 0.6, 0.5, 0.75],
            route="oral",
            method="linear",
            rules=rules,
        )["auclast"].value,
    )
    assert found == pytest.approx((inside, all_of_it, half_life, means), abs=5e-3, nan_ok=True)


def test_a_rule_named_apart_wins() -> None:
    result = nca(
        [0, 1, 2, 3], [0.1, 8, 0.1, 4], lloq=1, rules="pknca", blq={"between": "zero"}, route="oral", method="linear"
    )
    assert result["auclast"].value == 4 + 4 + 2


# extrapolation over the limit


def test_refusal_reaches_all_that_rests_on_it_and_nothing_else() -> None:
    profile = {"time_h": [0, 1, 2, 3, 4], "value": [10, 9.5, 8, 7.3, 7.2], "dose": 1.0, "se": [0.1] * 5}
    flagged, refused = nca(**profile), nca(**profile, refuse_extrap=True)  # type: ignore[arg-type]
    over = {n for n, e in flagged.estimates.items() if "extrapolated" in e.flags} - {
        "auc_pct_extrap_obs",
        "auc_pct_extrap_pred",
    }
    missing = {n for n, e in refused.estimates.items() if math.isnan(e.value)}
    assert missing == over
    assert {"aucinf_obs", "cl", "vz", "vss", "mrt_inf", "aucinf_dose", "cl_pred", "aumcinf_pred"} <= missing
    for name in missing:
        assert refused[name].reason.endswith(
            "% of the area lies after the last quantifiable value, over the limit of 20 %"
        )
        assert math.isnan(refused[name].se)
    assert refused["auc_pct_extrap_obs"].value == flagged["auc_pct_extrap_obs"].value > 20
    kept = nca(**profile, refuse_extrap=True, max_extrap_pct=100)  # type: ignore[arg-type]
    assert kept["cl"].value == flagged["cl"].value


# codes


def test_residence_times_have_the_code_of_their_route() -> None:
    p = PARAMETERS["mrt_last"]
    assert p.code("iv_bolus") == ("MRTIBLST", "MRT IV Bolus to Last Nonzero Conc")
    assert p.code("iv_infusion") == ("MRTICLST", "MRT IV Cont Inf to Last Nonzero Conc")
    assert p.code("oral") == p.code("tissue") == ("MRTEVLST", "MRT Extravasc to Last Nonzero Conc")
    assert PARAMETERS["clast_pred"].code("oral") == ("", "")  # CDISC has no code for it


@pytest.mark.parametrize("method", METHODS)
def test_predicted_forms_follow_the_predicted_area(method: str) -> None:
    result = nca([1, 2, 4, 8], [16, 9, 2, 0.125], dose=10, method=method)
    v = {n: e.value for n, e in result.estimates.items()}
    assert v["cl_pred"] == pytest.approx(10 / v["aucinf_pred"])
    assert v["vz_pred"] == pytest.approx(v["cl_pred"] / v["lambda_z"])
    assert v["vss_pred"] == pytest.approx(v["cl_pred"] * v["mrt_inf_pred"])
    assert v["aucinf_pred"] - v["auclast"] == pytest.approx(v["clast_pred"] / v["lambda_z"])
    assert v["auclast_dose"] * 10 == pytest.approx(v["auclast"])


# shapes and sizes nobody means


def test_no_profile_is_an_empty_table() -> None:
    table = nca_batch(np.empty((0, 3)), np.empty((0, 3)), se=np.empty((0, 3)))
    assert len(table) == 0
    assert table.values["auclast"].shape == table.se["cl"].shape == (0,)


@pytest.mark.parametrize("shape", [(2, 0), (2, 2, 2)])
def test_odd_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected profiles x times with at least one time"):
        nca_batch(np.zeros(shape), np.zeros(shape))


def test_numbers_at_the_ends_of_their_range_are_missing_without_a_warning() -> None:
    result = nca([0, 1, 2, 3, 4], [1e308, 9e307, 1e-308, 1e-310, 5e-324], se=[1e300] * 5, dose=1, partial=[(0, 9)])
    assert result["half_life"].value > 0
    assert result["cl"].reason == result["auclast"].reason == "its formula has no finite value here"


def test_blocks_join_without_a_seam() -> None:
    """More profiles than are computed at once; the first and the last are those of their own."""
    rng = np.random.default_rng(3)
    t = np.cumsum(rng.uniform(0.1, 2, (9000, 5)), axis=1)
    c = 9 * np.exp(-0.3 * t + rng.normal(0, 0.2, t.shape))
    table = nca_batch(t, c, se=0.1 * c, n=4, dose=2.0, partial=[(0, 3)])
    for i in (0, 6553, 6554, 8999):
        assert str(table[i]) == str(nca(t[i], c[i], se=0.1 * c[i], n=4, dose=2.0, partial=[(0, 3)]))
