"""Tables of organ values: long, wide, or observations.csv itself, with means, SD and n.

Gamma-counter and literature tables come in many shapes. The layout is recognised from the header;
what the table does not say (label, unit, n) comes from the study's `[[tables.observations]]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from evbiodist.io.registry import Reader
from evbiodist.study import units
from evbiodist.study.flags import join
from evbiodist.study.model import Observation, ObservationSource
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import explain, read_cells, read_table

_TIME_UNITS = "hours|hour|hrs|hr|h|minutes|minute|mins|min|m|days|day|d|seconds|sec|s"
_TIME_FIRST = re.compile(rf"^(?:t_?)?({_TIME_UNITS})_?(\d+(?:\.\d+)?)(?:[_ ](mean))?$", re.I)
_NUMBER_FIRST = re.compile(rf"^(?:t_?)?(\d+(?:\.\d+)?)[ _]?({_TIME_UNITS})(?:[_ ](mean|sd|se|sem|n))?$", re.I)
_TIME_COLUMN = re.compile(rf"^(?:t|time)(?:[_ (\[]*({_TIME_UNITS})[)\]]?)?$", re.I)
_SPREAD = {"sd": "sd", "std": "sd", "stdev": "sd", "se": "se", "sem": "se", "n": "n", "count": "n"}
_ORGAN = ("organ", "tissue", "organs", "tissues")
_VALUE = ("value", "mean", "average")
_PLURALS = {"hours": "h", "hour": "h", "minutes": "min", "minute": "min", "mins": "min", "days": "d", "seconds": "s"}


@dataclass(frozen=True)
class OrganTable:
    """Values of organs over time as read, before any correction.

    Parameters
    ----------
    path : the table.
    layout : `canonical` (observations.csv), `long` or `wide`.
    rows : one `Observation` a value; mean, SD and n where the table holds summaries.
    unit : the unit used, or None when neither table nor study says.
    notes : sentences about what is odd; flags : words of `FLAGS` that every row carries.
    """

    path: Path
    layout: str
    rows: tuple[Observation, ...]
    unit: str | None
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    header: dict[str, str] = field(default_factory=dict)

    def describe(self) -> list[tuple[str, str]]:
        """Return what a person wants to know as (name, text) pairs."""
        organs = list(dict.fromkeys(r.organ for r in self.rows))
        times = sorted({r.time_h for r in self.rows})
        spread = [k for k in ("se", "sd", "n") if any(getattr(r, k) is not None for r in self.rows)]
        pairs = [
            ("layout", f"{self.layout}, {len(self.rows)} values"),
            ("organs", f"{len(organs)}: {', '.join(organs)}"),
            ("times", ", ".join(f"{t:.4g}" for t in times) + " h"),
            ("unit", self.unit or "unknown: state it in the study"),
            ("uncertainty", " and ".join(spread) if spread else "none given"),
        ]
        pairs += [("source", text) for key, text in self.header.items() if key == "source"]
        if self.flags:
            pairs.append(("flags", ", ".join(self.flags)))
        return pairs + [("note", note) for note in self.notes]


def _takes(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in {".csv", ".tsv", ".txt"}


def read_organ_table(path: Path, source: ObservationSource | None = None) -> OrganTable:
    """Read a table of organ values in any of the three layouts.

    Parameters
    ----------
    path : CSV or TSV; comma, semicolon or tab; ``#`` lines are comments. A comment ``unit in PLACE: UNIT``
        states the unit that the source names there.
    source : what the study says of the table; None when it is only looked at.

    Returns
    -------
    OrganTable : times in hours.

    Raises
    ------
    InputError : with every problem: file, row, column, found, expected, remedy.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lu_pct_id_per_g.csv"
    ...     _ = path.write_text("organ,m30,sd,h2,sd\\nLiver,8.1,0.5,6.2,0.4\\n")
    ...     [(r.organ, r.time_h, r.value, r.sd, r.unit) for r in read_organ_table(path).rows]
    [('liver', 0.5, 8.1, 0.5, 'pct_id_per_g'), ('liver', 2.0, 6.2, 0.4, 'pct_id_per_g')]
    """
    path = Path(path)
    looked_at = source is None
    source = source or ObservationSource(file=path.name, label="unknown", unit=None)
    header, cells, numbers, comments = read_cells(path)
    lowered = [c.lower() for c in header]
    if {"label", "organ", "time_h", "value", "unit"} <= set(lowered):
        return _canonical(path, source)
    told = dict(c.split(":", 1) for c in comments if ":" in c)
    info = {key.strip().lower(): text.strip() for key, text in told.items()}
    unit, unit_notes, flags = _unit(path, source, comments)
    layout, columns, problems = _layout(path, header)
    if not cells:
        problems.append(Problem(path.name, "a header only", "rows under the header", "fill the table or leave it out"))
    if unit is None and not looked_at:
        problems.append(Problem(path.name, "", "the unit of its values", "state unit under [[tables.observations]]",
                                field="unit"))  # fmt: skip
    if source.label is None:
        problems.append(Problem(path.name, "", "the label of its values", "state label under [[tables.observations]]",
                                field="label"))  # fmt: skip
    rows: list[Observation] = []
    seen: dict[tuple[str, str, str, str, float], int] = {}
    for number, row in zip(numbers, cells, strict=True):
        if len(row) != len(header):
            problems.append(Problem(path.name, f"{len(row)} cells", f"{len(header)}, as in the header",
                                    "quote cells that hold the delimiter", row=number))  # fmt: skip
            continue
        for record, column in columns(row):
            record = {**_given(source, unit or "au"), **{k: v for k, v in record.items() if v != ""}}
            try:
                item = Observation.model_validate(record)
            except ValidationError as err:
                for e in err.errors():
                    name, found, expected, remedy = explain(e, record)
                    problems.append(Problem(path.name, found, expected, remedy, row=number,
                                            field=column if name in {"value", ""} else name))  # fmt: skip
                continue
            key = (item.group, item.subject, item.label, item.organ, item.time_h)
            if key in seen:
                problems.append(Problem(path.name, f"{item.organ} at {item.time_h:g} h", "each organ and time once",
                                        f"it stands in row {seen[key]} too: remove or rename one", row=number,
                                        field="organ"))  # fmt: skip
                continue
            seen[key] = number
            rows.append(item)
    if problems:
        raise InputError(problems)
    rows, notes = _name_traps(rows, source, layout)
    notes = [*unit_notes, *notes]
    rows = [r.model_copy(update={"flags": join([*r.flags.split(";"), *flags])}) for r in rows]
    return OrganTable(path, layout, tuple(rows), unit, tuple(notes), tuple(flags), info)


def _given(source: ObservationSource, unit: str) -> dict[str, str]:
    given = {"subject": source.subject, "label": source.label or "unknown", "group": source.group, "unit": unit,
             "source": source.file}  # fmt: skip
    return given | ({"n": str(source.n)} if source.n else {})


def _canonical(path: Path, source: ObservationSource) -> OrganTable:
    problems: list[Problem] = []
    defaults = {"subject": source.subject, "group": source.group, "source": path.name}
    key = ("study", "group", "subject", "label", "organ", "time_h", "unit")
    rows = read_table(path, Observation, key, problems, defaults)
    if problems:
        raise InputError(problems)
    found = sorted({r.unit for r in rows})
    return OrganTable(path, "canonical", tuple(rows), found[0] if len(found) == 1 else None)


def _unit(path: Path, source: ObservationSource, comments: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Return the unit, sentences about it, and flags: the study's word, else the file's, else none."""
    named = dict(pair for c in comments if (pair := _unit_comment(c)))
    from_name = next((u for u in ("pct_id_per_g", "pct_recovered", "pct_id") if u in path.stem), None)
    notes, flags = [], []
    if len(set(named.values())) > 1:
        places = " but ".join(f"{unit} in its {place}" for place, unit in named.items())
        chosen = f"; the study decides for {source.unit}" if source.unit else "; the study must decide"
        notes.append(f"the source says {places}{chosen}")
        flags.append("unit_conflict")
        return source.unit, notes, flags
    unit: str | None = source.unit or next(iter(named.values()), None) or from_name
    if unit is None:
        notes.append("neither the table nor its name states a unit")
    return unit, notes, flags


def _unit_comment(comment: str) -> tuple[str, str] | None:
    """Return (PLACE, UNIT) of a comment ``unit in PLACE: UNIT``, None of another."""
    place, _, unit = comment.rpartition(":")
    if not place.lower().startswith("unit in ") or len(unit.split()) != 1:
        return None
    return place[len("unit in ") :], unit.strip()


def _layout(path: Path, header: list[str]):  # type: ignore[no-untyped-def]
    """Recognise long or wide and return a function from a row's cells to (record, column name) pairs."""
    lowered = [c.lower().strip() for c in header]
    organ = next((i for i, c in enumerate(lowered) if c in _ORGAN), None)
    if organ is None:
        expected = "a column 'organ' or 'tissue'"
        return "unknown", lambda row: [], [Problem(path.name, ", ".join(header), expected, "name the column so")]
    time = next((i for i, c in enumerate(lowered) if _TIME_COLUMN.match(c)), None)
    if time is not None:
        return _long(path, header, lowered, organ, time)
    return _wide(path, header, lowered, organ)


def _hours(value: str, unit: str) -> str:
    """Convert a time's text to hours; text that is no number is passed on for the schema to refuse."""
    try:
        return repr(units.to_hours(float(value), _PLURALS.get(unit.lower(), unit.lower())))
    except ValueError:
        return value


def _long(path: Path, header: list[str], lowered: list[str], organ: int, time: int):  # type: ignore[no-untyped-def]
    unit = (_TIME_COLUMN.match(lowered[time]) or [None, None])[1]
    value = next((i for i, c in enumerate(lowered) if c in _VALUE), None)
    problems = []
    if unit is None:
        problems.append(Problem(path.name, header[time], "the unit of time in the column's name",
                                "write time_h or t_min", field=header[time]))  # fmt: skip
    if value is None:
        problems.append(Problem(path.name, ", ".join(header), "a column 'value' or 'mean'", "name the column so"))
    roles = {organ: "organ", time: "time_h", value: "value"}
    for i, column in enumerate(lowered):
        if column in _SPREAD:
            roles[i] = _SPREAD[column]
        elif column in {"subject", "label", "group", "mass_g", "lloq", "below_lloq"}:
            roles[i] = column

    def records(row: list[str]) -> list[tuple[dict[str, str], str]]:
        record = {role: row[i] for i, role in roles.items() if i is not None}
        record["time_h"] = _hours(record["time_h"], unit or "h")
        return [(record, header[value] if value is not None else "value")]

    return "long", records, problems


def _wide(path: Path, header: list[str], lowered: list[str], organ: int):  # type: ignore[no-untyped-def]
    groups: dict[str, dict[str, int]] = {}
    names: dict[str, str] = {}
    problems: list[Problem] = []
    current = None
    for i, column in enumerate(lowered):
        first, second = _TIME_FIRST.match(column), _NUMBER_FIRST.match(column)
        if first or second:
            unit, number = (first.group(1), first.group(2)) if first else (second.group(2), second.group(1))  # type: ignore[union-attr]
            role = _SPREAD.get((second.group(3) or "") if second else "", "value")
            current = _hours(number, unit)
            if role in groups.setdefault(current, {}):
                problems.append(Problem(path.name, header[i], "each time once", "rename or remove the second column",
                                        field=header[i]))  # fmt: skip
            groups[current][role] = i
            if role == "value":
                names[current] = header[i]
        elif column in _SPREAD and current is not None:
            groups[current][_SPREAD[column]] = i
        elif i != organ and column not in {"subject", "label", "group", "mass_g"}:
            problems.append(Problem(path.name, header[i], "a time such as h2 or 30 min, or sd, se, n after one",
                                    "rename or remove the column", field=header[i]))  # fmt: skip
    if not groups:
        problems.append(Problem(path.name, ", ".join(header), "columns of times such as h2 or 30 min",
                                "name them so, or give a column time_h"))  # fmt: skip
    fixed = {c: i for i, c in enumerate(lowered) if c in {"subject", "label", "group", "mass_g"}}

    def records(row: list[str]) -> list[tuple[dict[str, str], str]]:
        shared = {"organ": row[organ], **{k: row[i] for k, i in fixed.items()}}
        return [({**shared, "time_h": t, **{role: row[i] for role, i in roles.items()}}, names.get(t, t))
                for t, roles in groups.items() if row[roles.get("value", organ)] != ""]  # fmt: skip

    return "wide", records, problems


def _name_traps(rows: list[Observation], source: ObservationSource, layout: str) -> tuple[list[Observation], list[str]]:
    """Turn SD and n into standard errors, and name what cannot be right."""
    notes: list[str] = []
    repeated = _repeated_sd(rows)
    for a, b in repeated:
        notes.append(f"the SD of every organ at {a:g} h equals that at {b:g} h: one of the columns is a copying error")
    if any(r.sd is not None and r.n is None and r.se is None for r in rows):
        notes.append("SD without n: no standard error follows; state n under [[tables.observations]]")
    suspect = {t for pair in repeated for t in pair}
    done = []
    for r in rows:
        flags = [r.flags] if r.flags else []
        se = r.se
        sd = r.sd
        if se is None and sd is not None and r.n is not None:
            se = sd / r.n**0.5
        if sd is None and se is not None and r.n is not None and r.n > 1:
            sd = se * r.n**0.5
        if se is None:
            flags.append("n_unknown" if r.sd is not None else "no_se")
        if r.time_h in suspect and r.sd is not None:
            flags.append("sd_repeated")
        done.append(r.model_copy(update={"se": se, "sd": sd, "flags": join(flags)}))
    return done, notes


def _repeated_sd(rows: list[Observation]) -> list[tuple[float, float]]:
    by_time: dict[float, dict[tuple[str, str], float]] = {}
    for r in rows:
        if r.sd is not None:
            by_time.setdefault(r.time_h, {})[r.subject, r.organ] = r.sd
    times = sorted(by_time)
    return [(a, b) for i, a in enumerate(times) for b in times[i + 1 :]
            if len(by_time[a]) > 2 and by_time[a] == by_time[b]]  # fmt: skip


READER = Reader("organ table", "CSV and TSV tables of organ values (long, wide, observations.csv)", _takes,
                read_organ_table)  # fmt: skip
