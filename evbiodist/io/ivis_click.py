"""One IVIS click: raw counts to radiance, with its photograph, bias and dark frame.

    radiance = (counts - bias - dark) * C_ccd(FOV, f) / (t * binning^2) / ff(r)

The vendor's corrected image is preferred when the header's flags say that it is one. A fluorescent click becomes
radiant efficiency only when the folder gives the excitation irradiance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evbiodist.io.ivis_header import Click, Section, load_click
from evbiodist.io.scan import RADIANCE, RADIANT_EFFICIENCY, Band, Camera, FloatArray, Scan
from evbiodist.io.tiff import check_complete
from evbiodist.study.problems import UnreadableImage

#: Filter labels that let no excitation through, or do not say.
_NO_EXCITATION = {"", "block", "blocked", "none", "empty"}
_LAMP_OFF = {"", "off", "none", "0", "0.0"}
LAMP = re.compile(r"(illumination|lamp).*level|lamp.*(voltage|power)", re.IGNORECASE)
#: An irradiance is believed only with its unit, in the key or behind the number.
_IRRADIANCE = re.compile(r"(excitation|illumination|lamp)", re.IGNORECASE)
_PER_AREA = re.compile(r"[uµμ]W\s*/\s*cm\s*(\^?2|²)", re.IGNORECASE)
NO_IRRADIANCE = "radiant efficiency needs the excitation irradiance, which the folder does not give"
#: Largest image that is read, in pixels (a sensor of 8192 x 8192).
_MAX_PIXELS = 1 << 26
#: Counts by which a bias frame may differ from the header's level; the camera drifts by less between two clicks.
_BIAS_DRIFT = 5.0
#: Raw chain against Living Image: lens warp is not in the header, its cosmic filter clips peaks.
_SYSTEMATIC_RAW = 0.06
_SYSTEMATIC_VENDOR = 0.05


def _pixels(path: Path) -> Any:
    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            check_complete(path, tif)
            shape = tif.pages[0].shape
            pixels = tif.pages[0].asarray() if np.prod(shape, dtype=float) <= _MAX_PIXELS else None
        if pixels is not None and pixels.dtype.kind not in "uif":
            raise UnreadableImage(path, f"pixels are of type {pixels.dtype}; expected integer or float counts: copy it again "
                                        "from the instrument")  # fmt: skip
        if pixels is None or pixels.ndim != 2 or pixels.size == 0:
            raise UnreadableImage(path, f"its shape {tuple(shape)} is not that of a camera's grey frame; "
                                        "copy it again from the instrument")  # fmt: skip
        return pixels
    except UnreadableImage:
        raise
    except Exception as err:  # a dozen exception types come out of damaged tags
        raise UnreadableImage(path, f"not a TIFF that can be read ({type(err).__name__}: {str(err)[:120]}); "
                                    "copy it again") from err  # fmt: skip


def read_click(path: Path) -> Scan:
    """Read a click: the folder or its header gives the calibrated image, a single TIFF gives that image.

    Parameters
    ----------
    path : click folder, ClickInfo.txt, or one of the folder's TIFFs.

    Returns
    -------
    Scan : of the luminescent or fluorescent image in counts, whose `signal` is radiance in p/s/cm2/sr, or radiant
        efficiency where the folder gives the excitation irradiance; for the photograph, reference, bias and dark
        files the plain image with its part of the header.

    Raises
    ------
    UnreadableImage : with the reason and the remedy.
    """
    path = Path(path)
    click = load_click(path)
    if path.is_file() and path.suffix.lower() != ".txt":
        section = next((s for s in click.sections if s.file.lower() == path.name.lower()), None)
        if section is None:
            stem = path.stem.lower()
            section = next((s for s in click.sections if s.file and stem in s.file.lower()), None)
        side = section is None or "reference" in section.name.lower()
        if section is None or side or not section.name.lower().startswith(("luminescent", "fluorescent", "corrected")):
            return _side_image(path, click, section)
    scan = main_image(path, click, corrected_image(click))
    photo, photo_warnings = photograph_of(click, scan)
    bias_notes, bias_warnings = _bias_frame(click) if scan.camera.bias is not None else ((), ())
    return replace(
        scan,
        photograph=photo,
        notes=(*scan.notes, *bias_notes),
        warnings=(*photo_warnings, *scan.warnings, *bias_warnings),
    )


def _header(click: Click, section: Section) -> dict[str, str]:
    keys = section.keys
    told = {
        "role": section.name,
        "instrument": click.value("System Configuration"),
        "camera": " ".join(filter(None, (click.value("Camera System Info"), click.value("Camera Serial Number")))),
        "software": click.value("Living Image Version"),
        "acquired": " ".join(filter(None, (keys.get("Acquisition Date"), keys.get("Acquisition Time")))),
        "field of view": keys.get("Field of View") and f"{keys['Field of View']} cm",
        "f number": keys.get("f Number"),
        "binning": keys.get("Binning Factor"),
        "emission filter": keys.get("Emission filter"),
        "excitation filter": keys.get("Excitation filter"),
        "data multiplier": keys.get("Data Multiplier"),
    }
    return {**keys, **{k: v for k, v in told.items() if v}}


def _pixel_size(section: Section | None, columns: int) -> tuple[float, float] | None:
    """Field of view over columns: the header's own Pixel Width is always 1."""
    fov = section.number("Field of View") if section else None
    return (10 * fov / columns, 10 * fov / columns) if fov else None


def _saturation(click: Click) -> float | None:
    return Section("", "", {"level": click.value("CCD Saturation Level") or ""}).number("level")


def _side_image(path: Path, click: Click, section: Section | None) -> Scan:
    counts = _pixels(path)
    notes: list[str] = []
    warnings: list[str] = []
    flags: list[str] = []
    if section is None:
        notes.append("the click's header does not mention this file")
        section = Section("not in the header", path.name, {})
    if section.name.lower().startswith("darkcharge"):
        reason = _garbage(counts, _saturation(click))
        if reason:
            warnings.append(f"not usable as a dark frame: {reason}")
            flags.append("no_dark")
    multiplier = section.number("Data Multiplier")
    if multiplier and multiplier != 1:
        notes.append(f"stored values are {multiplier:g} times the counts")
    exposure = next((v for k in ("Exposure Time Sec", "Background Exposure (Seconds)", "Luminescent Exposure (Seconds)")
                     if (v := section.number(k)) is not None), None)  # fmt: skip
    return Scan(
        path.name,
        path,
        counts,
        "YX",
        _pixel_size(section, counts.shape[1]),
        scale=1.0 / multiplier if multiplier else 1.0,
        exposure_s=exposure,
        camera=Camera(bias=section.number("Read Bias Level"), saturation=_saturation(click)),
        flags=tuple(flags),
        notes=tuple(notes),
        warnings=tuple(warnings),
        header=_header(click, section),
    )


def _garbage(counts: Any, saturation: float | None) -> str:
    """Return why an image cannot be a dark frame, or nothing."""
    if counts.min() == counts.max():
        return f"every pixel holds {counts.min():g}"
    if saturation is not None and np.median(counts) >= saturation:
        return f"its median of {np.median(counts):g} is over the sensor's saturation of {saturation:g}"
    return ""


def corrected_image(click: Click) -> tuple[Section, Path] | None:
    """Return the vendor's corrected image when its flags say that it is calibrated."""
    for section in reversed(click.sections):
        named = re.match("(lumin|fluor)escentfloatcorrected", section.file.lower())
        path = click.path(section.file) if named else None
        if path and section.on("Flat Field Corrected") and _calibrated(section):
            raw = click.main.keys if click.main else {}
            told = {k: v for k, v in raw.items() if k not in ("Image Units", "Read Bias Level") and "orrected" not in k}
            return replace(section, keys={**told, **section.keys}), path
    return None


def _calibrated(section: Section) -> str | None:
    """Return the unit that a section's pixels are calibrated in, or None for counts."""
    text = section.keys.get("Intensity Calibration", "").lower().replace("sec", "s")
    if "p/s" not in text:
        return None
    return RADIANT_EFFICIENCY if _PER_AREA.search(text) else RADIANCE


def main_image(path: Path, click: Click, vendor: tuple[Section, Path] | None) -> Scan:
    """Return the click's own image without photograph; the vendor's corrected one when given."""
    section = vendor[0] if vendor else click.main
    if section is None:
        raise UnreadableImage(path, "the click holds no luminescent or fluorescent image; copy the whole folder again")
    file = vendor[1] if vendor else click.path(section.file)
    if file is None:
        raise UnreadableImage(path, f"the header names {section.file}, which is not in the folder; copy it too")
    counts = _pixels(file)
    scan = Scan(
        click.folder.name,
        file,
        counts,
        "YX",
        _pixel_size(section, counts.shape[1]),
        unit=(_calibrated(section) if vendor else None) or RADIANCE,
        exposure_s=_exposure(section),
        flags=("systematic",),
        header={**_header(click, section), "calibration": "vendor" if vendor else "from raw counts"},
    )
    return _excited(_from_vendor(scan, section) if vendor else _from_counts(scan, path, click, section), click, section)


def _from_vendor(scan: Scan, section: Section) -> Scan:
    odd = section.keys.get("Image Units", "").lower() == "counts"
    contradiction = "its 'Image Units: counts' contradicts the calibration flags, which are believed"
    return replace(
        scan,
        systematic_rel=_SYSTEMATIC_VENDOR,
        notes=(f"pixels are the vendor's corrected {_quantity(scan.unit)} (Intensity Calibration and flags say so)",),
        warnings=(contradiction,) if odd else (),
    )


def _quantity(unit: str) -> str:
    return "radiant efficiency" if unit == RADIANT_EFFICIENCY else "radiance"


def _from_counts(scan: Scan, path: Path, click: Click, section: Section) -> Scan:
    """Return the scan with bias, dark charge, sensitivity and flat field of its click."""
    notes = ["radiance computed from raw counts with flat field; Living Image's own may differ by about 6 %"]
    bias = section.number("Read Bias Level")
    if bias is None:
        bias, source = _bias_level(click)
        notes.append(f"the header gives no Read Bias Level; the mean of {source}, {bias:.6g} counts, stands for it")
    dark, dark_note = _dark(click, section, scan.exposure_s)
    return replace(
        scan,
        offset=bias + dark,
        scale=_radiance_per_count(path, click, section, scan.counts.shape, scan.exposure_s),
        camera=Camera(bias=bias, saturation=_saturation(click)),
        systematic_rel=_SYSTEMATIC_RAW,
        flags=(*scan.flags, "no_dark") if dark_note else scan.flags,
        notes=tuple(notes),
        warnings=(dark_note,) if dark_note else (),
    )


def _exposure(section: Section) -> float | None:
    keys = ("Luminescent Exposure (Seconds)", "Fluorescent Exposure (Seconds)", "Exposure Time Sec")
    return next((v for key in keys if (v := section.number(key)) is not None), None)


# ---------------------------------------------------------------------------------------- light in, light out


def _excited(scan: Scan, click: Click, section: Section) -> Scan:
    """Return the scan with its band, and as radiant efficiency where it is fluorescent and the irradiance known."""
    emission, excitation = (section.keys.get(f"{kind} filter", "") for kind in ("Emission", "Excitation"))
    fluorescent, doubt = _is_fluorescent(section, excitation)
    scan = replace(scan, bands=_bands(emission, excitation if fluorescent else ""), warnings=(*scan.warnings, *doubt))
    if scan.bands and scan.bands[0].emission_nm is not None:
        scan = replace(scan, notes=(*scan.notes, "the emission filter's transmission and the camera's response to its "
                                                 "colour are not divided out"))  # fmt: skip
    if not fluorescent or scan.unit == RADIANT_EFFICIENCY:
        return scan
    found = _irradiance(section)
    if found is None:
        return replace(
            scan,
            flags=(*scan.flags, "no_irradiance"),
            notes=(*scan.notes, *_not_irradiance(click, excitation)),
            warnings=(*scan.warnings, NO_IRRADIANCE),
        )
    key, irradiance = found
    note = f"radiance was divided by the excitation irradiance of {irradiance:g} uW/cm2 ('{key}')"
    return replace(scan, unit=RADIANT_EFFICIENCY, scale=scan.scale / irradiance, notes=(*scan.notes, note))


def _is_fluorescent(section: Section, excitation: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether the lamp shone, and a sentence where the header leaves it open."""
    if section.name.lower().startswith("fluorescent"):
        return True, ()
    if excitation.strip().lower() in _NO_EXCITATION:
        return False, ()
    lamps = [value.strip().lower() for key, value in section.keys.items() if LAMP.search(key)]
    if any(value not in _LAMP_OFF for value in lamps) or (not lamps and excitation.strip().lower() != "open"):
        return True, ()
    lamp = "the lamp is off" if lamps else "no lamp level is given"
    return False, (f"the excitation filter is '{excitation}' but {lamp}; it is read as bioluminescence",)


def _bands(emission: str, excitation: str) -> tuple[Band, ...]:
    """Return the band as a tuple of one, or of none where the header names no filter.

    Examples
    --------
    >>> _bands("620", "535")
    (Band(emission_nm=620.0, excitation_nm=535.0, name='535 to 620'),)
    >>> _bands("GFP", "")
    (Band(emission_nm=None, excitation_nm=None, name='GFP'),)
    """
    if not emission and not excitation:
        return ()
    name = f"{excitation} to {emission or 'unknown'}" if excitation else emission
    return (Band(_nm(emission), _nm(excitation), name),)


def _nm(label: str) -> float | None:
    """Return the wavelength that a filter's label says, or None for names such as `GFP` and `Open`."""
    hit = re.fullmatch(r"(\d{3,4}(?:\.\d+)?)\s*(?:nm)?", label.strip(), re.IGNORECASE)
    return float(hit.group(1)) if hit and 200 <= float(hit.group(1)) <= 2000 else None


def _irradiance(section: Section) -> tuple[str, float] | None:
    """Return the key and number of an excitation irradiance in uW/cm2 that the image's own section states."""
    for key, value in section.keys.items():
        hit = re.match(r"\s*(\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(.*)$", value)
        stated = hit is not None and (_PER_AREA.search(key) or _PER_AREA.match(hit.group(2)))
        if hit and stated and _IRRADIANCE.search(key) and float(hit.group(1)) > 0:
            return key, float(hit.group(1))
    return None


def _not_irradiance(click: Click, excitation: str) -> list[str]:
    """Return sentences on numbers of the folder that look like an irradiance and are none."""
    told = []
    if click.value(f"Spectral Imaging Excitation {excitation}"):
        told.append(f"'Spectral Imaging Excitation {excitation}' of the header is the power in uW through a 2 mm hole "
                    "from below, not an irradiance, and is not used")  # fmt: skip
    reference = click.find("fluorescent reference", "fluorescentreference")
    if reference and click.path(reference.file):
        told.append(f"{reference.file} shows the relative pattern of the excitation light and is not applied")
    return told


# ---------------------------------------------------------------------------------------- photograph, bias, dark


def photograph_of(click: Click, main: Scan) -> tuple[Any, list[str]]:
    """Return the click's photograph, None without, and what is wrong with it."""
    section = click.find("photographic")
    path = click.path(section.file) if section else None
    if section is None or path is None:
        return None, ["there is no photograph"]
    if section.number("Field of View") != Section("", "", main.header).number("Field of View"):
        return None, ["the photograph has another field of view and is not used"]
    return _pixels(path), []


def _bias_image(click: Click) -> tuple[str, FloatArray] | None:
    """Return the name and counts of the bias frame, read without light or exposure; None where there is none."""
    for section in (click.find("readbiasonly"), click.find("readbias")):
        path = click.path(section.file) if section else None
        if section and path:
            return path.name, _pixels(path) / (section.number("Data Multiplier") or 1.0)
    return None


def _bias_level(click: Click) -> tuple[float, str]:
    """Return the mean of the bias frame and its name, for a header without a level."""
    found = _bias_image(click)
    if found is None or _garbage(found[1], _saturation(click)):
        raise UnreadableImage(click.folder, "the header gives no Read Bias Level and there is no usable bias frame, so "
                                            "counts have no zero; export the click again")  # fmt: skip
    return float(found[1].mean()), found[0]


def _bias_frame(click: Click) -> tuple[Sequence[str], Sequence[str]]:
    """Return notes and warnings on the bias frame: it checks the header's level, which is what is subtracted.

    The frame itself is not subtracted: its fixed pattern is smaller than its noise, which would be added.
    """
    try:
        found = _bias_image(click)
    except UnreadableImage as err:
        return [], [f"the bias frame cannot be read, so the Read Bias Level is not checked ({err})"]
    level = click.main.number("Read Bias Level") if click.main else None
    if found is None or level is None:
        return [], []
    name, counts = found
    reason = _garbage(counts, _saturation(click))
    if reason:
        return [], [f"{name} is refused as a bias frame: {reason}"]
    mean = float(counts.mean())
    if abs(mean - level) > _BIAS_DRIFT:
        return [], [
            f"{name} averages {mean:.6g} counts, the header's Read Bias Level is {level:g}; the header is believed"
        ]
    return [f"{name} averages {mean:.6g} counts and agrees with the Read Bias Level of {level:g}, which is subtracted; "
            f"the frame is not, its pixels scatter by {counts.std():.2g} counts"], []  # fmt: skip


def _dark(click: Click, main: Section, exposure: float | None) -> tuple[Any, str]:
    """Return dark charge in counts for the exposure, and a sentence when there is none to be had."""
    section = click.find("darkcharge")
    path = click.path(section.file) if section else None
    if section is None or path is None:
        return 0.0, "there is no dark frame, so dark charge is not subtracted"
    counts = _pixels(path)
    reason = _garbage(counts, _saturation(click))
    dark_exposure, bias = section.number("Background Exposure (Seconds)"), section.number("Read Bias Level")
    if not reason and section.number("Binning Factor") != main.number("Binning Factor"):
        reason = "its binning differs from the image's"
    if not reason and not (dark_exposure and exposure and bias is not None):
        reason = "the header lacks its exposure or bias"
    if reason:
        return 0.0, f"{path.name} is refused as a dark frame ({reason}), so dark charge is not subtracted"
    charge = counts / (section.number("Data Multiplier") or 1.0) - bias
    return charge * (exposure or 0.0) / (dark_exposure or 1.0), ""


def _radiance_per_count(
    path: Path, click: Click, section: Section, shape: tuple[int, ...], exposure: float | None
) -> FloatArray:
    """Return C_ccd / (t binning^2 ff(r)) for every pixel, shape (Y, X)."""
    fov, f_number, binning = (section.number(k) for k in ("Field of View", "f Number", "Binning Factor"))
    if not (fov and f_number and binning and exposure):
        raise UnreadableImage(path, "the header lacks field of view, f number, binning or exposure, so counts cannot "
                                    "be turned into radiance; export the click again")  # fmt: skip
    coefficient = next((s.number(f"Coef C-ccd at FOV {fov:g}, f{f_number:g}") for s in reversed(click.sections)
                        if f"Coef C-ccd at FOV {fov:g}, f{f_number:g}" in s.keys), None)  # fmt: skip
    if coefficient is None:
        raise UnreadableImage(path, f"the header has no 'Coef C-ccd at FOV {fov:g}, f{f_number:g}', so counts cannot be "
                                    "turned into radiance; export the click again")  # fmt: skip
    flat = _flat_field(click, fov, f_number, shape)
    with np.errstate(all="ignore"):
        scale = coefficient / (exposure * binning**2) / flat
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise UnreadableImage(path, "coefficient, exposure, binning and flat field of the header give no finite radiance above 0 "
                                    "per count; export the click again")  # fmt: skip
    return scale


def _flat_field(click: Click, fov: float, f_number: float, shape: tuple[int, ...]) -> FloatArray:
    """ff(r) = k0 + k1 r + ... + k4 r^4, r in cm from the optical axis; ones when the header has none."""
    shelf = next((k for s in click.sections for k in s.keys
                  if re.fullmatch(r"Shelf Position [A-Z] FOV", k) and s.number(k) == fov), None)  # fmt: skip
    key = f"{shelf[:16]} FF5 f/{f_number:g} Coefs" if shelf else ""
    text = click.value(key)
    if not text:
        return np.ones(shape[-2:])
    try:
        *k, x0, y0 = (float(part) for part in text.split(","))
    except ValueError as err:
        raise UnreadableImage(click.folder, f"'{key}' of the header holds '{text}', expected numbers k0 to k4, x0, y0; "
                                            "export the click again") from err  # fmt: skip
    pixel = fov / shape[-1]
    y = (np.arange(shape[-2]) - (shape[-2] - 1) / 2) * pixel - y0
    x = (np.arange(shape[-1]) - (shape[-1] - 1) / 2) * pixel - x0
    with np.errstate(all="ignore"):  # a header's odd numbers are refused where they are used
        return np.polynomial.polynomial.polyval(np.hypot(y[:, None], x[None, :]), k)
