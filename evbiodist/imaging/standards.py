"""A table of standards from a file; the curve itself is `evbiodist.study.calibration`, which knows numbers only."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from evbiodist.study import units
from evbiodist.study.calibration import (
    LackOfFit,
    Level,
    Limit,
    Quantified,
    StandardCurve,
    Standards,
    fit_standards,
)
from evbiodist.study.problems import InputError, Problem
from evbiodist.study.tables import read_table

__all__ = [
    "LackOfFit",
    "Level",
    "Limit",
    "Quantified",
    "StandardCurve",
    "Standards",
    "fit_standards",
    "read_standards",
]


def _known_unit(text: object) -> str:
    units.check(str(text))
    return str(text)


_LINE = count()


class _Row(BaseModel):
    """A row of a table of standards."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    amount: float | None = Field(default=None, ge=0)
    unit: Annotated[str, BeforeValidator(_known_unit)]
    response: float
    replicate: str = ""
    kind: Literal["standard", "blank"] = "standard"
    n: int = Field(default=1, ge=1)
    se: float | None = Field(default=None, ge=0)
    _line: int = PrivateAttr(default_factory=lambda: next(_LINE))  # every row is its own key


def read_standards(path: str | Path) -> Standards:
    """Read standards and blanks from a table.

    Parameters
    ----------
    path : CSV with `amount`, `unit`, `response` and, where there are any, `replicate`, `kind` (`standard` or `blank`),
        `n` (measurements behind the response) and `se` (its standard error).

    Returns
    -------
    Standards

    Raises
    ------
    InputError : every problem of the table at once.
    """
    path = Path(path)
    problems: list[Problem] = []
    rows = read_table(path, _Row, ("_line",), problems)
    standards = [r for r in rows if r.kind == "standard"]
    blanks = [r for r in rows if r.kind == "blank"]
    for row in standards:
        if row.amount is None:
            problems.append(Problem(path.name, "", "an amount for every standard", "fill it, or write kind = blank",
                                    field="amount"))  # fmt: skip
    for row in blanks:
        if row.amount:
            problems.append(Problem(path.name, f"{row.amount:g}", "an amount of 0 for a blank",
                                    "correct the amount, or the kind", field="amount"))  # fmt: skip
    named = sorted({r.unit for r in rows})
    if len(named) > 1:
        problems.append(Problem(path.name, ", ".join(named), "one unit in the whole table", "convert the amounts to it",
                                field="unit"))  # fmt: skip
    keys = [(r.kind, r.amount, r.replicate) for r in rows if r.replicate]
    for kind, amount, replicate in sorted({k for k in keys if keys.count(k) > 1}, key=str):
        problems.append(Problem(path.name, replicate, f"each replicate of {kind} {amount or 0:g} once",
                                "remove or rename one of them", field="replicate"))  # fmt: skip
    if not standards and not problems:
        problems.append(Problem(path.name, "no standard", "rows of kind standard", "add them"))
    stated = [r.se is not None for r in standards]
    if any(stated) and not all(stated):
        problems.append(Problem(path.name, "an empty cell", "se for every standard or for none", "fill it", field="se"))
    if problems:
        raise InputError(problems)
    return Standards(
        np.array([r.amount for r in standards], dtype=np.float64),
        np.array([r.response for r in standards]),
        named[0],
        np.array([r.n for r in standards], dtype=np.float64),
        np.array([r.se for r in standards], dtype=np.float64) if any(stated) else None,
        np.array([r.response for r in blanks]),
        path.name,
    )
