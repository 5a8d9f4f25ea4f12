"""What every column of every table of the results means: one dictionary, from which each form takes its own."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from evbiodist.report.folder import ResultFolder

if TYPE_CHECKING:
    import pandas as pd

#: What a unit says when it stands in another column of the same row.
_ELSEWHERE = "column "


@dataclass(frozen=True)
class Column:
    """A column: its type, its unit, and what it is.

    Parameters
    ----------
    unit : fixed unit, ``column NAME`` where it stands in another column, or empty.
    """

    name: str
    type: Literal["string", "number", "integer", "boolean"]
    unit: str
    meaning: str

    @property
    def unit_column(self) -> str:
        """Name of the column that holds this one's unit, or nothing."""
        return self.unit.removeprefix(_ELSEWHERE) if self.unit.startswith(_ELSEWHERE) else ""


@lru_cache(maxsize=1)
def columns() -> dict[str, dict[str, Column]]:
    """Return the columns of every table, in order.

    Examples
    --------
    >>> columns()["observations"]["time_h"]
    Column(name='time_h', type='number', unit='h', meaning='Hours after the dose.')
    """
    found: dict[str, dict[str, Column]] = {}
    with (files("evbiodist") / "data" / "columns.csv").open(encoding="utf-8") as handle:
        for r in csv.DictReader(handle):
            found.setdefault(r["table"], {})[r["column"]] = Column(r["column"], r["type"], r["unit"], r["meaning"])  # type: ignore[arg-type]
    return found


def described(table: str, name: str) -> Column:
    """Return a column's entry; one that the dictionary does not know is text without a meaning."""
    return columns().get(table, {}).get(name) or Column(name, "string", "", "")


def tables_of(results: ResultFolder) -> dict[str, pd.DataFrame]:
    """Return the tables that have rows, subjects among them, each column of the type that the dictionary says."""
    found = {name: table for name, table in results.tables.items() if len(table)}
    rows = results.study.get("subjects", [])
    if rows:
        found["subjects"] = _subjects(rows)
    return {name: typed(name, table) for name, table in found.items()}


def _subjects(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{name: r.get(name) for name in columns()["subjects"]} for r in rows])


def typed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with nullable integers and booleans, text that is never missing, and float64 for the rest."""
    made: dict[str, Any] = {}
    for column in table.columns:
        kind, values = described(name, column).type, table[column]
        if kind == "integer":
            made[column] = values.astype("Float64").astype("Int64")
        elif kind == "boolean":
            made[column] = values.map({"yes": True, "no": False, True: True, False: False}).astype("boolean")
        elif kind == "number":
            made[column] = values.astype("float64")
        else:
            made[column] = values.fillna("").astype(str).astype(object)
    import pandas as pd

    return pd.DataFrame(made, index=table.index)
