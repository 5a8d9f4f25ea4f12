"""Panels that are closed are gone: no widget, signal, thread or bench stays behind."""

import gc
import threading
import weakref
from collections import Counter
from importlib import import_module

import pytest
from napari_evbiodist.bench import _BENCHES, Bench
from napari_evbiodist.panels.all_panels import PANELS
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication

pytestmark = pytest.mark.gui
_SIGNALS = ("opened", "shown", "edited", "measured", "settings_changed", "organ_picked", "jobs_changed")


def settle():
    """Let Qt delete what waits for it, and Python what nobody holds."""
    for _ in range(3):
        QApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs, timeout=60_000)


def widgets():
    return Counter(type(widget).__name__ for widget in QApplication.allWidgets())


def listeners(bench):
    return {name: len(getattr(bench, name)) for name in _SIGNALS}


def open_and_close(viewer, panel_class):
    panel = panel_class(viewer)
    dock = viewer.window.add_dock_widget(panel, name=panel.title)
    QApplication.processEvents()
    dock.destroyOnClose()  # what the cross of a panel does
    return weakref.ref(panel)


@pytest.mark.parametrize("with_study", [False, True])
def test_panels_that_were_opened_and_closed_leave_nothing(make_napari_viewer, few_scans, qtbot, with_study):
    viewer = make_napari_viewer(show=True)
    bench = Bench.of(viewer)
    if with_study:
        bench.open(few_scans)
        finish(qtbot, bench)
    for title, place in PANELS.items():
        module, _, name = place.partition(":")
        panel_class = getattr(import_module(module), name)
        open_and_close(viewer, panel_class)  # what is made once by Qt and napari is made now
        settle()
        finish(qtbot, bench)
        before, told, threads = widgets(), listeners(bench), threading.active_count()
        panels = [open_and_close(viewer, panel_class) for _ in range(3)]
        finish(qtbot, bench)
        settle()
        assert [panel() for panel in panels] == [None] * 3, title
        assert widgets() - before == Counter(), title
        assert listeners(bench) == told, title
        assert threading.active_count() <= threads, title


def test_every_viewer_has_a_bench_of_its_own_that_goes_with_it(make_napari_viewer, few_scans, qtbot):
    first, second = make_napari_viewer(show=True), make_napari_viewer(show=True)
    one, other = Bench.of(first), Bench.of(second)
    assert one is not other
    assert Bench.of(first) is one
    one.open(few_scans)
    finish(qtbot, one)
    assert other.session is None
    assert len(second.layers) == 0
    gone = weakref.ref(one)
    key = next(key for key, bench in _BENCHES.items() if bench is one)
    first.close()
    del first, one
    settle()
    assert key not in _BENCHES
    assert gone() is None
    assert Bench.of(second) is other
