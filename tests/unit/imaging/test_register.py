"""Motion and atlas registration against scenes drawn where they belong, and what is not to be believed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.register import Motion, Registered, register_series
from evbiodist.imaging.register_atlas import register_atlas
from evbiodist.io.scan import Scan
from evbiodist.study.flags import FLAGS

N = 96


def turn(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def places(shift=(0, 0), degrees=0.0, spacing=(1.0, 1.0), n=N):
    """Where each pixel of a moved frame shows the resting scene: mm from the middle, shape (2, n, n); shift in px."""
    at = np.moveaxis(np.indices((n, n)) - (n - 1) / 2.0, 0, -1) - shift
    return np.moveaxis((at * spacing) @ turn(degrees), -1, 0)


def mouse(rng, body=20.0):
    """A random mouse as a function of places in mm: a soft-edged body with five organs."""
    spots = [(rng.uniform(-22, 22), rng.uniform(-9, 9), rng.uniform(20, 150), rng.uniform(2, 5)) for _ in range(5)]

    def scene(at):
        y, x = at
        edge = (np.hypot(y / 34, x / 16) - 1) * 16
        return body / (1 + np.exp(edge)) + sum(
            a * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * s**2)) for cy, cx, a, s in spots
        )

    return scene


def moved_pair(rng, counts=1.0, spacing=(1.0, 1.0)):
    """Two frames of a random mouse with Poisson noise, the second moved and of another brightness, and the motion."""
    scene = mouse(rng)
    shift, degrees = rng.uniform(-6, 6, 2), rng.uniform(-10, 10)
    clean = np.stack([scene(places(spacing=spacing)), scene(places(shift, degrees, spacing)) * rng.uniform(0.3, 1.5)])
    size = None if spacing == (1.0, 1.0) else spacing
    return Scan("series", None, rng.poisson(clean * counts).astype(float), "TYX", pixel_size_mm=size), shift, degrees


def errors(found, shift, degrees):
    motion = found.motions[1]
    error = np.append(np.array(motion.shift_px) - shift, motion.rotation_deg - degrees)
    return error, error / np.append(motion.shift_se_px, motion.rotation_se_deg)


def bolus(rng):
    """A dim body in which the hot spot has moved from the tail to the liver, while the animal moved a little."""
    shift, degrees = rng.uniform(-5, 5, 2), rng.uniform(-8, 8)
    frames = []
    for at, (cy, cx) in ((places(), (22, 0)), (places(shift, degrees), (-15, rng.uniform(-5, 5)))):
        body = 20 / (1 + np.exp((np.hypot(at[0] / 34, at[1] / 16) - 1) * 16))
        frames.append(rng.poisson(body + 2 + 300 * np.exp(-((at[0] - cy) ** 2 + (at[1] - cx) ** 2) / 32)))
    return Scan("bolus", None, np.array(frames, float), "TYX"), shift, degrees


# ---- series


def test_motion_is_recovered_with_its_error():
    """12 random mice and motions: no bias, a tenth of a pixel, and intervals that hold."""
    found = [
        errors(register_series(scan), *truth)
        for scan, *truth in (moved_pair(np.random.default_rng(s)) for s in range(12))
    ]
    error, z = (np.array(v) for v in zip(*found, strict=True))
    rms = np.sqrt(np.mean(error**2, axis=0))
    assert (rms < [0.1, 0.1, 0.25]).all()
    assert (np.abs(error.mean(axis=0)) < 4 * rms / np.sqrt(12)).all()
    assert (np.abs(np.sqrt(np.mean(z**2, axis=0)) - 1) < 0.5).all()
    assert np.mean(np.abs(z) < 1.96) > 0.85


def test_rotation_is_in_millimetres_where_pixels_are_not_square():
    for seed in range(4):
        scan, *truth = moved_pair(np.random.default_rng(seed), 5.0, spacing=(0.8, 1.1))
        error, _ = errors(register_series(scan), *truth)
        assert np.abs(error).max() < 0.2


def test_outlines_are_matched_where_the_signal_travels():
    error = np.array(
        [errors(register_series(s, "body"), *t)[0] for s, *t in (bolus(np.random.default_rng(i)) for i in range(8))]
    )
    assert (np.sqrt(np.mean(error**2, axis=0)) < [0.6, 0.4, 0.8]).all()


def test_outlines_may_be_given():
    """Label images of another tool: the signal is not looked at."""
    bodies = [np.hypot(*(places(*m) / np.array([34, 16])[:, None, None])) < 1 for m in (((0, 0), 0), ((3.3, -4.6), 7))]
    scan = Scan("dark", None, np.zeros((2, N, N)), "TYX")
    as_map = OrganMap(bodies[1].astype(np.int32), {1: "body"}, "label image")
    error, _ = errors(register_series(scan, "body", bodies=[bodies[0], as_map]), (3.3, -4.6), 7)
    assert np.abs(error).max() < 0.15


def test_shift_only_when_asked():
    scan, *_ = moved_pair(np.random.default_rng(0))
    motion = register_series(scan, rotate=False).motions[1]
    assert (motion.rotation_deg, motion.rotation_se_deg) == (0, 0)


def test_volumes_are_shifted_along_three_axes():
    rng = np.random.default_rng(4)
    shift = np.array([1.6, -2.3, 3.2])
    spots = rng.uniform(-8, 8, (6, 3))
    frames = []
    for t in (0, shift):
        at = np.moveaxis(np.indices((24, 40, 36)), 0, -1) - (np.array([24, 40, 36]) - 1) / 2 - t
        body = 30 * (np.sum((at / [8, 15, 11]) ** 2, axis=-1) < 1)
        hot = sum(60 * np.exp(-np.sum((at - s) ** 2, axis=-1) / 12) for s in spots)
        frames.append(rng.poisson(ndimage.gaussian_filter(body.astype(float), 1) + hot))
    found = register_series(Scan("pet", None, np.array(frames, float), "TZYX", pixel_size_mm=(1, 1), slice_mm=2.0))
    assert found.motions[1].shift_px == pytest.approx(shift, abs=0.2)
    assert max(found.motions[1].shift_se_px) < 0.2


@pytest.mark.parametrize("by", ["intensity", "body"])
def test_noise_is_not_registered_and_nothing_moves(by):
    organs = OrganMap(np.pad(np.ones((20, 20), np.int32), 38), {1: "liver"}, "label image")
    for seed in range(3):
        noise = np.random.default_rng(seed).poisson(5, (2, N, N)).astype(float)
        found = register_series(Scan("noise", None, noise, "TYX"), by)
        assert found.flags(1) == ("not_registered",)
        assert found.flags(0) == ()
        assert "frames not registered: 1" in found.notes[-1]
        assert found.notes[0] == "noise does not say its pixel size; pixels were taken as square"
        still = found.apply(organs, 1)
        np.testing.assert_array_equal(still.labels, organs.labels)
        assert "frame 1 of noise could not be registered" in still.notes[-1]
    assert "not_registered" in FLAGS


def test_frames_with_nothing_in_common_are_not_laid_over_each_other():
    """Six hot spots here, six others there: shifting some onto some others gives a correlation of its own."""
    for seed in range(4):
        rng, (y, x) = np.random.default_rng(seed), places()
        frames = [
            sum(100 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18) for a, b in rng.uniform(-35, 35, (6, 2)))
            for _ in "ab"
        ]
        found = register_series(Scan("a", None, rng.poisson(np.array(frames) + 3).astype(float), "TYX"))
        assert found.flags(1) == ("not_registered",)


def test_a_frame_is_reached_by_way_of_another():
    """The third frame is turned further than a match is looked for, but not against the second."""
    rng = np.random.default_rng(2)
    scene = mouse(rng)
    moves = [((0, 0), 0), ((2, -1), 12), ((4, -3), 24)]
    frames = rng.poisson([scene(places(*m)) for m in moves]).astype(float)
    found = register_series(Scan("a", None, frames, "TYX"))
    assert [m.matched_to for m in found.motions] == [0, 0, 1]
    for motion, (shift, degrees) in zip(found.motions, moves, strict=True):
        assert motion.shift_px == pytest.approx(shift, abs=0.3)
        assert motion.rotation_deg == pytest.approx(degrees, abs=0.6)
    assert found.motions[2].rotation_se_deg > found.motions[1].rotation_se_deg


def test_hot_pixels_and_gaps_do_not_hold_the_frame_still():
    """A fixed pattern lies still while the animal moves; it should not vote."""
    scan, *truth = moved_pair(np.random.default_rng(1))
    counts = scan.counts.copy()
    at = np.random.default_rng(0).integers(0, N, (2, 40))
    counts[:, at[0], at[1]] = 5000
    counts[:, 10:13, :] = np.nan
    dead = np.zeros((N, N), bool)
    dead[:, 70] = True
    counts[:, dead] = 0
    error, _ = errors(register_series(replace(scan, counts=counts, bad=dead)), *truth)
    assert np.abs(error).max() < 0.3


def test_flat_field_is_taken_out_first():
    """A bright corner in the counts that the scale corrects: with it in, the frames would be pinned."""
    scan, *truth = moved_pair(np.random.default_rng(3), 5.0)
    field = 1 + 4 * np.exp(-(np.indices((N, N)) ** 2).sum(axis=0) / 800)
    error, _ = errors(
        register_series(replace(scan, counts=scan.counts * field + 7, offset=7.0, scale=1 / field)), *truth
    )
    assert np.abs(error).max() < 0.3


def test_a_lazy_series_is_read_frame_by_frame():
    scan, *_ = moved_pair(np.random.default_rng(6))

    class Disk:
        """Counts on disk that refuse to be read whole."""

        shape, dtype, ndim = scan.counts.shape, scan.counts.dtype, 3

        def __getitem__(self, index):
            assert isinstance(index, tuple)
            assert len(index) == 1
            return scan.counts[index]

    assert register_series(replace(scan, counts=Disk())).motions == register_series(scan).motions


def test_bytes_repeat():
    scan, *_ = moved_pair(np.random.default_rng(5))
    assert register_series(scan).motions == register_series(scan).motions


# ---- organs on frames


@pytest.fixture
def known():
    scene = mouse(np.random.default_rng(8))
    shift, degrees = (4.0, -3.0), 8.0
    frames = np.stack([scene(places()), scene(places(shift, degrees))])
    scan = Scan("a", None, frames, "TYX")
    motion = Motion(shift, degrees, (0.3, 0.3), 0.5, matched_to=0)
    still = Motion((0.0, 0.0), shift_se_px=(0.0, 0.0), matched_to=0)
    return Registered(scan, 0, (still, motion)), (shift, degrees)


def liver(at):
    return ((at[0] + 12) ** 2 + (at[1] - 4) ** 2 < 49).astype(np.int32)


def test_organs_move_and_pixels_do_not(known):
    found, motion = known
    organs = OrganMap(
        liver(places()), {1: "liver"}, "label image", outline_px=0.4, fractions=liver(places())[None] * 0.5
    )
    moved = found.apply(organs, 1)
    truth = liver(places(*motion))
    assert np.argwhere(moved.labels).mean(axis=0) == pytest.approx(np.argwhere(truth).mean(axis=0), abs=0.1)
    assert moved.labels.sum() == pytest.approx(truth.sum(), rel=0.04)
    # the liver lies 12.6 px from the middle: 0.5 degrees are 0.11 px there, half of it along each axis
    arm = np.sqrt(np.mean(np.sum((np.argwhere(organs.labels) - (N - 1) / 2) ** 2, axis=1)))
    assert moved.outline_px == pytest.approx(np.sqrt(0.4**2 + 0.3**2 + (np.deg2rad(0.5) * arm) ** 2 / 2))
    assert moved.fractions.sum() == pytest.approx(organs.fractions.sum(), rel=0.01)
    assert found.apply(organs, 0) is organs


def test_resampled_frames_lie_on_the_reference(known):
    found, _ = known
    still, seen = found.resampled(0), found.resampled(1)
    inside = np.isfinite(seen)
    assert 0.8 < inside.mean() < 1
    np.testing.assert_array_equal(still, found.scan.counts[0])
    assert np.abs(seen - still)[inside].max() < 0.03 * still.max()


def test_organs_that_leave_the_frame(known):
    found, _ = known
    labels = np.zeros((N, N), np.int32)
    labels[30:50, 2:12] = 1
    organs = OrganMap(labels, {1: "paw"}, "label image")
    far = replace(found, motions=(found.motions[0], replace(found.motions[1], shift_px=(0.0, -20.0), rotation_deg=0.0)))
    with pytest.raises(ValueError, match="paw left frame 1 of a with the animal; leave the frame out"):
        far.apply(organs, 1)
    near = replace(found, motions=(found.motions[0], replace(found.motions[1], shift_px=(0.0, -6.0), rotation_deg=0.0)))
    assert "part of paw lies outside frame 1" in near.apply(organs, 1).notes
    with pytest.raises(ValueError, match="put the organs on the scan's grid"):
        found.apply(OrganMap(np.ones((3, 3), np.int32), {1: "paw"}, "label image"), 1)


def test_series_that_cannot_be_registered():
    scan, *_ = moved_pair(np.random.default_rng(0))
    with pytest.raises(ValueError, match="holds one frame"):
        register_series(Scan("a", None, np.ones((5, 5)), "YX"))
    with pytest.raises(ValueError, match="no frame 7 in series; it holds frames 0 to 1"):
        register_series(scan, reference=7)
    with pytest.raises(ValueError, match="not by 'luck'"):
        register_series(scan, "luck")
    with pytest.raises(ValueError, match="use by='body'"):
        register_series(scan, bodies=[np.ones((N, N))] * 2)
    with pytest.raises(ValueError, match="1 outlines were given for 2 frames"):
        register_series(scan, "body", bodies=[np.ones((N, N))])
    with pytest.raises(ValueError, match="outline 0 has shape"):
        register_series(scan, "body", bodies=[np.ones((4, 4))] * 2)
    blank = register_series(Scan("blank", None, np.zeros((2, 40, 40)), "TYX"))
    assert blank.flags(1) == ("not_registered",)
    tiny = np.random.default_rng(0).poisson(9, (2, 3, 40)).astype(float)
    assert register_series(Scan("tiny", None, tiny, "TYX")).flags(1) == ("not_registered",)
    corner = np.zeros((2, 40, 40))
    corner[:, 0, 0] = 1
    assert register_series(Scan("corner", None, corner, "TYX")).motions[1].shift_px == (0, 0)
    empty = register_series(Scan("nan", None, np.full((2, 40, 40), np.nan), "TYX"))
    assert empty.flags(1) == ("not_registered",)


# ---- atlas

ORGANS = {
    "lung": ((-15, 0), (5, 9)),
    "liver": ((-4, 2), (7, 10)),
    "kidney": ((8, -6), (5, 3)),
    "bladder": ((22, 0), (4, 4)),
}
SIZE_MM = (0.9, 0.8)
SHAPE = (96, 72)


def anatomy(at):
    """Label image of a body (1) and its organs (2 ...) at places in mm."""
    labels = (np.hypot(at[0] / 32, at[1] / 16) < 1).astype(np.int32)
    for number, ((cy, cx), (ry, rx)) in enumerate(ORGANS.values(), 2):
        labels[np.hypot((at[0] - cy) / ry, (at[1] - cx) / rx) < 1] = number
    return labels


def atlas_case(rng, elastic_mm):
    """An atlas and a scan of another contrast, warped by a random affine and a smooth random field."""
    at = (np.indices(SHAPE) - (np.array(SHAPE).reshape(2, 1, 1) - 1) / 2) * np.reshape(SIZE_MM, (2, 1, 1))
    matrix = turn(rng.uniform(-6, 6)) @ (np.eye(2) + rng.uniform(-0.08, 0.08, (2, 2)))
    warped = np.tensordot(matrix, at, 1) + rng.uniform(-3, 3, (2, 1, 1))
    for axis in warped:
        field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 7, mode="wrap")
        axis += elastic_mm * field / field.std()
    scans = []
    for name, labels, values in (
        ("atlas", anatomy(at), [0, 1, 2, 4, 3, 6]),
        ("scan", anatomy(warped), [0, 2, 1, 5, 8, 4]),
    ):
        image = ndimage.gaussian_filter(np.array(values, float)[labels], 0.8)
        scans.append(Scan(name, None, image + rng.normal(0, 0.1, SHAPE), "YX", pixel_size_mm=SIZE_MM))
    names = dict(enumerate(ORGANS, 2))
    organs = OrganMap(np.where(anatomy(at) > 1, anatomy(at), 0).astype(np.int32), names, "atlas")
    truth = OrganMap(np.where(anatomy(warped) > 1, anatomy(warped), 0).astype(np.int32), names, "truth")
    return scans[1], scans[0], organs, truth


def compared(found, truth):
    """Dice, and distance of the centroids in mm, of every organ."""
    out = []
    for organ in ORGANS:
        a, b = found.mask(organ), truth.mask(organ)
        apart = (np.argwhere(a).mean(axis=0) - np.argwhere(b).mean(axis=0)) * SIZE_MM
        out.append((2 * np.sum(a & b) / (a.sum() + b.sum()), np.hypot(*apart)))
    return np.array(out).T


@pytest.mark.parametrize(
    ("elastic_mm", "elastic", "dice", "apart_mm"), [(0.0, False, 0.93, 0.3), (1.0, True, 0.83, 0.8)]
)
def test_atlas_organs_land_where_they_are(elastic_mm, elastic, dice, apart_mm):
    """Three random warps each, of 1 mm (a pixel) beside the affine part, and contrasts with nothing in common."""
    found, before = [], []
    for seed in range(3):
        scan, template, organs, truth = atlas_case(np.random.default_rng(seed), elastic_mm)
        result = register_atlas(scan, template, organs, elastic=elastic)
        found.append(compared(result, truth))
        before.append(compared(organs, truth))
        assert set(result.confidence) == set(ORGANS)
        assert 1 <= result.outline_px < 3
    overlap, apart = np.mean(found, axis=(0, 2))
    assert overlap > dice
    assert apart < apart_mm
    assert overlap > np.mean(before, axis=(0, 2))[0] + 0.1


def test_body_outline_is_enough_for_the_affine_part():
    overlap = []
    for seed in range(4):
        scan, template, organs, truth = atlas_case(np.random.default_rng(seed), 0.0)
        overlap.append(
            compared(register_atlas(scan, template, organs, metric="outline", elastic=False), truth)[0].mean()
        )
    assert min(overlap) > 0.7
    assert np.mean(overlap) > 0.75


def test_atlas_bytes_repeat_and_the_way_is_told():
    scan, template, organs, _ = atlas_case(np.random.default_rng(0), 1.0)
    a, b = (register_atlas(scan, template, organs) for _ in "ab")
    assert a.labels.tobytes() == b.labels.tobytes()
    assert (a.confidence, a.outline_px) == (b.confidence, b.outline_px)
    assert "affine and B-spline registration of atlas by mutual information, final metric" in a.notes[-1]
    assert a.origin == "atlas registration"


def test_confidence_falls_where_the_scan_does_not_show_the_animal():
    scan, template, organs, _ = atlas_case(np.random.default_rng(1), 0.0)
    good = register_atlas(scan, template, organs, elastic=False)
    noise = replace(scan, counts=np.random.default_rng(0).normal(1, 0.1, SHAPE))
    try:
        bad = np.mean(list(register_atlas(noise, template, organs, elastic=False).confidence.values()))
    except ValueError:
        bad = 0.0  # refused in words is as good
    assert bad < 0.6 < np.mean(list(good.confidence.values()))


def test_atlas_of_a_volume_with_thick_slices():
    """Shift and stretch of a volume, 1.5 mm slices on 1 mm pixels, brought back by the affine part."""
    shape, spacing = np.array((18, 40, 28)), np.array((1.5, 1.0, 1.0))
    at = (np.indices(shape) - (shape.reshape(3, 1, 1, 1) - 1) / 2) * spacing.reshape(3, 1, 1, 1)
    there = at * np.reshape((1.08, 0.94, 1.05), (3, 1, 1, 1)) - np.reshape((1.0, 2.0, -1.5), (3, 1, 1, 1))

    def scene(p):
        body = np.sqrt(np.sum((p / np.reshape((9, 15, 9), (3, 1, 1, 1))) ** 2, axis=0)) < 1
        inner = np.sum((p - np.reshape((1, -4, 1), (3, 1, 1, 1))) ** 2, axis=0) < 25
        other = np.sum((p - np.reshape((-2, 7, 0), (3, 1, 1, 1))) ** 2, axis=0) < 9
        return body.astype(int) + inner + 2 * other

    rng = np.random.default_rng(0)
    atlas, truth = scene(at), scene(there)
    make = {"axes": "ZYX", "pixel_size_mm": (1.0, 1.0), "slice_mm": 1.5}
    template = Scan("atlas", None, ndimage.gaussian_filter(atlas * 3.0, 0.7) + rng.normal(0, 0.1, shape), **make)
    scan = Scan(
        "pet", None, ndimage.gaussian_filter(np.array([0, 5.0, 2, 9])[truth], 0.7) + rng.normal(0, 0.1, shape), **make
    )
    organs = OrganMap(np.where(atlas > 1, atlas, 0).astype(np.int32), {2: "liver", 3: "kidney"}, "atlas")
    found = register_atlas(scan, template, organs, elastic=False)
    for value, organ in organs.names.items():
        mask, real = found.mask(organ), truth == value
        assert 2 * np.sum(mask & real) / (mask.sum() + real.sum()) > 0.85


def test_atlases_that_do_not_fit_are_refused():
    scan, template, organs, _ = atlas_case(np.random.default_rng(0), 0.0)
    with pytest.raises(
        ValueError, match="scan does not say its pixel size, so an atlas cannot be brought to scale; give pixel_size_mm"
    ):
        register_atlas(replace(scan, pixel_size_mm=None), template, organs)
    volume = Scan("pet", None, np.ones((3, 4, 4)), "ZYX", pixel_size_mm=(1, 1))
    with pytest.raises(ValueError, match=r"pet does not say its distance of slices.* give slice_mm"):
        register_atlas(volume, template, organs)
    with pytest.raises(ValueError, match="pet has 3 axes in space, atlas has 2"):
        register_atlas(replace(volume, slice_mm=1.0), template, organs)
    with pytest.raises(ValueError, match="give the atlas' labels on the atlas' grid"):
        register_atlas(scan, template, organs.resized((48, 36)))
    with pytest.raises(ValueError, match="not by 'eye'"):
        register_atlas(scan, template, organs, metric="eye")
    with pytest.raises(ValueError, match="nothing stands out in scan"):
        register_atlas(replace(scan, counts=np.ones(SHAPE)), template, organs)
