"""Corrections of observations before kinetics: physical decay, and blood in the organs' vessels.

Both act on rows of the observations table, so that someone who enters with a gamma counter gets
the same as someone who enters with images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from evbiodist.study import units
from evbiodist.study.constants import physiology
from evbiodist.study.flags import join, split
from evbiodist.study.model import Label, Observation
from evbiodist.study.vocabulary import BLOOD, NOT_ORGANS

#: Density of blood over that of tissue: g blood per mL blood over g tissue per mL tissue; ICRP 89: blood 1.06, soft tissue 1.04-1.06.
BLOOD_DENSITY_RATIO = 1.06 / 1.05
#: Fields of an observation that carry its unit.
_QUANTITIES = ("value", "se", "se_systematic", "sd", "lloq", "vessel_blood")


def decay_factor(label: Label, time_h: float) -> float:
    """Return the factor that brings an activity back to the time of injection.

    Examples
    --------
    >>> round(decay_factor(Label(kind="radioactive", isotope="99mTc"), 6.015), 6)
    2.0
    >>> decay_factor(Label(kind="fluorescence"), 6.0)
    1.0
    """
    return 1.0 if label.half_life_h is None else float(2.0 ** (time_h / label.half_life_h))


def correct_decay(rows: Iterable[Observation], labels: Mapping[str, Label]) -> list[Observation]:
    """Correct rows for physical decay to the time of injection; rows of stable labels pass unchanged."""
    done = []
    for r in rows:
        factor = decay_factor(labels[r.label], r.time_h)
        if factor == 1.0 and labels[r.label].half_life_h is None:
            done.append(r)
            continue
        scaled = {k: getattr(r, k) * factor for k in _QUANTITIES if getattr(r, k) is not None}
        done.append(r.model_copy(update={**scaled, "flags": join({*split(r.flags), "decay_corrected"})}))
    return done


def who(row: Observation) -> tuple[str, str, str]:
    """Return what names an animal with a label, or a pool: (group, subject, label)."""
    return row.group, row.subject, row.label


def share_of_dose(
    rows: Iterable[Observation], doses: Mapping[tuple[str, str, str], tuple[float, str]]
) -> list[Observation]:
    """Turn activities in Bq into % of the injected dose where the dose is known as an activity.

    Parameters
    ----------
    rows : decay corrected; rows in other units pass unchanged.
    doses : (dose, unit) by (group, subject, label).

    Examples
    --------
    >>> row = Observation(subject="a", label="x", organ="liver", time_h=1, value=5e5, unit="bq")
    >>> [(r.value, r.unit) for r in share_of_dose([row], {("all", "a", "x"): (1.0, "MBq")})]
    [(50.0, 'pct_id')]
    """
    done = []
    for r in rows:
        dose, unit = doses.get(who(r), (0.0, ""))
        factor = units.activity_bq(dose, unit) if r.unit == "bq" and unit else None
        if not factor:
            done.append(r)
            continue
        scaled = {k: getattr(r, k) * 100 / factor for k in _QUANTITIES if getattr(r, k) is not None}
        done.append(r.model_copy(update={**scaled, "unit": "pct_id"}))
    return done


def blood_per_gram(rows: Iterable[Observation]) -> list[Observation]:
    """Turn % of dose in a weighed blood sample into the concentration in blood, `pct_id_per_g`.

    An amount of blood is that of the sample on the bench, never that of the animal.

    Examples
    --------
    >>> row = Observation(subject="a", label="x", organ="blood", time_h=1, value=2.0, unit="pct_id", mass_g=0.1)
    >>> [(r.value, r.unit) for r in blood_per_gram([row])]
    [(20.0, 'pct_id_per_g')]
    """
    done = []
    for r in rows:
        if r.organ in BLOOD and r.unit == "pct_id" and r.mass_g:
            scaled = {k: getattr(r, k) / r.mass_g for k in _QUANTITIES if getattr(r, k) is not None}
            r = r.model_copy(update={**scaled, "unit": "pct_id_per_g"})
        done.append(r)
    return done


def subtract_vessel_blood(
    rows: Iterable[Observation], species: str, perfused: Mapping[tuple[str, str, str], bool]
) -> list[Observation]:
    """Subtract the blood in the vessels of organs that were not perfused.

    Parameters
    ----------
    rows : observations in `pct_id` or `pct_id_per_g`; others pass unchanged.
    species : for the regional blood fraction of each organ (package data, with its published range).
    perfused : by (group, subject, label); animals not named count as not perfused.

    Returns
    -------
    list of Observation : with the amount subtracted in `vessel_blood` and the flag `blood_subtracted`. The
        blood fraction is the middle of its published range, the range goes to `se_systematic`, the error of
        the blood value to `se`. Where
        blood, the organ's mass or its blood fraction is not known, the row keeps its value and is flagged
        `blood_in_organ`.

    Whole blood, not plasma: vesicles bind leukocytes (Driedonks 2022, J Extracell Bio 1:e59). Regional blood:
    Brown 1997 (Toxicol Ind Health 13:407), table 30.

    Examples
    --------
    >>> blood = Observation(subject="a", label="x", organ="blood", time_h=1, value=20.0, unit="pct_id_per_g")
    >>> brain = Observation(subject="a", label="x", organ="brain", time_h=1, value=1.0, unit="pct_id_per_g")
    >>> done = subtract_vessel_blood([blood, brain], "mouse", {})[1]
    >>> round(done.value, 4), round(done.vessel_blood, 4)
    (0.2933, 0.7067)
    """
    rows = list(rows)
    blood = {(*who(r), r.study, r.time_h): r for r in rows
             if r.organ == "blood" and r.unit == "pct_id_per_g" and r.value is not None}  # fmt: skip
    done = []
    for r in rows:
        tissue = r.organ not in NOT_ORGANS
        relative = r.unit in {"pct_id", "pct_id_per_g"} and r.value is not None
        if not tissue or not relative or perfused.get(who(r), False) or "blood_subtracted" in r.flags:
            done.append(r)
            continue
        done.append(_less_blood(r, blood.get((*who(r), r.study, r.time_h)), species))
    return done


def _less_blood(r: Observation, blood: Observation | None, species: str) -> Observation:
    fraction = physiology(species, r.organ, "regional_blood_fraction")
    mass = 1.0 if r.unit == "pct_id_per_g" else r.mass_g
    if blood is None or blood.value is None or fraction is None or mass is None or r.value is None:
        return r.model_copy(update={"flags": join({*split(r.flags), "blood_in_organ"})})
    share = mass * BLOOD_DENSITY_RATIO
    amount = share * fraction.middle * blood.value
    value = r.value - amount
    own = share * fraction.middle * (blood.se or 0.0)
    known = {"se": math.hypot(r.se, own)} if r.se is not None else {}
    flags = {*split(r.flags), "blood_subtracted"} | ({"negative"} if value < 0 else set())
    flags |= {"no_range"} if fraction.se == 0 else {"systematic"}
    systematic = math.hypot(r.se_systematic or 0.0, share * fraction.se * blood.value)
    return r.model_copy(update={"value": value, "vessel_blood": amount, "se_systematic": systematic,
                                "flags": join(flags), **known})  # fmt: skip
