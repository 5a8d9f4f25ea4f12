"""What may enter the library: results as their run wrote them, studies of tables, tables with metadata; and every refusal."""

import hashlib
import json

import pytest

from evbiodist.batch.pipeline import run_study
from evbiodist.library.facts import arms, facts_of_results
from evbiodist.library.intake import read_incoming
from evbiodist.library.metadata import STUDY_COLUMNS, Metadata, columns_of, described, merge, read_metadata
from evbiodist.library.store import add, contents
from evbiodist.study.load import load_study
from evbiodist.study.model import ObservationSource
from evbiodist.study.problems import InputError

TOLD = """
[vesicles]
carrier = "vesicles"
source_cell = "HEK293T"
isolation = ["TFF", "size exclusion"]
"""


@pytest.fixture
def results(table_study, tmp_path):
    """A result folder of a study of tables, observations only."""
    path = table_study()
    path.write_text(path.read_text() + TOLD)
    run_study(load_study(path), tmp_path / "out", quantify_only=True)
    return tmp_path / "out"


def by_subject(incoming, organ="brain", time_h=24.0):
    return {r["subject"]: r for r in incoming.observations if (r["organ"], r["time_h"]) == (organ, time_h)}


def test_results_come_with_dose_animal_label_and_vesicles(results):
    found = read_incoming(results)
    assert (found.title, found.metadata.study, found.metadata.species, found.origin) == ("s", "s", "mouse", "results")
    assert found.metadata.vesicles.source_cell == "HEK293T"
    assert found.metadata.vesicles.isolation == ("tff", "sec")
    rows = by_subject(found)
    assert set(rows) == {"001", "NA"}
    one = rows["001"]
    assert (one["sex"], one["dose"], one["dose_unit"], one["route"]) == ("F", 1e10, "particles", "iv_bolus")
    assert (one["label_kind"], one["label_name"], one["species"], one["control"]) == (
        "fluorescence",
        "DiR",
        "mouse",
        None,
    )
    assert rows["NA"]["sex"] == "M"
    assert len(found.observations) == 16
    assert found.inputs


def test_a_whole_run_brings_parameters_and_curves(table_study, tmp_path):
    path = table_study()
    settings = '\n[kinetics]\nmodels = ["one_compartment_iv"]\nlevel = 0.9\n[crossval]\njoint = false\n'
    path.write_text("simulated = true\n" + path.read_text() + settings)
    run_study(load_study(path), tmp_path / "out")
    found = read_incoming(tmp_path / "out")
    assert found.simulated
    assert {r["parameter"] for r in found.parameters} > {"cmax", "auclast"}
    assert {(r["organ"], r["model"]) for r in found.curves} == {("blood", "one_compartment_iv")}
    assert found.interval_level == 0.9
    rows = add(tmp_path / "lib", found).part.record["rows"]
    assert rows == {
        "observations": len(found.observations),
        "parameters": len(found.parameters),
        "curves": len(found.curves),
    }


@pytest.mark.parametrize("name", ["observations.csv", "failures.csv"])
def test_tampered_results_are_refused(results, name):
    text = (results / name).read_text()
    (results / name).write_text(text.replace("20.0", "21.0") if "20.0" in text else text + "x")
    with pytest.raises(
        InputError, match=f"{name}: found 'something else', expected what the run wrote; it was changed"
    ):
        read_incoming(results)


def test_results_with_a_provenance_made_to_fit_are_refused_by_the_journal(results):
    path = results / "observations.csv"
    path.write_text(path.read_text().replace("20.0", "21.0"))
    provenance = json.loads((results / "provenance.json").read_text())
    provenance["outputs"]["observations.csv"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (results / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(InputError, match=r"provenance.json: found 'something else', expected what the run wrote"):
        read_incoming(results)


def test_an_unfinished_run_is_refused(results):
    (results / "provenance.json").unlink()
    with pytest.raises(
        InputError, match=r"found 'no provenance.json', expected the result folder of a run that ended; run the"
    ):
        read_incoming(results)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"inputs": {}, "outputs": {"../../x": "0"}}', '{"inputs": 1, "outputs": []}',
                                     "[" * 9000, '{"inputs": {}, "outputs": {"observations.csv": 3}}'])  # fmt: skip
def test_a_provenance_that_is_none_is_a_sentence(results, content):
    (results / "provenance.json").write_text(content)
    with pytest.raises(InputError, match=r"provenance.json: found 'something else'"):
        read_incoming(results)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "s", "labels": 3}', '{"name": "\\ud800", "labels": {}}',
                                     '{"name": "s", "labels": {}, "vesicles": {"zeta_mv": "NaN"}}'])  # fmt: skip
def test_a_study_json_that_is_none_is_a_sentence(results, content):
    (results / "study.json").write_text(content)
    with pytest.raises(InputError, match=r"study.json"):
        read_incoming(results)


def test_without_the_study_its_groups_tell_what_they_can(results, tmp_path):
    (tmp_path / "study.toml").unlink()
    found = read_incoming(results)
    assert (
        "the study behind out cannot be read (study.toml), so sex and weight of single animals are not known"
        in found.notes[0]
    )
    one = by_subject(found)["001"]
    assert (one["route"], one["sex"], one["dose"]) == ("iv_bolus", "both", None)


def test_a_study_changed_after_the_run_is_not_believed(results, tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text(path.read_text().replace("1e10", "2e10"))
    found = read_incoming(results)
    assert "was changed after the run" in found.notes[0]
    assert by_subject(found)["001"]["dose"] is None


def test_metadata_beside_the_results_add_and_contradict(results, tmp_path):
    told = tmp_path / "metadata.toml"
    told.write_text(
        'study = "Doe 2024"\ndoi = "10.1000/xyz"\nspecies = "rat"\n[vesicles]\nsource_cell = "MSC"\nzeta_mv = -31.5\n'
    )
    found = read_incoming(results, told)
    assert (found.metadata.study, found.title, found.metadata.vesicles.zeta_mv) == ("Doe 2024", "s", -31.5)
    assert found.metadata.vesicles.isolation == ("tff", "sec")  # what the file does not say stays
    assert "metadata.toml: species is 'rat', where the results say 'mouse'; the file's word is taken" in found.notes
    assert (
        "metadata.toml: vesicles.source_cell is 'MSC', where the results say 'HEK293T'; the file's word is taken"
        in found.notes
    )
    assert {r["study"] for r in found.observations} == {"Doe 2024"}


@pytest.mark.parametrize(("text", "said"), [
    ("study = ", "metadata.toml: found 'Invalid value"),
    ("study = 5", "key study: found '5', expected text in quotes"),
    ('study = ""', "key study: found nothing, expected some text"),
    ('study = "a\\u001b[31mb"', "expected text without control characters"),
    ('study = "s"\nspeceis = "mouse"', "found 'speceis', expected a known key; did you mean 'species'?"),
    ('study = "s"\nvesicles = 3', "key vesicles: found '3', expected a table of keys"),
    ('study = "s"\ntable = "x"', "key table: found 'x', expected a table of keys"),
    ('study = "s"\n[vesicles]\nev_track = "EV12"', "key vesicles.ev_track: found 'EV12'"),
    ('study = "s"\n[vesicles]\nzeta_mv = nan', "key vesicles.zeta_mv: found 'nan', expected a finite number"),
    ('study = "s"\n[vesicles]\nzeta_mv = -900', "key vesicles.zeta_mv: found '-900', expected more than -200"),
    ('study = "s"\n[vesicles]\nparticles_per_dose = 0', "key vesicles.particles_per_dose: found '0', expected more than 0"),
    ('study = "s"\n[vesicles]\ncarrier = "exosome"', "key vesicles.carrier: found 'exosome', expected one of vesicles, free_label"),
    ('study = "s"\n[vesicles]\nsize_mode = 100', "found 'size_mode', expected a known key; did you mean 'size_mode_nm'?"),
    ('study = "s"\n[vesicles]\nisolation = ["  "]', "key vesicles.isolation.0"),
    ('study = "s"\n[table]\nunit = "furlong"', "key table.unit: found 'furlong', expected one of pct_id"),
    ('study = "s"\ndoi = "https://doi.org/10.1/x"', "key doi"),
    ('study = "s"\nyear = 1492', "key year: found '1492', expected 1950 or more"),
    ("[" * 3000, "metadata.toml"),
])  # fmt: skip
def test_metadata_that_are_none_are_a_sentence(tmp_path, text, said):
    path = tmp_path / "metadata.toml"
    path.write_text(text)
    with pytest.raises(InputError) as told:
        read_metadata(path)
    assert said in str(told.value)


def test_a_missing_file_of_metadata_is_a_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"metadata.toml: found 'No such file or directory', expected a file of metadata"
    ):
        read_metadata(tmp_path / "metadata.toml")


def test_nothing_is_invented(tmp_path):
    metadata = Metadata(study="s")
    assert set(metadata.missing()) == set(described())
    assert set(columns_of(metadata).values()) == {None}
    assert set(STUDY_COLUMNS) == set(columns_of(metadata))
    assert merge({}, {"study": "s"}, "x")[1] == []


def test_a_published_table_comes_by_its_study_file():
    from pathlib import Path

    folder = Path(__file__).resolve().parents[3] / "sample_data" / "organ_tables" / "125I_TAP1"
    found = read_incoming(folder)
    assert (found.origin, found.metadata.source) == ("study", "PMC3986099 table 1, PLoS One 2014")
    assert {r["n"] for r in found.observations} == {3}
    assert {(r["label_name"], r["isotope"], r["route"]) for r in found.observations} == {("125I", "125I", "iv_bolus")}
    assert found == read_incoming(folder / "study.toml")


def test_a_table_alone_needs_metadata(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("organ,h1,sd,h24,sd\nLiver,8.1,0.5,6.2,0.4\n")
    with pytest.raises(
        InputError, match=r"found 'no metadata.toml', expected a metadata.toml with study = \"...\" for a table alone"
    ):
        read_incoming(table)
    told = tmp_path / "metadata.toml"
    told.write_text('[table]\nlabel = "DiR"\nunit = "pct_id_per_g"\nn = 4\n')
    with pytest.raises(InputError, match="found 'no name of the study'"):
        read_incoming(table, told)
    told.write_text('study = "Roe 2020"\nspecies = "rat"\nsex = "F"\n' + told.read_text())
    found = read_incoming(table, told)
    assert {(r["study"], r["n"], r["species"], r["sex"], r["unit"], r["route"]) for r in found.observations} == {
        ("Roe 2020", 4, "rat", "F", "pct_id_per_g", "iv_bolus")}  # fmt: skip
    assert [(r["time_h"], r["value"], r["sd"]) for r in found.observations] == [(1.0, 8.1, 0.5), (24.0, 6.2, 0.4)]


def test_a_study_with_images_is_to_be_run_first(small_study):
    with pytest.raises(
        InputError, match="found 'a study with images', expected its results; use evbiodist run, and add the result"
    ):
        read_incoming(small_study / "study.toml")


def test_rows_of_other_studies_in_one_table_keep_their_names(table_study):
    path = table_study(observations__csv="study,subject,label,organ,time_h,value,se,unit\n"
                       "Doe 2019,001,DiR,liver,1,5,1,pct_id\n,NA,DiR,liver,1,6,1,pct_id\n")  # fmt: skip
    assert [r["study"] for r in read_incoming(path).observations] == ["Doe 2019", "s"]


def test_controls_are_known_by_the_study_s_word_and_else_by_name(table_study):
    subjects = (
        "subject,label,dose,dose_unit,route,group\n001,DiR,1,ng,iv_bolus,free_dye\nNA,DiR,1,ng,iv_bolus,treated\n"
    )
    path = table_study(subjects__csv=subjects)
    found = read_incoming(path)
    assert {r["group"]: r["control"] for r in found.observations} == {"free_dye": "dye_only", "treated": None}
    assert any("group 'free_dye' is taken for a dye-only arm" in note for note in found.notes)
    path.write_text(path.read_text() + '\n[crossval.controls]\nfree_dye = "vesicles"\ntreated = "background"\n')
    found = read_incoming(path)
    assert {r["group"]: r["control"] for r in found.observations} == {"free_dye": None, "treated": "background"}


def test_groups_of_study_json_tell_only_what_holds_for_all():
    one = {"group": "g", "label": "l", "animals": 4, "female": 4, "male": 0, "perfused": 4, "routes": ["iv_bolus"]}
    facts = facts_of_results([one, one | {"group": "h", "female": 1, "male": 1, "perfused": 2, "routes": ["ip", "sc"]}],
                             [ObservationSource(file="f", label="x", route="oral", dose=3.0, dose_unit="mg")])  # fmt: skip
    assert facts.of({"group": "g", "label": "l", "subject": "1"}) == {"route": "iv_bolus", "sex": "F", "perfused": True}
    assert facts.of({"group": "h", "label": "l", "subject": "1"}) == {}
    told = facts.of({"group": "all", "label": "x", "subject": "pooled"})
    assert told == {"route": "oral", "dose": 3.0, "dose_unit": "mg", "perfused": False}
    assert arms([], {}) == ({}, [])


def test_adding_results_twice_and_again_after_a_rerun(results, tmp_path, table_study):
    lib = tmp_path / "lib"
    assert add(lib, read_incoming(results)).new
    assert not add(lib, read_incoming(results)).new
    path = tmp_path / "observations.csv"
    path.write_text(path.read_text().replace(",0.5,20.0,", ",0.5,19.0,"))
    run_study(load_study(tmp_path / "study.toml"), results, quantify_only=True)
    changed = add(lib, read_incoming(results))  # it shares study.toml and subjects.csv with the first
    assert (changed.new, changed.part.version) == (True, 2)
    assert len(contents(lib).current) == 1


def test_the_page_explains_every_field_of_the_metadata():
    from pathlib import Path

    page = (Path(__file__).resolve().parents[3] / "docs" / "library.md").read_text(encoding="utf-8")
    for name, (what, compared) in described().items():
        assert f"| `{name}` | {what} | {compared} |" in page


def test_vesicles_in_a_study_are_checked_with_it(table_study):
    path = table_study()
    base = path.read_text()
    path.write_text(base + "\n[vesicles]\nsource_cel = 'x'\n")
    with pytest.raises(InputError, match=r"key vesicles.source_cel: found 'source_cel', .* did you mean 'source_cell'"):
        load_study(path)
    path.write_text(base + "\n[vesicles]\nsize_mode_nm = -5\n")
    with pytest.raises(InputError, match=r"key vesicles.size_mode_nm: found '-5', expected more than 1"):
        load_study(path)
    path.write_text(base)
    assert load_study(path).vesicles is None
