"""Derivatives written out are those of the numbers: against the complex step through the numbers' own code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evbiodist.kinetics.nca.choices import choose
from evbiodist.kinetics.nca.curve import exponential_moments
from evbiodist.kinetics.nca.profiles import Profiles
from evbiodist.kinetics.nca.propagate import READ, apply_formulas, formula_slopes, read_off, read_slopes
from evbiodist.kinetics.nca.rules import CONVENTIONS, METHODS, Rules, Settings

PARTIAL = ((0.0, 0.3), (0.2, 1.7), (1.0, 30.0), (26.0, 90.0))


def _settings(method: str, route: str, rules: Rules) -> Settings:
    return Settings.of(method, rules, route, "au", "", None, PARTIAL, None, 20.0, False, 0.7, 0.95)


def _slopes_two_ways(t: np.ndarray, c: np.ndarray, s: Settings) -> tuple[dict, dict, dict]:
    """Values, and their derivatives by samples: written out, and by the complex step, (T, P) each."""
    d = Profiles.of(t, c, se=None, n=None, dose=7.0, lloq=None, below_lloq=None, below_share=None, points=None,
                    exclude=None, lambda_z_exclude=None, settings=s)  # fmt: skip
    choice = choose(d, s)
    values = apply_formulas(read_off(d, d.c, choice, s), s.parameters)
    ours = read_slopes(d, choice, s, values)
    for name, by in formula_slopes(values, s.parameters).items():
        ours[name] = sum(weight * ours[source] for source, weight in by.items())
    step = {name: np.zeros(d.t.shape) for name in ours}
    for j in range(len(d.t)):
        nudged = d.c.astype(complex)
        nudged[j] += 1e-150j
        found = apply_formulas(read_off(d, nudged, choice, s), s.parameters)
        for name in step:
            step[name][j] = np.imag(found[name]) / 1e-150
    return values, ours, step


def _profiles(rng: np.random.Generator, size: int, at_zero: bool) -> tuple[np.ndarray, np.ndarray]:
    gaps = rng.uniform(0.2, 6, (40, size))
    t = np.cumsum(gaps, axis=1) - (gaps[:, :1] if at_zero else 0.0)
    c = 10 * np.exp(-0.15 * t + rng.normal(0, 0.4, t.shape))
    c[:8, 2] = c[:8, 1]  # a level piece
    c[8:16, 2] = c[8:16, 1] * (1 + 1e-7)  # and one that hardly rises
    c[16:20, 1] = 0.0
    c[20:24, -1] = 0.0
    return t, c


@pytest.mark.parametrize("at_zero", [False, True])
@pytest.mark.parametrize("route", ["iv_bolus", "oral"])
@pytest.mark.parametrize("method", METHODS)
def test_slopes_are_those_of_the_complex_step(method: str, route: str, at_zero: bool) -> None:
    rng = np.random.default_rng(METHODS.index(method))
    t, c = _profiles(rng, 8, at_zero)
    for rules in (Rules(), CONVENTIONS["noncompart"], Rules(c0=("logslope", "cmin"), zeros="below_lloq")):
        s = _settings(method, route, rules)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            values, ours, step = _slopes_two_ways(t, c, s)
        assert {*READ, *(p.name for p in s.partial_areas), "vz" if route == "iv_bolus" else "vz_f"} <= ours.keys()
        for name, theirs in step.items():
            known = np.isfinite(values[name])
            assert known.any(), name
            scale = 1e-11 * np.abs(theirs[:, known]).max(axis=0) + 1e-14
            assert (np.abs(ours[name] - theirs)[:, known] <= scale).all(), (name, rules)


def test_moments_of_an_exponential() -> None:
    """Against quadrature; closed form and series meet at the switch."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    u = (nodes + 1) / 2
    y = np.concatenate([np.linspace(-30, 30, 2001), np.geomspace(1e-9, 1, 500)])
    for k, e in enumerate(exponential_moments(y, np.exp(-y), 3)):
        np.testing.assert_allclose(e, (u**k * np.exp(-np.outer(y, u))) @ weights / 2, rtol=2e-12)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rules().zeros = "below_lloq"  # type: ignore[misc]
