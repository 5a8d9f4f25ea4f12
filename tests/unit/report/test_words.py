"""Sentences keep names as they are written."""

import pytest

from evbiodist.report.words import opening


@pytest.mark.parametrize("name", ["mCherry", "pHluorin", "111In", "éGFP"])
def test_a_sentence_that_opens_with_a_name_keeps_it(name):
    assert opening(f"{name} misreads", [name]) == f"{name} misreads"


def test_other_sentences_begin_with_a_capital():
    assert opening("nothing speaks against mCherry", ["mCherry", ""]) == "Nothing speaks against mCherry"
    assert opening("", ["a"]) == ""
