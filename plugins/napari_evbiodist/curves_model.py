"""What the curves panel shows, as plain tables: an organ's time curve for every label, and what footprints leave over."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evbiodist.batch.pipeline import analyse, check_tables, frame_of
from evbiodist.batch.scans import ScanTask, find_organs, footprint_of, load_scan
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import frame_of as scan_frame
from evbiodist.imaging.quantify import quantify
from evbiodist.imaging.register import register_series
from evbiodist.io.organ_tables import read_organ_table
from evbiodist.io.scan import Scan
from evbiodist.report.figures import UNITS, means
from evbiodist.report.words import interval, number
from evbiodist.study.flags import FLAGS, split
from evbiodist.study.model import OBSERVATION_COLUMNS, Observation, ObservationSource, ScanRecord, Study
from evbiodist.study.problems import InputError
from evbiodist.study.tables import plain_cell
from evbiodist.study.vocabulary import WHOLE_BODY
from napari_evbiodist.converters import INDEX, KEY, ORGAN, place

if TYPE_CHECKING:
    import pandas as pd
    from napari.types import FullLayerData

#: Columns that `with_observations` puts on a labels layer.
MEASURED = ("value", "se", "unit", "flags", "reason")
#: Columns of the table of a curve, as it is shown and saved.
CURVE_TABLE = (
    "organ",
    "unit",
    "group",
    "label",
    "time_h",
    "mean",
    "low",
    "high",
    "level",
    "n",
    "flags",
    "sources",
    "reason",
)


class Missing(NamedTuple):
    """A value that a curve does not have, and why."""

    group: str
    label: str
    time_h: float
    reason: str


@dataclass(frozen=True, eq=False)
class Curves:
    """Time curves of one organ.

    Parameters
    ----------
    organ, unit : what is shown, in which unit of observations.csv.
    points : one row a group, label and time: mean, low, high (t interval), n, as in the report's figures; and the flags and
        sources (scans or tables) of the values behind it, sorted and joined by ``;``.
    missing : values that are not there.
    level : of the intervals.
    """

    organ: str
    unit: str
    points: pd.DataFrame
    missing: tuple[Missing, ...]
    level: float = 0.95

    def table(self, group: str) -> list[dict[str, Any]]:
        """Return one group's points, then what is missing, with the columns of `CURVE_TABLE`; `reason` is empty for points."""
        told = {"organ": self.organ, "unit": self.unit, "level": self.level}
        points = self.points[self.points["group"] == group] if len(self.points) else self.points
        rows = [{**told, **r, "reason": ""} for r in points.to_dict("records")]
        gaps = [{**told, **m._asdict(), "n": 0} for m in self.missing if m.group == group]
        empty = dict.fromkeys(CURVE_TABLE)
        return [{**empty, **r} for r in rows + gaps]


@dataclass(frozen=True, eq=False)
class Observed:
    """Everything that the curves panel shows of a study as it stands, made in another process.

    Parameters
    ----------
    rows : of observations.csv.
    curves : by organ and unit.
    failures : why scans, or animals of a scan, gave no numbers.
    """

    rows: list[dict[str, Any]]
    curves: dict[tuple[str, str], Curves]
    failures: dict[str, str]

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that there are observations of, by name."""
        return tuple(sorted({organ for organ, _ in self.curves}))

    def units(self, organ: str) -> tuple[str, ...]:
        """Return the units in which an organ was observed."""
        return tuple(sorted(unit for name, unit in self.curves if name == organ))

    def groups(self, organ: str, unit: str) -> tuple[str, ...]:
        """Return the groups of an organ's curves."""
        curve = self.curves[organ, unit]
        return tuple(sorted({*(curve.points["group"] if len(curve.points) else ()), *(m.group for m in curve.missing)}))


def observe(
    study: Study, scanned: Sequence[Observation], failures: Mapping[str, str], level: float, results: Path | None = None
) -> Observed:
    """Return what is known of a study, by the functions of the batch.

    Parameters
    ----------
    scanned, failures : of the scans that were measured, as from `Session.scanned`.
    level : of the intervals.
    results : a result folder whose observations are taken in place of `scanned`.

    Raises
    ------
    InputError : an observations table that cannot be used.
    """
    if results is None:
        tables, problems = check_tables(study)
        if problems:
            raise InputError(problems)
        rows = analyse(study, scanned, tables, quantify_only=True).observations
    else:
        table = read_organ_table(results / "observations.csv", ObservationSource(file="observations.csv"))
        rows = [{c: r.model_dump()[c] for c in OBSERVATION_COLUMNS} for r in table.rows]
        failures = _failures_of(results)
    organs = sorted({(r["organ"], r["unit"]) for r in rows})
    curves = {key: organ_curves(rows, *key, level) for key in organs}
    lost = {key: gaps(study, rows, failures, *key) for key in organs}
    curves = {key: replace(c, missing=tuple(sorted({*c.missing, *lost[key]}))) for key, c in curves.items()}
    return Observed(rows, curves, dict(failures))


def _failures_of(results: Path) -> dict[str, str]:
    file = results / "failures.csv"
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as text:
        return {plain_cell(r["name"]) + (f", {plain_cell(r['subject'])}" if r["what"] == "animal" else ""): plain_cell(r["reason"])
                for r in csv.DictReader(text) if r["what"] in ("scan", "animal")}  # fmt: skip


def units_of(rows: Iterable[Mapping[str, Any]], organ: str) -> tuple[str, ...]:
    """Return the units in which an organ was observed.

    Examples
    --------
    >>> units_of([{"organ": "liver", "unit": "pct_id"}, {"organ": "brain", "unit": "bq"}], "liver")
    ('pct_id',)
    """
    return tuple(sorted({str(r["unit"]) for r in rows if r["organ"] == organ}))


def organ_curves(rows: Sequence[Mapping[str, Any]], organ: str, unit: str, level: float = 0.95) -> Curves:
    """Return an organ's mean time curve of every group and label with intervals.

    Parameters
    ----------
    rows : of observations.csv.
    unit : one of `units_of`; nothing is converted.
    level : of the intervals.

    Raises
    ------
    ValueError : no observation of that organ, or none in that unit, with the units that there are.
    """
    here = [dict(r) for r in rows if r["organ"] == organ and r["unit"] == unit]
    if not here:
        known = units_of(rows, organ)
        raise ValueError(f"no observations of {organ} in {unit}; there are some in {', '.join(known)}" if known else
                         f"no observations of {organ}; measure a scan that shows it")  # fmt: skip
    missing = tuple(
        Missing(str(r["group"]), str(r["label"]), float(r["time_h"]), _reason(r)) for r in here if r["value"] is None
    )
    points = means(frame_of(here), level)
    behind: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for r in here:
        if r["value"] is not None:
            behind.setdefault((r["group"], r["label"], float(r["time_h"])), []).append(r)
    if len(points):
        found = [behind[key] for key in zip(points["group"], points["label"], points["time_h"], strict=True)]
        points["flags"] = [";".join(sorted({f for r in members for f in split(r["flags"])})) for members in found]
        points["sources"] = [";".join(sorted({str(r["source"]) for r in members if r["source"]})) for members in found]
    return Curves(organ, unit, points, missing, level)


def _reason(row: Mapping[str, Any]) -> str:
    if row.get("below_lloq"):
        limit = row.get("lloq")
        return f"{row['source'] or row['subject']}: below the limit of quantification" + (
            f" ({limit:g})" if limit else ""
        )
    return f"{row['source'] or row['subject']}: no value"


def gaps(
    study: Study, rows: Sequence[Mapping[str, Any]], failures: Mapping[str, str], organ: str, unit: str
) -> list[Missing]:
    """Return the scans that give no value of an organ in a unit though scans of their kind do: they failed, or do not show it.

    Parameters
    ----------
    rows : of observations.csv.
    failures : by scan, or by ``scan, animal``; scans without rows that are not among them were not measured yet.
    """
    records = {r.scan: r for r in study.scans}
    shows = {str(r["source"]) for r in rows if (r["organ"], r["unit"]) == (organ, unit)}
    kinds = {records[name].kind for name in shows if name in records}
    measured = {str(r["source"]) for r in rows}
    lost: list[Missing] = []
    for name, reason in failures.items():
        scan = name if name in records else name.rpartition(", ")[0]
        if scan in records and (not kinds or records[scan].kind in kinds):
            lost.append(_gap(study, records[scan], f"{name}: {reason}"))
    for name in sorted(measured & records.keys() - shows):
        if records[name].kind in kinds:
            lost.append(_gap(study, records[name], f"{name}: {_not_shown(rows, name, organ)}"))
    return lost


def _gap(study: Study, record: ScanRecord, reason: str) -> Missing:
    return Missing(group_of(study, record), record.label, record.time_h, reason)


def group_of(study: Study, record: ScanRecord) -> str:
    """Return the group of a scan's animal, of the first where there are several."""
    animal = study.subject(record.subjects[0], record.label)
    return animal.group if animal else "all"


def _not_shown(rows: Sequence[Mapping[str, Any]], scan: str, organ: str) -> str:
    units = sorted({UNITS.get(r["unit"], r["unit"]) for r in rows if (r["source"], r["organ"]) == (scan, organ)})
    return f"gives {organ} in {', '.join(units)} only" if units else f"its organs hold no {organ}"


def point_words(row: Mapping[str, Any]) -> str:
    """Return what is said of a row of `Curves.table` under the mouse: value, interval, number of values, what is odd about it."""
    unit = UNITS.get(row["unit"], row["unit"])
    place = f"{row['label']}, {number(row['time_h'])} h"
    if row["reason"]:
        return f"{place}: no value\n{row['reason']}"
    many = f"mean of {row['n']} values" if row["n"] > 1 else "one value, the interval is that of its own error"
    lines = [
        f"{place}: {interval(row['mean'], row['low'], row['high'])} {unit}",
        f"{100 * row['level']:g} % interval; {many}",
    ]
    lines += [row["sources"].replace(";", ", ")] if row["sources"] else []
    return "\n".join([*lines, *flag_words(row["flags"])])


def flag_words(cell: str) -> list[str]:
    """Return a sentence for each flag of a table's cell: what it means and what to do.

    Examples
    --------
    >>> flag_words("negative")
    ['negative: the estimate is below zero, as noise around nothing can be (none needed; do not set it to zero)']
    """
    return [f"{word}: {FLAGS[word].meaning} ({FLAGS[word].remedy})" for word in sorted(split(cell)) if word in FLAGS]


def scan_behind(sources: str, scans: Iterable[str], current: str | None = None) -> str | None:
    """Return the scan behind a point; of several the one after the current, None where the point came from a table.

    Examples
    --------
    >>> scan_behind("a;b;gamma.csv", ["a", "b", "c"]), scan_behind("a;b", ["a", "b"], "a"), scan_behind("gamma.csv", ["a"])
    ('a', 'b', None)
    """
    known = set(scans)
    here = [name for name in sources.split(";") if name in known]
    if not here:
        return None
    return here[(here.index(current) + 1) % len(here)] if current in here else here[0]


def frame_hours(scan: Scan, record: ScanRecord) -> tuple[float, ...]:
    """Return when each frame of a scan was taken, in hours after the dose; the table's time for a scan of one frame.

    Nothing where a series does not say its times, which then cannot be measured either.
    """
    frames = scan.extent("T")
    if frames == 1:
        return (record.time_h,)
    if scan.timing is None:
        return ()
    zero = 0.0 if scan.timing.reference == "injection" else record.time_h
    return tuple(max(zero + float(middle), 0.0) for middle in scan.timing.mid_h)


def on_organs(
    layer: FullLayerData, observed: Observed, record: ScanRecord, time_h: float, unit: str
) -> FullLayerData:  # fmt: skip
    """Return a scan's labels layer with what was measured at the time nearest to one frame, see `with_observations`.

    Parameters
    ----------
    unit : in which values are given where they are; else in one there is.
    """
    here = [r for r in observed.rows if r["source"] == record.scan]
    nearest = min((r["time_h"] for r in here), key=lambda t: abs(t - time_h), default=None)
    here = [r for r in here if r["time_h"] == nearest]
    chosen: dict[str, Mapping[str, Any]] = {}
    for row in sorted(here, key=lambda r: (r["unit"] != unit, r["unit"])):
        for name in _names_on_layer(row, record):
            chosen.setdefault(name, {**row, "organ": name})
    failure = observed.failures.get(record.scan, "" if here else "not measured yet")
    data, keywords, kind = with_observations(layer, list(chosen.values()), failure)
    keywords["metadata"][KEY]["observations"] = here
    return data, keywords, kind


def _names_on_layer(row: Mapping[str, Any], record: ScanRecord) -> tuple[str, ...]:
    """Return what a row's region may be called; whole animals lie there as animal_1 and so on."""
    if row["organ"] != WHOLE_BODY or row["subject"] not in record.subjects:
        return (row["organ"],)
    animal = f"animal_{record.subjects.index(row['subject']) + 1}"
    return (animal,) if len(record.subjects) > 1 else (animal, WHOLE_BODY)


def with_observations(layer: FullLayerData, rows: Sequence[Mapping[str, Any]], failure: str = "") -> FullLayerData:
    """Return a labels layer whose features table holds what was measured of each organ, row by row at its own label.

    Parameters
    ----------
    layer : of `organs_to_layer`, or drawn with the columns `index` and `organ`.
    rows : observations of this scan at one time; pixel values that share an organ (two kidneys) share its row.
    failure : why the scan could not be measured, where it could not.

    Raises
    ------
    ValueError : two values of one organ.
    """
    data, keywords, kind = layer
    features = keywords["features"]
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if found.setdefault(row["organ"], row) is not row:
            raise ValueError(
                f"{row['organ']} has several values here (several times or animals); give those of one time"
            )
    here = [found.get(str(name)) for name in features[ORGAN]]
    no_row = failure or "this scan gave no value of it"
    columns: dict[str, Any] = {INDEX: np.asarray(features[INDEX], int), ORGAN: np.asarray(features[ORGAN], object)}
    for name in ("value", "se"):
        columns[name] = np.array([np.nan if r is None or r[name] is None else float(r[name]) for r in here])
    for name in ("unit", "flags"):
        columns[name] = np.array(["" if r is None else str(r[name]) for r in here], object)
    reasons = [no_row if r is None else "" if r["value"] is not None else _reason(r) for r in here]
    columns["reason"] = np.array(reasons, object)
    metadata = dict(keywords.get("metadata") or {})
    metadata[KEY] = {**metadata.get(KEY, {}), "observations": [dict(r) for r in rows]}
    return data, {**keywords, "features": columns, "metadata": metadata}, kind


def residual_of(task: Any, frame: int) -> FullLayerData:
    """Read a scan, find its organs and return `residual_layer` without the scan itself; for another process.

    Raises
    ------
    ValueError : a scan whose anatomy is inferred from all scans of its animal together, or why it cannot be measured.
    """
    if not isinstance(task, ScanTask):
        raise ValueError("this scan's anatomy is inferred from all scans of its animal together, so it has no residual of its "
                         "own; the report shows what is left over")  # fmt: skip
    scan = load_scan(task.root, task.record)
    data, keywords, kind = residual_layer(task, scan, find_organs(task.root, task.record, scan, task.settings), frame)
    del keywords["metadata"][KEY]["scan"]
    return data, keywords, kind


def residual_layer(task: ScanTask, scan: Scan, organs: OrganMap, frame: int = 0) -> FullLayerData:
    """Return what the footprints do not explain of a frame, as an image layer around zero.

    Parameters
    ----------
    task : of the scan, as the batch measures it.
    scan, organs : what was measured.
    frame : its number.

    Raises
    ------
    ValueError : several bands, which have no one residual.
    """
    if scan.extent("C") > 1:
        raise ValueError(f"{scan.name} holds {scan.extent('C')} bands, each with a residual of its own; show one band")
    animals = all(name.startswith("animal_") for name in organs.organs)
    settings = task.settings.model_copy(update={"footprint": footprint_of(task, animals), "standard": None})
    if scan.extent("T") > 1 and settings.register_by != "none":
        organs = register_series(scan, settings.register_by).apply(organs, frame)
    left = quantify(scan_frame(scan, frame), organs, settings).fit.residual
    known = np.abs(left[np.isfinite(left)])
    top = max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-300)
    keywords = {**place(scan, left.shape[-2:], "Z" * (left.ndim - 2)), "name": f"{scan.name} residual",
                "colormap": "twilight_shifted",
                "contrast_limits": (-top, top), "blending": "translucent",
                "metadata": {KEY: {"scan": scan, "unit": scan.unit, "frame": frame}}}  # fmt: skip
    return left, keywords, "image"
