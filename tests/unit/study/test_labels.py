"""The catalogue of labels is complete, sane and sourced; a study fills from it, adds to it and is told what is wrong."""

import itertools
import math
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from scipy.linalg import expm

from evbiodist.study.constants import isotopes, physiology
from evbiodist.study.labels import (
    CONTROLS,
    NUISANCE,
    PER_ORGAN,
    Prior,
    catalogue,
    entry_for,
    fill,
    find,
    label_model,
    missing_controls,
    named_entry,
    read_priors,
    templates,
)
from evbiodist.study.load import load_study
from evbiodist.study.model import Label
from evbiodist.study.problems import InputError
from evbiodist.study.vocabulary import organ_name

ROOT = Path(__file__).resolve().parents[3]
ONE = {"median": 0.2, "low": 0.05, "high": 0.6, "source": "own"}
KINDS = ("fluorescence", "bioluminescence", "radioactive", "mri", "molecular")


def models():
    """Every model the catalogue can give: each entry, and each kind, with each of its readouts."""
    known = [(e.name, Label(kind=e.kind, isotope=e.isotope), e.readings) for e in catalogue().values()]
    generic = [("nobody's", Label(kind=k, half_life_h=1.0 if k == "radioactive" else None)) for k in KINDS]
    for name, label, readings in known:
        yield from (label_model(name, label, readout) for readout in readings)
    yield from (label_model(name, label) for name, label in generic)


# ------------------------------------------------------------------ priors


@pytest.mark.parametrize(("median", "low", "high", "scale"), [(0.1, 0.01, 1.0, "log"), (0.5, 0.2, 0.8, "logit")])
def test_a_symmetric_prior_holds_95_percent_in_its_range(median, low, high, scale):
    prior = Prior(median, low, high, "x", scale)
    to = np.log if scale == "log" else lambda p: np.log(p / (1 - p))
    normal = stats.norm(prior.centre, prior.sd)
    assert normal.cdf(to(high)) - normal.cdf(to(low)) == pytest.approx(0.95, abs=1e-6)
    assert normal.median() == pytest.approx(to(median))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((0.5, 0.6, 0.9, "x"), "low 0.6, median 0.5, high 0.9"),
        ((0.5, 0.0, 0.9, "x"), "0 < low"),
        ((0.5, 0.5, 0.5, "x"), "low < high"),
        ((0.5, 0.2, 1.0, "x", "logit"), "high < 1"),
        ((math.nan, 0.2, 0.9, "x"), "finite numbers"),
        (("1", 0.2, 0.9, "x"), "finite numbers"),
        ((True, 0.2, 3, "x"), "finite numbers"),
        ((1, 0.2, 10**400, "x"), "finite numbers"),
        ((0.5, 0.2, 0.9, " "), "a source"),
        ((0.5, 0.2, 0.9, 3), "a source"),
        ((0.5, 0.2, 0.9, "x", "sqrt"), "scale = log or logit"),
    ],
)
def test_numbers_that_are_no_range_are_refused(args, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Prior(*args)


def test_priors_by_organ_and_by_default_may_stand_together():
    wide = {**ONE, "brain": ONE, "SmallIntestine": ONE}
    found = read_priors({"efficiency": wide, "free_k_in.liver": ONE, "free_fraction": ONE})
    assert set(found) == {
        "efficiency",
        "efficiency.brain",
        "efficiency.small_intestine",
        "free_k_in.liver",
        "free_fraction",
    }
    assert {k: p.scale for k, p in found.items() if p.scale == "logit"} == {"free_fraction": "logit"}
    assert read_priors(found) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"free_fracton": ONE}, "did you mean 'free_fraction'?"),
        ({"release": {"brain": ONE}}, "one value of release for all organs, not one of brain"),
        ({"release.brain": ONE}, "one value of release for all organs"),
        ({"release": 0.3}, "release as a table of median, low, high and source, not '0.3'"),
        ({"release": {}}, "a value of median for release"),
        ({"release": {k: v for k, v in ONE.items() if k != "source"}}, "a value of source for release"),
        ({"efficiency": {**ONE, "medain": 3}}, "did you mean 'median'?"),
        (
            {"efficiency": {"brain": {**ONE, "left": ONE}}},
            "median, low, high and source of efficiency.brain, not 'left'",
        ),
        ({"efficiency": {"brain": {**ONE, "low": 3}}}, "for efficiency.brain 0 < low <= median"),
        ({"free_fraction": {**ONE, "high": 1.5}}, "for free_fraction 0 < low <= median <= high < 1"),
        ({"release": {**ONE, "scale": "logit"}}, "release on the scale log"),
        ({"efficiency": {"--": ONE}}, "the name of an organ for efficiency, not '--'"),
        ([ONE], "a table of priors by nuisance parameter"),
    ],
)
def test_what_is_wrong_with_a_prior_is_said(given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_priors(given)


# ------------------------------------------------------------------ catalogue


def test_every_label_has_every_prior_for_every_reading():
    for model in models():
        for name in NUISANCE:
            assert name in model.priors, (model.entry, model.readout, name)
        for key in model.priors:
            name, _, organ = key.partition(".")
            assert name in (PER_ORGAN if organ else NUISANCE), key
            assert organ == organ_name(organ), key


def test_labels_the_field_uses_are_there():
    used = ["DiR", "DiD", "DiI", "DiO", "PKH26", "PKH67", "CFSE", "eGFP", "mCherry", "tdTomato", "NanoLuc", "gLuc", "Fluc", "PalmGRET",
            "ThermoLuc", "111In", "99mTc", "125I", "124I", "131I", "123I", "89Zr", "64Cu", "68Ga", "18F", "177Lu", "SPIO", "gold",
            "barcode RNA", "Cre"]  # fmt: skip
    assert set(used) <= set(catalogue())
    assert {e.kind for e in catalogue().values()} == set(KINDS)


def test_every_entry_is_whole():
    for e in catalogue().values():
        assert e.readout in e.readings
        assert e.template in templates()
        assert e.artefacts
        assert e.controls
        assert set(e.controls) <= set(CONTROLS)
        assert (e.kind == "radioactive") == (e.isotope is not None)
        assert e.isotope is None or e.isotope in isotopes()
        assert (e.kind in ("fluorescence", "bioluminescence")) == (e.emission_nm is not None)
        assert (e.kind == "bioluminescence") == (e.substrate is not None)
        if e.kind == "fluorescence":
            assert e.excitation_nm < e.emission_nm
        Label(kind=e.kind, isotope=e.isotope, emission_nm=e.emission_nm, excitation_nm=e.excitation_nm)


def test_every_number_and_claim_has_a_source_or_is_called_a_judgement():
    cited = re.compile(r"judgement: \w|\b(19|20)\d\d[ ,(]|PMC\d+|JBTR 25|tissue_optics\.csv")
    for model in models():
        for key, prior in model.priors.items():
            assert cited.search(prior.source), (model.entry, key, prior.source)
        for artefact in model.artefacts:
            assert cited.search(artefact.source), artefact


def test_no_name_means_two_labels():
    words = [(re.sub(r"[^a-z0-9]", "", w.lower()), e.name) for e in catalogue().values() for w in {e.name, *e.aliases}]
    assert all(word for word, _ in words)
    owners = {}
    for word, name in words:
        assert owners.setdefault(word, name) == name, word


def test_ranges_are_physical():
    """Free label fills at least the plasma, is carried to liver no faster than blood flows, and no rate is beyond a second."""
    plasma_g = physiology("mouse", "plasma", "volume").value * 0.02
    output = physiology("mouse", "body", "cardiac_output").value * 60
    flow = {
        o: output * physiology("mouse", o, "flow_fraction").value / 100
        for o in ("liver", "kidney", "spleen", "heart", "brain")
    }
    for model in models():
        volume = model.prior("free_v")
        assert plasma_g <= volume.low
        assert volume.high <= 40
        for organ, most in flow.items():
            assert model.prior("free_k_in", organ).high * volume.median <= most, (model.entry, organ)
        for name in ("release", "transfer", "clearance", "loss", "free_k_el", "free_k_out"):
            assert 1e-6 < model.prior(name).low < model.prior(name).high < 50
        assert model.prior("efficiency", "brain").high < 10
        assert model.prior("free_k_in", "brain").median < model.prior("free_k_in", "liver").median


def test_counted_labels_read_within_some_percent_and_light_does_not():
    counted = label_model("111In", Label(kind="radioactive", isotope="111In")).prior("efficiency", "liver")
    assert (counted.low, counted.high) == (0.95, 1.05)
    for name, kind in (("DiR", "fluorescence"), ("NanoLuc", "bioluminescence")):
        whole = label_model(name, Label(kind=kind), "whole_organ").prior("efficiency", "liver")
        ground = label_model(name, Label(kind=kind), "homogenate").prior("efficiency", "liver")
        assert whole.sd > 3 * ground.sd
        assert not label_model(name, Label(kind=kind), "in_vivo").absolute


@pytest.mark.parametrize(
    ("label", "organ", "emission", "excitation", "thickness", "delivered"),
    [
        ("DiR", "liver", 780, 748, 5.5, 1),
        ("DiR", "spleen", 780, 748, 2.5, 1),
        ("mCherry", "lung", 610, 587, 4.0, 1),
        ("NanoLuc", "liver", 460, None, 5.5, 1),
        ("NanoLuc", "brain", 460, None, 5.5, 0.3),
    ],
)
def test_efficiencies_of_whole_organs_follow_the_published_optics(
    label, organ, emission, excitation, thickness, delivered
):
    from evbiodist.imaging.optics import escape_fraction

    prior = label_model(label, Label(kind=find(label).kind), "whole_organ").prior("efficiency", organ)
    seen = escape_fraction(organ, thickness, emission, excitation)
    expected = seen * delivered if excitation is None else math.sqrt(seen * min(seen, 1))
    assert prior.median == pytest.approx(expected, rel=0.06)  # two digits are printed
    for factor, shift in itertools.product((0.6, 1.5), (-0.8, 0.8)):
        other = escape_fraction(organ, thickness * factor, emission, excitation, log_mu_a=shift) * delivered
        assert prior.low * 0.94 <= other <= prior.high * 1.06


def test_pertechnetate_goes_where_it_was_measured():
    """%ID/g of free pertechnetate in mice at 1, 2, 6 h (JBTR 25(4):185, table 4), within a factor of 1.6 where it is held."""
    times = (1.0, 2.0, 6.0)
    blood = (2.890, 2.518, 1.621)
    amounts = {  # % of dose beyond vessel blood: (%ID/g - blood fraction * blood) * organ mass in g
        "stomach": [(v - 0.05 * b) * 0.25 for v, b in zip((21.329, 26.376, 18.481), blood, strict=True)],
        "liver": [(v - 0.31 * b) * 1.1 for v, b in zip((2.392, 2.222, 2.016), blood, strict=True)],
        "salivary_gland": [(v - 0.05 * b) * 0.15 for v, b in zip((20.178, 25.517, 13.705), blood, strict=True)],
        "kidney": [(v - 0.24 * b) * 0.34 for v, b in zip((1.629, 1.642, 1.555), blood, strict=True)],
    }
    model = label_model("99mTc", Label(kind="radioactive", isotope="99mTc"))
    organs = [k.partition(".")[2] for k in model.priors if k.startswith("free_k_in.")]
    k_in = np.array([model.prior("free_k_in", o).median for o in organs])
    n = len(organs)
    K = np.zeros((n + 1, n + 1))
    K[0, 0] = -model.prior("free_k_el").median - k_in.sum()
    K[0, 1:] = model.prior("free_k_out").median
    K[1:, 0] = k_in
    K[1:, 1:] = -model.prior("free_k_out").median * np.eye(n)
    for i, t in enumerate(times):
        state = expm(K * t)[:, 0] * 100
        assert state[0] / model.prior("free_v").median == pytest.approx(blood[i], rel=0.1)
        for organ, seen in amounts.items():
            assert 1 / 1.6 < state[1 + organs.index(organ)] / seen[i] < 1.6, (organ, t)


# ------------------------------------------------------------------ finding an entry


@pytest.mark.parametrize(
    ("name", "expected"),
    [("In-111", "111In"), ("111in oxine", "111In"), ("Tc-99m", "99mTc"), ("nluc", "NanoLuc"), ("NanoLuc-CD63", "NanoLuc"),
     ("CD9_mCherry", "mCherry"), ("GFP", "eGFP"), ("gLuc-lactadherin", "gLuc"), ("64Cu-NOTA", "64Cu"), ("USPIO", "SPIO"),
     ("Cy5.5-NHS", "Cy5.5"), ("Cy5", "Cy5"), ("DiR 2", None), ("", None), ("---", None), ("ß", None)],
)  # fmt: skip
def test_names_are_found_whatever_their_case_and_separators(name, expected):
    entry = find(name)
    assert (entry.name if entry else None) == expected


def test_a_contradicted_name_is_not_matched():
    assert entry_for("DiR", "radioactive", "111In").name == "111In"
    assert entry_for("111In", "radioactive", "99mTc").name == "99mTc"
    assert entry_for("111In", "molecular") is None
    assert entry_for("x", "molecular", "111In") is None
    with pytest.raises(ValueError, match='kind = "fluorescence" beside catalogue = "DiR", or another entry'):
        named_entry("DiR", "radioactive")
    with pytest.raises(ValueError, match='kind = "radioactive" and isotope 111In beside catalogue'):
        named_entry("111In", "radioactive", "99mTc")


def test_the_entry_is_named_then_by_name_then_by_isotope_then_generic():
    dye = Label(kind="fluorescence")
    assert label_model("DiR", Label(kind="fluorescence", catalogue="DiD")).entry == "DiD"
    assert label_model("dir", dye).entry == "DiR"
    assert label_model("batch 7", Label(kind="radioactive", isotope="89Zr")).entry == "89Zr"
    for kind in KINDS:
        label = Label(kind=kind, half_life_h=2.0 if kind == "radioactive" else None)
        assert label_model("batch 7", label).entry == f"generic {kind}"


def test_generic_priors_are_wider_than_those_of_known_labels():
    for name in ("DiR", "mCherry", "CFSE"):
        known, any_ = label_model(name, Label(kind="fluorescence")), label_model("?", Label(kind="fluorescence"))
        assert all(any_.prior(p).sd > known.prior(p).sd for p in ("free_fraction", "free_v", "free_k_el", "clearance"))


# ------------------------------------------------------------------ the study's own words


def test_the_studys_priors_replace_the_catalogues():
    one = label_model("DiR", Label(kind="fluorescence", priors={"efficiency": {"brain": ONE}}))
    assert one.prior("efficiency", "brain").source == "own"
    assert one.prior("efficiency", "liver").source != "own"
    every = label_model("DiR", Label(kind="fluorescence", priors={"efficiency": ONE}))
    assert {every.prior("efficiency", o).source for o in ("brain", "liver", None, "Kidneys")} == {"own"}


def test_readouts():
    label = Label(kind="fluorescence", readout="homogenate")
    assert label_model("DiR", label).readout == "homogenate"
    assert label_model("DiR", label, "in_vivo").readout == "in_vivo"
    with pytest.raises(ValueError, match=r"a readout of DiR for the label 'DiR', not 'whole_orgn' .*'whole_organ'"):
        label_model("DiR", label, "whole_orgn")
    with pytest.raises(ValueError, match="'efficency' is no nuisance parameter of a label; did you mean 'efficiency'"):
        label_model("DiR", label).prior("efficency")


def test_weight_scales_volume_and_rates_of_free_label_only():
    mouse = label_model("111In", Label(kind="radioactive", isotope="111In"))
    rat = mouse.at_weight(320.0)
    changed = {k for k in mouse.priors if rat.priors[k] != mouse.priors[k]}
    assert {k.partition(".")[0] for k in changed} == {"free_v", "free_k_el", "free_k_in", "free_k_out"}
    assert rat.prior("free_k_in", "liver").sd == pytest.approx(mouse.prior("free_k_in", "liver").sd)
    assert mouse.at_weight(20.0) is mouse
    with pytest.raises(ValueError, match="weight_g is -1"):
        mouse.at_weight(-1)


def test_a_label_survives_pickle_and_json():
    label = Label(
        kind="fluorescence", catalogue="DiR", priors={"efficiency": {**ONE, "brain": ONE}, "free_fraction": ONE}
    )
    assert pickle.loads(pickle.dumps(label)) == label  # noqa: S301  our own bytes
    assert Label.model_validate_json(label.model_dump_json()) == label


def minimal(tmp_path, labels):
    (tmp_path / "observations.csv").write_text("subject,label,organ,time_h,value,unit\n", encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(f'name = "s"\n{labels}\n[tables]\nobservations = ["observations.csv"]\n', encoding="utf-8")
    return path


def test_a_study_may_leave_out_what_the_catalogue_knows(tmp_path):
    text = '[labels.DiR]\n[labels.In-111]\n[labels.mine]\ncatalogue = "NanoLuc"\nemission_nm = 470\n[labels.99mTc]\nhalf_life_h = 6.0'
    found = load_study(minimal(tmp_path, text)).labels
    assert (found["DiR"].kind, found["DiR"].emission_nm, found["DiR"].excitation_nm) == ("fluorescence", 780, 748)
    assert (found["In-111"].isotope, found["In-111"].half_life_h) == ("111In", 67.313)
    assert (found["mine"].kind, found["mine"].emission_nm) == ("bioluminescence", 470)
    assert (found["99mTc"].isotope, found["99mTc"].half_life_h) == (None, 6.0)


def test_filling_invents_nothing_for_a_label_nobody_knows():
    assert fill("my dye", {"kind": "fluorescence"}) == {"kind": "fluorescence"}
    assert fill("DiR", {"kind": "radioactive"}) == {"kind": "radioactive"}
    assert fill("DiR", {"isotope": ["x"], "kind": 3}) == {"isotope": ["x"], "kind": 3}


@pytest.mark.parametrize(
    ("labels", "place", "words"),
    [
        ("[labels.mine]", "labels.mine.kind", "a value"),
        ('[labels.mine]\ncatalogue = "DiX"', "labels.mine", "did you mean 'DiR'?"),
        ('[labels.mine]\ncatalogue = 3\nkind = "mri"', "labels.mine", "a label of the catalogue instead of '3'"),
        ('[labels.mine]\ncatalogue = "DiR"\nkind = "mri"', "labels.mine", 'kind = "fluorescence" beside'),
        ('[labels.DiR]\nreadout = "homogenat"', "labels", "did you mean 'homogenate'?"),
        ('[labels.DiR]\nreadot = "homogenate"', "labels.DiR.readot", "did you mean 'readout'?"),
        ("[labels.DiR.priors.free_fracton]\nmedian = 1", "labels.DiR.priors", "did you mean 'free_fraction'?"),
        ('[labels.DiR.priors.release]\nmedian = 1\nlow = 2\nhigh = 3\nsource = "x"', "labels.DiR.priors", "for release 0 < low"),
        ("[labels.DiR]\npriors = 3", "labels.DiR.priors", "a table of priors"),
    ],
)  # fmt: skip
def test_problems_of_labels_name_the_key(tmp_path, labels, place, words):
    with pytest.raises(InputError) as caught:
        load_study(minimal(tmp_path, labels))
    found = [str(p) for p in caught.value.problems]
    assert any(f"key {place}:" in p and words in p for p in found), found


# ------------------------------------------------------------------ controls


def test_missing_controls_are_named_with_labels_and_reason():
    dye, light = label_model("DiR", Label(kind="fluorescence")), label_model("NanoLuc", Label(kind="bioluminescence"))
    tracer = label_model("111In", Label(kind="radioactive", isotope="111In"))
    found = missing_controls({"DiR": dye, "NanoLuc": light, "111In": tracer}, ["treated"])
    assert any(s.startswith("No dye-only arm, processed like the vesicles (DiR): dye forms particles") for s in found)
    assert any(s.startswith("No arm with the free label (NanoLuc, 111In): ") for s in found)
    assert any(s.startswith("No animals that got the substrate alone (NanoLuc): ") for s in found)
    assert len(found) == len(set(found))
    assert all(s.endswith(".") for s in found)
    every = ["DyeOnly", "free label", "unlabelled", "substrate_only", "perfused", "dose standard", "homogenates"]
    assert missing_controls({"DiR": dye, "NanoLuc": light, "111In": tracer}, every) == []
    assert missing_controls({}, []) == []


@pytest.mark.parametrize(
    ("arm", "control"),
    [("unperfused", "perfused"), ("not perfused", "perfused"), ("dye labelled", "dye_only"), ("dye free", "free_label"),
     ("standard diet", "dose_standard"), ("labelled", "unlabelled")],
)  # fmt: skip
def test_an_arm_that_only_sounds_like_a_control_is_none(arm, control):
    dyes = {"DiR": label_model("?", Label(kind="fluorescence"))}
    assert missing_controls(dyes, [arm]) == missing_controls(dyes, [])
    assert len(missing_controls(dyes, [control])) == len(missing_controls(dyes, [])) - 1


# ------------------------------------------------------------------ what users see


def test_the_page_is_current():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_labels import page
    finally:
        sys.path.pop(0)
    written = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    assert written == page(), "run python docs/make_labels.py"
    assert all(f"### {name}\n" in written for name in catalogue())


def test_the_example_of_the_page_is_a_study(tmp_path):
    text = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "labels.md").read_text(encoding="utf-8"), re.S)[0]
    path = minimal(tmp_path, "")
    path.write_text(text, encoding="utf-8")
    labels = load_study(path).labels
    assert label_model("MyDye", labels["MyDye"]).prior("efficiency", "brain").median == 0.6
    assert label_model("batch 7", labels["batch 7"]).entry == "111In"


def test_the_command_prints_all_or_one():
    from evbiodist.cli import main

    run = CliRunner().invoke
    listed = run(main, ["labels"])
    assert listed.exit_code == 0
    assert all(any(line.startswith(f"{name} ") for line in listed.output.splitlines()) for name in catalogue())
    one = run(main, ["labels", "in-111", "NLuc"])
    assert one.exit_code == 0
    for words in (
        "111In, half-life 67.313 h",
        "free_fraction 0.03 (0.004 to 0.15)",
        "read by homogenate, usual",
        "Lazaro-Ibanez",
    ):
        assert words in one.output
    wrong = run(main, ["labels", "DiX"])
    assert wrong.exit_code == 2
    assert "there is no label 'DiX' in the catalogue; did you mean 'DiR'?" in wrong.output


def test_new_isotopes_have_the_half_lives_of_their_years():
    year_h = 365.2422 * 24
    assert isotopes()["3H"] == pytest.approx(12.32 * year_h, rel=1e-4)
    assert isotopes()["14C"] == pytest.approx(5700 * year_h, rel=1e-4)
