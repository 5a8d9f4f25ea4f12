"""RO-Crate and data package: their own validators take them, and refuse broken ones; nothing of the machine is in them."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from frictionless import Package, system

import evbiodist as ev

ROOT = Path(__file__).resolve().parents[4]
PYTHON = Path(os.environ.get("EVBIODIST_OUTSIDE_PYTHON", ROOT / ".venv-outside" / "bin" / "python"))


@pytest.fixture(scope="module")
def crate(small_results, tmp_path_factory):
    out = tmp_path_factory.mktemp("crate")
    _, notes = ev.export(small_results, "crate", out, license="https://creativecommons.org/licenses/by/4.0/")
    assert notes == ()
    return out


def findings(folder):
    if not PYTHON.is_file():
        pytest.skip("roc-validator has an environment of its own, which scripts/test.sh makes")
    script = Path(__file__).with_name("validate_crate.py")
    done = subprocess.run([PYTHON, script, folder], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def validated(folder):
    with system.use_context(trusted=True):
        return Package(str(folder / "datapackage.json")).validate()


def test_the_validator_of_ro_crates_finds_nothing_that_is_required(crate):
    found = findings(crate)
    assert found["REQUIRED"] == []
    assert all("author" in text or "publisher" in text for text in found["RECOMMENDED"])  # a study does not name people


def test_the_same_validator_refuses_a_crate_without_its_root(crate, tmp_path):
    broken = shutil.copytree(crate, tmp_path / "broken")
    metadata = json.loads((broken / "ro-crate-metadata.json").read_text())
    metadata["@graph"] = [e for e in metadata["@graph"] if e["@id"] != "./"]
    (broken / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    assert findings(broken)["REQUIRED"]


def test_frictionless_finds_every_table_as_described(crate):
    report = validated(crate)
    assert report.valid, [e.message for t in report.tasks for e in t.errors][:5]
    assert len(report.tasks) > 10


def test_frictionless_finds_a_damaged_table(crate, tmp_path):
    broken = shutil.copytree(crate, tmp_path / "broken")
    path = broken / "data" / "observations.csv"
    path.write_text(path.read_text().replace(",0.083,", ",soon,", 1))
    assert not validated(broken).valid


def test_files_are_named_with_their_hashes_and_inputs_without_paths(crate, small_results):
    metadata = json.loads((crate / "ro-crate-metadata.json").read_text())
    entities = {e["@id"]: e for e in metadata["@graph"]}
    files = [e for e in entities.values() if e["@type"] == "File"]
    assert {e["@id"] for e in files} | {"ro-crate-metadata.json", "ro-crate-preview.html"} == {
        p.relative_to(crate).as_posix() for p in crate.rglob("*") if p.is_file()}  # fmt: skip
    for e in files:
        assert e["sha256"] == hashlib.sha256((crate / e["@id"]).read_bytes()).hexdigest()
    inputs = [e for e in entities.values() if e["@id"].startswith("#input-")]
    known = json.loads((small_results / "provenance.json").read_text())["inputs"]
    assert {e["name"]: e["identifier"] for e in inputs} == {k: f"sha256:{v}" for k, v in known.items()}
    assert "propertyID" in entities["#brain-pct_id"]
    assert entities["#brain-pct_id"]["unitCode"] == "%{injected_dose}"
    assert str(small_results) not in json.dumps(metadata)


def test_the_same_results_give_the_same_crate(crate, small_results, tmp_path):
    ev.export(small_results, "crate", tmp_path, license="https://creativecommons.org/licenses/by/4.0/")
    for path in crate.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(crate)).read_bytes() == path.read_bytes()


def test_without_a_licence_it_says_so(small_results, tmp_path):
    _, notes = ev.export(small_results, "crate", tmp_path)
    assert "no licence is stated" in notes[0]
    assert "No licence stated" in (tmp_path / "ro-crate-metadata.json").read_text()
