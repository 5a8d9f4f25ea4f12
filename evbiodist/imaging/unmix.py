"""Spectral unmixing: what several bands show is a weighted sum of spectra, autofluorescence among them.

Weighted least squares as for organs, with spectra for footprints; errors of the spectra are a systematic term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.imaging.noise import estimate_camera, variance_counts
from evbiodist.io.scan import Camera, FloatArray, Scan
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import read_cells

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
_WAVELENGTH = ("wavelength_nm", "wavelength", "emission_nm")
#: Problems of one table that are named before the rest is only mentioned.
_MAX_PROBLEMS = 50


@dataclass(frozen=True, eq=False)
class Spectra:
    """Emission of every component (fluorophores, autofluorescence) in every band.

    Parameters
    ----------
    names : one a component.
    emission_nm : (n_bands,) centre wavelengths, or None for bands known by their order only.
    values : (n_components, n_bands) relative emission, in any scale.
    covariance : (n_components, n_bands, n_bands) of the errors of `values`, or None for spectra taken as exact.
    source : where they come from; notes : sentences for people.

    Raises
    ------
    ValueError : shapes that do not match, values that are not finite, or a component without light.

    Examples
    --------
    >>> Spectra(("DiR", "tissue"), (700, 780), np.array([[1.0, 3.0], [2.0, 2.0]])).normalised().values.tolist()
    [[0.25, 0.75], [0.5, 0.5]]
    """

    names: tuple[str, ...]
    emission_nm: tuple[float, ...] | None
    values: FloatArray
    covariance: FloatArray | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        object.__setattr__(self, "values", values)
        if values.ndim != 2 or len(values) != len(self.names) or 0 in values.shape:
            raise ValueError(f"spectra of {len(self.names)} components have shape {values.shape}; expected "
                             "(components, bands)")  # fmt: skip
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"spectra name a component twice ({', '.join(self.names)}); rename one of them")
        if self.emission_nm is not None and len(self.emission_nm) != values.shape[1]:
            raise ValueError(f"{len(self.emission_nm)} wavelengths are given for {values.shape[1]} bands; "
                             "give one a band, or None")  # fmt: skip
        if not np.isfinite(values).all():
            raise ValueError("a spectrum holds a value that is not a number; give one for every band")
        for name, total in zip(self.names, values.sum(axis=1), strict=True):
            if total <= 0:
                raise ValueError(
                    f"the spectrum of '{name}' sums to {total:g} over the bands; a component needs light in them"
                )
        if self.covariance is not None and np.shape(self.covariance) != (*values.shape, values.shape[1]):
            raise ValueError(f"the covariance of the spectra has shape {np.shape(self.covariance)}; expected "
                             f"{(*values.shape, values.shape[1])}")  # fmt: skip

    @property
    def se(self) -> FloatArray | None:
        """Standard errors of `values`, shape (n_components, n_bands); None for exact spectra."""
        return None if self.covariance is None else np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    def normalised(self) -> Spectra:
        """Return the spectra with a sum of 1 each, so that a component's signal is its total over the bands."""
        total = self.values.sum(axis=1, keepdims=True)
        share = self.values / total
        if self.covariance is None:
            return replace(self, values=share)
        turn = (np.eye(share.shape[1]) - share[:, :, None]) / total[:, :, None]
        return replace(self, values=share, covariance=turn @ self.covariance @ turn.transpose(0, 2, 1))

    def at(self, emission_nm: Sequence[float]) -> Spectra:
        """Return the spectra in other bands, interpolated linearly at their centres (band widths are not used).

        Raises
        ------
        ValueError : a band outside the spectra's range, or spectra without (distinct) wavelengths.
        """
        wanted = tuple(float(w) for w in emission_nm)
        if self.emission_nm is None:
            raise ValueError(
                "the spectra have no wavelengths, so they hold only in the bands that they were measured in"
            )
        if wanted == tuple(map(float, self.emission_nm)):
            return self
        order = np.argsort(self.emission_nm, kind="stable")
        known = np.asarray(self.emission_nm, dtype=np.float64)[order]
        if np.any(np.diff(known) == 0):
            raise ValueError(
                "the spectra have two bands of the same wavelength, so others cannot be read off between them"
            )
        for w in wanted:
            if not known[0] <= w <= known[-1]:
                raise ValueError(f"a band at {w:g} nm is outside the spectra ({known[0]:g} to {known[-1]:g} nm); "
                                 "give spectra that reach it, or leave the band out")  # fmt: skip
        weights = np.array([np.interp(wanted, known, unit) for unit in np.eye(known.size)])  # (known, wanted)
        weights = weights[np.argsort(order)]
        covariance = None if self.covariance is None else weights.T @ self.covariance @ weights
        return replace(self, emission_nm=wanted, values=self.values @ weights, covariance=covariance)

    def joined(self, other: Spectra) -> Spectra:
        """Return the components of both, e.g. fluorophores from a table and a measured autofluorescence.

        Raises
        ------
        ValueError : spectra in different bands, or a component in both.
        """
        if self.emission_nm is not None and other.emission_nm is not None:
            other = other.at(self.emission_nm)
        elif self.values.shape[1] != other.values.shape[1]:
            raise ValueError(f"spectra in {self.values.shape[1]} and {other.values.shape[1]} bands cannot be joined; "
                             "give both in the same bands")  # fmt: skip
        exact = self.covariance is None and other.covariance is None
        return Spectra(
            self.names + other.names,
            self.emission_nm or other.emission_nm,
            np.vstack([self.values, other.values]),
            None if exact else np.concatenate([_errors(self), _errors(other)]),
            "; ".join(dict.fromkeys(s for s in (self.source, other.source) if s)),
            self.notes + other.notes,
        )


def _errors(spectra: Spectra) -> FloatArray:
    bands = spectra.values.shape[1]
    return np.zeros((len(spectra.names), bands, bands)) if spectra.covariance is None else spectra.covariance


def read_spectra(path: str | Path) -> Spectra:
    """Read emission spectra from a table: a column of wavelengths in nm and a column for every component.

    Parameters
    ----------
    path : CSV with `wavelength_nm` (or `wavelength`, `emission_nm`), one column per component and, where known,
        its standard errors in a column named like it with `_se` at the end.

    Returns
    -------
    Spectra : in rising order of wavelength, as tabulated.

    Raises
    ------
    InputError : every problem of the table at once.
    """
    path = Path(path)
    header, cells, lines, _ = read_cells(path)
    axis = next((name for name in _WAVELENGTH if name in header), None)
    errors = [c for c in header if c.endswith("_se") and c[:-3] in header]
    names = [c for c in header if c not in (axis, *errors)]
    problems = _header_problems(path.name, header, axis, names, bool(cells))
    if problems or axis is None:
        raise InputError(problems)
    columns = _columns(path.name, header, cells, lines, axis, problems)
    for name in names:
        if not problems and not columns[name].any():
            problems.append(Problem(path.name, "0 in every row", "a component with light", "remove it", field=name))
    if problems:
        raise InputError(problems)
    covariance = None
    if errors:
        covariance = np.array([np.diag(columns.get(f"{n}_se", 0 * columns[n]) ** 2) for n in names])
    notes = tuple(f"the spectrum of {n} is taken as exact" for n in names if errors and f"{n}_se" not in header)
    values = np.array([columns[n] for n in names])
    return Spectra(tuple(names), tuple(columns[axis].tolist()), values, covariance, path.name, notes)


def _header_problems(file: str, header: list[str], axis: str | None, names: list[str], filled: bool) -> list[Problem]:
    problems = []
    if axis is None:
        problems.append(Problem(file, "", "a column 'wavelength_nm'", "add it", field="wavelength_nm"))
    if not names:
        problems.append(Problem(file, "no component", "a column per fluorophore beside the wavelengths", "add it"))
    if "" in header:
        problems.append(Problem(file, "", "a name for every column", "name it, or remove the delimiter at the end"))
    for name in sorted({c for c in header if c and header.count(c) > 1}):
        problems.append(Problem(file, name, "each column once", "rename or remove the second", field=name))
    if not filled:
        problems.append(Problem(file, "a header only", "rows under the header", "fill the table"))
    return problems


def _columns(
    file: str, header: list[str], cells: list[list[str]], lines: list[int], axis: str, problems: list[Problem]
) -> dict[str, FloatArray]:
    """Return the columns as numbers in rising order of wavelength, with problems appended (at most a few a column)."""
    seen: dict[float, int] = {}
    rows: list[list[float]] = []
    for row, line in zip(cells, lines, strict=True):
        if len(problems) >= _MAX_PROBLEMS:
            problems.append(Problem(file, "more of the like below", "a table of numbers", "correct these first"))
            break
        if len(row) != len(header):
            problems.append(Problem(file, f"{len(row)} cells", f"{len(header)}, as in the header",
                                    "quote cells that hold the delimiter", row=line))  # fmt: skip
            continue
        rows.append([_number(file, column, text, axis, line, problems)
                     for column, text in zip(header, row, strict=True)])  # fmt: skip
        wavelength = rows[-1][header.index(axis)]
        if wavelength in seen:
            problems.append(Problem(file, f"{wavelength:g}", "each wavelength once", f"it stands in row {seen[wavelength]} "
                                    "too: remove one of them", row=line, field=axis))  # fmt: skip
        if not np.isnan(wavelength):
            seen.setdefault(wavelength, line)
    table = np.array(rows).reshape(-1, len(header))
    table = table[np.argsort(table[:, header.index(axis)])]
    return {name: table[:, i] for i, name in enumerate(header)}


def _number(file: str, column: str, text: str, axis: str, line: int, problems: list[Problem]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if column == axis:
        fine, expected = 200 < value < 2000, "a wavelength in nm, more than 200 and less than 2000"
    else:
        fine, expected = 0 <= value < np.inf, "a finite number, 0 or more, with a decimal point"
    if not fine:
        problems.append(Problem(file, text, expected, "correct it, or remove the row", row=line, field=column))
    return value if fine else np.nan


def split_bands(scan: Scan) -> tuple[Scan, ...]:
    """Return one scan for every band of axis C, to be measured band by band.

    Raises
    ------
    ValueError : a scan without axis C.

    Examples
    --------
    >>> [s.counts.shape for s in split_bands(Scan("a", None, np.ones((2, 3, 4)), "CYX"))]
    [(3, 4), (3, 4)]
    """
    if "C" not in scan.axes:
        raise ValueError(f"{scan.name} has axes '{scan.axes}' and no axis C; unmixing needs several bands")
    at, bands = scan.axes.index("C"), scan.extent("C")
    axes = scan.axes.replace("C", "")

    def part(values: Any, i: int) -> Any:
        back = len(scan.axes) - at  # how far axis C is from the end
        if np.ndim(values) < back:
            return values
        return np.take(np.asarray(values), i if np.shape(values)[-back] == bands else 0, axis=-back)

    return tuple(
        replace(
            scan,
            counts=np.asarray(scan.counts[(slice(None),) * at + (i,)]),
            axes=axes,
            offset=part(scan.offset, i),
            scale=part(scan.scale, i),
            bad=None if scan.bad is None else part(scan.bad, i),
            bands=scan.bands[i : i + 1],
        )
        for i in range(bands)
    )


def _usable(scan: Scan) -> NDArray[np.bool_]:
    """Return where a one-band scan's pixels can be used: finite, not saturated, not dead."""
    counts = np.asarray(scan.counts)
    good = np.isfinite(counts)
    if scan.camera.saturation is not None:
        good &= counts < scan.camera.saturation
    return good if scan.bad is None else good & ~np.broadcast_to(scan.bad, counts.shape)


def spectrum_from_region(
    scan: Scan, mask: NDArray[Any], name: str = "autofluorescence", *, background: NDArray[Any] | None = None
) -> Spectra:
    """Measure a component's spectrum in a region that shows it alone, e.g. in an unlabelled animal.

    Parameters
    ----------
    scan : one frame with axis C.
    mask : (Y, X) True in the region; background : (Y, X) True where its background is, which is subtracted.
    name : of the component.

    Returns
    -------
    Spectra : one component with a sum of 1, and its covariance from the spread of the pixels, which are taken as
        independent; a pixel saturated in any band is left out of all, for bright pixels missing in one band only
        would bend the spectrum.

    Raises
    ------
    ValueError : several frames, a mask of another shape, fewer than 10 usable pixels, or no light.

    Examples
    --------
    >>> image = np.array([1.0, 3.0])[:, None, None] * np.linspace(9, 11, 16).reshape(4, 4)
    >>> spectrum_from_region(Scan("a", None, image, "CYX"), np.ones((4, 4), bool)).values.round(3).tolist()
    [[0.25, 0.75]]
    """
    parts = split_bands(scan)
    if np.size(parts[0].counts) != np.prod(scan.plane_shape):
        raise ValueError(f"{scan.name} holds several frames ({scan.axes}); measure a spectrum in one frame")
    image = np.array([p.signal().reshape(scan.plane_shape) for p in parts])
    good = np.all([_usable(p).reshape(scan.plane_shape) for p in parts], axis=0)
    mean, covariance, notes = _region(scan.name, image, good, mask, "region")
    if background is not None:
        level, spread, _ = _region(scan.name, image, good, background, "background")
        mean, covariance = mean - level, covariance + spread
    known = [b.emission_nm for b in scan.bands if b.emission_nm is not None]
    emission = tuple(known) if len(known) == len(parts) and len({b.excitation_nm for b in scan.bands}) == 1 else None
    if emission is None:
        notes = (*notes, f"the spectrum of {name} holds for the bands of {scan.name} in their order")
    return Spectra((name,), emission, mean[None], covariance[None], f"measured in {scan.name}", notes).normalised()


def _region(
    scan: str, image: FloatArray, good: NDArray[np.bool_], mask: NDArray[Any], what: str
) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    inside = np.asarray(mask, bool)
    if inside.shape != good.shape:
        raise ValueError(
            f"the mask of the {what} has shape {inside.shape}, a band of {scan} {good.shape}; draw it on the scan"
        )
    chosen = image[:, inside & good]
    count = chosen.shape[1]
    if count < 10:
        raise ValueError(f"the {what} in {scan} has {count} usable pixels; a spectrum with errors needs 10 or more")
    lost = int(inside.sum()) - count
    notes = (
        (f"{lost} of {int(inside.sum())} pixels of the {what} are saturated or dead and were left out",) if lost else ()
    )
    return chosen.mean(axis=1), np.atleast_2d(np.cov(chosen)) / count, notes


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
    good = np.array([_usable(p) for p in parts]).reshape(bands, -1).T & np.isfinite(y) & (scale > 0)
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
    for j, covariance in enumerate(_errors(spectra)):
        if covariance.any():
            total += found.amount[:, j, None] ** 2 * np.einsum(
                "pkb,bc,pkc->pk", found.map, covariance, found.map, optimize=True
            )
    return np.sqrt(np.maximum(total, 0.0))


@dataclass(frozen=True, eq=False)
class Subtracted:
    """Signals without autofluorescence.

    Parameters
    ----------
    value : signals minus area times the control animals' mean.
    se : random standard error, with the animal-to-animal spread of autofluorescence.
    se_systematic : error of the control mean, shared by all values it was subtracted from.
    df : degrees of freedom of the total standard error (Satterthwaite), for intervals.
    flags : words by value; notes : sentences for people.
    """

    value: FloatArray
    se: FloatArray
    se_systematic: FloatArray
    df: FloatArray
    flags: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def subtract_autofluorescence(
    signal: ArrayLike,
    se: ArrayLike,
    area: ArrayLike,
    control_values: ArrayLike,
    control_se: ArrayLike = 0.0,
    control_n: ArrayLike = 1,
) -> Subtracted:
    """Subtract what unlabelled animals show in the same organ, in proportion to area (or mass).

    Parameters
    ----------
    signal, se, area : (n,) organ signals, their standard errors, and area (or mass) of the organs.
    control_values : (k,) control signal per unit area (or mass), one an animal or one a group of animals.
    control_se : of each; for a group its SD over the square root of n.
    control_n : (k,) animals behind each value.

    Returns
    -------
    Subtracted : flagged `few` with fewer than three control animals, and `negative` below zero.

    Raises
    ------
    ValueError : shapes that do not match, errors or areas that are not positive numbers, no control.

    Examples
    --------
    >>> found = subtract_autofluorescence([100.0], [3.0], [10.0], [2.0, 3.0, 4.0])
    >>> found.value.tolist(), found.se.round(2).tolist(), found.se_systematic.round(2).tolist()
    ([70.0], [10.44], [5.77])
    """
    s, e, a = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (signal, se, area)))
    values = np.atleast_1d(np.asarray(control_values, dtype=np.float64))
    errors = np.broadcast_to(np.asarray(control_se, dtype=np.float64), values.shape)
    n = np.broadcast_to(np.asarray(control_n, dtype=np.float64), values.shape)
    _check_controls(e, a, values, errors, n)
    animals = float(n.sum())
    mean = float((n * values).sum() / animals)
    measured = float((n**2 * errors**2).sum() / animals)  # variance of one animal, from the stated errors
    if values.size > 1:
        between = max(float((n * (values - mean) ** 2).sum() / (values.size - 1)), measured)
        df = values.size - 1.0
    else:
        between, df = measured, max(animals - 1, 1.0)
    random, shared = a * np.sqrt(between), a * np.sqrt(between / animals)
    total = e**2 + random**2 + shared**2
    below = random**2 + shared**2
    freedom = df * (total / np.where(below > 0, below, np.inf)) ** 2 if between else np.full(s.shape, np.inf)
    value = s - a * mean
    notes = [f"{mean:.4g} per unit of area or mass was subtracted, from {animals:g} control animals"]
    if animals < 2:
        notes.append("one control animal does not show how much animals differ; the error is too small")
    flags = tuple(tuple(w for w, holds in (("few", animals < 3), ("negative", v < 0)) if holds) for v in value)
    return Subtracted(value, np.hypot(e, random), shared, freedom, flags, tuple(notes))


def _check_controls(se: FloatArray, area: FloatArray, values: FloatArray, errors: FloatArray, n: FloatArray) -> None:
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            "no control animal, or a control value that is not a number; give the unlabelled animals' signals"
        )
    if not (se >= 0).all() or not (errors >= 0).all():
        raise ValueError("a standard error is missing or below zero; give one for every signal and control")
    if not (area > 0).all():
        raise ValueError("an area (or mass) is missing or not above zero; give one for every organ")
    if not (n >= 1).all():
        raise ValueError("a control has fewer than one animal; correct control_n")
