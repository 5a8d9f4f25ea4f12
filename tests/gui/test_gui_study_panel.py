"""The study panel in a real viewer."""

from pathlib import Path

import pytest
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.study_panel import StudyPanel

from evbiodist.sample import DEMO, copy_sample

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def demo(tmp_path) -> Path:
    return copy_sample(DEMO, tmp_path / "demo")


def wait_for_work(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs, timeout=60_000)


def test_a_study_opens_with_its_first_scan(viewer, demo, qtbot):
    panel = StudyPanel(viewer)
    viewer.window.add_dock_widget(panel)
    bench = Bench.of(viewer)
    bench.open(demo)
    wait_for_work(qtbot, bench)
    assert panel.table.rows.rowCount() == len(bench.session.study.scans)
    assert bench.current == "DiR_0.083h_1"
    assert [layer.name for layer in viewer.layers] == ["DiR_0.083h_1", "DiR_0.083h_1 photograph", "DiR_0.083h_1 organs"]
