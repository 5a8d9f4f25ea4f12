"""Animals imaged again and again: their anatomy is inferred once, from all their images together.

One task holds every in-vivo scan of the same animals with the same label, because views and times inform each
other. A scan that cannot be read fails alone; the others of its animal go on without it. An animal that cannot be
inferred fails alone too; those beside it in the image go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from evbiodist.batch.inputs import pixel_hash
from evbiodist.batch.scans import ScanResult, ScanTask, label_image, load_scan, picture, process
from evbiodist.imaging.anatomy import REST, Anatomy, BodyGrid
from evbiodist.imaging.atlas import body_of, collinear_pairs, place_on
from evbiodist.imaging.clean import find_bad_pixels
from evbiodist.imaging.diffusion import View
from evbiodist.imaging.joint import Frame, JointFit, infer, sampling
from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pose import BodyPose, find_pose
from evbiodist.imaging.quantify import blur_px, quantify, to_unit
from evbiodist.imaging.segment import segment_body
from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.corrections import decay_factor
from evbiodist.study.flags import join
from evbiodist.study.model import ImagingSettings, Label, Observation, ScanRecord
from evbiodist.study.problems import UnreadableImage

#: Light is inferred on pixels of about this edge; finer ones are binned, which loses nothing that tissue lets through.
_PIXEL_MM = 1.0
#: Certainty of the head below which both ends are tried.
_HEAD_SURE = 0.9
#: Weighted residual variance, in units of the stated model error, from which the atlas does not explain an image.
_MISFIT = 1.5


@dataclass(frozen=True)
class AnimalsTask:
    """All in-vivo scans of the same animals with one label, small enough to send to another process."""

    root: Path
    study: str
    records: tuple[ScanRecord, ...]
    label: Label
    groups: tuple[str, ...]
    weights_g: tuple[float | None, ...]
    settings: ImagingSettings
    decay: bool


@dataclass(frozen=True, eq=False)
class _Stage:
    """One scan on its way: the image in `unit` per pixel with its variance, its bodies, and what calibration is unsure of."""

    record: ScanRecord
    scan: Scan
    bodies: OrganMap
    image: FloatArray
    variance: FloatArray
    valid: Any
    unit: str
    random_rel: float
    systematic_rel: float
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Share:
    """What one animal gives to one scan: rows, sentences, and for the picture its organs and residual, (Y, X)."""

    rows: list[Observation]
    warnings: list[str]
    organs: OrganMap
    residual: FloatArray


def process_any(task: ScanTask | AnimalsTask) -> tuple[ScanResult | ValueError, ...]:
    """Quantify what belongs together: one scan, or all in-vivo scans of the same animals."""
    return (process(task),) if isinstance(task, ScanTask) else process_animals(task)


def process_animals(task: AnimalsTask) -> tuple[ScanResult | ValueError, ...]:
    """Quantify all in-vivo scans of the same animals; one result, or the reason why there is none, a scan.

    Values of one time from several views stand with the first scan of that time.
    """
    outcomes: dict[str, ScanResult | ValueError] = {}
    stages: list[_Stage] = []
    for record in task.records:
        try:
            stages.append(_stage(task, record))
        except ValueError as err:
            outcomes[record.scan] = err
        except OSError as err:
            outcomes[record.scan] = UnreadableImage(record.file, str(err))
    if len(units := sorted({s.unit for s in stages})) > 1:
        mixed = ValueError(f"scans of {', '.join(task.records[0].subjects)} are in {' and in '.join(units)}, which do not add up; "
                           "image all of them in the same mode")  # fmt: skip
        return tuple(outcomes.get(record.scan, mixed) for record in task.records)
    shares: dict[str, list[_Share]] = {s.record.scan: [] for s in stages}
    failures: list[tuple[str, str]] = []
    for number, animal in enumerate(task.records[0].subjects if stages else (), 1):
        try:
            found = _one_animal(task, stages, number, animal)
        except ValueError as err:
            failures.append((animal, str(err)))
            continue
        for stage, share in zip(stages, found, strict=True):
            shares[stage.record.scan].append(share)
    for stage in stages:
        outcomes[stage.record.scan] = _outcome(stage, shares[stage.record.scan], failures)
    return tuple(outcomes[record.scan] for record in task.records)


def _outcome(
    stage: _Stage, shares: Sequence[_Share], failures: Sequence[tuple[str, str]]
) -> ScanResult | ValueError:  # fmt: skip
    """Put together what the animals of a scan gave; a scan of which no animal could be quantified fails."""
    if not shares:
        return ValueError("; ".join(f"{animal}: {reason}" for animal, reason in failures))
    organs, residual = shares[0].organs, shares[0].residual
    for share in shares[1:]:
        labels = np.where(share.organs.labels > 0, share.organs.labels, organs.labels)
        organs = replace(share.organs, labels=labels)
        residual = np.where(np.isfinite(share.residual), share.residual, residual)
    return ScanResult(tuple(r for share in shares for r in share.rows), picture(stage.scan, organs, residual),
                      (*stage.scan.warnings, *(w for share in shares for w in share.warnings)), organs.organs,
                      tuple(failures), pixel_hash(stage.scan))  # fmt: skip


def atlas_only(task: AnimalsTask) -> list[Observation]:
    """Return what the same light model gives with the organs where the atlas has them: what inference is measured against."""
    stages = [_stage(task, record) for record in task.records]
    rows: list[Observation] = []
    for number, animal in enumerate(task.records[0].subjects, 1):
        frames, _, body, times = _frames(task, stages, number)
        fit = infer(frames, body, fit_anatomy=False)
        for t, time in enumerate(times):
            rows += _rows(task, next(s for s in stages if s.record.time_h == time), fit, t, number, animal)
    return rows


def _stage(task: AnimalsTask, record: ScanRecord) -> _Stage:
    scan = load_scan(task.root, record)
    if scan.counts.size != np.prod(scan.plane_shape):
        raise ValueError(f"{scan.name} holds {scan.counts.shape} ({scan.axes}); give one frame a row of scans.csv")
    if record.view not in ("dorsal", "ventral", "unknown"):
        raise ValueError(f"the view is '{record.view}', but anatomy is inferred from back and belly only; give dorsal, ventral or "
                         "nothing in the column view, or use the footprint 'psf' or 'roi'")  # fmt: skip
    if scan.pixel_size_mm is None:
        raise ValueError(
            "the pixel size is not known, without which the atlas has no size; give pixel_size_mm in scans.csv"
        )
    if task.label.emission_nm is None:
        raise ValueError(f"the label '{record.label}' has no emission_nm, without which tissue's attenuation is not known; "
                         "give it in study.toml")  # fmt: skip
    drawn = label_image(task.root, record, scan, task.settings) if record.organs else None
    regions = drawn.organs if drawn else ()
    bodies = drawn if drawn and "animal_1" in regions else segment_body(scan, expected=len(record.subjects))
    bodies = bodies.resized(scan.plane_shape)
    factor, unit = to_unit(scan)
    per_unit, random_rel, systematic_rel, unit = _standard(task.settings, scan, drawn, unit)
    factor *= per_unit
    camera, estimated = estimate_camera(scan)
    frame = scan.signal().reshape(scan.plane_shape)
    bad = find_bad_pixels(scan)
    scale = np.broadcast_to(np.asarray(scan.scale, dtype=float), scan.counts.shape).reshape(scan.plane_shape)
    expected = np.maximum(
        ndimage.gaussian_filter(np.where(bad.mask.reshape(frame.shape), 0.0, frame) / scale, 1.0), 0.0
    )
    variance = variance_counts(expected, camera, scan.counts.dtype.kind != "f") * scale**2
    flags = {*scan.flags, *(("noise_from_image",) if estimated else ())}
    return _Stage(record, scan, bodies, frame * factor, variance * factor**2, ~bad.mask.reshape(frame.shape), unit, random_rel,
                  float(np.hypot(systematic_rel, 0.0 if unit == "pct_id" else scan.systematic_rel)),
                  tuple(sorted(flags)))  # fmt: skip


def _standard(
    settings: ImagingSettings, scan: Scan, drawn: OrganMap | None, unit: str
) -> tuple[float, float, float, str]:  # fmt: skip
    """Return value per signal, its random and systematic relative error, and the unit, by the dose standard if there is one."""
    if settings.standard is None:
        return 1.0, 0.0, 0.0, unit
    if drawn is None or settings.standard.organ not in drawn.organs:
        raise ValueError(f"the dose standard '{settings.standard.organ}' is not marked in this image; give a label image in "
                         "the column organs, or leave out [imaging.standard]")  # fmt: skip
    drop = drawn.resized(scan.plane_shape).mask(settings.standard.organ)
    # its background is the stage around it, not the animals beside it
    near = ndimage.binary_dilation(drop, iterations=max(4, round(np.sqrt(drop.sum()))))
    alone = OrganMap(drop.astype(np.int32), {1: settings.standard.organ}, drawn.origin)
    beside = replace(scan, bad=np.broadcast_to(~near, scan.counts.shape))
    # a drop of a few pixels is as sharp as a cosmic ray, and a ray on it is rarer than a drop taken for one
    plain = settings.model_copy(update={"footprint": "roi", "standard": None, "cosmic": False})
    found = quantify(beside, alone, plain)
    value, se = float(found.value[0]), float(found.se[0])
    if not value > 3 * se:
        raise ValueError(f"the dose standard reads {value:.3g} +- {se:.2g}, not above noise; %ID cannot be computed: "
                         "expose longer, or use a standard that holds more of the dose")  # fmt: skip
    share = settings.standard
    return share.pct_of_dose / value, se / value, share.pct_of_dose_se / share.pct_of_dose, "pct_id"


def _one_animal(task: AnimalsTask, stages: Sequence[_Stage], number: int, animal: str) -> list[_Share]:
    """Return what one animal gives to each of its scans."""
    frames, unsure, body, times = _frames(task, stages, number)
    fit = infer(frames, body)
    found = []
    for i, stage in enumerate(stages):
        warnings = [f"{animal}: {said}" for said in (*unsure[i], *_pairs(fit))]
        rows: list[Observation] = []
        if stage is next(s for s in stages if s.record.time_h == stage.record.time_h):
            rows = _rows(task, stage, fit, times.index(stage.record.time_h), number, animal)
        else:
            warnings.append(
                f"its light of {animal} is part of the values of the other view at {stage.record.time_h:g} h"
            )
        found.append(_Share(rows, warnings, *_overlay(frames[i], fit, i)))
    return found


def _frames(
    task: AnimalsTask, stages: Sequence[_Stage], number: int
) -> tuple[list[Frame], list[list[str]], Anatomy, list[float]]:  # fmt: skip
    """Return one animal's frames, what was unsure about how it lies in each, its outline's body, and the times."""
    times = sorted({s.record.time_h for s in stages})
    poses = [find_pose(s.bodies, f"animal_{number}", s.scan) for s in stages]
    bodies = [body_of(p, (s.scan.pixel_size_mm or (1.0, 1.0))[1], task.weights_g[number - 1])
              for s, p in zip(stages, poses, strict=True)]  # fmt: skip
    # outlines of one animal differ by how it lies and is lit: the middle one is the least wrong
    body = sorted(bodies, key=lambda b: b.length_mm * b.half_width_mm)[len(bodies) // 2]
    frames: list[Frame] = []
    unsure: list[list[str]] = []
    for stage, pose in zip(stages, poses, strict=True):
        frame, told = _frame(task, stage, pose, _view(stage.record), times.index(stage.record.time_h)), []
        if stage.record.view not in ("dorsal", "ventral") or pose.head_confidence < _HEAD_SURE:
            frame, said = _best(task, stage, pose, frame, body)
            told.append(said)
        frames.append(frame)
        unsure.append(told)
    return frames, unsure, body, times


def _view(record: ScanRecord) -> View:
    return "ventral" if record.view == "ventral" else "dorsal"


def _frame(task: AnimalsTask, stage: _Stage, pose: BodyPose, view: View, time: int) -> Frame:
    """Bin a scan to about 1 mm and say where in the body every pixel looks."""
    assert stage.scan.pixel_size_mm is not None  # noqa: S101  checked in _stage
    pixel = stage.scan.pixel_size_mm[1]
    s, u = place_on(pose, stage.scan.plane_shape, pixel)
    own = ndimage.binary_dilation(stage.bodies.mask(pose.animal), iterations=2)
    k = max(1, round(_PIXEL_MM / pixel))
    blur = blur_px(stage.scan, task.settings)[-1] if task.settings.psf_fwhm_mm or task.settings.psf_fwhm_px else 0.0
    valid = _binned(stage.valid & own & np.isfinite(stage.image), k, np.all)
    return Frame(_binned(np.nan_to_num(stage.image), k, np.sum), _binned(stage.variance, k, np.sum), _binned(s, k, np.mean),
                 _binned(u, k, np.mean), view, time, pixel * k, blur / k, float(task.label.emission_nm or 0),
                 task.label.excitation_nm if task.label.kind == "fluorescence" else None, valid)  # fmt: skip


def _binned(image: Any, k: int, how: Any) -> Any:
    y, x = (n // k * k for n in image.shape)
    return how(image[:y, :x].reshape(y // k, k, x // k, k), axis=(1, 3))


def _best(task: AnimalsTask, stage: _Stage, pose: BodyPose, frame: Frame, body: Anatomy) -> tuple[Frame, str]:
    """Try back and belly, and both ends as the head, where they are not known; the atlas that explains the light best wins."""
    views: tuple[View, ...] = ("dorsal", "ventral") if stage.record.view not in ("dorsal", "ventral") else (frame.view,)
    heads = (False, True) if pose.head_confidence < _HEAD_SURE else (False,)
    tried = []
    for view in views:
        for turned in heads:
            s, u = (1 - frame.s, -frame.u_mm) if turned else (frame.s, frame.u_mm)
            trial = replace(frame, s=s, u_mm=u, view=view)
            alone = replace(trial, time=0)
            tried.append((infer([alone], body, fit_anatomy=False).objective, turned, view, trial))
    tried.sort(key=lambda item: item[0])
    lead = tried[1][0] - tried[0][0]
    _, turned, view, best = tried[0]
    end = "the other end than the outline suggests is the head" if turned else "the head is where the outline suggests"
    return (
        best,
        f"{end}, seen is the {view} side: the light fits by {lead:.1f} in chi-square better than the next choice",
    )


def _rows(task: AnimalsTask, stage: _Stage, fit: JointFit, t: int, number: int, animal: str) -> list[Observation]:
    record = stage.record
    factor = 1.0
    shared = {*stage.flags, *fit.flags, "inferred_anatomy"}
    if task.decay and stage.unit != "pct_id" and task.label.half_life_h is not None:
        factor = decay_factor(task.label, record.time_h)
        shared.add("decay_corrected")
    if float(np.max(fit.chi2_red)) > _MISFIT:
        shared.add("misfit")
    alike = {o for pair in _collinear(fit) for o in pair}
    found = []
    for k, organ in enumerate(fit.organs):
        value = float(fit.activity[t, k]) * factor
        se = float(np.hypot(fit.se[t, k] * factor, value * stage.random_rel))
        flags = shared | ({"collinear"} if organ in alike else set()) | ({"at_bound"} if value == 0 else set())
        systematic = abs(value) * stage.systematic_rel
        found.append(Observation(study=task.study, subject=animal, group=task.groups[number - 1], label=record.label,
                                 organ=organ, time_h=record.time_h, value=value, se=se, se_systematic=systematic,
                                 unit=stage.unit,  # type: ignore[arg-type]
                                 flags=join(flags | ({"systematic"} if systematic else set())), source=record.scan))  # fmt: skip
    return found


def _collinear(fit: JointFit) -> tuple[tuple[str, str], ...]:
    keep = [k for k, organ in enumerate(fit.organs) if organ != REST]
    return collinear_pairs([fit.organs[k] for k in keep], fit.correlation[np.ix_(keep, keep)])


def _pairs(fit: JointFit) -> list[str]:
    return [f"{a} and {b} are not resolvable: report them together, or add a view or band" for a, b in _collinear(fit)]


def _overlay(frame: Frame, fit: JointFit, i: int) -> tuple[OrganMap, FloatArray]:
    """Return where the inferred organs lie in the image, and the residual relative to the model."""
    grid = BodyGrid.of(fit.anatomy, 1.5)
    shares = grid.shares(fit.anatomy)
    at = sampling(frame, grid)
    names = [o for o in fit.organs if o != REST]
    layers = np.stack([(at @ shares[o].max(axis=0).ravel()).reshape(frame.image.shape) for o in names])
    labels = np.where(layers.max(axis=0) > 0.5, layers.argmax(axis=0) + 1, 0)
    relative = fit.residual[i] / np.maximum(fit.model[i], 0.02 * np.nanmax(fit.model[i]))
    if not labels.any():
        raise ValueError("no organ of the atlas lies in the image; check the outline")
    return OrganMap(labels.astype(np.int32), dict(enumerate(names, 1)), "inferred anatomy"), relative
