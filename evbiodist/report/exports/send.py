"""CDISC SEND: concentrations (PC), parameters (PP), and the domains they refer to, as SAS transport files.

SEND Implementation Guide 3.1.1, sections 6.3.12 (PC) and 6.3.13 (PP). Codes of parameters stand beside their formulas in
`evbiodist.kinetics.nca.parameters`; terms of organs, routes and units in data/send_terms.csv.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any

from evbiodist.kinetics.nca.parameters import PARAMETERS
from evbiodist.report.exports.registry import Exported
from evbiodist.report.exports.xpt import LONGEST, ascii_text, xpt_bytes
from evbiodist.report.folder import ResultFolder, provenance, rows_of

Row = dict[str, Any]
_ID = {"STUDYID": "Study Identifier", "DOMAIN": "Domain Abbreviation"}
_WHO = {"USUBJID": "Unique Subject Identifier", "POOLID": "Pool Identifier"}

#: Labels of variables by domain, in the order of the implementation guide.
VARIABLES: dict[str, dict[str, str]] = {
    "TS": {**_ID, "TSSEQ": "Sequence Number", "TSGRPID": "Group Identifier", "TSPARMCD": "Trial Summary Parameter Short Name",
           "TSPARM": "Trial Summary Parameter", "TSVAL": "Parameter Value", "TSVALNF": "Parameter Null Flavor"},
    "DM": {**_ID, "USUBJID": "Unique Subject Identifier", "SUBJID": "Subject Identifier for the Study",
           "RFSTDTC": "Subject Reference Start Date/Time", "SEX": "Sex", "SPECIES": "Species", "STRAIN": "Strain/Substrain",
           "ARMCD": "Planned Arm Code", "ARM": "Description of Planned Arm", "SETCD": "Set Code"},
    "EX": {**_ID, "USUBJID": "Unique Subject Identifier", "EXSEQ": "Sequence Number", "EXTRT": "Name of Treatment",
           "EXDOSE": "Dose", "EXDOSU": "Dose Units", "EXDOSFRM": "Dose Form", "EXDOSFRQ": "Dosing Frequency per Interval",
           "EXROUTE": "Route of Administration", "EXLOT": "Lot Number", "EXSTDTC": "Start Date/Time of Treatment",
           "EXDUR": "Duration of Treatment"},
    "PC": {**_ID, **_WHO, "PCSEQ": "Sequence Number", "PCGRPID": "Group Identifier", "PCREFID": "Sample Identifier",
           "PCTESTCD": "Test Short Name", "PCTEST": "Test Name", "PCCAT": "Category for Test",
           "PCORRES": "Result or Findings as Collected", "PCORRESU": "Unit of the Original Result",
           "PCSTRESC": "Standardized Result in Character Format", "PCSTRESN": "Standardized Result in Numeric Format",
           "PCSTRESU": "Unit of the Standardized Result", "PCSTAT": "Completion Status", "PCREASND": "Reason Not Done",
           "PCSPEC": "Specimen Material Type", "PCLLOQ": "Lower Limit of Quantitation",
           "PCNOMDY": "Nominal Study Day for Tabulations", "PCTPT": "Planned Time Point Name",
           "PCTPTNUM": "Planned Time Point Number", "PCELTM": "Planned Elapsed Time from Time Point Ref",
           "PCTPTREF": "Time Point Reference"},
    "PP": {**_ID, **_WHO, "PPSEQ": "Sequence Number", "PPGRPID": "Group Identifier", "PPTESTCD": "Parameter Short Name",
           "PPTEST": "Parameter Name", "PPCAT": "Parameter Category", "PPORRES": "Result or Findings as Collected",
           "PPORRESU": "Unit of the Original Result", "PPSTRESC": "Standardized Result in Character Format",
           "PPSTRESN": "Standardized Result in Numeric Format", "PPSTRESU": "Unit of the Standardized Result",
           "PPSTAT": "Completion Status", "PPREASND": "Reason Not Done", "PPSPEC": "Specimen Material Type",
           "PPNOMDY": "Nominal Study Day for Tabulations", "PPTPTREF": "Time Point Reference"},
    "POOLDEF": {"STUDYID": "Study Identifier", "POOLID": "Pool Identifier", "USUBJID": "Unique Subject Identifier"},
    "RELREC": {"STUDYID": "Study Identifier", "RDOMAIN": "Related Domain Abbreviation", **_WHO,
               "IDVAR": "Identifying Variable", "IDVARVAL": "Identifying Variable Value", "RELTYPE": "Relationship Type",
               "RELID": "Relationship Identifier"},
    "SUPPPP": {"STUDYID": "Study Identifier", "RDOMAIN": "Related Domain Abbreviation", **_WHO,
               "IDVAR": "Identifying Variable", "IDVARVAL": "Identifying Variable Value", "QNAM": "Qualifier Variable Name",
               "QLABEL": "Qualifier Variable Label", "QVAL": "Data Value", "QORIG": "Origin"},
}  # fmt: skip
_TITLES = {"TS": "Trial Summary", "DM": "Demographics", "EX": "Exposure", "PC": "Pharmacokinetics Concentrations",
           "PP": "Pharmacokinetics Parameters", "POOLDEF": "Pool Definition", "RELREC": "Related Records",
           "SUPPPP": "Supplemental Qualifiers for PP"}  # fmt: skip
_QUALIFIERS = {"se": ("PPSE", "Standard Error"), "ci_low": ("PPCILOW", "Lower End of Interval"),
               "ci_high": ("PPCIHIGH", "Upper End of Interval"), "n": ("PPN", "Values Behind the Result"),
               "method": ("PPMETHOD", "Method"), "flags": ("PPFLAGS", "Quality Flags")}  # fmt: skip
_DOSE = "DOSE"


@lru_cache(maxsize=1)
def terms() -> dict[tuple[str, str], str]:
    """Return terms of the controlled terminology by codelist and our word.

    Examples
    --------
    >>> terms()["SPEC", "faeces"]
    'FECES'
    """
    with (files("evbiodist") / "data" / "send_terms.csv").open(encoding="utf-8") as handle:
        return {(r["codelist"], r["name"]): r["term"] for r in csv.DictReader(handle)}


@dataclass
class _Submission:
    """What all domains share: the study's name, codes of animals, pools and labels, and what has to be told."""

    results: ResultFolder
    study: str
    animals: dict[str, str] = field(default_factory=dict)
    pools: dict[tuple[str, str, str], str] = field(default_factory=dict)
    analytes: dict[str, str] = field(default_factory=dict)
    own_terms: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def term(self, codelist: str, word: str) -> str:
        """Return the term of a word; a codelist that may be extended takes the word itself, which is told."""
        known = terms().get((codelist, word))
        if known is not None:
            return known
        own = _unit(word) if codelist == "UNIT" else ascii_text(word.replace("_", " ").upper())
        self.own_terms.add(f"{codelist}: {own}")
        return own

    def who(self, subject: str, group: str, label: str) -> Row:
        """Return the identifier of an animal or of a pool."""
        pool = self.pools.get((subject, group, label))
        return {"USUBJID": None if pool else self.animals[subject], "POOLID": pool}


def export(results: ResultFolder, options: Mapping[str, Any]) -> Exported:
    """Return transport files of TS, DM, EX, PC, PP, POOLDEF, RELREC and SUPPPP, and a guide for the reviewer.

    Parameters
    ----------
    results : of a run.
    options : none.

    Notes
    -----
    Values below the limit of quantification have ``BLQ`` as their text and no number. Parameters of animals sacrificed one
    by one belong to a pool of them. Standard errors and intervals, for which PP has no place, are qualifiers in SUPPPP.
    """
    study = _Submission(results, ascii_text(str(results.study["name"]), 40).upper() or "STUDY")
    _name_animals(study)
    study.analytes = _codes(results["observations"]["label"].unique() if len(results["observations"]) else ())
    domains = {"TS": _ts(study), "DM": _dm(study), "EX": _ex(study), "PC": _pc(study), "PP": _pp(study)}
    domains["POOLDEF"] = [{"STUDYID": study.study, "POOLID": pool, "USUBJID": study.animals[s]}
                          for (_, group, label), pool in sorted(study.pools.items(), key=lambda p: p[1])
                          for s in _members(results, group, label)]  # fmt: skip
    domains["RELREC"] = _relrec(study, domains["PC"], domains["PP"])
    domains["SUPPPP"] = _supppp(study, domains["PP"])
    stamp = _stamp(results)
    made = {f"{name.lower()}.xpt": xpt_bytes(name, _TITLES[name], VARIABLES[name], rows, stamp)
            for name, rows in domains.items() if rows}  # fmt: skip
    notes = tuple(_told(study, domains))
    return Exported({**made, "reviewers_guide.md": _guide(study, domains, notes)}, notes)


def _stamp(results: ResultFolder) -> datetime:
    ended = str(provenance(results.path).get("ended", ""))
    return datetime.fromisoformat(ended) if ended else datetime(2000, 1, 1, tzinfo=UTC)


def _members(results: ResultFolder, group: str, label: str) -> list[str]:
    """Return the animals of a group with a label, as far as single ones are known."""
    seen = results["observations"]
    here = seen[(seen["group"] == group) & (seen["label"] == label)]["subject"].unique() if len(seen) else ()
    known = {s["subject"] for s in results.study.get("subjects", [])}
    return [s for s in here if s in known or (not known and s not in ("pooled", "mean"))]


def _name_animals(study: _Submission) -> None:
    """Give every animal and every pool an identifier."""
    results = study.results
    told = [s["subject"] for s in results.study.get("subjects", [])]
    seen = list(results["observations"]["subject"].unique()) if len(results["observations"]) else []
    pooled = {"pooled", "pooled_rest", "mean"}
    taken: set[str] = set()
    for name in dict.fromkeys(n for n in (*told, *seen) if n not in pooled):
        study.animals[name] = _free(f"{study.study}-{ascii_text(name, 40)}", taken)
    number = 0
    for table in ("observations", "parameters"):
        rows = results[table]
        for row in rows_of(rows[rows["subject"].isin(pooled)] if len(rows) else rows):
            if (row.subject, row.group, row.label) not in study.pools:
                number += 1
                study.pools[row.subject, row.group, row.label] = f"{study.study}-POOL{number}"


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free


def _codes(labels: Iterable[str]) -> dict[str, str]:
    """Return a short code for every label: eight capital letters and digits at most, a letter first, none twice.

    Examples
    --------
    >>> _codes(["111In", "DiR", "dir"])
    {'111In': 'L111IN', 'DiR': 'DIR', 'dir': 'DIR2'}
    """
    codes: dict[str, str] = {}
    for label in labels:
        plain = re.sub(r"[^A-Z0-9]", "", ascii_text(label).upper()) or "LABEL"
        plain = plain if plain[0].isalpha() else f"L{plain}"
        number, code = 1, plain[:8]
        while code in codes.values():
            number += 1
            code = f"{plain[: 8 - len(str(number))]}{number}"
        codes[label] = code
    return codes


def _unit(unit: str) -> str:
    """Return our unit as CDISC writes units: ``*`` for products, ``/`` for shares, percent of the dose as %ID.

    Examples
    --------
    >>> _unit("pct_id_per_g*h"), _unit("pct_id_per_g*h^2"), _unit("p_per_s")
    ('h*%ID/g', 'h2*%ID/g', 'photons/s')
    """
    names = {
        "pct_id": "%ID",
        "pct_id_per_g": "%ID/g",
        "pct_recovered": "%RECOVERED",
        "p_per_s": "photons/s",
        "au": "AU",
    }
    what, _, time = unit.partition("*")
    what = names.get(what, what)
    return f"{time.replace('^', '')}*{what}" if time else what


def _place(study: _Submission, domain: str) -> Row:
    return {"STUDYID": study.study, "DOMAIN": domain}


def _ts(study: _Submission) -> list[Row]:
    about = study.results.study
    routes = sorted({s["route"] for s in about.get("subjects", [])} | {s["route"] for s in about.get("sources", [])})
    said = [("SNDIGVER", "SEND Implementation Guide Version", "SEND IMPLEMENTATION GUIDE VERSION 3.1.1"),
            ("STITLE", "Study Title", ascii_text(str(about.get("description") or about["name"]))),
            ("SPECIES", "Species", study.term("SPECIES", str(about.get("species", "")))),
            *(("ROUTE", "Route of Administration", study.term("ROUTE", route)) for route in routes)]  # fmt: skip
    return [{**_place(study, "TS"), "TSSEQ": i, "TSPARMCD": code, "TSPARM": name, "TSVAL": value}
            for i, (code, name, value) in enumerate(said, 1)]  # fmt: skip


def _dm(study: _Submission) -> list[Row]:
    told = {s["subject"]: s for s in reversed(study.results.study.get("subjects", []))}
    rows = []
    for name, code in study.animals.items():
        s = told.get(name, {})
        arm = ascii_text(s.get("group", "all"), 40)
        rows.append({**_place(study, "DM"), "USUBJID": code, "SUBJID": ascii_text(name, 40), "RFSTDTC": None,
                     "SEX": study.term("SEX", s.get("sex", "unknown")),
                     "SPECIES": study.term("SPECIES", s.get("species") or study.results.study.get("species", "")),
                     "STRAIN": None, "ARMCD": arm[:20].upper(), "ARM": arm, "SETCD": arm[:8].upper()})  # fmt: skip
    return sorted(rows, key=lambda r: r["USUBJID"])


def _ex(study: _Submission) -> list[Row]:
    rows, counts = [], dict.fromkeys(study.animals.values(), 0)
    for s in study.results.study.get("subjects", []):
        code = study.animals[s["subject"]]
        counts[code] += 1
        hours = s.get("infusion_h")
        rows.append({**_place(study, "EX"), "USUBJID": code, "EXSEQ": counts[code],
                     "EXTRT": f"VESICLES WITH {ascii_text(s['label']).upper()}", "EXDOSE": s["dose"],
                     "EXDOSU": study.term("UNIT", s["dose_unit"]), "EXDOSFRM": "SUSPENSION", "EXDOSFRQ": "ONCE",
                     "EXROUTE": study.term("ROUTE", s["route"]), "EXLOT": s.get("batch") or None,
                     "EXDUR": _duration(hours) if hours else None})  # fmt: skip
    return sorted(rows, key=lambda r: (r["USUBJID"], r["EXSEQ"]))


def _duration(hours: float) -> str:
    """Return hours as ISO 8601 writes them, to the second where they are no whole minutes.

    Examples
    --------
    >>> _duration(0.5), _duration(24.0), _duration(0.083), _duration(1.75)
    ('PT30M', 'PT24H', 'PT4M59S', 'PT1H45M')
    """
    seconds = round(hours * 3600)
    h, m, s = seconds // 3600, seconds // 60 % 60, seconds % 60
    return "PT" + "".join(f"{n}{u}" for n, u in ((h, "H"), (m, "M"), (s, "S")) if n) if seconds else "PT0S"


def _curve(study: _Submission, row: Any, unit: str) -> str:
    """Return the group identifier that a curve's values and parameters share."""
    return ascii_text(f"{row.group}/{study.analytes[row.label]}/{row.organ}/{_unit(unit)}")


def _pc(study: _Submission) -> list[Row]:
    seen = study.results["observations"]
    times = {t: i for i, t in enumerate(sorted(seen["time_h"].unique()), 1)} if len(seen) else {}
    rows = []
    for r in rows_of(seen):
        who = study.who(r.subject, r.group, r.label)
        below = r.below_lloq == "yes"
        missing = math.isnan(r.value)
        text = "BLQ" if below else None if missing else repr(float(r.value))
        limit = None if math.isnan(r.lloq) else float(r.lloq)
        rows.append({
            **_place(study, "PC"), **who, "PCGRPID": _curve(study, r, r.unit), "PCREFID": ascii_text(r.source, 40) or None,
            "PCTESTCD": study.analytes[r.label], "PCTEST": ascii_text(r.label, 40), "PCCAT": "ANALYTE",
            "PCORRES": text, "PCORRESU": study.term("UNIT", r.unit) if text else None,
            "PCSTRESC": f"<{limit!r}" if below and limit is not None else text,
            "PCSTRESN": None if below or missing else float(r.value), "PCSTRESU": study.term("UNIT", r.unit) if text else None,
            "PCSTAT": None if text else "NOT DONE", "PCREASND": None if text else "no value in the observations",
            "PCSPEC": study.term("SPEC", r.organ), "PCLLOQ": limit, "PCNOMDY": int(r.time_h // 24) + 1,
            "PCTPT": f"{r.time_h:g} H POST DOSE", "PCTPTNUM": times[r.time_h], "PCELTM": _duration(r.time_h), "PCTPTREF": _DOSE,
        })  # fmt: skip
    return _numbered(rows, "PCSEQ", ("PCTESTCD", "PCSPEC", "PCTPTNUM", "PCGRPID"))


def _numbered(rows: list[Row], sequence: str, by: Sequence[str]) -> list[Row]:
    """Sort rows by animal, pool and `by`, and number them within each animal or pool."""
    rows = sorted(rows, key=lambda r: [r["USUBJID"] or "", r["POOLID"] or "", *(r[k] for k in by)])
    counts: dict[tuple[Any, Any], int] = {}
    for row in rows:
        who = (row["USUBJID"], row["POOLID"])
        counts[who] = row[sequence] = counts.get(who, 0) + 1
    return rows


def _pp(study: _Submission) -> list[Row]:
    table = study.results["parameters"]
    if not len(table):
        return []
    nca = table[table["model"] == "nca"]
    kind = nca[nca["parameter"] == "cmax"].set_index(["subject", "group", "label", "organ"])["unit"]
    kind = kind[~kind.index.duplicated()]
    routes = {(s["subject"], s["label"]): s["route"] for s in study.results.study.get("subjects", [])}
    rows, without = [], set()
    for r in rows_of(nca):
        known = PARAMETERS.get(r.parameter)
        who = study.who(r.subject, r.group, r.label)
        if known is None or not known.cdisc:
            without.add(r.parameter)
            continue
        members = _members(study.results, r.group, r.label) if who["POOLID"] else [r.subject]
        route = next((routes[m, r.label] for m in members if (m, r.label) in routes), "iv_bolus")
        code, test = known.code(route)
        missing = math.isnan(r.value)
        value = None if missing else float(r.value)
        unit = study.term("UNIT", r.unit) if r.unit and not missing else None
        text = None if missing else repr(value)
        curve = kind.get((r.subject, r.group, r.label, r.organ), "")
        rows.append({
            **_place(study, "PP"), **who, "PPGRPID": _curve(study, r, str(curve)), "PPTESTCD": code, "PPTEST": test[:40],
            "PPCAT": ascii_text(r.label, 40), "PPORRES": text, "PPORRESU": unit or None, "PPSTRESC": text, "PPSTRESN": value,
            "PPSTRESU": unit or None, "PPSTAT": "NOT DONE" if missing else None,
            "PPREASND": ascii_text(r.reason) if missing else None, "PPSPEC": study.term("SPEC", r.organ), "PPNOMDY": 1,
            "PPTPTREF": _DOSE, "_row": r,
        })  # fmt: skip
    if without:
        study.notes.append(f"parameters without a CDISC code were left out: {', '.join(sorted(without))}")
    return _numbered(rows, "PPSEQ", ("PPCAT", "PPSPEC", "PPGRPID", "PPTESTCD"))


def _supppp(study: _Submission, parameters: Sequence[Row]) -> list[Row]:
    """Return what PP has no variable for: errors, intervals, numbers, methods and flags."""
    rows = []
    for p in parameters:
        for column, (name, label) in _QUALIFIERS.items():
            value = getattr(p["_row"], column)
            if p["PPSTRESN"] is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                continue
            text = value if isinstance(value, str) else str(int(value)) if column == "n" else repr(float(value))
            rows.append({"STUDYID": study.study, "RDOMAIN": "PP", "USUBJID": p["USUBJID"], "POOLID": p["POOLID"],
                         "IDVAR": "PPSEQ", "IDVARVAL": str(p["PPSEQ"]), "QNAM": name, "QLABEL": label,
                         "QVAL": ascii_text(text), "QORIG": "DERIVED"})  # fmt: skip
    return rows


def _relrec(study: _Submission, values: Sequence[Row], parameters: Sequence[Row]) -> list[Row]:
    """Return that parameters come from the values of the same group identifier (and, for pools, of POOLDEF's animals)."""
    both = {r["PCGRPID"] for r in values} & {r["PPGRPID"] for r in parameters}
    return [{"STUDYID": study.study, "RDOMAIN": domain, "USUBJID": None, "POOLID": None, "IDVAR": f"{domain}GRPID",
             "IDVARVAL": None, "RELTYPE": "MANY", "RELID": "PCPP"} for domain in ("PC", "PP")] if both else []  # fmt: skip


def _told(study: _Submission, domains: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return what a reviewer has to know."""
    results = study.results
    told = [
        *study.notes,
        "dates, strain, age and trial design (TA, TE, TX, SE) are not in the study: add them before submission",
    ]
    if not results.study.get("subjects"):
        told.append("the results hold no table of animals: sex is U, and EX is empty")
    if study.own_terms:
        told.append(f"terms outside the published codelists: {'; '.join(sorted(study.own_terms))}")
    texts = {str(v) for t in ("observations", "parameters") for c in ("subject", "group", "label", "reason", "flags")
             if c in results[t] for v in results[t][c].unique()}  # fmt: skip
    changed = sorted(t for t in texts if ascii_text(t) != " ".join(t.split()))
    if changed:
        shown = "; ".join(f"'{ascii_text(t, 60)}'" for t in changed[:5])
        told.append(
            f"{len(changed)} texts are not ASCII or longer than {LONGEST} characters, and were changed: {shown}"
        )
    if len(domains["PC"]) != sum(r["PCSTRESN"] is not None for r in domains["PC"]):
        told.append("values below the limit of quantification are BLQ without a number")
    return told


def _guide(study: _Submission, domains: Mapping[str, Sequence[Row]], notes: Iterable[str]) -> bytes:
    """Return the guide for the reviewer as Markdown."""
    lines = [f"# Reviewer's guide: {study.study}", "", "| domain | records |", "|---|---|",
             *(f"| {name} | {len(rows)} |" for name, rows in domains.items()), "",
             "Identifiers of labels (PCTESTCD):", "", *(f"- {code}: {ascii_text(label)}" for label, code in study.analytes.items()),
             "", "What to know:", "", *(f"- {note}" for note in notes), "", "No regulatory compliance is claimed.", ""]  # fmt: skip
    return "\n".join(lines).encode()
