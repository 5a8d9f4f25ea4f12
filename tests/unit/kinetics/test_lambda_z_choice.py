"""Samples that a person chose make the terminal line, say so wherever it is used, and never change anything unseen."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from evbiodist.batch.pipeline import frame_of
from evbiodist.kinetics.analyse import Dosing, nca_parameters, terminal_lines, unused_choices
from evbiodist.study.flags import split
from evbiodist.study.model import KineticsSettings, LambdaZChoice

TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 24.0)
VALUES = (40.0, 31.0, 20.0, 9.0, 4.5, 0.4)
WHY = "the 2 h sample is still distribution"
RESTS_ON_LINE = {"lambda_z", "half_life", "aucinf_obs", "cl", "mrt_inf", "vss", "adj_r2", "lambda_z_n"}


def rows(subject="m1", values=VALUES, times=TIMES, **more):
    base = {"study": "s", "group": "g", "subject": subject, "label": "DiR", "organ": "blood", "unit": "pct_id_per_g",
            "below_lloq": False, "flags": "", "source": "", "se": 0.1}  # fmt: skip
    return [{**base, "time_h": t, "value": v, **more} for t, v in zip(times, values, strict=True)]


def given(table, route="iv_bolus"):
    return {
        key: Dosing(100.0, "ng", route) for key in zip(table["group"], table["subject"], table["label"], strict=True)
    }


def settings(*choices, **more):
    made = [{"label": "DiR", "organ": "blood", "times_h": (4.0, 8.0, 24.0), "why": WHY, **c} for c in choices]
    return KineticsSettings.model_validate({"lambda_z": made, **more})


def analysed(table, chosen, **more):
    return pd.DataFrame(nca_parameters(table, given(table), chosen, **more))


def one(found, name, subject="m1", organ="blood"):
    hit = found[(found["parameter"] == name) & (found["subject"] == subject) & (found["organ"] == organ)]
    assert len(hit) == 1, (name, len(hit))
    return hit.iloc[0]


def slope(times, values=VALUES):
    at = [TIMES.index(t) for t in times]
    return -np.polyfit(np.array(TIMES)[at], np.log(np.array(values)[at]), 1)[0]


def test_the_chosen_samples_make_the_line():
    table = frame_of(rows())
    for times in ((4.0, 8.0, 24.0), (1.0, 2.0, 8.0), (0.5, 1.0, 2.0, 4.0)):
        found = one(analysed(table, settings({"times_h": times})), "lambda_z")
        assert found["value"] == pytest.approx(slope(times), rel=1e-12)
        assert found["method"].endswith(f"; samples at {', '.join(f'{t:g}' for t in times)} h chosen: {WHY}")


def test_what_rests_on_the_line_says_that_it_was_chosen_and_nothing_else_does():
    table = frame_of(rows())
    plain, chosen = analysed(table, settings()), analysed(table, settings({"times_h": (1.0, 2.0, 8.0)}))
    assert not any("points_chosen" in split(f) for f in plain["flags"])
    flagged = {p for p, f in zip(chosen["parameter"], chosen["flags"], strict=True) if "points_chosen" in split(f)}
    assert flagged >= RESTS_ON_LINE
    assert not flagged & {"cmax", "tmax", "auclast", "aumclast"}
    for name in set(plain["parameter"]) - flagged:
        a, b = one(plain, name), one(chosen, name)
        if math.isfinite(a["value"]):
            assert (a["value"], a["se"], a["flags"]) == (b["value"], b["se"], b["flags"]) or math.isnan(a["se"]), name


def test_the_same_samples_by_choice_give_the_same_numbers():
    table = frame_of(rows(se_systematic=0.3))
    (line,) = terminal_lines(table, given(table), settings())
    by_hand = settings({"times_h": tuple(line.time_h[i] for i in line.positions)})
    plain, chosen = (
        analysed(table, s)[["parameter", "value", "se", "ci_low", "ci_high"]] for s in (settings(), by_hand)
    )
    pd.testing.assert_frame_equal(plain, chosen, check_exact=True)


def test_a_shared_error_is_tried_on_the_chosen_samples():
    table = frame_of(rows(se_systematic=0.0))
    shared = frame_of([{**r, "se_systematic": 0.05 * r["value"]} for r in rows()])
    chosen = settings({"times_h": (1.0, 2.0, 8.0)})
    # a factor shared by all samples leaves the slope and its error as they are, and widens the area after the last sample
    assert one(analysed(shared, chosen), "lambda_z")["se"] == pytest.approx(
        one(analysed(table, chosen), "lambda_z")["se"]
    )
    a, b = (one(analysed(t, chosen), "aucinf_obs") for t in (table, shared))
    assert b["se"] == pytest.approx(math.hypot(a["se"], 0.05 * a["value"]), rel=1e-6)


def test_the_most_specific_choice_counts_whatever_the_order():
    table = frame_of([*rows("m1"), *rows("m2"), *rows("m3", group="other")])
    choices = [{"times_h": (4.0, 8.0, 24.0)}, {"group": "g", "times_h": (2.0, 4.0, 8.0)},
               {"subject": "m1", "times_h": (1.0, 2.0, 4.0)}]  # fmt: skip
    for order in (choices, choices[::-1]):
        found = {line.subject: line.positions for line in terminal_lines(table, given(table), settings(*order))}
        assert found == {"m1": (1, 2, 3), "m2": (2, 3, 4), "m3": (3, 4, 5)}


def test_a_choice_for_a_unit_leaves_the_other_unit_alone():
    table = frame_of([*rows(), *rows(unit="au")])
    lines = terminal_lines(table, given(table), settings({"unit": "au", "times_h": (1.0, 2.0, 8.0)}))
    assert {x.unit: x.chosen for x in lines} == {"au": True, "pct_id_per_g": False}
    assert next(x for x in lines if x.chosen).positions == (1, 2, 4)


def test_the_pool_of_animals_sampled_one_by_one_follows_a_choice():
    table = frame_of([{**r, "subject": f"{r['time_h']}-{i}", "value": r["value"] * k, "se": math.nan}
                      for r in rows() for i, k in enumerate((0.9, 1.0, 1.1))])  # fmt: skip
    for subject in ("", "pooled"):
        chosen = settings({"subject": subject, "times_h": (1.0, 2.0, 8.0)})
        found = one(analysed(table, chosen), "lambda_z", "pooled")
        assert found["value"] == pytest.approx(slope((1.0, 2.0, 8.0)), rel=1e-9)
        assert "points_chosen" in split(found["flags"])
        assert unused_choices(table, chosen) == []
    assert "points_chosen" not in split(one(analysed(table, chosen), "auclast_sparse", "pooled")["flags"])


def test_a_mean_over_animals_tells_that_one_of_them_was_chosen():
    table = frame_of([*rows("m1"), *rows("m2")])
    found = analysed(table, settings({"subject": "m2", "times_h": (1.0, 2.0, 8.0)}))
    assert "points_chosen" in split(one(found, "half_life", "pooled")["flags"])
    assert "points_chosen" not in split(one(found, "cmax", "pooled")["flags"])
    assert "points_chosen" not in split(one(found, "half_life", "m1")["flags"])


def test_a_time_without_a_usable_sample_is_a_row_that_names_the_times():
    below = [{**r, "value": math.nan, "below_lloq": True, "lloq": 0.5} if r["time_h"] == 24 else r for r in rows()]
    table = frame_of([*below, *rows("m2")])
    found = analysed(table, settings({"times_h": (4.0, 6.0, 24.0)}))
    words = one(found, "nca")["reason"]
    assert "m1 has no positive value above the limit at 6, 24 h" in words
    assert "(0.5, 1, 2, 4, 8)" in words
    assert "at 6 h" in one(found, "nca", "m2")["reason"]
    found = analysed(table, settings({"subject": "m1", "times_h": (4.0, 8.0, 24.0)}))
    assert set(found[found["subject"] == "m1"]["parameter"]) == {"nca"}
    assert one(found, "lambda_z", "m2")["value"] > 0


def test_an_organ_of_an_animal_whose_blood_is_refused_says_that_blood_is_missing():
    table = frame_of([*rows(), *rows(organ="liver")])
    found = analysed(table, settings({"times_h": (4.0, 6.0, 8.0)}))
    assert one(found, "lambda_z", organ="liver")["value"] > 0
    assert "not analysed" in one(found, "kp_auc", organ="liver")["reason"]


def test_a_time_as_the_sentence_shows_it_is_the_sample():
    times = (1 / 12, 1 / 3, 2 / 3, 100 / 3)
    table = frame_of(rows(values=(40, 30, 20, 1), times=times))
    (line,) = terminal_lines(table, given(table), settings({"times_h": tuple(float(f"{t:g}") for t in times[1:])}))
    assert line.positions == (1, 2, 3)
    (line,) = terminal_lines(table, given(table), settings({"times_h": (0.33, 2 / 3, 100 / 3)}))
    assert "at 0.33 h" in line.lambda_z.reason
    twice = settings({"times_h": (1 / 3, 1 / 3 * (1 + 1e-9), 2 / 3)})
    assert "one sample for two of these times" in terminal_lines(table, given(table), twice)[0].lambda_z.reason


def test_rising_chosen_samples_are_no_line_and_say_who_chose_them():
    table = frame_of(rows(values=(40.0, 31.0, 2.0, 4.0, 8.0, 0.4), se_systematic=0.1))
    found = one(analysed(table, settings({"times_h": (2.0, 4.0, 8.0)})), "lambda_z")
    assert math.isnan(found["value"])
    assert "not negative" in found["reason"]
    assert WHY in found["method"]


def test_a_plot_gets_the_very_numbers_of_the_table():
    table = frame_of([*rows("m1", se_systematic=0.2), *rows("m2"), *rows("m1", organ="liver")])
    for chosen in (settings(), settings({"times_h": (1.0, 2.0, 8.0)}), settings(blq="lloq/2", rules="pknca")):
        found = analysed(table, chosen)
        lines = terminal_lines(table, given(table), chosen)
        assert [(x.organ, x.subject) for x in lines] == [("blood", "m1"), ("blood", "m2"), ("liver", "m1")]
        for x in lines:
            row = one(found, "lambda_z", x.subject, x.organ)
            assert (x.lambda_z.value, x.lambda_z.se, x.lambda_z.method) == (row["value"], row["se"], row["method"])
            assert {*x.positions} | {*x.off} == {*range(len(x.time_h))}
            assert not {*x.positions} & {*x.off}


def test_every_sample_off_the_line_has_its_reason():
    values = (5.0, 40.0, 0.0, 20.0, 9.9, 5.0, 2.5, math.nan)
    table = frame_of(rows(values=values, times=(0.5, 1, 2, 3, 4, 5, 6, 8)))
    table.loc[7, ["below_lloq", "lloq"]] = [True, 1.0]
    (bolus,), (ip,) = (terminal_lines(table, given(table, route), settings()) for route in ("iv_bolus", "ip"))
    assert bolus.off[0] == "it is before cmax"
    assert bolus.off[2] == "its value is not above zero"
    assert bolus.off[7] == "it is below the limit of quantification"
    assert bolus.value[7] == 0
    assert ip.off[1] == "it is cmax itself"
    assert bolus.off.get(1) in (None, "the line fits better without it")
    (chosen,) = terminal_lines(table, given(table), settings({"times_h": (4, 5, 6)}))
    assert chosen.off[0] == chosen.off[3] == "it is not among the chosen samples"
    assert chosen.off[7] == "it is below the limit of quantification"


def test_a_curve_whose_choice_is_refused_keeps_its_samples_to_choose_from():
    table = frame_of(rows())
    (line,) = terminal_lines(table, given(table), settings({"times_h": (4, 6, 8)}))
    assert line.time_h == TIMES
    assert line.positions == ()
    assert line.chosen
    assert line.off[0].startswith("there is no line: kinetics.lambda_z chooses DiR, blood at 4, 6, 8 h")
    (unknown,) = terminal_lines(table, {}, settings())
    assert "the route is not known" in unknown.lambda_z.reason


def test_rows_that_make_no_curve_have_no_line():
    table = frame_of([*rows("m1"), *rows("m1"), *rows("m2")])
    assert [x.subject for x in terminal_lines(table, given(table), settings())] == ["m2"]


def test_a_choice_that_nothing_follows_is_told():
    table = frame_of([*rows("m1"), *rows("m2")])
    (sentence,) = unused_choices(table, settings({"organ": "brain"}))
    assert "DiR, brain at 4, 8, 24 h" in sentence
    assert "DiR in brain has none" in sentence
    (sentence,) = unused_choices(table, settings({"subject": "m3"}))
    assert "has m1 (g), m2 (g)" in sentence
    (sentence,) = unused_choices(table, settings({}, {"subject": "m1"}, {"subject": "m2"}))
    assert "more specific choices hold" in sentence
    assert unused_choices(table, settings({}, {"subject": "m1"})) == []
    assert len(unused_choices(table, settings({"subject": "m1"}), pool=True)) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"times_h": (4, 8)}, "at least 3 different times"),
        ({"times_h": (4, 8, 8)}, "at least 3 different times"),
        ({"times_h": (4, 8, 24, 24)}, "each of them once"),
        ({"times_h": (-1, 8, 24)}, "greater than or equal to 0"),
        ({"times_h": (4, 8, math.inf)}, "finite"),
        ({"times_h": (4, 8, math.nan)}, "times_h"),
        ({"why": "  "}, "whoever reads the number will ask"),
        ({"organ": ""}, "the name of an organ"),
        ({"label": " "}, "at least 1 character"),
        ({"unit": "stones"}, "pct_id"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        settings(wrong)
    with pytest.raises(ValidationError, match="why"):
        LambdaZChoice.model_validate({"label": "DiR", "organ": "blood", "times_h": (1, 2, 4)})


def test_two_choices_for_one_curve_are_refused_and_overlapping_ones_are_ranked():
    for twice in ({}, {"group": "g"}, {"subject": "m1", "unit": "au"}):
        with pytest.raises(ValidationError, match="not both 'DiR, blood"):
            settings(twice, {**twice, "organ": "Blood", "times_h": (1, 2, 4)})
    kept = settings({}, {"group": "g"}, {"group": "h"}, {"subject": "m1"}, {"unit": "au"}, {"organ": "liver"})
    assert len(kept.lambda_z) == 6


def test_a_choice_is_written_as_it_is_read():
    made = settings({"organ": "Kidneys", "times_h": (24, 4, 1 / 12), "why": "two\n lines"})
    (choice,) = made.lambda_z
    assert (choice.organ, choice.times_h, choice.why) == ("kidney", (1 / 12, 4, 24), "two lines")
    assert KineticsSettings.model_validate(json.loads(made.model_dump_json())) == made
