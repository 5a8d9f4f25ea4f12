"""`evbiodist library ...`: thin commands that read options, call the library and print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evbiodist.library.query import Filters
    from evbiodist.library.store import Contents, Part

_SOME_FAILED, _UNUSABLE = 1, 2
_CHOICES = (
    "organ",
    "label",
    "label-kind",
    "species",
    "strain",
    "sex",
    "route",
    "source-cell",
    "carrier",
    "study",
    "group",
)


@click.group()
def library() -> None:
    """Many studies in one place: add, list, query, pool over studies, export."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON lines for machines."),
        click.option("--quiet", is_flag=True, help="Say nothing but errors."),
        click.option("--library", "folder", default="evbiodist_library", show_default=True, envvar="EVBIODIST_LIBRARY",
                     help="The library's folder; also from EVBIODIST_LIBRARY."),
    ):  # fmt: skip
        command = option(command)
    return command


def _choices(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            said = f"Only this {name.replace('-', ' ')}; several times."
            command = click.option(f"--{name}", multiple=True, help=said)(command)
        return command

    return add


def _tell(given: Mapping[str, Any]) -> Any:
    """Return the command line's way of speaking, which the group above hands down."""
    return click.get_current_context().obj(given["as_json"], given["quiet"])


def _filters(given: Mapping[str, Any], **more: Any) -> Filters:
    from evbiodist.library.query import Filters

    names = (name.replace("-", "_") for name in (*_CHOICES, "unit"))
    chosen: dict[str, Any] = {name: given[name] for name in names if name in given}
    return Filters(**chosen, **more)


def _hours(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    first, dots, last = text.partition("..")
    try:
        hours = float(first), float(last) if dots else float(first)
    except ValueError:
        hours = (1.0, 0.0)
    if not 0 <= hours[0] <= hours[1]:
        raise ValueError(f"--time has '{text}', expected an hour or the first and last, such as 24 or 0..24")
    return hours


def _contents(given: Mapping[str, Any], tell: Any) -> Contents:
    from evbiodist.library.store import contents

    found = contents(given["folder"])
    for said in found.damaged:
        click.echo(f"note: {said}", err=True) if not given["as_json"] else tell.line(f"note: {said}")
    return found


def _leave(found: Contents) -> None:
    sys.exit(_SOME_FAILED if found.damaged else 0)


@library.command()
@click.argument("results", nargs=-1, required=True)
@click.option(
    "--metadata", default=None, help="metadata.toml with what the study does not say itself (one study only)."
)
@click.option(
    "--new-version", is_flag=True, help="The study of its name in the library is the same, though no input file is."
)
@_common
def add(results: tuple[str, ...], **given: Any) -> None:
    """Add RESULTS: result folders of runs, studies of tables (study.toml), or a table with --metadata."""
    from evbiodist.batch.store import FolderBusyError, NoRoomError
    from evbiodist.library.intake import read_incoming
    from evbiodist.library.store import add as add_study

    tell, failed = _tell(given), 0
    if given["metadata"] and len(results) > 1:
        raise ValueError("--metadata describes one study; add the others by commands of their own")
    for path in results:
        try:
            added = add_study(given["folder"], read_incoming(path, given["metadata"]), new_version=given["new_version"])
        except (FolderBusyError, NoRoomError):
            raise
        except ValueError as err:
            if len(results) == 1:
                raise
            failed += 1
            tell.line(f"not added: {path}: {err}", file=path)
            continue
        part = added.part
        for note in added.notes:
            tell.line(f"note: {_shown(note)}")
        counts = part.record["rows"]
        said = f"{counts['observations']} values, {counts['parameters']} parameters" if added.new else "nothing added"
        missing = part.metadata.missing()
        tell.line(f"{_shown(part.study)}, version {part.version}: {said}; {_count(len(missing), 'field')} of metadata not told",
                  study=part.study, version=part.version, new=added.new, rows=counts, missing=missing)  # fmt: skip
    if failed:
        tell.line(f"{failed} of {len(results)} not added", failed=failed)
    sys.exit(_SOME_FAILED if failed else 0)


@library.command("list")
@click.option("--all", "versions", is_flag=True, help="Also versions that later ones replaced.")
@_common
def list_(versions: bool, **given: Any) -> None:
    """Print the studies of the library, and what nobody told of them."""
    tell = _tell(given)
    found = _contents(given, tell)
    held = _held(found)
    for part in (*found.current, *(found.replaced if versions else ())):
        told = held.get(part.study, {}) if part in found.current else {}
        facts = {"study": part.study, "version": part.version, "replaced": part not in found.current,
                 "rows": part.record["rows"], "missing": part.metadata.missing(), "metadata": part.record["metadata"]}  # fmt: skip
        tell.line("\n".join(_shown(line) for line in _study_lines(part, told)), **facts, **told)
    tell.line(f"{_count(len(found.current), 'study', 'studies')}, {_count(len(found.replaced), 'replaced version')}",
              studies=len(found.current), replaced_versions=len(found.replaced))  # fmt: skip
    _leave(found)


def _study_lines(part: Part, held: Mapping[str, Any]) -> list[str]:
    record, metadata, missing = part.record, part.metadata, part.metadata.missing()
    state = "" if held else ", replaced"
    lines = [f"{part.study} (version {part.version}{state}, added {record['added'][:10]}"
             f"{', simulated' if record['simulated'] else ''})",
             f"  {record['rows']['observations']} values, {record['rows']['parameters']} parameters"]  # fmt: skip
    if held:
        of = f"{held['animals']} animals" if held["animals"] else "means over animals"
        lines[1] += f"; {of}; labels {', '.join(held['labels'])}; {held['first_h']:.4g} to {held['last_h']:.4g} h"
        lines.append(f"  organs: {', '.join(held['organs'])}")
    told = [f"{k} {v}" for k, v in (("species", metadata.species), ("carrier", metadata.vesicles.carrier),
                                    ("source cell", metadata.vesicles.source_cell), ("doi", metadata.doi)) if v]  # fmt: skip
    lines += [f"  {', '.join(told)}"] * bool(told)
    return lines + [f"  not told: {', '.join(m.removeprefix('vesicles.') for m in missing)}"] * bool(missing)


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _held(found: Contents) -> dict[str, dict[str, Any]]:
    from evbiodist.library.query import sql

    columns = ("animals", "labels", "organs", "first_h", "last_h")
    rows = sql(found.current, "SELECT entry, count(DISTINCT (study, subject)) FILTER (subject <> 'pooled'), "
               "list_sort(list(DISTINCT label)), list_sort(list(DISTINCT organ)), min(time_h), max(time_h) "
               "FROM observations GROUP BY entry").rows  # fmt: skip
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows}


@library.command()
@_choices(*_CHOICES, "unit")
@click.option("--time", "hours", default=None, metavar="A..B", help="First and last hour, or one.")
@click.option("--table", default="observations", show_default=True,
              type=click.Choice(["observations", "parameters", "curves", "studies"]), help="What to choose from.")  # fmt: skip
@click.option("--measured-only", is_flag=True, help="Without simulated studies.")
@click.option("--sql", "statement", default=None, help="One SELECT over observations, parameters, curves and studies.")
@click.option("--out", default=None, help="A .csv, .parquet or .json file; otherwise a table is printed.")
@click.option("--limit", default=40, show_default=True, type=click.IntRange(1), help="Rows that are printed.")
@_common
def query(**given: Any) -> None:
    """Choose rows of all studies by options, or ask in SQL."""
    from evbiodist.library import query as ask

    tell = _tell(given)
    found = _contents(given, tell)
    simulated = False if given["measured_only"] else None
    filters = _filters(given, time_h=_hours(given["hours"]), simulated=simulated)
    if given["statement"] is not None:
        if filters != ask.Filters():
            raise ValueError("--sql goes alone; write its conditions into WHERE")
        answer = ask.sql(found.current, given["statement"])
    else:
        answer = ask.select(found.current, filters, given["table"])
        if not answer.rows and filters != ask.Filters():
            tell.line(f"note: {_shown(ask.empty_because(found.current, filters, given['table']))}")
    if given["out"]:
        ask.write(answer, Path(given["out"]))
        tell.line(f"{len(answer.rows)} rows in {given['out']}", rows=len(answer.rows), file=given["out"])
    elif given["as_json"]:
        for record in answer.records():
            tell.line("", row=ask.plain(record))
    else:
        _print(answer.columns, answer.rows[: given["limit"]], tell)
        more = len(answer.rows) - given["limit"]
        tell.line(
            f"{_count(len(answer.rows), 'row')}{f', {more} not shown; --limit or --out has them' if more > 0 else ''}"
        )
    _leave(found)


@library.command()
@_choices(*(c for c in _CHOICES if c != "organ"))
@click.option("--organ", "organs", multiple=True, required=True, help="Organ to pool; several times.")
@click.option("--time", "time_h", required=True, type=click.FloatRange(0), help="Hours after the dose.")
@click.option("--unit", "in_unit", default="pct_id_per_g", show_default=True, type=click.Choice(["pct_id", "pct_id_per_g"]),
              help="Unit; an organ's mass leads from one to the other.")  # fmt: skip
@click.option("--window", default=0.25, show_default=True, type=click.FloatRange(0, 1),
              help="How far a sample may lie from the time, as a share of it.")  # fmt: skip
@click.option("--model", default="", help="Take this model's fitted curve at the time, not the nearest sample.")
@click.option("--by", default="", metavar="WHAT", help="Also pool apart by label, label_kind, route, species, sex, source_cell, "
              "carrier or strain.")  # fmt: skip
@click.option(
    "--scale", default="log", show_default=True, type=click.Choice(["log", "linear"]), help="Scale to pool on."
)
@click.option("--errors", default="own", show_default=True, type=click.Choice(["own", "shared"]),
              help="Each study's own standard error, or one coefficient of variation between animals for all.")  # fmt: skip
@click.option(
    "--level", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.999), help="Level of the intervals."
)
@click.option("--with-simulated", is_flag=True, help="Pool simulated studies too.")
@click.option("--out", default=None, help="A .csv, .parquet or .json file for all rows.")
@_common
def meta(organs: tuple[str, ...], time_h: float, in_unit: str, **given: Any) -> None:
    """Pool an organ at a time over studies by random effects; say who entered, who did not, and why."""
    from evbiodist.library import query as ask
    from evbiodist.library.meta import COLUMNS, Asked
    from evbiodist.library.meta import meta as pool_studies

    tell = _tell(given)
    found = _contents(given, tell)
    rows: list[dict[str, Any]] = []
    for organ in organs:
        asked = Asked(
            organ, time_h, in_unit, **{k: given[k] for k in ("window", "model", "by", "scale", "errors", "level")}
        )
        result = pool_studies(found.current, asked, _filters(given), with_simulated=given["with_simulated"])
        rows += result.rows
        for note in result.notes:
            tell.line(f"note: {_shown(note)}", organ=asked.organ)
    answer = ask.Found(COLUMNS, [tuple(ask.or_none(row.get(c)) for c in COLUMNS) for row in rows])
    if given["out"]:
        ask.write(answer, Path(given["out"]))
        tell.line(f"{len(rows)} rows in {given['out']}", rows=len(rows), file=given["out"])
    for record in answer.records():
        tell.line(_shown(_meta_line(record)), row=ask.plain(record))
    _leave(found)


def _meta_line(row: Mapping[str, Any]) -> str:
    who = f"{row['study']}, {row['label']}" + (f" ({row['group']})" if row["group"] not in (None, "all") else "")
    if row["what"] == "left_out":
        return f"  left out  {who}: {row['reason']}"
    value = "" if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
    value += "" if row["ci_low"] is None else f" ({row['ci_low']:.3g} to {_number(row['ci_high'])})"
    if row["what"] == "estimate":
        return f"  {value}  {who}, {row['at_h']:g} h, {row['n_animals'] or '?'} animals"
    if row["what"] == "difference":
        said = "" if row["q_p"] is None else f"p = {row['q_p']:.2g}"
        return f"{row['organ']}, between {row['by']}: {said or row['reason']}"
    named = row["organ"] if row["stratum"] == "all" else f"{row['organ']}, {row['by']} {row['stratum']}"
    spread = "" if row["tau"] is None else (
        f"; tau {row['tau']:.3g}, I2 {row['i2']:.0f} %, next study {_number(row['prediction_low'])} to "
        f"{_number(row['prediction_high'])}")  # fmt: skip
    reason = f"; {row['reason']}" if row["reason"] else ""
    counts = f"{_count(row['n_studies'], 'study', 'studies')}, {row['n_animals'] or '?'} animals"
    return f"{named} at {row['time_h']:g} h: {value or 'no value'}, {counts}{spread}{reason}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


@library.command()
@click.option("--out", required=True, help="A new or empty folder.")
@_choices(*_CHOICES, "unit")
@click.option("--time", "hours", default=None, metavar="A..B", help="First and last hour, or one.")
@click.option("--measured-only", is_flag=True, help="Without simulated studies.")
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2), help="Folds of the cross-validation.")
@click.option(
    "--test", default=0.2, show_default=True, type=click.FloatRange(0, 1), help="Share of studies to test on."
)
@click.option("--validation", default=0.1, show_default=True, type=click.FloatRange(0, 1), help="Share to validate on.")
@click.option("--seed", default=0, show_default=True, type=int, help="Another one deals studies out anew.")
@_common
def export(out: str, **given: Any) -> None:
    """Write a tidy table for machine learning, with splits that never part a study."""
    from evbiodist.library.export import Splits
    from evbiodist.library.export import export as export_studies

    tell = _tell(given)
    found = _contents(given, tell)
    simulated = False if given["measured_only"] else None
    filters = _filters(given, time_h=_hours(given["hours"]), simulated=simulated)
    splits = Splits(given["folds"], given["test"], given["validation"], given["seed"])
    done = export_studies(found.current, out, filters, splits)
    for note in done.notes:
        tell.line(f"note: {_shown(note)}")
    tell.line(f"{done.rows} rows of {done.studies} studies in {out}", rows=done.rows, studies=done.studies, out=out)
    _leave(found)


def _print(columns: Sequence[str], rows: Iterable[Sequence[Any]], tell: Any) -> None:
    """Print a table without the columns that say nothing in any row shown."""
    rows = list(rows)
    if not rows:
        return
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    cells = [[_shown(columns[i]) for i in kept], *([_cell(row[i]) for i in kept] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        tell.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else _shown(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(text: str) -> str:
    """Return text in which nothing is a command to the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
