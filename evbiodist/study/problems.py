"""What is wrong with an input, in words.

A problem names the place, what was found, what was expected and the remedy, so that a whole
study can be checked in one pass and every problem printed at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Parameters
    ----------
    file : name of the file, relative to the study.
    found, expected : what stands there and what should.
    remedy : what the user can do.
    row : row of a table as an editor counts lines (the header is 1), or None.
    field : column or key, or None.
    fatal : False for something the user should know but that stops nothing.

    Examples
    --------
    >>> print(Problem("scans.csv", "-1", "a time of 0 h or later", "correct the time", row=3, field="time_h"))
    scans.csv, row 3, column time_h: found '-1', expected a time of 0 h or later; correct the time.
    """

    file: str
    found: str
    expected: str
    remedy: str
    row: int | None = None
    field: str | None = None
    fatal: bool = True

    def __str__(self) -> str:
        place = self.file
        if self.row is not None:
            place += f", row {self.row}"
        if self.field is not None:
            place += f", {'column' if self.row is not None else 'key'} {self.field}"
        found = f"found '{self.found}'" if self.found else "found nothing"
        return f"{place}: {found}, expected {self.expected}; {self.remedy}."

    def as_dict(self) -> dict[str, object]:
        """Return the problem as plain values for JSON lines."""
        return asdict(self)


class InputError(ValueError):
    """The input cannot be used; `problems` holds every reason.

    Examples
    --------
    >>> raise InputError([Problem("study.toml", "", "a key 'name'", "add name = \\"...\\"")])
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: study.toml: found nothing, expected a key 'name'; add name = "...".
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Cross process borders whole: exceptions are otherwise rebuilt from their message alone."""
        return type(self), (self.problems,)


class UnreadableImage(ValueError):  # noqa: N818  the name users meet in reliability notes and failures.csv
    """An image file that no reader can turn into a scan, with the reason in words."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{self.path.name}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        """Cross process borders whole: exceptions are otherwise rebuilt from their message alone."""
        return type(self), (str(self.path), self.reason)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word closest to a mistyped one, or the whole list.

    Examples
    --------
    >>> nearest("lable", ["label", "dose"])
    "did you mean 'label'?"
    """
    known = sorted(known)
    if not known:
        return "there is none to name here"
    hit = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{hit[0]}'?" if hit else "known: " + ", ".join(known)
