"""What was injected, as MISEV2023 and EV-TRACK ask it to be reported: source, isolation, amount, size, markers, labelling.

Everything may be left out, because published studies leave it out; what is left out is told as missing, never filled in.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Carrier = Literal["vesicles", "free_label", "liposomes", "particles", "molecule"]
SourceKind = Literal["cell_culture", "body_fluid", "tissue", "bacteria", "plant", "food", "synthetic"]
CARRIERS: tuple[str, ...] = get_args(Carrier)

#: What authors call the same step of an isolation.
_SAME_STEP = {
    "uc": "ultracentrifugation", "duc": "ultracentrifugation", "differential_ultracentrifugation": "ultracentrifugation",
    "differential_centrifugation": "ultracentrifugation", "size_exclusion": "sec", "size_exclusion_chromatography": "sec",
    "tangential_flow_filtration": "tff", "iodixanol": "density_gradient", "sucrose_gradient": "density_gradient",
    "iodixanol_gradient": "density_gradient", "dguc": "density_gradient", "peg": "precipitation",
    "exoquick": "precipitation", "immunoprecipitation": "immunocapture", "immunoaffinity": "immunocapture",
    "uf": "ultrafiltration", "filtration_0_22_um": "filtration",
}  # fmt: skip


def plain_text(text: str) -> str:
    """Refuse text that a terminal would obey or that UTF-8 cannot hold."""
    if any(not c.isprintable() for c in text):
        raise ValueError("text without control characters")
    return text


def isolation_step(text: str) -> str:
    """Return a step of an isolation in lower snake case, by one name for each method that has several.

    Examples
    --------
    >>> isolation_step("Differential ultracentrifugation"), isolation_step("SEC"), isolation_step("our own column")
    ('ultracentrifugation', 'sec', 'our_own_column')
    """
    words = re.sub(r"\W+", "_", text.strip()).strip("_").lower()
    if not words:
        raise ValueError("the name of a step such as ultracentrifugation or sec")
    return _SAME_STEP.get(words, words)


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(plain_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list), Field(max_length=50)]
Steps = Annotated[
    tuple[Annotated[Text, AfterValidator(isolation_step)], ...], BeforeValidator(_list), Field(max_length=20)
]


def _told(default: object, description: str, compared: str, **limits: Any) -> Any:
    """Return a field that may be left out, with what it is and what it is for when studies are compared."""
    return Field(default, description=description, json_schema_extra={"compared": compared}, **limits)


class Vesicles(BaseModel):
    """`[vesicles]` of a study: what was injected and how it was made, counted, checked and labelled.

    Examples
    --------
    >>> Vesicles(source_cell="HEK293T", isolation=["TFF", "size exclusion"], size_mode_nm=110).isolation
    ('tff', 'sec')

    Notes
    -----
    Welsh et al., J Extracell Vesicles 2024;13:e12404 (MISEV2023). Van Deun et al., Nat Methods 2017;14:228 (EV-TRACK).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    carrier: Carrier | None = _told(
        None, "what was injected: " + ", ".join(CARRIERS), "studies of different carriers are told when they are pooled"
    )
    ev_track: Text | None = _told(
        None, "identifier in the EV-TRACK knowledgebase, such as EV200001", "the entry there, with its own metrics",
        pattern=r"^EV\d{6}$",
    )  # fmt: skip
    source_cell: Text | None = _told(
        None,
        "cell line, cell type or fluid that the vesicles come from",
        "the same source in another organism or label",
    )
    source_organism: Text | None = _told(
        None, "organism of the source", "the injected animal's species: foreign vesicles are cleared otherwise"
    )
    source_kind: SourceKind | None = _told(
        None, "kind of the source: " + ", ".join(get_args(SourceKind)), "studies of the same kind of source"
    )
    culture_medium: Text | None = _told(
        None, "medium, and how its serum was rid of vesicles", "a control of the medium alone"
    )
    isolation: Steps = _told(
        (), "steps of isolation, in order", "studies with the same last step: co-isolated protein differs by it"
    )
    storage: Text | None = _told(
        None, "buffer, temperature and time of storage, cycles of freezing", "fresh vesicles of the same source"
    )
    particles_per_dose: float | None = _told(
        None, "particles an animal", "other studies' dose: clearance saturates with it", gt=0
    )
    particles_method: Text | None = _told(
        None,
        "how particles were counted (NTA, TRPS, nano-flow)",
        "counts of the same method; methods differ severalfold",
    )
    protein_ug_per_dose: float | None = _told(
        None, "protein an animal, ug", "particles per ug of protein, a measure of purity", gt=0
    )
    size_mode_nm: float | None = _told(
        None, "mode of the diameter, nm", "openings of vessels: spleen and liver sieve by size", gt=1, lt=20_000
    )
    size_method: Text | None = _told(None, "how size was measured", "sizes of the same method")
    zeta_mv: float | None = _told(
        None, "zeta potential, mV", "the source's unlabelled vesicles: dyes change the charge", gt=-200, lt=200
    )
    markers: Texts = _told((), "proteins shown to be there, of membrane and inside", "at least one of each (MISEV2023)")
    absent_markers: Texts = _told(
        (), "proteins shown not to be there", "what comes along with the source (albumin, apolipoproteins, calnexin)"
    )
    microscopy: Text | None = _told(
        None, "electron or atomic force microscopy that shows single vesicles", "free label and aggregates"
    )
    modification: Text | None = _told(
        None,
        "what was changed on or in the vesicles; 'none' where nothing was",
        "unchanged vesicles of the same source",
    )
    label_protocol: Text | None = _told(
        None, "how the label was put on, and how free label was taken off", "a control processed alike without vesicles"
    )
    free_label_pct: float | None = _told(
        None, "label not bound to vesicles in the dose, %", "where free label of the same kind goes", ge=0, le=100
    )


def fields_of(model: type[BaseModel]) -> dict[str, tuple[str, str]]:
    """Return what a model's fields are and what they are compared with, by name.

    Examples
    --------
    >>> fields_of(Vesicles)["zeta_mv"][0]
    'zeta potential, mV'
    """
    found = {}
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        if info.description and isinstance(extra, dict):
            found[name] = (info.description, str(extra["compared"]))
    return found


def missing(told: BaseModel) -> list[str]:
    """Return the names of described fields that say nothing.

    Examples
    --------
    >>> missing(Vesicles(carrier="vesicles"))[:2]
    ['ev_track', 'source_cell']
    """
    return [name for name in fields_of(type(told)) if getattr(told, name) in (None, (), "")]
