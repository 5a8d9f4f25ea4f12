"""How often intervals of sparse designs hold the truth: many simulated studies a design, each analysed as one is.

    OPENBLAS_NUM_THREADS=1 python benchmarks/sparse_coverage.py --studies 1000 --draws 1000 --page docs/sparse.md

Animals are log-normal about a mean curve, with a part of their spread that stays with the animal (dose, size) and a part
of each sample. The truth is the area under the true means by the same trapezoids, and the ratio of two such areas.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from evbiodist.kinetics.designs.batch_design import AnimalMeans
from evbiodist.kinetics.designs.mean_curve import trapezoid_weights
from evbiodist.kinetics.designs.ratio import kp
from evbiodist.kinetics.designs.resample import Statistic, area_of_means, bootstrap, ratio_of_means
from evbiodist.study.estimate import Estimate

Floats = NDArray[np.float64]

HOURS = np.array([0.083, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0])
BLOOD = 30 * np.exp(-2.0 * HOURS) + 6 * np.exp(-0.12 * HOURS)
LIVER = 25 * (np.exp(-0.05 * HOURS) - np.exp(-1.5 * HOURS)) + 2
ANIMAL_SHARE = 0.5  # of the variance of the logarithm that stays with the animal
TISSUE_BLOOD = 0.7  # correlation of tissue and blood of one animal
MARKER = "<!-- made by benchmarks/sparse_coverage.py -->"
KINDS = ("percentile", "basic", "bca", "t")


@dataclass(frozen=True)
class Design:
    """A design: which times each batch of animals is sampled at, and how many animals a batch has for n."""

    name: str
    batches: tuple[tuple[int, ...], ...]

    def animals(self, n: int) -> NDArray[np.bool_]:
        """Return who is sampled when, (N, T), with n animals a batch."""
        mask = np.zeros((len(self.batches), HOURS.size), bool)
        for b, times in enumerate(self.batches):
            mask[b, list(times)] = True
        return np.repeat(mask, n, axis=0)


DESIGNS = (
    Design("serial sacrifice, 8 times", tuple((j,) for j in range(8))),
    Design("batches, each at its own times", ((0, 3, 6), (1, 4, 7), (2, 5))),
    Design("batches that share times", ((0, 2, 4, 7), (1, 2, 5, 7), (0, 3, 4, 6))),
    Design("complete, every animal every time", (tuple(range(8)),)),
)


def studies(mask: NDArray[np.bool_], cv: float, count: int, rng: np.random.Generator) -> Floats:
    """Return blood and tissue of `count` studies, (count, N, 2, T), NaN where not sampled."""
    sigma = math.sqrt(math.log(1 + cv**2))
    shape = (count, len(mask), 2, HOURS.size)
    rho = math.sqrt(TISSUE_BLOOD)

    def paired(*where: int) -> Floats:
        common, own = rng.normal(size=(count, len(mask), 1, *where)), rng.normal(size=(count, len(mask), 2, *where))
        return rho * common + math.sqrt(1 - rho**2) * own

    z = math.sqrt(ANIMAL_SHARE) * paired(1) + math.sqrt(1 - ANIMAL_SHARE) * paired(HOURS.size)
    values = np.stack([BLOOD, LIVER]) * np.exp(sigma * z - sigma**2 / 2)
    return np.where(np.broadcast_to(mask[:, None, :], shape), values, np.nan)


@dataclass
class Tally:
    """Coverage and width of one kind of interval."""

    low: list[float]
    high: list[float]

    def words(self, truth: float) -> str:
        """Return 'coverage (median width in % of the truth)'; bold where 93-97 % is missed."""
        low, high = np.array(self.low), np.array(self.high)
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        held = 100 * float(np.mean((low <= truth) & (truth <= high)))
        width = 100 * float(np.median(high - low)) / truth
        words = f"{width:.0f}" if math.isfinite(width) else "open"
        shown = f"{held:.1f}" if 93 <= held <= 97 else f"**{held:.1f}**"
        return f"{shown} ({words})"


def area_row(values: Floats, draws: int) -> dict[str, str]:
    """Return the coverage of the intervals of blood's area."""
    y = values[:, :, 0, :]
    w = trapezoid_weights(HOURS, BLOOD)
    truth = float(w @ BLOOD)
    means = AnimalMeans.of(y)
    area, se, df = means.mean @ w, np.sqrt(means.covariance(w, w)), means.freedom(w)
    t, z = stdtrit(df, 0.975), float(ndtri(0.975))
    row = {
        "z": Tally(list(area - z * se), list(area + z * se)),
        "t": Tally(list(area - t * se), list(area + t * se)),
        "t of the logarithm": Tally(list(area * np.exp(-t * se / area)), list(area * np.exp(t * se / area))),
    }

    row |= resampled(y, area_of_means(w), draws)
    return {k: v.words(truth) for k, v in row.items()}


def ratio_row(values: Floats, draws: int) -> dict[str, str]:
    """Return the coverage of the intervals of the liver-to-blood ratio, tissue and blood of the same animals."""
    w = trapezoid_weights(HOURS, BLOOD)
    truth = float(w @ LIVER) / float(w @ BLOOD)
    size = HOURS.size
    y = np.concatenate([values[:, :, 1, :], values[:, :, 0, :]], axis=2)
    left, right = np.r_[w, np.zeros(size)], np.r_[np.zeros(size), w]
    means = AnimalMeans.of(y)
    a, b = means.mean @ left, means.mean @ right
    va, vb, cov = (means.covariance(*p) for p in ((left, left), (right, right), (left, right)))
    df = means.freedom(left - (a / b)[:, None] * right)
    dft, dfb = means.freedom(left), means.freedom(right)
    row = {"Fieller, no covariance": Tally([], []), "Fieller, covariance": Tally([], [])}
    for i in range(len(y)):
        parts = Estimate("auc", a[i], math.sqrt(va[i])), Estimate("auc", b[i], math.sqrt(vb[i]))
        limit = parts[0].se * parts[1].se
        alone = kp(*parts, df_tissue=dft[i], df_blood=dfb[i])
        both = kp(*parts, covariance=float(np.clip(cov[i], -limit, limit)), df=df[i])
        for kind, found in (("Fieller, no covariance", alone), ("Fieller, covariance", both)):
            row[kind].low.append(found.ci_low)
            row[kind].high.append(found.ci_high)

    row |= resampled(y, ratio_of_means(left, right), draws)
    return {k: v.words(truth) for k, v in row.items()}


def resampled(y: Floats, quantity: tuple[Statistic, Statistic], draws: int) -> dict[str, Tally]:
    """Return the bootstrap intervals of every study."""
    row = {f"bootstrap {kind}": Tally([], []) for kind in KINDS} | {"percentile, no small-n": Tally([], [])}
    for seed, study in enumerate(y):
        found = bootstrap(study, quantity[0], error=quantity[1], seed=seed, draws=draws)
        for kind in KINDS:
            low, high = found.interval(kind)
            row[f"bootstrap {kind}"].low.append(low)
            row[f"bootstrap {kind}"].high.append(high)
        low, high = np.quantile(found.value + (found.draws - found.value) / found.stretch, [0.025, 0.975])
        row["percentile, no small-n"].low.append(float(low))
        row["percentile, no small-n"].high.append(float(high))
    return row


def table(rows: list[tuple[str, int, int, dict[str, str]]]) -> str:
    """Return rows as a Markdown table."""
    names = list(rows[0][3])
    lines = ["| design | n | CV % | " + " | ".join(names) + " |", "|---|---:|---:|" + "---:|" * len(names)]
    lines += [f"| {d} | {n} | {cv} | " + " | ".join(row[k] for k in names) + " |" for d, n, cv, row in rows]
    return "\n".join(lines)


def main() -> None:
    """Run all designs and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20240)
    parser.add_argument("--page", type=Path, help="put the tables into this page, between its two markers")
    given = parser.parse_args()
    started = time.perf_counter()
    areas, ratios = [], []
    rng = np.random.default_rng(given.seed)
    for design in DESIGNS:
        for n, cv in ((3, 30), (3, 50), (4, 40), (5, 30), (5, 50)):
            values = studies(design.animals(n), cv / 100, given.studies, rng)
            areas.append((design.name, n, cv, area_row(values, given.draws)))
            ratios.append((design.name, n, cv, ratio_row(values, given.draws)))
            print(f"{design.name}, n {n}, CV {cv} %: {time.perf_counter() - started:.0f} s", flush=True)
    text = f"{given.studies} studies a row, {given.draws} draws a bootstrap, seed {given.seed}.\n\n"
    text += f"Area of blood:\n\n{table(areas)}\n\nLiver-to-blood ratio, same animals:\n\n{table(ratios)}\n"
    print(text)
    if given.page:
        before, _, after = given.page.read_text(encoding="utf-8").split(MARKER)
        given.page.write_text(f"{before}{MARKER}\n{text}\n{MARKER}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
