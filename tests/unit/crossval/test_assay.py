"""Validation of a readout: the table, tests and limits by other means, precision, and what feeds the weights."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evbiodist.crossval.assay import (
    ASSAY_COLUMNS,
    Calibration,
    apply_assay,
    assay_rows,
    read_assay,
    spread,
    validate_assay,
    validate_assays,
)
from evbiodist.study.problems import InputError

AMOUNTS = np.repeat([1.0, 2, 4, 8, 16], 3)
RUNS = ["mon", "tue", "wed"] * 5


def rows(amounts, responses, kind="standard", runs=None, label="dir"):
    return [
        Calibration(label=label, nominal=None if kind == "blank" else x, response=y, unit="ng", kind=kind, run=run)
        for x, y, run in zip(amounts, responses, runs or [""] * len(amounts), strict=True)
    ]


def noisy(seed=1, bend=0.0, sd=0.3):
    rng = np.random.default_rng(seed)
    return 3 + 2 * AMOUNTS + bend * AMOUNTS**2 + sd * rng.normal(size=AMOUNTS.size)


# --- the table


def write(tmp_path, text):
    path = tmp_path / "assay.csv"
    path.write_text(text)
    return path


def test_the_table_is_read(tmp_path):
    found = read_assay(write(tmp_path, "label,nominal,response,unit,run,kind\ndir,1,2.5,ng,mon,\ndir,,0.1,ng,,blank\n"
                                       "dir,1,2.5,ng,mon,\nnluc,5,9,ng,tue,qc\n"))  # fmt: skip
    assert [(row.label, row.nominal, row.kind) for row in found] == [
        ("dir", 1, "standard"), ("dir", None, "blank"), ("dir", 1, "standard"), ("nluc", 5, "qc"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label,response,unit\ndir,2,ng\n", "a nominal amount for every standard"),
        ("label,nominal,response,unit,kind\ndir,3,2,ng,blank\n", "a nominal amount of 0 for a blank"),
        ("label,nominal,response,unit\ndir,1,2,ng\ndir,2,4,mg\n", "one unit of the label dir"),
        ("label,nominal,response,unit\ndir,1,2,florps\n", "not a unit that is known"),
        ("label,nominal,response,unit\ndir,-1,2,ng\n", "0 or more"),
        ("label,nominal,response,unit\ndir,1,nan,ng\n", "a finite number"),
        ("label,nominal,response,unit\ndir,1\n", "2 cells"),
        ("label,nominal,unit\ndir,1,ng\n", "a column 'response'"),
        ("", "an empty file"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read_assay(write(tmp_path, text))


def test_binary_data_are_refused(tmp_path):
    (tmp_path / "assay.csv").write_bytes(b"label,nominal\x00")
    with pytest.raises(InputError, match="binary data"):
        read_assay(tmp_path / "assay.csv")


# --- the curve


def test_mandel_is_the_square_of_the_quadratic_t():
    y = noisy()
    design = np.column_stack([np.ones(15), AMOUNTS, AMOUNTS**2])
    beta = np.linalg.solve(design.T @ design, design.T @ y)
    rest = y - design @ beta
    t = beta[2] / math.sqrt(rest @ rest / 12 * np.linalg.inv(design.T @ design)[2, 2])
    found = validate_assay(rows(AMOUNTS, y)).mandel
    assert (found.f, found.df) == (pytest.approx(t**2, rel=1e-8), 12)
    assert found.p == pytest.approx(2 * stats.t(12).sf(abs(t)), rel=1e-8)


@pytest.mark.parametrize(("weights", "power"), [("1", 0), ("1/x", 1), ("1/x2", 2)])
def test_mandel_with_weights_is_that_of_scaled_columns(weights, power):
    y = noisy()
    root = AMOUNTS ** (-power / 2)
    line, parabola = (
        np.linalg.lstsq(np.vander(AMOUNTS, degree + 1) * root[:, None], root * y, rcond=None)[1][0] for degree in (1, 2)
    )
    found = validate_assay(rows(AMOUNTS, y), weights=weights)
    assert found.mandel.f == pytest.approx((line - parabola) / (parabola / 12), rel=1e-8)


def test_a_bent_response_is_told_and_a_straight_one_seldom():
    assert validate_assay(rows(AMOUNTS, noisy(bend=0.05))).mandel.p < 1e-3
    p = [validate_assay(rows(AMOUNTS, noisy(seed))).mandel.p for seed in range(60)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_without_intercept_the_parabola_has_none_either():
    y = 2 * AMOUNTS + 0.1 * np.random.default_rng(1).normal(size=15)
    found = validate_assay(rows(AMOUNTS, y), intercept=False)
    line, parabola = (
        np.linalg.lstsq(np.column_stack(columns), y, rcond=None)[1][0] for columns in ([AMOUNTS], [AMOUNTS, AMOUNTS**2])
    )
    assert (found.mandel.f, found.mandel.df) == (pytest.approx((line - parabola) / (parabola / 13), rel=1e-8), 13)


def test_too_few_or_perfect_standards_have_no_test():
    assert "too few" in validate_assay(rows([1, 2, 4], [2, 4.1, 8])).mandel.reason
    assert "without scatter" in validate_assay(rows(AMOUNTS, 1 + 2 * AMOUNTS)).mandel.reason


def test_residuals_are_studentised():
    y = noisy()
    design = np.column_stack([np.ones(15), AMOUNTS])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    rest = y - hat @ y
    expected = rest / np.sqrt((1 - np.diag(hat)) * (rest @ rest) / 13)
    assert validate_assay(rows(AMOUNTS, y)).residuals[:, 2] == pytest.approx(expected, rel=1e-8)


def test_data_without_a_curve_say_why():
    found = validate_assay(rows([1, 2], [1, 2]))
    assert found.curve is None
    assert found.reason == "no curve: 2 different amounts make no standard curve; give three or more"
    assert math.isnan(found.reading_error(1.0))
    (row,) = assay_rows({"dir": found})
    assert row["reason"] == found.reason


@pytest.mark.parametrize(
    ("table", "options", "says"),
    [
        ([], {}, "label: found no row"),
        (rows([1], [1]) + rows([1], [1], label="nluc"), {}, "label: found dir, nluc, expected one label"),
        (rows([1], [1]), {"level": 95}, "level: found 95"),
    ],
)
def test_refusals(table, options, says):
    with pytest.raises(ValueError, match=says):
        validate_assay(table, **options)


def test_a_blank_is_called_detected_in_one_case_of_twenty():
    """Currie's decision over random blanks, and an amount at the detection limit is found in 95 % or somewhat more."""
    rng = np.random.default_rng(5)
    standards = rows(AMOUNTS, 3 + 2 * AMOUNTS + 1e-6 * np.arange(15))
    false, true = [], []
    for _ in range(300):
        found = validate_assay(standards + rows(range(5), 3 + rng.normal(size=5), "blank"))
        mean = found.curve.standards.blanks.mean()
        false.append((3 + rng.normal() - mean) / 2 > found.critical.decision)
        true.append((3 + rng.normal() - mean) / 2 + found.critical.detection > found.critical.decision)
    assert np.mean(false) == pytest.approx(0.05, abs=0.03)
    assert np.mean(true) == pytest.approx(0.95, abs=0.04)
    assert found.critical.quantification == pytest.approx(
        10 * np.std(found.curve.standards.blanks, ddof=1) * math.sqrt(1.2) / 2
    )


def test_blanks_that_cannot_be_used_say_why():
    assert validate_assay(rows(AMOUNTS, noisy())).critical.reason == "fewer than two blanks were measured"
    logs = validate_assay(rows(AMOUNTS, noisy()) + rows([0, 0], [1, 1.2], "blank"), scale="log")
    assert "log scale" in logs.critical.reason


# --- precision and accuracy


def test_one_way_analysis_of_variance():
    y = np.array([10.1, 10.3, 9.9, 10.9, 11.1, 11.0, 10.0, 10.4, 10.2])
    found = spread(y, list("aaabbbccc"))
    groups = y.reshape(3, 3)
    within, between = groups.var(axis=1, ddof=1).mean(), 3 * groups.mean(axis=1).var(ddof=1)
    assert found.repeatability == pytest.approx(math.sqrt(within))
    assert found.between == pytest.approx(math.sqrt((between - within) / 3))
    assert found.intermediate == pytest.approx(math.hypot(found.between, found.repeatability))
    assert found.mean_se == pytest.approx(math.sqrt(between / 9))
    df = found.intermediate**4 / ((between / 3) ** 2 / 2 + (2 / 3 * within) ** 2 / 6)
    assert found.intermediate_df == pytest.approx(df)
    assert found.repeatability_ci[0] == pytest.approx(math.sqrt(6 * within / stats.chi2(6).ppf(0.975)))
    f = stats.f(2, 6).ppf(0.975)
    assert found.between_ci[0] == pytest.approx(
        math.sqrt(max(0, 2 * (between - f * within) / (3 * stats.chi2(2).ppf(0.975))))
    )


def test_runs_that_agree_too_well_have_no_scatter_between_them():
    found = spread([1, 3, 1.1, 2.9, 1.2, 2.8], list("aabbcc"))
    assert (found.between, found.intermediate) == (0, found.repeatability)
    assert found.mean_df == 3


def test_what_few_readings_cannot_say():
    assert spread([1.0], ["a"]).reason.startswith("one reading only")
    one_run, one_each = spread([1.0, 1.2, 1.1], ["a"] * 3), spread([1.0, 1.2, 1.1], list("abc"))
    assert (one_run.repeatability, one_each.intermediate) == (pytest.approx(0.1), pytest.approx(0.1))
    assert math.isnan(one_run.intermediate)
    assert math.isnan(one_each.repeatability)
    assert "between runs is not known" in one_run.reason
    assert "within a run is not known" in one_each.reason
    with pytest.raises(ValueError, match="found 2 and 1"):
        spread([1, 2], ["a"])


def test_intervals_of_precision_hold_the_truth():
    """Random designs and truths: each interval, and where the next reading lies."""
    rng = np.random.default_rng(9)
    held = []
    for _ in range(700):
        sizes = rng.integers(2, 6, rng.integers(3, 9))
        run, truth = np.repeat(np.arange(sizes.size), sizes), rng.uniform(0, 2)
        y = 10 + truth * rng.normal(size=sizes.size)[run] + rng.normal(size=run.size)
        found, total = spread(y, [str(r) for r in run]), math.hypot(1, truth)
        intervals = (found.repeatability_ci, found.intermediate_ci, found.between_ci, found.expected(0.95))
        truths = (1, total, truth, 10 + total * rng.normal())
        held.append([low <= value <= high for (low, high), value in zip(intervals, truths, strict=True)])
    assert np.mean(held, axis=0) == pytest.approx([0.95] * 4, abs=0.03)


def test_qc_samples_give_recovery_and_total_error():
    y = 3 + 2 * AMOUNTS
    qc = rows(
        [5.0] * 6, 3 + 2 * 5.5 + np.array([-0.2, 0.2, -0.1, 0.1, 0.3, -0.3]), "qc", ["a", "a", "b", "b", "c", "c"]
    )
    found = validate_assay(rows(AMOUNTS, y + 1e-9 * np.arange(15)) + qc)
    level = found.levels[-1]
    assert (level.nominal, level.independent, level.recovery_pct) == (5, True, pytest.approx(110, rel=1e-6))
    low, high = level.recovery_ci
    assert low < 110 < high
    assert level.total_error_pct[0] < 10 < level.total_error_pct[1]
    assert not any("flatters" in note for note in found.notes)
    assert any("flatters" in note for note in validate_assay(rows(AMOUNTS, noisy())).notes)


def test_rows_of_the_validation():
    table = (
        rows(AMOUNTS, noisy(), runs=RUNS)
        + rows(range(4), [3.1, 2.9, 3.0, 3.2], "blank")
        + rows(AMOUNTS, noisy(2), label="nluc")
    )
    found = assay_rows(validate_assays(table))
    assert all(tuple(row) == ASSAY_COLUMNS for row in found)
    told = {(row["label"], row["quantity"], row["level"]): row for row in found if not math.isnan(row["level"])}
    assert told["dir", "recovery_pct", 4.0]["value"] == pytest.approx(100, abs=5)
    assert told["dir", "repeatability_sd", 4.0]["reason"].startswith("one reading a run")
    whole = {(row["label"], row["quantity"]): row for row in found if math.isnan(row["level"])}
    assert whole["dir", "slope"]["ci_low"] < 2 < whole["dir", "slope"]["ci_high"]
    assert whole["dir", "lod_blank"]["value"] == pytest.approx(
        3.3 * np.std([3.1, 2.9, 3.0, 3.2], ddof=1) / whole["dir", "slope"]["value"]
    )
    assert whole["nluc", "lod_blank"]["reason"] == "fewer than two blanks were measured"
    missing = [row for row in found if math.isnan(row["value"])]
    assert missing
    assert all(row["reason"] for row in missing)


# --- the weights


def observations(**columns):
    size = max(len(values) for values in columns.values())
    blank = {"label": "dir", "unit": "ng", "value": 5.0, "se": 0.2, "lloq": math.nan, "below_lloq": False, "flags": "",
             "mass_g": math.nan, "n": math.nan, "se_systematic": math.nan}  # fmt: skip
    return pd.DataFrame({name: columns.get(name, [value] * size) for name, value in blank.items()})


@pytest.fixture(scope="module")
def assay():
    return validate_assays(rows(AMOUNTS, noisy()))


def test_the_error_of_reading_is_added_in_quadrature(assay):
    found = apply_assay(observations(value=[5.0, 12.0]), assay)
    for value, se in zip(found["value"], found["se"], strict=True):
        assert se == pytest.approx(math.hypot(0.2, assay["dir"].reading_error(value)))
    assert (found["flags"] == "assay_error").all()


def test_nothing_is_added_twice(assay):
    once = apply_assay(observations(value=[5.0, 0.1]), assay)
    pd.testing.assert_frame_equal(apply_assay(once, assay), once)
    read = observations(se_systematic=[0.1], lloq=[0.5])
    pd.testing.assert_frame_equal(apply_assay(read, assay), read)


def test_several_animals_hold_the_scatter_of_a_reading_already(assay):
    single, pooled = apply_assay(observations(n=[1, 4]), assay)["se"]
    shared = assay["dir"].errors(5.0)[1]
    assert pooled == pytest.approx(math.hypot(0.2, shared))
    assert single > pooled


def test_per_gram_values_are_amounts_by_their_mass(assay):
    found = apply_assay(observations(unit=["ng_per_g", "ng_per_g"], value=[10.0, 10.0], mass_g=[0.5, math.nan]), assay)
    assert found["se"][0] == pytest.approx(math.hypot(0.2, assay["dir"].reading_error(5.0) / 0.5))
    assert found["lloq"][0] == pytest.approx(assay["dir"].curve.loq / 0.5)
    assert (found["se"][1], found["flags"][1]) == (0.2, "")


def test_below_and_above_what_the_curve_can_quantify(assay):
    loq = assay["dir"].curve.loq
    given = observations(value=[0.5 * loq, 5.0, 20.0, 5.0], lloq=[math.nan, math.nan, math.nan, 6.0])
    found = apply_assay(given, assay)
    assert found["below_lloq"].tolist() == [True, False, False, True]
    assert found["lloq"].tolist() == pytest.approx([loq, loq, loq, 6.0])
    assert found["flags"].tolist() == [
        "assay_error;below_lloq", "assay_error", "above_range;assay_error", "assay_error;below_lloq",
    ]  # fmt: skip
    assert found["value"].tolist() == given["value"].tolist()


def test_other_units_labels_and_missing_values_stay(assay):
    given = observations(unit=["pct_id", "ng", "ng"], label=["dir", "zr89", "dir"], value=[5.0, 5.0, math.nan])
    pd.testing.assert_frame_equal(apply_assay(given, assay), given)
    none = apply_assay(observations(se=[math.nan]), assay)
    assert math.isnan(none["se"][0])
    assert none["lloq"][0] == assay["dir"].curve.loq


def test_the_error_of_reading_is_that_of_many_calibrations():
    """Amounts read back from many random curves scatter as `reading_error` says."""
    rng = np.random.default_rng(4)
    read, told = [], []
    for _ in range(300):
        found = validate_assay(rows(AMOUNTS, 3 + 2 * AMOUNTS + 0.5 * rng.normal(size=15)))
        read.append(found.curve.inverse(3 + 2 * 6.0 + 0.5 * rng.normal()).value)
        told.append(found.reading_error(6.0) ** 2)
    assert np.mean(read) == pytest.approx(6.0, abs=0.05)
    assert math.sqrt(np.mean(told)) == pytest.approx(np.std(read), rel=0.12)


def test_averaged_readings_share_the_curve(assay):
    random, shared = assay["dir"].errors(5.0)
    assert assay["dir"].reading_error(5.0, n=4) == pytest.approx(math.hypot(random / 2, shared))
    with pytest.raises(ValueError, match="n: found 0"):
        assay["dir"].reading_error(5.0, n=0)


def test_amounts_without_a_logarithm_have_no_error():
    found = validate_assay(rows(AMOUNTS, noisy()), scale="log")
    assert math.isnan(found.reading_error(0.0))
    assert found.reading_error(4.0) > 0
