"""DICOM PET and SPECT series: many files become one scan with its times, its tracer and Bq/mL.

A lost slice, a wrong clock or a slope that changes from slice to slice all give plausible wrong uptake, so each
is checked (`dicom_planes`, `dicom_times`), and what a header does not say stays None.
"""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from evbiodist.io.dicom_header import OddError, Told, moment_of, text_of
from evbiodist.io.dicom_planes import Plane, drop_single, fill_stack, refuse_kind, spacing_of, stack_of, unit_of
from evbiodist.io.dicom_times import half_life_of, scan_clock, timing_of, tracer_of
from evbiodist.io.registry import Reader
from evbiodist.io.scan import ACTIVITY, Scan, Tracer
from evbiodist.io.timing import TimingError
from evbiodist.study.problems import UnreadableImage

_SUFFIXES = {".dcm", ".dicom", ".ima"}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"


def read_dicom(path: Path) -> Scan:
    """Read one PET or SPECT series (or a CT or MR series, as numbers without a unit of activity).

    Parameters
    ----------
    path : a folder with one series, or one file of a series: the files of its folder that share its
        SeriesInstanceUID are read too.

    Returns
    -------
    Scan : axes YX, ZYX, TYX or TZYX; float32 values with every slice's own slope applied; slices along the normal
        of the image plane; unit Bq/mL where Units is BQML, else counts. `timing` counts from the scan's start,
        which is also what pixels are decay corrected to where `tracer.decay_corrected_to` is `scan_start`. No
        name, number or birth date of an animal or person is kept.

    Raises
    ------
    UnreadableImage : several series, missing, repeated or uneven slices, contradicting times, colour, a kind of
        image that is no volume over time, pixels that cannot be decoded, or a damaged file.

    Examples
    --------
    >>> read_dicom(Path("nowhere"))
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.UnreadableImage: nowhere: no DICOM file is there; give the folder of a series or one of its files
    """
    path = Path(path)
    told = Told()
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        try:
            scan = _read(path, told)
        except UnreadableImage:
            raise
        except (OddError, TimingError) as err:
            raise UnreadableImage(path, str(err)) from err
        except Exception as err:  # damaged headers fail in many ways inside pydicom
            raise UnreadableImage(path, f"its DICOM header cannot be followed ({type(err).__name__}); "
                                        "it may be damaged: export it again") from err  # fmt: skip
    # the words of these warnings may quote the header, names included, so only their number is told
    extra = [f"the header breaks {len(caught)} rules of DICOM; its values were read as they stand"] if caught else []
    return replace(scan, notes=(*scan.notes, *extra))


def suv_bw_factor(scan: Scan) -> float:
    """Return what turns Bq/mL into the standardised uptake value by body weight (SUVbw), in g/Bq.

    Parameters
    ----------
    scan : in Bq/mL, with a tracer that states dose, half-life, time of injection and weight.

    Returns
    -------
    float : weight in g over the injected Bq that are left at the instant pixels are decay corrected to.

    Raises
    ------
    ValueError : naming everything that is missing.

    References
    ----------
    QIBA, SUV vendor-neutral pseudo-code (RSNA): decayed dose = dose * 2^(-(scan start - injection) / half-life)
    for DecayCorrection START, the dose itself for ADMIN.

    Examples
    --------
    >>> import numpy as np
    >>> tracer = Tracer("18F", 6600.0, 1e7, -6600.0, "scan_start", weight_g=25.0)
    >>> suv_bw_factor(Scan("a", None, np.ones((2, 2)), "YX", unit="Bq/mL", tracer=tracer))
    5e-06
    """
    tracer = scan.tracer or Tracer()
    corrected = tracer.decay_corrected_to
    late = corrected == "scan_start"
    wanted = {
        f"values in {ACTIVITY} (they are in {scan.unit})": scan.unit == ACTIVITY,
        f"pixels decay corrected to the injection or the scan's start (it is '{corrected}')": corrected
        in {"injection", "scan_start"},
        "the injected activity": bool(tracer.injected_bq),
        "the body weight": bool(tracer.weight_g),
        "the half-life": bool(tracer.half_life_s) or not late,
        "the time of injection": tracer.injected_s is not None or not late,
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing or tracer.weight_g is None or tracer.injected_bq is None:
        raise ValueError(f"{scan.name}: no SUV without {'; '.join(missing)}")
    left = tracer.injected_bq
    if late and tracer.half_life_s and tracer.injected_s is not None:
        left *= 2.0 ** (tracer.injected_s / tracer.half_life_s)
    return tracer.weight_g / left


# --- which files -----------------------------------------------------------------------------------------------


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _takes(path: Path) -> bool:
    try:
        return any(_is_candidate(p) for p in path.iterdir()) if path.is_dir() else _is_candidate(path)
    except OSError:
        return False


def _is_candidate(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in _SUFFIXES or _has_magic(path))


def _series(path: Path, told: Told) -> list[tuple[Path, Any]]:
    """Return the files of one series with their headers, by name."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not (path.is_dir() or path.is_file()):
        raise OddError("no DICOM file is there; give the folder of a series or one of its files")
    wanted = None if path.is_dir() else _header(path)
    series: dict[str, list[tuple[Path, Any]]] = {}
    for file in sorted(p for p in folder.iterdir() if _is_candidate(p)):
        if file.resolve().parent != folder.resolve():
            told.warn(f"{file.name} is a link out of the folder and was left out")
            continue
        try:
            header = wanted if wanted is not None and file == path else _header(file)
        except OddError as err:
            if path.is_dir():
                raise OddError(f"{file.name}: {err}") from err
            told.warn(f"{file.name} beside it cannot be read and was left out: {err}")
            continue
        if text_of(header.file_meta, "MediaStorageSOPClassUID") != _DIRECTORY:
            series.setdefault(text_of(header, "SeriesInstanceUID"), []).append((file, header))
    if wanted is not None:
        return series.get(text_of(wanted, "SeriesInstanceUID")) or [(path, wanted)]
    if len(series) > 1:
        listed = "; ".join(f"series {text_of(f[0][1], 'SeriesNumber') or '?'} "
                           f"'{text_of(f[0][1], 'SeriesDescription') or text_of(f[0][1], 'Modality')}' ({len(f)} files)"
                           for f in series.values())  # fmt: skip
        raise OddError(f"it holds {len(series)} series ({listed}); give one file of the series you mean")
    if not series:
        raise OddError("no DICOM file is there; give the folder of a series or one of its files")
    return next(iter(series.values()))


def _header(path: Path) -> Any:
    """Read one file's header without its pixels."""
    import pydicom

    if not _has_magic(path):
        raise OddError("it is no DICOM file (the word DICM is not at byte 128); export it again")
    try:
        syntax = text_of(pydicom.filereader.read_file_meta_info(path), "TransferSyntaxUID")
        if syntax == _DEFLATED:
            raise OddError("its header is deflated, which is not read; export it uncompressed")
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except OddError:
        raise
    except Exception as err:
        raise OddError(f"its DICOM header is damaged ({type(err).__name__}); export it again") from err
    if not syntax:
        raise OddError("its header does not say how it is encoded (TransferSyntaxUID is missing); export it again")
    return header


# --- files -> scan ------------------------------------------------------------------------------------------------


def _read(path: Path, told: Told) -> Scan:
    files = _series(path, told)
    first = files[0][1]
    for file, header in files:
        refuse_kind(file, header)
    stack = stack_of(files, told)
    planes = [p for frame in stack.planes for p in frame]
    counts = fill_stack(stack, (int(first.Rows), int(first.Columns)), told)
    modality = text_of(first, "Modality")
    unit = unit_of(planes, modality, told)
    clock, trusted = scan_clock(files, planes, told)
    timing = stack.timing or timing_of(stack, clock, modality, half_life_of(first), told)
    end_s = timing.start_s[-1] + timing.duration_s[-1] if timing else 0.0
    tracer = tracer_of(first, clock, end_s, trusted, told)
    squeezed, axes = drop_single(counts)
    return Scan(path.name, path, squeezed, axes, spacing_of(planes, told), unit=unit,
                slice_mm=stack.slice_mm if "Z" in axes else None, timing=timing, tracer=tracer,
                notes=tuple(told.notes), warnings=tuple(told.warnings), header=_words(first, planes[0]))  # fmt: skip


def _words(header: Any, plane: Plane) -> dict[str, str]:
    """Return the instrument's own words, without a person's or animal's identity."""
    acquired = plane.acquired or moment_of(header, "Series")
    words = {
        "modality": text_of(header, "Modality"),
        "instrument": f"{text_of(header, 'Manufacturer')} {text_of(header, 'ManufacturerModelName')}".strip(),
        "software": text_of(header, "SoftwareVersions"),
        "acquired": acquired.isoformat(" ", "seconds") if acquired else "",
        "series": f"{text_of(header, 'SeriesNumber')} {text_of(header, 'SeriesDescription')}".strip(),
        "units": plane.unit,
        "corrections": text_of(header, "CorrectedImage"),
        "decay correction": text_of(header, "DecayCorrection"),
        "reconstruction": text_of(header, "ReconstructionMethod"),
        "orientation": " ".join(f"{v:g}" for v in plane.orientation or ()),
        "position_mm": " ".join(f"{v:g}" for v in plane.position or ()),
    }
    return {key: value for key, value in words.items() if value}


READER = Reader("dicom", "DICOM PET and SPECT series (a folder or one of its files), CT and MR as plain numbers", _takes,
                read_dicom)  # fmt: skip
