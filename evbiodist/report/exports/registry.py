"""The forms a result folder can be handed on in, and the one way in which they are written.

A form is a function from a result folder to files as bytes: it touches no disk, so what it wrote can be
compared, tested and written atomically. A new form is a module with such a function and a line in `EXPORTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from evbiodist.batch.store import write_bytes
from evbiodist.report.folder import read_results
from evbiodist.study.problems import InputError, Problem, nearest


@dataclass(frozen=True)
class Exported:
    """Files of one form, and what could not be said in it.

    Parameters
    ----------
    files : content by name below the folder of the export, ``/`` between folders; a path is copied as it is.
    notes : sentences: what the form has no room for, what the study does not say, what was assumed.
    """

    files: Mapping[str, bytes | Path]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """A form: what it is for, the module that makes it, and what it can be told.

    Parameters
    ----------
    name : as given to ``--format``.
    title, purpose : one line each; who reads it.
    module : of `evbiodist.report.exports`, with a function ``export(results, options) -> Exported``.
    extra : the optional part of evbiodist that it needs, with the packages of it.
    options : what ``--set key=value`` takes, with what it means; values stay text, and the form checks them.
    """

    name: str
    title: str
    purpose: str
    module: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


EXPORTS: dict[str, Export] = {
    e.name: e
    for e in (
        Export("csv", "CSV tables", "any program: every table of the results with a dictionary of its columns", "tables"),
        Export("parquet", "Parquet tables", "pandas, R, DuckDB: typed columns with units in the metadata", "tables_parquet",
               "export", ("pyarrow",)),
        Export("excel", "Excel workbook", "people: a sheet a table, a sheet that explains columns and flags", "workbook",
               "export", ("xlsxwriter",)),
        Export("ml", "tidy set for machine learning", "models: one row a value, splits that never part an animal", "tidy",
               options={"layout": "long (a row a value) or wide (organs as columns)", "folds": "of animals, 5 when not told"}),
        Export("send", "CDISC SEND (PC, PP and what they refer to)", "regulatory submission: SAS transport files", "send",
               "export", ("pyreadstat",)),
        Export("nonmem", "NONMEM data set", "NONMEM, nlmixr2, Pumas: one record an event", "nonmem"),
        Export("monolix", "Monolix data set", "Monolix: the data set with its column types", "nonmem"),
        Export("pixi", "PIXI biodistribution table", "XNAT's preclinical imaging plugin", "pixi",
               options={"injected": "date and time of the injections, such as 2026-03-01T09:00",
                        "dates": "iso (2026-03-01) or us (03/01/2026), as the XNAT site has them"}),
        Export("bids", "BIDS-PET derivatives", "time-activity curves as BIDS names them", "bids"),
        Export("sbml", "SBML of the fitted models", "tellurium, COPASI, libRoadRunner: model and parameters", "sbml"),
        Export("crate", "RO-Crate with a Frictionless data package", "archives: the results described for people and machines",
               "crate", options={"license": "address of the licence the data are under"}),
        Export("figures", "figure files", "papers: every figure as SVG, PDF and PNG in a journal's width", "figure_files",
               options={"width": "single (89 mm), 1.5 (120 mm), double (183 mm), or millimetres",
                        "dpi": "300 or 600, of the PNG"}),
    )
}  # fmt: skip


def export(
    folder: str | Path, name: str, out: str | Path | None = None, **options: Any
) -> tuple[list[Path], tuple[str, ...]]:
    """Write the results of a run in another form.

    Parameters
    ----------
    folder : of a run.
    name : of the form, a key of `EXPORTS`.
    out : folder for the files; ``exports/NAME`` in the result folder when None.
    options : what the form can be told.

    Returns
    -------
    tuple : paths of the files, sorted, and sentences about what the form could not say.

    Raises
    ------
    InputError : not a result folder, no such form or option, a package that is not installed.

    Examples
    --------
    >>> export("results", "spss")
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: --format: found 'spss', expected one of csv, parquet, excel, ...
    """
    form = _known(name, options)
    results = read_results(folder)
    made: Exported = import_module(f"evbiodist.report.exports.{form.module}").export(
        results, {"format": name} | options
    )
    out = Path(folder) / "exports" / name if out is None else Path(out)
    paths = []
    for relative in sorted(made.files):
        content = made.files[relative]
        path = out / PurePosixPath(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.read_bytes() if isinstance(content, Path) else content)
        paths.append(path)
    return paths, made.notes


def _known(name: str, options: Mapping[str, Any]) -> Export:
    """Return a form whose packages are there and whose options are its own."""
    from importlib.util import find_spec

    if name not in EXPORTS:
        raise InputError([Problem("--format", name, "one of " + ", ".join(EXPORTS), nearest(name, EXPORTS))])
    form = EXPORTS[name]
    problems = [Problem("--set", key, f"an option of {name} ({', '.join(form.options) or 'it has none'})",
                        nearest(key, form.options)) for key in options if key not in form.options]  # fmt: skip
    problems += [Problem("--format", name, f"the package {package}", f"pip install 'evbiodist[{form.extra}]'")
                 for package in form.packages if find_spec(package) is None]  # fmt: skip
    if problems:
        raise InputError(problems)
    return form
