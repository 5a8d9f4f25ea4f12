"""A real display or a loud failure: a test that skips without one would promise what nobody saw."""

import os
import subprocess
import sys

import pytest

_REMEDY = 'run it as: xvfb-run -a -s "-screen 0 1600x1000x24 -noreset" python -m pytest tests/gui'
_OPEN_A_WINDOW = "from qtpy.QtWidgets import QApplication; QApplication([])"


@pytest.fixture(scope="session", autouse=True)
def display():
    """Ask a child process first, because Qt ends the interpreter when it finds no display."""
    if os.environ.get("QT_QPA_PLATFORM", "") in {"offscreen", "minimal"}:
        pytest.fail(f"QT_QPA_PLATFORM={os.environ['QT_QPA_PLATFORM']} draws nothing; unset it and {_REMEDY}")
    done = subprocess.run([sys.executable, "-c", _OPEN_A_WINDOW], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.fail(f"Qt cannot open a window here; {_REMEDY}\n{done.stderr.strip()[-600:]}")
