"""Uncompressed frames of a file, read when they are sliced, so that a scan may be larger than memory.

Holds a path and offsets but no open file: it crosses to worker processes whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.stream import LazyArray
from evbiodist.study.problems import UnreadableImage

#: Up to this size pixels are read at once, in bytes.
SMALL_BYTES = 256 << 20


class FramesOnDisk(LazyArray):
    """An array of shape (T, ...) whose frames lie at known places in a file; (...) for a single frame.

    Parameters
    ----------
    path : of the file; it must hold every frame whole.
    stored : dtype in the file, of either byte order; slices come in the machine's own.
    frame_shape : of one frame, slowest axis first.
    offsets : first byte of every frame.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.raw"
    >>> _ = file.write_bytes(np.arange(12, dtype=">i2").tobytes())
    >>> frames = FramesOnDisk(file, np.dtype(">i2"), (2, 3), (0, 12))
    >>> frames.shape, frames[1].tolist(), frames[:, 0, -1].tolist()
    ((2, 2, 3), [[6, 7, 8], [9, 10, 11]], [2, 8])
    """

    def __init__(
        self, path: Path, stored: np.dtype[Any], frame_shape: tuple[int, ...], offsets: tuple[int, ...]
    ) -> None:
        self.path, self.stored, self.frame_shape, self.offsets = path, stored, frame_shape, offsets
        self.shape = (len(offsets), *frame_shape) if len(offsets) > 1 else frame_shape
        self.dtype = stored.newbyteorder("=")

    def _take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        if len(self.offsets) == 1:
            return self._frame(0, index)
        first, rest = index[0], index[1:]
        if not isinstance(first, slice):
            return self._frame(first, rest)
        chosen = [self._frame(i, rest) for i in range(*first.indices(len(self.offsets)))]
        return np.stack(chosen) if chosen else np.empty((0, *self._frame(0, rest).shape), self.dtype)

    def _frame(self, number: int, index: tuple[int | slice, ...]) -> NDArray[Any]:
        pixels = np.memmap(self.path, self.stored, "r", self.offsets[number], self.frame_shape)
        return np.array(pixels[index], dtype=self.dtype)


def frames_from(
    path: Path, stored: np.dtype[Any], frame_shape: tuple[int, ...], offsets: tuple[int, ...]
) -> NDArray[Any]:
    """Return frames as an array when they are small, else as `FramesOnDisk`.

    Parameters
    ----------
    path, stored, frame_shape, offsets : as in `FramesOnDisk`.

    Returns
    -------
    array or FramesOnDisk : what `Scan.counts` takes.
    """
    frames: Any = FramesOnDisk(path, stored, frame_shape, offsets)
    return frames if frames.nbytes > SMALL_BYTES else frames[...]


def bad_pixels(path: Path, counts: NDArray[Any], warnings: list[str]) -> NDArray[np.bool_] | None:
    """Return which pixels are no finite numbers, with a warning, or None; pixels on disk are not looked at.

    Raises
    ------
    UnreadableImage : no pixel is a finite number.

    Examples
    --------
    >>> told = []
    >>> bad_pixels(Path("a.v"), np.array([1.0, np.nan]), told).tolist(), told
    ([False, True], ['50 % of the pixels are not finite numbers and are left out'])
    """
    if not isinstance(counts, np.ndarray) or counts.dtype.kind != "f":
        return None
    bad = ~np.isfinite(counts)
    if bad.all():
        raise UnreadableImage(path, "no pixel holds a finite number; export it again")
    if not bad.any():
        return None
    warnings.append(f"{100 * bad.mean():.3g} % of the pixels are not finite numbers and are left out")
    return bad
