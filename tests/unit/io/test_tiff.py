"""TIFFs: what the metadata say is used, what they do not say stays unknown, what is damaged is refused."""

import contextlib
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from evbiodist.io import tiff
from evbiodist.io.registry import read, read_scan
from evbiodist.io.scan import Band
from evbiodist.io.stream import blocks
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


# lazily read stacks


@pytest.fixture
def lazy(monkeypatch):
    """Every stack stays on disk."""
    monkeypatch.setattr(tiff, "LAZY_BYTES", 0)


def _stack(shape, dtype=np.uint16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


LAYOUTS = {
    "compressed": ({"compression": "zlib"}, (7, 16, 32), "TYX"),
    "as it is": ({}, (7, 16, 32), "TYX"),
    "big-endian": ({"byteorder": ">"}, (7, 16, 32), "TYX"),
    "big-endian compressed": ({"byteorder": ">", "compression": "zlib"}, (7, 16, 32), "TYX"),
    "predicted": ({"compression": "zlib", "predictor": True}, (7, 16, 32), "TYX"),
    "tiled": ({"tile": (16, 16), "compression": "zlib"}, (7, 20, 40), "TYX"),
    "one directory": ({"truncate": True}, (7, 16, 32), "TYX"),
    "ImageJ": ({"imagej": True, "metadata": {"axes": "TZCYX"}}, (2, 3, 2, 16, 32), "TZCYX"),
    "ImageJ with one directory": ({"imagej": True, "truncate": True, "metadata": {"axes": "ZYX"}}, (7, 16, 32), "ZYX"),
    "OME": ({"ome": True, "compression": "zlib", "metadata": {"axes": "TCYX"}}, (4, 3, 16, 32), "TCYX"),
    "OME, slices first": ({"ome": True, "compression": "zlib", "metadata": {"axes": "ZTYX"}}, (4, 3, 16, 32), "ZTYX"),
}
KEYS = (0, -1, (1, slice(3, 9)), slice(1, None, 2), slice(None, None, -1), (..., 4), slice(5, 5), (slice(2), slice(4)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_lazy_stack_is_the_stack(tmp_path, lazy, layout, dtype):
    options, shape, axes = LAYOUTS[layout]
    stored = _stack(shape, dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", **options)
    scan = read(tmp_path / "a.tif")
    named = "".join(a for a in "TCZYX" if a in axes)  # the order of Scan, whatever the file's
    array = stored.transpose([axes.index(a) for a in named])
    assert scan.lazy
    assert (scan.axes, scan.counts.shape, scan.counts.dtype) == (named, array.shape, np.dtype(dtype))
    assert scan.counts.dtype.isnative
    np.testing.assert_array_equal(scan.counts[...], array)
    for key in KEYS:
        np.testing.assert_array_equal(scan.counts[key], array[key])
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks(scan, 5)]).ravel(), array.ravel())
    np.testing.assert_array_equal(np.stack(list(scan.frames())).ravel(), array.ravel())


def test_axes_in_memory_are_in_order_too(tmp_path):
    array = _stack((2, 3, 4, 16, 32))
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TZCYX"})
    scan = read(tmp_path / "a.tif")
    assert scan.axes == "TCZYX"
    np.testing.assert_array_equal(scan.counts[1, 2, 0], array[1, 0, 2])
    np.testing.assert_array_equal(np.stack(list(scan.frames()))[5], array[1, :, 1])


def test_blocks_of_a_lazy_stack_itself(tmp_path, lazy):
    array = _stack((7, 16, 32))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib")
    got = list(read(tmp_path / "a.tif").counts.blocks(3))
    assert [start for start, _ in got] == [0, 3, 6]
    np.testing.assert_array_equal(np.concatenate([block for _, block in got]), array)


def test_letters_that_name_an_axis_twice_are_not_guessed(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _stack((3, 4, 16, 32)), photometric="minisblack", planarconfig="separate")
    with pytest.raises(UnreadableImage, match=r"expected planes \(YX\) in a stack, with each axis once"):
        read(tmp_path / "a.tif")


def test_samples_in_planes_of_one_page(tmp_path, lazy):
    array = _stack((4, 16, 32))
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="minisblack", planarconfig="separate", compression="zlib", metadata=None
    )
    scan = read(tmp_path / "a.tif")
    assert scan.lazy
    np.testing.assert_array_equal(scan.counts[2], array[2])
    np.testing.assert_array_equal(scan.counts[::-2], array[::-2])


def test_small_stacks_and_single_images_are_in_memory(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", _stack((3, 4, 5)), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", IMAGE)
    assert not read(tmp_path / "a.tif").lazy
    monkeypatch.setattr(tiff, "LAZY_BYTES", _stack((3, 4, 5)).nbytes)
    assert not read(tmp_path / "a.tif").lazy
    monkeypatch.setattr(tiff, "LAZY_BYTES", 0)
    assert read(tmp_path / "a.tif").lazy
    assert not read(tmp_path / "b.tif").lazy


def test_the_limit_is_for_what_is_decoded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_MAX_BYTES", 1000)
    tifffile.imwrite(tmp_path / "a.tif", _stack((10, 16, 16)), photometric="minisblack")
    with pytest.raises(UnreadableImage, match="GiB of pixels is over the limit"):
        read(tmp_path / "a.tif")
    monkeypatch.setattr(tiff, "LAZY_BYTES", 0)
    assert read(tmp_path / "a.tif").counts[9, 15, 15] == 2559


def test_only_the_pages_that_are_asked_for_are_decoded(tmp_path, lazy):
    tifffile.imwrite(tmp_path / "a.tif", _stack((6, 32, 32)), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        at = tif.pages[3].dataoffsets[0]
    with (tmp_path / "a.tif").open("r+b") as handle:
        handle.seek(at)
        handle.write(b"\xff" * 8)
    scan = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(scan.counts[2], _stack((6, 32, 32))[2])
    stream = blocks(scan, 3)
    assert next(stream)[0] == 0
    with pytest.raises(
        UnreadableImage, match=r"a\.tif: frames 4 to 6 cannot be decoded \(.*may be damaged: copy it again"
    ):
        next(stream)


def test_a_file_cut_off_after_it_was_opened(tmp_path, lazy):
    tifffile.imwrite(tmp_path / "a.tif", _stack((6, 32, 32)), photometric="minisblack", truncate=True)
    scan = read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
    with pytest.raises(UnreadableImage, match="plane 6 is cut off"):
        _ = scan.counts[5]


def test_threads_and_processes_may_share_a_lazy_stack(tmp_path, lazy):
    array = _stack((40, 16, 16))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib")
    counts = read(tmp_path / "a.tif").counts
    with ThreadPoolExecutor(8) as pool:
        for i, page in zip(range(40), pool.map(counts.__getitem__, range(40)), strict=True):
            np.testing.assert_array_equal(page, array[i])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(counts))[3], array[3])  # noqa: S301  our own bytes


def test_a_directory_of_one_page_that_claims_more_than_the_file(tmp_path, lazy):
    tifffile.imwrite(tmp_path / "a.tif", _stack((6, 32, 32)), photometric="minisblack", truncate=True)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-2048])
    with pytest.raises(UnreadableImage, match=r"truncated: its 6 planes end at byte \d+, the file at \d+"):
        read(tmp_path / "a.tif")


def test_an_imagej_stack_that_lost_its_end_is_not_read_as_its_first_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _stack((6, 32, 32)), imagej=True, truncate=True, metadata={"axes": "TYX"})
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-2048])
    with pytest.raises(UnreadableImage, match="ImageJ states 6 images, the file holds 1; copy it again"):
        read(tmp_path / "a.tif")


def test_images_of_another_shape_in_the_file_are_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(IMAGE)
        out.write(IMAGE[:6])
    assert read(tmp_path / "a.tif").warnings == ("the file holds 1 more image of another shape, which is not read",)


# what OME-XML says

SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def _ome(folder, pixels="", inside="", planes=3, sizes='SizeT="3" SizeC="1" SizeZ="1"', head="", data="<TiffData/>"):
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<OME xmlns="{SCHEMA}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="uint16" SizeX="16" SizeY="12" {sizes} {pixels}>{inside}{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(
        folder / "a.ome.tif",
        _stack((planes, 12, 16)),
        photometric="minisblack",
        description=xml.encode(),
        metadata=None,
    )
    return folder / "a.ome.tif"


CHANNEL = '<Channel ID="Channel:0" SamplesPerPixel="1" {}/>'


def _planes(*attributes):
    return "".join(f'<Plane TheC="0" TheZ="0" TheT="{t}" {text}/>' for t, text in enumerate(attributes))


@pytest.mark.parametrize(("unit", "step"), [("s", 2.0), ("ms", 0.002), ("min", 120.0), ("h", 7200.0)])
def test_time_increment_with_a_unit(tmp_path, unit, step):
    scan = read(_ome(tmp_path, f'TimeIncrement="2" TimeIncrementUnit="{unit}"'))
    assert scan.timing.start_s == pytest.approx((0, step, 2 * step))
    assert scan.timing.duration_s == (0, 0, 0)
    assert "how long a frame lasts is not stated: taken as 0" in scan.notes


@pytest.mark.parametrize(
    "text",
    [
        "",
        'TimeIncrement="2"',
        'TimeIncrement="2" TimeIncrementUnit="frames"',
        'TimeIncrement="0" TimeIncrementUnit="s"',
        'TimeIncrement="nan" TimeIncrementUnit="s"',
        'TimeIncrement="two" TimeIncrementUnit="s"',
    ],
)
def test_no_time_axis_is_invented(tmp_path, text):
    scan = read(_ome(tmp_path, text))
    assert scan.timing is None
    assert "OME states no frame times with a unit" in scan.notes


def test_measured_times_win_over_planned_ones_and_exposure_is_the_duration(tmp_path):
    planes = _planes(
        *(f'DeltaT="{t}" DeltaTUnit="s" ExposureTime="500" ExposureTimeUnit="ms"' for t in (0.1, 2.3, 4.2))
    )
    scan = read(_ome(tmp_path, 'TimeIncrement="2" TimeIncrementUnit="s"', planes))
    assert scan.timing.start_s == pytest.approx((0.1, 2.3, 4.2))
    assert scan.timing.duration_s == (0.5, 0.5, 0.5)
    assert scan.exposure_s == 0.5


def test_times_that_run_backwards_are_left_out_and_said(tmp_path):
    scan = read(_ome(tmp_path, inside=_planes(*(f'DeltaT="{t}" DeltaTUnit="s"' for t in (0, 5, 3)))))
    assert scan.timing is None
    assert scan.warnings[0].startswith("the frame times of OME are not used: frame 3 starts at 3 s, not after frame 2")


def test_planes_without_all_times_fall_back_to_the_increment(tmp_path):
    scan = read(
        _ome(
            tmp_path, 'TimeIncrement="2" TimeIncrementUnit="s"', _planes('DeltaT="0" DeltaTUnit="s"', 'DeltaT="5"', "")
        )
    )
    assert scan.timing.start_s == (0, 2, 4)


def test_exposures_that_differ_are_not_one_exposure(tmp_path):
    scan = read(_ome(tmp_path, inside=_planes(*(f'ExposureTime="{t}" ExposureTimeUnit="s"' for t in (1, 1, 2)))))
    assert scan.exposure_s is None


def test_bands_and_slices(tmp_path):
    said = (
        'EmissionWavelength="520" ExcitationWavelength="488" Name="GFP"',
        'EmissionWavelength="0.8" EmissionWavelengthUnit="µm"',
        "",
    )
    sizes = 'PhysicalSizeZ="5" PhysicalSizeX="1" PhysicalSizeY="2"'
    scan = read(_ome(tmp_path, sizes, "".join(map(CHANNEL.format, said)), 6, 'SizeT="1" SizeC="3" SizeZ="2"'))
    assert scan.axes == "CZYX"
    assert scan.bands == (Band(520.0, 488.0, "GFP"), Band(800.0), Band())
    assert scan.slice_mm == pytest.approx(0.005)
    assert scan.pixel_size_mm == pytest.approx((0.002, 0.001))
    assert scan.spacing_mm == pytest.approx((0.005, 0.002, 0.001))


def test_one_channel_is_the_band_of_a_scan_without_axis_c(tmp_path):
    assert read(_ome(tmp_path, inside=CHANNEL.format('EmissionWavelength="600"'))).bands == (Band(600.0),)
    assert read(_ome(tmp_path, inside=CHANNEL.format(""))).bands == ()


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "x"])
def test_a_physical_size_that_is_none(tmp_path, size):
    assert read(_ome(tmp_path, f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"')).pixel_size_mm is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": 'SizeT="1000000000" SizeC="1" SizeZ="1"'}, r"declares 1000000000 planes \(T x C x Z of the first image: "
         r"1000000000x1x1\), the file holds 3 pages; export it as one complete file"),
        ({"sizes": 'SizeT="2" SizeC="2" SizeZ="1"'}, "declares 4 planes .* holds 3 pages"),
        ({"data": '<TiffData IFD="0" PlaneCount="1000000000"/>'}, "names page 1000000000, the file holds 3 pages"),
        ({"data": '<TiffData IFD="7"/>'}, "names page 8, the file holds 3 pages"),
        ({"data": '<TiffData IFD="-1"/>'}, "the file holds 3 pages"),
        ({"data": '<TiffData FirstT="2" IFD="2"/>'}, "planes are missing"),
        ({"sizes": 'SizeT="three" SizeC="1" SizeZ="1"'}, "states no usable sizes"),
        ({"sizes": 'SizeT="0" SizeC="1" SizeZ="1"'}, "states sizes T 0, C 1, Z 1"),
        ({"sizes": 'SizeC="1" SizeZ="1"'}, "states no usable sizes"),
        ({"inside": "<Channel></Chanel>"}, "its OME-XML cannot be read .mismatched tag"),
        ({"head": "<!DOCTYPE OME>"}, "holds a DOCTYPE, which is refused"),
        ({"head": '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>', "inside": "&b;"}, "DOCTYPE"),
    ],
)  # fmt: skip
def test_ome_xml_that_does_not_fit_its_file(tmp_path, options, words):
    with pytest.raises(UnreadableImage, match=words):
        read(_ome(tmp_path, **options))


def test_a_file_of_a_set_described_elsewhere_is_not_read_as_the_whole(tmp_path):
    xml = f'<OME xmlns="{SCHEMA}"><BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:1"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, description=xml.encode(), metadata=None)
    with pytest.raises(UnreadableImage, match="lies in a companion file"):
        read(tmp_path / "a.ome.tif")
