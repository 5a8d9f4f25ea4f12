"""The study panel in a real viewer: what is opened, said, found odd and called off."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.study_panel import StudyPanel
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from evbiodist.sample import DEMO, copy_sample

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer):
    panel = StudyPanel(viewer)
    viewer.window.add_dock_widget(panel)
    return panel


@pytest.fixture
def demo(tmp_path) -> Path:
    return copy_sample(DEMO, tmp_path / "demo")


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs, timeout=60_000)


def wait_long(tell):
    tell("began")
    time.sleep(60)


def told():
    return [str(n.message) for n in notification_manager.records]


def test_a_study_opens_with_its_first_scan_calibrated_and_in_mm(viewer, panel, demo, qtbot):
    bench = Bench.of(viewer)
    bench.open(demo)
    finish(qtbot, bench)
    assert panel.table.rows.rowCount() == len(bench.session.study.scans)
    assert bench.current == "DiR_0.083h_1"
    assert [layer.name for layer in viewer.layers] == ["DiR_0.083h_1", "DiR_0.083h_1 photograph", "DiR_0.083h_1 organs"]
    signal = viewer.layers[0]
    image = bench.session.scan("DiR_0.083h_1")
    assert np.array_equal(signal.data, image.signal())
    assert signal.scale.tolist() == [0.5, 0.5]
    assert [str(unit) for unit in signal.units] == ["millimeter", "millimeter"]
    assert signal.axis_labels == ("y", "x")
    assert signal.colorbar.visible
    assert viewer.canvas.overlays.scale_bar.visible
    assert viewer.canvas.overlays.text.text == "DiR, DiR_0.083h_1, 0.083 h after dose; colours in counts"
    assert "No dye-only arm" in panel.lacks.text()
    # a click on a row shows that scan in place of the former, words find rows
    panel.find.setText("NanoLuc_0.5h_1")
    assert panel.table.proxy.rowCount() == 1
    panel.table.setCurrentIndex(panel.table.proxy.index(0, 0))
    finish(qtbot, bench)
    assert bench.current == "NanoLuc_0.5h_1"
    assert {layer.name for layer in viewer.layers} == {f"NanoLuc_0.5h_1{end}" for end in ("", " photograph", " organs")}
    # of quick choices the last counts
    for scan in ("DiR_2h_1", "DiR_2h_2", "DiR_2h_3"):
        bench.show(scan)
    finish(qtbot, bench)
    assert viewer.layers[0].name == "DiR_2h_3"
    # organs painted in one session and never saved are offered in the next
    layer = bench.organs_layer()
    painted = bench.drawn().names[1]
    layer.data_setitem((np.array([0, 0]), np.array([0, 1])), 1)
    assert bench.keep_edits()
    bench.open(demo)
    finish(qtbot, bench)
    assert not panel.earlier.isHidden()
    panel.earlier.click()
    finish(qtbot, bench)
    assert panel.earlier.isHidden()
    again = bench.session.organs("DiR_2h_3")
    assert [again.names[v] for v in again.labels[0, :2]] == [painted, painted]


def test_an_image_without_a_study_asks_for_what_it_does_not_say(viewer, panel, tmp_path, qtbot):
    image = np.random.default_rng(3).poisson(200.0, (40, 40)).astype(np.uint16)
    image[15:25, 15:25] += 4000
    tifffile.imwrite(tmp_path / "mouse.tif", image)
    bench = Bench.of(viewer)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path / "mouse.tif"))])
    panel.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton,
                               Qt.KeyboardModifier.NoModifier))  # fmt: skip
    finish(qtbot, bench)
    assert not panel.facts.isHidden()
    assert "subject, label, time_h not known" in panel.wrong.toPlainText()
    assert "pixel size not stated" in panel.about.text()
    assert not viewer.canvas.overlays.scale_bar.visible
    panel.fields["subject"].setText("m1")
    panel.fields["label"].setText("DiR")
    panel.fields["time_h"].setText("soon")
    panel.tell()
    assert told()[-1] == "time_h: found 'soon', expected a number such as 2.5; correct it"
    panel.fields["time_h"].setText("2.5")
    panel.fields["pixel_size_mm"].setText("0.25")
    panel.tell()
    finish(qtbot, bench)
    [record] = bench.session.study.scans
    assert (record.subject, record.label, record.time_h, record.pixel_size_mm) == ("m1", "DiR", 2.5, 0.25)
    assert panel.facts.isHidden()
    assert viewer.layers[0].scale.tolist() == [0.25, 0.25]


def test_what_cannot_be_opened_is_a_sentence_and_the_window_lives(viewer, panel, tmp_path, qtbot):
    bench = Bench.of(viewer)
    (tmp_path / "study.toml").write_text('name = "x"\nspecies = "mouse"\n[imaging]\nfootprint = "magic"\n')
    bench.open(tmp_path)
    finish(qtbot, bench)
    assert told()[-1].startswith("study.toml, key imaging.footprint: found 'magic', expected")
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + b"\0" * 20)
    bench.open(tmp_path / "broken.tif")
    finish(qtbot, bench)
    assert told()[-1].startswith("broken.tif: ")
    bench.work("reading a file that crashes its decoder", os.abort)
    finish(qtbot, bench)
    assert "a damaged file that crashes the decoder" in told()[-1]
    assert told()[-1].startswith("reading a file that crashes its decoder: ")
    began = []
    job = bench.work("waiting", wait_long, event=began.append)
    qtbot.waitUntil(lambda: began == ["began"], timeout=30_000)
    job.cancel()
    finish(qtbot, bench)
    assert told()[-1] == "waiting: called off; what was finished is kept"
    heard = []
    bench.work("sorting", sorted, [2, 1], then=heard.append)
    finish(qtbot, bench)
    assert heard == [[1, 2]]
