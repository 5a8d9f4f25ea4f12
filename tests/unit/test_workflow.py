"""The Snakemake rule runs a study and exports it; the Dockerfile names what is there and keeps its promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evbiodist.cli import main
from evbiodist.sample import sample_data

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = Path(os.environ.get("EVBIODIST_OUTSIDE_PYTHON", ROOT / ".venv-outside" / "bin" / "python")).with_name(
    "snakemake"
)


def snakemake(folder, *arguments):
    if not SNAKEMAKE.is_file():
        pytest.skip("snakemake has an environment of its own, which scripts/test.sh makes")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [SNAKEMAKE, "--snakefile", ROOT / "workflow" / "Snakefile", "--cores", "2", *arguments]
    return subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path},
                          check=False)  # fmt: skip


def test_the_rule_runs_a_study_exports_it_and_has_nothing_left_to_do(tmp_path):
    shutil.copytree(sample_data() / "organ_tables" / "125I_TAP1", tmp_path / "a study")
    config = ("--config", "studies=a study", "results=out", "formats=csv,send")
    first = snakemake(tmp_path, *config)
    assert first.returncode == 0, first.stderr[-2000:]
    assert (tmp_path / "out" / "a study" / "report.html").is_file()
    assert (tmp_path / "out" / "a study" / "exports" / "send" / "pc.xpt").is_file()
    again = snakemake(tmp_path, *config)
    assert "Nothing to be done" in again.stderr + again.stdout


def test_a_study_that_cannot_be_used_fails_in_words(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.toml").write_text('nmae = "s"\n')
    done = snakemake(tmp_path, "--config", "studies=s", "results=out")
    assert done.returncode != 0
    assert "did you mean 'name'" in done.stderr + done.stdout


def test_commands_of_the_rules_exist():
    text = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    for command, options in re.findall(r"'evbiodist (\w+)([^']*)'", text):
        known = {o for p in main.commands[command].params for o in p.opts}
        assert set(re.findall(r"--[\w-]+", options)) <= known


def test_the_dockerfile_copies_what_is_there_and_runs_as_a_user():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY "):
            *sources, _ = line.split()[1:]
            assert all((ROOT / name).exists() for name in sources), line
        if line.startswith("FROM "):
            assert re.fullmatch(r"FROM [\w./-]+:[\w.-]+", line)
            assert not line.endswith(":latest")
    assert sum(line.startswith("USER ") for line in lines) == 1
    extras = set(re.search(r"\[([\w,]+)\]", "\n".join(lines))[1].split(","))
    import tomllib

    assert extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    entry = re.search(r'ENTRYPOINT \["(\w+)"\]', "\n".join(lines))[1]
    assert entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    kept_out = (ROOT / ".dockerignore").read_text().split()
    assert not {"evbiodist", "plugins", "sample_data", "pyproject.toml"} & set(kept_out)
