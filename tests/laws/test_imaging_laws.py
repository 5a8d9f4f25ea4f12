"""Laws of the estimator: background, scale, order, area and units, over random images, volumes and series."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.imaging.estimator import estimate
from evbiodist.imaging.footprints import FOOTPRINTS, psf_footprints
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import quantify
from evbiodist.imaging.series import quantify_series
from evbiodist.io.scan import ACTIVITY, RADIANCE, Camera, Scan
from evbiodist.study.model import ImagingSettings

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(sorted(FOOTPRINTS))


def scene(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 32), np.int32)
    for value, (r, c) in enumerate([(2, 2), (2, 18), (13, 4), (13, 20)], 1):
        labels[r : r + rng.integers(4, 9), c : c + rng.integers(4, 10)] = value
    organs = OrganMap(labels, {i: f"organ_{i}" for i in range(1, 5)}, "label image")
    return organs, rng.uniform(0, 100, labels.shape), rng.uniform(0.5, 3, labels.shape)


def solve(kind, organs, frame, variance):
    record = FOOTPRINTS[kind]
    return estimate(frame, record.build(organs, 1.3), variance, weighting=record.weighting)


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(-1e4, 1e4))
def test_a_constant_background_changes_no_organ(seed, kind, level):
    organs, frame, variance = scene(seed)
    a, b = solve(kind, organs, frame, variance), solve(kind, organs, frame + level, variance)
    np.testing.assert_allclose(a.signal, b.signal, rtol=1e-7, atol=1e-6 * (1 + abs(level)))
    np.testing.assert_allclose(a.covariance, b.covariance)
    assert np.isclose(b.background - a.background, level, rtol=1e-6, atol=1e-8 * (1 + abs(level)))


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.floats(1e-3, 1e3))
def test_scaling_counts_scales_signals_and_errors(seed, kind, factor):
    organs, frame, variance = scene(seed)
    a, b = solve(kind, organs, frame, variance), solve(kind, organs, factor * frame, factor**2 * variance)
    np.testing.assert_allclose(factor * a.signal, b.signal, rtol=1e-7, atol=1e-7 * factor)
    np.testing.assert_allclose(factor * a.se, b.se, rtol=1e-7)


@settings(max_examples=30, deadline=None)
@given(SEEDS, KINDS, st.permutations([1, 2, 3, 4]))
def test_the_order_of_organs_does_not_matter(seed, kind, order):
    organs, frame, variance = scene(seed)
    table = np.array([0, *order], np.int32)
    renamed = OrganMap(table[organs.labels], {order[i - 1]: name for i, name in organs.names.items()}, "label image")
    a, b = solve(kind, organs, frame, variance), solve(kind, renamed, frame, variance)
    signals = dict(zip(renamed.organs, b.signal, strict=True))
    np.testing.assert_allclose(a.signal, [signals[o] for o in organs.organs], rtol=1e-7, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_sum_over_ones_is_the_area(seed):
    organs, _, variance = scene(seed)
    frame = (organs.labels > 0).astype(float)
    fit = solve("roi", organs, frame, variance)
    np.testing.assert_allclose(fit.signal, list(organs.areas().values()), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SEEDS, KINDS)
def test_what_footprints_make_is_found_exactly(seed, kind):
    organs, _, variance = scene(seed)
    record = FOOTPRINTS[kind]
    truth = np.random.default_rng(seed).uniform(-5, 500, 4)
    frame = np.tensordot(truth, record.build(organs, 1.3), 1) + 7.0
    np.testing.assert_allclose(solve(kind, organs, frame, variance).signal, truth, rtol=1e-8, atol=1e-7)


# ---------------------------------------------------------------- volumes, series, units

SIGMA = {2: (1.4, 1.4), 3: (0.9, 1.3, 1.6)}
SETTINGS = st.sampled_from([ImagingSettings(), ImagingSettings(footprint="psf", psf_fwhm_px=2.6)])


def volume(seed, dims):
    """Three touching or lone organs of random size with room for blur, and their true amounts."""
    rng = np.random.default_rng(seed)
    shape = (16, 28, 30)[3 - dims :]
    labels = np.zeros(shape, np.int32)
    for value, at in enumerate([(4, 6, 5), (4, 6, 13), (9, 17, 16)], 1):
        low = np.array(at)[3 - dims :]
        high = low + rng.integers(3, 7, dims)
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    return OrganMap(labels, {1: "liver", 2: "spleen", 3: "kidney"}, "label image"), rng.uniform(2e4, 2e5, 3)


def series(seed, frames=6):
    """Organs dim enough that what they spill over the guard band is no stray light."""
    organs, amounts = volume(seed, 2)
    amounts = amounts / 10
    rng = np.random.default_rng(seed)
    shares = psf_footprints(organs, 2.6 / 2.3548)
    fading = np.exp(-np.outer(np.arange(frames), rng.uniform(0, 0.4, 3)))
    light = np.tensordot(amounts * fading, shares, 1) + rng.uniform(2, 20)
    counts = rng.poisson(light * 1.5) / 1.5 + 100
    camera = Camera(gain_e=1.5, read_noise_e=1.0, bias=100.0)
    return Scan("film", None, np.rint(counts).astype(np.uint16), "TYX", (0.3, 0.4), offset=100.0, camera=camera), organs


@pytest.mark.parametrize("dims", [2, 3])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_gtm_finds_the_exact_truth_under_unequal_blur(dims, seed):
    organs, truth = volume(seed, dims)
    F = psf_footprints(organs, SIGMA[dims])
    fit = estimate(np.tensordot(truth, F, 1) + 11.0, F, np.ones(organs.labels.shape))
    np.testing.assert_allclose(fit.signal, truth, rtol=1e-9)
    assert np.isclose(fit.background, 11.0)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(0.05, 2.0), st.floats(0.05, 2.0), st.floats(0.05, 2.0))
def test_ones_sum_to_the_volume_in_any_spacing(seed, z, y, x):
    organs, _ = volume(seed, 3)
    ones = (organs.labels > 0).astype(float)
    scan = Scan("pet", None, ones, "ZYX", (y, x), unit=ACTIVITY, slice_mm=z)
    found = quantify(scan, organs)
    ml = np.array(list(organs.areas().values())) * x * y * z / 1000
    np.testing.assert_allclose(found.volume_ml, ml)
    np.testing.assert_allclose(found.value, ml, rtol=1e-9)  # 1 Bq/mL


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(0.1, 10.0))
def test_the_spacing_scales_flux_and_cancels_in_what_is_relative(seed, factor):
    scan, organs = series(seed)
    flux = replace(scan, unit=RADIANCE)
    finer = replace(flux, pixel_size_mm=tuple(s * factor for s in flux.pixel_size_mm))
    a, b = quantify_series(flux, organs), quantify_series(finer, organs)
    np.testing.assert_allclose(a.value * factor**2, b.value, rtol=1e-9)
    np.testing.assert_allclose(a.se / np.abs(a.value), b.se / np.abs(b.value), rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(SEEDS, SETTINGS)
def test_a_series_of_plain_sums_is_its_frames(seed, chosen):
    scan, organs = series(seed)
    found = quantify_series(scan, organs, chosen)
    for t, counts in enumerate(scan.counts):
        single = quantify(replace(scan, counts=counts, axes="YX"), organs, chosen)
        if chosen.footprint == "roi":
            np.testing.assert_allclose(found.value[t], single.value, rtol=1e-8, atol=1e-8 * single.value.max())
            np.testing.assert_allclose(found.covariance[t], single.covariance, rtol=1e-7)
        else:  # other weights: the difference has the variance by which shared ones are worse than own ones
            worse = np.sqrt(np.maximum(found.se[t] ** 2 - single.se**2, 0) + (0.05 * single.se) ** 2)
            assert (np.abs(found.value[t] - single.value) < 5 * worse).all()


@settings(max_examples=10, deadline=None)
@given(SEEDS, SETTINGS, st.integers(1, 4))
def test_blocks_do_not_matter(seed, chosen, frames):
    scan, organs = series(seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = quantify_series(scan, organs, chosen)
        patch.setattr("evbiodist.imaging.series._BLOCK_BYTES", frames * scan.counts[0].nbytes)
        cut = quantify_series(scan, organs, chosen)
    assert whole.value.tobytes() == cut.value.tobytes()
    assert whole.covariance.tobytes() == cut.covariance.tobytes()


@settings(max_examples=10, deadline=None)
@given(SEEDS, SETTINGS, st.floats(0.01, 100.0))
def test_a_scale_of_the_signal_scales_series_and_errors(seed, chosen, factor):
    scan, organs = series(seed)
    a, b = quantify_series(scan, organs, chosen), quantify_series(replace(scan, scale=factor), organs, chosen)
    np.testing.assert_allclose(a.value * factor, b.value, rtol=1e-7, atol=1e-7 * factor * np.abs(a.value).max())
    np.testing.assert_allclose(a.se * factor, b.se, rtol=1e-7)
    np.testing.assert_allclose(a.chi2_red, b.chi2_red, rtol=1e-6)


# ---------------------------------------------------------------- coverage


def report(errors, inside):
    """95 % intervals hold the truth in 90 to 98 of 100 cases; no organ is biased by more than chance."""
    errors, inside = np.concatenate(errors), np.concatenate(inside)
    bias = errors.mean(axis=0)
    print(f"bias {np.round(bias, 3)} standard errors, {100 * inside.mean():.1f} % of {inside.size} intervals")
    assert np.abs(bias).max() < 4 / np.sqrt(len(errors))
    assert 0.90 <= inside.mean() <= 0.98


def test_coverage_of_blurred_volumes_whose_noise_nobody_knows():
    errors, inside = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        organs, truth = volume(seed, 3)
        light = np.tensordot(truth, psf_footprints(organs, SIGMA[3]), 1) + 40.0
        pixels = light + rng.normal(0, np.sqrt(rng.uniform(0.5, 3) * light + rng.uniform(0, 400)))
        scan = Scan("pet", None, pixels, "ZYX", (1.0, 1.0), unit=ACTIVITY, slice_mm=1.0)
        width = ImagingSettings(footprint="psf", psf_fwhm_mm=1.3 * 2.3548, psf_fwhm_z_mm=0.9 * 2.3548)
        scan = replace(scan, pixel_size_mm=(1.0, 1.3 / 1.6))
        found = quantify(scan, organs, width)
        z = (found.value / (1.3 / 1.6 / 1000) - truth) / (found.se / (1.3 / 1.6 / 1000))
        errors.append(z[None])
        inside.append(np.abs(z[None]) <= 1.96)
    report(errors, inside)


@pytest.mark.parametrize("chosen", [ImagingSettings(footprint="psf", psf_fwhm_px=2.6)], ids=["psf"])
def test_coverage_of_series(chosen):
    errors, inside = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        organs, amounts = volume(seed, 2)
        truth = amounts * np.exp(-np.outer(np.arange(8), rng.uniform(0, 0.5, 3)))
        light = np.tensordot(truth, psf_footprints(organs, 2.6 / 2.3548), 1) + 5.0
        counts = np.rint(rng.poisson(light * 1.5) / 1.5 + rng.normal(0, 2, light.shape) + 100)
        camera = Camera(gain_e=1.5, read_noise_e=3.0, bias=100.0)
        scan = Scan("film", None, counts.astype(np.uint16), "TYX", offset=100.0, camera=camera)
        found = quantify_series(scan, organs, chosen)
        z = (found.value - truth) / found.se
        errors.append(z)
        inside.append(np.abs(z) <= 1.96)
    report(errors, inside)
