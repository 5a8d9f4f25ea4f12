"""Every table as CSV, with a dictionary of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evbiodist.batch.store import csv_bytes
from evbiodist.report.exports.columns import described, tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder

_DICTIONARY = ("table", "column", "type", "unit", "meaning")


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return the tables that have rows and ``dictionary.csv``.

    Parameters
    ----------
    results : of a run.
    options : none.
    """
    import pandas as pd

    files, dictionary = {}, []
    for name, table in tables_of(results).items():
        rows = [{str(k): None if v is pd.NA else v for k, v in r.items()} for r in table.to_dict("records")]
        files[f"{name}.csv"] = csv_bytes(rows, list(table.columns))
        about = (described(name, column) for column in table.columns)
        dictionary += [dict(zip(_DICTIONARY, (name, c.name, c.type, c.unit, c.meaning), strict=True)) for c in about]
    return Exported({**files, "dictionary.csv": csv_bytes(dictionary, _DICTIONARY)})
