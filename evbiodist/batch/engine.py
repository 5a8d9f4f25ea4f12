"""Running many scans: in processes of this machine that may die without losing a scan, or on a dask cluster."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from evbiodist.batch.child import Child, Limits

Task = TypeVar("Task")
Result = TypeVar("Result")

_IMPORTS = ("evbiodist.batch.animals",)
#: Processes that wait for the next run, by their limits: loading the libraries anew takes seconds.
_IDLE: dict[Any, list[Child]] = {}
_HELD = threading.Lock()


def one_thread() -> threadpool_limits:
    """Hold BLAS to one thread: faster for small matrices, and the number of threads changes bits.

    Limits reach only libraries that are loaded, and numpy and scipy each bring their own.
    """
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    return threadpool_limits(1)


#: What runs a function over tasks: `run_tasks` or `run_on_cluster` with their further arguments given.
Engine = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[tuple[int, Any]]]


def limits_for(workers: int, memory_gb: float | None = None, seconds: float = 3600.0) -> Limits:
    """Return what each of some processes may use: by default their share of four fifths of this machine's memory.

    Examples
    --------
    >>> limits_for(2, 1.5).memory_bytes == int(1.5 * 2**30)
    True
    """
    from evbiodist.batch.child import Limits

    if memory_gb is not None:
        return Limits(int(memory_gb * 2**30), seconds)
    try:
        here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return Limits(None, seconds)
    return Limits(max(int(0.8 * here / max(workers, 1)), 1 << 30), seconds)


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1, limits: Limits | None = None
) -> Iterator[tuple[int, Result | BaseException]]:
    """Run a function over tasks in other processes and yield (position, result or exception) as they end.

    Parameters
    ----------
    function : importable by name; tasks : picklable.
    workers : processes.
    limits : of each; a task that goes over them fails and its process is replaced.

    Yields
    ------
    (int, result or exception) : a task whose process died is tried once more alone before it counts as failed.
    """
    lost: list[int] = []
    for i, outcome in _share(function, tasks, range(len(tasks)), workers, limits):
        if _died(outcome):
            lost.append(i)
        else:
            yield i, outcome
    for i in lost:
        for _, outcome in _share(function, tasks, [i], 1, limits):
            if _died(outcome):
                outcome = RuntimeError("its worker process died twice (out of memory, or a damaged file that crashes the "
                                       "decoder); export the file again")  # fmt: skip
            yield i, outcome


def _died(outcome: object) -> bool:
    from evbiodist.batch.child import ChildDiedError, ChildLateError

    return isinstance(outcome, ChildDiedError) and not isinstance(outcome, ChildLateError)


def _share(
    function: Callable[[Task], Result], tasks: Sequence[Task], which: Sequence[int], workers: int, limits: Limits | None
) -> Iterator[tuple[int, Result | BaseException]]:
    """Let processes take tasks in turn; whoever stops listening stops them."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in which:
        todo.put(i)
    done: queue.SimpleQueue[tuple[int, Result | BaseException]] = queue.SimpleQueue()
    children = [_borrow(limits) for _ in range(min(max(workers, 1), len(which)))]
    going = threading.Event()
    going.set()

    def serve(child: Child) -> None:
        while going.is_set():
            try:
                i = todo.get_nowait()
            except queue.Empty:
                return
            done.put((i, _attempt(child, function, tasks[i])))

    threads = [threading.Thread(target=serve, args=(child,), daemon=True) for child in children]
    for thread in threads:
        thread.start()
    waiting = len(which)
    try:
        while waiting:
            waiting -= 1
            yield done.get()
    finally:
        going.clear()
        if waiting:
            for child in children:
                child.cancel()
        for thread in threads:
            thread.join()
        _give_back(children)


def _attempt(child: Child, function: Callable[[Task], Result], task: Task) -> Result | BaseException:
    try:
        return child.call(function, task)
    except Exception as err:  # one scan's failure is a row, never the end of the run
        return err


def _borrow(limits: Limits | None) -> Child:
    from evbiodist.batch.child import Child, Limits

    with _HELD:
        idle = _IDLE.get(limits or Limits())
        return idle.pop() if idle else Child(_IMPORTS, limits)


def _give_back(children: Sequence[Child]) -> None:
    """Keep processes for the next run, as many as this machine has processors."""
    with _HELD:
        for child in children:
            idle = _IDLE.setdefault(child.limits, [])
            if len(idle) < (os.cpu_count() or 1):
                idle.append(child)
            else:
                child.close()
