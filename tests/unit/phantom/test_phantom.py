"""The digital mouse: reproducible, consistent with its own truth, and recovered by the analysis."""

import numpy as np
import pandas as pd
import pytest

from evbiodist.phantom.anatomy import MOUSE, TRAY, mouse, organ_masses, tray
from evbiodist.phantom.camera import PhantomCamera
from evbiodist.phantom.truth import ORGANS, Kinetics, LabelTruth


@pytest.mark.parametrize("seed", range(20))
def test_organs_do_not_overlap_or_leave_the_frame(seed):
    rng = np.random.default_rng(seed)
    for scene, names in ((tray(rng), [o for row in TRAY for o in row]), (mouse(rng), list(MOUSE.values()))):
        assert sorted(scene.names.values()) == sorted(names)
        assert {int(v) for v in np.unique(scene.labels)} == {0, *scene.names}
        edge = np.concatenate([scene.labels[0], scene.labels[-1], scene.labels[:, 0], scene.labels[:, -1]])
        assert not edge.any()


def test_masses_are_the_published_shares():
    """Brown 1997: liver 5.5 %, brain 1.7 % of body weight."""
    masses = [organ_masses(20.0, list(ORGANS), np.random.default_rng(s)) for s in range(200)]
    assert np.mean([m["liver"] for m in masses]) == pytest.approx(1.1, rel=0.02)
    assert np.mean([m["brain"] for m in masses]) == pytest.approx(0.34, rel=0.02)


def test_camera_noise_is_the_model():
    camera = PhantomCamera(gain_e=2.0, read_noise_e=8.0, fwhm_px=0.0)
    frames = np.stack([camera.expose(np.full((30, 30), 900.0), np.random.default_rng(i)) for i in range(60)]).astype(
        float
    )
    assert frames.mean() == pytest.approx(1400, abs=0.5)
    assert frames.var() == pytest.approx(900 / 2 + 16 + 1 / 12, rel=0.03)
    assert camera.expose(np.full((3, 3), 1e9), np.random.default_rng(0)).max() == camera.saturation


def test_amounts_never_exceed_the_dose():
    rng = np.random.default_rng(0)
    for _ in range(20):
        kinetics = Kinetics.draw(rng, 0.3)
        amounts = kinetics.amounts(np.geomspace(0.01, 48, 40))
        total = sum(amounts[o] for o in ORGANS) + amounts["blood"] * kinetics.vesicle[0]
        assert (total <= 100 + 1e-9).all()
        assert (np.diff(total) <= 1e-9).all()


def test_a_faithful_label_reads_the_vesicle_and_free_dye_does_not():
    kinetics = Kinetics.draw(np.random.default_rng(1), 0.0)
    t = np.array([24.0])
    assert kinetics.reads(LabelTruth("a"), t) == kinetics.amounts(t)
    assert kinetics.reads(LabelTruth("b", free_fraction=0.25), t)["brain"] > 1.5 * kinetics.amounts(t)["brain"]
    half = kinetics.reads(LabelTruth("c", efficiency={"brain": 0.5}), t)
    assert half["brain"] == pytest.approx(0.5 * kinetics.amounts(t)["brain"])


def test_the_analysis_finds_the_truth_and_its_intervals_hold_it(tmp_path):
    """The short version of benchmarks/study_coverage.py: 3 studies with random kinetics; the long one is in docs/coverage.md."""
    import importlib.util
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "benchmarks" / "study_coverage.py"
    spec = importlib.util.spec_from_file_location("study_coverage", path)
    coverage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(coverage)
    rows = pd.concat([coverage.one_study(seed) for seed in (1, 2, 3)])
    inside = (rows["low"] <= rows["reading"]) & (rows["reading"] <= rows["high"])
    error = ((rows["estimate"] - rows["reading"]) / rows["reading"]).abs()
    organ, fitted = rows["what"] == "organ value", rows["what"].isin(["uptake", "peak"])
    assert inside[organ].mean() >= 0.90
    assert inside[fitted].mean() >= 0.82  # 144 intervals of three studies, not independent
    assert error[organ].median() < 0.02
    assert error[fitted].median() < 0.10
    wrong = rows[fitted & (rows["label"] == "DiR") & (rows["organ"] == "brain")]
    assert ((wrong["estimate"] - wrong["vesicle"]) / wrong["vesicle"] > 0.5).all()
