"""Rows of agreement.csv and of the rank agreement of organs."""

import math

import numpy as np
import pandas as pd
import pytest

from evbiodist.crossval import compare
from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.agreement_table import AGREEMENT_COLUMNS, ICH_M10_NOTE, RANK_COLUMNS, agreement_rows, rank_rows
from evbiodist.crossval.concordance import icc
from evbiodist.crossval.limits import limits, limits_of_replicated_pairs, ratio_limits
from evbiodist.crossval.lines import passing_bablok
from evbiodist.crossval.replicates import within

TIMES = (0.5, 1.0, 4.0, 24.0)
ORGANS = {"liver": 30.0, "lung": 8.0, "brain": 0.5}


def table(labels=("A", "B"), animals=3, same_animals=False, **more):
    """Return observations of a made-up study: label B reads a fifth more, animals scatter by 15 %."""
    rng = np.random.default_rng(7)
    rows = []
    for i, label in enumerate(labels):
        for organ, height in ORGANS.items():
            for time in TIMES:
                for k in range(animals):
                    subject = f"{'' if same_animals else label}{time}_{k}"
                    value = height * math.exp(-time / 20) * 1.2**i * math.exp(rng.normal(0, 0.15))
                    rows.append({"study": "s", "subject": subject, "group": "g", "label": label, "organ": organ,
                                 "time_h": time, "value": value, "unit": "pct_id", "below_lloq": False} | more)  # fmt: skip
    return pd.DataFrame(rows)


def row(rows, organ):
    (found,) = (r for r in rows if r["organ"] == organ)
    return found


def test_columns_keep_their_old_order_and_flags_come_last():
    old = ("study", "group", "organ", "unit", "label_a", "label_b", "n", "bias", "bias_low", "bias_high", "loa_low", "loa_high",
           "ccc", "ccc_low", "ccc_high", "deming_slope", "deming_slope_low", "deming_slope_high", "deming_intercept", "ratio",
           "ratio_low", "ratio_high", "ratio_n")  # fmt: skip
    assert AGREEMENT_COLUMNS[: len(old)] == old
    assert AGREEMENT_COLUMNS[-2:] == ("flags", "reason")
    assert len(set(AGREEMENT_COLUMNS)) == len(AGREEMENT_COLUMNS)
    assert compare.AGREEMENT_COLUMNS is AGREEMENT_COLUMNS
    assert compare.agreement_rows is agreement_rows
    assert "nothing passes or fails" in ICH_M10_NOTE


def test_every_number_is_that_of_its_own_function():
    data = table()
    rows = agreement_rows(data)
    assert [r["organ"] for r in rows] == ["brain", "liver", "lung", "all"]
    assert all(set(r) == set(AGREEMENT_COLUMNS) for r in rows)
    liver = data[data["organ"] == "liver"]
    cells = [[g["value"].to_numpy() for _, g in liver[liver["label"] == x].groupby("time_h")] for x in "AB"]
    a, b = ([c.mean() for c in label] for label in cells)
    found, plain = row(rows, "liver"), agreement(a, b)
    spread = limits(a, b, within=(within(cells[0]), within(cells[1])))
    for name in (
        "bias",
        "bias_low",
        "loa_low",
        "loa_high",
        "loa_low_low",
        "loa_low_high",
        "loa_high_low",
        "loa_high_high",
    ):
        assert found[name] == pytest.approx(getattr(spread, name))
    for name in ("n", "ccc", "ccc_low", "deming_slope", "deming_intercept_low", "deming_intercept_high"):
        assert found[name] == pytest.approx(getattr(plain, name), nan_ok=True)
    assert found["passing_bablok_slope"] == pytest.approx(passing_bablok(a, b).slope)
    assert found["icc"] == pytest.approx(icc(np.column_stack([a, b]))["icc2"].value)
    logs = [within([np.log(c) for c in label]) for label in cells]
    ratio = ratio_limits(a, b, within=(logs[0], logs[1]))
    assert (found["ratio"], found["ratio_low"]) == pytest.approx((ratio.ratio, ratio.low))
    assert (found["ratio_loa_low"], found["ratio_loa_high"]) == pytest.approx((ratio.loa_low, ratio.loa_high))
    assert found["ratio"] == pytest.approx(1 / 1.2, rel=0.1)
    assert "section 5.2" in found["method"]
    assert "too few pairs" in found["reason"]  # 4 times do not bound a Passing-Bablok line
    assert row(rows, "all")["n"] == 12
    assert row(rows, "all")["reason"] == ""


def test_one_animal_a_time_has_the_limits_of_1986():
    found = row(agreement_rows(table(animals=1)), "all")
    assert found["method"].startswith("limits of 1986")


def test_replicates_widen_the_limits_of_means():
    data = table()
    means = data.groupby(["study", "group", "label", "organ", "time_h", "unit", "below_lloq"], as_index=False)[
        "value"
    ].mean()
    many, few = row(agreement_rows(data), "all"), row(agreement_rows(means), "all")
    assert many["bias"] == pytest.approx(few["bias"])
    assert many["loa_high"] - many["loa_low"] > few["loa_high"] - few["loa_low"]


def test_animals_that_carry_both_labels_are_paired():
    data = table(same_animals=True)
    wide = data.pivot_table(index=["organ", "time_h", "subject"], columns="label", values="value")
    groups = [(g["A"] - g["B"]).to_numpy() for _, g in wide.groupby(level=["organ", "time_h"])]
    found, expected = row(agreement_rows(data), "all"), limits_of_replicated_pairs(groups)
    assert (found["loa_low"], found["loa_high"]) == pytest.approx((expected.loa_low, expected.loa_high))
    assert "section 5.3" in found["method"]
    # one animal without its second label: they are no longer pairs
    broken = data.drop(index=data.index[(data["label"] == "B") & (data["subject"] == "1.0_0")])
    assert "section 5.2" in row(agreement_rows(broken), "all")["method"]


def test_published_means_bring_their_scatter_and_are_never_one_animal():
    data = table()
    keys = ["study", "group", "label", "organ", "time_h", "unit", "below_lloq"]
    published = (
        data.groupby(keys, as_index=False)["value"].agg(value="mean", sd="std", n="size").assign(subject="pooled")
    )
    one, other = row(agreement_rows(data), "all"), row(agreement_rows(published), "all")
    for name in ("bias", "loa_low", "loa_high", "loa_low_low", "icc", "ratio"):
        assert other[name] == pytest.approx(one[name])
    assert other["ratio_loa_high"] == pytest.approx(one["ratio_loa_high"], rel=0.02)
    assert other["method"] == one["method"]


def test_units_and_groups_are_never_mixed_and_times_must_be_common():
    data = table()
    data.loc[data["label"] == "B", "unit"] = "pct_id_per_g"
    assert agreement_rows(data) == []
    data = table()
    data.loc[data["label"] == "B", "time_h"] += 0.25
    found = row(agreement_rows(data), "liver")
    assert (found["n"], found["reason"]) == (0, "the two labels have no time in common")


def test_zeros_and_values_below_the_limit():
    data = table()
    brain = data["organ"] == "brain"
    data.loc[brain & (data["time_h"] == 24) & (data["label"] == "A"), "value"] = 0.0
    data.loc[brain & (data["time_h"] == 4) & (data["label"] == "A"), "below_lloq"] = True
    found = row(agreement_rows(data), "brain")
    assert found["n"] == 3
    assert "ratio" not in found  # two of three pairs are above zero
    assert row(agreement_rows(data), "all")["ratio_n"] == 10


def test_few_pairs_keep_the_bias():
    data = table()
    found = row(agreement_rows(data[data["time_h"] < 2]), "liver")
    assert (found["n"], found["flags"]) == (2, "few")
    assert math.isfinite(found["bias"])
    assert found["reason"].startswith("n = 2 pairs")


def test_organs_are_ranked_by_area_and_at_each_time():
    rows = rank_rows(table(labels=("A", "B", "C")))
    assert [r["time_h"] for r in rows] == ["all", *TIMES]
    assert all(tuple(r) == RANK_COLUMNS or set(r) == set(RANK_COLUMNS) for r in rows)
    area = rows[0]
    assert (area["kendall_w"], area["n_labels"], area["n_organs"]) == (1, 3, 3)
    assert area["p"] == pytest.approx(1 / 36)
    assert area["labels"] == "A;B;C"
    assert area["organs"] == "brain;liver;lung"
    assert area["order"] == "A: liver > lung > brain; B: liver > lung > brain; C: liver > lung > brain"
    assert area["reason"] == "area from 0.5 to 24 h over 4 times"


def test_the_area_is_the_trapezoid():
    """Label A: x has more area though y is higher at each end."""
    rows = []
    for label in "AB":
        for organ, values in {"x": (1, 9, 1), "y": (2, 2, 2)}.items():
            rows += [{"study": "s", "group": "g", "unit": "au", "label": label, "organ": organ, "time_h": t, "value": v,
                      "below_lloq": False} for t, v in zip((0, 1, 2), values, strict=True)]  # fmt: skip
    found = rank_rows(pd.DataFrame(rows))
    assert found[0]["order"] == "A: x > y; B: x > y"
    assert found[1]["order"] == "A: y > x; B: y > x"


def test_an_organ_that_a_label_lacks_is_left_out_by_name():
    data = table()
    gone = (data["organ"] == "brain") & (data["label"] == "B") & (data["time_h"] == 24)
    area, *by_time = rank_rows(data[~gone])
    assert area["organs"] == "liver;lung"
    assert area["reason"].endswith("left out, as a label lacks one of them: brain")
    assert [r["n_organs"] for r in by_time] == [3, 3, 3, 2]
    assert by_time[-1]["reason"] == "left out, as a label lacks it: brain"


def test_no_order_without_common_organs_or_a_second_label():
    data = table()
    assert rank_rows(data[data["label"] == "A"]) == []
    apart = data[(data["label"] == "A") == (data["organ"] == "liver")]
    for found in rank_rows(apart):
        assert math.isnan(found["kendall_w"])
        assert "an order needs 2" in found["reason"]
    once = rank_rows(data[data["time_h"] == 1.0])
    assert "an area needs two" in once[0]["reason"]
    assert once[1]["kendall_w"] == 1


@pytest.mark.parametrize("rows_of", [agreement_rows, rank_rows])
def test_the_order_of_rows_changes_nothing(rows_of):
    data = table(labels=("A", "B", "C"))
    one, other = rows_of(data), rows_of(data.sample(frac=1, random_state=1))
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for name, value in a.items():
            expected = pytest.approx(value, rel=1e-9, nan_ok=True) if isinstance(value, float) else value
            assert b[name] == expected


def test_nothing_in_nothing_out():
    empty = table().iloc[:0]
    assert agreement_rows(empty) == []
    assert rank_rows(empty) == []
