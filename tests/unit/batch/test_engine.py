"""The engine: a task's failure or its worker's death touches no other task."""

import os
import signal

import pytest

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
