"""The words of a study: organs, routes, kinds of label and scan, and how free text becomes them."""

from __future__ import annotations

import re
from typing import Literal, get_args

Route = Literal["iv_bolus", "iv_infusion", "ip", "sc", "im", "oral", "inhaled", "intranasal"]
LabelKind = Literal["fluorescence", "bioluminescence", "radioactive", "mri", "molecular"]
ScanKind = Literal["in_vivo", "ex_vivo", "volume"]
ROUTES: tuple[str, ...] = get_args(Route)

#: Blood-like matrices: concentrations in them drive the kinetics of every organ.
BLOOD = ("blood", "plasma", "serum")

#: Regions that are not organs: never a row of the observations table.
STANDARD = "standard"
WHOLE_BODY = "whole_body"

#: The animal as a whole or what is left of it: measured at once like blood, never an organ of a model.
WHOLE_ANIMAL = (WHOLE_BODY, "body", "carcass")

#: Everything that is measured beside organs.
NOT_ORGANS = (*BLOOD, *WHOLE_ANIMAL, STANDARD, "urine", "faeces", "feces", "bile")

_SYNONYMS = {
    "kidneys": "kidney",
    "lungs": "lung",
    "whole_blood": "blood",
    "intestine_small": "small_intestine",
    "large_intestines": "large_intestine",
    "small_intestines": "small_intestine",
    "gi": "gut",
    "intestine": "gut",
    "intestines": "gut",
    "hearts": "heart",
    "livers": "liver",
    "femur": "bone_femur",
    "dose_standard": STANDARD,
}


def organ_name(text: str) -> str:
    """Return an organ's name in the house's spelling: lower snake case, singular, one word per organ.

    Examples
    --------
    >>> organ_name("SmallIntestine"), organ_name("Kidneys "), organ_name("bone (femur)")
    ('small_intestine', 'kidney', 'bone_femur')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text.strip())
    words = re.sub(r"\W+", "_", words).strip("_").lower()
    return _SYNONYMS.get(words, words)
