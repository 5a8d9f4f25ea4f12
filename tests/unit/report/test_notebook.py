"""In Jupyter: objects show a table (and a curve a figure), text is escaped, and nothing happens without a notebook."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile

import evbiodist as ev
from evbiodist.report.notebook import SHOWN
from evbiodist.study.estimate import Estimate

CELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import evbiodist as ev
html = shell.display_formatter.formatters["text/html"]
print(html(ev.nca([0, 1, 2, 4], [8, 4, 2, 0.5])))
print(html(ev.Estimate("<b>", 1.0, unit="h")))
"""


def test_a_running_ipython_shows_our_objects():
    pytest.importorskip("IPython")
    done = subprocess.run([sys.executable, "-c", CELL], capture_output=True, text=True, check=True)
    assert "<td>half_life</td>" in done.stdout
    assert "&lt;b&gt;" in done.stdout
    assert "<b>" not in done.stdout


def test_without_ipython_importing_stays_light():
    code = "import sys, evbiodist; print('IPython' in sys.modules, 'pandas' in sys.modules, 'evbiodist.report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


@pytest.mark.parametrize("place", SHOWN, ids=lambda p: p[1])
def test_every_class_is_where_it_is_said_to_be(place):
    from importlib import import_module

    module, name = place
    assert getattr(import_module(module), name).__module__ == module


def shown(value):
    found = SHOWN[type(value).__module__, type(value).__name__](value)
    assert not re.search(r"\bnan\b|\bNone\b", found)
    return found


def test_a_fit_shows_parameters_and_a_figure_and_a_study_its_groups(two_labels, tmp_path):
    study = ev.load_study(two_labels)
    assert "<td>treated</td><td>NanoLuc</td><td>18</td>" in shown(study)
    result = ev.run(study, tmp_path / "out", report=False)
    assert "values" in shown(result)
    rows = pd.DataFrame(result.observations)
    one = rows[(rows["label"] == "NanoLuc") & (rows["group"] == "treated")]
    page = shown(ev.fit(one, model="two_compartment_iv", dose=100.0))
    assert "<td>cl</td>" in page
    assert 'src="data:image/svg+xml;base64,' in page


def test_scans_signals_and_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 20), np.uint16))
    scan = ev.read(tmp_path / "a.tif")
    assert "20" in shown(scan)
    assert "no replicate" in shown(Estimate("half_life", 4.4, unit="h", reason="no replicate"))
