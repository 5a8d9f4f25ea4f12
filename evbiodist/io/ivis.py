"""IVIS / Living Image folders: a click or a whole sequence of clicks, whichever a path is.

The header is read by `ivis_header`, one click by `ivis_click`, many by `ivis_sequence`.
"""

from __future__ import annotations

from pathlib import Path

from evbiodist.io.ivis_click import read_click
from evbiodist.io.ivis_header import INFO
from evbiodist.io.ivis_sequence import is_sequence, read_sequence
from evbiodist.io.registry import Reader
from evbiodist.io.scan import Scan


def _takes(path: Path) -> bool:
    if is_sequence(path):
        return True
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix.lower() not in {".tif", ".tiff", ".txt"}:
        return False
    names = {p.name.lower() for p in folder.iterdir()}
    return INFO.lower() in names and (path.is_dir() or path.suffix.lower() != ".txt" or "click" in path.name.lower())


def read_ivis(path: Path) -> Scan:
    """Read a click or a whole sequence of clicks, whichever a path is.

    Parameters
    ----------
    path : click folder, sequence folder, or a file of one.

    Returns
    -------
    Scan : see `read_click` and `read_sequence`.

    Raises
    ------
    UnreadableImage : with the reason and the remedy.
    """
    path = Path(path)
    return read_sequence(path) if is_sequence(path) else read_click(path)


READER = Reader("ivis", "IVIS / Living Image click and sequence folders", _takes, read_ivis)
