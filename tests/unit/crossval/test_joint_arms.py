"""Observations sorted into arms: what was given, which units belong together, and the blood in organs' vessels."""

import numpy as np
import pandas as pd
import pytest

from evbiodist.crossval.joint.arms import CONTROL_GROUPS, gather_arms
from evbiodist.crossval.joint.compose import labelled
from evbiodist.crossval.joint.rows import lay_out
from evbiodist.kinetics.models.catalogue import build
from evbiodist.study.constants import physiology
from evbiodist.study.corrections import BLOOD_DENSITY_RATIO

BLANK = {"study": "s", "group": "mice", "se": 0.1, "unit": "pct_id", "mass_g": np.nan, "lloq": np.nan, "below_lloq": False,
         "flags": "", "source": "t", "se_systematic": np.nan, "sd": np.nan, "n": np.nan, "vessel_blood": np.nan}  # fmt: skip


def reading(label, organ, time_h, value, **more):
    subject = more.pop("subject", f"{label}_{time_h:g}")
    unit = more.pop("unit", "pct_id_per_g" if organ == "blood" else "pct_id")
    return (
        BLANK
        | {"label": label, "organ": organ, "time_h": float(time_h), "value": value, "subject": subject, "unit": unit}
        | more
    )


def table(*rows):
    return pd.DataFrame(list(rows))


def curve(label, organ, values=(8.0, 4.0, 2.0), **more):
    return [reading(label, organ, t, v, **more) for t, v in zip((1, 2, 4), values, strict=True)]


def values_of(arm, organ):
    return sorted(arm.data.value[arm.data.which == arm.data.seen.index(organ)])


def test_blood_comes_first_and_organs_are_sorted():
    arms = gather_arms(table(*curve("a", "spleen"), *curve("a", "brain"), *curve("a", "blood")))
    (arm,) = arms.arms
    assert (arm.label, arm.kind, arm.absolute, arm.data.seen) == ("a", "vesicles", True, ("blood", "brain", "spleen"))
    assert (arms.organs, arms.labels, arms.last_h, arms.notes) == (("brain", "spleen"), ("a",), 4.0, ())


@pytest.mark.parametrize("group", sorted(CONTROL_GROUPS))
def test_control_groups_are_arms_of_their_own(group):
    arms = gather_arms(table(*curve("a", "blood"), *curve("a", "blood", group=group, subject="c")))
    kinds = sorted(a.kind for a in arms.arms)
    expected = CONTROL_GROUPS[group]
    assert kinds == (["vesicles"] if expected == "vesicles" else sorted(["vesicles", expected]))
    assert sum(a.data.value.size for a in arms.arms) == 6


def test_declared_controls_go_before_the_known_names():
    rows = table(
        *curve("a", "blood"),
        *curve("a", "blood", group="ghosts", subject="g"),
        *curve("a", "blood", group="vehicle", subject="v"),
    )
    arms = gather_arms(rows, {"ghosts": "background", "vehicle": "free_label"})
    assert {a.kind: a.animals for a in arms.arms} == {
        "background": ("g",),
        "free_label": ("v",),
        "vesicles": ("a_1", "a_2", "a_4"),
    }


def test_the_last_common_time_is_of_labels_on_vesicles_only():
    late = reading("b", "blood", 40, 1.0, group="free_label")
    arms = gather_arms(table(*curve("a", "blood"), *curve("b", "blood"), reading("b", "blood", 30, 1.0), late))
    assert arms.last_h == 4.0


def test_vessel_blood_is_put_back_and_only_its_own_error_taken_out():
    fraction = physiology("mouse", "brain", "regional_blood_fraction")
    relative = fraction.se / fraction.middle
    inside, other = 0.6, 0.05
    rows = table(
        *curve("a", "blood", values=(20.0, 10.0, 5.0), subject="m"),
        reading(
            "a",
            "brain",
            1,
            0.4,
            subject="m",
            vessel_blood=inside,
            se_systematic=float(np.hypot(inside * relative, other)),
        ),
    )
    arms = gather_arms(rows)
    (arm,) = arms.arms
    brain = arm.data.which == arm.data.seen.index("brain")
    assert arm.data.value[brain] == pytest.approx([1.0])
    assert arm.data.systematic[brain] == pytest.approx([other])
    grams, error = arms.vessel_blood["brain"]
    assert grams == pytest.approx(inside / 20.0)
    assert error == pytest.approx(max(relative, 0.1))


def test_perfused_animals_are_an_arm_without_vessels():
    rows = table(*curve("a", "blood", subject="m"), *curve("a", "brain", subject="m", vessel_blood=0.3),
                 *curve("a", "blood", subject="p", group="perfused"), *curve("a", "brain", subject="p", group="perfused"))  # fmt: skip
    arms = gather_arms(rows)
    assert {a.animals: (a.kind, a.vessels) for a in arms.arms} == {
        ("m",): ("vesicles", True),
        ("p",): ("vesicles", False),
    }


def test_concentrations_in_weighed_organs_become_amounts():
    weighed = curve("a", "liver", unit="pct_id_per_g", mass_g=1.5, se=0.2, vessel_blood=0.1)
    arms = gather_arms(table(*curve("a", "blood"), *weighed))
    (arm,) = arms.arms
    assert values_of(arm, "liver") == pytest.approx([1.5 * (v + 0.1) for v in (2.0, 4.0, 8.0)])
    assert arm.data.se[arm.data.which == 1] == pytest.approx([0.3] * 3)
    assert arm.data.unit == ("pct_id_per_g", "pct_id")


def test_an_amount_that_is_given_goes_before_one_from_a_mass():
    both = [*curve("a", "liver", values=(9.0, 9.0, 9.0)), *curve("a", "liver", unit="pct_id_per_g", mass_g=1.5)]
    (arm,) = gather_arms(table(*curve("a", "blood"), *both)).arms
    assert values_of(arm, "liver") == [9.0, 9.0, 9.0]


def test_shares_of_the_recovered_signal_are_left_out_with_a_note():
    arms = gather_arms(table(*curve("a", "blood"), *curve("a", "liver", unit="pct_recovered")))
    assert arms.organs == ()
    assert arms.notes == (
        "a: organs in pct_recovered (shares of the recovered signal have no fixed denominator) were left out",
    )


def test_concentrations_without_masses_are_left_out_with_a_note():
    arms = gather_arms(table(*curve("a", "blood"), *curve("a", "brain"), *curve("a", "liver", unit="pct_id_per_g")))
    assert arms.organs == ("brain",)
    assert arms.notes == ("a: organs in pct_id_per_g (give masses) were left out",)


def test_blood_in_a_unit_of_its_own_is_left_out_with_a_note():
    arms = gather_arms(table(*curve("a", "blood", unit="au"), *curve("a", "liver")))
    assert arms.arms[0].data.seen == ("liver",)
    assert arms.notes == ("a: blood in au was left out where it does not match its organs (pct_id)",)


def test_blood_in_several_units_is_left_out_with_a_note():
    blood = [*curve("a", "blood", unit="au"), *curve("a", "blood", unit="bq", subject="x")]
    arms = gather_arms(table(*blood, *curve("a", "liver", unit="au")))
    assert arms.arms[0].data.seen == ("liver",)
    assert not arms.arms[0].absolute
    assert arms.notes == ("a: blood comes in several units, so it was left out; use one",)


def test_labels_without_blood_and_labels_with_blood_alone_are_arms():
    arms = gather_arms(table(*curve("a", "liver"), *curve("b", "blood")))
    assert [a.data.seen for a in arms.arms] == [("liver",), ("blood",)]
    assert arms.labels == ("a", "b")
    assert all(a.absolute for a in arms.arms)


def test_whole_blood_goes_before_plasma():
    rows = table(*curve("a", "plasma", values=(1.0, 1.0, 1.0), unit="pct_id_per_g"), *curve("a", "blood"))
    (arm,) = gather_arms(rows).arms
    assert values_of(arm, "blood") == [2.0, 4.0, 8.0]


def test_plasma_alone_stands_for_blood():
    (arm,) = gather_arms(table(*curve("a", "plasma", unit="pct_id_per_g"), *curve("a", "liver"))).arms
    assert arm.data.seen == ("blood", "liver")


def test_plasma_that_is_left_out_beside_blood_has_a_note():
    rows = table(*curve("a", "plasma", unit="pct_id_per_g"), *curve("a", "blood"))
    assert any("plasma" in note for note in gather_arms(rows).notes)


def test_excreta_and_standards_are_no_organs():
    arms = gather_arms(table(*curve("a", "blood"), *curve("a", "urine"), *curve("a", "standard"), *curve("a", "liver")))
    assert arms.organs == ("liver",)


def test_values_below_the_limit_and_missing_ones_are_left_out():
    rows = table(*curve("a", "blood"), reading("a", "blood", 8, 0.1, below_lloq=True), reading("a", "blood", 9, np.nan))
    assert gather_arms(rows).arms[0].data.value.size == 3
    assert gather_arms(rows.assign(below_lloq=True)).arms == ()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_values_are_left_out():
    rows = table(*curve("a", "blood"), reading("a", "blood", 8, np.inf))
    assert np.isfinite(gather_arms(rows).arms[0].data.value).all()


def test_readings_in_units_of_their_own_hold_their_vessels_blood_unless_perfused():
    """Nothing was subtracted from them, so the model has to know of the blood that an organ usually holds."""
    rows = table(*curve("a", "blood", unit="au"), *curve("a", "brain", unit="au", mass_g=0.4))
    arms = gather_arms(rows)
    assert arms.arms[0].vessels
    assert not arms.arms[0].absolute
    share = physiology("mouse", "brain", "regional_blood_fraction").middle
    assert arms.vessel_blood["brain"][0] == pytest.approx(share * 0.4 * BLOOD_DENSITY_RATIO)
    washed = gather_arms(rows, perfused={("mice", s, "a"): True for s in rows["subject"]})
    assert not washed.arms[0].vessels
    assert washed.vessel_blood == {}
    assert values_of(washed.arms[0], "brain") == values_of(arms.arms[0], "brain") == [2.0, 4.0, 8.0]


def test_organs_flagged_as_holding_blood_have_vessels():
    rows = table(*curve("a", "blood"), *curve("a", "brain", flags="blood_in_organ", mass_g=0.4))
    arms = gather_arms(rows)
    assert arms.arms[0].vessels
    assert arms.arms[0].absolute
    assert "brain" in arms.vessel_blood
    plain = gather_arms(rows.assign(flags=""))
    assert not plain.arms[0].vessels
    assert plain.vessel_blood == {}


def sets_of(rows):
    arms = gather_arms(rows).arms
    return lay_out(arms, labelled(build("plasma_with_organs", ["brain", "liver"])))


def test_animals_sampled_alike_are_one_mean_each():
    rows = []
    for i, (blood, liver) in enumerate([(8.0, 3.0), (10.0, 5.0), (12.0, 7.0)]):
        rows += [reading("a", "blood", 1, blood, subject=f"m{i}"), reading("a", "liver", 1, liver, subject=f"m{i}")]
    laid = sets_of(table(*rows))
    assert laid.value.tolist() == [10.0, 5.0]
    assert laid.members.tolist() == [3.0, 3.0]
    assert laid.animals == (("m0", "m1", "m2"),)
    assert laid.away[0].tolist() == [[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]]
    assert laid.alike == 0.9  # all share one error, up to what is believed of animals at most


def test_an_animal_that_lacks_an_organ_is_a_set_of_its_own():
    rows = [
        reading("a", "blood", 1, 8.0, subject="m0"),
        reading("a", "liver", 1, 3.0, subject="m0"),
        reading("a", "blood", 1, 9.0, subject="m1"),
    ]
    laid = sets_of(table(*rows))
    assert (laid.size, laid.readings, len(laid.away), laid.pure) == (3, 3, 2, (0.0, 0))


def test_an_animal_followed_in_vivo_is_one_animal_over_all_times():
    followed = [
        r for m in "xy" for r in curve("a", "liver", values=(3.0, 5.0, 4.0) if m == "x" else (6.0, 8.0, 9.0), subject=m)
    ]
    laid = sets_of(table(*followed))
    assert laid.animals == (("x", "y"),)
    assert laid.time_h.tolist() == [1.0, 2.0, 4.0]
    assert laid.alike > 0.5  # one reads high all along


def test_published_means_have_the_error_of_a_mean_and_no_shared_animal():
    rows = curve("a", "liver", values=(10.0, 10.0, 10.0), subject="pooled", sd=2.0, n=4.0, se=1.0)
    laid = sets_of(table(*rows))
    assert laid.size == 3
    assert laid.members.tolist() == [1.0] * 3
    assert laid.alike == 0.0
    assert np.sqrt(laid.sigma**2 - laid.floor**2) == pytest.approx([2.0 / np.sqrt(4)] * 3)
    assert laid.animals == (("pooled at 1 h",), ("pooled at 2 h",), ("pooled at 4 h",))
