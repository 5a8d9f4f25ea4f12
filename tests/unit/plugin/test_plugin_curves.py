"""Curves are the report's means, rows stand at their own label, and what is missing says why."""

import numpy as np
import pytest
from napari.layers import Labels
from napari_evbiodist.converters import organs_to_layer
from napari_evbiodist.curves_model import nearest_scan, organ_curves, residual_layer, units_of, with_observations
from napari_evbiodist.session import Session

import evbiodist as ev
from evbiodist.batch import pipeline
from evbiodist.study.model import OBSERVATION_COLUMNS

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
    assert curve.missing == (("DiR", 24.0, "x: below the limit of quantification (0.2)"),)


def test_units_are_chosen_not_converted():
    rows = [row("liver", 1.0), row("liver", 2.0, unit="p_per_s")]
    assert units_of(rows, "liver") == ("p_per_s", "pct_id")
    assert organ_curves(rows, "liver", "p_per_s").points["mean"].tolist() == [2.0]
    with pytest.raises(ValueError, match="no observations of liver in bq; there are some in p_per_s, pct_id"):
        organ_curves(rows, "liver", "bq")
    with pytest.raises(ValueError, match="no observations of brain; measure a scan that shows it"):
        organ_curves(rows, "brain", "bq")


def test_a_click_on_the_curve_leads_to_the_nearest_scan():
    rows = [
        row("liver", 1.0, 0.5, source="early"),
        row("liver", 1.0, 24.0, source="late"),
        row("brain", 1.0, 6.0, source="b"),
    ]
    assert [nearest_scan(rows, "liver", "DiR", t) for t in (0.0, 2.0, 9.0)] == ["early", "early", "late"]
    assert nearest_scan(rows, "liver", "NanoLuc", 1.0) is None


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
