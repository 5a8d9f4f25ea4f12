"""A study is read whole or refused with every reason: file, row, column, found, expected, remedy."""

import pytest

from evbiodist.batch.pipeline import check, check_tables
from evbiodist.study.load import load_study
from evbiodist.study.problems import InputError

OBSERVED = "subject,label,organ,time_h,value,se,unit\n"


def problems_of(path):
    """Return the sentences of everything wrong, whether the study or a table refuses."""
    try:
        study = load_study(path)
    except InputError as err:
        return [str(p) for p in err.problems]
    return [str(p) for p in check(study)]


def test_ids_stay_text(table_study):
    study = load_study(table_study())
    assert [s.subject for s in study.subjects] == ["001", "NA"]
    tables, problems = check_tables(study)
    assert problems == []
    assert {r.subject for r in tables[0].rows} == {"001", "NA"}


def test_label_carries_its_physics(table_study):
    study = load_study(table_study())
    assert study.labels["111In"].half_life_h == 67.313
    assert study.labels["DiR"].half_life_h is None


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("[tables]", "[tabels]", "tabels", "did you mean 'tables'?"),
        ('name = "s"', 'name = "s"\nspecis = "rat"', "specis", "did you mean 'species'?"),
        ('isotope = "111In"', 'isotop = "111In"', "labels.111In.isotop", "did you mean 'isotope'?"),
        ('isotope = "111In"', 'isotope = "111Im"', "labels.111In", "did you mean '111In'?"),
        (
            '[labels.111In]\nkind = "radioactive"\nisotope = "111In"',
            '[labels.hot]\nkind = "radioactive"',
            "labels.hot",
            "an isotope (or half_life_h)",
        ),
        ('kind = "fluorescence"', 'kind = "fluoresence"', "labels.DiR.kind", "did you mean 'fluorescence'?"),
        ("[labels.DiR]", "[labels.consensus]", "labels", "another name"),
        ("[tables]", '[kinetics]\nmetod = "log"\n[tables]', "kinetics.metod", "did you mean 'method'?"),
    ],
)
def test_unknown_keys_suggest_the_nearest(table_study, old, new, place, hint):
    path = table_study()
    path.write_text(path.read_text().replace(old, new))
    found = problems_of(path)
    assert any(place in p and hint in p for p in found), found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "s"', "name = 3", "key name: found '3', expected text in quotes"),
        ('name = "s"', 'name = ""', "expected some text"),
        ("[tables]", '[kinetics]\nmodels = "one_compartment_iv"\n[tables]', "expected a list in [ ]"),
        ('subjects = "subjects.csv"', 'subjects = ["a"]', "expected text in quotes"),
        ("[tables]", "[imaging]\nstandard = 3\n[tables]", "expected a table of keys"),
    ],
)
def test_values_of_the_wrong_shape(table_study, old, new, words):
    path = table_study()
    path.write_text(path.read_text().replace(old, new))
    assert any(words in p for p in problems_of(path)), problems_of(path)


def test_every_problem_is_reported_at_once(table_study):
    path = table_study(
        subjects__csv="subject,label,dose,dose_unit,route,sex\na,DiR,,particles,iv_bolus,F\nb,DiD,1,particles,iv_bolus,F\n"
        "c,DiR,1,particles,intravenous,F\nd,DiR,-5,particles,iv_bolus,F\nd2,DiR,5,particles,iv_bolus,X\n"
        "e,DiR,5,particles,iv_bolus,F\ne,DiR,5,particles,iv_bolus,F\nf,DiR,9**9**9,9**9,iv_bolus,F\n"
    )
    found = "\n".join(problems_of(path))
    for expected in (
        "subjects.csv, row 2, column dose: found nothing, expected a value",
        "found 'DiD', expected a label that study.toml declares",
        "row 4, column route: found 'intravenous', expected one of iv_bolus",
        "row 5, column dose: found '-5', expected more than 0",
        "row 6, column sex: found 'X', expected one of F, M, unknown",
        "row 8, column subject: found 'e / DiR', expected each subject + label once; it stands in row 7 too",
        "row 9, column dose: found '9**9**9', expected a finite number",
        "'9**9' is not a unit",
    ):
        assert expected in found, (expected, found)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("001,DiR,liver,-1,5,0.1,pct_id\n", "row 2, column time_h: found '-1', expected 0 or more"),
        ("001,DiR,liver,1,nan,0.1,pct_id\n", "row 2, column value: found 'nan', expected a finite number"),
        ("001,DiR,liver,1,,0.1,pct_id\n", "a value, or below_lloq = yes"),
        ('001,DiR,liver,1,"5,2",0.1,pct_id\n', "found '5,2', expected a number with a decimal point"),
        ("001,DiD,liver,1,5,0.1,pct_id\n", "found 'DiD', expected a label that study.toml declares"),
        (
            "001,DiR,liver,1,5,0.1,pct_id\n001,DiR,liver,1.0,6,0.1,pct_id\n",
            "row 3, column subject: found 'all / 001 / DiR",
        ),
        ("001,DiR,liver,1,5,0.1,%ID\n", "expected one of pct_id, pct_id_per_g"),
        ("001,DiR,liver,1,5\n", "row 2: found '5 cells', expected 7, as in the header"),
        ("001,DiR,liver,1,5,-0.1,pct_id\n", "column se: found '-0.1', expected 0 or more"),
    ],
)
def test_bad_rows_of_observations(table_study, rows, sentence):
    found = problems_of(table_study(observations__csv=OBSERVED + rows))
    assert any(sentence in p and p.startswith("observations.csv") for p in found), found


def test_a_locale_with_semicolons_and_decimal_commas_is_named(table_study):
    text = (OBSERVED + "001,DiR,liver,1,5.2,0.1,pct_id\n").replace(",", ";").replace("5.2", "5,2")
    found = problems_of(table_study(observations__csv=text))
    assert found == ["observations.csv, row 2, column value: found '5,2', expected a number with a decimal point; "
                     "replace decimal commas by points in this column."]  # fmt: skip


def test_many_rows_of_one_kind_are_one_story(table_study):
    rows = "".join(f"s{i},DiR,liver,-1,5,0.1,pct_id\n" for i in range(40))
    found = problems_of(table_study(observations__csv=OBSERVED + rows))
    assert len(found) == 6
    assert "35 more rows" in found[-1]
    assert "(7, 8, 9," in found[-1]


def test_mistyped_columns_and_missing_ones(table_study):
    found = problems_of(table_study(subjects__csv="subject,label,dose,dose_unit,rout\na,DiR,1,particles,iv_bolus\n"))
    assert any("column" in p or "key rout" in p for p in found)
    assert any("did you mean 'route'?" in p for p in found)
    assert any("a column 'route'" in p for p in found)


@pytest.mark.parametrize("name", ["../subjects.csv", "/etc/passwd", "a/../../b.csv"])
def test_paths_stay_inside_the_study(table_study, name):
    path = table_study()
    path.write_text(path.read_text().replace('"subjects.csv"', f'"{name}"'))
    assert any("a path inside the study's folder" in p for p in problems_of(path))


def test_a_link_out_of_the_study_is_refused(table_study, tmp_path_factory):
    path = table_study()
    secret = tmp_path_factory.mktemp("elsewhere") / "subjects.csv"
    secret.write_text((path.parent / "subjects.csv").read_text())
    (path.parent / "subjects.csv").unlink()
    (path.parent / "subjects.csv").symlink_to(secret)
    assert any("a path inside the study's folder" in p for p in problems_of(path))


def test_binary_and_broken_files_are_sentences(table_study):
    path = table_study()
    (path.parent / "subjects.csv").write_bytes(b"\x00\x01\x02")
    assert "binary data" in problems_of(path)[0]
    path.write_text("name = ")
    assert "TOML in UTF-8" in problems_of(path)[0]


def test_windows_text_is_read(table_study):
    path = table_study()
    text = (path.parent / "subjects.csv").read_text().replace("001", "Mäuschen")
    (path.parent / "subjects.csv").write_bytes(text.encode("cp1252"))
    (path.parent / "observations.csv").write_text(
        OBSERVED + "Mäuschen,DiR,liver,1,5,0.1,pct_id\n", encoding="utf-8-sig"
    )
    assert problems_of(path) == []
    assert load_study(path).subjects[0].subject == "Mäuschen"
