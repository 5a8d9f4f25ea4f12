"""DICOM series: every slice in its place with its own slope, times and dose as the header means them, or words."""

import itertools
import math

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from evbiodist.io.dicom import read_dicom, suv_bw_factor
from evbiodist.io.registry import read, reader_for
from evbiodist.io.scan import Scan, Tracer
from evbiodist.study.problems import UnreadableImage

PET, NM = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.20"
UIDS = itertools.count(1)
HALF_LIFE = 6586.2  # 18F, s
SHAPE = (3, 4)


def item(**elements):
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


def dose(**more):
    code = item(CodeValue="C-111A1", CodingSchemeDesignator="SRT", CodeMeaning="^18^Fluorine")
    told = {"RadionuclideTotalDose": "10000000", "RadionuclideHalfLife": str(HALF_LIFE),
            "RadiopharmaceuticalStartTime": "100000", "RadionuclideCodeSequence": Sequence([code]), **more}  # fmt: skip
    return Sequence([item(**{k: v for k, v in told.items() if v is not None})])


def write(path, pixels, syntax=ExplicitVRLittleEndian, sop=PET, **elements):
    """Write one DICOM file; an element of None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, f"1.2.3.{next(UIDS)}"
    meta.TransferSyntaxUID = syntax
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = np.asarray(pixels, dtype=np.uint16)
    told = {
        "SOPClassUID": sop, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "PT",
        "SeriesInstanceUID": "1.2.3.4", "SeriesNumber": "3", "SeriesDescription": "EV 1 h",
        "PatientName": "Doe^Jane", "PatientID": "SECRET7", "PatientBirthDate": "20240102", "PatientWeight": "0.025",
        "Manufacturer": "Bruker", "Rows": pixels.shape[-2], "Columns": pixels.shape[-1], "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": ["0.5", "0.25"], "SliceThickness": "9",
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "ImagePositionPatient": ["0", "0", "0"],
        "RescaleSlope": "1", "RescaleIntercept": "0", "Units": "BQML", "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN"], "SeriesDate": "20240305", "SeriesTime": "110000",
        "AcquisitionDate": "20240305", "AcquisitionTime": "110000", "ActualFrameDuration": "600000",
        "FrameReferenceTime": "297000", "RadiopharmaceuticalInformationSequence": dose(), **elements,
    }  # fmt: skip
    for name, value in told.items():
        if value is not None:
            setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    if syntax == RLELossless:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def volume(folder, slices=4, step=0.8, start=5.0, shuffle=True, each=None, **elements):
    """Write a static volume: slice k holds k + 1 everywhere in Bq/mL, by a slope of its own."""
    names = [f"im{i:03d}.dcm" for i in range(slices)]
    if shuffle:
        names = [names[i] for i in np.random.default_rng(5).permutation(slices)]
    for k, name in enumerate(names):
        stored, slope = 100 + 10 * k, (k + 1) / (100 + 10 * k)
        told = {"RescaleSlope": f"{slope:.12g}", "ImagePositionPatient": ["0", "0", f"{start + step * k:.6g}"]}
        write(folder / name, np.full(SHAPE, stored), **{**told, **elements, **(each(k) if each else {})})
    return folder


def dynamic(folder, starts=(0, 60, 120), lasts=60, slices=3, each=None):
    for t, k in itertools.product(range(len(starts)), range(slices)):
        mid = 1000 * (starts[t] + lasts / 2)
        told = {"AcquisitionTime": f"11{starts[t] // 60:02d}{starts[t] % 60:02d}", "FrameReferenceTime": f"{mid:g}",
                "ActualFrameDuration": f"{1000 * lasts}", "ImagePositionPatient": ["0", "0", str(2 * k)],
                **(each(t, k) if each else {})}  # fmt: skip
        write(folder / f"{9 - t}{k}.dcm", np.full(SHAPE, 10 * t + k), **told)
    return folder


def reason(path):
    with pytest.raises(UnreadableImage) as caught:
        read_dicom(path)
    return caught.value.reason


# --- volumes --------------------------------------------------------------------------------------------------


def test_slices_are_sorted_by_position_and_scaled_each_by_its_own_slope(tmp_path):
    scan = read_dicom(volume(tmp_path))
    assert (scan.axes, scan.counts.shape, scan.counts.dtype, scan.unit) == ("ZYX", (4, *SHAPE), np.float32, "Bq/mL")
    np.testing.assert_allclose(scan.signal()[:, 0, 0], [1, 2, 3, 4], rtol=1e-6)
    assert scan.pixel_size_mm == (0.5, 0.25)
    assert scan.slice_mm == pytest.approx(0.8)  # by positions; SliceThickness says 9
    assert any("each slice's own slope (0.01 to 0.0307692)" in n for n in scan.notes)


def test_one_file_stands_for_its_series_and_other_series_stay_out(tmp_path):
    volume(tmp_path)
    write(tmp_path / "other.dcm", np.zeros((9, 9)), SeriesInstanceUID="1.2.9")
    assert read_dicom(tmp_path / "im002.dcm").counts.shape == (4, *SHAPE)


def test_a_folder_with_two_series_names_them(tmp_path):
    volume(tmp_path)
    write(tmp_path / "x.dcm", np.zeros(SHAPE), SeriesInstanceUID="1.2.9", SeriesNumber="4", SeriesDescription="CT low")
    assert reason(tmp_path) == ("it holds 2 series (series 3 'EV 1 h' (4 files); series 4 'CT low' (1 files)); "
                                "give one file of the series you mean")  # fmt: skip


@pytest.mark.parametrize("orientation", [("1", "0", "0", "0", "0", "-1"), ("0", "1", "0", "0", "0", "-1")])
def test_the_normal_of_the_plane_orders_coronal_and_sagittal_series(tmp_path, orientation):
    """Normal = row direction x column direction: +y for the coronal one, -x for the sagittal one."""
    along = {"1": (0, 1.0), "0": (1, -1.0)}[orientation[0]]
    for k in range(3):
        place = ["0", "0", "0"]
        place[1 - along[0]] = f"{along[1] * 1.5 * k:g}"
        write(
            tmp_path / f"{7 - k}",
            np.full(SHAPE, k),
            ImageOrientationPatient=list(orientation),
            ImagePositionPatient=place,
        )
    scan = read_dicom(tmp_path)
    assert scan.signal()[:, 0, 0].tolist() == [0, 1, 2]
    assert scan.slice_mm == pytest.approx(1.5)


def test_a_frame_per_time_becomes_tzyx_with_times(tmp_path):
    scan = read_dicom(dynamic(tmp_path))
    assert (scan.axes, scan.counts.shape) == ("TZYX", (3, 3, *SHAPE))
    np.testing.assert_array_equal(scan.signal()[:, :, 0, 0], [[0, 1, 2], [10, 11, 12], [20, 21, 22]])
    assert scan.timing.start_s == (0.0, 60.0, 120.0)
    assert scan.timing.duration_s == (60.0, 60.0, 60.0)
    assert scan.timing.reference == "scan_start"


def test_a_single_slice_is_a_plane_without_slice_distance(tmp_path):
    scan = read_dicom(write(tmp_path / "a", np.arange(12).reshape(SHAPE)))
    assert (scan.axes, scan.slice_mm) == ("YX", None)
    np.testing.assert_array_equal(scan.signal(), np.arange(12).reshape(SHAPE))


def test_bed_positions_last_from_the_first_to_the_last_slice(tmp_path):
    each = lambda k: {"AcquisitionTime": f"11{10 * (k // 2):02d}00", "FrameReferenceTime": None}  # noqa: E731
    scan = read_dicom(volume(tmp_path, each=each))
    assert (scan.timing.start_s, scan.timing.duration_s) == ((0.0,), (1200.0,))
    assert any("bed positions" in n for n in scan.notes)


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ([1], "1 slice is missing between its 6 slices (distances 0.8 to 1.6 mm)"),
        ([2, 3, 5], "3 slices are missing between its 4 slices (distances 0.8 to 2.4 mm)"),
    ],
)
def test_missing_slices_are_counted(tmp_path, dropped, words):
    volume(tmp_path, 7, shuffle=False)
    for k in dropped:
        (tmp_path / f"im{k:03d}.dcm").unlink()
    assert reason(tmp_path).startswith(words)


def test_a_missing_last_slice_is_found_by_the_announced_number(tmp_path):
    volume(tmp_path, 5, shuffle=False, NumberOfSlices=5)
    assert read_dicom(tmp_path).counts.shape[0] == 5
    (tmp_path / "im004.dcm").unlink()
    assert reason(tmp_path).startswith("the header announces 5 slices, 4 were found (1 missing)")


def test_one_slice_alone_of_a_series(tmp_path):
    path = write(tmp_path / "a.dcm", np.ones(SHAPE), NumberOfSlices=40)
    assert reason(path).startswith("the header announces 40 slices, 1 were found (39 missing)")


def test_a_missing_last_frame_is_found_by_the_announced_number(tmp_path):
    dynamic(tmp_path, each=lambda t, k: {"NumberOfTimeSlices": 4})
    assert reason(tmp_path).startswith("the header announces 4 frames, 3 were found (1 missing)")


def test_uneven_slices(tmp_path):
    for k, z in enumerate((0, 1, 2.3, 3.5)):
        write(tmp_path / f"{k}.dcm", np.zeros(SHAPE), ImagePositionPatient=["0", "0", str(z)])
    assert reason(tmp_path).startswith("its 4 slices are unevenly spaced (1 to 1.3 mm apart)")


def test_a_copied_slice(tmp_path):
    volume(tmp_path, shuffle=False)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "im001.dcm").read_bytes())
    assert reason(tmp_path).startswith("1 of its 4 slice positions hold another number of images than the 1 of the "
                                       "others (0 missing, 1 too many)")  # fmt: skip


def test_a_series_copied_whole(tmp_path):
    volume(tmp_path, shuffle=False)
    for file in list(tmp_path.iterdir()):
        file.with_name("copy_" + file.name).write_bytes(file.read_bytes())
    assert reason(tmp_path).startswith("2 images lie at one position at one time")


def test_a_slice_missing_in_one_frame(tmp_path):
    dynamic(tmp_path)
    (tmp_path / "81.dcm").unlink()
    assert "1 of its 3 slice positions hold another number of images than the 3 of the others (1 missing" in reason(
        tmp_path
    )


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"ImagePositionPatient": None}, "1 of 4 images do not say where they lie"),
        ({"ImageOrientationPatient": ["0", "1", "0", "1", "0", "0"]}, "its images are not parallel"),
        ({"ImagePositionPatient": ["0.3", "0", "7.4"]}, "its slices are shifted against each other by up to 0.3 mm"),
        ({"PixelSpacing": ["0.5", "0.5"]}, "its images have different pixel sizes"),
        ({"Units": "CNTS"}, "its images are in different units (BQML, CNTS)"),
        ({"Rows": 4, "Columns": 3}, "its images are not all of one size"),
        ({"RescaleSlope": "0"}, "its RescaleSlope is 0"),
    ],
)
def test_slices_that_do_not_belong_together(tmp_path, last, words):
    volume(tmp_path, shuffle=False, each=lambda k: last if k == 3 else {})
    assert reason(tmp_path).startswith(words)


# --- what is not known stays None -----------------------------------------------------------------------------


def test_pixel_spacing_unknown(tmp_path):
    scan = read_dicom(volume(tmp_path, PixelSpacing=None))
    assert scan.pixel_size_mm is None
    assert scan.spacing_mm is None
    assert "PixelSpacing is missing, so the pixel size is unknown" in scan.warnings


@pytest.mark.parametrize(
    ("unit", "words"),
    [("CNTS", "Units are CNTS, not BQML"), ("GML", "standardised uptake values"), (None, "Units are not stated")],
)
def test_other_units_are_counts_with_a_warning(tmp_path, unit, words):
    scan = read_dicom(volume(tmp_path, Units=unit))
    assert scan.unit == "counts"
    assert any(words in w for w in scan.warnings)


def test_a_missing_slope_is_named(tmp_path):
    scan = read_dicom(write(tmp_path / "a.dcm", np.full(SHAPE, 7), RescaleSlope=None, RescaleIntercept=None))
    assert scan.signal()[0, 0] == 7
    assert "1 of 1 images state no RescaleSlope; their stored values were taken as they are" in scan.warnings


def test_ct_is_read_as_numbers_and_says_so(tmp_path):
    scan = read_dicom(volume(tmp_path, Modality="CT", Units=None, RescaleIntercept="-1000"))
    assert (scan.unit, scan.tracer, scan.timing) == ("counts", None, None)
    assert scan.warnings == ("this is a CT series: its values are CT numbers, not a signal",)
    assert scan.signal()[0, 0, 0] == pytest.approx(-999)


def test_no_identity_is_kept(tmp_path):
    scan = read_dicom(volume(tmp_path))
    everything = repr((scan.header, scan.notes, scan.warnings, scan.describe()))
    assert not [word for word in ("Doe", "Jane", "SECRET7", "20240102") if word in everything]
    assert scan.header["instrument"] == "Bruker"
    assert scan.header["acquired"] == "2024-03-05 11:00:00"


# --- times ----------------------------------------------------------------------------------------------------


def test_frame_times_follow_the_reference_time_where_clocks_are_lost(tmp_path):
    """FrameReferenceTime is that of the mean count rate; with 18F and 60 s it lies 0.016 s before the middle."""
    x = math.log(2) * 60 / HALF_LIFE
    mean = 60 / x * math.log(x / (1 - math.exp(-x)))
    scan = read_dicom(dynamic(tmp_path, each=lambda t, k: {
        "AcquisitionTime": None, "FrameReferenceTime": f"{1000 * (60 * t + mean):.4f}"}))  # fmt: skip
    np.testing.assert_allclose(scan.timing.start_s, [0, 60, 120], atol=1e-3)


def test_one_acquisition_time_for_all_frames_is_named_and_not_used(tmp_path):
    scan = read_dicom(dynamic(tmp_path, each=lambda t, k: {"AcquisitionTime": "110000"}))
    np.testing.assert_allclose(scan.timing.start_s, [0, 60, 120], atol=0.05)
    assert any("frame times come from FrameReferenceTime, because by AcquisitionTime, frame 2 starts" in w
               for w in scan.warnings)  # fmt: skip


def test_contradicting_times_are_refused(tmp_path):
    dynamic(tmp_path, lasts=90)
    assert "its frame times contradict each other: by AcquisitionTime, frame 1 starts at 0 s and lasts 90 s" in reason(
        tmp_path
    )


def test_two_clocks_that_disagree_are_told(tmp_path):
    """The mean count rate of a 600 s frame of 18F lies 600/2 - ln2/6586.2 * 600^2/24 = 298.421 s after its start."""
    assert not read_dicom(volume(tmp_path)).warnings
    scan = read_dicom(volume(tmp_path, FrameReferenceTime="400000"))
    assert any("put the first frame 101.579 s apart" in w for w in scan.warnings)


@pytest.mark.parametrize("lost", [{"ActualFrameDuration": None}, {"AcquisitionTime": None, "FrameReferenceTime": None}])
def test_no_time_axis_is_invented(tmp_path, lost):
    scan = read_dicom(volume(tmp_path, **lost))
    assert scan.timing is None
    assert any("frame times are unknown" in w for w in scan.warnings)


# --- tracer and SUV -------------------------------------------------------------------------------------------


def test_tracer_of_a_pet_header(tmp_path):
    assert read_dicom(volume(tmp_path)).tracer == Tracer("18F", HALF_LIFE, 1e7, -3600.0, "scan_start", 25.0)


@pytest.mark.parametrize(
    ("start", "series", "expected"),
    [
        ("233000", "001500", -45 * 60),  # the evening before
        ("000500", "001500", -10 * 60),
        ("001530", "001500", 30),  # injected during the scan, not 24 h before
        ("101500", "101500", 0),
    ],
)
def test_injection_by_time_of_day_and_midnight(tmp_path, start, series, expected):
    told = {"RadiopharmaceuticalInformationSequence": dose(RadiopharmaceuticalStartTime=start), "SeriesTime": series,
            "AcquisitionTime": series}  # fmt: skip
    scan = read_dicom(volume(tmp_path, **told))
    assert scan.tracer.injected_s == expected
    assert any("only the time of day of the injection is stated" in n for n in scan.notes)


def test_a_long_lived_isotope_makes_the_day_of_injection_a_warning(tmp_path):
    code = item(CodeValue="x", CodingSchemeDesignator="y", CodeMeaning="^89^Zirconium")
    told = dose(RadionuclideHalfLife="282276", RadionuclideCodeSequence=Sequence([code]))
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=told))
    assert scan.tracer.isotope == "89Zr"
    assert any("only the time of day of the injection" in w for w in scan.warnings)


@pytest.mark.parametrize(
    ("stamp", "zone", "expected"),
    [
        ("20240303090000", None, -2 * 86400 - 2 * 3600),  # two days before: the date counts
        ("20240305090000.5", None, -7199.5),
        ("20240305080000+0000", "+0100", -2 * 3600),
        ("20240305040000-0500", "+0100", -3600),
        ("20240305090000+0100", None, -2 * 3600),
    ],
)
def test_injection_by_date_and_time(tmp_path, stamp, zone, expected):
    told = dose(RadiopharmaceuticalStartDateTime=stamp, RadiopharmaceuticalStartTime=None)
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=told, TimezoneOffsetFromUTC=zone))
    assert scan.tracer.injected_s == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}, "none"),
        ({"DecayCorrection": "START"}, "scan_start"),
        ({"DecayCorrection": "ADMIN"}, "injection"),
        ({"DecayCorrection": None}, "unknown"),
        ({"CorrectedImage": ["ATTN", "SCAT"]}, "unknown"),
        ({"DecayCorrection": "MAYBE"}, "unknown"),
    ],
)
def test_decay_correction(tmp_path, told, expected):
    assert read_dicom(volume(tmp_path, **told)).tracer.decay_corrected_to == expected


def test_a_series_made_later_starts_where_its_reference_time_says(tmp_path):
    """The 600 s frame was acquired at 11:00:20 and its mean count rate lay 314.8 s after the scan's start."""
    x = math.log(2) * 600 / HALF_LIFE
    reference = 20 + 600 / x * math.log(x / (1 - math.exp(-x)))
    scan = read_dicom(volume(tmp_path, SeriesTime="150000", AcquisitionTime="110020",
                             FrameReferenceTime=f"{1000 * reference:.3f}"))  # fmt: skip
    assert scan.tracer.injected_s == pytest.approx(-3600, abs=0.01)
    assert scan.tracer.decay_corrected_to == "scan_start"
    assert scan.timing.start_s[0] == pytest.approx(20, abs=0.01)
    assert any("made later" in w for w in scan.warnings)


def test_a_series_made_later_without_reference_time_gives_no_suv(tmp_path):
    scan = read_dicom(volume(tmp_path, SeriesTime="150000", FrameReferenceTime=None))
    assert scan.tracer.decay_corrected_to == "unknown"
    with pytest.raises(ValueError, match="no SUV without pixels decay corrected"):
        suv_bw_factor(scan)


def test_ge_states_the_scans_start_in_its_private_header(tmp_path):
    path = write(tmp_path / "a.dcm", np.ones(SHAPE), SeriesTime="150000")
    data = pydicom.dcmread(path)
    data.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240305105500.00")
    pydicom.dcmwrite(path, data)
    scan = read_dicom(path)
    assert scan.tracer.injected_s == -3300
    assert scan.timing.start_s == (300.0,)


def test_dose_of_nuclear_medicine_is_in_mbq(tmp_path):
    told = dose(RadionuclideTotalDose="12.5")
    scan = read_dicom(volume(tmp_path, Modality="NM", sop=NM, RadiopharmaceuticalInformationSequence=told))
    assert scan.tracer.injected_bq == 12.5e6
    assert "RadionuclideTotalDose is in MBq in this kind of image" in scan.notes


def test_odd_doses_and_weights_are_told(tmp_path):
    told = dose(RadionuclideTotalDose="10")
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=told, PatientWeight="25"))
    assert any("RadionuclideTotalDose is 10 Bq, which is too little" in w for w in scan.warnings)
    assert any("PatientWeight is 25 kg; if these are grams" in w for w in scan.warnings)
    half = dose(RadionuclideHalfLife="109.8")
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=half))
    assert any("gives 18F a half-life of 0.0305 h; it is 1.829 h" in w for w in scan.warnings)


def test_two_tracers_are_left_open(tmp_path):
    both = Sequence([*dose(), *dose()])
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=both))
    assert (scan.tracer.injected_bq, scan.tracer.isotope) == (None, None)
    assert any("2 radiopharmaceuticals" in w for w in scan.warnings)


@pytest.mark.parametrize(
    ("meaning", "drug", "expected"),
    [
        ("^18^Fluorine", "", "18F"), ("F^18^", "", "18F"), ("Fluorine F^18^", "", "18F"), ("18F", "", "18F"),
        ("F-18", "", "18F"), ("^99m^Technetium", "", "99mTc"), ("Tc-99m", "", "99mTc"), ("Zirconium 89", "", "89Zr"),
        ("^111^Indium", "", "111In"), ("", "64Cu-EV", "64Cu"), ("", "EV batch 18", None), ("", "FDG", None),
        ("", "18F or 64Cu", None), ("", "", None),
    ],
)  # fmt: skip
def test_isotope_names(tmp_path, meaning, drug, expected):
    code = item(CodeValue="x", CodingSchemeDesignator="y", CodeMeaning=meaning)
    told = dose(RadionuclideCodeSequence=Sequence([code]), Radiopharmaceutical=drug, RadionuclideHalfLife=None)
    path = write(tmp_path / "a.dcm", np.ones(SHAPE), RadiopharmaceuticalInformationSequence=told)
    assert read_dicom(path).tracer.isotope == expected


@pytest.mark.parametrize(
    ("tracer", "expected"),
    [
        # 25 g; 8 MBq injected one half-life before the scan leave 4 MBq
        (Tracer("18F", 6000.0, 8e6, -6000.0, "scan_start", 25.0), 25.0 / 4e6),
        # 20 g; 10 MBq, 109.77 min, 60 min: 10 * 2^(-60/109.77) = 6.84637 MBq
        (Tracer("18F", 6586.2, 1e7, -3600.0, "scan_start", 20.0), 20.0 / 6.84637e6),
        # human example: 75 kg, 370 MBq at injection
        (Tracer("18F", None, 370e6, None, "injection", 75000.0), 75000.0 / 370e6),
    ],
)
def test_suv_factor_by_hand(tracer, expected):
    scan = Scan("a", None, np.ones((2, 2)), "YX", unit="Bq/mL", tracer=tracer)
    assert suv_bw_factor(scan) == pytest.approx(expected, rel=1e-5)


def test_suv_of_a_series_by_hand(tmp_path):
    """Slice 4 holds 4 Bq/mL: 4 * 25 g / (1e7 Bq * 2^(-3600/6586.2)) = 1.4606e-5."""
    scan = read_dicom(volume(tmp_path))
    assert (scan.signal()[3, 0, 0] * suv_bw_factor(scan)) == pytest.approx(1.46063e-5, rel=1e-5)


def test_suv_is_refused_naming_all_that_is_missing(tmp_path):
    told = dose(RadionuclideTotalDose=None, RadiopharmaceuticalStartTime=None, RadionuclideHalfLife=None)
    scan = read_dicom(volume(tmp_path, RadiopharmaceuticalInformationSequence=told, PatientWeight=None))
    with pytest.raises(ValueError, match="no SUV without the injected activity; the body weight; the half-life; "
                                         "the time of injection"):  # fmt: skip
        suv_bw_factor(scan)
    with pytest.raises(ValueError, match=r"values in Bq/mL \(they are in counts\)"):
        suv_bw_factor(Scan("a", None, np.ones((2, 2)), "YX"))
    none = Tracer("18F", 6586.2, 1e7, -3600.0, "none", 25.0)
    with pytest.raises(ValueError, match="it is 'none'"):
        suv_bw_factor(Scan("a", None, np.ones((2, 2)), "YX", unit="Bq/mL", tracer=none))


# --- multi-frame ----------------------------------------------------------------------------------------------


def nm(path, frames, kind, **elements):
    stack = np.arange(frames)[:, None, None] * np.ones(SHAPE)
    return write(path, stack, sop=NM, **{"Modality": "NM", "NumberOfFrames": frames, "Units": None, "RescaleSlope": None,
                 "RescaleIntercept": None, "ImageType": ["ORIGINAL", "PRIMARY", *kind.split()], "ImagePositionPatient": None,
                 "ImageOrientationPatient": None, "FrameReferenceTime": None, "DecayCorrection": None, **elements})  # fmt: skip


@pytest.mark.parametrize(("step", "expected"), [("1.5", [0, 1, 2, 3, 4]), ("-1.5", [4, 3, 2, 1, 0])])
def test_reconstructed_spect_volume(tmp_path, step, expected):
    path = nm(tmp_path / "a.dcm", 5, "RECON TOMO", SpacingBetweenSlices=step, SliceVector=[1, 2, 3, 4, 5])
    scan = read_dicom(path)
    assert (scan.axes, scan.slice_mm, scan.unit) == ("ZYX", 1.5, "counts")
    assert scan.signal()[:, 0, 0].tolist() == expected


def test_spect_in_bq_by_a_real_world_mapping(tmp_path):
    unit = item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Bq/ml")
    mapping = item(RealWorldValueSlope=2.5, RealWorldValueIntercept=0.0, MeasurementUnitsCodeSequence=Sequence([unit]))
    scan = read_dicom(nm(tmp_path / "a", 3, "RECON TOMO", RealWorldValueMappingSequence=Sequence([mapping])))
    assert scan.unit == "Bq/mL"
    assert scan.signal()[:, 0, 0].tolist() == [0, 2.5, 5]
    assert scan.slice_mm is None
    assert any("SpacingBetweenSlices is missing" in w for w in scan.warnings)


def test_planar_dynamic(tmp_path):
    phases = Sequence([item(NumberOfFramesInPhase=2, ActualFrameDuration=1000, PhaseDelay=0, PauseBetweenFrames=0),
                       item(NumberOfFramesInPhase=2, ActualFrameDuration=5000, PhaseDelay=500, PauseBetweenFrames=100)])  # fmt: skip
    scan = read_dicom(nm(tmp_path / "a.dcm", 4, "DYNAMIC EMISSION", PhaseInformationSequence=phases))
    assert scan.axes == "TYX"
    assert scan.timing.start_s == pytest.approx((0, 1, 2.5, 7.6))
    assert scan.timing.duration_s == (1, 1, 5, 5)
    lost = read_dicom(nm(tmp_path / "b.dcm", 4, "DYNAMIC EMISSION", SeriesInstanceUID="1.7"))
    assert lost.timing is None
    assert any("describe 0 of 4 frames" in w for w in lost.warnings)


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("TOMO EMISSION", {}, "its 4 frames are of type 'TOMO EMISSION'"),
        ("RECON GATED TOMO", {}, "it is gated"),
        ("STATIC EMISSION", {"DetectorVector": [1, 1, 2, 2]}, "it mixes 2 detectors (views) in one file"),
        ("RECON TOMO", {"EnergyWindowVector": [1, 1, 2, 2]}, "it mixes 2 energy windows in one file"),
        ("RECON TOMO", {"SliceVector": [1, 2, 2, 4]}, "its SliceVector does not name slices 1 to 4 once each"),
    ],
)
def test_other_frames_are_refused_in_words(tmp_path, kind, more, words):
    assert reason(nm(tmp_path / "a.dcm", 4, kind, **more)).startswith(words)


def enhanced(path, frames=2, slices=3, **elements):
    """Write an enhanced PET file whose planes are stored in no order."""
    order = np.random.default_rng(3).permutation(list(itertools.product(range(frames), range(slices)))).tolist()
    unit = item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Bq/ml")
    groups = [item(
        FrameContentSequence=Sequence([item(FrameAcquisitionDateTime=f"2024030511{5 * t:02d}00",
                                            FrameAcquisitionDuration=300000.0)]),
        PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, 0.7 * k])]),
        RealWorldValueMappingSequence=Sequence([item(RealWorldValueSlope=0.5, RealWorldValueIntercept=0.0,
                                                     MeasurementUnitsCodeSequence=Sequence([unit]))]),
    ) for t, k in order]  # fmt: skip
    shared = item(PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.25])]),
                  PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]))  # fmt: skip
    pixels = np.array([np.full(SHAPE, 10 * t + k) for t, k in order])
    return write(path, pixels, sop="1.2.840.10008.5.1.4.1.1.130", **{
        "NumberOfFrames": len(order), "PerFrameFunctionalGroupsSequence": Sequence(groups),
        "SharedFunctionalGroupsSequence": Sequence([shared]), "Units": None, "RescaleSlope": None, "PixelSpacing": None,
        "RescaleIntercept": None, "ImagePositionPatient": None, "ImageOrientationPatient": None, "FrameReferenceTime": None,
        "ActualFrameDuration": None, "DecayCorrection": None, "AcquisitionTime": None, "DecayCorrected": "YES",
        "DecayCorrectionDateTime": "20240305110000", **elements})  # fmt: skip


def test_enhanced_pet(tmp_path):
    scan = read_dicom(enhanced(tmp_path / "a.dcm"))
    assert (scan.axes, scan.unit, scan.pixel_size_mm) == ("TZYX", "Bq/mL", (0.5, 0.25))
    assert scan.slice_mm == pytest.approx(0.7)
    np.testing.assert_array_equal(scan.signal()[:, :, 0, 0], [[0, 0.5, 1], [5, 5.5, 6]])
    assert (scan.timing.start_s, scan.timing.duration_s) == ((0, 300), (300, 300))
    assert scan.tracer.decay_corrected_to == "scan_start"


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"DecayCorrected": "NO"}, "none"), ({"DecayCorrectionDateTime": "20240305090000"}, "unknown")],
)
def test_enhanced_decay_correction(tmp_path, told, expected):
    assert read_dicom(enhanced(tmp_path / "a.dcm", **told)).tracer.decay_corrected_to == expected


# --- what cannot be read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"Modality": "US"}, "a.dcm is of modality 'US'; PT, NM, CT and MR are read"),
        ({"SeriesType": ["GATED", "IMAGE"]}, "it is gated"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a.dcm is a colour picture (PALETTE COLOR)"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a.dcm is a colour picture (RGB)"),
        ({"Rows": 60000, "Columns": 60000}, "a.dcm declares 7,200,000,000 bytes of pixels, but the file has"),
        ({"Rows": 0}, "a.dcm holds no image"),
        ({"NumberOfFrames": 100}, "a.dcm declares 2,400 bytes"),
    ],
)
def test_images_of_another_kind(tmp_path, told, words):
    assert reason(write(tmp_path / "a.dcm", np.ones(SHAPE), **told)).startswith(words)


def test_run_length_compression_is_read(tmp_path):
    pixels = np.arange(12).reshape(SHAPE)
    path = write(tmp_path / "a.dcm", pixels, syntax=RLELossless)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == RLELossless
    np.testing.assert_array_equal(read_dicom(path).signal(), pixels)


def test_compression_that_nothing_decodes_is_named(tmp_path):
    path = write(tmp_path / "a.dcm", np.ones(SHAPE))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no picture"])
    data["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, data)
    assert reason(path).startswith("the pixels of a.dcm are compressed (JPEG-LS Lossless")


def test_compressed_bombs_are_refused_before_decoding(tmp_path):
    path = write(tmp_path / "a.dcm", np.ones(SHAPE), syntax=RLELossless)
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 60000
    pydicom.dcmwrite(path, data)
    assert "declares 7,200,000,000 bytes of pixels in a file of" in reason(path)


def test_lossy_compression_is_told(tmp_path):
    scan = read_dicom(write(tmp_path / "a.dcm", np.ones(SHAPE), LossyImageCompression="01"))
    assert any("lossy" in w for w in scan.warnings)


def test_text_named_dcm(tmp_path):
    (tmp_path / "a.dcm").write_text("<html>not found</html>")
    assert "the word DICM is not at byte 128" in reason(tmp_path / "a.dcm")
    assert reason(tmp_path).startswith("a.dcm: it is no DICOM file")


def test_an_unreadable_neighbour_is_named(tmp_path):
    volume(tmp_path)
    (tmp_path / "z.dcm").write_bytes(b"")
    assert any("z.dcm beside it cannot be read" in w for w in read_dicom(tmp_path / "im000.dcm").warnings)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    volume(inside, 4, shuffle=False)
    write(outside / "b.dcm", np.full(SHAPE, 9), ImagePositionPatient=["0", "0", "8.2"])
    (inside / "im004.dcm").symlink_to(outside / "b.dcm")
    scan = read_dicom(inside)
    assert scan.counts.shape[0] == 4
    assert "im004.dcm is a link out of the folder and was left out" in scan.warnings


def test_every_truncation_and_many_flips_give_words(tmp_path):
    whole = write(tmp_path / "whole.dcm", np.ones(SHAPE)).read_bytes()
    draw = np.random.default_rng(11)
    hurt = [whole[:n] for n in range(0, len(whole) - 1, 41)]
    for _ in range(60):
        flipped = bytearray(whole)
        for _ in range(4):
            flipped[draw.integers(132, len(whole) - 24)] ^= 1 << int(draw.integers(8))
        hurt.append(bytes(flipped))
    folder = tmp_path / "hurt"
    folder.mkdir()
    words = []
    for data in hurt:
        (folder / "a.dcm").write_bytes(data)
        try:
            read_dicom(folder / "a.dcm")
        except UnreadableImage as err:
            words.append(err.reason)
    assert len(words) >= len(whole) // 41  # every truncated one at least; a flip may do no harm
    assert all(words)


def test_the_registry_takes_folders_and_files(tmp_path):
    volume(tmp_path)
    write(tmp_path / "nosuffix", np.ones(SHAPE), SeriesInstanceUID="1.8")
    assert reader_for(tmp_path).name == "dicom"
    assert reader_for(tmp_path / "nosuffix").name == "dicom"
    assert read(tmp_path / "im000.dcm").counts.shape == (4, *SHAPE)
