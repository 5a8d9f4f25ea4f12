"""One scan of a study: from its files to rows of the observations table and a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.imaging.organs import OrganMap, from_label_image
from evbiodist.imaging.quantify import OrganSignals, quantify
from evbiodist.imaging.segment import segment_body, segment_tray
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import Camera, Scan
from evbiodist.study.corrections import decay_factor
from evbiodist.study.flags import join
from evbiodist.study.load import inside
from evbiodist.study.model import ImagingSettings, Label, Observation, ScanRecord
from evbiodist.study.problems import UnreadableImage
from evbiodist.study.vocabulary import STANDARD, WHOLE_BODY

_PICTURE_PX = 360
_OUTLINES = ((255, 99, 71), (64, 196, 255), (255, 214, 0), (124, 252, 0), (238, 130, 238), (255, 165, 0),
             (0, 250, 154), (255, 105, 180), (173, 216, 230), (240, 230, 140))  # fmt: skip


@dataclass(frozen=True)
class ScanTask:
    """Everything one scan needs, small enough to send to another process."""

    root: Path
    study: str
    record: ScanRecord
    label: Label
    groups: tuple[str, ...]
    settings: ImagingSettings
    decay: bool


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Rows of the observations table, the picture (PNG) and what is odd about the scan, in sentences."""

    rows: tuple[Observation, ...]
    picture: bytes
    warnings: tuple[str, ...]
    legend: tuple[str, ...]


def load_scan(root: Path, record: ScanRecord) -> Scan:
    """Read a scan's image with what scans.csv says about it; the table wins over the file.

    Raises
    ------
    UnreadableImage : outside the study, missing or not readable.
    """
    scan = read_scan(_file(root, record.file))
    camera = Camera(*(given if given is not None else known for given, known in (
        (record.gain_e, scan.camera.gain_e), (record.read_noise_e, scan.camera.read_noise_e),
        (record.bias, scan.camera.bias), (record.saturation, scan.camera.saturation))))  # fmt: skip
    changes: dict[str, Any] = {"camera": camera, "name": record.scan}
    if record.bias is not None and scan.unit == "counts":
        changes["offset"] = record.bias
    if record.exposure_s is not None and scan.unit == "counts":
        changes["exposure_s"] = record.exposure_s
    if record.pixel_size_mm is not None:
        changes["pixel_size_mm"] = (record.pixel_size_mm, record.pixel_size_mm)
    if record.photograph:
        changes["photograph"] = _plane(read_scan(_file(root, record.photograph)))
    from dataclasses import replace

    return replace(scan, **changes)


def _file(root: Path, name: str) -> Path:
    path = inside(root, name)
    if path is None:
        raise UnreadableImage(name, "the path leads outside the study's folder; move the file into the study")
    return path


def _plane(scan: Scan) -> NDArray[Any]:
    if scan.counts.size != np.prod(scan.plane_shape):
        raise UnreadableImage(scan.name, f"it holds {scan.axes} {scan.counts.shape}; a single image is needed")
    return scan.counts.reshape(scan.plane_shape)


def find_organs(root: Path, record: ScanRecord, scan: Scan, settings: ImagingSettings) -> OrganMap:
    """Return a scan's organs: the user's label image first, else the tray's layout, else the animals.

    Raises
    ------
    ValueError : no way to know the organs, in words.
    """
    if record.organs:
        if not settings.organ_labels:
            raise ValueError("a label image is given, but its pixel values have no names; "
                             "name them under [imaging.organ_labels]")  # fmt: skip
        labels = _plane(read_scan(_file(root, record.organs)))
        return from_label_image(labels, settings.organ_labels, scan.plane_shape)
    if record.kind == "ex_vivo":
        return segment_tray(scan, settings.tray)
    if record.kind == "volume":
        raise ValueError("organs of a volume are not found automatically; give a label image in the column organs")
    return segment_body(scan, expected=len(record.subjects))


def process(task: ScanTask) -> ScanResult:
    """Quantify one scan of a study.

    Raises
    ------
    ValueError : (or UnreadableImage) with the reason in words.
    """
    scan = load_scan(task.root, task.record)
    organs = find_organs(task.root, task.record, scan, task.settings)
    animals = all(name.startswith("animal_") for name in organs.organs)
    if len(task.record.subjects) != (len(organs.organs) if animals else 1):
        raise ValueError(f"{len(task.record.subjects)} subjects are listed, but the {organs.origin} shows "
                         f"{len(organs.organs) if animals else 1}; for several animals name the regions animal_1, animal_2, ... "
                         "from left to right")  # fmt: skip
    if STANDARD in organs.organs and task.settings.standard is None:
        raise ValueError("a dose standard is marked, but what share of the dose it holds is not said; "
                         "give [imaging.standard] pct_of_dose")  # fmt: skip
    # animals side by side are measured whole, so blur between organs and a standard have no place there
    settings = task.settings.model_copy(update={"footprint": "roi", "standard": None}) if animals else task.settings
    signals = quantify(scan, organs, settings)
    rows = tuple(_row(task, signals, i, animals) for i in range(len(signals.organs)))
    return ScanResult(rows, _picture(scan, organs), scan.warnings, organs.organs)


def _row(task: ScanTask, signals: OrganSignals, i: int, animals: bool) -> Observation:
    record, organ = task.record, signals.organs[i]
    subject, group = record.subjects[0], task.groups[0]
    if animals:
        which = int(organ.rsplit("_", 1)[1]) - 1
        subject, group, organ = record.subjects[which], task.groups[which], WHOLE_BODY
    flags = set(signals.flags[i]) | ({"systematic"} if signals.se_systematic[i] > 0 else set())
    factor = 1.0
    if task.decay and signals.unit != "pct_id" and task.label.half_life_h is not None:
        factor = decay_factor(task.label, record.time_h)  # a standard in the image decays along
        flags.add("decay_corrected")
    return Observation(
        study=task.study,
        subject=subject,
        group=group,
        label=record.label,
        organ=organ,
        time_h=record.time_h,
        value=float(signals.value[i]) * factor,
        se=float(signals.se[i]) * factor,
        se_systematic=float(signals.se_systematic[i]) * factor,
        unit=signals.unit,  # type: ignore[arg-type]
        flags=join(flags),
        source=record.scan,
    )


def _picture(scan: Scan, organs: OrganMap) -> bytes:
    """Return photograph and signal side by side with organ outlines, as PNG."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    signal = scan.signal().reshape(scan.plane_shape)
    panels = [_grey(np.sqrt(np.maximum(signal - np.median(signal), 0.0)))]
    if scan.photograph is not None:
        panels.insert(0, _grey(scan.photograph.astype(float)))
    zoom = _PICTURE_PX / max(scan.plane_shape)
    size = (round(scan.plane_shape[1] * zoom), round(scan.plane_shape[0] * zoom))
    labels = organs.resized((size[1], size[0])).labels
    edges = find_boundaries(labels, mode="inner")
    names = list(organs.organs)
    done = []
    for panel in panels:
        image = np.asarray(Image.fromarray(panel).resize(size, Image.Resampling.BILINEAR).convert("RGB")).copy()
        for value, name in organs.names.items():
            image[edges & (labels == value)] = _OUTLINES[names.index(name) % len(_OUTLINES)]
        done.append(image)
    gap = np.full((size[1], 6, 3), 255, np.uint8)
    joined = done[0] if len(done) == 1 else np.hstack([done[0], gap, done[1]])
    out = io.BytesIO()
    Image.fromarray(joined).save(out, "PNG", compress_level=4)
    return out.getvalue()


def outline_colour(index: int) -> str:
    """Return the CSS colour of the organ with this place in a scan's legend."""
    return "rgb({}, {}, {})".format(*_OUTLINES[index % len(_OUTLINES)])


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [1, 99.7])
    scaled = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(np.rint(255 * scaled), np.uint8)
