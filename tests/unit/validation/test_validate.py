"""`evbiodist validate`: every number agrees here, a broken installation is told, and the report is whole and honest."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from evbiodist.cli import main
from evbiodist.validation.checks import AREAS, run_checks, same_bytes
from evbiodist.validation.report import PROVES_NOT, Machine, installed_files


def call(*args):
    return CliRunner().invoke(main, ["validate", *map(str, args)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("validation")
    done = call("--out", out)
    assert done.exit_code == 0, done.output
    return out, done.output


def test_many_numbers_of_many_areas_agree(written):
    checks = run_checks()
    assert len(checks) > 100
    assert len({c.area for c in checks}) == len(AREAS) >= 8
    assert [c for c in checks if not c.passed] == []
    assert all(c.source and c.why for c in checks)
    assert f"{len(checks)} of {len(checks)} numbers" in written[1]


def test_the_report_is_dated_and_names_the_machine_the_sources_and_the_limits(written):
    out, _ = written
    [page], [table], [document] = (list(out.glob(f"validation_*.{end}")) for end in ("html", "csv", "json"))
    assert re.fullmatch(r"validation_\d{4}-\d\d-\d\d_\d{6}", page.stem)
    assert page.stem == table.stem == document.stem
    text, held = page.read_text(), json.loads(document.read_text())
    machine = held["machine"]
    assert machine["files"] == installed_files()
    assert re.fullmatch(r"[0-9a-f]{64}", machine["files"])
    for told in (
        machine["files"],
        machine["python"],
        machine["libraries"]["numpy"],
        machine["date"],
        "What this does not prove",
    ):
        assert told in text
    assert len(held["proves_not"]) == len(PROVES_NOT)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == len(held["checks"]) == text.count('<td class="quiet">')
    assert all(row["source"] in {c["source"] for c in held["checks"]} for row in rows)
    assert {row["passed"] for row in rows} == {"yes"}


def test_the_page_loads_nothing_and_runs_nothing(written):
    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    text = next(written[0].glob("*.html")).read_text()
    Reader().feed(text)
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "img"}
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on") or a == "src"]
    assert "default-src 'none'" in text


def test_a_wrong_formula_is_named_and_the_status_says_so(tmp_path, monkeypatch):
    from evbiodist.study import constants

    half_lives = {**constants.isotopes(), "18F": 110.0}  # minutes in place of hours
    monkeypatch.setattr(constants, "isotopes", lambda: half_lives)
    done = call("--out", tmp_path, "--area", "radioactive decay", "--area", "consensus")
    assert done.exit_code == 1
    assert "differs: radioactive decay, half-life of 18F, h: 110 instead of 1.829" in done.output
    text = next(tmp_path.glob("*.html")).read_text()
    assert re.search(r"[1-3] of 18 numbers differ", text)
    assert "should not be used" in text


def test_a_wrong_trapezoid_is_noticed(monkeypatch):
    from evbiodist.kinetics.nca import choices

    monkeypatch.setattr(choices, "_may_bend", lambda method, before, c, past_peak: c < 0)  # every piece is straight
    failed = [c.what for c in run_checks(["non-compartmental analysis"]) if not c.passed]
    assert failed
    assert all("default rule" in what for what in failed)


def test_an_area_that_breaks_fails_and_the_others_go_on(tmp_path, monkeypatch):
    def broken():
        raise ImportError("no module named nothing")

    monkeypatch.setitem(AREAS, "consensus", broken)
    done = call("--out", tmp_path, "--area", "consensus", "--area", "radioactive decay")
    assert done.exit_code == 1
    assert "consensus, the check itself: ImportError: no module named nothing" in done.output
    assert "13 of 14 numbers" in done.output
    assert "Traceback" not in done.output
    page, document = (next(tmp_path.glob(f"*.{end}")).read_text() for end in ("html", "json"))
    assert "Not checked this time" in page
    assert "sparse sampling" in json.loads(document)["left_out"]
    assert "NaN" not in document


def test_wrong_areas_and_folders_are_sentences(tmp_path):
    done = call("--area", "astrology")
    assert done.exit_code == 2
    assert "'astrology' is no area of validation; known: non-compartmental analysis" in done.output
    (tmp_path / "file").write_text("")
    done = call("--out", tmp_path / "file", "--area", "consensus")
    assert done.exit_code == 2
    assert "cannot be written" in done.output


def test_machines_get_json_lines(tmp_path):
    done = call("--out", tmp_path, "--area", "consensus", "--json")
    events = [json.loads(line) for line in done.output.splitlines()]
    assert events[-1]["failed"] == 0
    assert events[-1]["checks"] == 5


def test_one_and_two_processes_give_the_same_bytes(few_scans):
    found = list(same_bytes(few_scans))
    assert len(found) > 3
    assert all(c.passed for c in found)


def test_the_machine_is_told(tmp_path):
    here = Machine.here()
    assert here.cpus >= 1
    assert here.libraries["numpy"][0].isdigit()
    assert here.blas
