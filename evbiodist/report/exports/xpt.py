"""SAS transport files (version 5), as authorities take them: ASCII text, eight-letter names, the same bytes every time."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

#: What a text of the format holds.
LONGEST = 200
_STAMP = re.compile(rb"\d\d[A-Z]{3}\d\d:\d\d:\d\d:\d\d")
#: Header records, before the names of columns.
_HEADER = 80 * 8


def ascii_text(text: str, longest: int = LONGEST) -> str:
    """Return text in ASCII, as near as it comes, and no longer than the format holds.

    Examples
    --------
    >>> ascii_text("5 µg/µl, Müller"), ascii_text("β")
    ('5 ug/ul, Muller', '?')
    """
    plain = unicodedata.normalize("NFKD", text.replace("µ", "u").replace("μ", "u").replace("ß", "ss"))
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join(kept.encode("ascii", "replace").decode().split())[:longest]


def xpt_bytes(
    name: str, label: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], stamp: datetime
) -> bytes:
    """Return a data set as a transport file.

    Parameters
    ----------
    name, label : of the data set.
    columns : label by name, in order. A column whose values are numbers or None is a numeric one.
    rows : a value a column; None is missing.
    stamp : when the file is said to have been made; the format stores it, and a clock would change the bytes.
    """
    import pandas as pd
    import pyreadstat

    frame = pd.DataFrame(index=range(len(rows)))
    for column in columns:
        values = [r.get(column) for r in rows]
        if any(isinstance(v, str) for v in values) or all(v is None for v in values):
            frame[column] = pd.Series([ascii_text(v) if v is not None else "" for v in values], dtype=object)
        else:
            frame[column] = pd.Series([float("nan") if v is None else float(v) for v in values], dtype=float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name.lower()}.xpt"
        pyreadstat.write_xport(frame, str(path), file_label=label[:40], table_name=name, file_format_version=5,
                               column_labels=[text[:40] for text in columns.values()])  # fmt: skip
        data = path.read_bytes()
    when = stamp.strftime("%d%b%y:%H:%M:%S").upper().encode()
    return _STAMP.sub(when, data[:_HEADER]) + data[_HEADER:]
