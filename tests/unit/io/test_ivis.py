"""IVIS clicks: header, calibration arithmetic, refusals; and the real folder of five mice."""

import numpy as np
import pytest
import tifffile

from evbiodist.io.ivis import load_click
from evbiodist.io.registry import read
from evbiodist.study.problems import UnreadableImage

HEADER = """*** ClickNumber:\tX1
ClickInfoType:\tRawData
*** photographic image:\tphotograph.TIF
Field of View:\t{photo_fov}
*** darkcharge image:\tbackground.TIF
Data Multiplier:\t10
Read Bias Level:\t500
Binning Factor:\t8
Background Exposure (Seconds):\t20
*** luminescent image:\tluminescent.TIF
Luminescent Exposure (Seconds):\t10
Binning Factor:\t8
f Number:\t1
Field of View:\t4
Read Bias Level:\t500
Image Units:\tcounts
Flat Field Corrected:\t0
Intensity Calibration:\tcounts
*** Camera System Info:\t
CCD Saturation Level:\t61000\t# not 65535
Camera Info File Version Number:\t:\t3.0
Shelf Position A FOV:\t4
Coef C-ccd at FOV 4, f1:\t6.4E+05
Shelf Position A FF5 f/1 Coefs:\t1.0,0,-0.1,0,0,0.5,-0.25
"""
CORRECTED = """*** luminescentFloatCorrected image:\tluminescentFloatCorrected.TIF
Field of View:\t4
Luminescent Exposure (Seconds):\t10
Image Units:\tcounts
Flat Field Corrected:\t{flat}
Cosmic Corrected:\t1
Intensity Calibration:\tp/sec/cm^2/sr
"""


@pytest.fixture
def click(tmp_path):
    def write(dark=None, photo_fov="4", extra="", counts=None):
        (tmp_path / "ClickInfo.txt").write_text(HEADER.format(photo_fov=photo_fov) + extra)
        counts = np.full((8, 8), 1500, np.uint16) if counts is None else counts
        tifffile.imwrite(tmp_path / "luminescent.TIF", counts)
        tifffile.imwrite(tmp_path / "photograph.TIF", np.arange(1024, dtype=np.uint16).reshape(32, 32))
        rng = np.random.default_rng(1)
        dark = rng.integers(5080, 5121, (8, 8)).astype(np.uint16) if dark is None else dark
        tifffile.imwrite(tmp_path / "background.TIF", dark)
        return tmp_path

    return write


def test_radiance_is_the_formula(click):
    """(counts - bias - dark) * C / (t binning^2) / ff(r), r in cm from the optical axis (science.md section 3)."""
    folder = click()
    scan = read(folder)
    dark = (tifffile.imread(folder / "background.TIF") / 10 - 500) * 10 / 20
    centre = (np.arange(8) - 3.5) * 0.5
    r2 = (centre[:, None] + 0.25) ** 2 + (centre[None, :] - 0.5) ** 2
    expected = (1500 - 500 - dark) * 6.4e5 / (10 * 64) / (1 - 0.1 * r2)
    np.testing.assert_allclose(scan.signal(), expected, rtol=1e-12)
    assert scan.unit == "p/s/cm2/sr"
    assert scan.pixel_size_mm == (5.0, 5.0)
    assert scan.camera.saturation == 61000
    assert scan.photograph.shape == (32, 32)


def test_header_keeps_sections_apart(click):
    found = load_click(click())
    assert found.find("darkcharge").number("Data Multiplier") == 10
    assert found.find("luminescent").number("Data Multiplier") is None
    assert found.value("Camera Info File Version Number") == "3.0"


@pytest.mark.parametrize("level", [65534, 0])
def test_garbage_dark_frames_are_refused_in_words(click, level):
    scan = read(click(dark=np.full((8, 8), level, np.uint16)))
    assert any(f"background.TIF is refused as a dark frame (every pixel holds {level})" in n for n in scan.warnings)
    assert "no_dark" in scan.flags
    assert float(np.asarray(scan.offset).max()) == 500


def test_vendor_image_is_preferred_when_its_flags_say_so(click):
    folder = click(extra=CORRECTED.format(flat=1))
    tifffile.imwrite(folder / "luminescentFloatCorrected.TIF", np.full((8, 8), 123.0, np.float32))
    scan = read(folder)
    assert scan.path.name == "luminescentFloatCorrected.TIF"
    np.testing.assert_array_equal(scan.signal(), 123.0)
    assert any("contradicts the calibration flags, which are believed" in n for n in scan.warnings)


def test_vendor_image_without_flags_is_not(click):
    folder = click(extra=CORRECTED.format(flat=0))
    tifffile.imwrite(folder / "luminescentFloatCorrected.TIF", np.full((8, 8), 123.0, np.float32))
    assert read(folder).path.name == "luminescent.TIF"


def test_photograph_of_another_view_is_not_used(click):
    scan = read(click(photo_fov="22.4"))
    assert scan.photograph is None
    assert any("another field of view" in n for n in scan.warnings)


@pytest.mark.parametrize(
    ("line", "words"),
    [("Coef C-ccd at FOV 4, f1:\t6.4E+05\n", "no 'Coef C-ccd at FOV 4, f1'"),
     ("Luminescent Exposure (Seconds):\t10\n", "lacks field of view, f number, binning or exposure")],
)  # fmt: skip
def test_headers_without_calibration_are_refused(click, line, words):
    folder = click()
    info = folder / "ClickInfo.txt"
    info.write_text(info.read_text().replace(line, ""))
    with pytest.raises(UnreadableImage, match=words):
        read(folder)


def test_missing_and_truncated_images(click):
    folder = click()
    data = (folder / "luminescent.TIF").read_bytes()
    (folder / "luminescent.TIF").write_bytes(data[:150])
    with pytest.raises(UnreadableImage):
        read(folder)
    (folder / "luminescent.TIF").unlink()
    with pytest.raises(UnreadableImage, match=r"names luminescent\.TIF, which is not in the folder"):
        read(folder)


# ------------------------------------------------------------------------------ the real folder


def test_real_header(ivis_click):
    scan = read(ivis_click)
    told = dict(scan.describe())
    assert told["instrument"] == "IVIS 200 Spectrum"
    assert told["exposure"] == "40 s"
    assert told["bias"] == "496.628 counts"
    assert told["field of view"] == "22.4 cm"
    assert scan.camera.saturation == 61000
    assert scan.pixel_size_mm == pytest.approx((224 / 240, 224 / 240))
    assert any("background.TIF is refused as a dark frame (every pixel holds 65534)" in n for n in scan.warnings)


def test_real_calibration_chain(ivis_click):
    """Header values by hand: C(22.4, f1) = 7.223e5, 40 s, binning 8; flat field D f/1 at the brightest pixel."""
    scan = read(ivis_click)
    row, column = np.unravel_index(np.argmax(scan.counts), scan.counts.shape)
    pixel = 22.4 / 240
    r = np.hypot((row - 119.5) * pixel - 0.602904, (column - 119.5) * pixel + 0.013469)
    ff = 0.993171 + 0.001630 * r - 0.005467 * r**2 + 0.000520 * r**3 - 0.000023 * r**4
    expected = (13108 - 496.628) * 7.223e5 / (40 * 64) / ff
    assert scan.signal()[row, column] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "key", "text"),
    [("photograph.TIF", "shape", "960 x 960 (YX), uint16"), ("readbias.TIF", "note", "stored values are 10 times"),
     ("background.TIF", "warning", "not usable as a dark frame: every pixel holds 65534"),
     ("luminescent.TIF", "unit", "p/s/cm2/sr"), ("ClickInfo.txt", "role", "luminescent image")],
)  # fmt: skip
def test_info_of_each_real_file(ivis_click, name, key, text):
    assert any(k == key and text in v for k, v in read(ivis_click / name).describe())
