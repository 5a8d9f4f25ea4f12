"""Layer tuples from scans and organ maps and back, without napari: geometry, identity, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from napari_evbiodist.converters import layer_to_organs, organs_to_layer, scan_to_layers
from napari_evbiodist.sample_data import demo_tray, example

import evbiodist as ev

NAMES = {1: "liver", 2: "kidney", 3: "kidney", 7: "brain"}


def scan(shape=(4, 6), axes="YX", **more):
    return ev.Scan("tray", None, np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), axes, **more)


def organ_map(labels, **more):
    return ev.OrganMap(np.array(labels, np.int32), NAMES, more.pop("origin", "label image"), **more)


def drawn(labels, index=(1, 2), organ=("liver", "brain"), **keywords):
    """Return a labels layer as somebody may have drawn it, over `scan()`."""
    return np.array(labels), {"name": "mine", "features": {"index": index, "organ": organ}, **keywords}, "labels"


def same(a, b):
    assert np.array_equal(a.labels, b.labels)
    assert a.labels.dtype == b.labels.dtype
    assert (a.names, a.origin, a.outline_px, a.notes) == (b.names, b.origin, b.outline_px, b.notes)


def field_of_view(layer):
    """Return the outer edges of a layer's plane in world units."""
    data, keywords, _ = layer
    scale, start = (np.array(keywords[key][-2:]) for key in ("scale", "translate"))
    return start - scale / 2, start + scale * (np.array(data.shape[-2:]) - 0.5)


def test_the_signal_is_calibrated_and_in_mm():
    given_scan = scan(pixel_size_mm=(0.5, 0.25), offset=3.0, scale=2.0, unit="p/s/cm2/sr")
    [(data, keywords, kind)] = scan_to_layers(given_scan)
    assert np.array_equal(data, given_scan.signal())
    assert (kind, keywords["name"], keywords["axis_labels"]) == ("image", "tray", ("y", "x"))
    assert (keywords["scale"], keywords["units"]) == ((0.5, 0.25), ("mm", "mm"))
    assert keywords["metadata"]["evbiodist"]["scan"] is given_scan
    assert keywords["metadata"]["evbiodist"]["unit"] == "p/s/cm2/sr"


def test_an_unknown_pixel_size_stays_unknown():
    signal, photograph = scan_to_layers(scan(photograph=np.ones((8, 12))))
    assert (signal[1]["scale"], signal[1]["units"]) == ((1.0, 1.0), ("pixel", "pixel"))
    assert (photograph[1]["scale"], photograph[1]["units"]) == ((0.5, 0.5), ("pixel", "pixel"))


def test_uncalibrated_counts_are_not_copied_to_floats():
    counts = scan()
    assert scan_to_layers(counts)[0][0] is counts.counts


def test_frames_keep_their_axis():
    [(data, keywords, _)] = scan_to_layers(scan((3, 4, 6), "TYX", pixel_size_mm=(0.5, 0.5)))
    assert data.shape == (3, 4, 6)
    assert keywords["scale"] == (1.0, 0.5, 0.5)
    assert keywords["units"] == ("pixel", "mm", "mm")
    assert keywords["axis_labels"] == ("t", "y", "x")


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.none() | st.tuples(st.floats(0.01, 3), st.floats(0.01, 3)))
def test_everything_covers_the_same_field_of_view(shape, pixel):
    tray = scan(pixel_size_mm=pixel, photograph=np.ones(shape))
    organs = organs_to_layer(organ_map(np.ones(shape)), tray)
    signal, photograph = scan_to_layers(tray)
    for layer in (photograph, organs):
        np.testing.assert_allclose(field_of_view(layer), field_of_view(signal), atol=1e-9)


@pytest.mark.parametrize("counts", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[np.nan, 5.0]])])
def test_contrast_limits_are_always_a_range(counts):
    low, high = scan_to_layers(ev.Scan("flat", None, counts, "YX"))[0][1]["contrast_limits"]
    assert low < high


@given(arrays(np.int32, (4, 6), elements=st.sampled_from([0, *NAMES])).filter(np.any), st.floats(0, 5), st.text())
def test_organs_come_back_identical(labels, outline, note):
    organs = organ_map(labels, origin="tray segmentation", outline_px=outline, notes=(note,))
    same(layer_to_organs(organs_to_layer(organs, scan()), scan()), organs)


def test_the_demo_organs_measure_the_same_after_the_round_trip():
    tray, organs = example()
    again = layer_to_organs(demo_tray()[-1], tray)
    same(again, organs)
    before, after = ev.quantify(tray, organs), ev.quantify(tray, again)
    assert np.array_equal(before.value, after.value)
    assert np.array_equal(before.covariance, after.covariance)


def test_painting_leaves_the_organ_map_alone_and_is_told():
    organs = organ_map([[0, 1], [2, 7]], origin="tray segmentation", outline_px=1.5)
    tray = scan((2, 2))
    layer = organs_to_layer(organs, tray)
    layer[0][0, 0] = 1
    painted = layer_to_organs(layer, tray)
    assert organs.labels[0, 0] == 0
    assert painted.areas() == {"liver": 2, "kidney": 1, "brain": 1}
    assert (painted.origin, painted.outline_px) == ("tray segmentation, edited in napari", 1.5)
    again = organs_to_layer(painted, tray)
    again[0][0, 1] = 0
    assert layer_to_organs(again, tray).origin == "tray segmentation, edited in napari"


def test_a_drawn_layer_needs_no_metadata():
    labels = [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 2, 2], [0] * 6, [0] * 6]
    organs = layer_to_organs(drawn([labels]), scan())  # with the length-1 axis of a single frame
    assert organs.areas() == {"liver": 2, "brain": 2}
    assert (organs.origin, organs.outline_px) == ("drawn in napari", 0.0)


def test_one_organ_has_one_colour():
    colours = organs_to_layer(organ_map([[0, 1], [2, 3]]), scan((2, 2)))[1]["colormap"]
    assert colours[2] == colours[3] != colours[1]
    assert colours[0] == "transparent"


ONES = np.ones((4, 6), int)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (drawn(ONES * 9), r"pixel values \[9\] of the labels layer 'mine' have no organ; name them in its features"),
        (drawn(ONES, organ=("", "brain")), r"pixel values \[1\]"),
        (drawn(ONES, organ=(np.nan, "brain")), r"pixel values \[1\]"),
        (drawn(ONES, index=(1, 1)), "pixel value 1 of the labels layer 'mine' is both liver and brain"),
        (drawn(ONES, features={"organ": ["liver"]}), "the columns 'index' and 'organ'"),
        (drawn(ONES, features=None), "the columns 'index' and 'organ'"),
        (drawn(ONES * 0), "marks no organ"),
        (drawn([ONES, ONES]), "draw the organs once for all frames"),
        (drawn(ONES, translate=[0.0, 1.0]), "does not lie over tray"),
        (drawn(ONES, scale=[2.0, 2.0]), "does not lie over tray"),
        (drawn(np.ones((4, 5), int)), "does not lie over tray"),
        (drawn(ONES, rotate=[[0.0, -1.0], [1.0, 0.0]]), "does not lie over tray"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(layer, sentence):
    with pytest.raises(ValueError, match=sentence):
        layer_to_organs(layer, scan())
