"""A small study: a tray and two frames of a living animal out of the demo, in a folder of its own."""

import csv
import shutil

import pytest

from evbiodist.sample import sample_data

SCANS = ("NanoLuc_0.5h_1", "NanoLuc_followed_0.5h", "NanoLuc_followed_2h")


@pytest.fixture
def few_scans(tmp_path):
    demo, folder = sample_data() / "demo", tmp_path / "few"
    folder.mkdir()
    toml = (demo / "study.toml").read_text()
    start, end = toml.index("[[tables.observations]]"), toml.index("[imaging]")
    (folder / "study.toml").write_text(toml[:start] + toml[end:])
    kept = []
    for table, column in (("scans", "scan"), ("subjects", "subject"), ("masses", "subject")):
        with (demo / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = set(SCANS) if table == "scans" else {r["subject"] for r in kept}
        rows = [r for r in rows if r[column] in names]
        kept = kept or rows
        with (folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    for name in {r[key] for r in kept for key in ("file", "photograph", "organs") if r[key]}:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(demo / name, folder / name)
    return folder
