"""ECAT7: values against a file of a real scanner and files built here; damaged lists and frames in words."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.ecat import hdr_dtype, subhdr_dtype

from evbiodist.io import ecat, frames_on_disk
from evbiodist.io.registry import read
from evbiodist.study.problems import UnreadableImage

BIG_HEADER, BIG_SUB = hdr_dtype.newbyteorder(">"), subhdr_dtype.newbyteorder(">")
SHAPE = (2, 3, 4)
PIXELS = np.random.default_rng(0).integers(-50, 500, (3, *SHAPE)).astype(">i2")
RATE = np.log(2) / 6586.2


def decay_factors(start, duration, shift=0.0):
    """Mean decay over each frame by adding it up second by second, from `shift` s before the scan's start."""
    fine = [np.linspace(s, s + d, 20_001) for s, d in zip(start, duration, strict=True)]
    return [1 / np.mean(0.5 ** ((t + shift) / 6586.2)) for t in fine]


def build(path, pixels=PIXELS, header=(), subs=(), rows=None, chain=None, numbers=None):
    """Write an ECAT7 file: main header, matrix list, then a subheader and the pixels of each frame."""
    main = np.zeros((), BIG_HEADER)
    main["magic_number"], main["sw_version"], main["file_type"] = b"MATRIX72v", 74, 7
    main["isotope_name"], main["isotope_halflife"] = b"F-18", 6586.2
    main["ecat_calibration_factor"], main["data_units"] = 20.0, b"Bq/cc"
    main["num_frames"], main["scan_start_time"], main["dose_start_time"] = len(pixels), 1_290_000_600, 1_290_000_000
    main["patient_orientation"], main["patient_weight"] = 1, 0.025
    for key, value in dict(header).items():
        main[key] = value
    start, duration = (0, 60, 180), (60, 120, 300)
    blocks, entries = [], []
    place = 3
    for i, frame in enumerate(pixels):
        sub = np.zeros((), BIG_SUB)
        sub["data_type"] = {"u1": 1, ">f4": 5, ">i2": 6, ">i4": 7}[frame.dtype.str.lstrip("|")]
        sub["z_dimension"], sub["y_dimension"], sub["x_dimension"] = frame.shape
        sub["x_pixel_size"], sub["y_pixel_size"], sub["z_pixel_size"] = 0.05, 0.04, 0.08
        sub["scale_factor"] = 0.5 * (i + 1)
        sub["frame_start_time"], sub["frame_duration"] = 1000 * start[i], 1000 * duration[i]
        sub["decay_corr_fctr"] = decay_factors(start, duration)[i]
        for key, value in (dict(subs[i]) if i < len(subs) else {}).items():
            sub[key] = value
        body = frame.tobytes()
        body += bytes(-len(body) % 512)
        number = (numbers or (1, 2, 3))[i]
        entries.append((0x1010000 + number, place, place + len(body) // 512, 1))
        blocks.append(sub.tobytes().ljust(512, b"\0") + body)
        place += 1 + len(body) // 512
    table = np.zeros((32, 4), ">i4")
    entries = entries if rows is None else rows
    table[0] = chain or (31 - len(entries), 2, 0, len(entries))
    if entries:
        table[1 : len(entries) + 1] = entries
    path.write_bytes(main.tobytes().ljust(512, b"\0") + table.tobytes() + b"".join(blocks))
    return path


def fault(path):
    with pytest.raises(UnreadableImage) as caught:
        ecat.read_ecat(path)
    return caught.value.reason


def test_a_real_scanners_file():
    """tinypet.v, a Siemens HRRT frame that nibabel ships; values as nibabel itself calibrates them."""
    path = Path(nibabel.__file__).parent / "tests" / "data" / "tinypet.v"
    scan = read(path)
    with path.open("rb") as handle:
        files = {"header": nibabel.FileHolder(fileobj=handle), "image": nibabel.FileHolder(fileobj=handle)}
        image = nibabel.ecat.EcatImage.from_file_map(files)
        truth = np.asarray(image.dataobj)[..., 0]
    np.testing.assert_allclose(scan.signal(), truth.transpose(2, 1, 0), rtol=1e-6)
    assert scan.unit == "Bq/mL"
    assert scan.pixel_size_mm == pytest.approx((2.2024198, 2.2024198))
    assert scan.slice_mm == pytest.approx(3.125)
    assert (scan.timing.start_s, scan.timing.duration_s) == ((1500.016,), (300.0,))
    assert (scan.tracer.isotope, scan.tracer.decay_corrected_to) == ("18F", "scan_start")
    assert scan.tracer.half_life_s == pytest.approx(6586.2)
    assert scan.tracer.injected_s is None
    assert any("by dose_start_time the injection was 143 h after" in text for text in scan.warnings)


def test_a_dynamic_file(tmp_path):
    scan = read(build(tmp_path / "a.v"))
    assert (scan.axes, scan.counts.shape, scan.counts.dtype) == ("TZYX", (3, *SHAPE), np.int16)
    np.testing.assert_array_equal(scan.counts, PIXELS)
    truth = PIXELS.astype(float) * 20 * np.array([0.5, 1.0, 1.5])[:, None, None, None]
    np.testing.assert_allclose(scan.signal(), truth, rtol=1e-12)
    assert scan.scale.shape == (3, 1, 1, 1)
    assert scan.pixel_size_mm == pytest.approx((0.4, 0.5))
    assert scan.slice_mm == pytest.approx(0.8)
    assert (scan.timing.start_s, scan.timing.duration_s) == ((0, 60, 180), (60, 120, 300))
    assert scan.timing.reference == "scan_start"
    assert (scan.tracer.injected_s, scan.tracer.injected_bq) == (-600.0, None)
    assert scan.tracer.weight_g == pytest.approx(25)
    assert scan.tracer.decay_corrected_to == "scan_start"
    assert scan.header["position"] == "head first, prone"
    assert not scan.warnings


@pytest.mark.parametrize("dtype", ["u1", ">i4", ">f4"])
def test_pixel_types(tmp_path, dtype):
    scan = read(build(tmp_path / "a.v", np.abs(PIXELS[:1] % 200).astype(dtype)))
    assert scan.axes == "ZYX"
    assert isinstance(scan.scale, float)
    np.testing.assert_array_equal(scan.counts, np.abs(PIXELS[0] % 200))
    assert any("8 bits" in text for text in scan.warnings) == (dtype == "u1")


def test_frames_are_put_in_the_order_of_time(tmp_path):
    subs = [{"frame_start_time": t} for t in (180_000, 0, 60_000)]
    subs = [s | {"frame_duration": 10_000} for s in subs]
    scan = read(build(tmp_path / "a.v", subs=subs, numbers=(3, 1, 2)))
    assert scan.timing.start_s == (0, 60, 180)
    np.testing.assert_array_equal(scan.counts, PIXELS[[1, 2, 0]])
    np.testing.assert_allclose(scan.scale.ravel(), [20, 30, 10])


def test_large_files_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(frames_on_disk, "SMALL_BYTES", 10)
    scan = read(build(tmp_path / "a.v"))
    assert scan.lazy
    np.testing.assert_array_equal(np.stack(list(scan.frames())), PIXELS)


@pytest.mark.parametrize(("words", "unit", "factor"), [(b"kBq/ml", "Bq/mL", 2e4), (b"nCi/cc", "Bq/mL", 740), (b"", "counts", 20),
                                                       (b"ml/min/100g", "counts", 20), (b"1/sec", "counts", 20)])  # fmt: skip
def test_units(tmp_path, words, unit, factor):
    scan = read(build(tmp_path / "a.v", header={"data_units": words}))
    assert scan.unit == unit
    np.testing.assert_allclose(scan.scale.ravel(), factor * np.array([0.5, 1, 1.5]))
    assert bool(scan.warnings) == (unit == "counts")


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
def test_without_a_calibration_values_are_counts(tmp_path, factor):
    scan = read(build(tmp_path / "a.v", header={"ecat_calibration_factor": factor}))
    assert scan.unit == "counts"
    assert any("ecat_calibration_factor" in text for text in scan.warnings)


@pytest.mark.parametrize(("factors", "to"), [
    (decay_factors((0, 60, 180), (60, 120, 300), 600), "injection"),
    ((1.0, 1.0, 1.0), "none"),
    ((1.0, 2.0, 3.0), "unknown"),
    ((0.0, 0.0, 0.0), "unknown"),
    ((np.nan, 1.0, 1.0), "unknown"),
])  # fmt: skip
def test_what_decay_factors_lead_back_to(tmp_path, factors, to):
    scan = read(build(tmp_path / "a.v", subs=[{"decay_corr_fctr": f} for f in factors]))
    assert scan.tracer.decay_corrected_to == to


def test_what_the_headers_do_not_say_is_none(tmp_path):
    nothing = {
        "isotope_name": b"",
        "isotope_halflife": 0,
        "dose_start_time": 0,
        "patient_weight": 0,
        "patient_orientation": 8,
    }
    subs = [{"frame_start_time": 0, "frame_duration": 0, "x_pixel_size": 0}] * 3
    scan = read(build(tmp_path / "a.v", header=nothing, subs=subs))
    assert scan.tracer == type(scan.tracer)()
    assert scan.timing is None
    assert scan.pixel_size_mm is None
    assert "position" not in scan.header


def test_a_dosage_has_no_unit(tmp_path):
    scan = read(build(tmp_path / "a.v", header={"dosage": 7.4}))
    assert scan.tracer.injected_bq is None
    assert any("dosage is 7.4" in note for note in scan.notes)


def test_a_number_of_frames_that_differs_is_told(tmp_path):
    scan = read(build(tmp_path / "a.v", header={"num_frames": 5}))
    assert any("states 5 frames, the file holds 3" in text for text in scan.warnings)


@pytest.mark.parametrize(("header", "said"), [({"file_type": 11}, "its file type is 11 (3DSCAN), no image"),
                                              ({"file_type": 99}, "its file type is 99 (unknown)"),
                                              ({"magic_number": b"MATRIX6"}, "not with MATRIX7")])  # fmt: skip
def test_what_is_no_image(tmp_path, header, said):
    assert said in fault(build(tmp_path / "a.v", header=header))


@pytest.mark.parametrize(("subs", "said"), [
    ([{}, {"scale_factor": 0}], "frame 2 has the scale_factor 0"),
    ([{}, {"scale_factor": np.nan}], "frame 2 has the scale_factor nan"),
    ([{"data_type": 4}], "pixels of frame 1 are of type 4"),
    ([{}, {}, {"x_dimension": 3}], "frame 3 is (2, 3, 3)"),
    ([{"z_dimension": 0}], "an axis without extent"),
    ([{"z_dimension": 60000, "y_dimension": 60000, "x_dimension": 60000}], "truncated: frame 1 ends at byte 432000000001536"),
    ([{}, {"frame_start_time": 0}], "frame_start_time and frame_duration of its subheaders: frame 2 starts at 0 s"),
    ([{"frame_duration": 60000}, {"frame_duration": 180000}], "the durations (60, 180, 300 s) are the frames' end times"),
    ([{}, {"frame_duration": 150000}], "frame 2 starts at 60 s and lasts 150 s, but frame 3 starts at 180 s"),
])  # fmt: skip
def test_faulty_subheaders(tmp_path, subs, said):
    assert said in fault(build(tmp_path / "a.v", subs=subs))


@pytest.mark.parametrize(("rows", "chain", "said"), [
    ([], None, "holds no frame"),
    ([(0x1010001, 3, 4, -1)], None, "holds no frame"),
    ([(0x1010001, 2, 4, 1)], None, "frame 1 is placed in block 2, inside the headers"),
    ([(0x1010001, 900, 901, 1)], None, "truncated: the subheader of frame 1 should lie at byte 460288"),
    ([(0x1010001, 3, 4, 1), (0x2010001, 5, 6, 1)], None, "2 gates or bed positions"),
    ([(0x1010001, 3, 4, 1), (0x1011001, 5, 6, 1)], None, "2 gates or bed positions"),
    ([(0x1010001, 3, 4, 1), (0x1010001, 5, 6, 1)], None, "holds a frame twice"),
    (None, (28, 4, 0, 3), "its matrix list is damaged"),
    (None, (28, 500, 0, 3), "truncated: the matrix list should lie at byte 255488"),
    (None, (99, 2, 0, 3), "its matrix list is damaged"),
    (None, (-9, 2, 0, 40), "its matrix list is damaged"),
])  # fmt: skip
def test_faulty_matrix_lists(tmp_path, rows, chain, said):
    assert said in fault(build(tmp_path / "a.v", rows=rows, chain=chain))


def test_a_matrix_list_that_points_back_ends(tmp_path):
    path = build(tmp_path / "a.v")
    data = bytearray(path.read_bytes())
    size = len(data) // 512
    data[512:516], data[516:520] = (28).to_bytes(4, "big"), (size + 1).to_bytes(4, "big")
    table = np.zeros((32, 4), ">i4")
    table[0] = (31, size + 1, 0, 0)
    path.write_bytes(data + table.tobytes())
    assert "points back to itself" in fault(path)


def test_truncated_files(tmp_path):
    path = build(tmp_path / "a.v")
    whole = path.read_bytes()
    for end in (0, 6, 300, 700, 1100, 2600, len(whole) - 470):
        path.write_bytes(whole[:end])
        assert "truncated" in fault(path) or end < 7


def test_mutated_headers_leave_only_sentences(tmp_path):
    path = build(tmp_path / "a.v")
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 1536 + 200, 5):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            scan = ecat.read_ecat(path)
        except UnreadableImage:
            continue
        assert scan.counts.nbytes <= len(whole)
