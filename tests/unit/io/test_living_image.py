"""Exported ROI tables of Living Image: every encoding and locale to the same rows, every gap in words."""

import pytest

from evbiodist.io.living_image import read_living_image
from evbiodist.io.registry import read, reader_for
from evbiodist.io.roi_tables import RoiTable
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError

HEADER = ("Image Number", "ROI", "Image Layer", "ROI Label", "Total Flux [p/s]", "Avg Radiance [p/s/cm²/sr]",
          "Stdev Radiance", "Min Radiance", "Max Radiance", "time_h")  # fmt: skip
ROWS = (("AB20240305110000_001", "ROI 1", "Overlay", "Liver", "1.5e+06", "2.1e+04", "3e+03", "1e+02", "9e+04", "0.5"),
        ("AB20240305110000_001", "ROI 2", "Overlay", "Kidneys", "-2500.5", "8.8e+01", "4e+01", "1e+01", "3e+02", "0.5"),
        ("AB20240306110000_001", "ROI 1", "Overlay", "Liver", "7e5", "9.1e+03", "1e+03", "2e+02", "5e+04", "24.5"))  # fmt: skip
EXPECTED = [("liver", 0.5, 1.5e6), ("kidney", 0.5, -2500.5), ("liver", 24.5, 7e5)]


def table(path, header=HEADER, rows=ROWS, delimiter=",", encoding="utf-8", comma=False, newline="\n"):
    cells = [[c.replace(".", ",") if comma else c for c in row] for row in rows]
    text = newline.join(delimiter.join(line) for line in (header, *cells)) + newline
    path.write_bytes(text.encode(encoding))
    return path


def source(**more):
    return ObservationSource(**{"file": "rois.csv", "label": "nluc", **more})


def problems(path, study=None, **more):
    with pytest.raises(InputError) as caught:
        read_living_image(path, study, **more)
    return str(caught.value)


def without(column, rows=ROWS, header=HEADER):
    at = header.index(column)
    return tuple(c for i, c in enumerate(header) if i != at), [[c for i, c in enumerate(r) if i != at] for r in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("delimiter", "comma"), [(",", False), ("\t", False), (";", False), (";", True), ("\t", True)])
def test_every_encoding_and_locale_gives_the_same_rows(tmp_path, encoding, delimiter, comma):
    path = table(tmp_path / "rois.csv", delimiter=delimiter, encoding=encoding, comma=comma, newline="\r\n")
    found = read_living_image(path, source(group="a", subject="m1", n=1))
    assert [(r.organ, r.time_h, r.value) for r in found.rows] == EXPECTED
    assert {(r.unit, r.label, r.subject, r.group, r.se, r.sd, r.n, r.flags) for r in found.rows} == {
        ("p_per_s", "nluc", "m1", "a", None, None, 1, "no_se")}  # fmt: skip
    assert ("decimal commas were read as decimal points" in found.notes) == comma


@pytest.mark.parametrize("radiance", ["cm²", "cm2", "cm_", "cm?", "cmÂ²", "cm^2", "cm\ufffd"])
def test_however_the_superscript_arrives(tmp_path, radiance):
    header = tuple(c.replace("cm²", radiance) for c in HEADER)
    assert [r.value for r in read_living_image(table(tmp_path / "a.txt", header)).rows] == [e[2] for e in EXPECTED]


@pytest.mark.parametrize(
    ("names", "study_unit", "unit", "value"),
    [
        (["Total Counts", "Avg Counts"], None, "au", 1.0),
        (
            ["Total Radiant Efficiency [p/s] / [µW/cm²]", "Avg Radiant Efficiency [p/s/cm²/sr] / [µW/cm²]"],
            None,
            "au",
            1.0,
        ),
        (["Total Counts", "Total Flux [p/s]"], None, "p_per_s", 2.0),
        (["Total Counts", "Total Flux [p/s]"], "au", "au", 1.0),
        (["Total Flux [p/s]", "Total Radiant Efficiency [p/s] / [µW/cm²]"], "au", "au", 2.0),
    ],
)
def test_which_total_is_taken(tmp_path, names, study_unit, unit, value):
    header = ("Image Number", "ROI", "ROI Label", *names, "time_h")
    path = table(tmp_path / "a.csv", header, [("A_001", "ROI 1", "Liver", "1", "2", "4")])
    found = read_living_image(path, source(unit=study_unit))
    assert [(r.unit, r.value) for r in found.rows] == [(unit, value)]
    assert found.unit == unit
    assert "each ROI" in found.notes[0]


def test_added_columns_win_over_the_study_and_the_label(tmp_path):
    header = (*HEADER, "organ", "subject", "label", "group", "mass_g")
    rows = [(*ROWS[0], "Spleen", "m7", "dir", "treated", "0.09"), (*ROWS[1], "", "", "", "", "")]
    first, second = read_living_image(table(tmp_path / "a.csv", header, rows), source(subject="m1", group="g")).rows
    assert (first.organ, first.subject, first.label, first.group, first.mass_g) == (
        "spleen",
        "m7",
        "dir",
        "treated",
        0.09,
    )
    assert (second.organ, second.subject, second.label, second.group, second.mass_g) == (
        "kidney",
        "m1",
        "nluc",
        "g",
        None,
    )


def test_numbered_rois_are_mapped_by_the_caller(tmp_path):
    path = table(tmp_path / "a.csv", *without("ROI Label"))
    found = read_living_image(path, source(), organs={"ROI 1": "brain", "ROI 2": "Lungs"})
    assert [r.organ for r in found.rows] == ["brain", "lung", "brain"]


def test_what_is_no_organ_is_named_and_left_out(tmp_path):
    aside = [(*ROWS[0][:1], "Bkg 1", *ROWS[0][2:]), (*ROWS[0][:1], "ROI 3", "Overlay", "Average Bkg 2", *ROWS[0][4:]),
             (*ROWS[0][:1], "Subject 1", *ROWS[0][2:]), ("Total", "", *ROWS[0][2:])]  # fmt: skip
    found = read_living_image(table(tmp_path / "a.csv", rows=[*ROWS, *aside]), source())
    assert [(r.organ, r.time_h, r.value) for r in found.rows] == EXPECTED
    assert "4 rows that are no organs were left out: Bkg 1, Average Bkg 2, Subject 1, Total" in found.notes


def test_lines_before_the_header_headers_between_and_empty_cells_at_the_end(tmp_path):
    path = table(tmp_path / "a.csv", rows=[ROWS[0], HEADER, *ROWS[1:]])
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\nMeasured by AB\n" + "\n".join(line + ",," for line in lines), encoding="utf-8")
    assert [(r.organ, r.time_h, r.value) for r in read_living_image(path).rows] == EXPECTED


# --- looking without a study ----------------------------------------------------------------------------------


def test_a_plain_export_can_be_described_without_a_study(tmp_path):
    path = table(tmp_path / "rois.csv", *without("time_h"), encoding="cp1252")
    assert reader_for(path).name == "living image"
    told = read(path).describe()
    assert ("ROIs", "3 in 2 images: Liver, Kidneys") in told
    assert ("acquired", "2024-03-05 11:00 to 2024-03-06 11:00") in told
    assert ("unit", "p_per_s") in told
    assert ("note", "a column 'time_h', hours after the injection: add it to the table") in told
    found = read(path)
    assert isinstance(found, RoiTable)
    assert found.rows == ()  # no time is invented


def test_numbered_rois_can_be_described_too(tmp_path):
    found = read_living_image(table(tmp_path / "a.csv", *without("ROI Label")))
    assert any("the organ of each ROI: add a column 'organ'" in text for _, text in found.describe())


def test_animals_in_place_of_organs_are_noticed(tmp_path):
    rows = [(*r[:3], name, *r[4:]) for r, name in zip(ROWS, ("M1", "M2", "M1"), strict=True)]
    found = read_living_image(table(tmp_path / "a.csv", rows=rows))
    assert any("no name of an organ is among m1, m2; if these are animals" in n for n in found.notes)
    assert not any("no name of an organ" in n for n in read_living_image(table(tmp_path / "b.csv")).notes)


def test_other_tables_are_left_to_other_readers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("organ,h2,h4\nliver,1,2\n")
    assert reader_for(path).name == "organ table"


# --- problems -------------------------------------------------------------------------------------------------


def test_all_that_a_study_needs_and_the_table_lacks_at_once(tmp_path):
    header, rows = without("ROI Label", *reversed(without("time_h")))
    told = problems(table(tmp_path / "a.csv", header, rows), source())
    assert ("a.csv, key time_h: found nothing, expected a column 'time_h', hours after the injection; "
            "add it to the table.") in told  # fmt: skip
    assert ("a.csv, row 2, column ROI: found 'ROI 1, ROI 2', expected the organ of each ROI; add a column 'organ', or "
            "name the ROI in Living Image (ROI Label).") in told  # fmt: skip


def test_a_label_must_come_from_somewhere(tmp_path):
    assert "expected the label of its values; state label under" in problems(
        table(tmp_path / "a.csv"), source(label=None)
    )
    header, rows = (*HEADER, "label"), [(*r, "dir") for r in ROWS]
    found = read_living_image(table(tmp_path / "b.csv", header, rows), source(label=None))
    assert {r.label for r in found.rows} == {"dir"}


def test_a_roi_twice_in_one_image(tmp_path):
    twice = (*ROWS[1][:2], "Luminescent", *ROWS[1][3:])
    told = problems(table(tmp_path / "a.csv", rows=[*ROWS, twice]))
    assert told == ("a.csv, row 5, column ROI: found 'AB20240305110000_001 / ROI 2', expected each ROI of an image once; "
                    "it stands in row 3 too: keep one image layer or remove it.")  # fmt: skip


def test_two_animals_without_names(tmp_path):
    other = ("AB20240305120000_001", *ROWS[0][1:])
    told = problems(table(tmp_path / "a.csv", rows=[*ROWS, other]), source())
    assert (
        "row 5, column organ: found 'liver of pooled at 0.5 h', expected each organ of an animal once at a time" in told
    )
    assert "it stands in row 2 too: add a column 'subject'" in told


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("Total Flux [p/s]", "n/a", "row 2, column Total Flux [p/s]: found 'n/a', expected a finite number"),
        ("Total Flux [p/s]", "inf", "row 2, column Total Flux [p/s]: found 'inf', expected a finite number"),
        ("Total Flux [p/s]", "", "row 2, column Total Flux [p/s]: found nothing, expected a value, or below_lloq"),
        ("time_h", "-1", "row 2, column time_h: found '-1.0', expected 0 or more"),
        ("time_h", "", "row 2, column time_h: found nothing, expected a value"),
        (
            "Total Flux [p/s]",
            '"1,500"',
            "row 2, column Total Flux [p/s]: found '1,500', expected a number with a decimal point",
        ),
    ],
)
def test_cells_that_are_no_numbers(tmp_path, column, cell, words):
    rows = [tuple(cell if c == column else v for c, v in zip(HEADER, ROWS[0], strict=True)), *ROWS[1:]]
    assert words in problems(table(tmp_path / "a.csv", rows=rows))


def test_points_and_commas_in_one_table_are_not_guessed(tmp_path):
    rows = [(*ROWS[0][:4], "1,5e+06", *ROWS[0][5:]), *ROWS[1:]]
    assert "expected a number with a decimal point" in problems(table(tmp_path / "a.csv", rows=rows, delimiter=";"))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([c.replace("[p/s]", "[uW]") for c in HEADER], "found 'Total Flux [uW]', expected total flux in [p/s]"),
        ([c.replace("Min Radiance", "time_h") for c in HEADER], "found 'time_h', expected each column once"),
        ([c.replace("Total Flux", "Some Flux") for c in HEADER], "found 'no header line in its first 60 lines'"),
    ],
)
def test_columns_that_cannot_be(tmp_path, header, words):
    assert words in problems(table(tmp_path / "a.csv", header))


def test_a_unit_that_the_table_does_not_hold(tmp_path):
    told = problems(table(tmp_path / "a.csv"), source(unit="bq"))
    assert "found 'bq', expected unit p_per_s, which is what the table holds" in told


def test_hostile_files_give_words(tmp_path):
    path = table(tmp_path / "a.csv", rows=[ROWS[0][:4]])
    assert "row 2: found '4 cells', expected 10, as in the header" in problems(path)
    assert "a header only" in problems(table(tmp_path / "b.csv", rows=[]))
    long = tmp_path / "c.csv"
    long.write_text(",".join(HEADER) + "\n" + ",".join(ROWS[0]) + ",1,2,3\n", encoding="utf-8")
    assert "found '13 cells', expected 10" in problems(long)
    binary = tmp_path / "d.csv"
    binary.write_bytes(b"ROI,Total Flux\n\0\1\2\3" * 30)
    assert "binary data" in problems(binary)
    quote = tmp_path / "e.csv"
    quote.write_text(",".join(HEADER) + '\n"open,1\n', encoding="utf-8")
    assert "expected a text table with every quote closed" in problems(quote)
    assert "expected a readable table" in problems(tmp_path / "nowhere.csv")
