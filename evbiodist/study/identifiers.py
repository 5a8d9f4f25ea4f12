"""What others call our words: UBERON for organs, UCUM for units, Cellosaurus for cells, NCBI for species, EV-TRACK for studies.

The table is data/vocabulary.csv, each row with its source. Words without an identifier that is sure have none.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from evbiodist.study.vocabulary import organ_name

Kind = Literal["organ", "unit", "cell", "species"]
#: Entry of the EV-TRACK knowledgebase (Van Deun et al., Nat Methods 2017;14:228).
EV_TRACK_PAGE = "https://evtrack.org/review.php?id={}"


@dataclass(frozen=True)
class Identifier:
    """An identifier, what it is called there, and where it stands."""

    id: str
    label: str
    source: str


@lru_cache(maxsize=1)
def vocabulary() -> dict[tuple[str, str], Identifier]:
    """Return every identifier by kind and our word (cells without regard to case, spaces and hyphens)."""
    with (files("evbiodist") / "data" / "vocabulary.csv").open(encoding="utf-8") as handle:
        return {(r["kind"], _key(r["kind"], r["name"])): Identifier(r["id"], r["id_label"], r["source"])
                for r in csv.DictReader(handle)}  # fmt: skip


def _key(kind: str, name: str) -> str:
    if kind == "organ":
        return organ_name(name)
    return re.sub(r"[^a-z0-9]", "", name.lower()) if kind == "cell" else name


def identifier(kind: Kind, name: str) -> Identifier | None:
    """Return what others call one of our words, or None.

    Examples
    --------
    >>> identifier("organ", "Kidneys").id, identifier("unit", "pct_id_per_g").id, identifier("cell", "hek 293t").id
    ('UBERON:0002113', '%{injected_dose}/g', 'CVCL_0063')
    >>> identifier("organ", "tumour") is None
    True
    """
    return vocabulary().get((kind, _key(kind, name)))
