"""New data from a fitted model: the same design, other animals.

What a visual predictive check looks at, and what a parametric bootstrap refits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.fit import FitResult
from evbiodist.kinetics.fitting.optimum import Optimum

FloatArray = NDArray[np.float64]


def simulate(found: FitResult, draws: int, rng: np.random.Generator, *, shared: bool = True) -> FloatArray:
    """Return values of the fit's design as other animals would give them.

    Parameters
    ----------
    found : a fit.
    draws : number of studies; rng : where chance comes from.
    shared : whether the error that all rows of a matrix share is drawn too.

    Returns
    -------
    (draws, N) : values with the fit's means and standard deviations, log-normal where the mean is positive. Rows of one
        animal are alike as their residuals are.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), "one_compartment_iv", dose=16)
    >>> simulate(found, 3, np.random.default_rng(1)).shape
    (3, 4)
    """
    o, data = Optimum.of(found), found.data
    y = o.predicted
    sd = spread_of(found, o)
    alike = o.likeness
    own = rng.standard_normal((draws, len(y)))
    animal = rng.standard_normal((draws, int(data.animal.max()) + 1))[:, data.animal]
    z = np.sqrt(alike) * animal + np.sqrt(1 - alike) * own
    up = y > 0
    level = np.where(up, y, 1.0)
    width = np.sqrt(np.log1p((sd / level) ** 2))
    values = np.where(up, level * np.exp(width * z - width**2 / 2), y + sd * z)
    if shared and data.systematic.any():
        values = values + rng.standard_normal((draws, len(data.seen)))[:, data.which] * data.systematic
    return values


def spread_of(found: FitResult, o: Optimum) -> FloatArray:
    """Return the standard deviation of every value about the fitted curve, (N,), without what rows share."""
    own = found.data.sigma(o.predicted) if found.settings.weights == "pooled" else found.problem.sigma[0]
    return np.asarray(own * np.sqrt(o.scale))
