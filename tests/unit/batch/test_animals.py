"""Animals inferred from all their light: values within their errors, one row a time, failures alone, the same bytes."""

import csv
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tomli_w

import evbiodist as ev
from evbiodist.batch.animals import AnimalsTask, _stage, process_animals
from evbiodist.batch.engine import one_thread
from evbiodist.batch.pipeline import run_study
from evbiodist.batch.scans import load_scan
from evbiodist.imaging.segment import segment_body
from evbiodist.io.ivis import READER as IVIS_READER
from evbiodist.io.registry import read_scan
from evbiodist.phantom.ivis import Ivis
from evbiodist.phantom.optical import OpticalDesign, write_optical_study
from evbiodist.phantom.truth import LabelTruth
from evbiodist.study.flags import split
from evbiodist.study.load import load_study
from evbiodist.study.model import ImagingSettings, Label, ScanRecord

SEED = 11
#: The same seed makes the same animal: a dye seen from both sides twice, and a luciferase from above twice.
DYE = OpticalDesign(times_h=(1.0, 24.0), animals=1)
GLOW = OpticalDesign(times_h=(1.0, 4.0), animals=1, views=("dorsal",), label=LabelTruth("Luc"), emission_nm=700.0,
                     excitation_nm=None, flux_per_pct=1e9)  # fmt: skip


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def write_rows(path, table):
    lines = [",".join(table[0]), *(",".join(row.values()) for row in table)]
    path.write_text("\n".join(lines) + "\n")


def join(folder, *parts):
    """Make one study of several in subfolders, in which all light comes from animal m1."""
    toml, tables = {}, {"scans": [], "subjects": [], "truth": []}
    for part in parts:
        text = tomllib.loads((folder / part / "study.toml").read_text())
        toml = {**text, "labels": {**toml.get("labels", {}), **text["labels"]}}
        for name, table in tables.items():
            for row in rows(folder / part / f"{name}.csv"):
                here = {k: f"{part}/{row[k]}" for k in ("file", "organs") if k in row}
                one = {k: "m1" for k in ("subject", "name") if k in row}
                table.append({**row, **here, **one})
    for name, table in tables.items():
        write_rows(folder / f"{name}.csv", table)
    (folder / "study.toml").write_text(tomli_w.dumps(toml))
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One animal with two labels: four scans of the dye, two of the luciferase."""
    folder = tmp_path_factory.mktemp("optical")
    write_optical_study(folder / "dye", SEED, DYE)
    write_optical_study(folder / "glow", SEED, GLOW)
    return join(folder, "dye", "glow")


@pytest.fixture(scope="module")
def result(study, tmp_path_factory):
    return run_study(load_study(study), tmp_path_factory.mktemp("whole"), quantify_only=True)


def result_bytes(out):
    tables = {p.name: p.read_bytes() for p in out.glob("*.csv")}
    return tables | {p.name: p.read_bytes() for p in (out / "scans").iterdir()}


def truth_of(study):
    return {(r["label"], r["organ"], float(r["time_h"])): float(r["reading"])
            for r in rows(study / "truth.csv") if r["kind"] == "observation"}  # fmt: skip


def copied(study, result, tmp_path):
    """Return a copy of the study that tests may change, and of its results, to be taken up."""
    shutil.copytree(study, tmp_path / "study")
    shutil.copytree(result.out, tmp_path / "out")
    return tmp_path / "study", tmp_path / "out"


# ---------------------------------------------------------------- values


def test_every_organ_is_within_its_stated_error(study, result):
    assert result.failures == []
    truth = truth_of(study)
    found = {(r["label"], r["organ"], r["time_h"]): r for r in result.observations}
    assert set(found) == set(truth)
    z = []
    for key, row in found.items():
        assert row["unit"] == "pct_id"
        assert "inferred_anatomy" in split(row["flags"])
        # the dose standard is known to 2 %
        assert row["se_systematic"] == pytest.approx(0.02 * row["value"], rel=1e-9)
        z.append((row["value"] - truth[key]) / np.hypot(row["se"], row["se_systematic"]))
    assert np.max(np.abs(z)) < 4
    big = [key for key in truth if truth[key] > 5 and key[0] == "DiR"]
    assert len(big) >= 6
    for key in big:  # and the error is not so large that anything would lie within it
        assert found[key]["se"] < 0.6 * truth[key]
        assert found[key]["value"] == pytest.approx(truth[key], rel=0.8)


def test_rows_stand_once_a_time_and_other_views_say_so(result):
    keys = [(r["label"], r["organ"], r["time_h"]) for r in result.observations]
    assert len(keys) == len(set(keys))
    by_source = {r["source"] for r in result.observations}
    assert by_source == {"DiR_1h_dorsal", "DiR_24h_dorsal", "Luc_1h_dorsal", "Luc_4h_dorsal"}
    for time in (1, 24):
        said = f"DiR_{time}h_ventral: its light of m1 is part of the values of the other view at {time} h"
        assert result.notes.count(said) == 1
    assert not any(note.startswith("Luc") and "other view" in note for note in result.notes)


def test_every_scan_has_a_picture_and_a_legend(result):
    table = rows(result.out / "scans.csv")
    assert len(table) == 6
    for row in table:
        assert (result.out / row["picture"]).read_bytes().startswith(b"\x89PNG")
        assert {"liver", "spleen", "kidney"} <= set(row["legend"].split(";"))
        assert "body" not in row["legend"].split(";")


# ---------------------------------------------------------------- the same bytes, failures alone


def test_two_workers_give_the_same_bytes(study, result, tmp_path):
    run_study(load_study(study), tmp_path / "two", workers=2, quantify_only=True)
    assert result_bytes(tmp_path / "two") == result_bytes(result.out)


def test_a_run_that_is_taken_up_gives_the_same_bytes(study, result, tmp_path):
    _, out = copied(study, result, tmp_path)
    before = result_bytes(out)
    lost = [r["picture"] for r in rows(out / "scans.csv") if r["label"] == "Luc"]
    (out / lost[0]).with_suffix(".json").unlink()
    (out / lost[1]).unlink()
    (out / "observations.csv").unlink()
    events = []
    run_study(load_study(study), out, quantify_only=True, progress=events.append)
    assert [e["resumed"] for e in events if "resumed" in e] == [4]
    assert result_bytes(out) == before


def test_a_scan_that_cannot_be_read_fails_alone(study, result, tmp_path):
    folder, out = copied(study, result, tmp_path)
    image = folder / "glow" / "clicks" / "Luc_4h_dorsal" / "luminescent.TIF"
    image.write_bytes(image.read_bytes()[:900])
    found = run_study(load_study(folder), out, quantify_only=True)
    (failure,) = found.failures
    assert failure["name"] == "Luc_4h_dorsal"
    assert "truncated" in failure["reason"] or "cannot be" in failure["reason"] or "damaged" in failure["reason"]
    kept = [r for r in found.observations if r["label"] == "DiR"]
    assert kept == [r for r in result.observations if r["label"] == "DiR"]
    left = {r["organ"]: r for r in found.observations if r["label"] == "Luc"}
    assert {r["source"] for r in left.values()} == {"Luc_1h_dorsal"}
    truth = truth_of(study)
    for organ, row in left.items():
        assert abs(row["value"] - truth["Luc", organ, 1.0]) < 4 * np.hypot(row["se"], row["se_systematic"])


def changed_scans(folder, change):
    write_rows(folder / "scans.csv", [change(row) for row in rows(folder / "scans.csv")])


def test_a_view_that_nobody_states_is_decided_by_the_light(study, result, tmp_path):
    folder, out = copied(study, result, tmp_path)
    changed_scans(folder, lambda r: {**r, "view": ""} if r["label"] == "Luc" else r)
    found = run_study(load_study(folder), out, quantify_only=True)
    assert found.failures == []
    for a, b in zip(found.observations, result.observations, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6, abs=1e-9)
    for scan in ("Luc_1h_dorsal", "Luc_4h_dorsal"):
        (said,) = [n for n in found.notes if n.startswith(f"{scan}: m1: ")]
        assert "the head is where the outline suggests, seen is the dorsal side: the light fits by" in said


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two animals side by side, and their results."""
    folder = tmp_path_factory.mktemp("pair")
    design = OpticalDesign(times_h=(1.0,), animals=2, views=("dorsal",), label=LabelTruth("Luc"), emission_nm=700.0,
                           excitation_nm=None, flux_per_pct=1e9, animal_cv=0.6)  # fmt: skip
    write_optical_study(folder / "s", 5, design)
    return folder / "s", run_study(load_study(folder / "s"), folder / "out", quantify_only=True)


def test_animals_side_by_side_are_told_apart(pair):
    folder, found = pair
    assert found.failures == []
    truth = {(r["name"], r["organ"]): float(r["reading"]) for r in rows(folder / "truth.csv")
             if r["kind"] == "observation"}  # fmt: skip
    assert {(r["subject"], r["organ"]) for r in found.observations} == set(truth)
    own, other = [], []
    for row in found.observations:
        swapped = {"Luc_1": "Luc_2", "Luc_2": "Luc_1"}[row["subject"]]
        for errors, name in ((own, row["subject"]), (other, swapped)):
            errors.append((row["value"] - truth[name, row["organ"]]) / np.hypot(row["se"], row["se_systematic"]))
    assert np.max(np.abs(own)) < 4
    assert np.sum(np.square(own)) < np.sum(np.square(other))
    assert all(r["source"] == "Luc_1h_dorsal" for r in found.observations)


def broken_pair(pair, tmp_path, *broken):
    """Draw both animals as they were found, but some as discs, which no mouse lies like."""
    folder = shutil.copytree(pair[0], tmp_path / "s")
    labels = np.array(tifffile.imread(folder / "standard.tif"))
    (record,) = load_study(folder).scans
    bodies = segment_body(load_scan(folder, record), expected=2)
    for number in (1, 2):
        mask = bodies.resized(labels.shape).mask(f"animal_{number}")
        if number in broken:
            y, x = np.indices(labels.shape)
            mask = np.hypot(*(at - at[mask].mean() for at in (y, x))) < 8
        labels[mask] = number + 1
    tifffile.imwrite(folder / "standard.tif", labels)
    text = tomllib.loads((folder / "study.toml").read_text())
    text["imaging"]["organ_labels"] |= {"2": "animal_1", "3": "animal_2"}
    (folder / "study.toml").write_text(tomli_w.dumps(text))
    return folder


def test_an_animal_that_cannot_be_inferred_fails_alone(pair, tmp_path):
    folder = broken_pair(pair, tmp_path, 2)
    found = run_study(load_study(folder), tmp_path / "out", quantify_only=True)
    (failure,) = found.failures
    assert (failure["what"], failure["name"], failure["subject"]) == ("animal", "Luc_1h_dorsal", "Luc_2")
    assert "Luc_2: animal_2 of the label image is 1" in failure["reason"]
    assert "times as long as wide" in failure["reason"]
    beside = [r for r in pair[1].observations if r["subject"] == "Luc_1"]
    assert len(beside) > 5
    assert found.observations == beside
    before = result_bytes(tmp_path / "out")
    assert "Luc_2" in (tmp_path / "out" / "failures.csv").read_text()
    again = run_study(load_study(folder), tmp_path / "out", quantify_only=True)
    assert again.failures == found.failures
    assert result_bytes(tmp_path / "out") == before


def test_a_scan_of_which_every_animal_fails_is_one_failure_that_names_them(pair, tmp_path):
    found = run_study(load_study(broken_pair(pair, tmp_path, 1, 2)), tmp_path / "out", quantify_only=True)
    (failure,) = found.failures
    assert failure["what"] == "scan"
    assert found.observations == []
    assert failure["reason"].startswith("Luc_1: animal_1 of the label image is 1")
    assert "; Luc_2: animal_2 of the label image is 1" in failure["reason"]


# ---------------------------------------------------------------- what cannot be done, in words


def refused(folder, tmp_path):
    found = ev.run(folder, tmp_path / "refused", report=False)
    assert found.observations == []
    return {f["name"]: f["reason"] for f in found.failures}


@pytest.fixture
def glow(study, tmp_path):
    """Two scans of the luciferase as a study of their own that tests may change."""
    return Path(shutil.copytree(study / "glow", tmp_path / "glow"))


def test_a_standard_that_is_not_marked_is_asked_for(glow, tmp_path):
    changed_scans(glow, lambda r: {**r, "organs": ""})
    told = refused(glow, tmp_path)
    assert len(told) == 2
    assert all(
        "the dose standard 'standard' is not marked in this image; give a label image" in t for t in told.values()
    )


def test_a_standard_without_light_is_not_divided_by(glow, tmp_path):
    labels = tifffile.imread(glow / "standard.tif")
    tifffile.imwrite(glow / "standard.tif", np.roll(labels, 12, axis=1))
    assert all("not above noise; %ID cannot be computed" in t for t in refused(glow, tmp_path).values())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "emission_nm = 700.0\n",
            "",
            "the label 'Luc' has no emission_nm, without which tissue's attenuation is not known",
        ),
        ("emission_nm = 700.0\n", "emission_nm = 1100.0\n", "1100 nm is outside the tabulated tissue optics"),
    ],
)
def test_a_label_whose_light_is_not_known_is_words(glow, tmp_path, old, new, words):
    text = (glow / "study.toml").read_text()
    assert old in text
    (glow / "study.toml").write_text(text.replace(old, new))
    assert all(words in t for t in refused(glow, tmp_path).values())


def test_views_from_the_side_are_refused(glow, tmp_path):
    changed_scans(glow, lambda r: {**r, "view": "left"})
    assert all("the view is 'left', but anatomy is inferred from back and belly only" in t
               for t in refused(glow, tmp_path).values())  # fmt: skip


def test_another_number_of_animals_than_listed_is_words(glow, tmp_path):
    changed_scans(glow, lambda r: {**r, "subject": "Luc_1;Luc_2"})
    subjects = rows(glow / "subjects.csv")
    write_rows(glow / "subjects.csv", [subjects[0], {**subjects[0], "subject": "Luc_2"}])
    told = refused(glow, tmp_path)
    assert len(told) == 2
    assert all("a mouse about 88 mm; check the outline" in t for t in told.values())  # one mouse, cut in two


def frame_as_tiff(glow, click, **sidecar):
    """Replace a click by its plain counts with a sidecar, which knows no radiance."""
    scan = read_scan(glow / click)
    path = glow / f"{Path(click).name}.tif"
    tifffile.imwrite(path, np.asarray(scan.counts))
    tifffile.imwrite(glow / "photo.tif", scan.photograph)
    size = [*map(float, scan.pixel_size_mm)]
    path.with_suffix(".json").write_text(json.dumps({"evbiodist": 1, "pixel_size_mm": size, "photograph": "photo.tif",
                                                     "offset": 496.0, "bias": 496.0, **sidecar}))  # fmt: skip
    return path.name


def test_scans_of_one_animal_in_different_units_do_not_add_up(glow, tmp_path):
    text = tomllib.loads((glow / "study.toml").read_text())
    del text["imaging"]["standard"]
    (glow / "study.toml").write_text(tomli_w.dumps(text))
    name = frame_as_tiff(glow, "clicks/Luc_4h_dorsal", exposure_s=30.0)
    changed_scans(glow, lambda r: {**r, "file": name} if "4h" in r["file"] else r)
    told = refused(glow, tmp_path)
    assert set(told) == {"Luc_1h_dorsal", "Luc_4h_dorsal"}
    assert all("scans of Luc_1 are in au and in p_per_s, which do not add up" in t for t in told.values())


def stage(folder, record, imaging):
    label = Label(kind="bioluminescence", emission_nm=700.0)
    settings = ImagingSettings(footprint="optical", psf_fwhm_mm=1.2, organ_labels={"1": "standard"}, **imaging)
    task = AnimalsTask(folder, "s", (record,), label, ("a",), (22.0,), settings, True)
    with one_thread():
        return _stage(task, record)


def test_frames_with_a_standard_are_on_one_scale_whatever_their_exposure(glow):
    """The same scene exposed for another time that the file does not say: % of dose a pixel stays the same."""
    imaging = {"standard": {"organ": "standard", "pct_of_dose": 0.1, "pct_of_dose_se": 0.002}}
    (first, _) = load_study(glow).scans
    click = stage(glow, first, imaging)
    name = frame_as_tiff(glow, first.file)
    plain = stage(glow, first.model_copy(update={"file": name}), imaging)
    assert plain.unit == click.unit == "pct_id"
    lit = click.image > 20 * np.sqrt(click.variance)
    assert lit.sum() > 100
    # the lens's flat field is what a plain TIFF does not know
    assert np.median(plain.image[lit] / click.image[lit]) == pytest.approx(1.0, abs=0.1)


def test_a_standard_of_a_few_pixels_is_no_cosmic_ray(tmp_path):
    """On large pixels a drop is as sharp as a ray; its light is the standard all the same."""
    design = OpticalDesign(times_h=(1.0,), animals=1, views=("dorsal",), label=LabelTruth("Luc"), emission_nm=700.0,
                           excitation_nm=None, flux_per_pct=1e9, camera=Ivis(columns=120, binning=16, exposure_s=5.0))  # fmt: skip
    write_optical_study(tmp_path / "s", SEED, design)
    (record,) = load_study(tmp_path / "s").scans
    found = stage(
        tmp_path / "s", record, {"standard": {"organ": "standard", "pct_of_dose": 0.1, "pct_of_dose_se": 0.002}}
    )
    # flux of 1 % of the dose in air is 1e9 p/s, and the drop holds 0.1 % within its 2 % of pipetting
    drop = tifffile.imread(tmp_path / "s" / "standard.tif") > 0
    assert found.image[drop].sum() == pytest.approx(0.1, rel=0.1)
    flux = stage(tmp_path / "s", record, {})
    assert found.image[drop].sum() / flux.image[drop].sum() == pytest.approx(1e-9, rel=0.1)


def test_no_scan_that_can_be_read_leaves_only_failures(glow):
    assert IVIS_READER.takes(glow / "clicks" / "Luc_1h_dorsal")
    records = tuple(
        ScanRecord(scan=f"s{i}", subject="m1", label="x", time_h=1.0, kind="in_vivo", file=f"none{i}.tif")
        for i in (1, 2)
    )
    task = AnimalsTask(glow, "s", records, Label(kind="bioluminescence", emission_nm=700.0), ("a",), (None,),
                       ImagingSettings(footprint="optical"), True)  # fmt: skip
    outcomes = process_animals(task)
    assert len(outcomes) == 2
    assert all(isinstance(o, ValueError) and "there is no such file" in str(o) for o in outcomes)
