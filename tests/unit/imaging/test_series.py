"""All frames at once equal frames one by one; what is odd about a frame is treated as in a single one."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import quantify, to_pct_id
from evbiodist.imaging.series import quantify_series
from evbiodist.io.ome_zarr import read_ome_zarr, write_ome_zarr
from evbiodist.io.scan import ACTIVITY, RADIANCE, RADIANT_EFFICIENCY, Camera, Scan
from evbiodist.io.stream import AxesView
from evbiodist.io.timing import FrameTiming
from evbiodist.study.model import ImagingSettings, StandardSettings

GAIN, READ, BIAS = 1.5, 4.0, 100.0
CAMERA = Camera(gain_e=GAIN, read_noise_e=READ, bias=BIAS, saturation=60000.0)
ROI = ImagingSettings()
PSF = ImagingSettings(footprint="psf", psf_fwhm_px=3.0)
NAMES = {1: "liver", 2: "spleen", 3: "standard"}
TIMES = 9


def labels_2d():
    labels = np.zeros((48, 60), np.int32)
    labels[8:24, 6:26], labels[9:19, 27:37], labels[32:42, 40:52] = 1, 2, 3
    return labels


def labels_3d():
    labels = np.zeros((14, 30, 32), np.int32)
    labels[3:9, 4:14, 4:15], labels[4:8, 5:12, 16:22], labels[6:11, 19:26, 18:27] = 1, 2, 3
    return labels


def curves(frames=TIMES):
    t = np.arange(frames)
    return np.column_stack([2e5 * np.exp(-t / 6), 4e4 * (1 - np.exp(-t / 3)) + 500, np.full(frames, 5e4)])


def light(labels, amounts, fwhm=3.0, background=4.0):
    sigma = np.broadcast_to(np.asarray(fwhm), (labels.ndim,)) / 2.3548
    sharp = sum(a * (labels == v) / (labels == v).sum() for v, a in zip(NAMES, amounts, strict=True))
    return ndimage.gaussian_filter(sharp, sigma, mode="constant", truncate=6) + background


def camera_series(seed=0, frames=TIMES, fwhm=3.0):
    rng = np.random.default_rng(seed)
    labels = labels_2d()
    seen = np.stack([light(labels, a, fwhm) for a in curves(frames)])
    counts = rng.poisson(seen * GAIN) / GAIN + rng.normal(0, READ / GAIN, seen.shape) + BIAS
    counts = np.clip(np.rint(counts), 0, 60000).astype(np.uint16)
    scan = Scan("film", None, counts, "TYX", (0.2, 0.2), offset=BIAS, camera=CAMERA)
    return scan, OrganMap(labels, NAMES, "label image")


def pet_series(seed=0, frames=TIMES):
    rng = np.random.default_rng(seed)
    labels = labels_3d()
    seen = np.stack([light(labels, a, (2.0, 3.0, 3.0), 30.0) for a in curves(frames)])
    counts = (seen + rng.normal(0, np.sqrt(0.8 * seen + 20))).astype(np.float32)
    scan = Scan("pet", None, counts, "TZYX", (0.5, 0.5), unit=ACTIVITY, slice_mm=0.8)
    return scan, OrganMap(labels, NAMES, "label image")


def one(scan, t):
    """Frame t as a scan of its own, cut out by hand."""
    whole = scan.counts.shape
    cut = {
        k: v if np.ndim(v) == 0 else np.broadcast_to(v, whole)[t]
        for k in ("offset", "scale")
        for v in [getattr(scan, k)]
    }
    bad = None if scan.bad is None else np.broadcast_to(scan.bad, whole)[t]
    return replace(scan, counts=np.asarray(scan.counts[t]), axes=scan.axes[1:], timing=None, bad=bad, **cut)


def check_equal(series, scan, organs, settings, rtol=1e-9):
    for t in range(len(series)):
        single = quantify(one(scan, t), organs, settings)
        found = series.frame(t)
        size = np.abs(single.value).max()
        np.testing.assert_allclose(found.value, single.value, rtol=rtol, atol=rtol * size)
        np.testing.assert_allclose(
            found.covariance, single.covariance, rtol=10 * rtol, atol=rtol * single.covariance.max()
        )
        np.testing.assert_allclose(found.se_systematic, single.se_systematic, rtol=rtol, atol=rtol * size)
        np.testing.assert_allclose(found.fit.background, single.fit.background, rtol=1e-6, atol=1e-9)
        assert found.flags == single.flags
        assert (found.organs, found.unit) == (single.organs, single.unit)


# ---------------------------------------------------------------- the same as frame by frame


def test_plain_sums_equal_those_of_single_frames():
    scan, organs = camera_series()
    check_equal(quantify_series(scan, organs), scan, organs, ROI, 1e-8)


def test_found_outlines_carry_their_error_in_every_frame():
    scan, organs = camera_series()
    organs = replace(organs, outline_px=1.0)
    series = quantify_series(replace(scan, systematic_rel=0.05), organs)
    assert (series.se_systematic > 0.05 * np.abs(series.value)).all()
    check_equal(series, replace(scan, systematic_rel=0.05), organs, ROI, 1e-8)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_the_type_of_counts_changes_nothing(dtype):
    scan, organs = camera_series()
    typed = replace(scan, counts=scan.counts.astype(dtype))
    a, b = quantify_series(scan, organs), quantify_series(typed, organs)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-7, atol=1e-6)


def test_offsets_and_scales_of_each_frame():
    """Numbers a frame take the quick way; images a frame the general one. Both equal single frames."""
    scan, organs = camera_series()
    exposure = np.linspace(1, 2, TIMES).reshape(-1, 1, 1)
    drift = 5 * np.arange(TIMES).reshape(-1, 1, 1)
    frames = replace(scan, counts=(scan.counts + drift).astype(np.uint16), scale=exposure, offset=BIAS + drift)
    series = quantify_series(frames, organs)
    assert not series.alone
    check_equal(series, frames, organs, ROI, 1e-8)
    flat = 1 + 0.3 * np.linspace(0, 1, 60).reshape(1, 1, -1)
    shaded = replace(frames, scale=exposure * flat, offset=BIAS + drift + 0.1 * flat)
    series = quantify_series(shaded, organs)
    assert not series.alone
    check_equal(series, shaded, organs, ROI, 1e-8)
    assert not quantify_series(replace(frames, offset=BIAS + drift + 15), organs).alone  # an overstated bias


def test_a_scale_that_changes_its_shape_is_met_by_single_fits():
    scan, organs = camera_series()
    shape = 1 + 0.3 * np.linspace(0, 1, 60) * np.linspace(0, 1, TIMES).reshape(-1, 1, 1)
    odd = replace(scan, scale=shape)
    series = quantify_series(odd, organs)
    assert len(series.alone) == TIMES - 1
    check_equal(series, odd, organs, ROI, 1e-8)


def test_blurred_footprints_differ_by_what_the_weights_explain():
    """The own weights are the best ones, so the difference has the variance by which shared ones are worse (Hausman)."""
    scan, organs = camera_series()
    series = quantify_series(scan, organs, PSF)
    for t in range(TIMES):
        single = quantify(one(scan, t), organs, PSF)
        worse = np.sqrt(np.maximum(series.se[t] ** 2 - single.se**2, 0) + (0.02 * single.se) ** 2)
        assert (np.abs(series.value[t] - single.value) < 4 * worse).all()
        assert (series.se[t] < 1.2 * single.se).all()
        assert series.chi2_red[t] == pytest.approx(single.fit.chi2_red, abs=0.05)


def test_volumes_of_activity_are_in_bq():
    scan, organs = pet_series()
    series = quantify_series(scan, organs, ImagingSettings(footprint="psf", psf_fwhm_mm=1.5, psf_fwhm_z_mm=1.6))
    assert series.unit == "bq"
    truth = curves() * 0.5 * 0.5 * 0.8 / 1000
    assert (np.abs(series.value - truth) < 4.5 * series.se).all()
    assert (series.se / truth.max(axis=0) < 0.05).all()
    assert series.area_cm2 is None
    assert series.volume_ml == pytest.approx(np.array([660, 168, 315]) * 0.2 / 1000)
    assert all("noise_from_image" in f for frame in series.flags for f in frame)


def test_a_lazy_scan_gives_the_same_bytes_however_it_is_cut(tmp_path, monkeypatch):
    scan, organs = camera_series()
    lazy = replace(scan, counts=AxesView(scan.counts, (0, 1, 2)))
    whole = quantify_series(scan, organs, PSF)
    for size in (1, 2 * scan.counts[0].nbytes, 1 << 30):
        monkeypatch.setattr("evbiodist.imaging.series._BLOCK_BYTES", size)
        cut = quantify_series(lazy, organs, PSF)
        assert cut.value.tobytes() == whole.value.tobytes()
        assert cut.covariance.tobytes() == whole.covariance.tobytes()
    write_ome_zarr(tmp_path / "a.zarr", replace(scan, offset=0.0, camera=Camera()))
    stored = replace(read_ome_zarr(tmp_path / "a.zarr"), offset=BIAS, camera=CAMERA)
    assert stored.lazy
    assert quantify_series(stored, organs, PSF).value.tobytes() == whole.value.tobytes()


# ---------------------------------------------------------------- odd pixels and frames


def test_saturated_pixels_of_one_frame_are_left_out_of_that_frame():
    scan, organs = camera_series()
    counts = scan.counts.copy()
    counts[4, 12:14, 12:15] = 60000
    hurt = replace(scan, counts=counts)
    for settings, rel in ((PSF, 0.02), (ROI, None)):
        series = quantify_series(hurt, organs, settings)
        assert series.alone == (4,)
        assert [t for t in range(TIMES) if "saturated" in series.flags[t][0]] == [4]
        assert not any("saturated" in f for frame in series.flags for f in frame[1:])
        assert rel is None or series.value[4, 0] == pytest.approx(curves()[4, 0], rel=rel)
    check_equal(series, hurt, organs, ROI, 1e-8)


def test_pixels_bad_in_every_frame_are_left_out_without_single_fits():
    scan, organs = camera_series()
    counts = scan.counts.copy()
    counts[:, 12, 12] = 60000
    dead = np.zeros(scan.plane_shape, bool)
    dead[14, 31] = True
    counts[:, 14, 31] = 0
    hurt = replace(scan, counts=counts, bad=dead)
    series = quantify_series(hurt, organs)
    assert not series.alone
    assert all("saturated" in f[0] and "saturated" not in f[1] and "dead" in f[1] for f in series.flags)
    check_equal(series, hurt, organs, ROI, 1e-8)


def test_a_cosmic_ray_on_an_organ_is_taken_out_and_said():
    scan, organs = camera_series()
    counts = scan.counts.copy()
    counts[6, 37, 46] += 8000
    counts[2, 28, 10] += 8000  # on the background: no word about organs
    hit = replace(scan, counts=counts)
    series, clean = quantify_series(hit, organs, PSF), quantify_series(scan, organs, PSF)
    assert series.alone == (2, 6)
    assert [t for t in range(TIMES) if any("cosmic" in f for f in series.flags[t])] == [6]
    assert "cosmic" in series.flags[6][2]
    assert (np.abs(series.value - clean.value) < clean.se).all()
    kept = quantify_series(hit, organs, PSF.model_copy(update={"cosmic": False}))
    assert not kept.alone
    assert np.abs(kept.value[6, 2] - clean.value[6, 2]) > 5 * clean.se[6, 2]
    check_equal(quantify_series(hit, organs), hit, organs, ROI, 1e-8)


def test_nan_pixels_cost_their_frame_its_shortcut_only():
    scan, organs = pet_series()
    counts = scan.counts.copy()
    counts[3, 5, 6, 6] = np.nan
    counts[:, 0, 0, 0] = np.nan  # in every frame: the general way for all
    series = quantify_series(replace(scan, counts=counts), organs)
    assert series.alone == (3,)
    whole = quantify_series(scan, organs)
    np.testing.assert_allclose(np.delete(series.value, 3, 0), np.delete(whole.value, 3, 0), rtol=1e-3)
    assert np.isfinite(series.value).all()
    assert [t for t in range(TIMES) if "dead" in series.flags[t][0]] == [3]


def test_stray_light_on_the_background_changes_no_plain_sum():
    scan, organs = camera_series()
    counts = scan.counts.copy()
    counts[:, 44:47, 4:9] += 300
    series, clean = quantify_series(replace(scan, counts=counts), organs), quantify_series(scan, organs)
    assert (np.abs(series.value - clean.value) < clean.se).all()


def test_infinite_pixels_and_frames_of_a_few_pixels_raise_nothing():
    scan, organs = camera_series()
    counts = scan.counts.astype(np.float32)
    counts[:, 26, 10] = np.inf  # in the guard band
    counts[3, 12, 12] = -np.inf
    found = quantify_series(replace(scan, counts=counts), organs)
    assert found.alone == (3,)
    assert np.isfinite(found.value).all()
    small = Scan("strip", None, np.arange(24.0).reshape(3, 1, 8), "TYX", camera=CAMERA)
    strip = OrganMap(np.array([[0, 0, 0, 0, 0, 0, 1, 1]]), {1: "gut"}, "label image")
    np.testing.assert_allclose(quantify_series(small, strip).value[:, 0], (6.5 - 1.0) * 2 * np.ones(3))


# ---------------------------------------------------------------- results


def test_residual_background_and_times():
    scan, organs = camera_series()
    scan = replace(scan, timing=FrameTiming(tuple(range(TIMES)), (1,) * TIMES, "injection"))
    series = quantify_series(scan, organs, PSF)
    single = quantify(one(scan, 2), organs, PSF)
    np.testing.assert_allclose(series.residual(scan, 2), single.fit.residual, atol=2.0)
    assert series.timing is scan.timing
    assert len(series) == TIMES
    assert (np.abs(series.background - 4.0) < 4.5 * series.background_se).all()
    assert np.abs(series.chi2_red - 1).max() < 0.2
    assert (series.total_se() >= series.se).all()


def test_misfit_is_seen_in_the_frames_where_it_is():
    scan, organs = camera_series(fwhm=5.5)  # twice as blurred as stated
    series = quantify_series(scan, organs, PSF)
    assert all("misfit" in f for frame in series.flags for f in frame)
    for t in range(TIMES):
        single = quantify(one(scan, t), organs, PSF)
        np.testing.assert_allclose(series.se[t], single.se, rtol=0.25)


def test_percent_of_dose_by_the_standard_of_each_frame():
    scan, organs = camera_series()
    standard = StandardSettings(pct_of_dose=2.0, pct_of_dose_se=0.02)
    series = quantify_series(scan, organs, PSF.model_copy(update={"standard": standard}))
    plain = quantify_series(scan, organs, PSF)
    assert (series.unit, series.organs) == ("pct_id", ("liver", "spleen"))
    for t in (0, 5):
        np.testing.assert_allclose(series.value[t], to_pct_id(plain.frame(t), standard).value)
    truth = 2.0 * curves()[:, :2] / curves()[:, 2:]
    assert (np.abs(series.value - truth) < 4.5 * series.se).all()
    np.testing.assert_allclose(series.residual(scan, 3), plain.residual(scan, 3))


def test_nonnegative_equals_single_frames_where_nothing_is_below_zero_and_clips_elsewhere():
    scan, organs = camera_series()
    counts = scan.counts.astype(np.int32)
    counts[5, 9:19, 27:37] -= 600
    dark = replace(scan, counts=counts, camera=replace(CAMERA, saturation=None))
    free = quantify_series(dark, organs, PSF)
    kept = quantify_series(dark, organs, PSF.model_copy(update={"nonnegative": True}))
    assert free.value[5, 1] < 0
    assert "negative" in free.flags[5][1]
    assert kept.value[5, 1] == 0
    assert (kept.value >= 0).all()
    np.testing.assert_allclose(np.delete(kept.value, 5, 0), np.delete(free.value, 5, 0))


# ---------------------------------------------------------------- refused in words


def test_bands_and_other_axes_are_refused():
    scan, organs = camera_series()
    bands = Scan("film", None, np.stack([scan.counts, scan.counts], 1), "TCYX", (0.2, 0.2))
    with pytest.raises(ValueError, match=r"film has 2 bands \(TCYX\); unmix them, or give one band"):
        quantify_series(bands, organs)
    views = Scan("film", None, np.stack([scan.counts, scan.counts]), "VTYX", (0.2, 0.2))
    with pytest.raises(ValueError, match=r"axes VTYX; expected frames \(T\)"):
        quantify_series(views, organs)


@pytest.mark.parametrize(
    ("unit", "said"),
    [(RADIANCE, "total flux"), (RADIANT_EFFICIENCY, "total radiant efficiency"), (ACTIVITY, "activity")],
)
def test_units_that_need_a_spacing_are_refused_without(unit, said):
    scan, organs = camera_series()
    with pytest.raises(ValueError, match=f"does not say its pixel size, so {said} cannot be computed"):
        quantify_series(replace(scan, pixel_size_mm=None, unit=unit), organs)


def test_a_scan_without_time_is_a_series_of_one():
    scan, organs = camera_series()
    single = quantify_series(one(scan, 3), organs)
    np.testing.assert_allclose(single.value[0], quantify_series(scan, organs).value[3], rtol=1e-9)
