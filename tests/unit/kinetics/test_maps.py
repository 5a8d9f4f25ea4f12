"""Parametric maps: the regional numbers in every voxel, bad voxels that poison nothing, any array, bounded memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pet_curves import FRAMES, plasma, tissue

from evbiodist.kinetics.graphical import maps_kernels as kernels
from evbiodist.kinetics.graphical import methods as graphical
from evbiodist.kinetics.graphical.frames import Frames, InputCurve
from evbiodist.kinetics.graphical.maps import logan_map, ma1_map, nca_map, one_tissue_map, patlak_map
from evbiodist.kinetics.graphical.maps_basis import one_tissue_means

PLASMA = plasma()
T = len(FRAMES)
LINES = (patlak_map, logan_map, ma1_map)


def volume(seed: int = 0, noise: float = 0.03, shape: tuple[int, ...] = (3, 4, 5)) -> tuple[np.ndarray, ...]:
    """A small series of one-tissue voxels with their k1 and k2 (1/h)."""
    rng = np.random.default_rng(seed)
    k1, k2 = rng.uniform(0.05, 0.3, shape), rng.uniform(0.02, 0.15, shape)
    curves = np.array([tissue([a], [b]) for a, b in zip(k1.ravel(), k2.ravel(), strict=True)])
    series = curves.T.reshape(T, *shape)
    return series * (1 + noise * rng.standard_normal(series.shape)), 60 * k1, 60 * k2


SERIES, K1, K2 = volume()


def every(series: Any, **settings: Any) -> list:
    line = {k: v for k, v in settings.items() if k != "engine"}
    return [
        *(f(FRAMES, series, PLASMA, t_star_h=0.5, **settings) for f in LINES),
        one_tissue_map(FRAMES, series, PLASMA, **settings),
        nca_map(FRAMES, series, terminal_from_h=0.8, **line),
    ]


@pytest.mark.parametrize("method", LINES)
@pytest.mark.parametrize("timing", ["mean", "mid"])
def test_voxels_are_what_regions_are(method, timing: str) -> None:
    """The same values and errors as the regional analysis on the same frames and weights."""
    w = np.random.default_rng(1).uniform(0.5, 2, T)
    w[-4] = 0
    settings = {"t_star_h": 0.5, "weights": w, "timing": timing, "unit": "kBq/mL", "input_unit": "Bq/mL"}
    maps = method(FRAMES, SERIES, PLASMA, engine="numpy", **settings)
    regions = getattr(graphical, method.__name__[:-4])(FRAMES, SERIES.reshape(T, -1).T, PLASMA, **settings)
    assert maps.units == regions.units
    for name, values in maps.values.items():
        assert values.ravel() == pytest.approx(regions.values[name], rel=1e-9)
        assert maps.se[name].ravel() == pytest.approx(regions.se[name], rel=1e-7)
    assert not maps.failure.any()


@pytest.mark.parametrize("method", [patlak_map, logan_map])
def test_a_reference_tissue_serves_as_input(method) -> None:
    reference = tissue([0.1], [0.1])
    maps = method(FRAMES, SERIES, reference, t_star_h=0.5)
    if method is logan_map:
        regions = graphical.reference_logan(FRAMES, SERIES.reshape(T, -1).T, reference, t_star_h=0.5)
        assert maps["vt"].ravel() == pytest.approx(regions.values["dvr"], rel=1e-10)
    assert not maps.failure.any()


@pytest.mark.skipif(not kernels.have_numba(), reason="numba is an optional extra")
@pytest.mark.parametrize("t_star", [0.0, 0.2, 0.75])
def test_compiled_and_plain_agree(t_star: float) -> None:
    """Estimates to 1e-10; errors, which stand on the small rest of large sums, to 1e-8; codes exactly."""
    series = volume(3, 0.05)[0]
    series[:, 0, 0, 0] = 0
    series[2, 0, 0, 1], series[-1, 0, 0, 2], series[-2, 0, 0, 3], series[-2, 0, 0, 4] = np.nan, -np.inf, -1, 0
    left_out = np.ones(T)
    left_out[-2] = 0  # the frame with -1 and 0 above
    for method, weights in ((m, w) for m in LINES for w in (None, left_out)):
        line = {"t_star_h": t_star, "weights": weights}
        plain, fast = (method(FRAMES, series, PLASMA, engine=e, **line) for e in ("numpy", "numba"))
        assert plain.failure[0, 0, 3] == (5 if method is logan_map and weights is None else 0)
        assert (plain.failure == fast.failure).all()
        for name in plain.values:
            assert fast[name] == pytest.approx(plain[name], rel=1e-10, nan_ok=True)
            assert fast.se[name] == pytest.approx(plain.se[name], rel=1e-8, nan_ok=True)
    plain, fast = (one_tissue_map(FRAMES, series, PLASMA, engine=e) for e in ("numpy", "numba"))
    assert (plain.failure == fast.failure).all()
    for name in plain.values:
        assert fast[name] == pytest.approx(plain[name], rel=1e-10, nan_ok=True)


def test_one_bad_voxel_poisons_nothing() -> None:
    clean = every(SERIES)
    bad = SERIES.copy()
    at = {  # voxel: code in (patlak, logan, ma1, one tissue, nca)
        (0, 0, 0): (np.nan, slice(None), (2, 2, 2, 2, 2)),
        (0, 0, 1): (np.inf, -1, (2, 2, 2, 2, 2)),
        (1, 2, 3): (0.0, slice(None), (4, 4, 4, 4, 4)),
        (2, 0, 0): (-1.0, -1, (0, 5, 0, 0, 5)),
        (2, 0, 1): (1e6, 5, (0, 3, 3, 3, 3)),
        (2, 0, 2): (1e6, -1, (3, 3, 3, 3, 3)),
    }
    for voxel, (value, frame, _) in at.items():
        bad[(frame, *voxel)] = value
    for i, (maps, before) in enumerate(zip(every(bad, saturation=1e5), clean, strict=True)):
        touched = np.zeros(bad.shape[1:], dtype=bool)
        for voxel, (_, _, codes) in at.items():
            touched[voxel] = True
            assert maps.failure[voxel] == codes[i], (maps.method, voxel)
            for name, values in maps.values.items():
                stands = codes[i] == 0 or (i == 4 and codes[i] == 5 and name in {"auclast", "cmax", "tmax"})
                assert np.isfinite(values[voxel]) == stands, (maps.method, voxel, name)
        assert (maps.failure[~touched] == 0).all()
        for name, values in maps.values.items():
            assert values[~touched] == pytest.approx(before[name][~touched], rel=1e-12)
        assert sum(maps.failures().values()) == sum(codes[i] > 0 for *_, codes in at.values())
        assert set(np.unique(maps.failure)) <= set(maps.legend)


def test_whole_numbers_saturate_at_their_highest() -> None:
    counts = np.clip(SERIES * 400, 0, 32767).astype(np.int16)
    counts[-3, 1, 1, 1] = 32767
    for maps in every(counts):
        assert maps.failure[1, 1, 1] == kernels.SATURATED
        assert (np.delete(maps.failure.ravel(), np.ravel_multi_index((1, 1, 1), SERIES.shape[1:])) == 0).all()
        assert all(v.dtype == np.float32 for v in maps.values.values())


def test_a_mask_leaves_the_rest_alone() -> None:
    mask = np.random.default_rng(2).random(SERIES.shape[1:]) < 0.5
    for engine in ("numpy", "numba") if kernels.have_numba() else ("numpy",):
        for maps, whole in zip(every(SERIES, mask=mask, engine=engine), every(SERIES, engine=engine), strict=True):
            assert (maps.failure[~mask] == kernels.MASKED).all()
            assert not maps.failures()
            for name, values in maps.values.items():
                assert np.isnan(values[~mask]).all()
                assert values[mask] == pytest.approx(whole[name][mask], rel=1e-12)


def test_any_array_gives_the_same_maps(tmp_path: Path) -> None:
    """zarr and dask by blocks, memory maps, views, other byte orders and precisions: the numbers of plain numpy."""
    import dask.array as da
    import zarr

    stored = zarr.create_array(str(tmp_path / "s.zarr"), shape=SERIES.shape, chunks=(15, 2, 3, 5), dtype="float64")
    stored[:] = SERIES
    mapped = np.memmap(tmp_path / "s.raw", dtype="float64", mode="w+", shape=SERIES.shape)
    mapped[:] = SERIES
    others = [
        stored,
        da.from_array(SERIES, chunks=(T, 2, 2, 5)),
        mapped,
        SERIES.astype(">f8"),
        np.asfortranarray(SERIES),
        np.repeat(SERIES, 2, axis=-1)[..., ::2],
    ]
    for block_mb in (64.0, 0.008):
        expected = logan_map(FRAMES, SERIES, PLASMA, t_star_h=0.5)
        for other in others:
            maps = logan_map(FRAMES, other, PLASMA, t_star_h=0.5, block_mb=block_mb)
            assert maps["vt"] == pytest.approx(expected["vt"], rel=1e-11), type(other)
            assert maps.se["vt"] == pytest.approx(expected.se["vt"], rel=1e-8), type(other)
    for maps, same in zip(every(stored), every(SERIES), strict=True):
        for name, values in maps.values.items():
            assert values == pytest.approx(same[name], rel=1e-11), (maps.method, name)


def test_only_the_frames_needed_are_read_and_never_much_at_once() -> None:
    class Counting:
        shape, dtype, chunks = SERIES.shape, SERIES.dtype, (1, 1, 4, 5)
        largest, first = 0, T

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            part = SERIES[key]
            self.largest, self.first = max(self.largest, part.nbytes), min(self.first, key[0].start)
            return part

    source = Counting()
    maps = patlak_map(FRAMES, source, PLASMA, t_star_h=0.5, block_mb=0.01)
    assert maps["ki"] == pytest.approx(patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0.5)["ki"], rel=1e-12)
    assert source.first == int(np.argmax(FRAMES.start_h >= 0.5 - 1e-9))
    assert 0 < source.largest <= 10_000
    masked = Counting()
    mask = np.zeros(SERIES.shape[1:], dtype=bool)
    assert np.isnan(patlak_map(FRAMES, masked, PLASMA, t_star_h=0.5, mask=mask, block_mb=0.01)["ki"]).all()
    assert masked.largest == 0  # nothing is read for a block outside the mask


def test_basis_is_exact() -> None:
    """Against the closed form of a sum of exponentials, and against the input's own integral at rate 0."""
    rates = np.array([0.0, 1e-6, 0.06, 3.0, 6.0, 30.0])
    means = one_tissue_means(FRAMES, PLASMA, rates)
    assert means[0] == pytest.approx(PLASMA.mean_integral(FRAMES), rel=1e-12)
    assert means[1] == pytest.approx(means[0], rel=1e-5)
    for rate, mean in zip(rates[2:], means[2:], strict=True):
        assert 60 * mean == pytest.approx(tissue([1.0], [rate / 60]), rel=1e-4)  # straight lines between samples
    linear = InputCurve.of([0, 2], [1, 5])  # 1 + 2 t: response (1 - 2/r)(1 - exp(-r t))/r + 2 t/r at r = 0.7
    r, t = 0.7, np.linspace(0, 2, 20001)
    response = (1 / r - 2 / r**2) * (1 - np.exp(-r * t)) + 2 * t / r
    assert one_tissue_means(Frames.of([0], [2]), linear, np.array([r]))[0, 0] == pytest.approx(
        np.trapezoid(response, t) / 2, rel=1e-8
    )


def test_one_tissue_finds_its_rates() -> None:
    maps = one_tissue_map(FRAMES, volume(4, 0.0)[0], PLASMA)
    _, k1, k2 = volume(4, 0.0)
    assert maps["k1"] == pytest.approx(k1, rel=2e-3)
    assert maps["k2"] == pytest.approx(k2, rel=4e-3)
    finer = one_tissue_map(FRAMES, volume(4, 0.0)[0], PLASMA, rates=256)
    assert finer["k2"] == pytest.approx(k2, rel=3e-4)  # the truth's plasma is curved between samples
    assert (maps.units["k1"], maps.units["k2"], maps.units["vt"]) == ("1/h", "1/h", "1")


def test_one_tissue_errors_cover() -> None:
    rng = np.random.default_rng(7)
    truth, k1, k2 = volume(5, 0.0, (10, 10, 10))
    noisy = truth + 0.02 * truth.max(axis=0) * rng.standard_normal(truth.shape)
    maps = one_tissue_map(FRAMES, noisy, PLASMA)
    good = maps.failure == 0
    assert good.mean() > 0.99
    for name, true in (("k1", k1), ("k2", k2), ("vt", k1 / k2)):
        inside = np.abs(maps[name] - true)[good] <= 2.03 * maps.se[name][good]
        assert 0.92 <= inside.mean() <= 0.98, name


def test_the_edge_of_the_search_is_said() -> None:
    maps = one_tissue_map(FRAMES, SERIES, PLASMA, k2_range_per_h=(30.0, 60.0))
    assert (maps.failure == kernels.AT_EDGE).all()
    assert np.isnan(maps["k1"]).all()


def test_nca_of_a_falling_exponential() -> None:
    """Frames of one length under 5 exp(-0.4 t): area, slope and residence in closed form."""
    frames = Frames.of(np.arange(12.0), np.arange(1.0, 13.0))
    edges = 5 * np.exp(-0.4 * np.arange(13.0)) / 0.4
    series = (edges[:-1] - edges[1:])[:, None] * np.array([1.0, 2.0])
    maps = nca_map(frames, series, terminal_from_h=5, unit="kBq/mL")
    assert maps["lambda_z"] == pytest.approx([0.4, 0.4], rel=1e-12)
    assert maps["auclast"] == pytest.approx((edges[0] - edges[-1]) * np.array([1, 2]), rel=1e-12)
    assert maps["aucinf_pred"] == pytest.approx([12.5, 25.0], rel=1e-3)
    assert maps["mrt_inf"] == pytest.approx([2.5, 2.5], rel=0.03)  # a frame's mean counts at its middle
    assert maps["tmax"].tolist() == [0.5, 0.5]
    assert maps.se["auclast"] == pytest.approx([0, 0], abs=1e-9)
    rising = nca_map(frames, series[::-1], terminal_from_h=5)
    assert (rising.failure == kernels.UNDETERMINED).all()
    assert np.isnan(rising["lambda_z"]).all()
    assert np.isfinite(rising["auclast"]).all()


def test_nca_errors_are_those_of_many_repeats() -> None:
    """The same percentage of noise in every frame: mean said error against the spread over 20,000 voxels."""
    rng = np.random.default_rng(9)
    clean = tissue([0.1], [0.05])
    series = clean[:, None] * (1 + 0.02 * rng.standard_normal((T, 20_000)))
    maps = nca_map(FRAMES, series, terminal_from_h=0.8)
    for name in ("auclast", "lambda_z", "aucinf_pred", "mrt_inf"):
        said = np.sqrt(np.mean(maps.se[name] ** 2))
        assert said == pytest.approx(np.std(maps[name]), rel=0.05), name


def test_patlak_errors_cover() -> None:
    rng = np.random.default_rng(10)
    ki, v = rng.uniform(0.1, 2, (2, 2000))
    c = PLASMA.mean(FRAMES)[:, None]
    series = ki * PLASMA.mean_integral(FRAMES)[:, None] + v * c + 0.2 * c * rng.standard_normal((T, 2000))
    maps = patlak_map(FRAMES, series, PLASMA, t_star_h=0.5)
    assert 0.935 <= np.mean(np.abs(maps["ki"] - ki) <= 2.11 * maps.se["ki"]) <= 0.965  # t with 17 df


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: patlak_map(FRAMES, [[1.0]], PLASMA, t_star_h=0), "wrap it in numpy.asarray"),
        (lambda: patlak_map(FRAMES, SERIES[:-1], PLASMA, t_star_h=0), "move the time axis"),
        (lambda: patlak_map(FRAMES, SERIES > 0, PLASMA, t_star_h=0), "series holds bool"),
        (lambda: patlak_map(FRAMES, SERIES, PLASMA, t_star_h=9), "0 usable frames start at or after 9 h"),
        (lambda: logan_map(FRAMES, SERIES, PLASMA, t_star_h=9), "expected at least 3; start earlier"),
        (lambda: patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0, mask=[True]), "expected that of the volume"),
        (lambda: patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0, weights=[1]), "one weight for each frame"),
        (lambda: patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0, engine="gpu"), "expected auto, numpy, numba"),
        (lambda: patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0, block_mb=0), "leave it out for 64"),
        (lambda: one_tissue_map(FRAMES, SERIES, PLASMA, k2_range_per_h=(2, 1)), "two rising rates above zero"),
        (lambda: one_tissue_map(FRAMES, SERIES, PLASMA, rates=2), "at least 8 basis functions"),
        (lambda: nca_map(FRAMES, SERIES, terminal_from_h=1, weights=np.eye(T)[0]), "leave the frame out of the series"),
        (lambda: nca_map(FRAMES, SERIES, terminal_from_h=50), "0 usable frames"),
    ],
)
def test_errors_are_sentences(call, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_without_numba_the_reason_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "have_numba", lambda: False)
    with pytest.raises(ValueError, match=r"not installed; run pip install evbiodist\[montecarlo\]"):
        patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0.5, engine="numba")
    assert not patlak_map(FRAMES, SERIES, PLASMA, t_star_h=0.5).failure.any()
