"""Poses against bodies of known centreline, width and heading; the head is either found or called unsure."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pose import BodyPose, find_pose
from evbiodist.imaging.segment import segment_body
from evbiodist.io.registry import read
from evbiodist.io.scan import Scan
from evbiodist.study.flags import FLAGS

# half width of a mouse seen from above, as a share of the widest place, along the line from snout to rump
PLACES = np.array([0, 0.06, 0.14, 0.22, 0.30, 0.42, 0.55, 0.68, 0.80, 0.90, 0.97, 1.0])
WIDTHS = np.array([0.10, 0.32, 0.50, 0.58, 0.60, 0.80, 0.92, 1.0, 0.98, 0.80, 0.45, 0.2])


@dataclass
class Body:
    mask: np.ndarray
    tail: np.ndarray
    line: np.ndarray  # (401, 2), snout to rump
    half: np.ndarray  # (401,)
    bend: float
    mm: float


def body(rng, mm=1.0, legs=True, tail=False, spread=0.08, shape=None, bend=None, turn=None):
    """Draw a mouse of 88 mm bent along an arc, in pixels of `mm`, with four legs and a curved tail."""
    length, widest = 88 * rng.normal(1, spread) / mm, 14 * rng.normal(1, spread) / mm
    bend = np.deg2rad(rng.uniform(-40, 40)) if bend is None else bend
    angle = (rng.uniform(0, 2 * np.pi) if turn is None else turn) + bend * (np.linspace(0, 1, 401) - 0.5)
    steps = np.column_stack([np.sin(angle), np.cos(angle)])[1:] * length / 400
    size = int((260 if tail else 140) / mm)
    line = np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])
    line += size / 2 + rng.uniform(-3, 3, 2) - line.mean(axis=0)
    half = (
        PchipInterpolator(PLACES, WIDTHS * (1 + rng.normal(0, spread if shape is None else shape, WIDTHS.size)))(
            np.linspace(0, 1, 401)
        )
        * widest
    )
    y, x = np.mgrid[:size, :size]
    pixels = np.column_stack([y.ravel(), x.ravel()]).astype(float)
    slope = np.gradient(line, axis=0)
    slope /= np.hypot(*slope.T)[:, None]
    near = cKDTree(line).query(pixels)[1]
    offset = pixels - line[near]
    across = np.abs(offset[:, 0] * slope[near, 1] - offset[:, 1] * slope[near, 0])
    along = np.abs(np.sum(offset * slope[near], axis=1))
    mask = ((across <= half[near]) & (along < 0.6)).reshape(size, size)
    side = np.column_stack([slope[:, 1], -slope[:, 0]])
    for k, hand in ((120, -1), (120, 1), (340, -1), (340, 1)) if legs else ():
        long, thin = rng.uniform(3, 7) / mm, rng.uniform(2, 3) / mm
        centre = line[k] + hand * side[k] * (half[k] + 0.5 * long)
        u = (y - centre[0]) * side[k, 0] + (x - centre[1]) * side[k, 1]
        v = (y - centre[0]) * side[k, 1] - (x - centre[1]) * side[k, 0]
        mask |= (u / long) ** 2 + (v / thin) ** 2 <= 1
    way = angle[-1] + rng.normal(0, 0.2) + np.cumsum(rng.normal(0, 0.012) * np.ones(141))
    path = line[-1] + np.cumsum(np.column_stack([np.sin(way), np.cos(way)]), axis=0) * 70 / 141 / mm
    far = cKDTree(path).query(pixels)[0].reshape(size, size)
    return Body(mask, (far <= 1.5 / mm) & tail, line, half, bend, mm)


def bodies_of(mask):
    return OrganMap(np.asarray(mask, np.int32), {1: "animal_1"}, "drawn bodies")


def right_way(pose, truth):
    return np.hypot(*(pose.centreline_px[0] - truth.line[0])) < np.hypot(*(pose.centreline_px[-1] - truth.line[0]))


def test_random_bodies_are_recovered():
    rng = np.random.default_rng(20)
    rows = []
    for _ in range(30):
        true = body(rng)
        pose = find_pose(bodies_of(true.mask))
        at = np.linspace(0, 400, 101).round().astype(int)
        miss = np.hypot(*(pose.centreline_px - true.line[at]).T) * true.mm
        width = pose.half_width_px.sum(axis=1)[10:91] / (2 * true.half[at][10:91]) - 1
        length = pose.length_px * true.mm / (np.hypot(*np.diff(true.line, axis=0).T).sum() * true.mm) - 1
        rows.append(
            (miss.mean(), length, width.mean(), np.abs(width).mean(), pose.bend - true.bend, right_way(pose, true))
        )
    miss, length, width, width_off, bend, right = np.array(rows, float).T
    assert miss.mean() < 0.5  # mm
    assert miss.max() < 1.5
    assert abs(length.mean()) < 0.02
    assert length.std() < 0.015
    assert abs(width.mean()) < 0.025
    assert width_off.mean() < 0.04
    assert np.sqrt(np.mean(bend**2)) < np.deg2rad(3)
    assert right.all()


def test_confidence_in_the_head_is_honest():
    rng = np.random.default_rng(21)
    sure, right = [], []
    for _ in range(30):
        true = body(rng, mm=1.5, shape=0.2)
        hidden = true.line[int(rng.uniform(0, 120))]  # the snout is in a nose cone
        heading = true.line[0] - true.line[60]
        y, x = np.indices(true.mask.shape)
        mask = true.mask & ((y - hidden[0]) * heading[0] + (x - hidden[1]) * heading[1] < 0)
        pose = find_pose(bodies_of(mask))
        sure.append(pose.head_confidence)
        right.append(right_way(pose, true))
    sure, right = np.array(sure), np.array(right)
    assert sure.min() >= 0.5
    assert right[sure > 0.9].mean() >= 0.9
    assert abs(sure.mean() - right.mean()) < 0.12


@pytest.mark.parametrize("seed", range(4))
def test_a_tail_is_left_out_and_shows_the_rump(seed):
    rng = np.random.default_rng(seed)
    true = body(rng, tail=True)
    pose = find_pose(bodies_of(true.mask | true.tail))
    assert right_way(pose, true)
    assert pose.head_confidence > 0.95
    assert pose.notes == ("a tail was seen in the outline",)
    assert pose.length_px == pytest.approx(np.hypot(*np.diff(true.line, axis=0).T).sum(), rel=0.04)


def symmetric(snout_up=True):
    """Return a body that narrows alike at both ends, with a photograph that shows its tail."""
    y, x = np.mgrid[:220, :120]
    trunk = ((y - 70) / 44.0) ** 2 + ((x - 60) / 14.0) ** 2 <= 1
    photo = np.where(trunk | ((y > 110) & (y < 185) & (abs(x - 60) < 2)), 200.0, 20.0)
    return (trunk, photo) if snout_up else (trunk[::-1], photo[::-1])


def test_ends_alike_are_called_unsure_until_a_photograph_or_a_nose_cone_tells():
    for up in (True, False):
        trunk, photo = symmetric(up)
        bodies = bodies_of(trunk)
        alone = find_pose(bodies)
        assert alone.head_confidence < 0.6
        assert alone.flags == ("uncertain_head",)
        assert "uncertain_head" in FLAGS
        assert "give the side of the nose cones" in alone.notes[-1]
        scan = Scan("stage", None, np.zeros(trunk.shape), "YX", (1.0, 1.0), photograph=photo)
        seen = find_pose(bodies, scan=scan)
        assert seen.head_confidence > 0.95
        assert (seen.centreline_px[0, 0] < seen.centreline_px[-1, 0]) == up
        told = find_pose(bodies, nose_cone="top" if up else "bottom")
        assert told.head_confidence > 0.95
        assert (told.centreline_px[0, 0] < told.centreline_px[-1, 0]) == up


@pytest.mark.parametrize(
    ("turn", "left"), [(np.pi / 2, (0, -1)), (-np.pi / 2, (0, 1)), (np.pi, (-1, 0)), (0.0, (1, 0))]
)
def test_left_is_left_of_the_heading(turn, left):
    # the angle is that of the way from snout to rump: pi / 2 runs down the image, so the animal heads up
    true = body(np.random.default_rng(3), legs=False, spread=0.0, bend=0.0, turn=turn)
    pose = find_pose(bodies_of(true.mask))
    middle = pose.centreline_px[50].round().astype(int)
    _, u = pose.coordinates(true.mask.shape)
    assert u[tuple(middle + 6 * np.array(left))] == pytest.approx(6, abs=1)
    assert u[tuple(middle - 6 * np.array(left))] == pytest.approx(-6, abs=1)


def test_half_widths_are_left_then_right_and_bend_is_positive_to_the_left():
    true = body(np.random.default_rng(4), legs=False, spread=0.0, bend=0.5, turn=np.pi / 2)
    pose = find_pose(bodies_of(true.mask))
    assert pose.bend == pytest.approx(0.5, abs=0.05)
    # heading up and turning to the left: the snout lies left of the body's middle
    assert pose.centreline_px[0, 1] < pose.centreline_px[50, 1]
    s, u = pose.coordinates(true.mask.shape)
    inside = true.mask & (s > 0.2) & (s < 0.9)
    place = np.clip((s[inside] * 100).round().astype(int), 0, 100)
    reach = np.where(u[inside] > 0, pose.half_width_px[place, 0], pose.half_width_px[place, 1])
    assert np.mean(np.abs(u[inside]) <= reach + 1) > 0.995


@pytest.mark.parametrize("bend", [-0.7, 0.0, 0.7])
def test_coordinates_are_the_place_along_and_across_the_line(bend):
    # an arc of known centre: distance from it and angle around it are known exactly
    angle = np.linspace(0, bend, 101) if bend else np.zeros(101)
    radius = 90 / bend if bend else np.inf
    if bend:
        line = np.column_stack([100 - radius * np.sin(angle), 100 + radius * (1 - np.cos(angle))])
    else:
        line = np.column_stack([np.linspace(100, 10, 101), np.full(101, 100.0)])
    line = line[::-1]  # from the snout, at the top
    pose = BodyPose("animal_1", line, np.full((101, 2), 15.0), 90.0, 1.0, -bend)
    s, u = pose.coordinates((140, 200))
    y, x = np.mgrid[:140, :200].astype(float)
    if bend:
        centre = np.array([100.0, 100 + radius])
        true_u = (np.hypot(y - centre[0], x - centre[1]) - abs(radius)) * np.sign(bend)
        true_s = 1 - np.arctan2(centre[0] - y, np.sign(bend) * (centre[1] - x)) / abs(bend)
    else:
        true_u, true_s = 100.0 - x, (y - 10) / 90
    inside = np.isfinite(s) & (s > 0.02) & (s < 0.98)
    assert inside.sum() > 2000
    np.testing.assert_allclose(u[inside], true_u[inside], atol=0.02)
    np.testing.assert_allclose(s[inside], true_s[inside], atol=0.002)
    assert np.nanmin(s) == pytest.approx(-0.1, abs=0.01)
    assert np.nanmax(s) == pytest.approx(1.1, abs=0.01)
    assert np.isnan(s[0, 0])
    assert np.array_equal(np.isnan(s), np.isnan(u))


def test_points_are_evenly_spaced():
    true = body(np.random.default_rng(5))
    pose = find_pose(bodies_of(true.mask))
    steps = np.hypot(*np.diff(pose.centreline_px, axis=0).T)
    assert pose.centreline_px.shape == (101, 2)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.01)
    assert steps.sum() == pytest.approx(pose.length_px)


def test_another_grid_over_the_same_field_of_view():
    true = body(np.random.default_rng(6), legs=False)
    pose = find_pose(bodies_of(true.mask))
    fine = find_pose(bodies_of(np.kron(true.mask, np.ones((2, 2), int))))
    twice = pose.scaled(2)
    assert np.hypot(*(twice.centreline_px - fine.centreline_px).T).max() < 2.5
    assert twice.length_px == pytest.approx(fine.length_px, rel=0.02)
    back = twice.scaled(0.5)
    np.testing.assert_allclose(back.centreline_px, pose.centreline_px)
    np.testing.assert_allclose(back.half_width_px, pose.half_width_px)
    with pytest.raises(ValueError, match="the scale factor is 0; expected a number above 0"):
        pose.scaled(0)


def test_a_pose_follows_the_image_when_it_is_mirrored():
    true = body(np.random.default_rng(8))
    pose, other = find_pose(bodies_of(true.mask)), find_pose(bodies_of(true.mask[:, ::-1]))
    size = true.mask.shape[1]
    np.testing.assert_allclose(other.centreline_px, pose.centreline_px * [1, -1] + [0, size - 1], atol=0.6)
    np.testing.assert_allclose(other.half_width_px[10:90], pose.half_width_px[10:90, ::-1], atol=1.0)
    assert other.bend == pytest.approx(-pose.bend, abs=0.02)


def test_what_cannot_have_a_pose_is_refused_in_words():
    square = np.zeros((60, 60), int)
    square[10:50, 10:50] = 1
    with pytest.raises(ValueError, match="animal_1 of the drawn bodies is 1 times as long as wide"):
        find_pose(bodies_of(square))
    speck = np.zeros((60, 60), int)
    speck[10:20, 10:13] = 1
    with pytest.raises(ValueError, match="animal_1 of the drawn bodies covers 30 pixels; a pose needs at least 50"):
        find_pose(bodies_of(speck))
    with pytest.raises(ValueError, match="the drawn bodies has no animal_2; it has animal_1"):
        find_pose(bodies_of(square), "animal_2")
    with pytest.raises(ValueError, match="the nose cones are at 'north'; expected top, bottom, left, right"):
        find_pose(bodies_of(square), nose_cone="north")
    with pytest.raises(ValueError, match="is a volume; a pose is found in an image"):
        find_pose(bodies_of(square[None]))


def test_bodies_at_the_border_of_the_frame_are_taken_as_they_are():
    true = body(np.random.default_rng(9), legs=False, bend=0.0, turn=np.pi / 2)
    top = int(true.line[40, 0])
    pose = find_pose(bodies_of(true.mask[top:]))
    assert pose.centreline_px.min() > -1
    assert pose.length_px == pytest.approx(true.line[-1, 0] - top, rel=0.05)


def test_five_real_mice_head_up(ivis_click):
    scan = read(ivis_click)
    bodies = segment_body(scan, expected=5)
    for animal in bodies.organs:
        alone = find_pose(bodies, animal)
        assert alone.centreline_px[0, 0] < alone.centreline_px[-1, 0] or alone.head_confidence < 0.8
        pose = find_pose(bodies, animal, scan)
        assert pose.centreline_px[0, 0] < pose.centreline_px[-1, 0]
        assert pose.head_confidence > 0.95  # their tails are in the photograph
        assert 70 < pose.length_px * scan.pixel_size_mm[0] < 100
        assert abs(np.rad2deg(pose.bend)) < 20
