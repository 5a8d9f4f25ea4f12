"""A session's numbers are the batch's: drawn, saved, run from the files and opened again, to the last byte."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari_evbiodist.converters import layer_to_organs, organs_to_layer, scan_to_layers
from napari_evbiodist.organs_model import polygons_to_organs
from napari_evbiodist.session import EDITS, Session
from napari_evbiodist.view import add_layers

import evbiodist as ev
from evbiodist.batch.pipeline import run_study
from evbiodist.sample import sample_data
from evbiodist.study.problems import InputError

TRAY, ALIVE = "NanoLuc_0.5h_1", "NanoLuc_followed_0.5h"


@pytest.fixture
def session(few_scans):
    return Session.open(few_scans, annotator="Ann")


def batch(settings, out):
    run_study(ev.load_study(settings), out, quantify_only=True)
    return (out / "observations.csv").read_bytes()


def smaller_liver(session, scan=TRAY):
    """Return organs of which the liver lost its uppermost row of pixels."""
    organs = session.organs(scan)
    labels = organs.labels.copy()
    top = np.argwhere(organs.mask("liver"))[0, 0]
    labels[top][labels[top] == next(v for v, name in organs.names.items() if name == "liver")] = 0
    return ev.OrganMap(labels, organs.names, "drawn")


def same(a, b):
    assert np.array_equal(a.labels, b.labels)
    assert {v: a.names[v] for v in np.unique(a.labels) if v} == {v: b.names[v] for v in np.unique(b.labels) if v}


def test_an_untouched_study_gives_the_bytes_of_the_batch(session, few_scans, tmp_path):
    assert session.observations().csv() == batch(few_scans, tmp_path / "out")
    assert session.observations().failures == {}


@pytest.mark.parametrize("inside", [True, False])
def test_draw_save_batch_reload_is_the_same_geometry_and_the_same_bytes(session, few_scans, tmp_path, inside):
    viewer, scan = ViewerModel(), session.scan(TRAY)
    *_, layer = add_layers(viewer, [*scan_to_layers(scan), organs_to_layer(session.organs(TRAY), scan)])
    before = session.run_scan(TRAY).rows
    layer.brush_size = 5
    layer.paint(tuple(np.argwhere(layer.data == 1)[0]), 1)
    layer.paint((60, 64), 7)
    kept = session.set_organs(TRAY, layer_to_organs(layer.as_layer_data_tuple(), scan))
    assert {o: int((layer.data == v).sum()) for v, o in zip(*(layer.features[c] for c in ("index", "organ")), strict=True)
            if o not in ("kidney",)}.items() <= kept.areas().items()  # fmt: skip
    numbers = session.observations()
    assert session.run_scan(TRAY).rows != before
    settings = session.save(few_scans / "mine" if inside else tmp_path / "elsewhere")
    assert batch(settings, tmp_path / "out") == numbers.csv()
    again = Session.open(settings)
    same(again.organs(TRAY), kept)
    assert again.observations().csv() == numbers.csv()
    assert [e.action for e in again.history(TRAY)] == ["paint"]
    saved_study = (few_scans / "mine.study.toml") if inside else settings.with_name("study.toml")
    assert Session.open(saved_study).observations().csv() == numbers.csv()


def test_the_command_and_the_script_repeat_it(session, tmp_path, monkeypatch):
    session.set_organs(TRAY, smaller_liver(session))
    with pytest.raises(ValueError, match="changes that are in no file yet; save it first"):
        session.as_command()
    settings = session.save(tmp_path / "it's saved")
    assert shlex.split(session.as_command("my results")) == ["evbiodist", "run", str(settings), "--out", "my results"]
    monkeypatch.setattr(ev, "run", lambda study, out: run_study(study, Path(out), quantify_only=True))
    exec(session.as_python(str(tmp_path / "by script")), {})  # noqa: S102  the script is what is tested
    assert (tmp_path / "by script" / "observations.csv").read_bytes() == session.observations().csv()
    assert TRAY in session.observations().csv().decode()


def test_undo_and_redo_bring_back_organs_and_numbers_and_are_told(session):
    found, first = session.organs(TRAY), session.run_scan(TRAY).rows
    edited = session.set_organs(TRAY, smaller_liver(session))
    second = session.run_scan(TRAY).rows
    assert second != first
    same(session.undo(TRAY), found)
    assert session.run_scan(TRAY).rows == first
    same(session.redo(TRAY), edited)
    assert session.run_scan(TRAY).rows == second
    history = session.history(TRAY)
    assert [(e.annotator, e.action) for e in history] == [("Ann", a) for a in ("paint", "undo", "redo")]
    assert history[0].sha256 == history[2].sha256 != history[1].sha256 == ""
    assert history[0].pixels == edited.areas()
    assert all(e.time.endswith("+00:00") for e in history)
    with pytest.raises(ValueError, match="nothing to redo"):
        session.redo(TRAY)
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo(ALIVE)


def test_pixel_values_that_mean_another_organ_are_renumbered(session):
    labels = np.zeros(session.scan(TRAY).plane_shape, int)
    labels[10:20, 10:20], labels[30:40, 10:20] = 1, 2  # body and brain in the study's table
    drawn = ev.OrganMap(labels, {1: "liver", 2: "tumour"}, "drawn")
    kept = session.set_organs(TRAY, drawn)
    assert kept.areas() == {"liver": 100, "tumour": 100}
    assert np.array_equal(kept.mask("liver"), labels == 1)
    assert session.study.settings.imaging.organ_labels["1"] == "body"
    assert kept.names[10] == "tumour"


def test_drawn_polygons_measure_like_the_same_pixels_painted(session):
    scan, organs = session.scan(TRAY), session.organs(TRAY)
    square = np.array([[10, 10], [10, 20], [20, 20], [20, 10]]) * 0.5
    drawn = polygons_to_organs(
        ([square], {"features": {"organ": ["Tumour"]}, "units": ("mm", "mm")}, "shapes"), scan, organs
    )
    painted = organs.labels.copy()
    painted[10:21, 10:21] = max(organs.names) + 1
    assert np.array_equal(drawn.labels, painted)
    session.set_organs(TRAY, drawn, "polygon")
    assert "tumour" in {r.organ for r in session.run_scan(TRAY).rows}


def test_an_edit_goes_along_time(session):
    done = session.propagate(ALIVE, "identity")
    assert done == {"NanoLuc_followed_2h": ""}
    same(session.organs("NanoLuc_followed_2h"), session.organs(ALIVE))
    assert session.history("NanoLuc_followed_2h")[0].action == f"propagate from {ALIVE}"


def test_the_table_tells_what_is_missing_and_what_to_do(session, few_scans):
    (few_scans / "images" / f"{TRAY}.tif").unlink()
    [row] = [r for r in session.table() if r.problems]
    assert (row.scan, row.edited) == (TRAY, False)
    assert "copy the file or correct the name" in row.problems[0]
    numbers = session.observations()
    assert list(numbers.failures) == [TRAY]
    assert TRAY not in {r["source"] for r in numbers.rows}
    assert any("perfused" in sentence for sentence in session.missing())


def test_settings_change_the_numbers_and_are_saved(session, few_scans, tmp_path):
    before = session.observations().csv()
    session.change_settings(imaging={"footprint": "roi", "psf_fwhm_mm": None})
    assert session.observations().csv() != before
    assert batch(session.save(few_scans / "roi"), tmp_path / "out") == session.observations().csv()
    with pytest.raises(InputError, match="footprint"):
        session.change_settings(imaging={"footprint": "round"})


def test_a_result_folder_leads_back_to_its_study(few_scans, tmp_path):
    run_study(ev.load_study(few_scans), tmp_path / "results", quantify_only=True)
    session = Session.open(tmp_path / "results")
    assert (session.results, session.study.root) == (tmp_path / "results", few_scans)
    assert session.as_command().split()[2] == str(tmp_path / "results" / "settings.toml")


def test_images_without_a_study_are_asked_for_what_they_do_not_say(tmp_path):
    source = sample_data() / "demo" / "images"
    for name in ("DiR_followed_2h.tif", "DiR_followed_8h.tif"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    session = Session.open(tmp_path)
    assert [r.scan for r in session.table()] == ["DiR_followed_2h.tif", "DiR_followed_8h.tif"]
    assert "subject, label, time_h not known" in session.table()[0].problems[0]
    assert session.table()[0].time_h is None
    with pytest.raises(ValueError, match=r"subject, label, time_h of scan 'DiR_followed_2h\.tif' not known"):
        session.run_scan("DiR_followed_2h.tif")
    with pytest.raises(ValueError, match="have no subject, label or time yet"):
        session.save(tmp_path / "saved")
    with pytest.raises(InputError, match="time_h"):
        session.tell("DiR_followed_2h.tif", subject="m1", label="DiR", time_h="soon")
    for name, hours in (("DiR_followed_2h.tif", 2), ("DiR_followed_8h.tif", 8)):
        session.tell(name, subject="m1", label="DiR", time_h=hours)
        labels = np.zeros(session.scan(name).plane_shape, int)
        labels[20:30, 20:30] = 1
        session.set_organs(name, ev.OrganMap(labels, {1: "liver"}, "drawn"))
    numbers = session.observations()
    assert [(r["organ"], r["time_h"]) for r in numbers.rows] == [("liver", 2.0), ("liver", 8.0)]
    assert session.study.labels["DiR"].kind == "fluorescence"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s, f: s.run_scan("none"), "no scan 'none' in study 'digital mouse'"),
        (lambda s, f: s.save(f), "holds the study itself"),
        (lambda s, f: s.save(f / "images"), "'images' holds other files; choose a new or empty folder"),
        (lambda s, f: s.tell(TRAY, time_h=1), "is a row of scans.csv; correct it there"),
        (lambda s, f: s.set_organs(TRAY, ev.OrganMap(np.ones((7, 9), int), {1: "liver"}, "x")), "own grid"),
        (lambda s, f: Session.open([]), "nothing was named"),
        (lambda s, f: Session.open(f / "masses.csv"), "no study and no image that evbiodist reads"),
        (lambda s, f: Session.open(f / "missing.toml"), "no study and no image"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(session, few_scans, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        change(session, few_scans)
    assert not (few_scans / EDITS / f"{TRAY}.ome.tif").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(session, few_scans):
    (few_scans / EDITS).write_text("a file in the way")
    with pytest.raises(ValueError, match="copy the study to a folder of yours"):
        session.set_organs(TRAY, smaller_liver(session))
    assert not any(r.edited for r in session.table())


def test_a_damaged_history_names_its_line(session, few_scans):
    session.set_organs(TRAY, smaller_liver(session))
    path = few_scans / EDITS / f"{TRAY}.jsonl"
    assert json.loads(path.read_text())["annotator"] == "Ann"
    path.write_text(path.read_text() + '{"time": 1}\n')
    with pytest.raises(ValueError, match=r"line 2: found no edit"):
        session.history(TRAY)
