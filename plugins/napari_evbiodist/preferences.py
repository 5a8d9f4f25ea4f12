"""What the user set for the plugin in napari's preferences; the manifest holds the choices and defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preferences:
    """Annotator of edits, first unit of curves, level of intervals."""

    annotator: str = ""
    unit: str = "pct_id"
    level: float = 0.95


def preferences() -> Preferences:
    """Return the preferences as they stand now; the defaults where napari has not read the manifest."""
    from napari.settings import get_plugin_settings

    try:
        given = get_plugin_settings("evbiodist").analysis  # type: ignore[attr-defined]
    except (KeyError, AttributeError):
        return Preferences()
    return Preferences(str(given.annotator), str(given.unit), float(given.level))


def remember(**changes: str | float) -> None:
    """Change preferences for good, as napari's own dialogue does."""
    from napari.settings import get_plugin_settings

    try:
        given = get_plugin_settings("evbiodist").analysis  # type: ignore[attr-defined]
    except (KeyError, AttributeError):
        return
    for name, value in changes.items():
        setattr(given, name, value)
