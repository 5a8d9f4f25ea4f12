"""One scan of a study: from its files to rows of the observations table and a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.imaging.optics import CLEAR, LOG_SE_ABSORPTION, escape_fraction, has_optics, optics
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


#: Density of organs on a tray in g/mL, and mean thickness over diameter of one that lies flat (half an ellipsoid's).
_TISSUE_DENSITY, _FLAT = 1.05, 1 / 3
#: Share of a thin clear sample's light below which an organ counts as attenuated.
_CLEAR_SHARE = 0.75


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
    masses_g: Mapping[str, float] = field(default_factory=dict)


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
        return label_image(root, record, scan, settings)
    if record.kind == "ex_vivo":
        return segment_tray(scan, settings.tray)
    if record.kind == "volume":
        raise ValueError("organs of a volume are not found automatically; give a label image in the column organs")
    return segment_body(scan, expected=len(record.subjects))


def label_image(root: Path, record: ScanRecord, scan: Scan, settings: ImagingSettings) -> OrganMap:
    """Return the organs that a person drew.

    Raises
    ------
    ValueError : pixel values without names, or a label image that does not fit the scan.
    """
    if not settings.organ_labels:
        raise ValueError("a label image is given, but its pixel values have no names; "
                         "name them under [imaging.organ_labels]")  # fmt: skip
    labels = read_scan(_file(root, record.organs or ""))
    shape = labels.frame_shape
    if labels.counts.size != np.prod(shape):
        raise UnreadableImage(
            labels.name, f"it holds {labels.axes} {labels.counts.shape}; a single label image is needed"
        )
    return from_label_image(np.asarray(labels.counts[...]).reshape(shape), settings.organ_labels, scan.frame_shape)


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
    return ScanResult(rows, picture(scan, organs, signals.fit.residual), scan.warnings, organs.organs)


def _row(task: ScanTask, signals: OrganSignals, i: int, animals: bool) -> Observation:
    """Return an organ's observation, or an animal's where whole animals lie side by side."""
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
    hidden = _hidden_light(task, signals, i)
    flags |= set(hidden.flags)
    factor *= hidden.factor
    value = float(signals.value[i]) * factor
    return Observation(
        study=task.study,
        subject=subject,
        group=group,
        label=record.label,
        organ=organ,
        time_h=record.time_h,
        value=value,
        se=float(signals.se[i]) * factor,
        se_systematic=float(np.hypot(signals.se_systematic[i] * factor, abs(value) * hidden.rel)),
        unit=signals.unit,  # type: ignore[arg-type]
        flags=join(flags),
        source=record.scan,
    )


@dataclass(frozen=True)
class _Hidden:
    """What to multiply an excised organ's light by, how sure that is (relative), and the flags that say so."""

    factor: float = 1.0
    rel: float = 0.0
    flags: tuple[str, ...] = ()


def _hidden_light(task: ScanTask, signals: OrganSignals, i: int) -> _Hidden:
    """Return what an excised organ's own tissue does to its light, by its thickness and the label's wavelength.

    Thickness is volume over area where the organ was weighed; else that of a flat ellipsoid of its outline, which
    serves for a flag only.
    """
    organ, nm = signals.organs[i], task.label.emission_nm
    optical = task.label.kind in ("fluorescence", "bioluminescence") and nm is not None
    if task.record.kind != "ex_vivo" or task.settings.thickness == "ignore" or not optical or not has_optics(organ):
        return _Hidden()
    if signals.area_cm2 is None:
        return _Hidden()
    area, mass = float(signals.area_cm2[i]) * 100, task.masses_g.get(organ)
    thick = 1000 * mass / _TISSUE_DENSITY / area if mass else _FLAT * float(np.sqrt(4 * area / np.pi))
    lit = task.label.excitation_nm if task.label.kind == "fluorescence" else None
    seen, more, less = (escape_fraction(organ, thick, nm or 0.0, lit, log_mu_a=shift)
                        for shift in (0.0, LOG_SE_ABSORPTION, -LOG_SE_ABSORPTION))  # fmt: skip
    flags = () if optics(organ, nm or 0.0).diffuse else ("beyond_diffusion",)
    if task.settings.thickness == "correct" and mass:
        return _Hidden(1 / seen, abs(less - more) / 2 / seen, (*flags, "thickness_corrected"))
    return _Hidden(1.0, 0.0, (*flags, "attenuated") if seen < _CLEAR_SHARE * CLEAR else ())


def picture(scan: Scan, organs: OrganMap, residual: NDArray[Any] | None = None) -> bytes:
    """Return photograph, signal and residual side by side with organ outlines, as PNG.

    The residual shows what the footprints do not explain: white where they do, red for more light, blue for less.
    """
    from PIL import Image
    from skimage.segmentation import find_boundaries

    signal = scan.signal().reshape(scan.plane_shape)
    panels = [_grey(np.sqrt(np.maximum(signal - np.median(signal), 0.0)))]
    if scan.photograph is not None:
        panels.insert(0, _grey(scan.photograph.astype(float)))
    if residual is not None:
        panels.append(_diverging(residual))
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
    joined = np.hstack([part for panel in done for part in (gap, panel)][1:])
    out = io.BytesIO()
    Image.fromarray(joined).save(out, "PNG", compress_level=4)
    return out.getvalue()


def outline_colour(index: int) -> str:
    """Return the CSS colour of the organ with this place in a scan's legend."""
    return "rgb({}, {}, {})".format(*_OUTLINES[index % len(_OUTLINES)])


def _diverging(residual: NDArray[Any]) -> NDArray[np.uint8]:
    """Return red for positive, blue for negative and white for no residual; full colour at the 99 % level."""
    known = np.abs(residual[np.isfinite(residual)])
    level = max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-300)
    t = np.clip(np.nan_to_num(residual) / level, -1, 1)[..., None]
    white, red, blue = (np.array(c, float) for c in ((255, 255, 255), (178, 24, 43), (33, 102, 172)))
    return np.asarray(np.rint(np.where(t > 0, white + t * (red - white), white - t * (blue - white))), np.uint8)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [1, 99.7])
    scaled = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(np.rint(255 * scaled), np.uint8)
