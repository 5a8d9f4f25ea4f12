"""Agreement against published numbers, and lines against other derivations of them."""

import math
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest

from evbiodist.crossval.agreement import agreement
from evbiodist.crossval.concordance import icc
from evbiodist.crossval.limits import limits, limits_of_replicated_pairs, pair_factor
from evbiodist.crossval.lines import passing_bablok
from evbiodist.crossval.ranks import kendall_w
from evbiodist.crossval.replicates import within

# Bland & Altman, Lancet 1986;1:307, table: peak expiratory flow (L/min), first readings
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# NCSS Statistical Software, chapter 303 (Deming regression), dataset DemingReg1, error ratio 4
NCSS_X = [7, 8.3, 10.5, 9, 5.1, 8.2, 10.2, 10.3, 7.1, 5.9]
NCSS_Y = [7.9, 8.2, 9.6, 9, 6.5, 7.3, 10.2, 10.6, 6.3, 5.2]


def test_peak_flow_bias_and_limits():
    found = agreement(LARGE, MINI)
    assert found.n == 17
    assert found.bias == pytest.approx(-2.1176, abs=5e-5)
    assert found.sd == pytest.approx(38.7651, abs=5e-5)
    # printed: bias -22.0 to 17.8, standard error of a limit 16.3 with t = 2.12
    assert (found.bias_low, found.bias_high) == pytest.approx((-22.0, 17.8), abs=0.06)
    assert found.loa_margin == pytest.approx(2.12 * 16.3, abs=0.1)
    # the paper prints -79.7 and 75.5 because it takes 2 SD for 1.96 SD
    assert found.bias - 2 * found.sd == pytest.approx(-79.7, abs=0.1)
    assert found.loa_high - found.loa_low == pytest.approx(2 * 1.96 * 38.7651, abs=1e-3)


def test_peak_flow_concordance():
    """Printed by R's epiR (epi.ccc) and others for the same readings."""
    found = agreement(LARGE, MINI)
    printed = (0.942742, 0.850492, 0.978726)
    assert (found.ccc, found.ccc_low, found.ccc_high) == pytest.approx(printed, abs=5e-7)


def test_deming_of_ncss_chapter_303():
    found = agreement(NCSS_X, NCSS_Y, error_ratio=4)
    slope = (found.deming_slope, found.deming_slope_low, found.deming_slope_high)
    assert slope == pytest.approx((1.0011942, 0.5695632, 1.4328253), abs=5e-8)
    intercept = (found.deming_intercept, found.deming_intercept_low, found.deming_intercept_high)
    assert intercept == pytest.approx((-0.0897449, -4.06065, 3.88117), abs=6e-6)


def test_deming_is_orthogonal_regression_at_equal_errors():
    """Independent derivation: the first singular vector of the centred pairs."""
    xy = np.column_stack([LARGE, MINI]).astype(float)
    direction = np.linalg.svd(xy - xy.mean(axis=0))[2][0]
    found = agreement(LARGE, MINI)
    assert found.deming_slope == pytest.approx(direction[1] / direction[0], rel=1e-12)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 4.0])
def test_deming_minimises_its_own_sum_of_squares(ratio):
    """Independent derivation: the sum of squares weighted by both errors, minimised by search."""
    from scipy.optimize import minimize_scalar

    x, y = np.array(NCSS_X) - np.mean(NCSS_X), np.array(NCSS_Y) - np.mean(NCSS_Y)
    best = minimize_scalar(lambda slope: np.sum((y - slope * x) ** 2) / (1 + ratio * slope**2), (0.5, 1.5))
    assert agreement(NCSS_X, NCSS_Y, error_ratio=ratio).deming_slope == pytest.approx(best.x, rel=1e-6)


# Bland & Altman, J Biopharm Stat 2007;17:571, table 1 (cardiac output of 12 patients in 60 pairs, L/min; the table of
# 1999, Stat Methods Med Res 8:135): radionuclide ventriculography and impedance cardiography, patient by patient
RADIONUCLIDE = [
    [7.83, 7.42, 7.89, 7.12, 7.88], [6.16, 7.26, 6.71, 6.54], [4.75, 5.24, 4.86, 4.78, 6.05, 5.42],
    [4.21, 3.61, 3.72, 3.87, 3.92], [3.13, 2.98, 2.85, 3.17, 3.09, 3.12], [5.92, 6.42, 5.92, 6.27],
    [7.13, 6.62, 6.58, 6.93], [4.54, 4.81, 5.11, 5.29, 5.39, 5.57], [4.48, 4.92, 3.97], [4.22, 4.65, 4.74, 4.44, 4.50],
    [6.78, 6.07, 6.52, 6.42, 6.41, 5.76], [5.06, 4.72, 4.90, 4.80, 4.90, 5.10],
]  # fmt: skip
IMPEDANCE = [
    [6.57, 5.62, 6.90, 6.57, 6.35], [4.06, 4.29, 4.26, 4.09], [4.71, 5.50, 5.08, 5.02, 6.01, 5.67],
    [4.14, 4.20, 4.61, 4.68, 5.04], [3.03, 2.86, 2.77, 2.46, 2.32, 2.43], [5.90, 5.81, 5.70, 5.76],
    [5.09, 4.63, 4.61, 5.09], [4.72, 4.61, 4.36, 4.20, 4.36, 4.20], [3.17, 3.12, 2.96], [4.35, 4.62, 3.16, 3.53, 3.53],
    [7.20, 6.09, 7.00, 7.10, 7.40, 6.80], [4.50, 4.20, 3.80, 3.80, 4.20, 4.50],
]  # fmt: skip


def test_cardiac_output_unequal_replicates():
    """Printed 1999, section 5.2; the SD there follows from means rounded on the way and is 0.0002 smaller."""
    scatter = within(RADIONUCLIDE), within(IMPEDANCE)
    assert (scatter[0].variance, scatter[1].variance) == pytest.approx((0.1072, 0.1379), abs=5e-5)
    found = limits([np.mean(r) for r in RADIONUCLIDE], [np.mean(i) for i in IMPEDANCE], within=scatter)
    assert found.bias == pytest.approx(0.7092, abs=5e-5)
    assert found.sd == pytest.approx(1.0517, abs=2e-4)
    assert (found.loa_low, found.loa_high) == pytest.approx((-1.3521, 2.7705), abs=4e-4)


def test_cardiac_output_paired_replicates():
    """Printed 2007, section 3, which corrects section 5.3 of 1999."""
    found = limits_of_replicated_pairs([np.subtract(r, i) for r, i in zip(RADIONUCLIDE, IMPEDANCE, strict=True)])
    assert found.bias == pytest.approx(0.6021667, abs=5e-8)
    assert found.sd == pytest.approx(0.99062408, abs=3e-8)
    assert (found.loa_low, found.loa_high) == pytest.approx((-1.3394565, 2.5437899), abs=2e-7)


@pytest.mark.parametrize(
    ("df", "printed"),
    [
        (1, (0.9744, 1.1237, 36.5192, 73.0772)),
        (2, (1.1051, 1.2333, 9.7888, 13.9396)),
        (4, (1.2397, 1.3481, 5.0769, 6.1569)),
        (16, (1.4900, 1.5619, 2.8683, 3.0824)),
        (40, (1.6247, 1.6766, 2.4404, 2.5429)),
        (74, (1.6982, 1.7390, 2.2862, 2.3534)),
    ],
)
def test_exact_limits_as_a_pair(df, printed):
    """Carkeet, Optom Vis Sci 2015;92:e71, table of limits considered as a pair (2.5, 5, 95 and 97.5 %)."""
    found = [pair_factor(df + 1, p) for p in (0.025, 0.05, 0.95, 0.975)]
    assert found == pytest.approx(printed, abs=6e-5)


@pytest.mark.parametrize("n", [3, 5, 17])
def test_exact_interval_of_one_limit(n):
    """Independent derivation: the noncentral t of scipy.stats, and its coverage by simulation."""
    from scipy.stats import nct

    rng = np.random.default_rng(n)
    d = rng.normal(0.3, 2.0, n)
    found = limits(d, np.zeros(n))
    factor = nct.ppf([0.025, 0.975], n - 1, 1.96 * math.sqrt(n)) / math.sqrt(n)
    assert (found.loa_high_low, found.loa_high_high) == pytest.approx(d.mean() + factor * d.std(ddof=1), rel=1e-9)
    assert found.loa_low - found.loa_low_low == pytest.approx(found.loa_high_high - found.loa_high, rel=1e-9)
    many = rng.normal(0, 1, (40_000, n))
    low, high = (many.mean(axis=1) + k * many.std(axis=1, ddof=1) for k in factor)
    assert np.mean((low <= 1.96) & (high >= 1.96)) == pytest.approx(0.95, abs=0.005)


# Shrout & Fleiss, Psychol Bull 1979;86:420, table 2: four judges rate six targets
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_intraclass_correlation_of_shrout_and_fleiss():
    """The paper prints .17 .29 .71 .44 .62 .91; R's psych::ICC the six digits and the bounds."""
    found = icc(RATINGS)
    printed = {"icc1": 0.165742, "icc2": 0.289764, "icc3": 0.714841}
    assert {name: found[name].value for name in printed} == pytest.approx(printed, abs=5e-7)
    assert [round(found[n].value, 2) for n in ("icc1k", "icc2k", "icc3k")] == [0.44, 0.62, 0.91]
    bounds = {"icc1": (-0.133, 0.72), "icc2": (0.019, 0.76), "icc3": (0.342, 0.95),
              "icc1k": (-0.884, 0.91), "icc2k": (0.071, 0.93), "icc3k": (0.676, 0.99)}  # fmt: skip
    for name, (low, high) in bounds.items():
        assert found[name].low == pytest.approx(low, abs=5e-4)
        assert found[name].high == pytest.approx(high, abs=5e-3)


def test_kendall_w_of_the_package_irr():
    """R's irr: kendall() prints W = 0.568, chi-squared 8.52; DescTools prints 0.5396569 and 30.76 for `anxiety`, with ties."""
    found = kendall_w([[1, 6, 3, 2, 5, 4], [1, 5, 6, 2, 4, 3], [2, 3, 6, 5, 4, 1]])
    assert found.w == pytest.approx(0.568, abs=5e-4)
    assert found.chi2 == pytest.approx(8.52, abs=5e-3)
    anxiety = [
        [3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3],
        [3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4],
        [2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2],
    ]
    found = kendall_w(anxiety)
    assert found.w == pytest.approx(0.5396569, abs=5e-8)
    assert found.chi2 == pytest.approx(30.76, abs=5e-3)


@pytest.mark.parametrize("values", [
    [[1, 2, 3, 4, 5], [2, 1, 3, 5, 4], [1, 3, 2, 5, 4]], [[1, 1, 2, 3], [2, 1, 3, 4], [1, 2, 2, 2], [4, 1, 2, 3]],
])  # fmt: skip
def test_exact_probability_of_w_by_counting_all_rankings(values):
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=1)
    sums = ranks[:1]
    for judge in ranks[1:]:
        sums = (sums[:, None] + np.array(list(permutations(judge)))).reshape(-1, ranks.shape[1])
    spread, seen = np.var(sums, axis=1), np.var(ranks.sum(axis=0))
    found = kendall_w(values)
    assert found.p_method == "exact"
    assert found.p == pytest.approx(np.mean(spread >= seen - 1e-9), rel=1e-12)


# Preoperative creatinine in serum and plasma (mg/dL), data `creatinine` of R's package mcr, 108 complete pairs
CREATININE = """
    0.82 0.79  1.83 1.62  1.39 1.36  0.81 1.3  1.72 1.88  3.23 3.35  1.23 1.06  1.37 1.34  1.72 1.56  0.96 0.94  0.76 0.69
    1.15 1.16  0.95 0.71  1 0.83  1.52 1.44  1.56 1.26  2.45 2.36  1.85 1.9  0.89 0.95  0.82 0.77  1.01 0.82  0.96 0.88
    3.38 3.42  1.31 1.15  1.1 0.96  1.26 1.12  1.15 1.02  1.2 1.29  1.01 0.87  1.33 1.13  0.87 0.82  1.66 1.33  1.41 1.14
    1.08 0.93  1.17 1.09  1.77 1.89  1.33 1.57  1.23 1.29  1.21 1.13  1.2 1.11  1.49 1.61  0.89 0.79  1.09 1.19  1.03 0.96
    1.07 1.25  0.89 0.87  1.39 1.36  0.96 0.86  1.06 1.03  1.17 0.86  0.9 0.8  1.39 1.22  0.91 0.86  2.28 2.25  0.9 0.87
    1.34 1.3  1.32 1.04  1.02 0.92  1.04 1.01  1.27 1.21  1.08 1.11  1.1 1.21  1.39 1.54  1.07 0.99  0.79 0.79  1.02 1.06
    0.94 1.02  1.99 2.15  0.7 0.56  0.84 1.01  0.66 0.59  1.1 1.17  0.9 0.82  2.06 2.09  1.31 1.44  1.03 1.22  1.61 1.77
    1.52 1.6  1.11 1.13  0.85 1.06  1.2 1.38  1.09 1.24  1.27 1.29  2.06 2.08  1.21 1.31  0.77 0.82  1.06 1.28  1.02 1.15
    1 1.04  1.47 1.51  0.97 1.13  1.7 1.84  1.78 1.94  0.93 1.32  0.92 1.36  1.59 1.88  0.68 0.73  0.7 0.78  1.08 1.01
    0.83 0.9  1.17 1.3  0.98 0.96  0.77 0.61  0.91 1.27  1.1 1.05  0.8 1.12  0.85 0.72  0.82 0.87
"""


def exact_slopes(x, y):
    """Return all slopes of two points that are not 0/0, as fractions; vertical ones are infinite."""
    found = []
    for i, j in combinations(range(len(x)), 2):
        dx, dy = x[j] - x[i], y[j] - y[i]
        if dx or dy:
            found.append(Fraction(dy, dx) if dx else math.inf)
    return sorted(found)


def test_passing_bablok_of_creatinine():
    """The paper's rules in whole numbers, and mcr's printed result.

    mcr prints slope 1.0880089 (1.0000000-1.173005), intercept -0.1171729 (-0.2001149 to -0.020000). In binary floating
    point 7 of the 20 slopes of -1 miss -1, stay in, and move its median by one place; counting them reproduces mcr.
    """
    text = CREATININE.split()
    x, y = np.array(text[::2], float), np.array(text[1::2], float)
    found = passing_bablok(x, y)
    whole = exact_slopes(*(np.rint(100 * v).astype(int).tolist() for v in (x, y)))
    slopes = [s for s in whole if s != -1]
    shift = sum(s < -1 for s in slopes)
    assert (len(whole) - len(slopes), found.slopes) == (20, len(slopes))
    assert found.slope == pytest.approx(float(slopes[len(slopes) // 2 + shift]), rel=1e-12)  # an odd number of them
    mcr = (1.0880089, 1.0, 1.173005, -0.1171729, -0.2001149, -0.02)
    ours = (found.slope, found.slope_low, found.slope_high, found.intercept, found.intercept_low, found.intercept_high)
    assert ours == pytest.approx(mcr, abs=1.5e-4)
    with np.errstate(divide="ignore", invalid="ignore"):
        i, j = np.triu_indices(x.size, 1)
        loose = np.where(x[j] == x[i], np.inf, (y[j] - y[i]) / (x[j] - x[i]))[(x[j] != x[i]) | (y[j] != y[i])]
    loose = np.sort(loose[loose != -1])
    at = loose.size // 2 + int(np.sum(loose < -1))
    as_mcr = math.tan(np.mean(np.arctan(loose[[at - 1, at]])))
    assert as_mcr == pytest.approx(1.0880089, abs=5e-8)
    assert np.median(y - as_mcr * x) == pytest.approx(-0.1171729, abs=5e-8)


def test_passing_bablok_of_twenty_pairs():
    """R's mcr (quoted by the Python package methcomp) prints slope 1.0050 and intercept 0.0125; no slope is -1 here."""
    y = [1.03, 2.05, 2.79, 3.67, 5.00, 5.82, 7.16, 7.69, 8.53, 10.38, 11.11, 12.17, 13.47, 13.83, 15.15, 16.12, 16.94, 18.09,
         19.13, 19.54]  # fmt: skip
    found = passing_bablok(range(1, 21), y)
    assert (found.slope, found.intercept) == pytest.approx((1.0050, 0.0125), abs=5e-5)
    # mcr averages neighbouring angles for its bounds: 0.9848077-1.0265805; the paper takes one slope each
    assert (found.slope_low, found.slope_high) == pytest.approx((0.9848077, 1.0265805), abs=1.5e-3)
