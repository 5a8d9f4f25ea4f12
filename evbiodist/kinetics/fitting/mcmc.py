"""Posterior draws of a fit by emcee, through lmfit: an answer that needs no straight lines and no large samples.

An extra, because it is slow: seconds to minutes a fit, where profiles take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.optimum import Optimum, errors_known
from evbiodist.kinetics.fitting.profile import asked_of
from evbiodist.study.estimate import Estimate

FloatArray = NDArray[np.float64]
#: Autocorrelation times that a chain must last for its quantiles to be trusted (Foreman-Mackey 2013).
_LONG = 50.0
_FEWEST_STEPS = 100


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior of a fit.

    Parameters
    ----------
    names, units : of the quantities; value : (k,) of the fit; draws : (R, k).
    accepted : share of steps that were taken; lasts : steps over the longest autocorrelation time, NaN where too short
        to tell.
    level, n : of the intervals; values the fit rests on; notes : what weakens it.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    value: FloatArray
    draws: FloatArray
    accepted: float
    lasts: float
    level: float
    n: int
    notes: tuple[str, ...]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Medians, standard deviations and equal-tailed intervals of the draws."""
        tails = [0.5 - self.level / 2, 0.5, 0.5 + self.level / 2]
        low, middle, high = np.quantile(self.draws, tails, axis=0)
        sd = self.draws.std(axis=0, ddof=1)
        return tuple(Estimate(name, float(middle[k]), float(sd[k]), float(low[k]), float(high[k]), unit, "posterior, emcee",
                              self.n, ("imprecise",) if sd[k] >= 0.5 * abs(middle[k]) else (), "; ".join(self.notes))
                     for k, (name, unit) in enumerate(zip(self.names, self.units, strict=True)))  # fmt: skip


def sample(
    found: FitResult, names: Sequence[str] | None = None, *, steps: int = 2000, walkers: int = 32, burn: int = 500,
    thin: int = 5, seed: int,
) -> Posterior:  # fmt: skip
    """Draw from the posterior of a fit's parameters, flat on their search coordinates.

    Parameters
    ----------
    found : a fit; its weights are kept. Where the size of errors is not known it is sampled too.
    names : of free parameters and derived quantities; all of them if None.
    steps, walkers, burn, thin : of emcee; seed : where chance comes from.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError : emcee is not installed, or numbers out of range.

    Notes
    -----
    Rows are taken as independent given the parameters; where rows of one animal are alike the draws spread too little, and
    a note says so.

    Goodman J, Weare J (2010) Commun Appl Math Comput Sci 5:65; Foreman-Mackey D et al. (2013) PASP 125:306.
    """
    _installed()
    o = Optimum.of(found)
    free = int((~o.stuck).sum())
    if steps - burn < _FEWEST_STEPS or burn < 0 or thin < 1 or walkers < 2 * (free + 1) or walkers % 2:
        raise ValueError(f"steps has {steps}, burn {burn}, thin {thin}, walkers {walkers}; expected {_FEWEST_STEPS} steps or "
                         f"more after burn, thin of 1 or more, and an even number of walkers from {2 * (free + 1)}")  # fmt: skip
    asked = asked_of(found, names)
    ended = _through_lmfit(found, steps, walkers, burn, thin, seed)
    u = _coordinates(found, o, ended)
    draws = np.stack([a.natural(a.coordinate(u)[0]) for a in asked], axis=1)
    lasts = float((steps - burn) / np.max(ended.acor)) if hasattr(ended, "acor") else np.nan
    notes = [] if lasts >= _LONG else ["the chain is short for its autocorrelation; raise steps"]
    if o.likeness > 0.1:
        notes.append("rows of one animal are alike, which this posterior does not know, so it is too narrow")
    value = np.array([float(a.natural(a.coordinate(o.u[None])[0][0])) for a in asked])
    return Posterior(tuple(a.name for a in asked), tuple(a.unit for a in asked), value, draws,
                     float(np.mean(ended.acceptance_fraction)), lasts, found.level,
                     int(found.data.count.sum()), tuple(notes))  # fmt: skip


def _installed() -> None:
    from importlib.util import find_spec

    if find_spec("emcee") is None:
        raise ValueError(
            "posterior sampling needs emcee, which is not installed; install evbiodist[bayes], or use profile"
        )


def _through_lmfit(found: FitResult, steps: int, walkers: int, burn: int, thin: int, seed: int) -> Any:
    """Run lmfit's emcee from the fit."""
    import warnings

    known = errors_known(found)
    params = found.result.params.copy()
    if not known:
        params.add("__lnsigma", value=0.5 * np.log(max(found.chi2_red, 1e-12)), min=-15, max=15)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return found.minimizer.emcee(params, steps=steps, nwalkers=walkers, burn=burn, thin=thin, is_weighted=known,
                                     seed=seed, progress=False)  # fmt: skip


def _coordinates(found: FitResult, o: Optimum, ended: Any) -> FloatArray:
    """Return the free coordinates (R, q) of lmfit's chain; what was at a bound stays there."""
    chain = ended.flatchain
    words = {"log": "ln_{}", "logit": "logit_{}", "linear": "{}"}
    u = np.tile(o.u, (len(chain), 1))
    for i, name in enumerate(found.problem.freedom.names):
        p = found.graph.parameters[found.graph.names.index(name)]
        word = words[p.scale].format(name)
        if word in chain:
            u[:, i] = chain[word].to_numpy()
    return u
