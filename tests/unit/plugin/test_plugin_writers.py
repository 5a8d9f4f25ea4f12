"""Organ labels and tables on disk: pixel size, names and every pixel come back; what does not fit is refused in words."""

import csv
import json

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from napari_evbiodist.converters import organs_to_layer
from napari_evbiodist.reader import napari_get_reader
from napari_evbiodist.sample_data import example, pet_phantom
from napari_evbiodist.writers import read_organs, save_organs, write_labels, write_observations, write_parameters

import evbiodist as ev
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS
from evbiodist.study.model import OBSERVATION_COLUMNS
from evbiodist.study.problems import UnreadableImage

FLAT = ev.OrganMap(np.array([[0, 1, 1], [70_000, 0, 3]]), {1: "liver", 3: "<a&b> µ", 70_000: "kidney"}, "drawn")


@pytest.mark.parametrize("name", ["a.ome.tif", "a.zarr"])
@pytest.mark.parametrize("pixel", [None, (0.123456789, 0.3)])
def test_a_flat_map_comes_back(tmp_path, name, pixel):
    organs, grid = read_organs(save_organs(tmp_path / name, FLAT, pixel))
    assert np.array_equal(organs.labels, FLAT.labels)
    assert organs.names == FLAT.names
    assert grid.pixel_size_mm == (None if pixel is None else pytest.approx(pixel, rel=1e-12))
    assert grid.warnings == ()


@pytest.mark.parametrize("name", ["a.ome.tif", "a.zarr"])
@pytest.mark.parametrize("sample", [example, pet_phantom])
def test_a_layer_saved_by_napari_opens_as_the_same_layer(tmp_path, name, sample):
    scan, organs = sample()
    layer = Labels(**(lambda d, k, _: {"data": d, **k})(*organs_to_layer(organs, scan)))
    data, meta, _ = layer.as_layer_data_tuple()
    [path] = write_labels(str(tmp_path / name), data, meta)
    [(again, keywords, kind)] = napari_get_reader(path)(path)
    assert kind == "labels"
    assert np.array_equal(again, organs.labels)
    opened = Labels(again, **keywords)
    np.testing.assert_allclose(opened.scale, layer.scale, rtol=1e-12)
    assert [str(u) for u in opened.units] == [str(u) for u in layer.units]
    used = {v: n for v, n in organs.names.items() if (organs.labels == v).any()}
    assert used.items() <= dict(zip(opened.features["index"], opened.features["organ"], strict=True)).items()


def test_other_units_of_length_become_mm(tmp_path):
    meta = {
        "features": {"index": [1], "organ": ["liver"]},
        "scale": (500.0, 250.0),
        "units": ("micrometer", "micrometer"),
    }
    [path] = write_labels(str(tmp_path / "a.tif"), np.ones((2, 2), int), meta)
    assert path.endswith("a.ome.tif")
    assert read_organs(path)[1].pixel_size_mm == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": None}, "columns 'index' and 'organ'"),
        ({"features": {"index": [2], "organ": ["liver"]}}, r"pixel values \[1\]"),
        ({"rotate": [[0.0, -1.0], [1.0, 0.0]]}, "is turned"),
        ({"units": ("second", "second")}, "is scaled in second; expected a length"),
    ],
)
def test_a_layer_that_cannot_be_written_is_a_sentence(tmp_path, change, sentence):
    meta = {"name": "mine", "features": {"index": [1], "organ": ["liver"]}, **change}
    with pytest.raises(ValueError, match=sentence):
        write_labels(str(tmp_path / "a.ome.tif"), np.ones((2, 2), int), meta)
    assert list(tmp_path.iterdir()) == []


def test_a_zarr_folder_is_never_overwritten(tmp_path):
    save_organs(tmp_path / "a.zarr", FLAT)
    with pytest.raises(ValueError, match="is there already"):
        save_organs(tmp_path / "a.zarr", FLAT)
    with pytest.raises(ValueError, match=r"written as \.ome\.tif or \.zarr"):
        save_organs(tmp_path / "a.png", FLAT)


def test_hostile_files_are_no_organs_or_a_sentence(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", np.ones((4, 4), np.uint16))
    assert read_organs(tmp_path / "plain.tif") is None
    whole = save_organs(tmp_path / "whole.ome.tif", FLAT).read_bytes()
    (tmp_path / "cut.ome.tif").write_bytes(whole[:200])
    assert read_organs(tmp_path / "missing.tif") is None
    path = tmp_path / "cut.ome.tif"
    with pytest.raises(ValueError, match=r"^cut\.ome\.tif: "):
        napari_get_reader(str(path))(str(path))
    evil = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "liver">]><OME>&a;</OME>'
    tifffile.imwrite(tmp_path / "evil.ome.tif", np.ones((4, 4), np.uint16), description=evil, metadata=None)
    assert read_organs(tmp_path / "evil.ome.tif") is None
    zarr = save_organs(tmp_path / "a.zarr", FLAT)
    described = json.loads((zarr / "zarr.json").read_text())
    described["attributes"]["ome"]["image-label"]["properties"] = [{"label-value": 9, "name": "liver"}]
    (zarr / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(UnreadableImage, match=r"a\.zarr: pixel values \[1, 3, 70000\]"):
        read_organs(zarr)


@pytest.mark.parametrize(
    ("write", "table", "columns"),
    [(write_observations, "observations", OBSERVATION_COLUMNS), (write_parameters, "parameters", PARAMETER_COLUMNS)],
)
def test_tables_have_our_columns_and_no_formulas(tmp_path, write, table, columns):
    row = dict.fromkeys(columns) | {"subject": "=1+1", "value": 0.1, "organ": "liver"}
    path = str(tmp_path / "t.csv")
    assert write(path, None, {"metadata": {"evbiodist": {table: [row]}}}) == [path]
    header, cells = csv.reader((tmp_path / "t.csv").read_text().splitlines())
    assert tuple(header) == columns
    told = dict(zip(header, cells, strict=True))
    assert (told["subject"], told["value"], told["unit"]) == ("'=1+1", "0.1", "")
    with pytest.raises(ValueError, match=f"layer 'x' carries no {table}; measure the scan first"):
        write(path, None, {"name": "x"})
