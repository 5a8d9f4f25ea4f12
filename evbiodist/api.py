"""Public functions that join several rooms of the house; `import evbiodist as ev` loads them on first use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evbiodist.batch.engine import Engine, one_thread
from evbiodist.batch.pipeline import RunResult, run_study
from evbiodist.batch.progress import Progress
from evbiodist.crossval.assay import AssayValidation, apply_assay
from evbiodist.crossval.compare import TABLES, compare_labels
from evbiodist.kinetics.analyse import Dosing, Dosings
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.report.html import write_report
from evbiodist.study.labels import label_model
from evbiodist.study.load import load_study
from evbiodist.study.model import OBSERVATION_COLUMNS, CrossvalSettings, Label, Study

if TYPE_CHECKING:
    import pandas as pd


def run(
    study: Study | str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    report: bool = True,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> RunResult:
    """Run a study the whole way: observations, parameters, comparison of labels, report.

    Parameters
    ----------
    study : a Study, or the path of a study.toml.
    out : result folder; a run that was interrupted is taken up.
    workers : processes for the scans; results do not depend on it.
    report : whether to build report.html.
    progress : called with a mapping after every step.
    engine : what runs the scans, as of `evbiodist.batch.cluster`; processes of this machine when None.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError : the study cannot be used; every problem is named.
    """
    study = study if isinstance(study, Study) else load_study(study)
    result = run_study(study, Path(out), workers=workers, progress=progress, engine=engine)
    if report:
        write_report(Path(out))
    return result


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What labels say against each other and together; each table as the CSV file of its name.

    Parameters
    ----------
    agreement, ranks : labels against each other as they were read.
    consensus, influence : their pooled answers beside the joint model's (row ``joint``), and who pulls them.
    label_parameters, label_bias, alerts : how each label lies, and the case against it.
    identifiability, left_out, predicted, next_steps : what the answer rests on, how the rest predicts what was left out, and
        what to measure next.
    posterior : of the joint answer, where `settings.posterior_draws` asks for it.
    assay_validation : of the readouts, where calibration data were given.
    notes : what was left out and why.
    """

    agreement: pd.DataFrame
    ranks: pd.DataFrame
    consensus: pd.DataFrame
    influence: pd.DataFrame
    label_parameters: pd.DataFrame
    label_bias: pd.DataFrame
    alerts: pd.DataFrame
    identifiability: pd.DataFrame
    left_out: pd.DataFrame
    predicted: pd.DataFrame
    next_steps: pd.DataFrame
    posterior: pd.DataFrame
    assay_validation: pd.DataFrame
    notes: tuple[str, ...]


def crossvalidate(
    observations: pd.DataFrame,
    model: str = "plasma_with_organs",
    labels: Sequence[str] | Mapping[str, Label] | None = None,
    *,
    organ: str = "brain",
    scale: Literal["linear", "log"] = "log",
    level: float = 0.95,
    dosing: Dosings | None = None,
    settings: CrossvalSettings | None = None,
    species: str = "mouse",
    weight_g: float | None = None,
    assays: Mapping[str, AssayValidation] | None = None,
) -> CrossValidation:
    """Compare labels on their observations and bring them to one vesicle answer.

    Parameters
    ----------
    observations : columns of observations.csv; readings in % of dose, or in a unit of their own.
    model : of the vesicle, shared by all labels; also fitted to each label alone.
    labels : which to compare, all when None; as a mapping, with what each is (else the catalogue's entry of its name).
    organ, scale, level : of the headline quantities, of pooling, and of intervals.
    dosing : what every animal got, by (group, subject, label); an intravenous bolus without it.
    settings : control groups and what to leave out; `model`, `organ` and `scale` stand above it.
    species, weight_g : of the animals.
    assays : of `evbiodist.crossval.assay.validate_assays`: their errors of reading are added to the observations'.

    Raises
    ------
    ValueError : a label that the observations do not hold.

    See docs/crossval.md for an example that runs.
    """
    import pandas as pd

    observations = _whole(observations)
    if labels is not None:
        unknown = sorted(set(labels) - set(observations["label"]))
        if unknown:
            raise ValueError(
                f"no observations of {', '.join(unknown)}; labels are {', '.join(sorted(set(observations['label'])))}"
            )
        observations = observations[observations["label"].isin(list(labels))]
    if assays:
        observations = apply_assay(observations, assays)
    given = dict(labels) if isinstance(labels, Mapping) else {}
    models = {
        str(n): label_model(str(n), given.get(str(n)) or Label.named(str(n)))
        for n in sorted(set(observations["label"]))
    }
    who = observations[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    chosen = (settings or CrossvalSettings()).model_copy(update={"model": model, "organ": organ, "scale": scale})
    with one_thread():
        found = compare_labels(observations, models, dosing or {w: Dosing(route="iv_bolus") for w in who}, chosen,
                               fitting=FitSettings(level=level), species=species, weight_g=weight_g,
                               assays=assays)  # fmt: skip
    tables = {name: pd.DataFrame(getattr(found, name), columns=list(columns)) for name, columns in TABLES.items()}
    return CrossValidation(**tables, notes=tuple(found.notes))


#: What columns of an observations table hold where a table lacks them.
_ABSENT: dict[str, Any] = {"study": "", "group": "all", "flags": "", "source": "", "below_lloq": False}


def _whole(observations: pd.DataFrame) -> pd.DataFrame:
    """Return observations with every column of observations.csv.

    Raises
    ------
    ValueError : a column that cannot be filled in.
    """
    needed = [c for c in ("subject", "label", "organ", "time_h", "value", "unit") if c not in observations]
    if needed:
        raise ValueError(f"the observations have no column {', '.join(needed)}; see docs/study.md for their layout")
    return observations.assign(**{c: _ABSENT.get(c, math.nan) for c in OBSERVATION_COLUMNS if c not in observations})
