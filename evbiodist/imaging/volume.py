"""A volume larger than memory: organ signals from sums over its pieces, read once and forgotten.

Least squares needs of the voxels only weighted sums, so pieces are summed wherever they lie, in any process, and
added up in a fixed order. Organs stay on disk too; a piece reads its own part of the label image with a margin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.estimator import Fit, inverted, nonnegative_solution
from evbiodist.imaging.footprints import FOOTPRINTS, GUARD_REACH, Box, blurred, near, reach_of
from evbiodist.imaging.noise import Noise, noise_from_residual
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
from evbiodist.io.stream import ahead, chunks_of
from evbiodist.study.model import ImagingSettings

#: From so many voxels a volume is measured in pieces; whole, it would need some GiB.
LARGE = 1 << 24
#: Voxels that are read at once, and that are worked on at once.
_TILE, _BLOCK = 1 << 23, 1 << 21
#: Slices that noise and background are first judged on, and the edge of what is looked at of each.
_SLICES, _WINDOW = 8, 1024
#: Voxels of background from which its spread is worth something.
_FEW = 30
#: Edge of the picture of a volume, in pixels, at most.
_PICTURE = 720
#: Words for voxels without weight.
_WORDS = ("saturated", "dead")


@dataclass(frozen=True, eq=False)
class VolumeOrgans:
    """Organs of a volume whose label image may stay on disk, on its own grid over the same field of view.

    Parameters
    ----------
    labels : (Z, Y, X) whole numbers, an array or lazy; coarser or finer than the volume.
    names : organ name of each value; 0 is background.
    shape : of the volume.
    origin : for sentences.

    Raises
    ------
    ValueError : no names, or a label image that is not a volume.

    Examples
    --------
    >>> coarse = VolumeOrgans(np.array([[[0, 7]]]), {7: "liver"}, (2, 2, 4))
    >>> coarse.part((slice(0, 1), slice(0, 1), slice(0, 4)), 0).ravel().tolist()
    [1, 1, 0, 0]
    """

    labels: Any
    names: Mapping[int, str]
    shape: tuple[int, ...]
    origin: str = "label image"

    def __post_init__(self) -> None:
        if len(self.labels.shape) != 3 or len(self.shape) != 3:
            raise ValueError(
                f"the {self.origin} has shape {tuple(self.labels.shape)}, the volume {self.shape}; expected (Z, Y, X)"
            )
        if not {value for value in self.names if value}:
            raise ValueError(f"the {self.origin} names no organ; name its values under [imaging.organ_labels]")

    @cached_property
    def organs(self) -> tuple[str, ...]:
        """Names in the order of their values, each once, whether or not the volume holds them."""
        return tuple(dict.fromkeys(name for value, name in sorted(self.names.items()) if value))

    @cached_property
    def _classes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        values = sorted(value for value in self.names if value)
        number = {name: i for i, name in enumerate(self.organs)}
        return np.array(values), np.array([number[self.names[v]] for v in values])

    def part(self, box: Box, margin: int) -> NDArray[np.int16]:
        """Return the number of the organ of every voxel of a box and of a margin around it; background is the last.

        Outside the volume there is background.

        Raises
        ------
        ValueError : values without a name, or that are no whole numbers.
        """
        axes = [np.arange(s.start - margin, s.stop + margin) for s in box]
        inside = [a[(a >= 0) & (a < n)] for a, n in zip(axes, self.shape, strict=True)]
        stored = [
            ((a + 0.5) * m / n).astype(np.intp) for a, n, m in zip(inside, self.shape, self.labels.shape, strict=True)
        ]
        read = np.asarray(self.labels[tuple(slice(int(a[0]), int(a[-1]) + 1) for a in stored)])
        at = [a - a[0] for a in stored]
        if any(len(a) != n for a, n in zip(at, read.shape, strict=True)):
            read = read[np.ix_(*at)]
        found = np.full(tuple(len(a) for a in axes), len(self.organs), np.int16)
        place = tuple(slice(int(i[0] - a[0]), int(i[-1] - a[0]) + 1) for a, i in zip(axes, inside, strict=True))
        found[place] = self._numbers(read)
        return found

    def _numbers(self, labels: NDArray[Any]) -> NDArray[np.int16]:
        if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
            raise ValueError(f"the {self.origin} holds fractions; expected whole numbers, 0 for background")
        values, numbers = self._classes
        if labels.dtype.kind in "bu" and labels.dtype.itemsize <= 2:
            table = np.full(1 << (8 * labels.dtype.itemsize), -1, np.int16)
            table[0] = len(self.organs)
            fits = values < table.size
            table[values[fits]] = numbers[fits]
            found = table[labels.astype(np.uint8) if labels.dtype.kind == "b" else labels]
        else:
            place = np.minimum(np.searchsorted(values, labels), len(values) - 1)
            found = np.where(labels == values[place], numbers[place], -1)
            found = np.where(labels == 0, len(self.organs), found).astype(np.int16)
        if (found < 0).any():
            unnamed = sorted({int(v) for v in np.unique(labels[found < 0])})
            raise ValueError(f"pixel values {unnamed[:10]} of the {self.origin} have no organ name; "
                             "name them under [imaging.organ_labels]")  # fmt: skip
        return np.asarray(found)


@dataclass(frozen=True)
class Survey:
    """What one pass over a volume is to gather.

    Parameters
    ----------
    kind : of footprint, a name of `FOOTPRINTS`.
    blur_px : standard deviation along each axis.
    centre : subtracted from counts before summing, so that little is lost to rounding; a whole number for whole counts.
    stray : counts from `centre` beyond which light outside organs is stray.
    saturation : counts from which a voxel is saturated, or None.
    noise : of counts above the offset, for a pass that weights by it; None for one in which all voxels weigh the same.
    level : expected counts of a voxel deep inside each organ above background, and last of background above the offset;
        empty without noise.
    """

    kind: str
    blur_px: tuple[float, ...]
    centre: float
    stray: float
    saturation: float | None
    noise: Noise | None = None
    level: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted sums over some voxels; those of all pieces added up are all that the estimate needs.

    Footprints are outlines of height 1 (blurred or not), n of them; the last place belongs to the background.

    Parameters
    ----------
    voxels : (n + 1,) of each organ and of background, whether or not they carry weight.
    normal : (n + 1, n + 1) inner products; moments : (n + 1,) with counts above the centre.
    square : weighted sum of squares of those counts; squares : (n + 1,) of plain squares, organ by organ.
    used : voxels that carry weight.
    peak : (n,) largest value of each footprint; hit : (2, n) largest value where a voxel is saturated, or dead.
    picture : where its pixels begin (y, x), and the brightest counts in each.
    outline : the same for organs, the last named of those seen from above; -1 where there is none.
    """

    voxels: FloatArray
    normal: FloatArray
    moments: FloatArray
    square: float
    squares: FloatArray
    used: int
    peak: FloatArray
    hit: FloatArray
    corner: tuple[int, int]
    picture: FloatArray
    outline: NDArray[np.int64]

    def document(self) -> dict[str, Any]:
        """Return this as JSON takes it, to the last digit."""
        return {f.name: value.tolist() if isinstance(value := getattr(self, f.name), np.ndarray) else value
                for f in fields(self)}  # fmt: skip

    @classmethod
    def of_document(cls, held: Mapping[str, Any]) -> Sums:
        """Return what `document` was made from."""
        whole: dict[str, Any] = {name: np.array(held[name], np.int64 if name == "outline" else np.float64)
                 for name in ("voxels", "normal", "moments", "squares", "peak", "hit", "picture", "outline")}  # fmt: skip
        y, x = held["corner"]
        return cls(**whole, square=float(held["square"]), used=int(held["used"]), corner=(int(y), int(x)))


#: Runs a survey's parts: gets the function and the lists of boxes, returns their sums in the same order.
Run = Callable[[Survey, Sequence[Sequence[Box]]], Iterable[Sums]]


def is_large(scan: Scan) -> bool:
    """Whether one frame of a scan is a volume that is measured in pieces."""
    return "Z" in scan.axes and math.prod(scan.frame_shape) > LARGE


def tiles(scan: Scan, voxels: int = _TILE) -> list[Box]:
    """Return boxes that cover one volume of a scan, each read at once; they begin and end at chunks where these are small.

    Examples
    --------
    >>> scan = Scan("a", None, np.zeros((4, 4, 6), np.uint8), "ZYX")
    >>> len(tiles(scan, 48)), tiles(scan, 48)[0]
    (2, (slice(0, 4, None), slice(0, 4, None), slice(0, 3, None)))
    """
    shape = scan.frame_shape
    chunk = [min(c, n) for c, n in zip(chunks_of(scan.counts)[-3:], shape, strict=True)]
    if isinstance(scan.counts, np.ndarray):
        chunk = [1, 1, 1]
    while math.prod(chunk) > voxels:  # a chunk that is too large is read more than once
        widest = int(np.argmax(chunk))
        chunk[widest] = -(-chunk[widest] // 2)
    size = list(chunk)
    grown = True
    while grown:  # the shortest side grows first: margins cost least around cubes
        grown = False
        for axis in sorted(range(3), key=lambda a: size[a]):
            more = min(size[axis] + chunk[axis], shape[axis])
            if more > size[axis] and math.prod(size) // size[axis] * more <= voxels:
                size[axis], grown = more, True
                break
    cuts = ([slice(a, min(a + s, n)) for a in range(0, n, s)] for s, n in zip(size, shape, strict=True))
    return list(itertools.product(*cuts))


def shares(boxes: Sequence[Box], voxels: int = 1 << 28) -> list[list[Box]]:
    """Return boxes in lists of about so many voxels each, in order: what one process works on before it tells."""
    found: list[list[Box]] = [[]]
    held = 0
    for box in boxes:
        size = math.prod(s.stop - s.start for s in box)
        if found[-1] and held + size > voxels:
            found.append([])
            held = 0
        found[-1].append(box)
        held += size
    return found


def survey(scan: Scan, organs: VolumeOrgans, plan: Survey, boxes: Sequence[Box], frame: int = 0) -> Sums:
    """Sum over the voxels of some boxes of one volume; the next box is read meanwhile.

    Parameters
    ----------
    scan, frame : which volume.
    organs : of it.
    plan : what to gather.
    boxes : of `tiles`.

    Raises
    ------
    ValueError : label values without a name.
    UnreadableImage : voxels that cannot be decoded.
    """
    margin = _margin(plan)
    leading = scan.counts.shape[:-3]
    at = tuple(int(i) for i in np.unravel_index(frame, leading)) if leading else ()
    images = ahead(partial(_read, scan.counts, _index(at, box)) for box in boxes)
    parts = []
    for box, counts in zip(boxes, images, strict=True):
        numbers = organs.part(box, margin)
        bad = None if scan.bad is None else np.broadcast_to(scan.bad, scan.counts.shape)[_index(at, box)]
        parts.append(_of_tile(counts, bad, numbers, margin, plan, box, len(organs.organs), scan.frame_shape))
    return added(parts)


def _index(at: tuple[int, ...], box: Box) -> Any:
    return (*at, *box)


def _read(counts: Any, box: tuple[Any, ...]) -> NDArray[Any]:
    return np.asarray(counts[box])


def _margin(plan: Survey) -> int:
    """Return how far around a piece organs matter to it, in voxels."""
    return max(reach_of(plan.blur_px, 3)) if FOOTPRINTS[plan.kind].blurred else GUARD_REACH


def _of_tile(
    counts: NDArray[Any], bad: NDArray[Any] | None, numbers: NDArray[np.int16], margin: int, plan: Survey, box: Box, n: int,
    shape: tuple[int, ...],
) -> Sums:  # fmt: skip
    """Sum over one tile, some slices at a time."""
    step = max(1, _BLOCK // max(counts[0].size, 1))
    found = []
    for z in range(0, len(counts), step):
        part = counts[z : z + step]
        around = numbers[z : z + len(part) + 2 * margin]
        gather = _blurred_sums if FOOTPRINTS[plan.kind].blurred else _plain_sums
        found.append(gather(part, None if bad is None else bad[z : z + step], around, margin, plan, n))
    inner = numbers[tuple(slice(margin, margin + k) for k in counts.shape)]
    picture, outline, corner = _seen(counts, inner, box, shape, n)
    whole = added(found)
    return replace(whole, corner=corner, picture=picture, outline=outline)


def _usable(
    counts: NDArray[Any], bad: NDArray[Any] | None, plan: Survey
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return counts above the centre, and which voxels can be used, are saturated, are dead."""
    dead = ~np.isfinite(counts) if counts.dtype.kind == "f" else np.zeros(counts.shape, bool)
    dead = dead if bad is None else dead | bad
    full = np.zeros(counts.shape, bool) if plan.saturation is None else (counts >= plan.saturation) & ~dead
    above = counts.astype(np.float64)
    above -= plan.centre
    above[dead] = 0.0
    return above, ~(dead | full), full, dead


def _plain_sums(
    counts: NDArray[Any], bad: NDArray[Any] | None, around: NDArray[np.int16], margin: int, plan: Survey, n: int
) -> Sums:  # fmt: skip
    """Sum over outlines as they are; voxels just outside them, and stray light, belong to nothing."""
    above, used, full, dead = _usable(counts, bad, plan)
    organ = around[tuple(slice(margin, margin + k) for k in counts.shape)]
    outside = organ == n
    voxels = np.bincount(organ.ravel(), minlength=n + 1).astype(np.float64)
    hit = np.zeros((2, n))
    for row, mask in enumerate((full, dead)):
        if mask.any():
            hit[row] = np.bincount(organ[mask], minlength=n + 1)[:n] > 0
    if not outside.all() or (around < n).any():
        used &= ~(outside & near(around < n)[tuple(slice(margin, margin + k) for k in counts.shape)])
    if math.isfinite(plan.stray):
        used &= ~(outside & (np.abs(above) > plan.stray))
    place, light = organ[used], above[used]
    if not voxels[:n].any():
        number, total, square = (np.append(np.zeros(n), float(v)) for v in (light.size, light.sum(), light @ light))
    else:
        number, total, square = (
            np.bincount(place, weights=w, minlength=n + 1).astype(np.float64) for w in (None, light, light * light)
        )
    normal = np.diag(number)
    normal[n, :n] = normal[:n, n] = number[:n]
    normal[n, n] = number.sum()
    moments = np.append(total[:n], total.sum())
    return Sums(voxels, normal, moments, float(square.sum()), square, int(number.sum()), (voxels[:n] > 0).astype(np.float64),
                hit, (0, 0), _NONE, _NOWHERE)  # fmt: skip


_NONE, _NOWHERE = np.empty((0, 0)), np.empty((0, 0), np.int64)


def _blurred_sums(
    counts: NDArray[Any], bad: NDArray[Any] | None, around: NDArray[np.int16], margin: int, plan: Survey, n: int
) -> Sums:
    """Sum with blurred outlines, weighted by the noise of what is expected; alike everywhere in a first pass."""
    above, used, full, dead = _usable(counts, bad, plan)
    core = tuple(slice(margin, margin + k) for k in counts.shape)
    patches = list(_patches(around, core, plan, n))
    weight = used.astype(np.float64)
    if plan.noise is not None:
        expected = np.full(counts.shape, plan.level[n])
        for k, box, patch in patches:
            expected[box] += plan.level[k] * patch
        weight /= plan.noise.variance(expected)
    wy = weight * above
    normal, moments, peak, hit = np.zeros((n + 1, n + 1)), np.zeros(n + 1), np.zeros(n), np.zeros((2, n))
    for i, (k, box, patch) in enumerate(patches):
        weighted = patch * weight[box]
        for other, beside, theirs in patches[: i + 1]:
            shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, beside, strict=True))
            if all(s.start < s.stop for s in shared):
                mine, yours = (part[_within(shared, at)] for part, at in ((weighted, box), (theirs, beside)))
                normal[k, other] = normal[other, k] = np.sum(mine * yours)
        normal[k, n] = normal[n, k] = weighted.sum()
        moments[k] = np.sum(patch * wy[box])
        peak[k] = patch.max(initial=0.0)
        hit[:, k] = [patch[mask[box]].max(initial=0.0) for mask in (full, dead)]
    normal[n, n], moments[n] = weight.sum(), wy.sum()
    voxels = np.bincount(around[core].ravel(), minlength=n + 1).astype(np.float64)
    square = float(np.sum(wy * above))
    return Sums(voxels, normal, moments, square, np.zeros(n + 1), int(used.sum()), peak, hit, (0, 0), _NONE, _NOWHERE)


def _patches(around: NDArray[np.int16], core: Box, plan: Survey, n: int) -> Iterator[tuple[int, Box, FloatArray]]:
    """Yield the number of every organ whose light reaches the core, where in the core, and its blurred outline there."""
    reach = reach_of(plan.blur_px, 3)
    boxes: Sequence[Box | None] = ndimage.find_objects(around + 1, max_label=n)
    for k, box in enumerate(boxes):
        if box is None:
            continue
        wide = tuple(
            slice(max(s.start - r, 0), min(s.stop + r, m)) for s, r, m in zip(box, reach, around.shape, strict=True)
        )
        lit = tuple(slice(max(w.start, c.start), min(w.stop, c.stop)) for w, c in zip(wide, core, strict=True))
        if all(s.start < s.stop for s in lit):
            yield k, _within(lit, core), blurred(around[wide] == k, plan.blur_px)[_within(lit, wide)]


def _within(box: Box, outer: Box) -> Box:
    """Return a box counted from the beginning of the one around it."""
    return tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, outer, strict=True))


def _seen(
    counts: NDArray[Any], organ: NDArray[np.int16], box: Box, shape: tuple[int, ...], n: int
) -> tuple[FloatArray, NDArray[np.int64], tuple[int, int]]:
    """Return the brightest counts and the organs of a tile as seen along z, on the coarse grid of the picture."""
    zoom = max(1, -(-max(shape[1:]) // _PICTURE))
    top = np.where(organ < n, organ, -1).max(axis=0)
    bright = np.fmax.reduce(counts, axis=0).astype(np.float64)
    corner = (box[1].start // zoom, box[2].start // zoom)
    rows, columns = ((np.arange(s.start, s.stop) // zoom) for s in box[1:])
    starts = [np.flatnonzero(np.diff(line, prepend=line[0] - 1)) for line in (rows, columns)]
    small: Any = np.fmax.reduceat(np.fmax.reduceat(bright, starts[0], axis=0), starts[1], axis=1)
    drawn: Any = np.maximum.reduceat(np.maximum.reduceat(top, starts[0], axis=0), starts[1], axis=1)
    return small, drawn.astype(np.int64), corner


def added(parts: Sequence[Sums]) -> Sums:
    """Return the sums over all voxels of some parts, rounded once each, whatever the parts were.

    Examples
    --------
    >>> scan = Scan("a", None, np.arange(64, dtype=np.uint16).reshape(4, 4, 4), "ZYX")
    >>> organs = VolumeOrgans((scan.counts > 60).astype(np.uint8), {1: "liver"}, (4, 4, 4))
    >>> plan = Survey("roi", (0.0,), 0.0, np.inf, None)
    >>> one, many = (added([survey(scan, organs, plan, [b]) for b in tiles(scan, size)]) for size in (64, 8))
    >>> bool((one.moments == many.moments).all() and (one.normal == many.normal).all()), float(one.moments[0])
    (True, 186.0)
    """

    def total(name: str) -> FloatArray:
        stack = np.stack([np.asarray(getattr(part, name), dtype=np.float64) for part in parts])
        flat = stack.reshape(len(parts), -1)
        return np.array([math.fsum(column) for column in flat.T]).reshape(stack.shape[1:])

    drawn = [part for part in parts if part.picture.size]
    y, x = (min((part.corner[axis] for part in drawn), default=0) for axis in (0, 1))
    size = [
        max((p.corner[axis] + p.picture.shape[axis] for p in drawn), default=0) - low for axis, low in ((0, y), (1, x))
    ]
    picture, outline = np.full(size, np.nan), np.full(size, -1, np.int64)
    for p in drawn:
        at = tuple(slice(c - low, c - low + k) for c, low, k in zip(p.corner, (y, x), p.picture.shape, strict=True))
        picture[at] = np.fmax(picture[at], p.picture)
        outline[at] = np.maximum(outline[at], p.outline)
    return Sums(total("voxels"), total("normal"), total("moments"), float(total("square")), total("squares"),
                sum(p.used for p in parts), np.max([p.peak for p in parts], axis=0), np.max([p.hit for p in parts], axis=0),
                (y, x), picture, outline)  # fmt: skip


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
    words = (shared | {w for w, touched in zip(_WORDS, hit, strict=True) if touched[i]} | organ_words(i, signal, correlation)
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
    leading = scan.counts.shape[:-3]
    at = tuple(int(i) for i in np.unravel_index(frame, leading)) if leading else ()
    deep, *plane = scan.frame_shape
    n, margin = len(organs.organs), GUARD_REACH
    counts, numbers, bad = [], [], []
    for k, z in enumerate(np.unique(np.linspace(0, deep - 1, min(deep, _SLICES)).round().astype(int))):
        pair = slice(min(int(z), max(deep - 2, 0)), min(int(z), max(deep - 2, 0)) + min(deep, 2))
        quarter = ((k >> 1) & 1, k & 1)
        rows, columns = (_window(extent, side) for extent, side in zip(plane, quarter, strict=True))
        box = (pair, rows, columns)
        counts.append(_read(scan.counts, _index(at, box)))
        around = organs.part(box, margin)
        inner = tuple(slice(margin, margin + size) for size in counts[-1].shape)
        close = near(around < n)[inner] if (around < n).any() else np.zeros(counts[-1].shape, bool)
        numbers.append(np.where(close & (around[inner] == n), -1, around[inner]))
        bad.append(np.zeros(counts[-1].shape, bool) if scan.bad is None
                   else np.broadcast_to(scan.bad, scan.counts.shape)[_index(at, box)])  # fmt: skip
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
