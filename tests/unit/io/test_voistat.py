"""PMOD VOI statistics: mean x volume in Bq at the middle of the frame, whatever units and headers, or words."""

import pytest

from evbiodist.io.registry import read, reader_for
from evbiodist.io.roi_tables import RoiTable
from evbiodist.io.voistat import read_voistat
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError

HEADER = ("Component [string]", "File [string]", "PatientName [string]", "PatientID [string]", "StudyDate [date_time]",
          "VoiName(Region) [string]", "Time [seconds]", "Averaged [kBq/cc]", "Sd [kBq/cc]", "Volume [ccm]",
          "Total(SUM) [kBq/cc]", "NumberOfPixels [voxels]")  # fmt: skip


def rows(voi_means=(("Liver", 1.25, (4.0, 3.0)), ("Kidney left", 0.2, (10.0, 2.0))), times=(30, 90)):
    return [("1", "m1.nii", "Doe", "S7", "2024", voi, f"{t}", f"{mean}", "0.5", f"{volume}", "99", "12")
            for voi, volume, means in voi_means for t, mean in zip(times, means, strict=True)]  # fmt: skip


def table(path, header=HEADER, lines=None, lead="// ", before=(), delimiter="\t", comma=False):
    lines = rows() if lines is None else lines
    cells = [[c.replace(".", ",") if comma and i > 5 else c for i, c in enumerate(line)] for line in lines]
    text = [*before, lead + delimiter.join(header), *(delimiter.join(line) for line in cells)]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def renamed(**names):
    return [next((new for old, new in names.items() if c.lower().startswith(old)), c) for c in HEADER]


def values(found):
    return [(r.organ, round(r.time_h * 3600, 9), pytest.approx(r.value)) for r in found.rows]


def problems(path, source=None):
    with pytest.raises(InputError) as caught:
        read_voistat(path, source)
    return str(caught.value)


#: kBq/cc x ccm x 1000, by hand.
EXPECTED = [("liver", 30, 5000.0), ("liver", 90, 3750.0), ("kidney_left", 30, 2000.0), ("kidney_left", 90, 400.0)]


@pytest.mark.parametrize("lead", ["// ", "//", "# ", ""])
@pytest.mark.parametrize(("delimiter", "comma"), [("\t", False), (";", True), (",", False)])
def test_mean_times_volume_is_activity(tmp_path, lead, delimiter, comma):
    path = table(tmp_path / "m1.voistat", lead=lead, delimiter=delimiter, comma=comma, before=["# saved by PMOD", ""])
    found = read_voistat(path, ObservationSource(file="m1.voistat", label="zr", subject="m1", group="a"))
    assert values(found) == EXPECTED
    assert {(r.unit, r.subject, r.label, r.group, r.se, r.sd, r.flags) for r in found.rows} == {
        ("bq", "m1", "zr", "a", None, None, "no_se")}  # fmt: skip
    assert any("deviations over voxels are no errors" in n for n in found.notes)


@pytest.mark.parametrize(
    ("mean", "volume", "factor"),
    [
        ("Averaged [Bq/ml]", "Volume [ccm]", 1.0),
        ("Averaged [MBq/cc]", "Volume [cc]", 1e6),
        ("Averaged [nCi/cc]", "Volume [ml]", 37.0),
        ("Averaged [kBq/mL]", "Volume [mm3]", 1.0),
        ("Averaged(AVR) [kBq/cc]", "Volume(ccm)", 1e3),
    ],
)
def test_units(tmp_path, mean, volume, factor):
    found = read_voistat(table(tmp_path / "a.voistat", renamed(averaged=mean, volume=volume)))
    assert found.rows[0].value == pytest.approx(4.0 * 1.25 * factor)


def test_percent_of_injected_dose(tmp_path):
    found = read_voistat(table(tmp_path / "a.voistat", renamed(averaged="Averaged [%ID/cc]")))
    assert (found.rows[0].unit, found.rows[0].value) == ("pct_id", pytest.approx(5.0))


def test_start_and_end_of_frames_and_units_in_a_second_line(tmp_path):
    header = ["VoiRegion(Name)", "Time(Start)", "Time(End)", "Averaged(AVR)", "Stdv", "Volume(ccm)", "Number of Pixels"]
    lines = [["[string]", "[minutes]", "[minutes]", "[kBq/cc]", "[kBq/cc]", "[ccm]", "[1/1]"],
             ["Liver", "0", "10", "4", "1", "2", "9"], ["Liver", "10", "40", "2", "1", "2", "9"]]  # fmt: skip
    found = read_voistat(table(tmp_path / "a.txt", header, lines, lead=""))
    assert [(r.time_h, r.value) for r in found.rows] == [
        (pytest.approx(1 / 12), 8000.0),
        (pytest.approx(25 / 60), 4000.0),
    ]
    assert any("middle of start and end" in n for n in found.notes)


def test_a_single_time_is_said_to_be_the_middle(tmp_path):
    assert any(
        "the one time of a frame was taken as its middle" in n
        for n in read_voistat(table(tmp_path / "a.voistat")).notes
    )


def test_no_identity_is_kept(tmp_path):
    found = read_voistat(table(tmp_path / "a.voistat"))
    everything = repr((found.rows, found.notes, found.header, found.describe()))
    assert not [word for word in ("Doe", "S7", "m1.nii") if word in everything]


def test_backgrounds_are_named_and_left_out(tmp_path):
    lines = [*rows(), *rows((("Background 1", 1.0, (0.1, 0.1)),))]
    found = read_voistat(table(tmp_path / "a.voistat", lines=lines))
    assert values(found) == EXPECTED
    assert "2 rows that are no organs were left out: Background 1" in found.notes


def test_the_registry_describes_it_without_a_study(tmp_path):
    path = table(tmp_path / "m1.voistat")
    assert reader_for(path).name == "voistat"
    assert ("unit", "bq") in read(path).describe()
    assert reader_for(table(tmp_path / "copy.txt")).name == "voistat"
    numbered = table(tmp_path / "b.voistat", lines=rows((("VOI 1", 1.0, (1.0, 2.0)),)))
    assert isinstance(read(numbered), RoiTable)
    assert ("VOIs", "1: VOI 1") in read(numbered).describe()
    mapped = read_voistat(numbered, ObservationSource(file="b", label="zr"), {"VOI 1": "brain"})
    assert [r.organ for r in mapped.rows] == ["brain", "brain"]


# --- problems -------------------------------------------------------------------------------------------------


def test_several_animals_need_a_column_that_tells_them_apart(tmp_path):
    other = [(*line[:2], "Roe", "S8", *line[4:]) for line in rows()]
    told = problems(table(tmp_path / "a.voistat", lines=[*rows(), *other]))
    assert told == ("a.voistat, key subject: found 'rows of 2 different images or animals', expected one, or a column "
                    "'subject'; add the column, or save one table for each.")  # fmt: skip
    lines = [(*line, "m1") for line in rows()] + [(*line, "m2") for line in other]
    found = read_voistat(table(tmp_path / "b.voistat", (*HEADER, "subject"), lines))
    assert [r.subject for r in found.rows] == ["m1"] * 4 + ["m2"] * 4


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (renamed(averaged="Averaged [SUV]"), "key Averaged: found 'SUV', expected means as activity in a volume"),
        (renamed(averaged="Averaged [g/ml]"), "key Averaged: found 'g/ml'"),
        (renamed(averaged="Averaged [1/1]"), "key Averaged: found '1/1'"),
        (renamed(averaged="Averaged"), "key Averaged: found nothing"),
        (renamed(volume="Volume [pixels]"), "key Volume: found 'pixels', expected the unit of volumes, such as ccm"),
        (renamed(volume="Size"), "key Volume: found nothing, expected a column 'Volume [ccm]'"),
        (renamed(time="Time"), "key Time: found nothing, expected the unit of time, such as seconds"),
        (renamed(time="Frame"), "key Time: found nothing, expected a column 'Time [seconds]', or start and end"),
        (renamed(voi="Colour"), "found 'no header line in its first 60 lines'"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path, header, words):
    assert words in problems(table(tmp_path / "a.voistat", header))


def test_a_study_must_give_the_label_and_no_other_unit(tmp_path):
    path = table(tmp_path / "a.voistat")
    assert "expected the label of its values" in problems(path, ObservationSource(file="a"))
    told = problems(path, ObservationSource(file="a", label="x", unit="pct_id_per_g"))
    assert "found 'pct_id_per_g', expected unit bq, which is what the table gives" in told


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        (7, "NaN", "row 2, column Averaged [kBq/cc]: found 'NaN', expected a number"),
        (7, "", "row 2, column Averaged [kBq/cc]: found nothing, expected a number"),
        (9, "0", "row 2, column Volume [ccm]: found '0', expected a volume above 0"),
        (6, "x", "row 2, column Time [seconds]: found 'x', expected a number"),
        (6, "-5", "column time_h: found '-0.00138"),
    ],
)
def test_cells_that_cannot_be(tmp_path, column, cell, words):
    lines = rows()
    lines[0] = tuple(cell if i == column else c for i, c in enumerate(lines[0]))
    assert words in problems(table(tmp_path / "a.voistat", lines=lines))


def test_one_voi_twice_at_one_time(tmp_path):
    lines = [*rows(), rows()[1]]
    told = problems(table(tmp_path / "a.voistat", lines=lines))
    assert (
        "row 6, column organ: found 'liver of pooled at 0.025 h', expected each organ of an animal once at a time"
        in told
    )


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (((0, 50), (40, 80)), "Liver: frame 1 starts at 0 s and lasts 50 s, but frame 2 starts at 40 s"),
        (((0, 40), (40, 30)), "Liver: frame 2 lasts -10 s; durations are 0 or more"),
        (((0, 40), (0, 80)), "Liver: frame 2 starts at 0 s, not after frame 1 at 0 s"),
    ],
)
def test_frame_times_that_contradict_each_other(tmp_path, frames, words):
    header = ["VoiName", "Start [s]", "End [s]", "Averaged [kBq/cc]", "Volume [ccm]"]
    lines = [["Liver", str(start), str(end), "1", "1"] for start, end in frames]
    told = problems(table(tmp_path / "a.voistat", header, lines, lead=""))
    assert words in told
    assert "expected frames that follow each other" in told


def test_hostile_files_give_words(tmp_path):
    assert "a header only" in problems(table(tmp_path / "a.voistat", lines=[]))
    assert "found '3 cells', expected 12" in problems(table(tmp_path / "b.voistat", lines=[("1", "2", "3")]))
    long = table(tmp_path / "c.voistat", lines=[(*rows()[0], "7", "8")])
    assert "row 2: found '14 cells', expected 12, as in the header" in problems(long)
    (tmp_path / "d.voistat").write_bytes(bytes(range(256)) * 4)
    assert "binary data" in problems(tmp_path / "d.voistat")
    (tmp_path / "e.voistat").write_text("<html>not found</html>")
    assert "no header line" in problems(tmp_path / "e.voistat")
