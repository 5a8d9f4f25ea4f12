"""The kinetics panel's page of one curve: its samples, fitted curves, terminal line to be toggled, and its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from evbiodist.kinetics.analyse import TerminalLine
from evbiodist.report.figures import UNITS
from evbiodist.report.words import interval
from evbiodist.study.model import LEAST_ON_LINE, KineticsSettings
from napari_evbiodist.kinetics_model import (
    Fitted,
    Place,
    about,
    choice_of,
    drawn,
    line_at,
    parameter_table,
    point_words,
    toggled,
)
from napari_evbiodist.panels.parts import Rows, Sentences, Table
from napari_evbiodist.panels.plot import Plot, Series

_COLUMNS = {"parameter": "parameter", "value": "value", "interval": "interval", "unit": "unit", "label": "label",
            "animal": "subject", "model": "model", "n": "n", "flags": "flags", "no value or error, because": "reason"}  # fmt: skip
_TIPS = {"flags": "flag_words", "value": "method", "parameter": "method", "reason": "reason"}
_LINE = "lambda_z"
#: On a logarithmic axis a fitted curve is drawn down to this part of the lowest sample.
_BELOW = 3.0
ALL_LABELS, ALL_ANIMALS, NO_MODEL = "all labels", "all animals", "no fitted curve"


class CurvePage(QWidget):
    """Choose a curve, see it, toggle the samples of its terminal line, read its parameters.

    Signals
    -------
    points_chosen : (terminal line, times in h, why) samples that shall make the line.
    points_freed : (terminal line) the best samples shall make it again.
    organ_chosen : (organ) in the combo box.
    refused : (sentence) why a click does nothing.
    """

    points_chosen = Signal(object, object, str)
    points_freed = Signal(object)
    organ_chosen = Signal(str)
    refused = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.fitted = Fitted([])
        self.settings = KineticsSettings()
        self.palette_of: Mapping[str, str] = {}
        self.draft: tuple[float, ...] | None = None
        self._shown: Place | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        self._build_choices(column)
        self.plot = Plot()
        self.plot.setFixedHeight(270)
        self.plot.clicked.connect(self._click)
        column.addWidget(self.plot)
        self._build_line(column)
        self.find = QLineEdit()
        self.find.setPlaceholderText("find parameter, flag, model …")
        self.find.setClearButtonEnabled(True)
        self.table = Table(Rows(_COLUMNS, tips=_TIPS, mark=lambda row: bool(row["missing"])), 220)
        self.find.textChanged.connect(self.table.filter)
        self.table.chosen.connect(self._choose_row)
        self.details = Sentences()
        for widget in (self.find, self.table, self.details):
            column.addWidget(widget)
        column.addStretch()

    def _build_choices(self, column: QVBoxLayout) -> None:
        self.group, self.label, self.organ, self.unit, self.animal, self.model = (QComboBox() for _ in range(6))
        self.log_y, self.log_x = QCheckBox("log values"), QCheckBox("log time")
        self.log_y.setChecked(True)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        tips = {"group": "animals of one treatment", "label": "one label shows the samples of its terminal line",
                "organ": "", "unit": "", "animal": "an animal with a curve of its own, or the mean",
                "curve of": "the fitted model that is drawn"}  # fmt: skip
        self._rows = dict(
            zip(tips, (self.group, self.label, self.organ, self.unit, self.animal, self.model), strict=True)
        )
        for words, box in self._rows.items():
            box.setToolTip(tips[words])
            form.addRow(words, box)
            box.activated.connect(self._chosen)
        self._form = form
        column.addLayout(form)
        line = QHBoxLayout()
        for check in (self.log_y, self.log_x):
            check.toggled.connect(self._draw)
            line.addWidget(check)
        line.addStretch()
        column.addLayout(line)

    def _build_line(self, column: QVBoxLayout) -> None:
        self.line_words = QLabel()
        self.line_words.setWordWrap(True)
        column.addWidget(self.line_words)
        self.why = QLineEdit()
        self.why.setPlaceholderText("why these samples, for instance: 2 h is still distribution")
        self.why.setToolTip("the reason stands in settings.toml and with the results; press Enter")
        self.why.returnPressed.connect(self._give_reason)
        self.best = QPushButton("Best points again")
        self.best.setToolTip("forget the choice: the samples with the best adjusted r2 make the line")
        self.best.clicked.connect(self._free)
        line = QHBoxLayout()
        line.addWidget(self.why)
        line.addWidget(self.best)
        column.addLayout(line)

    # what is chosen

    @property
    def place(self) -> Place:
        """Which curve is looked at."""
        study, group = self.group.currentData() or ("", "")
        return Place(study, group, self.label.currentData() or "", self.organ.currentText(), self.unit.currentData() or "",
                     self.animal.currentData() or "")  # fmt: skip

    @property
    def line(self) -> TerminalLine | None:
        """The terminal line that is looked at."""
        return line_at(self.fitted.lines, self.place) if self.label.currentData() else None

    def put(self, fitted: Fitted, settings: KineticsSettings, palette: Mapping[str, str]) -> None:
        """Show what was fitted; the choices stay where they still exist."""
        self.fitted, self.settings, self.palette_of, self.draft = fitted, settings, palette, None
        self._renew()

    def choose(self, **wanted: str) -> None:
        """Choose group, label, organ, unit or animal by name, as far as there are such; an organ in whatever group has it."""
        if "organ" in wanted and self.organ.findText(wanted["organ"]) < 0:
            there = [(r["study"], r["group"]) for r in self.fitted.points if r["organ"] == wanted["organ"]]
            if there:
                self._set(self.group, there[0])
                self._set(self.label, "")
        for name, value in wanted.items():
            box = {
                "group": self.group,
                "label": self.label,
                "organ": self.organ,
                "unit": self.unit,
                "subject": self.animal,
            }[name]
            found = [box.itemData(i) for i in range(box.count()) if value in _names(box, i)]
            if found:
                self._set(box, found[0])

    def _set(self, box: QComboBox, data: Any) -> None:
        at = next((i for i in range(box.count()) if box.itemData(i) == data), box.currentIndex())
        if at != box.currentIndex():
            box.setCurrentIndex(at)
            self._renew()

    def _chosen(self, _index: int = 0) -> None:
        before = self._shown
        self._renew()
        if before is not None and before.organ != self.place.organ:
            self.organ_chosen.emit(self.place.organ)

    def _renew(self) -> None:
        """Fill each box with what there is under the choices before it, then show the curve."""
        rows = self.fitted.points
        groups = sorted({(r["study"], r["group"]) for r in rows})
        several = len({study for study, _ in groups}) > 1
        whose = [(r["study"], r["group"]) for r in rows if not r["subject"]]
        most = max(groups, key=whose.count, default=None)
        _fill(self.group, {f"{s}, {g}" if several else g: (s, g) for s, g in groups}, most)
        at = self.group.currentData()
        rows = [r for r in rows if (r["study"], r["group"]) == at]
        labels = sorted({r["label"] for r in rows})
        _fill(self.label, ({ALL_LABELS: ""} if len(labels) > 1 else {}) | {x: x for x in labels})
        rows = [r for r in rows if self.label.currentData() in ("", r["label"])]
        _fill(self.organ, {o: o for o in dict.fromkeys(r["organ"] for r in sorted(rows, key=_blood_first))})
        rows = [r for r in rows if r["organ"] == self.organ.currentText()]
        _fill(self.unit, {UNITS.get(u, u): u for u in sorted({r["unit"] for r in rows})})
        rows = [r for r in rows if r["unit"] == self.unit.currentData()]
        animals = sorted({r["subject"] for r in rows} - {""}) if self.label.currentData() else []
        _fill(self.animal, {ALL_ANIMALS: ""} | {a: a for a in animals})
        place = self.place
        there = {r["model"] for r in self.fitted.curves if place.holds(r)}
        models = [m for m in self.settings.models if m in there] + sorted(there - set(self.settings.models))
        _fill(self.model, {m: m for m in models} | {NO_MODEL: ""})
        for words, box in self._rows.items():
            self._form.setRowVisible(
                box, words in ("label", "organ", "curve of") or box.count() > 1 + (box is self.animal)
            )
        if place != self._shown:
            self.draft = None
            self.details.say(())
        self._shown = place
        self.table.put(parameter_table(self.fitted.parameters, place))
        self._show_line()
        self._draw()

    def _choose_row(self, row: Mapping[str, Any]) -> None:
        self.details.say(about(row))
        if not self.label.currentData():
            # a click on a row of all labels asks for that label's curve, in the same order of rows
            self.label.setCurrentIndex(self.label.findData(row["label"]))
            self._renew()
            self.details.say(about(row))
            same = ("parameter", "label", "model", "subject", "unit")
            self.table.choose(lambda other: all(other[k] == row[k] for k in same))

    # the terminal line

    def _show_line(self) -> None:
        line = self.line
        for widget in (self.why, self.best):
            widget.setVisible(line is not None)
        if line is None:
            several = self.label.currentData() and self.animal.count() > 2
            what = "an animal" if several else "one label"
            self.line_words.setText(f"Choose {what} to see, and change, which samples make its terminal line." if self.fitted.points
                                    else "")  # fmt: skip
            return
        held = choice_of(self.settings, line)
        if self.draft is None:
            self.why.setText(held.why if held else "")
        self.best.setEnabled(held is not None or self.draft is not None)
        self.line_words.setText(self._line_sentence(line))

    def _line_sentence(self, line: TerminalLine) -> str:
        if self.draft is not None:
            return f"Samples at {_hours(self.draft)}: say below why, and press Enter."
        e = line.lambda_z
        if not line.positions or math.isnan(e.value):
            return f"No terminal line: {e.reason}. Click samples to choose them."
        who = "chosen by hand" if line.chosen else "best adjusted r2"
        times = _hours([line.time_h[i] for i in line.positions])
        return f"lambda_z = {interval(e.value, e.ci_low, e.ci_high)} {e.unit} from {times} ({who}). Click a sample to change that."

    def _click(self, key: Any, position: int) -> None:
        line = self.line
        if key != _LINE or line is None:
            return
        times = self.draft if self.draft is not None else tuple(line.time_h[i] for i in line.positions)
        try:
            times = toggled(line, times, position)
        except ValueError as err:
            self.refused.emit(str(err))
            return
        self.draft = times
        if self.why.text().strip() and len(times) >= LEAST_ON_LINE:
            self._give_reason()
            return
        self.why.setFocus()
        self._show_line()
        self._draw()

    def _give_reason(self) -> None:
        line = self.line
        if line is None:
            return
        times = self.draft if self.draft is not None else tuple(line.time_h[i] for i in line.positions)
        if self.draft is not None or line.chosen:
            self.points_chosen.emit(line, times, self.why.text())

    def _free(self, _checked: bool = False) -> None:
        line = self.line
        if line is None:
            return
        if self.draft is not None:
            self.draft = None
            self._show_line()
            self._draw()
        if choice_of(self.settings, line) is not None:
            self.points_freed.emit(line)

    # drawing

    def _draw(self, _checked: bool = False) -> None:
        place, line, log_y = self.place, self.line, self.log_y.isChecked()
        points = [r for r in self.fitted.points if place.holds(r) and r["subject"] == place.subject]
        floor = min((r["mean"] for r in points if r["mean"] > 0), default=0.0) / _BELOW
        series: list[Series] = []
        for label in sorted({r["label"] for r in points}):
            colour = self.palette_of.get(label, "#000000")
            model = [r for r in self._model_curve(label) if r["value"] > floor or not log_y]
            if model:
                series.append(Series((label, "model"), "", colour, *_columns(model, "value"), dots=False, band=True))
            mine = [r for r in points if r["label"] == label]
            tips = [
                f"{label}, {r['time_h']:g} h: {interval(r['mean'], r['low'], r['high'])} {r['unit']}, n = {r['n']}"
                for r in mine
            ]
            series.append(Series(label, "" if line else label, colour, *_columns(mine, "mean"), line=False, dots=line is None,
                                 tips=tips))  # fmt: skip
        if line is not None:
            series += self._terminal(line)
        unit = UNITS.get(place.unit, place.unit)
        self.plot.put(series, "hours after dose", unit, self.log_x.isChecked(), log_y)

    def _model_curve(self, label: str) -> list[Mapping[str, Any]]:
        place, wanted = self.place, (label, self.model.currentData())
        if place.subject:  # models are fitted to all animals together
            return []
        return [r for r in self.fitted.curves if (r["label"], r["model"]) == wanted and place.holds(r)]

    def _terminal(self, line: TerminalLine) -> Sequence[Series]:
        shown = line
        if self.draft is not None:
            on = tuple(i for i, t in enumerate(line.time_h) if t in self.draft)
            shown = replace(line, positions=on, off={i: why for i, why in line.off.items() if i not in on})
        colour = self.palette_of.get(line.label, "#000000")
        found = [Series(_LINE, line.label, colour, line.time_h, line.value, line=False, tips=point_words(shown),
                        hollow=[i not in shown.positions for i in range(len(line.time_h))])]  # fmt: skip
        x, y = drawn(line)
        if x and self.draft is None:
            found.insert(0, Series("line", "terminal line", "#333333", x, y, dots=False, dashed=True))
        return found


def _columns(rows: Sequence[Mapping[str, Any]], value: str) -> tuple[list[float], ...]:
    """Return times, values and ends of intervals, as `Series` takes them."""
    return tuple([r[k] for r in rows] for k in ("time_h", value, "low", "high"))


def _hours(times: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in times) + " h"


def _blood_first(row: Mapping[str, Any]) -> tuple[bool, str]:
    from evbiodist.study.vocabulary import BLOOD

    return row["organ"] not in BLOOD, str(row["organ"])


def _names(box: QComboBox, index: int) -> tuple[Any, ...]:
    data = box.itemData(index)
    return data if isinstance(data, tuple) else (data,)


def _fill(box: QComboBox, items: Mapping[str, Any], first: Any = None) -> None:
    """Offer these; the choice stays where it still exists, else it is the one with that data, or the first."""
    if [box.itemText(i) for i in range(box.count())] == list(items):
        return
    kept = box.currentText() if box.count() > 1 else ""  # an only item was nobody's choice
    box.blockSignals(True)
    box.clear()
    for words, data in items.items():
        box.addItem(words, data)
    at = next((i for i, data in enumerate(items.values()) if first is not None and data == first), 0)
    box.setCurrentIndex(box.findText(kept) if kept in items else at)
    box.blockSignals(False)
