"""How a run grows with its scans: time and memory for 10 to 5,000 small scans, beside plain tifffile and numpy.

    python benchmarks/scaling.py [--scans 10,100,1000,5000] [--workers 2]

A scan is a 64 x 64 tray of four organs with drawn outlines, so reading, writing and bookkeeping count, not fitting.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

ORGANS = ("liver", "spleen", "kidney", "brain")


def make(folder, n):
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    labels = np.zeros((64, 64), np.uint8)
    for i in range(4):
        labels[8 + 32 * (i // 2) : 24 + 32 * (i // 2), 8 + 32 * (i % 2) : 24 + 32 * (i % 2)] = i + 1
    tifffile.imwrite(folder / "organs.tif", labels)
    rows = ["scan,subject,label,time_h,kind,file,organs,pixel_size_mm,gain_e,read_noise_e,bias"]
    animals = ["subject,label,dose,dose_unit,route"]
    for i in range(n):
        image = rng.poisson(100 + 400.0 * labels).astype(np.uint16)
        tifffile.imwrite(folder / "images" / f"{i:05d}.tif", image)
        rows.append(f"s{i:05d},m{i:05d},dye,{1 + i % 5},ex_vivo,images/{i:05d}.tif,organs.tif,0.5,1,3,100")
        animals.append(f"m{i:05d},dye,1000000,p_per_s,iv_bolus")
    (folder / "subjects.csv").write_text("\n".join(animals) + "\n")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    (folder / "study.toml").write_text(
        'name = "scaling"\nspecies = "mouse"\n[labels.dye]\nkind = "fluorescence"\ndescription = "made up"\n'
        '[tables]\nscans = "scans.csv"\nsubjects = "subjects.csv"\n[imaging]\nfootprint = "roi"\n[imaging.organ_labels]\n'
        + "".join(f'{i} = "{name}"\n' for i, name in enumerate(ORGANS, 1)))  # fmt: skip


def plain(folder):
    """Sum the organs of every file as a script would."""
    begin = time.perf_counter()
    labels = tifffile.imread(folder / "organs.tif")
    out = [np.bincount(labels.ravel(), weights=tifffile.imread(p).ravel(), minlength=5)
           for p in sorted((folder / "images").glob("*.tif"))]  # fmt: skip
    np.savetxt(folder / "plain.csv", out, delimiter=",")
    return time.perf_counter() - begin


def run(folder, out, workers):
    command = [sys.executable, __file__, "--one", str(folder), str(out), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def one(folder, out, workers):
    """Run in a process of its own and tell when scans ended and how much memory the parent took."""
    from pathlib import Path

    from evbiodist.batch.pipeline import run_study
    from evbiodist.study.load import load_study

    begin = time.perf_counter()
    seen = {}

    def tell(event):
        seen.setdefault(event["event"], time.perf_counter())
        seen[f"{event['event']} last"] = time.perf_counter()
        if event["event"] == "scan" and event["done"] == 1:
            seen["first"] = time.perf_counter()

    study = load_study(folder)
    loaded = time.perf_counter()
    result = run_study(study, Path(out), workers=int(workers), quantify_only=True, progress=tell)
    end = time.perf_counter()
    assert len(result.observations) == 4 * len(study.scans), result.failures[:2]
    print(json.dumps({"total": end - begin, "load": loaded - begin, "first": seen.get("first", begin) - begin,
                      "scans": seen["scan last"] - seen.get("first", begin), "tables": end - seen["scan last"],
                      "parent_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))  # fmt: skip


def no_op(_):
    return None


def overhead():
    """Return ms per task that does nothing."""
    from evbiodist.batch.engine import run_tasks

    list(run_tasks(no_op, [0] * 10))
    found = []
    for _ in range(5):
        begin = time.perf_counter()
        list(run_tasks(no_op, [0] * 1000))
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--scans", default="10,100,1000,5000")
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = given.parse_args()
    if asked.one:
        one(*asked.one)
        return
    sys.path.insert(0, str(Path(__file__).parent))
    import scaling

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    print(f"a task that does nothing: {scaling.overhead():.2f} ms")
    columns = ("scans", "total, s", "first scan after, s", "a scan, ms", "tables, s", "memory of the parent, MiB",
               "again, ms a scan", "plain, ms")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for n in (int(n) for n in asked.scans.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "study"
            make(folder, n)
            found = run(folder, Path(name) / "out", asked.workers)
            again = run(folder, Path(name) / "out", asked.workers)
            cells = (f"{n}", f"{found['total']:.1f}", f"{found['first']:.1f}", f"{1e3 * found['scans'] / max(n - 1, 1):.1f}",
                     f"{found['tables']:.1f}", f"{found['parent_mib']:.0f}", f"{1e3 * again['total'] / n:.1f}",
                     f"{1e3 * plain(folder) / n:.2f}")  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
