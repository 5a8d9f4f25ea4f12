"""What was drawn and clicked gives the same geometry and the same bytes by command, script and panel, and opens again."""

import os
import subprocess
import sys

import numpy as np
import pytest
from napari_evbiodist.bench import Bench
from napari_evbiodist.converters import place
from napari_evbiodist.organs_model import polygons_to_organs
from napari_evbiodist.panels.batch_panel import BatchPanel
from napari_evbiodist.panels.study_panel import StudyPanel
from qtpy.QtWidgets import QApplication

pytestmark = pytest.mark.gui
TRAY, ALIVE = "NanoLuc_0.5h_1", "NanoLuc_followed_0.5h"


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs and not (bench.program and bench.program.running), timeout=90_000)


def show(qtbot, bench, scan):
    bench.show(scan)
    finish(qtbot, bench)
    return bench.organs_layer()


def opened(viewer, study, qtbot):
    panels = [panel(viewer) for panel in (StudyPanel, BatchPanel)]
    for panel in panels:
        viewer.window.add_dock_widget(panel, name=panel.title)
    bench = Bench.of(viewer)
    bench.open(study)
    finish(qtbot, bench)
    return bench, panels[1]


def test_draw_save_run_reload_is_the_same_geometry_and_the_same_bytes(make_napari_viewer, few_scans, tmp_path, qtbot):
    viewer = make_napari_viewer(show=True)
    bench, panel = opened(viewer, few_scans, qtbot)
    bench.change_settings(kinetics={"models": ()})  # fits would take seconds and have nothing to do with it
    # the brush on a tray
    layer = show(qtbot, bench, TRAY)
    liver = next(v for v, organ in bench.drawn().names.items() if organ == "liver")
    before = layer.data.copy()
    layer.selected_label, layer.brush_size = liver, 5
    layer.paint(tuple(np.argwhere(layer.data == liver)[0]), liver)
    layer.data_setitem((np.array([0, 0]), np.array([3, 4])), liver)
    assert (layer.data != before).sum() > 5
    drawn = {TRAY: bench.drawn()}
    # a polygon on an animal; showing it keeps what was painted
    show(qtbot, bench, ALIVE)
    scan = bench.session.scan(ALIVE)
    wanted = place(scan, scan.plane_shape)
    shapes = viewer.add_shapes([np.array([[20.2, 20.2], [20.2, 31.7], [33.1, 26.0]])], shape_type="polygon",
                               features={"organ": ["tumour"]}, scale=wanted["scale"], translate=wanted["translate"],
                               units=wanted["units"])  # fmt: skip
    drawn[ALIVE] = polygons_to_organs(shapes.as_layer_data_tuple(), scan, bench.drawn())
    assert drawn[ALIVE].mask("tumour").sum() > 50
    bench.take_organs(drawn[ALIVE], "polygon")
    viewer.layers.remove(shapes)
    assert [e.action for e in bench.session.history(TRAY)] == ["paint"]
    expected = bench.session.observations()
    assert expected.failures == {}
    # saved and run by this panel
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program is not None, timeout=30_000)
    finish(qtbot, bench)
    by_panel = few_scans / "evbiodist_results"
    # by the command line
    panel.out.setText(str(tmp_path / "by_command"))
    panel.command_button.click()
    command = QApplication.clipboard().text().split()
    assert command[:2] == ["evbiodist", "run"]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, cwd=tmp_path)
    # by the script
    panel.out.setText(str(tmp_path / "by_script"))
    panel.python_button.click()
    (tmp_path / "script.py").write_text(QApplication.clipboard().text())
    subprocess.run([sys.executable, "script.py"], check=True, capture_output=True, cwd=tmp_path, env=dict(os.environ))
    for out in (by_panel, tmp_path / "by_command", tmp_path / "by_script"):
        assert (out / "observations.csv").read_bytes() == expected.csv()
        for name in ("parameters", "consensus", "failures", "curves"):
            assert (out / f"{name}.csv").read_bytes() == (by_panel / f"{name}.csv").read_bytes(), (out, name)
    assert b"tumour" in expected.csv()
    # the results open in another viewer with what was drawn
    viewer.close()
    again, _ = opened(make_napari_viewer(show=True), tmp_path / "by_command", qtbot)
    assert again is not bench
    for scan, organs in drawn.items():
        show(qtbot, again, scan)
        found = again.drawn()
        assert found.areas() == organs.areas()
        assert all(np.array_equal(found.mask(name), organs.mask(name)) for name in organs.organs)
    assert again.session.results == tmp_path / "by_command"
    assert again.session.observations().csv() == expected.csv()
