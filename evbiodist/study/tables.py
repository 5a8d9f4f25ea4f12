"""CSV in: every cell is text until a schema says otherwise, and every problem has its row.

pandas would turn the group ``NA`` into nothing and the id ``001`` into 1, so the standard csv
module reads and pydantic converts.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evbiodist.study.problems import InputError, Problem, nearest

Row = TypeVar("Row", bound=BaseModel)

_MAX_NAMED_ROWS = 5
#: Largest table that is read; cells take some ten times as much memory.
_MAX_BYTES = 64 << 20
#: What was expected, by pydantic's error type, for values of the wrong shape.
_SHAPES = {"tuple_type": "a list in [ ]", "list_type": "a list in [ ]", "model_type": "a table of keys",
           "dict_type": "a table of keys", "model_attributes_type": "a table of keys", "string_type": "text in quotes",
           "bool_type": "true or false", "bool_parsing": "true or false", "string_too_short": "some text",
           "too_short": "at least one entry"}  # fmt: skip
_DECIMAL_COMMA = re.compile(r"^[+-]?\d{1,3}(\.\d{3})*,\d+$|^[+-]?\d+,\d+([eE][+-]?\d+)?$")


#: More columns than this are no header but a damaged line.
_MAX_COLUMNS = 1000
#: Text cells that start so become formulas when a spreadsheet opens them.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_cell(text: str) -> str:
    """Return text that no spreadsheet runs: a leading apostrophe before what would start a formula.

    Examples
    --------
    >>> escape_cell("=1+1"), plain_cell(escape_cell("=1+1"))
    ("'=1+1", '=1+1')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain_cell(text: str) -> str:
    """Undo `escape_cell`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def read_bounded(path: Path) -> bytes:
    """Read a table's bytes.

    Raises
    ------
    InputError : the file is missing, unreadable, or larger than any table of organ values.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= _MAX_BYTES else None
    except OSError as err:
        reason = err.strerror or type(err).__name__
        raise InputError([Problem(path.name, reason, "a readable table", "check the name and the folder")]) from err
    if raw is None:
        raise InputError([Problem(path.name, f"{size >> 20} MiB", f"a table of up to {_MAX_BYTES >> 20} MiB",
                                  "check that it is the right file, or split it")])  # fmt: skip
    return raw


def read_text(path: Path) -> str:
    """Read a text table in UTF-8, or in the Windows code page that older instruments write.

    Raises
    ------
    InputError : the file is missing, unreadable, too large or not text.
    """
    raw = read_bounded(path)
    if b"\x00" in raw:
        raise InputError([Problem(path.name, "binary data", "a text table",
                                  "export the table as CSV (UTF-8) and give that")])  # fmt: skip
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def read_cells(path: Path) -> tuple[list[str], list[list[str]], list[int], list[str]]:
    """Return header, rows, their line numbers and the comment lines of a delimited table.

    Delimiters are comma, semicolon or tab, whichever the header line has most of; lines before the
    header that start with ``#`` are comments.

    Raises
    ------
    InputError : the file is unreadable, has no header or an endless one, or a quote is not closed.
    """
    lines = re.split(r"\r\n|\n|\r", read_text(path))
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if start is None:
        raise InputError([Problem(path.name, "an empty file", "a table with a header line", "fill it or leave it out")])
    comments = [line[1:].strip() for line in lines[:start] if line.startswith("#")]
    delimiter = max(",;\t", key=lines[start].count)
    reader = csv.reader(io.StringIO("\n".join(lines[start:]), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    begins = start + 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([plain_cell(cell.strip()) for cell in row])
                numbers.append(begins)
            begins = start + 1 + reader.line_num
    except csv.Error as err:
        raise InputError([Problem(path.name, str(err), "a row of cells, with every quote closed",
                                  "close the quote that opens in this row, or shorten the cell", row=begins)]) from err  # fmt: skip
    if len(rows[0]) > _MAX_COLUMNS:
        raise InputError([Problem(path.name, f"{len(rows[0])} columns", f"a table of up to {_MAX_COLUMNS} columns",
                                  "check its header line and its delimiter", row=start + 1)])  # fmt: skip
    return rows[0], rows[1:], numbers[1:], comments


def read_table(
    path: Path, schema: type[Row], key: Sequence[str], problems: list[Problem], defaults: dict[str, str] | None = None
) -> list[Row]:
    """Read a CSV table into rows of a schema and append every problem found to `problems`.

    Parameters
    ----------
    path : the table.
    schema : pydantic model whose fields are the columns.
    key : columns that together name a row; a repeat is a problem.
    problems : list to append to.
    defaults : cells used where a column is absent or a cell empty.

    Returns
    -------
    list of Row : the rows without problems, in file order.
    """
    try:
        header, cells, numbers, _ = read_cells(path)
    except InputError as err:
        problems.extend(err.problems)
        return []
    before = len(problems)
    if not cells:
        problems.append(Problem(path.name, "a header only", "rows under the header", "fill the table or leave it out"))
    _check_header(path.name, header, schema, set(defaults or ()), problems)
    if any(p.fatal for p in problems[before:]):
        return []
    found: list[tuple[int, str, str, str, str]] = []
    rows: list[Row] = []
    seen: dict[tuple[str, ...], int] = {}
    for number, row in zip(numbers, cells, strict=True):
        if len(row) != len(header):
            found.append((number, "", f"{len(row)} cells", f"{len(header)}, as in the header",
                          "quote cells that hold the delimiter"))  # fmt: skip
            continue
        record = {**(defaults or {}), **{k: v for k, v in zip(header, row, strict=True) if v != ""}}
        record = {k: v for k, v in record.items() if k in schema.model_fields}
        try:
            item = schema.model_validate(record)
        except ValidationError as err:
            found += [(number, *explain(e, record)) for e in err.errors()]
            continue
        name = tuple(str(getattr(item, k)) for k in key)
        if name in seen:
            column = "subject" if "subject" in key else key[0]
            found.append((number, column, " / ".join(n for n in name if n), f"each {' + '.join(key)} once",
                          f"it stands in row {seen[name]} too: remove or rename one of them"))  # fmt: skip
            continue
        seen[name] = number
        rows.append(item)
    problems.extend(_gather(path.name, found))
    return rows


def _check_header(
    name: str, header: list[str], schema: type[BaseModel], given: set[str], problems: list[Problem]
) -> None:
    known = schema.model_fields
    for column in {c for c in header if header.count(c) > 1}:
        problems.append(Problem(name, column, "each column once", "rename or remove the second", field=column))
    for column in header:
        hint = nearest(column, known)
        if column not in known and hint.startswith("did you mean"):
            problems.append(Problem(name, column, "a known column", hint, field=column))
    for column, info in known.items():
        if info.is_required() and column not in header and column not in given:
            problems.append(Problem(name, "", f"a column '{column}'", "add it", field=column))


def explain(error: ErrorDetails, record: dict[str, str] | None = None) -> tuple[str, str, str, str]:
    """Turn one pydantic error into (field, found, expected, remedy) in words."""
    field = ".".join(str(part) for part in error["loc"])
    context = error.get("ctx", {})
    kind = error["type"]
    found = "" if kind == "missing" else str(error["input"])[:80]
    if kind == "value_error":
        expected = str(context.get("error", error["msg"]))
        if isinstance(error["input"], dict):
            found = str((record or error["input"]).get("value", "")) if field == "" else ""
        return field or "value", found, expected, "correct it"
    if kind == "missing":
        return field, found, "a value", "fill the cell or key"
    if kind == "extra_forbidden":
        return field, found, "no such key", "remove it"
    if kind.startswith(("float", "int", "finite")):
        if _DECIMAL_COMMA.match(found):
            return field, found, "a number with a decimal point", "replace decimal commas by points in this column"
        expected = "a whole number" if kind.startswith("int") else "a finite number"
        return field, found, expected, "correct it, or leave the cell empty where the value may be missing"
    if kind == "literal_error":
        options = re.findall(r"'([^']+)'", str(context.get("expected", "")))
        return field, found, "one of " + ", ".join(options), nearest(found, options)
    if kind in _SHAPES:
        return field, found, _SHAPES[kind], "correct it"
    bounds = {"greater_than": "more than {gt:g}", "greater_than_equal": "{ge:g} or more",
              "less_than": "less than {lt:g}", "less_than_equal": "{le:g} or less"}  # fmt: skip
    if kind in bounds:
        return field, found, bounds[kind].format(**context), "correct the value or its unit"
    return field, found, error["msg"].lower(), "correct it"


def _gather(name: str, found: list[tuple[int, str, str, str, str]]) -> list[Problem]:
    """One sentence per kind of problem and column: the first row in full, the others counted."""
    groups: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for number, field, value, expected, remedy in found:
        groups.setdefault((field, expected, remedy), []).append((number, value))
    problems = []
    for (field, expected, remedy), rows in groups.items():
        for number, value in rows[:_MAX_NAMED_ROWS]:
            problems.append(Problem(name, value, expected, remedy, row=number, field=field or None))
        if len(rows) > _MAX_NAMED_ROWS:
            others = [str(number) for number, _ in rows[_MAX_NAMED_ROWS:]]
            more = ", ".join(others[:50]) + (", ..." if len(others) > 50 else "")
            problems.append(Problem(name, f"the same in {len(rows) - _MAX_NAMED_ROWS} more rows ({more})",
                                    expected, remedy, field=field or None))  # fmt: skip
    return sorted(problems, key=lambda p: (p.row is None, p.row or 0))
