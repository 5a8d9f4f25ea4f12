"""What the plugin opens, what it declines, and what it says of damaged files; without napari."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from napari_evbiodist.reader import napari_get_reader

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
    for path in (str(demo / "gamma.csv"), str(demo), str(tmp_path), str(tmp_path / "missing.tif"), [image, image]):
        assert napari_get_reader(path) is None


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "broken.tif"
    tifffile.imwrite(path, np.ones((64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"broken\.tif: truncated: .* copy it again from the instrument") as caught:
        napari_get_reader(str(path))(str(path))
    assert type(caught.value) is ValueError
    assert caught.value.__suppress_context__  # nothing of the decoder's own errors is shown


def test_importing_the_plugin_needs_neither_napari_nor_qt():
    code = ("import sys, napari_evbiodist.reader, napari_evbiodist.sample_data, napari_evbiodist.view\n"
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
