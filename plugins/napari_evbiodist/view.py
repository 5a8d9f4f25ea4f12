"""A napari window with all panels: ``python -m napari_evbiodist.view [STUDY | FILES]``, what `evbiodist view` starts.

A process of its own, because Qt ends the interpreter when it finds no display.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evbiodist.study.load import load_study
from napari_evbiodist.reader import read_layers, study_file
from napari_evbiodist.sample_data import demo_tray

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.types import FullLayerData


def add_layers(viewer: ViewerModel, layers: Iterable[FullLayerData]) -> list[Layer]:
    """Add layers to a viewer, organs as outlines, which a layer tuple cannot ask for."""
    from napari.layers import Labels, Layer

    added = [viewer.add_layer(Layer.create(*layer)) for layer in layers]
    for layer in added:
        if isinstance(layer, Labels):
            layer.contour, layer.opacity = 1, 1.0
    return added


def missing_display() -> str:
    """Return why no window can be opened here, or nothing."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display for a window; on a server, start it with xvfb-run or log in with ssh -X"
    return ""


def main(files: Sequence[str]) -> int:
    """Show a study, images, or the demo tray when none are named, with all panels; return the exit status."""
    from napari_evbiodist import jobs

    jobs.lane("quick").start()  # it loads while the window does
    try:
        study = _only_study(files)
        if study is not None:
            load_study(str(study_file(study)))  # what is wrong with it belongs on the terminal
        images = [file for file in files if study_file(file) is None]
        layers = [layer for file in images for layer in read_layers(file)] if files else demo_tray()
        reason = missing_display()
        if reason:
            raise ValueError(reason)
    except (ValueError, OSError) as err:
        sys.stderr.write(f"error: {err}\n")
        return 2
    import napari

    from napari_evbiodist.bench import Bench
    from napari_evbiodist.panels.all_panels import open_all

    viewer = napari.Viewer(title="evbiodist")
    add_layers(viewer, layers)
    viewer.canvas.overlays.scale_bar.visible = True
    open_all(viewer)
    if study is not None:
        Bench.of(viewer).open(study)
    napari.run()
    return 0


def _only_study(files: Sequence[str]) -> Path | None:
    """Return the study, or result folder, among what is to be opened.

    Raises
    ------
    ValueError : there are several.
    """
    studies = [Path(file) for file in files if study_file(file) is not None]
    if len(studies) > 1:
        raise ValueError(
            f"a window shows one study, found {len(studies)}: {', '.join(s.name for s in studies)}; open a window each"
        )
    return studies[0] if studies else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
