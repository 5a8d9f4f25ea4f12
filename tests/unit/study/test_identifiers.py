"""Identifiers: the forms their owners give them, one word one identifier, and units that UCUM's grammar takes."""

import csv
import re
from importlib.resources import files

import pytest

from evbiodist.study.identifiers import identifier, vocabulary
from evbiodist.study.model import VALUE_UNITS
from evbiodist.study.vocabulary import BLOOD, organ_name

FORMS = {"organ": r"UBERON:\d{7}", "cell": r"CVCL_[0-9A-Z]{4}", "species": r"NCBITaxon:\d+", "unit": r"\S.*"}


@pytest.fixture(scope="module")
def rows():
    with (files("evbiodist") / "data" / "vocabulary.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_every_row_has_the_form_of_its_owner_and_a_source(rows):
    for r in rows:
        assert re.fullmatch(FORMS[r["kind"]], r["id"]), r
        assert r["source"].startswith(
            ("http://purl.obolibrary.org/", "https://ucum.org/", "https://www.cellosaurus.org/")
        )
    assert len(vocabulary()) == len(rows)  # no word twice


def test_our_names_are_spelled_as_the_house_does(rows):
    assert [r["name"] for r in rows if r["kind"] == "organ" and organ_name(r["name"]) != r["name"]] == []
    assert {r["name"] for r in rows if r["kind"] == "unit"} >= set(VALUE_UNITS)
    assert all(identifier("organ", name) for name in (*BLOOD, "brain", "liver", "spleen", "kidney", "lung", "heart"))


def test_words_are_found_as_people_write_them():
    assert identifier("organ", "SmallIntestine").label == "small intestine"
    assert identifier("cell", "RAW264.7") == identifier("cell", "Raw 264.7")
    assert identifier("cell", "a cell of mine") is None


def test_an_outside_parser_takes_every_unit(rows):
    parser = pytest.importorskip("ucumvert", reason="ucumvert is not installed").get_ucum_parser()
    for r in rows:
        if r["kind"] == "unit":
            parser.parse(r["id"])
