"""Who changed which organs when, and the way back: a label image is the truth, its history the provenance.

The history is a text file of JSON lines beside the label image, to which lines are only ever added.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from evbiodist.imaging.organs import OrganMap

State = TypeVar("State")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Edit:
    """One change of a scan's organs.

    Parameters
    ----------
    time : in UTC, ISO 8601.
    annotator : who made it, empty where nobody said.
    action : what was done (`paint`, `polygon`, `segment`, `copy`, `propagate`, `undo`, `redo`, ...).
    sha256 : of the label image afterwards, see `digest`; empty where the scan went back to what its study finds.
    pixels : number of pixels of each organ afterwards.
    """

    time: str
    annotator: str
    action: str
    sha256: str
    pixels: dict[str, int]

    @classmethod
    def of(cls, organs: OrganMap | None, annotator: str, action: str) -> Edit:
        """Return an edit of now."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(time, annotator, action, digest(organs) if organs else "", organs.areas() if organs else {})


def digest(organs: OrganMap) -> str:
    """Return what changes with any pixel or name: the SHA-256 of the pixels (32-bit, row by row) and the names in use.

    Examples
    --------
    >>> a, b = (OrganMap(np.array([[0, 1]]), {1: name}, "drawn") for name in ("liver", "brain"))
    >>> digest(a) == digest(a), digest(a) == digest(b)
    (True, False)
    """
    used = {int(v): organs.names[int(v)] for v in np.unique(organs.labels) if v}
    about = json.dumps([organs.labels.shape, sorted(used.items())]).encode()
    return hashlib.sha256(about + np.ascontiguousarray(organs.labels, "<i4").tobytes()).hexdigest()


def append(path: Path, edit: Edit) -> None:
    """Add an edit to a history; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(edit), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(path: Path) -> tuple[Edit, ...]:
    """Read a history; () where there is none.

    Raises
    ------
    ValueError : a line that is no edit, with its number.
    """
    if not path.is_file():
        return ()
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(
            f"{path.name}: larger than {_MOST_BYTES >> 20} MiB, which no history of edits is; move it away"
        )
    edits = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            edit = Edit(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"{path.name}, line {number}: found no edit, expected one JSON object a line with time, "
                             "annotator, action, sha256 and pixels; remove that line") from None  # fmt: skip
        edits.append(edit)
    return tuple(edits)


@dataclass
class Steps(Generic[State]):
    """States of one scan's organs, for undo and redo.

    Examples
    --------
    >>> steps = Steps("as found")
    >>> steps.add("painted")
    >>> steps.back(), steps.forward(), steps.now
    ('as found', 'painted', 'painted')
    """

    first: State
    _states: list[State] = field(init=False)
    _at: int = 0

    def __post_init__(self) -> None:
        self._states = [self.first]

    @property
    def now(self) -> State:
        """The state that holds."""
        return self._states[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a state before."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a state was undone."""
        return self._at < len(self._states) - 1

    def add(self, state: State) -> None:
        """Take a new state; what was undone is forgotten."""
        self._states[self._at + 1 :] = [state]
        self._at += 1

    def back(self) -> State:
        """Return to the state before.

        Raises
        ------
        ValueError : there is none.
        """
        if not self.can_undo:
            raise ValueError("nothing to undo; the organs are as they were found")
        self._at -= 1
        return self.now

    def forward(self) -> State:
        """Return to the state that was undone.

        Raises
        ------
        ValueError : nothing was undone.
        """
        if not self.can_redo:
            raise ValueError("nothing to redo; no edit was undone")
        self._at += 1
        return self.now
