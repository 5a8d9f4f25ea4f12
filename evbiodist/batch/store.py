"""The result folder: every file appears whole or not at all, and one run holds it at a time.

Results of single scans are shards named by their content (input bytes, settings, version), so a rerun
takes up where the last one ended and changed input recomputes what depends on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from evbiodist.study.tables import escape_cell

_SHARDS = "scans"
_LOCK = ".evbiodist.lock"
#: What a run leaves that was killed before its end.
_UNFINISHED = {_SHARDS, "scans.csv", "journal.jsonl"}
_OURS = re.compile(r"[0-9a-f]{32}\.(json|png)")


class FolderBusyError(RuntimeError):
    """Another run holds the result folder."""


class NoRoomError(OSError):
    """The disk or folder does not take the results, said in a sentence."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all: temporary name, fsync, rename.

    Raises
    ------
    NoRoomError : the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as err:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise NoRoomError(f"{path.name} ({len(data):,} bytes{_free(path.parent, err)}) cannot be written to '{path.parent.name}': "
                          f"{err.strerror or err}; free some room or choose another --out") from err  # fmt: skip


def _free(folder: Path, err: OSError) -> str:
    """Return how much room there is, where that is what is wrong."""
    if err.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    with contextlib.suppress(OSError):
        return f", {shutil.disk_usage(folder).free:,} free"
    return ""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a result folder; the lock ends with the process, so none is ever left to delete by hand.

    Raises
    ------
    FolderBusyError : another run holds it, with its process number.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as err:
        owner = _owner(folder)
        raise FolderBusyError(
            f"another run{owner} is writing to '{folder.name}'; wait for it or choose another --out"
        ) from err
    except OSError as err:
        raise NoRoomError(f"'{folder.name}' cannot be written: {err.strerror or err}; choose another --out") from err
    try:
        for left in [*folder.glob(".part-*"), *(folder / _SHARDS).glob(".part-*")]:  # of a run that was killed
            left.unlink(missing_ok=True)
        (folder / f"{_LOCK}.owner").write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / f"{_LOCK}.owner").unlink()
        lock.release()


def _owner(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return f" (process {(folder / f'{_LOCK}.owner').read_text(encoding='ascii')})"
    return ""


def refuse_foreign(out: Path, root: Path, inputs: Iterable[Path], study: str) -> None:
    """Refuse a result folder in which a run would overwrite what is not its own.

    Parameters
    ----------
    out : the result folder; root : the study's folder; inputs : the study's files; study : its name.

    Raises
    ------
    ValueError : the study's own folder, a folder that holds inputs, other files, or another study's results.
    """
    out, root = out.resolve(), root.resolve()
    if root.is_relative_to(out) or any(Path(os.path.realpath(p)).is_relative_to(out) for p in inputs):
        raise ValueError(f"--out '{out.name}' holds the study's own files, which results would overwrite; "
                         "choose another folder, such as results")  # fmt: skip
    if not out.is_dir():
        return
    there = [p.name for p in out.iterdir() if not p.name.startswith(".")]
    described = out / "study.json"
    if there and not described.is_file() and set(there) - _UNFINISHED:
        raise ValueError(
            f"--out '{out.name}' holds other files ({', '.join(sorted(there)[:3])}); choose a new or empty folder"
        )
    if described.is_file():
        try:
            other = json.loads(described.read_text(encoding="utf-8")).get("name", study)
        except (ValueError, AttributeError, OSError):
            return
        if other != study:
            raise ValueError(f"--out '{out.name}' holds the results of another study, '{other}'; choose another folder")


def sha256(path: Path) -> str:
    """Return a file's SHA-256, or of all files in a folder (an instrument's click)."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def key_of(*parts: object) -> str:
    """Return a shard's name: a hash of everything its content depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def shard_path(folder: Path, key: str, suffix: str = ".json") -> Path:
    """Return where a scan's result lies."""
    return folder / _SHARDS / f"{key}{suffix}"


def read_shard(folder: Path, key: str) -> dict[str, Any] | None:
    """Return a scan's result, or None when it is not there or damaged (it is then made again)."""
    try:
        text = shard_path(folder, key).read_text(encoding="utf-8")
        held = json.loads(text)
    except (OSError, ValueError):
        return None
    whole = isinstance(held, dict) and held.get("sum") == _checksum(held.get("content"))
    return dict(held["content"]) if whole else None


def write_shard(folder: Path, key: str, content: Mapping[str, Any]) -> None:
    """Write a scan's result with its checksum."""
    held = {"content": content, "sum": _checksum(content)}
    write_bytes(shard_path(folder, key), json.dumps(held, sort_keys=True).encode())


def _checksum(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def prune_shards(folder: Path, keep: Iterable[str]) -> None:
    """Remove shards that no scan of the study refers to any more."""
    wanted = set(keep)
    for path in sorted((folder / _SHARDS).glob("*")):
        if path.stem not in wanted and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def csv_bytes(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Return rows as CSV in UTF-8: numbers to their last digit, missing ones empty, text safe in a spreadsheet.

    Examples
    --------
    >>> csv_bytes([{"a": "=1+1", "b": -1.5}, {"a": "x", "b": float("nan")}], ["a", "b"])
    b"a,b\\n'=1+1,-1.5\\nx,\\n"
    """
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return escape_cell(str(value))
