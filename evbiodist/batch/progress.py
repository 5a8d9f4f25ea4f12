"""How fast a run goes and when it will end, added to what it tells of its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[Mapping[str, Any]], None]


class Pace:
    """Passes on events that count something (`done`, `total`) with `rate_per_s` and `eta_s`, both None until known.

    What was done before the first event of its kind, because an earlier run did it, does not count as fast work.

    Parameters
    ----------
    tell : gets the events.
    clock : seconds that only grow.

    Examples
    --------
    >>> seconds, told = iter([0.0, 5.0]), []
    >>> pace = Pace(told.append, lambda: next(seconds))
    >>> pace({"event": "scan", "done": 30, "total": 60}); pace({"event": "scan", "done": 40, "total": 60})
    >>> told[0]["eta_s"], told[1]["rate_per_s"], told[1]["eta_s"]
    (None, 2.0, 10.0)
    """

    def __init__(self, tell: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._began: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Pass an event on."""
        if event["event"] not in ("inputs", "scan", "part"):
            self._tell(event)
            return
        now, done = self._clock(), int(event["done"])
        kind = (str(event["event"]), str(event["name"]) if event["event"] == "part" else "")
        start, before = self._began.setdefault(kind, (now, done))
        rate = (done - before) / (now - start) if now > start and done > before else None
        left = int(event["total"]) - done
        self._tell({**event, "rate_per_s": rate, "eta_s": None if rate is None else left / rate})


def in_words(event: Mapping[str, Any]) -> str:
    """Return how far, how fast and how long still, in a line.

    Examples
    --------
    >>> in_words({"event": "scan", "done": 40, "total": 60, "failed": 2, "rate_per_s": 0.05, "eta_s": 400.0})
    'scans: 40 of 60, 2 failed, 3 a minute, 6 min 40 s left'
    >>> in_words({"event": "part", "name": "mouse", "done": 1, "total": 9, "rate_per_s": None, "eta_s": None})
    'mouse: part 1 of 9'
    """
    what = {"scan": "scans: ", "inputs": "files checked of scans: "}.get(event["event"], f"{event.get('name')}: part ")
    words = [f"{what}{event['done']} of {event['total']}"]
    if event.get("failed"):
        words.append(f"{event['failed']} failed")
    if event.get("rate_per_s") is not None and event["done"] < event["total"]:
        words += [rate_in_words(event["rate_per_s"]), f"{span_in_words(event['eta_s'])} left"]
    return ", ".join(words)


def rate_in_words(per_s: float) -> str:
    """Return a rate by the unit of time in which it is a number that one can read.

    Examples
    --------
    >>> rate_in_words(12.3), rate_in_words(0.5), rate_in_words(0.004)
    ('12 a second', '30 a minute', '14 an hour')
    """
    for factor, unit in ((1.0, "a second"), (60.0, "a minute")):
        if (rate := per_s * factor) >= 1:
            return f"{rate:.0f} {unit}" if rate >= 10 else f"{rate:.2g} {unit}"
    return f"{per_s * 3600:.0f} an hour"


def span_in_words(seconds: float) -> str:
    """Return a span of time in its two largest units.

    Examples
    --------
    >>> [span_in_words(s) for s in (7, 400, 7300, 200_000)]
    ['7 s', '6 min 40 s', '2 h 1 min', '55 h 33 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
