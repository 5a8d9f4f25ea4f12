"""The plugin in a real viewer: the sample opens, is drawn, and measures what the files measure."""

import numpy as np
import pytest
from napari_evbiodist.converters import layer_to_organs
from napari_evbiodist.sample_data import demo_tray, example
from napari_evbiodist.view import add_layers, main

import evbiodist as ev
from evbiodist.sample import sample_data

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy(show=True)


def drawn_colours(viewer):
    """Return how many pixels of the canvas have each colour."""
    picture = viewer.screenshot(canvas_only=True, flash=False)
    colours, counts = np.unique(picture[..., :3].reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(v) for v in colour): int(n) for colour, n in zip(colours, counts, strict=True)}


def outline_pixels(colours, rgb):
    """Return how many pixels have a colour, give or take the rounding of the graphics card."""
    return sum(n for colour, n in colours.items() if np.abs(np.subtract(colour, rgb)).max() <= 2)


def test_the_sample_opens_through_the_plugin(viewer):
    viewer.open_sample("evbiodist", "demo_tray")
    assert [layer.name for layer in viewer.layers] == [
        f"NanoLuc_0.5h_1{what}" for what in ("", " photograph", " organs")
    ]
    for layer in viewer.layers:
        assert layer.scale.tolist() == [0.5, 0.5]
        assert [str(unit) for unit in layer.units] == ["millimeter", "millimeter"]


def test_the_sample_measures_the_same_to_the_last_digit(viewer):
    viewer.open_sample("evbiodist", "demo_tray")
    scan, organs = example()
    layer = viewer.layers["NanoLuc_0.5h_1 organs"]
    shown = viewer.layers["NanoLuc_0.5h_1"].metadata["evbiodist"]["scan"]
    found, expected = ev.quantify(shown, layer_to_organs(layer.as_layer_data_tuple(), shown)), ev.quantify(scan, organs)
    assert found.organs == expected.organs
    assert found.value.tolist() == expected.value.tolist()
    assert found.covariance.tolist() == expected.covariance.tolist()


def test_every_organ_has_its_outline_on_the_screen(viewer):
    *_, organs = add_layers(viewer, demo_tray())
    viewer.reset_view()
    colours = drawn_colours(viewer)
    for value, name in zip(organs.features["index"], organs.features["organ"], strict=True):
        rgb = np.rint(np.multiply(organs.colormap.color_dict[value][:3], 255))
        assert outline_pixels(colours, rgb) > 50, name
    organs.visible = False
    without = drawn_colours(viewer)
    assert sum(outline_pixels(without, rgb) for rgb in [(64, 196, 255), (0, 250, 154)]) == 0  # spleen and blood


def test_the_signal_is_drawn_over_the_photograph(viewer):
    signal, photograph, _ = add_layers(viewer, demo_tray())
    for layer in viewer.layers:
        layer.visible = layer == photograph
    grey = drawn_colours(viewer)
    assert max(max(colour) - min(colour) for colour in grey) <= 2
    assert len(grey) > 20
    signal.visible = True
    both = drawn_colours(viewer)
    assert max(max(colour) - min(colour) for colour in both) > 50


def test_a_file_opens_with_its_pixel_size(viewer):
    viewer.open(str(sample_data() / "demo" / "images" / "DiR_2h_1.tif"), plugin="evbiodist")
    assert viewer.layers[0].scale.tolist() == [0.5, 0.5]


def test_a_damaged_file_is_a_sentence(viewer, tmp_path):
    path = tmp_path / "broken.tif"
    path.write_bytes(b"II*\0" + b"\0" * 20)
    with pytest.raises(ValueError, match=r"^broken\.tif: "):
        viewer.open(str(path), plugin="evbiodist")
    assert len(viewer.layers) == 0


def test_the_command_shows_the_demo_tray_in_outlines(make_napari_viewer, monkeypatch):
    opened = []
    monkeypatch.setattr("napari.Viewer", lambda **options: opened.append(make_napari_viewer(**options)) or opened[0])
    monkeypatch.setattr("napari.run", lambda: None)
    assert main([]) == 0
    viewer = opened.pop()
    assert [layer.name for layer in viewer.layers][-1] == "NanoLuc_0.5h_1 organs"
    assert viewer.layers[-1].contour == 1
    assert viewer.canvas.overlays.scale_bar.visible
