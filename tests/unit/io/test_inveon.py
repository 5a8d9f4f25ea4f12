"""Inveon: the calibration key by key, both names of the pair, times and tracer; contradictions in words."""

import numpy as np
import pytest

from evbiodist.io import frames_on_disk, inveon
from evbiodist.io.registry import read
from evbiodist.study.problems import UnreadableImage

SHAPE = (2, 3, 4)
PIXELS = np.random.default_rng(0).integers(-50, 500, (3, *SHAPE))
KEYS = {
    "version": "001.910", "model": 5000, "modality": 0, "file_type": 5, "data_type": 2, "data_order": 1, "total_frames": 3,
    "x_dimension": 4, "y_dimension": 3, "z_dimension": 2, "pixel_size": 0.05, "pixel_size_x": 0.5, "pixel_size_y": 0.4,
    "pixel_size_z": 0.8, "calibration_units": 1, "calibration_factor": 120.0, "isotope": "F-18",
    "isotope_half_life": 6586.2, "isotope_branching_fraction": 0.967, "decay_correction_applied": 1,
    "scan_time": "Fri Jan 7 14:16:31 2005", "injection_time": "Fri Jan 7 14:06:31 2005", "dose_units": 1, "dose": 0.2,
    "injection_decay_correction": 1, "subject_weight_units": 1, "subject_weight": 25.5, "subject_orientation": 2,
}  # fmt: skip
START, DURATION = (0, 60, 180), (60, 120, 300)
FACTORS = [1 / np.mean(0.5 ** (np.linspace(s, s + d, 20_001) / 6586.2)) for s, d in zip(START, DURATION, strict=True)]
FRAMES = [
    {"frame": i, "frame_start": START[i], "frame_duration": DURATION[i], "scale_factor": 0.001 * (i + 1),
     "decay_correction": FACTORS[i], "deadtime_correction": 1.1, "data_file_pointer": f"0 {48 * i}"}
    for i in range(3)
]  # fmt: skip


def build(folder, keys=(), frames=FRAMES, pixels=None, dtype="<i2"):
    """Write name.img and name.img.hdr; a key of None is left out."""
    lines = ["#", "# Header file for data file mouse.img", "#", "# Calibration factor (float)"]
    lines += [f"{k} {v}" for k, v in (KEYS | dict(keys)).items() if v is not None] + ["end_of_header"]
    for frame in frames:
        lines += [f"{k} {v}" for k, v in frame.items() if v is not None] + ["end_of_header"]
    (folder / "mouse.img.hdr").write_text("\r\n".join(lines), encoding="latin-1")
    pixels = PIXELS[: len(frames)] if pixels is None else pixels
    (folder / "mouse.img").write_bytes(pixels.astype(dtype).tobytes())
    return folder / "mouse.img"


def changed(**change):
    """Return the frames with keys of the second one changed."""
    return [FRAMES[0], FRAMES[1] | change, FRAMES[2]]


def fault(path):
    with pytest.raises(UnreadableImage) as caught:
        inveon.read_inveon(path)
    return caught.value.reason


@pytest.mark.parametrize("name", ["mouse.img", "mouse.img.hdr"])
def test_a_dynamic_image(tmp_path, name):
    build(tmp_path)
    scan = read(tmp_path / name)
    assert (scan.axes, scan.unit, scan.name) == ("TZYX", "Bq/mL", "mouse.img")
    np.testing.assert_array_equal(scan.counts, PIXELS)
    truth = PIXELS * np.array([0.001, 0.002, 0.003])[:, None, None, None] * 120 / 0.967 * 37
    np.testing.assert_allclose(scan.signal(), truth, rtol=1e-12)
    assert scan.scale.shape == (3, 1, 1, 1)
    assert (scan.pixel_size_mm, scan.slice_mm) == ((0.4, 0.5), 0.8)
    assert (scan.timing.start_s, scan.timing.duration_s, scan.timing.reference) == (START, DURATION, "scan_start")
    assert (scan.tracer.isotope, scan.tracer.half_life_s) == ("18F", 6586.2)
    assert scan.tracer.injected_bq == pytest.approx(7.4e6)
    assert (scan.tracer.injected_s, scan.tracer.weight_g) == (-600.0, 25.5)
    assert scan.tracer.decay_corrected_to == "scan_start"
    assert (scan.header["instrument"], scan.header["position"]) == ("Inveon Dedicated PET", "head first, prone")
    assert not scan.warnings
    assert not scan.notes


@pytest.mark.parametrize(
    ("code", "dtype"), [(1, "i1"), (2, "<i2"), (3, "<i4"), (4, "<f4"), (5, ">f4"), (6, ">i2"), (7, ">i4")]
)
def test_pixel_types(tmp_path, code, dtype):
    pixels = PIXELS[:1] // 5
    scan = read(build(tmp_path, {"data_type": code, "total_frames": 1}, FRAMES[:1], pixels, dtype))
    assert scan.axes == "ZYX"
    assert isinstance(scan.scale, float)
    assert scan.counts.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(scan.counts, pixels[0])


def test_frames_lie_where_their_pointers_say(tmp_path):
    frames = [f | {"data_file_pointer": f"0 {48 * at}"} for f, at in zip(FRAMES, (2, 0, 1), strict=True)]
    np.testing.assert_array_equal(read(build(tmp_path, frames=frames)).counts, PIXELS[[2, 0, 1]])


@pytest.mark.parametrize("pointer", ["0 0", "0", None])
def test_without_pointers_frames_follow_each_other(tmp_path, pointer):
    frames = [f | {"data_file_pointer": pointer} for f in FRAMES]
    np.testing.assert_array_equal(read(build(tmp_path, frames=frames)).counts, PIXELS)


def test_the_pointers_high_word_counts():
    header = inveon._Header(None, {}, ({"data_file_pointer": "1 -4"}, {"data_file_pointer": "x"}))
    assert inveon._pointer(header, 0) == 2**32 + 2**32 - 4
    assert inveon._pointer(header, 1) is None


def test_large_images_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(frames_on_disk, "SMALL_BYTES", 10)
    scan = read(build(tmp_path))
    assert scan.lazy
    np.testing.assert_array_equal(np.stack(list(scan.frames())), PIXELS)


# --- calibration --------------------------------------------------------------------------------------------------


def test_bq_per_cc_needs_no_37(tmp_path):
    scan = read(build(tmp_path, {"calibration_units": 2}))
    np.testing.assert_allclose(scan.scale.ravel(), np.array([0.001, 0.002, 0.003]) * 120 / 0.967)
    assert scan.unit == "Bq/mL"


@pytest.mark.parametrize(("key", "value", "said"), [
    ("calibration_units", 0, "calibration_units is 0"),
    ("calibration_units", None, "calibration_units is 0"),
    ("calibration_factor", None, "calibration_factor is missing"),
    ("calibration_factor", 0, "calibration_factor is 0"),
    ("isotope_branching_fraction", None, "isotope_branching_fraction is missing"),
    ("isotope_branching_fraction", 0, "isotope_branching_fraction is 0"),
])  # fmt: skip
def test_a_missing_part_of_the_calibration_leaves_counts(tmp_path, key, value, said):
    scan = read(build(tmp_path, {key: value}))
    assert scan.unit == "counts"
    np.testing.assert_allclose(scan.scale.ravel(), [0.001, 0.002, 0.003])
    assert any(said in text for text in scan.warnings)


def test_a_ct_image_has_no_activity(tmp_path):
    scan = read(build(tmp_path, {"modality": 1}))
    assert (scan.unit, scan.tracer) == ("counts", None)
    assert any("CT image" in note for note in scan.notes)


# --- sizes, times, tracer -----------------------------------------------------------------------------------------


def test_the_older_pixel_size_is_in_cm(tmp_path):
    old = {f"pixel_size_{axis}": None for axis in "xyz"} | {"axial_crystal_pitch": 0.2423}
    scan = read(build(tmp_path, old))
    assert scan.pixel_size_mm == pytest.approx((0.5, 0.5))
    assert scan.slice_mm == pytest.approx(1.2115)
    assert any("half the axial_crystal_pitch" in note for note in scan.notes)


def test_pixel_sizes_that_differ_are_told(tmp_path):
    scan = read(build(tmp_path, {"pixel_size": 0.5}))
    assert scan.pixel_size_mm == (0.4, 0.5)
    assert any("pixel_size is 5 mm and pixel_size_x 0.5 mm" in text for text in scan.warnings)


def test_what_the_header_does_not_say_is_none(tmp_path):
    kept = {"data_type", "x_dimension", "y_dimension", "z_dimension", "calibration_units", "calibration_factor",
            "isotope_branching_fraction"}  # fmt: skip
    frames = [{"frame": i, "scale_factor": 1} for i in range(3)]
    scan = read(build(tmp_path, {k: None for k in KEYS if k not in kept}, frames))
    assert (scan.timing, scan.pixel_size_mm, scan.slice_mm, scan.header) == (None, None, None, {})
    assert scan.tracer == type(scan.tracer)()
    assert scan.unit == "Bq/mL"


@pytest.mark.parametrize(("keys", "bq", "said"), [
    ({"dose_units": 2, "dose": 7.4}, 7.4e6, ""),
    ({"dose_units": 0}, None, "dose_units is 0"),
    ({"dose": 0}, None, ""),
    ({"injection_decay_correction": 1.12}, None, "injection_decay_correction of 1.12"),
])  # fmt: skip
def test_dose(tmp_path, keys, bq, said):
    scan = read(build(tmp_path, keys))
    assert scan.tracer.injected_bq == (None if bq is None else pytest.approx(bq))
    assert any(said in text for text in scan.warnings) == bool(said)


@pytest.mark.parametrize(("unit", "g"), [(1, 2.0), (2, 56.699), (3, 2000.0), (4, 907.185), (0, None)])
def test_weight(tmp_path, unit, g):
    weight = read(build(tmp_path, {"subject_weight": 2, "subject_weight_units": unit})).tracer.weight_g
    assert weight == (None if g is None else pytest.approx(g, rel=1e-5))


@pytest.mark.parametrize(("when", "after"), [("Fri Jan 7 14:18:31 2005", 120.0), ("Mon Jan 3 14:16:31 2005", -4 * 86400.0),
                                             ("Jan 7 14:06:31 2005", -600.0), ("unknown", None), ("Fri Jan 77 14:06:31 2005", None),
                                             ("Fri Jan 7 18:16:31 2005", None), ("Thu Jan 1 00:00:00 1970", None)])  # fmt: skip
def test_time_of_injection(tmp_path, when, after):
    assert read(build(tmp_path, {"injection_time": when})).tracer.injected_s == after


@pytest.mark.parametrize(("keys", "factor", "to", "told"), [
    ({"decay_correction_applied": 0}, None, "none", False),
    ({"decay_correction_applied": None}, None, "scan_start", False),
    ({}, 2.0, "unknown", True),
    ({"decay_correction_applied": None}, 2.0, "unknown", False),
    ({"isotope_half_life": None}, None, "unknown", True),
])  # fmt: skip
def test_decay_correction(tmp_path, keys, factor, to, told):
    scan = read(build(tmp_path, keys, FRAMES if factor is None else changed(decay_correction=factor)))
    assert scan.tracer.decay_corrected_to == to
    assert any("decay correction was applied" in text for text in scan.warnings) == told


def test_pixels_that_are_no_numbers_are_marked(tmp_path):
    pixels = PIXELS.astype(float)
    pixels[1, 0, 0, 0] = np.inf
    frames = [f | {"data_file_pointer": None} for f in FRAMES]
    scan = read(build(tmp_path, {"data_type": 4}, frames, pixels, "<f4"))
    assert scan.bad.sum() == 1
    assert scan.bad[1, 0, 0, 0]


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_missing_partner_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "mouse.img").unlink()
    assert "mouse.img is missing beside it" in fault(tmp_path / "mouse.img.hdr")
    with pytest.raises(UnreadableImage, match="no such file"):
        read(tmp_path / "mouse.img")
    build(tmp_path)
    (tmp_path / "mouse.img.hdr").unlink()
    assert "mouse.img.hdr is missing beside it" in fault(tmp_path / "mouse.img")
    with pytest.raises(UnreadableImage, match="no reader takes it"):
        read(tmp_path / "mouse.img")


def test_a_partner_outside_the_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    build(tmp_path)
    (tmp_path / "mouse.img.hdr").rename(tmp_path / "in" / "mouse.img.hdr")
    (tmp_path / "in" / "mouse.img").symlink_to(tmp_path / "mouse.img")
    assert "leads out of its folder" in fault(tmp_path / "in" / "mouse.img.hdr")


@pytest.mark.parametrize(("keys", "said"), [
    ({"x_dimension": None}, "key x_dimension is missing"),
    ({"data_type": None}, "key data_type is missing"),
    ({"data_type": 9}, "data_type is 9; expected 1 to 7"),
    ({"data_type": 4}, "mouse.img has 144 bytes, but 3 frames of 2 x 3 x 4 float32 pixels are 288"),
    ({"z_dimension": 3}, "mouse.img has 144 bytes"),
    ({"x_dimension": 10**12}, "mouse.img has 144 bytes"),
    ({"x_dimension": 0}, "an axis without extent"),
    ({"x_dimension": "four"}, "key x_dimension is 'four', expected a number"),
    ({"x_dimension": 4.5}, "key x_dimension is 4.5, expected a whole number"),
    ({"total_frames": 4}, "total_frames is 4, but 3 frames are described"),
    ({"total_frames": None, "time_frames": 2}, "total_frames is 2, but 3 frames are described"),
    ({"w_dimension": 2}, "w_dimension is 2"),
    ({"file_type": 2}, "file_type is 2, a sinogram"),
    ({"calibration_factor": "nan"}, "key calibration_factor is 'nan', expected a number"),
    ({"dose": "1e300"}, "key dose is '1e300', expected a number"),
    ({"dose": "0,2"}, "key dose is '0,2', expected a number"),
])  # fmt: skip
def test_faulty_headers(tmp_path, keys, said):
    assert said in fault(build(tmp_path, keys))


@pytest.mark.parametrize(("change", "said"), [
    ({"scale_factor": None}, "frame 1 has no key scale_factor, other frames have"),
    ({"scale_factor": 0}, "key scale_factor is 0 in frame 1"),
    ({"scale_factor": "x"}, "key scale_factor of frame 1 is 'x', expected a number"),
    ({"frame_start": None}, "frame 1 has no key frame_start"),
    ({"frame_start": 0}, "keys frame_start and frame_duration: frame 2 starts at 0 s"),
    ({"frame_duration": 170}, "frame 2 starts at 60 s and lasts 170 s, but frame 3 starts at 180 s"),
    ({"data_file_pointer": "0 17"}, "the frames' data_file_pointer are [0, 17, 96]"),
    ({"data_file_pointer": "0 0"}, "the frames' data_file_pointer are [0, 0, 96]"),
    ({"data_file_pointer": "1 48"}, "the frames' data_file_pointer are"),
    ({"gate": 1}, "frame 0 has no key gate"),
])  # fmt: skip
def test_faulty_frames(tmp_path, change, said):
    assert said in fault(build(tmp_path, frames=changed(**change)))


@pytest.mark.parametrize("key", ["gate", "bed"])
def test_gates_and_beds_are_no_frames(tmp_path, key):
    assert f"several {key}s" in fault(build(tmp_path, frames=[f | {key: i} for i, f in enumerate(FRAMES)]))


def test_no_scale_factor_and_no_frame_at_all(tmp_path):
    frames = [f | {"scale_factor": None} for f in FRAMES]
    assert "key scale_factor is missing" in fault(build(tmp_path, frames=frames))
    assert "it describes no frame" in fault(build(tmp_path, frames=[]))


def test_a_binary_header_is_named(tmp_path):
    path = build(tmp_path)
    (tmp_path / "mouse.img.hdr").write_bytes(bytes(348))
    assert "it is no text, so no Inveon header" in fault(path)


def test_truncated_and_mutated_headers_leave_only_sentences(tmp_path):
    path = build(tmp_path)
    hdr = tmp_path / "mouse.img.hdr"
    whole, rng = hdr.read_bytes(), np.random.default_rng(4)
    for end in range(0, len(whole) - 1, 40):
        hdr.write_bytes(whole[:end])
        try:
            scan = inveon.read_inveon(path)
        except UnreadableImage:
            continue
        assert scan.counts.shape == PIXELS.shape
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            data[at] = rng.integers(32, 127)
        hdr.write_bytes(data)
        try:
            scan = inveon.read_inveon(path)
        except UnreadableImage:
            continue
        assert scan.counts.nbytes == PIXELS.size * 2
