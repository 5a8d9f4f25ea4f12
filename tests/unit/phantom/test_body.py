"""The digital animal in the round: published masses, light that is neither made nor lost, and postures that keep it."""

import numpy as np
import pytest
from scipy import ndimage

from evbiodist.imaging.anatomy import HALF_WIDTH_MM, LENGTH_MM, LOBES, REST, WIDTH_PROFILE, Anatomy, Place
from evbiodist.phantom.body import DigitalAnimal, Posture, Variation
from evbiodist.study.constants import physiology, tissue_optics

STILL = Variation(anatomy=0, shape_mm=0, optics=0, bend_rad=0, turn_rad=0, height_log=0)
#: Density of organs as they lie, g/mL: lungs hold air, guts their content, all else is tissue.
DENSITY = {"lung": 0.35, "gut": 0.62}
#: How near drawn organs come to their published mass: the liver's lobes overlap, which counts their common part twice; borders
#: blurred over a voxel make thin organs larger, and the spleen is 3 mm thick.
WITHIN = {"liver": 0.12, "spleen": 0.13}


def grams(animal):
    """Mass of every organ as drawn: the volume of its share of voxels (1 mm) times its density."""
    fill = animal.medium(700.0).fill
    inside = animal.medium(700.0).inside
    return {o: float((s[inside] * fill).sum()) / 1000 * DENSITY.get(o, 1.05) for o, s in animal.shares.items()}


@pytest.fixture(scope="module")
def reference():
    return DigitalAnimal(Anatomy.of_weight(22.0))


@pytest.mark.parametrize("weight", [18.0, 22.0, 30.0])
def test_organs_weigh_their_published_share(weight):
    found = grams(DigitalAnimal(Anatomy.of_weight(weight)))
    for organ in LOBES:
        share = physiology("mouse", organ, "weight_fraction")
        assert found[organ] == pytest.approx(weight * share.value / 100, rel=WITHIN.get(organ, 0.05)), organ
    # what the organs leave, with its skin, makes the animal's weight up but for air and fur
    assert sum(found.values()) == pytest.approx(weight, rel=0.15)


def test_drawn_animals_differ_as_the_variation_says():
    rng = np.random.default_rng(1)
    variation = Variation()
    logs = {o: [] for o in LOBES}
    for _ in range(8):
        animal = DigitalAnimal.draw(rng, variation, 22.0)
        found = grams(animal)
        for organ in LOBES:
            share = physiology("mouse", organ, "weight_fraction").value
            place = animal.anatomy.places[organ]
            logs[organ].append(np.log(found[organ] / (22.0 * share / 100)) - place.log_volume)
        assert abs(animal.bend_rad) <= variation.bend_rad
    for organ in LOBES:  # neighbours squeeze lungs and guts a little; else an organ has the volume that was drawn
        assert np.mean(logs[organ]) == pytest.approx(0.0, abs=WITHIN.get(organ, 0.05))
        assert np.std(logs[organ]) < 0.1


def test_tissue_optics_spread_as_published_half_of_it_shared():
    """Absorption is known to 25 % and scattering to 15 %; what all tissues share is half of the variance of absorption."""
    rng = np.random.default_rng(6)
    animals = [DigitalAnimal.draw(rng, Variation(), 22.0) for _ in range(1000)]
    absorption = np.log([[a.absorption[o] for o in (*LOBES, REST)] for a in animals])
    scattering = np.log([[a.scattering[o] for o in (*LOBES, REST)] for a in animals])
    assert absorption.mean(axis=0) == pytest.approx(np.zeros(8), abs=0.04)
    assert absorption.std(axis=0) == pytest.approx(np.full(8, 0.25), rel=0.12)
    assert np.corrcoef(absorption.T)[np.triu_indices(8, 1)] == pytest.approx(np.full(28, 0.5), abs=0.12)
    assert np.ptp(scattering, axis=1).max() < 1e-12
    assert scattering[:, 0].std() == pytest.approx(0.15, rel=0.12)
    more = [DigitalAnimal.draw(rng, Variation(optics=0, tissue_log=0.3), 22.0) for _ in range(300)]
    for name in ("absorption", "scattering"):
        own = np.log([[getattr(a, name)[o] for o in (*LOBES, REST)] for a in more])
        assert own.std() == pytest.approx(0.3, rel=0.1)


def test_no_variation_is_the_reference_but_for_its_outline():
    animal = DigitalAnimal.draw(np.random.default_rng(2), STILL, 22.0)
    assert (animal.bend_rad, animal.turn_rad) == (0, 0)
    assert set(animal.anatomy.places.values()) == {Place()}
    assert set(animal.absorption.values()) == set(animal.scattering.values()) == {1.0}
    assert animal.anatomy.length_mm == pytest.approx(LENGTH_MM, rel=0.12)


def test_the_same_seed_draws_the_same_animal():
    first, second, other = (DigitalAnimal.draw(np.random.default_rng(s), Variation(shape_mm=0.5)) for s in (3, 3, 4))
    assert vars(first.anatomy) == vars(second.anatomy)
    assert vars(first.anatomy) != vars(other.anatomy)
    for organ, share in first.shares.items():
        np.testing.assert_array_equal(share, second.shares[organ])


def test_every_voxel_is_shared_out_once_wrinkled_or_not():
    for wrinkle in (0.0, 0.8):
        animal = DigitalAnimal(Anatomy(), wrinkle_mm=wrinkle, wrinkle_seed=5)
        total = sum(animal.shares.values())
        inside = animal.medium(700.0).inside
        np.testing.assert_allclose(total[inside], 1.0)
        assert not total[~inside].any()
        assert all((share >= 0).all() for share in animal.shares.values())


def test_wrinkles_move_borders_and_keep_volumes():
    smooth, rough = (grams(DigitalAnimal(Anatomy(), wrinkle_mm=w, wrinkle_seed=7)) for w in (0.0, 0.5))
    for organ in ("liver", "gut", "brain"):
        assert rough[organ] != smooth[organ]
        assert rough[organ] == pytest.approx(smooth[organ], rel=0.2)


# ---------------------------------------------------------------- light


@pytest.mark.parametrize("nm", [560.0, 700.0, 780.0])
def test_light_is_neither_made_nor_lost_between_voxels(reference, nm):
    """Only voxels at the skin lose light; what a source gives is absorbed, by hand from the fluence, or lost there."""
    medium = reference.medium(nm)
    inside = medium.inside
    absorbing = medium.mu_a[inside] * medium.fill
    lost_here = medium.operator().sum(axis=1).A1 - absorbing
    buried = ndimage.binary_erosion(inside)[inside]
    np.testing.assert_allclose(lost_here[buried], 0, atol=1e-12)
    assert (lost_here[~buried] > 1e-3).all()
    source = np.stack([reference.shares[o][inside] * medium.fill for o in ("liver", "brain", REST)], axis=1)
    fluence = medium.fluence(source / source.sum(axis=0))
    absorbed, lost = absorbing @ fluence, lost_here @ fluence
    assert absorbed + lost == pytest.approx(np.ones(3), rel=1e-9)
    assert min(absorbed.min(), lost.min()) > 0


def test_what_absorbs_nothing_shows_its_light_to_cameras_all_round():
    """A camera reads four times the light that leaves the skin, as wide as it sees it (a Lambertian surface).

    Of the light that leaves a long round body evenly, 2 / pi leaves upward or downward; organs lie nearer to back or belly.
    """
    clear = DigitalAnimal(Anatomy(), absorption=dict.fromkeys((*LOBES, REST), 0.0))
    assert not clear.medium(700.0).mu_a.any()
    seen = clear.seen(("dorsal", "ventral"), 700.0, None)
    share = {o: sum(seen[v][o].sum() for v in seen) / 4 for o in ("liver", "brain", REST)}
    for organ, shown in share.items():
        assert 2 / np.pi < shown < 1, organ


def test_tissue_takes_the_optics_of_its_organ(reference):
    medium = reference.medium(780.0)
    tables = {o: next((a, s) for nm, a, s in tissue_optics()[o] if nm == 780.0) for o in ("liver", "brain", "muscle")}
    for organ, (mu_a, mu_s) in tables.items():
        whole = reference.shares[REST if organ == "muscle" else organ] == 1.0
        assert whole.sum() > 50
        np.testing.assert_allclose(medium.mu_a[whole], mu_a, rtol=1e-12)
        np.testing.assert_allclose(medium.mu_s_reduced[whole], mu_s, rtol=1e-12)
    darker = DigitalAnimal(Anatomy.of_weight(22.0), absorption={"liver": 2.0}, scattering={"liver": 0.5})
    whole = darker.shares["liver"] == 1.0
    np.testing.assert_allclose(darker.medium(780.0).mu_a[whole], 2 * tables["liver"][0])
    np.testing.assert_allclose(darker.medium(780.0).mu_s_reduced[whole], tables["liver"][1] / 2)


@pytest.fixture(scope="module")
def seen(reference):
    """What a camera above and below sees of every organ at 700 nm."""
    return reference.seen(("dorsal", "ventral"), 700.0, None)


def test_organs_shine_to_the_side_where_they_lie(reference, seen):
    total = {view: {o: float(image.sum()) for o, image in maps.items()} for view, maps in seen.items()}
    assert total["dorsal"]["kidney"] > 2 * total["ventral"]["kidney"]
    assert total["ventral"]["gut"] > 2 * total["dorsal"]["gut"]
    deeper = reference.seen(("dorsal",), 560.0, None)["dorsal"]
    assert deeper["liver"].sum() < 0.3 * total["dorsal"]["liver"]  # blood absorbs what is less than red


def test_exciting_light_dims_what_lies_deep(reference, seen):
    dye = reference.seen(("dorsal",), 700.0, 675.0)["dorsal"]
    share = {o: dye[o].sum() / seen["dorsal"][o].sum() for o in ("kidney", "gut")}
    assert share["kidney"] > 2 * share["gut"]


# ---------------------------------------------------------------- posture


POSTURES = [Posture(), Posture(0.2), Posture(0.0, (7.3, -11.6)), Posture(-0.3, (-4.0, 9.2))]


def centre(image, pixel):
    at = [(np.arange(n) - (n - 1) / 2) * pixel for n in image.shape]
    return np.array([(image.sum(axis=1) * at[0]).sum(), (image.sum(axis=0) * at[1]).sum()]) / image.sum()


@pytest.mark.parametrize("posture", POSTURES)
@pytest.mark.parametrize("view", ["dorsal", "ventral"])
def test_posture_moves_light_and_keeps_its_sum(reference, seen, view, posture):
    map_of = {v: maps["kidney"] for v, maps in seen.items()}
    pixel, shape = 0.5, (300, 300)
    image = reference.on_stage(map_of[view], view, shape, pixel, posture)
    assert image.sum() == pytest.approx(map_of[view].sum(), rel=2e-3)  # a map in units per mm2 of 1 mm voxels
    lain = centre(reference.on_stage(map_of[view], view, shape, pixel), pixel)
    cos, sin = np.cos(posture.turn_rad), np.sin(posture.turn_rad)
    expected = np.array([cos * lain[0] - sin * lain[1], sin * lain[0] + cos * lain[1]])
    # an animal on its back turns the same way on the stage, and moves where it is moved
    assert centre(image, pixel) == pytest.approx(expected + posture.move_mm, abs=0.1)


def test_on_its_back_left_and_right_change_sides(reference, seen):
    x = {v: centre(reference.on_stage(m["spleen"], v, (300, 300), 0.5), 0.5)[1] for v, m in seen.items()}
    assert x["dorsal"] < -4 < 4 < x["ventral"]


def test_pixels_do_not_change_what_is_seen(reference, seen):
    kidney = seen["dorsal"]["kidney"]
    sums = [reference.on_stage(kidney, "dorsal", (n, n), 132 / n).sum() for n in (120, 240, 480)]
    assert sums == pytest.approx([sums[0]] * 3, rel=5e-3)


def test_the_silhouette_is_the_outline_that_the_anatomy_says(reference):
    body, tail = reference.silhouette((560, 300), 0.25)
    at, share = np.array(WIDTH_PROFILE).T
    # area of a straight animal: twice the half width along the back (the profile is nearly piecewise linear)
    assert body.sum() * 0.25**2 == pytest.approx(2 * HALF_WIDTH_MM * LENGTH_MM * np.trapezoid(share, at), rel=0.03)
    rows = np.flatnonzero(body.any(axis=1))
    assert (rows[-1] - rows[0] + 1) * 0.25 == pytest.approx(LENGTH_MM, abs=0.5)
    assert np.flatnonzero(tail.any(axis=1)).max() > rows[-1]  # the tail leaves the rump, which lies down the image
    assert np.ptp(np.flatnonzero(tail.any(axis=0))) * 0.25 < 4


@pytest.mark.parametrize("bend", [-0.35, 0.2, 1e-8])
def test_a_bent_back_keeps_its_length_and_the_distance_from_it(bend):
    animal = DigitalAnimal(Anatomy(), bend_rad=bend, turn_rad=0.3, centre_mm=(2.0, -1.0))
    length = animal.anatomy.length_mm
    # walk along the arc by hand: the heading turns evenly from snout to rump
    s = np.linspace(0.0, 1.0, 2001)
    turned = 0.3 + (s - 0.5) * bend
    path = np.cumsum(np.stack([np.cos(turned), np.sin(turned)]) * length / 2000, axis=1)
    path = path - path[:, [1000]] + np.array([[2.0], [-1.0]])
    found_s, found_u = animal.coordinates(path[0], path[1])
    assert np.abs(found_u).max() < 0.05
    assert found_s == pytest.approx(s, abs=1e-3)
    side = np.stack([-np.sin(turned), np.cos(turned)]) * 6.0
    off_s, off_u = animal.coordinates(path[0] + side[0], path[1] + side[1])
    assert np.abs(off_u - 6.0).max() < 0.05
    assert off_s == pytest.approx(s, abs=1e-3)
