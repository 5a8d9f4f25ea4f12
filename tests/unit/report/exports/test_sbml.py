"""SBML: libsbml finds no fault, and libRoadRunner's integrator gives what our own solution gives."""

import re
import shutil

import libsbml
import numpy as np
import pandas as pd
import pytest
import roadrunner

import evbiodist as ev
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.models.inputs import Doses
from evbiodist.kinetics.models.saturable import solve as solve_saturable
from evbiodist.kinetics.models.solve import Design, solve
from evbiodist.report.exports.sbml_document import Dose, Fitted, document

GIVEN = [name for name in catalogue() if [p.name for p in build(
    name, ["liver"] if needs_organs(name) else (), species="mouse", weight_g=20).ports] == ["dose"]]  # fmt: skip
#: A dose that is absorbed has no infusion.
ABSORBED = re.compile("_(oral|ip|sc|im|inhaled|intranasal)$")
TIMES = np.array([0.0, 0.05, 0.25, 0.8, 2.0, 6.0, 24.0])


def faults(content):
    """Errors that the format's own library finds; consistency of units is not among them."""
    read = libsbml.readSBMLFromString(content.decode())
    read.setConsistencyChecks(libsbml.LIBSBML_CAT_UNITS_CONSISTENCY, False)
    read.checkConsistency()
    return [read.getError(i).getMessage() for i in range(read.getNumErrors())
            if read.getError(i).getSeverity() >= libsbml.LIBSBML_SEV_ERROR]  # fmt: skip


def simulated(content, times, seen):
    runner = roadrunner.RoadRunner(content.decode())
    runner.integrator.absolute_tolerance, runner.integrator.relative_tolerance = 1e-14, 1e-11
    runner.integrator.maximum_num_steps = 1_000_000
    names = [f"seen_{n}" for n in seen]
    found = runner.simulate(times=list(times), selections=["time", *names])
    return np.asarray(found)[:, 1:].T


def truth(graph, random):
    """Return parameters spread around plausible ones; where the catalogue has none, around 0.5 (rates) and 5 (the rest)."""
    around = {p.name: p.start if p.fixed is None else p.fixed for p in graph.parameters}
    theta = []
    for p in graph.parameters:
        middle = around[p.name]
        if middle is None:
            middle = 0.5 if p.scale == "logit" or "time" in p.dimension else 5.0
        moved = middle * np.exp(random.normal(0, 0.3)) if p.scale == "log" else middle
        theta.append(min(moved, 0.9) if p.scale == "logit" and p.fixed is None else moved)
    return np.array(theta)


def ours(graph, theta, dose):
    """Return what our own solution gives, (observed, times); saturable models to more digits than a fit asks for."""
    design = Design(TIMES, inputs={"dose": Doses(dose.amount, 0.0, dose.hours)})
    found = (
        solve(graph, theta[None], design) if graph.linear else solve_saturable(graph, theta[None], design, rtol=1e-10)
    )
    return found.y[0].T


@pytest.mark.parametrize(
    ("name", "hours"), [(n, h) for n in GIVEN for h in (0.0, 0.5) if not (h and ABSORBED.search(n))]
)
def test_an_outside_simulator_agrees_with_our_solution(name, hours):
    """Random truths around plausible ones, for every model of the catalogue that takes a dose."""
    random = np.random.default_rng(len(name))
    graph = build(name, ["liver", "brain"] if needs_organs(name) else (), species="mouse", weight_g=20)
    for _ in range(2):
        theta = truth(graph, random)
        dose = Dose(100.0, hours)
        content = document(graph, {n: Fitted(float(v)) for n, v in zip(graph.names, theta, strict=True)}, dose, name)
        assert faults(content) == []
        expected = ours(graph, theta, dose)
        found = simulated(content, TIMES, graph.seen)
        scale = np.abs(expected).max(axis=1, keepdims=True)
        assert np.abs(found - expected).max() <= 1e-6 * scale.max()
        assert (np.abs(found - expected) <= 1e-6 * scale).all()


def test_a_lag_delays_the_dose():
    graph = build("one_compartment_oral")
    values = {"cl": 2.0, "v": 10.0, "ka": 1.5, "f": 0.6, "lag": 0.4}
    content = document(graph, {k: Fitted(v) for k, v in values.items()}, Dose(100.0), "lag")
    assert faults(content) == []
    theta = np.array([values[n] for n in graph.names])
    assert simulated(content, TIMES, graph.seen) == pytest.approx(ours(graph, theta, Dose(100.0)), rel=1e-6, abs=1e-8)


def test_a_fitted_run_simulates_to_its_own_curves(small_results, tmp_path):
    paths, notes = ev.export(small_results, "sbml", tmp_path)
    curves = pd.read_csv(small_results / "curves.csv")
    assert len(paths) == curves.groupby(["group", "label", "model"]).ngroups
    assert notes == ()
    for (group, label, model), rows in curves.groupby(["group", "label", "model"]):
        content = (tmp_path / f"{group}_{label}_{model}.xml").read_bytes()
        assert faults(content) == []
        organs = list(dict.fromkeys(rows["organ"]))
        times = np.sort(rows["time_h"].unique())
        wide = rows.pivot(index="organ", columns="time_h", values="value").loc[organs]
        assert simulated(content, times, organs) == pytest.approx(wide.to_numpy(), rel=1e-6, abs=1e-9)
    again, _ = ev.export(small_results, "sbml", tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


def test_parameters_carry_their_errors_and_units(small_results, tmp_path):
    ev.export(small_results, "sbml", tmp_path)
    read = libsbml.readSBMLFromFile(str(tmp_path / "ex_vivo_111In_two_compartment_iv.xml")).getModel()
    table = (
        pd.read_csv(small_results / "parameters.csv")
        .query("model == 'two_compartment_iv' and label == '111In'")
        .set_index("parameter")
    )
    for name in ("cl", "v1", "q", "v2"):
        p = read.getParameter(name)
        assert p.getValue() == table.loc[name, "value"]
        assert "standard error" in p.getNotesString()
    assert read.getParameter("cl").getUnits() == "unit_g_per_h"


def test_what_cannot_be_written_is_told(tmp_path):
    from evbiodist.sample import sample_data

    graph = build("one_tissue")
    with pytest.raises(ValueError, match="measured curve"):
        document(graph, {n: Fitted(1.0) for n in graph.names}, Dose(1.0), "pet")
    with pytest.raises(ValueError, match="no value for v"):
        document(build("one_compartment_iv"), {"cl": Fitted(1.0)}, Dose(1.0), "x")
    study = shutil.copytree(sample_data() / "organ_tables" / "125I_TAP1", tmp_path / "study")
    text = (study / "study.toml").read_text()
    (study / "study.toml").write_text(text + ("" if "[kinetics]" in text else "\n[kinetics]\nmodels = []\n"))
    ev.run(study, tmp_path / "out", report=False)
    paths, notes = ev.export(tmp_path / "out", "sbml")
    assert paths or any("nothing to write" in n for n in notes)
