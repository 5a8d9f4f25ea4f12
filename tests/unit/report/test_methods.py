"""Methods: only steps the study did, every citation in the list, and no name of a study is markup."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from evbiodist.report.folder import ResultFolder
from evbiodist.report.methods import _references, methods

AGREEMENT = pd.DataFrame([{"label_a": "A", "label_b": "B", "organ": "liver", "bias_low": 0.0, "bias_high": 1.0}])
LABELS = {k: {"kind": "fluorescence", "emission_nm": 780.0} for k in "AB"}
HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("x")',
    "$ _ ^ \\ ; , \" '",
    "a\nb\x00c",
    "Ünïcödé 肝",
    "",
    "x" * 500,
]


def seen(**columns):
    row = {"subject": "m1", "group": "treated", "label": "A", "organ": "liver", "unit": "pct_id", "value": 1.0, "below_lloq": "no",
           "flags": "", "vessel_blood": None}  # fmt: skip
    return pd.DataFrame([row | {"time_h": t} for t in (1.0, 4.0, 24.0)]).assign(**columns)


def subject(name):
    return {"subject": name, "label": "A", "dose": 1e9, "dose_unit": "particles", "route": "iv_bolus", "group": "treated",
            "sex": "F", "weight_g": 20.0}  # fmt: skip


def group(name="treated", label="A"):
    return {"group": name, "label": label, "animals": 4, "female": 2, "male": 2, "perfused": 0, "routes": ["iv_bolus"]}


def settings(part, **keys):
    return {"crossval": {}, "kinetics": {}, "imaging": {}} | {part: keys}


def folder(path=Path("nowhere"), tables=None, **study):
    return ResultFolder(
        path, {"observations": pd.DataFrame()} | (tables or {}), {"name": "s", "settings": settings("imaging")} | study
    )


def titles(results):
    return [p.title for p in methods(results).paragraphs]


def text(results):
    return "\n".join(p.text for p in methods(results).paragraphs)


def parameters(*rows):
    return pd.DataFrame([{"model": m, "parameter": p, "subject": s} for m, p, s in rows])


def full(tmp_path):
    """Return a study that did every step."""
    (tmp_path / "provenance.json").write_text(
        json.dumps({"evbiodist": "0.1.0", "versions": {"numpy": "2.0", "lmfit": "1"}})
    )
    told = {
        "imaging": {"footprint": "psf", "psf_fwhm_mm": 1.5, "cosmic": True, "standard": {"pct_of_dose": 1.0}},
        "kinetics": {"method": "linear", "level": 0.95, "max_extrap_pct": 20.0, "blq": "pknca", "fit_blq": "m3", "loss": "huber",
                     "fit_scale": "log", "weights": "pooled", "fixed": {"v": 1.9}},
        "crossval": {"scale": "log", "model": "plasma_with_organs"},
        "groups": {"multiplicity": "holm"},
    }  # fmt: skip
    consensus = pd.DataFrame({"method": ["random effects (PM, Hartung-Knapp)", "joint label model, profile interval"]})
    tables = {"observations": seen(below_lloq="yes", vessel_blood=0.1, flags="decay_corrected"), "agreement": AGREEMENT,
              "parameters": parameters(("nca", "lambda_z", "pooled"), ("nca", "aucinf_obs", "pooled"),
                                          ("two_compartment_iv", "v", "pooled")),
              "ranks": pd.DataFrame({"kendall_w": [0.9]}), "consensus": consensus,
              "comparisons": pd.DataFrame({"contrast": ["group", "sex"], "p": [0.01, 0.2]}),
              "left_out": pd.DataFrame({"kind": ["label"]}), "scans": pd.DataFrame({"kind": ["ex_vivo"]})}  # fmt: skip
    return folder(tmp_path, tables, species="mouse", scans=2, settings=told, groups=[group(), group(label="B")],
                  labels={"A": LABELS["A"], "111In": {"kind": "radioactive", "isotope": "111In", "half_life_h": 67.313}},
                  subjects=[subject("a"), subject("b")], sources=[{"file": "gamma.csv", "label": "111In"}],
                  vesicles={"carrier": "vesicles", "isolation": ["tff", "size_exclusion"]})  # fmt: skip


def test_every_step_that_was_done_is_told(tmp_path):
    found = methods(full(tmp_path))
    assert [p.title for p in found.paragraphs] == [
        "Animals and design", "Vesicles", "Labels", "Image analysis", "Tables of values", "Corrections", "Non-compartmental analysis",
        "Compartment models", "Comparison of labels", "Comparison of groups", "Software"]  # fmt: skip
    told = "\n".join(p.text for p in found.paragraphs)
    for sentence in (
        "Groups were treated, A: 4 animals (2 female, 2 male); treated, B: 4 animals (2 female, 2 male).",
        "The route was intravenous bolus. Doses were 1e+09 particles (A).",
        "They were isolated by tff and size exclusion.",
        "111In (radioactive, isotope 111In, half-life 67.313 h); A (fluorescence, emission 780 nm)",
        "Gaussian of 1.5 mm full width at half maximum",
        "treated by position as PKNCA does",
        "Held fixed: v = 1.9.",
        "by a robust loss (huber) on the log scale, with pooled weights",
        "numpy 2.0",
    ):
        assert sentence in told


def test_every_citation_is_listed_once_and_in_order(tmp_path):
    found = methods(full(tmp_path))
    told = "\n".join(p.text for p in found.paragraphs)
    numbers = [int(n) for cited in re.findall(r"\[([\d, ]+)\]", told) for n in cited.split(", ")]
    assert list(dict.fromkeys(numbers)) == list(range(1, len(found.references) + 1))
    assert len({r.key for r in found.references}) == len(found.references)
    assert not {"\x02", "\x03"} & set(told)


def test_every_reference_is_cited_somewhere_or_kept_for_one(tmp_path):
    assert set(_references()) - {r.key for r in methods(full(tmp_path)).references} <= {
        "ev_track",
        "scikit-image",
        "scipy",
        "bh",
    }


@pytest.mark.parametrize(("lacking", "words"), [
    ({"agreement": pd.DataFrame()}, "limits of agreement"),
    ({"consensus": pd.DataFrame()}, "random effects"),
    ({"consensus": pd.DataFrame({"method": ["arithmetic mean"]})}, "joint model"),
    ({"ranks": pd.DataFrame()}, "Kendall"),
    ({"comparisons": pd.DataFrame()}, "Welch"),
    ({"comparisons": pd.DataFrame({"contrast": ["group"], "p": [float("nan")]})}, "Holm"),
    ({"left_out": pd.DataFrame()}, "leaving out"),
    ({"parameters": pd.DataFrame()}, "trapezoids"),
    ({"parameters": parameters(("nca", "cmax", "pooled"))}, "Compartment models"),
    ({"parameters": parameters(("nca", "cmax", "m1"))}, "Bailer"),
    ({"parameters": parameters(("nca", "cmax", "m1"))}, "terminal slope"),
        ({"parameters": parameters(("nca", "cmax", "m1"))}, "extrapolated"),
    ({"observations": seen(vessel_blood=0.1)}, "decay to"),
    ({"observations": seen()}, "vessels"),
    ({"observations": seen()}, "limit of quantification"),
])  # fmt: skip
def test_no_step_is_told_that_was_not_done(tmp_path, lacking, words):
    results = full(tmp_path)
    assert words in text(results)
    results.tables.update(lacking)
    assert words not in text(results)


def test_one_label_is_never_compared(tmp_path):
    results = full(tmp_path)
    results.study["labels"] = {"A": LABELS["A"]}
    assert "Comparison of labels" not in titles(results)


def test_without_images_no_image_is_told(tmp_path):
    results = full(tmp_path)
    results.study["scans"] = 0
    assert "Image analysis" not in titles(results)
    assert "Instrument, filters and exposure." not in methods(results).gaps


@pytest.mark.parametrize(("keys", "words"), [
    ({"footprint": "roi"}, "sums over the organ's outline"), ({"footprint": "optical"}, "diffusion model"),
    ({"footprint": "psf", "psf_fwhm_px": 3}, "Gaussian of 3 pixels"), ({"nonnegative": True}, "at or above zero"),
    ({"thickness": "correct"}, "own tissue was corrected"), ({"register_by": "body"}, "registered by body"),
    ({"spectra": "s.csv"}, "unmixed"), ({"curve": {"file": "c.csv"}}, "standard curve"),
])  # fmt: skip
def test_settings_of_images_are_told(keys, words):
    assert words in text(folder(scans=1, settings=settings("imaging", **keys)))
    assert words not in text(folder(scans=1))


def test_an_empty_study_has_gaps_and_no_invention():
    found = methods(folder())
    assert found.paragraphs == ()
    assert found.references == ()
    assert "Species (species in study.toml)." in found.gaps
    assert "Version of the software: provenance.json is lacking." in found.gaps


def test_a_simulated_study_had_no_animals():
    found = methods(folder(simulated=True))
    assert found.paragraphs[0].text == "The data were simulated; no animals were used."
    assert not any("Ethical" in g for g in found.gaps)


@pytest.mark.parametrize("name", [*HOSTILE, "[1](http://x)", "![x](y)", "\x02bailer\x03", "\x02nokey\x03"])
def test_names_are_neither_markup_nor_citations(tmp_path, name):
    results = full(tmp_path)
    results.study.update(
        {
            "species": name,
            "labels": {name: {"kind": "fluorescence"}, "B": {}},
            "groups": [group(name, name)],
        }
    )
    results.study["sources"] = [{"file": name or "t", "label": name, "source": name}]
    results.study["vesicles"] = {"carrier": name, "markers": [name], "storage": "{}" + name}
    found = methods(results)
    for line in (found.to_text() + found.to_bibtex()).splitlines():
        assert line.isprintable() or not line
    marked = found.to_markdown()
    assert not re.search(r"(?<!\\)[<>\[\]`_$|]", marked)
    assert marked == methods(results).to_markdown()


def test_markdown_and_text_list_the_references(tmp_path):
    found = methods(full(tmp_path))
    assert f"{len(found.references)}. Harris CR and others. Array programming with NumPy." in found.to_text()
    assert "### References" in found.to_markdown()


def test_bibtex_has_an_entry_for_each_reference(tmp_path):
    found = methods(full(tmp_path))
    written = found.to_bibtex()
    assert re.findall(r"^@article\{(.+),$", written, flags=re.M) == [r.key for r in found.references]
    assert "  author = {Bland, JM and Altman, DG}," in written
    assert "  author = {Harris, CR and others}," in written
    assert "  volume = {8},\n  pages = {135--160},\n  doi = {10.1177/096228029900800204}\n}" in written
    assert written.count("{") == written.count("}")


def test_dois_are_dois():
    for r in _references().values():
        assert r.doi == "" or re.fullmatch(r"10\.\d{4,5}/\S+", r.doi)
        assert 1930 < r.year < 2027
        assert all((r.authors, r.title, r.journal, r.pages))


def test_no_cell_is_told_as_nan_or_none(tmp_path):
    results = full(tmp_path)
    results.study["settings"] = {"imaging": {}, "kinetics": {}, "crossval": {}}
    for found in (methods(results), methods(full(tmp_path))):
        assert not re.search(r"\b(nan|NaN|None)\b", found.to_text())
