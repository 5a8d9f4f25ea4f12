"""Reading a result folder back: text stays text, numbers become numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evbiodist.crossval.compare import TABLES, TEXT_COLUMNS
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import plain_cell

if TYPE_CHECKING:
    import pandas as pd

_TABLES = ("observations", "parameters", *TABLES, "comparisons", "failures", "curves", "scans")
_TEXT = {"study", "subject", "group", "label", "organ", "unit", "model", "parameter", "method", "flags", "reason",
         "source", "label_a", "label_b", "quantity", "what", "name", "file", "scan", "kind", "picture", "legend",
         "below_lloq", "contrast", "within", "arm_a", "arm_b", "family", *TEXT_COLUMNS}  # fmt: skip

#: Columns that are words in one table and numbers in others.
_WORDS = {("ranks", "time_h"), ("identifiability", "unit")}


@dataclass(frozen=True, eq=False)
class ResultFolder:
    """The tables of a run and what it says of its study."""

    path: Path
    tables: dict[str, pd.DataFrame]
    study: dict[str, Any]

    def __getitem__(self, table: str) -> pd.DataFrame:
        return self.tables[table]


def read_results(path: str | Path) -> ResultFolder:
    """Read a result folder.

    Raises
    ------
    InputError : not a result folder, with what is missing.
    """
    import pandas as pd

    path = Path(path)
    missing = [name for name in ("observations.csv", "study.json") if not (path / name).is_file()]
    if missing:
        raise InputError([Problem(path.name, ", ".join(f"no {m}" for m in missing), "a result folder of evbiodist run",
                                  "name the folder given to --out")])  # fmt: skip
    tables = {}
    for name in _TABLES:
        file = path / f"{name}.csv"
        try:
            frame = pd.read_csv(file, dtype=str, keep_default_na=False) if file.is_file() else pd.DataFrame()
            for column in frame.columns:
                if column not in _TEXT and (name, column) not in _WORDS:
                    frame[column] = pd.to_numeric(frame[column].where(frame[column] != ""))
                else:
                    frame[column] = frame[column].map(plain_cell)
        except ValueError as err:
            raise InputError([_damaged(file, err)]) from err
        tables[name] = frame
    try:
        study = json.loads((path / "study.json").read_text(encoding="utf-8"))
        settings = study["settings"]
        settings["crossval"]["organ"], settings["kinetics"]["level"], study["name"]
    except (ValueError, KeyError, TypeError) as err:
        raise InputError([_damaged(path / "study.json", err)]) from err
    return ResultFolder(path, tables, study)


def _damaged(file: Path, err: Exception) -> Problem:
    return Problem(file.name, f"{type(err).__name__}: {err}", "the file as a run wrote it", "run the study again")


def provenance(path: Path) -> dict[str, Any]:
    """Return what provenance.json of a result folder says; nothing where the run has not ended."""
    try:
        found = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table, a value a column as attributes; a table without rows may lack its columns."""
    yield from table.itertuples()
