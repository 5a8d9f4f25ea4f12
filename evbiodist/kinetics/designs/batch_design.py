"""The area under a mean curve whose animals were sampled several times, but not at every time.

Two means that share animals go up and down together, so the area's variance needs their covariances too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.designs.mean_curve import (
    Bools,
    Floats,
    area_flags,
    check_interval,
    check_times,
    settle_majority,
    trapezoid_weights,
)
from evbiodist.kinetics.designs.sparse import SparseAuc
from evbiodist.study.estimate import Estimate, student
from evbiodist.study.units import derive


@dataclass(frozen=True, eq=False)
class AnimalMeans:
    """Means over animals with the covariances that come from sharing animals.

    Parameters
    ----------
    mean : (..., C) mean of each column (a time, or a time of one organ).
    spread : (..., C, C) covariance between animals; NaN on the diagonal of a column with one animal, 0 for
        columns that share none.
    shared : (C, C) number of animals in both columns; the diagonal is the number in each.
    patterns : (B, C) which columns the animals of a batch have; sizes : (B,) animals in it.

    Notes
    -----
    Covariances are Holder's unbiased ones, sum of products of deviations over
    (r - 1) + (1 - r/n_j)(1 - r/n_k) with r shared animals, limited to the Cauchy-Schwarz bound: Holder DJ (2001)
    J Biopharm Stat 11:75-79, appendix; Jaki T, Wolfsegger MJ (2012) Stat Med 31:1059-1073. In disjoint batches and in
    complete data r = n_j = n_k, so that they are the ordinary sample covariances.
    """

    mean: Floats
    spread: Floats
    shared: Floats
    patterns: Bools
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, values: ArrayLike) -> AnimalMeans:
        """Return the means of a table of animals.

        Parameters
        ----------
        values : (..., N, C) one row an animal, NaN where it was not sampled; the pattern of NaN is the same for
            all leading axes.

        Raises
        ------
        ValueError : fewer than two axes, a column without animals, patterns that differ.

        Examples
        --------
        >>> means = AnimalMeans.of([[2, 4], [4, 8], [np.nan, 6]])
        >>> means.mean.tolist(), means.shared.tolist(), means.spread.round(3).tolist()
        ([3.0, 6.0], [[2.0, 2.0], [2.0, 3.0]], [[2.0, 2.828], [2.828, 4.0]])
        """
        y = np.asarray(values, dtype=np.float64)
        seen = ~np.isnan(y)
        if y.ndim < 2 or not seen.any(axis=-2).all():
            raise ValueError(
                f"values has shape {y.shape} and columns without a value, expected animals by times with at least "
                "one animal for each time; leave out what was never measured"
            )
        m = seen.reshape(-1, *y.shape[-2:])[0]
        if not (seen == m).all():
            raise ValueError("values has NaN in different places, expected one design; analyse the curves one by one")
        patterns, sizes = np.unique(m, axis=0, return_counts=True)
        shared = m.T.astype(np.float64) @ m
        filled = np.where(m, y, 0.0)
        mean = filled.sum(axis=-2) / shared.diagonal()
        off = np.where(m, filled - mean[..., None, :], 0.0)
        scale = _holder(shared)
        spread = np.where(scale > 0, np.swapaxes(off, -1, -2) @ off, 0.0) / np.where(scale > 0, scale, 1.0)
        sd = np.sqrt(np.diagonal(spread, axis1=-2, axis2=-1))
        bound = sd[..., :, None] * sd[..., None, :]
        spread = np.clip(spread, -bound, bound)
        alone = np.diag(shared.diagonal() < 2)
        return cls(mean, np.where(alone, np.nan, spread), shared, patterns, sizes)

    @property
    def n(self) -> Floats:
        """Number of animals of each column, (C,)."""
        return self.shared.diagonal()

    def covariance(self, left: ArrayLike, right: ArrayLike) -> Floats:
        """Return the covariance of two weighted sums of the means, (...); NaN where it needs an unknown spread.

        Parameters
        ----------
        left, right : (..., C) weights.

        Examples
        --------
        >>> float(AnimalMeans.of([[2, 4], [4, 8]]).covariance([1, 0], [0, 1]))
        2.0
        """
        parts = self._products(left, right)
        total = parts.sum(axis=(-1, -2))
        return np.where(np.abs(total) <= 1e-14 * np.abs(parts).sum(axis=(-1, -2)), 0.0, total)

    def freedom(self, weights: ArrayLike) -> Floats:
        """Return the Satterthwaite degrees of freedom of a weighted sum's variance, (...); inf where it is 0.

        Parameters
        ----------
        weights : (..., C).

        Examples
        --------
        >>> float(AnimalMeans.of([[2, 4], [4, 8], [5, 7]]).freedom([1, 1]))
        2.0

        Notes
        -----
        2 V^2 / Var(V) with the variance of V, a quadratic form in the samples, under normality: Nedelman JR,
        Jia X (1998) J Biopharm Stat 8:317-328. For disjoint batches it is Satterthwaite's formula with n - 1 for
        each batch, for serial sacrifice Bailer's, for complete data n - 1.
        """
        w = np.asarray(weights, dtype=np.float64)
        var = self.covariance(w, w)
        sigma = np.where(self._products(w, w) == 0, 0.0, self.spread)
        scale = _holder(self.shared)
        with np.errstate(divide="ignore", invalid="ignore"):
            form = self.shared / (self.n[:, None] * self.n * scale)
        form = np.where(scale > 0, form, 0.0) * w[..., :, None] * w[..., None, :]
        below = np.zeros(var.shape)
        for pattern, size in zip(self.patterns, self.sizes, strict=True):
            part = (form * np.outer(pattern, pattern)) @ sigma
            below = below + (size - 1) * _trace_of_square(part)
        below = np.where(var > 0, below + self._between_batches(form, sigma), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(below > 0, var**2 / below, np.where(var == 0, np.inf, np.nan))

    def _products(self, left: ArrayLike, right: ArrayLike) -> Floats:
        a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
        weight = a[..., :, None] * b[..., None, :] * self.shared / (self.n[:, None] * self.n)
        return np.where(weight == 0, 0.0, weight * self.spread)

    def _between_batches(self, form: Floats, sigma: Floats) -> Floats | float:
        """Part of the trace that batch means add where batches share a time; none does in a disjoint design."""
        root = np.sqrt(self.sizes) * self.patterns.T  # (C, B)
        centre = (
            np.eye(len(self.sizes)) * self.patterns.T[:, None, :]
            - root[:, :, None] * root[:, None, :] / (self.n[:, None, None])
        )
        if np.abs(centre).max() < 1e-12:
            return 0.0
        blocks = np.einsum("jab,kbc->jakc", centre, centre)
        c, b = root.shape
        lead = form.shape[:-2]
        matrix = (form[..., :, None, :, None] * blocks).reshape(*lead, c * b, c * b)
        both = np.einsum("bj,bk,bc->jbkc", self.patterns, self.patterns, np.eye(b))
        cover = (sigma[..., :, None, :, None] * both).reshape(*sigma.shape[:-2], c * b, c * b)
        return _trace_of_square(matrix @ cover)


def _holder(shared: Floats) -> Floats:
    """Return the divisor that makes a covariance of deviations from the columns' own means unbiased."""
    part = shared / shared.diagonal()
    return np.where(shared > 0, (shared - 1) + (1 - part) * (1 - part.T), 0.0)


def _trace_of_square(a: Floats) -> Floats:
    total: Floats = (a * np.swapaxes(a, -1, -2)).sum(axis=(-1, -2))
    return total


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a study as a table, one row an animal.

    Parameters
    ----------
    time_h : (T,) hours; subjects : (N,) names.
    values : (N, T), NaN where the animal was not sampled; below : (N, T) below the limit of quantification.
    """

    time_h: Floats
    subjects: tuple[str, ...]
    values: Floats
    below: Bools

    @classmethod
    def of(cls, time_h: ArrayLike, subject: ArrayLike, value: ArrayLike, below: ArrayLike | None = None) -> Samples:
        """Arrange rows of (time, animal, value) as a table.

        Raises
        ------
        ValueError : rows of unequal number, times or values that are not numbers, an animal twice at one time.

        Examples
        --------
        >>> Samples.of([1, 2, 1], ["a", "a", "b"], [4, 2, 6]).values.tolist()
        [[4.0, 2.0], [6.0, nan]]
        """
        t, y = np.asarray(time_h, dtype=np.float64), np.asarray(value, dtype=np.float64)
        who = np.asarray(subject).astype(str)
        low = np.zeros(y.shape, bool) if below is None else np.asarray(below, dtype=np.bool_)
        if t.ndim != 1 or not t.shape == y.shape == who.shape == low.shape:
            raise ValueError(
                f"time_h, subject, value and below have shapes {t.shape}, {who.shape}, {y.shape}, {low.shape}, "
                "expected one entry a sample in each"
            )
        if not np.isfinite(y).all():
            at = int(np.flatnonzero(~np.isfinite(y))[0])
            raise ValueError(
                f"value has {y[at]} for {who[at]} at {t[at]:g} h, expected a finite number; drop the sample"
            )
        times, column = np.unique(t, return_inverse=True)
        check_times(times)
        names, row = np.unique(who, return_inverse=True)
        values, mask = np.full((names.size, times.size), np.nan), np.zeros((names.size, times.size), bool)
        values[row, column], mask[row, column] = y, low
        if np.isfinite(values).sum() < y.size:
            pairs, count = np.unique(np.stack([row, column]), axis=1, return_counts=True)
            i, j = pairs[:, int(count.argmax())]
            raise ValueError(
                f"subject has {names[i]} {count.max()} times at {times[j]:g} h, expected one sample an animal and time; "
                "average repeated measurements of one sample, or give different animals different names"
            )
        return cls(times, tuple(str(n) for n in names), values, mask)

    def rows_of(self, subjects: Sequence[str]) -> Floats:
        """Return the values of given animals, (len(subjects), T); NaN for those without samples.

        Examples
        --------
        >>> Samples.of([1, 2], ["a", "b"], [4, 2]).rows_of(["b", "c"]).tolist()
        [[nan, 2.0], [nan, nan]]
        """
        row = {name: i for i, name in enumerate(self.subjects)}
        nobody = np.full((1, self.time_h.size), np.nan)
        return np.vstack([self.values, nobody])[[row.get(s, -1) for s in subjects]]

    @property
    def share_below(self) -> Floats:
        """Share of the animals of each time that is below the limit, (T,)."""
        share: Floats = self.below.sum(axis=0) / np.isfinite(self.values).sum(axis=0)
        return share


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """The mean curve of animals, with the rule for times below the limit applied.

    Parameters
    ----------
    samples, means : what it is made of.
    mean : (T,) values as the rule wants them; kept : (T,) times that take part.
    """

    samples: Samples
    means: AnimalMeans
    mean: Floats
    kept: Bools

    @classmethod
    def of(
        cls, time_h: ArrayLike, subject: ArrayLike, value: ArrayLike, below: ArrayLike | None, majority_blq: str
    ) -> MeanCurve:
        """Return the curve of rows of (time, animal, value)."""
        samples = Samples.of(time_h, subject, value, below)
        means = AnimalMeans.of(samples.values)
        return cls(samples, means, *settle_majority(means.mean, samples.share_below, majority_blq))

    @property
    def detected_h(self) -> Floats:
        """Hours at which the mean is above zero."""
        return self.samples.time_h[self.kept & (self.mean > 0)]

    def weights(self, from_zero: bool, until_h: float = math.inf) -> Floats:
        """Return the hours each mean counts for, (T,), up to a time."""
        t = self.samples.time_h
        return trapezoid_weights(t, self.mean, self.kept & (t <= until_h), from_zero)

    def area(
        self, name: str, value: float, weights: Floats, level: float, interval: str, unit: str, *flags: str
    ) -> SparseAuc:
        """Return a weighted sum of the means, or what has these derivatives, with its interval."""
        used = weights != 0
        var, df = float(self.means.covariance(weights, weights)), float(self.means.freedom(weights))
        animals = int(np.isfinite(self.samples.values[:, used]).any(axis=1).sum())
        reason = self._why_no_error(used & (self.means.n < 2), var)
        se = math.nan if reason else math.sqrt(var)
        half = math.nan if reason else student(level, df if interval == "t" else math.inf) * se
        if self.samples.below[:, used].any():
            flags = (*flags, "below_lloq")
        estimate = Estimate(
            name,
            value,
            se,
            value - half,
            value + half,
            unit=derive("value*time", unit).unit,
            method=f"{_METHOD}, {interval} interval",
            n=animals,
            flags=tuple(sorted({*flags, *area_flags(value, se, animals)})),
            reason=reason,
        )
        return SparseAuc(estimate, df, tuple(weights.tolist()))

    def _why_no_error(self, alone: Bools, var: float) -> str:
        if alone.any():
            times = ", ".join(f"{x:g}" for x in self.samples.time_h[alone])
            return f"there is one animal at {times} h, so no standard error"
        if var < 0:
            return "the covariances of overlapping batches make no positive variance, so no standard error"
        return ""


_METHOD = "means over animals, linear"


def batch_auc(
    time_h: ArrayLike,
    subject: ArrayLike,
    value: ArrayLike,
    *,
    below: ArrayLike | None = None,
    majority_blq: str = "end",
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseAuc:
    """Return the area under the mean curve of animals that were sampled once, several times or every time.

    Parameters
    ----------
    time_h, subject, value : (S,) hours, animal and value of each sample, in any order. A value below the limit of
        quantification is given as what shall stand for it, such as 0 or half the limit.
    below : (S,) True for values below the limit; without it none is.
    majority_blq : rule for times where more than half are below: a key of
        `evbiodist.kinetics.designs.mean_curve.MAJORITY_BLQ`.
    level, interval, unit, from_zero : as in `evbiodist.kinetics.designs.sparse.bailer`.

    Returns
    -------
    SparseAuc : `auclast_sparse`, to the last positive mean by the linear rule. With one sample an animal it is
        Bailer's; with every animal at every time it is the mean of the animals' own areas.

    Raises
    ------
    ValueError : samples that cannot be arranged (`Samples.of`), nothing above zero.

    Examples
    --------
    >>> auc = batch_auc([0, 1, 2, 0, 1, 2], ["a", "a", "a", "b", "b", "b"], [8, 6, 2, 6, 4, 2])
    >>> auc.estimate.value, auc.estimate.se, auc.df
    (9.5, 1.5, 1.0)

    Notes
    -----
    Var(AUC) = sum w_j w_k r_jk s_jk / (n_j n_k) over all pairs of times, r_jk animals having both: Holder DJ, Hsuan F,
    Dixit R, Soper K (1999) J Biopharm Stat 9:451-464; Jaki T, Wolfsegger MJ (2009) Stat Biopharm Res 1:176-184.
    Covariances and degrees of freedom are those of `AnimalMeans`.
    """
    curve = _checked(time_h, subject, value, below, majority_blq, level, interval)
    w = curve.weights(from_zero)
    return curve.area("auclast_sparse", float(w @ curve.mean), w, level, interval, unit)


def _checked(
    time_h: ArrayLike,
    subject: ArrayLike,
    value: ArrayLike,
    below: ArrayLike | None,
    majority_blq: str,
    level: float,
    interval: str,
) -> MeanCurve:
    """Return the curve; refuse settings that are not known, and a curve in which nothing was detected."""
    check_interval(interval, level)
    curve = MeanCurve.of(time_h, subject, value, below, majority_blq)
    if not curve.detected_h.size:
        raise ValueError(
            f"mean has {curve.mean.tolist()}, expected at least one positive mean; nothing was detected, so there is "
            "no area"
        )
    return curve


def batch_aucinf(
    time_h: ArrayLike,
    subject: ArrayLike,
    value: ArrayLike,
    *,
    lambda_z_points: int | None = None,
    below: ArrayLike | None = None,
    majority_blq: str = "end",
    level: float = 0.95,
    interval: str = "t",
    unit: str = "au",
    from_zero: bool = False,
) -> SparseAuc:
    """Return the area to infinity of the mean curve: the area to the last positive mean, and an exponential tail.

    Parameters
    ----------
    time_h, subject, value, below, majority_blq, level, interval, unit, from_zero : as in `batch_auc`.
    lambda_z_points : number of last positive means on the terminal line; without it the best line of
        `evbiodist.kinetics.nca.nca.nca`.

    Returns
    -------
    SparseAuc : `aucinf_obs_sparse`, whose `weights` are the derivatives of the area with respect to the means; missing
        with its reason when there is no terminal line, flagged `extrapolated` with more than 20 % in the tail.

    Raises
    ------
    ValueError : as `batch_auc`; fewer than three points.

    Examples
    --------
    >>> auc = batch_aucinf([0, 1, 2, 3, 0, 1, 2, 3], [*"aaaabbbb"], [6, 3, 1.5, 0.75, 10, 5, 2.5, 1.25])
    >>> round(auc.estimate.value, 3), round(auc.estimate.se, 3), round(auc.df, 3)
    (11.943, 2.986, 1.0)

    Notes
    -----
    mean_last / lambda_z with lambda_z from the line through the logarithms of the means, and the error of both by
    first-order propagation with the covariances of the means. Yuan J (1993) J Pharm Sci 82:761-763 takes lambda_z as
    known instead, which leaves its part of the error out.
    """
    curve = _checked(time_h, subject, value, below, majority_blq, level, interval)
    t, w = curve.samples.time_h, curve.weights(from_zero)
    points, why = _terminal_points(t, curve.mean, curve.kept, lambda_z_points)
    if why:
        missing = Estimate("aucinf_obs_sparse", unit=derive("value*time", unit).unit, method=_METHOD, reason=why)
        return SparseAuc(missing, math.nan, tuple(w.tolist()))
    last = int(np.flatnonzero(curve.kept & (curve.mean > 0))[-1])
    tail, gradient = _tail(t, curve.mean, last, points)
    value_to_last = float(w @ curve.mean)
    flags = ("extrapolated",) if tail > 0.2 * (value_to_last + tail) else ()
    return curve.area("aucinf_obs_sparse", value_to_last + tail, w + gradient, level, interval, unit, *flags)


def _terminal_points(t: Floats, mean: Floats, kept: Bools, points: int | None) -> tuple[NDArray[np.intp], str]:
    """Return the columns of the terminal line, and why there is none."""
    from evbiodist.kinetics.nca.nca import nca

    at = np.flatnonzero(kept)
    found = nca(t[at], mean[at], route="tissue", method="linear", lambda_z_points=points)
    return at[list(found.lambda_z_points)], found["lambda_z"].reason if math.isnan(found["lambda_z"].value) else ""


def _tail(t: Floats, mean: Floats, last: int, points: NDArray[np.intp]) -> tuple[float, Floats]:
    """Return the area after the last positive mean, and its derivatives with respect to the means."""
    x, y = t[points], np.log(mean[points])
    off = x - x.mean()
    slope = off / (off @ off)
    lambda_z = float(-slope @ y)
    gradient = np.zeros_like(mean)
    gradient[points] = mean[last] / lambda_z**2 * slope / mean[points]
    gradient[last] += 1 / lambda_z
    return float(mean[last]) / lambda_z, gradient
