"""ROI tables that Living Image exports: total flux, counts or radiant efficiency of every ROI in every image.

The export knows neither label nor time after injection, so both come from columns a user adds or from the study;
what is no organ is named, never dropped in silence.
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
from evbiodist.io.registry import Reader
from evbiodist.study.flags import join
from evbiodist.study.model import Observation, ObservationSource
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import explain, plain_cell
from evbiodist.study.vocabulary import NOT_ORGANS, organ_name

#: What a ROI's total is called, in the order of preference, with the unit it gives and how the note calls it.
_TOTALS = (
    ("total flux", "p_per_s", "total flux in photons/s"),
    ("total radiant efficiency", "au", "total radiant efficiency in (p/s)/(uW/cm2)"),
    ("total counts", "au", "total counts"),
)
_PLAIN = re.compile(r"^(?:roi|voi|region|measurement)?[\s_-]*\d*$", re.I)
_ASIDE = re.compile(r"^(?:(?:average|avg)[\s_-]*)?(?:bkg|background|subject|total|sum|mean|average|stdev?|sd)(?:[\s_-]*(?:roi|\d+))*$",
                    re.I)  # fmt: skip
_NUMBER = re.compile(r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")
_COMMA_NUMBER = re.compile(r"^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$")
#: Living Image names a click by its user's initials, date, time and number.
_CLICK = re.compile(r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(?:_\d+)?$")
_SUBJECT = ("subject", "animal", "animal number", "mouse")
_ADDED = ("label", "group", "mass_g", "n")
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


def read_living_image(
    path: Path, source: ObservationSource | None = None, organs: Mapping[str, str] | None = None
) -> OrganTable:
    """Read a table of ROI measurements as Living Image exports it.

    Parameters
    ----------
    path : comma, semicolon or tab; UTF-8, UTF-16 or Windows text; decimal points or commas. A user may add columns
        `organ`, `time_h` (hours after injection), `subject`, `label`, `group`, `mass_g` and `n`.
    source : what the study says of the table; None when it is only looked at.
    organs : organ by the name of its ROI (``{"ROI 1": "liver"}``), for ROIs that have only a number.

    Returns
    -------
    OrganTable : one row a ROI; unit `p_per_s` from the total flux, or `au` from radiant efficiency or counts. The
        standard deviation over pixels is no error of the total and is not taken. When the table is only looked at
        and lacks times or organs, a `RoiTable` without rows tells what is missing.

    Raises
    ------
    InputError : with every problem: file, row, column, found, expected, remedy.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "rois.csv"
    ...     _ = path.write_text("Image Number,ROI,Image Layer,ROI Label,Total Flux [p/s],time_h\\n"
    ...                         "AB20240305110000_001,ROI 1,Overlay,Liver,1.5e+06,24\\n")
    ...     [(r.organ, r.time_h, r.value, r.unit) for r in read_living_image(path).rows]
    [('liver', 24.0, 1500000.0, 'p_per_s')]
    """
    path = Path(path)
    found = load(path, _is_header, "Living Image writes a column 'ROI' beside 'Total Flux [p/s]' or 'Total Counts'")
    names = [_column(c) for c in found.header]
    given = source or ObservationSource(file=path.name, label="unknown", unit=None)
    problems: list[Problem] = []
    total, unit, notes = _total(path, names, given, problems)
    problems += _odd_columns(path, found.header, names, total)
    if given.label is None and "label" not in names:
        problems.append(Problem(path.name, "", "the label of its values", "state label under [[tables.observations]]",
                                field="label"))  # fmt: skip
    if problems:
        raise InputError(problems)
    rows, cut = _measured(path, found, names, problems)
    notes += cut
    lacking = _lacking(path, names, rows, organs or {})
    if source is not None:
        problems += lacking
    if source is None and lacking and not problems:
        notes += [f"{p.expected}: {p.remedy}" for p in lacking]
        return RoiTable(path, "Living Image", (), unit, tuple(notes), facts=_facts(rows))
    if not problems:
        observations = _observe(path, found, rows, total, given, unit, organs or {}, problems, notes)
    if problems:
        raise InputError(problems)
    return RoiTable(path, "Living Image", tuple(observations), unit, tuple(notes), facts=_facts(rows))


def load(path: Path, is_header: Callable[[list[str]], bool], expected: str) -> Grid:
    """Return the cells of a foreign table.

    Raises
    ------
    InputError : unreadable, no header, no row, or an open quote.
    """
    try:
        found = grid(decode(path.read_bytes()), is_header)
    except OSError as err:
        raise InputError([Problem(path.name, err.strerror or type(err).__name__, "a readable table",
                                  "check the name and the folder")]) from err  # fmt: skip
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


def _column(text: str) -> str:
    """Return a column's name without its unit, however its superscripts arrived."""
    return re.sub(r"\s+", " ", text.split("[")[0].split("(")[0]).strip().lower()


def _is_header(cells: list[str]) -> bool:
    names = {_column(c) for c in cells}
    return "roi" in names and any(total in names for total, _, _ in _TOTALS)


def _total(
    path: Path, names: list[str], given: ObservationSource, problems: list[Problem]
) -> tuple[str, str, list[str]]:
    """Return the column of the totals and its unit: the one the study's unit asks for, else the first there is."""
    there = [t for t in _TOTALS if t[0] in names]
    fitting = [t for t in there if given.unit in {None, t[1]}]
    if not fitting:
        problems.append(Problem(path.name, str(given.unit), f"unit {' or '.join(dict.fromkeys(t[1] for t in there))}, which "
                                "is what the table holds", "correct or remove unit under [[tables.observations]]",
                                field="unit"))  # fmt: skip
        return there[0][0], there[0][1], []
    column, unit, words = fitting[0]
    notes = [f"values are the {words} of each ROI; deviations over pixels are no errors of it and were not taken"]
    if len(there) > 1:
        notes.append(f"also there, not taken: {', '.join(t[0] for t in there if t[0] != column)}")
    return column, unit, notes


def _odd_columns(path: Path, header: list[str], names: list[str], total: str) -> list[Problem]:
    """Return problems of columns that stand twice, and of a flux that is not in photons/s."""
    problems = [Problem(path.name, column, "each column once", "remove the second", field=column)
                for column in (total, "roi", "roi label", "time_h", "organ") if names.count(column) > 1]  # fmt: skip
    written = header[names.index(total)]
    unit = re.search(r"[\[(](.*?)[\])]", written)
    if total == "total flux" and unit and not re.fullmatch(r"p(h(otons?)?)?/s(ec)?", unit[1].strip(), re.I):
        problems.append(
            Problem(path.name, written, "total flux in [p/s]", "measure in photons and export again", field=total)
        )
    return problems


def _measured(
    path: Path, found: Grid, names: list[str], problems: list[Problem]
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Return rows of ROIs as cells by column with their lines, and a note on the rows left out."""
    rows: list[tuple[int, dict[str, str]]] = []
    aside: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for line, cells in found.rows:
        if [_column(c) for c in cells] == names:
            continue  # the header again, between blocks
        if len(cells) != len(names):
            problems.append(Problem(path.name, f"{len(cells)} cells", f"{len(names)}, as in the header",
                                    "quote cells that hold the delimiter", row=line))  # fmt: skip
            continue
        row = dict(zip(names, cells, strict=True))
        image, roi = row.get("image number", ""), row["roi"]
        if (
            is_aside(roi)
            or (is_aside(row.get("roi label", "")) and not row.get("organ"))
            or (not roi and is_aside(image))
        ):
            aside.append(next(name for name in (roi, row.get("roi label", ""), image) if is_aside(name)))
            continue
        if image and roi and (image, roi) in seen:
            problems.append(Problem(path.name, f"{image} / {roi}", "each ROI of an image once", f"it stands in row "
                                    f"{seen[image, roi]} too: keep one image layer or remove it", row=line, field="ROI"))  # fmt: skip
            continue
        seen[image, roi] = line
        rows.append((line, row))
    names_of = ", ".join(dict.fromkeys(aside))
    return rows, [f"{len(aside)} rows that are no organs were left out: {names_of}"] if aside else []


def _named(row: Mapping[str, str], organs: Mapping[str, str]) -> str:
    """Return what a row calls its organ: the added column, the mapping, the label, then the ROI's own name."""
    roi, label = row["roi"], row.get("roi label", "")
    options = (row.get("organ", ""), organs.get(label, ""), organs.get(roi, ""), label, roi)
    return next((name for name in options if not is_plain(name)), "")


def _lacking(
    path: Path, names: list[str], rows: Sequence[tuple[int, Mapping[str, str]]], organs: Mapping[str, str]
) -> list[Problem]:
    """Return what a study needs and the table does not say: times and organs."""
    lacking = []
    if "time_h" not in names:
        dated = " (dates alone do not say when it was)" if "date and time" in names else ""
        lacking.append(Problem(path.name, "", "a column 'time_h', hours after the injection",
                               f"add it to the table{dated}", field="time_h"))  # fmt: skip
    plain = list(dict.fromkeys(row["roi"] for _, row in rows if not _named(row, organs)))
    if plain:
        line = next(line for line, row in rows if not _named(row, organs))
        lacking.append(Problem(path.name, ", ".join(plain), "the organ of each ROI", "add a column 'organ', or name the ROI "
                               "in Living Image (ROI Label)", row=line, field="ROI"))  # fmt: skip
    return lacking


def _observe(
    path: Path, found: Grid, rows: Sequence[tuple[int, Mapping[str, str]]], total: str, given: ObservationSource,
    unit: str, organs: Mapping[str, str], problems: list[Problem], notes: list[str],
) -> list[Observation]:  # fmt: skip
    """Return one observation a ROI, and append what is wrong."""
    numeric = [c for c in (total, "time_h", "mass_g") if c in rows[0][1]] if rows else []
    comma = writes_commas((row[c] for _, row in rows for c in numeric), found.delimiter)
    if comma:
        notes.append("decimal commas were read as decimal points")
    done = []
    for line, row in rows:
        record = {
            "subject": next((row[c] for c in _SUBJECT if row.get(c)), given.subject),
            "label": given.label or "", "group": given.group, "source": given.file, "unit": unit,
            "n": str(given.n) if given.n else "", "organ": _named(row, organs), "flags": join(["no_se"]),
            **{c: row[c] for c in _ADDED if row.get(c)},
        }  # fmt: skip
        for column, role in ((total, "value"), ("time_h", "time_h"), ("mass_g", "mass_g")):
            parsed = number(row.get(column, ""), comma)
            record[role] = row.get(column, "") if parsed is None else repr(parsed)
        done.append((line, record))
    written = next(c for c in found.header if _column(c) == total)
    observations = observe(path, done, problems, {"value": written})
    strange = sorted({o.organ for o in observations if not is_organ(o.organ)})
    if strange and len(strange) == len({o.organ for o in observations}):
        notes.append(f"no name of an organ is among {', '.join(strange[:6])}; if these are animals, add columns 'subject' "
                     "and 'organ'")  # fmt: skip
    return observations


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


def _facts(rows: Sequence[tuple[int, Mapping[str, str]]]) -> tuple[tuple[str, str], ...]:
    images = list(dict.fromkeys(row.get("image number", "") for _, row in rows if row.get("image number")))
    rois = list(dict.fromkeys(row.get("roi label") or row["roi"] for _, row in rows))
    clicks = sorted(m.groups() for image in images if (m := _CLICK.search(image)))
    stamps = [f"{y}-{mo}-{d} {h}:{mi}" for y, mo, d, h, mi, _ in clicks]
    facts = [
        ("ROIs", f"{len(rows)} in {len(images)} images: {', '.join(rois[:12])}{', ...' if len(rois) > 12 else ''}")
    ]
    if stamps:
        facts.append(("acquired", stamps[0] if stamps[0] == stamps[-1] else f"{stamps[0]} to {stamps[-1]}"))
    return tuple(facts)


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


def _takes(path: Path) -> bool:
    return looks_like(path, _is_header, {".csv", ".tsv", ".txt"})


READER = Reader("living image", "ROI tables exported from Living Image", _takes, read_living_image)
