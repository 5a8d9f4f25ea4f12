"""What happened in a result folder, line by line; each line holds the hash of the one before, so none can be changed or left out.

Whoever rewrites the whole journal can hide that; the hash of its last line (`head`), noted elsewhere, shows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
_FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """A line of a journal: when, what, and what is told of it."""

    time: str
    event: str
    facts: dict[str, Any]
    previous: str


def head(folder: Path) -> str:
    """Return the hash of a journal's last whole line; of 64 zeros where nothing was written yet."""
    lines = _lines(folder)
    return _hash(lines[-1]) if lines else _FIRST


class Journal:
    """A folder's journal, to which lines are only added; one process at a time, which holds the folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> digest = Journal(folder).add("started", {"scans": 3})
    >>> digest == head(folder), read(folder)[0].event, broken(folder)
    (True, 'started', None)
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        _drop_torn(self.path)
        self.head = head(folder)

    def add(self, event: str, facts: Mapping[str, Any], *, sure: bool = True) -> str:
        """Add a line and return its hash.

        Parameters
        ----------
        event : a word; facts : what JSON holds.
        sure : wait until it is on the disk.
        """
        entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, "facts": dict(facts),
                 "previous": self.head}  # fmt: skip
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line + b"\n")
            if sure:
                os.fsync(handle)
        finally:
            os.close(handle)
        self.head = _hash(line)
        return self.head


def read(folder: Path) -> list[Entry]:
    """Return a folder's journal, () where there is none.

    Raises
    ------
    ValueError : a line that is none of a journal, with its number.
    """
    entries = []
    for number, line in enumerate(_lines(folder), 1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"{JOURNAL}, line {number}: it is no line of a journal; the file was changed: "
                             "run the study again into a new folder") from None  # fmt: skip
    return entries


def broken(folder: Path) -> int | None:
    """Return the number of the first line that does not follow the one before it, None when all do.

    Raises
    ------
    ValueError : a line that is none of a journal.
    """
    expected = _FIRST
    for number, (line, entry) in enumerate(zip(_lines(folder), read(folder), strict=True), 1):
        if entry.previous != expected:
            return number
        expected = _hash(line)
    return None


def _lines(folder: Path) -> list[bytes]:
    """Return whole lines: one without its end was being written when somebody pulled the plug."""
    path = folder / JOURNAL
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _drop_torn(path: Path) -> None:
    data = path.read_bytes() if path.is_file() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
