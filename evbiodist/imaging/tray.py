"""What the pieces on a tray are called, and how sure that is: by the tray's layout, or by their size and shape.

Names rest on published organ masses and on how long the organs are for their width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erf, exp, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from skimage import measure

from evbiodist.study.constants import physiology
from evbiodist.study.vocabulary import NOT_ORGANS

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Looks:
    """How an organ looks on a tray, judged from usual dimensions of adult mice: wide, for trays differ.

    Parameters
    ----------
    spread : projected area over mass^(2/3), relative to a kidney's: flat organs cover more of the tray.
    ratio : length over width.
    area_sd, ratio_sd : standard deviations of the logarithms of area and ratio between trays.
    """

    spread: float
    ratio: float
    area_sd: float
    ratio_sd: float


_LOOKS = {
    "liver": Looks(1.4, 1.25, 0.3, 0.2),
    "spleen": Looks(1.8, 2.6, 0.3, 0.25),
    "kidney": Looks(1.0, 1.4, 0.2, 0.15),
    "lung": Looks(2.5, 1.3, 0.35, 0.2),
    "heart": Looks(1.1, 1.2, 0.25, 0.15),
    "brain": Looks(1.2, 1.25, 0.25, 0.15),
}
#: An organ with a published mass but no known shape, and a piece (tube, tumour, bone) without either.
_PLAIN, _UNKNOWN = Looks(1.3, 1.4, 0.5, 0.4), Looks(1.0, 1.3, 1.2, 0.4)
#: Twins (two kidneys): standard deviation of the difference of their logarithms of area and ratio, beside others'.
_TWIN_SD, _OTHERS_SD = 0.15, 0.7
#: Degrees of freedom of Student's t: an odd piece weighs, but does not decide alone.
_TAILS = 4.0
#: Overall size of the tray's organs (animal, camera) over the published one, as a logarithm, searched on this grid.
_SIZES = np.arange(-1.2, 1.21, 0.05)
#: How far apart organs lie, in their own diameters, where their order is as good as a coin.
_PLACING = 0.3
#: Shares of trays laid out as said, turned or mirrored, or with two organs exchanged.
_AS_SAID, _TURNED, _SWAPPED = 0.95, 0.03, 0.02
#: Below this a name is called uncertain.
SURE = 0.8

_TURNS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mirrored left to right": lambda p: p * [1, -1],
    "mirrored top to bottom": lambda p: p * [-1, 1],
    "turned by 180 degrees": lambda p: -p,
    "turned by 90 degrees clockwise": lambda p: p[:, ::-1] * [-1, 1],
    "turned by 90 degrees counter-clockwise": lambda p: p[:, ::-1] * [1, -1],
}


@dataclass(frozen=True)
class Naming:
    """The name of every piece, how sure each name is, and sentences for people.

    Parameters
    ----------
    order : pieces (labels of the image, from 1) in the order of the names given.
    confidence : 0 to 1 by name; of a name that repeats, that all its pieces are right.
    """

    order: tuple[int, ...]
    confidence: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Places, diameters, and logarithms of area and length over width of the pieces of a label image."""

    places: FloatArray
    diameter: FloatArray
    area: FloatArray
    ratio: FloatArray


def _pieces(labels: NDArray[np.int32]) -> _Pieces:
    props = measure.regionprops(labels)
    area = np.array([p.area for p in props], dtype=np.float64)
    ratio = [max(p.axis_major_length, 1.0) / max(p.axis_minor_length, 1.0) for p in props]
    return _Pieces(np.array([p.centroid for p in props]), np.sqrt(4 * area / np.pi), np.log(area), np.log(ratio))


def name_by_layout(labels: NDArray[np.int32], rows: Sequence[Sequence[str]], tray: str = "the tray") -> Naming:
    """Name pieces row by row from the top and left to right, and tell where sizes speak against it.

    Confidence is the probability that places tell the order and that sizes and shapes fit this layout better than
    the layout turned, mirrored, or with two organs exchanged.

    Parameters
    ----------
    labels : (Y, X), pieces numbered from 1; as many as the layout has.
    rows : organ names as they lie; a name may repeat.
    tray : what to call it in an error.

    Raises
    ------
    ValueError : rows that are not apart.

    Examples
    --------
    >>> image = np.zeros((40, 60), np.int32); image[4:14, 35:50] = 1; image[5:12, 5:20] = 2
    >>> name_by_layout(image, [["liver", "heart"]]).order
    (2, 1)
    """
    pieces, names, lengths = _pieces(labels), [name for row in rows for name in row], [len(row) for row in rows]
    order = _reading_order(pieces.places, lengths)
    if order is None:
        turned = [said for said, turn in _TURNS.items() if _reading_order(turn(pieces.places), lengths) is not None]
        hint = f" (they would be if the tray lay {' or '.join(turned)})" if turned else ""
        raise ValueError(f"the rows of the tray in {tray} are not apart{hint}, so organs cannot be told by their place; "
                         "correct [imaging] tray, or give a label image in the column organs")  # fmt: skip
    hypotheses = _hypotheses(pieces.places, order, lengths, names)
    bills = np.stack([_costs(pieces, names, float(c)) for c in _SIZES])
    columns = np.arange(len(names))
    costs = np.array(
        [(bills[:, h.order, columns].sum(axis=1) + _odd_size(_SIZES)).min() - log(h.prior) for h in hypotheses]
    )
    weight = np.exp(costs.min() - costs)
    weight /= weight.sum()
    said = [names[order.index(i)] for i in range(len(names))]
    sure = np.zeros(len(names))
    for share, hypothesis in zip(weight, hypotheses, strict=True):
        told = [names[hypothesis.order.index(i)] for i in range(len(names))]
        sure += share * np.array([a == b for a, b in zip(said, told, strict=True)])
    sure *= _apart(pieces, order, lengths)
    confidence = {n: float(min(sure[i] for i in range(len(names)) if said[i] == n)) for n in dict.fromkeys(names)}
    best = hypotheses[int(np.argmax(weight))]
    notes = () if best.order == order else (_objection(best, pieces, said),)
    return Naming(tuple(i + 1 for i in order), confidence, notes)


@dataclass(frozen=True)
class _Hypothesis:
    """A way in which the tray may have been laid out, with the pieces (from 0) in the order of the names."""

    said: str
    order: list[int]
    prior: float


def _hypotheses(places: FloatArray, order: list[int], lengths: Sequence[int], names: list[str]) -> list[_Hypothesis]:
    """Return the layout as said, turned and mirrored, and with any two different organs exchanged."""
    found = [_Hypothesis("as said", order, _AS_SAID)]
    for said, turn in _TURNS.items():
        other = _reading_order(turn(places), lengths)
        if other is not None and [names[other.index(i)] for i in order] != names:
            found.append(_Hypothesis(said, other, _TURNED / len(_TURNS)))
    pairs = [(a, b) for a in range(len(names)) for b in range(a) if names[a] != names[b]]
    for a, b in pairs:
        swapped = list(order)
        swapped[a], swapped[b] = swapped[b], swapped[a]
        found.append(_Hypothesis(f"{names[b]} and {names[a]} exchanged", swapped, _SWAPPED / len(pairs)))
    return found


def _objection(best: _Hypothesis, pieces: _Pieces, said: list[str]) -> str:
    """Return the sentence that says which layout fits better, and the plainest contradiction."""
    why = ""  # the liver is the largest organ by far
    if "liver" in said and said.index("liver") == int(np.argmin(pieces.area)):
        why = "; the piece named liver is the smallest"
    elif "liver" in said and "exchanged" not in best.said:
        why = f"; the largest piece is named {said[int(np.argmax(pieces.area))]}"
    way = f"with {best.said}" if "exchanged" in best.said else f"if the tray lies {best.said}"
    return f"sizes and shapes fit the layout better {way}{why}; check [imaging] tray, or give a label image"


def _reading_order(places: FloatArray, lengths: Sequence[int]) -> list[int] | None:
    """Return the pieces row by row; None where rows are not apart."""
    down = np.argsort(places[:, 0], kind="stable")
    order: list[int] = []
    start, floor = 0, -np.inf
    for length in lengths:
        row = down[start : start + length]
        if row.size and places[row[0], 0] <= floor + 2:
            return None
        floor = places[row, 0].max() if row.size else floor
        order += [int(i) for i in row[np.argsort(places[row, 1], kind="stable")]]
        start += length
    return order


def _apart(pieces: _Pieces, order: list[int], lengths: Sequence[int]) -> FloatArray:
    """Return, by piece, how sure its place in the order is: the gap to its neighbours against their diameters."""
    sure = np.ones(len(order))
    bounds = np.cumsum([0, *lengths])
    rows = [order[a:b] for a, b in pairwise(bounds) if b > a]
    beside = [(a, b, 1) for row in rows for a, b in pairwise(row)]
    below = [(a, b, 0) for upper, lower in pairwise(rows) for a in upper for b in lower]
    for a, b, axis in beside + below:
        gap = (pieces.places[b, axis] - pieces.places[a, axis]) / (0.5 * (pieces.diameter[a] + pieces.diameter[b]))
        ordered = 0.5 * (1 + erf(gap / _PLACING / sqrt(2)))
        sure[a], sure[b] = min(sure[a], ordered), min(sure[b], ordered)
    return sure


def name_by_shape(labels: NDArray[np.int32], organs: Sequence[str]) -> Naming:
    """Name pieces by their size and shape, as a best assignment of pieces to names.

    A piece costs little under a name whose published mass gives its area relative to the other pieces, whose
    length over width it has, and, where the name repeats, if it has a twin. Confidence sets the best assignment
    against the best ones in which a piece of that name is called something else.

    Parameters
    ----------
    labels : (Y, X), pieces numbered from 1; as many as there are names.
    organs : the names in any order, repeated for pairs.

    Examples
    --------
    >>> y, x = np.mgrid[:60, :120]
    >>> image = np.where((y - 30)**2 + (x - 30)**2 < 600, 1, np.where((y - 30)**2 + (x - 90)**2 < 80, 2, 0))
    >>> name_by_shape(image.astype(np.int32), ["heart", "liver"]).order
    (2, 1)
    """
    pieces, names = _pieces(labels), list(organs)
    bills = [_costs(pieces, names, float(c)) for c in _SIZES]
    costs = bills[int(np.argmin([_assign(bill)[1] for bill in bills] + _odd_size(_SIZES)))]
    chosen, best = _assign(costs)
    confidence = {}
    for name in dict.fromkeys(names):
        mine = [k for k, other in enumerate(names) if other == name]
        doubt = 0.0
        for piece in (chosen[k] for k in mine):
            for other in (n for n in dict.fromkeys(names) if n != name):
                doubt += exp(min(0.0, best - _forced(costs, piece, [k for k, n in enumerate(names) if n == other])))
        confidence[name] = 1 / (1 + doubt)
    return Naming(tuple(i + 1 for i in chosen), confidence)


def _assign(costs: FloatArray) -> tuple[list[int], float]:
    """Return the piece of each name in the cheapest assignment, and its cost."""
    piece, name = linear_sum_assignment(costs)
    return [int(i) for i in piece[np.argsort(name)]], float(costs[piece, name].sum())


def _forced(costs: FloatArray, piece: int, names: list[int]) -> float:
    """Return the cost of the cheapest assignment in which a piece has one of these names."""
    forced = costs.copy()
    forced[piece] += 1e6
    forced[piece, names] -= 1e6
    return _assign(forced)[1]


def _costs(pieces: _Pieces, names: list[str], size: float) -> FloatArray:
    """Return the cost (negative logarithm of the likelihood) of each piece under each name, (pieces, names)."""
    copies = Counter(names)
    area = _standing(pieces, names, size)
    columns = {name: _cost(name, copies[name], area, pieces) for name in copies}
    return np.column_stack([columns[name] for name in names])


def _odd_size(size: FloatArray) -> FloatArray:
    """Return the cost of an overall size other than the one that the tray's mean piece suggests."""
    return np.asarray(0.5 * (size / 0.6) ** 2)


def _standing(pieces: _Pieces, names: list[str], size: float) -> FloatArray:
    """Return the logarithm of area on the scale of the names: the tray's mean piece is as large as its mean name."""
    count = Counter(names)
    return np.asarray(pieces.area - pieces.area.mean() + np.mean([_expected(n, count[n]) for n in names]) - size)


def _cost(name: str, copies: int, area: FloatArray, pieces: _Pieces) -> FloatArray:
    looks = _looks(name)
    cost = _surprise(area - _expected(name, copies), looks.area_sd)
    cost += _surprise(pieces.ratio - log(looks.ratio), looks.ratio_sd)
    if copies > 1:
        twin = np.hypot(pieces.area[:, None] - pieces.area, pieces.ratio[:, None] - pieces.ratio)
        np.fill_diagonal(twin, np.inf)
        nearest = twin.min(axis=1)
        cost += 0.5 * (_surprise(nearest, _TWIN_SD) - _surprise(nearest, _OTHERS_SD))
    return cost


def _surprise(gap: FloatArray, sd: float) -> FloatArray:
    """Return the negative logarithm of Student's t density, without its constant."""
    return np.asarray((_TAILS + 1) / 2 * np.log1p((gap / sd) ** 2 / _TAILS) + log(sd))


def _looks(name: str) -> Looks:
    if name in NOT_ORGANS or physiology("mouse", name, "weight_fraction") is None:
        return _UNKNOWN
    return _LOOKS.get(name, _PLAIN)


def _expected(name: str, copies: int) -> float:
    """Return the expected logarithm of a piece's area, on a scale of its own; pairs share the published mass."""
    mass = physiology("mouse", name, "weight_fraction")
    if mass is None or _looks(name) is _UNKNOWN:
        return log(0.6)  # about a heart: a tube or a small tissue
    return log(_looks(name).spread * (mass.middle / copies) ** (2 / 3))
