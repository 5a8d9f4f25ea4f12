"""IVIS sequences: many clicks as one scan, in time and in bands; and what cannot be one scan, in words."""

import contextlib
from datetime import datetime, timedelta

import numpy as np
import pytest
import tifffile

from evbiodist.io.registry import read, reader_for
from evbiodist.io.scan import RADIANCE, RADIANT_EFFICIENCY, Band
from evbiodist.study.problems import UnreadableImage

CLICK = """*** ClickNumber:\t{number}
Living Image Version:\t4.7.3
*** photographic image:\tphotograph.TIF
Field of View:\t{fov}
*** luminescent image:\tluminescent.TIF
{times}Luminescent Exposure (Seconds):\t{exposure}
Binning Factor:\t{binning}
f Number:\t{f}
Field of View:\t{fov}
Read Bias Level:\t{bias}
Emission filter:\t{emission}
Excitation filter:\t{excitation}
{more}*** Camera System Info:\t
CCD Saturation Level:\t61000
Shelf Position A FOV:\t4
Coef C-ccd at FOV 4, f1:\t6.4E+05
Coef C-ccd at FOV 4, f2:\t2.6E+06
Coef C-ccd at FOV 6.6, f1:\t6.5E+05
Shelf Position A FF5 f/1 Coefs:\t1.0,0,-0.1,0,0,0.5,-0.25
"""
NOON = datetime(2022, 1, 5, 12, 0, 0)


def clock(start_s, how):
    """Return the header's lines on a start in seconds after noon; Igor counts from 1904, here in a zone of UTC-6."""
    at = NOON + timedelta(seconds=start_s)
    wall = f"Acquisition Date:\t{at:%A, %B} {at.day}, {at.year}\nAcquisition Time:\t{at:%H:%M:%S}\n"
    igor = f"Acquisition Seconds:\t{(at - datetime(1904, 1, 1)).total_seconds() + 6 * 3600:.0f}\n"
    return {"both": wall + igor, "wall": wall, "igor": igor, "none": ""}[how]


@pytest.fixture
def sequence(tmp_path):
    folder = tmp_path / "AB20220105_SEQ"
    folder.mkdir()
    names = []

    def add(name, start_s, level=1500, *, how="both", listed=True, present=True, photo=None, shape=(8, 8), **keys):
        if listed:
            names.append(name)
        lines = "".join(f"ClickNumber {i}:\t{n}\n" for i, n in enumerate(names, 1))
        (folder / "SequenceInfo.txt").write_text(f"*** Sequence:\tAB20220105_SEQ\n{lines}")
        if not present:
            return folder
        base = {"number": name, "fov": "4", "exposure": 10, "binning": 8, "f": 1, "bias": 500, "emission": "Open",
                "excitation": "Block", "more": ""}  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "ClickInfo.txt").write_text(CLICK.format(times=clock(start_s, how), **{**base, **keys}))
        tifffile.imwrite(folder / name / "luminescent.TIF", np.full(shape, level, np.uint16))
        if photo is not None:
            tifffile.imwrite(folder / name / "photograph.TIF", np.full((32, 32), photo, np.uint16))
        return folder

    return add


# ------------------------------------------------------------------------------ time


def test_times_are_in_the_order_of_acquisition_not_of_names(sequence):
    sequence("AB_001", 600, 1700)
    sequence("AB_002", 0, 1500)
    folder = sequence("AB_003", 300, 1600)
    scan = read(folder)
    assert scan.axes == "TYX"
    assert scan.counts[:, 0, 0].tolist() == [1500, 1600, 1700]
    assert scan.timing.start_s == (0, 300, 600)
    assert scan.timing.duration_s == (10, 10, 10)
    assert scan.timing.reference == "scan_start"
    assert scan.pixel_size_mm == (5.0, 5.0)
    assert scan.camera.saturation == 61000
    assert scan.header["acquired"] == "Wednesday, January 5, 2022 12:00:00 (first click)"
    assert "clicks in the order of time: AB_002, AB_003, AB_001" in scan.notes


def test_each_frame_is_what_its_click_gives_alone(sequence):
    sequence("a", 0, 1500, exposure=10)
    sequence("b", 60, 2500, exposure=40, f=2)
    folder = sequence("c", 200, 900, exposure=5, bias=510)
    scan = read(folder)
    for t, name in enumerate("abc"):
        np.testing.assert_allclose(scan.signal()[t], read(folder / name).signal(), rtol=1e-12)
    assert scan.unit == RADIANCE
    assert np.broadcast_shapes(np.shape(scan.offset), (3, 8, 8)) == (3, 8, 8)
    assert scan.exposure_s is None
    assert "exposures differ: a 10 s, b 40 s, c 5 s" in scan.notes
    assert scan.timing.duration_s == (10, 40, 5)
    assert scan.camera.bias is None


@pytest.mark.parametrize("how", ["wall", "igor"])
def test_either_clock_is_enough(sequence, how):
    sequence("a", 43000, how=how)
    assert read(sequence("b", 43300, how=how)).timing.start_s == (0, 300)  # over midnight


def test_a_changed_wall_clock_is_said(sequence):
    sequence("a", 0)
    folder = sequence("b", 300)
    info = folder / "b" / "ClickInfo.txt"
    info.write_text(info.read_text().replace("12:05:00", "13:05:00"))
    scan = read(folder)
    assert scan.timing.start_s == (0, 300)
    assert any("differ by up to 3600 s" in w and "Acquisition Seconds are believed" in w for w in scan.warnings)


def test_times_are_never_invented(sequence):
    sequence("a", 0)
    scan = read(sequence("b", 300, how="none"))
    assert scan.timing is None
    assert any("acquisition time of these clicks is not known" in w and w.endswith(": b") for w in scan.warnings)


def test_times_that_contradict_each_other_are_dropped_in_words(sequence):
    sequence("a", 0, exposure=400)
    scan = read(sequence("b", 300))
    assert scan.timing is None
    assert any("acquisition times contradict each other" in w and "lasts 400 s" in w for w in scan.warnings)


def test_one_click_is_one_frame(sequence):
    folder = sequence("a", 0)
    scan = read(folder)
    assert scan.axes == "YX"
    np.testing.assert_array_equal(scan.signal(), read(folder / "a").signal())


# ------------------------------------------------------------------------------ bands


def test_filters_make_bands_with_their_wavelengths(sequence):
    sequence("a", 0, 1500, emission="620", excitation="535")
    sequence("b", 15, 1600, emission="640", excitation="535")
    scan = read(sequence("c", 30, 1700, emission="GFP", excitation="535"))
    assert scan.axes == "CYX"
    assert scan.bands == (Band(620, 535, "535 to 620"), Band(640, 535, "535 to 640"), Band(None, 535, "535 to GFP"))
    assert scan.timing.duration_s == (40,)
    assert "the bands were taken one after another, within 40 s" in scan.notes
    assert "no_irradiance" in scan.flags
    assert (
        scan.warnings.count("radiant efficiency needs the excitation irradiance, which the folder does not give") == 1
    )


def test_a_full_grid_has_times_and_bands(sequence):
    level = 1000
    for t in range(3):
        for emission in ("620", "640"):
            level += 100
            folder = sequence(
                f"x{9 - t}_{emission}", 600 * t + (20 if emission == "640" else 0), level, emission=emission
            )
    scan = read(folder)
    assert scan.axes == "TCYX"
    assert scan.counts[..., 0, 0].tolist() == [[1100, 1200], [1300, 1400], [1500, 1600]]
    assert [b.emission_nm for b in scan.bands] == [620, 640]
    assert scan.timing.start_s == (0, 600, 1200)
    assert scan.timing.duration_s == (30, 30, 30)
    np.testing.assert_allclose(scan.signal()[2, 1], read(folder / "x7_640").signal(), rtol=1e-12)


def test_a_grid_with_a_hole_is_refused_naming_the_clicks(sequence):
    sequence("a", 0, emission="620")
    sequence("b", 20, emission="640")
    folder = sequence("c", 600, emission="620")
    with pytest.raises(UnreadableImage, match=r"no full grid.*emission 620: a, c.*emission 640: b.*one by one"):
        read(folder)


def test_filters_not_taken_in_turns_are_refused(sequence):
    for i, emission in enumerate(("620", "620", "640", "640")):
        folder = sequence("abcd"[i], 60 * i, emission=emission)
    with pytest.raises(UnreadableImage, match="the filters were not taken in turns"):
        read(folder)


def test_irradiance_per_click_and_mixed_units(sequence):
    sequence("a", 0, excitation="535", more="Excitation irradiance:\t200 uW/cm2\n")
    folder = sequence("b", 60, excitation="535", more="Excitation irradiance:\t100 uW/cm2\n")
    scan = read(folder)
    assert scan.unit == RADIANT_EFFICIENCY
    np.testing.assert_allclose(scan.signal()[1], 2 * scan.signal()[0], rtol=1e-12)
    folder = sequence("c", 120, excitation="535")
    with pytest.raises(UnreadableImage, match=r"differ in unit.*a, b; p/s/cm2/sr: c"):
        read(folder)


def test_lamp_levels_that_differ_are_said(sequence):
    sequence("a", 0, excitation="535", more="Fluorescent lamp level:\tHigh\n")
    scan = read(sequence("b", 60, excitation="535", more="Fluorescent lamp level:\tLow\n"))
    assert "the lamp level differs between clicks, so their radiances are not comparable" in scan.warnings


# ------------------------------------------------------------------------------ what lies in the folder


def test_a_missing_click_is_named(sequence):
    sequence("a", 0)
    sequence("b", 60, present=False)
    scan = read(sequence("c", 120))
    assert "SequenceInfo.txt lists click b, which is not in the folder; it is missing here" in scan.warnings
    assert scan.timing.start_s == (0, 120)


def test_unlisted_copied_and_imageless_clicks_are_left_out_in_words(sequence):
    sequence("a", 0)
    sequence("b", 60)
    sequence("copy", 60, number="b")
    sequence("photo", 90)
    folder = sequence("unmixed", 99, listed=False)
    info = folder / "photo" / "ClickInfo.txt"
    info.write_text(info.read_text().replace("*** luminescent image", "*** scout image"))
    scan = read(folder)
    assert scan.counts.shape == (2, 8, 8)
    assert {
        "click folder unmixed is not listed in SequenceInfo.txt and is left out",
        "click copy is a copy of b (ClickNumber b) and is left out",
        "click photo holds no luminescent or fluorescent image and is left out",
    } <= set(scan.warnings)


def test_clicks_are_known_by_their_number_too(sequence):
    sequence("renamed", 0, listed=False, number="AB_001")
    folder = sequence("AB_001", 60, present=False)
    assert not any("AB_001" in w for w in read(folder).warnings)


def test_a_list_without_clicks_takes_every_folder(sequence):
    sequence("a", 0)
    folder = sequence("b", 60)
    (folder / "SequenceInfo.txt").write_text("Sequence Name:\tx\nClickNumber:\t\n")
    scan = read(folder)
    assert scan.counts.shape == (2, 8, 8)
    assert "SequenceInfo.txt lists no click; every click folder is taken" in scan.warnings


def test_the_photograph_is_that_of_the_first_click_that_has_one(sequence):
    sequence("a", 100, photo=7)
    sequence("b", 50, photo=8)
    folder = sequence("c", 0)
    assert read(folder).photograph.max() == 8
    for name in "ab":
        (folder / name / "photograph.TIF").unlink()
    scan = read(folder)
    assert scan.photograph is None
    assert "no click has a photograph of the same field of view" in scan.warnings


def test_warnings_of_single_clicks_carry_their_names(sequence):
    sequence("a", 0)
    folder = sequence("b", 60, excitation="Open")
    (folder / "a" / "ClickInfo.txt").write_text(
        (folder / "a" / "ClickInfo.txt").read_text().replace("Excitation filter:\tBlock", "Excitation filter:\tOpen")
        .replace("*** Camera System", "Fluorescent lamp level:\tOff\n*** Camera System")
    )  # fmt: skip
    warnings = read(folder).warnings
    assert any(w.startswith("click a: the excitation filter is 'Open' but the lamp is off") for w in warnings)
    assert any(w.startswith("click b: the excitation filter is 'Open' but no lamp level") for w in warnings)
    assert "there is no dark frame, so dark charge is not subtracted" in warnings


def corrected(folder, name, calibration="p/sec/cm^2/sr"):
    info = folder / name / "ClickInfo.txt"
    info.write_text(info.read_text() + "*** luminescentFloatCorrected image:\tluminescentFloatCorrected.TIF\n"
                    f"Flat Field Corrected:\t1\nIntensity Calibration:\t{calibration}\n")  # fmt: skip
    tifffile.imwrite(folder / name / "luminescentFloatCorrected.TIF", np.full((8, 8), 77.0, np.float32))


def test_vendor_images_are_used_when_every_click_has_one(sequence):
    sequence("a", 0)
    folder = sequence("b", 60)
    corrected(folder, "a")
    mixed = read(folder)
    assert "only 1 of 2 clicks have the vendor's corrected image, so all are computed from raw counts" in mixed.warnings
    assert mixed.counts.dtype == np.uint16
    corrected(folder, "b")
    scan = read(folder)
    np.testing.assert_array_equal(scan.signal(), 77.0)
    assert scan.timing.start_s == (0, 60)  # the corrected block lacks times, which the raw one has


@pytest.mark.parametrize(
    ("change", "words"),
    [({"shape": (8, 16)}, r"differ in shape.*\(8 x 8 px: a; 8 x 16 px: b\)"),
     ({"fov": "6.6"}, r"differ in field of view.*\(4 cm: a; 6\.6 cm: b\)"),
     ({"binning": 4}, r"differ in binning.*\(8: a; 4: b\)")],
)  # fmt: skip
def test_clicks_of_different_grids_are_refused_by_name(sequence, change, words):
    sequence("a", 0)
    folder = sequence("b", 60, **change)
    with pytest.raises(UnreadableImage, match=words):
        read(folder)


def test_the_file_of_the_sequence_and_a_click_in_it_are_readable_too(sequence):
    sequence("a", 0)
    folder = sequence("b", 60)
    assert reader_for(folder).name == "ivis"
    assert read(folder / "SequenceInfo.txt").axes == "TYX"
    assert read(folder / "a").axes == "YX"


# ------------------------------------------------------------------------------ hostile folders


def test_a_damaged_click_is_named(sequence):
    sequence("a", 0)
    folder = sequence("b", 60)
    file = folder / "b" / "luminescent.TIF"
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(UnreadableImage, match=r"AB20220105_SEQ: click b cannot be read \(luminescent\.TIF: "):
        read(folder)


def test_names_in_the_list_lead_nowhere_outside(sequence, tmp_path):
    folder = sequence("a", 0)
    outside = tmp_path / "outside"
    (folder / "a").rename(outside)
    (folder / "SequenceInfo.txt").write_text("ClickNumber 1:\t../outside\n")
    (folder / "a").symlink_to(outside)
    with pytest.raises(UnreadableImage, match="the sequence holds no click folder"):
        read(folder)


def test_a_sequence_none_of_whose_clicks_is_there_is_refused(sequence):
    sequence("a", 0, present=False)
    folder = sequence("b", 60, listed=False)
    with pytest.raises(UnreadableImage, match=r"SequenceInfo\.txt lists a, none of which lies in the folder"):
        read(folder)


def test_sequences_over_the_limit_are_refused(sequence, monkeypatch):
    sequence("a", 0)
    folder = sequence("b", 60)
    monkeypatch.setattr("evbiodist.io.ivis_sequence._MAX_BYTES", 1000)
    with pytest.raises(UnreadableImage, match=r"2 clicks of \(8, 8\) px are over the limit"):
        read(folder)


@pytest.mark.parametrize("seed", range(40))
def test_scrambled_headers_never_leave_anything_but_words(sequence, seed):
    sequence("a", 0, emission="620", excitation="535", photo=3)
    folder = sequence("b", 60, emission="620", excitation="535")
    rng = np.random.default_rng(seed)
    for file in (folder / "SequenceInfo.txt", folder / "b" / "ClickInfo.txt", folder / "b" / "luminescent.TIF"):
        data = bytearray(file.read_bytes())
        for place in rng.integers(0, len(data), 12):
            data[place] = rng.integers(0, 256)
        file.write_bytes(bytes(data))
    with contextlib.suppress(UnreadableImage):
        assert read(folder).counts.shape[-2:] == (8, 8)
