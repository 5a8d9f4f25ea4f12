"""What docs/batch.md says of SLURM: its configuration and scripts are ones that dask-jobqueue, bash and we understand."""

import ast
import importlib
import inspect
import re
import runpy
import subprocess
from pathlib import Path

import dask
import pytest
import yaml
from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed.security import Security

import evbiodist as ev
from evbiodist.batch.cluster import Scheduler

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "batch.md").read_text(encoding="utf-8")


def blocks(language, word):
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)
    return [block for block in found if word in block]


@pytest.fixture(scope="module")
def config():
    [block] = blocks("yaml", "jobqueue")
    return yaml.safe_load(block)


def test_every_key_of_the_configuration_is_one_of_dask_jobqueue(config):
    known = dask.config.get("jobqueue.slurm")
    assert set(config["jobqueue"]) == {"slurm"}
    assert set(config["jobqueue"]["slurm"]) <= set(known)


def test_the_configuration_makes_a_job_that_bash_reads_and_slurm_gets_its_numbers(config, tmp_path):
    security = Security(
        tls_ca_file="ca.pem", tls_worker_cert="me.pem", tls_worker_key="me.key", require_encryption=True
    )
    with dask.config.set(config | {"jobqueue": {"slurm": {**dask.config.get("jobqueue.slurm"), **config["jobqueue"]["slurm"],
                                                          "log-directory": str(tmp_path / "logs")}}}):  # fmt: skip
        script = SLURMJob("tls://10.0.0.1:8786", name="w", security=security, protocol="tls://").job_script()
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    for line in ("#SBATCH -p short", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=8G", "#SBATCH -t 08:00:00"):
        assert line in script.splitlines()
    for words in ("tls://10.0.0.1:8786", "--nthreads 1", "--tls-ca-file ca.pem", "--death-timeout 300"):
        assert words in script


def test_the_script_names_what_is_there_and_reaches_the_scheduler_encrypted(tmp_path):
    [block] = blocks("bash", "SLURMCluster")
    block = block.partition("<<'END'\n")[2].partition("END\n")[0]
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(importlib.import_module(node.module), name.name) for name in node.names)
    (tmp_path / "script.py").write_text(block[: block.index("with SLURMCluster")])
    made = runpy.run_path(str(tmp_path / "script.py"))
    assert made["security"].require_encryption
    assert made["security"].tls_worker_key == "me.key"
    assert {"scale", "wait_for_workers", "scheduler_address"} <= set(dir(SLURMCluster))
    assert "engine" in inspect.signature(ev.run).parameters
    scheduler = Scheduler("tls://10.0.0.1:8786", ca="ca.pem", certificate="me.pem", key="me.key")
    assert scheduler.address == "tls://10.0.0.1:8786"


def test_shell_lines_of_the_page_are_ones_that_bash_reads():
    found = blocks("bash", "sbatch") + blocks("bash", "SLURMCluster")
    assert len(found) == 2
    for block in found:
        assert subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True).returncode == 0
