"""The command line: thin. It reads arguments, calls the package, prints, and sets the exit status.

0 done; 1 some scans or subjects failed (named in failures.csv); 2 the input is unusable.
Heavy imports happen inside commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evbiodist.library.commands import library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evbiodist.batch.tables import Entry
    from evbiodist.kinetics.fitting.fit import FitResult
    from evbiodist.kinetics.models.catalogue import Models
    from evbiodist.kinetics.models.graph import ParameterSpec

DONE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
#: Scans from which checking their files is worth lines of its own.
_MANY = 1000


class Tell:
    """Where words go: people on a terminal, plain lines in a pipe, JSON lines for machines, or nowhere."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def line(self, text: str, **facts: Any) -> None:
        """Say something; machines get the facts."""
        if self.as_json:
            click.echo(json.dumps({"event": "message", "text": text, **facts}, default=str))
        elif not self.quiet:
            click.echo(text)

    def problem(self, problem: Any) -> None:
        """Print one problem of the input to standard error (or as a JSON line)."""
        if self.as_json:
            click.echo(json.dumps({"event": "problem", "text": str(problem), **problem.as_dict()}, default=str))
        else:
            click.echo(f"{'error' if problem.fatal else 'note'}: {problem}", err=True)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Yield a function that shows a run's progress events."""
        if self.as_json:
            yield lambda event: click.echo(json.dumps(dict(event), default=str))
        elif self.quiet:
            yield lambda event: None
        elif sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            from evbiodist.batch.progress import rate_in_words, span_in_words

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[pace]}", markup=False))  # fmt: skip
            with Progress(*columns) as bar:
                task = bar.add_task("scans", total=None, pace="")

                def show(event: Mapping[str, Any]) -> None:
                    words = [f"{event['failed']} failed"] if event.get("failed") else []
                    if event.get("rate_per_s") is not None and event["done"] < event["total"]:
                        words += [rate_in_words(event["rate_per_s"]), f"{span_in_words(event['eta_s'])} left"]
                    name = (
                        str(event["name"]) if event["event"] == "part" else _STEPS.get(event["event"], event["event"])
                    )
                    bar.update(
                        task, description=name, completed=event["done"], total=event["total"], pace=", ".join(words)
                    )

                yield show
        else:
            yield _plain


_STEPS = {
    "inputs": "files",
    "scan": "scans",
    "nca": "NCA",
    "fitted": "models",
    "compared": "labels",
    "written": "written",
}


def _plain(event: Mapping[str, Any]) -> None:
    """Print a line every tenth of the scans (or of a volume's parts), and one for every other step."""
    from evbiodist.batch.progress import in_words

    done, total = int(event["done"]), int(event["total"])
    if event["event"] == "inputs" and total < _MANY:
        return
    if event["event"] not in ("inputs", "scan", "part"):
        click.echo(f"{_STEPS.get(str(event['event']), event['event'])}: done")
    elif total and (done == total or done % max(1, total // 10) == 0):
        click.echo(in_words(event))


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--json", "as_json", is_flag=True, help="JSON lines for machines.")(command)
    return click.option("--quiet", is_flag=True, help="Say nothing but errors.")(command)


class _Group(click.Group):
    """Ends every command with a sentence and an exit status instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        as_json = "--json" in ctx.args
        # numbers that cannot be had carry their reason in the tables; numpy's warnings on the way say nothing more
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except KeyboardInterrupt:
            click.echo("interrupted; the same command takes the run up where it stopped", err=True)
            sys.exit(INTERRUPTED)
        except click.ClickException:
            raise
        except Exception as err:
            _end(err, as_json)


def _end(err: Exception, as_json: bool) -> None:
    """Print what is wrong with the input in words and leave with status 2; anything else is a fault of ours."""
    from evbiodist.batch.store import FolderBusyError, NoRoomError
    from evbiodist.study.problems import InputError, UnreadableImage

    tell = Tell(as_json)
    if isinstance(err, InputError):
        for problem in err.problems:
            tell.problem(problem)
        count = len(err.problems)
        click.echo(f"{count} problem{'s' * (count != 1)}; nothing was run", err=True)
    else:
        text = str(err)
        if not isinstance(err, UnreadableImage | FolderBusyError | NoRoomError | ValueError):
            if os.environ.get("EVBIODIST_DEBUG"):
                raise err
            text = (f"{err.filename}: {err.strerror}; choose another place" if isinstance(err, OSError) and err.strerror else
                    f"this is a fault of evbiodist ({type(err).__name__}: {err}); please report it with the command and "
                    "what EVBIODIST_DEBUG=1 shows")  # fmt: skip
        click.echo(json.dumps({"event": "error", "text": text}) if as_json else f"error: {text}", err=not as_json)
    sys.exit(UNUSABLE)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": Tell}
)
@click.version_option(package_name="evbiodist")
def main() -> None:
    """From images of labelled vesicles to pharmacokinetic parameters that hold across labels."""


main.add_command(library)


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes for the scans."),
        click.option("--memory-gb", type=click.FloatRange(0.25), default=None,
                     help="Memory of each process; by default its share of four fifths of this machine's."),
        click.option("--seconds", type=click.FloatRange(1), default=3600.0, show_default=True, help="Longest time for a scan."),
        click.option("--scheduler", default=None, help="dask: tcp://host:port, tls://host:port, or local for one of its own."),
        click.option("--tls-ca", default=None, help="PEM file of the authority that signed the scheduler's certificate."),
        click.option("--tls-cert", default=None, help="PEM file of your certificate."),
        click.option("--tls-key", default=None, help="PEM file of your key."),
        click.option("--insecure", is_flag=True, help="Let a scheduler on another machine be reached without encryption."),
    )):  # fmt: skip
        command = option(command)
    return command


def _engine(given: Mapping[str, Any]) -> Any:
    """Return what runs the scans, as the options say."""
    from evbiodist.batch.engine import limits_for, run_tasks

    limits = limits_for(given["workers"], given["memory_gb"], given["seconds"])
    if given["scheduler"] is None:
        return partial(run_tasks, workers=given["workers"], limits=limits)
    from evbiodist.batch.cluster import Scheduler, run_on_cluster

    scheduler = Scheduler(given["scheduler"], given["tls_ca"], given["tls_cert"], given["tls_key"], given["insecure"])
    return partial(run_on_cluster, scheduler=scheduler, workers=given["workers"], limits=limits)


def _run(
    study: str, out: str, tell: Tell, *, workers: int = 1, engine: Any = None, quantify_only: bool = False
) -> None:
    from evbiodist.batch.pipeline import missing_files, run_study
    from evbiodist.study.load import load_study

    loaded = load_study(study)
    for problem in missing_files(loaded):
        tell.problem(problem)
    with tell.progress() as progress:
        result = run_study(loaded, Path(out), workers=workers, quantify_only=quantify_only, progress=progress,
                           engine=engine)  # fmt: skip
        if not quantify_only:
            from evbiodist.report.html import write_report

            write_report(out)
    for failure in result.failures:
        tell.line(f"failed: {failure['name']}: {failure['reason']}", failure=failure)
    found = f"{len(result.observations)} values, {len(result.parameters)} parameters" if not quantify_only else (
        f"{len(result.observations)} values")  # fmt: skip
    shown = "observations.csv" if quantify_only else "report.html"
    failed = len({failure["name"] for failure in result.failures})
    tell.line(f"{found}, {failed} of {len(loaded.scans)} scans failed; open {Path(out) / shown}",
              out=out, failed=failed)  # fmt: skip
    if not quantify_only:
        _headline(result.consensus, loaded.settings.crossval.organ, tell)
    sys.exit(SOME_FAILED if result.failures else DONE)


def _headline(consensus: Sequence[Mapping[str, Any]], organ: str, tell: Tell) -> None:
    for row in consensus:
        if row["quantity"] == f"{organ}_uptake_pct_id" and row["ci_low"] == row["ci_low"]:
            tell.line(f"  {organ} uptake, {row['label']:<10} {row['estimate']:6.3g} % of dose "
                      f"({row['ci_low']:.3g} to {row['ci_high']:.3g})")  # fmt: skip


@main.command()
@click.argument("directory", default="evbiodist_demo", metavar="[DIR]")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes for the scans.")
@_common
def demo(directory: str, workers: int, quiet: bool, as_json: bool) -> None:
    """Write the sample study into DIR and run it."""
    from evbiodist.sample import DEMO, copy_sample

    folder = copy_sample(DEMO, Path(directory) / "study")
    tell = Tell(as_json, quiet)
    tell.line(f"the sample study is in {folder}; running it")
    _run(str(folder / "study.toml"), str(Path(directory) / "results"), tell, workers=workers)


@main.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="JSON lines for machines.")
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Say which reader takes each of FILES, and what is in it."""
    from evbiodist.io.registry import read, reader_for
    from evbiodist.study.problems import InputError, UnreadableImage

    failed = False
    for name in files:
        try:
            reader = reader_for(name)
            pairs = read(name).describe()
        except (UnreadableImage, InputError) as err:
            failed = True
            text = str(err) if isinstance(err, InputError) else f"{name}: {err.reason}"
            click.echo(json.dumps({"file": name, "error": text}) if as_json else f"error: {text}", err=not as_json)
            continue
        if as_json:
            click.echo(json.dumps({"file": name, "reader": reader.name, "facts": pairs}))
            continue
        click.echo(f"{name}\n  {'reader':<18}{reader.name}")
        for key, value in pairs:
            click.echo(f"  {key:<18}{value}")
    sys.exit(UNUSABLE if failed else DONE)


@main.command()
@click.argument("folder", metavar="STUDY", type=click.Path(file_okay=False))
@click.option(
    "--from",
    "source",
    default=None,
    type=click.Path(),
    help="An organ table to start from, or a folder of images in STUDY.",
)
@click.option("--name", default="", help="Name of the study; the folder's name when left out.")
@_common
def new(folder: str, source: str | None, name: str, quiet: bool, as_json: bool) -> None:
    """Write a commented study.toml and its tables into folder STUDY, filled as far as its images or a table tell."""
    from evbiodist.batch.new_study import new_study

    tell, made = Tell(as_json, quiet), new_study(folder, source, name=name)
    for note in made.notes:
        tell.line(f"note: {note}", note=note)
    written = ", ".join(p.name for p in made.files)
    tell.line(
        f"{written} in {made.folder}; {made.scans} images listed", files=[str(p) for p in made.files], scans=made.scans
    )
    tell.line(f"next: fill the blanks, then evbiodist check {made.folder}")


@main.command()
@click.argument("study")
@_common
def check(study: str, quiet: bool, as_json: bool) -> None:
    """Say everything that is wrong with STUDY.toml and its tables, all at once."""
    from evbiodist.batch.pipeline import check as check_study
    from evbiodist.batch.pipeline import missing_parts
    from evbiodist.study.load import load_study

    tell = Tell(as_json, quiet)
    loaded = load_study(study)
    problems = check_study(loaded)
    for problem in problems:
        tell.problem(problem)
    if any(p.fatal for p in problems):
        sys.exit(UNUSABLE)
    tell.line(f"{loaded.name}: {len(loaded.subjects)} rows of subjects, {len(loaded.scans)} scans, {len(loaded.labels)} "
              f"labels, {len(loaded.observation_sources)} observation tables: ready to run")  # fmt: skip
    for sentence in missing_parts(loaded):
        tell.line(f"note: {sentence}")
    sys.exit(SOME_FAILED if problems else DONE)


@main.command()
@click.argument("study")
@click.option("--out", required=True, help="Result folder; an interrupted run is taken up.")
@_engine_options
@_common
def run(study: str, out: str, quiet: bool, as_json: bool, **given: Any) -> None:
    """Run STUDY.toml (or the settings.toml of an earlier run) the whole way."""
    _run(study, out, Tell(as_json, quiet), engine=_engine(given))


@main.command()
@click.argument("study")
@click.option("--out", required=True, help="Result folder.")
@_engine_options
@_common
def quantify(study: str, out: str, quiet: bool, as_json: bool, **given: Any) -> None:
    """Turn the images of STUDY.toml into observations.csv, and stop there."""
    _run(study, out, Tell(as_json, quiet), engine=_engine(given), quantify_only=True)


def _table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.argument("table"),
        click.option("--out", required=True, help="Folder for the results."),
        click.option("--subjects", default=None, help="subjects.csv with doses and routes."),
        click.option("--dose", type=float, default=None, help="Dose, for tables without subjects.csv."),
        click.option("--dose-unit", default="", help="Its unit, e.g. bq or ng."),
        click.option("--route", default="iv_bolus", show_default=True, help="Route of the dose."),
        click.option("--infusion-h", type=click.FloatRange(0, min_open=True), default=None, help="Hours an infusion took."),
        click.option("--label", default="label", show_default=True, help="Label, where the table names none."),
        click.option("--unit", default=None, help="Unit of the values, where the table names none."),
        click.option("--n", type=int, default=None, help="Animals behind each mean, where the table does not say."),
        click.option("--level", type=click.FloatRange(0.5, 0.999), default=None, help="Level of the intervals."),
    )):  # fmt: skip
        command = option(command)
    return _common(command)


def _enter(given: Mapping[str, Any], tell: Tell) -> Entry:
    from evbiodist.batch.tables import enter

    keys = ("subjects", "dose", "dose_unit", "route", "label", "unit", "n")
    entry = enter(given["table"], infusion_h=given["infusion_h"] or 0.0, **{k: given[k] for k in keys})
    for note in entry.notes:
        tell.line(f"note: {note}")
    return entry


def _settings(entry: Entry, section: str, **changes: Any) -> Any:
    """Return the entry's settings with the options that were given on the command line."""
    part = getattr(entry.settings, section)
    given = {k: v for k, v in changes.items() if v is not None}
    return entry.settings.model_copy(update={section: part.model_copy(update=given)})


def _save(out: str, name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], tell: Tell) -> None:
    from evbiodist.batch.store import csv_bytes, write_bytes

    path = Path(out) / f"{name}.csv"
    if (Path(out) / "provenance.json").exists():
        raise ValueError(
            f"--out '{out}' is the result folder of a run, whose {path.name} would be overwritten; choose another"
        )
    write_bytes(path, csv_bytes(rows, columns))
    missing = sum(1 for r in rows if (value := r.get("value", 0.0)) != value)
    without = f", {missing} without a value (with its reason)" if missing else ""
    tell.line(f"{len(rows)} rows{without} in {path}", file=str(path), rows=len(rows))


@main.command()
@_table_options
@click.option(
    "--method", type=click.Choice(["linear", "lin-up-log-down", "lin-log", "log"]), default=None, help="Trapezoid rule."
)
@click.option("--blq", type=click.Choice(["drop", "zero", "lloq/2", "pknca"]), default=None,
              help="What becomes of values below the limit of quantification.")  # fmt: skip
@click.option("--rules", type=click.Choice(["evbiodist", "winnonlin", "pknca", "noncompart"]), default=None,
              help="Whose rules where programs disagree (docs/nca.md).")  # fmt: skip
@click.option(
    "--partial", multiple=True, metavar="FROM-TO", help="A partial area in hours, such as 0-4; several times."
)
@click.option("--refuse-extrap", is_flag=True, help="Leave out, rather than flag, what is extrapolated too far.")
@click.option("--sparse", is_flag=True, help="Pool animals by time even where each has a curve of its own.")
@click.option(
    "--max-extrap-pct", type=float, default=None, help="Share of the area beyond the last sample that is flagged."
)
def nca(**given: Any) -> None:
    """Turn observations (TABLE, result folder or study) into NCA parameters."""
    from evbiodist.batch.pipeline import frame_of, kinetics
    from evbiodist.kinetics.analyse import PARAMETER_COLUMNS, unused_choices

    tell = Tell(given["as_json"], given["quiet"])
    entry = _enter(given, tell)
    settings = _settings(entry, "kinetics", method=given["method"], blq=given["blq"], level=given["level"],
                         max_extrap_pct=given["max_extrap_pct"], rules=given["rules"],
                         partial=tuple(_span(text) for text in given["partial"]) or None,
                         refuse_extrap=given["refuse_extrap"] or None, models=())  # fmt: skip
    rows, _, _ = kinetics(entry.observations, entry.dosing, settings, lambda e: None, pool=given["sparse"])
    for note in unused_choices(frame_of(entry.observations), settings.kinetics, pool=given["sparse"]):
        tell.line(f"note: {note}", note=note)
    _save(given["out"], "parameters", rows, PARAMETER_COLUMNS, tell)
    sys.exit(DONE if any(r["value"] == r["value"] for r in rows) else SOME_FAILED)


def _span(text: str) -> tuple[float, float]:
    begin, _, end = text.partition("-")
    try:
        span = float(begin), float(end)
    except ValueError:
        span = (0.0, 0.0)
    if not 0 <= span[0] < span[1] < float("inf"):
        raise ValueError(f"--partial has '{text}', expected two times in hours such as 0-4")
    return span


@main.command()
@_table_options
@click.option("--model", required=True, help="A model of `evbiodist models`, or of --models-file.")
@click.option("--models-file", default=None, help="Your own models, as TOML (see docs/models.md).")
@click.option("--weights", type=click.Choice(["pooled", "given", "constant", "proportional", "combined"]), default=None,
              help="Where the weights of values come from.")  # fmt: skip
@click.option("--loss", type=click.Choice(["squares", "huber", "soft_l1", "cauchy"]), default=None,
              help="How much outliers count.")  # fmt: skip
@click.option("--scale", type=click.Choice(["linear", "log"]), default=None, help="Scale of the residuals.")
@click.option("--blq", type=click.Choice(["drop", "m3"]), default=None,
              help="Values below the limit: left out, or as known to be below it.")  # fmt: skip
@click.option("--plots", is_flag=True, help="Also draw each fit's diagnostics as SVG.")
@click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Hold a parameter; several times for several.")
def fit(**given: Any) -> None:
    """Fit a compartment model to observations (TABLE, result folder or study)."""
    from evbiodist.batch.pipeline import CURVE_COLUMNS, curve_rows, frame_of
    from evbiodist.kinetics.analyse import PARAMETER_COLUMNS, fit_settings, model_parameters
    from evbiodist.kinetics.models.catalogue import needs_organs, read_models

    tell = Tell(given["as_json"], given["quiet"])
    own: Models = read_models(given["models_file"]) if given["models_file"] else {}
    held = dict(_held(text) for text in given["fix"])
    if not own and Path(given["table"]).suffix != ".toml" and not Path(given["table"]).is_dir():
        needs_organs(given["model"])  # a table has no models of its own: say so before it is read
    entry = _enter(given, tell)
    own = own or entry.own_models
    needs_organs(given["model"], own)  # refuses an unknown model in words
    settings = _settings(entry, "kinetics", level=given["level"], weights=given["weights"], loss=given["loss"],
                         fit_scale=given["scale"], fit_blq=given["blq"], fixed=held or None)  # fmt: skip
    rows, fits = model_parameters(frame_of(entry.observations), entry.dosing, [given["model"]],
                                  fit_settings(settings.kinetics), own)  # fmt: skip
    _save(given["out"], "parameters", rows, PARAMETER_COLUMNS, tell)
    _save(given["out"], "curves", curve_rows(fits), CURVE_COLUMNS, tell)
    if given["plots"]:
        _draw(given["out"], fits, tell)
    failed = [r for r in rows if r["parameter"] == "fit"]
    for r in failed:
        tell.line(f"not fitted: {r['label']} ({r['group']}): {r['reason']}")
    sys.exit(SOME_FAILED if failed else DONE)


def _draw(out: str, fits: Mapping[tuple[str, str, str, str], FitResult], tell: Tell) -> None:
    from evbiodist.batch.store import write_bytes
    from evbiodist.report.fit_plots import file_name, fit_plots

    for (_, group, label, model), found in sorted(fits.items()):
        path = Path(out) / file_name(label, group, model)
        write_bytes(path, fit_plots(found).encode())
        tell.line(f"diagnostics of {model}, {label} ({group}) in {path}", file=str(path))


def _held(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(f"--fix has '{text}', expected a parameter and its value such as f=0.8") from None


@main.command()
@_table_options
@click.option("--organ", default=None, help="Headline organ of the consensus.")
@click.option("--model", default=None, help="The vesicle's model, shared by all labels.")
@click.option("--control", "controls", multiple=True, metavar="GROUP=KIND",
              help="What a control group got: free_label, background or vesicles; several times.")  # fmt: skip
@click.option("--assay", default=None, help="Calibration data of the labels' readouts, for tables without a study.")
@click.option(
    "--posterior", type=click.IntRange(100), default=None, help="Also draw so often from the whole posterior (minutes)."
)
@click.option("--no-joint", is_flag=True, help="Agreement and consensus only, without the joint label model.")
def crossval(**given: Any) -> None:
    """Bring the labels of observations (TABLE, result folder or study) to one vesicle answer, and say how each lies."""
    from evbiodist.batch.engine import one_thread
    from evbiodist.batch.pipeline import frame_of
    from evbiodist.crossval.assay import apply_assay, read_assay, validate_assays
    from evbiodist.crossval.compare import TABLES, compare_labels
    from evbiodist.kinetics.analyse import fit_settings
    from evbiodist.kinetics.models.catalogue import needs_organs
    from evbiodist.study.labels import label_model

    tell = Tell(given["as_json"], given["quiet"])
    entry = _enter(given, tell)
    controls = dict(_control(text) for text in given["controls"])
    settings = _settings(entry, "crossval", organ=given["organ"], model=given["model"], controls=controls or None,
                         posterior_draws=given["posterior"],
                         joint=False if given["no_joint"] else None)  # fmt: skip
    needs_organs(settings.crossval.model, entry.own_models)  # refuses an unknown model in words
    frame = frame_of(entry.observations)
    labels = sorted(frame["label"].unique())
    if len(labels) < 2:
        raise ValueError(f"the observations hold {f'one label ({labels[0]})' if labels else 'no rows'}; two or more labels can "
                         "be compared")  # fmt: skip
    level = given["level"] or settings.kinetics.level
    fitting = fit_settings(settings.kinetics.model_copy(update={"level": level}))
    models = {name: label_model(name, entry.labels[name]) for name in labels}
    assays = validate_assays(read_assay(given["assay"])) if given["assay"] else entry.assays
    frame = apply_assay(frame, assays) if given["assay"] else frame
    with one_thread():
        found = compare_labels(frame, models, entry.dosing, settings.crossval, fitting=fitting, own=entry.own_models,
                               species=entry.species, weight_g=entry.weight_g, assays=assays)  # fmt: skip
    for name, columns in TABLES.items():
        _save(given["out"], name, getattr(found, name), columns, tell)
    for note in found.notes:
        tell.line(f"note: {note}")
    for row in found.consensus:
        if row["reason"] and row["label"] in labels and row["quantity"] == f"{settings.crossval.organ}_uptake_pct_id":
            tell.line(f"not in the consensus: {row['label']} ({row['group']}): {row['reason']}")
    for row in found.alerts:
        tell.line(f"  {row['evidence']} ({row['group']})")
    _headline(found.consensus, settings.crossval.organ, tell)


def _control(text: str) -> tuple[str, str]:
    group, _, kind = text.partition("=")
    if kind not in ("free_label", "background", "vesicles"):
        raise ValueError(f"--control has '{text}', expected a group and what it got, such as dye_only=free_label")
    return group.strip(), kind


@main.command()
@click.argument("names", nargs=-1)
@click.option("--file", "path", default=None, help="Your own models, as TOML: checks them and prints them too.")
def models(names: tuple[str, ...], path: str | None) -> None:
    """Print models with diagrams and equations: the whole catalogue, or NAMES."""
    from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs, read_models
    from evbiodist.study.problems import nearest

    own = read_models(path) if path else {}
    known = {**own, **catalogue()}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no model '{name}'; {nearest(name, known)}")
    for name in names or own or known:
        graph = build(name, ["organ"] if needs_organs(name, own) else (), models=own)
        click.echo(f"{name}: {graph.title}")
        click.echo(f"  {graph.source}")
        for heading, lines in (("graph", graph.diagram()), ("equations", graph.equations()),
                               ("parameters", [_said(p) for p in graph.parameters])):  # fmt: skip
            click.echo(f"  {heading}")
            for line in lines:
                click.echo(f"    {line}")
        click.echo("")


@main.command()
@click.argument("names", nargs=-1)
def labels(names: tuple[str, ...]) -> None:
    """Print the catalogue of labels, or all that is known of NAMES: artefacts, controls, priors, sources."""
    from evbiodist.study.labels import catalogue, find
    from evbiodist.study.problems import nearest

    for name in names:
        entry = find(name)
        if entry is None:
            raise ValueError(f"there is no label '{name}' in the catalogue; {nearest(name, catalogue())}")
        click.echo("\n".join(entry.lines()) + "\n")
    if names:
        return
    for name, entry in catalogue().items():
        click.echo(f"{name:<14} {entry.description} ({entry.physics()})")
    click.echo("\nevbiodist labels NAME prints how a label misleads, the controls it needs and the priors")


def _said(p: ParameterSpec) -> str:
    held = "" if p.fixed is None else f", held at {p.fixed:g} unless freed"
    return f"{p.name}: {p.description} [{p.dimension}]{held}"


@main.command()
@click.argument("directory", metavar="DIR")
@_common
def report(directory: str, quiet: bool, as_json: bool) -> None:
    """Build report.html of a result folder again."""
    from evbiodist.report.html import write_report

    Tell(as_json, quiet).line(f"report in {write_report(directory)}")


@main.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--format",
    "name",
    required=True,
    metavar="FORMAT",
    help="Which form; evbiodist export DIR --format list names them.",
)
@click.option(
    "--out", default=None, type=click.Path(), help="Folder for the files; exports/FORMAT in DIR when left out."
)
@click.option(
    "--set", "chosen", multiple=True, metavar="KEY=VALUE", help="What the form can be told; may be given again."
)
@_common
def export(directory: str, name: str, out: str | None, chosen: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Write the results in DIR in the form another program, an archive or an authority takes."""
    from evbiodist.report.exports.registry import EXPORTS
    from evbiodist.report.exports.registry import export as write

    tell = Tell(as_json, quiet)
    if name == "list":
        for form in EXPORTS.values():
            tell.line(f"{form.name:<10}{form.title}: {form.purpose}", format=form.name)
            for key, meaning in form.options.items():
                tell.line(f"{'':<10}--set {key}=...: {meaning}", format=form.name, option=key)
        return
    wrong = [text for text in chosen if not text.partition("=")[1]]
    if wrong:
        raise ValueError(f"--set {wrong[0]}: expected KEY=VALUE, such as --set width=double")
    paths, notes = write(
        directory, name, out, **{key: value for key, _, value in (text.partition("=") for text in chosen)}
    )
    for note in notes:
        tell.line(f"note: {note}", note=note)
    folder = Path(out) if out else Path(directory) / "exports" / name
    tell.line(f"{len(paths)} file{'s' * (len(paths) != 1)} in {folder}", files=[str(p) for p in paths])


@main.command()
@click.argument("directory", metavar="DIR")
@click.option("--study", "root", default=None, help="Folder of the study, where it lies elsewhere now.")
@click.option("--head", default=None, help="Hash that the journal ended with when you noted it.")
@_common
def verify(directory: str, root: str | None, head: str | None, quiet: bool, as_json: bool) -> None:
    """Tell whether results and inputs are still those of the run; status 1 when not."""
    from evbiodist.batch.verify import verify as check_results

    tell, found = Tell(as_json, quiet), check_results(directory, root=root, head=head)
    for finding in found.findings:
        tell.line(f"{finding.what} {finding.name}: {finding.reason}", **finding.as_dict())
    tell.line(f"{found.checked} files compared, {len(found.findings)} not as the run left them; the journal ends with {found.head}",
              checked=found.checked, findings=len(found.findings), head=found.head)  # fmt: skip
    sys.exit(SOME_FAILED if found.findings else DONE)


@main.command()
@click.argument("out")
@click.option("--kind", default="trays", show_default=True, type=click.Choice(["trays", "in-vivo", "pet"]),
              help="Excised organs of four labels; living mice through tissue, back and belly; dynamic PET volumes.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, type=int, help="The same seed gives the same bytes.")
@click.option(
    "--animals",
    default=3,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Animals per time and label; in all for pet.",
)
@click.option("--times", default="0.083,0.5,2,8,24", show_default=True, help="Hours of sacrifice.")
@click.option("--kinetics-cv", default=0.0, show_default=True, type=click.FloatRange(0, 2), help="Spread of the truth.")
@click.option(
    "--animal-cv", default=0.15, show_default=True, type=click.FloatRange(0, 2), help="Spread of the animals."
)
@click.option("--in-vivo/--no-in-vivo", default=True, show_default=True, help="Also follow one animal a label.")
def phantom(
    out: str, kind: str, seed: int, animals: int, times: str, kinetics_cv: float, animal_cv: float, in_vivo: bool
) -> None:
    """Write a digital study with truth.csv into OUT."""
    try:
        hours = tuple(sorted({float(t) for t in times.split(",")}))
    except ValueError:
        hours = ()
    if len(hours) < 3 or hours[0] <= 0:
        raise ValueError(f"--times {times}: three or more different hours above 0 are needed, such as 0.25,1,4,24")
    if (Path(out) / "study.toml").exists() or Path(out).is_file():
        raise ValueError(f"'{out}' holds a study or file already; choose another folder")
    if hours[-1] > 1e4 or not all(t < 1e5 for t in hours) or seed < 0:
        raise ValueError("--times goes up to 10000 h and --seed is 0 or more")
    if kind == "pet":
        from evbiodist.phantom.pet import PetDesign, write_pet_study

        _only_for("every animal is scanned from the injection to 2 h", "times", "in_vivo")
        path = write_pet_study(out, seed, PetDesign(animals=animals, animal_cv=animal_cv, kinetics_cv=kinetics_cv))
    elif kind == "in-vivo":
        from evbiodist.phantom.optical import OpticalDesign, write_optical_study

        _only_for("all of its animals live", "in_vivo")
        path = write_optical_study(out, seed, OpticalDesign(times_h=hours, animals=animals, animal_cv=animal_cv,
                                                            kinetics_cv=kinetics_cv))  # fmt: skip
    else:
        from evbiodist.phantom.study import Design, write_study

        path = write_study(out, seed, Design(times_h=hours, animals=animals, animal_cv=animal_cv, kinetics_cv=kinetics_cv,
                                             in_vivo=in_vivo))  # fmt: skip
    click.echo(f"digital study in {path}")


def _only_for(why: str, *names: str) -> None:
    """Refuse options that say nothing about this kind of study."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise ValueError(f"--{name.replace('_', '-')} does not go with --kind {context.params['kind']}, where {why}; "
                             "leave it out")  # fmt: skip


@main.command()
@click.argument("files", nargs=-1)
def view(files: tuple[str, ...]) -> None:
    """Open FILES (or the demo tray) in napari with the plugin."""
    import subprocess
    from importlib.util import find_spec

    if find_spec("napari") is None:
        raise ValueError("napari is not installed; pip install 'evbiodist[all]'")
    if not any(find_spec(binding) for binding in ("PySide6", "PyQt6", "PyQt5", "PySide2")):
        raise ValueError("napari has no Qt binding to open a window with; pip install 'evbiodist[all]'")
    # a process of its own: Qt ends the interpreter where there is no display
    sys.exit(subprocess.call([sys.executable, "-m", "napari_evbiodist.view", *files]))  # noqa: S603


@main.command()
@click.option("--out", default=".", show_default=True, type=click.Path(), help="Folder for the report.")
@click.option("--area", "areas", multiple=True, help="Check this area only; may be given again.")
@click.option("--full", is_flag=True, help="Also run the sample study with one process and with two: minutes.")
@_common
def validate(out: str, areas: tuple[str, ...], full: bool, quiet: bool, as_json: bool) -> None:
    """Compute numbers that others printed again on this machine, and write a dated report; status 1 when one differs."""
    from evbiodist.validation.checks import run_checks, same_bytes
    from evbiodist.validation.report import Machine, rows_of, write_validation

    tell = Tell(as_json, quiet)
    with tell.progress() as progress:
        checks = run_checks(
            areas, lambda name, done, total: progress({"event": "part", "name": name, "done": done, "total": total})
        )
    if full:
        import tempfile

        from evbiodist.sample import DEMO, copy_sample

        tell.line("running the sample study with one process and with two")
        with tempfile.TemporaryDirectory() as folder:
            checks += same_bytes(copy_sample(DEMO, Path(folder) / "demo"))
    paths = write_validation(out, checks, Machine.here())
    for row in rows_of(checks):
        if not row["passed"]:
            found = (
                row["reason"]
                or f"{row['ours']:.10g} instead of {row['outside']:.10g}, tolerance {row['tolerance']:.2g}"
            )
            tell.line(f"differs: {row['area']}, {row['what']}: {found}", check=row)
    failed = sum(not c.passed for c in checks)
    count = len({c.area for c in checks})
    tell.line(f"{len(checks) - failed} of {len(checks)} numbers in {count} areas agree; the report, with what it proves and what not, "
              f"is {paths[0]}", checks=len(checks), failed=failed, report=str(paths[0]))  # fmt: skip
    sys.exit(SOME_FAILED if failed else DONE)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="JSON lines for machines.")
def doctor(as_json: bool) -> None:
    """Print versions, optional parts, this machine, and the command that installs what is missing; status 2 when it cannot run."""
    from evbiodist.doctor import examine

    tell, found = Tell(as_json), examine()
    for f in found:
        tell.line(
            f"  {f.name:<20}{f.value:<18}{f.words}" if f.indented else f.words,
            check=f.name,
            found=f.value,
            fine=f.fine,
            said=f.words,
        )
    sys.exit(DONE if all(f.fine for f in found) else UNUSABLE)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the lines that complete commands, options and files in a SHELL.

    bash: evbiodist completion bash >> ~/.bashrc. zsh: the same into ~/.zshrc. fish: into ~/.config/fish/completions/evbiodist.fish.
    """
    from click.shell_completion import get_completion_class

    known = get_completion_class(shell)
    assert known is not None  # noqa: S101  click.Choice lets only its own shells through
    click.echo(known(main, {}, "evbiodist", "_EVBIODIST_COMPLETE").source())
