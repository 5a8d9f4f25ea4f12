"""Kill runs with SIGKILL at random moments, take them up, and compare every byte with an undisturbed run.

python benchmarks/kills.py [--kills 100] [--seed 1] [--workers 2] [--scheduler local]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evbiodist.batch.verify import verify
from evbiodist.phantom.study import LABELS, Design, write_study

TABLES = ("observations", "parameters", "agreement", "consensus", "curves", "failures", "scans")


def start(study, out, options):
    command = [sys.executable, "-m", "evbiodist", "run", str(study), "--out", str(out), "--quiet", *options]
    return subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def bytes_of(out):
    files = [out / f"{name}.csv" for name in TABLES] + [out / "report.html", *sorted((out / "scans").iterdir())]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--kills", type=int, default=100)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--scheduler", default=None)
    asked = given.parse_args()
    options = ["--workers", str(asked.workers)] + (["--scheduler", asked.scheduler] if asked.scheduler else [])
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(
            folder / "study", 3, Design(times_h=(0.083, 1.0, 8.0), animals=2, in_vivo=False, labels=LABELS[1:3])
        )
        begin = time.perf_counter()
        whole = start(folder / "study", folder / "whole", options).wait()
        took = time.perf_counter() - begin
        expected = bytes_of(folder / "whole")
        assert whole == 0
        kills = runs = 0
        states = {"before the first scan": 0, "among scans": 0, "after the last scan": 0}
        while kills < asked.kills:
            out = folder / f"out{runs}"
            while True:
                process = start(folder / "study", out, options)
                try:
                    process.wait(timeout=chance.uniform(0.0, took))
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    done = len(list((out / "scans").glob("*.json"))) if (out / "scans").is_dir() else 0
                    states[
                        "before the first scan" if done == 0 else "among scans" if done < 12 else "after the last scan"
                    ] += 1
                if kills >= asked.kills:
                    process = start(folder / "study", out, options)
                    process.wait()
                    break
            assert process.returncode == 0, process.returncode
            found = bytes_of(out)
            assert found == expected, sorted(k for k in expected if found.get(k) != expected[k])
            assert not list(out.rglob(".part-*"))
            assert verify(out).findings == ()
            runs += 1
        print(
            f"undisturbed run: {took:.1f} s with {' '.join(options)}; {kills} kills over {runs} completed runs; all bytes the same"
        )
        print(", ".join(f"{n} {where}" for where, n in states.items()))


if __name__ == "__main__":
    main()
