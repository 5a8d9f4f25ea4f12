"""Groups compared: numbers by an outside library and by hand, families adjusted together, honest where animals lack."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import evbiodist as ev
from evbiodist.crossval.contrast import adjusted, hedges_g, side, welch
from evbiodist.crossval.groups import COMPARISON_COLUMNS, compare_groups
from evbiodist.study.group_settings import GroupSettings
from evbiodist.study.model import OBSERVATION_COLUMNS

RANDOM = np.random.default_rng(7)


def table(rows):
    common = {**dict.fromkeys(OBSERVATION_COLUMNS), "study": "s", "label": "DiR", "unit": "pct_id", "below_lloq": False}
    frame = pd.DataFrame([common | r for r in rows])
    return frame.astype({"value": float, "time_h": float})


def sacrificed(
    effect=1.0, cv=0.2, times=(1, 4, 24), animals=4, organs=("liver", "brain"), groups=("RVG", "plain"), random=RANDOM
):
    """Animals sacrificed one by one; the first group has `effect` times as much in the brain."""
    rows = []
    for group in groups:
        for t in times:
            for i in range(animals):
                for organ in organs:
                    true = (
                        {"liver": 40, "brain": 1}[organ]
                        * 2.0 ** (-t / 20)
                        * (effect if (group, organ) == (groups[0], "brain") else 1)
                    )
                    rows.append({"subject": f"{group}{t}_{i}", "group": group, "organ": organ, "time_h": t,
                                 "value": true * math.exp(random.normal(0, cv))})  # fmt: skip
    return table(rows)


def compared(frame, **settings):
    return compare_groups(frame, [], [], GroupSettings(**settings))


@pytest.mark.parametrize("seed", range(20))
def test_tests_and_intervals_are_those_of_an_outside_library(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(5, 1, random.integers(2, 9)), random.normal(6, 3, random.integers(2, 9))
    outside = stats.ttest_ind(a, b, equal_var=False)
    ours, p = welch(side(a), side(b))
    assert p == pytest.approx(outside.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(outside.confidence_interval()), rel=1e-9)


def test_hedges_g_by_hand_and_its_interval_by_the_noncentral_t():
    a, b = [5, 6, 7, 8], [1, 2, 3, 4]
    g = hedges_g(a, b)
    d = 4 / math.sqrt(5 / 3)
    correction = math.gamma(3) / (math.sqrt(3) * math.gamma(2.5))  # Hedges 1981, equation 6e, with 6 degrees of freedom
    assert g.value == pytest.approx(d * correction)
    t = d * math.sqrt(2)
    for bound, tail in ((g.low, 0.975), (g.high, 0.025)):
        assert stats.nct.cdf(t, 6, bound / correction * math.sqrt(2)) == pytest.approx(tail, abs=1e-9)


def test_adjusted_p_values_of_published_examples():
    """Benjamini & Hochberg 1995, table 1: at 5 % four findings by their procedure, three by Bonferroni's and Holm's."""
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert (adjusted(p, "bh") <= 0.05).sum() == 4
    assert (adjusted(p, "holm") <= 0.05).sum() == 3
    assert adjusted(p, "none").tolist() == p
    assert adjusted([0.01, 0.02, 0.03, 0.005], "holm").tolist() == pytest.approx([0.03, 0.04, 0.04, 0.02])


def test_a_targeted_vesicle_is_found_where_it_goes_and_nowhere_else():
    found = pd.DataFrame(compared(sacrificed(effect=3.0, cv=0.15, random=np.random.default_rng(1))).rows)
    assert set(found.columns) == set(COMPARISON_COLUMNS)
    areas = found[found["quantity"] == "auc"].set_index("organ")
    brain, liver = areas.loc["brain"], areas.loc["liver"]
    names = (brain["arm_a"], brain["arm_b"])
    assert names == ("RVG", "plain")
    assert brain["ratio_low"] < 3 < brain["ratio_high"]
    assert brain["p_adjusted"] < 0.01
    assert liver["ratio_low"] < 1 < liver["ratio_high"]
    assert set(found["family"]) == {"6 values, holm", "2 areas, holm"}


def test_swapping_the_arms_turns_every_number_around():
    frame = sacrificed(effect=2.0)
    one = compared(frame, compare=[("RVG", "plain")]).rows
    other = compared(frame, compare=[("plain", "RVG")]).rows
    for a, b in zip(one, other, strict=True):
        assert a["ratio"] == pytest.approx(1 / b["ratio"])
        assert a["ratio_low"] == pytest.approx(1 / b["ratio_high"])
        assert a["difference"] == pytest.approx(-b["difference"])
        assert (a["p"], a["n_a"], a["value_a"]) == (pytest.approx(b["p"]), b["n_b"], b["value_b"])
        if not math.isnan(a["hedges_g"]):
            assert a["hedges_g"] == pytest.approx(-b["hedges_g"])


def test_unit_order_of_rows_and_other_organs_change_no_p_value():
    frame = sacrificed(effect=2.0)
    first = {
        (r["organ"], r["quantity"], r["time_h"] if r["quantity"] == "value" else 0): r for r in compared(frame).rows
    }
    scaled = compared(frame.assign(value=frame["value"] * 1000).sample(frac=1, random_state=1)).rows
    fewer = compared(frame[frame["organ"] == "brain"]).rows
    for r in (*scaled, *fewer):
        mine = first[r["organ"], r["quantity"], r["time_h"] if r["quantity"] == "value" else 0]
        assert r["p"] == pytest.approx(mine["p"], rel=1e-9)
        assert r["ratio"] == pytest.approx(mine["ratio"], rel=1e-9)


def test_the_chance_of_any_false_finding_is_the_level_and_intervals_hold_the_truth():
    """100 studies of no difference in 3 organs and times: Holm keeps the family's error, intervals cover 95 %."""
    random = np.random.default_rng(3)
    wrong, covered, count = 0, 0, 0
    for _ in range(100):
        rows = compared(sacrificed(cv=0.3, random=random)).rows
        values = [r for r in rows if r["quantity"] == "value"]
        wrong += min(r["p_adjusted"] for r in values) < 0.05
        areas = [r for r in rows if r["quantity"] == "auc"]
        covered += sum(r["ratio_low"] < 1 < r["ratio_high"] for r in areas)
        count += len(areas)
    assert wrong / 100 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
    assert 0.90 < covered / count < 0.99


def test_followed_animals_are_compared_by_their_own_areas():
    rows = [{"subject": f"{g}{i}", "group": g, "organ": "blood", "time_h": t, "value": (i + 1) * f * 2.0**-t}
            for g, f in (("a", 2.0), ("b", 1.0)) for i in range(3) for t in (0.5, 1, 2, 4)]  # fmt: skip
    found = next(r for r in compared(table(rows)).rows if r["quantity"] == "auc")
    assert found["ratio"] == pytest.approx(2.0)
    assert (found["n_a"], found["n_b"]) == (3, 3)
    assert "areas of animals" in found["method"]
    own = [np.trapezoid([(i + 1) * 2.0**-t for t in (0.5, 1, 2, 4)], [0.5, 1, 2, 4]) for i in range(3)]
    outside = stats.ttest_ind(np.log(np.array(own) * 2), np.log(own), equal_var=False)
    assert found["p"] == pytest.approx(outside.pvalue)


def test_what_cannot_be_compared_has_its_reason():
    one = compared(sacrificed(animals=1)).rows
    assert all(math.isnan(r["p"]) and "one animal" in r["reason"] for r in one)
    zero = sacrificed()
    zero.loc[zero.index[0], "value"] = 0.0
    assert any("no ratio" in r["reason"] and not math.isnan(r["difference"]) for r in compared(zero).rows)
    assert compared(sacrificed(groups=("only",))).rows == []
    odd = compared(sacrificed(), compare=[("RVG", "plian")])
    assert "did you mean 'plain'" in odd.notes[0]
    many = sacrificed(groups=tuple(f"g{i:02}" for i in range(12)), times=(1, 4), animals=2)
    assert "name those to compare" in compared(many).notes[0]
    assert {r["arm_b"] for r in compared(many, reference="g03").rows} == {"g03"}


def test_two_kidneys_of_an_animal_are_one_value():
    frame = sacrificed(organs=("liver",))
    twice = pd.concat([frame, frame.assign(value=frame["value"] * 1.1)])
    assert {r["n_a"] for r in compared(twice).rows if r["quantity"] == "value"} == {4}


def test_sexes_are_compared_within_their_group_and_doses_by_amount():
    frame = sacrificed()
    names = sorted(set(frame["subject"]))
    subjects = [{"subject": s, "label": "DiR", "group": s[:3], "sex": "FM"[i % 2], "dose": (1e9, 2e9)[i % 2], "dose_unit": "particles",
                 "route": "iv_bolus"} for i, s in enumerate(names)]  # fmt: skip
    rows = compare_groups(frame, [], subjects, GroupSettings(by=("sex", "dose", "route"))).rows
    assert {(r["contrast"], r["within"], r["arm_a"], r["arm_b"]) for r in rows} == {
        ("sex", "RVG", "F", "M"), ("sex", "pla", "F", "M"), ("dose", "", "1e+09 particles", "2e+09 particles")}  # fmt: skip


def test_a_run_writes_its_comparisons(two_labels, tmp_path):
    toml = two_labels / "study.toml"
    toml.write_text(toml.read_text() + '\n[groups]\nby = ["group"]\nmultiplicity = "bh"\n')
    result = ev.run(two_labels, tmp_path / "out", report=False)
    written = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert list(written.columns) == list(COMPARISON_COLUMNS)
    assert len(written) == len(result.comparisons) > 0
    assert set(written["arm_a"]) == {"followed"}
    assert result.frame("comparisons")["family"].str.contains("bh").all()
    bad = toml.read_text().replace('"bh"', '"bonferoni"')
    toml.write_text(bad)
    with pytest.raises(ev.InputError, match="multiplicity"):
        ev.load_study(two_labels)
