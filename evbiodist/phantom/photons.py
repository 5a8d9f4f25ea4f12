"""Photons followed one by one through a voxel mouse: what a camera sees of a source, and how light gets in.

It shares no equation with the diffusion footprints, so it can check them.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Dice = NDArray[np.uint64]
#: Absorption and scattering per mm, and the mean cosine of the scattering angle, of one label.
Optics = tuple[float, float, float]

_CHUNKS = 16  # streams of random numbers; a constant, so that results do not depend on the number of threads
_ROULETTE, _SURVIVE = 0.1, 10.0  # a weight below the first goes on with chance 1/10, ten times as heavy
_STEPS_MOST, _IDLE_MOST = 10_000_000, 10_000  # a photon that outlasts them (in clear, trapping tissue) is lost
_BRIDGE = 4  # voxel faces looked ahead across air: the notches between the steps of a voxel surface
_SMOOTH = 1.5  # width of the Gaussian, in voxels, that smooths the body for the direction of its surface
_GOLDEN, _MIX = np.uint64(0x9E3779B97F4A7C15), (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BITS = (np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11))
_UP, _DOWN, _UP2, _DOWN2, _MISSING, _MIRRORED, _MET = range(7)  # places in _Tally.total


@dataclass(frozen=True, eq=False)
class Escape:
    """Where the light of a source goes, per emitted photon.

    Parameters
    ----------
    above, below : what a camera above, and one below, reads in each pixel, shape (Y, X): 4 pi x radiance x pixel
        area, so that a source of P photons/s in air reads P in sum. `below` is in the same (Y, X), not mirrored.
    above_var, below_var : variance of these by the chance of the simulation.
    escaped, escaped_se : share of the light that leaves the body in any direction, and its standard error.
    absorbed : share absorbed, by label.
    lost : share given up because it was trapped in clear tissue.
    photons : number of photons launched.
    """

    above: FloatArray
    below: FloatArray
    above_var: FloatArray
    below_var: FloatArray
    escaped: float
    escaped_se: float
    absorbed: dict[int, float]
    lost: float
    photons: int

    @property
    def balance(self) -> float:
        """All shares together: 1 but for the chance of Russian roulette."""
        return self.escaped + sum(self.absorbed.values()) + self.lost


@dataclass(frozen=True, eq=False)
class Illumination:
    """Where light that shines on the body goes.

    Parameters
    ----------
    fluence : fluence rate in each voxel for an irradiance of 1 on a horizontal plane, shape (Z, Y, X); without unit.
    fluence_var : its variance, from the spread between independent parts of the simulation.
    power_mm2 : light that meets the body for an irradiance of 1 per mm2, in mm2: what the shares are shares of.
    mirrored : share reflected at the surface without entering.
    upward, downward : share that entered and left again, upward and downward.
    absorbed : share absorbed, by label.
    lost : share given up because it was trapped in clear tissue.
    """

    fluence: FloatArray
    fluence_var: FloatArray
    power_mm2: float
    mirrored: float
    upward: float
    downward: float
    absorbed: dict[int, float]
    lost: float


def similarity(mu_a: float, mu_s_reduced: float, g: float = 0.9) -> Optics:
    """Return the optics of a tissue of which only the reduced scattering is known.

    Parameters
    ----------
    mu_a, mu_s_reduced : absorption and reduced scattering, per mm.
    g : mean cosine of the scattering angle; the time to trace a photon grows as 1 / (1 - g).

    Returns
    -------
    tuple : (mu_a, mu_s, g) with mu_s = mu_s' / (1 - g), per mm.

    Raises
    ------
    ValueError : g not between -1 and 1, or a negative coefficient.

    Examples
    --------
    >>> similarity(0.03, 1.0, g=0.75)
    (0.03, 4.0, 0.75)
    """
    _check_optics("the tissue", (mu_a, mu_s_reduced, g))
    return mu_a, mu_s_reduced / (1 - g), g


def trace(
    labels: NDArray[Any], optics: Mapping[int, Optics], source: ArrayLike, spacing_mm: float | Sequence[float],
    photons: int, seed: int, *, n: float = 1.4, cone_deg: float = 25.0, faces: bool = False,
    threads: int | None = None,
) -> Escape:  # fmt: skip
    """Follow photons from a source inside the body to the cameras above and below it.

    The rules are those of MCML: exponential free paths, Henyey-Greenstein scattering, absorption by weight,
    Russian roulette, Fresnel's reflection at the surface. A path is marched from voxel border to voxel border
    and uses up its optical depth by what it crosses. The surface's direction comes from the smoothed body, since
    voxel faces would send light out at wrong angles; a photon that leaves a voxel and meets tissue again within
    four voxel borders has only crossed a notch between voxel steps and goes straight on. Leaving is otherwise
    final: light that would meet another part of a concave body is not followed. The inside has one refractive index.

    Parameters
    ----------
    labels : tissue of each voxel, integers of shape (Z, Y, X); 0 is air, z grows upward to the camera above.
    optics : (mu_a, mu_s, g) of each label, the first two per mm.
    source : isotropic emission of each voxel, shape (Z, Y, X), not negative; only its shares matter.
    spacing_mm : edge of a voxel in mm, or one for each of z, y, x.
    photons : number to launch.
    seed : the same seed gives the same result with any number of threads.
    n : refractive index of all tissue; air has 1.
    cone_deg : a photon is seen if it leaves within this angle of the camera's direction; a pixel is 4 pi times
        the mean intensity in the cone. A wide cone also sees steep flanks, and reads a flat matt surface low
        by (1 + cos alpha) / 2: 5 % at 25 degrees, 1 % at 10, where 6 times fewer photons count. At 90 the images
        are twice the exitance per pixel.
    faces : take the voxels' own faces as the surface (for slabs).
    threads : number of threads; None takes every core.

    Returns
    -------
    Escape : images and shares, per emitted photon. A pixel is that of the air voxel entered on leaving; it is seen
        only if no tissue lies between that voxel and the camera.

    Raises
    ------
    ValueError : arrays that do not fit, a label without optics, emission in air, numbers out of range, or numba
        not installed.

    References
    ----------
    Wang L, Jacques SL, Zheng L (1995) Comput Methods Programs Biomed 47:131-146.

    Examples
    --------
    >>> body, lamp = np.ones((9, 9, 9), int), np.zeros((9, 9, 9))
    >>> lamp[4, 4, 4] = 1
    >>> seen = trace(body, {1: (0.0, 0.0, 0.0)}, lamp, 1.0, 20_000, seed=1, n=1.0)
    >>> round(seen.escaped, 6), bool(abs(seen.above.sum() - 1) < 0.2)
    (1.0, True)
    """
    body, names = _body(labels, optics, spacing_mm, n, faces)
    if not 0 < cone_deg <= 90:
        raise ValueError(f"cone_deg is {cone_deg}; expected an angle above 0 and up to 90 degrees")
    share = _source(source, body.tissue)
    light = _Light(np.zeros(0, np.int64), math.cos(math.radians(cone_deg)), 0.0, 1)
    image, square = np.zeros((2, *body.tissue.shape[1:])), np.zeros((2, *body.tissue.shape[1:]))
    absorbed, total = np.zeros(len(names) + 1), np.zeros(7)
    for part in _parts(body, light, share, photons, seed, threads):
        image += part.image
        square += part.square
        absorbed += part.absorbed
        total += part.total
    # 4 pi over the cone's solid angle, 2 pi (1 - cos alpha)
    scale = 2.0 / (1.0 - light.cos_cone)
    mean, variance = image / photons * scale, (square - image**2 / photons) * (scale / photons) ** 2
    out = float(total[_UP] + total[_DOWN])
    spread = float(total[_UP2] + total[_DOWN2]) - out**2 / photons
    return Escape(
        mean[0], mean[1], variance[0], variance[1], out / photons, math.sqrt(max(spread, 0.0)) / photons,
        {name: float(a) / photons for name, a in zip(names, absorbed[1:], strict=True)},
        float(total[_MISSING]) / photons, photons,
    )  # fmt: skip


def illuminate(
    labels: NDArray[Any], optics: Mapping[int, Optics], spacing_mm: float | Sequence[float], photons: int, seed: int,
    *, from_below: bool = False, cone_deg: float = 0.0, n: float = 1.4, faces: bool = False,
    threads: int | None = None,
) -> Illumination:  # fmt: skip
    """Shine light on the body from above (or below) and follow it inside.

    Light arrives with irradiance 1 on a horizontal plane. A photon that misses the body counts as launched. The
    fluence is the path length in a voxel over its volume, so it holds where nothing is absorbed.

    Parameters
    ----------
    labels, optics, spacing_mm, seed, n, faces, threads : as for `trace`.
    photons : number to launch over the whole grid.
    from_below : shine upward.
    cone_deg : 0 for parallel light; else directions fill a cone of this half angle about the vertical, of even
        radiance, up to 75.

    Returns
    -------
    Illumination : fluence per irradiance, and where the light went.

    Raises
    ------
    ValueError : as for `trace`.

    Examples
    --------
    >>> slab = np.ones((4, 1, 1), int)
    >>> lit = illuminate(slab, {1: (0.5, 0.0, 0.0)}, (1.0, 1e4, 1e4), 1000, seed=1, n=1.0)
    >>> bool(abs(lit.downward - np.exp(-2)) < 0.05)
    True
    """
    body, names = _body(labels, optics, spacing_mm, n, faces)
    if not 0 <= cone_deg <= 75:
        raise ValueError(f"cone_deg is {cone_deg}; expected an angle from 0 (parallel light) to 75 degrees")
    light = _Light(np.zeros(0, np.int64), 2.0, math.sin(math.radians(cone_deg)), 1 if from_below else -1)
    fluence, square = np.zeros(body.tissue.shape), np.zeros(body.tissue.shape)
    absorbed, total = np.zeros(len(names) + 1), np.zeros(7)
    counts = _split(photons)
    for count, part in zip(counts, _parts(body, light, None, photons, seed, threads), strict=False):
        fluence += part.fluence
        square += part.fluence**2 / count
        absorbed += part.absorbed
        total += part.total
    volume = float(np.prod(1 / body.per_mm))
    between = (square - fluence**2 / photons) / (len(counts) - 1) if len(counts) > 1 else np.full_like(fluence, np.nan)
    share = 1 / total[_MET] if total[_MET] > 0 else 0.0
    return Illumination(
        fluence / photons / volume, between / photons / volume**2, float(total[_MET]) / photons, float(total[_MIRRORED] * share),
        float(total[_UP] * share), float(total[_DOWN] * share),
        {name: float(a * share) for name, a in zip(names, absorbed[1:], strict=True)}, float(total[_MISSING] * share),
    )  # fmt: skip


# What is handed to the compiled steps. Positions are in voxels, directions are cosines in mm, order z, y, x.


class _Body(NamedTuple):
    tissue: NDArray[np.int32]  # 0 air, else the place of the label in the tables
    room: NDArray[np.int32]  # voxels to the next other tissue, as a king walks, less one
    slope: NDArray[np.float32]  # (Z, Y, X, 3) minus the gradient of the smoothed body; size 0: voxel faces count
    top: NDArray[np.int32]  # (Y, X) highest tissue voxel, -1 where there is none
    bottom: NDArray[np.int32]  # (Y, X) lowest tissue voxel, Z where there is none
    per_mm: FloatArray  # voxels per mm
    mu_t: FloatArray
    albedo: FloatArray
    g: FloatArray
    n: float


class _Light(NamedTuple):
    starts: IntArray  # flat place of the voxel in which each photon starts; none: light from outside
    cos_cone: float  # of the cameras' acceptance
    sin_cone: float  # of the light from outside
    way: int  # along z, of the light from outside


class _Tally(NamedTuple):
    image: FloatArray  # (2, Y, X) weight seen from above, from below
    square: FloatArray
    absorbed: FloatArray
    total: FloatArray
    fluence: FloatArray  # (Z, Y, X) weight x path in mm; size 0: not kept
    dice: Dice  # state of the random numbers, shape (1,)


def _body(
    labels: NDArray[Any], optics: Mapping[int, Optics], spacing_mm: float | Sequence[float], n: float, faces: bool
) -> tuple[_Body, list[int]]:
    """Check the mouse and put it into tables; return also the labels in the order of the tables."""
    labels = np.asarray(labels)
    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have shape {labels.shape} and type {labels.dtype}; expected integers in (Z, Y, X)")
    values, flat = np.unique(labels, return_inverse=True)
    names = [int(v) for v in values if v != 0]
    if not names:
        raise ValueError("labels mark no tissue; every voxel is 0 (air)")
    missing = [name for name in names if name not in optics]
    if missing:
        raise ValueError(f"labels {missing} have no optics; give (mu_a, mu_s, g) for each of them")
    for name in names:
        _check_optics(f"label {name}", optics[name])
    if not (math.isfinite(n) and n >= 1):
        raise ValueError(f"the refractive index is {n}; expected 1 or more, relative to air")
    table = np.array([(0.0, 0.0, 0.0), *(optics[name] for name in names)], np.float64)
    place = np.array([0 if v == 0 else names.index(int(v)) + 1 for v in values], np.int32)
    tissue = np.ascontiguousarray(place[flat].reshape(labels.shape))
    spacing = _spacing(spacing_mm)
    mu_t = table[:, 0] + table[:, 1]
    albedo = np.divide(table[:, 1], mu_t, out=np.zeros_like(mu_t), where=mu_t > 0)
    inside, height = tissue > 0, tissue.shape[0]
    top = np.where(inside.any(0), height - 1 - inside[::-1].argmax(0), -1).astype(np.int32)
    bottom = np.where(inside.any(0), inside.argmax(0), height).astype(np.int32)
    slope = np.zeros((0, 0, 0, 0), np.float32) if faces else _slope(inside, spacing)
    return _Body(
        tissue, _room(tissue), slope, top, bottom, 1 / spacing, mu_t, albedo, table[:, 2].copy(), float(n)
    ), names


def _check_optics(whose: str, optics: Optics) -> None:
    mu_a, mu_s, g = optics
    if not (0 <= mu_a < math.inf and 0 <= mu_s < math.inf and -1 < g < 1):
        raise ValueError(f"{whose} has optics (mu_a, mu_s, g) = {optics}; expected coefficients per mm of 0 or more, "
                         "and g between -1 and 1")  # fmt: skip


def _spacing(spacing_mm: float | Sequence[float]) -> FloatArray:
    given = np.asarray(spacing_mm, np.float64)
    if given.shape not in {(), (3,)} or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"spacing_mm is {spacing_mm}; expected one edge in mm above 0, or three for z, y, x")
    return np.array(np.broadcast_to(given, 3))


def _room(tissue: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return how far from a voxel, in voxels along every axis, all is of its own tissue."""
    room = np.zeros(tissue.shape, np.int32)
    for k in range(1, int(tissue.max()) + 1):
        own = np.pad(tissue == k, 1)
        room += np.maximum(ndimage.distance_transform_cdt(own, "chessboard")[1:-1, 1:-1, 1:-1] - 1, 0)
    return room


def _slope(inside: NDArray[np.bool_], spacing: FloatArray) -> NDArray[np.float32]:
    """Return which way the smoothed body falls off in each voxel, shape (Z, Y, X, 3), in mm."""
    width = _SMOOTH * spacing.max() / spacing
    smooth = inside.astype(np.float32)
    steps = [ndimage.gaussian_filter(smooth, width, order=[int(a == axis) for a in range(3)], mode="constant")
             for axis in range(3)]  # fmt: skip
    return np.ascontiguousarray(np.stack([-s / d for s, d in zip(steps, spacing, strict=True)], -1), np.float32)


def _source(source: ArrayLike, tissue: NDArray[np.int32]) -> FloatArray:
    """Return the share of each voxel in the emission, in flat order."""
    emission = np.asarray(source, np.float64)
    if emission.shape != tissue.shape:
        raise ValueError(f"the source has shape {emission.shape}, the labels {tissue.shape}; expected the same")
    if not np.isfinite(emission).all() or (emission < 0).any() or not emission.any():
        raise ValueError("the source must be finite, nowhere negative, and emit somewhere")
    if emission[tissue == 0].any():
        raise ValueError(f"the source emits in {int((emission[tissue == 0] > 0).sum())} voxels of air (label 0); "
                         "cut it to the body")  # fmt: skip
    emission = emission.ravel() / emission.max()
    return np.asarray(emission / emission.sum())


def _split(photons: int) -> list[int]:
    if not isinstance(photons, int | np.integer) or photons < 1:
        raise ValueError(f"photons is {photons}; expected a whole number of 1 or more")
    return [c for c in (photons // _CHUNKS + (i < photons % _CHUNKS) for i in range(_CHUNKS)) if c]


def _parts(
    body: _Body, light: _Light, source: FloatArray | None, photons: int, seed: int, threads: int | None
) -> Iterator[_Tally]:
    """Run the chunks, each with its own random numbers, and give their tallies in order.

    With a source its images are kept, with light from outside the fluence.
    """
    run = _compiled()
    counts = _split(photons)
    plane = (2, *body.tissue.shape[1:])
    kept = (0, 0, 0) if source is not None else body.tissue.shape

    def chunk(count: int, seeds: np.random.SeedSequence) -> _Tally:
        own = light
        if source is not None:
            each = np.random.default_rng(seeds).multinomial(count, source)
            own = light._replace(starts=np.repeat(np.arange(source.size), each))
        dice = np.asarray(seeds.generate_state(1, np.uint64), np.uint64)
        tally = _Tally(np.zeros(plane), np.zeros(plane), np.zeros(body.mu_t.size), np.zeros(7), np.zeros(kept), dice)
        run(count, body, own, tally)
        return tally

    streams = np.random.SeedSequence(seed).spawn(len(counts))
    workers = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(counts), workers):  # a few at a time: each holds a fluence of the whole grid
            these = slice(first, first + workers)
            yield from pool.map(chunk, counts[these], streams[these])


@cache
def _compiled() -> Callable[..., None]:
    """Compile the steps below, in a namespace where each sees the others compiled."""
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        raise ValueError("photon tracing needs numba, which is not installed; "
                         "run: pip install 'evbiodist[montecarlo]'") from None  # fmt: skip
    space = dict(globals())
    compiler = numba.njit(nogil=True, error_model="numpy", forceinline=True)
    for step in _STEPS:
        space[step.__name__] = compiler(FunctionType(step.__code__, space, step.__name__))
    return space["_run"]


# The steps. They are written for the compiler: plain loops, arrays changed in place (p, u, cell: one photon's
# position, direction and voxel).


def _uniform(dice: Dice) -> float:
    """Return a number in [0, 1) from SplitMix64 (Steele, Lea & Flood 2014), 8 times as fast as the compiler's own."""
    dice[0] += _GOLDEN
    z = dice[0]
    z = (z ^ (z >> _BITS[0])) * _MIX[0]
    z = (z ^ (z >> _BITS[1])) * _MIX[1]
    return float((z ^ (z >> _BITS[2])) >> _BITS[3]) * 2.0**-53


def _run(photons: int, body: _Body, light: _Light, tally: _Tally) -> None:
    p, u, cell = np.empty(3), np.empty(3), np.empty(3, np.int64)
    for i in range(photons):
        weight = 1.0
        if light.starts.size > 0:
            _emit(body, light.starts[i], p, u, cell, tally.dice)
        else:
            weight = _shine(body, light, p, u, cell, tally)
        if weight > 0:
            _walk(body, light, p, u, cell, weight, tally)


def _emit(body: _Body, place: int, p: FloatArray, u: FloatArray, cell: IntArray, dice: Dice) -> None:
    """Start somewhere in a voxel, given by its flat place, in any direction."""
    rows, columns = body.tissue.shape[1], body.tissue.shape[2]
    cell[0], cell[1], cell[2] = place // (rows * columns), place // columns % rows, place % columns
    for axis in range(3):
        p[axis] = cell[axis] + _uniform(dice)
    u[0] = 2 * _uniform(dice) - 1
    across = math.sqrt(1 - u[0] * u[0])
    a, b = _turn(dice)
    u[1], u[2] = across * a, across * b


def _shine(body: _Body, light: _Light, p: FloatArray, u: FloatArray, cell: IntArray, tally: _Tally) -> float:
    """Start outside, over the area from which this direction meets the grid; return the weight that gets in."""
    sine = math.sqrt(_uniform(tally.dice)) * light.sin_cone
    a, b = _turn(tally.dice)
    u[0], u[1], u[2] = light.way * math.sqrt(1 - sine * sine), sine * a, sine * b
    height = body.tissue.shape[0]
    area, p[0], cell[0] = 1.0, 0.0, 0
    if light.way < 0:
        p[0], cell[0] = height, height - 1
    for axis in range(1, 3):
        slant = height / body.per_mm[0] * u[axis] / abs(u[0]) * body.per_mm[axis]  # in voxels, over the grid's height
        wide = body.tissue.shape[axis] + abs(slant)
        p[axis] = _uniform(tally.dice) * wide - max(slant, 0.0)
        cell[axis] = math.floor(p[axis])
        area *= wide / body.per_mm[axis]
    axis = 0
    while _label(body, cell) == 0:
        distance, axis = _next_face(body, p, u, cell)
        _cross(body, p, u, cell, distance, axis)
        if cell[0] < 0 or cell[0] >= height:
            return 0.0
    n0, n1, n2 = _normal(body, u, cell, axis, -1.0)
    cosine = -(u[0] * n0 + u[1] * n1 + u[2] * n2)
    mirrored = _fresnel(cosine, 1 / body.n)
    tally.total[_MET] += area
    tally.total[_MIRRORED] += area * mirrored
    _refract(u, n0, n1, n2, -cosine, 1 / body.n)
    return area * (1 - mirrored)


def _walk(
    body: _Body, light: _Light, p: FloatArray, u: FloatArray, cell: IntArray, weight: float, tally: _Tally
) -> None:
    """Follow one photon until it leaves or its weight is played away."""
    least, depth = _ROULETTE * weight, -math.log(1 - _uniform(tally.dice))
    steps, idle = 0, 0
    while steps < _STEPS_MOST and idle < _IDLE_MOST:
        weight, depth, scattered = _wander(body, p, u, cell, weight, least, depth, tally)
        if weight == 0:
            return
        path, axis = _next_face(body, p, u, cell)
        if tally.fluence.size > 0:
            tally.fluence[cell[0], cell[1], cell[2]] += weight * path
        depth = max(depth - path * body.mu_t[body.tissue[cell[0], cell[1], cell[2]]], 0.0)
        _cross(body, p, u, cell, path, axis)
        if _label(body, cell) == 0 and not _bridge(body, p, u, cell) and _surface(body, p, u, cell, axis, tally.dice):
            _see(body, light, u, cell, weight, tally)
            return
        steps += 1 + scattered
        idle = 0 if scattered > 0 else idle + 1
    tally.total[_MISSING] += weight


def _wander(
    body: _Body, p: FloatArray, u: FloatArray, cell: IntArray, weight: float, least: float, depth: float, tally: _Tally
) -> tuple[float, float, int]:
    """Scatter inside the box of one tissue around a voxel, until a flight leads out of it.

    Returns the weight (0: absorbed), the optical depth still to go, and the number of scatterings.
    """
    k = body.tissue[cell[0], cell[1], cell[2]]
    mu, albedo, g = body.mu_t[k], body.albedo[k], body.g[k]
    if mu == 0:
        return weight, depth, 0
    room = 0 if tally.fluence.size > 0 else body.room[cell[0], cell[1], cell[2]]
    z0, y0, x0 = cell[0] - room, cell[1] - room, cell[2] - room
    z1, y1, x1 = cell[0] + room + 1, cell[1] + room + 1, cell[2] + room + 1
    z, y, x, uz, uy, ux = p[0], p[1], p[2], u[0], u[1], u[2]
    fz, fy, fx = body.per_mm[0] / mu, body.per_mm[1] / mu, body.per_mm[2] / mu
    lost, scattered = 0.0, 0
    while scattered < _STEPS_MOST:
        end_z, end_y, end_x = z + depth * uz * fz, y + depth * uy * fy, x + depth * ux * fx
        if end_z < z0 or end_z > z1 or end_y < y0 or end_y > y1 or end_x < x0 or end_x > x1:
            break
        z, y, x = end_z, end_y, end_x
        if tally.fluence.size > 0:
            tally.fluence[cell[0], cell[1], cell[2]] += weight * depth / mu
        lost += weight * (1 - albedo)
        weight *= albedo
        if weight < least:
            weight *= _SURVIVE if _uniform(tally.dice) * _SURVIVE < 1 else 0.0
            if weight == 0:
                break
        uz, uy, ux = _scatter(uz, uy, ux, g, tally.dice)
        depth = -math.log(1 - _uniform(tally.dice))
        scattered += 1
    if scattered == 0 and weight > 0:
        return weight, depth, 0
    tally.absorbed[k] += lost
    p[0], p[1], p[2], u[0], u[1], u[2] = z, y, x, uz, uy, ux
    cell[0] = max(z0, min(int(z), z1 - 1))  # on the rim, rounding must not move a photon into the next tissue
    cell[1] = max(y0, min(int(y), y1 - 1))
    cell[2] = max(x0, min(int(x), x1 - 1))
    return weight, depth, scattered


def _label(body: _Body, cell: IntArray) -> int:
    for axis in range(3):
        if cell[axis] < 0 or cell[axis] >= body.tissue.shape[axis]:
            return 0
    return body.tissue[cell[0], cell[1], cell[2]]


def _next_face(body: _Body, p: FloatArray, u: FloatArray, cell: IntArray) -> tuple[float, int]:
    """Return the distance in mm to the voxel face ahead, and its axis."""
    nearest, at = 1e300, 0
    for axis in range(3):
        speed = u[axis] * body.per_mm[axis]
        if speed != 0:
            distance = (cell[axis] + (1 if speed > 0 else 0) - p[axis]) / speed
            if distance < nearest:
                nearest, at = distance, axis
    return max(nearest, 0.0), at


def _cross(body: _Body, p: FloatArray, u: FloatArray, cell: IntArray, distance: float, axis: int) -> None:
    """Move onto the face ahead and into the voxel behind it."""
    for a in range(3):
        p[a] += distance * u[a] * body.per_mm[a]
    if u[axis] > 0:
        cell[axis] += 1
        p[axis] = cell[axis]
    else:
        p[axis] = cell[axis]
        cell[axis] -= 1


def _bridge(body: _Body, p: FloatArray, u: FloatArray, cell: IntArray) -> bool:
    """Cross a notch between voxel steps, straight on; stay if no tissue lies close ahead."""
    if body.slope.size == 0:
        return False
    p0, p1, p2, c0, c1, c2 = p[0], p[1], p[2], cell[0], cell[1], cell[2]
    for _ in range(_BRIDGE):
        distance, axis = _next_face(body, p, u, cell)
        _cross(body, p, u, cell, distance, axis)
        if _label(body, cell) > 0:
            return True
    p[0], p[1], p[2], cell[0], cell[1], cell[2] = p0, p1, p2, c0, c1, c2
    return False


def _surface(body: _Body, p: FloatArray, u: FloatArray, cell: IntArray, axis: int, dice: Dice) -> bool:
    """Let the photon out (true), or turn it back inside by Fresnel's chance."""
    out = 1 if u[axis] > 0 else -1
    cell[axis] -= out
    n0, n1, n2 = _normal(body, u, cell, axis, 1.0)
    cosine = u[0] * n0 + u[1] * n1 + u[2] * n2
    if _uniform(dice) >= _fresnel(cosine, body.n):
        cell[axis] += out
        _refract(u, n0, n1, n2, cosine, body.n)
        return True
    u[0] -= 2 * cosine * n0
    u[1] -= 2 * cosine * n1
    u[2] -= 2 * cosine * n2
    if u[axis] * out >= 0:  # back inside by the smooth surface, still outward through the voxel's face
        cell[axis] += out
        if not _bridge(body, p, u, cell):
            cell[axis] -= out
            u[axis] = -u[axis]
    return False


def _normal(body: _Body, u: FloatArray, cell: IntArray, axis: int, way: float) -> tuple[float, float, float]:
    """Return the outward direction of the surface on the face of a tissue voxel which u crosses outward (way 1).

    With way -1 u comes in. Where the smoothed surface contradicts the photon's way, the voxel's face decides.
    """
    out = 1 if u[axis] * way > 0 else -1
    if body.slope.size > 0:
        s = body.slope[cell[0], cell[1], cell[2]]
        n0, n1, n2 = float(s[0]), float(s[1]), float(s[2])
        if 0 <= cell[axis] + out < body.tissue.shape[axis]:
            cell[axis] += out
            s = body.slope[cell[0], cell[1], cell[2]]
            cell[axis] -= out
            n0, n1, n2 = n0 + s[0], n1 + s[1], n2 + s[2]
        length = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
        if (u[0] * n0 + u[1] * n1 + u[2] * n2) * way > 1e-6 * length > 0:
            return n0 / length, n1 / length, n2 / length
    return (
        float(out) if axis == 0 else 0.0,
        float(out) if axis == 1 else 0.0,
        float(out) if axis == 2 else 0.0,
    )


def _fresnel(cosine: float, n: float) -> float:
    """Return the share of unpolarised light reflected, going from index n into index 1."""
    sine2 = n * n * (1 - cosine * cosine)
    if sine2 >= 1:
        return 1.0
    beyond = math.sqrt(1 - sine2)
    across, along = (n * cosine - beyond) / (n * cosine + beyond), (cosine - n * beyond) / (cosine + n * beyond)
    return (across * across + along * along) / 2


def _refract(u: FloatArray, n0: float, n1: float, n2: float, cosine: float, n: float) -> None:
    """Turn a direction by Snell's law; the cosine to the normal keeps its sign."""
    beyond = math.copysign(math.sqrt(max(1 - n * n * (1 - cosine * cosine), 0.0)), cosine) - n * cosine
    u[0], u[1], u[2] = n * u[0] + beyond * n0, n * u[1] + beyond * n1, n * u[2] + beyond * n2


def _scatter(z: float, y: float, x: float, g: float, dice: Dice) -> tuple[float, float, float]:
    """Turn by Henyey and Greenstein's phase function, about axes built as by Duff et al. (2017, JCGT 6(1):1-8)."""
    cosine = 2 * _uniform(dice) - 1
    if abs(g) > 1e-6:
        ratio = (1 - g * g) / (1 + g * cosine)
        cosine = min(max((1 + g * g - ratio * ratio) / (2 * g), -1.0), 1.0)
    a, b = _turn(dice)
    sine = math.sqrt(1 - cosine * cosine)
    a, b, sign = a * sine, b * sine, math.copysign(1.0, z)
    f = -1 / (sign + z)
    return (
        cosine * z - sign * x * a - y * b,
        cosine * y + sign * x * y * f * a + (sign + y * y * f) * b,
        cosine * x + (1 + sign * x * x * f) * a + x * y * f * b,
    )


def _turn(dice: Dice) -> tuple[float, float]:
    """Return the cosine and sine of a random angle, by von Neumann's rejection from the unit disc."""
    while True:
        a, b = 2 * _uniform(dice) - 1, 2 * _uniform(dice) - 1
        square = a * a + b * b
        if 0 < square <= 1:
            return (a * a - b * b) / square, 2 * a * b / square


def _see(body: _Body, light: _Light, u: FloatArray, cell: IntArray, weight: float, tally: _Tally) -> None:
    """Count a photon that left into an air voxel, and show it to the camera it flies to."""
    down = 0 if u[0] > 0 else 1
    tally.total[_UP + down] += weight
    tally.total[_UP2 + down] += weight * weight
    if abs(u[0]) < light.cos_cone:
        return
    row = min(max(cell[1], 0), body.tissue.shape[1] - 1)
    column = min(max(cell[2], 0), body.tissue.shape[2] - 1)
    hidden = cell[0] >= body.bottom[row, column] if down else cell[0] <= body.top[row, column]
    beside = row != cell[1] or column != cell[2]  # beyond the grid there is nothing to hide behind
    if beside or not hidden:
        tally.image[down, row, column] += weight
        tally.square[down, row, column] += weight * weight


_STEPS = (_uniform, _turn, _fresnel, _refract, _scatter, _label, _next_face, _cross, _normal, _bridge, _surface, _see,
          _wander, _walk, _emit, _shine, _run)  # fmt: skip
