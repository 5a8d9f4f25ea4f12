"""Studies made for the tests of the library, without a run behind them."""

from __future__ import annotations

from evbiodist.library.database import OBSERVATIONS
from evbiodist.library.facts import Facts, complete, named_for
from evbiodist.library.intake import Incoming
from evbiodist.library.metadata import Metadata
from evbiodist.study.model import Label

EMPTY = dict.fromkeys(OBSERVATIONS) | {"below_lloq": False, "flags": "", "source": "made", "group": "all"}


def row(organ="liver", time_h=24.0, value=10.0, *, subject="1", label="DiR", unit="pct_id_per_g", **more):
    """Return one row of observations as a result folder holds it."""
    return EMPTY | {"study": "", "subject": subject, "label": label, "organ": organ, "time_h": time_h, "value": value,
                    "unit": unit} | more  # fmt: skip


def study(name="one", rows=(), *, vesicles=None, simulated=False, inputs=None, of_group=None, facts=None, **metadata):
    """Return a study as it comes to the library."""
    told = Metadata(study=name, vesicles=vesicles or {}, **({"species": "mouse"} | metadata))
    labels = {r["label"]: Label.named(r["label"]) for r in rows}
    done = named_for((complete(r, told, labels, facts or Facts(), of_group or {}) for r in rows or [row()]), name, name)
    done = tuple({k: v for k, v in r.items() if k != "entry"} for r in done)
    return Incoming(told, name, done, simulated=simulated, interval_level=0.95,
                    inputs=frozenset(inputs if inputs is not None else [f"input of {name}"]))  # fmt: skip


def animals(values, **about):
    """Return a row for every animal of a group."""
    return [row(value=v, subject=f"m{i}", **about) for i, v in enumerate(values)]
