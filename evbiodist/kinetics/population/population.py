"""Observations of several animals as a population analysis needs them, and one rate graph seen through all of them.

Animals may have different times, matrices and doses, one sample each or many; everything is solved for all at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses, Exponentials, Input
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.study.units import Derived, derive
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

#: Between the read-off scale of a study and the truth: starting values are drawn with this spread of their logarithm.
_SCATTER = 2.0
_TRIES, _BEST, _SEED = 200, 6, 19840635
#: Errors of a first fit are never taken smaller than this share of a matrix' largest value.
_FLOOR = 0.02


class Rows(NamedTuple):
    """Rows per animal, (A, M) each, padded; `real` is False where there is no row.

    Parameters
    ----------
    slot : place among the animal's times; which : place in `seen`; value, variance, lloq, below, real : see
        `PopulationData`; variance is the square of `se`.
    """

    slot: IntArray
    which: IntArray
    value: FloatArray
    variance: FloatArray
    lloq: FloatArray
    below: BoolArray
    real: BoolArray


@dataclass(frozen=True, eq=False)
class PopulationData:
    """Observations of several animals in long form, one row a measurement.

    Parameters
    ----------
    animals : names; `animal` (N,) indexes them.
    seen : names of what is observed, as in `graph.seen`; `which` (N,) indexes them.
    time_h, value : (N,) hours since the dose and values; the value of a row that is `below` is not read.
    inputs : by the name of the model's ports, shared by all animals or with one row for each.
    se : (N,) known standard errors of measurement; 0 where unknown.
    lloq : (N,) lower limits of quantification; below : (N,) True where the value is under its limit.
    unit : unit of each observed matrix, or nothing; dose_unit : unit of the doses.
    notes : what was left out, in words.

    Raises
    ------
    ValueError : arrays of different length, indices out of range, numbers that are not finite, a row below a limit
        that is not given, inputs for another number of animals.

    Examples
    --------
    >>> d = PopulationData(("m1", "m2"), ("blood",), [0, 0, 1], [0, 0, 0], [1, 4, 1], [9.0, 4.0, 8.0],
    ...                    {"dose": Doses(100)})
    >>> d.rows.value.tolist(), d.count.tolist()
    ([[9.0, 4.0], [8.0, 0.0]], [2, 1])
    """

    animals: tuple[str, ...]
    seen: tuple[str, ...]
    animal: IntArray
    which: IntArray
    time_h: FloatArray
    value: FloatArray
    inputs: Mapping[str, Input]
    se: FloatArray
    lloq: FloatArray
    below: BoolArray
    unit: tuple[str, ...]
    dose_unit: str
    notes: tuple[str, ...]

    def __init__(
        self, animals: Sequence[str], seen: Sequence[str], animal: ArrayLike, which: ArrayLike, time_h: ArrayLike,
        value: ArrayLike, inputs: Mapping[str, Input], se: ArrayLike = 0.0, lloq: ArrayLike = math.nan,
        below: ArrayLike = False, unit: Sequence[str] = (), dose_unit: str = "", notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        size = np.shape(time_h)
        given = {
            "animal": np.asarray(animal, dtype=np.intp),
            "which": np.asarray(which, dtype=np.intp),
            "time_h": np.asarray(time_h, dtype=np.float64),
            "value": np.asarray(value, dtype=np.float64),
            "se": np.array(np.broadcast_to(np.asarray(se, dtype=np.float64), size)),
            "lloq": np.array(np.broadcast_to(np.asarray(lloq, dtype=np.float64), size)),
            "below": np.array(np.broadcast_to(np.asarray(below, dtype=np.bool_), size)),
        }
        for name, array in given.items():
            if array.shape != size or len(size) != 1:
                raise ValueError(f"{name} has shape {array.shape}, expected one value for each of the {size} times")
            object.__setattr__(self, name, array)
        for name, plain in (("animals", tuple(animals)), ("seen", tuple(seen)), ("inputs", dict(inputs)),
                            ("unit", tuple(unit)), ("dose_unit", dose_unit), ("notes", tuple(notes))):  # fmt: skip
            object.__setattr__(self, name, plain)
        self._check()

    def _check(self) -> None:
        """Refuse what cannot be analysed."""
        if not self.time_h.size:
            raise ValueError("there are no observations; give at least one row")
        for name, index, names in (("animal", self.animal, self.animals), ("which", self.which, self.seen)):
            if index.min() < 0 or index.max() >= len(names):
                raise ValueError(f"{name} has indices {index.min()} to {index.max()} for {len(names)} names")
        silent = [a for i, a in enumerate(self.animals) if not (self.animal == i).any()]
        if silent:
            raise ValueError(f"{', '.join(silent)} has no observation; leave the animal out")
        if not np.isfinite(self.time_h).all() or not np.isfinite(self.value[~self.below]).all():
            raise ValueError("time_h or value has numbers that are not finite; drop those rows, or mark them below")
        if not (np.isfinite(self.se) & (self.se >= 0)).all():
            raise ValueError("se has numbers that are negative or not finite; give 0 where it is not known")
        if not (self.lloq[self.below] > 0).all():
            raise ValueError(
                "a row is below a limit that is not given; fill lloq with a positive number, or drop the row"
            )
        if self.unit and len(self.unit) != len(self.seen):
            raise ValueError(f"unit has {len(self.unit)} entries for {len(self.seen)} observed matrices; give one each")
        for port, entry in self.inputs.items():
            if not _shared(entry) and _width(entry) != len(self.animals):
                raise ValueError(f"input {port} is for {_width(entry)} animals, the data hold {len(self.animals)}")

    @cached_property
    def count(self) -> IntArray:
        """Rows of every animal, (A,)."""
        return np.bincount(self.animal, minlength=len(self.animals))

    @cached_property
    def times(self) -> FloatArray:
        """Different times of every animal, (A, T), padded with the last one."""
        own = [np.unique(self.time_h[self.animal == i]) for i in range(len(self.animals))]
        width = max(map(len, own))
        return np.stack([np.r_[t, np.full(width - len(t), t[-1])] for t in own])

    @cached_property
    def rows(self) -> Rows:
        """Rows per animal."""
        size = (len(self.animals), int(self.count.max()))
        order = np.argsort(self.animal, kind="stable")
        at = self.animal[order], np.concatenate([np.arange(n) for n in self.count])
        slot = (self.times[self.animal] < self.time_h[:, None]).sum(axis=1)
        found: list[NDArray[Any]] = []
        for column in (slot, self.which, np.where(self.below, 0.0, self.value), self.se**2, self.lloq, self.below):
            padded: NDArray[Any] = np.zeros(size, dtype=column.dtype)
            padded[at] = column[order]
            found.append(padded)
        real = np.zeros(size, dtype=np.bool_)
        real[at] = True
        return Rows._make((*found, real))

    @cached_property
    def design(self) -> Design:
        """When was measured, and what was given, one problem an animal."""
        return Design(self.times, inputs=self.inputs)

    def as_one(self) -> PopulationData:
        """Return the rows as if of one animal, where all were given the same; else the data as they are."""
        if not all(_shared(entry) for entry in self.inputs.values()):
            return self
        return _as_rows_of(self, ("pooled",), np.zeros_like(self.animal))

    def only(self, which_animals: Sequence[int]) -> PopulationData:
        """Return the data of some animals."""
        chosen = np.asarray(which_animals, dtype=np.intp)
        keep = np.isin(self.animal, chosen)
        place = {int(a): i for i, a in enumerate(chosen)}
        cut = {k: getattr(self, k)[keep] for k in ("which", "time_h", "value", "se", "lloq", "below")}
        return PopulationData(
            [self.animals[a] for a in chosen], self.seen, [place[int(a)] for a in self.animal[keep]],
            inputs={k: v if _shared(v) else v.take(chosen) for k, v in self.inputs.items()},
            unit=self.unit, dose_unit=self.dose_unit, notes=self.notes, **cut)  # fmt: skip

    def parameter_unit(self, dimension: str) -> Derived:
        """Return the unit of a model parameter and the factor that brings its bare value into it."""
        if not self.unit or not self.unit[0]:
            return Derived("", 1.0)
        return derive(dimension, self.unit[0], self.dose_unit)


def _as_rows_of(data: PopulationData, animals: Sequence[str], animal: IntArray) -> PopulationData:
    """Return the data with other animals behind the rows; inputs have to be shared."""
    return PopulationData(animals, data.seen, animal, data.which, data.time_h, data.value, data.inputs, data.se,
                          data.lloq, data.below, data.unit, data.dose_unit, data.notes)  # fmt: skip


def _shared(entry: Input) -> bool:
    """Whether an input is the same for all animals."""
    return isinstance(entry, Exponentials) or (entry.amount if isinstance(entry, Doses) else entry.value).ndim == 1


def _width(entry: Input) -> int:
    return 0 if isinstance(entry, Exponentials) else len(entry.amount if isinstance(entry, Doses) else entry.value)


def from_observations(
    observations: pd.DataFrame, graph: RateGraph, inputs: Mapping[str, Input] | float = 100.0, dose_unit: str = "pct_id"
) -> PopulationData:
    """Choose the rows of one label and group that a model can use.

    Parameters
    ----------
    observations : columns of observations.csv (subject, organ, time_h, value, unit; se, lloq, below_lloq, n, sd where
        there are any).
    graph : the model; blood of it is whole blood, else plasma, else serum of the table.
    inputs : by port, or one amount given to every animal at 0 h.
    dose_unit : of the amount.

    Returns
    -------
    PopulationData : organs in the model's order; what was left out stands in `notes`.

    Raises
    ------
    ValueError : a matrix of the model that was not measured, several units of one matrix, published means.

    Examples
    --------
    >>> import pandas as pd
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> table = pd.DataFrame({"subject": ["m1", "m1", "m2"], "organ": ["blood", "bone", "blood"],
    ...                       "time_h": [1, 1, 4], "value": [9.0, 1.0, 4.0], "unit": "pct_id_per_g"})
    >>> data = from_observations(table, build("one_compartment_iv"))
    >>> data.animals, data.notes
    (('m1', 'm2'), ('left out, not in one_compartment_iv: bone',))
    """
    missing = [c for c in ("subject", "organ", "time_h", "value", "unit") if c not in observations]
    if missing:
        raise ValueError(f"observations lack the column {', '.join(missing)}; give the columns of observations.csv")
    if observations.empty:
        raise ValueError("there are no observations; give at least one row")
    rows, matrices = _model_rows(observations, graph)
    below = _column(rows, "below_lloq", 0.0).astype(bool)
    value = rows["value"].to_numpy(float)
    lost = ~np.isfinite(value) & ~below
    notes = [f"left out, without a value: {int(lost.sum())} rows"] if lost.any() else []
    stray = sorted(set(observations["organ"].astype(str)) - set(matrices.values()))
    notes += [f"left out, not in {graph.name}: {', '.join(stray)}"] if stray else []
    kept = rows[~lost]
    empty = [o for o in matrices.values() if not (kept["organ"] == o).any()]
    if empty:
        raise ValueError(f"{', '.join(empty)} has no row with a value or a limit; choose a model without it")
    names = tuple(sorted(set(kept["subject"].astype(str))))
    back = {organ: i for i, organ in enumerate(matrices.values())}
    if not isinstance(inputs, Mapping):
        inputs = {graph.ports[0].name: Doses(inputs)}
    return PopulationData(
        names, graph.seen, [names.index(str(s)) for s in kept["subject"]], [back[str(o)] for o in kept["organ"]],
        kept["time_h"].to_numpy(float), value[~lost], inputs, np.nan_to_num(_column(rows, "se", 0.0)[~lost]),
        _column(rows, "lloq", math.nan)[~lost], below[~lost],
        [str(kept.loc[kept["organ"] == o, "unit"].iloc[0]) for o in matrices.values()], dose_unit, notes)  # fmt: skip


def _model_rows(observations: pd.DataFrame, graph: RateGraph) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rows the model sees, and the organ of the table behind each of its observations."""
    organs = observations["organ"].astype(str)
    matrices: dict[str, str] = {}
    for name in graph.seen:
        candidates = BLOOD if name == "blood" else (name,)
        found = next((m for m in candidates if (organs == m).any()), None)
        if found is None:
            raise ValueError(f"{name} of model {graph.name} was not measured; choose a model without it")
        matrices[name] = found
    rows = observations[organs.isin(list(matrices.values()))]
    for organ in matrices.values():
        units = sorted(set(rows.loc[rows["organ"] == organ, "unit"].astype(str)))
        if len(units) > 1:
            raise ValueError(f"{organ} comes in several units ({', '.join(units)}); use one")
    if (np.nan_to_num(_column(rows, "n", 1.0), nan=1.0) > 1).any():
        raise ValueError(
            "the table holds means of several animals; a population analysis needs the animals' own values"
        )
    return rows, matrices


def _column(rows: pd.DataFrame, name: str, default: float) -> FloatArray:
    return rows[name].to_numpy(float) if name in rows else np.full(len(rows), default)


# one graph through the samples of every animal


@dataclass(frozen=True, eq=False)
class AnimalModel:
    """A linear rate graph seen through the samples of each animal, in the search coordinates of its free parameters.

    Parameters
    ----------
    graph, data : what is fitted to what.
    held : (p,) values of parameters that are not estimated, NaN for the free ones.
    """

    graph: RateGraph
    data: PopulationData
    held: FloatArray

    @classmethod
    def of(cls, graph: RateGraph, data: PopulationData, fixed: Mapping[str, float | None] | None = None) -> AnimalModel:
        """Build it; `fixed` holds parameters at values, or frees (None) those that the model holds.

        Raises
        ------
        ValueError : a name that is no parameter, observations in another order than the model's, inputs missing, a
            graph that is not linear.
        """
        unknown = set(fixed or {}) - set(graph.names)
        if unknown:
            raise ValueError(
                f"{', '.join(sorted(unknown))}: not a parameter of {graph.name} ({', '.join(graph.names)})"
            )
        if not graph.linear:
            raise ValueError(f"model {graph.name} is not linear; population analyses need a model of first-order rates")
        if data.seen != graph.seen:
            raise ValueError(f"the data observe {', '.join(data.seen)}, model {graph.name} {', '.join(graph.seen)}; "
                             "give them in the model's order")  # fmt: skip
        absent = [p.name for p in graph.ports if p.name not in data.inputs]
        if absent:
            raise ValueError(f"model {graph.name} needs the input {', '.join(absent)}; give it with the data")
        chosen = {p.name: p.fixed for p in graph.parameters} | dict(fixed or {})
        return cls(graph, data, np.array([math.nan if (v := chosen[n]) is None else v for n in graph.names]))

    @cached_property
    def free(self) -> IntArray:
        """Positions of the free parameters among the graph's."""
        return np.flatnonzero(np.isnan(self.held))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the free parameters."""
        return tuple(self.graph.names[i] for i in self.free)

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds of the search coordinates, infinite where there is none."""
        both = []
        for side, none in (("lower", -math.inf), ("upper", math.inf)):
            given = [getattr(p, side) for p in self.graph.parameters]
            inside = np.array([0.5 if g is None else g for g in given])
            known = np.array([g is not None for g in given])
            both.append(np.where(known, self.graph.to_search(inside), none)[self.free])
        return both[0], both[1]

    def theta(self, u: FloatArray) -> FloatArray:
        """Return the graph's parameters (B, p) at search coordinates (B, f) of the free ones."""
        full = np.zeros((len(u), len(self.held)))
        full[:, self.free] = u
        return np.where(np.isnan(self.held), self.graph.from_search(full), self.held)

    def coordinates(self, values: Mapping[str, float]) -> FloatArray:
        """Return search coordinates (f,) of free parameters given by name.

        Raises
        ------
        ValueError : a free parameter without a value, or one outside its range.
        """
        missing = [n for n in self.names if n not in values]
        if missing:
            raise ValueError(f"start lacks {', '.join(missing)}; give every free parameter, or none")
        full = np.where(np.isnan(self.held), 0.5, self.held)
        full[self.free] = [values[n] for n in self.names]
        u = self.graph.to_search(full)[self.free]
        if not np.isfinite(u).all():
            wrong = [n for n, x in zip(self.names, u, strict=True) if not np.isfinite(x)]
            raise ValueError(
                f"start of {', '.join(wrong)} is outside its range; positive rates, fractions within 0 and 1"
            )
        return u

    def predict(self, u: FloatArray, who: IntArray, slopes: bool = True) -> tuple[FloatArray, FloatArray]:
        """Return what each animal's rows should read, (B, M), and the derivatives (B, f, M) in search coordinates.

        Parameters
        ----------
        u : (B, f); who : (B,) which animal each is.
        """
        with np.errstate(all="ignore"):
            found = solve(self.graph, self.theta(u), self.data.design.take(who), derivatives=slopes)
        rows = self.data.rows
        b, slot, which = np.arange(len(u))[:, None], rows.slot[who], rows.which[who]
        y = found.y[b, slot, which]
        if not slopes:
            return y, np.empty((len(u), 0, y.shape[1]))
        return y, found.dy[b, :, slot, which].swapaxes(1, 2)[:, self.free]


def pooled_start(model: AnimalModel) -> FloatArray:
    """Return search coordinates (f,) of one curve for all animals, by least squares from many scattered starts.

    Nobody has to guess: dimensions of the parameters are filled with the scale of doses, times and values, and the
    best few of several hundred draws around that are improved.

    Raises
    ------
    ValueError : no draw gives a finite curve.
    """
    one = replace(model, data=model.data.as_one())
    rows = one.data.rows
    used = rows.real & ~rows.below
    largest = np.array([np.max(np.abs(rows.value), where=used & (rows.which == k), initial=0.0)
                        for k in range(len(one.data.seen))])  # fmt: skip
    floor = np.where(largest > 0, _FLOOR * largest, 1.0)[rows.which]
    sigma = np.hypot(np.abs(rows.value), floor)
    crowd = len(one.data.animals)

    def residuals(x: FloatArray, _: IntArray, slopes: bool = True) -> tuple[FloatArray, FloatArray]:
        who = np.tile(np.arange(crowd), len(x))
        f, df = one.predict(np.repeat(x, crowd, axis=0), who, slopes)
        keep = used[who] / sigma[who]
        r, jacobian = (f - rows.value[who]) * keep, df * keep[:, None]
        jacobian = jacobian.reshape(len(x), crowd, -1, keep.shape[1]).swapaxes(1, 2)
        r = r.reshape(len(x), -1)
        return r, jacobian.reshape(len(x), jacobian.shape[1], r.shape[1])

    low, high = model.bounds
    rng = np.random.default_rng(_SEED)
    centre = _scale_guess(model)
    draws = np.clip(centre + _SCATTER * rng.standard_normal((_TRIES, len(centre))) * (np.arange(_TRIES) > 0)[:, None],
                    low, high)  # fmt: skip
    cost = np.sum(residuals(draws, np.arange(_TRIES), slopes=False)[0] ** 2, axis=1)
    best = np.argsort(np.where(np.isfinite(cost), cost, np.inf))[:_BEST]
    for _ in range(3):
        found = least_squares(residuals, draws[best], low, high, xtol=1e-3, ftol=1e-3, max_iterations=40)
        draws, best = found.x, np.argsort(np.where(np.isfinite(found.cost), found.cost, np.inf))[:1]
        f, _ = one.predict(np.repeat(draws[best], crowd, axis=0), np.arange(crowd), slopes=False)
        sigma = np.hypot(np.abs(f), floor)  # weights from the curve, since noisy values pull it down
    if not np.isfinite(found.cost[best[0]]):
        raise ValueError(f"no starting values give a finite curve of {model.graph.name}; give start")
    return np.asarray(found.x[best[0]])


def _scale_guess(model: AnimalModel) -> FloatArray:
    """Return search coordinates of the study's own scales: dose over largest value, one over the middle time."""
    data = model.data
    first = (data.which == 0) & ~data.below
    scales = {
        "value": float(np.max(np.abs(data.value[first]), initial=0.0)) or 1.0,
        "dose": max((float(i.amount.max()) for i in data.inputs.values() if isinstance(i, Doses)), default=1.0) or 1.0,
        "time": float(np.median(data.time_h[data.time_h > 0])) if (data.time_h > 0).any() else 1.0,
    }
    guess = []
    for p in (model.graph.parameters[i] for i in model.free):
        top, *bottom = p.dimension.split("/")
        size = math.prod(scales.get(t, 1.0) for t in top.split("*")) / math.prod(scales.get(t, 1.0) for t in bottom)
        guess.append({"log": math.log(size), "logit": 0.0}.get(p.scale, 0.0 if p.fixed is not None else size))
    return np.array(guess)
