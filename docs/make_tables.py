"""Write docs/crossval_tables.md: every table of the cross-validation with a sentence for each of its columns.

python docs/make_tables.py
"""

from __future__ import annotations

from pathlib import Path

from evbiodist.crossval.compare import TABLES

HEAD = """# Tables of the cross-validation

`evbiodist crossval`, `evbiodist run` and `ev.crossvalidate` give the same tables. Each is a CSV file of its name. A number that cannot
be had is empty, and `reason` says why. Intervals are 95 % unless the study says otherwise. What the numbers mean is in
[Is it the vesicle or the label?](crossval.md).

This page is made by `python docs/make_tables.py`.
"""

#: What each table answers.
ABOUT = {
    "agreement": "Two labels at a time, organ by organ and over all organs, on the same quantity in the same unit.",
    "ranks": "Whether labels put the organs in one order, at each time and by area under the curve. Needs no common unit.",
    "consensus": "What each label says of a quantity, their plain mean, their random-effects consensus and the joint model.",
    "influence": "The consensus again without each label.",
    "label_parameters": "What the joint model found of each label, beside what was known before.",
    "label_bias": "How much each label reads in each organ, relative to the vesicle. Blood in vessels is left aside.",
    "alerts": "The case against each label, the strongest first.",
    "identifiability": "What each quantity of the joint answer rests on.",
    "left_out": "How well the rest predicts a label, organ, time or animal that was left out.",
    "predicted": "The predictions behind it, mean by mean. Animals are scored but not listed.",
    "next_steps": "What would shrink the interval of the headline quantity most.",
    "posterior": "The whole posterior of the joint answer, where `posterior_draws` asks for it.",
    "assay_validation": "Linearity, limits, precision and accuracy of each label's readout, where calibration data were given.",
}

#: Columns that mean the same in every table that does not say otherwise.
COMMON = {
    "study": "Name of the study.",
    "group": "Group of animals that got labelled vesicles.",
    "organ": "Organ, or `blood`.",
    "unit": "Unit of the values in the row.",
    "label": "Label.",
    "quantity": "What is estimated, such as `brain_uptake_pct_id`.",
    "value": "The estimate.",
    "estimate": "The estimate.",
    "se": "Its standard error.",
    "ci_low": "Lower end of its interval.",
    "ci_high": "Upper end of its interval.",
    "n": "Number of values behind it.",
    "tau2": "Variance between labels; of logarithms on the log scale.",
    "i2": "Share of the variance that lies between labels, %.",
    "time_h": "Time after injection, h.",
    "method": "How it was computed.",
    "flags": "Quality flags, explained in the reference.",
    "reason": "Why a number is missing, or what limits it.",
    "ratio": "Factor between what the label reads and the vesicle; 1 is faithful.",
    "ratio_low": "Lower end of its interval.",
    "ratio_high": "Upper end of its interval.",
    "rank": "Place in the order, 1 first.",
    "kind": "What was left out: `label`, `organ`, `time` or `animal`.",
    "left_out": "Which one was left out.",
}


def _interval(name: str, what: str) -> dict[str, str]:
    """Return sentences for the ends of an interval."""
    return {
        f"{name}_low": f"Lower end of the interval of {what}.",
        f"{name}_high": f"Upper end of the interval of {what}.",
    }


#: Columns of one table, where they are not common.
OWN: dict[str, dict[str, str]] = {
    "agreement": {
        "group": "Group of animals.", "organ": "Organ, or `all` for all organs together.",
        "label_a": "First label.", "label_b": "Second label.", "n": "Pairs of means at times that both labels have.",
        "bias": "Mean of first less second.", **_interval("bias", "the bias"),
        "loa_low": "Lower limit of agreement (Bland and Altman).", "loa_high": "Upper limit of agreement.",
        **_interval("loa_low", "the lower limit"), **_interval("loa_high", "the upper limit"),
        "method": "Of what the limits are: single animals, or means.",
        "ccc": "Lin's concordance correlation coefficient.", **_interval("ccc", "the concordance"),
        "deming_slope": "Slope of Deming's line, second on first label.", **_interval("deming_slope", "the slope"),
        "deming_intercept": "Its intercept.", **_interval("deming_intercept", "the intercept"),
        "passing_bablok_slope": "Slope of Passing and Bablok's line.", **_interval("passing_bablok_slope", "the slope"),
        "passing_bablok_intercept": "Its intercept.", **_interval("passing_bablok_intercept", "the intercept"),
        "ratio": "Geometric mean of first over second label.", **_interval("ratio", "the ratio"),
        "ratio_n": "Pairs that are both above zero.",
        "ratio_loa_low": "Lower limit of agreement of the ratio.", "ratio_loa_high": "Upper limit of agreement of the ratio.",
        "slope_of_difference": "By how much the difference grows with the mean of both labels.",
        **_interval("slope_of_difference", "that slope"),
        "icc": "Intraclass correlation ICC(2,1), absolute agreement.", **_interval("icc", "the intraclass correlation"),
    },
    "ranks": {
        "group": "Group of animals.", "time_h": "Time after injection, h, or `all` for the area under the curve.",
        "labels": "Labels compared, joined by `;`.", "organs": "Organs ranked, joined by `;`.",
        "kendall_w": "Kendall's W: 1 for one order, 0 for none.", "p": "Probability of a W at least as large by chance.",
        "n_labels": "Number of labels.", "n_organs": "Number of organs.", "order": "Each label's order, highest first.",
        "reason": "Over which times the area is taken, which organs were left out, why W is missing.",
    },
    "consensus": {
        "label": "Label, or `mean`, `consensus` or `joint`.", "weight": "Share of the label in the consensus; they sum to 1.",
        "prediction_low": "Lower end of where one more label would be expected.", "prediction_high": "Upper end.",
        "n": "Readings behind the row; for `mean` and `consensus` labels.",
        "why": "Where joint answer and consensus are further apart than a factor of 1.25: which labels cause it.",
    },
    "influence": {
        "left_out": "The label that was left out.", "change_pct": "Change of the consensus without it, %.",
        "rstudent": "Distance of the label from the others' consensus, in expected standard deviations.",
        "cooks_distance": "Squared change over the squared standard error of the whole.",
    },
    "label_parameters": {
        "label": "Label, or `all` for what labels share (blood in vessels).", "parameter": "Parameter, see [labels](labels.md).",
        "organ": "Organ it belongs to; empty where it has none.", "prior_median": "Median before the study.",
        "prior_low": "Lower end of its 95 % range before the study.", "prior_high": "Upper end of that range.",
        "prior_source": "Where that is from; *judgement* where nobody measured it.",
        "learned_pct": "By how much the study narrowed it on the search scale, %.",
    },
    "label_bias": {
        "relative": "yes for a label without a dose standard: only organs against each other are told.",
    },
    "alerts": {
        "accused": "yes where the odds are above 10 to 1.", "log10_odds": "Evidence against the label, as log10 of the odds.",
        "what": "The most probable cause.", "organ": "The organ it misreads most surely.",
        "evidence": "The same in words.",
    },
    "identifiability": {
        "quantity": "Quantity; also `structural rank`, and for each label whether it changed the vesicle.",
        "relative_se": "Standard deviation of its logarithm after the study.",
        "prior_relative_se": "The same from what was known before.",
        "labels_only_relative_se": "The same from readings, without what is known of labels.",
        "determined_by": "`labels`, `priors` or `nothing`.",
        "interval": "`closed` or `open` where there is a profile.",
    },
    "left_out": {
        "rank": "Place among those of its kind, best predicted first.", "n": "Means that were predicted.",
        "log_density": "Log density of what was seen, per mean; higher is better.",
        "coverage_pct": "Share of means inside their prediction interval, %.",
        "bias_by_organ": "Seen over predicted, by organ.", "quantity": "The headline quantity.",
        "value": "Its value without what was left out.",
        "change_pct": "How far that is from the whole answer, %.",
    },
    "predicted": {
        "seen": "Mean that was read.", "predicted": "Median of the prediction.", "low": "Lower end of its interval.",
        "high": "Upper end of its interval.",
    },
    "next_steps": {
        "quantity": "The headline quantity.", "kind": "`animals`, `control` or `label`.", "label": "Whose.",
        "times_h": "Times, h, joined by `;`.", "animals": "Animals at each time.",
        "gain_pct": "By how much the interval would shrink, %.", "relative_se_now": "Standard deviation of the logarithm now.",
        "relative_se_then": "The same with the step.", "step": "The step in words.",
    },
    "posterior": {
        "quantity": "As in consensus.csv.", "value": "Median of the draws.",
        "effective_draws": "Draws of equal weight that carry as much; the reason says when they are too few.",
        "lost_pct": "Share of draws that could not be solved, %.",
    },
    "assay_validation": {
        "quantity": "What the row is about, such as `slope`, `r2`, `range_low`, `loq` or `recovery_pct`.",
        "level": "Nominal amount; empty for the whole curve.",
    },
}  # fmt: skip


def meaning(table: str, column: str) -> str:
    """Return the sentence of a column."""
    own = OWN[table]
    return own[column] if column in own else COMMON[column]


def page() -> str:
    """Return the page's text."""
    lines = [HEAD]
    for table, columns in TABLES.items():
        lines += [f"## {table}", "", ABOUT[table], "", "| column | what it is |", "|---|---|"]
        lines += [f"| `{c}` | {meaning(table, c)} |" for c in columns] + [""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("crossval_tables.md").write_text(page(), encoding="utf-8")
