"""Curves are the report's means, rows stand at their own label, and what is missing says why."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Labels
from napari_evbiodist.converters import organs_to_layer
from napari_evbiodist.curves_model import (
    CURVE_TABLE,
    Observed,
    frame_hours,
    gaps,
    observe,
    on_organs,
    organ_curves,
    point_words,
    residual_layer,
    residual_of,
    scan_behind,
    units_of,
    with_observations,
)
from napari_evbiodist.session import Session

import evbiodist as ev
from evbiodist.batch import pipeline, scans, store
from evbiodist.io.timing import FrameTiming
from evbiodist.study.model import OBSERVATION_COLUMNS, ScanRecord

TRAY = "NanoLuc_0.5h_1"


def row(organ, value, time_h=1.0, **more):
    base = dict.fromkeys(OBSERVATION_COLUMNS) | {"study": "s", "subject": "a", "group": "all", "label": "DiR", "unit": "pct_id",
                                                 "flags": "", "source": "x", "below_lloq": False, "se": 0.1}  # fmt: skip
    return base | {"organ": organ, "value": value, "time_h": time_h, **more}


def test_a_curve_has_every_label_with_t_intervals():
    rows = [row("liver", v, t, label=label, subject=s) for label, k in (("DiR", 1.0), ("NanoLuc", 2.0))
            for t in (1.0, 4.0) for s, v in (("a", k * t), ("b", k * t + 1), ("c", k * t + 2))]  # fmt: skip
    curve = organ_curves(
        [*rows, row("liver", None, 24.0, below_lloq=True, lloq=0.2), row("brain", 9.0)], "liver", "pct_id"
    )
    points = curve.points.set_index(["label", "time_h"])
    assert len(points) == 4
    # three values 1 apart: mean the middle one, half width t(0.975, 2) / sqrt(3) = 4.302653 / 1.732051
    assert points.loc[("NanoLuc", 4.0), "mean"] == pytest.approx(9.0)
    assert points.loc[("NanoLuc", 4.0), "high"] - 9.0 == pytest.approx(2.484138, abs=1e-6)
    assert curve.missing == (("all", "DiR", 24.0, "x: below the limit of quantification (0.2)"),)
    # the table holds the points, then what is missing, each with every column
    table = curve.table("all")
    assert [(r["label"], r["time_h"], r["n"]) for r in table] == [("DiR", 1.0, 3), ("DiR", 4.0, 3), ("NanoLuc", 1.0, 3),
                                                                  ("NanoLuc", 4.0, 3), ("DiR", 24.0, 0)]  # fmt: skip
    assert all(set(r) == set(CURVE_TABLE) for r in table)
    assert curve.table("another") == []


def test_units_are_chosen_not_converted():
    rows = [row("liver", 1.0), row("liver", 2.0, unit="p_per_s")]
    assert units_of(rows, "liver") == ("p_per_s", "pct_id")
    assert organ_curves(rows, "liver", "p_per_s").points["mean"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no observations of liver in bq; there are some in p_per_s, pct_id"):
        organ_curves(rows, "liver", "bq")
    with pytest.raises(ValueError, match="no observations of brain; measure a scan that shows it"):
        organ_curves(rows, "brain", "bq")


def test_a_point_tells_what_is_behind_it_and_what_its_flags_mean():
    rows = [
        row("liver", 2.0, subject="a", source="scan_1", flags="negative;saturated"),
        row("liver", 4.0, subject="b", source="scan_2"),
    ]
    [point] = organ_curves([*rows, row("liver", 7.0, 24.0, source="table")], "liver", "pct_id").table("all")[:1]
    assert (point["sources"], point["flags"]) == ("scan_1;scan_2", "negative;saturated")
    words = point_words(point).splitlines()
    # mean 3, half width t(0.975, 1) / sqrt(2) * sd sqrt(2) = 12.7062
    assert words[0] == "DiR, 1 h: 3 (-9.71 to 15.7) % of dose"
    assert words[1:3] == ["95 % interval; mean of 2 values", "scan_1, scan_2"]
    assert [w.split(":")[0] for w in words[3:]] == ["negative", "saturated"]
    assert "image again with a shorter exposure" in words[4]
    assert scan_behind(point["sources"], ["scan_2"]) == "scan_2"


def test_scans_without_a_value_are_told_with_the_reason(few_scans):
    study = Session.open(few_scans).study
    here = [row("liver", 1.0, source=TRAY, group="ex_vivo", label="NanoLuc"),
            row("brain", 1.0, source="NanoLuc_followed_0.5h"),
            row("liver", 1.0, source="NanoLuc_followed_0.5h", unit="p_per_s")]  # fmt: skip
    assert gaps(study, here, {}, "liver", "pct_id") == []  # no living animal shows the liver in % of dose
    here += [row("liver", 1.0, source="NanoLuc_followed_2h")]
    failed = {TRAY: "truncated", "unknown": "not in the study"}
    found = gaps(study, here, failed, "liver", "pct_id")
    assert found == [("ex_vivo", "NanoLuc", 0.5, f"{TRAY}: truncated"),
                     ("in_vivo", "NanoLuc", 0.5, "NanoLuc_followed_0.5h: gives liver in photons/s only")]  # fmt: skip
    [gap] = gaps(study, here, {}, "brain", "pct_id")
    assert gap.reason == "NanoLuc_followed_2h: its organs hold no brain"


def test_what_is_observed_is_the_sessions_own_and_a_result_folders_own(few_scans, tmp_path):
    session = Session.open(few_scans)
    expected = session.observations()
    found = observe(session.study, *session.scanned(), 0.9)
    assert found.rows == expected.rows
    assert "liver" in found.organs
    assert found.curves["liver", "pct_id"].level == 0.9
    assert found.curves["liver", "pct_id"].points.equals(organ_curves(expected.rows, "liver", "pct_id", 0.9).points)
    result = pipeline.run_study(session.study, tmp_path / "out", quantify_only=True)
    (tmp_path / "out" / "failures.csv").write_text(
        "what,name,subject,label,file,reason\nscan,NanoLuc_followed_2h,a,b,c,truncated\n"
    )
    again = observe(session.study, [], {}, 0.95, tmp_path / "out")
    assert store.csv_bytes(again.rows, OBSERVATION_COLUMNS) == store.csv_bytes(result.observations, OBSERVATION_COLUMNS)
    assert again.failures == {"NanoLuc_followed_2h": "truncated"}


def test_frames_have_the_hours_that_their_observations_have():
    record = ScanRecord(scan="s", subject="a", label="DiR", time_h=4.0, kind="in_vivo", file="s.tif")
    frames = np.ones((3, 4, 4))
    for reference, hours in (("scan_start", (4.25, 4.75, 5.5)), ("injection", (0.25, 0.75, 1.5))):
        timing = FrameTiming((0, 1800, 3600), (1800, 1800, 3600), reference)
        scan = ev.Scan("s", None, frames, "TYX", timing=timing)
        assert frame_hours(scan, record) == pytest.approx(hours)
        task = SimpleNamespace(record=record, decay=False, label=SimpleNamespace(half_life_h=None))
        assert [when.time_h for when in scans._times(scan, task)] == list(frame_hours(scan, record))
    assert frame_hours(ev.Scan("s", None, frames, "TYX"), record) == ()
    assert frame_hours(ev.Scan("s", None, frames[0], "YX"), record) == (4.0,)


def test_animals_side_by_side_get_their_own_values():
    record = ScanRecord(scan="s", subject="a;b", label="DiR", time_h=4.0, kind="in_vivo", file="s.tif")
    organs = ev.OrganMap(np.array([[1, 2]]), {1: "animal_1", 2: "animal_2"}, "drawn")
    layer = organs_to_layer(organs, ev.Scan("t", None, np.ones((1, 2)), "YX"))
    rows = [row("whole_body", v, 4.0, subject=s, source="s") for s, v in (("b", 2.0), ("a", 1.0))]
    rows += [
        row("whole_body", 9.0, 4.0, source="other"),
        row("whole_body", 5.0, 4.0, subject="a", source="s", unit="p_per_s"),
    ]
    points = organ_curves(rows, "whole_body", "pct_id")
    observed = Observed(rows, {("whole_body", "pct_id"): points}, {})
    _, keywords, _ = on_organs(layer, observed, record, 4.0, "pct_id")
    assert dict(zip(keywords["features"]["organ"], keywords["features"]["value"], strict=True)) == {
        "animal_1": 1.0,
        "animal_2": 2.0,
    }
    # the rows that a writer saves are those of observations.csv
    assert {r["organ"] for r in keywords["metadata"]["evbiodist"]["observations"]} == {"whole_body"}
    _, keywords, _ = on_organs(layer, Observed([], {}, {"s": "truncated"}), record, 4.0, "pct_id")
    assert set(keywords["features"]["reason"]) == {"truncated"}
    _, keywords, _ = on_organs(layer, Observed([], {}, {}), record, 4.0, "pct_id")
    assert set(keywords["features"]["reason"]) == {"not measured yet"}


def test_rows_stand_at_their_own_label_and_gaps_have_a_reason():
    organs = ev.OrganMap(np.array([[7, 2, 9], [4, 4, 0]]), {2: "kidney", 4: "kidney", 7: "brain", 9: "liver"}, "drawn")
    layer = organs_to_layer(organs, ev.Scan("t", None, np.ones((2, 3)), "YX"))
    rows = [row("brain", 0.5), row("kidney", 3.0), row("spleen", 8.0)]
    data, keywords, _ = with_observations(layer, rows)
    table = Labels(data, **keywords).features.set_index("index")
    assert table["value"].to_dict() == {2: 3.0, 4: 3.0, 7: 0.5, 9: pytest.approx(np.nan, nan_ok=True)}
    assert table["reason"].to_dict() == {2: "", 4: "", 7: "", 9: "this scan gave no value of it"}
    _, keywords, _ = with_observations(layer, [], failure="truncated: copy it again")
    assert set(keywords["features"]["reason"]) == {"truncated: copy it again"}
    with pytest.raises(ValueError, match="brain has several values here"):
        with_observations(layer, [row("brain", 1.0), row("brain", 2.0, 4.0)])


def test_the_residual_is_the_estimators_in_its_place(few_scans):
    session = Session.open(few_scans)
    scan, organs = session.scan(TRAY), session.organs(TRAY)
    data, keywords, _ = residual_layer(pipeline.task_of(session.study, [session.record(TRAY)]), scan, organs)
    settings = session.study.settings.imaging
    assert settings.footprint == "psf"
    assert np.array_equal(data, ev.quantify(scan, organs, settings).fit.residual, equal_nan=True)
    assert (keywords["scale"], keywords["units"]) == ((0.5, 0.5), ("mm", "mm"))
    low, high = keywords["contrast_limits"]
    assert low == -high < 0


def test_the_residual_of_another_process_is_the_same_and_refused_where_there_is_none(few_scans):
    session = Session.open(few_scans)
    task = pipeline.task_of(session.study, [session.record(TRAY)])
    data, keywords, _ = residual_of(task, 0)
    assert np.array_equal(data, residual_layer(task, session.scan(TRAY), session.organs(TRAY))[0], equal_nan=True)
    assert "scan" not in keywords["metadata"]["evbiodist"]
    session.change_settings(imaging={"footprint": "optical"})
    record = session.record("NanoLuc_followed_2h")
    with pytest.raises(ValueError, match="inferred from all scans of its animal together"):
        residual_of(pipeline.task_of(session.study, [record]), 0)


def test_the_residual_of_a_moving_series_is_the_batchs(few_scans):
    session = Session.open(few_scans)
    session.change_settings(imaging={"register_by": "intensity"})
    scan, organs = session.scan("NanoLuc_followed_2h"), session.organs("NanoLuc_followed_2h")
    moved = np.stack([scan.counts, np.roll(scan.counts, 3, axis=1)])
    series = replace(scan, counts=moved, axes="TYX")
    task = pipeline.task_of(session.study, [session.record("NanoLuc_followed_2h")])
    settings = task.settings.model_copy(update={"footprint": "psf", "standard": None})
    _, last, _ = scans._series(series, organs, settings)
    left = residual_layer(task, series, organs, 1)[0]
    assert np.array_equal(left, last, equal_nan=True)
    unmoved = residual_layer(replace(task, settings=session.study.settings.imaging.model_copy(update={"register_by": "none"})), series,
                             organs, 1)[0]  # fmt: skip
    assert np.nanstd(left) < 0.5 * np.nanstd(unmoved)
