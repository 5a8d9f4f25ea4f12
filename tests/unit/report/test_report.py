"""The report: self-contained, escaped, the same bytes again, and honest about what is missing."""

import html
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import evbiodist as ev
from evbiodist.report.design import facts
from evbiodist.report.folder import ResultFolder, read_results
from evbiodist.report.html import render, write_report
from evbiodist.report.images import pictures
from evbiodist.study.problems import InputError


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]


@pytest.fixture(scope="module")
def text(small_results):
    return (small_results / "report.html").read_text(encoding="utf-8")


def test_nothing_comes_from_the_network_and_nothing_runs(text):
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert [v for t, k, v in page.attributes if t == "link" and k == "href"] == [
        "data:,"
    ]  # no icon is asked for either
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("#", "data:image/webp;base64,", "data:,", "https://doi.org/")), (
                tag,
                name,
                value[:60],
            )
            assert not value.startswith("https:") or tag == "a"
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'", text)
    assert not re.search(r"url\((?!#)", text)


def test_every_section_and_figure_is_there(text):
    places = [text.index(f'id="{section}"') for section in
              ("answer", "study", "images", "curves", "pk", "labels", "diagnostics", "flags", "methods", "checklists",
               "provenance")]  # fmt: skip
    assert places == sorted(places)
    for organ in ("blood", "brain", "liver", "spleen", "kidney", "lung", "heart"):
        assert f"<figcaption>{organ}</figcaption>" in text
    assert text.count("<svg") >= 8
    assert text.count("data:image/webp;base64,") >= 6
    assert "No dye-only arm, processed like the vesicles (DiR)" in html.unescape(text)
    assert "Simulated data." in text
    page = Page()
    page.feed(text)
    assert sum(t == "img" and k == "alt" and v != "" for t, k, v in page.attributes) == page.tags.count("img")
    ids = [v for _, k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))


def test_headings_and_landmarks_lead_through_the_page(text):
    page = Page()
    page.feed(text)
    levels = [int(t[1]) for t in page.tags if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.tags.count("main") == page.tags.count("nav") == page.tags.count("header") == 1
    ids = {v for _, k, v in page.attributes if k == "id"}
    links = [v[1:] for t, k, v in page.attributes if (t, k) == ("a", "href") and v.startswith("#")]
    assert links[0] == "answer"  # the skip link is the first stop
    assert set(links) <= ids
    named = re.findall(r'role="region"[^>]*aria-label="([^"]*)"', text)
    assert len(named) == len(set(named))
    assert all(f'for="{i}"' in text for i in re.findall(r'type="radio"[^>]*id="([^"]+)"', text))


def test_every_curve_has_its_values_behind_it(text, small_results):
    seen = pd.read_csv(small_results / "observations.csv", keep_default_na=False)
    liver = seen[(seen["organ"] == "liver") & (seen["group"] == "ex_vivo") & (seen["label"] == "DiR")]
    start = text.index('aria-label="Means of liver, ex_vivo, % of dose"')
    table = text[start : text.index("</table>", start)]
    for time, rows in liver.groupby("time_h"):
        mean = f"{rows['value'].mean():.3g}"
        assert re.search(rf'<th scope="row">DiR</th><td class="value">{time:g}</td><td class="value">{mean} \(', table)
    animals = text[text.index("Animals of liver, ex_vivo") :]
    for r in liver.itertuples():
        cells = "".join(f'<td class="value">{cell}</td>' for cell in ("DiR", f"{r.time_h:g}", f"{r.value:.3g}"))
        assert f'<th scope="row">{r.subject}</th>{cells}' in animals


def test_what_the_design_has_and_lacks_is_told(text):
    assert "no value has a lower limit of quantification" in text
    assert re.search(r"Sexes</th><td>\d+ female, \d+ male, 0 not stated</td>", text)
    assert "Dose standard</th><td>1 % of the dose, in the images</td>" in text


def test_provenance_is_told_without_the_time_of_the_run(text, small_results):
    import json

    said = json.loads((small_results / "provenance.json").read_text())
    assert f"{len(said['inputs'])} input files" in text
    assert all(h in text for h in said["inputs"].values())
    assert all(f'{name}</th><td class="value">{v}<' in text for name, v in said["versions"].items())
    assert said["ended"] not in text


def test_numbers_in_the_report_are_those_of_the_tables(text, small_results):
    table = pd.read_csv(small_results / "consensus.csv", keep_default_na=False)
    for r in table[table["quantity"] == "brain_uptake_pct_id"].itertuples():
        shown = f"{float(r.estimate):.3g} ({float(r.ci_low):.3g} to {float(r.ci_high):.3g})"
        assert shown in text, r.label


def test_the_same_folder_gives_the_same_report(small_results, text, tmp_path):
    copy = shutil.copytree(small_results, tmp_path / "copy")
    (copy / "report.html").unlink()
    write_report(copy)
    assert (copy / "report.html").read_text(encoding="utf-8") == text


NASTY = ["<script>alert(1)</script>", "a$_^\\b", '"quoted" & <b>', "=1+1", "'; DROP", "名前"]


def test_hostile_names_survive_and_do_nothing(tmp_path):
    organs, labels = NASTY, ["L<i>1", "$L_2^"]
    rows = ["subject,label,organ,time_h,value,se,unit"]
    for label in labels:
        for organ in ["blood", *organs]:
            quoted = '"' + organ.replace('"', '""') + '"'
            rows += [f"s,{label},{quoted},{t},{10 / t},0.1,pct_id_per_g" for t in (0.5, 1, 4, 9)]
    (tmp_path / "observations.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "study.toml").write_text(
        'name = "<img src=x onerror=alert(1)>"\n[labels."L<i>1"]\nkind = "fluorescence"\n[labels."$L_2^"]\nkind = "mri"\n'
        '[tables]\nobservations = "observations.csv"\n', encoding="utf-8")  # fmt: skip
    ev.run(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert not any(k.startswith("on") for _, k, _ in page.attributes)
    assert "L&lt;i&gt;1" in text


def test_a_table_of_means_without_animals_is_told_what_it_lacks():
    study = {"groups": [], "sources": [{"n": 4, "perfused": True}, {"n": None, "perfused": False}], "settings": {}}
    told = {f["what"]: (f["text"], f["state"]) for f in facts(ResultFolder(Path(), {"observations": pd.DataFrame(),
                                                                                  "failures": pd.DataFrame()}, study))}  # fmt: skip
    assert told["Sexes"][1] == "missing"
    assert told["Perfused"] == ("in 1 of 2 tables", "partly")
    assert told["Animals"] == ("4 per time in the tables", "there")
    pooled = pd.DataFrame(
        {"subject": ["pooled"], "organ": "liver", "time_h": 1.0, "lloq": float("nan"), "below_lloq": "no"}
    )
    bare = facts(ResultFolder(Path(), {"observations": pooled, "failures": pd.DataFrame()}, {**study, "sources": []}))
    assert {f["what"]: f["state"] for f in bare}["Animals"] == "missing"


def changed(folder, **tables):
    results = read_results(folder)
    results.tables.update(tables)
    return results


def test_a_study_that_was_only_quantified_has_a_report(small_results):
    empty = {
        name: pd.DataFrame()
        for name in read_results(small_results).tables
        if name not in ("observations", "failures", "scans")
    }
    results = changed(small_results, **empty)
    results.study["notes"] = []
    text = render(results)
    assert "No parameters were computed." in text
    assert 'id="diagnostics"' not in text
    assert 'id="labels"' not in text


def test_a_study_without_values_has_a_report():
    seen = pd.DataFrame(columns=["study", "subject", "group", "label", "organ", "time_h", "value", "se", "unit", "mass_g", "lloq",
                                 "below_lloq", "flags", "source", "se_systematic", "sd", "n", "vessel_blood"])  # fmt: skip
    names = read_results.__globals__["_TABLES"]
    settings = {"crossval": {"organ": "brain", "model": "m", "scale": "log"}, "imaging": {"footprint": "roi", "standard": None},
                "kinetics": {"level": 0.95, "method": "linear", "models": []}, "corrections": {"vessel_blood": "keep"}}  # fmt: skip
    study = {"name": "", "species": "", "description": "", "source": "", "simulated": False, "labels": {}, "groups": [], "scans": 0,
             "settings": settings, "sources": [], "missing": [], "notes": []}  # fmt: skip
    results = ResultFolder(Path("nowhere"), {n: pd.DataFrame() for n in names} | {"observations": seen}, study)
    text = render(results)
    assert "0 values of 0 animals" in text
    assert "Nothing was measured at two times or more." in text


def test_many_animals_are_summed_up_in_one_cell():
    from evbiodist.report.pk_tables import _cell

    rows = pd.DataFrame({"parameter": "cl", "value": [1.0, 10.0, 100.0, float("nan")], "ci_low": float("nan"),
                         "ci_high": float("nan"), "flags": ["", "imprecise", "", ""], "reason": ["", "", "", "too few"]})  # fmt: skip
    cell = _cell(rows, 0.95)
    # geometric mean 10; t(0.975, 2) = 4.303, SD of logs ln 10, so a factor of exp(4.303 ln 10 / sqrt 3) = 305
    assert cell == {
        "text": "10 (0.0328 to 3.05e+03), 3 animals",
        "flags": ["imprecise"],
        "reason": "1 of 4 animals without a value",
    }
    times = _cell(rows.assign(parameter="tmax"), 0.95)
    assert times["text"] == "10 (range 1 to 100, 3 animals)"


def test_a_picture_outside_the_folder_is_not_shown_and_a_broken_one_harms_nothing(small_results, tmp_path):
    copy = shutil.copytree(small_results, tmp_path / "copy")
    scans = pd.read_csv(copy / "scans.csv", dtype=str, keep_default_na=False)
    shutil.copy(copy / scans["picture"][0], tmp_path / "secret.png")
    (copy / scans["picture"][1]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    scans.loc[0, "picture"] = "../secret.png"
    scans.loc[2, "picture"] = "/etc/passwd"
    scans.iloc[:4].assign(time_h=["1", "2", "3", "4"]).to_csv(copy / "scans.csv", index=False)
    shown = pictures(read_results(copy))
    assert [p["scan"] for p in shown] == [scans["scan"][3]]
    assert shown[0]["source"].startswith("data:image/webp;base64,")


def test_what_is_no_result_folder_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no observations.csv, no study.json"):
        write_report(tmp_path)


def test_a_study_of_one_table_has_a_report_too(tmp_path):
    from evbiodist.sample import sample_data

    ev.run(sample_data() / "organ_tables" / "99mTc_pertechnetate", tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a copying error" in text
    assert "pct_id_per_g in its title but pct_id in its header" in text
    assert "One label only" in text
    assert "PMC" in text or "JBTR" in text
