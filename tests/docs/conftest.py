"""A sample study small enough for the pages: every label and time of the demo, one animal each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def shrink_demo(folder: Path) -> None:
    """Copy the demo study with the first animal of each time and label, and without the joint model."""
    source, target = ROOT / "sample_data" / "demo", folder / "demo"
    target.mkdir()
    tables = {
        name: pd.read_csv(source / f"{name}.csv", dtype=str, keep_default_na=False)
        for name in ("scans", "subjects", "masses")
    }
    scans = tables["scans"]
    scans = tables["scans"] = scans[(scans["kind"] == "ex_vivo") & scans["scan"].str.endswith("_1")]
    for name, table in tables.items():
        kept = table["subject"].isin(scans["subject"]) | table["subject"].str.startswith("111In")
        table[kept].to_csv(target / f"{name}.csv", index=False)
    shutil.copy(source / "gamma.csv", target)
    for file in (*scans["file"], *scans["photograph"]):
        (target / file).parent.mkdir(exist_ok=True)
        shutil.copy(source / file, target / file)
    settings = (source / "study.toml").read_text(encoding="utf-8")
    assert settings.rstrip().endswith('scale = "log"'), "the demo's last section is [crossval]"
    (target / "study.toml").write_text(settings + "joint = false\n", encoding="utf-8")
    (folder / "organ_tables").symlink_to(ROOT / "sample_data" / "organ_tables")


@pytest.fixture(scope="session")
def small_sample(made_once) -> Path:
    """What stands for sample_data/ while the pages run."""
    return made_once("sample_data_of_docs", shrink_demo)
