"""The manifest is valid, named like the distribution, and finds our readers and samples by file name.

One invalid field would remove every command of the plugin without a word.
"""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files

import pytest
from npe2 import PluginManifest

from evbiodist.study.model import VALUE_UNITS

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


def test_every_command_is_something_to_call():
    for command in PluginManifest.from_file(MANIFEST).contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_every_panel_is_a_widget_of_its_own_title_and_stands_in_a_menu():
    from napari_evbiodist.panels.all_panels import PANELS

    found = PluginManifest.from_file(MANIFEST).contributions
    places = {command.id: command.python_name for command in found.commands}
    assert {widget.display_name: places[widget.command] for widget in found.widgets} == PANELS
    listed = {item.command for items in found.menus.values() for item in items}
    assert listed == {widget.command for widget in found.widgets} | {"evbiodist.all_panels"}


def test_napari_takes_our_entries_in_every_menu_that_we_name():
    from napari._app_model.constants._menus import is_menu_contributable

    menus = PluginManifest.from_file(MANIFEST).contributions.menus
    assert {menu for menu in menus if not is_menu_contributable(menu)} == set()


def test_npe2_finds_it_valid():
    done = subprocess.run([sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "a.tif",
        "a.TIFF",
        "DiR_0.5h_1.tif",
        "ClickInfo.txt",
        "clickinfo.TXT",
        "a.nii.gz",
        "a.dcm",
        "a.v",
        "a.img.hdr",
        "study.toml",
        "SequenceInfo.txt",
    ],
)
def test_files_of_ours_reach_the_reader(manager, name):
    assert [r.command for r in manager.iter_compatible_readers(name)] == ["evbiodist.get_reader"]


@pytest.mark.parametrize("name", ["gamma.csv", "notes.txt", "a.png"])
def test_other_files_do_not(manager, name):
    assert list(manager.iter_compatible_readers(name)) == []


def test_folders_reach_the_reader(manager, tmp_path):
    assert [r.command for r in manager.iter_compatible_readers(str(tmp_path))] == ["evbiodist.get_reader"]


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("demo_tray", ["image", "image", "labels"]),
        ("demo_in_vivo", ["image", "labels"]),
        ("demo_pet", ["image", "labels"]),
    ],
)
def test_samples_are_offered_with_scale_and_units(manager, key, kinds):
    [(name, samples)] = manager.iter_sample_data()
    layers = next(s for s in samples if s.key == key).open(_registry=manager.commands)
    assert (name, [kind for _, _, kind in layers]) == ("evbiodist", kinds)
    for data, keywords, _ in layers:
        assert len(keywords["scale"]) == len(keywords["units"]) == len(keywords["axis_labels"]) == data.ndim
        assert keywords["units"][-2:] == ("mm", "mm")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.ome.tif", "write_labels"),
        ("a.zarr", "write_labels"),
        ("a", "write_labels"),
        ("a.csv", "write_observations"),
        ("a.parameters.csv", "write_parameters"),
    ],
)
def test_writers_are_chosen_by_the_name(manager, name, command):
    writer, _ = manager.get_writer(name, ["labels"], "evbiodist")
    assert writer.command == f"evbiodist.{command}"


def test_preferences_have_defaults_that_the_core_knows():
    [settings] = PluginManifest.from_file(MANIFEST).contributions.configurations.values()
    assert {k: p.default for k, p in settings.properties.items()} == {"annotator": "", "unit": "pct_id", "level": 0.95}
    assert set(settings.properties["unit"].enum) == set(VALUE_UNITS)
