"""What holds for any library: no split parts a study, and adding studies moves none of those that were there."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evbiodist.library.export import Splits
from evbiodist.library.metadata import identity
from evbiodist.library.query import Filters
from evbiodist.study.vesicles import Vesicles, isolation_step

NAMES = st.text(min_size=1, max_size=30).filter(lambda t: identity(t) != "")
DEALT = st.builds(
    Splits,
    folds=st.integers(2, 20),
    test=st.floats(0, 0.5),
    validation=st.floats(0, 0.4),
    seed=st.integers(-(2**31), 2**31),
)


@given(DEALT, NAMES)
def test_a_study_lies_in_one_place_however_it_is_spelt(splits, name):
    place = splits.of(name)
    assert place == splits.of(name.upper().lower()) or identity(name) != identity(name.upper().lower())
    assert place == splits.of(f"  {name} ")
    assert place["split"] in {"train", "validation", "test"}
    assert 0 <= place["fold"] < splits.folds


@given(DEALT, st.lists(NAMES, min_size=1, max_size=30, unique_by=identity), st.lists(NAMES, max_size=10))
def test_adding_studies_moves_no_study(splits, names, more):
    before = {name: splits.of(name) for name in names}
    after = {name: splits.of(name) for name in [*more, *names]}
    assert all(after[name] == before[name] for name in names)
    assert len({place["left_out_as"] for place in before.values()}) == len(names)


@given(NAMES)
def test_a_share_of_nothing_gets_nothing(name):
    assert Splits(test=0, validation=0).of(name)["split"] == "train"


def test_many_studies_are_dealt_out_by_the_shares():
    splits = Splits(folds=4)
    places = [splits.of(f"study {i}") for i in range(4000)]
    parted = Counter(p["split"] for p in places)
    assert abs(parted["test"] / 4000 - 0.2) < 0.025  # four standard deviations
    assert abs(parted["validation"] / 4000 - 0.1) < 0.02
    assert all(abs(n / 4000 - 0.25) < 0.03 for n in Counter(p["fold"] for p in places).values())
    together = Counter((p["split"] == "test", p["fold"]) for p in places)
    assert all(
        abs(together[True, fold] / 4000 - 0.05) < 0.015 for fold in range(4)
    )  # split and fold know nothing of each other


@given(st.lists(st.tuples(st.sampled_from(["organ", "label", "study", "sex"]), NAMES), max_size=6))
def test_conditions_hold_a_mark_for_every_value_and_no_value(wanted):
    given_: dict[str, tuple[str, ...]] = {}
    for column, value in wanted:
        given_[column] = (*given_.get(column, ()), value)
    condition, values = Filters(**given_).where("observations")
    assert condition.count("?") == len(values)
    assert set(condition) <= set('"abcdefghijklmnopqrstuvwxyz_?, ()ANDORINTUE')


@given(st.text(min_size=1, max_size=40).filter(lambda t: any(c.isalnum() for c in t)))
def test_a_step_of_isolation_is_named_once_and_for_all(text):
    step = isolation_step(text)
    assert isolation_step(step) == step


@given(st.text(max_size=60))
def test_any_text_is_a_source_cell_or_a_sentence(text):
    blank = "".join(c for c in text if c.isspace() and c not in "\x1c\x1d\x1e\x1f")  # Python's own idea of white space
    trimmed = text.strip(blank)
    if trimmed and trimmed.isprintable():
        assert Vesicles(source_cell=text).source_cell == trimmed
    else:
        with pytest.raises(ValueError, match="source_cell"):
            Vesicles(source_cell=text)
