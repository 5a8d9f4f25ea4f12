"""All tables in one Excel workbook whose text stays text, with a sheet that says what everything is."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evbiodist.report.exports.columns import described, tables_of
from evbiodist.report.exports.registry import Exported
from evbiodist.report.folder import ResultFolder
from evbiodist.study.flags import FLAGS, split
from evbiodist.study.problems import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

#: What a sheet of Excel holds.
_ROWS, _CHARACTERS, _NAME = 1_048_576, 32_767, 31
#: Files of the same results are the same to the byte, so they carry no clock.
_CREATED = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_READ_ME = "read me"


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return ``results.xlsx``: a sheet that explains columns and flags, then a sheet for each table that has rows.

    Parameters
    ----------
    results : of a run.
    options : none.

    Raises
    ------
    InputError : a table has more rows than a sheet holds.
    """
    import xlsxwriter

    tables = tables_of(results)
    too_long = [name for name, table in tables.items() if len(table) >= _ROWS]
    if too_long:
        raise InputError(Problem(f"{name}.csv", f"{len(tables[name]):,} rows", f"fewer than {_ROWS:,}, which a sheet of Excel holds",
                                 "use --format parquet") for name in too_long)  # fmt: skip
    buffer, notes = io.BytesIO(), []
    # strings_to_*: names that look like formulas, numbers or links stay what they are
    with xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False,
                                      "strings_to_numbers": False}) as book:  # fmt: skip
        book.set_properties({"title": str(results.study["name"])[:255], "created": _CREATED, "author": "evbiodist"})
        head = book.add_format({"bold": True, "bottom": 1})
        _read_me(book.add_worksheet(_READ_ME), head, results, tables)
        for name, table in tables.items():
            cut = _sheet(book.add_worksheet(name[:_NAME]), head, name, table)
            notes += [f"{name}: {cut} texts were cut at {_CHARACTERS:,} characters, which a cell holds"] if cut else []
    return Exported({"results.xlsx": buffer.getvalue()}, tuple(notes))


def _read_me(sheet: Any, head: Any, results: ResultFolder, tables: Mapping[str, pd.DataFrame]) -> None:
    """Say what the study is, what each column means, and what each flag that occurs means."""
    used = {f for t in tables.values() if "flags" in t for cell in t["flags"].unique() for f in split(cell)}
    lines: list[tuple[str, ...]] = [
        ("study", str(results.study["name"])), ("species", str(results.study.get("species", ""))),
        ("simulated", "yes" if results.study.get("simulated") else "no"), (),
        ("sheet", "column", "unit", "meaning"),
        *((name, c, described(name, c).unit, described(name, c).meaning) for name, t in tables.items() for c in t.columns),
        (), ("flag", "meaning", "remedy"), *((f, FLAGS[f].meaning, FLAGS[f].remedy) for f in sorted(used) if f in FLAGS),
    ]  # fmt: skip
    for row, cells in enumerate(lines):
        for column, text in enumerate(cells):
            sheet.write_string(row, column, text[:_CHARACTERS], head if cells[0] in ("sheet", "flag") else None)
    sheet.set_column(0, 1, 22)
    sheet.set_column(2, 3, 60)


def _sheet(sheet: Any, head: Any, name: str, table: pd.DataFrame) -> int:
    """Write a table; return how many texts were too long."""
    cut = 0
    for column, title in enumerate(table.columns):
        sheet.write_string(0, column, title, head)
        kind, values = described(name, title).type, table[title]
        if kind == "string":
            cut += sum(len(text) > _CHARACTERS for text in values)
            _column(sheet.write_string, column, (text[:_CHARACTERS] for text in values))
        elif kind == "boolean":
            _column(sheet.write_string, column, ("" if v is None else "yes" if v else "no" for v in _plain(values)))
        else:
            _column(sheet.write_number, column, _plain(values))
        widest = max((len(str(v)) for v in values.head(200)), default=0)
        sheet.set_column(column, column, min(max(len(title), min(widest, 12) if kind != "string" else widest) + 2, 50))
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, max(len(table), 1), max(len(table.columns) - 1, 0))
    return cut


def _plain(values: pd.Series[Any]) -> Iterable[Any]:
    import pandas as pd

    return (None if v is pd.NA or (isinstance(v, float) and not math.isfinite(v)) else v for v in values)


def _column(write: Any, column: int, values: Iterable[Any]) -> None:
    for row, value in enumerate(values, 1):
        if value is not None and value != "":
            write(row, column, value)
