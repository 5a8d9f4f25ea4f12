"""Checklists: every item comes from the study by its rule, gaps name the place to fill, and nothing is invented."""

import json
from pathlib import Path

import pandas as pd
import pytest

from evbiodist.report.checklists import NO_CLAIM, PANEL, RULES, _toml, checklists
from evbiodist.report.folder import ResultFolder, read_results
from evbiodist.report.methods import methods

STATES = ("reported", "partly", "not reported", "not applicable")
HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("x")',
    "$ _ ^ \\ ; , \" '",
    "a\nb\x00c",
    "Ünïcödé 肝",
    "",
    "nan"[:1] * 500,
]


def seen(**columns):
    """Return observations: two labels, two animals a time, three times in two organs, falling at the end."""
    rows = [
        {"study": "s", "subject": f"{label}{t}{k}", "group": "treated", "label": label, "organ": organ, "time_h": t,
         "value": v + k, "se": 0.1, "unit": "pct_id", "lloq": None, "below_lloq": "no", "flags": "", "sd": None, "n": None,
         "vessel_blood": None}
        for label in ("A", "B") for organ in ("liver", "brain") for t, v in ((1.0, 4.0), (4.0, 9.0), (24.0, 2.0)) for k in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def subject(name, **more):
    return {"subject": name, "label": "A", "dose": 1e9, "dose_unit": "particles", "route": "iv_bolus", "group": "treated",
            "sex": "F", "weight_g": 20.0, "perfused": False, "batch": ""} | more  # fmt: skip


def group(name="treated", label="A", **more):
    return {
        "group": name,
        "label": label,
        "animals": 4,
        "female": 2,
        "male": 2,
        "perfused": 0,
        "routes": ["iv_bolus"],
    } | more


def folder(path=Path("nowhere"), tables=None, **study):
    told = {"name": "s", "settings": {"crossval": {}, "kinetics": {}, "imaging": {}}} | study
    return ResultFolder(path, {"observations": pd.DataFrame(), "failures": pd.DataFrame()} | (tables or {}), told)


def item(results, name, number):
    return next(i for c in checklists(results) if c.name == name for i in c.items if i.number == number)


def settings(part, **keys):
    return {"crossval": {}, "kinetics": {}, "imaging": {}} | {part: keys}


def params(**columns):
    return pd.DataFrame(
        [{"model": "nca", "value": 1.0, "ci_low": 0.5, "ci_high": 2.0, "n": 3, "flags": ""}] * 2
    ).assign(**columns)


AGREEMENT = pd.DataFrame(
    [{"label_a": "A", "label_b": "B", "organ": o, "bias_low": 0.0, "bias_high": 1.0} for o in ("all", "liver")]
)
LABELS = {k: {"kind": "fluorescence", "emission_nm": 780.0} for k in "AB"}
ALL_PANEL = seen().assign(organ=[list(PANEL.values())[k % len(PANEL)][0] for k in range(24)])
QC = [pd.DataFrame({"quantity": ["recovery_pct"], "method": [m]}) for m in ("qc samples", "standards read back")]

CASES = [
    ("misev2023", "1", folder(vesicles={"carrier": "vesicles"}), "reported", "carrier: vesicles."),
    ("misev2023", "1", folder(), "not reported", "[vesicles] says nothing of carrier."),
    ("misev2023", "4", folder(vesicles={"particles_per_dose": 2e10}), "partly",
     "particles_per_dose: 2e+10. Not said: particles_method and protein_ug_per_dose."),
    ("misev2023", "3", folder(vesicles={"isolation": ["tff", "sec"]}), "reported", "isolation: tff, sec."),
    ("misev2023", "9", folder(labels=LABELS), "reported", "2 labels described: A (fluorescence) and B (fluorescence)."),
    ("misev2023", "9", folder(labels=LABELS | {"B": {"kind": "fluorescence"}}), "partly",
     "2 labels described: A (fluorescence) and B (fluorescence). Physics not given: B."),
    ("misev2023", "9", folder(), "not reported", "No label is described."),
    ("misev2023", "10", folder(groups=[group("dye only")]), "reported",
     "Dye-only arm, processed like the vesicles: dye only."),
    ("misev2023", "10", folder(missing=["No dye-only arm, processed like the vesicles (A): why."]), "not reported",
     "No dye-only arm, processed like the vesicles (A): why."),
    ("misev2023", "10", folder(), "not applicable",
     "No label of this study calls for a dye-only arm, processed like the vesicles."),
    ("misev2023", "11", folder(settings=settings("crossval", controls={"x": "free_label"})), "reported",
     "Arm with the free label: x."),
    ("misev2023", "12", folder(groups=[group("saline")], missing=["No animals that got the substrate alone (A): why."]), "partly",
     "Unlabelled vesicles or untreated animals: saline. No animals that got the substrate alone (A): why."),
    ("misev2023", "13", folder(subjects=[subject("a"), subject("b", dose=3e9)]), "reported",
     "Route: iv_bolus. Dose: 1e+09 to 3e+09 particles."),
    ("misev2023", "13", folder(groups=[group()]), "partly", "Route: iv_bolus. No dose is given."),
    ("misev2023", "13", folder(), "not reported", "No route is given. No dose is given."),
    ("misev2023", "14", folder(groups=[group(perfused=4)]), "reported", "4 of 4 animals perfused."),
    ("misev2023", "14", folder(groups=[group(perfused=1)]), "partly", "1 of 4 animals perfused."),
    ("misev2023", "14", folder(), "not reported", "Perfusion is not told, and no vessel blood was subtracted."),
    ("misev2023", "14", folder(tables={"observations": seen(vessel_blood=0.1)}), "reported",
     "Vessel blood was subtracted from 24 values."),
    ("misev2023", "14", folder(tables={"observations": seen(vessel_blood=0.1, flags="blood_in_organ")}), "partly",
     "Vessel blood was subtracted from 24 values. 24 values still with vessel blood."),
    ("misev2023", "14", folder(sources=[{"file": "t.csv", "perfused": True}]), "reported", "Perfused, by t.csv."),
    ("misev2023", "15", folder(tables={"observations": seen()}), "reported", "3 times, 1 to 24 h."),
    ("misev2023", "15", folder(tables={"observations": seen(time_h=2.0)}), "partly", "One time, 2 h."),
    ("misev2023", "15", folder(), "not reported", "No value has a time."),
    ("misev2023", "16", folder(labels=LABELS, tables={"agreement": AGREEMENT}), "reported",
     "1 of 1 pair of labels compared, over 1 organ."),
    ("misev2023", "16", folder(labels=LABELS | {"C": {}}, tables={"agreement": AGREEMENT}), "partly",
     "1 of 3 pairs of labels compared, over 1 organ."),
    ("misev2023", "16", folder(labels={"A": {}}), "not reported", "One label only, so no methods to compare."),
    ("ich_m10", "6.2", folder(labels={"A": {}}), "not applicable", "One label only, so no methods to compare."),
    ("ich_m10", "6.2", folder(labels=LABELS), "not reported", "2 labels, but no two were compared."),
    ("arrive2", "1a", folder(groups=[group(), group("vehicle")]), "reported",
     "2 groups: treated and vehicle. Controls: vehicle."),
    ("arrive2", "1a", folder(groups=[group()]), "partly", "1 group: treated. None of them is a control."),
    ("arrive2", "1a", folder(), "not reported", "No group is named."),
    ("arrive2", "1b", folder(groups=[group()]), "partly",
     "4 animals described one by one; whether the animal was the unit is not said."),
    ("arrive2", "1b", folder(), "not reported", "No animal is described."),
    ("arrive2", "2a", folder(subjects=[subject("a"), subject("a", label="B")], groups=[group(animals=1), group(label="B", animals=1)]),
     "reported", "1 animal: treated / A 1; treated / B 1."),
    ("arrive2", "2a", folder(sources=[{"file": "t", "n": 5}]), "partly",
     "The tables give n = 5 a value; no animal is described."),
    ("arrive2", "2a", folder(), "not reported", "The number of animals is not given."),
    ("arrive2", "2b", folder(), "not reported", "A study's files do not say this."),
    ("arrive2", "3b", folder(), "partly", "No input failed; animals or values left out before are not known."),
    ("arrive2", "3b", folder(tables={"failures": pd.DataFrame({"what": ["scan"]})}), "partly",
     "Failed inputs: 1, each with its reason in failures.csv; animals left out before are not known."),
    ("arrive2", "3c", folder(tables={"parameters": params()}), "reported", "2 of 2 estimates say on how many values they rest."),
    ("arrive2", "3c", folder(tables={"parameters": params(n=[3, None])}), "partly",
     "1 of 2 estimates say on how many values they rest."),
    ("arrive2", "3c", folder(tables={"parameters": params(n=None)}), "not reported",
     "0 of 2 estimates say on how many values they rest."),
    ("arrive2", "3c", folder(), "not applicable", "No parameter was estimated."),
    ("arrive2", "4b", folder(subjects=[subject("a", batch="b1"), subject("b", batch="b2")]), "partly",
     "2 batches named: b1 and b2; order of treatment is not known."),
    ("arrive2", "4b", folder(), "not reported", "No batch or order is given."),
    ("arrive2", "6a", folder(tables={"observations": seen()}), "reported", "24 values in pct_id; organs: brain and liver."),
    ("arrive2", "6a", folder(), "not reported", "There are no values."),
    ("arrive2", "7a", folder(settings=settings("kinetics", level=0.9)), "partly",
     "Intervals at 90 %; provenance.json is lacking, so versions are not known."),
    ("arrive2", "7a", folder(), "not reported",
     "Level of intervals not known; provenance.json is lacking, so versions are not known."),
    ("arrive2", "7b", folder(), "not applicable", "There are no values."),
    ("arrive2", "7b", folder(tables={"observations": seen(flags="misfit"), "parameters": params()}), "partly",
     "Flags mark doubtful numbers: 24 values and 0 parameters carry one."),
    ("arrive2", "8a", folder(species="mouse", subjects=[subject("a"), subject("b", sex="M", weight_g=25)]), "partly",
     "Species: mouse. 1 F / 1 M. Weight: 20 to 25 g (2 of 2 rows). Strain and age have no place in the files."),
    ("arrive2", "8a", folder(), "not reported",
     "Species not given. Sex not given. Weight not given. Strain and age have no place in the files."),
    ("arrive2", "10a", folder(tables={"observations": seen()}), "reported",
     "Values of 12 animals one by one; 24 of 24 have a standard error."),
    ("arrive2", "10a", folder(tables={"observations": seen(subject="pooled")}), "reported",
     "24 of 24 values have a standard error or deviation."),
    ("arrive2", "10a", folder(tables={"observations": seen(subject="pooled", se=[1.0] + [None] * 23)}), "partly",
     "1 of 24 values have a standard error or deviation."),
    ("arrive2", "10a", folder(tables={"observations": seen(subject="pooled", se=None)}), "not reported",
     "0 of 24 values have a standard error or deviation."),
    ("arrive2", "10b", folder(tables={"parameters": params()}), "reported",
     "2 of 2 estimates have an interval; the others say why not."),
    ("arrive2", "10b", folder(tables={"parameters": params(ci_low=[0.5, None])}), "partly",
     "1 of 2 estimates have an interval; the others say why not."),
    ("arrive2", "10b", folder(tables={"parameters": params(ci_low=None)}), "not reported",
     "0 of 2 estimates have an interval; the others say why not."),
    ("arrive2", "10b", folder(), "not applicable", "No parameter was estimated."),
    ("ich_s12", "4.3", folder(species="rat"), "partly", "Species: rat; why it was chosen is not said."),
    ("ich_s12", "4.3", folder(), "not reported", "Species not given."),
    ("ich_s12", "4.4 (size)", folder(groups=[group()], tables={"observations": seen()}), "reported",
     "2 animals at each time, organ and label."),
    ("ich_s12", "4.4 (size)", folder(groups=[group()], tables={"observations": seen()[1:]}), "partly",
     "1 to 2 animals at each time, organ and label."),
    ("ich_s12", "4.4 (size)", folder(tables={"observations": seen()}), "not reported",
     "The number of animals at a time is not given."),
    ("ich_s12", "4.4 (size)", folder(), "not reported", "There are no values."),
    ("ich_s12", "4.4 (sex)", folder(groups=[group()]), "reported", "2 F / 2 M."),
    ("ich_s12", "4.4 (sex)", folder(groups=[group(male=0)]), "partly", "2 F / 0 M, 2 not stated."),
    ("ich_s12", "4.4 (sex)", folder(groups=[group(male=0, female=0)]), "not reported", "Sex not given."),
    ("ich_s12", "4.6 (panel)", folder(tables={"observations": ALL_PANEL}), "reported",
     "10 of 10 tissues of the core panel: gonads, "
     "adrenal, brain, spinal cord, liver, kidney, lung, heart, spleen and blood."),
    ("ich_s12", "4.6 (panel)", folder(tables={"observations": seen()}), "partly",
     "2 of 10 tissues of the core panel: brain and liver. "
     "Lacking: gonads, adrenal, spinal cord, kidney, lung, heart, spleen and blood; the site of injection is not looked for."),
    ("ich_s12", "4.6 (panel)", folder(tables={"observations": seen(organ="tumour")}), "not reported", None),
    ("ich_s12", "4.6 (times)", folder(tables={"observations": seen()}), "reported",
     "4 of 4 curves with three or more times end below their highest mean."),
    ("ich_s12", "4.6 (times)", folder(tables={"observations": seen()[:22]}), "partly",
     "3 of 4 curves with three or more times end below their highest mean."),
    ("ich_s12", "4.6 (times)", folder(tables={"observations": seen(value=seen()["time_h"])}), "not reported",
     "0 of 4 curves with three or more times end below their highest mean."),
    ("ich_s12", "5.1", folder(tables={"observations": seen(lloq=0.1)}), "reported",
     "24 of 24 values have a lower limit of quantification."),
    ("ich_s12", "5.1", folder(tables={"observations": seen(lloq=[0.1] + [None] * 23)}), "partly",
     "1 of 24 values have a lower limit of quantification."),
    ("ich_s12", "5.1", folder(tables={"observations": seen()}), "not reported",
     "0 of 24 values have a lower limit of quantification."),
    ("ich_s12", "5.5", folder(tables={"observations": ALL_PANEL}), "reported", "Measured: testis."),
    ("ich_s12", "5.5", folder(), "not reported", "Neither testis nor ovary was measured."),
    ("ich_m10", "3.2.4", folder(settings=settings("imaging", curve={"file": "std.csv"})), "reported", "Standards: std.csv."),
    ("ich_m10", "3.2.4", folder(settings=settings("crossval", assay="assay.csv")), "reported", "Standards: assay.csv."),
    ("ich_m10", "3.2.4", folder(settings=settings("imaging", standard={"pct_of_dose": 2})), "partly",
     "A dose standard of 2 % of the dose in the images: one level, no curve."),
    ("ich_m10", "3.2.4", folder(), "not reported", "No standard and no standard curve."),
    ("ich_m10", "3.2.5", folder(tables={"assay_validation": QC[0]}), "reported",
     "assay_validation.csv holds recovery and precision of quality controls, level by level."),
    ("ich_m10", "3.2.5", folder(tables={"assay_validation": QC[1]}), "partly",
     "Recovery and precision come from the standards themselves; there are no quality controls."),
    ("ich_m10", "3.2.5", folder(), "not reported", "No quality controls were given."),
    ("ich_m10", "3.3", folder(settings=settings("kinetics", blq="zero"), tables={"observations": seen(below_lloq="yes")}),
     "reported",
     "24 values below the limit; rule of the areas: zero."),
    ("ich_m10", "3.3", folder(tables={"observations": seen(below_lloq="yes")}), "partly",
     "24 values below the limit; rule of the areas: not known."),
    ("ich_m10", "3.3", folder(tables={"observations": seen(lloq=0.1)}), "not applicable",
     "Limits are given and no value is below them."),
    ("ich_m10", "3.3", folder(tables={"observations": seen()}), "not reported",
     "No value is marked as below a limit, and no limit is given."),
    ("ich_m10", "6.2 (bias)", folder(labels=LABELS, tables={"agreement": AGREEMENT}), "reported",
     "2 of 2 comparisons carry a bias with its interval; nothing is judged as passed or failed."),
    ("ich_m10", "6.2 (bias)", folder(labels=LABELS, tables={"agreement": AGREEMENT.assign(bias_low=[0.0, None])}), "partly",
     "1 of 2 comparisons carry a bias with its interval; nothing is judged as passed or failed."),
    ("ich_m10", "6.2 (bias)", folder(labels=LABELS), "not reported", "No two labels were compared."),
    ("ich_m10", "6.2 (bias)", folder(), "not applicable", "No two labels were compared."),
    ("ich_m10", "8", folder(), "not reported", "provenance.json is lacking."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "number", "results", "state", "evidence"), CASES)
def test_an_item_is_what_the_study_tells(name, number, results, state, evidence):
    found = item(results, name, number)
    assert found.state == state
    if evidence is not None:
        assert found.evidence == evidence
    assert bool(found.remedy) == (state in ("partly", "not reported"))


def test_every_rule_is_tried_and_used():
    tried = {(name, number) for name, number, *_ in CASES}
    rule = {(c["name"], i["number"]): i["rule"] for c in _toml()["checklist"] for i in c["item"]}
    assert {rule[k] for k in tried} == set(rule.values()) == set(RULES)


@pytest.mark.parametrize(("said", "state"), [({"evbiodist": "1", "inputs": {"a": "0"}, "settings": {"x": 1}, "versions": {"p": "1"},
                                               "started": "t"}, "reported"), ({"settings": {"x": 1}}, "partly")])  # fmt: skip
def test_records_are_those_of_provenance(tmp_path, said, state):
    (tmp_path / "provenance.json").write_text(json.dumps(said))
    assert item(folder(tmp_path), "ich_m10", "8").state == state


def test_versions_and_level_are_reported(tmp_path):
    (tmp_path / "provenance.json").write_text('{"evbiodist": "0.1.0"}')
    found = item(folder(tmp_path, settings=settings("kinetics", level=0.95)), "arrive2", "7a")
    assert (found.state, found.evidence) == (
        "reported",
        "Intervals at 95 %; evbiodist 0.1.0, settings and versions in provenance.json.",
    )


def test_no_compliance_is_claimed_and_numbers_are_unique():
    for c in checklists(folder()):
        assert c.note.endswith(NO_CLAIM)
        assert len({i.number for i in c.items}) == len(c.items)
        assert sum(c.counts().values()) == len(c.items)


def test_the_essential_ten_are_there():
    numbers = {i.number for c in checklists(folder()) if c.name == "arrive2" for i in c.items}
    assert {n.rstrip("abcd") for n in numbers} == {str(k) for k in range(1, 11)}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_one_printable_line(text):
    results = folder(labels={text: {"kind": "fluorescence"}, "B": {}}, species=text, vesicles={"carrier": text, "markers": [text]},
                     groups=[group(text, text)], subjects=[subject(text, batch=text, label=text)],
                     missing=[f"No dye-only arm, processed like the vesicles ({text}): why."],
                     sources=[{"file": text, "perfused": True}],
                     tables={"observations": seen(subject=text, group=text, label=text, organ=text)})  # fmt: skip
    for c in checklists(results):
        for i in c.items:
            assert i.state in STATES
            assert i.evidence.isprintable()
            assert len(i.evidence) < 1500


def test_no_cell_is_told_as_nan_or_none():
    studies = [results for _, _, results, _, _ in CASES]
    studies.append(
        folder(groups=[], subjects=[], labels={}, tables={"observations": seen()[:0], "parameters": pd.DataFrame()})
    )
    for results in studies:
        for c in checklists(results):
            for i in c.items:
                assert not {"nan", "None", "NaN"} & set(i.evidence.replace(".", " ").replace(",", " ").split()) - {
                    "None"
                }
                assert "None" not in i.evidence.replace("None of them", "")


def test_five_hundred_animals_are_cut_to_a_sentence():
    subjects = [subject(f"m{k}", group=f"g{k}") for k in range(500)]
    groups = [group(f"g{k}", animals=1) for k in range(500)]
    found = item(folder(subjects=subjects, groups=groups), "arrive2", "2a")
    assert found.evidence.startswith("500 animals: g0 / A 1;")
    assert found.evidence.endswith("and 492 more groups.")


def test_a_digital_study_tells_what_its_files_hold(small_results):
    results = read_results(small_results)
    found = {(c.name, i.number): i for c in checklists(results) for i in c.items}
    assert found["misev2023", "13"].state == "reported"
    assert found["misev2023", "16"].evidence.startswith("6 of 6 pairs of labels compared")
    assert found["arrive2", "2a"].evidence.startswith(
        f"{len({s['subject'] for s in results.study['subjects']})} animals"
    )
    assert found["ich_m10", "8"].state == "reported"
    assert {i.state for i in found.values() if i.evidence.startswith("A study's files do not")} == {"not reported"}


def test_a_published_table_tells_little(tmp_path):
    import evbiodist as ev
    from evbiodist.sample import sample_data

    study = sample_data() / "organ_tables" / "99mTc_pertechnetate"
    ev.run(study, tmp_path)
    results = read_results(tmp_path)
    assert item(results, "ich_m10", "6.2").state == "not applicable"
    assert item(results, "ich_s12", "4.4 (sex)").state == "not reported"
    told = methods(results)
    assert "Comparison of labels" not in [p.title for p in told.paragraphs]
    assert "Image analysis" not in [p.title for p in told.paragraphs]
    assert any(p.title == "Tables of values" for p in told.paragraphs)
