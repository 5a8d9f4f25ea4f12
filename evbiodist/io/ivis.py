"""IVIS / Living Image clicks and sequences of clicks: the header in full, and raw counts to radiance.

    radiance = (counts - bias - dark) * C_ccd(FOV, f) / (t * binning^2) / ff(r)

The vendor's corrected image is preferred when the header's flags say that it is one. A fluorescent click becomes
radiant efficiency only when the folder gives the excitation irradiance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from evbiodist.io.registry import Reader
from evbiodist.io.scan import RADIANCE, RADIANT_EFFICIENCY, Band, Camera, FloatArray, Scan
from evbiodist.io.tiff import check_complete
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.problems import UnreadableImage

_INFO = "ClickInfo.txt"
_ANALYZED = "AnalyzedClickInfo.txt"
_SEQUENCE = "SequenceInfo.txt"
_LISTED = re.compile(r"^[* \t]*Click[ \t]*Number[ \t]*\d*[ \t]*:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
#: Filter labels that let no excitation through, or do not say.
_NO_EXCITATION = {"", "block", "blocked", "none", "empty"}
_LAMP_OFF = {"", "off", "none", "0", "0.0"}
_LAMP = re.compile(r"(illumination|lamp).*level|lamp.*(voltage|power)", re.IGNORECASE)
#: An irradiance is believed only with its unit, in the key or behind the number.
_IRRADIANCE = re.compile(r"(excitation|illumination|lamp)", re.IGNORECASE)
_PER_AREA = re.compile(r"[uµμ]W\s*/\s*cm\s*(\^?2|²)", re.IGNORECASE)
NO_IRRADIANCE = "radiant efficiency needs the excitation irradiance, which the folder does not give"
#: Largest header in bytes, image in pixels (a sensor of 8192 x 8192) and sequence in bytes that is read.
_MAX_TEXT, _MAX_PIXELS, _MAX_BYTES = 16 << 20, 1 << 26, 8 << 30
#: Counts by which a bias frame may differ from the header's level; the camera drifts by less between two clicks.
_BIAS_DRIFT = 5.0
#: Seconds by which the two clocks of a header may differ; both are rounded to 1 s.
_CLOCK_SLACK = 2.0
_SECTION = re.compile(r"^\*\*\*\s*(.+?):\s*(.*)$")
#: Raw chain against Living Image: lens warp is not in the header, its cosmic filter clips peaks.
_SYSTEMATIC_RAW = 0.06
_SYSTEMATIC_VENDOR = 0.05


@dataclass(frozen=True)
class Section:
    """One block of a click's header: its name, the file it describes, and its keys."""

    name: str
    file: str
    keys: dict[str, str]

    def number(self, key: str) -> float | None:
        """Return a key's first number, or None."""
        hit = re.search(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", self.keys.get(key, ""))
        return float(hit.group()) if hit else None

    def on(self, key: str) -> bool:
        """Whether a 0/1 key stands at 1."""
        return self.number(key) == 1


def parse_click_info(text: str) -> tuple[Section, ...]:
    """Parse ClickInfo.txt into its sections; keys repeat between sections, so none are merged.

    Examples
    --------
    >>> a, b = parse_click_info("*** one:\\tx.TIF\\nVersion:\\t:\\t3.0\\n*** two:\\nLens:\\t1\\t\\t# a comment\\n")
    >>> a.file, a.keys, b.keys
    ('x.TIF', {'Version': '3.0'}, {'Lens': '1'})
    """
    sections: list[Section] = []
    for line in text.splitlines():
        head = _SECTION.match(line)
        if head:
            sections.append(Section(head.group(1).strip(), head.group(2).strip(), {}))
        elif line.strip() and not line.startswith("#") and ":" in line and sections:
            key, value = line.split(":\t", 1) if ":\t" in line else line.split(":", 1)
            value = re.sub(r"\s+#.*$", "", value.strip()).lstrip(":").strip()
            sections[-1].keys.setdefault(key.strip().rstrip(":"), value)
    return tuple(sections)


@dataclass(frozen=True)
class Click:
    """A click folder: its header's sections and where its files are."""

    folder: Path
    sections: tuple[Section, ...]

    def find(self, *words: str) -> Section | None:
        """Return the last section whose name starts with one of the words, in their order."""
        for word in words:
            hits = [s for s in self.sections if s.name.lower().startswith(word)]
            if hits:
                return hits[-1]
        return None

    def value(self, key: str) -> str | None:
        """Return a key of the camera's part of the header."""
        return next((s.keys[key] for s in reversed(self.sections) if key in s.keys), None)

    def path(self, name: str) -> Path | None:
        """Return a file of the folder regardless of upper and lower case, or None.

        Raises
        ------
        UnreadableImage : the file is a link to a place outside the folder.
        """
        return _member(self.folder, name)

    @property
    def main(self) -> Section | None:
        """The section of the raw luminescent or fluorescent image, if there is one."""
        names = ("luminescent", "fluorescent")
        hits = [s for s in self.sections if s.name.lower().startswith(names)
                and not re.search("reference|floatcorrected", s.name.lower())]  # fmt: skip
        return hits[-1] if hits else None


def _member(folder: Path, name: str) -> Path | None:
    found = next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), None)
    if found is not None and not found.resolve().is_relative_to(folder.resolve()):
        raise UnreadableImage(found, "it is a link to a place outside its folder, which is not followed; "
                                     "copy the file itself")  # fmt: skip
    return found


def load_click(path: Path) -> Click:
    """Read a click folder's header (with the analysed one, when saved).

    Raises
    ------
    UnreadableImage : no header, or one without sections.
    """
    folder = path if path.is_dir() else path.parent
    text = ""
    for name in (_INFO, _ANALYZED):
        file = _member(folder, name)
        if file is not None:
            text += _text(file) + "\n"
    sections = parse_click_info(text)
    if not any(s.file for s in sections):
        raise UnreadableImage(path, f"its {_INFO} describes no image; copy the whole click folder again")
    return Click(folder, sections)


def _text(file: Path) -> str:
    if file.stat().st_size > _MAX_TEXT:
        raise UnreadableImage(file, f"{file.stat().st_size} bytes is no header of an instrument; copy it again")
    return file.read_bytes().decode("cp1252", errors="replace")


def _takes(path: Path) -> bool:
    if _is_sequence(path):
        return True
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix.lower() not in {".tif", ".tiff", ".txt"}:
        return False
    names = {p.name.lower() for p in folder.iterdir()}
    return _INFO.lower() in names and (path.is_dir() or path.suffix.lower() != ".txt" or "click" in path.name.lower())


def _is_sequence(path: Path) -> bool:
    """Whether a path is a folder with SequenceInfo.txt, or that file."""
    if path.is_dir():
        names = {p.name.lower() for p in path.iterdir()}
        return _SEQUENCE.lower() in names and _INFO.lower() not in names
    return path.is_file() and path.name.lower() == _SEQUENCE.lower()


def _pixels(path: Path) -> Any:
    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            check_complete(path, tif)
            shape = tif.pages[0].shape
            pixels = tif.pages[0].asarray() if np.prod(shape, dtype=float) <= _MAX_PIXELS else None
        if pixels is None or pixels.ndim != 2 or pixels.size == 0:
            raise UnreadableImage(path, f"its shape {tuple(shape)} is not that of a camera's grey frame; "
                                        "copy it again from the instrument")  # fmt: skip
        return pixels
    except UnreadableImage:
        raise
    except Exception as err:  # a dozen exception types come out of damaged tags
        raise UnreadableImage(path, f"not a TIFF that can be read ({type(err).__name__}: {str(err)[:120]}); "
                                    "copy it again") from err  # fmt: skip


def read_ivis(path: Path) -> Scan:
    """Read a click or a whole sequence of clicks, whichever a path is.

    Parameters
    ----------
    path : click folder, sequence folder, or a file of one.

    Returns
    -------
    Scan : see `read_click` and `read_sequence`.

    Raises
    ------
    UnreadableImage : with the reason and the remedy.
    """
    path = Path(path)
    return read_sequence(path) if _is_sequence(path) else read_click(path)


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
    scan = _main_image(path, click, _corrected(click))
    photo, photo_warnings = _photograph(click, scan)
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


def _corrected(click: Click) -> tuple[Section, Path] | None:
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


def _main_image(path: Path, click: Click, vendor: tuple[Section, Path] | None) -> Scan:
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
    lamps = [value.strip().lower() for key, value in section.keys.items() if _LAMP.search(key)]
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


def _photograph(click: Click, main: Scan) -> tuple[Any, list[str]]:
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
    return coefficient / (exposure * binning**2) / flat


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
    return np.polynomial.polynomial.polyval(np.hypot(y[:, None], x[None, :]), k)


# ---------------------------------------------------------------------------------------- sequences


@dataclass(frozen=True)
class _Shot:
    """One click of a sequence: its scan, the filters it was taken through, and when it began."""

    scan: Scan
    filters: tuple[str, ...]
    section: Section

    @property
    def clock(self) -> float | None:
        """Acquisition Seconds, which know no summer time."""
        return self.section.number("Acquisition Seconds")

    @property
    def wall(self) -> float | None:
        """Acquisition Date and Time in seconds, or None where they are not written as Living Image does."""
        text = " ".join(self.section.keys.get(f"Acquisition {part}", "") for part in ("Date", "Time"))
        try:
            return (datetime.strptime(text, "%A, %B %d, %Y %H:%M:%S") - datetime(1904, 1, 1)).total_seconds()
        except ValueError:
            return None


def read_sequence(path: Path) -> Scan:
    """Read the clicks of a sequence as one scan, in the order in which they were acquired.

    Parameters
    ----------
    path : folder with SequenceInfo.txt and a subfolder for each click, or that file.

    Returns
    -------
    Scan : axes TYX for one set of filters at several times, CYX for several sets once, TCYX for a full grid of
        both, YX for a single click. `offset` and `scale` broadcast to the counts, so exposures and f numbers may
        differ. `timing` counts from the start of the first click; a frame lasts as long as its exposure, or, with
        several bands, from the first of them to the end of the last.

    Raises
    ------
    UnreadableImage : no click, a damaged one, or clicks that cannot be one scan, which are named.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    clicks, warnings = _clicks(folder)
    vendor = [_corrected(click) for click in clicks]
    if any(vendor) and not all(vendor):
        some = sum(found is not None for found in vendor)
        warnings.append(f"only {some} of {len(clicks)} clicks have the vendor's corrected image, so all are computed "
                        "from raw counts")  # fmt: skip
        vendor = [None] * len(clicks)
    shots: list[_Shot] = []
    for click, found in zip(clicks, vendor, strict=True):
        shots.append(_shot(folder, click, found))
        _check_size(folder, shots[0].scan, len(clicks))
    _check_alike(folder, shots)
    shots, start, clock_warnings = _in_time(shots)
    grid, axes = _grid(folder, shots, start)
    timing, timing_warnings = _timing(grid, shots, start)
    photo, photo_warnings = _first_photograph(clicks, shots)
    warnings += [*clock_warnings, *timing_warnings, *photo_warnings, *_lamp_warning(shots)]
    return _joined(folder, shots, grid, axes, timing, photo, warnings)


def _clicks(folder: Path) -> tuple[list[Click], list[str]]:
    """Return the clicks that the sequence lists and that lie in the folder, and sentences on those that do not."""
    listed = list(dict.fromkeys(_LISTED.findall(_text(_member(folder, _SEQUENCE) or folder / _SEQUENCE))))
    here = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.resolve().is_relative_to(folder.resolve())]
    found = [load_click(p) for p in here if _member(p, _INFO)]
    if not found:
        raise UnreadableImage(folder, "the sequence holds no click folder; copy the folders with ClickInfo.txt too")
    names = {click.folder.name: (click.folder.name.lower(), _number(click).lower()) for click in found}
    warnings: list[str] = []
    if listed:
        lost = [w for w in listed if not any(w.lower() in both for both in names.values())]
        if len(lost) == len(listed):
            raise UnreadableImage(folder, f"{_SEQUENCE} lists {_named(listed)}, none of which lies in the folder; "
                                          "copy the click folders too")  # fmt: skip
        warnings += [f"{_SEQUENCE} lists click {name}, which is not in the folder; it is missing here" for name in lost]
        wanted = {w.lower() for w in listed}
        extra = [click.folder.name for click in found if not wanted & set(names[click.folder.name])]
        warnings += [f"click folder {name} is not listed in {_SEQUENCE} and is left out" for name in extra]
        found = [click for click in found if click.folder.name not in extra]
    else:
        warnings.append(f"{_SEQUENCE} lists no click; every click folder is taken")
    return _distinct(found, warnings), warnings


def _number(click: Click) -> str:
    return next((s.file for s in click.sections if s.name.lower() == "clicknumber"), "")


def _distinct(clicks: list[Click], warnings: list[str]) -> list[Click]:
    """Return the clicks with an image of their own: no copy of another, and not a photograph alone."""
    kept: dict[str, Click] = {}
    for click in clicks:
        name, number = click.folder.name, _number(click)
        if click.main is None and _corrected(click) is None:
            warnings.append(f"click {name} holds no luminescent or fluorescent image and is left out")
        elif number and number in kept:
            warnings.append(
                f"click {name} is a copy of {kept[number].folder.name} (ClickNumber {number}) and is left out"
            )
        else:
            kept[number or name] = click
    if not kept:
        raise UnreadableImage(clicks[0].folder.parent, "no click of the sequence holds a luminescent or fluorescent "
                                                       "image; copy the whole folders again")  # fmt: skip
    return list(kept.values())


def _shot(folder: Path, click: Click, vendor: tuple[Section, Path] | None) -> _Shot:
    try:
        scan = _main_image(click.folder, click, vendor)
    except UnreadableImage as err:
        raise UnreadableImage(folder, f"click {click.folder.name} cannot be read ({err})") from err
    section = vendor[0] if vendor else click.main
    assert section is not None  # noqa: S101  _main_image refuses a click without one
    filters = tuple(section.keys.get(f"{kind} filter", "") for kind in ("Excitation", "Emission"))
    return _Shot(scan, filters, section)


def _check_size(folder: Path, scan: Scan, clicks: int) -> None:
    if clicks * scan.counts.size * 8 > _MAX_BYTES:
        raise UnreadableImage(folder, f"{clicks} clicks of {scan.counts.shape} px are over the limit of 8 GiB; "
                                      "read the click folders one by one")  # fmt: skip


def _check_alike(folder: Path, shots: Sequence[_Shot]) -> None:
    """Refuse clicks that have no common pixel grid or unit, naming them."""
    ways: dict[str, Callable[[_Shot], str]] = {
        "shape": lambda s: "{} x {} px".format(*s.scan.counts.shape),
        "field of view": lambda s: s.scan.header.get("field of view", "unknown"),
        "binning": lambda s: s.scan.header.get("binning", "unknown"),
        "unit": lambda s: s.scan.unit,
    }
    for what, told in ways.items():
        groups: dict[str, list[str]] = {}
        for shot in shots:
            groups.setdefault(told(shot), []).append(shot.scan.name)
        if len(groups) > 1:
            listed = "; ".join(f"{value}: {_named(names)}" for value, names in groups.items())
            raise UnreadableImage(folder, f"its clicks differ in {what} and cannot be one scan ({listed}); "
                                          "read the click folders one by one")  # fmt: skip


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _in_time(shots: list[_Shot]) -> tuple[list[_Shot], list[float] | None, list[str]]:
    """Return the clicks by acquisition, their starts from the first one in s, and sentences on their clocks."""
    clocks = [_known(times) for times in ([s.clock for s in shots], [s.wall for s in shots])]
    start = next((times for times in clocks if times is not None), None)
    if start is None:
        lacking = [s.scan.name for s in shots if s.clock is None and s.wall is None] or [s.scan.name for s in shots]
        return shots, None, ["the acquisition time of these clicks is not known, so they are in the order of their "
                             f"names, without frame times: {_named(lacking)}"]  # fmt: skip
    warnings = []
    if clocks[0] is not None and clocks[1] is not None:
        apart = max(abs(a - b) for a, b in zip(*(_from_first(times) for times in clocks if times), strict=True))
        if apart > _CLOCK_SLACK:
            warnings.append(f"Acquisition Seconds and Acquisition Time differ by up to {apart:g} s between clicks (a clock "
                            "was set?); Acquisition Seconds are believed")  # fmt: skip
    order = sorted(range(len(shots)), key=lambda i: start[i])
    return [shots[i] for i in order], [start[i] - min(start) for i in order], warnings


def _known(times: Iterable[float | None]) -> list[float] | None:
    known = list(times)
    return None if None in known else [t for t in known if t is not None]


def _from_first(times: Sequence[float]) -> list[float]:
    return [t - times[0] for t in times]


def _grid(folder: Path, shots: Sequence[_Shot], start: Sequence[float] | None) -> tuple[NDArray[np.int_], str]:
    """Return the number of the click at every (time, band) and the axes of the scan that they make."""
    bands: dict[tuple[str, ...], list[int]] = {}
    for number, shot in enumerate(shots):
        bands.setdefault(shot.filters, []).append(number)
    counts = {len(numbers) for numbers in bands.values()}
    listed = "; ".join(f"{_label(filters)}: {_named([shots[i].scan.name for i in numbers])}"
                       for filters, numbers in bands.items())  # fmt: skip
    if len(counts) > 1:
        raise UnreadableImage(folder, f"its clicks are no full grid of times and filters ({listed}); "
                                      "read the click folders one by one")  # fmt: skip
    grid = np.array(list(bands.values())).T
    begin = np.arange(len(shots), dtype=float)[grid] if start is None else np.asarray(start)[grid]
    if (begin.max(1)[:-1] > begin.min(1)[1:]).any():
        raise UnreadableImage(folder, f"the filters were not taken in turns, so its clicks are no times ({listed}); "
                                      "read the click folders one by one")  # fmt: skip
    axes = ("T" if grid.shape[0] > 1 else "") + ("C" if grid.shape[1] > 1 else "")
    return grid, axes + "YX"


def _label(filters: tuple[str, ...]) -> str:
    excitation, emission = filters
    return f"excitation {excitation or 'unknown'}, emission {emission or 'unknown'}"


def _timing(
    grid: NDArray[np.int_], shots: Sequence[_Shot], start: Sequence[float] | None
) -> tuple[FrameTiming | None, list[str]]:
    """Return when each row of the grid was taken, or a sentence on why that is not known."""
    exposures = [shot.scan.exposure_s for shot in shots]
    if start is None:
        return None, []
    if None in exposures:
        without = [s.scan.name for s in shots if s.scan.exposure_s is None]
        return None, [f"the exposure of these clicks is not known, so there are no frame times: {_named(without)}"]
    begin = np.asarray(start)[grid]
    end = begin + np.array(exposures, dtype=float)[grid]
    try:
        return FrameTiming(tuple(begin.min(1)), tuple(end.max(1) - begin.min(1))), []
    except TimingError as err:
        return None, [f"the acquisition times contradict each other ({err}), so there are no frame times"]


def _first_photograph(clicks: Sequence[Click], shots: Sequence[_Shot]) -> tuple[Any, list[str]]:
    """Return the photograph of the first click in time that has one of the same field of view."""
    by_name = {click.folder.name: click for click in clicks}
    for shot in shots:
        photo, _ = _photograph(by_name[shot.scan.name], shot.scan)
        if photo is not None:
            return photo, []
    return None, ["no click has a photograph of the same field of view"]


def _lamp_warning(shots: Sequence[_Shot]) -> list[str]:
    """Return a sentence where the lamp was set differently and its irradiance is not divided out."""
    levels = {tuple(sorted((k, v) for k, v in s.section.keys.items() if _LAMP.search(k))) for s in shots}
    if len(levels) > 1 and any("no_irradiance" in s.scan.flags for s in shots):
        return ["the lamp level differs between clicks, so their radiances are not comparable"]
    return []


def _joined(
    folder: Path,
    shots: Sequence[_Shot],
    grid: NDArray[np.int_],
    axes: str,
    timing: FrameTiming | None,
    photo: Any,
    warnings: list[str],
) -> Scan:
    scans = [shot.scan for shot in shots]
    first = scans[0]
    lead = tuple(n for n in grid.shape if n > 1)
    order = grid.ravel()

    def stacked(values: Sequence[Any]) -> Any:
        planes = np.stack(np.broadcast_arrays(*(np.atleast_2d(values[i]) for i in order.tolist())))
        return planes.reshape(*lead, *planes.shape[1:]) if lead else values[0]

    band = [scans[i].bands for i in grid[0].tolist()]
    exposures, biases = {s.exposure_s for s in scans}, {s.camera.bias for s in scans}
    notes = [n for n in first.notes if all(n in s.notes for s in scans)]
    notes.append(f"clicks in the order of time: {_named([s.name for s in scans])}")
    if len(exposures) > 1:
        notes.append("exposures differ: " + _named([f"{s.name} {s.exposure_s:g} s" for s in scans if s.exposure_s]))
    if "C" in axes and timing is not None:
        notes.append(f"the bands were taken one after another, within {max(timing.duration_s):g} s")
    header = {k: v for k, v in first.header.items() if all(s.header.get(k) == v for s in scans)}
    if "acquired" in first.header:
        header["acquired"] = f"{first.header['acquired']} (first click)"
    return Scan(
        folder.name,
        folder,
        stacked([s.counts for s in scans]),
        axes,
        first.pixel_size_mm,
        unit=first.unit,
        offset=stacked([s.offset for s in scans]),
        scale=stacked([s.scale for s in scans]),
        exposure_s=first.exposure_s if len(exposures) == 1 else None,
        camera=replace(first.camera, bias=first.camera.bias if len(biases) == 1 else None),
        photograph=photo,
        systematic_rel=max(s.systematic_rel for s in scans),
        timing=timing,
        bands=tuple(b[0] for b in band) if all(band) else (),
        flags=tuple(dict.fromkeys(flag for s in scans for flag in s.flags)),
        notes=tuple(notes),
        warnings=(*warnings, *_shared(scans)),
        header=header,
    )


def _shared(scans: Sequence[Scan]) -> list[str]:
    """Return the clicks' warnings, those of some clicks only with their names."""
    told: dict[str, list[str]] = {}
    for scan in scans:
        for text in scan.warnings:
            told.setdefault(text, []).append(scan.name)
    return [t if len(names) == len(scans) else f"click {_named(names)}: {t}" for t, names in told.items()]


READER = Reader("ivis", "IVIS / Living Image click and sequence folders", _takes, read_ivis)
