"""The outline's share of the error against areas and moments worked out by hand, and what is refused."""

import numpy as np
import pytest

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import quantify
from evbiodist.imaging.repeatability import annotator_spread, roi_repeatability
from evbiodist.io.scan import Camera, Scan


def disk(radius, shape=(80, 80), centre=(40, 40)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (np.hypot(y - centre[0], x - centre[1]) <= radius).astype(np.int32)


def areas(organs):
    return np.array(list(organs.areas().values()), float)


def sums(image, organs, **spread):
    """Return plain sums of an image over redrawn outlines, (draws, organs)."""
    found = roi_repeatability(lambda m: np.array([image[m.mask(o)].sum() for o in m.organs]), organs, **spread)
    return found.values


@pytest.fixture
def liver():
    return OrganMap(disk(15), {1: "liver"}, "label image")


def within(found, expected, draws, of=4):
    """A spread from `draws` draws scatters by 1/sqrt(2 draws) of itself."""
    assert found == pytest.approx(expected, rel=of / np.sqrt(2 * draws))


@pytest.mark.parametrize("sd", [1.0, 2.0])
def test_growing_a_disk_by_chance_spreads_its_area_by_its_rim(liver, sd):
    """Pixels come in rings: up to a tenth more than the circle's rim times the SD (the promise), and never less."""
    found = sums(np.ones((80, 80)), liver, shift_sd=0, grow_sd=sd, draws=1000)
    within(found.std(ddof=1), 1.05 * 2 * np.pi * 15 * sd, 1000, of=0.05 * np.sqrt(2000) + 3)


@pytest.mark.parametrize("sd", [0.7, 1.5, 3.0])
def test_growing_a_square_moves_its_sides_by_whole_pixels(sd):
    labels = np.zeros((80, 80), np.int32)
    labels[20:60, 20:60] = 1
    found = sums(np.ones((80, 80)), OrganMap(labels, {1: "liver"}, "l"), shift_sd=0, grow_sd=sd, draws=1000)
    g = sd * np.random.default_rng(8).standard_normal(100_000)
    steps = np.round(g)
    corners = np.where(g > 0, (4 - np.pi) * steps**2, 0)
    within(found.std(ddof=1), np.std((40 + 2 * steps) ** 2 - corners), 1000)


def test_shifting_over_a_slope_spreads_by_area_times_slope(liver):
    """Moved by whole pixels in the end, so the variance of rounding, 1/12, belongs to it at most."""
    slope = np.tile(np.arange(80.0), (80, 1))
    found = sums(slope, liver, shift_sd=2.0, grow_sd=0, draws=1000)
    within(found.std(ddof=1), liver.areas()["liver"] * 2.0, 1000)


def test_rotation_turns_a_rod_about_its_own_middle():
    """A thin rod of half-length h on the image y^2: turned by a, the mean of y^2 is h^2 sin^2(a) / 3."""
    labels = np.zeros((81, 81), np.int32)
    labels[39:42, 10:71] = 1
    rod = OrganMap(labels, {1: "bone"}, "label image")
    y2 = (np.mgrid[:81, :81][0] - 40.0) ** 2
    found = sums(y2, rod, shift_sd=0, grow_sd=0, rotation_sd_deg=10, draws=600)
    angles = np.deg2rad(10 * np.random.default_rng(5).standard_normal(200_000))
    mean = 30.5**2 / 3 * np.mean(np.sin(angles) ** 2) + 1.5**2 / 3 * np.mean(np.cos(angles) ** 2)
    assert found.mean() / labels.sum() == pytest.approx(mean, rel=0.15)
    assert sums(y2, rod, shift_sd=0, grow_sd=0, draws=2).std() == 0


def test_nothing_moves_without_spread(liver):
    found = roi_repeatability(areas, liver, shift_sd=0, grow_sd=0, draws=3)
    assert (found.values == found.value).all()
    assert found.se.tolist() == found.bias.tolist() == found.relative_sd.tolist() == [0]


def test_millimetres_are_pixels_times_spacing(liver):
    px = roi_repeatability(areas, liver, shift_sd=2, grow_sd=1, draws=20)
    mm = roi_repeatability(areas, liver, shift_sd=0.5, grow_sd=0.25, draws=20, spacing_mm=(0.25, 0.25))
    np.testing.assert_array_equal(px.values, mm.values)


def test_slices_far_apart_move_by_fewer_slices():
    """Axial shift of 1 mm is a twentieth of a slice of 20 mm: next to nothing; in the plane it is a pixel."""
    labels = np.zeros((7, 30, 30), np.int32)
    labels[2:5, 10:20, 10:20] = 1
    organs = OrganMap(labels, {1: "liver"}, "label image")
    z, y, _ = np.mgrid[:7, :30, :30].astype(float)
    kept = {"shift_sd": 1.0, "grow_sd": 0.0, "draws": 300, "spacing_mm": (20, 1, 1)}
    assert sums(z - 3, organs, **kept).std() < 300 * 0.05
    within(sums(y, organs, **kept).std(ddof=1), 300 * np.sqrt(1 + 1 / 12), 300)


def test_the_seed_decides_the_draws(liver):
    image = np.random.default_rng(0).uniform(0, 5, (80, 80))
    one, again, other = (
        sums(image, liver, shift_sd=1, grow_sd=0.5, rotation_sd_deg=5, draws=30, seed=s) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_agrees_with_the_roi_footprint_of_quantify_and_its_outline_error():
    """quantify moves a found outline by +-step as one rectangle (SD step/sqrt(3)); the draws are normal of that SD."""
    frame = np.exp(-((np.mgrid[:80, :80][0] - 40.0) ** 2) / 800) * 100
    organs = OrganMap(disk(15), {1: "liver"}, "tray segmentation", outline_px=2.0)
    scan = Scan("a", None, frame, "YX", camera=Camera(gain_e=1, read_noise_e=1))
    whole = quantify(scan, organs)
    frame = frame - whole.fit.background
    again = roi_repeatability(
        lambda m: np.array([np.sum(frame[m.mask("liver")])]), organs, shift_sd=0, grow_sd=2 / np.sqrt(3), draws=400
    )
    assert again.value == pytest.approx(whole.value, rel=1e-6)
    # moving out by 2 px takes two rings of pixels in quantify and 2.2 rings here: at most a quarter apart
    assert again.se[0] == pytest.approx(whole.se_systematic[0], rel=0.25)


def test_neighbours_trade_pixels_and_stay_apart():
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 10:30], labels[10:30, 30:50] = 1, 2
    organs = OrganMap(labels, {1: "liver", 2: "gut"}, "label image")
    found = roi_repeatability(areas, organs, shift_sd=0, grow_sd=1.5, draws=400)
    # rectangles of 20 px: the shared edge is where one stops or, when both grow, midway between the two draws
    g = 1.5 * np.random.default_rng(9).standard_normal((2, 100_000))
    shared = np.minimum(g, (g - g[::-1]) / 2)
    area = (20 + np.round(g) + np.round(shared)) * (20 + 2 * np.round(g))
    expected = np.cov(area)
    within(found.se[0], np.sqrt(expected[0, 0]), 400)
    correlation = found.covariance[0, 1] / found.se.prod()
    assert correlation < -0.05
    assert correlation == pytest.approx(expected[0, 1] / expected[0, 0], abs=4 / np.sqrt(400))


def test_two_kidneys_are_drawn_one_by_one():
    labels = disk(8, centre=(25, 40)) + 2 * disk(8, centre=(55, 40))
    both = {"shift_sd": 0, "grow_sd": 1.0, "draws": 500}
    one = OrganMap(np.minimum(labels, 1), {1: "kidney"}, "label image")
    two = OrganMap(labels, {1: "kidney", 2: "kidney"}, "label image")
    spread = [sums(np.ones((80, 80)), m, **both).std() for m in (one, two)]
    within(spread[0] / spread[1], np.sqrt(2), 250)


def test_an_outline_is_never_empty():
    labels = np.zeros((20, 20), np.int32)
    labels[5, 5] = 1
    labels[10:16, 10:16] = 2
    organs = OrganMap(labels, {1: "thyroid", 2: "liver"}, "label image")
    found = roi_repeatability(areas, organs, shift_sd=0, grow_sd=2, draws=100)
    assert found.values.min() == 1
    assert "kept one pixel" in found.notes[0]


def test_organs_at_the_edge_of_the_image_stay_in_it():
    labels = np.zeros((20, 20), np.int32)
    labels[:6, :] = 1
    organs = OrganMap(labels, {1: "liver"}, "label image")
    found = sums(np.ones((20, 20)), organs, shift_sd=1, grow_sd=0, rotation_sd_deg=3, draws=200)
    within(found.std(ddof=1), 20 * np.sqrt(1 + 1 / 12), 200, of=5)
    assert found.mean() == pytest.approx(120, abs=4 * 20 / np.sqrt(200))


def test_a_peak_loses_light_when_redrawn(liver):
    image = np.exp(-((np.mgrid[:80, :80] - 40.0) ** 2).sum(axis=0) / 50)
    found = roi_repeatability(lambda m: np.array([image[m.mask("liver")].sum()]), liver, shift_sd=3, grow_sd=0)
    assert found.bias[0] < 0
    assert found.se_of_se[0] == pytest.approx(found.se[0] / np.sqrt(2 * 199))
    zero = roi_repeatability(lambda m: np.zeros(1), liver, shift_sd=1, grow_sd=0, draws=2)
    assert np.isnan(zero.relative_sd[0])


def test_what_cannot_be_drawn_is_refused(liver):
    spread = {"shift_sd": 1.0, "grow_sd": 0.0}
    with pytest.raises(ValueError, match="1 draws cannot show a spread; use 2 or more"):
        roi_repeatability(areas, liver, **spread, draws=1)
    with pytest.raises(ValueError, match="below zero; give 0 or more"):
        roi_repeatability(areas, liver, shift_sd=-1, grow_sd=0)
    with pytest.raises(ValueError, match="does not fit a map with 2 axes"):
        roi_repeatability(areas, liver, **spread, spacing_mm=(1, 1, 1))
    with pytest.raises(ValueError, match=r"does not fit .* above 0"):
        roi_repeatability(areas, liver, **spread, spacing_mm=(0, 1))
    with pytest.raises(
        ValueError, match=r"shape \(2,\) for the outlines as given; expected one number for each of liver"
    ):
        roi_repeatability(lambda m: np.ones(2), liver, **spread)
    with pytest.raises(ValueError, match="no finite number for liver on draw 1"):
        roi_repeatability(lambda m: np.array([1.0 if m is liver else np.nan]), liver, **spread)


# ---- annotators


def test_two_annotators_by_hand():
    """A square of 10 and the same moved by 3: overlap 70 of 100, farthest 3 px, signal along x moves by 3 a pixel."""
    a, b = np.zeros((30, 30), np.int32), np.zeros((30, 30), np.int32)
    a[10:20, 5:15], b[10:20, 8:18] = 1, 1
    x = np.tile(np.arange(30.0), (30, 1))
    maps = [OrganMap(m, {1: "liver"}, "label image") for m in (a, b)]
    found = annotator_spread(*maps, measure=lambda m: np.array([x[m.mask("liver")].sum()]))
    assert found.dice == pytest.approx([0.7])
    assert (found.hausdorff, found.unit) == (pytest.approx([3.0]), "px")
    assert found.sd == pytest.approx([300 / np.sqrt(2)])
    in_mm = annotator_spread(*maps, measure=areas, spacing_mm=(1.0, 0.2))
    assert (in_mm.hausdorff, in_mm.unit) == (pytest.approx([0.6]), "mm")


def test_several_annotators_recover_the_spread_they_were_drawn_with():
    """The draws of one person's repeatability, taken for annotators: the same SD comes out."""
    organs = OrganMap(disk(12) + 2 * disk(7, centre=(40, 65)), {1: "liver", 2: "spleen"}, "label image")
    maps = []

    def keep(m):
        maps.append(m)
        return areas(m)

    drawn = roi_repeatability(keep, organs, shift_sd=1, grow_sd=1, draws=12)
    found = annotator_spread(*maps[1:], measure=areas)
    assert found.annotators == 12
    np.testing.assert_allclose(found.sd, drawn.se)
    np.testing.assert_allclose(found.relative_sd, drawn.se / drawn.values.mean(axis=0))
    assert ((found.dice > 0.7) & (found.dice < 1)).all()


def test_organs_in_another_order_are_matched_by_name_and_missing_ones_named():
    a = OrganMap(np.array([[1, 1, 2, 3]]), {1: "liver", 2: "spleen", 3: "gut"}, "label image")
    b = OrganMap(np.array([[2, 2, 1, 0]]), {1: "spleen", 2: "liver"}, "label image")
    found = annotator_spread(a, b, measure=areas)
    assert found.organs == ("liver", "spleen")
    assert (found.dice.tolist(), found.sd.tolist()) == ([1, 1], [0, 0])
    assert found.notes == ("not drawn by everybody and left out: gut",)


def test_annotators_that_cannot_be_compared():
    a = OrganMap(np.array([[1, 0]]), {1: "liver"}, "label image")
    with pytest.raises(ValueError, match="1 annotator shows no spread"):
        annotator_spread(a, measure=areas)
    with pytest.raises(ValueError, match="expected one grid"):
        annotator_spread(a, OrganMap(np.array([[1, 0, 0]]), {1: "liver"}, "label image"), measure=areas)
    with pytest.raises(ValueError, match="no organ in common"):
        annotator_spread(a, OrganMap(np.array([[1, 0]]), {1: "gut"}, "label image"), measure=areas)
    with pytest.raises(ValueError, match="does not fit a map with 2 axes"):
        annotator_spread(a, a, measure=areas, spacing_mm=(1.0,))
