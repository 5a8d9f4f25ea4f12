"""The curves panel in a real viewer: curves, intervals, residuals and values are the batch's, and points lead to scans and frames."""

import csv
import gc
import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.curves_panel import CurvesPanel
from napari_evbiodist.panels.plot import Plot, Series
from qtpy.QtCore import QPointF, Qt
from skimage.io import imread

import evbiodist as ev
from evbiodist.batch import store
from evbiodist.batch.pipeline import frame_of, run_study
from evbiodist.imaging.quantify import frame_of as frame_of_scan
from evbiodist.report.figures import colours, means
from evbiodist.sample import DEMO, copy_sample, sample_data

pytestmark = pytest.mark.gui

TRAYS = ("NanoLuc_2h_1", "NanoLuc_2h_2", "NanoLuc_8h_1")
SERIES, HOURS = "NanoLuc_series", (4.25, 4.75, 5.5)
FACTORS = (1.0, 0.5, 0.25)


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer):
    panel = CurvesPanel(viewer)
    viewer.window.add_dock_widget(panel)
    return panel


@pytest.fixture
def study(tmp_path):
    """Trays of the demo study, one of them broken, and a series of three frames of the animal that was followed."""
    folder = copy_sample(DEMO, tmp_path / "demo")
    counts = tifffile.imread(folder / "images" / "NanoLuc_followed_2h.tif").astype(float)
    stack = np.stack([500 + (counts - 500) * factor for factor in FACTORS]).round().astype(np.uint16)
    tifffile.imwrite(folder / "images" / f"{SERIES}.tif", stack, photometric="minisblack", metadata={"axes": "TYX"})
    timing = {"evbiodist": 1, "axes": "TYX", "frame_start_s": [0, 1800, 3600], "frame_duration_s": [1800, 1800, 3600],
              "time_reference": "scan_start", "pixel_size_mm": 0.5}  # fmt: skip
    (folder / "images" / f"{SERIES}.json").write_text(json.dumps(timing))
    with (folder / "scans.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    like = next(r for r in rows if r["scan"] == "NanoLuc_followed_2h")
    rows.append({**like, "scan": SERIES, "time_h": "4.0", "file": f"images/{SERIES}.tif"})
    broken = next(r for r in rows if r["scan"] == "NanoLuc_2h_3")
    (folder / broken["file"]).write_bytes(b"II*\0" + b"\0" * 20)
    write_scans(folder, [r for r in rows if r["scan"] in (*TRAYS, "NanoLuc_2h_3", SERIES)])
    return folder


def write_scans(folder, rows):
    with (folder / "scans.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def finish(qtbot, bench, panel):
    """Wait until nothing is under way and the curves are those of the study as it stands."""
    qtbot.waitUntil(lambda: not bench.jobs and not panel.soon.isActive() and not panel.frame_soon.isActive()
                    and not panel.list_soon.isActive(), timeout=120_000)  # fmt: skip


def told():
    return [str(n.message) for n in notification_manager.records]


def click(qtbot, plot, series, position):
    """Click on a point of a plot with logarithmic time, as a mouse does."""
    box = plot.canvas.plotItem.vb
    place = box.mapViewToScene(QPointF(np.log10(series.x[position]), series.y[position]))
    qtbot.mouseClick(plot.canvas.viewport(), Qt.MouseButton.LeftButton, pos=plot.canvas.mapFromScene(place))


def over(layer, organ):
    """Return a mouse event in the middle of an organ."""
    value = layer.features.loc[layer.features["organ"] == organ, "index"].iloc[0]
    places = np.argwhere(layer.data == value)
    place = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
    return SimpleNamespace(position=layer.data_to_world(place), view_direction=None, dims_displayed=[0, 1])


def test_curves_are_the_batchs_means_points_lead_to_scans_and_the_mouse_is_followed(
    viewer, panel, study, tmp_path, qtbot
):
    bench = Bench.of(viewer)
    assert "Open a study" in panel.about.text()
    bench.open(study)
    finish(qtbot, bench, panel)
    # the tables of the study have curves before anything is measured
    assert "0 of 5 scans were measured" in panel.source.text()
    assert {r["label"] for r in panel.rows} == {"111In"}
    bench.measure([*TRAYS, "NanoLuc_2h_3"])
    finish(qtbot, bench, panel)
    session = bench.session
    expected = means(frame_of(session.observations(session.measured()).rows))
    for organ, unit in (("liver", "pct_id"), ("brain", "pct_id"), ("blood", "pct_id_per_g")):
        panel.choose(organ)
        panel.unit.setCurrentIndex(panel.unit.findData(unit))
        panel.pick_choice("unit")
        here = expected[(expected["organ"] == organ) & (expected["unit"] == unit) & (expected["group"] == "ex_vivo")]
        shown = [r for r in panel.rows if not r["reason"]]
        assert len(shown) == len(here) > 0
        for column in ("label", "time_h", "mean", "low", "high", "n"):
            assert [r[column] for r in shown] == here[column].tolist(), column
    panel.choose("liver")
    panel.unit.setCurrentIndex(panel.unit.findData("pct_id"))
    panel.pick_choice("unit")
    palette = colours(list(session.study.labels))
    assert [(s.name, s.colour) for s in panel.plot.series] == [(name, palette[name]) for name in ("111In", "NanoLuc")]
    assert len({s.symbol for s in panel.plot.series}) == 2
    nanoluc = panel.plot.series[1]
    assert "mean of 2 values" in nanoluc.tips[0]
    assert "NanoLuc_2h_1, NanoLuc_2h_2" in nanoluc.tips[0]
    assert "attenuated: the organ's own tissue hides" in nanoluc.tips[0]
    # what failed has its reason, in the table and below
    [gap] = [r for r in panel.rows if r["reason"]]
    assert (gap["label"], gap["time_h"]) == ("NanoLuc", 2.0)
    assert gap["reason"].startswith("NanoLuc_2h_3: ")
    assert panel.failed.toPlainText() == gap["reason"]
    assert not panel.failed.isHidden()
    finish(qtbot, bench, panel)
    assert panel.table.rows.rowCount() == len(panel.rows)
    # a click shows the scan, another click the next one of that time
    assert bench.current == "NanoLuc_2h_1"
    click(qtbot, panel.plot, nanoluc, 0)
    finish(qtbot, bench, panel)
    assert bench.current == "NanoLuc_2h_2"
    assert panel.plot.time_line.value() == pytest.approx(np.log10(2.0))
    panel.plot.clicked.emit(panel.plot.series[0].key, 0)
    assert "came from a table" in told()[-1]
    assert bench.current == "NanoLuc_2h_2"
    # saved: what is shown, to the last digit, and pictures
    panel.save_table(tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(newline="") as file:
        saved = list(csv.DictReader(file))
    assert [r["mean"] for r in saved] == ["" if r["mean"] is None else repr(r["mean"]) for r in panel.rows]
    assert saved[-1]["reason"] == gap["reason"]
    panel.plot.save(tmp_path / "curve.svg")
    panel.plot.save(tmp_path / "curve.png")
    assert "hours after dose" in (tmp_path / "curve.svg").read_text()
    picture = imread(tmp_path / "curve.png")[::2, :, :3]
    assert picture.shape[1] == 2 * panel.plot.canvas.width()
    seen = {f"#{red:02X}{green:02X}{blue:02X}" for red, green, blue in np.unique(picture.reshape(-1, 3), axis=0)}
    assert {palette["111In"], palette["NanoLuc"]} <= seen
    with pytest.raises(ValueError, match=r"curve.gif: pictures are written as .svg or .png"):
        panel.plot.save(tmp_path / "curve.gif")
    the_organ_under_the_mouse_is_shown_and_a_click_keeps_it(viewer, panel, bench, qtbot)


def the_organ_under_the_mouse_is_shown_and_a_click_keeps_it(viewer, panel, bench, qtbot):
    layer = bench.organs_layer()
    picked = []
    bench.organ_picked.connect(picked.append)
    panel.choose("liver")
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, over(layer, "brain"))
    qtbot.waitUntil(lambda: panel.hovered == "brain", timeout=5_000)
    assert panel.about.text().startswith("brain (under the mouse), ex_vivo")
    assert {r["organ"] for r in panel.rows} == {"brain"}
    assert picked == []
    nothing = SimpleNamespace(position=(0.0, 0.0), view_direction=None, dims_displayed=[0, 1])
    panel.point_at(nothing)
    qtbot.waitUntil(lambda: panel.hovered is None, timeout=5_000)
    assert {r["organ"] for r in panel.rows} == {"liver"}
    # a press and release at the same place is a click, one that moves is not
    for what, kept in (("mouse_move", "liver"), ("mouse_release", "kidney")):
        event = over(layer, "kidney")
        [press] = [
            callback(viewer, event) for callback in viewer.mouse_drag_callbacks if "Pointer" in callback.__qualname__
        ]
        next(press)
        event.type = what
        next(press, None)
        event.type = "mouse_release"
        next(press, None)
        assert panel.organ.currentData() == kept
    assert picked == ["kidney"]
    bench.pick("spleen")
    assert {r["organ"] for r in panel.rows} == {"spleen"}
    # an organ that nothing was measured of says so
    panel.point_at(over(layer, "standard"))
    qtbot.waitUntil(lambda: panel.hovered == "standard", timeout=5_000)
    assert panel.about.text() == "No numbers of standard; measure a scan that shows it."
    assert panel.rows == []


def test_a_series_follows_its_curve_and_its_curve_the_frame(viewer, panel, study, qtbot):
    bench = Bench.of(viewer)
    bench.open(study)
    finish(qtbot, bench, panel)
    bench.show(SERIES)
    bench.measure([SERIES])
    finish(qtbot, bench, panel)
    assert panel.group.currentData() == "in_vivo"
    panel.choose("liver")
    [series] = panel.plot.series
    assert [r["time_h"] for r in series.key] == pytest.approx(HOURS)
    # napari begins in the middle of a series
    assert panel.plot.time_line.value() == pytest.approx(np.log10(HOURS[1]))
    overlay = viewer.canvas.overlays.text
    assert overlay.text.endswith("frame 2 of 3, t = 4.75 h")
    panel.plot.clicked.emit(series.key, 2)
    assert viewer.dims.current_step[0] == 2
    assert overlay.text.endswith("frame 3 of 3, t = 5.5 h")
    assert panel.plot.time_line.value() == pytest.approx(np.log10(HOURS[2]))
    # the residual is that of the frame, in its place, below the outlines; it goes with the frame and the scan
    panel.left.click()
    panel.values.click()
    finish(qtbot, bench, panel)
    session = bench.session
    scan, organs, settings = session.scan(SERIES), session.organs(SERIES), session.study.settings.imaging

    def left(frame):
        return ev.quantify(
            frame_of_scan(scan, frame), organs, settings.model_copy(update={"standard": None})
        ).fit.residual

    assert [layer.name for layer in viewer.layers] == [SERIES, f"{SERIES} residual", f"{SERIES} organs"]
    assert np.array_equal(panel.residual.data, left(2), equal_nan=True)
    assert panel.residual.scale.tolist() == [0.5, 0.5]
    rows = {(r["organ"], r["time_h"]): r for r in session.observations([SERIES]).rows if r["source"] == SERIES}

    def liver():
        return bench.organs_layer().features.set_index("organ").loc["liver", ["value", "se", "unit"]].tolist()

    assert liver() == [rows["liver", HOURS[2]][k] for k in ("value", "se", "unit")]
    viewer.dims.set_current_step(0, 1)
    finish(qtbot, bench, panel)
    assert np.array_equal(panel.residual.data, left(1), equal_nan=True)
    assert liver() == [rows["liver", HOURS[1]][k] for k in ("value", "se", "unit")]
    assert rows["liver", HOURS[1]]["value"] != rows["liver", HOURS[2]]["value"]
    viewer.layers.remove(panel.residual)
    assert not panel.left.isChecked()
    panel.left.click()
    finish(qtbot, bench, panel)
    assert panel.residual in viewer.layers
    bench.show(TRAYS[0])
    finish(qtbot, bench, panel)
    assert not panel.left.isChecked()
    assert [layer.name for layer in viewer.layers] == [TRAYS[0], f"{TRAYS[0]} photograph", f"{TRAYS[0]} organs"]
    # a scan that was not measured says so on its organs; what was edited is to be measured anew
    assert set(bench.organs_layer().features["reason"]) == {"not measured yet"}
    panel.measure_this()
    finish(qtbot, bench, panel)
    features = bench.organs_layer().features.set_index("organ")
    assert features.loc["standard", "reason"] == "this scan gave no value of it"
    assert features.loc["liver", "value"] > 0
    carried = bench.organs_layer().metadata["evbiodist"]["observations"]
    assert store.csv_bytes(carried, ["source"]).count(TRAYS[0].encode()) == len(carried) > 0
    bench.organs_layer().data_setitem((np.array([0, 0]), np.array([0, 1])), 5)
    assert bench.keep_edits()
    finish(qtbot, bench, panel)
    assert set(bench.organs_layer().features["reason"]) == {"not measured yet"}
    panel.values.click()
    assert list(bench.organs_layer().features) == ["index", "organ"]


def test_a_result_folder_gives_its_numbers_until_something_changes(viewer, panel, tmp_path, qtbot):
    folder = copy_sample(DEMO, tmp_path / "demo")
    with (folder / "scans.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["scan"] in TRAYS]
    write_scans(folder, rows)
    result = run_study(ev.load_study(folder / "study.toml"), tmp_path / "results", quantify_only=True)
    bench = Bench.of(viewer)
    bench.open(tmp_path / "results")
    finish(qtbot, bench, panel)
    assert "Numbers of the result folder 'results'" in panel.source.text()
    assert store.csv_bytes(panel.observed.rows, list(panel.observed.rows[0])) == (
        store.csv_bytes(result.observations, list(panel.observed.rows[0]))
    )
    assert {r["label"] for r in panel.rows} == {"111In", "NanoLuc"}
    bench.change_settings(imaging={"footprint": "roi"})
    finish(qtbot, bench, panel)
    assert "0 of 3 scans were measured" in panel.source.text()
    assert {r["label"] for r in panel.rows} == {"111In"}
    panel.measure_all()
    finish(qtbot, bench, panel)
    assert "3 of 3 scans were measured" in panel.source.text()
    rows = bench.session.observations().rows
    assert panel.observed.rows == rows != result.observations
    panel.measure_all()
    assert told()[-1].startswith("every scan is measured already")


def test_a_closed_panel_is_forgotten_by_the_viewer(viewer, qtbot):
    panel = CurvesPanel(viewer)
    dock = viewer.window.add_dock_widget(panel)
    before = len(viewer.mouse_move_callbacks), len(viewer.mouse_drag_callbacks)
    panel.measure_all()
    assert told()[-1] == "no study is open; open one, or images, in the study panel"
    known = weakref.ref(panel)
    viewer.window.remove_dock_widget(dock)
    panel.deleteLater()
    del panel, dock

    def gone():
        gc.collect()
        return known() is None

    qtbot.waitUntil(gone, timeout=5_000)
    assert (len(viewer.mouse_move_callbacks), len(viewer.mouse_drag_callbacks)) == (before[0] - 1, before[1] - 1)
    Bench.of(viewer).open(sample_data() / DEMO)
    qtbot.waitUntil(lambda: not Bench.of(viewer).jobs, timeout=60_000)
    assert not [text for text in told() if "fault of evbiodist" in text]


@pytest.mark.parametrize("log", [False, True])
def test_bands_are_drawn_and_logarithmic_axes_have_plain_numbers(qtbot, tmp_path, log):
    plot = Plot()
    qtbot.addWidget(plot)
    plot.resize(400, 300)
    plot.show()
    qtbot.waitExposed(plot)
    x, y = np.array([1.0, 10.0, 100.0]), np.array([2.0, 20.0, 200.0])
    band = Series("fit", "fit", "#0072B2", x, y, y / 2, y * 2, dots=False, band=True)
    for series in (
        [band],
        [replace(band, low=y / 1.5, high=y * 1.5)],
        [band],
    ):  # the second fills the items of the first
        plot.put(series, "hours", "value", log, log)
    plot.save(tmp_path / "band.png")
    picture = imread(tmp_path / "band.png")[..., :3].astype(int)
    # a light blue: the band's colour at 45 of 255 over white
    shade = np.array([255, 255, 255]) + (np.array([0x00, 0x72, 0xB2]) - 255) * 45 / 255
    assert (np.abs(picture - shade).max(axis=-1) <= 2).mean() > 0.05
    axis = plot.canvas.getAxis("bottom")
    (spacing, numbered), *_ = axis.tickValues(*axis.range, 350)
    words = axis.tickStrings(numbered, 1.0, spacing)
    assert [w for w in words if w] == (["1", "10", "100"] if log else ["0", "20", "40", "60", "80", "100"])
    if log:
        # within a decade: enough numbers, and those that there is no room for stay silent
        values = axis.tickValues(np.log10(62), np.log10(78), 350)
        assert axis.tickStrings(values[0][1], 1.0, values[0][0]) == ["65", "70", "75"]
        silent = axis.tickValues(*axis.range, 350)[1]
        assert set(axis.tickStrings(silent[1], 1.0, silent[0])) == {""}
