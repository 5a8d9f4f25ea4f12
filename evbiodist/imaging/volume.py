"""A volume larger than memory: organ signals from sums over its pieces, whoever gathers them.

Noise and stray light are judged on parts of some slices; then one pass gives plain sums, two give blurred outlines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.imaging.estimator import Fit, inverted, nonnegative_solution
from evbiodist.imaging.footprints import FOOTPRINTS, GUARD_REACH, Box, blurred, near
from evbiodist.imaging.noise import Noise, noise_from_residual
from evbiodist.imaging.pieces import WORDS, Sums, Survey, VolumeOrgans, added, index_of, shares, survey, tiles
from evbiodist.imaging.quantify import (
    STRAY_SIGMA,
    TOUCHED,
    OrganSignals,
    blur_px,
    misfit_limit,
    noise_of,
    organ_words,
    saturation_of,
    to_pct_id,
    to_unit,
)
from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.model import ImagingSettings

#: From so many voxels a volume is measured in pieces; whole, it would need some GiB.
LARGE = 1 << 24
#: Slices that noise and background are first judged on, and the edge of what is looked at of each.
_SLICES, _WINDOW = 8, 1024
#: Voxels of background from which its spread is worth something.
_FEW = 30

#: Runs a survey's parts: gets the function and the lists of boxes, returns their sums in the same order.
Run = Callable[[Survey, Sequence[Sequence[Box]]], Iterable[Sums]]


def is_large(scan: Scan) -> bool:
    """Whether one frame of a scan is a volume that is measured in pieces."""
    return "Z" in scan.axes and math.prod(scan.frame_shape) > LARGE


@dataclass(frozen=True)
class Given:
    """What is known of a volume before it is read through.

    Parameters
    ----------
    offset, scale : of its counts.
    background, spread : of counts outside organs, in the parts that were looked at; spread infinite where there is none.
    noise : of counts above the offset; None where only a fit can show it.
    from_image : whether the noise was judged from the image.
    """

    offset: float
    scale: float
    background: float
    spread: float
    noise: Noise | None
    from_image: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """Where the measurement of a volume stands: what is known, what to gather next, and what the first pass gathered."""

    given: Given
    plan: Survey
    before: Sums | None = None


@dataclass(frozen=True, eq=False)
class VolumeSignals:
    """Signals of the organs of a volume, and how it looks from above.

    Parameters
    ----------
    signals : as `quantify` returns them; the residual is empty, as it would be as large as the volume.
    picture : (Y, X) brightest value of every column in calibrated units, on a grid of at most 720 pixels.
    outline : (Y, X) value of the organ seen there, 0 for none; names : organ by that value.
    """

    signals: OrganSignals
    picture: FloatArray
    outline: NDArray[np.int64]
    names: Mapping[int, str]


def quantify_volume(
    scan: Scan, organs: VolumeOrgans, settings: ImagingSettings | None = None, *, frame: int = 0, run: Run | None = None
) -> VolumeSignals:
    """Estimate every organ's total signal in a volume of any size, in constant memory.

    One pass over the voxels gives plain sums, as `quantify` does; footprints with a blur take a second one, weighted by
    the noise of what the first one found. Noise and stray light are judged on parts of eight slices. The result does not
    depend on how the volume is cut: not at all for whole counts and plain sums, else to rounding.

    Parameters
    ----------
    scan : with the axes ZYX, or more of which one volume is taken; in memory or lazy.
    organs : its label image.
    settings : footprint, blur, dose standard.
    frame : which volume, in the order of the leading axes.
    run : what gathers the sums of the parts, elsewhere and side by side; here and one after another when None.

    Returns
    -------
    VolumeSignals

    Raises
    ------
    ValueError : what `quantify` refuses, or offsets and scales that differ from voxel to voxel.

    Examples
    --------
    >>> labels = np.zeros((12, 20, 20), np.uint8); labels[5:7, 5:8, 5:8] = 1
    >>> counts = (100 + 50 * labels).astype(np.uint16)
    >>> scan = Scan("a", None, counts, "ZYX", offset=100.0)
    >>> found = quantify_volume(scan, VolumeOrgans(labels, {1: "liver"}, counts.shape)).signals
    >>> found.organs, round(float(found.value[0]), 6)
    (('liver',), 900.0)
    """
    settings = settings or ImagingSettings()
    run = run or (lambda plan, parts: [survey(scan, organs, plan, part, frame) for part in parts])
    boxes = shares(tiles(scan))
    stage: Stage | VolumeSignals = begin(scan, organs, settings, frame)
    while isinstance(stage, Stage):
        stage = go_on(scan, organs, settings, stage, added(list(run(stage.plan, boxes))), frame)
    return stage


def begin(scan: Scan, organs: VolumeOrgans, settings: ImagingSettings, frame: int = 0) -> Stage:
    """Return how a volume is to be gone through first, judged on parts of some slices.

    Raises
    ------
    ValueError : what cannot be measured so, in words.
    """
    if "Z" not in scan.axes or scan.extent("C") > 1:
        raise ValueError(f"{scan.name} has axes '{scan.axes}'; expected one band of volumes (ZYX)")
    if settings.footprint not in FOOTPRINTS:
        raise ValueError(
            f"the footprint '{settings.footprint}' is not one of a single frame; use {' or '.join(FOOTPRINTS)}"
        )
    to_unit(scan)  # says now what it would say after hours
    offset, scale = (
        _one_number(scan, value, frame, what) for value, what in ((scan.offset, "offset"), (scan.scale, "scale"))
    )
    counts, numbers, bad = _windows(scan, organs, frame)
    shown = replace(
        scan, counts=counts[:, 0], axes="ZYX", offset=offset, scale=scale, bad=bad[:, 0], timing=None, bands=()
    )
    noise, from_image = noise_of(shown)
    limit = saturation_of(scan)
    usable = (numbers == len(organs.organs)) & np.isfinite(counts) & ~bad
    usable &= (counts < limit) if limit is not None else True
    level, spread = (float(np.nanmedian(counts)) if np.isfinite(counts).any() else offset), math.inf
    if usable.sum() >= _FEW:
        level = float(np.median(counts[usable]))
        spread = 1.4826 * float(np.median(np.abs(counts[usable] - level)))
        if noise is not None:
            spread = float(np.sqrt(noise.variance(np.array(max(level - offset, 0.0)))))
    given = Given(offset, scale, level, spread, noise, from_image)
    blur = blur_px(scan, settings) if FOOTPRINTS[settings.footprint].blurred else (0.0,)
    centre = float(round(level)) if scan.counts.dtype.kind in "ui" else level
    return Stage(given, Survey(settings.footprint, tuple(map(float, blur)), centre, STRAY_SIGMA * spread, limit))


def go_on(
    scan: Scan, organs: VolumeOrgans, settings: ImagingSettings, stage: Stage, sums: Sums, frame: int = 0
) -> Stage | VolumeSignals:  # fmt: skip
    """Return what a pass leads to: the next one, or the result.

    Raises
    ------
    ValueError : an organ that cannot be measured.
    """
    given, n = stage.given, len(organs.organs)
    noise = stage.plan.noise or given.noise
    if noise is None or (FOOTPRINTS[stage.plan.kind].blurred and stage.plan.noise is None):
        present, solution = _solution(sums, organs, settings.nonnegative)
        level = np.zeros(n + 1)
        level[present] = np.maximum(solution[:-1], 0.0)
        level[n] = max(solution[-1] + stage.plan.centre - given.offset, 0.0)
        noise = noise or _noise_left(scan, organs, stage, level, frame)
        if FOOTPRINTS[stage.plan.kind].blurred:
            return Stage(given, replace(stage.plan, noise=noise, level=tuple(map(float, level))), sums)
    seen = stage.before or sums
    signals = _signals(scan, organs, settings, stage, sums, noise)
    names = {i + 1: name for i, name in enumerate(organs.organs)}
    return VolumeSignals(signals, (seen.picture - given.offset) * given.scale, seen.outline + 1, names)


def _solution(sums: Sums, organs: VolumeOrgans, nonnegative: bool) -> tuple[list[int], FloatArray]:
    """Return which organs the volume holds, and the counts of each above its surroundings, background above the centre last."""
    present, normal, moments = _present(sums, organs)
    if nonnegative:
        return present, nonnegative_solution(normal, moments)
    return present, inverted(normal)[0] @ moments


def _present(sums: Sums, organs: VolumeOrgans) -> tuple[list[int], FloatArray, FloatArray]:
    n = len(organs.organs)
    present = [int(k) for k in np.flatnonzero(sums.voxels[:n])]
    if not present:
        raise ValueError(f"the {organs.origin} marks no organ; every pixel is 0")
    without = [organs.organs[k] for k in present if not sums.normal[k, k] > 0]
    if without:
        raise ValueError(f"{', '.join(without)}: no voxel can be used, all are saturated or dead")
    keep = [*present, n]
    return present, sums.normal[np.ix_(keep, keep)], sums.moments[keep]


def _signals(
    scan: Scan, organs: VolumeOrgans, settings: ImagingSettings, stage: Stage, sums: Sums, noise: Noise
) -> OrganSignals:  # fmt: skip
    """Return the organs' totals with covariance and words, from the sums of the last pass."""
    given, plan = stage.given, stage.plan
    present, solution = _solution(sums, organs, settings.nonnegative)
    _, normal, moments = _present(sums, organs)
    inverse, condition = inverted(normal)
    plain = not FOOTPRINTS[plan.kind].blurred
    if plain:
        number = np.append(np.diag(normal)[:-1], normal[-1, -1] - np.diag(normal)[:-1].sum())
        base = max(solution[-1] + plan.centre - given.offset, 0.0)
        variance = noise.variance(np.append(np.maximum(solution[:-1], 0.0), 0.0) + base)
        spread = np.diag(number * variance)
        spread[-1, :-1] = spread[:-1, -1] = np.diag(spread)[:-1]
        spread[-1, -1] = np.diag(spread).sum()
        covariance = inverse @ spread @ inverse
        sides = np.append(solution[:-1], 0.0) + solution[-1]
        own = np.append(moments[:-1], moments[-1] - moments[:-1].sum())
        left = sums.squares[[*present, len(organs.organs)]] - 2 * sides * own + number * sides**2
        chi2 = float(np.sum(left / variance))
    else:
        covariance = inverse
        chi2 = sums.square - 2 * float(solution @ moments) + float(solution @ normal @ solution)
    chi2_red = chi2 / max(sums.used - len(present) - 1, 1)
    shared = {*scan.flags, *(["noise_from_image"] if given.from_image else [])}
    covariance = covariance * noise.cluster
    if not plain and chi2_red > misfit_limit(sums.used, len(present), noise):
        covariance = covariance * chi2_red
        shared.add("misfit")
    voxels = sums.voxels[present]
    size = np.append(voxels, 1.0) * given.scale
    covariance = covariance * np.outer(size, size)
    deviation = np.sqrt(np.diag(covariance))
    correlation = (covariance / np.outer(deviation, deviation))[:-1, :-1]
    signal = solution[:-1] * size[:-1]
    hit = sums.hit[:, present] > TOUCHED * sums.peak[present]
    words = (shared | {w for w, touched in zip(WORDS, hit, strict=True) if touched[i]} | organ_words(i, signal, correlation)
             for i in range(len(present)))  # fmt: skip
    nothing = np.empty((0, 0, 0))
    background = (solution[-1] + plan.centre - given.offset) * given.scale
    fit = Fit(signal, covariance[:-1, :-1], float(background), float(deviation[-1]), correlation, condition, chi2_red, nothing,
              nothing.astype(bool))  # fmt: skip
    factor, unit = to_unit(scan)
    spacing = scan.spacing_mm
    signals = OrganSignals(
        organs=tuple(organs.organs[k] for k in present),
        value=signal * factor,
        covariance=fit.covariance * factor**2,
        se_systematic=scan.systematic_rel * np.abs(signal) * factor,
        unit=unit,
        area_px=voxels,
        area_cm2=None,
        flags=tuple(tuple(sorted(w)) for w in words),
        fit=fit,
        volume_ml=None if spacing is None else voxels * float(np.prod(spacing)) / 1000.0,
    )
    return to_pct_id(signals, settings.standard) if settings.standard else signals


def _windows(
    scan: Scan, organs: VolumeOrgans, frame: int
) -> tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]:  # fmt: skip
    """Return parts of some pairs of slices: counts, organs (-1 just outside one) and known bad voxels, (k, 2, Y, X)."""
    deep, *plane = scan.frame_shape
    n, margin = len(organs.organs), GUARD_REACH
    counts, numbers, bad = [], [], []
    for k, z in enumerate(np.unique(np.linspace(0, deep - 1, min(deep, _SLICES)).round().astype(int))):
        pair = slice(min(int(z), max(deep - 2, 0)), min(int(z), max(deep - 2, 0)) + min(deep, 2))
        quarter = ((k >> 1) & 1, k & 1)
        rows, columns = (_window(extent, side) for extent, side in zip(plane, quarter, strict=True))
        box = (pair, rows, columns)
        counts.append(np.asarray(scan.counts[index_of(scan, frame, box)]))
        around = organs.part(box, margin)
        inner = tuple(slice(margin, margin + size) for size in counts[-1].shape)
        close = near(around < n)[inner] if (around < n).any() else np.zeros(counts[-1].shape, bool)
        numbers.append(np.where(close & (around[inner] == n), -1, around[inner]))
        bad.append(np.zeros(counts[-1].shape, bool) if scan.bad is None
                   else np.broadcast_to(scan.bad, scan.counts.shape)[index_of(scan, frame, box)])  # fmt: skip
    return np.stack(counts), np.stack(numbers), np.stack(bad)


def _window(extent: int, side: int) -> slice:
    """Return a window in the lower or upper half of an axis, or the whole axis where it is short."""
    if extent <= _WINDOW:
        return slice(0, extent)
    start = min(max((extent // 4) * (1 + 2 * side) - _WINDOW // 2, 0), extent - _WINDOW)
    return slice(start, start + _WINDOW)


def _noise_left(scan: Scan, organs: VolumeOrgans, stage: Stage, level: FloatArray, frame: int) -> Noise:
    """Return the noise of counts that a fit leaves over, in the parts that are looked at; `level` as in `Survey`."""
    counts, numbers, bad = _windows(scan, organs, frame)
    plan, n = stage.plan, len(organs.organs)
    expected = np.full(counts.shape, level[n])
    for k in np.unique(numbers[(numbers >= 0) & (numbers < n)]):
        outline = numbers == k
        expected += level[k] * (blurred(outline, (0.0, 0.0, *plan.blur_px[-2:])) if len(plan.blur_px) > 1 else outline)
    used = np.isfinite(counts) & ~bad & (numbers >= 0)
    left = np.where(used, counts - stage.given.offset - expected, 0.0)
    used &= ~((numbers == n) & (np.abs(left) > plan.stray))
    return noise_from_residual(expected, left, used)


def _one_number(scan: Scan, value: Any, frame: int, what: str) -> float:
    """Return an offset or scale of one volume.

    Raises
    ------
    ValueError : it differs from voxel to voxel.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.size == 1:
        return float(array.ravel()[0])
    if array.ndim >= 3 and array.shape[-3:] == (1, 1, 1):
        return float(np.broadcast_to(array, (*scan.counts.shape[:-3], 1, 1, 1)).reshape(-1)[frame])
    if np.all(array == array.ravel()[0]):
        return float(array.ravel()[0])
    raise ValueError(f"the {what} of {scan.name} differs from voxel to voxel, which a volume of this size cannot have here; "
                     "apply it when you export the volume")  # fmt: skip
