"""A 20 GB OME-Zarr series of volumes in the viewer: how it opens, and whether the window stays alive while it is measured.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_big.py [--gb 20] [--rounds 3]

The series is declared whole and written only where organs lie, in the first frames: what is absent is background,
so it needs little disk.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

CHUNK = 64
ORGANS = {1: "liver", 2: "kidney", 3: "brain"}


def make(folder, gb):
    """Write a study with one series of volumes, its pyramid and its organs; return the series' shape."""
    import zarr

    side = 4 * CHUNK
    shape = (max(int(gb * 1e9 / 2 / side**3), 2), side, side, side)
    root = zarr.open_group(folder / "volume.zarr", mode="w", zarr_format=2)
    rng = np.random.default_rng(1)
    sets = []
    for number, scale in enumerate((1, 2)):
        n = side // scale
        level = root.create_array(
            str(number), shape=(shape[0], n, n, n), chunks=(1, CHUNK, CHUNK, CHUNK), dtype="u2", fill_value=100
        )
        for value in ORGANS:
            at = (value - 1) * CHUNK // scale
            few = min(5, shape[0])
            blob = rng.poisson(500 * value, (few, *(CHUNK // scale,) * 3)).astype("u2")
            level[:few, at : at + CHUNK // scale, : CHUNK // scale, : CHUNK // scale] = blob
        steps = [0.1, *[0.1 * scale] * 3]
        sets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": steps}]})
    space = [{"name": a, "type": "space", "unit": "millimeter"} for a in "zyx"]
    time_axis = {"name": "t", "type": "time", "unit": "hour"}
    root.attrs["multiscales"] = [{"version": "0.4", "axes": [time_axis, *space], "datasets": sets, "name": "volume"}]
    organs = zarr.open_group(folder / "organs.zarr", mode="w", zarr_format=2)
    labels = organs.create_array("0", shape=shape[1:], chunks=(CHUNK,) * 3, dtype="u1", fill_value=0)
    for value in ORGANS:
        labels[(value - 1) * CHUNK : value * CHUNK, :CHUNK, :CHUNK] = value
    one = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.1] * 3}]}]
    organs.attrs["multiscales"] = [{"version": "0.4", "axes": space, "datasets": one, "name": "organs"}]
    (folder / "scans.csv").write_text(
        "scan,subject,label,time_h,kind,file,organs\nvolume,m1,dye,24,volume,volume.zarr,organs.zarr\n"
    )
    (folder / "subjects.csv").write_text("subject,label,dose,dose_unit,route\nm1,dye,1000000,p_per_s,iv_bolus\n")
    (folder / "study.toml").write_text(
        'name = "big"\nspecies = "mouse"\n[labels.dye]\nkind = "fluorescence"\ndescription = "made up"\n'
        '[tables]\nscans = "scans.csv"\n'
        'subjects = "subjects.csv"\n[imaging]\nfootprint = "roi"\n[imaging.organ_labels]\n'
        + "".join(f'{v} = "{n}"\n' for v, n in ORGANS.items()))  # fmt: skip
    return shape


class Pulse:
    """A timer of 10 ms that notes how long the window's thread was away."""

    def __init__(self):
        from qtpy.QtCore import QTimer

        self.timer, self.last, self.gaps = QTimer(), time.perf_counter(), []
        self.timer.timeout.connect(self.beat)
        self.timer.start(10)

    def beat(self):
        now = time.perf_counter()
        self.gaps.append(now - self.last)
        self.last = now

    def longest(self):
        found, self.gaps, self.last = max(self.gaps, default=0.0), [], time.perf_counter()
        return found


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def once(folder, seconds):
    """Open, measure while planes are leafed through, and return what was seen."""
    import napari
    from napari_evbiodist.bench import Bench
    from napari_evbiodist.panels.all_panels import open_all
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    open_all(viewer)
    bench = Bench.of(viewer)

    def settle(step=lambda: None, seconds=900):
        until = time.monotonic() + seconds
        while bench.jobs and time.monotonic() < until:
            QApplication.processEvents()
            step()
            time.sleep(0.001)

    until = time.monotonic() + 4  # the window itself is drawn for the first time
    while time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.001)
    before, begin = resident(), time.perf_counter()
    pulse = Pulse()
    bench.open(folder)
    settle()
    opened, block_open, memory = time.perf_counter() - begin, pulse.longest(), resident() - before
    for _ in range(100):
        QApplication.processEvents()
        time.sleep(0.01)
    pulse.longest()
    begin = time.perf_counter()
    bench.measure(["volume"])
    settle(seconds=seconds)
    took, block = time.perf_counter() - begin, pulse.longest()
    bench.close()  # what is asked is how the window does meanwhile
    settle()
    done = "volume" in bench.session.measured()
    moved = []
    for plane in np.linspace(0, viewer.dims.nsteps[0] - 1, 25).astype(int):
        begin = time.perf_counter()
        viewer.dims.set_current_step(0, int(plane))
        QApplication.processEvents()
        moved.append(time.perf_counter() - begin)
    bench.close()
    viewer.close()
    return {"open, s": opened, "longest block while opening, ms": 1e3 * block_open, "memory, MiB": memory,
            "measured for, s": took, "ended": done, "longest block while measuring, ms": 1e3 * block,
            "a plane by the slider, median ms": 1e3 * statistics.median(moved),
            "a plane by the slider, most ms": 1e3 * max(moved)}  # fmt: skip


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--gb", type=float, default=20.0)
    given.add_argument("--rounds", type=int, default=3)
    given.add_argument("--seconds", type=float, default=60.0, help="how long the window is watched while it measures")
    asked = given.parse_args()
    os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))
    with tempfile.TemporaryDirectory() as name:
        shape = make(Path(name), asked.gb)
        print(f"series {shape}, {2 * np.prod(shape) / 1e9:.1f} GB declared", flush=True)
        found = []
        for _ in range(asked.rounds):
            told = once(Path(name), asked.seconds)
            print(told, flush=True)
            found.append(told)
    print("| what | median |\n|---|---|")
    for key in found[0]:
        print(f"| {key} | {statistics.median(f[key] for f in found):.3g} |")


if __name__ == "__main__":
    main()
