"""The library's tables and the engine that holds them: DuckDB in memory, Parquet on disk.

DuckDB is loaded when the library is used; who does not use it need not have it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.batch.store import NoRoomError
from evbiodist.library.metadata import STUDY_COLUMNS

if TYPE_CHECKING:
    import duckdb

Row = Mapping[str, Any]

_TEXT, _NUMBER, _WHOLE, _YES_NO = "VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"

OBSERVATIONS: dict[str, str] = {
    "entry": _TEXT,
    "study": _TEXT, "subject": _TEXT, "group": _TEXT, "label": _TEXT, "organ": _TEXT, "time_h": _NUMBER,
    "value": _NUMBER, "se": _NUMBER, "unit": _TEXT, "mass_g": _NUMBER, "lloq": _NUMBER, "below_lloq": _YES_NO,
    "flags": _TEXT, "source": _TEXT, "se_systematic": _NUMBER, "sd": _NUMBER, "n": _WHOLE, "vessel_blood": _NUMBER,
    "label_kind": _TEXT, "label_name": _TEXT, "isotope": _TEXT, "control": _TEXT, "route": _TEXT, "dose": _NUMBER,
    "dose_unit": _TEXT, "perfused": _YES_NO, "species": _TEXT, "sex": _TEXT, "weight_g": _NUMBER,
}  # fmt: skip
"""Columns of a part's observations: entry (see `STUDIES`), those of observations.csv, then what is known of label, dose and animal."""

PARAMETERS: dict[str, str] = {
    "entry": _TEXT,
    "study": _TEXT, "subject": _TEXT, "group": _TEXT, "label": _TEXT, "organ": _TEXT, "model": _TEXT,
    "parameter": _TEXT, "value": _NUMBER, "se": _NUMBER, "ci_low": _NUMBER, "ci_high": _NUMBER, "unit": _TEXT,
    "method": _TEXT, "n": _WHOLE, "flags": _TEXT, "reason": _TEXT,
}  # fmt: skip
CURVES: dict[str, str] = {
    "entry": _TEXT,
    "study": _TEXT, "group": _TEXT, "label": _TEXT, "organ": _TEXT, "model": _TEXT, "time_h": _NUMBER,
    "value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "unit": _TEXT,
}  # fmt: skip
PART_TABLES: dict[str, dict[str, str]] = {"observations": OBSERVATIONS, "parameters": PARAMETERS, "curves": CURVES}
"""The tables of a part, by the name of their Parquet file."""

_NUMBERS = {
    "year",
    "age_weeks",
    "particles_per_dose",
    "protein_ug_per_dose",
    "size_mode_nm",
    "zeta_mv",
    "free_label_pct",
}
STUDIES: dict[str, str] = {
    "entry": _TEXT, "version": _WHOLE, "added": _TEXT, "title": _TEXT, "description": _TEXT, "source": _TEXT,
    "simulated": _YES_NO, "interval_level": _NUMBER,
    **{column: _NUMBER if column in _NUMBERS else _TEXT for column in STUDY_COLUMNS},
}  # fmt: skip
"""Columns of the table of studies; an entry is what was added at once, mostly one study."""


def joined(table: str) -> list[str]:
    """Return the columns of the table of studies that every row of another table carries when the library is open.

    Examples
    --------
    >>> "source_cell" in joined("observations"), "species" in joined("observations"), "species" in joined("curves")
    (True, False, True)
    """
    told = ("version", "simulated", "interval_level", *STUDY_COLUMNS)
    return [column for column in told if column not in PART_TABLES[table]]


def engine() -> Any:
    """Return the module duckdb.

    Raises
    ------
    ValueError : it is not installed, with the command that installs it.
    """
    try:
        import duckdb
    except ImportError:
        raise ValueError(
            "the library of studies needs DuckDB, which is not installed; pip install 'evbiodist[library]'"
        ) from None
    return duckdb


def connect(memory: str = "2GB") -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory that writes no temporary files, loads no extensions and sees no Python variables.

    Parameters
    ----------
    memory : the most it may take.
    """
    settings = {
        "threads": "1", "memory_limit": memory, "temp_directory": "", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false", "allow_community_extensions": "false",
        "python_enable_replacements": "false",
    }  # fmt: skip
    return engine().connect(":memory:", config=settings)


def quoted(name: str) -> str:
    """Return a name as SQL takes any.

    Examples
    --------
    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as an SQL string, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def file_name(path: Path) -> str:
    """Return a path as DuckDB reads it: characters of patterns stand for themselves."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def arrays(rows: Sequence[Row], schema: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Return rows as columns that DuckDB takes in one piece; what is missing is None, NaN in numbers."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for column, kind in schema.items():
        values = [row.get(column) for row in rows]
        if kind in (_NUMBER, _WHOLE):
            found[column] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        else:
            found[column] = np.array([None if v is None else v for v in values] + [None], dtype=object)[:-1]
    return found


def fill(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row], schema: Mapping[str, str]) -> None:
    """Create a table of rows with the types of its schema."""
    con.register("incoming", arrays(rows, schema))
    con.execute(f"CREATE TABLE {quoted(table)} AS SELECT {_typed(schema)} FROM incoming")  # noqa: S608  own names
    con.unregister("incoming")


def _typed(schema: Mapping[str, str]) -> str:
    parts = []
    for column, kind in schema.items():
        name = quoted(column)
        taken = f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END" if kind in (_NUMBER, _WHOLE) else name
        parts.append(f"CAST({taken} AS {kind}) AS {name}")
    return ", ".join(parts)


def write_parquet(con: duckdb.DuckDBPyConnection, path: Path, rows: Sequence[Row], schema: Mapping[str, str]) -> None:
    """Write rows as one Parquet file and wait until it is on the disk; the same rows give the same bytes.

    Raises
    ------
    NoRoomError : the disk is full or the folder cannot be written.
    """
    try:
        fill(con, "written", rows, schema)
        con.execute(f"COPY written TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
        con.execute("DROP TABLE written")
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    except (engine().IOException, OSError) as err:
        path.unlink(missing_ok=True)
        raise NoRoomError(f"{path.name} ({len(rows):,} rows) cannot be written to '{path.parent.name}': "
                          f"{str(err).splitlines()[0]}; free some room or choose another folder") from err  # fmt: skip


def read_parquet(con: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path], schema: Mapping[str, str]) -> None:
    """Create a table from the Parquet files of many parts; a column that an older evbiodist did not write is NULL there."""
    if not files:
        return fill(con, table, [], schema)
    names = [file_name(path) for path in files]
    rows = "read_parquet(?, union_by_name = true, hive_partitioning = false)"
    held = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {rows}", [names]).fetchall()}  # noqa: S608
    columns = [f"CAST({quoted(c) if c in held else 'NULL'} AS {kind}) AS {quoted(c)}" for c, kind in schema.items()]
    con.execute(f"CREATE TABLE {quoted(table)} AS SELECT {', '.join(columns)} FROM {rows}", [names])  # noqa: S608


def lock_down(con: duckdb.DuckDBPyConnection) -> None:
    """Take every way out of a database's memory from it: no file, no network, no extension, no setting can be reached."""
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


@contextmanager
def time_limit(con: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt what a database does when it takes longer."""
    import threading

    timer = threading.Timer(seconds, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
