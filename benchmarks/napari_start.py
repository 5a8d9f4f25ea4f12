"""From the command to a window that can be used: all panels open and the study's first scan drawn with its organs.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_start.py [--rounds 3]

Every round is a process of its own; the clock starts before Python does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_WATCHED = """
import sys, time
import napari
from napari_evbiodist import view
from napari_evbiodist.bench import Bench

def wait():
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication
    viewer = napari.current_viewer()
    bench = Bench.of(viewer)
    def look():
        if bench.current is not None and not bench.jobs and bench.organs_layer() is not None:
            viewer.screenshot(canvas_only=True, flash=False)
            print(time.time(), flush=True)
            bench.close()
            QApplication.quit()
    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(50)
    loop()

loop, napari.run = napari.run, wait
sys.exit(view.main([sys.argv[1]]))
"""


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rounds", type=int, default=3)
    asked = given.parse_args()
    from evbiodist.sample import DEMO, copy_sample

    found = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as name:
            study = copy_sample(DEMO, Path(name) / "demo")
            about = {**os.environ, "NAPARI_CONFIG": str(Path(name) / "settings.yaml")}
            about.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed, modules are compiled once
            begin = time.time()
            done = subprocess.run(
                [sys.executable, "-c", _WATCHED, str(study)], env=about, capture_output=True, text=True
            )
            found.append(float(done.stdout.split()[-1]) - begin)
            print(f"{found[-1]:.1f} s", flush=True)
    print(f"usable after {statistics.median(found):.1f} s (median of {len(found)})")


if __name__ == "__main__":
    main()
