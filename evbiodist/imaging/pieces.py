"""Pieces of a volume larger than memory: read, summed and forgotten, wherever they lie and by any process.

Least squares needs of the voxels only weighted sums, which are added up in a fixed order. Organs stay on disk too; a
piece reads its own part of the label image with a margin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.footprints import FOOTPRINTS, GUARD_REACH, Box, blurred, near, reach_of
from evbiodist.imaging.noise import Noise
from evbiodist.io.scan import FloatArray, Scan
from evbiodist.io.stream import ahead, chunks_of

#: Voxels that are read at once, and that are worked on at once.
_TILE, _BLOCK = 1 << 23, 1 << 21
#: Edge of the picture of a volume, in pixels, at most.
_PICTURE = 720
#: Words for voxels without weight.
WORDS = ("saturated", "dead")


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
    images = ahead(partial(_read, scan.counts, index_of(scan, frame, box)) for box in boxes)
    parts = []
    for box, counts in zip(boxes, images, strict=True):
        numbers = organs.part(box, margin)
        bad = None if scan.bad is None else np.broadcast_to(scan.bad, scan.counts.shape)[index_of(scan, frame, box)]
        parts.append(_of_tile(counts, bad, numbers, margin, plan, box, len(organs.organs), scan.frame_shape))
    return added(parts)


def index_of(scan: Scan, frame: int, box: Box) -> Any:
    """Return the index of a box of one volume in a scan's array, volumes counted in the order of the leading axes."""
    leading = scan.counts.shape[:-3]
    return (*(int(i) for i in np.unravel_index(frame, leading)), *box) if leading else box


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
