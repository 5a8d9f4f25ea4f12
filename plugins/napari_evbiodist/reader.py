"""What napari asks when somebody opens a file: the package's registry of readers answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evbiodist.io import organ_tables
from evbiodist.io.registry import read_scan, reader_for
from evbiodist.study.problems import UnreadableImage
from napari_evbiodist.converters import scan_to_layers

if TYPE_CHECKING:
    from napari.types import FullLayerData


def napari_get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[FullLayerData]] | None:
    """Return the function that reads a path, or None when it is no image of ours.

    Tables, folders of other things and several files at once (a stack of scans has no common
    calibration) are declined.
    """
    paths = path if isinstance(path, list) else [path]
    if len(paths) != 1:
        return None
    try:
        reader = reader_for(paths[0])
    except UnreadableImage:
        return None
    return None if reader is organ_tables.READER else read_layers


def read_layers(path: str | list[str]) -> list[FullLayerData]:
    """Read one image as layers.

    Raises
    ------
    ValueError : one sentence saying what is wrong with the file; napari shows it as it is.
    """
    try:
        return scan_to_layers(read_scan(path if isinstance(path, str) else path[0]))
    except UnreadableImage as err:
        raise ValueError(str(err)) from None
