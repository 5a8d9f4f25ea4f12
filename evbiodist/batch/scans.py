"""One scan of a study: from its files to rows of the observations table and a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.batch.inputs import pixel_hash
from evbiodist.imaging.optics import CLEAR, LOG_SE_ABSORPTION, escape_fraction, has_optics, optics
from evbiodist.imaging.organs import OrganMap, from_label_image
from evbiodist.imaging.quantify import OrganSignals, frame_of, quantify, to_pct_id
from evbiodist.imaging.register import register_series
from evbiodist.imaging.repeatability import roi_repeatability
from evbiodist.imaging.segment import segment_body, segment_tray
from evbiodist.imaging.series import quantify_series
from evbiodist.imaging.spectra import read_spectra, split_bands
from evbiodist.imaging.standards import fit_standards, read_standards
from evbiodist.imaging.tray import SURE
from evbiodist.imaging.unmix import unmix
from evbiodist.imaging.volume import is_large
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import Camera, FloatArray, Scan
from evbiodist.study.flags import join, split
from evbiodist.study.load import inside
from evbiodist.study.model import VALUE_UNITS, ImagingSettings, Label, Observation, OutlineSettings, ScanRecord
from evbiodist.study.problems import UnreadableImage
from evbiodist.study.vocabulary import STANDARD, WHOLE_BODY

NOT_REGISTERED = "frames of volumes and of stacks that stay on disk cannot be registered yet; set register_by = 'none'"
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
    """Rows of the observations table, the picture (PNG) and what is odd about the scan, in sentences.

    `failures` names each animal of the scan that gave no rows, with the reason; `pixels` is the image's hash.
    """

    rows: tuple[Observation, ...]
    picture: bytes
    warnings: tuple[str, ...]
    legend: tuple[str, ...]
    failures: tuple[tuple[str, str], ...] = ()
    pixels: str = ""


class LargeVolume(Exception):  # noqa: N818  a turn to take, not an error
    """The scan is a volume to be measured in pieces, see `evbiodist.batch.volumes`."""


def load_scan(root: Path, record: ScanRecord) -> Scan:
    """Read a scan's image with what scans.csv says about it; the table wins over the file.

    Raises
    ------
    UnreadableImage : outside the study, missing or not readable.
    """
    scan = read_scan(file_of(root, record.file))
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
        changes["photograph"] = _plane(read_scan(file_of(root, record.photograph)))
    return replace(scan, **changes)


def file_of(root: Path, name: str) -> Path:
    """Return where a file of the study lies.

    Raises
    ------
    UnreadableImage : outside the study.
    """
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
        return segment_tray(scan, settings.tray or None, settings.tray_organs or None)
    if record.kind == "volume" or "Z" in scan.axes:
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
    labels = read_scan(file_of(root, record.organs or ""))
    array = np.asarray(labels.counts[...])
    # pages of a plain TIFF are planes of a volume here, whatever the reader calls their axis
    shape = (*(n for n in array.shape[:-2] if n > 1), *array.shape[-2:])
    if len(shape) > len(scan.frame_shape):
        raise UnreadableImage(labels.name, f"it holds {labels.axes} {array.shape}; a single label image is needed")
    if len(shape) < array.ndim and len(shape) < len(scan.frame_shape) == len(labels.frame_shape):
        shape = labels.frame_shape  # a volume of one slice
    return from_label_image(array.reshape(shape), settings.organ_labels, scan.frame_shape)


def process(task: ScanTask) -> ScanResult:
    """Quantify one scan of a study.

    Raises
    ------
    ValueError : (or UnreadableImage) with the reason in words.
    LargeVolume : it is to be measured in pieces.
    """
    scan = load_scan(task.root, task.record)
    if is_large(scan):
        raise LargeVolume
    organs = find_organs(task.root, task.record, scan, task.settings)
    animals = all(name.startswith("animal_") for name in organs.organs)
    check_subjects(task, organs.organs, organs.origin)
    # animals side by side are measured whole, so blur between organs and a standard have no place there
    settings = task.settings.model_copy(update={"footprint": footprint_of(task, animals),
                                                **({"standard": None} if animals else {})})  # fmt: skip
    warnings, residual = list(scan.warnings), None
    if scan.extent("C") == 1 and scan.extent("T") > 1:
        frames, residual, said = _series(scan, organs, settings)
        warnings += said
    else:
        frames = [_single(task, scan, organs, settings)]
        if scan.extent("C") > 1 and not _wavelengths(scan):
            warnings.append(f"it does not say the wavelengths of its {scan.extent('C')} bands; they were taken to be those of "
                            f"{settings.spectra}, in rising order; name them under bands in a sidecar")  # fmt: skip
        residual = frames[0].fit.residual if scan.extent("C") == 1 else None
    rows = by_curve(task, [_named(row, organs) for row in rows_of(task, scan, frames, animals)])
    warnings += organs.notes
    shown = picture(flat(scan), flat_map(organs), _flat(residual))
    return ScanResult(tuple(rows), shown, tuple(warnings), organs.organs, pixels=pixel_hash(scan))


def check_subjects(task: ScanTask, organs: Sequence[str], origin: str) -> None:
    """Refuse regions that are not those of the listed animals, and a dose standard of unknown content.

    Raises
    ------
    ValueError : in words.
    """
    shown = len(organs) if all(name.startswith("animal_") for name in organs) else 1
    if len(task.record.subjects) != shown:
        raise ValueError(f"{len(task.record.subjects)} subjects are listed, but the {origin} shows "
                         f"{shown}; for several animals name the regions animal_1, animal_2, ... "
                         "from left to right")  # fmt: skip
    if STANDARD in organs and task.settings.standard is None:
        raise ValueError("a dose standard is marked, but what share of the dose it holds is not said; "
                         "give [imaging.standard] pct_of_dose")  # fmt: skip


def rows_of(task: ScanTask, scan: Scan, frames: Sequence[OrganSignals], animals: bool) -> list[Observation]:
    """Return the observations of every organ in every frame.

    Parameters
    ----------
    frames : signals of the organs, one a time.
    animals : whether the organs are whole animals, numbered from left to right.
    """
    return [_row(task, signals, i, animals, when)
            for signals, when in zip(frames, _times(scan, task), strict=True) for i in range(len(signals.organs))]  # fmt: skip


def _single(task: ScanTask, scan: Scan, organs: OrganMap, settings: ImagingSettings) -> OrganSignals:
    """Return the organs' signals of one frame, its bands unmixed."""

    def measure(drawn: OrganMap) -> OrganSignals:
        return unmixed(task, scan, drawn, settings) if scan.extent("C") > 1 else quantify(scan, drawn, settings)

    signals = measure(organs)
    if settings.outline is None or organs.fractions is not None:
        return signals
    return with_outline(signals, measure, scan, organs, settings.outline)


def _series(
    scan: Scan, organs: OrganMap, settings: ImagingSettings
) -> tuple[list[OrganSignals], NDArray[Any] | None, list[str]]:  # fmt: skip
    """Return the organs' signals of every frame, the last frame's residual, and what was odd about their motion."""
    if settings.outline is not None:
        raise ValueError("imaging.outline is for single images; leave it out, or give one frame a row of scans.csv")
    if settings.register_by == "none":
        series = quantify_series(scan, organs, settings)
        return [series.frame(t) for t in range(len(series))], series.residual(scan, len(series) - 1), []
    if scan.lazy or "Z" in scan.axes:
        raise ValueError(NOT_REGISTERED)
    moved = register_series(scan, settings.register_by)
    found = []
    for t in range(scan.extent("T")):
        signals = quantify(frame_of(scan, t), moved.apply(organs, t), settings)
        words = moved.flags(t)
        found.append(replace(signals, flags=tuple(tuple(sorted({*f, *words})) for f in signals.flags)))
    return found, found[-1].fit.residual, list(moved.notes)


def with_outline(
    signals: OrganSignals, measure: Callable[[OrganMap], OrganSignals], scan: Scan, organs: OrganMap, outline: OutlineSettings
) -> OrganSignals:  # fmt: skip
    """Add what redrawn outlines would change to the shared errors.

    Parameters
    ----------
    signals : of the outlines as they are; measure : gives those of others.
    scan, organs : what was measured.
    outline : how far outlines may be off.

    Raises
    ------
    ValueError : a spread in mm without a pixel size.
    """
    if scan.spacing_mm is None:
        raise ValueError("imaging.outline is in mm, but the pixel size is not known; give pixel_size_mm in scans.csv")
    organs = organs.resized(scan.frame_shape)

    def values(drawn: OrganMap) -> FloatArray:
        found = measure(drawn)
        # a dose standard has an outline too, but it has become the unit of the others
        of = dict(zip(found.organs, found.value, strict=True))
        return np.array([of.get(name, 1.0) for name in organs.organs])

    spread = roi_repeatability(values, organs, shift_sd=outline.shift_sd_mm, grow_sd=outline.grow_sd_mm,
                               draws=outline.draws, spacing_mm=scan.spacing_mm)  # fmt: skip
    se = spread.se[[spread.organs.index(name) for name in signals.organs]]
    flags = tuple(tuple(sorted({*f, "outline_spread"})) for f in signals.flags)
    return replace(signals, se_systematic=np.hypot(signals.se_systematic, se), flags=flags)


def _named(row: Observation, organs: OrganMap) -> Observation:
    """Flag an organ whose name a segmentation was not sure of."""
    if organs.confidence.get(row.organ, 1.0) >= SURE:
        return row
    return row.model_copy(update={"flags": join({*split(row.flags), "uncertain_name"})})


def by_curve(task: ScanTask, rows: list[Observation]) -> list[Observation]:
    """Read amounts from the study's standard curve; values below its quantification limit are flagged.

    Raises
    ------
    ValueError : a curve in a unit that is none of a value's, or a value that it cannot turn into an amount.
    """
    given = task.settings.curve
    if given is None:
        return rows
    standards = read_standards(file_of(task.root, given.file))
    if standards.unit not in VALUE_UNITS:
        raise ValueError(f"{given.file} gives amounts in '{standards.unit}'; expected one of {', '.join(VALUE_UNITS)}")
    curve = fit_standards(standards, weights=given.weights, scale=given.scale, intercept=given.intercept,
                          sigma_from=given.sigma_from)  # fmt: skip
    done = []
    for row in rows:
        found = curve.inverse(row.value or 0.0, row.se)
        told = {"unit": standards.unit, "lloq": found.lloq, "below_lloq": found.below_lloq,
                "flags": join({*split(row.flags), *found.flags})}  # fmt: skip
        if found.below_lloq and not np.isfinite(found.value):  # on the log scale nothing stands for no light
            done.append(row.model_copy(update={**told, "value": None, "se": None, "se_systematic": None}))
            continue
        if not np.isfinite(found.value):
            raise ValueError(f"{row.organ} reads {row.value:.3g} {row.unit}, which the standard curve cannot turn into an amount: "
                             f"{found.reason}")  # fmt: skip
        # a line may miss the origin, so what a step of signal is worth comes from the curve and not from its value
        steep = curve.slope if given.scale == "linear" else curve.slope * (row.value or 0.0) / found.value
        shared = float(np.hypot(found.se_systematic, (row.se_systematic or 0.0) / steep))
        done.append(row.model_copy(update={**told, "value": found.value, "se": found.se, "se_systematic": shared}))
    return done


def footprint_of(task: ScanTask, animals: bool) -> str:
    """Return the footprint that serves this scan: light through tissue is for living animals only."""
    if animals or task.settings.footprint == "roi":
        return "roi"
    return "psf" if task.settings.psf_fwhm_mm or task.settings.psf_fwhm_px else "roi"


@dataclass(frozen=True)
class When:
    """Time of a frame after injection in h, and what brings its activity back to the injection."""

    time_h: float
    decay: float
    corrected: bool


def _times(scan: Scan, task: ScanTask) -> list[When]:
    """Return when each frame was taken and how its activity has decayed.

    Raises
    ------
    ValueError : several frames without times, or a file that does not say whether it is corrected for decay.
    """
    record, timing = task.record, scan.timing
    frames = scan.extent("T")
    if timing is None and frames > 1:
        raise ValueError(f"it holds {frames} frames but no times; give frame_start_s and frame_duration_s in a sidecar "
                         f"{Path(record.file).stem}.json")  # fmt: skip
    zero = record.time_h
    if timing is None:
        starts, lasts, middles = [record.time_h], [0.0], [record.time_h]
    else:
        # a file that counts from the injection knows better than the table when its frames were
        if timing.reference == "injection":
            zero = 0.0
        elif frames == 1:
            zero = record.time_h - float(timing.mid_h[0])
        starts = [zero + s / 3600 for s in timing.start_s]
        lasts = [d / 3600 for d in timing.duration_s]
        middles = [zero + float(m) for m in timing.mid_h]
        if frames == 1 and timing.reference == "injection" and abs(middles[0] - record.time_h) > max(lasts[0], 0.02):
            raise ValueError(
                f"scans.csv says {record.time_h:g} h, the file {middles[0]:.3g} h after injection; correct one"
            )
    half = task.label.half_life_h
    if not task.decay or half is None:
        return [When(max(m, 0.0), 1.0, False) for m in middles]
    to = scan.tracer.decay_corrected_to if scan.tracer else "none"
    if to == "unknown":
        raise ValueError("the file does not say whether its activity is corrected for decay; give decay_corrected_to "
                         "(injection, scan_start or none) in a sidecar")  # fmt: skip
    rate = np.log(2) / half
    # the scan began where its clock is 0, or with its first frame where the clock counts from the injection
    began = zero if timing is not None and timing.reference == "scan_start" else starts[0]
    found = []
    for start, last, middle in zip(starts, lasts, middles, strict=True):
        during = rate * last / -np.expm1(-rate * last) if last > 0 else 1.0
        factor = {"injection": 1.0, "scan_start": float(np.exp(rate * began)),
                  "none": float(np.exp(rate * start) * during)}[to]  # fmt: skip
        found.append(When(max(middle, 0.0), factor, True))
    return found


def unmixed(task: ScanTask, scan: Scan, organs: OrganMap, settings: ImagingSettings) -> OrganSignals:
    """Return the label's own signal of every organ in a scan of several bands.

    Raises
    ------
    ValueError : no spectra in the settings, none named as the label, or several times at once.
    """
    if settings.spectra is None:
        raise ValueError(f"it holds {scan.extent('C')} bands; name a table of spectra under [imaging] spectra, with a column "
                         f"'{task.record.label}', or give one band a row")  # fmt: skip
    if scan.extent("T") > 1:
        raise ValueError("it holds several bands and times at once; give one time a row of scans.csv")
    spectra = read_spectra(file_of(task.root, settings.spectra))
    if task.record.label not in spectra.names:
        raise ValueError(f"{settings.spectra} has no spectrum of '{task.record.label}', only {', '.join(spectra.names)}; "
                         "name the column as the label")  # fmt: skip
    bands = split_bands(scan)
    if known := _wavelengths(scan):
        spectra = spectra.at(known)
    plain = settings.model_copy(update={"standard": None})
    each = [quantify(band, organs, plain) for band in bands]
    found = unmix(np.stack([s.value for s in each]), spectra, np.stack([s.covariance for s in each]),
                  nonnegative=settings.nonnegative)  # fmt: skip
    k = found.names.index(task.record.label)
    shared = np.hypot(found.se_systematic[k], np.abs(found.signal[k]) * scan.systematic_rel)
    first = each[0]
    flags = tuple(
        tuple(sorted({*found.flags[k][i], *(w for s in each for w in s.flags[i])})) for i in range(len(first.organs))
    )
    signals = replace(
        first, value=found.signal[k], covariance=found.covariance[k, :, k, :], se_systematic=shared, flags=flags
    )
    return to_pct_id(signals, settings.standard) if settings.standard else signals


def _wavelengths(scan: Scan) -> list[float]:
    """Return the emission of every band in nm; nothing where the scan does not say it of all of them."""
    known = [band.emission_nm for band in scan.bands if band.emission_nm is not None]
    return known if len(known) == scan.extent("C") else []


def flat(scan: Scan) -> Scan:
    """Return one plane to look at: the last frame, the brightest slice value of every column of a volume."""
    if scan.counts.ndim == 2:
        return scan
    last = np.asarray(scan.counts[tuple(n - 1 for n in scan.counts.shape[: -len(scan.frame_shape)])], dtype=np.float64)
    plane = last.max(axis=0) if last.ndim == 3 else last
    photograph = scan.photograph if last.ndim == 2 else None
    return Scan(scan.name, scan.path, plane, "YX", scan.pixel_size_mm, photograph=photograph)


def flat_map(organs: OrganMap) -> OrganMap:
    """Return an organ map's outline as seen from above, for pictures."""
    return organs if organs.labels.ndim == 2 else OrganMap(organs.labels.max(axis=0), organs.names, organs.origin)


def _flat(residual: NDArray[Any] | None) -> NDArray[Any] | None:
    if residual is None or residual.ndim == 2:
        return residual
    place = np.abs(np.nan_to_num(residual)).argmax(axis=0)
    return np.asarray(np.take_along_axis(residual, place[None], axis=0)[0])


def _row(task: ScanTask, signals: OrganSignals, i: int, animals: bool, when: When) -> Observation:
    """Return an organ's observation, or an animal's where whole animals lie side by side."""
    record, organ = task.record, signals.organs[i]
    subject, group = record.subjects[0], task.groups[0]
    if animals:
        which = int(organ.rsplit("_", 1)[1]) - 1
        subject, group, organ = record.subjects[which], task.groups[which], WHOLE_BODY
    flags = set(signals.flags[i]) | ({"systematic"} if signals.se_systematic[i] > 0 else set())
    factor = 1.0
    if when.corrected and signals.unit != "pct_id":
        factor = when.decay  # a standard in the image decays along
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
        time_h=when.time_h,
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
    try:
        seen, more, less = (escape_fraction(organ, thick, nm or 0.0, lit, log_mu_a=shift)
                            for shift in (0.0, LOG_SE_ABSORPTION, -LOG_SE_ABSORPTION))  # fmt: skip
        flags = () if optics(organ, nm or 0.0).diffuse else ("beyond_diffusion",)
    except ValueError as err:
        if task.settings.thickness == "flag":  # nothing is known to flag by, and the value stands as it is
            return _Hidden()
        raise ValueError(f"{organ} cannot be corrected for its thickness: {str(err).split(';')[0]}; "
                         "set imaging.thickness = 'flag'") from err  # fmt: skip
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
            if name not in names:  # hidden behind another organ of the volume
                continue
            image[edges & (labels == value)] = _OUTLINES[names.index(name) % len(_OUTLINES)]
        done.append(image)
    gap = np.full((size[1], 6, 3), 255, np.uint8)
    joined = np.hstack([part for panel in done for part in (gap, panel)][1:])
    out = io.BytesIO()
    Image.fromarray(joined).save(out, "PNG", compress_level=1)
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
