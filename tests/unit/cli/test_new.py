"""A new study: images listed with what they say, every blank named by `check`, nothing overwritten, nothing guessed."""

import csv
import json
import shutil
import tomllib

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from evbiodist.cli import main
from evbiodist.study.load import load_study
from evbiodist.study.model import Settings


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def images(tmp_path):
    """Two trays, one in a folder of its own with the same name, a volume, a document and a damaged image."""
    folder = tmp_path / "my study"
    (folder / "day 2").mkdir(parents=True)
    for path in (folder / "tray.tif", folder / "day 2" / "tray.tif"):
        tifffile.imwrite(path, np.ones((8, 8), np.uint16), metadata=None)
    tifffile.imwrite(folder / "volume.ome.tif", np.ones((4, 8, 8), np.uint16), metadata={"axes": "ZYX"})
    (folder / "bad.tif").write_bytes(b"II*\0damaged")
    (folder / "protocol.pdf").write_bytes(b"%PDF")
    return folder


def test_images_are_listed_and_every_blank_is_named(images):
    made = call("new", images)
    assert made.exit_code == 0, made.output
    assert "bad.tif cannot be read" in made.stdout
    table = rows(images / "scans.csv")
    assert {r["file"] for r in table} == {"tray.tif", "day 2/tray.tif", "volume.ome.tif", "bad.tif"}
    assert len({r["scan"] for r in table}) == 4
    assert {r["file"]: r["kind"] for r in table}["volume.ome.tif"] == "volume"
    assert all(r["subject"] == "" and r["time_h"] == "" for r in table)  # a file name is no animal and no time
    checked = call("check", images)
    assert checked.exit_code == 2
    for column in ("subject", "label", "time_h"):
        assert f"scans.csv, row 2, column {column}: found nothing" in checked.stderr


def test_filled_in_it_runs(images):
    call("new", images)
    table = [r for r in rows(images / "scans.csv") if "tray" in r["file"]]
    for i, r in enumerate(table):
        r |= {"subject": f"m{i}", "label": "LABEL", "time_h": "1", "kind": "ex_vivo"}
    with (images / "scans.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    (images / "subjects.csv").write_text(
        "subject,label,dose,dose_unit,route\nm0,LABEL,1e10,particles,iv_bolus\nm1,LABEL,1e10,particles,iv_bolus\n"
    )
    assert len(load_study(images).scans) == 2
    assert call("check", images).exit_code in (0, 1)


def test_a_table_becomes_a_study_that_runs(tmp_path):
    (tmp_path / "counts.csv").write_text("organ,h1,h4,h24\nblood,20,8,1\nliver,10,12,9\n")
    made = call("new", tmp_path / "study", "--from", tmp_path / "counts.csv", "--name", 'a "name"')
    assert made.exit_code == 0, made.output
    assert "6 values of 2 organs (blood, liver)" in made.stdout
    assert (tmp_path / "counts.csv").read_text() == (tmp_path / "study" / "counts.csv").read_text()
    toml = tmp_path / "study" / "study.toml"
    checked = call("check", toml)
    assert checked.exit_code == 2
    assert "unit" in checked.stderr
    toml.write_text(toml.read_text().replace('# unit = "pct_id_per_g"', 'unit = "pct_id_per_g"'))
    assert call("check", toml).exit_code in (0, 1), call("check", toml).stderr
    assert load_study(toml).name == 'a "name"'
    assert call("run", toml, "--out", tmp_path / "out", "--quiet").exit_code == 0


def test_every_key_of_the_settings_stands_there_and_may_be_uncommented(tmp_path):
    call("new", tmp_path / "study")
    text = (tmp_path / "study" / "study.toml").read_text()
    document = tomllib.loads(text)
    assert list(document["labels"]) == ["LABEL"]
    for section, info in Settings.model_fields.items():
        block = text.partition(f"# [{section}]\n")[2].partition("\n\n")[0]
        for key in info.annotation.model_fields:
            assert f"# {key} = " in block, (section, key)
        live = "\n".join(
            line[2:].partition("   #")[0] for line in block.splitlines() if not line.partition("   #")[0].endswith("= ")
        )
        info.annotation.model_validate({k: v for k, v in tomllib.loads(live).items() if v not in ([], {})})


def test_nothing_is_overwritten_and_images_stay_inside(images, tmp_path):
    assert call("new", images).exit_code == 0
    before = (images / "study.toml").read_bytes()
    again = call("new", images)
    assert again.exit_code == 2
    assert "a folder without a study" in again.stderr
    assert (images / "study.toml").read_bytes() == before
    outside = call("new", tmp_path / "other", "--from", images)
    assert outside.exit_code == 2
    assert "images outside of the study's folder" in outside.stderr
    assert not (tmp_path / "other").exists()
    missing = call("new", tmp_path / "other", "--from", tmp_path / "nowhere", "--json")
    assert missing.exit_code == 2
    assert json.loads(missing.stdout.splitlines()[0])["found"] == "no such file or folder"


def test_the_real_click_is_one_scan(ivis_click, tmp_path):
    shutil.copytree(ivis_click, tmp_path / "study" / "click")
    assert call("new", tmp_path / "study").exit_code == 0
    (row,) = rows(tmp_path / "study" / "scans.csv")
    assert row["file"] == "click"
    assert float(row["exposure_s"]) > 0
