"""The sample of File > Open Sample: one tray of the demo study, with photograph and organs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evbiodist.batch.scans import find_organs, load_scan
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import Scan
from evbiodist.sample import DEMO, sample_data
from evbiodist.study.load import load_study
from napari_evbiodist.converters import organs_to_layer, scan_to_layers

if TYPE_CHECKING:
    from napari.types import FullLayerData

#: Half an hour after injection, when every organ of the tray shines.
EXAMPLE = "NanoLuc_0.5h_1"


def example() -> tuple[Scan, OrganMap]:
    """Return the example tray's scan with its organs as the demo study finds them."""
    study = load_study(sample_data() / DEMO / "study.toml")
    record = next(r for r in study.scans if r.scan == EXAMPLE)
    scan = load_scan(study.root, record)
    return scan, find_organs(study.root, record, scan, study.settings.imaging)


def demo_tray() -> list[FullLayerData]:
    """Return signal, photograph and organs of the example tray."""
    scan, organs = example()
    return [*scan_to_layers(scan), organs_to_layer(organs, scan)]
