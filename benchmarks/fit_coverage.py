"""How often 95 % intervals of a fit hold the truth, and how often the fit is the best there is.

Serial sacrifice: n animals at each of eight times, each seen once. An animal's matrices spread log-normally by 25 % each and
share a factor of 8 %. Every study is fitted from automatic starts; covariance intervals come from all studies, profiles and
bootstraps from the first ones. The best known optimum is the lowest sum of squares among ours, one from the truth, and ones
from 20 random starts within a factor of 20 of it, all with the fit's own weights.

    OPENBLAS_NUM_THREADS=1 python benchmarks/fit_coverage.py --studies 1000 --profiles 300 --bootstraps 100
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

from evbiodist.kinetics.fitting.bootstrap import bootstrap_fit
from evbiodist.kinetics.fitting.compare_models import compare
from evbiodist.kinetics.fitting.data import FitData, curve_data
from evbiodist.kinetics.fitting.fit import FitResult, fit_all
from evbiodist.kinetics.fitting.levenberg import least_squares
from evbiodist.kinetics.fitting.optimum import Optimum, box
from evbiodist.kinetics.fitting.profile import profile, profile_all, stacked
from evbiodist.kinetics.fitting.quantities import quantity
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.solve import bolus

TIMES = np.array([0.083, 0.25, 0.5, 1, 2, 4, 8, 24])
CV, ANIMAL, DOSE = 0.25, 0.08, 100.0
MODELS = {
    "one_compartment_iv": ((), [2.0, 12.0], ("cl", "v", "half_life")),
    "two_compartment_iv": ((), [1.0, 2.0, 1.5, 5.0], ("cl", "v1", "q", "v2", "half_life", "auc_inf")),
    "plasma_with_organs": (
        ("brain", "kidney", "liver", "spleen"),
        [2.0, 0.25, 0.01, 0.1, 0.6, 0.2, 0.3, 0.3, 0.05, 0.04],
        ("v", "k_el", "k_in_brain", "k_out_brain", "k_in_liver", "k_out_liver", "half_life", "brain_uptake_pct_id",
         "liver_peak_pct_id"),
    ),
}  # fmt: skip


def studies(graph: RateGraph, truth: np.ndarray, n: int, count: int, seed: int) -> list[FitData]:
    """Return simulated studies, every matrix's spread between animals pooled over times as `prepare` does."""
    rng = np.random.default_rng(seed)
    y = graph.predict(truth, TIMES, DOSE)[0]  # (T, m)
    width = math.sqrt(math.log1p(CV**2))
    own = np.exp(width * rng.standard_normal((count, *y.shape, n)) - width**2 / 2)
    whole = np.exp(ANIMAL * rng.standard_normal((count, len(TIMES), 1, n)) - ANIMAL**2 / 2)
    return [_data(graph, v) for v in y[None, :, :, None] * own * whole]


def _data(graph: RateGraph, v: np.ndarray) -> FitData:
    T, m, n = v.shape
    mean, spread = v.mean(axis=2), v.var(axis=2, ddof=1)
    cv = np.sqrt(spread.sum(axis=0) / (mean**2).sum(axis=0))
    which, when, who = (a.ravel() for a in np.meshgrid(np.arange(m), np.arange(T), np.arange(n), indexing="ij"))
    zero = np.zeros(which.size)
    return FitData(graph.seen, which, when * n + who, TIMES[when], v[when, which, who], zero, zero, zero + 1, cv, True,
                   mean[when, which], ("pct_id_per_g",) + ("pct_id",) * (m - 1), zero > 0)  # fmt: skip


def best_known(fits: list[FitResult], truth: np.ndarray, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return our sum of squares, and the lowest known one with the same weights, of every fit."""
    at, extra = fits[0].graph.to_search(truth), 20
    ours = [Optimum.of(f) for f in fits]
    boxes = [box(f) for f in fits]
    low, high = (np.repeat([b[i] for b in boxes], extra + 1, axis=0) for i in (0, 1))
    away = rng.uniform(-math.log(20), math.log(20), (len(fits), extra + 1, len(at)))
    away[:, 0] = 0
    starts = (at + away).reshape(-1, len(at))
    many = stacked(fits).take(np.repeat(np.arange(len(fits)), extra + 1))
    with np.errstate(all="ignore"):
        ended = least_squares(many, np.clip(starts, low, high), low, high, max_iterations=200)
    best = np.where(np.isfinite(ended.cost), ended.cost, np.inf).reshape(len(fits), -1).min(axis=1)
    own = [float(o.residual @ o.residual) for o in ours]
    return [(a, min(a, float(b))) for a, b in zip(own, best, strict=True)]


class Tally:
    """Counts of intervals that hold the truth, miss it on either side, or are open."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}

    def add(self, method: str, name: str, true: float, value: float, low: float, high: float) -> None:
        self.rows.setdefault((name, method), []).append((true, value, low, high))

    def lines(self, model: str, n: int) -> list[str]:
        out = []
        for (name, method), rows in self.rows.items():
            true, value, low, high = np.array(rows).T
            told = np.isfinite(value) & ~np.isnan(low) & ~np.isnan(high)
            inside = (low <= true) & (true <= high)
            share = inside[told].mean()
            error = 1.96 * math.sqrt(max(share * (1 - share), 1e-9) / told.sum())
            bias = 100 * (value[told] / true[told] - 1)
            mark = "" if share + error >= 0.93 and share - error <= 0.97 else " *"
            none = f"{100 * np.mean(~told):.1f}" + (
                f" / {100 * np.mean(np.isinf(high) | (low == 0)):.1f}" if method == "profile" else ""
            )
            width = 1.96 * bias.std() / math.sqrt(told.sum())
            sides = " / ".join(f"{100 * np.mean(a):.1f}" for a in (low[told] > true[told], high[told] < true[told]))
            cells = [model, n, name, method, told.sum(), f"{bias.mean():+.1f} ± {width:.1f}", f"{np.median(bias):+.1f}",
                     f"{100 * share:.1f} ± {100 * error:.1f}{mark}", sides, none]  # fmt: skip
            out.append(f"| {' | '.join(str(c) for c in cells)} |")
        return out


def _say(*words: object) -> None:
    print(f"{time.process_time():8.0f} CPU s", *words, file=sys.stderr, flush=True)


HEAD = """| model | n | quantity | interval | studies | bias % | median % | coverage % | truth below / above % | none / open % |
|---|---:|---|---|---:|---:|---:|---:|---:|---:|"""


def run(name: str, n: int, given: argparse.Namespace) -> tuple[list[str], str]:
    """Return the table's lines of one model and number of animals, and a line about optima."""
    organs, truth, wanted = MODELS[name]
    graph, theta = build(name, organs), np.array(truth)
    dose = Doses(DOSE)
    data = studies(graph, theta, n, given.studies, given.seed + 1000 * n + len(theta))
    begun = time.perf_counter()
    found = fit_all(graph, data, [{graph.ports[0].name: dose}] * len(data))
    spent = time.perf_counter() - begun
    fits = [f for f in found if isinstance(f, FitResult)]
    true = {q: float(quantity(graph, q, bolus(graph, TIMES, DOSE), TIMES[-1])(theta[None])[0][0]) for q in wanted}
    tally, rng = Tally(), np.random.default_rng(7)
    for f in fits:
        for q in wanted:
            e = f[q]
            tally.add("covariance", q, true[q], e.value, e.ci_low, e.ci_high)
    _say(name, n, "fits and covariance")
    for i in range(0, min(given.profiles, len(fits)), 50):
        for p in profile_all(fits[i : i + 50], wanted):
            for q in wanted:
                tally.add("profile", q, true[q], p[q].value, p[q].low, p[q].high)
    _say(name, n, "profiles")
    for k, f in enumerate(fits[: given.bootstraps]):
        for kind in ("case", "parametric"):
            b = bootstrap_fit(f, wanted, kind=kind, draws=given.draws, seed=k)
            for q in wanted:
                for method in ("percentile", "bca") if kind == "case" else ("percentile",):
                    tally.add(
                        f"{kind} bootstrap, {method}", q, true[q], b.value[b.names.index(q)], *b.interval(q, method)
                    )
    _say(name, n, "bootstraps")
    chosen = fits[: given.optima]
    pairs = [pair for i in range(0, len(chosen), 50) for pair in best_known(chosen[i : i + 50], theta, rng)]
    hits = sum(ours <= best * (1 + 1e-6) for ours, best in pairs)
    line = (f"| {name} | {n} | {len(found) - len(fits)} | {len(pairs)} | {hits} ({100 * hits / max(len(pairs), 1):.2f} %) | "
            f"{1000 * spent / len(data):.2f} |")  # fmt: skip
    return sorted(tally.lines(name, n), key=lambda x: wanted.index(x.split(" | ")[2])), line


def choice(given: argparse.Namespace) -> list[str]:
    """Return how often the better of one and two compartments is named, by two rules."""
    lines = [
        "| truth | peripheral volume | animals a time | rule | right % | wrong % | not distinguishable % |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    one, two = build("one_compartment_iv"), build("two_compartment_iv")
    for v2, n in ((0.0, 3), (0.5, 3), (1.0, 3), (5.0, 3), (0.0, 5), (0.5, 5)):
        graph, theta = (two, np.array([1.0, 2.0, 1.5, v2])) if v2 else (one, np.array([1.0, 4.0]))
        right = "two" if v2 else "one"
        data = studies(graph, theta, n, given.choices, 77 + n)
        made = [fit_all(g, data, [{"dose": Doses(DOSE)}] * len(data)) for g in (one, two)]
        tables = [
            compare({"one": a, "two": b})
            for a, b in zip(*made, strict=True)
            if isinstance(a, FitResult) and isinstance(b, FitResult)
        ]
        named = np.array([c.table[0].name == right for c in tables])
        delta, weight = np.array([c.table[1].delta for c in tables]), np.array([c.table[0].weight for c in tables])
        rules = {"lowest AICc": named | True, "delta AICc of 2": delta >= 2, "weight of 0.9": weight >= 0.9}
        for rule, told in rules.items():
            lines.append(f"| {right} compartment{'s' if v2 else ''} | {v2:g} | {n} | {rule} | {100 * np.mean(named & told):.1f} | "
                         f"{100 * np.mean(~named & told):.1f} | {100 * np.mean(~told):.1f} |")  # fmt: skip
    return lines


def speed(repeats: int) -> list[str]:
    """Return the time of all parameters' profiles by lmfit and by ours, medians of one run."""
    from evbiodist.kinetics.fitting.fit import fit

    graph, rng = build("two_compartment_iv"), np.random.default_rng(5)
    t = np.array([0.083, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 20, 24])
    ours, everything, theirs, apart = [], [], [], []
    for _ in range(repeats):
        y = graph.predict(np.array([1.0, 2.0, 1.5, 5.0]), t, DOSE)[0][:, 0] * np.exp(0.1 * rng.standard_normal(t.size))
        f = fit(curve_data(t, y), graph, dose=DOSE)
        for into, do in (
            (ours, lambda f=f: profile(f, graph.names)),
            (everything, lambda f=f: profile(f)),
            (theirs, f.ci),
        ):
            begun = time.perf_counter()
            got = do()
            into.append(time.perf_counter() - begun)
            if into is ours:
                mine = got
        apart += [abs(a / b - 1) for k in graph.names for a, b in zip((mine[k].low, mine[k].high), got[k], strict=True)]
    ratio = np.median(np.array(theirs) / np.array(ours))
    a, b, c = (1e3 * np.median(x) for x in (theirs, ours, everything))
    return [f"Four parameters of two compartments, 12 points, {repeats} curves, median: lmfit.conf_interval {a:.0f} ms, "
            f"profile {b:.0f} ms (median ratio {ratio:.0f}), with five derived quantities {c:.0f} ms; ends differ by at "
            f"most {max(apart):.1g} (relative)."]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for word, number in (("studies", 1000), ("profiles", 300), ("bootstraps", 100), ("draws", 400), ("optima", 1000),
                         ("choices", 1000), ("repeats", 7), ("seed", 0)):  # fmt: skip
        parser.add_argument(f"--{word}", type=int, default=number)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--animals", nargs="*", type=int, default=[3, 4, 5])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    table, optima = (
        [HEAD],
        [
            "| model | animals a time | no fit | compared | best known optimum found | ms a fit |",
            "|---|---:|---:|---:|---:|---:|",
        ],
    )
    parts: list[str] = []
    for name in given.models:
        for n in given.animals:
            lines, line = run(name, n, given)
            table += lines
            optima.append(line)
            print("\n".join([*lines, line]), flush=True)
            parts = ["\n".join(table), "\n".join(optima)]
            if given.out:
                given.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    for more in (choice(given) if given.choices else [], speed(given.repeats) if given.repeats else []):
        parts.append("\n".join(more))
        print(parts[-1], flush=True)
    if given.out:
        given.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
