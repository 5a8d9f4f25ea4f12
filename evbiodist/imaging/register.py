"""Where organs lie in each frame of a series.

Organs move onto the frames, never pixels onto organs: what is measured stays as the camera gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import FloatArray, Scan

#: Largest shift between two frames that is believed, as a share of the field of view.
_LARGEST_SHIFT = 0.3
#: Correlation below which two frames do not show the same thing.
_LEAST_CORRELATION = 0.7
#: Share of a picture's variance between dark and bright from which there is an outline; noise alone has 2/pi = 0.64.
_CLEAR = 0.7
#: Pictures are searched coarsely at no more than this many pixels a side, and matched at no more than this many points.
_COARSE_PX, POINTS = 96, 60_000
#: Blocks along an axis whose disagreement gives the uncertainty.
_BLOCKS = {2: 5, 3: 3}


@dataclass(frozen=True)
class Motion:
    """How the animal lies in one frame against the reference frame.

    Parameters
    ----------
    shift_px : along the axes of a frame, of the point in the image's middle.
    rotation_deg : about the image's middle, from axis Y towards axis X; 0 for volumes.
    shift_se_px, rotation_se_deg : standard errors.
    correlation : of the frame with the one it was matched to.
    matched_to : number of that frame; None where nothing could be matched, and then nothing moves.
    """

    shift_px: tuple[float, ...]
    rotation_deg: float = 0.0
    shift_se_px: tuple[float, ...] = ()
    rotation_se_deg: float = 0.0
    correlation: float = 1.0
    matched_to: int | None = None

    def matrix(self, spacing: FloatArray) -> FloatArray:
        """Return the rotation in px, shape (ndim, ndim), for pixels of this shape."""
        turn = np.eye(len(spacing))
        a = np.deg2rad(self.rotation_deg)
        turn[-2:, -2:] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
        return np.asarray(turn * spacing / spacing[:, None])


@dataclass(frozen=True, eq=False)
class Registered:
    """A series with the motion of every frame.

    Parameters
    ----------
    scan : as it was; its pixels are kept.
    reference : number of the frame that organs are outlined on.
    motions : one a frame, in the order of `Scan.frames`.
    notes : sentences for people.
    """

    scan: Scan
    reference: int
    motions: tuple[Motion, ...]
    notes: tuple[str, ...] = ()

    def flags(self, frame: int) -> tuple[str, ...]:
        """Return `not_registered` for a frame that could not be matched."""
        return () if self.motions[frame].matched_to is not None else ("not_registered",)

    def apply(self, organs: OrganMap, frame: int) -> OrganMap:
        """Return organs that were outlined on the reference frame as they lie in another one.

        Parameters
        ----------
        organs : on the grid of one frame.
        frame : its number, from 0.

        Returns
        -------
        OrganMap : moved to the nearest pixel; `outline_px` holds the uncertainty of the place as well. A frame that could not be
            matched gets the organs unmoved, and a note.

        Raises
        ------
        ValueError : another grid, or no organ left in the frame.
        """
        motion = self.motions[frame]
        if organs.labels.shape != self.scan.frame_shape:
            raise ValueError(f"the {organs.origin} has shape {organs.labels.shape}, a frame of {self.scan.name} "
                             f"{self.scan.frame_shape}; put the organs on the scan's grid")  # fmt: skip
        if frame == self.reference:
            return organs
        if motion.matched_to is None:
            note = f"frame {frame} of {self.scan.name} could not be registered; the organs lie where they were outlined"
            return replace(organs, notes=(*organs.notes, note))
        labels = _pushed(organs.labels, motion, spacing_of(self.scan), 0)
        moved = np.bincount(labels.ravel(), minlength=int(organs.labels.max()) + 1)
        shares = {
            organs.names[v]: moved[v] / n for v, n in enumerate(np.bincount(organs.labels.ravel()).tolist()) if v and n
        }
        lost = [name for name, share in shares.items() if share == 0]
        if lost:
            raise ValueError(
                f"{', '.join(lost)} left frame {frame} of {self.scan.name} with the animal; leave the frame out"
            )
        cut = [name for name, share in shares.items() if share < 0.9]
        notes = (f"part of {', '.join(cut)} lies outside frame {frame}",) if cut else ()
        fractions = organs.fractions
        if fractions is not None:
            fractions = np.stack([_pushed(f, motion, spacing_of(self.scan), 1) for f in fractions])
        return replace(
            organs,
            labels=labels,
            outline_px=float(np.hypot(organs.outline_px, self._place_se(organs.labels, motion))),
            notes=(*organs.notes, *notes),
            fractions=fractions,
        )

    def _place_se(self, labels: NDArray[np.int32], motion: Motion) -> float:
        """Return how far organs may be off, in px: the shift's error and the turn's at their distance from the middle."""
        middle = (np.array(labels.shape) - 1) / 2
        away = (np.argwhere(labels > 0) - middle)[:, -2:]
        turn = np.deg2rad(motion.rotation_se_deg) * np.sqrt(np.mean(np.sum(away**2, axis=1)))
        return float(np.sqrt(np.mean(np.square(motion.shift_se_px)) + turn**2 / 2))

    def resampled(self, frame: int) -> FloatArray:
        """Return a frame's calibrated image on the reference frame's grid, for display only; NaN outside the frame."""
        image = calibrated_frame(self.scan, frame)
        spacing, motion = spacing_of(self.scan), self.motions[frame]
        matrix = motion.matrix(spacing)
        middle = (np.array(image.shape) - 1) / 2
        offset = middle + np.array(motion.shift_px) - matrix @ middle
        return np.asarray(ndimage.affine_transform(image, matrix, offset, order=1, cval=np.nan))


def calibrated_frame(scan: Scan, number: int) -> FloatArray:
    """Return one frame's signal in the scan's unit, bad pixels as NaN; of a lazy scan nothing else is read.

    Parameters
    ----------
    number : of the frame, from 0, in the order of `Scan.frames`.

    Examples
    --------
    >>> calibrated_frame(Scan("a", None, np.ones((2, 1, 1)), "TYX", scale=[[[1]], [[3]]]), 1).tolist()
    [[3.0]]
    """
    index = tuple(int(i) for i in np.unravel_index(number, _leading(scan)))
    offset, scale = (np.broadcast_to(np.asarray(v, np.float64), scan.counts.shape) for v in (scan.offset, scan.scale))
    frame = (np.asarray(scan.counts[index], dtype=np.float64) - offset[index]) * scale[index]
    return frame if scan.bad is None else np.where(np.broadcast_to(scan.bad, scan.counts.shape)[index], np.nan, frame)


def calibrated_frames(scan: Scan) -> Iterator[FloatArray]:
    """Yield one `calibrated_frame` after another; one is in memory at a time."""
    for number in range(int(np.prod(_leading(scan)))):
        yield calibrated_frame(scan, number)


def _leading(scan: Scan) -> tuple[int, ...]:
    """Return how many frames lie along each axis that is not of a frame."""
    return tuple(scan.counts.shape[: scan.counts.ndim - len(scan.frame_shape)])


def register_series(
    scan: Scan,
    by: Literal["body", "intensity"] = "intensity",
    reference: int = 0,
    *,
    bodies: Sequence[OrganMap | NDArray[Any]] | None = None,
    rotate: bool = True,
    max_rotation_deg: float = 15.0,
    max_se_px: float = 1.0,
) -> Registered:
    """Find how the animal lies in every frame of a series against a reference frame.

    Parameters
    ----------
    scan : with several frames, (Y, X) or (Z, Y, X).
    by : `intensity` matches what shines (dim tissue counts as well as hot spots, and what changed between frames is given
        little weight); `body` matches outlines and is the choice where the signal itself travels.
    reference : number of the frame that organs are outlined on.
    bodies : with `body`, the animal's outline in every frame (label images, masks); found in each frame where None.
    rotate : whether to look for rotation in the plane; volumes are shifted only.
    max_rotation_deg : largest rotation between two frames.
    max_se_px : a match is believed up to this uncertainty of the organs' place.

    Returns
    -------
    Registered : a frame that does not match the reference is tried against the nearest matched frame; one that
        matches neither is left in place and flagged `not_registered`.

    Raises
    ------
    ValueError : one frame only, no such reference, or outlines that do not fit.

    Notes
    -----
    The start is the best phase or cross-correlation over a set of rotations; then weighted least squares on the
    smoothed pictures, with a gain and an offset for each pair. The uncertainty is that of leaving out one block of
    the picture at a time, so that parts that move differently show up in it; a hot spot that travels pulls the match
    by up to three times as much (0.3 px on phantoms of 96 px), and so far that it is refused where little else shines.

    Examples
    --------
    >>> y, x = np.mgrid[:64, :64]
    >>> body = lambda dy, dx: np.exp(-(((y - 30 - dy) / 16) ** 4 + ((x - 32 - dx) / 8) ** 4))
    >>> found = register_series(Scan("a", None, np.stack([body(0, 0), body(3, -2)]), "TYX"))
    >>> [round(s, 1) for s in found.motions[1].shift_px], round(abs(found.motions[1].rotation_deg))
    ([3.0, -2.0], 0)

    Kuglin 1975 (Proc IEEE Cybernetics Society, 163) for phase correlation; Evangelidis 2008 (IEEE PAMI 30:1858) for
    matching up to gain and offset; Kunsch 1989 (Ann Stat 17:1217) for leaving out blocks.
    """
    frames = int(np.prod(_leading(scan)))
    _check_series(scan, by, reference, bodies, frames)
    turning = rotate and len(scan.frame_shape) == 2
    matcher = _Matcher(spacing_of(scan), _angles(max_rotation_deg) if turning else (0.0,), max_se_px)
    first = _picture(scan, by, bodies, reference)
    zero = (0.0,) * len(scan.frame_shape)
    found = {reference: Motion(zero, shift_se_px=zero, matched_to=reference)}
    for frame in sorted(set(range(frames)) - {reference}, key=lambda f: (abs(f - reference), f)):
        picture = _picture(scan, by, bodies, frame)
        motion = matcher.match(first, picture)
        if motion is not None:
            found[frame] = replace(motion, matched_to=reference)
            continue
        found[frame] = Motion(zero, shift_se_px=zero, correlation=0.0)
        matched = [f for f, m in found.items() if m.matched_to is not None and f != reference]
        if matched:
            through = min(matched, key=lambda f: (abs(f - frame), f))
            motion = matcher.match(_picture(scan, by, bodies, through), picture)
            if motion is not None:
                found[frame] = _chained(found[through], replace(motion, matched_to=through), matcher.spacing)
    notes = []
    if turning and scan.spacing_mm is None:
        notes.append(f"{scan.name} does not say its pixel size; pixels were taken as square")
    missed = [str(f) for f in range(frames) if found[f].matched_to is None]
    if missed:
        notes.append(f"frames not registered: {', '.join(missed)}; their organs lie where they were outlined")
    return Registered(scan, reference, tuple(found[f] for f in range(frames)), tuple(notes))


def _check_series(
    scan: Scan, by: str, reference: int, bodies: Sequence[OrganMap | NDArray[Any]] | None, frames: int
) -> None:
    if frames < 2:
        raise ValueError(f"{scan.name} holds one frame; there is nothing to register it to")
    if not 0 <= reference < frames:
        raise ValueError(f"there is no frame {reference} in {scan.name}; it holds frames 0 to {frames - 1}")
    if by not in ("body", "intensity"):
        raise ValueError(f"frames are registered by 'body' or 'intensity', not by '{by}'")
    if bodies is None:
        return
    if by != "body":
        raise ValueError("outlines were given, but frames are to be registered by intensity; use by='body'")
    if len(bodies) != frames:
        raise ValueError(
            f"{len(bodies)} outlines were given for {frames} frames of {scan.name}; give one for every frame"
        )
    for number, body in enumerate(bodies):
        shape = np.shape(body.labels if isinstance(body, OrganMap) else body)
        if shape != scan.frame_shape:
            raise ValueError(f"outline {number} has shape {shape}, a frame of {scan.name} {scan.frame_shape}; draw it on the scan's "
                             "grid")  # fmt: skip


def spacing_of(scan: Scan) -> FloatArray:
    """Return the pixels' shape; square where the scan does not say, which matters to rotations only."""
    return np.asarray(scan.spacing_mm or np.ones(len(scan.frame_shape)), dtype=np.float64)


def _angles(largest: float) -> tuple[float, ...]:
    steps = int(np.ceil(largest / 4))
    return tuple(sorted(np.linspace(-largest, largest, 2 * steps + 1).tolist(), key=abs))


def _pushed(image: NDArray[Any], motion: Motion, spacing: FloatArray, order: Literal[0, 1]) -> NDArray[Any]:
    """Return an image of the reference frame as it lies in the moved one."""
    back = np.linalg.inv(motion.matrix(spacing))
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - back @ (middle + np.array(motion.shift_px))
    if order == 0:
        return np.asarray(ndimage.affine_transform(image, back, offset, order=0))
    return np.asarray(ndimage.affine_transform(image, back, offset, order=1))


def _chained(first: Motion, then: Motion, spacing: FloatArray) -> Motion:
    """Return the motion to a frame by way of another; errors add in quadrature."""
    shift = then.matrix(spacing) @ np.array(first.shift_px) + then.shift_px
    return replace(
        then,
        shift_px=tuple(shift.tolist()),
        rotation_deg=first.rotation_deg + then.rotation_deg,
        shift_se_px=tuple(np.hypot(first.shift_se_px, then.shift_se_px).tolist()),
        rotation_se_deg=float(np.hypot(first.rotation_se_deg, then.rotation_se_deg)),
    )


# ---- pictures: what is matched


def _picture(scan: Scan, by: str, bodies: Sequence[OrganMap | NDArray[Any]] | None, number: int) -> FloatArray:
    """Return what of a frame is matched: its logarithmic signal, or the distance to the body's outline."""
    if bodies is not None:
        body = bodies[number]
        return distance_to_edge(np.asarray(body.labels if isinstance(body, OrganMap) else body) != 0, spacing_of(scan))
    picture = logarithmic(calibrated_frame(scan, number), 1.5)
    return distance_to_edge(outline_in(picture), spacing_of(scan)) if by == "body" else picture


def logarithmic(frame: FloatArray, smooth_px: float) -> FloatArray:
    """Return arcsinh of the smoothed signal over its noise, so that dim tissue counts as well as the hot spot."""
    finite = np.isfinite(frame)
    if not finite.any():
        return np.zeros(frame.shape)
    if not finite.all():  # gaps lie still while the animal moves: filled from beside them they hold nothing fast
        nearest = ndimage.distance_transform_edt(~finite, return_distances=False, return_indices=True)
        frame = frame[tuple(nearest)]
    # so do hot pixels, which a median takes out; smoothed, because the logarithm of single photons is but their presence
    smooth = ndimage.gaussian_filter(ndimage.median_filter(frame, 3), smooth_px)
    level = float(np.median(smooth))
    noise = 1.4826 * float(np.median(np.abs(smooth - level)))
    top = float(np.percentile(smooth, 99.5)) - level
    return np.arcsinh((smooth - level) / max(noise, top / 100, 1e-300))


def outline_in(picture: FloatArray) -> NDArray[np.bool_]:
    """Return the bright part of a picture, without holes and crumbs; nothing where dark and bright are not two crowds."""
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(picture, 2.0)
    if np.ptp(smooth) == 0:
        return np.zeros(picture.shape, bool)
    bright = smooth > threshold_otsu(smooth)
    gap = smooth[bright].mean() - smooth[~bright].mean()
    if bright.mean() * (1 - bright.mean()) * gap**2 < _CLEAR * smooth.var():
        return np.zeros(picture.shape, bool)
    bright = ndimage.binary_fill_holes(bright)
    pieces, _ = ndimage.label(bright)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= 0.1 * sizes.max())[pieces] & bright)


def distance_to_edge(mask: NDArray[np.bool_], spacing: FloatArray) -> FloatArray:
    """Return the distance to an outline in the unit of the spacing, positive inside, cut off where it tells nothing more."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    far, half = 0.08 * float(np.max(np.array(mask.shape) * spacing)), spacing.min() / 2
    inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (mask, ~mask))
    return np.clip(np.where(mask, inside - half, half - outside), -far, far)


# ---- matching two pictures


@dataclass(frozen=True, eq=False)
class _Matcher:
    """Finds the motion between two pictures, or None when it is not to be trusted."""

    spacing: FloatArray
    angles: tuple[float, ...]
    max_se_px: float

    def match(self, reference: FloatArray, moved: FloatArray) -> Motion | None:
        if np.ptp(reference) == 0 or np.ptp(moved) == 0 or min(reference.shape) < 4:
            return None
        motion = self._coarse(reference, moved)
        for sigma in (3.0, 1.0):
            blurred = (ndimage.gaussian_filter(reference, sigma), ndimage.gaussian_filter(moved, sigma))
            finer = self._refined(*blurred, motion)
            if finer is None:
                return None
            motion = finer
        extent = np.array(reference.shape)
        # organs lie within a quarter of the field from its middle
        turn = np.deg2rad(motion.rotation_se_deg) * extent[-2:].max() / 4
        doubt = np.hypot(max(motion.shift_se_px), turn)
        trusted = (
            motion.correlation >= _LEAST_CORRELATION
            and doubt <= self.max_se_px
            and (np.abs(motion.shift_px) <= _LARGEST_SHIFT * extent).all()
            and abs(motion.rotation_deg) <= 1.2 * max(self.angles) + 1e-9
        )
        return motion if trusted else None

    def _coarse(self, reference: FloatArray, moved: FloatArray) -> Motion:
        """Return the best of phase and cross-correlation over the rotations, on thinned pictures."""
        from skimage.registration import phase_cross_correlation

        step = max(1, int(np.ceil(max(reference.shape) / _COARSE_PX)))
        thin = (slice(None, None, step),) * reference.ndim
        small, other = (_faded(ndimage.gaussian_filter(p, max(1.0, step / 2))[thin]) for p in (reference, moved))
        best = Motion((0.0,) * reference.ndim, correlation=-1.0)
        if not (small.any() and other.any()):
            return best
        for angle in self.angles:
            turned = _pushed(small, Motion((0.0,) * small.ndim, angle), self.spacing, 1)
            for normalization in ("phase", None):
                shift, *_ = phase_cross_correlation(turned, other, normalization=normalization)
                there = ndimage.shift(turned, -shift, order=0)
                correlation = _correlation(there.ravel(), other.ravel())
                if (
                    correlation > best.correlation + 1e-9
                    and (np.abs(shift) <= _LARGEST_SHIFT * np.array(small.shape)).all()
                ):
                    best = Motion(tuple((-step * shift).tolist()), angle, correlation=correlation)
        return best

    def _refined(self, reference: FloatArray, moved: FloatArray, start: Motion) -> Motion | None:
        """Return the least-squares motion from a start, with its standard errors; None where it runs away."""
        pair = _Pair.of(reference, moved, self.spacing, turning=len(self.angles) > 1)
        motion = start
        for _ in range(40):
            r, J, w = pair.residual(motion)
            if len(r) < 0.3 * len(pair.points):
                return None
            try:
                step = -np.linalg.solve(J.T @ (w[:, None] * J), J.T @ (w * r))
            except np.linalg.LinAlgError:
                return None
            step = step[: pair.free] * min(1.0, 2.0 / max(np.abs(step[: reference.ndim]).max(), 1e-12))
            turn = float(np.rad2deg(step[-1])) if pair.turning else 0.0
            shift = np.array(motion.shift_px) + step[: reference.ndim]
            motion = replace(motion, shift_px=tuple(shift.tolist()), rotation_deg=motion.rotation_deg + turn)
            if np.abs(step[: reference.ndim]).max() < 2e-3 and abs(turn) < 2e-3:
                break
        se = pair.block_errors(motion)
        if se is None:
            return None
        return replace(
            motion,
            shift_se_px=tuple(se[: reference.ndim].tolist()),
            rotation_se_deg=float(np.rad2deg(se[-1])) if pair.turning else 0.0,
            correlation=pair.correlation(motion),
        )


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two pictures and the points of the first at which the second is compared with it."""

    points: FloatArray  # (P, ndim) px of the reference
    wanted: FloatArray  # (P,) the reference there
    block: NDArray[np.int_]  # (P,) which block a point lies in
    picture: FloatArray  # the moved one, as spline coefficients
    slopes: FloatArray  # (ndim, ...) its gradient
    middle: FloatArray
    spacing: FloatArray
    turning: bool

    @property
    def free(self) -> int:
        """Number of parameters of the motion."""
        return len(self.middle) + self.turning

    @classmethod
    def of(cls, reference: FloatArray, moved: FloatArray, spacing: FloatArray, turning: bool) -> _Pair:
        step = max(1, int(np.ceil((reference.size / POINTS) ** (1 / reference.ndim))))
        points = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in reference.shape), indexing="ij"), -1)
        points = points.reshape(-1, reference.ndim)
        blocks = _BLOCKS[reference.ndim]
        at = (points * blocks // np.array(reference.shape)).astype(int)
        return cls(
            points=points.astype(np.float64),
            wanted=reference[tuple(points.T)],
            block=np.ravel_multi_index(tuple(at.T), (blocks,) * reference.ndim),
            picture=ndimage.spline_filter(moved),
            slopes=np.stack([np.gradient(moved, axis=axis) for axis in range(moved.ndim)]),
            middle=(np.array(reference.shape) - 1) / 2,
            spacing=spacing,
            turning=turning,
        )

    def _sample(self, motion: Motion) -> tuple[NDArray[np.bool_], FloatArray, FloatArray, FloatArray]:
        """Return which points fall into the moved frame, where, and the picture and its slopes there."""
        away = self.points - self.middle
        places = away @ motion.matrix(self.spacing).T + self.middle + motion.shift_px
        inside = np.all((places >= 0) & (places <= 2 * self.middle), axis=1)
        at = places[inside].T
        seen = ndimage.map_coordinates(self.picture, at, order=3, prefilter=False, mode="nearest")
        slopes = np.stack([ndimage.map_coordinates(s, at, order=1, mode="nearest") for s in self.slopes], axis=1)
        return inside, at.T, seen, slopes

    def residual(self, motion: Motion) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return residuals, their derivatives by motion, gain and offset, and robust weights."""
        inside, at, seen, slopes = self._sample(motion)
        wanted = self.wanted[inside]
        columns = [*slopes.T]
        if self.turning:
            arm = (at - self.middle - motion.shift_px)[:, -2:] * self.spacing[-2:]
            arm = np.stack([-arm[:, 1], arm[:, 0]], axis=1) / self.spacing[-2:]
            columns.append(np.sum(slopes[:, -2:] * arm, axis=1))
        steep = np.sum(slopes**2, axis=1)
        telling = steep >= np.quantile(steep, 0.7)
        w = np.ones(len(seen))
        for _ in range(3):  # gain, offset and weights need each other
            mean_w, mean_s = np.average(wanted, weights=w), np.average(seen, weights=w)
            gain = np.sum(w * (wanted - mean_w) * (seen - mean_s)) / max(np.sum(w * (wanted - mean_w) ** 2), 1e-300)
            r = seen - mean_s - gain * (wanted - mean_w)
            scale = 1.4826 * np.median(np.abs(r[telling])) + 1e-12 * (np.abs(seen).max() + 1e-300)
            w = 1 / (1 + (r / (2.385 * scale)) ** 2)  # Cauchy's weights
        J = np.column_stack([*columns, -wanted, -np.ones(len(seen))])
        return r, J, w

    def correlation(self, motion: Motion) -> float:
        inside, _, seen, _ = self._sample(motion)
        return _correlation(self.wanted[inside], seen)

    def block_errors(self, motion: Motion) -> FloatArray | None:
        """Return the standard errors of the motion's parameters from leaving out one block at a time."""
        r, J, w = self.residual(motion)
        inside = self._sample(motion)[0]
        block = self.block[inside]
        bent = w * (2 * w - 1)  # how r w itself changes with r, for Cauchy's weights
        H = J.T @ (bent[:, None] * J)
        changes = []
        for number in np.unique(block):
            own = block == number
            Jb = J[own]
            try:
                change = np.linalg.solve(H - Jb.T @ (bent[own, None] * Jb), Jb.T @ (w[own] * r[own]))
            except np.linalg.LinAlgError:
                return None
            changes.append(change[: self.free])
        count = len(changes)
        return np.sqrt((count - 1) * np.var(changes, axis=0))


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _faded(picture: FloatArray) -> FloatArray:
    """Return a picture above its median that fades to nothing at the border, which correlation wraps around."""
    from scipy.signal.windows import tukey

    faded = picture - np.median(picture)
    for axis, n in enumerate(picture.shape):
        shape = [1] * picture.ndim
        shape[axis] = n
        faded = faded * np.reshape(tukey(n, 0.2), shape)
    return faded
