"""Results that somebody changed, inputs that are not what they were, and images that stand twice."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from evbiodist.batch import journal
from evbiodist.batch.pipeline import run_study
from evbiodist.batch.verify import verify
from evbiodist.cli import main
from evbiodist.phantom.study import LABELS, Design, write_study
from evbiodist.study.load import load_study
from evbiodist.study.problems import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of three trays in which one image is a copy of another, and its observations."""
    folder = tmp_path_factory.mktemp("verified")
    write_study(folder / "study", 4, Design(times_h=(0.1, 1.0, 5.0), animals=1, in_vivo=False, labels=LABELS[1:2]))
    images = sorted((folder / "study" / "images").glob("*.tif"))
    pixels, about = tifffile.imread(images[0]), "another file with the same pixels"
    with tifffile.TiffFile(images[1]) as other:
        keep = {"resolution": other.pages[0].resolution, "metadata": {"unit": "mm", "spacing": 1}, "imagej": True}
    tifffile.imwrite(images[1], pixels, **keep, description=None, software=about)
    result = run_study(load_study(folder / "study"), folder / "results", quantify_only=True)
    return folder, result


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "all")
    return tmp_path / "all" / "study", tmp_path / "all" / "results"


def told(folder, **options):
    return [(f.what, f.name, f.reason) for f in verify(folder, **options).findings]


def test_results_as_they_were_left_pass_with_every_file_compared(made):
    folder, _ = made
    found = verify(folder / "results")
    held = json.loads((folder / "results" / "provenance.json").read_text())
    assert found.findings == ()
    assert found.checked == len(held["inputs"]) + len(held["outputs"]) + 3
    assert found.head == journal.head(folder / "results")
    assert verify(folder / "results", root=folder / "study", head=found.head).findings == ()


def test_every_changed_file_is_named(copy):
    study, results = copy
    table = results / "observations.csv"
    table.write_bytes(table.read_bytes().replace(b"liver", b"brain", 1))
    assert told(results) == [("output", "observations.csv", "its bytes are not those of the run")]
    image = sorted((study / "images").glob("*.tif"))[2]
    image.write_bytes(image.read_bytes()[:-1] + b"\x01")
    (study / "subjects.csv").unlink()
    shard = sorted((results / "scans").glob("*.json"))[0]
    shard.write_text(shard.read_text().replace("liver", "spine", 1))
    shard.with_suffix(".png").write_bytes(b"x")
    (results / "failures.csv").unlink()
    names = {(what, name) for what, name, _ in told(results)}
    assert names == {("output", "observations.csv"), ("output", "failures.csv"), ("input", f"images/{image.name}"),
                     ("input", "subjects.csv"), ("shard", f"scans/{shard.name}")}  # fmt: skip


def test_a_changed_sidecar_is_an_input(copy):
    study, results = copy
    name = sorted((study / "images").glob("*.tif"))[0].stem
    (study / "images" / f"{name}.toml").write_text('unit = "counts"\n')
    run_study(load_study(study), results, quantify_only=True)
    assert verify(results).findings == ()
    (study / "images" / f"{name}.toml").write_text('unit = "counts" \n')
    assert told(results) == [("input", f"images/{name}.toml", "its bytes are not those of the run")]


def test_the_journal_tells_who_changed_it(copy):
    _, results = copy
    path = results / journal.JOURNAL
    events = [e.event for e in journal.read(results)]
    assert events == ["started", "measured", "measured", "measured", "written"]
    lines = path.read_text().splitlines(keepends=True)
    noted = journal.head(results)
    path.write_text("".join([lines[0], *lines[2:]]))
    assert told(results) == [
        ("journal", "journal.jsonl", "line 2 does not follow the line before it: lines were changed or removed")
    ]
    path.write_text(lines[0].replace("digital", "another") + "".join(lines[1:]))
    assert told(results)[0][2].startswith("line 2 does not follow")
    path.write_text("".join(lines[:1]) + "no line\n")
    [(what, name, reason)] = told(results)
    assert (what, name) == ("journal", "journal.jsonl")
    assert (
        reason
        == "journal.jsonl, line 2: it is no line of a journal; the file was changed: run the study again into a new folder"
    )
    # a journal written anew as a whole shows by the hash that somebody noted
    path.unlink()
    digest = json.loads(lines[-1])["facts"]["provenance.json"]
    journal.Journal(results).add("written", {"provenance.json": digest, "failed": 0})
    assert told(results) == []
    assert told(results, head=noted)[0][2].endswith(f"not with {noted}")


def test_a_torn_last_line_is_taken_up(tmp_path):
    first = journal.Journal(tmp_path)
    first.add("started", {})
    with (tmp_path / journal.JOURNAL).open("ab") as stream:
        stream.write(b'{"time": "2026')
    assert [e.event for e in journal.read(tmp_path)] == ["started"]
    journal.Journal(tmp_path).add("started", {})
    assert [e.event for e in journal.read(tmp_path)] == ["started", "started"]
    assert journal.broken(tmp_path) is None


def test_a_study_that_moved_is_named_or_told(copy, tmp_path):
    study, results = copy
    study.rename(tmp_path / "elsewhere")
    assert told(results) == [("input", "study", "the study is not there; inputs were not compared: name its folder")]
    assert told(results, root=tmp_path / "elsewhere") == []


def test_the_command_says_it_in_words_and_by_its_status(copy):
    _, results = copy

    def call(*more):
        return CliRunner().invoke(main, ["verify", str(results), *more])

    well = call()
    assert well.exit_code == 0
    assert f"0 not as the run left them; the journal ends with {journal.head(results)}" in well.stdout
    (results / "observations.csv").write_text("x")
    odd = call("--json")
    assert odd.exit_code == 1
    assert json.loads(odd.stdout.splitlines()[0])["name"] == "observations.csv"
    (results / "provenance.json").write_text("[]")
    bad = call()
    assert bad.exit_code == 2
    assert "provenance.json: found 'something else'" in bad.stderr
    (results / "provenance.json").unlink()
    with pytest.raises(InputError, match="a run that ended"):
        verify(results)


def test_the_same_pixels_for_two_animals_are_told_and_flagged(made):
    _, result = made
    flagged = {row["source"] for row in result.observations if "image_twice" in row["flags"].split(";")}
    names = sorted({row["source"] for row in result.observations})
    assert flagged == set(names[:2])
    assert [n for n in result.notes if "its pixels are those of" in n] == [
        f"{names[1]}: its pixels are those of {names[0]}, which is of another animal or time; correct the column file of one of them"
    ]
    assert np.isfinite([row["value"] for row in result.observations if row["value"] is not None]).all()
