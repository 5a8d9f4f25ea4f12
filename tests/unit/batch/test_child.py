"""A process of its own for work: errors come over whole, a crash is a sentence, and the next call works."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from evbiodist.batch.child import CancelledWorkError, Child, ChildDiedError
from evbiodist.study.problems import InputError, Problem, UnreadableImage


@pytest.fixture(scope="module")
def shared():
    child = Child()
    yield child
    child.close()


@pytest.fixture
def child(shared):
    return shared


def fail(kind):
    if kind == "input":
        raise InputError([Problem("scans.csv", "-1", "a time of 0 h or later", "correct the time", row=3, field="time_h"),
                          Problem("study.toml", "", "a key 'name'", "add it")])  # fmt: skip
    if kind == "image":
        raise UnreadableImage("a/b.tif", "truncated")
    if kind == "odd":
        raise OddError(1, 2)
    raise KeyError(kind)


class OddError(Exception):
    """Cannot be rebuilt from its arguments, like many of other libraries."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


def count_slowly(to, *, tell):
    for i in range(to):
        tell(i)
        time.sleep(0.01)
    return to


def stay(marker, *, tell):
    Path(marker).touch()
    tell("began")
    time.sleep(60)


def loud(text):
    print(text)
    os.write(1, b"straight to the pipe\n")
    sys.stdout.flush()
    return text


def double(array):
    return array * 2


def local_result():
    return lambda: None


def test_what_was_wrong_with_the_input_comes_over_with_every_problem(child):
    with pytest.raises(InputError) as caught:
        child.call(fail, "input")
    assert [(p.file, p.row, p.field) for p in caught.value.problems] == [
        ("scans.csv", 3, "time_h"),
        ("study.toml", None, None),
    ]
    with pytest.raises(UnreadableImage, match=r"^b\.tif: truncated$") as caught:
        child.call(fail, "image")
    assert (caught.value.path, caught.value.reason) == (Path("a/b.tif"), "truncated")
    with pytest.raises(KeyError, match="gone"):
        child.call(fail, "gone")


def test_an_error_that_cannot_be_rebuilt_comes_over_as_its_words(child):
    with pytest.raises(ValueError, match=r"^1 and 2$"):
        child.call(fail, "odd")
    assert child.call(sorted, [2, 1]) == [1, 2]


@pytest.mark.parametrize("function", [crash, os.abort])
def test_a_crash_is_a_sentence_and_the_next_call_works(child, function):
    with pytest.raises(ChildDiedError, match=r"a damaged file that crashes the decoder.*export the file again"):
        child.call(function)
    assert child.call(sorted, [2, 1]) == [1, 2]


def test_what_it_tells_arrives_in_order_before_the_result(child):
    heard = []
    assert child.call(count_slowly, 20, tell=heard.append) == 20
    assert heard == list(range(20))


def test_work_is_called_off_from_another_thread_and_the_next_call_works(child, tmp_path):
    began = threading.Event()
    caught = []

    def wait():
        try:
            child.call(stay, str(tmp_path / "began"), tell=lambda _: began.set())
        except BaseException as err:
            caught.append(err)

    thread = threading.Thread(target=wait)
    thread.start()
    assert began.wait(30)
    child.cancel()
    thread.join(30)
    assert not thread.is_alive()
    [error] = caught
    assert isinstance(error, CancelledWorkError)
    assert str(error) == "called off; what was finished is kept"
    assert child.call(sorted, [2, 1]) == [1, 2]


def test_work_that_waits_for_its_turn_can_be_called_off_before_it_begins(child):
    with pytest.raises(CancelledWorkError, match="before it began"):
        child.call(sorted, [2, 1], wanted=lambda: False)
    assert child.call(sorted, [2, 1]) == [1, 2]


def test_calls_of_several_threads_stand_in_line(child):
    found = {}

    def ask(i):
        found[i] = child.call(count_slowly, i, tell=lambda _: None)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {i: i for i in range(5)}


def test_large_arrays_come_and_go_to_the_last_bit(child):
    array = np.random.default_rng(5).integers(0, 2**63, (30, 500, 500))  # 60 MB
    assert np.array_equal(child.call(double, array), array * 2)


def test_what_the_work_prints_disturbs_nothing_and_goes_to_standard_error(capfd):
    child = Child()
    assert child.call(loud, "words of a library") == "words of a library"
    assert child.call(sorted, [2, 1]) == [1, 2]
    child.close()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "words of a library\nstraight to the pipe\n")


def test_a_result_that_cannot_travel_is_a_sentence_and_the_next_call_works(child):
    with pytest.raises(ValueError, match="its result cannot leave the process"):
        child.call(local_result)
    assert child.call(sorted, [2, 1]) == [1, 2]


def test_a_function_that_cannot_travel_is_refused_and_the_next_call_works(child):
    with pytest.raises(Exception, match="lambda"):
        child.call(lambda: None)
    assert child.call(sorted, [2, 1]) == [1, 2]


def test_the_same_process_serves_until_it_is_closed_and_closing_twice_is_harmless():
    child = Child()
    first = child.call(os.getpid)
    assert child.call(os.getpid) == first != os.getpid()
    child.close()
    child.close()
    assert not os.path.exists(f"/proc/{first}")
    assert child.call(os.getpid) != first  # a call after closing starts another
    child.close()


def test_modules_are_loaded_before_the_first_call():
    child = Child(("wave",))
    assert child.call(loaded, "wave")
    assert not child.call(loaded, "aifc_that_nobody_named")
    child.close()


def loaded(name):
    return name in sys.modules
