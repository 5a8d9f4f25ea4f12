"""Bailer's area against the R package PK's numbers, and against the formula worked by hand."""

from __future__ import annotations

import math

import pytest

from evbiodist.kinetics.nca import nca
from evbiodist.kinetics.sparse import bailer, bailer_summary

# The sparse example of PKNCA's test suite (tests/testthat/test-sparse.R, Denney et al.), whose expected numbers
# were computed by R's PK::auc(design = "ssd"): Jaki T, Wolfsegger MJ (2011) Pharm Stat 10:284-288.
TIMES = [0, 1, 2, 4, 6, 10, 24]
GROUPS = [
    [0, 0, 0], [1.75, 2.2, 1.58], [3.03, 1.98, 2.22], [3.54, 2.84, 2.55], [4.63, 2.99, 1.52], [3.34, 1.3, 1.22],
    [0.3, 0.0421, 0.231],
]  # fmt: skip


def test_as_r_package_pk() -> None:
    area = bailer(TIMES, GROUPS)
    assert area.estimate.value == pytest.approx(39.4689, rel=1e-12)
    assert area.estimate.se == pytest.approx(6.86584835083522, rel=1e-12)
    assert area.df == pytest.approx(2.82631153092225, rel=1e-12)


def test_worked_by_hand() -> None:
    """Every number of this example can be checked with a pencil."""
    area = bailer([0, 2, 6, 10], [[0, 0], [4, 8], [10, 14, 18], [1, 2, 3, 6]])
    # w = (1, 3, 4, 2); means 0, 6, 14, 3; s^2 = 0, 8, 16, 14/3; n = 2, 2, 3, 4
    assert area.weights == (1, 3, 4, 2)
    assert area.estimate.value == pytest.approx(18 + 56 + 6, rel=1e-15)
    parts = (0, 9 * 8 / 2, 16 * 16 / 3, 4 * (14 / 3) / 4)  # w^2 s^2 / n = 0, 36, 85.33, 4.67
    assert area.estimate.se == pytest.approx(math.sqrt(126), rel=1e-15)
    assert area.df == pytest.approx(126**2 / (36**2 / 1 + parts[2] ** 2 / 2 + parts[3] ** 2 / 3), rel=1e-14)
    assert area.estimate.n == 11


def test_t_interval_by_table() -> None:
    """Two equal parts of 3 animals each: 4 degrees of freedom, whose t quantile every table has (2.776445)."""
    area = bailer_summary([0, 2], [10, 10], [3, 3], 3)
    assert area.df == pytest.approx(4, rel=1e-14)
    assert area.estimate.ci_high - 20 == pytest.approx(2.7764451051977987 * math.sqrt(6), rel=1e-12)
    normal = bailer_summary([0, 2], [10, 10], [3, 3], 3, interval="z").estimate
    assert normal.ci_high - 20 == pytest.approx(1.959963984540054 * math.sqrt(6), rel=1e-12)


def test_propagated_error_is_bailers() -> None:
    """`nca` on means and standard errors gives the same area, error and degrees of freedom."""
    means = [sum(g) / 3 for g in GROUPS]
    se = [math.sqrt(sum((x - m) ** 2 for x in g) / 2 / 3) for g, m in zip(GROUPS, means, strict=True)]
    result = nca(TIMES, means, se=se, n=3, route="ip", method="linear")
    assert result["auclast"].value == pytest.approx(39.4689, rel=1e-12)
    assert result["auclast"].se == pytest.approx(6.86584835083522, rel=1e-12)
    assert result.df["auclast"] == pytest.approx(2.82631153092225, rel=1e-12)
