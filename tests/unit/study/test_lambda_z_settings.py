"""A choice of terminal samples goes from study.toml into the results and back out of settings.toml, byte for byte."""

import tomllib

import pytest

from evbiodist.batch.pipeline import check, run_study
from evbiodist.study.load import load_study
from evbiodist.study.problems import InputError

CHOICE = """[[kinetics.lambda_z]]
label = "DiR"
organ = "Blood"
subject = "001"
times_h = [24.0, 0.5, 4.0]
why = "1 h was drawn from the wrong vein"
"""


def study_with(table_study, *choices, models=True):
    path = table_study()
    text = path.read_text()
    few = "[kinetics]\nmodels = []\n" if models else ""
    path.write_text(text + few + "".join(choices))
    return path


def test_a_choice_reaches_the_results_and_a_repeat_gives_the_same_bytes(table_study, tmp_path_factory):
    path = study_with(table_study, CHOICE, CHOICE.replace('"Blood"', '"spleen"'))
    out, again = tmp_path_factory.mktemp("a") / "out", tmp_path_factory.mktemp("b") / "out"
    result = run_study(load_study(path), out)
    frame = result.frame("parameters").query("organ == 'blood' and parameter == 'lambda_z' and model == 'nca'")
    mine = frame[frame["subject"] == "001"].iloc[0]
    assert "points_chosen" in mine["flags"].split(";")
    assert mine["method"].endswith("samples at 0.5, 4, 24 h chosen: 1 h was drawn from the wrong vein")
    assert "points_chosen" not in frame[frame["subject"] == "NA"].iloc[0]["flags"]
    [note] = [n for n in result.notes if "lambda_z" in n]
    assert "DiR in spleen has none" in note
    held = tomllib.loads((out / "settings.toml").read_text())["kinetics"]["lambda_z"]
    assert held[0]["times_h"] == [0.5, 4.0, 24.0]
    run_study(load_study(out / "settings.toml"), again)
    assert (out / "parameters.csv").read_bytes() == (again / "parameters.csv").read_bytes()


def test_choices_that_no_curve_can_follow_are_told_by_check(table_study):
    wrong = [CHOICE.replace('"DiR"', '"DiRR"'), CHOICE.replace('"001"', '"01"'), CHOICE + 'group = "allx"\n',
             CHOICE.replace('"001"', '"pooled"')]  # fmt: skip
    found = check(load_study(study_with(table_study, *wrong)))
    told = {p.field: str(p) for p in found if (p.field or "").startswith("kinetics.lambda_z")}
    assert not any(p.fatal for p in found)
    assert set(told) == {"kinetics.lambda_z.label", "kinetics.lambda_z.subject", "kinetics.lambda_z.group"}
    assert "did you mean 'DiR'?" in told["kinetics.lambda_z.label"]
    assert "did you mean '001'?" in told["kinetics.lambda_z.subject"]
    assert "did you mean 'all'?" in told["kinetics.lambda_z.group"]


def test_a_choice_that_fits_is_no_problem(table_study):
    assert [p for p in check(load_study(study_with(table_study, CHOICE))) if "lambda_z" in str(p)] == []


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("[24.0, 0.5, 4.0]", "[24.0, 4.0]", "kinetics.lambda_z.0.times_h", "at least 3 different times in h"),
        ("[24.0, 0.5, 4.0]", "[24.0, -1.0, 4.0]", "kinetics.lambda_z.0.times_h.1", "expected 0 or more"),
        ("[24.0, 0.5, 4.0]", "[24.0, inf, 4.0]", "kinetics.lambda_z.0.times_h.1", "expected a finite number"),
        ('"1 h was drawn from the wrong vein"', '""', "kinetics.lambda_z.0.why", "whoever reads the number will ask"),
        ("why", "wy", "kinetics.lambda_z.0.why", "expected a value"),
        ("why", "wy", "kinetics.lambda_z.0.wy", "no such key"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(table_study, old, new, field, words):
    with pytest.raises(InputError) as err:
        load_study(study_with(table_study, CHOICE.replace(old, new)))
    assert any(f"key {field}:" in str(p) and words in str(p) for p in err.value.problems), str(err.value)


def test_two_choices_for_one_curve_are_a_problem_of_the_study(table_study):
    other = CHOICE.replace("Blood", "blood").replace("24.0", "1.0")
    with pytest.raises(InputError, match=r"not both 'DiR, blood, subject 001 at 0.5, 4, 24 h' and .* at 0.5, 1, 4 h"):
        load_study(study_with(table_study, CHOICE, other))
