"""Public functions that join several rooms of the house; `import evbiodist as ev` loads them on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evbiodist.batch.pipeline import Progress, RunResult, run_study
from evbiodist.crossval.compare import AGREEMENT_COLUMNS, agreement_rows, consensus_rows
from evbiodist.kinetics.analyse import Dosing, model_parameters
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.report.html import write_report
from evbiodist.study.load import load_study
from evbiodist.study.model import Study

if TYPE_CHECKING:
    import pandas as pd


def run(
    study: Study | str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    report: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Run a study the whole way: observations, parameters, comparison of labels, report.

    Parameters
    ----------
    study : a Study, or the path of a study.toml.
    out : result folder; a run that was interrupted is taken up.
    workers : processes for the scans; results do not depend on it.
    report : whether to build report.html.
    progress : called with a mapping after every step.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError : the study cannot be used; every problem is named.
    """
    study = study if isinstance(study, Study) else load_study(study)
    result = run_study(study, Path(out), workers=workers, progress=progress)
    if report:
        write_report(Path(out))
    return result


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The comparison of labels: tables as in agreement.csv and consensus.csv."""

    agreement: pd.DataFrame
    consensus: pd.DataFrame


def crossvalidate(
    observations: pd.DataFrame,
    model: str = "plasma_with_organs",
    labels: Sequence[str] | None = None,
    *,
    organ: str = "brain",
    scale: Literal["linear", "log"] = "log",
    level: float = 0.95,
) -> CrossValidation:
    """Compare labels on their observations and pool the headline organ's uptake over them.

    Parameters
    ----------
    observations : columns of observations.csv, values in % of dose, after an intravenous bolus.
    model : fitted to each label for uptake, half-lives and clearance.
    labels : which to compare; all when None.
    organ, scale, level : of the pooled quantities and their intervals.

    Raises
    ------
    ValueError : a label that the observations do not hold.
    """
    import pandas as pd

    if labels is not None:
        unknown = sorted(set(labels) - set(observations["label"]))
        if unknown:
            raise ValueError(
                f"no observations of {', '.join(unknown)}; labels are {', '.join(sorted(set(observations['label'])))}"
            )
        observations = observations[observations["label"].isin(labels)]
    who = observations[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    rows, fits = model_parameters(
        observations, {w: Dosing(route="iv_bolus") for w in who}, [model], FitSettings(level=level)
    )
    return CrossValidation(
        pd.DataFrame(agreement_rows(observations, level), columns=list(AGREEMENT_COLUMNS)),
        pd.DataFrame(consensus_rows(fits, rows, organ, scale, level, model)),
    )
