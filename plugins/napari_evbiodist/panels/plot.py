"""A plot of curves with intervals on linear or logarithmic axes, whose points can be pointed at and clicked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyqtgraph as pg
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QBuffer, QRect, Qt, Signal
from qtpy.QtGui import QImage, QPainter
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QVBoxLayout, QWidget

from evbiodist.batch.store import write_bytes

#: Steps within a decade that get a number, the fewest first; the axis takes the first that gives it enough.
_STEPS: tuple[tuple[float, ...], ...] = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(map(float, range(1, 10))))
#: On a logarithmic axis, how far below its lowest value an interval that reaches zero ends.
_OFF = 100.0
#: Letters that a row of the legend holds, and its height in pixels.
_LEGEND_LETTERS, _LEGEND_ROW = 46, 22
_FEWEST_NUMBERS, _PLAIN = 3, (1e-3, 1e5)
_SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


class Axis(pg.AxisItem):  # type: ignore[misc]
    """An axis whose logarithmic form has plain numbers (0.1, 1, 10), and enough of them within one decade."""

    def logTickValues(self, minVal: float, maxVal: float, size: float, stdTicks: Any) -> Any:  # noqa: N802  pyqtgraph's
        """Return numbered ticks, then those without a number."""
        decades = np.arange(np.floor(minVal), np.ceil(maxVal) + 1)
        levels = [[v for d in decades for v in d + np.log10(steps) if minVal <= v <= maxVal] for steps in _STEPS]
        numbered = next((level for level in levels if len(level) >= _FEWEST_NUMBERS), None)
        if numbered is None:
            numbered = _round_numbers(10.0**minVal, 10.0**maxVal)
        return [(1.0, numbered), (None, [v for v in levels[-1] if v not in numbered])]

    def logTickStrings(self, values: Any, scale: float, spacing: float | None) -> list[str]:  # noqa: N802  pyqtgraph's
        """Return the numbers of numbered ticks, nothing for the others."""
        return [power_text(10.0**v * scale) if spacing is not None else "" for v in values]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return the logarithms of a few round numbers of a range within one decade."""
    power = np.floor(np.log10(max(high - low, 1e-9 * high)))
    for step in (m * 10.0**p for p in (power, power - 1) for m in (5, 2, 1)):
        found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
        if len(found) >= _FEWEST_NUMBERS:
            break
    return [float(v) for v in np.log10(found)]


def power_text(value: float) -> str:
    """Return a tick's number: plain where that is short, else with a power of ten.

    Examples
    --------
    >>> [power_text(v) for v in (0.01, 1.0, 10.0, 20000.0, 3e7, 1e-6)]
    ['0.01', '1', '10', '20000', '3·10⁷', '10⁻⁶']
    """
    if _PLAIN[0] <= value < _PLAIN[1]:
        return f"{value:.6g}"
    digits, power = f"{value:.0e}".split("e")
    return f"{'' if digits == '1' else f'{digits}·'}10{str(int(power)).translate(_SUPERSCRIPTS)}"


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
    symbol : pyqtgraph's word for the shape of the dots, so that colour alone tells nothing.
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
    symbol: str = "o"


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
        self.canvas = pg.PlotWidget(background="w", axisItems={side: Axis(side) for side in ("left", "bottom")})
        self.canvas.setMinimumHeight(height)
        self.canvas.setMenuEnabled(False)
        for side in ("left", "bottom"):
            self.canvas.getAxis(side).setPen("#444")
            self.canvas.getAxis(side).setTextPen("#222")
            self.canvas.getAxis(side).enableAutoSIPrefix(False)
        self.canvas.showGrid(x=True, y=True, alpha=0.15)
        self.legend = self.canvas.addLegend(offset=(5, 2), labelTextColor="#222", brush=pg.mkBrush(255, 255, 255, 200),
                                            verSpacing=-4, horSpacing=6)  # fmt: skip
        layout.addWidget(self.canvas)
        self.series: tuple[Series, ...] = ()
        self.time_line: pg.InfiniteLine | None = None
        self._drawn: list[_Drawn] = []
        self._looks: list[object] = []
        self._titles = ("", "")
        self._legend_rows = 0

    def put(
        self, series: Sequence[Series], x_title: str = "", y_title: str = "", log_x: bool = False, log_y: bool = False
    ) -> None:
        """Show these curves in place of the former; on a logarithmic axis what is not positive is left out."""
        self.series = tuple(series)
        parts = [(one, part) for one in self.series if (part := _part(one, log_x, log_y)) is not None]
        looks: list[object] = [(log_x, log_y), *((one.name, one.colour, one.line, one.dots, one.band, one.dashed, one.symbol,
                                                  part.low is None) for one, part in parts)]  # fmt: skip
        if looks != self._looks:  # else the same items take other numbers, which is quicker by far
            self.canvas.clear()
            self.time_line = None
            self.legend.clear()
            self.canvas.setLogMode(log_x, log_y)
            names = [one.name for one, _ in parts if one.name]
            columns = max(1, min(len(names), _LEGEND_LETTERS // (4 + max(map(len, names), default=1))))
            self.legend.setColumnCount(columns)
            self._legend_rows = math.ceil(len(names) / columns)
            self._drawn = [_Drawn(self, one) for one, _ in parts]
            self._looks = looks
        if (x_title, y_title) != self._titles:
            self._titles = (x_title, y_title)
            self.canvas.setLabel("bottom", x_title)
            self.canvas.setLabel("left", y_title)
        for (one, part), drawn in zip(parts, self._drawn, strict=True):
            drawn.fill(one, part)
        if parts:
            x_range, (bottom, top) = _ranges([part for _, part in parts])
            share = min(0.5, self._legend_rows * _LEGEND_ROW / max(self.canvas.height(), 1))
            top += share / (1 - share) * (top - bottom)  # room for the legend, so that it hides no point
            self.canvas.setRange(xRange=x_range, yRange=(bottom, top), padding=0.06)

    def mark_time(self, x: float | None, log_x: bool = False) -> None:
        """Draw an upright line at x in place of the former, or none."""
        if self.time_line is not None:
            self.canvas.removeItem(self.time_line)
            self.time_line = None
        if x is not None and (x > 0 or not log_x):
            self.time_line = pg.InfiniteLine(
                _scaled(x, log_x), pen=pg.mkPen("#555", width=2, style=Qt.PenStyle.DotLine)
            )
            self.canvas.addItem(self.time_line, ignoreBounds=True)

    def save(self, path: str | Path) -> Path:
        """Write what is drawn as .svg or .png, the latter at twice the size of the screen.

        Raises
        ------
        ValueError : another ending.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending not in (".svg", ".png"):
            raise ValueError(f"{path.name}: pictures are written as .svg or .png; choose a name that ends so")
        size, buffer = self.canvas.size(), QBuffer()
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        if ending == ".svg":
            paper: Any = QSvgGenerator()
            paper.setOutputDevice(buffer)
            paper.setSize(size)
            paper.setViewBox(QRect(0, 0, size.width(), size.height()))
        else:
            paper = QImage(size * 2, QImage.Format.Format_ARGB32)
            paper.fill(Qt.GlobalColor.white)
        painter = QPainter(paper)
        self.canvas.render(painter)
        painter.end()
        if ending == ".png":
            paper.save(buffer, "PNG")
        write_bytes(path, bytes(buffer.data().data()))
        return path

    def _click(self, _item: Any, spots: Sequence[Any], _event: Any) -> None:
        if len(spots):
            key, position, _ = spots[0].data()
            self.clicked.emit(key, position)

    def _hover(self, _item: Any, spots: Sequence[Any], _event: Any) -> None:
        if len(spots):
            key, position, _ = spots[0].data()
            self.pointed.emit(key, position)


class _Drawn:
    """The items that one series is drawn with."""

    def __init__(self, plot: Plot, one: Series) -> None:
        pen = pg.mkPen(one.colour, width=2, style=Qt.PenStyle.DashLine if one.dashed else Qt.PenStyle.SolidLine)
        shade = pg.mkColor(one.colour)
        shade.setAlpha(45)
        # edges of their own: a curve of the canvas that has no pen keeps no path to fill between
        self.edges = (pg.PlotCurveItem(), pg.PlotCurveItem())
        self.band = pg.FillBetweenItem(*self.edges, brush=shade) if one.band else None
        self.bars = None if one.band else pg.ErrorBarItem(pen=pg.mkPen(one.colour, width=1))
        self.line = pg.PlotCurveItem(pen=pen, antialias=True) if one.line else None
        self.dots = None
        if one.dots:
            self.dots = pg.ScatterPlotItem(pen=pg.mkPen(one.colour, width=2), size=9, symbol=one.symbol, hoverable=True,
                                           tip=lambda data, **_: data[2])  # fmt: skip
            self.dots.sigClicked.connect(plot._click)
            self.dots.sigHovered.connect(plot._hover)
        for item in (self.band, self.bars, self.line, self.dots):
            if item is not None:
                plot.canvas.addItem(item)
        if one.name:
            sample = pg.PlotDataItem(pen=pen if one.line else None, symbol=one.symbol if one.dots else None)
            sample.scatter.setPen(pg.mkPen(one.colour, width=2))  # the legend asks this part for the look of dots
            sample.scatter.setBrush(pg.mkBrush(one.colour))
            sample.scatter.setSize(9)
            plot.legend.addItem(sample, one.name)

    def fill(self, one: Series, part: _Part) -> None:
        """Give the items a series' numbers."""
        if part.low is not None and part.high is not None:
            for edge, end in zip(self.edges, (part.low, part.high), strict=True):
                edge.setData(part.x, end)
            if self.bars is not None:
                self.bars.setData(x=part.x, y=part.y, top=part.high - part.y, bottom=part.y - part.low)
        for item in (self.band, self.bars):
            if item is not None:
                item.setVisible(part.low is not None)
        if self.line is not None:
            self.line.setData(part.x, part.y)
        if self.dots is not None:
            hollow = one.hollow or [False] * len(part.shown)
            tips, brush = one.tips or [one.name] * len(part.shown), pg.mkBrush(one.colour)
            spots = [{"pos": (x, y), "data": (one.key, i, tips[i]), "brush": None if hollow[i] else brush}
                     for i, x, y in zip(np.flatnonzero(part.shown).tolist(), part.x, part.y, strict=True)]  # fmt: skip
            self.dots.setData(spots=spots)


class _Part(NamedTuple):
    """What of a series lies on the axes, in the axes' own scale."""

    shown: NDArray[np.bool_]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def _part(one: Series, log_x: bool, log_y: bool) -> _Part | None:
    x, y = np.asarray(one.x, float), np.asarray(one.y, float)
    shown = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
    if not shown.any():
        return None
    x, y = x[shown], y[shown]
    low = high = None
    if one.low is not None and one.high is not None:
        low, high = (np.asarray(end, float)[shown] for end in (one.low, one.high))
        low, high = np.where(np.isfinite(low), low, y), np.where(np.isfinite(high), high, y)
        if log_y:
            low = np.where(low > 0, low, y.min() / _OFF)  # an end at zero reaches off the axis
        low, high = _scaled(low, log_y), _scaled(high, log_y)
    return _Part(shown, _scaled(x, log_x), _scaled(y, log_y), low, high)


def _ranges(parts: Sequence[_Part]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges that show every point; an interval may at most double the height, and else runs off."""
    x, y = np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts])
    ends = np.concatenate([y, *(e for p in parts for e in (p.low, p.high) if e is not None)])
    bottom, top = float(y.min()), float(y.max())
    room = (top - bottom) or abs(top) or 1.0
    wide = 0.0 if x.max() > x.min() else 0.5 * (abs(float(x[0])) or 1.0)
    heights = max(float(ends.min()), bottom - room), min(float(ends.max()), top + room)
    lift = 0.0 if heights[1] > heights[0] else 0.5 * room
    return (float(x.min()) - wide, float(x.max()) + wide), (heights[0] - lift, heights[1] + lift)


def _scaled(value: Any, log: bool) -> Any:
    return np.log10(value) if log else value
