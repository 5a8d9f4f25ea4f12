"""Volumes larger than memory in a run: cut into parts, taken up where a run was killed, the same bytes from any engine."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import evbiodist as ev
from evbiodist.batch import volumes
from evbiodist.batch.engine import limits_for, run_tasks
from evbiodist.batch.pipeline import run_study, task_of
from evbiodist.batch.scans import process
from evbiodist.batch.volumes import Split, step, through
from evbiodist.imaging import pieces, volume
from evbiodist.io.ome_zarr import write_ome_zarr
from evbiodist.io.scan import Camera, Scan
from evbiodist.study.load import load_study

STUDY = """name = "cleared"
[labels.mCherry]
kind = "fluorescence"
emission_nm = 610
[tables]
subjects = "subjects.csv"
scans = "scans.csv"
[imaging]
{imaging}
[imaging.organ_labels]
1 = "liver"
2 = "spleen"
"""


@pytest.fixture
def cleared(tmp_path) -> Path:
    """A study of one cleared mouse, imaged at two times in one series and once more by itself."""
    return make(tmp_path / "study")


def make(folder: Path, imaging: str = "") -> Path:
    folder.mkdir()
    random = np.random.default_rng(3)
    labels = np.zeros((20, 48, 40), np.uint8)
    labels[4:12, 8:20, 6:18], labels[9:15, 26:40, 20:34] = 1, 2
    camera = Camera(gain_e=2.0, read_noise_e=6.0, bias=100.0)

    def counts(level):
        return np.round(random.poisson(20 + level * (labels == 1) + 60.0 * (labels == 2)) + 100).astype(np.uint16)

    about = {"camera": camera, "offset": 100.0, "slice_mm": 0.02}
    chunk = (8, 16, 16)
    write_ome_zarr(folder / "one.zarr", Scan("one", None, counts(200.0), "ZYX", (0.01, 0.01), **about), chunk)
    write_ome_zarr(folder / "organs.zarr", Scan("organs", None, labels, "ZYX", (0.01, 0.01), slice_mm=0.02), chunk)
    (folder / "study.toml").write_text(STUDY.format(imaging=imaging))
    (folder / "subjects.csv").write_text("subject,label,dose,dose_unit,route\nm1,mCherry,1e10,particles,iv_bolus\n")
    (folder / "scans.csv").write_text(
        "scan,subject,label,time_h,kind,file,organs\none,m1,mCherry,2,volume,one.zarr,organs.zarr\n"
    )
    return folder


@pytest.fixture
def small(monkeypatch):
    """Let volumes of this size count as large, and cut them often."""
    monkeypatch.setattr(volume, "LARGE", 1000)
    monkeypatch.setattr(volumes, "tiles", partial(pieces.tiles, voxels=8 * 32 * 32))
    monkeypatch.setattr(volumes, "shares", partial(pieces.shares, voxels=10_000))


def here(function, tasks, seen=None, stop_after=None):
    """Run tasks one after another in this process, as far as one wants."""
    for i, task in enumerate(tasks):
        if isinstance(task, volumes.VolumePart) and seen is not None:
            if stop_after is not None and len(seen) >= stop_after:
                raise KeyboardInterrupt
            seen.append(task)
        try:
            yield i, function(task)
        except ValueError as err:
            yield i, err


def contents(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.rglob("*")) if p.suffix in (".csv", ".png", ".json")
            and p.name not in ("provenance.json",)}  # fmt: skip


def test_a_volume_in_parts_is_the_volume_as_a_whole(cleared, small, monkeypatch):
    study = load_study(cleared)
    task = task_of(study, study.scans)
    found = step(task)
    assert isinstance(found, Split)
    assert len(found.parts) > 4
    [result] = through(task)
    monkeypatch.setattr(volume, "LARGE", 1 << 30)
    whole = process(task)
    assert [(r.organ, r.unit, r.flags, r.time_h, r.source) for r in result.rows] == [
        (r.organ, r.unit, r.flags, r.time_h, r.source) for r in whole.rows
    ]
    np.testing.assert_allclose([r.value for r in result.rows], [r.value for r in whole.rows], rtol=1e-11)
    np.testing.assert_allclose([r.se for r in result.rows], [r.se for r in whole.rows], rtol=1e-9)
    assert result.legend == ("liver", "spleen")
    assert result.picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("imaging", ["", 'footprint = "psf"\npsf_fwhm_px = 2.0\n'])
def test_a_run_killed_in_the_middle_of_a_volume_goes_on_there_and_ends_with_the_same_bytes(
    tmp_path, small, imaging
):  # fmt: skip
    study = load_study(make(tmp_path / "study", imaging))
    out, again = tmp_path / "a", tmp_path / "b"
    seen, told = [], []
    run_study(study, out, engine=partial(here, seen=seen), progress=told.append)
    parts = [e for e in told if e["event"] == "part"]
    assert parts[-1]["done"] == parts[-1]["total"] == len(seen) > 4
    for stop in (2, len(seen) - 3):  # in the first pass, and late
        with pytest.raises(KeyboardInterrupt):
            run_study(study, again, engine=partial(here, seen=[], stop_after=stop))
    rest = []
    run_study(study, again, engine=partial(here, seen=rest))
    assert len(rest) < len(seen) - 2
    assert contents(again) == contents(out)
    assert len(list((out / "scans").glob("*.json"))) == 1  # sums of parts are gone with their use


def test_parts_go_to_processes_and_give_the_bytes_of_one(tmp_path, small, cleared, monkeypatch):
    study = load_study(cleared)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    run_study(study, alone, engine=here)

    def apart(function, tasks):
        """Let parts run in other processes; what is large is judged here, where it was changed."""
        if tasks and isinstance(tasks[0], volumes.VolumePart):
            return run_tasks(function, tasks, 2, limits_for(2, 1.0))
        return here(function, tasks)

    run_study(study, beside, engine=apart)
    assert contents(beside) == contents(alone)


def test_a_chunk_that_cannot_be_decoded_fails_its_scan_in_words_and_a_rerun_mends_it(tmp_path, small, cleared):
    study = load_study(cleared)
    run_study(study, tmp_path / "good", engine=here)
    chunk = max((cleared / "one.zarr" / "0").rglob("c/*/*/*"), key=lambda p: p.as_posix())
    kept = chunk.read_bytes()
    chunk.write_bytes(kept[:-3] + b"abc")
    out = tmp_path / "out"
    result = run_study(study, out, engine=here)
    [failure] = result.failures
    assert failure["name"] == "one"
    assert "cannot be decoded" in failure["reason"] or "checksum" in failure["reason"]
    chunk.write_bytes(kept)
    run_study(study, out, engine=here)
    assert contents(out) == contents(tmp_path / "good")


def test_labels_on_a_coarser_grid_serve_and_a_series_has_a_row_a_time(tmp_path, small, cleared):
    folder = cleared
    one = ev.read(folder / "one.zarr")
    counts = np.stack([np.asarray(one.counts[...]), np.asarray(one.counts[...]) * 2])
    from evbiodist.io.timing import FrameTiming

    timing = FrameTiming((0.0, 600.0), (60.0, 60.0), reference="injection")
    series = Scan(
        "s", None, counts, "TZYX", one.pixel_size_mm, camera=one.camera, offset=100.0, slice_mm=0.02, timing=timing
    )
    write_ome_zarr(folder / "series.zarr", series, (1, 8, 16, 16))
    coarse = np.zeros((10, 24, 20), np.uint8)
    coarse[2:6, 4:10, 3:9] = 1
    write_ome_zarr(folder / "coarse.zarr", Scan("c", None, coarse, "ZYX", (0.02, 0.02), slice_mm=0.04), (8, 16, 16))
    (folder / "scans.csv").write_text(
        "scan,subject,label,time_h,kind,file,organs\ns,m1,mCherry,0,volume,series.zarr,coarse.zarr\n"
    )
    result = run_study(load_study(folder), tmp_path / "out", engine=here)
    assert not result.failures
    assert [(r["organ"], round(r["time_h"], 3)) for r in result.observations] == [("liver", 0.008), ("liver", 0.175)]
    first, second = (r["value"] for r in result.observations)
    above = counts[:, 4:12, 8:20, 6:18].sum(axis=(1, 2, 3)) - counts[:, 4:12, 8:20, 6:18][0].size * np.array(
        [120.0, 240.0]
    )
    np.testing.assert_allclose([first, second], above, rtol=0.01)


@pytest.mark.parametrize(("imaging", "said"), [
    ('[imaging.outline]\nshift_sd_mm = 0.1\ngrow_sd_mm = 0.1\n', "imaging.outline"),
    ('register_by = "intensity"\n', ""),
])  # fmt: skip
def test_what_a_large_volume_cannot_have_is_said(tmp_path, small, imaging, said):
    folder = make(tmp_path / "study", imaging if not imaging.startswith("[") else "")
    if imaging.startswith("["):
        toml = folder / "study.toml"
        toml.write_text(toml.read_text() + imaging)
    result = run_study(load_study(folder), tmp_path / "out", engine=here)
    if said:
        assert said in result.failures[0]["reason"]
    else:
        assert not result.failures  # a single volume has nothing to be registered to


def test_a_volume_without_labels_is_told_to_bring_some(small, cleared, tmp_path):
    (cleared / "scans.csv").write_text(
        "scan,subject,label,time_h,kind,file,organs\none,m1,mCherry,2,volume,one.zarr,\n"
    )
    shutil.rmtree(cleared / "organs.zarr")
    [failure] = run_study(load_study(cleared), tmp_path / "out", engine=here).failures
    assert "give a label image" in failure["reason"]
