"""NIfTI: pixels and sizes as stored, PET facts from the sidecar only, and every fault in words."""

import gzip
import json
import pickle
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evbiodist.io import frames_on_disk, nifti
from evbiodist.io.registry import read
from evbiodist.study.problems import UnreadableImage

PIXELS = np.arange(4 * 3 * 2 * 5, dtype=np.int16).reshape(4, 3, 2, 5)  # x, y, z, t
SIDECAR = {
    "Manufacturer": "Siemens", "ManufacturersModelName": "Inveon", "Units": "kBq/mL", "TracerRadionuclide": "F18",
    "TracerName": "FDG", "InjectedRadioactivity": 7.4, "InjectedRadioactivityUnits": "MBq", "TimeZero": "10:00:00",
    "ScanStart": 0, "InjectionStart": 0, "FrameTimesStart": [0, 10, 20, 40, 80], "FrameDuration": [10, 10, 20, 40, 40],
    "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0, "BodyWeight": 0.025, "BodyWeightUnits": "kg",
}  # fmt: skip


def write(folder, pixels=PIXELS, name="a_pet.nii.gz", sidecar=None, unit="mm", time="sec", zooms=(0.5, 0.4, 0.8, 10.0)):
    image = nibabel.Nifti1Image(pixels, np.diag((*zooms[:3], 1.0)))
    image.header.set_zooms(zooms[: pixels.ndim])
    image.header.set_xyzt_units(unit, time)
    nibabel.save(image, folder / name)
    if sidecar is not None:
        text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
        (folder / "a_pet.json").write_text(text, encoding="utf-8")
    return folder / name


def patched(path, **fields):
    """Overwrite header fields of an uncompressed NIfTI-1 file, whatever they then say."""
    places = {"dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h"), "pixdim": (76, "<8f"), "vox_offset": (108, "<f"),
              "slope": (112, "<f"), "inter": (116, "<f"), "units": (123, "<B"), "toffset": (136, "<f"), "qform": (252, "<h"),
              "sform": (254, "<h"), "quatern": (256, "<3f"), "srow_x": (280, "<4f"), "magic": (344, "4s")}  # fmt: skip
    data = bytearray(path.read_bytes())
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, data, place, *(value if isinstance(value, tuple | list) else (value,)))
    path.write_bytes(data)
    return path


def fault(path):
    with pytest.raises(UnreadableImage) as caught:
        nifti.read_nifti(path)
    assert str(caught.value).startswith(f"{path.name}: ")
    return caught.value.reason


# --- pixels, axes and sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<i4", "<f4", ">f4", "<f8", "u2"])
def test_pixels_come_in_our_order_and_in_the_machines_bytes(tmp_path, name, dtype):
    scan = read(write(tmp_path, PIXELS.astype(dtype), name))
    assert scan.axes == "TZYX"
    assert scan.counts.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(scan.counts, PIXELS.transpose(3, 2, 1, 0))
    assert scan.counts[4, 1, 2, 3] == PIXELS[3, 2, 1, 4]


def test_nifti2_is_read(tmp_path):
    nibabel.save(nibabel.Nifti2Image(PIXELS, np.eye(4), dtype=np.int16), tmp_path / "a.nii")
    np.testing.assert_array_equal(read(tmp_path / "a.nii").counts, PIXELS.transpose(3, 2, 1, 0))


@pytest.mark.parametrize(("shape", "axes", "ours"), [((4, 3), "YX", (3, 4)),
                                                     ((4, 3, 2), "ZYX", (2, 3, 4)),
                                                     ((4, 3, 2, 1), "ZYX", (2, 3, 4)),
                                                     ((4, 3, 1, 5), "TZYX", (5, 1, 3, 4))])  # fmt: skip
def test_axes(tmp_path, shape, axes, ours):
    scan = read(write(tmp_path, np.arange(np.prod(shape), dtype=np.int16).reshape(shape)))
    assert (scan.axes, scan.counts.shape) == (axes, ours)
    assert (scan.slice_mm is None) == (axes == "YX")


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("meter", 1e3), ("micron", 1e-3)])
def test_spacing_in_its_unit(tmp_path, unit, mm):
    scan = read(write(tmp_path, unit=unit))
    assert scan.pixel_size_mm == pytest.approx((0.4 * mm, 0.5 * mm))
    assert scan.slice_mm == pytest.approx(0.8 * mm)


def test_without_a_unit_of_length_the_size_is_unknown(tmp_path):
    scan = read(write(tmp_path, unit="unknown"))
    assert scan.pixel_size_mm is None
    assert scan.slice_mm is None
    assert any("no unit of length" in note for note in scan.notes)


def test_orientation_words(tmp_path):
    image = nibabel.Nifti1Image(PIXELS, np.diag((-0.5, 0.4, -0.8, 1.0)))
    nibabel.save(image, tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").header["orientation"] == "x to left, y to anterior, z to inferior"


@pytest.mark.parametrize("bad", [(0.0,) * 4, (np.nan,) * 4])
def test_a_singular_affine_leaves_the_size_unknown(tmp_path, bad):
    path = patched(write(tmp_path, name="a.nii"), srow_x=bad, sform=1, qform=0)
    scan = read(path)
    assert scan.pixel_size_mm is None
    assert scan.header["orientation"] == "unknown"
    assert any("affine is singular" in text for text in scan.warnings)


def test_an_impossible_quaternion_leaves_the_size_unknown(tmp_path):
    path = patched(write(tmp_path, name="a.nii"), sform=0, qform=1, quatern=(1.0, 1.0, 1.0))
    assert any("affine is singular" in text for text in read(path).warnings)


@pytest.mark.parametrize("zoom", [0.0, -0.5, np.nan, np.inf])
def test_impossible_pixdim_leaves_the_size_unknown(tmp_path, zoom):
    path = patched(write(tmp_path, name="a.nii"), pixdim=(1, zoom, 0.4, 0.8, 10, 0, 0, 0), sform=0, qform=0)
    scan = read(path)
    assert scan.pixel_size_mm is None
    assert any("pixdim" in text for text in scan.warnings)


def test_affine_and_pixdim_that_differ_are_told(tmp_path):
    scan = read(patched(write(tmp_path, name="a.nii"), pixdim=(1, 1.0, 0.4, 0.8, 10, 0, 0, 0)))
    assert scan.pixel_size_mm == pytest.approx((0.4, 1.0))
    assert any("differ by more than 1 %" in text for text in scan.warnings)


# --- scaling ------------------------------------------------------------------------------------------------------


@given(slope=st.floats(1e-3, 1e3), inter=st.floats(-1e3, 1e3), sign=st.sampled_from([1, -1]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_signal_is_slope_times_stored_plus_intercept(tmp_path, slope, inter, sign):
    path = patched(write(tmp_path, name="a.nii"), slope=sign * slope, inter=inter)
    scan = nifti.read_nifti(path)
    slope32, inter32 = float(np.float32(sign * slope)), float(np.float32(inter))
    truth = slope32 * PIXELS.transpose(3, 2, 1, 0).astype(float) + inter32
    np.testing.assert_allclose(scan.signal(), truth, rtol=1e-9, atol=1e-9 * (abs(inter32) + 1))
    assert scan.counts.dtype == np.int16


def test_slope_0_means_as_stored(tmp_path):
    scan = read(patched(write(tmp_path, name="a.nii"), slope=0.0, inter=7.0))
    np.testing.assert_array_equal(scan.signal(), PIXELS.transpose(3, 2, 1, 0))
    assert not scan.warnings


@pytest.mark.parametrize(("slope", "inter"), [(np.nan, 0.0), (np.inf, 0.0), (2.0, np.nan)])
def test_a_slope_that_is_no_number_costs_the_calibration(tmp_path, slope, inter):
    path = patched(write(tmp_path, name="a_pet.nii", sidecar=SIDECAR), slope=slope, inter=inter)
    scan = read(path)
    assert scan.unit == "counts"
    assert any("scl_slope" in text for text in scan.warnings)


def test_pixels_that_are_no_numbers_are_marked(tmp_path):
    pixels = PIXELS.astype(np.float32)
    pixels[0, 0, 0, 0] = np.nan
    scan = read(write(tmp_path, pixels))
    assert scan.bad is not None
    assert scan.bad[0, 0, 0, 0]
    assert scan.bad.sum() == 1
    assert "no pixel holds a finite number" in fault(write(tmp_path, np.full_like(pixels, np.nan)))


# --- lazy ---------------------------------------------------------------------------------------------------------


def test_large_uncompressed_images_stay_on_disk(tmp_path, monkeypatch):
    path = write(tmp_path, name="a.nii")
    whole = read(path).counts
    monkeypatch.setattr(frames_on_disk, "SMALL_BYTES", 10)
    scan = read(path)
    assert scan.lazy
    lazy = pickle.loads(pickle.dumps(scan.counts))  # noqa: S301  written by this test
    for key in (..., (), 2, -1, np.int64(3), slice(1, 4), (slice(None, None, 2), 1), (..., 0), (1, ..., slice(0, 2)),
                (0, 1, 2, 3), (slice(4, 4),), (slice(None, None, -1), 0, slice(None), -1)):  # fmt: skip
        np.testing.assert_array_equal(lazy[key], whole[key])
    np.testing.assert_array_equal(scan.signal(), whole)
    np.testing.assert_array_equal(np.stack(list(scan.frames())), whole)
    for key in ("x", None, (0, 0, 0, 0, 0), [1, 2]):
        with pytest.raises(IndexError, match=r"whole numbers and slices|the index has 5 parts, the array 4 axes"):
            lazy[key]


# --- the sidecar --------------------------------------------------------------------------------------------------


def test_sidecar(tmp_path):
    scan = read(write(tmp_path, sidecar=SIDECAR))
    assert scan.unit == "Bq/mL"
    np.testing.assert_allclose(scan.signal(), 1e3 * PIXELS.transpose(3, 2, 1, 0))
    assert scan.timing.start_s == (0, 10, 20, 40, 80)
    assert scan.timing.duration_s == (10, 10, 20, 40, 40)
    assert scan.timing.reference == "injection"
    assert (scan.tracer.isotope, scan.tracer.injected_bq, scan.tracer.injected_s) == ("18F", 7.4e6, 0.0)
    assert (scan.tracer.weight_g, scan.tracer.decay_corrected_to) == (25.0, "injection")
    assert scan.header["instrument"] == "Siemens Inveon"
    assert not scan.warnings


def test_injection_after_time_zero_shifts_the_frames(tmp_path):
    scan = read(write(tmp_path, sidecar=SIDECAR | {"InjectionStart": 30, "ImageDecayCorrectionTime": 0}))
    assert scan.timing.start_s == (-30, -20, -10, 10, 50)
    assert scan.timing.reference == "injection"
    assert scan.tracer.decay_corrected_to == "scan_start"


def test_without_an_injection_frames_count_from_the_scans_start(tmp_path):
    given = {k: v for k, v in SIDECAR.items() if k != "InjectionStart"} | {"ScanStart": -5}
    scan = read(write(tmp_path, sidecar=given))
    assert (scan.timing.start_s[0], scan.timing.reference, scan.tracer.injected_s) == (5, "scan_start", None)
    del given["ScanStart"]
    scan = read(write(tmp_path, sidecar=given))
    assert (scan.timing.start_s[0], scan.timing.reference) == (0, "scan_start")
    assert any("no InjectionStart" in text for text in scan.warnings)


@pytest.mark.parametrize(("unit", "factor"), [("Bq/mL", 1), ("kBq/ml", 1e3), ("MBq/mL", 1e6), ("Bq/cc", 1), ("nCi/mL", 37),
                                              ("BQML", 1)])  # fmt: skip
def test_units_become_bq_per_ml(tmp_path, unit, factor):
    scan = read(write(tmp_path, sidecar=SIDECAR | {"Units": unit}))
    assert scan.unit == "Bq/mL"
    assert scan.scale == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("unit", ["g/mL", "SUV", "Hz/mL", "9**9**9", "Bq", "unitless", None, "n/a"])
def test_other_units_are_counts_with_a_warning(tmp_path, unit):
    scan = read(write(tmp_path, sidecar=SIDECAR | {"Units": unit}))
    assert (scan.unit, scan.scale) == ("counts", 1.0)
    assert any("Units" in text for text in scan.warnings)


@pytest.mark.parametrize(("change", "said"), [
    ({"FrameTimesStart": [0, 10, 20, 40, 80, 120], "FrameDuration": [10, 10, 20, 40, 40, 40]},
     "6 frame times were given, but the image holds 5 frames"),
    ({"FrameDuration": [10, 20, 40, 80, 120]}, "are the frames' end times; give the length of each frame"),
    ({"FrameDuration": [10, 10, 20, 40]}, "5 frame starts but 4 durations"),
    ({"FrameTimesStart": [0, 10, 5, 40, 80]}, "frame 3 starts at 5 s, not after frame 2"),
    ({"FrameDuration": [10, 10, 20, "40 s", 40]}, 'key FrameDuration: entry 4 is "40 s"; expected a number'),
    ({"FrameTimesStart": [0, None, 20, 40, 80]}, "key FrameTimesStart: entry 2 is null"),
    ({"FrameTimesStart": [0, True, 20, 40, 80]}, "key FrameTimesStart: entry 2 is true"),
    ({"FrameTimesStart": [0, float("nan"), 20, 40, 80]}, "entry 2 is NaN"),
    ({"FrameTimesStart": [0, 10**400, 20, 40, 80]}, "expected a number"),
    ({"FrameDuration": None}, "key FrameDuration: is missing, but FrameTimesStart is given"),
    ({"FrameTimesStart": "n/a"}, "key FrameTimesStart: is missing, but FrameDuration is given"),
    ({"InjectionStart": "10:20:00"}, 'key InjectionStart: "10:20:00"; expected a number'),
    ({"InjectedRadioactivity": "much"}, 'key InjectedRadioactivity: "much"; expected a number'),
    ({"ImageDecayCorrected": "maybe"}, 'key ImageDecayCorrected: "maybe"; expected true or false'),
])  # fmt: skip
def test_wrong_sidecars_are_named(tmp_path, change, said):
    reason = fault(write(tmp_path, sidecar=SIDECAR | change))
    assert "its sidecar a_pet.json" in reason
    assert said in reason


@pytest.mark.parametrize(("text", "said"), [('{"Units": ', "is not JSON"), ("[1, 2]", "holds [1, 2]; expected an object"),
                                            ("[" * 100_000, "is not JSON"), ("\x00", "is not JSON")])  # fmt: skip
def test_sidecars_that_are_no_json(tmp_path, text, said):
    assert said in fault(write(tmp_path, sidecar=text))


def test_a_sidecar_outside_the_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    path = write(tmp_path / "in")
    (tmp_path / "in" / "a_pet.json").symlink_to(tmp_path / "secret.json")
    assert "leads out of the image's folder" in fault(path)


def test_what_the_sidecar_does_not_say_is_none(tmp_path):
    scan = read(write(tmp_path, sidecar={}))
    assert scan.timing is None
    assert scan.tracer == type(scan.tracer)()
    assert scan.unit == "counts"


@pytest.mark.parametrize("change", [{"InjectedRadioactivityUnits": "mg"}, {"InjectedRadioactivityUnits": "9**9"},
                                    {"InjectedRadioactivityUnits": None}, {"InjectedRadioactivity": 0}])  # fmt: skip
def test_an_activity_without_a_unit_of_activity_is_unknown(tmp_path, change):
    scan = read(write(tmp_path, sidecar=SIDECAR | change))
    assert scan.tracer.injected_bq is None
    assert any("InjectedRadioactivity" in text for text in scan.warnings)


@pytest.mark.parametrize("change", [{"BodyWeightUnits": None}, {"BodyWeightUnits": "cm"}, {"BodyWeight": -1}])
def test_a_weight_without_a_unit_of_mass_is_unknown(tmp_path, change):
    scan = read(write(tmp_path, sidecar=SIDECAR | change))
    assert scan.tracer.weight_g is None
    assert any("BodyWeight" in text for text in scan.warnings)


@pytest.mark.parametrize(("change", "to"), [({"ImageDecayCorrected": False}, "none"), ({"ImageDecayCorrected": None}, "unknown"),
                                            ({"ImageDecayCorrectionTime": None}, "unknown"),
                                            ({"ImageDecayCorrectionTime": 900}, "unknown")])  # fmt: skip
def test_decay_correction(tmp_path, change, to):
    scan = read(write(tmp_path, sidecar=SIDECAR | change))
    assert scan.tracer.decay_corrected_to == to
    assert any("900 s after TimeZero" in text for text in scan.warnings) == (900 in change.values())


def test_an_isotope_without_a_known_half_life_keeps_its_name(tmp_path):
    scan = read(write(tmp_path, sidecar=SIDECAR | {"TracerRadionuclide": "C11"}))
    assert scan.tracer.isotope == "11C"
    assert any("does not know" in note for note in scan.notes)


# --- times of the header ------------------------------------------------------------------------------------------


def test_times_of_the_header_need_a_unit_and_no_sidecar(tmp_path):
    scan = read(write(tmp_path, time="msec"))
    assert scan.timing.start_s == pytest.approx((0, 0.01, 0.02, 0.03, 0.04))
    assert any("frame times are the header's" in note for note in scan.notes)
    assert read(write(tmp_path, sidecar={})).timing is None
    (tmp_path / "a_pet.json").unlink()
    assert read(write(tmp_path, time="unknown")).timing is None
    assert read(write(tmp_path, zooms=(0.5, 0.4, 0.8, 0.0))).timing is None
    assert read(write(tmp_path, PIXELS[..., 0])).timing is None


def test_times_of_the_header_that_cannot_be_are_unknown(tmp_path):
    scan = read(patched(write(tmp_path, name="a.nii"), toffset=1e30))
    assert scan.timing is None
    assert any("cannot be" in note for note in scan.notes)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>403</html>", b"\n <HTML><body>", b"\xef\xbb\xbf<html>"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_web_page_is_named(tmp_path, page, packed):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(page) if packed else page)
    assert fault(tmp_path / "a.nii.gz") == ("this is a web page, not an image; the download failed: fetch it again")


@pytest.mark.parametrize("text", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                                  b"/annex/objects/MD5E-s1--0.nii.gz\n"])  # fmt: skip
def test_a_placeholder_is_named(tmp_path, text):
    (tmp_path / "a.nii.gz").write_bytes(text)
    assert "placeholder" in fault(tmp_path / "a.nii.gz")


def test_a_wrong_checksum_is_damage(tmp_path):
    data = bytearray(write(tmp_path).read_bytes())
    data[-8] ^= 1  # first byte of the CRC
    (tmp_path / "a_pet.nii.gz").write_bytes(data)
    assert "damaged: the compressed data are not intact" in fault(tmp_path / "a_pet.nii.gz")


def test_flipped_bits_never_pass(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (20, 10, 5), dtype=np.int16)
    whole = gzip.compress(write(tmp_path, pixels, "a.nii").read_bytes())
    for at in np.linspace(10, len(whole) - 1, 150).astype(int):  # the 10 bytes before hold a date, but no data
        data = bytearray(whole)
        data[at] ^= 0x10
        (tmp_path / "b.nii.gz").write_bytes(data)
        fault(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_files(tmp_path, name):
    path = write(tmp_path, np.random.default_rng(1).integers(0, 99, (20, 10, 5), dtype=np.int16), name)
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "copy it again" in fault(path)


def test_a_stream_that_ends_before_the_header_says(tmp_path):
    path = write(tmp_path, name="a.nii")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-10]))
    assert "it unpacks to 230 bytes of pixels, the header states 240" in fault(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("packed", [False, True])
def test_absurd_sizes_cost_no_memory(tmp_path, packed):
    path = patched(write(tmp_path, name="a.nii"), dim=(4, 32767, 32767, 2, 1, 1, 1, 1))
    if packed:
        path = tmp_path / "b.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    assert ("is over the limit of 2 GiB; unpack it" if packed else "truncated or a wrong header") in fault(path)


def test_sizes_that_no_compression_reaches_are_refused(tmp_path):
    path = patched(write(tmp_path, name="a.nii"), dim=(4, 30000, 30000, 1, 1, 1, 1, 1))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert "cannot hold the 1800000000 bytes" in fault(tmp_path / "b.nii.gz")


def test_a_bomb_behind_the_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "_MAX_TAIL", 1000)
    path = write(tmp_path, name="a.nii")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(2000)))
    assert "far more than its header states" in fault(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["b.nii", "b.nii.gz"])
def test_bytes_after_the_pixels_are_told(tmp_path, name):
    data = write(tmp_path, name="a.nii").read_bytes() + bytes(48)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert any("48 bytes follow the pixels" in text for text in read(tmp_path / name).warnings)


@pytest.mark.parametrize(("fields", "said"), [
    ({"dim": (4, 4, 3, 0, 5, 1, 1, 1)}, "an axis without extent"),
    ({"dim": (3, 4, -3, 2, 1, 1, 1, 1)}, "an axis without extent"),
    ({"dim": (0, 4, 3, 2, 5, 1, 1, 1)}, "its header states 0 axes"),
    ({"dim": (9, 4, 3, 2, 5, 1, 1, 1)}, "its header states 9 axes"),
    ({"dim": (5, 4, 3, 2, 1, 5, 1, 1)}, "it has 5 axes (4 x 3 x 2 x 1 x 5)"),
    ({"dim": (1, 120, 1, 1, 1, 1, 1, 1)}, "it has one axis"),
    ({"datatype": 32}, "its pixels are complex"),
    ({"datatype": 128}, "its pixels are colour"),
    ({"datatype": 2304}, "its pixels are colour"),
    ({"datatype": 1536}, "its pixels are of type 1536; expected"),
    ({"datatype": 999}, "the unknown pixel type 999"),
    ({"datatype": 0}, "its pixels are of type 0; expected"),
    ({"vox_offset": 0.0}, "inside the header"),
    ({"vox_offset": 352.5}, "between bytes"),
    ({"vox_offset": np.nan}, "inside the header"),
    ({"vox_offset": 1e30}, "truncated or a wrong header"),
    ({"magic": b"ni1\0"}, "in a separate .img file"),
    ({"magic": b"xyz\0"}, "magic is b'xyz"),
])  # fmt: skip
def test_faulty_headers(tmp_path, fields, said):
    assert said in fault(patched(write(tmp_path, name="a.nii"), **fields))


def test_what_is_no_nifti(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"\x89PNG" + bytes(1000))
    assert "does not start with a NIfTI header" in fault(tmp_path / "a.nii")


def test_mutated_headers_leave_only_sentences(tmp_path):
    whole = write(tmp_path, name="a.nii").read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 352, 4):
            data[at] = rng.integers(256)
        (tmp_path / "a.nii").write_bytes(data)
        try:
            scan = nifti.read_nifti(tmp_path / "a.nii")
        except UnreadableImage:
            continue
        assert scan.counts.size * scan.counts.dtype.itemsize <= len(whole)
