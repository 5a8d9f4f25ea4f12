"""Quality flags: one declarative list from which tables, reports and docs are made.

A flag is a word in a `flags` column (several are joined by `;`). Nothing flags a number with a
word that is not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """A quality flag: what it means for the number that carries it, and what the user can do."""

    name: str
    meaning: str
    remedy: str


FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        # images
        Flag("saturated", "pixels at the sensor's limit were left out", "image again with a shorter exposure"),
        Flag(
            "image_twice",
            "the scan shows the same pixels as a scan of another animal or time",
            "correct the column file of one of them in scans.csv",
        ),
        Flag("cosmic", "pixels hit by cosmic rays were left out", "none needed"),
        Flag("dead", "dead or hot pixels were left out", "none needed; ask for service if there are many"),
        Flag(
            "collinear",
            "the footprints of two organs overlap so much that they share one signal",
            "report the organs together, or image them apart",
        ),
        Flag(
            "misfit",
            "the footprints do not explain the image; intervals were widened to the residuals",
            "look at the residual image: outlines or blur are wrong",
        ),
        Flag(
            "negative",
            "the estimate is below zero, as noise around nothing can be",
            "none needed; do not set it to zero",
        ),
        Flag(
            "noise_from_image",
            "gain or read noise was estimated from the image itself",
            "give gain_e and read_noise_e in scans.csv",
        ),
        Flag(
            "no_dark",
            "no usable dark frame, so dark charge was not subtracted",
            "acquire a dark frame of the same exposure and binning",
        ),
        Flag(
            "no_irradiance",
            "fluorescent radiance was not divided by the excitation irradiance, which the folder does not give",
            "compare only images of the same filters and lamp level, or export radiant efficiency",
        ),
        Flag(
            "systematic",
            "an error of calibration or of a found outline is carried in se_systematic",
            "none needed; draw the organs yourself to avoid the outline's share",
        ),
        Flag(
            "not_registered",
            "the frame could not be matched to the reference frame, so its organs lie where they were outlined",
            "outline the organs on this frame, or register by the body's outline",
        ),
        Flag(
            "uncertain_name",
            "the organ was named by its place or shape, and another name is not unlikely (confidence below 0.8)",
            "look at the outlines; correct the tray's layout, or give a label image",
        ),
        Flag(
            "uncertain_head",
            "which end of the animal is the head is not sure (confidence below 0.8)",
            "say on which side of the image the nose cones are, or give a label image",
        ),
        Flag(
            "beyond_diffusion",
            "an organ absorbs light as strongly as it scatters it at this wavelength, so light says little of its depth",
            "use a label above 650 nm, or measure the organ outside the body",
        ),
        Flag(
            "inferred_anatomy",
            "places, sizes and tissue optics of the organs were inferred from the light itself; the error holds that",
            "none needed; two views and several times make it smaller",
        ),
        Flag(
            "outline_spread",
            "what another annotator's outline would change is part of se_systematic, as imaging.outline says",
            "none needed",
        ),
        Flag(
            "attenuated",
            "the organ's own tissue hides more than a quarter of its light compared with a clear sample",
            "set imaging.thickness = 'correct' with organ masses, or measure a homogenate",
        ),
        Flag(
            "thickness_corrected",
            "light hidden by the organ's own tissue was added by its thickness and published optics",
            "none needed; the uncertainty of the optics is in se_systematic",
        ),
        # tables
        Flag("below_lloq", "below the lower limit of quantification", "treated by the BLQ rule of the analysis"),
        Flag(
            "above_range",
            "above the highest standard of the calibration curve, so extrapolated",
            "dilute and measure again, or add a higher standard",
        ),
        Flag(
            "not_linear",
            "the standards do not lie on the fitted line (lack of fit)",
            "fit within the linear range, or on the log scale",
        ),
        Flag("no_se", "the source gives no uncertainty", "give sd and n, or se"),
        Flag(
            "n_unknown",
            "the source gives an SD but not the number of animals, so no standard error follows",
            "give n in the study or the table",
        ),
        Flag(
            "sd_repeated",
            "this time point's SD column repeats another time point's for every organ",
            "ask the authors: one of the two columns is a copying error",
        ),
        Flag(
            "unit_conflict",
            "the source names two different units for this table",
            "decide which one holds and state it in the study",
        ),
        # corrections
        Flag(
            "blood_subtracted",
            "blood in the organ's vessels was subtracted",
            "none needed; the amount is in the column vessel_blood",
        ),
        Flag(
            "blood_in_organ",
            "the animal was not perfused and vessel blood could not be subtracted",
            "measure blood at the same time, or perfuse",
        ),
        Flag(
            "no_range",
            "the blood fraction comes without a range, so its error is not carried",
            "look for a second source",
        ),
        Flag("decay_corrected", "corrected for physical decay to the time of injection", "none needed"),
        # parameters
        Flag(
            "extrapolated",
            "it rests on what was not measured: time beyond the last sample, or another species (the reason says which)",
            "sample longer; quote the area to the last sample",
        ),
        Flag(
            "carry_over",
            "more than 5 % of this interval's highest value was there before the dose, from earlier doses",
            "none at steady state; else let more time pass between the doses",
        ),
        Flag(
            "tail_unsure",
            "the measured tail falls slower than physical decay, so the organ may still be filling",
            "sample longer",
        ),
        Flag("short_span", "the terminal slope rests on less than two half-lives", "sample longer"),
        Flag(
            "zero_inside",
            "a value of zero lies between positive ones, and the area follows straight lines to it and away",
            "if zero means not detected, give the limit (lloq) or rules with zeros = 'below_lloq'",
        ),
        Flag(
            "points_excluded",
            "samples were left out by the user, with the reasons that stand with the result",
            "none needed; quote the reasons",
        ),
        Flag(
            "points_chosen",
            "the samples of the terminal line were chosen by the user, with the reason that stands with the settings",
            "none needed; quote the reason",
        ),
        Flag("poor_lambda_z", "the terminal slope's adjusted r2 is below the limit", "look at the chosen points"),
        Flag("imprecise", "the relative standard error is 50 % or more", "more animals or times"),
        Flag(
            "correlated",
            "strongly correlated (|r| >= 0.8) with another parameter of the fit",
            "quote derived quantities, not this parameter alone",
        ),
        Flag(
            "at_bound",
            "the estimate lies at a bound, so its interval is not to be trusted",
            "the data do not carry this parameter",
        ),
        Flag(
            "not_converged",
            "the search stopped before it came to rest",
            "give starting values or bounds, hold a parameter, or choose a simpler model",
        ),
        Flag(
            "open_interval",
            "the data set no limit on one side of the interval: any more extreme value fits about as well",
            "quote the closed end as a limit; sample where the parameter shows, as next_times says",
        ),
        Flag(
            "residual_pattern",
            "residuals run or drift, so the curve misses a feature of the data",
            "fit a model with one compartment more, and compare",
        ),
        Flag(
            "weights_doubtful",
            "residuals are larger or smaller than the weights say, over the curve or in all",
            "choose other weights (proportional, combined), and look at outliers",
        ),
        Flag(
            "not_normal",
            "residuals are not normal, so intervals from squares are doubtful",
            "look for outliers; fit on the logarithm or with a robust loss",
        ),
        Flag(
            "not_identifiable",
            "the data cannot tell this number from another one, so it is missing",
            "measure what tells them apart (the reason says what), or leave one of them out",
        ),
        Flag(
            "shrunk",
            "the animals' own values of this parameter are pulled to the mean by more than 30 %",
            "do not plot or compare the animals' own values; more samples of each animal",
        ),
        Flag("few", "based on fewer than three values", "more animals or times"),
        Flag(
            "faster_than_flow",
            "blood is cleared faster than it flows through the liver, so the liver alone cannot have done it",
            "look for binding, trapping in the lung, or a mixing error",
        ),
        # straight lines
        Flag(
            "off_line",
            "a point of the plot lies further from the line than the limit, so the plot is not straight there",
            "choose a later t_star, or a model that fits",
        ),
        Flag(
            "noise_bias",
            "Logan's and MA1's values on the same points differ by more than 5 %: noise pulls Logan's down",
            "quote MA1, or average the curve over a larger region",
        ),
        Flag(
            "bent_tail",
            "late points that bend away from the line were left out of it",
            "look at the plot; the vesicle or its label leaves the tissue again",
        ),
        Flag(
            "overdispersed",
            "the points scatter about the line more than their errors say; the interval was widened to it",
            "look for a source of error that the standard errors leave out",
        ),
        Flag(
            "heterogeneous",
            "the labels disagree by more than their own errors",
            "do not quote the consensus without its prediction interval",
        ),
        Flag(
            "outside_labels",
            "the joint model's answer lies beyond the intervals of all single labels",
            "see what it rests on and whether the models fit before quoting it; quote the labels beside it",
        ),
        Flag(
            "model_misfit",
            "means lie further from the joint model's curves than the animals' scatter allows (p < 0.001)",
            "do not quote the joint answer alone: look at the predictions without each label, and try another model",
        ),
        Flag(
            "rests_on_priors",
            "readings alone do not determine it; what is known of labels beforehand does the rest",
            "add the control arms that the report names",
        ),
        Flag(
            "outlying",
            "this label lies further from the others than their spread and errors account for (of studies without a "
            "wrong label, one in ten at the most has such a one)",
            "quote the pooled value with and without it, and look at what sets it apart",
        ),
        # assays
        Flag(
            "assay_error",
            "the error of the label's calibration curve is part of se",
            "none needed; more standards and replicates make it smaller",
        ),
    )
}


def join(flags: Iterable[str]) -> str:
    """Join flags into a table cell, sorted and without repeats; refuse unknown ones.

    Raises
    ------
    KeyError : a word that is not in `FLAGS`.

    Examples
    --------
    >>> join(["saturated", "negative", "saturated"])
    'negative;saturated'
    """
    words = sorted({f for f in flags if f})
    for word in words:
        FLAGS[word]
    return ";".join(words)


def split(cell: str) -> set[str]:
    """Split a table cell into its flags.

    Examples
    --------
    >>> sorted(split("negative;saturated"))
    ['negative', 'saturated']
    """
    return {word for word in str(cell).split(";") if word}
