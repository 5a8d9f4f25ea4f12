"""The doctor's findings and shell completion: what is missing has its command, statuses are right, names are completed."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from evbiodist import doctor
from evbiodist.cli import main


def call(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_a_whole_installation_is_fine():
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "self-check          passed" in result.stdout
    lines = [json.loads(line) for line in call("doctor", "--json").stdout.splitlines()]
    assert {"numpy", "pyarrow", "memory", "disk", "temporary files", "self-check"} <= {line["check"] for line in lines}
    assert all(line["fine"] for line in lines)


def test_what_is_missing_has_the_command_that_installs_it(monkeypatch):
    real = doctor.version
    gone = {"lmfit", "pyarrow"}

    def version(name):
        if name in gone:
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    result = call("doctor")
    assert result.exit_code == 2  # lmfit is needed
    assert "pip install 'evbiodist[export]'" in result.stdout
    assert "pip install --force-reinstall evbiodist" in result.stdout
    gone.remove("lmfit")
    assert call("doctor").exit_code == 0  # pyarrow is optional


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shell_s_own_lines(shell):
    result = call("completion", shell)
    assert result.exit_code == 0
    assert "_EVBIODIST_COMPLETE" in result.stdout


def test_commands_and_options_are_completed():
    def complete(*words):
        line = " ".join(("evbiodist", *words))
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_EVBIODIST_COMPLETE": "bash_complete"}
        done = subprocess.run([sys.executable, "-c", "from evbiodist.cli import main; main(prog_name='evbiodist')"],
                              env={**os.environ, **asked}, capture_output=True, text=True, check=False)  # fmt: skip
        return {text.partition(",")[2] for text in done.stdout.split()}

    assert {"export", "new", "run"} <= complete("")
    assert "--format" in complete("export", "--f")
