"""Time several ways to do one job in turns, so that a noisy machine is noisy to all of them alike.

No benchmark here is a test: nothing fails because a machine was slow. Only disagreement in the answers fails.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from threadpoolctl import threadpool_limits


def medians(ways: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Return the median seconds of each way over `repeats` rounds; checking the answers has warmed them up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with threadpool_limits(1):
        for _ in range(repeats):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(job: str, seconds: Mapping[str, float], reference: str) -> None:
    """Print one row a way: its time, and that time over ours (above 1 it is slower than ours)."""
    print(f"\n{job}")
    for name, value in seconds.items():
        print(f"  {name:<52} {_readable(value):>10}   {value / seconds[reference]:8.2f} x")


def _readable(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
