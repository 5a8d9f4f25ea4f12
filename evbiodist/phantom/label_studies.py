"""Serial-sacrifice studies with several labels, each lying in its own way, as tables with known truth.

No images: what one who counted or imaged every organ would hand over, to judge the comparison of labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.phantom.anatomy import organ_masses
from evbiodist.phantom.label_kinetics import Course, Misreading, Vesicle, simulate
from evbiodist.phantom.study import mean_one
from evbiodist.study.constants import physiology
from evbiodist.study.corrections import BLOOD_DENSITY_RATIO, subtract_vessel_blood
from evbiodist.study.flags import join
from evbiodist.study.labels import LabelEntry, catalogue, find, label_model
from evbiodist.study.model import OBSERVATION_COLUMNS, Label, Observation, Subject, ValueUnit
from evbiodist.study.problems import nearest

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
ORGANS = ("liver", "spleen", "kidney", "lung", "heart", "brain")
LABELS = ("DiR", "NanoLuc", "mCherry", "111In")
TIMES_H = (0.083, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 48.0)
#: What a study's labels and vesicle may be like: inside the catalogue (first three), or outside it.
WORLDS = ("catalogue", "clean", "wrong", "saturable", "extra_organ", "redirect", "mixed")
#: Arms beside the labelled animals, by the name of their group.
CONTROLS = ("free_label", "unlabelled", "perfused")

#: Share of what leaves blood (k_el: for good) and return rate per hour of a mouse's organs; brain's share is solved for.
_SHARES = {"k_el": 0.15, "liver": 0.5, "spleen": 0.08, "kidney": 0.1, "lung": 0.08, "heart": 0.01}
_RETURNS = {"liver": 0.03, "spleen": 0.02, "kidney": 0.1, "lung": 0.12, "heart": 0.15, "brain": 0.01}
#: An organ that nobody measured, in the world `extra_organ`.
_UNMEASURED = "unmeasured"
_HALF_LIFE_H, _BRAIN_PCT = (2 / 60, 4.0), (0.1, 5.0)
_DOSE_CV, _ORGAN_CV, _READING_CV = 0.08, 0.20, 0.05
#: Reading error of an empty organ in % of dose: counted, and by light.
_FLOOR_COUNTED, _FLOOR_LIGHT = 0.002, 0.01
_BLOOD_SAMPLE_G = 0.1
#: Low and high of a nearly faithful label (worlds `clean` and `wrong`), where not the catalogue's.
_CLEAN = {"free_fraction": (0.001, 0.02), "release": (1e-4, 2e-3), "transfer": (1e-4, 2e-3), "clearance": (1e-4, 2e-3),
          "loss": (1e-5, 1e-3), "efficiency": (0.95, 1.05)}  # fmt: skip
_FAITHFUL = ("clean", "wrong")
#: Wrong labels of the world `wrong`: share of free label, and efficiency in one organ.
_WRONG_FREE, _WRONG_BRAIN, _WRONG_ORGAN = 0.25, 0.4, (0.3, 0.5)
_REDIRECTION = 5.0
_BACKGROUND_PCT = (0.005, 0.1)


class LabelStudy(NamedTuple):
    """A digital study: the observations, the animals, and the truth that the analysis must not see."""

    observations: pd.DataFrame
    subjects: tuple[Subject, ...]
    truth: dict[str, Any]

    def definitions(self, stated: bool = False) -> dict[str, Label]:
        """Return the labels as the study file would define them: the catalogue's entry and how it was read.

        Parameters
        ----------
        stated : give nearly faithful labels (worlds `clean` and `wrong`) the study's own priors, which one of them belies.
        """
        own = {k: {"median": math.sqrt(low * high), "low": low, "high": high, "source": "quality control of the batch"}
               for k, (low, high) in _CLEAN.items()}  # fmt: skip
        priors = own if stated and self.truth["world"] in _FAITHFUL else {}
        return {name: Label.model_validate({"catalogue": name, "readout": label["readout"], "priors": priors})
                for name, label in self.truth["labels"].items()}  # fmt: skip

    @classmethod
    def draw(
        cls, rng: np.random.Generator, *, labels: Sequence[str] = LABELS, organs: Sequence[str] = ORGANS,
        times_h: Sequence[float] = TIMES_H, animals: int = 4, world: str = "catalogue", controls: Sequence[str] = (),
        arbitrary: Sequence[str] = (),
    ) -> LabelStudy:  # fmt: skip
        """Draw a study: vesicle kinetics, how each label misreads them, animals and noise.

        Parameters
        ----------
        rng : the same state gives the same study; further control arms and labels do not change the others, but that
            an unlabelled arm brings the tissue's own background, which without it counts as subtracted.
        labels : of the catalogue. organs : with a published mass, brain among them.
        times_h : of sacrifice, rising. animals : per time, label and arm; each gives one time.
        world : one of `WORLDS`. controls : of `CONTROLS`. arbitrary : labels without a dose standard, in `au`.

        Returns
        -------
        LabelStudy : observations as in observations.csv with vessel blood subtracted, decay corrected; subjects; truth.
            Nuisance values lie uniformly between the catalogue's limits on the search scale, brain uptake
            log-uniformly in 0.1 to 5 % of dose, blood's first half-life in 2 min to 4 h. Errors: the animal's dose
            8 %, each organ 20 %, reading 5 % and a floor.

        Raises
        ------
        ValueError : a word that is not known, no brain, times that do not rise.

        Examples
        --------
        >>> study = LabelStudy.draw(np.random.default_rng(1), animals=1, times_h=(0.5, 4.0, 24.0))
        >>> len(study.observations), 0.1 <= study.truth["brain_uptake_pct_id"] <= 5
        (84, True)
        """
        _check(labels, organs, times_h, animals, world, controls, arbitrary)
        streams = rng.spawn(2 + len(CONTROLS))
        vesicle = _draw_vesicle(streams[0], organs, float(times_h[-1]), world)
        fractions = {o: streams[0].uniform(f.low, f.high) for o in organs
                     if (f := physiology("mouse", o, "regional_blood_fraction"))}  # fmt: skip
        wrong, how = _draw_culprit(streams[0], labels, organs, world)
        readers = {}
        for name in labels:
            stream = streams[0].spawn(1)[0]
            reader = _draw_label(stream, name, organs, world, how if name == wrong else "")
            readers[name] = replace(reader, background=reader.background if "unlabelled" in controls else {},
                                    scale=float(np.exp(stream.uniform(7, 14))) if name in arbitrary else None)  # fmt: skip
        bench = _Bench(
            vesicle, organs, np.asarray(times_h, float), fractions, animals, wrong if world == "redirect" else None
        )
        rows: list[Observation] = []
        subjects: list[Subject] = []
        for arm, stream in zip(("all", *CONTROLS), streams[1:], strict=True):
            for name, own in zip(labels, stream.spawn(len(labels)), strict=True):
                if arm == "all" or arm in controls:
                    bench.sacrifice(name, readers[name], arm, own, rows, subjects)
        perfused = {(s.group, s.subject, s.label): s.perfused for s in subjects}
        table = _table(subtract_vessel_blood(rows, "mouse", perfused))
        return cls(table, tuple(subjects), _truth(bench, readers, world, wrong, how))


@dataclass(frozen=True, eq=False)
class _Bench:
    """What is the same for all animals of a study; `redirected` is the label that changes its vesicle."""

    vesicle: Vesicle
    organs: Sequence[str]
    time_h: FloatArray
    fractions: Mapping[str, float]
    animals: int
    redirected: str | None

    def carried(self, name: str) -> Vesicle:
        """Return the vesicle as it moves with a label on it."""
        if name != self.redirected:
            return self.vesicle
        towards = np.array([_REDIRECTION if organ == "lung" else 1.0 for organ in self.vesicle.organs])
        return replace(self.vesicle, k_in=self.vesicle.k_in * towards)

    def course(self, name: str, label: Misreading, time_h: FloatArray, arm: str = "all") -> Course:
        """Return where a label is in an arm; uptake slows by the vesicles themselves, whatever became of the label."""
        given = replace(label, free_fraction=1.0) if arm == "free_label" else label
        found = simulate(self.carried(name), given, time_h, self._slowing)
        return Course(*((arm != "unlabelled") * part for part in vars(found).values()))

    @cached_property
    def _slowing(self) -> Callable[[float], float] | None:
        """All vesicles in blood over time, where they slow uptake."""
        if not math.isfinite(self.vesicle.half):
            return None
        grid = np.append(0.0, np.geomspace(1e-4, self.time_h[-1], 2000))
        per_g = simulate(self.vesicle, Misreading(), grid).blood / self.vesicle.v
        return lambda t: float(np.interp(t, grid, per_g))

    def sacrifice(
        self, name: str, label: Misreading, arm: str, rng: np.random.Generator, rows: list[Observation],
        subjects: list[Subject],
    ) -> None:  # fmt: skip
        """Add the animals of one label and arm, each with all its organs at one time."""
        counted = _entry(name).kind == "radioactive"
        course = self.course(name, label, self.time_h, arm)
        inside = course.inside[:, : len(self.organs)]
        per_g = course.per_g(self.vesicle, label)
        for t, time in enumerate(self.time_h):
            for number in range(1, self.animals + 1):
                animal = f"{name}_{arm}_{time:g}h_{number}"
                weight = float(rng.normal(20.0, 1.0))
                subjects.append(Subject(subject=animal, label=name, dose=2e6 if counted else 1e10,
                                        dose_unit="bq" if counted else "particles", route="iv_bolus", group=arm,
                                        species="mouse", weight_g=round(weight, 2), perfused=arm == "perfused"))  # fmt: skip
                masses = {o: round(m, 4) for o, m in organ_masses(weight, list(self.organs), rng).items()}
                held = self._held(dict(zip(self.organs, inside[t], strict=True)), per_g[t], masses, label, arm, rng)
                who = {"subject": animal, "label": name, "group": arm, "time_h": float(time)}
                rows += _read(held, masses, label, counted, rng, who)

    def _held(
        self, inside: Mapping[str, float], per_g: float, masses: Mapping[str, float], label: Misreading, arm: str,
        rng: np.random.Generator,
    ) -> dict[str, float]:  # fmt: skip
        """Return what a perfect reader sees of one animal: its organs with their vessels, and a gram of blood."""
        dose = mean_one(rng, _DOSE_CV)
        own = {o: dose * mean_one(rng, _ORGAN_CV) for o in (*self.organs, "blood")}
        blood = per_g * own["blood"]
        vessels = {o: 0.0 if arm == "perfused" else masses[o] * BLOOD_DENSITY_RATIO * self.fractions.get(o, 0.0) * blood
                   for o in self.organs}  # fmt: skip
        whole = {o: inside[o] * own[o] + vessels[o] for o in self.organs} | {"blood": blood}
        return {o: label.efficiency.get(o, 1.0) * v + label.background.get(o, 0.0) for o, v in whole.items()}


def _read(
    held: Mapping[str, float], masses: Mapping[str, float], label: Misreading, counted: bool, rng: np.random.Generator,
    who: Mapping[str, Any],
) -> list[Observation]:  # fmt: skip
    """Read one animal's organs and blood with error; the standard error is what the reader would state."""
    rows = []
    scale = label.scale or 1.0
    for organ, truth in held.items():
        floor = (_FLOOR_COUNTED if counted else _FLOOR_LIGHT) / (_BLOOD_SAMPLE_G if organ == "blood" else 1.0)
        value = truth + math.hypot(_READING_CV * truth, floor) * rng.standard_normal()
        unit: ValueUnit = "au" if label.scale else "pct_id_per_g" if organ == "blood" else "pct_id"
        flags = join(["decay_corrected" if counted else "", "negative" if value < 0 else ""])
        rows.append(Observation(organ=organ, unit=unit, value=value * scale, mass_g=masses.get(organ, _BLOOD_SAMPLE_G),
                                se=math.hypot(_READING_CV * value, floor) * scale, study="simulated", flags=flags,
                                source="phantom", **who))  # fmt: skip
    return rows


def _table(rows: Sequence[Observation]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame([r.model_dump() for r in rows], columns=list(OBSERVATION_COLUMNS))
    numbers = ["time_h", "value", "se", "mass_g", "lloq", "se_systematic", "sd", "n", "vessel_blood"]
    return table.assign(**{name: table[name].astype(float) for name in numbers})


def _entry(name: str) -> LabelEntry:
    """Return the catalogue's entry of a label."""
    entry = find(name)
    if entry is None:
        raise ValueError(f"labels holds '{name}', expected labels of the catalogue; {nearest(name, catalogue())}")
    return entry


def _check(
    labels: Sequence[str], organs: Sequence[str], times_h: Sequence[float], animals: int, world: str,
    controls: Sequence[str], arbitrary: Sequence[str],
) -> None:  # fmt: skip
    for name in labels:
        _entry(name)
    if world not in WORLDS:
        raise ValueError(f"world is '{world}', expected one of {', '.join(WORLDS)}")
    for what, words, known in (("controls", controls, CONTROLS), ("arbitrary", arbitrary, labels)):
        if unknown := sorted(set(words) - set(known)):
            raise ValueError(f"{what} holds '{unknown[0]}', expected some of {', '.join(known)}")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"labels is {list(labels)}, expected one or more different names")
    needed = {"brain", "lung"} if world == "redirect" else {"brain"}
    if missing := sorted(needed - set(organs)):
        raise ValueError(f"organs lacks {missing[0]}, which the world '{world}' needs; add it")
    if unknown := sorted(set(organs) - set(ORGANS)):
        raise ValueError(f"organs holds '{unknown[0]}', expected some of {', '.join(ORGANS)}")
    if len(times_h) == 0 or times_h[0] <= 0 or any(b <= a for a, b in itertools.pairwise(times_h)):
        raise ValueError(f"times_h is {list(times_h)}, expected rising times after the injection")
    if animals < 1:
        raise ValueError(f"animals is {animals}, expected 1 or more a time, label and arm")


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _draw_vesicle(rng: np.random.Generator, organs: Sequence[str], last_h: float, world: str) -> Vesicle:
    """Draw how vesicles move, so that the brain holds a drawn share of the dose at the last time."""
    total = math.log(2) / _log_uniform(rng, *_HALF_LIFE_H)
    names = (*organs, _UNMEASURED) if world == "extra_organ" else tuple(organs)
    share = {o: s * float(np.exp(rng.normal(0, 0.5))) for o, s in _SHARES.items()}
    back = {o: k * float(np.exp(rng.normal(0, 0.6))) for o, k in _RETURNS.items()}
    volume, brain_pct = 1.7 * float(np.exp(rng.normal(0, 0.15))), _log_uniform(rng, *_BRAIN_PCT)
    half, kept = _log_uniform(rng, 5.0, 30.0), rng.uniform(0.2, 0.8, len(names))
    share[_UNMEASURED], back[_UNMEASURED] = rng.uniform(0.3, 0.8), _log_uniform(rng, 0.05, 0.3)
    others = [o for o in names if o != "brain"]
    whole = sum(share[o] for o in (*others, "k_el"))

    def moves(brain_share: float) -> Vesicle:
        rate = {o: total * (1 - brain_share) * share[o] / whole for o in (*others, "k_el")} | {
            "brain": total * brain_share
        }
        return Vesicle(names, volume, rate["k_el"], np.array([rate[o] for o in names]), np.array([back[o] for o in names]),
                       kept if world == "mixed" else np.zeros(len(names)), half if world == "saturable" else math.inf)  # fmt: skip

    return moves(_share_for(brain_pct, lambda s: _at(moves(s), "brain", last_h)))


def _at(vesicle: Vesicle, organ: str, time_h: float) -> float:
    return float(simulate(vesicle, Misreading(), np.array([time_h])).vesicle[0, vesicle.organs.index(organ)])


def _share_for(wanted: float, amount: Callable[[float], float]) -> float:
    """Return the share of what leaves blood that must go to an organ for it to hold a wanted amount."""
    from scipy.optimize import brentq

    log_share = brentq(lambda x: math.log(amount(math.exp(x)) / wanted), math.log(1e-5), math.log(0.98), xtol=1e-6)
    return math.exp(log_share)


def _draw_culprit(
    rng: np.random.Generator, labels: Sequence[str], organs: Sequence[str], world: str
) -> tuple[str, str]:
    """Return which label is wrong, and in what: a parameter's name, or that it redirects its vesicle."""
    name, other = str(rng.choice(list(labels))), str(rng.choice([o for o in organs if o != "brain"] or ["brain"]))
    kind, organ = rng.integers(2), rng.integers(2)
    if world == "redirect":
        return name, "redirect"
    if world != "wrong":
        return "", ""
    return name, "free_fraction" if kind else f"efficiency.{other if organ else 'brain'}"


def _readout(name: str, world: str) -> str:
    """Return how a label is read: as usual, or where it is to be faithful as a homogenate, which hides no light."""
    entry = _entry(name)
    return "homogenate" if world in _FAITHFUL and "homogenate" in entry.readings else entry.readout


def _draw_label(rng: np.random.Generator, name: str, organs: Sequence[str], world: str, how: str) -> Misreading:
    """Draw how a label misreads, uniformly between the catalogue's limits on the search scale."""
    model = label_model(name, Label.model_validate({"catalogue": name}), _readout(name, world))
    faithful = world in _FAITHFUL

    def one(parameter: str, organ: str | None = None) -> float:
        prior = model.prior(parameter, organ)
        low, high = _CLEAN.get(parameter, (prior.low, prior.high)) if faithful else (prior.low, prior.high)
        at = rng.uniform(prior.transform(low), prior.transform(high))
        return float(np.exp(at) if prior.scale == "log" else 1 / (1 + np.exp(-at)))

    drawn = {p: one(p) for p in ("free_fraction", "release", "transfer", "clearance", "loss", "free_v", "free_k_el")}
    efficiency = {o: one("efficiency", o) for o in (*organs, "blood")}
    into = {o: one("free_k_in", o) for o in organs}
    out = one("free_k_out")
    background = {o: _log_uniform(rng, *_BACKGROUND_PCT) for o in organs} if model.kind != "radioactive" else {}
    wrong_organ = rng.uniform(*_WRONG_ORGAN)
    if how == "free_fraction":
        drawn["free_fraction"] = _WRONG_FREE
    elif how.startswith("efficiency."):
        organ = how.partition(".")[2]
        efficiency[organ] = _WRONG_BRAIN if organ == "brain" else wrong_organ
    return Misreading(
        **drawn, efficiency=efficiency, free_k_in=into, free_k_out=dict.fromkeys(organs, out), background=background
    )


def _truth(bench: _Bench, readers: Mapping[str, Misreading], world: str, wrong: str, how: str) -> dict[str, Any]:
    """Return what the analysis should find, and what each label alone would say if read perfectly."""
    last, v = float(bench.time_h[-1]), bench.vesicle
    grid = np.geomspace(1e-3, last, 500)
    on = simulate(v, Misreading(), grid).vesicle
    brain = v.organs.index("brain")
    rates = {f"k_in.{o}": float(k) for o, k in zip(v.organs, v.k_in, strict=True)}
    rates |= {f"k_out.{o}": float(k) for o, k in zip(v.organs, v.k_out, strict=True)}
    found: dict[str, Any] = {
        "world": world,
        "last_h": last,
        "half_life": v.half_life_h,
        "wrong": wrong,
        "wrong_how": how,
    }
    for i, organ in enumerate(bench.organs):
        found |= {f"{organ}_uptake_pct_id": float(on[-1, i]), f"{organ}_peak_pct_id": float(on[:, i].max())}
    found["vesicle"] = {"v": v.v, "k_el": v.k_el, "half": v.half, **rates,
                        **{f"kept.{o}": float(k) for o, k in zip(v.organs, v.kept, strict=True)}}  # fmt: skip
    found["blood_fraction"] = {o: float(f) for o, f in bench.fractions.items()}
    found["labels"] = {}
    for name, label in readers.items():
        reading = bench.course(name, label, grid[-1:]).inside[-1, brain] * label.efficiency["brain"]
        found["labels"][name] = {
            "readout": _readout(name, world),
            "brain_reading_pct_id": float(reading),
            "nuisance": label.values(),
        }
    return found
