"""The report: self-contained, escaped, the same bytes again, and honest about what is missing."""

import html
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

import evbiodist as ev
from evbiodist.report.html import write_report
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
    assert not {"link", "iframe", "object", "embed", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'", text)
    assert not re.search(r"url\((?!#)", text)


def test_every_section_and_figure_is_there(text):
    for section in ("answer", "brain", "curves", "study", "pk", "images", "missing", "methods"):
        assert f'id="{section}"' in text
    for organ in ("blood", "brain", "liver", "spleen", "kidney", "lung", "heart"):
        assert f"<figcaption>{organ}</figcaption>" in text
    assert text.count("<svg") >= 8
    assert text.count("data:image/png;base64,") >= 6
    assert "No dye-only arm, processed like the vesicles (DiR)" in html.unescape(text)
    assert "Simulated data." in text
    page = Page()
    page.feed(text)
    assert sum(t == "img" and k == "alt" and v != "" for t, k, v in page.attributes) == page.tags.count("img")
    ids = [v for _, k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))


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
