"""The 27 nonlinear regression problems of NIST's Statistical Reference Datasets, from both starting points.

Certified to 11 digits from 128-bit arithmetic: https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml (public domain);
the files in nist/ are NIST's own text.  benchmarks/bench_levenberg.py prints the digits of agreement.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evbiodist.kinetics.fitting.levenberg import Solution, covariance, least_squares

FOLDER = Path(__file__).parent / "nist"


def gaussians(b, x):
    return (
        b[0] * np.exp(-b[1] * x)
        + b[2] * np.exp(-(((x - b[3]) / b[4]) ** 2))
        + b[5] * np.exp(-(((x - b[6]) / b[7]) ** 2))
    )


def cubics(b, x):
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def three_exponentials(b, x):
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def el_nino(b, x):
    w = 2 * np.pi * x
    return (
        b[0]
        + b[1] * np.cos(w / 12)
        + b[2] * np.sin(w / 12)
        + b[4] * np.cos(w / b[3])
        + b[5] * np.sin(w / b[3])
        + b[7] * np.cos(w / b[6])
        + b[8] * np.sin(w / b[6])
    )


MODELS: dict[str, Callable] = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Chwirut1": lambda b, x: np.exp(-b[0] * x) / (b[1] + b[2] * x),
    "Chwirut2": lambda b, x: np.exp(-b[0] * x) / (b[1] + b[2] * x),
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": el_nino,
    "Eckerle4": lambda b, x: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": gaussians,
    "Gauss2": gaussians,
    "Gauss3": gaussians,
    "Hahn1": cubics,
    "Kirby2": lambda b, x: (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4])),
    "Lanczos1": three_exponentials,
    "Lanczos2": three_exponentials,
    "Lanczos3": three_exponentials,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * np.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
    "Misra1a": lambda b, x: b[0] * (1 - np.exp(-b[1] * x)),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2.0),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * np.exp(-b[2] * x[1]),
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": cubics,
}


@dataclass(frozen=True)
class Problem:
    """One file: starts (2, p), certified values and standard deviations (p,), cost, residual SD, data."""

    name: str
    starts: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    cost: float
    residual_sd: float
    y: np.ndarray
    x: np.ndarray

    def __call__(self, b: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals, and their derivatives by the complex step (exact to rounding)."""
        model, h = MODELS[self.name], 1e-30
        residual = model(b.T[:, :, None], self.x) - self.y
        nudged = b.T[:, :, None, None] + 1j * h * np.eye(b.shape[1])[:, None, :, None]
        return residual, model(nudged, self.x).imag / h


@cache
def read(name: str) -> Problem:
    text = (FOLDER / f"{name}.dat").read_text(encoding="ascii")
    table = np.array(
        [[float(v) for v in line.split("=")[1].split()] for line in re.findall(r"^ *b\d+ *=.*$", text, re.MULTILINE)]
    )
    cost, sd = (
        float(re.search(rf"Residual {what}: *(\S+)", text)[1]) for what in ("Sum of Squares", "Standard Deviation")
    )
    data = np.array([[float(v) for v in line.split()] for line in text.splitlines()[60:] if line.strip()])
    y, x = data[:, 0], data[:, 1:].T
    return Problem(
        name,
        table[:, :2].T.copy(),
        table[:, 2],
        table[:, 3],
        cost,
        sd,
        np.log(y) if name == "Nelson" else y,
        x[0] if len(x) == 1 else x,
    )


def digits(found: np.ndarray, certified: np.ndarray) -> float:
    """Least log relative error over parameters: how many digits agree, 11 at most (that many are certified)."""
    with np.errstate(divide="ignore"):
        lre = -np.log10(np.abs(found - certified) / np.abs(certified))
    return float(np.clip(np.nan_to_num(lre.min(), nan=0.0, posinf=11.0), 0.0, 11.0))


@cache
def solve(name: str) -> Solution:
    """Both starts as one batch."""
    problem = read(name)
    return least_squares(problem, problem.starts, max_iterations=700)


def agreement(problem: Problem, x: np.ndarray, C: np.ndarray, cost: float) -> tuple[float, float, float]:
    """Digits of the values, of their standard deviations and of the residual standard deviation."""
    sd = np.sqrt(cost / (len(problem.y) - len(problem.values)))
    return (
        digits(x, problem.values),
        digits(np.sqrt(np.diag(C)), problem.errors),
        digits(np.array([sd]), np.array([problem.residual_sd])),
    )


# Missed from NIST's far start; `test_what_is_missed_from_the_first_start` says how that shows.
MISSED = {("BoxBOD", 0), ("MGH10", 0)}
# Its residuals are 1e-13 of the data: double precision holds three digits of them.
ROUNDED = "Lanczos1"


@pytest.mark.parametrize(
    ("name", "start"), [(name, start) for name in sorted(MODELS) for start in (0, 1) if (name, start) not in MISSED]
)
def test_certified_values_and_errors(name, start):
    s = solve(name)
    values, errors, sd = agreement(read(name), s.x[start], covariance(s)[start], s.cost[start])
    assert s.converged[start]
    assert values > 8.5
    assert min(errors, sd) > (2.5 if name == ROUNDED else 8.5)


def test_what_is_missed_from_the_first_start():
    """BoxBOD ends on a plateau, where the rate has no error worth the name; MGH10 does not end, and says so."""
    box, mgh = solve("BoxBOD"), solve("MGH10")
    assert box.cost[0] > 2 * read("BoxBOD").cost
    assert np.sqrt(covariance(box)[0, 1, 1]) > 1e6 * box.x[0, 1]
    assert not mgh.converged[0]
    assert "not converged after 700 iterations" in mgh.reason[0]


def test_every_file_is_used_and_whole():
    assert {f.stem for f in FOLDER.glob("*.dat")} == set(MODELS)
    for name in set(MODELS) - {ROUNDED}:  # eleven digits of its parameters are too few for its residuals
        problem = read(name)
        at = problem(problem.values[None], np.array([0]))[0]
        np.testing.assert_allclose((at**2).sum(), problem.cost, rtol=1e-8)
