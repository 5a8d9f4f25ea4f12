"""Answers of the library: the same rows as pandas would choose, and SQL that reads nothing but the library."""

import json
import os

import duckdb
import pandas as pd
import pytest
from made_studies import animals, row, study

from evbiodist.library.query import TABLES, Filters, Found, empty_because, select, shared_values, sql, write
from evbiodist.library.store import add, contents


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    lib = tmp_path_factory.mktemp("lib")
    rows = [row(o, t, v, subject=s, label=lab, unit=u)
            for o, k in (("liver", 10.0), ("brain", 0.3), ("blood", 5.0)) for t, v in ((1.0, k), (24.0, k / 2))
            for s, lab, u in (("1", "DiR", "pct_id"), ("2", "DiR", "pct_id_per_g"), ("3", "In-111", "pct_id"))]  # fmt: skip
    add(lib, study("A", rows, vesicles={"source_cell": "HEK293T", "carrier": "vesicles"}, strain="Balb/c"))
    add(lib, study("B", animals([3.0, 4.0], label="PKH26"), species="rat", simulated=True))
    add(lib, study("C", animals([0.5, 0.6], label="111In", unit="pct_id"), vesicles={"source_cell": "MSC"}))
    return contents(lib).current


FILTERS = [
    (Filters(organ=("Livers", "brain")), lambda f: f["organ"].isin(["liver", "brain"])),
    (Filters(time_h=(0, 20)), lambda f: f["time_h"].between(0, 20)),
    (Filters(time_h=(24, 24)), lambda f: f["time_h"] == 24),
    (Filters(unit=("pct_id",), species=("mouse",)), lambda f: (f["unit"] == "pct_id") & (f["species"] == "mouse")),
    (Filters(label=("111In",)), lambda f: (f["label"] == "111In") | (f["label_name"] == "111In")),
    (Filters(source_cell=("HEK293T", "MSC")), lambda f: f["source_cell"].isin(["HEK293T", "MSC"])),
    (Filters(simulated=False), lambda f: ~f["simulated"].astype(bool)),
    (Filters(simulated=True), lambda f: f["simulated"].astype(bool)),
    (Filters(study=("A", "C"), organ=("liver",)), lambda f: f["study"].isin(["A", "C"]) & (f["organ"] == "liver")),
    (
        Filters(carrier=("vesicles",), strain=("Balb/c",)),
        lambda f: (f["carrier"] == "vesicles") & (f["strain"] == "Balb/c"),
    ),
    (Filters(label_kind=("radioactive",)), lambda f: f["label_kind"] == "radioactive"),
    (Filters(), lambda f: f["study"].notna()),
]


@pytest.mark.parametrize(("filters", "condition"), FILTERS)
def test_filters_choose_what_pandas_chooses(parts, filters, condition):
    every = pd.DataFrame(select(parts, Filters()).records())
    expected = every[condition(every)].astype(object)
    found = pd.DataFrame(select(parts, filters).records(), columns=every.columns).astype(object)
    found, expected = found.where(found.notna(), None), expected.where(expected.notna(), None)
    assert len(found) == len(expected) > 0
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False)


def test_sql_sees_the_same_rows(parts):
    every = pd.DataFrame(select(parts, Filters()).records())
    found = sql(
        parts,
        'SELECT study, organ, "group", avg(value) AS mean, count(*) AS n FROM observations GROUP BY ALL ORDER BY ALL',
    )
    expected = every.groupby(["study", "organ", "group"])["value"].agg(["mean", "count"]).reset_index()
    assert found.columns == ("study", "organ", "group", "mean", "n")
    pd.testing.assert_frame_equal(
        pd.DataFrame(found.records()), expected.rename(columns={"count": "n"}), check_dtype=False
    )
    assert sql(parts, "SELECT entry FROM studies ORDER BY entry;").rows == [("A",), ("B",), ("C",)]


def test_every_table_can_be_chosen_from(parts):
    for table in TABLES:
        select(parts, Filters(study=("A",), species=("mouse",)), table)
    with pytest.raises(ValueError, match="there is no table 'observation' in the library; did you mean 'observations'"):
        select(parts, Filters(), "observation")
    with pytest.raises(ValueError, match="studies have no organ, so they cannot be chosen by it; leave --organ out"):
        select(parts, Filters(organ=("liver",)), "studies")


def test_values_of_filters_are_values_and_no_sql(parts):
    for hostile in ("' OR 1=1 --", "liver'); DROP TABLE observations; --", '"', "%", "\\"):
        assert select(parts, Filters(study=(hostile,))).rows == []
        assert select(parts, Filters(label=(hostile,), sex=(hostile,))).rows == []


def test_why_there_is_no_row(parts):
    assert (
        empty_because(parts, Filters(label=("dir",)), "observations") == "no row has --label 'dir'; did you mean 'DiR'?"
    )
    assert empty_because(parts, Filters(sex=("F",)), "observations") == "no row says its sex"
    both = Filters(study=("C",), organ=("brain",))
    assert (
        empty_because(parts, both, "observations")
        == "no row has all of what was asked for; leave one of the options out"
    )


HOSTILE = [
    "DROP TABLE observations", "SELECT 1; DROP TABLE studies", "", ";", "COPY observations TO 'stolen.csv'",
    "COPY (SELECT 1) TO 'stolen.parquet' (FORMAT parquet)", "EXPORT DATABASE 'stolen'", "ATTACH 'stolen.db'", "INSTALL httpfs",
    "LOAD httpfs", "SET enable_external_access = true", "SET lock_configuration = false", "RESET lock_configuration",
    "SET memory_limit = '100GB'", "SET temp_directory = '.'", "PRAGMA database_list", "CALL pragma_version()",
    "CREATE TABLE t (a INT)", "CREATE MACRO m() AS 1", "INSERT INTO studies (entry) VALUES ('x')", "UPDATE studies SET entry = 'x'",
    "DELETE FROM studies", "PREPARE p AS SELECT 1", "CHECKPOINT", "SELECT * FROM 'secret.csv'", "SELECT * FROM read_csv('secret.csv')",
    "SELECT * FROM read_text('secret.csv')", "SELECT * FROM read_blob('secret.csv')", "SELECT * FROM read_json('secret.csv')",
    "SELECT * FROM read_parquet('secret.csv')", "SELECT * FROM glob('*')", "SELECT * FROM sniff_csv('secret.csv')",
    "SELECT * FROM parquet_schema('secret.csv')", "SELECT * FROM query('COPY studies TO ''stolen.csv''')",
    "SELECT * FROM query_table('secret.csv')", "SELECT * FROM secret_frame", "SELECT getenv('HOME')",
    "SELECT * FROM read_csv('https://example.org/x.csv')", "SELECT * FROM read_text('/etc/passwd')", "FROM 'secret.csv'",
    "SELECT (SELECT content FROM read_text('secret.csv'))", "SELECT * FROM studies WHERE ? = 1", "SELECT $1", "SELECT nope",
    "/*", "SELECT '", "\x00", "SELECT repeat('x', 1000000000000)", "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "EXPLAIN ANALYZE SELECT 1",
]  # fmt: skip


@pytest.mark.parametrize("statement", HOSTILE)
def test_hostile_sql_is_a_sentence_and_touches_nothing(parts, statement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("word\nhidden\n")
    secret_frame = pd.DataFrame({"word": ["hidden"]})
    before = [(p.folder, sorted(os.listdir(p.folder))) for p in parts]
    with pytest.raises(ValueError, match=r"--sql (holds|cannot be answered)") as told:
        sql(parts, statement, seconds=5)
    assert "hidden" not in str(told.value)
    assert "Traceback" not in str(told.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret.csv"]
    assert [(p.folder, sorted(os.listdir(p.folder))) for p in parts] == before
    assert len(secret_frame) == 1


def test_changes_hidden_in_a_select_are_gone_with_it(parts):
    with pytest.raises(ValueError, match="--sql") if duckdb.__version__ < "2" else _nothing():
        sql(parts, "WITH gone AS (DELETE FROM studies RETURNING entry) SELECT * FROM gone")
    assert len(select(parts, Filters(), "studies").rows) == 3


class _nothing:  # noqa: N801  reads as a condition
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@pytest.mark.parametrize(
    "statement", ["SELECT count(*) FROM range(10000000000000)", "SELECT * FROM range(10000000000)"]
)
def test_what_takes_too_long_is_stopped(parts, statement):
    with pytest.raises(ValueError, match=r"--sql took more than 0\.3 s and was stopped; ask for less"):
        sql(parts, statement, seconds=0.3)


def test_what_takes_too_much_memory_is_a_sentence(parts):
    with pytest.raises(ValueError, match="--sql cannot be answered: Out of Memory"):
        sql(
            parts,
            "SELECT * FROM (SELECT repeat('x', 1000) || range AS s FROM range(10000000)) ORDER BY s",
            memory="50MB",
        )


def test_two_columns_of_one_name_are_refused(parts):
    with pytest.raises(ValueError, match="two columns of one name; name them apart with AS"):
        sql(parts, "SELECT 1 AS a, 2 AS a")


ODD = """SELECT '=cmd|x' AS "=f", -1.5 AS number, 7 AS whole, true AS yes, NULL AS none, 'nan'::DOUBLE AS n,
         'inf'::DOUBLE AS i, [1, 2] AS list, 1.25::DECIMAL(5, 2) AS price, 'a"b,c\n' AS text, '細胞' AS unicode"""


def test_csv_is_safe_in_a_spreadsheet(parts, tmp_path):
    write(sql(parts, ODD), tmp_path / "o.csv")
    text = (tmp_path / "o.csv").read_text(encoding="utf-8")
    assert text.startswith("'=f,number,whole,yes,none,n,i,list,price,text,unicode\n'=cmd|x,-1.5,7,yes,,,inf,")
    assert text.rstrip().endswith('"a""b,c\n",細胞')


def test_json_holds_only_what_json_holds(parts, tmp_path):
    write(sql(parts, ODD), tmp_path / "o.json")
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"), parse_constant=lambda c: pytest.fail(c))[0]
    assert (found["=f"], found["number"], found["whole"], found["yes"], found["none"], found["n"], found["i"], found["price"]) == (
        "=cmd|x", -1.5, 7, True, None, None, "inf", 1.25)  # fmt: skip


def test_parquet_keeps_types(parts, tmp_path):
    write(sql(parts, ODD), tmp_path / "o.parquet")
    with duckdb.connect() as con:
        got = con.execute("SELECT * FROM read_parquet(?)", [str(tmp_path / "o.parquet")])
        kinds, values = [str(c[1]) for c in got.description], got.fetchone()
    assert kinds[:4] == ["VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"]
    assert values[:6] == ("=cmd|x", -1.5, 7, True, None, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.parquet"]


def test_observations_come_back_from_parquet_as_they_are(parts, tmp_path):
    found = select(parts, Filters())
    write(found, tmp_path / "o.parquet")
    with duckdb.connect() as con:
        back = con.execute("SELECT * FROM read_parquet(?)", [str(tmp_path / "o.parquet")]).fetchall()
    assert back == found.rows


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--out 'o.xlsx' ends with '.xlsx', expected .csv, .parquet or .json"):
        write(Found(("a",), []), tmp_path / "o.xlsx")


def test_values_that_two_studies_share_are_noticed(tmp_path):
    many = [row(o, t, 1.01 * i + t) for i, o in enumerate(("liver", "lung", "spleen")) for t in (1.0, 24.0)]
    add(tmp_path, study("original", many))
    add(tmp_path, study("taken over", [*many[:4], row("brain", 1.0, 0.5)]))
    add(tmp_path, study("other", animals([8.0])))
    assert shared_values(contents(tmp_path).current) == [("original", "taken over", 4)]
