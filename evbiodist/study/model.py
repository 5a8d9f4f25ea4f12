"""What was done, as frozen validated values: a study, its labels, subjects, scans and settings.

Constructing validates. Field names are the keys of study.toml and the columns of its tables, so
the models are the schema; `evbiodist.study.load` reads files into them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from evbiodist.study import units
from evbiodist.study.constants import isotopes
from evbiodist.study.group_settings import GroupSettings
from evbiodist.study.labels import fill, label_model
from evbiodist.study.priors import Prior, read_priors
from evbiodist.study.problems import nearest
from evbiodist.study.vesicles import Vesicles
from evbiodist.study.vocabulary import STANDARD, LabelKind, Route, ScanKind, organ_name


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)


def _yes_no(text: object) -> object:
    word = str(text).strip().lower()
    if word in {"yes", "true", "1"}:
        return True
    if word in {"no", "false", "0"}:
        return False
    raise ValueError("yes or no")


YesNo = Annotated[bool, BeforeValidator(_yes_no)]


def _known_unit(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("a unit as text, such as bq or particles")
    units.check(text)
    return text


def _organ(text: object) -> str:
    name = organ_name(text) if isinstance(text, str) else ""
    if not name:
        raise ValueError("the name of an organ")
    return name


Unit = Annotated[str, BeforeValidator(_known_unit)]
ValueUnit = Literal["pct_id", "pct_id_per_g", "pct_recovered", "p_per_s", "bq", "particles", "au"]
VALUE_UNITS: tuple[str, ...] = get_args(ValueUnit)


Organ = Annotated[str, BeforeValidator(_organ)]
#: Fewest samples of a terminal line.
LEAST_ON_LINE = 3


class Label(_Frozen):
    """A label and its physics: what kind of signal it gives, how it decays, and what is known of how it misleads.

    `catalogue` names an entry of `evbiodist.study.labels`, from which kind, isotope and wavelengths are filled
    where they are left out; `readout` is how it was read; `priors` replace the entry's.

    Examples
    --------
    >>> Label(kind="radioactive", isotope="111In").half_life_h
    67.313
    """

    kind: LabelKind
    isotope: str | None = None
    half_life_h: float | None = Field(default=None, gt=0)
    emission_nm: float | None = Field(default=None, gt=200, lt=2000)
    excitation_nm: float | None = Field(default=None, gt=200, lt=2000)
    catalogue: str | None = None
    readout: str | None = None
    priors: Annotated[dict[str, Prior], BeforeValidator(read_priors)] = Field(default_factory=dict)
    description: str = ""
    source: str = ""

    @classmethod
    def named(cls, name: str) -> Label:
        """Return the catalogue's label of a name, or one of which nothing is known but that it is a label.

        Examples
        --------
        >>> Label.named("In-111").isotope, Label.named("my own dye").kind
        ('111In', 'molecular')
        """
        return cls.model_validate({"kind": "molecular", "description": "not described"} | fill(name, {}))

    @model_validator(mode="before")
    @classmethod
    def _physics(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("catalogue") is not None:
            data = fill("", data)
        if isinstance(data, dict) and data.get("isotope") and data.get("half_life_h") is None:
            known = isotopes()
            if not isinstance(data["isotope"], str) or data["isotope"] not in known:
                raise ValueError(f"a known isotope, or half_life_h beside it; {nearest(str(data['isotope']), known)}")
            data = {**data, "half_life_h": known[data["isotope"]]}
        if isinstance(data, dict) and data.get("kind") == "radioactive" and data.get("half_life_h") is None:
            raise ValueError("an isotope (or half_life_h) for a radioactive label")
        return data


class Subject(_Frozen):
    """An animal with its dose (a row of subjects.csv); an animal with two labels has two rows."""

    subject: str = Field(min_length=1)
    label: str = Field(min_length=1)
    dose: float = Field(gt=0)
    dose_unit: Unit
    route: Route
    infusion_h: float | None = Field(default=None, gt=0)
    group: str = "all"
    species: str | None = None
    sex: Literal["F", "M", "unknown"] = "unknown"
    weight_g: float | None = Field(default=None, gt=0)
    perfused: YesNo = False
    batch: str = ""


class ScanRecord(_Frozen):
    """One image of one or more animals at one time (a row of scans.csv).

    `subject` holds several names joined by ``;`` when several animals lie side by side: they are
    the animals of the photograph from left to right.
    """

    scan: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    label: str = Field(min_length=1)
    time_h: float = Field(ge=0)
    kind: ScanKind
    file: str = Field(min_length=1)
    view: Literal["dorsal", "ventral", "left", "right", "tray", "unknown"] = "unknown"
    organs: str | None = None
    photograph: str | None = None
    pixel_size_mm: float | None = Field(default=None, gt=0)
    exposure_s: float | None = Field(default=None, gt=0)
    gain_e: float | None = Field(default=None, gt=0)
    read_noise_e: float | None = Field(default=None, ge=0)
    bias: float | None = None
    saturation: float | None = Field(default=None, gt=0)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the animals in the image, left to right."""
        return tuple(name.strip() for name in self.subject.split(";") if name.strip())


class Mass(_Frozen):
    """Mass of an organ or sample of one animal (a row of masses.csv)."""

    subject: str = Field(min_length=1)
    organ: Organ
    mass_g: float = Field(gt=0)


class Observation(_Frozen):
    """One value of one organ at one time (a row of observations.csv, the hinge)."""

    subject: str = Field(min_length=1)
    label: str = Field(min_length=1)
    organ: Organ
    time_h: float = Field(ge=0)
    unit: ValueUnit
    value: float | None = None
    se: float | None = Field(default=None, ge=0)
    se_systematic: float | None = Field(default=None, ge=0)
    sd: float | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1, le=1_000_000)
    mass_g: float | None = Field(default=None, gt=0)
    lloq: float | None = Field(default=None, ge=0)
    below_lloq: YesNo = False
    vessel_blood: float | None = None
    study: str = ""
    group: str = "all"
    flags: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _present_or_below(self) -> Self:
        if self.value is None and not self.below_lloq:
            raise ValueError("a value, or below_lloq = yes with an empty value")
        return self


#: Columns of observations.csv, in order.
OBSERVATION_COLUMNS = (
    "study", "subject", "group", "label", "organ", "time_h", "value", "se", "unit", "mass_g", "lloq", "below_lloq",
    "flags", "source", "se_systematic", "sd", "n", "vessel_blood",
)  # fmt: skip


class ObservationSource(_Frozen):
    """A table of organ values that enters at the hinge, with what the table itself does not say."""

    file: str
    label: str | None = None
    group: str = "all"
    subject: str = "pooled"
    unit: ValueUnit | None = None
    n: int | None = Field(default=None, ge=1, le=1_000_000)
    decay_corrected: bool = True
    dose: float | None = Field(default=None, gt=0)
    dose_unit: Unit | None = None
    route: Route = "iv_bolus"
    perfused: bool = False
    rois: dict[str, Organ] = Field(default_factory=dict)
    source: str = ""


class StandardSettings(_Frozen):
    """The dose standard lying in the image: which region it is and what share of the dose it holds."""

    organ: Organ = STANDARD
    pct_of_dose: float = Field(gt=0, le=1000)
    pct_of_dose_se: float = Field(default=0.0, ge=0)


class CurveSettings(_Frozen):
    """A standard curve that turns signals into amounts: a CSV of standards and how to fit it (ICH Q2)."""

    file: str
    weights: Literal["1", "1/x", "1/x2", "1/var"] = "1/x2"
    scale: Literal["linear", "log"] = "linear"
    intercept: bool = True
    sigma_from: Literal["residual", "intercept", "blank"] = "residual"


class OutlineSettings(_Frozen):
    """How far outlines of organs may be off, as standard deviations: what another annotator would draw."""

    shift_sd_mm: float = Field(ge=0)
    grow_sd_mm: float = Field(ge=0)
    draws: int = Field(default=40, ge=10, le=1000)


class ImagingSettings(_Frozen):
    """How images become organ signals."""

    footprint: Literal["roi", "psf", "optical"] = "roi"
    psf_fwhm_mm: float | None = Field(default=None, gt=0)
    psf_fwhm_z_mm: float | None = Field(default=None, gt=0)
    psf_fwhm_px: float | None = Field(default=None, gt=0)
    nonnegative: bool = False
    cosmic: bool = True
    thickness: Literal["ignore", "flag", "correct"] = "flag"
    tray: tuple[tuple[Organ, ...], ...] = ()
    tray_organs: tuple[Organ, ...] = ()
    spectra: str | None = None
    curve: CurveSettings | None = None
    outline: OutlineSettings | None = None
    register_by: Literal["none", "body", "intensity"] = "none"
    organ_labels: dict[str, Organ] = Field(default_factory=dict)
    standard: StandardSettings | None = None

    @field_validator("organ_labels", mode="after")
    @classmethod
    def _integers(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if not (key.isascii() and key.isdecimal() and 0 < len(key) < 10 and int(key) > 0):
                raise ValueError(f"pixel values 1, 2, ... as keys, not '{key}'")
        return value

    @model_validator(mode="after")
    def _one_calibration(self) -> Self:
        if self.curve is not None and self.standard is not None:
            raise ValueError("either imaging.standard (in the image) or imaging.curve (a table), not both")
        return self

    @model_validator(mode="after")
    def _psf_width(self) -> Self:
        if self.footprint == "psf" and self.psf_fwhm_mm is None and self.psf_fwhm_px is None:
            raise ValueError("psf_fwhm_mm or psf_fwhm_px beside footprint = 'psf'")
        return self


class CorrectionSettings(_Frozen):
    """What is corrected in the observations before kinetics."""

    decay: bool = True
    vessel_blood: Literal["subtract", "keep"] = "subtract"


class LambdaZChoice(_Frozen):
    """Samples that a person put on the terminal line of a curve, instead of those that fit best, and why.

    Empty `group` and `subject`, and no `unit`, stand for every curve of that label in that organ. Of the choices that
    hold for a curve the most specific one counts: one for its subject before one for its group, before one for its unit.

    Examples
    --------
    >>> choice = LambdaZChoice(label="DiR", organ="Blood", times_h=(24, 4, 8), why="2 h is still distribution")
    >>> choice.times_h, choice.holds("treated", "DiR", "blood", "pct_id_per_g", "m1"), choice.specific
    ((4.0, 8.0, 24.0), True, (False, False, False))
    """

    label: str = Field(min_length=1)
    organ: Organ
    group: str = ""
    subject: str = ""
    unit: ValueUnit | None = None
    times_h: tuple[Annotated[float, Field(ge=0)], ...]
    why: str

    @field_validator("times_h", mode="after")
    @classmethod
    def _a_line(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < max(LEAST_ON_LINE, len(value)):
            raise ValueError(f"at least {LEAST_ON_LINE} different times in h, each of them once")
        return tuple(sorted(value))

    @field_validator("why", mode="after")
    @classmethod
    def _a_reason(cls, value: str) -> str:
        if not value:
            raise ValueError("why these samples make the terminal line: whoever reads the number will ask")
        return " ".join(value.split())

    def holds(self, group: str, label: str, organ: str, unit: str, subject: str) -> bool:
        """Return whether the choice holds for a curve."""
        named = ((self.group, group), (self.subject, subject), (self.unit, unit))
        return (self.label, self.organ) == (label, organ) and all(not mine or mine == its for mine, its in named)

    @property
    def specific(self) -> tuple[bool, bool, bool]:
        """How specific it is, in the order of what counts most: by subject, group, unit."""
        return bool(self.subject), bool(self.group), bool(self.unit)

    def __str__(self) -> str:
        where = [self.label, self.organ, *(f"{k} {v}" for k in ("group", "subject", "unit") if (v := getattr(self, k)))]
        return f"{', '.join(where)} at {', '.join(f'{t:g}' for t in self.times_h)} h"


class KineticsSettings(_Frozen):
    """Rules of the non-compartmental analysis and the models to fit."""

    method: Literal["linear", "lin-up-log-down", "lin-log", "log"] = "lin-up-log-down"
    blq: Literal["drop", "zero", "lloq/2", "pknca"] = "pknca"
    rules: Literal["evbiodist", "winnonlin", "pknca", "noncompart"] = "evbiodist"
    partial: tuple[tuple[float, float], ...] = ()
    refuse_extrap: bool = False
    max_extrap_pct: float = Field(default=20.0, gt=0, le=100)
    lambda_z: tuple[LambdaZChoice, ...] = ()
    models: tuple[str, ...] = ("two_compartment_iv", "plasma_with_organs")
    models_file: str | None = None
    weights: Literal["pooled", "given", "constant", "proportional", "combined"] = "pooled"
    loss: Literal["squares", "huber", "soft_l1", "cauchy"] = "squares"
    fit_scale: Literal["linear", "log"] = "linear"
    fit_blq: Literal["drop", "m3"] = "drop"
    fixed: dict[str, float] = Field(default_factory=dict)
    level: float = Field(default=0.95, gt=0.5, lt=1)

    @field_validator("lambda_z", mode="after")
    @classmethod
    def _one_choice_each(cls, value: tuple[LambdaZChoice, ...]) -> tuple[LambdaZChoice, ...]:
        # equally specific choices hold for one curve only where they name the same, so looking for repeats is enough
        seen: dict[tuple[str | None, ...], LambdaZChoice] = {}
        for choice in value:
            curves = (choice.label, choice.organ, choice.group, choice.subject, choice.unit)
            if curves in seen:
                raise ValueError(f"one choice of samples for the same curves, not both '{seen[curves]}' and '{choice}'")
            seen[curves] = choice
        return value


class CrossvalSettings(_Frozen):
    """What is compared across labels, and how they are brought to one answer.

    `controls` says what groups of animals got that are not vesicles with a label; `leave_out` what is predicted from the rest;
    `posterior_draws` how many draws of the whole posterior are made, which takes minutes.
    """

    organ: Organ = "brain"
    scale: Literal["log", "linear"] = "log"
    model: str = "plasma_with_organs"
    joint: bool = True
    controls: dict[str, Literal["vesicles", "free_label", "background"]] = Field(default_factory=dict)
    leave_out: tuple[Literal["label", "organ", "time", "animal"], ...] = ("label", "organ", "time", "animal")
    next_animals: int = Field(default=4, ge=1, le=1000)
    posterior_draws: int = Field(default=0, ge=0, le=1_000_000)
    assay: str | None = None


class Settings(_Frozen):
    """Everything a run can be told; written to settings.toml so that it can be repeated."""

    imaging: ImagingSettings = ImagingSettings()
    corrections: CorrectionSettings = CorrectionSettings()
    kinetics: KineticsSettings = KineticsSettings()
    crossval: CrossvalSettings = CrossvalSettings()
    groups: GroupSettings = GroupSettings()


class Tables(_Frozen):
    """The CSV files beside study.toml."""

    subjects: str | None = None
    scans: str | None = None
    masses: str | None = None
    observations: tuple[ObservationSource, ...] = ()

    @field_validator("observations", mode="before")
    @classmethod
    def _files(cls, value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            return [{"file": item} if isinstance(item, str) else item for item in value]
        return value


#: Words that consensus.csv uses beside labels.
RESERVED_LABELS = ("mean", "joint", "consensus")


class StudyFile(Settings):
    """study.toml as it stands: the study's name, species, labels, tables and settings."""

    name: str = Field(min_length=1)
    species: str = "mouse"
    description: str = ""
    source: str = ""
    simulated: bool = False
    vesicles: Vesicles | None = None
    labels: dict[str, Label] = Field(min_length=1)
    tables: Tables

    @field_validator("labels", mode="before")
    @classmethod
    def _from_catalogue(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: fill(name, table) if isinstance(table, dict) and table.get("catalogue") is None else table
                for name, table in value.items()}  # fmt: skip

    @field_validator("labels", mode="after")
    @classmethod
    def _not_reserved(cls, value: dict[str, Label]) -> dict[str, Label]:
        for name in value:
            if name.lower() in RESERVED_LABELS or not name.strip():
                raise ValueError(f"another name for the label '{name}', which stands for a row of consensus.csv")
        return value

    @field_validator("labels", mode="after")
    @classmethod
    def _known_readouts(cls, value: dict[str, Label]) -> dict[str, Label]:
        for name, label in value.items():
            if label.readout is not None:
                label_model(name, label)
        return value


class Study(_Frozen):
    """A study, read and checked: what was given to whom, what was imaged, and how to analyse it."""

    root: Path
    name: str
    species: str
    description: str
    source: str
    simulated: bool
    labels: dict[str, Label]
    subjects: tuple[Subject, ...]
    scans: tuple[ScanRecord, ...]
    masses: tuple[Mass, ...]
    observation_sources: tuple[ObservationSource, ...]
    settings: Settings
    files: tuple[str, ...]
    scans_table: str = "scans.csv"
    vesicles: Vesicles | None = None

    def subject(self, name: str, label: str) -> Subject | None:
        """Return the animal's row for a label, or None."""
        return next((s for s in self.subjects if s.subject == name and s.label == label), None)

    def mass_g(self, subject: str, organ: str) -> float | None:
        """Return the mass of an animal's organ, or None when nobody weighed it."""
        return next((m.mass_g for m in self.masses if m.subject == subject and m.organ == organ), None)
