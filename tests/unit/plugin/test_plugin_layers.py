"""Our layers in napari's own model, without Qt: it takes every keyword, and what is painted is what is measured."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari_evbiodist.converters import layer_to_organs, organs_to_layer, scan_to_layers
from napari_evbiodist.sample_data import demo_tray, example
from napari_evbiodist.view import add_layers

import evbiodist as ev
from evbiodist.imaging.organs import from_label_image


@pytest.fixture
def viewer():
    return ViewerModel()


def units(layer):
    return [str(unit) for unit in layer.units]


def measures_the_same(scan, a, b):
    first, second = ev.quantify(scan, a), ev.quantify(scan, b)
    assert first.organs == second.organs
    for field in ("value", "covariance", "se_systematic", "area_px", "area_cm2"):
        assert np.array_equal(getattr(first, field), getattr(second, field)), field


def test_the_demo_tray_is_in_mm_with_named_axes(viewer):
    add_layers(viewer, demo_tray())
    assert [layer.name for layer in viewer.layers] == [
        f"NanoLuc_0.5h_1{what}" for what in ("", " photograph", " organs")
    ]
    for layer in viewer.layers:
        assert layer.scale.tolist() == [0.5, 0.5]
        assert units(layer) == ["millimeter", "millimeter"]
        assert layer.axis_labels == ("y", "x")


def test_a_finer_photograph_lies_over_the_signal(viewer):
    scan = ev.Scan("click", None, np.ones((6, 8)), "YX", (0.9, 0.9), photograph=np.ones((24, 32), np.uint16))
    signal, photograph = add_layers(viewer, scan_to_layers(scan))
    edge = np.array([[-0.5], [0.5]])  # from the centres of the outermost pixels to their edges
    np.testing.assert_allclose(photograph.extent.world + edge * 0.225, signal.extent.world + edge * 0.9, atol=1e-12)


@pytest.mark.parametrize("axes", ["TYX", "ZYX", "TZYX"])
def test_frames_and_a_photograph_go_together(viewer, axes):
    scan = ev.Scan(
        "movie", None, np.ones((3,) * (len(axes) - 2) + (6, 8)), axes, (0.5, 0.5), photograph=np.ones((6, 8))
    )
    signal, _ = add_layers(viewer, scan_to_layers(scan))
    assert units(signal) == ["pixel"] * (len(axes) - 2) + ["millimeter"] * 2
    assert viewer.dims.ndim == len(axes)


def test_the_status_bar_names_the_organ_under_the_mouse(viewer):
    scan, organs = example()
    layer = add_layers(viewer, [organs_to_layer(organs, scan)])[0]
    row, column = np.argwhere(organs.labels == 7)[0]
    told = layer.get_status((row * 0.5, column * 0.5), view_direction=None, dims_displayed=[0, 1], world=True)
    assert "brain" in told["value"]


def test_organs_survive_the_viewer_to_the_last_digit(viewer):
    scan, organs = example()
    layer = add_layers(viewer, demo_tray())[-1]
    again = layer_to_organs(layer.as_layer_data_tuple(), scan)
    assert (again.names, again.origin) == (organs.names, organs.origin)
    assert np.array_equal(again.labels, organs.labels)
    measures_the_same(scan, again, organs)


def test_what_is_painted_measures_like_the_label_image(viewer):
    scan, organs = example()
    add_layers(viewer, scan_to_layers(scan)[:1])
    viewer.layers.selection.active = viewer.layers[0]
    viewer._new_labels()  # the button under the layer list
    layer = viewer.layers[-1]
    for value in np.unique(organs.labels)[1:]:
        layer.data_setitem(np.nonzero(organs.labels == value), value)  # what every painting tool ends in
    layer.features = {"index": list(organs.names), "organ": list(organs.names.values())}
    painted = layer_to_organs(layer.as_layer_data_tuple(), scan)
    assert painted.origin == "drawn in napari"
    image = from_label_image(organs.labels, {str(v): name for v, name in organs.names.items()}, scan.plane_shape)
    measures_the_same(scan, painted, image)


def test_a_brush_stroke_is_told_and_measured(viewer):
    scan, organs = example()
    layer = add_layers(viewer, demo_tray())[-1]
    assert isinstance(layer, Labels)
    layer.brush_size = 4
    layer.paint((60, 64), 7)
    painted = layer_to_organs(layer.as_layer_data_tuple(), scan)
    assert painted.origin.endswith("edited in napari")
    assert painted.areas()["brain"] > organs.areas()["brain"]
    expected = ev.OrganMap(np.array(layer.data), organs.names, "label image", organs.outline_px)
    measures_the_same(scan, painted, expected)


def test_a_moved_layer_is_refused(viewer):
    scan, _ = example()
    layer = add_layers(viewer, demo_tray())[-1]
    layer.translate = (0.0, 1.0)
    with pytest.raises(ValueError, match=r"does not lie over NanoLuc_0\.5h_1"):
        layer_to_organs(layer.as_layer_data_tuple(), scan)
