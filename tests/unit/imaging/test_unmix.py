"""Unmixing finds what was mixed, with errors that cover, and says when spectra cannot carry the answer."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import nnls

from evbiodist.imaging.autofluorescence import subtract_autofluorescence
from evbiodist.imaging.spectra import Spectra, read_spectra, spectrum_from_region, split_bands
from evbiodist.imaging.unmix import _nonnegative, _one_by_one, unmix, unmix_image
from evbiodist.io.scan import Band, Camera, Scan
from evbiodist.io.timing import FrameTiming
from evbiodist.study.estimate import student
from evbiodist.study.problems import InputError

NM = (700.0, 730.0, 760.0, 790.0, 820.0)
DIR = np.array([0.02, 0.08, 0.3, 0.4, 0.2])
TISSUE = np.array([0.4, 0.25, 0.16, 0.11, 0.08])
SPECTRA = Spectra(("DiR", "tissue"), NM, np.array([DIR, TISSUE]))
CAMERA = Camera(gain_e=1.5, read_noise_e=5.0, saturation=60000)


def scan_of(counts, axes="CYX", **more):
    return Scan("s", None, counts, axes, camera=CAMERA, bands=tuple(Band(emission_nm=w) for w in NM), **more)


def exposed(amounts, rng, offset=0.0):
    """Counts (bands, Y, X) of component images (k, Y, X) through the camera."""
    electrons = rng.poisson(np.tensordot(SPECTRA.values.T, amounts, 1) * CAMERA.gain_e)
    return np.round((electrons + rng.normal(0, CAMERA.read_noise_e, electrons.shape)) / CAMERA.gain_e + offset)


# --- organ signals


def test_free_estimate_is_generalised_least_squares():
    rng = np.random.default_rng(1)
    y, v = rng.uniform(10, 50, (5, 3)), rng.uniform(1, 9, (5, 3))
    found = unmix(y, SPECTRA, v, nonnegative=False)
    for p in range(3):
        X = SPECTRA.values.T / np.sqrt(v[:, p])[:, None]
        expected, rss, _, _ = np.linalg.lstsq(X, y[:, p] / np.sqrt(v[:, p]), rcond=None)
        np.testing.assert_allclose(found.signal[:, p], expected)
        factor = max(found.chi2_red[p], 1.0) if "misfit" in found.flags[0][p] else 1.0
        np.testing.assert_allclose(found.covariance[:, p, :, p], np.linalg.inv(X.T @ X) * factor)
        np.testing.assert_allclose(found.chi2_red[p], rss[0] / 3)


def test_organ_covariance_within_a_band_is_carried():
    """The estimate is linear, so unit bands show its map, and the map must carry the bands' covariance."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 3, 3))
    within = root @ root.transpose(0, 2, 1)
    columns = []
    for band, organ in np.ndindex(5, 3):
        unit = np.zeros((5, 3))
        unit[band, organ] = 1e-6  # far below the noise, so that nothing is a misfit
        columns.append(unmix(unit, SPECTRA, within, nonnegative=False).signal.ravel() / 1e-6)
    linear = np.array(columns).T  # (2 components x 3 organs, 5 bands x 3 organs)
    everything = np.einsum("bpq,bc->bpcq", within, np.eye(5)).reshape(15, 15)
    found = unmix(np.zeros((5, 3)), SPECTRA, within).covariance.reshape(6, 6)
    np.testing.assert_allclose(found, linear @ everything @ linear.T, rtol=1e-7)


def test_bias_and_coverage_over_random_truths():
    """Random amounts, noise and spectra errors: total errors cover 95 %, misfit is cried about once in a thousand."""
    rng = np.random.default_rng(3)
    trials, z, misfits = 600, [], 0
    se = 0.01
    for _ in range(trials):
        truth = rng.uniform(20, 2000, 2)
        v = rng.uniform(1, 100, 5)
        measured = replace(SPECTRA, values=np.abs(SPECTRA.values + rng.normal(0, se, (2, 5))),
                           covariance=np.array([se**2 * np.eye(5)] * 2))  # fmt: skip
        y = SPECTRA.values.T @ truth + rng.normal(0, np.sqrt(v))
        found = unmix(y[:, None], measured, v[:, None], nonnegative=False)
        total = np.hypot(found.se[:, 0], found.se_systematic[:, 0])
        z.append((found.signal[:, 0] - truth) / total)
        misfits += "misfit" in found.flags[0][0]
    z = np.array(z)
    assert abs(z.mean()) < 4 / np.sqrt(2 * trials)
    assert 0.93 < np.mean(np.abs(z) < 1.96) < 0.97
    assert misfits / trials < 0.012  # 0.3 % measured over 6000


def test_nonnegative_agrees_with_scipy_and_says_where():
    rng = np.random.default_rng(4)
    for components in (2, 3, 4):
        S = rng.uniform(0, 1, (components, 8))
        y, v = rng.normal(0, 2, (8, 40)), rng.uniform(0.5, 3, (8, 40))
        spectra = Spectra(tuple("abcd"[:components]), None, S)
        found = unmix(y, spectra, v)
        unit = spectra.normalised().values.T
        for p in range(40):
            w = 1 / np.sqrt(v[:, p])
            expected = nnls(unit * w[:, None], y[:, p] * w)[0]
            np.testing.assert_allclose(found.signal[:, p], expected, atol=1e-9)
            assert [("at_bound" in found.flags[k][p]) for k in range(components)] == list(expected == 0)
        free = unmix(y, spectra, v, nonnegative=False)
        assert {
            (free.signal[k, p] < 0) == ("negative" in free.flags[k][p]) for k in range(components) for p in range(40)
        } == {True}


def test_many_components_fall_back_to_nnls():
    rng = np.random.default_rng(5)
    X = rng.uniform(0, 1, (20, 5))
    y = rng.normal(0, 1, (30, 20))
    normal, right = np.broadcast_to(X.T @ X, (30, 5, 5)), y @ X
    np.testing.assert_allclose(_nonnegative(normal, right), _one_by_one(normal, right), atol=1e-9)


def test_alike_spectra_are_flagged_and_the_same_are_refused():
    near = Spectra(("a", "b"), NM, np.array([DIR, DIR + 0.05 * TISSUE]))
    found = unmix(np.ones((5, 1)), near, np.ones((5, 1)))
    assert all("collinear" in f[0] for f in found.flags)
    cosine = (near.values[0] @ near.values[1]) / np.prod(np.linalg.norm(near.values, axis=1))
    assert found.condition == pytest.approx(np.sqrt((1 + cosine) / (1 - cosine)), rel=1e-6)
    assert not any("collinear" in f[0] for f in unmix(np.ones((5, 1)), SPECTRA, np.ones((5, 1))).flags)
    with pytest.raises(ValueError, match=r"among a, b a spectrum is a sum of others; leave it out"):
        unmix(np.ones((5, 1)), Spectra(("a", "b"), NM, np.array([DIR, 3 * DIR])), np.ones((5, 1)))


def test_an_unknown_component_is_a_misfit_with_wider_errors():
    y = (SPECTRA.values.T @ [100.0, 50.0] + [0, 60, 0, 0, 0])[:, None]
    found = unmix(y, SPECTRA, np.ones((5, 1)))
    assert found.chi2_red[0] > 100
    assert all("misfit" in f[0] for f in found.flags)
    plain = unmix(SPECTRA.values.T @ [[100.0], [50.0]], SPECTRA, np.ones((5, 1)))
    np.testing.assert_allclose(found.se / plain.se, np.sqrt(found.chi2_red[0]))


def test_as_many_bands_as_components_leave_no_goodness():
    two = Spectra(("a", "b"), None, np.array([[0.8, 0.2], [0.3, 0.7]]))
    found = unmix([[11.0], [9.0]], two, np.ones((2, 1)))
    np.testing.assert_allclose(found.signal.ravel(), [10, 10])
    assert np.isnan(found.chi2_red[0])


def test_a_saturated_band_is_left_out_there_only():
    truth = np.array([[100.0, 100.0], [50.0, 50.0]])
    y = SPECTRA.values.T @ truth
    y[3, 0] = 7e4
    valid = np.ones((5, 2), bool)
    valid[3, 0] = False
    found = unmix(y, SPECTRA, np.ones((5, 2)), valid=valid)
    np.testing.assert_allclose(found.signal, truth)
    assert "saturated" in found.flags[0][0]
    assert "saturated" not in found.flags[0][1]
    assert found.se[0, 0] > found.se[0, 1]
    valid[1:, 0] = False
    lost = unmix(y, SPECTRA, np.ones((5, 2)), valid=valid)
    assert np.isnan(lost.signal[:, 0]).all()
    assert np.isnan(lost.se[:, 0]).all()
    np.testing.assert_allclose(lost.signal[:, 1], truth[:, 1])


@pytest.mark.parametrize(("bands", "variance", "words"), [
    (np.ones((4, 2)), np.ones((4, 2)), "bands have shape (4, 2); expected (5 bands as the spectra, values)"),
    (np.ones((5, 2)), np.ones((5, 3)), "the variance has shape (5, 3); expected (5, 2), or (5, 2, 2) with covariances"),
])  # fmt: skip
def test_shapes_that_do_not_match_are_refused(bands, variance, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        unmix(bands, SPECTRA, variance)


def test_more_components_than_bands_are_refused():
    with pytest.raises(ValueError, match="2 bands cannot tell 3 components apart"):
        unmix(np.ones((2, 1)), Spectra(("a", "b", "c"), None, np.eye(3)[:, :2] + 0.1), np.ones((2, 1)))


# --- images


def test_an_image_is_unmixed_with_its_noise():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:60, :60]
    truth = np.array([3000 * np.exp(-((y - 30) ** 2 + (x - 20) ** 2) / 90), np.full((60, 60), 800.0)])
    found = unmix_image(scan_of(exposed(truth, rng, 100.0), offset=100.0), SPECTRA, nonnegative=False)
    z = (found.signal - truth) / np.sqrt(found.variance)
    np.testing.assert_allclose(z.std(axis=(1, 2)), 1.0, atol=0.04)
    np.testing.assert_allclose(z.mean(axis=(1, 2)), 0.0, atol=0.05)
    assert np.mean(found.chi2_red) == pytest.approx(1.0, abs=0.04)
    assert found.flags == ()


def test_clipping_raises_sums_of_dim_pixels_and_the_free_estimate_does_not():
    rng = np.random.default_rng(7)
    truth = np.array([np.zeros((80, 80)), np.full((80, 80), 400.0)])
    scan = scan_of(exposed(truth, rng))
    free, clipped = (unmix_image(scan, SPECTRA, nonnegative=kind) for kind in (False, True))
    se = np.sqrt(free.variance[0].sum())
    assert abs(free.signal[0].sum()) < 3 * se
    assert clipped.signal[0].sum() > 20 * se
    assert clipped.signal.min() == 0


def test_saturation_and_dead_pixels_cost_one_band_only():
    rng = np.random.default_rng(8)
    truth = np.array([np.full((20, 20), 2000.0), np.full((20, 20), 900.0)])
    counts = exposed(truth, rng)
    bad = np.zeros((5, 20, 20), bool)
    bad[0, 4, 4] = True
    counts[0, 4, 4] = 1e9  # dead, and the saturated one below
    counts[3, 2, 2] = 65000
    counts[:, 7, 7] = 65000
    found = unmix_image(scan_of(counts, bad=bad), SPECTRA)
    for place in ((4, 4), (2, 2)):
        assert np.all(np.abs(found.signal[:, *place] - truth[:, *place]) < 5 * np.sqrt(found.variance[:, *place]))
    assert np.isnan(found.signal[:, 7, 7]).all()
    assert np.isfinite(found.signal).sum() == 2 * 399
    assert "saturated" in found.flags
    assert any("1 pixels have too few usable bands" in note for note in found.notes)


def test_frames_axes_and_units_are_kept():
    rng = np.random.default_rng(9)
    truth = np.array([[np.full((6, 7), 5000.0 * t), np.full((6, 7), 900.0)] for t in (1, 2, 3)])
    counts = np.array([exposed(a, rng, 50.0) for a in truth])
    offset = np.full((5, 1, 1), 50.0)
    scan = scan_of(counts, "TCYX", offset=offset, scale=np.full((3, 1, 1, 1), 2.0), unit="p/s/cm2/sr", systematic_rel=0.05,
                   pixel_size_mm=(0.1, 0.1), timing=FrameTiming((0, 10, 20), (5, 5, 5)))  # fmt: skip
    found = unmix_image(scan, SPECTRA)
    assert found.signal.shape == (2, 3, 6, 7)
    np.testing.assert_allclose(found.signal[0].mean(axis=(1, 2)), [10000, 20000, 30000], rtol=0.02)
    np.testing.assert_allclose(found.se_systematic, 0.05 * found.signal)
    dye = found.component("DiR")
    assert (dye.axes, dye.unit, dye.pixel_size_mm, len(dye.timing), dye.bands) == (
        "TYX",
        "p/s/cm2/sr",
        (0.1, 0.1),
        3,
        (),
    )
    assert "systematic" in found.flags
    np.testing.assert_allclose(dye.signal(), found.signal[0])
    with pytest.raises(ValueError, match="there is no component 'dye'; known: DiR, tissue"):
        found.component("dye")


def test_a_dye_that_is_not_in_the_spectra_makes_the_image_a_misfit():
    rng = np.random.default_rng(10)
    counts = exposed(np.full((2, 20, 20), 2000.0), rng)
    counts[1] += 800
    found = unmix_image(scan_of(counts), SPECTRA)
    assert "misfit" in found.flags
    assert any("do not explain" in note for note in found.notes)


def test_pixels_without_calibration_or_number_are_left_empty():
    counts = exposed(np.full((2, 40, 40), 3000.0), np.random.default_rng(17))
    counts[:, 0, 0] = np.nan
    scale = np.ones((40, 40))
    scale[5, 5] = 0.0
    found = unmix_image(replace(scan_of(counts, scale=scale), camera=Camera()), SPECTRA)
    assert np.argwhere(np.isnan(found.signal[0])).tolist() == [[0, 0], [5, 5]]
    assert found.component("DiR").bad.sum() == 2
    with pytest.raises(ValueError, match="s has no usable pixel"):
        unmix_image(scan_of(np.full((5, 4, 4), 65535)), SPECTRA)


def test_unknown_noise_is_found_from_the_image_and_flagged():
    counts = exposed(np.full((2, 64, 64), 3000.0), np.random.default_rng(11))
    assert "noise_from_image" in unmix_image(replace(scan_of(counts), camera=Camera()), SPECTRA).flags


def test_bands_without_wavelengths_are_taken_in_order_and_said():
    counts = exposed(np.full((2, 4, 4), 500.0), np.random.default_rng(12))
    found = unmix_image(replace(scan_of(counts), bands=()), SPECTRA)
    assert "the bands are taken in the order of the spectra" in found.notes
    with pytest.raises(ValueError, match="the spectra have 5 bands, s has 3"):
        unmix_image(replace(scan_of(counts), counts=counts[:3], bands=()), SPECTRA)


def test_several_excitations_need_measured_spectra():
    counts = exposed(np.full((2, 4, 4), 500.0), np.random.default_rng(13))
    bands = tuple(Band(emission_nm=820.0, excitation_nm=e) for e in (640, 675, 710, 745, 760))
    scan = replace(scan_of(counts), bands=bands)
    with pytest.raises(ValueError, match=r"several excitations, which emission spectra do not describe"):
        unmix_image(scan, SPECTRA)
    assert unmix_image(scan, replace(SPECTRA, emission_nm=None)).signal.shape == (2, 4, 4)


def test_a_scan_without_bands_is_refused():
    with pytest.raises(ValueError, match="s has axes 'YX' and no axis C"):
        unmix_image(Scan("s", None, np.ones((3, 3)), "YX"), SPECTRA)


def test_splitting_bands_gives_each_its_own_calibration():
    counts = np.arange(24.0).reshape(2, 3, 2, 2)
    scan = Scan("s", None, counts, "TCYX", offset=np.arange(3.0)[:, None, None], scale=np.full((1, 3, 1, 1), 2.0),
                bad=np.array([True, False, False])[:, None, None])  # fmt: skip
    parts = split_bands(scan)
    np.testing.assert_allclose(np.stack([p.signal() for p in parts], axis=1), scan.signal())
    assert [bool(np.all(p.bad)) for p in parts] == [True, False, False]
    assert [p.axes for p in parts] == ["TYX"] * 3


# --- spectra


def test_interpolation_and_its_errors():
    spectra = Spectra(("a",), (800.0, 700.0), np.array([[2.0, 1.0]]), np.array([np.diag([0.04, 0.09])]))
    at = spectra.at((725.0, 700.0))
    np.testing.assert_allclose(at.values, [[1.25, 1.0]])
    w = np.array([[0.25, 0.0], [0.75, 1.0]])
    np.testing.assert_allclose(at.covariance[0], w.T @ np.diag([0.04, 0.09]) @ w)
    assert spectra.at((800, 700)) is spectra
    with pytest.raises(ValueError, match=r"a band at 810 nm is outside the spectra \(700 to 800 nm\)"):
        spectra.at((810.0,))
    with pytest.raises(ValueError, match="have no wavelengths"):
        replace(spectra, emission_nm=None).at((700.0,))
    with pytest.raises(ValueError, match="two bands of the same wavelength"):
        replace(spectra, emission_nm=(700.0, 700.0)).at((700.0,))


def test_normalising_carries_the_covariance():
    rng = np.random.default_rng(14)
    root = 0.01 * rng.normal(size=(5, 5))
    draws = DIR + rng.normal(size=(40000, 5)) @ root.T
    expected = np.cov((draws / draws.sum(axis=1, keepdims=True)).T)
    found = Spectra(("a",), NM, DIR[None], (root @ root.T)[None]).normalised().covariance[0]
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-15)


def test_joining_fluorophore_and_measured_autofluorescence():
    tissue = Spectra(("tissue",), NM, TISSUE[None], np.array([1e-4 * np.eye(5)]), "measured in blank")
    both = Spectra(("DiR",), NM, DIR[None], source="dyes.csv").joined(tissue)
    assert both.names == ("DiR", "tissue")
    assert both.source == "dyes.csv; measured in blank"
    np.testing.assert_allclose(both.se, [[0] * 5, [0.01] * 5])
    with pytest.raises(ValueError, match="spectra name a component twice"):
        both.joined(tissue)
    with pytest.raises(ValueError, match="spectra in 5 and 2 bands cannot be joined"):
        tissue.joined(Spectra(("x",), None, np.ones((1, 2))))


@pytest.mark.parametrize(("changes", "words"), [
    ({"values": np.ones((1, 5))}, r"spectra of 2 components have shape \(1, 5\)"),
    ({"emission_nm": (700.0,)}, "1 wavelengths are given for 5 bands"),
    ({"values": np.full((2, 5), np.nan)}, "not a number"),
    ({"values": np.array([DIR, 0 * DIR])}, "the spectrum of 'tissue' sums to 0"),
    ({"covariance": np.ones((2, 5))}, "the covariance of the spectra has shape"),
])  # fmt: skip
def test_spectra_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(SPECTRA, **changes)


def test_a_region_gives_its_spectrum_with_covering_errors():
    rng = np.random.default_rng(15)
    truth, hits = TISSUE / TISSUE.sum(), []
    mask = np.zeros((24, 24), bool)
    mask[8:16, 8:16] = True
    for _ in range(400):
        light = 200.0 + 2000.0 * mask * rng.uniform(0.5, 1.5, (24, 24))
        counts = exposed(np.array([np.zeros_like(light), light]), rng)
        found = spectrum_from_region(scan_of(counts), mask, background=~mask)
        hits.append(np.abs(found.values[0] - truth) < 1.96 * found.se[0])
    assert found.emission_nm == NM
    assert 0.92 < np.mean(hits) < 0.97


def test_a_spectrum_region_leaves_saturated_pixels_out_of_every_band():
    counts = np.multiply.outer(TISSUE * 1000, np.linspace(0.9, 1.1, 36).reshape(6, 6))
    counts[0, 0, 0] = 65535.0
    found = spectrum_from_region(scan_of(counts), np.ones((6, 6), bool))
    np.testing.assert_allclose(found.values[0], TISSUE / TISSUE.sum())
    assert any("1 of 36 pixels" in note for note in found.notes)


def test_a_spectrum_region_says_what_it_needs():
    counts = np.ones((5, 6, 6))
    with pytest.raises(ValueError, match="has 4 usable pixels; a spectrum with errors needs 10"):
        spectrum_from_region(scan_of(counts), np.eye(6, dtype=bool) & (np.arange(6) < 4))
    with pytest.raises(ValueError, match=r"the mask of the region has shape \(5, 5\)"):
        spectrum_from_region(scan_of(counts), np.ones((5, 5), bool))
    with pytest.raises(ValueError, match="several frames"):
        spectrum_from_region(scan_of(np.ones((2, 5, 6, 6)), "TCYX"), np.ones((6, 6), bool))
    excited = replace(scan_of(counts), bands=tuple(Band(820.0, 600.0 + i) for i in range(5)))
    assert spectrum_from_region(excited, np.ones((6, 6), bool)).emission_nm is None


def test_spectra_are_read_from_a_table(tmp_path):
    path = tmp_path / "dyes.csv"
    path.write_text(
        "wavelength_nm,Alexa 750,Alexa 750_se,tissue\n800,1.0,0.1,0.2\n700,0.5,0.05,0.9\n", encoding="utf-8"
    )
    found = read_spectra(path)
    assert found.names == ("Alexa 750", "tissue")
    assert found.emission_nm == (700.0, 800.0)
    np.testing.assert_allclose(found.values, [[0.5, 1.0], [0.9, 0.2]])
    np.testing.assert_allclose(found.se, [[0.05, 0.1], [0, 0]])
    assert found.notes == ("the spectrum of tissue is taken as exact",)
    assert found.source == "dyes.csv"


@pytest.mark.parametrize(("text", "sentences"), [
    ("nm,DiR\n700,1\n", ["found nothing, expected a column 'wavelength_nm'; add it"]),
    ("wavelength\n700\n", ["expected a column per fluorophore beside the wavelengths"]),
    ("wavelength,DiR\n", ["found 'a header only'"]),
    ("wavelength,DiR,DiR\n700,1,1\n", ["column", "each column once"]),
    ("wavelength,DiR\n0.7,1\n700,x\n710,-1\n720\n700,2\n730,\n740,inf\n", [
        "row 2, column wavelength: found '0.7', expected a wavelength in nm, more than 200 and less than 2000",
        "row 3, column DiR: found 'x', expected a finite number, 0 or more",
        "row 4, column DiR: found '-1'",
        "row 5: found '1 cells', expected 2, as in the header",
        "row 6, column wavelength: found '700', expected each wavelength once; it stands in row 3 too",
        "row 7, column DiR: found nothing",
        "row 8, column DiR: found 'inf'",
    ]),
    ("wavelength,DiR,\n700,1,\n", ["expected a name for every column"]),
    ("wavelength,DiR\n" + "x,1\n" * 1000, ["row 51", "found 'more of the like below'"]),
    ("wavelength,DiR\n700,0\n710,0\n", ["found '0 in every row', expected a component with light"]),
])  # fmt: skip
def test_every_problem_of_a_table_is_named(tmp_path, text, sentences):
    path = tmp_path / "dyes.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as err:
        read_spectra(path)
    for sentence in sentences:
        assert sentence in str(err.value)


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\x00\x01")
    for name in ("a.csv", "missing.csv"):
        with pytest.raises(InputError):
            read_spectra(tmp_path / name)


# --- autofluorescence of control animals


def test_subtraction_covers_over_many_studies():
    rng = np.random.default_rng(16)
    hits, bias = [], []
    for _ in range(1500):
        n, area, mean, sd = rng.integers(3, 8), rng.uniform(5, 50), rng.uniform(1, 5), rng.uniform(0.1, 1)
        truth, se = rng.uniform(0, 500), rng.uniform(1, 20)
        control = rng.normal(mean, sd, n)
        signal = truth + area * rng.normal(mean, sd) + rng.normal(0, se)
        found = subtract_autofluorescence(signal, se, area, control)
        total = np.hypot(found.se[0], found.se_systematic[0])
        hits.append(abs(found.value[0] - truth) < student(0.95, found.df[0]) * total)
        bias.append((found.value[0] - truth) / total)
    assert 0.93 < np.mean(hits) < 0.97
    assert abs(np.mean(bias)) < 0.06


def test_a_group_mean_stands_for_its_animals():
    values = np.array([2.0, 3.0, 4.0, 3.5])
    each = subtract_autofluorescence(100.0, 3.0, 10.0, values)
    group = subtract_autofluorescence(100.0, 3.0, 10.0, values.mean(), values.std(ddof=1) / 2, 4)
    for name in ("value", "se", "se_systematic", "df"):
        np.testing.assert_allclose(getattr(group, name), getattr(each, name))


def test_controls_that_agree_by_chance_keep_their_stated_errors():
    found = subtract_autofluorescence(100.0, 0.0, 1.0, [3.0, 3.0, 3.0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose([found.se[0], found.se_systematic[0]], [0.5, 0.5 / np.sqrt(3)])


def test_one_control_is_said_to_be_few():
    found = subtract_autofluorescence([1.0, 50.0], [1.0, 1.0], [2.0, 3.0], 4.0, 0.2)
    assert found.flags == (("few", "negative"), ("few",))
    assert any("one control animal" in note for note in found.notes)


@pytest.mark.parametrize(("arguments", "words"), [
    ((1, 1, 1, []), "no control animal"),
    ((1, 1, 1, [np.nan]), "no control animal"),
    ((1, -1, 1, [1]), "a standard error is missing or below zero"),
    ((1, 1, 0, [1]), r"an area \(or mass\) is missing or not above zero"),
    ((1, 1, 1, [1], 0, 0), "fewer than one animal"),
])  # fmt: skip
def test_controls_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        subtract_autofluorescence(*arguments)
