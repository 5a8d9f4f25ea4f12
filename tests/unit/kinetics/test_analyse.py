"""From the observations table to parameter rows: who is pooled, whose dose, which blood; nothing ends a run."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evbiodist.kinetics.analyse import Dosing, model_parameters, nca_parameters
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.study.model import OBSERVATION_COLUMNS, KineticsSettings

TIMES = (0.5, 1.0, 2.0, 4.0, 8.0)
LINEAR = KineticsSettings(method="linear")


def table(rows):
    base = {
        "study": "s",
        "group": "g",
        "label": "x",
        "unit": "pct_id_per_g",
        "below_lloq": False,
        "flags": "",
        "source": "",
    }
    frame = pd.DataFrame([{**base, **r} for r in rows], columns=list(OBSERVATION_COLUMNS))
    numbers = ["time_h", "value", "se", "mass_g", "lloq", "se_systematic", "sd", "n", "vessel_blood"]
    return frame.astype(dict.fromkeys(numbers, float))


def dosing_of(frame, dose=100.0, unit="ng", route="iv_bolus"):
    who = frame[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    return {w: Dosing(dose, unit, route) for w in who}


def found(rows, **where):
    hits = [r for r in rows if all(r[k] == v for k, v in where.items())]
    assert len(hits) == 1, (where, len(hits))
    return hits[0]


def curve(subject, organ="blood", factor=1.0, times=TIMES, **more):
    return [{"subject": subject, "organ": organ, "time_h": t, "value": factor * 10 * math.exp(-0.3 * t), "se": 0.01, **more}
            for t in times]  # fmt: skip


def test_every_animal_has_its_own_dose():
    frame = table([*curve("a", unit="bq"), *curve("b", factor=10, unit="bq")])
    dosing = {("g", "a", "x"): Dosing(100, "bq", "iv_bolus"), ("g", "b", "x"): Dosing(1000, "bq", "iv_bolus")}
    rows = nca_parameters(frame, dosing, LINEAR)
    one, other = (found(rows, subject=s, parameter="cl")["value"] for s in "ab")
    assert one == pytest.approx(other)
    assert found(rows, subject="pooled", parameter="cl")["value"] == pytest.approx(one)


def test_a_pool_of_different_doses_has_no_clearance_and_of_routes_no_analysis():
    frame = table([r for i, t in enumerate(TIMES) for r in curve(f"m{i}", times=[t], unit="bq")])
    dosing = dosing_of(frame) | {("g", "m0", "x"): Dosing(200, "ng", "iv_bolus")}
    assert found(nca_parameters(frame, dosing, LINEAR), parameter="cl")["reason"]
    dosing |= {("g", "m1", "x"): Dosing(100, "ng", "oral")}
    (row,) = nca_parameters(frame, dosing, LINEAR)
    assert "different routes (iv_bolus, oral)" in row["reason"]
    (row,) = nca_parameters(frame, {}, LINEAR)
    assert "the route is not known" in row["reason"]


@pytest.mark.parametrize(("rule", "mean"), [("drop", 11.0), ("zero", 22 / 3), ("pknca", 22 / 3), ("lloq/2", 26 / 3)])
def test_animals_below_the_limit_enter_the_mean_by_the_rule(rule, mean):
    rows = []
    for t in TIMES:
        rows += [{"subject": f"{t}-{i}", "organ": "liver", "time_h": t, "value": v, "lloq": 8.0, "below_lloq": v is None}
                 for i, v in enumerate((10.0, 12.0, None))]  # fmt: skip
    frame = table(rows)
    rows = nca_parameters(frame, dosing_of(frame), LINEAR.model_copy(update={"blq": rule}))
    cmax = found(rows, parameter="cmax")
    assert cmax["value"] == pytest.approx(mean)
    assert "below_lloq" in cmax["flags"]
    assert found(rows, parameter="auclast_sparse")["value"] == pytest.approx(mean * (8 - 0.25))


def test_more_than_half_below_makes_the_time_below():
    rows = curve("a") + [{"subject": s, "organ": "liver", "time_h": t, "value": v, "below_lloq": v is None, "lloq": 1.0}
                         for t, vs in ((1, (5, 6, 7)), (2, (3, 4, 5)), (4, (2, 2, 3)), (8, (None, None, 1.5)))
                         for s, v in zip((f"{t}a", f"{t}b", f"{t}c"), vs, strict=True)]  # fmt: skip
    frame = table(rows)
    assert found(nca_parameters(frame, dosing_of(frame), LINEAR), organ="liver", parameter="tlast")["value"] == 4


def test_one_animal_a_time_has_no_interval():
    frame = table([r for i, t in enumerate(TIMES) for r in curve(f"m{i}", times=[t])])
    rows = nca_parameters(frame, dosing_of(frame), LINEAR)
    for name in ("auclast", "auclast_sparse"):
        r = found(rows, parameter=name)
        assert r["value"] > 0
        assert math.isnan(r["se"])
        assert r["reason"]


def test_a_column_n_of_ones_is_still_every_animal():
    rows = [{"subject": f"{t}-{i}", "organ": "liver", "time_h": t, "value": v, "n": 1} for t in TIMES
            for i, v in enumerate((8.0, 10.0, 15.0))]  # fmt: skip
    frame = table(rows)
    assert found(nca_parameters(frame, dosing_of(frame), LINEAR), parameter="auclast_sparse")["value"] == pytest.approx(
        11 * 7.75
    )


def test_shared_errors_reach_every_area():
    rows = [{"subject": f"{t}-{i}", "organ": "liver", "time_h": t, "value": v, "se_systematic": 0.2 * 11} for t in TIMES
            for i, v in enumerate((10.9, 11.0, 11.1))]  # fmt: skip
    frame = table(rows)
    found_rows = nca_parameters(frame, dosing_of(frame), LINEAR)
    for name in ("auclast", "auclast_sparse"):
        r = found(found_rows, parameter=name)
        assert r["se"] / r["value"] == pytest.approx(0.2, rel=0.05)
    own = table([*curve("a", se_systematic=1.0), *curve("b", se_systematic=1.0)])
    assert found(nca_parameters(own, dosing_of(own), LINEAR), subject="pooled", parameter="auclast")["se"] > 7


def test_a_large_shared_error_does_not_end_the_run():
    rows = [{"subject": f"{t}-{i}", "organ": "brain", "time_h": t, "value": v * 0.1, "se_systematic": 0.25}
            for t, k in zip(TIMES, (5, 4, 3, 2, 1), strict=True) for i, v in enumerate((0.9 * k, k, 1.1 * k))]  # fmt: skip
    frame = table(rows)
    assert found(nca_parameters(frame, dosing_of(frame), LINEAR), parameter="half_life")["value"] > 0


def test_two_views_of_one_animal_are_a_reason_and_poison_nothing():
    frame = table([*curve("a"), *curve("a"), *curve("b")])
    rows = nca_parameters(frame, dosing_of(frame), LINEAR)
    assert "several values at 0.5 h" in found(rows, subject="a")["reason"]
    assert found(rows, subject="b", parameter="auclast")["value"] > 0


def test_an_animal_with_few_samples_does_not_hide_the_others():
    frame = table(
        [*curve("a"), *curve("b", factor=1.2), *curve("c", factor=0.9), *curve("late", times=[1, 2], factor=50)]
    )
    rows = nca_parameters(frame, dosing_of(frame), LINEAR)
    assert found(rows, subject="pooled", parameter="cmax")["method"] == "mean over animals"
    assert found(rows, subject="pooled_rest", parameter="cmax")["value"] > 100


def test_areas_start_where_the_route_says():
    serial = [r for t in TIMES for i in range(3) for r in curve(f"{t}-{i}", times=[t], factor=1 + 0.1 * i)]
    frame = table(serial)
    bolus = found(nca_parameters(frame, dosing_of(frame), LINEAR), parameter="auclast_sparse")
    ip = found(nca_parameters(frame, dosing_of(frame, route="ip"), LINEAR), parameter="auclast_sparse")
    first = frame.loc[frame["time_h"] == 0.5, "value"].mean()
    assert ip["value"] - bolus["value"] == pytest.approx(0.25 * first)
    assert "from the first sample" in bolus["method"]
    assert "from the dose" in ip["method"]


def test_kp_is_per_gram_and_over_one_window():
    rows = [{"subject": f"{t}-{i}", "organ": o, "time_h": t, "value": v * f, "unit": u, "mass_g": m, "below_lloq": blq}
            for t in TIMES for i, f in enumerate((0.9, 1.0, 1.1))
            for o, v, u, m, blq in (("blood", 4.0, "pct_id_per_g", None, t > 4), ("liver", 6.0, "pct_id", 1.5, False),
                                    ("brain", 6.0, "pct_id", None, False))]  # fmt: skip
    frame = table(rows)
    rows = nca_parameters(frame, dosing_of(frame, route="ip"), LINEAR)
    liver = found(rows, organ="liver", parameter="kp_auc")
    assert liver["value"] == pytest.approx(1.0)
    assert "to the last common time" in liver["method"]
    assert "(4 h)" in liver["method"]
    assert "without masses" in found(rows, organ="brain", parameter="kp_auc")["reason"]


def test_what_is_no_organ_is_no_compartment():
    rows = [{"subject": f"{t}-{i}", "organ": o, "time_h": t, "value": v * f, "unit": u} for t in (*TIMES, 24.0)
            for i, f in enumerate((0.9, 1.0, 1.1))
            for o, v, u in (("blood", 40 * math.exp(-0.7 * t), "pct_id_per_g"), ("liver", 50 * (1 - math.exp(-0.7 * t)), "pct_id"),
                            ("urine", 5 * t, "pct_id"), ("body", 90.0, "pct_id"), ("standard", 1.0, "pct_id"))]  # fmt: skip
    frame = table(rows)
    rows, fits = model_parameters(frame, dosing_of(frame), ["plasma_with_organs"], FitSettings())
    assert fits["s", "g", "x", "plasma_with_organs"].data.seen == ("blood", "liver")


def test_names_that_begin_alike_keep_their_organ():
    rows = [{"subject": f"{t}-{i}", "organ": o, "time_h": t, "value": v * f, "unit": u} for t in TIMES
            for i, f in enumerate((0.9, 1.1))
            for o, v, u in (("blood", 40 * math.exp(-0.7 * t), "pct_id_per_g"), ("gut", 5 * (1 - math.exp(-t)), "pct_id"),
                            ("gut_wall", 9 * (1 - math.exp(-t)), "pct_id"))]  # fmt: skip
    frame = table(rows)
    rows, _ = model_parameters(frame, dosing_of(frame), ["plasma_with_organs"], FitSettings())
    assert found(rows, parameter="gut_wall_uptake_pct_id")["organ"] == "gut_wall"
    assert found(rows, parameter="k_in_gut_wall")["organ"] == "gut_wall"
    assert found(rows, parameter="gut_peak_pct_id")["organ"] == "gut"


def test_rows_of_one_animal_are_not_independent():
    """5 animals with 8 samples each and 30 % spread of V and k: intervals must come from the animals, not the rows."""
    rng = np.random.default_rng(3)
    times, inside = (0.1, 0.3, 0.6, 1, 2, 3, 5, 8), []
    for _ in range(60):
        rows = []
        for a in range(5):
            v, k = 2 * np.exp(rng.normal(0, 0.3)), 0.5 * np.exp(rng.normal(0, 0.3))
            rows += [{"subject": f"a{a}", "organ": "blood", "time_h": t, "se": 0.1,
                      "value": 100 / v * np.exp(-k * t) * np.exp(rng.normal(0, 0.03))} for t in times]  # fmt: skip
        e = fit(table(rows), "one_compartment_iv")["v"]
        inside.append(e.ci_low <= 2 <= e.ci_high)
    assert np.mean(inside) >= 0.80


def test_an_organ_has_its_share_of_the_dose_and_its_uptake():
    """Blood falls as 40 exp(-0.7 t), the organ takes 0.5 g/h of it and keeps it: what it holds over blood's area is 0.5."""
    rows = [{"subject": f"{t}-{i}", "organ": o, "time_h": t, "value": v * f, "unit": u, "mass_g": 1.0}
            for t in (0.25, 0.5, 1.0, 2.0, 4.0) for i, f in enumerate((0.9, 1.0, 1.1))
            for o, v, u in (("blood", 40 * math.exp(-0.7 * t), "pct_id_per_g"),
                            ("liver", 0.5 * 40 / 0.7 * (1 - math.exp(-0.7 * t)), "pct_id"))]  # fmt: skip
    frame = table(rows)
    rows = nca_parameters(frame, dosing_of(frame), KineticsSettings())
    highest = 0.5 * 40 / 0.7 * (1 - math.exp(-0.7 * 4))
    peak, last = (found(rows, organ="liver", parameter=p) for p in ("peak_pct_id", "last_pct_id"))
    assert peak["value"] == pytest.approx(highest)
    assert last["value"] == pytest.approx(highest)
    assert peak["n"] == 3
    assert peak["se"] == pytest.approx(highest * 0.1 / math.sqrt(3))
    uptake = found(rows, organ="liver", parameter="uptake_clearance")
    assert uptake["value"] == pytest.approx(0.5, rel=1e-6)
    assert uptake["unit"] == "g/h"
    assert "at 1 h" in uptake["method"]


def test_areas_of_animals_sampled_twice_carry_the_covariance():
    """An animal that is high stays high: its two samples are not independent, and the area's error says so."""
    rng = np.random.default_rng(3)
    rows = []
    for block in ((1.0, 4.0), (2.0, 8.0)):
        for i in range(4):
            whole = np.exp(rng.normal(0, 0.4))
            rows += [{"subject": f"{block}-{i}", "organ": "blood", "time_h": t, "value": 20 * math.exp(-0.2 * t) * whole,
                      "unit": "pct_id_per_g"} for t in block]  # fmt: skip
    frame = table(rows)
    area = found(nca_parameters(frame, dosing_of(frame), LINEAR), organ="blood", parameter="auclast_sparse")
    apart = frame.assign(subject=[f"{s}@{t}" for s, t in zip(frame["subject"], frame["time_h"], strict=True)])
    alone = found(nca_parameters(apart, dosing_of(apart), LINEAR), organ="blood", parameter="auclast_sparse")
    assert area["value"] == pytest.approx(alone["value"])
    assert area["se"] > 1.1 * alone["se"]
    assert "Holder" in area["method"]
    assert "Bailer" in alone["method"]


def test_infusions_and_routes_choose_their_models():
    g = build("one_compartment_iv")
    design = Design([0.25, 0.5, 1.0, 2.0, 4.0], inputs={"dose": Doses(100.0, 0.0, 1.0)})
    y = solve(g, np.array([[3.0, 5.0]]), design).y[0, :, 0]
    rows = [{"subject": f"{t}-{i}", "organ": "blood", "time_h": t, "value": v * f, "unit": "pct_id_per_g"}
            for t, v in zip(design.time_h[0], y, strict=True) for i, f in enumerate((0.97, 1.0, 1.03))]  # fmt: skip
    frame = table(rows)
    models = ["one_compartment_iv", "one_compartment_ip", "one_tissue"]
    infused = {k: replace(v, route="iv_infusion", infusion_h=1.0) for k, v in dosing_of(frame).items()}
    rows, fits = model_parameters(frame, infused, models, FitSettings())
    assert found(rows, model="one_compartment_iv", parameter="cl")["value"] == pytest.approx(3.0, rel=0.02)
    reasons = {r["model"]: r["reason"] for r in rows if r["parameter"] == "fit"}
    assert "describes absorption" in reasons["one_compartment_ip"]
    assert "takes a measured curve as its input" in reasons["one_tissue"]
    assert list(fits) == [("s", "g", "x", "one_compartment_iv")]
    unknown = {k: replace(v, route="iv_infusion") for k, v in dosing_of(frame).items()}
    rows, _ = model_parameters(frame, unknown, models[:1], FitSettings())
    assert "give infusion_h in subjects.csv" in rows[0]["reason"]
    swallowed = {k: replace(v, route="ip") for k, v in dosing_of(frame).items()}
    rows, _ = model_parameters(frame, swallowed, models[:1], FitSettings())
    assert "one_compartment_ip" in rows[0]["reason"]
