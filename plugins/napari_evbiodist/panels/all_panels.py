"""All panels at once, as tabs beside the picture in the order of the work."""

from importlib import import_module
from typing import Any

import napari
from qtpy.QtCore import QTimer

#: Modules and classes of the panels, by title, in the order of the tabs.
PANELS = {
    "Study": "napari_evbiodist.panels.study_panel:StudyPanel",
    "Organs": "napari_evbiodist.panels.organs_panel:OrgansPanel",
    "Curves": "napari_evbiodist.panels.curves_panel:CurvesPanel",
    "Kinetics": "napari_evbiodist.panels.kinetics_panel:KineticsPanel",
    "Batch": "napari_evbiodist.panels.batch_panel:BatchPanel",
}


# without quotes and without `from __future__ import annotations`: napari looks for the viewer by the annotation
def open_all(viewer: napari.Viewer) -> None:
    """Open all panels as tabs on the right, the study in front; those that are open stay as they are."""
    window, docks = viewer.window, {}
    for title, place in PANELS.items():
        there: Any = window.dock_widgets.get(dock_name(title))
        if there is not None:
            docks[title] = there.parent()
            docks[title].show()
            continue
        module, _, name = place.partition(":")
        panel = getattr(import_module(module), name)(viewer)
        docks[title] = window.add_dock_widget(panel, name=dock_name(title), area="right", tabify=bool(docks))
    QTimer.singleShot(0, docks["Study"].raise_)  # Qt makes the tabs when it lays the window out


def dock_name(title: str) -> str:
    """Return the name that napari gives a panel which is opened by its menu, so that none is opened twice.

    Examples
    --------
    >>> dock_name("Study")
    'Study (evbiodist)'
    """
    return f"{title} (evbiodist)"
