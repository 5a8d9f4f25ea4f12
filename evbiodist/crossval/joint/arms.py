"""Observations of several labels as arms: what was given, how it is read, and the rows that show it.

An arm is one label given in one way: on vesicles, as free label, or not at all (the animals' own background).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.fitting.data import FitData, clusters, gather
from evbiodist.study.constants import physiology
from evbiodist.study.corrections import BLOOD_DENSITY_RATIO
from evbiodist.study.flags import split
from evbiodist.study.vocabulary import BLOOD, NOT_ORGANS

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
ArmKind = Literal["vesicles", "free_label", "background"]
#: Names of groups that are control arms without being declared.
CONTROL_GROUPS: dict[str, ArmKind] = {
    "perfused": "vesicles", "free_label": "free_label", "dye_only": "free_label", "free_dye": "free_label",
    "unlabelled": "background", "unlabeled": "background", "substrate_only": "background", "vehicle": "background",
}  # fmt: skip
_KINDS: dict[str, ArmKind] = {"vesicles": "vesicles", "free_label": "free_label", "background": "background"}
#: Units in which a reading is a share of the dose; in all others its scale is unknown.
_SHARES = ("pct_id", "pct_id_per_g")
_AMOUNTS = ("pct_id", "p_per_s", "bq", "particles", "au")
#: Weight of an animal that nobody weighed: a mouse.
_WEIGHT_G = 20.0
#: How far off a calibration of the dose may be, on the logarithm.
CALIBRATION_SD = 0.05


@dataclass(frozen=True, eq=False)
class Arm:
    """One label given in one way.

    Parameters
    ----------
    label, kind : which label, and what was given.
    absolute : whether readings are shares of the dose.
    vessels : whether the rows hold the blood in the organs' vessels.
    data : the rows; `systematic` is the error that all rows of an organ share.
    animals : names by the numbers of `data.animal`; single : those of them that are animals, not published means.
    """

    label: str
    kind: ArmKind
    absolute: bool
    vessels: bool
    data: FitData
    animals: tuple[str, ...]
    single: frozenset[str]


@dataclass(frozen=True, eq=False)
class Arms:
    """All arms of a group of animals.

    Parameters
    ----------
    arms : those with rows; organs : that any arm shows, sorted.
    vessel_blood : by organ, median grams of blood in its vessels and the error of its logarithm.
    notes : sentences on what was left out, and why.
    """

    arms: tuple[Arm, ...]
    organs: tuple[str, ...]
    vessel_blood: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels given on vesicles, sorted."""
        return tuple(sorted({a.label for a in self.arms if a.kind == "vesicles"}))

    @property
    def last_h(self) -> float:
        """The last time that all labels on vesicles have."""
        lasts: dict[str, float] = {}
        for arm in self.arms:
            if arm.kind == "vesicles":
                lasts[arm.label] = max(lasts.get(arm.label, 0.0), float(arm.data.time_h.max()))
        return min(lasts.values())


def gather_arms(
    observations: pd.DataFrame, controls: Mapping[str, ArmKind] | None = None, *, species: str = "mouse",
    weight_g: float | None = None, perfused: Mapping[tuple[str, str, str], bool] | None = None,
    organs: bool = True,
) -> Arms:  # fmt: skip
    """Sort observations of one study and vesicle group, with its controls, into arms.

    Parameters
    ----------
    observations : columns of observations.csv; values below the limit are left out.
    controls : kind of arm by the name of the group, beside `CONTROL_GROUPS`.
    species, weight_g : whose vessels hold how much blood.
    perfused : by (group, subject, label), for readings in units of their own, from which no blood was subtracted; animals that
        are not named were not perfused.
    organs : whether the model sees organs; else blood alone is taken.

    Returns
    -------
    Arms : amounts in organs and concentrations in blood, with the vessels' blood put back where it was subtracted, because
        the model knows of it.
    """
    import pandas as pd

    kinds = CONTROL_GROUPS | dict(controls or {})
    seen = observations[observations["value"].notna() & ~observations["below_lloq"].astype(bool)]
    notes: list[str] = []
    seen = finite_rows(seen, notes)
    arms: list[Arm] = []
    bloods: dict[str, list[float]] = {}
    for label, rows in seen.groupby("label", sort=True):
        parts, absolute = _matrices(str(label), rows, notes)
        parts = parts if organs else {k: v for k, v in parts.items() if k == "blood"}
        if not parts:
            continue
        whole = pd.concat([part.assign(matrix=name) for name, part in parts.items()])
        whole = whole.assign(kind=[kinds.get(str(g), "vesicles") for g in whole["group"]])
        taken = (whole["vessel_blood"].fillna(0.0) != 0).to_numpy(bool)
        inside = taken | _blood_inside(whole, absolute, perfused or {})
        unperfused = whole["subject"].isin(whole.loc[inside, "subject"])
        for (word, vessels), mine in whole.groupby([whole["kind"], unperfused], sort=True):
            data = _rows_of(mine, species)
            arms.append(Arm(str(label), _KINDS[str(word)], absolute, bool(vessels), data, *_animals(mine)))
        in_organs = (whole["matrix"] != "blood").to_numpy(bool)
        for organ, mine in whole.assign(taken=taken)[inside & in_organs].groupby("matrix"):
            own = _grams(mine[mine["taken"]], parts["blood"]) if "blood" in parts else []
            bloods.setdefault(str(organ), []).extend(own or _expected_grams(str(organ), mine, species, weight_g))
    shown = sorted({name for arm in arms for name in arm.data.seen} - {"blood"})
    held = {organ: (float(np.median(g)), _vessel_sd(species, organ)) for organ, g in bloods.items() if g}
    return Arms(tuple(arms), tuple(shown), held, tuple(notes))


def finite_rows(observations: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return observations without infinite values and errors, and note how many there were."""
    wrong = np.isinf(observations["value"].to_numpy(float)) | np.isinf(observations["se"].to_numpy(float))
    if wrong.any():
        notes.append(f"{int(wrong.sum())} readings are infinite, or have an infinite error, and were left out")
    return observations[~wrong]


def _blood_inside(
    rows: pd.DataFrame, absolute: bool, perfused: Mapping[tuple[str, str, str], bool]
) -> NDArray[np.bool_]:
    """Return which rows hold the blood in their organ's vessels although nothing was subtracted."""
    if absolute:
        return np.array(["blood_in_organ" in split(str(cell)) for cell in rows["flags"]], dtype=np.bool_)
    who = zip(rows["group"], rows["subject"], rows["label"], rows["matrix"], strict=True)
    return np.array(
        [m != "blood" and not perfused.get((str(g), str(s), str(x)), False) for g, s, x, m in who], dtype=np.bool_
    )


def _expected_grams(organ: str, rows: pd.DataFrame, species: str, weight_g: float | None) -> list[float]:
    """Return the blood that an organ's vessels should hold, g: of its mass, or of a species' usual one."""
    share = physiology(species, organ, "regional_blood_fraction")
    usual = physiology(species, organ, "weight_fraction")
    known = rows["mass_g"].dropna()
    mass = float(known.median()) if len(known) else usual.value / 100 * (weight_g or _WEIGHT_G) if usual else 0.0
    return [share.middle * mass * BLOOD_DENSITY_RATIO] if share and mass > 0 else []


def _matrices(label: str, rows: pd.DataFrame, notes: list[str]) -> tuple[dict[str, pd.DataFrame], bool]:
    """Return blood and organs of a label in units that belong together, and whether they are shares of the dose."""
    amounts = rows[~rows["organ"].isin(NOT_ORGANS)]
    weighed = amounts[(amounts["unit"] == "pct_id_per_g") & amounts["mass_g"].notna()]
    if len(weighed):
        amounts = _whole_organs(amounts, weighed)
    unit = next((u for u in _AMOUNTS if (amounts["unit"] == u).any()), None)
    matrix = next((m for m in BLOOD if (rows["organ"] == m).any()), None)
    blood = rows[rows["organ"] == matrix] if matrix else rows.iloc[:0]
    others = sorted(set(rows["organ"]) & (set(BLOOD) - {matrix}))
    if others:
        notes.append(f"{label}: {', '.join(others)} beside {matrix} was left out; whole blood is what vessels hold")
    absolute = bool(unit in _SHARES or (unit is None and (blood["unit"] == "pct_id_per_g").any()))
    wanted = blood[blood["unit"] == "pct_id_per_g"] if absolute else blood[~blood["unit"].isin(_SHARES)]
    if len(wanted) < len(blood):
        notes.append(f"{label}: blood in {', '.join(sorted(set(blood['unit'])))} was left out where it does not match its "
                     f"organs ({unit})")  # fmt: skip
    dropped = sorted(set(amounts["unit"]) - {unit})
    if dropped:
        whys = {
            "pct_recovered": "shares of the recovered signal have no fixed denominator",
            "pct_id_per_g": "give masses",
        }
        told = [f"{u} ({whys.get(u, f'the others are in {unit}')})" for u in dropped]
        notes.append(f"{label}: organs in {', '.join(told)} were left out")
    if wanted["unit"].nunique() > 1:
        notes.append(f"{label}: blood comes in several units, so it was left out; use one")
        wanted = wanted.iloc[:0]
    parts = {"blood": wanted} if len(wanted) else {}
    kept = amounts[amounts["unit"] == unit] if unit else amounts.iloc[:0]
    return parts | {str(organ): part for organ, part in kept.groupby("organ", sort=True)}, absolute


def _whole_organs(amounts: pd.DataFrame, weighed: pd.DataFrame) -> pd.DataFrame:
    """Return amounts with concentrations of weighed organs turned into amounts, where those are not given already."""
    import pandas as pd

    key = ["subject", "organ", "time_h"]
    given = pd.MultiIndex.from_frame(amounts.loc[amounts["unit"] == "pct_id", key])
    new = weighed[~pd.MultiIndex.from_frame(weighed[key]).isin(given)]
    scaled = {k: new[k] * new["mass_g"] for k in ("value", "se", "se_systematic", "sd", "vessel_blood")}
    rest = amounts.drop(index=weighed.index)
    return pd.concat([rest, new.assign(unit="pct_id", **scaled)])


def _rows_of(rows: pd.DataFrame, species: str) -> FitData:
    """Return an arm's rows with the vessels' blood put back, and without the error of taking it out."""
    inside = rows["vessel_blood"].fillna(0.0).to_numpy(float)
    spread = rows["matrix"].map({o: _vessel_range(species, str(o)) for o in rows["matrix"].unique()}).to_numpy(float)
    systematic = rows["se_systematic"].fillna(0.0).to_numpy(float)
    own = np.sqrt(np.maximum(systematic**2 - (inside * spread) ** 2, 0.0))
    own[own < 1e-6 * np.abs(systematic)] = 0.0
    rows = rows.assign(value=rows["value"] + inside, se_systematic=own)
    names = sorted(set(rows["matrix"]), key=lambda m: (m != "blood", m))
    return gather([(name, rows[rows["matrix"] == name]) for name in names])


def _animals(rows: pd.DataFrame) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what stands behind each number of an animal, in the order of `gather`, and which of them are animals."""
    known = sorted(set(clusters(rows)))
    names = tuple(who if time < 0 else f"{who} at {time:g} h" for who, time in known)
    return names, frozenset(who for who, time in known if time < 0)


def _vessel_range(species: str, organ: str) -> float:
    """Return the relative error with which the blood in an organ's vessels was subtracted."""
    known = physiology(species, organ, "regional_blood_fraction")
    return known.se / known.middle if known else 0.0


def _vessel_sd(species: str, organ: str) -> float:
    return max(_vessel_range(species, organ), 0.1)


def _grams(rows: pd.DataFrame, blood: pd.DataFrame) -> list[float]:
    """Return the blood in an organ's vessels by each row: what was subtracted over the concentration in blood."""
    level = blood.set_index(["subject", "time_h"])["value"]
    level = level[~level.index.duplicated()]
    at = level.reindex(list(zip(rows["subject"], rows["time_h"], strict=True))).to_numpy(float)
    amount = rows["vessel_blood"].to_numpy(float)
    good = np.isfinite(at) & (at > 0) & (amount > 0)
    return list((amount[good] / at[good]).tolist())
