"""The library's folder: whole after any death, right with many at once, honest about damage, versions and namesakes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from made_studies import animals, row, study

from evbiodist.batch.store import FolderBusyError, NoRoomError
from evbiodist.library.database import connect, read_parquet, write_parquet
from evbiodist.library.query import Filters, select, sql
from evbiodist.library.store import add, contents, open_tables
from evbiodist.study.problems import InputError

HERE = Path(__file__).parent


def played(what, library, *more):
    """Return what adders.py tells of real processes."""
    done = subprocess.run([sys.executable, HERE / "adders.py", what, library, *map(str, more)], capture_output=True, text=True,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def part_file(library, name, pattern="*"):
    return next((library / "parts").glob(f"{pattern}/{name}"))


def test_eight_processes_add_at_once(tmp_path):
    found = played("together", tmp_path / "lib")
    assert found["codes"] == [0] * 8
    assert sorted(found["current"]) == sorted([*([f"study {i}", 2] for i in range(8)), ["study 100", 1]])
    assert found["replaced"] == 8
    assert found["damaged"] == []
    assert dict(found["values"]) == {f"study {i}": 23.0 + 2 * i for i in range(8)} | {"study 100": 222.0}


@pytest.mark.slow
def test_a_killed_add_leaves_the_library_whole_and_the_same_command_completes_it(tmp_path):
    found = played("kills", tmp_path / "lib", 25)
    assert found["killed"] == 25
    assert found["left"] >= 4  # many died half-way, or nothing was tested
    assert (found["damaged"], found["short"]) == ([], 0)
    assert found["read"] + found["new"] == found["studies"] == found["values"] == found["tried"] + 2
    assert found["rest"] == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    found = played("full", tmp_path / "lib")
    assert "cannot be written" in found["said"]
    assert "free some room" in found["said"]
    assert found["studies"] == ["study 1000"]
    assert found["parts"] == 1


def test_the_same_content_twice_adds_nothing(tmp_path):
    first = add(tmp_path / "lib", study("a"))
    again = add(tmp_path / "lib", study("a"))
    assert (first.new, again.new) == (True, False)
    assert again.notes == ("'a' is in the library with the same content (version 1)",)
    assert len(list((tmp_path / "lib" / "parts").iterdir())) == 1


def test_changed_results_are_a_new_version_and_the_old_one_is_kept_but_not_asked(tmp_path):
    lib = tmp_path / "lib"
    add(lib, study("a", animals([1.0, 2.0])))
    second = add(lib, study("a", animals([1.0, 3.0])))
    assert second.part.version == 2
    assert second.notes[-1].startswith("version 2 replaces version 1 of 20")
    found = contents(lib)
    assert [(p.study, p.version) for p in found.current] == [("a", 2)]
    assert [(p.study, p.version) for p in found.replaced] == [("a", 1)]
    assert sorted(r["value"] for r in select(found.current, Filters()).records()) == [1.0, 3.0]
    assert sorted(r["value"] for r in select(found.replaced, Filters()).records()) == [1.0, 2.0]
    third = add(lib, study("a", animals([1.0, 2.0])))  # back to the first content: the newest, not the first, counts
    assert (third.new, third.part.version) == (True, 3)


def test_told_metadata_make_a_new_version(tmp_path):
    add(tmp_path / "lib", study("a"))
    told = add(tmp_path / "lib", study("a", vesicles={"source_cell": "HEK293T"}))
    assert told.part.version == 2
    assert sql(contents(tmp_path / "lib").current, "SELECT source_cell FROM studies").rows == [("HEK293T",)]


def test_names_are_the_same_study_whatever_their_case_and_unicode_form(tmp_path):
    add(tmp_path / "lib", study("Müller 2024", inputs=["f"]))
    again = add(tmp_path / "lib", study("mu\u0308ller  2024", animals([5.0]), inputs=["f"]))
    assert again.part.version == 2
    assert len(contents(tmp_path / "lib").current) == 1


def test_a_namesake_of_other_inputs_is_refused_unless_told(tmp_path):
    add(tmp_path / "lib", study("study 1", inputs=["lab A"]))
    other = study("study 1", animals([7.0]), inputs=["lab B"])
    with pytest.raises(
        InputError, match="another study of the name 'study 1' in the library, with which it shares no input"
    ):
        add(tmp_path / "lib", other)
    assert add(tmp_path / "lib", other, new_version=True).part.version == 2


def test_the_same_values_under_another_name_are_refused(tmp_path):
    add(tmp_path / "lib", study("a", animals([1.5, 2.5])))
    with pytest.raises(InputError, match="found 'the very values of 'a', which is in the library'"):
        add(tmp_path / "lib", study("b", animals([1.5, 2.5])))


@pytest.mark.parametrize("name", ["observations.parquet", "part.json"])
def test_a_flipped_bit_is_noticed_and_changes_no_other_study(tmp_path, name):
    lib = tmp_path / "lib"
    add(lib, study("a", animals([1.0])))
    add(lib, study("b", animals([2.0])))
    bad = next(p for p in contents(lib).current if p.study == "a").folder / name
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    found = contents(lib)
    assert [p.study for p in found.current] == ["b"]
    assert len(found.damaged) == 1
    assert "is damaged and its study was left out" in found.damaged[0]
    assert add(lib, study("a", animals([1.0]))).part.version == 2  # adding it again mends it
    assert contents(lib).damaged == ()


def test_an_older_version_does_not_stand_in_for_a_damaged_one(tmp_path):
    lib = tmp_path / "lib"
    add(lib, study("a", animals([1.0])))
    new = add(lib, study("a", animals([2.0]))).part
    (new.folder / "parameters.parquet").unlink()
    found = contents(lib)
    assert found.current == ()
    assert "parameters.parquet: No such file" in found.damaged[0]


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"sum": 1}', '{"content": {}, "sum": "x"}', "[" * 5000, '{"content": ']
)
def test_a_record_that_is_none_is_damage_and_no_traceback(tmp_path, content):
    add(tmp_path, study("a"))
    part_file(tmp_path, "part.json").write_text(content)
    found = contents(tmp_path)
    assert found.current == ()
    assert len(found.damaged) == 1


def test_leftovers_and_strange_names_are_not_parts(tmp_path):
    add(tmp_path, study("a"))
    for name in (".part-123", "notes", "0123456789ab-v1-x", "..evil"):
        (tmp_path / "parts" / name).mkdir()
    (tmp_path / "parts" / ".part-123" / "observations.parquet").write_bytes(b"half")
    assert len(contents(tmp_path).current) == 1
    add(tmp_path, study("b", animals([3.0])))
    assert not (tmp_path / "parts" / ".part-123").exists()
    assert (tmp_path / "parts" / "notes").exists()


def test_other_folders_are_neither_read_nor_filled(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(
        InputError, match="found 'another folder', expected a library of studies; make one with evbiodist library add"
    ):
        contents(tmp_path)
    with pytest.raises(
        InputError, match=r"found 'other files \(thesis.docx\)', expected a library, or a new or empty folder"
    ):
        add(tmp_path, study("a"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.docx"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found 'a file', expected a folder for the library"):
        add(tmp_path / "file", study("a"))


def test_a_library_of_another_format_is_refused(tmp_path):
    add(tmp_path, study("a"))
    (tmp_path / "library.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="found '2', expected format 1; use the evbiodist that wrote it"):
        contents(tmp_path)


def test_who_adds_too_long_is_told_of(tmp_path):
    add(tmp_path, study("a"))
    with (
        filelock.FileLock(tmp_path / ".evbiodist.lock"),
        pytest.raises(FolderBusyError, match="others have been adding to"),
    ):
        add(tmp_path, study("b"), wait_s=0.05)
    assert len(contents(tmp_path).current) == 1  # reading needs no lock


def test_a_folder_that_cannot_be_made_is_a_sentence():
    with pytest.raises(NoRoomError, match="choose another --library"):
        add("/proc/evbiodist_library", study("a"))


@pytest.mark.parametrize("name", ["with [brackets] and *", "O'Brien's", "Größe ünd 細胞", "a?b", "%s {x}"])
def test_any_name_of_the_folder_will_do(tmp_path, name):
    add(tmp_path / name, study("a", animals([4.5])))
    assert select(contents(tmp_path / name).current, Filters()).records()[0]["value"] == 4.5


@pytest.mark.parametrize(
    "name",
    ["=1+1", "'; DROP TABLE studies; --", 'x" y', "\\x00", "../../etc", "細胞外小胞", "😀", "NULL", "NaN", "a;b"],
)
def test_any_name_of_a_study_comes_back_as_it_went_in(tmp_path, name):
    add(tmp_path / "lib", study(name, [row(subject=name, value=2.5, **{"group": name})]))
    found = select(contents(tmp_path / "lib").current, Filters(study=(name,))).records()
    assert [(r["study"], r["subject"], r["group"], r["value"]) for r in found] == [(name, name, name, 2.5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lib"]


def test_what_is_missing_stays_missing_and_numbers_keep_every_digit(tmp_path):
    odd = 0.1 + 0.2
    rows = [
        row(value=odd),
        row(value=None, below_lloq=True, lloq=0.5, subject="2"),
        row(value=0.0, subject="3", n=None),
    ]
    add(tmp_path, study("a", rows))
    found = select(contents(tmp_path).current, Filters()).records()
    assert [r["value"] for r in found] == [odd, None, 0.0]
    assert [r["below_lloq"] for r in found] == [False, True, False]
    assert {r["dose"] for r in found} == {r["weight_g"] for r in found} == {None}


def test_infinite_limits_of_parameters_survive(tmp_path):
    told = replace(study("a"), parameters=({"study": "a", "parameter": "x", "value": 1.0, "ci_low": float("-inf"),
                                            "ci_high": float("inf"), "se": float("nan"), "n": 3},))  # fmt: skip
    add(tmp_path, told)
    assert sql(contents(tmp_path).current, "SELECT ci_low, ci_high, se, n FROM parameters").rows == [
        (float("-inf"), float("inf"), None, 3)]  # fmt: skip


def test_parquet_files_have_the_same_bytes_every_time(tmp_path):
    made = []
    for name in ("one", "two"):
        part = add(tmp_path / name, study("a", animals([1.0, 2.0, 3.0]))).part
        made.append(part.file("observations").read_bytes())
    assert made[0] == made[1]


def test_a_column_that_older_parts_lack_is_missing_there(tmp_path):
    with connect() as con:
        write_parquet(con, tmp_path / "old.parquet", [{"a": 1.0}], {"a": "DOUBLE"})
        write_parquet(con, tmp_path / "new.parquet", [{"a": 2.0, "b": "x"}], {"a": "DOUBLE", "b": "VARCHAR"})
        files = [tmp_path / "old.parquet", tmp_path / "new.parquet"]
        read_parquet(con, "t", files, {"a": "DOUBLE", "b": "VARCHAR", "c": "BIGINT"})
        assert con.execute("SELECT * FROM t ORDER BY a").fetchall() == [(1.0, None, None), (2.0, "x", None)]


def test_an_empty_library_answers(tmp_path):
    part = add(tmp_path, study("a")).part
    for file in part.folder.iterdir():
        file.unlink()
    part.folder.rmdir()  # how a study is taken out
    found = contents(tmp_path)
    assert found.current == ()
    assert select(found.current, Filters()).rows == []
    open_tables(()).close()


def test_without_duckdb_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ValueError, match=r"needs DuckDB, which is not installed; pip install 'evbiodist\[library\]'"):
        add(tmp_path / "lib", study("a"))
    assert not (tmp_path / "lib").exists()


def forged(part, **changes):
    """Write a part's record anew, with a checksum that fits."""
    from evbiodist.batch.store import key_of

    record = {**part.record, **changes}
    (part.folder / "part.json").write_text(json.dumps({"content": record, "sum": key_of(record)}))


@pytest.mark.parametrize(
    "changes", [{"files": {"../../../secret": "0" * 64}}, {"files": {}}, {"version": 7}, {"metadata": {"study": 3}}]
)
def test_a_forged_record_is_damage(tmp_path, changes):
    forged(add(tmp_path, study("a")).part, **changes)
    found = contents(tmp_path)
    assert (found.current, len(found.damaged)) == ((), 1)


def test_a_forged_table_is_a_sentence(tmp_path):
    import hashlib

    part = add(tmp_path, study("a")).part
    part.file("observations").write_bytes(b"PAR1 no parquet at all PAR1")
    digest = hashlib.sha256(part.file("observations").read_bytes()).hexdigest()
    forged(part, files={**part.record["files"], "observations.parquet": digest})
    with pytest.raises(
        InputError, match="expected tables that DuckDB reads; update duckdb, or add the studies to a new library"
    ):
        select(contents(tmp_path).current, Filters())
