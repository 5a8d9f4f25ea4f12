"""The pkpdutils half of bench_nca.py: runs in an interpreter that has pkpdutils and nothing of evbiodist.

Reads profiles from an .npz file, writes parameters and the median seconds to another. One thread, as ours.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  after the number of threads is set
import pandas as pd  # noqa: E402
from pkpdutils import Dose, NCAOptions, Route, TerminalPhase, Timecourses, nca  # noqa: E402

NAMES = ("cmax", "tmax", "auc_last", "auc_inf_obs", "lambda_z", "thalf", "cl")
OPTIONS = NCAOptions(auc_method="linear", terminal=TerminalPhase(exclude_cmax=False), n_workers=1)


def analyse(table: pd.DataFrame, dose: float) -> np.ndarray:
    wide = table.pivot(index="profile", columns="time_h", values="value")
    t, value = wide.columns.to_numpy(), wide.to_numpy()
    batch = Timecourses.from_arrays(
        t, value, time_unit="hr", unit="mg/l", dose=Dose(amount=dose, unit="mg", route=Route.IV_BOLUS)
    )
    found = nca(batch, options=OPTIONS).ds
    return np.column_stack([found[name].to_numpy() for name in NAMES])


def main(given: str, found: str) -> None:
    with np.load(given) as data:
        table = pd.DataFrame({name: data[name] for name in ("profile", "time_h", "value")})
        dose = float(data["dose"])
        repeats = int(data["repeats"])
    parameters = analyse(table, dose)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        analyse(table, dose)
        seconds.append(time.perf_counter() - begin)
    np.savez(found, parameters=parameters, seconds=statistics.median(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
