"""Organs from kinetics: voxels whose time curves are alike belong together.

Where nobody can draw an outline on a PET series, time tells blood, liver and bladder apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.register import calibrated_frames
from evbiodist.io.scan import FloatArray, Scan
from evbiodist.study.vocabulary import organ_name

#: What a frame counts: by its counting noise, or each as much as the next.
Weighting = Literal["noise", "equal"]

_RESTARTS = 10
_ITERATIONS = 50
#: Spreads above the background's middle from which a voxel of the mean image is worth clustering.
_ABOVE_NOISE = 4.0


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of voxels with like time curves, in the order of their peak time, then of their size.

    Parameters
    ----------
    labels : integer array of `Scan.frame_shape`, 1 to n; 0 where no voxel was clustered.
    curves : (n, T) mean signal of each cluster's voxels, in the scan's unit.
    spread : (n, T) standard deviation among the voxels of a cluster.
    size : (n,) number of voxels.
    silhouette : (n,) how much nearer voxels are to their own cluster than to the next one, 0 (between two) to 1.
    notes : sentences for people.
    """

    labels: NDArray[np.int32]
    curves: FloatArray
    spread: FloatArray
    size: NDArray[np.int_]
    silhouette: FloatArray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.curves)

    def named(self, names: Mapping[int, str]) -> OrganMap:
        """Return the named clusters as organs; several may share a name, unnamed ones become background.

        Parameters
        ----------
        names : organ by cluster number, counted from 1.

        Returns
        -------
        OrganMap : with the clusters' silhouette as confidence, by organ.

        Raises
        ------
        ValueError : no name, or a number that no cluster has.
        """
        table = {int(number): organ_name(name) for number, name in names.items()}
        unknown = sorted(set(table) - set(range(1, len(self) + 1)))
        if unknown or not table:
            raise ValueError(f"clusters {unknown or 'without any name'} were named; there are 1 to {len(self)}, name those "
                             "that are organs")  # fmt: skip
        confidence = {}
        for organ in dict.fromkeys(table.values()):
            own = [number - 1 for number, name in table.items() if name == organ]
            confidence[organ] = float(np.average(self.silhouette[own], weights=self.size[own]))
        labels = np.where(np.isin(self.labels, list(table)), self.labels, 0).astype(np.int32)
        return OrganMap(labels, table, "kinetic clusters", notes=self.notes, confidence=confidence)


@dataclass(frozen=True)
class NumberAdvice:
    """How well each number of clusters fits, as advice only.

    Parameters
    ----------
    n : the number with the highest silhouette.
    silhouette : mean silhouette by number of clusters.
    """

    n: int
    silhouette: Mapping[int, float]


def cluster_curves(
    scan: Scan,
    n: int,
    mask: NDArray[np.bool_] | None = None,
    *,
    weighting: Weighting = "noise",
    normalise: bool = False,
    smooth_px: float = 0.0,
    smallest_island: int = 0,
    seed: int = 0,
) -> Clusters:
    """Group voxels by their time curves: k-means on noise-weighted principal components.

    Parameters
    ----------
    scan : with an axis T; may be lazy, one frame is in memory at a time (and the curves of the clustered voxels).
    n : number of clusters; `suggest_number` advises. Rims of bright organs, blurred, are clusters too: ask for more than
        there are organs, and name those that matter.
    mask : voxels to cluster, in the shape of one frame; None takes those that stand above noise.
    weighting : `noise` weighs frames by their counting noise; `equal` lets short early frames, where blood shows, count
        as much as long late ones.
    normalise : compare shapes only, every curve divided by its size.
    smooth_px : standard deviation of a Gaussian over each frame before voxels are grouped; curves are always means of
        unsmoothed voxels.
    smallest_island : pieces of fewer voxels join the cluster around them; 0 keeps all.
    seed : of the starts (k-means++, the best of several).

    Returns
    -------
    Clusters : the same for the same scan and seed, in the order of peak time, then of size.

    Raises
    ------
    ValueError : no axis T, bands, a mask of another shape, or fewer voxels than clusters.

    Notes
    -----
    Counting noise makes the variance of a frame follow activity over duration (times the decay correction); frames
    are weighted by its inverse. n centres span at most n - 1 dimensions, so n components carry them.

    Examples
    --------
    >>> frames = np.zeros((3, 8, 8)); frames[:, 1:4, 1:7] = [[[9]], [[3]], [[1]]]; frames[:, 5:7, 1:7] = [[[1]], [[4]], [[8]]]
    >>> found = cluster_curves(Scan("pet", None, frames, "TYX"), 2)
    >>> found.curves.tolist(), found.size.tolist()
    ([[9.0, 3.0, 1.0], [1.0, 4.0, 8.0]], [18, 12])
    >>> found.named({1: "blood", 2: "liver"}).areas()
    {'blood': 18, 'liver': 12}

    Wong 2002 (IEEE Trans Nucl Sci 49:200) for kinetic clustering; Arthur 2007 (Proc SODA, 1027) for k-means++.
    """
    if n < 1:
        raise ValueError(f"{n} clusters were asked for; give 1 or more")
    inside, notes = _voxels(scan, mask)
    if int(inside.sum()) < n:
        raise ValueError(f"{int(inside.sum())} voxels of {scan.name} are to be parted into {n} clusters; give fewer clusters "
                         "or a larger mask")  # fmt: skip
    scores, more = _scores(scan, inside, n, weighting, normalise, smooth_px)
    member = _kmeans(scores, n, seed)
    labels = np.zeros(inside.shape, np.int32)
    labels[inside] = member + 1
    labels = _without_islands(labels, smallest_island)
    curves, spread, size = _describe(scan, labels, n)
    order = np.array(sorted(np.flatnonzero(size), key=lambda i: (int(np.argmax(curves[i])), -size[i], *curves[i])))
    if len(order) < n:
        more = (*more, f"{n - len(order)} clusters held only small islands and were merged into others")
    rank = np.zeros(n + 1, np.int32)
    rank[order + 1] = np.arange(1, len(order) + 1)
    labels = rank[labels]
    return Clusters(
        labels,
        curves[order],
        spread[order],
        size[order],
        _silhouette(scores, labels[inside].astype(np.int_) - 1),
        (*notes, *more),
    )


def suggest_number(
    scan: Scan,
    most: int = 8,
    mask: NDArray[np.bool_] | None = None,
    *,
    weighting: Weighting = "noise",
    normalise: bool = False,
    smooth_px: float = 0.0,
    seed: int = 0,
) -> NumberAdvice:
    """Return how well 2 to `most` clusters part the voxels, by their mean silhouette; parameters as in `cluster_curves`.

    Returns
    -------
    NumberAdvice : advice; nothing uses it by itself. Spill-over between organs looks like further clusters, and organs
        with like curves like one.

    Raises
    ------
    ValueError : as `cluster_curves`.

    Examples
    --------
    >>> frames = np.zeros((3, 8, 8)); frames[:, 1:4, 1:7] = [[[9]], [[3]], [[1]]]; frames[:, 5:7, 1:7] = [[[1]], [[4]], [[8]]]
    >>> frames += np.random.default_rng(0).normal(0, 0.1, frames.shape)
    >>> suggest_number(Scan("pet", None, frames, "TYX"), 4, mask=frames.mean(axis=0) > 1).n
    2

    Rousseeuw 1987 (J Comput Appl Math 20:53), to cluster centres instead of all pairs (Vendramin 2010, Stat Anal Data
    Mining 3:209).
    """
    inside, _ = _voxels(scan, mask)
    numbers = range(2, min(most, int(inside.sum()) - 1) + 1)
    if not numbers:
        raise ValueError(f"{int(inside.sum())} voxels of {scan.name} and at most {most} clusters leave no number to choose; "
                         "give a larger mask or at least 2 clusters")  # fmt: skip
    scores, _ = _scores(scan, inside, max(numbers), weighting, normalise, smooth_px)
    found = {}
    for n in numbers:
        member = _kmeans(scores[:, :n], n, seed)
        each = _silhouette(scores[:, :n], member)
        found[n] = float(np.average(each, weights=np.bincount(member, minlength=n)))
    return NumberAdvice(max(found, key=lambda n: found[n]), found)


def _voxels(scan: Scan, mask: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return which voxels to cluster, and a note when that was not the user's choice."""
    if "T" not in scan.axes or scan.extent("T") < 2:
        raise ValueError(
            f"{scan.name} has the axes {scan.axes} and {scan.extent('T')} frame; kinetic clusters need a time series"
        )
    if set(scan.axes) - set("TZYX"):
        raise ValueError(
            f"{scan.name} has the axes {scan.axes}; take one band of it, kinetic clusters need time and space only"
        )
    if mask is not None and mask.shape != scan.frame_shape:
        raise ValueError(
            f"the mask has shape {mask.shape}, one frame of {scan.name} {scan.frame_shape}; draw it on the scan's grid"
        )
    seconds = _seconds(scan)
    mean = np.zeros(scan.frame_shape)
    for frame, weight in zip(calibrated_frames(scan), seconds / seconds.sum(), strict=True):
        mean += frame * weight
    finite = np.isfinite(mean)
    if mask is not None:
        return np.asarray(mask, bool) & finite, ()
    if not finite.any():
        raise ValueError(f"no voxel of {scan.name} is a number in every frame; mend the file or give a mask")
    level, noise = _background(mean[finite])
    inside = np.zeros(mean.shape, bool)
    inside[finite] = mean[finite] > level + _ABOVE_NOISE * noise
    share = 100 * float(inside.mean())
    return inside, (
        f"{share:.3g} % of voxels stand above noise in the mean image and were clustered; give a mask to choose others",
    )


def _background(values: FloatArray) -> tuple[float, float]:
    """Return middle and spread of the darkest crowd of values: those above are cut away until nothing changes."""
    kept = values
    for _ in range(100):
        level = float(np.median(kept))
        noise = 1.4826 * float(np.median(np.abs(kept - level)))
        fewer = kept[kept <= level + _ABOVE_NOISE * noise]
        if fewer.size == kept.size:
            break
        kept = fewer
    return level, noise


def _seconds(scan: Scan) -> FloatArray:
    """Return how long each frame lasts; equal where nobody said or a frame is a snapshot."""
    if scan.timing is None or min(scan.timing.duration_s) <= 0:
        return np.ones(scan.extent("T"))
    return np.asarray(scan.timing.duration_s)


def _noise(scan: Scan, mean: FloatArray) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the relative noise of each frame, shape (T,), from its mean activity and duration."""
    notes: tuple[str, ...] = ()
    if scan.timing is None or min(scan.timing.duration_s) <= 0:
        notes = ("the frames' durations are not known; frames were weighted as if they were equally long",)
    corrected = np.ones(len(mean))
    tracer = scan.tracer
    if scan.timing and tracer and tracer.half_life_s and tracer.decay_corrected_to in ("injection", "scan_start"):
        corrected = 2.0 ** (scan.timing.mid_s / tracer.half_life_s)
    floor = 0.01 * np.abs(mean).max()  # a frame before the tracer's arrival still holds noise
    variance = np.maximum(mean, floor if floor > 0 else 1.0) * corrected / _seconds(scan)
    return np.sqrt(variance), notes


def _scores(
    scan: Scan, inside: NDArray[np.bool_], n: int, weighting: Weighting, normalise: bool, smooth_px: float
) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the voxels' curves as weighted principal components, shape (voxels, up to n)."""
    if weighting not in ("noise", "equal"):
        raise ValueError(f"frames are weighted by 'noise' or 'equal', not by '{weighting}'")
    curves = np.empty((int(inside.sum()), scan.extent("T")))
    for t, frame in enumerate(calibrated_frames(scan)):
        smooth = ndimage.gaussian_filter(np.nan_to_num(frame), smooth_px) if smooth_px > 0 else frame
        curves[:, t] = smooth[inside]
    notes: tuple[str, ...] = ()
    if weighting == "noise":
        noise, notes = _noise(scan, curves.mean(axis=0))
        curves /= noise
    if normalise:
        length = np.linalg.norm(curves, axis=1, keepdims=True)
        curves /= np.where(length > 0, length, 1.0)
    curves -= curves.mean(axis=0)
    _, axes = np.linalg.eigh(curves.T @ curves)
    return curves @ axes[:, ::-1][:, :n], notes


def _kmeans(scores: FloatArray, n: int, seed: int) -> NDArray[np.int_]:
    """Return the cluster of each voxel: the best of several k-means++ starts."""
    from scipy.cluster.vq import ClusterError, kmeans2

    different = len(np.unique(np.round(scores / max(np.abs(scores).max(), 1e-300), 9), axis=0))
    if different < n:
        raise ValueError(f"there are {different} different curves, {n} clusters were asked for; ask for fewer")
    rng = np.random.default_rng(seed)
    best, member = np.inf, None
    for _ in range(_RESTARTS):
        try:
            centres, found = kmeans2(scores, n, iter=_ITERATIONS, minit="++", missing="raise", seed=rng)
        except ClusterError:  # a cluster ran empty; another start may do
            continue
        inertia = float(np.sum((scores - centres[found]) ** 2))
        if inertia < best:
            best, member = inertia, found
    if member is None:
        raise ValueError(f"the curves do not part into {n} clusters, some always run empty; ask for fewer")
    return np.asarray(member, np.int_)


def _silhouette(scores: FloatArray, member: NDArray[np.int_]) -> FloatArray:
    """Return each cluster's mean of 1 - (distance to the own centre) / (distance to the next one), shape (n,)."""
    n = int(member.max()) + 1
    if n == 1:
        return np.ones(1)
    centres = np.stack([scores[member == i].mean(axis=0) for i in range(n)])
    distance = np.stack([np.linalg.norm(scores - c, axis=1) for c in centres], axis=1)
    own = distance[np.arange(len(scores)), member]
    distance[np.arange(len(scores)), member] = np.inf
    other = distance.min(axis=1)
    value = np.clip(1 - own / np.where(other > 0, other, 1.0), 0.0, 1.0)
    return np.array([value[member == i].mean() for i in range(n)])


def _without_islands(labels: NDArray[np.int32], smallest: int) -> NDArray[np.int32]:
    """Give pieces of fewer voxels than `smallest` to the nearest cluster that stays."""
    if smallest <= 1:
        return labels
    stay = np.zeros(labels.shape, bool)
    for number in range(1, int(labels.max()) + 1):
        pieces, _ = ndimage.label(labels == number)
        large = np.bincount(pieces.ravel()) >= smallest
        large[0] = False
        stay |= large[pieces]
    if not stay.any():
        raise ValueError(f"no cluster has a piece of {smallest} voxels; allow smaller islands, or smooth more")
    nearest = ndimage.distance_transform_edt(~stay, return_distances=False, return_indices=True)
    return np.where(labels > 0, labels[tuple(nearest)], 0).astype(np.int32)


def _describe(scan: Scan, labels: NDArray[np.int32], n: int) -> tuple[FloatArray, FloatArray, NDArray[np.int_]]:
    """Return mean and standard deviation of each cluster's voxels by frame, each (n, T), and the sizes (n,)."""
    inside = labels > 0
    member = labels[inside] - 1
    size = np.bincount(member, minlength=n)
    per = np.maximum(size, 1)
    curves, spread = np.zeros((2, n, scan.extent("T")))
    for t, frame in enumerate(calibrated_frames(scan)):
        values = frame[inside]
        curves[:, t] = np.bincount(member, values, n) / per
        spread[:, t] = np.sqrt(np.bincount(member, (values - curves[member, t]) ** 2, n) / np.maximum(size - 1, 1))
    return curves, spread, size
