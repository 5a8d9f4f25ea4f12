"""A volume measured in pieces: the numbers of the whole, however it is cut, in little memory."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.footprints import near
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pieces import Sums, VolumeOrgans, added, shares, survey, tiles
from evbiodist.imaging.quantify import quantify
from evbiodist.imaging.volume import quantify_volume
from evbiodist.io.scan import Camera, Scan
from evbiodist.study.model import ImagingSettings, StandardSettings

NAMES = {1: "liver", 2: "spleen", 9: "kidney", 12: "kidney", 5: "brain"}
BLURRED = {"footprint": "psf", "psf_fwhm_px": 2.5}


def drawn(shape=(30, 40, 44)):
    labels = np.zeros(shape, np.uint16)
    labels[5:14, 6:18, 7:20] = 1
    labels[5:14, 18:24, 7:20] = 2  # touches the liver
    labels[18:24, 8:14, 30:36] = 9
    labels[18:24, 26:32, 30:36] = 12
    return labels


def camera_volume(seed=1, blur=0.0, dtype=np.uint16):
    random, labels = np.random.default_rng(seed), drawn()
    light = 40.0 + sum(level * (labels == value) for value, level in ((1, 300.0), (2, 80.0), (9, 150.0), (12, 170.0)))
    light = ndimage.gaussian_filter(light, blur / 2.3548) if blur else light
    counts = random.poisson(light * 2.0) / 2.0 + random.normal(100, 3, labels.shape)
    counts = np.round(counts) if np.dtype(dtype).kind == "u" else counts
    camera = Camera(gain_e=2.0, read_noise_e=6.0, bias=100.0)
    scan = Scan("a", None, counts.astype(dtype), "ZYX", (0.01, 0.01), camera=camera, offset=100.0, exposure_s=2.0,
                slice_mm=0.02, systematic_rel=0.05)  # fmt: skip
    return scan, labels


def pet_volume(seed=1):
    random, labels = np.random.default_rng(seed), drawn()
    activity = 50.0 + 900.0 * (labels == 1) + 300.0 * (labels == 2) + 600.0 * (labels > 2)
    noise = ndimage.gaussian_filter(random.normal(0, 1, labels.shape), 1.0)
    activity = activity + noise / noise.std() * np.sqrt(activity)
    return Scan("a", None, activity.astype(np.float32), "ZYX", (0.5, 0.5), "Bq/mL", slice_mm=0.8), labels


def both(scan, labels, **settings):
    given = ImagingSettings(**settings)
    whole = quantify(scan, OrganMap(labels.astype(np.int32), NAMES, "label image"), given)
    return whole, quantify_volume(scan, VolumeOrgans(labels, NAMES, scan.frame_shape), given).signals


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_plain_sums_are_those_of_the_whole_volume(dtype):
    whole, found = both(*camera_volume(dtype=dtype))
    assert found.organs == whole.organs == ("liver", "spleen", "kidney")
    assert found.unit == whole.unit
    np.testing.assert_allclose(found.value, whole.value, rtol=1e-11)
    np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-9, atol=1e-9 * whole.covariance.max())
    np.testing.assert_allclose(found.se_systematic, whole.se_systematic, rtol=1e-11)
    np.testing.assert_allclose(found.fit.chi2_red, whole.fit.chi2_red, rtol=1e-9)
    np.testing.assert_allclose([found.fit.background, found.fit.background_se],
                               [whole.fit.background, whole.fit.background_se], rtol=1e-9)  # fmt: skip
    assert found.flags == whole.flags
    assert found.area_px.tolist() == whole.area_px.tolist()
    np.testing.assert_allclose(found.volume_ml, whole.volume_ml)


def test_activity_without_a_camera_has_the_same_sums_and_like_errors():
    whole, found = both(*pet_volume())
    assert found.unit == whole.unit == "bq"
    np.testing.assert_allclose(found.value, whole.value, rtol=1e-5)  # stored as float32
    np.testing.assert_allclose(found.se, whole.se, rtol=0.15)  # noise is judged on some slices here, on all there
    assert found.flags == whole.flags


def test_blurred_outlines_without_noise_give_the_truth_and_the_answer_of_the_whole():
    labels = drawn()
    true = {"liver": 3.0, "spleen": 1.0, "kidney": 2.0}
    light = np.zeros(labels.shape)
    for value, name in NAMES.items():
        light += true.get(name, 0.0) * ndimage.gaussian_filter(
            (labels == value).astype(float), 2.5 / np.sqrt(8 * np.log(2)), mode="constant", truncate=6
        )
    scan = Scan("a", None, 100.0 + 10.0 + 100.0 * light, "ZYX", camera=Camera(1.0, 3.0, 100.0), offset=100.0)
    whole, found = both(scan, labels, **BLURRED)
    expected = [
        100.0 * true[name] * float(np.isin(labels, [v for v in NAMES if NAMES[v] == name]).sum())
        for name in found.organs
    ]
    np.testing.assert_allclose(found.value, expected, rtol=1e-9)
    np.testing.assert_allclose(found.value, whole.value, rtol=1e-9)
    np.testing.assert_allclose(found.fit.background, 10.0, rtol=1e-9)


def test_blurred_outlines_with_noise_agree_within_a_small_part_of_the_error():
    for seed in range(3):
        whole, found = both(*camera_volume(seed, blur=2.5), **BLURRED)
        assert np.all(np.abs(found.value - whole.value) < 0.1 * whole.se)
        np.testing.assert_allclose(found.se, whole.se, rtol=0.02)
        np.testing.assert_allclose(found.fit.correlation, whole.fit.correlation, atol=0.01)
        assert found.flags == whole.flags


@pytest.mark.parametrize("settings", [{}, BLURRED, {"nonnegative": True}])
@pytest.mark.parametrize("kind", ["counts", "activity"])
def test_the_result_does_not_depend_on_how_the_volume_is_cut(monkeypatch, settings, kind):
    scan, labels = camera_volume() if kind == "counts" else pet_volume()
    organs, given = VolumeOrgans(labels, NAMES, scan.frame_shape), ImagingSettings(**settings)
    first = None
    for tile, block, share in (
        (1 << 24, 1 << 21, 1 << 28),
        (5000, 1 << 21, 9000),
        (997, 300, 1),
        (20_000, 1760, 30_000),
    ):
        monkeypatch.setattr("evbiodist.imaging.pieces._BLOCK", block)
        cut = shares(tiles(scan, tile), share)

        def run(plan, _, cut=cut):
            return [survey(scan, organs, plan, part) for part in cut]

        found = quantify_volume(scan, organs, given, run=run)
        if first is None:
            first = found
            continue
        assert len(cut) > 1
        if kind == "counts" and not settings.get("footprint"):
            assert found.signals.value.tolist() == first.signals.value.tolist()
            assert found.signals.covariance.tolist() == first.signals.covariance.tolist()
        np.testing.assert_allclose(found.signals.value, first.signals.value, rtol=1e-12)
        np.testing.assert_allclose(found.signals.covariance, first.signals.covariance, rtol=1e-11, atol=1e-20)
        assert np.array_equal(found.picture, first.picture)
        assert np.array_equal(found.outline, first.outline)


def test_tiles_cover_every_voxel_once_and_keep_to_chunks():
    class Chunked:
        shape, dtype, chunks, ndim = (70, 90, 100), np.dtype(np.uint16), (16, 32, 32), 3

    scan = Scan("a", None, Chunked(), "ZYX")
    seen = np.zeros(Chunked.shape, np.uint8)
    for box in tiles(scan, 100_000):
        seen[box] += 1
        assert all(s.start % c == 0 for s, c in zip(box, Chunked.chunks, strict=True))
        assert seen[box].size <= 100_000
    assert (seen == 1).all()
    for box in tiles(scan, 1000):  # chunks that are too large are cut
        assert np.prod([s.stop - s.start for s in box]) <= 1000


def test_saturated_dead_and_stray_voxels_do_not_count_and_are_told():
    scan, labels = camera_volume(dtype=np.float32)
    counts = scan.counts.copy()
    plain, _ = both(scan, labels)
    counts[8, 10, 10] = np.nan
    counts[20, 10, 32] = 60_000.0
    counts[1, 30:33, 3:6] = 20_000.0  # a scratch outside of organs
    camera = Camera(gain_e=2.0, read_noise_e=6.0, bias=100.0, saturation=50_000.0)
    hurt = Scan("a", None, counts, "ZYX", (0.01, 0.01), camera=camera, offset=100.0, exposure_s=2.0, slice_mm=0.02)
    whole, found = both(hurt, labels)
    np.testing.assert_allclose(found.value, whole.value, rtol=1e-11)
    assert found.flags == whole.flags
    assert "dead" in found.flags[0]
    assert "saturated" in found.flags[2]
    assert "saturated" not in found.flags[0]
    assert np.all(np.abs(found.value - plain.value) < plain.se)


def test_a_coarser_label_image_serves_a_fine_volume():
    scan, _ = camera_volume()
    coarse = np.zeros((15, 20, 22), np.uint8)
    coarse[3:7, 3:9, 4:10] = 1
    fine = np.kron(coarse, np.ones((2, 2, 2), np.uint8))
    expected = quantify(scan, OrganMap(fine.astype(np.int32), {1: "liver"}, "label image"))
    found = quantify_volume(scan, VolumeOrgans(coarse, {1: "liver"}, scan.frame_shape)).signals
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-11)
    assert found.area_px.tolist() == expected.area_px.tolist()


def test_a_dose_standard_in_the_volume_makes_shares_of_the_dose():
    scan, labels = camera_volume()
    names = {**NAMES, 12: "standard"}
    given = ImagingSettings(standard=StandardSettings(organ="standard", pct_of_dose=10.0, pct_of_dose_se=0.2))
    whole = quantify(scan, OrganMap(labels.astype(np.int32), names, "label image"), given)
    found = quantify_volume(scan, VolumeOrgans(labels, names, scan.frame_shape), given).signals
    assert found.unit == "pct_id"
    assert found.organs == whole.organs
    np.testing.assert_allclose(found.value, whole.value, rtol=1e-11)
    np.testing.assert_allclose(found.total_se(), whole.total_se(), rtol=1e-9)


def test_one_volume_of_a_series_is_measured_by_its_number():
    scan, labels = camera_volume()
    twice = np.stack([scan.counts, scan.counts * 2])
    series = Scan("a", None, twice, "TZYX", camera=scan.camera, offset=np.array([100.0, 200.0]).reshape(2, 1, 1, 1))
    organs = VolumeOrgans(labels, NAMES, series.frame_shape)
    one, two = (quantify_volume(series, organs, frame=t).signals for t in (0, 1))
    np.testing.assert_allclose(two.value, 2 * one.value, rtol=1e-11)


def test_sums_cross_to_json_and_back_to_the_last_digit():
    scan, labels = pet_volume()
    organs = VolumeOrgans(labels, NAMES, scan.frame_shape)
    plans = []

    def run(plan, parts):
        plans.append(plan)
        found = [survey(scan, organs, plan, part) for part in parts]
        again = [Sums.of_document(s.document()) for s in found]
        assert added(again).document() == added(found).document()
        return again

    given = ImagingSettings(**BLURRED)
    there = quantify_volume(scan, organs, given, run=run).signals
    here = quantify_volume(scan, organs, given).signals
    assert there.value.tolist() == here.value.tolist()
    assert [plan.noise is None for plan in plans] == [True, False]


def test_memory_does_not_grow_with_the_volume():
    class Made:
        """Voxels that are made when they are asked for, in chunks."""

        dtype, chunks, ndim = np.dtype(np.uint16), (32, 64, 64), 3

        def __init__(self, shape):
            self.shape = shape

        def __getitem__(self, key):
            z, y, x = (np.arange(*k.indices(n)) for k, n in zip(key, self.shape, strict=True))
            return (z[:, None, None] * 7 + y[:, None] * 3 + x).astype(np.uint16) % 50 + 100

    class Organs(Made):
        def __getitem__(self, key):
            z, y, x = (np.arange(*k.indices(n)) for k, n in zip(key, self.shape, strict=True))
            return ((z[:, None, None] // 40 + y[:, None] // 50 + x // 60) % 3).astype(np.uint16)

    peaks = []
    for shape in ((32, 256, 512), (256, 256, 512)):
        scan = Scan("a", None, Made(shape), "ZYX", camera=Camera(1.0, 2.0, 100.0), offset=100.0)
        organs = VolumeOrgans(Organs(shape), {1: "liver", 2: "brain"}, shape)
        boxes = shares(tiles(scan, 1 << 19), 1 << 20)
        tracemalloc.start()
        quantify_volume(scan, organs, run=lambda plan, _, s=scan, o=organs, b=boxes: [survey(s, o, plan, p) for p in b])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks  # eight times the voxels


@pytest.mark.parametrize(("labels", "names", "said"), [
    (np.zeros((30, 40, 44), np.uint8), {1: "liver"}, "marks no organ"),
    (np.full((30, 40, 44), 3, np.uint8), {1: "liver"}, r"pixel values \[3\] of the label image have no organ name"),
    (np.full((30, 40, 44), -1, np.int32), {1: "liver"}, r"pixel values \[-1\]"),
    (np.full((30, 40, 44), 0.5), {1: "liver"}, "holds fractions"),
    (np.ones((40, 44), np.uint8), {1: "liver"}, r"expected \(Z, Y, X\)"),
    (np.ones((30, 40, 44), np.uint8), {}, "names no organ"),
])  # fmt: skip
def test_label_images_that_do_not_serve_are_refused_in_words(labels, names, said):
    scan, _ = camera_volume()
    with pytest.raises(ValueError, match=said):
        quantify_volume(scan, VolumeOrgans(labels, names, scan.frame_shape))


def test_an_organ_without_a_usable_voxel_is_named():
    scan, labels = camera_volume(dtype=np.float32)
    counts = scan.counts.copy()
    counts[labels == 2] = np.nan
    hurt = Scan("a", None, counts, "ZYX", camera=scan.camera, offset=100.0)
    with pytest.raises(ValueError, match="spleen: no voxel can be used"):
        quantify_volume(hurt, VolumeOrgans(labels, NAMES, hurt.frame_shape))


def test_a_scale_from_voxel_to_voxel_is_refused():
    scan, labels = camera_volume()
    flat = Scan("a", None, scan.counts, "ZYX", scale=np.linspace(1, 2, 44))
    with pytest.raises(ValueError, match="scale of a differs from voxel to voxel"):
        quantify_volume(flat, VolumeOrgans(labels, NAMES, flat.frame_shape))


@pytest.mark.parametrize("shape", [(2, 3), (20, 30), (1, 50), (12, 15, 17), (2, 2, 40), (3, 60, 2)])
def test_the_guard_band_is_a_ball_around_organs(shape):
    random = np.random.default_rng(sum(shape))
    for share in (0.0, 0.01, 0.3):
        inside = random.random(shape) < share
        expected = ndimage.distance_transform_edt(~inside) <= 3.5 if inside.any() else inside
        assert np.array_equal(near(inside), expected)
