"""What reliability promises of reading, where no reader's own test has it: nothing missing reads as zeros, nothing hangs."""

import json
import shutil
import struct
import time

import numpy as np
import pytest
import tifffile
import zarr

from evbiodist.io import ivis_click, living_image, registry, tiff
from evbiodist.io.ivis_header import parse_click_info
from evbiodist.io.ome_zarr import read_ome_zarr, write_ome_zarr
from evbiodist.io.registry import read, read_table
from evbiodist.io.roi_tables import is_aside, is_plain, number
from evbiodist.io.scan import Scan
from evbiodist.io.voistat import read_voistat
from evbiodist.study.load import load_study
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError, UnreadableImage

PIXELS = np.random.default_rng(0).integers(1, 1000, (3, 12, 16)).astype(np.uint16)


def write(path, array=PIXELS, **options):
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None, **options)
    return path


def change(path, tag, value, page=0):
    """Write another number into a tag of a page, where a tag of one number holds it."""
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[page].tags[tag].valueoffset
        code = {3: "<H", 4: "<I"}[int(tif.pages[page].tags[tag].dtype)]
    data = bytearray(path.read_bytes())
    data[at : at + struct.calcsize(code)] = struct.pack(code, value)
    path.write_bytes(data)


def refused(path):
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    return caught.value.reason


# --- nothing missing reads as zeros -------------------------------------------------------------------------------------


def test_fewer_strips_than_the_image_needs_do_not_read_as_zeros(tmp_path):
    path = write(tmp_path / "a.tif", rowsperstrip=4)
    change(path, "RowsPerStrip", 1, page=1)
    assert refused(path).startswith("page 2 of 3 has missing strips, which would read as zeros")


def test_fewer_tiles_than_the_image_needs_do_not_read_as_zeros(tmp_path):
    path = write(tmp_path / "a.tif", np.tile(PIXELS, (1, 3, 2)), tile=(16, 16), compression="zlib")
    change(path, "ImageLength", 4800)
    assert refused(path).startswith("page 1 of 3 has missing strips")


@pytest.mark.parametrize("place", ["beyond", "in pixels", "first page"])
def test_a_list_of_pages_that_breaks_off_is_not_read_as_a_shorter_stack(tmp_path, place):
    path = write(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tif:
        second = tif.pages[1]
        at = second.offset + 2 + 12 * len(second.tags)
        target = {"beyond": 10**6, "in pixels": tif.pages[0].dataoffsets[0] + 1, "first page": tif.pages[0].offset}[
            place
        ]
    data = bytearray(path.read_bytes())
    assert struct.unpack("<I", data[at : at + 4])[0] > 0
    data[at : at + 4] = struct.pack("<I", target)
    path.write_bytes(data)
    assert "planes are missing; copy the file again" in refused(path)


@pytest.mark.parametrize(("tag", "words"), [("ImageLength", "rowsperstrip=0"), ("ImageWidth", "an axis has no extent")])
def test_an_axis_without_extent_is_not_an_image(tmp_path, tag, words):
    path = write(tmp_path / "a.tif", PIXELS[0])
    change(path, tag, 0)
    assert words in refused(path)


def test_a_camera_frame_that_lost_its_bit_depth_is_not_read_as_bits(tmp_path):
    path = write(tmp_path / "a.tif", PIXELS[0])
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags["BitsPerSample"].offset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = struct.pack("<H", 65000)  # a tag that nobody knows
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="pixels are of type bool; expected integer or float counts"):
        ivis_click._pixels(path)
    assert "bool" in refused(path)


# --- no size is believed before it is checked -----------------------------------------------------------------------------


def test_more_than_a_thousand_pixels_a_byte_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "LAZY_BYTES", 1 << 20)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_: pytest.fail("decoded"))
    bomb = write(tmp_path / "a.tif", np.zeros((2048, 2048), np.uint16), compression="zstd", rowsperstrip=2048)
    assert bomb.stat().st_size < 2048 * 2048 * 2 / 1000
    assert "which no image does" in refused(bomb)


def test_a_tile_far_larger_than_its_image_is_refused_before_decoding(tmp_path):
    path = write(tmp_path / "a.tif", np.tile(PIXELS, (1, 3, 2)), tile=(16, 16), compression="zlib")
    change(path, "TileWidth", 1 << 29)
    assert "would unpack to 16.0 GiB of pixels, which no image does" in refused(path)


@pytest.mark.parametrize("size", ["SizeX", "SizeY"])
def test_planes_of_ome_that_are_larger_than_the_pages(tmp_path, size):
    sizes = {"SizeX": 16, "SizeY": 12, "SizeT": 3, "SizeC": 1, "SizeZ": 1} | {size: 10**12}
    xml = ('<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
           'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" ' + " ".join(f'{k}="{v}"' for k, v in sizes.items())
           + "><TiffData/></Pixels></Image></OME>")  # fmt: skip
    path = write(tmp_path / "a.tif", description=xml.encode())
    assert refused(path).startswith("its OME-XML declares planes of 1")


def test_codecs_that_ask_for_more_memory_than_the_directory_states(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", compression="zlib")

    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", greedy)
    assert refused(path).startswith("its compressed pixels ask for far more memory than the 1152 bytes")


@pytest.mark.parametrize("name", ["a.csv", "a.voistat", "study.toml"])
def test_a_table_larger_than_any_is_refused_before_it_is_read(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as handle:
        handle.write(b"// VoiName(Region) [string]\tTime [seconds]\tAveraged [kBq/cc]\tVolume [ccm]\n")
        handle.truncate(65 << 20)  # a hole: no such file is written
    with pytest.raises(InputError, match="65 MiB"):
        load_study(path) if name == "study.toml" else read(path)


# --- one exception leaves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "it needs more memory than there is"),
        (KeyError("x"), "the tiff reader failed (KeyError: 'x')"),
        (PermissionError(13, "Permission denied"), "the tiff reader failed (PermissionError"),
    ],
)
def test_whatever_a_reader_raises_leaves_as_a_sentence(tmp_path, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    path = write(tmp_path / "a.tif")
    monkeypatch.setattr(tiff, "READER", registry.Reader("tiff", "TIFF", tiff.READER.takes, fail))
    assert refused(path).startswith(words)


def test_a_file_that_cannot_even_be_looked_at(tmp_path, monkeypatch):
    def takes(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tiff, "READER", registry.Reader("tiff", "TIFF", takes, tiff.READER.read))
    assert (
        refused(write(tmp_path / "a.tif")) == "it cannot be opened (Permission denied); check its rights and its place"
    )


def test_describing_pixels_on_disk_that_are_damaged(tmp_path):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, PIXELS, "TYX"))
    scan = read(path)
    chunk = path / "0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(UnreadableImage, match="its first frame cannot be decoded"):
        scan.describe()


def test_any_flipped_bit_in_our_zarr_is_noticed(tmp_path):
    """reliability.md: 40 of 200 with zarr's default codecs, 200 of 200 with crc32c."""
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, PIXELS[:1], "TYX"))
    chunk = path / "0" / "c" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    chance = np.random.default_rng(3)
    for bit in chance.choice(8 * len(whole), 60, replace=False).tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(data)
        with pytest.raises(UnreadableImage):
            read(path).describe()
    chunk.write_bytes(whole)
    np.testing.assert_array_equal(read(path).counts[...].squeeze(), PIXELS[0])


# --- nothing takes long ---------------------------------------------------------------------------------------------------

LONG = 100_000


@pytest.mark.parametrize(
    "look",
    [
        lambda: is_aside("bkg" + "1" * LONG + "x"),
        lambda: is_aside("total" + "-" * LONG + "x"),
        lambda: is_plain("roi" + " " * LONG + "x"),
        lambda: number("9" * LONG + "x", comma=True),
        lambda: living_image._column(" " * LONG + "x"),
        lambda: parse_click_info("*** a:b\nk:\ta" + " " * LONG + "b\n***" + " " * LONG + "\n"),
        lambda: [
            ivis_click.LAMP.search(k) for s in parse_click_info("*** a:b\n" + "lamp" * LONG + ":\t1\n") for k in s.keys
        ],
    ],
)
def test_long_runs_of_one_character_take_no_time(look):
    """Patterns that go back over what they have read take hours on a line of a megabyte."""
    begin = time.process_time()
    look()
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize("run", ["[", "(", "[a", " ", "voi", "9", "unit in :"])
@pytest.mark.parametrize("suffix", [".csv", ".txt", ".voistat"])
def test_tables_of_one_long_line_end_in_words(tmp_path, run, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text(f"# unit in {run * 20_000} x y\norgan,m30,{run * 20_000}x\nLiver,1,2\n", encoding="utf-8")
    begin = time.process_time()
    with pytest.raises((InputError, UnreadableImage)):
        read_table(path, ObservationSource(file=path.name, label="a", unit=None))
    with pytest.raises(InputError):
        read_voistat(path)
    assert time.process_time() - begin < 2.0


# --- calibrations that are no numbers -------------------------------------------------------------------------------------

CLICK = """*** ClickNumber:\tX1
*** luminescent image:\tluminescent.TIF
Luminescent Exposure (Seconds):\t{exposure}
Binning Factor:\t8
f Number:\t1
Field of View:\t4
Read Bias Level:\t500
Image Units:\tcounts
*** Camera System Info:\t
CCD Saturation Level:\t61000
Shelf Position A FOV:\t4
Coef C-ccd at FOV 4, f1:\t{coefficient}
Shelf Position A FF5 f/1 Coefs:\t{flat}
"""
GOOD = {"exposure": "10", "coefficient": "6.4E+05", "flat": "1.0,0,-0.1,0,0,0.5,-0.25"}


@pytest.mark.parametrize(
    "odd",
    [
        *(
            {"flat": text}
            for text in ("1e308,1e308,1e308,0,0,0,0", "0,0,0,0,0,0,0", "nan,0,0,0,0,0,0", "-1,0,0,0,0,0,0")
        ),
        {"coefficient": "-5"},
        {"coefficient": "1e999"},
        {"exposure": "-10"},
    ],
)
def test_a_radiance_that_is_no_number_above_0_is_refused(tmp_path, odd):
    write(tmp_path / "luminescent.TIF", np.full((8, 8), 1500, np.uint16))
    (tmp_path / "ClickInfo.txt").write_text(CLICK.format(**GOOD))
    assert read(tmp_path).signal().min() > 0
    (tmp_path / "ClickInfo.txt").write_text(CLICK.format(**(GOOD | odd)))
    assert "give no finite radiance above 0 per count; export the click again" in refused(tmp_path)


def test_json_of_many_brackets_is_a_sentence(tmp_path):
    write(tmp_path / "a.tif")
    (tmp_path / "a.json").write_text('{"evbiodist": 1, "axes": ' + "[" * 200_000)
    assert (
        refused(tmp_path / "a.tif")
        == "its sidecar a.json cannot be read: it is nested too deeply; correct or remove it"
    )


def test_a_header_of_a_hundred_thousand_columns_takes_no_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("organ,m30," + ",".join("ab" * 2 for _ in range(100_000)) + "\nLiver,1\n", encoding="utf-8")
    begin = time.process_time()
    with pytest.raises(InputError, match="found '100002 columns', expected a table of up to 1000 columns"):
        read(path)
    assert time.process_time() - begin < 3.0


def test_shards_without_extent_are_refused(tmp_path):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, PIXELS, "TYX"))
    shutil.rmtree(path / "0")
    zarr.create_array(path / "0", shape=PIXELS.shape, chunks=(1, 12, 8), shards=(3, 12, 16), dtype="u2")[...] = PIXELS
    assert read(path).counts[...].tolist() == PIXELS.tolist()
    described = json.loads((path / "0" / "zarr.json").read_text())
    described["chunk_grid"]["configuration"]["chunk_shape"][0] = 0
    (path / "0" / "zarr.json").write_text(json.dumps(described))
    assert "expected every axis to have an extent" in refused(path)


def test_a_strip_before_the_file_does_not_read_as_zeros(tmp_path):
    path = write(tmp_path / "a.tif", PIXELS[0])
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["StripOffsets"]
    data = bytearray(path.read_bytes())
    data[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", 9)  # a signed number
    data[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<i", -48)
    path.write_bytes(data)
    assert refused(path).startswith("page 1 of 1 has missing strips, which would read as zeros")


@pytest.mark.parametrize("name", ["9" * 400, "a\0b", "9" * 5000])
def test_a_name_in_zarr_metadata_that_no_folder_can_have(tmp_path, name):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, PIXELS, "TYX"))
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = name
    (path / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(UnreadableImage) as caught:
        read_ome_zarr(path)
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize("unit", ["nan", "inf", "nanometre2", "x" * 20])
def test_an_axis_of_zarr_in_no_unit_has_no_size(tmp_path, unit):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, PIXELS, "TYX", pixel_size_mm=(0.1, 0.1)))
    text = (path / "zarr.json").read_text()
    assert "millimeter" in text
    (path / "zarr.json").write_text(text.replace("millimeter", unit))
    assert read(path).pixel_size_mm is None


def test_a_number_of_animals_that_cannot_be(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"organ,t_min,mean,sd,n\nLiver,30,8.1,0.5,{'9' * 400}\n")
    with pytest.raises(InputError, match=r"row 2, column n: .*expected 1e\+06 or less"):
        read(path)
