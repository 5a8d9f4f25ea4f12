"""Parametric maps: Patlak, Logan, MA1, the one-tissue model and NCA in every voxel, with errors and a failure map.

An image series may be larger than memory, and some of its voxels are always bad: blocks are read and computed one
by one, and what a voxel cannot carry is NaN with its reason as a number in the failure map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.graphical import maps_kernels as kernels
from evbiodist.kinetics.graphical import maps_nca as voxel_nca
from evbiodist.kinetics.graphical.frames import Floats, Frames, InputCurve, over_frames, spelled
from evbiodist.kinetics.graphical.maps_basis import Table
from evbiodist.kinetics.graphical.maps_basis import fill as fill_one_tissue
from evbiodist.study.units import derive

LEGEND = {
    kernels.OK: "estimated",
    kernels.MASKED: "outside the mask",
    kernels.NOT_FINITE: "a frame is infinite or not a number",
    kernels.SATURATED: "a frame is at or above the saturation level",
    kernels.EMPTY: "all frames are zero",
    kernels.NOT_POSITIVE: "a frame on the line is zero or below, so it gives no point",
    kernels.UNDETERMINED: "the curve does not determine the estimate (no washout, no uptake, or no spread)",
    kernels.AT_EDGE: "the best rate lies at an end of the range that was searched",
}
ENGINES = ("auto", "numpy", "numba")
_NUMBA_FROM = 3_000_000  # values below which compiling takes longer than it saves
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class ParametricMaps:
    """Maps of one analysis.

    Parameters
    ----------
    values : by name, in the series' spatial shape; NaN where the voxel has no estimate.
    se : standard errors by name; what has none (`tmax`) is not there.
    failure : unsigned 8-bit codes in the same shape; 0 where everything was estimated.
    units : by name.
    method : what was done.
    legend : what the codes mean, in words.
    """

    values: dict[str, NDArray[Any]]
    se: dict[str, NDArray[Any]]
    failure: NDArray[np.uint8]
    units: dict[str, str]
    method: str
    legend: dict[int, str] = field(default_factory=lambda: dict(LEGEND))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def failures(self) -> dict[str, int]:
        """Return how many voxels failed for each reason, in words; voxels outside the mask are not failures.

        Examples
        --------
        >>> frames = Frames.of([0, 1, 2], [1, 2, 3])
        >>> series = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, 1.0]])
        >>> patlak_map(frames, series, InputCurve.of([0, 3], [1, 1]), t_star_h=0).failures()
        {'a frame is infinite or not a number': 1}
        """
        codes, counts = np.unique(self.failure, return_counts=True)
        keep = (kernels.OK, kernels.MASKED)
        return {self.legend[int(c)]: int(n) for c, n in zip(codes, counts, strict=True) if c not in keep}


@dataclass(frozen=True, eq=False)
class _Job:
    """One analysis: what it gives, and how it fills the rows of a block, values first and then errors."""

    method: str
    names: tuple[str, ...]
    with_se: tuple[str, ...]
    units: tuple[tuple[str, float], ...]
    first: int  # frames before this one are not read
    solve: Callable[[Any, NDArray[Any], NDArray[np.uint8]], None]
    stand: int = 0  # the first so many values hold even where no line follows
    voxels: int = 8192  # solved at once; 0 for the whole block, when the loop cuts it up itself


def patlak_map(
    frames: Frames,
    series: Any,
    plasma: InputCurve | ArrayLike,
    *,
    t_star_h: float,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    mask: ArrayLike | None = None,
    saturation: float | None = None,
    unit: str = "au",
    input_unit: str = "",
    engine: str = "auto",
    block_mb: float = 64.0,
) -> ParametricMaps:
    """Return net uptake rate and intercept of Patlak's plot in every voxel.

    Parameters
    ----------
    frames : T of them.
    series : (T, ...) frame-major image series: numpy (also memory-mapped), zarr or dask array, whole numbers or
        floats. Frames that start before `t_star_h` are not read.
    plasma : the input; (T,) frame means of a reference tissue give the rate relative to it.
    t_star_h : frames that start before it are left out (choose it with `patlak` on the curve of a region).
    weights : (T,) relative weights of the plot's points; None weighs them equally.
    timing : as in `evbiodist.kinetics.graphical.methods.patlak`.
    mask : spatial shape, True where maps are wanted.
    saturation : voxels with a frame at or above it fail; None takes the highest number of whole-number series.
    unit, input_unit : of series and input; an empty `input_unit` is the series'.
    engine : ``numpy``, ``numba`` (an optional extra, faster on large series) or ``auto``.
    block_mb : of the series held in memory at once, when it is not there already.

    Returns
    -------
    ParametricMaps : `ki` and `intercept` with errors, in single precision for series of single precision.

    Raises
    ------
    ValueError : shapes, settings or an input that cannot be used.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> series = np.array([3.0, 5.0, 7.0, 9.0]).reshape(4, 1, 1, 1) * np.ones((4, 1, 2, 2))
    >>> maps = patlak_map(frames, series, InputCurve.of([0, 4], [2, 2]), t_star_h=0)
    >>> maps["ki"].round(12).ravel().tolist(), maps.units["ki"]
    ([1.0, 1.0, 1.0, 1.0], '1/h')

    Notes
    -----
    As `evbiodist.kinetics.graphical.methods.patlak`. The weights of the regression are the same in all voxels, so a map
    is a matrix product, and the residuals follow from the sum of squares.
    """
    value, total = over_frames(frames, plasma, timing)
    w = _on_line(frames, weights, t_star_h) * (value > 0)
    rows = np.flatnonzero(w)
    _enough(rows.size, t_star_h)
    u, x = w[rows], (total / np.where(value > 0, value, 1.0))[rows]
    design = np.stack([x, np.ones_like(x)], axis=1)
    normal = design.T @ (u[:, None] * design)
    inverse = np.linalg.inv(normal)
    share = (inverse @ (design * u[:, None]).T) / value[rows]
    first = int(rows[0])
    line = kernels.Line(
        rows - first,
        np.ascontiguousarray(share[0]),
        np.ascontiguousarray(share[1]),
        u / value[rows] ** 2,
        np.array([normal[0, 0], normal[0, 1], normal[1, 1]]),
        np.array([inverse[0, 0], inverse[1, 1]]),
        float(rows.size - 2),
    )
    fast = _fast(engine, series)

    def solve(m: Any, out: NDArray[Any], code: NDArray[np.uint8]) -> None:
        if fast:
            p = line
            shared = (p.rows, p.slope, p.intercept, p.square, p.normal, p.unit_var, p.df)
            kernels.compiled(kernels.patlak_loop)(m, *shared, *out, code)
        else:
            kernels.patlak_numpy(m, line, out, code)

    units = _units(("value/dose/time", "value/dose"), unit, input_unit)
    names = ("ki", "intercept")
    job = _Job("Patlak", names, names, units, first, solve, voxels=0 if fast else 8192)
    return _run(job, frames, series, mask, saturation, block_mb)


def logan_map(
    frames: Frames,
    series: Any,
    plasma: InputCurve | ArrayLike,
    *,
    t_star_h: float,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    mask: ArrayLike | None = None,
    saturation: float | None = None,
    unit: str = "au",
    input_unit: str = "",
    engine: str = "auto",
    block_mb: float = 64.0,
) -> ParametricMaps:
    """Return the distribution volume of Logan's plot in every voxel.

    Parameters
    ----------
    parameters : as in `patlak_map`; with frame means of a reference tissue as `plasma`, `vt` is the volume ratio.

    Returns
    -------
    ParametricMaps : `vt` and `intercept` (h) with errors. Voxel noise pulls Logan's volumes down; compare `ma1_map`.

    Raises
    ------
    ValueError : as `patlak_map`, or frames that start late.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> logan_map(frames, np.full((4, 1), 6.0), InputCurve.of([0, 4], [2, 2]), t_star_h=0)["vt"].round(12).tolist()
    [3.0]
    """
    names, units = ("vt", "intercept"), _units(("value/dose", "time"), unit, input_unit)
    p = _running(frames, plasma, weights, t_star_h, timing)
    job = _running_job("Logan", names, units, p, kernels.logan_numpy, kernels.logan_loop, _fast(engine, series))
    return _run(job, frames, series, mask, saturation, block_mb)


def ma1_map(
    frames: Frames,
    series: Any,
    plasma: InputCurve | ArrayLike,
    *,
    t_star_h: float,
    weights: ArrayLike | None = None,
    timing: str = "mean",
    mask: ArrayLike | None = None,
    saturation: float | None = None,
    unit: str = "au",
    input_unit: str = "",
    engine: str = "auto",
    block_mb: float = 64.0,
) -> ParametricMaps:
    """Return the distribution volume by MA1 in every voxel.

    Parameters
    ----------
    parameters : as in `logan_map`; `weights` are those of the tissue values.

    Returns
    -------
    ParametricMaps : `vt` and `intercept` (h) with errors.

    Raises
    ------
    ValueError : as `logan_map`.

    Examples
    --------
    >>> frames = Frames.of([0, 1, 2, 3], [1, 2, 3, 4])
    >>> maps = ma1_map(frames, np.array([[1.0], [2.4], [3.1], [3.4]]), InputCurve.of([0, 4], [2, 2]), t_star_h=0)
    >>> maps.failure.tolist(), maps.units["vt"]
    ([0], '1')
    """
    names, units = ("vt", "intercept"), _units(("value/dose", "time"), unit, input_unit)
    p = _running(frames, plasma, weights, t_star_h, timing)
    job = _running_job("MA1", names, units, p, kernels.ma1_numpy, kernels.ma1_loop, _fast(engine, series))
    return _run(job, frames, series, mask, saturation, block_mb)


def one_tissue_map(
    frames: Frames,
    series: Any,
    plasma: InputCurve,
    *,
    k2_range_per_h: tuple[float, float] = (0.06, 60.0),
    rates: int = 64,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    saturation: float | None = None,
    unit: str = "au",
    input_unit: str = "",
    engine: str = "auto",
    block_mb: float = 64.0,
) -> ParametricMaps:
    """Return uptake, washout and volume of the one-tissue model in every voxel, by basis functions.

    Parameters
    ----------
    k2_range_per_h : lowest and highest washout rate searched, 1/h.
    rates : number of basis functions, evenly spaced on the logarithmic scale; the best is refined between them.
    weights : (T,) relative weights of the frames (1 / variance); 0 leaves a frame out.
    others : as in `patlak_map`. There is no blood volume in the voxel; subtract it before.

    Returns
    -------
    ParametricMaps : `k1` (tissue per plasma and hour), `k2` (1/h) and `vt` with errors.

    Raises
    ------
    ValueError : as `patlak_map`, or a range without width.

    Examples
    --------
    >>> from evbiodist.kinetics.graphical.maps_basis import one_tissue_means
    >>> frames, plasma = Frames.of(range(8), range(1, 9)), InputCurve.of([0, 1, 8], [0, 9, 1])
    >>> series = 2 * one_tissue_means(frames, plasma, np.array([0.5])).T
    >>> maps = one_tissue_map(frames, series, plasma)
    >>> maps["k1"].round(2).tolist(), maps["k2"].round(2).tolist(), maps.units["k1"]
    ([2.0], [0.5], '1/h')

    Notes
    -----
    Gunn RN and others (1997) NeuroImage 6:279 for the basis functions; here they are averaged exactly over each
    frame, and the best rate is found between them by a parabola through the scores.
    """
    low, high = k2_range_per_h
    if not 0 < low < high or not math.isfinite(high):
        raise ValueError(f"k2_range_per_h is {low:g} to {high:g}, expected two rising rates above zero; widen it")
    if rates < 8:
        raise ValueError(f"rates is {rates}, expected at least 8 basis functions; 64 serve a range of a thousand")
    w = _on_line(frames, weights, 0.0)
    _enough(int((w > 0).sum()), 0.0)
    table = Table.of(frames, plasma, np.geomspace(low, high, rates), w)
    fast = _fast(engine, series)

    def solve(m: Any, out: NDArray[Any], code: NDArray[np.uint8]) -> None:
        fill_one_tissue(m, table, out, code, fast)

    names = ("k1", "k2", "vt")
    units = _units(("value/dose/time", "1/time", "value/dose"), unit, input_unit)
    return _run(
        _Job("one-tissue basis functions", names, names, units, 0, solve), frames, series, mask, saturation, block_mb
    )


def nca_map(
    frames: Frames,
    series: Any,
    *,
    terminal_from_h: float,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    saturation: float | None = None,
    unit: str = "au",
    block_mb: float = 64.0,
) -> ParametricMaps:
    """Return non-compartmental parameters in every voxel.

    Parameters
    ----------
    terminal_from_h : frames that start at or after it carry the terminal line, in all voxels.
    weights : (T,) relative weights of the logarithms (1 / CV squared of each frame); None takes the same
        percentage for all. Its size is found from the scatter about the terminal line.
    others : as in `patlak_map`.

    Returns
    -------
    ParametricMaps : `auclast` (to the end of the last frame), `cmax` and `tmax` (of frame means), `lambda_z`,
        `aucinf_pred`, `mrt_inf`; errors of all but `tmax`. Where there is no terminal line, `auclast`, `cmax`
        and `tmax` stand without error and the failure map says why.

    Raises
    ------
    ValueError : as `patlak_map`, or fewer than three frames on the terminal line.

    Examples
    --------
    >>> frames = Frames.of(range(6), range(1, 7))
    >>> series = (8.0 * 0.5 ** np.arange(6)).reshape(6, 1)
    >>> maps = nca_map(frames, series, terminal_from_h=2, unit="bq/mL")
    >>> maps["lambda_z"].round(4).tolist(), maps["auclast"].tolist(), maps.units["auclast"]
    ([0.6931], [15.75], 'bq*h/mL')
    """
    w = _on_line(frames, weights, 0.0)
    if (w <= 0).any():
        raise ValueError("weights has a zero, but every frame is part of the area; leave the frame out of the series")
    _enough(int((frames.start_h >= terminal_from_h - 1e-9).sum()), terminal_from_h)
    p = voxel_nca.Terminal.of(frames, terminal_from_h, w)

    def solve(m: Any, out: NDArray[Any], code: NDArray[np.uint8]) -> None:
        voxel_nca.fill(m, p, out, code)

    dimensions = ("value*time", "value", "time", "1/time", "value*time", "time")
    units = _units(dimensions, unit, "")
    job = _Job("NCA", voxel_nca.VALUES, voxel_nca.WITH_SE, units, 0, solve, voxel_nca.STAND, 2048)
    return _run(job, frames, series, mask, saturation, block_mb)


def _on_line(frames: Frames, weights: ArrayLike | None, t_star_h: float) -> Floats:
    w = np.ones(len(frames)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(frames),) or not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(
            f"weights have shape {w.shape}, expected ({len(frames)},), none below zero; "
            "give one weight for each frame, 0 to leave it out"
        )
    return np.where(frames.start_h >= t_star_h - 1e-9, w, 0.0)


def _enough(n: int, from_h: float) -> None:
    if n < _FEWEST:
        raise ValueError(
            f"{n} usable frames start at or after {from_h:g} h, expected at least {_FEWEST}; start earlier"
        )


def _units(dimensions: tuple[str, ...], unit: str, input_unit: str) -> tuple[tuple[str, float], ...]:
    return tuple(derive(d, unit, spelled(input_unit or unit)) for d in dimensions)


def _running(
    frames: Frames, plasma: InputCurve | ArrayLike, weights: ArrayLike | None, t_star_h: float, timing: str
) -> kernels.Running:
    own, passed = frames.steps(timing)
    _, total = over_frames(frames, plasma, timing)
    w = _on_line(frames, weights, t_star_h)
    _enough(int((w > 0).sum()), t_star_h)
    rows = np.arange(int(np.flatnonzero(w)[-1]) + 1)
    return kernels.Running(rows, own[rows], passed[rows], total[rows], w[rows], float((w > 0).sum() - 2))


def _running_job(
    method: str,
    names: tuple[str, ...],
    units: tuple[tuple[str, float], ...],
    p: kernels.Running,
    plain: Callable[..., None],
    loop: Callable[..., None],
    fast: bool,
) -> _Job:
    def solve(m: Any, out: NDArray[Any], code: NDArray[np.uint8]) -> None:
        if fast:
            kernels.compiled(loop)(m, p.rows, p.own, p.passed, p.total, p.weight, p.df, *out, code)
        else:
            plain(m, p, out, code)

    return _Job(method, names, names, units, 0, solve, voxels=0 if fast else 8192)


def _fast(engine: str, series: Any) -> bool:
    if engine not in ENGINES:
        raise ValueError(f"engine is '{engine}', expected {', '.join(ENGINES)}; leave it out")
    if engine == "numba" and not kernels.have_numba():
        raise ValueError(
            "engine is 'numba', which is not installed; run pip install evbiodist[montecarlo], or take numpy"
        )
    if engine == "auto":
        return kernels.have_numba() and math.prod(getattr(series, "shape", (0,))) >= _NUMBA_FROM
    return engine == "numba"


def _run(
    job: _Job, frames: Frames, series: Any, mask: ArrayLike | None, saturation: float | None, block_mb: float
) -> ParametricMaps:
    """Walk over the series block by block and gather the maps."""
    shape, kind = _checked(frames, series, block_mb)
    inside = None if mask is None else np.asarray(mask, dtype=bool)
    if inside is not None and inside.shape != shape:
        raise ValueError(f"mask has shape {inside.shape}, expected that of the volume, {shape}; resample it")
    if saturation is None and series.dtype.kind in "iu":
        saturation = float(np.iinfo(series.dtype).max)
    count = math.prod(shape)
    out = np.empty((len(job.names) + len(job.with_se), count), dtype=kind)
    code = np.empty(count, dtype=np.uint8)
    where = None if inside is None else inside.ravel()
    for at, block in _blocks(series, job.first, shape, kind, where, block_mb):
        if block is None:
            out[:, at], code[at] = np.nan, kernels.MASKED
            continue
        _fill(job, block, out, code, at, where, saturation)
    factors = [f for _, f in job.units] + [job.units[job.names.index(n)][1] for n in job.with_se]
    for row, factor in zip(out, factors, strict=True):
        if factor != 1:
            row *= factor
    volumes = out.reshape(-1, *shape)
    return ParametricMaps(
        dict(zip(job.names, volumes, strict=False)),
        dict(zip(job.with_se, volumes[len(job.names) :], strict=True)),
        code.reshape(shape),
        {name: unit for name, (unit, _) in zip(job.names, job.units, strict=True)},
        job.method,
    )


def _checked(frames: Frames, series: Any, block_mb: float) -> tuple[tuple[int, ...], Any]:
    """Shape of the volume, and the precision to work in."""
    shape = getattr(series, "shape", None)
    if shape is None or not hasattr(series, "dtype"):
        raise ValueError(
            f"series is a {type(series).__name__}, expected a numpy, zarr or dask array; wrap it in numpy.asarray"
        )
    if len(shape) < 2 or shape[0] != len(frames):
        raise ValueError(
            f"series has shape {tuple(shape)}, expected ({len(frames)}, ...) with the frames first; move the time axis"
        )
    if series.dtype.kind not in "iuf":
        raise ValueError(f"series holds {series.dtype}, expected whole numbers or floats; convert it")
    if not block_mb > 0:
        raise ValueError(f"block_mb is {block_mb}, expected MB above zero; leave it out for 64")
    exact = series.dtype.itemsize <= (4 if series.dtype.kind == "f" else 2)
    return tuple(int(s) for s in shape[1:]), np.float32 if exact else np.float64


def _blocks(
    series: Any, first: int, shape: tuple[int, ...], kind: Any, where: NDArray[np.bool_] | None, block_mb: float
) -> Iterator[tuple[Any, NDArray[Any] | None]]:
    """Yield where a block lies among the voxels and its values (T, n), or None where the mask is empty."""
    if isinstance(series, np.ndarray) and series.dtype == kind and series.flags.c_contiguous and series.dtype.isnative:
        yield slice(0, math.prod(shape)), series[first:].reshape(len(series) - first, -1)
        return
    frame_bytes = (series.shape[0] - first) * np.dtype(kind).itemsize
    for box in _boxes(shape, getattr(series, "chunks", None), max(1, int(block_mb * 1e6 / frame_bytes))):
        at = _flat(box, shape)
        if where is not None and not where[at].any():
            yield at, None
            continue
        values = np.asarray(series[(slice(first, None), *box)])
        yield at, np.ascontiguousarray(values, dtype=kind).reshape(len(values), -1)


def _boxes(shape: tuple[int, ...], chunks: Any, voxels: int) -> Iterator[tuple[slice, ...]]:
    """Cut a volume into boxes of at most so many voxels, along whole chunks as far as that goes."""
    size = list(shape)
    for whole in (True, False):
        for axis in range(len(size)):
            grain = _grain(chunks, axis) if whole else 1
            others = math.prod(size) // size[axis] if size[axis] else 1
            if math.prod(size) > voxels:
                size[axis] = min(size[axis], max(grain, voxels // others // grain * grain))
    for start in np.ndindex(*(-(-n // s) if s else 0 for n, s in zip(shape, size, strict=True))):
        yield tuple(slice(i * s, min(n, (i + 1) * s)) for i, s, n in zip(start, size, shape, strict=True))


def _grain(chunks: Any, axis: int) -> int:
    """Length of a stored chunk along a spatial axis: zarr gives a number, dask a tuple of them."""
    if not chunks:
        return 1
    chunk = chunks[axis + 1]
    return int(chunk[0] if isinstance(chunk, tuple) else chunk)


def _flat(box: tuple[slice, ...], shape: tuple[int, ...]) -> Any:
    """Positions of a box in the flattened volume; a slice when they follow each other."""
    plane = math.prod(shape[1:])
    if all(b.start == 0 and b.stop == n for b, n in zip(box[1:], shape[1:], strict=True)):
        return slice(box[0].start * plane, box[0].stop * plane)
    at = np.zeros((1,) * len(shape), dtype=np.intp)
    for axis, (b, n) in enumerate(zip(box, shape, strict=True)):
        index = np.arange(b.start, b.stop).reshape((-1,) + (1,) * (len(shape) - axis - 1))
        at = at * n + index
    return at.ravel()


def _fill(
    job: _Job,
    block: NDArray[Any],
    out: NDArray[Any],
    code: NDArray[np.uint8],
    at: Any,
    where: NDArray[np.bool_] | None,
    saturation: float | None,
) -> None:
    """Solve a block in pieces, into place when all of its voxels are wanted and lie together."""
    n = block.shape[1]
    step = job.voxels or n
    if where is not None and not job.voxels:
        step = 65536
    for low in range(0, n, max(step, 1)):
        high = min(n, low + step)
        piece = block if (low, high) == (0, n) else block[:, low:high]
        if isinstance(at, slice):
            place: Any = slice(at.start + low, at.start + high)
        else:
            place = at[low:high]
        wanted = None if where is None else where[place]
        if isinstance(place, slice) and (wanted is None or wanted.all()):
            if not job.voxels:
                piece = np.ascontiguousarray(piece)
            _solve(job, piece, out[:, place], code[place], saturation)
            continue
        keep = np.ones(high - low, dtype=bool) if wanted is None else wanted
        values = np.full((len(out), high - low), np.nan, dtype=out.dtype)
        codes = np.full(high - low, kernels.MASKED, dtype=np.uint8)
        if keep.any():
            part, part_codes = np.empty((len(out), int(keep.sum())), dtype=out.dtype), codes[keep]
            _solve(job, np.ascontiguousarray(piece[:, keep]), part, part_codes, saturation)
            values[:, keep], codes[keep] = part, part_codes
        out[:, place], code[place] = values, codes


def _solve(job: _Job, m: NDArray[Any], out: NDArray[Any], code: NDArray[np.uint8], saturation: float | None) -> None:
    job.solve(m, out, code)
    if saturation is not None:
        with np.errstate(invalid="ignore"):
            code[(m >= saturation).any(axis=0) & (code != kernels.NOT_FINITE)] = kernels.SATURATED
    bad = code != kernels.OK
    if bad.any():
        out[:, bad & (code < kernels.NOT_POSITIVE)] = np.nan
        out[job.stand :, bad] = np.nan
