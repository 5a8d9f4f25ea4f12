"""A methods section from a result folder: what was done, in past tense, with the works it rests on.

A paragraph is there only if its step was done, so the text never tells of an analysis that this study lacks.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from evbiodist.report.checklists import (
    clean,
    column,
    dosing_rows,
    groups_of,
    names,
    organs_of,
    plural,
    routes_of,
    setting,
    subjects_of,
    table,
    times_of,
)
from evbiodist.report.folder import ResultFolder, provenance
from evbiodist.report.words import joined, number

_MOST = 12
_ROUTES = {"iv_bolus": "intravenous bolus", "iv_infusion": "intravenous infusion", "ip": "intraperitoneal", "sc": "subcutaneous",
           "im": "intramuscular"}  # fmt: skip
#: A citation within a paragraph while it is written: keys of data/references.toml between two characters no text holds.
_MARK = re.compile("\x02([^\x03]*)\x03")


@dataclass(frozen=True)
class Reference:
    """A cited work; `doi` is empty where it has none."""

    key: str
    authors: str
    title: str
    journal: str
    year: int
    pages: str
    doi: str

    def text(self) -> str:
        """Return the work as a list of references has it."""
        link = f" doi:{self.doi}" if self.doi else ""
        return f"{self.authors}. {self.title}. {self.journal} {self.year};{self.pages}.{link}"


@dataclass(frozen=True)
class Paragraph:
    """A heading and its text, which cites references as [1] or [1, 2]."""

    title: str
    text: str


@dataclass(frozen=True)
class Methods:
    """A methods section: paragraphs, references in order of first citation, and what the authors must add.

    Parameters
    ----------
    paragraphs : only those of steps this study did.
    references : number n is ``references[n - 1]``.
    gaps : sentences, what a reader needs and the files do not say.
    """

    paragraphs: tuple[Paragraph, ...]
    references: tuple[Reference, ...]
    gaps: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return plain text."""
        parts = [f"{p.title}\n{p.text}" for p in self.paragraphs]
        parts += ["To be added by the authors\n" + "\n".join(f"- {g}" for g in self.gaps)] if self.gaps else []
        listed = "\n".join(f"{n}. {r.text()}" for n, r in enumerate(self.references, 1))
        return "\n\n".join([*parts, *([f"References\n{listed}"] if listed else [])]) + "\n"

    def to_markdown(self) -> str:
        """Return Markdown in which no name of the study is markup."""
        parts = [f"### {_escaped(p.title)}\n\n{_escaped(p.text)}" for p in self.paragraphs]
        if self.gaps:
            parts.append("### To be added by the authors\n\n" + "\n".join(f"- {_escaped(g)}" for g in self.gaps))
        if self.references:
            listed = (f"{n}. {_escaped(r.text())}" for n, r in enumerate(self.references, 1))
            parts.append("### References\n\n" + "\n".join(listed))
        return "\n\n".join(parts) + "\n"

    def to_bibtex(self) -> str:
        """Return the references as BibTeX; the keys are those of evbiodist."""
        return "".join(_bibtex(r) for r in self.references)


def methods(results: ResultFolder) -> Methods:
    """Return the methods section of a study, ready to be edited into a paper.

    Parameters
    ----------
    results : a result folder, as `evbiodist.report.folder.read_results` reads it.

    Returns
    -------
    Methods

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> seen = pd.DataFrame({"organ": ["liver"], "time_h": [1.0], "unit": ["pct_id"], "label": ["DiR"]})
    >>> told = methods(ResultFolder(Path("."), {"observations": seen}, {"name": "x", "species": "mouse", "settings": {}}))
    >>> told.paragraphs[0].text
    'The species was mouse. Values were taken at 1 time, 1 h after the dose.'
    """
    written = [(title, " ".join(s for s in told(results) if s)) for title, told in _SECTIONS]
    written = [(title, text) for title, text in written if text]
    order: list[str] = []
    for _, text in written:
        for found in _MARK.findall(text):
            order += [k for k in found.split(",") if k not in order]
    cited = {key: n for n, key in enumerate(order, 1)}

    def numbered(found: re.Match[str]) -> str:
        return f"[{', '.join(str(n) for n in sorted(cited[k] for k in found[1].split(',')))}]"

    return Methods(
        tuple(Paragraph(title, _MARK.sub(numbered, text)) for title, text in written),
        tuple(_references()[k] for k in order),
        tuple(_gaps(results)),
    )


@lru_cache(maxsize=1)
def _references() -> dict[str, Reference]:
    told = tomllib.loads((files("evbiodist") / "data" / "references.toml").read_text(encoding="utf-8"))
    return {key: Reference(key, **row) for key, row in told.items()}


def _cite(*keys: str) -> str:
    return f" \x02{','.join(keys)}\x03"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|$^~&!])", r"\\\1", text)


def _bibtex(work: Reference) -> str:
    special = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$"})
    volume, _, pages = work.pages.partition(":")
    authors = " and ".join(
        re.sub(r"^(.*) (\S+)$", r"\1, \2", a) for a in re.split(r", | and ", work.authors) if a != "others"
    )
    authors += " and others" if work.authors.endswith(" and others") else ""
    authors = "{ICRP}" if work.authors == "ICRP" else authors
    rows = {"author": authors, "title": f"{{{work.title}}}", "journal": work.journal, "year": str(work.year),
            "volume": volume, "pages": pages.replace("-", "--")}  # fmt: skip
    told = [f"  {k} = {{{v.translate(special)}}}" for k, v in rows.items() if v]
    told += [f"  doi = {{{work.doi}}}"] if work.doi else []
    return f"@article{{{work.key},\n" + ",\n".join(told) + "\n}\n"


def _some(parts: list[str]) -> str:
    return "; ".join(parts if len(parts) <= _MOST else [*parts[:_MOST], f"and {len(parts) - _MOST} more"])


# The paragraphs: each returns its sentences, none where the step was not done


def _design(results: ResultFolder) -> Iterable[str]:
    study, times = results.study, times_of(results)
    if study.get("simulated"):
        yield "The data were simulated; no animals were used."
    if study.get("species"):
        yield f"The species was {clean(study['species'])}."
    groups = groups_of(results)
    if groups:
        yield f"Groups were {_some([_group(g) for g in groups])}."
    stated = sorted({int(s["n"]) for s in study.get("sources") or [] if s.get("n")})
    if stated and not groups:
        yield f"Means of {joined([str(n) for n in stated])} animals a time were taken from tables."
    weights = sorted(float(s["weight_g"]) for s in subjects_of(results) if s.get("weight_g"))
    if weights:
        yield f"Animals weighed {_span(weights)} g."
    yield from _doses(results)
    if times:
        yield f"Values were taken at {plural(len(times), 'time')}, {_span(times)} h after the dose."


def _group(group: dict[str, Any]) -> str:
    sexes = [f"{group[k]} {k}" for k in ("female", "male") if group.get(k)]
    more = [*sexes, *([f"{group['perfused']} perfused"] if group.get("perfused") else [])]
    return f"{clean(group['group'])}, {clean(group['label'])}: {plural(group['animals'], 'animal')}" + (
        f" ({', '.join(more)})" if more else ""
    )


def _span(values: list[float]) -> str:
    low, high = number(values[0]), number(values[-1])
    return low if low == high else f"{low} to {high}"


def _doses(results: ResultFolder) -> Iterable[str]:
    routes = routes_of(results)
    if routes:
        yield f"The route was {names(_ROUTES.get(r, r) for r in routes)}."
    dosed: dict[tuple[str, str], list[float]] = {}
    for r in dosing_rows(results):
        if r.get("dose") and r.get("dose_unit"):
            dosed.setdefault((clean(r.get("label") or "all labels"), clean(r["dose_unit"])), []).append(
                float(r["dose"])
            )
    if dosed:
        yield f"Doses were {_some([f'{_span(sorted(v))} {unit} ({label})' for (label, unit), v in sorted(dosed.items())])}."


def _vesicles(results: ResultFolder) -> Iterable[str]:
    told = {k: v for k, v in (results.study.get("vesicles") or {}).items() if v not in (None, "", [], ())}
    phrases = {
        "carrier": "The carrier was {}.", "source_cell": "Their source was {}.", "source_organism": "The source organism was {}.",
        "culture_medium": "Culture medium: {}.", "isolation": "They were isolated by {}.", "storage": "Storage: {}.",
        "particles_per_dose": "A dose held {} particles.", "particles_method": "Particles were counted by {}.",
        "protein_ug_per_dose": "A dose held {} ug of protein.", "size_mode_nm": "The mode of the diameter was {} nm.",
        "size_method": "Size was measured by {}.", "zeta_mv": "The zeta potential was {} mV.", "markers": "Shown to be present: {}.",
        "absent_markers": "Shown to be absent: {}.", "microscopy": "Microscopy: {}.", "modification": "Modification: {}.",
        "label_protocol": "Labelling: {}.", "free_label_pct": "Label not bound to vesicles was {} % of the dose.",
        "ev_track": "EV-TRACK: {}.",
    }  # fmt: skip
    for key, phrase in phrases.items():
        if key in told:
            yield phrase.replace("{}", _value(told[key]).rstrip("."))
    if told:
        yield f"They are described along MISEV2023{_cite('misev')}."


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return joined([clean(v).replace("_", " ") for v in value])
    return number(float(value)) if isinstance(value, int | float) else clean(value)


def _labels(results: ResultFolder) -> Iterable[str]:
    labels = results.study.get("labels") or {}
    if labels:
        yield f"Labels were {_some([_label(k, v) for k, v in sorted(labels.items())])}."
    if any(v.get("isotope") for v in labels.values()):
        yield f"Half-lives of isotopes without a stated one are those of ICRP Publication 107{_cite('icrp107')}."


def _label(name: str, told: dict[str, Any]) -> str:
    physics = [str(told.get("kind", "kind not given"))]
    physics += [f"isotope {clean(told['isotope'])}"] if told.get("isotope") else []
    physics += [f"half-life {float(told['half_life_h']):.5g} h"] if told.get("half_life_h") else []
    physics += [
        f"{what} {number(float(told[f'{what}_nm']))} nm"
        for what in ("excitation", "emission")
        if told.get(f"{what}_nm")
    ]
    physics += [f"read as {clean(told['readout'])}"] if told.get("readout") else []
    return f"{clean(name)} ({', '.join(physics)})"


def _images(results: ResultFolder) -> Iterable[str]:
    scans = results.study.get("scans") or 0
    if not scans:
        return
    kinds = {str(k).replace("_", " ") for k in column(table(results, "scans"), "kind")}
    yield f"{plural(scans, 'image')} {'was' if scans == 1 else 'were'} analysed" + (
        f" ({names(kinds)})." if kinds else "."
    )
    footprint = setting(results, "imaging", "footprint")
    width = next((f"{number(float(v))} {u}" for k, u in (("psf_fwhm_mm", "mm"), ("psf_fwhm_px", "pixels"))
                  if (v := setting(results, "imaging", k))), "")  # fmt: skip
    if footprint == "roi":
        yield "Organ signals are sums over the organ's outline less background."
    elif footprint == "psf":
        yield ("Organ signals were estimated together by weighted least squares, each organ's outline blurred by a Gaussian of "
               f"{width} full width at half maximum, with a background{_cite('rousset')}.")  # fmt: skip
    elif footprint == "optical":
        yield "Organ signals were estimated with the light that a diffusion model carries from each organ to the skin."
    if setting(results, "imaging", "nonnegative"):
        yield "Signals were kept at or above zero."
    if setting(results, "imaging", "cosmic"):
        yield f"Pixels hit by cosmic rays were left out by a rule after LA Cosmic{_cite('lacosmic')}."
    if setting(results, "imaging", "thickness") == "correct":
        yield "Light hidden by an excised organ's own tissue was corrected."
    if setting(results, "imaging", "register_by") in ("body", "intensity"):
        yield f"Frames were registered by {setting(results, 'imaging', 'register_by')}."
    if setting(results, "imaging", "spectra"):
        yield "Bands were unmixed by least squares on given spectra."
    standard = setting(results, "imaging", "standard")
    if standard:
        yield f"Signals became % of the dose by a standard of {number(float(standard['pct_of_dose']))} % of the dose in the image."
    if setting(results, "imaging", "curve"):
        yield "Signals became amounts by a weighted standard curve."


def _tables(results: ResultFolder) -> Iterable[str]:
    sources = results.study.get("sources") or []
    if sources:
        yield f"Organ values were read from {_some([_source(s) for s in sources])}."


def _source(told: dict[str, Any]) -> str:
    more = [clean(told[k]) for k in ("label", "source") if told.get(k)]
    return clean(told.get("file", "a table")) + (f" ({'; '.join(more)})" if more else "")


def _corrections(results: ResultFolder) -> Iterable[str]:
    seen = table(results, "observations")
    flags = column(seen, "flags").fillna("").astype(str)
    if flags.str.contains("decay_corrected").any():
        yield "Radioactive signals were corrected for decay to the time of the dose."
    if column(seen, "vessel_blood").notna().any():
        yield ("Blood in the vessels of organs was subtracted where animals were not perfused, from the whole-blood "
               "concentration, the organ's mass and the published blood fraction of the organ.")  # fmt: skip


def _nca(results: ResultFolder) -> Iterable[str]:
    found = table(results, "parameters")
    if not (column(found, "model") == "nca").any():
        return
    rule = {"lin-up-log-down": "linear up, logarithmic down", "linear": "linear", "lin-log": "linear to the maximum, then logarithmic",
            "log": "logarithmic"}.get(str(setting(results, "kinetics", "method")), "stated")  # fmt: skip
    yield f"Non-compartmental parameters used trapezoids ({rule} rule)."
    if column(found, "parameter").eq("lambda_z").any():
        yield "The terminal slope was fitted to at least three last samples by the best adjusted r2."
        if setting(results, "kinetics", "lambda_z"):
            yield "For some curves its samples were chosen by a person, with the reason in the results."
    limit = setting(results, "kinetics", "max_extrap_pct")
    if limit is not None and column(found, "parameter").astype(str).str.startswith("aucinf").any():
        fate = "not given" if setting(results, "kinetics", "refuse_extrap") else "flagged"
        yield f"Areas of which more than {number(float(limit))} % was extrapolated were {fate}."
    if (column(table(results, "observations"), "below_lloq") == "yes").any():
        blq = str(setting(results, "kinetics", "blq"))
        rules = {"drop": "left out", "zero": "set to zero", "lloq/2": "set to half the limit",
                 "pknca": f"treated by position as PKNCA does{_cite('pknca')}"}  # fmt: skip
        yield f"Values below the limit of quantification were {rules.get(blq, 'treated by a rule that is not known')}."
    if (column(found, "subject").astype(str).str.startswith("pooled") & (column(found, "model") == "nca")).any():
        yield (
            "Errors of areas over animals sampled one by one were propagated from the errors of the means, after Bailer where "
            f"the rule is linear{_cite('bailer')} and by exact derivatives else; degrees of freedom are Satterthwaite's"
            f"{_cite('satterthwaite')}."
        )


def _models(results: ResultFolder) -> Iterable[str]:
    fitted = set(column(table(results, "parameters"), "model")) - {"nca", ""}
    if not fitted:
        return
    yield f"Compartment models fitted: {names(m.replace('_', ' ') for m in fitted)}."
    loss, scale, weights = (
        clean(setting(results, "kinetics", k) or "unstated") for k in ("loss", "fit_scale", "weights")
    )
    by = {"squares": "least squares", "unstated": "an unstated loss"}.get(loss, f"a robust loss ({loss})")
    yield f"Fits were by {by} on the {scale} scale, with {weights} weights."
    fixed = setting(results, "kinetics", "fixed")
    if fixed:
        yield f"Held fixed: {names(f'{k} = {number(float(v))}' for k, v in fixed.items())}."
    if (
        setting(results, "kinetics", "fit_blq") == "m3"
        and (column(table(results, "observations"), "below_lloq") == "yes").any()
    ):
        yield f"Values below the limit of quantification counted by their probability (M3){_cite('beal')}."


def _across(results: ResultFolder) -> Iterable[str]:
    if len(results.study.get("labels") or {}) < 2:
        return
    if len(table(results, "agreement")):
        yield (
            f"Two labels were compared on means at common times by bias with limits of agreement{_cite('bland_altman')}, "
            f"concordance{_cite('lin')}, Deming and Passing-Bablok lines{_cite('passing_bablok')} and intraclass "
            f"correlation{_cite('shrout_fleiss')}; no limit of acceptance was set."
        )
    if len(table(results, "ranks")):
        yield f"The order of organs was compared by Kendall's W{_cite('kendall')}."
    used = column(table(results, "consensus"), "method").fillna("").astype(str)
    if used.str.contains("random effects").any():
        scale = "logarithm" if setting(results, "crossval", "scale") == "log" else "linear scale"
        yield f"Estimates were combined over labels by random effects on the {scale}{_cite('paule_mandel', 'hartung_knapp')}."
    if used.str.contains("joint label model").any():
        model = clean(setting(results, "crossval", "model") or "a model that is not known").replace("_", " ")
        yield (
            f"A joint model gave all labels one vesicle ({model}) and each its own free share, release, loss and reading under "
            f"priors, averaged over which labels are faithful{_cite('kass_raftery', 'hoeting')}."
        )
    left = {str(k) for k in column(table(results, "left_out"), "kind")}
    if left:
        yield f"Its predictions were tested by leaving out one at a time: {names(left)}."


def _groups(results: ResultFolder) -> Iterable[str]:
    """Say how groups were compared, where a comparison has a p-value."""
    p = column(table(results, "comparisons"), "p")
    if not len(p) or p.isna().all():
        return
    rows = table(results, "comparisons")
    rows = rows[rows["p"].notna()]
    kinds = names({str(k) for k in rows["contrast"]})
    pooled = column(rows, "method").astype(str).str.contains("Bailer").any()
    yield (f"Animals with the same label were compared by {kinds} with Welch's test on the logarithm{_cite('welch')}; "
           f"effect sizes are Hedges' g{_cite('hedges')}.")  # fmt: skip
    if pooled:
        yield f"Areas of animals sampled one by one were compared with their pooled errors{_cite('bailer')}."
    how = setting(results, "groups", "multiplicity")
    if how in ("holm", "bh"):
        whose = "Holm" if how == "holm" else "Benjamini and Hochberg"
        yield f"P-values were adjusted over values, areas and parameters of each label after {whose}{_cite(how)}; intervals were not."


def _software(results: ResultFolder) -> Iterable[str]:
    told = provenance(results.path)
    if not told.get("evbiodist"):
        return
    versions = {clean(k): clean(v) for k, v in sorted((told.get("versions") or {}).items())}
    cited = [k for k in ("numpy", "scipy", "scikit-image") if k in versions]
    yield f"The analysis ran in evbiodist {clean(told['evbiodist'])}" + (
        f" with {joined([f'{k} {v}' for k, v in versions.items()])}{_cite(*cited) if cited else ''}."
        if versions
        else "."
    )
    level = setting(results, "kinetics", "level")
    if level:
        yield f"Intervals are at {number(100 * float(level))} %."


def _gaps(results: ResultFolder) -> Iterable[str]:
    study = results.study
    if not study.get("simulated"):
        yield "Ethical approval, origin, strain, age and housing of the animals, randomisation and blinding."
    if study.get("scans"):
        yield "Instrument, filters and exposure."
    if not study.get("species"):
        yield "Species (species in study.toml)."
    if not any(r.get("dose") for r in dosing_rows(results)):
        yield "Dose and its unit (dose and dose_unit in subjects.csv)."
    if not any(g.get("female") or g.get("male") for g in groups_of(results)):
        yield "Sex of the animals (sex in subjects.csv)."
    if not study.get("vesicles"):
        yield "Source, isolation and characterization of what was injected ([vesicles] in study.toml)."
    if not organs_of(results):
        yield "Organs: there are no organ values."
    if not provenance(results.path):
        yield "Version of the software: provenance.json is lacking."


_SECTIONS: tuple[tuple[str, Callable[[ResultFolder], Iterable[str]]], ...] = (
    ("Animals and design", _design), ("Vesicles", _vesicles), ("Labels", _labels), ("Image analysis", _images),
    ("Tables of values", _tables), ("Corrections", _corrections), ("Non-compartmental analysis", _nca),
    ("Compartment models", _models), ("Comparison of labels", _across),
    ("Comparison of groups", _groups), ("Software", _software),
)  # fmt: skip
