"""The batch panel in a real viewer: saving, running, calling off, failing, and going on where it stopped."""

import shlex
import sys
import time
from pathlib import Path

import pytest
from napari.utils.notifications import notification_manager
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels import batch_panel
from napari_evbiodist.panels.batch_panel import BatchPanel
from qtpy.QtWidgets import QApplication

import evbiodist as ev
from evbiodist.batch.pipeline import run_study
from evbiodist.report.folder import read_results
from evbiodist.sample import DEMO, copy_sample

pytestmark = pytest.mark.gui
TRAY = "NanoLuc_0.5h_1"
#: A program in place of the run, which tells of one scan and then neither goes on nor listens.
HANGING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"event": "scan", "done": 0, "total": 2, "failed": 0, "resumed": 0}')
print('{"event": "scan", "done": 1, "total": 2, "failed": 0, "name": "only"}', flush=True)
time.sleep(60)
"""


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer):
    panel = BatchPanel(viewer)
    viewer.window.add_dock_widget(panel)
    return panel


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs and not (bench.program and bench.program.running), timeout=60_000)


def told():
    return [str(n.message) for n in notification_manager.records]


def runs(process):
    """Return whether a process is there and not just waiting to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_study_is_saved_run_and_shown_while_the_viewer_goes_on(
    viewer, panel, few_scans, tmp_path, qtbot, monkeypatch
):
    (few_scans / "images" / "NanoLuc_followed_2h.tif").unlink()
    bench = Bench.of(viewer)
    assert "Open a study in the study panel" in panel.state.text()
    assert not panel.run_button.isEnabled()
    bench.open(few_scans)
    finish(qtbot, bench)
    assert panel.state.text() == "Nothing was changed since the study was opened."
    bench.change_settings(kinetics={"max_extrap_pct": 15})
    assert "changes that are in no file yet" in panel.state.text()
    panel.command_button.click()
    assert told()[-1] == "the session has changes that are in no file yet; save it first: press Save, then copy again"
    # Run saves first, and does not hold the window
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program is not None, timeout=20_000)
    assert not panel.run_button.isEnabled()
    assert panel.cancel_button.isEnabled()
    turns = 0
    while bench.program.running:
        qtbot.wait(10)
        turns += 1
    assert turns > 100
    # one of three scans has no file: the others are done, and why it failed is said and stays readable
    settings, out = few_scans / "evbiodist_session" / "settings.toml", few_scans / "evbiodist_results"
    assert panel.state.text() == f"Saved: {settings}"
    assert panel.words.text().startswith("Done, not whole: ")
    assert panel.words.text().endswith("1 of 3 scans failed; why stands below.")
    assert [row["scan"] for row in panel.scans.rows.rows] == [TRAY, "NanoLuc_followed_0.5h"]
    assert "NanoLuc_followed_2h: there is no such file" in panel.said.toPlainText()
    assert "scan 'NanoLuc_followed_2h' will fail: copy the file or correct the name" in panel.said.toPlainText()
    assert any("'NanoLuc_followed_2h' will fail: copy the file" in text for text in told())
    assert told()[-1].startswith(panel.words.text())
    run_study(ev.load_study(settings), tmp_path / "by_script")
    for name in ("observations", "parameters", "consensus", "failures"):
        assert (out / f"{name}.csv").read_bytes() == (tmp_path / "by_script" / f"{name}.csv").read_bytes()
    # the same again by command and script
    panel.command_button.click()
    assert shlex.split(QApplication.clipboard().text()) == ["evbiodist", "run", str(settings), "--out", str(out)]
    panel.python_button.click()
    assert QApplication.clipboard().text() == bench.session.as_python(str(out))
    # what came out
    shown = []
    monkeypatch.setattr(batch_panel.QDesktopServices, "openUrl", lambda url: shown.append(url.toLocalFile()) or True)
    panel.report_button.click()
    assert shown == [str(out / "report.html")]
    panel.load_button.click()
    finish(qtbot, bench)
    assert bench.session.results == out
    names = [panel.which.itemText(i) for i in range(panel.which.count())]
    assert (names[0], names[-1]) == ("parameters", "failures")
    expected = read_results(out)["parameters"]
    assert [row["value"] for row in panel.table.rows.rows] == [None if v != v else v for v in expected["value"]]
    panel.find.setText("auclast")
    assert panel.table.proxy.rowCount() == expected["parameter"].str.contains("auclast").sum() > 0
    panel.which.setCurrentText("failures")
    assert [row["name"] for row in panel.table.rows.rows] == ["NanoLuc_followed_2h"]


def test_a_run_that_is_called_off_is_taken_up_by_the_same_button(viewer, panel, tmp_path, qtbot):
    folder = copy_sample(DEMO, tmp_path / "demo")
    bench = Bench.of(viewer)
    bench.open(folder)
    finish(qtbot, bench)
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program is not None and bench.program.run.done >= 3, timeout=40_000)
    process = bench.program.process_id()
    panel.cancel_button.click()
    finish(qtbot, bench)
    assert panel.words.text().startswith("Called off after ")
    assert told()[-1] == panel.words.text()
    assert not runs(process)
    assert panel.run_button.isEnabled()
    assert not (folder / "evbiodist_results" / "observations.csv").exists()
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program.run.resumed >= 3, timeout=40_000)
    # a panel that was closed and opened again goes on telling of the run
    viewer.window.remove_dock_widget(panel)
    again = BatchPanel(viewer)
    viewer.window.add_dock_widget(again)
    assert "taken over from an earlier run" in again.words.text()
    again.cancel_button.click()
    finish(qtbot, bench)
    assert again.words.text().startswith("Called off ")


def test_a_program_that_does_not_listen_is_ended(viewer, panel, few_scans, qtbot, monkeypatch):
    monkeypatch.setattr(batch_panel, "command", lambda *_: ["-c", HANGING])
    monkeypatch.setattr(batch_panel, "_GRACE_MS", 300)
    bench = Bench.of(viewer)
    bench.open(few_scans)
    finish(qtbot, bench)
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program is not None and bench.program.run.done == 1, timeout=20_000)
    began = time.monotonic()
    panel.cancel_button.click()
    finish(qtbot, bench)
    assert time.monotonic() - began < 20
    assert panel.words.text() == "Called off after 1 of 2 scans; the same button takes the run up where it stopped."


def test_what_cannot_be_run_or_saved_is_said_in_words(viewer, panel, few_scans, qtbot, monkeypatch):
    bench = Bench.of(viewer)
    bench.open(few_scans)
    finish(qtbot, bench)
    (few_scans / "mine").mkdir()
    (few_scans / "mine" / "thesis.txt").write_text("all of it")
    panel.out.setText(str(few_scans / "mine"))
    panel.run_button.click()
    finish(qtbot, bench)
    assert panel.words.text() == "Nothing was run; what is wrong stands below."
    assert "holds other files (thesis.txt); choose a new or empty folder" in told()[-1]
    assert "thesis.txt" in panel.said.toPlainText()
    panel.report_button.click()
    assert told()[-1] == "'mine' holds no report; run the study first"
    panel.load_button.click()
    finish(qtbot, bench)
    assert told()[-1] == "'mine' holds no finished run; run the study first"
    panel.out.setText(" ")
    panel.run_button.click()
    assert told()[-1] == "'results in' is empty; choose a folder"
    panel.folder.setText(str(few_scans))
    panel.save_button.click()
    finish(qtbot, bench)
    assert "holds the study itself, which is left as it is; choose a new folder" in told()[-1]
    panel.out.setText(str(few_scans / "results"))
    monkeypatch.setattr(sys, "executable", str(few_scans / "no_python"))
    panel.run_button.click()
    finish(qtbot, bench)
    assert "no_python cannot be started" in told()[-1]
    assert panel.run_button.isEnabled()
    monkeypatch.undo()
    monkeypatch.setattr(batch_panel, "command", lambda *_: ["-c", "import os; os.abort()"])
    panel.run_button.click()
    finish(qtbot, bench)
    assert told()[-1].startswith("The run's program died before its first scan (out of memory, or ended from outside)")


def test_closing_the_viewer_ends_the_program(make_napari_viewer, few_scans, qtbot, monkeypatch):
    monkeypatch.setattr(batch_panel, "command", lambda *_: ["-c", HANGING])
    viewer = make_napari_viewer(show=True)
    panel = BatchPanel(viewer)
    viewer.window.add_dock_widget(panel)
    bench = Bench.of(viewer)
    bench.open(few_scans)
    finish(qtbot, bench)
    panel.run_button.click()
    qtbot.waitUntil(lambda: bench.program is not None and bench.program.run.done == 1, timeout=20_000)
    process = bench.program.process_id()
    assert runs(process)
    viewer.close()
    qtbot.waitUntil(lambda: not runs(process), timeout=10_000)
