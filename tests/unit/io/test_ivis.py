"""IVIS clicks: header, calibration arithmetic, fluorescence, refusals; and the real folder of five mice."""

import numpy as np
import pytest
import tifffile

from evbiodist.io.ivis_header import load_click
from evbiodist.io.registry import read
from evbiodist.io.scan import RADIANCE, RADIANT_EFFICIENCY, Band
from evbiodist.study.flags import FLAGS
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


# ------------------------------------------------------------------------------ fluorescence

NO_IRRADIANCE = "radiant efficiency needs the excitation irradiance, which the folder does not give"


def fluorescent(excitation="535", emission="620", more=""):
    """Further keys of the luminescent section, which is the last of its name in a second block."""
    return (f"*** luminescent image:\tluminescent.TIF\nLuminescent Exposure (Seconds):\t10\nBinning Factor:\t8\n"
            f"f Number:\t1\nField of View:\t4\nRead Bias Level:\t500\nEmission filter:\t{emission}\n"
            f"Excitation filter:\t{excitation}\n{more}")  # fmt: skip


def test_without_irradiance_fluorescence_stays_radiance_and_says_so(click):
    bright = read(click())
    scan = read(click(extra=fluorescent()))
    assert scan.unit == RADIANCE
    np.testing.assert_allclose(scan.signal(), bright.signal(), rtol=1e-12)
    assert "no_irradiance" in scan.flags
    assert NO_IRRADIANCE in scan.warnings
    assert scan.bands == (Band(620.0, 535.0, "535 to 620"),)
    assert "no_irradiance" in FLAGS
    assert "no_irradiance" not in bright.flags


@pytest.mark.parametrize(
    "key",
    ["Excitation Irradiance (uW/cm^2):\t250", "Excitation irradiance:\t250 \xb5W/cm\xb2", "Lamp power:\t2.5e2 uW/cm2"],
)
def test_a_stated_irradiance_gives_radiant_efficiency(click, key):
    folder = click(extra=fluorescent(more=key + "\n"))
    (folder / "ClickInfo.txt").write_bytes((folder / "ClickInfo.txt").read_text().encode("cp1252"))
    scan = read(folder)
    assert scan.unit == RADIANT_EFFICIENCY
    np.testing.assert_allclose(scan.signal(), read(click()).signal() / 250, rtol=1e-12)
    assert any("divided by the excitation irradiance of 250 uW/cm2" in n for n in scan.notes)
    assert NO_IRRADIANCE not in scan.warnings


@pytest.mark.parametrize(
    "key", ["Excitation Irradiance:\t250", "Lamp power:\t250 uW", "Stage irradiance (uW/cm2):\t250",
            "Excitation irradiance (uW/cm2):\t0", "Spectral Imaging Excitation 535:\t536.12,31.74,4.11E+02,2.72E+01"]
)  # fmt: skip
def test_a_number_without_unit_or_of_something_else_is_no_irradiance(click, key):
    scan = read(click(extra=fluorescent(more=key + "\n")))
    assert scan.unit == RADIANCE
    assert NO_IRRADIANCE in scan.warnings


def test_what_looks_like_an_irradiance_is_named(click):
    extra = fluorescent() + ("*** fluorescent reference image:\tfluorescentreference.TIF\nField of View:\t4\n"
                             "*** Camera System Info:\t\nSpectral Imaging Excitation 535:\t536,31,4.11E+02\n")  # fmt: skip
    folder = click(extra=extra)
    tifffile.imwrite(folder / "fluorescentreference.TIF", np.full((8, 8), 7, np.uint16))
    scan = read(folder)
    assert any("power in uW through a 2 mm hole" in n for n in scan.notes)
    assert any("fluorescentreference.TIF shows the relative pattern" in n for n in scan.notes)
    assert scan.path.name == "luminescent.TIF"
    assert read(folder / "fluorescentreference.TIF").signal().max() == 7


@pytest.mark.parametrize(
    ("excitation", "emission", "band", "lit"),
    [("Block", "Open", Band(None, None, "Open"), False), ("Block", "620", Band(620.0, None, "620"), False),
     ("GFP", "GFP", Band(None, None, "GFP to GFP"), True), ("500", "ICG", Band(None, 500.0, "500 to ICG"), True)],
)  # fmt: skip
def test_filters_become_bands_and_names_are_no_wavelengths(click, excitation, emission, band, lit):
    scan = read(click(extra=fluorescent(excitation, emission)))
    assert scan.bands == (band,)
    assert ("no_irradiance" in scan.flags) == lit
    assert any("transmission" in n for n in scan.notes) == (band.emission_nm is not None)


@pytest.mark.parametrize(
    ("excitation", "lamp", "lit", "words"),
    [("Open", "", False, "'Open' but no lamp level is given; it is read as bioluminescence"),
     ("Open", "Fluorescent lamp level:\tHigh\n", True, ""), ("535", "Illumination level:\tLow\n", True, ""),
     ("535", "Fluorescent lamp level:\tOff\n", False, "'535' but the lamp is off; it is read as bioluminescence")],
)  # fmt: skip
def test_the_lamp_decides_and_doubt_is_said(click, excitation, lamp, lit, words):
    scan = read(click(extra=fluorescent(excitation, "620", lamp)))
    assert ("no_irradiance" in scan.flags) == lit
    assert any(words in w for w in scan.warnings)
    assert scan.bands[0].excitation_nm == (535.0 if lit and excitation == "535" else None)


def test_a_vendor_image_in_radiant_efficiency_keeps_its_unit(click):
    block = CORRECTED.format(flat=1).replace("p/sec/cm^2/sr", "(p/sec/cm^2/sr)/(uW/cm^2)")
    folder = click(extra=fluorescent() + block)
    tifffile.imwrite(folder / "luminescentFloatCorrected.TIF", np.full((8, 8), 123.0, np.float32))
    scan = read(folder)
    assert scan.unit == RADIANT_EFFICIENCY
    np.testing.assert_array_equal(scan.signal(), 123.0)
    assert scan.bands == (Band(620.0, 535.0, "535 to 620"),)
    assert "no_irradiance" not in scan.flags


# ------------------------------------------------------------------------------ bias frame, hostile files


def with_bias(folder, counts):
    info = folder / "ClickInfo.txt"
    info.write_text(info.read_text() + "*** readbiasonly image:\treadbiasonly.TIF\nData Multiplier:\t10\n")
    tifffile.imwrite(folder / "readbiasonly.TIF", counts.astype(np.uint16))
    return folder


def test_a_bias_frame_checks_the_level(click, tmp_path):
    rng = np.random.default_rng(3)
    agrees = read(with_bias(click(), rng.normal(5010, 10, (8, 8)).round()))
    assert any(
        "readbiasonly.TIF averages 50" in n and "agrees with the Read Bias Level of 500" in n for n in agrees.notes
    )
    differs = read(with_bias(click(), rng.normal(6000, 10, (8, 8)).round()))
    assert any("the header's Read Bias Level is 500; the header is believed" in w for w in differs.warnings)
    constant = read(with_bias(click(), np.full((8, 8), 65534)))
    assert "readbiasonly.TIF is refused as a bias frame: every pixel holds 6553.4" in constant.warnings
    (tmp_path / "readbiasonly.TIF").write_bytes(b"II*\0")
    damaged = read(tmp_path)
    assert any("the bias frame cannot be read, so the Read Bias Level is not checked" in w for w in damaged.warnings)
    for scan in (agrees, differs, constant, damaged):
        np.testing.assert_array_equal(scan.signal(), agrees.signal())


def test_a_bias_frame_stands_in_for_a_missing_level(click):
    folder = with_bias(click(), np.random.default_rng(3).normal(5000, 10, (8, 8)).round())
    info = folder / "ClickInfo.txt"
    info.write_text(info.read_text().replace("Read Bias Level:\t500\nImage Units", "Image Units"))
    scan = read(folder)
    assert scan.camera.bias == pytest.approx(500, abs=1)
    assert any("the header gives no Read Bias Level; the mean of readbiasonly.TIF" in n for n in scan.notes)
    (folder / "readbiasonly.TIF").unlink()
    with pytest.raises(UnreadableImage, match="no Read Bias Level and there is no usable bias frame"):
        read(folder)


@pytest.mark.parametrize("text", ["1.0,0,x,0,0,0.5,-0.25", "1.0", "1.0,,,0,0,0,0"])
def test_a_flat_field_that_is_no_numbers_is_refused(click, text):
    folder = click()
    info = folder / "ClickInfo.txt"
    info.write_text(info.read_text().replace("1.0,0,-0.1,0,0,0.5,-0.25", text))
    with pytest.raises(UnreadableImage, match=r"'Shelf Position A FF5 f/1 Coefs' of the header holds '1\.0"):
        read(folder)


def test_links_out_of_the_folder_are_not_followed(click, tmp_path_factory):
    folder = click()
    outside = tmp_path_factory.mktemp("outside") / "secret.TIF"
    tifffile.imwrite(outside, np.full((8, 8), 9999, np.uint16))
    (folder / "luminescent.TIF").unlink()
    (folder / "luminescent.TIF").symlink_to(outside)
    with pytest.raises(UnreadableImage, match="a link to a place outside its folder, which is not followed"):
        read(folder)


@pytest.mark.parametrize("shape", [(2, 8, 8), (1 << 14, 1 << 14)])
def test_shapes_of_no_camera_are_refused(click, shape):
    folder = click()
    with tifffile.TiffWriter(folder / "luminescent.TIF") as tif:
        if len(shape) == 3:
            tif.write(np.zeros(shape, np.uint16), volumetric=True, tile=(16, 16, 16))
        else:
            tif.write(iter([b"x"] * 1024), shape=shape, dtype=np.uint8, tile=(512, 512), compression="zlib")
    with pytest.raises(UnreadableImage, match=r"its shape \(.*\) is not that of a camera's grey frame"):
        read(folder)


def test_a_header_of_monstrous_size_is_refused(click):
    folder = click()
    with (folder / "ClickInfo.txt").open("r+b") as handle:
        handle.truncate(1 << 30)
    with pytest.raises(UnreadableImage, match="1073741824 bytes is no header"):
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
    assert scan.bands == (Band(None, None, "Open"),)
    assert any("readbias.TIF averages 496.203 counts and agrees" in n for n in scan.notes)


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
