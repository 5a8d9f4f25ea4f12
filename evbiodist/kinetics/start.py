"""Starting values read off the curves, so that nobody has to guess them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.data import FitData
from evbiodist.kinetics.graph import RateGraph

FloatArray = NDArray[np.float64]


def start_values(graph: RateGraph, data: FitData, dose: float) -> FloatArray:
    """Return starting values for every parameter of a catalogue model, shape (p,), all positive.

    Clearance is dose over area, volumes come from the curve's start, uptake rates from an organ's first
    amounts over the blood seen until then, return rates from its last slope.
    """
    time, blood = data.curve("blood")
    blood = np.maximum(blood, 1e-3 * blood.max())
    c0 = _intercept(time, blood)
    area = float(np.trapezoid(np.r_[c0, blood], np.r_[0.0, time])) + blood[-1] / _last_slope(time, blood)
    volume, clearance = dose / c0, dose / area
    guess = {"cl": clearance, "v": volume, "v1": volume, "v2": 2 * volume, "q": clearance}
    uptake = {}
    for organ in data.seen[1:]:
        uptake[organ] = _uptake(data, organ, time, blood, c0, volume)
        guess[f"k_in_{organ}"] = uptake[organ]
        guess[f"k_out_{organ}"] = _last_slope(*data.curve(organ))
    guess["k_el"] = max(clearance / volume - sum(uptake.values()), 0.1 * clearance / volume)
    return np.array([guess[name] for name in graph.names])


def _intercept(time: FloatArray, value: FloatArray) -> float:
    """Return the concentration at time 0 by the straight log line through the first two samples."""
    if time[0] == 0 or len(time) < 2 or value[1] >= value[0]:
        return float(value[0])
    slope = np.log(value[0] / value[1]) / (time[1] - time[0])
    return float(min(value[0] * np.exp(slope * time[0]), 10 * value[0]))


def _last_slope(time: FloatArray, value: FloatArray) -> float:
    """Return a positive rate from the last samples; a slow one where the curve does not fall."""
    slowest = 0.1 / time[-1]
    k = min(3, len(time))
    y = np.maximum(value[-k:], 1e-3 * max(np.max(value), 1e-300))
    slope = -np.polyfit(time[-k:], np.log(y), 1)[0]
    return float(max(slope, slowest))


def _uptake(data: FitData, organ: str, time: FloatArray, blood: FloatArray, c0: float, volume: float) -> float:
    when, amount = data.curve(organ)
    grid, level = np.r_[0.0, time], np.r_[c0, blood]
    seen = np.array([np.trapezoid(level[grid <= t], grid[grid <= t]) for t in when]) * volume
    rates = amount[seen > 0] / seen[seen > 0]
    rates = rates[rates > 0]
    return float(rates[0]) if rates.size else 1e-3 / float(when[-1])
