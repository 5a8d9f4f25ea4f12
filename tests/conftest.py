"""Shared inputs: the real instrument folder, a small digital study, and its results (made once)."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def ivis_click() -> Path:
    folder = SHARED / "data" / "ivis_click"
    if not folder.is_dir():
        pytest.skip("the real IVIS folder has no licence and lies only beside the developers' checkout")
    return folder


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digital study with all four labels: 4 times, 2 animals, and one followed in vivo."""
    from evbiodist.phantom.study import Design, write_study

    folder = tmp_path_factory.mktemp("small")
    return write_study(folder, 7, Design(times_h=(0.083, 0.5, 4.0, 24.0), animals=2)).parent


@pytest.fixture(scope="session")
def small_results(small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import evbiodist as ev

    out = tmp_path_factory.mktemp("results")
    ev.run(small_study, out)
    return out


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
