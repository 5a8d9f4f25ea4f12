"""How well organ amounts in living mice are recovered from their images: bias, error and coverage over many digital studies.

    python benchmarks/recovery.py --studies 100 --workers 2 --out recovery.csv      (resumes; 10 s a study and core)
    python benchmarks/recovery.py --table recovery.csv > docs/recovery_table.md

Every study has its own mouse: kinetics, organ places and sizes, body size and height, posture in every image. Nothing
of it is told to the analysis but the weight and the place of the dose standard. Compared, on the same files:
`ours` (anatomy inferred from all images), `atlas` (the same light model with the organs where the atlas has them) and
`roi` (sum over the atlas's outline of each organ in the better view, less background, by the dose standard).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

#: How the mice go beyond what the estimator's prior assumes of them.
CONDITIONS = {
    "as assumed": {},
    "mismatch": {"tissue_log": 0.2, "shape_mm": 0.5, "anatomy": 1.3},
}
COLUMNS = ("condition", "seed", "organ", "time_h", "method", "value", "se", "truth")
ORGANS = ("brain", "liver", "spleen", "kidney", "lung", "heart", "gut", "body")
#: The view in which a person would draw each organ.
BETTER = {"liver": "ventral", "heart": "ventral", "gut": "ventral"}


def one_study(condition: str, seed: int) -> list[dict[str, object]]:
    import evbiodist as ev
    from evbiodist.phantom.body import Variation
    from evbiodist.phantom.optical import OpticalDesign, write_optical_study

    variation = Variation(turn_rad=0.0, **CONDITIONS[condition])
    with tempfile.TemporaryDirectory() as folder:
        path = write_optical_study(folder, seed, OpticalDesign(times_h=(0.5, 24.0), animals=1, variation=variation))
        with (Path(folder) / "truth.csv").open() as handle:
            truth = {(r["organ"], float(r["time_h"])): float(r["reading"])
                     for r in csv.DictReader(handle) if r["kind"] == "observation"}  # fmt: skip
        study = ev.load_study(path)
        result = ev.run(study, Path(folder) / "results", report=False)
        rows = [("ours", r["organ"], r["time_h"], r["value"], float(np.hypot(r["se"], r["se_systematic"])))
                for r in result.observations]  # fmt: skip
        rows += _others(study, "atlas") + _others(study, "roi")
    return [{"condition": condition, "seed": seed, "organ": o, "time_h": t, "method": m, "value": v, "se": se, "truth": truth[o, t]}
            for m, o, t, v, se in rows]  # fmt: skip


def _others(study, method: str):
    from evbiodist.batch.animals import AnimalsTask, atlas_only
    from evbiodist.batch.scans import label_image, load_scan
    from evbiodist.imaging.atlas import segment_atlas
    from evbiodist.imaging.quantify import quantify

    label = study.labels[study.scans[0].label]
    task = AnimalsTask(study.root, study.name, study.scans, label, ("in_vivo",), (study.subjects[0].weight_g,),
                       study.settings.imaging, False)  # fmt: skip
    if method == "atlas":
        return [("atlas", r.organ, r.time_h, r.value, r.se) for r in atlas_only(task)]
    found = []
    roi = study.settings.imaging.model_copy(update={"footprint": "roi", "standard": None})
    for record in study.scans:
        scan = load_scan(study.root, record)
        drawn = label_image(study.root, record, scan, study.settings.imaging)
        drop = _drop(scan, drawn)
        organs = segment_atlas(scan, view=record.view, weight_g=study.subjects[0].weight_g, draws=12)
        signals = quantify(scan, organs, roi)
        for organ, value in zip(signals.organs, signals.value, strict=True):
            if BETTER.get(organ, "dorsal") == record.view:
                found.append(
                    ("roi", organ, record.time_h, value / drop * study.settings.imaging.standard.pct_of_dose, np.nan)
                )
    return found


def _drop(scan, drawn) -> float:
    """Sum of the dose standard less the stage around it, in the unit of `quantify`."""
    from scipy import ndimage

    from evbiodist.imaging.quantify import to_unit

    mask = drawn.resized(scan.plane_shape).labels > 0
    ring = ndimage.binary_dilation(mask, iterations=10) & ~ndimage.binary_dilation(mask, iterations=4)
    frame = scan.signal().reshape(scan.plane_shape)
    return float((frame[mask] - np.median(frame[ring])).sum() * to_unit(scan)[0])


def _task(job: tuple[str, int]):
    import warnings

    warnings.simplefilter("ignore")
    try:
        return job, one_study(*job), ""
    except Exception as err:
        return job, [], f"{type(err).__name__}: {err}"


def run(studies: int, workers: int, out: Path, conditions: list[str]) -> None:
    done = set()
    if out.is_file():
        with out.open() as handle:
            done = {(r["condition"], int(r["seed"])) for r in csv.DictReader(handle)}
    jobs = [(c, s) for s in range(studies) for c in conditions if (c, s) not in done]
    with out.open("a", newline="") as handle, ProcessPoolExecutor(workers) as pool:
        writer = csv.DictWriter(handle, COLUMNS)
        if not done:
            writer.writeheader()
        for i, (job, rows, error) in enumerate(pool.map(_task, jobs), 1):
            writer.writerows(rows)
            handle.flush()
            print(i, len(jobs), job, error, flush=True)


def table(path: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(path)
    frame = frame[frame.truth > 0]
    frame["rel"] = frame.value / frame.truth - 1
    frame["covered"] = ((frame.value - frame.truth).abs() <= 1.96 * frame.se).where(frame.se.notna())
    for condition, part in frame.groupby("condition", sort=False):
        studies = part.seed.nunique()
        print(f"### {condition}: {studies} studies\n")
        print("| organ | ours: median error | bias | RMSE | covered | atlas: median error | RMSE | ROI: median error | RMSE | "
              "RMSE, ROI over ours |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        for organ in ORGANS:
            cells = []
            rmse = {}
            for method in ("ours", "atlas", "roi"):
                rel = part[(part.organ == organ) & (part.method == method)].rel
                if rel.empty:
                    cells += ["", ""]
                    continue
                rmse[method] = float(np.sqrt((rel**2).mean()))
                cells.append(f"{100 * rel.abs().median():.0f} %")
                if method == "ours":
                    held = part[(part.organ == organ) & (part.method == method)].covered.astype(float).mean()
                    cells += [f"{100 * rel.median():+.0f} %", f"{100 * rmse[method]:.0f} %", f"{100 * held:.0f} %"]
                else:
                    cells.append(f"{100 * rmse[method]:.0f} %")
            ratio = f"{rmse['roi'] / rmse['ours']:.1f}" if "roi" in rmse else ""
            print(f"| {organ} | " + " | ".join([*cells, ratio]) + " |")
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("recovery.csv"))
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=list(CONDITIONS))
    parser.add_argument("--table", type=Path, default=None, help="print the table of an earlier run")
    given = parser.parse_args()
    if given.table:
        table(given.table)
    else:
        run(given.studies, given.workers, given.out, given.conditions)
