"""A cleared mouse of 16 GB under a cap of 1 GiB a worker: time, memory and throughput beside plain zarr and numpy.

    python benchmarks/big_volume.py [--gb 16] [--workers 2] [--memory-gb 1] [--footprint roi] [--keep FOLDER]

The volume is an OME-Zarr with its organs in a second one. Plain zarr and numpy read the same chunks and sum the same
labels, in one process, without background, noise or errors: the least that any program would do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zarr

from evbiodist.io.ome_zarr import write_ome_zarr
from evbiodist.io.scan import Camera, Scan
from evbiodist.io.stream import LazyArray

CHUNK = (64, 256, 256)
PLANE = (2048, 2048)
ORGANS = {1: "liver", 2: "spleen", 3: "kidney", 4: "brain", 5: "lung"}
CENTRES = {1: (0.3, 0.35, 0.4, 0.16), 2: (0.35, 0.62, 0.7, 0.07), 3: (0.6, 0.3, 0.75, 0.08), 4: (0.8, 0.5, 0.3, 0.12),
           5: (0.5, 0.7, 0.25, 0.1)}  # fmt: skip


class Made(LazyArray):
    """A mouse that is made when it is read: ellipsoids in noise that repeats itself every chunk."""

    def __init__(self, deep, labels):
        self.shape, self.labels = (deep, *PLANE), labels
        self.dtype = np.dtype(np.uint8 if labels else np.uint16)
        self.chunks = CHUNK
        self.noise = np.random.default_rng(5).poisson(40.0, CHUNK).astype(np.uint16)

    def _take(self, index):
        z, y, x = (np.arange(*k.indices(n)) if isinstance(k, slice) else np.array([k])
                   for k, n in zip(index, self.shape, strict=True))  # fmt: skip
        found = np.zeros((len(z), len(y), len(x)), np.uint8)
        for value, (cz, cy, cx, radius) in CENTRES.items():
            parts = (((at / n - c) / radius) ** 2 for at, n, c in zip((z, y, x), self.shape, (cz, cy, cx), strict=True))
            dz, dy, dx = parts
            if dz.min() + dy.min() + dx.min() < 1:
                found[dz[:, None, None] + dy[:, None] + dx < 1] = value
        if not self.labels:
            noise = self.noise[np.ix_(z % CHUNK[0], y % CHUNK[1], x % CHUNK[2])]
            found = noise + np.array([100, 500, 260, 380, 160, 220], np.uint16)[found]
        return found[tuple(0 if not isinstance(k, slice) else slice(None) for k in index)]


def make(folder, gb, footprint):
    deep = max(int(gb * 2**30 / (2 * PLANE[0] * PLANE[1])) // CHUNK[0] * CHUNK[0], CHUNK[0])
    folder.mkdir(parents=True)
    camera = Camera(gain_e=1.0, read_noise_e=3.0, bias=100.0)
    about = {"pixel_size_mm": (0.01, 0.01), "slice_mm": 0.01}
    write_ome_zarr(
        folder / "mouse.zarr", Scan("m", None, Made(deep, False), "ZYX", camera=camera, offset=100.0, **about), CHUNK
    )
    write_ome_zarr(folder / "organs.zarr", Scan("o", None, Made(deep, True), "ZYX", **about), CHUNK)
    (folder / "subjects.csv").write_text("subject,label,dose,dose_unit,route\nm1,mCherry,1e10,particles,iv_bolus\n")
    (folder / "scans.csv").write_text(
        "scan,subject,label,time_h,kind,file,organs\nmouse,m1,mCherry,4,volume,mouse.zarr,organs.zarr\n"
    )
    (folder / "study.toml").write_text(
        'name = "cleared mouse"\nspecies = "mouse"\n[labels.mCherry]\nkind = "fluorescence"\nemission_nm = 610\n'
        f'[tables]\nsubjects = "subjects.csv"\nscans = "scans.csv"\n[imaging]\nfootprint = "{footprint}"\n'
        + ("psf_fwhm_px = 2.0\n" if footprint == "psf" else "")
        + "[imaging.organ_labels]\n" + "".join(f'{v} = "{n}"\n' for v, n in ORGANS.items()))  # fmt: skip


def plain(folder):
    """Sum every organ's voxels as a script would."""
    counts, labels = (zarr.open_group(folder / name, mode="r")["0"] for name in ("mouse.zarr", "organs.zarr"))
    total = np.zeros(len(ORGANS) + 1)
    begin = time.perf_counter()
    for z in range(0, counts.shape[0], CHUNK[0]):
        for y in range(0, counts.shape[1], 2 * CHUNK[1]):
            box = (slice(z, z + CHUNK[0]), slice(y, y + 2 * CHUNK[1]))
            total += np.bincount(labels[box].ravel(), weights=counts[box].ravel(), minlength=len(total))
    return time.perf_counter() - begin


def descendants(pid):
    """Yield (process, peak of its resident memory in MiB) of everything that a process started."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            about = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
        except (OSError, ValueError):
            continue
        if int(about["PPid"]) == pid:
            yield int(entry.name), int(about.get("VmHWM", "0 kB").split()[0]) / 1024
            yield from descendants(int(entry.name))


def run(folder, out, workers, memory_gb):
    command = [sys.executable, "-m", "evbiodist", "run", str(folder), "--out", str(out), "--workers", str(workers),
               "--memory-gb", str(memory_gb), "--json"]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    peaks, parent, going = {}, [0.0], [True]

    def watch():
        while going[0]:
            for pid, peak in descendants(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), peak)
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                parent[0] = max(parent[0], int(status.split("VmHWM:")[1].split()[0]) / 1024)
            except (OSError, IndexError):
                pass
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    told, first = [], None
    for line in process.stdout:
        event = json.loads(line)
        told.append(event)
        if event.get("event") == "part" and first is None:
            first = time.perf_counter() - begin
    code = process.wait()
    going[0] = False
    thread.join()
    parts = [e for e in told if e.get("event") == "part"]
    return {"code": code, "s": time.perf_counter() - begin, "first part after": first, "parts": len(parts) and parts[-1]["total"],
            "workers": sorted(peaks.values()), "parent": parent[0]}  # fmt: skip


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--gb", type=float, default=16.0)
    given.add_argument("--workers", type=int, default=2)
    given.add_argument("--memory-gb", type=float, default=1.0)
    given.add_argument("--footprint", choices=("roi", "psf"), default="roi")
    given.add_argument("--keep", type=Path, help="folder of a study to make once and use again")
    asked = given.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name) / "study"
        if not (folder / "study.toml").is_file():
            begin = time.perf_counter()
            make(folder, asked.gb, asked.footprint)
            print(f"made in {time.perf_counter() - begin:.0f} s", flush=True)
        voxels = zarr.open_group(folder / "mouse.zarr", mode="r")["0"].size
        on_disk = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        print(f"{voxels * 2 / 2**30:.1f} GiB of voxels, {on_disk / 2**30:.1f} GiB on disk with organs", flush=True)
        found = run(folder, Path(name) / "out", asked.workers, asked.memory_gb)
        print(json.dumps(found), flush=True)
        rows = (Path(name) / "out" / "observations.csv").read_text().splitlines()
        print("\n".join(rows), flush=True)
        seconds = plain(folder)
        print(
            f"plain zarr and numpy, one process: {seconds:.0f} s, {voxels * 2 / 2**20 / seconds:.0f} MiB/s", flush=True
        )
        print(f"evbiodist, {asked.workers} workers: {found['s']:.0f} s, {voxels * 2 / 2**20 / found['s']:.0f} MiB/s, "
              f"workers at most {max(found['workers']):.0f} MiB, parent {found['parent']:.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
