"""Questions to a library: by filters, or by SQL that can read the library's tables and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from evbiodist.batch.store import csv_bytes, write_bytes
from evbiodist.library import database
from evbiodist.library.metadata import identity
from evbiodist.library.store import Part, open_tables
from evbiodist.study.problems import nearest
from evbiodist.study.tables import escape_cell
from evbiodist.study.vocabulary import organ_name

TABLES = ("observations", "parameters", "curves", "studies")
"""Tables of an open library."""

_MAX_ROWS = 5_000_000
_TIME_LIMIT_S = 60.0


@dataclass(frozen=True)
class Filters:
    """What rows must be to count: one of the values named, in every column where any is named.

    Parameters
    ----------
    organ, label, species, route, source_cell, carrier, study, group, unit, sex, label_kind, strain : values; `label` takes a
        study's own word or the catalogue's name, `study` also the name of the entry.
    time_h : first and last hour.
    simulated : False leaves simulated studies out, True measured ones.

    Examples
    --------
    >>> Filters(organ=("Livers",), time_h=(0, 24)).where("observations")
    ('"organ" IN (?) AND "time_h" BETWEEN ? AND ?', ['liver', 0, 24])
    """

    organ: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    label_kind: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    strain: tuple[str, ...] = ()
    sex: tuple[str, ...] = ()
    route: tuple[str, ...] = ()
    source_cell: tuple[str, ...] = ()
    carrier: tuple[str, ...] = ()
    study: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    time_h: tuple[float, float] | None = None
    simulated: bool | None = None

    def where(self, table: str) -> tuple[str, list[Any]]:
        """Return a condition of SQL and its parameters.

        Raises
        ------
        ValueError : a filter by a column that the table does not have.
        """
        terms: list[str] = []
        values: list[Any] = []
        known = _columns(table)
        for name, column, wanted in self._given():
            columns = [c for c in _ALIKE.get(column, (column,)) if c in known]
            if not columns:
                raise ValueError(f"{table} have no {column}, so they cannot be chosen by it; leave --{name} out")
            if column == "time_h":
                terms.append(f"{database.quoted(column)} BETWEEN ? AND ?")
                values += wanted
                continue
            marks = ", ".join("?" * len(wanted))
            terms.append(" OR ".join(f"{database.quoted(c)} IN ({marks})" for c in columns))
            values += list(wanted) * len(columns)
        return " AND ".join(f"({t})" if " OR " in t else t for t in terms) or "TRUE", values

    def _given(self) -> list[tuple[str, str, Sequence[Any]]]:
        found: list[tuple[str, str, Sequence[Any]]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "organ":
                value = tuple(organ_name(v) for v in value)
            if value not in ((), None):
                option = {"time_h": "time"}.get(field.name, field.name.replace("_", "-"))
                found.append((option, field.name, (value,) if isinstance(value, bool) else value))
        return found


#: Columns in which a filter looks.
_ALIKE = {"label": ("label", "label_name"), "study": ("study", "entry")}


def _columns(table: str) -> list[str]:
    if table == "studies":
        return list(database.STUDIES)
    return [*database.PART_TABLES[table], *database.joined(table)]


def _like(word: str, held: set[str]) -> str:
    same = next((h for h in sorted(held) if identity(h) == identity(word)), None)
    return f"did you mean '{same}'?" if same else nearest(word, held)


@dataclass(frozen=True)
class Found:
    """Rows of an answer, as lists of values in the order of the columns."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """Return rows by the names of their columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def select(parts: Sequence[Part], filters: Filters, table: str = "observations") -> Found:
    """Return the rows of a library's table that filters let through, in one order.

    Parameters
    ----------
    parts : of the library, mostly `contents(library).current`.
    filters : what rows must be.
    table : one of `TABLES`.

    Raises
    ------
    ValueError : no such table, or a filter by a column it does not have.
    """
    if table not in TABLES:
        raise ValueError(f"there is no table '{table}' in the library; {nearest(table, TABLES)}")
    condition, values = filters.where(table)
    con = open_tables(parts, (table,))
    try:
        every = ", ".join(str(i + 1) for i in range(len(_columns(table))))
        shown = ", ".join(database.quoted(c) for c in _columns(table))
        con.execute(f"SELECT {shown} FROM {table} WHERE {condition} ORDER BY {every}", values)  # noqa: S608  own names
        return Found(tuple(_columns(table)), con.fetchall())
    finally:
        con.close()


def empty_because(parts: Sequence[Part], filters: Filters, table: str) -> str:
    """Return why no row is left: a value that the library does not hold, or that no row has all of them at once."""
    for option, column, wanted in filters._given():
        if column in ("time_h", "simulated"):
            continue
        held = {str(row[c]) for row in select(parts, Filters(), table).records() for c in _ALIKE.get(column, (column,))
                if c in row and row[c] is not None}  # fmt: skip
        unknown = next((w for w in wanted if w not in held), None)
        if unknown is not None:
            return f"no row has --{option} '{unknown}'; {_like(unknown, held)}" if held else f"no row says its {option}"
    return "no row has all of what was asked for; leave one of the options out"


def sql(parts: Sequence[Part], statement: str, *, seconds: float = _TIME_LIMIT_S, memory: str = "2GB") -> Found:
    """Return the answer to one SELECT over the tables of a library.

    The database lies in memory, and no file, network, extension, setting or Python variable can be reached from it.

    Parameters
    ----------
    parts : of the library; statement : in DuckDB's SQL; `"group"` is a word of SQL and needs quotes.
    seconds : after which it is stopped; memory : the most that the database may take.

    Raises
    ------
    ValueError : not one SELECT, or one that fails, takes too long or returns too many rows.
    """
    duckdb = database.engine()
    con = open_tables(parts, memory=memory)
    try:
        con.execute("SELECT 1")
        statements = con.extract_statements(statement)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ValueError(f"--sql holds {_kinds(statements)}, expected one SELECT over {', '.join(TABLES)}")
        with database.time_limit(con, seconds):
            con.execute(statements[0])
            rows = con.fetchmany(_MAX_ROWS + 1)
        columns = tuple(str(c[0]) for c in con.description)
    except duckdb.InterruptException:
        raise ValueError(f"--sql took more than {seconds:g} s and was stopped; ask for less") from None
    except (duckdb.Error, RecursionError, UnicodeError) as err:
        raise ValueError(f"--sql cannot be answered: {_first_line(err)}") from None
    finally:
        con.close()
    if len(rows) > _MAX_ROWS:
        raise ValueError(f"--sql returns more than {_MAX_ROWS:,} rows; ask for less, such as with LIMIT")
    if len(set(columns)) < len(columns):
        raise ValueError("--sql returns two columns of one name; name them apart with AS")
    return Found(columns, [tuple(float(v) if isinstance(v, Decimal) else v for v in row) for row in rows])


def _kinds(statements: Sequence[Any]) -> str:
    kinds = [str(s.type).rsplit(".", 1)[-1] for s in statements]
    return f"{len(kinds)} statements ({', '.join(kinds[:5])})" if len(kinds) != 1 else f"a statement of {kinds[0]}"


def _first_line(err: BaseException) -> str:
    lines = [line for line in str(err).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(err).__name__


def write(found: Found, path: Path) -> None:
    """Write an answer as CSV, Parquet or JSON, by the ending of the name; it appears whole or not at all.

    Raises
    ------
    ValueError : another ending.
    NoRoomError : the disk is full or cannot be written.
    """
    if path.suffix == ".csv":
        columns = [escape_cell(c) for c in found.columns]
        write_bytes(path, csv_bytes([dict(zip(columns, row, strict=True)) for row in found.rows], columns))
    elif path.suffix == ".json":
        write_bytes(
            path, (json.dumps([plain(r) for r in found.records()], indent=1, ensure_ascii=False) + "\n").encode()
        )
    elif path.suffix == ".parquet":
        write_bytes(path, _parquet_bytes(found))
    else:
        raise ValueError(f"--out '{path.name}' ends with '{path.suffix}', expected .csv, .parquet or .json")


def _parquet_bytes(found: Found) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, database.connect() as con:
        path = Path(folder) / "answer.parquet"
        schema = {c: _sql_type([row[i] for row in found.rows]) for i, c in enumerate(found.columns)}
        rows = [{c: _as(schema[c], v) for c, v in record.items()} for record in found.records()]
        database.write_parquet(con, path, rows, schema)
        return path.read_bytes()


def _sql_type(values: Sequence[Any]) -> str:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int} and all(abs(v) < 2**53 for v in values if v is not None):
        return "BIGINT"
    return "DOUBLE" if kinds and kinds <= {int, float} else "VARCHAR"


def _as(kind: str, value: Any) -> Any:
    return str(value) if kind == "VARCHAR" and value is not None else value


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON holds it: numbers that are none are null, anything but number, text and truth is text."""

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None if math.isnan(value) else str(value)
        return value if value is None or isinstance(value, bool | int | str) else str(value)

    return {name: cell(value) for name, value in record.items()}


def or_none(value: Any) -> Any:
    """Return a value as the tables hold it: NaN and empty text are missing."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def shared_values(parts: Sequence[Part], least: int = 3) -> list[tuple[str, str, int]]:
    """Return pairs of studies in which many values are the same to the last digit, with how many: likely the same animals.

    Parameters
    ----------
    parts : of the library; least : fewest values that count.
    """
    con = open_tables(parts, ("observations",))
    try:
        con.execute(
            "WITH v AS (SELECT DISTINCT study, organ, time_h, unit, value FROM observations WHERE value <> 0) "
            "SELECT a.study, b.study, count(*) FROM v a JOIN v b USING (organ, time_h, unit, value) "
            "WHERE a.study < b.study GROUP BY ALL HAVING count(*) >= ? ORDER BY ALL", [least])  # fmt: skip
        return [(str(a), str(b), int(n)) for a, b, n in con.fetchall() if identity(a) != identity(b)]
    finally:
        con.close()
