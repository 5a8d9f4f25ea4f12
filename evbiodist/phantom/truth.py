"""The truth of a digital study: vesicle kinetics, and how each label misreads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import RateGraph

FloatArray = NDArray[np.float64]
ORGANS = ("brain", "heart", "kidney", "liver", "lung", "spleen")

#: Rates per hour and volume in g: blood half-life of a quarter of an hour, liver first, 1 % in the brain.
VESICLE = {"v": 1.9, "k_el": 0.5, "k_in_brain": 0.035, "k_out_brain": 0.02, "k_in_heart": 0.03, "k_out_heart": 0.15,
           "k_in_kidney": 0.25, "k_out_kidney": 0.1, "k_in_liver": 1.9, "k_out_liver": 0.03, "k_in_lung": 0.15,
           "k_out_lung": 0.12, "k_in_spleen": 0.2, "k_out_spleen": 0.02}  # fmt: skip
#: Free dye: slower out of blood (lipoproteins), several times more into the brain, and kept.
FREE_DYE = {"v": 2.5, "k_el": 0.15, "k_in_brain": 0.09, "k_out_brain": 0.005, "k_in_heart": 0.03, "k_out_heart": 0.02,
            "k_in_kidney": 0.06, "k_out_kidney": 0.02, "k_in_liver": 0.5, "k_out_liver": 0.003, "k_in_lung": 0.2,
            "k_out_lung": 0.02, "k_in_spleen": 0.1, "k_out_spleen": 0.003}  # fmt: skip


@dataclass(frozen=True)
class LabelTruth:
    """How one label reads.

    Parameters
    ----------
    free_fraction : share of the injected label that is not on vesicles and goes its own way.
    efficiency : signal per vesicle by organ; 1 where not named.
    counts_per_pct : camera counts per % of dose; None for a label that is counted, not imaged.
    """

    name: str
    free_fraction: float = 0.0
    efficiency: Mapping[str, float] = field(default_factory=dict)
    counts_per_pct: float | None = 2.0e5


@dataclass(frozen=True, eq=False)
class Kinetics:
    """Vesicle and free-dye kinetics of one digital study."""

    graph: RateGraph
    vesicle: FloatArray
    free: FloatArray

    @classmethod
    def draw(cls, rng: np.random.Generator, cv: float) -> Kinetics:
        """Draw a study's kinetics about the reference, every rate lognormal with coefficient of variation `cv`."""
        graph = build("plasma_with_organs", ORGANS)
        sigma = np.sqrt(np.log1p(cv**2))
        drawn = [np.array([table[n] for n in graph.names]) * np.exp(rng.normal(0, sigma, len(graph.names)))
                 for table in (VESICLE, FREE_DYE)]  # fmt: skip
        return cls(graph, *drawn)

    def amounts(self, time_h: FloatArray) -> dict[str, FloatArray]:
        """Return % of dose in the parenchyma of each organ, and % of dose per g blood, of vesicles, each (T,)."""
        return self._amounts(self.vesicle, time_h)

    def reads(self, label: LabelTruth, time_h: FloatArray) -> dict[str, FloatArray]:
        """Return the same as the label sees it."""
        on, off = self._amounts(self.vesicle, time_h), self._amounts(self.free, time_h)
        share = label.free_fraction
        return {k: (1 - share) * on[k] * label.efficiency.get(k, 1.0) + share * off[k] for k in on}

    def _amounts(self, theta: FloatArray, time_h: FloatArray) -> dict[str, FloatArray]:
        y = self.graph.predict(theta, np.atleast_1d(time_h), 100.0)[0]
        return dict(zip(self.graph.seen, y.T, strict=True))
