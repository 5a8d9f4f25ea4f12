"""TIFFs: what the metadata say is used, what they do not say stays unknown, what is damaged is refused."""

import contextlib
import struct

import numpy as np
import pytest
import tifffile

from evbiodist.io.registry import read, read_scan
from evbiodist.study.problems import UnreadableImage

IMAGE = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)


def test_plain_tiff_has_no_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    scan = read(tmp_path / "a.tif")
    assert scan.pixel_size_mm is None
    assert scan.axes == "YX"
    np.testing.assert_array_equal(scan.counts, IMAGE)


@pytest.mark.parametrize(("resolution", "unit"), [((72, 72), "INCH"), ((96, 96), "INCH"), ((1, 1), "NONE")])
def test_default_resolutions_are_unknown(tmp_path, resolution, unit):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, resolution=resolution, resolutionunit=unit, metadata=None)
    assert read(tmp_path / "a.tif").pixel_size_mm is None


def test_resolution_tags(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, resolution=(20, 40), resolutionunit="CENTIMETER", metadata=None)
    assert read(tmp_path / "a.tif").pixel_size_mm == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize(("unit", "mm"), [("mm", 0.5), ("um", 0.0005), ("\\u00B5m", 0.0005), ("cm", 5.0)])
def test_imagej_pixel_size_and_unit(tmp_path, unit, mm):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([IMAGE, IMAGE]), imagej=True, resolution=(2, 2),
                     metadata={"unit": unit, "axes": "TYX"})  # fmt: skip
    scan = read(tmp_path / "a.tif")
    assert scan.pixel_size_mm == pytest.approx((mm, mm))
    assert scan.axes == "TYX"


def test_imagej_without_unit_is_unknown(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, resolution=(2, 2), metadata={"axes": "YX"})
    assert read(tmp_path / "a.tif").pixel_size_mm is None


def test_ome_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, metadata={"axes": "YX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "µm",
                                                              "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "mm"})  # fmt: skip
    assert read(tmp_path / "a.ome.tif").pixel_size_mm == pytest.approx((0.5, 0.25))


def test_ome_companions_are_not_followed(tmp_path):
    tifffile.imwrite(tmp_path / "secret.tif", np.full((12, 16), 7, np.uint16))
    (tmp_path / "study").mkdir()
    tifffile.imwrite(tmp_path / "study" / "a.ome.tif", IMAGE, metadata={"axes": "YX"})
    with tifffile.TiffFile(tmp_path / "study" / "a.ome.tif") as tif:
        xml = tif.ome_metadata
    evil = xml.replace("<TiffData", '<TiffData><UUID FileName="../secret.tif">urn:uuid:1</UUID></TiffData><TiffData', 1)
    tifffile.imwrite(tmp_path / "study" / "b.ome.tif", IMAGE, description=evil.encode(), metadata=None)
    try:
        counts = read(tmp_path / "study" / "b.ome.tif").counts
    except UnreadableImage:
        return
    np.testing.assert_array_equal(counts, IMAGE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused_in_words(tmp_path, share):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(10_000, dtype=np.uint16).reshape(100, 100))
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnreadableImage, match=r"truncated: page 1 of 1 ends at byte \d+, the file at \d+"):
        read(tmp_path / "a.tif")


def test_missing_strips_do_not_read_as_zeros(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(10_000, dtype=np.uint16).reshape(100, 100), rowsperstrip=10)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        offsets = list(tif.pages[0].dataoffsets)
        offsets[3] = 0
        tif.pages[0].tags["StripOffsets"].overwrite(offsets)
    with pytest.raises(UnreadableImage, match="missing strips, which would read as zeros"):
        read(tmp_path / "a.tif")


def test_a_page_loop_ends(tmp_path):
    """reliability.md: a 492-byte TIFF whose second page points back to the first hangs tifffile.imread."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 4, 4), np.uint8), photometric="minisblack", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        first, second = tif.pages[0].offset, tif.pages[1].offset
    entries = struct.unpack("<H", data[second : second + 2])[0]
    at = second + 2 + 12 * entries
    data[at : at + 4] = struct.pack("<I", first)
    (tmp_path / "a.tif").write_bytes(data)
    with contextlib.suppress(UnreadableImage):  # refused or read: what counts is that it ends
        assert read(tmp_path / "a.tif").plane_shape == (4, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>", "not a TIFF"),
        (b"", "not a TIFF"),
        (b"II*\0" + b"\0" * 60, "holds no image|not a TIFF"),
    ],
)
def test_files_that_are_no_tiff(tmp_path, content, words):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableImage, match=words):
        read(tmp_path / "a.tif")


def test_colour_pictures_are_no_measurement(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 16, 3), np.uint8), photometric="rgb")
    with pytest.raises(UnreadableImage, match="colour picture"):
        read(tmp_path / "a.tif")


def test_tables_are_no_images_and_nothing_is_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("organ,h1\nliver,2\n")
    with pytest.raises(UnreadableImage, match="a table, not an image"):
        read_scan(tmp_path / "t.csv")
    with pytest.raises(UnreadableImage, match="no such file"):
        read(tmp_path / "nothing.tif")
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(UnreadableImage, match="no reader takes it; evbiodist reads: IVIS"):
        read(tmp_path / "a.docx")
