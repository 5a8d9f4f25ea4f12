"""Which groups of animals are compared, and how many comparisons are allowed for: `[groups]` of study.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

Contrast = Literal["group", "route", "dose", "sex"]


class GroupSettings(BaseModel):
    """What is compared between animals.

    `compare` names pairs (first over second); when it is empty, every pair of groups with the same label is compared, or every
    group with the `reference`. `by` may add routes, doses and sexes to groups.

    Examples
    --------
    >>> GroupSettings(compare=[["RVG", "untargeted"]]).compare
    (('RVG', 'untargeted'),)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    compare: tuple[tuple[str, str], ...] = ()
    reference: str | None = None
    by: tuple[Contrast, ...] = ("group",)
    multiplicity: Literal["holm", "bh", "none"] = "holm"

    @field_validator("compare", mode="after")
    @classmethod
    def _different(cls, value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for first, second in value:
            if first == second:
                raise ValueError(f"two different groups in each pair, not '{first}' twice")
        return value
