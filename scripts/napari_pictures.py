"""Make the pictures of the napari panels in docs/pictures from the demo study, or from a folder of your own.

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/napari_pictures.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/napari_pictures.py --images CLICK --out somewhere

Pictures of images that are not ours are looked at and not kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

SCAN, ANIMAL = "NanoLuc_0.5h_1", "NanoLuc_followed_0.5h"


def settle(bench, seconds=240.0):
    """Let the window work until nothing is under way."""
    from qtpy.QtWidgets import QApplication

    until = time.monotonic() + seconds
    while (bench.jobs or (bench.program is not None and bench.program.running)) and time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.01)
    quiet = time.monotonic() + 1.5  # timers of the panels
    while time.monotonic() < quiet or bench.jobs:
        QApplication.processEvents()
        time.sleep(0.01)


class Studio:
    """A viewer with all panels, and where its pictures go."""

    def __init__(self, out: Path) -> None:
        import napari
        from napari_evbiodist.bench import Bench
        from napari_evbiodist.panels.all_panels import dock_name, open_all

        self.out, self.dock_name = out, dock_name
        self.viewer = napari.Viewer(title="evbiodist")
        self.viewer.window.resize(1560, 980)
        open_all(self.viewer)
        self.bench = Bench.of(self.viewer)

    def panel(self, title):
        """Bring a panel to the front and return it."""
        dock = self.viewer.window._wrapped_dock_widgets[self.dock_name(title)]
        dock.raise_()
        return dock.inner_widget()

    def shoot(self, name):
        """Take a picture of the window."""
        settle(self.bench)
        self.viewer.screenshot(str(self.out / f"napari_{name}.png"), canvas_only=False, flash=False)
        print(self.out / f"napari_{name}.png", flush=True)


def demo(studio):
    """Show every panel at work on the demo study."""
    from evbiodist.sample import DEMO, copy_sample

    bench = studio.bench
    bench.open(copy_sample(DEMO, Path(tempfile.mkdtemp()) / "demo"))
    settle(bench)
    bench.show(SCAN)
    studio.panel("Study")
    studio.shoot("study")
    bench.show(ANIMAL)
    settle(bench)
    organs = studio.panel("Organs")
    organs.way.setCurrentIndex(organs.way.findData("atlas"))
    organs.find()
    settle(bench)
    organs.choose(next(row for row in organs.table.rows.rows if row["organ"] == "liver"))
    organs.show_probability()
    studio.shoot("organs")
    organs.undo()
    bench.show(SCAN)
    settle(bench)
    curves = studio.panel("Curves")
    curves.measure_all()
    settle(bench)
    bench.pick("liver")
    curves.left.click()
    studio.shoot("curves")
    curves.left.click()
    kinetics = studio.panel("Kinetics")
    kinetics.analyse()
    settle(bench)
    kinetics.tabs.setCurrentIndex(1)
    studio.shoot("kinetics")
    kinetics.tabs.setCurrentIndex(3)
    studio.shoot("labels")
    batch = studio.panel("Batch")
    batch.start()
    settle(bench)
    studio.shoot("batch")


def images(studio, path):
    """Show images that no study describes, as their owner would."""
    bench, study = studio.bench, studio.panel("Study")
    copy = shutil.copytree(path, Path(tempfile.mkdtemp()) / "click")
    bench.open(copy)
    studio.shoot("images_study")
    study.fields["subject"].setText("m1;m2;m3;m4;m5")
    study.fields["label"].setText("luciferin/Fluc")
    study.fields["time_h"].setText("0.25")
    study.kind.setCurrentText("in_vivo")
    study.tell()
    settle(bench)
    studio.panel("Organs")
    studio.shoot("images_organs")
    curves = studio.panel("Curves")
    curves.measure_all()
    studio.shoot("images_curves")


def main():
    """Take the pictures that were asked for."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--images", type=Path, default=None)
    given.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    asked = given.parse_args()
    os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))
    studio = Studio(asked.out)
    if asked.images is None:
        demo(studio)
    else:
        images(studio, asked.images)
    studio.bench.close()
    studio.viewer.close()


if __name__ == "__main__":
    main()
