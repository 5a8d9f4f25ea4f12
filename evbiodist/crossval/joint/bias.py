"""How each label misreads each organ: the area under its reading over the area under the vesicle's own curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evbiodist.crossval.joint.compose import VESSELS, by_organ, organs_of
from evbiodist.crossval.joint.fit import JointFit
from evbiodist.crossval.joint.problem import NOTHING
from evbiodist.kinetics.models.solve import Design, solve

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelBias:
    """Logarithms of reading over vesicle by organ, for one label.

    Parameters
    ----------
    label : whose; organs : (O,) names; log_ratio, se : (O,).
    relative : whether the label has no scale of its own, so that its mean over organs was taken out.
    """

    label: str
    organs: tuple[str, ...]
    log_ratio: FloatArray
    se: FloatArray
    relative: bool


def label_biases(found: JointFit) -> list[LabelBias]:
    """Return how every label misreads every organ that it shows, without the blood in vessels.

    Returns
    -------
    list of LabelBias : from the dose to the last common time. A label in arbitrary units has no scale, so only its organs
        against each other can be told: their mean is taken out.
    """
    p = found.problem
    whole = Design([0.0], [p.arms.last_h], inputs=p.inputs)
    bare = p.vesicle.without_vessels
    size = len(p.vesicle.names)
    true = solve(bare, found.theta[None], whole, derivatives=True)
    out = []
    for label in p.arms.labels:
        mine = next(i for i, a in enumerate(p.arms.arms) if a.label == label and a.kind == "vesicles")
        arm = p.arms.arms[mine]
        shown = sorted({o for a in p.arms.arms if a.label == label for o in a.data.seen} & set(organs_of(p.vesicle)))
        if not shown:
            continue
        u = p.coordinates(found.u[None])[0, mine]
        vessels = [p.seen.names.index(by_organ(VESSELS, o)) for o in organs_of(p.vesicle)]
        u[vessels] = np.log(NOTHING)
        read = solve(p.seen, p.seen.from_search(u[None]), whole, derivatives=True)
        slopes = np.zeros((len(shown), p.size))
        logs = np.zeros(len(shown))
        for k, organ in enumerate(shown):
            i, j = p.seen.seen.index(organ), bare.seen.index(organ)
            logs[k] = np.log(read.y[0, 0, i] / true.y[0, 0, j])
            free = np.flatnonzero(p.index[mine] < p.size)
            np.add.at(slopes[k], p.index[mine, free], read.dy[0, free, 0, i] / read.y[0, 0, i])
            slopes[k, :size] -= true.dy[0, :, 0, j] / true.y[0, 0, j]
        slopes[:, [p.names.index(n) for n in p.names if n.startswith(VESSELS)]] = 0.0
        if not arm.absolute:
            logs, slopes = logs - logs.mean(), slopes - slopes.mean(axis=0)
        variance = np.einsum("kq,qr,kr->k", slopes, found.covariance, slopes)
        out.append(LabelBias(label, tuple(shown), logs, np.sqrt(np.maximum(variance, 0.0)), not arm.absolute))
    return out
