"""Frame timing refuses contradictions in words."""

import pytest

from evbiodist.io.timing import FrameTiming, TimingError


def test_times_are_seconds_and_hours():
    timing = FrameTiming((0, 30, 60), (30, 30, 60), "injection")
    assert timing.mid_s.tolist() == [15, 45, 90]
    assert timing.mid_h[2] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("start", "duration", "words"),
    [
        ((0, 60), (60,), "2 frame starts but 1 durations"),
        ((), (), "no frame has a time"),
        ((0, float("nan")), (60, 60), "not a number"),
        ((0, 60), (60, -1), "frame 2 lasts -1 s"),
        ((0, 60, 60), (60, 1, 1), "frame 3 starts at 60 s, not after frame 2"),
        ((0, 60, 120), (60, 120, 420), "are the frames' end times"),
        ((30, 90, 150), (60, 120, 300), "are the frames' end times"),
        ((0, 60, 120), (100, 60, 60), "frame 1 starts at 0 s and lasts 100 s, but frame 2 starts at 60 s"),
    ],
)
def test_contradictions_are_named(start, duration, words):
    with pytest.raises(TimingError, match=words):
        FrameTiming(start, duration)


def test_gaps_and_rounded_times_are_allowed():
    assert len(FrameTiming((0, 100), (60, 60))) == 2
    assert len(FrameTiming((0, 60), (60.5, 60))) == 2


def test_more_times_than_frames():
    with pytest.raises(TimingError, match=r"3 frame times were given, but the image holds 2 frames"):
        FrameTiming((0, 1, 2), (1, 1, 1)).check_frames(2)


def test_ends_become_durations_and_injection_moves_the_clock():
    timing = FrameTiming.from_ends((0, 10), (10, 30))
    assert timing.duration_s == (10, 20)
    assert timing.from_injection(-5).start_s == (5, 15)
    with pytest.raises(TimingError, match="2 frame starts but 1 ends"):
        FrameTiming.from_ends((0, 10), (10,))
