"""Running many scans: in this process, or in several that may die without losing a scan."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")


def one_thread() -> threadpool_limits:
    """Hold BLAS to one thread: faster for small matrices, and the number of threads changes bits.

    Limits reach only libraries that are loaded, and numpy and scipy each bring their own.
    """
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    return threadpool_limits(1)


def _start_worker() -> None:
    one_thread()


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1
) -> Iterator[tuple[int, Result | BaseException]]:
    """Run a function over tasks and yield (position, result or exception) as they end.

    Parameters
    ----------
    function : importable by name; tasks : picklable.
    workers : 1 runs in this process.

    Yields
    ------
    (int, result or exception) : a task whose worker died is tried once more alone before it counts as failed.
    """
    if workers <= 1 or len(tasks) <= 1:
        with one_thread():
            for i, task in enumerate(tasks):
                yield i, _attempt(function, task)
        return
    lost: list[int] = []
    for i, outcome in _pool(function, tasks, list(range(len(tasks))), workers):
        if isinstance(outcome, BrokenProcessPool):
            lost.append(i)
        else:
            yield i, outcome
    for i in lost:
        for _, outcome in _pool(function, tasks, [i], 1):
            if isinstance(outcome, BrokenProcessPool):
                outcome = RuntimeError("its worker process died twice (out of memory, or a damaged file that "
                                       "crashes the decoder); export the file again")  # fmt: skip
            yield i, outcome


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | BaseException:
    try:
        return function(task)
    except Exception as err:  # one scan's failure is a row, never the end of the run
        return err


def _pool(
    function: Callable[[Task], Result], tasks: Sequence[Task], which: list[int], workers: int
) -> Iterator[tuple[int, Result | BaseException]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(which)), mp_context=context, initializer=_start_worker) as pool:
        waiting: dict[Future[Result], int] = {}
        for i in which:
            try:
                waiting[pool.submit(function, tasks[i])] = i
            except BrokenProcessPool as err:
                yield i, err
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                i = waiting.pop(future)
                error = future.exception()
                yield i, future.result() if error is None else error
