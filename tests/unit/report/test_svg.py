"""The writer of figures: scales and ticks are right, names stay names, and what is drawn is well-formed and stays on its axes."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from defusedxml import ElementTree
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.report import svg
from evbiodist.report.figures import forest, organ_curve, ranked

NASTY = ["<script>alert(1)</script>", "a$_^\\b", '"quoted" & <b>', "line\nbreak\x00\x1b", "名前", "", " "]


def luminance(colour):
    part = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in part)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("colours", "paper"), [(svg.LIGHT, "#ffffff"), (svg.DARK, "#1b1e23")])
def test_every_colour_stands_out_from_its_paper_by_three_to_one(colours, paper):
    """WCAG 2.2, 1.4.11: what is needed to understand a figure has a contrast of 3."""
    assert len(set(colours)) == svg.N_COLOURS
    for colour in colours:
        dark, light = sorted((luminance(colour), luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


def test_no_two_of_the_first_fifty_series_look_alike():
    looks = {(i % svg.N_COLOURS, svg.slot_marker(i)) for i in range(50)}
    assert len(looks) == 50


@given(low=st.floats(1e-9, 1e9), factor=st.floats(1.01, 1e6), log=st.booleans())
@settings(max_examples=200, deadline=None)
def test_ticks_lie_on_their_axis_and_are_few(low, factor, log):
    scale = svg.Scale(low, low * factor, 0, 200, log=log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    for tick in ticks:
        assert -0.05 <= scale(tick) <= 200.05


def test_places_on_axes_are_those_of_the_formula():
    linear, log = svg.Scale(-1, 3, 10, 210), svg.Scale(0.1, 1000, 200, 0, log=True)
    assert [linear(v) for v in (-1, 0, 3)] == [10, 60, 210]
    np.testing.assert_allclose([log(v) for v in (0.1, 1, 10, 1000)], [200, 150, 100, 0])
    assert log(0) == log(-5) == 400  # a whole axis below: cut off by the frame, not drawn at a made-up place
    assert svg.Scale(0, 1, 0, 100)(1e300) == 200


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [-3.0, -3.0], [1e-300, 1e300], [5.0]])
@pytest.mark.parametrize("log", [False, True])
def test_a_scale_exists_whatever_the_values(values, log):
    scale = svg.covering(values, 0, 100, log=log)
    assert scale.low < scale.high
    assert all(math.isfinite(scale(t)) for t in scale.ticks())


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_names(name):
    drawn = svg.figure(10, 10, [svg.tipped(name, svg.marker(0, 1, 1), 1, 1), svg.label(0, 0, name)])
    root = ElementTree.fromstring(drawn)
    assert {e.tag.split("}")[1] for e in root.iter()} == {"svg", "g", "circle", "title", "text"}
    assert "".join(root.itertext()).count(name.replace("\x00", " ").replace("\x1b", " ")) >= 2 or name == ""


def curve(name="liver <b>", values=(1.0, 4.0, 2.0)):
    points = pd.DataFrame({"label": name, "time_h": [0.5, 2.0, 8.0], "mean": values, "low": [v - 0.5 for v in values],
                           "high": [v + 0.5 for v in values], "n": 2, "unit": "pct_id"})  # fmt: skip
    animals = pd.DataFrame([{"subject": s, "label": name, "time_h": t, "value": v + d} for s, d in (("m1", -0.2), ("m2", 0.2))
                            for t, v in zip((0.5, 2.0, 8.0), values, strict=True)])  # fmt: skip
    return points, animals


def test_a_curve_tells_the_values_of_every_mean_and_animal():
    points, animals = curve()
    root = ElementTree.fromstring(organ_curve(points, animals, pd.DataFrame(), {"liver <b>": 0}, log_y=False))
    told = [e.text for e in root.iter() if e.tag.endswith("title")]
    assert "liver <b>, 2 h: 4 (3.5 to 4.5), n = 2" in told
    assert "m2, liver <b>, 8 h: 2.2" in told
    assert len(told) == 3 + 6


def test_many_animals_are_one_path():
    points, _ = curve("a")
    many = pd.DataFrame({"subject": [f"m{i:03d}" for i in range(100)], "label": "a", "time_h": 2.0,
                         "value": np.linspace(1, 4, 100)})  # fmt: skip
    drawn = organ_curve(points, many, pd.DataFrame(), {"a": 0}, log_y=False)
    assert drawn.count('class="dots"') == 1
    assert len(re.search(r'class="dots" d="([^"]+)"', drawn).group(1).split("h0")) == 101


def test_a_logarithmic_curve_leaves_values_without_a_logarithm_outside():
    points, animals = curve("a", (1.0, -0.2, 2.0))
    drawn = organ_curve(points, animals, pd.DataFrame(), {"a": 0}, log_y=True)
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_organs_are_ranked_in_the_order_given_and_marks_lie_at_their_values():
    peaks = pd.DataFrame({"organ": ["liver", "brain"], "label": "a", "time_h": 2.0, "mean": [60.0, 20.0], "low": math.nan,
                          "high": math.nan, "n": 1})  # fmt: skip
    root = ElementTree.fromstring(ranked(peaks, {"a": 0}, "% of dose"))
    words = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")]
    assert words.index("liver") < words.index("brain")
    across = [float(e.get("cx")) for e in root.iter() if e.get("class") == "p"]
    ticks = {
        float(w): float(e.get("x"))
        for e in root.iter()
        if e.tag.endswith("}text") and (w := "".join(e.itertext())).isdigit()
    }
    per_unit = (ticks[60] - ticks[0]) / 60
    np.testing.assert_allclose(across, [ticks[0] + 60 * per_unit, ticks[0] + 20 * per_unit], atol=0.2)


def test_a_forest_draws_what_has_no_interval_and_what_reaches_beyond():
    rows = pd.DataFrame({"label": ["a", "b", "consensus"], "estimate": [1.0, 2.0, 1.5], "ci_low": [0.5, math.nan, 1.0],
                         "ci_high": [1.5, math.nan, 1e9], "prediction_low": [math.nan, math.nan, 0.1],
                         "prediction_high": [math.nan, math.nan, 1e12]})  # fmt: skip
    drawn = forest(rows, {"a": 0, "b": 1}, "pct_id")
    ElementTree.fromstring(drawn)
    assert max(float(x) for x in re.findall(r"[ML](-?\d+\.?\d*) ", drawn)) < 1100
    assert "a further label between 0.1 and 1e+12" in drawn


def test_a_figure_on_its_own_needs_no_page():
    points, animals = curve("a")
    alone = svg.standalone(organ_curve(points, animals, pd.DataFrame(), {"a": 0}, log_y=False))
    ElementTree.fromstring(alone)
    assert "var(" not in alone
    assert "#0072B2" in alone
    assert 'fill="#ffffff"' in alone
