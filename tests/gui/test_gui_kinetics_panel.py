"""The kinetics panel in a real viewer: rules, analysis, samples toggled, models and labels against each other."""

import math
import time
import tomllib
from pathlib import Path

import pytest
from napari.utils.notifications import notification_manager
from napari_evbiodist import kinetics_model
from napari_evbiodist.bench import Bench
from napari_evbiodist.panels.kinetics_panel import KineticsPanel
from qtpy.compat import isalive
from qtpy.QtCore import QPointF, Qt

import evbiodist as ev
from evbiodist.batch.pipeline import run_study
from evbiodist.crossval.compare import Comparison

pytestmark = pytest.mark.gui
WHY = "1 h is still distribution"


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


def finish(qtbot, bench):
    qtbot.waitUntil(lambda: not bench.jobs, timeout=120_000)


def told():
    return [str(n.message) for n in notification_manager.records]


def click(qtbot, page, position):
    """Click a sample with the mouse, where it stands on the screen."""
    qtbot.wait(100)  # axes take their room in Qt's own time
    canvas, line = page.plot.canvas, page.line
    view = canvas.getPlotItem().vb
    spot = canvas.mapFromScene(view.mapViewToScene(QPointF(line.time_h[position], math.log10(line.value[position]))))
    qtbot.mouseMove(canvas.viewport(), spot)
    qtbot.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, pos=spot)


def test_a_study_is_analysed_as_the_batch_does_and_its_samples_can_be_toggled(viewer, two_labels, qtbot, tmp_path):
    bench = Bench.of(viewer)
    panel = KineticsPanel(viewer)
    viewer.window.add_dock_widget(panel)
    # without a study it says what to do, and nothing can be pressed
    assert "No study is open" in panel.state.text()
    assert not panel.go.isEnabled()
    assert not panel.keep.isEnabled()
    bench.open(two_labels)
    finish(qtbot, bench)
    assert "Nothing is analysed yet" in panel.state.text()
    # rules: what is clicked is a setting
    items = {panel.rules.models.item(i).text(): panel.rules.models.item(i) for i in range(panel.rules.models.count())}
    checked = [name for name, item in items.items() if item.checkState() == Qt.CheckState.Checked]
    assert checked == ["one_compartment_iv", "two_compartment_iv", "plasma_with_organs"]
    assert items["two_compartment_iv"].toolTip() == "Two compartments, intravenous bolus or infusion"
    items["plasma_with_organs"].setCheckState(Qt.CheckState.Unchecked)
    panel.rules.fields["method"].setCurrentText("linear")
    panel.rules.fields["method"].activated.emit(0)
    panel.rules.fields["level"].setValue(0.9)
    panel.rules.fields["refuse_extrap"].click()
    settings = bench.session.study.settings.kinetics
    assert settings.models == ("one_compartment_iv", "two_compartment_iv")
    assert (settings.method, settings.level, settings.refuse_extrap) == ("linear", 0.9, True)
    bench.change_settings(kinetics={"level": 0.95, "refuse_extrap": False}, crossval={"model": "two_compartment_iv"})
    assert panel.rules.fields["level"].value() == 0.95
    # analysis
    panel.go.click()
    assert not panel.go.isEnabled()
    finish(qtbot, bench)
    assert panel.go.isEnabled()
    assert panel.state.text() == ""
    assert panel.tabs.currentWidget() is panel.curve
    page = panel.curve
    assert [page.group.itemText(i) for i in range(page.group.count())] == ["followed", "treated"]
    assert page.group.currentText() == "treated"  # the one with most to see
    assert [s.name for s in page.plot.series if s.name] == ["NanoLuc", "mCherry"]
    assert [s.band for s in page.plot.series] == [True, False, True, False]
    assert page.organ.currentText() == "blood"
    assert "Choose one label" in page.line_words.text()
    # a click on a row of the table is that label's curve, with its terminal line
    wanted = next(
        i for i, r in enumerate(page.table.rows.rows) if (r["label"], r["parameter"]) == ("NanoLuc", "lambda_z")
    )
    page.table.setCurrentIndex(page.table.proxy.mapFromSource(page.table.rows.index(wanted, 0)))
    assert page.label.currentText() == "NanoLuc"
    line = page.line
    value = next(r["value"] for r in panel.fitted.parameters if r["parameter"] == "lambda_z" and r["organ"] == "blood"
                 and (r["group"], r["label"]) == ("treated", "NanoLuc"))  # fmt: skip
    assert line.lambda_z.value == value
    assert f"lambda_z = {value:.3g} (" in page.details.text()
    assert f"lambda_z = {value:.3g} (" in page.line_words.text()
    samples = page.plot.series[-1]
    assert [not h for h in samples.hollow] == [i in line.positions for i in range(6)]
    # words find rows; the organ that somebody points at is shown
    page.find.setText("half_life")
    assert 0 < page.table.proxy.rowCount() < 6
    page.find.clear()
    bench.pick("liver")
    assert page.organ.currentText() == "liver"
    page.choose(organ="blood")
    # a click on a sample asks for a reason once, then makes that curve anew
    first = next(i for i in range(5, -1, -1) if i not in line.positions)
    click(qtbot, page, first)
    assert page.draft is not None
    assert "say below why" in page.line_words.text()
    assert bench.session.study.settings.kinetics.lambda_z == ()
    page.why.returnPressed.emit()
    assert told()[-1].startswith("say why these samples")
    page.why.setText(WHY)
    page.why.returnPressed.emit()
    finish(qtbot, bench)
    line = page.line
    assert line.chosen
    assert first in line.positions
    assert page.draft is None
    assert page.why.text() == WHY
    assert "chosen by hand" in page.line_words.text()
    assert panel.state.text() == ""
    # now that there is a reason, the next click counts at once
    other = next(i for i in range(6) if i not in line.positions)
    click(qtbot, page, other)
    finish(qtbot, bench)
    assert other in page.line.positions
    # what is saved and run by the batch has the bytes that the panel saves
    panel.save(tmp_path / "shown.csv")
    run_study(ev.load_study(bench.session.save(two_labels / "mine")), tmp_path / "out")
    assert (tmp_path / "shown.csv").read_bytes() == (tmp_path / "out" / "parameters.csv").read_bytes()
    [saved] = tomllib.loads((two_labels / "mine.study.toml").read_text())["kinetics"]["lambda_z"]
    assert saved["why"] == WHY
    # the result folder, opened: the same numbers at once, and the same choice
    bench.open(tmp_path / "out")
    finish(qtbot, bench)
    assert panel.state.text() == "• These numbers are those of the result folder that was opened."
    assert page.group.currentText() == "treated"
    page.choose(label="NanoLuc", organ="blood")
    assert page.line.chosen
    assert page.why.text() == WHY
    panel.save(tmp_path / "read.csv")
    assert (tmp_path / "read.csv").read_bytes() == (tmp_path / "out" / "parameters.csv").read_bytes()
    # the best points again, as if nothing had been
    page.best.click()
    finish(qtbot, bench)
    assert bench.session.study.settings.kinetics.lambda_z == ()
    assert page.line.lambda_z.value == value
    assert page.why.text() == ""
    # models against each other, in words
    assert "Models are compared when you press Analyse" in panel.models.words.text()
    panel.analyse()
    finish(qtbot, bench)
    assert panel.state.text() == ""
    assert page.line.lambda_z.value == value
    assert panel.models.table.rows.rows[0]["model"] == "two_compartment_iv"
    assert "two_compartment_iv is preferred: weight 1.00" in panel.models.words.text()
    # changed settings: the numbers are called outdated, and are not saved under the new settings
    bench.change_settings(kinetics={"blq": "zero"})
    assert "numbers are from before" in panel.state.text()
    panel.save(tmp_path / "not.csv")
    assert told()[-1].startswith("the parameters are from before the last change")
    assert not (tmp_path / "not.csv").exists()
    bench.change_settings(kinetics={"blq": "pknca"})
    assert panel.state.text() == ""
    # another study: nothing of the former is left
    bench.open(two_labels / "mine.study.toml")
    finish(qtbot, bench)
    assert panel.fitted is None
    assert page.table.rows.rows == []
    assert not panel.keep.isEnabled()


def answer():
    """A comparison as the batch writes it, made by hand: two labels, one of which misreads."""
    place = {"study": "two labels", "group": "treated"}
    bias = [{**place, "label": label, "organ": organ, "ratio": r, "ratio_low": r / 1.2, "ratio_high": r * 1.2, "relative": False,
             "reason": ""} for label, r in (("NanoLuc", 1.0), ("mCherry", 2.5)) for organ in ("brain", "liver")]  # fmt: skip
    row = {
        **place,
        "unit": "pct_id",
        "method": "m",
        "flags": "",
        "reason": "",
        "prediction_low": math.nan,
        "prediction_high": math.nan,
    }
    numbers = (
        ("NanoLuc", 1.0, ""),
        ("mCherry", math.nan, "no blood"),
        ("consensus", 1.5, ""),
        ("joint", 1.2, "they differ because"),
    )
    consensus = [{**row, "quantity": f"{organ}_uptake_pct_id", "label": label, "estimate": v, "ci_low": v / 2, "ci_high": v * 2,
                  "why": why if label == "joint" else "", "reason": why if label == "mCherry" else ""}
                 for organ in ("brain", "liver") for label, v, why in numbers]  # fmt: skip
    alerts = [{**place, "label": "mCherry", "accused": True, "evidence": "mCherry misreads"},
              {**place, "label": "NanoLuc", "accused": False, "evidence": "nothing speaks against NanoLuc"}]  # fmt: skip
    return Comparison(label_bias=bias, consensus=consensus, alerts=alerts, notes=["in_vivo: no joint answer: no blood"])


def test_labels_are_compared_by_map_forest_and_sentences(viewer, two_labels, qtbot):
    bench = Bench.of(viewer)
    bench.open(two_labels)
    finish(qtbot, bench)
    bench.change_settings(kinetics={"models": ["one_compartment_iv"]}, crossval={"model": "one_compartment_iv"})
    panel = KineticsPanel(viewer)  # opened after the study
    viewer.window.add_dock_widget(panel)
    assert panel.go.isEnabled()
    page = panel.labels
    assert "Nothing is analysed yet" in page.empty.text()
    assert page.map.isHidden()
    panel.analyse()
    finish(qtbot, bench)
    panel._take_comparison(bench.session.study, answer())
    panel.tabs.setCurrentWidget(page)
    assert page.alerts.text() == "• mCherry misreads.\n• Nothing speaks against NanoLuc."
    assert (page.map.rowCount(), page.map.columnCount()) == (2, 2)
    cell = page.map.item(0, 1)
    assert cell.text() == "▲ 2.50\n2.08–3.00"
    assert cell.background().color().red() > cell.background().color().blue() + 100
    assert page.map.item(0, 0).text() == "1.00\n0.83–1.20"
    assert [line.name for line in page.forest.lines] == ["NanoLuc", "mCherry", "consensus", "joint answer"]
    assert page.why.text() == "• they differ because"
    assert "in_vivo: no joint answer: no blood" in panel.missing.toPlainText()
    # pixels: the consensus is drawn black, a label in its own colour
    picture = page.forest.canvas.grab().toImage()
    seen = {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}
    assert {"#0072b2", "#000000", "#b00020"} <= seen
    # a click on the map is that organ, here and everywhere
    page.map.cellClicked.emit(1, 0)
    assert bench.organ == "liver"
    assert page.quantity.currentText() == "liver_uptake_pct_id"
    assert panel.curve.organ.currentText() == "liver"
    # work that was called off leaves what there was, and says so
    job = panel.bench.work("analysing", time.sleep, 60, lane="long")
    job.cancel()
    finish(qtbot, bench)
    assert panel.go.isEnabled()
    # a panel that is closed while work for it is under way is forgotten without a word
    before = len(told())
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: not isalive(panel))
    panel._take_comparison(bench.session.study, answer())
    assert len(told()) == before


def test_a_scan_that_fails_and_a_study_without_numbers_are_said(viewer, few_scans, qtbot):
    rows = (few_scans / "scans.csv").read_text().splitlines()
    name = rows[1].split(",")[rows[0].split(",").index("file")]
    Path(few_scans / name).write_bytes(b"II*\0" + b"\0" * 20)
    bench = Bench.of(viewer)
    panel = KineticsPanel(viewer)
    viewer.window.add_dock_widget(panel)
    bench.open(few_scans)
    finish(qtbot, bench)
    panel.analyse()
    finish(qtbot, bench)
    assert panel.fitted is not None
    text = panel.missing.toPlainText()
    assert f"{rows[1].split(',')[0]} was not measured: " in text
    assert kinetics_model.unanalysed(panel.fitted.parameters, {})[0] in text
    assert panel.labels.empty.text()
