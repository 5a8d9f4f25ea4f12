"""The kinetics panel's pages of rules, of models against each other, and of labels against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from evbiodist.crossval.compare import Comparison
from evbiodist.report.figures import UNITS
from evbiodist.study.model import KineticsSettings
from napari_evbiodist.kinetics_model import (
    Cell,
    ModelsCompared,
    Rule,
    alert_sentences,
    bias_cells,
    forest_lines,
    quantities,
    rules,
)
from napari_evbiodist.panels.forest import Forest
from napari_evbiodist.panels.parts import Rows, Sentences, Table

_MODEL_COLUMNS = {"label": "label", "model": "model", "AICc": "aicc", "weight": "weight", "difference": "delta", "BIC": "bic",
                  "BIC weight": "bic_weight", "parameters": "parameters", "group": "group"}  # fmt: skip


class RulesPage(QWidget):
    """Which models are fitted, and by which rules; every change is told at once.

    Signals
    -------
    changed : (mapping) keys of `[kinetics]` with their new values.
    """

    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        column.addWidget(QLabel("Models to fit"))
        self.find = QLineEdit()
        self.find.setPlaceholderText("find a model …")
        self.find.setClearButtonEnabled(True)
        self.find.textChanged.connect(self._filter)
        column.addWidget(self.find)
        self.models = QListWidget()
        self.models.setFixedHeight(170)
        self.models.itemChanged.connect(self._tell_models)
        column.addWidget(self.models)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.settings = KineticsSettings()
        self.fields: dict[str, QWidget] = {}
        for rule in rules():
            self.fields[rule.key] = field = self._field(rule)
            field.setToolTip(rule.tip)
            form.addRow(rule.words, field)
            form.labelForField(field).setToolTip(rule.tip)
        column.addLayout(form)
        column.addStretch()

    def _field(self, rule: Rule) -> QWidget:
        if rule.choices:
            box = QComboBox()
            box.addItems(rule.choices)
            box.activated.connect(self._tell)
            return box
        if rule.switch:
            check = QCheckBox()
            check.clicked.connect(self._tell)
            return check
        spin = QDoubleSpinBox()
        spin.setKeyboardTracking(False)
        percent = rule.high > 1
        spin.setDecimals(1 if percent else 3)
        spin.setSingleStep(5.0 if percent else 0.01)
        least = 10.0 ** -spin.decimals()  # the ends themselves are excluded, but for 100 %
        spin.setRange(rule.low + least, rule.high if percent else rule.high - least)
        spin.valueChanged.connect(self._tell)
        return spin

    def put(self, settings: KineticsSettings, models: Mapping[str, str]) -> None:
        """Show settings; chosen models stand first."""
        self.settings = settings
        names = [*(m for m in settings.models if m in models), *(m for m in models if m not in settings.models)]
        self.models.blockSignals(True)
        self.models.clear()
        for name in names:
            item = QListWidgetItem(name)
            item.setToolTip(models[name])
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if name in settings.models else Qt.CheckState.Unchecked)
            self.models.addItem(item)
        self.models.blockSignals(False)
        self._filter(self.find.text())
        for key, field in self.fields.items():
            value = getattr(settings, key)
            field.blockSignals(True)
            if isinstance(field, QComboBox):
                field.setCurrentText(value)
            elif isinstance(field, QCheckBox):
                field.setChecked(value)
            elif isinstance(field, QDoubleSpinBox):
                field.setValue(value)
            field.blockSignals(False)

    def _filter(self, words: str) -> None:
        for i in range(self.models.count()):
            item = self.models.item(i)
            item.setHidden(words.lower() not in f"{item.text()} {item.toolTip()}".lower())

    def _tell(self, _value: Any = None) -> None:
        given = {key: _value_of(field) for key, field in self.fields.items()}
        changes = {
            key: value
            for key, value in given.items()
            if value != _value_as_shown(getattr(self.settings, key), self.fields[key])
        }
        if changes:
            self.changed.emit(changes)

    def _tell_models(self, _item: QListWidgetItem) -> None:
        items = [self.models.item(i) for i in range(self.models.count())]
        self.changed.emit({"models": [i.text() for i in items if i.checkState() == Qt.CheckState.Checked]})


def _value_of(field: QWidget) -> Any:
    if isinstance(field, QComboBox):
        return field.currentText()
    return field.isChecked() if isinstance(field, QCheckBox) else field.value()  # type: ignore[attr-defined]


def _value_as_shown(value: Any, field: QWidget) -> Any:
    """Return a setting as its field shows it: a box of numbers rounds."""
    return round(value, field.decimals()) if isinstance(field, QDoubleSpinBox) else value


class ModelsPage(QWidget):
    """Models of the same values against each other, and which one the data prefer, in words."""

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        note = QLabel("Models fitted to the same values, the best first: lower AICc and BIC are better, weights are shares of the "
                      "evidence. A click on a row tells F-tests and what weakens the comparison.")  # fmt: skip
        note.setWordWrap(True)
        self.table = Table(Rows(_MODEL_COLUMNS, tips={"model": "tip"}), 220)
        self.table.chosen.connect(self._choose)
        self.details, self.words = Sentences(), Sentences()
        for widget in (note, self.table, self.details, self.words):
            column.addWidget(widget)
        column.addStretch()

    def put(self, models: Sequence[ModelsCompared], empty: str) -> None:
        """Show these comparisons; `empty` is said where there are none."""
        rows = [{"group": c.group, "label": c.label, "told": c.sentences, "tip": "\n".join(c.sentences), **row} for c in models
                for row in c.rows]  # fmt: skip
        self.table.put(rows)
        self.details.say([])
        alike: dict[str, list[str]] = {}
        for c in models:
            alike.setdefault(c.sentences[0], []).append(f"{c.label} ({c.group})")
        told = [f"{', '.join(whose)}: {sentence}." for sentence, whose in alike.items()]
        self.words.say(told or [empty or "No model was fitted; the list below says why."])

    def _choose(self, row: Mapping[str, Any]) -> None:
        self.details.say([f"{row['label']} ({row['group']}): {'; '.join(row['told'])}."])


class LabelsPage(QWidget):
    """How each label reads each organ, what they say together, and which label misreads.

    Signals
    -------
    organ_chosen : (organ) a cell of the map was clicked.
    """

    organ_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.comparison, self.palette_of = Comparison(), {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        self.group = QComboBox()
        self.group.activated.connect(self._renew)
        self.alerts = Sentences()
        title = QLabel("How many times the vesicle each label reads")
        title.setToolTip(
            "above 1 (▲) it reads too much, below 1 (▼) too little; without a mark the vesicle itself lies within"
        )
        self.map = QTableWidget()
        self.map.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.map.cellClicked.connect(self._cell)
        self.quantity = QComboBox()
        self.quantity.setToolTip("a quantity that labels agree on, or do not")
        self.quantity.activated.connect(self._draw)
        self.forest = Forest()
        self.why, self.empty = Sentences(), Sentences()
        for widget in (self.empty, self.group, self.alerts, title, self.map, self.quantity, self.forest, self.why):
            column.addWidget(widget)
        self._title = title
        column.addStretch()

    def put(self, comparison: Comparison, palette: Mapping[str, str], empty: str) -> None:
        """Show a comparison; `empty` is said where there is none."""
        self.comparison, self.palette_of = comparison, palette
        groups = list(dict.fromkeys((r["study"], r["group"]) for r in comparison.consensus))
        several = len({study for study, _ in groups}) > 1
        kept = self.group.currentText()
        self.group.clear()
        for study, group in groups:
            self.group.addItem(f"{study}, {group}" if several else group, (study, group))
        self.group.setCurrentIndex(max(self.group.findText(kept), 0))
        self.empty.say([empty] if not groups else [])
        for widget in (self._title, self.map, self.quantity, self.forest):
            widget.setVisible(bool(groups))
        self.group.setVisible(len(groups) > 1)
        self._renew()

    def _renew(self, _index: int = 0) -> None:
        study, group = self.group.currentData() or ("", "")
        rows = [r for r in self.comparison.label_bias if (r["study"], r["group"]) == (study, group)]
        self.alerts.say(alert_sentences(self.comparison.alerts, study, group))
        self._map(bias_cells(rows))
        kept = self.quantity.currentText()
        self.quantity.clear()
        self.quantity.addItems(quantities(self.comparison.consensus, study, group))
        self.quantity.setCurrentIndex(max(self.quantity.findText(kept), 0))
        self._draw()

    def _map(self, cells: Sequence[Cell]) -> None:
        labels, organs = (list(dict.fromkeys(getattr(c, k) for c in cells)) for k in ("label", "organ"))
        for widget in (self._title, self.map):
            widget.setVisible(bool(cells))
        self.map.clear()
        self.map.setRowCount(len(organs))
        self.map.setColumnCount(len(labels))
        self.map.setHorizontalHeaderLabels(labels)
        self.map.setVerticalHeaderLabels(organs)
        self.map.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.map.horizontalHeader().setMinimumSectionSize(self.map.fontMetrics().horizontalAdvance("0.00–0.00") + 12)
        high = 2 * self.map.fontMetrics().height() + 8
        self.map.verticalHeader().setDefaultSectionSize(high)
        for c in cells:
            item = QTableWidgetItem(c.text)
            item.setBackground(QColor(c.back))
            item.setForeground(QColor(c.ink))
            item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            item.setToolTip(c.tip)
            font = item.font()
            font.setBold(c.sure)
            item.setFont(font)
            self.map.setItem(organs.index(c.organ), labels.index(c.label), item)
        self.map.setFixedHeight(high * len(organs) + self.map.horizontalHeader().sizeHint().height() + 6)

    def _cell(self, row: int, _column: int) -> None:
        organ = self.map.verticalHeaderItem(row).text()
        found = next(
            (i for i in range(self.quantity.count()) if self.quantity.itemText(i).startswith(f"{organ}_")), None
        )
        if found is not None:
            self.quantity.setCurrentIndex(found)
            self._draw()
        self.organ_chosen.emit(organ)

    def _draw(self, _index: int = 0) -> None:
        study, group = self.group.currentData() or ("", "")
        lines, unit, why = forest_lines(self.comparison.consensus, study, group, self.quantity.currentText())
        self.forest.put(lines, self.palette_of, UNITS.get(unit, unit))
        self.why.say([why] if why else [])
