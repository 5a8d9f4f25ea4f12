"""All frames of a scan with one factorisation: time-activity of organs from stacks that need not fit in memory.

A frame is read once. What is kept of it are a few weighted sums; signals, covariances and residual variances of
all frames follow from these sums, because the noise variance is linear in what a frame shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.imaging.estimator import Fit, check_usable, gram, inverted, nonnegative_solution
from evbiodist.imaging.noise import Noise
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import (
    FrameModel,
    Measured,
    OrganSignals,
    bad_pixels,
    by_camera,
    dark_level,
    find_rays,
    frame_of,
    measure,
    misfit_limit,
    moved_outlines,
    noise_of,
    noise_scale,
    organ_words,
    outline_error,
    part_of,
    saturation_of,
    suspects,
    systematic,
    to_pct_id,
    to_unit,
    touched,
)
from evbiodist.io.scan import Camera, FloatArray, Scan
from evbiodist.io.stream import blocks
from evbiodist.io.timing import FrameTiming
from evbiodist.study.model import ImagingSettings, StandardSettings

#: Frames, spread over the series, whose mean sets the weights.
_SAMPLE = 5
#: Most that is in memory at once, about three times: the block at work, the next, the one being decoded.
_BLOCK_BYTES = 32 << 20
#: Pixels whose products are summed in single precision before the sums are added up in double precision.
_RUN = 2048


@dataclass(frozen=True, eq=False)
class SeriesSignals:
    """Signals of the organs in every frame of a scan; the axis of time comes first.

    Parameters
    ----------
    organs : names, in the order of the arrays.
    value, se_systematic : (T, n) in `unit`; covariance : (T, n, n) of the random errors.
    unit : as in `OrganSignals`.
    area_px : (n,) pixels; area_cm2, volume_ml : (n,) or None.
    flags : one tuple of words per organ, per frame.
    background, background_se : (T,) per pixel, in the calibrated unit of the scan.
    chi2_red : (T,) residual variance over the expected one.
    condition : of the normalised normal matrix that all frames share.
    alone : frames that were fitted by themselves, as `quantify` does, because pixels of theirs are saturated, hit
        by a ray, or no number.
    timing : of the frames, or None.
    """

    organs: tuple[str, ...]
    value: FloatArray
    covariance: FloatArray
    se_systematic: FloatArray
    unit: str
    area_px: FloatArray
    area_cm2: FloatArray | None
    volume_ml: FloatArray | None
    flags: tuple[tuple[tuple[str, ...], ...], ...]
    background: FloatArray
    background_se: FloatArray
    chi2_red: FloatArray
    condition: float
    alone: tuple[int, ...]
    timing: FrameTiming | None
    _model: FrameModel = field(repr=False)
    _amplitude: FloatArray = field(repr=False)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def se(self) -> FloatArray:
        """Standard error of the random part, shape (T, n)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    def total_se(self) -> FloatArray:
        """Standard error with the shared calibration error added, shape (T, n)."""
        return np.hypot(self.se, self.se_systematic)

    def frame(self, t: int) -> OrganSignals:
        """Return the signals of one frame; its `fit` holds no images, see `residual`."""
        spread = np.sqrt(np.diag(self.covariance[t]))
        nothing = np.empty((0,) * self._model.outside.ndim)
        fit = Fit(
            signal=self.value[t],
            covariance=self.covariance[t],
            background=float(self.background[t]),
            background_se=float(self.background_se[t]),
            correlation=self.covariance[t] / np.outer(spread, spread),
            condition=self.condition,
            chi2_red=float(self.chi2_red[t]),
            residual=nothing,
            used=nothing.astype(bool),
        )
        return OrganSignals(self.organs, self.value[t], self.covariance[t], self.se_systematic[t], self.unit,
                            self.area_px, self.area_cm2, self.flags[t], fit, self.volume_ml)  # fmt: skip

    def residual(self, scan: Scan, t: int) -> FloatArray:
        """Return a frame minus its model, in calibrated units, shape (Y, X) or (Z, Y, X).

        Parameters
        ----------
        scan : the one that was quantified.
        t : number of the frame.
        """
        model = self._model.footprints.T @ self._amplitude[t] + self.background[t]
        return np.asarray(frame_of(scan, t).signal() - model.reshape(scan.frame_shape))


def quantify_series(scan: Scan, organs: OrganMap, settings: ImagingSettings | None = None) -> SeriesSignals:
    """Estimate every organ's total signal in every frame of a scan, with covariance.

    Frames share outlines and weights. Weights come from the mean of some frames, and so do pixels that are not used
    because they are bad in all of these, or stray light. Errors are those of each frame's own noise under
    the shared weights. Frames with other bad pixels are fitted by themselves. Plain sums (`roi`) equal those of
    `quantify` frame by frame, save for stray light that comes and goes; fits with a blur (`psf`) differ from it by less
    than their errors, because their weights do. Noise that neither file nor user states is found once, from the
    brightest of the frames looked at; where there is no camera, each frame's own residual sets its level.

    Parameters
    ----------
    scan : with the axis T, in memory or lazy; it is read once, in blocks, and a few frames twice.
    organs : on the scan's grid or any grid over the same field of view; the same for all frames.
    settings : footprint, blur, dose standard; the defaults are plain ROI sums.

    Returns
    -------
    SeriesSignals : in the units of `quantify`.

    Raises
    ------
    ValueError : bands (axis C), or what `quantify` refuses.
    UnreadableImage : pixels that cannot be decoded.

    Examples
    --------
    >>> labels = np.zeros((20, 20), int); labels[5:8, 5:8] = 1
    >>> counts = np.stack([100 + 50 * t * labels for t in range(4)]).astype(np.uint16)
    >>> from evbiodist.io.scan import Camera
    >>> scan = Scan("a", None, counts, "TYX", camera=Camera(gain_e=1.0, read_noise_e=1.0, bias=100.0), offset=100.0)
    >>> found = quantify_series(scan, OrganMap(labels, {1: "liver"}, "label image"))
    >>> np.round(found.value[:, 0], 6).tolist(), found.unit
    ([0.0, 450.0, 900.0, 1350.0], 'au')

    Weights that are not those of the frame itself leave least squares unbiased; the covariance is White's sandwich
    with known variances (White 1980, Econometrica 48:817).
    """
    settings = settings or ImagingSettings()
    _check(scan)
    factor, unit = to_unit(scan)
    plan = _Plan.of(scan, organs, settings)
    found, alone = _stream(scan, plan)
    model = plan.model
    series = SeriesSignals(
        organs=model.names,
        value=found.signal * factor,
        covariance=found.covariance * factor**2,
        se_systematic=found.systematic * factor,
        unit=unit,
        area_px=model.area_px,
        area_cm2=model.area_cm2(scan),
        volume_ml=model.volume_ml(scan),
        flags=found.flags,
        background=found.background,
        background_se=found.background_se,
        chi2_red=found.chi2_red,
        condition=plan.condition,
        alone=alone,
        timing=scan.timing,
        _model=model,
        _amplitude=found.signal,
    )
    return _as_pct_id(series, settings.standard) if settings.standard else series


def _check(scan: Scan) -> None:
    if scan.extent("C") > 1:
        raise ValueError(f"{scan.name} has {scan.extent('C')} bands ({scan.axes}); unmix them, or give one band")
    others = [axis for axis in scan.axes if axis not in "TCZYX" and scan.extent(axis) > 1]
    if others:
        raise ValueError(f"{scan.name} has axes {scan.axes}; expected frames (T) of planes or volumes: "
                         f"give one plane of {' and '.join(others)}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is the same for all frames of a series.

    `place` are the pixels where footprints lie or weights differ, `rows` and `weight` what their counts are
    multiplied by; all other pixels weigh `elsewhere` and belong to the background. `place` None stands for all pixels.
    `parts` are the covariances that one unit of each organ, of background, and the floor of the noise make;
    `squares` the same for the weighted sum of squares. `words` are flags that every frame has, organ by organ.
    """

    model: FrameModel
    noise: Noise
    used: NDArray[np.bool_]
    known_bad: NDArray[np.bool_]
    place: NDArray[np.intp] | None
    rows: Any
    weight: FloatArray
    elsewhere: float
    normal: FloatArray
    inverse: FloatArray
    condition: float
    parts: FloatArray
    squares: FloatArray
    outline_px: tuple[FloatArray, ...]
    scale: Any
    bias: float
    rays: bool
    saturation: float | None
    words: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, scan: Scan, organs: OrganMap, settings: ImagingSettings) -> _Plan:
        """Find weights and noise from a few frames, and factorise once."""
        total = scan.counts.size // int(np.prod(scan.frame_shape))
        chosen = np.unique(np.linspace(0, total - 1, min(total, _SAMPLE)).round().astype(int))
        sample = [frame_of(scan, int(t)) for t in chosen]
        model = FrameModel.of(sample[0], organs, settings)
        known = scan.camera.gain_e is not None and scan.camera.read_noise_e is not None
        brightest = sample[0] if known else max(sample, key=lambda frame: float(np.nansum(frame.signal())))
        noise, from_image = noise_of(brightest)
        scale = noise_scale(sample[0])
        reference, bad = _mean_frame(sample, model, scale, noise)
        unbothered = replace(model, settings=settings.model_copy(update={"cosmic": False}))
        seen = measure(reference, unbothered, noise)
        shared = {*scan.flags, *(["noise_from_image"] if from_image else [])}
        if seen.noise.fitted and "misfit" in seen.flags[0]:
            shared.add("misfit")
        hit = {word: touched(model.footprints, mask) for word, mask in bad.items()}
        words = tuple(frozenset(shared | {w for w in hit if hit[w][i]}) for i in range(len(model.names)))
        return cls._factorised(scan, model, seen, scale, np.logical_or.reduce([*bad.values()]), words)

    @classmethod
    def _factorised(
        cls,
        scan: Scan,
        model: FrameModel,
        seen: Measured,
        scale: Any,
        known_bad: NDArray[np.bool_],
        words: tuple[frozenset[str], ...],
    ) -> _Plan:
        F, noise, used = model.footprints, seen.noise, seen.fit.used
        base = max(seen.fit.background, 0.0)
        uniform = model.kind.weighting == "uniform"
        s = np.broadcast_to(np.ravel(scale), (F.shape[1],))
        variance = noise.variance((F.T @ np.maximum(seen.fit.signal, 0.0) + base) / s) * s**2
        weight = np.where(used.ravel(), 1.0 if uniform else 1.0 / variance, 0.0)
        outlines = tuple(_indicators(moved, model.names) for moved in moved_outlines(model))
        normal = gram(F, weight)
        check_usable(normal)
        inverse, condition = inverted(normal)
        parts, squares = _parts(F, weight, inverse, noise, s)
        place, elsewhere = None, 0.0
        if _same_everywhere(scan) and (scan.counts.dtype.kind != "f" or not known_bad.any()):
            place = _special(used, (F, *outlines))
            elsewhere = 1.0 if uniform else float(1.0 / (noise.variance(np.array(base / s[0])) * s[0] ** 2))
        camera = by_camera(scan) and model.settings.cosmic and not noise.fitted
        return cls(
            model=model,
            noise=noise,
            used=used,
            known_bad=known_bad,
            place=place,
            rows=_weighted_rows(F, weight, outlines, place),
            weight=weight if place is None else weight[place],
            elsewhere=elsewhere,
            normal=normal,
            inverse=inverse,
            condition=condition,
            parts=parts,
            squares=squares,
            outline_px=tuple(np.asarray(o.sum(axis=1)) for o in outlines),
            scale=scale,
            bias=dark_level(frame_of(scan, 0)) if camera else 0.0,
            rays=camera,
            saturation=saturation_of(scan),
            words=words,
        )

    def sums(self, counts: NDArray[Any], offset: Any, scale: Any, scratch: NDArray[Any]) -> FloatArray | None:
        """Return what is kept of a frame: moments, sums over moved outlines, square; None if it is to be fitted alone.

        The moments are the weighted inner products with footprints and background; the last number is the weighted
        sum of squares. `scratch` is a frame's worth of `_light_type` to write on.
        """
        if (
            self.saturation is not None
            and counts.max() >= self.saturation
            and (counts >= self.saturation)[self.used].any()
        ):
            return None
        if self.place is None:
            return self._of_all(counts, offset, scale)
        flat = counts.reshape(-1)
        number = scratch.dtype.type
        shift = float(number(offset + self.bias))
        with np.errstate(over="ignore", invalid="ignore"):
            light = np.subtract(flat, number(shift), out=scratch, dtype=scratch.dtype)
            if self.rays and self._hit(light.reshape(counts.shape)):
                return None
            light[self.place] = 0.0
            total, square = _in_runs(light)
        if not np.isfinite(square):
            return None
        x = flat[self.place].astype(np.float64)
        x -= offset
        lift, pixels = shift - offset, flat.size - self.place.size
        square += 2 * lift * total + pixels * lift**2
        total += pixels * lift
        return self._gathered(x, total, square) * np.append(np.full(self.rows.shape[0] + 1, scale), scale**2)

    def _of_all(self, counts: NDArray[Any], offset: Any, scale: Any) -> FloatArray | None:
        light = counts - np.asarray(offset, dtype=np.float64)
        y = light * scale
        finite = np.isfinite(y)
        if not finite[self.used].all() or (self.rays and self._hit(np.where(finite, light - self.bias, np.nan))):
            return None
        return self._gathered(np.where(finite, y, 0.0).ravel(), 0.0, 0.0)

    def _gathered(self, x: FloatArray, total: float, square: float) -> FloatArray:
        n = len(self.model.names)
        found = self.rows @ x
        level = self.weight @ x + self.elsewhere * total
        return np.concatenate([found[:n], [level], found[n:], [(self.weight * x) @ x + self.elsewhere * square]])

    def _hit(self, light: NDArray[Any]) -> bool:
        """Whether a frame holds a ray or a dead pixel that is used."""
        fwhm = self.model.fwhm_px
        if not len(suspects(light, self.noise, fwhm)):
            return False
        rays, dead = find_rays(np.where(self.known_bad, np.nan, light), self.noise, fwhm)
        return bool(((rays | dead) & self.used).any())


@dataclass(frozen=True, eq=False)
class _Found:
    """Results of all frames in calibrated units per pixel, the axis of time first."""

    signal: FloatArray
    covariance: FloatArray
    systematic: FloatArray
    background: FloatArray
    background_se: FloatArray
    chi2_red: FloatArray
    flags: tuple[tuple[tuple[str, ...], ...], ...]


def _stream(scan: Scan, plan: _Plan) -> tuple[_Found, tuple[int, ...]]:
    """Go through the frames once; return their results, and the numbers of those that were fitted alone."""
    leading = scan.counts.shape[: scan.counts.ndim - len(scan.frame_shape)]
    total = int(np.prod(leading))
    n = len(plan.model.names)
    sums = np.zeros((total, n + 2 + n * len(plan.outline_px)))
    brightness = np.ones(total)
    alone: dict[int, tuple[Fit, FloatArray, tuple[tuple[str, ...], ...]]] = {}
    moving_bad = scan.bad is not None and not _static(scan.bad, scan)
    scratch = np.empty(int(np.prod(scan.frame_shape)) if plan.place is not None else 0, _light_type(scan.counts.dtype))
    for start, block in blocks(scan, max_bytes=_BLOCK_BYTES):
        for t, counts in enumerate(block, start):
            at = tuple(int(i) for i in np.unravel_index(t, leading)) if leading else ()
            offset, scale = (part_of(scan, value, at) for value in (scan.offset, scan.scale))
            if plan.place is not None:
                offset, scale = (float(np.ravel(value)[0]) for value in (offset, scale))
            frame = frame_of(scan, t, counts)
            ratio = _ratio(noise_scale(frame), plan.scale)
            hurt = moving_bad and frame.bad is not None and bool(np.any(frame.bad & plan.used))
            kept = None if ratio is None or hurt else plan.sums(counts, offset, scale, scratch)
            if kept is None or ratio is None:
                alone[t] = _by_itself(frame, plan)
            else:
                sums[t], brightness[t] = kept, ratio
    return _with_alone(_finish(plan, sums, brightness, scan.systematic_rel), alone), tuple(sorted(alone))


def _by_itself(frame: Scan, plan: _Plan) -> tuple[Fit, FloatArray, tuple[tuple[str, ...], ...]]:
    """Fit a frame as `quantify` does; only the small part of the result is kept."""
    measured = measure(frame, plan.model, None if plan.noise.fitted else plan.noise)
    error = systematic(frame, plan.model, measured.fit)
    nothing = np.empty(0)
    fit = replace(measured.fit, residual=nothing, used=nothing.astype(bool))
    flags = ((*words, "noise_from_image") if "noise_from_image" in plan.words[i] else words
             for i, words in enumerate(measured.flags))  # fmt: skip
    return fit, error, tuple(tuple(sorted(set(words))) for words in flags)


def _with_alone(found: _Found, alone: dict[int, tuple[Fit, FloatArray, tuple[tuple[str, ...], ...]]]) -> _Found:
    """Put the frames that were fitted alone in their places."""
    flags = list(found.flags)
    for t, (fit, error, words) in alone.items():
        found.signal[t], found.covariance[t], found.systematic[t] = fit.signal, fit.covariance, error
        found.background[t], found.background_se[t], found.chi2_red[t] = fit.background, fit.background_se, fit.chi2_red
        flags[t] = words
    return replace(found, flags=tuple(flags))


def _finish(plan: _Plan, sums: FloatArray, brightness: FloatArray, systematic_rel: float) -> _Found:
    """Turn the kept sums of all frames into signals, covariances and residual variances."""
    n = len(plan.model.names)
    moments, square = sums[:, : n + 1], sums[:, -1]
    theta = moments @ plan.inverse
    if plan.model.settings.nonnegative:
        for t in np.flatnonzero((theta[:, :n] < 0).any(axis=1)):
            theta[t] = nonnegative_solution(plan.normal, moments[t])
    lit = np.maximum(theta, 0.0) * brightness[:, None]
    lit = np.column_stack([lit, brightness**2])
    covariance = np.einsum("tk,kij->tij", lit, plan.parts)
    left = square - 2 * np.einsum("ti,ti->t", theta, moments) + np.einsum("ti,ij,tj->t", theta, plan.normal, theta)
    chance = lit @ plan.squares - np.einsum("tij,ij->t", covariance, plan.normal)
    chi2 = np.maximum(left, 0.0) / np.maximum(chance, np.finfo(float).tiny)
    limit = misfit_limit(int(plan.used.sum()), n, plan.noise)
    misfit = (chi2 > limit) & (plan.model.kind.weighting == "noise") & (not plan.noise.fitted)
    # where the noise was judged by what a fit leaves over, each frame's own leftover says how noisy it is
    covariance *= np.where(misfit | plan.noise.fitted, chi2, 1.0)[:, None, None] * plan.noise.cluster
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    error = systematic_rel * np.abs(theta[:, :n])
    if plan.outline_px:
        grown, shrunk = (
            sums[:, n + 1 + k * n : n + 1 + (k + 1) * n] - theta[:, n:] * px for k, px in enumerate(plan.outline_px)
        )
        error = np.hypot(error, outline_error(grown, shrunk))
    safe = np.where(spread > 0, spread, 1.0)
    correlation = covariance / (safe[:, :, None] * safe[:, None, :])
    return _Found(
        theta[:, :n],
        covariance[:, :n, :n],
        error,
        theta[:, n],
        spread[:, n],
        chi2,
        tuple(_words(plan, theta[t, :n], correlation[t, :n, :n], bool(misfit[t])) for t in range(len(theta))),
    )


def _words(plan: _Plan, signal: FloatArray, correlation: FloatArray, misfit: bool) -> tuple[tuple[str, ...], ...]:
    extra = {"misfit"} if misfit else set()
    return tuple(tuple(sorted(plan.words[i] | extra | organ_words(i, signal, correlation))) for i in range(len(signal)))


def _mean_frame(
    sample: list[Scan], model: FrameModel, scale: Any, noise: Noise | None
) -> tuple[Scan, dict[str, NDArray[np.bool_]]]:
    """Return the mean of some frames as a scan, and the pixels that are bad in all of them by the word for that."""
    first = sample[0]
    total, count = np.zeros(first.counts.shape), np.zeros(first.counts.shape, np.int32)
    always: dict[str, NDArray[np.bool_]] = {}
    for frame in sample:
        bad = bad_pixels(frame, model, noise)
        always = {word: always.get(word, True) & mask for word, mask in bad.items()}
        good = ~np.logical_or.reduce([*bad.values()])
        total += np.where(good, frame.signal(), 0.0)
        count += good
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    # the noise is given, so this camera only says that there is one
    camera = Camera() if noise is None else Camera(gain_e=1.0, read_noise_e=1.0)
    return replace(first, counts=mean / scale, offset=0.0, scale=scale, bad=count == 0, camera=camera), always


def _parts(
    F: Any, weight: FloatArray, inverse: FloatArray, noise: Noise, scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return covariances (n + 2, n + 1, n + 1) and weighted squares (n + 2,) of one unit of each source of noise."""
    n = F.shape[0]
    parts, squares = np.zeros((n + 2, n + 1, n + 1)), np.zeros(n + 2)
    columns = F.tocsc()
    for i in range(n):
        row = slice(F.indptr[i], F.indptr[i + 1])
        for first in range(row.start, row.stop, 1 << 16):
            run = slice(first, min(first + (1 << 16), row.stop))
            at = F.indices[run]
            variance = noise.per_count * F.data[run] * scale[at]
            under = np.vstack([columns[:, at].toarray(), np.ones(at.size)])
            parts[i] += (under * (weight[at] ** 2 * variance)) @ under.T
            squares[i] += weight[at] @ variance
    for k, variance in ((n, noise.per_count * scale), (n + 1, noise.floor * scale**2)):
        parts[k] = gram(F, weight**2 * variance)
        squares[k] = weight @ variance
    return inverse @ parts @ inverse, squares


def _weighted_rows(F: Any, weight: FloatArray, outlines: tuple[Any, ...], place: NDArray[np.intp] | None) -> Any:
    """Return weighted footprints and, below them, moved outlines, as a CSR array over the pixels in `place`."""
    from scipy.sparse import csr_array, vstack

    weighted = csr_array((F.data * weight[F.indices], F.indices, F.indptr), shape=F.shape)
    rows = vstack([weighted, *outlines], format="csr") if outlines else weighted
    return rows if place is None else rows[:, place]


def _indicators(organs: OrganMap, names: tuple[str, ...]) -> Any:
    from scipy.sparse import csr_array

    return csr_array(np.stack([organs.mask(name).ravel() for name in names]).astype(np.float64))


def _special(used: NDArray[np.bool_], patterns: tuple[Any, ...]) -> NDArray[np.intp]:
    """Return the pixels that are not plain background, in order."""
    special = ~used.ravel()
    for pattern in patterns:
        special[pattern.indices] = True
    return np.flatnonzero(special)


def _light_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return single precision where it holds every count, else double."""
    return np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64


def _in_runs(values: NDArray[Any]) -> tuple[float, float]:
    """Return the sum and the sum of squares: short runs in the array's own precision, their sums in double."""
    whole = values.size // _RUN * _RUN
    runs, rest = values[:whole].reshape(-1, _RUN), values[whole:].astype(np.float64)
    total = runs.sum(axis=1).sum(dtype=np.float64) + rest.sum()
    square = np.einsum("ij,ij->i", runs, runs).sum(dtype=np.float64) + rest @ rest
    return float(total), float(square)


def _same_everywhere(scan: Scan) -> bool:
    """Whether offset and scale are one number in each frame."""
    k = len(scan.frame_shape)
    return all(set(np.shape(value)[-k:]) <= {1} for value in (scan.offset, scan.scale))


def _static(value: Any, scan: Scan) -> bool:
    """Whether a property of pixels is the same in all frames."""
    return set(np.shape(value)[: -len(scan.frame_shape)]) <= {1}


def _ratio(scale: Any, reference: Any) -> float | None:
    """Return the number that turns one scale into another, None if it takes more than a number."""
    ratio = np.asarray(scale, dtype=np.float64) / reference
    middle = float(np.mean(ratio))
    return middle if bool(np.all(np.abs(ratio - middle) <= 1e-6 * abs(middle))) else None


def _as_pct_id(series: SeriesSignals, standard: StandardSettings) -> SeriesSignals:
    """Turn every frame into % of injected dose by the standard in that frame."""
    frames = [to_pct_id(series.frame(t), standard) for t in range(len(series))]
    first = frames[0]
    return replace(
        series,
        organs=first.organs,
        value=np.stack([f.value for f in frames]),
        covariance=np.stack([f.covariance for f in frames]),
        se_systematic=np.stack([f.se_systematic for f in frames]),
        unit=first.unit,
        area_px=first.area_px,
        area_cm2=first.area_cm2,
        volume_ml=first.volume_ml,
        flags=tuple(f.flags for f in frames),
    )
