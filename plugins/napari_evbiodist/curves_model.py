"""What the curves panel shows, as plain tables: an organ's time curve for every label, and what footprints leave over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evbiodist.batch.pipeline import frame_of
from evbiodist.batch.scans import ScanTask, footprint_of
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import frame_of as scan_frame
from evbiodist.imaging.quantify import quantify
from evbiodist.io.scan import Scan
from evbiodist.report.figures import means
from napari_evbiodist.converters import INDEX, KEY, ORGAN, place

if TYPE_CHECKING:
    import pandas as pd
    from napari.types import FullLayerData

#: Columns that `with_observations` puts on a labels layer.
MEASURED = ("value", "se", "unit", "flags", "reason")


@dataclass(frozen=True, eq=False)
class Curves:
    """Time curves of one organ.

    Parameters
    ----------
    organ, unit : what is shown, in which unit of observations.csv.
    points : one row a group, label and time: mean, low, high (t interval), n; as in the report's figures.
    missing : (label, time_h, reason) of values that are not there.
    """

    organ: str
    unit: str
    points: pd.DataFrame
    missing: tuple[tuple[str, float, str], ...]


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
    missing = tuple((str(r["label"]), float(r["time_h"]), _reason(r)) for r in here if r["value"] is None)
    return Curves(organ, unit, means(frame_of(here), level), missing)


def _reason(row: Mapping[str, Any]) -> str:
    if row.get("below_lloq"):
        limit = row.get("lloq")
        return f"{row['source'] or row['subject']}: below the limit of quantification" + (
            f" ({limit:g})" if limit else ""
        )
    return f"{row['source'] or row['subject']}: no value"


def nearest_scan(rows: Sequence[Mapping[str, Any]], organ: str, label: str, time_h: float) -> str | None:
    """Return the scan behind the point of a curve nearest in time (on the logarithm), None where it came from a table."""
    here = [r for r in rows if r["organ"] == organ and r["label"] == label]
    if not here:
        return None
    row = min(here, key=lambda r: abs(np.log1p(r["time_h"]) - np.log1p(time_h)))
    return str(row["source"]) or None


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
    left = quantify(scan_frame(scan, frame), organs, settings).fit.residual
    known = np.abs(left[np.isfinite(left)])
    top = max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-300)
    keywords = {**place(scan, left.shape[-2:], "Z" * (left.ndim - 2)), "name": f"{scan.name} residual",
                "colormap": "twilight_shifted",
                "contrast_limits": (-top, top), "blending": "translucent",
                "metadata": {KEY: {"scan": scan, "unit": scan.unit, "frame": frame}}}  # fmt: skip
    return left, keywords, "image"
