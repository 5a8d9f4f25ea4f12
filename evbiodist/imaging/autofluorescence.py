"""What unlabelled animals show in the same organ, subtracted with its error.

For scans of a single band, where no spectrum can tell the label from the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evbiodist.io.scan import FloatArray


@dataclass(frozen=True, eq=False)
class Subtracted:
    """Signals without autofluorescence.

    Parameters
    ----------
    value : signals minus area times the control animals' mean.
    se : random standard error, with the animal-to-animal spread of autofluorescence.
    se_systematic : error of the control mean, shared by all values it was subtracted from.
    df : degrees of freedom of the total standard error (Satterthwaite), for intervals.
    flags : words by value; notes : sentences for people.
    """

    value: FloatArray
    se: FloatArray
    se_systematic: FloatArray
    df: FloatArray
    flags: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def subtract_autofluorescence(
    signal: ArrayLike,
    se: ArrayLike,
    area: ArrayLike,
    control_values: ArrayLike,
    control_se: ArrayLike = 0.0,
    control_n: ArrayLike = 1,
) -> Subtracted:
    """Subtract what unlabelled animals show in the same organ, in proportion to area (or mass).

    Parameters
    ----------
    signal, se, area : (n,) organ signals, their standard errors, and area (or mass) of the organs.
    control_values : (k,) control signal per unit area (or mass), one an animal or one a group of animals.
    control_se : of each; for a group its SD over the square root of n.
    control_n : (k,) animals behind each value.

    Returns
    -------
    Subtracted : flagged `few` with fewer than three control animals, and `negative` below zero.

    Raises
    ------
    ValueError : shapes that do not match, errors or areas that are not positive numbers, no control.

    Examples
    --------
    >>> found = subtract_autofluorescence([100.0], [3.0], [10.0], [2.0, 3.0, 4.0])
    >>> found.value.tolist(), found.se.round(2).tolist(), found.se_systematic.round(2).tolist()
    ([70.0], [10.44], [5.77])
    """
    s, e, a = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (signal, se, area)))
    values = np.atleast_1d(np.asarray(control_values, dtype=np.float64))
    errors = np.broadcast_to(np.asarray(control_se, dtype=np.float64), values.shape)
    n = np.broadcast_to(np.asarray(control_n, dtype=np.float64), values.shape)
    _check_controls(e, a, values, errors, n)
    animals = float(n.sum())
    mean = float((n * values).sum() / animals)
    measured = float((n**2 * errors**2).sum() / animals)  # variance of one animal, from the stated errors
    if values.size > 1:
        between = max(float((n * (values - mean) ** 2).sum() / (values.size - 1)), measured)
        df = values.size - 1.0
    else:
        between, df = measured, max(animals - 1, 1.0)
    random, shared = a * np.sqrt(between), a * np.sqrt(between / animals)
    total = e**2 + random**2 + shared**2
    below = random**2 + shared**2
    freedom = df * (total / np.where(below > 0, below, np.inf)) ** 2 if between else np.full(s.shape, np.inf)
    value = s - a * mean
    notes = [f"{mean:.4g} per unit of area or mass was subtracted, from {animals:g} control animals"]
    if animals < 2:
        notes.append("one control animal does not show how much animals differ; the error is too small")
    flags = tuple(tuple(w for w, holds in (("few", animals < 3), ("negative", v < 0)) if holds) for v in value)
    return Subtracted(value, np.hypot(e, random), shared, freedom, flags, tuple(notes))


def _check_controls(se: FloatArray, area: FloatArray, values: FloatArray, errors: FloatArray, n: FloatArray) -> None:
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            "no control animal, or a control value that is not a number; give the unlabelled animals' signals"
        )
    if not (se >= 0).all() or not (errors >= 0).all():
        raise ValueError("a standard error is missing or below zero; give one for every signal and control")
    if not (area > 0).all():
        raise ValueError("an area (or mass) is missing or not above zero; give one for every organ")
    if not (n >= 1).all():
        raise ValueError("a control has fewer than one animal; correct control_n")
