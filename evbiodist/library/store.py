"""The library's folder: one part for every version of a study, which is there whole or not at all.

A part is made under a temporary name and renamed last, so nothing that a killed process leaves is ever read, and no list of
parts exists that could disagree with them. Who adds holds a lock that ends with the process; who reads needs none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from evbiodist.batch import store
from evbiodist.library import database
from evbiodist.library.metadata import Metadata, columns_of, identity
from evbiodist.study.problems import InputError, Problem

if TYPE_CHECKING:
    from evbiodist.library.intake import Incoming

MARKER = "library.json"
_PARTS = "parts"
_LOCK = ".evbiodist.lock"
_FORMAT = 1
_NAME = re.compile(r"[0-9a-f]{12}-v(\d{4,})-[0-9a-f]{16}")
_UNFINISHED = ".part-"
_FILES = {f"{table}.parquet" for table in database.PART_TABLES}
_KEPT = {
    "study",
    "version",
    "key",
    "values",
    "title",
    "added",
    "simulated",
    "interval_level",
    "rows",
    "inputs",
    "metadata",
}


@dataclass(frozen=True)
class Part:
    """One version of a study in the library: where it lies and what its completion record says."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def study(self) -> str:
        """Name under which the study is kept."""
        return str(self.record["study"])

    @property
    def version(self) -> int:
        """Number of the version, from 1."""
        return int(self.record["version"])

    @property
    def metadata(self) -> Metadata:
        """What is known of the study."""
        return Metadata.model_validate(self.record["metadata"])

    def file(self, table: str) -> Path:
        """Return the Parquet file of a table."""
        return self.folder / f"{table}.parquet"

    def row(self) -> dict[str, Any]:
        """Return the study's row of the library's table of studies."""
        kept = ("version", "added", "title", "simulated", "interval_level")
        metadata = self.metadata
        return {"entry": self.study, "description": metadata.description, "source": metadata.source,
                **{k: self.record[k] for k in kept}, **columns_of(metadata)}  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """What a library holds: the last version of each study, those it replaced, and sentences about damaged ones."""

    current: tuple[Part, ...]
    replaced: tuple[Part, ...]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """What `add` did: the part, whether it is new, and sentences for the user."""

    part: Part
    new: bool
    notes: tuple[str, ...] = ()


def contents(library: str | Path) -> Contents:
    """Return the parts of a library; every file of theirs is compared with its hash.

    Raises
    ------
    InputError : there is no library.

    Examples
    --------
    >>> contents("nowhere")
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: nowhere: found nothing, expected a library of studies; make one with evbiodist library add.
    """
    library = Path(library)
    if not (library / MARKER).is_file():
        found = "another folder" if library.is_dir() else ""
        raise InputError([Problem(library.name, found, "a library of studies", "make one with evbiodist library add")])
    _readable_format(library)
    parts: list[Part] = []
    damaged: dict[str, str] = {}
    for folder in sorted((p for p in (library / _PARTS).glob("*") if _NAME.fullmatch(p.name)), key=_order):
        record = _record(folder)
        if isinstance(record, str):
            damaged[folder.name] = f"{folder.name} is damaged and its study was left out: {record}; add the study again"
        else:
            parts.append(Part(folder, record))
    # an older version does not stand in for a damaged one
    last = {
        name[:12]: name for name in sorted([*damaged, *(p.folder.name for p in parts)], key=lambda n: _order(Path(n)))
    }
    current = sorted((p for p in parts if p.folder.name in last.values()), key=lambda p: identity(p.study))
    replaced = [p for p in parts if p.folder.name not in last.values()]
    return Contents(
        tuple(current), tuple(replaced), tuple(said for name, said in damaged.items() if name in last.values())
    )


def _order(folder: Path) -> tuple[int, str]:
    found = _NAME.fullmatch(folder.name)
    return (int(found.group(1)) if found else 0, folder.name)


def _readable_format(library: Path) -> None:
    try:
        number = json.loads((library / MARKER).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        number = None
    if number != _FORMAT:
        raise InputError([Problem(f"{library.name}/{MARKER}", str(number), f"format {_FORMAT}",
                                  "use the evbiodist that wrote it")])  # fmt: skip


def _record(folder: Path) -> Mapping[str, Any] | str:
    """Return a part's record, or what is wrong with the part."""
    try:
        held = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        record = held["content"]
        if held["sum"] != store.key_of(record):
            return "part.json does not match its checksum"
        if record["files"].keys() != _FILES or not record.keys() >= _KEPT or record["version"] != _order(folder)[0]:
            return "part.json is none of a part"
        for name, digest in record["files"].items():
            if store.sha256(folder / name) != digest:
                return f"{name} does not match its hash"
        Metadata.model_validate(record["metadata"])
    except OSError as err:
        return f"{Path(str(err.filename)).name}: {err.strerror or err}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "part.json is none of a part"
    return dict(record)


def add(library: str | Path, incoming: Incoming, *, new_version: bool = False, wait_s: float = 120.0) -> Added:
    """Add a study to a library, making the library where there is none.

    The same content twice adds nothing. Other content under the name of a study that shares an input file with it is its
    next version: the earlier one is kept but no longer queried. Any number of processes may add at once.

    Parameters
    ----------
    library : its folder.
    incoming : from `read_incoming`.
    new_version : take it for the next version of the study of its name though they share no input file.
    wait_s : how long to wait for others that are adding.

    Raises
    ------
    InputError : a folder that is no library, another study of the same name, or the same values under another name.
    FolderBusyError, NoRoomError : others add for too long; the disk is full or cannot be written.
    """
    database.engine()  # says what to install before anything is made
    library = Path(library)
    _refuse_foreign(library)
    with _held(library, wait_s):
        _clear_unfinished(library)
        if not (library / MARKER).is_file():
            store.write_bytes(library / MARKER, json.dumps({"format": _FORMAT}).encode())
        inside = contents(library)
        key, values = _keys(incoming)
        name = identity(incoming.metadata.study)
        last = next((p for p in inside.current if identity(p.study) == name), None)
        if last is not None and last.record["key"] == key:
            said = f"'{last.study}' is in the library with the same content (version {last.version})"
            return Added(last, False, (said,))
        if not new_version:
            _refuse_namesake(incoming, [p for p in (*inside.current, *inside.replaced) if identity(p.study) == name])
        _refuse_twin(incoming, values, inside)
        number = _next_number(library, incoming.metadata.study)
        part = _write(library, incoming, number, key, values)
    notes = [f"version {number} replaces version {last.version} of {last.record['added']}"] if last else []
    return Added(part, True, (*incoming.notes, *notes))


def _clear_unfinished(library: Path) -> None:
    """Remove what killed processes left; whoever holds the lock is the only one who writes."""
    for left in (*library.glob(f"{_UNFINISHED}*"), *(library / _PARTS).glob(f"{_UNFINISHED}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _refuse_foreign(library: Path) -> None:
    there = [p.name for p in library.iterdir() if not p.name.startswith(".")] if library.is_dir() else []
    if library.exists() and not library.is_dir():
        raise InputError([Problem(library.name, "a file", "a folder for the library", "choose another --library")])
    if there and MARKER not in there and set(there) - {_PARTS}:
        raise InputError([Problem(library.name, f"other files ({', '.join(sorted(there)[:3])})",
                                  "a library, or a new or empty folder", "choose another --library")])  # fmt: skip


def _refuse_namesake(incoming: Incoming, earlier: Sequence[Part]) -> None:
    if not earlier or any(incoming.inputs & set(part.record["inputs"]) for part in earlier):
        return
    raise InputError([Problem(
        incoming.title, f"another study of the name '{earlier[0].study}' in the library, with which it shares no input file",
        "a name of its own", 'give one by study = "..." in a metadata.toml, or --new-version if it is the same study')])  # fmt: skip


def _refuse_twin(incoming: Incoming, values: str, inside: Contents) -> None:
    name = identity(incoming.metadata.study)
    twin = next((p for p in inside.current if p.record["values"] == values and identity(p.study) != name), None)
    if twin is not None:
        raise InputError([Problem(incoming.title, f"the very values of '{twin.study}', which is in the library",
                                  "each study once", "leave it out, or it would count twice")])  # fmt: skip


def _next_number(library: Path, study: str) -> int:
    """Return the version that follows all, damaged ones too."""
    names = (_NAME.fullmatch(p.name) for p in (library / _PARTS).glob(f"{_short(study)}-v*"))
    return 1 + max((int(name.group(1)) for name in names if name), default=0)


def _short(study: str) -> str:
    return store.key_of(identity(study))[:12]


def _keys(incoming: Incoming) -> tuple[str, str]:
    """Return the hash of all that is to be added, and that of the measured values alone, whatever the study is called."""
    tables = [sorted(json.dumps(row, sort_keys=True, default=str) for row in getattr(incoming, table))
              for table in database.PART_TABLES]  # fmt: skip
    about = [
        incoming.metadata.model_dump(mode="json"),
        dict(incoming.labels),
        incoming.simulated,
        incoming.interval_level,
    ]
    measured = ("subject", "group", "label", "organ", "time_h", "value", "se", "sd", "n", "unit", "mass_g")
    values = sorted(json.dumps([row[c] for c in measured]) for row in incoming.observations)
    return store.key_of(tables, about), store.key_of(values)


def _write(library: Path, incoming: Incoming, number: int, key: str, values: str) -> Part:
    """Make a part under a temporary name, wait until the disk has it, and give it its name."""
    study = incoming.metadata.study
    place = library / _PARTS / f"{_short(study)}-v{number:04d}-{key[:16]}"
    made = library / _PARTS / f"{_UNFINISHED}{os.getpid()}"
    try:
        made.mkdir(parents=True)
        counts = {}
        with database.connect() as con:
            for table, schema in database.PART_TABLES.items():
                rows = [{"entry": study, **row} for row in getattr(incoming, table)]
                database.write_parquet(con, made / f"{table}.parquet", rows, schema)
                counts[table] = len(rows)
        record = {
            "study": study, "version": number, "key": key, "values": values, "title": incoming.title,
            "added": datetime.now(UTC).isoformat(timespec="seconds"), "evbiodist": installed("evbiodist"),
            "origin": incoming.origin, "simulated": incoming.simulated, "interval_level": incoming.interval_level,
            "rows": counts, "inputs": sorted(incoming.inputs), "labels": dict(incoming.labels),
            "metadata": incoming.metadata.model_dump(mode="json", exclude_none=True), "notes": list(incoming.notes),
            "files": {f"{table}.parquet": store.sha256(made / f"{table}.parquet") for table in database.PART_TABLES},
        }  # fmt: skip
        held = {"content": record, "sum": store.key_of(record)}
        store.write_bytes(made / "part.json", json.dumps(held, indent=1, sort_keys=True, ensure_ascii=False).encode())
        _to_disk(made)
        os.rename(made, place)
        _to_disk(place.parent)
    except OSError as err:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(err, store.NoRoomError):
            raise
        raise store.NoRoomError(f"'{library.name}' cannot be written: {err.strerror or err}; free some room or choose another "
                                "--library") from err  # fmt: skip
    return Part(place, record)


def _to_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _held(library: Path, wait_s: float) -> Iterator[None]:
    """Hold a library for adding, after whoever else does; the lock ends with the process."""
    try:
        (library / _PARTS).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(library / _LOCK, timeout=wait_s)
        lock.acquire()
    except filelock.Timeout as err:
        raise store.FolderBusyError(
            f"others have been adding to '{library.name}' for {wait_s:g} s; try again when they are done"
        ) from err
    except OSError as err:
        raise store.NoRoomError(
            f"'{library.name}' cannot be written: {err.strerror or err}; choose another --library"
        ) from err
    try:
        yield
    finally:
        lock.release()


def open_tables(
    parts: Sequence[Part], tables: Sequence[str] = tuple(database.PART_TABLES), *, memory: str = "2GB"
) -> Any:
    """Return a database in memory with the tables `studies`, `observations`, `parameters` and `curves` of parts.

    Nothing outside that memory can be reached from it. Rows of the last three carry what is known of their study.

    Parameters
    ----------
    parts : of the library; tables : beside `studies`, which are needed; memory : the most the database may take.
    """
    con = database.connect(memory)
    try:
        database.fill(con, "studies", [part.row() for part in parts], database.STUDIES)
        for table, schema in database.PART_TABLES.items():
            if table not in tables:
                continue
            database.read_parquet(con, f"raw_{table}", [part.file(table) for part in parts], schema)
            extra = ", ".join(f"s.{database.quoted(c)}" for c in database.joined(table))
            con.execute(f"CREATE TABLE {table} AS SELECT o.*, {extra} FROM raw_{table} o JOIN studies s USING (entry)")  # noqa: S608
            con.execute(f"DROP TABLE raw_{table}")
        database.lock_down(con)
    except database.engine().Error as err:
        con.close()
        raise InputError([Problem("the library", str(err).splitlines()[0], "tables that DuckDB reads",
                                  "update duckdb, or add the studies to a new library")]) from err  # fmt: skip
    return con
