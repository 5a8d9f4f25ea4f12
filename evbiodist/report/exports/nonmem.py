"""Data sets for NONMEM (and nlmixr2, Pumas) and Monolix: one record a dose or value, numbers only, codes in a dictionary.

Values in % of the dose go with doses of 100 (%); values in other units go with doses as given. NM-TRAN's rules: records of
an individual stand together in the order of time, its dose first; a missing item is a full stop; the header line begins
with a letter and is skipped by ``IGNORE=@``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evbiodist.batch.store import csv_bytes
from evbiodist.report.exports.registry import Exported
from evbiodist.report.exports.xpt import ascii_text
from evbiodist.report.folder import ResultFolder, rows_of
from evbiodist.study.vocabulary import BLOOD

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
_POOLED = ("pooled", "pooled_rest", "mean")
_SEX = {"unknown": 0, "F": 1, "M": 2}
#: Columns of the NONMEM set with what they are.
NONMEM = {
    "ID": "individual: an animal with one label (ids.csv)", "TIME": "h after the dose", "AMT": "dose: 100 (%), or as given",
    "RATE": "rate of an infusion; 0 for a bolus", "EVID": "1 dose, 0 value", "MDV": "1 where DV is no value",
    "CMT": "1: the dose goes into, and blood is read in, the first compartment", "DVID": "what is read (dictionary.csv)",
    "DV": "value; the limit where it is below", "SE": "its standard error", "BLQ": "1 below the limit of quantification",
    "LLOQ": "the limit", "LABEL": "label (dictionary.csv)", "GROUP": "group (dictionary.csv)", "SEX": "0 unknown, 1 F, 2 M",
    "WT": "body weight, g", "DOSE": "dose as given",
}  # fmt: skip
#: Columns of the Monolix set: (type in Monolix, what they are).
MONOLIX = {
    "ID": ("id", NONMEM["ID"]), "TIME": ("time", NONMEM["TIME"]), "AMT": ("amount", NONMEM["AMT"]),
    "TINF": ("infusion duration", "h; missing for a bolus"), "Y": ("observation", NONMEM["DV"]),
    "YTYPE": ("observation id", NONMEM["DVID"]), "CENS": ("censoring", "1: below Y"), "LIMIT": ("limit", "0, where censored"),
    "LABEL": ("categorical covariate", "label"), "GROUP": ("categorical covariate", "group"),
    "SEX": ("categorical covariate", "F, M or unknown"), "WT": ("continuous covariate", NONMEM["WT"]),
    "DOSE": ("continuous covariate", NONMEM["DOSE"]),
}  # fmt: skip


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return the data set, who and what its codes are, and for NONMEM a control stream to start from.

    Parameters
    ----------
    results : of a run.
    options : ``format``: ``nonmem`` or ``monolix``.

    Notes
    -----
    Bauer RJ, CPT Pharmacometrics Syst Pharmacol 2019;8:525 (NONMEM); Monolix, data format.
    """
    seen, notes = results["observations"], []
    if len(seen):
        pooled = seen["subject"].isin(_POOLED)
        if pooled.any():
            notes.append(
                f"{int(pooled.sum())} values are means of several animals, which a data set of individuals has no room for"
            )
        seen = seen[~pooled & (seen["value"].notna() | (seen["below_lloq"] == "yes"))]
    people = _individuals(results, seen)
    share = len(seen) > 0 and seen["unit"].str.startswith("pct_id").any()
    other = sorted(set(seen["unit"]) - {"pct_id", "pct_id_per_g"}) if len(seen) else []
    if share and other:
        notes.append(f"doses are 100 (% of the dose), with which values in {', '.join(other)} do not go")
    without = sum("dose" not in s for _, _, s in people)
    if without:
        notes.append(f"{without} individuals have no dose record: the results hold no dose for them")
    codes = _codes(seen)
    events = _events(people, seen, codes, share=bool(share))
    made = {"dictionary.csv": _dictionary(codes), "ids.csv": _ids(people)}
    if options["format"] == "monolix":
        about = [{"column": c, "type": kind, "meaning": meaning} for c, (kind, meaning) in MONOLIX.items()]
        made |= {"data.csv": _dotted([_for_monolix(e, codes) for e in events], list(MONOLIX)),
                 "columns.csv": csv_bytes(about, ("column", "type", "meaning"))}  # fmt: skip
    else:
        about = [{"column": c, "meaning": meaning} for c, meaning in NONMEM.items()]
        made |= {"data.csv": _dotted(events, list(NONMEM)), "columns.csv": csv_bytes(about, ("column", "meaning"))}
        number, control = _control(results, codes)
        if number:
            with_it = {e["ID"] for e in events if e.get("DVID") == number}
            mine = [e for e in events if e["ID"] in with_it and e.get("DVID", number) == number]
            made |= {"model.ctl": control, "model.csv": _dotted(mine, list(NONMEM))}
        else:
            notes.append("no control stream: no one- or two-compartment model was fitted to blood in % of dose per g")
    return Exported(made, tuple(notes))


def _individuals(results: ResultFolder, seen: pd.DataFrame) -> list[tuple[str, str, Row]]:
    """Return (animal, label, what is known of it) for every animal with values, in the order of their numbers."""
    told = {(s["subject"], s["label"]): s for s in results.study.get("subjects", [])}
    pairs = sorted(set(zip(seen["subject"], seen["label"], strict=True))) if len(seen) else []
    groups = (
        dict(zip(zip(seen["subject"], seen["label"], strict=True), seen["group"], strict=True)) if len(seen) else {}
    )
    return [(a, b, {**told.get((a, b), {}), "group": groups[a, b]}) for a, b in pairs]


def _codes(seen: pd.DataFrame) -> dict[str, dict[Any, int]]:
    """Return numbers for what is read, labels and groups, from 1 in sorted order."""
    kinds = sorted(set(zip(seen["label"], seen["organ"], seen["unit"], strict=True))) if len(seen) else []
    words = {name: sorted(set(seen[name])) if len(seen) else [] for name in ("label", "group")}
    return {"DVID": {k: i for i, k in enumerate(kinds, 1)},
            "LABEL": {k: i for i, k in enumerate(words["label"], 1)},
            "GROUP": {k: i for i, k in enumerate(words["group"], 1)}}  # fmt: skip


def _events(people: Sequence[tuple[str, str, Row]], seen: pd.DataFrame, codes: Mapping[str, Mapping[Any, int]], *,
            share: bool) -> list[Row]:  # fmt: skip
    """Return doses and values, an individual after the other, each in the order of time with the dose first."""
    rows: list[Row] = []
    values = dict(list(seen.groupby(["subject", "label"], sort=False))) if len(seen) else {}
    for number, (animal, label, s) in enumerate(people, 1):
        who = {"ID": number, "CMT": 1, "LABEL": codes["LABEL"][label], "GROUP": codes["GROUP"][s["group"]],
               "SEX": _SEX[s.get("sex", "unknown")], "WT": s.get("weight_g"), "DOSE": s.get("dose")}  # fmt: skip
        mine: list[Row] = []
        if "dose" in s:
            amount, hours = 100.0 if share else float(s["dose"]), s.get("infusion_h")
            mine.append(
                {**who, "TIME": 0.0, "AMT": amount, "RATE": amount / hours if hours else 0.0, "EVID": 1, "MDV": 1}
            )
        for r in rows_of(values[animal, label]):
            below = r.below_lloq == "yes"
            value = float(r.lloq if below else r.value)
            mine.append({**who, "TIME": float(r.time_h), "EVID": 0, "MDV": int(math.isnan(value)), "DV": value,
                         "DVID": codes["DVID"][r.label, r.organ, r.unit], "CMT": 1 if r.organ in BLOOD else 2, "SE": r.se,
                         "BLQ": int(below), "LLOQ": r.lloq})  # fmt: skip
        rows += sorted(mine, key=lambda e: (e["TIME"], -e["EVID"], e.get("DVID", 0)))
    return rows


def _dotted(rows: Iterable[Row], columns: Sequence[str]) -> bytes:
    """Return rows as CSV with a full stop for what is missing."""
    lines = [",".join(columns)]
    lines += [",".join(_item(row.get(c)) for c in columns) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _item(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "."
    return repr(float(value)) if isinstance(value, float) else str(value)


def _for_monolix(event: Row, codes: Mapping[str, Mapping[Any, int]]) -> Row:
    """Return an event in Monolix's columns; covariates in its sets are words without spaces or commas."""
    dose, below = event["EVID"] == 1, event.get("BLQ") == 1
    words = {name: _word(next(k for k, i in codes[name].items() if i == event[name])) for name in ("LABEL", "GROUP")}
    rate = event.get("RATE")
    return {"ID": event["ID"], "TIME": event["TIME"], "AMT": event.get("AMT"),
            "TINF": event["AMT"] / rate if dose and rate else None,
            "Y": event.get("DV"), "YTYPE": event.get("DVID"), "CENS": None if dose else int(below), "LIMIT": 0 if below else None,
            **words, "SEX": next(k for k, i in _SEX.items() if i == event["SEX"]), "WT": event["WT"],
            "DOSE": event["DOSE"]}  # fmt: skip


def _word(text: str) -> str:
    kept = "".join(c if c.isalnum() else "_" for c in ascii_text(text)).strip("_")
    return kept or "none"


def _ids(people: Sequence[tuple[str, str, Row]]) -> bytes:
    rows = [{"ID": i, "subject": a, "label": b, "group": s["group"]} for i, (a, b, s) in enumerate(people, 1)]
    return csv_bytes(rows, ("ID", "subject", "label", "group"))


def _dictionary(codes: Mapping[str, Mapping[Any, int]]) -> bytes:
    rows: list[Row] = []
    for column, words in codes.items():
        for key, number in words.items():
            label, organ, unit = key if column == "DVID" else (key, "", "")
            rows.append({"column": column, "code": number, "name": label, "organ": organ, "unit": unit})
    return csv_bytes(rows, ("column", "code", "name", "organ", "unit"))


#: Our models in the words of PREDPP: routine, parameters in the order of THETA, and their names there.
_PREDPP = {
    "two_compartment_iv": ("ADVAN3 TRANS4", (("cl", "CL"), ("v1", "V1"), ("q", "Q"), ("v2", "V2")), "S1=V1"),
    "one_compartment_iv": ("ADVAN1 TRANS2", (("cl", "CL"), ("v", "V")), "S1=V"),
}


def _control(results: ResultFolder, codes: Mapping[str, Mapping[Any, int]]) -> tuple[int, bytes]:
    """Return what is modelled, and a control stream, for the blood of the first label with a fitted model; 0 without one."""
    table = results["parameters"]
    for (label, organ, unit), number in codes["DVID"].items():
        if organ not in BLOOD or unit != "pct_id_per_g" or not len(table):
            continue
        for model, (routine, names, scale) in _PREDPP.items():
            fit = table[(table["model"] == model) & (table["label"] == label)].drop_duplicates("parameter")
            found = dict(zip(fit["parameter"], fit["value"], strict=True))
            if all(found.get(ours, math.nan) > 0 for ours, _ in names):
                what = f"{ascii_text(str(results.study['name']), 60)}: {ascii_text(label, 20)} in {organ}"
                return number, _stream(what, routine, [(theirs, found[ours]) for ours, theirs in names], scale)
    return 0, b""


def _stream(what: str, routine: str, parameters: Sequence[tuple[str, float]], scale: str) -> bytes:
    """Return a control stream that starts from the fitted values."""
    lines = [f"$PROBLEM {what}", "; doses are 100 (% of the dose), so volumes are g and clearances g/h",
             f"$INPUT {' '.join(NONMEM)}", "$DATA model.csv IGNORE=@ IGNORE=(BLQ.EQ.1)", f"$SUBROUTINES {routine}", "$PK",
             *(f"{name}=THETA({i})*EXP(ETA({i}))" for i, (name, _) in enumerate(parameters, 1)), scale,
             "$ERROR", "IPRED=F", "Y=IPRED*(1+EPS(1))",
             *(f"$THETA (0,{value:.6g}) ; {name}" for name, value in parameters),
             *(f"$OMEGA 0.1 ; {name}" for name, _ in parameters), "$SIGMA 0.04",
             "$ESTIMATION METHOD=1 INTERACTION MAXEVAL=9999", "$COVARIANCE"]  # fmt: skip
    return ("\n".join(lines) + "\n").encode()
