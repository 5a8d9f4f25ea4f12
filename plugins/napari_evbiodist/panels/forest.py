"""A forest plot: one line a label with its interval, pooled answers below, prediction intervals dashed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_evbiodist.kinetics_model import ForestLine

#: Pooled rows are diamonds in these colours, labels circles in their own.
_POOLED = {"plain mean": "#777777", "consensus": "#000000", "joint answer": "#B00020"}


class Forest(QWidget):
    """Estimates with their intervals, one below the other, on a common axis that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.canvas = pg.PlotWidget(background="w")
        self.canvas.setMenuEnabled(False)
        self.canvas.setMouseEnabled(x=False, y=False)
        self.canvas.hideButtons()
        for side in ("left", "bottom"):
            self.canvas.getAxis(side).setPen("#444")
            self.canvas.getAxis(side).setTextPen("#222")
            self.canvas.getAxis(side).enableAutoSIPrefix(False)
        self.canvas.showGrid(x=True, y=False, alpha=0.15)
        layout.addWidget(self.canvas)
        self.lines: tuple[ForestLine, ...] = ()

    def put(self, lines: Sequence[ForestLine], palette: Mapping[str, str], x_title: str = "") -> None:
        """Show these lines in place of the former; what is missing keeps its line and says why."""
        self.lines = tuple(lines)
        self.canvas.clear()
        height = {line.name: len(lines) - i for i, line in enumerate(lines)}
        self.canvas.getAxis("left").setTicks([[(y, name) for name, y in height.items()]])
        self.canvas.setLabel("bottom", x_title)
        letters = max(self.fontMetrics().horizontalAdvance(line.name) for line in lines) if lines else 0
        self.canvas.getAxis("left").setWidth(letters + 16)
        self.setFixedHeight(76 + 26 * max(len(lines), 2))
        low, high = _reach(lines)
        self.canvas.setXRange(low, high, padding=0.02)
        self.canvas.setYRange(0.4, len(lines) + 0.6, padding=0)
        for line in lines:
            self._draw(line, height[line.name], _POOLED.get(line.name) or palette.get(line.name, "#000000"), low)

    def _draw(self, line: ForestLine, y: float, colour: str, start: float) -> None:
        if line.why:
            words = pg.TextItem(f"no value: {line.why}", color="#444", anchor=(0, 0.5))
            words.setPos(start, y)
            words.setToolTip(line.tip)
            self.canvas.addItem(words)
            return
        for ends, style, width in (
            (line.wide, Qt.PenStyle.DashLine, 1),
            ((line.low, line.high), Qt.PenStyle.SolidLine, 2),
        ):
            if all(map(math.isfinite, ends)):
                self.canvas.plot(
                    np.array(ends), np.array([y, y], float), pen=pg.mkPen(colour, width=width, style=style)
                )
        spot = {
            "pos": (line.value, y),
            "brush": pg.mkBrush(colour),
            "symbol": "d" if line.pooled else "o",
            "data": line.tip,
        }
        self.canvas.addItem(pg.ScatterPlotItem(spots=[spot], pen=pg.mkPen(colour), size=13 if line.pooled else 10, hoverable=True,
                                               tip=lambda data, **_: data))  # fmt: skip


def _reach(lines: Sequence[ForestLine]) -> tuple[float, float]:
    """Return the ends of the axis: all intervals, but a very wide one does not press the others together."""
    values = [x.value for x in lines if math.isfinite(x.value)]
    if not values:
        return 0.0, 1.0
    ends = [e for x in lines for e in (x.low, x.high) if math.isfinite(e)]
    widest = 4 * max(map(abs, values)) or 1.0
    return min(0.0, max(min([*ends, *values]), -widest)), min(max([*ends, *values, 0.0]), widest) * 1.05
