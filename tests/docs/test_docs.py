"""Documentation that runs: Python blocks of docs/ and README, links between files, and no machine paths."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=lambda p: p.name
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    code = "\n".join(blocks(page, "python"))
    exec(compile(code, page.name, "exec"), {"__name__": "docs"})  # noqa: S102  our own pages


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_is_documented():
    from evbiodist.cli import main

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in main.commands if f"`evbiodist {name}" not in text] == []


def test_every_flag_and_model_is_documented():
    from evbiodist.kinetics.models.catalogue import catalogue
    from evbiodist.kinetics.nca.parameters import PARAMETERS
    from evbiodist.study.flags import FLAGS

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    missing = [w for w in (*FLAGS, *catalogue(), *PARAMETERS) if f"`{w}`" not in text]
    assert missing == []


def test_sample_data_is_what_its_script_makes():
    import sys

    out = subprocess.run(
        [sys.executable, "sample_data/make_demo.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert out.stdout == "as made\n", out.stderr


def test_no_machine_paths_in_tracked_files():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|home)/")
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".csv", ".yaml", ".yml", ".sh", ".j2", ""} and path.is_file():
            hits = [
                line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if pattern.search(line)
            ]
            assert not hits, (name, hits[:2])
