"""The planar atlas lies in the body's outline, says how sure it is, and names what cannot be told apart."""

import numpy as np
import pytest

from evbiodist.imaging.anatomy import ORGANS, Anatomy
from evbiodist.imaging.atlas import body_of, segment_atlas
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pose import find_pose
from evbiodist.io.scan import Band, Scan
from evbiodist.phantom.body import DigitalAnimal, Posture

SHAPE, PIXEL = (220, 130), 0.5


def stage(view: str = "dorsal", turn: float = 0.0, bands=()) -> tuple[Scan, OrganMap]:
    body, _ = DigitalAnimal(Anatomy()).silhouette(SHAPE, PIXEL, view, Posture(turn))
    scan = Scan("stage", None, np.zeros(SHAPE), "YX", (PIXEL, PIXEL), bands=bands)
    return scan, OrganMap(body.astype(np.int32), {1: "animal_1"}, "drawn")


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_organs_lie_where_the_phantom_has_them(turn):
    scan, bodies = stage(turn=turn)
    atlas = segment_atlas(scan, bodies)
    animal = DigitalAnimal(Anatomy())
    for organ in ("brain", "liver", "gut"):
        image = animal.on_stage(animal.shares[organ].max(axis=0), "dorsal", SHAPE, PIXEL, Posture(turn))
        truth = np.array([np.average(axis, weights=image) for axis in np.indices(SHAPE)])
        found = np.argwhere(atlas.mask(organ)).mean(axis=0)
        assert np.hypot(*(found - truth)) * PIXEL < 3.5, organ


def test_probabilities_are_probabilities_inside_the_body():
    scan, bodies = stage()
    atlas = segment_atlas(scan, bodies)
    assert atlas.organs == ORGANS
    assert atlas.fractions.shape == (len(ORGANS), *SHAPE)
    assert atlas.fractions.min() >= 0
    assert atlas.fractions.max() <= 1
    assert not atlas.fractions[:, bodies.labels == 0].any()
    # the brain varies less between mice than the spleen, so the atlas is surer of it
    assert atlas.confidence["brain"] > atlas.confidence["spleen"]


def test_back_and_belly_are_mirror_images():
    columns = {}
    for view in ("dorsal", "ventral"):
        scan, bodies = stage(view)
        atlas = segment_atlas(scan, bodies, view=view)
        columns[view] = np.average(np.arange(SHAPE[1]), weights=atlas.share("spleen").sum(axis=0)) - (SHAPE[1] - 1) / 2
    assert columns["dorsal"] < -10  # the animal's left is the image's left when its back is seen and its head is up
    assert columns["ventral"] == pytest.approx(-columns["dorsal"], abs=3)


def test_what_light_cannot_tell_apart_is_named():
    scan, bodies = stage(bands=(Band(780.0, 745.0),))
    atlas = segment_atlas(scan, bodies)
    for a, b in atlas.unresolved:
        assert any(f"{a} and {b} are not resolvable" in note for note in atlas.notes)
    assert segment_atlas(*stage()).unresolved == ()  # without a wavelength nothing is claimed


def test_no_pixel_size_and_no_mouse_are_refused():
    _, bodies = stage()
    blind = Scan("stage", None, np.zeros(SHAPE), "YX")
    with pytest.raises(ValueError, match="does not say its pixel size"):
        segment_atlas(blind, bodies)
    huge = Scan("stage", None, np.zeros(SHAPE), "YX", (3.0, 3.0))
    with pytest.raises(ValueError, match=r"measures \d+ mm in length, a mouse about 88 mm"):
        segment_atlas(huge, bodies)


def test_the_outline_gives_the_body_its_size():
    _, bodies = stage()
    body = body_of(find_pose(bodies), PIXEL)
    assert body.length_mm == pytest.approx(88, rel=0.03)
    assert body.half_width_mm == pytest.approx(14, rel=0.06)
    assert body.weight_g == pytest.approx(22, rel=0.15)
    assert body_of(find_pose(bodies), PIXEL, 30.0).weight_g == 30.0


def test_the_same_seed_gives_the_same_bytes():
    one, two = (segment_atlas(*stage(), draws=8, seed=3) for _ in range(2))
    assert one.fractions.tobytes() == two.fractions.tobytes()
