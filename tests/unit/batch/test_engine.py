"""The engine: a task's failure or its worker's death touches no other task."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evbiodist.batch.child import Limits
from evbiodist.batch.engine import run_tasks


def work(task):
    if task == "fail":
        raise ValueError("in words")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return task.upper()


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_stay_with_their_task(workers):
    tasks = ["a", "fail", "b", "c"]
    found = dict(run_tasks(work, tasks, workers))
    assert [found[i] for i in (0, 2, 3)] == ["A", "B", "C"]
    assert str(found[1]) == "in words"


def test_a_dying_worker_loses_no_other_task():
    tasks = [*"abc", "die", *"defgh"]
    found = dict(run_tasks(work, tasks, 2))
    assert "its worker process died twice" in str(found[3])
    assert [found[i] for i in range(9) if i != 3] == list("ABCDEFGH")


def stay(folder):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def measured_in(folder):
    return os.getpid(), os.getcwd(), folder


def take(gigabytes):
    return len(bytearray(int(gigabytes * 2**30)))


def test_the_workers_of_a_run_that_was_killed_end_with_it(tmp_path):
    script = "import sys; from test_engine import *; list(run_tasks(stay, [sys.argv[1]] * 2, 2))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert all(runs(worker) for worker in workers)
    run.kill()
    run.wait()
    wait_until(lambda: not any(runs(worker) for worker in workers))


def test_whoever_stops_listening_stops_the_work(tmp_path):
    found = run_tasks(stay_unless_none, [None, str(tmp_path), str(tmp_path)], 2)
    assert next(found) == (0, None)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) >= 1)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    found.close()
    wait_until(lambda: not any(runs(worker) for worker in workers))


def stay_unless_none(folder):
    return None if folder is None else stay(folder)


def test_processes_are_used_again_where_the_caller_is_now(tmp_path, monkeypatch):
    [(_, first)] = run_tasks(measured_in, ["a"])
    monkeypatch.chdir(tmp_path)
    [(_, again)] = run_tasks(measured_in, ["b"])
    assert again == (first[0], str(tmp_path), "b")
    assert first[0] != os.getpid()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds a process' memory")
def test_a_task_over_the_memory_limit_fails_alone():
    found = dict(run_tasks(take, [0.01, 3.0, 0.02], 1, Limits(memory_bytes=1 << 30)))
    assert "needs more memory than a process may use" in str(found[1])
    assert [found[0], found[2]] == [int(0.01 * 2**30), int(0.02 * 2**30)]


def test_a_task_that_hangs_is_ended_and_the_others_go_on(tmp_path):
    found = dict(run_tasks(stay_unless_none, [None, str(tmp_path), None], 1, Limits(seconds=1.0)))
    assert "it took longer than 1 s" in str(found[1])
    assert [found[0], found[2]] == [None, None]


def wait_until(true):
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def runs(process):
    """Return whether a process is there and not just waiting to be buried."""
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
