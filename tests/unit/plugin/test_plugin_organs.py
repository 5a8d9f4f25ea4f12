"""Organs by segmentation, polygon and copy: exact rules, scale, and what is not sure is said."""

import numpy as np
import pandas as pd
import pytest
from napari_evbiodist.converters import layer_to_organs, organs_to_layer
from napari_evbiodist.organs_model import (
    copy_organs,
    not_resolvable,
    polygons_to_organs,
    probability_layer,
    propagate,
    rename,
    segment,
    tell,
)
from napari_evbiodist.sample_data import example, pet_phantom

import evbiodist as ev
from evbiodist.study.model import ImagingSettings


def blank(shape=(30, 40), pixel=(0.5, 0.25), **more):
    return ev.Scan("tray", None, np.ones(shape), "YX", pixel, **more)


def shapes(data, organ, shape_type="polygon", **more):
    """Return what `napari.layers.Shapes.as_layer_data_tuple` gives; the layer itself compiles its triangulation for 20 s."""
    given = {"name": "mine", "features": pd.DataFrame({"organ": organ}), "shape_type": [shape_type] * len(data), "units": ("mm", "mm"),
             "scale": np.ones(2), "translate": np.zeros(2), "rotate": np.eye(2), "affine": np.eye(3), **more}  # fmt: skip
    return list(data), given, "shapes"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("own", [(1.0, 1.0), (0.5, 0.25), (2.0, 0.1)])
def test_a_pixel_belongs_to_a_polygon_that_holds_its_centre(seed, own):
    scan, rng = blank(), np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(1, 4, 9)
    mm = np.c_[7 + radius * np.sin(angles), 5 + radius * np.cos(angles)]
    found = polygons_to_organs(shapes([(mm - 0.3) / own], ["Liver"], scale=own, translate=(0.3, 0.3)), scan)
    edges = list(zip(mm, np.roll(mm, -1, axis=0), strict=True))

    def holds(y, x):  # crossing number, by hand
        return (
            sum((a[0] > y) != (b[0] > y) and x < a[1] + (y - a[0]) / (b[0] - a[0]) * (b[1] - a[1]) for a, b in edges)
            % 2
        )

    expected = [[holds(0.5 * i, 0.25 * j) for j in range(40)] for i in range(30)]
    assert np.array_equal(found.labels, expected)
    assert found.names == {1: "liver"}


def test_the_later_polygon_wins_and_two_kidneys_are_one_organ():
    square = np.array([[2, 2], [2, 6], [6, 6], [6, 2]], float)
    found = polygons_to_organs(
        shapes([square, square + 1, square + np.array([6, 1])], ["liver", "kidney", "Kidneys"]), blank()
    )
    assert found.names == {1: "liver", 2: "kidney"}
    assert found.labels[8, 16] == 2
    assert found.labels[4, 8] == 1


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (lambda s: shapes([s], [""]), r"polygons \[1\] of the shapes layer .* have no organ"),
        (lambda s: shapes([s + 100], ["liver"]), "holds the centre of no pixel of tray"),
        (lambda s: shapes([s], ["liver"], shape_type="ellipse"), "of kind ellipse; expected polygons or rectangles"),
        (lambda s: shapes([s], ["liver"], rotate=np.array([[0.0, -1.0], [1.0, 0.0]])), "is turned"),
        (lambda s: ([], {}, "shapes"), "holds no polygon"),
    ],
)
def test_a_polygon_that_is_no_organ_is_a_sentence(layer, sentence):
    with pytest.raises(ValueError, match=sentence):
        polygons_to_organs(layer(np.array([[2, 2], [2, 6], [6, 6], [6, 2]], float)), blank())
    with pytest.raises(ValueError, match="is a volume"):
        polygons_to_organs(([], {}, "shapes"), pet_phantom()[0])


def test_segmentation_is_the_cores():
    scan, organs = example()
    rows = (("liver", "spleen", "kidney", "kidney"), ("lung", "heart", "brain"), ("blood", "standard"))
    found = segment(scan, "tray", ImagingSettings(tray=rows))
    assert np.array_equal(found.labels, organs.labels)
    assert {o: c for o, _, c in tell(found)} == dict(found.confidence)
    with pytest.raises(ValueError, match="'magic' is no way to find organs; known: tray, body, atlas, clusters"):
        segment(scan, "magic")


def test_probabilities_and_what_cannot_be_told_apart_are_layers_in_place():
    p = np.array([[[0.9, 0.2]], [[0.1, 0.7]]])
    organs = ev.OrganMap(
        np.array([[1, 2]]), {1: "heart", 2: "lung"}, "planar atlas", fractions=p, unresolved=(("heart", "lung"),)
    )
    scan = blank((1, 2))
    data, keywords, kind = probability_layer(organs, scan, "lung")
    assert (data.tolist(), kind, keywords["scale"]) == ([[0.1, 0.7]], "image", (0.5, 0.25))
    assert not_resolvable(organs)[0].all()
    with pytest.raises(ValueError, match="has no brain; it has heart, lung"):
        probability_layer(organs, scan, "brain")
    again = layer_to_organs(organs_to_layer(organs, scan), scan)
    assert np.array_equal(again.fractions, p)
    assert again.unresolved == organs.unresolved


def test_renaming_forgets_what_was_known_of_the_old_name():
    organs = ev.OrganMap(np.array([[1, 2]]), {1: "heart", 2: "lung"}, "planar atlas", confidence={"heart": 0.5, "lung": 0.9},
                         unresolved=(("heart", "lung"),))  # fmt: skip
    named = rename(organs, {1: "Spleen"})
    assert (named.names, named.confidence, named.unresolved) == ({1: "spleen", 2: "lung"}, {"lung": 0.9}, ())
    with pytest.raises(ValueError, match=r"pixel values \[7\]"):
        rename(organs, {7: "liver"})
    with pytest.raises(ValueError, match="hold no letters"):
        rename(organs, {1: " - "})


def blobs(shift):
    y, x = np.mgrid[:80, :60]
    image = sum(a * np.exp(-((y - cy - shift[0]) ** 2 + (x - cx - shift[1]) ** 2) / 40)
                for a, cy, cx in ((90, 25, 22), (60, 45, 35), (40, 55, 18), (70, 30, 42)))  # fmt: skip
    return ev.Scan(f"at {shift}", None, 100 + image, "YX", (0.5, 0.5))


def test_organs_follow_a_moved_animal_by_registration():
    labels = np.zeros((80, 60), int)
    labels[20:31, 17:28] = 1
    organs = ev.OrganMap(labels, {1: "liver"}, "drawn")
    moved = copy_organs(organs, blobs((0, 0)), blobs((6, -4)), "intensity")
    truth = np.roll(labels, (6, -4), (0, 1)) == 1
    overlap = 2 * (moved.mask("liver") & truth).sum() / (moved.mask("liver").sum() + truth.sum())
    assert overlap > 0.9
    assert np.array_equal(copy_organs(organs, blobs((0, 0)), blobs((6, -4))).labels, labels)
    series = ev.Scan("s", None, np.stack([blobs((0, 0)).counts, blobs((6, -4)).counts]), "TYX", (0.5, 0.5))
    assert [
        np.array_equal(a.labels, b) for a, b in zip(propagate(organs, series), (labels, moved.labels), strict=True)
    ] == [True] * 2


def test_organs_are_not_copied_between_other_views():
    organs = ev.OrganMap(np.ones((30, 40), int), {1: "liver"}, "drawn")
    with pytest.raises(ValueError, match="tray shows 15 x 10 mm, tray 30 x 40 mm; organs"):
        copy_organs(organs, blank(), blank(pixel=(1.0, 1.0)))
    with pytest.raises(ValueError, match="is no way to bring organs"):
        copy_organs(organs, blank(), blank(), "hope")
    finer = copy_organs(organs, blank(), blank((60, 80), (0.25, 0.125)))
    assert finer.labels.shape == (60, 80)
