"""Numbers made from measured values, with their first-order errors, as arrays that turn into estimates.

Dosing intervals, excretion, tissue ratios and dosimetry share it: formulae in, estimates with reasons out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.nca.parameters import PARAMETERS
from evbiodist.kinetics.nca.propagate import interval
from evbiodist.study.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Numbers = NDArray[Any]  # real values, or complex ones while derivatives are taken
#: Formulae from measured values (J, ..., P) and the block of profiles they belong to; results end in the profiles' axes.
Formulae = Callable[[Numbers, slice], dict[str, Numbers]]
Index = tuple[int, ...]

_STEP = 2.0**-400  # a complex step has no cancellation, so it can be as small as numbers go
_BLOCK = 500_000  # complex numbers held at once
_OWN_FLAGS = {"few", "imprecise", "negative"}  # of one number, not of what is computed from it


def like(name: str, array: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return an array of numbers in the shape of the others, or refuse it by name."""
    a = np.asarray(array, dtype=np.float64)
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {a.shape}, expected {shape}; give one number for each") from None


@dataclass(frozen=True)
class Propagated:
    """Values, standard errors and degrees of freedom by name; NaN where missing."""

    values: dict[str, Floats]
    se: dict[str, Floats]
    df: dict[str, Floats]


def propagate(formulae: Formulae, x: Floats, se: Floats | None, n: Floats | None, width: int = 1) -> Propagated:
    """Return the formulae's values with first-order errors; the measured values are independent of each other.

    Parameters
    ----------
    formulae : from (J, ..., P) values and their block of profiles to arrays by name, (..., P) or (..., P, D).
    x : (J, P) measured values.
    se : (J, P) their standard errors, NaN where unknown; None when none is known.
    n : (J, P) animals behind each mean; None or 1 takes `se` as known exactly.
    width : how many numbers the formulae hold for each measured value, to bound memory.

    Returns
    -------
    Propagated : errors are NaN when `se` is None or when a value rests on one of unknown error.

    Examples
    --------
    >>> area = propagate(lambda x, block: {"area": x[0] + 2 * x[1]}, np.array([[3.0], [4.0]]), np.ones((2, 1)), None)
    >>> area.values["area"].tolist(), area.se["area"].round(4).tolist()
    ([11.0], [2.2361])

    Notes
    -----
    Derivatives by complex step: Squire W, Trapp G (1998) SIAM Rev 40:110. Degrees of freedom after Satterthwaite.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        step = max(1, _BLOCK // (len(x) ** 2 * width))
        parts = [_block(formulae, x, se, n, slice(b, b + step)) for b in range(0, max(x.shape[1], 1), step)]
    joined = [{name: np.concatenate([p[k][name] for p in parts]) for name in parts[0][k]} for k in range(3)]
    return Propagated(*joined)


def _block(
    formulae: Formulae, x: Floats, se: Floats | None, n: Floats | None, block: slice
) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Floats]]:
    x = x[:, block]
    values = {k: np.where(np.isfinite(v), v, np.nan) for k, v in formulae(x, block).items()}
    if se is None:
        missing = {k: np.full(v.shape, np.nan) for k, v in values.items()}
        return values, missing, missing
    nudged = x[:, None, :] + 1j * _STEP * np.eye(len(x))[:, :, None]
    freedom = np.full(x.shape, np.inf) if n is None else np.where(n[:, block] > 1, n[:, block] - 1, np.inf)
    errors, dfs = {}, {}
    for name, result in formulae(nudged, block).items():
        errors[name], dfs[name] = _spread(result.imag / _STEP, se[:, block], freedom, values[name])
    return values, errors, dfs


def _spread(gradient: Numbers, se: Floats, freedom: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Standard error and Satterthwaite's degrees of freedom from a gradient (J, P) or (J, P, D)."""
    gradient = np.broadcast_to(gradient, (len(se), *value.shape))
    more = (..., *(None,) * (gradient.ndim - 2))
    part = np.where(gradient == 0, 0.0, (gradient * se[more]) ** 2)
    var = part.sum(axis=0)
    below = (part**2 / freedom[more]).sum(axis=0)
    missing = np.isnan(value) | np.isnan(var)
    df = np.where(below > 0, var**2 / below, np.inf)
    return np.where(missing, np.nan, np.sqrt(var)), np.where(missing, np.nan, df)


def _no_flags(name: str, index: Index) -> set[str]:
    return set()


def _no_words(name: str, index: Index) -> str:
    return ""


def _nothing(name: str, index: Index) -> int:
    return 0


@dataclass(frozen=True)
class Quantities:
    """Parameters of many profiles as arrays; ``table[i]`` (or ``table[i, k]``) is a dict of estimates.

    Parameters
    ----------
    values, se, df, ci_low, ci_high : arrays by name, all of one shape, in the units of `units`.
    units, method : by name, and how they were made.
    why : reason a value is missing, from its name and index; reasons of what it is computed from go first.
    raised : flags that arise at a value; they are handed on to everything computed from it.
    count : number of values (or animals) behind a number.
    doubt : why a value that is there has no interval, if there is more to say than that no error is known.
    """

    values: dict[str, Floats]
    se: dict[str, Floats]
    df: dict[str, Floats]
    ci_low: dict[str, Floats]
    ci_high: dict[str, Floats]
    units: dict[str, str]
    method: str
    why: Callable[[str, Index], str] = field(repr=False)
    raised: Callable[[str, Index], set[str]] = field(default=_no_flags, repr=False)
    count: Callable[[str, Index], int] = field(default=_nothing, repr=False)
    doubt: Callable[[str, Index], str] = field(default=_no_words, repr=False)

    @classmethod
    def of(cls, found: Propagated, units: dict[str, tuple[str, float]], level: float, **more: Any) -> Quantities:
        """Bring propagated numbers into their units (text and factor by name) and give them intervals."""
        table = cls({}, {}, {}, {}, {}, {name: unit for name, (unit, _) in units.items()}, **more)
        for name, (_, factor) in units.items():
            p = PARAMETERS[name]
            value = found.values[name] * factor
            nothing = np.full(value.shape, np.nan)
            se, df = (nothing, nothing) if p.no_se else (found.se[name] * factor, found.df[name])
            table.values[name], table.se[name], table.df[name] = value, se, df
            table.ci_low[name], table.ci_high[name] = interval(p, value, se, df, level)
        return table

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, index: int | Index) -> dict[str, Estimate]:
        at = self._index(index)
        return {name: self.estimate(name, *at) for name in self.values}

    def estimate(self, name: str, *index: int) -> Estimate:
        """Return one number with its interval, flags and, where something is missing, the reason."""
        at = self._index(index)
        value, se = float(self.values[name][at]), float(self.se[name][at])
        unit, n = self.units[name], self.count(name, at)
        if math.isnan(value):
            return Estimate(name, unit=unit, method=self.method, n=n, reason=self._why(name, at))
        own = {"negative": value < 0, "imprecise": se > 0 and se >= 0.5 * abs(value)}
        flags = self._flags(name, at) | {flag for flag, is_so in own.items() if is_so}
        low, high = float(self.ci_low[name][at]), float(self.ci_high[name][at])
        no_error = "no se is known, so no uncertainty" if math.isnan(se) else self.doubt(name, at)
        reason = PARAMETERS[name].no_se or no_error
        words = self.method if math.isnan(se) else f"{self.method}; delta method"
        return Estimate(name, value, se, low, high, unit, words, n, tuple(sorted(flags)), reason)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a parameter and index, with the columns of an `Estimate`; flags joined by ``;``."""
        import pandas as pd

        rows = [
            {"index": at if len(at) > 1 else at[0], **vars(e), "flags": ";".join(e.flags)}
            for at in self._indices()
            for e in self[at].values()
        ]
        return pd.DataFrame(rows).rename(columns={"name": "parameter"})

    def _indices(self) -> Iterator[Index]:
        return product(*map(range, next(iter(self.values.values())).shape))

    def _index(self, index: int | Index) -> Index:
        shape = next(iter(self.values.values())).shape
        given = index if isinstance(index, tuple) else (index,)
        if len(given) != len(shape):
            raise IndexError(f"index has {given}, expected {len(shape)} numbers; the table's shape is {shape}")
        return tuple(range(size)[i] for i, size in zip(given, shape, strict=True))

    def _parents(self, name: str) -> list[str]:
        return [parent for parent in PARAMETERS[name].depends if parent in self.values]

    def _why(self, name: str, at: Index) -> str:
        for parent in self._parents(name):
            if math.isnan(self.values[parent][at]):
                return self._why(parent, at)
        return self.why(name, at)

    def _flags(self, name: str, at: Index) -> set[str]:
        handed_on = (self._flags(parent, at) for parent in self._parents(name))
        return self.raised(name, at).union(*handed_on) - _OWN_FLAGS
