"""What the joint answer says of a quantity, averaged over what the labels may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.bias import LabelBias, label_biases
from evbiodist.crossval.joint.hypotheses import Worlds
from evbiodist.crossval.joint.profile import JointProfile
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.study.estimate import student

FloatArray = NDArray[np.float64]
_POINTS, _WIDE = 2001, 8.0
#: A quantity has to exist in worlds of this probability together.
_MOSTLY = 0.5
#: A skew of an interval beyond this, relative to the covariance's, is not carried over to other worlds.
_SKEW = (0.5, 3.0)


@dataclass(frozen=True)
class Averaged:
    """A quantity's distribution on the logarithm: middle, ends of the interval and standard deviation; and of how many worlds.

    Parameters
    ----------
    name : of the quantity; middle, low, high, sd : on the logarithm.
    worlds : how many combinations of faithful and lying labels matter; open : whether a side of the interval has no limit.
    """

    name: str
    middle: float
    low: float
    high: float
    sd: float
    worlds: int
    open: bool = False


def average(
    worlds: Worlds, names: Sequence[str], level: float = 0.95, profiles: Mapping[str, JointProfile] | None = None
) -> dict[str, Averaged]:
    """Return quantities averaged over the worlds that matter.

    Parameters
    ----------
    names : as in `evbiodist.crossval.joint.quantities.log_quantity`.
    profiles : of the most probable world; their skew is that of every world, and their open ends are open.

    Returns
    -------
    dict : by name; quantities that do not exist are left out.
    """
    known = profiles or {}
    order = list(worlds.fits)
    weight = worlds.weight[order] / worlds.weight[order].sum()
    fits = [worlds.fits[k] for k in order]
    u = np.stack([f.u for f in fits])
    reach = student(level, worlds.best.df)
    out: dict[str, Averaged] = {}
    for name in names:
        value, gradient = log_quantity(worlds.best.problem, name)(u)
        sd = np.sqrt([max(float(g @ f.covariance @ g), 0.0) for g, f in zip(gradient, fits, strict=True)])
        there = np.isfinite(value) & np.isfinite(sd) & (sd > 0)
        if weight[there].sum() < _MOSTLY:
            continue
        value, sd, share = value[there], sd[there], weight[there] / weight[there].sum()
        below, above, is_open = _skew(known.get(name), reach)
        low, middle, high = _quantiles(value, sd * below, sd * above, share, level, reach)
        spread = float(np.sqrt(share @ (sd**2 + (value - share @ value) ** 2)))
        out[name] = Averaged(name, middle, low, high, spread, int(there.sum()), is_open)
    return out


def _skew(profile: JointProfile | None, reach: float) -> tuple[float, float, bool]:
    """Return how much further an interval goes below and above than its covariance says, and whether a side is open."""
    if profile is None or profile.se <= 0:
        return 1.0, 1.0, False
    ends = [(profile.value - profile.low), (profile.high - profile.value)]
    ratios = [float(np.clip(e / (reach * profile.se), *_SKEW)) if np.isfinite(e) else _SKEW[1] for e in ends]
    return ratios[0], ratios[1], profile.open


def _quantiles(
    value: FloatArray, below: FloatArray, above: FloatArray, weight: FloatArray, level: float, reach: float
) -> tuple[float, float, float]:
    """Return ends and middle of a mixture of distributions, each normal with its own width on either side of its middle."""
    from scipy.special import ndtr, ndtri

    stretch = reach / float(ndtri(0.5 + level / 2))  # of Student's t over the normal at this level
    x = np.linspace((value - _WIDE * below).min(), (value + _WIDE * above).max(), _POINTS)[:, None]
    width = stretch * np.where(x < value, below, above)
    share = ndtr((x - value) / width) @ weight
    tails = [0.5 - level / 2, 0.5, 0.5 + level / 2]
    low, middle, high = np.interp(tails, share, x[:, 0])
    return float(low), float(middle), float(high)


def average_biases(worlds: Worlds) -> list[LabelBias]:
    """Return how every label misreads every organ, averaged over the worlds that matter."""
    order = [k for k in worlds.fits if worlds.weight[k] > _FEW * worlds.weight.max()]
    weight = worlds.weight[order] / worlds.weight[order].sum()
    found = [label_biases(worlds.fits[k]) for k in order]
    out = []
    for same in zip(*found, strict=True):
        value, sd = np.stack([b.log_ratio for b in same]), np.stack([b.se for b in same])
        middle = weight @ value
        out.append(LabelBias(same[0].label, same[0].organs, middle, np.sqrt(weight @ (sd**2 + (value - middle) ** 2)),
                             same[0].relative))  # fmt: skip
    return out


#: Worlds less probable than this share of the best are left out of label biases.
_FEW = 0.02
