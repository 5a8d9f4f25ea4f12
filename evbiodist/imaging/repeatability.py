"""How much an organ's signal depends on the hand that drew the outline.

Two people draw two outlines; the spread between them belongs into the error of the signal, and is rarely there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import FloatArray

#: Organ signals of a map, shape (n_organs,), in the order of `OrganMap.organs`.
Measure = Callable[[OrganMap], FloatArray]


@dataclass(frozen=True, eq=False)
class Repeatability:
    """Organ signals measured again on outlines drawn anew.

    Parameters
    ----------
    organs : names, in the order of the arrays.
    value : (n,) signals on the outlines as given.
    values : (draws, n) signals on the perturbed outlines.
    seed : of the draws.
    notes : sentences for people.
    """

    organs: tuple[str, ...]
    value: FloatArray
    values: FloatArray
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def draws(self) -> int:
        """Number of perturbed maps."""
        return len(self.values)

    @property
    def se(self) -> FloatArray:
        """What the outline adds to the standard error of each signal, in its unit, shape (n,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def covariance(self) -> FloatArray:
        """(n, n) of the outline's share; neighbours that trade pixels are correlated."""
        return np.atleast_2d(np.cov(self.values, rowvar=False))

    @property
    def relative_sd(self) -> FloatArray:
        """`se` over the size of `value`, shape (n,); NaN where the value is zero."""
        return _relative(self.se, self.value)

    @property
    def bias(self) -> FloatArray:
        """Mean of the draws less `value`, shape (n,): redrawing an outline on a peak only loses light."""
        return np.asarray(self.values.mean(axis=0) - self.value)

    @property
    def se_of_se(self) -> FloatArray:
        """How well so many draws tell `se` (normal theory), shape (n,)."""
        return self.se / np.sqrt(2 * (self.draws - 1))


def roi_repeatability(
    measure: Measure,
    organs: OrganMap,
    *,
    shift_sd: float,
    grow_sd: float,
    rotation_sd_deg: float = 0.0,
    draws: int = 200,
    seed: int = 0,
    spacing_mm: Sequence[float] | None = None,
) -> Repeatability:
    """Measure the organs again on outlines that are shifted, grown or shrunk, and rotated by chance.

    Parameters
    ----------
    measure : gives the signals of a map's organs, shape (n_organs,).
    organs : the outlines as drawn; every pixel value is an outline of its own (two kidneys move apart).
    shift_sd : standard deviation of the shift along each axis, in mm where `spacing_mm` is given, else in px.
    grow_sd : standard deviation of how far an outline moves out or in, in the same unit.
    rotation_sd_deg : standard deviation of the turn about the outline's centroid, in the last two axes.
    draws, seed : how many maps, and where their random numbers start.
    spacing_mm : distance of pixels along each axis of the map.

    Returns
    -------
    Repeatability : with the standard error that the outline adds to each organ's signal.

    Raises
    ------
    ValueError : fewer than two draws, a negative spread, spacing that does not fit, or a measure that gives something else than
        one finite number an organ.

    Examples
    --------
    >>> labels = np.zeros((30, 30), int); labels[10:20, 10:20] = 1
    >>> organs = OrganMap(labels, {1: "liver"}, "label image")
    >>> found = roi_repeatability(lambda m: np.array([m.areas()["liver"]]), organs, shift_sd=1, grow_sd=0.5)
    >>> found.value, bool(0.1 < found.relative_sd[0] < 0.3)  # 0.5 px of a 10 px square are 0.2 of its area
    (array([100.]), True)
    """
    names = organs.organs
    notes: list[str] = []
    value = _measured(measure, organs, "the outlines as given")
    values = [
        _measured(measure, replace(organs, labels=labels, fractions=None), f"draw {i}", names)
        for i, labels in enumerate(
            _perturbed(organs, shift_sd, grow_sd, rotation_sd_deg, draws, seed, spacing_mm, notes), 1
        )
    ]
    return Repeatability(names, value, np.stack(values), seed, tuple(notes))


def _measured(measure: Measure, organs: OrganMap, which: str, names: tuple[str, ...] = ()) -> FloatArray:
    """Measure a map and insist on one finite number an organ."""
    names = names or organs.organs
    found = np.asarray(measure(organs), dtype=np.float64)
    if found.shape != (len(names),):
        raise ValueError(f"the measure gave an array of shape {found.shape} for {which}; expected one number for each of "
                         f"{', '.join(names)}")  # fmt: skip
    if not np.isfinite(found).all():
        bad = [name for name, ok in zip(names, np.isfinite(found), strict=True) if not ok]
        raise ValueError(f"the measure gave no finite number for {', '.join(bad)} on {which}; "
                         "mend the measure or draw smaller changes")  # fmt: skip
    return found


@dataclass(frozen=True, eq=False)
class _Outline:
    """One pixel value of a map: its signed distance (negative inside) on a fine grid, in a box with room to move."""

    value: int
    box: tuple[slice, ...]
    distance: FloatArray  # on a grid `fine` times finer than the box
    fine: NDArray[np.int_]
    centre: FloatArray  # of the outline, in px of the box


def _outlines(organs: OrganMap, spacing: FloatArray, room: float) -> list[_Outline]:
    """Cut out each outline with `room` (in the unit of `spacing`) around it."""
    # an odd number of fine pixels in a coarse one, so that distances between slices are true
    fine = 2 * np.clip(np.round((spacing / spacing.min() - 1) / 2), 0, 4).astype(int) + 1
    pad = np.ceil(room / spacing).astype(int) + 1
    boxes = ndimage.find_objects(organs.labels)
    found = []
    for value in (v for v in sorted(organs.names) if 0 < v <= len(boxes) and boxes[v - 1] is not None):
        box = tuple(
            slice(max(s.start - p, 0), min(s.stop + p, n))
            for s, p, n in zip(boxes[value - 1], pad, organs.labels.shape, strict=True)
        )
        mask = organs.labels[box] == value
        found.append(_Outline(value, box, _signed(mask, fine, spacing), fine, np.argwhere(mask).mean(axis=0)))
    return found


def _signed(mask: NDArray[np.bool_], fine: NDArray[np.int_], spacing: FloatArray) -> FloatArray:
    """Return the distance to a mask's edge on the fine grid, in the unit of `spacing`, negative inside.

    The edge runs midway between pixel centres. Pixels of a round outline come in rings, so that a disk grown by
    chance spreads up to a tenth more than its circle would.
    """
    for axis, times in enumerate(fine):
        mask = np.repeat(mask, times, axis=axis)
    step = spacing / fine
    mask = np.pad(mask, 1)  # a mask that fills its box would have no outside to be distant from
    inside, outside = (ndimage.distance_transform_edt(m, sampling=step) for m in (mask, ~mask))
    distance = np.where(mask, step.min() / 2 - inside, outside - step.min() / 2)
    return np.asarray(distance[(slice(1, -1),) * mask.ndim])


def _perturbed(
    organs: OrganMap,
    shift_sd: float,
    grow_sd: float,
    rotation_sd_deg: float,
    draws: int,
    seed: int,
    spacing_mm: Sequence[float] | None,
    notes: list[str],
) -> Iterator[NDArray[np.int32]]:
    """Yield label images with every outline moved by its own draw.

    Organs stay apart: where two claim a pixel, it goes to the one it lies deeper in, else to the first.
    An outline is never empty: the last pixel stays, and a note says how often.
    """
    ndim = organs.labels.ndim
    if draws < 2:
        raise ValueError(f"{draws} draws cannot show a spread; use 2 or more, better 200")
    if min(shift_sd, grow_sd, rotation_sd_deg) < 0:
        raise ValueError("a standard deviation of the outline is below zero; give 0 or more")
    if spacing_mm is not None and (len(spacing_mm) != ndim or min(spacing_mm) <= 0):
        raise ValueError(f"the spacing {tuple(spacing_mm)} does not fit a map with {ndim} axes; give one distance above 0 "
                         "for each axis")  # fmt: skip
    spacing = np.ones(ndim) if spacing_mm is None else np.asarray(spacing_mm, dtype=np.float64)
    reach = 4 * (shift_sd + grow_sd) + _turned_reach(organs, spacing, 4 * rotation_sd_deg)
    outlines = _outlines(organs, spacing, reach)
    rng = np.random.default_rng(seed)
    emptied = 0
    for _ in range(draws):
        deepest = np.zeros(organs.labels.shape)
        labels = np.zeros(organs.labels.shape, np.int32)
        last = []
        for outline in outlines:
            shift = shift_sd * rng.standard_normal(ndim) / spacing
            grow = grow_sd * rng.standard_normal()
            angle = np.deg2rad(rotation_sd_deg * rng.standard_normal())
            moved = _moved(outline, shift, angle, spacing) - grow
            last.append(np.unravel_index(int(np.argmin(moved)), moved.shape))
            wins = moved < deepest[outline.box]
            labels[outline.box][wins] = outline.value
            deepest[outline.box][wins] = moved[wins]
        present = np.bincount(labels.ravel(), minlength=outlines[-1].value + 1) > 0
        for outline, place in zip(outlines, last, strict=True):
            if not present[outline.value]:
                labels[outline.box][place] = outline.value
                emptied += 1
        yield labels
    if emptied:
        notes.append(f"an outline shrank to nothing in {emptied} of {draws * len(outlines)} cases and kept one pixel; "
                     "the spread is large for the organ's size")  # fmt: skip


def _turned_reach(organs: OrganMap, spacing: FloatArray, degrees: float) -> float:
    """Return how far a turn moves the farthest pixel of any outline."""
    boxes = [box for box in ndimage.find_objects(organs.labels) if box is not None]
    radius = max(np.hypot(*((s.stop - s.start) * d for s, d in zip(b[-2:], spacing[-2:], strict=True))) for b in boxes)
    return float(radius / 2 * np.deg2rad(min(degrees, 180.0)))


def _moved(outline: _Outline, shift: FloatArray, angle: float, spacing: FloatArray) -> FloatArray:
    """Return the signed distance of the box's pixels to the outline after a turn in the last two axes and a shift in px."""
    turn = np.eye(len(spacing))
    turn[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    back = turn.T * spacing / spacing[:, None]  # px to mm, turned back, mm to px
    offset = outline.centre - back @ (outline.centre + shift)
    return np.asarray(
        ndimage.affine_transform(
            outline.distance,
            outline.fine[:, None] * back,
            outline.fine * offset + (outline.fine - 1) / 2,
            output_shape=tuple(s.stop - s.start for s in outline.box),
            order=1,
            mode="nearest",
        )
    )


@dataclass(frozen=True, eq=False)
class AnnotatorSpread:
    """How far several people's outlines of the same organs lie apart.

    Parameters
    ----------
    organs : that everybody drew, in the order of the arrays.
    values : (n_annotators, n) signals.
    dice : (n,) overlap 2|A and B| / (|A| + |B|), mean over pairs of annotators.
    hausdorff : (n,) largest distance from a pixel of one to the other's outline, largest over the pairs.
    unit : of `hausdorff`, `mm` or `px`.
    notes : sentences for people.
    """

    organs: tuple[str, ...]
    values: FloatArray
    dice: FloatArray
    hausdorff: FloatArray
    unit: str
    notes: tuple[str, ...] = ()

    @property
    def annotators(self) -> int:
        """Number of people, the n of `sd`."""
        return len(self.values)

    @property
    def sd(self) -> FloatArray:
        """Standard deviation between annotators, shape (n,); for two it is |difference| / sqrt(2)."""
        return np.asarray(self.values.std(axis=0, ddof=1))

    @property
    def relative_sd(self) -> FloatArray:
        """`sd` over the size of the mean, shape (n,); NaN where the mean is zero."""
        return _relative(self.sd, self.values.mean(axis=0))


def annotator_spread(*maps: OrganMap, measure: Measure, spacing_mm: Sequence[float] | None = None) -> AnnotatorSpread:
    """Compare the outlines of two or more annotators and the signals measured on them.

    Parameters
    ----------
    maps : one an annotator, all on one grid.
    measure : gives the signals of a map's organs, shape (n_organs,).
    spacing_mm : distance of pixels along each axis; without it distances are in px.

    Returns
    -------
    AnnotatorSpread : for the organs that everybody drew; the others are named in its notes.

    Raises
    ------
    ValueError : fewer than two maps, different grids, or no organ in common.

    Examples
    --------
    >>> a = OrganMap(np.array([[1, 1, 1, 0]]), {1: "liver"}, "label image")
    >>> b = OrganMap(np.array([[0, 1, 1, 0]]), {1: "liver"}, "label image")
    >>> found = annotator_spread(a, b, measure=lambda m: np.array([m.mask("liver").sum()]))
    >>> found.dice, found.hausdorff, (found.sd * np.sqrt(2)).round(6)
    (array([0.8]), array([1.]), array([1.]))

    Dice 1945 (Ecology 26:297); Huttenlocher 1993 (IEEE PAMI 15:850) for the Hausdorff distance.
    """
    if len(maps) < 2:
        raise ValueError(f"{len(maps)} annotator shows no spread; give the maps of two or more")
    shapes = {m.labels.shape for m in maps}
    if len(shapes) > 1:
        raise ValueError(f"the annotators' maps have shapes {sorted(shapes)}; expected one grid, that of the scan")
    if spacing_mm is not None and len(spacing_mm) != maps[0].labels.ndim:
        raise ValueError(f"the spacing {tuple(spacing_mm)} does not fit a map with {maps[0].labels.ndim} axes; give one "
                         "distance for each axis")  # fmt: skip
    common = tuple(name for name in maps[0].organs if all(name in m.organs for m in maps))
    if not common:
        raise ValueError("the annotators have no organ in common; use the same names in every map")
    others = sorted({name for m in maps for name in m.organs} - set(common))
    values = []
    for number, m in enumerate(maps, 1):
        found = _measured(measure, m, f"annotator {number}'s map")
        values.append([found[m.organs.index(name)] for name in common])
    apart = np.array([[_apart(a.mask(o), b.mask(o), spacing_mm) for o in common] for a, b in combinations(maps, 2)])
    return AnnotatorSpread(
        organs=common,
        values=np.array(values),
        dice=apart[:, :, 0].mean(axis=0),
        hausdorff=apart[:, :, 1].max(axis=0),
        unit="px" if spacing_mm is None else "mm",
        notes=(f"not drawn by everybody and left out: {', '.join(others)}",) if others else (),
    )


def _apart(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float] | None) -> tuple[float, float]:
    """Return Dice overlap and Hausdorff distance of two masks."""
    dice = 2 * np.sum(a & b) / (a.sum() + b.sum())
    to_a, to_b = (ndimage.distance_transform_edt(~mask, sampling=spacing) for mask in (a, b))
    return float(dice), float(max(to_a[b].max(), to_b[a].max()))


def _relative(sd: FloatArray, value: FloatArray) -> FloatArray:
    return np.divide(sd, np.abs(value), out=np.full_like(sd, np.nan), where=value != 0)
