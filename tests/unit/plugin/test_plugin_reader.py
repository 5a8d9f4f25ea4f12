"""What the plugin opens, what it declines, and what it says of damaged files; without napari."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from napari_evbiodist import reader
from napari_evbiodist.converters import OnDisk, scan_to_layers
from napari_evbiodist.reader import napari_get_reader
from napari_evbiodist.writers import save_organs

import evbiodist as ev
from evbiodist.sample import sample_data

CLICK = """*** ClickNumber:\tA1
*** photographic image:\tphotograph.TIF
Field of View:\t12
*** corrected image:\tluminescentFloatCorrected.TIF
Field of View:\t12
Flat Field Corrected:\t1
Intensity Calibration:\tp/s/cm2/sr
"""


@pytest.fixture
def click(tmp_path):
    folder = tmp_path / "click"
    folder.mkdir()
    (folder / "ClickInfo.txt").write_text(CLICK)
    tifffile.imwrite(folder / "photograph.TIF", np.ones((24, 24), np.uint16))
    tifffile.imwrite(folder / "luminescentFloatCorrected.TIF", np.full((12, 12), 5.0, np.float32))
    return folder


@pytest.mark.parametrize("name", ["", "ClickInfo.txt"])
def test_a_click_opens_by_its_folder_or_its_header(click, name):
    path = str(click / name)
    signal, photograph = napari_get_reader(path)(path)
    assert (signal[1]["scale"], photograph[1]["scale"]) == ((10.0, 10.0), (5.0, 5.0))
    assert signal[1]["metadata"]["evbiodist"]["unit"] == "p/s/cm2/sr"
    assert np.all(signal[0] == 5.0)


def test_a_tiff_opens_with_the_pixel_size_it_states():
    path = str(sample_data() / "demo" / "images" / "DiR_2h_1.tif")
    [(_, keywords, _)] = napari_get_reader([path])([path])
    assert (keywords["scale"], keywords["units"]) == ((0.5, 0.5), ("mm", "mm"))


def test_what_is_no_image_is_declined(tmp_path):
    demo = sample_data() / "demo"
    image = str(demo / "images" / "DiR_2h_1.tif")
    for path in (
        str(demo / "gamma.csv"),
        str(demo / "images"),
        str(tmp_path),
        str(tmp_path / "missing.tif"),
        [image, image],
    ):
        assert napari_get_reader(path) is None


@pytest.mark.parametrize("name", ["", "study.toml"])
def test_a_study_opens_with_its_first_scan_and_tells_the_panel(few_scans, name):
    path = str(few_scans / name)
    layers = napari_get_reader(path)(path)
    told = layers[0][1]["metadata"]["evbiodist"]
    assert layers[0][1]["name"] == "NanoLuc_0.5h_1"
    assert told["study"] == str(few_scans / "study.toml")
    assert told["note"] == "study 'digital mouse': 2 more scans are in the study panel"


def test_what_is_wrong_with_a_study_is_said(few_scans, table_study, tmp_path):
    for path, sentence in ((table_study(), "holds tables only"), (few_scans / "study.toml", "expected a known key")):
        if path.parent == few_scans:
            path.write_text("nmae = 1\n" + path.read_text())
        with pytest.raises(ValueError, match=sentence) as caught:
            napari_get_reader(str(path))(str(path))
        assert type(caught.value) is ValueError


def test_large_stacks_stay_on_disk_and_are_calibrated_when_they_are_sliced(tmp_path, monkeypatch):
    from evbiodist.io import tiff

    frames = np.arange(4 * 30 * 20, dtype=np.uint16).reshape(4, 30, 20)
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, frames, metadata={"axes": "TYX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.3,
                                             "PhysicalSizeYUnit": "mm"})  # fmt: skip
    monkeypatch.setattr(tiff, "LAZY_BYTES", 1)
    monkeypatch.setattr(
        reader, "apart", lambda file, function, *args: function(*args)
    )  # the other process has its own limit
    [(data, keywords, _)] = napari_get_reader(str(path))(str(path))
    assert isinstance(data, OnDisk)
    assert np.array_equal(np.asarray(data[2]), frames[2])
    assert (keywords["scale"], keywords["axis_labels"]) == ((1.0, 0.3, 0.2), ("t", "y", "x"))
    low, high = keywords["contrast_limits"]
    assert frames[2].min() <= low < high <= frames[2].max()  # of the middle plane alone
    scan = replace(ev.read(path), offset=5.0, scale=2.0)
    [(data, _, _)] = scan_to_layers(scan)
    assert np.array_equal(np.asarray(data[1]), (frames[1] - 5.0) * 2.0)


def test_a_pyramid_shows_its_levels_and_a_sparse_volume_opens_without_its_pixels(tmp_path):
    import zarr

    group = zarr.open_group(tmp_path / "big.zarr", mode="w", zarr_format=3)
    shapes = [(2000, 2400, 2400), (1000, 1200, 1200)]
    axes = [{"name": n, "type": "space", "unit": "millimeter"} for n in "zyx"]
    datasets = []
    for level, shape in enumerate(shapes):
        array = group.create_array(str(level), shape=shape, dtype="uint16", chunks=(16, 256, 256), fill_value=7)
        array[:16, :256, :256] = 9
        scale = [{"type": "scale", "scale": [0.05 * 2**level] * 3}]
        datasets.append({"path": str(level), "coordinateTransformations": scale})
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    path = str(tmp_path / "big.zarr")
    [(data, keywords, _)] = napari_get_reader(path)(path)
    assert keywords["multiscale"]
    assert [level.shape for level in data] == shapes
    assert sum(level.nbytes for level in data) > 20e9
    assert (keywords["scale"], keywords["units"]) == ((0.05, 0.05, 0.05), ("mm", "mm", "mm"))
    assert np.asarray(data[0][[0, 1999], 5, :3]).tolist() == [[9, 9, 9], [7, 7, 7]]
    assert keywords["metadata"]["evbiodist"]["warnings"] == ev.read(path).warnings


def test_layers_carry_calibration_flags_and_warnings(click):
    signal, _ = napari_get_reader(str(click))(str(click))
    scan, told = ev.read(click), signal[1]["metadata"]["evbiodist"]
    assert told["calibration"] == "values as stored, p/s/cm2/sr"
    assert (told["flags"], told["notes"], told["warnings"]) == (scan.flags, scan.notes, scan.warnings)


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, np.ones((64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"broken\.tif: truncated: .* copy it again from the instrument") as caught:
        napari_get_reader(str(path))(str(path))
    assert type(caught.value) is ValueError
    assert caught.value.__suppress_context__  # nothing of the decoder's own errors is shown


def test_a_file_that_crashes_its_decoder_is_one_sentence_and_the_next_file_opens(monkeypatch):
    path = str(sample_data() / "demo" / "images" / "DiR_2h_1.tif")
    monkeypatch.setattr("napari_evbiodist.jobs.decode", crash)
    with pytest.raises(ValueError, match=r"^DiR_2h_1\.tif: the process that read it died \(a damaged file"):
        napari_get_reader(path)(path)
    monkeypatch.undo()
    [(data, _, _)] = napari_get_reader(path)(path)
    assert np.array_equal(data, ev.read(path).signal())


def test_a_scan_that_crashes_its_decoder_is_one_sentence_of_its_study(few_scans, monkeypatch):
    monkeypatch.setattr("napari_evbiodist.jobs.decode", crash)
    with pytest.raises(ValueError, match=r"^NanoLuc_0\.5h_1\.tif: the process that read it died"):
        napari_get_reader(str(few_scans))(str(few_scans))


def test_organ_labels_come_back_from_the_other_process_as_they_were_saved(tmp_path):
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 2:5] = 4
    save_organs(tmp_path / "organs.ome.tif", ev.OrganMap(labels, {4: "liver"}, "drawn"), (0.5, 0.25))
    path = str(tmp_path / "organs.ome.tif")
    [(data, keywords, kind)] = napari_get_reader(path)(path)
    assert (kind, keywords["scale"], list(keywords["features"]["organ"])) == ("labels", (0.5, 0.25), ["liver"])
    assert np.array_equal(data, labels)


def crash(*_):
    os.abort()


def test_importing_the_plugin_needs_neither_napari_nor_qt():
    code = ("import sys, napari_evbiodist.sample_data, napari_evbiodist.view, napari_evbiodist.session, "
            "napari_evbiodist.curves_model, napari_evbiodist.writers\n"
            "heavy = {'napari', 'qtpy', 'magicgui', 'PySide6', 'PyQt5', 'PyQt6', 'vispy'}\n"
            "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_a_display_the_window_says_so(monkeypatch, capsys):
    from napari_evbiodist import view

    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert view.main([]) == 2
    assert "there is no display" in capsys.readouterr().err


def test_the_window_names_a_file_it_cannot_read(tmp_path, capsys):
    from napari_evbiodist import view

    assert view.main([str(tmp_path / "missing.tif")]) == 2
    assert capsys.readouterr().err.startswith("error: missing.tif: there is no such file")
