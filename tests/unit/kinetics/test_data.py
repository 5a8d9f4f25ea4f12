"""Observations as a fit reads them: which rows, whose errors, what is below the limit, and every refusal."""

import numpy as np
import pandas as pd
import pytest

from evbiodist.kinetics.designs.pooling import POOLED
from evbiodist.kinetics.fitting.data import curve_data, prepare
from evbiodist.study.model import OBSERVATION_COLUMNS

TIMES = (0.5, 1.0, 4.0)


def table(*rows, **change):
    """Rows as (organ, time, value, animal), with what else is said about all of them."""
    base = [{"subject": who, "organ": organ, "time_h": t, "value": v, "se": 0.1, "below_lloq": False, "label": "x",
             "group": "g", "study": "s", "unit": "pct_id_per_g" if organ in {"blood", "plasma", "serum"} else "pct_id"}
            for organ, t, v, who in rows]  # fmt: skip
    numbers = dict.fromkeys(("se_systematic", "sd", "n", "mass_g", "lloq", "vessel_blood"), float)
    return pd.DataFrame(base, columns=list(OBSERVATION_COLUMNS)).astype(numbers).assign(**change)


def curve(organ, values=(8.0, 4.0, 1.0), animals=("a",), times=TIMES):
    return [(organ, t, v, f"{who}{t}") for t, v in zip(times, values, strict=True) for who in animals]


def test_blood_comes_first_then_organs_then_other_amounts():
    rows = table(
        *curve("urine"), *curve("spleen"), *curve("blood"), *curve("liver"), *curve("plasma"), *curve("tumor")[:2]
    )
    d = prepare(rows, True, others=["urine"])
    assert d.seen == ("blood", "liver", "spleen", "urine")
    assert d.unit == ("pct_id_per_g", "pct_id", "pct_id", "pct_id")
    np.testing.assert_array_equal(np.bincount(d.which), [3, 3, 3, 3])
    assert prepare(rows, True).seen == ("blood", "liver", "spleen")
    assert prepare(rows, False).seen == ("blood",)


def test_plasma_stands_in_for_blood_and_serum_for_plasma():
    assert prepare(table(*curve("serum"), *curve("plasma", (7, 3, 1))), False).value.tolist() == [7, 3, 1]
    assert prepare(table(*curve("serum", (6, 3, 1))), False).value.tolist() == [6, 3, 1]


def test_values_below_the_limit_are_left_out_or_kept_as_limits():
    rows = table(*curve("blood", (8, 4, 2, 0.3), times=(*TIMES, 9.0)))
    rows.loc[3, ["below_lloq", "lloq"]] = [True, 0.5]
    dropped, kept = prepare(rows, False), prepare(rows, False, blq="m3")
    assert dropped.value.tolist() == [8, 4, 2]
    assert not dropped.censored.any()
    assert kept.value.tolist() == [8, 4, 2, 0.5]
    assert kept.censored.tolist() == [False, False, False, True]
    assert kept.mean.tolist() == [8, 4, 2, 0.25]
    assert kept.curve("blood")[0].tolist() == list(TIMES)
    np.testing.assert_array_equal(kept.cv, dropped.cv)


def test_a_value_below_the_limit_needs_no_number():
    """Tables leave it empty: the limit is all that is known."""
    rows = table(*curve("blood", (8, 4, 2, np.nan), times=(*TIMES, 9.0)))
    rows.loc[3, ["below_lloq", "lloq"]] = [True, 0.5]
    assert prepare(rows, False, blq="m3").value.tolist() == [8, 4, 2, 0.5]


def test_the_spread_between_animals_is_pooled_and_measurement_taken_out():
    rows = table(*[("blood", t, v, who) for t, pair in zip(TIMES, ((9, 7), (4.5, 3.5), (1.2, 0.8)), strict=True)
                   for v, who in zip(pair, "ab", strict=True)], se=0.1)  # fmt: skip
    d = prepare(rows, False)
    spread = 2.0 + 0.5 + 0.08 - 3 * 0.01
    assert d.replicated
    assert d.cv[0] == pytest.approx(np.sqrt(spread / (8**2 + 4**2 + 1)))
    assert d.animal.max() == 1
    np.testing.assert_allclose(d.sigma(d.value) ** 2, (d.cv[0] * d.value) ** 2 + 0.01 + (0.005 * 8) ** 2)
    np.testing.assert_allclose(d.weight_sigma(d.value), d.sigma(d.value))


def test_a_published_mean_brings_its_spread_and_its_number():
    rows = table(*curve("blood"), sd=0.8, n=4.0, subject=POOLED)
    d = prepare(rows, False)
    assert d.count.tolist() == [4, 4, 4]
    assert d.se.tolist() == [0, 0, 0]  # it repeats the spread
    assert d.cv[0] == pytest.approx(np.sqrt(3 * 3 * 0.64 / (3 * (64 + 16 + 1))))
    assert len(set(d.animal)) == 3


def test_nothing_repeated_is_said():
    d = prepare(table(*curve("blood")), False)
    assert not d.replicated
    assert d.cv.tolist() == [0.15]


def test_order_of_rows_does_not_matter():
    rows = table(*curve("blood", animals="abc"), *curve("liver", animals="abc"))
    rows["value"] *= 1 + 0.1 * np.sin(np.arange(len(rows)))
    a, b = prepare(rows, True), prepare(rows.sample(frac=1, random_state=3), True)
    for name in ("which", "animal", "time_h", "value", "se", "cv", "mean", "censored"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize(
    ("rows", "organs", "more", "words"),
    [
        (table(*curve("liver")), False, {}, "no blood, plasma or serum was measured"),
        (table(*curve("blood")[:2]), False, {}, "blood was measured at 2 times; three or more are needed"),
        (table(*curve("blood", (0, 0, 0))), False, {}, "blood is nowhere above zero"),
        (table(*curve("blood")).assign(unit=["pct_id_per_g", "au", "au"]), False, {}, r"several units \(au, pct_id_per_g\); use one"),
        (table(*curve("blood")).assign(below_lloq=[False, False, True]), False, {}, "blood was measured at 2 times"),
        (table(*curve("blood"), *curve("blood", times=(5, 6, 7))).assign(below_lloq=[False] * 5 + [True]), False, {"blq": "m3"},
         "a value is below a limit that is not given; fill lloq"),
        (table(*curve("blood")), True, {}, "no organ has an amount in pct_id; give organ masses"),
        (table(*curve("blood"), *curve("liver")[:2]), True, {}, "no organ was measured at three times or more"),
        (table(*curve("blood"), *curve("liver"), *curve("urine")[:2]), True, {"others": ["urine"]},
         "urine was not measured in pct_id at three times or more, and the model sees it"),
        (table(*curve("blood"), *curve("urine")), True, {"others": ["urine"]}, "no organ was measured at three times or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(rows, organs, more, words):
    with pytest.raises(ValueError, match=words):
        prepare(rows, organs, **more)


def test_organ_amounts_need_a_concentration_in_the_same_unit():
    rows = table(*curve("blood"), *curve("liver"))
    rows.loc[rows["organ"] == "blood", "unit"] = "ng/mL"
    with pytest.raises(ValueError, match="blood is in ng/mL; a concentration in pct_id_per_g is needed"):
        prepare(rows, True)


def test_one_curve():
    d = curve_data([1, 2, 4], [8, 4, 1], seen="tissue", unit="kbq/mL", se=0.5, end_h=[2, 4, 8], censored=[0, 0, 1])
    assert (d.seen, d.unit, d.replicated) == (("tissue",), ("kbq/mL",), False)
    assert d.se.tolist() == [0.5] * 3
    assert d.cv.tolist() == [0.0]
    assert d.mean.tolist() == [8, 4, 0.5]
    times, means = d.curve("tissue")
    assert times.tolist() == [1.5, 3.0]
    assert means.tolist() == [8, 4]
    assert curve_data([1], [8]).cv.tolist() == [0.15]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([1, 2], [1]), r"time_h and value have shapes \(2,\) and \(1,\); give one value for each time"),
        (([], []), "give one value for each time"),
        (([[1, 2]], [[1, 2]]), "give one value for each time"),
        (([1, np.nan], [1, 2]), r"time_h has \[1.0, nan\], expected 2 finite numbers; drop samples without one"),
        (([1, 2], [1, np.inf]), "value has"),
        (([1, 2], [1, 2], {"se": [1, np.nan]}), "se has"),
        (([1, 2], [1, 2], {"se": [1, 2, 3]}), r"se has shape \(3,\); give one number, or one for each of the 2 values"),
        (([1, 2], [1, 2], {"se": -1}), "se has .*, expected 0 or more"),
        (([1, 2], [1, 2], {"end_h": [2]}), r"end_h has \[2.0\], expected 2 finite numbers"),
        (([1, 2], [1, 2], {"end_h": [2, 2]}), "every frame needs an end after its start"),
        (([1, 2], [1, 2], {"censored": [True]}), r"censored has shape \(1,\); give one for each of the 2 values"),
    ],
)
def test_curves_that_do_not_fit_together(given, words):
    more = given[2] if len(given) > 2 else {}
    with pytest.raises(ValueError, match=words):
        curve_data(*given[:2], **more)
