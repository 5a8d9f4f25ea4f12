"""Laws of unmixing: scale of spectra and signals, order of components, exactness."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.imaging.spectra import Spectra
from evbiodist.imaging.unmix import unmix

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.booleans()


def scene(seed):
    rng = np.random.default_rng(seed)
    S = np.array([np.exp(-((np.arange(6) - c) ** 2) / 2.5) for c in (0.5, 2.5, 4.5)]) + rng.uniform(0, 0.05, (3, 6))
    return Spectra(("a", "b", "c"), None, S), rng.normal(5, 10, (6, 4)), rng.uniform(0.5, 3, (6, 4))


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(1e-3, 1e3))
def test_scaling_bands_scales_signals_and_errors(seed, clip, factor):
    spectra, y, v = scene(seed)
    a, b = unmix(y, spectra, v, nonnegative=clip), unmix(factor * y, spectra, factor**2 * v, nonnegative=clip)
    np.testing.assert_allclose(factor * a.signal, b.signal, rtol=1e-7, atol=1e-7 * factor)
    np.testing.assert_allclose(factor * a.se, b.se, rtol=1e-7)
    assert a.flags == b.flags


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(1e-3, 1e3))
def test_the_scale_of_a_spectrum_does_not_matter(seed, clip, factor):
    spectra, y, v = scene(seed)
    other = Spectra(spectra.names, None, spectra.values * np.array([[factor], [1.0], [1 / factor]]))
    np.testing.assert_allclose(unmix(y, spectra, v, nonnegative=clip).signal, unmix(y, other, v, nonnegative=clip).signal,
                               rtol=1e-7, atol=1e-7)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.permutations([0, 1, 2]))
def test_the_order_of_components_does_not_matter(seed, clip, order):
    spectra, y, v = scene(seed)
    turned = Spectra(tuple(spectra.names[i] for i in order), None, spectra.values[order])
    a, b = unmix(y, spectra, v, nonnegative=clip), unmix(y, turned, v, nonnegative=clip)
    np.testing.assert_allclose(a.signal[order], b.signal, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(a.se[order], b.se, rtol=1e-7)


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS)
def test_what_was_mixed_is_found_exactly(seed, clip):
    spectra, _, v = scene(seed)
    truth = np.random.default_rng(seed).uniform(0, 500, (3, 4))
    found = unmix(spectra.normalised().values.T @ truth, spectra, v, nonnegative=clip)
    np.testing.assert_allclose(found.signal, truth, rtol=1e-8, atol=1e-7)
