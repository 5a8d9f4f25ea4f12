"""Spectral unmixing: what several bands show is a weighted sum of spectra, autofluorescence among them.

Weighted least squares as for organs, with spectra for footprints; errors of the spectra are a systematic term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.imaging.spectra import Spectra, errors_of, split_bands, usable_pixels
from evbiodist.io.scan import Camera, FloatArray, Scan

#: |correlation| of two components' estimates from which they share one signal (as for organs).
_COLLINEAR = 0.9
#: Condition number of unit-length spectra from which they are the same spectrum.
_SAME = 1e6
#: Chance of calling a value a misfit that is none, and the share of such pixels that makes an image one.
_MISFIT_P, _MISFIT_SHARE = 1e-3, 0.01
#: Pixels solved at a time.
_CHUNK = 1 << 16
#: Components up to which every set of positive components is tried; beyond, one NNLS a value.
_MAX_SETS = 6


@dataclass(frozen=True, eq=False)
class Unmixed:
    """Signals of components in a few values (organs).

    Parameters
    ----------
    names : of the components.
    signal, se_systematic : (n_components, n_values), each component summed over the bands; NaN where too few bands
        are usable.
    covariance : (n_components, n_values, n_components, n_values) of the random errors.
    chi2_red : (n_values,) residual variance over the expected one; NaN without a band to spare.
    residual : (n_bands, n_values) bands minus model.
    condition : of the unit-length spectra.
    flags : words by component and value.
    """

    names: tuple[str, ...]
    signal: FloatArray
    covariance: FloatArray
    se_systematic: FloatArray
    chi2_red: FloatArray
    residual: FloatArray
    condition: float
    flags: tuple[tuple[tuple[str, ...], ...], ...]

    @property
    def se(self) -> FloatArray:
        """Standard errors of the random part, shape (n_components, n_values)."""
        return np.sqrt(np.einsum("kpkp->kp", self.covariance))


@dataclass(frozen=True, eq=False)
class UnmixedImage:
    """Images of components.

    Parameters
    ----------
    names : of the components.
    signal, variance, se_systematic : (n_components, ..., Y, X), each component summed over the bands, in `unit`;
        NaN where too few bands are usable.
    chi2_red : (..., Y, X) residual variance over the expected one; NaN without a band to spare.
    scan : that was unmixed; condition : of the unit-length spectra.
    flags : of the whole image; notes : sentences for people.
    """

    names: tuple[str, ...]
    signal: FloatArray
    variance: FloatArray
    se_systematic: FloatArray
    chi2_red: FloatArray
    scan: Scan
    condition: float
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Unit of the signal: that of the scan."""
        return self.scan.unit

    def component(self, name: str) -> Scan:
        """Return one component as a scan without bands; its noise is to be found from the image.

        Raises
        ------
        ValueError : no such component.
        """
        if name not in self.names:
            raise ValueError(f"there is no component '{name}'; known: {', '.join(self.names)}")
        image = self.signal[self.names.index(name)]
        undetermined = np.isnan(image)
        return replace(
            self.scan,
            name=f"{self.scan.name} ({name})",
            counts=image,
            axes=self.scan.axes.replace("C", ""),
            offset=0.0,
            scale=1.0,
            camera=Camera(),
            bands=(),
            bad=undetermined if undetermined.any() else None,
            flags=self.flags,
            notes=self.scan.notes + self.notes,
        )


@dataclass(frozen=True, eq=False)
class _Solved:
    """Solution of P values: amounts (P, k), the linear map to them (P, k, b), random variance, residual, goodness."""

    amount: FloatArray
    map: FloatArray
    clipped: NDArray[np.bool_]
    residual: FloatArray
    chi2_red: FloatArray
    misfit: NDArray[np.bool_]


def unmix(
    bands: ArrayLike,
    spectra: Spectra,
    variance: ArrayLike,
    *,
    valid: NDArray[np.bool_] | None = None,
    nonnegative: bool = True,
) -> Unmixed:
    """Unmix the signals of organs measured in several bands, with covariance.

    Parameters
    ----------
    bands : (n_bands, n_values) signals of every organ in every band.
    spectra : in those bands; only their shape counts, each is brought to a sum of 1.
    variance : (n_bands, n_values), or (n_bands, n_values, n_values) with the covariance of the organs within a band;
        different bands are different images, whose errors are independent.
    valid : (n_bands, n_values) False where an organ is saturated in a band, which then gets weight zero; so do
        values that are not finite.
    nonnegative : no signal below zero (weighted NNLS). The covariance stays that of the free estimate; sums of many
        clipped values are too high, so take False where values are averaged.

    Returns
    -------
    Unmixed : errors of the spectra are in `se_systematic`, and in the weights and the goodness of fit. Where the
        spectra do not explain the bands, the random covariance is widened to the residuals and flagged `misfit`.

    Raises
    ------
    ValueError : shapes that do not match, more components than bands, or two components of one spectrum.

    Examples
    --------
    >>> spectra = Spectra(("DiR", "tissue"), (700, 740, 780), np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    >>> found = unmix([[8.0], [7.0], [15.0]], spectra, np.ones((3, 1)))
    >>> found.signal.round(1).tolist(), found.flags
    ([[20.0], [10.0]], (((),), ((),)))

    Aitken 1936; non-negative: Lawson and Hanson 1974, ch. 23; per pixel: Zimmermann 2003 (FEBS Lett 546:87).
    """
    y = np.asarray(bands, dtype=np.float64)
    v = np.asarray(variance, dtype=np.float64)
    spectra = spectra.normalised()
    if y.ndim != 2 or len(y) != spectra.values.shape[1]:
        raise ValueError(
            f"bands have shape {y.shape}; expected ({spectra.values.shape[1]} bands as the spectra, values)"
        )
    if v.shape not in (y.shape, (*y.shape, y.shape[1])):
        raise ValueError(
            f"the variance has shape {v.shape}; expected {y.shape}, or {(*y.shape, y.shape[1])} with covariances"
        )
    condition = _condition(spectra)
    within = v if v.ndim == 3 else np.array([np.diag(row) for row in v])
    spread = np.einsum("bpp->bp", within).T
    good = np.isfinite(y.T) & np.isfinite(spread) & (spread > 0)
    kept = np.ones(good.shape, bool) if valid is None else np.asarray(valid, bool).T
    good &= kept
    found = _solve_with_errors(y.T, spread, good, spectra, nonnegative)
    widen = np.where(found.misfit, np.sqrt(found.chi2_red), 1.0)
    linear = found.map * widen[:, None, None]
    covariance = np.einsum("pkb,qlb,bpq->kplq", linear, linear, np.where(np.isfinite(within), within, 0.0))
    lost = np.isnan(found.amount).any(axis=1)
    covariance[:, lost], covariance[:, :, :, lost] = np.nan, np.nan
    signal = found.amount.T
    systematic = _spectral_error(found, spectra).T
    flags = tuple(
        tuple(_value_flags(covariance[:, p, :, p], k, found, p, signal[k, p], not kept[p].all(), systematic[k, p])
              for p in range(y.shape[1]))
        for k in range(len(spectra.names))
    )  # fmt: skip
    return Unmixed(spectra.names, signal, covariance, systematic, found.chi2_red, found.residual.T, condition, flags)


def _value_flags(
    covariance: FloatArray, k: int, found: _Solved, p: int, value: float, saturated: bool, systematic: float
) -> tuple[str, ...]:
    spread = np.sqrt(np.diag(covariance))
    alike = np.delete(np.abs(covariance[k]) / (spread[k] * spread), k)
    told = {
        "collinear": bool((alike >= _COLLINEAR).any()),
        "misfit": bool(found.misfit[p]),
        "at_bound": bool(found.clipped[p, k]),
        "negative": value < 0,
        "saturated": saturated,
        "systematic": systematic > 0,
    }
    return tuple(sorted(word for word, holds in told.items() if holds))


def unmix_image(scan: Scan, spectra: Spectra, *, nonnegative: bool = True) -> UnmixedImage:
    """Unmix every pixel of a scan with bands.

    Parameters
    ----------
    scan : axes CYX, TCYX or others with C; a pixel saturated or dead in one band gets weight zero in that band only.
    spectra : interpolated at the bands' emission wavelengths, or taken in order where those are unknown.
    nonnegative : no pixel below zero. Sums over many dim pixels are then too high: take False for sums, or measure
        organs in every band and `unmix` their signals.

    Returns
    -------
    UnmixedImage : noise is that of the camera at the fitted brightness (found from the first band where nobody gave
        it). Where the spectra do not explain a pixel, its variance is widened to the residuals.

    Raises
    ------
    ValueError : no axis C, fewer bands than components, spectra that do not fit the bands or are too alike, or no
        usable pixel.

    Examples
    --------
    >>> spectra = Spectra(("a", "b"), None, np.array([[1.0, 3.0], [3.0, 1.0]]))
    >>> counts = np.stack([np.full((2, 2), 25.0), np.full((2, 2), 35.0)])
    >>> scan = Scan("s", None, counts, "CYX", camera=Camera(gain_e=1.0, read_noise_e=1.0))
    >>> unmix_image(scan, spectra).signal[:, 0, 0].round(6).tolist()
    [40.0, 20.0]
    """
    parts = split_bands(scan)
    spectra, notes = _match(spectra, scan)
    condition = _condition(spectra)
    counts = np.array([p.counts for p in parts])
    shape, bands = counts.shape[1:], len(parts)
    scale = np.array([np.broadcast_to(p.scale, shape) for p in parts]).reshape(bands, -1).T
    y = np.array([p.signal() for p in parts]).reshape(bands, -1).T
    good = np.array([usable_pixels(p) for p in parts]).reshape(bands, -1).T & np.isfinite(y) & (scale > 0)
    if not good.any():
        raise ValueError(f"{scan.name} has no usable pixel; every one is saturated, dead or not finite")
    scale = np.where(good, scale, 1.0)
    camera, estimated = _camera(parts[0])
    pieces = [_pixels(y[i : i + _CHUNK], scale[i : i + _CHUNK], good[i : i + _CHUNK], spectra, camera,
                      counts.dtype.kind != "f", nonnegative) for i in range(0, len(y), _CHUNK)]  # fmt: skip
    amount, variance, systematic, chi2, misfit = (np.concatenate(p) for p in zip(*pieces, strict=True))
    systematic = np.hypot(systematic, scan.systematic_rel * np.abs(amount))
    flags = set(scan.flags) | ({"noise_from_image"} if estimated else set()) | _alike(spectra)
    if camera.saturation is not None and (counts >= camera.saturation).any():
        flags.add("saturated")
    if misfit.mean() > _MISFIT_SHARE:
        flags.add("misfit")
        notes.append(f"the spectra do not explain {100 * misfit.mean():.2g} % of the pixels")
    if np.nanmax(systematic, initial=0.0) > 0:
        flags.add("systematic")
    lost = int(np.isnan(amount).any(axis=1).sum())
    if lost:
        notes.append(f"{lost} pixels have too few usable bands for {len(spectra.names)} components and are left empty")

    def image(values: FloatArray) -> FloatArray:
        return values.T.reshape(-1, *shape)

    return UnmixedImage(spectra.names, image(amount), image(variance), image(systematic), chi2.reshape(shape), scan,
                        condition, tuple(sorted(flags)), (*spectra.notes, *notes))  # fmt: skip


def _match(spectra: Spectra, scan: Scan) -> tuple[Spectra, list[str]]:
    """Return the spectra in the scan's bands, with a sum of 1, and what was assumed."""
    bands = scan.extent("C")
    centres = [b.emission_nm for b in scan.bands if b.emission_nm is not None]
    one_excitation = len({b.excitation_nm for b in scan.bands}) <= 1
    # with several excitations only the bands of the spectra themselves will do
    fits = one_excitation or spectra.emission_nm == tuple(centres)
    if spectra.emission_nm is not None and len(centres) == bands and fits:
        return spectra.at(centres).normalised(), []
    if not one_excitation and spectra.emission_nm is not None:
        raise ValueError(f"{scan.name} has bands of several excitations, which emission spectra do not describe; "
                         "measure the spectra in its bands (spectrum_from_region)")  # fmt: skip
    if spectra.values.shape[1] != bands:
        raise ValueError(f"the spectra have {spectra.values.shape[1]} bands, {scan.name} has {bands}, and not both say "
                         "their wavelengths; give the spectra in the scan's bands")  # fmt: skip
    return spectra.normalised(), ["the bands are taken in the order of the spectra"]


def _condition(spectra: Spectra) -> float:
    components, bands = spectra.values.shape
    if components > bands:
        raise ValueError(
            f"{bands} bands cannot tell {components} components apart; leave components out or image more bands"
        )
    unit = spectra.values / np.linalg.norm(spectra.values, axis=1, keepdims=True)
    condition = float(np.linalg.cond(unit))
    if condition > _SAME:
        raise ValueError(
            f"among {', '.join(spectra.names)} a spectrum is a sum of others; leave it out, or add bands that differ"
        )
    return condition


def _alike(spectra: Spectra) -> set[str]:
    inverse = np.linalg.inv(spectra.values @ spectra.values.T)
    spread = np.sqrt(np.diag(inverse))
    correlation = np.abs(inverse / np.outer(spread, spread)) - np.eye(len(spread))
    return {"collinear"} if correlation.max() >= _COLLINEAR else set()


def _camera(band: Scan) -> tuple[Camera, bool]:
    """Return the camera, with noise from the first frame of a band where nobody gave it."""
    plane = np.asarray(band.counts).reshape(-1, *band.plane_shape)[0]
    finite = np.isfinite(plane)
    plane = np.where(finite, plane, np.median(plane[finite]) if finite.any() else 0.0)
    offset = np.broadcast_to(band.offset, band.counts.shape).reshape(-1, *band.plane_shape)[0]
    return estimate_camera(replace(band, counts=plane, axes="YX", offset=offset, timing=None))


def _pixels(
    y: FloatArray,
    scale: FloatArray,
    good: NDArray[np.bool_],
    spectra: Spectra,
    camera: Camera,
    integer: bool,
    nonnegative: bool,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Solve some pixels with the noise of the fitted image: weights from noisy data would bias sums low."""
    model = np.broadcast_to(np.where(good, y, 0.0).sum(axis=1, keepdims=True) / len(spectra.values[0]), y.shape)
    extra: FloatArray | float = 0.0
    for _ in range(3):
        variance = variance_counts(model / scale, camera, integer) * scale**2
        found = _solve(y, variance + extra, good, spectra.values, nonnegative)
        model, extra = np.nan_to_num(found.amount) @ spectra.values, _spectral_variance(found, spectra)
    random = np.einsum("pkb,pkb,pb->pk", found.map, found.map, variance)
    random = np.where(found.misfit, found.chi2_red, 1.0)[:, None] * random
    random[np.isnan(found.amount)] = np.nan
    return found.amount, random, _spectral_error(found, spectra), found.chi2_red, found.misfit


def _solve_with_errors(
    y: FloatArray, variance: FloatArray, good: NDArray[np.bool_], spectra: Spectra, nonnegative: bool
) -> _Solved:
    """Solve; where spectra have errors, once more with what these add to the variance of each band."""
    found = _solve(y, variance, good, spectra.values, nonnegative)
    if spectra.covariance is None:
        return found
    return _solve(y, variance + _spectral_variance(found, spectra), good, spectra.values, nonnegative)


def _spectral_variance(found: _Solved, spectra: Spectra) -> FloatArray | float:
    """Return what errors of the spectra add to the variance of every band, (P, b)."""
    return 0.0 if spectra.se is None else np.nan_to_num(found.amount) ** 2 @ spectra.se**2


def _solve(y: FloatArray, variance: FloatArray, good: NDArray[np.bool_], S: FloatArray, nonnegative: bool) -> _Solved:
    """Weighted least squares for P values at once: y (P, b), spectra (k, b)."""
    from scipy.special import chdtrc

    components, bands = S.shape
    enough = _determined(good, S)
    weight = np.where(good & enough[:, None], 1.0 / np.where(good, variance, 1.0), 0.0)
    weight[~enough] = 1.0  # solved to keep the arrays whole, then emptied
    filled = np.where(good, y, 0.0)
    products = (S[:, None] * S[None]).reshape(-1, bands)
    normal = (weight @ products.T).reshape(-1, components, components)
    right = (weight * filled) @ S.T
    inverse = np.linalg.inv(normal)
    linear = inverse @ (S * weight[:, None])
    amount = np.einsum("pkl,pl->pk", inverse, right)
    clipped = np.zeros(amount.shape, bool)
    below = (amount < 0).any(axis=1)
    if nonnegative and below.any():
        amount[below] = _nonnegative(normal[below], right[below])
        clipped[below] = amount[below] == 0
    residual = np.where(good, y - amount @ S, np.nan)
    chi2 = np.where(enough, np.nansum(weight * residual**2, axis=1), np.nan)
    spare = good.sum(axis=1) - components + clipped.sum(axis=1)
    usable = enough & (spare > 0)
    misfit = usable & (chdtrc(np.maximum(spare, 1), np.nan_to_num(chi2)) < _MISFIT_P)
    amount[~enough], linear[~enough], clipped[~enough] = np.nan, 0.0, False
    residual[~enough] = np.nan
    return _Solved(amount, linear, clipped, residual, np.where(usable, chi2 / np.maximum(spare, 1), np.nan), misfit)


def _determined(good: NDArray[np.bool_], S: FloatArray) -> NDArray[np.bool_]:
    """Return which values have enough usable bands to tell the components apart, shape (P,)."""
    if good.all():
        return np.ones(len(good), bool)
    patterns, which = np.unique(good, axis=0, return_inverse=True)
    unit = S / np.linalg.norm(S, axis=1, keepdims=True)
    fine = [p.sum() >= len(S) and np.linalg.cond(unit[:, p]) < _SAME for p in patterns]
    return np.asarray(fine)[which.ravel()]


def _nonnegative(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Minimise x'Nx - 2 x'r with x >= 0 for many values: the best of all sets of positive components.

    The minimum over a set is -x'r, and one of the sets holds the constrained minimum, so no iteration is needed.
    """
    values, components = right.shape
    if components > _MAX_SETS:
        return _one_by_one(normal, right)
    best, gain = np.zeros((values, components)), np.zeros(values)
    for size in range(1, components + 1):
        for chosen in combinations(range(components), size):
            inside = list(chosen)
            x = np.linalg.solve(normal[:, inside][:, :, inside], right[:, inside, None])[..., 0]
            reach = np.where((x >= 0).all(axis=1), np.einsum("pk,pk->p", x, right[:, inside]), -1.0)
            better = reach > gain
            gain[better] = reach[better]
            found = np.zeros_like(best)
            found[:, inside] = x
            best[better] = found[better]
    return best


def _one_by_one(normal: FloatArray, right: FloatArray) -> FloatArray:
    from scipy.optimize import nnls

    lower = np.linalg.cholesky(normal)
    return np.array([nnls(L.T, np.linalg.solve(L, r))[0] for L, r in zip(lower, right, strict=True)])


def _spectral_error(found: _Solved, spectra: Spectra) -> FloatArray:
    """Return the standard errors (P, k) that errors of the spectra make: a shifts by -M (a_j ds_j)."""
    total = np.zeros(found.amount.shape)
    for j, covariance in enumerate(errors_of(spectra)):
        if covariance.any():
            total += found.amount[:, j, None] ** 2 * np.einsum(
                "pkb,bc,pkc->pk", found.map, covariance, found.map, optimize=True
            )
    return np.sqrt(np.maximum(total, 0.0))
