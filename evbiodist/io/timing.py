"""When each frame was taken: start, duration, and what the clock counts from.

A type of its own, because wrong frame times turn into plausible wrong rates. It refuses contradictions
in words and never invents a time axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Reference = Literal["injection", "scan_start"]

#: Frames may overlap by this share of a frame, as rounded times in headers do.
_SLACK = 0.02


class TimingError(ValueError):
    """Frame times that contradict each other or the image, in words."""


@dataclass(frozen=True)
class FrameTiming:
    """Start and duration of every frame, in seconds.

    Parameters
    ----------
    start_s, duration_s : one number a frame; starts increase, durations are 0 (a snapshot) or more.
    reference : what `start_s` counts from, `injection` or `scan_start`.

    Raises
    ------
    TimingError : different lengths, numbers that are not finite, starts that do not increase, durations below
        zero, or frames that overlap (end times given as durations are recognised and named).

    Examples
    --------
    >>> FrameTiming((0, 60, 120), (60, 60, 300), "injection").mid_h.tolist()
    [0.008333333333333333, 0.025, 0.075]
    >>> FrameTiming((0, 60, 120), (60, 120, 420), "injection")
    Traceback (most recent call last):
    ...
    evbiodist.io.timing.TimingError: the durations (60, 120, 420 s) are the frames' end times; give the length of each frame
    """

    start_s: tuple[float, ...]
    duration_s: tuple[float, ...]
    reference: Reference = "scan_start"

    def __post_init__(self) -> None:
        start, duration = (tuple(float(v) for v in values) for values in (self.start_s, self.duration_s))
        object.__setattr__(self, "start_s", start)
        object.__setattr__(self, "duration_s", duration)
        if len(start) != len(duration):
            raise TimingError(
                f"{len(start)} frame starts but {len(duration)} durations; give one of each for every frame"
            )
        if not start:
            raise TimingError("no frame has a time; give the start and duration of every frame")
        if not all(map(math.isfinite, (*start, *duration))):
            raise TimingError("a frame start or duration is not a number; give seconds")
        if min(duration) < 0:
            raise TimingError(
                f"frame {int(np.argmin(duration)) + 1} lasts {min(duration):g} s; durations are 0 or more"
            )
        steps = np.diff(start)
        if steps.size and steps.min() <= 0:
            at = int(np.argmin(steps))
            raise TimingError(f"frame {at + 2} starts at {start[at + 1]:g} s, not after frame {at + 1} at {start[at]:g} s; "
                              "put the frames in the order of time")  # fmt: skip
        over = np.array(duration[:-1]) - steps > _SLACK * np.maximum(steps, 1e-9)
        if over.any():
            raise TimingError(self._overlap(int(np.argmax(over))))

    def _overlap(self, at: int) -> str:
        start, duration = self.start_s, self.duration_s
        if np.allclose(duration[:-1], start[1:], rtol=1e-3, atol=1e-6) or np.allclose(
            np.array(duration[:-1]) + start[0], start[1:], rtol=1e-3, atol=1e-6
        ):
            return f"the durations ({_listed(duration)} s) are the frames' end times; give the length of each frame"
        return (f"frame {at + 1} starts at {start[at]:g} s and lasts {duration[at]:g} s, but frame {at + 2} starts at "
                f"{start[at + 1]:g} s; correct the starts or the durations")  # fmt: skip

    def __len__(self) -> int:
        return len(self.start_s)

    @classmethod
    def from_ends(cls, start_s: Sequence[float], end_s: Sequence[float], reference: Reference = "scan_start") -> Self:
        """Build the timing from starts and end times, as PMOD writes them."""
        if len(start_s) != len(end_s):
            raise TimingError(f"{len(start_s)} frame starts but {len(end_s)} ends; give one of each for every frame")
        return cls(tuple(start_s), tuple(e - s for s, e in zip(start_s, end_s, strict=True)), reference)

    def check_frames(self, frames: int) -> None:
        """Refuse a timing that belongs to another number of frames.

        Raises
        ------
        TimingError : with both numbers.
        """
        if len(self) != frames:
            raise TimingError(f"{len(self)} frame times were given, but the image holds {frames} "
                              f"frame{'s' if frames != 1 else ''}; give one time for every frame")  # fmt: skip

    def from_injection(self, injected_s: float) -> Self:
        """Return the same frames counted from the injection, which was `injected_s` after the scan's start."""
        if self.reference == "injection":
            return self
        return replace(self, start_s=tuple(s - injected_s for s in self.start_s), reference="injection")

    @property
    def mid_s(self) -> NDArray[np.float64]:
        """Middle of every frame in seconds, shape (T,)."""
        return np.asarray(self.start_s) + np.asarray(self.duration_s) / 2

    @property
    def mid_h(self) -> NDArray[np.float64]:
        """Middle of every frame in hours, shape (T,)."""
        return self.mid_s / 3600.0


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:4])
    return shown + (", ..." if len(values) > 4 else "")
