"""Labels that misread, with the evidence in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evbiodist.crossval.joint.bias import LabelBias
from evbiodist.crossval.joint.compose import EFFICIENCY, FRACTION, LOSS, RELEASE, SCALE, TRANSFER
from evbiodist.crossval.joint.hypotheses import LIES, RATES, READINGS, Worlds
from evbiodist.study.estimate import student

#: Evidence, as log10 of the odds, from which a label is accused: "strong" in Jeffreys 1961, app. B.
ACCUSED = 1.0
_DOUBTFUL = 0.0
#: Beyond this the search of hopeless worlds was not ended, and the number says no more.
_FAR = 10.0
_WORDS = {FRACTION: "free label", RELEASE: "release in blood", TRANSFER: "label that stays in tissue", LOSS: "loss of signal",
          SCALE: "dose calibration", LIES: "rates and readings as its catalogue entry says",
          RATES: "free label, release or retention as its catalogue entry says",
          READINGS: "readings as its catalogue entry says"}  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """The case against one label.

    Parameters
    ----------
    label : whose; log10_odds : for misreading against reading faithfully; accused : whether that is strong.
    what : the most probable cause, such as ``free label`` or ``reading of brain``.
    organ, ratio, low, high : the organ it most surely misreads, and by which factor; empty and NaN where it shows none.
    sentence : the evidence in words.
    """

    label: str
    log10_odds: float
    accused: bool
    what: str
    organ: str
    ratio: float
    low: float
    high: float
    sentence: str


def alerts(worlds: Worlds, biases: Sequence[LabelBias], level: float = 0.95) -> list[Alert]:
    """Return the case against every label, the strongest first.

    Parameters
    ----------
    worlds : what the labels may be; biases : how each misreads; level : of the intervals in words.

    Returns
    -------
    list of Alert : labels are accused one by one; where two disagree and either could be right, neither is.
    """
    known = {b.label: b for b in biases}
    cases = [_alert(worlds, label, known, level) for label in worlds.labels]
    return sorted(cases, key=lambda a: (-a.log10_odds, a.label))


def _alert(worlds: Worlds, label: str, biases: Mapping[str, LabelBias], level: float) -> Alert:
    odds, cause = worlds.log10_odds(label), worlds.cause(label)
    what = _WORDS.get(cause, f"reading of {cause.removeprefix(f'{EFFICIENCY}_')}")
    accused = odds > ACCUSED
    told = _sentence(label, odds, what)
    bias = biases.get(label)
    if bias is None:
        return Alert(label, odds, accused, what, "", np.nan, np.nan, np.nan, told)
    worst = int(np.argmax(np.abs(bias.log_ratio) / np.maximum(bias.se, 1e-9)))
    reach = student(level, worlds.best.df) * bias.se[worst]
    ratio, low, high = (float(np.exp(bias.log_ratio[worst] + d)) for d in (0.0, -reach, reach))
    if accused:
        told += f"; in {bias.organs[worst]} it reads {ratio:.2g} times the vesicle ({low:.2g} to {high:.2g})"
    return Alert(label, odds, accused, what, bias.organs[worst], ratio, low, high, told)


def _sentence(label: str, odds: float, what: str) -> str:
    if odds > ACCUSED:
        far = f"more than 10^{_FAR:g}" if odds > _FAR else f"10^{odds:.1f}"
        return f"{label} misreads ({what}): odds of {far} against its being faithful"
    if odds > _DOUBTFUL:
        return f"{label} may misread ({what}), but the evidence is weak (odds 10^{odds:.1f})"
    return f"nothing speaks against {label}"


def undecided(cases: Sequence[Alert]) -> str:
    """Return a sentence where labels disagree but none of them can be named; empty otherwise."""
    doubtful = [a.label for a in cases if a.log10_odds > _DOUBTFUL]
    if len(doubtful) < 2 or any(a.accused for a in cases):
        return ""
    return (f"{' and '.join(doubtful)} do not agree, and the data cannot say which of them misreads; a control arm or another "
            "label can")  # fmt: skip
