"""`evbiodist library` as a user meets it: words, exit status, JSON lines, files."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from made_studies import animals, study

from evbiodist.cli import main
from evbiodist.library.store import add, contents

TABLE = "organ,h1,sd,h24,sd\nLiver,8.1,0.5,6.2,0.4\nBlood,9.1,0.5,1.2,0.4\n"
METADATA = """study = "Doe 2024"
species = "mouse"
[vesicles]
carrier = "vesicles"
[table]
label = "DiR"
unit = "pct_id_per_g"
n = 4
"""


def call(*arguments):
    return CliRunner().invoke(main, ["library", *map(str, arguments)])


@pytest.fixture
def lib(tmp_path, monkeypatch):
    """A library of three studies, found by the environment's word."""
    monkeypatch.setenv("EVBIODIST_LIBRARY", str(tmp_path / "lib"))
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "metadata.toml").write_text(METADATA)
    done = call("add", tmp_path / "table.csv", "--metadata", tmp_path / "metadata.toml")
    assert done.exit_code == 0, done.output + done.stderr
    assert "Doe 2024, version 1: 4 values, 0 parameters; 26 fields of metadata not told" in done.output
    add(tmp_path / "lib", study("Roe 2020", animals([4.0, 5.0, 6.0]), vesicles={"source_cell": "MSC"}))
    add(tmp_path / "lib", study("made up", animals([4.5, 5.5]), simulated=True))
    return tmp_path / "lib"


def test_help_says_what_there_is_and_loads_nothing_heavy():
    assert {"add", "list", "query", "meta", "export"} == set(main.commands["library"].commands)
    for name, command in main.commands["library"].commands.items():
        assert call(name, "--help").exit_code == 0
        assert command.help
    code = ("import sys, evbiodist.cli; evbiodist.cli.main(['library', '--help'], standalone_mode=False); "
            "print([m for m in ('duckdb', 'numpy', 'pandas', 'pydantic') if m in sys.modules])")  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


def test_adding_twice_is_told(lib, tmp_path):
    again = call("add", tmp_path / "table.csv", "--metadata", tmp_path / "metadata.toml")
    assert again.exit_code == 0
    assert "note: 'Doe 2024' is in the library with the same content (version 1)" in again.output
    assert "nothing added" in again.output


def test_what_cannot_be_added_is_named_and_the_rest_is_added(lib, tmp_path):
    from pathlib import Path

    table = Path(__file__).resolve().parents[3] / "sample_data" / "organ_tables" / "125I_TAP1"
    done = call("add", table, tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "125I-TAP1 in mice, version 1: 40 values" in done.output
    assert "nowhere: found nothing, expected a result folder, a study.toml or a table" in done.output
    assert "1 of 2 not added" in done.output
    alone = call("add", tmp_path / "nowhere")
    assert alone.exit_code == 2
    assert "expected a result folder" in alone.stderr
    both = call("add", table, tmp_path, "--metadata", tmp_path / "metadata.toml")
    assert both.exit_code == 2
    assert "--metadata describes one study" in both.stderr


def test_list_tells_what_is_missing(lib):
    done = call("list")
    assert done.exit_code == 0
    assert "Doe 2024 (version 1, added 20" in done.output
    assert "4 values, 0 parameters; means over animals; labels DiR; 1 to 24 h" in done.output
    assert "made up (version 1, added" in done.output
    assert ", simulated)" in done.output
    assert "not told: doi, year" in done.output
    assert "3 studies, 0 replaced versions" in done.output
    first = json.loads(call("list", "--json").output.splitlines()[0])
    assert (first["study"], first["organs"]) == ("Doe 2024", ["blood", "liver"])
    assert "vesicles.source_cell" in first["missing"]
    add(lib, study("Roe 2020", animals([4.0, 5.0, 6.5])))
    assert "Roe 2020 (version 1, replaced, added" in call("list", "--all").output
    assert "3 studies, 1 replaced version" in call("list").output


def test_query_prints_writes_and_hints(lib, tmp_path):
    done = call("query", "--organ", "Liver", "--time", "20..30", "--measured-only")
    assert done.exit_code == 0
    assert "4 rows" in done.output
    assert "source_cell" in done.output.splitlines()[0]
    assert "dose_unit" not in done.output.splitlines()[0]  # nobody tells it
    assert (
        "note: no row has --study 'doe 2024'; did you mean 'Doe 2024'?" in call("query", "--study", "doe 2024").output
    )
    assert "3 not shown; --limit or --out has them" in call("query", "--limit", "1", "--organ", "liver", "--time", "24",
                                                            "--measured-only").output  # fmt: skip
    out = tmp_path / "liver.csv"
    assert f"6 rows in {out}" in call("query", "--time", "24", "--organ", "liver", "--out", out).output
    assert len(out.read_text().splitlines()) == 7
    lines = call("query", "--table", "studies", "--json").output.splitlines()
    assert [json.loads(line)["row"]["entry"] for line in lines] == ["Doe 2024", "Roe 2020", "made up"]


def test_sql_on_the_command_line(lib):
    done = call("query", "--sql", "SELECT entry, carrier FROM studies WHERE carrier IS NOT NULL")
    assert done.output.splitlines() == ["entry     carrier", "Doe 2024  vesicles", "1 row"]
    bad = call("query", "--sql", "DROP TABLE studies")
    assert (bad.exit_code, bad.stderr) == (2, "error: --sql holds a statement of DROP, expected one SELECT over observations, "
                                           "parameters, curves, studies\n")  # fmt: skip
    assert "--sql goes alone" in call("query", "--sql", "SELECT 1", "--organ", "liver").stderr


@pytest.mark.parametrize("hours", ["x", "1..", "3..1", "-1..2", "nan", "1..2..3"])
def test_odd_times_are_a_sentence(lib, hours):
    done = call("query", "--time", hours)
    assert done.exit_code == 2
    assert "expected an hour or the first and last, such as 24 or 0..24" in done.stderr


def test_meta_says_who_entered_and_who_not(lib, tmp_path):
    out = tmp_path / "meta.csv"
    done = call("meta", "--organ", "Liver", "--organ", "brain", "--time", "24", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "Doe 2024, DiR, 24 h, 4 animals" in done.output
    assert "left out  made up, DiR: simulated" in done.output
    assert "liver at 24 h: " in done.output
    assert "2 studies, 7 animals; tau" in done.output
    assert "brain at 24 h: no value, 0 studies, ? animals; no study entered" in done.output
    assert out.read_text().startswith("organ,time_h,unit,by,stratum,what,study,")
    rows = [json.loads(line)["row"] for line in call("meta", "--organ", "liver", "--time", "24", "--json").output.splitlines()
            if "row" in json.loads(line)]  # fmt: skip
    assert rows[-1]["n_studies"] == 2
    assert call("meta", "--organ", "liver", "--time", "24", "--by", "colour").exit_code == 2


def test_export_on_the_command_line(lib, tmp_path):
    done = call("export", "--out", tmp_path / "ml", "--measured-only", "--folds", "3")
    assert done.exit_code == 0
    assert f"7 rows of 2 studies in {tmp_path / 'ml'}" in done.output
    assert "expected shares of less than 1" in call("export", "--out", tmp_path / "x", "--test", "1").stderr


def test_no_library_is_a_sentence(tmp_path):
    done = call("list", "--library", tmp_path / "none")
    assert done.exit_code == 2
    assert "none: found nothing, expected a library of studies; make one with evbiodist library add." in done.stderr


def test_damage_is_told_and_shows_in_the_exit_status(lib):
    bad = contents(lib).current[0].folder / "curves.parquet"
    bad.write_bytes(bad.read_bytes()[:-1])
    for command in (("list",), ("query",), ("meta", "--organ", "liver", "--time", "24")):
        done = call(*command)
        assert done.exit_code == 1
        assert "curves.parquet does not match its hash; add the study again" in done.stderr


def test_nothing_in_a_table_commands_the_terminal(lib):
    add(lib, study("plain", animals([7.0, 8.0], source="\x1b[31mred\x07", group="a\nb")))
    done = call("query", "--study", "plain")
    assert "\x1b" not in done.output
    assert "\\x1b[31mred\\x07" in done.output
