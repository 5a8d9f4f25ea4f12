"""Rows of a result table as dicts, for what is handed to templates whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return every row as a dict."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
