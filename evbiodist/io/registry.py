"""Which reader takes a file. A format is one record here, not a branch anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evbiodist.study.problems import InputError, UnreadableImage

if TYPE_CHECKING:
    from evbiodist.io.organ_tables import OrganTable
    from evbiodist.io.scan import Scan
    from evbiodist.study.model import ObservationSource


@dataclass(frozen=True)
class Reader:
    """A file format: its name, what it is, whether it takes a path, and how it reads it."""

    name: str
    description: str
    takes: Callable[[Path], bool]
    read: Callable[[Path], Scan | OrganTable]


def readers() -> tuple[Reader, ...]:
    """Return every reader in the order in which they are asked; the most specific come first."""
    from evbiodist.io import (
        dicom,
        ecat,
        inveon,
        ivis,
        living_image,
        nifti,
        ome_zarr,
        organ_tables,
        sidecar,
        tiff,
        voistat,
    )

    return (
        ivis.READER,
        ome_zarr.READER,
        dicom.READER,
        sidecar.READER,
        tiff.READER,
        nifti.READER,
        ecat.READER,
        inveon.READER,
        living_image.READER,
        voistat.READER,
        organ_tables.READER,
    )


def reader_for(path: str | Path) -> Reader:
    """Return the reader that takes a path.

    Raises
    ------
    UnreadableImage : nothing is there, or no reader takes it.
    """
    path = Path(path)
    if not path.exists():
        raise UnreadableImage(path, "there is no such file or folder; correct the name")
    try:
        for reader in readers():
            if reader.takes(path):
                return reader
    except OSError as err:
        raise UnreadableImage(path, f"it cannot be opened ({err.strerror}); check its rights and its place") from err
    known = "; ".join(r.description for r in readers())
    raise UnreadableImage(path, f"no reader takes it; evbiodist reads: {known}")


def read(path: str | Path) -> Scan | OrganTable:
    """Read any file or folder that evbiodist knows.

    Returns
    -------
    Scan or OrganTable : images give a scan, tables of organ values an organ table.

    Raises
    ------
    UnreadableImage : with the reason in words, whatever the decoder said.
    InputError : a table with problems, all of them named.
    """
    path = Path(path)
    reader = reader_for(path)
    try:
        return reader.read(path)
    except (UnreadableImage, InputError):
        raise
    except MemoryError as err:
        reason = "it needs more memory than there is; crop it, bin it or close other programs"
        raise UnreadableImage(path, reason) from err
    except Exception as err:  # some twenty exception types come out of decoders
        reason = f"the {reader.name} reader failed ({type(err).__name__}: {str(err)[:200]})"
        raise UnreadableImage(path, f"{reason}; the file may be damaged: export it again") from err


def read_table(path: str | Path, source: ObservationSource) -> OrganTable:
    """Read a table of organ values of a study, whatever program exported it.

    Parameters
    ----------
    path : the table.
    source : what the table does not say itself, with names of its regions in `rois`.

    Raises
    ------
    InputError : every problem of the table.
    """
    from evbiodist.io import living_image, voistat
    from evbiodist.io.organ_tables import read_organ_table

    path = Path(path)
    if path.is_file():
        if living_image.READER.takes(path):
            return living_image.read_living_image(path, source, source.rois)
        if voistat.READER.takes(path):
            return voistat.read_voistat(path, source, source.rois)
    return read_organ_table(path, source)


def read_scan(path: str | Path) -> Scan:
    """Read an image; a table is refused.

    Raises
    ------
    UnreadableImage : not an image, or not readable.
    """
    from evbiodist.io.scan import Scan

    found = read(path)
    if not isinstance(found, Scan):
        raise UnreadableImage(path, "this is a table, not an image; name it under [tables] observations")
    return found
