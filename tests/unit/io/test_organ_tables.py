"""Organ tables: three layouts, their traps named, nothing guessed."""

from pathlib import Path

import pytest

from evbiodist.io.organ_tables import read_organ_table
from evbiodist.sample import sample_data
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError

TABLES = sample_data() / "organ_tables"


def source(name="t.csv", **more):
    return ObservationSource(**{"file": name, "label": "x", "unit": "pct_id_per_g", **more})


def test_wide_table_of_a_paper():
    """PMC8196871 table 2: blood 13.46 +- 0.92 at 2 h, spleen 12.10 +- 1.84 at 24 h."""
    path = TABLES / "111In_EB_cRGDfK" / "111In_EB_cRGDfK_mouse_pct_id_per_g.csv"
    table = read_organ_table(path, source(path.name, n=4, unit=None))
    rows = {(r.organ, r.time_h): r for r in table.rows}
    assert len(rows) == 50
    assert table.unit == "pct_id_per_g"
    assert (rows["blood", 2.0].value, rows["blood", 2.0].sd) == (13.46, 0.92)
    assert rows["spleen", 24.0].se == pytest.approx(1.84 / 2)


def test_long_table_in_minutes():
    """PMC3986099 table 1: liver 57.51 +- 4.79 at 5 min."""
    path = TABLES / "125I_TAP1" / "125I_TAP1_mouse_pct_id_per_g.csv"
    rows = {(r.organ, round(r.time_h * 60)): r for r in read_organ_table(path, source(path.name, n=3, unit=None)).rows}
    assert (rows["liver", 5].value, rows["liver", 5].sd, rows["liver", 5].n) == (57.51, 4.79, 3)


def test_traps_of_the_pertechnetate_table_are_named():
    path = TABLES / "99mTc_pertechnetate" / "99mTc_pertechnetate_mouse.csv"
    table = read_organ_table(path, source(path.name))
    notes = " ".join(table.notes)
    assert "pct_id_per_g in its title but pct_id in its header; the study decides for pct_id_per_g" in notes
    assert "the SD of every organ at 0.083 h equals that at 1 h" in notes
    assert "SD without n" in notes
    by_time = {r.time_h: r for r in table.rows if r.organ == "liver"}
    assert "sd_repeated" in by_time[1.0].flags
    assert "sd_repeated" not in by_time[2.0].flags
    assert all(r.se is None and "n_unknown" in r.flags and "unit_conflict" in r.flags for r in table.rows)


def test_a_conflict_of_units_must_be_decided():
    path = TABLES / "99mTc_pertechnetate" / "99mTc_pertechnetate_mouse.csv"
    with pytest.raises(InputError, match="the unit of its values"):
        read_organ_table(path, source(path.name, unit=None))


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("organ,h2,sd,h24,sd\nliver,1,0.1,2,0.2\n", [2.0, 24.0]),
        ("Tissue;30 min;SD;2h;SD\nLiver;1;0.1;2;0.2\n", [0.5, 2.0]),
        ("organ\t1d_mean\t1d_sd\nliver\t1\t0.1\n", [24.0]),
        ("organ,t_min,mean,sd,n\nliver,15,1,0.1,3\nliver,60,2,0.1,3\n", [0.25, 1.0]),
        ("tissue,time_h,value,sem\nliver,3,1,0.1\n", [3.0]),
    ],
)
def test_layouts(tmp_path, text, times):
    (tmp_path / "t.csv").write_text(text)
    rows = read_organ_table(tmp_path / "t.csv", source(n=4)).rows
    assert [r.time_h for r in rows] == times
    assert all(r.se is not None for r in rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("region,h2\nliver,1\n", "a column 'organ' or 'tissue'"),
        ("organ,h2,remark\nliver,1,x\n", "a time such as h2"),
        ("organ,h2\nliver,abc\n", "row 2, column h2: found 'abc', expected a finite number"),
        ("organ,h2\nliver,nan\n", "row 2, column h2: found 'nan'"),
        ('organ,h2\nliver,"1,5"\n', "expected a number with a decimal point"),
        (
            "organ,h2\nliver,1\nLiver,2\n",
            "row 3, column organ: found 'liver at 2 h', expected each organ and time once",
        ),
        ("organ,time,value\nliver,1,2\n", "the unit of time in the column's name"),
        ("organ,time_h,value\nliver,-1,2\n", "found '-1.0', expected 0 or more"),
        ("organ,h2\nliver\n", "1 cells"),
        ("", "an empty file"),
    ],
)
def test_problems_are_sentences(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as err:
        read_organ_table(tmp_path / "t.csv", source())
    assert words in str(err.value)


def test_empty_cells_are_no_values(tmp_path):
    (tmp_path / "t.csv").write_text("organ,h2,h4\nliver,1,\nbrain,,2\n")
    rows = read_organ_table(tmp_path / "t.csv", source()).rows
    assert [(r.organ, r.time_h) for r in rows] == [("liver", 2.0), ("brain", 4.0)]


def test_a_table_that_is_only_looked_at_needs_no_study():
    told = dict(read_organ_table(Path(TABLES / "125I_TAP1" / "125I_TAP1_mouse_pct_id_per_g.csv")).describe())
    assert told["organs"].startswith("8: blood")
