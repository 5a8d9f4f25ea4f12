"""Kinetic clusters against phantoms whose organs are known, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.clusters import cluster_curves, suggest_number
from evbiodist.io.scan import Scan, Tracer
from evbiodist.io.timing import FrameTiming

DURATION = np.r_[[10] * 6, [30] * 4, [60] * 4, [300] * 5].astype(float)
START = np.r_[0, np.cumsum(DURATION)[:-1]]
TIMING = FrameTiming(tuple(START), tuple(DURATION), "injection")
HALF_LIFE_S = 6586.2
ORGANS = ("blood", "liver", "bladder", "muscle")


def time_curves(rng):
    """Four curves of unlike shape in Bq/mL, shape (4, T)."""
    t = TIMING.mid_s / 60
    blood, liver, bladder, muscle = rng.uniform(0.7, 1.4, 4)
    return np.stack(
        [
            100 * blood * np.exp(-t / 1.5) + 8,
            60 * liver * (1 - np.exp(-t / 4)),
            150 * bladder * (t / t[-1]) ** 2,
            8 * muscle * (1 - np.exp(-t / 2)),
        ]
    )


def pet(rng, counts_per_unit=0.02):
    """A mouse of four organs at random places: blur of 1.2 px, scatter, decay, Poisson counts, smoothing."""
    y, x = np.mgrid[:48, :48]
    truth = np.where(((y - 24) / 20) ** 2 + ((x - 24) / 13) ** 2 < 1, 4, 0)
    for number, (cy, cx, radius) in enumerate([(13, 24, 4), (23, 28, 6), (37, 24, 4)], 1):
        cy, cx = cy + rng.uniform(-1, 1), cx + rng.uniform(-2, 2)
        truth[np.hypot(y - cy, x - cx) < radius * rng.uniform(0.9, 1.2)] = number
    curves = time_curves(rng)
    clean = np.concatenate([np.zeros((1, len(DURATION))), curves])[truth].transpose(2, 0, 1)
    clean = ndimage.gaussian_filter(clean, (0, 1.2, 1.2)) + 1.0
    per_unit = (DURATION * counts_per_unit * 0.5 ** (TIMING.mid_s / HALF_LIFE_S))[:, None, None]
    image = ndimage.gaussian_filter(rng.poisson(clean * per_unit) / per_unit, (0, 0.8, 0.8))
    tracer = Tracer("18F", HALF_LIFE_S, 1e6, 0.0, "injection")
    return Scan("pet", None, image, "TYX", unit="Bq/mL", timing=TIMING, tracer=tracer), truth, curves


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def named_by_a_person(found, curves):
    """Name clusters as somebody would who knows the organs' curves: a rim goes to the organ that it looks like.

    What is nearer to nothing than to any organ (the blurred rim around the body) stays unnamed.
    """
    known = np.concatenate([curves, np.zeros((1, curves.shape[1]))])
    nearest = [int(np.argmin(np.linalg.norm(known - curve, axis=1))) for curve in found.curves]
    return {number: ORGANS[i] for number, i in enumerate(nearest, 1) if i < len(ORGANS)}


@pytest.fixture
def two():
    """Two organs without noise: one falls, one rises."""
    frames = np.zeros((4, 12, 12))
    frames[:, 1:5, 1:11] = np.array([9.0, 3, 1, 1])[:, None, None]
    frames[:, 7:10, 1:11] = np.array([1.0, 4, 8, 9])[:, None, None]
    return Scan("pet", None, frames, "TYX")


def test_organs_are_recovered_from_noisy_phantoms():
    """15 random mice, 6 clusters for 4 organs: mean Dice above 0.85; 0.75 for muscle, which is all rim."""
    overlap = []
    for seed in range(15):
        scan, truth, curves = pet(np.random.default_rng(seed))
        found = cluster_curves(scan, 6, smooth_px=0.7, smallest_island=4)
        organs = found.named(named_by_a_person(found, curves))
        overlap.append([dice(organs.mask(o), truth == i) if o in organs.organs else 0 for i, o in enumerate(ORGANS, 1)])
    assert (np.mean(overlap, axis=0) > [0.85, 0.85, 0.85, 0.75]).all()


def test_equal_weights_find_blood_among_few_clusters():
    """Short early frames carry few counts: with 4 clusters for 4 organs, noise weights spend them elsewhere."""
    found = {"noise": [], "equal": []}
    for seed in range(12):
        scan, truth, _ = pet(np.random.default_rng(seed))
        for weighting, overlap in found.items():
            labels = cluster_curves(scan, 4, weighting=weighting, smooth_px=0.7).labels
            overlap.append(max(dice(labels == i, truth == 1) for i in range(1, 5)))
    assert np.mean(found["equal"]) > 0.8 > 0.6 > np.mean(found["noise"])


def test_curves_spread_and_size_are_those_of_the_voxels(two):
    rng = np.random.default_rng(0)
    noisy = replace(two, counts=two.counts + rng.normal(0, 0.2, two.counts.shape))
    found = cluster_curves(noisy, 2)
    for number in (1, 2):
        voxels = noisy.counts[:, found.labels == number]
        np.testing.assert_allclose(found.curves[number - 1], voxels.mean(axis=1))
        np.testing.assert_allclose(found.spread[number - 1], voxels.std(axis=1, ddof=1))
        assert found.size[number - 1] == voxels.shape[1]
    assert len(found) == 2


def test_calibration_belongs_to_the_curves(two):
    calibrated = replace(two, offset=1.0, scale=np.array([2.0, 2, 2, 4])[:, None, None])
    plain, found = cluster_curves(two, 2), cluster_curves(calibrated, 2, mask=two.counts.sum(axis=0) > 0)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_allclose(found.curves, (plain.curves - 1) * [2, 2, 2, 4])


def test_order_is_by_peak_time_then_size():
    frames = np.zeros((3, 10, 10))
    frames[2, :2], frames[0, 4:5], frames[0, 7:10] = 5, 9, 4
    found = cluster_curves(Scan("pet", None, frames, "TYX"), 3, mask=frames.sum(axis=0) > 0)
    assert np.argmax(found.curves, axis=1).tolist() == [0, 0, 2]
    assert found.size.tolist() == [30, 10, 20]


def test_same_bytes_again_and_another_seed_agrees():
    scan, _, _ = pet(np.random.default_rng(3))
    a, b, c = (cluster_curves(scan, 5, seed=s, smooth_px=0.7) for s in (0, 0, 1))
    assert a.labels.tobytes() == b.labels.tobytes()
    assert a.curves.tobytes() == b.curves.tobytes()
    assert np.mean(a.labels == c.labels) > 0.95


def test_lazy_scans_are_read_frame_by_frame(two):
    class Disk:
        """Counts on disk that refuse to be read whole."""

        shape, dtype, ndim = two.counts.shape, two.counts.dtype, 3

        def __getitem__(self, index):
            assert isinstance(index, tuple)
            assert isinstance(index[0], int)
            return two.counts[index]

    lazy = replace(two, counts=Disk())
    np.testing.assert_array_equal(cluster_curves(lazy, 2).labels, cluster_curves(two, 2).labels)


def test_volumes_are_clustered_as_planes_are(two):
    volume = np.repeat(two.counts[:, None], 3, axis=1)
    found = cluster_curves(Scan("pet", None, volume, "TZYX"), 2)
    np.testing.assert_array_equal(found.labels, np.stack([cluster_curves(two, 2).labels] * 3))


def test_shapes_only_joins_bright_and_dim():
    frames = np.zeros((3, 12, 12))
    for rows, curve in ((slice(0, 4), [10, 5, 1]), (slice(4, 8), [2, 1, 0.2]), (slice(8, 12), [1, 2, 4])):
        frames[:, rows] = np.array(curve)[:, None, None]
    scan, everywhere = Scan("pet", None, frames, "TYX"), np.ones((12, 12), bool)
    by_shape = cluster_curves(scan, 2, everywhere, normalise=True).labels[:, 0]
    assert by_shape.tolist() == [1] * 8 + [2] * 4
    assert cluster_curves(scan, 3, everywhere).size.tolist() == [48, 48, 48]


def test_noise_weights_follow_duration_and_decay():
    """Frames of 1 s and 100 s, of equal activity: Poisson noise is ten times larger in the first."""
    from evbiodist.imaging.clusters import _noise

    scan = Scan("pet", None, np.ones((2, 4, 4)), "TYX", timing=FrameTiming((0, 1), (1, 100)))
    noise, notes = _noise(scan, np.ones(2))
    assert noise[0] / noise[1] == pytest.approx(10)
    assert notes == ()
    decayed = replace(scan, tracer=Tracer("18F", 10.0, decay_corrected_to="scan_start"))
    growth = _noise(decayed, np.ones(2))[0] / noise
    np.testing.assert_allclose(growth, np.sqrt(2 ** (np.array([0.5, 51.0]) / 10)))
    unknown = replace(scan, timing=None)
    assert "durations are not known" in _noise(unknown, np.ones(2))[1][0]
    assert "durations are not known" in " ".join(cluster_curves(unknown, 1, np.ones((4, 4), bool)).notes)


def test_voxels_below_noise_are_left_out_and_that_is_said():
    scan, truth, _ = pet(np.random.default_rng(1))
    noisy = replace(scan, counts=scan.counts + np.random.default_rng(2).normal(0, 1, scan.counts.shape))
    found = cluster_curves(noisy, 3)
    far = ndimage.distance_transform_edt(truth == 0) > 4
    assert np.mean(found.labels[far] > 0) < 0.01
    assert np.mean(found.labels[(truth > 0) & (truth < 4)] > 0) > 0.99
    assert "stand above noise" in found.notes[0]
    assert cluster_curves(noisy, 3, truth > 0).notes == ()


def test_islands_join_their_surroundings(two):
    holes = two.counts.copy()
    holes[:, 2, 5] = [1, 4, 8, 9]
    scan = replace(two, counts=holes)
    assert cluster_curves(scan, 2).labels[2, 5] == 2
    merged = cluster_curves(scan, 2, smallest_island=2)
    assert merged.labels[2, 5] == 1
    assert merged.size.tolist() == [40, 30]
    with pytest.raises(ValueError, match="no cluster has a piece of 1000 voxels; allow smaller islands"):
        cluster_curves(scan, 2, smallest_island=1000)
    gone = cluster_curves(scan, 2, smallest_island=35)
    assert len(gone) == 1
    assert "1 clusters held only small islands" in gone.notes[-1]


def test_names_make_an_organ_map(two):
    found = cluster_curves(two, 2)
    organs = found.named({2: "Livers", 1: "whole blood"})
    assert organs.areas() == {"blood": 40, "liver": 30}
    assert organs.origin == "kinetic clusters"
    assert organs.confidence == pytest.approx({"blood": 1.0, "liver": 1.0})
    assert found.named({1: "liver"}).areas() == {"liver": 40}
    assert found.named({1: "liver", 2: "liver"}).areas() == {"liver": 70}
    with pytest.raises(ValueError, match=r"clusters \[3\] were named; there are 1 to 2"):
        found.named({1: "liver", 3: "blood"})
    with pytest.raises(ValueError, match="without any name"):
        found.named({})


def test_confidence_falls_where_clusters_overlap():
    rng = np.random.default_rng(0)
    clear, blurred = [], []
    for noise, into in ((0.05, clear), (3.0, blurred)):
        frames = np.ones((5, 20, 20)) + np.linspace(0, 2, 5)[:, None, None] * (np.arange(20) >= 10)
        scan = Scan("pet", None, frames + rng.normal(0, noise, frames.shape), "TYX")
        found = cluster_curves(scan, 2, np.ones((20, 20), bool)).named({1: "blood", 2: "liver"})
        into += list(found.confidence.values())
    assert min(clear) > 0.9
    assert max(blurred) < 0.6


def test_advice_finds_the_number_of_well_separated_curves():
    right = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        number = int(rng.integers(2, 5))
        curves = 20 * np.eye(4)[:number] + 5
        frames = np.repeat(curves.T[:, :, None], 30, axis=2) + rng.normal(0, 1, (4, number, 30))
        advice = suggest_number(Scan("pet", None, frames, "TYX"), 6, np.ones((number, 30), bool))
        assert set(advice.silhouette) == {2, 3, 4, 5, 6}
        right += advice.n == number
    assert right == 10


def test_what_cannot_be_clustered_is_said(two):
    frame = Scan("pet", None, two.counts[0], "YX")
    with pytest.raises(ValueError, match="kinetic clusters need a time series"):
        cluster_curves(frame, 2)
    with pytest.raises(ValueError, match="take one band of it"):
        cluster_curves(Scan("pet", None, two.counts[:, None], "TCYX"), 2)
    with pytest.raises(ValueError, match="draw it on the scan's grid"):
        cluster_curves(two, 2, np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="give 1 or more"):
        cluster_curves(two, 0)
    few = np.zeros((12, 12), bool)
    few[1, 1] = True
    with pytest.raises(ValueError, match="1 voxels of pet are to be parted into 2 clusters"):
        cluster_curves(two, 2, few)
    with pytest.raises(ValueError, match="leave no number to choose"):
        suggest_number(two, 5, few)
    with pytest.raises(ValueError, match="there are 2 different curves, 5 clusters were asked for; ask for fewer"):
        cluster_curves(two, 5)
    with pytest.raises(ValueError, match="weighted by 'noise' or 'equal', not by 'counts'"):
        cluster_curves(two, 2, weighting="counts")
    with pytest.raises(ValueError, match="no voxel of pet is a number"):
        cluster_curves(replace(two, counts=np.full(two.counts.shape, np.nan)), 2)


def test_voxels_that_are_not_numbers_are_left_out(two):
    holed = two.counts.copy()
    holed[2, 2, 2] = np.nan
    assert cluster_curves(replace(two, counts=holed), 2).labels[2, 2] == 0
