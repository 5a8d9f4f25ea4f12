"""Where the time of a cross-validation goes, and what the joint fit would cost with numerical derivatives.

The study has 4 labels, 6 organs, 10 times and 4 animals each: 960 readings of organs, and 160 of blood. Every stage is
timed by itself, then the whole as `evbiodist.crossvalidate` does it. Beside it lmfit searches the same joint problem by the
same predictions but without derivatives. It is stopped after some evaluations; what a whole search takes is extrapolated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import lmfit
import numpy as np
from side_by_side import medians, show

import evbiodist as ev
from evbiodist.crossval.agreement_table import agreement_rows, rank_rows
from evbiodist.crossval.joint.arms import Arms, gather_arms
from evbiodist.crossval.joint.average import average, average_biases
from evbiodist.crossval.joint.fit import JointFit, fit_joint, minimise
from evbiodist.crossval.joint.hypotheses import Worlds, explore
from evbiodist.crossval.joint.identify import identified
from evbiodist.crossval.joint.leave_out import leave_out
from evbiodist.crossval.joint.plan import next_steps
from evbiodist.crossval.joint.problem import JointProblem, build_problem
from evbiodist.crossval.joint.profile import joint_profiles
from evbiodist.crossval.joint.quantities import vesicle_quantities
from evbiodist.kinetics.analyse import Dosing, Fits, model_parameters
from evbiodist.kinetics.fitting.search import FitSettings
from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.phantom.label_studies import LabelStudy
from evbiodist.study.labels import LabelModel, label_model

MODEL = "plasma_with_organs"
HEADLINE = ("brain_uptake_pct_id", "brain_peak_pct_id", "half_life")
OURS, LMFIT = "all: evbiodist.crossvalidate, every table", "lmfit, numerical derivatives, stopped"
FloatArray = np.ndarray


@dataclass(frozen=True)
class Case:
    """One study with what every stage begins from."""

    study: LabelStudy
    models: dict[str, LabelModel]
    arms: Arms
    starts: FloatArray

    @classmethod
    def draw(cls, seed: int) -> Case:
        study = LabelStudy.draw(np.random.default_rng(seed), animals=4)
        models = {name: label_model(name, given) for name, given in study.definitions().items()}
        vesicle = build(MODEL, gather_arms(study.observations).organs)
        starts = np.array([fit.theta for fit in single_fits(study).values() if fit.graph.names == vesicle.names])
        return cls(study, models, gather_arms(study.observations), starts)

    def fit(self) -> JointFit:
        return fit_joint(build(MODEL, self.arms.organs), self.arms, self.models, self.dose(), self.starts)

    def problem(self) -> JointProblem:
        """Return the problem as the search has it at first."""
        middle = np.exp(np.log(self.starts).mean(axis=0))
        return build_problem(build(MODEL, self.arms.organs), self.arms, self.models, self.dose(), middle)

    @staticmethod
    def dose() -> dict[str, Doses]:
        return {"dose": Doses(100.0, 0.0, 0.0)}


def single_fits(study: LabelStudy) -> Fits:
    """Return every label's own fit."""
    who = study.observations[["group", "subject", "label"]].drop_duplicates().itertuples(index=False, name=None)
    dosing = {w: Dosing(route="iv_bolus") for w in who}
    return model_parameters(study.observations, dosing, [MODEL], FitSettings())[1]


def averages(worlds: Worlds) -> None:
    """Average everything the tables ask for over worlds, and say what it rests on."""
    p = worlds.best.problem
    names = [*vesicle_quantities(p.vesicle, p.arms.organs, list(p.arms.vessel_blood)), *p.names[len(p.vesicle.names) :]]
    average(worlds, names)
    average_biases(worlds)
    identified(worlds.best, names)


def compared(study: LabelStudy) -> None:
    """Set labels against each other as they were read."""
    agreement_rows(study.observations)
    rank_rows(study.observations)


def stages(case: Case, found: JointFit, worlds: Worlds) -> dict[str, Callable[[], object]]:
    return {
        OURS: lambda: ev.crossvalidate(case.study.observations, MODEL, case.study.definitions()),
        "single fits of 4 labels": lambda: single_fits(case.study),
        "joint fit": case.fit,
        "worlds of faithful and lying labels": lambda: explore(found),
        f"profiles of {len(HEADLINE)} headline quantities": lambda: joint_profiles(worlds.best, HEADLINE),
        "averages over worlds, identifiability": lambda: averages(worlds),
        "leave one label out": lambda: leave_out(worlds, ["label"], HEADLINE[:1]),
        "leave one organ, time, animal out": lambda: leave_out(worlds, ["organ", "time", "animal"], HEADLINE[:1]),
        "next steps": lambda: next_steps(worlds.best, case.models, HEADLINE[0]),
        "agreement and ranks": lambda: compared(case.study),
    }


def residual(problem: JointProblem, u: FloatArray) -> FloatArray:
    """Return residuals of rows and priors without computing derivatives."""
    y = problem.predict(u[None], derivatives=False)[0]
    rows = problem.rows
    r = rows.decorrelated((y - rows.value) / rows.sigma, np.ones((1, rows.size)))
    return np.concatenate([r, problem.prior.residual(u[None])[0]], axis=1)[0]


def by_lmfit(problem: JointProblem, begin: FloatArray, evaluations: int) -> float:
    """Return the least sum of squares that lmfit saw in some evaluations."""
    parameters = lmfit.Parameters()
    for i, value in enumerate(begin):
        parameters.add(f"u{i}", float(value))
    costs = []

    def function(p: lmfit.Parameters) -> FloatArray:
        r = residual(problem, np.array(list(p.valuesdict().values())))
        r = np.where(np.isfinite(r), np.clip(r, -1e6, 1e6), 1e6)  # lmfit refuses what is not a number
        costs.append(float(r @ r))
        return r

    with np.errstate(all="ignore"):
        lmfit.minimize(function, parameters, method="leastsq", max_nfev=evaluations, calc_covar=False)
    return min(costs)


def against_lmfit(case: Case, evaluations: int, repeats: int) -> None:
    problem = case.problem()
    begin = problem.prior.centre.copy()
    ended = minimise(problem, begin[None])
    ours = residual(problem, ended.x[0])
    np.testing.assert_allclose(ours, ended.residual[0], atol=1e-8)
    # from our optimum it must find no better one
    better = float(ours @ ours) - by_lmfit(problem, ended.x[0], 3 * (problem.size + 1))
    if better > 0.5:
        raise SystemExit(f"lmfit finds a sum of squares lower by {better:.2g} than ours: the answers do not agree")
    way = "one search, exact derivatives, same start"
    times = medians({way: lambda: minimise(problem, begin[None]),
                     LMFIT: lambda: by_lmfit(problem, begin, evaluations)}, repeats)  # fmt: skip
    each = times[LMFIT] / evaluations
    steps = int(np.max(ended.iterations))
    whole = each * steps * (problem.size + 1)
    show(f"One search of {problem.size} coordinates, {problem.rows.size} means and as many priors as coordinates",
         {way: times[way], f"lmfit, extrapolated to {steps} steps": whole}, way)  # fmt: skip
    reached = by_lmfit(problem, begin, evaluations)
    print(f"  lmfit was stopped after {evaluations} evaluations ({times[LMFIT]:.2f} s, {each * 1e3:.2f} ms each). The least sum of "
          f"squares it saw was {reached:.0f}, ours at the end {ours @ ours:.0f}. Extrapolated: as many steps as ours, "
          f"{problem.size} + 1 evaluations a step.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=400, help="after which lmfit is stopped")
    given = parser.parse_args()
    begin = time.perf_counter()
    case = Case.draw(given.seed)
    found = case.fit()
    worlds = explore(found)
    organs = case.study.observations["organ"].ne("blood").sum()
    print(f"Ready after {time.perf_counter() - begin:.1f} s: {len(case.study.observations)} rows, {organs} of organs; "
          f"{len(worlds.worlds)} worlds tried, {len(worlds.fits)} matter.")  # fmt: skip
    show("The stages of one cross-validation", medians(stages(case, found, worlds), given.repeats), OURS)
    against_lmfit(case, given.evaluations, given.repeats)


if __name__ == "__main__":
    main()
