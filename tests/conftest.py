"""Shared inputs: the real instrument folder, a small digital study, and its results (made once)."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FEW_SCANS = ("NanoLuc_0.5h_1", "NanoLuc_followed_0.5h", "NanoLuc_followed_2h")


@pytest.fixture(scope="session")
def ivis_click() -> Path:
    folder = SHARED / "data" / "ivis_click"
    if not folder.is_dir():
        pytest.skip("the real IVIS folder has no licence and lies only beside the developers' checkout")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that makes a folder once for all test processes of a session; whoever comes first makes it."""
    from filelock import FileLock

    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                unfinished = shared / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def small_study(made_once) -> Path:
    """A digital study with all four labels: 4 times, 2 animals, and one followed in vivo."""
    from evbiodist.phantom.study import Design, write_study

    return made_once("small", lambda folder: write_study(folder, 7, Design(times_h=(0.083, 0.5, 4.0, 24.0), animals=2)))


@pytest.fixture(scope="session")
def small_results(small_study: Path, made_once) -> Path:
    import evbiodist as ev

    return made_once("results", lambda out: ev.run(small_study, out))


@pytest.fixture
def table_study(tmp_path: Path):
    """Write a study of observation tables (no images) and return a function that changes its files."""

    def write(**files: str) -> Path:
        base = {
            "study.toml": 'name = "s"\n[labels.DiR]\nkind = "fluorescence"\n[labels.111In]\nkind = "radioactive"\n'
            'isotope = "111In"\n[tables]\nsubjects = "subjects.csv"\nobservations = ["observations.csv"]\n',
            "subjects.csv": "subject,label,dose,dose_unit,route,sex\n001,DiR,1e10,particles,iv_bolus,F\n"
            "NA,DiR,1e10,particles,iv_bolus,M\n",
            "observations.csv": "subject,label,organ,time_h,value,se,unit\n"
            + "".join(
                f"{s},DiR,{o},{t},{v},0.1,pct_id_per_g\n"
                for s in ("001", "NA")
                for o, k in (("blood", 1.0), ("brain", 0.05))
                for t, v in ((0.5, 20 * k), (1, 10 * k), (4, 3 * k), (24, 1 * k))
            ),
        }
        for name, text in {**base, **{k.replace("__", "."): v for k, v in files.items()}}.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / "study.toml"

    return write


@pytest.fixture
def few_scans(tmp_path: Path) -> Path:
    """A tray and two frames of a living animal out of the demo study, in a folder of its own."""
    from evbiodist.sample import sample_data

    demo, folder = sample_data() / "demo", tmp_path / "few"
    folder.mkdir()
    toml = (demo / "study.toml").read_text()
    start, end = toml.index("[[tables.observations]]"), toml.index("[imaging]")
    (folder / "study.toml").write_text(toml[:start] + toml[end:])
    kept = []
    for table, column in (("scans", "scan"), ("subjects", "subject"), ("masses", "subject")):
        with (demo / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = set(FEW_SCANS) if table == "scans" else {r["subject"] for r in kept}
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


@pytest.fixture
def two_labels(two_labels_once: Path, tmp_path: Path) -> Path:
    """The study of two labels in a folder of its own."""
    return shutil.copytree(two_labels_once, tmp_path / "two_labels")


@pytest.fixture(scope="session")
def two_labels_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of tables alone: two labels, three animals a time in blood and liver, two more followed in blood."""
    import numpy as np

    folder, random = tmp_path_factory.mktemp("two_labels"), np.random.default_rng(5)
    times = (0.25, 1.0, 4.0, 12.0, 24.0, 48.0)
    subjects, rows = [], []

    def animal(name: str, group: str, label: str, at: tuple[float, ...], organs: tuple[str, ...]) -> None:
        subjects.append(f"{name},mouse,F,20,{group},{label},iv_bolus,1e10,particles,no")
        size = np.exp(random.normal(0, 0.08))
        for t in at:
            fast, slow = np.exp(-1.2 * t), np.exp(-0.06 * t)
            true = {"blood": 30 * fast + 6 * slow, "liver": (40 if label == "NanoLuc" else 60) * (1 - fast) * slow}
            for organ in organs:
                value = true[organ] * size * np.exp(random.normal(0, 0.05))
                unit = "pct_id_per_g" if organ == "blood" else "pct_id"
                rows.append(f"{name},{group},{label},{organ},{t},{value},{0.03 * value},{unit},1.1")

    for label in ("NanoLuc", "mCherry"):
        for t in times:
            for i in range(3):
                animal(f"{label}_{t}_{i}", "treated", label, (t,), ("blood", "liver"))
    for i in range(2):
        animal(f"f{i}", "followed", "NanoLuc", times, ("blood",))
    (folder / "subjects.csv").write_text(
        "subject,species,sex,weight_g,group,label,route,dose,dose_unit,perfused\n" + "\n".join(subjects) + "\n"
    )
    (folder / "table.csv").write_text(
        "subject,group,label,organ,time_h,value,se,unit,mass_g\n" + "\n".join(rows) + "\n"
    )
    (folder / "study.toml").write_text(
        'name = "two labels"\nspecies = "mouse"\n'
        '[labels.NanoLuc]\nkind = "bioluminescence"\nemission_nm = 460\ndescription = "fused to CD63"\n'
        '[labels.mCherry]\nkind = "fluorescence"\nemission_nm = 610\nexcitation_nm = 587\ndescription = "fused to CD9"\n'
        '[tables]\nsubjects = "subjects.csv"\n'
        '[[tables.observations]]\nfile = "table.csv"\ndecay_corrected = true\nsource = "made"\n'
        '[kinetics]\nmodels = ["one_compartment_iv", "two_compartment_iv", "plasma_with_organs"]\n'
        "[crossval]\njoint = false\n"
    )
    return folder
