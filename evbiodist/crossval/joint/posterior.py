"""The full posterior of the joint fit, drawn by Hamiltonian chains: an answer without straight lines around the most probable point.

An extra, because it takes minutes where profiles take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.compose import FRACTION
from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.hypotheses import World, Worlds
from evbiodist.crossval.joint.problem import JointProblem
from evbiodist.crossval.joint.quantities import log_quantity
from evbiodist.study.estimate import Estimate
from evbiodist.study.units import derive

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
_CHAINS, _FEWEST = 4, 100
#: Worlds are sampled, the most probable first, until they hold this much of the probability.
_COVERED = 0.95
#: Draws a chain at least makes in every world, so that its chains can be compared.
_SHORTEST = 25
#: Steps and draws of each round after which the metric is renewed, and steps before the draws that count.
_PILOT, _WARM_UP = ((20, 20), (20, 25), (20, 30)), 30
#: Doublings of a trajectory, while the metric is rough and later; share of steps to be accepted.
_ROUGH_DEPTH, _DEPTH, _ACCEPT = 5, 7, 0.8
#: Chains that differ more than this (Vehtari 2021 asks for 1.01 of long ones), or are worth fewer draws than this, are told.
_APART, _WORTH = 1.05, 100.0
#: Quantiles that tell how well tails are known (Vehtari 2021).
_TAILS = (0.05, 0.95)
#: Coordinate vectors evaluated at once.
_BATCH = 50


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """Draws from the posterior of the joint fit, over what the labels may be.

    Parameters
    ----------
    names, units : (k,) of the quantities; draws : (R, k), equally probable, in these units.
    world : (R,) in which of `worlds` each was drawn; weight : their probabilities, of those that were sampled.
    r_hat : (k,) rank-normalised split R-hat, the worst of all worlds; 1 where chains agree.
    ess_bulk, ess_tail : (k,) how many independent draws middle and tails are worth.
    divergences, gradients : trajectories that left the energy surface; evaluations of the gradient, warm-up included.
    level, n : of the intervals; readings behind the fit; notes : what weakens the draws.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    draws: FloatArray
    world: IntArray
    worlds: tuple[World, ...]
    weight: FloatArray
    r_hat: FloatArray
    ess_bulk: FloatArray
    ess_tail: FloatArray
    divergences: int
    gradients: int
    level: float
    n: int
    notes: tuple[str, ...]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Medians, standard deviations and equal-tailed intervals of the draws."""
        return tuple(self._estimate(k) for k in range(len(self.names)))

    def _estimate(self, k: int) -> Estimate:
        x, name, unit = self.draws[:, k], self.names[k], self.units[k]
        missing = int((~np.isfinite(x)).sum())
        if missing:
            return Estimate(name, unit=unit, n=self.n, reason=f"does not exist in {missing} of {len(x)} draws")
        low, middle, high = (float(q) for q in np.quantile(x, [0.5 - self.level / 2, 0.5, 0.5 + self.level / 2]))
        sd = float(x.std(ddof=1))
        flags = ["imprecise"] if sd >= 0.5 * abs(middle) else []
        flags += ["not_converged"] if not self.r_hat[k] <= _APART else []
        how = f"posterior, Hamiltonian chains, average over {len(self.worlds)} worlds of faithful labels"
        return Estimate(name, middle, sd, low, high, unit, how, self.n, tuple(flags), "; ".join(self.notes))


def sample_joint(
    worlds: Worlds, names: Sequence[str], *, draws: int = 1000, seed: int, level: float = 0.95
) -> JointPosterior:
    """Draw quantities from the posterior of the joint fit.

    Parameters
    ----------
    worlds : what labels may be, of `evbiodist.crossval.joint.hypotheses.explore`; draws are shared by probability.
    names : as in `evbiodist.crossval.joint.quantities.log_quantity`: quantities, parameters of the vesicle, or coordinates
        such as ``DiR.free_fraction``.
    draws : in all; seed : where chance comes from; level : of the intervals.

    Returns
    -------
    JointPosterior : the same for the same seed.

    Raises
    ------
    ValueError : the libraries are not installed, numbers out of range, no name or one that is not known.

    Notes
    -----
    In each world the log density is -1/2 (cost of rows / scale of the fit + cost of priors), heavy tails as they are; the
    rows' standard deviations stay those of the fit. The no-U-turn sampler runs in coordinates that the mean information of
    rows and priors over the draws of three pilot rounds makes round: the information at the most probable point alone is
    too stiff, because many rates may as well be nothing. Probabilities of worlds are those of `explore` (Laplace's
    approximation).

    Hoffman & Gelman 2014, J Mach Learn Res 15:1593; Betancourt 2017, arXiv:1701.02434; Girolami & Calderhead 2011,
    J R Stat Soc B 73:123 (information as metric); Vehtari et al. 2021, Bayesian Anal 16:667 (R-hat, effective draws).

    Examples
    --------
    From one group of animals to draws of what the labels say together:

    >>> from evbiodist.crossval.joint.answer import joint_answer
    >>> answer = joint_answer(rows, labels, dosing, settings, fits)  # doctest: +SKIP
    >>> found = sample_joint(answer.worlds, ["brain_uptake_pct_id", "DiR.free_fraction"], seed=1)  # doctest: +SKIP
    >>> found.estimates[0].value, found.r_hat[0], found.ess_bulk[0], found.notes  # doctest: +SKIP
    """
    _installed()
    if draws < _FEWEST or not 0 < level < 1 or not names:
        raise ValueError(f"draws has {draws}, level {level}, names {list(names)}; expected {_FEWEST} draws or more, a level "
                         "between 0 and 1, and a name or more")  # fmt: skip
    asked = [_asked(worlds.best.problem, name) for name in names]
    sampled, weight = _sampled(worlds)
    shares = _shares(weight, draws)
    chains: list[_Chains] = []
    for k, share in zip(sampled, shares, strict=True):
        near = chains[0].u if chains else None
        chains.append(_run(worlds.fits[k], -(-share // _CHAINS), np.random.default_rng([seed, k]), near))
    values = [np.stack([_in_batches(a.value, c.u) for a in asked], axis=-1) for c in chains]
    r_hat, bulk, tail = _diagnosed(values, weight)
    bad = sum(c.divergences for c in chains)
    natural = np.concatenate([_spaced(v, share) for v, share in zip(values, shares, strict=True)])
    left = 1 - float(worlds.weight[sampled].sum())
    return JointPosterior(
        tuple(names), tuple(a.unit for a in asked), np.stack([a.natural(x) for a, x in zip(asked, natural.T, strict=True)], 1),
        np.repeat(np.arange(len(shares)), shares), tuple(worlds.worlds[k] for k in sampled), weight, r_hat, bulk, tail, bad,
        sum(c.gradients for c in chains), level, worlds.best.problem.rows.readings,
        tuple(_notes(left, bad, names, r_hat, np.minimum(bulk, tail))))  # fmt: skip


def _installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("mici", "arviz_stats") if find_spec(name) is None]
    if missing:
        raise ValueError(f"draws from the joint posterior need {' and '.join(missing)}, which is not installed; install "
                         "evbiodist[bayes], or use joint_profiles")  # fmt: skip


class _Asked(NamedTuple):
    """A quantity on the scale of its search (B,), how it is shown, and its unit."""

    value: Callable[[FloatArray], FloatArray]
    natural: Callable[[FloatArray], FloatArray]
    unit: str


def _asked(p: JointProblem, name: str) -> _Asked:
    from scipy.special import expit

    found = log_quantity(p, name)

    def value(u: FloatArray) -> FloatArray:
        return found(u)[0]

    own = name.rpartition(".")[2]
    if name != own and own == FRACTION:
        return _Asked(value, expit, "")
    if name != own and own.startswith("background_"):
        return _Asked(value, lambda x: x, "")
    dimension = {s.name: s.dimension for s in p.vesicle.parameters} | _DIMENSIONS
    if name not in dimension:
        return _Asked(value, _exp, "pct_id" if name.endswith("_pct_id") else "")
    unit = derive(dimension[name], "pct_id_per_g", "pct_id")
    return _Asked(value, lambda x: unit.factor * _exp(x), unit.unit)


#: Of quantities that are not an organ's.
_DIMENSIONS = {"cl": "dose/value/time", "half_life": "time", "half_life_initial": "time"}


def _exp(x: FloatArray) -> FloatArray:
    return np.asarray(np.exp(np.minimum(x, 700.0)))


def _sampled(worlds: Worlds) -> tuple[list[int], FloatArray]:
    """Return the worlds that hold most of the probability, the most probable first, and their shares of it."""
    order = sorted(worlds.fits, key=lambda k: -worlds.weight[k])
    enough = int(np.searchsorted(np.cumsum(worlds.weight[order]), _COVERED)) + 1
    weight = worlds.weight[order[:enough]]
    return order[:enough], weight / weight.sum()


def _shares(weight: FloatArray, draws: int) -> IntArray:
    """Return how many draws each world gives: in proportion, the largest remainders rounded up."""
    exact = weight * draws
    whole = np.floor(exact).astype(np.intp)
    whole[np.argsort(whole - exact, kind="stable")[: draws - int(whole.sum())]] += 1
    return whole


class _Chains(NamedTuple):
    """Coordinates (chains, draws, q) of one world, and what they cost."""

    u: FloatArray
    divergences: int
    gradients: int


def _run(found: JointFit, each: int, rng: np.random.Generator, near: FloatArray | None = None) -> _Chains:
    """Run chains in one world, renewing the metric on the way; draws (chains, draws, q) of another world spare most rounds."""
    rounds = _PILOT if near is None else _PILOT[-1:]
    root = _root(_information(found, found.u[None] if near is None else _spaced(near, _BATCH)))
    u = np.stack([_beginning(found, root @ rng.standard_normal(len(root))) for _ in range(_CHAINS)])[:, None]
    gradients = 0
    for warm_up, keep in rounds:
        pilot = _draw(found, root, u[:, -1], warm_up, keep, _ROUGH_DEPTH, rng)
        u, gradients = pilot.u, gradients + pilot.gradients
        root = _root(_information(found, _spaced(u, _BATCH)))
    ended = _draw(found, root, u[:, -1], _WARM_UP, max(each, _SHORTEST), _DEPTH, rng)
    return ended._replace(gradients=gradients + ended.gradients)


def _beginning(found: JointFit, away: FloatArray) -> FloatArray:
    """Return where a chain begins (q,): so far from the fit, or half as far again and again until the model can be evaluated."""
    while not np.isfinite(log_density(found, found.u + away)[0]) and np.abs(away).max() > 1e-6:
        away = away / 2
    return found.u + away


def _weights(found: JointFit) -> FloatArray:
    """Return by what squared residuals of rows and priors (N + q,) are multiplied in -2 log density."""
    return np.r_[np.full(found.size, 1 / found.scale), np.ones(found.problem.size)]


def _information(found: JointFit, u: FloatArray) -> FloatArray:
    """Return the mean information of rows and priors (q, q) over coordinates (B, q)."""
    total = np.zeros((found.problem.size, found.problem.size))
    root = np.sqrt(_weights(found))
    for some in np.array_split(u, -(-len(u) // _BATCH)):
        J = found.problem.residuals(some)[1] * root
        total += (J @ J.swapaxes(1, 2)).sum(axis=0)
    return total / len(u)


def _root(information: FloatArray) -> FloatArray:
    """Return the L (q, q) that makes z of u = u0 + L z round."""
    from scipy.linalg import cholesky, solve_triangular

    lower = cholesky(information, lower=True)
    return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, trans="T"))


def log_density(found: JointFit, u: FloatArray) -> tuple[float, FloatArray]:
    """Return the logarithm of the posterior density, but for a constant, and its gradient (q,).

    Parameters
    ----------
    found : of one world; u : (q,) coordinates. Where the model cannot be evaluated the density is 0.
    """
    weight = _weights(found)
    with np.errstate(all="ignore"):
        try:
            r, J = found.problem.residuals(u[None])
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(u)
        pull = weight * r[0]
        value, slope = -0.5 * float(pull @ r[0]), -(J[0] @ pull)
    if not (np.isfinite(value) and np.isfinite(slope).all()):
        return -np.inf, np.zeros_like(u)
    return value, slope


def _draw(
    found: JointFit, root: FloatArray, begin: FloatArray, warm_up: int, keep: int, depth: int, rng: np.random.Generator
) -> _Chains:
    """Run the no-U-turn sampler from coordinates (chains, q), finding its step in the warm-up."""
    import mici

    gradients = 0

    def slope(z: FloatArray) -> tuple[FloatArray, float]:
        nonlocal gradients
        gradients += 1
        value, gradient = log_density(found, found.u + root @ z)
        return -(root.T @ gradient), -value

    system = mici.systems.EuclideanMetricSystem(neg_log_dens=lambda z: slope(z)[1], grad_neg_log_dens=slope)
    sampler: Any = mici.samplers.DynamicMultinomialHMC(
        system, mici.integrators.LeapfrogIntegrator(system), rng, max_tree_depth=depth
    )
    start = list(np.linalg.solve(root, (begin - found.u).T).T)
    with np.errstate(all="ignore"):
        made = sampler.sample_chains(
            warm_up, keep, start, adapters=[mici.adapters.DualAveragingStepSizeAdapter(_ACCEPT)],
            trace_funcs=[lambda state: {"z": state.pos}], trace_warm_up=False, display_progress=False)  # fmt: skip
    u = found.u + np.stack(made.traces["z"]) @ root.T
    return _Chains(u, int(np.sum(made.statistics["diverging"])), gradients)


def _in_batches(value: Callable[[FloatArray], FloatArray], u: FloatArray) -> FloatArray:
    """Return a quantity (chains, draws) of coordinates (chains, draws, q)."""
    flat = u.reshape(-1, u.shape[2])
    with np.errstate(all="ignore"):
        return np.concatenate([value(some) for some in np.array_split(flat, -(-len(flat) // _BATCH))]).reshape(
            u.shape[:2]
        )


def _spaced(values: FloatArray, share: int) -> FloatArray:
    """Return as many draws (share, k) as a world gives, evenly spaced over its chains (chains, draws, k)."""
    flat = values.swapaxes(0, 1).reshape(-1, values.shape[2])
    return np.asarray(flat[np.arange(share) * len(flat) // max(share, 1)])


def _diagnosed(values: Sequence[FloatArray], weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return R-hat, the worst of all worlds, and effective draws of middle and tails of the average over worlds, (k,) each."""
    from arviz_stats.base import array_stats

    axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    middle, tails = {**axes, "method": "bulk"}, {**axes, "method": "tail", "prob": _TAILS}
    with np.errstate(all="ignore"):
        r_hat = np.max([array_stats.rhat(v, **axes) for v in values], axis=0)
        bulk, tail = (1 / sum(w**2 / array_stats.ess(v, **how) for v, w in zip(values, weight, strict=True))
                      for how in (middle, tails))  # fmt: skip
    return np.atleast_1d(r_hat), np.atleast_1d(bulk), np.atleast_1d(tail)


def _notes(left: float, divergences: int, names: Sequence[str], r_hat: FloatArray, worth: FloatArray) -> list[str]:
    """Return what weakens the draws."""
    notes = []
    if left >= 0.005:
        notes.append(f"less probable combinations of faithful labels, {100 * left:.2g} % together, were not sampled")
    if divergences:
        notes.append(f"{divergences} trajectories diverged, so a corner of the posterior may be missed")
    apart = [name for name, r in zip(names, r_hat, strict=True) if not r <= _APART]
    if apart:
        notes.append(f"chains differ in {', '.join(apart)} (R-hat up to {np.max(r_hat):.2f}); raise draws")
    few = [name for name, e in zip(names, worth, strict=True) if not e >= _WORTH]
    if few:
        notes.append(f"{', '.join(few)}: worth {np.min(worth):.0f} independent draws; raise draws")
    return notes
