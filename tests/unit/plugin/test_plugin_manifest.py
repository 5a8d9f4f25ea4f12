"""The manifest is valid, named like the distribution, and finds our readers and samples by file name.

One invalid field would remove every command of the plugin without a word.
"""

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files

import pytest
from npe2 import PluginManifest

MANIFEST = files("napari_evbiodist") / "napari.yaml"


@pytest.fixture
def manager(npe2pm):
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield npe2pm


def test_the_manifest_is_named_like_the_distribution():
    [entry] = entry_points(group="napari.manifest", name="evbiodist")
    assert (
        entry.dist.name == PluginManifest.from_file(MANIFEST).name == PluginManifest.from_distribution("evbiodist").name
    )


def test_every_command_can_be_imported():
    PluginManifest.from_file(MANIFEST).validate_imports()


def test_npe2_finds_it_valid():
    done = subprocess.run([sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "DiR_0.5h_1.tif", "ClickInfo.txt", "clickinfo.TXT"])
def test_files_of_ours_reach_the_reader(manager, name):
    assert [r.command for r in manager.iter_compatible_readers(name)] == ["evbiodist.get_reader"]


@pytest.mark.parametrize("name", ["gamma.csv", "notes.txt", "a.png"])
def test_other_files_do_not(manager, name):
    assert list(manager.iter_compatible_readers(name)) == []


def test_folders_reach_the_reader(manager, tmp_path):
    assert [r.command for r in manager.iter_compatible_readers(str(tmp_path))] == ["evbiodist.get_reader"]


def test_the_demo_tray_is_offered(manager):
    [(name, [sample])] = manager.iter_sample_data()
    assert (name, sample.key) == ("evbiodist", "demo_tray")
    assert [kind for _, _, kind in sample.open(_registry=manager.commands)] == ["image", "image", "labels"]
