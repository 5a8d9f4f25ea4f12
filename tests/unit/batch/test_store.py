"""The result folder: whole or nothing, one run at a time, safe in a spreadsheet."""

import os
import subprocess
import sys
import time

import pytest

from evbiodist.batch import store


def test_cells_are_safe_and_numbers_are_whole():
    rows = [{"a": text, "b": value} for text, value in (("=HYPERLINK(1)", -1.5), ("+x", 0.1 + 0.2), ("-x", float("nan")),
                                                        ("@x", None), ("\tx", True), ('a,"b', 3), ("ok", 1e-300))]  # fmt: skip
    text = store.csv_bytes(rows, ["a", "b"]).decode()
    assert text == (
        "a,b\n'=HYPERLINK(1),-1.5\n'+x,0.30000000000000004\n'-x,\n'@x,\n'\tx,yes\n\"a,\"\"b\",3\nok,1e-300\n"
    )


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    store.write_bytes(tmp_path / "a.csv", b"old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(
        store.NoRoomError, match=r"a.csv \(3 bytes, [\d,]+ free\) cannot be written .* No space left on device"
    ):
        store.write_bytes(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_a_path_that_cannot_be_a_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(store.NoRoomError, match="choose another --out"):
        store.write_bytes(tmp_path / "file" / "a.csv", b"x")


def test_the_second_run_says_who_holds_the_folder(tmp_path):
    code = ("import sys, time; from pathlib import Path; from evbiodist.batch.store import hold\n"
            "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)")  # fmt: skip
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(store.FolderBusyError, match=f"process {other.pid}"), store.hold(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    for _ in range(50):  # the lock ends with the process
        try:
            with store.hold(tmp_path):
                return
        except store.FolderBusyError:
            time.sleep(0.05)
    pytest.fail("the lock outlived its process")


def test_damaged_shards_are_made_again(tmp_path):
    store.write_shard(tmp_path, "k", {"rows": [1.5]})
    assert store.read_shard(tmp_path, "k") == {"rows": [1.5]}
    path = store.shard_path(tmp_path, "k")
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    assert store.read_shard(tmp_path, "k") is None
    path.write_bytes(b"{")
    assert store.read_shard(tmp_path, "k") is None
    assert store.read_shard(tmp_path, "absent") is None


def test_keys_depend_on_everything():
    assert store.key_of("a", {"x": 1, "y": 2}) == store.key_of("a", {"y": 2, "x": 1})
    assert store.key_of("a", {"x": 1}) != store.key_of("a", {"x": 2})
