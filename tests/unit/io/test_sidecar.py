"""A sidecar says what a TIFF cannot; what it says wrongly is named key by key, and other tools' files are left alone."""

import json
from typing import get_args

import numpy as np
import pytest
import tifffile
from PIL import Image

from evbiodist.io import tiff
from evbiodist.io.registry import read, reader_for
from evbiodist.io.scan import UNITS, Band, Camera, Scan, Tracer
from evbiodist.io.sidecar import Sidecar, described, read_sidecar, write_sidecar
from evbiodist.io.timing import FrameTiming
from evbiodist.study.problems import UnreadableImage

STACK = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)


def _pair(folder, text, array=STACK, suffix=".json", **options):
    tifffile.imwrite(folder / "a.tif", array, photometric="minisblack", **options)
    text = json.dumps({"evbiodist": 1} | text) if isinstance(text, dict) else text
    (folder / f"a{suffix}").write_text(text, encoding="utf-8")
    return folder / "a.tif"


def test_every_key_reaches_the_scan(tmp_path):
    tifffile.imwrite(tmp_path / "photo.tif", np.full((8, 10), 7, np.uint8))
    scan = read(_pair(tmp_path, {
        "axes": "TYX", "pixel_size_mm": [0.1, 0.2], "slice_mm": 0.5, "unit": "Bq/mL", "exposure_s": 2, "gain_e": 1.5,
        "read_noise_e": 3, "bias": 100, "saturation": 61000, "offset": 100, "scale": 0.5, "frame_start_s": [0, 60, 120],
        "frame_duration_s": [60, 60, 300], "time_reference": "injection",
        "bands": [{"emission_nm": 800, "excitation_nm": 745, "name": "ICG"}], "isotope": "18F", "injected_bq": 5e6,
        "injected_s": -3, "decay_corrected_to": "injection", "weight_g": 21.5, "photograph": "photo.tif",
        "systematic_rel": 0.05, "notes": ["measured twice", "by hand"],
    }))  # fmt: skip
    assert scan.axes == "TYX"
    assert (scan.pixel_size_mm, scan.slice_mm, scan.unit, scan.exposure_s) == ((0.1, 0.2), 0.5, "Bq/mL", 2.0)
    assert scan.camera == Camera(1.5, 3.0, 100.0, 61000.0)
    assert scan.timing == FrameTiming((0, 60, 120), (60, 60, 300), "injection")
    assert scan.bands == (Band(800.0, 745.0, "ICG"),)
    assert scan.tracer == Tracer("18F", None, 5e6, -3.0, "injection", 21.5)
    assert scan.photograph.tolist() == np.full((8, 10), 7).tolist()
    assert scan.systematic_rel == 0.05
    assert {"described by a.json", "measured twice", "by hand"} <= set(scan.notes)
    np.testing.assert_array_equal(scan.signal(), (STACK - 100.0) * 0.5)


def test_toml_and_a_square_pixel(tmp_path):
    text = 'evbiodist = 1\naxes = "ZYX"\npixel_size_mm = 0.02\nslice_mm = 1\nnotes = "frozen"\n'
    scan = read(_pair(tmp_path, text, suffix=".toml"))
    assert (scan.axes, scan.pixel_size_mm, scan.slice_mm) == ("ZYX", (0.02, 0.02), 1.0)
    assert scan.notes[-1] == "frozen"


def test_what_is_left_out_stays_as_the_tiff_says(tmp_path):
    path = _pair(tmp_path, {}, resolution=(20, 40), resolutionunit="CENTIMETER", metadata=None)
    scan = read(path)
    assert scan.pixel_size_mm == pytest.approx((0.25, 0.5))
    assert (scan.slice_mm, scan.timing, scan.tracer, scan.exposure_s, scan.bands) == (None, None, None, None, ())
    assert (scan.unit, scan.camera, scan.systematic_rel) == ("counts", Camera(), 0.0)


def test_a_pixel_size_that_contradicts_the_tiff_is_named(tmp_path):
    path = _pair(tmp_path, {"pixel_size_mm": 0.3}, resolution=(20, 40), resolutionunit="CENTIMETER", metadata=None)
    scan = read(path)
    assert scan.pixel_size_mm == (0.3, 0.3)
    assert scan.warnings == (
        "the image states a pixel size of 0.25 x 0.5 mm, a.json 0.3 x 0.3 mm; the sidecar's is used",
    )


@pytest.mark.parametrize(("axes", "order"), [("TZYX", "TZYX"), ("ZTYX", "TZYX"), ("CZYX", "CZYX")])
def test_axes_of_a_stack_that_names_none_are_the_sidecar_s(tmp_path, axes, order):
    array = np.arange(3 * 4 * 5 * 6, dtype=np.uint16).reshape(3, 4, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with pytest.raises(UnreadableImage, match=r"its axes are QQYX \(3 x 4 x 5 x 6\); .*name the axes in a sidecar"):
        read(tmp_path / "a.tif")
    (tmp_path / "a.json").write_text(json.dumps({"evbiodist": 1, "axes": axes}))
    scan = read(tmp_path / "a.tif")
    assert scan.axes == order
    np.testing.assert_array_equal(scan.counts, array.transpose([axes.index(a) for a in order]))
    assert "the image does not name its axes (QQYX)" in scan.notes
    (tmp_path / "a.json").write_text(json.dumps({"evbiodist": 1, "axes": "TYX"}))
    with pytest.raises(UnreadableImage, match=r"expected 4 letters, one for each axis of the image \(3 x 4 x 5 x 6\)"):
        read(tmp_path / "a.tif")
    (tmp_path / "a.json").write_text(json.dumps({"evbiodist": 1, "pixel_size_mm": 0.1}))
    with pytest.raises(UnreadableImage, match="its axes are QQYX"):
        read(tmp_path / "a.tif")


def test_stacks_on_disk_take_the_sidecar_s_axes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "LAZY_BYTES", 1)
    array = np.arange(3 * 4 * 5 * 6, dtype=np.uint16).reshape(3, 4, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    (tmp_path / "a.json").write_text('{"evbiodist": 1, "axes": "ZTYX"}')
    scan = read(tmp_path / "a.tif")
    assert scan.lazy
    assert scan.axes == "TZYX"
    np.testing.assert_array_equal(scan.counts[1, 2], array[2, 1])


def test_other_axes_do_not_keep_the_times_and_bands_of_the_old_ones(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, photometric="minisblack",
                     metadata={"axes": "TYX", "TimeIncrement": 2, "TimeIncrementUnit": "s"})  # fmt: skip
    assert read(tmp_path / "a.ome.tif").timing is not None
    (tmp_path / "a.ome.json").write_text('{"evbiodist": 1, "axes": "ZYX"}')
    scan = read(tmp_path / "a.ome.tif")
    assert (scan.axes, scan.timing) == ("ZYX", None)
    assert "axes TYX of the image are read as ZYX" in scan.notes


@pytest.mark.parametrize(
    "text",
    [
        '{"FrameTimesStart": [0], "Units": "Bq/mL"}',
        '{"evbiodis": 1}',
        "[1, 2]",
        "not json at all",
        '{"note": "made with evbiodist"}',
    ],
)
def test_other_tools_files_are_left_alone(tmp_path, text):
    path = _pair(tmp_path, text)
    assert reader_for(path).name == "tiff"
    assert read(path).notes[0] == "the resolution tags state no pixel size"


def _refused(folder, text, array=STACK, suffix=".json"):
    path = _pair(folder, text, array, suffix)
    assert reader_for(path).name == "sidecar"
    with pytest.raises(UnreadableImage) as err:
        read(path)
    return err.value.reason


def test_all_problems_are_named_at_once(tmp_path):
    reason = _refused(tmp_path, {
        "pixel_size_um": 3, "scale": -1, "axes": "TCYX", "unit": "bq/ml", "frame_start_s": [0, 60], "isotope": "18f",
        "photograph": "no.png", "bands": [{}, {}], "exposure_s": "2",
    })  # fmt: skip
    assert reason.startswith("its sidecar is refused: 9 problems: ")
    for words in (
        "a.json, key pixel_size_um: found '3', expected a known key; did you mean 'pixel_size_mm'?.",
        "a.json, key scale: found '-1', expected more than 0; correct the value or its unit.",
        "a.json, key axes: found 'TCYX', expected 3 letters, one for each axis of the image (3 x 4 x 5); name every axis once.",
        "a.json, key unit: found 'bq/ml', expected one of counts, p/s/cm2/sr, (p/s/cm2/sr)/(uW/cm2), Bq/mL; did you mean 'Bq/mL'?.",
        "a.json, key frame_start_s: found '2 frame starts', expected times that fit the frames; 2 frame times were given, "
        "but the image holds 3 frames; give one time for every frame.",
        "a.json, key isotope: found '18f', expected a known isotope; did you mean '18F'?.",
        "a.json, key photograph: found 'no.png', expected a grey picture in the same folder; there is no such file; correct the name.",
        "a.json, key bands: found '2 bands', expected 1, one for each plane of axis C (axes TYX); list every band, or correct axes.",
        "a.json, key exposure_s: found '2', expected a number; correct it",
    ):
        assert words in reason


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"evbiodist": 2}, "key evbiodist: found '2', expected 1, the version of these keys; write 1, or read it with a newer"),
        ({"axes": "YXT"}, "key axes: found 'YXT', expected letters of TCZYX, each once, with YX last"),
        ({"axes": "YYX"}, "each once, with YX last"),
        ({"axes": 3}, "key axes: found '3', expected text"),
        ({"pixel_size_mm": [1, 2, 3]}, "key pixel_size_mm: found"),
        ({"pixel_size_mm": "x"}, "key pixel_size_mm: found 'x', expected a number, or [y, x]"),
        ({"pixel_size_mm": 0}, "key pixel_size_mm: found '0', expected"),
        ({"gain_e": True}, "key gain_e: found 'True', expected a number"),
        ({"bias": float("nan")}, "key bias: found 'nan', expected a finite number"),
        ({"read_noise_e": -1}, "key read_noise_e: found '-1', expected 0 or more"),
        ({"frame_duration_s": 5}, "key frame_duration_s: found '5.0', expected frame_start_s too; add the start of every frame"),
        ({"time_reference": "injection"}, "key time_reference: found 'injection', expected frame_start_s too"),
        ({"frame_start_s": [0, 2, 1]}, "frame 3 starts at 1 s, not after frame 2 at 2 s"),
        ({"frame_start_s": [0, 60, 120], "frame_duration_s": [60, 60]},
         "key frame_duration_s: found '3 frame starts', expected times that fit the frames; 3 frame starts but 2 durations"),
        ({"frame_start_s": [0, 60, 120], "frame_duration_s": [60, 120, 420]}, "are the frames' end times"),
        ({"decay_corrected_to": "start"},
         "key decay_corrected_to: found 'start', expected one of injection, scan_start, none, unknown"),
        ({"bands": [{"emission": 800}]}, "key bands.0.emission: found '800', expected a known key; did you mean 'emission_nm'?"),
        ({"bands": [800]}, "key bands.0: found '800', expected a table of keys"),
        ({"notes": 3}, "key notes: found '3', expected a sentence, or a list of sentences"),
    ],
)  # fmt: skip
def test_each_problem_in_words(tmp_path, keys, words):
    assert words in _refused(tmp_path, keys)


@pytest.mark.parametrize(
    ("text", "suffix", "words"),
    [
        ('{"evbiodist": 1,', ".json", "its sidecar a.json cannot be read: Expecting property name"),
        ("evbiodist = 1\nscale = 1,5\n", ".toml", "its sidecar a.toml cannot be read: "),
        ('{"evbiodist": 1, "scale": 2, "scale": 3}', ".json", "key scale stands there twice"),
        ('{"evbiodist": 1, "a": ' + "[" * 100_000 + "]" * 100_000 + "}", ".json", "nested too deeply"),
        ('{"evbiodist": 1, "notes": "' + "x" * (1 << 20) + '"}', ".json", "larger than 1 MiB"),
    ],
)
def test_a_damaged_sidecar_is_not_passed_over(tmp_path, text, suffix, words):
    reason = _refused(tmp_path, text, suffix=suffix)
    assert words in reason
    assert reason.endswith("; correct or remove it")


def test_text_that_is_not_utf8(tmp_path):
    path = _pair(tmp_path, {})
    path.with_suffix(".json").write_bytes('{"evbiodist": 1, "notes": "25 °C"}'.encode("latin-1"))
    with pytest.raises(UnreadableImage, match="it is not UTF-8 text"):
        read(path)


def test_two_sidecars_are_one_too_many(tmp_path):
    path = _pair(tmp_path, {})
    path.with_suffix(".toml").write_text("evbiodist = 1\n")
    with pytest.raises(UnreadableImage, match=r"both a\.json and a\.toml describe it; remove one"):
        read(path)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "study").mkdir()
    path = _pair(tmp_path / "study", {"photograph": "photo.tif"})
    tifffile.imwrite(tmp_path / "secret.tif", np.full((4, 5), 9, np.uint8))
    (tmp_path / "study" / "photo.tif").symlink_to(tmp_path / "secret.tif")
    with pytest.raises(UnreadableImage, match="the image's own folder, without a path"):
        read(path)
    path.with_suffix(".json").replace(tmp_path / "elsewhere.json")
    path.with_suffix(".json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UnreadableImage, match=r"a\.json is a link to another folder"):
        read(path)


@pytest.mark.parametrize("name", ["../secret.tif", "/etc/passwd", "sub/x.tif", "..", ""])
def test_a_photograph_is_a_name_not_a_path(tmp_path, name):
    tifffile.imwrite(tmp_path / "secret.tif", np.full((4, 5), 9, np.uint8))
    (tmp_path / "study").mkdir()
    assert "key photograph: found" in _refused(tmp_path / "study", {"photograph": name})


def test_photographs_as_png_and_what_is_none(tmp_path):
    Image.fromarray(np.full((6, 7), 5, np.uint8)).save(tmp_path / "p.png")
    assert read(_pair(tmp_path, {"photograph": "p.png"})).photograph.tolist() == np.full((6, 7), 5).tolist()
    assert "expected a picture that can be decoded; export it again" in _refused(tmp_path, {"photograph": "a.json"})
    assert "it has axes TYX; give a single picture" in _refused(tmp_path, {"photograph": "a.tif"})


def test_times_without_durations_are_snapshots_and_said(tmp_path):
    scan = read(_pair(tmp_path, {"frame_start_s": [0, 10, 20]}))
    assert scan.timing == FrameTiming((0, 10, 20), (0, 0, 0), "scan_start")
    assert "how long a frame lasts is not stated: taken as 0" in scan.notes
    assert "frame times are taken to count from the start of the scan" in scan.notes
    assert read(_pair(tmp_path, {"frame_start_s": [0, 10, 20], "frame_duration_s": 10})).timing.duration_s == (
        10,
        10,
        10,
    )


def test_written_keys_read_back_as_the_scan(tmp_path):
    scan = Scan("a.tif", tmp_path / "a.tif", STACK, "CYX", (0.1, 0.2), "p/s/cm2/sr", 100.0, 0.25, 3.0, Camera(1.5, None, 100.0, None),
                systematic_rel=0.05, timing=FrameTiming((1.5,), (3.0,), "injection"),
                bands=(Band(800.0, 745.0, "ICG"), Band(), Band(name="x")), tracer=Tracer(injected_bq=1e6))  # fmt: skip
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    assert write_sidecar(tmp_path / "a.tif", scan) == tmp_path / "a.json"
    back = read_sidecar(tmp_path / "a.tif")
    for name in ("axes", "pixel_size_mm", "unit", "offset", "scale", "exposure_s", "camera", "systematic_rel", "timing", "bands",
                 "tracer", "slice_mm"):  # fmt: skip
        assert getattr(back, name) == getattr(scan, name), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.tif"]


def test_a_calibration_for_every_pixel_does_not_fit_a_sidecar():
    scan = Scan("a", None, STACK, "TYX", scale=np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"an offset or scale for every pixel; write its signal\(\) as counts"):
        described(scan)


def test_a_missing_sidecar_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    with pytest.raises(UnreadableImage, match=r"there is no sidecar a\.json or \.toml with the key evbiodist"):
        read_sidecar(tmp_path / "a.tif")


def test_units_are_those_of_scans():
    literal = get_args(Sidecar.model_fields["unit"].annotation)[0]
    assert get_args(literal) == UNITS
