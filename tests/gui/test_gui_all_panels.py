"""All panels together: by the menu, by the command line, and with a study that was dropped on the viewer."""

import pytest
from napari._app_model import get_app_model
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.all_panels import PANELS, dock_name, open_all
from napari_evbiodist.panels.study_panel import StudyPanel
from napari_evbiodist.view import main
from qtpy.QtWidgets import QApplication

from evbiodist.sample import sample_data

pytestmark = pytest.mark.gui
_DOCKS = [dock_name(title) for title in PANELS]
TRAY = "NanoLuc_0.5h_1"


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs, timeout=60_000)


def ours(viewer):
    return {name: panel for name, panel in viewer.window.dock_widgets.items() if name in _DOCKS}


def test_all_panels_are_tabs_once_with_the_study_in_front(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    # napari gives the window to the command of the menu and of the command palette
    get_app_model().commands.execute_command("evbiodist.all_panels").result()
    QApplication.processEvents()
    panels = ours(viewer)
    assert list(panels) == _DOCKS
    docks = [viewer.window._wrapped_dock_widgets[name] for name in _DOCKS]
    assert {dock.name for dock in viewer.window._qt_window.tabifiedDockWidgets(docks[0])} == set(_DOCKS[1:])
    qtbot.waitUntil(lambda: not docks[0].visibleRegion().isEmpty())
    assert docks[-1].visibleRegion().isEmpty()
    open_all(viewer)
    assert ours(viewer) == panels
    assert {panel.bench for panel in panels.values()} == {Bench.of(viewer)}
    # the entry of a panel in the plugins menu shows or hides that very panel
    get_app_model().commands.execute_command("evbiodist.batch").result()
    assert ours(viewer) == panels
    assert docks[-1].isHidden()


def test_a_panel_of_the_plugins_menu_gets_the_viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    dock, panel = viewer.window.add_plugin_dock_widget("evbiodist", "Batch")
    assert dock.name == dock_name("Batch")
    assert panel.bench is Bench.of(viewer)


def test_a_study_dropped_on_the_viewer_opens_in_the_panel_whichever_was_first(make_napari_viewer, few_scans, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.open(str(few_scans), plugin="evbiodist")
    assert [layer.name for layer in viewer.layers] == [TRAY, f"{TRAY} photograph"]
    panel = StudyPanel(viewer)
    viewer.window.add_dock_widget(panel)
    bench = Bench.of(viewer)
    finish(qtbot, bench)
    names = [TRAY, f"{TRAY} photograph", f"{TRAY} organs"]
    assert [layer.name for layer in viewer.layers] == names
    assert bench.session.study.root == few_scans
    assert panel.table.rows.rowCount() == 3
    first = bench.session
    viewer.open(str(few_scans / "study.toml"), plugin="evbiodist")
    finish(qtbot, bench)
    assert bench.session is not first
    assert [layer.name for layer in viewer.layers] == names
    # an image that belongs to no study stays a layer
    viewer.open(str(sample_data() / "demo" / "images" / "DiR_2h_1.tif"), plugin="evbiodist")
    finish(qtbot, bench)
    assert [layer.name for layer in viewer.layers][-1] == "DiR_2h_1.tif"
    assert len(viewer.layers) == 4


def test_the_command_opens_a_study_with_all_panels_and_images_beside_it(
    make_napari_viewer, few_scans, qtbot, monkeypatch
):
    opened = []
    monkeypatch.setattr("napari.Viewer", lambda **options: opened.append(make_napari_viewer(**options)) or opened[0])
    monkeypatch.setattr("napari.run", lambda: None)
    assert main([str(few_scans), str(sample_data() / "demo" / "images" / "DiR_2h_1.tif")]) == 0
    viewer = opened.pop()
    bench = Bench.of(viewer)
    finish(qtbot, bench)
    assert list(ours(viewer)) == _DOCKS
    assert bench.session.study.root == few_scans
    assert [layer.name for layer in viewer.layers] == ["DiR_2h_1.tif", TRAY, f"{TRAY} photograph", f"{TRAY} organs"]


def test_what_cannot_be_opened_is_said_on_the_terminal_before_a_window(few_scans, capsys):
    assert main([str(few_scans), str(few_scans / "study.toml")]) == 2
    assert capsys.readouterr().err.startswith("error: a window shows one study, found 2: few, study.toml")
    (few_scans / "study.toml").write_text("nmae = 1\n")
    assert main([str(few_scans)]) == 2
    assert "study.toml, key nmae" in capsys.readouterr().err
