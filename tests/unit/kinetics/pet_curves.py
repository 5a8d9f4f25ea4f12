"""Exact frame means of compartment models under a sum of exponentials, by closed form; the tests' own truth."""

from __future__ import annotations

import numpy as np

from evbiodist.kinetics.graphical.frames import Frames, InputCurve

SIZES, RATES = np.array([-60.0, 50.0, 10.0]), np.array([3.0, 0.2, 0.01])  # of plasma, 1/min
EDGES = np.r_[0, np.cumsum(np.r_[[0.25] * 6, [0.5] * 3, [1] * 5, [2.5] * 4, [5] * 20])]
FRAMES = Frames.of(EDGES[:-1], EDGES[1:], "min")


def plasma() -> InputCurve:
    t = np.r_[np.arange(0, 5, 0.005), np.arange(5, 119, 0.05)]
    return InputCurve.of(t, np.exp(-np.outer(t, RATES)) @ SIZES, "min")


def _mean_of_exponential(rate: float) -> np.ndarray:
    if rate == 0:
        return np.ones(len(FRAMES))
    return (np.exp(-rate * EDGES[:-1]) - np.exp(-rate * EDGES[1:])) / rate / np.diff(EDGES)


def tissue(sizes: list[float], rates: list[float]) -> np.ndarray:
    """Frame means of plasma convolved with a sum of exponentials (rates in 1/min)."""
    out = np.zeros(len(FRAMES))
    for c, slow in zip(sizes, rates, strict=True):
        for a, fast in zip(SIZES, RATES, strict=True):
            out += c * a * (_mean_of_exponential(fast) - _mean_of_exponential(slow)) / (slow - fast)
    return out


def two_tissue(k1: float, k2: float, k3: float, k4: float) -> np.ndarray:
    total = k2 + k3 + k4
    root = np.sqrt(total**2 - 4 * k2 * k4)
    slow, fast = max((total - root) / 2, 0.0), (total + root) / 2
    if k4 == 0:
        slow = 0.0
    return tissue([k1 * (k3 + k4 - slow) / (fast - slow), k1 * (fast - k3 - k4) / (fast - slow)], [slow, fast])
