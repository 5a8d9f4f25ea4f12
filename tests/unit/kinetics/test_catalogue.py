"""A user's own models: equal to the catalogue's where they say the same, refused in sentences where they say nothing."""

import numpy as np
import pytest

from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs, read_models, typical
from evbiodist.kinetics.models.inputs import Doses, Exponentials
from evbiodist.kinetics.models.solve import Design, solve

TIMES = np.array([0.0, 0.1, 1.0, 5.0, 24.0])
ORGANS = ("liver", "spleen")
#: The catalogue's models once more, as a user would write them.
MINE = """
[models.my_organs]
title = "Blood with organs"
source = "mine"
compartments = ["blood", "{organ}"]
inputs = [{ name = "dose", into = [{ compartment = "blood" }] }]
parameters = [
  { name = "v", dimension = "dose/value", description = "volume" },
  { name = "k_el", dimension = "1/time", description = "elimination" },
  { name = "k_in_{organ}", dimension = "1/time", description = "uptake" },
  { name = "k_out_{organ}", dimension = "1/time", description = "return" },
]
transfers = [
  { from = "blood", rate = { k_el = 1 } },
  { from = "blood", to = "{organ}", rate = { "k_in_{organ}" = 1 } },
  { from = "{organ}", to = "blood", rate = { "k_out_{organ}" = 1 } },
]
observations = [
  { name = "blood", terms = [{ compartment = "blood", factor = { v = -1 } }] },
  { name = "{organ}", terms = [{ compartment = "{organ}" }] },
]

[models.my_tissue]
title = "One tissue"
source = "mine"
compartments = ["tissue"]
inputs = [
  { name = "plasma", into = [{ compartment = "tissue", factor = { k1 = 1 } }], lag = "delay" },
  { name = "whole_blood", into = [], lag = "delay" },
]
parameters = [
  { name = "k1", dimension = "1/time", description = "in" },
  { name = "k2", dimension = "1/time", description = "out" },
  { name = "v_b", dimension = "1", description = "blood", scale = "logit" },
  { name = "delay", dimension = "time", description = "delay", scale = "linear", fixed = 0 },
]
transfers = [{ from = "tissue", rate = { k2 = 1 } }]
observations = [{ name = "tissue", terms = [
  { compartment = "tissue", factor = { "1-v_b" = 1 } },
  { input = "whole_blood", factor = { v_b = 1 } },
] }]

[models.my_split]
title = "Two half sinks out of one compartment, by number"
source = "mine"
compartments = ["central"]
inputs = [{ name = "dose", into = [{ compartment = "central" }] }]
parameters = [
  { name = "cl", dimension = "dose/value/time", description = "clearance", lower = 0.001, upper = 1000 },
  { name = "v", dimension = "dose/value", description = "volume" },
]
transfers = [
  { from = "central", rate = { number = 0.5, cl = 1, v = -1 } },
  { from = "central", rate = { number = 0.5, cl = 1, v = -1 } },
]
observations = [{ name = "blood", terms = [{ compartment = "central", factor = { v = -1 } }] }]
"""


@pytest.fixture
def write(tmp_path):
    def to(text):
        path = tmp_path / "models.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to


#: How most parameters of faulty models begin.
K = '{ name = "k", dimension = "1/time", description = "d"'


def transfer(more, rate="{ k = 1 }"):
    """A model whose one transfer out of `a` says more."""
    return one_model(transfers=f'[{{ from = "a", rate = {rate}{more} }}]')


def one_model(**parts):
    """A small model as TOML, with parts replaced."""
    given = {"title": '"t"', "source": '"s"', "compartments": '["a", "b"]',
             "inputs": '[{ name = "dose", into = [{ compartment = "a" }] }]',
             "parameters": '[{ name = "k", dimension = "1/time", description = "d" }]',
             "transfers": '[{ from = "a", to = "b", rate = { k = 1 } }]',
             "observations": '[{ name = "blood", terms = [{ compartment = "a" }] }]', **parts}  # fmt: skip
    return "[models.mine]\n" + "\n".join(f"{k} = {v}" for k, v in given.items() if v is not None)


@pytest.mark.parametrize(
    ("mine", "theirs", "theta", "organs"),
    [
        ("my_organs", "plasma_with_organs", [2.0, 0.5, 1.2, 0.1, 0.05, 0.02], ORGANS),
        ("my_tissue", "one_tissue", [6.0, 2.0, 0.07, 0.03], ()),
    ],
)
def test_a_users_model_is_the_catalogues_to_the_last_digit(write, mine, theirs, theta, organs):
    models = read_models(write(MINE))
    a, b = build(mine, organs, models=models), build(theirs, organs)
    assert a.names == b.names
    assert needs_organs(mine, models) == needs_organs(theirs) == bool(organs)
    curve = Exponentials([9.0, 1.0], [2.0, 0.1])
    inputs = {p.name: Doses(100.0) if p.name == "dose" else curve for p in b.ports}
    design = Design(TIMES, inputs=inputs)
    for x, y in zip(*(solve(g, np.array([theta]), design, derivatives=True) for g in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_numbers_in_rates_add_up(write):
    a, b = build("my_split", models=read_models(write(MINE))), build("one_compartment_iv")
    theta = np.array([3.0, 5.0])
    for x, y in zip(a.predict(theta, TIMES, 7.0, True), b.predict(theta, TIMES, 7.0, True), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-14)
    assert [(p.lower, p.upper) for p in a.parameters] == [(0.001, 1000), (None, None)]


def test_a_users_model_can_be_fitted_by_name(write):
    from evbiodist.kinetics.fitting.data import curve_data

    t = np.array([0.5, 1.0, 2.0, 4.0])
    found = fit(curve_data(t, 8 * np.exp(-0.25 * t)), "my_split", dose=16, models=read_models(write(MINE)))
    np.testing.assert_allclose(found.theta, [0.5, 2.0], rtol=1e-6)


def test_a_users_model_of_a_form_is_the_linear_one_at_low_amounts(write):
    text = one_model(
        parameters=f'[{K} }}, {{ name = "h", dimension = "dose", description = "d" }}]',
        transfers='[{ from = "a", rate = { k = 1 }, form = "michaelis_menten", constants = { half = { h = 1 } } }]',
    )
    graph = build("mine", models=read_models(write(text)))
    assert not graph.linear
    low = graph.predict(np.array([0.7, 1e7]), TIMES, 1.0)[0][:, 0]
    np.testing.assert_allclose(low, np.exp(-0.7 * TIMES), rtol=2e-4, atol=1e-9)


P = "[models.mine] parameter 1"
T = "[models.mine] transfer 1"
FAULTS = {
    "unknown key": (one_model(titel='"x"'), "[models.mine] has the unknown key 'titel'; did you mean 'title'?"),
    "missing key": (one_model(source=None), "[models.mine] lacks source"),
    "no table": ("[models]\nmine = 3", "[models.mine] is not a table; write { title = ..."),
    "not a list": (one_model(transfers='{ from = "a" }'), "[models.mine] transfers is not a list"),
    "compartments a word": (one_model(compartments='"a"'), "[models.mine] compartments is not a list"),
    "inner not a list": (one_model(observations='[{ name = "blood", terms = "a" }]'),
                         "[models.mine] observation 1: terms is not a list"),
    "into not a list": (one_model(inputs='[{ name = "dose", into = "a" }]'), "[models.mine] input 1: into is not a list"),
    "item not a table": (one_model(transfers='["a"]'), f"{T} is not a table; write {{ from = ..., rate = ... }}"),
    "transfer key": (one_model(transfers='[{ from = "a", too = "b", rate = { k = 1 } }]'),
                     f"{T} has the unknown key 'too'; did you mean 'to'?"),
    "no rate": (one_model(transfers='[{ from = "a" }]'), f"{T} lacks rate"),
    "form": (transfer(', form = "michaelis_mentem"'),
             f"{T} has the form 'michaelis_mentem'; did you mean 'michaelis_menten'?"),
    "form a number": (transfer(', form = 3'), f"{T} has the form 3; known:"),
    "form a list": (transfer(', form = [1]'), f"{T} has the form [1]; known:"),
    "constants": (transfer(', constants = { half = { k = 1 } }'),
                  f"{T}: form first_order needs the constants none"),
    "constant no powers": (transfer(', form = "michaelis_menten", constants = { half = 3 }'),
                           f"{T}: half is not a table of powers"),
    "capacity of what leaves": (transfer(', form = "capacity", constants = { capacity = { k = 1 } }'),
                                f"{T}: form capacity depends on what the target holds, and nothing is named; add to = ..."),
    "half power": (one_model(transfers='[{ from = "a", rate = { k = 0.5 } }]'),
                   f"{T}: rate has k = 0.5; powers are whole numbers from -20 to 20 other than 0"),
    "power 0": (one_model(transfers='[{ from = "a", rate = { k = 0 } }]'), f"{T}: rate has k = 0; powers are whole"),
    "power true": (one_model(transfers='[{ from = "a", rate = { k = true } }]'), f"{T}: rate has k = True; powers are whole"),
    "number a word": (one_model(transfers='[{ from = "a", rate = { number = "x", k = 1 } }]'),
                      f"{T}: rate has number = 'x'; expected a plain number"),
    "number nan": (one_model(transfers='[{ from = "a", rate = { number = nan, k = 1 } }]'),
                   f"{T}: rate has number = nan; expected a plain number"),
    "rate a word": (one_model(transfers='[{ from = "a", rate = "__import__(\'os\').remove(\'x\')" }]'),
                    f"{T}: rate is not a table of powers"),
    "factor a word": (one_model(observations='[{ name = "blood", terms = [{ compartment = "a", factor = "v" }] }]'),
                      "[models.mine] observation 1, term 1: factor is not a table of powers"),
    "neither": (one_model(observations='[{ name = "blood", terms = [{ factor = { k = 1 } }] }]'),
                "observation 1, term 1 needs either compartment or input"),
    "both": (one_model(observations='[{ name = "blood", terms = [{ compartment = "a", input = "dose" }] }]'),
             "observation 1, term 1 needs either compartment or input"),
    "camel": (one_model(parameters='[{ name = "kEl", dimension = "1/time", description = "d" }]'),
              f"{P} has the name 'kEl', which is not lower snake case"),
    "parameter a number": (one_model(parameters='[{ name = 3, dimension = "1/time", description = "d" }]'), f"{P} has the name 3"),
    "compartment camel": (one_model(compartments='["a", "B c"]'), "[models.mine] compartment 'B c' is not lower snake case"),
    "compartment a number": (one_model(compartments='["a", "b", 3]'), "[models.mine] compartment 3 is not lower snake case"),
    "observed camel": (one_model(observations='[{ name = "Blood!", terms = [{ compartment = "a" }] }]'),
                       "[models.mine] observation 1 has the name 'Blood!', which is not lower snake case"),
    "input a number": (one_model(inputs='[{ name = 7, into = [{ compartment = "a" }] }]'),
                       "[models.mine] input 1 has the name 7, which is not lower snake case"),
    "model name": (one_model().replace("models.mine", "models.Mine"), "[models.Mine] has a name that is not lower snake case"),
    "scale": (one_model(parameters=f'[{K}, scale = "lin" }}]'),
              f"{P} has the scale 'lin'; expected one of log, logit, linear"),
    "fixed": (one_model(parameters=f'[{K}, fixed = true }}]'),
              f"{P}: fixed, lower and upper must be numbers"),
    "bound": (one_model(parameters=f'[{K}, lower = inf }}]'),
              f"{P}: fixed, lower and upper must be numbers"),
    "dimension": (one_model(parameters='[{ name = "k", dimension = "per hour", description = "d" }]'),
                  f"{P} has the dimension 'per hour'"),
    "dimension a number": (one_model(parameters='[{ name = "k", dimension = 1, description = "d" }]'), f"{P} has the dimension 1"),
    "twice": (one_model(parameters=f'[{K} }}, {K} }}]'),
              "model mine has k more than once"),
    "compartment twice": (one_model(compartments='["a", "b", "a"]'), "model mine has a more than once"),
    "nowhere": (one_model(transfers='[{ from = "a", to = "c", rate = { k = 1 } }]'), "model mine uses c, which it does not declare"),
    "from a number": (one_model(transfers='[{ from = 1, rate = { k = 1 } }]'), f"{T} has the from 1, which is not lower snake case"),
    "from a list": (one_model(transfers='[{ from = ["a"], rate = { k = 1 } }]'),
                    f"{T} has the from ['a'], which is not lower snake case"),
    "undeclared": (one_model(transfers='[{ from = "a", rate = { k = 1, import = 1 } }]'),
                   "model mine uses import, which it does not declare"),
    "code for a factor": (one_model(transfers="[{ from = \"a\", rate = { \"__import__('os').system('true')\" = 1 } }]"),
                          "model mine uses __import__('os').system('true'), which it does not declare"),
    "lag": (one_model(inputs='[{ name = "dose", into = [{ compartment = "a" }], lag = "wait" }]'), "model mine uses wait"),
    "input not declared": (one_model(observations='[{ name = "blood", terms = [{ input = "plasma" }] }]'), "model mine uses plasma"),
    "nothing seen": (one_model(observations="[]"), "[models.mine] has no observations"),
    "nothing given": (one_model(inputs="[]"), "[models.mine] has no inputs"),
    "start a word": (one_model() + '\n[models.mine.start]\nk = "x"', "[models.mine.start] k is not a number above 0"),
    "start of nothing": (one_model() + "\n[models.mine.start]\nkk = 1.0",
                         "[models.mine.start] kk is not a parameter; did you mean 'k'?"),
    "a hole without a list": (one_model(compartments='["a", "b", "c_{zz}"]'),
                              "[models.mine] mentions {zz}, which is no list of [models.mine.repeat]"),
    "lag a list": (one_model(inputs='[{ name = "dose", into = [{ compartment = "a" }], lag = [1] }]'),
                   "input 1 has the lag [1], which is not lower snake case"),
    "a great power": (one_model(transfers='[{ from = "a", rate = { k = 1' + "0" * 400 + " } }]"), f"{T}: rate has k = 1000"),
    "a great number": (one_model(transfers='[{ from = "a", rate = { k = 1, number = 1' + "0" * 400 + " } }]"),
                       "expected a plain number"),
    "a great bound": (one_model(parameters='[{ name = "k", dimension = "1/time", description = "d", upper = 1' + "0" * 400 + " }]"),
                      f"{P}: fixed, lower and upper must be numbers"),
    "too many digits": ("n = 1" + "0" * 5000, "models.toml cannot be read as TOML"),
    "too deep": ("n = " + "[" * 100_000, "models.toml cannot be read as TOML"),
    "syntax": ("[models.mine\ntitle = 3", "models.toml cannot be read as TOML: "),
    "no models": ('[model.mine]\ntitle = "x"', "models.toml has model, expected tables [models.<name>] only"),
    "nothing": ("", "models.toml has nothing, expected tables [models.<name>] only"),
    "more than models": (one_model() + "\n[routes]\noral = 'x'", "models.toml has models, routes, expected tables"),
}  # fmt: skip


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_each_fault_has_its_sentence(write, fault):
    text, said = FAULTS[fault]
    with pytest.raises(ValueError) as err:  # noqa: PT011  the sentence is compared below, brackets and all
        read_models(write(text))
    assert said in str(err.value)


def test_all_faults_are_said_at_once(write):
    text = one_model(titel='"x"', source=None)
    edges = '[{ from = "a", rate = { k = 0.5 } }, { from = "a", tu = "b", rate = { k = 1 } }]'
    camel = '[{ name = "K", dimension = "1/time", description = "d" }]'
    text += "\n" + one_model(transfers=edges, parameters=camel).replace("mine", "second")
    with pytest.raises(ValueError, match="unknown key 'titel'") as err:
        read_models(write(text))
    lines = str(err.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith("models.toml: [models.") for line in lines)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.toml cannot be read as TOML: .*No such file"):
        read_models(tmp_path / "absent.toml")
    with pytest.raises(ValueError, match="cannot be read as TOML"):
        read_models(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.toml cannot be read as TOML"):
        read_models(tmp_path / "bytes.toml")


def test_every_model_of_the_catalogue_would_be_accepted_from_a_user():
    from evbiodist.kinetics.models.catalogue import _problems

    assert not [p for name, entry in catalogue().items() for p in _problems(name, entry)]


def test_names_and_organs_are_asked_for():
    with pytest.raises(ValueError, match="there is no model 'one_compartment_vi'; did you mean 'one_compartment_iv'"):
        build("one_compartment_vi")
    with pytest.raises(ValueError, match="model plasma_with_organs needs organs; the data hold blood only"):
        build("plasma_with_organs")
    with pytest.raises(ValueError, match="model one_compartment_iv has no plausible value for cl, v"):
        typical(build("one_compartment_iv"))
    assert build("one_compartment_iv", ORGANS) is build("one_compartment_iv")


def test_equations_of_a_users_model_are_text(write):
    graph = build("my_tissue", models=read_models(write(MINE)))
    assert graph.equations() == [
        "dA_tissue/dt = - k2 * A_tissue + k1 * plasma(t - delay)",
        "tissue = (1 - v_b) * A_tissue + v_b * whole_blood(t - delay)",
    ]
    assert graph.diagram() == ["plasma --k1--> [tissue]", "[tissue] --k2--> out"]
