"""Curves panel: an organ's time curve for every label, the scan behind each point, and what the estimator leaves over."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QLabel, QPlainTextEdit, QPushButton

from evbiodist.batch import pipeline, store
from evbiodist.report.figures import UNITS, colours
from evbiodist.study.model import ScanRecord
from evbiodist.study.vocabulary import WHOLE_BODY
from napari_evbiodist.bench import Job, ours
from napari_evbiodist.converters import INDEX, KEY, ORGAN
from napari_evbiodist.curves_model import (
    CURVE_TABLE,
    Observed,
    frame_hours,
    group_of,
    observe,
    on_organs,
    point_words,
    residual_of,
    scan_behind,
)
from napari_evbiodist.panels.parts import Panel, Rows, Table, in_words
from napari_evbiodist.panels.plot import Plot, Series
from napari_evbiodist.preferences import preferences
from napari_evbiodist.session import Session

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image
    from napari.types import FullLayerData

_COLUMNS = {"label": "label", "hours": "time_h", "mean": "mean", "low": "low", "high": "high", "n": "n", "odd": "odd"}
#: Shapes of dots, one a label, because colour alone tells nothing.
_SYMBOLS = ("o", "s", "t", "d", "t1", "p", "star", "h")
#: While measurements arrive, curves are renewed this often; the mouse is followed this often.
_RENEW_MS, _LOOK_MS, _LIST_MS = 500, 40, 200
_NOTHING = "Open a study in the study panel; its curves are shown here."
_ON_THE_WAY = "The numbers are on the way."
_NO_NUMBERS = "No organ has numbers yet: measure a scan."
_DEFAULT_ORGAN = "liver"


class CurvesPanel(Panel):
    """Time curves of the organ under the mouse or of a chosen one."""

    title = "Curves"

    def build(self) -> None:
        """Make the widgets."""
        self.observed: Observed | None = None
        self.rows: list[dict[str, Any]] = []
        self.hovered: str | None = None
        self.residual: Image | None = None
        self._wanted = {"organ": self.bench.organ or "", "unit": preferences().unit, "group": ""}
        self._state: tuple[Any, ...] | None = None
        self._job: Job | None = None
        self._pointer: Any = None
        self._build_choices()
        self.plot = Plot(260)
        self.plot.setFixedHeight(320)
        self.plot.clicked.connect(self.go_to_point)
        self.column.addWidget(self.plot)
        self.about = QLabel(_NOTHING)
        self.about.setWordWrap(True)
        self.about.setMinimumHeight(
            2 * self.about.fontMetrics().lineSpacing()
        )  # the column stays still while the mouse moves
        self.column.addWidget(self.about)
        self.table = Table(
            Rows(_COLUMNS, dict.fromkeys(_COLUMNS.values(), "said"), mark=lambda row: bool(row["reason"])), 150
        )
        self.table.chosen.connect(self.go_to)
        self.column.addWidget(self.table)
        self._build_buttons()
        self.source = QLabel()
        self.source.setWordWrap(True)
        self.column.addWidget(self.source)
        self.failed = QPlainTextEdit()
        self.failed.setReadOnly(True)
        self.failed.setFixedHeight(80)
        self.failed.hide()
        self.column.addWidget(self.failed)
        self.column.addStretch()
        self._listen()
        self.renew()

    def _build_choices(self) -> None:
        self.organ, self.unit, self.group = QComboBox(), QComboBox(), QComboBox()
        for box, key, tip in (
            (self.organ, "organ", "whose curve is shown while the mouse is over no organ"),
            (self.unit, "unit", "units that there are observations in; nothing is converted"),
            (self.group, "group", "group of animals"),
        ):
            box.setToolTip(tip)
            box.setAccessibleName(key)
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
            box.activated.connect(partial(_chosen, weakref.ref(self), key))
        self.row(self.organ, self.unit, self.group).addStretch()
        self.log_time, self.log_value = QCheckBox("log time"), QCheckBox("log value")
        self.follow = QCheckBox("follow the mouse")
        self.follow.setToolTip("show the organ under the mouse; a click on an organ keeps it")
        self.log_time.setChecked(True)
        self.follow.setChecked(True)
        for check in (self.log_time, self.log_value):
            check.setToolTip("logarithmic axis; what is not above zero cannot be shown on it")
            check.toggled.connect(self.show_curve)
        self.row(self.log_time, self.log_value, self.follow).addStretch()

    def _build_buttons(self) -> None:
        self.row(
            self.button(
                "Measure this scan", self.measure_this, "get the numbers of the scan that is shown, as the batch does"
            ),
            self.button("Measure all", self.measure_all, "every scan that has no numbers yet"),
        )
        self.left, self.values = QPushButton("Residual"), QPushButton("Values on the organs")
        self.left.setToolTip(
            "what the organs' footprints do not explain of this scan and frame, as a layer around zero"
        )
        self.values.setToolTip("write value, error, unit, flags or reason into the features table of the organs' layer")
        for button, does in ((self.left, self.show_residual), (self.values, self.show_values)):
            button.setCheckable(True)
            button.toggled.connect(does)
        self.row(self.left, self.values)
        self.row(
            self.button("Save table…", self.ask_table, "the numbers of the curve as CSV"),
            self.button("Save picture…", self.ask_picture, "the plot as SVG or PNG"),
        )

    def _listen(self) -> None:
        self.soon, self.look_soon, self.list_soon, self.frame_soon = (QTimer(self) for _ in range(4))
        for timer, wait, does in (
            (self.soon, _RENEW_MS, self.renew),
            (self.look_soon, _LOOK_MS, self.look),
            (self.list_soon, _LIST_MS, self.list_points),
            (self.frame_soon, _RENEW_MS, self.renew_residual),
        ):
            timer.setSingleShot(True)
            timer.setInterval(wait)
            timer.timeout.connect(does)
        bench, viewer = self.bench, self.bench.viewer
        bench.opened.connect(self._opened)
        bench.measured.connect(self._outdated)
        bench.jobs_changed.connect(self._job_ended)
        bench.shown.connect(self._shown)
        bench.edited.connect(self._edited)
        bench.settings_changed.connect(self._edited)
        bench.organ_picked.connect(self.choose)
        viewer.dims.events.current_step.connect(self._moved)
        viewer.layers.events.removed.connect(self._layer_removed)
        pointer = Pointer(self)
        viewer.mouse_move_callbacks.append(pointer.move)
        viewer.mouse_drag_callbacks.append(pointer.press)
        self.destroyed.connect(partial(_unhook, weakref.ref(viewer), pointer))

    # numbers

    @in_words
    def _opened(self) -> None:
        self.observed = self._state = self.hovered = None
        self._wanted["organ"] = self.bench.organ or ""
        self.renew()
        self.show_curve()

    @in_words
    def _outdated(self) -> None:
        if not self.soon.isActive():
            self.soon.start()

    @in_words
    def _job_ended(self) -> None:
        if self._job is not None and not self._job.running:
            called_off, self._job = self._job.cancelled, None
            if called_off:
                self._state = None
            self._outdated()

    @in_words
    def renew(self) -> None:
        """Get the numbers of the study as it stands, in the other process, unless they are there or on the way."""
        session = self.bench.session
        if session is None or (self._job is not None and self._job.running):
            return
        state = (session, session.study, session.unmeasured())
        if self._state is not None and all(a is b or (isinstance(a, list) and a == b) for a, b in
                                           zip(state, self._state, strict=True)):  # fmt: skip
            return
        self._state = state
        scanned, failures = session.scanned()
        failures = {name: reason for name, reason in failures.items() if name not in state[2]}
        self._job = self.bench.work("curves", observe, session.study, scanned, failures, preferences().level,
                                    _results(session), then=partial(self._take, session), failed=self._failed)  # fmt: skip

    @in_words
    def _take(self, session: Session, observed: Observed) -> None:
        if self.bench.session is session:
            self.observed = observed
            self.show_curve()
            self.show_values(self.values.isChecked())

    @in_words
    def _failed(self, sentence: str) -> None:
        self.observed = None
        self.show_curve()
        self.about.setText(sentence)
        self.bench.say_error(sentence)

    def _say_source(self, session: Session) -> None:
        total, left, observed = len(session.study.scans), len(session.unmeasured()), self.observed
        if _results(session) is not None and session.results is not None:
            words = f"Numbers of the result folder '{session.results.name}', until something of the study is changed."
        else:
            words = f"{total - left} of {total} scans were measured." if total else "The study holds tables only."
            if session.drafts:
                words += f" {len(session.drafts)} more need subject, label and time, given in the study panel."
        failures = {} if observed is None else observed.failures
        self.source.setText(words + (" These gave nothing:" if failures else ""))
        self.failed.setPlainText("\n".join(f"{name}: {reason}" for name, reason in failures.items()))
        self.failed.setVisible(bool(failures))

    # the curve

    @in_words
    def show_curve(self, *_: Any) -> None:
        """Draw the curve of the organ under the mouse, else of the chosen one."""
        session, observed = self.bench.session, self.observed
        if session is None:
            return
        self._say_source(session)
        organ, unit, group = self._fill_choices(observed)
        self.rows = [] if observed is None or not unit else observed.curves[organ, unit].table(group)
        for row in self.rows:
            row["said"], row["odd"] = point_words(row), row["reason"] or row["flags"].replace(";", ", ")
        self.list_soon.start()
        log_x, log_y = self.log_time.isChecked(), self.log_value.isChecked()
        self.plot.put(
            self._series(session), "hours after dose", f"{organ}, {UNITS.get(unit, unit)}" if unit else "", log_x, log_y
        )
        self._mark_time()
        self._say_about(organ, unit, group)

    @in_words
    def list_points(self) -> None:
        """Put the curve's numbers into the table; later than the plot, as it takes longer than a mouse waits."""
        self.table.put(self.rows)

    def _fill_choices(self, observed: Observed | None) -> tuple[str, str, str]:
        organs = observed.organs if observed is not None else ()
        wanted = self._wanted["organ"] or (_DEFAULT_ORGAN if _DEFAULT_ORGAN in organs else "")
        kept = _fill(self.organ, organs, wanted)
        organ = self.hovered or wanted or kept
        units = observed.units(organ) if observed is not None else ()
        unit = _fill(self.unit, units, self._wanted["unit"], UNITS)
        groups = observed.groups(organ, unit) if observed is not None and unit else ()
        group = _fill(self.group, groups, self._wanted["group"])
        self.group.setVisible(len(groups) > 1)
        return organ, unit, group

    def _series(self, session: Session) -> list[Series]:
        labels = sorted({*session.study.labels, *(str(r["label"]) for r in self.rows)})
        palette, found = colours(labels), []
        for number, label in enumerate(labels):
            here = [r for r in self.rows if r["label"] == label and not r["reason"]]
            if here:
                x, y, low, high = ([r[key] for r in here] for key in ("time_h", "mean", "low", "high"))
                x = _beside(x, number - (len(labels) - 1) / 2, self.log_time.isChecked())
                found.append(Series(here, label, palette[label], x, y, low, high, tips=[r["said"] for r in here],
                                    symbol=_SYMBOLS[number % len(_SYMBOLS)]))  # fmt: skip
        return found

    def _say_about(self, organ: str, unit: str, group: str) -> None:
        if not unit:
            known = self.observed is not None and self.observed.curves
            words = f"No numbers of {organ}; measure a scan that shows it." if known else _NO_NUMBERS
            self.about.setText(words if self.observed is not None else _ON_THE_WAY)
            return
        points = [r for r in self.rows if not r["reason"]]
        off = sum(
            (self.log_time.isChecked() and r["time_h"] <= 0) or (self.log_value.isChecked() and r["mean"] <= 0)
            for r in points
        )
        level = f"{100 * self.observed.curves[organ, unit].level:g} %" if self.observed is not None else ""
        words = f"{organ}{' (under the mouse)' if self.hovered else ''}, {group}: means with {level} intervals"
        lost = len(self.rows) - len(points)
        words += f"; {lost} values missing, with the reason in the table" if lost else ""
        words += f"; {off} points at or below zero have no place on a logarithmic axis" if off else ""
        self.about.setText(words)

    def pick_choice(self, key: str) -> None:
        """Take what was chosen in a combo box."""
        box: QComboBox = getattr(self, key)
        self._wanted[key] = str(box.currentData())
        self.hovered = None
        if key == "organ":
            self.bench.pick(self._wanted["organ"])
        self.show_curve()
        self.show_values(self.values.isChecked())

    @in_words
    def choose(self, organ: str) -> None:
        """Show an organ until another is chosen."""
        self._wanted["organ"], self.hovered = organ, None
        self.show_curve()

    # the mouse

    @in_words
    def look(self) -> None:
        """Show the organ where the mouse was last."""
        organ = self.organ_at(self._pointer) if self._pointer is not None and self.isVisible() else None
        if self.follow.isChecked() and organ != self.hovered:
            self.hovered = organ
            self.show_curve()

    def point_at(self, event: Any) -> None:
        """Note where the mouse is; the curve follows a moment later, however many moves there are."""
        if self.follow.isChecked():
            self._pointer = (event.position, event.view_direction, event.dims_displayed)
            if not self.look_soon.isActive():
                self.look_soon.start()

    def organ_at(self, pointer: tuple[Any, Any, Any]) -> str | None:
        """Return the organ at a place of the viewer, None where there is none."""
        layer = self.bench.organs_layer()
        if layer is None or ORGAN not in layer.features:
            return None
        position, direction, displayed = pointer
        value = layer.get_value(position, view_direction=direction, dims_displayed=displayed, world=True)
        found = layer.features.loc[layer.features[INDEX] == value, ORGAN] if value else ()
        name = next((str(v) for v in found if isinstance(v, str) and v), None)
        return WHOLE_BODY if name is not None and name.startswith("animal_") else name

    @in_words
    def keep(self, event: Any) -> None:
        """Choose the organ that was clicked on."""
        organ = self.organ_at((event.position, event.view_direction, event.dims_displayed))
        if organ is not None:
            self.choose(organ)
            self.bench.pick(organ)

    # from points to scans and frames, and back

    @in_words
    def go_to_point(self, rows: list[dict[str, Any]], position: int) -> None:
        """Show the scan behind a point of the plot; of several scans the next at every click."""
        self.go_to(rows[position])

    @in_words
    def go_to(self, row: Mapping[str, Any]) -> None:
        """Show the scan and frame behind a row of the table."""
        if row["reason"]:
            return
        scan = scan_behind(row["sources"], (r.scan for r in self.bench.study().study.scans), self.bench.current)
        if scan is None:
            self.bench.say(f"{row['label']} at {row['time_h']:g} h came from a table, so there is no picture of it")
        elif scan == self.bench.current:
            self.go_to_frame(row["time_h"])
        else:
            self.bench.show(scan, then=partial(self.go_to_frame, row["time_h"]))

    @in_words
    def go_to_frame(self, time_h: float) -> None:
        """Move to the frame of the shown scan that is nearest in time."""
        hours, axis, layer = self._frames(), self._time_axis(), self.bench.signal_layer()
        if len(hours) > 1 and axis is not None and layer is not None:
            frame = min(range(len(hours)), key=lambda i: abs(hours[i] - time_h))
            step = float(layer.scale[axis - self.bench.viewer.dims.ndim])
            self.bench.viewer.dims.set_point(axis, frame * step)

    def _frames(self) -> tuple[float, ...]:
        """Return the hours of the shown scan's frames; nothing where no scan of the study is shown."""
        record, layer = self._record(), self.bench.signal_layer()
        return () if record is None or layer is None else frame_hours(ours(layer)["scan"], record)

    def _record(self) -> ScanRecord | None:
        session, scan = self.bench.session, self.bench.current
        return None if session is None else next((r for r in session.study.scans if r.scan == scan), None)

    def _time_axis(self) -> int | None:
        layer = self.bench.signal_layer()
        if layer is None or "T" not in ours(layer)["scan"].axes:
            return None
        return int(self.bench.viewer.dims.ndim - layer.ndim + ours(layer)["scan"].axes.index("T"))

    def frame(self) -> int:
        """Return the number of the frame that is shown, 0 for a single image."""
        axis, layer, dims = self._time_axis(), self.bench.signal_layer(), self.bench.viewer.dims
        return 0 if axis is None or layer is None else round(dims.point[axis] / float(layer.scale[axis - dims.ndim]))

    def _mark_time(self) -> None:
        hours = self._frames()
        frame = min(self.frame(), len(hours) - 1) if len(hours) > 1 else 0
        self.plot.mark_time(hours[frame] if hours else None, self.log_time.isChecked())
        layer, scan = self.bench.signal_layer(), self.bench.current
        if len(hours) > 1 and layer is not None and scan is not None:
            caption = self.bench.caption(scan, ours(layer)["scan"])
            when = f"frame {frame + 1} of {len(hours)}, t = {hours[frame]:.3g} h"
            self.bench.viewer.canvas.overlays.text.text = f"{caption}\n{when}"

    @in_words
    def _moved(self, *_: Any) -> None:
        if self._time_axis() is not None:
            self._mark_time()
            if self.left.isChecked() or self.values.isChecked():
                self.frame_soon.start()

    @in_words
    def _shown(self, _scan: str) -> None:
        self.left.setChecked(False)
        self.hovered = None
        record = self._record()
        if record is not None:
            self._wanted["group"] = group_of(self.bench.study().study, record)
        self.show_curve()
        self.show_values(self.values.isChecked())

    @in_words
    def _edited(self, *_: Any) -> None:
        self.left.setChecked(False)  # values come anew with the numbers

    # measuring

    @in_words
    def measure_this(self) -> None:
        """Measure the scan that is shown."""
        session = self.bench.study()
        if self.bench.current is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        scan = session.record(self.bench.current).scan
        if self.bench.measure([scan]) is None:
            self.bench.say(f"{scan} is measured already, as its organs and settings stand")

    @in_words
    def measure_all(self) -> None:
        """Measure every scan that has no numbers yet."""
        if self.bench.measure() is None:
            self.bench.say("every scan is measured already, as organs and settings stand")

    # layers

    @in_words
    def show_residual(self, on: bool) -> None:
        """Show or remove the residual of the shown scan and frame."""
        if not on:
            if self.residual is not None and self.residual in self.bench.viewer.layers:
                self.bench.viewer.layers.remove(self.residual)
            self.residual = None
            return
        try:
            self.bench.keep_edits()
            session, scan, frame = self.bench.study(), self.bench.current or "", self.frame()
            task = pipeline.task_of(session.study, [session.record(scan)])
        except ValueError:
            self.left.setChecked(False)
            raise
        self.bench.work("residual", residual_of, task, frame, then=partial(self._put_residual, scan, frame),
                        failed=self._no_residual)  # fmt: skip

    @in_words
    def _put_residual(self, scan: str, frame: int, layer: FullLayerData) -> None:
        if not self.left.isChecked() or (scan, frame) != (self.bench.current, self.frame()):
            return
        from napari.layers import Layer

        data, keywords, kind = layer
        keywords["metadata"][KEY]["of"] = scan
        viewer = self.bench.viewer
        if self.residual is not None and self.residual in viewer.layers:
            self.residual.data, self.residual.contrast_limits = data, keywords["contrast_limits"]
            self.residual.metadata = keywords["metadata"]
            return
        organs, active = self.bench.organs_layer(), viewer.layers.selection.active
        self.residual = Layer.create(data, keywords, kind)
        viewer.layers.insert(len(viewer.layers) if organs is None else viewer.layers.index(organs), self.residual)
        viewer.layers.selection.active = active

    @in_words
    def _no_residual(self, sentence: str) -> None:
        self.left.setChecked(False)
        self.bench.say_error(sentence)

    @in_words
    def renew_residual(self) -> None:
        """Follow the frame with what was asked for of it."""
        if self.left.isChecked():
            self.show_residual(True)
        self.show_values(self.values.isChecked())

    @in_words
    def _layer_removed(self, event: Any) -> None:
        if self.residual is not None and event.value is self.residual:
            self.residual = None
            self.left.setChecked(False)

    @in_words
    def show_values(self, on: bool) -> None:
        """Write what was measured of the shown scan and frame into the organs' features table, or take it away."""
        layer, hours, observed = self.bench.organs_layer(), self._frames(), self.observed
        record = self._record()
        if layer is None or record is None or not hours:
            return
        if on and observed is not None:
            unit = self.unit.currentData() or self._wanted["unit"]
            hour = hours[min(self.frame(), len(hours) - 1)]
            _, keywords, _ = on_organs(layer.as_layer_data_tuple(), observed, record, hour, unit)
            layer.features, layer.metadata = keywords["features"], keywords["metadata"]
        elif not on and "reason" in layer.features:
            layer.features = layer.features[[INDEX, ORGAN]]

    # saving

    @in_words
    def ask_table(self) -> None:
        """Ask for a file and save the table."""
        name, _ = QFileDialog.getSaveFileName(self, "Save the numbers of the curve", "curve.csv", "tables (*.csv)")
        if name:
            self.save_table(Path(name))

    def save_table(self, path: Path) -> None:
        """Write what is shown as CSV, numbers to their last digit."""
        if not self.rows:
            raise ValueError("there is no curve to save; measure a scan first")
        store.write_bytes(path, store.csv_bytes(self.rows, CURVE_TABLE))

    @in_words
    def ask_picture(self) -> None:
        """Ask for a file and save the plot."""
        name, _ = QFileDialog.getSaveFileName(self, "Save the plot", "curve.svg", "pictures (*.svg *.png)")
        if name:
            self.plot.save(name)


class Pointer:
    """Tells a panel of the mouse over the viewer; holds it weakly, as a viewer keeps its callbacks."""

    def __init__(self, panel: CurvesPanel) -> None:
        self._panel = weakref.ref(panel)

    def move(self, _viewer: Any, event: Any) -> None:
        """Hear of a move."""
        panel = self._panel()
        if panel is not None:
            panel.point_at(event)

    def press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Hear of a press; released at the same place it is a click, unless it paints."""
        active = viewer.layers.selection.active
        if active is not None and str(active.mode) != "pan_zoom":
            return
        yield
        if event.type == "mouse_release":
            panel = self._panel()
            if panel is not None:
                panel.keep(event)
        while event.type == "mouse_move":
            yield


def _unhook(viewer: weakref.ref[Viewer], pointer: Pointer, *_: Any) -> None:
    there = viewer()
    if there is not None:
        for callbacks, ours_ in (
            (there.mouse_move_callbacks, pointer.move),
            (there.mouse_drag_callbacks, pointer.press),
        ):
            if ours_ in callbacks:
                callbacks.remove(ours_)


def _chosen(panel: weakref.ref[CurvesPanel], key: str, *_: Any) -> None:
    there = panel()
    if there is not None:
        there.pick_choice(key)


def _results(session: Session) -> Path | None:
    """Return the result folder whose numbers are the study's, None once something was changed."""
    return session.results if session.untouched else None


def _beside(hours: list[float], place: float, log: bool) -> list[float]:
    """Return times moved by a hair, so that the intervals of several labels stand beside each other."""
    if log:
        return [h * 1.025**place for h in hours]
    return [h + 0.006 * place * (max(hours) - min(hours)) for h in hours]


def _fill(box: QComboBox, values: tuple[str, ...], wanted: str, words: Mapping[str, str] | None = None) -> str:
    """Offer values and select the wanted one, else the first; return it, empty where there is none."""
    if [box.itemData(i) for i in range(box.count())] != list(values):
        box.clear()
        for value in values:
            box.addItem((words or {}).get(value, value), value)
    box.setCurrentIndex(values.index(wanted) if wanted in values else 0 if values else -1)
    box.setEnabled(bool(values))
    return str(box.currentData() or "")
