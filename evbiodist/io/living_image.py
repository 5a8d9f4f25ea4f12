"""ROI tables that Living Image exports: total flux, counts or radiant efficiency of every ROI in every image.

The export knows neither label nor time after injection, so both come from columns a user adds or from the study;
what is no organ is named, never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evbiodist.io.organ_tables import OrganTable
from evbiodist.io.registry import Reader
from evbiodist.io.roi_tables import (
    Grid,
    RoiTable,
    is_aside,
    is_organ,
    is_plain,
    load,
    looks_like,
    number,
    observe,
    writes_commas,
)
from evbiodist.study.flags import join
from evbiodist.study.model import Observation, ObservationSource
from evbiodist.study.problems import InputError, Problem

#: What a ROI's total is called, in the order of preference, with the unit it gives and how the note calls it.
_TOTALS = (
    ("total flux", "p_per_s", "total flux in photons/s"),
    ("total radiant efficiency", "au", "total radiant efficiency in (p/s)/(uW/cm2)"),
    ("total counts", "au", "total counts"),
)
#: Living Image names a click by its user's initials, date, time and number.
_CLICK = re.compile(r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(?:_\d+)?$")
_SUBJECT = ("subject", "animal", "animal number", "mouse")
_ADDED = ("label", "group", "mass_g", "n")


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
    unit = re.search(r"[\[(]([^\[\]()]*)[\])]", written)
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


def _takes(path: Path) -> bool:
    return looks_like(path, _is_header, {".csv", ".tsv", ".txt"})


READER = Reader("living image", "ROI tables exported from Living Image", _takes, read_living_image)
