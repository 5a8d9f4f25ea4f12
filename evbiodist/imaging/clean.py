"""Pixels that lie: saturated, dead, or hit by a cosmic ray; found without eating real bright peaks.

A hit is sharper than any light that came through the lens can be, and that is what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.io.scan import ACTIVITY, Camera, FloatArray, Scan

BoolArray = NDArray[np.bool_]

#: The narrowest spot of a camera that samples its lens (Nyquist), in pixels.
NARROWEST_FWHM_PX = 2.0
#: LA Cosmic's threshold, and its contrast to fine structure: low, because the sharpness test protects real peaks.
_SIGCLIP, _OBJLIM = 4.5, 1.0
#: Steps to the four pairs of opposite neighbours.
_PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))
_AROUND = np.ones((3, 3), bool)
#: A dead pixel reads less than this share of the lowest of its eight neighbours.
_DARK_SHARE = 0.5
#: Standard deviations above its surroundings from which a pixel of a dark frame is hot.
_HOT_SIGMA = 8.0
#: Margin that LA Cosmic's filters need, in pixels, and the smallest frame that leaves them room.
_MARGIN = 3
_MIN_PX = 7


@dataclass(frozen=True, eq=False)
class BadPixels:
    """Pixels that should carry no weight, by reason.

    Parameters
    ----------
    saturated, cosmic : True where so, in the shape of the scan's counts.
    dead : True where dead or hot in every frame, shape (Y, X); or in the shape of the counts where that differs
        between frames (a pixel that holds no number).
    notes : sentences on what was found and what was assumed.
    """

    saturated: BoolArray
    dead: BoolArray
    cosmic: BoolArray
    notes: tuple[str, ...] = ()

    @property
    def mask(self) -> BoolArray:
        """Pixels bad for any reason, in the shape of the scan's counts."""
        return np.asarray(self.saturated | self.dead | self.cosmic)

    @property
    def flags(self) -> tuple[str, ...]:
        """The words of `evbiodist.study.flags.FLAGS` that apply to the scan as a whole."""
        return tuple(word for word in ("saturated", "dead", "cosmic") if getattr(self, word).any())

    @property
    def hits(self) -> int:
        """Number of cosmic-ray hits: groups of touching pixels, counted frame by frame."""
        frames = self.cosmic.reshape(-1, *self.cosmic.shape[-2:])
        return sum(int(ndimage.label(frame, _AROUND)[1]) for frame in frames)


def find_bad_pixels(
    scan: Scan,
    *,
    fwhm_px: float = NARROWEST_FWHM_PX,
    dark: NDArray[Any] | None = None,
    sigma: float = 5.0,
) -> BadPixels:
    """Find saturated, dead and cosmic-ray pixels of a camera's frames.

    Cosmic rays are candidates of LA Cosmic that are also sharper than light through the lens can be. Light of any
    distribution, blurred by a Gaussian, obeys ``(I(-d) + I(+d)) / 2 >= exp(-4 ln2 d^2 / fwhm^2) I(0)`` for opposite
    neighbours at distance d: one source at s gives ``cosh`` of s on the left side, which is 1 or more, and
    intensities add. A pixel that breaks this in any of the four directions by `sigma` standard errors cannot be
    an organ, however small and bright. A pixel that is missed hence exceeds the mean of its neighbours, beyond
    noise, by a factor of at most ``exp(4 ln2 / fwhm^2)``: 2 for the default width, 1.2 for 4 px.

    Parameters
    ----------
    scan : frames of one camera, axes ending in YX; counts as stored, or a vendor's calibrated image.
    fwhm_px : full width at half maximum of the sharpest real spot, in px. The default of 2 is the narrowest that a
        camera can sample and so protects every real peak; the measured width finds weaker hits on organs.
    dark : (Y, X) dark or bias frame of the same binning, whose bright outliers are hot pixels.
    sigma : how far beyond noise a pixel has to break the bound.

    Returns
    -------
    BadPixels : whatever breaks the bound in half of a stack's frames at one pixel is hot, which is `dead`; a single
        frame cannot tell a hot pixel from a cosmic ray and calls both `cosmic`.

    Raises
    ------
    ValueError : a width or threshold that is not above zero, or a dark frame of another shape.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :40]
    >>> light = 5000 * np.exp(-4 * np.log(2) * ((y - 20) ** 2 + (x - 20) ** 2) / 3**2)
    >>> counts = np.random.default_rng(1).poisson(light + 20); counts[5, 7] += 900
    >>> scan = Scan("a", None, counts, "YX", camera=Camera(gain_e=1.0, read_noise_e=0.0, bias=0.0))
    >>> found = find_bad_pixels(scan)
    >>> found.hits, bool(found.cosmic[5, 7]), bool(found.mask[15:26, 15:26].any())
    (1, True, False)

    van Dokkum 2001 (PASP 113:1420) for the candidates, by astroscrappy (doi 10.5281/zenodo.1482019).
    """
    if not (fwhm_px > 0 and sigma > 0):
        raise ValueError(f"fwhm_px is {fwhm_px:g} and sigma {sigma:g}; both should be above 0")
    plane = scan.plane_shape
    if dark is not None and np.shape(dark) != plane:
        raise ValueError(
            f"the dark frame has shape {np.shape(dark)}, the frames of {scan.name} {plane}; "
            "give one of the same binning and field of view"
        )
    known = _known_dead(scan, dark)
    notes: list[str] = []
    frames = [_look(frame, known[i], fwhm_px, sigma) for i, frame in enumerate(_frames(scan, notes))]
    saturated, lost, low, sharp, candidate = (np.stack(masks) for masks in zip(*frames, strict=True))
    hot = _persistent(sharp)
    sharp = sharp & ~hot
    cosmic = sharp | (candidate & np.stack([ndimage.binary_dilation(s, _AROUND) for s in sharp]) & ~hot)
    dead = lost | known | low.any(axis=0) | hot
    notes += _tell(saturated, dead, cosmic, hot, len(frames))
    shape = scan.counts.shape
    return BadPixels(
        saturated.reshape(shape),
        dead[0] if (dead == dead[0]).all() else dead.reshape(shape),
        (cosmic & ~dead).reshape(shape),
        tuple(dict.fromkeys(notes)),
    )


@dataclass(frozen=True, eq=False)
class _Frame:
    """One plane: counts as stored, counts of light, its noise model (None: no camera), and where counts are clipped."""

    counts: FloatArray
    light: FloatArray
    camera: Camera | None
    integer: bool
    clipped: float


def _frames(scan: Scan, notes: list[str]) -> Iterator[_Frame]:
    """Yield the planes of a scan, each with its own noise model; None where there is no camera noise."""
    offset = np.broadcast_to(np.asarray(scan.offset, dtype=float), scan.counts.shape)
    integer = scan.counts.dtype.kind != "f"
    clipped = scan.camera.saturation
    if clipped is None:
        clipped = float(np.iinfo(scan.counts.dtype).max) if integer else np.inf
    camera_made = scan.unit != ACTIVITY and min(scan.plane_shape) >= _MIN_PX
    if scan.unit == ACTIVITY:
        notes.append("cosmic rays were not looked for: reconstructed activity is not a camera's frame")
    elif not camera_made:
        notes.append(f"cosmic rays were not looked for: frames of {scan.plane_shape} px are too small")
    for index in np.ndindex(*scan.counts.shape[:-2]):
        counts = np.asarray(scan.counts[index], dtype=np.float64)
        light = counts - offset[index]
        finite = np.isfinite(counts)
        if scan.unit == "counts" and scan.camera.bias is None and not offset[index].any() and finite.any():
            light = light - np.percentile(light[finite], 1)
            notes.append("the bias is unknown; the 1 % level of each frame stands for it")
        camera = None
        if camera_made and finite.any():
            filled = np.where(finite, light, np.median(light[finite]))
            camera, estimated = estimate_camera(Scan(scan.name, None, filled, "YX", camera=scan.camera))
            if estimated:
                notes.append("gain or read noise is unknown and was estimated from each frame")
        yield _Frame(counts, light, camera, integer, clipped)


def _look(
    frame: _Frame, known: BoolArray, fwhm_px: float, sigma: float
) -> tuple[BoolArray, BoolArray, BoolArray, BoolArray, BoolArray]:
    """Return where one plane is saturated, holds no number, is far too dark, too sharp, and LA Cosmic's candidates."""
    lost = ~np.isfinite(frame.counts)
    saturated = np.where(lost, False, frame.counts >= frame.clipped)
    nothing = np.zeros_like(lost)
    if frame.camera is None or (lost | known).all():
        return saturated, lost, nothing, nothing, nothing
    unusable = saturated | lost | known
    light = np.where(unusable, np.nan, frame.light)
    variance = np.where(unusable, np.nan, variance_counts(np.where(unusable, 0.0, light), frame.camera, frame.integer))
    low = _too_dark(light, variance, frame, sigma)
    light[low], variance[low] = np.nan, np.nan
    candidate = _la_cosmic(light, frame.camera)
    sharp = candidate & (_sharpness(light, variance, fwhm_px) > sigma)
    return saturated, lost, low, sharp, candidate


def _la_cosmic(light: FloatArray, camera: Camera) -> BoolArray:
    """Return LA Cosmic's candidates, in electrons; NaN pixels are left out."""
    import astroscrappy

    wide = np.pad(light, _MARGIN, mode="reflect")  # its filters leave two rows at the border unlooked at
    mask = np.isnan(wide)
    electrons = np.where(mask, 0.0, wide) * (camera.gain_e or 1.0)
    with _threads().limit(limits=1, user_api="openmp"):
        found, _ = astroscrappy.detect_cosmics(
            np.ascontiguousarray(electrons, dtype=np.float32),
            inmask=mask,
            gain=1.0,
            readnoise=max(camera.read_noise_e or 0.0, 0.1),
            satlevel=np.inf,
            sigclip=_SIGCLIP,
            objlim=_OBJLIM,
        )
    inner = (slice(_MARGIN, -_MARGIN),) * 2
    return np.asarray(found & ~mask, bool)[inner]


@cache
def _threads() -> Any:
    """Return the control of astroscrappy's threads: on a busy machine they wait for each other a hundred times longer."""
    import astroscrappy  # noqa: F401  so that its threads are there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _sharpness(light: FloatArray, variance: FloatArray, fwhm_px: float) -> FloatArray:
    """Return by how many standard errors a pixel breaks the bound in its worst direction, -inf where none is whole."""
    worst = np.full(light.shape, -np.inf)
    for step in _PAIRS:
        least = np.exp(-4 * np.log(2) * (step[0] ** 2 + step[1] ** 2) / fwhm_px**2)
        pair, spread = (_pair_sum(values, step) for values in (light, variance))
        excess = (least * light - pair / 2) / np.sqrt(least**2 * variance + spread / 4)
        worst = np.fmax(worst, excess)
    return worst


def _pair_sum(values: FloatArray, step: tuple[int, int]) -> FloatArray:
    """Return the sum of the two opposite neighbours of every pixel, NaN where one is outside or unusable."""
    outside = np.pad(values, 1, constant_values=np.nan)
    rows, columns = values.shape
    dy, dx = step
    return (
        outside[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
        + outside[1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + columns]
    )


def _too_dark(light: FloatArray, variance: FloatArray, frame: _Frame, sigma: float) -> BoolArray:
    """Return lone pixels that read less than half of the lowest of their neighbours, beyond noise."""
    ring = _AROUND.copy()
    ring[1, 1] = False
    lowest = ndimage.minimum_filter(np.where(np.isnan(light), np.inf, light), footprint=ring, mode="nearest")
    lowest = np.where(np.isfinite(lowest), lowest, 0.0)
    # half of less than nothing would be more: there the bias is overstated, and hides light whose noise stays
    share = np.where(lowest > 0, _DARK_SHARE, 1.0)
    spread = variance + share**2 * variance_counts(np.abs(lowest), frame.camera or Camera(), frame.integer)
    return np.asarray(share * lowest - light > sigma * np.sqrt(spread))


def _persistent(sharp: BoolArray) -> BoolArray:
    """Return pixels too sharp in at least two frames and in half of them: hot, as no ray comes twice."""
    frames = len(sharp)
    if frames < 2:
        return np.zeros(sharp.shape[1:], bool)
    return np.asarray(sharp.sum(axis=0) >= max(2, (frames + 1) // 2))


def _known_dead(scan: Scan, dark: NDArray[Any] | None) -> BoolArray:
    """Return what the scan and a dark frame already say, one plane a frame."""
    bad = np.zeros(scan.counts.shape, bool) if scan.bad is None else np.broadcast_to(scan.bad, scan.counts.shape)
    bad = bad.reshape(-1, *scan.plane_shape)
    if dark is None:
        return bad
    level = np.asarray(dark, dtype=np.float64)
    finite = np.isfinite(level)
    level = np.where(finite, level, np.median(level[finite]) if finite.any() else 0.0)
    above = level - ndimage.median_filter(level, 5)
    spread = float(np.std(np.clip(above, *np.percentile(above, [1, 99]))))
    return np.asarray(bad | ~finite | (above > _HOT_SIGMA * max(spread, 1e-12)))


def _tell(saturated: BoolArray, dead: BoolArray, cosmic: BoolArray, hot: BoolArray, frames: int) -> list[str]:
    """Return a sentence for each kind that was found."""
    told = []
    if saturated.any():
        told.append(f"{int(saturated.sum())} pixels are saturated")
    if dead.any():
        told.append(f"{int(dead.any(axis=0).sum())} pixels are dead, {int(hot.sum())} of them hot in most frames")
    if cosmic.any():
        alone = "; a single frame cannot tell a hot pixel from a ray" if frames == 1 else ""
        told.append(f"{int(cosmic.sum())} pixels were hit by cosmic rays{alone}")
    return told
