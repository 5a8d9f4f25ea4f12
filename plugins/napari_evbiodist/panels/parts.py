"""Pieces that several panels are made of: tables, progress, sentences, and the frame in which errors become words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from qtpy.compat import isalive
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_evbiodist.bench import Bench, explain

if TYPE_CHECKING:
    from napari import Viewer

_NONE = QModelIndex()


def in_words(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a panel's method: what it raises is shown as a sentence, and the window goes on."""

    @wraps(method)
    def safe(self: Panel, *args: Any, **keywords: Any) -> Any:
        if not isalive(self):
            return None  # closed while work for it was under way
        try:
            return method(self, *args, **keywords)
        except Exception as err:  # the panel outlives it, and the words say whose fault it is
            self.bench.say_error(explain(err))
            return None

    return safe


class Panel(QWidget):
    """A panel of a viewer: a column of widgets under its own progress strip, told of changes by the viewer's bench.

    Subclasses build their widgets in `build` and connect bound methods to the bench's signals there: psygnal holds
    them weakly, so a closed panel is forgotten.
    """

    title = ""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.bench = Bench.of(napari_viewer)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        inside = QWidget()
        self.column = QVBoxLayout(inside)
        self.column.setContentsMargins(0, 0, 0, 0)
        area.setWidget(inside)
        outer.addWidget(area)
        outer.addWidget(BusyStrip(self.bench))
        self.build()

    def build(self) -> None:
        """Make the widgets."""
        raise NotImplementedError

    def row(self, *widgets: QWidget) -> QHBoxLayout:
        """Add widgets side by side; return their layout."""
        line = QHBoxLayout()
        for widget in widgets:
            line.addWidget(widget)
        self.column.addLayout(line)
        return line

    def heading(self, text: str) -> QLabel:
        """Add a heading."""
        label = QLabel(text)
        font = label.font()
        font.setBold(True)
        label.setFont(font)
        self.column.addWidget(label)
        return label

    def button(self, text: str, does: Callable[[], Any], tip: str = "") -> QPushButton:
        """Return a button; where it goes is the caller's choice. `does` is a bound method."""
        button = QPushButton(text)
        button.setToolTip(tip)
        held = WeakMethod(does)  # a connection that held the panel would keep it for ever

        def pressed(_checked: bool = False) -> None:
            method = held()
            if method is not None:
                method()

        button.clicked.connect(pressed)
        return button


class Sentences(QLabel):
    """Sentences below each other, which may be selected and copied; hidden while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.say(())

    def say(self, sentences: Sequence[str]) -> None:
        """Show these."""
        self.setText("\n".join(f"\N{BULLET} {s}" for s in sentences))
        self.setVisible(bool(sentences))


class BusyStrip(QWidget):
    """What is under way, how far it is, and a button that calls it off."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        self.words, self.bar, self.cancel = QLabel(), QProgressBar(), QPushButton("Cancel")
        self.bar.setMaximumHeight(14)
        self.cancel.clicked.connect(lambda _checked=False: self.bench.close())
        for widget in (self.words, self.bar, self.cancel):
            line.addWidget(widget)
        bench.jobs_changed.connect(self.renew)
        self.renew()

    def renew(self) -> None:
        """Show the work that is under way now."""
        running = self.bench.jobs
        self.setVisible(bool(running))
        if running:
            job = running[0]
            more = f" (+{len(running) - 1})" if len(running) > 1 else ""
            count = f" {job.done} of {job.total}" if job.total else ""
            self.words.setText(f"{job.title}{count}{more}")
            self.bar.setRange(0, job.total)
            self.bar.setValue(job.done)


class Rows(QAbstractTableModel):
    """Rows of a table as they are shown; numbers sort as numbers.

    Parameters
    ----------
    columns : key in a row, by heading.
    tips : key whose text is shown when the mouse rests on a column, by key.
    mark : says of a row whether it is shown in the colour of a warning.
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        tips: Mapping[str, str] | None = None,
        mark: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        super().__init__()
        self.headings, self.keys = list(columns), list(columns.values())
        self.tips, self.mark = dict(tips or {}), mark
        self.rows: list[Mapping[str, Any]] = []

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = _NONE) -> int:  # noqa: N802  Qt's name
        """Return how many rows there are."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = _NONE) -> int:  # noqa: N802  Qt's name
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(self.keys)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sorting value, tip or colour of a cell."""
        row, key = self.rows[index.row()], self.keys[index.column()]
        value = row.get(key)
        if role == Qt.ItemDataRole.DisplayRole:
            return as_text(value)
        if role == Qt.ItemDataRole.UserRole:
            return value if isinstance(value, int | float) and not isinstance(value, bool) else as_text(value)
        if role == Qt.ItemDataRole.ToolTipRole:
            return as_text(row.get(self.tips.get(key, key))) or None
        if role == Qt.ItemDataRole.ForegroundRole and self.mark is not None and self.mark(row):
            return QColor("#e8a33d")
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        """Return a heading."""
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return self.headings[section] if orientation == Qt.Orientation.Horizontal else section + 1


class Table(QTableView):
    """A table that sorts by a click on a heading and can be filtered by words; `chosen` tells the row that is selected."""

    chosen = Signal(object)

    def __init__(self, model: Rows, height: int = 160) -> None:
        super().__init__()
        self.rows = model
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(model)
        self.proxy.setSortRole(Qt.ItemDataRole.UserRole)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self.proxy)
        self.setSortingEnabled(True)
        self.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(height)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setStretchLastSection(True)
        self.horizontalHeader().setResizeContentsPrecision(30)  # of long tables only some rows say how wide a column is
        self.selectionModel().currentRowChanged.connect(self._tell)

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows."""
        self.rows.put(rows)
        self.resizeColumnsToContents()

    def filter(self, words: str) -> None:
        """Show only rows in which these words stand."""
        self.proxy.setFilterFixedString(words)

    def choose(self, where: Callable[[Mapping[str, Any]], bool]) -> None:
        """Select the first row of which this is true, without telling."""
        found = next((i for i, row in enumerate(self.rows.rows) if where(row)), None)
        if found is None:
            return
        index = self.proxy.mapFromSource(self.rows.index(found, 0))
        before = self.blockSignals(True)
        self.setCurrentIndex(index)
        self.blockSignals(before)

    def _tell(self, now: QModelIndex, _before: QModelIndex) -> None:
        if now.isValid():
            self.chosen.emit(self.rows.rows[self.proxy.mapToSource(now).row()])


def as_text(value: Any) -> str:
    """Return a cell's text; a number with four digits, nothing for what is missing.

    Examples
    --------
    >>> as_text(0.0123456), as_text(None), as_text(("a", "b")), as_text(True)
    ('0.01235', '', 'a, b', 'yes')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return ", ".join(as_text(v) for v in value)
    return str(value)
