"""Pooling published organ tables against formulas written out here, and against metafor's numbers for its own data set."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from evbiodist.library.intake import read_incoming
from evbiodist.library.meta import Asked, OneValue, meta, pool
from evbiodist.library.store import add, contents
from evbiodist.study.estimate import Estimate

TABLES = Path(__file__).resolve().parents[2] / "sample_data" / "organ_tables"

# Colditz et al., JAMA 1994;271:698 (BCG vaccine, 13 trials): log risk ratios and variances as metafor prints them for dat.bcg.
BCG = [(-0.8893, 0.3256), (-1.5854, 0.1946), (-1.3481, 0.4154), (-1.4416, 0.0200), (-0.2175, 0.0512), (-0.7861, 0.0069),
       (-1.6209, 0.2230), (0.0120, 0.0040), (-0.4694, 0.0564), (-1.3713, 0.0730), (-0.3394, 0.0124), (0.4459, 0.5325),
       (-0.0173, 0.0714)]  # fmt: skip


def test_paule_mandel_of_the_bcg_trials():
    """metafor: rma(yi, vi, data = dat.bcg, method = "PM") gives -0.7150 and tau2 0.3181; here from rounded input."""
    seen = [OneValue(str(i), "l", "g", Estimate("liver", y, math.sqrt(v), n=50)) for i, (y, v) in enumerate(BCG)]
    last = pool(seen, Asked("liver", 1.0, scale="linear")).rows[-1]
    assert last["value"] == pytest.approx(-0.7150, abs=0.002)
    assert last["tau"] ** 2 == pytest.approx(0.3181, abs=0.002)
    assert last["n_studies"] == 13


@pytest.mark.parametrize(
    ("organ", "time_h", "window"), [("liver", 2.0, 0.0), ("kidney", 2.0, 0.0), ("lung", 2.0, 0.1), ("heart", 2.0, 0.0)]
)
def test_two_published_tables_pooled_by_hand(tmp_path, organ, time_h, window):
    """Two tables have 2 h and an n. Paule-Mandel and Hartung-Knapp on logarithms, by a root search and nothing else."""
    for name in ("111In_EB_cRGDfK", "125I_TAP1"):
        add(tmp_path, read_incoming(TABLES / name))
    found = meta(contents(tmp_path).current, Asked(organ, time_h, window=window))
    entered = [r for r in found.rows if r["what"] == "estimate"]
    assert len(entered) == 2
    y = np.log([r["value"] for r in entered])
    v = np.array([(r["se"] / r["value"]) ** 2 for r in entered])

    def q(tau2):
        w = 1 / (v + tau2)
        return float(w @ (y - w @ y / w.sum()) ** 2)

    tau2 = optimize.brentq(lambda t: q(t) - 1, 0, 1e3) if q(0) > 1 else 0.0
    w = 1 / (v + tau2)
    mean, error = float(w @ y / w.sum()), math.sqrt(max(1.0, q(tau2)) / w.sum())
    reach = stats.t(1).ppf(0.975)
    last = found.rows[-1]
    assert last["value"] == pytest.approx(math.exp(mean), rel=1e-6)
    assert last["tau"] == pytest.approx(math.sqrt(tau2), rel=1e-4, abs=1e-6)
    assert (last["ci_low"], last["ci_high"]) == pytest.approx(
        (math.exp(mean - reach * error), math.exp(mean + reach * error)), rel=1e-4)  # fmt: skip
    assert last["prediction_high"] == pytest.approx(
        math.exp(mean + reach * math.hypot(math.sqrt(tau2), error)), rel=1e-4
    )


def test_published_values_enter_as_printed_but_for_vessel_blood(tmp_path):
    """PMC8196871 table 2: liver at 24 h 5.79 +/- 0.37 %ID/g, n = 4-5 (4 taken), of which blood in vessels is subtracted."""
    add(tmp_path, read_incoming(TABLES / "111In_EB_cRGDfK"))
    (r,) = [r for r in meta(contents(tmp_path).current, Asked("liver", 24.0)).rows if r["what"] == "estimate"]
    assert 5.79 - 1.90 < r["value"] < 5.79
    assert r["se"] >= 0.37 / 2
    assert r["n_animals"] == 4
