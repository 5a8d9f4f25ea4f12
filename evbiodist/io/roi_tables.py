"""Tables of regions as imaging programs export them: where the header is, what is a number, and what is an organ.

Encodings, delimiters and decimal commas differ by program and country, and lines stand above the header.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from evbiodist.io.organ_tables import OrganTable
from evbiodist.study.model import Observation
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import explain, plain_cell, read_bounded
from evbiodist.study.vocabulary import NOT_ORGANS, organ_name

_PLAIN = re.compile(r"^(?:roi|voi|region|measurement)?[\s_-]*\d*$", re.I)
_ASIDE = re.compile(r"^(?:(?:average|avg)[\s_-]*)?(?:bkg|background|subject|total|sum|mean|average|stdev?|sd)(?:[\s_-]*(?:roi|\d))*$",
                    re.I)  # fmt: skip
_NUMBER = re.compile(r"^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$")
_COMMA_NUMBER = re.compile(r"^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$")
_USUAL = {"liver", "spleen", "kidney", "lung", "heart", "brain", "gut", "stomach", "pancreas", "muscle", "bone", "skin",
          "bladder", "thymus", "lymph_node", "tumor", "tumour", "small_intestine", "large_intestine", "colon", "uterus",
          "ovary", "testis", "thyroid", "eye", "fat", *NOT_ORGANS}  # fmt: skip
_MAX_LOOK = 65536


@dataclass(frozen=True)
class RoiTable(OrganTable):
    """An organ table that was only looked at and does not say enough for rows: what was measured, in words.

    Parameters
    ----------
    facts : what there is to tell of the table, as (name, text) pairs; empty where `rows` tell it.
    """

    facts: tuple[tuple[str, str], ...] = ()

    def describe(self) -> list[tuple[str, str]]:
        """Return what a person wants to know as (name, text) pairs."""
        if self.rows:
            return [*self.facts, *super().describe()]
        return [("layout", f"{self.layout}, not ready for use"), *self.facts, ("unit", self.unit or "unknown"),
                *[("note", note) for note in self.notes]]  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Cells of a foreign table as text, each with the line it stands on."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    delimiter: str


def decode(raw: bytes) -> str:
    """Return the text of a table in UTF-8, UTF-16 or the Windows code page, whichever it is.

    Raises
    ------
    ValueError : binary data.

    Examples
    --------
    >>> decode("p/s/cm²".encode("cp1252")) == decode("p/s/cm²".encode("utf-16")) == "p/s/cm²"
    True
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    odd, even = raw[1:400:2].count(0), raw[0:400:2].count(0)
    if max(odd, even) > 0.8 * len(raw[1:400:2]) > 0 and min(odd, even) == 0:
        return raw.decode("utf-16-le" if odd else "utf-16-be", errors="replace")
    if b"\0" in raw:
        raise ValueError("binary data")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def grid(text: str, is_header: Callable[[list[str]], bool]) -> Grid | None:
    """Return the cells under the first line that is a header; None where there is none in the first 60 lines.

    Raises
    ------
    csv.Error : a quote that is not closed.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    split = [(line, max("\t;,", key=line.count)) for line in lines[:60]]
    headers = [_stripped(next(csv.reader([line], delimiter=delimiter), [])) for line, delimiter in split]
    start = next((i for i, header in enumerate(headers) if is_header(header)), None)
    if start is None:
        return None
    header, delimiter = headers[start], split[start][1]
    reader = csv.reader(io.StringIO("\n".join(lines[start + 1 :]), newline=""), delimiter=delimiter, strict=True)
    rows, begins = [], start + 2
    for cells in reader:
        if any(cell.strip() for cell in cells):
            rows.append((begins, [plain_cell(c) for c in _stripped(cells, len(header))]))
        begins = start + 2 + reader.line_num
    return Grid(header, rows, delimiter)


def _stripped(cells: Sequence[str], least: int = 0) -> list[str]:
    """Return cells without blanks around them and without empty ones at the end of the line."""
    done = [cell.strip() for cell in cells]
    while len(done) > least and not done[-1]:
        done.pop()
    return done


def is_plain(name: str) -> bool:
    """Return whether a ROI has only the name its program gave it (``ROI 1``), or none.

    Examples
    --------
    >>> is_plain("ROI 1"), is_plain("Liver")
    (True, False)
    """
    return bool(_PLAIN.match(name.strip()))


def is_aside(name: str) -> bool:
    """Return whether a row is a background, a subject outline or a total instead of an organ.

    Examples
    --------
    >>> is_aside("Bkg 1"), is_aside("Average Bkg 2"), is_aside("Subject 1"), is_aside("Liver 1")
    (True, True, True, False)
    """
    return bool(_ASIDE.match(name.strip()))


def is_organ(name: str) -> bool:
    """Return whether a name is one that organs usually have.

    Examples
    --------
    >>> is_organ("Left kidney"), is_organ("M12")
    (True, False)
    """
    return not set(organ_name(name).split("_")).isdisjoint(_USUAL) or organ_name(name) in _USUAL


def number(text: str, comma: bool) -> float | None:
    """Return a number whose decimal sign is a point, or a comma where the table writes commas; None if it is none.

    Examples
    --------
    >>> number("1,5e+06", comma=True), number("1.5E6", comma=False), number("1,5", comma=False)
    (1500000.0, 1500000.0, None)
    """
    text = text.strip()
    if comma and _COMMA_NUMBER.match(text):
        text = text.replace(",", ".")
    return float(text) if _NUMBER.match(text) else None


def writes_commas(texts: Iterable[str], delimiter: str) -> bool:
    """Return whether a table writes decimal commas: some number has one, none has a point, and it is no thousand.

    Examples
    --------
    >>> writes_commas(["1,5", "3"], ";"), writes_commas(["1.5", "1,500"], ";"), writes_commas(["1,500"], ",")
    (True, False, False)
    """
    texts = [t.strip() for t in texts]
    commas = [t for t in texts if _COMMA_NUMBER.match(t)]
    points = any("." in t and _NUMBER.match(t) for t in texts)
    thousands = delimiter == "," and all(re.match(r"^[+-]?\d{1,3},\d{3}$", t) for t in commas)
    return bool(commas) and not points and not thousands


def load(path: Path, is_header: Callable[[list[str]], bool], expected: str) -> Grid:
    """Return the cells of a foreign table.

    Raises
    ------
    InputError : unreadable, no header, no row, or an open quote.
    """
    try:
        found = grid(decode(read_bounded(path)), is_header)
    except InputError:
        raise
    except (ValueError, csv.Error) as err:
        raise InputError([Problem(path.name, str(err), "a text table with every quote closed",
                                  "export it again")]) from err  # fmt: skip
    if found is None:
        raise InputError(
            [Problem(path.name, "no header line in its first 60 lines", expected, "export the table again")]
        )
    if not found.rows:
        raise InputError(
            [Problem(path.name, "a header only", "rows under the header", "measure ROIs and export again")]
        )
    return found


def observe(
    path: Path, records: Iterable[tuple[int, Mapping[str, str]]], problems: list[Problem], columns: Mapping[str, str]
) -> list[Observation]:
    """Check records of (line, cells by field) and return observations; problems name the table's own columns."""
    observations: list[Observation] = []
    seen: dict[tuple[object, ...], int] = {}
    for line, record in records:
        kept = {k: v for k, v in record.items() if v != ""}
        try:
            item = Observation.model_validate(kept)
        except ValidationError as err:
            for e in err.errors():
                name, text, expected, remedy = explain(e, kept)
                problems.append(Problem(path.name, text, expected, remedy, row=line, field=columns.get(name, name)))
            continue
        key = (item.group, item.subject, item.label, item.organ, item.time_h)
        if key in seen:
            problems.append(Problem(path.name, f"{item.organ} of {item.subject} at {item.time_h:g} h", "each organ of an "
                                    "animal once at a time", f"it stands in row {seen[key]} too: add a column 'subject', or "
                                    "name the ROIs apart", row=line, field="organ"))  # fmt: skip
            continue
        seen[key] = line
        observations.append(item)
    return observations


def looks_like(path: Path, is_header: Callable[[list[str]], bool], suffixes: set[str]) -> bool:
    """Return whether a text file begins with a table of this kind."""
    if not path.is_file() or path.suffix.lower() not in suffixes:
        return False
    try:
        with path.open("rb") as handle:
            raw = handle.read(_MAX_LOOK)
        return grid(decode(raw).rsplit("\n", 1)[0] if len(raw) == _MAX_LOOK else decode(raw), is_header) is not None
    except csv.Error:
        return True
    except (OSError, ValueError):
        return False
