"""Posterior draws: the covariance's answer where that is exact, and a plain word when emcee is absent."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.fitting.mcmc import sample

T = np.array([0.25, 0.5, 1, 2, 4, 6, 8, 12])


def line(known: bool):
    rng = np.random.default_rng(1)
    value = 10 * np.exp(-0.2 * T + 0.1 * rng.standard_normal(T.size))
    more = {"weights": "given"} if known else {"weights": "proportional"}
    return fit(curve_data(T, value, se=0.1 * value), "one_compartment_iv", dose=100, scale="log", **more)


def test_without_emcee_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"emcee, which is not installed; install evbiodist\[bayes\]"):
        sample(line(True), seed=1)


def test_known_errors_give_the_normal_posterior() -> None:
    pytest.importorskip("emcee")
    found = line(True)
    got = sample(found, ["v", "half_life"], steps=600, burn=100, walkers=8, thin=2, seed=2)
    X = np.stack([np.ones_like(T), T], axis=1)
    cov = np.linalg.inv(X.T @ X) * 0.1**2
    v = got.estimates[0]  # some 150 independent draws, which know it to 6 %
    assert v.se / v.value == pytest.approx(np.sqrt(cov[0, 0]), rel=0.2)
    assert v.value == pytest.approx(found["v"].value, rel=0.02)
    assert v.unit == found["v"].unit
    assert 0.2 < got.accepted < 0.9


def test_the_seed_decides_and_numbers_are_checked() -> None:
    pytest.importorskip("emcee")
    found = line(False)
    a, b = (sample(found, ["v"], steps=110, burn=10, walkers=8, seed=3).draws for _ in range(2))
    assert (a == b).all()
    with pytest.raises(ValueError, match="walkers 7; expected 100 steps"):
        sample(found, walkers=7, seed=1)
    with pytest.raises(ValueError, match="steps has 100, burn 50"):
        sample(found, steps=100, burn=50, seed=1)
