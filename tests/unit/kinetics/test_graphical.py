"""Graphical analysis against closed forms of the models behind it, its flags, its reasons and its errors in words."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from pet_curves import FRAMES, plasma, tissue, two_tissue

from evbiodist.kinetics.graphical.frames import Frames, InputCurve
from evbiodist.kinetics.graphical.methods import logan, ma1, patlak, reference_logan, reference_patlak
from evbiodist.kinetics.graphical.multiple_time import multiple_time
from evbiodist.kinetics.graphical.york import york

PLASMA = plasma()


def test_input_is_integrated_exactly() -> None:
    """A line and a kink, by hand: 2 t to 1 h, then flat; means over [0, 2] and of its integral over [1, 3]."""
    curve = InputCurve.of([0, 60, 240], [0, 2, 2], "min")
    frames = Frames.of([0, 2], [2, 4])
    assert curve.mean(frames) == pytest.approx([1.5, 2.0], rel=1e-14)
    # integral: t^2 to 1, then 1 + 2 (t - 1); its mean over [0, 2] is (1/3 + 1 + 1) / 2, over [2, 4] it is 5
    assert curve.mean_integral(frames) == pytest.approx([7 / 6, 5.0], rel=1e-14)
    assert curve.at(np.array([0.5, 3.0])) == pytest.approx([1.0, 2.0])


def test_frames_across_a_gap_take_a_line() -> None:
    frames = Frames.of([0, 2], [1, 3])
    assert frames.integrate(np.array([2.0, 4.0])) == pytest.approx([1.0, 2 + 3 + 2])


@pytest.mark.parametrize(("k1", "k2", "k3"), [(0.1, 0.15, 0.06), (0.3, 0.4, 0.02), (0.02, 0.05, 0.1)])
def test_patlak_finds_the_uptake_of_an_irreversible_model(k1: float, k2: float, k3: float) -> None:
    """Late in the study the slope is K1 k3 / (k2 + k3); the rest decays, so it gets closer with t*."""
    curve = two_tissue(k1, k2, k3, 0.0)
    true = 60 * k1 * k3 / (k2 + k3)
    off = [abs(patlak(FRAMES, curve, PLASMA, t_star_h=t)[0]["ki"].value / true - 1) for t in (0.5, 0.9, 1.3)]
    assert off[2] < 0.04
    assert off[0] >= off[1] >= off[2]


def test_patlak_is_exact_where_its_relation_is() -> None:
    """Tissue = Ki x integral + V x plasma, averaged over frames: exact whatever the frames and the input."""
    curve = 0.3 * PLASMA.mean_integral(FRAMES) + 0.05 * PLASMA.mean(FRAMES)
    result = patlak(FRAMES, curve, PLASMA, t_star_h=0)[0]
    assert result["ki"].value == pytest.approx(0.3, rel=1e-10)
    assert result["intercept"].value == pytest.approx(0.05, rel=1e-9)
    assert result["ki"].n == len(FRAMES)
    rough = patlak(FRAMES, curve, PLASMA, t_star_h=0, timing="mid")[0]
    assert abs(rough["ki"].value / 0.3 - 1) > 1e-4  # middles of frames are not means


@pytest.mark.parametrize("method", [logan, ma1])
def test_volume_of_one_tissue(method) -> None:
    """The relation holds at all times for one tissue; what is left is the curve's bend within a frame."""
    curve = tissue([0.1], [0.05])
    for t_star, off in ((0.0, 3e-4), (0.5, 5e-5), (1.2, 2e-5)):
        assert method(FRAMES, curve, PLASMA, t_star_h=t_star)[0]["vt"].value == pytest.approx(2.0, rel=off)


@pytest.mark.parametrize("method", [logan, ma1])
def test_volume_of_two_tissues_is_neared(method) -> None:
    curve, true = two_tissue(0.1, 0.15, 0.2, 0.1), 0.1 / 0.15 * 3
    off = [abs(method(FRAMES, curve, PLASMA, t_star_h=t)[0]["vt"].value / true - 1) for t in (0.2, 0.5, 1.0)]
    assert off[0] > off[1] > off[2]
    assert off[2] < 5e-3


def test_reference_forms() -> None:
    """A reference tissue of one compartment: with its k2 the ratio of volumes is exact, without it is neared."""
    reference, target = tissue([0.1], [0.1]), tissue([0.12], [0.04])
    with_k2 = reference_logan(FRAMES, target, reference, k2_prime_per_h=6.0, t_star_h=0.5)[0]
    assert with_k2["dvr"].value == pytest.approx(3.0, rel=2e-4)  # what frames of up to 5 minutes leave
    assert with_k2["bp_nd"].value == pytest.approx(with_k2["dvr"].value - 1, rel=1e-12)
    assert with_k2["bp_nd"].se == with_k2["dvr"].se
    without = reference_logan(FRAMES, target, reference, t_star_h=1.0)[0]["dvr"].value
    assert 1e-4 < abs(without / 3 - 1) < 0.2
    trapped = 0.5 * FRAMES.integrate(reference) + 0.8 * reference
    assert reference_patlak(FRAMES, trapped, reference, t_star_h=0.2)[0]["ki_ref"].value == pytest.approx(0.5, rel=1e-9)


def test_regression_is_the_textbooks() -> None:
    """Weighted slope, intercept and errors against numpy's polyfit on the plot's own points."""
    rng = np.random.default_rng(5)
    curve = two_tissue(0.1, 0.15, 0.06, 0.0) * (1 + 0.05 * rng.standard_normal(len(FRAMES)))
    w = rng.uniform(0.2, 3, len(FRAMES))
    result = patlak(FRAMES, curve, PLASMA, t_star_h=0.3, weights=w)[0]
    p = result.points
    fit, covariance = np.polyfit(p.x[p.used], p.y[p.used], 1, w=np.sqrt(w[p.used]), cov=True)
    assert [result["ki"].value, result["intercept"].value] == pytest.approx(list(fit), rel=1e-9)
    assert [result["ki"].se, result["intercept"].se] == pytest.approx(list(np.sqrt(np.diag(covariance))), rel=1e-9)
    assert result.df == p.used.sum() - 2


def test_t_star_is_the_earliest_after_which_all_points_lie_near() -> None:
    curve = two_tissue(0.1, 0.15, 0.06, 0.0)
    chosen = patlak(FRAMES, curve, PLASMA, max_error_pct=2.0)[0]
    assert chosen.worst_pct <= 2
    k = int(np.flatnonzero(chosen.points.used)[0])
    assert chosen.t_star_h == FRAMES.start_h[k] > 0
    before = patlak(FRAMES, curve, PLASMA, t_star_h=float(FRAMES.start_h[k - 1]), max_error_pct=2.0)[0]
    assert before.worst_pct > 2
    assert "off_line" in before["ki"].flags
    assert "off_line" not in chosen["ki"].flags


def test_many_curves_are_the_single_ones() -> None:
    rng = np.random.default_rng(2)
    curves = np.array([tissue([a], [b]) for a, b in rng.uniform(0.03, 0.3, (6, 2))])
    curves *= 1 + 0.02 * rng.standard_normal(curves.shape)
    for method in (patlak, logan, ma1):
        table = method(FRAMES, curves, PLASMA)
        for i, curve in enumerate(curves):
            alone = method(FRAMES, curve, PLASMA)[0]
            assert table[i].t_star_h == alone.t_star_h or math.isnan(alone.t_star_h)
            for name, e in alone.estimates.items():
                assert table[i][name].value == pytest.approx(e.value, rel=1e-12, nan_ok=True)


def test_patlak_intervals_cover() -> None:
    """Equal noise on the plot's points: 400 random truths, t intervals from 12 to 20 points."""
    rng = np.random.default_rng(11)
    ki, v = rng.uniform(0.1, 2, 400), rng.uniform(0, 1, 400)
    c = PLASMA.mean(FRAMES)
    curves = ki[:, None] * PLASMA.mean_integral(FRAMES) + v[:, None] * c
    curves += 0.3 * rng.standard_normal(curves.shape) * c
    table = patlak(FRAMES, curves, PLASMA, t_star_h=0.5)
    inside = [table[i]["ki"].ci_low <= k <= table[i]["ki"].ci_high for i, k in enumerate(ki)]
    assert 0.92 <= np.mean(inside) <= 0.98
    assert abs(np.mean(table.values["ki"] - ki)) < 4 * np.std(table.values["ki"] - ki) / 20


def test_noise_pulls_logan_down_and_is_said() -> None:
    """With noise Logan's volumes are low and flagged where MA1 disagrees; MA1 is nearer to the truth."""
    rng = np.random.default_rng(4)
    curve = tissue([0.1], [0.05])
    noisy = curve * (1 + 0.25 * rng.standard_normal((200, len(FRAMES))))
    low, better = logan(FRAMES, noisy, PLASMA, t_star_h=0.3), ma1(FRAMES, noisy, PLASMA, t_star_h=0.3)
    bias = np.nanmedian(low.values["vt"]) / 2 - 1
    assert bias < -0.002
    assert abs(np.nanmedian(better.values["vt"]) / 2 - 1) < abs(bias)
    flagged = np.mean(["noise_bias" in low[i]["vt"].flags for i in range(200)])
    assert flagged > 0.02
    assert "noise_bias" not in logan(FRAMES, curve, PLASMA, t_star_h=0.3)[0]["vt"].flags


def test_units_follow_from_the_ingredients() -> None:
    curve = two_tissue(0.1, 0.15, 0.06, 0.0)
    a = patlak(FRAMES, curve, PLASMA, t_star_h=0.5, unit="pct_id_per_g", input_unit="pct_id/mL")[0]
    assert (a["ki"].unit, a["intercept"].unit, a.points.x_unit, a.points.y_unit) == ("mL/g/h", "mL/g", "h", "mL/g")
    b = patlak(FRAMES, curve, PLASMA, t_star_h=0.5, unit="kBq/mL", input_unit="Bq/mL")[0]
    assert b["ki"].value == pytest.approx(1000 * a["ki"].value)
    assert logan(FRAMES, curve, PLASMA, t_star_h=0.5)[0]["intercept"].unit == "h"


def test_scaling_tissue_scales_slopes() -> None:
    curve = two_tissue(0.1, 0.15, 0.2, 0.1)
    for method, name in ((patlak, "ki"), (logan, "vt"), (ma1, "vt")):
        one, two = (method(FRAMES, f * curve, PLASMA, t_star_h=0.5)[0][name] for f in (1, 7))
        assert two.value == pytest.approx(7 * one.value, rel=1e-9)
        assert two.se == pytest.approx(7 * one.se, rel=1e-6)


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (np.full(len(FRAMES), np.nan), "fewer than 3 frames give a point"),
        (np.random.default_rng(0).choice([-1.0, 1.0], len(FRAMES)), "no 3 or more last points lie within 10 %"),
    ],
)
def test_a_missing_slope_has_its_reason(curve: np.ndarray, words: str) -> None:
    ki = patlak(FRAMES, curve, PLASMA)[0]["ki"]
    assert math.isnan(ki.value)
    assert words in ki.reason


def test_more_reasons() -> None:
    curve = tissue([0.1], [0.05])
    late = patlak(FRAMES, curve, PLASMA, t_star_h=float(FRAMES.start_h[-2]))[0]["ki"]
    assert "fewer than 3 usable frames start at or after" in late.reason
    rising = FRAMES.mid_h**3
    assert "no washout" in ma1(FRAMES, rising, PLASMA, t_star_h=0.5)[0]["vt"].reason
    gone = curve.copy()
    gone[4] = np.nan
    assert "fewer than 3 frames" in logan(FRAMES, gone, PLASMA)[0]["vt"].reason  # the integral ends there
    assert np.isfinite(patlak(FRAMES, gone, PLASMA, t_star_h=0.5)[0]["ki"].value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Frames.of([0, 1], [1]), "two lists of one length"),
        (lambda: Frames.of([0, 0.5], [1, 2]), "before frame 0 ends at 1 h; put the frames in order"),
        (lambda: Frames.of([0, 5], [5, 5]), "give end times, not durations"),
        (lambda: InputCurve.of([0], [1]), "at least two samples"),
        (lambda: InputCurve.of([0, 1, 1], [1, 2, 3]), "do not rise: 1 is followed by 1"),
        (lambda: InputCurve.of([0, 1], [1, np.nan]), "expected numbers; drop the sample"),
        (lambda: patlak(FRAMES, [1, 2], PLASMA), "give one mean for each frame"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), InputCurve.of([0, 1], [1, 1])), "ends at 1 h, but is needed"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), PLASMA, weights=[1]), "0 to leave it out"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), PLASMA, level=95), "write 0.95 for 95 %"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), PLASMA, max_error_pct=0), "write 10 for 10 %"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), PLASMA, t_star_h=math.nan), "leave it out to have it chosen"),
        (lambda: patlak(FRAMES, np.ones(len(FRAMES)), PLASMA, timing="end"), "write timing='mean'"),
        (lambda: logan(Frames.of([1, 2], [2, 3]), [1, 1], InputCurve.of([0, 3], [1, 1])), "use Patlak's plot"),
        (lambda: reference_logan(FRAMES, np.ones(len(FRAMES)), [1.0]), "give frame means, or an InputCurve"),
        (
            lambda: reference_logan(FRAMES, np.ones(len(FRAMES)), np.ones(len(FRAMES)), k2_prime_per_h=0),
            "a rate above zero in 1/h",
        ),
        (lambda: york([1, 1], [1, 2], 1, 1), "all points have x = 1"),
        (lambda: york([1], [1], 1, 1), "give at least two points"),
        (lambda: york([1, 2], [1, 2], 0, 0), "no error in x and none in y"),
        (lambda: york([1, 2], [1, 2], -1, 1), "give them as positive numbers"),
        (lambda: york([1, 2], [1, 2], 1, 1, 1), "outside -1 to 1"),
        (lambda: york([1, 2], [1, np.inf], 1, 1), "y has a value that is not a number"),
        (lambda: york([1, 2, 3], [1, 2, 3], [1, 1], 1), "x_se has shape (2,)"),
        (lambda: multiple_time([1, 2], [1, 2], [1, 2]), "has 2 different times, expected at least 3"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [1, 0, 3]), "serum has 0 at position 1"),
        (lambda: multiple_time([1, 2, 3], [1, np.nan, 3], [1, 1, 3]), "tissue has nan at position 1"),
        (lambda: multiple_time([1, 2, 3], [1, 2], [1, 2, 3]), "one of each for every animal"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], tissue_se=1), "serum_se is missing"),
        (lambda: multiple_time([1, 2, 3], [1, 0, 3], [3, 2, 1]), "has no proportional error"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], tissue_se=0, serum_se=1), "all above zero"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], serum_rule="spline"), "write serum_rule='log'"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], without_se="none"), "'proportional' or 'ols'"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], linear_until_h=1.5), "take it later"),
        (lambda: multiple_time([1, 2, 3], [1, 2, 3], [3, 2, 1], level=2), "write 0.95 for 95 %"),
    ],
)
def test_errors_are_sentences(call, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


# multiple-time regression


def animals(rng: np.random.Generator, n: int, cv: float, bent: bool = False):
    """Serum falls as one exponential; tissue follows uptake and vessels; 7 times, n animals each."""
    ki, vi = rng.uniform(0.2, 2), rng.uniform(5, 20)  # uL/g/min, uL/g
    fall, start = math.log(2) / rng.uniform(5, 30), rng.uniform(5, 40)  # 1/min, %ID/mL
    t = np.repeat([2.0, 5, 10, 15, 20, 30, 60], n)
    serum = start * np.exp(-fall * t)
    tissue_value = (ki * start / fall * (1 - np.exp(-fall * t)) + vi * serum) / 1000
    if bent:
        tissue_value = np.where(t > 45, 0.5 * tissue_value, tissue_value)
    noise = 1 + cv * rng.standard_normal((2, t.size))
    return ki, vi, t / 60, tissue_value, serum, tissue_value * noise[0], serum * noise[1]


def test_uptake_without_noise_is_exact() -> None:
    for seed in range(5):
        ki, vi, t, a, c, *_ = animals(np.random.default_rng(seed), 2, 0.0)
        line = multiple_time(t, a, c, tissue_se=0.05 * a, serum_se=0.05 * c)
        assert line.ki.value == pytest.approx(ki, rel=1e-9)
        assert line.vi.value == pytest.approx(vi, rel=1e-8)
        assert (line.ki.unit, line.vi.unit, line.points.ratio_unit) == ("uL/g/min", "uL/g", "mL/g")
        assert line.points.used.all()


def test_uptake_intervals_cover() -> None:
    """120 random truths with 8 % error in both values; without given errors the size is found from the scatter."""
    rng = np.random.default_rng(8)
    hits, scaled, off = [], [], []
    for _ in range(120):
        ki, _, t, a, c, seen_a, seen_c = animals(rng, 3, 0.08)
        line = multiple_time(t, seen_a, seen_c, tissue_se=0.08 * a, serum_se=0.08 * c)
        hits.append(line.ki.ci_low <= ki <= line.ki.ci_high)
        off.append(line.ki.value / ki - 1)
        line = multiple_time(t, seen_a, seen_c)
        scaled.append(line.ki.ci_low <= ki <= line.ki.ci_high)
    assert 0.88 <= np.mean(hits) <= 0.99
    assert 0.82 <= np.mean(scaled) <= 0.97
    assert abs(np.median(off)) < 0.015


def test_error_of_the_axes_is_that_of_many_repeats() -> None:
    """First-order errors and correlation of a point against 300 repeats of the same study."""
    rng = np.random.default_rng(1)
    _, _, t, a, c, *_ = animals(rng, 1, 0.0)
    said = multiple_time(t, a, c, tissue_se=0.02 * a, serum_se=0.02 * c, linear_until_h=math.inf).points
    seen = []
    for _ in range(300):
        p = multiple_time(
            t, a * (1 + 0.02 * rng.standard_normal(t.size)), c * (1 + 0.02 * rng.standard_normal(t.size)),
            tissue_se=0.02 * a, serum_se=0.02 * c, linear_until_h=math.inf,
        ).points  # fmt: skip
        seen.append((p.exposure_h, p.ratio))
    x, y = np.array(seen).transpose(1, 0, 2)
    assert np.std(x, axis=0) == pytest.approx(said.exposure_se_h, rel=0.2)
    assert np.std(y, axis=0) == pytest.approx(said.ratio_se, rel=0.2)
    found = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(t.size)]
    assert found == pytest.approx(said.correlation.tolist(), abs=0.2)


def test_a_bent_tail_is_dropped_and_said() -> None:
    rng = np.random.default_rng(3)
    _, _, t, a, c, seen_a, seen_c = animals(rng, 3, 0.05, bent=True)
    line = multiple_time(t, seen_a, seen_c, tissue_se=0.05 * a, serum_se=0.05 * c)
    assert line.last_h == 0.5
    assert "bent_tail" in line.ki.flags
    assert not line.points.used[-3:].any()
    kept = multiple_time(t, seen_a, seen_c, tissue_se=0.05 * a, serum_se=0.05 * c, linear_until_h=math.inf)
    assert kept.points.used.all()
    assert kept.ki.value < line.ki.value
    assert "overdispersed" in kept.ki.flags


def test_other_routes_and_units() -> None:
    """Serum rises from 0; the same unit on both sides gives a rate by hour."""
    t = np.array([0.5, 1, 2, 3])
    line = multiple_time(t, [1, 2, 4, 6], [2, 2, 2, 2], serum_at_zero=0.0, unit="au", serum_unit="au")
    # integral: 0.5, 1.5, 3.5, 5.5 -> exposure 0.25, 0.75, 1.75, 2.75; ratio 0.5, 1, 2, 3
    assert line.points.exposure_h == pytest.approx([0.25, 0.75, 1.75, 2.75])
    assert (line.ki.value, line.ki.unit) == (pytest.approx(1.0), "1/h")
    assert line.vi.value == pytest.approx(0.25)
    assert "percentage" in line.notes[0]


def test_least_squares_on_request() -> None:
    ki, _, t, _, _, a, c = animals(np.random.default_rng(6), 3, 0.1)
    line = multiple_time(t, a, c, without_se="ols", linear_until_h=math.inf)
    (slope, _), covariance = np.polyfit(line.points.exposure_h * 60, line.points.ratio * 1000, 1, cov=True)
    assert line.ki.value == pytest.approx(slope, rel=1e-9)
    assert line.ki.se == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-9)
    assert "ordinary least squares" in line.ki.method
    assert ki > 0
