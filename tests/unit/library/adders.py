"""Run as a program: real processes that add to one library at once, are killed, or find no room. Prints what came of it as JSON."""

import json
import os
import random
import resource
import signal
import sys
import time

from made_studies import animals, study

from evbiodist.batch.store import NoRoomError
from evbiodist.library.query import sql
from evbiodist.library.store import add, contents


def incoming(i, version=0):
    return study(f"study {i}", animals([10.0 + i, 12.0 + i + version], label="DiR"), inputs=[f"file {i}"])


def forked(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def values(library):
    return sql(
        contents(library).current, "SELECT study, sum(value) FROM observations GROUP BY study ORDER BY study"
    ).rows


def together(library):
    def each(i):
        add(library, incoming(i))
        add(library, incoming(i, version=1))
        add(library, incoming(100))  # all eight have the same one

    pids = [forked(lambda i=i: each(i)) for i in range(8)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    found = contents(library)
    return {"codes": codes, "current": [(p.study, p.version) for p in found.current], "replaced": len(found.replaced),
            "damaged": found.damaged, "values": values(library)}  # fmt: skip


def kills(library, count):
    dice = random.Random(7)  # noqa: S311
    add(library, incoming(1000))
    began = time.perf_counter()
    os.waitpid(forked(lambda: add(library, incoming(1001))), 0)
    lasts = time.perf_counter() - began
    killed, left, damaged, short, tried = 0, 0, [], 0, 0
    while killed < count and tried < 5 * count:
        pid = forked(lambda i=tried: add(library, incoming(i)))
        time.sleep(dice.uniform(0, lasts))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        left += any(p.name.startswith(".part-") for p in (library / "parts").iterdir())
        found = contents(library)
        damaged += found.damaged
        short += len(found.current) < 2
        tried += 1
    read = len(values(library))
    again = [add(library, incoming(i)).new for i in range(tried)]
    return {"killed": killed, "left": left, "damaged": damaged, "short": short, "new": sum(again), "tried": tried, "read": read,
            "studies": len(contents(library).current), "values": len(values(library)),
            "rest": [p.name for p in (library / "parts").iterdir() if p.name.startswith(".")]}  # fmt: skip


def full(library):
    add(library, incoming(1000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        add(library, study("large", [r for i in range(400) for r in animals([i + 0.123456789, i / 7])]))
        said = ""
    except NoRoomError as err:
        said = str(err)
    return {"said": said, "studies": [p.study for p in contents(library).current],
            "parts": len(list((library / "parts").iterdir()))}  # fmt: skip


if __name__ == "__main__":
    from pathlib import Path

    place = Path(sys.argv[2])
    print(
        json.dumps(
            {"together": together, "kills": lambda p: kills(p, int(sys.argv[3])), "full": full}[sys.argv[1]](place)
        )
    )
