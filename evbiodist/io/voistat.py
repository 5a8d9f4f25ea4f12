"""PMOD .voistat tables: the mean of every VOI in every frame becomes the activity in the VOI.

Times, units and volumes are checked, since PMOD lets all three vary; what identifies a person or animal is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evbiodist.io.organ_tables import OrganTable
from evbiodist.io.registry import Reader
from evbiodist.io.roi_tables import (
    Grid,
    RoiTable,
    is_aside,
    is_plain,
    load,
    looks_like,
    number,
    observe,
    writes_commas,
)
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study import units
from evbiodist.study.flags import join
from evbiodist.study.model import Observation, ObservationSource
from evbiodist.study.problems import InputError, Problem

#: The columns that are read, by how their names begin once blanks and brackets are gone.
_ROLES = {
    "voi": re.compile(r"^voi(?:name|region)?$|^region(?:name)?$"),
    "start": re.compile(r"^(?:time)?start(?:time)?$|^framestart$"),
    "end": re.compile(r"^(?:time)?end(?:time)?$|^frameend$"),
    "mid": re.compile(r"^time$|^mid(?:time)?$|^timemid$|^start/mid$"),
    "mean": re.compile(r"^averaged?$|^mean$"),
    "volume": re.compile(r"^volume$"),
    "subject": re.compile(r"^subject$"),
    "label": re.compile(r"^label$"),
    "group": re.compile(r"^group$"),
}
#: Columns whose different values mean several animals or images; their words are not kept.
_IDENTITY = re.compile(r"^(?:patientname|patientid|file|studydate)$")
_NUMERIC = ("start", "end", "mid", "mean", "volume")
_SECONDS = {"seconds": 1.0, "second": 1.0, "sec": 1.0, "s": 1.0, "minutes": 60.0, "minute": 60.0, "min": 60.0,
            "hours": 3600.0, "hour": 3600.0, "h": 3600.0}  # fmt: skip
_ML = {
    "ccm": 1.0,
    "cc": 1.0,
    "cm3": 1.0,
    "cm^3": 1.0,
    "ml": 1.0,
    "mm3": 1e-3,
    "mm^3": 1e-3,
    "ul": 1e-3,
    "µl": 1e-3,
    "l": 1e3,
}
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")  # no bracket inside: a line of thousands of [ takes no time
_PARTS = re.compile(r"\(([^()]*)\)")
_SUFFIXES = {".voistat", ".txt", ".tsv", ".csv"}


@dataclass(frozen=True)
class _Columns:
    """Which column holds what, the unit written to it, and which ones tell animals apart."""

    index: dict[str, int]
    unit: dict[str, str]
    identity: tuple[int, ...]


def read_voistat(
    path: Path, source: ObservationSource | None = None, organs: Mapping[str, str] | None = None
) -> OrganTable:
    """Read VOI statistics that PMOD saved.

    Parameters
    ----------
    path : a .voistat file or the same table as text; tab, semicolon or comma; header line with or without ``//`` or
        ``#``; units in brackets or in a second header line. A user may add columns `subject`, `label` and `group`.
    source : what the study says of the table; None when it is only looked at.
    organs : organ by the name of its VOI (``{"VOI 1": "liver"}``), for VOIs that have only a number.

    Returns
    -------
    OrganTable : mean x volume of each VOI in `bq` (or `pct_id` where the means are in %ID/cc) at the middle of its
        frame in hours after the start of the times. The deviation over voxels is no error of the mean and is not taken.

    Raises
    ------
    InputError : with every problem: several animals, standardised uptake values, times that contradict each other,
        numbers that are none, VOIs without a name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "m1.voistat"
    ...     _ = path.write_text("// VoiName(Region) [string]\\tTime [seconds]\\tAveraged [kBq/cc]\\tVolume [ccm]\\n"
    ...                         "Liver\\t1800\\t2.5\\t1.2\\n")
    ...     [(r.organ, r.time_h, r.value, r.unit) for r in read_voistat(path).rows]
    [('liver', 0.5, 3000.0, 'bq')]
    """
    path = Path(path)
    found = load(path, _is_header, "PMOD writes 'VoiName(Region) [string]' beside 'Averaged [kBq/cc]'")
    problems: list[Problem] = []
    columns, rows = _columns(found)
    given = source or ObservationSource(file=path.name, label="unknown", unit=None)
    factor, unit = _scale(path, columns, given, problems)
    problems += _lacking(path, columns, given, rows)
    whole = _whole_rows(path, found.header, rows, problems)
    kept, notes = _measured(columns, whole)
    plain = _unnamed(path, columns, kept, organs or {})
    notes += ["values are mean x volume of each VOI; deviations over voxels are no errors of it and were not taken",
              _clock_note(columns)]  # fmt: skip
    if source is None and plain and not problems:
        notes.append(f"{plain.expected}: {plain.remedy}")
        return RoiTable(path, "PMOD VOI statistics", (), unit, tuple(notes), facts=_facts(columns, kept))
    problems += [plain] if plain else []
    if problems:
        raise InputError(problems)
    observations = _observe(path, found, columns, kept, (factor, unit, given, organs or {}), problems, notes)
    if problems:
        raise InputError(problems)
    return OrganTable(path, "PMOD VOI statistics", tuple(observations), unit, tuple(notes))


def _observe(
    path: Path, found: Grid, columns: _Columns, rows: Sequence[tuple[int, list[str]]],
    told: tuple[float, str, ObservationSource, Mapping[str, str]], problems: list[Problem], notes: list[str],
) -> list[Observation]:  # fmt: skip
    """Return one observation a VOI and frame, and append what is wrong."""
    factor, unit, given, organs = told
    comma = writes_commas(
        (row[columns.index[r]] for _, row in rows for r in _NUMERIC if r in columns.index), found.delimiter
    )
    notes += ["decimal commas were read as decimal points"] if comma else []
    numbers = _numbers(path, found.header, columns, rows, comma, problems)
    times = [] if problems else _times(path, columns, rows, numbers, problems)
    if problems:
        return []
    records: list[tuple[int, dict[str, str]]] = []
    for (line, row), cells, hours in zip(rows, numbers, times, strict=True):
        record = {"subject": given.subject, "label": given.label or "", "group": given.group, "source": given.file}
        record |= {r: row[i] for r, i in columns.index.items() if r in record and row[i]}
        name = row[columns.index["voi"]]
        record |= {"organ": organs.get(name, name), "time_h": repr(hours), "unit": unit, "flags": join(["no_se"])}
        records.append((line, {**record, "value": repr(cells["mean"] * cells["volume"] * factor)}))
    return observe(path, records, problems, {"organ": found.header[columns.index["voi"]]})


def _bare(cell: str) -> str:
    """Return a column's name without the comment sign, units, parts in parentheses and blanks, in lower case."""
    return re.sub(r"\s+", "", _PARTS.sub("", _BRACKETS.sub("", cell.lstrip("/# ")))).lower()


def _role(cell: str) -> str | None:
    """Return what a column holds; ``Time(Start)`` keeps what its parentheses say."""
    part = _PARTS.search(_BRACKETS.sub("", cell))
    inside = part[1].strip().lower() if part else ""
    name = _bare(cell) + (inside if inside in {"start", "end", "mid"} else "")
    return next((role for role, pattern in _ROLES.items() if pattern.match(name)), None)


def _written_unit(cell: str) -> str:
    """Return the unit in a cell's brackets, or in its parentheses where those hold a volume's unit."""
    bracket = _BRACKETS.search(cell)
    if bracket:
        return bracket[1].strip()
    part = _PARTS.search(cell)
    inside = part[1].strip() if part else ""
    return inside if inside.lower() in _ML or inside.lower() in _SECONDS else ""


def _is_header(cells: list[str]) -> bool:
    roles = {_role(c) for c in cells}
    named = any(_bare(c).startswith("voi") for c in cells)
    return named and {"voi", "mean"} <= roles


def _columns(found: Grid) -> tuple[_Columns, list[tuple[int, list[str]]]]:
    """Return what each column holds, and the rows below a second header line of units, if there is one."""
    index: dict[str, int] = {}
    for i, cell in enumerate(found.header):
        role = _role(cell)
        if role and role not in index:
            index[role] = i
    unit = {role: _written_unit(found.header[i]) for role, i in index.items()}
    rows = [(line, row) for line, row in found.rows if not row[0].startswith("#")]
    first = [c.lstrip("/# ") for c in rows[0][1]] if rows else []
    if first and all(_BRACKETS.fullmatch(c) or not c for c in first) and len(first) == len(found.header):
        unit |= {role: _written_unit(first[i]) for role, i in index.items() if first[i]}
        rows = rows[1:]
    identity = tuple(i for i, cell in enumerate(found.header) if _IDENTITY.match(_bare(cell)))
    return _Columns(index, unit, identity), rows


def _scale(path: Path, columns: _Columns, given: ObservationSource, problems: list[Problem]) -> tuple[float, str]:
    """Return the factor from mean x volume to the unit of the rows, and that unit."""
    amount, _, per = columns.unit.get("mean", "").partition("/")
    volume = columns.unit.get("volume", "")
    per_ml = _ML.get(per.strip().lower())
    ml = _ML.get(volume.lower())
    unit, factor = "bq", None
    if re.fullmatch(r"%\s*id", amount.strip(), re.I):
        unit, factor = "pct_id", 1.0
    elif re.fullmatch(r"[kMGmun]?Bq|[mun]?Ci", amount.strip()):
        factor = units.activity_bq(1.0, amount.strip())
    if factor is None or per_ml is None:
        problems.append(Problem(path.name, columns.unit.get("mean", ""), "means as activity in a volume, such as kBq/cc or "
                                "%ID/cc", "save the statistics in these units (standardised uptake values and plain "
                                "numbers are no activity)", field="Averaged"))  # fmt: skip
    if "volume" in columns.index and ml is None:
        problems.append(Problem(path.name, volume, "the unit of volumes, such as ccm", "write it as Volume [ccm]",
                                field="Volume"))  # fmt: skip
    if given.unit not in {None, unit}:
        problems.append(Problem(path.name, str(given.unit), f"unit {unit}, which is what the table gives",
                                "correct or remove unit under [[tables.observations]]", field="unit"))  # fmt: skip
    return (factor or 1.0) * (ml or 1.0) / (per_ml or 1.0), unit


def _lacking(
    path: Path, columns: _Columns, given: ObservationSource, rows: Sequence[tuple[int, list[str]]]
) -> list[Problem]:
    """Return problems of columns that are not there, and of several animals in one table."""
    problems = []
    if "volume" not in columns.index:
        problems.append(
            Problem(path.name, "", "a column 'Volume [ccm]'", "save the statistics with the volume", field="Volume")
        )
    if "mid" not in columns.index and not {"start", "end"} <= set(columns.index):
        problems.append(Problem(path.name, "", "a column 'Time [seconds]', or start and end of frames",
                                "save the statistics with times", field="Time"))  # fmt: skip
    problems += [Problem(path.name, columns.unit[r], "the unit of time, such as seconds", "write it as Time [seconds]",
                         field="Time")
                 for r in ("start", "end", "mid") if r in columns.index and columns.unit[r].lower() not in _SECONDS]  # fmt: skip
    if given.label is None and "label" not in columns.index:
        problems.append(Problem(path.name, "", "the label of its values", "state label under [[tables.observations]]",
                                field="label"))  # fmt: skip
    several = max((len({row[i] for _, row in rows if i < len(row)}) for i in columns.identity), default=0)
    if several > 1 and "subject" not in columns.index:
        problems.append(Problem(path.name, f"rows of {several} different images or animals", "one, or a column 'subject'",
                                "add the column, or save one table for each", field="subject"))  # fmt: skip
    return problems


def _whole_rows(
    path: Path, header: list[str], rows: Sequence[tuple[int, list[str]]], problems: list[Problem]
) -> list[tuple[int, list[str]]]:
    for line, row in rows:
        if len(row) != len(header):
            problems.append(Problem(path.name, f"{len(row)} cells", f"{len(header)}, as in the header",
                                    "save the table again", row=line))  # fmt: skip
    return [(line, row) for line, row in rows if len(row) == len(header)]


def _measured(
    columns: _Columns, rows: Sequence[tuple[int, list[str]]]
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the rows of VOIs, and a note on backgrounds that were left out."""
    voi = columns.index["voi"]
    aside = [row[voi] for _, row in rows if is_aside(row[voi])]
    names = ", ".join(dict.fromkeys(aside))
    notes = [f"{len(aside)} rows that are no organs were left out: {names}"] if aside else []
    return [(line, row) for line, row in rows if not is_aside(row[voi])], notes


def _unnamed(
    path: Path, columns: _Columns, rows: Sequence[tuple[int, list[str]]], organs: Mapping[str, str]
) -> Problem | None:
    voi = columns.index["voi"]
    plain = [(line, row[voi]) for line, row in rows if is_plain(row[voi]) and row[voi] not in organs]
    if not plain:
        return None
    return Problem(path.name, ", ".join(dict.fromkeys(name for _, name in plain)), "the organ of each VOI",
                   "name the VOIs in PMOD and save again", row=plain[0][0], field="VoiName")  # fmt: skip


def _clock_note(columns: _Columns) -> str:
    if {"start", "end"} <= set(columns.index):
        return "times are the middle of start and end, counted as PMOD wrote them: after the injection, if that began the scan"
    return "the one time of a frame was taken as its middle, counted as PMOD wrote it: after the injection, if that began the scan"


def _numbers(
    path: Path, header: list[str], columns: _Columns, rows: Sequence[tuple[int, list[str]]], comma: bool,
    problems: list[Problem],
) -> list[dict[str, float]]:  # fmt: skip
    """Return the numbers of each row by what they are, and append what is none."""
    done = []
    for line, row in rows:
        cells: dict[str, float] = {}
        for role in _NUMERIC:
            if role not in columns.index:
                continue
            value = number(row[columns.index[role]], comma)
            if value is None or (role == "volume" and value <= 0):
                expected = "a volume above 0" if role == "volume" else "a number"
                at = columns.index[role]
                problems.append(Problem(path.name, row[at], expected, "correct the VOI in PMOD and save again", row=line,
                                        field=header[at]))  # fmt: skip
            cells[role] = value if value is not None else 0.0
        done.append(cells)
    return done


def _times(
    path: Path, columns: _Columns, rows: Sequence[tuple[int, list[str]]], numbers: Sequence[dict[str, float]],
    problems: list[Problem],
) -> list[float]:  # fmt: skip
    """Return the middle of each row's frame in hours; the frames of each VOI must follow each other."""
    ends = {"start", "end"} <= set(columns.index)
    roles = ("start", "end") if ends else ("mid", "mid")
    times = [tuple(cells[r] * _SECONDS[columns.unit[r].lower()] for r in roles) for cells in numbers]
    tellers = [columns.index[r] for r in ("voi", "subject", "label", "group") if r in columns.index]
    curves: dict[tuple[str, ...], set[tuple[float, ...]]] = {}
    for (_, row), time in zip(rows, times, strict=True):
        curves.setdefault(tuple(row[i] for i in tellers), set()).add(time)
    for who, frames in curves.items():
        ordered = sorted(frames)
        try:
            FrameTiming.from_ends([t[0] for t in ordered], [t[1] for t in ordered])
        except TimingError as err:
            problems.append(Problem(path.name, f"{who[0]}: {err}", "frames that follow each other",
                                    "correct the times in PMOD and save again", field="Time"))  # fmt: skip
    return [(a + b) / 2 / 3600.0 for a, b in times]


def _facts(columns: _Columns, rows: Sequence[tuple[int, list[str]]]) -> tuple[tuple[str, str], ...]:
    names = list(dict.fromkeys(row[columns.index["voi"]] for _, row in rows))
    return (("VOIs", f"{len(names)}: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"),)


def _takes(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() == ".voistat" or looks_like(path, _is_header, _SUFFIXES))


READER = Reader("voistat", "PMOD VOI statistics (.voistat)", _takes, read_voistat)
