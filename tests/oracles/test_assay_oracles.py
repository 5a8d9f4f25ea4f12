"""Validation of an assay against printed calibrations, NIST's certified parabola and the dyestuff batches."""

import math

import numpy as np
import pytest

from evbiodist.crossval.assay import Calibration, spread, validate_assay


def rows(amounts, responses, unit="ng"):
    return [Calibration(label="dir", nominal=x, response=y, unit=unit) for x, y in zip(amounts, responses, strict=True)]


def test_hplc_of_a_dye():
    """Bailey, Cox & Springer, J AOAC 1978;61:1404; fit in Berthouex & Brown, Statistics for Environmental Engineers, table 34.2."""
    dye = [0.18, 0.35, 0.055, 0.022, 0.29, 0.15, 0.044, 0.028, 0.044, 0.073, 0.13, 0.088, 0.26, 0.16, 0.10]
    area = [
        26.666,
        50.651,
        9.628,
        4.634,
        40.206,
        21.369,
        5.948,
        4.245,
        4.786,
        11.321,
        18.456,
        12.865,
        35.186,
        24.245,
        14.175,
    ]
    curve = validate_assay(rows(dye, area)).curve
    assert (curve.intercept, curve.intercept_se) == pytest.approx((0.566, 0.473), abs=5e-4)
    assert (curve.slope, curve.slope_se) == pytest.approx((139.759, 2.889), abs=5e-4)
    assert (curve.df, curve.residual_sd**2) == (13, pytest.approx(1.194, abs=5e-4))
    # ICH Q2 from the printed numbers alone
    assert curve.lod == pytest.approx(3.3 * math.sqrt(1.194) / 139.759, rel=5e-4)


def test_fluorescein():
    """Miller & Miller, Statistics and Chemometrics for Analytical Chemistry, chapter 5: the line and three amounts read."""
    found = validate_assay(rows([0, 2, 4, 6, 8, 10, 12], [2.1, 5.0, 9.0, 12.6, 17.3, 21.0, 24.7], "pg/mL"))
    curve = found.curve
    assert (curve.slope, curve.intercept) == pytest.approx((1.93, 1.52), abs=5e-3)
    assert (curve.residual_sd, curve.slope_se, curve.intercept_se) == pytest.approx((0.4329, 0.0409, 0.2949), abs=1e-4)
    for response, amount, error in ((2.9, 0.72, 0.26), (13.5, 6.21, 0.24), (23.0, 11.13, 0.26)):
        assert curve.inverse(response).value == pytest.approx(amount, abs=5e-3)
        assert found.reading_error(curve.inverse(response).value) == pytest.approx(error, abs=5e-3)


def test_mandel_on_a_certified_parabola():
    """NIST StRD Pontius (load cell): F of the square is that of its certified coefficient over its certified error."""
    load = np.tile(np.arange(150_000, 3_000_001, 150_000), 2)
    deflection = [
        0.11019, 0.21956, 0.32949, 0.43899, 0.54803, 0.65694, 0.76562, 0.87487, 0.98292, 1.09146, 1.20001, 1.30822, 1.41599,
        1.52399, 1.63194, 1.73947, 1.84646, 1.95392, 2.06128, 2.16844, 0.11052, 0.22018, 0.32939, 0.43886, 0.54798, 0.65739,
        0.76596, 0.87474, 0.98300, 1.09150, 1.20004, 1.30818, 1.41613, 1.52408, 1.63159, 1.73965, 1.84696, 1.95445, 2.06177,
        2.16829,
    ]  # fmt: skip
    found = validate_assay(rows(load, deflection, "g")).mandel
    assert found.f == pytest.approx((0.316081871345029e-14 / 0.486652849992036e-16) ** 2, rel=1e-9)
    assert (found.df, found.p < 1e-30) == (37, True)


def test_dyestuff_batches():
    """Davies & Goldsmith 1972, sec. 6.4; variances, their roots and the error of the mean as lme4 prints them."""
    grams = [
        1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560, 1445, 1440, 1595, 1465,
        1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445,
    ]  # fmt: skip
    found = spread(grams, [batch for batch in "ABCDEF" for _ in range(5)])
    assert (found.between**2, found.repeatability**2) == pytest.approx((1764, 2451), abs=0.5)
    assert (found.between, found.repeatability) == pytest.approx((42.00, 49.51), abs=5e-3)
    assert (found.mean, found.mean_se) == pytest.approx((1527.50, 19.38), abs=5e-3)
