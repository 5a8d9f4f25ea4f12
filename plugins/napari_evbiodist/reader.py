"""What napari asks when somebody opens a file: the package's registry of readers answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evbiodist.batch.child import CancelledWorkError, ChildDiedError
from evbiodist.batch.scans import load_scan
from evbiodist.io import living_image, organ_tables, voistat
from evbiodist.io.registry import read_scan, reader_for
from evbiodist.study.load import load_study
from evbiodist.study.problems import InputError, UnreadableImage
from napari_evbiodist.converters import KEY, organs_to_layer, scan_to_layers

if TYPE_CHECKING:
    from napari.types import FullLayerData

#: Readers that give tables of organ values, which are no layers.
TABLE_READERS = (organ_tables.READER, living_image.READER, voistat.READER)
#: How many scans of a study are shown when it is dropped on the viewer; the others are in the study panel.
FIRST_SCANS = 1


def study_file(path: str | Path) -> Path | None:
    """Return the study.toml or settings.toml that a path is or holds; None where it is no study and no result folder.

    Examples
    --------
    >>> from evbiodist.sample import sample_data
    >>> study_file(sample_data() / "demo").name
    'study.toml'
    """
    path = Path(path)
    if path.is_dir():
        for name in ("study.toml", "settings.toml"):
            if (path / name).is_file():
                return path / name
        return None
    return path if path.suffix.lower() == ".toml" and path.is_file() else None


def napari_get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[FullLayerData]] | None:
    """Return the function that reads a path, or None when it is neither an image of ours nor a study.

    Tables, folders of other things and several files at once (a stack of scans has no common
    calibration) are declined.
    """
    paths = path if isinstance(path, list) else [path]
    if len(paths) != 1:
        return None
    if study_file(paths[0]):
        return read_study_layers
    try:
        reader = reader_for(paths[0])
    except UnreadableImage:
        return None
    return None if reader in TABLE_READERS else read_layers


def read_layers(path: str | list[str]) -> list[FullLayerData]:
    """Read one image as layers; organ labels that were saved with their names come as labels.

    Raises
    ------
    ValueError : one sentence saying what is wrong with the file; napari shows it as it is.
    """
    from napari_evbiodist import jobs

    path = path if isinstance(path, str) else path[0]
    if study_file(path):
        return read_study_layers(path)
    file = Path(path)
    try:
        named = apart(file, jobs.decode_organs, file)
        if named is not None:
            organs, grid = named
            return [organs_to_layer(organs, grid)]
        return scan_to_layers(apart(file, jobs.decode, (file.parent, file.name)) or read_scan(file))
    except UnreadableImage as err:
        raise ValueError(str(err)) from None


def apart(file: Path, function: Callable[..., Any], *args: Any) -> Any:
    """Run what decodes a file in another process, so that a decoder that crashes takes no window down.

    Raises
    ------
    ValueError : the process died, said with the file's name; everything that the function raises.
    """
    from napari_evbiodist import jobs

    try:
        return jobs.lane("quick").call(function, *args)
    except (ChildDiedError, CancelledWorkError) as err:
        raise ValueError(f"{file.name}: {err}") from None


def read_study_layers(path: str | list[str]) -> list[FullLayerData]:
    """Read the first scan of a study, or of the study behind a result folder, as layers.

    Each layer's ``metadata["evbiodist"]["study"]`` is the path of the study's file, by which a panel opens the rest.

    Raises
    ------
    ValueError : everything wrong with the study, or a study without images.
    """
    from napari_evbiodist import jobs

    path = path if isinstance(path, str) else path[0]
    file = study_file(path)
    if file is None:
        raise ValueError(f"{Path(path).name} is no study; open a study.toml, its folder, or a result folder")
    try:
        study = load_study(file)
        scans = [apart(Path(r.file), jobs.decode, (study.root, r)) or load_scan(study.root, r)
                 for r in study.scans[:FIRST_SCANS]]  # fmt: skip
        layers = [layer for scan in scans for layer in scan_to_layers(scan)]
    except (InputError, UnreadableImage) as err:
        raise ValueError(str(err)) from None
    if not layers:
        raise ValueError(
            f"study '{study.name}' holds tables only, so there is no image to show; open it in the study panel"
        )
    more = len(study.scans) - FIRST_SCANS
    note = f"study '{study.name}': {more} more scans are in the study panel" if more > 0 else f"study '{study.name}'"
    for layer in layers:
        layer[1]["metadata"][KEY] |= {"study": str(file)}
    layers[0][1]["metadata"][KEY] |= {"note": note}
    return layers
