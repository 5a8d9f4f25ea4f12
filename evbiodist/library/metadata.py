"""What is known of a study beside its numbers: from its results, from a metadata.toml given with `library add`, or from both.

What neither says stays missing and is told as missing; where they contradict each other the file's word is taken and told.
"""

from __future__ import annotations

import tomllib
import unicodedata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evbiodist.study.model import ValueUnit
from evbiodist.study.problems import InputError, Problem, nearest
from evbiodist.study.tables import explain
from evbiodist.study.vesicles import Text, Vesicles, fields_of, missing
from evbiodist.study.vocabulary import Route


def _told(default: object, description: str, compared: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"compared": compared}, **limits)


class TableAlone(BaseModel):
    """`[table]` of a metadata.toml: what a table without a study.toml does not say itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    label: Text | None = None
    unit: ValueUnit | None = None
    n: int | None = Field(default=None, ge=1)
    dose: float | None = Field(default=None, gt=0)
    dose_unit: str | None = None
    route: Route = "iv_bolus"
    simulated: bool = False


class Metadata(BaseModel):
    """What the library knows of a study; `study` is the name under which it is kept.

    Examples
    --------
    >>> known = Metadata(study="Doe 2024", vesicles={"source_cell": "HEK293T"})
    >>> known.vesicles.source_cell, known.missing()[:3]
    ('HEK293T', ['doi', 'year', 'license'])
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    study: Text
    description: str = Field(default="", max_length=5000)
    source: str = Field(default="", max_length=2000)
    doi: Text | None = _told(
        None, "DOI of the publication or data set", "the publication", pattern=r"^10\.\d{4,9}/\S+$"
    )
    year: int | None = _told(
        None, "year of publication", "studies before and after MISEV2018 and 2023", ge=1950, le=2100
    )
    license: Text | None = _told(None, "licence of the data, such as CC-BY-4.0", "what may be handed on")
    species: Text | None = _told(None, "species of the injected animals", "the vesicles' source organism")
    strain: Text | None = _told(None, "strain of the animals", "the same strain")
    sex: Literal["F", "M", "both"] | None = _told(None, "sex of the animals, where the table of animals does not say",
                                                  "both sexes (ICH S12)")  # fmt: skip
    age_weeks: float | None = _told(None, "age of the animals, weeks", "animals of like age", gt=0, le=1000)
    health: Text | None = _told(None, "healthy, or the model of disease (tumour, stroke, ...)", "healthy animals")
    vesicles: Vesicles = Vesicles()

    def missing(self) -> list[str]:
        """Return the names of everything that nobody told."""
        return missing(self) + [f"vesicles.{name}" for name in missing(self.vesicles)]


def described() -> dict[str, tuple[str, str]]:
    """Return every field of the metadata: what it is and what it is compared with, by name.

    Examples
    --------
    >>> described()["vesicles.ev_track"][0]
    'identifier in the EV-TRACK knowledgebase, such as EV200001'
    """
    return fields_of(Metadata) | {f"vesicles.{name}": said for name, said in fields_of(Vesicles).items()}


#: Columns of the library's table of studies that come from the metadata, with the key they come from.
STUDY_COLUMNS: dict[str, str] = {key.removeprefix("vesicles."): key for key in described()}


def columns_of(metadata: Metadata) -> dict[str, Any]:
    """Return metadata as one flat row; lists are joined by `;`, what is missing is None.

    Examples
    --------
    >>> row = columns_of(Metadata(study="s", vesicles={"isolation": ["SEC", "TFF"]}))
    >>> row["isolation"], row["zeta_mv"]
    ('sec;tff', None)
    """
    row = {}
    for column, key in STUDY_COLUMNS.items():
        holder: BaseModel = metadata.vesicles if key.startswith("vesicles.") else metadata
        value = getattr(holder, column)
        row[column] = (";".join(value) or None) if isinstance(value, tuple) else value
    return row


def identity(name: str) -> str:
    """Return a study's name as it is compared: one Unicode form, no difference of case or spaces.

    Examples
    --------
    >>> identity("Müller  2024 ") == identity("mu\\u0308ller 2024")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def read_metadata(path: Path) -> tuple[dict[str, Any], TableAlone]:
    """Read a metadata.toml: its keys as they stand, each checked, and its `[table]`.

    Raises
    ------
    InputError : every problem, with its key.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        problem = Problem(path.name, err.strerror or "", "a file of metadata", "write one or correct the path")
        raise InputError([problem]) from err
    except (ValueError, RecursionError) as err:
        raise InputError([Problem(path.name, str(err), "TOML in UTF-8", "correct that line")]) from err
    table = told.pop("table", {})
    problems = _unknown(path.name, told, Metadata, "") + _unknown(path.name, table, TableAlone, "table.")
    problems += _unknown(path.name, told.get("vesicles", {}), Vesicles, "vesicles.")
    if problems:
        raise InputError(problems)
    _checked(Metadata, {"study": "unnamed", **told}, path.name)
    return told, _checked(TableAlone, table, path.name, "table.")


def merge(from_results: dict[str, Any], from_file: dict[str, Any], name: str) -> tuple[Metadata, list[str]]:
    """Join what results and file say of a study; the file's word counts, and each contradiction is a sentence.

    Parameters
    ----------
    from_results, from_file : keys of `Metadata`; name : of the file or folder, for problems.

    Raises
    ------
    InputError : a value that is none.
    """
    notes = _contradictions(from_results, from_file, "", name)
    vesicles = {**from_results.get("vesicles", {}), **from_file.get("vesicles", {})}
    notes += _contradictions(from_results.get("vesicles", {}), from_file.get("vesicles", {}), "vesicles.", name)
    return _checked(Metadata, {**from_results, **from_file, "vesicles": vesicles}, name), notes


def _contradictions(one: dict[str, Any], other: dict[str, Any], where: str, name: str) -> list[str]:
    return [f"{name}: {where}{key} is {other[key]!r}, where the results say {one[key]!r}; the file's word is taken"
            for key in sorted(one.keys() & other.keys() - {"vesicles", "study", "description"})
            if one[key] not in ("", None, other[key])]  # fmt: skip


def _unknown(name: str, told: Any, model: type[BaseModel], where: str) -> list[Problem]:
    if not isinstance(told, dict):
        return [Problem(name, str(told)[:80], "a table of keys", "write [" + where[:-1] + "]", field=where[:-1])]
    return [Problem(name, key, "a known key", nearest(key, model.model_fields), field=f"{where}{key}")
            for key in told if key not in model.model_fields]  # fmt: skip


def _checked(model: type[Any], told: dict[str, Any], name: str, where: str = "") -> Any:
    try:
        return model.model_validate(told)
    except ValidationError as err:
        problems = []
        for error in err.errors():
            field, found, expected, remedy = explain(error)
            problems.append(Problem(name, found, expected, remedy, field=f"{where}{field}"))
        raise InputError(problems) from err
