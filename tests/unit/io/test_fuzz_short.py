"""A short run of benchmarks/fuzz_readers.py: a few hundred damaged files of every format, read in a child process, or words.

The long run, of 100,000 files and more, is docs/fuzz.md.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

from evbiodist.batch.child import Child
from evbiodist.io.registry import readers

SEED, FILES = 20_240, 385


@pytest.fixture(scope="module")
def fuzz():
    """Return the modules of the long run."""
    sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
    import fuzz_cases
    import fuzz_readers

    yield fuzz_cases, fuzz_readers
    sys.path.remove(str(Path(__file__).parents[3] / "benchmarks"))


def test_damaged_files_of_every_format_are_read_or_refused_in_words(fuzz, tmp_path):
    cases, run = fuzz
    child = Child(limits=run.LIMITS)
    try:
        found = list(run.outcomes(SEED, range(FILES), child, str(tmp_path)))
    finally:
        child.close()
    told = [(o.number, cases.case(SEED, o.number).sample.name, o.outcome, o.words) for o in found
            if o.outcome not in {"read", "refused"} or o.silent_zero]  # fmt: skip
    assert told == []
    assert [o.number for o in found] == list(range(FILES))
    assert [(o.number, o.warned) for o in found if o.warned] == []
    counts = Counter(o.outcome for o in found)
    assert min(counts["read"], counts["refused"]) > FILES / 10  # neither harmless damage only, nor plain rubbish


def test_the_same_number_gives_the_same_bytes_and_another_one_others(fuzz):
    cases, _ = fuzz
    for number in (3, 58, 113):
        assert cases.case(SEED, number).files == cases.case(SEED, number).files
    assert len({tuple(sorted(cases.case(SEED, 55 * i).files.items())) for i in range(20)}) > 15
    assert sum(cases.case(SEED, n).files != cases.case(SEED, n).sample.files for n in range(FILES)) > 0.9 * FILES


def test_every_reader_takes_a_sample(fuzz, tmp_path):
    cases, _ = fuzz
    from evbiodist.io.registry import reader_for

    taken = set()
    for i, sample in enumerate(cases.samples()):
        path = cases.written(cases.Case(0, sample, sample.files, ()), tmp_path / str(i))
        if sample.format != "study":
            taken.add(reader_for(path).name)
    assert taken == {reader.name for reader in readers()}


def test_a_process_that_dies_is_the_fault_of_one_file_and_the_others_are_read(fuzz, tmp_path, monkeypatch):
    _, run = fuzz
    monkeypatch.setattr(run, "try_cases", dies_at_two)
    child = Child(limits=run.LIMITS)
    try:
        found = list(run.outcomes(SEED, range(5), child, str(tmp_path)))
    finally:
        child.close()
    assert [(o.number, o.outcome) for o in found] == [(0, "read"), (1, "read"), (2, "died"), (3, "read"), (4, "read")]


def dies_at_two(seed, numbers, tmp, tell):
    import os

    from fuzz_cases import Outcome

    for number in numbers:
        if number == 2:
            os.abort()
        tell(Outcome(number, "read", "", 0.0, 0.0))
