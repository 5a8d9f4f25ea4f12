"""Figure files: one width in SVG, PDF and PNG, text that can be read, no outside style, and data behind every figure."""

import csv
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from PIL import Image

import evbiodist as ev
from evbiodist.report import svg
from evbiodist.report.exports import figure_files
from evbiodist.report.folder import read_results
from evbiodist.study.problems import InputError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two labels in blood and an organ at three times, one of them with a name that would break markup."""
    study, rows, subjects = tmp_path_factory.mktemp("study"), [], []
    for label in ("DiR", "<b>&\\"):
        for i in range(3):
            subjects.append(f"{label}{i},{label},100,bq,iv_bolus,=a/b")
            rows += [f"{label}{i},{label},{o},{t},{k * 2.0**-t * (1 + 0.1 * i):.6g},pct_id_per_g"
                     for t in (0.5, 2, 6) for o, k in (("liver", 8),)]  # fmt: skip
    (study / "subjects.csv").write_text("subject,label,dose,dose_unit,route,group\n" + "\n".join(subjects) + "\n")
    (study / "observations.csv").write_text("subject,label,organ,time_h,value,unit\n" + "\n".join(rows) + "\n")
    (study / "study.toml").write_text(
        'name = "s <i>_*"\n[labels.DiR]\nkind = "fluorescence"\n[labels.\'<b>&\\\']\nkind = "fluorescence"\n'
        '[tables]\nsubjects = "subjects.csv"\nobservations = ["observations.csv"]\n'
        "[kinetics]\nmodels = []\n[crossval]\njoint = false\nleave_out = []\n"
    )
    ev.run(study, study / "out", report=False)
    return read_results(study / "out")


@pytest.fixture(scope="module")
def made(results):
    return figure_files.export(results, {})


def names_of(made):
    return sorted(n.removesuffix(".svg") for n in made.files if n.endswith(".svg"))


def width_of(content):
    root = ET.fromstring(content)  # noqa: S314 - written a moment ago
    return float(root.get("width").removesuffix("mm"))


def test_every_figure_has_all_its_files_a_caption_and_data(made):
    names = names_of(made)
    assert {"curve_a_b_liver_of_dose_per_g_linear", "curve_a_b_liver_of_dose_per_g_log", "peaks_a_b"} <= set(names)
    assert set(made.files) == {f"{n}.{end}" for n in names for end in ("svg", "pdf", "png", "csv")} | {"captions.md"}
    captions = made.files["captions.md"].decode()
    assert re.findall(r"^## (.*)$", captions, re.M) == [
        n for n in re.findall(r"^## (.*)$", captions, re.M) if n in names
    ]
    assert captions.count("\n## ") == len(names)
    assert "<i>" not in captions
    for n in names:
        assert len(list(csv.reader(io.StringIO(made.files[f"{n}.csv"].decode())))) > 1


def test_data_of_a_curve_are_the_means_that_are_drawn(made, results):
    rows = list(csv.DictReader(io.StringIO(made.files["curve_a_b_liver_of_dose_per_g_log.csv"].decode())))
    mean = {(r["label"], float(r["time_h"])): float(r["value"]) for r in rows}
    own = results["observations"].groupby(["label", "time_h"])["value"].mean()
    assert len(mean) == len(rows) == len(own) == 6
    for (label, t), expected in own.items():
        assert mean[label, t] == pytest.approx(expected, rel=1e-12)


def test_svg_pdf_and_png_are_of_one_width(made):
    for n in names_of(made):
        mm = width_of(made.files[f"{n}.svg"])
        left, bottom, right, top = map(float, re.search(rb"/MediaBox \[([^\]]*)\]", made.files[f"{n}.pdf"])[1].split())
        assert (left, bottom) == (0, 0)
        assert right - left == pytest.approx(mm * 72 / 25.4, rel=1e-4)
        image = Image.open(io.BytesIO(made.files[f"{n}.png"]))
        assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)
        assert image.width / 300 * 25.4 == pytest.approx(mm, abs=0.1)
        assert image.height / image.width == pytest.approx((top - bottom) / (right - left), rel=0.01)


def test_a_figure_is_black_on_white_and_needs_no_style_from_outside(made):
    for n in names_of(made):
        text = made.files[f"{n}.svg"].decode()
        assert "var(" not in text
        assert "currentColor" not in text or ".s0 { color: #" in text
        assert "href" not in text
        image = Image.open(io.BytesIO(made.files[f"{n}.png"])).convert("RGB")
        assert image.getpixel((1, image.height - 2)) == (255, 255, 255)
        assert len(image.getcolors(1 << 24)) > 3
        assert min(sum(c) for _, c in image.getcolors(1 << 24)) < 60


def test_labels_are_named_in_a_legend_and_stay_text(made):
    words = [e.text for e in ET.fromstring(made.files["curve_a_b_liver_of_dose_per_g_log.svg"]).iter(f"{SVG}text")]  # noqa: S314
    assert words[:2] == ["<b>&\\", "DiR"]


def test_a_legend_takes_as_many_lines_as_it_needs_and_stays_inside():
    drawn = svg.figure(200, 100, [svg.label(5, 5, "x")])
    key = {f"label number {i}": i for i in range(12)}
    root = ET.fromstring(figure_files.with_key(drawn, key))  # noqa: S314
    height = float(root.get("viewBox").split()[3])
    words = [e for e in root.findall(f".//{SVG}text") if e.text in key]
    assert len(words) == len(key)
    assert all(float(e.get("x")) + 6.3 * len(e.text) <= 200 for e in words)
    assert max(float(e.get("y")) for e in words) < height - 100


def test_the_smallest_text_of_figures_is_what_the_widths_are_worked_out_from():
    sizes = [float(v) for v in re.findall(r"font(?:-size)?: ([0-9.]+)px", svg.MARKS)]
    assert min(sizes) == figure_files.SMALLEST_TEXT


@pytest.mark.parametrize("units", [100, 320, 430, 640, 860, 1500])
@pytest.mark.parametrize("asked", [30, 89, 120, 183])
def test_text_is_never_below_six_points(units, asked):
    mm = figure_files.readable(units, asked)
    assert mm >= asked
    assert figure_files.SMALLEST_TEXT * mm / 25.4 * 72 / units >= 6 - 1e-9


@pytest.fixture
def two_alike(results, monkeypatch):
    """Two figures of one name, and files that only say their width."""
    kept = next(f for f in figure_files.figures(results) if f.name.startswith("curve"))
    monkeypatch.setattr(figure_files, "figures", lambda _: [kept, kept])
    monkeypatch.setattr(
        figure_files, "rendered", lambda name, _, mm, dpi: {f"{name}.svg": f"{mm:g} mm, {dpi} dpi".encode()}
    )
    return kept.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": "double"}, b"183 mm, 300 dpi"),
        ({"width": "1.5", "dpi": "600"}, b"120 mm, 600 dpi"),
        ({"width": "150.5"}, b"150.5 mm, 300 dpi"),
        ({}, b"89 mm, 300 dpi"),
    ],
)
def test_width_and_resolution_are_those_asked_for(given, said, results, two_alike):
    made = figure_files.export(results, given)
    assert made.files[f"{two_alike}.svg"] == said
    assert names_of(made) == [two_alike, f"{two_alike}_2"]
    assert made.notes == ()


def test_figures_that_are_wider_than_asked_are_told(results, two_alike):
    made = figure_files.export(results, {"width": "40"})
    assert made.files[f"{two_alike}.svg"] == b"89 mm, 300 dpi"
    assert f"smaller than 6 pt: {two_alike}, {two_alike}_2" in made.notes[0]


def test_the_same_figure_is_the_same_to_the_byte(results):
    kept = next(f for f in figure_files.figures(results) if f.name.startswith("curve"))
    one, *others = [figure_files.rendered("x", kept.drawn, 89, 300) for _ in range(4)]
    assert all(other == one for other in others)


@pytest.mark.parametrize(("key", "given"), [("width", "wide"), ("width", "5"), ("width", "-89"), ("dpi", "72")])
def test_an_option_that_is_none_is_told_with_what_was_expected(key, given, results):
    with pytest.raises(InputError, match=f"found '{key}={given}', expected"):
        figure_files.export(results, {key: given})


def test_results_without_anything_to_draw_say_so(results):
    import pandas as pd

    empty = {name: pd.DataFrame() for name in results.tables}
    made = figure_files.export(replace(results, tables=empty), {})
    assert list(made.files) == ["captions.md"]
