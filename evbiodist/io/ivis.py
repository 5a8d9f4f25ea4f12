"""IVIS / Living Image click folders: the header in full, and raw counts to radiance.

    radiance = (counts - bias - dark) * C_ccd(FOV, f) / (t * binning^2) / ff(r)

The vendor's corrected image is preferred when the header's flags say that it is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from evbiodist.io.registry import Reader
from evbiodist.io.scan import Camera, FloatArray, Scan
from evbiodist.io.tiff import check_complete
from evbiodist.study.problems import UnreadableImage

_INFO = "ClickInfo.txt"
_ANALYZED = "AnalyzedClickInfo.txt"
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
        """Return a file of the folder regardless of upper and lower case, or None."""
        return next((p for p in sorted(self.folder.iterdir()) if p.name.lower() == name.lower()), None)


def load_click(path: Path) -> Click:
    """Read a click folder's header (with the analysed one, when saved).

    Raises
    ------
    UnreadableImage : no header, or one without sections.
    """
    folder = path if path.is_dir() else path.parent
    text = ""
    for name in (_INFO, _ANALYZED):
        file = next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), None)
        if file is not None:
            text += file.read_bytes().decode("cp1252", errors="replace") + "\n"
    sections = parse_click_info(text)
    if not any(s.file for s in sections):
        raise UnreadableImage(path, f"its {_INFO} describes no image; copy the whole click folder again")
    return Click(folder, sections)


def _takes(path: Path) -> bool:
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix.lower() not in {".tif", ".tiff", ".txt"}:
        return False
    names = {p.name.lower() for p in folder.iterdir()}
    return _INFO.lower() in names and (path.is_dir() or path.suffix.lower() != ".txt" or "click" in path.name.lower())


def _pixels(path: Path) -> Any:
    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            check_complete(path, tif)
            return tif.pages[0].asarray()
    except tifffile.TiffFileError as err:
        raise UnreadableImage(path, f"not a TIFF that can be read ({err}); copy it again") from err


def read_click(path: Path) -> Scan:
    """Read a click: the folder or its header gives the calibrated image, a single TIFF gives that image.

    Parameters
    ----------
    path : click folder, ClickInfo.txt, or one of the folder's TIFFs.

    Returns
    -------
    Scan : of the luminescent image in counts, whose `signal` is radiance in p/s/cm2/sr; for the
        photograph, bias and dark files the plain image with its part of the header.

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
        if section is None or not section.name.lower().startswith(("luminescent", "fluorescent", "corrected")):
            return _side_image(path, click, section)
    return _main_image(path, click)


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
    text = click.value("CCD Saturation Level")
    return float(text) if text else None


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
    """Return the vendor's corrected image when its flags say that it is calibrated radiance."""
    for section in reversed(click.sections):
        named = section.file.lower().startswith("luminescentfloatcorrected")
        path = click.path(section.file) if named else None
        calibrated = "p/s" in section.keys.get("Intensity Calibration", "").lower().replace("sec", "s")
        if path and section.on("Flat Field Corrected") and calibrated:
            return section, path
    return None


def _main_image(path: Path, click: Click) -> Scan:
    vendor = _corrected(click)
    raw = click.find("luminescent image", "fluorescent image", "luminescent", "fluorescent")
    section = vendor[0] if vendor else raw
    if section is None:
        raise UnreadableImage(path, "the click holds no luminescent or fluorescent image; copy the whole folder again")
    file = vendor[1] if vendor else click.path(section.file)
    if file is None:
        raise UnreadableImage(path, f"the header names {section.file}, which is not in the folder; copy it too")
    counts = _pixels(file)
    photo, photo_notes = _photograph(click, section)
    bias = section.number("Read Bias Level")
    camera = Camera(bias=None if vendor else bias, saturation=None if vendor else _saturation(click))
    exposure = section.number("Luminescent Exposure (Seconds)")
    size = _pixel_size(section, counts.shape[1])
    notes: list[str] = []
    warnings, flags = [*photo_notes], ["systematic"]
    offset: Any = 0.0
    scale: Any = 1.0
    if vendor:
        notes.append("pixels are the vendor's corrected radiance (Intensity Calibration and flags say so)")
        if section.keys.get("Image Units", "").lower() == "counts":
            warnings.append("its 'Image Units: counts' contradicts the calibration flags, which are believed")
    else:
        dark, dark_note = _dark(click, section, exposure)
        offset, scale = (bias or 0.0) + dark, _radiance_per_count(path, click, section, counts.shape, exposure)
        if dark_note:
            warnings.append(dark_note)
            flags.append("no_dark")
        if bias is None:
            raise UnreadableImage(path, "the header gives no Read Bias Level, so counts have no zero; "
                                        "export the click again")  # fmt: skip
        notes.append("radiance computed from raw counts with flat field; Living Image's own may differ by about 6 %")
    return Scan(
        click.folder.name,
        file,
        counts,
        "YX",
        size,
        unit="p/s/cm2/sr",
        offset=offset,
        scale=scale,
        exposure_s=exposure,
        camera=camera,
        photograph=photo,
        systematic_rel=_SYSTEMATIC_VENDOR if vendor else _SYSTEMATIC_RAW,
        flags=tuple(flags),
        notes=tuple(notes),
        warnings=tuple(warnings),
        header={**_header(click, section), "calibration": "vendor" if vendor else "from raw counts"},
    )


def _photograph(click: Click, main: Section) -> tuple[Any, list[str]]:
    section = click.find("photographic")
    path = click.path(section.file) if section else None
    if section is None or path is None:
        return None, ["there is no photograph"]
    if section.number("Field of View") != main.number("Field of View"):
        return None, ["the photograph has another field of view and is not used"]
    return _pixels(path), []


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
    shelf = next((k for s in click.sections for k, v in s.keys.items()
                  if re.fullmatch(r"Shelf Position [A-Z] FOV", k) and float(v) == fov), None)  # fmt: skip
    key = f"{shelf[:16]} FF5 f/{f_number:g} Coefs" if shelf else ""
    text = click.value(key)
    if not text:
        return np.ones(shape[-2:])
    *k, x0, y0 = (float(part) for part in text.split(","))
    pixel = fov / shape[-1]
    y = (np.arange(shape[-2]) - (shape[-2] - 1) / 2) * pixel - y0
    x = (np.arange(shape[-1]) - (shape[-1] - 1) / 2) * pixel - x0
    return np.polynomial.polynomial.polyval(np.hypot(y[:, None], x[None, :]), k)


READER = Reader("ivis", "IVIS / Living Image click folders", _takes, read_click)
