"""Photons: nothing is lost, cameras see what is not hidden, errors are honest, and bad input is refused in words."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="photon tracing is an extra")

from evbiodist.phantom import photons as module
from evbiodist.phantom.photons import Escape, illuminate, similarity, trace

CLEAR = (0.0, 0.0, 0.0)
TURBID = (0.05, 2.0, 0.5)
WIDE = 1e5  # mm: a voxel this wide is a slab without sides


def cube(edge: int = 9, label: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A cube in air with a margin of 2, and a source in its middle voxel."""
    body = np.zeros((edge + 4,) * 3, int)
    body[2:-2, 2:-2, 2:-2] = label
    lamp = np.zeros(body.shape)
    lamp[(edge + 4) // 2, (edge + 4) // 2, (edge + 4) // 2] = 1
    return body, lamp


def run(body: np.ndarray, lamp: np.ndarray, count: int = 5000, seed: int = 1, **options: Any) -> Escape:
    return trace(body, dict.fromkeys(range(1, 9), TURBID), lamp, 1.0, count, seed, **options)


# ---------------------------------------------------------------- what a camera reads


@pytest.mark.parametrize("cone", [25.0, 90.0])
def test_a_tube_in_air_reads_its_power(cone: float) -> None:
    """Clear and index-matched is air: the image sums to the source's power, whatever the cone."""
    body, lamp = cube()
    seen = trace(body, {1: CLEAR}, lamp, 1.0, 100_000, 2, n=1.0, cone_deg=cone)
    for image, variance in ((seen.above, seen.above_var), (seen.below, seen.below_var)):
        assert abs(image.sum() - 1) < 4 * math.sqrt(variance.sum())
    assert seen.escaped == 1
    assert seen.escaped_se == 0


def test_light_lands_where_it_leaves() -> None:
    """From a clear cube, light within 25 degrees leaves no farther aside than its height allows."""
    body, lamp = cube()
    seen = trace(body, {1: CLEAR}, lamp, 1.0, 20_000, 3, n=1.0)
    rows, columns = np.nonzero(seen.above)
    far = 5 * math.tan(math.radians(25)) + 1
    assert np.abs(rows - 6).max() <= far
    assert np.abs(columns - 6).max() <= far


@pytest.mark.parametrize("cone", [10.0, 25.0, 90.0])
def test_a_matt_surface_reads_low_in_a_wide_cone(cone: float) -> None:
    """A thick absorber that glows evenly has the same radiance in all directions, 1 / (4 pi mu_a) per emission."""
    slab = np.ones((1, 1, 1), int)
    seen = trace(slab, {1: (1.0, 0.0, 0.0)}, slab, (20.0, WIDE, WIDE), 1_000_000, 5, n=1.0, cone_deg=cone, faces=True)
    truth = (1 + math.cos(math.radians(cone))) / 2 / 20
    assert abs(seen.above.sum() - truth) < 4 * math.sqrt(seen.above_var.sum())
    assert math.sqrt(seen.above_var.sum()) < 0.1 * truth


def test_both_sides_of_a_cube_see_the_same() -> None:
    seen = run(*cube(), count=30_000)
    apart = seen.above.sum() - seen.below.sum()
    assert abs(apart) < 4 * math.sqrt(seen.above_var.sum() + seen.below_var.sum())
    # what leaves by a side shows in the pixel beside the body, never farther
    assert seen.above[1:-1, 1:-1].sum() == pytest.approx(seen.above.sum(), rel=1e-12)
    assert 0 < seen.above[1, 2:-2].sum() < 0.2 * seen.above.sum()


def test_tissue_above_hides() -> None:
    """A plate over the source's plate takes the light from the camera above, not from the one below."""
    body = np.zeros((14, 15, 15), int)
    body[1:4, 3:12, 3:12] = 1
    lamp = np.where(body > 0, 1.0, 0.0)
    open_above = run(body, lamp)
    body[12:14] = 2
    covered = run(body, lamp)
    assert open_above.above.sum() > 0.5
    assert covered.above.sum() == 0
    assert covered.below.sum() == pytest.approx(open_above.below.sum(), rel=1e-12)
    assert covered.escaped == pytest.approx(open_above.escaped, rel=1e-12)  # leaving is final


# ---------------------------------------------------------------- laws


def test_all_light_is_accounted_for() -> None:
    """Only Russian roulette, which is fair, moves the balance from 1."""
    body, lamp = cube(9)
    body[body.shape[0] // 2 + 1 :][body[body.shape[0] // 2 + 1 :] > 0] = 7
    balance = np.array([run(body, lamp, 1000, seed).balance for seed in range(24)])
    assert abs(balance.mean() - 1) < 4 * balance.std(ddof=1) / math.sqrt(24)
    assert 0 < balance.std() < 0.02


def test_same_seed_same_result_with_any_number_of_threads() -> None:
    one, two, other = run(*cube(), threads=1), run(*cube(), threads=3), run(*cube(), seed=2)
    assert np.array_equal(one.above, two.above)
    assert np.array_equal(one.below_var, two.below_var)
    assert one.absorbed == two.absorbed
    assert not np.array_equal(one.above, other.above)
    lit = [illuminate(cube()[0], {1: TURBID}, 1.0, 3000, 1, threads=k).fluence for k in (1, 3)]
    assert np.array_equal(*lit)


def test_names_of_labels_do_not_matter() -> None:
    body, lamp = cube()
    body[7:][body[7:] > 0] = 2
    renamed = np.array([0, 90, 4])[body]
    one = trace(body, {1: TURBID, 2: (0.4, 1.0, 0.0)}, lamp, 1.0, 5000, 1)
    two = trace(renamed, {90: TURBID, 4: (0.4, 1.0, 0.0), 17: CLEAR}, lamp, 1.0, 5000, 1)
    assert np.allclose(one.above, two.above, rtol=1e-12)
    assert list(two.absorbed) == [4, 90]
    assert one.absorbed[1] == pytest.approx(two.absorbed[90], rel=1e-12)
    assert one.absorbed[2] == pytest.approx(two.absorbed[4], rel=1e-12)


def test_borders_between_equal_tissues_do_not_matter() -> None:
    """Marching over a border uses up the optical depth exactly: the same random numbers, the same paths."""
    body, lamp = cube()
    parted = np.where(body > 0, 1 + np.indices(body.shape).sum(0) % 3, 0)
    one, two = run(body, lamp), run(parted, lamp)
    assert np.allclose(one.above, two.above, rtol=1e-9)
    assert one.absorbed[1] == pytest.approx(sum(two.absorbed.values()), rel=1e-9)


def test_the_shape_of_voxels_does_not_matter() -> None:
    box = np.ones((8, 8, 8), int)
    flat = np.ones((16, 8, 4), int)
    lamp, lamp_flat = np.zeros(box.shape), np.zeros(flat.shape)
    lamp[4:6, 2:4, 2:4] = 1
    lamp_flat[8:12, 2:4, 1:2] = 5
    one = trace(box, {1: TURBID}, lamp, 1.0, 30_000, 1, faces=True)
    two = trace(flat, {1: TURBID}, lamp_flat, (0.5, 1.0, 2.0), 30_000, 2, faces=True)
    assert abs(one.escaped - two.escaped) < 4 * math.hypot(one.escaped_se, two.escaped_se)
    halves = one.above.reshape(8, 4, 2).sum(2)
    error = np.sqrt(one.above_var.reshape(8, 4, 2).sum(2) + two.above_var)
    assert (np.abs(halves - two.above) < 5 * error + 1e-12).all()


def test_stated_variances_are_those_between_runs() -> None:
    seen = [run(*cube(5), count=1000, seed=s) for s in range(40)]
    images = np.array([s.above for s in seen])
    stated = np.mean([s.above_var for s in seen], axis=0)
    # 25 pixels with 39 degrees of freedom each
    assert images.var(0, ddof=1).sum() / stated.sum() == pytest.approx(1, abs=4 * math.sqrt(2 / (39 * 25)))
    escaped = np.array([s.escaped for s in seen])
    ratio = escaped.var(ddof=1) / np.mean([s.escaped_se**2 for s in seen])
    assert ratio == pytest.approx(1, abs=4 * math.sqrt(2 / 39))


def test_finer_voxels_tell_the_same() -> None:
    """The smoothed surface takes the steps out of a ball: the light that leaves does not depend on the voxels."""

    def ball(voxel_mm: float) -> Escape:
        half = int(8 / voxel_mm)
        place = (np.indices((2 * half,) * 3) - half + 0.5) * voxel_mm
        body = ((place**2).sum(0) <= 49).astype(int)
        lamp = ((place**2).sum(0) <= 1).astype(float)
        return trace(body, {1: (0.05, 1.0, 0.0)}, lamp, voxel_mm, 30_000, 1)

    coarse, fine = ball(1.0), ball(0.4)
    assert abs(coarse.escaped - fine.escaped) < 4 * math.hypot(coarse.escaped_se, fine.escaped_se) + 0.02 * fine.escaped


def test_trapped_light_ends() -> None:
    """Total reflection keeps light in a clear cube for ever; it is given up and told."""
    body, lamp = cube(3)
    seen = trace(body, {1: CLEAR}, lamp, 1.0, 3000, 1, faces=True)
    # what lies outside the cones of escape of all six faces
    trapped = 1 - 3 * (1 - math.sqrt(1 - 1 / 1.4**2))
    assert seen.lost == pytest.approx(trapped, abs=4 * math.sqrt(trapped / 3000))
    assert seen.balance == pytest.approx(1, abs=1e-12)


# ---------------------------------------------------------------- light from outside


def test_fluence_of_an_absorber_is_beer_lambert() -> None:
    slab = np.ones((10, 1, 1), int)
    lit = illuminate(slab, {1: (0.3, 0.0, 0.0)}, (1.0, WIDE, WIDE), 30_000, 1, n=1.0, faces=True)
    depth = np.arange(10)[::-1]
    truth = (np.exp(-0.3 * depth) - np.exp(-0.3 * (depth + 1))) / 0.3
    assert (np.abs(lit.fluence.ravel() - truth) < 5 * np.sqrt(lit.fluence_var.ravel())).all()
    assert np.sqrt(lit.fluence_var.ravel()[0]) < 0.1 * truth[0]


def test_fluence_and_absorption_agree() -> None:
    body, _ = cube()
    lit = illuminate(body, {1: TURBID}, 0.5, 40_000, 1)
    taken = 0.05 * lit.fluence.sum() * 0.125
    assert taken == pytest.approx(lit.absorbed[1] * lit.power_mm2, rel=0.03)
    assert lit.mirrored + lit.upward + lit.downward + lit.absorbed[1] + lit.lost == pytest.approx(1, abs=0.02)
    assert lit.power_mm2 == pytest.approx(81 * 0.25, rel=0.03)
    assert (lit.fluence[body == 0] == 0).all()


def test_from_below_is_upside_down() -> None:
    body = np.zeros((8, 6, 6), int)
    body[1:5, 1:5, 1:5], body[5:7, 1:5, 1:5] = 1, 2
    optics = {1: TURBID, 2: (0.5, 3.0, 0.8)}
    up = illuminate(body, optics, 1.0, 40_000, 1, from_below=True).fluence
    down = illuminate(body[::-1], optics, 1.0, 40_000, 2)
    error = np.sqrt(2 * down.fluence_var[::-1].sum((1, 2)))
    assert (np.abs((up - down.fluence[::-1]).sum((1, 2))) <= 6 * error).all()
    assert up[1, 1:5, 1:5].mean() > up[6, 1:5, 1:5].mean()


def test_light_from_a_cone_takes_longer_paths() -> None:
    """In a clear slab the fluence is the mean of 1 / cos(theta): 2 / (1 + cos alpha) of the irradiance."""
    slab = np.ones((3, 1, 1), int)
    lit = illuminate(slab, {1: CLEAR}, (1.0, WIDE, WIDE), 50_000, 1, n=1.0, cone_deg=60)
    assert lit.fluence.ravel() == pytest.approx([4 / 3] * 3, rel=0.005)


def test_light_from_a_cone_meets_the_sides() -> None:
    """A cube of edge L takes L^2 (1 + 4/pi T), T the mean tangent, also where it fills the grid."""
    alpha = math.radians(50)
    tangent = (alpha - math.sin(alpha) * math.cos(alpha)) / math.sin(alpha) ** 2
    lit = illuminate(np.ones((6, 6, 6), int), {1: (1.0, 0.0, 0.0)}, 1.0, 40_000, 1, n=1.0, cone_deg=50, faces=True)
    assert lit.power_mm2 == pytest.approx(36 * (1 + 4 / math.pi * tangent), rel=0.02)


def test_variance_of_the_fluence_is_that_between_runs() -> None:
    body, _ = cube(3)
    runs = [illuminate(body, {1: TURBID}, 1.0, 800, s) for s in range(30)]
    inside = body > 0
    between = np.array([r.fluence[inside] for r in runs]).var(0, ddof=1).sum()
    assert between / np.mean([r.fluence_var[inside].sum() for r in runs]) == pytest.approx(1, abs=0.35)
    assert np.isnan(illuminate(body, {1: TURBID}, 1.0, 1, 1).fluence_var).all()


# ---------------------------------------------------------------- single steps


def test_fresnel() -> None:
    assert module._fresnel(1.0, 1.4) == pytest.approx((0.4 / 2.4) ** 2, rel=1e-12)
    assert module._fresnel(1.0, 1 / 1.4) == pytest.approx((0.4 / 2.4) ** 2, rel=1e-12)
    assert module._fresnel(0.3, 1.0) == pytest.approx(0, abs=1e-30)
    assert module._fresnel(math.cos(math.asin(1 / 1.4)) - 1e-9, 1.4) == 1
    # at Brewster's angle only one polarisation is reflected: half of ((n^2 - 1) / (n^2 + 1))^2
    assert module._fresnel(math.cos(math.atan(1 / 1.4)), 1.4) == pytest.approx((0.96 / 2.96) ** 2 / 2, rel=1e-9)


def test_snell() -> None:
    u = np.array([math.cos(0.4), math.sin(0.4), 0.0])
    module._refract(u, 1.0, 0.0, 0.0, u[0], 1.4)
    assert math.asin(u[1]) == pytest.approx(math.asin(1.4 * math.sin(0.4)), rel=1e-12)
    module._refract(u, -1.0, 0.0, 0.0, -u[0], 1 / 1.4)
    assert u == pytest.approx([math.cos(0.4), math.sin(0.4), 0], rel=1e-12)


@pytest.mark.parametrize("g", [-0.5, 0.0, 0.9])
def test_scattering_has_its_moments(g: float) -> None:
    """Henyey and Greenstein's function has Legendre moments g and g^2, and keeps directions of length 1."""
    dice = np.array([5], np.uint64)
    start = np.array([-0.48, 0.6, 0.64])
    with np.errstate(over="ignore"):
        turned = np.array([module._scatter(*start, g, dice) for _ in range(4000)])
    assert np.linalg.norm(turned, axis=1) == pytest.approx(1, abs=1e-12)
    cosine = turned @ start
    assert cosine.mean() == pytest.approx(g, abs=4 * cosine.std() / math.sqrt(4000))
    second = (3 * cosine**2 - 1) / 2
    assert second.mean() == pytest.approx(g**2, abs=4 * second.std() / math.sqrt(4000))
    sideways = np.cross(turned, start)
    assert np.abs(sideways.mean(0)).max() < 4 * sideways.std() / math.sqrt(4000)


def test_smooth_surface_points_outward() -> None:
    place = np.indices((30, 30, 30)) - 14.5
    ball = (place**2).sum(0) <= 12**2
    slope = module._slope(ball, np.ones(3))
    rim = ball & ((place**2).sum(0) > 11**2)
    normal = slope[rim] / np.linalg.norm(slope[rim], axis=1, keepdims=True)
    radial = place[:, rim].T / np.linalg.norm(place[:, rim].T, axis=1, keepdims=True)
    off = np.degrees(np.arccos(np.clip((normal * radial).sum(1), -1, 1)))
    assert np.median(off) < 2
    assert off.max() < 6


def test_similarity() -> None:
    mu_a, mu_s, g = similarity(0.03, 1.2)
    assert (mu_a, g) == (0.03, 0.9)
    assert mu_s == pytest.approx(12)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.ones((3, 3))}, r"labels have shape \(3, 3\) and type float64; expected integers in \(Z, Y, X\)"),
        ({"labels": np.ones((3, 3, 3))}, "type float64"),
        ({"labels": np.zeros((3, 3, 3), int)}, r"labels mark no tissue; every voxel is 0 \(air\)"),
        ({"labels": np.full((3, 3, 3), 4)}, r"labels \[4\] have no optics; give \(mu_a, mu_s, g\)"),
        ({"optics": {1: (-1.0, 1.0, 0.0)}}, r"label 1 has optics .* = \(-1.0, 1.0, 0.0\); expected"),
        ({"optics": {1: (1.0, math.nan, 0.0)}}, "label 1 has optics"),
        ({"optics": {1: (1.0, 1.0, 1.0)}}, "g between -1 and 1"),
        ({"source": np.ones((3, 3, 2))}, r"the source has shape \(3, 3, 2\), the labels \(3, 3, 3\)"),
        ({"source": np.zeros((3, 3, 3))}, "the source must be finite, nowhere negative, and emit somewhere"),
        ({"source": np.full((3, 3, 3), -1.0)}, "nowhere negative"),
        ({"source": np.full((3, 3, 3), np.nan)}, "must be finite"),
        ({"spacing_mm": 0.0}, "spacing_mm is 0.0; expected one edge in mm above 0"),
        ({"spacing_mm": (1.0, 1.0)}, "or three for z, y, x"),
        ({"spacing_mm": math.inf}, "spacing_mm is inf"),
        ({"photons": 0}, "photons is 0; expected a whole number of 1 or more"),
        ({"photons": 1e3}, "photons is 1000.0; expected a whole number"),
        ({"n": 0.9}, "the refractive index is 0.9; expected 1 or more"),
        ({"cone_deg": 0.0}, "cone_deg is 0.0; expected an angle above 0 and up to 90"),
        ({"cone_deg": 91.0}, "cone_deg is 91.0"),
    ],
)
def test_refusals(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"labels": np.ones((3, 3, 3), int), "optics": {1: TURBID}, "source": np.ones((3, 3, 3)),
                             "spacing_mm": 1.0, "photons": 10, "seed": 1}  # fmt: skip
    with pytest.raises(ValueError, match=words):
        trace(**(given | change))


def test_refuses_emission_in_air() -> None:
    body, _ = cube(3)
    with pytest.raises(ValueError, match=r"the source emits in 316 voxels of air \(label 0\); cut it to the body"):
        trace(body, {1: TURBID}, np.ones(body.shape), 1.0, 10, 1)


def test_refuses_a_cone_too_flat_from_outside() -> None:
    with pytest.raises(ValueError, match=r"cone_deg is 80; expected an angle from 0 \(parallel light\) to 75"):
        illuminate(cube()[0], {1: TURBID}, 1.0, 10, 1, cone_deg=80)
    with pytest.raises(ValueError, match="g between -1 and 1"):
        similarity(0.1, 1.0, g=1.0)


def test_says_how_to_get_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"pip install 'evbiodist\[montecarlo\]'"):
        module._compiled.__wrapped__()
