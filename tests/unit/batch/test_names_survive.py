"""Names that a spreadsheet, a browser or a plot would take for orders go through a whole run and stay names."""

import csv
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

import evbiodist as ev
from evbiodist.report.folder import read_results

FORMULA = '=HYPERLINK("http://x","y")'
MATH = "$a_b^{c\\d}$"
SCRIPT = "<script>alert(1)</script>"
GROUP = "@g & <img src=x onerror=alert(2)>"
ORGAN = "+o$r_g^a\\n<b>"
ORGAN_KEPT = "o_r_g_a_n_b"  # organs are words of letters, digits and _ by design
NUMBERS = {"time_h", "value", "se", "mass_g", "lloq", "se_systematic", "sd", "n", "vessel_blood"}


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run over a table of two labels and one tray, all with such names."""
    folder = tmp_path_factory.mktemp("names")
    random, pixels = np.random.default_rng(2), np.zeros((64, 64), np.uint8)
    pixels[16:32, 16:48] = 1
    tifffile.imwrite(folder / "organs.tif", pixels)
    tifffile.imwrite(folder / "tray.tif", random.poisson(100 + 400.0 * pixels).astype(np.uint16))
    subjects = [["subject", "group", "label", "dose", "dose_unit", "route"]]
    values = [["subject", "group", "label", "organ", "time_h", "value", "se", "unit", "mass_g"]]
    for label, scale in ((MATH, 1.0), (SCRIPT, 1.2)):
        for i in range(2):
            animal = f"{FORMULA}{i}{'ab'[label == SCRIPT]}"
            subjects.append([animal, GROUP, label, 1e10, "p_per_s", "iv_bolus"])
            for t in (0.25, 1, 4, 24):
                for organ, unit, size in (
                    ("blood", "pct_id_per_g", 30),
                    ("brain", "pct_id", 0.5),
                    (ORGAN, "pct_id", -1.5),
                ):
                    value = scale * size * np.exp(-0.1 * t) * (1 + 0.05 * i)
                    values.append([animal, GROUP, label, organ, t, value, abs(0.03 * value), unit, 1.0])
    write_rows(folder / "subjects.csv", subjects)
    write_rows(folder / "values.csv", values)
    scan = [FORMULA, f"{FORMULA}0a", MATH, 2, "ex_vivo", "tray.tif", "organs.tif", 0.5, 1, 3, 100]
    head = ["scan", "subject", "label", "time_h", "kind", "file", "organs"]
    head += ["pixel_size_mm", "gain_e", "read_noise_e", "bias"]
    write_rows(folder / "scans.csv", [head, scan])
    (folder / "study.toml").write_text(
        f"name = '{FORMULA}'\ndescription = '{SCRIPT}'\nspecies = 'mouse'\n"
        + "".join(f"[labels.'{name}']\nkind = 'fluorescence'\ndescription = '{GROUP}'\n" for name in (MATH, SCRIPT))
        + "[tables]\nsubjects = 'subjects.csv'\nscans = 'scans.csv'\nobservations = ['values.csv']\n"
        f"[imaging]\nfootprint = 'roi'\n[imaging.organ_labels]\n1 = '{ORGAN}'\n"
        "[kinetics]\nmodels = ['one_compartment_iv']\n[crossval]\njoint = false\n"
    )
    result = ev.run(folder, folder / "out")
    assert result.failures == []
    return SimpleNamespace(out=folder / "out", result=result)


def cells(made, name):
    with (made.out / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_no_cell_of_any_table_is_a_formula_and_numbers_stay_numbers(made):
    number = re.compile(r"-?(\d+(\.\d+)?([eE][+-]?\d+)?|inf)$")
    found = set()
    for path in made.out.glob("*.csv"):
        for row in cells(made, path.name):
            for cell in row.values():
                if cell.startswith(("=", "+", "@", "\t", "\r", "-")):
                    assert number.match(cell), f"{path.name}: {cell}"
                found.add(cell)
    assert {f"'{FORMULA}", f"'{GROUP}"} <= found
    rows = cells(made, "observations.csv")
    assert min(float(r["value"]) for r in rows) < 0
    for row in rows:
        for column in NUMBERS & set(row):
            assert row[column] == "" or np.isfinite(float(row[column]))


def test_names_read_back_are_the_names_given(made):
    table = read_results(made.out)["observations"]
    assert set(table["study"]) == {FORMULA}
    assert set(table["label"]) == {MATH, SCRIPT}
    assert set(table["group"]) == {GROUP}
    assert set(table["organ"]) == {"blood", "brain", ORGAN_KEPT}
    assert {f"{FORMULA}{i}{e}" for i in (0, 1) for e in "ab"} <= set(table["subject"])
    assert FORMULA in set(table["source"])  # the scan


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, and text."""

    def __init__(self):
        super().__init__()
        self.elements, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(made):
    found = Page()
    found.feed((made.out / "report.html").read_text(encoding="utf-8"))
    return found


def test_the_report_has_no_element_or_handler_out_of_a_name(page):
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [(tag, name) for tag, given in page.elements for name in given if name.startswith("on")]
    assert not [given for _, given in page.elements if given.get("src", "data:").split(":")[0] != "data"]
    links = [given["href"] for tag, given in page.elements if tag == "a" and "href" in given]
    assert all(link.startswith(("#", "https://")) for link in links)
    for name in (FORMULA, MATH, SCRIPT, GROUP, ORGAN_KEPT):
        assert name in page.text


def test_the_report_forbids_scripts_and_the_network(page):
    [policy] = [given["content"] for tag, given in page.elements
                if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "script-src" not in rules


def test_plots_and_the_picture_of_the_scan_are_made(made, page):
    assert [tag for tag, _ in page.elements].count("svg") >= 2
    [picture] = [r["picture"] for r in cells(made, "scans.csv")]
    assert (made.out / picture).read_bytes().startswith(b"\x89PNG")
