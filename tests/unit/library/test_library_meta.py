"""Pooling over studies: who enters, who does not and why, and numbers that the field's own formulas give."""

import math

import numpy as np
import pytest
from made_studies import animals, row, study
from scipy import stats

from evbiodist.crossval.studies import over_studies
from evbiodist.library.meta import COLUMNS, Asked, OneValue, meta, pool
from evbiodist.library.query import Filters
from evbiodist.library.store import add, contents
from evbiodist.study.estimate import Estimate


def parts_of(tmp_path, *studies):
    for one in studies:
        add(tmp_path, one)
    return contents(tmp_path).current


def rows_of(found, what):
    return [r for r in found.rows if r["what"] == what]


def one_row(found):
    (only,) = rows_of(found, "estimate") + rows_of(found, "left_out")
    return only


LIVER = Asked("liver", 24.0)


def test_animals_are_averaged_with_the_error_between_them(tmp_path):
    found = one_row(meta(parts_of(tmp_path, study("a", animals([8.0, 10.0, 15.0], se=0.1))), LIVER))
    assert (found["what"], found["value"], found["n_animals"]) == ("estimate", 11.0, 3)
    assert found["se"] == pytest.approx(stats.sem([8, 10, 15]))
    half = stats.t(2).ppf(0.975) * found["se"] / 11
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((11 * math.exp(-half), 11 * math.exp(half)))


def test_readings_of_one_animal_count_once(tmp_path):
    rows = [
        row(value=v, subject=s, source=f"scan {i}") for i, (s, v) in enumerate([("1", 8.0), ("1", 12.0), ("2", 20.0)])
    ]
    found = one_row(meta(parts_of(tmp_path, study("a", rows)), LIVER))
    assert (found["value"], found["n_animals"], found["se"]) == (15.0, 2, pytest.approx(stats.sem([10, 20])))


def test_a_published_mean_keeps_its_error_and_the_systematic_one_is_added(tmp_path):
    found = one_row(
        meta(parts_of(tmp_path, study("a", [row(subject="pooled", value=5.0, se=0.3, n=4, se_systematic=0.4)])), LIVER)
    )
    assert (found["value"], found["se"], found["n_animals"], found["method"]) == (
        5.0,
        pytest.approx(0.5),
        4,
        "mean as published",
    )


@pytest.mark.parametrize(("rows", "asked", "reason"), [
    (animals([1.0, 2.0], organ="lung"), LIVER, "no value of liver"),
    (animals([1.0, 2.0], unit="pct_id"), LIVER, "its values are in pct_id, and no mass of the organ leads to pct_id_per_g"),
    (animals([1.0, 2.0], unit="p_per_s", mass_g=1.0), LIVER, "its values are in p_per_s, and no mass"),
    (animals([1.0, 2.0], time_h=2.0), LIVER, "sampled at 2 h at the nearest, which is beyond 25% of 24 h"),
    ([row(value=1.0), row(value=None, below_lloq=True, subject="2")], LIVER, "1 of 2 values are below the limit of quantification"),
    ([row(value=1.0, se=0.01)], LIVER, "one animal, whose error says nothing of others; not pooled: no standard error"),
    ([row(value=1.0, subject="pooled")], LIVER, "the source gives no error of its mean; not pooled: no standard error"),
    (animals([-1.0, -2.0]), LIVER, "not pooled: not above zero, so it has no logarithm"),
    ([row(value=1.0, n=3, se=0.1), row(value=2.0, n=3, se=0.1, subject="2")], LIVER, "several means at this time in one group"),
    (animals([1.0, 2.0]), Asked("liver", 24.0, model="two_compartment_iv"), "no curve of two_compartment_iv in pct_id_per_g"),
])  # fmt: skip
def test_who_stays_out_is_told_why(tmp_path, rows, asked, reason):
    found = meta(parts_of(tmp_path, study("a", rows)), asked)
    assert one_row(found)["what"] == "left_out"
    assert reason in one_row(found)["reason"]
    (pooled,) = rows_of(found, "pooled")
    assert (pooled["n_studies"], pooled["reason"]) == (0, "no study entered")


def test_simulated_studies_and_controls_stay_out(tmp_path):
    parts = parts_of(tmp_path, study("simulated", animals([1.0, 2.0]), simulated=True),
                     study("control", animals([3.0, 4.0]), of_group={"all": "dye_only"}))  # fmt: skip
    found = meta(parts, LIVER)
    assert [r["reason"] for r in rows_of(found, "left_out")] == [
        "a control (dye_only), no labelled vesicles",
        "simulated",
    ]
    assert [r["study"] for r in rows_of(meta(parts, LIVER, with_simulated=True), "estimate")] == ["simulated"]


def test_the_nearest_sample_within_the_window_is_taken_and_told(tmp_path):
    rows = [*animals([1.0, 2.0], time_h=20.0), *animals([3.0, 4.0], time_h=26.0), *animals([9.0, 9.5], time_h=48.0)]
    parts = parts_of(tmp_path, study("a", rows))
    assert (one_row(meta(parts, LIVER))["at_h"], one_row(meta(parts, LIVER))["value"]) == (26.0, 3.5)
    assert one_row(meta(parts, Asked("liver", 24.0, window=0.05)))["what"] == "left_out"
    assert one_row(meta(parts, Asked("liver", 30.0, window=0.2)))["at_h"] == 26.0


def test_the_organ_s_mass_leads_from_one_unit_to_the_other(tmp_path):
    rows = [row(value=10.0 * m, subject=str(m), unit="pct_id", mass_g=float(m)) for m in (1, 2, 3)]
    rows = [r | {"value": r["value"] * (1 + 0.1 * i)} for i, r in enumerate(rows)]
    found = one_row(meta(parts_of(tmp_path, study("a", rows)), LIVER))
    assert (found["value"], found["method"]) == (pytest.approx(11.0), "mean of animals, by the organ's mass")
    assert found["se"] == pytest.approx(stats.sem([10, 11, 12]))


def test_measured_values_go_before_converted_ones(tmp_path):
    rows = [*animals([5.0, 6.0]), *animals([50.0, 60.0], unit="pct_id", mass_g=2.0)]
    assert one_row(meta(parts_of(tmp_path, study("a", rows)), LIVER))["value"] == 5.5


def test_a_curve_is_read_at_the_very_time(tmp_path):
    from dataclasses import replace

    points = tuple({"study": "a", "group": "all", "label": "DiR", "organ": "liver", "model": "m", "time_h": t, "value": 10.0 - t / 4,
                    "low": 9.0 - t / 4, "high": 11.0 - t / 4, "unit": "pct_id_per_g"} for t in (0.0, 10.0, 20.0, 30.0))  # fmt: skip
    parts = parts_of(tmp_path, replace(study("a", animals([1.0, 2.0], time_h=28.0)), curves=points))
    found = one_row(meta(parts, Asked("liver", 24.0, model="m")))
    assert (found["value"], found["at_h"], found["method"]) == (pytest.approx(4.0), 24.0, "curve of m")
    assert found["se"] == pytest.approx(1 / stats.norm.ppf(0.975))
    late = one_row(meta(parts, Asked("liver", 29.0, model="m")))
    assert late["reason"] == "its last sample is at 28 h, and curves are not taken beyond"


def values(*rows, label="DiR"):
    return [OneValue(s, label, "all", Estimate("liver", v, se, n=n), 24.0, stratum) for s, v, se, n, stratum in rows]


FOUR = values(("a", 10.0, 1.0, 4, "x"), ("b", 14.0, 2.0, 5, "x"), ("c", 30.0, 3.0, 6, "y"), ("d", 22.0, 2.0, 3, "y"))


def test_pooled_is_what_over_studies_gives_and_strata_are_pooled_apart():
    found = pool(FOUR, Asked("liver", 24.0, by="label"))
    whole = over_studies({v.key: v.estimate for v in FOUR}, scale="log")
    last = found.rows[-1]
    assert (last["stratum"], last["value"], last["ci_low"], last["prediction_high"]) == (
        "all", whole.estimate, whole.ci_low, whole.prediction_high)  # fmt: skip
    assert (last["n_studies"], last["n_estimates"], last["n_animals"]) == (4, 4, 18)
    assert last["tau"] == pytest.approx(math.sqrt(whole.var_study))
    x = over_studies({v.key: v.estimate for v in FOUR[:2]}, scale="log")
    assert [r["stratum"] for r in rows_of(found, "pooled")] == ["x", "y", "all"]
    assert rows_of(found, "pooled")[0]["value"] == x.estimate
    y = over_studies({v.key: v.estimate for v in FOUR[2:]}, scale="log")
    z = (math.log(x.estimate / y.estimate)) ** 2 / ((x.se / x.estimate) ** 2 + (y.se / y.estimate) ** 2)
    assert rows_of(found, "difference")[0]["q_p"] == pytest.approx(stats.chi2(1).sf(z))


def test_each_row_says_the_pooled_value_without_its_study():
    found = pool(FOUR, LIVER)
    for i, r in enumerate(rows_of(found, "estimate")):
        others = [v for j, v in enumerate(FOUR) if j != i]
        assert r["without"] == over_studies({v.key: v.estimate for v in others}, scale="log").estimate


def test_labels_of_one_study_are_not_so_many_studies():
    same = [*values(("a", 10.0, 0.5, 4, "")), *values(("a", 11.0, 0.5, 4, ""), label="NanoLuc"),
            *values(("b", 20.0, 1.0, 4, "")), *values(("b", 22.0, 1.0, 4, ""), label="NanoLuc")]  # fmt: skip
    last = pool(same, LIVER).rows[-1]
    assert (last["n_studies"], last["n_estimates"]) == (2, 4)
    assert last["method"].startswith("three-level random effects")
    assert last["tau_study"] > last["tau_label"]


def test_shared_errors_are_the_pooled_coefficient_of_variation():
    given = [*values(("a", 10.0, 1.0, 4, ""), ("b", 20.0, 1.0, 9, "")),
             OneValue("c", "DiR", "all", Estimate("liver", 8.0, n=4, reason="no error of the mean"), 24.0)]  # fmt: skip
    found = rows_of(pool(given, Asked("liver", 24.0, errors="shared")), "estimate")
    cv = math.sqrt((3 * (0.1 * 2) ** 2 + 8 * (0.05 * 3) ** 2) / 11)
    assert [r["se"] for r in found] == pytest.approx([10 * cv / 2, 20 * cv / 3, 8 * cv / 2])
    assert len(rows_of(pool(given, LIVER), "left_out")) == 1


def test_what_differs_and_is_not_modelled_is_told(tmp_path):
    parts = parts_of(tmp_path, study("a", animals([1.0, 2.0], flags="blood_subtracted"), vesicles={"carrier": "vesicles"}),
                     study("b", animals([1.5, 2.1]), vesicles={"carrier": "liposomes"}))  # fmt: skip
    notes = meta(parts, LIVER).notes
    assert "not all of what was injected is known to be vesicles (liposomes: b; vesicles: a)" in notes
    assert "vessel blood is part of the values of b and not of the others" in notes
    assert meta(parts, LIVER, Filters(carrier=("vesicles",))).notes == ()
    many = parts_of(tmp_path, *(study(f"s{i}", animals([5.0 + i, 6.0 + i])) for i in range(5)))
    assert any("rest on fewer than six animals" in note for note in meta(many, LIVER).notes)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"unit": "bq"}, "unit: found 'bq', expected pct_id or pct_id_per_g"),
    ({"by": "colour"}, "by: found 'colour', expected one of label"),
    ({"window": 2.0}, "window: found 2.0"), ({"time_h": math.nan}, "time: found nan"), ({"errors": "none"}, "errors: found 'none'"),
])  # fmt: skip
def test_what_cannot_be_asked_is_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        Asked(**({"organ": "liver", "time_h": 24.0} | wrong))


def test_rows_have_the_columns_and_nothing_else():
    for r in pool(FOUR, Asked("liver", 24.0, by="route")).rows:
        assert set(r) <= set(COLUMNS)


def test_pooling_recovers_random_truths(tmp_path):
    """Studies of 4 to 8 animals about a true mean: intervals by shared errors hold it in about 95 % of 120 libraries."""
    dice = np.random.default_rng(20)
    held = logs = 0
    for _ in range(120):
        seen = []
        for i in range(6):
            true, n = math.exp(dice.normal(2.0, 0.3)), int(dice.integers(4, 9))
            x = true * dice.lognormal(-0.03, math.sqrt(0.06), n)
            seen += values((str(i), float(x.mean()), float(stats.sem(x)), n, ""))
        last = pool([*seen], Asked("liver", 24.0, errors="shared")).rows[-1]
        held += last["ci_low"] <= math.exp(2.0) <= last["ci_high"]
        logs += math.log(last["value"]) - 2.0
    assert 0.91 <= held / 120 <= 0.99
    assert abs(logs / 120) < 0.03
