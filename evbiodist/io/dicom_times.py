"""The clock and the tracer of a DICOM series: when the scan began, when frames are, what activity refers to.

Vendors keep three clocks in one header, which contradict each other; what cannot be told stays None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from evbiodist.io.dicom_header import (
    ANATOMY,
    EMISSION,
    OddError,
    Told,
    first_item,
    moment_of,
    number_of,
    parsed_moment,
    seconds_between,
    text_of,
)
from evbiodist.io.dicom_planes import Plane, Stack, words_of
from evbiodist.io.scan import Tracer
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.constants import isotopes

_Corrected = Literal["injection", "scan_start", "none", "unknown"]
_DECAY: dict[str, _Corrected] = {"NONE": "none", "START": "scan_start", "ADMIN": "injection"}
_ELEMENTS = {"fluorine": "F", "carbon": "C", "nitrogen": "N", "oxygen": "O", "copper": "Cu", "zirconium": "Zr",
             "gallium": "Ga", "technetium": "Tc", "indium": "In", "iodine": "I", "lutetium": "Lu", "rubidium": "Rb",
             "scandium": "Sc", "yttrium": "Y", "bromine": "Br", "thallium": "Tl", "manganese": "Mn"}  # fmt: skip
_MASS_FIRST = re.compile(r"(?<![\dA-Za-z])\^?(\d{1,3}m?)\^?[\s-]?([A-Za-z]+)")
_NAME_FIRST = re.compile(r"(?<![A-Za-z\d^-])([A-Za-z]+)[\s-]?\^?(\d{1,3}m?)\^?(?![\dA-Za-z])")


def scan_clock(files: Sequence[tuple[Path, Any]], planes: Sequence[Plane], told: Told) -> tuple[datetime | None, bool]:
    """Return the scan's start and whether pixels that are corrected to START refer to it.

    It is the series' time, as QIBA takes it, unless an image was acquired before: then the series was made later,
    and the start is a private GE element, or follows from the reference time of the first image's mean count rate.
    """
    header = files[0][1]
    series = moment_of(header, "Series")
    first = min((p for p in planes if p.acquired), key=lambda p: p.acquired or datetime.max, default=None)
    if first is None or first.acquired is None:
        if text_of(header, "Modality") in EMISSION:
            told.warn("no image states when it was acquired (AcquisitionTime)")
        return series, series is not None
    if series is not None and seconds_between(first.acquired, series) > -1.0:
        return series, True
    late = "states no SeriesTime" if series is None else "has a SeriesTime after its acquisition (it was made later)"
    private = _ge_scan_start(header)
    if private is not None:
        told.note(f"the series {late}; the scan's start is the one of GE's private header")
        return private, True
    if first.reference_s is not None and first.duration_s is not None:
        told.warn(f"the series {late}; the scan's start was taken from AcquisitionTime and FrameReferenceTime")
        ahead = first.reference_s - _mean_count_time(first.duration_s, half_life_of(header))
        return first.acquired - timedelta(seconds=ahead), True
    if text_of(header, "Modality") in EMISSION:
        told.warn(f"the series {late}, so the scan's start is that of the first image, and it is unknown "
                             "what pixels were decay corrected to")  # fmt: skip
    return first.acquired, False


def _ge_scan_start(header: Any) -> datetime | None:
    try:
        value = header.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    except KeyError:
        return None
    moment = parsed_moment(value.decode("ascii", "replace") if isinstance(value, bytes) else str(value))
    return moment.replace(tzinfo=None) if moment else None


def _mean_count_time(duration_s: float, half_life_s: float | None) -> float:
    """Return when, after a frame's start, the decaying count rate equals its mean over the frame."""
    x = math.log(2.0) * duration_s / half_life_s if half_life_s else 0.0
    return duration_s / 2 if x < 1e-6 else duration_s / x * math.log(x / -math.expm1(-x))


def half_life_of(header: Any) -> float | None:
    """Return the isotope's half-life as the header states it, in s."""
    value = number_of(first_item(header, "RadiopharmaceuticalInformationSequence"), "RadionuclideHalfLife")
    return value if value and value > 0 else None


def timing_of(
    stack: Stack, clock: datetime | None, modality: str, half_life_s: float | None, told: Told
) -> FrameTiming | None:
    """Return frame times from AcquisitionTime, or from FrameReferenceTime where that cannot be."""
    if modality in ANATOMY:
        return None
    if any(p.duration_s is None for frame in stack.planes for p in frame):
        told.warn("ActualFrameDuration is missing, so frame times are unknown")
        return None
    made: dict[str, FrameTiming] = {}
    problems: list[str] = []
    for name, starts in (("AcquisitionTime", _acquired(stack, clock)),
                         ("FrameReferenceTime", _referred(stack, half_life_s))):  # fmt: skip
        if starts is None:
            continue
        try:
            made[name] = _frames(stack, starts)
        except TimingError as err:
            problems.append(f"by {name}, {err}")
    if not made:
        if problems:
            raise OddError(f"its frame times contradict each other: {'; '.join(problems)}")
        told.warn("neither AcquisitionTime nor FrameReferenceTime is there, so frame times are unknown")
        return None
    name, timing = next(iter(made.items()))
    if problems:
        told.warn(f"frame times come from {name}, because {problems[0]}")
    if len(made) == 2:
        apart = abs(made["AcquisitionTime"].start_s[0] - made["FrameReferenceTime"].start_s[0])
        if apart > max(1.0, 0.02 * timing.duration_s[0]):
            told.warn(f"AcquisitionTime and FrameReferenceTime put the first frame {apart:g} s apart; "
                                 "the times are those of AcquisitionTime")  # fmt: skip
    if any(len({p.acquired for p in frame}) > 1 for frame in stack.planes):
        told.note("slices were acquired at different times (bed positions); a frame lasts from its first to its "
                          "last slice")  # fmt: skip
    return timing


def _acquired(stack: Stack, clock: datetime | None) -> list[list[float]] | None:
    if clock is None or any(p.acquired is None for frame in stack.planes for p in frame):
        return None
    return [[seconds_between(p.acquired, clock) for p in frame if p.acquired] for frame in stack.planes]


def _referred(stack: Stack, half_life_s: float | None) -> list[list[float]] | None:
    if any(p.reference_s is None for frame in stack.planes for p in frame):
        return None
    return [[(p.reference_s or 0.0) - _mean_count_time(p.duration_s or 0.0, half_life_s) for p in frame]
            for frame in stack.planes]  # fmt: skip


def _frames(stack: Stack, starts: list[list[float]]) -> FrameTiming:
    """Return one start and duration a frame: the earliest start and the latest end of its slices."""
    ends = [[s + (p.duration_s or 0.0) for s, p in zip(own, frame, strict=True)]
            for own, frame in zip(starts, stack.planes, strict=True)]  # fmt: skip
    begin = [round(min(own), 6) for own in starts]
    return FrameTiming(tuple(begin), tuple(round(max(e) - b, 6) for e, b in zip(ends, begin, strict=True)))


def tracer_of(header: Any, clock: datetime | None, end_s: float, trusted: bool, told: Told) -> Tracer | None:
    """Return what the header says of the injected activity; None for CT and MR."""
    modality = text_of(header, "Modality")
    if modality not in EMISSION:
        return None
    items: Any = header.get("RadiopharmaceuticalInformationSequence") or ()
    kilograms = number_of(header, "PatientWeight")
    weight = 1000.0 * kilograms if kilograms and kilograms > 0 else None
    if weight and weight > 5000:
        told.warn(f"PatientWeight is {weight / 1000:g} kg; if these are grams, every SUV is 1000 times too high")
    corrected = _corrected(header, clock, trusted, told)
    if len(items) != 1:
        if items:
            told.warn(f"it names {len(items)} radiopharmaceuticals, so dose and isotope are left open")
        return Tracer(decay_corrected_to=corrected, weight_g=weight)
    item = items[0]
    half_life_s = half_life_of(header)
    return Tracer(
        _named_isotope(item, half_life_s, told),
        half_life_s,
        _dose(item, modality, told),
        _injected(item, header, clock, end_s, half_life_s, told),
        corrected,
        weight,
    )


def _corrected(header: Any, clock: datetime | None, trusted: bool, told: Told) -> _Corrected:
    """Return what pixels are decay corrected to, from the words of classic or enhanced headers."""
    stated = text_of(header, "DecayCorrection")
    if not stated:
        return _corrected_enhanced(header, clock)
    if stated not in _DECAY:
        told.warn(f"DecayCorrection is '{stated}', not NONE, START or ADMIN, so it is unknown")
        return "unknown"
    done = words_of(header, "CorrectedImage")
    if stated != "NONE" and done and "DECY" not in done:
        told.warn(f"DecayCorrection is {stated}, but CorrectedImage does not list DECY, so it is unknown")
        return "unknown"
    return "unknown" if stated == "START" and not trusted else _DECAY[stated]


def _corrected_enhanced(header: Any, clock: datetime | None) -> _Corrected:
    if text_of(header, "DecayCorrected") == "NO":
        return "none"
    to = parsed_moment(text_of(header, "DecayCorrectionDateTime"))
    at_start = to is not None and clock is not None and abs(seconds_between(to.replace(tzinfo=None), clock)) <= 1.0
    return "scan_start" if at_start and text_of(header, "DecayCorrected") == "YES" else "unknown"


def _dose(item: Any, modality: str, told: Told) -> float | None:
    """Return the injected activity in Bq: PET headers state Bq, nuclear-medicine headers MBq."""
    dose = number_of(item, "RadionuclideTotalDose")
    if dose is None or dose <= 0:
        return None
    if modality == "PT":
        if dose < 1e4:
            told.warn(f"RadionuclideTotalDose is {dose:g} Bq, which is too little to image; it may be MBq")
        return dose
    if dose > 1e5:
        told.warn(f"RadionuclideTotalDose is {dose:g}, too much for the MBq of this kind of image; taken as Bq")
        return dose
    told.note("RadionuclideTotalDose is in MBq in this kind of image")
    return dose * 1e6


def _injected(
    item: Any, header: Any, clock: datetime | None, end_s: float, half_life_s: float | None, told: Told
) -> float | None:
    """Return the time of injection in s after the scan's start (negative: before)."""
    if clock is None:
        return None
    moment = parsed_moment(text_of(item, "RadiopharmaceuticalStartDateTime"))
    if moment is not None:
        return seconds_between(_local(moment, header, told), clock)
    of_day = parsed_moment(clock.strftime("%Y%m%d") + text_of(item, "RadiopharmaceuticalStartTime"))
    if of_day is None:
        return None
    after = seconds_between(of_day.replace(tzinfo=None), clock)
    day = "on the day of the scan"
    if after > max(end_s, 0.0):
        after, day = after - 86400.0, "the day before the scan, because its time of day is after the scan's end"
    sentence = f"only the time of day of the injection is stated; it was taken to be {day}"
    (told.warn if half_life_s is None or half_life_s > 6 * 3600 else told.note)(sentence)
    return after


def _local(moment: datetime, header: Any, told: Told) -> datetime:
    """Return a moment on the clock of the series; offsets from UTC are undone where both are known."""
    if moment.tzinfo is None:
        return moment
    offset = re.match(r"^([+-])(\d{2})(\d{2})$", text_of(header, "TimezoneOffsetFromUTC"))
    own = moment.utcoffset()
    if offset is None or own is None:
        told.note("the injection's offset from UTC was ignored, as the series states none")
        return moment.replace(tzinfo=None)
    minutes = (int(offset[2]) * 60 + int(offset[3])) * (-1 if offset[1] == "-" else 1)
    return moment.replace(tzinfo=None) - own + timedelta(minutes=minutes)


def _named_isotope(item: Any, half_life_s: float | None, told: Told) -> str | None:
    code = first_item(item, "RadionuclideCodeSequence")
    texts = (text_of(code, "CodeMeaning"), text_of(item, "Radiopharmaceutical"))
    isotope = next((found for text in texts if (found := _isotope(text))), None)
    known = isotopes().get(isotope or "")
    if known and half_life_s and abs(half_life_s / (known * 3600.0) - 1) > 0.02:
        told.warn(f"the header gives {isotope} a half-life of {half_life_s / 3600:.4g} h; it is {known:.4g} h")
    return isotope


def _isotope(text: str) -> str | None:
    """Return an isotope as `18F` from ``^18^Fluorine``, ``F-18``, ``Fluorine 18`` or ``18F-FDG``."""
    pairs = [(m[1], m[2]) for m in _MASS_FIRST.finditer(text)] + [(m[2], m[1]) for m in _NAME_FIRST.finditer(text)]
    symbols = {s.lower(): s for s in _ELEMENTS.values()}
    found = {f"{mass}{symbol}" for mass, name in pairs
             if (symbol := _ELEMENTS.get(name.lower()) or symbols.get(name.lower()))}  # fmt: skip
    return found.pop() if len(found) == 1 else None
