"""The organs panel in a real viewer: what is found, drawn, named, undone and carried on is what the batch measures."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.organs_panel import OrgansPanel
from napari_evbiodist.session import Session

from evbiodist.sample import DEMO, copy_sample

pytestmark = pytest.mark.gui
TRAY, BODY = "NanoLuc_0.5h_1", "NanoLuc_followed_0.5h"


@pytest.fixture
def opened(make_napari_viewer, tmp_path, qtbot):
    """A viewer with the panel and the demo study, and what shows a scan and waits."""
    viewer = make_napari_viewer(show=True)
    panel = OrgansPanel(viewer)
    viewer.window.add_dock_widget(panel)
    bench = Bench.of(viewer)

    def finish():
        qtbot.waitUntil(lambda: not bench.jobs, timeout=90_000)

    def show(scan):
        bench.show(scan)
        finish()

    bench.open(copy_sample(DEMO, tmp_path / "demo"))
    finish()
    return viewer, panel, bench, show, finish


def told():
    return [str(n.message) for n in notification_manager.records]


def stroke(layer, rows, columns, value):
    layer.selected_label = value
    layer.data_setitem((np.asarray(rows), np.asarray(columns)), value)
    layer.events.paint(value=[])  # what napari tells at the end of a stroke


def test_organs_of_a_tray_are_found_painted_named_and_undone(opened, qtbot):
    _, panel, bench, show, finish = opened
    show(TRAY)
    session = bench.session
    first = session.organs(TRAY)
    shown = [(row["organ"], row["pixels"]) for row in panel.table.rows.rows]
    assert {name: sum(n for organ, n in shown if organ == name) for name, _ in shown} == first.areas()
    assert panel.way.currentData() == "tray"
    brain = next(row for row in panel.table.rows.rows if row["organ"] == "brain")
    assert (brain["size"], brain["unit"]) == (pytest.approx(brain["pixels"] * 0.25), "mm2")
    # a row of the table is the label of the brush
    panel.table.choose(lambda row: False)
    panel.choose(brain)
    layer = bench.organs_layer()
    assert layer.selected_label == brain["value"]
    assert bench.organ == "brain"
    panel.brush()
    assert layer.mode == "paint"
    # a stroke is kept by itself, with who did it
    panel.annotator.setText("Ann")
    panel.annotator.editingFinished.emit()
    stroke(layer, [2, 2, 3], [2, 3, 2], brain["value"])
    qtbot.waitUntil(lambda: len(session.history(TRAY)) == 1, timeout=10_000)
    assert session.organs(TRAY).areas()["brain"] == first.areas()["brain"] + 3
    assert [(e.annotator, e.action) for e in session.history(TRAY)] == [("Ann", "paint")]
    assert panel.edits.rows.rows[0]["annotator"] == "Ann"
    again = Session.open(session.study.root, annotator="")
    assert again.earlier_edits() == [TRAY]
    # the study's table gave the brain another pixel value: the brush goes on with the brain
    assert session.organs(TRAY).names[bench.organs_layer().selected_label] == "brain"
    # another name, a new organ, a name missing, one less
    panel.choose(next(row for row in panel.table.rows.rows if row["organ"] == "brain"))
    panel.name.setCurrentText("Tumour")
    panel.rename()
    assert "tumour" in session.organs(TRAY).organs
    assert "brain" not in session.organs(TRAY).organs
    panel.name.setCurrentText("tongue")
    panel.add()
    layer = bench.organs_layer()
    stroke(layer, [90, 90], [100, 101], layer.selected_label)
    panel.keep()
    assert session.organs(TRAY).areas()["tongue"] == 2
    stroke(layer, [94], [120], 77)
    panel.keep()
    assert "pixel values [77]" in told()[-1]
    assert "have no organ; name them" in told()[-1]
    # undo drops what cannot be kept; painted again, it may be named
    panel.undo()
    assert bench.organs_layer().data[94, 120] == 0
    stroke(bench.organs_layer(), [94], [120], 77)
    panel.name.setCurrentText("ear")
    panel.rename()
    assert session.organs(TRAY).areas()["ear"] == 1
    panel.undo()
    panel.choose(next(row for row in panel.table.rows.rows if row["organ"] == "tongue"))
    panel.remove()
    assert "tongue" not in session.organs(TRAY).organs
    # undo step by step until what the study finds, and no further
    for _ in range(4):
        panel.undo()
    assert session.organs(TRAY).areas() == first.areas()
    assert np.array_equal(bench.organs_layer().data, first.labels)
    panel.undo()
    assert "nothing to undo" in told()[-1]
    panel.redo()
    assert session.organs(TRAY).areas()["brain"] == first.areas()["brain"] + 3
    # found anew, they are what the batch finds
    panel.find()
    finish()
    assert session.organs(TRAY).areas() == first.areas()
    assert session.history(TRAY)[-1].action == "segment: tray"
    assert set(bench.session.run_scan(TRAY).legend) == set(first.organs)


def test_polygons_become_organs_and_organs_are_copied_to_another_tray(opened):
    viewer, panel, bench, show, finish = opened
    show(TRAY)
    session = bench.session
    panel.name.setCurrentText("")
    panel.polygons()
    assert "the polygons have no name" in told()[-1]
    panel.name.setCurrentText("muscle")
    panel.polygons()
    shapes = viewer.layers.selection.active
    assert shapes.mode == "add_polygon"
    shapes.add_polygons(np.array([[40.0, 2.0], [40.0, 6.0], [44.0, 6.0], [44.0, 2.0]]))  # mm; pixels of 0.5 mm
    assert list(shapes.features["organ"]) == ["muscle"]
    panel.take_polygons()
    drawn = session.organs(TRAY)
    inside = drawn.mask("muscle")
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 88, 4, 12)
    assert shapes not in viewer.layers
    other = "NanoLuc_0.5h_2"
    show(other)
    panel.other.setCurrentText(TRAY)
    panel.by.setCurrentIndex(panel.by.findData("identity"))
    panel.copy()
    finish()
    assert session.organs(other).areas() == drawn.areas()
    assert panel.carried.text().endswith(f"{other}: taken")
    assert session.history(other)[-1].action == f"copy from {TRAY}"
    panel.propagate()
    assert "no later scan of the same animal" in told()[-1]


def test_the_atlas_shows_how_sure_it_is_and_a_body_is_carried_along_time(opened):
    viewer, panel, bench, show, finish = opened
    show(BODY)
    session = bench.session
    assert panel.way.currentData() == "body"
    panel.way.setCurrentIndex(panel.way.findData("atlas"))
    assert not panel.view.isHidden()
    assert panel.animals.isHidden()
    panel.show_unresolved()
    assert "knows of no organs that cannot be told apart" in told()[-1]
    panel.find()
    finish()
    found = panel.found[BODY]
    assert {"liver", "brain"} <= set(found.organs)
    liver = next(row for row in panel.table.rows.rows if row["organ"] == "liver")
    assert liver["confidence"] == found.confidence["liver"]
    assert bench.drawn().names[liver["value"]] == "liver"
    assert panel.told.text().endswith("planar atlas")
    panel.choose(liver)
    panel.show_probability()
    layer = viewer.layers[f"{BODY} liver, probability"]
    assert np.array_equal(layer.data, found.share("liver"))
    assert layer.scale.tolist() == viewer.layers[BODY].scale.tolist()
    if found.unresolved:
        panel.show_unresolved()
        assert f"{BODY} not resolvable" in viewer.layers
        assert "cannot be told apart" in panel.unsure.text()
    panel.undo()
    later = session.later(BODY)
    assert later
    stroke(bench.organs_layer(), [1], [1], 1)
    panel.by.setCurrentIndex(panel.by.findData("identity"))
    panel.propagate()
    finish()
    for scan in later:
        assert np.array_equal(session.organs(scan).labels, session.organs(BODY).labels)
        assert session.history(scan)[-1].action == f"propagate from {BODY}"
    assert panel.carried.text().count("taken") == len(later)
    show(later[0])
    assert not [layer for layer in viewer.layers if "probability" in layer.name]  # it went with its scan


def test_the_brush_and_napari_s_undo_stay_with_the_organ_and_a_blank_layer_holds_nobody_back(opened):
    viewer, panel, bench, show, _ = opened
    show(TRAY)
    session = bench.session
    before = session.organs(TRAY).areas()
    panel.choose(next(row for row in panel.table.rows.rows if row["organ"] == "heart"))
    layer = bench.organs_layer()
    for column in (2, 3):  # keeping the first stroke gives the heart the value that the study's table has for it
        stroke(layer, [2], [column], layer.selected_label)
        panel.keep()
    layer.undo()
    panel.keep()
    changed = {organ: n - before[organ] for organ, n in session.organs(TRAY).areas().items() if n != before.get(organ)}
    assert changed in ({"heart": 1}, {"heart": 2})  # never another organ
    panel.name.setCurrentText(" - ")
    panel.add()
    assert "holds no letters" in told()[-1]
    assert "" not in session.study.settings.imaging.organ_labels.values()
    viewer.layers.remove(bench.organs_layer())
    panel.blank()
    other = "NanoLuc_0.5h_2"
    show(other)
    assert bench.current == other
