"""What mixed effects promise: exact likelihoods and gradients, honest words where data cannot tell, laws of scaling."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

from evbiodist.kinetics.models.catalogue import build
from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.kinetics.models.inputs import Doses, SampledCurve
from evbiodist.kinetics.population.laplace import Population
from evbiodist.kinetics.population.mixed import CONFOUNDED, ONE_VALUE, mixed_effects, naive_pooled
from evbiodist.kinetics.population.population import AnimalModel, PopulationData, from_observations
from evbiodist.study.flags import FLAGS

BLOOD = build("one_compartment_iv")
ORGANS = build("plasma_with_organs", ["liver"])
TYPICAL = {"v": 2.0, "k_el": 0.8, "k_in_liver": 0.6, "k_out_liver": 0.1}


def study(seed, times, animals, *, graph=BLOOD, typical=None, omega=None, error=0.1, dose=100.0, **more):
    """Return animals of a model with log-normal differences, all matrices seen at all of an animal's times."""
    rng = np.random.default_rng(seed)
    seen = len(graph.seen)
    per = [np.atleast_1d(t) for t in (times if np.ndim(times[0]) else [times] * animals)]
    animal = np.concatenate([np.full(len(t) * seen, i) for i, t in enumerate(per)])
    which = np.concatenate([np.tile(np.arange(seen), len(t)) for t in per])
    time = np.concatenate([np.repeat(t, seen) for t in per])
    names = [f"m{i:02d}" for i in range(len(per))]
    data = PopulationData(names, graph.seen, animal, which, time, time, {"dose": Doses(dose)})
    model = AnimalModel.of(graph, data)
    sd = np.array([(omega or {}).get(n, 0.0) for n in model.names])
    u = model.coordinates(typical or {"cl": 2.0, "v": 10.0}) + sd * rng.standard_normal((len(per), len(sd)))
    f = model.predict(u, np.arange(len(per)), slopes=False)[0][data.rows.real]
    value = f * (1 + error * rng.standard_normal(len(f)))
    return PopulationData(names, graph.seen, animal, which, time, value, {"dose": Doses(dose)}, **more)


def population(graph, data, random, kind="proportional", full=False):
    model = AnimalModel.of(graph, data)
    seen = np.arange(len(data.seen))
    none = np.full(len(seen), -1)
    add = seen if kind in ("additive", "combined") else none
    prop = seen + len(seen) * (kind == "combined") if kind != "additive" else none
    return Population(model, np.array([model.names.index(n) for n in random], dtype=int), full, add, prop)


RICH = [0.2, 1.0, 3.0, 8.0]


@pytest.mark.parametrize(("kind", "full", "hidden"), [("additive", True, 0.0), ("proportional", True, 2.0),
                                                      ("combined", False, 2.0)])  # fmt: skip
def test_gradient_is_the_slope_of_the_likelihood(kind, full, hidden):
    """Values below the limit and known errors included."""
    plain = study(1, RICH, 4, omega={"cl": 0.4, "v": 0.3})
    data = PopulationData(plain.animals, plain.seen, plain.animal, plain.which, plain.time_h, plain.value, plain.inputs,
                          se=0.05, lloq=hidden or math.nan, below=plain.value < hidden)  # fmt: skip
    assert data.below.any() == (hidden > 0)
    p = population(BLOOD, data, ["v", "cl"], kind, full)
    phi = np.r_[np.log([2.3, 9.0]), np.log([0.3, 0.5]), [0.4] * full, np.log([0.6, 0.15][: p.sizes[3]])]
    found = p.likelihood(phi)
    for k in range(len(phi)):
        step = 1e-4 * (np.arange(len(phi)) == k)
        slope = (p.likelihood(phi + step).value - p.likelihood(phi - step).value) / 2e-4
        assert found.gradient[:, k] == pytest.approx(slope, abs=2e-5 * (1 + np.abs(slope).max()))


def amplitude():
    """A curve whose only free parameters enter linearly, so that the marginal likelihood is normal."""
    half = (("a1", 0.5), ("a2", 0.05))
    return RateGraph(
        "amplitudes", "", "", ("fast", "slow"), tuple(ParameterSpec(n, "value", "", scale="linear") for n, _ in half),
        tuple(Transfer(c, None, Monomial((), k)) for c, (_, k) in zip(("fast", "slow"), half, strict=True)),
        (Seen("blood", tuple((c, Monomial(((n, 1),))) for c, (n, _) in zip(("fast", "slow"), half, strict=True))),),
        (Port("dose", (("fast", ONE), ("slow", ONE))),),
    )  # fmt: skip


@pytest.mark.parametrize("full", [False, True])
def test_linear_model_has_the_exact_normal_likelihood(full):
    rng = np.random.default_rng(5)
    time, animal = np.tile([0.0, 1.0, 4.0, 12.0], 3), np.repeat(np.arange(3), 4)
    value = rng.normal(3, 1, 12)
    data = PopulationData("abc", ["blood"], animal, animal * 0, time, value, {"dose": Doses(1.0)}, se=0.1)
    p = population(amplitude(), data, ["a1", "a2"], "additive", full)
    phi = np.r_[2.0, 1.5, np.log([0.7, 0.4]), [-0.6] * full, math.log(0.3)]
    L, _ = p.root(phi)
    X = np.stack([np.exp(-0.5 * time[:4]), np.exp(-0.05 * time[:4])], axis=1)
    cover = X @ L @ L.T @ X.T + (0.3**2 + 0.1**2) * np.eye(4)
    exact = [-2 * multivariate_normal(X @ [2.0, 1.5], cover).logpdf(y) for y in value.reshape(3, 4)]
    assert p.likelihood(phi).value == pytest.approx(exact, abs=1e-9)


def by_quadrature(sd, seen, limit):
    """Return the likelihood of one animal by Gauss-Hermite quadrature, and as it is computed."""
    data = PopulationData(["a"], ["blood"], [0, 0, 0], [0, 0, 0], [1, 4, 9], seen, {"dose": Doses(100)}, lloq=2.0,
                          below=[False, False, limit])  # fmt: skip
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    y = 10 * np.exp(-0.2 * np.exp(sd * node)[:, None] * data.time_h)
    each = norm(y, 0.8).pdf(seen)
    if limit:
        each[:, 2] = norm(y[:, 2], 0.8).cdf(2.0)
    exact = -2 * np.log(np.sum(weight * each.prod(axis=1)) / np.sqrt(2 * np.pi))
    return population(BLOOD, data, ["cl"], "additive").likelihood(np.log([2.0, 10.0, sd, 0.8])).value[0] - exact


def test_likelihood_approaches_the_integral_over_animals():
    """Exact to the fourth power of omega on the curve; off it and for censored values to the second (FOCE's own error)."""
    on_curve = 10 * np.exp(-0.2 * np.array([1, 4, 9]))
    on = [by_quadrature(sd, on_curve, False) for sd in (0.1, 0.025, 0.0125)]
    assert abs(on[0]) < 2e-3
    assert on[1] / on[2] == pytest.approx(16, rel=0.1)
    off = [by_quadrature(sd, [8.0, 5.5, 0.0], True) for sd in (0.1, 0.025, 0.0125)]
    assert abs(off[0]) < 0.02
    assert off[1] / off[2] == pytest.approx(4, rel=0.1)


def test_pooled_likelihood_is_the_sum_over_rows():
    data = PopulationData(list("abcd"), ["blood"], range(4), [0] * 4, [0.5, 2, 4, 9], [9.5, 6.6, 4.4, 0],
                          {"dose": Doses(100)}, lloq=2.0, below=[False, False, False, True])  # fmt: skip
    found = naive_pooled(BLOOD, data)
    cl, v, cv = (found[n].value for n in ("cl", "v", "residual_proportional_blood"))
    y = 100 / v * np.exp(-cl / v * data.time_h)
    by_hand = norm(y[:3], cv * y[:3]).logpdf(data.value[:3]).sum() + norm(y[3], cv * y[3]).logcdf(2.0)
    assert found.minus2ll == pytest.approx(-2 * by_hand, abs=1e-9)
    assert "below_lloq" in found["cl"].flags
    assert any("M3" in n for n in found.notes)


def test_standard_errors_of_a_line_are_those_of_least_squares():
    """One amplitude, additive known errors: the curvature gives 1 / sqrt(sum x^2 / se^2), widened by n / (n - 1)."""
    time = np.array([0.0, 1.0, 2.0, 5.0])
    data = PopulationData(
        "abcd", ["blood"], range(4), [0] * 4, time, [3.1, 2.0, 1.1, 0.2], {"dose": Doses(1.0)}, se=0.2
    )
    found = mixed_effects(amplitude(), data, [], "known", fixed={"a2": 1e-12})
    x = np.exp(-0.5 * time)
    assert found["a1"].value == pytest.approx(x @ data.value / (x @ x), abs=1e-7)
    assert found["a1"].se == pytest.approx(0.2 / np.sqrt(x @ x) * np.sqrt(4 / 3), rel=1e-5)
    assert found["a1"].ci_high - found["a1"].value == pytest.approx(3.182446 * found["a1"].se, rel=1e-6)
    assert found["a2"].reason == "held at this value, not estimated"
    one = naive_pooled(amplitude(), data, "known", fixed={"a2": 1e-12})
    left_out = [(x @ data.value - x[i] * data.value[i]) / (x @ x - x[i] ** 2) for i in range(4)]
    spread = np.sum((np.array(left_out) - found["a1"].value) ** 2)
    assert one["a1"].se == pytest.approx(np.sqrt(3 / 4 * spread), rel=1e-5)  # the jackknife over animals


def test_units_of_values_and_of_differences():
    """A logarithm has none, a parameter searched as it is has its own; mg over ng/mL is brought to mL."""
    time, animal = np.tile([0.0, 1.0, 4.0, 12.0], 3), np.repeat(np.arange(3), 4)
    value = np.ravel(np.array([[4.0], [5.0], [7.0]]) * np.exp(-0.5 * np.array([0.0, 1, 4, 12]))) + 0.01 * np.tile(
        [1, -1, 1, -1], 3
    )
    data = PopulationData("abc", ["blood"], animal, animal * 0, time, value, {"dose": Doses(1.0)}, unit=["ng/mL"])
    found = mixed_effects(amplitude(), data, ["a1"], "additive", fixed={"a2": 1e-12})
    assert [found[n].unit for n in ("a1", "omega_a1", "residual_additive_blood")] == ["ng/mL"] * 3
    assert found["a1"].value == pytest.approx(16 / 3, rel=0.01)
    dosed = study(2, RICH, 3)
    dosed = PopulationData(dosed.animals, dosed.seen, dosed.animal, dosed.which, dosed.time_h, dosed.value, dosed.inputs,
                           unit=["ng/mL"], dose_unit="mg")  # fmt: skip
    pooled = naive_pooled(BLOOD, dosed, start=START)
    assert [pooled[n].unit for n in ("cl", "v", "residual_proportional_blood")] == ["mL/h", "mL", "1"]
    assert pooled["v"].value == pytest.approx(1e6 * pooled.typical[1])


START = {"cl": 2.0, "v": 10.0}


@pytest.fixture(scope="module")
def rich():
    data = study(3, [0.2, 1, 3, 6, 12], 8, omega={"cl": 0.4, "v": 0.3})
    return data, mixed_effects(BLOOD, data, ["cl", "v"], start=START)


def test_estimates_do_not_depend_on_units_order_or_start(rich):
    data, found = rich
    turned = PopulationData(
        data.animals[::-1], data.seen, 7 - data.animal[::-1], data.which, data.time_h[::-1] * 60, data.value[::-1] * 1e3,
        {"dose": Doses(100.0)},
    )  # fmt: skip
    other = mixed_effects(BLOOD, turned, ["v", "cl"])
    assert other["cl"].value * 60e3 == pytest.approx(found["cl"].value, rel=1e-3)
    assert other["cl"].se * 60e3 == pytest.approx(found["cl"].se, rel=1e-2)
    for name in ("omega_cl", "omega_v", "residual_proportional_blood"):
        assert other[name].value == pytest.approx(found[name].value, rel=3e-3)
    assert other.minus2ll == pytest.approx(found.minus2ll + 2 * 40 * np.log(1e3), abs=1e-3)
    assert other.eta[::-1, ::-1] == pytest.approx(found.eta, abs=2e-3)


def test_animals_own_values_and_shrinkage(rich):
    _, found = rich
    assert found.converged
    own = np.log(found.individual) - np.log(found.typical)
    assert own == pytest.approx(found.eta, abs=1e-12)
    for k, name in enumerate(("cl", "v")):
        assert found.shrinkage[name] == pytest.approx(1 - found.eta[:, k].std(ddof=1) / found[f"omega_{name}"].value)
        assert -0.2 < found.shrinkage[name] < 0.3
    for i in range(2):  # errors and pull agree with the animal's own fit: log(y) is linear in log(v) and k for late t
        assert 0 < found.eta_se[i, 0] < found["omega_cl"].value
    assert found.aic == pytest.approx(found.minus2ll + 10)
    assert found.bic == pytest.approx(found.minus2ll + 5 * np.log(40))


def test_curvature_and_sandwich_tell_about_the_same_where_the_model_holds(rich):
    data, found = rich
    other = mixed_effects(BLOOD, data, ["cl", "v"], start=START, errors="sandwich")
    assert other["cl"].value == pytest.approx(found["cl"].value, rel=1e-6)
    assert 0.5 < other["cl"].se / found["cl"].se < 2


def test_recovers_random_truths():
    """Six studies with truths of their own: standardised errors have mean 0 and size 1 within what six can show."""
    rng, z = np.random.default_rng(11), []
    for seed in range(6):
        typical = {"cl": float(np.exp(rng.normal(0.7, 0.5))), "v": float(np.exp(rng.normal(2, 0.5)))}
        times = np.array([0.1, 0.6, 1.5, 3]) * typical["v"] / typical["cl"]
        data = study(100 + seed, times, 10, typical=typical, omega={"cl": 0.3})
        found = mixed_effects(BLOOD, data, ["cl"], start=typical)
        assert found.converged
        z += [np.log(found[n].value / typical[n]) / (found[n].se / found[n].value) for n in typical]
        z.append(np.log(found["omega_cl"].value / 0.3) / (found["omega_cl"].se / found["omega_cl"].value))
    assert abs(np.mean(z)) < 4 / np.sqrt(18)
    assert 0.3 < np.mean(np.square(z)) < 2.5


# what the data cannot tell


def test_one_value_per_animal_says_so_instead_of_a_number():
    data = study(4, [[t] for t in np.repeat([0.2, 1, 3, 8], 3)], 12, omega={"cl": 0.3})
    found = mixed_effects(BLOOD, data, ["cl", "v"], start=START)
    for name in ("omega_cl", "omega_v"):
        assert math.isnan(found[name].value)
        assert found[name].reason == ONE_VALUE
        assert found[name].flags == ("not_identifiable",)
    assert ONE_VALUE in found.notes
    assert math.isfinite(found["cl"].ci_low)
    pooled = naive_pooled(BLOOD, data, start=START)
    assert pooled["cl"].value == pytest.approx(found["cl"].value, rel=1e-4)


def test_replicates_of_one_value_per_animal_tell_it():
    """Two assays of one sample each: differences between animals become a number."""
    once = study(6, [[t] for t in np.repeat([0.2, 1, 3, 8], 5)], 20, omega={"v": 0.4}, error=0.0)
    assays = np.repeat(once.value, 2) * (1 + 0.05 * np.random.default_rng(7).standard_normal(40))
    twice = PopulationData(once.animals, ["blood"], np.repeat(once.animal, 2), [0] * 40, np.repeat(once.time_h, 2),
                           assays, once.inputs)  # fmt: skip
    found = mixed_effects(BLOOD, twice, ["v"], start=START)
    assert found["omega_v"].ci_low < 0.4 < found["omega_v"].ci_high
    assert found["residual_proportional_blood"].ci_low < 0.05 < found["residual_proportional_blood"].ci_high
    assert found["omega_v"].ci_low > 0.15


def test_serial_sacrifice_with_an_organ_tells_it():
    data = study(8, [[t] for t in np.repeat([0.2, 1, 2, 4], 5)], 20, graph=ORGANS, typical=TYPICAL, omega={"k_el": 0.5})
    found = mixed_effects(ORGANS, data, ["k_el"], start=TYPICAL)
    assert found["omega_k_el"].ci_low < 0.5 < found["omega_k_el"].ci_high


def test_difference_that_looks_like_measurement_error_is_not_identifiable():
    """A proportional error and differences in volume are the same, with one blood value each; liver knows nothing of v."""
    data = study(9, [[t] for t in np.repeat([0.2, 1, 2, 4], 4)], 16, graph=ORGANS, typical=TYPICAL, omega={"v": 0.3})
    found = mixed_effects(ORGANS, data, ["v"], start=TYPICAL)
    both = [found[n] for n in ("omega_v", "residual_proportional_blood")]
    assert all(math.isnan(e.value) for e in both)
    assert {e.reason for e in both} == {CONFOUNDED}
    assert math.isfinite(found["k_el"].ci_low)


def test_no_difference_between_animals_is_zero_not_a_small_number():
    data = study(12, RICH, 4, error=0.0)
    wobble = data.value * (1 + 0.05 * np.tile([1, -1, -1, 1], 4))
    same = PopulationData(data.animals, data.seen, data.animal, data.which, data.time_h, wobble, data.inputs)
    found = mixed_effects(BLOOD, same, ["cl"], start=START)
    assert found["omega_cl"].value == 0.0
    assert found["omega_cl"].flags == ("at_bound",)
    assert found["omega_cl"].reason
    assert found.omega[0, 0] == 0.0
    assert (found.eta == 0).all()


def test_every_flag_has_a_meaning(rich):
    assert {f for e in rich[1].estimates for f in e.flags} <= set(FLAGS)
    assert {"not_identifiable", "shrunk"} <= set(FLAGS)


def test_known_errors_leave_all_differences_to_the_animals():
    data = study(13, [[t] for t in np.repeat([0.2, 1, 3, 8], 5)], 20, omega={"v": 0.4}, error=0.0)
    known = PopulationData(
        data.animals, data.seen, data.animal, data.which, data.time_h, data.value, data.inputs, se=0.01
    )
    found = mixed_effects(BLOOD, known, ["v"], "known", start=START)
    assert found["omega_v"].ci_low < 0.4 < found["omega_v"].ci_high
    assert [e.name for e in found.estimates] == ["cl", "v", "omega_v"]


# sentences


@pytest.mark.parametrize(("change", "words"), [
    ({"random": ["ka"]}, "random has ka; name each of cl, v"),
    ({"random": ["cl", "cl"]}, "name each of cl, v once at most"),
    ({"residual": "poisson"}, "residual has 'poisson'; give one of"),
    ({"residual": {"liver": "additive"}}, "or one for each of blood"),
    ({"residual": "known"}, "residual of blood is known, but rows of it have no se"),
    ({"level": 95}, "level is 95, expected a share between 0 and 1"),
    ({"errors": "magic"}, "errors is 'magic', expected one of hessian, sandwich"),
    ({"start": {"cl": 1.0}}, "start lacks v"),
    ({"start": {"cl": -1.0, "v": 1.0}}, "start of cl is outside its range"),
    ({"fixed": {"ka": 1.0}}, "ka: not a parameter of one_compartment_iv"),
])  # fmt: skip
def test_wrong_requests_are_refused_in_words(change, words):
    data = study(1, RICH, 3)
    with pytest.raises(ValueError, match=words):
        mixed_effects(BLOOD, data, **{"random": ["cl"], **change})


def test_a_population_needs_animals_of_the_models_matrices():
    one = study(1, RICH, 1)
    with pytest.raises(ValueError, match="two animals or more"):
        mixed_effects(BLOOD, one, ["cl"])
    with pytest.raises(ValueError, match="the data observe blood, model plasma_with_organs blood, liver"):
        mixed_effects(ORGANS, study(1, RICH, 3), ["v"])
    bare = PopulationData("ab", ["blood"], [0, 1], [0, 0], [1, 2], [1, 2], {})
    with pytest.raises(ValueError, match="needs the input dose"):
        mixed_effects(BLOOD, bare, ["v"])


def test_certain_rows_and_held_models_are_refused():
    oral = build("one_compartment_oral")
    data = PopulationData("ab", ["blood"], [0, 0, 1, 1], [0] * 4, [0, 1, 0, 2], [0, 5, 0, 6.0], {"dose": Doses(100)})
    with pytest.raises(ValueError, match="blood of a is predicted to be 0 at 0 h, where a proportional error is 0 too"):
        mixed_effects(oral, data, ["cl"], start={"cl": 2, "v": 10, "ka": 1})
    with pytest.raises(ValueError, match="every parameter of one_compartment_iv is held"):
        mixed_effects(BLOOD, study(1, RICH, 2), [], fixed={"cl": 2.0, "v": 10.0})
    transfer = Transfer("blood", None, Monomial((("k", 1),)), "michaelis_menten", (("half", Monomial((("h", 1),))),))
    both = ParameterSpec("k", "1/time", ""), ParameterSpec("h", "dose", "")
    full = RateGraph("full", "", "", ("blood",), both, (transfer,), (Seen("blood", (("blood", ONE),)),),
                     (Port("dose", (("blood", ONE),)),))  # fmt: skip
    with pytest.raises(ValueError, match="population analyses need a model of first-order rates"):
        mixed_effects(full, study(1, RICH, 2), ["k"])


@pytest.mark.parametrize(("change", "words"), [
    ({"time_h": [1, np.nan]}, "not finite"),
    ({"value": [1.0]}, "value has shape"),
    ({"animal": [0, 2]}, "animal has indices 0 to 2 for 2 names"),
    ({"animal": [0, 0]}, "b has no observation"),
    ({"se": [-1, 0]}, "se has numbers that are negative"),
    ({"below": [True, False]}, "below a limit that is not given"),
    ({"unit": ["g", "g"]}, "unit has 2 entries for 1"),
    ({"inputs": {"dose": Doses(np.ones((3, 1)))}}, "input dose is for 3 animals, the data hold 2"),
    ({"inputs": {"dose": SampledCurve([0, 1], np.ones((3, 2)))}}, "input dose is for 3 animals"),
    ({"time_h": [], "value": [], "animal": [], "which": []}, "there are no observations"),
])  # fmt: skip
def test_wrong_data_are_refused_in_words(change, words):
    given = {"animals": "ab", "seen": ["blood"], "animal": [0, 1], "which": [0, 0], "time_h": [1, 2],
             "value": [2.0, 1.0], "inputs": {"dose": Doses(100)}}  # fmt: skip
    with pytest.raises(ValueError, match=words):
        PopulationData(**{**given, **change})


def table(**change):
    rows = {"subject": ["b", "a", "a", "b"], "organ": ["plasma", "plasma", "liver", "liver"], "time_h": [1.0, 2.0, 2.0, 1.0],
            "value": [9.0, np.nan, 3.0, np.nan], "unit": ["pct_id_per_g", "pct_id_per_g", "pct_id", "pct_id"],
            "below_lloq": [False, True, False, False], "lloq": [np.nan, 0.5, np.nan, np.nan],
            "se": [0.1, np.nan, 0.2, np.nan]}  # fmt: skip
    return pd.DataFrame({**rows, **change})


def test_observations_become_a_population():
    data = from_observations(table(), ORGANS)
    assert data.animals == ("a", "b")
    assert data.seen == ("blood", "liver")
    assert data.unit == ("pct_id_per_g", "pct_id")
    assert data.animal.tolist() == [1, 0, 0]
    assert data.which.tolist() == [0, 0, 1]
    assert data.below.tolist() == [False, True, False]
    assert data.se.tolist() == [0.1, 0.0, 0.2]
    assert data.notes == ("left out, without a value: 1 rows",)
    assert data.parameter_unit("dose/value").unit == "g"


@pytest.mark.parametrize(("change", "words"), [
    ({"unit": ["ng/mL", "ug/mL", "pct_id", "pct_id"]}, "plasma comes in several units"),
    ({"organ": ["plasma", "plasma", "spleen", "spleen"]}, "liver of model plasma_with_organs was not measured"),
    ({"n": [3, 3, 3, 3]}, "means of several animals"),
    ({"value": [9.0, 1.0, np.nan, np.nan]}, "liver has no row with a value or a limit"),
])  # fmt: skip
def test_tables_a_population_cannot_use_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        from_observations(table(**change), ORGANS)
    with pytest.raises(ValueError, match="lack the column unit"):
        from_observations(table().drop(columns="unit"), ORGANS)


def test_part_of_the_animals_and_their_doses():
    data = PopulationData("abc", ["blood"], [0, 1, 2, 2], [0] * 4, [1, 2, 3, 4], [1, 2, 3, 4],
                          {"dose": Doses(np.array([[1.0], [2.0], [3.0]]))})  # fmt: skip
    part = data.only([2, 0])
    assert part.animals == ("c", "a")
    assert part.animal.tolist() == [1, 0, 0]
    assert part.inputs["dose"].amount.ravel().tolist() == [3.0, 1.0]
    assert data.as_one() is data
