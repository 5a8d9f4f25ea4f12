"""Pixels that do not fit in memory: any scan in blocks of frames or in slabs of slices.

While the caller works on one piece of a lazy scan the next is decoded, so that reading costs no waiting.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.scan import Scan
from evbiodist.study.problems import UnreadableImage

#: Size of one piece, unless the caller says otherwise.
MAX_BYTES = 64 << 20
#: A lazy array hands out no more than this at once.
LIMIT_BYTES = 8 << 30


def blocks(scan: Scan, n: int | None = None, *, max_bytes: int = MAX_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
    """Go through the frames of any scan in blocks, in the order of its leading axes.

    At most three blocks are in memory (the caller's, the finished next one, the one being decoded). Blocks of a
    chunked array begin and end at its chunks where the limit allows, so that no chunk is decoded twice.

    Parameters
    ----------
    scan : in memory or lazy.
    n : frames a block at most; None for as many as `max_bytes` holds.
    max_bytes : size of a block; a single frame may be larger (take `slabs` of a large volume).

    Returns
    -------
    iterator of (int, array) : number of the block's first frame, and the counts, shape (frames, Y, X) or
        (frames, Z, Y, X); of a scan in memory these are views.

    Raises
    ------
    ValueError : `n` or `max_bytes` below 1.
    UnreadableImage : pixels that cannot be decoded, with the frames.

    Examples
    --------
    >>> scan = Scan("a", None, np.arange(24).reshape(2, 3, 2, 2), "TCYX")
    >>> [(start, block.shape) for start, block in blocks(scan, 4)]
    [(0, (4, 2, 2)), (4, (2, 2, 2))]
    """
    _positive(n=1 if n is None else n, max_bytes=max_bytes)
    frame = scan.frame_shape
    leading = scan.counts.shape[: scan.counts.ndim - len(frame)]
    total = math.prod(leading)
    held = max_bytes // (math.prod(frame) * scan.counts.dtype.itemsize)
    step = _step(total, held if n is None else min(held, n), _chunk_frames(scan.counts, leading))
    pieces = ((a, min(a + step, total)) for a in range(0, total, step))
    jobs = ((a, f"frames {a + 1} to {b}", partial(_frames, scan, leading, a, b)) for a, b in pieces)
    return _run(scan, jobs)


def slabs(scan: Scan, *, frame: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
    """Go through one volume of a scan in slabs of neighbouring slices.

    Parameters
    ----------
    scan : with an axis Z, in memory or lazy.
    frame : which volume, in the order of the leading axes.
    max_bytes : size of a slab; a single slice may be larger.

    Returns
    -------
    iterator of (int, array) : number of the slab's first slice, and the counts, shape (slices, Y, X); slabs begin
        and end at the chunks of the array where the limit allows.

    Raises
    ------
    ValueError : a scan without axis Z, a volume that it does not have, or `max_bytes` below 1.
    UnreadableImage : pixels that cannot be decoded, with the slices.

    Examples
    --------
    >>> volume = Scan("a", None, np.zeros((5, 2, 2), np.uint8), "ZYX")
    >>> [(z, slab.shape[0]) for z, slab in slabs(volume, max_bytes=8)]
    [(0, 2), (2, 2), (4, 1)]
    """
    _positive(max_bytes=max_bytes)
    if not scan.axes.endswith("ZYX"):
        raise ValueError(
            f"{scan.name} has axes '{scan.axes}'; slabs are of a volume (ZYX): take blocks of frames instead"
        )
    leading = scan.counts.shape[:-3]
    if not 0 <= frame < math.prod(leading):
        raise ValueError(f"{scan.name} holds {math.prod(leading)} volumes, numbered from 0; there is no volume {frame}")
    at = tuple(int(i) for i in np.unravel_index(frame, leading)) if leading else ()
    slices, *plane = (int(v) for v in scan.counts.shape[-3:])
    held = max_bytes // (math.prod(plane) * scan.counts.dtype.itemsize)
    step = _step(slices, held, chunks_of(scan.counts)[-3])
    pieces = ((z, min(z + step, slices)) for z in range(0, slices, step))
    jobs = ((a, f"slices {a + 1} to {b}", partial(_slices, scan, at, a, b)) for a, b in pieces)
    return _run(scan, jobs)


def ahead(jobs: Iterable[Callable[[], NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """Run jobs one after another in a thread, each while the caller works on the result of the one before.

    Examples
    --------
    >>> [int(a.sum()) for a in ahead(partial(np.ones, n) for n in (1, 2, 3))]
    [1, 2, 3]
    """
    with ThreadPoolExecutor(1, "evbiodist-read") as thread:
        waiting: Future[NDArray[Any]] | None = None
        for job in jobs:
            following = thread.submit(job)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


class LazyArray(ABC):
    """An array that stays on disk until it is sliced; what readers give a `Scan` as its counts.

    Takes whole numbers, slices and `...` as numpy does, and nothing else. A subclass sets `shape` and `dtype` and
    says in `_take` how a full index is read; it may set `chunks`, the extent that is decoded at a time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @abstractmethod
    def _take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read what an index asks for; it names every axis, and whole numbers are not below zero."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in memory, were it read whole."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        index = full_index(key, self.shape)
        asked = math.prod(
            len(range(*k.indices(n))) for k, n in zip(index, self.shape, strict=True) if isinstance(k, slice)
        )
        if asked * self.dtype.itemsize > LIMIT_BYTES:
            raise ValueError(f"{asked * self.dtype.itemsize / 2**30:.1f} GiB of pixels are asked for at once, over the limit of "
                             f"{LIMIT_BYTES >> 30} GiB; go through them with evbiodist.io.stream.blocks or slabs")  # fmt: skip
        return self._take(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


class AxesView(LazyArray):
    """A lazy array with its axes in another order, and without those that are left out (their first plane is taken).

    Examples
    --------
    >>> view = AxesView(np.arange(6).reshape(1, 2, 3), [2, 1])
    >>> view.shape, view[0].tolist()
    ((3, 2), [0, 3])
    """

    def __init__(self, array: Any, order: Sequence[int]) -> None:
        self._array, self._order = array, tuple(order)
        self.shape = tuple(int(array.shape[axis]) for axis in order)
        self.dtype = np.dtype(array.dtype)
        self.chunks = tuple(int(chunks_of(array)[axis]) for axis in order)

    def _take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        stored: list[int | slice] = [0] * self._array.ndim
        for axis, key in zip(self._order, index, strict=True):
            stored[axis] = key
        found = np.asarray(self._array[tuple(stored)])
        kept = [axis for axis, key in zip(self._order, index, strict=True) if isinstance(key, slice)]
        return found.transpose([sorted(kept).index(axis) for axis in kept])


def in_order(counts: Any, axes: str) -> tuple[Any, str]:
    """Return an array with its axes in the order of `Scan` (T, C, Z, Y, X; other letters before them), lazy if it is.

    Examples
    --------
    >>> array, axes = in_order(np.zeros((4, 3, 2, 2)), "ZCYX")
    >>> array.shape, axes
    ((3, 4, 2, 2), 'CZYX')
    """
    order = sorted(range(len(axes)), key=lambda axis: "TCZYX".find(axes[axis]))
    if order == list(range(len(axes))):
        return counts, axes
    named = "".join(axes[axis] for axis in order)
    return (counts.transpose(order) if isinstance(counts, np.ndarray) else AxesView(counts, order)), named


def full_index(key: Any, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """Return an index that names every axis, with whole numbers counted from the start.

    Raises
    ------
    IndexError : anything but whole numbers, slices and one `...`, too many of them, or a place outside.

    Examples
    --------
    >>> full_index((..., -1), (4, 5, 6))
    (slice(None, None, None), slice(None, None, None), 5)
    """
    keys = key if isinstance(key, tuple) else (key,)
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1 or len(keys) - len(dots) > len(shape):
        raise IndexError(f"the index has {len(keys)} parts, the array {len(shape)} axes")
    fill = (slice(None),) * (len(shape) - len(keys) + len(dots))
    at = dots[0] if dots else len(keys)
    return tuple(_one_axis(k, n) for k, n in zip((*keys[:at], *fill, *keys[at + len(dots) :]), shape, strict=True))


def _one_axis(key: Any, extent: int) -> int | slice:
    if isinstance(key, slice):
        return key
    if isinstance(key, bool) or not hasattr(key, "__index__") or np.ndim(key):
        raise IndexError(f"an index of type {type(key).__name__} is not read from disk; use whole numbers and slices")
    at = operator.index(key)
    if not -extent <= at < extent:
        raise IndexError(f"index {at} is outside an axis of extent {extent}")
    return at % extent


def _run(scan: Scan, jobs: Iterator[tuple[int, str, Callable[[], NDArray[Any]]]]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each job's start and result; what decoders raise becomes a sentence."""
    if not scan.lazy:
        for start, _, job in jobs:
            yield start, job()
        return
    starts: list[int] = []

    def safe() -> Iterator[Callable[[], NDArray[Any]]]:
        for start, what, job in jobs:
            starts.append(start)
            yield partial(_in_words, scan, what, job)

    for number, piece in enumerate(ahead(safe())):
        yield starts[number], piece


def _in_words(scan: Scan, what: str, job: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        return np.asarray(job())
    except (UnreadableImage, MemoryError):
        raise
    except Exception as err:  # decoders and stores raise many types
        reason = f"{what} cannot be decoded ({type(err).__name__}: {str(err)[:200]})"
        raise UnreadableImage(scan.path or scan.name, f"{reason}; the file may be damaged: copy it again") from err


def _frames(scan: Scan, leading: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
    """Return frames start..stop of the flattened leading axes."""
    boxes = [np.asarray(scan.counts[box]).reshape(-1, *scan.frame_shape) for box in _boxes(leading, start, stop)]
    return boxes[0] if len(boxes) == 1 else np.concatenate(boxes)


def _slices(scan: Scan, at: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
    where: Any = (*at, slice(start, stop))
    return np.asarray(scan.counts[where])


def _boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """Cover the flat positions start..stop of a grid with boxes, in order: part of a row, whole rows, part of a row."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    first, last = -(-start // inner), stop // inner
    if first > last:  # within one row
        yield from ((slice(last, first), *box) for box in _boxes(shape[1:], start - last * inner, stop - last * inner))
        return
    if start < first * inner:
        yield from ((slice(first - 1, first), *box) for box in _boxes(shape[1:], start - (first - 1) * inner, inner))
    if first < last:
        yield (slice(first, last), *(slice(None),) * (len(shape) - 1))
    if last * inner < stop:
        yield from ((slice(last, last + 1), *box) for box in _boxes(shape[1:], 0, stop - last * inner))


def chunks_of(counts: Any) -> tuple[int, ...]:
    """Return the extent that is decoded at a time along each axis; 1 where an array says nothing."""
    return getattr(counts, "chunks", None) or (1,) * counts.ndim


def _chunk_frames(counts: Any, leading: tuple[int, ...]) -> int:
    """Return how many neighbouring frames share chunks."""
    for axis, extent in enumerate(chunks_of(counts)[: len(leading)]):
        if extent > 1:
            return min(extent, leading[axis]) * math.prod(leading[axis + 1 :])
    return 1


def _step(total: int, held: int, unit: int) -> int:
    """Return the largest step that fits: whole units if one does, at least one, at most all."""
    return max(1, min(total, held // unit * unit if held >= unit else held))


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
