"""Outside numbers for lines with errors in both axes and for Logan's plot."""

from __future__ import annotations

import numpy as np
import pytest

from evbiodist.kinetics.graphical.frames import Frames
from evbiodist.kinetics.graphical.methods import reference_logan
from evbiodist.kinetics.graphical.york import york

# K. Pearson (1901) Phil Mag 2:559 with the weights of D. York (1966) Can J Phys 44:1079
X = [0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4]
Y = [5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5]
WX = np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1])
WY = np.array([1, 1.8, 4, 8, 20, 20, 70, 70, 100, 500])

# S. Amen (2012), table 3.1: x, y, their variances and covariance
CORRELATED = np.array([
    [23.371, 5.992, 0.106, 0.323, 0.170], [24.462, 8.899, 1.692, 10.195, 3.887], [22.414, 5.361, 0.124, 0.460, 0.207],
    [27.628, 10.271, 1.088, 1.460, 1.255], [23.802, 7.114, 0.107, 0.496, 0.191], [23.092, 7.975, 0.281, 1.651, 0.582],
    [23.263, 7.486, 0.316, 1.695, 0.661], [20.843, 4.169, 0.389, 0.335, 0.357], [24.421, 5.645, 0.381, 0.716, 0.507],
    [23.716, 9.220, 0.733, 3.656, 1.401], [22.032, 5.358, 0.094, 0.268, 0.106], [21.448, 3.166, 0.167, 0.170, 0.001],
    [21.631, 4.002, 0.127, 0.106, 0.082], [19.947, 2.073, 0.015, 0.015, 0.001], [20.652, 3.338, 0.040, 0.104, 0.021],
    [20.588, 2.028, 0.007, 0.011, 0.002], [20.745, 1.978, 0.010, 0.010, -0.001], [21.658, 2.526, 0.009, 0.058, -0.003],
    [19.539, 2.043, 0.044, 0.070, -0.039], [21.638, 3.361, 1.909, 3.961, -2.557], [19.863, 2.452, 0.014, 0.019, -0.010],
    [18.398, 2.199, 0.042, 0.051, -0.037], [20.729, 1.725, 0.013, 0.026, 0.003], [20.511, 1.906, 0.003, 0.010, 0.001],
    [22.140, 3.372, 0.047, 0.108, 0.062], [20.510, 2.130, 0.004, 0.020, 0.002], [20.141, 1.897, 0.006, 0.011, -0.005],
])  # fmt: skip


def test_pearsons_data_with_yorks_weights() -> None:
    """Slope, intercept: Neri 1989 J Phys E 22:215, Williamson; errors, S/(n-2): York 2004 Am J Phys 72:367, table II."""
    line = york(X, Y, WX**-0.5, WY**-0.5)
    assert line.slope == pytest.approx(-0.48053340745, abs=5e-12)
    assert line.intercept == pytest.approx(5.47991022403, abs=5e-12)
    assert line.slope_se == pytest.approx(0.0579850090, rel=1e-8)
    assert line.intercept_se == pytest.approx(0.294970735, rel=1e-8)
    assert line.mswd == pytest.approx(1.483294149, rel=1e-9)


def test_correlated_errors() -> None:
    """Amen's data as LinearFitXYerrors.jl (R. Amorim) solves it; it multiplies the errors by S = sqrt(mswd)."""
    x, y, vx, vy, cov = CORRELATED.T
    line = york(x, y, vx**0.5, vy**0.5, cov / np.sqrt(vx * vy))
    assert line.slope == pytest.approx(1.1762288806682, rel=1e-12)
    assert line.intercept == pytest.approx(-21.9553309045508, rel=1e-12)
    assert line.mswd**0.5 == pytest.approx(3.4885539308643, rel=1e-11)
    assert line.slope_se * line.mswd**0.5 == pytest.approx(0.0578260394408, rel=1e-10)
    assert line.intercept_se * line.mswd**0.5 == pytest.approx(1.2846101711080, rel=1e-10)


def test_equal_errors_are_demings_line() -> None:
    """Deming's closed form (Linnet 1993 Clin Chem 39:424) for an error ratio of 4."""
    rng = np.random.default_rng(0)
    x = np.arange(12.0) + rng.standard_normal(12)
    y = 3 + 2 * np.arange(12.0) + 2 * rng.standard_normal(12)
    sxx, syy = np.var(x), np.var(y)
    sxy = np.mean((x - x.mean()) * (y - y.mean()))
    slope = (syy - 4 * sxx + np.sqrt((syy - 4 * sxx) ** 2 + 16 * sxy**2)) / (2 * sxy)
    line = york(x, y, 0.5, 1.0)
    assert line.slope == pytest.approx(slope, rel=1e-12)
    assert line.intercept == pytest.approx(y.mean() - slope * x.mean(), rel=1e-12)
    swapped = york(y, x, 1.0, 0.5)
    assert swapped.slope == pytest.approx(1 / slope, rel=1e-12)  # the line does not care which axis is which


def test_exact_x_is_weighted_least_squares() -> None:
    """Altman and Gardner 1988 (BMJ 296:1238), table I: ordinary regression, as LinearFitXYerrors.jl tests it."""
    x = [91, 104, 107, 107, 106, 100, 92, 92, 105, 108]
    y = [9.8, 7.4, 7.9, 8.3, 8.3, 9.0, 9.7, 8.8, 7.6, 6.9]
    line = york(x, y, 0.0, 1.0)
    scale = line.mswd**0.5
    assert (line.intercept, line.slope) == (pytest.approx(20.1891143911439), pytest.approx(-0.1167896678967))
    assert line.intercept_se * scale == pytest.approx(2.6713186714425)
    assert line.slope_se * scale == pytest.approx(0.0263407280356)


# [11C]PiB in a man with Alzheimer's disease (Centiloid project, subject AD06), frame means in kBq/mL, as published
# with R package tacmagic (E. Brown); frames in seconds
EDGES = [
    0,
    15,
    30,
    45,
    60,
    *range(90, 301, 30),
    *range(360, 841, 60),
    1020,
    1200,
    *range(1500, 3601, 300),
    4200,
    4800,
    5400,
]
CEREBELLUM = [
    0.023240564, 5.528679071, 16.46325153, 19.123737, 19.76835428, 20.14627747, 20.04482041, 19.63163945, 19.22313782,
    18.59146545, 18.21722947, 17.43840663, 16.66298745, 15.83697573, 14.74806315, 13.90423872, 12.67750593, 11.98320777,
    11.38520924, 10.87634105, 10.22564609, 9.344990455, 7.992224013, 6.80210853, 5.756618497, 4.944188162, 4.522045399,
    4.216072908, 3.978559217, 3.811678878, 3.726873755, 3.43716665, 3.338879058, 3.257235644,
]  # fmt: skip
FRONTAL = [
    0.043345733, 6.179764521, 16.0336034, 18.38828292, 19.21178456, 19.49364988, 19.45805993, 19.28639771, 18.82446454,
    18.63790488, 18.24331302, 17.95851743, 17.30797164, 16.31159578, 15.81994552, 15.1994925, 14.71670055, 14.16165389,
    13.59850199, 13.40988274, 12.90100863, 12.1171939, 11.38839039, 10.68996403, 10.01295985, 9.387056359, 8.953181957,
    8.559581332, 8.257937091, 7.979456778, 7.855810117, 7.475392119, 7.127554406, 6.865484225,
]  # fmt: skip
OCCIPITAL = [
    0.016996672, 5.585552042, 16.38512569, 19.08442736, 20.11209236, 20.38874926, 20.31759692, 19.90457359, 19.44889081,
    19.14865962, 18.42850995, 18.07353743, 17.35735546, 16.46563578, 15.51082023, 14.61978437, 13.67258095, 13.20063167,
    12.74713905, 12.03942361, 11.63139788, 10.84413133, 9.88248363, 8.923396471, 8.125521732, 7.546043134, 7.142082857,
    6.906819885, 6.732948904, 6.47601615, 6.379108204, 6.142333384, 5.936780441, 5.750112819,
]  # fmt: skip


@pytest.mark.parametrize(
    ("curve", "k2_prime", "dvr"),
    [(FRONTAL, None, 1.7773), (FRONTAL, 0.2, 1.8021), (OCCIPITAL, None, 1.4936), (OCCIPITAL, 0.2, 1.5172)],
)
def test_logan_of_turku_pet_centre(curve: list[float], k2_prime: float | None, dvr: float) -> None:
    """Values of Turku PET Centre's program logan 0.6.17 (regression from frame 24 on, middles of frames)."""
    frames = Frames.of(EDGES[:-1], EDGES[1:], "s")
    k2 = None if k2_prime is None else 60 * k2_prime
    settings = {"k2_prime_per_h": k2, "t_star_h": 1200 / 3600}
    as_they = reference_logan(frames, curve, CEREBELLUM, timing="mid", **settings)[0]["dvr"]
    assert as_they.value == pytest.approx(dvr, abs=1.5e-4)
    assert as_they.n == 11
    exact = reference_logan(frames, curve, CEREBELLUM, **settings)[0]["dvr"]
    assert exact.value == pytest.approx(dvr, rel=3e-3)
