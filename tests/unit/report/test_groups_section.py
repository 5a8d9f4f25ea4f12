"""Groups in the report: the answer in a sentence with its numbers, figures that parse, names shown as they are."""

import math
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from evbiodist.crossval.groups import COMPARISON_COLUMNS
from evbiodist.report.folder import ResultFolder
from evbiodist.report.groups_section import group_sections


def folder(tmp_path, rows, **chosen):
    blank = dict.fromkeys(COMPARISON_COLUMNS, math.nan)
    words = dict.fromkeys(("within", "flags", "reason", "method"), "")
    base = {**blank, **words, "study": "s", "contrast": "group", "label": "DiR", "arm_a": "RVG", "arm_b": "plain", "n_a": 4, "n_b": 4,
            "value_a": 2.0, "value_b": 1.0, "unit": "pct_id*h", "quantity": "auc", "family": "2 areas, holm"}  # fmt: skip
    table = pd.DataFrame([base | r for r in rows], columns=list(COMPARISON_COLUMNS))
    study = {"settings": {"kinetics": {"level": 0.95}, "crossval": {"organ": "brain"}, "groups": chosen}}
    return ResultFolder(tmp_path, {"comparisons": table}, study)


BRAIN = {"organ": "brain", "ratio": 2.1, "ratio_low": 1.4, "ratio_high": 3.2, "p": 0.002, "p_adjusted": 0.004}
LIVER = {"organ": "liver", "ratio": 0.95, "ratio_low": 0.8, "ratio_high": 1.1, "p": 0.4, "p_adjusted": 0.4}


def test_the_sentence_names_effect_interval_and_how_many_differ(tmp_path):
    (found,) = group_sections(folder(tmp_path, [LIVER, BRAIN]))
    assert found["sentence"] == ("RVG over plain in brain: area 2.1 (1.4 to 3.2) times (95 % interval, adjusted p 0.004). "
                                 "1 of 2 comparisons differ at 5 % after adjusting (Holm).")  # fmt: skip
    assert found["rows"][0]["quantity"] == "brain: auc"  # the clearest first
    ElementTree.fromstring(found["svg"])  # noqa: S314  our own figure
    assert "liver: 0.95 (0.8 to 1.1)" in found["svg"]


def test_odd_names_and_missing_numbers_are_shown(tmp_path):
    odd = {
        "arm_a": "<b>&\"'",
        "organ": "tumour",
        "reason": "one animal in an arm, so nothing says how much animals differ",
    }
    assert group_sections(folder(tmp_path, [odd])) == []  # nobody named the pair, and nothing can be said of it
    (found,) = group_sections(folder(tmp_path, [odd], reference="plain"))
    assert found["title"].startswith("<b>&\"' over plain")  # the template escapes it
    assert "one animal in an arm" in found["sentence"]
    assert found["svg"] == ""
    assert not re.search("nan|None", str(found["rows"]))


@pytest.mark.parametrize("table", [None, pd.DataFrame()])
def test_nothing_compared_is_no_section(tmp_path, table):
    empty = folder(tmp_path, [BRAIN])
    empty.tables.pop("comparisons")
    if table is not None:
        empty.tables["comparisons"] = table
    assert group_sections(empty) == []
