"""A small writer of SVG figures: scales, ticks, axes and marks as text, coloured by classes so that a page can restyle them.

A renderer of charts costs tens of milliseconds a figure and bakes its colours in; the report draws hundreds (docs/report.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

#: How many colours, markers and dashes tell series apart; series past them repeat colours with other markers.
N_COLOURS, N_MARKERS, N_DASHES = 8, 7, 5

#: Series on white paper and on a dark screen: Okabe and Ito's hues, the pale ones darkened (brightened) to a contrast of 3.
LIGHT = ("#0072B2", "#C24A00", "#007D5A", "#B0508B", "#9A6A00", "#2A83B8", "#6E6E6E", "#000000")
DARK = ("#5BB4EE", "#FF8B42", "#2FC79C", "#E79BC7", "#F0C24B", "#A5DAF8", "#B0B0B0", "#FFFFFF")

#: Values beyond are drawn at the edge, and a logarithmic axis spans no more: sums and ratios stay finite.
_MOST, _SPAN = 1e300, 1e30

#: How the marks look; the page and a figure on its own share it. Colours come from --s0 to --s7 and --ink, --grid and --quiet.
MARKS = """
.fig text { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
.fig .tk { font-size: 10px; fill: var(--quiet); } .fig .m { text-anchor: middle; } .fig .e { text-anchor: end; }
.fig .ax, .fig .gr { stroke: var(--grid); fill: none; } .fig .gr { stroke-width: .6; }
.fig .l { stroke: currentColor; stroke-width: 1.7; fill: none; } .fig .w { stroke: currentColor; stroke-width: 1.4; fill: none; }
.fig .b { fill: currentColor; opacity: .16; } .fig .p { fill: currentColor; }
.fig .o { fill: none; stroke: currentColor; stroke-width: 1.4; }
.fig .f { stroke: currentColor; stroke-width: .8; opacity: .5; fill: none; } .fig .h { fill: transparent; pointer-events: all; }
.fig .dots { stroke: currentColor; stroke-width: 3; stroke-linecap: round; opacity: .4; fill: none; }
.fig .many { opacity: .14; }
.fig .d1 { stroke-dasharray: 6 3; } .fig .d2 { stroke-dasharray: 2 2.5; } .fig .d3 { stroke-dasharray: 8 3 2 3; }
.fig .d4 { stroke-dasharray: 1 4; stroke-linecap: round; } .fig .ref { stroke: var(--quiet); stroke-width: 1; }
.fig .hit:hover .p, .fig .hit:hover .o { stroke: currentColor; stroke-width: 3; }
"""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis: values `low` to `high` lie at pixels `start` to `end`.

    Examples
    --------
    >>> Scale(1, 100, 0, 200, log=True)(10)
    100.0
    >>> Scale(0, 10, 100, 0).ticks()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; what lies far outside (or has no logarithm) is put one axis length outside."""
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -1.0
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(max(part, -1.0), 2.0)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Return round numbers within the axis, about as many as wanted."""
        if self.log:
            found = _log_ticks(self.low, self.high, wanted)
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if rough <= m * power * 1.0001)


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [
            m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d * 1.0001 and m * 10.0**d <= high * 1.0001
        ]
        if len(found) <= wanted + 1:
            return found
    return found[:: math.ceil(len(found) / wanted)]


def covering(values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> Scale:
    """Return a scale that holds all finite values (positive ones when logarithmic) with a little room at the ends."""
    kept = [min(max(float(v), -_MOST), _MOST) for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = min(kept), max(kept)
    if log:
        low = max(low, high / _SPAN)
        room = max(high / low, 1.5) ** 0.05
        return Scale(low / room, high * room, start, end, log=True)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low if zero and low == 0 else low - room, high if zero and high == 0 else high + room, start, end)


def words(text: object) -> str:
    """Return text as it stands in SVG: escaped, and without what XML cannot hold."""
    return escape("".join(c if c.isprintable() or c == "\n" else " " for c in str(text)))


def px(value: float) -> str:
    """Return a coordinate with one decimal and nothing needless."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0", 1)
        if abs(value) < 0.05
        else f"{value:.1f}".removesuffix(".0")
    )


def tick_text(value: float) -> str:
    """Return a tick's number: 0.05, 20, 1e6."""
    return f"{value:.4g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-").replace("-", "−")


def label(x: float, y: float, text: object, style: str = "") -> str:
    """Return a word at a place; style is m (middle), e (end), tk (small and quiet)."""
    return f'<text x="{px(x)}" y="{px(y)}"{_class(style)}>{words(text)}</text>'


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line."""
    return f'<path class="{style}" d="M{px(x1)} {px(y1)}L{px(x2)} {px(y2)}"/>'


def path(points: Sequence[tuple[float, float]], style: str, *, closed: bool = False) -> str:
    """Return a line through points, or the area they enclose."""
    return f'<path class="{style}" d="{outline(points)}{"Z" if closed else ""}"/>' if points else ""


def outline(points: Sequence[tuple[float, float]]) -> str:
    """Return a path's text through points; a single point is drawn as a dot."""
    if len(points) == 1:
        return f"M{px(points[0][0])} {px(points[0][1])}h0"
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in points)


def marker(slot: int, x: float, y: float, size: float = 3.6) -> str:
    """Return the marker of a series: circle, square, triangle, diamond, ring, open square, cross."""
    kind, s = slot_marker(slot), size
    if kind in (0, 4):
        return f'<circle class="{"po"[kind // 4]}" cx="{px(x)}" cy="{px(y)}" r="{px(s)}"/>'
    a, b = px(s), px(2 * s)
    corner = f"M{px(x - s)} {px(y - s)}"
    if kind == 6:
        drawn = f"{corner}l{b} {b}M{px(x - s)} {px(y + s)}l{b} -{b}"
    elif kind == 2:
        drawn = f"M{px(x)} {px(y - 1.2 * s)}l{a} {b}h-{b}z"
    elif kind == 3:
        drawn = f"M{px(x)} {px(y - 1.3 * s)}l{px(1.3 * s)} {px(1.3 * s)}l-{px(1.3 * s)} {px(1.3 * s)}l-{px(1.3 * s)} -{px(1.3 * s)}z"
    else:
        drawn = f"{corner}h{b}v{b}h-{b}z"
    return f'<path class="{"o" if kind > 4 else "p"}" d="{drawn}"/>'


def slot_marker(slot: int) -> int:
    """Return the marker's number of a series: past the colours the markers move on, so that no pair repeats soon."""
    return (slot + slot // N_COLOURS) % N_MARKERS


def series(slot: int, marks: Iterable[str]) -> str:
    """Return marks in the colour of a series."""
    return f'<g class="s{slot % N_COLOURS}">{"".join(marks)}</g>'


def tipped(tip: str, marks: str, x: float, y: float, reach: float = 8) -> str:
    """Return marks that tell their values when pointed at, near is enough."""
    near = f'<circle class="h" cx="{px(x)}" cy="{px(y)}" r="{px(reach)}">'
    return f'<g class="hit">{marks}{near}<title>{words(tip)}</title></circle></g>'


def inside(x: Scale, y: Scale, marks: Iterable[str]) -> str:
    """Return marks cut off at the axes, in the coordinates of the figure."""
    left, top = min(x.start, x.end), min(y.start, y.end)
    box = f"{px(left)} {px(top)} {px(abs(x.end - x.start))} {px(abs(y.end - y.start))}"
    sizes = box.split()
    return (f'<svg x="{sizes[0]}" y="{sizes[1]}" width="{sizes[2]}" height="{sizes[3]}" viewBox="{box}">'
            f"{''.join(marks)}</svg>")  # fmt: skip


def axes(x: Scale, y: Scale, x_title: str, y_title: str, x_ticks: Sequence[float] | None = None,
         y_ticks: Sequence[float] | None = None) -> str:  # fmt: skip
    """Return grid, ticks and titles; the title of y stands above the axis, where it needs no turning of the head."""
    bottom, top = max(y.start, y.end), min(y.start, y.end)
    parts = [f'<path class="ax" d="M{px(x.start)} {px(top)}V{px(bottom)}H{px(x.end)}"/>']
    parts += [line(x.start, y(v), x.end, y(v), "gr") + label(x.start - 5, y(v) + 3.5, tick_text(v), "tk e")
              for v in (y.ticks() if y_ticks is None else y_ticks)]  # fmt: skip
    last = -math.inf
    for v in x.ticks() if x_ticks is None else sorted(x_ticks):
        text, at = tick_text(v), x(v)
        parts.append(line(at, bottom, at, bottom + 4, "ax"))
        if at - 3.1 * len(text) > last:  # a tick whose number would touch the one before goes without
            parts.append(label(at, bottom + 15, text, "tk m"))
            last = at + 3.1 * len(text) + 4
    parts.append(label((x.start + x.end) / 2, bottom + 29, x_title, "m"))
    return "".join(parts) + (label(max(x.start - 38, 2), top - 8, y_title) if y_title else "")


def figure(width: float, height: float, parts: Iterable[str], style: str = "") -> str:
    """Return a whole figure; the page gives it its name, so its parts are hidden from screen readers."""
    return (f'<svg class="{f"fig {style}".strip()}" viewBox="0 0 {px(width)} {px(height)}" width="{px(width)}" height="{px(height)}" '
            f'xmlns="http://www.w3.org/2000/svg" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')  # fmt: skip


def variables(colours: Sequence[str], ink: str, quiet: str, grid: str) -> str:
    """Return the style declarations that colour figures."""
    return "".join(f"--s{i}: {c}; " for i, c in enumerate(colours)) + f"--ink: {ink}; --quiet: {quiet}; --grid: {grid};"


def series_style() -> str:
    """Return the rules that give every series its colour variable."""
    return "".join(f".s{i} {{ color: var(--s{i}); }} " for i in range(N_COLOURS))


def standalone(drawn: str) -> str:
    """Return a figure of the report as a file of its own: black on white, without variables, for print and other programs.

    Examples
    --------
    >>> "var(" in standalone(figure(10, 10, [series(0, [marker(0, 5, 5)])]))
    False
    """
    style = series_style() + MARKS
    fixed = {f"--s{i}": c for i, c in enumerate(LIGHT)} | {
        "--ink": "#000000",
        "--quiet": "#444444",
        "--grid": "#999999",
    }
    for name, colour in fixed.items():
        style = style.replace(f"var({name})", colour)
    style += ".each { display: none; }"
    end = drawn.index(">") + 1
    head = drawn[:end].replace(' aria-hidden="true" focusable="false"', "")
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f"{head}<style>{words(style).replace('&quot;', chr(34))}</style>{paper}{drawn[end:]}"
