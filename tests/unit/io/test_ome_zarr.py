"""OME-Zarr stores built by hand after the NGFF 0.4 and 0.5 specifications (ngff.openmicroscopy.org): read lazily, in
our axes, with what the metadata say and nothing else; what is missing, hostile or no image is said in words."""

import json
import os
import pickle

import numpy as np
import pytest
import zarr

from evbiodist.io.ome_zarr import read_labels, read_ome_zarr, scan_level, write_ome_zarr
from evbiodist.io.registry import read, reader_for
from evbiodist.io.scan import Band, Camera, Scan, Tracer
from evbiodist.io.stream import blocks, slabs
from evbiodist.io.timing import FrameTiming
from evbiodist.study.problems import UnreadableImage

MICRO = {"type": "space", "unit": "micrometer"}
AXES = {
    "t": {"name": "t", "type": "time", "unit": "millisecond"},
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z"} | MICRO,
    "y": {"name": "y"} | MICRO,
    "x": {"name": "x"} | MICRO,
}
BOTH = pytest.mark.parametrize("version", ["0.4", "0.5"])


def _values(shape, dtype=np.uint16):
    return np.arange(1, np.prod(shape) + 1).reshape(shape).astype(dtype)


def _scale(*values):
    return [{"type": "scale", "scale": list(values)}]


def _array(folder, array, version, chunks=None, **options):
    """Write an array as zarr 2 (0.4) or zarr 3 (0.5)."""
    if version == "0.4":
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}, "zarr_format": 2} | options
    stored = zarr.create_array(folder, shape=array.shape, chunks=chunks or array.shape, dtype=array.dtype, **options)
    stored[...] = array


def _attributes(folder, version, metadata):
    """Write a group with OME metadata as text, as the specification prints it."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(metadata))
    else:
        node = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": version} | metadata}}
        (folder / "zarr.json").write_text(json.dumps(node))


def _store(folder, version, levels, axes="tczyx", scales=None, more=None, extra=None, chunks=None, **options):
    """Write an image of some levels; `more` goes into the multiscale, `extra` beside it."""
    for number, array in enumerate(levels):
        _array(folder / str(number), array, version, chunks, **options)
    scales = scales or [_scale(*[1.0] * len(axes))] * len(levels)
    multiscale = {
        "version": version,
        "name": "mouse",
        "axes": [AXES[a] for a in axes],
        "datasets": [{"path": str(n), "coordinateTransformations": s} for n, s in enumerate(scales)],
    }
    if version == "0.5":
        del multiscale["version"]
    _attributes(folder, version, {"multiscales": [multiscale | (more or {})]} | (extra or {}))
    return folder


@BOTH
def test_the_example_of_the_specification(tmp_path, version):
    """Scales 0.5, 1, 2 um a level and 0.1 ms a frame for all: the example `multiscales_example.json` of both versions."""
    full = _values((2, 2, 8, 8, 8))
    levels = [full, full[:, :, ::2, ::2, ::2], full[:, :, ::4, ::4, ::4]]
    scales = [_scale(1.0, 1.0, s, s, s) for s in (0.5, 1.0, 2.0)]
    omero = {"omero": {"channels": [{"label": "DiR", "color": "FF0000"}, {"label": "autofluorescence"}]}}
    more = {"coordinateTransformations": _scale(0.1, 1.0, 1.0, 1.0, 1.0), "type": "gaussian"}
    path = _store(tmp_path / "a.zarr", version, levels, scales=scales, more=more, extra=omero, chunks=(1, 1, 2, 4, 4))
    assert reader_for(path).name == "ome_zarr"
    scan = read(path)
    assert isinstance(scan.counts, zarr.Array)
    assert (scan.lazy, scan.axes, scan.name) == (True, "TCZYX", "a.zarr")
    assert scan.spacing_mm == pytest.approx((0.0005, 0.0005, 0.0005))
    assert scan.timing.start_s == pytest.approx((0, 1e-4))
    assert scan.timing.duration_s == (0, 0)
    assert "frames every 0.0001 s from OME-Zarr; how long one lasts is not stated: taken as 0" in scan.notes
    assert scan.bands == (Band(name="DiR"), Band(name="autofluorescence"))
    assert scan.header == {
        "format": f"OME-Zarr {version}", "level": "0", "levels": "0: 2 x 2 x 8 x 8 x 8; 1: 2 x 2 x 4 x 4 x 4; 2: 2 x 2 x 2 x 2 x 2",
    }  # fmt: skip
    assert scan.warnings == ()
    np.testing.assert_array_equal(scan.signal(), full)
    np.testing.assert_array_equal(np.stack(list(scan.frames())), full.reshape(4, 8, 8, 8))
    for number, size in enumerate((0.0005, 0.001, 0.002)):
        level = scan_level(path, number)
        assert level.spacing_mm == pytest.approx((size,) * 3)
        np.testing.assert_array_equal(level.counts[...], levels[number])
    with pytest.raises(UnreadableImage, match="there is no level 3; its 3 levels are numbered from 0"):
        scan_level(path, 3)
    with pytest.raises(UnreadableImage, match="there is no level -1"):
        scan_level(path, -1)


@BOTH
def test_axes_of_extent_one_are_left_out(tmp_path, version):
    array = _values((1, 1, 1, 6, 7))
    scan = read(_store(tmp_path / "a.zarr", version, [array]))
    assert (scan.axes, scan.plane_shape, scan.timing, scan.slice_mm) == ("YX", (6, 7), None, None)
    assert "axes t, c, z of extent 1 left out".upper() in scan.notes[0].upper()
    np.testing.assert_array_equal(scan.signal(), array[0, 0, 0])
    np.testing.assert_array_equal(scan.counts[2, 1:5], array[0, 0, 0, 2, 1:5])


@pytest.mark.parametrize("axes", ["xyz", "zxy", "yxt", "xcyz"])
def test_axes_in_another_order_are_put_in_ours(tmp_path, axes):
    shape = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
    array = _values(tuple(shape[a] for a in axes))
    scan = read(_store(tmp_path / "a.zarr", "0.5", [array], axes, [_scale(*[float(shape[a]) for a in axes])]))
    named = "".join(a for a in "tczyx" if a in axes)
    ours = array.transpose([axes.index(a) for a in named])
    assert scan.axes == named.upper()
    assert scan.pixel_size_mm == pytest.approx((0.005, 0.006))
    assert scan.slice_mm == (pytest.approx(0.004) if "z" in axes else None)
    np.testing.assert_array_equal(scan.counts[...], ours)
    for key in (0, (slice(1, 3), 2), (..., -1), (1, slice(None), slice(0, 5, 2)), (0,) * len(axes)):
        np.testing.assert_array_equal(scan.counts[key], ours[key])
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks(scan, 1)]).ravel(), ours.ravel())


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("millimeter", 1), ("nanometer", 1e-6), ("angstrom", 1e-7), ("inch", 25.4), ("meter", 1e3), ("centimeter", 10), ("mm", 1),
     (None, None), ("", None), ("pixel", None), ("second", None), ("wibble", None), ("2**9**9", None), (3, None)],
)  # fmt: skip
def test_a_pixel_size_only_with_a_unit_of_length(tmp_path, unit, mm):
    axes = [{"name": a, "type": "space"} | ({} if unit is None else {"unit": unit}) for a in "yx"]
    scan = read(_store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx", [_scale(2.0, 3.0)], {"axes": axes}))
    assert scan.pixel_size_mm == (None if mm is None else pytest.approx((2 * mm, 3 * mm)))
    assert ("OME-Zarr states no pixel size with a unit of length" in scan.notes) == (mm is None)


@pytest.mark.parametrize(
    ("unit", "seconds"), [("second", 1), ("minute", 60), ("hour", 3600), (None, None), ("micrometer", None)]
)
def test_frame_times_only_with_a_unit_of_time(tmp_path, unit, seconds):
    axes = [{"name": "t", "type": "time"} | ({} if unit is None else {"unit": unit}), AXES["y"], AXES["x"]]
    scan = read(
        _store(tmp_path / "a.zarr", "0.5", [_values((3, 4, 5))], "tyx", [_scale(2.0, 1.0, 1.0)], {"axes": axes})
    )
    assert scan.timing == (None if seconds is None else FrameTiming((0, 2 * seconds, 4 * seconds), (0, 0, 0)))


def test_axes_without_types_or_with_other_names(tmp_path):
    axes = [{"name": "frame", "type": "time"}, {"name": "dye", "type": "channel"}, {"name": "y"}, {"name": "x"}]
    scan = read(_store(tmp_path / "a.zarr", "0.4", [_values((3, 2, 4, 5))], "tcyx", more={"axes": axes}))
    assert (scan.axes, scan.pixel_size_mm) == ("TCYX", None)


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ({"name": "angle", "type": "custom"}, "axis 'angle' of type custom and extent 3 is none of t, c, z, y, x"),
        ({"name": "t", "type": "space"}, "axis 't' of type space"),
        ({"name": "lifetime"}, "axis 'lifetime' of type unknown"),
        ({"name": "y", "type": "space"}, "its axes are Y, Y, X; expected y and x, and each axis once"),
        ({"name": "x", "type": ["space"]}, "axis 'x' of type"),
        ({"type": "time"}, "name no axes"),
        ("t", "name no axes"),
    ],
)
def test_axes_that_mean_something_else(tmp_path, axis, words):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((3, 4, 5))], "tyx", more={"axes": [axis, AXES["y"], AXES["x"]]})
    with pytest.raises(UnreadableImage, match=words):
        read(path)


def test_a_custom_axis_of_extent_one_is_left_out(tmp_path):
    axes = [{"name": "angle", "type": "custom"}, AXES["y"], AXES["x"]]
    scan = read(_store(tmp_path / "a.zarr", "0.5", [_values((1, 4, 5))], "tyx", more={"axes": axes}))
    assert (scan.axes, scan.counts[...].tolist()) == ("YX", _values((4, 5)).tolist())


@pytest.mark.parametrize(
    "scale",
    [[1.0, 0.0], [1.0, -2.0], [1.0], [1.0, 2.0, 3.0], ["1", "2"], [True, 1.0], 2.0, [1, 10**400], [float("nan"), 1.0]],
)
def test_a_scale_that_cannot_be(tmp_path, scale):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx", [[{"type": "scale", "scale": scale}]])
    with pytest.raises(UnreadableImage, match=r"state a scale of .*; expected 2 numbers above 0, one for each axis"):
        read(path)


@pytest.mark.parametrize(
    "entries", [[], None, [{"type": "translation", "translation": [1, 1]}], [{"type": "scale", "path": "s"}], "scale"]
)
def test_without_a_scale_the_pixel_size_is_unknown(tmp_path, entries):
    scan = read(_store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx", [entries]))
    assert scan.pixel_size_mm is None
    assert "the metadata state no scale, so pixel size and times are unknown" in scan.warnings


def test_channels_that_are_not_as_many_as_the_planes(tmp_path):
    extra = {"omero": {"channels": [{"label": "a"}]}}
    scan = read(_store(tmp_path / "a.zarr", "0.5", [_values((2, 4, 5))], "cyx", extra=extra))
    assert scan.bands == ()
    assert scan.warnings == ("1 channels are named for 2 planes of axis C, so none is used",)


# what is missing


@BOTH
def test_missing_chunks_are_counted(tmp_path, version):
    path = _store(tmp_path / "a.zarr", version, [_values((4, 8, 8))], "tyx", chunks=(1, 4, 8))
    inner = path / "0" if version == "0.4" else path / "0" / "c"
    (inner / "2" / "1" / "0").unlink()
    (inner / "3" / "0" / "0").unlink()
    (inner / "3" / "0" / ".DS_Store").write_text("")
    (inner / "3" / "0" / "7").write_text("")  # no chunk of this grid
    scan = read(path)
    assert scan.warnings == ("2 of 8 chunks are missing and read as the fill value 0; some programs leave out empty ones, "
                             "else the copy is incomplete",)  # fmt: skip
    assert scan.counts[2, 4:].max() == 0


def test_chunks_under_the_wrong_separator_are_missing(tmp_path):
    """zarr looks for 0/0 and reads zeros where the files are called 0.0."""
    path = _store(tmp_path / "a.zarr", "0.4", [_values((8, 8))], "yx", chunks=(4, 4))
    for i, j in np.ndindex(2, 2):
        (path / "0" / str(i) / str(j)).rename(path / "0" / f"{i}.{j}")
    with pytest.raises(UnreadableImage, match="none of its 4 chunks is there; copy the whole folder"):
        read(path)


def test_missing_shards_are_counted(tmp_path):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((8, 8))], "yx", chunks=(2, 2), shards=(4, 4))
    assert read(path).warnings == ()
    np.testing.assert_array_equal(read(path).counts[...], _values((8, 8)))
    (path / "0" / "c" / "1" / "1").unlink()
    assert read(path).warnings[0].startswith("1 of 4 shards are missing")


@BOTH
def test_missing_arrays(tmp_path, version):
    full = _values((8, 8))
    path = _store(tmp_path / "a.zarr", version, [full, full[::2, ::2]], "yx")
    for file in (path / "1").rglob("*"):
        if file.is_file():
            file.unlink()
    scan = read(path)
    assert scan.header["levels"] == "0: 8 x 8; 1: missing"
    assert scan.warnings == (
        "level 1 is not usable: there is no array '1', which its metadata name; copy the whole folder",
    )
    with pytest.raises(UnreadableImage, match="there is no array '1'"):
        scan_level(path, 1)
    for file in (path / "0").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(
        UnreadableImage, match=r"a.zarr: there is no array '0', which its metadata name; copy the whole folder"
    ):
        read(path)


def test_levels_that_are_not_in_order_are_named(tmp_path):
    full = _values((8, 8))
    scan = read(_store(tmp_path / "a.zarr", "0.5", [full[::2, ::2], full], "yx"))
    assert scan.warnings == ("a later level is larger than level 0, so the levels are not in their order",)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "have no 'multiscales', so it is no OME-Zarr image"),
        ({"multiscales": []}, "describe no image"),
        ({"multiscales": {}}, "describe no image"),
        ({"multiscales": [{"axes": []}]}, "list no datasets"),
        ({"multiscales": [{"axes": [], "datasets": [{}]}]}, "has no path"),
        ({"multiscales": [{"axes": [], "datasets": [{"path": 0}]}]}, "has no path"),
        (
            {"multiscales": [{"axes": [AXES["y"]], "datasets": [{"path": "0"}]}]},
            r"name 1 axes, the array has 2 \(4 x 5\)",
        ),
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "name no axes"),
        (
            {"multiscales": [{"datasets": [{"path": "../b.zarr/0"}]}]},
            "name '../b.zarr/0', which lies outside of the folder",
        ),
        ({"multiscales": [{"datasets": [{"path": "/etc"}]}]}, "name '/etc', which lies outside"),
        ({"multiscales": [{"datasets": [{"path": "."}]}]}, "there is no array"),
        ({"version": "0.6", "multiscales": [{}]}, "it is OME-Zarr 0.6; expected 0.4 or 0.5"),
        ({"version": "0.1", "multiscales": [{}]}, "it is OME-Zarr 0.1"),
    ],
)
def test_metadata_that_describe_no_image(tmp_path, metadata, words):
    _array(tmp_path / "b.zarr" / "0", _values((4, 5)), "0.5")
    _array(tmp_path / "a.zarr" / "0", _values((4, 5)), "0.5")
    _attributes(tmp_path / "a.zarr", "0.5", metadata)
    with pytest.raises(UnreadableImage, match=words):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "[" * 100_000, "\x00\xff", "1" * 5000])
def test_damaged_metadata_files(tmp_path, text):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx")
    (path / "zarr.json").write_text(text)
    with pytest.raises(
        UnreadableImage, match=r"a.zarr: its zarr.json (cannot be read|holds no table of keys).*copy the folder again"
    ):
        read(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_array_description(tmp_path, share):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx")
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text[: int(share * len(text))])
    with pytest.raises(UnreadableImage, match=r"its zarr.json cannot be read"):
        read(path)


def test_a_folder_that_is_no_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UnreadableImage, match=r"a\.zarr: it holds neither zarr\.json nor \.zgroup"):
        read(tmp_path / "a.zarr")


def test_a_store_without_a_version_says_so(tmp_path):
    path = _store(tmp_path / "a.zarr", "0.4", [_values((4, 5))], "yx")
    text = (path / ".zattrs").read_text().replace('"version": "0.4", ', "")
    (path / ".zattrs").write_text(text)
    assert read(path).warnings == ("the metadata name no version; read as OME-Zarr 0.4 or 0.5",)


# what is hostile


def _edit(file, **changes):
    node = json.loads(file.read_text())
    file.write_text(json.dumps(node | changes))


GRID = {"name": "regular", "configuration": {"chunk_shape": [2, 2]}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [10**15, 10**15]}, "more than is read; correct its metadata"),
        ({"shape": [10**6, 10**6], "chunk_grid": GRID}, "in 250,000,000,000 chunks, more than is read"),
        ({"shape": [0, 5]}, "expected every axis to have an extent"),
        ({"shape": [-4, 5]}, "(cannot be opened|expected every axis)"),
        ({"shape": [10**5, 10**5], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [50_000, 50_000]}}},
         r"one chunk decodes to 4\.7 GiB, over the limit of 1 GiB; write it again in smaller chunks"),
        ({"data_type": "complex64", "fill_value": [0.0, 0.0]}, "pixels are of type complex64; expected integer or float counts"),
        ({"data_type": "bool", "fill_value": False}, "pixels are of type bool"),
        ({"data_type": "what"}, "cannot be opened"),
        ({"codecs": [{"name": "bytes"}, {"name": "run_me"}]}, "encoded with 'run_me', which is not read"),
        ({"codecs": ["pickle"]}, "encoded with 'pickle'"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.pickle"}]}}]},
         "encoded with 'numcodecs.pickle'"),
        ({"codecs": []}, "cannot be opened"),
        ({"storage_transformers": [{"name": "x"}]}, "cannot be opened"),
    ],
)  # fmt: skip
def test_array_descriptions_that_are_not_trusted(tmp_path, changes, words):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx")
    _edit(path / "0" / "zarr.json", **changes)
    with pytest.raises(UnreadableImage, match=words):
        read(path)


def test_frames_without_end_make_no_time_axis(tmp_path):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 2, 2), np.uint8)], "tyx")
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**8, 2, 2]}}
    _edit(path / "0" / "zarr.json", shape=[10**12, 2, 2], chunk_grid=grid)
    with pytest.raises(UnreadableImage, match="declare 1,000,000,000,000 frames, more than is read"):
        read(path)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("disguise", [{}, {"name": "zlib"}])
def test_a_pickle_in_a_chunk_is_not_run(tmp_path, monkeypatch, disguise):
    """zarr 2 stores name numcodecs filters by id, and `pickle` is one of them."""
    monkeypatch.chdir(tmp_path)
    path = _store(tmp_path / "a.zarr", "0.4", [_values((4, 5))], "yx", compressors=None)
    (path / "0" / "0" / "0").write_bytes(pickle.dumps(_Bomb()))
    _edit(path / "0" / ".zarray", filters=[{"id": "pickle", "protocol": 5} | disguise])
    with pytest.raises(UnreadableImage, match="encoded with 'pickle', which is not read"):
        blocks(read(path))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("what", ["chunk", "chunk folder", "array", "metadata", "array metadata"])
def test_links_out_of_the_folder_are_not_followed(tmp_path, what):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx")
    inside = {
        "chunk": "0/c/0/0",
        "chunk folder": "0/c",
        "array": "0",
        "metadata": "zarr.json",
        "array metadata": "0/zarr.json",
    }[what]
    (path / inside).rename(tmp_path / "secret")
    (path / inside).symlink_to(tmp_path / "secret")
    with pytest.raises(
        UnreadableImage, match=r"is a link out of the folder, which is not followed|lies outside of the folder"
    ):
        read(path)


def test_a_damaged_chunk_is_said_when_it_is_read(tmp_path):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, Scan("a", None, _values((6, 8, 8)), "TYX"))
    chunk = path / "0" / "c" / "3" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(
        UnreadableImage, match=r"a\.zarr: frames 3 to 4 cannot be decoded \(.*the file may be damaged: copy it again"
    ):
        list(blocks(read(path), 2))


@BOTH
def test_chunks_that_are_not_what_the_metadata_say(tmp_path, version):
    path = _store(tmp_path / "a.zarr", version, [_values((4, 5))], "yx", compressors=None)
    chunk = path / "0" / ("0/0" if version == "0.4" else "c/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(UnreadableImage, match=r"its first chunk cannot be decoded \(.*copy the folder again"):
        read(path)


# what is no single image


@BOTH
def test_a_plate_names_its_wells(tmp_path, version):
    plate = {
        "plate": {
            "wells": [{"path": f"A/{n}", "rowIndex": 0, "columnIndex": n} for n in range(1, 11)],
            "version": version,
        }
    }
    _attributes(tmp_path / "p.zarr", version, plate)
    _attributes(tmp_path / "p.zarr" / "A" / "1", version, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
    _store(tmp_path / "p.zarr" / "A" / "1" / "0", version, [_values((4, 5))], "yx")
    with pytest.raises(
        UnreadableImage, match=r"a plate of 10 wells \(A/1, A/2, .*A/8, \.\.\.\); name one image, such as p\.zarr/A/1/0"
    ):
        read(tmp_path / "p.zarr")
    with pytest.raises(UnreadableImage, match=r"a well of 2 images \(0, 1\); name one, such as 1/0"):
        read(tmp_path / "p.zarr" / "A" / "1")
    assert read(tmp_path / "p.zarr" / "A" / "1" / "0").plane_shape == (4, 5)


@pytest.mark.parametrize("wells", [None, [], [3], "A/1", [{}]])
def test_a_plate_with_odd_wells_is_a_plate(tmp_path, wells):
    _attributes(tmp_path / "p.zarr", "0.5", {"plate": {"wells": wells}})
    with pytest.raises(UnreadableImage, match="it is a plate of"):
        read(tmp_path / "p.zarr")


@BOTH
def test_a_collection_of_one_image_is_that_image(tmp_path, version):
    """bioformats2raw wraps every image in a group of its own."""
    _attributes(tmp_path / "a.zarr", version, {"bioformats2raw.layout": 3})
    with pytest.raises(UnreadableImage, match="it is a collection of 0 images; name one"):
        read(tmp_path / "a.zarr")
    _store(tmp_path / "a.zarr" / "0", version, [_values((4, 5))], "yx")
    scan = read(tmp_path / "a.zarr")
    assert (scan.name, scan.path, scan.plane_shape) == ("a.zarr", tmp_path / "a.zarr", (4, 5))
    _store(tmp_path / "a.zarr" / "1", version, [_values((6, 7))], "yx")
    with pytest.raises(UnreadableImage, match=r"it is a collection of 2 images \(0, 1\); name one, such as a\.zarr/0"):
        read(tmp_path / "a.zarr")
    assert read(tmp_path / "a.zarr" / "1").plane_shape == (6, 7)


@BOTH
def test_labels(tmp_path, version):
    path = _store(tmp_path / "a.zarr", version, [_values((4, 5))], "yx")
    assert read_labels(path) == {}
    organs = np.zeros((4, 5), np.uint8)
    organs[1:3, 1:3] = 2
    names = {"image-label": {"properties": [{"label-value": 2, "name": "liver"}, {"label-value": 3}, {"name": "x"}, 4]}}
    _attributes(path / "labels", version, {"labels": ["organs"]})
    _store(path / "labels" / "organs", version, [organs], "yx", extra=names)
    found = read_labels(path)
    assert list(found) == ["organs"]
    assert found["organs"].names == {"2": "liver"}
    np.testing.assert_array_equal(found["organs"].scan.counts[...], organs)
    np.testing.assert_array_equal(read(path / "labels" / "organs").counts[...], organs)
    with pytest.raises(UnreadableImage, match="it is a group of label images; name the image above it, or one of them"):
        read(path / "labels")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["../../b.zarr"], "lies outside"),
        (["none"], "neither zarr.json"),
        (3, "lists no label images"),
        (["float"], "is of type float32; expected whole numbers"),
    ],
)
def test_labels_that_are_none(tmp_path, names, words):
    path = _store(tmp_path / "a.zarr", "0.5", [_values((4, 5))], "yx")
    _store(tmp_path / "b.zarr", "0.5", [_values((4, 5))], "yx")
    _store(path / "labels" / "float", "0.5", [_values((4, 5), np.float32)], "yx")
    _attributes(path / "labels", "0.5", {"labels": names})
    with pytest.raises(UnreadableImage, match=words):
        read_labels(path)


def test_a_plain_array_is_read_where_its_axes_are_known(tmp_path):
    _array(tmp_path / "plane.zarr", _values((4, 5)), "0.4")
    scan = read(tmp_path / "plane.zarr")
    assert (scan.axes, scan.pixel_size_mm, scan.notes[0]) == ("YX", None, "a zarr array without OME metadata")
    _array(tmp_path / "named.zarr", _values((3, 4, 5)), "0.5", dimension_names=["z", "y", "x"])
    assert read(tmp_path / "named.zarr").axes == "ZYX"
    _array(tmp_path / "stack.zarr", _values((3, 4, 5)), "0.5")
    with pytest.raises(
        UnreadableImage, match=r"a zarr array of shape \(3, 4, 5\) without OME metadata, so its axes are unknown"
    ):
        read(tmp_path / "stack.zarr")


# writing


def test_a_written_scan_reads_back(tmp_path):
    scan = Scan(
        "mouse", None, _values((3, 2, 20, 30, 40)), "TCZYX", (0.1, 0.2), "Bq/mL", 10.0, 0.25, 3.0,
        Camera(1.5, 2.0, 100.0, 6e4), systematic_rel=0.05, slice_mm=0.5,
        timing=FrameTiming((1, 5, 20), (2, 3, 4), "injection"), bands=(Band(520.0, 488.0, "GFP"), Band(name="other")),
        tracer=Tracer("18F", None, 1e6, -5.0, "injection", 21.0),
    )  # fmt: skip
    write_ome_zarr(tmp_path / "a.zarr", scan)
    back = read_ome_zarr(tmp_path / "a.zarr")
    for name in ("axes", "pixel_size_mm", "slice_mm", "unit", "offset", "scale", "exposure_s", "camera", "systematic_rel", "timing",
                 "bands", "tracer", "warnings"):  # fmt: skip
        assert getattr(back, name) == getattr(scan, name), name
    np.testing.assert_array_equal(back.counts[...], scan.counts)
    assert back.counts.dtype == scan.counts.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_the_written_metadata_are_those_of_the_specification(tmp_path):
    scan = Scan(
        "mouse", None, np.zeros((2, 20, 30), np.uint8), "TYX", (0.1, 0.2), timing=FrameTiming((0, 60), (60, 60))
    )
    write_ome_zarr(tmp_path / "a.zarr", scan, (1, 16, 16))
    group = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    assert group["attributes"]["ome"] == {
        "version": "0.5",
        "multiscales": [{
            "name": "mouse",
            "axes": [{"name": "t", "type": "time", "unit": "second"}, {"name": "y", "type": "space", "unit": "millimeter"},
                     {"name": "x", "type": "space", "unit": "millimeter"}],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [60.0, 0.1, 0.2]}]}],
        }],
    }  # fmt: skip
    array = json.loads((tmp_path / "a.zarr" / "0" / "zarr.json").read_text())
    assert array["dimension_names"] == ["t", "y", "x"]
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [1, 16, 16]
    assert [codec["name"] for codec in array["codecs"]] == ["bytes", "zstd", "crc32c"]
    chunks = sorted(
        str(p.relative_to(tmp_path / "a.zarr" / "0"))
        for p in (tmp_path / "a.zarr" / "0" / "c").rglob("*")
        if p.is_file()
    )
    assert chunks == [f"c/{t}/{y}/{x}" for t in range(2) for y in range(2) for x in range(2)]  # empty ones too


def test_what_is_unknown_stays_unknown(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", Scan("a", None, _values((2, 4, 5), np.float32), "ZYX"))
    back = read(tmp_path / "a.zarr")
    assert (back.pixel_size_mm, back.slice_mm, back.timing, back.bands, back.tracer) == (None, None, None, (), None)


def test_the_calibration_holds_at_every_level(tmp_path):
    scan = Scan("a", None, _values((8, 8)), "YX", (0.1, 0.1), "p/s/cm2/sr", scale=2.0)
    write_ome_zarr(tmp_path / "a.zarr", scan)
    _array(tmp_path / "a.zarr" / "1", _values((4, 4)), "0.5")
    node = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    node["attributes"]["ome"]["multiscales"][0]["datasets"].append(
        {"path": "1", "coordinateTransformations": _scale(0.2, 0.2)}
    )
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(node))
    level = scan_level(tmp_path / "a.zarr", 1)
    assert (level.unit, level.scale, level.pixel_size_mm) == ("p/s/cm2/sr", 2.0, (0.2, 0.2))


def test_lazy_scans_are_copied_and_volumes_stream_in_slabs(tmp_path):
    array = _values((2, 40, 16, 16))
    write_ome_zarr(tmp_path / "a.zarr", Scan("a", None, array, "TZYX"), (1, 8, 16, 16))
    write_ome_zarr(tmp_path / "b.zarr", read(tmp_path / "a.zarr"))
    scan = read(tmp_path / "b.zarr")
    np.testing.assert_array_equal(scan.counts[...], array)
    got = list(slabs(scan, frame=1, max_bytes=20 * 16 * 16 * 2))
    assert [len(slab) for _, slab in got] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in got]), array[1])


@pytest.mark.parametrize(
    ("scan", "chunks", "words"),
    [
        (Scan("a", None, np.ones((4, 5)), "YX", scale=np.ones((4, 5))), None, "an offset or scale for every pixel"),
        (Scan("a", None, np.ones((4, 5)), "YX"), (4,), "expected 2 numbers above 0, one for each of YX"),
        (Scan("a", None, np.ones((4, 5)), "YX"), (0, 4), "expected 2 numbers above 0"),
        (Scan("a", None, np.ones((4, 5)), "YX"), (10**5, 10**5), "over the limit of 1 GiB"),
        (Scan("a", None, np.ones((2, 4, 5)), "HYX"), None, "has axes HYX; OME-Zarr takes T, C, Z, Y and X"),
        (Scan("a", None, np.ones((4, 5), bool), "YX"), None, "pixels of type bool"),
    ],
)
def test_what_cannot_be_written(tmp_path, scan, chunks, words):
    with pytest.raises(ValueError, match=words):
        write_ome_zarr(tmp_path / "a.zarr", scan, chunks)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_nothing_is_left_behind(tmp_path):
    scan = Scan("a", None, _values((4, 5)), "YX")
    write_ome_zarr(tmp_path / "a.zarr", scan)
    with pytest.raises(ValueError, match=r"a\.zarr is there already; remove it or choose another name"):
        write_ome_zarr(tmp_path / "a.zarr", scan)

    class Fails(np.ndarray):
        def __getitem__(self, key):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_ome_zarr(tmp_path / "b.zarr", Scan("b", None, _values((4, 5)).view(Fails), "YX"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
