"""Runs under bad conditions: any number of processes, a full disk, a read-only folder, scans that vanish or change."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

import evbiodist as ev
from evbiodist.batch.cluster import OWN, Scheduler, run_on_cluster
from evbiodist.batch.verify import verify
from evbiodist.study.load import load_study

#: What tells of one run and not of its result.
OF_THE_RUN = {"provenance.json", "journal.jsonl", ".evbiodist.lock", ".evbiodist.lock.owner", "settings.toml"}


def make(folder: Path, scans: int = 9) -> Path:
    """Write a study of small trays, one animal a scan."""
    random, labels = np.random.default_rng(5), np.zeros((64, 64), np.uint8)
    labels[8:24, 8:24], labels[40:56, 40:56] = 1, 2
    folder.mkdir()
    tifffile.imwrite(folder / "organs.tif", labels)
    rows = ["scan,subject,label,time_h,kind,file,organs,pixel_size_mm,gain_e,read_noise_e,bias"]
    animals = ["subject,label,dose,dose_unit,route"]
    for i in range(scans):
        tifffile.imwrite(folder / f"{i}.tif", random.poisson(100 + 400.0 * labels / (1 + i % 3)).astype(np.uint16))
        rows.append(f"s{i},m{i},dye,{1 + i % 3},ex_vivo,{i}.tif,organs.tif,0.5,1,3,100")
        animals.append(f"m{i},dye,1000000,p_per_s,iv_bolus")
    (folder / "subjects.csv").write_text("\n".join(animals) + "\n")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    (folder / "study.toml").write_text(
        'name = "trays"\n[labels.dye]\nkind = "fluorescence"\n[tables]\nscans = "scans.csv"\nsubjects = "subjects.csv"\n'
        '[imaging]\nfootprint = "roi"\n[imaging.organ_labels]\n1 = "liver"\n2 = "brain"\n'
    )
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A study and its undisturbed results."""
    folder = tmp_path_factory.mktemp("trays")
    study = make(folder / "study")
    ev.run(study, folder / "results")
    return study, contents(folder / "results")


@pytest.fixture
def trays(once, tmp_path) -> Path:
    """The study in a folder of its own, so that results name it alike."""
    return Path(shutil.copytree(once[0], tmp_path / "study", copy_function=shutil.copy2))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*"))
            if p.is_file() and p.name not in OF_THE_RUN}  # fmt: skip


def command(study, out, *more):
    run = [sys.executable, "-m", "evbiodist", "run", str(study), "--out", str(out), "--workers", "2", *more]
    return subprocess.run(run, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("workers", [2, 8])
def test_two_and_eight_processes_give_the_bytes_of_one(once, trays, tmp_path, workers):
    ev.run(trays, tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == once[1]


def test_workers_of_a_cluster_give_the_bytes_of_one_process(once, trays, tmp_path):
    ev.run(trays, tmp_path / "out", engine=partial(run_on_cluster, scheduler=Scheduler(OWN), workers=2))
    assert contents(tmp_path / "out") == once[1]


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """Mount a file system of so many bytes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def whole_files(out: Path) -> None:
    """Check that every file which is there is whole."""
    assert not list(out.rglob(".part-*"))
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    for path in out.rglob("*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    for path in out.glob("*.csv"):
        assert path.read_bytes().endswith(b"\n")
    for line in (out / "journal.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("size", ["96k", "208k"])  # full among the scans, and among the tables
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on_when_there_is_room(once, trays, tmp_path, size):
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        out = disk / "out"
        done = command(trays, out)
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if line]
        assert line.startswith("error: ")
        assert "bytes, " in line
        assert "free" in line
        assert "choose another --out" in line
        assert not (out / "provenance.json").exists()  # the run is not complete
        whole_files(out)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        again = command(trays, out)
        assert again.returncode == 0, again.stderr
        assert contents(out) == once[1]


def test_a_read_only_folder_is_a_sentence_and_stays_as_it_was(once, trays, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "20m"):
        ev.run(trays, disk / "out", report=False)
        before = {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()}
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for out in (disk / "out", disk / "new"):
            done = command(trays, out)
            assert done.returncode == 2
            [line] = [line for line in done.stderr.splitlines() if line]
            assert "cannot be written" in line
            assert "Read-only" in line
            assert "Traceback" not in done.stderr
        assert {p: p.read_bytes() for p in disk.rglob("*") if p.is_file()} == before


def before_its_turn(function, tasks, scan, change):
    """Run tasks here, one after another; change something just before one scan's turn, or just after."""
    for i, task in enumerate(tasks):
        if task.record.scan == scan:
            change("before")
        try:
            result = function(task)
        except ValueError as err:
            result = err
        if task.record.scan == scan:
            change("after")
        yield i, result


@pytest.mark.parametrize(
    "how", ["vanishes", "changes before its turn", "changes after its turn", "is replaced by a folder"]
)
def test_a_scan_that_changes_during_the_run_fails_alone_and_a_rerun_mends_it(once, trays, tmp_path, how):
    path = trays / "4.tif"
    kept = path.read_bytes()

    def change(when):
        if how == "changes before its turn" and when == "before":
            tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
        if how == "changes after its turn" and when == "after":
            tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
        if how == "vanishes" and when == "before":
            path.unlink()
        if how == "is replaced by a folder" and when == "before":
            path.unlink()
            path.mkdir()

    out = tmp_path / "out"
    result = ev.run(trays, out, engine=partial(before_its_turn, scan="s4", change=change))
    [failure] = result.failures
    assert failure["name"] == "s4"
    assert "Traceback" not in failure["reason"]
    expected = once[1]["observations.csv"].decode().splitlines()
    kept_rows = [line for line in expected if ",s4," not in line]
    assert (out / "observations.csv").read_text().splitlines() == kept_rows
    if path.is_dir():
        path.rmdir()
    path.write_bytes(kept)
    ev.run(trays, out)
    assert contents(out) == once[1]
    assert verify(out).findings == ()


def test_a_run_with_failures_says_so_with_its_status(trays, tmp_path):
    (trays / "4.tif").unlink()
    done = command(trays, tmp_path / "out")
    assert done.returncode == 1
    assert "s4" in done.stderr + done.stdout
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 2
    assert len(load_study(trays).scans) == 9


def test_a_folder_of_results_that_is_deleted_under_a_run_is_a_sentence(trays, tmp_path):
    out = tmp_path / "out"

    def change(when):
        if when == "before":
            shutil.rmtree(out)
            out.write_text("a file in its place")

    with pytest.raises(OSError, match=r"cannot be written|Not a directory|No such file"):
        ev.run(trays, out, engine=partial(before_its_turn, scan="s4", change=change))
    assert out.read_text() == "a file in its place"
    os.unlink(out)
