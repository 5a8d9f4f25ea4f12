"""Documentation that runs: blocks of every page, links between files, what pages must name, and no machine paths."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import pages as runs  # noqa: E402  tests are no package

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
INSTALLS = "installs packages"
CLUSTER = "needs a queue, a scheduler or certificates; evbiodist's own part is in tests/unit/batch/test_cluster.py"
MINUTES = "takes minutes"
OWN = "names the reader's own files; the same commands run in docs/tutorial_counter.md"
#: Blocks that are not run: the first line by page, and why. Their commands are still checked for names and options.
NOT_RUN = {
    "README.md": {
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/evbiodist demo": INSTALLS,
        "bash scripts/test.sh": "runs this test",
        "evbiodist new my_study                # a commented study.toml from a folder of images, or --from counts.csv": OWN,
    },
    "docs/start.md": {
        "python3 -m venv .venv": INSTALLS,
        "evbiodist doctor": "its status depends on the machine; tests/unit/cli holds it",
        "evbiodist demo": MINUTES + " with a test's share of the machine; the tutorial runs the same study",
    },
    "docs/tutorial.md": {
        "evbiodist phantom mice --kind in-vivo && evbiodist run mice/study.toml --out mice/results": MINUTES
    },
    "docs/tutorial_labels.md": {
        "evbiodist crossval observations.csv --dose 100 --dose-unit pct_id --route iv_bolus --out results": "the comparison "
        "that the Python beside it makes; tests/unit/cli runs the command"
    },
    "docs/new_study.md": {"evbiodist new my_study                          # a folder that holds images": OWN},
    "docs/workflow.md": {
        "$ snakemake --snakefile workflow/Snakefile --cores 2 --config studies=mouse_1,mouse_2 results=results "
        "formats=csv,crate": "needs Snakemake; tests/unit/test_workflow.py holds the rule",
        "$ docker build -t evbiodist .": "needs Docker",
    },
    "docs/exports/imaging.md": {
        "evbiodist export results --format figures --set width=double --set dpi=600": MINUTES
        + " at 600 dpi; the form's own tests draw smaller ones"
    },
    "docs/tutorial_napari.md": {"pip install '.[all]'": INSTALLS + " and opens a window"},
    "docs/tutorial_cluster.md": {
        "pip install '.[cluster]'": CLUSTER,
        "dask scheduler --scheduler-file ~/dask.json --protocol tls --tls-ca-file ca.pem --tls-cert me.pem "
        "--tls-key me.key &": CLUSTER,
    },
    "docs/batch.md": {
        "evbiodist verify results            # status 1 when anything is not as the run left it": "a hash of the reader's "
        "own; tutorial_cluster.md runs it without",
        "pip install 'evbiodist[cluster]'": CLUSTER,
        "dask scheduler --scheduler-file ~/dask.json --protocol tls --tls-ca-file ca.pem --tls-cert me.pem "
        "--tls-key me.key &": CLUSTER,
        "cat > on_slurm.py <<'END'": CLUSTER,
    },
    "docs/validate.md": {
        "evbiodist validate --out validation     # seconds": MINUTES + "; tests/unit/validation runs it"
    },
    "docs/library.md": {
        "evbiodist library add results_a results_b --library our_library     # result folders of evbiodist run": "names of "
        "the reader's own folders; the Python beside it runs"
    },
}
#: What a page takes for granted: a folder of the tutorial's results, or a study.
NEEDS_RESULTS = re.compile(r"^(\$ )?evbiodist (export|report|groups) results\b|read_results\(\"results\"\)", re.M)
NEEDS_STUDY = re.compile(r"\bstudy/study\.toml")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def runs_something(page):
    return any(b.language in ("python", "bash", "console") for b in runs.blocks(page))


@pytest.fixture(scope="session")
def tutorial(made_once, small_sample):
    """The folder in which the tutorial ran, once for all pages: others take its results for granted."""

    def run(folder):
        (folder / "sample_data").symlink_to(small_sample)
        with contextlib.chdir(folder):
            runs.run_page(ROOT / "docs" / "tutorial.md", set(NOT_RUN["docs/tutorial.md"]))

    return made_once("tutorial_of_docs", run)


def furnish(page, folder, small_sample, tutorial):
    """Put into a folder what a page takes for granted."""
    text = page.read_text(encoding="utf-8")
    (folder / "sample_data").symlink_to(small_sample)
    if NEEDS_RESULTS.search(text) and page.name != "README.md":
        shutil.copytree(tutorial / "results", folder / "results")
    if NEEDS_STUDY.search(text):
        shutil.copytree(small_sample / "organ_tables" / "125I_TAP1", folder / "study")
    if page.name in FILES:
        name, text = FILES[page.name]
        (folder / name).write_text(text, encoding="utf-8")


#: Tables that a page calls the reader's own.
FILES = {
    "commands.md": ("counter.csv", "organ,h0.5,sd,h2,sd,h8,sd,h24,sd\nblood,12,1,4,0.5,1.1,0.2,0.5,0.1\n"),
}


@pytest.mark.parametrize("page", [p for p in PAGES if runs_something(p)], ids=name_of)
def test_blocks_run(page, tmp_path, monkeypatch, small_sample, tutorial):
    if page.name == "tutorial.md":
        assert (tutorial / "results" / "report.html").stat().st_size > 10_000
        return
    monkeypatch.chdir(tmp_path)
    furnish(page, tmp_path, small_sample, tutorial)
    runs.run_page(page, set(NOT_RUN.get(name_of(page), ())))


@pytest.mark.parametrize("page", [p for p in PAGES if runs_something(p)], ids=name_of)
def test_every_command_that_a_page_types_exists(page):
    for block in runs.blocks(page):
        text = re.sub(r"^(?!\$ ).*\n?", "", block.text, flags=re.M) if block.language == "console" else block.text
        if block.language in ("bash", "console"):
            for words in runs.commands(text.replace("$ evbiodist", "evbiodist")):
                if words[0].endswith("evbiodist"):
                    runs.parse(words)


def test_reasons_belong_to_blocks_that_are_there():
    for name, listed in NOT_RUN.items():
        first = {b.first for b in runs.blocks(ROOT / name)}
        assert set(listed) <= first, (name, set(listed) - first)
        assert all(listed.values())


def test_a_command_that_does_not_exist_is_noticed():
    import click

    for words in (["evbiodist", "rnu", "x"], ["evbiodist", "run", "x", "--out", "y", "--wrokers", "2"]):
        with pytest.raises(click.UsageError):
            runs.parse(words)


def test_output_that_differs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        runs.run_console("$ evbiodist check nothing.toml\nall is well\n")
    page = tmp_path / "page.md"
    page.write_text('```python\nprint(1 + 1)\n```\n\n```text title="prints"\n3\n```\n', encoding="utf-8")
    with pytest.raises(AssertionError):
        runs.run_page(page, set())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = runs.FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_is_documented():
    from evbiodist.cli import main

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in main.commands if f"`evbiodist {name}" not in text] == []


@pytest.mark.parametrize(("script", "page"), [("make_commands", "options.md"), ("make_api", "api.md")])
def test_pages_made_from_the_code_are_current(script, page, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    sys.modules.pop(script, None)
    made = importlib.import_module(script).page()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == made, f"run python docs/{script}.py"


def test_every_flag_and_model_is_documented():
    from evbiodist.kinetics.models.catalogue import catalogue
    from evbiodist.kinetics.nca.parameters import PARAMETERS
    from evbiodist.study.flags import FLAGS

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    missing = [w for w in (*FLAGS, *catalogue(), *PARAMETERS) if f"`{w}`" not in text]
    assert missing == []


def test_sample_data_is_what_its_script_makes():
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
