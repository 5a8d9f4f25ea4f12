"""Table exports: CSV, Parquet and Excel hold what the run wrote, text never runs, and splits never part an animal."""

import csv
import io
import json
import math

import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest

import evbiodist as ev
from evbiodist.batch.pipeline import CURVE_COLUMNS, FAILURE_COLUMNS
from evbiodist.crossval.compare import TABLES
from evbiodist.crossval.groups import COMPARISON_COLUMNS
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS
from evbiodist.report.exports import tables, tables_parquet, tidy, workbook
from evbiodist.report.exports.columns import columns, tables_of
from evbiodist.report.folder import ResultFolder, read_results
from evbiodist.study.model import OBSERVATION_COLUMNS, Subject
from evbiodist.study.problems import InputError

EVIL = '=HYPERLINK("http://x"),<script>$_^\\;\' é'
HEAD = "study,subject,group,label,organ,time_h,value,se,unit,mass_g,lloq,below_lloq,flags,source,se_systematic,sd,n,vessel_blood"


def results_of(path, rows, subjects=(), *, name="s", parameters=True, **study):
    """Write a result folder with these observations and read it."""
    path.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD.split(","))
    for r in rows:
        writer.writerow([{"study": name, "below_lloq": "no", **r}.get(c, "") for c in HEAD.split(",")])
    (path / "observations.csv").write_text(text.getvalue(), encoding="utf-8")
    settings = {"crossval": {"organ": "brain"}, "kinetics": {"level": 0.95}}
    (path / "study.json").write_text(
        json.dumps({"name": name, "settings": settings, "subjects": list(subjects), **study}), encoding="utf-8"
    )
    if parameters:
        (path / "parameters.csv").write_text(
            ",".join(PARAMETER_COLUMNS) + "\n" + f"{name},pooled,g,DiR,brain,nca,auc_last,0.1,,,,h,method,3,,because\n",
            encoding="utf-8",
        )
    return read_results(path)


def value(subject="m1", label="DiR", organ="brain", time_h=1, v=0.1, unit="pct_id", group="g", **more):
    return {
        "subject": subject,
        "group": group,
        "label": label,
        "organ": organ,
        "time_h": time_h,
        "value": v,
        "unit": unit,
        **more,
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    escaped = "'" + EVIL
    rows = [
        value(escaped, v=0.1 + 0.2, n=1, se=1e-300, flags="low_signal"),
        value("m2", v="", lloq=0.05, below_lloq="yes", flags="below_lloq"),
        value("m3\nx", "111In", "liver", 0.1, 5e-324, "pct_id_per_g", group="-g"),
    ]
    subjects = [
        {
            "subject": EVIL,
            "label": "DiR",
            "group": "g",
            "dose": 3.5,
            "dose_unit": "bq",
            "route": "iv_bolus",
            "sex": "F",
            "weight_g": 21.5,
            "perfused": True,
            "batch": "b",
        }
    ]
    return results_of(tmp_path_factory.mktemp("hostile"), rows, subjects, name="sé <b>")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run's own results: single animals, two labels, kinetics and comparisons."""
    study, rows, subjects = tmp_path_factory.mktemp("study"), [], []
    for label in ("DiR", "111In"):
        for i in range(4):
            group = "ab"[i % 2]
            subjects.append(f"{label}{i},{label},100,bq,iv_bolus,F,{group},20")
            rows += [
                f"{label}{i},{label},{o},{t},{k * 2.0**-t * (1 + 0.1 * i):.6g},pct_id_per_g"
                for t in (0.5, 2, 6)
                for o, k in (("blood", 20), ("liver", 8))
            ]
    (study / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route,sex,group,weight_g\n" + "\n".join(subjects) + "\n"
    )
    (study / "observations.csv").write_text("subject,label,organ,time_h,value,unit\n" + "\n".join(rows) + "\n")
    (study / "study.toml").write_text(
        'name = "s"\n[labels.DiR]\nkind = "fluorescence"\n[labels.111In]\nkind = "radioactive"\nisotope = "111In"\n'
        '[tables]\nsubjects = "subjects.csv"\nobservations = ["observations.csv"]\n'
        '[kinetics]\nmodels = ["one_compartment_iv"]\n[crossval]\njoint = false\nleave_out = []\n'
    )
    ev.run(study, study / "out", report=False)
    return study / "out"


def read_csv(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


# ---- the dictionary of columns


def test_the_dictionary_has_the_columns_that_a_run_writes_in_their_order():
    told = columns()
    expected = {
        "observations": OBSERVATION_COLUMNS,
        "parameters": PARAMETER_COLUMNS,
        "curves": CURVE_COLUMNS,
        "failures": FAILURE_COLUMNS,
        "comparisons": COMPARISON_COLUMNS,
        "subjects": tuple(Subject.model_fields),
        **TABLES,
    }
    for table, names in expected.items():
        assert set(told[table]) == set(names), table
    assert set(told) == {*expected, "scans"}


def test_every_table_of_a_run_is_known_to_the_dictionary(written):
    results = read_results(written)
    for table, frame in tables_of(results).items():
        assert not set(frame.columns) - set(columns()[table]), table
    assert {"observations", "parameters", "subjects", "comparisons"} <= set(tables_of(results))


def test_every_column_has_a_meaning_and_a_unit_column_that_exists():
    for table, own in columns().items():
        for c in own.values():
            assert c.meaning.strip(), (table, c)
            assert c.type in ("string", "number", "integer", "boolean"), (table, c)
            if c.unit.startswith("column "):
                assert own[c.unit_column].type == "string", (table, c)


# ---- CSV, Parquet, Excel


def test_csv_numbers_are_the_runs_to_the_last_bit_and_text_is_escaped(hostile):
    files = tables.export(hostile, {}).files
    first = read_csv(files["observations.csv"])[0]
    assert float(first["value"]) == 0.1 + 0.2
    assert float(first["se"]) == 1e-300
    assert first["subject"] == "'" + EVIL
    assert read_csv(files["subjects.csv"])[0]["subject"] == "'" + EVIL
    assert {(r["table"], r["column"]) for r in read_csv(files["dictionary.csv"])} >= {
        ("subjects", "dose"),
        ("observations", "value"),
    }
    assert all(r["meaning"] for r in read_csv(files["dictionary.csv"]))


@pytest.mark.parametrize("which", ["hostile", "written"])
def test_parquet_equals_csv_cell_by_cell_with_types_units_and_no_escape(which, request):
    given = request.getfixturevalue(which)
    results = given if isinstance(given, ResultFolder) else read_results(given)
    as_csv, as_parquet = tables.export(results, {}).files, tables_parquet.export(results, {}).files
    assert {n.removesuffix(".parquet") for n in as_parquet} == {n.removesuffix(".csv") for n in as_csv} - {"dictionary"}
    for name, content in as_parquet.items():
        table = pq.read_table(io.BytesIO(content))
        own = name.removesuffix(".parquet")
        assert table.schema.metadata[b"table"] == own.encode()
        assert b"study" in table.schema.metadata
        for cells, row in zip(read_csv(as_csv[f"{own}.csv"]), table.to_pylist(), strict=True):
            for column, cell in cells.items():
                kind, found = columns()[own][column].type, row[column]
                if kind == "string":
                    assert cell in (found, "'" + found)
                elif cell == "":
                    assert found is None
                elif kind == "boolean":
                    assert (cell == "yes") is found
                else:
                    assert float(cell) == found
                    assert isinstance(found, int if kind == "integer" else float)
        for f in table.schema:
            assert f.metadata[b"meaning"]
            assert f.metadata[b"unit"] == columns()[own][f.name].unit.encode()


def test_excel_reads_back_equal_and_holds_no_formula_and_no_link(hostile):
    book = openpyxl.load_workbook(io.BytesIO(workbook.export(hostile, {}).files["results.xlsx"]))
    assert book.sheetnames == ["read me", "observations", "parameters", "subjects"]
    for sheet in book:
        for line in sheet.iter_rows():
            assert all(cell.data_type != "f" and cell.hyperlink is None for cell in line)
    for name, table in tables_of(hostile).items():
        sheet = book[name]
        assert sheet.freeze_panes == "A2"
        assert [c.value for c in sheet[1]] == list(table.columns)
        for line, (_, row) in zip(sheet.iter_rows(min_row=2, values_only=True), table.iterrows(), strict=True):
            for cell, (column, expected) in zip(line, row.items(), strict=True):
                kind = columns()[name][column].type
                if kind == "string":
                    assert (cell or "") == expected
                elif kind == "boolean":
                    assert cell == ("yes" if expected else "no")
                elif expected is pd.NA or math.isnan(expected):
                    assert cell is None
                else:  # the writer keeps 16 digits
                    assert cell == float(f"{expected:.16g}")


def test_the_workbook_explains_columns_and_the_flags_that_occur(hostile):
    book = openpyxl.load_workbook(io.BytesIO(workbook.export(hostile, {}).files["results.xlsx"]), read_only=True)
    lines = [line for line in book["read me"].iter_rows(values_only=True) if any(line)]
    flags = {line[0]: line[1:3] for line in lines[[line[0] for line in lines].index("flag") + 1 :]}
    from evbiodist.study.flags import FLAGS

    assert set(flags) == {"low_signal", "below_lloq"} & set(FLAGS)
    assert all(flags[f] == (FLAGS[f].meaning, FLAGS[f].remedy) for f in flags)
    assert ("observations", "time_h", "h", "Hours after the dose.") in [tuple(line[:4]) for line in lines]


def test_text_longer_than_a_cell_is_cut_and_told(tmp_path):
    results = results_of(tmp_path, [value("m" * 32_768)])
    made = workbook.export(results, {})
    assert made.notes == ("observations: 1 texts were cut at 32,767 characters, which a cell holds",)


def test_a_table_that_no_sheet_holds_is_refused_with_a_remedy(hostile, monkeypatch):
    monkeypatch.setattr(workbook, "_ROWS", 3)
    with pytest.raises(InputError, match=r"observations.csv: found '3 rows', .* use --format parquet"):
        workbook.export(hostile, {})


@pytest.mark.parametrize("form", [tables, tables_parquet, workbook, tidy])
def test_the_same_results_give_the_same_bytes(form, hostile):
    assert form.export(hostile, {}).files == form.export(hostile, {}).files


@pytest.mark.parametrize("form", [tables, tables_parquet, workbook, tidy])
def test_results_without_any_value_work(form, tmp_path):
    made = form.export(results_of(tmp_path, [], parameters=False), {})
    assert not any(b"m1" in content for content in made.files.values())


# ---- machine learning


def many(tmp_path, n=40, labels=("DiR", "111In", "NanoLuc")):
    """Animals of two groups, one label each but every tenth with two."""
    rows, subjects = [], []
    for i in range(n):
        for label in (labels[i % len(labels)], *([labels[(i + 1) % len(labels)]] if i % 10 == 0 else [])):
            subjects.append(
                {"subject": f"m{i}", "label": label, "dose": 2.0, "dose_unit": "particles", "route": "ip", "sex": "M"}
            )
            rows += [
                value(f"m{i}", label, organ, t, i + t, group="ab"[i % 2])
                for t in (1, 24)
                for organ in ("liver", "brain")
            ]
    return results_of(
        tmp_path,
        rows,
        subjects,
        species="mouse",
        vesicles={"zeta_mv": -20.5, "markers": ["CD9", "CD63"]},
        labels={"DiR": {"kind": "fluorescence", "emission_nm": 780.0}},
    )


def test_one_row_a_value_with_what_the_study_says_of_it(tmp_path):
    results = many(tmp_path)
    rows = read_csv(tidy.export(results, {}).files["values.csv"])
    assert len(rows) == len(results["observations"])
    first = next(r for r in rows if r["subject"] == "m3" and r["organ"] == "liver" and r["time_h"] == "24.0")
    assert float(first["value"]) == 27
    assert first["organ_id"] == "UBERON:0002107"
    assert first["route"] == "ip"
    assert first["species"] == "mouse"
    assert first["vesicles_zeta_mv"] == "-20.5"
    assert first["vesicles_markers"] == "CD9; CD63"
    assert first["label_emission_nm"] == "780.0"
    assert first["weight_g"] == ""


def test_no_animal_is_parted_and_folds_are_even_within_groups_and_labels(tmp_path):
    made = tidy.export(many(tmp_path), {"folds": "4"}).files
    rows = read_csv(made["values.csv"])
    fold_of = {}
    for r in rows:
        assert fold_of.setdefault(r["animal"], r["fold"]) == r["fold"]
    sizes = [sum(f == str(i) for f in fold_of.values()) for i in range(4)]
    assert sum(sizes) == 40
    assert max(sizes) - min(sizes) <= 6
    for scheme, fold in {(s["scheme"], s["fold"]) for s in read_csv(made["splits.csv"])}:
        here = [s for s in read_csv(made["splits.csv"]) if (s["scheme"], s["fold"]) == (scheme, fold)]
        trained, tested = ({s["animal"] for s in here if s["part"] == part} for part in ("train", "test"))
        assert trained
        assert tested
        assert not trained & tested
        if scheme == "labels":
            assert {s["label"] for s in here if s["part"] == "test"} == {fold}
            assert fold not in {s["label"] for s in here if s["part"] == "train"}
        else:
            assert tested == {a for a, f in fold_of.items() if f == fold}


@pytest.mark.parametrize(
    ("n", "said"),
    [(1, "one animal, or the mean of one group, cannot be split"), (3, "ask for fewer with --set folds=3")],
)
def test_too_few_animals_for_the_folds_are_told(n, said, tmp_path):
    assert said in tidy.export(results_of(tmp_path, [value(f"m{i}") for i in range(n)]), {}).notes[0]


def test_means_of_a_group_are_kept_together_over_labels(tmp_path):
    rows = [value("pooled", label, group=g) for label in ("DiR", "111In") for g in "ab"]
    made = read_csv(tidy.export(results_of(tmp_path, rows), {"folds": "2"}).files["values.csv"])
    assert {r["animal"] for r in made} == {"pooled of a", "pooled of b"}
    assert len({(r["animal"], r["fold"]) for r in made}) == 2


def test_wide_holds_every_value_of_long_in_its_organs_column(tmp_path):
    results = many(tmp_path)
    results["observations"].loc[1] = results["observations"].loc[0]  # a second value of one animal, organ and time
    long, wide = (read_csv(tidy.export(results, {"layout": layout}).files["values.csv"]) for layout in ("long", "wide"))
    as_long = sorted((r["subject"], r["label"], r["time_h"], r["organ"], r["value"]) for r in long)
    found = sorted(
        (r["subject"], r["label"], r["time_h"], c.split("__")[0], r[c]) for r in wide for c in r if "__" in c and r[c]
    )
    assert found == as_long
    assert {r["replicate"] for r in wide} == {"0", "1"}


def test_the_dictionary_names_every_column_in_order(tmp_path):
    for layout in ("long", "wide"):
        files = tidy.export(many(tmp_path), {"layout": layout}).files
        told = read_csv(files["dictionary.csv"])
        assert [t["column"] for t in told] == files["values.csv"].decode().split("\n")[0].split(",")
        assert all(t["meaning"] for t in told)


def test_hostile_names_stay_text_in_csv_and_datasheet(hostile):
    files = tidy.export(hostile, {}).files
    assert read_csv(files["values.csv"])[0]["subject"] == "'" + EVIL
    assert "<b>" not in files["datasheet.md"].decode()


@pytest.mark.parametrize(("key", "given"), [("layout", "tall"), ("folds", "1"), ("folds", "x"), ("folds", "5.5")])
def test_an_option_that_is_none_is_told_with_what_was_expected(key, given, hostile):
    with pytest.raises(InputError, match=f"found '{key}={given}', expected"):
        tidy.export(hostile, {key: given})


@pytest.mark.parametrize("form", ["csv", "parquet", "excel", "ml"])
def test_forms_are_written_through_the_registry(form, written, tmp_path):
    paths, _ = ev.export(written, form, tmp_path / form)
    assert paths
    assert all(p.stat().st_size for p in paths)
