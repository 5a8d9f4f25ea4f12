"""The BIDS-PET sidecar: frame times, unit and tracer that a NIfTI file cannot hold.

Sidecars are often wrong (end times as durations, times of another series), and a wrong one turns into
plausible wrong rates: every contradiction is refused by file and key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evbiodist.io.activity import DecayReference, bq_per_ml, isotope_name
from evbiodist.io.scan import Tracer
from evbiodist.io.timing import FrameTiming, TimingError
from evbiodist.study.constants import isotopes
from evbiodist.study.problems import UnreadableImage
from evbiodist.study.units import activity_bq, parse, registry

_MAX_BYTES = 16 << 20
#: No time, activity or weight is larger in any unit; NaN and infinity are not smaller either.
_LARGEST = 1e15
#: Two instants of a sidecar are the same within this, in s.
_SAME_S = 0.5


@dataclass(frozen=True)
class PetSidecar:
    """What a sidecar says of an image.

    Parameters
    ----------
    timing : of the frames, or None where the sidecar gives no times.
    tracer : injected activity.
    bq_per_ml : Bq/mL that one unit of the image is, or None where the unit is none of activity concentration.
    notes, warnings : sentences for the scan; header : the sidecar's own words.
    """

    timing: FrameTiming | None
    tracer: Tracer
    bq_per_ml: float | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    header: dict[str, str]


def read_sidecar(image: Path, sidecar: Path, frames: int) -> PetSidecar:
    """Read the JSON sidecar of a PET image.

    Times in it count from its TimeZero. Where it states InjectionStart, the frames are counted from the
    injection; else from ScanStart, and failing that from TimeZero, with a warning.

    Parameters
    ----------
    image : the image it belongs to, named in errors.
    sidecar : the JSON file, in the image's own folder.
    frames : number of frames in the image.

    Returns
    -------
    PetSidecar : what it does not say is None.

    Raises
    ------
    UnreadableImage : not JSON, a key of another type, or frame times that contradict each other or the image.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a_pet.json"
    >>> _ = file.write_text('{"FrameTimesStart": [60, 90], "FrameDuration": [30, 30], "InjectionStart": 60, '
    ...                     '"Units": "kBq/mL", "TracerRadionuclide": "F18"}')
    >>> found = read_sidecar(file.with_suffix(".nii"), file, 2)
    >>> found.timing.start_s, found.timing.reference, found.bq_per_ml, found.tracer.isotope
    ((0.0, 30.0), 'injection', 1000.0, '18F')

    References
    ----------
    Norgaard et al. 2022, Sci Data 9:65 (PET-BIDS); key names as in the BIDS specification.
    """
    keys = _Keys(image, sidecar, _json_object(image, sidecar))
    notes: list[str] = [f"unit, frame times and tracer are from {sidecar.name}"]
    warnings: list[str] = []
    timing = _timing(keys, frames, notes, warnings)
    tracer = _tracer(keys, timing, notes, warnings)
    return PetSidecar(timing, tracer, _unit(keys, warnings), tuple(notes), tuple(warnings), _header(keys))


@dataclass(frozen=True)
class _Keys:
    """Typed access to a sidecar; a value of another type is an error that names file and key."""

    image: Path
    sidecar: Path
    values: dict[str, Any]

    def fault(self, key: str, reason: str) -> UnreadableImage:
        return UnreadableImage(self.image, f"its sidecar {self.sidecar.name}, key {key}: {reason}")

    def given(self, key: str) -> Any:
        value = self.values.get(key)
        return None if isinstance(value, str) and value.strip().lower() in {"n/a", ""} else value

    def text(self, key: str) -> str | None:
        value = self.given(key)
        return None if value is None else str(value).strip()[:200]

    def number(self, key: str) -> float | None:
        value = self.given(key)
        return None if value is None else self._finite(key, value, "")

    def numbers(self, key: str) -> tuple[float, ...] | None:
        value = self.given(key)
        if value is None:
            return None
        entries = value if isinstance(value, list) else [value]
        return tuple(self._finite(key, v, f"entry {i} is ") for i, v in enumerate(entries, 1))

    def flag(self, key: str) -> bool | None:
        value = self.given(key)
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise self.fault(key, f"{_shown(value)}; expected true or false")
        return value

    def _finite(self, key: str, value: Any, place: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
            return float(value)
        raise self.fault(key, f"{place}{_shown(value)}; expected a number")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _json_object(image: Path, sidecar: Path) -> dict[str, Any]:
    def fault(reason: str) -> UnreadableImage:
        return UnreadableImage(image, f"its sidecar {sidecar.name} {reason}")

    if sidecar.resolve().parent not in {image.parent.resolve(), image.resolve().parent}:
        raise fault("is a link that leads out of the image's folder; put the file itself there")
    if sidecar.stat().st_size > _MAX_BYTES:
        raise fault(f"has {sidecar.stat().st_size} bytes, more than a sidecar holds; export it again")
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as err:
        raise fault(f"is not JSON ({str(err)[:120]}); correct or remove it") from err
    if not isinstance(values, dict):
        raise fault(f"holds {_shown(values)}; expected an object with keys such as FrameTimesStart")
    return values


def _timing(keys: _Keys, frames: int, notes: list[str], warnings: list[str]) -> FrameTiming | None:
    start, duration = keys.numbers("FrameTimesStart"), keys.numbers("FrameDuration")
    injected, scanned = keys.number("InjectionStart"), keys.number("ScanStart")
    if start is None and duration is None:
        notes.append(f"{keys.sidecar.name} gives no frame times, so they are unknown")
        return None
    if start is None or duration is None:
        missing, there = ("FrameTimesStart", "FrameDuration") if start is None else ("FrameDuration", "FrameTimesStart")
        raise keys.fault(missing, f"is missing, but {there} is given; give both")
    try:
        timing = FrameTiming(start, duration)
        timing.check_frames(frames)
    except TimingError as err:
        raise keys.fault("FrameTimesStart and FrameDuration", str(err)) from err
    if injected is not None:
        timing = timing.from_injection(injected)
        if timing.start_s[-1] + timing.duration_s[-1] <= 0:
            warnings.append(f"by {keys.sidecar.name} every frame ends before the injection; check InjectionStart")
        return timing
    if scanned is None:
        warnings.append(f"{keys.sidecar.name} states no InjectionStart, so frames count from its TimeZero, taken as the "
                        "scan's start")  # fmt: skip
        return timing
    return FrameTiming(tuple(s - scanned for s in start), duration)


def _unit(keys: _Keys, warnings: list[str]) -> float | None:
    unit = keys.text("Units")
    factor = bq_per_ml(unit) if unit else None
    if unit is None:
        warnings.append(f"{keys.sidecar.name} states no Units, so values are in counts without a calibration")
    elif factor is None:
        warnings.append(f"{keys.sidecar.name} states Units '{unit}', which is no activity concentration; expected Bq/mL, "
                        "so values are taken as counts without a calibration")  # fmt: skip
    return factor


def _tracer(keys: _Keys, timing: FrameTiming | None, notes: list[str], warnings: list[str]) -> Tracer:
    word = keys.text("TracerRadionuclide")
    isotope = isotope_name(word) if word else None
    if word and isotope not in isotopes():
        notes.append(f"{keys.sidecar.name} states the radionuclide '{word}', whose half-life evbiodist does not know")
    return Tracer(
        isotope=isotope,
        injected_bq=_injected(keys, warnings),
        injected_s=0.0 if timing is not None and timing.reference == "injection" else None,
        decay_corrected_to=_decay(keys, warnings),
        weight_g=_weight(keys, warnings),
    )


def _injected(keys: _Keys, warnings: list[str]) -> float | None:
    value, unit = keys.number("InjectedRadioactivity"), keys.text("InjectedRadioactivityUnits")
    if value is None:
        return None
    try:
        found = activity_bq(value, unit) if unit else None
    except ValueError:
        found = None
    if found is None or found <= 0:
        warnings.append(f"{keys.sidecar.name} states an InjectedRadioactivity of {value:g} {unit or 'without a unit'}; "
                        "expected an activity above 0 such as MBq, so it is unknown")  # fmt: skip
        return None
    return found


def _weight(keys: _Keys, warnings: list[str]) -> float | None:
    import pint

    value, unit = keys.number("BodyWeight"), keys.text("BodyWeightUnits")
    if value is None:
        return None
    try:
        found = float(registry().Quantity(value, parse(unit or "")).to("gram").magnitude)
    except (ValueError, AttributeError, pint.errors.PintError):
        found = 0.0
    if found > 0:
        return found
    warnings.append(f"{keys.sidecar.name} states a BodyWeight of {value:g} {unit or 'without BodyWeightUnits'}; expected a "
                    "mass such as g, so it is unknown")  # fmt: skip
    return None


def _decay(keys: _Keys, warnings: list[str]) -> DecayReference:
    corrected, instant = keys.flag("ImageDecayCorrected"), keys.number("ImageDecayCorrectionTime")
    if corrected is False:
        return "none"
    if not corrected or instant is None:
        return "unknown"
    starts = keys.numbers("FrameTimesStart") or ()
    scan_start = keys.number("ScanStart")
    scan_start = scan_start if scan_start is not None else (starts[0] if starts else None)
    known: dict[DecayReference, float | None] = {
        "injection": keys.number("InjectionStart"),
        "scan_start": scan_start,
    }
    for name, at in known.items():
        if at is not None and abs(at - instant) <= _SAME_S:
            return name
    warnings.append(f"{keys.sidecar.name} states decay correction to {instant:g} s after TimeZero, which is neither its "
                    "InjectionStart nor the scan's start, so what values are corrected to is unknown")  # fmt: skip
    return "unknown"


def _header(keys: _Keys) -> dict[str, str]:
    told = {
        "instrument": " ".join(filter(None, (keys.text("Manufacturer"), keys.text("ManufacturersModelName")))),
        "tracer": keys.text("TracerName"),
        "time zero": keys.text("TimeZero"),
    }
    return {name: value for name, value in told.items() if value}
