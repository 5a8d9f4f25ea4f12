"""How often population intervals hold the truth: simulated studies, rich and sparse, fitted as a user would.

    python benchmarks/mixed_coverage.py --studies 200 --out table.md

Every study draws its own animals (log-normal about the same typical values), errors and times' errors. `rich`: six animals
with ten blood samples each. `serial n`: n animals at each of six times, one blood, one liver and one kidney value of each.
`serial blood n`: the same with blood alone, where naive pooling is all there is. Starting values are found, not given.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd

from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import RateGraph
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.population.mixed import mixed_effects, naive_pooled
from evbiodist.kinetics.population.population import AnimalModel, PopulationData
from evbiodist.kinetics.population.two_stage import two_stage

ERROR = 0.15  # proportional, of every matrix
RICH = {"cl": 2.0, "v": 10.0}
ORGANS = {"v": 2.0, "k_el": 0.8, "k_in_kidney": 0.1, "k_out_kidney": 0.5, "k_in_liver": 0.6, "k_out_liver": 0.1}
SPREAD = {"cl": 0.3, "v": 0.2, "k_el": 0.3}


def simulate(
    graph: RateGraph, typical: dict[str, float], per_animal: list[np.ndarray], rng: np.random.Generator
) -> PopulationData:
    """Return one study; `per_animal` are the times of every animal, all matrices seen at each."""
    seen = len(graph.seen)
    animal = np.concatenate([np.full(len(t) * seen, i) for i, t in enumerate(per_animal)])
    which = np.concatenate([np.tile(np.arange(seen), len(t)) for t in per_animal])
    when = np.concatenate([np.repeat(t, seen) for t in per_animal])
    names = [f"m{i:02d}" for i in range(len(per_animal))]
    data = PopulationData(names, graph.seen, animal, which, when, np.ones(len(when)), {"dose": Doses(100.0)})
    model = AnimalModel.of(graph, data)
    sd = np.array([SPREAD.get(n, 0.0) for n in model.names])
    u = model.coordinates(typical) + sd * rng.standard_normal((len(names), len(sd)))
    f = model.predict(u, np.arange(len(names)), slopes=False)[0][data.rows.real]
    value = f * (1 + ERROR * rng.standard_normal(len(f)))
    return PopulationData(names, graph.seen, animal, which, when, value, {"dose": Doses(100.0)})


def designs(rng: np.random.Generator) -> dict[str, PopulationData]:
    """Return one simulated study of every design."""
    blood, organs = build("one_compartment_iv"), build("plasma_with_organs", ["kidney", "liver"])
    times = np.array([0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    found = {"rich": simulate(blood, RICH, [np.geomspace(0.2, 12, 10)] * 6, rng)}
    for n in (3, 5):
        found[f"serial {n}"] = simulate(organs, ORGANS, [np.array([t]) for t in np.repeat(times, n)], rng)
        found[f"serial blood {n}"] = simulate(blood, RICH, [np.array([t]) for t in np.repeat(times, n)], rng)
    return found


def fits(design: str, data: PopulationData) -> list[tuple[str, object, bool, float]]:
    """Return (method, estimates, converged, CPU seconds) of every method that suits a design."""
    graph = build("plasma_with_organs", ["kidney", "liver"]) if len(data.seen) > 1 else build("one_compartment_iv")
    done = []

    def add(method: str, run) -> None:  # type: ignore[no-untyped-def]
        begun = time.process_time()
        result = run()
        done.append((method, result, time.process_time() - begun))

    if design == "rich":
        add("FOCE", lambda: mixed_effects(graph, data, ["cl", "v"]))
        add("two-stage", lambda: two_stage(graph, data))
        two = done.pop()
        fine = [
            (m, e, True, two[2])
            for m, e in (("standard two-stage", two[1].standard), ("global two-stage", two[1].overall))
        ]
        return [(m, r.estimates, r.converged, s) for m, r, s in done] + fine
    add("naive pooled", lambda: naive_pooled(graph, data))
    if not design.startswith("serial blood"):
        add("FOCE", lambda: mixed_effects(graph, data, ["v", "k_el"]))
    return [(m, r.estimates, r.converged, s) for m, r, s in done]


def one_study(seed: int) -> list[dict[str, object]]:
    """Return one row for every design, method and quantity of one study."""
    rows = []
    for design, data in designs(np.random.default_rng(seed)).items():
        truth = dict(RICH if len(data.seen) == 1 else ORGANS)
        truth |= {f"omega_{k}": SPREAD[k] for k in truth if k in SPREAD}
        truth |= {f"residual_proportional_{m}": ERROR for m in data.seen}
        for method, estimates, converged, seconds in fits(design, data):
            for e in estimates:
                pooled = method == "naive pooled" and e.name.startswith("residual")
                if e.name in truth and not pooled:
                    rows.append({"design": design, "method": method, "quantity": e.name, "true": truth[e.name],
                                 "value": e.value, "low": e.ci_low, "high": e.ci_high, "reason": e.reason,
                                 "converged": converged, "seconds": seconds})  # fmt: skip
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return bias, spread and coverage of every design, method and quantity."""
    table = []
    for (design, method, quantity), here in rows.groupby(["design", "method", "quantity"], sort=False):
        told = here[np.isfinite(here["low"].astype(float)) & here["converged"]]
        off = (told["value"] - told["true"]) / told["true"]
        inside = (told["low"] <= told["true"]) & (told["true"] <= told["high"])
        share = float(inside.mean())
        table.append({"design": design, "method": method, "quantity": quantity, "n": len(here),
                      "no interval": len(here) - len(told), "bias %": 100 * off.mean(), "median bias %": 100 * off.median(),
                      "coverage %": 100 * share, "±": 196 * math.sqrt(max(share * (1 - share), 1e-9) / max(len(told), 1)),
                      "CPU s": here["seconds"].median()})  # fmt: skip
    return pd.DataFrame(table)


def markdown(table: pd.DataFrame) -> str:
    """Return the table as text."""
    head = "| design | method | quantity | studies | no interval | mean bias % | median bias % | coverage % | ± | CPU s a fit |"
    lines = [head, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for r in table.itertuples(index=False):
        lines.append(f"| {r[0]} | {r[1]} | {r[2]} | {r[3]} | {r[4]} | {r[5]:+.1f} | {r[6]:+.1f} | {r[7]:.1f} | {r[8]:.1f} | "
                     f"{r[9]:.1f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="also write every estimate here, as CSV")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = []
    for seed in range(given.first, given.first + given.studies):
        found += one_study(seed)
        if given.rows:
            pd.DataFrame(found).to_csv(given.rows, index=False)
    text = markdown(summarise(pd.DataFrame(found)))
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
