"""Collections of urine and faeces: sums, rates, what was lost, gaps, limits, errors and every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evbiodist.kinetics.nca.excretion import excretion
from evbiodist.study.flags import FLAGS

EDGES = np.arange(0.0, 14.0, 2.0)
START, END = EDGES[:-1], EDGES[1:]
MG = {"dose": 100, "dose_unit": "mg", "unit": "mg"}


def amounts(k: float = 0.3, whole: float = 60.0) -> np.ndarray:
    return -whole * np.diff(np.exp(-k * EDGES))


def test_sums_rates_and_shares() -> None:
    found = excretion(START, END, [30, 10, 4, 2, 1, 0.5], **MG)
    whole, each = found.parameters[0], found.collections
    assert whole["amount_excreted"].value == 47.5
    assert (whole["pct_excreted"].value, whole["pct_excreted"].unit) == (47.5, "1")
    assert (whole["excretion_rate_max"].value, whole["excretion_rate_max"].unit) == (15, "mg/h")
    assert whole["excretion_rate_tmax"].value == 1
    assert each.values["cumulative_amount"][0].tolist() == [30, 40, 44, 46, 47, 47.5]
    assert each.estimate("cumulative_pct", 0, 2).value == 44
    assert each.estimate("excretion_rate", 0, 1).n == 1
    assert found.midpoint_h[0].tolist() == [1, 3, 5, 7, 9, 11]


def test_concentration_times_volume() -> None:
    """%ID per mL times mL is %ID, and percent of a dose of 100 %ID."""
    found = excretion([0, 4], [4, 8], [2.0, 1.0], volume=[3.0, 4.0], unit="pct_id/mL", dose=100, dose_unit="pct_id")
    whole = found.parameters[0]
    assert (whole["amount_excreted"].value, whole["amount_excreted"].unit) == (10, "pct_id")
    assert whole["pct_excreted"].value == pytest.approx(10)
    assert (whole["volume_excreted"].value, whole["volume_excreted"].unit) == (7, "mL")
    in_ng = excretion([0], [4], [2000.0], volume=[3.0], unit="ng/mL", dose=1, dose_unit="mg").parameters[0]
    assert in_ng["pct_excreted"].value == pytest.approx(100 * 6000 / 1e6)


def test_no_urine_is_no_loss() -> None:
    found = excretion([0, 4], [4, 8], [2.0, np.nan], volume=[3.0, 0.0], unit="mg/mL").parameters[0]
    assert found["amount_excreted"].value == 6
    assert found["amount_excreted"].n == 2


def test_a_lost_collection_makes_later_sums_unknown() -> None:
    value = amounts()
    value[2] = np.nan
    found = excretion(START, END, value, se=0.1 * value, **MG)
    whole, each = found.parameters[0], found.collections
    for name in ("amount_excreted", "pct_excreted", "amount_inf", "pct_excreted_inf", "half_life_are"):
        assert whole[name].reason == "the collection from 4 to 6 h was lost", name
    assert whole["half_life_rate"].value == pytest.approx(math.log(2) / 0.3)
    assert each.estimate("cumulative_amount", 0, 1).value == pytest.approx(value[:2].sum())
    assert each.estimate("cumulative_pct", 0, 3).reason == "the collection from 4 to 6 h was lost"
    assert each.estimate("excretion_rate", 0, 3).value == pytest.approx(value[3] / 2)
    assert whole["excretion_rate_max"].value == pytest.approx(value[0] / 2)


@pytest.mark.parametrize(("blq", "last"), [("zero", 0.0), ("lloq/2", 0.5)])
def test_below_the_limit(blq: str, last: float) -> None:
    found = excretion(START, END, [30, 10, 4, 2, 1, 0.5], lloq=1.0, blq=blq, se=1.0, **MG)
    e = found.parameters[0]["amount_excreted"]
    assert (e.value, e.flags) == (47 + last, ("below_lloq",))
    assert e.se == pytest.approx(math.sqrt(5))  # what stands for the last has no error
    assert found.collections.estimate("collected_amount", 0, 5).flags == ("below_lloq",)
    assert "below_lloq" not in found.collections.estimate("cumulative_amount", 0, 4).flags
    assert "below_lloq" in found.parameters[0]["amount_inf"].flags


def test_sigma_minus_counts_down_from_what_it_is_told() -> None:
    """Against the last sum the end of the plot is too steep (Martin 1967); against the extrapolated one it is straight."""
    value = amounts()
    from_rate = excretion(START, END, value, **MG).parameters[0]
    from_last = excretion(START, END, value, are_total="last", **MG).parameters[0]
    assert from_rate["lambda_are"].value == pytest.approx(0.3, rel=1e-9)
    assert from_last["lambda_are"].value > 0.31
    assert from_rate["amount_inf"].value == pytest.approx(60)
    assert from_rate["amount_pct_extrap"].value == pytest.approx(100 * math.exp(-0.3 * 12))


def test_short_collection_is_flagged() -> None:
    found = excretion(START, END, amounts(k=0.05), **MG).parameters[0]
    assert {"extrapolated"} <= set(found["pct_excreted_inf"].flags)
    assert "extrapolated" not in found["pct_excreted"].flags


def test_what_the_data_cannot_carry() -> None:
    found = excretion(START[:2], END[:2], [3, 1], unit="mg").parameters[0]
    assert (
        found["half_life_rate"].reason
        == "rate plot: no terminal line: 2 values above zero after the highest, 3 are needed"
    )
    assert found["amount_inf"].reason == found["half_life_rate"].reason
    assert found["lambda_are"].reason.endswith("are_total='last' counts down from what was collected")
    assert found["pct_excreted"].reason == "the dose is not given; give dose=... and dose_unit=..."
    assert found["renal_clearance"].reason.endswith("give plasma_auc=...")
    rising = excretion(START, END, [1, 2, 3, 4, 5, 6], unit="mg").parameters[0]
    assert rising["half_life_rate"].reason.startswith("rate plot: no terminal line: 1 values above zero")
    no_unit = excretion(START, END, amounts(), dose=100, unit="mg").parameters[0]
    assert no_unit["pct_excreted"].reason.startswith("the dose's unit is not given")


def test_errors_by_hand() -> None:
    """A sum's variance is the sum of variances; renal clearance adds the relative errors of sum and area."""
    value, volume = np.array([3.0, 2.0, 1.0]), np.array([10.0, 20.0, 30.0])
    se, volume_se = 0.1 * value, 0.05 * volume
    found = excretion(
        [0, 2, 4],
        [2, 4, 6],
        value,
        volume=volume,
        se=se,
        volume_se=volume_se,
        unit="mg/mL",
        plasma_auc=50,
        plasma_auc_se=4,
        plasma_auc_unit="mg/mL*h",
    ).parameters[0]
    variance = ((volume * se) ** 2 + (value * volume_se) ** 2).sum()
    assert found["amount_excreted"].se == pytest.approx(math.sqrt(variance))
    relative = variance / 100**2 + (4 / 50) ** 2
    assert (found["renal_clearance"].value, found["renal_clearance"].unit) == (2.0, "mL/h")
    assert found["renal_clearance"].se == pytest.approx(2 * math.sqrt(relative))
    assert found["volume_excreted"].se == pytest.approx(math.sqrt((volume_se**2).sum()))


def test_renal_clearance_of_a_percent_of_dose() -> None:
    found = excretion([0], [6], [20.0], unit="pct_id", plasma_auc=40.0, plasma_auc_unit="pct_id_per_g*h").parameters[0]
    assert (found["renal_clearance"].value, found["renal_clearance"].unit) == (0.5, "g/h")


def test_intervals_cover_the_truth() -> None:
    """Sums, half-lives and the amount for ever of 1,500 animals with 6 % error in each collection."""
    rng = np.random.default_rng(9)
    truth = amounts()
    seen = rng.normal(truth, 0.06 * truth, (1500, len(truth)))
    found = excretion(START, END, seen, se=np.broadcast_to(0.06 * truth, seen.shape), **MG).parameters
    half = math.log(2) / 0.3
    for name, value in (
        ("amount_excreted", truth.sum()),
        ("amount_inf", 60.0),
        ("half_life_rate", half),
        ("half_life_are", half),
    ):
        cover = ((found.ci_low[name] <= value) & (value <= found.ci_high[name])).mean()
        assert 0.90 < cover < 0.98, (name, cover)  # the points of the lines are chosen on the same data


def test_profiles_of_different_length() -> None:
    start = np.array([[0, 2, 4, 6], [0, 2, np.nan, np.nan]])
    found = excretion(start, start + 2, [[8, 4, 2, 1], [8, 4, np.nan, np.nan]], **MG)
    assert found.parameters.values["amount_excreted"].tolist() == [15, 12]
    assert found.collections.estimate("excretion_rate", 1, 3).reason == "this profile has no such collection"
    assert np.isnan(found.midpoint_h[1, 2:]).all()


def test_flags_are_known() -> None:
    found = excretion(START, END, amounts(k=0.05), se=30.0, lloq=1.0, **MG)
    estimates = [*found.parameters[0].values(), *found.collections[0, 0].values()]
    assert {flag for e in estimates for flag in e.flags} <= set(FLAGS)
    assert "imprecise" in found.parameters[0]["amount_excreted"].flags


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"start_h": [1, 2]},
            "start_h has 1 at position 0, expected 0, the time of the dose (a gap of 1 h); give what was",
        ),
        (
            {"end_h": [1, 4]},
            "start_h has 2 at position 1, expected 1, where the collection before ended (a gap of 1 h)",
        ),
        ({"end_h": [3, 4]}, "expected 3, where the collection before ended (an overlap of 1 h); correct the times"),
        ({"end_h": [0, 4]}, "end_h has 0 at position 0, expected a time after its start; correct the times"),
        ({"end_h": [2, np.inf]}, "end_h has inf at position 1, expected hours after dosing; give the time"),
        ({"start_h": [0, np.inf]}, "start_h has inf at position 1, expected hours after dosing"),
        ({"start_h": [np.nan, 2]}, "start_h has 2 at position 1, expected NaN after the last collection of a profile"),
        (
            {"value": [-1, 2]},
            "value has -1 at position 0, expected 0 or more; write NaN for a collection that was lost",
        ),
        ({"volume": [1, np.inf]}, "volume has inf at position 1, expected 0 or more"),
        ({"volume": [1, 2, 3]}, "volume has shape (3,), expected (1, 2); give one number for each"),
        ({"se": [-1, 1]}, "se has -1 at position 0, expected 0 or more; give standard errors, NaN where unknown"),
        ({"dose": 0}, "dose has 0, expected a number above 0; leave it out if unknown"),
        ({"dose": [1, 2]}, "dose has shape (2,), expected one number or (1,); give one a profile"),
        ({"plasma_auc": -5}, "plasma_auc has -5, expected a number above 0"),
        ({"blq": "half"}, "blq has 'half', expected one of zero, lloq/2"),
        ({"are_total": "lst"}, "did you mean 'last'?"),
        ({"below_lloq": [0, 1], "blq": "lloq/2"}, "lloq has None, expected the limit for the rule 'lloq/2'"),
        ({"unit": "9**9"}, "'9**9' is not a unit"),
    ],
)
def test_refusals(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the sentence is checked below
        excretion(**{"start_h": [0, 2], "end_h": [2, 4], "value": [5, 3], **more})
    assert sentence in str(caught.value)
