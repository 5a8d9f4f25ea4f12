"""A run of the batch as its own program tells of it, where its settings and results lie, and what came out; no window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evbiodist.crossval.compare import TABLES
from evbiodist.report.folder import read_results as folder_tables
from napari_evbiodist.session import Session

#: Tables of a result folder that are shown, in this order, where they hold anything.
SHOWN = ("parameters", *TABLES, "failures")
#: What a run does after each of its steps.
_NEXT = {
    "inputs": "checking files",
    "part": "measuring a large volume",
    "nca": "fitting models",
    "fitted": "comparing labels",
    "compared": "writing tables",
    "written": "drawing the report",
}
_DONE, _SOME_FAILED, _UNUSABLE = 0, 1, 2
_FEWEST_FOR_A_RATE = 2
_AGAIN = "the same button takes the run up where it stopped"


def command(settings: Path, out: Path, workers: int) -> list[str]:
    """Return the arguments for the interpreter that runs a study as a program of its own and tells of it in JSON lines.

    Examples
    --------
    >>> command(Path("settings.toml"), Path("results"), 2)[:5]
    ['-P', '-m', 'evbiodist', 'run', 'settings.toml']
    """
    # -P: what lies in the folder that the viewer was started in is no module of ours
    return ["-P", "-m", "evbiodist", "run", str(settings), "--out", str(out), "--json", "--workers", str(workers)]


@dataclass
class Run:
    """What a run has told so far.

    Parameters
    ----------
    total, done, failed, resumed : numbers of scans; resumed ones were done by an earlier run.
    scans : (name, empty text or why it failed) of each scan that this run did, the latest last.
    step : what it is doing.
    problems, failures : sentences on the input, and for each scan that failed.
    errors : sentences on why nothing was run.
    said : lines on standard error, and lines that are no events.
    summary : what it said last.
    """

    total: int = 0
    done: int = 0
    failed: int = 0
    resumed: int = 0
    scans: list[tuple[str, str]] = field(default_factory=list)
    step: str = "starting"
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    summary: str = ""
    _began: tuple[float, int] | None = None
    _last: float = 0.0

    def hear(self, line: str, now: float) -> None:
        """Take a line of standard output, at a time in seconds."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            self.overhear(line)
            return
        what, text = event["event"], str(event.get("text", ""))
        if what == "scan":
            self._scan(event, now)
        elif what == "problem":
            (self.errors if event.get("fatal", True) else self.problems).append(text)
        elif what == "error":
            self.errors.append(text)
        elif "failure" in event:
            self.failures.append(f"{event['failure']['name']}: {event['failure']['reason']}")
        elif what == "message":
            # indented lines are numbers that stand in the tables too; what to open has a button
            self.summary = self.summary if text.startswith(" ") else text.partition("; open ")[0]
        else:
            self.step = _NEXT.get(what, what)

    def overhear(self, line: str) -> None:
        """Take a line of standard error."""
        if line.strip():
            self.said.append(line.rstrip())

    def _scan(self, event: dict[str, Any], now: float) -> None:
        if self._began is None:
            self._began, self.resumed = (now, event["done"]), event.get("resumed", 0)
        if "name" in event:
            failed = event["failed"] > self.failed
            self.scans.append((str(event["name"]), str(event.get("reason", "failed")) if failed else ""))
        self.done, self.total, self.failed, self._last = event["done"], event["total"], event["failed"], now
        self.step = "measuring scans" if self.done < self.total else "analysing curves"

    def per_minute(self) -> float | None:
        """Return how many scans a minute this run does, None before that can be said."""
        if self._began is None or self._last <= self._began[0] or self.done - self._began[1] < _FEWEST_FOR_A_RATE:
            return None
        return 60 * (self.done - self._began[1]) / (self._last - self._began[0])

    def words(self) -> str:
        """Return how far the run is, in words.

        Examples
        --------
        >>> run = Run()
        >>> for second, done in enumerate((0, 1, 2)):
        ...     run.hear(f'{{"event": "scan", "done": {done}, "total": 60, "failed": 0, "name": "a{done}"}}', second)
        >>> run.words()
        'measuring scans: 2 of 60, 60 a minute, about 58 s left'
        """
        told = [f"{self.step}: {self.done} of {self.total}" if self.total else self.step]
        rate = self.per_minute()
        if rate and self.done < self.total:
            told += [f"{rate:.3g} a minute", f"about {_span(60 * (self.total - self.done) / rate)} left"]
        told += [f"{self.resumed} taken over from an earlier run"] if self.resumed else []
        told += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(told)

    def ending(self, status: int, crashed: bool, cancelled: bool) -> str:
        """Return how the run ended, in a sentence.

        Parameters
        ----------
        status : of its program; `crashed` where it ended without one; `cancelled` where somebody called it off.
        """
        at = f"after {self.done} of {self.total} scans" if self.total else "before its first scan"
        if cancelled:
            return f"Called off {at}; {_AGAIN}."
        if crashed or status not in (_DONE, _SOME_FAILED, _UNUSABLE):
            return f"The run's program died {at} (out of memory, or ended from outside); {_AGAIN}."
        if status == _UNUSABLE:
            return (
                "Nothing was run; what is wrong stands below."
                if not self.total
                else f"The run stopped {at}; why stands below."
            )
        return f"Done: {self.summary}." if status == _DONE else f"Done, not whole: {self.summary}; why stands below."

    def sentences(self) -> list[str]:
        """Return everything that went wrong or is odd, the worst first."""
        return [*self.errors, *self.failures, *self.problems, *self.said]


def _span(seconds: float) -> str:
    """Return a time that is only guessed.

    Examples
    --------
    >>> _span(42.3), _span(400), _span(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def few(sentences: Sequence[str], most: int = 3) -> str:
    """Return sentences as one notification, which says how many more there are.

    Examples
    --------
    >>> few(["a", "b", "c"], 2)
    'a\\nb\\n... and 1 more, in the batch panel'
    """
    more = [f"... and {len(sentences) - most} more, in the batch panel"] if len(sentences) > most else []
    return "\n".join([*sentences[:most], *more])


def unsaved(session: Session) -> bool:
    """Return whether a session has changes that are in no file yet."""
    try:
        session.settings_file()
    except ValueError:
        return True
    return False


def home_of(session: Session) -> Path:
    """Return the folder that a session is saved in unless somebody chooses another: that of its last save, else a new one."""
    root = session.study.root
    if session.saved is not None:
        return session.saved.parent
    if session.study.files:
        earlier = root / session.study.files[0].removesuffix(".study.toml")
        if earlier.name != session.study.files[0] and (earlier / "session.json").is_file():
            return earlier
    return _free(root / "evbiodist_session")


def results_of(session: Session) -> Path:
    """Return the folder that results go to unless somebody chooses another."""
    return session.study.root / "evbiodist_results"


def _free(folder: Path) -> Path:
    """Return a folder, or the first like it with a number that is not taken."""
    tries = [folder, *(folder.with_name(f"{folder.name}_{i}") for i in range(2, 1000))]
    return next((f for f in tries if not f.exists() or (f.is_dir() and not any(f.iterdir()))), folder)


def save(session: Session, folder: Path) -> Path:
    """Save a session, in another process, and return the path of its settings.toml."""
    return session.save(folder)


@dataclass(frozen=True)
class Results:
    """A result folder: rows of its tables by name (numbers as numbers), and the report where there is one."""

    folder: Path
    tables: dict[str, list[dict[str, Any]]]
    report: Path | None


def read_results(folder: Path) -> Results:
    """Read the tables of a result folder.

    Raises
    ------
    InputError : a damaged table. ValueError : the folder holds no finished run.
    """
    if not (folder / "provenance.json").is_file():
        raise ValueError(f"'{folder.name}' holds no finished run; run the study first")
    tables = folder_tables(folder).tables
    shown = {name: tables[name].astype(object).to_dict("records") for name in SHOWN if len(tables[name])}
    report = folder / "report.html"
    return Results(folder, {name: [_plain(row) for row in rows] for name, rows in shown.items()},
                   report if report.is_file() else None)  # fmt: skip


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """Return a row with None for what is missing."""
    return {str(key): None if value == "" or value != value else value for key, value in row.items()}
