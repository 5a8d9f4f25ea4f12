"""A napari window with scans in it: ``python -m napari_evbiodist.view [FILES]``, what `evbiodist view` starts.

A process of its own, because Qt ends the interpreter when it finds no display.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from napari_evbiodist.reader import read_layers
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
    """Show files, or the demo tray when none are named; return the exit status."""
    try:
        layers = [layer for file in files for layer in read_layers(file)] or demo_tray()
        reason = missing_display()
        if reason:
            raise ValueError(reason)
    except (ValueError, OSError) as err:
        sys.stderr.write(f"error: {err}\n")
        return 2
    import napari

    viewer = napari.Viewer(title="evbiodist")
    add_layers(viewer, layers)
    viewer.canvas.overlays.scale_bar.visible = True
    napari.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
