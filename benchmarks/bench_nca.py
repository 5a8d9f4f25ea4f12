"""Compare `nca_batch` with what people run today, from the same long table to the same seven parameters.

(a) the seven alone as closed forms on whole arrays, the least that numpy can do it with;
(b) pandas groupby-apply with numpy's trapezoid and the sums of every candidate terminal line written out;
(c) the same with scipy's linregress for the lines (minutes; `--linregress`);
(d) pkpdutils, the other vectorised package on PyPI, which needs Python 3.13 and so runs in its own interpreter:

    python benchmarks/bench_nca.py --pkpdutils /path/to/python3.13

Last it prints how the processor time of `nca_batch` grows with the number of profiles.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
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


def with_numpy(table: pd.DataFrame) -> np.ndarray:
    """The seven parameters as closed forms: sums from the last sample back give every candidate line at once."""
    wide = table.pivot(index="profile", columns="time_h", values="value")
    t, c = wide.columns.to_numpy(), wide.to_numpy()
    y, n = np.log(c), np.arange(t.size, 0, -1)
    sx, sxx = (np.cumsum(a[::-1])[::-1] for a in (t, t * t))
    sy, sxy, syy = (np.cumsum(a[:, ::-1], axis=1)[:, ::-1] for a in (y, t * y, y * y))
    vx, vxy, vy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
    with np.errstate(divide="ignore", invalid="ignore"):
        slope, r2 = vxy / vx, vxy * vxy / (vx * vy)
        score = 1 - (1 - r2) * (n - 1) / (n - 2)
    peak = c.argmax(axis=1)
    usable = (slope < 0) & (n >= 3) & (np.arange(t.size) >= peak[:, None])
    score = np.where(usable, score, -np.inf)
    row = np.arange(len(c))
    rate = -slope[row, np.argmax(score > score.max(axis=1, keepdims=True) - TIE, axis=1)]
    auclast = np.trapezoid(c, t, axis=1)
    aucinf = auclast + c[:, -1] / rate
    return np.column_stack([c[row, peak], t[peak], auclast, aucinf, rate, np.log(2) / rate, DOSE / aucinf])


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


def compare(profiles: int, repeats: int, python: str | None, linregress_too: bool) -> None:
    table = as_table(make_values(profiles))
    ours = with_evbiodist(table)
    np.testing.assert_allclose(ours, with_numpy(table), rtol=1e-9)
    ways: dict[str, Callable[[], object]] = {
        OURS: lambda: with_evbiodist(table),
        f"{OURS}, standard errors and intervals too": lambda: with_evbiodist(table, relative_se=0.1),
        "numpy closed forms of the seven parameters": lambda: with_numpy(table),
    }
    lines = {"numpy sums": by_sums} | ({"scipy linregress": by_linregress} if linregress_too else {})
    for name, line in lines.items():
        np.testing.assert_allclose(ours, with_pandas(table, line), rtol=1e-9)
        ways[f"pandas groupby-apply, trapezoid and {name}"] = lambda line=line: with_pandas(table, line)
    other = None
    if python:
        parameters, other = with_pkpdutils(python, table, repeats)
        np.testing.assert_allclose(ours, parameters, rtol=1e-9)
    seconds = medians(ways, repeats)
    if other is not None:
        seconds["pkpdutils (its own Python)"] = other
    show(f"{profiles} profiles x {TIMES.size} points, answers agree to 1e-9", seconds, OURS)


def show_growth(repeats: int) -> None:
    """Print the least processor time of the analysis alone, arrays in and arrays out, over three decades."""
    print("\ngrowth of nca_batch, processor time a profile (values; with standard errors and intervals)")
    for profiles in (100, 1_000, 10_000, 100_000):
        value = make_values(profiles)
        t = np.broadcast_to(TIMES, value.shape)
        least = []
        for se in (None, 0.1 * value):
            seconds = []
            for _ in range(repeats):
                begin = time.process_time()
                nca_batch(t, value, se=se, dose=DOSE)
                seconds.append(time.process_time() - begin)
            least.append(min(seconds) / profiles * 1e6)
        print(f"  {profiles:>7} profiles {least[0]:8.2f} us {least[1]:8.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pkpdutils", metavar="PYTHON", help="an interpreter that has pkpdutils (3.13 or later)")
    parser.add_argument("--linregress", action="store_true", help="also the loop over scipy's linregress (minutes)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for profiles in (1_000, 10_000):
        compare(profiles, options.repeats, options.pkpdutils, options.linregress)
    show_growth(options.repeats)


if __name__ == "__main__":
    main()
