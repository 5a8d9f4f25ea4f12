"""All labels' rows as one least-squares problem: shared vesicle parameters, each label's own, and priors as penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.arms import CALIBRATION_SD, Arm, Arms
from evbiodist.crossval.joint.compose import (
    EFFICIENCY,
    FRACTION,
    FREE_IN,
    FREE_KA,
    SCALE,
    VESSELS,
    by_organ,
    labelled,
    organs_of,
)  # fmt: skip
from evbiodist.crossval.joint.rows import Rows, lay_out
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Input
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.study.labels import NUISANCE, LabelModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
#: Stands for nothing where a logarithm must exist: a rate per hour, a mass in g or a share that cannot be seen.
NOTHING = 1e-12
#: How loosely the vesicle's own parameters are held at where the search begins, on the logarithm: a factor of 50 either way.
VESICLE_SD = 4.0
#: The logarithm of a scale that is not known, and of the absorption rate of free label (1/h) with its error: judgement.
_NO_SCALE, _ABSORPTION = 8.0, (float(np.log(0.5)), 1.5)
#: Degrees of freedom of heavy-tailed priors.
_DEGREES = 4.0
#: How loosely the size of a background is held, as a multiple of the largest reading.
_BACKGROUND_SD = 1.0


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of the searched coordinates, (q,) each, or (B, q) where problems differ.

    Parameters
    ----------
    centre, sd : of normal priors; heavy : those with Student's t of 4 degrees of freedom instead, so that one reading that is
        badly off gives way to all others.
    """

    centre: FloatArray
    sd: FloatArray
    heavy: BoolArray

    def take(self, rows: IntArray) -> Prior:
        """Return the priors of some problems, where each has its own."""
        return Prior(self.centre[rows], self.sd[rows], self.heavy[rows])

    def residual(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (B, q) residuals whose squares are -2 log density (less its value at the centre), and their slopes."""
        z = (u - self.centre) / self.sd
        t = z * z / _DEGREES
        size = np.sqrt((_DEGREES + 1) * np.log1p(t))
        with np.errstate(divide="ignore", invalid="ignore"):
            steep = np.where(
                t > 1e-12, (_DEGREES + 1) / _DEGREES * np.abs(z) / (1 + t) / size, ((_DEGREES + 1) / _DEGREES) ** 0.5
            )
        return np.where(self.heavy, np.sign(z) * size, z), np.where(self.heavy, steep, 1.0) / self.sd


@dataclass(frozen=True, eq=False)
class JointProblem:
    """Rows, model and priors of one group of animals under several labels.

    Parameters
    ----------
    vesicle : the vesicle's model; seen : the same as a label shows it; arms : what was given and read.
    names : (q,) searched coordinates: the vesicle's parameters by their own names, a label's as ``label.parameter``.
    index : (A, p) which coordinate, or (beyond q) which of the constants `held`, each arm's parameters are.
    inputs : the dose; rows : the readings.
    background : (N,) which coordinate is added to the row, q where none is; blank : (N,) rows that show nothing else.
    prior : of the coordinates.
    """

    vesicle: RateGraph
    seen: RateGraph
    arms: Arms
    names: tuple[str, ...]
    index: IntArray
    held: FloatArray
    inputs: Mapping[str, Input]
    rows: Rows
    background: IntArray
    blank: BoolArray
    prior: Prior

    @property
    def size(self) -> int:
        """Number of searched coordinates."""
        return len(self.names)

    @cached_property
    def _rows_of(self) -> list[IntArray]:
        return [np.flatnonzero(self.rows.arm == a) for a in range(len(self.index))]

    @cached_property
    def _place(self) -> IntArray:
        """Position of each row in its arm's flattened prediction (observed x time)."""
        return np.asarray(self.rows.organ * self.rows.times.shape[1] + self.rows.time)

    @cached_property
    def _still(self) -> frozenset[str]:
        return frozenset(n for n, i in zip(self.seen.names, self.index.T, strict=True) if (i >= self.size).all())

    @property
    def on_vesicles(self) -> BoolArray:
        """Which rows are of animals that got labelled vesicles, (N,)."""
        return np.array([a.kind == "vesicles" for a in self.arms.arms])[self.rows.arm]

    def coordinates(self, u: FloatArray) -> FloatArray:
        """Return every arm's search coordinates, (B, A, p), at searched ones (B, q)."""
        held = np.broadcast_to(self.held, (len(u), len(self.held)))
        return np.concatenate([u, held], axis=1)[:, self.index]

    def predict(self, u: FloatArray, derivatives: bool = True) -> tuple[FloatArray, FloatArray]:
        """Return what every row should read, (B, N), and its derivatives (B, q, N)."""
        B, A = len(u), len(self.index)
        theta = self.seen.from_search(self.coordinates(u).reshape(B * A, -1))
        design = Design(np.tile(self.rows.times, (B, 1)), inputs=self.inputs)
        found = solve(self.seen, theta, design, derivatives=derivatives, held=self._still)
        y = found.y.swapaxes(1, 2).reshape(B, A, -1)
        out = np.where(self.blank, 0.0, y[:, self.rows.arm, self._place])
        out = out + np.concatenate([u, np.zeros((B, 1))], axis=1)[:, self.background]
        if not derivatives:
            return out, np.empty((B, 0, 0))
        dy = found.dy.swapaxes(2, 3).reshape(B, A, theta.shape[1], y.shape[2])
        slopes = np.zeros((B, self.size + 1, self.rows.size))
        for a, rows in enumerate(self._rows_of):
            free = np.flatnonzero(self.index[a] < self.size)
            slopes[:, self.index[a, free][:, None], rows] = (
                dy[:, a][:, free][:, :, self._place[rows]] * ~self.blank[rows]
            )
        slopes[:, self.background, np.arange(self.rows.size)] += 1.0
        return out, slopes[:, : self.size]

    def weighed(self, u: FloatArray) -> JointProblem:
        """Return the problem with standard deviations taken from the curve at searched coordinates (q,)."""
        return replace(self, rows=self.rows.weighed(self.predict(u[None], False)[0][0]))

    def residuals(
        self, u: FloatArray, *, keep: FloatArray | None = None, value: FloatArray | None = None, prior: Prior | None = None
    ) -> tuple[FloatArray, FloatArray]:  # fmt: skip
        """Return residuals of rows and priors (B, N + q) and their derivatives (B, q, N + q).

        Parameters
        ----------
        keep, value : (B, N) as `Rows.decorrelated` takes it, and values instead of the rows' own; prior : another one.
        """
        rows = self.rows
        kept = np.ones((len(u), rows.size)) if keep is None else keep
        y, dy = self.predict(u)
        r = rows.decorrelated((y - (rows.value if value is None else value)) / rows.sigma, kept)
        J = rows.decorrelated(dy / rows.sigma, kept[:, None])
        known, steep = (prior or self.prior).residual(u)
        own = np.eye(self.size) * steep[:, None, :]
        return np.concatenate([r, known], axis=1), np.concatenate([J, own], axis=2)

    def theta(self, u: FloatArray) -> FloatArray:
        """Return the vesicle's parameters (B, p) at searched coordinates (B, q)."""
        return self.vesicle.from_search(u[:, : len(self.vesicle.names)])


def build_problem(
    vesicle: RateGraph, arms: Arms, models: Mapping[str, LabelModel], dose: Mapping[str, Input], start: FloatArray
) -> JointProblem:
    """Return the joint problem of a vesicle's model and all its arms.

    Parameters
    ----------
    vesicle : sees blood and the organs of the arms.
    models : of each label, with its priors.
    dose : the input by the name of the model's port, in % of dose.
    start : (p,) vesicle parameters to begin from.
    """
    seen = labelled(vesicle)
    names = list(vesicle.names)
    centre, sd = list(vesicle.to_search(start)), [VESICLE_SD] * len(names)
    held = [float(np.log(NOTHING)), 0.0, -float(np.log(NOTHING))]
    for organ, (grams, error) in arms.vessel_blood.items():
        if by_organ(VESSELS, organ) in seen.names:
            _add(names, centre, sd, by_organ(VESSELS, organ), float(np.log(grams)), error)
    index = np.zeros((len(arms.arms), len(seen.names)), dtype=np.intp)
    background: dict[tuple[str, str], int] = {}
    for label in dict.fromkeys(a.label for a in arms.arms):
        mine = [a for a in arms.arms if a.label == label]
        _add_label(names, centre, sd, label, models[label], mine, seen, organs_of(vesicle))
        if any(a.kind == "background" for a in mine):
            for organ in sorted({o for a in mine for o in a.data.seen}):
                top = max(float(np.abs(a.data.mean[a.data.which == a.data.seen.index(organ)]).max())
                          for a in mine if organ in a.data.seen)  # fmt: skip
                background[label, organ] = len(names)
                _add(names, centre, sd, f"{label}.background_{organ}", 0.0, _BACKGROUND_SD * top)
    q = len(names)
    place = {n: i for i, n in enumerate(names)}
    for a, arm in enumerate(arms.arms):
        for j, name in enumerate(seen.names):
            where = place.get(f"{arm.label}.{name}", place.get(name))
            if name.startswith(f"{VESSELS}_") and not arm.vessels:
                where = None
            if name == FRACTION and arm.kind == "free_label":
                index[a, j] = q + 2
                continue
            index[a, j] = q + int(name == SCALE or name.startswith(f"{EFFICIENCY}_")) if where is None else where
    heavy = np.array([f".{EFFICIENCY}_" in n for n in names])
    prior = Prior(np.array(centre), np.array(sd), heavy)
    rows = lay_out(arms.arms, seen)
    added = [background.get((arms.arms[a].label, seen.seen[o]), q) for a, o in zip(rows.arm, rows.organ, strict=True)]
    blank = np.array([a.kind == "background" for a in arms.arms])[rows.arm]
    return JointProblem(vesicle, seen, arms, tuple(names), index, np.array(held), dose, rows, np.array(added, np.intp), blank,
                        prior)  # fmt: skip


def _add(names: list[str], centre: list[float], sd: list[float], name: str, at: float, error: float) -> None:
    names.append(name)
    centre.append(at)
    sd.append(error)


def _add_label(
    names: list[str], centre: list[float], sd: list[float], label: str, model: LabelModel, arms: Sequence[Arm],
    seen: RateGraph, organs: Sequence[str],
) -> None:  # fmt: skip
    """Add a label's own coordinates with their priors; what its catalogue entry leaves out does not happen."""
    absolute = all(a.absolute for a in arms)
    _add(
        names,
        centre,
        sd,
        f"{label}.{SCALE}",
        0.0 if absolute else _level(arms),
        CALIBRATION_SD if absolute else _NO_SCALE,
    )
    shown = {o for a in arms for o in a.data.seen}
    for name in seen.names:
        part, organ = _split(name, organs)
        if part == FREE_KA:
            _add(names, centre, sd, f"{label}.{name}", *_ABSORPTION)
        elif part in NUISANCE and (organ is None or organ in shown):
            prior = model.prior(part, organ)
            error = prior.sd
            if part == EFFICIENCY:
                error = float(np.hypot(error, _shared_error(arms, str(organ))))
                if organ == "blood" and not absolute:
                    error = _NO_SCALE  # the scale of blood has nothing to do with that of whole organs
            _add(names, centre, sd, f"{label}.{name}", prior.centre, error)


def _split(name: str, organs: Sequence[str]) -> tuple[str, str | None]:
    """Return a label parameter's name and organ."""
    for part in (EFFICIENCY, FREE_IN, VESSELS):
        organ = name.removeprefix(f"{part}_")
        if name.startswith(f"{part}_") and (organ in organs or organ == "blood"):
            return part, organ
    return name, None


def _level(arms: Sequence[Arm]) -> float:
    """Return the logarithm of a plausible reading per % of dose: the largest organ as if it held a third of the dose."""
    return float(np.log(max(float(np.abs(a.data.mean).max()) for a in arms) / 33))


def _shared_error(arms: Sequence[Arm], organ: str) -> float:
    """Return the relative error that all rows of an organ share."""
    found = [np.abs(a.data.systematic[rows]) / np.maximum(np.abs(a.data.value[rows]), 1e-300) for a in arms
             if organ in a.data.seen and (rows := a.data.which == a.data.seen.index(organ)).any()]  # fmt: skip
    return float(min(np.median(np.concatenate(found)), 1.0)) if found else 0.0
