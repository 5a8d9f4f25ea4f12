"""The second engine: who may be talked to, and what happens when workers or the scheduler are gone."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from evbiodist.batch import cluster
from evbiodist.batch.cluster import OWN, ClusterError, Scheduler, run_on_cluster
from evbiodist.batch.pipeline import run_study
from evbiodist.cli import main
from evbiodist.phantom.study import LABELS, Design, write_study
from evbiodist.study.load import load_study

pytest.importorskip("distributed")


def square(task):
    time.sleep(0.3)
    return task * task


def where(folder):
    """Tell which dask worker this is under, then wait: the process above the one that works is the worker."""
    (Path(folder) / f"{os.getppid()}.worker").touch()
    time.sleep(1.0)
    return "done"


class Grid:
    """A scheduler and workers as a user would start them."""

    def __init__(self, folder, workers):
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.processes = []
        told = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told))
        wait_until(lambda: told.is_file() and told.read_text().rstrip().endswith("}"))
        self.address = json.loads(told.read_text())["address"]
        for _ in range(workers):
            self.start("worker", self.address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))
        self.scheduler = Scheduler(self.address)

    def start(self, what, *arguments):
        command = [sys.executable, "-m", "dask", what, *arguments]
        with (self.folder / "log.txt").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def wait(self):
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.processes) - 1, timeout=60)
        return self

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def wait_until(true):
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def grid(tmp_path):
    folder = tmp_path / "grid"
    folder.mkdir()
    found = Grid(folder, 2)
    try:
        yield found.wait()
    finally:
        found.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "http://here:80"}, "expected tcp://host:port, tls://host:port or local"),
        ({"address": "tcp://nowhere"}, "expected tcp://host:port"),
        ({"address": "tcp://10.1.2.3:8786"}, "is on another machine and not encrypted; use tls://, or --insecure"),
        ({"address": "tls://10.1.2.3:8786"}, "is encrypted; name --tls-ca, --tls-cert and --tls-key"),
    ],
)
def test_only_what_is_safe_or_insisted_on_is_talked_to(given, words):
    with pytest.raises(ClusterError, match=words):
        Scheduler(**given)
    assert Scheduler("tcp://10.1.2.3:8786", insecure=True).address == "tcp://10.1.2.3:8786"


def test_its_own_scheduler_listens_to_this_machine_only_and_gives_the_same_bytes(tmp_path):
    write_study(tmp_path / "study", 4, Design(times_h=(0.1, 1.0, 5.0), animals=1, in_vivo=False, labels=LABELS[1:2]))
    study = load_study(tmp_path / "study")
    run_study(study, tmp_path / "local", quantify_only=True)
    engine = partial(run_on_cluster, scheduler=Scheduler(OWN), workers=2)
    run_study(study, tmp_path / "dask", quantify_only=True, engine=engine)
    for name in ("observations.csv", "failures.csv", "scans.csv"):
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    shards = [{p.name: p.read_bytes() for p in (tmp_path / where / "scans").iterdir()} for where in ("local", "dask")]
    assert shards[0] == shards[1]


def test_a_killed_worker_loses_no_task(grid, tmp_path):
    tasks = [str(tmp_path)] * 5
    found = run_on_cluster(where, tasks, grid.scheduler)
    first = next(found)
    [worker, *_] = [int(p.stem) for p in tmp_path.glob("*.worker")]
    os.kill(worker, signal.SIGKILL)
    assert sorted([first, *found]) == [(i, "done") for i in range(5)]


def test_a_scheduler_that_is_gone_is_a_sentence_and_what_was_done_is_kept(grid):
    found = run_on_cluster(square, list(range(40)), grid.scheduler)
    kept = [next(found), next(found)]
    assert all(result == i * i for i, result in kept)
    grid.processes[0].kill()
    with pytest.raises(
        ClusterError, match="is gone; what was finished is kept: start it again and run the same command"
    ):
        for _ in found:
            pass


def test_nobody_there_is_a_sentence_by_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", "2s")
    write_study(tmp_path / "study", 4, Design(times_h=(0.1, 1.0, 5.0), animals=1, in_vivo=False, labels=LABELS[1:2]))
    options = ["--out", str(tmp_path / "out"), "--scheduler"]
    result = CliRunner().invoke(main, ["quantify", str(tmp_path / "study"), *options, "tcp://192.0.2.1:8786"])
    assert result.exit_code == 2
    assert "is on another machine and not encrypted" in result.stderr
    result = CliRunner().invoke(main, ["quantify", str(tmp_path / "study"), *options, "tcp://127.0.0.1:9"])
    assert result.exit_code == 2
    assert "no scheduler answers at tcp://127.0.0.1:9" in result.stderr
