"""Dosing intervals: which samples belong where, ends without a sample, steady state, refusals and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.nca.dosing_intervals import dosing_intervals, parameter_names
from evbiodist.kinetics.nca.parameters import PARAMETERS, ROUTES
from evbiodist.kinetics.nca.steady_state import level_troughs
from evbiodist.study.flags import FLAGS

#: Two doses by mouth, 8 h apart, the second at 8 h: sampled at the dose and after it.
TWO = {"time_h": [0, 1, 4, 8, 9, 12, 16], "value": [0, 8, 4, 2, 10, 6, 3], "dose_time_h": [0, 8]}


def boluses(k: float, tau: float, count: int, rel: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    doses = np.arange(count) * tau
    t = np.unique(np.concatenate([d + np.array(rel) for d in doses]))
    since = t[:, None] - doses
    return t, np.where(since > 0, 10 * np.exp(-k * np.maximum(since, 0)), 0.0).sum(axis=1), doses


# which samples belong where


def test_a_sample_at_a_dose_ends_one_interval_and_begins_the_next() -> None:
    table = dosing_intervals(**TWO, route="oral", method="linear")
    first, second = table[0, 0], table[0, 1]
    assert (first["ctrough"].value, second["cpredose"].value) == (2, 2)
    assert first["auc_tau"].value == 4 + 18 + 12
    assert second["auc_tau"].value == 6 + 24 + 18
    assert (second["tmax"].value, second["tlast"].value, second["tmin"].value) == (1, 8, 0)
    assert second["cmin"].value == 2
    assert table.notes == ("the last dosing interval is taken to be as long as the others",)


def test_a_bolus_starts_from_its_own_first_samples() -> None:
    """The sample at a later bolus is what was there before it: it is the lowest value, not the start of the area."""
    t, c, doses = boluses(0.3, 6, 2, [1, 2, 4, 6])
    second = dosing_intervals(t, c, doses)[0, 1]
    assert second["c0"].value == pytest.approx(10 + 10 * math.exp(-0.3 * 6))
    assert second["cpredose"].value == second["cmin"].value == pytest.approx(10 * math.exp(-1.8))
    assert second["tmin"].value == 0
    first_of_all = dosing_intervals([0, 1, 2, 4], [10, 5, 2.5, 0.625], [0], tau_h=4)[0, 0]
    assert (first_of_all["c0"].value, first_of_all["cpredose"].value) == (10, 0)


def test_samples_before_the_first_dose_are_named() -> None:
    table = dosing_intervals([-1, 0, 1, 2, 4], [0, 0, 4, 2, 1], [0], tau_h=4, route="oral")
    assert "before the first dose" in table.notes[0]
    assert table[0, 0]["cmax"].value == 4


def test_clocks_need_no_round_numbers() -> None:
    """0.1 + 0.2 is not 0.3: a sample at the end of the interval is still the trough."""
    found = dosing_intervals([0.2, 0.25, 0.28, 0.1 + 0.2], [8, 4, 2, 1], [0.1], tau_h=0.2, route="oral", ends="refuse")
    assert found[0, 0]["ctrough"].value == 1


# ends without a sample


def test_ends_by_rule() -> None:
    t, c = [0, 1, 2, 4, 6], [0, 16, 8, 4, 2]
    common = {"dose_time_h": [0], "tau_h": 8.0, "route": "oral"}
    reached = {e: dosing_intervals(t, c, ends=e, **common)[0, 0] for e in ("lambda_z", "last_two", "refuse")}
    rate = -np.polyfit([2, 4, 6], np.log([8, 4, 2]), 1)[0]
    assert reached["lambda_z"]["ctrough"].value == pytest.approx(2 * math.exp(-2 * rate))
    assert reached["last_two"]["ctrough"].value == pytest.approx(1)
    for name in ("ctrough", "auc_tau", "cavg", "cl_f_ss"):
        assert math.isnan(reached["refuse"][name].value)
    assert reached["refuse"]["cavg"].reason == (
        "no sample at the end of the dosing interval, and ends='refuse' reaches for none"
    )
    tail = 100 * (1 * 2 / math.log(2)) / reached["last_two"]["auc_tau"].value
    assert reached["last_two"]["auc_tau_pct_extrap"].value == pytest.approx(tail)


def test_no_terminal_line_says_so_and_names_the_way_out() -> None:
    found = dosing_intervals([0, 1, 2, 4], [0, 1, 2, 4], [0], tau_h=8, route="oral")[0, 0]
    assert found["auc_tau"].reason.endswith(
        "no terminal line reaches it (ends='last_two' needs only two values that fall)"
    )
    assert found["lambda_z"].reason == "no terminal line: 0 values above zero after the highest, 3 are needed"
    level = dosing_intervals([0, 1, 2, 4, 6], [0, 9, 2, 3, 4], [0], tau_h=8, route="oral")[0, 0]
    assert level["half_life"].reason == "no terminal line: the last values do not fall"
    rising = dosing_intervals([0, 1, 2, 4], [0, 1, 2, 4], [0], tau_h=8, route="oral", ends="last_two")[0, 0]
    assert rising["ctrough"].reason.endswith("the last two values do not fall")


def test_after_the_last_dose_later_samples_are_used() -> None:
    """Between two samples nothing is extrapolated: a line where values rise, an exponential where they fall."""
    t, c = [0, 1, 2, 4, 8], [0, 9, 8, 4, 1]
    for method, trough in (("linear", 2.5), ("lin-up-log-down", 2.0)):
        found = dosing_intervals(t, c, [0], tau_h=6, route="oral", method=method)[0, 0]
        assert found["ctrough"].value == pytest.approx(trough)
        assert found["auc_tau_pct_extrap"].value == 0
        assert found["tlast"].value == 4


def test_much_extrapolation_is_flagged() -> None:
    found = dosing_intervals([0, 1, 2, 3, 4], [0, 8, 7, 6.5, 6], [0], tau_h=24, route="oral")[0, 0]
    assert {"extrapolated"} <= set(found["auc_tau"].flags)
    assert {"extrapolated"} <= set(found["cavg"].flags)


def test_a_missing_trough_passes_its_reason_on() -> None:
    """Without the end of the first interval neither its area nor the start of the second is known."""
    t, c = [1, 2, 4, 9, 10, 12, 16], [1, 2, 4, 8, 6, 4, 2]
    table = dosing_intervals(t, c, [0, 8], route="oral")
    second = table[0, 1]
    assert second["auc_tau"].reason.startswith(
        "not known before this dose: no sample at the end of the dosing interval"
    )
    assert second["ctrough"].value == 2


def test_the_last_interval_may_be_unknown() -> None:
    found = dosing_intervals([1, 2, 4, 8], [8, 4, 2, 1], [0])[0, 0]
    for name in ("tau", "auc_tau", "ctrough"):
        assert found[name].reason == "the length of the last dosing interval is not known; give tau_h=..."
    assert found["cmax"].value == 8
    uneven = dosing_intervals([1, 2, 4, 8], [8, 4, 2, 1], [0, 3, 5])
    assert math.isnan(uneven[0, 2]["tau"].value)
    assert uneven[0, 1]["tau"].value == 2


def test_two_troughs_are_no_curve() -> None:
    """An interval seen only at its ends gives no area and no peak, whatever a trapezoid would say."""
    table = dosing_intervals([0, 8, 16], [0, 2, 3], [0, 8], route="oral")
    found = table[0, 1]
    assert found["auc_tau"].reason.startswith("0 quantifiable samples between this dose and the next")
    assert math.isnan(found["cmax"].value)
    assert (found["cpredose"].value, found["ctrough"].value) == (2, 3)


# limits of quantification


@pytest.mark.parametrize(("blq", "auc"), [("drop", None), ("zero", 4 + 9 + 2.5), ("lloq/2", 4.125 + 9 + 3.125)])
def test_values_below_the_limit(blq: str, auc: float | None) -> None:
    """Both ends are below the limit: left out, zero, or half the limit."""
    common = {"lloq": 0.5, "route": "oral", "method": "linear", "ends": "last_two"}
    found = dosing_intervals([0, 1, 3, 8], [0.1, 8, 1, 0.3], [0], tau_h=8, blq=blq, **common)[0, 0]
    if auc is None:
        assert found["ctrough"].value == pytest.approx(math.exp(-5 * math.log(8) / 2))  # on from 8 and 1
    else:
        assert found["auc_tau"].value == pytest.approx(auc)
    assert "below_lloq" in found["auc_tau"].flags
    assert (found["clast"].value, found["cmin"].value) == (1, 1)


def test_half_a_limit_needs_the_limit() -> None:
    with pytest.raises(ValueError, match="give lloq"):
        dosing_intervals([0, 1, 2], [0, 8, 4], [0], below_lloq=[1, 0, 0], blq="lloq/2", route="oral")


# steady state


def test_clearance_is_given_at_steady_state_only() -> None:
    t, c, doses = boluses(0.2, 6, 8, [0.5, 1, 2, 4, 6])
    common = {"dose": 100, "dose_unit": "mg", "unit": "mg/L"}
    table = dosing_intervals(t, c, doses, se=0.02 * c, **common)
    k = int(table.steady_from[0])
    assert 0 < k < 5
    time = table.time_to_steady_state()
    assert (time.value, time.unit) == (6.0 * (k + 1), "h")
    assert math.isnan(table[0, k]["cl_ss"].value)
    assert table[0, k]["cl_ss"].reason.startswith("this interval is before steady state")
    assert table[0, 7]["cl_ss"].value == pytest.approx(2.0, rel=0.02)
    told = dosing_intervals(t, c, doses, steady_state=False, **common)[0, 7]
    assert told["cl_ss"].reason == "there is no steady state, as steady_state=False says"


def test_few_or_scattered_troughs_show_nothing() -> None:
    t, c, doses = boluses(0.2, 6, 3, [1, 2, 4])
    table = dosing_intervals(t, c, doses, dose=1)
    assert table.time_to_steady_state().reason.startswith(
        "steady state is not shown: 0 quantifiable samples at the ends"
    )
    assert table[0, 2]["cl_ss"].reason.endswith("say steady_state=True if it is known")
    scattered = level_troughs(np.arange(4)[None] * 12.0, np.array([[5.0, 9, 4, 8]]), np.full((1, 4), np.nan))
    assert scattered[0][0] == -1
    assert "change by a factor of" in scattered[1][0]
    gap = level_troughs(np.arange(5)[None] * 12.0, np.array([[5.0, 5, 5, np.nan, 5]]), np.full((1, 5), 0.1))
    assert gap == ([-1], (gap[1][0],))
    assert "not all of the last 3" in gap[1][0]


def test_equivalence_keeps_its_error_rate() -> None:
    """Troughs that change by the limit itself are called level in 5 % of studies; level ones nearly always."""
    rng = np.random.default_rng(20261122)
    studies, count, se = 4000, 6, 0.04
    t = np.broadcast_to(np.arange(count) * 12.0, (studies, count))
    noise = rng.normal(0, se, (studies, count))
    for known in (True, False):
        spread = np.full((studies, count), se) if known else np.full((studies, count), np.nan)
        drift = np.exp(np.log(1.25) * np.arange(count) / (count - 1) + noise)
        wrong = (level_troughs(t, drift, spread * drift if known else spread)[0] == 0).mean()
        assert wrong == pytest.approx(0.05, abs=0.012)
        right = (level_troughs(t, np.exp(noise), spread)[0] == 0).mean()
        assert right > 0.95


def test_told_steady_state_is_periodic() -> None:
    """Without a sample at the dose, what is left at the end of the interval was there at its start."""
    t, c = [1, 2, 4, 8, 12], [6, 10, 8, 4, 2]
    found = dosing_intervals(t, c, [0], tau_h=12, route="oral", method="linear", steady_state=True)[0, 0]
    assert found["cpredose"].value == 2
    assert found["auc_tau"].value == 66
    assert "carry_over" not in found["cmax"].flags


def test_a_bolus_at_a_known_steady_state() -> None:
    """The sample at the dose is what was there before it; the value at 0 h comes from the samples after it."""
    t, c = [0, 1, 2, 4, 6], [1.5, 8, 4, 2, 1]
    found = dosing_intervals(t, c, [0], tau_h=6, steady_state=True, dose=1)[0, 0]
    assert (found["cpredose"].value, found["c0"].value, found["cmin"].value) == (1.5, 16, 1)
    without = dosing_intervals(t[1:], c[1:], [0], tau_h=6, steady_state=True, dose=1)[0, 0]
    assert without["cpredose"].value == 1
    lower = dosing_intervals(t, [0.5, *c[1:]], [0], tau_h=6, steady_state=True)[0, 0]
    assert (lower["cmin"].value, lower["tmin"].value) == (0.5, 0)


def test_residence_time_needs_the_infusion() -> None:
    t, c = [0, 1, 2, 4, 6], [1, 9, 4, 2, 1]
    common = {"dose_time_h": [0], "tau_h": 6, "steady_state": True, "route": "iv_infusion", "dose": 1}
    unknown, known = (dosing_intervals(t, c, **common, **more)[0, 0] for more in ({}, {"infusion_h": 1.0}))
    assert unknown["mrt_ss"].reason == "the duration of the infusion is not given; give infusion_h=..."
    assert unknown["vss_ss"].reason == unknown["mrt_ss"].reason
    assert known["vss_ss"].value == pytest.approx(known["cl_ss"].value * known["mrt_ss"].value)


def test_accumulation_needs_the_first_dose_and_equal_doses() -> None:
    t, c, doses = boluses(0.3, 6, 2, [1, 2, 4, 6])
    table = dosing_intervals(t, c, doses, dose=[200, 100])
    assert table[0, 1]["accumulation_auc"].reason == "the dose differs from the first (100, 200)"
    assert table[0, 0]["accumulation_cmax"].reason == "this is the first dose"
    told = dosing_intervals(t, c, doses, steady_state=True)[0, 1]["accumulation_auc"]
    assert told.reason == "the first of all doses is not among these, as steady_state=True says"
    longer = dosing_intervals(t, c, doses, tau_h=12)
    assert longer[0, 1]["accumulation_auc"].reason == "the dosing interval differs from the first (12 h, 6 h)"


def test_carry_over_is_named() -> None:
    t, c, doses = boluses(0.1, 6, 2, [1, 2, 4, 6])
    table = dosing_intervals(t, c, doses)
    assert "carry_over" in table[0, 1]["auc_tau"].flags
    assert "carry_over" not in table[0, 0]["auc_tau"].flags
    share = 100 * 10 * math.exp(-0.6) / (10 * (math.exp(-0.1) + math.exp(-0.7)))
    assert table[0, 1]["carryover_pct"].value == pytest.approx(share)


# errors


def test_errors_by_hand() -> None:
    """Linear areas weigh each sample by half its two gaps; two intervals share the sample between them."""
    c = np.array(TWO["value"], dtype=float)
    se = np.array([0, 1, 0.5, 0.3, 1, 0.6, 0.4])
    table = dosing_intervals(TWO["time_h"], c, [0, 8], se=se, n=4, route="oral", method="linear")
    weights = [np.array([0, 2, 3.5, 2, 0, 0, 0]), np.array([0, 0, 0, 0.5, 2, 3.5, 2])]
    for k, w in enumerate(weights):
        e = table[0, k]["auc_tau"]
        assert e.se == pytest.approx(math.sqrt(((w * se) ** 2).sum()))
        assert e.n == 4 * np.count_nonzero(w) + (4 if k == 0 else 0)
        df = ((w * se) ** 2).sum() ** 2 / ((w * se) ** 4 / 3).sum()
        assert table.parameters.df["auc_tau"][0, k] == pytest.approx(df)
    a, b = (float((w * c).sum()) for w in weights)
    gradient = weights[1] / a - b * weights[0] / a**2
    assert table[0, 1]["accumulation_auc"].se == pytest.approx(math.sqrt(((gradient * se) ** 2).sum()))


def test_intervals_cover_the_truth() -> None:
    """95 % intervals of area, clearance, fluctuation and accumulation over 1,500 profiles with 8 % error."""
    rng = np.random.default_rng(4)
    t, c, doses = boluses(0.15, 8, 3, [1, 2, 4, 6, 8])
    seen = rng.normal(c, 0.08 * c, (1500, len(c)))
    common = {"dose": 10, "method": "log", "se": 0.08 * c}
    for steady, names in ((True, ("auc_tau", "cl_ss", "mrt_ss")), (None, ("ctrough", "accumulation_auc", "half_life"))):
        truth = dosing_intervals(t, c, doses, steady_state=steady, **common)[0, 2]
        found = dosing_intervals(t, seen, doses, steady_state=steady, **common).parameters
        for name in names:
            low, high = found.ci_low[name][:, 2], found.ci_high[name][:, 2]
            cover = ((low <= truth[name].value) & (truth[name].value <= high)).mean()
            assert 0.92 < cover < 0.98, (name, cover)


def test_no_error_known() -> None:
    found = dosing_intervals(**TWO, route="oral")[0, 1]["auc_tau"]
    assert math.isnan(found.se)
    assert found.reason == "no se is known, so no uncertainty"
    one_unknown = dosing_intervals(**TWO, route="oral", se=[0, 1, np.nan, 1, 1, 1, 1])
    assert math.isnan(one_unknown[0, 0]["auc_tau"].se)
    assert one_unknown[0, 1]["auc_tau"].se > 0


# the table


@pytest.mark.parametrize("route", ROUTES)
def test_names_are_registered(route: str) -> None:
    table = dosing_intervals([0, 1, 2, 4, 8], [9, 8, 6, 3, 1], [0], tau_h=8, route=route, dose=1)
    assert tuple(table[0, 0]) == parameter_names(route)
    for name, e in table[0, 0].items():
        assert name in PARAMETERS
        assert set(e.flags) <= set(FLAGS)


def test_frame_and_index() -> None:
    table = dosing_intervals(**TWO, route="oral")
    frame = table.parameters.to_frame()
    assert len(frame) == 2 * len(parameter_names("oral"))
    assert set(frame["index"]) == {(0, 0), (0, 1)}
    with pytest.raises(IndexError, match="expected 2 numbers"):
        table.parameters[0]
    with pytest.raises(IndexError):
        table[0, 2]


def test_profiles_with_fewer_doses() -> None:
    t = np.array([[1, 2, 4, 8.0, 9, 10, 12, 16], [1, 2, 4, 8.0, *[np.nan] * 4]])
    c = np.array([[8, 6, 4, 2, 9, 7, 5, 3.0], [8, 6, 4, 2, *[np.nan] * 4]])
    table = dosing_intervals(t, c, [[0, 8], [0, np.nan]], route="oral", tau_h=8.0)
    assert table[1, 1]["auc_tau"].reason == "this profile has no such dose"
    assert table[0, 0]["auc_tau"].value == table[1, 0]["auc_tau"].value


# refusals


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"dose_time_h": [8, 0]}, "dose_time_h has 0 at position 1, expected times that rise; sort the doses by time"),
        ({"dose_time_h": [[np.nan]]}, "dose_time_h has no dose in profile 0, expected at least one; add it"),
        ({"dose": 0}, "dose has 0 at position 0, expected a number above 0; leave it out when it is unknown"),
        ({"tau_h": -1}, "tau_h has -1 at position 0, expected hours above 0; leave it out to take it from the doses"),
        (
            {"infusion_h": [0, 1], "route": "iv_infusion"},
            "infusion_h has 0 at position 0, expected hours above 0; leave it out for other routes",
        ),
        (
            {"infusion_h": 1},
            "infusion_h is given with route 'oral', expected 'iv_infusion'; leave it out for other routes",
        ),
        ({"value": [1, 2]}, "value has shape (1, 2), expected (1, 7); give one number for each"),
        ({"value": [0, 1, np.inf, 1, 1, 1, 1]}, "value has inf at position 2, expected a finite number; drop the row"),
        ({"time_h": [0, 1, 1, 8, 9, 12, 16]}, "time_h has 1 at position 2, expected times that rise; sort the rows"),
        ({"se": [-1, 1, 1, 1, 1, 1, 1]}, "se has -1 at position 0, expected 0 or more; give standard errors, NaN"),
        ({"n": 0}, "n has 0 at position 0, expected at least 1 animal; leave n out when it is unknown"),
        ({"lloq": 0}, "lloq has 0 at position 0, expected a number above 0; leave it out when it is unknown"),
        ({"ends": "lambda"}, "ends has 'lambda', expected one of lambda_z, last_two, refuse; did you mean 'lambda_z'?"),
        ({"method": "lienar"}, "did you mean 'linear'?"),
        ({"route": "orall"}, "did you mean 'oral'?"),
        ({"blq": "dropp"}, "did you mean 'drop'?"),
        ({"blq": {"betwen": "drop"}}, "did you mean 'between'?"),
        ({"trough_ratio": 0.8}, "trough_ratio has 0.8, expected a factor above 1; write 1.25 for 80 to 125 %"),
    ],
)
def test_refusals(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the sentence is checked below
        dosing_intervals(**{**TWO, "route": "oral", **more})
    assert sentence in str(caught.value)
