"""Compare `nca_batch` with what people run today, from the same long table to the same seven parameters.

(a) pandas groupby-apply with numpy's trapezoid and scipy's linregress over every candidate terminal line;
(b) the same by someone in a hurry, with the sums of each line written out in numpy instead of linregress;
(c) pkpdutils, the other vectorised package on PyPI, which needs Python 3.13 and so runs in its own interpreter:

    python benchmarks/bench_nca.py --pkpdutils /path/to/python3.13
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import linregress
from side_by_side import medians, show

from evbiodist import nca_batch

TIMES = np.array([0.0, 0.25, 0.5, 1, 2, 4, 8, 12, 24, 36, 48, 72])
DOSE = 100.0
NAMES = ("cmax", "tmax", "auclast", "aucinf_obs", "lambda_z", "half_life", "cl")
TIE = 1e-4  # adjusted r2 this close to the best is as good, and the line with more points wins
OURS = "evbiodist.nca_batch"
Line = Callable[[np.ndarray, np.ndarray], tuple[float, float]]  # slope and r2


def make_values(profiles: int) -> np.ndarray:
    """Return noisy two-exponential profiles after a bolus, shape (profiles, 12)."""
    rng = np.random.default_rng(1)
    fast, slow = rng.uniform(0.6, 2.0, (2, profiles, 1)) * np.array([1.0, 0.05])[:, None, None]
    curve = 20 * np.exp(-fast * TIMES) + 5 * np.exp(-slow * TIMES)
    return curve * np.exp(rng.normal(0, 0.03, curve.shape))


def as_table(values: np.ndarray) -> pd.DataFrame:
    profile = np.repeat(np.arange(len(values)), TIMES.size)
    return pd.DataFrame({"profile": profile, "time_h": np.tile(TIMES, len(values)), "value": values.ravel()})


def with_evbiodist(table: pd.DataFrame, relative_se: float | None = None) -> np.ndarray:
    wide = table.pivot(index="profile", columns="time_h", values="value")
    value = wide.to_numpy()
    se = None if relative_se is None else relative_se * value
    found = nca_batch(wide.columns.to_numpy()[None].repeat(len(wide), 0), value, se=se, dose=DOSE, method="linear")
    return np.column_stack([found.values[name] for name in NAMES])


def with_pandas(table: pd.DataFrame, line: Line) -> np.ndarray:
    return table.groupby("profile")[["time_h", "value"]].apply(_one_profile, line).to_numpy()


def by_linregress(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    found = linregress(x, y)
    return found.slope, found.rvalue**2


def by_sums(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    dx, dy = x - x.mean(), y - y.mean()
    sxx, sxy = dx @ dx, dx @ dy
    return sxy / sxx, sxy**2 / (sxx * (dy @ dy))


def _one_profile(rows: pd.DataFrame, line: Line) -> pd.Series:
    t, c = rows["time_h"].to_numpy(), rows["value"].to_numpy()
    peak = int(np.argmax(c))
    lines = [(line(t[k:], np.log(c[k:])), len(t) - k) for k in range(peak, len(t) - 2)]
    falling = [(slope, _adjusted(r2, n)) for (slope, r2), n in lines if slope < 0]
    best = max(score for _, score in falling)
    rate = -next(slope for slope, score in falling if score > best - TIE)
    auclast = np.trapezoid(c, t)
    aucinf = auclast + c[-1] / rate
    return pd.Series([c[peak], t[peak], auclast, aucinf, rate, np.log(2) / rate, DOSE / aucinf], index=NAMES)


def _adjusted(r2: float, n: int) -> float:
    return 1 - (1 - r2) * (n - 1) / (n - 2)


def with_pkpdutils(python: str, table: pd.DataFrame, repeats: int) -> tuple[np.ndarray, float]:
    """Run pkpdutils in its own interpreter; return its parameters and its median seconds."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
        np.savez(given, dose=DOSE, repeats=repeats, **{name: table[name].to_numpy() for name in table})
        subprocess.run([python, Path(__file__).with_name("pkpdutils_side.py"), given, found], check=True)
        with np.load(found) as answer:
            return answer["parameters"], float(answer["seconds"])


def compare(profiles: int, repeats: int, python: str | None) -> None:
    table = as_table(make_values(profiles))
    ours = with_evbiodist(table)
    for line in (by_linregress, by_sums):
        np.testing.assert_allclose(ours, with_pandas(table, line), rtol=1e-9)
    other = None
    if python:
        parameters, other = with_pkpdutils(python, table, repeats)
        np.testing.assert_allclose(ours, parameters, rtol=1e-9)
    seconds = medians(
        {
            OURS: lambda: with_evbiodist(table),
            f"{OURS}, standard errors and intervals too": lambda: with_evbiodist(table, relative_se=0.1),
            "pandas groupby-apply, trapezoid and linregress": lambda: with_pandas(table, by_linregress),
            "pandas groupby-apply, trapezoid and numpy sums": lambda: with_pandas(table, by_sums),
        },
        repeats,
    )
    if other is not None:
        seconds["pkpdutils (its own Python)"] = other
    show(f"{profiles} profiles x {TIMES.size} points, answers agree to 1e-9", seconds, OURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pkpdutils", metavar="PYTHON", help="an interpreter that has pkpdutils (3.13 or later)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for profiles in (1_000, 10_000):
        compare(profiles, options.repeats, options.pkpdutils)


if __name__ == "__main__":
    main()
