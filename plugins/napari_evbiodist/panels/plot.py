"""A plot of curves with intervals on linear or logarithmic axes, whose points can be pointed at and clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget


@dataclass(frozen=True, eq=False)
class Series:
    """One curve of a plot.

    Parameters
    ----------
    key : what `Plot.clicked` and `Plot.pointed` give back of it.
    name : in the legend; empty for none.
    colour : as #rrggbb.
    x, y : of the same length, in the plot's units.
    low, high : ends of intervals, drawn as bars, or as a band when `band`.
    line, dots : whether it is drawn so; `dashed` for a line that is no measurement.
    hollow : of each point, whether it is drawn empty (left out, below a limit).
    tips : of each point, what is said of it under the mouse.
    """

    key: Any
    name: str
    colour: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    line: bool = True
    dots: bool = True
    band: bool = False
    dashed: bool = False
    hollow: Sequence[bool] | None = None
    tips: Sequence[str] | None = None


class Plot(QWidget):
    """Curves, their intervals and a legend.

    Signals
    -------
    clicked : (key of the series, position of the point).
    pointed : (key of the series, position of the point) under the mouse.
    """

    clicked = Signal(object, int)
    pointed = Signal(object, int)

    def __init__(self, height: int = 240) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.canvas = pg.PlotWidget(background="w")
        self.canvas.setMinimumHeight(height)
        self.canvas.setMenuEnabled(False)
        for side in ("left", "bottom"):
            self.canvas.getAxis(side).setPen("#444")
            self.canvas.getAxis(side).setTextPen("#222")
            self.canvas.getAxis(side).enableAutoSIPrefix(False)
        self.canvas.showGrid(x=True, y=True, alpha=0.15)
        self.legend = self.canvas.addLegend(offset=(-5, 5), labelTextColor="#222", brush=pg.mkBrush(255, 255, 255, 200))
        layout.addWidget(self.canvas)
        self.series: tuple[Series, ...] = ()

    def put(
        self, series: Sequence[Series], x_title: str = "", y_title: str = "", log_x: bool = False, log_y: bool = False
    ) -> None:
        """Show these curves in place of the former; on a logarithmic axis what is not positive is left out."""
        self.series = tuple(series)
        self.canvas.clear()
        self.legend.clear()
        self.canvas.setLogMode(log_x, log_y)
        self.canvas.setLabel("bottom", x_title)
        self.canvas.setLabel("left", y_title)
        for one in self.series:
            self._draw(one, log_x, log_y)
        self.canvas.autoRange()

    def _draw(self, one: Series, log_x: bool, log_y: bool) -> None:
        x, y = np.asarray(one.x, float), np.asarray(one.y, float)
        shown = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
        if not shown.any():
            return
        ends = [None if end is None else np.asarray(end, float)[shown] for end in (one.low, one.high)]
        if ends[0] is not None and ends[1] is not None:
            self._draw_interval(one, x[shown], y[shown], ends[0], ends[1], log_x, log_y)
        pen = pg.mkPen(one.colour, width=2, style=Qt.PenStyle.DashLine if one.dashed else Qt.PenStyle.SolidLine)
        named = {"name": one.name} if one.name else {}
        if one.line:
            self.canvas.plot(x[shown], y[shown], pen=pen, **named)
            named = {}
        if one.dots:
            hollow = np.zeros(len(x), bool) if one.hollow is None else np.asarray(one.hollow, bool)
            tips = one.tips or [one.name] * len(x)
            spots = [{"pos": (_scaled(x[i], log_x), _scaled(y[i], log_y)), "data": (one.key, int(i), tips[i]),
                      "brush": None if hollow[i] else pg.mkBrush(one.colour)} for i in np.flatnonzero(shown)]  # fmt: skip
            points = pg.ScatterPlotItem(spots=spots, pen=pg.mkPen(one.colour, width=2), size=9, hoverable=True,
                                        tip=lambda data, **_: data[2], **named)  # fmt: skip
            points.sigClicked.connect(self._click)
            points.sigHovered.connect(self._hover)
            self.canvas.addItem(points)

    def _draw_interval(
        self,
        one: Series,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        log_x: bool,
        log_y: bool,
    ) -> None:
        low, high = np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)
        if log_y:
            low = np.where(low > 0, low, np.minimum(y, np.min(y)) / 10)  # an end at zero reaches off the axis
        if one.band:
            edges = [self.canvas.plot(x, end, pen=None) for end in (low, high)]
            shade = pg.mkColor(one.colour)
            shade.setAlpha(45)
            self.canvas.addItem(pg.FillBetweenItem(*edges, brush=shade))
            return
        top, bottom, centre = (_scaled(v, log_y) for v in (high, low, y))
        self.canvas.addItem(pg.ErrorBarItem(x=_scaled(x, log_x), y=centre, top=top - centre, bottom=centre - bottom,
                                            pen=pg.mkPen(one.colour, width=1)))  # fmt: skip

    def mark_time(self, x: float | None, log_x: bool = False) -> None:
        """Draw an upright line at x, or none."""
        if x is not None and (x > 0 or not log_x):
            line = pg.InfiniteLine(_scaled(x, log_x), pen=pg.mkPen("#888", style=Qt.PenStyle.DotLine))
            self.canvas.addItem(line)

    def _click(self, _item: Any, spots: Sequence[Any], _event: Any) -> None:
        if len(spots):
            key, position, _ = spots[0].data()
            self.clicked.emit(key, position)

    def _hover(self, _item: Any, spots: Sequence[Any], _event: Any) -> None:
        if len(spots):
            key, position, _ = spots[0].data()
            self.pointed.emit(key, position)


def _scaled(value: Any, log: bool) -> Any:
    return np.log10(value) if log else value
