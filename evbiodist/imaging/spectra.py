"""Spectra of what shines in an image, from a table or from a region, and the bands they are compared with.

A spectrum carries its error, because unmixing passes it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import read_cells

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
                "the spectra have no wavelengths, so they hold only in the bands that they were measured in; give emission_nm"
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
            None if exact else np.concatenate([errors_of(self), errors_of(other)]),
            "; ".join(dict.fromkeys(s for s in (self.source, other.source) if s)),
            self.notes + other.notes,
        )


def errors_of(spectra: Spectra) -> FloatArray:
    """Return the covariance of every component's spectrum, (components, bands, bands); zero where it has no error."""
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


def usable_pixels(scan: Scan) -> NDArray[np.bool_]:
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
    good = np.all([usable_pixels(p).reshape(scan.plane_shape) for p in parts], axis=0)
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
